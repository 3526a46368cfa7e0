//! The network between hosts: who is cut from whom, where packets are lost, how long things travel.
//!
//! NATS speaks TCP: loss shows as delay, and a cut in one direction stops both.

use std::time::Duration;

use super::dice::Dice;
use super::fault::{HostNo, RegionNo};

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    hosts: usize,
    regions: usize,
    /// How many faults cut this directed pair now.
    cuts: Vec<u16>,
    since: Vec<Duration>,
    /// All cuts of all pairs.
    pub(super) cut: usize,
    /// Percent of packets lost between two regions.
    loss: Vec<usize>,
    /// Region pairs with loss.
    pub(super) lossy: usize,
    delay: Vec<Duration>,
}

impl Network {
    pub(super) fn new(hosts: usize, regions: usize, dice: &mut Dice) -> Self {
        let mut delay = vec![Duration::from_millis(1); regions * regions];
        for a in 0..regions {
            for b in 0..a {
                let d = dice.between(Duration::from_millis(10), Duration::from_millis(120));
                (delay[a * regions + b], delay[b * regions + a]) = (d, d);
            }
        }
        Self {
            hosts,
            regions,
            cuts: vec![0; hosts * hosts],
            since: vec![Duration::ZERO; hosts * hosts],
            cut: 0,
            loss: vec![0; regions * regions],
            lossy: 0,
            delay,
        }
    }

    /// Can a TCP connection between the two carry anything?
    pub(super) fn open(&self, a: HostNo, b: HostNo) -> bool {
        self.cut == 0 || (self.cuts[a * self.hosts + b] == 0 && self.cuts[b * self.hosts + a] == 0)
    }

    /// Since when it cannot.
    pub(super) fn cut_for(&self, a: HostNo, b: HostNo, now: Duration) -> Option<Duration> {
        let of = |i: usize| (self.cuts[i] > 0).then(|| now.saturating_sub(self.since[i]));
        of(a * self.hosts + b).max(of(b * self.hosts + a))
    }

    /// Cuts one direction; true if the two were open before.
    pub(super) fn cut(&mut self, a: HostNo, b: HostNo, now: Duration) -> bool {
        let was = self.open(a, b);
        let i = a * self.hosts + b;
        if self.cuts[i] == 0 {
            self.since[i] = now;
        }
        self.cuts[i] += 1;
        self.cut += 1;
        was
    }

    /// Ends one cut; how long it lasted, if the two are open now.
    pub(super) fn join(&mut self, a: HostNo, b: HostNo, now: Duration) -> Option<Duration> {
        let lasted = self.cut_for(a, b, now)?;
        let i = a * self.hosts + b;
        self.cuts[i] = self.cuts[i].saturating_sub(1);
        self.cut = self.cut.saturating_sub(1);
        self.open(a, b).then_some(lasted)
    }

    pub(super) fn lose(&mut self, a: RegionNo, b: RegionNo, percent: usize) {
        for i in [a * self.regions + b, b * self.regions + a] {
            self.loss[i] = percent;
        }
        self.lossy = self.loss.iter().filter(|l| **l > 0).count();
    }

    pub(super) fn loss(&self, a: RegionNo, b: RegionNo) -> usize {
        self.loss[a * self.regions + b]
    }

    pub(super) fn delay(&self, a: RegionNo, b: RegionNo) -> Duration {
        self.delay[a * self.regions + b]
    }

    /// What loss adds to a new connection, and to its first line: SYN and its answer are sent again after 1 s, 2 s, 4 s …
    pub(super) fn handshake(percent: usize, dice: &mut Dice) -> (Duration, Duration) {
        if percent == 0 {
            return (Duration::ZERO, Duration::ZERO);
        }
        let line = Self::retransmits(percent, dice);
        let mut connect = Duration::ZERO;
        for _ in 0..2 {
            let mut timeout = Duration::from_secs(1);
            while dice.chance(percent.min(95)) && timeout < Duration::from_secs(20) {
                connect += timeout;
                timeout *= 2;
            }
        }
        (connect, line)
    }

    /// What loss adds to one message: lost packets are sent again after 0.2 s, 0.4 s, 0.8 s …
    pub(super) fn retransmits(percent: usize, dice: &mut Dice) -> Duration {
        let mut wait = Duration::ZERO;
        let mut timeout = Duration::from_millis(200);
        while dice.chance(percent.min(95)) && timeout < Duration::from_secs(20) {
            wait += timeout;
            timeout *= 2;
        }
        wait
    }
}
