//! What each step makes of its answers: the gate, the command, the new server, the proof, the time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Action, Machine, Phase, Round};
use crate::core::control::{Answer, Stage};
use crate::core::ids::{HostName, Mono};
use crate::core::rollout::gate::{Answers, Gate, check};
use crate::core::rollout::report::{Outcome, Progress, Reason};

impl Machine {
    pub(super) fn concluded(&mut self, round: Round, now: Mono, out: &mut Vec<Action>) {
        let Some(host) = self.queue.front().cloned() else {
            return;
        };
        if let Some(Ok(status)) = round.answers.statuses.get(&host) {
            self.last_status = Some(status.clone());
        }
        match &self.phase {
            Phase::Checking { .. } => self.checked(&host, &round.answers, now, out),
            Phase::Waiting { .. } => self.waited(&host, &round.answers, now, out),
            Phase::Proving { .. } => self.read(&host, &round.answers, now, out),
            Phase::Sending { .. } | Phase::Staggering { .. } | Phase::Ended => {}
        }
        // A step that has just begun, or a gap that has passed, asks at once.
        self.ask(now, out);
    }

    fn checked(&mut self, host: &HostName, answers: &Answers, now: Mono, out: &mut Vec<Action>) {
        let watched: BTreeSet<HostName> = self.watched.keys().cloned().collect();
        let gate = match self.silence(now) {
            Some(gate) => Err(gate),
            None => check(host, &watched, answers, self.limits.fresh),
        };
        let Phase::Checking { until, said } = &mut self.phase else {
            return;
        };
        match gate {
            Ok(before) => {
                self.phase = Phase::Sending { before, sent: now };
                out.push(Action::Report(Progress::Sending { host: host.clone() }));
                out.push(Action::Restart { host: host.clone() });
            }
            Err(gate) if now >= *until => self.halt(Reason::Gate(gate), out),
            Err(gate) => {
                if said.as_ref() != Some(&gate) {
                    *said = Some(gate.clone());
                    out.push(Action::Report(Progress::Held {
                        host: host.clone(),
                        gate,
                    }));
                }
            }
        }
    }

    fn silence(&self, now: Mono) -> Option<Gate> {
        self.silent
            .iter()
            .find(|(_, s)| now.since(s.last) > s.allowed)
            .map(|(host, s)| Gate::SilentBeacon {
                host: host.clone(),
                age: now.since(s.last),
            })
    }

    pub(super) fn answered(&mut self, answer: Result<Answer, String>, now: Mono, out: &mut Vec<Action>) {
        // Late ones are dropped: the step after finds out by itself.
        let (Phase::Sending { before, sent }, Some(host)) = (&self.phase, self.queue.front()) else {
            return;
        };
        let (before, sent) = (before.clone(), *sent);
        let taken = match answer {
            Ok(Answer::Refused { gate, text }) => {
                self.halt(Reason::Refused { gate, text }, out);
                return;
            }
            Ok(Answer::Accepted { .. }) => {
                out.push(Action::Report(Progress::Accepted { host: host.clone() }));
                Ok(())
            }
            Ok(other) => Err(format!("an answer that is none: {other:?}")),
            Err(error) => Err(error),
        };
        self.next_round = now;
        self.phase = Phase::Waiting { before, sent, taken };
    }

