//! What operators do by plan: a rolling restart, one host after the other has proved healthy.

use std::time::Duration;

use super::Policy;
use super::fault::{HostNo, RegionNo};
use super::server::{Unit, Why};
use super::world::World;

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
        if let Some((host, begun)) = self.operator.current {
            let n = self.servers.len();
            let s = &self.servers[host];
            let heard = (0..n).all(|x| !self.works(x) || self.passes(host, x) && self.passes(x, host));
            if s.works(self.now) && s.started >= begun && heard {
                self.operator.current = None;
                self.operator.proved = self.now;
            } else if self.now.saturating_sub(begun) > DEADLINE {
                self.say_world(format!("the rolling restart halts at {}", self.names[host]));
                self.operator.queue.clear();
                self.operator.current = None;
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
        let rollout = format!("roll-{}", self.operator.rolls);
        let Some(core) = self.agents[host].core.as_mut() else {
            self.operator.queue.clear();
            self.operator.current = None;
            return;
        };
        match core.order_restart(&rollout, "UOPERATOR", "simulated", now) {
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
            }
        }
    }
}
