//! Who may: rules by address, signed URLs, hooks.

use super::{CloseReason, Outcome, ShardServer, flush::Turn, peer::Connection};
use crate::{
    config::{Action, Hooks, Vhost},
    control::{access, hooks},
    proto::rtmp::url::StreamAddress,
    serve::http::LiveRequest,
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// A stream that somebody wants, and the vhost that has it.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Found {
    /// `vhost/app/stream`.
    pub(in crate::serve) key: String,
    pub(in crate::serve) vhost: Arc<Vhost>,
    pub(in crate::serve) address: StreamAddress,
}

/// What comes of a wish at once.
#[derive(Debug)]
pub(super) enum Access {
    Granted,
    /// Others decide.
    Ask(Box<hooks::Event>),
    Refused(String),
}

/// What is done once a hook has allowed it.
#[derive(Debug)]
pub(in crate::serve) enum Wish {
    Connect,
    Publish { msid: u32, stream: String },
    Play { msid: u32, stream: String, duration_ms: Option<u32> },
    Live(Box<LiveRequest>),
}

impl ShardServer {
    /// Whether a connection may publish or play a stream.
    pub(super) fn access(&self, connection: &Connection, action: Action, found: &Found) -> Access {
        let Found { vhost, address, .. } = found;
        let ip = connection.named().ip();
        if !vhost.security.allows(action, ip) {
            return Access::Refused(format!("{ip} may not {} (security)", action.name()));
        }
        if let Some(signed) = &vhost.signed_url
            && let Err(error) = access::check_signature(signed, action, &address.app, &address.stream, &address.param)
        {
            return Access::Refused(error.to_string());
        }
        let (name, urls) = match action {
            Action::Publish => ("on_publish", &vhost.hooks.on_publish),
            Action::Play => ("on_play", &vhost.hooks.on_play),
        };
        match self.hook_event(connection, name, urls, found) {
            Some(event) => Access::Ask(event),
            None => Access::Granted,
        }
    }

    /// What a hook is told of a stream; `None` if it has no URLs.
    pub(super) fn hook_event(
        &self,
        connection: &Connection,
        action: &'static str,
        urls: &[String],
        found: &Found,
    ) -> Option<Box<hooks::Event>> {
        let Found { vhost, address, key } = found;
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
    fn connection_event(
        &self,
        connection: &Connection,
        action: &'static str,
        urls: &[String],
        vhost: &Vhost,
        app: &str,
    ) -> Option<Box<hooks::Event>> {
        if urls.is_empty() {
            return None;
        }
        let Hooks { timeout_ms, fail_open, .. } = vhost.hooks;
        let fields = [
            ("server_id", json!(self.shared.server_id)),
            ("service_id", json!(self.shared.service_id)),
            ("action", json!(action)),
            ("client_id", json!(connection.client.to_string())),
            ("ip", json!(connection.named().ip().to_string())),
            ("vhost", json!(vhost.name)),
            ("app", json!(app)),
            ("tcUrl", json!(connection.session.tc_url())),
            ("pageUrl", json!(connection.session.page_url())),
        ];
        let body: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        Some(Box::new(hooks::Event { action, urls: urls.to_vec(), timeout, fail_open, body }))
    }

    /// `connect` has come: whether somebody is to be asked, and who is told of the connection's end.
    pub(super) fn on_connect(&self, connection: &mut Connection) -> Option<Box<hooks::Event>> {
        let connect = connection.session.connect()?;
        let address = StreamAddress::resolve(&connect.tc_url, &connect.app, "-").ok()?;
        let vhost = self.shared.config().vhost(&address.vhost).cloned()?;
        let asks = self.connection_event(connection, "on_connect", &vhost.hooks.on_connect, &vhost, &address.app);
        connection.on_close =
            self.connection_event(connection, "on_close", &vhost.hooks.on_close, &vhost, &address.app);
        asks
    }

    /// Tells who wants to know what has ended.
    pub(super) fn tell(&self, event: Option<Box<hooks::Event>>) {
        if let Some(event) = event {
            self.shared.hooks.tell(*event);
        }
    }

    /// Goes on with what was asked for.
    pub(in crate::serve) fn resume_wish(&mut self, id: usize, wish: Wish, verdict: hooks::Verdict) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        connection.asking = false;
        connection.heard_ms = self.shared.now_ms();
        let refused = match verdict {
            hooks::Verdict::Allowed => None,
            hooks::Verdict::Refused(why) => {
                self.stats.refused_by_hook.add(1);
                Some(why)
            }
        };
        let outcome = match (wish, refused) {
            (Wish::Connect, None) => {
                connection.session.say(|session| session.accept_connect());
                Outcome::Continue
            }
            (Wish::Connect, Some(why)) => {
                connection.on_close = None;
                connection.session.say(|session| session.reject_connect(&why, None));
                Outcome::Close(CloseReason::ConnectRefused(why))
            }
            (Wish::Publish { msid, stream }, None) => self.publish(id, &mut connection, msid, &stream, 0),
            (Wish::Publish { msid, .. }, Some(why)) => super::publishing::refuse_publish(&mut connection, msid, why),
            (Wish::Play { msid, stream, duration_ms }, None) => {
                self.play(id, &mut connection, msid, &stream, duration_ms)
            }
            (Wish::Play { msid, .. }, Some(why)) => super::events::refuse_play(&mut connection, msid, why),
            (Wish::Live(live), refused) => self.resume_live(id, &mut connection, *live, refused),
        };
        self.put_back(id, connection);
        self.flush_guarded(id, Turn::Own);
        self.flush_changed();
        self.pump();
        outcome
    }
}
