//! Who is flushed when: merged writes, spread over phases.
//!
//! Bytes per send decide density, so members are flushed once per interval, and many members in groups
//! one after the other so that a burst does not stall the shard. With 0 ms everybody is flushed when a
//! tag comes. A flush is taken member by member, so that the shard can do other work in between.

/// Most groups; more cost more than they smooth (measured: 35 phases +40 % CPU).
pub const PHASES_MAX: u64 = 7;
/// Shortest time between two groups' flushes, in ms: a timer tick costs 31 to 46 µs.
pub const PHASE_MS_MIN: u64 = 25;
/// Members from which a group of its own pays: each group builds its image once.
pub const GROUP_MEMBERS_MIN: usize = 32;

/// The members of one stream on one shard, by phase.
#[derive(Debug)]
pub struct Schedule {
    interval_ms: u64,
    /// Which of the shard's phases a stream with fewer groups uses.
    stagger: u64,
    groups: Vec<Group>,
    due: usize,
    due_ms: u64,
    members: usize,
    flushing: Option<Flushing>,
    /// What is new comes to light only at a tick.
    polled: bool,
    /// Groups that are due whatever the time and however few their tags.
    hurried: usize,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<u64>,
    /// No member stands before this index.
    oldest: u64,
    /// Where the group was flushed to, and when.
    flushed_to: u64,
    flushed_ms: u64,
    /// Something has happened since.
    pending: bool,
}

/// A group's flush that has begun: members before `next` have had theirs.
#[derive(Clone, Copy, Debug)]
struct Flushing {
    group: usize,
    next: usize,
    oldest: u64,
}

impl Schedule {
    /// A schedule for a flush interval in ms; 0 means at once. `stagger` spreads small streams over the
    /// shard's phases.
    pub fn new(interval_ms: u64, stagger: u64) -> Self {
        let groups = vec![Group::default()];
        Self { interval_ms, stagger, groups, due: 0, due_ms: 0, members: 0, flushing: None, polled: false, hurried: 0 }
    }

    /// The flush interval in ms.
    pub fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    /// Changes the flush interval.
    pub fn set_interval(&mut self, interval_ms: u64) {
        if interval_ms != self.interval_ms {
            self.interval_ms = interval_ms;
            // A long interval's date does not hold a shorter one up.
            self.due_ms = 0;
            self.fit_groups();
        }
    }

    /// Whether members are flushed as tags come.
    pub fn is_immediate(&self) -> bool {
        self.interval_ms == 0
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
        // At 0 ms whoever comes is served by the connection that brought it.
        group.pending |= self.interval_ms > 0;
        group.members.push(member);
        self.members += 1;
        if let Some(flushing) = &mut self.flushing {
            flushing.oldest = flushing.oldest.min(at);
        }
        self.fit_groups();
    }

