//! Directives → sections. Every fault of a configuration is found at once.

use super::{
    Cluster, Config, DEFAULT_VHOST, Dash, Descriptors, Dvr, Forward, Heartbeat, Hls, HttpStatic, Listen, Log, LogLevel,
    Play, ProgramLimits, Publish, Rtmps, SendPath, Service, Stop, Takeover, TimeJitter, Vhost,
    directives::Block,
    explain::{Line, quoted},
    faults::Fault,
    place::Word,
    programs,
    proxies::{Proxies, read_net},
    pull,
    section::{Loader, Section},
    syntax::Directive,
};
use crate::tls;
use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

/// Turns directives into a configuration; faults are in the loader.
pub(super) fn load(loader: &mut Loader, directives: Vec<Directive>, descriptors: Option<Descriptors>) -> Config {
    let mut top = Section::new(Block::Top, directives, loader);
    let listen = top.listen(Service::Rtmp, false, Ipv4Addr::UNSPECIFIED);
    let (max_connections, max_word) = top.number_at("max_connections");
    let programs = ProgramLimits {
        count_max: top.number("programs_max"),
        log_dir: Some(top.path("ff_log_dir").0).filter(|path| path != "/dev/null").map(PathBuf::from),
        log_level: top.text("ff_log_level").0,
    };
    let trusted_proxies = Proxies(top.words("trusted_proxies", read_net));
    let memory_max = u64::from(top.number("memory_max")) << 20;
    let segments_max = u64::from(top.number("hls_memory_max")) << 20;
    let by_file = top.choice("send_path").0 == "sendfile";
    let send_path = if by_file { SendPath::Sendfile } else { SendPath::Copy };
    let chunk_size = top.number_at("chunk_size");
    let log = load_log(&mut top);
    let stop = Stop {
        forced: top.flag("force_grace_quit"),
        start_wait_ms: top.number("grace_start_wait"),
        drain_limit_s: top.number("grace_drain_limit"),
        final_wait_ms: top.number("grace_final_wait"),
    };
    let (daemon, daemon_word) = top.flag_at("daemon");
    if let Some(word) = daemon_word.filter(|_| daemon) {
        let help = "`daemon off;` says so; conf/corecast.service runs it under systemd";
        top.loader.warnings.push(Fault::new(&word, "the server stays in the foreground").help(help));
    }
    let (asprocess, asprocess_word) = top.flag_at("asprocess");
    if let Some(word) = asprocess_word.filter(|_| asprocess && daemon) {
        let help = "remove one of the two: a daemon has no parent to end with";
        top.loader.fault(&word, "`asprocess` and `daemon` contradict each other", help);
    }
    let auto_reload = top.flag("inotify_auto_reload");
    let work_dir = load_work_dir(&mut top);
    let pid = Some(top.path("pid").0).filter(|path| !path.is_empty()).map(PathBuf::from);
    let server_id = Some(top.text("server_id").0).filter(|id| !id.is_empty());
    let rtmp = top.block("rtmp");
    let rtmps = top.block("rtmps");
    let http_blocks = http::Blocks::take(&mut top);
    let heartbeat = top.block("heartbeat").unwrap_or_default();
    let vhosts = top.blocks("vhost");
    top.finish();
    let max_connections = check_descriptors(loader, max_connections, max_word.as_ref(), descriptors);
    let (listen, chunk_size) = load_rtmp(loader, rtmp, listen, chunk_size);
    let rtmps = load_rtmps(loader, rtmps);
    let (http, api, exporter) = http_blocks.load(loader);
    let heartbeat = Heartbeat::load(Section::new(Block::Heartbeat, heartbeat, loader));
    let mut endpoints: Vec<(Listen, Word)> = Vec::new();
    for (service, list) in
        [("RTMP", &listen), ("RTMPS", &rtmps.1), ("HTTP", &http.1), ("the API", &api.1), ("the exporter", &exporter.1)]
    {
        for (endpoint, word) in list {
            // The API may share the HTTP server's port.
            let clashes = |(other, _): &&(Listen, Word)| other.address == endpoint.address && other.address.port() != 0;
            if endpoints.iter().any(|other| clashes(&other)) {
                let message = format!("{} is listened on already, here for {service}", endpoint.address);
                loader.fault(word, message, "choose another port");
            }
        }
        endpoints.extend(list.iter().cloned());
    }
    check_proxies(loader, &endpoints, &trusted_proxies);
    let (mut http, api, exporter, rtmps) = (http.0, api.0, exporter.0, rtmps.0);
    if listen.is_empty() && rtmps.listen.is_empty() && loader.faults.is_empty() {
        let file = loader.sources.0.first().map_or("environment", |source| &source.name);
        let fault = Fault::nowhere(format!("{file}: no `listen` directive, so nobody could connect"));
        loader.faults.push(fault.help("add `listen 1935;`, or set SRS_LISTEN=1935"));
    }
    let mut vhosts = load_vhosts(loader, &vhosts, chunk_size);
    if vhosts.is_empty() {
        vhosts.push(Arc::new(load_vhost(loader, DEFAULT_VHOST, Vec::new(), chunk_size)));
    }
    if http.http2 && vhosts.iter().any(|vhost| vhost.is_packaged()) {
        http.tls = http.tls.map(|acceptor| acceptor.with_http2());
    }
    let mut registries = vhosts.iter().filter_map(|vhost| vhost.cluster.registry.clone());
    let registry = registries.next();
    if registry.as_ref().is_some_and(|first| registries.any(|other| other != *first)) {
        let fault = Fault::nowhere("vhosts name several registries: a server has one");
        loader.faults.push(fault.help("write the same `registry`, and what belongs to it, in all of them"));
    }
    let listen = listen.into_iter().map(|(listen, _)| listen).collect();
    Config {
        registry,
        listen,
        max_connections,
        trusted_proxies,
        memory_max,
        segments_max,
        send_path,
        programs,
        rtmps,
        http,
        api,
        exporter,
        heartbeat,
        vhosts,
        log,
        stop,
        pid,
        work_dir,
        asprocess,
        auto_reload,
        server_id,
    }
}

