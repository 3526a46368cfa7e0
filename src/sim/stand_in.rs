//! Stand-ins: hosts whose agents only send healthy beacons and answer probes, so that a few real agents may look at a
//! large fleet for a day. A slow one is late with both and says so, and all others miss it.

use std::sync::Arc;
use std::time::Duration;

use super::fault::{HostNo, Kind};
use super::world::{What, World};
use crate::core::canary::beacon::{Beacon, Health};
use crate::core::ids::HostName;
use crate::core::policy::Canary;

/// So long after it stood still an agent says so.
const RECOVER: Duration = Duration::from_secs(3);

/// What each of them is.
#[derive(Debug)]
pub(super) struct StandIn {
    beacon: Beacon,
    seq: u64,
    interval: Duration,
    /// Who is silent for so long is not heard.
    stall: Duration,
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
            ..Beacon::new(source.host.clone(), source.region.clone())
        };
        self.agents[host].connected = true;
        self.agents[host].stand_in = Some(Box::new(StandIn {
            beacon,
            seq: 0,
            interval,
            stall: interval * Canary::default().stall_after,
        }));
        self.after(interval.mul_f64(phase), What::Hail(host));
    }

    /// Its next beacon.
    pub(super) fn hail(&mut self, host: HostNo) {
        let (now, agent) = (self.now, &self.agents[host]);
        let Some(stand_in) = &agent.stand_in else { return };
        if agent.frozen {
            self.after(agent.thaws_at.saturating_sub(now), What::Hail(host));
            return;
        }
        let slow = self.faults.iter().zip(&self.active);
        let slow = slow.filter(|(f, active)| **active && f.kind == Kind::SlowAgent && f.host != host);
        let silent = |h: &HostNo| now.saturating_sub(self.agents[*h].spoke) > stand_in.stall;
        let deaf: Vec<HostName> = slow
            .map(|(f, _)| f.host)
            .filter(silent)
            .map(|h| self.hosts[h].clone())
            .collect();
        let interval = stand_in.interval;
        let stood_still = !agent.thaws_at.is_zero() && now < agent.thaws_at + RECOVER;
        let beacon = Beacon {
            seq: stand_in.seq + 1,
            sent: u64::try_from(agent.now(now).wall.0.as_micros()).unwrap_or(u64::MAX),
            health: if stood_still { Health::Sick } else { Health::Ok },
            hears: u32::try_from(self.servers.len() - 1 - deaf.len()).unwrap_or(u32::MAX),
            deaf,
            ..stand_in.beacon.clone()
        };
        if let Some(stand_in) = &mut self.agents[host].stand_in {
            stand_in.seq += 1;
        }
        self.publish(host, &Arc::new(beacon.sealed()));
        self.after(interval, What::Hail(host));
    }
}
