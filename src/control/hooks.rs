//! HTTP hooks: a POST with SRS's JSON, on threads of their own.
//!
//! A shard hands an event over and goes on; who asked waits without holding anything up. What hangs is bounded
//! on all sides: the time of an answer, the calls of one URL at once, the threads, the events that wait.

use crate::sys::CpuMask;
use async_channel::{Receiver, Sender};
use rustls::crypto::aws_lc_rs;
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use ureq::tls::TlsConfig;

/// Most threads; each is one call.
const THREADS_MAX: usize = 64;
/// Most calls to one URL at once, so that one that hangs leaves threads to others.
const CALLS_PER_URL_MAX: usize = 16;
/// Most events that wait; what is over it is decided as if nobody had answered.
const EVENTS_MAX: usize = 4096;
/// Most bytes of bodies and URLs of those that wait: an encoder chooses how long its strings are.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// A thread that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 512 << 10;

/// Something that happens, and whom it concerns.
#[derive(Clone, Debug)]
pub struct Event {
    /// As SRS calls it, `on_publish` for example.
    pub action: &'static str,
    /// All of them must allow.
    pub urls: Vec<String>,
    /// For all URLs together.
    pub timeout: Duration,
    /// Whether no answer allows.
    pub fail_open: bool,
    /// SRS's JSON.
    pub body: Map<String, Value>,
}

/// What comes of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may be; what the answer says besides (`data`), of one URL alone.
    Allowed(Value),
    /// It may not, and why.
    Refused(String),
}

struct Job {
    /// Without its body.
    event: Box<Event>,
    body: String,
    deadline: Instant,
    /// `None` where nobody waits for an answer.
    answer: Option<Sender<Verdict>>,
}

/// What waits for one URL, and how many calls of it run.
#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    running: usize,
}

#[derive(Default)]
struct State {
    /// By first URL: whoever hands an event over holds the lock for no longer than it takes to find its line.
    lines: HashMap<String, Line>,
    waiting: usize,
    /// Of those that wait.
    bytes: usize,
    threads: usize,
    idle: usize,
}

struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    agent: ureq::Agent,
    /// Where its threads may run: a shard that starts one is pinned.
    cpus: Option<CpuMask>,
}

/// Calls hooks, on the CPUs of the thread that made it. Clones share everything.
#[derive(Clone)]
pub struct Hooks(Arc<Pool>);

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Default for Hooks {
    fn default() -> Self {
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            // An answer from elsewhere is none.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .proxy(None)
            .user_agent(concat!("corecast/", env!("CARGO_PKG_VERSION")));
        Self(Arc::new(Pool {
            state: Mutex::default(),
            changed: Condvar::new(),
            agent: config.build().into(),
            cpus: CpuMask::of_this_thread(),
        }))
    }
}

impl Hooks {
    /// Asks all URLs of an event; the verdict comes within its timeout, however they behave.
    pub fn ask(&self, event: Event) -> Receiver<Verdict> {
        let (answer, verdict) = async_channel::bounded(1);
        self.push(event, Some(answer));
        verdict
    }

    /// Tells an event; nobody waits for it.
    pub fn tell(&self, event: Event) {
        self.push(event, None);
    }

