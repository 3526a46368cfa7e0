//! The verdict on one source at one receiver on one lane.
//!
//! NATS paths are ordered TCP: a gap in sequence is real loss, and silence is a stall. Exact counts are kept, no
//! averages: a mean hides the one path that is dead. Blind spot: a path that lets one beacon in `stall_after` through
//! never stalls; it shows as loss. Silence is measured on the receiver's monotonic clock only.

use std::time::Duration;

use crate::core::canary::beacon::{Beacon, Health};
use crate::core::ids::{Mono, Now};
use crate::core::view::Verdict;

/// A larger gap is a new count, not loss: nobody misses this many beacons and lives.
const MAX_GAP: u64 = 100_000;
/// A known source that this process never heard is not judged before this.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long an announced absence (own restart, lame duck) may last.
pub const ANNOUNCED: Duration = Duration::from_secs(150);

/// Counters of one path; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Beacons received, all but duplicates.
    pub received: u64,
    /// Sequence gaps.
    pub lost: u64,
    /// Overdue by half an interval and more.
    pub late: u64,
    /// Seen before.
    pub duplicate: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// From an older process of the same name, or counting backwards.
    pub foreign: u64,
}

/// What a beacon meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The next one, or one after a gap.
    Fresh,
    /// First of a new process, or after the count was set anew.
    NewCount,
    /// Seen before, or overtaken: not a sign of life.
    Old,
    /// Another process with this name also speaks.
    Foreign,
}

/// One source on one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    inc: u64,
    high: u64,
    window: u64,
    interval: Duration,
    heard: Option<Mono>,
    quiet_from: Mono,
    /// Beacons since it was new, silent or away.
    fresh: u32,
    announced: Option<Mono>,
    hearsay: bool,
    /// Verdict now.
    pub verdict: Verdict,
    /// When it changed.
    pub since: Mono,
    /// What was counted.
    pub counts: Counts,
    /// Receiver's wall clock minus sender's, microseconds.
    pub one_way_micros: Option<i64>,
    /// Where the owner counts the source's region: a hint of its own.
    pub tally: u32,
}

impl Path {
    /// A source of which nothing was heard yet.
    #[must_use]
    pub fn new(now: Mono, interval: Duration) -> Self {
        Self {
            inc: 0,
            high: 0,
            window: 0,
            interval,
            heard: None,
            quiet_from: now,
            fresh: 0,
            announced: None,
            hearsay: false,
            verdict: Verdict::Warming,
            since: now,
            counts: Counts::default(),
            one_way_micros: None,
            tally: u32::MAX,
        }
    }

    /// When the last sign of life came.
    #[must_use]
    pub fn heard(&self) -> Option<Mono> {
        self.heard
    }

    /// Time without a sign of life that can be held against the source.
    #[must_use]
    pub fn silence(&self, now: Mono) -> Duration {
        now.since(self.heard.unwrap_or_default().max(self.quiet_from))
    }

    /// The process that was heard last, see [`Beacon::inc`]; zero = none yet.
    #[must_use]
    pub fn inc(&self) -> u64 {
        self.inc
    }

    /// Did it leave for good, by its own word?
    #[must_use]
    pub fn said_goodbye(&self) -> bool {
        self.verdict == Verdict::Departed && self.announced.is_none()
    }

    /// Is it not judged yet, and passes: was a beacon heard since it was new, away, or the receiver was?
    #[must_use]
    pub fn begins(&self) -> bool {
        self.verdict == Verdict::Warming && self.heard.is_some_and(|heard| heard >= self.quiet_from)
    }

    /// Is it expected by others' word alone?
    #[must_use]
    pub fn hearsay(&self) -> bool {
        self.hearsay
    }

    /// Others hear it: its silence is a fault again.
    pub fn expect(&mut self, now: Mono) {
        (self.hearsay, self.announced, self.fresh) = (true, None, 0);
        self.quiet_from = now;
        self.become_(Verdict::Warming, now);
    }

    /// Nobody says any more that it is there; it was never heard since.
    pub fn dismiss(&mut self, now: Mono) {
        self.hearsay = false;
        self.become_(Verdict::Departed, now);
    }

    /// Is this the very next beacon of the same process, and no goodbye?
    #[must_use]
    pub fn awaits(&self, beacon: &Beacon) -> bool {
        beacon.inc == self.inc && beacon.seq.checked_sub(1) == Some(self.high) && !beacon.bye
    }

