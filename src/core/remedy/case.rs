//! A case: one fault and how far its remedy has come.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::ids::{HostName, Mono, Wall};
use crate::core::mesh::{End, Fault};
use crate::core::policy::Remediation;
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::view::FaultKind;

/// TCP waits at most two minutes between two tries.
pub const RECOVER: Duration = Duration::from_secs(120);
/// A SYN that is not answered is sent again after a second (RFC 6298), and no round trip on earth is so long.
const LOST: Duration = Duration::from_millis(900);
/// A check of the network is good for so long.
const CHECK_VALID: Duration = Duration::from_secs(10);

/// Who is to act on a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This host, at once.
    First,
    /// This host, if the other side has not healed it by then.
    Second,
    /// Not this host.
    None,
}

/// Where a case stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Not long enough there, or held back.
    Waiting,
    /// The network check runs.
    Checking {
        /// Id of the check.
        check: u64,
        /// When it is given up: an answer may never come.
        until: Mono,
    },
    /// A permit is being asked for.
    Permit {
        /// When it is given up.
        until: Mono,
    },
    /// The ledger is being written.
    Saving {
        /// Id of the act.
        act: u64,
        /// What will be done.
        kind: ActKind,
        /// When it is given up.
        until: Mono,
    },
    /// The permit is looked at a last time.
    Fencing {
        /// Id of the act.
        act: u64,
        /// When it is given up.
        until: Mono,
    },
    /// The act runs.
    Acting {
        /// Id of the act.
        act: u64,
        /// What is being done.
        kind: ActKind,
        /// When it has failed.
        until: Mono,
    },
    /// Did it help?
    Verifying {
        /// What was done.
        kind: ActKind,
        /// Until when it has to show.
        until: Mono,
    },
    /// After a remedy that did not help.
    BackingOff {
        /// Until when.
        until: Mono,
    },
    /// Everything allowed was tried.
    GaveUp,
}

/// One fault and its remedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The fault as last diagnosed.
    pub fault: Fault,
    /// First seen.
    pub since: Mono,
    /// The same by the wall clock.
    pub since_wall: Wall,
    /// Is it in the newest diagnosis?
    pub present: bool,
    /// Where it stands.
    pub step: Step,
    /// Who acts.
    pub role: Role,
    /// Resets done.
    pub resets: u32,
    /// Restarts done.
    pub restarts: u32,
    /// The last reset closed all that one can close.
    pub tried_all: bool,
    /// The last act, for the record.
    pub act: Option<u64>,
    /// The newest network check: when, and what was seen.
    pub network: Option<(Mono, Result<(), String>)>,
    /// What it was made for: a restart asks more narrowly.
    pub checked_for: ActKind,
    /// When the network was first seen to be back after a check that failed.
    pub network_back: Option<Mono>,
    /// The gate that holds it now.
    pub blocked: Option<Blocked>,
    /// Since when each check of the network found it fine.
    pub fine_since: Option<Mono>,
    /// Without a store: when the first side's turn is over.
    pub first_until: Option<Mono>,
    /// When it was last held by what holds both sides.
    pub held_at: Option<Mono>,
    /// Paths (source, receiver) that this host's own fault was told by: the proof of its end rests on the same.
    pub paths: BTreeSet<(HostName, HostName)>,
    /// In observe: what was said that would be done.
    pub would: Option<ActKind>,
}

impl Case {
    /// A new fault.
    #[must_use]
    pub fn new(fault: Fault, me: &HostName, now: Mono, wall: Wall) -> Self {
        let role = role(&fault, me);
        Self {
            fault,
            since: now,
            since_wall: wall,
            present: true,
            step: Step::Waiting,
            role,
            resets: 0,
            restarts: 0,
            tried_all: false,
            act: None,
            network: None,
            checked_for: ActKind::Reset,
            network_back: None,
            fine_since: None,
            first_until: None,
            blocked: None,
            held_at: None,
            paths: BTreeSet::new(),
            would: None,
        }
    }

    /// The next rung of the ladder; `None` = nothing is left.
    #[must_use]
    pub fn next(&self, policy: &Remediation, can_reset: bool) -> Option<ActKind> {
        use crate::core::policy::Mode;
        // What closed everything and did not help is not repeated where something else is left.
        let helpless = self.tried_all && policy.mode == Mode::Restart;
        let can_reset = can_reset || policy.mode != Mode::Restart;
        if policy.path_resets && can_reset && self.resets < policy.tries && !helpless {
            return Some(ActKind::Reset);
        }
        (policy.mode != Mode::Reset && self.restarts == 0).then_some(ActKind::Restart)
    }

    /// How long the fault must last before this act.
    #[must_use]
    pub fn confirm(&self, kind: ActKind, policy: &Remediation) -> Duration {
        let base = if self.fault.absent {
            policy.mesh_confirm
        } else {
            policy.confirm
        };
        let base = match kind {
            ActKind::Reset => base,
            ActKind::Restart => base.max(policy.restart_confirm),
        };
        match self.role {
            Role::Second => base + policy.sender_delay,
            _ => base,
        }
    }

    /// What held both sides, as a brownout or a pause does, lets both go at once: the first acts first then too.
    #[must_use]
    pub fn second_waits(&self, policy: &Remediation, now: Mono) -> bool {
        self.role == Role::Second && self.held_at.is_some_and(|at| now.since(at) < policy.sender_delay)
    }

