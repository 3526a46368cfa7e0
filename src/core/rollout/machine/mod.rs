//! The rollout, step by step: check, send, wait for the new server, prove, stagger, next. One host at a time, or a few,
//! but never two of one region, nor two of one cluster with JetStream; a wave begins when the one before is proved.
//!
//! Sans-IO: [`Machine::handle`] takes what happened and the time, and says what to do; [`Machine::deadline`] says when
//! it wants a [`Event::Tick`] at the latest. Questions go out in rounds; an answer to an earlier round is dropped, so
//! nothing said before a restart can prove what is after it.
//!
//! When something fails, nothing further starts; hosts that are in work are watched to their proof, or to their limit.

mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::canary::beacon::Health;
use crate::core::control::{Answer, Hearing, HostStatus, roll};
use crate::core::ids::{HostName, Mono, Region};
use crate::core::rollout::gate::{Answers, Gate};
use crate::core::rollout::plan::{Inventory, Plan, Planned};
use crate::core::rollout::proof::Before;
use crate::core::rollout::report::{Halt, Outcome, Progress, Reason, Step};

/// How many hosts are asked whether they hear the one that is restarted.
const ASKED: usize = 6;

/// Times and counts of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Gap between the proof of one host and the check of the next, and between two starts.
    pub stagger: Duration,
    /// Share of the gap that chance adds at most, in percent: fleets that are rolled by a schedule must not beat together.
    pub jitter: u32,
    /// Seed of that chance.
    pub seed: u64,
    /// Hosts in work at a time.
    pub max_unavailable: usize,
    /// For one host, from the command to the end of its proof; what its drain and its hook may take comes on top.
    pub timeout: Duration,
    /// How long a gate may stay closed before the rollout halts.
    pub settle: Duration,
    /// The same for the gate of a brownout: a storm is waited out.
    pub brownout: Duration,
    /// Between two questions while waiting.
    pub poll: Duration,
    /// Between two reads of a proof.
    pub read_every: Duration,
    /// Good reads in a row that make a proof.
    pub reads: u32,
    /// Oldest accepted read of a server, at the gate.
    pub fresh: Duration,
    /// How long an answer to a question or a command may take.
    pub answer: Duration,
    /// What the mean of system traffic into each server is to stay below, bytes a second, where it is known: shown only.
    pub ceiling: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stagger: Duration::from_secs(30),
            jitter: 10,
            seed: 0,
            max_unavailable: 1,
            timeout: Duration::from_secs(120),
            settle: Duration::from_secs(15),
            brownout: Duration::from_secs(600),
            poll: Duration::from_secs(1),
            read_every: Duration::from_secs(2),
            reads: 3,
            fresh: Duration::from_secs(10),
            answer: Duration::from_secs(5),
            ceiling: None,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The answer to [`Action::AskStatus`], or what came instead.
    Status {
        /// Round of the question.
        round: u64,
        /// Who was asked.
        host: HostName,
        /// What came.
        answer: Result<Box<HostStatus>, String>,
    },
    /// The answer to [`Action::AskHears`].
    Hears {
        /// Round of the question.
        round: u64,
        /// Who was asked.
        by: HostName,
        /// What came.
        answer: Result<Hearing, String>,
    },
    /// The answer to [`Action::Restart`]; an error = nobody knows whether it was taken.
    Answered {
        /// Who was commanded.
        host: HostName,
        /// What came.
        answer: Result<Answer, String>,
    },
    /// A beacon of a host that does not answer on control.
    Beacon {
        /// Who.
        host: HostName,
        /// What it says of itself.
        health: Health,
        /// When its next one is due.
        interval: Duration,
        /// It leaves in order.
        bye: bool,
    },
    /// The operator wants to stop after the hosts in work.
    Interrupt,
    /// The operator stops now.
    Abandon,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask a host for its status.
    AskStatus {
        /// Hand back with the answer.
        round: u64,
        /// Whom.
        host: HostName,
    },
    /// Ask a host whether it hears another.
    AskHears {
        /// Hand back with the answer.
        round: u64,
        /// Whom.
        by: HostName,
        /// About whom.
        source: HostName,
    },
    /// Sign and send the command to restart. Never twice to one host.
    Restart {
        /// Whom.
        host: HostName,
    },
    /// Tell the operator.
    Report(Progress),
    /// The end; nothing follows.
    Finish(Outcome),
}

/// A host that was restarted, or is being, before this machine began: to be proved and not to be restarted.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// Who.
    pub host: Planned,
    /// What must be back.
    pub before: roll::Before,
    /// Its agent had given it up as failed, and somebody mended it.
    pub mended: bool,
}

