//! Segments out of whatever is published: fragments of MP4 whose boxes fit, whole packets of a transport stream, and a
//! playlist that keeps its rules; and the same of an MPD.
#![no_main]

use bytes::Bytes;
use corecast::{
    config::Config,
    media::{Entry, Taker},
    package::{self, Answer, Asked, DashPackager, Name, Packager, Place, Shelf, Writer},
    proto::{
        codec,
        flv::{Tag, TagKind},
        ts::PACKET_BYTES,
    },
};
use corecast_fuzz::{conversation, seeds, stream::tags};
use libfuzzer_sys::fuzz_target;
use std::{path::Path, sync::Arc};

/// A setup of AVC, AAC and AV1, so that few bytes lead on.
const SETUPS: [&[u8]; 3] = [
    b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x3c\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb",
    b"\xAF\0\x12\x10",
    b"\x90av01\x81\x05\x0C\0",
];

fuzz_target!(init: seeds(streams), |data: &[u8]| {
    let Some((&flags, data)) = data.split_first() else { return };
    let fmp4 = if flags & 1 == 0 { "off" } else { "on" };
    let text = format!(
        "listen 1; vhost v {{ hls {{ enabled on; hls_ctx off; hls_use_fmp4 {fmp4}; hls_fragment 1; hls_window 5; }} \
         dash {{ enabled on; dash_fragment 1; dash_ll {fmp4}; }} }}"
    );
    let config = Config::parse("x", &text).expect("a configuration");
    let vhost = &config.vhosts[0];
    let (shelf, writer): (Arc<Shelf>, Arc<Writer>) = Default::default();
    shelf.open(1, |_| {});
    let name = || Name { key: "v/a/s".into(), vhost: "v".into(), app: "a".into(), stream: "s".into() };
    let place = || Place { shelf: &shelf, writer: &writer, http_dir: Path::new("x") };
    let (hls, dash) = (vhost.hls.as_ref().expect("HLS"), vhost.dash.as_ref().expect("DASH"));
    let mut takers: [Box<dyn Taker>; 2] = [
        Box::new(Packager::new(place(), hls, name(), 1 << 40, None).expect("a name")),
        Box::new(DashPackager::new(place(), dash, name(), 1 << 40).expect("a name")),
    ];
    let (mut time_ms, mut bytes) = (0_i64, 0);
    for mut tag in tags(data) {
        if let Some(setup) = tag.body.strip_prefix(b"SETUP").and_then(|rest| SETUPS.get(usize::from(*rest.first()?))) {
            let kind = if setup.starts_with(b"\xAF") { TagKind::Audio } else { TagKind::Video };
            tag = Tag { kind, timestamp: tag.timestamp, body: Bytes::from_static(setup) };
        }
        time_ms += if tag.timestamp == u32::MAX { -1000 } else { i64::from(tag.timestamp) };
        bytes += 2 * (tag.body.len() as u64 + 4096);
        let info = codec::inspect(tag.kind, &tag.body);
        let arrived_ms = u64::try_from(time_ms).unwrap_or(0);
        let entry = Entry { tag, info, time_ms, delta_ms: 0, arrived_ms };
        takers.iter_mut().for_each(|taker| taker.take(&entry));
    }
    takers.iter_mut().for_each(|taker| taker.end());
    assert!(shelf.bytes() <= bytes, "{} of {bytes}", shelf.bytes());
    let ask = |path: &str| package::answer(&shelf, &Asked { vhost, path, query: "", now_ms: 0, visit: None });
    let text = |path: &str| match ask(path) {
        Some(Answer::Playlist(playlist)) => String::from_utf8(playlist.text.to_vec()).expect("UTF-8"),
        _ => String::new(),
    };
    let get = |uri: &str| {
        let Some(Answer::Blob(blob)) = ask(&format!("/a/{uri}")) else { panic!("{uri} is not there") };
        let bytes = blob.chunks.concat();
        assert_eq!(blob.length, bytes.len() as u64);
        if uri.ends_with(".ts") {
            assert_eq!(bytes.len() % PACKET_BYTES, 0);
        } else {
            boxes(&bytes);
        }
    };
    playlist(&text("/a/s.m3u8"), get);
    mpd(&text("/a/s.mpd"), get);
});

