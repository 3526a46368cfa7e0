//! From the hosts that were found to the shape of a fleet that the model of system traffic asks for. Unknown data
//! refuses: a stagger from a guessed shape would be a guess.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::control::HostStatus;
use crate::core::ids::HostName;
use crate::core::rollout::plan::{Found, Inventory};
use crate::core::sys::model::{self, ServerVersion, Shape};

/// A shape, and what it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// What the model is asked for. With several versions, the one whose restarts put most bytes into each host.
    pub shape: Shape,
    /// Servers by version.
    pub versions: BTreeMap<ServerVersion, u32>,
    /// What the shape leaves out or takes for granted, as sentences.
    pub notes: Vec<String>,
}

/// Why the shape is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownShape {
    /// Nobody was heard.
    #[error("no host was heard, so the fleet's shape is not known")]
    Nobody,
    /// A host's version cannot be read.
    #[error("the version of {host}'s server is not known ({text:?}): is its server up, and does its agent read it?")]
    Version {
        /// The host.
        host: HostName,
        /// What it says.
        text: String,
    },
    /// Agents know of hosts that were not heard.
    #[error("agents know {known} hosts and {heard} were heard: see to the rest, or wait until they are forgotten")]
    Absent {
        /// By the largest roster.
        known: usize,
        /// Beacons heard.
        heard: usize,
    },
    /// No agent told `pool_size`.
    #[error(
        "no agent told its server's pool_size, which decides the size of system messages: are the agents older than this command?"
    )]
    Pool,
    /// No agent told how many clients there are.
    #[error("no agent told how many clients its server has: is any server up?")]
    Clients,
}

/// The shape of what was found.
///
/// # Errors
/// Something that the model needs is not known.
pub fn shape(inventory: &Inventory) -> Result<Known, UnknownShape> {
    let versions = versions(inventory)?;
    let statuses: Vec<&HostStatus> = inventory.values().filter_map(|f| f.status.as_ref()).collect();
    let known = statuses.iter().map(|s| s.roster).max().unwrap_or(0);
    let heard = inventory.len();
    if known > heard {
        return Err(UnknownShape::Absent { known, heard });
    }
    let clients = mean(statuses.iter().filter_map(|s| s.clients)).ok_or(UnknownShape::Clients)?;
    let pooled = versions.keys().any(|v| v.pools_routes());
    let pools: BTreeSet<i64> = statuses.iter().filter_map(|s| s.pool_size).collect();
    let pool = match pools.iter().max() {
        Some(pool) => i32::try_from(*pool).unwrap_or(i32::MAX),
        None if pooled && heard > 1 => return Err(UnknownShape::Pool),
        None => -1,
    };
    let pinned = statuses.iter().filter_map(|s| s.pinned).max();
    let accounts = mean(statuses.iter().filter_map(|s| s.active_accounts));
    let names = mean(statuses.iter().map(|s| s.server_name.len() as u64)).unwrap_or(8);
    let mut notes = Vec::new();
    if pools.len() > 1 {
        notes.push(format!(
            "Hosts have different pool sizes; the largest, {pool}, is taken for all."
        ));
    }
    if accounts.is_none() && clients > 0 {
        notes.push("How many accounts have clients is not known; one is taken.".to_owned());
    }
    let silent = heard - statuses.len();
    if silent > 0 {
        notes.push(format!(
            "{silent} of {heard} hosts do not answer; they are taken to be like the others."
        ));
    }
    let with = |version: ServerVersion| Shape {
        pool_size: pool,
        pinned: pinned.unwrap_or(1).max(1),
        accounts: accounts.unwrap_or(u32::from(clients > 0)),
        clients_per_server: clients,
        name_bytes: names,
        ..Shape::new(count(heard), clusters(inventory), version)
    };
    let cost = |shape: &Shape| model::restart(shape).into_each.bytes;
    let shapes = versions.keys().map(|v| with(*v));
    let shape = shapes
        .max_by(|a, b| cost(a).total_cmp(&cost(b)))
        .ok_or(UnknownShape::Nobody)?;
    if versions.len() > 1 {
        let each: Vec<String> = versions.iter().map(|(v, n)| format!("{n} of {v}")).collect();
        notes.push(format!(
            "Versions differ ({}); the figures are those of a fleet of {} only, the costliest of them.",
            each.join(", "),
            shape.version
        ));
    }
    Ok(Known { shape, versions, notes })
}

