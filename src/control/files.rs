//! `http_server`'s `dir`: small files as they are.

use bytes::Bytes;
use std::{
    borrow::Cow,
    ffi::OsStr,
    fs,
    io::Read,
    path::{Component, Path},
};

/// Longest file that is served; it is read as a whole.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file under `dir` by a request's decoded path, a directory's being its `index.html`; `None` if there is none.
pub(super) fn read(dir: &Path, path: &str) -> Option<(Cow<'static, str>, Bytes)> {
    let relative = Path::new(path.trim_start_matches('/'));
    // The head was refused if a level could lead out of it; what is hidden stays so.
    let plain =
        |level: Component<'_>| matches!(level, Component::Normal(name) if !name.to_string_lossy().starts_with('.'));
    if !relative.components().all(plain) {
        return None;
    }
    let mut file = dir.join(relative);
    if file.is_dir() {
        file.push("index.html");
    }
    // A pipe would be waited for.
    let metadata = fs::metadata(&file).ok().filter(|metadata| metadata.is_file())?;
    if metadata.len() > FILE_BYTES_MAX {
        tracing::warn!(file = %file.display(), bytes = metadata.len(), "not served: over {FILE_BYTES_MAX} bytes");
        return None;
    }
    let mut content = Vec::new();
    fs::File::open(&file).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some((content_type(&file), content.into()))
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

    #[test]
    fn files_are_found_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("html");
        fs::create_dir_all(dir.join("sub")).unwrap();
        for (name, text) in [("html/a.txt", "a"), ("html/sub/index.html", "b"), ("html/.hidden", "c"), ("secret", "d")]
        {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let found = |path: &str| read(&dir, path).map(|(_, content)| content.to_vec());
        assert_eq!(
            (found("/a.txt"), found("/sub"), found("/sub/")),
            (Some(b"a".to_vec()), Some(b"b".to_vec()), Some(b"b".to_vec()))
        );
        for path in ["/", "/b.txt", "/../secret", "/sub/../../secret", "/.hidden", "/./a.txt/x", "//etc/passwd"] {
            assert_eq!(found(path), None, "{path}");
        }
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
