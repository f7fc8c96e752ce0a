//! AMF0 (Action Message Format 0, Adobe 2007).

use super::{AmfError, DEPTH_MAX, Input, Value, amf3};
use std::sync::Arc;

/// Decodes values until the input ends.
///
/// # Errors
/// Any [`AmfError`]; the input is untrusted.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut input = Input::new(bytes);
    let mut values = Vec::new();
    while !input.is_empty() {
        values.push(value(&mut input, 0)?);
    }
    Ok(values)
}

/// Decodes one value from the front of `bytes`; returns it and what follows.
///
/// # Errors
/// Any [`AmfError`].
pub fn decode_one(bytes: &[u8]) -> Result<(Value, &[u8]), AmfError> {
    let mut input = Input::new(bytes);
    let first = value(&mut input, 0)?;
    Ok((first, input.rest()))
}

fn value(input: &mut Input<'_>, depth: usize) -> Result<Value, AmfError> {
    if depth >= DEPTH_MAX {
        return Err(AmfError::TooDeep);
    }
    input.count_value()?;
    match input.byte()? {
        marker::NUMBER => Ok(Value::Number(input.double()?)),
        marker::BOOLEAN => Ok(Value::Boolean(input.byte()? != 0)),
        marker::STRING => Ok(Value::String(short_text(input)?)),
        marker::OBJECT => Ok(Value::Object(properties(input, depth)?)),
        marker::NULL => Ok(Value::Null),
        marker::UNDEFINED | marker::UNSUPPORTED => Ok(Value::Undefined),
        marker::REFERENCE => input.array::<2>().map(|_| Value::Undefined),
        marker::ECMA_ARRAY => {
            // The count is a hint at best (librtmp writes 0): the end marker decides.
            input.array::<4>()?;
            Ok(Value::EcmaArray(properties(input, depth)?))
        }
        marker::STRICT_ARRAY => strict_array(input, depth),
        marker::DATE => {
            let milliseconds = input.double()?;
            input.array::<2>()?;
            Ok(Value::Date(milliseconds))
        }
        marker::LONG_STRING | marker::XML => {
            let len = u32::from_be_bytes(input.array()?) as usize;
            Ok(Value::String(input.text(len)?))
        }
        marker::TYPED_OBJECT => {
            short_text(input)?;
            Ok(Value::Object(properties(input, depth)?))
        }
        marker::AVM_PLUS => amf3::value(input, &mut amf3::Tables::default(), depth + 1),
        other => Err(AmfError::UnknownMarker(other)),
    }
}

fn short_text(input: &mut Input<'_>) -> Result<Arc<str>, AmfError> {
    let len = usize::from(u16::from_be_bytes(input.array()?));
    input.text(len)
}

/// Pairs up to the end marker. An ECMA array whose end marker is missing at the end of the input is
/// taken as it is: some cameras' onMetaData stops there.
fn properties(input: &mut Input<'_>, depth: usize) -> Result<Vec<(Arc<str>, Value)>, AmfError> {
    let mut pairs = Vec::new();
    while !input.is_empty() {
        let key = short_text(input)?;
        if input.rest().first() == Some(&marker::OBJECT_END) {
            input.byte()?;
            return Ok(pairs);
        }
        pairs.push((key, value(input, depth + 1)?));
    }
    Ok(pairs)
}

fn strict_array(input: &mut Input<'_>, depth: usize) -> Result<Value, AmfError> {
    let count = u32::from_be_bytes(input.array()?);
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(value(input, depth + 1)?);
    }
    Ok(Value::StrictArray(items))
}

