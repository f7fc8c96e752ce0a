//! A configuration in words: what is in effect and where it comes from, what a reload has changed, and
//! `conf/full.conf`.

use super::{
    directives::{Block, Known, Values},
    secrets::hide_in_urls,
    table::KNOWN,
};
use crate::proto::http::url::HttpUrl;
use std::fmt;

/// Where a value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    Default,
    /// `file:line`.
    Line(String),
    /// The name of a variable of the environment.
    Variable(String),
}

/// A line of the effective configuration.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// A block begins: `vhost NAME`.
    Open(String),
    Value {
        known: &'static Known,
        text: String,
        origin: Origin,
    },
    Close,
}

impl Line {
    /// Whether it is the value of a directive called `name`.
    pub(super) fn is_of(&self, name: &str) -> bool {
        matches!(self, Self::Value { known, .. } if known.name == name)
    }
}

/// The effective configuration; displays as a configuration whose comments say where values come from.
#[derive(Clone, Debug, Default)]
pub struct Explanation(pub(super) Vec<Line>);

/// A value that differs between two configurations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// For example `vhost a: play: mw_latency`.
    pub what: String,
    /// The value before; empty if it was not there.
    pub before: String,
    /// The value now; empty if it is not there any more.
    pub now: String,
    /// When it acts, for people.
    pub acts: &'static str,
}

impl Explanation {
    /// What has changed since `before`.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let (old, new) = (before.values(), self.values());
        let find = |list: &[(String, String, &'static Known)], what: &str| {
            list.iter().find(|(known, ..)| known == what).map_or(String::new(), |(_, value, _)| value.clone())
        };
        let mut changes = Vec::new();
        let gone = old.iter().filter(|(what, ..)| new.iter().all(|(known, ..)| known != what));
        for (what, _, known) in new.iter().chain(gone) {
            let (before, now) = (find(&old, what), find(&new, what));
            if before != now {
                let (before, now) = (shown(known, &before), shown(known, &now));
                changes.push(Change { what: what.clone(), before, now, acts: known.acts.text() });
            }
        }
        changes
    }

