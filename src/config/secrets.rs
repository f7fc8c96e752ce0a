//! What of a configuration's text is not for everybody's eyes: it is shown as so many asterisks.

use super::{
    directives::{Known, Values},
    table::KNOWN,
};
use std::ops::Range;

/// What a URL's query says that is no secret.
const PUBLIC: [&str; 2] = ["vhost", "domain"];

/// Hides names, passwords and what queries say of URLs. What remains stands where it stood.
pub(super) fn hide_in_urls(text: &str) -> String {
    let mut hidden = text.to_owned();
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let start = from + found + "://".len();
        let ends = |c: char| c.is_whitespace() || "\"';{}`".contains(c);
        let end = text[start..].find(ends).map_or(text.len(), |length| start + length);
        let url = &text[start..end];
        let authority = &url[..url.find(['/', '?']).unwrap_or(url.len())];
        authority.rfind('@').into_iter().for_each(|at| hide(&mut hidden, start..start + at));
        let mut at = url.find('?').map_or(end, |at| start + at + 1);
        for pair in text[at..end].split('&') {
            match pair.split_once('=') {
                Some((name, _)) if PUBLIC.contains(&name) => {}
                named => hide(&mut hidden, at + named.map_or(0, |(name, _)| name.len() + 1)..at + pair.len()),
            }
            at += pair.len() + 1;
        }
        from = end;
    }
    hidden
}

/// The same of a file's text, and the values of directives that are secret, whether or not it can be read as a whole.
pub(super) fn hide_in_file(text: &str) -> String {
    let mut hidden = hide_in_urls(text);
    // The blocks around, and the statement's first word.
    let (mut blocks, mut name): (Vec<&str>, Option<&str>) = (Vec::new(), None);
    let mut at = 0;
    while let Some(char) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match char {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '{' => {
                blocks.push(name.take().unwrap_or_default());
                1
            }
            '}' => {
                blocks.pop();
                name = None;
                1
            }
            ';' => {
                name = None;
                1
            }
            char if char.is_whitespace() => char.len_utf8(),
            _ => {
                let length = word_length(rest);
                match name {
                    None => name = Some(&rest[..length]),
                    Some(name) if is_secret(name, blocks.last().copied()) => hide(&mut hidden, at..at + length),
                    Some(_) => {}
                }
                length
            }
        };
        at += length;
    }
    hidden
}

/// Bytes of a word: a quote that is not closed takes the rest of its line.
fn word_length(rest: &str) -> usize {
    match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let line = rest.find('\n').unwrap_or(rest.len());
            rest[1..line].find(quote).map_or(line, |length| length + 2)
        }
        _ => rest.find(|c: char| c.is_whitespace() || ";{}".contains(c)).unwrap_or(rest.len()),
    }
}

fn is_secret(name: &str, block: Option<&str>) -> bool {
    let is = |known: &&Known| known.name == name && Some(known.block.name()) == block;
    KNOWN.iter().filter(is).any(|known| matches!(known.values, Values::Secret(_)))
}

fn hide(text: &mut String, range: Range<usize>) {
    let length = range.len();
    text.replace_range(range, &"*".repeat(length));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_what_is_public() {
        for (text, expected) in [
            ("http://u:pw@h/x?token=t rtmp://h/a", "http://****@h/x?token=* rtmp://h/a"),
            ("\"rtmp://h/a?k=t\";", "\"rtmp://h/a?k=*\";"),
            ("rtmp://h/a?vhost=v&sign=12&x&domain=", "rtmp://h/a?vhost=v&sign=**&*&domain="),
            ("a://é@h", "a://**@h"),
            ("://@?", "://@?"),
            ("http://h/a@b", "http://h/a@b"),
            ("://", "://"),
        ] {
            assert_eq!(hide_in_urls(text), expected);
        }
    }

    #[test]
    fn secret_values_are_hidden_where_they_are_secret() {
        let text = "http_api { auth { enabled on; username a; password p; token 'x;y'; # password q\n} https { key k; } }\n\
                    vhost v { signed_url { key s t; } transcode { key u; } }\nhttp_api { auth { password \"half; } }\n}";
        let hidden = "http_api { auth { enabled on; username a; password *; token *****; # password q\n} https { key k; } }\n\
                    vhost v { signed_url { key * *; } transcode { key u; } }\nhttp_api { auth { password **********\n}";
        assert_eq!(hide_in_file(text), hidden);
        for odd in ["", "}", "{{{", "\"", "é", "password", "auth { password"] {
            assert_eq!(hide_in_file(odd), odd);
        }
    }
}