fn versions(inventory: &Inventory) -> Result<BTreeMap<ServerVersion, u32>, UnknownShape> {
    let mut versions = BTreeMap::new();
    for (host, Found { version, .. }) in inventory {
        let read = version.parse::<ServerVersion>().map_err(|_| UnknownShape::Version {
            host: host.clone(),
            text: version.clone(),
        })?;
        *versions.entry(read).or_insert(0) += 1;
    }
    if versions.is_empty() {
        return Err(UnknownShape::Nobody);
    }
    Ok(versions)
}

/// Clusters by name; servers without one are no cluster of their own.
fn clusters(inventory: &Inventory) -> u32 {
    let names: BTreeSet<&str> = inventory.values().map(|f| f.cluster.as_str()).collect();
    count(names.iter().filter(|name| !name.is_empty()).count()).max(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The mean, rounded up; `None` of nothing.
fn mean(values: impl Iterator<Item = u64>) -> Option<u32> {
    let (sum, n) = values.fold((0_u64, 0_u64), |(sum, n), v| (sum.saturating_add(v), n + 1));
    (n > 0).then(|| u32::try_from(sum.div_ceil(n)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::control::status::tests::status;
    use crate::core::ids::Region;

    fn fleet(hosts: &[(&str, &str, &str)]) -> Inventory {
        let found = |(host, cluster, version): &(&str, &str, &str)| {
            let status = HostStatus {
                roster: hosts.len(),
                clients: Some(5),
                pool_size: Some(3),
                pinned: Some(2),
                ..status(host)
            };
            let found = Found {
                region: Region::new("iad").unwrap(),
                cluster: (*cluster).to_owned(),
                version: (*version).to_owned(),
                status: Some(status),
            };
            (HostName::new(host).unwrap(), found)
        };
        hosts.iter().map(found).collect()
    }

    #[test]
    fn a_fleet_tells_its_shape() {
        let known = shape(&fleet(&[
            ("a", "east", "2.10.26"),
            ("b", "east", "2.10.26"),
            ("c", "west", "2.10.26"),
        ]))
        .unwrap();
        let s = &known.shape;
        assert_eq!((s.servers, s.clusters, s.pool_size, s.pinned), (3, 2, 3, 2));
        assert_eq!((s.clients_per_server, s.accounts), (5, 0), "all clients are in $G");
        assert_eq!(s.version, ServerVersion::new(2, 10, 26));
    }

    #[test]
    fn what_is_not_known_is_refused_and_said() {
        assert_eq!(shape(&Inventory::new()), Err(UnknownShape::Nobody));
        let e = shape(&fleet(&[("a", "c", "2.10.26"), ("b", "c", "")])).unwrap_err();
        assert!(matches!(e, UnknownShape::Version { .. }), "{e}");
        assert!(e.to_string().contains("b's server is not known"), "{e}");

        let mut absent = fleet(&[("a", "c", "2.10.26"), ("b", "c", "2.10.26")]);
        absent.values_mut().for_each(|f| f.status.as_mut().unwrap().roster = 3);
        assert_eq!(shape(&absent), Err(UnknownShape::Absent { known: 3, heard: 2 }));

        let mut old = fleet(&[("a", "c", "2.10.26"), ("b", "c", "2.10.26")]);
        old.values_mut()
            .for_each(|f| f.status.as_mut().unwrap().pool_size = None);
        assert_eq!(shape(&old), Err(UnknownShape::Pool));
        old.values_mut().for_each(|f| f.version = "2.9.10".to_owned());
        assert_eq!(shape(&old).unwrap().shape.pool_size, -1, "2.9 has no pools to know of");

        let mut down = fleet(&[("a", "c", "2.10.26"), ("b", "c", "2.10.26")]);
        down.values_mut()
            .for_each(|f| f.status.as_mut().unwrap().clients = None);
        assert_eq!(shape(&down), Err(UnknownShape::Clients));
    }

    #[test]
    fn of_several_versions_the_costliest_counts_and_it_is_said() {
        let known = shape(&fleet(&[
            ("a", "c", "2.10.26"),
            ("b", "c", "2.9.10"),
            ("c", "c", "2.9.10"),
        ]))
        .unwrap();
        let bytes = |v: ServerVersion| {
            let shape = Shape {
                version: v,
                ..known.shape.clone()
            };
            model::restart(&shape).into_each.bytes
        };
        let dearest = bytes(known.shape.version);
        assert!(known.versions.keys().all(|v| bytes(*v) <= dearest));
        assert!(
            known
                .notes
                .iter()
                .any(|n| n.contains("1 of 2.10.26") && n.contains("2 of 2.9.10")),
            "{known:?}"
        );
    }
}