/// Questions under way.
#[derive(Debug)]
struct Round {
    number: u64,
    asked: Mono,
    statuses: BTreeSet<HostName>,
    hearings: BTreeSet<HostName>,
    answers: Answers,
}

impl Round {
    fn complete(&self, now: Mono, patience: Duration) -> bool {
        (self.statuses.is_empty() && self.hearings.is_empty()) || now.since(self.asked) >= patience
    }
}

/// The gate of the next host is asked until it opens or patience ends.
#[derive(Debug)]
struct Checking {
    host: Planned,
    until: Mono,
    storm_until: Mono,
    said: Option<Gate>,
    round: Option<Round>,
    next_round: Mono,
}

#[derive(Debug)]
enum Phase {
    /// The command is under way.
    Sending,
    /// For the new server. `taken` = the agent said so itself.
    Waiting { taken: Result<(), String> },
    /// Reads of the new server.
    Proving {
        id: String,
        seen: Mono,
        good: u32,
        lacking: Vec<String>,
    },
}

/// A host that was commanded and is not proved yet.
#[derive(Debug)]
struct Work {
    host: Planned,
    phase: Phase,
    before: Before,
    sent: Mono,
    limit: Duration,
    round: Option<Round>,
    next_round: Mono,
    last_status: Option<HostStatus>,
    /// What its agent was last said to be at.
    doing: String,
    /// See [`Adopted::mended`].
    mended: bool,
}

/// Something ended the rollout; what is in work is still watched.
#[derive(Debug)]
struct Ending {
    host: Option<HostName>,
    step: Step,
    touched: bool,
    reason: Reason,
    state: Option<HostStatus>,
}

#[derive(Debug, Clone, Copy)]
struct Silent {
    last: Mono,
    allowed: Duration,
}

/// One rollout.
#[derive(Debug)]
pub struct Machine {
    rollout: String,
    limits: Limits,
    watched: BTreeMap<HostName, Region>,
    silent: BTreeMap<HostName, Silent>,
    queue: VecDeque<Planned>,
    checking: Option<Checking>,
    work: BTreeMap<HostName, Work>,
    /// Commanded, and not proved in the end.
    failed: Vec<HostName>,
    done: Vec<HostName>,
    total: usize,
    wave: usize,
    number: u64,
    next_start: Mono,
    ending: Option<Ending>,
    interrupted: bool,
    ended: bool,
    chance: u64,
}

impl Machine {
    /// A rollout of `plan`, named `rollout`; begins with the first event.
    #[must_use]
    pub fn new(rollout: &str, plan: &Plan, inventory: &Inventory, limits: Limits, now: Mono) -> Self {
        let region = |host: &HostName| inventory.get(host).map(|f| f.region.clone());
        let queue: VecDeque<Planned> = plan.order.iter().cloned().collect();
        let watched = queue
            .iter()
            .map(|p| &p.host)
            .chain(&plan.others)
            .filter_map(|h| Some((h.clone(), region(h)?)))
            .collect();
        let heard_just_now = Silent {
            last: now,
            allowed: limits.settle,
        };
        Self {
            rollout: rollout.to_owned(),
            limits,
            watched,
            silent: plan.silent.iter().map(|h| (h.clone(), heard_just_now)).collect(),
            ended: queue.is_empty(),
            total: queue.len(),
            queue,
            checking: None,
            work: BTreeMap::new(),
            failed: Vec::new(),
            done: Vec::new(),
            wave: 0,
            number: 0,
            next_start: now,
            ending: None,
            interrupted: false,
            chance: limits.seed,
        }
    }

    /// Takes over what another process of the same rollout left in work; call it before the first event. They count as
    /// hosts of the plan, which must not hold them.
    #[must_use]
    pub fn adopting(mut self, hosts: Vec<Adopted>, now: Mono) -> Self {
        self.total += hosts.len();
        self.ended &= hosts.is_empty();
        for adopted in hosts {
            let Adopted {
                host: planned,
                before,
                mended,
            } = adopted;
            let name = planned.host.clone();
            self.watched.insert(name.clone(), planned.region.clone());
            let witnesses: Vec<HostName> = self.witnesses(&name).into_iter().collect();
            let work = Work {
                limit: self.limits.timeout + planned.allowance,
                phase: Phase::Waiting { taken: Ok(()) },
                before: Before::kept(&before, witnesses),
                sent: now,
                round: None,
                next_round: now,
                last_status: None,
                doing: String::new(),
                mended,
                host: planned,
            };
            self.work.insert(name, work);
        }
        self
    }

