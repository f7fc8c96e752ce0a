//! From what each player got to what a group got: who was at full rate.

use crate::{
    check::Faults,
    load::{GroupResults, Metrics, PlayerResult},
};
use std::collections::HashMap;

/// Full rate: at least this share of the stream.
const FULL_RATE: f64 = 0.99;

/// A group of players over all executors.
#[derive(Clone, Debug)]
pub(crate) struct GroupTotals {
    pub(crate) full_rate: usize,
    pub(crate) playing: usize,
    pub(crate) started: usize,
    pub(crate) checked: usize,
    pub(crate) media_tags: u64,
    pub(crate) faults: Faults,
    pub(crate) metrics: Metrics,
}

/// The best of a stream's players, who tell what there was to get.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    until_mark: u64,
    until_end: u64,
    /// How fast its media went against the clock, at least and at most.
    pace: Option<(f64, f64)>,
}

/// A share that is as good as whole if its tail is on its way, else as it is.
fn share(at_most: f64, at_least: f64) -> f64 {
    if at_most >= FULL_RATE { 1.0 } else { at_least.min(1.0) }
}

fn of(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl GroupTotals {
    /// Sums the executors' parts of a group up.
    pub(crate) fn new(parts: &[GroupResults]) -> Self {
        let mut totals = Self {
            full_rate: 0,
            playing: 0,
            started: 0,
            checked: 0,
            media_tags: 0,
            faults: Faults::default(),
            metrics: Metrics::default(),
        };
        for part in parts {
            totals.playing += part.playing;
            totals.started += part.started;
            totals.media_tags += part.media_tags;
            totals.faults.add(&part.faults);
            totals.metrics.add(&part.metrics);
        }
        let players = || parts.iter().flat_map(|part| &part.players);
        let best = best_of(players());
        for player in players() {
            let share = share_of(player, &best);
            totals.checked += usize::from(player.checked);
            totals.full_rate += usize::from(share >= FULL_RATE && player.whole && player.alive);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
            totals.metrics.share.saturating_record((share * 1000.0).round() as u64);
        }
        totals
    }
}

/// By stream, and by whether content is checked: those count tags, others bytes.
fn best_of<'a>(players: impl Iterator<Item = &'a PlayerResult>) -> HashMap<(usize, bool), Best> {
    let mut best: HashMap<(usize, bool), Best> = HashMap::new();
    for player in players {
        let best = best.entry((player.stream, player.checked)).or_default();
        best.until_mark = best.until_mark.max(player.until_mark);
        best.until_end = best.until_end.max(player.until_end);
        if let Some((least, most)) = player.pace {
            let (known_least, known_most) = best.pace.unwrap_or((0.0, 0.0));
            best.pace = Some((known_least.max(least), known_most.max(most)));
        }
    }
    best
}

/// A player should get within the window what the best one of its stream got, of which the tail may still
/// be on its way, and the stream's media should go as fast as the clock. Who drops what it gets knows no
/// media time: its stream's checked players do.
fn share_of(player: &PlayerResult, best: &HashMap<(usize, bool), Best>) -> f64 {
    let alike = best.get(&(player.stream, player.checked)).copied().unwrap_or_default();
    let of_best = share(of(player.until_end, alike.until_mark), of(player.until_end, alike.until_end));
    let pace = best.get(&(player.stream, true)).and_then(|best| best.pace);
    of_best * pace.map_or(1.0, |(least, most)| share(most, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn player(checked: bool, until_mark: u64, until_end: u64, pace: f64) -> PlayerResult {
        let pace = checked.then_some((pace, pace * 1.2));
        PlayerResult { stream: 0, checked, until_mark, until_end, pace, whole: true, alive: true }
    }

    fn shares(players: &[PlayerResult]) -> Vec<f64> {
        let best = best_of(players.iter());
        players.iter().map(|player| (share_of(player, &best) * 100.0).round()).collect()
    }

    #[test]
    fn the_tail_may_be_missing_and_nothing_else() {
        let good = player(true, 800, 1000, 0.99);
        assert_eq!(shares(&[good, player(true, 700, 800, 0.9)]), [100.0, 100.0]);
        assert_eq!(shares(&[good, player(true, 400, 500, 0.5)]), [100.0, 50.0]);
        assert_eq!(shares(&[good, player(false, 9000, 9999, 0.0), player(false, 0, 0, 0.0)]), [100.0, 100.0, 0.0]);
    }

    /// If all are slow alike, the media time tells.
    #[test]
    fn a_slow_stream_is_slow_for_all() {
        assert_eq!(shares(&[player(true, 400, 500, 0.5), player(false, 4000, 5000, 0.0)]), [50.0, 50.0]);
    }
}