    /// Removes a member.
    pub fn remove(&mut self, member: u64) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            let Some(mut at) = group.members.iter().position(|known| *known == member) else { continue };
            if let Some(flushing) = self.flushing.as_mut().filter(|flushing| flushing.group == index)
                && at < flushing.next
            {
                // The last one, not flushed yet, takes the place that is next.
                flushing.next -= 1;
                group.members.swap(at, flushing.next);
                at = flushing.next;
            }
            group.members.swap_remove(at);
            self.members -= 1;
            return self.fit_groups();
        }
    }

    /// A member may stand at `at` until its group is flushed: a publish begins there, or a joiner has
    /// got a part of a GOP.
    pub fn hold(&mut self, at: u64) {
        for group in &mut self.groups {
            group.oldest = group.oldest.min(at);
        }
        if let Some(flushing) = &mut self.flushing {
            flushing.oldest = flushing.oldest.min(at);
        }
    }

    /// Says whether ticks come due though nothing new is known: where tags wait in a ring until somebody
    /// looks.
    pub fn set_polled(&mut self, polled: bool) {
        self.polled = polled;
    }

    /// Makes every group due: members have waited for what has just come.
    pub fn hurry(&mut self) {
        self.hurried = self.groups.len();
        self.due_ms = 0;
    }

    /// Something has happened that members may have to be told.
    pub fn note_change(&mut self) {
        self.groups.iter_mut().for_each(|group| group.pending = true);
    }

    /// No member stands before this index; `u64::MAX` if nobody is here.
    pub fn oldest(&self) -> u64 {
        let groups = self.groups.iter().filter(|group| !group.members.is_empty());
        groups.map(|group| group.oldest).min().unwrap_or(u64::MAX)
    }

    /// When [`Self::begin_flush`] has something to do, in ms of the caller's clock; `None` while there is
    /// nobody or nothing new.
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.flushing.is_some() {
            return Some(0);
        }
        // At 0 ms a tag wakes its shard: only what came in the middle of a flush is left for later.
        let polled = self.polled && !self.is_immediate();
        let waits = |group: &Group| (group.pending || polled) && !group.members.is_empty();
        self.groups.iter().any(waits).then_some(if self.is_immediate() { 0 } else { self.due_ms })
    }

    /// Begins the flush of the group that is due at `now_ms` with the log's end at `head`; a group with
    /// fewer than `msgs` new tags waits for one more round. Tells whether a flush is under way.
    pub fn begin_flush(&mut self, now_ms: u64, head: u64, msgs: u64) -> bool {
        if self.flushing.is_some() {
            return true;
        }
        let hurried = self.hurried > 0;
        if !self.is_immediate() {
            if now_ms < self.due_ms {
                return false;
            }
            self.hurried = self.hurried.saturating_sub(1);
            self.due_ms = if self.hurried > 0 { 0 } else { self.next_tick_ms(now_ms) };
        }
        let at = self.due % self.groups.len();
        self.due = (at + 1) % self.groups.len();
        let group = &mut self.groups[at];
        let few = head.saturating_sub(group.flushed_to) < msgs && !hurried;
        let waited = now_ms.saturating_sub(group.flushed_ms) >= self.interval_ms + self.interval_ms / 2;
        if group.members.is_empty() || !group.pending || few && !waited {
            return false;
        }
        group.pending = false;
        group.flushed_to = head;
        group.flushed_ms = now_ms;
        self.flushing = Some(Flushing { group: at, next: 0, oldest: u64::MAX });
        true
    }

    /// The next member of the flush that is under way, and how many its group has; `None` at its end.
    pub fn next_member(&mut self) -> Option<(u64, usize)> {
        let Flushing { group, next, oldest } = self.flushing?;
        let group = &mut self.groups[group];
        if let Some(member) = group.members.get(next) {
            return Some((*member, group.members.len()));
        }
        group.oldest = oldest;
        self.flushing = None;
        self.fit_groups();
        None
    }

    /// That member has had its flush and needs the log from `oldest` on; with `None` it is no member any
    /// more.
    pub fn flushed(&mut self, member: u64, oldest: Option<u64>) {
        let Some(flushing) = &mut self.flushing else { return };
        let members = &mut self.groups[flushing.group].members;
        if members.get(flushing.next) != Some(&member) {
            return;
        }
        match oldest {
            Some(oldest) => {
                flushing.oldest = flushing.oldest.min(oldest);
                flushing.next += 1;
            }
            None => {
                members.swap_remove(flushing.next);
                self.members -= 1;
            }
        }
    }

    /// Times of equal intervals lie on a common grid, so that streams share the shard's ticks.
    fn next_tick_ms(&self, now_ms: u64) -> u64 {
        let tick_ms = (self.interval_ms / self.groups.len() as u64).max(1);
        let phases = phases(self.interval_ms);
        let offset_ms = (self.stagger % phases) * (self.interval_ms / phases) % tick_ms;
        (now_ms.saturating_sub(offset_ms) / tick_ms + 1) * tick_ms + offset_ms
    }

    /// As many groups as the interval and the members are worth; they are dealt anew only when that has
    /// changed a good deal.
    fn fit_groups(&mut self) {
        let phases = usize::try_from(phases(self.interval_ms)).unwrap_or(1);
        let wanted = phases.min(self.members / GROUP_MEMBERS_MIN).max(1);
        let now = self.groups.len();
        if self.flushing.is_some() || wanted <= now && now <= phases && now < 2 * wanted {
            return;
        }
        let oldest = self.oldest();
        let flushed_to = self.groups.iter().map(|group| group.flushed_to).min().unwrap_or(0);
        let flushed_ms = self.groups.iter().map(|group| group.flushed_ms).min().unwrap_or(0);
        let pending = self.groups.iter().any(|group| group.pending);
        let group = || Group { members: Vec::new(), oldest, flushed_to, flushed_ms, pending };
        let members: Vec<u64> = self.members().collect();
        self.groups = (0..wanted).map(|_| group()).collect();
        for (at, member) in members.into_iter().enumerate() {
            self.groups[at % wanted].members.push(member);
        }
        self.due = 0;
    }
}

