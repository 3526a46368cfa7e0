//! What operators do by plan: a rolling restart, one host after the other has proved healthy; pauses; a look at hosts that
//! failed under a permit.

use std::collections::BTreeMap;
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
use crate::core::permit::document::{Document, Phase, Scope};
use crate::core::permit::rollout::{self, NotTaken};
use crate::core::permit::rules::{self, By};

/// From the proof of one to the next.
const STAGGER: Duration = Duration::from_secs(20);
/// A host that is not healthy by then halts the roll.
const DEADLINE: Duration = Duration::from_secs(120);

/// A failed host is looked at after this long, and its permit released if it is well.
const LOOKED_AT: Duration = Duration::from_secs(300);

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
    /// Pauses that are wanted: until when, by true time; with an end of their own, or to be resumed by hand then.
    pauses: Vec<(Duration, bool)>,
    /// Permits of failed hosts, and since when they are.
    failed: BTreeMap<String, Duration>,
}

impl World {
    pub(super) fn operator_rolls(&mut self, region: Option<RegionNo>) {
        if self.operator.queue.is_empty() && self.operator.current.is_none() {
            self.operator.queue = self.in_region(region).rev().collect();
            self.operator.rolls += 1;
        }
    }

    /// Automation is to stand still until then.
    pub(super) fn operator_pauses(&mut self, lasts: Duration) {
        let ends = self.dice.chance(50);
        self.operator.pauses.push((self.now + lasts, ends));
    }

    /// What is wanted to be paused is, what is not is not, and as soon as the store answers.
    fn tend_pauses(&mut self) {
        let now = self.now;
        self.operator.pauses.retain(|(until, _)| *until > now);
        let wanted = self.operator.pauses.iter().max().copied();
        let wall = Wall(EPOCH + now);
        let standing = self.store.document().pauses.first().map(|p| p.until);
        let open = standing.is_some_and(|until| until.is_none_or(|u| wall < u.wall()));
        let by = By {
            who: "operator".to_owned(),
            why: "simulated".to_owned(),
        };
        match wanted {
            Some((until, ends)) if !open => {
                let length = ends.then(|| until - now);
                if self
                    .store
                    .change(|doc| Some(rules::pause(doc, Scope::Fleet, &by, length, wall)))
                {
                    self.say_world(format!(
                        "an operator pauses the fleet{}",
                        if ends { " for a while" } else { "" }
                    ));
                }
            }
            None if standing == Some(None) => {
                let resume = |doc: &_| {
                    let (doc, ended) = rules::resume(doc, &Scope::Fleet, &by, wall);
                    ended.map(|_| doc)
                };
                let resumed = self.store.change(resume);
                if resumed {
                    self.say_world("an operator resumes the fleet".to_owned());
                }
            }
            _ => {}
        }
        if !open {
            // One that ended and was renewed a moment later left that moment open.
            self.watch.paused = None;
        }
        // What stands in the store counts, also where its answer got lost.
        let standing = self.store.document().pauses.first().map(|p| p.until);
        self.watch.paused = match standing {
            Some(until) if until.is_none_or(|u| wall < u.wall()) => {
                let since = self.watch.paused.map_or(now, |(since, _)| since);
                Some((since, until.map(|u| u.wall().0.saturating_sub(EPOCH))))
            }
            _ => None,
        };
    }

    /// `watchdog permits release` for hosts that failed or vanished and are well again.
    fn tend_failed(&mut self) {
        let (now, wall) = (self.now, Wall(EPOCH + self.now));
        let before = std::mem::take(&mut self.operator.failed);
        let holders = self.store.document().holders.iter();
        let failed = holders.filter(|h| h.phase == Phase::Failed || h.vanished(wall));
        self.operator.failed = failed
            .map(|h| (h.token.clone(), before.get(&h.token).copied().unwrap_or(now)))
            .collect();
        let long = self.operator.failed.iter();
        let long: Vec<String> = long
            .filter(|(_, since)| now.saturating_sub(**since) >= LOOKED_AT)
            .map(|(token, _)| token.clone())
            .collect();
        for token in long {
            let Some(host) = self.store.document().holder(&token).map(|h| h.host.clone()) else {
                continue;
            };
            let well = self.index.get(&host).is_some_and(|h| self.works(*h) && self.sound(*h));
            let by = By {
                who: "operator".to_owned(),
                why: "looked at it".to_owned(),
            };
            let release = |doc: &_| rules::force_release(doc, &host, &by, wall).ok().map(|(doc, _)| doc);
            if well && self.store.change(release) {
                self.say_world(format!("an operator releases the permit of {host}"));
            }
        }
    }

    /// It hears all that work and is heard by them.
    fn sound(&self, host: HostNo) -> bool {
        (0..self.servers.len()).all(|x| !self.works(x) || self.passes(host, x) && self.passes(x, host))
    }

    /// Each second.
    pub(super) fn operate(&mut self) {
        if self.scenario.agents.permits && self.options.policy == Policy::Ours {
            self.tend_pauses();
            self.tend_failed();
        }
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
            let s = &self.servers[host];
            if s.works(self.now) && s.started >= begun && self.sound(host) {
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