    /// Each value by its place; several `listen` are one.
    fn values(&self) -> Vec<(String, String, &'static Known)> {
        let mut blocks: Vec<&str> = Vec::new();
        let mut values: Vec<(String, String, &'static Known)> = Vec::new();
        for line in &self.0 {
            match line {
                Line::Open(name) => blocks.push(name),
                Line::Close => drop(blocks.pop()),
                Line::Value { known, text, .. } => {
                    let what = blocks.iter().chain([&known.name]).copied().collect::<Vec<_>>().join(": ");
                    match values.iter_mut().find(|(have, ..)| *have == what) {
                        Some((_, have, _)) => *have = format!("{have} {text}"),
                        None => values.push((what, text.clone(), known)),
                    }
                }
            }
        }
        values
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut depth = 0;
        for line in &self.0 {
            match line {
                Line::Open(name) => {
                    writeln!(f, "{:1$}{name} {{", "", 4 * depth)?;
                    depth += 1;
                }
                Line::Close => {
                    depth -= 1;
                    writeln!(f, "{:1$}}}", "", 4 * depth)?;
                }
                Line::Value { known, text, origin } => {
                    // What has no default and no value says nothing.
                    let comment = if text.is_empty() { "# " } else { "" };
                    let value =
                        format!("{:4$}{comment}{:<23} {}{}", "", known.name, shown(known, text), ";", 4 * depth);
                    match origin {
                        Origin::Default => writeln!(f, "{value:<44} # default")?,
                        Origin::Line(line) => writeln!(f, "{value:<44} # {line}")?,
                        Origin::Variable(name) => writeln!(f, "{value:<44} # {name}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// A directive's value as it may stand in a file; a secret does not. Lists have each word as it may stand already.
fn shown(known: &Known, text: &str) -> String {
    match known.values {
        _ if text.is_empty() => String::new(),
        Values::Secret(_) => "******".to_owned(),
        // Passwords and tokens stand in names and queries.
        Values::Urls => text.split(' ').map(public).collect::<Vec<_>>().join(" "),
        Values::Mounts
        | Values::Addresses
        | Values::Domains
        | Values::Networks
        | Values::Destinations
        | Values::Servers
        | Values::Streams
        | Values::Variants
        | Values::Rules => hide_in_urls(text),
        Values::Flag
        | Values::Number(..)
        | Values::NumberOrAuto(..)
        | Values::Decimal(..)
        | Values::Word(_)
        | Values::Path
        | Values::Text(_)
        | Values::Command
        | Values::Options => hide_in_urls(&quoted(text)),
    }
}

/// A URL without what is not for everybody's eyes.
fn public(word: &str) -> String {
    HttpUrl::read(word.trim_matches('"')).map_or_else(|| "******".to_owned(), |url| quoted(&url.to_string()))
}

/// A word as it may stand in a file.
pub(super) fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || ";{}\"'#".contains(c));
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")) }
}

/// `conf/full.conf`: every directive with its values, default, variables and effect.
pub fn full() -> String {
    let mut out = String::from(
        "# Every directive that corecast knows, at its default: what it does, the values that it takes, and the\n\
         # variables of the environment that override it; those of a vhost apply to all vhosts.\n\
         # Printed by `corecast directives`. `corecast -t --explain -c FILE` says what is in effect, and why.\n\
         # `include FILE...;` stands anywhere and takes patterns, such as vhosts/*.conf.\n",
    );
    describe(&mut out, Block::Top, 0);
    let tops: [(Block, &[Inner]); 6] = [
        (Block::Rtmp, &[]),
        (Block::Rtmps, &[]),
        (Block::HttpServer, &[(Block::HttpServerHttps, &[])]),
        (Block::HttpApi, &[(Block::HttpApiRaw, &[]), (Block::HttpApiAuth, &[]), (Block::HttpApiHttps, &[])]),
        (Block::Exporter, &[]),
        (Block::Heartbeat, &[(Block::HeartbeatAuth, &[])]),
    ];
    for (block, inner) in tops {
        describe_blocks(&mut out, block, block.name(), inner);
    }
    out.push_str("\n# One per host name; __defaultVhost__ answers for every other one.");
    let inner: [Inner; 17] = [
        (Block::Publish, &[]),
        (Block::Play, &[]),
        (Block::Forward, &[]),
        (Block::Cluster, &[]),
        (Block::Pull, &[]),
        (Block::Exec, &[]),
        (Block::Transcode, &[Block::Engine]),
        (Block::Ingest, &[Block::IngestInput]),
        (Block::HttpRemux, &[]),
        (Block::HttpStatic, &[]),
        (Block::Hls, &[]),
        (Block::Dash, &[]),
        (Block::Dvr, &[]),
        (Block::HttpHooks, &[]),
        (Block::Security, &[]),
        (Block::Refer, &[]),
        (Block::SignedUrl, &[]),
    ];
    describe_blocks(&mut out, Block::Vhost, "vhost __defaultVhost__", &inner);
    out
}

/// A block inside another one, and what is inside it.
type Inner = (Block, &'static [Block]);

/// A block at the top level with those inside it.
fn describe_blocks(out: &mut String, block: Block, head: &str, inner: &[Inner]) {
    open(out, head, 0);
    describe(out, block, 1);
    for (block, inner) in inner {
        open(out, block.name(), 1);
        describe(out, *block, 2);
        for block in *inner {
            open(out, block.name(), 2);
            describe(out, *block, 3);
            out.push_str("        }\n");
        }
        out.push_str("    }\n");
    }
    out.push_str("}\n");
}

fn open(out: &mut String, head: &str, depth: usize) {
    out.push_str(&format!("\n{:2$}{head} {}\n", "", "{", 4 * depth));
}

fn describe(out: &mut String, block: Block, depth: usize) {
    let indent = " ".repeat(4 * depth);
    for (at, known) in KNOWN.iter().filter(|known| known.block == block).enumerate() {
        let mut text = format!("{} Values: {}.", known.effect, known.values.allowed().replace('`', ""));
        match known.default {
            "" => text.push_str(" No default."),
            default => text.push_str(&format!(" Default: {default}.")),
        }
        if !known.variables().is_empty() {
            text.push_str(&format!(" Env: {}.", known.variables().join(" or ")));
        }
        text.push_str(&format!(" Changed by reload: {}.", known.acts.text()));
        if at > 0 || block == Block::Top {
            out.push('\n');
        }
        for line in wrapped(&text, 100 - 4 * depth) {
            out.push_str(&format!("{indent}# {line}\n"));
        }
        let (comment, value) = match (known.default, &known.values, block) {
            ("", Values::Addresses, Block::Top) => ("", "1935 [::]:1935"),
            ("", Values::Addresses, Block::Rtmps) => ("# ", "1443 [::]:1443"),
            ("", Values::Text(example) | Values::Secret(example), _) => ("# ", *example),
            ("", Values::Urls, _) => ("# ", "http://127.0.0.1:8085/api/v1/hooks"),
            ("", Values::Servers | Values::Destinations, _) => ("# ", "10.0.0.1 10.0.0.2:19350"),
            ("", Values::Streams, _) => ("# ", "rtmp://10.0.0.1/live/livestream"),
            ("", Values::Domains, _) => ("# ", "example.com"),
            ("", Values::Networks, _) => ("# ", "127.0.0.1 10.0.0.0/8"),
            ("", Values::Word(words), _) => ("# ", words.first().copied().unwrap_or_default()),
            ("", Values::Path, _) => ("# ", "/etc/ssl/hooks-ca.pem"),
            ("", Values::Rules, _) => ("# ", "play 10.0.0.0/8"),
            ("", Values::Command, _) => ("# ", "ffmpeg -f flv -i [url] -c copy -y ./[stream].flv >./[stream].log 2>&1"),
            ("", Values::Options, _) => ("# ", "{ NAME VALUE; }"),
            ("", _, _) => ("# ", "1935 [::]:1935"),
            // What depends on other directives stands as a comment.
            (default, _, Block::Rtmp) => ("# ", default),
            (default, _, _) => ("", default),
        };
        out.push_str(&format!("{indent}{comment}{:<23} {value};\n", known.name));
    }
}

/// Words in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