    fn push(&self, mut event: Event, answer: Option<Sender<Verdict>>) {
        let deadline = Instant::now() + event.timeout;
        let body = Value::Object(std::mem::take(&mut event.body)).to_string();
        let job = Job { event: Box::new(event), body, deadline, answer };
        let bytes = job.bytes();
        let mut state = self.0.lock();
        if state.waiting >= EVENTS_MAX || state.bytes + bytes > EVENT_BYTES_MAX {
            drop(state);
            return job.fail("too many events wait");
        }
        let url = job.event.urls.first().cloned().unwrap_or_default();
        state.lines.entry(url).or_default().jobs.push_back(job);
        state.waiting += 1;
        state.bytes += bytes;
        if state.idle == 0 && state.threads < THREADS_MAX {
            state.threads += 1;
            let pool = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("hook".to_owned()).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(move || pool.work()) {
                state.threads -= 1;
                tracing::error!(%error, "hooks: no thread");
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        if let Some(cpus) = &self.cpus {
            cpus.apply();
        }
        let mut state = self.lock();
        loop {
            if let Some((url, job)) = state.next_job() {
                drop(state);
                job.run(&self.agent);
                state = self.lock();
                state.ended(&url);
                // Somebody may have waited for this URL.
                self.changed.notify_one();
                continue;
            }
            state.idle += 1;
            let (again, waited) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if waited.timed_out() && state.waiting == 0 {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl State {
    /// The job that has waited longest among those whose URL has room, or whose time is over.
    fn next_job(&mut self) -> Option<(String, Job)> {
        let now = Instant::now();
        let due = |(_, line): &(&String, &mut Line)| {
            let room = line.running < CALLS_PER_URL_MAX;
            line.jobs.front().is_some_and(|job| room || job.deadline <= now)
        };
        let lines = self.lines.iter_mut().filter(due);
        let (url, line) = lines.min_by_key(|(_, line)| line.jobs.front().map(|job| job.deadline))?;
        let job = line.jobs.pop_front()?;
        line.running += 1;
        self.waiting -= 1;
        self.bytes -= job.bytes();
        Some((url.clone(), job))
    }

    fn ended(&mut self, url: &str) {
        let Some(line) = self.lines.get_mut(url) else { return };
        line.running -= 1;
        if line.running == 0 && line.jobs.is_empty() {
            self.lines.remove(url);
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        self.body.len() + self.event.urls.iter().map(String::len).sum::<usize>()
    }

    fn run(self, agent: &ureq::Agent) {
        match self.ask_all(agent) {
            Ok(verdict) => self.decide(verdict),
            Err(why) => self.fail(&why),
        }
    }

    /// Asks one URL after the other, until one refuses.
    fn ask_all(&self, agent: &ureq::Agent) -> Result<Verdict, String> {
        let mut data = Value::Null;
        for url in &self.event.urls {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("no answer in time".to_owned());
            }
            match call(agent, url, &self.body, left).map_err(|error| format!("{url}: {error}"))? {
                Verdict::Allowed(said) => data = said,
                refused @ Verdict::Refused(_) => return Ok(refused),
            }
        }
        Ok(Verdict::Allowed(data))
    }

    /// Nobody has answered as one should.
    fn fail(self, why: &str) {
        let (action, fail_open) = (self.event.action, self.event.fail_open);
        let Some(_) = &self.answer else { return tracing::warn!(action, "hook: {why}") };
        if fail_open {
            tracing::warn!(action, "hook: {why}; allowed (on_failure allow)");
            self.decide(Verdict::Allowed(Value::Null));
        } else {
            tracing::warn!(action, "hook: {why}; refused (on_failure reject)");
            self.decide(Verdict::Refused(format!("{action}: no answer")));
        }
    }

    fn decide(self, verdict: Verdict) {
        if let Some(answer) = self.answer {
            // Who asked may be gone.
            drop(answer.try_send(verdict));
        }
    }
}

/// One call; an error is no answer.
fn call(agent: &ureq::Agent, url: &str, body: &str, timeout: Duration) -> Result<Verdict, String> {
    let request = agent.post(url).config().timeout_global(Some(timeout)).build();
    let mut response =
        request.header("Content-Type", "application/json").send(body).map_err(|error| error.to_string())?;
    match response.status().as_u16() {
        200 => {}
        status @ (401 | 403) => return Ok(Verdict::Refused(format!("the hook answers {status}"))),
        status => return Err(format!("status {status}")),
    }
    let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    read_answer(&text.map_err(|error| error.to_string())?)
}

/// `0` or `{"code":0}` allows, another number refuses.
fn read_answer(text: &str) -> Result<Verdict, String> {
    let mut value: Value = serde_json::from_str(text.trim()).map_err(|_| "no JSON with a code".to_owned())?;
    let code = value.as_i64().or_else(|| value.get("code")?.as_i64());
    match code {
        Some(0) => Ok(Verdict::Allowed(value.get_mut("data").map_or(Value::Null, Value::take))),
        Some(code) => Ok(Verdict::Refused(format!("the hook answers {code}"))),
        None => Err("no JSON with a code".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    /// A server whose `answer` stands for each request; `None` never answers.
    fn server(answer: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                match &answer {
                    None => kept.push(stream),
                    Some(answer) => {
                        drop(stream.read(&mut [0; 4096]));
                        drop(stream.write_all(answer.as_bytes()));
                    }
                }
            }
        });
        url
    }

    fn event(urls: Vec<String>, fail_open: bool) -> Event {
        Event { action: "on_play", urls, timeout: Duration::from_millis(500), fail_open, body: Map::new() }
    }

    fn answer(body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    #[test]
    fn answers_are_srs_s() {
        let hooks = Hooks::default();
        let ask = |urls: Vec<String>, open| hooks.ask(event(urls, open)).recv_blocking().unwrap();
        assert_eq!(
            ask(vec![server(answer("0")), server(answer("{\"code\": 0, \"data\": 1}"))], false),
            Verdict::Allowed(Value::from(1))
        );
        let refused = Verdict::Refused("the hook answers 1".to_owned());
        assert_eq!(ask(vec![server(answer("{\"code\": 1}"))], true), refused);
        assert_eq!(ask(vec![server(answer("0")), server(answer("1"))], true), refused);
        let forbidden = server(Some("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned()));
        assert!(matches!(ask(vec![forbidden], true), Verdict::Refused(_)));
        let no_answers = [
            server(Some("HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\n0".to_owned())),
            server(Some("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 1\r\n\r\n0".to_owned())),
            server(answer("fine")),
            server(answer(&"0".repeat(10 << 20))),
            server(Some("garbage".to_owned())),
            server(None),
            "http://127.0.0.1:1/".to_owned(),
            "http://no.such.host.invalid/".to_owned(),
        ];
        for url in no_answers {
            assert!(
                matches!(ask(vec![url.clone()], false), Verdict::Refused(why) if why.contains("no answer")),
                "{url}"
            );
            assert_eq!(ask(vec![url.clone()], true), Verdict::Allowed(Value::Null), "{url}");
        }
    }

    /// Hundreds of calls to a URL that hangs are decided in time, and hold nobody else up.
    #[test]
    fn what_hangs_holds_nobody_else_up() {
        let hooks = Hooks::default();
        let (hangs, answers) = (server(None), server(answer("0")));
        let start = Instant::now();
        let waiting: Vec<_> = (0..300).map(|_| hooks.ask(event(vec![hangs.clone()], false))).collect();
        assert_eq!(hooks.ask(event(vec![answers], false)).recv_blocking().unwrap(), Verdict::Allowed(Value::Null));
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
        for verdict in waiting {
            assert!(matches!(verdict.recv_blocking().unwrap(), Verdict::Refused(_)));
        }
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        let flood: Vec<_> = (0..EVENTS_MAX + 100).map(|_| hooks.ask(event(vec![hangs.clone()], false))).collect();
        assert!(matches!(flood.last().unwrap().recv_blocking().unwrap(), Verdict::Refused(_)));
    }

    /// What waits is bounded in bytes too, and given back.
    #[test]
    fn large_events_wait_in_bounded_memory() {
        let hooks = Hooks::default();
        let hangs = server(None);
        let large = || Event {
            body: [("tcUrl".to_owned(), Value::from("x".repeat(1 << 20)))].into_iter().collect(),
            ..event(vec![hangs.clone()], false)
        };
        let asked: Vec<_> = (0..60).map(|_| hooks.ask(large())).collect();
        let refused_at_once = asked.iter().filter(|verdict| !verdict.is_empty()).count();
        assert!(refused_at_once >= 60 - CALLS_PER_URL_MAX - 16, "{refused_at_once}");
        for verdict in asked {
            assert!(matches!(verdict.recv_blocking().unwrap(), Verdict::Refused(_)));
        }
        let state = hooks.0.lock();
        assert_eq!((state.waiting, state.bytes), (0, 0));
    }
}
