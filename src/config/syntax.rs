//! SRS's configuration syntax: `name args;`, `name args { … }`, `#` comments, quotes.

use super::{
    faults::Fault,
    place::{Place, Word},
    srs,
    table::KNOWN,
};
use std::{iter::Peekable, ops::Range};
use winnow::{
    LocatingSlice, ModalResult, Parser,
    combinator::{alt, delimited, repeat},
    token::{any, none_of, take_till, take_while},
};

/// Deepest nesting; SRS uses four.
const DEPTH_MAX: usize = 16;

/// A directive with its place.
#[derive(Clone, Debug)]
pub(super) struct Directive {
    pub(super) name: Word,
    pub(super) arguments: Vec<Word>,
    pub(super) block: Option<Vec<Self>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
    Space,
    /// A quote that does not close; it swallows the rest.
    Unclosed,
}

/// Splits a text into directives. What is broken is left out and said; the rest goes on.
pub(super) fn parse(source: usize, text: &str, faults: &mut Vec<Fault>) -> Vec<Directive> {
    let tokens: ModalResult<Vec<(Token, Range<usize>)>> =
        repeat(0.., token.with_span()).parse_next(&mut LocatingSlice::new(text));
    // Every text is tokens: each character begins one of the alternatives.
    let tokens = tokens.unwrap_or_default().into_iter().filter(|(token, _)| *token != Token::Space);
    Reader { tokens: tokens.peekable(), source, text, faults }.block(&mut Vec::new())
}

fn token(input: &mut LocatingSlice<&str>) -> ModalResult<Token> {
    let quoted = |quote: char| {
        let inner =
            repeat(0.., alt((("\\", any).map(|(_, c)| c), none_of([quote])))).fold(String::new, |mut text, c| {
                text.push(c);
                text
            });
        delimited(quote, inner, quote)
    };
    alt((
        take_while(1.., char::is_whitespace).value(Token::Space),
        ('#', take_till(0.., '\n')).value(Token::Space),
        ';'.value(Token::End),
        '{'.value(Token::Open),
        '}'.value(Token::Close),
        quoted('"').map(Token::Word),
        quoted('\'').map(Token::Word),
        (alt(('"', '\'')), take_till(0.., |_| false)).value(Token::Unclosed),
        take_till(1.., |c: char| c.is_whitespace() || ";{}\"'#".contains(c))
            .map(|word: &str| Token::Word(word.to_owned())),
    ))
    .parse_next(input)
}

struct Reader<'a, I: Iterator<Item = (Token, Range<usize>)>> {
    tokens: Peekable<I>,
    source: usize,
    text: &'a str,
    faults: &'a mut Vec<Fault>,
}

impl<I: Iterator<Item = (Token, Range<usize>)>> Reader<'_, I> {
    fn fault(&mut self, span: Range<usize>, message: impl Into<String>, help: &str) {
        self.faults.push(Fault::at(self.place(span), message).help(help));
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place { source: self.source, span }
    }

    fn word(&self, text: String, span: Range<usize>) -> Word {
        Word { text, place: self.place(span) }
    }

    fn unclosed(&mut self, span: &Range<usize>) {
        self.fault(span.start..span.start + 1, "this quote is never closed", "close it on the same line");
    }

    /// Directives up to the `}` of the innermost of the blocks that are `opened`, or the end of the text.
    fn block(&mut self, opened: &mut Vec<Range<usize>>) -> Vec<Directive> {
        let mut directives = Vec::new();
        loop {
            match self.tokens.next() {
                None => {
                    if let Some(open) = opened.last().cloned() {
                        self.fault(open, "this `{` is never closed", "add the missing `}`");
                    }
                    return directives;
                }
                Some((Token::Close, _)) if !opened.is_empty() => return directives,
                Some((Token::Close, span)) => {
                    self.fault(span, "this `}` closes nothing", "remove it, or add the missing `{`");
                }
                Some((Token::Word(text), span)) => {
                    let name = self.word(text, span);
                    directives.extend(self.directive(name, opened));
                }
                Some((Token::Unclosed, span)) => self.unclosed(&span),
                Some((Token::Open | Token::End | Token::Space, span)) => {
                    self.fault(span, "a directive's name is expected here", "remove this");
                }
            }
        }
    }

    /// What follows a name; `None` if it cannot be told.
    fn directive(&mut self, name: Word, opened: &mut Vec<Range<usize>>) -> Option<Directive> {
        let mut directive = Directive { name, arguments: Vec::new(), block: None };
        loop {
            if self.is_unended(&directive) {
                let last = directive.arguments.last().unwrap_or(&directive.name).place.span.end;
                let message = format!("`{}` is not ended", directive.name.text);
                let before = self.text.get(..last).and_then(|text| text.char_indices().next_back());
                self.fault(before.map_or(last, |(at, _)| at)..last, message, "add `;` behind this");
                return Some(directive);
            }
            match self.tokens.next() {
                Some((Token::Word(text), span)) => directive.arguments.push(self.word(text, span)),
                Some((Token::Open, span)) => {
                    if opened.len() >= DEPTH_MAX {
                        self.fault(span, format!("blocks nested deeper than {DEPTH_MAX}"), "close some of them");
                        // Nothing sensible can follow.
                        self.tokens.by_ref().for_each(drop);
                        opened.clear();
                        return None;
                    }
                    opened.push(span);
                    directive.block = Some(self.block(opened));
                    opened.pop();
                    return Some(directive);
                }
                Some((Token::Unclosed, span)) => {
                    self.unclosed(&span);
                    return None;
                }
                Some((Token::End | Token::Close | Token::Space, _)) | None => return Some(directive),
            }
        }
    }

    /// Whether what comes next says that the `;` was forgotten: a brace, the end, or the name of a directive
    /// at the beginning of a line.
    fn is_unended(&mut self, directive: &Directive) -> bool {
        let end = directive.arguments.last().unwrap_or(&directive.name).place.span.end;
        match self.tokens.peek() {
            None | Some((Token::Close, _)) => true,
            Some((Token::Word(word), span)) => {
                let new_line = self.text.get(end..span.start).is_some_and(|between| between.contains('\n'));
                new_line && is_directive(word)
            }
            Some((Token::End | Token::Open | Token::Unclosed | Token::Space, _)) => false,
        }
    }
}

/// Whether some block has a directive of this name.
fn is_directive(word: &str) -> bool {
    let blocks = ["rtmp", "rtmps", "vhost", "publish", "play", "include"];
    blocks.contains(&word)
        || KNOWN.iter().any(|known| known.name == word)
        || srs::MISSING.iter().any(|missing| missing.name == word)
        || srs::ACCEPTED.iter().any(|(_, name, _)| *name == word)
}
