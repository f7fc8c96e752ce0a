//! `http_static`, and `http_server`'s `dir`: files as SRS serves them.

use crate::{
    media::{avc_aac, bounded, have},
    server::Server,
};
use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

/// What curl gets: the status, the head in lower case, the body.
fn curl(arguments: &[&str], url: &str) -> (String, String, Vec<u8>) {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "20", "--path-as-is", "-i"]).args(arguments).arg(url);
    let output = command.output().expect("curl").stdout;
    let at = output.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {url}"));
    let head = String::from_utf8_lossy(&output[..at]).to_lowercase();
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), head.clone(), output[at + 4..].to_vec())
}

fn make_files(root: &Path) {
    for (name, text) in [("root/r.txt", "root"), ("vod/a.txt", "0123456789"), ("own/o.txt", "own"), ("secret", "s")] {
        fs::create_dir_all(root.join(name).parent().expect("a parent")).expect("a directory");
        fs::write(root.join(name), text).expect("a file");
    }
    fs::write(root.join("vod/large.bin"), vec![7; 40 << 20]).expect("a file");
    fs::copy(avc_aac(), root.join("vod/x.flv")).expect("a file");
    symlink("../secret", root.join("vod/out")).expect("a link");
    symlink("/etc", root.join("vod/etc")).expect("a link");
}

/// Mounts per vhost, ranges, HEAD, types, what has not changed; files of any size; nothing outside.
#[test]
fn files_of_vhosts() {
    if !have("curl") || !have("ffprobe") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    make_files(root);
    let at = root.display();
    let server = Server::start(&format!(
        "listen 127.0.0.1:0; http_server {{ enabled on; listen 127.0.0.1:0; dir {at}/root; }}
         vhost __defaultVhost__ {{ http_static {{ enabled on; mount [vhost]/vod; dir {at}/vod; }} }}
         vhost own.example {{ http {{ enabled on; mount [vhost]/; dir {at}/own; }} }}"
    ));
    let url = |path: &str| format!("http://{}{path}", server.addresses()[1]);
    let body = |path: &str| String::from_utf8_lossy(&curl(&[], &url(path)).2).into_owned();
    assert_eq!((body("/r.txt"), body("/vod/a.txt")), ("root".into(), "0123456789".into()));
    let (status, head, _) = curl(&[], &url("/vod"));
    assert!(status == "302" && head.contains("location: /vod/"), "{head}");
    let own = ["-H", "Host: own.example:80"];
    assert_eq!((curl(&own, &url("/o.txt")).2, curl(&own, &url("/r.txt")).0), (b"own".to_vec(), "404".to_owned()));

    let (status, head, part) = curl(&["-r", "2-4"], &url("/vod/a.txt"));
    assert_eq!((status.as_str(), &part[..]), ("206", &b"234"[..]));
    assert!(head.contains("content-range: bytes 2-4/10") && head.contains("content-length: 3"), "{head}");
    let (status, head, _) = curl(&["-r", "10-"], &url("/vod/a.txt"));
    assert!(status == "416" && head.contains("content-range: bytes */10"), "{head}");
    let (status, head, part) = curl(&["-I"], &url("/vod/a.txt"));
    assert_eq!((status.as_str(), part.len()), ("200", 0));
    assert!(
        head.contains("content-length: 10") && head.contains("text/plain") && head.contains("accept-ranges: bytes")
    );
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
    assert_eq!(curl(&["-H", &format!("If-None-Match: {tag}")], &url("/vod/a.txt")).0, "304");
    let stale = ["-r", "2-4", "-H", "If-Range: \"other\""];
    assert_eq!(curl(&stale, &url("/vod/a.txt")).2.len(), 10, "the whole, where the file is another");
    assert_eq!(curl(&["-X", "POST"], &url("/vod/a.txt")).0, "405");

    let large = curl(&[], &url("/vod/large.bin")).2;
    assert!(large.len() == 40 << 20 && large.iter().all(|byte| *byte == 7), "{}", large.len());
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", &url("/vod/x.flv")]);
    let found = String::from_utf8_lossy(&probe.output().expect("ffprobe").stdout).into_owned();
    assert!(found.contains("h264") && found.contains("aac"), "{found}");

    for path in [
        "/vod/../secret",
        "/vod/%2e%2e/secret",
        "/vod/..%2fsecret",
        "/vod/out",
        "/vod/etc/passwd",
        "/vod//etc/passwd",
        "/vod/a.txt%00",
        "/../../../../etc/passwd",
    ] {
        let (status, _, found) = curl(&[], &url(path));
        assert!(matches!(status.as_str(), "400" | "404"), "{path}: {status}");
        assert!(found != b"s" && !found.starts_with(b"root:"), "{path}");
    }
    assert!(!server.log().contains("panic"), "{}", server.log());
}
