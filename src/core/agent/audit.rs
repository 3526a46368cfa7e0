//! The record of decisions: who, what, why, evidence, outcome; which of them go out as events; commands refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::audit::{Bucket, Told, Who, harmless};
use crate::core::control::{MAX_RECORDS, Page};
use crate::core::ids::{Mono, Now};
use crate::core::remedy::case::Case;
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::view::{AuditView, Record};

/// Records kept in memory.
const HISTORY: usize = 500;
/// Events at once, and then one per step: an agent must not make a storm of its own.
const EVENTS: u32 = 20;
const EVENT_STEP: Duration = Duration::from_secs(1);
/// Of those, kept for what was decided and done.
const EVENTS_KEPT: u32 = 10;
/// Refused commands that get a line each; beyond that they are counted and summed up.
const REFUSALS: u32 = 10;
const REFUSAL_STEP: Duration = Duration::from_secs(10);
/// Between two sums of refused commands.
const SUM_UP: Duration = Duration::from_secs(60);
/// Bytes of records in one answer: NATS's usual limit is 1 MiB.
const PAGE_BYTES: usize = 256 * 1024;

/// What the audit keeps.
#[derive(Debug, Clone)]
pub(super) struct Audit {
    history: VecDeque<Record>,
    events: Bucket,
    missed: u64,
    sent: u64,
    dropped: u64,
    lost: u64,
    taken: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    lines: Bucket,
    hushed: BTreeMap<&'static str, u64>,
    sum_at: Option<Mono>,
}

impl Audit {
    pub(super) fn new(history: Vec<Record>) -> Self {
        let skip = history.len().saturating_sub(HISTORY);
        Self {
            history: history.into_iter().skip(skip).collect(),
            events: Bucket::new(EVENTS, EVENT_STEP),
            missed: 0,
            sent: 0,
            dropped: 0,
            lost: 0,
            taken: BTreeMap::new(),
            refused: BTreeMap::new(),
            lines: Bucket::new(REFUSALS, REFUSAL_STEP),
            hushed: BTreeMap::new(),
            sum_at: None,
        }
    }

    pub(super) fn history(&self) -> Vec<Record> {
        self.history.iter().cloned().collect()
    }

    pub(super) fn view(&self) -> AuditView {
        let named = |counts: &BTreeMap<&'static str, u64>| {
            counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        AuditView {
            commands_taken: named(&self.taken),
            commands_refused: named(&self.refused),
            events_sent: self.sent,
            events_dropped: self.dropped,
            records_lost: self.lost,
        }
    }
}

impl Core {
    pub(super) fn record(&mut self, event: &str, subject: String, text: String, now: Now, out: &mut Vec<Action>) {
        let record = Record {
            event: event.to_owned(),
            subject,
            text,
            ..Record::default()
        };
        self.keep(record, now, out);
    }

    /// Keeps, logs and, within the rate, tells a record; time and author are filled in.
    pub(super) fn keep(&mut self, mut record: Record, now: Now, out: &mut Vec<Action>) {
        record.at = now.wall.as_secs_f64();
        record.who.get_or_insert_with(|| Who::agent(&self.policy.host));
        let audit = &mut self.audit;
        if audit.history.len() >= HISTORY {
            audit.history.pop_front();
        }
        audit.history.push_back(record.clone());
        let minor = matches!(record.event.as_str(), "source" | "server" | "agent");
        if audit.events.take(if minor { EVENTS_KEPT } else { 0 }, now.mono) {
            let mut told = Told::new(self.policy.host.clone(), self.policy.region.clone(), record.clone());
            told.missed = std::mem::take(&mut audit.missed);
            audit.sent += 1;
            out.push(Action::Tell(Box::new(told)));
        } else {
            audit.missed += 1;
            audit.dropped += 1;
        }
        out.push(Action::Record(record));
    }

    /// A record about a case: why is its kind, evidence what it was diagnosed from, and its act where there was one.
    pub(super) fn note(
        &mut self,
        (event, outcome): (&str, &str),
        id: &str,
        case: &Case,
        text: String,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let record = Record {
            event: event.to_owned(),
            subject: id.to_owned(),
            text,
            why: case.fault.kind.name().to_owned(),
            evidence: case.fault.evidence.clone(),
            outcome: outcome.to_owned(),
            act: case.act.map_or_else(String::new, |act| self.act_id(act)),
            ..Record::default()
        };
        self.keep(record, now, out);
    }

