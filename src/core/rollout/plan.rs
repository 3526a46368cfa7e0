//! From what was found and what was asked for to an order of restarts.
//!
//! **Order.** Consecutive hosts stand in different regions wherever the numbers allow it: always the region with the
//! most hosts left, except the one that was just served; names break ties. So a region has recovered, and was watched,
//! while others are served, and the same selection gives the same order every time. The first host is the canary: if
//! its proof fails, nothing else was touched.

use std::collections::BTreeMap;

use crate::core::control::HostStatus;
use crate::core::ids::{HostName, Region};

/// One host as found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its region, by the subject of its beacon.
    pub region: Region,
    /// Its cluster, by its beacon.
    pub cluster: String,
    /// Version of its server, by its beacon.
    pub version: String,
    /// Its answer to `status`; `None` = it sends beacons and does not answer.
    pub status: Option<HostStatus>,
}

/// All hosts found.
pub type Inventory = BTreeMap<HostName, Found>;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// These hosts. With regions: these hosts, which must stand in those regions.
    pub hosts: Vec<String>,
    /// The hosts of these regions.
    pub regions: Vec<String>,
    /// Every host found.
    pub all: bool,
}

/// One host to restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The host.
    pub host: HostName,
    /// Its region.
    pub region: Region,
    /// Its cluster.
    pub cluster: String,
    /// Version of its server.
    pub version: String,
    /// Clients that will be disconnected, as far as is known.
    pub clients: Option<u64>,
}

/// The order of restarts, and who stands by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To restart, in order; the first is the canary. Never empty.
    pub order: Vec<Planned>,
    /// Found, answering, and not to be restarted; they are watched.
    pub others: Vec<HostName>,
    /// Found by their beacons only; not to be restarted, and watched by their beacons.
    pub silent: Vec<HostName>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Neither hosts, nor regions, nor all.
    #[error("nothing selected: name hosts (--host), regions (--region), or every host (--all)")]
    NothingSelected,
    /// All and something narrower.
    #[error("--all together with --host or --region: say one or the other")]
    AllAndSome,
    /// No beacons.
    #[error("no agent was heard: are agents running, in this account, and with this subject prefix (--prefix)?")]
    NobodyFound,
    /// No such host.
    #[error("no host {name:?} was heard{}", did_you_mean(.near))]
    UnknownHost {
        /// As given.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// No such region.
    #[error("no host of a region {name:?} was heard{}", did_you_mean(.near))]
    UnknownRegion {
        /// As given.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// A named host is elsewhere.
    #[error("host {host} is in region {region}, which is not among the regions selected")]
    HostElsewhere {
        /// The host.
        host: HostName,
        /// Where it is.
        region: Region,
    },
    /// Selected hosts that do not answer.
    #[error(
        "{} of the selected hosts send beacons but do not answer on control: {}; is their agent new enough, and may this account publish to them?",
        .0.len(), list(.0)
    )]
    Silent(Vec<HostName>),
}

impl PlanError {
    /// It is the state of the fleet that refuses, not the command line that is wrong.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::NobodyFound)
    }
}

/// Makes the plan.
///
/// # Errors
/// The selection is empty, names what is not there, or holds hosts that do not answer.
pub fn plan(inventory: &Inventory, selection: &Selection) -> Result<Plan, PlanError> {
    let chosen = choose(inventory, selection)?;
    let (selected, rest): (Vec<_>, Vec<_>) = inventory.iter().partition(|(host, _)| chosen.contains(host));
    let mute: Vec<HostName> = selected
        .iter()
        .filter(|(_, found)| found.status.is_none())
        .map(|(host, _)| (*host).clone())
        .collect();
    if !mute.is_empty() {
        return Err(PlanError::Silent(mute));
    }
    let names = |answering: bool| {
        rest.iter()
            .filter(|(_, found)| found.status.is_some() == answering)
            .map(|(host, _)| (*host).clone())
            .collect()
    };
    Ok(Plan {
        order: spread(selected.into_iter().map(planned)),
        others: names(true),
        silent: names(false),
    })
}

