//! The rollout, step by step: check, send, wait for the new server, prove, stagger, next. One host at a time.
//!
//! Sans-IO: [`Machine::handle`] takes what happened and the time, and says what to do; [`Machine::deadline`] says when
//! it wants a [`Event::Tick`] at the latest. Questions go out in rounds; an answer to an earlier round is dropped, so
//! nothing said before a restart can prove what is after it.

mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::canary::beacon::Health;
use crate::core::control::{Answer, Hearing, HostStatus};
use crate::core::ids::{HostName, Mono, Region};
use crate::core::rollout::gate::{Answers, Gate};
use crate::core::rollout::plan::{Inventory, Plan};
use crate::core::rollout::proof::Before;
use crate::core::rollout::report::{Halt, Outcome, Progress, Reason, Step};

/// How many hosts are asked whether they hear the one that is restarted.
const ASKED: usize = 6;

/// Times and counts of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Gap between the proof of one host and the check of the next.
    pub stagger: Duration,
    /// For one host, from the command to the end of its proof.
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stagger: Duration::from_secs(30),
            timeout: Duration::from_secs(120),
            settle: Duration::from_secs(15),
            brownout: Duration::from_secs(600),
            poll: Duration::from_secs(1),
            read_every: Duration::from_secs(2),
            reads: 3,
            fresh: Duration::from_secs(10),
            answer: Duration::from_secs(5),
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
    /// The operator wants to stop after the host in work.
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

/// Questions under way.
#[derive(Debug)]
struct Round {
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

#[derive(Debug)]
enum Phase {
    /// The gate is asked until it opens or patience ends.
    Checking {
        until: Mono,
        storm_until: Mono,
        said: Option<Gate>,
    },
    /// The command is under way.
    Sending { before: Before, sent: Mono },
    /// For the new server. `taken` = the agent said so itself.
    Waiting {
        before: Before,
        sent: Mono,
        taken: Result<(), String>,
    },
    /// Reads of the new server.
    Proving {
        before: Before,
        sent: Mono,
        id: String,
        seen: Mono,
        good: u32,
        lacking: Vec<String>,
    },
    /// Between two hosts.
    Staggering { until: Mono },
    /// Over.
    Ended,
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
    queue: VecDeque<HostName>,
    done: Vec<HostName>,
    phase: Phase,
    round: Option<Round>,
    number: u64,
    next_round: Mono,
    interrupted: bool,
    last_status: Option<HostStatus>,
}

impl Machine {
    /// A rollout of `plan`, named `rollout`; begins with the first event.
    #[must_use]
    pub fn new(rollout: &str, plan: &Plan, inventory: &Inventory, limits: Limits, now: Mono) -> Self {
        let region = |host: &HostName| inventory.get(host).map(|f| f.region.clone());
        let queue: VecDeque<HostName> = plan.order.iter().map(|p| p.host.clone()).collect();
        let watched = queue
            .iter()
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
            phase: if queue.is_empty() {
                Phase::Ended
            } else {
                Phase::Checking {
                    until: now.plus(limits.settle),
                    storm_until: now.plus(limits.brownout),
                    said: None,
                }
            },
            queue,
            done: Vec::new(),
            round: None,
            number: 0,
            next_round: now,
            interrupted: false,
            last_status: None,
        }
    }

    /// The rollout's name.
    #[must_use]
    pub fn rollout(&self) -> &str {
        &self.rollout
    }

