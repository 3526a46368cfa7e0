//! The simulator: a fleet of real cores in a world of models, from one seed, in one order.
//!
//! `scenario` says what there is and what goes wrong, `world` holds it all and runs the one `heap` of events; `wires` are
//! servers, routes with their gossip, gateways; `network` cuts and loss; `agent` a core with its clocks and its disk;
//! `acts` what a core wants done; `truth` what is really broken; `invariants` what must never be. Pure like the core: no
//! clock, no entropy, no thread; the same seed gives the same trace on every machine.

mod acts;
mod agent;
mod dice;
mod fault;
mod faults;
mod heap;
mod invariants;
mod mesh;
mod mix;
mod network;
mod operator;
mod policies;
mod reads;
pub mod report;
pub mod scenario;
mod server;
mod stand_in;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod truth;
mod weather;
mod wires;
mod world;

use std::sync::Arc;
use std::time::Duration;

use crate::core::policy::Policy as CorePolicy;

pub use fault::{Fault, Kind};
pub use invariants::{Invariant, Violation};
pub use scenario::{Scenario, ScenarioError};
pub use trace::Line;
pub use truth::Figures;

/// Who looks after the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// Nobody.
    None,
    /// Each host restarts its server when it looks unhealthy.
    Naive,
    /// The same, one at a time under a lock.
    Lock,
    /// The real cores.
    Ours,
}

impl Policy {
    /// In the order of the table.
    pub const ALL: [Policy; 4] = [Self::None, Self::Naive, Self::Lock, Self::Ours];

    /// As the table names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Naive => "restart what looks unhealthy",
            Self::Lock => "one at a time under a lock",
            Self::Ours => "watchdog",
        }
    }
}

/// Something that the agents lack, to prove that the checks see it. Taken away by what the core is fed, not in the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The ledger is forgotten when the agent starts.
    NoLedger,
    /// Every check of the network says that it is fine.
    NoNetworkCheck,
    /// Any share of hosts may be sick.
    NoSickLimit,
    /// Each agent has a register of permits for itself alone, so that every permit is had.
    NoPermits,
}

impl Mutation {
    /// All, with their names on the command line.
    pub const ALL: [(&'static str, Mutation); 4] = [
        ("no-ledger", Self::NoLedger),
        ("no-network-check", Self::NoNetworkCheck),
        ("no-sick-limit", Self::NoSickLimit),
        ("no-permits", Self::NoPermits),
    ];
}

/// How a run is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Who looks after the servers.
    pub policy: Policy,
    /// What is taken away.
    pub mutation: Option<Mutation>,
    /// Keep all lines of the trace.
    pub whole_trace: bool,
    /// Measure only while something is wrong, each five seconds: for long runs of large fleets.
    pub bulk: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: Policy::Ours,
            mutation: None,
            whole_trace: false,
            bulk: false,
        }
    }
}

impl Options {
    fn lacks(&self, what: Mutation) -> bool {
        self.mutation == Some(what)
    }

    fn forgets_ledger(&self) -> bool {
        self.lacks(Mutation::NoLedger)
    }

    fn mutate_policy(&self, mut policy: CorePolicy) -> CorePolicy {
        if self.lacks(Mutation::NoSickLimit) {
            policy.remediation.max_sick_fraction = 1.0;
        }
        policy
    }

    fn mutate_check(&self, result: Result<Duration, String>) -> Result<Duration, String> {
        if self.lacks(Mutation::NoNetworkCheck) {
            Ok(Duration::ZERO)
        } else {
            result
        }
    }

    fn permits_for_all(&self) -> bool {
        self.lacks(Mutation::NoPermits)
    }
}

/// What came out of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Seed.
    pub seed: u64,
    /// Simulated time.
    pub lasted: Duration,
    /// Events handled.
    pub events: u64,
    /// Equal for equal traces.
    pub digest: u64,
    /// The score.
    pub figures: Figures,
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// The trace, or its last lines.
    pub trace: Vec<Line>,
    /// What the scenario expects and did not come.
    pub missed: Vec<String>,
}

/// Runs a scenario once.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64, options: Options) -> Outcome {
    let scenario = Arc::new(mix::vary(scenario, seed));
    let mut world = world::World::new(scenario.clone(), seed, options);
    world.run();
    let figures = world.score.total();
    let missed = match options.policy {
        Policy::Ours => missed(&scenario, &figures),
        _ => Vec::new(),
    };
    Outcome {
        seed,
        lasted: world.now,
        events: world.events,
        digest: world.trace.digest(),
        figures,
        violation: world.watch.broken.take(),
        trace: world.trace.tail(usize::MAX),
        missed,
    }
}

fn missed(scenario: &Scenario, figures: &Figures) -> Vec<String> {
    let expect = &scenario.expect;
    let mut missed = Vec::new();
    for (what, most, n) in [
        ("restarts", expect.restarts, figures.restarts),
        ("resets", expect.resets, figures.resets),
    ] {
        if let Some(most) = most.filter(|most| n > *most) {
            missed.push(format!("{n} {what}, expected at most {most}"));
        }
    }
    if let Some(healed) = expect.healed
        && healed != figures.healed_after.is_some()
    {
        let not = if healed {
            "not all paths are whole"
        } else {
            "all paths are whole"
        };
        missed.push(format!("{not} at the end"));
    }
    missed
}
