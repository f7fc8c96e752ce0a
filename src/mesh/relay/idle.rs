//! Streams that are published to nobody (`kickoff_for_idle`).

use super::{Relay, StreamId};
use crate::mesh::ring::Cargo;
use std::sync::Arc;

impl<P, M: Cargo> Relay<P, M> {
    /// Has streams that nobody plays give up what they keep for late joiners, those first whose is the oldest, until `bytes`
    /// are free; returns how many are.
    pub fn give_up(&mut self, bytes: usize) -> usize {
        let unseen = self.streams.iter().filter(|(_, stream)| stream.is_unseen());
        let mut oldest: Vec<(u64, StreamId)> = unseen
            .filter_map(|(id, stream)| {
                let log = stream.replica.log();
                Some((log.at(log.first())?.arrived_ms, id))
            })
            .collect();
        oldest.sort_unstable();
        let mut freed = 0;
        for (_, id) in oldest {
            if freed >= bytes {
                break;
            }
            freed += self.streams.get_mut(id).map_or(0, |stream| stream.replica.give_up());
        }
        freed
    }

    /// Publishers whose streams nobody has wanted for as long as their settings say, with keys and that time in ms; and when
    /// the next one's time will have come.
    pub fn publishers_to_kick(&mut self, now_ms: u64) -> (Vec<(Arc<str>, P, u64)>, u64)
    where
        P: Clone,
    {
        let (mut late, mut next_ms) = (Vec::new(), u64::MAX);
        for (_, stream) in &mut self.streams {
            let kickoff_ms = stream.linger_ms.or(Some(stream.replica.settings().kickoff_ms).filter(|ms| *ms > 0));
            let Some(kickoff_ms) =
                kickoff_ms.filter(|_| stream.publisher.is_some() && stream.is_unseen() && !stream.pinned)
            else {
                stream.idle_since_ms = None;
                continue;
            };
            let due_ms = *stream.idle_since_ms.get_or_insert(now_ms) + kickoff_ms;
            if now_ms >= due_ms {
                late.extend(stream.publisher.clone().map(|publisher| (Arc::clone(&stream.key), publisher, kickoff_ms)));
            } else {
                next_ms = next_ms.min(due_ms);
            }
        }
        (late, next_ms)
    }

    /// Takes note of it if nobody wants a stream from now on.
    pub fn note_idle(&mut self, id: StreamId) {
        let seen_ms = self.seen_ms;
        if let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.publisher.is_some() && stream.is_unseen())
        {
            stream.idle_since_ms = Some(seen_ms);
        }
    }
}