    /// Takes in what a check of the network saw: how long TCP took to connect where INFO came.
    pub fn checked(&mut self, result: Result<Duration, String>, now: Mono) {
        match &result {
            Ok(connect) if *connect < LOST => self.fine_since = self.fine_since.or(Some(now)),
            _ => self.fine_since = None,
        }
        let result = match result {
            // For a reset that is good enough: a new connection may pass sooner than the one that waits.
            Ok(connect) if self.checked_for == ActKind::Restart && connect >= LOST => {
                let secs = connect.as_secs_f64();
                Err(format!(
                    "TCP took {secs:.1} s to connect, so packets are lost on the way"
                ))
            }
            Ok(_) => Ok(()),
            Err(what) => Err(what),
        };
        if result.is_ok() && matches!(self.network, Some((_, Err(_)))) {
            self.network_back = Some(now);
        }
        self.network = Some((now, result));
    }

    /// The network was looked at, and that is fresh.
    #[must_use]
    pub fn checked_lately(&self, now: Mono) -> bool {
        self.checked_within(CHECK_VALID, now)
    }

    /// The network was looked at, and no longer ago than this.
    #[must_use]
    pub fn checked_within(&self, limit: Duration, now: Mono) -> bool {
        self.network.as_ref().is_some_and(|(at, _)| now.since(*at) < limit)
    }

    /// What was seen of the network by a check that is fresh, was made for this act, and after the fault was confirmed.
    #[must_use]
    pub fn network_for(&self, kind: ActKind, policy: &Remediation, now: Mono) -> Option<Result<(), String>> {
        let (at, seen) = self.network.as_ref()?;
        let good = self.checked_for == kind && self.checked_lately(now);
        (good && *at >= self.since.plus(self.confirm(kind, policy))).then(|| seen.clone())
    }

    /// How long after the network came back this act still waits: TCP tries again only after as long as it was cut off,
    /// and servers dial anew by themselves; that is the network's fault, which no restart heals.
    #[must_use]
    pub fn recovering(&self, kind: ActKind, policy: &Remediation, now: Mono) -> Option<Duration> {
        let wait = match kind {
            ActKind::Reset => policy.mesh_confirm,
            ActKind::Restart => RECOVER.max(policy.mesh_confirm),
        };
        let since = now.since(self.network_back?);
        (since < wait).then_some(since)
    }

    /// May it be a connection that only lost packets, before the network was seen to be fine? TCP tries again after as
    /// long as it has waited (RFC 6298, 5.5) and its first wait, so a restart waits as long again, and a round trip or
    /// two; where packets are lost on (`lossy`), that try may be too, and the next one comes after twice as long.
    /// `silent`: since when nothing passes.
    #[must_use]
    pub fn may_be_tried_again(&self, silent: Mono, lossy: bool, now: Mono) -> bool {
        let times = if lossy { 3 } else { 1 };
        self.fine_since
            .is_none_or(|fine| now.since(fine) < ((fine.since(silent) + LOST) * times).min(RECOVER + LOST))
    }

    /// The peer on the other side, seen from `me`.
    #[must_use]
    pub fn peer(&self, me: &HostName) -> Option<&HostName> {
        match &self.fault.to {
            Some(End::Host(to)) if to == me => Some(&self.fault.from),
            Some(End::Host(to)) => Some(to),
            _ => None,
        }
    }

    /// One phrase for people.
    #[must_use]
    pub fn remedy(&self) -> String {
        match (&self.step, &self.blocked, self.role) {
            (_, _, Role::None) => "not ours".to_owned(),
            (Step::Waiting, Some(b), _) if b.wants_a_human() => format!("gave up: {b}"),
            (Step::Waiting, Some(b), _) => format!("blocked: {b}"),
            (Step::Waiting, None, Role::Second) => "confirming: the other side acts first".to_owned(),
            (Step::Waiting, None, _) => match self.would {
                Some(kind) => format!("observing: would {}", kind.name()),
                None => "confirming".to_owned(),
            },
            (Step::Checking { .. }, ..) => "checking network".to_owned(),
            (Step::Permit { .. }, ..) => "asking for a permit".to_owned(),
            (Step::Fencing { .. }, ..) => "restarting".to_owned(),
            (Step::Saving { kind, .. } | Step::Acting { kind, .. }, ..) => match kind {
                ActKind::Reset => "resetting".to_owned(),
                ActKind::Restart => "restarting".to_owned(),
            },
            (Step::Verifying { .. }, ..) => "verifying".to_owned(),
            (Step::BackingOff { .. }, ..) => "backing off".to_owned(),
            (Step::GaveUp, ..) => "gave up: a human must look".to_owned(),
        }
    }
}

/// Receiver first, sender after a delay; gateways from the dialling side; holes by the smaller name; a host on itself.
fn role(fault: &Fault, me: &HostName) -> Role {
    let from = &fault.from == me;
    let to = fault.to == Some(End::Host(me.clone()));
    match fault.kind {
        FaultKind::Route | FaultKind::Pool if to => Role::First,
        FaultKind::Route | FaultKind::Pool if from => Role::Second,
        FaultKind::Hole if from => Role::First,
        FaultKind::Hole if to => Role::Second,
        FaultKind::Host | FaultKind::Gateway | FaultKind::Interest if from => Role::First,
        _ => Role::None,
    }
}

/// The host that acts first; the one that counts as sick.
#[must_use]
pub fn owner(fault: &Fault) -> &HostName {
    match (&fault.to, fault.kind) {
        (Some(End::Host(to)), FaultKind::Route | FaultKind::Pool) => to,
        _ => &fault.from,
    }
}
