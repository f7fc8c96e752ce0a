//! What shards tell each other with: every one of it on cache lines of its own.

use atomic_waker::AtomicWaker;
use std::{
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

/// Something that shares no cache line with anything else; processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Wakes one shard's loop, from any thread.
#[derive(Debug, Default)]
pub struct ShardWaker {
    bell: Padded<Bell>,
    /// The shard flushes streams without an interval of their own at once. Asked per tag, said seldom.
    eager: Padded<AtomicBool>,
}

#[derive(Debug, Default)]
struct Bell {
    pending: AtomicBool,
    waker: AtomicWaker,
}

impl ShardWaker {
    /// Says whether the shard wants to be woken for tags of streams whose interval follows its load.
    pub fn set_eager(&self, eager: bool) {
        self.eager.store(eager, Ordering::Relaxed);
    }

    /// See [`Self::set_eager`].
    pub fn is_eager(&self) -> bool {
        self.eager.load(Ordering::Relaxed)
    }

    /// Wakes the shard, once until it has looked.
    pub fn wake(&self) {
        if !self.bell.pending.swap(true, Ordering::AcqRel) {
            self.bell.waker.wake();
        }
    }

    /// Ready when somebody has woken the shard since the last time.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Bell { pending, waker } = &*self.bell;
        if pending.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        waker.register(cx.waker());
        if pending.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}
