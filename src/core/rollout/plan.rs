//! From what was found and what was asked for to an order of restarts.
//!
//! **Waves.** The first host is the canary: if its proof fails, nothing else was touched. Then its region, then growing
//! waves ([`Waves`]); a wave begins when all of the one before are proved.
//!
//! **Order within a wave.** Consecutive hosts stand in different regions wherever the numbers allow it: always the region
//! with the most hosts left, except the one that was just served; names break ties. So a region has recovered, and was
//! watched, while others are served, and the same selection gives the same order every time.
//!
//! **JetStream.** Servers that lead streams come late in their wave, since a leader that is moved may be moved again;
//! leaders of the meta group come last of all, whatever their region. One whose streams are not known counts as one that
//! leads many.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::filter::{Facts, Filter};
use super::waves::{Wave, Waves};
use crate::core::control::{HostStatus, LameDuck, RestartFacts, RestartOrder};
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
    /// The hosts of these clusters; with regions: of both.
    pub clusters: Vec<String>,
    /// Of those, or of all, the ones for which this holds.
    pub filter: Option<Filter>,
    /// Not these.
    pub exclude: Vec<Exclude>,
    /// Every host found, as far as `filter` and `exclude` leave them; also the word that a selection which comes to
    /// every host is meant so.
    pub all: bool,
}

/// What is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclude {
    /// This host, which must be there.
    Host(String),
    /// Those for which this holds, or may hold.
    Where(Filter),
}

impl Exclude {
    /// A host's name, or an expression.
    ///
    /// # Errors
    /// An expression that is none.
    pub fn parse(text: &str) -> Result<Self, super::filter::FilterError> {
        if HostName::new(text).is_ok() {
            return Ok(Self::Host(text.to_owned()));
        }
        Filter::parse(text).map(Self::Where)
    }
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
    /// The wave that it is in, from 1.
    pub wave: usize,
    /// Its server runs JetStream.
    pub jetstream: bool,
    /// Streams that its server leads; `None` = not known.
    pub leaders: Option<u64>,
    /// Its server leads the meta group.
    pub meta_leader: bool,
    /// As such it is asked to step down first.
    pub steps_down: bool,
    /// What its drain and its hook may take at most, beside the restart itself.
    pub allowance: Duration,
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
    #[error(
        "nothing selected: name hosts (--host), regions (--region), clusters (--cluster), what holds for them (--where), or every host (--all)"
    )]
    NothingSelected,
    /// All and something narrower.
    #[error("--all together with --host, --region or --cluster: say one or the other")]
    AllAndSome,
    /// Nobody is left.
    #[error(
        "the selection is empty: of {found} hosts heard, {named} are named, {matching} of them match, and {excluded} of those are excluded"
    )]
    Empty {
        /// Hosts heard.
        found: usize,
        /// By host, region, cluster.
        named: usize,
        /// By the filter too.
        matching: usize,
        /// Taken out again.
        excluded: usize,
    },
    /// It comes to every host, and nobody said so.
    #[error("that selects every one of the {0} hosts heard; if it is meant, say --all")]
    TooWide(usize),
    /// Hosts of a rollout that is to go on.
    #[error(
        "{} of the rollout's hosts do not answer: {}; see to them first (a server that is down: start it), or give the rollout up",
        .0.len(), list(.0)
    )]
    Missing(Vec<HostName>),
    /// Hosts whose agents have no such hook.
    #[error("{} of the selected hosts have no hook {name:?} in their agent's configuration: {}", .hosts.len(), list(.hosts))]
    NoHook {
        /// The hook.
        name: String,
        /// The hosts.
        hosts: Vec<HostName>,
    },
    /// Hosts that cannot be drained, where all must be.
    #[error("{} of the selected hosts cannot be drained (server.lame_duck_command of their agent): {}", .0.len(), list(.0))]
    NoLameDuck(Vec<HostName>),
    /// No such cluster.
    #[error("no host of a cluster {name:?} was heard{}", did_you_mean(.near))]
    UnknownCluster {
        /// As given.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
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
        matches!(
            self,
            Self::Silent(_) | Self::Missing(_) | Self::NobodyFound | Self::NoHook { .. } | Self::NoLameDuck(_)
        )
    }
}

