//! forward: every publish of a vhost is pushed on to other servers, by RTMP and RTMPS, from the stream's log.
//!
//! The shard opens the connection and opens it anew ([`Target`]); here is what is said there: the client's half of
//! RTMP, and a sink that writes what publishers write.

mod sink;

pub(crate) use sink::ForwardSink;

use crate::{
    config::{DEFAULT_VHOST, Destination},
    core::port::{CloseReason, Context, HANDSHAKE_MS_MAX, Output, Peer, Request, Session, Target, Way, Word},
    proto::{
        address::authority,
        amf::Value,
        rtmp::{
            client::{ClientSession, Event, Role},
            handshake::Scheme,
            server::FORWARDED_BY,
            url::RtmpUrl,
        },
    },
};

/// Destinations of one publish: a backend's answer may name any number.
const TARGETS_MAX: usize = 64;

/// One connection to a destination.
#[derive(Debug)]
pub(crate) struct ForwardSession {
    rtmp: ClientSession,
    request: Request,
    queue: Vec<Output<ForwardSink>>,
    begun_ms: u64,
    patience_ms: u64,
    publishing: bool,
}

impl ForwardSession {
    /// Begins; `None` if the target is no place for RTMP.
    pub(super) fn new(target: &Target, context: &Context<'_>) -> Option<Self> {
        let url = RtmpUrl::parse(&target.url).ok()?;
        let rtmp = ClientSession::start(url, Role::Publish, Scheme::Simple, fastrand::u64(..));
        Some(Self {
            rtmp: rtmp.with_property(FORWARDED_BY, Value::string(target.path.clone())),
            request: target.request.clone(),
            queue: Vec::new(),
            begun_ms: context.now_ms,
            patience_ms: target.patience_ms,
            publishing: false,
        })
    }
}

/// Where a publish is pushed on to: as its vhost says, or as the backend has answered.
pub(super) fn targets(request: &Request, urls: Option<&[String]>, path: &str) -> Vec<Target> {
    let target = |tls, host: String, port, url: RtmpUrl| Target {
        way: Way::Forward,
        patience_ms: HANDSHAKE_MS_MAX,
        wait_ms: HANDSHAKE_MS_MAX,
        request: request.clone(),
        name: format!(
            "{}://{}/{}",
            if tls { "rtmps" } else { "rtmp" },
            authority(&host, port),
            without_query(&url.app)
        ),
        url: url.to_string(),
        tls,
        host,
        port,
        path: path.to_owned(),
    };
    let Some(urls) = urls else {
        let destinations = request.vhost.forward.destinations.iter().take(TARGETS_MAX);
        let at = |to: &Destination| target(to.tls, to.host.clone(), to.port, same_stream(request, to));
        return destinations.map(at).collect();
    };
    let mut targets = Vec::new();
    for url in urls.iter().take(TARGETS_MAX) {
        match RtmpUrl::parse(url) {
            Ok(url) => targets.push(target(url.tls, url.host.clone(), url.port, url)),
            Err(error) => tracing::warn!(stream = %request.key, url, "forward: the backend's answer: {error}"),
        }
    }
    targets
}

/// The URL of the same stream at another server. As with SRS, the vhost stands as tcUrl's host.
fn same_stream(request: &Request, to: &Destination) -> RtmpUrl {
    let name = &request.vhost.name;
    let host = if name == DEFAULT_VHOST { &to.host } else { name }.clone();
    let (app, stream) = (request.address.app.clone(), format!("{}{}", request.address.stream, request.address.param));
    RtmpUrl { tls: to.tls, host, port: to.port, app, stream }
}

fn without_query(app: &str) -> &str {
    app.split('?').next().unwrap_or_default()
}

impl Session for ForwardSession {
    type Sink = ForwardSink;