/// RFC 8216 §4.3.3.1, and all that is named is there.
fn playlist(text: &str, get: impl Fn(&str)) {
    let target = text.split("TARGETDURATION:").nth(1).and_then(|rest| rest.lines().next()?.parse::<f64>().ok());
    for line in text.lines() {
        if let Some(duration) = line.strip_prefix("#EXTINF:") {
            assert!(Some(duration.trim_end_matches(',').parse::<f64>().expect("s").round()) <= target, "{text}");
        }
        match line.strip_prefix("#EXT-X-MAP:URI=\"") {
            Some(map) => get(map.trim_end_matches('"')),
            None if line.starts_with('#') => {}
            None => get(line),
        }
    }
}

/// All that an MPD lists is there.
fn mpd(text: &str, get: impl Fn(&str)) {
    for template in text.split("<SegmentTemplate").skip(1) {
        let value = |text: &str, name: &str| {
            Some(text.split_once(&format!(" {name}=\""))?.1.split('"').next().unwrap_or_default().to_owned())
        };
        get(&value(template, "initialization").expect("a header"));
        let (media, first) =
            (value(template, "media").expect("names"), value(template, "startNumber").expect("a number"));
        let mut number: u64 = first.parse().expect("a number");
        for element in template.split("</SegmentTimeline>").next().unwrap_or_default().split("<S").skip(2) {
            let more: u64 = value(element, "r").map_or(0, |more| more.parse().expect("a number"));
            for _ in 0..=more {
                get(&media.replace("$Number$", &number.to_string()));
                number += 1;
            }
        }
    }
}

/// Boxes that fill what they are in.
fn boxes(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let size = u32::from_be_bytes(bytes[..4].try_into().expect("a size")) as usize;
        assert!(size >= 8);
        if matches!(&bytes[4..8], b"moov" | b"moof" | b"trak" | b"traf" | b"mdia" | b"minf" | b"stbl") {
            boxes(&bytes[8..size]);
        }
        bytes = &bytes[size..];
    }
}

fn streams() -> Vec<Vec<u8>> {
    let write = |flags: u8, tags: &[Tag]| {
        let mut out = vec![flags];
        for Tag { kind, body, .. } in tags {
            let body = &body[..body.len().min(0x3FF)];
            let [high, low] = u16::try_from(body.len()).expect("10 bits").to_be_bytes();
            out.extend_from_slice(&[0x30 | u8::try_from(kind.index()).expect("0 to 2"), 40, high, low]);
            out.extend_from_slice(body);
        }
        out
    };
    let tag = |kind, body: &[u8]| Tag { kind, timestamp: 0, body: Bytes::copy_from_slice(body) };
    let setup = |number: u8| tag(TagKind::Video, &[&b"SETUP"[..], &[number]].concat());
    let mut frames = vec![setup(0), setup(1)];
    for _ in 0..8 {
        frames.push(tag(TagKind::Video, b"\x17\x01\0\0\x28\0\0\0\x03\x65\x01\x02"));
        frames.push(tag(TagKind::Audio, b"\xAF\x01sound"));
        frames.push(tag(TagKind::Video, b"\x27\x01\0\0\x28\0\0\0\x02\x41\x02"));
    }
    let av1 = [vec![setup(2)], vec![tag(TagKind::Video, b"\x91av01frame"); 9]].concat();
    let all = |flags| [write(flags, &frames), write(flags, &av1), write(flags, &conversation::tags())];
    [0, 1].into_iter().flat_map(all).collect()
}
