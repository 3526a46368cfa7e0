//! Going on with a rollout, from its record and from what the hosts themselves report.
//!
//! A host counts as restarted where its own agent says so, or where its server is another one than before, and newer than
//! the rollout. Where a hook was ordered its version must have changed besides: a server that came back without the hook
//! is not done. Whatever is restarted and not proved is proved before anything else is touched.

use super::machine::Adopted;
use super::plan::{Found, Inventory, Plan, PlanError, Planned, planned};
use crate::core::control::roll::{Before, Ordered, Record, RecordHost};
use crate::core::control::{HostStatus, Stage};
use crate::core::ids::HostName;

/// What is left of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// To restart; its order may be empty.
    pub plan: Plan,
    /// Restarted or in the middle of it, to be proved.
    pub adopted: Vec<Adopted>,
    /// Proved.
    pub done: Vec<HostName>,
}

/// Sorts the hosts of `record` by what they report.
///
/// # Errors
/// Hosts that are to be restarted or proved and do not answer.
pub fn resume(inventory: &Inventory, record: &Record) -> Result<Resumed, PlanError> {
    let mut resumed = Resumed {
        plan: Plan {
            order: Vec::new(),
            others: Vec::new(),
            silent: Vec::new(),
        },
        adopted: Vec::new(),
        done: Vec::new(),
    };
    let mut mute = Vec::new();
    for entry in &record.hosts {
        if entry.proved {
            resumed.done.push(entry.host.clone());
            continue;
        }
        let found = inventory.get(&entry.host);
        let Some((found, status)) = found.and_then(|f| Some((f, f.status.as_ref()?))) else {
            mute.push(entry.host.clone());
            continue;
        };
        let host = wave(entry, found);
        match standing(record, entry, status) {
            Standing::Waiting => resumed.plan.order.push(host),
            Standing::Restarted { before, mended } => resumed.adopted.push(Adopted { host, before, mended }),
        }
    }
    if !mute.is_empty() {
        return Err(PlanError::Missing(mute));
    }
    for (host, found) in inventory {
        let ours = resumed.plan.order.iter().map(|p| &p.host);
        let adopted = resumed.adopted.iter().map(|a| &a.host.host);
        if ours.chain(adopted).any(|h| h == host) {
            continue;
        }
        match found.status {
            Some(_) => resumed.plan.others.push(host.clone()),
            None => resumed.plan.silent.push(host.clone()),
        }
    }
    Ok(resumed)
}

enum Standing {
    /// Not restarted, or not as ordered.
    Waiting,
    /// To be proved.
    Restarted { before: Before, mended: bool },
}

fn standing(record: &Record, entry: &RecordHost, status: &HostStatus) -> Standing {
    let upgraded = |old: &str| record.order.hook.is_none() || status.version != old;
    let ordered = status.restart.ordered.as_ref().filter(|o| o.rollout == record.id);
    match ordered {
        Some(Ordered {
            stage: Stage::Failed,
            before,
            ..
        }) => {
            let another = status.up && !status.server_id.is_empty() && status.server_id != before.server_id;
            if another && upgraded(&before.version) {
                Standing::Restarted {
                    before: before.clone(),
                    mended: true,
                }
            } else {
                Standing::Waiting
            }
        }
        Some(ordered) => Standing::Restarted {
            before: ordered.before.clone(),
            mended: false,
        },
        // By somebody else, or by an agent that lost its state.
        None => {
            let since = status.start_ms.is_some_and(|start| start > record.started_ms);
            if status.up && since && upgraded(&entry.version) {
                Standing::Restarted {
                    before: Before::default(),
                    mended: true,
                }
            } else {
                Standing::Waiting
            }
        }
    }
}

