//! Questions: somebody waits for the answer, and has one within the event's timeout, however the servers behave.

use super::{
    client::{Client, Origin, until},
    event::{Event, Verdict},
    intake::{Charge, Intake},
    notices::Notices,
};
use crate::config::HookUrl;
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::FutureExt;
use glommio::spawn_local;
use hashbrown::HashMap;
use serde_json::Value;
use std::{cell::RefCell, panic::AssertUnwindSafe, rc::Rc, sync::Arc, time::Instant};

/// Calls of one URL at once; what is more waits, and its time runs.
const CALLS_MAX: usize = 64;
/// What one takes beside its texts, in bytes: itself, and the task that asks.
pub(super) const QUESTION_BYTES: usize = 6 << 10;

/// One question; it is answered though it be dropped.
pub(super) struct Question {
    /// Without its body.
    pub(super) event: Event,
    pub(super) body: Bytes,
    pub(super) deadline: Instant,
    pub(super) answer: Option<Sender<Verdict>>,
    pub(super) charge: Option<Charge>,
    pub(super) intake: Arc<Intake>,
}

impl Question {
    pub(super) fn decide(&mut self, verdict: Verdict) {
        if let Some(answer) = self.answer.take() {
            // Who asked may be gone.
            drop(answer.try_send(verdict));
        }
    }

    /// Nobody has answered as one should.
    pub(super) fn fail(&mut self, url: Option<&HookUrl>, why: &str) {
        let (action, fail_open) = (self.event.action, self.event.fail_open);
        if fail_open {
            self.intake.failed(action, url, &format!("{why}; allowed (on_failure allow)"));
            self.decide(Verdict::Allowed(Value::Null));
        } else {
            self.intake.failed(action, url, &format!("{why}; refused (on_failure reject)"));
            self.decide(Verdict::Refused(format!("{action}: no answer")));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.fail(None, "it was lost");
        }
    }
}

/// Places for calls of one URL.
struct Places {
    give: Sender<()>,
    take: Receiver<()>,
}

impl Places {
    fn new() -> Self {
        let (give, take) = async_channel::bounded(CALLS_MAX);
        // It has room for them.
        (0..CALLS_MAX).for_each(|_| _ = give.try_send(()));
        Self { give, take }
    }
}

pub(super) struct Questions {
    client: Rc<Client>,
    notices: Rc<Notices>,
    places: RefCell<HashMap<HookUrl, Rc<Places>>>,
}

/// One call's place, and its mark on the server that is asked.
struct Place<'a> {
    questions: &'a Questions,
    url: &'a HookUrl,
    places: Rc<Places>,
    origin: Rc<Origin>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.origin.questions.set(self.origin.questions.get() - 1);
        // There is room for what was taken.
        _ = self.places.give.try_send(());
        let mut places = self.questions.places.borrow_mut();
        if self.places.give.is_full() && Rc::strong_count(&self.places) <= 2 {
            places.remove(self.url);
        }
    }
}

impl Questions {
    pub(super) fn new(client: Rc<Client>, notices: Rc<Notices>) -> Rc<Self> {
        Rc::new(Self { client, notices, places: RefCell::default() })
    }

    /// Asks, on a task of its own.
    pub(super) fn ask(self: &Rc<Self>, question: Question) {
        let questions = Rc::clone(self);
        let work = async move {
            // A panic costs its own question.
            drop(AssertUnwindSafe(questions.answer(question)).catch_unwind().await);
        };
        debug_assert!(size_of_val(&work) + 1024 <= QUESTION_BYTES, "{}", size_of_val(&work));
        spawn_local(work).detach();
    }

    async fn answer(&self, mut question: Question) {
        let (deadline, urls) = (question.deadline, std::mem::take(&mut question.event.urls));
        let asked = RefCell::new(None);
        let result = until(deadline, self.ask_all(&mut question, &urls, &asked)).await;
        match result.unwrap_or_else(|| Err("no answer in time".to_owned())) {
            Ok(verdict) => question.decide(verdict),
            Err(why) => question.fail(asked.take(), &why),
        }
    }

    /// Asks one URL after the other, until one refuses.
    async fn ask_all<'a>(
        &self,
        question: &mut Question,
        urls: &'a [HookUrl],
        asked: &RefCell<Option<&'a HookUrl>>,
    ) -> Result<Verdict, String> {
        let mut data = Value::Null;
        for (at, url) in urls.iter().enumerate() {
            asked.replace(Some(url));
            if at > 0 && !question.charge.as_mut().is_none_or(|charge| charge.move_to(url)) {
                return Err("too many events wait".to_owned());
            }
            match self.call(question, url).await? {
                Verdict::Allowed(said) => data = said,
                refused @ Verdict::Refused(_) => return Ok(refused),
            }
        }
        Ok(Verdict::Allowed(data))
    }

    async fn call(&self, question: &Question, url: &HookUrl) -> Result<Verdict, String> {
        let Question { event, body, deadline, .. } = question;
        let place = self.place(url, event).await;
        // What came before comes first, unless it takes half of what time is left.
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let earlier = self.notices.settle(place.origin.id, event.client, event.publishes.as_deref());
        until(half, Box::pin(earlier)).await;
        // Many wait for their place, and few call: those alone take what a call takes.
        let answer = Box::pin(self.client.post(&place.origin, url, body)).await?;
        Verdict::read(answer.status, &answer.body)
    }

    async fn place<'a>(&'a self, url: &'a HookUrl, event: &Event) -> Place<'a> {
        let places = self.places.borrow_mut().entry(Arc::clone(url)).or_insert_with(|| Rc::new(Places::new())).clone();
        // It is never closed: `places` has both ends.
        _ = places.take.recv().await;
        let origin = self.client.origin(url, event.trust.as_ref());
        origin.questions.set(origin.questions.get() + 1);
        Place { questions: self, url, places, origin }
    }
}
