//! What hooks are told and asked: SRS's fields, action by action.

use super::{
    Shard,
    audience::{AtEnd, Present},
    connection::Connection,
    port::{Endpoints, Request, Session},
};
use crate::{
    config::{HookUrl, Hooks, Vhost},
    control::{self, access, hooks},
};
use std::time::Duration;

/// What is told of the files that are made of a publish, by whoever makes them.
#[derive(Debug, Default)]
pub(crate) struct FileEvents {
    pub(super) on_hls: Option<Box<hooks::Event>>,
    pub(super) on_dvr: Option<Box<hooks::Event>>,
}

impl<E: Endpoints> Shard<E> {
    /// Asks about a connection, with the first stream that it publishes or plays; `None` if nobody is to be asked, or
    /// has been.
    pub(super) fn connect_event(&self, connection: &mut Connection<E>, request: &Request) -> Option<Box<hooks::Event>> {
        if !std::mem::take(&mut connection.unasked) {
            return None;
        }
        let Request { vhost, address, .. } = request;
        // It may be another one than tcUrl's.
        connection.on_close = self.close_event(connection, vhost, &address.app);
        let mut event = self.event(connection, "on_connect", &vhost.hooks.on_connect, vhost, &address.app)?;
        event.body.add("stream", address.stream.as_str());
        event.body.add("param", address.param.as_str());
        let peer = connection.session.peer();
        event.body.add("tcUrl", peer.tc_url);
        event.body.add("pageUrl", peer.page_url);
        Some(event)
    }

    /// What is told when a connection ends, but for its bytes.
    pub(super) fn close_event(
        &self,
        connection: &Connection<E>,
        vhost: &Vhost,
        app: &str,
    ) -> Option<Box<hooks::Event>> {
        self.event(connection, "on_close", &vhost.hooks.on_close, vhost, app)
    }

    /// Asks about a publish.
    pub(super) fn publish_event(&self, connection: &Connection<E>, request: &Request) -> Option<Box<hooks::Event>> {
        let mut event = self.stream_event(connection, "on_publish", &request.vhost.hooks.on_publish, request)?;
        event.publishes = Some(request.key.clone());
        add_ids(&mut event.body, request);
        Some(event)
    }

    /// What is told when a publish ends.
    pub(super) fn unpublish_event(&self, connection: &Connection<E>, request: &Request) -> AtEnd {
        let event = self.stream_event(connection, "on_unpublish", &request.vhost.hooks.on_unpublish, request);
        let event = event.map(|mut event| {
            event.publishes = Some(request.key.clone());
            add_ids(&mut event.body, request);
            event
        });
        AtEnd { event, present: self.present(request) }
    }

    /// What is told of the files that are made of a publish, but for the files.
    pub(super) fn file_events(&self, connection: &Connection<E>, request: &Request) -> FileEvents {
        let Hooks { on_hls, on_dvr, .. } = &request.vhost.hooks;
        let event = |action, urls: &[HookUrl]| {
            let mut event = self.stream_event(connection, action, urls, request)?;
            let directory = std::env::current_dir().unwrap_or_default();
            event.body.add("cwd", directory.display().to_string());
            add_ids(&mut event.body, request);
            Some(event)
        };
        FileEvents { on_hls: event("on_hls", on_hls), on_dvr: event("on_dvr", on_dvr) }
    }

    /// Asks about a play.
    pub(super) fn play_event(&self, connection: &Connection<E>, request: &Request) -> Option<Box<hooks::Event>> {
        let mut event = self.stream_event(connection, "on_play", &request.vhost.hooks.on_play, request)?;
        event.body.add("pageUrl", connection.session.peer().page_url);
        add_ids(&mut event.body, request);
        // It is one of them.
        event.body.add("clients", self.shared.audience.count(&request.key) + 1);
        Some(event)
    }

    /// What is told when a play ends, but for the number of clients.
    pub(super) fn stop_event(&self, connection: &Connection<E>, request: &Request) -> AtEnd {
        let event = self.stream_event(connection, "on_stop", &request.vhost.hooks.on_stop, request);
        let event = event.map(|mut event| {
            add_ids(&mut event.body, request);
            event
        });
        AtEnd { event, present: self.present(request) }
    }

    /// Asks where a publish is pushed on to.
    pub(super) fn forward_event(
        &self,
        connection: &Connection<E>,
        request: &Request,
        url: &HookUrl,
    ) -> Option<Box<hooks::Event>> {
        let mut event = self.stream_event(connection, "on_forward", std::slice::from_ref(url), request)?;
        // No answer is asked for again.
        event.fail_open = false;
        Some(event)
    }

    fn stream_event(
        &self,
        connection: &Connection<E>,
        action: &'static str,
        urls: &[HookUrl],
        request: &Request,
    ) -> Option<Box<hooks::Event>> {
        let Request { vhost, address, .. } = request;
        let mut event = self.event(connection, action, urls, vhost, &address.app)?;
        event.body.add("tcUrl", connection.session.peer().tc_url);
        event.body.add("stream", address.stream.as_str());
        event.body.add("param", address.param.as_str());
        Some(event)
    }

    /// What is the same in all; `None` if there are no URLs.
    fn event(
        &self,
        connection: &Connection<E>,
        action: &'static str,
        urls: &[HookUrl],
        vhost: &Vhost,
        app: &str,
    ) -> Option<Box<hooks::Event>> {
        if urls.is_empty() {
            return None;
        }
        let mut body = hooks::Body::default();
        body.add("server_id", self.shared.server_id.as_str());
        body.add("service_id", self.shared.service_id.as_str());
        body.add("action", action);
        body.add("client_id", connection.client.to_string());
        body.add("ip", connection.named().ip().to_string());
        body.add("vhost", vhost.name.as_str());
        body.add("app", app);
        let Hooks { timeout_ms, fail_open, ref trust, .. } = vhost.hooks;
        Some(Box::new(hooks::Event {
            action,
            urls: urls.to_vec(),
            timeout: Duration::from_millis(u64::from(timeout_ms)),
            fail_open,
            trust: trust.clone(),
            client: connection.client,
            publishes: None,
            body,
        }))
    }

    /// Counts a client of a stream, where hooks want to know.
    fn present(&self, request: &Request) -> Option<Present> {
        let Hooks { on_play, on_stop, .. } = &request.vhost.hooks;
        let wanted = !on_play.is_empty() || !on_stop.is_empty();
        wanted.then(|| self.shared.audience.enter(&request.key))
    }

    /// Tells who wants to know what has ended.
    pub(super) fn tell(&self, event: Option<Box<hooks::Event>>) {
        if let Some(event) = event {
            self.shared.hooks.tell(*event);
        }
    }

    /// A publish or a play has ended.
    pub(super) fn tell_end(&self, end: AtEnd) {
        let AtEnd { mut event, present } = end;
        if let (Some(event), Some(present)) = (&mut event, &present)
            && event.action == "on_stop"
        {
            event.body.add("clients", present.count());
        }
        self.tell(event);
    }
}

fn add_ids(body: &mut hooks::Body, request: &Request) {
    let Request { vhost, address, key, .. } = request;
    body.add("stream_url", control::stream_url(&vhost.name, &address.app, &address.stream));
    body.add("stream_id", access::stable_id(key));
}
