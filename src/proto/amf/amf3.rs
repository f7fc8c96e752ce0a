//! AMF3 (Action Message Format 3, Adobe 2013), as it stands in messages of types 15 to 17 behind
//! AMF0's avmplus marker.

use super::{AmfError, DEPTH_MAX, Input, Value};
use std::sync::Arc;

/// The reference tables of one AMF3 value (§2.2). Objects are counted, not kept: a reference to one
/// decodes as [`Value::Undefined`].
#[derive(Debug, Default)]
pub(crate) struct Tables {
    strings: Vec<Arc<str>>,
    traits: Vec<Arc<Traits>>,
    objects: usize,
}

#[derive(Debug)]
struct Traits {
    dynamic: bool,
    members: Vec<Arc<str>>,
}

/// Decodes one AMF3 value from the front of `bytes`.
///
/// # Errors
/// Any [`AmfError`]; externalizable objects are refused as an unknown marker.
pub fn decode_one(bytes: &[u8]) -> Result<(Value, &[u8]), AmfError> {
    let mut input = Input::new(bytes);
    let first = value(&mut input, &mut Tables::default(), 0)?;
    Ok((first, input.rest()))
}

pub(crate) fn value(input: &mut Input<'_>, tables: &mut Tables, depth: usize) -> Result<Value, AmfError> {
    if depth >= DEPTH_MAX {
        return Err(AmfError::TooDeep);
    }
    input.count_value()?;
    match input.byte()? {
        0x00 => Ok(Value::Undefined),
        0x01 => Ok(Value::Null),
        0x02 => Ok(Value::Boolean(false)),
        0x03 => Ok(Value::Boolean(true)),
        0x04 => Ok(Value::Number(f64::from(integer(input)?))),
        0x05 => Ok(Value::Number(input.double()?)),
        0x06 => Ok(Value::String(text(input, tables)?)),
        0x07 | 0x0B => xml(input, tables),
        0x08 => date(input, tables),
        0x09 => array(input, tables, depth),
        0x0A => object(input, tables, depth),
        0x0C => byte_array(input, tables),
        0x0D => vector(input, tables, |input| Ok(f64::from(i32::from_be_bytes(input.array()?)))),
        0x0E => vector(input, tables, |input| Ok(f64::from(u32::from_be_bytes(input.array()?)))),
        0x0F => vector(input, tables, |input| input.double()),
        0x10 => object_vector(input, tables, depth),
        0x11 => dictionary(input, tables, depth),
        other => Err(AmfError::UnknownMarker(other)),
    }
}

