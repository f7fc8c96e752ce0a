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
    (Block::Top, "auto_reload_for_docker", "SIGHUP reloads; inotify_auto_reload reloads when the file changes"),
    (Block::Top, "tcmalloc_release_rate", "the allocator is another one"),
    (Block::Top, "query_latest_version", "nobody is asked for versions"),
    (Block::Top, "first_wait_for_qlv", "nobody is asked for versions"),
    (Block::Top, "is_full", "it keeps SRS from starting with its sample of everything; here the file counts as it is"),
    (Block::Top, "threads", "there is one shard per CPU; taskset or --cpus says which"),
    (Block::Top, "circuit_breaker", "it sheds load of WebRTC, which is not there yet"),
    (Block::Top, "stats", "the API's figures are of the whole machine"),
    (Block::Top, "tencentcloud_cls", "as with SRS 7"),
    (Block::Top, "tencentcloud_apm", "as with SRS 7"),
    (Block::HttpApiRaw, "allow_query", "as with SRS 7"),
    (Block::HttpApiRaw, "allow_update", "as with SRS 7"),
    (Block::HttpApiAuth, "rtc_bearer_enabled", "it guards WebRTC's signalling, which is not there yet"),
    (Block::HttpHooks, "on_hls_notify", "it is not there yet; on_hls is"),
    (Block::Hls, "hls_on_error", "what goes wrong with files is in the log; live goes on"),
    (Block::Hls, "hls_nb_notify", "on_hls_notify is not there yet"),
    (Block::Hls, "hls_dts_directly", "sound's times are whole frames in MP4, and the stream's in a transport stream"),
    (Block::Hls, "hls_acodec", "as with SRS 7"),
    (Block::Hls, "hls_vcodec", "as with SRS 7"),
    (Block::Hls, "hls_mount", "as with SRS 7"),
    (Block::HttpRemux, "hstrs", "as with SRS 3 and later, a request waits for its stream if wait_stream says so"),
    (Block::Vhost, "bandcheck", "as with SRS 4 and later"),
    (Block::Vhost, "hds", "Flash is no more"),
    (Block::Vhost, "nack", "it is of WebRTC, which is not there yet"),
    (Block::Vhost, "twcc", "it is of WebRTC, which is not there yet"),
];

/// A block of SRS that is not built yet. Refused by name where it is switched on; `--lenient` goes without it.
#[derive(Debug)]
pub(super) struct Missing {
    /// Where it stands.
    pub(super) parent: Block,
    pub(super) name: &'static str,
    /// What it is, for people.
    pub(super) capability: &'static str,
    /// Directives in it, old spellings included.
    pub(super) names: &'static [&'static str],
}

impl Missing {
    /// The block called `name` in `parent`.
    pub(super) fn find(parent: Block, name: &str) -> Option<&'static Self> {
        MISSING.iter().find(|missing| missing.parent == parent && missing.name == name)
    }

    /// What its directives' variables begin with.
    pub(super) fn variables(&self) -> String {
        format!("{}{}_", self.parent.variable_prefix(), self.name.to_uppercase())
    }
}

macro_rules! missing {
    ($($parent:ident $name:literal $capability:literal: $($inside:ident)*;)*) => {
        /// What SRS has and we do not, yet.
        pub(super) static MISSING: &[Missing] = &[$(Missing {
            parent: Block::$parent,
            name: $name,
            capability: $capability,
            names: &[$(stringify!($inside)),*],
        },)*];
    };
}

missing! {
    Top "srt_server" "SRT":
        enabled listen maxbw mss connect_timeout peer_idle_timeout default_app default_mode default_streamid peerlatency
        recvlatency latency tsbpdmode tlpktdrop tlpkdrop sendbuf recvbuf payloadsize passphrase pbkeylen sei_filter
        mix_correct;
    Top "rtc_server" "WebRTC":
        enabled listen protocol candidate use_auto_detect_network_ip ip_family api_as_candidates resolve_api_domain
        keep_api_domain ecdsa encrypt reuseport merge_nalus dir perf_stat queue_length tcp black_hole;
    Top "rtsp_server" "RTSP": enabled listen;
    Top "stream_caster" "stream casters":
        enabled caster output listen media_connect_timeout sip host tcp_enable rtp_port_min rtp_port_max wait_keyframe
        rtp_idle_timeout audio_enable auto_create_channel;
    Vhost "rtc" "WebRTC":
        enabled nack nack_no_copy nack_prefer_rtx twcc stun_timeout stun_strict_check dtls_role dtls_version drop_for_pt
        rtmp_to_rtc keep_bframe keep_avc_nalu_sei opus_bitrate rtc_to_rtmp pli_for_rtmp aac_bitrate init_rate_from_sdp
        keep_original_ssrc aac bframe;
    Vhost "srt" "SRT": enabled srt_to_rtmp;
    Vhost "rtsp" "RTSP": enabled rtmp_to_rtsp;
}
