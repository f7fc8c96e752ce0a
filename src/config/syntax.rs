//! SRS's configuration syntax: `name args;`, `name args { … }`, `#` comments, quotes.

use super::Fault;
use std::ops::Range;
use winnow::{
    LocatingSlice, ModalResult, Parser,
    ascii::multispace1,
    combinator::{alt, delimited, repeat},
    token::{any, none_of, take_till},
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

/// A word and the bytes of the text that it stands in.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) span: Range<usize>,
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

/// Splits a text into directives.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, Vec<Fault>> {
    let tokens: Vec<(Token, Range<usize>)> = repeat(0.., token.with_span())
        .parse(LocatingSlice::new(text))
        .map_err(|error| vec![Fault::new(error.offset()..error.offset() + 1, "cannot be read")])?;
    let mut tokens = tokens.into_iter().filter(|(token, _)| *token != Token::Space).peekable();
    let directives = block(&mut tokens, None, text.len()).map_err(|fault| vec![fault])?;
    Ok(directives)
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
        multispace1.value(Token::Space),
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

/// Directives up to `}` (of the block that opened at `opened`) or the end of the text.
fn block<I: Iterator<Item = (Token, Range<usize>)>>(
    tokens: &mut std::iter::Peekable<I>,
    opened: Option<&[Range<usize>]>,
    end: usize,
) -> Result<Vec<Directive>, Fault> {
    let mut directives = Vec::new();
    loop {
        match tokens.next() {
            None => {
                return match opened.and_then(<[_]>::last) {
                    None => Ok(directives),
                    Some(open) => Err(Fault::new(open.clone(), "this `{` is never closed").help("add the missing `}`")),
                };
            }
            Some((Token::Close, span)) => {
                return if opened.is_some() {
                    Ok(directives)
                } else {
                    Err(Fault::new(span, "this `}` closes nothing").help("remove it, or add the missing `{`"))
                };
            }
            Some((Token::Word(text), span)) => {
                directives.push(directive(Word { text, span }, tokens, opened.unwrap_or_default(), end)?);
            }
            Some((Token::Unclosed, span)) => {
                return Err(Fault::new(span.start..span.start + 1, "this quote is never closed"));
            }
            Some((_, span)) => return Err(Fault::new(span, "a directive's name is expected here")),
        }
    }
}

fn directive<I: Iterator<Item = (Token, Range<usize>)>>(
    name: Word,
    tokens: &mut std::iter::Peekable<I>,
    opened: &[Range<usize>],
    end: usize,
) -> Result<Directive, Fault> {
    let mut arguments: Vec<Word> = Vec::new();
    loop {
        match tokens.next() {
            Some((Token::Word(text), span)) => arguments.push(Word { text, span }),
            Some((Token::End, _)) => return Ok(Directive { name, arguments, block: None }),
            Some((Token::Open, span)) => {
                if opened.len() >= DEPTH_MAX {
                    return Err(Fault::new(span, format!("blocks nested deeper than {DEPTH_MAX}")));
                }
                let opened = [opened, &[span]].concat();
                let block = Some(block(tokens, Some(&opened), end)?);
                return Ok(Directive { name, arguments, block });
            }
            Some((Token::Unclosed, span)) => {
                return Err(Fault::new(span.start..span.start + 1, "this quote is never closed"));
            }
            Some((Token::Close | Token::Space, _)) | None => {
                let last = arguments.last().unwrap_or(&name).span.end;
                let message = format!("`{}` is not ended", name.text);
                return Err(Fault::new(last..(last + 1).min(end.max(last)), message).help("add `;` here"));
            }
        }
    }
}
