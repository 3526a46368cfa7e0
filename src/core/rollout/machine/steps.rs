//! What each step makes of its answers: the gate, the command, the new server, the proof, the time.

use std::collections::BTreeSet;

use super::{Action, Ending, Machine, Phase, Round, Work};
use crate::core::control::{Answer, Stage};
use crate::core::ids::{HostName, Mono};
use crate::core::rollout::gate::{Answers, Gate, check};
use crate::core::rollout::report::{Progress, Reason, Step};

impl Machine {
    /// The gate of the next host: questions, answers, patience.
    pub(super) fn advance_check(&mut self, now: Mono, out: &mut Vec<Action>) {
        let answer = self.limits.answer;
        let Some(checking) = &mut self.checking else { return };
        if checking.round.as_ref().is_some_and(|r| r.complete(now, answer))
            && let Some(round) = checking.round.take()
        {
            self.checked(&round.answers, now, out);
        }
        let Some(checking) = self.checking.as_ref().filter(|c| c.round.is_none()) else {
            return;
        };
        if now < checking.next_round {
            return;
        }
        let host = checking.host.host.clone();
        let statuses = self
            .watched
            .keys()
            .filter(|h| !self.work.contains_key(*h))
            .cloned()
            .collect();
        let hearings = self.witnesses(&host);
        let round = self.ask(&host, statuses, hearings, now, out);
        let poll = self.limits.poll;
        if let Some(checking) = &mut self.checking {
            checking.next_round = now.plus(poll);
            checking.round = Some(round);
        }
    }

    fn checked(&mut self, answers: &Answers, now: Mono, out: &mut Vec<Action>) {
        let watched: BTreeSet<HostName> = self
            .watched
            .keys()
            .filter(|h| !self.work.contains_key(*h))
            .cloned()
            .collect();
        let in_work: BTreeSet<HostName> = self.work.keys().cloned().collect();
        let silence = self.silence(now);
        let busy = !self.work.is_empty();
        let (fresh, settle) = (self.limits.fresh, self.limits.settle);
        let Some(checking) = &mut self.checking else { return };
        let host = checking.host.host.clone();
        let gate = match silence {
            Some(gate) => Err(gate),
            None => check(&host, &watched, &in_work, answers, fresh),
        };
        if matches!(gate, Err(Gate::Brownout { .. })) {
            // After a storm, other gates have their whole time again; the storm has a limit of its own.
            checking.until = now.plus(settle).min(checking.storm_until.max(checking.until));
        }
        match gate {
            Ok(before) => self.send(&host, before, now, out),
            // What is in work disturbs others until it is proved.
            Err(_) if busy => checking.until = now.plus(settle),
            Err(gate) if now >= checking.until => {
                let state = answers.statuses.get(&host).and_then(|s| s.as_ref().ok()).cloned();
                self.checking = None;
                self.ending = Some(Ending {
                    host: Some(host),
                    step: Step::Checking,
                    touched: false,
                    reason: Reason::Gate(gate),
                    state,
                });
            }
            Err(gate) => {
                if checking.said.as_ref() != Some(&gate) {
                    checking.said = Some(gate.clone());
                    out.push(Action::Report(Progress::Held { host, gate }));
                }
            }
        }
    }