impl Plan {
    /// Checks that every host can be restarted as ordered, and notes how long that may take.
    ///
    /// # Errors
    /// Hosts that cannot.
    pub fn prepare(&mut self, inventory: &Inventory, order: &RestartOrder) -> Result<(), PlanError> {
        let facts = |host: &HostName| inventory.get(host).and_then(|f| f.status.as_ref()).map(|s| &s.restart);
        let lacking = |lacks: &dyn Fn(&RestartFacts) -> bool| -> Vec<HostName> {
            let hosts = self.order.iter().map(|p| &p.host);
            hosts.filter(|h| facts(h).is_none_or(lacks)).cloned().collect()
        };
        if let Some(name) = &order.hook {
            let hosts = lacking(&|f| !f.hooks.contains_key(name));
            if !hosts.is_empty() {
                return Err(PlanError::NoHook {
                    name: name.clone(),
                    hosts,
                });
            }
        }
        if order.lame_duck == LameDuck::Always {
            let hosts = lacking(&|f| f.lame_duck_ms.is_none());
            if !hosts.is_empty() {
                return Err(PlanError::NoLameDuck(hosts));
            }
        }
        for planned in &mut self.order {
            let Some(facts) = facts(&planned.host) else { continue };
            let drain = match order.lame_duck {
                LameDuck::Never => 0,
                LameDuck::Auto | LameDuck::Always => facts.lame_duck_ms.unwrap_or(0),
            };
            let hook = order
                .hook
                .as_ref()
                .and_then(|name| facts.hooks.get(name))
                .copied()
                .unwrap_or(0);
            planned.allowance = Duration::from_millis(drain.saturating_add(hook));
        }
        Ok(())
    }
}

/// Makes the plan.
///
/// # Errors
/// The selection is empty, names what is not there, or holds hosts that do not answer.
pub fn plan(inventory: &Inventory, selection: &Selection, waves: &Waves) -> Result<Plan, PlanError> {
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
        order: order(selected.into_iter().map(planned).collect(), waves),
        others: names(true),
        silent: names(false),
    })
}

fn choose<'a>(inventory: &'a Inventory, selection: &Selection) -> Result<BTreeSet<&'a HostName>, PlanError> {
    let named = named(inventory, selection)?;
    let mut chosen = named.clone();
    if let Some(filter) = &selection.filter {
        chosen.retain(|host| {
            inventory
                .get(*host)
                .is_some_and(|found| filter.holds(&facts(host, found)) == Some(true))
        });
    }
    let matching = chosen.len();
    for exclude in &selection.exclude {
        match exclude {
            Exclude::Host(name) => {
                let host = find(inventory, name)?.0;
                chosen.remove(host);
            }
            Exclude::Where(filter) => chosen.retain(|host| {
                inventory
                    .get(*host)
                    .is_some_and(|found| filter.holds(&facts(host, found)) == Some(false))
            }),
        }
    }
    if chosen.is_empty() {
        return Err(PlanError::Empty {
            found: inventory.len(),
            named: named.len(),
            matching,
            excluded: matching,
        });
    }
    // Names that were typed one by one are meant.
    if !selection.all && selection.hosts.is_empty() && inventory.len() > 1 && chosen.len() == inventory.len() {
        return Err(PlanError::TooWide(chosen.len()));
    }
    Ok(chosen)
}

/// By host, region and cluster; all without any of these.
fn named<'a>(inventory: &'a Inventory, selection: &Selection) -> Result<BTreeSet<&'a HostName>, PlanError> {
    let Selection {
        hosts,
        regions,
        clusters,
        filter,
        all,
        ..
    } = selection;
    let some = !hosts.is_empty() || !regions.is_empty() || !clusters.is_empty();
    if *all && some {
        return Err(PlanError::AllAndSome);
    }
    if !all && !some && filter.is_none() {
        return Err(PlanError::NothingSelected);
    }
    if inventory.is_empty() {
        return Err(PlanError::NobodyFound);
    }
    for name in regions {
        let mut known = inventory.values().map(|f| f.region.as_str());
        if !known.clone().any(|r| r == name) {
            return Err(PlanError::UnknownRegion {
                name: name.clone(),
                near: nearest(name, known.by_ref()),
            });
        }
    }
    for name in clusters {
        let mut known = inventory.values().map(|f| f.cluster.as_str());
        if !known.clone().any(|c| c == name) {
            return Err(PlanError::UnknownCluster {
                name: name.clone(),
                near: nearest(name, known.by_ref()),
            });
        }
    }
    let within = |found: &Found| {
        (regions.is_empty() || regions.iter().any(|r| r == found.region.as_str()))
            && (clusters.is_empty() || clusters.contains(&found.cluster))
    };
    if hosts.is_empty() {
        let inside = inventory.iter().filter(|(_, found)| within(found));
        return Ok(inside.map(|(host, _)| host).collect());
    }
    hosts
        .iter()
        .map(|name| {
            let (host, found) = find(inventory, name)?;
            if !within(found) {
                return Err(PlanError::HostElsewhere {
                    host: host.clone(),
                    region: found.region.clone(),
                });
            }
            Ok(host)
        })
        .collect()
}

