//! What a directive is: its block, values, default, and what it does. All of them are in `config/table.rs`; the loader, the
//! variables of the environment, `--explain`, a reload's report and `conf/full.conf` follow that.

use std::ops::RangeInclusive;

/// Where a directive stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Block {
    Top,
    Rtmp,
    Rtmps,
    HttpServer,
    HttpServerHttps,
    HttpApi,
    HttpApiRaw,
    HttpApiAuth,
    HttpApiHttps,
    Exporter,
    Heartbeat,
    HeartbeatAuth,
    Vhost,
    Publish,
    Play,
    HttpRemux,
    HttpStatic,
    HttpHooks,
    Hls,
    Dash,
    Dvr,
    Forward,
    Cluster,
    Pull,
    Exec,
    Transcode,
    Ingest,
    IngestInput,
    Engine,
    Security,
    Refer,
    SignedUrl,
}

impl Block {
    /// The block's name in a configuration, empty at the top level, and what its directives' variables begin
    /// with.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Top => ("", "SRS_"),
            Self::Rtmp => ("rtmp", "SRS_RTMP_"),
            Self::Rtmps => ("rtmps", "SRS_RTMPS_"),
            Self::HttpServer => ("http_server", "SRS_HTTP_SERVER_"),
            Self::HttpServerHttps => ("https", "SRS_HTTP_SERVER_HTTPS_"),
            Self::HttpApi => ("http_api", "SRS_HTTP_API_"),
            Self::HttpApiRaw => ("raw_api", "SRS_HTTP_API_RAW_API_"),
            Self::HttpApiAuth => ("auth", "SRS_HTTP_API_AUTH_"),
            Self::HttpApiHttps => ("https", "SRS_HTTP_API_HTTPS_"),
            Self::Exporter => ("exporter", "SRS_EXPORTER_"),
            Self::Heartbeat => ("heartbeat", "SRS_HEARTBEAT_"),
            Self::HeartbeatAuth => ("auth", "SRS_HEARTBEAT_AUTH_"),
            Self::Vhost => ("vhost", "SRS_VHOST_"),
            Self::Publish => ("publish", "SRS_VHOST_PUBLISH_"),
            Self::Play => ("play", "SRS_VHOST_PLAY_"),
            Self::HttpRemux => ("http_remux", "SRS_VHOST_HTTP_REMUX_"),
            Self::HttpStatic => ("http_static", "SRS_VHOST_HTTP_STATIC_"),
            Self::HttpHooks => ("http_hooks", "SRS_VHOST_HTTP_HOOKS_"),
            Self::Hls => ("hls", "SRS_VHOST_HLS_"),
            Self::Dash => ("dash", "SRS_VHOST_DASH_"),
            Self::Dvr => ("dvr", "SRS_VHOST_DVR_"),
            Self::Forward => ("forward", "SRS_VHOST_FORWARD_"),
            Self::Cluster => ("cluster", "SRS_VHOST_CLUSTER_"),
            Self::Pull => ("pull", "SRS_VHOST_PULL_"),
            Self::Exec => ("exec", "SRS_VHOST_EXEC_"),
            Self::Transcode => ("transcode", "SRS_VHOST_TRANSCODE_"),
            Self::Ingest => ("ingest", "SRS_VHOST_INGEST_"),
            Self::IngestInput => ("input", "SRS_VHOST_INGEST_INPUT_"),
            Self::Engine => ("engine", "SRS_VHOST_TRANSCODE_ENGINE_"),
            Self::Security => ("security", "SRS_VHOST_SECURITY_"),
            Self::Refer => ("refer", "SRS_VHOST_REFER_"),
            Self::SignedUrl => ("signed_url", "SRS_VHOST_SIGNED_URL_"),
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.names().0
    }

    /// What its directives' variables begin with.
    pub(super) fn variable_prefix(self) -> &'static str {
        self.names().1
    }
}