fn load_log(top: &mut Section<'_>) -> Log {
    let (tank, _) = top.choice("srs_log_tank");
    let (level, _) = top.choice("srs_log_level");
    let (file, _) = top.path("srs_log_file");
    let (level_v2, _) = top.choice("srs_log_level_v2");
    let level = match level_v2.as_str() {
        "trace" => "verbose",
        "debug" => "info",
        "info" => "trace",
        "" => &level,
        other => other,
    };
    let level = match level {
        "verbose" => LogLevel::Verbose,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        _ => LogLevel::Trace,
    };
    Log { file: (tank == "file").then(|| PathBuf::from(file)), level }
}

/// As a path that stands when the directory has been changed; `None` changes nothing.
fn load_work_dir(top: &mut Section<'_>) -> Option<PathBuf> {
    let (path, word) = top.path("work_dir");
    let word = word.filter(|_| !matches!(path.as_str(), "." | "./"))?;
    let directory = top.loader.directory.join(&path);
    match std::fs::metadata(&directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => top.loader.fault(&word, format!("`{path}` is no directory"), "name one that exists"),
        Err(error) => top.loader.fault(&word, format!("`{path}`: {error}"), "make the directory, or name another"),
    }
    top.loader.work_dir.clone_from(&directory);
    Some(directory)
}

/// A proxy header is believed of this machine, or of those who are named.
fn check_proxies(loader: &mut Loader, endpoints: &[(Listen, Word)], proxies: &Proxies) {
    let open = |listen: &Listen| listen.proxy_protocol && !listen.address.ip().is_loopback();
    if *proxies == Proxies::default()
        && let Some((_, word)) = endpoints.iter().find(|(listen, _)| open(listen))
    {
        let message = "`proxy_protocol` where others than this machine can connect, and no `trusted_proxies`";
        loader.fault(word, message, "name the proxies: `trusted_proxies 10.0.0.5 10.1.0.0/16;`");
    }
}

