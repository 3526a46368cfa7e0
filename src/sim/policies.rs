//! What others do in place of this agent: nothing, or restarts of what looks unhealthy, at once or one at a time under a
//! lock. Both look at their own server once a second and know what a health check knows: that peers fell silent.

use super::Policy;
use super::fault::HostNo;
use super::invariants::Act;
use super::server::{Unit, Why};
use super::world::World;

/// Silence of any peer that makes a server look unhealthy, seconds.
const UNHEALTHY: u32 = 30;
/// After a start a server is given this long, seconds.
const GRACE: u64 = 60;
/// The lock is given back so long after the server is up, seconds.
const SETTLE: u64 = 10;

/// Their state.
#[derive(Debug)]
pub(super) struct Policies {
    holder: Option<HostNo>,
    /// Who wants the lock, first come first served.
    queue: Vec<HostNo>,
}

impl Policies {
    pub(super) fn new(_hosts: usize) -> Self {
        Self {
            holder: None,
            queue: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn run_policies(&mut self) {
        match self.options.policy {
            Policy::None | Policy::Ours => {}
            Policy::Naive => {
                for host in 0..self.servers.len() {
                    if self.looks_unhealthy(host) {
                        self.restart_by_policy(host);
                    }
                }
            }
            Policy::Lock => self.run_lock(),
        }
    }

    fn run_lock(&mut self) {
        for host in 0..self.servers.len() {
            let wants = self.looks_unhealthy(host);
            let queue = &mut self.policies.queue;
            match queue.iter().position(|h| *h == host) {
                None if wants => queue.push(host),
                Some(i) if !wants => {
                    queue.remove(i);
                }
                _ => {}
            }
        }
        if let Some(holder) = self.policies.holder {
            let s = &self.servers[holder];
            if !s.works(self.now) || (self.now - s.started).as_secs() < SETTLE {
                return;
            }
            self.policies.holder = None;
        }
        if !self.policies.queue.is_empty() && self.store.down == 0 {
            let next = self.policies.queue.remove(0);
            self.policies.holder = Some(next);
            self.restart_by_policy(next);
        }
    }

    fn restart_by_policy(&mut self, host: HostNo) {
        self.say(host, "looks unhealthy and is restarted".to_owned());
        let useful = self.restart_useful(host);
        self.judge_act(host, Act::Restart, useful);
        self.restart_server(host, Why::Hand);
    }

    fn looks_unhealthy(&self, host: HostNo) -> bool {
        let s = &self.servers[host];
        let n = self.servers.len();
        if s.gone > 0 || !s.up || s.unit != Unit::Active || (self.now - s.started).as_secs() < GRACE {
            return false;
        }
        // A server that stands still fails its own health check.
        !s.works(self.now) || (0..n).any(|from| from != host && self.score.silent[from * n + host] >= UNHEALTHY)
    }
}