/// An unsigned 29-bit integer of one to four bytes (§1.3.1).
fn u29(input: &mut Input<'_>) -> Result<u32, AmfError> {
    let mut number = 0;
    for _ in 0..3 {
        let byte = input.byte()?;
        number = number << 7 | u32::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Ok(number << 8 | u32::from(input.byte()?))
}

fn integer(input: &mut Input<'_>) -> Result<i32, AmfError> {
    let number = u29(input)?;
    // Sign extension of bit 28.
    Ok((number << 3).cast_signed() >> 3)
}

/// A length or a reference: bit 0 tells which. `None` is a reference to a known complex value.
fn complex(input: &mut Input<'_>, tables: &mut Tables) -> Result<Option<usize>, AmfError> {
    let head = u29(input)?;
    let index = (head >> 1) as usize;
    if head & 1 == 1 {
        tables.objects += 1;
        return Ok(Some(index));
    }
    if index < tables.objects { Ok(None) } else { Err(AmfError::BadReference) }
}

fn text(input: &mut Input<'_>, tables: &mut Tables) -> Result<Arc<str>, AmfError> {
    let head = u29(input)?;
    let index = (head >> 1) as usize;
    if head & 1 == 0 {
        return tables.strings.get(index).cloned().ok_or(AmfError::BadReference);
    }
    let text = input.text(index)?;
    if !text.is_empty() {
        tables.strings.push(Arc::clone(&text));
    }
    Ok(text)
}

fn xml(input: &mut Input<'_>, tables: &mut Tables) -> Result<Value, AmfError> {
    let Some(len) = complex(input, tables)? else { return Ok(Value::Undefined) };
    Ok(Value::String(input.text(len)?))
}

fn date(input: &mut Input<'_>, tables: &mut Tables) -> Result<Value, AmfError> {
    if complex(input, tables)?.is_none() {
        return Ok(Value::Undefined);
    }
    Ok(Value::Date(input.double()?))
}

fn byte_array(input: &mut Input<'_>, tables: &mut Tables) -> Result<Value, AmfError> {
    let Some(len) = complex(input, tables)? else { return Ok(Value::Undefined) };
    Ok(Value::Bytes(input.take(len)?.to_vec()))
}

/// Pairs up to the empty key.
fn pairs(input: &mut Input<'_>, tables: &mut Tables, depth: usize) -> Result<Vec<(Arc<str>, Value)>, AmfError> {
    let mut pairs = Vec::new();
    loop {
        let key = text(input, tables)?;
        if key.is_empty() {
            return Ok(pairs);
        }
        pairs.push((key, value(input, tables, depth + 1)?));
    }
}

fn array(input: &mut Input<'_>, tables: &mut Tables, depth: usize) -> Result<Value, AmfError> {
    let Some(len) = complex(input, tables)? else { return Ok(Value::Undefined) };
    let mut associative = pairs(input, tables, depth)?;
    let mut dense = Vec::new();
    for _ in 0..len {
        dense.push(value(input, tables, depth + 1)?);
    }
    if associative.is_empty() {
        return Ok(Value::StrictArray(dense));
    }
    let numbered = dense.into_iter().enumerate().map(|(at, item)| (Arc::from(at.to_string()), item));
    associative.extend(numbered);
    Ok(Value::EcmaArray(associative))
}

fn object(input: &mut Input<'_>, tables: &mut Tables, depth: usize) -> Result<Value, AmfError> {
    let Some(head) = complex(input, tables)? else { return Ok(Value::Undefined) };
    let traits = object_traits(head, input, tables)?;
    let mut properties = Vec::new();
    for member in &traits.members {
        properties.push((Arc::clone(member), value(input, tables, depth + 1)?));
    }
    if traits.dynamic {
        properties.extend(pairs(input, tables, depth)?);
    }
    Ok(Value::Object(properties))
}

/// The traits that `head` (an object's header without its lowest bit) names or announces (§3.12).
fn object_traits(head: usize, input: &mut Input<'_>, tables: &mut Tables) -> Result<Arc<Traits>, AmfError> {
    if head & 1 == 0 {
        return tables.traits.get(head >> 1).cloned().ok_or(AmfError::BadReference);
    }
    if head & 2 != 0 {
        return Err(AmfError::UnknownMarker(0x0A));
    }
    text(input, tables)?;
    let mut members = Vec::new();
    for _ in 0..head >> 3 {
        input.count_value()?;
        members.push(text(input, tables)?);
    }
    let traits = Arc::new(Traits { dynamic: head & 4 != 0, members });
    tables.traits.push(Arc::clone(&traits));
    Ok(traits)
}

fn vector(
    input: &mut Input<'_>,
    tables: &mut Tables,
    item: impl Fn(&mut Input<'_>) -> Result<f64, AmfError>,
) -> Result<Value, AmfError> {
    let Some(len) = complex(input, tables)? else { return Ok(Value::Undefined) };
    input.byte()?;
    let mut items = Vec::new();
    for _ in 0..len {
        input.count_value()?;
        items.push(Value::Number(item(input)?));
    }
    Ok(Value::StrictArray(items))
}

fn object_vector(input: &mut Input<'_>, tables: &mut Tables, depth: usize) -> Result<Value, AmfError> {
    let Some(len) = complex(input, tables)? else { return Ok(Value::Undefined) };
    input.byte()?;
    text(input, tables)?;
    let mut items = Vec::new();
    for _ in 0..len {
        items.push(value(input, tables, depth + 1)?);
    }
    Ok(Value::StrictArray(items))
}

/// A dictionary; pairs whose key is not a string are dropped.
fn dictionary(input: &mut Input<'_>, tables: &mut Tables, depth: usize) -> Result<Value, AmfError> {
    let Some(len) = complex(input, tables)? else { return Ok(Value::Undefined) };
    input.byte()?;
    let mut entries = Vec::new();
    for _ in 0..len {
        let key = value(input, tables, depth + 1)?;
        let item = value(input, tables, depth + 1)?;
        if let Value::String(key) = key {
            entries.push((key, item));
        }
    }
    Ok(Value::Object(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_each_kind() {
        let number = |n| Ok((Value::Number(n), &[][..]));
        assert_eq!(decode_one(&[0x04, 0x7F]), number(127.0));
        assert_eq!(decode_one(&[0x04, 0xFF, 0xFF, 0xFF, 0xFF]), number(-1.0));
        assert_eq!(decode_one(&[0x06, 0x05, b'h', b'i']), Ok((Value::string("hi"), &[][..])));
        // A dynamic object {a: "a"} whose value refers to its key.
        let object = [0x0A, 0x0B, 0x01, 0x03, b'a', 0x06, 0x00, 0x01];
        assert_eq!(decode_one(&object), Ok((Value::object([("a", Value::string("a"))]), &[][..])));
        let array = [0x09, 0x05, 0x01, 0x02, 0x03];
        let items = vec![Value::Boolean(false), Value::Boolean(true)];
        assert_eq!(decode_one(&array), Ok((Value::StrictArray(items), &[][..])));
        for cut in 0..object.len() {
            assert_eq!(decode_one(&object[..cut]), Err(AmfError::Truncated));
        }
    }

    #[test]
    fn bad_references_and_lying_lengths_are_errors() {
        assert_eq!(decode_one(&[0x06, 0x02]), Err(AmfError::BadReference));
        assert_eq!(decode_one(&[0x0A, 0x02]), Err(AmfError::BadReference));
        assert_eq!(decode_one(&[0x0C, 0xFF, 0xFF, 0xFF, 0xFF]), Err(AmfError::Truncated));
        assert_eq!(decode_one(&[0x0A, 0x07]), Err(AmfError::UnknownMarker(0x0A)));
    }

    proptest::proptest! {
        /// No input panics.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            drop(decode_one(&bytes));
        }
    }
}
