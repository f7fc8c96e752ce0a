//! The HTTP API: SRS's paths and JSON, and some of ours.

mod figures;
mod manner;
pub(super) mod model;
mod ours;
mod recordings;

use super::{
    Call, ClientId, ClientReport, Server, ShardReport, StreamReport, access, assets,
    auth::{self, Access, Origin},
    logins::Logins,
    merge, metrics, openapi,
    reply::{
        Reply, Wrong, allow_origins, code, failure, json_text, method_not_allowed, preflight, redirect, reply, wrong,
    },
    shards::{self, REPORT_AGE_MAX, Reports, Silent, within},
    system::{self, Sampler},
};
use crate::{
    config::{Config, Service},
    programs,
};
use async_channel::Sender;
use bytes::Bytes;
use hyper::{Method, StatusCode, header, http::request::Parts};
use manner::{Manner, Methods, refusal};
use model::{
    AllUrls, Client, Clients, Done, Figures, Hls, Kbps, OneClient, OneStream, OneVhost, Programs, Raw, Shard, Shards,
    Stream, Streams, Urls, Versions, Vhost, Vhosts,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// Clients that a shard is asked for at once.
const CLIENTS_PAGE: usize = 500;
/// How long a reload may take.
const RELOAD_TIME: Duration = Duration::from_secs(20);

/// What the exporter writes (text format 0.0.4).
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page's list of streams.
const PAGE_LIST: &str = "/page/streams.json";

/// Who asks.
struct Caller {
    peer: SocketAddr,
    access: Access,
}

/// Streams, and the reports that they were made of.
type Made = (Rc<[ShardReport]>, Rc<[Stream]>);

/// What answers requests.
pub(super) struct Api {
    server: Box<dyn Server>,
    sampler: Sampler,
    reports: Reports,
    /// The streams of a report: whoever asks for them while it serves costs no more.
    streams: RefCell<Option<Made>>,
    /// The exporter's text, and when it was written.
    metrics: RefCell<Option<(Instant, Bytes)>>,
    logins: RefCell<Logins>,
}

impl Api {
    pub(super) fn new(server: Box<dyn Server>) -> Self {
        Self {
            server,
            sampler: Sampler::default(),
            reports: Reports::default(),
            streams: RefCell::default(),
            metrics: RefCell::default(),
            logins: RefCell::default(),
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.server.config()
    }

    pub(super) fn is_packaged(&self, vhost: &crate::config::Vhost, path: &str) -> bool {
        self.server.is_packaged(vhost, path)
    }

    pub(super) fn ids(&self) -> (&str, &str) {
        self.server.ids()
    }

    pub(super) fn shards(&self) -> usize {
        self.server.stats().len()
    }

    pub(super) fn call(&self, shard: usize, call: Call) {
        self.server.call(shard, call);
    }

    /// Answers whatever is no live stream. A credential waits for its turn, and a wrong one is remembered.
    pub(super) async fn respond(&self, from: &Origin, head: &Parts) -> Reply {
        let (peer, given) = (from.peer, head.headers.contains_key(header::AUTHORIZATION));
        if given {
            let turn = self.logins.borrow_mut().turn(peer.ip(), Instant::now());
            match turn {
                Some(Duration::ZERO) => {}
                Some(wait) => shards::pause(wait).await,
                None => {
                    let why = "too many wrong names, passwords or tokens; try again later";
                    return failure(&wrong(StatusCode::TOO_MANY_REQUESTS, code::FORBIDDEN, why));
                }
            }
        }
        let reply = self.answer(from, head).await;
        if given && reply.status() == StatusCode::UNAUTHORIZED {
            let failures = self.logins.borrow_mut().failed(peer.ip(), Instant::now());
            // So many lines that they tell of it, and no more.
            if failures.is_power_of_two() {
                tracing::warn!(%peer, failures, "API: a wrong name, password or token");
            }
        }
        reply
    }

    async fn answer(&self, from: &Origin, head: &Parts) -> Reply {
        let config = self.config();
        let path = head.uri.path();
        #[cfg(test)]
        assert!(path != "/panic", "a test asked for a panic");
        let names_api =
            path == "/api" || path.starts_with("/api/") || (path == "/metrics" && from.service == Service::Api);
        match from.service {
            Service::Exporter if path == "/metrics" => only_get(head, self.metrics(&config).await),
            Service::Exporter => failure(&wrong(StatusCode::NOT_FOUND, code::NO_SUCH_PATH, "only /metrics is here")),
            Service::Http | Service::Rtmp if path == PAGE_LIST => only_get(head, self.page_list(&config, head).await),
            Service::Http | Service::Rtmp if !names_api || !from.has_api(&config.api) => assets::respond(head, &config),
            Service::Http | Service::Rtmp | Service::Api => {
                let crossdomain = config.api.crossdomain;
                if crossdomain && head.method == Method::OPTIONS {
                    return preflight();
                }
                let mut reply = match auth::check(&config.api, self.server.token(), from, head) {
                    Ok(_) if path == "/metrics" => only_get(head, self.metrics(&config).await),
                    Ok(access) => {
                        let caller = Caller { peer: from.peer, access };
                        self.route(&config, &caller, head).await.unwrap_or_else(|wrong| failure(&wrong))
                    }
                    Err(denied) => failure(&denied.into()),
                };
                if crossdomain {
                    allow_origins(reply.headers_mut());
                }
                reply
            }
        }
    }

    /// What the page shows, to everybody: no client has a name there.
    async fn page_list(&self, config: &Config, head: &Parts) -> Reply {
        let denied = auth::check_page(&config.api, head).err().map(Wrong::from);
        let list = async {
            let (streams, shards) = (self.streams().await?, self.shard_list().await?);
            Ok::<_, Wrong>(model::PageList::new(config, &streams, shards))
        };
        match denied {
            Some(denied) => failure(&denied),
            None => list.await.map_or_else(|wrong| failure(&wrong), |list| ok(&list)),
        }
    }

    async fn route(&self, config: &Config, caller: &Caller, head: &Parts) -> Result<Reply, Wrong> {
        let manner = Manner::of(head, &config.api)?;
        let reply = match self.find(config, caller, head, &manner).await {
            Ok(reply) => reply,
            Err(wrong) => manner.failure(wrong),
        };
        Ok(manner.dress(reply))
    }

    async fn find(&self, config: &Config, caller: &Caller, head: &Parts, manner: &Manner) -> Result<Reply, Wrong> {
        let path = head.uri.path();
        if path == "/api/v1/openapi.json" {
            return Ok(only_get(head, json_text(StatusCode::OK, openapi::document())));
        }
        let mut levels = path.trim_matches('/').splitn(4, '/');
        let place = (levels.next().unwrap_or_default(), levels.next(), levels.next(), levels.next());
        match place {
            ("api", Some("v1"), Some(name), id) => self.answer_v1(config, caller, head, manner, (name, id)).await,
            ("api", Some("v1"), None, _) => self.listing(manner, 2, true),
            ("api", version, ..) => self.listing(manner, 1, version.is_none()),
            (root, ..) => self.listing(manner, 0, root.is_empty()),
        }
    }

    /// What lies at so many levels; SRS gives it to who asks for something below that is not there.
    fn listing(&self, manner: &Manner, levels: usize, is_exact: bool) -> Result<Reply, Wrong> {
        if let Some(refusal) = refusal(manner, Methods::Any) {
            return Ok(refusal);
        }
        if manner.statuses && !is_exact {
            return Err(wrong(StatusCode::NOT_FOUND, code::NO_SUCH_PATH, "no such path; /api/v1/ lists them"));
        }
        let (ids, urls) = (self.server.ids(), figures::urls(levels));
        Ok(if levels == 2 { ok(&AllUrls::new(ids, urls, figures::tests())) } else { ok(&Urls::new(ids, urls)) })
    }

    /// What is below `/api/v1/`.
    async fn answer_v1(
        &self,
        config: &Config,
        caller: &Caller,
        head: &Parts,
        manner: &Manner,
        (name, id): (&str, Option<&str>),
    ) -> Result<Reply, Wrong> {
        let methods = match (name, id) {
            // Where it names no client, SRS finds none.
            ("clients", id) if id.is_some() || manner.method == Method::DELETE && !manner.statuses => Methods::Delete,
            ("recordings", Some(_)) => Methods::Change,
            ("vhosts" | "streams" | "clients", _) | ("shards" | "programs" | "recordings", None) => Methods::Get,
            _ => Methods::Any,
        };
        if let Some(refusal) = refusal(manner, methods) {
            return Ok(refusal);
        }
        let ids = self.server.ids();
        let query = head.uri.query().unwrap_or_default();
        Ok(match (name, id) {
            ("versions", None) => ok(&Versions::new(ids, figures::version())),
            ("summaries", None) => ok(&Figures::new(ids, self.summaries())),
            ("rusages", None) => ok(&Figures::new(ids, figures::sampled(system::rusages()))),
            ("self_proc_stats", None) => ok(&Figures::new(ids, figures::sampled(self.sampler.self_stats()))),
            ("system_proc_stats", None) => ok(&Figures::new(ids, figures::sampled(self.sampler.system_stats()))),
            ("meminfos", None) => ok(&Figures::new(ids, figures::sampled(system::meminfos()))),
            ("authors", None) => ok(&Figures::new(ids, figures::authors())),
            ("features", None) => ok(&Figures::new(ids, figures::features(config))),
            // SRS names the first and has the second.
            ("requests", None) | ("tests", Some("requests")) => {
                ok(&Figures::new(ids, figures::request(head, &manner.method)))
            }
            ("tests", Some("errors")) => {
                return Err(wrong(StatusCode::INTERNAL_SERVER_ERROR, code::TEST, "an error, as asked for"));
            }
            ("tests", Some("redirects")) => redirect("/api/v1/tests/errors", query),
            ("clusters", None) => {
                let is_published = |key: &str| self.server.is_published(key);
                ok(&Figures::new(ids, figures::cluster(config, query, is_published)))
            }
            ("shards", None) => ok(&Shards::new(ids, self.shard_list().await?)),
            ("programs", None) => {
                ok(&Programs::new(ids, self.programs().await.iter().map(ours::Program::new).collect()))
            }
            ("vhosts", None) => ok(&Vhosts::new(ids, self.vhosts(config).await?)),
            ("vhosts", Some(id)) => {
                let found = self.vhosts(config).await?.into_iter().find(|vhost| vhost.id == id);
                let vhost = found.ok_or_else(|| wrong(StatusCode::NOT_FOUND, code::NO_VHOST, "no such vhost"))?;
                ok(&OneVhost::new(ids, vhost))
            }
            ("streams", None) => {
                let (start, count) = manner.page(query)?;
                let all = self.streams().await?;
                let total = all.len();
                ok(&Streams::new(ids, all.iter().skip(start).take(count).cloned().collect(), total))
            }
            ("streams", Some(id)) => {
                let found = self.streams().await?.iter().find(|stream| stream.id == id).cloned();
                let stream = found.ok_or_else(|| wrong(StatusCode::NOT_FOUND, code::NO_STREAM, "no such stream"))?;
                ok(&OneStream::new(ids, stream))
            }
            ("clients", None) if manner.asks() => {
                let (start, count) = manner.page(query)?;
                let (clients, total) = self.clients(start, count).await?;
                ok(&Clients::new(ids, clients.into_iter().map(Client::from).collect(), total))
            }
            ("clients", id) => self.client(caller, id.unwrap_or_default(), !manner.asks()).await?,
            ("recordings", id) => self.recordings(caller, manner, query, id)?,
            ("raw", None) => self.raw(config, caller, query).await?,
            _ => return self.listing(manner, 2, false),
        })
    }

    /// One client, or its end.
    async fn client(&self, caller: &Caller, id: &str, kick: bool) -> Result<Reply, Wrong> {
        let ids = self.server.ids();
        let missing = || wrong(StatusCode::NOT_FOUND, code::NO_CLIENT, "no such client");
        let by = if kick { Some(caller.access.to_change()?) } else { None };
        let id = ClientId::read(id).ok_or_else(missing)?;
        // It may have moved from where it came in, and is looked for everywhere then.
        let first = id.shard.min(self.shards());
        for shard in (first..self.shards()).chain(0..first) {
            if let Some(by) = by {
                if self.ask(shard, |reply| Call::Kick { id, reply }).await? {
                    tracing::info!(peer = %caller.peer, %by, client = %id, "API: a client is disconnected");
                    return Ok(ok(&Done::new(ids)));
                }
            } else if let Some(client) = self.ask(shard, |reply| Call::Client { id, reply }).await? {
                return Ok(ok(&OneClient::new(ids, client.into())));
            }
        }
        Err(missing())
    }

    async fn ask<T>(&self, shard: usize, call: impl FnOnce(Sender<T>) -> Call) -> Result<T, Silent> {
        shards::ask(&*self.server, shard, call).await
    }

    async fn reports(&self) -> Result<Rc<[ShardReport]>, Silent> {
        self.reports.get(&*self.server).await
    }

    async fn streams(&self) -> Result<Rc<[Stream]>, Wrong> {
        let reports = self.reports().await?;
        if let Some((of, streams)) = &*self.streams.borrow()
            && Rc::ptr_eq(of, &reports)
        {
            return Ok(Rc::clone(streams));
        }
        let config = self.config();
        let since_1970_ms = system::unix_ms().saturating_sub(self.server.now_ms());
        let merged = merge(&reports);
        let stream = |(report, flush): &(StreamReport, Vec<u64>)| {
            let playlists = self.server.playlists(&report.key);
            Stream::new(report, flush.clone(), playlists, since_1970_ms, &config)
        };
        let streams: Rc<[Stream]> = merged.values().map(stream).collect();
        self.streams.replace(Some((Rc::clone(&reports), Rc::clone(&streams))));
        Ok(streams)
    }

    /// So many clients, shard by shard, a page at a time, and how many there are.
    async fn clients(&self, mut skip: usize, mut count: usize) -> Result<(Vec<ClientReport>, usize), Wrong> {
        let (mut clients, mut total) = (Vec::new(), 0);
        for shard in 0..self.shards() {
            let mut at = skip;
            loop {
                let most = count.min(CLIENTS_PAGE);
                let (found, here) = self.ask(shard, |reply| Call::Clients { skip: at, count: most, reply }).await?;
                count -= found.len().min(count);
                clients.extend(found);
                at += most;
                if count == 0 || at >= here {
                    skip = skip.saturating_sub(here);
                    total += here;
                    break;
                }
            }
        }
        Ok((clients, total))
    }

    async fn vhosts(&self, config: &Config) -> Result<Vec<Vhost>, Wrong> {
        let streams = self.streams().await?;
        let vhost = |vhost: &Arc<crate::config::Vhost>| {
            let id = access::stable_id(&vhost.name);
            let own = || streams.iter().filter(|stream| stream.vhost == id);
            let sum = |figure: fn(&Stream) -> u64| own().map(figure).sum();
            Vhost {
                name: vhost.name.clone(),
                enabled: vhost.enabled,
                clients: sum(|stream| stream.clients),
                streams: own().filter(|stream| stream.publish.active).count() as u64,
                send_bytes: sum(|stream| stream.send_bytes),
                recv_bytes: sum(|stream| stream.recv_bytes),
                kbps: Kbps {
                    recv_30s: sum(|stream| stream.kbps.recv_30s),
                    send_30s: sum(|stream| stream.kbps.send_30s),
                },
                hls: Hls {
                    enabled: vhost.hls.is_some(),
                    fragment: vhost.hls.as_ref().map(|hls| Duration::from_millis(hls.fragment_ms).as_secs_f64()),
                },
                id: id.clone(),
            }
        };
        Ok(config.vhosts.iter().map(vhost).collect())
    }

    async fn shard_list(&self) -> Result<Vec<Shard>, Wrong> {
        let reports = self.reports().await?;
        let shards = self.server.stats().iter().zip(&*reports).enumerate();
        Ok(shards
            .map(|(shard, (stats, report))| Shard {
                shard,
                #[expect(clippy::cast_precision_loss, reason = "0 to 1000")]
                load: stats.busy_permille.value() as f64 / 1000.0,
                flush_ms: report.flush_ms,
                connections: report.connections,
                publishers: stats.publishers.value(),
                players: stats.players.value(),
                send_bytes: stats.bytes_sent.value(),
                recv_bytes: stats.bytes_received.value(),
                skips: stats.skips.value(),
                media_bytes: report.media_bytes,
            })
            .collect())
    }

    /// SRS's summary of process and machine.
    pub(in crate::control) fn summaries(&self) -> Value {
        let sum = |counter: fn(&crate::stats::ShardStats) -> u64| -> u64 {
            self.server.stats().iter().map(|stats| counter(stats)).sum()
        };
        let (sent, received) = (sum(|stats| stats.bytes_sent.value()), sum(|stats| stats.bytes_received.value()));
        let clients = sum(|stats| stats.players.value() + stats.publishers.value());
        json!({
            "ok": true,
            "now_ms": system::unix_ms(),
            "self": self.sampler.summary_of_self(self.server.now_ms() / 1000),
            "system": self.sampler.summary_of_system(sent, received, clients),
        })
    }

    async fn raw(&self, config: &Config, caller: &Caller, query: &str) -> Result<Reply, Wrong> {
        if !config.api.raw {
            let help = "raw_api is off: http_api { raw_api { enabled on; } }";
            return Err(wrong(StatusCode::FORBIDDEN, code::RAW_DISABLED, help));
        }
        let ids = self.server.ids();
        let what = figures::raw_state(config);
        match crate::proto::http::query_value(query, "rpc").as_deref() {
            Some("raw") => Ok(ok(&Raw::new(ids, None, what))),
            Some("reload") if !config.api.allow_reload => {
                let help = "reload is off: raw_api { allow_reload on; }";
                Err(wrong(StatusCode::FORBIDDEN, code::RAW_DISABLED, help))
            }
            Some("reload") => {
                let by = caller.access.to_change()?;
                tracing::info!(peer = %caller.peer, %by, "API: a reload is asked for");
                match within(RELOAD_TIME, self.server.reload()).await {
                    Some(Ok(changes)) => Ok(ok(&Raw::new(ids, Some(changes), what))),
                    Some(Err(faults)) => Err(wrong(StatusCode::UNPROCESSABLE_ENTITY, code::RAW_FAILED, faults)),
                    None => Err(wrong(StatusCode::SERVICE_UNAVAILABLE, code::BUSY, "the reload takes long")),
                }
            }
            _ => Err(wrong(StatusCode::BAD_REQUEST, code::RAW_FAILED, "rpc must be raw or reload")),
        }
    }

    async fn programs(&self) -> Vec<programs::Report> {
        let Some(answer) = self.server.programs() else { return Vec::new() };
        answer.recv().await.unwrap_or_default()
    }

    async fn metrics(&self, config: &Config) -> Reply {
        let written = self.metrics.borrow().as_ref().filter(|(at, _)| at.elapsed() < REPORT_AGE_MAX).cloned();
        if let Some((_, text)) = written {
            return reply(StatusCode::OK, METRICS_TYPE, text);
        }
        let reports = match self.reports().await {
            Ok(reports) => reports,
            Err(silent) => return failure(&silent.into()),
        };
        let seen = metrics::Seen {
            exporter: &config.exporter,
            stats: self.server.stats(),
            reports: &reports,
            cpu_load: self.sampler.process_load(),
            ids: self.server.ids(),
            programs: &self.programs().await,
            hooks: self.server.hooks(),
            stored: self.server.stored(),
            registry: self.server.registry(),
        };
        let text = Bytes::from(metrics::write(&seen));
        self.metrics.replace(Some((Instant::now(), text.clone())));
        reply(StatusCode::OK, METRICS_TYPE, text)
    }
}

fn ok(answer: &impl Serialize) -> Reply {
    json_text(StatusCode::OK, serde_json::to_string(answer).unwrap_or_default())
}

fn only_get(head: &Parts, reply: Reply) -> Reply {
    if head.method == Method::GET || head.method == Method::HEAD { reply } else { method_not_allowed("GET, HEAD") }
}
