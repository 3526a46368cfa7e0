//! What operators do by plan: a rolling restart, one host after the other has proved healthy.

use std::time::Duration;

use super::Policy;
use super::agent::EPOCH;
use super::fault::{HostNo, RegionNo};
use super::server::{Unit, Why};
use super::world::World;
use crate::core::agent::order::Order;
use crate::core::audit::Who;
use crate::core::control::Args;
use crate::core::control::roll::{RECORD_VERSION, Record, RecordHost, RestartOrder};
use crate::core::ids::{HostName, Wall};
use crate::core::permit::document::Document;
use crate::core::permit::rollout::{self, NotTaken};
use crate::core::permit::rules::By;

/// From the proof of one to the next.
const STAGGER: Duration = Duration::from_secs(20);
/// A host that is not healthy by then halts the roll.
const DEADLINE: Duration = Duration::from_secs(120);

/// Its state.
#[derive(Debug, Default)]
pub(super) struct Operator {
    queue: Vec<HostNo>,
    current: Option<(HostNo, Duration)>,
    proved: Duration,
    rolls: u32,
    /// A rollout that is over and still stands in the store.
    unclosed: Option<Record>,
    /// The one that is open there.
    stored: Option<Record>,
}

impl World {
    pub(super) fn operator_rolls(&mut self, region: Option<RegionNo>) {
        if self.operator.queue.is_empty() && self.operator.current.is_none() {
            self.operator.queue = self.in_region(region).rev().collect();
            self.operator.rolls += 1;
        }
    }

    /// Each second.
    pub(super) fn operate(&mut self) {
        if let Some(over) = self.operator.unclosed.take()
            && !self.stored(|doc, now| match rollout::end(doc, &over, &by(), now) {
                Err(NotTaken::NotOpen(_)) => Ok(doc.clone()),
                other => other,
            })
        {
            self.operator.unclosed = Some(over);
            return;
        }
        if let Some((host, begun)) = self.operator.current {
            let n = self.servers.len();
            let s = &self.servers[host];
            let heard = (0..n).all(|x| !self.works(x) || self.passes(host, x) && self.passes(x, host));
            if s.works(self.now) && s.started >= begun && heard {
                self.operator.current = None;
                self.operator.proved = self.now;
                self.close(host);
            } else if self.now.saturating_sub(begun) > DEADLINE {
                self.say_world(format!("the rolling restart halts at {}", self.names[host]));
                self.operator.queue.clear();
                self.operator.current = None;
                self.close(host);
            }
            return;
        }
        if self.operator.queue.is_empty() || self.now.saturating_sub(self.operator.proved) < STAGGER {
            return;
        }
        let Some(host) = self.operator.queue.pop() else { return };
        if self.servers[host].unit != Unit::Active || self.servers[host].gone > 0 {
            self.say_world(format!("the rolling restart halts: {} is not up", self.names[host]));
            self.operator.queue.clear();
            return;
        }
        self.operator.current = Some((host, self.now));
        self.order(host);
    }

    fn order(&mut self, host: HostNo) {
        if self.options.policy != Policy::Ours {
            self.score.figures.operator_restarts += 1;
            self.restart_server(host, Why::Operator);
            return;
        }
        let now = self.agents[host].now(self.now);
        let rollout = format!("roll-{}-{host}", self.operator.rolls);
        let Some(core) = self.agents[host].core.as_mut() else {
            self.operator.queue.clear();
            self.operator.current = None;
            return;
        };
        let order = Order {
            who: Who::operator("operator", "UOPERATOR"),
            verb: "restart",
            rollout: rollout.clone(),
            reason: "simulated".to_owned(),
            args: Args::default(),
        };
        let record = record(rollout, self.hosts[host].clone());
        let registered = core.snapshot(now).permits.store == "register";
        if registered && !self.stored(|doc, now| rollout::open(doc, &record, now)) {
            self.say_world("the rolling restart is not begun: its record cannot be stored".to_owned());
            self.operator.queue.clear();
            self.operator.current = None;
            // An answer may have been lost.
            self.operator.unclosed = Some(record);
            return;
        }
        let Some(core) = self.agents[host].core.as_mut() else {
            return;
        };
        let opened = core.open_rollout(record.clone(), now);
        if registered {
            self.operator.stored = Some(record);
        }
        let ordered = opened.and_then(|mut actions| {
            actions.extend(core.order_restart(&order, now)?);
            Ok(actions)
        });
        match ordered {
            Ok(actions) => {
                self.score.figures.operator_restarts += 1;
                self.agents[host].ordered = true;
                let life = self.agents[host].life;
                for action in actions {
                    if self.agents[host].life == life {
                        self.carry_out(host, life, action);
                    }
                }
            }
            Err(blocked) => {
                self.say(host, format!("refuses the ordered restart: {blocked}"));
                self.operator.queue.clear();
                self.operator.current = None;
                self.close(host);
            }
        }
    }

    /// Changes the permit document, if it is there and answers.
    fn stored(&mut self, change: impl Fn(&Document, Wall) -> Result<Document, NotTaken>) -> bool {
        let now = Wall(EPOCH + self.now);
        let Ok(stored) = self.store.read(true) else {
            return false;
        };
        let revision = stored.as_ref().map(|s| s.revision);
        let doc = stored.map_or(Ok(Document::default()), |s| Document::decode(&s.bytes));
        let next = doc.ok().and_then(|doc| change(&doc, now).ok());
        let bytes = next.and_then(|doc| doc.encode().ok());
        bytes.is_some_and(|bytes| self.store.write(bytes, revision, true).is_ok())
    }

    /// Nothing more is wanted of this host by the roll.
    fn close(&mut self, host: HostNo) {
        self.operator.unclosed = self.operator.stored.take().or(self.operator.unclosed.take());
        let now = self.agents[host].now(self.now);
        let rollout = format!("roll-{}-{host}", self.operator.rolls);
        let life = self.agents[host].life;
        let Some(core) = self.agents[host].core.as_mut() else {
            return;
        };
        for action in core.close_rollout(&rollout, "operator", now) {
            self.carry_out(host, life, action);
        }
    }
}

fn by() -> By {
    By {
        who: "operator".to_owned(),
        why: "simulated".to_owned(),
    }
}

fn record(id: String, host: HostName) -> Record {
    let wave = RecordHost {
        host,
        wave: 1,
        version: String::new(),
        proved: false,
    };
    Record {
        v: RECORD_VERSION,
        id,
        term: 0,
        seq: 1,
        by: "operator".to_owned(),
        reason: "simulated".to_owned(),
        started_ms: 0,
        hosts: vec![wave],
        stagger_ms: 20_000,
        jitter: 0,
        max_unavailable: 1,
        timeout_ms: 120_000,
        order: RestartOrder::default(),
        halted: None,
    }
}