/// How many connections there may be: as SRS does, what is beyond the process's limit is warned of, not refused.
fn check_descriptors(
    loader: &mut Loader,
    max_connections: u32,
    word: Option<&Word>,
    descriptors: Option<Descriptors>,
) -> u32 {
    let Some(Descriptors { limit, own }) = descriptors else { return max_connections };
    let needed = u64::from(max_connections) + own;
    if needed <= limit {
        return max_connections;
    }
    let message = format!("max_connections {max_connections} needs {needed} descriptors, and the limit is {limit}");
    let fault = word.map_or_else(|| Fault::nowhere(message.clone()), |word| Fault::new(word, message.clone()));
    let raise = format!("raise it (ulimit -n {needed}, LimitNOFILE={needed})");
    let possible = u32::try_from(limit.saturating_sub(own)).unwrap_or(u32::MAX);
    if possible == 0 {
        loader.faults.push(fault.help(raise));
    } else {
        loader.warnings.push(fault.help(format!("there are {possible} at most; {raise}")));
    }
    possible
}

/// `listen` and `chunk_size` may stand at the top or in `rtmp`; both and different is an error (E4).
fn load_rtmp(
    loader: &mut Loader,
    rtmp: Option<Vec<Directive>>,
    mut listen: Vec<(Listen, Word)>,
    chunk_size: (u32, Option<Word>),
) -> (Vec<(Listen, Word)>, u32) {
    let Some(rtmp) = rtmp else { return (listen, chunk_size.0) };
    loader.explained.push(Line::Open("rtmp".to_owned()));
    let mut section = Section::new(Block::Rtmp, rtmp, loader);
    let inner_listen = section.listen(Service::Rtmp, false, Ipv4Addr::UNSPECIFIED);
    let (inner_size, inner_word) = section.number_or("chunk_size", &chunk_size.0.to_string());
    section.finish();
    loader.explained.push(Line::Close);
    if chunk_size.1.is_none() && inner_word.is_some() {
        // What is in effect stands in one place: written down, both would contradict each other.
        let outer = loader.explained.iter().position(|line| line.is_of("chunk_size"));
        outer.map(|at| loader.explained.remove(at));
    }
    let endpoints = |list: &[(Listen, Word)]| list.iter().map(|(listen, _)| *listen).collect::<Vec<_>>();
    let twice = |name: &str| format!("`{name}` is set at the top level too, and differs");
    if listen.is_empty() {
        listen = inner_listen;
    } else if let Some((_, word)) = inner_listen.first().filter(|_| endpoints(&listen) != endpoints(&inner_listen)) {
        loader.fault(word, twice("listen"), "remove one of the two");
    }
    if let (Some(_), Some(word)) = (&chunk_size.1, &inner_word)
        && chunk_size.0 != inner_size
    {
        loader.fault(word, twice("chunk_size"), "remove one of the two");
    }
    (listen, inner_size)
}

fn load_rtmps(loader: &mut Loader, rtmps: Option<Vec<Directive>>) -> (Rtmps, Vec<(Listen, Word)>) {
    loader.explained.push(Line::Open("rtmps".to_owned()));
    let mut section = Section::new(Block::Rtmps, rtmps.unwrap_or_default(), loader);
    let (enabled, enabled_word) = section.flag_at("enabled");
    let listen = section.listen(Service::Rtmp, true, Ipv4Addr::UNSPECIFIED);
    let (key, cert, tls) = load_tls(&mut section, enabled, enabled_word.as_ref());
    section.finish();
    loader.explained.push(Line::Close);
    if !enabled {
        return (Rtmps { key, cert, ..Rtmps::default() }, Vec::new());
    }
    if let (true, Some(word)) = (listen.is_empty(), &enabled_word) {
        loader.fault(word, "`rtmps` has no `listen` directive", "add `listen 1443;`");
    }
    let rtmps = Rtmps { listen: listen.iter().map(|(listen, _)| *listen).collect(), key, cert, tls };
    (rtmps, listen)
}

