//! Directives → sections. Every fault of a text is found at once.

use super::{
    CHUNK_SIZE_DEFAULT, Config, Listen, Play, Vhost,
    syntax::{self, Directive, Word},
};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::{Range, RangeInclusive},
};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All faults of a text; displays each with file, line, column, the line itself and a fix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    name: String,
    text: String,
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(name: &str, text: &str, faults: Vec<Fault>) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), faults }
    }

    /// The faults in the order of the text.
    pub fn list(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain();
        for (at, fault) in self.faults.iter().enumerate() {
            let mut annotation = AnnotationKind::Primary.span(fault.span.clone());
            if let Some(help) = &fault.help {
                annotation = annotation.label(help);
            }
            let snippet = Snippet::source(&self.text).path(&self.name).annotation(annotation);
            let group = Level::ERROR.primary_title(&fault.message).element(snippet);
            let separator = if at == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{}", renderer.render(&[group]))?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Directives that SRS has and this version does not; they are refused by name, not as unknown.
const NOT_YET: &[&str] = &[
    "include",
    "daemon",
    "pid",
    "ff_log_dir",
    "srs_log_tank",
    "srs_log_level",
    "srs_log_file",
    "utc_time",
    "work_dir",
    "asprocess",
    "grace_start_wait",
    "grace_final_wait",
    "force_grace_quit",
    "disable_daemon_for_docker",
    "inotify_auto_reload",
    "auto_reload_for_docker",
    "tcmalloc_release_rate",
    "query_latest_version",
    "first_wait_for_qlv",
    "threads",
    "circuit_breaker",
    "rtmps",
    "heartbeat",
    "stats",
    "http_api",
    "http_server",
    "srt_server",
    "rtc_server",
    "rtsp_server",
    "stream_caster",
    "exporter",
    "tracer",
    "in_ack_size",
    "out_ack_size",
    "publish",
    "time_jitter",
    "atc",
    "atc_auto",
    "mix_correct",
    "send_min_interval",
    "reduce_sequence_header",
    "cluster",
    "forward",
    "bandcheck",
    "security",
    "refer",
    "http_static",
    "http_remux",
    "http_hooks",
    "exec",
    "dash",
    "hls",
    "hds",
    "dvr",
    "transcode",
    "ingest",
    "rtc",
    "srt",
    "rtsp",
    "on_connect",
];

/// Reads a whole configuration.
pub(super) fn load(text: &str) -> Result<Config, Vec<Fault>> {
    let directives = syntax::parse(text)?;
    let mut faults = Vec::new();
    let mut top = Section::new(&directives, &mut faults);
    let listen_own = top.listen();
    let chunk_size_own = top.number("chunk_size", CHUNK_SIZES, "bytes");
    let max_connections =
        top.number("max_connections", 1..=1_000_000, "connections").map_or(1000, |(number, _)| number);
    let rtmp = top.block("rtmp");
    let vhosts = top.blocks("vhost");
    top.finish(None);
    let (listen, chunk_size) = load_rtmp(rtmp, listen_own, chunk_size_own, &mut faults);
    if listen.is_empty() && faults.is_empty() {
        faults.push(Fault::new(0..text.len().min(1), "no `listen` directive").help("add `listen 1935;`"));
    }
    let vhosts = load_vhosts(&vhosts, chunk_size, &mut faults);
    if faults.is_empty() {
        return Ok(Config { listen, max_connections, vhosts });
    }
    faults.sort_by_key(|fault| fault.span.start);
    Err(faults)
}

const CHUNK_SIZES: RangeInclusive<u32> = 128..=65_536;

type Spanned<T> = Option<(T, Range<usize>)>;

/// `listen` and `chunk_size` may stand at the top or in `rtmp`; both and different is an error (E4).
fn load_rtmp(
    rtmp: Option<&Directive>,
    mut listen: Vec<(Listen, Range<usize>)>,
    mut chunk_size: Spanned<u32>,
    faults: &mut Vec<Fault>,
) -> (Vec<Listen>, u32) {
    if let Some(rtmp) = rtmp {
        let mut section = Section::new(rtmp.block.as_deref().unwrap_or_default(), faults);
        let inner_listen = section.listen();
        let inner_chunk_size = section.number("chunk_size", CHUNK_SIZES, "bytes");
        section.finish(Some("rtmp"));
        let endpoints = |list: &[(Listen, _)]| list.iter().map(|(listen, _)| *listen).collect::<Vec<_>>();
        if listen.is_empty() {
            listen = inner_listen;
        } else if let Some((_, span)) = inner_listen.first().filter(|_| endpoints(&listen) != endpoints(&inner_listen))
        {
            faults.push(contradiction("listen", span));
        }
        match (&chunk_size, inner_chunk_size) {
            (None, inner) => chunk_size = inner,
            (Some((outer, _)), Some((inner, span))) if *outer != inner => {
                faults.push(contradiction("chunk_size", &span))
            }
            _ => {}
        }
    }
    let listen = listen.into_iter().map(|(listen, _)| listen).collect();
    (listen, chunk_size.map_or(CHUNK_SIZE_DEFAULT, |(bytes, _)| bytes))
}

fn contradiction(name: &str, span: &Range<usize>) -> Fault {
    Fault::new(span.clone(), format!("`{name}` is set at the top level too, and differs")).help("keep one of the two")
}

fn load_vhosts(blocks: &[&Directive], chunk_size: u32, faults: &mut Vec<Fault>) -> Vec<Vhost> {
    let mut vhosts: Vec<Vhost> = Vec::new();
    for block in blocks {
        let [name] = &block.arguments[..] else {
            faults.push(
                Fault::new(block.name.span.clone(), "`vhost` needs one name")
                    .help("write `vhost __defaultVhost__ { … }`"),
            );
            continue;
        };
        if vhosts.iter().any(|vhost| vhost.name == name.text) {
            faults.push(
                Fault::new(name.span.clone(), format!("vhost `{}` is there already", name.text)).help("merge the two"),
            );
        }
        vhosts.push(load_vhost(name, block, chunk_size, faults));
    }
    vhosts
}

fn load_vhost(name: &Word, block: &Directive, chunk_size: u32, faults: &mut Vec<Fault>) -> Vhost {
    let mut section = Section::new(block.block.as_deref().unwrap_or_default(), faults);
    let enabled = section.flag("enabled", true);
    let tcp_nodelay = section.flag("tcp_nodelay", false);
    let min_latency = section.flag("min_latency", false);
    let chunk_size = section.number("chunk_size", CHUNK_SIZES, "bytes").map_or(chunk_size, |(bytes, _)| bytes);
    let play = section.block("play");
    section.finish(Some("vhost"));
    let mut section = Section::new(play.and_then(|play| play.block.as_deref()).unwrap_or_default(), faults);
    let play = load_play(&mut section, min_latency);
    section.finish(Some("play"));
    Vhost { name: name.text.clone(), enabled, tcp_nodelay, min_latency, chunk_size, play }
}

fn load_play(section: &mut Section<'_, '_>, min_latency: bool) -> Play {
    let value = |number: Spanned<u32>, default| number.map_or(default, |(number, _)| number);
    let mw_latency_ms = section.mw_latency(if min_latency { 0 } else { 350 });
    let mw_msgs = if min_latency || mw_latency_ms.is_none() { 0 } else { 8 };
    Play {
        gop_cache: section.flag("gop_cache", true),
        gop_cache_max_frames: value(section.number("gop_cache_max_frames", 1..=1_000_000, "messages"), 2500),
        queue_length_s: value(section.number("queue_length", 1..=3600, "seconds"), 30),
        mw_latency_ms,
        mw_msgs: value(section.number("mw_msgs", 0..=128, "messages"), mw_msgs),
    }
}

/// The directives of one block, taken one by one; what is left is unknown.
struct Section<'a, 'f> {
    directives: &'a [Directive],
    known: Vec<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl<'a, 'f> Section<'a, 'f> {
    fn new(directives: &'a [Directive], faults: &'f mut Vec<Fault>) -> Self {
        Self { directives, known: Vec::new(), faults }
    }

    /// All directives called `name`.
    fn all(&mut self, name: &'static str) -> Vec<&'a Directive> {
        self.known.push(name);
        self.directives.iter().filter(|directive| directive.name.text == name).collect()
    }

    /// The one directive called `name`.
    fn one(&mut self, name: &'static str) -> Option<&'a Directive> {
        let found = self.all(name);
        for double in found.iter().skip(1) {
            let message = format!("`{name}` is set twice");
            self.faults.push(Fault::new(double.name.span.clone(), message).help("remove one of the two"));
        }
        found.first().copied()
    }

    /// The one argument of a directive without a block.
    fn argument(&mut self, directive: &'a Directive, example: &str) -> Option<&'a Word> {
        let name = &directive.name.text;
        match (&directive.arguments[..], &directive.block) {
            ([argument], None) => return Some(argument),
            (_, Some(_)) => self.fault(&directive.name, format!("`{name}` takes no block"), example),
            ([], None) => self.fault(&directive.name, format!("`{name}` needs a value"), example),
            ([_, second, ..], None) => self.fault(second, format!("`{name}` takes one value"), example),
        }
        None
    }

    fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let Some(argument) = self
            .one(name)
            .and_then(|directive| self.argument(directive, &format!("write `{name} on;` or `{name} off;`")))
        else {
            return default;
        };
        match argument.text.as_str() {
            "on" => true,
            "off" => false,
            other => {
                self.fault(
                    argument,
                    format!("`{other}` is neither `on` nor `off`"),
                    &format!("the default is `{}`", if default { "on" } else { "off" }),
                );
                default
            }
        }
    }

    fn number(&mut self, name: &'static str, range: RangeInclusive<u32>, unit: &str) -> Spanned<u32> {
        let allowed = format!("a whole number of {unit} from {} to {}", range.start(), range.end());
        let directive = self.one(name)?;
        let argument = self.argument(directive, &allowed)?;
        match argument.text.parse::<u32>().ok().filter(|number| range.contains(number)) {
            Some(number) => Some((number, argument.span.clone())),
            None => {
                self.fault(argument, format!("`{}` is no value for `{name}`", argument.text), &allowed);
                None
            }
        }
    }

    /// Milliseconds, or `auto` (`None`).
    fn mw_latency(&mut self, default_ms: u32) -> Option<u32> {
        const ALLOWED: &str = "a whole number of ms from 0 to 10000, or `auto`";
        let Some(directive) = self.one("mw_latency") else { return Some(default_ms) };
        let Some(argument) = self.argument(directive, ALLOWED) else { return Some(default_ms) };
        if argument.text == "auto" {
            return None;
        }
        let number = argument.text.parse().ok().filter(|ms| *ms <= 10_000);
        if number.is_none() {
            self.fault(argument, format!("`{}` is no value for `mw_latency`", argument.text), ALLOWED);
        }
        Some(number.unwrap_or(default_ms))
    }

    fn listen(&mut self) -> Vec<(Listen, Range<usize>)> {
        let mut endpoints: Vec<(Listen, Range<usize>)> = Vec::new();
        for directive in self.all("listen") {
            let (words, addresses): (Vec<&Word>, Vec<&Word>) =
                directive.arguments.iter().partition(|word| word.text == "proxy_protocol");
            if addresses.is_empty() || directive.block.is_some() {
                self.fault(&directive.name, "`listen` needs an address".to_owned(), LISTEN_EXAMPLE);
            }
            for word in addresses {
                match parse_address(&word.text) {
                    Some(address)
                        if endpoints.iter().any(|(known, _)| known.address == address && address.port() != 0) =>
                    {
                        self.fault(word, format!("{address} is listened on already"), "remove one of the two");
                    }
                    Some(address) => {
                        endpoints.push((Listen { address, proxy_protocol: !words.is_empty() }, word.span.clone()))
                    }
                    None => self.fault(word, format!("`{}` is no address to listen on", word.text), LISTEN_EXAMPLE),
                }
            }
        }
        endpoints
    }

    fn block(&mut self, name: &'static str) -> Option<&'a Directive> {
        let directive = self.one(name)?;
        if directive.block.is_none() {
            self.fault(&directive.name, format!("`{name}` needs a block"), &format!("write `{name} {{ … }}`"));
        } else if let Some(argument) = directive.arguments.first() {
            self.fault(argument, format!("`{name}` takes no value"), "remove it");
        }
        Some(directive)
    }

    fn blocks(&mut self, name: &'static str) -> Vec<&'a Directive> {
        let blocks = self.all(name);
        for directive in blocks.iter().filter(|directive| directive.block.is_none()) {
            self.fault(&directive.name, format!("`{name}` needs a block"), &format!("write `{name} NAME {{ … }}`"));
        }
        blocks
    }

    /// Refuses whatever has not been asked for.
    fn finish(self, block: Option<&str>) {
        for Directive { name, .. } in self.directives {
            if self.known.contains(&name.text.as_str()) {
                continue;
            }
            let place = block.map_or_else(|| "at the top level".to_owned(), |block| format!("in `{block}`"));
            if NOT_YET.contains(&name.text.as_str()) {
                let fault = Fault::new(name.span.clone(), format!("`{}` is SRS's, and not supported yet", name.text));
                self.faults.push(fault.help("remove it"));
                continue;
            }
            let fault = Fault::new(name.span.clone(), format!("`{}` is not known {place}", name.text));
            self.faults.push(match nearest(&name.text, &self.known) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault.help(format!("known here: {}", self.known.join(", "))),
            });
        }
    }

    fn fault(&mut self, at: &Word, message: String, help: &str) {
        self.faults.push(Fault::new(at.span.clone(), message).help(help));
    }
}

const LISTEN_EXAMPLE: &str = "write [ip:]port, for example `listen 1935 [::]:1935;`";

/// `[ip:]port`; a bare port means 0.0.0.0.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let bare = text.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    bare.or_else(|| text.parse().ok())
}

/// The known name that `name` most likely means.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = known.iter().map(|candidate| (edits(name, candidate), *candidate)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