/// What values a directive takes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Values {
    /// `on` or `off`.
    Flag,
    /// A whole number of a unit.
    Number(&'static str, RangeInclusive<u32>),
    /// The same, or the word `auto`.
    NumberOrAuto(&'static str, RangeInclusive<u32>),
    /// A number of a unit, with a fraction if need be.
    Decimal(&'static str, RangeInclusive<u32>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `[ip:]port`, several.
    Addresses,
    /// A file.
    Path,
    /// Any word, for example this one.
    Text(&'static str),
    /// Templates of paths.
    Mounts,
    /// The same, and not for everybody's eyes.
    Secret(&'static str),
    /// `http://host[:port]/path`, several.
    Urls,
    /// `host[:port]` of RTMP servers, several.
    Destinations,
    /// `host[:port]` of servers, several.
    Servers,
    /// URLs of streams, several.
    Streams,
    /// Host names of pages, several.
    Domains,
    /// Addresses and networks, several.
    Networks,
    /// Whom `allow` or `deny` means; the directive may stand often.
    Rules,
    /// The end of a stream's name and BANDWIDTH=; the directive may stand often.
    Variants,
    /// A program and its arguments; the directive may stand often.
    Command,
    /// A block of another program's options.
    Options,
}

impl Values {
    /// What is allowed, for people.
    pub(super) fn allowed(&self) -> String {
        let range = |range: &RangeInclusive<u32>| format!("from {} to {}", range.start(), range.end());
        match self {
            Self::Flag => "`on` or `off`".to_owned(),
            Self::Number(unit, allowed) => format!("a whole number of {unit} {}", range(allowed)),
            Self::NumberOrAuto(unit, allowed) => format!("a whole number of {unit} {}, or `auto`", range(allowed)),
            Self::Decimal(unit, allowed) => format!("a number of {unit} {}, such as 10 or 2.5", range(allowed)),
            Self::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
            Self::Addresses => "[ip:]port, for example `listen 1935 [::]:1935;`".to_owned(),
            Self::Path => "a file's path".to_owned(),
            Self::Variants => "the end of a stream's name, for example `_low` or `_low BANDWIDTH=400000`".to_owned(),
            Self::Text(example) | Self::Secret(example) => format!("a word, for example `{example}`"),
            Self::Mounts => {
                "paths with `[stream]` that end in .flv, .ts, .aac or .mp3, such as `[vhost]/[app]/[stream].ts`"
                    .to_owned()
            }
            Self::Destinations => {
                "one or several host[:port] of RTMP servers, for RTMPS (ours) rtmps://host[:port]".to_owned()
            }
            Self::Streams => {
                "one or several of rtmp://HOST/APP/STREAM, rtmps://…, http://HOST/APP/STREAM.flv, https://…".to_owned()
            }
            Self::Servers => "one or several host[:port]".to_owned(),
            Self::Domains => "host names of pages, such as `example.com`; several".to_owned(),
            Self::Networks => "addresses, or networks such as 10.0.0.0/8; several".to_owned(),
            Self::Urls => "one or several http:// or https:// URLs".to_owned(),
            Self::Command => "a program and its arguments; there is no shell".to_owned(),
            Self::Options => "a block of ffmpeg's options, such as `{ re; rtsp_transport tcp; }`".to_owned(),
            Self::Rules => {
                "`publish` or `play`, and `all`, an address, or a network such as 10.0.0.0/8; several".to_owned()
            }
        }
    }
}

/// When a reload's change acts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Acts {
    Now,
    NextConnection,
    NextPublish,
    Restart,
}

impl Acts {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Now => "at once",
            Self::NextConnection => "for connections, publishes and plays from now on",
            Self::NextPublish => "at the next publish",
            Self::Restart => "after a restart",
        }
    }
}

/// One directive.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) block: Block,
    pub(super) name: &'static str,
    pub(super) values: Values,
    /// As it would stand in a file; empty if there is none.
    pub(super) default: &'static str,
    pub(super) acts: Acts,
    pub(super) effect: &'static str,
}

impl Known {
    /// The variables that override it, in SRS's spelling.
    pub(super) fn variables(&self) -> Vec<String> {
        let upper = self.name.to_uppercase();
        if matches!(self.values, Values::Rules | Values::Command | Values::Options | Values::Streams) {
            return Vec::new();
        }
        let usual = format!("{}{upper}", self.block.variable_prefix());
        // The same directives at the top level and in `rtmp`, so the same variables.
        if self.block == Block::Rtmp || self.block == Block::Top && matches!(self.name, "listen" | "chunk_size") {
            return vec![format!("SRS_{upper}"), format!("SRS_RTMP_{upper}")];
        }
        if upper.starts_with("SRS_") { vec![upper, usual] } else { vec![usual] }
    }
}