fn find<'a>(inventory: &'a Inventory, name: &str) -> Result<(&'a HostName, &'a Found), PlanError> {
    inventory
        .iter()
        .find(|(host, _)| host.as_str() == name)
        .ok_or_else(|| PlanError::UnknownHost {
            name: name.to_owned(),
            near: nearest(name, inventory.keys().map(HostName::as_str)),
        })
}

fn facts<'a>(host: &'a HostName, found: &'a Found) -> Facts<'a> {
    let status = found.status.as_ref();
    Facts {
        host: host.as_str(),
        region: found.region.as_str(),
        cluster: &found.cluster,
        version: &found.version,
        clients: status.and_then(|s| s.clients),
        leaders: status.and_then(leaders),
    }
}

/// None without JetStream are none.
fn leaders(status: &HostStatus) -> Option<u64> {
    match &status.restart.jetstream {
        None => Some(0),
        Some(js) => js.stream_leaders,
    }
}

pub(super) fn planned((host, found): (&HostName, &Found)) -> Planned {
    let status = found.status.as_ref();
    let js = status.and_then(|s| s.restart.jetstream.as_ref());
    Planned {
        host: host.clone(),
        region: found.region.clone(),
        cluster: found.cluster.clone(),
        version: found.version.clone(),
        clients: status.and_then(|s| s.clients),
        wave: 0,
        jetstream: js.is_some(),
        leaders: status.and_then(leaders),
        meta_leader: js.is_some_and(|js| js.meta_leader),
        steps_down: status.is_some_and(|s| s.restart.step_down),
        allowance: Duration::ZERO,
    }
}

fn order(hosts: Vec<Planned>, waves: &Waves) -> Vec<Planned> {
    let total = hosts.len();
    let (last, mut left): (Vec<Planned>, Vec<Planned>) = hosts.into_iter().partition(|p| p.meta_leader);
    let mut order: Vec<Planned> = Vec::new();
    let mut number = 0;
    for wave in waves.iter() {
        let taken = match wave {
            Wave::Hosts(n) => take(&mut left, n, &order),
            Wave::Share(share) => take(&mut left, (total * share as usize).div_ceil(100), &order),
            Wave::Region => {
                let begun: BTreeSet<Region> = order.iter().map(|p| p.region.clone()).collect();
                let (inside, outside) = left.into_iter().partition(|p| begun.contains(&p.region));
                left = outside;
                late_leaders(inside, &order)
            }
            Wave::All => late_leaders(std::mem::take(&mut left), &order),
        };
        if !taken.is_empty() {
            number += 1;
            order.extend(taken.into_iter().map(|p| Planned { wave: number, ..p }));
        }
    }
    let number = number.max(1);
    order.extend(spread(last, &[]).into_iter().map(|p| Planned { wave: number, ..p }));
    order
}

/// The first `n` as they come.
fn take(left: &mut Vec<Planned>, n: usize, before: &[Planned]) -> Vec<Planned> {
    let mut all = late_leaders(std::mem::take(left), before);
    *left = all.split_off(n.min(all.len()));
    all
}

fn late_leaders(hosts: Vec<Planned>, before: &[Planned]) -> Vec<Planned> {
    let (leading, rest): (Vec<Planned>, Vec<Planned>) = hosts.into_iter().partition(|p| p.leaders != Some(0));
    let mut order = spread(rest, before);
    let leading = spread(leading, order.last().map_or(before, std::slice::from_ref));
    order.extend(leading);
    order
}

