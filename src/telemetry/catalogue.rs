//! The one list of metrics. Rendering takes names, help and labels from here; alerts, dashboards and docs are tested
//! against it. Only what is exported stands here.

/// Prometheus type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, starts again at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, `_sum` and `_count`.
    Histogram,
}

/// Unit of the value. The name ends in it, except that a counter adds `_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A count, a flag or a share.
    None,
    /// Seconds, as a number with fraction.
    Seconds,
    /// Bytes.
    Bytes,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Unit.
    pub unit: Unit,
    /// Label names, in the order in which samples give their values.
    pub labels: &'static [&'static str],
    /// Help text.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every metric, in the order in which `/metrics` shows them.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

catalogue! {
    // the agent
    BUILD_INFO: Gauge None "watchdog_build_info" ["version", "region"]
        "1; version of the agent and the region it runs in.";
    UPTIME: Gauge Seconds "watchdog_uptime_seconds" []
        "Time since the agent started.";
    SNAPSHOT_TIMESTAMP: Gauge Seconds "watchdog_snapshot_timestamp_seconds" []
        "When the state behind these figures was taken, Unix time; it stands still when the agent's loop hangs.";
    AGENT_HEALTH: Gauge None "watchdog_agent_health" ["state"]
        "1 for what the agent says of itself: warming, ok, sick, restarting, lame_duck; 0 for the others.";
    SELF_LOOP: Gauge Seconds "watchdog_self_loop_seconds" []
        "How long the agent's own beacon took through its own server; absent until one was heard.";
    LOOP_LAG: Gauge Seconds "watchdog_loop_lag_seconds" []
        "How late the agent's last tick was.";
    ROSTER: Gauge None "watchdog_roster_hosts" []
        "Hosts that belong to the fleet by the roster, this one included.";
    STATE_WRITABLE: Gauge None "watchdog_state_writable" []
        "1 if roster, ledger and limits are kept on disk, 0 if they would be lost with the process.";
    LANE_CONNECTED: Gauge None "watchdog_lane_connected" ["lane"]
        "1 if the lane's connection to the local server stands.";
    // canaries
    CANARY_INTERVAL: Gauge Seconds "watchdog_canary_interval_seconds" []
        "Beacon interval in use, stretched by the budget where the fleet is large.";
    CANARY_SENT: Counter None "watchdog_canary_sent_total" ["lane"]
        "Beacons sent.";
    CANARY_RECEIVED: Counter None "watchdog_canary_received_total" ["source_region", "lane"]
        "Beacons received.";
    CANARY_LOST: Counter None "watchdog_canary_lost_total" ["source_region", "lane"]
        "Beacons that never came, by gaps in their sequence.";
    CANARY_LATE: Counter None "watchdog_canary_late_total" ["source_region", "lane"]
        "Beacons that came, but late.";
    CANARY_DUPLICATE: Counter None "watchdog_canary_duplicate_total" ["source_region", "lane"]
        "Beacons that came twice.";
    CANARY_REORDERED: Counter None "watchdog_canary_reordered_total" ["source_region", "lane"]
        "Beacons that came after a later one.";
    CANARY_DROPPED: Counter None "watchdog_canary_dropped_total" ["reason"]
        "Messages dropped instead of believed.";
    CANARY_AGE: Gauge Seconds "watchdog_canary_age_seconds" ["source_region", "lane"]
        "Time since the last beacon of the worst source of the region that has not departed.";
    CANARY_ONE_WAY: Histogram Seconds "watchdog_canary_one_way_seconds" ["source_region"]
        "One-way delay by both hosts' clocks; not to be read where watchdog_canary_clock_skewed is 1.";
    CANARY_SKEWED: Gauge None "watchdog_canary_clock_skewed" ["source_region"]
        "1 where clocks differ so much that one-way delay means nothing.";
    PATHS: Gauge None "watchdog_paths" ["source_region", "state"]
        "Paths (a source on a lane) that end here, by verdict: ok, late, stalled, departed, warming.";
    PROBE_RTT: Histogram Seconds "watchdog_probe_rtt_seconds" ["target_region", "lane"]
        "Round trip of a request with a fresh reply subject, without the responder's hold time.";
    PROBE_FAILURES: Counter None "watchdog_probe_failures_total" ["target_region", "lane", "reason"]
        "Probes without an answer.";
    // faults
    FAULTS: Gauge None "watchdog_faults" ["kind", "region"]
        "Faults now, by kind and region of the faulty source, as far as this agent sees them.";
    FAULT_REMEDIES: Gauge None "watchdog_fault_remedies" ["state"]
        "Faults now, by what is being done about them.";
    // the server
    SERVER_UP: Gauge None "watchdog_server_up" []
        "1 if the local server's monitoring port answers.";
    SERVER_INFO: Gauge None "watchdog_server_info" ["server_name", "server_cluster", "server_version"]
        "1; the local server as last read.";
    SERVER_HEALTHY: Gauge None "watchdog_server_healthy" []
        "1 if the server's /healthz says ok, 0 if it says something else; absent while unknown.";
    SERVER_LAME_DUCK: Gauge None "watchdog_server_lame_duck" []
        "1 while the server is a lame duck.";
    SERVER_START: Gauge Seconds "watchdog_server_start_time_seconds" []
        "When the server started, Unix time.";
    SERVER_STARTS: Counter None "watchdog_server_starts_total" []
        "Starts of the server seen by this agent, whoever made them.";
    SERVER_MEMORY: Gauge Bytes "watchdog_server_memory_bytes" []
        "Resident memory of the server.";
    SERVER_CONNECTIONS: Gauge None "watchdog_server_connections" []
        "Client connections of the server.";
    SERVER_SLOW_CONSUMERS: Counter None "watchdog_server_slow_consumers_total" ["kind"]
        "Slow consumers of the server, by kind of connection; one kind, all, before 2.10.";
    SERVER_MEMORY_LIMIT: Gauge Bytes "watchdog_server_memory_limit_bytes" []
        "What memory the server may use, by its control group or its host.";
    SERVER_MEMORY_EXHAUSTION: Gauge Seconds "watchdog_server_memory_exhaustion_seconds" []
        "Time until the server's memory reaches its limit, at its steady growth; absent where there is no steady growth.";
    SERVER_STALLED_CLIENTS: Gauge None "watchdog_server_stalled_clients" []
        "Clients held back for slow consumers since the server's start; absent where its version does not tell.";
    SERVER_PENDING: Gauge Bytes "watchdog_server_routes_pending_bytes" []
        "Bytes queued in the server for routes; before 2.10.26 only with `[system]` credentials, from the server's STATSZ.";
    SLOW_CONSUMERS: Counter None "watchdog_slow_consumers_total" ["kind"]
        "Slow consumers that came up since the agent started, over the server's restarts.";
    ROUTE_CHURN: Counter None "watchdog_route_churn_total" ["event"]
        "Route connections that came and went: opened, closed; those of the local server's own restarts left out.";
    GATEWAY_CHURN: Counter None "watchdog_gateway_churn_total" ["event"]
        "Gateway connections that came and went: opened, closed; those of the local server's own restarts left out.";
    // system traffic
    SYS_SOURCE: Gauge None "watchdog_sys_source" ["source"]
        "1 for what system traffic is measured with: account, routes, counted, account_sent; 0 for the others; all 0 = nothing was read lately.";
    SYS_AGE: Gauge Seconds "watchdog_sys_age_seconds" []
        "Age of the last good reading of the source in use.";
    SYS_MESSAGES: Counter None "watchdog_sys_messages_total" ["direction"]
        "Messages of the system account into (received) and out of (sent) the local server, since the agent started.";
    SYS_BYTES: Counter Bytes "watchdog_sys_bytes_total" ["direction"]
        "Bytes of the system account into (received) and out of (sent) the local server, since the agent started.";
    SYS_SHARED: Gauge None "watchdog_sys_shared_with_jetstream" []
        "1 where JetStream's replication is in what is measured: only the ceiling is judged, and nothing is expected.";
    SYS_EXPECTED_MESSAGES: Gauge None "watchdog_sys_expected_messages_per_second" ["direction"]
        "Messages of the system account per second that a quiet fleet of this shape makes.";
    SYS_EXPECTED_BYTES: Gauge None "watchdog_sys_expected_bytes_per_second" ["direction"]
        "Bytes of the system account per second that a quiet fleet of this shape makes.";
    SYS_ODD_READINGS: Counter None "watchdog_sys_odd_readings_total" ["reason"]
        "Readings that made no rate: reset, garbage, backwards.";
    BROWNOUT: Gauge None "watchdog_brownout" ["scope"]
        "1 while a storm of system traffic is on at the host, in its region, in the fleet; automation rests meanwhile.";
    BROWNOUT_SCORE: Gauge None "watchdog_brownout_score" ["scope"]
        "1 is where a brownout begins: excess of the host's traffic, share of hosts of a region or the fleet.";
    PEERS_EXPECTED: Gauge None "watchdog_peers_expected" []
        "Peers in the own cluster by the roster.";
    PEERS_CONNECTED: Gauge None "watchdog_peers_connected" []
        "Peers that the server has a route to.";
    GATEWAYS_EXPECTED: Gauge None "watchdog_gateways_expected" []
        "Remote clusters by roster and configuration.";
    GATEWAYS_CONNECTED: Gauge None "watchdog_gateways_connected" []
        "Remote clusters that the server has an outbound gateway to.";
    SOURCE_AGE: Gauge Seconds "watchdog_source_age_seconds" ["source"]
        "How old the last good read of a monitoring endpoint is.";
    // automation
    REMEDIATION_MODE: Gauge None "watchdog_remediation_mode" ["mode"]
        "1 for how far automation may climb: observe, reset, restart; 0 for the others.";
    RESET_AVAILABLE: Gauge None "watchdog_remediation_reset_available" []
        "1 if this agent is able to reset connections of its server.";
    REMEDIATION_ACTIONS: Counter None "watchdog_remediation_actions_total" ["action", "reason", "outcome"]
        "Acts and their outcomes; outcome would = not done, because the mode forbids it.";
    REMEDIATION_BLOCKED: Counter None "watchdog_remediation_blocked_total" ["gate"]
        "Acts refused, by the gate that refused.";
    REMEDIATION_BLOCKING: Gauge None "watchdog_remediation_blocking" []
        "Gates that hold something back now.";
    LEDGER_DAMAGED: Gauge None "watchdog_ledger_damaged" []
        "1 while no fault leads to a restart because what was done before could not be read: an hour, or until a resume.";
    RESTARTS_LEFT: Gauge None "watchdog_remediation_restarts_left" []
        "Restarts that the host's own limit still allows now.";
    RESTART_IN_PROGRESS: Gauge None "watchdog_restart_in_progress" []
        "1 while this agent restarts its server.";
    ROLLOUT_OPEN: Gauge None "watchdog_rollout_open" []
        "1 while a rollout is open, as far as this agent was told or reads in the permit store.";
    ROLLOUT_HALTED: Gauge None "watchdog_rollout_halted" []
        "1 while the rollout that is open has halted and waits for somebody.";
    ROLLOUT_HOSTS: Gauge None "watchdog_rollout_hosts" ["state"]
        "Hosts of the rollout that is open, by state: proved, waiting.";
    LAST_RESTART: Gauge Seconds "watchdog_last_restart_timestamp_seconds" ["reason"]
        "When this agent last restarted its server and why, Unix time; absent if it never did.";
    COMMANDS: Counter None "watchdog_commands_total" ["verb"]
        "Signed commands that passed the checks of who and when; a gate may still have refused them.";
    COMMANDS_REFUSED: Counter None "watchdog_commands_refused_total" ["reason"]
        "Commands refused because of who sent them or when; nothing was done.";
    EVENTS: Counter None "watchdog_events_total" ["outcome"]
        "Records sent as events on NATS, or dropped: over the agent's rate, or no connection.";
    RECORDS_LOST: Counter None "watchdog_records_lost_total" []
        "Records that the disk was too slow for; they are in the log only.";
    PERMITS_HELD: Gauge None "watchdog_permits_held" ["state"]
        "1 for the state of the permit that this host holds: taken, acting, failed; 0 for the others.";
    PERMIT_HOLDERS: Gauge None "watchdog_permit_holders" ["state"]
        "Holders in the permit document as last read, by state: taken, acting, failed, vanished.";
    PERMIT_STORE_UP: Gauge None "watchdog_permit_store_up" []
        "1 if the permit document was read lately and is good; absent where no store is configured.";
    PAUSED: Gauge None "watchdog_paused" ["scope"]
        "1 if a pause of this kind covers this host: fleet, region, host.";
}

