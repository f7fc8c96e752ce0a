//! Streams of an edge: when they are fetched, what is said for them, and when that ends.

use super::{
    Outcome, Question, Shard,
    attempt::Outbound,
    connection::{Connection, Wish as Wanted},
    origins::Wish,
    port::{CloseReason, Endpoints, Request, Session, Sink, Target, Way, Word},
    settings::stream_settings,
};
use crate::{
    cluster::{Place, Sought},
    config::{Config, Pull},
    control::hooks,
    proto::address::StreamAddress,
};
use serde_json::Value;

/// A stream whose publisher here has gone is fetched so much later, in ms.
const AGAIN_MS: u64 = 1000;
/// Rounds of refusals by all origins before a publish ends that they have had: one may take its last connection for
/// alive still. A publish that they have not had ends with the first.
const REFUSALS_MAX: u64 = 8;

impl<E: Endpoints> Shard<E> {
    /// Somebody may play as far as this server is asked; an origin may be to be asked, too.
    pub(super) fn play_if_origin_allows(
        &mut self,
        connection: &mut Connection<E>,
        id: usize,
        request: Box<Request>,
        sink: E::Sink,
    ) -> Outcome {
        if !request.vhost.cluster.token_traverse {
            return self.play_here_or_there(connection, id, request, sink);
        }
        let answer = self.ask_origin(&request, connection.session.peer().path);
        connection.wish = Some(Wanted::PlayOfOrigin(request, sink));
        Outcome::Ask { question: Question::Origin(answer), unread: Vec::new() }
    }

    /// Plays a stream, unless another server may have it, and whoever plays would follow there.
    fn play_here_or_there(
        &mut self,
        connection: &mut Connection<E>,
        id: usize,
        request: Box<Request>,
        sink: E::Sink,
    ) -> Outcome {
        let cluster = &request.vhost.cluster;
        let asks = cluster.is_member() && cluster.redirects && sink.follows();
        if !asks || self.shared.cluster.is_published(&request.key) {
            return self.play(id, connection, request, sink);
        }
        let answer = self.shared.cluster.find(&request.vhost, sought(&request));
        connection.wish = Some(Wanted::PlaySomewhere(request, sink));
        Outcome::Ask { question: Question::Place(answer), unread: Vec::new() }
    }

    /// It is known whether another server has what somebody wants to play.
    pub(crate) fn resume_place(&mut self, id: usize, place: Option<Place>) -> Outcome {
        let Some(place) = place else { return self.resume_wish(id, hooks::Verdict::Allowed(Value::Null)) };
        self.work_on(id, |shard, connection| {
            let Some(Wanted::PlaySomewhere(request, _)) = connection.wish.take() else { return Outcome::Continue };
            let url = E::url_at(&request, &place.rtmp);
            tracing::info!(peer = %connection.named(), stream = %request.key, to = %place.rtmp.host, "sent elsewhere");
            shard.tell_session(id, connection, Word::Elsewhere(request.id, &url))
        })
    }

    /// Has streams fetched that are wanted from now on.
    pub(super) fn fetch_wanted(&mut self) {
        for (id, again) in self.relay.take_wanted() {
            let Some(key) = self.relay.stream(id).map(|stream| stream.key.to_string()) else { continue };
            let wish = self.shared.origins.take_wish(&key).or_else(|| self.plain_wish(&key));
            match wish {
                // An origin that it was taken to has to learn of its end first.
                Some(wish) => self.fetch(wish, if again { AGAIN_MS } else { 0 }),
                None => self.relay.end_fetch(&key),
            }
        }
    }

    /// Nobody has said more than the stream's name.
    fn plain_wish(&self, key: &str) -> Option<Wish> {
        let (vhost, url) = key.split_once('/')?;
        let (app, stream) = url.rsplit_once('/')?;
        let config = self.shared.config();
        let address = StreamAddress::resolve(&format!("rtmp://{vhost}/{app}"), app, stream).ok()?;
        let request = Request::of(0, address, config.vhost_named(vhost)?);
        Some(Wish { request, path: String::new(), by_flv: false })
    }

    pub(super) fn targets_of(&self, wish: &Wish) -> Vec<Target> {
        let request = Request { id: 0, ..wish.request.clone() };
        if let Some(pull) = self.pull_of(&request) {
            return E::pulled(&request, &pull.urls, &self.path_on(&wish.path, &request.key));
        }
        E::origins(&request, Way::Fetch, wish.by_flv, &self.path_on(&wish.path, &request.key), None)
    }

