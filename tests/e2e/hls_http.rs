//! Playlists and segments as HTTP has them: ranges, conditions, codings.

use crate::{
    hls::{playlist, segments, web},
    media::{Running, avc_aac, bounded, have, publish, publish_on},
    peer::connected,
    server::{Server, eventually},
    web::{Answer, Web, config, get, read_answer, request},
};
use std::{io::Write, path::Path, process::Stdio};

/// Parts of a segment by Range, its head alone, and what cannot be had.
#[test]
fn ranges_of_segments() {
    if !have("ffmpeg") {
        return;
    }
    let web = web(2, "hls_ctx off;");
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    let text = playlist(&web, "/live/s.m3u8");
    let path = format!("/live/{}", segments(&text)[0]);
    let whole = get(web.http(), &path).body;
    let ranged = |range: &str| request(web.http(), "GET", &path, &format!("Range: {range}\r\n"));
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-70000", 100, 70_001),
        ("bytes=188-", 188, whole.len()),
        ("bytes=-5", whole.len() - 5, whole.len()),
        ("bytes=7-99999999999", 7, whole.len()),
    ] {
        let answer = ranged(range);
        assert_eq!((answer.status, &answer.body[..]), (206, &whole[from..to]), "{range}: {}", answer.head);
        assert!(answer.has(&format!("content-range: bytes {from}-{}/{}", to - 1, whole.len())), "{}", answer.head);
    }
    assert_eq!(ranged(&format!("bytes={}-", whole.len())).status, 416);
    for odd in ["bytes=5-1", "bytes=0-1,5-6", "lines=1-2", "bytes=x-", "bytes=-"] {
        assert_eq!((ranged(odd).status, ranged(odd).body.len()), (200, whole.len()), "{odd}");
    }
    let head = request(web.http(), "HEAD", &path, "");
    assert!(head.status == 200 && head.has(&format!("content-length: {}", whole.len())), "{}", head.head);
    assert_eq!(request(web.http(), "HEAD", "/live/s.m3u8", "").status, 200);
    // Requests that come behind one another are answered so, whoever answers.
    let mut socket = connected(web.http());
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let all = [&path, "/live/s.m3u8", &path, "/nothing", "/live/s.m3u8"].map(ask).concat();
    socket.write_all(all.as_bytes()).expect("requests");
    let answers: Vec<Answer> = (0..5).map(|_| read_answer(&mut socket, false).expect("an answer")).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 404, 200]);
    assert!(answers[0].body == whole && answers[2].body == whole && answers[4].text() == text, "{answers:?}");
}

