//! AMF3: what follows a value is left, memory is bounded, and values survive AMF0, which has an encoder.
#![no_main]

use corecast::proto::amf::{AmfError, VALUES_MAX, amf0, amf3};
use corecast_fuzz::{assert_taken, bound, seeds, within};
use libfuzzer_sys::fuzz_target;

/// The most that a value takes beside its text: an object of one pair with traits of its own.
const VALUE_BYTES_MAX: usize = 512;

fuzz_target!(init: seeds(values), |data: &[u8]| {
    let decoded = within(bound(data.len()) + VALUES_MAX * VALUE_BYTES_MAX, || amf3::decode_one(data));
    let Ok((value, rest)) = decoded else { return };
    assert_taken(data, rest);
    assert!(rest.len() < data.len(), "a value of no bytes");
    // Its bytes alone say the same.
    let (alone, after) = amf3::decode_one(&data[..data.len() - rest.len()]).expect("the value's own bytes");
    assert!(after.is_empty());
    // Bytes compare better than values: NaN is not equal to itself.
    let encoded = amf0::encode_all(std::slice::from_ref(&value));
    assert_eq!(amf0::encode_all(&[alone]), encoded);
    match amf0::decode_all(&encoded) {
        Ok(again) => assert_eq!(amf0::encode_all(&again), encoded),
        // The numbers of a vector are values of their own there, a level deeper.
        Err(error) => assert_eq!(error, AmfError::TooDeep),
    }
    // Behind AMF0's marker it is the same value.
    if let Ok((inside, after)) = amf0::decode_one(&[&[0x11], data].concat()) {
        assert_eq!((amf0::encode_all(&[inside]), after), (encoded, rest));
    }
});

fn values() -> Vec<Vec<u8>> {
    let each: [&[u8]; 20] = [
        b"\x00",
        b"\x02",
        b"\x04\x7F",
        b"\x04\xFF\xFF\xFF\xFF",
        b"\x05\x3F\xF0\0\0\0\0\0\0",
        b"\x06\x05hi",
        b"\x07\x05<>",
        b"\x08\x01\x3F\xF0\0\0\0\0\0\0",
        b"\x09\x05\x01\x02\x03",
        b"\x09\x03\x03k\x01\x01\x02",
        b"\x0A\x0B\x01\x03a\x06\0\x01",
        b"\x0A\x23\x03C\x03a\x03b\x04\x01\x0A\x01\x04\x01\x04\x02",
        b"\x0B\x05<>",
        b"\x0C\x05ab",
        b"\x0D\x03\0\0\0\0\x07",
        b"\x0E\x03\0\0\0\0\x07",
        b"\x0F\x03\0\x3F\xF0\0\0\0\0\0\0",
        b"\x10\x03\0\x01\x02",
        b"\x11\x03\0\x06\x03k\x02",
        b"\x09\x05\x01\x0A\x0B\x01\x03a\x06\x03b\x01\x0A\x01\x00\x06\x02\x01\x08\x02",
    ];
    each.iter().map(|value| value.to_vec()).collect()
}
