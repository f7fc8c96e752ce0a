//! Who is flushed when: merged writes, spread over phases.
//!
//! Bytes per send decide density, so members are flushed once per `mw_latency`, and in groups one
//! after the other so that a burst does not stall the shard. With 0 ms everybody is flushed when a
//! tag comes.

use std::ops::Range;

/// Most groups; more cost more than they smooth (measured: 35 phases +40 % CPU).
pub const PHASES_MAX: u64 = 7;
/// Shortest time between two groups' flushes, in ms: a timer tick costs 31 to 46 µs.
pub const PHASE_MS_MIN: u64 = 25;

/// The members of one stream on one shard, by phase.
#[derive(Debug)]
pub struct Schedule {
    phase_ms: u64,
    groups: Vec<Group>,
    due: usize,
    due_ms: u64,
    members: usize,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<u64>,
    /// Members that are lent; they count as here.
    lent: usize,
    /// No member stands before this index.
    oldest: u64,
    /// Where the group was flushed to, and when.
    flushed_to: u64,
    flushed_ms: u64,
}

impl Schedule {
    /// A schedule for a flush interval in ms; 0 means at once.
    pub fn new(mw_latency_ms: u64) -> Self {
        let phases = (mw_latency_ms / PHASE_MS_MIN.max(mw_latency_ms / PHASES_MAX).max(1)).clamp(1, PHASES_MAX);
        let groups = (0..phases).map(|_| Group::default()).collect();
        Self { phase_ms: mw_latency_ms / phases, groups, due: 0, due_ms: 0, members: 0 }
    }

    /// Whether members are flushed as tags come.
    pub fn is_immediate(&self) -> bool {
        self.phase_ms == 0
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// How many are here.
    pub fn len(&self) -> usize {
        self.members
    }

    /// Every member.
    pub fn members(&self) -> impl Iterator<Item = u64> {
        self.groups.iter().flat_map(|group| group.members.iter().copied())
    }

    /// Adds a member at position `at` to the smallest group.
    pub fn add(&mut self, member: u64, at: u64) {
        let Some(group) = self.groups.iter_mut().min_by_key(|group| group.members.len()) else { return };
        group.oldest = if group.members.is_empty() { at } else { group.oldest.min(at) };
        group.members.push(member);
        self.members += 1;
    }

    /// Removes a member.
    pub fn remove(&mut self, member: u64) {
        for group in &mut self.groups {
            if let Some(at) = group.members.iter().position(|known| *known == member) {
                group.members.swap_remove(at);
                self.members -= 1;
                return;
            }
        }
    }

    /// A member may stand at `at` until its group is flushed: a publish begins there, or a joiner has
    /// got a part of a GOP.
    pub fn hold(&mut self, at: u64) {
        for group in &mut self.groups {
            group.oldest = group.oldest.min(at);
        }
    }

    /// No member stands before this index; `u64::MAX` if nobody is here.
    pub fn oldest(&self) -> u64 {
        let groups = self.groups.iter().filter(|group| !group.members.is_empty());
        groups.map(|group| group.oldest).min().unwrap_or(u64::MAX)
    }

    /// When the next group is due, in ms of the caller's clock; `None` without members or at 0 ms.
    pub fn next_due_ms(&self) -> Option<u64> {
        (!self.is_immediate() && self.members > 0).then_some(self.due_ms)
    }

    /// The groups that are due at `now_ms` with the log's end at `head`; a group with fewer than
    /// `msgs` new tags waits for one more round.
    pub fn take_due(&mut self, now_ms: u64, head: u64, msgs: u64) -> Range<usize> {
        if self.is_immediate() {
            return 0..self.groups.len();
        }
        if now_ms < self.due_ms {
            return 0..0;
        }
        // Streams with the same interval share their ticks: due times lie on a common grid.
        self.due_ms = (now_ms / self.phase_ms + 1) * self.phase_ms;
        let at = self.due;
        self.due = (self.due + 1) % self.groups.len();
        let interval_ms = self.phase_ms * self.groups.len() as u64;
        let group = &mut self.groups[at];
        let few = head.saturating_sub(group.flushed_to) < msgs;
        if few && now_ms.saturating_sub(group.flushed_ms) < interval_ms + interval_ms / 2 {
            return 0..0;
        }
        group.flushed_to = head;
        group.flushed_ms = now_ms;
        at..at + 1
    }

    /// The members of a group, taken out while they are flushed.
    pub fn lend(&mut self, group: usize) -> Vec<u64> {
        let group = &mut self.groups[group];
        group.lent = group.members.len();
        std::mem::take(&mut group.members)
    }

    /// Puts those lent members back that stay; none of them stands before `oldest`.
    pub fn put_back(&mut self, group: usize, members: Vec<u64>, oldest: u64) {
        let group = &mut self.groups[group];
        self.members = self.members + members.len() - std::mem::take(&mut group.lent);
        group.members = members;
        group.oldest = oldest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_the_interval() {
        let phases = |ms| Schedule::new(ms).groups.len();
        assert_eq!(
            [phases(0), phases(10), phases(25), phases(50), phases(100), phases(350), phases(1800)],
            [1, 1, 1, 2, 4, 7, 7]
        );
        assert!(Schedule::new(0).is_immediate() && !Schedule::new(10).is_immediate());
    }

    /// Within one interval every member is due exactly once, and no two groups at once.
    #[test]
    fn every_member_is_due_once_per_interval() {
        let mut schedule = Schedule::new(350);
        (0..100).for_each(|member| schedule.add(member, 0));
        let mut due = Vec::new();
        for now_ms in 700..1050 {
            for group in schedule.take_due(now_ms, now_ms, 0) {
                let members = schedule.lend(group);
                due.extend_from_slice(&members);
                schedule.put_back(group, members, now_ms);
            }
        }
        due.sort_unstable();
        assert_eq!(due, (0..100).collect::<Vec<_>>());
    }

    /// Few messages wait for a second round, and no longer.
    #[test]
    fn few_messages_wait_once() {
        let mut schedule = Schedule::new(25);
        schedule.add(1, 0);
        assert_eq!(schedule.take_due(1000, 100, 8), 0..1);
        assert_eq!(schedule.take_due(1025, 103, 8), 0..0);
        assert_eq!(schedule.take_due(1050, 104, 8), 0..1);
        assert_eq!(schedule.take_due(1075, 112, 8), 0..1);
    }

    #[test]
    fn oldest_holds_the_log() {
        let mut schedule = Schedule::new(350);
        assert_eq!(schedule.oldest(), u64::MAX);
        schedule.add(1, 50);
        schedule.add(2, 40);
        assert_eq!(schedule.oldest(), 40);
        schedule.remove(2);
        assert_eq!((schedule.oldest(), schedule.len()), (50, 1));
        schedule.hold(10);
        assert_eq!(schedule.oldest(), 10);
    }
}