    fn receive(&mut self, input: &mut &[u8], _: &Context<'_>) -> Result<(), CloseReason> {
        while self.queue.is_empty() {
            let event = self.rtmp.next_event(input).map_err(|error| CloseReason::Protocol(error.to_string()))?;
            match event {
                None => break,
                Some(Event::Publishing) if !self.publishing => {
                    self.publishing = true;
                    let sink = ForwardSink::new(self.rtmp.msid());
                    self.queue.push(Output::Play(Box::new(self.request.clone()), sink));
                }
                Some(Event::Status { code, error, description }) => {
                    if error || code == "NetConnection.Connect.ReconnectRequest" {
                        let told = if description.is_empty() { code } else { format!("{code}: {description}") };
                        return Err(CloseReason::Refused(format!("the destination answers {told}")));
                    }
                }
                Some(Event::Redirect(url)) => return Err(CloseReason::Redirected(url)),
                Some(Event::Publishing | Event::Playing | Event::StreamEof | Event::Tag(_)) => {}
            }
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Output<ForwardSink>> {
        if self.queue.is_empty() { None } else { Some(self.queue.remove(0)) }
    }

    fn told(&mut self, word: Word<'_>, _: &Context<'_>) {
        if let Word::Finished(_) = word {
            self.rtmp.close();
            self.queue.push(Output::Leave(CloseReason::Unpublished));
        }
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.rtmp.take_output()
    }

    fn output_len(&self) -> usize {
        self.rtmp.output_len()
    }

    fn deadline(&self, _: bool) -> Option<u64> {
        (!self.publishing).then_some(self.begun_ms + self.patience_ms)
    }

    fn timeout(&mut self, busy: bool, context: &Context<'_>) -> Option<CloseReason> {
        self.deadline(busy).filter(|deadline_ms| *deadline_ms <= context.now_ms)?;
        Some(CloseReason::Late(format!("the destination takes no publish within {} ms", self.patience_ms)))
    }

    fn peer(&self) -> Peer<'_> {
        Peer { position: u64::from(self.rtmp.position()), ..Peer::default() }
    }

    fn into_unread(self) -> Vec<u8> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, proto::address::StreamAddress};
    use std::sync::Arc;

    fn request(vhost: &str, destination: &str) -> Request {
        let text = format!("listen 1935; vhost {vhost} {{ forward {{ enabled on; destination {destination}; }} }}");
        let config = Config::parse("test", &text).unwrap();
        let address = StreamAddress::resolve("rtmp://h/live", "live", "x?token=1").unwrap();
        Request::of(0, address, &Arc::clone(&config.vhosts[0]))
    }

    /// What SRS makes of a destination: the same stream, with its query; a vhost goes along in tcUrl.
    #[test]
    fn targets_are_as_srs_has_them() {
        let of = |request: &Request, urls: Option<&[String]>| {
            let targets = targets(request, urls, "");
            targets.into_iter().map(|to| (to.tls, to.host, to.port, to.url, to.name)).collect::<Vec<_>>()
        };
        let own = |text: &str| text.to_owned();
        assert_eq!(
            of(&request(DEFAULT_VHOST, "a:19350 rtmps://[::1]"), None),
            [
                (false, own("a"), 19_350, own("rtmp://a:19350/live/x?token=1"), own("rtmp://a:19350/live")),
                (true, own("::1"), 443, own("rtmps://[::1]:443/live/x?token=1"), own("rtmps://[::1]:443/live")),
            ]
        );
        assert_eq!(of(&request("v.com", "a"), None)[0].3, "rtmp://v.com:1935/live/x?token=1");
        let answer = [own("rtmp://b/app?secret=1/KEY"), own("ftp://b/x")];
        assert_eq!(
            of(&request(DEFAULT_VHOST, "a"), Some(&answer)),
            [(false, own("b"), 1935, own("rtmp://b:1935/app?secret=1/KEY"), own("rtmp://b:1935/app"))]
        );
        let many = vec![own("rtmp://b/a/b"); 1000];
        assert_eq!(of(&request(DEFAULT_VHOST, "a"), Some(&many)).len(), TARGETS_MAX);
    }
}