/// Encodes `value` at the end of `out`. Bytes, which AMF0 lacks, become null.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => {
            out.push(marker::NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(flag) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*flag)]),
        Value::String(text) => encode_string(text, out),
        Value::Object(pairs) => {
            out.push(marker::OBJECT);
            encode_properties(pairs, out);
        }
        Value::EcmaArray(pairs) => {
            out.push(marker::ECMA_ARRAY);
            out.extend_from_slice(&count(pairs.len()));
            encode_properties(pairs, out);
        }
        Value::StrictArray(items) => {
            out.push(marker::STRICT_ARRAY);
            out.extend_from_slice(&count(items.len()));
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Date(milliseconds) => {
            out.push(marker::DATE);
            out.extend_from_slice(&milliseconds.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        Value::Null | Value::Bytes(_) => out.push(marker::NULL),
        Value::Undefined => out.push(marker::UNDEFINED),
    }
}

/// Encodes several values after each other, as a command's or script tag's body.
pub fn encode_all(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    values.iter().for_each(|value| encode(value, &mut out));
    out
}

fn encode_string(text: &str, out: &mut Vec<u8>) {
    match u16::try_from(text.len()) {
        Ok(len) => {
            out.push(marker::STRING);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(marker::LONG_STRING);
            out.extend_from_slice(&count(text.len()));
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn encode_properties(pairs: &[(Arc<str>, Value)], out: &mut Vec<u8>) {
    for (key, value) in pairs {
        let key = key.as_bytes();
        let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&key[..usize::from(len)]);
        encode(value, out);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const REFERENCE: u8 = 0x07;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0A;
    pub(super) const DATE: u8 = 0x0B;
    pub(super) const LONG_STRING: u8 = 0x0C;
    pub(super) const UNSUPPORTED: u8 = 0x0D;
    pub(super) const XML: u8 = 0x0F;
    pub(super) const TYPED_OBJECT: u8 = 0x10;
    pub(super) const AVM_PLUS: u8 = 0x11;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        Value::object([
            ("app", Value::string("live")),
            ("long", Value::string("x".repeat(70_000))),
            ("n", Value::Number(-1.5)),
            ("flag", Value::Boolean(true)),
            ("list", Value::StrictArray(vec![Value::Null, Value::Undefined, Value::Date(7.0)])),
            ("map", Value::EcmaArray(vec![(Arc::from("k"), Value::Number(1.0))])),
        ])
    }

    #[test]
    fn round_trips_and_every_prefix_is_an_error() {
        let bytes = encode_all(&[sample()]);
        assert_eq!(decode_all(&bytes), Ok(vec![sample()]));
        // Without their end markers the two open objects are taken as they are.
        let whole = bytes.len() - 6;
        for cut in (1..whole).filter(|cut| *cut < 100 || whole - cut < 100) {
            assert!(decode_all(&bytes[..cut]) != Ok(vec![sample()]), "cut at {cut}");
        }
    }

    /// Ten thousand levels are refused, not recursed into (conformance: AMF depth limit).
    #[test]
    fn deep_nesting_is_refused() {
        for unit in [&[0x0A, 0, 0, 0, 1][..], &[0x03, 0, 1, b'k'][..], &[0x08, 0, 0, 0, 1, 0, 1, b'k'][..]] {
            assert_eq!(decode_all(&unit.repeat(10_000)), Err(AmfError::TooDeep));
        }
        let mut amf3 = vec![0x11];
        amf3.extend_from_slice(&[0x09, 0x03, 0x01].repeat(10_000));
        assert_eq!(decode_all(&amf3), Err(AmfError::TooDeep));
    }

    /// A count of 2^32 - 1 costs nothing before its values arrive.
    #[test]
    fn lying_counts_reserve_nothing() {
        assert_eq!(decode_all(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF]), Err(AmfError::Truncated));
        assert_eq!(decode_all(&[0x0C, 0xFF, 0xFF, 0xFF, 0xFF, b'x']), Err(AmfError::Truncated));
        assert_eq!(decode_all(&[0x05].repeat(1001)), Err(AmfError::TooManyValues));
    }

    /// What is not UTF-8 takes no more than it had, and a key of it no more than a key may have.
    #[test]
    fn broken_text_does_not_grow() {
        let long = [&[0x0C, 0, 1, 0, 0][..], &[0xE9; 65_536]].concat();
        let values = decode_all(&long).unwrap();
        assert_eq!(values[0].as_str().map(str::len), Some(65_536));
        let key = [&[0x03, 0xFF, 0xFF][..], &[0xE9; 65_535], &[0x05, 0, 0, 9]].concat();
        let object = decode_all(&key).unwrap();
        assert_eq!(decode_all(&encode_all(&object)), Ok(object));
        assert_eq!(decode_all(b"\x02\0\x04caf\xE9"), Ok(vec![Value::string("caf?")]));
    }

    proptest::proptest! {
        /// No input panics.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            drop(decode_all(&bytes));
        }
    }
}
