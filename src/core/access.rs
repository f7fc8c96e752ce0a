//! Who may: rules by address, signed URLs, hooks.

use super::{
    Outcome, Shard,
    connection::{Connection, Wanted, Wish},
    port::{Endpoints, Request, Session},
};
use crate::{
    config::Action,
    control::{access, hooks},
};

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
        let name = (vhost.name.as_str(), address.app.as_str(), address.stream.as_str());
        if let Some(signed) = &vhost.signed_url
            && let Err(error) = access::check_signature(signed, action, name, &address.param)
        {
            self.stats.refused_by_rule.add(1);
            return Access::Refused(error.to_string());
        }
        let event = match action {
            Action::Publish => self.publish_event(connection, request),
            Action::Play => self.play_event(connection, request),
        };
        event.map_or(Access::Granted, Access::Ask)
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
            (Some(Wish::Connect(stream)), None) => match *stream {
                Wanted::Publish(request) => shard.wants_publish(id, connection, request),
                Wanted::Play(request, sink) => shard.wants_play(id, connection, request, sink),
            },
            (Some(Wish::Connect(stream)), Some(why)) => match *stream {
                Wanted::Publish(request) => shard.refuse_publish(id, connection, request.id, &why),
                Wanted::Play(request, _) => shard.refuse_play(id, connection, &request, &why),
            },
            (Some(Wish::Publish(request)), None) => shard.publish(id, connection, request, 0),
            (Some(Wish::Publish(request)), Some(why)) => shard.refuse_publish(id, connection, request.id, &why),
            (Some(Wish::Play(request, sink)), None) => shard.play_if_origin_allows(connection, id, request, sink),
            (Some(Wish::PlayOfOrigin(request, sink) | Wish::PlaySomewhere(request, sink)), None) => {
                shard.play(id, connection, request, sink)
            }
            (
                Some(Wish::Play(request, _) | Wish::PlayOfOrigin(request, _) | Wish::PlaySomewhere(request, _)),
                Some(why),
            ) => shard.refuse_play(id, connection, &request, &why),
        })
    }
}
