//! What is wrong with a configuration, drawn with its place.

use super::{
    place::{Place, Sources, Word},
    secrets::{hide_in_file, hide_in_urls},
};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::{cell::OnceCell, fmt};
use strsim::osa_distance;

/// As much of an unknown name as is compared with the known ones: the file decides how long it is.
const NAME_CHARS_MAX: usize = 64;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where; `None` if it stands nowhere.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Fault {
    pub(super) fn new(at: &Word, message: impl Into<String>) -> Self {
        Self::at(at.place.clone(), message)
    }

    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place: Some(place), message: message.into(), help: None }
    }

    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All faults of a configuration; displays each with file, line, column, the line itself (without secrets) and a fix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    sources: Sources,
    faults: Vec<Fault>,
    warnings: bool,
}

impl Faults {
    pub(super) fn new(sources: Sources, mut faults: Vec<Fault>, warnings: bool) -> Self {
        // In the order of the texts; what stands nowhere comes last.
        faults.sort_by_key(|fault| {
            fault.place.as_ref().map_or((usize::MAX, 0), |place| (place.source, place.span.start))
        });
        Self { sources, faults, warnings }
    }

    /// The faults in the order of the texts.
    pub fn list(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The text that a fault points at.
    pub fn text_of(&self, fault: &Fault) -> &str {
        let place = fault.place.as_ref();
        place.and_then(|place| self.sources.0.get(place.source)?.text.get(place.span.clone())).unwrap_or_default()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each text once, however many faults it has.
        let texts: Vec<OnceCell<String>> = self.sources.0.iter().map(|_| OnceCell::new()).collect();
        let level = if self.warnings { Level::WARNING } else { Level::ERROR };
        for (at, fault) in self.faults.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            let message = hide_in_urls(&fault.message);
            let title = level.clone().primary_title(&message);
            let source = fault.place.as_ref().and_then(|place| Some((place, self.sources.0.get(place.source)?)));
            let drawn = match source {
                Some((place, source)) => {
                    let mut annotation = AnnotationKind::Primary.span(place.span.clone());
                    if let Some(help) = &fault.help {
                        annotation = annotation.label(help);
                    }
                    let text = texts[place.source].get_or_init(|| hide_in_file(&source.text));
                    let snippet = Snippet::source(text.as_str()).path(&source.name).annotation(annotation);
                    Renderer::plain().render(&[title.element(snippet)])
                }
                None => {
                    let help = fault.help.as_deref().unwrap_or("see conf/full.conf");
                    Renderer::plain().render(&[title.element(Level::HELP.message(help))])
                }
            };
            f.write_str(&drawn)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The known name that `name` most likely means.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    let near = known.into_iter().map(|candidate| (osa_distance(&name, candidate), candidate)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}