    /// A remedy that a gate held back: why is the gate.
    pub(super) fn note_held(
        &mut self,
        id: &str,
        case: &Case,
        kind: ActKind,
        blocked: &Blocked,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        *self.blocked.entry(blocked.gate()).or_default() += 1;
        let record = Record {
            event: "refused".to_owned(),
            subject: id.to_owned(),
            text: format!("{} held back: {blocked}", kind.name()),
            why: blocked.gate().to_owned(),
            evidence: case.fault.evidence.clone(),
            outcome: "refused".to_owned(),
            ..Record::default()
        };
        self.keep(record, now, out);
    }

    /// The id of an act, unique over restarts of the agent.
    pub(super) fn act_id(&self, act: u64) -> String {
        format!("{:x}-{act}", self.inc)
    }

    /// An event that the connection did not take.
    pub fn untold(&mut self) {
        self.audit.sent = self.audit.sent.saturating_sub(1);
        self.audit.missed += 1;
        self.audit.dropped += 1;
    }

    /// A record that the disk was too slow for.
    pub fn record_lost(&mut self) {
        self.audit.lost += 1;
    }

    /// A signed command passed all checks of who and when.
    pub fn took_command(&mut self, verb: &'static str) {
        *self.audit.taken.entry(verb).or_default() += 1;
    }

    /// A command did not pass the checks of who and when: it is counted, and said as long as there are not too many.
    pub fn refuse_command(&mut self, gate: &'static str, text: &str, who: Who, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        *self.audit.refused.entry(gate).or_default() += 1;
        if self.audit.lines.take(0, now.mono) {
            let record = Record {
                event: "refused".to_owned(),
                subject: "command".to_owned(),
                text: harmless(&format!("command refused: {text}")),
                who: Some(who),
                why: gate.to_owned(),
                outcome: "refused".to_owned(),
                ..Record::default()
            };
            self.keep(record, now, &mut out);
        } else {
            *self.audit.hushed.entry(gate).or_default() += 1;
            self.audit.sum_at.get_or_insert(now.mono.plus(SUM_UP));
        }
        out
    }

    /// What was refused without a line of its own, once a minute.
    pub(super) fn sum_up_refusals(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.audit.sum_at.is_none_or(|at| now.mono < at) {
            return;
        }
        self.audit.sum_at = None;
        let hushed = std::mem::take(&mut self.audit.hushed);
        let total: u64 = hushed.values().sum();
        let parts: Vec<String> = hushed.iter().map(|(gate, n)| format!("{gate} {n}")).collect();
        let record = Record {
            event: "refused".to_owned(),
            subject: "command".to_owned(),
            text: format!("{total} more commands refused, without a line each"),
            why: "flood".to_owned(),
            evidence: parts.join(", "),
            outcome: "refused".to_owned(),
            ..Record::default()
        };
        self.keep(record, now, out);
    }

    /// The answer to `history` of the control protocol: the newest records that fit, oldest first.
    #[must_use]
    pub fn history_page(&self, limit: Option<usize>, since_ms: Option<u64>) -> Page {
        let limit = limit.unwrap_or(MAX_RECORDS).min(MAX_RECORDS);
        #[allow(clippy::cast_precision_loss, reason = "a time")]
        let since = since_ms.unwrap_or(0) as f64 / 1000.0;
        let wanted: Vec<&Record> = self
            .audit
            .history
            .iter()
            .rev()
            .filter(|r| r.at >= since)
            .take(limit)
            .collect();
        let mut room = PAGE_BYTES;
        let fit = wanted.iter().take_while(|r| {
            let size = serde_json::to_vec(r).map_or(0, |bytes| bytes.len() + 1);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        });
        let mut records: Vec<Record> = fit.map(|r| (*r).clone()).collect();
        records.reverse();
        Page {
            region: self.policy.region.clone(),
            left_out: wanted.len() - records.len(),
            records,
        }
    }
}
