//! What SRS's files have that is not in our table: what is accepted with a word of what is done instead, and what is
//! refused because it is not built yet.

use super::directives::Block;

/// Directives that change nothing here, and what is done instead; said in one line.
pub(super) const ACCEPTED: &[(Block, &str, &str)] = &[
    (Block::Top, "utc_time", "log times are UTC in any case"),
    (Block::Top, "pithy_print_ms", "the log has a line per publish; figures are the API's and the exporter's"),
    (Block::Top, "empty_ip_ok", "connections that say nothing are closed without a warning in any case"),
    (Block::Top, "in_docker", "nothing differs in a container"),
    (Block::Top, "disable_daemon_for_docker", "the server stays in the foreground in any case"),
    (Block::Top, "auto_reload_for_docker", "SIGHUP reloads"),
    (Block::Top, "tcmalloc_release_rate", "the allocator is another one"),
    (Block::Top, "query_latest_version", "nobody is asked for versions"),
    (Block::Top, "first_wait_for_qlv", "nobody is asked for versions"),
    (Block::Top, "threads", "there is one shard per CPU; taskset or --cpus says which"),
    (Block::Top, "circuit_breaker", "it sheds load of WebRTC, which is not there yet"),
    (Block::Top, "stats", "the API's figures are of the whole machine"),
    (Block::Top, "tencentcloud_cls", "as with SRS 7"),
    (Block::Top, "tencentcloud_apm", "as with SRS 7"),
    (Block::HttpApiRaw, "allow_query", "as with SRS 7"),
    (Block::HttpApiRaw, "allow_update", "as with SRS 7"),
    (Block::Vhost, "bandcheck", "as with SRS 4 and later"),
    (Block::Vhost, "hds", "Flash is no more"),
];

/// What SRS has and we do not, by directive and capability. Refused by name; `--lenient` goes without it.
pub(super) const NOT_YET: &[(&str, &str)] = &[
    ("asprocess", "ending with the parent process"),
    ("inotify_auto_reload", "reload when the file changes: SIGHUP reloads"),
    ("heartbeat", "heartbeats"),
    ("srt_server", "SRT"),
    ("rtc_server", "WebRTC"),
    ("rtsp_server", "RTSP"),
    ("stream_caster", "stream casters"),
    ("tracer", "tracing"),
    ("mode", "edge clusters"),
    ("origin", "edge clusters"),
    ("token_traverse", "edge clusters"),
    ("vhost", "edge clusters"),
    ("debug_srs_upnode", "edge clusters"),
    ("cluster", "edge and origin clusters"),
    ("refer", "referer checks"),
    ("refer_play", "referer checks"),
    ("refer_publish", "referer checks"),
    ("http_static", "static files"),
    ("http", "static files"),
    ("on_dvr", "recording"),
    ("on_hls", "HLS"),
    ("on_hls_notify", "HLS"),
    ("on_forward_backend", "forwarding"),
    ("dash", "DASH"),
    ("hls", "HLS"),
    ("dvr", "recording"),
    ("rtc", "WebRTC"),
    ("srt", "SRT"),
    ("rtsp", "RTSP"),
];

/// Variables of SRS that would switch on what we do not have begin with these.
pub(super) const NOT_YET_VARIABLES: &[&str] = &[
    "SRS_SRT_SERVER_",
    "SRS_RTC_SERVER_",
    "SRS_RTSP_SERVER_",
    "SRS_HEARTBEAT_",
    "SRS_STATS_",
    "SRS_STREAM_CASTER_",
    "SRS_VHOST_HLS_",
    "SRS_VHOST_DASH_",
    "SRS_VHOST_DVR_",
    "SRS_VHOST_RTC_",
    "SRS_VHOST_SRT_",
    "SRS_VHOST_CLUSTER_",
];
