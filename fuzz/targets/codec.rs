//! Codec headers of tags: nothing panics, sizes make sense, and a header that can be read is taken for one.
#![no_main]

use corecast::proto::{
    amf::{Value, amf0},
    codec::{Class, Metadata, inspect, read_metadata, read_sequence_header, read_sound},
    flv::TagKind,
};
use corecast_fuzz::{bound, choice, conversation, seeds, within};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds(bodies), |data: &[u8]| {
    let (kind, body) = choice(data);
    let kind = TagKind::ALL[usize::from(kind) % TagKind::ALL.len()];
    let info = within(0, || inspect(kind, body));
    assert!(info.codec.is_none_or(|codec| !codec.common_name().is_empty()));
    match kind {
        TagKind::Video => {
            assert!(!matches!(info.class, Class::Metadata | Class::Audio));
            for annexb_first in [true, false] {
                check_picture(body, info.class, annexb_first);
            }
        }
        TagKind::Audio => {
            assert!(matches!(info.class, Class::Header { .. } | Class::Audio));
            if let Some(sound) = within(0, || read_sound(body)) {
                assert!((1..=192_000).contains(&sound.sample_rate), "{sound:?}");
            }
        }
        TagKind::Script => {
            assert!(matches!(info.class, Class::Metadata | Class::Data));
            check_metadata(read_metadata(body));
        }
    }
});

fn check_picture(body: &[u8], class: Class, annexb_first: bool) {
    // Parameter sets are unpacked, and errors have words.
    let picture = within(bound(4 * body.len()), || read_sequence_header(body, annexb_first));
    let Ok(picture) = picture else { return };
    let Some(picture) = picture else { return };
    assert!(matches!(class, Class::Header { slot: 0 }), "{class:?} {picture}");
    assert!(picture.width <= 1 << 17 && picture.height <= 1 << 17, "{picture}");
    assert_eq!(picture.width == 0, picture.height == 0, "{picture}");
    assert!(!picture.profile.is_empty() && !picture.level.is_empty());
}

/// What metadata says, it says again when it is written anew.
fn check_metadata(metadata: Metadata) {
    let Metadata { width, height, has_video, has_audio, kbps, absolute_time } = metadata;
    let number = |number: u32| Value::Number(f64::from(number));
    let mut pairs = vec![
        ("width".into(), number(width)),
        ("height".into(), number(height)),
        ("videodatarate".into(), number(kbps)),
        ("bravo_atc".into(), Value::string(if absolute_time { "true" } else { "" })),
    ];
    pairs.extend(has_video.then(|| ("videocodecid".into(), number(7))));
    pairs.extend(has_audio.then(|| ("audiocodecid".into(), number(10))));
    let body = amf0::encode_all(&[Value::string("onMetaData"), Value::EcmaArray(pairs)]);
    assert_eq!(read_metadata(&body), metadata);
    assert_eq!(inspect(TagKind::Script, &body).class, Class::Metadata);
}

fn bodies() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let mut add = |kind: TagKind, body: &[u8]| {
        let index = u8::try_from(kind.index()).expect("three kinds");
        seeds.push([&[index], body].concat());
    };
    conversation::tags().iter().for_each(|tag| add(tag.kind, &tag.body));
    // The record of the tags' own SPS, and the same as a byte stream, under each header.
    let avc = conversation::tags()[1].body.slice(5..);
    let stream = [&[0, 0, 0, 1], &avc[8..34], &[0, 0, 0, 1], &avc[37..]].concat();
    for data in [&avc[..], &stream] {
        add(TagKind::Video, &[b"\x17\0\0\0\0", data].concat());
        add(TagKind::Video, &[b"\x90avc1", data].concat());
        add(TagKind::Video, &[b"\x97\x02\0\0\x01\0avc1", data].concat());
    }
    // HEVC: a parameter set of 1280x720, alone, in a record with an array of one, and in a byte stream.
    let sps =
        b"\x42\x01\x01\x01\x60\0\0\x03\0\x90\0\0\x03\0\0\x03\0\x5d\xa0\x02\x80\x80\x2d\x16\x59\x59\xa4\x93\x2b\x80";
    let record = [&[1; 22], &[1, 33, 0, 1, 0, 30][..], sps].concat();
    let stream = [&[0, 0, 1], &sps[..]].concat();
    for head in [&b"\x1C\0\0\0\0"[..], b"\x90hvc1"] {
        add(TagKind::Video, &[head, &record].concat());
        add(TagKind::Video, &[head, &stream].concat());
    }
    // AV1: a configuration record with a sequence header.
    let av1 = b"\x81\x05\x0C\0\x0A\x0B\0\0\0\x24\xCF\x7F\x0D\xBF\xFF\x30\x08";
    for head in [&b"\x1D\0\0\0\0"[..], b"\x90av01"] {
        add(TagKind::Video, &[head, av1].concat());
    }
    for body in
        [&b"\xAF\0\x12\x10"[..], b"\xAF\0\x2B\x11\x88", b"\x90mp4a\x11\x88", b"\x90OpusOpusHead\x01\x02", b"\x2F"]
    {
        add(TagKind::Audio, body);
    }
    for body in [&b"\x96\0avc1\0"[..], b"\x97\xFF\0\x01\0\0\x01hvc1", b"\xD4hvc1", b"\x95\0mp4a\x02"] {
        add(TagKind::Video, body);
        add(TagKind::Audio, body);
    }
    seeds
}
