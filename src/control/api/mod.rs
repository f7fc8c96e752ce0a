//! The HTTP API: SRS's paths and JSON, and some of ours.

pub(super) mod model;

use super::{
    Call, ClientId, ClientReport, Server, ShardReport, access, assets,
    auth::{self, Access, Origin},
    logins::Logins,
    merge, metrics, openapi,
    reply::{Reply, Wrong, allow_origins, code, failure, json_text, method_not_allowed, preflight, reply, wrong},
    shards::{self, Reports, Silent, within},
    system::{self, Sampler},
};
use crate::{
    config::{Config, Listen, Service},
    programs,
};
use async_channel::Sender;
use hyper::{Method, StatusCode, header, http::request::Parts};
use model::{
    Client, Clients, Done, Figures, Kbps, OneClient, OneStream, OneVhost, Program, Programs, Raw, Shard, Shards,
    Stream, Streams, Urls, Version, Versions, Vhost, Vhosts,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// Entries of a list where the request names no `count`, as in SRS.
const COUNT: usize = 10;
/// Most entries of a list.
const COUNT_MAX: usize = 1000;
/// How long a reload may take.
const RELOAD_TIME: Duration = Duration::from_secs(20);

/// The page's list of streams.
const PAGE_LIST: &str = "/page/streams.json";

/// Who asks.
struct Caller {
    peer: SocketAddr,
    access: Access,
}

/// What answers requests.
pub(super) struct Api {
    server: Box<dyn Server>,
    sampler: Sampler,
    reports: Reports,
    logins: RefCell<Logins>,
}

impl Api {
    pub(super) fn new(server: Box<dyn Server>) -> Self {
        Self { server, sampler: Sampler::default(), reports: Reports::default(), logins: RefCell::default() }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.server.config()
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
            Ok::<_, Wrong>(model::PageList::new(config, streams, shards))
        };
        match denied {
            Some(denied) => failure(&denied),
            None => list.await.map_or_else(|wrong| failure(&wrong), |list| ok(&list)),
        }
    }

    async fn route(&self, config: &Config, caller: &Caller, head: &Parts) -> Result<Reply, Wrong> {
        let path = head.uri.path().trim_end_matches('/');
        let query = head.uri.query().unwrap_or_default();
        let mut levels = path.trim_start_matches('/').splitn(4, '/');
        let (api, version, name, id) = (levels.next(), levels.next(), levels.next(), levels.next());
        if head.uri.path() == "/api/v1/openapi.json" {
            return Ok(only_get(head, json_text(StatusCode::OK, openapi::document())));
        }
        let is_v1 = api == Some("api") && matches!(version, None | Some("v1"));
        let known = name.is_none_or(|name| openapi::NAMES.iter().any(|(known, _)| *known == name));
        let takes_id = matches!(name, Some("vhosts" | "streams" | "clients"));
        if !is_v1 || !known || id.is_some_and(|id| !takes_id || id.is_empty() || id.contains('/')) {
            return Err(wrong(StatusCode::NOT_FOUND, code::NO_SUCH_PATH, "no such path; /api/v1/ lists them"));
        }
        let kick = head.method == Method::DELETE && name == Some("clients") && id.is_some();
        // SRS's clients ask these by POST and PUT too; nothing changes.
        let any = matches!(name, Some("versions" | "summaries"));
        let asks = matches!(head.method, Method::GET | Method::HEAD)
            || any && matches!(head.method, Method::POST | Method::PUT);
        if !asks && !kick {
            let allow = match name {
                Some("clients") if id.is_some() => "GET, HEAD, DELETE",
                _ if any => "GET, HEAD, POST, PUT",
                _ => "GET, HEAD",
            };
            return Ok(method_not_allowed(allow));
        }
        let ids = self.server.ids();
        Ok(match (name, id) {
            (None, _) => ok(&Urls::new(ids, urls(version))),
            (Some("versions"), _) => ok(&Versions::new(ids, version_of_this())),
            (Some("summaries"), _) => ok(&Figures::new(ids, self.summaries())),
            (Some("rusages"), _) => ok(&Figures::new(ids, figures(system::rusages()))),
            (Some("self_proc_stats"), _) => ok(&Figures::new(ids, figures(self.sampler.self_stats()))),
            (Some("system_proc_stats"), _) => ok(&Figures::new(ids, figures(self.sampler.system_stats()))),
            (Some("meminfos"), _) => ok(&Figures::new(ids, figures(system::meminfos()))),
            (Some("features"), _) => ok(&Figures::new(ids, features(config))),
            (Some("requests"), _) => ok(&Figures::new(ids, request(head))),
            (Some("shards"), _) => ok(&Shards::new(ids, self.shard_list().await?)),
            (Some("programs"), _) => ok(&Programs::new(ids, self.programs().await.iter().map(Program::new).collect())),
            (Some("vhosts"), None) => ok(&Vhosts::new(ids, self.vhosts(config).await?)),
            (Some("vhosts"), Some(id)) => {
                let found = self.vhosts(config).await?.into_iter().find(|vhost| vhost.id == id);
                let vhost = found.ok_or_else(|| wrong(StatusCode::NOT_FOUND, code::NO_VHOST, "no such vhost"))?;
                ok(&OneVhost::new(ids, vhost))
            }
            (Some("streams"), None) => {
                let (start, count) = page(query)?;
                let all = self.streams().await?;
                let total = all.len();
                ok(&Streams::new(ids, all.into_iter().skip(start).take(count).collect(), total))
            }
            (Some("streams"), Some(id)) => {
                let found = self.streams().await?.into_iter().find(|stream| stream.id == id);
                let stream = found.ok_or_else(|| wrong(StatusCode::NOT_FOUND, code::NO_STREAM, "no such stream"))?;
                ok(&OneStream::new(ids, stream))
            }
            (Some("clients"), None) => {
                let (start, count) = page(query)?;
                let (clients, total) = self.clients(start, count).await?;
                ok(&Clients::new(ids, clients.into_iter().map(Client::from).collect(), total))
            }
            (Some("clients"), Some(id)) => {
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
                return Err(missing());
            }
            (Some("raw"), _) => self.raw(config, caller, query).await?,
            (Some(_), _) => return Err(wrong(StatusCode::NOT_FOUND, code::NO_SUCH_PATH, "no such path")),
        })
    }

    async fn ask<T>(&self, shard: usize, call: impl FnOnce(Sender<T>) -> Call) -> Result<T, Silent> {
        shards::ask(&*self.server, shard, call).await
    }

    async fn reports(&self) -> Result<Rc<[ShardReport]>, Silent> {
        self.reports.get(&*self.server).await
    }

    async fn streams(&self) -> Result<Vec<Stream>, Wrong> {
        let config = self.config();
        let since_1970_ms = system::unix_ms().saturating_sub(self.server.now_ms());
        let reports = self.reports().await?;
        let merged = merge(&reports);
        Ok(merged.values().map(|(report, flush)| Stream::new(report, flush.clone(), since_1970_ms, &config)).collect())
    }

    /// A page of clients, shard by shard, and how many there are.
    async fn clients(&self, mut skip: usize, mut count: usize) -> Result<(Vec<ClientReport>, usize), Wrong> {
        let (mut clients, mut total) = (Vec::new(), 0);
        for shard in 0..self.shards() {
            let (found, here) = self.ask(shard, |reply| Call::Clients { skip, count, reply }).await?;
            skip = skip.saturating_sub(here);
            count -= found.len().min(count);
            total += here;
            clients.extend(found);
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
                streams: own().count() as u64,
                send_bytes: sum(|stream| stream.send_bytes),
                recv_bytes: sum(|stream| stream.recv_bytes),
                kbps: Kbps {
                    recv_30s: sum(|stream| stream.kbps.recv_30s),
                    send_30s: sum(|stream| stream.kbps.send_30s),
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
                log_bytes: report.log_bytes,
            })
            .collect())
    }

    /// SRS's summary of process and machine.
    pub(in crate::control) fn summaries(&self) -> Value {
        let sum = |counter: fn(&crate::stats::ShardStats) -> u64| -> u64 {
            self.server.stats().iter().map(|stats| counter(stats)).sum()
        };
        let (sent, received) = (sum(|stats| stats.bytes_sent.value()), sum(|stats| stats.bytes_received.value()));
        json!({
            "ok": true,
            "now_ms": system::unix_ms(),
            "self": self.sampler.summary_of_self(self.server.now_ms() / 1000),
            "system": self.sampler.summary_of_system(sent, received, self.server.connections()),
        })
    }

    async fn raw(&self, config: &Config, caller: &Caller, query: &str) -> Result<Reply, Wrong> {
        if !config.api.raw {
            let help = "raw_api is off: http_api { raw_api { enabled on; } }";
            return Err(wrong(StatusCode::FORBIDDEN, code::RAW_DISABLED, help));
        }
        let ids = self.server.ids();
        let allowed = json!({ "enabled": true, "allow_reload": config.api.allow_reload });
        let what = json!({ "enabled": true, "raw_api": allowed });
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
            _ => Err(wrong(StatusCode::BAD_REQUEST, code::BAD_REQUEST, "rpc must be raw or reload")),
        }
    }

    async fn programs(&self) -> Vec<programs::Report> {
        let Some(answer) = self.server.programs() else { return Vec::new() };
        answer.recv().await.unwrap_or_default()
    }

    async fn metrics(&self, config: &Config) -> Reply {
        let reports = match self.reports().await {
            Ok(reports) => reports,
            Err(silent) => return failure(&silent.into()),
        };
        let seen = metrics::Seen {
            exporter: &config.exporter,
            stats: self.server.stats(),
            reports: &reports,
            connections: self.server.connections(),
            cpu_load: self.sampler.process_load(),
            ids: self.server.ids(),
            programs: &self.programs().await,
            hooks: self.server.hooks(),
        };
        reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::write(&seen))
    }
}

