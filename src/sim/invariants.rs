//! The invariants of docs/architecture.md, checked against the truth of the world, not against what agents believe.
//!
//! What can only break at an act (1 to 6) is looked at with each act; verdicts that must not last each second; what depends
//! on time otherwise (7 and permits of 8) each ten seconds. Nothing else can break one in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::Policy;
use super::fault::HostNo;
use super::mesh::Link;
use super::trace::Line;
use super::world::World;
use crate::core::mesh::SHARED;
use crate::core::permit::document::Phase;
use crate::core::policy::Mode;
use crate::core::view::Record;

/// A remediable fault is healed or in the hands of a human by then.
const BOUND: Duration = Duration::from_secs(900);
/// An agent that started so long ago has heard everybody, and judges.
const SETTLED: Duration = Duration::from_secs(60);
/// A second restart this soon after the first is the same restart done twice.
const TWICE: Duration = Duration::from_secs(20);
/// So long after an agent said it a fault counts as handed to a human.
const SAID: Duration = Duration::from_secs(90);
/// Clocks that are right agree to this: at the end of a pause.
const CLOCKS: Duration = Duration::from_millis(200);
/// A verdict that is wrong may last this long: its confirm time.
const CONFIRM: Duration = Duration::from_secs(10);
/// By then a permit is given back, or is that of a failed host: a restart, its proof, and tries to write it.
const HELD: Duration = Duration::from_secs(300);
/// A last look at the permit is good for so long.
const FENCE: Duration = Duration::from_millis(2500);
/// Two turns are at least half a slot apart, less what clocks that are right differ by.
const SLOT: Duration = Duration::from_millis(700);
/// A gateway whose server went is dialled anew, and what waits passes, in less.
const REDIAL: Duration = Duration::from_secs(5);
/// Trouble of the network explains an act for so long.
const NETWORK: Duration = Duration::from_secs(120);
/// Lines of the trace that go with a violation.
const TAIL: usize = 60;

/// What a policy does to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Reset,
    Restart,
}

/// The invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// 1. Never more servers down by our hand than permitted.
    TooManyDown,
    /// 2. No restart begins during a brownout, while paused, or in `observe`.
    Forbidden,
    /// 3. No act without a live permit where a store is configured.
    NoPermit,
    /// 4. No server is restarted more often than its limit.
    OverLimit,
    /// 5. A fault of the network never causes a restart.
    NetworkFault,
    /// 6. A slow or isolated agent never causes an act on a healthy server.
    HealthyServer,
    /// 7. Every remediable fault is healed or handed to a human within a bound.
    NotHealed,
    /// 8. A crash at any step leaves nothing held for ever and nothing done twice.
    Twice,
    /// The first gate of a restart: no restart while so many hosts are sick that it is an incident, not a host.
    Incident,
    /// Where a scenario asks for it: no verdict against what is fine lasts beyond its confirm time.
    FalseFault,
}

impl Invariant {
    /// The sentence of the design.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::TooManyDown => "1: never more servers down by our hand than permitted",
            Self::Forbidden => "2: no restart begins during a brownout, while paused, or in observe",
            Self::NoPermit => "3: no act without a live permit where a store is configured",
            Self::OverLimit => "4: no server is restarted more often than its limit",
            Self::NetworkFault => "5: a fault of the network never causes a restart",
            Self::HealthyServer => "6: a slow or isolated agent never causes an act on a healthy server",
            Self::NotHealed => "7: every remediable fault is healed or handed to a human within a bound",
            Self::Twice => "8: a crash at any step leaves nothing held for ever and nothing done twice",
            Self::Incident => "no restart while so many hosts are sick that it is an incident, not a host",
            Self::FalseFault => "no false fault lasts beyond its confirm time",
        }
    }
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When.
    pub at: Duration,
    /// On which host.
    pub host: String,
    /// How.
    pub text: String,
    /// What led to it.
    pub trace: Vec<Line>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        let at = humantime::format_duration(Duration::from_millis(u64::try_from(self.at.as_millis()).unwrap_or(0)));
        writeln!(f, "invariant {}", self.invariant.sentence())?;
        write!(f, "broken at {at} on {}: {}", self.host, self.text)
    }
}

