//! One block's directives, taken one by one: the variable of the environment, else the file's, else the
//! default. What is left in the end is unknown.

use super::{
    HookUrl, Listen, Service,
    directives::{Block, Known, Values},
    explain::{Line, Origin, quoted},
    faults::{Fault, nearest},
    place::{Place, Sources, Word},
    srs::{ACCEPTED, MISSING, Missing},
    syntax::Directive,
    table::{KNOWN, known, parent_of},
};
use crate::proto::http::url::HttpUrl;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// What loading finds, beside the configuration itself.
#[derive(Debug, Default)]
pub(super) struct Loader {
    pub(super) sources: Sources,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// The environment's variables, as directives with the variable's name.
    pub(super) variables: Vec<Directive>,
    pub(super) explained: Vec<Line>,
    /// Files read so far.
    pub(super) files: Vec<PathBuf>,
    /// Where includes and `work_dir` count from; empty is the working directory.
    pub(super) directory: PathBuf,
    /// Where other relative paths count from.
    pub(super) work_dir: PathBuf,
    /// Directives of SRS that we do not have are left out with a warning.
    pub(super) lenient: bool,
}

impl Loader {
    pub(super) fn fault(&mut self, at: &Word, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(Fault::new(at, message).help(help));
    }

    /// What is not built yet: a fault, or, with `--lenient`, a warning.
    pub(super) fn unsupported(&mut self, at: &Word, message: String, instead: &str) {
        let fault = Fault::new(at, message);
        if self.lenient {
            self.warnings.push(fault.help("ignored"));
        } else {
            self.faults.push(fault.help(format!("{instead}, or run with --lenient")));
        }
    }

    /// Refuses names in a block of SRS's that SRS does not know either: `enabled` may be misspelt.
    fn look_into(&mut self, missing: &Missing, directive: &Directive) {
        for inside in directive.block.iter().flatten() {
            let name = &inside.name;
            if missing.names.contains(&name.text.as_str()) {
                continue;
            }
            let help = match nearest(&name.text, missing.names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", missing.names.join(", ")),
            };
            self.fault(name, format!("`{}` is not known in `{}`", name.text, missing.name), help);
        }
    }

    /// The variable that overrides a directive. Two with different values are a fault.
    fn variable(&mut self, known: &Known) -> Option<Directive> {
        let names = known.variables();
        let set: Vec<Directive> = self.variables.iter().filter(|set| names.contains(&set.name.text)).cloned().collect();
        let texts =
            |directive: &Directive| directive.arguments.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
        if let [first, second, ..] = &set[..]
            && texts(first) != texts(second)
        {
            let message = format!("{} and {} are both set, and differ", first.name.text, second.name.text);
            self.fault(&second.name, message, "unset one of the two");
        }
        set.into_iter().next()
    }
}

/// See the module.
pub(super) struct Section<'l> {
    block: Block,
    directives: Vec<Directive>,
    taken: Vec<&'static str>,
    pub(super) loader: &'l mut Loader,
}

impl<'l> Section<'l> {
    pub(super) fn new(block: Block, directives: Vec<Directive>, loader: &'l mut Loader) -> Self {
        Self { block, directives, taken: Vec::new(), loader }
    }