/// `before` is what is served before: its last region is not served again at once.
fn spread(hosts: Vec<Planned>, before: &[Planned]) -> Vec<Planned> {
    let mut regions: BTreeMap<Region, Vec<Planned>> = BTreeMap::new();
    for host in hosts {
        regions.entry(host.region.clone()).or_default().push(host);
    }
    for hosts in regions.values_mut() {
        hosts.sort_by(|a, b| {
            let key = |p: &Planned| p.leaders.unwrap_or(u64::MAX);
            (key(b), &b.host).cmp(&(key(a), &a.host))
        });
    }
    let mut order: Vec<Planned> = Vec::new();
    loop {
        let last = order.last().or(before.last()).map(|p| &p.region);
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
            ..Selection::default()
        }
    }

    /// One wave.
    fn plan(inventory: &Inventory, selection: &Selection) -> Result<Plan, PlanError> {
        super::plan(inventory, selection, &"all".parse().unwrap())
    }

    fn filtered(filter: &str, exclude: &[&str], all: bool) -> Selection {
        Selection {
            filter: (!filter.is_empty()).then(|| Filter::parse(filter).unwrap()),
            exclude: exclude.iter().map(|e| Exclude::parse(e).unwrap()).collect(),
            all,
            ..Selection::default()
        }
    }

    /// `wave:host` of each.
    fn waves(p: &Plan) -> String {
        let waves: Vec<String> = p.order.iter().map(|p| format!("{}:{}", p.wave, p.host)).collect();
        waves.join(" ")
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

    #[test]
    fn a_filter_selects_and_an_exclusion_takes_out() {
        let mut fleet = fleet(&[3, 2]);
        fleet.get_mut(&HostName::new("r0-01").unwrap()).unwrap().version = "2.9.10".to_owned();
        let p = plan(&fleet, &filtered("version<2.10", &[], false)).unwrap();
        assert_eq!(order(&p), ["r0-01"]);
        let p = plan(&fleet, &filtered("", &["r0-00", "region=r1"], true)).unwrap();
        assert_eq!(order(&p), ["r0-01", "r0-02"]);
        let e = plan(&fleet, &filtered("version>3", &[], true)).unwrap_err();
        assert_eq!(
            e.to_string(),
            "the selection is empty: of 5 hosts heard, 5 are named, 0 of them match, and 0 of those are excluded"
        );
        let e = plan(&fleet, &filtered("", &["r0-0"], true)).unwrap_err();
        assert!(e.to_string().contains("did you mean r0-00"), "{e}");
    }

    #[test]
    fn a_selection_that_comes_to_every_host_wants_the_word() {
        let one_region = fleet(&[3]);
        assert_eq!(
            plan(&one_region, &pick(&[], &["r0"], false)),
            Err(PlanError::TooWide(3))
        );
        assert_eq!(
            plan(&one_region, &filtered("version=2", &[], false)),
            Err(PlanError::TooWide(3))
        );
        assert!(plan(&one_region, &filtered("version=2", &[], true)).is_ok());
        assert!(plan(&one_region, &pick(&["r0-00", "r0-01", "r0-02"], &[], false)).is_ok());
        assert!(plan(&fleet(&[1]), &pick(&[], &["r0"], false)).is_ok());
    }

    #[test]
    fn what_is_not_known_is_not_selected_and_not_spared() {
        let mut fleet = fleet(&[2]);
        fleet.get_mut(&HostName::new("r0-01").unwrap()).unwrap().version = String::new();
        let p = plan(&fleet, &filtered("version=2.10", &[], false)).unwrap();
        assert_eq!(order(&p), ["r0-00"]);
        let p = plan(&fleet, &filtered("", &["version<2.9"], true)).unwrap();
        assert_eq!(order(&p), ["r0-00"]);
    }

    #[test]
    fn one_canary_then_its_region_then_growing_waves() {
        let p = super::plan(&fleet(&[3, 4, 3]), &pick(&[], &[], true), &Waves::default()).unwrap();
        assert_eq!(
            waves(&p),
            "1:r1-00 2:r1-01 2:r1-02 2:r1-03 3:r0-00 3:r2-00 3:r0-01 4:r2-01 4:r0-02 4:r2-02"
        );
    }

    #[test]
    fn leaders_of_streams_come_late_and_the_meta_leader_last() {
        use crate::core::control::status::JetStream;
        let mut fleet = fleet(&[3, 3]);
        let mut leads = |host: &str, stream_leaders, meta_leader| {
            let found = fleet.get_mut(&HostName::new(host).unwrap()).unwrap();
            found.status.as_mut().unwrap().restart.jetstream = Some(JetStream {
                meta_leader,
                stream_leaders,
            });
        };
        leads("r0-00", Some(0), true);
        leads("r0-01", Some(7), false);
        leads("r0-02", Some(2), false);
        leads("r1-00", None, false);
        let p = super::plan(&fleet, &pick(&[], &[], true), &"1,all".parse().unwrap()).unwrap();
        assert_eq!(waves(&p), "1:r1-01 2:r1-02 2:r0-02 2:r1-00 2:r0-01 2:r0-00");
    }

    proptest! {
        #[test]
        fn waves_lose_nobody_and_grow_in_order(
            counts in prop::collection::vec(0_usize..12, 1..6),
            canaries in 1_usize..4,
            share in 1_u32..=100,
        ) {
            prop_assume!(counts.iter().sum::<usize>() > 0);
            let fleet = fleet(&counts);
            let waves: Waves = format!("{canaries},region,{share}%,all").parse().unwrap();
            let p = super::plan(&fleet, &pick(&[], &[], true), &waves).unwrap();
            let mut hosts = order(&p);
            hosts.sort_unstable();
            prop_assert_eq!(hosts, fleet.keys().map(HostName::as_str).collect::<Vec<_>>());
            prop_assert_eq!(p.order[0].wave, 1);
            prop_assert!(p.order.windows(2).all(|w| w[1].wave == w[0].wave || w[1].wave == w[0].wave + 1));
            prop_assert!(p.order.iter().filter(|p| p.wave == 1).count() <= canaries);
        }

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
