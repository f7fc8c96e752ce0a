//! FLV (Adobe Flash Video File Format 10.1, Annex E): tags, and the file around them.

pub mod file;

use bytes::Bytes;

/// An FLV tag's kind; RTMP messages of the same types have the same bodies (§E.4.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TagKind {
    /// Audio, type 8.
    Audio,
    /// Video, type 9.
    Video,
    /// Script data, type 18.
    Script,
}

impl TagKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Video, Self::Script];

    /// The type id in FLV and RTMP.
    pub const fn type_id(self) -> u8 {
        match self {
            Self::Audio => 8,
            Self::Video => 9,
            Self::Script => 18,
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Audio => 0,
            Self::Video => 1,
            Self::Script => 2,
        }
    }

    /// The kind of a type id.
    pub const fn from_type_id(type_id: u8) -> Option<Self> {
        match type_id {
            8 => Some(Self::Audio),
            9 => Some(Self::Video),
            18 => Some(Self::Script),
            _ => None,
        }
    }
}

/// One tag, refcounted: cloning it copies no media.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tag {
    /// Audio, video or script data.
    pub kind: TagKind,
    /// Milliseconds as published, modulo 2^32.
    pub timestamp: u32,
    /// The body as published.
    pub body: Bytes,
}
