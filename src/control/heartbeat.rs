//! SRS's heartbeat: a POST at an interval that says who this is, and where it listens.
//!
//! The control plane writes it; one thread posts it, one after the other. A URL that hangs holds up that thread alone, and
//! what comes meanwhile is left out.

use super::api::Api;
use crate::config::{Config, Heartbeat, Listen};
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};
use std::{
    net::UdpSocket,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use ureq::tls::TlsConfig;

/// How often it is looked whether one is due, and whether a reload has changed anything.
const LOOK: Duration = Duration::from_secs(1);
/// Most time for a post; less if the interval is.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What is posted.
struct Beat {
    url: String,
    token: Option<String>,
    body: String,
    time: Duration,
}

/// The heartbeats of a server.
#[derive(Default)]
pub(super) struct Heartbeats {
    thread: Option<SyncSender<Beat>>,
    last: Option<Instant>,
}

impl Heartbeats {
    /// Posts one if the configuration of the moment wants it and it is due; returns the time until the next look.
    pub(super) fn look(&mut self, api: &Api) -> Duration {
        let config = api.config();
        let Some(heartbeat) = &config.heartbeat else {
            // Without one who sends, the thread ends.
            *self = Self::default();
            return LOOK;
        };
        let mut left = self.last.map_or(Duration::ZERO, |last| heartbeat.interval.saturating_sub(last.elapsed()));
        if left.is_zero() {
            self.last = Some(Instant::now());
            post(&mut self.thread, beat(api, &config, heartbeat));
            left = heartbeat.interval;
        }
        left.min(LOOK)
    }
}

fn post(thread: &mut Option<SyncSender<Beat>>, beat: Beat) {
    if thread.is_none() {
        let (beats, receiver) = sync_channel(1);
        match std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || post_all(&receiver)) {
            Ok(_) => *thread = Some(beats),
            Err(error) => return tracing::error!(%error, "heartbeat: no thread"),
        }
    }
    if let Some(beats) = thread {
        // With one that is under way and one that waits, this one is left out.
        drop(beats.try_send(beat));
    }
}

fn beat(api: &Api, config: &Config, heartbeat: &Heartbeat) -> Beat {
    let (server, service) = api.ids();
    let mut body = json!({
        "device_id": heartbeat.device_id,
        "ip": device_ip(),
        "server": server,
        "service": service,
        "pid": std::process::id().to_string(),
    });
    if heartbeat.summaries {
        body["summaries"] = json!({ "data": api.summaries() });
    }
    if heartbeat.ports {
        add_ports(&mut body, config);
    }
    let time = heartbeat.interval.min(TIME_MAX);
    Beat { url: heartbeat.url.clone(), token: heartbeat.token.clone(), body: body.to_string(), time }
}

/// Where is listened without TLS, as SRS's files say it.
fn add_ports(body: &mut Value, config: &Config) {
    let plain = |list: &[Listen]| -> Vec<String> {
        let endpoint = |listen: &Listen| match listen.address {
            all if all.is_ipv4() && all.ip().is_unspecified() => all.port().to_string(),
            one => one.to_string(),
        };
        list.iter().filter(|listen| !listen.tls).map(endpoint).collect()
    };
    let http = plain(&config.http.listen);
    body["rtmp"] = json!(plain(&config.listen));
    if config.http.enabled() {
        body["http"] = json!(http);
    }
    if config.api.enabled {
        let own = plain(&config.api.listen);
        // None of its own: it is on the HTTP server's.
        body["api"] = json!(if own.is_empty() { http } else { own });
    }
}

/// `SRS_DEVICE_IP`, or the address that this machine would speak to others from.
pub(crate) fn device_ip() -> String {
    if let Some(set) = std::env::var("SRS_DEVICE_IP").ok().filter(|set| !set.is_empty()) {
        return set;
    }
    // To connect such a socket sends nothing; the address is one that documentation uses.
    let address = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    address.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

/// Until nobody sends any more. That it fails is said once, until it is well again.
fn post_all(beats: &Receiver<Beat>) {
    let agent = agent();
    let mut failed = false;
    for beat in beats {
        let outcome = call(&agent, &beat);
        match &outcome {
            Ok(()) if failed => tracing::info!("heartbeat: answered again"),
            Ok(()) => {}
            Err(error) if failed => tracing::debug!("heartbeat: {error}"),
            Err(error) => tracing::warn!("heartbeat: {error}; tried again at every interval"),
        }
        failed = outcome.is_err();
    }
}

fn agent() -> ureq::Agent {
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = ureq::Agent::config_builder().tls_config(tls.build()).max_redirects(0).proxy(None);
    config.max_idle_connections(0).user_agent(concat!("corecast/", env!("CARGO_PKG_VERSION"))).build().into()
}

/// One post; what is answered, but for an error's status, is not read, as in SRS.
fn call(agent: &ureq::Agent, beat: &Beat) -> Result<(), ureq::Error> {
    let mut request = agent.post(&beat.url).header("Content-Type", "application/json");
    if let Some(token) = &beat.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    request.config().timeout_global(Some(beat.time)).build().send(beat.body.as_str()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_said_as_files_say_them() {
        let text = "listen 1935 127.0.0.1:1936 [::]:1937; http_server { enabled on; listen 8080; } \
                    http_api { enabled on; listen 8080; } heartbeat { enabled on; interval 9.9; ports on; }";
        let config = Config::parse("test", text).unwrap();
        let mut body = json!({});
        add_ports(&mut body, &config);
        let expected = json!({ "rtmp": ["1935", "127.0.0.1:1936", "[::]:1937"], "http": ["8080"], "api": ["8080"] });
        assert_eq!(body, expected);
        assert_eq!(config.heartbeat.unwrap().interval, Duration::from_millis(9900));
    }
}
