//! Other origins, asked one after the other by their APIs, as SRS does: `GET /api/v1/clusters`.

use super::{Place, Sought};
use crate::{config::Origin, proto::address::authority, sys::CpuMask};
use async_channel::{Receiver, Sender};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::Duration,
};

/// Threads that ask.
const THREADS: usize = 4;
/// Questions that wait for one; the next is answered that nobody has the stream.
const QUESTIONS_MAX: usize = 1000;
/// How long one server may take.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// The API's port where none is given.
const API_PORT: u16 = 1985;

/// See the module; the threads begin with the first question.
#[derive(Debug)]
pub(super) struct Coworkers {
    cpus: Option<CpuMask>,
    questions: OnceLock<Option<mpsc::SyncSender<Question>>>,
}

#[derive(Debug)]
struct Question {
    servers: Vec<Origin>,
    sought: Sought,
    answer: Sender<Option<Place>>,
}

impl Coworkers {
    pub(super) fn new(cpus: Option<CpuMask>) -> Self {
        Self { cpus, questions: OnceLock::new() }
    }

    pub(super) fn ask(&self, servers: &[Origin], sought: Sought) -> Receiver<Option<Place>> {
        let (answer, answered) = async_channel::bounded(1);
        if let Some(sender) = self.questions.get_or_init(|| begin(self.cpus)) {
            // One that is not taken drops its sender: nobody has it.
            drop(sender.try_send(Question { servers: servers.to_vec(), sought, answer }));
        }
        answered
    }
}

fn begin(cpus: Option<CpuMask>) -> Option<mpsc::SyncSender<Question>> {
    let (sender, questions) = mpsc::sync_channel(QUESTIONS_MAX);
    let questions = Arc::new(Mutex::new(questions));
    for _ in 0..THREADS {
        let questions = Arc::clone(&questions);
        let run = move || {
            cpus.inspect(CpuMask::apply);
            answer_all(&questions);
        };
        let spawned = std::thread::Builder::new().name("coworkers".to_owned()).spawn(run);
        if let Err(error) = spawned {
            tracing::error!(%error, "coworkers: no thread");
            return None;
        }
    }
    Some(sender)
}

fn answer_all(questions: &Mutex<mpsc::Receiver<Question>>) {
    let config = ureq::Agent::config_builder().max_redirects(0).proxy(None).timeout_global(Some(TIME_MAX));
    let agent: ureq::Agent = config.user_agent(concat!("corecast/", env!("CARGO_PKG_VERSION"))).build().into();
    loop {
        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { servers, sought, answer }) = next else { return };
        if answer.is_closed() {
            continue;
        }
        let found = servers.iter().find_map(|server| match ask(&agent, server, &sought) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(server = %server.host, "coworkers: {error}");
                None
            }
        });
        // Whoever asked may have gone.
        drop(answer.try_send(found));
    }
}

fn ask(agent: &ureq::Agent, server: &Origin, sought: &Sought) -> Result<Option<Place>, ureq::Error> {
    let at = authority(&server.host, server.port.unwrap_or(API_PORT));
    let text = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let Sought { vhost, host, app, stream, .. } = sought;
    let query = [("vhost", vhost), ("ip", host), ("app", app), ("stream", stream), ("coworker", &at)];
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    let mut answer = agent.get(format!("http://{at}/api/v1/clusters?{}", query.join("&"))).call()?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    Ok(read(&body, server))
}

/// `{"code":0,"data":{"origin":{"ip":…,"port":…}}}`; no origin has it if that is null.
fn read(body: &str, server: &Origin) -> Option<Place> {
    let answer: Value = serde_json::from_str(body).ok()?;
    let origin = answer.get("data")?.get("origin")?;
    let port = origin.get("port")?.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    let ip = origin.get("ip").and_then(Value::as_str).filter(|ip| !ip.is_empty()).unwrap_or(&server.host);
    Some(Place { rtmp: Origin { host: ip.to_owned(), port: Some(port) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_srs_s() {
        let server = Origin { host: "a".to_owned(), port: None };
        let found =
            read(r#"{"code":0,"data":{"query":{},"origin":{"ip":"1.2.3.4","port":19350,"vhost":"x"}}}"#, &server);
        assert_eq!(found.map(|place| (place.rtmp.host, place.rtmp.port)), Some(("1.2.3.4".to_owned(), Some(19_350))));
        let bad = [
            "",
            "[]",
            r#"{"code":0}"#,
            r#"{"data":{"origin":null}}"#,
            r#"{"data":{"origin":{"ip":"x","port":70000}}}"#,
        ];
        for bad in bad {
            assert_eq!(read(bad, &server), None, "{bad}");
        }
    }
}
