//! System traffic: what each server receives of it, what that does to memory, and when it is a storm.

use std::collections::VecDeque;
use std::time::Duration;

use super::server::{AT_REST, FULL};
use super::world::World;

/// A storm is what comes in this time.
const WINDOW: usize = 10;
/// So many messages above the usual within it are a storm in a small fleet too: twice what an agent lets pass.
const LEAST: u32 = 200;
/// An agent that has something to do reads its server each two seconds, and once more when it suspects a storm.
pub(super) const KNOWN: Duration = Duration::from_secs(6);
/// After a heal, so much traffic is expected for so long: a storm that hides in it is a blind spot by design.
const HEAL: Duration = Duration::from_secs(75);

/// The state of it.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Messages that are still to come to each server because of restarts.
    storm: u32,
    /// Faults that flood the system account.
    pub(super) floods: u32,
    /// Messages a second at each server now.
    rate: u32,
    /// Of the last seconds.
    last: VecDeque<u32>,
    /// All messages to one that was always there.
    pub(super) messages: u64,
    /// Since when there is a storm.
    since: Option<Duration>,
    /// When something came back that was cut off.
    healed: Option<Duration>,
}

impl Weather {
    /// Each start of one of `n` servers makes all others speak.
    pub(super) fn started(&mut self, n: usize) {
        self.storm = self
            .storm
            .saturating_add(u32::try_from(n).unwrap_or(u32::MAX).saturating_sub(1));
    }

    pub(super) fn heals(&mut self, now: Duration) {
        self.healed = Some(now);
    }

    /// A storm that every agent can know of by now.
    pub(super) fn known_storm(&self, now: Duration) -> bool {
        let hidden = |since: Duration| {
            self.healed
                .is_some_and(|t| t + HEAL >= since && t <= since + Duration::from_secs(WINDOW as u64))
        };
        self.since
            .is_some_and(|since| now.saturating_sub(since) >= KNOWN && !hidden(since))
    }
}

impl World {
    /// A second of traffic and memory.
    pub(super) fn weather_goes_on(&mut self) {
        let n = u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(2) - 1;
        // The timers of STATSZ: 30 s, since 2.10.21 10 s.
        let quiet = if self.scenario.fleet.old { n / 30 } else { n / 10 };
        let w = &mut self.weather;
        let now = w.storm.div_ceil(2);
        w.storm -= now;
        w.rate = quiet + now + w.floods * 3 * n;
        w.messages += u64::from(w.rate);
        w.last.push_back(w.rate);
        if w.last.len() > WINDOW {
            w.last.pop_front();
        }
        let excess = w.last.iter().sum::<u32>().saturating_sub(quiet * 10);
        w.since = (excess >= LEAST.max(4 * n)).then(|| w.since.unwrap_or(self.now));
        let stress = w.rate / n;
        if self.storming() {
            // Only where all is calm do agents read their servers less often than they really do.
            (0..self.servers.len()).for_each(|host| self.alert(host));
        }
        for host in 0..self.servers.len() {
            let s = &mut self.servers[host];
            if !s.up || (stress < 4 && s.leak == 0 && s.queued == 0 && s.memory <= AT_REST) {
                continue;
            }
            if stress >= 4 {
                s.memory += 8 * stress;
            } else if s.leak == 0 && s.queued == 0 {
                s.memory = s.memory.saturating_sub(20).max(AT_REST);
            }
            s.memory += s.leak + s.queued;
            if s.memory >= FULL {
                self.say(host, "its server is out of memory".to_owned());
                self.crash(host);
            }
        }
    }

    /// System traffic is so far above what is expected that messages are slow.
    pub(super) fn storming(&self) -> bool {
        let n = u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(2) - 1;
        self.weather.rate >= 2 * n
    }

    /// Bytes of one STATSZ message: nats-facts.md, Storms.
    pub(super) fn statsz_bytes(&self) -> u64 {
        let fleet = &self.scenario.fleet;
        let connections = (fleet.hosts - 1) * self.slots();
        (600 + 130 * connections + 170 * (fleet.regions.len() - 1)) as u64
    }
}