    /// Takes in a beacon of this source.
    pub fn on_beacon(&mut self, beacon: &Beacon, now: Now, stall_after: u32) -> Heard {
        let heard = self.place(beacon, now.mono, stall_after);
        if matches!(heard, Heard::Old | Heard::Foreign) {
            return heard;
        }
        let due = self.interval + self.interval / 2;
        if heard == Heard::Fresh && self.verdict != Verdict::Warming && self.silence(now.mono) > due {
            self.counts.late += 1;
        }
        self.counts.received += 1;
        self.hearsay = false;
        self.interval = Duration::from_millis(beacon.interval.clamp(50, 600_000));
        self.heard = Some(now.mono);
        let sent = i64::try_from(beacon.sent).unwrap_or(i64::MAX);
        let wall = i64::try_from(now.wall.0.as_micros()).unwrap_or(i64::MAX);
        self.one_way_micros = Some(wall.saturating_sub(sent));
        self.fresh = self.fresh.saturating_add(1);
        self.announced = match beacon.health {
            // Who says goodbye stays away, also one whose server is a lame duck before its host is shut down.
            Health::Restarting | Health::LameDuck if !beacon.bye => Some(now.mono),
            _ => None,
        };
        if beacon.bye {
            self.become_(Verdict::Departed, now.mono);
            self.fresh = 0;
        } else if self.fresh >= 2 || !matches!(self.verdict, Verdict::Warming | Verdict::Departed) {
            self.become_(Verdict::Ok, now.mono);
        } else {
            self.become_(Verdict::Warming, now.mono);
        }
        heard
    }

    fn place(&mut self, beacon: &Beacon, now: Mono, stall_after: u32) -> Heard {
        // What the receiver itself was away for counts too: who spoke then may have begun anew.
        let silent = || {
            self.heard
                .is_none_or(|heard| now.since(heard) >= self.interval * stall_after)
        };
        if beacon.inc == self.inc {
            if beacon.seq > self.high && beacon.seq - self.high <= MAX_GAP {
                let step = beacon.seq - self.high;
                self.counts.lost += step - 1;
                self.window = if step >= 64 { 0 } else { self.window << step };
                self.window |= 1;
                self.high = beacon.seq;
                return Heard::Fresh;
            }
            if beacon.seq <= self.high && !silent() {
                let back = self.high - beacon.seq;
                let known = back < 64 && self.window >> back & 1 == 1;
                if known {
                    self.counts.duplicate += 1;
                } else {
                    self.counts.reordered += 1;
                    if back < 64 {
                        self.window |= 1 << back;
                    }
                }
                return Heard::Old;
            }
            if !silent() {
                self.counts.foreign += 1;
                return Heard::Foreign;
            }
        } else if beacon.inc < self.inc && !silent() {
            self.counts.foreign += 1;
            return Heard::Foreign;
        }
        self.inc = beacon.inc;
        self.high = beacon.seq;
        self.window = 1;
        self.fresh = 0;
        Heard::NewCount
    }

    /// Before this, time changes nothing while nothing is heard.
    #[must_use]
    pub fn due(&self, stall_after: u32) -> Mono {
        let since = self.heard.unwrap_or_default().max(self.quiet_from);
        let stall = self.interval * stall_after;
        match self.verdict {
            Verdict::Departed => self.announced.map_or(Mono(Duration::MAX), |a| a.plus(ANNOUNCED)),
            Verdict::Stalled => Mono(Duration::MAX),
            Verdict::Ok => since.plus(stall.min(self.interval + self.interval / 2)),
            Verdict::Warming | Verdict::Late => since.plus(stall),
        }
    }

    /// Lets time pass. Returns the verdict before and after where it changed.
    pub fn on_tick(&mut self, now: Mono, stall_after: u32) -> Option<(Verdict, Verdict)> {
        let before = self.verdict;
        let silence = self.silence(now);
        let stall = self.interval * stall_after;
        let after = match before {
            Verdict::Departed if self.announced.is_some_and(|a| now.since(a) > ANNOUNCED) => {
                self.announced = None;
                Verdict::Stalled
            }
            Verdict::Departed | Verdict::Stalled => before,
            Verdict::Warming if silence >= stall && (self.heard.is_some() || self.hearsay) => Verdict::Stalled,
            Verdict::Warming if silence >= stall.max(WARM_UP) => Verdict::Stalled,
            Verdict::Warming => before,
            Verdict::Ok | Verdict::Late if silence >= stall && self.announced.is_some() => Verdict::Departed,
            Verdict::Ok | Verdict::Late if silence >= stall => Verdict::Stalled,
            Verdict::Ok if silence > self.interval + self.interval / 2 => Verdict::Late,
            Verdict::Ok | Verdict::Late => before,
        };
        self.become_(after, now);
        (before != after).then_some((before, after))
    }

