//! The words between a shard and its endpoints; both sides speak them, and neither knows the other.
//!
//! An endpoint is a way in or out. Its [`Session`] is the protocol's machine of one connection, sans I/O: it is
//! given bytes and words, and then drained ([`Session::poll`]). Its [`Sink`] is a reader of a stream's log, and
//! says how entries stand on its wire. All endpoints together are one type, [`Endpoints`], made by the registry.

use crate::{
    config::{Config, Listen, Origin, Vhost},
    media::{Entry, Headers, Kind, Replica, Subscription},
    package::{Shelf, Shown, Visit},
    proto::{
        Write,
        flv::{Tag, TagKind},
    },
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::{fmt, io, sync::Arc};

pub use super::target::{Id, Request, Target, Way};

/// A handshake, TLS's included, and a request's head that are not whole by then, in ms.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;
/// I/O timeout in ms: a connection that neither publishes nor plays, a send that does not end.
pub const IO_MS_MAX: u64 = 30_000;

/// All endpoints of a server.
pub trait Endpoints: fmt::Debug + Sized + 'static {
    /// Any of their sessions.
    type Session: Session<Sink = Self::Sink>;
    /// Any of their sinks.
    type Sink: Sink;

    /// The session of a connection that has come in.
    fn accept(listen: Listen, context: &Context<'_>) -> Self::Session;

    /// Where a publish is pushed on to, as the configuration says or as somebody has answered who was asked for
    /// `urls`. `path` are the marks of the servers that the stream has come through.
    fn targets(request: &Request, urls: Option<&[String]>, path: &str) -> Vec<Target>;

    /// Where a stream may be fetched from, or is taken to that is published here, in the order of the configuration.
    /// `by_flv` is what its first player takes.
    /// `place` is who is known to have it.
    fn origins(request: &Request, way: Way, by_flv: bool, path: &str, place: Option<&Origin>) -> Vec<Target>;

    /// The same by URLs that are written down.
    fn pulled(request: &Request, urls: &[String], path: &str) -> Vec<Target>;

    /// A stream's URL at another server, for a player.
    fn url_at(request: &Request, place: &Origin) -> String;

    /// The same by another URL, to which a target has sent us; `None` if that is no place for it.
    fn redirected(target: &Target, url: &str) -> Option<Target>;

    /// The session of a connection that has just been opened to a target; `None` if that is no place for it.
    fn dial(target: &Target, context: &Context<'_>) -> Option<Self::Session>;
}

/// What a session may ask for while it works.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The process's clock, in ms.
    pub now_ms: u64,
    config: &'a ArcSwap<Config>,
    /// Segments of streams.
    pub shelf: &'a Shelf,
}

impl<'a> Context<'a> {
    /// At a time, with the configuration of the moment.
    pub fn new(now_ms: u64, config: &'a ArcSwap<Config>, shelf: &'a Shelf) -> Self {
        Self { now_ms, config, shelf }
    }

    /// The configuration.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}

/// A protocol's machine for one connection, sans I/O. Mutate it, then drain [`Self::poll`], then send
/// [`Self::take_output`].
pub trait Session: fmt::Debug + Send + Sized + 'static {
    /// What reads streams for it.
    type Sink;

    /// Takes bytes from the peer, until there is something for [`Self::poll`] or none are left.
    ///
    /// # Errors
    /// The peer cannot be understood any further. It is told what the output says, and closed.
    fn receive(&mut self, input: &mut &[u8], context: &Context<'_>) -> Result<(), CloseReason>;

    /// What the shard is to do next.
    fn poll(&mut self) -> Option<Output<Self::Sink>>;

    /// Is told something.
    fn told(&mut self, word: Word<'_>, context: &Context<'_>);

    /// Whether it answers, and takes no input before it has.
    fn is_answering(&self) -> bool {
        false
    }

    /// Whether it has taken input that it goes on with when it has answered.
    fn has_input(&self) -> bool {
        false
    }

    /// What is to be sent beside what sinks write, and clears it.
    fn take_output(&mut self) -> Vec<u8>;

    /// Bytes of it.
    fn output_len(&self) -> usize;

    /// When [`Self::timeout`] is to be called, in ms of the process's clock. `busy` is a connection that plays,
    /// publishes or waits for a hook.
    fn deadline(&self, busy: bool) -> Option<u64>;

    /// Its time has come, perhaps. `Some` closes the connection.
    fn timeout(&mut self, busy: bool, context: &Context<'_>) -> Option<CloseReason>;

    /// What it knows of its peer.
    fn peer(&self) -> Peer<'_>;

    /// Bytes that it has taken and not understood, for whoever goes on with the connection.
    fn into_unread(self) -> Vec<u8>;
}

/// What a session knows of its peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// The URL up to the app.
    pub tc_url: &'a str,
    /// The page that a player stands in.
    pub page_url: &'a str,
    /// The Flash program that it is.
    pub swf_url: &'a str,
    /// The name that it gives itself.
    pub agent: &'a str,
    /// Bytes understood so far, for the log.
    pub position: u64,
    /// The marks of the servers that its stream has come through.
    pub path: &'a str,
}

/// What a session has the shard do.
#[derive(Debug)]
pub enum Output<S> {
    /// The handshake is done; what is to be noted of it.
    Ready(&'static str),
    /// Ask whether there may be a connection. Answered by [`Word::Connected`].
    Connect(Box<Connect>),
    /// Publish a stream. Answered by [`Word::Published`] or [`Word::PublishRefused`].
    Publish(Box<Request>),
    /// Play a stream. Answered by [`Word::Opened`], and [`Word::Playing`] when nothing can be missed any more, or
    /// by [`Word::PlayRefused`] or [`Word::Busy`].
    Play(Box<Request>, S),
    /// A tag of a stream that it publishes, or not any more.
    Tag(Id, Tag),
    /// It neither plays nor publishes this from here on.
    Close(Id),
    /// A player pauses, or goes on. Answered by [`Word::Paused`].
    Pause(Id, bool),
    /// A player wants a kind of tags, or does not.
    Want(Id, TagKind, bool),
    /// What it asks next is for somebody else, in the words of whoever stands before the server (`X-Forwarded-For`);
    /// for its peer itself if that is empty.
    For(String),
    /// Send this behind what the session has said so far. Answered by [`Word::Sent`], before which it says nothing more.
    Body(Vec<Bytes>),
    /// Say when a playlist changes that is of this version. Answered by [`Word::Changed`].
    Await(Arc<Shown>, u64),
    /// Somebody wants what is made of a stream that may be to be fetched.
    Fetch(Box<Request>),
    /// The connection is for the control plane.
    HandOver,
    /// To be closed, unless it plays or publishes something else.
    Useless(CloseReason),
    /// To be closed as soon as everything is sent.
    Leave(CloseReason),
}

impl<S> Output<S> {
    /// The same of any sink.
    pub fn widen<T: From<S>>(self) -> Output<T> {
        match self {
            Self::Play(request, sink) => Output::Play(request, sink.into()),
            Self::Ready(note) => Output::Ready(note),
            Self::Connect(connect) => Output::Connect(connect),
            Self::Publish(request) => Output::Publish(request),
            Self::Tag(id, tag) => Output::Tag(id, tag),
            Self::Close(id) => Output::Close(id),
            Self::Pause(id, paused) => Output::Pause(id, paused),
            Self::Want(id, kind, wanted) => Output::Want(id, kind, wanted),
            Self::For(list) => Output::For(list),
            Self::Body(chunks) => Output::Body(chunks),
            Self::Await(shown, version) => Output::Await(shown, version),
            Self::Fetch(request) => Output::Fetch(request),
            Self::HandOver => Output::HandOver,
            Self::Useless(reason) => Output::Useless(reason),
            Self::Leave(reason) => Output::Leave(reason),
        }
    }
}

/// What `connect` was for.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Whose hooks are asked.
    pub vhost: Arc<Vhost>,
    /// The app.
    pub app: String,
}

/// What a session is told.
#[derive(Clone, Copy, Debug)]
pub enum Word<'a> {
    /// It may go on.
    Connected,
    /// It publishes.
    Published(Id),
    /// It does not publish, or no more, and why.
    PublishRefused(Id, &'a str),
    /// Its sink reads the stream's log.
    Opened(Id),
    /// The stream's home knows of it: nothing is missed from here on.
    Playing(Id),
    /// It does not play, and why.
    PlayRefused(Id, &'a str),
    /// It does not play, since the server has no room; it may later.
    Busy(Id, &'a str),
    /// It does not play: the stream is at another server, by its URL.
    Elsewhere(Id, &'a str),
    /// Nothing has come for it yet; whether it is known that nobody publishes.
    Waits(Id, bool),
    /// Media of a publish begins; whether it has had media of an earlier one. What it says stands before the media.
    Started(Id, bool),
    /// The publish is over. What it says stands behind the media.
    Ended(Id),
    /// Its sink has said that it is over; it plays no more.
    Finished(Id),
    /// A player pauses, or goes on.
    Paused(Id, bool),
    /// All of a body is on its way.
    Sent,
    /// The playlist that it waits for has changed, by its number.
    Changed(u64),
    /// The server drains: the peer may want to connect elsewhere.
    Drain,
}

/// A reader of a stream's log: how entries stand on its wire.
pub trait Sink: fmt::Debug + Send + Sized + 'static {
    /// What the API calls it, in SRS's words.
    fn client_type(&self) -> &'static str;

    /// What stands around its bytes, for the log.
    fn wrapping(&self) -> &'static str {
        ""
    }

    /// What is made of the stream's entries for it, once per shard; `None` reads them as they are.
    fn rendition(&self) -> Option<&'static Kind> {
        None
    }

    /// How much media it gets at once, if the stream has kept that much, in ms; otherwise it begins where its
    /// stream's settings say.
    fn burst_ms(&self) -> u64 {
        0
    }

    /// Its peer takes FLV by HTTP.
    fn takes_flv(&self) -> bool {
        false
    }

    /// Its peer follows when it is sent to another server ([`Word::Elsewhere`]).
    fn follows(&self) -> bool {
        false
    }

    /// It reads no log: its peer's requests are this visit.
    fn visit(&self) -> Option<&Arc<Visit>> {
        None
    }

    /// Who can have the same bytes from where it stands; `None` if nobody can.
    fn share(&self, subscription: &Subscription) -> Option<ImageKey>;

    /// Whether entries of these kinds need something of its own.
    fn is_fresh(&self, kinds: [bool; 3]) -> bool {
        let _ = kinds;
        false
    }

    /// Writes what everybody with the same [`ImageKey`] gets for an entry.
    fn put_shared<W: Write>(&self, frame: Frame<'_>, subscription: &Subscription, out: &mut W);

    /// Its peer wants a kind of tags, or does not.
    fn want(&mut self, kind: TagKind, wanted: bool) {
        let _ = (kind, wanted);
    }

    /// Media begins here, or goes on after a gap. Tells whether more is to come.
    fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool;

    /// Writes an entry. Tells whether more is to come.
    fn put<W: Write>(&mut self, frame: Frame<'_>, subscription: &Subscription, out: &mut W) -> bool {
        self.put_shared(frame, subscription, out);
        true
    }

    /// The publish is over. Tells whether it waits for another one.
    fn end<W: Write>(&mut self, out: &mut W) -> bool;
}

/// An entry, and what stands for it in the sink's rendition.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// As it is in the log.
    pub entry: &'a Entry,
    /// Its body, or what the rendition made of it.
    pub bytes: &'a Bytes,
}

/// Where media begins or goes on.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The stream.
    pub replica: &'a Replica,
    /// Metadata and sequence headers as of the place.
    pub headers: &'a Headers,
    /// Stands before the first entry that follows.
    pub subscription: &'a Subscription,
    /// What went before is not followed by what comes: its peer is to be told.
    pub again: bool,
    /// The rendition's own note of the place ([`crate::media::Piece`]).
    pub note: u64,
}

impl Start<'_> {
    /// The first that is known of a kind's first track from here on: its setup, or else what is in the log.
    pub fn first(&self, kind: TagKind) -> Option<&Entry> {
        let of_kind = |entry: &&Entry| entry.tag.kind == kind && entry.info.track == 0;
        let log = self.replica.log();
        self.headers.iter().find(of_kind).or_else(|| log.range(self.subscription.next()..log.head()).find(of_kind))
    }
}