fn choose<'a>(inventory: &'a Inventory, selection: &Selection) -> Result<Vec<&'a HostName>, PlanError> {
    let Selection { hosts, regions, all } = selection;
    let some = !hosts.is_empty() || !regions.is_empty();
    match (all, some) {
        (true, true) => return Err(PlanError::AllAndSome),
        (false, false) => return Err(PlanError::NothingSelected),
        _ if inventory.is_empty() => return Err(PlanError::NobodyFound),
        (true, false) => return Ok(inventory.keys().collect()),
        (false, true) => {}
    }
    for name in regions {
        if !inventory.values().any(|f| f.region.as_str() == name) {
            return Err(PlanError::UnknownRegion {
                name: name.clone(),
                near: nearest(name, inventory.values().map(|f| f.region.as_str())),
            });
        }
    }
    let within = |found: &Found| regions.iter().any(|r| r == found.region.as_str());
    if hosts.is_empty() {
        return Ok(inventory
            .iter()
            .filter(|(_, found)| within(found))
            .map(|(host, _)| host)
            .collect());
    }
    hosts
        .iter()
        .map(|name| {
            let (host, found) = inventory
                .iter()
                .find(|(host, _)| host.as_str() == name)
                .ok_or_else(|| PlanError::UnknownHost {
                    name: name.clone(),
                    near: nearest(name, inventory.keys().map(HostName::as_str)),
                })?;
            if !regions.is_empty() && !within(found) {
                return Err(PlanError::HostElsewhere {
                    host: host.clone(),
                    region: found.region.clone(),
                });
            }
            Ok(host)
        })
        .collect()
}

fn planned((host, found): (&HostName, &Found)) -> Planned {
    Planned {
        host: host.clone(),
        region: found.region.clone(),
        cluster: found.cluster.clone(),
        version: found.version.clone(),
        clients: found.status.as_ref().and_then(|s| s.clients),
    }
}

fn spread(hosts: impl Iterator<Item = Planned>) -> Vec<Planned> {
    let mut regions: BTreeMap<Region, Vec<Planned>> = BTreeMap::new();
    for host in hosts {
        regions.entry(host.region.clone()).or_default().push(host);
    }
    for hosts in regions.values_mut() {
        hosts.sort_by(|a, b| b.host.cmp(&a.host));
    }
    let mut order: Vec<Planned> = Vec::new();
    loop {
        let last = order.last().map(|p| &p.region);
        // Most hosts first; of equals the first name: `max_by_key` keeps the last, hence the reverse.
        let next = regions
            .iter_mut()
            .rev()
            .filter(|(_, hosts)| !hosts.is_empty())
            .max_by_key(|(region, hosts)| (Some(*region) != last, hosts.len()))
            .and_then(|(_, hosts)| hosts.pop());
        match next {
            Some(host) => order.push(host),
            None => return order,
        }
    }
}

/// Up to three names at most three edits away, nearest first.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut near: Vec<(usize, &str)> = names
        .map(|n| (distance(name, n), n))
        .filter(|(d, _)| *d <= 3.min(name.len()))
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(3);
    near.into_iter().map(|(_, n)| n.to_owned()).collect()
}

/// Levenshtein's distance, a row at a time (Wagner and Fischer).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let swap = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = swap.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() {
        "; `--all --dry-run` lists all that were".to_owned()
    } else {
        format!("; did you mean {}?", near.join(" or "))
    }
}

