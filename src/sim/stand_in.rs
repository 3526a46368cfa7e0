//! Stand-ins: hosts whose agents only send healthy beacons and answer probes, so that a few real agents may look at a
//! large fleet for a day.

use std::sync::Arc;
use std::time::Duration;

use super::fault::HostNo;
use super::world::{What, World};
use crate::core::canary::beacon::Beacon;
use crate::core::policy::Canary;

/// What each of them is.
#[derive(Debug)]
pub(super) struct StandIn {
    beacon: Beacon,
    interval: Duration,
}

impl World {
    /// The agent of this host is none; its first beacon is planned.
    pub(super) fn stand_in(&mut self, host: HostNo, phase: f64) {
        let budget = Canary::default().max_inbound_per_second;
        let least = Duration::from_secs_f64(self.servers.len() as f64 / f64::from(budget));
        let interval = self.scenario.agents.interval.max(least);
        let source = &self.sources[host];
        let varz = self.varz(host);
        let listen = |a: Option<(String, u16)>| a.map_or_else(String::new, |(ip, port)| format!("{ip}:{port}"));
        let beacon = Beacon {
            interval: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            server_id: varz.server_id,
            server: varz.server_name,
            server_version: varz.version,
            cluster: varz.cluster.unwrap_or_default(),
            route: listen(varz.cluster_addr),
            gateway: listen(varz.gateway_addr),
            hears: u32::try_from(self.servers.len() - 1).unwrap_or(u32::MAX),
            ..Beacon::new(source.host.clone(), source.region.clone())
        };
        self.agents[host].connected = true;
        self.agents[host].stand_in = Some(Box::new(StandIn { beacon, interval }));
        self.after(interval.mul_f64(phase), What::Hail(host));
    }

    /// Its next beacon.
    pub(super) fn hail(&mut self, host: HostNo) {
        let sent = self.agents[host].now(self.now).wall.0;
        let Some(stand_in) = &mut self.agents[host].stand_in else {
            return;
        };
        stand_in.beacon.seq += 1;
        stand_in.beacon.sent = u64::try_from(sent.as_micros()).unwrap_or(u64::MAX);
        let (beacon, interval) = (Arc::new(stand_in.beacon.clone().sealed()), stand_in.interval);
        self.publish(host, &beacon);
        self.after(interval, What::Hail(host));
    }
}
