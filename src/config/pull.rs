//! A vhost's `pull` blocks: streams that are fetched as long as the server runs. Ours.

use super::{
    directives::Block,
    explain::{Line, quoted},
    section::{Loader, Section},
    syntax::Directive,
};
use crate::proto::{http::HttpUrl, rtmp::url::RtmpUrl};

/// A stream, and where it is to be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pull {
    /// The app here.
    pub app: String,
    /// The stream's name here.
    pub stream: String,
    /// `rtmp[s]://…` or `http[s]://….flv`, tried in turn.
    pub urls: Vec<String>,
}

/// All of a vhost.
pub(super) fn load(loader: &mut Loader, blocks: Vec<Directive>) -> Vec<Pull> {
    let mut pulls: Vec<Pull> = Vec::new();
    for block in blocks {
        let at = block.arguments.first().cloned();
        let name = at.as_ref().map_or("", |word| word.text.as_str()).to_owned();
        for word in block.arguments.iter().skip(1) {
            loader.fault(word, "`pull` takes one name", "remove it");
        }
        loader.explained.push(Line::Open(format!("pull {}", quoted(&name))));
        let mut section = Section::new(Block::Pull, block.block.unwrap_or_default(), loader);
        let enabled = section.flag("enabled");
        let faults = section.loader.faults.len();
        let urls = section.words("url", url);
        let sound = section.loader.faults.len() == faults;
        section.finish();
        loader.explained.push(Line::Close);
        if name.is_empty() && urls.is_empty() && sound {
            // As it stands in a list of everything.
            continue;
        }
        let split = name.rsplit_once('/').filter(|(app, stream)| !app.is_empty() && !stream.is_empty());
        let Some((app, stream)) = split.filter(|_| !name.contains(['?', ' ', '\\'])) else {
            let word = at.unwrap_or(block.name);
            loader.fault(&word, "`pull` names no stream", "write `pull APP/STREAM { url rtmp://…; }`");
            continue;
        };
        if urls.is_empty() && sound {
            loader.fault(
                &block.name,
                "`pull` has no `url`",
                "add `url rtmp://HOST/APP/STREAM;` or `url http://HOST/APP/STREAM.flv;`",
            );
        }
        if pulls.iter().any(|pull| (&*pull.app, &*pull.stream) == (app, stream)) {
            loader.fault(&block.name, format!("`pull {name}` is there already"), "merge the two");
        }
        if enabled {
            pulls.push(Pull { app: app.to_owned(), stream: stream.to_owned(), urls });
        }
    }
    pulls
}

/// RTMP's or HTTP-FLV's.
fn url(text: &str) -> Option<String> {
    let http = || {
        HttpUrl::parse(text)
            .filter(|url| !url.websocket && url.target.split('?').next().is_some_and(|path| path.ends_with(".flv")))
    };
    (RtmpUrl::parse(text).is_ok() || http().is_some()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn pulls_name_streams_and_urls() {
        let load = |inside: &str| Config::parse("test", &format!("listen 1; vhost v {{ {inside} }}"));
        let config =
            load("pull a/b/c { url rtmp://h/x/y http://h/x/y.flv?k=1; } pull a/d { enabled off; url rtmp://h/x/y; }")
                .unwrap();
        let pulls = &config.vhosts[0].pulls;
        assert_eq!((pulls.len(), &*pulls[0].app, &*pulls[0].stream, pulls[0].urls.len()), (1, "a/b", "c", 2));
        for bad in [
            "pull x { url rtmp://h/x/y; }",
            "pull { url rtmp://h/x/y; }",
            "pull a/b { }",
            "pull a/b { url ftp://h/x; }",
            "pull a/b { url http://h/x.ts; }",
            "pull a/b { url rtmp://h/x/y; } pull a/b { url rtmp://h/x/y; }",
        ] {
            assert!(load(bad).is_err(), "{bad}");
        }
    }
}