fn list(hosts: &[HostName]) -> String {
    let shown: Vec<&str> = hosts.iter().take(10).map(HostName::as_str).collect();
    let more = hosts.len().saturating_sub(shown.len());
    if more == 0 {
        shown.join(", ")
    } else {
        format!("{} and {more} more", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::control::status::tests::status;

    fn found(region: &str, host: &str) -> (HostName, Found) {
        (
            HostName::new(host).unwrap(),
            Found {
                region: Region::new(region).unwrap(),
                cluster: region.to_owned(),
                version: "2.10.26".to_owned(),
                status: Some(status(host)),
            },
        )
    }

    fn fleet(counts: &[usize]) -> Inventory {
        let mut inventory = Inventory::new();
        for (r, n) in counts.iter().enumerate() {
            for i in 0..*n {
                inventory.extend([found(&format!("r{r}"), &format!("r{r}-{i:02}"))]);
            }
        }
        inventory
    }

    fn pick(hosts: &[&str], regions: &[&str], all: bool) -> Selection {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Selection {
            hosts: own(hosts),
            regions: own(regions),
            all,
        }
    }

    fn order(p: &Plan) -> Vec<&str> {
        p.order.iter().map(|h| h.host.as_str()).collect()
    }

    #[test]
    fn nothing_selected_is_an_error_and_not_everything() {
        let fleet = fleet(&[2]);
        assert_eq!(plan(&fleet, &Selection::default()), Err(PlanError::NothingSelected));
        assert_eq!(plan(&fleet, &pick(&["r0-00"], &[], true)), Err(PlanError::AllAndSome));
        assert_eq!(
            plan(&Inventory::new(), &pick(&[], &[], true)),
            Err(PlanError::NobodyFound)
        );
    }

    #[test]
    fn a_misspelt_name_is_an_error_that_names_the_nearest() {
        let fleet = fleet(&[2, 1]);
        let e = plan(&fleet, &pick(&["r0-0"], &[], false)).unwrap_err();
        assert_eq!(
            e.to_string(),
            "no host \"r0-0\" was heard; did you mean r0-00 or r0-01 or r1-00?"
        );
        let e = plan(&fleet, &pick(&[], &["r7"], false)).unwrap_err();
        assert_eq!(
            e.to_string(),
            "no host of a region \"r7\" was heard; did you mean r0 or r1?"
        );
    }

    #[test]
    fn a_host_outside_the_regions_named_is_an_error() {
        let e = plan(&fleet(&[1, 1]), &pick(&["r1-00"], &["r0"], false)).unwrap_err();
        assert!(matches!(e, PlanError::HostElsewhere { .. }), "{e}");
        let p = plan(&fleet(&[2, 1]), &pick(&["r0-01"], &["r0"], false)).unwrap();
        assert_eq!(order(&p), ["r0-01"]);
    }

    #[test]
    fn neighbours_in_the_order_stand_in_different_regions() {
        let p = plan(&fleet(&[3, 2, 1]), &pick(&[], &[], true)).unwrap();
        assert_eq!(order(&p), ["r0-00", "r1-00", "r0-01", "r1-01", "r0-02", "r2-00"]);
    }

    #[test]
    fn a_host_named_twice_is_restarted_once_and_the_rest_stands_by() {
        let p = plan(&fleet(&[3]), &pick(&["r0-01", "r0-01"], &[], false)).unwrap();
        assert_eq!(order(&p), ["r0-01"]);
        assert_eq!(p.others.len(), 2);
    }

    #[test]
    fn a_host_that_does_not_answer_is_listed_and_refused_if_selected() {
        let mut fleet = fleet(&[3]);
        let mute = HostName::new("r0-02").unwrap();
        fleet.get_mut(&mute).unwrap().status = None;
        let p = plan(&fleet, &pick(&["r0-00"], &[], false)).unwrap();
        assert_eq!(p.silent, std::slice::from_ref(&mute));
        let e = plan(&fleet, &pick(&[], &[], true)).unwrap_err();
        assert_eq!(e, PlanError::Silent(vec![mute]));
        assert!(e.is_gate());
    }

    proptest! {
        #[test]
        fn the_order_holds_everyone_once_and_repeats_a_region_only_where_it_must(
            counts in prop::collection::vec(0_usize..12, 1..6)
        ) {
            prop_assume!(counts.iter().sum::<usize>() > 0);
            let fleet = fleet(&counts);
            let p = plan(&fleet, &pick(&[], &[], true)).unwrap();
            let mut hosts = order(&p);
            let repeats = p.order.windows(2).filter(|w| w[0].region == w[1].region).count();
            hosts.sort_unstable();
            prop_assert_eq!(hosts, fleet.keys().map(HostName::as_str).collect::<Vec<_>>());
            let most = counts.iter().max().copied().unwrap_or(0);
            let rest = counts.iter().sum::<usize>() - most;
            prop_assert_eq!(repeats, (most).saturating_sub(rest + 1));
        }
    }
}