    /// Counts hosts of the plan that were proved before this machine began.
    #[must_use]
    pub fn continuing(mut self, done: Vec<HostName>) -> Self {
        self.total += done.len();
        self.done = done;
        self
    }

    /// The rollout's name.
    #[must_use]
    pub fn rollout(&self) -> &str {
        &self.rollout
    }

    /// Hosts that are proved.
    #[must_use]
    pub fn done(&self) -> &[HostName] {
        &self.done
    }

    /// When a [`Event::Tick`] is wanted at the latest; `None` = it is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        if self.ended {
            return None;
        }
        let answer = self.limits.answer;
        let questions = |round: &Option<Round>, next: Mono| round.as_ref().map_or(next, |r| r.asked.plus(answer));
        let work = self.work.values().map(|w| match w.phase {
            Phase::Sending => w.sent.plus(answer),
            _ => questions(&w.round, w.next_round).min(w.sent.plus(w.limit)),
        });
        let gate = self.checking.iter().map(|c| questions(&c.round, c.next_round));
        let start = (self.checking.is_none() && self.next().is_some()).then_some(self.next_start);
        work.chain(gate).chain(start).min().or(Some(self.next_start))
    }

    /// Takes what happened at `now`; events that do not fit the step are dropped.
    pub fn handle(&mut self, event: Event, now: Mono) -> Vec<Action> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        match event {
            Event::Tick => {}
            Event::Status { round, host, answer } => {
                if let Some(r) = self.round(round)
                    && r.statuses.remove(&host)
                {
                    r.answers.statuses.insert(host, answer.map(|s| *s));
                }
            }
            Event::Hears { round, by, answer } => {
                if let Some(r) = self.round(round)
                    && r.hearings.remove(&by)
                {
                    r.answers.hearings.insert(by, answer);
                }
            }
            Event::Answered { host, answer } => self.answered(&host, answer, now, &mut out),
            Event::Beacon {
                host,
                health,
                interval,
                bye,
            } => self.beacon(&host, health, interval, bye, now),
            Event::Interrupt => self.interrupt(&mut out),
            Event::Abandon => self.abandon(),
        }
        self.advance(now, &mut out);
        out
    }

    fn round(&mut self, number: u64) -> Option<&mut Round> {
        let gate = self.checking.iter_mut().filter_map(|c| c.round.as_mut());
        let work = self.work.values_mut().filter_map(|w| w.round.as_mut());
        gate.chain(work).find(|r| r.number == number)
    }

    fn advance(&mut self, now: Mono, out: &mut Vec<Action>) {
        let hosts: Vec<HostName> = self.work.keys().cloned().collect();
        for host in &hosts {
            self.advance_work(host, now, out);
        }
        if self.ending.is_none() && !self.interrupted {
            self.begin_next(now, out);
            self.advance_check(now, out);
        }
        self.conclude(out);
    }

    /// Ends when nothing is left to do or to watch.
    fn conclude(&mut self, out: &mut Vec<Action>) {
        if self.ended || !self.work.is_empty() {
            return;
        }
        if self.ending.is_none() && self.interrupted && !self.queue.is_empty() {
            let host = self.checking.as_ref().map(|c| c.host.host.clone());
            let step = if host.is_some() {
                Step::Checking
            } else {
                Step::Staggering
            };
            self.ending = Some(Ending {
                host: host.or_else(|| self.queue.front().map(|p| p.host.clone())),
                step,
                touched: false,
                reason: Reason::Interrupted,
                state: None,
            });
        }
        match self.ending.take() {
            Some(ending) => self.halt(ending, out),
            None if self.queue.is_empty() => {
                self.ended = true;
                out.push(Action::Finish(Outcome::Done(self.done.clone())));
            }
            None => {}
        }
    }

    fn halt(&mut self, ending: Ending, out: &mut Vec<Action>) {
        self.ended = true;
        self.checking = None;
        let also: Vec<HostName> = self
            .failed
            .iter()
            .chain(self.work.keys())
            .filter(|h| ending.host.as_ref() != Some(*h))
            .cloned()
            .collect();
        out.push(Action::Finish(Outcome::Halted(Box::new(Halt {
            host: ending.host,
            step: ending.step,
            touched: ending.touched,
            reason: ending.reason,
            done: self.done.clone(),
            also,
            remaining: self.queue.iter().map(|p| p.host.clone()).collect(),
            state: ending.state,
        }))));
    }

    /// The host whose turn it is, if its wave has begun or may begin and nothing in work stands against it.
    fn next(&self) -> Option<&Planned> {
        if self.ending.is_some() || self.interrupted || self.work.len() >= self.limits.max_unavailable {
            return None;
        }
        let wave = self.queue.front()?.wave;
        if self.work.values().any(|w| w.host.wave < wave) {
            return None;
        }
        self.queue
            .iter()
            .take_while(|p| p.wave == wave)
            .find(|p| !self.work.values().any(|w| together(&w.host, p)))
    }

    fn begin_next(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.checking.is_some() || now < self.next_start {
            return;
        }
        let Some(next) = self.next().cloned() else { return };
        if next.wave != self.wave {
            self.wave = next.wave;
            out.push(Action::Report(Progress::Wave {
                wave: next.wave,
                of: self.queue.back().map_or(next.wave, |p| p.wave),
                hosts: self.queue.iter().filter(|p| p.wave == next.wave).count(),
            }));
        }
        self.checking = Some(Checking {
            host: next,
            until: now.plus(self.limits.settle),
            storm_until: now.plus(self.limits.brownout),
            said: None,
            round: None,
            next_round: now,
        });
    }

    /// Hosts to ask about `host`: by name from the next on, half from its own region, as far as there are; none that is
    /// in work itself.
    fn witnesses(&self, host: &HostName) -> BTreeSet<HostName> {
        let own = self.watched.get(host);
        let there = |(h, _): &(&HostName, &Region)| !self.work.contains_key(*h);
        let after = self.watched.iter().filter(|(h, _)| *h > host).filter(there);
        let before = self.watched.iter().filter(|(h, _)| *h < host).filter(there);
        let (near, far): (Vec<_>, Vec<_>) = after.chain(before).partition(|(_, region)| Some(*region) == own);
        let near_share = (ASKED / 2).max(ASKED.saturating_sub(far.len()));
        let near: Vec<_> = near.into_iter().take(near_share).collect();
        let far = far.into_iter().take(ASKED - near.len());
        near.iter().copied().chain(far).map(|(h, _)| h.clone()).collect()
    }

    fn beacon(&mut self, host: &HostName, health: Health, interval: Duration, bye: bool, now: Mono) {
        let Some(silent) = self.silent.get_mut(host) else {
            return;
        };
        if bye {
            self.silent.remove(host);
        } else if !matches!(health, Health::Restarting | Health::LameDuck) {
            *silent = Silent {
                last: now,
                allowed: interval * 3 + Duration::from_secs(1),
            };
        }
    }

    fn interrupt(&mut self, out: &mut Vec<Action>) {
        self.interrupted = true;
        if !self.work.is_empty() {
            self.checking = None;
        }
        out.extend(
            self.work
                .keys()
                .map(|host| Action::Report(Progress::Stopping { after: host.clone() })),
        );
    }

    fn abandon(&mut self) {
        let in_work = self.work.pop_first();
        let gate = self.checking.take();
        self.ending = Some(match in_work {
            Some((host, work)) => {
                // The rest is in work too, and is named as such.
                self.failed.extend(std::mem::take(&mut self.work).into_keys());
                Ending {
                    host: Some(host),
                    step: work.step(),
                    touched: true,
                    reason: Reason::Abandoned,
                    state: work.last_status,
                }
            }
            None => Ending {
                host: self.queue.front().map(|p| p.host.clone()),
                step: if gate.is_some() {
                    Step::Checking
                } else {
                    Step::Staggering
                },
                touched: false,
                reason: Reason::Abandoned,
                state: None,
            },
        });
    }

    /// The gap with its chance.
    fn gap(&mut self) -> Duration {
        // splitmix64 (Steele, Lea, Flood 2014).
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.chance;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let millis = u64::try_from(self.limits.stagger.as_millis()).unwrap_or(u64::MAX);
        let most = millis.saturating_mul(u64::from(self.limits.jitter)) / 100;
        let more = if most == 0 { 0 } else { x % (most + 1) };
        self.limits.stagger + Duration::from_millis(more)
    }
}

impl Work {
    fn step(&self) -> Step {
        match self.phase {
            Phase::Sending => Step::Sending,
            Phase::Waiting { .. } => Step::Restarting,
            Phase::Proving { .. } => Step::Proving,
        }
    }
}

/// The two must not be down at the same time.
fn together(a: &Planned, b: &Planned) -> bool {
    let raft = (a.jetstream || b.jetstream) && a.cluster == b.cluster;
    a.region == b.region || raft
}

#[cfg(test)]
mod tests;