    /// The block's name.
    pub(super) fn name(&self) -> &'static str {
        self.block.name()
    }

    /// All of the file's directives called `name`.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<Directive> {
        self.taken.push(name);
        self.directives.iter().filter(|directive| directive.name.text == name).cloned().collect()
    }

    /// The one directive called `name`.
    fn one(&mut self, name: &'static str) -> Option<Directive> {
        let found = self.all(name);
        for double in found.iter().skip(1) {
            let message = format!("`{name}` is set twice");
            if name == "http_remux" {
                self.loader.fault(&double.name, message, "merge the two");
            } else {
                let fault = Fault::new(&double.name, message);
                self.loader.warnings.push(fault.help("the first counts, as with SRS; remove one of the two"));
            }
        }
        found.into_iter().next()
    }

    /// The word that sets a directive, and where it comes from; `None` leaves it at its default.
    fn word(&mut self, known: &'static Known) -> Option<(Word, Origin)> {
        let in_file = self.one(known.name);
        let (directive, origin) = match self.loader.variable(known) {
            Some(variable) => {
                let origin = Origin::Variable(variable.name.text.clone());
                (variable, origin)
            }
            None => {
                let directive = in_file?;
                let origin = Origin::Line(self.loader.sources.line_of(&directive.name.place));
                (directive, origin)
            }
        };
        let (name, allowed) = (known.name, known.values.allowed());
        let at = match (&directive.arguments[..], &directive.block) {
            ([argument], None) => return Some((argument.clone(), origin)),
            (_, Some(_)) => (&directive.name, format!("`{name}` takes no block")),
            ([], None) => (&directive.name, format!("`{name}` needs a value")),
            ([_, second, ..], None) => (second, format!("`{name}` takes one value")),
        };
        self.loader.fault(at.0, at.1, allowed);
        None
    }

    /// Takes a directive: `read` turns its word into a value, `None` if it is no such thing.
    fn take<T>(
        &mut self,
        name: &'static str,
        default: &str,
        read: impl Fn(&Values, &str) -> Option<T>,
    ) -> Option<(T, Option<Word>)> {
        let Some(known) = known(self.block, name) else { unreachable!("{name} is not in the table") };
        let word = self.word(known);
        let (text, origin, word) = match word {
            Some((word, origin)) => (word.text.clone(), origin, Some(word)),
            None => (default.to_owned(), Origin::Default, None),
        };
        let value = read(&known.values, &text);
        if let (None, Some(word)) = (&value, &word) {
            let (message, help) = if known.values == Values::Flag {
                (format!("`{text}` is neither `on` nor `off`"), format!("the default is `{default}`"))
            } else {
                (format!("`{text}` is no value for `{name}`"), known.values.allowed())
            };
            self.loader.fault(word, message, help);
        }
        self.loader.explained.push(Line::Value { known, text, origin });
        // A fault is said; what is loaded does not matter any more.
        value.or_else(|| read(&known.values, default)).map(|value| (value, word))
    }

    /// The table's default.
    pub(super) fn default_of(&self, name: &str) -> &'static str {
        known(self.block, name).map_or("", |known| known.default)
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.flag_at(name).0
    }

    /// A flag, and the word that sets it.
    pub(super) fn flag_at(&mut self, name: &'static str) -> (bool, Option<Word>) {
        let read = |_: &Values, text: &str| match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        self.take(name, self.default_of(name), read).unwrap_or((false, None))
    }

    pub(super) fn number(&mut self, name: &'static str) -> u32 {
        self.number_at(name).0
    }

    /// A number, and the word that sets it.
    pub(super) fn number_at(&mut self, name: &'static str) -> (u32, Option<Word>) {
        self.number_or(name, self.default_of(name))
    }

    /// A number whose default depends on other directives, and the word that sets it.
    pub(super) fn number_or(&mut self, name: &'static str, default: &str) -> (u32, Option<Word>) {
        self.take(name, default, read_number).map_or((0, None), |(number, word)| (number.unwrap_or(0), word))
    }

    /// A number, or `None` for `auto`.
    pub(super) fn number_or_auto(&mut self, name: &'static str, default: &str) -> Option<u32> {
        self.take(name, default, read_number).and_then(|(number, _)| number)
    }

    /// A number with a fraction, rounded up.
    pub(super) fn rounded_up(&mut self, name: &'static str) -> u32 {
        let read = |values: &Values, text: &str| {
            let Values::Decimal(_, range) = values else { return None };
            let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
            let whole = number.ceil() as u32;
            range.contains(&whole).then_some(whole)
        };
        self.take(name, self.default_of(name), read).map_or(0, |(number, _)| number)
    }

    /// Seconds with a fraction, in ms.
    pub(super) fn milliseconds(&mut self, name: &'static str) -> u32 {
        let read = |values: &Values, text: &str| {
            let Values::Decimal(_, range) = values else { return None };
            let allowed = f64::from(*range.start())..=f64::from(*range.end());
            let seconds: f64 = text.parse().ok().filter(|seconds| allowed.contains(seconds))?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
            Some((seconds * 1000.0) as u32)
        };
        self.take(name, self.default_of(name), read).map_or(0, |(number, _)| number)
    }

    /// Which of the directive's words is set.
    pub(super) fn choice(&mut self, name: &'static str) -> (String, Option<Word>) {
        let read = |values: &Values, text: &str| match values {
            Values::Word(words) => words.contains(&text).then(|| text.to_owned()),
            Values::Path => (!text.is_empty()).then(|| text.to_owned()),
            Values::Text(_) | Values::Secret(_) => Some(text.to_owned()),
            Values::Flag
            | Values::Number(..)
            | Values::NumberOrAuto(..)
            | Values::Decimal(..)
            | Values::Mounts
            | Values::Addresses
            | Values::Urls
            | Values::Domains
            | Values::Networks
            | Values::Destinations
            | Values::Servers
            | Values::Streams
            | Values::Variants
            | Values::Rules
            | Values::Command
            | Values::Options => None,
        };
        self.take(name, self.default_of(name), read).unwrap_or_default()
    }

    /// Any text, and the word that sets it.
    pub(super) fn text(&mut self, name: &'static str) -> (String, Option<Word>) {
        self.choice(name)
    }

    /// The words of a directive that takes several, each with what `read` makes of it; `None` is a fault.
    pub(super) fn words<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(known) = known(self.block, name) else { unreachable!("{name} is not in the table") };
        let in_file = self.one(name);
        let Some(directive) = self.loader.variable(known).or(in_file) else {
            let text = self.default_of(name);
            self.loader.explained.push(Line::Value { known, text: text.to_owned(), origin: Origin::Default });
            return text.split_whitespace().filter_map(read).collect();
        };
        if directive.arguments.is_empty() || directive.block.is_some() {
            self.loader.fault(&directive.name, format!("`{name}` needs a value"), known.values.allowed());
        }
        let mut values = Vec::new();
        for word in &directive.arguments {
            match read(&word.text) {
                Some(value) => values.push(value),
                None => {
                    let message = format!("`{}` is no value for `{name}`", word.text);
                    self.loader.fault(word, message, known.values.allowed());
                }
            }
        }
        self.explain(known, &directive);
        values
    }

    /// The arguments of all directives called `name`, in order; what `read` makes nothing of is a fault.
    pub(super) fn rules<T>(&mut self, name: &'static str, read: impl Fn(&[&str]) -> Option<T>) -> Vec<T> {
        let Some(known) = known(self.block, name) else { unreachable!("{name} is not in the table") };
        let mut rules = Vec::new();
        for directive in self.all(name) {
            let words: Vec<&str> = directive.arguments.iter().map(|word| word.text.as_str()).collect();
            match read(&words) {
                Some(rule) => rules.push(rule),
                None => {
                    let message = format!("`{}` is no value for `{name}`", words.join(" "));
                    self.loader.fault(&directive.name, message, known.values.allowed());
                }
            }
            self.explain(known, &directive);
        }
        rules
    }

    /// A block of another program's options, each with its value: as that program takes them, with a dash.
    pub(super) fn options(&mut self, name: &'static str) -> Vec<String> {
        let Some(known) = known(self.block, name) else { unreachable!("{name} is not in the table") };
        let block = self.block(name).unwrap_or_default();
        let mut options = Vec::new();
        for option in &block {
            let text = &option.name.text;
            options.push(if text.starts_with('-') { text.clone() } else { format!("-{text}") });
            options.extend(option.arguments.first().map(|word| word.text.clone()).filter(|text| !text.is_empty()));
            if let Some(word) = option.arguments.get(1) {
                self.loader.fault(word, "an option takes one value", "quote it, or remove this");
            }
            if option.block.is_some() {
                self.loader.fault(&option.name, "an option takes no block", known.values.allowed());
            }
        }
        if !block.is_empty() {
            let place = &block[0].name.place;
            let origin = Origin::Line(self.loader.sources.line_of(place));
            self.loader.explained.push(Line::Value { known, text: options.join(" "), origin });
        }
        options
    }

    /// Says what is in effect of a directive with several words, and where that comes from.
    fn explain(&mut self, known: &'static Known, directive: &Directive) {
        let texts: Vec<String> = directive.arguments.iter().map(|word| quoted(&word.text)).collect();
        let origin = match known.variables().contains(&directive.name.text) {
            true => Origin::Variable(directive.name.text.clone()),
            false => Origin::Line(self.loader.sources.line_of(&directive.name.place)),
        };
        self.loader.explained.push(Line::Value { known, text: texts.join(" "), origin });
    }

    /// A file's path, and the word that sets it.
    pub(super) fn path(&mut self, name: &'static str) -> (String, Option<Word>) {
        self.choice(name)
    }

    /// The endpoints of all `listen` directives; a bare port is on `host`.
    pub(super) fn listen(&mut self, service: Service, tls: bool, host: Ipv4Addr) -> Vec<(Listen, Word)> {
        let Some(known) = known(self.block, "listen") else { return Vec::new() };
        let in_file = self.all("listen");
        let directives = self.loader.variable(known).map_or(in_file, |variable| vec![variable]);
        let mut endpoints: Vec<(Listen, Word)> = Vec::new();
        if let (true, Some(address)) = (directives.is_empty(), parse_address(known.default, host)) {
            let text = known.default.to_owned();
            self.loader.explained.push(Line::Value { known, text: text.clone(), origin: Origin::Default });
            let listen = Listen { address, proxy_protocol: false, tls, service };
            endpoints.push((listen, Word { text, place: Place { source: 0, span: 0..0 } }));
        }
        for directive in directives {
            let (words, addresses): (Vec<&Word>, Vec<&Word>) =
                directive.arguments.iter().partition(|word| word.text == "proxy_protocol");
            if addresses.is_empty() || directive.block.is_some() {
                self.loader.fault(&directive.name, "`listen` needs an address", known.values.allowed());
            }
            for word in addresses {
                match parse_address(&word.text, host) {
                    Some(address)
                        if endpoints.iter().any(|(known, _)| known.address == address && address.port() != 0) =>
                    {
                        self.loader.fault(word, format!("{address} is listened on already"), "remove one of the two");
                    }
                    Some(_) if !words.is_empty() && !matches!(service, Service::Rtmp | Service::Http) => {
                        let help = "it is for RTMP and `http_server`";
                        self.loader.fault(words[0], "`proxy_protocol` does not work here", help);
                    }
                    Some(address) => {
                        let listen = Listen { address, proxy_protocol: !words.is_empty(), tls, service };
                        endpoints.push((listen, word.clone()));
                    }
                    None => {
                        let message = format!("`{}` is no address to listen on", word.text);
                        self.loader.fault(word, message, known.values.allowed());
                    }
                }
            }
            self.explain(known, &directive);
        }
        endpoints
    }

    /// The one block called `name`, if the file has it.
    pub(super) fn block(&mut self, name: &'static str) -> Option<Vec<Directive>> {
        let directive = self.one(name)?;
        if directive.block.is_none() {
            self.loader.fault(&directive.name, format!("`{name}` needs a block"), format!("write `{name} {{ … }}`"));
        } else if let Some(argument) = directive.arguments.first() {
            self.loader.fault(argument, format!("`{name}` takes no value"), "remove it");
        }
        Some(directive.block.unwrap_or_default())
    }

    /// All blocks called `name`.
    pub(super) fn blocks(&mut self, name: &'static str) -> Vec<Directive> {
        let blocks = self.all(name);
        for directive in blocks.iter().filter(|directive| directive.block.is_none()) {
            self.loader.fault(
                &directive.name,
                format!("`{name}` needs a block"),
                format!("write `{name} NAME {{ … }}`"),
            );
        }
        blocks
    }

    /// Refuses whatever has not been asked for.
    pub(super) fn finish(self) {
        for directive in &self.directives {
            let name = &directive.name;
            if self.taken.contains(&name.text.as_str()) {
                continue;
            }
            let accepted = ACCEPTED.iter().find(|(block, known, _)| *block == self.block && *known == name.text);
            if let Some((.., instead)) = accepted {
                let fault = Fault::new(name, format!("`{}` is SRS's and changes nothing", name.text));
                self.loader.warnings.push(fault.help(*instead));
                continue;
            }
            if let Some(missing) = Missing::find(self.block, &name.text) {
                if asks_for_nothing(directive) {
                    self.loader.look_into(missing, directive);
                } else {
                    let message = format!("`{}` is SRS's and not supported: {}", name.text, missing.capability);
                    self.loader.unsupported(name, message, "remove it");
                }
                continue;
            }
            let place = if self.block == Block::Top {
                "at the top level".to_owned()
            } else {
                format!("in `{}`", self.block.name())
            };
            let message = format!("`{}` is not known {place}", name.text);
            // The name may be right and stand in the wrong block.
            let known = KNOWN.iter().find(|known| known.name == name.text).map(|known| known.block);
            let missing = || MISSING.iter().find(|missing| missing.name == name.text).map(|missing| missing.parent);
            let elsewhere = known.or_else(missing).or_else(|| parent_of(&name.text));
            let help = match (nearest(&name.text, self.taken.iter().copied()), elsewhere) {
                (_, Some(Block::Top)) => "it belongs at the top level".to_owned(),
                (_, Some(block)) => format!("it belongs in `{}`", block.name()),
                (Some(near), None) => format!("did you mean `{near}`?"),
                (None, None) => format!("known here: {}", self.taken.join(", ")),
            };
            self.loader.fault(name, message, help);
        }
    }
}