/// What an image is written as: sinks with equal ones can share it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ImageKey {
    /// The endpoint's number in the registry.
    pub endpoint: u8,
    /// Whatever tells the endpoint's own formats apart.
    pub format: u64,
    /// Log time that is 0, in ms, where times are a sink's own.
    pub base_ms: i64,
}

impl ImageKey {
    /// A format of an endpoint that the registry numbers.
    pub fn new(format: u64, base_ms: i64) -> Self {
        Self { endpoint: 0, format, base_ms }
    }
}

/// Why a connection is closed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseReason {
    /// Or shut by us, for a reason of its own.
    #[error("the peer closed it")]
    PeerClosed,
    /// A system call's.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The peer breaks its protocol. It may be told so.
    #[error("{0}")]
    Protocol(String),
    /// By a rule, a hook, or the state of things.
    #[error("{0}")]
    Refused(String),
    /// It did not do in time what it has to.
    #[error("{0}")]
    Late(String),
    /// What it came for is done.
    #[error("its response has ended")]
    ResponseEnded,
    /// What it came for.
    #[error("its stream is not published any more")]
    Unpublished,
    /// To another server, by its URL.
    #[error("it is at {0}")]
    Redirected(String),
    /// By the API.
    #[error("an operator has disconnected it")]
    Kicked,
    /// Neither.
    #[error("nothing published or played for {} s", IO_MS_MAX / 1000)]
    Idle,
    /// Since its publish.
    #[error("no media within {0} ms of the publish (firstpkt_timeout)")]
    NoMedia(u32),
    /// Since its last media.
    #[error("no media for {0} ms (normal_timeout)")]
    PublisherSilent(u32),
    /// In seconds.
    #[error("nobody has played its stream for {0} s (kickoff_for_idle)")]
    Unseen(u32),
    /// By another publisher.
    #[error("another publisher has taken its stream over (takeover replace)")]
    Replaced,
    /// The library's.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The kernel's.
    #[error("the kernel's TLS: {0}")]
    Ktls(String),
    /// Of the kernel's TLS.
    #[error("its TLS keys are used up; it may connect anew")]
    KeysUsedUp,
    /// And the stream has ended.
    #[error("the server stops, and its stream has ended")]
    Drained,
    /// The send buffer stayed full.
    #[error("does not read: a send took over {} s", IO_MS_MAX / 1000)]
    Stalled,
    /// More than may wait.
    #[error("does not read its replies")]
    RepliesUnread,
    /// Ours.
    #[error("a panic in its task; please report this")]
    Panic,
}

impl CloseReason {
    /// Whether what waits to be sent is sent before.
    pub fn may_have_last_words(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Refused(_) | Self::Tls(_))
    }

    /// Whether an operator wants to know.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::PeerClosed | Self::Io(_) | Self::Drained | Self::ResponseEnded | Self::Unpublished)
    }
}