/// What the checks remember.
#[derive(Debug)]
pub(super) struct Watch {
    /// A server or a permit has changed.
    pub(super) dirty: bool,
    pub(super) broken: Option<Violation>,
    restarts: Vec<Vec<Duration>>,
    /// Theoretical arrival time of the next restart, by true time.
    full_at: Vec<Duration>,
    /// When a restart of this host was last of use.
    pub(super) restart_useful: Vec<Option<Duration>>,
    /// When a reset of the routes from one host to another was, when the two were no peers, and when a gateway was sick.
    pub(super) routes_sick: Vec<Option<Duration>>,
    pub(super) holes: Vec<Option<Duration>>,
    pub(super) gateways_sick: Vec<Option<Duration>>,
    /// Since when a pause stands in the store, and its end if it has one, by true time.
    pub(super) paused: Option<(Duration, Option<Duration>)>,
    /// Since when a permit is held by a host that could have settled it: by host and token.
    held: BTreeMap<(HostNo, String), Duration>,
    network: Vec<Option<Duration>>,
    /// Verdicts that agents hold: by agent and fault.
    verdicts: BTreeSet<(HostNo, String)>,
    /// Of these, what is held although nothing is broken: for how long its agent went on since, and when it was looked at.
    wrong: BTreeMap<(HostNo, String), (Duration, Duration)>,
    /// When an agent last showed a fault of what is broken for long: another one on the way may hide it for a moment.
    said: BTreeMap<(HostNo, HostNo), Duration>,
    /// Remediable and broken since.
    open: BTreeMap<(HostNo, HostNo), Duration>,
    pub(super) trouble: Duration,
}

impl Watch {
    pub(super) fn new(hosts: usize, regions: usize) -> Self {
        Self {
            dirty: false,
            broken: None,
            restarts: vec![Vec::new(); hosts],
            full_at: vec![Duration::ZERO; hosts],
            restart_useful: vec![None; hosts],
            routes_sick: vec![None; hosts * hosts],
            holes: vec![None; hosts * hosts],
            gateways_sick: vec![None; hosts * regions],
            paused: None,
            held: BTreeMap::new(),
            network: vec![None; hosts],
            verdicts: BTreeSet::new(),
            wrong: BTreeMap::new(),
            said: BTreeMap::new(),
            open: BTreeMap::new(),
            trouble: Duration::ZERO,
        }
    }

    /// Nothing was wrong for a while, so that nothing needs to be measured.
    pub(super) fn calm(&self, now: Duration) -> bool {
        now.saturating_sub(self.trouble) > Duration::from_secs(300)
    }
}

impl World {
    fn violate(&mut self, invariant: Invariant, host: HostNo, text: String) {
        if self.watch.broken.is_none() && self.options.policy == Policy::Ours {
            self.watch.broken = Some(Violation {
                invariant,
                at: self.now,
                host: self.names[host].clone(),
                text,
                trace: self.trace.tail(TAIL),
            });
        }
    }

    /// After each event: one that moved something ends the calm.
    pub(super) fn check(&mut self) {
        if !std::mem::take(&mut self.watch.dirty) {
            return;
        }
        self.watch.trouble = self.now;
    }