/// Whether a block that is not built is written down and off.
fn asks_for_nothing(directive: &Directive) -> bool {
    let on = |directive: &Directive| {
        let value = directive.arguments.first().map_or("", |word| word.text.as_str());
        match directive.name.text.as_str() {
            "enabled" => value == "on",
            _ => false,
        }
    };
    match &directive.block {
        None => directive.arguments.iter().map(|word| word.text.as_str()).eq(["off"]),
        Some(inside) => !inside.iter().any(on),
    }
}

fn read_number(values: &Values, text: &str) -> Option<Option<u32>> {
    if let (Values::NumberOrAuto(..), "auto") = (values, text) {
        return Some(None);
    }
    let (Values::Number(_, range) | Values::NumberOrAuto(_, range)) = values else { return None };
    text.parse().ok().filter(|number| range.contains(number)).map(Some)
}

/// `http[s]://host[:port]/path`.
pub(super) fn url(text: &str) -> Option<HookUrl> {
    HttpUrl::read(text).map(Arc::new)
}

/// `[ip:]port`; a bare port is on `host`.
pub(super) fn parse_address(text: &str, host: Ipv4Addr) -> Option<SocketAddr> {
    let bare = text.parse().ok().map(|port: u16| SocketAddr::from((host, port)));
    bare.or_else(|| text.parse().ok())
}
