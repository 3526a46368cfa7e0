//! Sizes of system messages, from what nats-server prints: the length of the JSON without its values, and of usual values.

use libm::log10;

use super::model::Shape;
use super::version::ServerVersion;

/// Before the routes: `ServerInfo`, start, memory, counters. Every value that varies stands for one of its usual length.
const HEAD: &str = concat!(
    r#"{"server":{"name":"","host":"127.0.0.1","#,
    r#""id":"NB4VOY45WUC4KQDFDWO6W4KBJ4EDG7AZQIBK6GLMJ4EI7G42QT4LX26R","cluster":"c1","ver":"2.10.26","#,
    r#""jetstream":false,"flags":0,"seq":1400,"time":"2026-11-24T21:02:22.949304386Z"},"#,
    r#""statsz":{"start":"2026-11-24T21:01:57.672176298Z","mem":16846848,"cores":2,"cpu":0.5,"connections":20,"#,
    r#""total_connections":20,"active_accounts":2,"subscriptions":800,"sent":{"msgs":25000,"bytes":60435000},"#,
    r#""received":{"msgs":29000,"bytes":67750000},"slow_consumers":0,"routes":[],"active_servers":40}}"#,
);
/// What 2.15 has more (some of it is in versions between): feature flags, and the clients' part of the counters.
const HEAD_MORE: &str = concat!(
    r#""feature_flags":{"js_ack_fc_v2":false,"js_api_reply_v2":false,"js_raft_delete_range":true,"#,
    r#""js_snapshot_sources":false},"sent_to_clients":{"msgs":1000,"bytes":100000},"#,
    r#""received_from_clients":{"msgs":1000,"bytes":100000},"#,
);
/// One route connection, without its name and counters; `rid` and `pending` as they usually are.
const ROUTE: &str = r#"{"rid":100,"name":"","sent":{"msgs":,"bytes":},"received":{"msgs":,"bytes":},"pending":0},"#;
/// One remote cluster.
const GATEWAY: &str = r#"{"gwid":10,"name":"c1","sent":{"msgs":1000,"bytes":1000000},"received":{"msgs":1000,"bytes":1000000},"inbound_connections":10},"#;
/// A CONNS event; 2.10 adds the name of the account, 2.11 the parts by kind of connection.
const CONNS: f64 = 470.0;
/// A SHUTDOWN or LAMEDUCK event; it has another 120 where there are feature flags.
pub(super) const SHUTDOWN: f64 = 200.0;

pub(super) fn conns(version: ServerVersion) -> f64 {
    let new = version >= ServerVersion::new(2, 11, 0);
    CONNS + if version.pools_routes() { 43.0 } else { 0.0 } + if new { 322.0 } else { 0.0 }
}

/// Payload of one STATSZ.
///
/// The one route connection that carries the system account (all of them, before 2.10) has counters of as many digits as
/// the servers' age gives; the others' are the shape's `route_digits`.
pub(super) fn statsz(shape: &Shape) -> f64 {
    let peers = f64::from(shape.peers());
    let connections = f64::from(shape.connections_per_peer());
    let route = ROUTE.len() as f64 + f64::from(shape.name_bytes);
    let busy = 4.0 * f64::from(shape.route_digits.max(1));
    let system = system_digits(shape).max(if shape.version.pools_routes() { 0.0 } else { busy });
    let more = if shape.version >= ServerVersion::new(2, 11, 0) {
        HEAD_MORE.len()
    } else {
        0
    };
    let flags = if shape.version.pools_routes() {
        0.0
    } else {
        -(r#""flags":0,"#.len() as f64)
    };
    let gateways = if shape.clusters > 1 {
        (r#""gateways":[],"#.len() + GATEWAY.len() * shape.clusters.saturating_sub(1) as usize) as f64
    } else {
        0.0
    };
    let routes = peers * (connections * route + (connections - 1.0) * busy + system);
    HEAD.len() as f64 + f64::from(shape.name_bytes) + more as f64 + flags + routes + gateways
}

/// Digits of the four counters of the route connection that carries the system account, after half of the servers' age.
fn system_digits(shape: &Shape) -> f64 {
    let msgs = (shape.age.as_secs_f64() / 2.0 / shape.version.statsz_interval().as_secs_f64() + 10.0).max(1.0);
    // A STATSZ has some hundred bytes per peer; its exact size matters little to the number of digits of a sum.
    let bytes = msgs * (600.0 + 110.0 * f64::from(shape.peers()) * f64::from(shape.connections_per_peer()));
    2.0 * (log10(msgs).floor() + 1.0 + log10(bytes).floor() + 1.0)
}