    /// A restart begins, whoever wants it: is this a moment for it?
    pub(super) fn judge_moment(&mut self, host: HostNo, ordered: bool) {
        let now = self.now;
        let down = |h: &HostNo| *h != host && self.servers[*h].hand.is_some();
        if self.scenario.agents.permits {
            if let Some(other) = (0..self.servers.len()).find(down) {
                let text = format!("the server of {} is down already", self.names[other]);
                self.violate(Invariant::TooManyDown, host, text);
            }
            let clock = self.agents[host].now(now).wall;
            let held = self.store.document().of(&self.hosts[host]);
            if !held.is_some_and(|h| h.phase == Phase::Acting && !h.vanished(clock)) {
                let text = match held {
                    None => "a restart without a permit".to_owned(),
                    Some(h) => format!(
                        "a restart under a permit that is {:?} until {}",
                        h.phase,
                        h.until.wall().rfc3339()
                    ),
                };
                self.violate(Invariant::NoPermit, host, text);
            }
        } else if !ordered {
            // Time slots: those whose clocks are right never act by the same slot.
            let right = |h: HostNo| self.agents[h].skew == 0;
            let same = |h: &HostNo| {
                down(h)
                    && right(*h)
                    && self.watch.restarts[*h]
                        .last()
                        .is_some_and(|t| now.saturating_sub(*t) < SLOT)
            };
            if right(host)
                && let Some(other) = (0..self.servers.len()).find(same)
            {
                let text = format!("{} restarts its server in the same time slot", self.names[other]);
                self.violate(Invariant::TooManyDown, host, text);
            }
        }
        if let Some((since, end)) = self.watch.paused
            && now.saturating_sub(since) > FENCE
            && end.is_none_or(|end| now + CLOCKS < end)
            && self.scenario.agents.permits
            // Who starts with a wrong clock cannot know that a pause with an end is not over.
            && !(end.is_some() && self.agents[host].skew != 0)
        {
            self.violate(Invariant::Forbidden, host, "a restart while paused".to_owned());
        }
        if self.weather.known_storm(now) && self.knows_traffic(host) {
            self.violate(Invariant::Forbidden, host, "a restart during a brownout".to_owned());
        }
    }

    /// Hosts that are down, or do not hear a peer that works, for half a minute, and of which others know.
    fn sick(&self) -> usize {
        let n = self.servers.len();
        let long = |from: HostNo, to: HostNo| self.score.silent[from * n + to] >= 30;
        let tells = |h: HostNo| self.works(h) && self.agents[h].core.is_some() && self.agents[h].connected;
        // Within a cluster it is the receiver's route, or the sender where half of its peers or three do not hear it, as
        // some still do after it was out; into another cluster it is the sender's gateway, where nobody there hears it.
        let mute = |x: HostNo| {
            let peers = || self.hosts_of(self.region(x)).filter(|h| *h != x && tells(*h));
            let deaf = peers().filter(|h| long(x, *h)).count();
            deaf >= SHARED || deaf * 2 > peers().count()
        };
        let cut_off = |x: HostNo, to: usize| {
            // What ends at a server that is down is the fault of that one, and while it is dialled anew.
            let gateway = &self.gateways[self.gateway(x, to)];
            let left = gateway.left.filter(|(_, t)| self.now.saturating_sub(*t) < REDIAL);
            let via_sick = matches!(gateway.link, Link::Up(via) if !self.works(via))
                || left.is_some_and(|(via, _)| !self.works(via));
            let mut there = self.hosts_of(to).filter(|h| tells(*h)).peekable();
            !via_sick && there.peek().is_some() && there.all(|h| long(x, h))
        };
        let deaf = |h: HostNo| {
            let mut peers = self.hosts_of(self.region(h)).filter(|x| *x != h && self.works(*x));
            tells(h) && peers.any(|x| long(x, h) && !mute(x))
        };
        (0..n)
            .filter(|h| match self.works(*h) {
                true => {
                    mute(*h) || deaf(*h) || (0..self.regions.len()).any(|to| to != self.region(*h) && cut_off(*h, to))
                }
                false => (0..n).any(|x| x != *h && tells(x) && long(*h, x)),
            })
            .count()
    }

    /// Could this agent read its server long enough to know of a storm? What comes beside JetStream's replication on one
    /// counter is a blind spot by design, told of by metric and status.
    fn knows_traffic(&self, host: HostNo) -> bool {
        let fleet = &self.scenario.fleet;
        if fleet.jetstream && !fleet.old {
            return false;
        }
        let long = |since: Duration| self.now.saturating_sub(since) >= SETTLED;
        long(self.servers[host].started) && long(self.agents[host].born)
    }

