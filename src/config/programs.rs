//! `exec`, `transcode` and `ingest`: programs that run beside streams.

use super::{
    directives::Block,
    explain::{Line, quoted},
    place::Word,
    section::{Loader, Section},
    syntax::Directive,
};

/// What a vhost runs; nothing unless enabled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Programs {
    /// Commands of every publish, as lists of arguments. SRS: `exec`, `publish`.
    pub exec: Vec<Vec<String>>,
    /// ffmpegs of publishes. SRS: `transcode`.
    pub transcode: Vec<Transcode>,
    /// ffmpegs that publish. SRS: `ingest`.
    pub ingest: Vec<Ingest>,
}

/// A `transcode` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transcode {
    /// Of which publishes: all of the vhost if empty, those of an app, or one `app/stream`.
    pub scope: String,
    /// The program. SRS: `ffmpeg`.
    pub ffmpeg: String,
    /// One process each; those that are enabled.
    pub engines: Vec<Engine>,
}

/// An `ingest` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ingest {
    /// Its name.
    pub name: String,
    /// What ffmpeg reads. SRS: `input`, `url`.
    pub input: String,
    /// The program. SRS: `ffmpeg`.
    pub ffmpeg: String,
    /// One process each; one that is not enabled copies.
    pub engines: Vec<Engine>,
}

/// An `engine`: how ffmpeg is called. What is 0 or empty is not said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Options before the input, as ffmpeg takes them. SRS: `perfile`.
    pub perfile: Vec<String>,
    /// The input's format, or `off`. SRS: `iformat`.
    pub iformat: String,
    /// Options behind the input. SRS: `vfilter`.
    pub vfilter: Vec<String>,
    /// `copy`, `vn` for none, or an encoder. SRS: `vcodec`.
    pub vcodec: String,
    /// kbit/s.
    pub vbitrate: u32,
    /// Pictures a second, in hundredths.
    pub vfps_hundredths: u32,
    /// Pixels.
    pub vwidth: u32,
    /// Pixels.
    pub vheight: u32,
    /// ffmpeg's `-threads`.
    pub vthreads: u32,
    /// ffmpeg's `-profile:v`.
    pub vprofile: String,
    /// ffmpeg's `-preset`.
    pub vpreset: String,
    /// Options of the video encoder. SRS: `vparams`.
    pub vparams: Vec<String>,
    /// `copy`, `an` for none, or an encoder. SRS: `acodec`.
    pub acodec: String,
    /// kbit/s.
    pub abitrate: u32,
    /// Hz.
    pub asample_rate: u32,
    /// 1 or 2.
    pub achannels: u32,
    /// Options of the audio encoder. SRS: `aparams`.
    pub aparams: Vec<String>,
    /// The output's format, or `off`. SRS: `oformat`.
    pub oformat: String,
    /// Where to; `[vhost]`, `[port]`, `[app]`, `[stream]`, `[param]` and `[engine]` are filled in. SRS: `output`.
    pub output: String,
}

/// The blocks of a vhost, taken before it is known what is left.
pub(super) struct Blocks {
    exec: Vec<Directive>,
    transcode: Vec<Directive>,
    ingest: Vec<Directive>,
}

impl Blocks {
    pub(super) fn take(vhost: &mut Section<'_>) -> Self {
        let exec = vhost.block("exec").unwrap_or_default();
        Self { exec, transcode: vhost.blocks("transcode"), ingest: vhost.blocks("ingest") }
    }

    pub(super) fn load(self, loader: &mut Loader) -> Programs {
        let exec = load_exec(Section::new(Block::Exec, self.exec, loader));
        let transcode = self.transcode.into_iter().filter_map(|block| load_transcode(loader, block)).collect();
        for (at, block) in self.ingest.iter().enumerate() {
            let name = |block: &Directive| block.arguments.first().map(|word| word.text.clone());
            if let Some(word) = block.arguments.first()
                && self.ingest[..at].iter().any(|other| name(other) == name(block))
            {
                loader.fault(word, format!("`ingest {}` is there already", word.text), "choose another name");
            }
        }
        let ingest = self.ingest.into_iter().filter_map(|block| load_ingest(loader, block)).collect();
        Programs { exec, transcode, ingest }
    }
}

fn load_exec(mut section: Section<'_>) -> Vec<Vec<String>> {
    section.loader.explained.push(Line::Open("exec".to_owned()));
    let enabled = section.flag("enabled");
    let read = |words: &[&str]| (!words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect());
    let commands = section.rules("publish", read);
    section.loader.explained.push(Line::Close);
    section.finish();
    if enabled { commands } else { Vec::new() }
}