/// `key` and `cert`, and both as read where they are `wanted`.
fn load_tls(
    section: &mut Section<'_>,
    wanted: bool,
    wanted_word: Option<&Word>,
) -> (PathBuf, PathBuf, Option<tls::Acceptor>) {
    let (key, key_word) = section.path("key");
    let (cert, cert_word) = section.path("cert");
    let mut tls = None;
    if wanted {
        let from = section.loader.work_dir.clone();
        match tls::Acceptor::load(&from.join(&key), &from.join(&cert)) {
            Ok(acceptor) => tls = Some(acceptor),
            Err(error) => {
                let word = if error.is_of_key() { &key_word } else { &cert_word };
                if let Some(word) = word.as_ref().or(wanted_word) {
                    let message = format!("`{}`: {error}", section.name());
                    section.loader.fault(word, message, error.fix());
                }
            }
        }
    }
    (key.into(), cert.into(), tls)
}

fn load_vhosts(loader: &mut Loader, blocks: &[Directive], chunk_size: u32) -> Vec<Arc<Vhost>> {
    let mut vhosts: Vec<Arc<Vhost>> = Vec::new();
    for block in blocks {
        let [name] = &block.arguments[..] else {
            let at = block.arguments.get(1).unwrap_or(&block.name);
            loader.fault(at, "`vhost` takes one name", format!("write `vhost {DEFAULT_VHOST} {{ … }}`"));
            continue;
        };
        if vhosts.iter().any(|vhost| vhost.name == name.text) {
            loader.fault(name, format!("vhost `{}` is there already", name.text), "merge the two");
        }
        let vhost = load_vhost(loader, &name.text, block.block.clone().unwrap_or_default(), chunk_size);
        vhosts.push(Arc::new(vhost));
    }
    vhosts
}

fn load_vhost(loader: &mut Loader, name: &str, directives: Vec<Directive>, chunk_size: u32) -> Vhost {
    loader.explained.push(Line::Open(format!("vhost {}", quoted(name))));
    let mut section = Section::new(Block::Vhost, directives, loader);
    let enabled = section.flag("enabled");
    let min_latency = section.flag("min_latency");
    let tcp_nodelay = section.flag("tcp_nodelay");
    let (chunk_size, _) = section.number_or("chunk_size", &chunk_size.to_string());
    let in_ack_size = section.number("in_ack_size");
    let out_ack_size = section.number("out_ack_size");
    let publish = section.block("publish").unwrap_or_default();
    let play = section.block("play").unwrap_or_default();
    let forward = section.block("forward").unwrap_or_default();
    let cluster = section.block("cluster").unwrap_or_default();
    let pulls = section.blocks("pull");
    let http = http::VhostBlocks::take(&mut section);
    let programs = programs::Blocks::take(&mut section);
    let files = section.block("http_static").unwrap_or_default();
    let hls = section.block("hls").unwrap_or_default();
    let dash = section.block("dash").unwrap_or_default();
    let dvr = section.block("dvr").unwrap_or_default();
    section.finish();
    let forward = Forward::load(Section::new(Block::Forward, forward, loader));
    let cluster = Cluster::load(Section::new(Block::Cluster, cluster, loader));
    let pulls = pull::load(loader, pulls);
    loader.explained.push(Line::Open("publish".to_owned()));
    let publish = load_publish(Section::new(Block::Publish, publish, loader), min_latency, !forward.is_empty());
    loader.explained.push(Line::Close);
    loader.explained.push(Line::Open("play".to_owned()));
    let play = load_play(Section::new(Block::Play, play, loader), min_latency);
    loader.explained.push(Line::Close);
    let http_static = HttpStatic::load(Section::new(Block::HttpStatic, files, loader), name);
    let hls = Hls::load(Section::new(Block::Hls, hls, loader)).map(Arc::new);
    let dash = Dash::load(Section::new(Block::Dash, dash, loader)).map(Arc::new);
    let dvr = Dvr::load(Section::new(Block::Dvr, dvr, loader)).map(Arc::new);
    let (http_remux, hooks, security, refer, signed_url) = http.load(loader);
    let programs = Arc::new(programs.load(loader));
    loader.explained.push(Line::Close);
    Vhost {
        name: name.to_owned(),
        enabled,
        tcp_nodelay,
        min_latency,
        chunk_size,
        in_ack_size,
        out_ack_size,
        publish,
        play,
        forward,
        cluster,
        pulls,
        programs,
        hls,
        dash,
        dvr,
        http_remux,
        http_static,
        hooks,
        security,
        refer,
        signed_url,
    }
}

