//! The gate before each restart: the host itself is fine, nobody else is down, and what will prove it is in place.
//! What is not known refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::proof::Before;
use crate::core::canary::beacon::Health;
use crate::core::control::{Hearing, HostStatus};
use crate::core::ids::HostName;
use crate::core::view::Verdict;

/// Witnesses that must hear a host before and after its restart, where there are that many others.
pub const WITNESSES: usize = 2;

/// Why a host is not restarted now. Nothing was done to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gate {
    /// No status.
    #[error("{host} does not answer on control: {error}")]
    NoAnswer {
        /// Who.
        host: HostName,
        /// What came instead.
        error: String,
    },
    /// A status that rests on old reads.
    #[error("{host} has not read its server for {age:?} (None = never); at most {limit:?} are accepted")]
    Stale {
        /// Who.
        host: HostName,
        /// How old, if ever.
        age: Option<Duration>,
        /// The limit.
        limit: Duration,
    },
    /// The monitoring port does not answer.
    #[error("the server of {host} is down: {detail}")]
    Down {
        /// Who.
        host: HostName,
        /// The agent's words.
        detail: String,
    },
    /// `/healthz` is bad or unknown.
    #[error("the server of {host} is not healthy: {detail}")]
    Unhealthy {
        /// Who.
        host: HostName,
        /// The server's words.
        detail: String,
    },
    /// It is going down.
    #[error("the server of {host} is in lame duck")]
    LameDuck {
        /// Who.
        host: HostName,
    },
    /// Something is under way there.
    #[error("the agent of {host} is busy: {what}")]
    Busy {
        /// Who.
        host: HostName,
        /// With what.
        what: String,
    },
    /// A storm of system traffic is on; a restart would feed it.
    #[error("{host} reports {what}")]
    Brownout {
        /// Who.
        host: HostName,
        /// Its words.
        what: String,
    },
    /// The agent does not vouch for itself.
    #[error("the agent of {host} says of itself: {health:?}")]
    Agent {
        /// Who.
        host: HostName,
        /// Its words.
        health: Health,
    },
    /// Somebody is missing.
    #[error("{host} is not heard by {} of {of} hosts ({}); if it is gone for good, forget it: `watchdog forget {host}`", .by.len(), names(.by))]
    Unheard {
        /// Who is not heard.
        host: HostName,
        /// By whom.
        by: Vec<HostName>,
        /// Of how many that answered.
        of: usize,
    },
    /// A host that only beacons stopped to.
    #[error("{host} answers nothing on control, and its last beacon came {age:?} ago")]
    SilentBeacon {
        /// Who.
        host: HostName,
        /// Since when.
        age: Duration,
    },
    /// Peers or gateways are not known, so nobody could tell whether they come back.
    #[error("{host} does not know its {what}, so their return could not be proved")]
    Unknown {
        /// Who.
        host: HostName,
        /// What is missing.
        what: &'static str,
    },
    /// Too few hear it now, so nobody could tell whether they hear it again.
    #[error("{host} is heard by {heard} of the hosts asked, {need} are needed to prove that it is heard again")]
    Witnesses {
        /// Who.
        host: HostName,
        /// How many hear it.
        heard: usize,
        /// How many must.
        need: usize,
    },
}

fn names(hosts: &[HostName]) -> String {
    let shown: Vec<&str> = hosts.iter().take(5).map(HostName::as_str).collect();
    let dots = if hosts.len() > shown.len() { ", …" } else { "" };
    format!("{}{dots}", shown.join(", "))
}

/// The answers of one round.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answers {
    pub(super) statuses: BTreeMap<HostName, Result<HostStatus, String>>,
    /// Who says what about the host in question.
    pub(super) hearings: BTreeMap<HostName, Result<Hearing, String>>,
}

/// Whether `host` may be restarted now while `in_work` are, which are not among `watched`; what must come back if so.
pub(super) fn check(
    host: &HostName,
    watched: &BTreeSet<HostName>,
    in_work: &BTreeSet<HostName>,
    answers: &Answers,
    fresh: Duration,
) -> Result<Before, Gate> {
    let mut unheard: BTreeMap<&HostName, Vec<HostName>> = BTreeMap::new();
    for other in watched {
        let status = answered(other, answers)?;
        well(other, status, fresh)?;
        // What is being restarted is missed by right.
        for missing in status.unheard.iter().filter(|h| !in_work.contains(*h)) {
            unheard.entry(missing).or_default().push(other.clone());
        }
    }
    if let Some((missing, by)) = unheard.into_iter().max_by_key(|(_, by)| by.len()) {
        return Err(Gate::Unheard {
            host: missing.clone(),
            by,
            of: watched.len(),
        });
    }
    let status = answered(host, answers)?;
    let unknown = |what| Gate::Unknown {
        host: host.clone(),
        what,
    };
    let witnesses: Vec<HostName> = answers
        .hearings
        .iter()
        .filter(|(_, h)| matches!(h, Ok(h) if h.verdict == Some(Verdict::Ok)))
        .map(|(by, _)| by.clone())
        .collect();
    let need = WITNESSES.min(watched.len().saturating_sub(1));
    if witnesses.len() < need {
        return Err(Gate::Witnesses {
            host: host.clone(),
            heard: witnesses.len(),
            need,
        });
    }
    if status.server_id.is_empty() {
        return Err(unknown("server id"));
    }
    Ok(Before {
        server_id: status.server_id.clone(),
        peers: status.peers.ok_or_else(|| unknown("peers"))?,
        peer_names: status.peer_names.iter().cloned().collect(),
        gateways: status
            .gateways
            .as_ref()
            .ok_or_else(|| unknown("gateways"))?
            .iter()
            .cloned()
            .collect(),
        witnesses,
        need,
    })
}