/// What a client has is not sent again, as long as it is the same; a range of something else is all of it.
#[test]
fn conditions_of_playlists_and_segments() {
    if !have("ffmpeg") {
        return;
    }
    let web = web(2, "hls_ctx off;");
    let tag = |answer: &Answer| answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).map(str::to_owned);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    let segment = format!("/live/{}", segments(&playlist(&web, "/live/s.m3u8"))[0]);
    for path in ["/live/s.m3u8", &segment] {
        let first = get(web.http(), path);
        let known = tag(&first).expect("a tag");
        for (condition, status) in [
            (known.clone(), 304),
            (format!("\"other\", W/{known}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
        ] {
            let again = request(web.http(), "GET", path, &format!("If-None-Match: {condition}\r\n"));
            assert_eq!((again.status, tag(&again).as_ref()), (status, Some(&known)), "{condition}");
            assert_eq!(again.body.is_empty(), status == 304, "{condition}");
        }
        // A connection goes on behind a 304.
        let mut socket = connected(web.http());
        let ask = format!("GET {path} HTTP/1.1\r\nHost: h\r\nIf-None-Match: {known}\r\n\r\n");
        socket.write_all(ask.repeat(2).as_bytes()).expect("requests");
        let statuses = [0, 1].map(|_| read_answer(&mut socket, false).expect("an answer").status);
        assert_eq!(statuses, [304, 304]);
    }
    let whole = get(web.http(), &segment);
    let known = tag(&whole).expect("a tag");
    for (of, status) in [(known.as_str(), 206), ("\"other\"", 200)] {
        let answer = request(web.http(), "GET", &segment, &format!("Range: bytes=0-9\r\nIf-Range: {of}\r\n"));
        assert_eq!(answer.status, status, "{of}");
    }
    // Another playlist has another tag.
    let before = tag(&get(web.http(), "/live/s.m3u8"));
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    assert_ne!(tag(&get(web.http(), "/live/s.m3u8")), before);
}

/// Playlists that all get come by gzip, to those who take it; curl reads the same either way.
#[test]
fn playlists_come_by_gzip() {
    if !have("ffmpeg") || !have("curl") {
        return;
    }
    for (more, shared) in [("hls_ctx off;", true), ("", false)] {
        let web = web(2, more);
        publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
        let url = format!("http://{}/live/s.m3u8?hls_ctx=abc", web.http());
        drop(playlist(&web, "/live/s.m3u8?hls_ctx=abc"));
        let curl = |args: &[&str]| {
            let output =
                std::process::Command::new("curl").args(["-sS", &url]).args(args).stderr(Stdio::inherit()).output();
            String::from_utf8_lossy(&output.expect("curl").stdout).into_owned()
        };
        let (plain, coded) = (curl(&[]), curl(&["--compressed"]));
        assert!(plain == coded && plain.contains("#EXTINF"), "{plain} {coded}");
        let answer = request(web.http(), "GET", "/live/s.m3u8?hls_ctx=abc", "Accept-Encoding: gzip, br\r\n");
        assert_eq!(
            answer.has("content-encoding: gzip") && answer.has("vary: accept-encoding"),
            shared,
            "{}",
            answer.head
        );
        assert_eq!(answer.body.starts_with(&[0x1F, 0x8B]) && answer.body.len() < plain.len(), shared);
        let segment = format!("/live/{}", segments(&plain)[0]);
        let answer = request(web.http(), "GET", &segment, "Accept-Encoding: gzip\r\n");
        assert!(answer.status == 200 && !answer.has("content-encoding: gzip"), "{}", answer.head);
    }
}

/// Streams whose names end so are variants of one: under its name all of them are listed, whether it is published or not, as they
/// are measured or as the configuration says; a visit of one is a visit of all. ffmpeg reads them all.
#[test]
fn variants_of_a_stream() {
    if !have("ffmpeg") || !have("ffprobe") {
        return;
    }
    let variants = "hls_variant _hi; hls_variant _low BANDWIDTH=90000; hls_variant _none;";
    for (ctx, own) in [("on", false), ("off", false), ("on", true)] {
        let web = web(2, &format!("hls_ctx {ctx}; {variants}"));
        for name in ["s_hi", "s_low", "s"].iter().take(if own { 3 } else { 2 }) {
            publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url(&format!("/live/{name}"))).success();
        }
        let text = playlist(&web, "/live/s.m3u8");
        let uris = segments(&text);
        assert_eq!(uris.len(), if own { 3 } else { 2 }, "{text}");
        assert!(uris.iter().all(|uri| uri.contains("hls_ctx=") == (ctx == "on")), "{text}");
        assert!(text.contains("BANDWIDTH=90000,AVERAGE-BANDWIDTH=90000,CODECS=\"avc1.64001e,mp4a.40.2\""), "{text}");
        let measured = text.lines().find(|line| line.contains("STREAM-INF")).expect("a variant");
        let bits = measured.split(['=', ',']).nth(1).and_then(|bits| bits.parse::<u64>().ok()).expect("bits");
        assert!((300_000..2_000_000).contains(&bits) && measured.contains("RESOLUTION=640x360"), "{measured}");
        for uri in uris {
            let media = playlist(&web, uri);
            assert!(media.contains("#EXTINF"), "{uri}: {media}");
        }
        let mut ffprobe = bounded("ffprobe");
        let url = format!("http://{}/live/s.m3u8", web.http());
        ffprobe.args(["-v", "error", "-show_entries", "program=program_id", "-of", "csv=p=0", &url]);
        let said = Running::start(&mut ffprobe).success();
        assert!(said.lines().filter(|line| !line.is_empty()).count() >= 2, "{said}");
        assert_eq!(get(web.http(), "/live/other.m3u8").status, 404);
        assert_eq!(get(web.http(), "/live/s_none.m3u8").status, 404);
    }
}