fn load_publish(mut section: Section<'_>, min_latency: bool, forwards: bool) -> Publish {
    let mr = section.flag("mr");
    let (mr_latency_ms, mr_word) = section.number_at("mr_latency");
    let firstpkt_timeout_ms = section.number("firstpkt_timeout");
    let (normal_timeout_ms, normal_word) = section.number_at("normal_timeout");
    let parse_sps = section.flag("parse_sps");
    let try_annexb_first = section.flag("try_annexb_first");
    let (kickoff_for_idle_s, kickoff_word) = section.number_at("kickoff_for_idle");
    let (takeover, _) = section.choice("takeover");
    let shorter = mr && !min_latency && normal_timeout_ms <= mr_latency_ms;
    if let Some(word) = normal_word.or(mr_word).filter(|_| shorter) {
        let message =
            format!("`normal_timeout` {normal_timeout_ms} would cut publishers who are read every {mr_latency_ms} ms");
        section.loader.fault(&word, message, "make `normal_timeout` longer than `mr_latency`");
    }
    if let Some(word) = kickoff_word.filter(|_| forwards && kickoff_for_idle_s > 0) {
        let message = "`kickoff_for_idle` and `forward` contradict each other: it would disconnect what is forwarded";
        section.loader.fault(&word, message, "remove one of the two");
    }
    section.finish();
    Publish {
        mr_latency_ms: (mr && !min_latency).then_some(mr_latency_ms),
        firstpkt_timeout_ms,
        normal_timeout_ms,
        parse_sps,
        try_annexb_first,
        kickoff_for_idle_s,
        takeover: if takeover == "replace" { Takeover::Replace } else { Takeover::Reject },
    }
}

fn load_play(mut section: Section<'_>, min_latency: bool) -> Play {
    let gop_cache = section.flag("gop_cache");
    let gop_cache_max_frames = section.number("gop_cache_max_frames");
    let queue_length_s = section.number("queue_length");
    let (time_jitter, _) = section.choice("time_jitter");
    let atc = section.flag("atc");
    let (mix_correct, mix_word) = section.flag_at("mix_correct");
    let atc_auto = section.flag("atc_auto");
    let mw_latency = if min_latency { "0" } else { section.default_of("mw_latency") };
    let mw_latency_ms = section.number_or_auto("mw_latency", mw_latency);
    let at_once = min_latency || mw_latency_ms.is_none();
    let mw_msgs = if at_once { "0" } else { section.default_of("mw_msgs") };
    let (mw_msgs, _) = section.number_or("mw_msgs", mw_msgs);
    let send_min_interval_ms = section.rounded_up("send_min_interval");
    let reduce_sequence_header = section.flag("reduce_sequence_header");
    let time_jitter = match time_jitter.as_str() {
        _ if atc => TimeJitter::Off,
        "zero" => TimeJitter::Zero,
        "off" => TimeJitter::Off,
        _ => TimeJitter::Full,
    };
    if let Some(word) = mix_word.filter(|_| mix_correct && time_jitter != TimeJitter::Off) {
        section.loader.fault(&word, "`mix_correct` needs times as published", "add `atc on;` or `time_jitter off;`");
    }
    section.finish();
    Play {
        gop_cache,
        gop_cache_max_frames,
        queue_length_s,
        time_jitter,
        mix_correct,
        atc_auto,
        mw_latency_ms,
        mw_msgs,
        send_min_interval_ms,
        reduce_sequence_header,
    }
}

mod http;

#[cfg(test)]
mod tests;
