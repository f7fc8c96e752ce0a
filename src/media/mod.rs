//! One live stream on one shard: a log of tags, and cursors in it. No I/O, no protocol's name.
//!
//! Invariants worth naming:
//! * An entry's index never changes; the log only grows at its end and is cut at its front.
//! * A subscription holds a position and nothing of the media: what is in flight is held by whoever
//!   sends it.
//! * Entries between two indexes are the same for every subscription, in the same order.
//! * An epoch is one publish. Subscriptions outlive epochs.

mod clock;
mod cursor;
mod headers;
mod log;
mod mix;
mod pace;
mod rendition;
mod replica;
mod schedule;
mod settings;
mod taker;

pub use clock::{Clock, TimeJitter};
pub use cursor::{Step, Subscription};
pub use headers::{HEADERS_BYTES_MAX, HEADERS_MAX, Headers};
pub use log::{ENTRY_BYTES, Entry, LOG_BYTES_MAX, LOG_ENTRIES_MAX, Log};
pub use mix::{MIX_BYTES_MAX, MIX_TAGS_MAX, Mix};
pub use pace::{CEILING_MS, Pace, STEP_MS as PACE_STEP_MS};
pub use rendition::{Kind, Piece, Reader, Render, Rendition};
pub use replica::{KEYFRAME_WAIT_TAGS_MAX, Replica, Snapshot};
pub use schedule::{GROUP_MEMBERS_MIN, PHASE_MS_MIN, PHASES_MAX, Schedule};
pub use settings::Settings;
pub use taker::Taker;