/// Looks a metric up by its name in queries: histograms answer to `_bucket`, `_sum` and `_count` too.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| {
        metric.name == name
            || (metric.kind == Kind::Histogram
                && ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| name.strip_suffix(suffix) == Some(metric.name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_prefix_unit_and_type() {
        for metric in ALL {
            assert!(metric.name.starts_with("watchdog_"), "{}", metric.name);
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            let base = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            assert_eq!(
                base.ends_with("_seconds"),
                metric.unit == Unit::Seconds,
                "{}",
                metric.name
            );
            assert_eq!(base.ends_with("_bytes"), metric.unit == Unit::Bytes, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert_eq!(
                ALL.iter().filter(|m| m.name == metric.name).count(),
                1,
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn a_host_or_an_id_is_never_a_label() {
        for metric in ALL {
            for label in metric.labels {
                assert!(
                    !matches!(*label, "host" | "from" | "to" | "id" | "server_id" | "worst"),
                    "{}",
                    metric.name
                );
            }
        }
    }

    #[test]
    fn histograms_are_found_by_their_series() {
        assert_eq!(find("watchdog_probe_rtt_seconds_bucket"), Some(&PROBE_RTT));
        assert_eq!(find("watchdog_server_up"), Some(&SERVER_UP));
        assert_eq!(find("watchdog_server_up_count"), None);
    }
}