/// `start` and `count` of a list.
fn page(query: &str) -> Result<(usize, usize), Wrong> {
    let number = |name: &str, default: usize, most: usize| {
        let Some(text) = crate::proto::http::query_value(query, name) else { return Ok(default) };
        let number =
            text.parse().ok().filter(|number| *number <= most && text.bytes().all(|byte| byte.is_ascii_digit()));
        number.ok_or_else(|| {
            wrong(StatusCode::BAD_REQUEST, code::BAD_REQUEST, format!("{name} must be a number from 0 to {most}"))
        })
    };
    Ok((number("start", 0, i32::MAX as usize)?, number("count", COUNT, COUNT_MAX)?))
}

fn urls(version: Option<&str>) -> Map<String, Value> {
    match version {
        None => [("v1".to_owned(), json!("the api version 1.0"))].into_iter().collect(),
        Some(_) => openapi::NAMES.iter().map(|(name, about)| ((*name).to_owned(), json!(about))).collect(),
    }
}

fn version_of_this() -> Version {
    let number = |text: &str| text.parse().unwrap_or(0);
    Version {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        revision: number(env!("CARGO_PKG_VERSION_PATCH")),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        product: "corecast",
    }
}

fn figures(mut figures: Map<String, Value>) -> Value {
    figures.insert("ok".to_owned(), json!(true));
    figures.insert("sample_time".to_owned(), json!(system::unix_ms()));
    Value::Object(figures)
}

