//! Fault sets on random topologies with gateways: who hears whom is computed from the truth, and the truth is to come out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::core::ids::{HostName, LaneName, Region};
use crate::core::mesh::{Evidence, Fault, Place, diagnose};
use crate::core::view::FaultKind;

#[derive(Debug, Clone)]
struct World {
    /// Hosts per cluster.
    sizes: Vec<usize>,
    /// Picks where gateways lead.
    picks: Vec<usize>,
    /// Silent routes, by (cluster, from, to).
    routes: BTreeSet<(usize, usize, usize)>,
    /// Silent gateways, by (cluster, host, remote cluster).
    gateways: BTreeSet<(usize, usize, usize)>,
}

fn name(cluster: usize, host: usize) -> HostName {
    HostName::new(&format!("c{cluster}-{host}")).unwrap()
}

impl World {
    fn entry(&self, (c, h): (usize, usize), remote: usize) -> usize {
        self.picks[(c * 31 + h * 7 + remote * 3) % self.picks.len()] % self.sizes[remote]
    }

    fn hosts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.sizes
            .iter()
            .enumerate()
            .flat_map(|(c, n)| (0..*n).map(move |h| (c, h)))
    }

    fn hears(&self, (sc, s): (usize, usize), (rc, r): (usize, usize)) -> bool {
        if sc == rc {
            return !self.routes.contains(&(sc, s, r));
        }
        let entry = self.entry((sc, s), rc);
        !self.gateways.contains(&(sc, s, rc)) && (entry == r || !self.routes.contains(&(rc, entry, r)))
    }

    fn evidence(&self) -> Evidence {
        let mut e = Evidence {
            lanes: 1,
            ..Evidence::default()
        };
        for (c, h) in self.hosts() {
            let remote = (0..self.sizes.len()).filter(|r| *r != c);
            let place = Place {
                region: Region::new(&format!("c{c}")).unwrap(),
                cluster: format!("c{c}"),
                entries: remote
                    .map(|r| (format!("c{r}"), name(r, self.entry((c, h), r))))
                    .collect(),
            };
            e.members.insert(name(c, h), place.into());
            e.receivers.insert(name(c, h));
        }
        for s in self.hosts() {
            for r in self.hosts().filter(|r| *r != s) {
                if !self.hears(s, r) {
                    let lane = LaneName::new("main").unwrap();
                    e.deaf.insert((name(s.0, s.1), name(r.0, r.1)), Arc::new([lane].into()));
                }
            }
        }
        e
    }

    fn truth(&self) -> BTreeSet<String> {
        let route = |(c, s, r): &(usize, usize, usize)| format!("route:{}>{}", name(*c, *s), name(*c, *r));
        let gateway = |(c, h, r): &(usize, usize, usize)| format!("gateway:{}>cluster c{r}", name(*c, *h));
        self.routes
            .iter()
            .map(route)
            .chain(self.gateways.iter().map(gateway))
            .collect()
    }
}

fn found(e: &Evidence) -> BTreeSet<String> {
    diagnose(e).iter().map(Fault::id).collect()
}

