//! The table of directives: what a file may have, block by block.

use super::directives::{Acts, Block, Known, Values};

/// The directive called `name` in `block`.
pub(super) fn known(block: Block, name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.block == block && known.name == name)
}

/// Where a block stands.
pub(super) fn parent_of(name: &str) -> Option<Block> {
    let upper = name.to_uppercase();
    let is_there = |block: &Block| {
        let prefix = format!("{}{upper}_", block.variable_prefix());
        KNOWN.iter().any(|known| known.block.name() == name && known.block.variable_prefix() == prefix)
    };
    [Block::Top, Block::Vhost].into_iter().find(is_there)
}

macro_rules! known {
    ($($block:ident { $($name:literal $values:expr, $default:literal, $acts:ident, $effect:literal;)* })*) => {
        /// The table.
        pub(super) static KNOWN: &[Known] = &[$($(Known {
            block: Block::$block,
            name: $name,
            values: $values,
            default: $default,
            acts: Acts::$acts,
            effect: $effect,
        },)*)*];
    };
}

use Values::{
    Addresses, Command, Decimal, Destinations, Domains, Flag, Mounts, Networks, Number, NumberOrAuto, Options, Path,
    Rules, Secret, Servers, Streams, Text, Urls, Variants, Word,
};

known! {
    Top {
        "listen" Addresses, "", Now,
            "Where to listen for RTMP: a bare port is 0.0.0.0:port. The word proxy_protocol (ours) in it asks for PROXY protocol v1, v2 or SRS's 0xF3 header on every connection.";
        "max_connections" Number("connections", 1..=1_000_000), "1000", Now,
            "Most connections, of all protocols, over all cores.";
        "chunk_size" Number("bytes", 128..=65_536), "60000", NextConnection,
            "Bytes per RTMP chunk sent.";
        "programs_max" Number("processes", 0..=10_000), "64", Now,
            "Ours: most processes of exec, transcode and ingest at once.";
        "ff_log_dir" Path, "./objs", Now, "Where the output of ffmpeg goes: a file per process. /dev/null keeps none.";
        "ff_log_level" Text("info"), "info", Now, "ffmpeg's -loglevel, of ingests.";
        "trusted_proxies" Networks, "", NextConnection,
            "Ours: proxies that are believed when they say for whom they speak, by proxy_protocol and by X-Forwarded-For. Without it, this machine by proxy_protocol alone.";
        "memory_max" Number("MiB", 0..=16_777_216), "0", Now,
            "Ours: most memory of the process, the kernel's buffers not counted; 0 is no bound. Over it the oldest GOPs of streams without players go, then new publishers and players are turned away.";
        "hls_memory_max" Number("MiB", 0..=16_777_216), "0", Now,
            "Ours: most bytes of segments in memory, of HLS and DASH; 0 is no bound but 512 MiB a stream. Over it playlists get shorter, down to three segments.";
        "send_path" Word(&["copy", "sendfile"]), "copy", Now,
            "Ours: how what many players share goes to the kernel from 16 KiB on: copied, or as pages of a file in memory. Which costs less is the machine's: on loopback of an EPYC, copying.";
        "srs_log_tank" Word(&["console", "file"]), "console", Restart,
            "Where the log goes: console is standard error. SRS's default is file.";
        "srs_log_level" Word(&["verbose", "info", "trace", "warn", "error"]), "trace", Restart,
            "The least level that is logged. trace shows publishes and faults, info every connection. The variable RUST_LOG goes before it.";
        "srs_log_file" Path, "./objs/srs.log", Restart,
            "The log file; SIGUSR1 opens it anew.";
        "srs_log_level_v2" Word(&["trace", "debug", "info", "warn", "error"]), "", Restart,
            "Goes before srs_log_level: trace is its verbose, debug its info, info its trace.";
        "daemon" Flag, "off", Restart,
            "The server stays in the foreground in any case; systemd makes a daemon of it (conf/corecast.service). SRS's default is on.";
        "pid" Path, "", Restart, "A file that the process's number is written to. SRS's default is ./objs/srs.pid, ours is none.";
        "work_dir" Path, "./", Restart,
            "The directory that the server changes to at its start: relative paths count from there. Those of include and of work_dir itself count from where it was started.";
        "asprocess" Flag, "off", Restart, "Whether the server ends when the process that has started it ends.";
        "inotify_auto_reload" Flag, "off", Restart,
            "Whether a file of the configuration that is written or replaced is a reload, as SIGHUP is; once a second at most.";
        "server_id" Text("my-server"), "", Restart, "Its name in the API and in hooks; one by chance if none is given.";
        "force_grace_quit" Flag, "off", Now,
            "Whether SIGTERM drains as SIGQUIT does.";
        "grace_start_wait" Number("ms", 0..=600_000), "2300", Now,
            "SIGQUIT: how long new connections are still accepted.";
        "grace_drain_limit" Number("seconds", 0..=86_400), "30", Now,
            "Ours. SIGQUIT: how long those who are connected are served on at most.";
        "grace_final_wait" Number("ms", 0..=600_000), "3200", Now,
            "SIGQUIT: how long the process stays when everybody has gone.";
    }
    Rtmp {
        "listen" Addresses, "", Now, "The same as listen at the top level.";
        "chunk_size" Number("bytes", 128..=65_536), "60000", NextConnection, "The same as chunk_size at the top level.";
    }
    Rtmps {
        "enabled" Flag, "off", Now, "Whether to listen for RTMP over TLS.";
        "listen" Addresses, "", Now, "Where; as listen at the top level.";
        "key" Path, "./conf/server.key", NextConnection, "The private key, PEM. Read again at every reload.";
        "cert" Path, "./conf/server.crt", NextConnection, "The certificate and its chain, PEM. Read again at every reload.";
    }
    HttpServer {
        "enabled" Flag, "off", Now, "Whether to serve HTTP: live streams (http_remux) and the page.";
        "listen" Addresses, "8080", Now, "Where; as listen at the top level.";
        "dir" Path, "./objs/nginx/html", NextConnection,
            "Files that are served, before the page; an index.html in it takes the page's place, which is at /page/ then.";
        "crossdomain" Flag, "on", NextConnection, "Whether pages of other sites may play streams (CORS).";
    }
    HttpServerHttps {
        "enabled" Flag, "off", Now, "Whether to serve the same over TLS.";
        "listen" Addresses, "8088", Now, "Where; as listen at the top level.";
        "key" Path, "./conf/server.key", NextConnection, "The private key, PEM. Read again at every reload.";
        "cert" Path, "./conf/server.crt", NextConnection, "The certificate and its chain, PEM. Read again at every reload.";
        "http2" Flag, "on", NextConnection,
            "Ours. Whether HTTP/2 is offered where a vhost has hls or dash: for playlists and segments; who asks for anything else is told to take HTTP/1.1.";
    }
    HttpApi {
        "enabled" Flag, "off", Now, "Whether to serve the HTTP API. On http_server's port too, if both listen there.";
        "listen" Addresses, "1985", Now,
            "Where; as listen at the top level. Without auth, whoever reaches it may read; changes need the token that the server makes.";
        "crossdomain" Flag, "off", NextConnection,
            "Whether pages of other sites may use the API (CORS). SRS's default is on.";
    }
    HttpApiRaw {
        "enabled" Flag, "off", NextConnection, "Whether /api/v1/raw answers.";
        "allow_reload" Flag, "off", NextConnection, "Whether /api/v1/raw?rpc=reload reloads the configuration.";
    }
    HttpApiAuth {
        "enabled" Flag, "off", NextConnection, "Whether every request must prove who it is, by either of the two below.";
        "username" Text("admin"), "", NextConnection, "HTTP's basic authentication.";
        "password" Secret("PASSWORD"), "", NextConnection, "HTTP's basic authentication.";
        "token" Secret("TOKEN"), "", NextConnection, "Authorization: Bearer TOKEN.";
        "type" Word(&["basic", "bearer"]), "", NextConnection, "Which of the two counts; both if nothing is said.";
    }
    HttpApiHttps {
        "enabled" Flag, "off", Now, "Whether to serve the API over TLS too.";
        "listen" Addresses, "1990", Now, "Where; as listen of http_api.";
        "key" Path, "./conf/server.key", NextConnection, "The private key, PEM. Read again at every reload.";
        "cert" Path, "./conf/server.crt", NextConnection, "The certificate and its chain, PEM. Read again at every reload.";
    }
    Exporter {
        "enabled" Flag, "off", Now, "Whether to serve Prometheus's /metrics.";
        "listen" Addresses, "9972", Now, "Where; as listen at the top level.";
        "label" Text("cn-beijing"), "", Now, "Stands as label in srs_build_info.";
        "tag" Text("cn-edge"), "", Now, "Stands as tag in srs_build_info.";
        "top_streams" Number("streams", 0..=1000), "20", Now,
            "Ours. How many streams have figures of their own, those with the most players first; the others are summed up.";
    }
    Heartbeat {
        "enabled" Flag, "off", Now, "Whether to post SRS's heartbeat: device_id, ip, server, service, pid, as JSON. The answer is not read.";
        "interval" Decimal("seconds", 1..=86_400), "10", Now, "From one to the next; 10 s at most are waited for one.";
        "url" Text("http://127.0.0.1:8085/api/v1/servers"), "http://127.0.0.1:8085/api/v1/servers", Now,
            "Where to. For srs-proxy: http://PROXY:12025/api/v1/srs/register, with ports on.";
        "device_id" Text("my-srs-device"), "", Now, "Stands as device_id.";
        "summaries" Flag, "off", Now, "Whether it has the API's summaries.";
        "ports" Flag, "off", Now, "Whether it has where RTMP, HTTP and the API are listened for: rtmp, http, api.";
    }
    HeartbeatAuth {
        "enabled" Flag, "off", Now, "Whether it proves who it is.";
        "type" Word(&["bearer"]), "bearer", Now, "Authorization: Bearer TOKEN.";
        "token" Secret("TOKEN"), "", Now, "The token.";
    }
    Vhost {
        "enabled" Flag, "on", NextConnection, "Whether the vhost answers.";
        "min_latency" Flag, "off", Now,
            "Every tag is sent as it comes: mw_latency and mw_msgs are 0 unless given, mr is off.";
        "tcp_nodelay" Flag, "off", NextConnection, "TCP_NODELAY.";
        "chunk_size" Number("bytes", 128..=65_536), "60000", NextConnection, "Goes before the global one, which is the default.";
        "in_ack_size" Number("bytes", 0..=2_147_483_647), "0", NextConnection,
            "Acknowledge after so many bytes to a peer that asks for nothing; 0 waits for its word.";
        "out_ack_size" Number("bytes", 0..=2_147_483_647), "2500000", NextConnection,
            "Ask peers for an acknowledgement after so many bytes; 0 does not ask.";
    }
    Publish {
        "mr" Flag, "off", Now, "Merged read: fewer and larger reads, for less CPU and more latency.";
        "mr_latency" Number("ms", 1..=2500), "350", Now,
            "Between two reads with mr on; 300 to 2000 is advised. A publisher then has ms x kbit/s / 8 bytes waiting.";
        "firstpkt_timeout" Number("ms", 100..=3_600_000), "20000", Now, "A publisher without media by then is disconnected.";
        "normal_timeout" Number("ms", 100..=3_600_000), "5000", Now, "A publisher silent for so long is disconnected.";
        "parse_sps" Flag, "on", Now,
            "Reads size, profile and level from AVC, HEVC and AV1 sequence headers; a broken one ends the publish. off takes anything.";
        "try_annexb_first" Flag, "on", Now,
            "Whether a sequence header is tried as Annex B before it is tried as a configuration record, or the other way round.";
        "kickoff_for_idle" Number("seconds", 0..=86_400), "0", Now,
            "A publisher whose stream nobody has played for so long is disconnected; 0 is never.";
        "takeover" Word(&["reject", "replace"]), "reject", Now,
            "Ours. What happens when somebody publishes a stream that is being published: the newcomer is refused, or takes over.";
    }
    Play {
        "gop_cache" Flag, "on", Now, "Late joiners start at the newest keyframe; off: with the newest data.";
        "gop_cache_max_frames" Number("messages", 1..=1_000_000), "2500", Now, "A longer GOP is not kept.";
        "queue_length" Number("seconds", 1..=3600), "30", Now,
            "A player that lags by more goes on at the newest keyframe; whole GOPs are left out.";
        "time_jitter" Word(&["full", "zero", "off"]), "full", NextPublish,
            "full: each player's time starts at 0, jumps over 250 ms are taken out, no track goes back. zero: starts at 0, else as published. off: as published.";
        "atc" Flag, "off", NextPublish, "Absolute time: time_jitter is off.";
        "mix_correct" Flag, "off", NextPublish, "Audio and video are put in one order of time; needs atc on or time_jitter off.";
        "atc_auto" Flag, "off", NextPublish, "Metadata with bravo_atc \"true\" turns atc on.";
        "mw_latency" NumberOrAuto("ms", 0..=10_000), "350", Now,
            "Flush interval; 300 to 1800 is advised. 0 with min_latency. auto (ours) follows the load of the core, from 0 to 350.";
        "mw_msgs" Number("messages", 0..=128), "8", Now,
            "With fewer new tags a flush waits for one interval more. 0 with min_latency or mw_latency auto.";
        "send_min_interval" Decimal("ms", 0..=10_000), "0", Now,
            "Over 0: one message at a time, at least so long after the last; rounded up to whole ms. mw_latency and mw_msgs say nothing then.";
        "reduce_sequence_header" Flag, "off", Now, "A sequence header that repeats the last one is left out.";
    }
    HttpRemux {
        "enabled" Flag, "off", NextConnection, "Whether streams are served by HTTP and WebSocket: FLV, MPEG-TS, AAC, MP3.";
        "mount" Mounts, "[vhost]/[app]/[stream].flv", NextConnection,
            "Under which paths; .flv, .ts, .aac or .mp3 says as what. [vhost] may stand before the first slash. Ours: \
             several.";
        "has_audio" Flag, "on", NextConnection, "Whether FLV's header may announce audio, and MPEG-TS has it.";
        "has_video" Flag, "on", NextConnection, "Whether FLV's header may announce video, and MPEG-TS has it.";
        "guess_has_av" Flag, "on", NextConnection,
            "Whether the FLV header announces what the stream has; off: what has_audio and has_video say.";
        "drop_if_not_match" Flag, "on", NextConnection, "Whether tags of a kind whose has_ is off are left out.";
        "fast_cache" Decimal("seconds", 0..=3600), "0", NextConnection,
            "Sound that players of AAC and MP3 get at once, as far as there has been that much.";
        "wait_stream" Number("seconds", 0..=600), "0", NextConnection,
            "Ours. How long a request for a stream that nobody publishes waits for it before 404.";
    }
    HttpStatic {
        "enabled" Flag, "off", NextConnection, "Whether http_server serves files of the vhost.";
        "mount" Text("[vhost]/vod"), "[vhost]/", NextConnection,
            "Under which paths; with [vhost] before the first slash for this host name alone, of the default vhost for all that have no files of their own. What is not under a mount is in http_server's dir.";
        "dir" Path, "./objs/nginx/html", NextConnection, "Where they are; [vhost] in it is the vhost's name. No link leads out of it.";
    }
    HttpHooks {
        "enabled" Flag, "off", NextConnection, "Whether the URLs below are called: POST with JSON; 200 or 201 with 0 or {\"code\":0} allows.";
        "on_connect" Urls, "", NextConnection, "Asked when somebody connects.";
        "on_close" Urls, "", NextConnection, "Told when a connection ends.";
        "on_publish" Urls, "", NextConnection, "Asked when somebody publishes.";
        "on_unpublish" Urls, "", NextConnection, "Told when a publish ends.";
        "on_play" Urls, "", NextConnection, "Asked when somebody plays.";
        "on_stop" Urls, "", NextConnection, "Told when a play ends.";
        "on_hls" Urls, "", NextPublish, "Told of each segment of HLS.";
        "on_dvr" Urls, "", NextPublish, "Told of each recording, when it is whole.";
        "timeout" Number("ms", 100..=60_000), "3000", NextConnection, "Ours. How long an answer may take, all URLs of an event together.";
        "on_failure" Word(&["reject", "allow"]), "reject", NextConnection,
            "Ours. What no answer means: nothing within the timeout, no 200 or 201, or no JSON.";
        "hook_ca" Path, "", NextConnection,
            "Ours. A PEM file with the authorities that https servers of hooks must be trusted by; without it, those of the system.";
    }
    Hls {
        "enabled" Flag, "off", NextPublish, "Whether streams are cut into segments, for players of HLS.";
        "hls_use_fmp4" Flag, "off", NextPublish,
            "Whether segments are fragments of MP4 rather than transport streams. They are where a stream's codecs have no place in a transport stream.";
        "hls_ll" Word(&["auto", "on", "off"]), "auto", NextPublish,
            "Ours. Low latency (RFC 8216bis), with fragments of MP4: parts, and reloads that wait. auto: where hls_use_fmp4 is on.";
        "hls_part" Number("ms", 50..=2000), "200", NextPublish,
            "Ours. The length of a part for low latency; rounded up to whole frames.";
        "hls_fragment" Decimal("seconds", 0..=3600), "10", NextPublish, "A segment's length: it ends at the first keyframe from there on.";
        "hls_td_ratio" Decimal("times hls_fragment", 0..=100), "1.0", NextPublish,
            "EXT-X-TARGETDURATION before a segment is longer. A segment ends a keyframe early rather than be.";
        "hls_aof_ratio" Decimal("times hls_fragment", 0..=100), "2.1", NextPublish,
            "The length of a segment of sound alone, or without a keyframe.";
        "hls_window" Decimal("seconds", 0..=86_400), "60", NextPublish, "Length of a playlist.";
        "hls_recover" Flag, "on", NextPublish, "Whether sequence numbers go on after another publish or a restart.";
        "hls_wait_keyframe" Flag, "on", NextPublish, "Whether segments begin with keyframes.";
        "hls_storage" Word(&["auto", "memory", "ram", "disk", "both"]), "auto", NextPublish,
            "Ours. Where segments are: served from memory, written to files for others to serve, or both. auto: both if hls_path is given, else memory.";
        "hls_path" Path, "./objs/nginx/html", NextPublish, "The directory of the files.";
        "hls_m3u8_file" Text("[app]/[stream].m3u8"), "[app]/[stream].m3u8", NextPublish, "A playlist's name below hls_path, and for requests.";
        "hls_ts_file" Text("[app]/[stream]-[seq].ts"), "[app]/[stream]-[seq].ts", NextPublish,
            "A segment's; with [seq], [duration], [timestamp], [2006], [01], [02], [15], [04], [05] and [999] too.";
        "hls_fmp4_file" Text("[app]/[stream]-[seq].m4s"), "[app]/[stream]-[seq].m4s", NextPublish, "The same of MP4.";
        "hls_init_file" Text("[app]/[stream]/init.mp4"), "[app]/[stream]/init.mp4", NextPublish, "What segments of MP4 begin with.";
        "hls_variant" Variants, "", NextConnection,
            "Ours, as nginx-rtmp's. Streams whose names end so are variants of the stream without it, in one multivariant playlist; BANDWIDTH is measured if it is not given.";
        "hls_entry_prefix" Text("https://cdn.example"), "", NextPublish, "What URIs of segments begin with in a playlist.";
        "hls_cleanup" Flag, "on", NextPublish, "Whether files of old segments are removed.";
        "hls_dispose" Decimal("seconds", 0..=864_000), "120", NextPublish,
            "All of a stream is removed so long after its publish has ended; 0 keeps it.";
        "hls_keys" Flag, "off", NextPublish, "Whether segments of transport streams are encrypted (AES-128).";
        "hls_fragments_per_key" Number("segments", 1..=1_000_000), "5", NextPublish, "Segments until there is another key.";
        "hls_key_file" Text("[app]/[stream]-[seq].key"), "[app]/[stream]-[seq].key", NextPublish, "A key's name.";
        "hls_key_file_path" Path, "./objs/nginx/html", NextPublish, "The directory of keys; hls_path unless it is given.";
        "hls_key_url" Text("https://keys.example"), "", NextPublish,
            "What URIs of keys begin with, its query kept; nothing for where segments are.";
        "hls_ts_floor" Flag, "off", NextPublish, "Whether [timestamp] is the time in units of hls_fragment, so that two servers have equal names.";
        "hls_ctx" Flag, "on", NextConnection,
            "Whether players are known by hls_ctx in their requests: rules and on_play are asked for each of them, and on_stop is told. Off: playlists and segments are everybody's.";
        "hls_ts_ctx" Flag, "on", NextConnection, "Whether segments have it too, so that a player is there as long as it asks for any.";
        "hls_master_m3u8_path_relative" Flag, "off", NextConnection, "Whether the URI in a multivariant playlist is without its path.";
    }
    Dash {
        "enabled" Flag, "off", NextPublish, "Whether streams are cut into segments, for players of DASH.";
        "dash_fragment" Decimal("seconds", 0..=3600), "10", NextPublish, "A segment's length: it ends at the first keyframe from there on.";
        "dash_update_period" Decimal("seconds", 0..=3600), "5", NextPublish, "How often players look at the MPD (minimumUpdatePeriod).";
        "dash_timeshift" Decimal("seconds", 0..=86_400), "0", NextPublish,
            "How far players may go back at least. SRS says 300 and has what dash_window_size says.";
        "dash_window_size" Number("segments", 1..=3000), "5", NextPublish, "Segments in the MPD; more, if dash_timeshift needs them.";
        "dash_ll" Flag, "off", NextPublish,
            "Ours. Low latency: the segment that is being made is listed, and sent to who asks for it as it grows.";
        "dash_part" Number("ms", 50..=2000), "200", NextPublish, "Ours. The length of its chunks; rounded up to whole frames.";
        "dash_storage" Word(&["auto", "memory", "ram", "disk", "both"]), "auto", NextPublish,
            "Ours. Where segments are: served from memory, written to files for others to serve, or both. auto: both if dash_path is given, else memory.";
        "dash_path" Path, "./objs/nginx/html", NextPublish, "The directory of the files.";
        "dash_mpd_file" Text("[app]/[stream].mpd"), "[app]/[stream].mpd", NextPublish,
            "The MPD's name below dash_path, and for requests; segments stand in a directory of that name.";
        "dash_cleanup" Flag, "on", NextPublish, "Whether files of old segments are removed.";
        "dash_dispose" Decimal("seconds", 0..=864_000), "120", NextPublish,
            "All of a stream is removed so long after its publish has ended; 0 keeps it.";
    }
    Dvr {
        "enabled" Flag, "off", NextPublish, "Whether streams are recorded.";
        "dvr_apply" Text("live/livestream"), "all", NextPublish,
            "Which: all, or app/stream, several. Others are recorded if the API is told so; none (ours) is only those.";
        "dvr_plan" Word(&["session", "segment"]), "session", NextPublish, "A file for each publish, or for each dvr_duration of it.";
        "dvr_path" Text("/data/[app]/[stream].[timestamp].mp4"), "./objs/nginx/html/[app]/[stream].[timestamp].flv", NextPublish,
            "Files of FLV, or of MP4 by the path's end, in fragments that can be played as it grows; NAME.tmp until it is whole. With [vhost], [app], [stream], [timestamp], [2006], [01], [02], [15], [04], [05] and [999].";
        "dvr_duration" Decimal("seconds", 1..=864_000), "30", NextPublish, "The length of a file, with dvr_plan segment.";
        "dvr_wait_keyframe" Flag, "on", NextPublish, "Whether such files begin with keyframes.";
        "dvr_keep_days" Decimal("days", 0..=36_500), "0", NextPublish, "Ours. Recordings that are older are removed; 0 keeps them.";
        "dvr_keep_size" Decimal("GiB", 0..=4_000_000), "0", NextPublish,
            "Ours. The oldest recordings are removed where all that dvr_path may have named take more; 0 keeps them.";
        "time_jitter" Word(&["full", "zero", "off"]), "full", NextPublish, "off: times in FLV as published; else they begin at 0.";
    }
    Forward {
        "enabled" Flag, "off", NextPublish, "Whether every publish is pushed on to other RTMP servers.";
        "destination" Destinations, "", NextPublish,
            "Where to: the same app, stream and query there. rtmps://host[:port] (ours) is RTMPS.";
        "backend" Urls, "", NextPublish,
            "One URL that is asked where to, instead: POST with JSON, action on_forward; it answers {\"code\":0,\"data\":{\"urls\":[\"rtmp://host/app/stream\"]}}.";
    }
    Cluster {
        "mode" Word(&["local", "remote"]), "local", NextPublish,
            "remote: this vhost is an edge. A stream that is played here is fetched from an origin, once for all players; one that is published here is taken to it.";
        "origin" Servers, "", NextPublish,
            "The origins, tried in turn, each from the next one on that answered last. A port that is not given is the protocol's.";
        "protocol" Word(&["rtmp", "flv", "flvs", "rtmps"]), "rtmp", NextPublish,
            "How streams are fetched; rtmps is ours. Publishes go by RTMP, or by RTMPS with rtmps.";
        "follow_client" Flag, "off", NextPublish, "Whether a stream is fetched by HTTP-FLV if its first player takes it so, and else by RTMP.";
        "token_traverse" Flag, "off", NextConnection, "Whether an origin is asked first, by a play, whether a player may. A publish is taken to an origin in any case, and ends if that refuses it.";
        "vhost" Text("[vhost]"), "[vhost]", NextPublish, "The vhost there, with [vhost] filled in.";
        "debug_srs_upnode" Flag, "on", NextPublish, "Whether origins are told in connect which server this is.";
        "origin_timeout" Decimal("seconds", 1..=600), "3", NextPublish,
            "Ours. An origin that sends nothing for so long is left for the next one; players stay.";
        "linger" Decimal("seconds", 0..=86_400), "5", NextPublish, "Ours. A stream is fetched for so long after its last player has left.";
        "origin_cluster" Flag, "off", NextConnection,
            "Whether other origins are asked for a stream that is not published here; its players are sent there.";
        "coworkers" Servers, "", NextConnection, "Those origins, by the ports of their APIs.";
        "registry" Secret("redis://10.0.0.9:6379"), "", Restart,
            "Ours. The Redis where all servers say which streams are published at them, and find the others'; the same for all vhosts that have one. rediss:// is TLS.";
        "registry_secret" Secret("SECRET"), "", Restart, "Ours. What entries there are signed with; others are passed over then.";
        "registry_lease" Decimal("seconds", 1..=3600), "10", Restart, "Ours. How long a server that is gone is believed to have its streams.";
        "announce" Servers, "", Restart, "Ours. Where others find this server's RTMP; this machine's address and port unless said.";
        "redirect" Word(&["auto", "on", "off"]), "auto", NextConnection,
            "Ours. Whether RTMP's players of a stream that another origin has are sent there (on) or served here (off); auto: on with coworkers, as in SRS, off with a registry.";
    }
    Pull {
        "enabled" Flag, "on", Now, "Ours. Whether the stream that the block is named after (app/stream) is fetched as long as the server runs.";
        "url" Streams, "", Now, "Ours. Where from, tried in turn; no player notices which.";
    }
    Exec {
        "enabled" Flag, "off", Now, "Whether programs run as long as there is a publish.";
        "publish" Command, "", Now,
            "What runs, with [vhost], [port], [app], [stream], [tcUrl], [swfUrl], [pageUrl] and [url] filled in, and its output where `>FILE`, `2>FILE` or `2>&1` say. Started again when it ends, ended with the publish.";
    }
    Transcode {
        "enabled" Flag, "off", Now, "Whether ffmpeg runs for every publish of the vhost, or of the app or app/stream that the block is named after.";
        "ffmpeg" Path, "ffmpeg", Now, "The program.";
    }
    Engine {
        "enabled" Flag, "off", Now, "Whether it counts. An ingest's that does not copies.";
        "perfile" Options, "", Now, "ffmpeg's options before the input.";
        "iformat" Text("flv"), "flv", Now, "The input's format, where that is RTMP; off says none.";
        "vfilter" Options, "", Now, "ffmpeg's options behind the input.";
        "vcodec" Text("libx264"), "", Now, "The video encoder; copy, or vn for no video.";
        "vbitrate" Number("kbit/s", 0..=1_000_000), "0", Now, "The video's rate; 0 leaves it to the encoder.";
        "vfps" Decimal("pictures a second", 0..=1000), "0", Now, "The video's rate of pictures; 0 leaves it.";
        "vwidth" Number("pixels", 0..=65_536), "0", Now, "The video's width; 0 leaves it.";
        "vheight" Number("pixels", 0..=65_536), "0", Now, "The video's height; 0 leaves it.";
        "vthreads" Number("threads", 0..=1024), "0", Now, "Of the encoder; 0 leaves it to ffmpeg.";
        "vprofile" Text("main"), "", Now, "ffmpeg's -profile:v.";
        "vpreset" Text("medium"), "", Now, "ffmpeg's -preset.";
        "vparams" Options, "", Now, "More options of the video encoder.";
        "acodec" Text("aac"), "", Now, "The audio encoder; copy, or an for no audio.";
        "abitrate" Number("kbit/s", 0..=100_000), "0", Now, "The audio's rate; 0 leaves it to the encoder.";
        "asample_rate" Number("Hz", 0..=768_000), "0", Now, "The audio's sample rate; 0 leaves it.";
        "achannels" Number("channels", 0..=2), "0", Now, "The audio's channels; 0 leaves them.";
        "aparams" Options, "", Now, "More options of the audio encoder.";
        "oformat" Text("flv"), "flv", Now, "The output's format; off says none.";
        "output" Text("rtmp://127.0.0.1:[port]/[app]/[stream]_[engine]?vhost=[vhost]"), "", Now,
            "Where to, with [vhost], [port], [app], [stream], [param] and [engine] filled in.";
    }
    Ingest {
        "enabled" Flag, "off", Now, "Whether ffmpeg publishes something here as long as the server runs.";
        "ffmpeg" Path, "ffmpeg", Now, "The program.";
    }
    IngestInput {
        "type" Word(&["file", "stream"]), "file", Now, "What the url is of.";
        "url" Text("./doc/source.flv"), "", Now, "What ffmpeg reads.";
    }
    Security {
        "enabled" Flag, "off", NextConnection,
            "Whether the rules below count: who matches an allow and no deny may. With no allow of a kind but a deny, who matches no deny may.";
        "allow" Rules, "", NextConnection, "Who may publish or play.";
        "deny" Rules, "", NextConnection, "Who may not.";
    }
    Refer {
        "enabled" Flag, "off", NextConnection,
            "Whether players and publishers must come from the pages below: RTMP's pageUrl, HTTP's Referer. A host name means those under it too.";
        "all" Domains, "", NextConnection, "Pages for both; nothing here lets everybody pass.";
        "publish" Domains, "", NextConnection, "Pages for publishers, beside all.";
        "play" Domains, "", NextConnection, "Pages for players, beside all.";
    }
    SignedUrl {
        "enabled" Flag, "off", NextConnection,
            "Ours. Whether URLs must be signed: ?expires=UNIXTIME&sign=HEX, where HEX is the HMAC-SHA256 with key of `publish /app/stream UNIXTIME`, or `play ...`.";
        "key" Secret("SECRET"), "", NextConnection, "Ours. What they are signed with.";
        "publish" Flag, "on", NextConnection, "Ours. Whether publishers need it.";
        "play" Flag, "on", NextConnection, "Ours. Whether players need it.";
    }
}