    /// What the configuration says of a stream that is fetched in any case.
    fn pull_of(&self, request: &Request) -> Option<Pull> {
        let config = self.shared.config();
        let pulls = &config.vhost_named(&request.vhost.name)?.pulls;
        let (app, stream) = (&request.address.app, &request.address.stream);
        pulls.iter().find(|pull| (&pull.app, &pull.stream) == (app, stream)).cloned()
    }

    /// Has those streams fetched that the configuration says are to be, of those that are at home here.
    pub(super) fn pin_pulls(&mut self, config: &Config) {
        let mut wanted = Vec::new();
        for vhost in config.vhosts.iter().filter(|vhost| vhost.enabled) {
            let keys = vhost.pulls.iter().map(|pull| format!("{}/{}/{}", vhost.name, pull.app, pull.stream));
            wanted.extend(keys.map(|key| (key, stream_settings(vhost))));
        }
        wanted.retain(|(key, _)| self.relay.home_of(key) == self.relay.me());
        for key in self.relay.pinned() {
            if let Some(settings) =
                self.relay.settings_of(&key).filter(|_| !wanted.iter().any(|(other, _)| **other == *key))
            {
                self.relay.pin(&key, settings, false);
            }
        }
        wanted.into_iter().for_each(|(key, settings)| self.relay.pin(&key, settings, true));
    }

    /// Whether no configuration says where a stream is.
    pub(super) fn is_located(&self, wish: &Wish) -> bool {
        !wish.request.vhost.cluster.is_edge() && self.pull_of(&wish.request).is_none()
    }

    /// Asks which server has a stream.
    pub(super) fn locate(&self, wish: &Wish) -> async_channel::Receiver<Option<Place>> {
        self.shared.cluster.find(&wish.request.vhost, sought(&wish.request))
    }

    /// The answer to that.
    pub(crate) fn located(&mut self, id: usize, place: Option<Place>) {
        let now_ms = self.shared.now_ms();
        let Some(wish) = self.outbound.get(id).and_then(|outbound| outbound.wish.clone()) else { return };
        match place {
            Some(place) => {
                let request = Request { id: 0, ..wish.request.clone() };
                let path = self.path_on(&wish.path, &request.key);
                self.outbound[id].targets = E::origins(&request, Way::Fetch, false, &path, Some(&place.rtmp));
                self.outbound[id].at = 0;
            }
            None => {
                self.outbound[id].found_nowhere(now_ms);
                self.relay.fetch_failed(&wish.request.key);
                self.shared.shelf.give_up(&wish.request.key);
            }
        }
    }

    /// Whether somebody plays a stream, or has asked for its playlists within so many ms.
    pub(super) fn is_wanted(&self, key: &str, asked_ms: u64, now_ms: u64) -> bool {
        self.relay.is_watched(key) || now_ms < self.shared.shelf.seen_ms(key) + asked_ms
    }

    /// Whether what a connection was opened for may be played on it.
    pub(super) fn outbound_may_play(&self, id: usize, key: &str) -> bool {
        let way = self.outbound.get(id).map(Outbound::way);
        self.relay.is_published(key) && (way != Some(Way::Relay) || !self.relay.has_fetcher(key))
    }

    /// A target does not want what is published here.
    pub(super) fn outbound_refused(&mut self, id: usize, reason: &CloseReason) {
        let Some(outbound) = self.outbound.get_mut(id).filter(|outbound| outbound.way() == Way::Relay) else { return };
        outbound.refusals += u64::from(outbound.tried == 0);
        if outbound.refusals < if outbound.served { REFUSALS_MAX } else { 1 } {
            return;
        }
        let publisher = self.relay.publisher_of(outbound.key()).copied();
        if let Some(publisher) = publisher {
            self.dismiss(publisher, CloseReason::Refused(reason.to_string()));
        }
    }
}

fn sought(request: &Request) -> Sought {
    let address = &request.address;
    Sought {
        key: request.key.clone(),
        vhost: request.vhost.name.clone(),
        host: address.vhost.clone(),
        app: address.app.clone(),
        stream: address.stream.clone(),
    }
}
