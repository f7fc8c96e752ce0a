//! AMF, the value encoding of RTMP commands and FLV script data: AMF0 and AMF3.
//!
//! Both decoders are bounded by [`DEPTH_MAX`] and [`VALUES_MAX`], and reserve nothing from a count
//! on the wire. Strings are refcounted, so that AMF3's string references do not amplify.

pub mod amf0;
pub mod amf3;

use std::sync::Arc;

/// Deepest nesting that a decoder follows. Real peers use three levels.
pub const DEPTH_MAX: usize = 32;

/// Most values that one decoder run yields; a `connect` with every E-RTMP field has under 100.
pub const VALUES_MAX: usize = 1000;

/// A value of AMF0 or AMF3.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A double; AMF3's integers arrive here too.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A string of either length form, or an XML document's text.
    String(Arc<str>),
    /// An object's properties in their order; a class name is dropped.
    Object(Vec<(Arc<str>, Self)>),
    /// AMF0's ECMA array, AMF3's array with an associative part.
    EcmaArray(Vec<(Arc<str>, Self)>),
    /// A dense array.
    StrictArray(Vec<Self>),
    /// Milliseconds since 1970.
    Date(f64),
    /// AMF3's byte array.
    Bytes(Vec<u8>),
    /// Null.
    Null,
    /// Undefined, unsupported, or a reference to an earlier complex value, which is not followed.
    Undefined,
}

impl Value {
    /// A string value.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// An object from pairs.
    pub fn object<const N: usize>(pairs: [(&str, Self); N]) -> Self {
        Self::Object(pairs.into_iter().map(|(key, value)| (Arc::from(key), value)).collect())
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Boolean(flag) = self { Some(*flag) } else { None }
    }

    /// The property `key` of an object or ECMA array.
    pub fn property(&self, key: &str) -> Option<&Self> {
        let (Self::Object(pairs) | Self::EcmaArray(pairs)) = self else { return None };
        pairs.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }
}

/// Why bytes are not AMF.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AmfError {
    /// The input ends inside a value.
    #[error("AMF value ends early")]
    Truncated,
    /// Nesting beyond [`DEPTH_MAX`].
    #[error("AMF nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// More than [`VALUES_MAX`] values.
    #[error("AMF with more than {VALUES_MAX} values")]
    TooManyValues,
    /// A marker that neither version defines, or that we do not take (externalizable).
    #[error("AMF marker {0:#04x} is not known")]
    UnknownMarker(u8),
    /// A reference to an entry that does not exist.
    #[error("AMF reference to a missing entry")]
    BadReference,
}

/// What both decoders share: the input and the limits.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, values_left: VALUES_MAX }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn count_value(&mut self) -> Result<(), AmfError> {
        self.values_left = self.values_left.checked_sub(1).ok_or(AmfError::TooManyValues)?;
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], AmfError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(AmfError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(AmfError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, AmfError> {
        Ok(self.array::<1>()?[0])
    }

    fn double(&mut self) -> Result<f64, AmfError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// Text of `len` bytes; what is not UTF-8 is replaced, since old encoders send their code page. The
    /// replacement is one byte, so that a text takes no more than has come.
    fn text(&mut self, len: usize) -> Result<Arc<str>, AmfError> {
        let bytes = self.take(len)?;
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Ok(Arc::from(text));
        }
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend((!chunk.invalid().is_empty()).then_some('?'));
        }
        Ok(Arc::from(text))
    }
}