/// Phases of an interval in ms.
fn phases(interval_ms: u64) -> u64 {
    (interval_ms / PHASE_MS_MIN.max(interval_ms / PHASES_MAX).max(1)).clamp(1, PHASES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flushes who is due; all of them have taken everything.
    fn flush(schedule: &mut Schedule, now_ms: u64, head: u64, msgs: u64) -> Vec<u64> {
        let mut due = Vec::new();
        if schedule.begin_flush(now_ms, head, msgs) {
            while let Some((member, _)) = schedule.next_member() {
                due.push(member);
                schedule.flushed(member, Some(head));
            }
        }
        due
    }

    fn filled(interval_ms: u64, members: u64) -> Schedule {
        let mut schedule = Schedule::new(interval_ms, 0);
        (0..members).for_each(|member| schedule.add(member, 0));
        schedule
    }

    #[test]
    fn phases_follow_the_interval() {
        assert_eq!([0, 10, 25, 50, 100, 350, 1800].map(phases), [1, 1, 1, 2, 4, 7, 7]);
        assert!(Schedule::new(0, 0).is_immediate() && !Schedule::new(10, 0).is_immediate());
    }

    /// Within one interval every member is due exactly once, in as many groups as they are worth.
    #[test]
    fn every_member_is_due_once_per_interval() {
        for (members, groups) in [(5, 1), (100, 3), (1000, 7)] {
            let mut schedule = filled(350, members);
            let (mut due, mut flushes) = (Vec::new(), 0);
            // The first round finds the grid.
            (350..700).for_each(|now_ms| drop(flush(&mut schedule, now_ms, now_ms, 0)));
            for now_ms in 700..1050 {
                schedule.note_change();
                let flushed = flush(&mut schedule, now_ms, now_ms, 0);
                flushes += usize::from(!flushed.is_empty());
                due.extend(flushed);
            }
            due.sort_unstable();
            assert_eq!((due, flushes), ((0..members).collect::<Vec<_>>(), groups));
        }
    }

    /// Small streams use different ticks of the same grid.
    #[test]
    fn small_streams_are_spread_over_the_phases() {
        let mut ticks: Vec<u64> = Vec::new();
        for stagger in 0..7 {
            let mut schedule = Schedule::new(350, stagger);
            schedule.add(1, 0);
            flush(&mut schedule, 1000, 1, 0);
            schedule.note_change();
            ticks.extend(schedule.next_due_ms());
        }
        ticks.sort_unstable();
        assert_eq!(ticks, [1050, 1100, 1150, 1200, 1250, 1300, 1350]);
    }

    /// Few messages wait for a second round, and no longer.
    #[test]
    fn few_messages_wait_once() {
        let mut schedule = filled(25, 1);
        let mut flushes = |now_ms, head| {
            schedule.note_change();
            flush(&mut schedule, now_ms, head, 8).len()
        };
        assert_eq!([flushes(1000, 100), flushes(1025, 103), flushes(1050, 104), flushes(1075, 112)], [1, 0, 1, 1]);
    }

    /// Who waits for nothing costs nothing.
    #[test]
    fn nothing_new_is_never_due() {
        let mut schedule = filled(350, 1000);
        (700..1100).for_each(|now_ms| drop(flush(&mut schedule, now_ms, 1, 0)));
        assert_eq!(schedule.next_due_ms(), None);
        schedule.note_change();
        assert!(schedule.next_due_ms().is_some());
        (1100..1500).for_each(|now_ms| drop(flush(&mut schedule, now_ms, 2, 0)));
        assert_eq!(schedule.next_due_ms(), None);
        // What waits in a ring is found at the next tick, and no later.
        schedule.set_polled(true);
        assert!(schedule.next_due_ms().is_some_and(|due_ms| (1500..=1550).contains(&due_ms)));
    }

    /// What comes while a flush at 0 ms is under way, perhaps the end of the publish, reaches those who have
    /// had theirs already.
    #[test]
    fn news_in_the_middle_of_a_flush_at_once_are_due_after_it() {
        let mut schedule = filled(0, 100);
        schedule.note_change();
        assert!(schedule.begin_flush(1000, 7, 0));
        for taken in 0.. {
            let Some((member, _)) = schedule.next_member() else { break };
            schedule.flushed(member, Some(7));
            if taken == 50 {
                schedule.note_change();
            }
        }
        assert_eq!(schedule.next_due_ms(), Some(0));
        assert_eq!(flush(&mut schedule, 1000, 7, 0).len(), 100);
        schedule.set_polled(true);
        assert_eq!(schedule.next_due_ms(), None);
    }

    /// Who has waited gets the first picture at once, in every group; afterwards the grid holds again.
    #[test]
    fn a_hurried_flush_reaches_everybody_at_once() {
        let mut schedule = filled(350, 1000);
        (700..1100).for_each(|now_ms| drop(flush(&mut schedule, now_ms, 1, 8)));
        schedule.note_change();
        schedule.hurry();
        let mut due: Vec<u64> = (0..7).flat_map(|_| flush(&mut schedule, 1101, 2, 8)).collect();
        due.sort_unstable();
        assert_eq!(due, (0..1000).collect::<Vec<_>>());
        schedule.note_change();
        assert!(flush(&mut schedule, 1101, 20, 8).is_empty() && schedule.next_due_ms() == Some(1150));
    }

    #[test]
    fn oldest_holds_the_log() {
        let mut schedule = Schedule::new(350, 0);
        assert_eq!(schedule.oldest(), u64::MAX);
        schedule.add(1, 50);
        schedule.add(2, 40);
        assert_eq!(schedule.oldest(), 40);
        flush(&mut schedule, 1000, 60, 0);
        assert_eq!((schedule.oldest(), schedule.len()), (60, 2));
        schedule.hold(10);
        assert_eq!(schedule.oldest(), 10);
    }

    /// Members come and go, and the interval changes, in the middle of a flush: everybody who stays has
    /// exactly one, and the log is held for who came.
    #[test]
    fn a_flush_survives_changes_in_its_middle() {
        for gone in [0, 49, 50, 51, 99] {
            let mut schedule = filled(0, 100);
            schedule.note_change();
            assert!(schedule.begin_flush(1000, 7, 0));
            let mut seen = Vec::new();
            while let Some((member, _)) = schedule.next_member() {
                seen.push(member);
                schedule.flushed(member, Some(7));
                if seen.len() == 50 {
                    schedule.remove(gone);
                    schedule.add(1000, 3);
                    schedule.set_interval(350);
                }
            }
            seen.retain(|member| *member != gone);
            seen.sort_unstable();
            let staying: Vec<u64> = (0..100).chain([1000]).filter(|member| *member != gone).collect();
            assert_eq!((seen, schedule.len(), schedule.oldest()), (staying, 100, 3));
            assert_eq!(schedule.groups.len(), 3);
        }
    }
}