fn wave(entry: &RecordHost, found: &Found) -> Planned {
    Planned {
        wave: entry.wave,
        ..planned((&entry.host, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::control::RestartOrder;
    use crate::core::control::roll::tests::record;
    use crate::core::control::status::tests::status;
    use crate::core::ids::Region;

    fn inventory(change: impl Fn(&str, &mut HostStatus)) -> Inventory {
        let found = |name: &str| {
            let mut status = status(name);
            change(name, &mut status);
            let found = Found {
                region: Region::new("iad").unwrap(),
                cluster: "C".to_owned(),
                version: status.version.clone(),
                status: Some(status),
            };
            (HostName::new(name).unwrap(), found)
        };
        ["a", "b", "c", "d"].map(found).into()
    }

    fn ordered(rollout: &str, stage: Stage) -> Option<Ordered> {
        Some(Ordered {
            rollout: rollout.to_owned(),
            stage,
            detail: String::new(),
            at_ms: 5,
            order: RestartOrder::default(),
            before: Before {
                server_id: "OLD".to_owned(),
                version: "2.10.26".to_owned(),
                ..Before::default()
            },
        })
    }

    /// `waiting | adopted | done` of a rollout of a, b and c.
    fn sorted(hook: bool, change: impl Fn(&str, &mut HostStatus)) -> String {
        let mut record = record("r1", &["a", "b", "c"]);
        record.hosts[0].proved = true;
        record.order.hook = hook.then(|| "upgrade".to_owned());
        let r = resume(&inventory(change), &record).unwrap();
        let waiting: Vec<&str> = r.plan.order.iter().map(|p| p.host.as_str()).collect();
        let adopted: Vec<&str> = r.adopted.iter().map(|p| p.host.host.as_str()).collect();
        let done: Vec<&str> = r.done.iter().map(HostName::as_str).collect();
        format!("{} | {} | {}", waiting.join(" "), adopted.join(" "), done.join(" "))
    }

    #[test]
    fn what_was_not_touched_waits_and_what_was_proved_is_done() {
        assert_eq!(sorted(false, |_, _| {}), "b c |  | a");
    }

    #[test]
    fn what_is_in_the_middle_or_unproved_is_proved_and_not_commanded_again() {
        for stage in [Stage::Restarting, Stage::Done] {
            let of_b = |host: &str, s: &mut HostStatus| {
                if host == "b" {
                    s.restart.ordered = ordered("r1", stage);
                }
            };
            assert_eq!(sorted(false, of_b), "c | b | a");
            assert_eq!(sorted(true, of_b), "c | b | a");
        }
        let of_another = |_: &str, s: &mut HostStatus| s.restart.ordered = ordered("r0", Stage::Done);
        assert_eq!(sorted(false, of_another), "b c |  | a");
    }

    #[test]
    fn what_failed_is_done_again_unless_somebody_mended_it() {
        let failed = |id: &'static str, version: &'static str| {
            move |host: &str, s: &mut HostStatus| {
                if host == "b" {
                    s.restart.ordered = ordered("r1", Stage::Failed);
                    s.server_id = id.to_owned();
                    s.version = version.to_owned();
                }
            }
        };
        assert_eq!(sorted(false, failed("OLD", "2.10.26")), "b c |  | a");
        assert_eq!(sorted(false, failed("NEW", "2.10.26")), "c | b | a");
        assert_eq!(sorted(true, failed("NEW", "2.10.26")), "b c |  | a");
        assert_eq!(sorted(true, failed("NEW", "2.15.1")), "c | b | a");
    }

    #[test]
    fn a_host_whose_agent_forgot_is_judged_by_start_and_version() {
        let restarted = |version: &'static str| {
            move |host: &str, s: &mut HostStatus| {
                if host == "b" {
                    s.start_ms = Some(2_000);
                    s.version = version.to_owned();
                }
            }
        };
        assert_eq!(sorted(false, restarted("2.10.26")), "c | b | a");
        assert_eq!(sorted(true, restarted("2.10.26")), "b c |  | a");
        assert_eq!(sorted(true, restarted("2.15.1")), "c | b | a");
    }

    #[test]
    fn a_host_that_does_not_answer_refuses() {
        let mut hosts = inventory(|_, _| {});
        hosts.get_mut(&HostName::new("c").unwrap()).unwrap().status = None;
        let e = resume(&hosts, &record("r1", &["a", "b", "c"])).unwrap_err();
        assert_eq!(e, PlanError::Missing(vec![HostName::new("c").unwrap()]));
    }
}