    fn send(&mut self, host: &HostName, before: crate::core::rollout::proof::Before, now: Mono, out: &mut Vec<Action>) {
        let Some(checking) = self.checking.take() else { return };
        self.queue.retain(|p| p.host != *host);
        let gap = self.gap();
        self.next_start = now.plus(gap);
        let work = Work {
            limit: self.limits.timeout + checking.host.allowance,
            phase: Phase::Sending,
            before,
            sent: now,
            round: None,
            next_round: now,
            last_status: None,
            doing: String::new(),
            mended: false,
            host: checking.host,
        };
        self.work.insert(host.clone(), work);
        out.push(Action::Report(Progress::Sending { host: host.clone() }));
        out.push(Action::Restart { host: host.clone() });
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

    pub(super) fn answered(
        &mut self,
        host: &HostName,
        answer: Result<Answer, String>,
        now: Mono,
        out: &mut Vec<Action>,
    ) {
        // Late ones are dropped: the step after finds out by itself.
        let Some(work) = self.work.get_mut(host).filter(|w| matches!(w.phase, Phase::Sending)) else {
            return;
        };
        let taken = match answer {
            Ok(Answer::Refused { gate, text }) => {
                // Nothing was done there: it is as if it had not been sent.
                if let Some(work) = self.work.remove(host) {
                    self.queue.push_front(work.host);
                }
                self.end(Ending {
                    host: Some(host.clone()),
                    step: Step::Sending,
                    touched: false,
                    reason: Reason::Refused { gate, text },
                    state: None,
                });
                return;
            }
            Ok(Answer::Accepted { .. }) => {
                out.push(Action::Report(Progress::Accepted { host: host.clone() }));
                Ok(())
            }
            Ok(other) => Err(format!("an answer that is none: {other:?}")),
            Err(error) => Err(error),
        };
        work.next_round = now;
        work.phase = Phase::Waiting { taken };
    }

    /// The first reason counts.
    fn end(&mut self, ending: Ending) {
        self.checking = None;
        self.ending.get_or_insert(ending);
    }

    fn fail(&mut self, host: &HostName, reason: Reason) {
        let Some(work) = self.work.remove(host) else { return };
        self.failed.push(host.clone());
        self.end(Ending {
            host: Some(host.clone()),
            step: work.step(),
            touched: true,
            reason,
            state: work.last_status,
        });
    }

    pub(super) fn advance_work(&mut self, host: &HostName, now: Mono, out: &mut Vec<Action>) {
        let answer = self.limits.answer;
        let Some(work) = self.work.get_mut(host) else { return };
        if matches!(work.phase, Phase::Sending) {
            if now < work.sent.plus(answer) {
                return;
            }
            self.answered(host, Err("no answer in time".to_owned()), now, out);
        }
        if self.overdue(host, now) {
            return;
        }
        let Some(work) = self.work.get_mut(host) else { return };
        if work.round.as_ref().is_some_and(|r| r.complete(now, answer))
            && let Some(round) = work.round.take()
        {
            if let Some(Ok(status)) = round.answers.statuses.get(host) {
                work.last_status = Some(status.clone());
            }
            match work.phase {
                Phase::Sending => {}
                Phase::Waiting { .. } => self.waited(host, &round.answers, now, out),
                Phase::Proving { .. } => self.read(host, &round.answers, now, out),
            }
        }
        self.ask_work(host, now, out);
    }

    fn ask_work(&mut self, host: &HostName, now: Mono, out: &mut Vec<Action>) {
        let Some(work) = self.work.get(host) else { return };
        if work.round.is_some() || now < work.next_round {
            return;
        }
        let (hearings, gap) = match work.phase {
            Phase::Sending => return,
            Phase::Waiting { .. } => (BTreeSet::new(), self.limits.poll),
            Phase::Proving { .. } => (work.before.witnesses.iter().cloned().collect(), self.limits.read_every),
        };
        let round = self.ask(host, BTreeSet::from([host.clone()]), hearings, now, out);
        if let Some(work) = self.work.get_mut(host) {
            work.next_round = now.plus(gap);
            work.round = Some(round);
        }
    }

    fn ask(
        &mut self,
        about: &HostName,
        statuses: BTreeSet<HostName>,
        hearings: BTreeSet<HostName>,
        now: Mono,
        out: &mut Vec<Action>,
    ) -> Round {
        self.number += 1;
        let round = self.number;
        out.extend(statuses.iter().map(|host| Action::AskStatus {
            round,
            host: host.clone(),
        }));
        out.extend(hearings.iter().map(|by| Action::AskHears {
            round,
            by: by.clone(),
            source: about.clone(),
        }));
        Round {
            number: round,
            asked: now,
            statuses,
            hearings,
            answers: Answers::default(),
        }
    }

    fn waited(&mut self, host: &HostName, answers: &Answers, now: Mono, out: &mut Vec<Action>) {
        let Some(work) = self.work.get_mut(host) else { return };
        let Phase::Waiting { taken } = &mut work.phase else {
            return;
        };
        let since_sent = now.since(work.sent);
        if let Some(Ok(status)) = answers.statuses.get(host) {
            let ours = status.last_command.as_ref().filter(|last| last.rollout == self.rollout);
            let forgotten = ours.is_none() && status.busy.is_none() && taken.is_ok();
            if let Some(last) = ours {
                *taken = Ok(());
                if last.state == Stage::Failed && !work.mended {
                    let reason = Reason::Failed(last.detail.clone());
                    return self.fail(host, reason);
                }
                if last.state == Stage::Restarting && !last.detail.is_empty() && last.detail != work.doing {
                    work.doing.clone_from(&last.detail);
                    out.push(Action::Report(Progress::Doing {
                        host: host.clone(),
                        what: last.detail.clone(),
                    }));
                }
            }
            if status.up && !status.server_id.is_empty() && status.server_id != work.before.server_id {
                out.push(Action::Report(Progress::Started {
                    host: host.clone(),
                    after: since_sent,
                    version: status.version.clone(),
                }));
                work.next_round = now;
                work.phase = Phase::Proving {
                    id: status.server_id.clone(),
                    seen: now,
                    good: 0,
                    lacking: Vec::new(),
                };
                return;
            }
            // It answers and knows nothing of the command.
            if status.up && since_sent >= self.limits.answer * 2 {
                match taken {
                    Err(error) => {
                        let reason = Reason::NotTaken(error.clone());
                        self.fail(host, reason);
                    }
                    Ok(()) if forgotten => self.fail(host, Reason::Forgotten),
                    Ok(()) => {}
                }
            }
        }
    }

    fn read(&mut self, host: &HostName, answers: &Answers, now: Mono, out: &mut Vec<Action>) {
        let no_answer = Err("nothing in time".to_owned());
        let Some(work) = self.work.get_mut(host) else { return };
        let Phase::Proving {
            id,
            seen,
            good,
            lacking,
        } = &mut work.phase
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
                .filter(|last| last.rollout == self.rollout && last.state == Stage::Failed && !work.mended);
            if let Some(last) = failed {
                let reason = Reason::Failed(last.detail.clone());
                return self.fail(host, reason);
            }
            if status.up && !status.server_id.is_empty() && status.server_id != *id {
                return self.fail(host, Reason::StartedAgain);
            }
        }
        let values = work.before.values(
            status.as_ref().ok().copied(),
            answers,
            now.since(*seen),
            self.limits.ceiling,
        );
        *lacking = match status {
            Ok(status) => work.before.lacking(status, answers, now.since(*seen)),
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
            let after = now.since(work.sent);
            self.proved(host, after, now, out);
        }
    }