    /// When a [`Event::Tick`] is wanted at the latest; `None` = it is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let answer = self.limits.answer;
        let questions = match &self.round {
            Some(round) => round.asked.plus(answer),
            None => self.next_round,
        };
        match &self.phase {
            Phase::Ended => None,
            Phase::Checking { .. } => Some(questions),
            Phase::Sending { sent, .. } => Some(sent.plus(answer)),
            Phase::Waiting { sent, .. } | Phase::Proving { sent, .. } => {
                Some(questions.min(sent.plus(self.limits.timeout)))
            }
            Phase::Staggering { until } => Some(*until),
        }
    }

    /// Takes what happened at `now`; events that do not fit the step are dropped.
    pub fn handle(&mut self, event: Event, now: Mono) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Status { round, host, answer } => {
                if let Some(r) = self.round.as_mut().filter(|_| round == self.number)
                    && r.statuses.remove(&host)
                {
                    r.answers.statuses.insert(host, answer.map(|s| *s));
                }
            }
            Event::Hears { round, by, answer } => {
                if let Some(r) = self.round.as_mut().filter(|_| round == self.number)
                    && r.hearings.remove(&by)
                {
                    r.answers.hearings.insert(by, answer);
                }
            }
            Event::Answered { host, answer } => {
                if self.queue.front() == Some(&host) {
                    self.answered(answer, now, &mut out);
                }
            }
            Event::Beacon {
                host,
                health,
                interval,
                bye,
            } => self.beacon(&host, health, interval, bye, now),
            Event::Interrupt => self.interrupt(&mut out),
            Event::Abandon => {
                if !matches!(self.phase, Phase::Ended) {
                    self.halt(Reason::Abandoned, &mut out);
                }
            }
        }
        self.advance(now, &mut out);
        out
    }

    fn advance(&mut self, now: Mono, out: &mut Vec<Action>) {
        if let Phase::Staggering { until } = self.phase {
            if now < until {
                return;
            }
            self.check_next(now);
        }
        if let Phase::Sending { sent, .. } = self.phase {
            if now >= sent.plus(self.limits.answer) {
                self.answered(Err("no answer in time".to_owned()), now, out);
            } else {
                return;
            }
        }
        if self.overdue(now, out) {
            return;
        }
        match &self.round {
            Some(round) if round.complete(now, self.limits.answer) => {
                if let Some(round) = self.round.take() {
                    self.concluded(round, now, out);
                }
            }
            Some(_) => {}
            None => self.ask(now, out),
        }
    }

    /// Sends the questions of the next round, if it is time and the step has any.
    fn ask(&mut self, now: Mono, out: &mut Vec<Action>) {
        let Some(host) = self.queue.front().cloned() else {
            return;
        };
        if now < self.next_round {
            return;
        }
        let (statuses, hearings, gap) = match &self.phase {
            Phase::Checking { .. } => (
                self.watched.keys().cloned().collect(),
                self.witnesses(&host),
                self.limits.poll,
            ),
            Phase::Waiting { .. } => (BTreeSet::from([host.clone()]), BTreeSet::new(), self.limits.poll),
            Phase::Proving { before, .. } => (
                BTreeSet::from([host.clone()]),
                before.witnesses.iter().cloned().collect(),
                self.limits.read_every,
            ),
            Phase::Sending { .. } | Phase::Staggering { .. } | Phase::Ended => return,
        };
        self.number += 1;
        let round = self.number;
        out.extend(statuses.iter().map(|host| Action::AskStatus {
            round,
            host: host.clone(),
        }));
        out.extend(hearings.iter().map(|by| Action::AskHears {
            round,
            by: by.clone(),
            source: host.clone(),
        }));
        self.next_round = now.plus(gap);
        self.round = Some(Round {
            asked: now,
            statuses,
            hearings,
            answers: Answers::default(),
        });
    }

    /// Hosts to ask about `host`: by name from the next on, half from its own region, as far as there are.
    fn witnesses(&self, host: &HostName) -> BTreeSet<HostName> {
        let own = self.watched.get(host);
        let after = self.watched.iter().filter(|(h, _)| *h > host);
        let before = self.watched.iter().filter(|(h, _)| *h < host);
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

    fn check_next(&mut self, now: Mono) {
        self.round = None;
        self.next_round = now;
        self.phase = Phase::Checking {
            until: now.plus(self.limits.settle),
            storm_until: now.plus(self.limits.brownout),
            said: None,
        };
    }

    fn interrupt(&mut self, out: &mut Vec<Action>) {
        self.interrupted = true;
        match &self.phase {
            Phase::Checking { .. } | Phase::Staggering { .. } => {
                self.halt(Reason::Interrupted, out);
            }
            Phase::Sending { .. } | Phase::Waiting { .. } | Phase::Proving { .. } => {
                out.extend(
                    self.queue
                        .front()
                        .map(|host| Action::Report(Progress::Stopping { after: host.clone() })),
                );
            }
            Phase::Ended => {}
        }
    }

    fn halt(&mut self, reason: Reason, out: &mut Vec<Action>) {
        let refused = matches!(reason, Reason::Refused { .. });
        let (step, touched) = match &self.phase {
            Phase::Checking { .. } => (Step::Checking, false),
            Phase::Sending { .. } => (Step::Sending, !refused),
            Phase::Waiting { .. } => (Step::Restarting, true),
            Phase::Proving { .. } => (Step::Proving, true),
            Phase::Staggering { .. } | Phase::Ended => (Step::Staggering, false),
        };
        let in_work = self.queue.front().cloned();
        let untouched = self.queue.iter().skip(usize::from(touched)).cloned();
        let halt = Halt {
            host: in_work,
            step,
            touched,
            done: self.done.clone(),
            remaining: untouched.collect(),
            state: self.last_status.take(),
            reason,
        };
        self.phase = Phase::Ended;
        self.round = None;
        out.push(Action::Finish(Outcome::Halted(Box::new(halt))));
    }
}

#[cfg(test)]
mod tests;
