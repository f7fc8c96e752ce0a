//! Places in the texts of a configuration.

use std::ops::Range;

/// A text with a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// Bytes of a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Which text, in the order that they were read.
    pub source: usize,
    /// Which bytes of it.
    pub span: Range<usize>,
}

/// All texts of one configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Sources(pub(super) Vec<Source>);

impl Sources {
    /// Adds a text; returns its number.
    pub(super) fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        self.0.push(Source { name: name.into(), text: text.into() });
        self.0.len() - 1
    }

    /// `file:line` of a place.
    pub(super) fn line_of(&self, place: &Place) -> String {
        let Some(Source { name, text }) = self.0.get(place.source) else { return String::new() };
        let before = text.get(..place.span.start).unwrap_or_default();
        format!("{name}:{}", before.matches('\n').count() + 1)
    }
}

/// A word and the bytes that it stands in.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}
