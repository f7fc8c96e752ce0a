//! The images that the members of one flush share, and the file that large ones are sent from.

use super::port::ImageKey;
use crate::{
    config::SendPath,
    mesh::relay::StreamId,
    sys::{self, ImageFile, Place},
};
use std::{ops::Range, os::fd::RawFd, rc::Rc};

/// Most images of one flush: players who began at different places may share none.
const IMAGES_MAX: usize = 8;
/// From so many bytes on an image is sent from the file: a smaller one is copied sooner than its pages are found.
const FILE_BYTES_MIN: usize = 16 << 10;
/// From so many members on: writing the file is a copy too.
const FILE_MEMBERS_MIN: u32 = 4;

/// A shared image of entries, for the members of one flush that stand at the same place.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) stream: StreamId,
    pub(super) key: ImageKey,
    pub(super) range: Range<u64>,
    /// The log's end when it was made.
    pub(super) head: u64,
    pub(super) newest_ms: i64,
    pub(super) kinds: [bool; 3],
    pub(super) bytes: Rc<Vec<u8>>,
    members: u32,
    place: Option<Place>,
}

/// What a member gets of an image.
pub(super) type Share = (Rc<Vec<u8>>, Option<Place>);

/// See the module.
#[derive(Debug)]
pub(super) struct Images {
    images: Vec<Image>,
    path: SendPath,
    /// `None` where it is not wanted, or the machine has none.
    file: Option<ImageFile>,
}

impl Images {
    pub(super) fn new(path: SendPath) -> Self {
        let mut new = Self { images: Vec::new(), path: SendPath::Copy, file: None };
        new.set_path(path);
        new
    }

    /// How images go from the next flush on.
    pub(super) fn set_path(&mut self, path: SendPath) {
        if path == self.path {
            return;
        }
        self.path = path;
        self.file = None;
        if path == SendPath::Copy {
            return;
        }
        if !sys::waits_on_nonblocking() {
            return tracing::warn!("send_path: io_uring's sends do not wait on nonblocking sockets here: copying");
        }
        match ImageFile::new() {
            Ok(file) => self.file = Some(file),
            Err(error) => tracing::warn!(%error, "send_path: no file in memory: copying"),
        }
    }

    /// Whether images go by a file: sockets are nonblocking then.
    pub(super) fn by_file(&self) -> bool {
        self.file.is_some()
    }

    /// The image of what comes next, if there is one.
    pub(super) fn find(&self, stream: StreamId, next: u64, head: u64, key: ImageKey) -> Option<usize> {
        self.images.iter().position(|image| {
            image.stream == stream && image.range.start == next && image.head == head && image.key == key
        })
    }

    pub(super) fn get(&self, at: usize) -> &Image {
        &self.images[at]
    }

    pub(super) fn is_full(&self) -> bool {
        self.images.len() >= IMAGES_MAX
    }

    /// Adds one, and gives it to the first member.
    pub(super) fn add(
        &mut self,
        stream: StreamId,
        key: ImageKey,
        (range, head): (Range<u64>, u64),
        (newest_ms, kinds): (i64, [bool; 3]),
        bytes: Vec<u8>,
    ) -> Share {
        let bytes = Rc::new(bytes);
        self.images.push(Image { stream, key, range, head, newest_ms, kinds, bytes, members: 0, place: None });
        self.share(self.images.len() - 1)
    }

    /// Gives one to a member.
    pub(super) fn share(&mut self, at: usize) -> Share {
        let image = &mut self.images[at];
        image.members += 1;
        if image.members == FILE_MEMBERS_MIN && image.bytes.len() >= FILE_BYTES_MIN {
            image.place = self.file.as_mut().and_then(|file| file.put(&image.bytes));
        }
        (Rc::clone(&image.bytes), image.place)
    }

    /// Sends from the file what a plain socket has room for; returns how many bytes.
    pub(super) fn send(&mut self, descriptor: RawFd, place: Place) -> usize {
        self.file.as_mut().map_or(0, |file| file.send(descriptor, place))
    }

    /// The flush is over.
    pub(super) fn clear(&mut self) {
        self.images.clear();
        if let Some(Err(error)) = self.file.as_mut().map(ImageFile::clear) {
            tracing::warn!(%error, "send_path: pages cannot be dropped: copying");
            self.file = None;
        }
    }

    /// System calls since this was asked last.
    pub(super) fn take_syscalls(&mut self) -> u64 {
        self.file.as_mut().map_or(0, ImageFile::take_syscalls)
    }
}