    fn proved(&mut self, host: &HostName, after: std::time::Duration, now: Mono, out: &mut Vec<Action>) {
        self.work.remove(host);
        self.done.push(host.clone());
        out.push(Action::Report(Progress::Proved {
            host: host.clone(),
            after,
            done: self.done.len(),
            of: self.total,
        }));
        let gap = self.gap();
        self.next_start = self.next_start.max(now.plus(gap));
        if self.ending.is_none()
            && !self.interrupted
            && self.checking.is_none()
            && let Some(next) = self.next()
        {
            out.push(Action::Report(Progress::Staggering {
                next: next.host.clone(),
                gap: self.next_start.since(now),
            }));
        }
    }

    /// Fails where a host in work has used up its time.
    fn overdue(&mut self, host: &HostName, now: Mono) -> bool {
        let Some(work) = self.work.get(host).filter(|w| now.since(w.sent) >= w.limit) else {
            return false;
        };
        let after = work.limit;
        let reason = match &work.phase {
            Phase::Sending => return false,
            Phase::Waiting { .. } => Reason::NoNewServer { after },
            Phase::Proving { good, lacking, .. } => Reason::NoProof {
                after,
                good: *good,
                of: self.limits.reads,
                lacking: lacking.clone(),
            },
        };
        self.fail(host, reason);
        true
    }
}
