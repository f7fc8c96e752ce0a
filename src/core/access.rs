//! Who may: rules by address, signed URLs, hooks.

use super::{
    Outcome, Shard,
    connection::{Connection, Wish},
    port::{CloseReason, Endpoints, Request, Session, Word},
};
use crate::{
    config::{Action, Hooks, Vhost},
    control::{access, hooks},
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What comes of a wish at once.
#[derive(Debug)]
pub(super) enum Access {
    Granted,
    /// Others decide.
    Ask(Box<hooks::Event>),
    Refused(String),
}

impl<E: Endpoints> Shard<E> {
    /// Whether a connection may publish or play a stream.
    pub(super) fn access(&self, connection: &Connection<E>, action: Action, request: &Request) -> Access {
        let Request { vhost, address, .. } = request;
        let ip = connection.named().ip();
        if !vhost.security.allows(action, ip) {
            self.stats.refused_by_rule.add(1);
            return Access::Refused(format!("{ip} may not {} (security)", action.name()));
        }
        let page = connection.session.peer().page_url;
        if !vhost.refer.allows(action, page) {
            self.stats.refused_by_rule.add(1);
            return Access::Refused(format!("a page at {page:?} may not {} (refer)", action.name()));
        }
        if let Some(signed) = &vhost.signed_url
            && let Err(error) = access::check_signature(signed, action, &address.app, &address.stream, &address.param)
        {
            self.stats.refused_by_rule.add(1);
            return Access::Refused(error.to_string());
        }
        let (name, urls) = match action {
            Action::Publish => ("on_publish", &vhost.hooks.on_publish),
            Action::Play => ("on_play", &vhost.hooks.on_play),
        };
        match self.hook_event(connection, name, urls, request) {
            Some(event) => Access::Ask(event),
            None => Access::Granted,
        }
    }

    /// What a hook is told of a stream; `None` if it has no URLs.
    pub(super) fn hook_event(
        &self,
        connection: &Connection<E>,
        action: &'static str,
        urls: &[String],
        request: &Request,
    ) -> Option<Box<hooks::Event>> {
        let Request { vhost, address, key, .. } = request;
        let mut event = self.connection_event(connection, action, urls, vhost, &address.app)?;
        let host = if vhost.name == crate::config::DEFAULT_VHOST { &address.vhost } else { &vhost.name };
        let stream = [
            ("stream", json!(address.stream)),
            ("param", json!(address.param)),
            ("stream_url", json!(format!("/{}/{}", address.app, address.stream))),
            ("stream_id", json!(access::stable_id(key))),
            ("vhost", json!(vhost.name)),
            ("host", json!(host)),
        ];
        event.body.extend(stream.map(|(name, value)| (name.to_owned(), value)));
        Some(event)
    }

    /// What a hook is told of a connection; `None` if it has no URLs.
    pub(super) fn connection_event(
        &self,
        connection: &Connection<E>,
        action: &'static str,
        urls: &[String],
        vhost: &Vhost,
        app: &str,
    ) -> Option<Box<hooks::Event>> {
        if urls.is_empty() {
            return None;
        }
        let Hooks { timeout_ms, fail_open, .. } = vhost.hooks;
        let peer = connection.session.peer();
        let fields = [
            ("server_id", json!(self.shared.server_id)),
            ("service_id", json!(self.shared.service_id)),
            ("action", json!(action)),
            ("client_id", json!(connection.client.to_string())),
            ("ip", json!(connection.named().ip().to_string())),
            ("vhost", json!(vhost.name)),
            ("app", json!(app)),
            ("tcUrl", json!(peer.tc_url)),
            ("pageUrl", json!(peer.page_url)),
        ];
        let body: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        Some(Box::new(hooks::Event { action, urls: urls.to_vec(), timeout, fail_open, body }))
    }

    /// Tells who wants to know what has ended.
    pub(super) fn tell(&self, event: Option<Box<hooks::Event>>) {
        if let Some(event) = event {
            self.shared.hooks.tell(*event);
        }
    }

    /// Goes on with what was asked for.
    pub(crate) fn resume_wish(&mut self, id: usize, verdict: hooks::Verdict) -> Outcome {
        let refused = match verdict {
            hooks::Verdict::Allowed(_) => None,
            hooks::Verdict::Refused(why) => {
                self.stats.refused_by_hook.add(1);
                Some(why)
            }
        };
        self.work_on(id, |shard, connection| match (connection.wish.take(), refused) {
            (None, _) => Outcome::Continue,
            (Some(Wish::Connect), None) => shard.tell_session(id, connection, Word::Connected),
            (Some(Wish::Connect), Some(why)) => {
                connection.on_close = None;
                connection.session.told(Word::ConnectRefused(&why), &shard.shared.context());
                Outcome::Close(CloseReason::Refused(format!("connect refused: {why}")))
            }
            (Some(Wish::Publish(request)), None) => shard.publish(id, connection, request, 0),
            (Some(Wish::Publish(request)), Some(why)) => shard.refuse_publish(id, connection, request.id, &why),
            (Some(Wish::Play(request, sink)), None) => shard.play(id, connection, request, sink),
            (Some(Wish::Play(request, _)), Some(why)) => shard.refuse_play(id, connection, &request, &why),
        })
    }
}
