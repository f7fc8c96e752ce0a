//! Every endpoint by its name; what follows from that.

use super::{audio, flv, forward, hls, http, pull, rtmp, ts};
use crate::{
    config::{Listen, Origin, Service},
    core::port::{
        CloseReason, Context, Endpoints, Frame, ImageKey, Output, Peer, Request, Session, Sink, Start, Target, Way,
        Word,
    },
    media::{Kind, Subscription},
    package::Visit,
    proto::{Write, flv::TagKind, http::live::Format},
};
use std::{convert::Infallible, sync::Arc};

/// All endpoints.
#[derive(Debug)]
pub(crate) enum All {}

/// What is answered on an HTTP connection beside the control plane's things, by the end of the path.
const FORMATS: &[Format] = &[flv::FORMAT, ts::FORMAT, audio::AAC, audio::MP3];

impl Endpoints for All {
    type Session = AnySession;
    type Sink = AnySink;

    fn accept(listen: Listen, context: &Context<'_>) -> AnySession {
        match listen.service {
            Service::Rtmp => AnySession::Rtmp(rtmp::RtmpSession::new(context)),
            Service::Http | Service::Api | Service::Exporter => {
                AnySession::Http(http::HttpSession::new(FORMATS, context))
            }
        }
    }

    fn targets(request: &Request, urls: Option<&[String]>, path: &str) -> Vec<Target> {
        forward::targets(request, urls, path)
    }

    fn origins(request: &Request, way: Way, by_flv: bool, path: &str, place: Option<&Origin>) -> Vec<Target> {
        pull::targets(request, way, by_flv, path, place)
    }

    fn pulled(request: &Request, urls: &[String], path: &str) -> Vec<Target> {
        pull::by_urls(request, urls, path)
    }

    fn url_at(request: &Request, place: &Origin) -> String {
        pull::url_at(request, place)
    }

    fn redirected(target: &Target, url: &str) -> Option<Target> {
        pull::redirected(target, url)
    }

    fn dial(target: &Target, context: &Context<'_>) -> Option<AnySession> {
        match target.way {
            Way::Forward | Way::Relay => {
                forward::ForwardSession::new(target, context).map(|session| AnySession::Forward(Box::new(session)))
            }
            Way::Fetch | Way::Ask => {
                pull::PullSession::new(target, context).map(|session| AnySession::Pull(Box::new(session)))
            }
        }
    }
}