/// The name behind a block's own, and that of the block.
fn open(loader: &mut Loader, block: &Directive) -> String {
    let name = block.arguments.first().map(|word| word.text.clone()).unwrap_or_default();
    for word in block.arguments.iter().skip(1) {
        loader.fault(word, format!("`{}` takes one name", block.name.text), "remove it");
    }
    let head = if name.is_empty() { String::new() } else { format!(" {}", quoted(&name)) };
    loader.explained.push(Line::Open(format!("{}{head}", block.name.text)));
    name
}

fn load_transcode(loader: &mut Loader, block: Directive) -> Option<Transcode> {
    let scope = open(loader, &block);
    let at = block.name.clone();
    let mut section = Section::new(Block::Transcode, block.block.unwrap_or_default(), loader);
    let enabled = section.flag("enabled");
    let (ffmpeg, _) = section.path("ffmpeg");
    let engines = section.blocks("engine");
    section.finish();
    let engines: Vec<Engine> = engines.into_iter().map(|block| load_engine(loader, block)).collect();
    loader.explained.push(Line::Close);
    let engines: Vec<Engine> = engines.into_iter().filter(|engine| engine.enabled).collect();
    for engine in engines.iter().filter(|_| enabled) {
        check(loader, &at, engine);
        if engine.output.is_empty() {
            let help = "add `output rtmp://127.0.0.1:[port]/[app]/[stream]_[engine]?vhost=[vhost];`";
            loader.fault(&at, "an `engine` has no `output`", help);
        }
    }
    enabled.then_some(Transcode { scope, ffmpeg, engines })
}

fn check(loader: &mut Loader, at: &Word, engine: &Engine) {
    if engine.vcodec == "vn" && engine.acodec == "an" {
        loader.fault(at, "an `engine` has neither video nor audio", "change `vcodec vn` or `acodec an`");
    }
}

fn load_ingest(loader: &mut Loader, block: Directive) -> Option<Ingest> {
    let name = open(loader, &block);
    let at = block.name.clone();
    let mut section = Section::new(Block::Ingest, block.block.unwrap_or_default(), loader);
    let enabled = section.flag("enabled");
    let (ffmpeg, _) = section.path("ffmpeg");
    let input = section.block("input").unwrap_or_default();
    let engines = section.blocks("engine");
    section.finish();
    loader.explained.push(Line::Open("input".to_owned()));
    let mut section = Section::new(Block::IngestInput, input, loader);
    section.choice("type");
    let (input, _) = section.text("url");
    section.finish();
    loader.explained.push(Line::Close);
    let engines: Vec<Engine> = engines.into_iter().map(|block| load_engine(loader, block)).collect();
    loader.explained.push(Line::Close);
    if !enabled {
        return None;
    }
    if input.is_empty() {
        loader.fault(&at, "`ingest` has no `input`", "add `input { type file; url ./FILE.flv; }`");
    }
    if engines.iter().all(|engine| engine.output.is_empty()) {
        let help = "add `engine { output rtmp://127.0.0.1:[port]/live/livestream?vhost=[vhost]; }`";
        loader.fault(&at, "`ingest` has no `output`", help);
    }
    engines.iter().for_each(|engine| check(loader, &at, engine));
    let engines = engines.into_iter().filter(|engine| !engine.output.is_empty()).collect();
    Some(Ingest { name, input, ffmpeg, engines })
}

fn load_engine(loader: &mut Loader, block: Directive) -> Engine {
    let name = open(loader, &block);
    let mut section = Section::new(Block::Engine, block.block.unwrap_or_default(), loader);
    let engine = Engine {
        name,
        enabled: section.flag("enabled"),
        perfile: section.options("perfile"),
        iformat: section.text("iformat").0,
        vfilter: section.options("vfilter"),
        vcodec: section.text("vcodec").0,
        vbitrate: section.number("vbitrate"),
        vfps_hundredths: section.milliseconds("vfps") / 10,
        // An encoder's sizes are even.
        vwidth: section.number("vwidth") / 2 * 2,
        vheight: section.number("vheight") / 2 * 2,
        vthreads: section.number("vthreads"),
        vprofile: section.text("vprofile").0,
        vpreset: section.text("vpreset").0,
        vparams: section.options("vparams"),
        acodec: section.text("acodec").0,
        abitrate: section.number("abitrate"),
        asample_rate: section.number("asample_rate"),
        achannels: section.number("achannels"),
        aparams: section.options("aparams"),
        oformat: section.text("oformat").0,
        output: section.text("output").0,
    };
    section.finish();
    loader.explained.push(Line::Close);
    engine
}