fn answered<'a>(host: &HostName, answers: &'a Answers) -> Result<&'a HostStatus, Gate> {
    let no = |error: &str| Gate::NoAnswer {
        host: host.clone(),
        error: error.to_owned(),
    };
    match answers.statuses.get(host) {
        Some(Ok(status)) if status.host == *host => Ok(status),
        Some(Ok(status)) => Err(no(&format!("{} answered in its place", status.host))),
        Some(Err(error)) => Err(no(error)),
        None => Err(no("no answer in time")),
    }
}

fn well(host: &HostName, status: &HostStatus, fresh: Duration) -> Result<(), Gate> {
    let host = host.clone();
    let detail = || {
        if status.health_detail.is_empty() {
            "no reason given".to_owned()
        } else {
            status.health_detail.clone()
        }
    };
    let age = status.age_ms.map(Duration::from_millis);
    if let Some(what) = &status.busy {
        Err(Gate::Busy {
            host,
            what: what.clone(),
        })
    } else if let Some(what) = &status.brownout {
        Err(Gate::Brownout {
            host,
            what: what.clone(),
        })
    } else if !status.up {
        Err(Gate::Down { host, detail: detail() })
    } else if status.lame_duck {
        Err(Gate::LameDuck { host })
    } else if status.healthy != Some(true) {
        Err(Gate::Unhealthy { host, detail: detail() })
    } else if age.is_none_or(|age| age > fresh) {
        Err(Gate::Stale {
            host,
            age,
            limit: fresh,
        })
    } else if status.agent_health != Health::Ok {
        Err(Gate::Agent {
            host,
            health: status.agent_health,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::control::status::tests::status;

    const FRESH: Duration = Duration::from_secs(10);

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn answers(hosts: &[&str]) -> (BTreeSet<HostName>, Answers) {
        let mut answers = Answers::default();
        for name in hosts {
            answers.statuses.insert(host(name), Ok(status(name)));
            let hearing = Hearing {
                source: host("a"),
                verdict: Some(Verdict::Ok),
                age_ms: Some(100),
                lane: String::new(),
            };
            answers.hearings.insert(host(name), Ok(hearing));
        }
        answers.hearings.remove(&host("a"));
        (hosts.iter().map(|h| host(h)).collect(), answers)
    }

    /// The gate's text after `spoil` has touched the status of `b`, which is not even to be restarted.
    fn spoilt(spoil: impl FnOnce(&mut HostStatus)) -> String {
        let (watched, mut answers) = answers(&["a", "b", "c"]);
        if let Some(Ok(status)) = answers.statuses.get_mut(&host("b")) {
            spoil(status);
        }
        check(&host("a"), &watched, &BTreeSet::new(), &answers, FRESH)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_fleet_without_a_flaw_opens_the_gate() {
        let (watched, answers) = answers(&["a", "b", "c"]);
        let before = check(&host("a"), &watched, &BTreeSet::new(), &answers, FRESH).unwrap();
        assert_eq!((before.peers, before.need), (2, 2));
        assert_eq!(before.witnesses, [host("b"), host("c")]);
    }

    #[test]
    fn any_host_that_is_not_well_closes_it() {
        assert!(spoilt(|s| s.up = false).contains("server of b is down"));
        assert!(spoilt(|s| s.healthy = Some(false)).contains("not healthy"));
        assert!(spoilt(|s| s.healthy = None).contains("not healthy"));
        assert!(spoilt(|s| s.lame_duck = true).contains("lame duck"));
        assert!(spoilt(|s| s.busy = Some("restart".to_owned())).contains("busy: restart"));
        assert!(spoilt(|s| s.brownout = Some("a brownout of the host: x".to_owned())).contains("b reports a brownout"));
        assert!(spoilt(|s| s.age_ms = Some(10_001)).contains("has not read"));
        assert!(spoilt(|s| s.age_ms = None).contains("never"));
        assert!(spoilt(|s| s.agent_health = Health::Restarting).contains("Restarting"));
        assert!(spoilt(|s| s.host = host("x")).contains("x answered in its place"));
    }

    #[test]
    fn a_host_that_is_down_and_was_never_found_closes_it_through_those_that_miss_it() {
        let text = spoilt(|s| s.unheard = vec![host("gone")]);
        assert!(text.starts_with("gone is not heard by 1 of 3 hosts (b)"), "{text}");
    }

    #[test]
    fn what_could_not_be_proved_later_is_refused_now() {
        let (watched, good) = answers(&["a", "b", "c"]);
        let mut few = good.clone();
        few.hearings.remove(&host("c"));
        let e = check(&host("a"), &watched, &BTreeSet::new(), &few, FRESH).unwrap_err();
        assert!(matches!(e, Gate::Witnesses { heard: 1, need: 2, .. }), "{e}");
        let mut blind = good;
        if let Some(Ok(s)) = blind.statuses.get_mut(&host("a")) {
            s.peers = None;
        }
        let e = check(&host("a"), &watched, &BTreeSet::new(), &blind, FRESH).unwrap_err();
        assert!(matches!(e, Gate::Unknown { what: "peers", .. }), "{e}");
    }

    #[test]
    fn a_lonely_host_needs_no_witness() {
        let (watched, answers) = answers(&["a"]);
        assert_eq!(
            check(&host("a"), &watched, &BTreeSet::new(), &answers, FRESH)
                .unwrap()
                .need,
            0
        );
    }
}