/// What only publishes plays nothing.
impl From<Infallible> for AnySink {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<http::Wanted> for AnySink {
    fn from(wanted: http::Wanted) -> Self {
        let (format, response, vhost) = match wanted {
            http::Wanted::Live { format, response, vhost } => (format, response, vhost),
            http::Wanted::Visit(visit) => return Self::Hls(hls::HlsSink::new(visit)),
        };
        match format.suffix {
            ".ts" => Self::Ts(Box::new(ts::TsSink::new(response, &vhost))),
            ".aac" | ".mp3" => Self::Audio(Box::new(audio::AudioSink::new(response, format, &vhost))),
            _ => Self::Flv(Box::new(flv::FlvSink::new(response, vhost))),
        }
    }
}

/// Each kind of session and of sink, and how a shard reaches it.
macro_rules! endpoints {
    (sessions { $($session:ident($session_type:ty)),* $(,)? } sinks { $($number:literal $sink:ident($sink_type:ty)),* $(,)? }) => {
        /// Any session.
        #[derive(Debug)]
        pub(crate) enum AnySession {
            $(#[doc = stringify!($session)] $session($session_type),)*
        }

        impl Session for AnySession {
            type Sink = AnySink;

            fn receive(&mut self, input: &mut &[u8], context: &Context<'_>) -> Result<(), CloseReason> {
                match self { $(Self::$session(session) => session.receive(input, context),)* }
            }

            fn poll(&mut self) -> Option<Output<AnySink>> {
                match self { $(Self::$session(session) => session.poll().map(Output::widen),)* }
            }

            fn told(&mut self, word: Word<'_>, context: &Context<'_>) {
                match self { $(Self::$session(session) => session.told(word, context),)* }
            }

            fn is_answering(&self) -> bool {
                match self { $(Self::$session(session) => session.is_answering(),)* }
            }

            fn has_input(&self) -> bool {
                match self { $(Self::$session(session) => session.has_input(),)* }
            }

            fn take_output(&mut self) -> Vec<u8> {
                match self { $(Self::$session(session) => session.take_output(),)* }
            }

            fn output_len(&self) -> usize {
                match self { $(Self::$session(session) => session.output_len(),)* }
            }

            fn deadline(&self, busy: bool) -> Option<u64> {
                match self { $(Self::$session(session) => session.deadline(busy),)* }
            }

            fn timeout(&mut self, busy: bool, context: &Context<'_>) -> Option<CloseReason> {
                match self { $(Self::$session(session) => session.timeout(busy, context),)* }
            }

            fn peer(&self) -> Peer<'_> {
                match self { $(Self::$session(session) => session.peer(),)* }
            }

            fn into_unread(self) -> Vec<u8> {
                match self { $(Self::$session(session) => session.into_unread(),)* }
            }
        }

        /// Any sink.
        #[derive(Debug)]
        pub(crate) enum AnySink {
            $(#[doc = stringify!($sink)] $sink($sink_type),)*
        }

        impl Sink for AnySink {
            fn client_type(&self) -> &'static str {
                match self { $(Self::$sink(sink) => sink.client_type(),)* }
            }

            fn wrapping(&self) -> &'static str {
                match self { $(Self::$sink(sink) => sink.wrapping(),)* }
            }

            fn rendition(&self) -> Option<&'static Kind> {
                match self { $(Self::$sink(sink) => sink.rendition(),)* }
            }

            fn burst_ms(&self) -> u64 {
                match self { $(Self::$sink(sink) => sink.burst_ms(),)* }
            }

            fn takes_flv(&self) -> bool {
                match self { $(Self::$sink(sink) => sink.takes_flv(),)* }
            }

            fn follows(&self) -> bool {
                match self { $(Self::$sink(sink) => sink.follows(),)* }
            }

            fn visit(&self) -> Option<&Arc<Visit>> {
                match self { $(Self::$sink(sink) => sink.visit(),)* }
            }

            fn share(&self, subscription: &Subscription) -> Option<ImageKey> {
                match self {
                    $(Self::$sink(sink) => sink.share(subscription).map(|key| ImageKey { endpoint: $number, ..key }),)*
                }
            }

            fn is_fresh(&self, kinds: [bool; 3]) -> bool {
                match self { $(Self::$sink(sink) => sink.is_fresh(kinds),)* }
            }

            fn put_shared<W: Write>(&self, frame: Frame<'_>, subscription: &Subscription, out: &mut W) {
                match self { $(Self::$sink(sink) => sink.put_shared(frame, subscription, out),)* }
            }

            fn want(&mut self, kind: TagKind, wanted: bool) {
                match self { $(Self::$sink(sink) => sink.want(kind, wanted),)* }
            }

            fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool {
                match self { $(Self::$sink(sink) => sink.start(start, out),)* }
            }

            fn put<W: Write>(&mut self, frame: Frame<'_>, subscription: &Subscription, out: &mut W) -> bool {
                match self { $(Self::$sink(sink) => sink.put(frame, subscription, out),)* }
            }

            fn end<W: Write>(&mut self, out: &mut W) -> bool {
                match self { $(Self::$sink(sink) => sink.end(out),)* }
            }
        }

        $(impl From<$sink_type> for AnySink {
            fn from(sink: $sink_type) -> Self {
                Self::$sink(sink)
            }
        })*
    };
}

endpoints! {
    sessions {
        Rtmp(rtmp::RtmpSession),
        Http(http::HttpSession),
        Forward(Box<forward::ForwardSession>),
        Pull(Box<pull::PullSession>),
    }
    sinks {
        0 Rtmp(rtmp::RtmpSink),
        1 Flv(Box<flv::FlvSink>),
        2 Ts(Box<ts::TsSink>),
        3 Audio(Box<audio::AudioSink>),
        4 Forward(forward::ForwardSink),
        5 Hls(hls::HlsSink),
    }
}