    /// An act is about to be done.
    pub(super) fn judge_act(&mut self, host: HostNo, act: Act, useful: bool) {
        self.watch.dirty = true;
        let others = (0..self.servers.len())
            .filter(|h| *h != host && self.servers[*h].hand.is_some())
            .count();
        let storm = self.weather.known_storm(self.now);
        let harm = !useful || act == Act::Restart && (storm || others > 0);
        let figures = &mut self.score.figures;
        match act {
            Act::Reset => figures.resets += 1,
            Act::Restart => figures.restarts += 1,
        }
        if harm {
            figures.harmful += 1;
            let n = self.servers.len();
            let mute = (0..n)
                .filter(|x| !self.passes(*x, host))
                .map(|x| self.names[x].as_str());
            let mute = mute.collect::<Vec<_>>().join(" ");
            let text = format!("this {act:?} is harmful: useful {useful}, others down {others}; not passing: [{mute}]");
            self.say(host, text);
        }
        if self.options.policy != Policy::Ours {
            return;
        }
        if self.scenario.agents.mode == Mode::Observe {
            self.violate(Invariant::Forbidden, host, format!("a {act:?} in observe"));
        }
        if act == Act::Reset && self.scenario.agents.mode < Mode::Reset {
            self.violate(
                Invariant::Forbidden,
                host,
                "a reset that the mode does not allow".to_owned(),
            );
        }
        if !useful {
            let network = self.watch.network[host].is_some_and(|t| self.now.saturating_sub(t) <= NETWORK);
            let (invariant, why) = if network && act == Act::Restart {
                (Invariant::NetworkFault, "the network was at fault")
            } else {
                (Invariant::HealthyServer, "nothing here was broken")
            };
            self.violate(invariant, host, format!("a {act:?} that could heal nothing: {why}"));
        }
        if act == Act::Restart {
            self.judge_restart(host);
        }
    }