    /// The receiver itself was away or cut off: nothing it missed is the source's fault. A stall found before stays.
    pub fn rebase(&mut self, now: Mono) {
        self.quiet_from = now;
        if !matches!(self.verdict, Verdict::Departed | Verdict::Stalled) {
            self.fresh = self.fresh.min(1);
            self.become_(Verdict::Warming, now);
        }
    }

    /// Did it speak `beacons` times since it was new, silent or away? What the first ones say of others may be of the
    /// time before.
    #[must_use]
    pub fn steady(&self, beacons: u32) -> bool {
        self.fresh >= beacons
    }

    fn become_(&mut self, verdict: Verdict, now: Mono) {
        if self.verdict != verdict {
            self.verdict = verdict;
            self.since = now;
            if verdict == Verdict::Stalled {
                self.fresh = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::canary::beacon::tests::beacon;
    use crate::core::ids::Wall;
    use proptest::prelude::*;

    fn at(ms: u64) -> Now {
        Now {
            mono: Mono(Duration::from_millis(ms)),
            wall: Wall(Duration::from_millis(1_000_000 + ms)),
        }
    }

    fn hear(path: &mut Path, seq: u64, ms: u64) -> Heard {
        path.on_beacon(&beacon("a", "x", seq), at(ms), 3)
    }

    fn warm() -> Path {
        let mut p = Path::new(at(0).mono, Duration::from_secs(1));
        hear(&mut p, 1, 0);
        hear(&mut p, 2, 1000);
        assert_eq!(p.verdict, Verdict::Ok);
        p
    }

    #[test]
    fn a_goodbye_of_a_lame_duck_is_for_good() {
        let mut p = warm();
        let mut bye = beacon("a", "x", 3);
        (bye.health, bye.bye) = (Health::LameDuck, true);
        p.on_beacon(&bye, at(2000), 3);
        p.on_tick(at(3_600_000).mono, 3);
        assert_eq!(p.verdict, Verdict::Departed);
    }

    #[test]
    fn silence_of_three_intervals_is_a_stall_and_not_earlier() {
        let mut p = warm();
        p.on_tick(at(3999).mono, 3);
        assert_eq!(p.verdict, Verdict::Late);
        assert_eq!(p.on_tick(at(4000).mono, 3), Some((Verdict::Late, Verdict::Stalled)));
        hear(&mut p, 6, 5000);
        assert_eq!(p.verdict, Verdict::Ok);
        assert_eq!(p.counts.lost, 3);
    }

    #[test]
    fn a_late_beacon_is_not_a_lost_one() {
        let mut p = warm();
        hear(&mut p, 3, 2700);
        assert_eq!((p.counts.late, p.counts.lost), (1, 0));
    }

    #[test]
    fn twice_is_duplicate_and_overtaken_is_reordered() {
        let mut p = warm();
        hear(&mut p, 4, 3000);
        hear(&mut p, 3, 3001);
        hear(&mut p, 3, 3002);
        assert_eq!((p.counts.reordered, p.counts.duplicate, p.counts.lost), (1, 1, 1));
    }

    #[test]
    fn a_restarted_agent_is_no_loss_and_no_alarm() {
        let mut p = warm();
        let mut b = beacon("a", "x", 1);
        b.inc = 2;
        assert_eq!(p.on_beacon(&b, at(3500), 3), Heard::NewCount);
        assert_eq!(p.counts.lost, 0);
        assert_ne!(p.verdict, Verdict::Stalled);
    }

    #[test]
    fn of_two_agents_with_one_name_the_newer_is_followed() {
        let mut p = warm();
        let mut b = beacon("a", "x", 1);
        b.inc = 2;
        p.on_beacon(&b, at(1100), 3);
        assert_eq!(hear(&mut p, 3, 2000), Heard::Foreign);
        assert_eq!(p.counts.foreign, 1);
        b.seq = 2;
        assert_eq!(p.on_beacon(&b, at(2100), 3), Heard::Fresh);
    }

    #[test]
    fn a_clock_set_back_before_a_restart_silences_nobody_for_ever() {
        let mut p = warm();
        let mut b = beacon("a", "x", 1);
        b.inc = 0;
        assert_eq!(p.on_beacon(&b, at(1500), 3), Heard::Foreign);
        b.seq = 4;
        assert_eq!(p.on_beacon(&b, at(4500), 3), Heard::NewCount);
    }

    #[test]
    fn a_clock_set_back_while_the_receiver_was_away_costs_no_beacon() {
        let mut p = warm();
        p.rebase(at(60_000).mono);
        let mut b = beacon("a", "x", 1);
        b.inc = 0;
        assert_eq!(p.on_beacon(&b, at(60_500), 3), Heard::NewCount);
        p.on_tick(at(63_000).mono, 3);
        assert_eq!(p.verdict, Verdict::Warming);
    }

    #[test]
    fn a_count_that_jumps_away_is_not_a_billion_lost() {
        let mut p = warm();
        assert_eq!(hear(&mut p, u64::MAX, 2000), Heard::Foreign);
        assert_eq!(p.counts.lost, 0);
        assert_eq!(hear(&mut p, 3, 2100), Heard::Fresh);
    }

    #[test]
    fn goodbye_is_departure_and_a_return_is_welcome() {
        let mut p = warm();
        let mut b = beacon("a", "x", 3);
        b.bye = true;
        p.on_beacon(&b, at(2000), 3);
        p.on_tick(at(60_000).mono, 3);
        assert_eq!(p.verdict, Verdict::Departed);
        let mut again = beacon("a", "x", 1);
        again.inc = 9;
        p.on_beacon(&again, at(61_000), 3);
        assert_eq!(p.verdict, Verdict::Warming);
        again.seq = 2;
        p.on_beacon(&again, at(62_000), 3);
        assert_eq!(p.verdict, Verdict::Ok);
    }

    #[test]
    fn an_announced_restart_is_no_stall_unless_it_never_ends() {
        let mut p = warm();
        let mut b = beacon("a", "x", 3);
        b.health = Health::Restarting;
        p.on_beacon(&b, at(2000), 3);
        p.on_tick(at(5000).mono, 3);
        assert_eq!(p.verdict, Verdict::Departed);
        p.on_tick(at(153_000).mono, 3);
        assert_eq!(p.verdict, Verdict::Stalled);
    }

    #[test]
    fn what_the_receiver_slept_through_is_not_the_sources_fault() {
        let mut p = warm();
        p.rebase(at(60_000).mono);
        p.on_tick(at(60_001).mono, 3);
        assert_eq!(p.verdict, Verdict::Warming);
    }

    proptest! {
        #[test]
        fn every_beacon_is_counted_once(seqs in proptest::collection::vec(1u64..200, 1..200)) {
            let mut p = Path::new(at(0).mono, Duration::from_secs(1));
            for (i, seq) in seqs.iter().enumerate() {
                hear(&mut p, *seq, i as u64);
            }
            let c = p.counts;
            prop_assert_eq!(c.received + c.duplicate + c.reordered + c.foreign, seqs.len() as u64);
            prop_assert!(c.lost <= 200);
        }

        #[test]
        fn before_a_path_is_due_time_changes_nothing(events in proptest::collection::vec((1u64..4, 0u8..8, 0u64..9_000), 1..60)) {
            let mut p = Path::new(at(0).mono, Duration::from_secs(1));
            let mut t = 0;
            for (step, kind, dt) in events {
                t += dt;
                let before = at(t).mono < p.due(3);
                let turned = p.on_tick(at(t).mono, 3);
                prop_assert!(!before || turned.is_none(), "{turned:?}");
                let mut b = beacon("a", "x", p.high + step);
                b.bye = kind == 0;
                b.health = if kind < 3 { Health::Restarting } else { Health::Ok };
                match kind {
                    5 => p.rebase(at(t).mono),
                    6 | 7 => {}
                    _ => drop(p.on_beacon(&b, at(t), 3)),
                }
            }
        }

        #[test]
        fn no_order_of_beacons_and_time_panics(events in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 0u64..10_000), 1..100)) {
            let mut p = Path::new(at(0).mono, Duration::from_secs(1));
            let mut t = 0;
            for (seq, inc, interval, dt) in events {
                t += dt;
                let mut b = beacon("a", "x", seq);
                b.inc = inc;
                b.interval = interval;
                b.sent = inc;
                p.on_beacon(&b, at(t), 3);
                p.on_tick(at(t).mono, 3);
            }
        }
    }
}
