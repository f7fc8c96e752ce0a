//! Streams of an edge: when they are fetched, what is said for them, and when that ends.

use super::{
    Outcome, Question, Shard,
    connection::{Connection, Wish as Wanted},
    origins::Wish,
    outbound::Outbound,
    port::{CloseReason, Endpoints, Request, Session, Target, Way},
};
use crate::proto::address::StreamAddress;

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
            return self.play(id, connection, request, sink);
        }
        let answer = self.ask_origin(&request, connection.session.peer().path);
        connection.wish = Some(Wanted::PlayOfOrigin(request, sink));
        Outcome::Ask { question: Question::Origin(answer), unread: Vec::new() }
    }

    /// Has streams fetched that are wanted from now on.
    pub(super) fn fetch_wanted(&mut self) {
        for (id, again) in self.relay.take_wanted() {
            let Some(key) = self.relay.stream(id).map(|stream| stream.key.to_string()) else { continue };
            let wish = self.shared.origins.take_wish(&key).or_else(|| self.plain_wish(&key));
            match wish.map(|wish| self.targets_of(&wish)).filter(|targets| !targets.is_empty()) {
                Some(targets) => {
                    // An origin that it was taken to has to learn of its end first.
                    self.see_to(targets, if again { AGAIN_MS } else { 0 });
                }
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
        E::origins(&request, Way::Fetch, wish.by_flv, &self.path_on(&wish.path, &request.key))
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
