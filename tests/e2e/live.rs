//! A publisher that sends in real time, in a thread of its own.

use crate::peer::{AVC_HEADER, Peer};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Stops when dropped.
pub(crate) struct Live {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Peer>>,
}

impl Live {
    /// Publishes a frame of `bytes` every `every_ms`, each `gop`-th a keyframe, from time 0 on.
    pub(crate) fn start(server: SocketAddr, app: &str, stream: &str, every_ms: u32, gop: u32, bytes: usize) -> Self {
        let mut peer = Peer::publish(server, app, stream);
        peer.control(corecast::proto::rtmp::message::Control::SetChunkSize(60_000));
        peer.writer.set_chunk_size(60_000);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            peer.send(6, 9, 1, 0, AVC_HEADER);
            for frame in 0.. {
                let due = Duration::from_millis(u64::from(frame * every_ms));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
                if told.load(Ordering::Relaxed) {
                    break;
                }
                // The server may have reason to close.
                if peer.try_send_frame(1, frame * every_ms, frame % gop == 0, bytes).is_err() {
                    break;
                }
            }
            peer
        });
        Self { stop, thread: Some(thread) }
    }

    /// Sends no more; the connection stays.
    pub(crate) fn silence(mut self) -> Peer {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("running").join().expect("the publisher")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Distances between bursts of arrivals, in ms: a burst is what comes within 15 ms.
pub(crate) fn bursts(frames: &[(u32, u128)]) -> Vec<u128> {
    let mut begins: Vec<u128> = Vec::new();
    let mut last = None;
    for (_, at) in frames {
        if last.is_none_or(|last| at - last > 15) {
            begins.push(*at);
        }
        last = Some(*at);
    }
    begins.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// The middle one.
pub(crate) fn median(mut values: Vec<u128>) -> u128 {
    assert!(!values.is_empty(), "nothing to take the median of");
    values.sort_unstable();
    values[values.len() / 2]
}