    fn judge_restart(&mut self, host: HostNo) {
        let now = self.now;
        let (n, fraction) = (self.servers.len(), self.scenario.agents.max_sick_fraction);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count of hosts"
        )]
        let limit = ((n as f64 * fraction) as usize).max(1);
        let sick = self.sick();
        // Agents may know of less than there is.
        if sick > limit * 2 {
            let text = format!("a restart while {sick} of {n} hosts are sick, at most {limit} may be");
            self.violate(Invariant::Incident, host, text);
        }
        if self.scenario.agents.mode < Mode::Restart {
            self.violate(
                Invariant::Forbidden,
                host,
                "a restart that the mode does not allow".to_owned(),
            );
        }
        let soon = self.watch.restarts[host]
            .last()
            .is_some_and(|t| now.saturating_sub(*t) < TWICE);
        if soon || !self.servers[host].up {
            self.violate(
                Invariant::Twice,
                host,
                "it is restarted while it is being restarted".to_owned(),
            );
        }
        let per_hour = self.scenario.agents.restarts_per_hour;
        let step = Duration::from_secs(3600) / per_hour.max(1);
        let full = self.watch.full_at[host].max(now) + step;
        // Clocks drift by thousandths at most.
        if full.saturating_sub(now) > Duration::from_secs(3600 + 10) || per_hour == 0 {
            let before: Vec<String> = self.watch.restarts[host]
                .iter()
                .map(|t| humantime::format_duration(Duration::from_secs(t.as_secs())).to_string())
                .collect();
            let text = format!(
                "more than {per_hour} restarts an hour; earlier ones at {}",
                before.join(", ")
            );
            self.violate(Invariant::OverLimit, host, text);
        }
        self.watch.full_at[host] = full;
        self.watch.restarts[host].push(now);
    }

    pub(super) fn watch_record(&mut self, host: HostNo, record: &Record) {
        match record.event.as_str() {
            "fault" if !record.subject.starts_with("observer") => {
                self.watch.trouble = self.now;
                self.watch.verdicts.insert((host, record.subject.clone()));
            }
            "cleared" => {
                self.watch.verdicts.remove(&(host, record.subject.clone()));
            }
            _ => {}
        }
    }

    /// Each second.
    pub(super) fn watch_second(&mut self) {
        let now = self.now;
        if self.options.bulk && self.watch.calm(now) {
            return;
        }
        self.note_uses();
        if self.net.cut > 0 || self.net.lossy > 0 {
            for host in 0..self.servers.len() {
                if self.network_trouble(host) {
                    self.watch.network[host] = Some(now);
                }
            }
        }
        if self.scenario.expect.no_false_fault {
            self.check_verdicts();
        }
        if now.as_secs().is_multiple_of(10) {
            self.check_open();
            self.check_held();
        }
    }

    fn network_trouble(&self, host: HostNo) -> bool {
        let here = self.region(host);
        (0..self.regions.len()).any(|r| self.net.loss(here, r) > 0)
            || (0..self.servers.len()).any(|x| !self.net.open(host, x))
    }

    /// A verdict counts from when nothing is broken and nothing waits for a retransmission any more, and while its agent
    /// goes on: what stands still can take nothing back.
    fn check_verdicts(&mut self) {
        let now = self.now;
        if self.anything_broken() || self.score.anything_waits(now) {
            self.watch.wrong.clear();
            return;
        }
        let mut wrong = std::mem::take(&mut self.watch.wrong);
        wrong.retain(|held, _| self.watch.verdicts.contains(held));
        let mut lasting = None;
        for held in &self.watch.verdicts {
            let agent = &self.agents[held.0];
            if agent.core.is_none() {
                wrong.remove(held);
                continue;
            }
            let (held_for, seen) = wrong.entry(held.clone()).or_insert((Duration::ZERO, now));
            if !agent.frozen {
                *held_for += now.saturating_sub(*seen);
            }
            *seen = now;
            if *held_for > CONFIRM {
                lasting = lasting.or_else(|| Some(held.clone()));
            }
        }
        self.watch.wrong = wrong;
        if let Some((host, id)) = lasting {
            self.violate(
                Invariant::FalseFault,
                host,
                format!("{id} is held, and nothing is broken"),
            );
        }
    }

    fn anything_broken(&self) -> bool {
        self.score.silent.iter().any(|s| *s > 0)
    }

    /// Faults that a remedy could heal, and how long they are there.
    fn check_open(&mut self) {
        if self.options.policy != Policy::Ours || self.scenario.agents.mode == Mode::Observe {
            return;
        }
        let n = self.servers.len();
        let mut overdue = Vec::new();
        for from in 0..n {
            for to in 0..n {
                let alive = self.agents[from].core.is_some() && self.agents[to].core.is_some();
                let silent = self.score.silent[from * n + to] > 0;
                let open = silent && alive && self.works(from) && self.works(to) && self.remediable(from, to);
                if !open {
                    self.watch.open.remove(&(from, to));
                    self.watch.said.remove(&(from, to));
                    continue;
                }
                let since = *self.watch.open.entry((from, to)).or_insert(self.now);
                let open_for = self.now.saturating_sub(since);
                if open_for > BOUND.saturating_sub(SAID) {
                    overdue.push((from, to, open_for > BOUND));
                }
            }
        }
        // Who has just started knows nothing yet.
        let settled = |w: &Self, h: HostNo| w.now.saturating_sub(w.agents[h].born) >= SETTLED;
        for (from, to, overdue) in overdue {
            if self.handed(from, to) {
                self.watch.said.insert((from, to), self.now);
                continue;
            }
            let said = self.watch.said.get(&(from, to));
            let said = said.is_some_and(|at| self.now.saturating_sub(*at) <= SAID);
            if overdue && !said && settled(self, from) && settled(self, to) {
                let text = format!(
                    "nothing passes from {} to {} for {}, and no agent says so",
                    self.names[from],
                    self.names[to],
                    humantime::format_duration(BOUND)
                );
                self.violate(Invariant::NotHealed, from, text);
            }
        }
    }

    /// Permits of hosts that live, reach the store, and neither give them back nor say that they failed.
    fn check_held(&mut self) {
        let now = self.now;
        let before = std::mem::take(&mut self.watch.held);
        if self.store.down > 0 || self.store.loses > 0 {
            return;
        }
        let holders = &self.store.document().holders;
        let open = holders.iter().filter(|h| h.phase != Phase::Failed);
        let held = open.filter_map(|h| {
            let host = *self.index.get(&h.host)?;
            let agent = &self.agents[host];
            let lives = agent.core.is_some() && !agent.frozen && agent.connected && self.reaches_store(host);
            let key = (host, h.token.clone());
            let since = before.get(&key).copied().unwrap_or(now);
            lives.then_some((key, since))
        });
        let held: BTreeMap<_, _> = held.collect();
        let long = held
            .iter()
            .find(|(_, since)| now.saturating_sub(**since) > HELD)
            .map(|((h, _), _)| *h);
        self.watch.held = held;
        if let Some(host) = long {
            let text = format!("it holds its permit for {}", humantime::format_duration(HELD));
            self.violate(Invariant::Twice, host, text);
        }
    }

    fn remediable(&self, from: HostNo, to: HostNo) -> bool {
        if self.region(from) == self.region(to) {
            self.net.open(from, to)
        } else {
            self.gateway_sick(from, self.region(to), Act::Reset)
        }
    }

    /// Does any agent show a fault about one of the two?
    fn handed(&self, from: HostNo, to: HostNo) -> bool {
        let ends = [&self.names[from], &self.names[to]];
        let cluster = &self.scenario.fleet.regions[self.region(to)];
        (0..self.servers.len()).any(|h| {
            let agent = &self.agents[h];
            let Some(core) = &agent.core else { return false };
            core.snapshot(agent.now(self.now)).faults.iter().any(|f| {
                ends.iter().any(|e| f.from.as_str() == e.as_str())
                    || f.to.as_ref().is_some_and(|t| ends.contains(&t) || t == cluster)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::sim::{Options, Scenario};

    fn world() -> World {
        let text = "name = \"t\"\nabout = \"t\"\nduration = \"10m\"\n[expect]\nno_false_fault = true\n";
        let scenario = Scenario::parse(Path::new("t.toml"), text).unwrap();
        let mut world = World::new(Arc::new(scenario), 1, Options::default());
        world.run();
        assert!(world.watch.broken.is_none(), "{:?}", world.watch.broken);
        world.watch.verdicts.insert((0, "route:iad-2>iad-1".to_owned()));
        world
    }

    fn check_for(world: &mut World, seconds: u64) -> bool {
        for _ in 0..seconds {
            world.now += Duration::from_secs(1);
            world.check_verdicts();
        }
        world.watch.broken.is_some()
    }

    #[test]
    fn where_three_do_not_hear_a_host_it_is_the_sick_one_and_not_they() {
        let mut w = world();
        assert_eq!(w.sick(), 0);
        for (receiver, sick) in [(1, 1), (2, 2), (3, 1), (4, 1)] {
            w.score.silent[receiver] = 30;
            assert_eq!(w.sick(), sick, "{receiver}");
        }
    }

    #[test]
    fn a_verdict_against_what_is_fine_may_last_as_long_as_its_confirm_time() {
        let mut w = world();
        assert!(!check_for(&mut w, 11));
        assert!(check_for(&mut w, 1));
        assert_eq!(w.watch.broken.unwrap().invariant, Invariant::FalseFault);
    }

    #[test]
    fn it_counts_from_when_nothing_is_broken_or_waits_and_while_its_agent_goes_on() {
        let mut w = world();
        w.score.silent[1] = 1;
        assert!(!check_for(&mut w, 60));
        w.score.silent[1] = 0;
        let late = w.now + Duration::from_secs(60);
        w.score.in_order(0, 1, late);
        assert!(!check_for(&mut w, 60));
        w.agents[0].frozen = true;
        assert!(!check_for(&mut w, 60));
        w.agents[0].frozen = false;
        assert!(!check_for(&mut w, 9));
        assert!(check_for(&mut w, 4));
    }
}