fn features(config: &Config) -> Value {
    let on = [
        "ssl",
        "rtmps",
        "http_remux",
        "websocket_flv",
        "http_api",
        "http_hooks",
        "exporter",
        "enhanced_rtmp",
        "forward",
    ];
    let off = ["hls", "hds", "dash", "dvr", "transcode", "ingest", "srt", "rtc", "caster", "edge"];
    let list = on.map(|name| (name, true)).into_iter().chain(off.map(|name| (name, false)));
    let features: Map<String, Value> = list.map(|(name, has)| (name.to_owned(), json!(has))).collect();
    let listen: Vec<Value> = config.endpoints().map(describe).collect();
    json!({ "options": "", "options2": "", "features": features, "listen": listen })
}

/// An endpoint, for whoever makes URLs of it.
fn describe(listen: &Listen) -> Value {
    let service = match listen.service {
        Service::Rtmp => "rtmp",
        Service::Http => "http",
        Service::Api => "api",
        Service::Exporter => "exporter",
    };
    json!({ "service": service, "tls": listen.tls, "ip": listen.address.ip(), "port": listen.address.port() })
}

/// What a request was, for whoever wants to see it; not what it proves itself with.
fn request(head: &Parts) -> Value {
    let shown = head.headers.iter().filter(|(name, _)| *name != header::AUTHORIZATION);
    let headers: Map<String, Value> = shown
        .map(|(name, value)| (name.as_str().to_owned(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let uri = head.uri.to_string();
    json!({ "uri": uri, "path": head.uri.path(), "METHOD": head.method.as_str(), "headers": headers })
}

fn ok(answer: &impl Serialize) -> Reply {
    json_text(StatusCode::OK, serde_json::to_string(answer).unwrap_or_default())
}

fn only_get(head: &Parts, reply: Reply) -> Reply {
    if head.method == Method::GET || head.method == Method::HEAD { reply } else { method_not_allowed("GET, HEAD") }
}
