//! The proof after a restart: one read is good when everything that was there before is there again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::gate::{Answers, WITNESSES};
use super::report::{SysRate, Values};
use crate::core::control::{HostStatus, Stage, roll};
use crate::core::ids::HostName;
use crate::core::view::Verdict;

/// What a host had before its restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) server_id: String,
    pub(super) peers: usize,
    pub(super) peer_names: BTreeSet<String>,
    pub(super) gateways: BTreeSet<String>,
    /// Who heard it.
    pub(super) witnesses: Vec<HostName>,
    /// How many of them must hear it again.
    pub(super) need: usize,
}

impl Before {
    /// From what the host's agent kept, where another process asked before the restart.
    pub(super) fn kept(kept: &roll::Before, witnesses: Vec<HostName>) -> Self {
        Self {
            server_id: kept.server_id.clone(),
            peers: kept.peers.unwrap_or(0),
            peer_names: kept.peer_names.iter().cloned().collect(),
            gateways: kept.gateways.iter().cloned().collect(),
            need: WITNESSES.min(witnesses.len()),
            witnesses,
        }
    }

    /// What a status read still lacks; empty = good. `up` is the time since the new server was first seen.
    pub(super) fn lacking(&self, status: &HostStatus, answers: &Answers, up: Duration) -> Vec<String> {
        let mut lacking = Vec::new();
        if !status.up {
            lacking.push("server does not answer".to_owned());
        }
        if status.healthy != Some(true) {
            lacking.push(format!("not healthy: {}", status.health_detail));
        }
        if status.lame_duck {
            lacking.push("in lame duck".to_owned());
        }
        if let Some(what) = &status.busy {
            lacking.push(format!("agent busy: {what}"));
        }
        if let Some(what) = &status.brownout {
            lacking.push(what.clone());
        }
        if let Some(last) = &status.last_command
            && !matches!(last.state, Stage::Done | Stage::Failed)
        {
            lacking.push("agent is not done with the command".to_owned());
        }
        // A read of the server that was must not speak for the one that is.
        if status.age_ms.is_none_or(|age| Duration::from_millis(age) > up) {
            lacking.push("server not read since".to_owned());
        }
        let peers = status.peers.unwrap_or(0);
        if peers < self.peers {
            let back: BTreeSet<String> = status.peer_names.iter().cloned().collect();
            let missing: Vec<&str> = self.peer_names.difference(&back).take(5).map(String::as_str).collect();
            let which = match missing.as_slice() {
                [] => String::new(),
                names => format!(" (missing {})", names.join(", ")),
            };
            lacking.push(format!("peers {peers} of {}{which}", self.peers));
        }
        let gateways: BTreeSet<String> = status.gateways.iter().flatten().cloned().collect();
        let closed: Vec<&str> = self.gateways.difference(&gateways).map(String::as_str).collect();
        if !closed.is_empty() {
            lacking.push(format!("no gateway to {}", closed.join(", ")));
        }
        let heard = self.heard_again(answers, up);
        if heard < self.need {
            lacking.push(format!("heard by {heard} of {}", self.need));
        }
        lacking
    }

    /// What a status read shows of all that must come back.
    pub(super) fn values(
        &self,
        status: Option<&HostStatus>,
        answers: &Answers,
        up: Duration,
        ceiling: Option<u64>,
    ) -> Values {
        let gateways: BTreeSet<&String> = status.iter().flat_map(|s| s.gateways.iter().flatten()).collect();
        Values {
            peers: status.and_then(|s| s.peers),
            peers_before: self.peers,
            gateways: self.gateways.iter().filter(|g| gateways.contains(g)).count(),
            gateways_before: self.gateways.len(),
            heard: self.heard_again(answers, up),
            witnesses: self.witnesses.len(),
            needed: self.need,
            sys: status.and_then(|s| s.sys_bytes).map(|bytes_per_second| SysRate {
                bytes_per_second,
                ceiling,
            }),
        }
    }