prop_compose! {
    /// Up to three faults, of which no two touch one host.
    fn worlds(least: usize)(
        sizes in proptest::collection::vec(least..6, 2..5),
        picks in proptest::collection::vec(0usize..60, 7..30),
        faults in proptest::collection::vec((any::<bool>(), 0usize..60, 0usize..60, 0usize..60), 0..4),
    ) -> World {
        let mut world = World { sizes, picks, routes: BTreeSet::new(), gateways: BTreeSet::new() };
        let mut touched = BTreeSet::new();
        for (is_route, c, a, b) in faults {
            let c = c % world.sizes.len();
            let a = a % world.sizes[c];
            let other = |n: usize, not: usize, of: usize| (not + 1 + n % (of - 1)) % of;
            if is_route {
                let b = other(b, a, world.sizes[c]);
                if touched.contains(&(c, a)) || touched.contains(&(c, b)) {
                    continue;
                }
                touched.extend([(c, a), (c, b)]);
                world.routes.insert((c, a, b));
            } else if touched.insert((c, a)) {
                world.gateways.insert((c, a, other(b, c, world.sizes.len())));
            }
        }
        world
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_broken_is_what_is_found(world in worlds(3)) {
        prop_assert_eq!(found(&world.evidence()), world.truth());
    }

    #[test]
    fn one_stalled_route_is_one_fault_in_clusters_of_two_as_well(mut world in worlds(2), n in 0usize..60) {
        let c = n % world.sizes.len();
        world.gateways.clear();
        world.routes = [(c, n % world.sizes[c], (n + 1) % world.sizes[c])].into();
        prop_assert_eq!(found(&world.evidence()), world.truth());
    }

    #[test]
    fn missing_reports_name_nothing_that_is_not_broken(
        world in worlds(3), missing in proptest::collection::btree_set((0usize..4, 0usize..6), 0..3),
    ) {
        let mut e = world.evidence();
        for (c, h) in missing {
            e.receivers.remove(&name(c, h));
        }
        // The reports that are left may be too few to tell a route from a gateway, never to accuse a third.
        let hosts = world.routes.iter().flat_map(|(c, s, r)| [name(*c, *s), name(*c, *r)]);
        let hosts: BTreeSet<_> = hosts.chain(world.gateways.iter().map(|(c, h, _)| name(*c, *h))).collect();
        for f in diagnose(&e) {
            let entered = e.members.get(&f.from).is_some_and(|p| p.entries.values().any(|x| hosts.contains(x)));
            prop_assert!(hosts.contains(&f.from) || entered, "{}", f.id());
            prop_assert!(f.kind != FaultKind::Host || hosts.contains(&f.from), "{}", f.id());
        }
    }

    #[test]
    fn one_liar_makes_no_fault_of_an_honest_host_alone(world in worlds(4), liar in 0usize..60, claims in any::<u64>()) {
        let mut world = world;
        (world.routes, world.gateways) = (BTreeSet::new(), BTreeSet::new());
        let mut e = world.evidence();
        let hosts: Vec<_> = world.hosts().map(|(c, h)| name(c, h)).collect();
        let liar = hosts[liar % hosts.len()].clone();
        for (i, h) in hosts.iter().enumerate().filter(|(_, h)| **h != liar) {
            if claims >> (i % 64) & 1 == 1 {
                e.deaf.insert((h.clone(), liar.clone()), Arc::new([LaneName::new("main").unwrap()].into()));
            }
        }
        for f in diagnose(&e) {
            let about = f.from == liar || f.to.as_ref().is_some_and(|t| t.to_string() == liar.to_string());
            prop_assert!(about, "{}", f.id());
        }
    }
}

#[test]
fn a_frozen_entry_is_one_host_and_not_a_gateway_of_everybody_behind_it() {
    let world = World {
        sizes: vec![3, 3],
        picks: vec![0],
        routes: BTreeSet::new(),
        gateways: BTreeSet::new(),
    };
    let mut e = world.evidence();
    let frozen = name(1, 0);
    e.receivers.remove(&frozen);
    let lane = || Arc::new(BTreeSet::from([LaneName::new("main").unwrap()]));
    let all: Vec<_> = world.hosts().map(|(c, h)| name(c, h)).collect();
    for r in all.iter().filter(|r| **r != frozen) {
        e.deaf.insert((frozen.clone(), r.clone()), lane());
    }
    // All of cluster 0 enters cluster 1 through it.
    for s in 0..3 {
        for r in 1..3 {
            e.deaf.insert((name(0, s), name(1, r)), lane());
        }
    }
    assert_eq!(found(&e), BTreeSet::from([format!("host:{frozen}")]));
    let entries: BTreeMap<_, _> = e.members.iter().map(|(h, p)| (h, p.entries.clone())).collect();
    assert!(
        entries
            .values()
            .all(|x| x.values().all(|to| to.as_str().ends_with("-0")))
    );
}