    fn waited(&mut self, host: &HostName, answers: &Answers, now: Mono, out: &mut Vec<Action>) {
        let Phase::Waiting { before, sent, taken } = &mut self.phase else {
            return;
        };
        let Some(Ok(status)) = answers.statuses.get(host) else {
            return;
        };
        let ours = status.last_command.as_ref().filter(|last| last.rollout == self.rollout);
        if let Some(last) = ours {
            *taken = Ok(());
            if last.state == Stage::Failed {
                let reason = Reason::Failed(last.detail.clone());
                self.halt(reason, out);
                return;
            }
        }
        if status.up && !status.server_id.is_empty() && status.server_id != before.server_id {
            out.push(Action::Report(Progress::Started {
                host: host.clone(),
                after: now.since(*sent),
                version: status.version.clone(),
            }));
            self.next_round = now.plus(self.limits.read_every);
            self.phase = Phase::Proving {
                before: before.clone(),
                sent: *sent,
                id: status.server_id.clone(),
                seen: now,
                good: 0,
                lacking: vec!["not read yet".to_owned()],
            };
        } else if let Err(error) = taken
            && ours.is_none()
            && now.since(*sent) >= self.limits.answer * 2
        {
            let reason = Reason::NotTaken(error.clone());
            self.halt(reason, out);
        }
    }

    fn read(&mut self, host: &HostName, answers: &Answers, now: Mono, out: &mut Vec<Action>) {
        let no_answer = Err("nothing in time".to_owned());
        let Phase::Proving {
            before,
            sent,
            id,
            seen,
            good,
            lacking,
        } = &mut self.phase
        else {
            return;
        };
        let status = answers
            .statuses
            .get(host)
            .unwrap_or(&no_answer)
            .as_ref()
            .map_err(|error| vec![format!("its agent does not answer: {error}")]);
        if let Ok(status) = status {
            let failed = status
                .last_command
                .as_ref()
                .filter(|last| last.rollout == self.rollout && last.state == Stage::Failed);
            if let Some(last) = failed {
                let reason = Reason::Failed(last.detail.clone());
                return self.halt(reason, out);
            }
            if status.up && !status.server_id.is_empty() && status.server_id != *id {
                return self.halt(Reason::StartedAgain, out);
            }
        }
        let values = before.values(status.as_ref().ok().copied(), answers, now.since(*seen));
        *lacking = match status {
            Ok(status) => before.lacking(status, answers, now.since(*seen)),
            Err(lacking) => lacking,
        };
        *good = if lacking.is_empty() { *good + 1 } else { 0 };
        out.push(Action::Report(Progress::Read {
            host: host.clone(),
            good: *good,
            of: self.limits.reads,
            lacking: lacking.clone(),
            values,
        }));
        if *good >= self.limits.reads {
            let after = now.since(*sent);
            self.proved(host.clone(), after, now, out);
        }
    }

    fn proved(&mut self, host: HostName, after: Duration, now: Mono, out: &mut Vec<Action>) {
        self.queue.pop_front();
        self.done.push(host.clone());
        self.last_status = None;
        out.push(Action::Report(Progress::Proved {
            host,
            after,
            done: self.done.len(),
            of: self.done.len() + self.queue.len(),
        }));
        match self.queue.front() {
            None => {
                self.phase = Phase::Ended;
                out.push(Action::Finish(Outcome::Done(self.done.clone())));
            }
            Some(_) if self.interrupted => {
                self.phase = Phase::Staggering { until: now };
                self.halt(Reason::Interrupted, out);
            }
            Some(next) => {
                out.push(Action::Report(Progress::Staggering {
                    next: next.clone(),
                    gap: self.limits.stagger,
                }));
                self.phase = Phase::Staggering {
                    until: now.plus(self.limits.stagger),
                };
            }
        }
    }

    /// Halts where the host in work has used up its time.
    pub(super) fn overdue(&mut self, now: Mono, out: &mut Vec<Action>) -> bool {
        let reason = match &self.phase {
            Phase::Waiting { sent, .. } if now.since(*sent) >= self.limits.timeout => Reason::NoNewServer {
                after: self.limits.timeout,
            },
            Phase::Proving {
                sent, good, lacking, ..
            } if now.since(*sent) >= self.limits.timeout => Reason::NoProof {
                after: self.limits.timeout,
                good: *good,
                of: self.limits.reads,
                lacking: lacking.clone(),
            },
            _ => return false,
        };
        self.halt(reason, out);
        true
    }
}
