//! A log line's message and fields: what peers have put in them stays one line, bounded, and inside its own field.

use std::fmt::{self, Debug, Write as _};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

/// Most bytes of one field; a stream's name may have 1 KiB.
const FIELD_BYTES_MAX: usize = 4096;
/// Most bytes of a message: a configuration's fault shows its line.
const MESSAGE_BYTES_MAX: usize = 8192;
/// How lines begin that hold nothing of a peer's, and in which `name=value` is meant: sums, and the configuration.
const OWN: [&str; 2] = ["totals: ", "reload: "];

/// Writes fields as `name=value`; a value with a space, `=`, a quote or anything that is not seen stands in quotes.
#[derive(Debug)]
pub(crate) struct SafeFields;

impl<'writer> FormatFields<'writer> for SafeFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, started: false, outcome: Ok(()) };
        fields.record(&mut line);
        line.outcome
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    started: bool,
    outcome: fmt::Result,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.outcome.is_err() {
            return;
        }
        let is_message = field.name() == "message";
        let mut text =
            Bounded { text: String::new(), most: if is_message { MESSAGE_BYTES_MAX } else { FIELD_BYTES_MAX } };
        // It fails where the bound is reached.
        let whole = write!(text, "{value:?}").is_ok();
        let (text, gap) = (text.text, if std::mem::replace(&mut self.started, true) { " " } else { "" });
        let shown = if is_message { message(&text) } else { format!("{}={}", field.name(), quoted(&text)) };
        self.outcome = write!(self.writer, "{gap}{shown}{}", if whole { "" } else { "..." });
    }
}

/// Text that ends where it would become too long.
struct Bounded {
    text: String,
    most: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.most.saturating_sub(self.text.len()).min(more.len());
        let fits = (0..=room).rev().find(|end| more.is_char_boundary(*end)).unwrap_or(0);
        self.text.push_str(&more[..fits]);
        if fits == more.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// What a terminal or a reader of lines would take for something else.
fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

fn escape(char: char, into: &mut String) {
    into.extend(char.escape_default());
}

/// A message on one line, in which no word looks like a field.
fn message(text: &str) -> String {
    let own = OWN.iter().any(|start| text.starts_with(start));
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '=' if !own => shown.push_str("\\u{3d}"),
            char if is_unseen(char) => escape(char, &mut shown),
            char => shown.push(char),
        }
    }
    shown
}

/// A field's value, in quotes unless it is one plain word.
fn quoted(text: &str) -> String {
    let is_odd = |char: char| char.is_whitespace() || is_unseen(char) || matches!(char, '=' | '"' | '\\');
    if is_string(text) || !text.is_empty() && !text.contains(is_odd) {
        return text.to_owned();
    }
    let mut shown = "\"".to_owned();
    for char in text.chars() {
        match char {
            '"' | '\\' => shown.extend(['\\', char]),
            char if is_unseen(char) => escape(char, &mut shown),
            char => shown.push(char),
        }
    }
    shown.push('"');
    shown
}

/// Whether a text stands in quotes already, whole, as `Debug` writes a string.
fn is_string(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut chars = inside.chars();
    while let Some(char) = chars.next() {
        if char == '"' || is_unseen(char) || char == '\\' && chars.next().is_none() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(SafeFields)
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_plain_stays_so() {
        let peer: std::net::SocketAddr = "[::1]:80".parse().unwrap();
        let line = logged(|| tracing::info!(%peer, count = 3, name = "a b", "a message: `x` is \"y\""));
        assert_eq!(line, " INFO a message: `x` is \"y\" peer=[::1]:80 count=3 name=\"a b\"\n");
        assert_eq!(logged(|| tracing::info!("totals: a=1 b=2")), " INFO totals: a=1 b=2\n");
    }

    /// A peer's text neither ends a line, nor a field, nor moves a cursor, nor fills the disk.
    #[test]
    fn nothing_is_forged() {
        let stream = "s\n2026 INFO publish peer=10.0.0.1\u{1b}[2J\r\u{202e}";
        let line = logged(|| tracing::info!(stream = %stream, stream, "refused: {stream}"));
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(!line.contains(['\r', '\u{1b}', '\u{202e}']), "{line:?}");
        assert!(line.contains("stream=\"s\\n2026 INFO publish peer=10.0.0.1"), "{line}");
        assert!(line.starts_with(" INFO refused: s\\n2026 INFO publish peer\\u{3d}10.0.0.1"), "{line}");
        for forged in ["\" peer=1", "a\" peer=\"1", "\"a\" peer=\"1\"", "\\\" peer=1", ""] {
            let line = logged(|| tracing::info!(stream = %forged, last = 1, "m"));
            let inside = line.strip_prefix(" INFO m stream=").and_then(|rest| rest.strip_suffix(" last=1\n")).unwrap();
            assert!(is_string(inside), "{line}");
        }
        let long = "\u{e9}".repeat(100_000);
        let line = logged(|| tracing::info!(stream = %long, long, "m {long}"));
        assert!(line.len() < MESSAGE_BYTES_MAX + 2 * FIELD_BYTES_MAX + 100, "{}", line.len());
    }
}