/// `hls_memory_max`: where there is no room playlists get shorter, and are whole all the same.
#[test]
fn memory_of_segments_is_bounded() {
    if !have("ffmpeg") {
        return;
    }
    let vhost = "hls { enabled on; hls_fragment 1; hls_window 100; hls_ctx off; }";
    let text = config("hls_memory_max 1;", "", vhost);
    let web = Web { server: Server::shards(2, &text) };
    let publishers: Vec<Running> =
        (0..6).map(|number| publish_on(&avc_aac(), &web.server.url(&format!("/live/{number}")))).collect();
    let lists = || (0..6).map(|number| get(web.http(), &format!("/live/{number}.m3u8")).text());
    let first = |text: &str| -> Option<u64> { text.split_once("MEDIA-SEQUENCE:")?.1.lines().next()?.parse().ok() };
    let before = eventually("playlists", || {
        let lists: Vec<String> = lists().collect();
        lists.iter().all(|text| text.contains("#EXTINF")).then_some(lists)
    });
    let after = eventually("that all have lost segments", || {
        let lists: Vec<String> = lists().collect();
        let shorter = |(after, before): (&String, &String)| first(after) > first(before);
        lists.iter().zip(&before).all(shorter).then_some(lists)
    });
    for text in &after {
        let there = segments(text);
        assert!(there.len() >= 3, "{text}");
        assert!(there.iter().all(|uri| get(web.http(), &format!("/live/{uri}")).status == 200), "{text}");
    }
    // Six streams of about 90 kB a second, three segments each at least.
    let metrics = get(web.exporter(), "/metrics").text();
    let line = metrics.lines().find(|line| line.starts_with("corecast_memory_bytes{") && line.contains("segments"));
    let bytes: u64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a figure");
    assert!((100_000..3 << 20).contains(&bytes), "{bytes}");
    publishers.into_iter().for_each(Running::kill);
}

/// Hundreds of reloads that wait on both shards are answered when their stream ends, each on a connection that goes on; and a segment
/// can be had byte by byte.
#[test]
fn reloads_end_with_their_stream() {
    if !have("ffmpeg") {
        return;
    }
    let web = web(2, "hls_ctx off; hls_use_fmp4 on;");
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    let text = eventually("segments", || {
        let answer = get(web.http(), "/live/s.m3u8");
        Some(answer.text()).filter(|text| text.matches("#EXTINF").count() > 1)
    });
    let path = format!("/live/{}", segments(&text)[0]);
    let whole = get(web.http(), &path).body;
    let mut one = connected(web.http());
    for at in 0..200 {
        one.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nRange: bytes={at}-{at}\r\n\r\n").as_bytes())
            .expect("a request");
        let answer = read_answer(&mut one, false).expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (206, &whole[at..=at]));
    }
    let first: u64 =
        text.split_once("MEDIA-SEQUENCE:").and_then(|(_, rest)| rest.lines().next()?.parse().ok()).expect("a number");
    let before = web.server.rss_kib();
    let mut waiting: Vec<_> = (0..600).map(|_| connected(web.http())).collect();
    // Two segments beyond the one that is being made is as far as one may ask.
    let ahead = first + text.matches("#EXTINF").count() as u64 + 2;
    for socket in &mut waiting {
        let ask = format!("GET /live/s.m3u8?_HLS_msn={ahead}&_HLS_part=0 HTTP/1.1\r\nHost: h\r\n\r\n");
        socket.write_all(ask.as_bytes()).expect("a request");
    }
    publisher.kill();
    for socket in &mut waiting {
        let answer = read_answer(socket, false).expect("an answer");
        assert!(answer.status == 200 && answer.text().starts_with("#EXTM3U"), "{answer:?}");
        socket.write_all(b"GET /live/s.m3u8 HTTP/1.1\r\nHost: h\r\n\r\n").expect("a request");
        assert_eq!(read_answer(socket, false).expect("an answer").status, 200);
    }
    let grown = web.server.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}