    /// Only a beacon that was sent by the new server's agent connection counts: one younger than the new server.
    fn heard_again(&self, answers: &Answers, up: Duration) -> usize {
        self.witnesses
            .iter()
            .filter(|by| {
                matches!(answers.hearings.get(*by), Some(Ok(h))
                    if h.verdict == Some(Verdict::Ok)
                        && h.age_ms.is_some_and(|age| Duration::from_millis(age) < up))
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::control::status::tests::status;
    use crate::core::control::{Hearing, LastCommand};

    const UP: Duration = Duration::from_secs(4);

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn before() -> Before {
        Before {
            server_id: "old".to_owned(),
            peers: 2,
            peer_names: ["b".to_owned(), "c".to_owned()].into(),
            gateways: ["fra".to_owned()].into(),
            witnesses: vec![host("b"), host("c")],
            need: 2,
        }
    }

    fn back() -> HostStatus {
        let mut s = status("a");
        s.gateways = Some(vec!["fra".to_owned(), "syd".to_owned()]);
        s
    }

    fn heard(verdict: Verdict, age_ms: u64) -> Answers {
        let mut answers = Answers::default();
        for by in ["b", "c"] {
            let hearing = Hearing {
                source: host("a"),
                verdict: Some(verdict),
                age_ms: Some(age_ms),
                lane: String::new(),
            };
            answers.hearings.insert(host(by), Ok(hearing));
        }
        answers
    }

    #[test]
    fn everything_back_is_a_good_read() {
        let lacking = before().lacking(&back(), &heard(Verdict::Ok, 500), UP);
        assert!(lacking.is_empty(), "{lacking:?}");
    }

    #[test]
    fn system_traffic_is_shown_against_the_ceiling_and_not_made_up() {
        let values = |status: &HostStatus| {
            before()
                .values(Some(status), &heard(Verdict::Ok, 500), UP, Some(90_000))
                .sys
        };
        assert_eq!(values(&back()), None);
        let mut said = back();
        said.sys_bytes = Some(12_000);
        let rate = SysRate {
            bytes_per_second: 12_000,
            ceiling: Some(90_000),
        };
        assert_eq!(values(&said), Some(rate));
    }

    #[test]
    fn whatever_is_missing_is_named() {
        let lacks = |change: fn(&mut HostStatus)| {
            let mut s = back();
            change(&mut s);
            before().lacking(&s, &heard(Verdict::Ok, 500), UP).join("; ")
        };
        let peers = lacks(|s| {
            s.peers = Some(1);
            s.peer_names = vec!["b".to_owned()];
        });
        assert_eq!(peers, "peers 1 of 2 (missing c)");
        assert_eq!(lacks(|s| s.peers = None), "peers 0 of 2 (missing b, c)");
        assert_eq!(
            lacks(|s| s.gateways = Some(vec!["syd".to_owned()])),
            "no gateway to fra"
        );
        assert!(lacks(|s| s.healthy = None).contains("not healthy"));
        assert!(lacks(|s| s.busy = Some("restart".to_owned())).contains("busy"));
        assert!(lacks(|s| s.up = false).contains("does not answer"));
        assert_eq!(lacks(|s| s.age_ms = Some(4001)), "server not read since");
        let undone = lacks(|s| {
            s.last_command = Some(LastCommand {
                rollout: "r".to_owned(),
                state: Stage::Restarting,
                detail: String::new(),
            });
        });
        assert_eq!(undone, "agent is not done with the command");
    }

    #[test]
    fn a_beacon_from_before_the_restart_proves_nothing() {
        let lacking = |answers: &Answers| before().lacking(&back(), answers, UP).join("; ");
        assert_eq!(lacking(&heard(Verdict::Ok, 4000)), "heard by 0 of 2");
        assert_eq!(lacking(&heard(Verdict::Late, 500)), "heard by 0 of 2");
        let mut one = heard(Verdict::Ok, 500);
        one.hearings.remove(&host("c"));
        assert_eq!(lacking(&one), "heard by 1 of 2");
    }
}
