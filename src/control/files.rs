//! Files as they are: `http_server`'s `dir`, and `http_static` of vhosts.

use super::content::Content;
use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::{
    borrow::Cow,
    ffi::OsStr,
    fs::{File, Metadata},
    io::{Seek, SeekFrom},
    ops::Range,
    path::{Component, Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// A file that is there.
#[derive(Debug)]
pub(super) struct Found {
    file: File,
    metadata: Metadata,
    content_type: Cow<'static, str>,
}

/// A file under `dir` by a request's decoded path, a directory's being its `index.html`; `None` if there is none. No link
/// leads out of `dir`.
pub(super) fn open(dir: &Path, path: &str) -> Option<Found> {
    let relative = Path::new(path.trim_start_matches('/'));
    // The head was refused if a level could lead out of it; what is hidden stays so.
    let plain =
        |level: Component<'_>| matches!(level, Component::Normal(name) if !name.to_string_lossy().starts_with('.'));
    if !relative.components().all(plain) {
        return None;
    }
    let root = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let beneath = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // A pipe would be waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve).ok()?);
        let metadata = file.metadata().ok()?;
        Some((file, metadata, path.to_path_buf()))
    };
    let mut found: (File, Metadata, PathBuf) = beneath(relative)?;
    if found.1.is_dir() {
        found = beneath(&relative.join("index.html"))?;
    }
    let (file, metadata, path) = found;
    metadata.is_file().then(|| Found { file, metadata, content_type: content_type(&path) })
}

impl Found {
    /// The answer to a request for it: whole, a range, or that it has not changed.
    pub(super) fn respond(mut self, request: &HeaderMap) -> Response<Content> {
        let (bytes, modified) = (self.metadata.len(), self.metadata.modified().unwrap_or(UNIX_EPOCH));
        let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let tag = format!("\"{:x}-{bytes:x}\"", age.as_nanos());
        let date = httpdate::fmt_http_date(modified);
        let text = |name: HeaderName| request.get(name).and_then(|value| value.to_str().ok());
        let same = text(header::IF_RANGE).is_none_or(|known| known == tag || known == date);
        let range = text(header::RANGE).filter(|_| same).and_then(|range| read_range(range, bytes));
        let mut reply = Response::new(Content::from(Bytes::new()));
        let mut said = vec![(header::ETAG, tag.clone()), (header::LAST_MODIFIED, date)];
        said.push((header::ACCEPT_RANGES, "bytes".to_owned()));
        said.push((header::CONTENT_TYPE, self.content_type.into_owned()));
        *reply.status_mut() = match range {
            _ if is_unchanged(request, &tag, modified) => StatusCode::NOT_MODIFIED,
            Some(None) => {
                said.push((header::CONTENT_RANGE, format!("bytes */{bytes}")));
                StatusCode::RANGE_NOT_SATISFIABLE
            }
            Some(Some(Range { start, end })) if self.file.seek(SeekFrom::Start(start)).is_ok() => {
                said.push((header::CONTENT_RANGE, format!("bytes {start}-{}/{bytes}", end - 1)));
                *reply.body_mut() = Content::file(self.file, end - start);
                StatusCode::PARTIAL_CONTENT
            }
            Some(Some(_)) | None => {
                *reply.body_mut() = Content::file(self.file, bytes);
                StatusCode::OK
            }
        };
        for (name, value) in said {
            if let Ok(value) = HeaderValue::from_str(&value) {
                reply.headers_mut().insert(name, value);
            }
        }
        reply
    }
}

/// Whether a request has the file already (RFC 9110 §13.2.2).
fn is_unchanged(request: &HeaderMap, tag: &str, modified: SystemTime) -> bool {
    let text = |name: HeaderName| request.get(name).and_then(|value| value.to_str().ok());
    if let Some(known) = text(header::IF_NONE_MATCH) {
        return known.split(',').map(str::trim).any(|known| known.trim_start_matches("W/") == tag || known == "*");
    }
    let since = text(header::IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    since.is_some_and(|since| seconds(modified) <= seconds(since))
}

/// The bytes that a `Range` means of so many; `None` serves the whole, `Some(None)` is beyond the end. Several ranges are
/// served as the whole (RFC 9110 §14.2).
fn read_range(range: &str, bytes: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let range = match (first.trim(), last.trim()) {
        ("", last) => bytes.saturating_sub(number(last)?)..bytes,
        (first, "") => number(first)?..bytes,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..bytes.min(last.saturating_add(1))
        }
    };
    Some(Some(range).filter(|range| range.start < range.end))
}

/// The type of a file by its name.
pub(super) fn content_type(file: &Path) -> Cow<'static, str> {
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default();
    let kind = match extension {
        // What HLS calls them (RFC 8216 §4), not what the table has.
        "ts" => "video/mp2t",
        "m3u8" => "application/vnd.apple.mpegurl",
        "mjs" => "text/javascript",
        _ => mime_guess::from_ext(extension).first_raw().unwrap_or("application/octet-stream"),
    };
    if kind.starts_with("text/") { format!("{kind}; charset=utf-8").into() } else { kind.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Read, os::unix::fs::symlink};

    #[test]
    fn files_are_found_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("html");
        fs::create_dir_all(dir.join("sub")).unwrap();
        for (name, text) in [("html/a.txt", "a"), ("html/sub/index.html", "b"), ("html/.hidden", "c"), ("secret", "d")]
        {
            fs::write(directory.path().join(name), text).unwrap();
        }
        symlink("../a.txt", dir.join("sub/inside")).unwrap();
        for (target, name) in [("../secret", "out"), ("/etc", "etc"), ("..", "up"), ("/proc/self/root", "root")] {
            symlink(target, dir.join(name)).unwrap();
        }
        let found = |path: &str| {
            let mut text = String::new();
            open(&dir, path)?.file.read_to_string(&mut text).unwrap();
            Some(text)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((found("/a.txt"), found("/sub"), found("/sub/")), (text("a"), text("b"), text("b")));
        assert_eq!(found("/sub/inside"), text("a"), "a link that stays inside");
        for path in ["/", "/b.txt", "/../secret", "/sub/../../secret", "/.hidden", "/./a.txt/x", "//etc/passwd"] {
            assert_eq!(found(path), None, "{path}");
        }
        for path in ["/out", "/etc/passwd", "/up/secret", "/root/etc/passwd", "/a.txt\0", "/up/html/a.txt"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn ranges_are_rfc_9110_s() {
        let whole = |start, end| Some(Some(start..end));
        let cases = [
            ("bytes=0-4", whole(0, 5)),
            ("bytes=5-", whole(5, 10)),
            ("bytes=-3", whole(7, 10)),
            ("bytes=-30", whole(0, 10)),
            ("bytes=9-99999999999999999", whole(9, 10)),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=4-3", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("bytes=-", None),
            ("bytes=99999999999999999999999-", None),
            ("lines=0-1", None),
        ];
        for (range, expected) in cases {
            assert_eq!(read_range(range, 10), expected, "{range}");
        }
        assert_eq!(read_range("bytes=0-", 0), Some(None));
    }

    #[test]
    fn types_are_those_of_the_web() {
        let kinds = [
            ("index.html", "text/html; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.wasm", "application/wasm"),
            ("a.svg", "image/svg+xml"),
            ("a.flv", "video/x-flv"),
            ("a.ts", "video/mp2t"),
            ("a.m3u8", "application/vnd.apple.mpegurl"),
            ("a.mpd", "application/dash+xml"),
            ("README", "application/octet-stream"),
        ];
        for (name, kind) in kinds {
            assert_eq!(content_type(Path::new(name)), kind, "{name}");
        }
    }
}
