//! Bytes of the monitoring endpoints to samples: pure, tolerant of nats-server 2.9.10 to 2.15.1 and of what comes later.
//!
//! Tolerant of fields, strict about identity: an answer without the few fields that every version has is not a
//! nats-server's, and "no routes" is believed only where a list of routes was sent.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde_json::error::Category;

use super::lax::{Fields, Lax, Obj};
use crate::core::ids::Wall;
use crate::core::server::{GatewayConn, Gatewayz, Healthz, Jsz, Route, Varz};
use crate::core::sys::reading::{AccountTraffic, Accstatz, Tally};

/// Why bytes are no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// JSON that ends in the middle.
    #[error("the JSON is cut off after {0} bytes")]
    CutOff(usize),
    /// No JSON at all.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON of something else.
    #[error("no {0:?} in the JSON")]
    Missing(&'static str),
}

/// `/varz`.
///
/// # Errors
/// Not JSON, or no `server_id` or `version`.
pub fn parse_varz(body: &[u8]) -> Result<Varz, ParseError> {
    let raw: RawVarz = object(body)?;
    let cluster = raw.cluster.or_default().0;
    let jetstream = raw.jetstream.or_default().0;
    let gateway = raw.gateway.or_default().0;
    let name = |name: Lax<String>| name.0.filter(|n| !n.is_empty());
    let address = |host: Lax<String>, port: Lax<u16>| {
        let port = port.0.filter(|p| *p != 0)?;
        Some((host.or_default(), port))
    };
    Ok(Varz {
        server_id: needed("server_id", raw.server_id)?,
        version: needed("version", raw.version)?,
        server_name: name(raw.server_name).or(name(raw.name)).unwrap_or_default(),
        host: raw.host.or_default(),
        port: raw.port.or_default(),
        start: raw.start.0.as_deref().and_then(parse_time),
        mem: raw.mem.or_default(),
        connections: raw.connections.or_default(),
        remotes: raw.remotes.or_default(),
        routes: raw.routes.or_default(),
        slow_consumers: raw.slow_consumers.or_default(),
        slow_consumers_by_kind: raw.slow_consumer_stats.or_default(),
        stalled_clients: raw.stalled_clients.0,
        system_account: raw.system_account.or_default(),
        cluster: name(cluster.name),
        cluster_addr: address(cluster.addr, cluster.cluster_port),
        cluster_urls: cluster.urls.or_default(),
        pool_size: cluster.pool_size.0,
        gateway: name(gateway.name),
        gateway_addr: address(gateway.host, gateway.port),
        gateways: gateway
            .gateways
            .or_default()
            .into_iter()
            .filter_map(|Obj(remote)| Some((name(remote.name)?, remote.urls.or_default())))
            .collect(),
        // No version says; see the field.
        // Off is an empty object in every version.
        jetstream: jetstream.config.0.is_some(),
        meta_leader: jetstream.meta.0.and_then(|Obj(meta)| name(meta.leader)),
    })
}

/// `/routez`, in the order of connection ids: the server's own order is another at each read.
///
/// # Errors
/// Not JSON, or no `server_id` or list of routes.
pub fn parse_routez(body: &[u8]) -> Result<Vec<Route>, ParseError> {
    let raw: RawRoutez = object(body)?;
    needed("server_id", raw.server_id)?;
    let routes = raw.routes.0.ok_or(ParseError::Missing("routes"))?;
    let mut routes: Vec<Route> = routes
        .into_iter()
        .filter_map(|Obj(route)| {
            Some(Route {
                // A route stands in the list only once its INFO has named the peer.
                remote_id: route.remote_id.0.filter(|id| !id.is_empty())?.into(),
                rid: route.rid.or_default(),
                remote_name: route.remote_name.or_default().into(),
                did_solicit: route.did_solicit.or_default(),
                is_configured: route.is_configured.or_default(),
                ip: route.ip.or_default().into(),
                port: route.port.or_default(),
                in_msgs: route.in_msgs.or_default(),
                out_msgs: route.out_msgs.or_default(),
                in_bytes: route.in_bytes.or_default(),
                out_bytes: route.out_bytes.or_default(),
                pending: route.pending_size.or_default(),
                account: route.account.0.filter(|a| !a.is_empty()).map(Into::into),
            })
        })
        .collect();
    routes.sort_by_key(|r| r.rid);
    Ok(routes)
}

/// `/gatewayz`, by cluster name; a server without gateways has two empty lists.
///
/// # Errors
/// Not JSON, or no `server_id` or map of gateways.
pub fn parse_gatewayz(body: &[u8]) -> Result<Gatewayz, ParseError> {
    let raw: RawGatewayz = object(body)?;
    needed("server_id", raw.server_id)?;
    let outbound = raw.outbound_gateways.0;
    let inbound = raw.inbound_gateways.0;
    Ok(Gatewayz {
        outbound: outbound
            .ok_or(ParseError::Missing("outbound_gateways"))?
            .into_iter()
            .filter_map(|(cluster, Obj(one))| gateway(&cluster, one))
            .collect(),
        inbound: inbound
            .ok_or(ParseError::Missing("inbound_gateways"))?
            .into_iter()
            .flat_map(|(cluster, all)| all.into_iter().filter_map(move |Obj(one)| gateway(&cluster, one)))
            .collect(),
    })
}

/// `/healthz` with its HTTP status, which is part of the answer.
///
/// # Errors
/// Not JSON, or no `status`.
pub fn parse_healthz(http_status: u16, body: &[u8]) -> Result<Healthz, ParseError> {
    let raw: RawHealthz = object(body)?;
    let status = needed("status", raw.status)?;
    Ok(Healthz {
        ok: http_status == 200 && status == "ok",
        detail: raw.error.0.filter(|e| !e.is_empty()).unwrap_or(status),
    })
}

/// `/accstatz?unused=1`. Which of the accounts is the system's only `/varz` says.
///
/// # Errors
/// Not JSON, or no `server_id` or list of accounts.
pub fn parse_accstatz(body: &[u8], system_account: &str) -> Result<Accstatz, ParseError> {
    let raw: RawAccstatz = object(body)?;
    let server_id = needed("server_id", raw.server_id)?;
    let all = raw.account_statz.0.ok_or(ParseError::Missing("account_statz"))?;
    let mut read = Accstatz {
        server_id,
        accounts: all.len() as u64,
        ..Accstatz::default()
    };
    for Obj(one) in all {
        let account = one.acc.or_default();
        let clients = one.total_conns.or_default();
        read.active_accounts += u64::from(clients > 0 && account != "$G");
        // Without its counters it is not the account's entry: no figures are better than zeroes.
        if account == system_account
            && let (Some(sent), Some(received)) = (tally(one.sent), tally(one.received))
        {
            read.system = Some(AccountTraffic {
                account,
                sent,
                received,
                clients,
                slow_consumers: one.slow_consumers.or_default(),
            });
        }
    }
    Ok(read)
}

fn tally(raw: Lax<Obj<RawTally>>) -> Option<Tally> {
    let Obj(raw) = raw.0?;
    Some(Tally {
        msgs: raw.msgs.0?,
        bytes: raw.bytes.0?,
    })
}

/// `/jsz?streams=1`. A stream without a leader, or without replicas, counts for nobody.
///
/// # Errors
/// Not JSON, or no `server_id`.
pub fn parse_jsz(body: &[u8]) -> Result<Jsz, ParseError> {
    let raw: RawJsz = object(body)?;
    needed("server_id", raw.server_id)?;
    let mut leaders = BTreeMap::new();
    let accounts = raw.account_details.or_default().into_iter();
    for Obj(stream) in accounts.flat_map(|Obj(account)| account.stream_detail.or_default()) {
        let Obj(cluster) = stream.cluster.or_default();
        if let Some(leader) = cluster.leader.0.filter(|l| !l.is_empty()) {
            *leaders.entry(leader).or_default() += 1;
        }
    }
    Ok(Jsz { leaders })
}

/// Who an INFO line says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// New at every start.
    pub server_id: String,
    /// Configured or random name.
    pub server_name: String,
    /// Like `2.10.26`.
    pub version: String,
    /// Name of its cluster.
    pub cluster: Option<String>,
}

/// The JSON of an INFO line.
///
/// # Errors
/// Not JSON, or no `server_id`.
pub fn parse_info(json: &[u8]) -> Result<PeerInfo, ParseError> {
    let raw: RawInfo = object(json)?;
    let cluster = raw.cluster.0.filter(|name| !name.is_empty());
    Ok(PeerInfo {
        server_id: needed("server_id", raw.server_id)?,
        server_name: raw.server_name.or_default(),
        version: raw.version.or_default(),
        // A gateway port gives the cluster's name as the gateway's.
        cluster: cluster.or(raw.gateway.0.filter(|name| !name.is_empty())),
    })
}

/// RFC 3339 in UTC with up to nine digits of a second, as Go prints it.
fn parse_time(text: &str) -> Option<Wall> {
    let time = humantime::parse_rfc3339(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(Wall)
}

fn object<'de, T: Fields<'de> + Default>(body: &'de [u8]) -> Result<T, ParseError> {
    match serde_json::from_slice::<Lax<Obj<T>>>(body) {
        Ok(raw) => Ok(raw.or_default().0),
        Err(e) if e.classify() == Category::Eof && !body.is_empty() => Err(ParseError::CutOff(body.len())),
        Err(e) => Err(ParseError::NotJson(e.to_string())),
    }
}

fn needed(field: &'static str, value: Lax<String>) -> Result<String, ParseError> {
    value.0.filter(|v| !v.is_empty()).ok_or(ParseError::Missing(field))
}

/// The peer's id is the connection's `name`. Without a connection nothing has registered.
fn gateway(cluster: &str, raw: RawGateway) -> Option<GatewayConn> {
    let Obj(conn) = raw.connection.0?;
    Some(GatewayConn {
        cluster: cluster.into(),
        cid: conn.cid.or_default(),
        remote_id: conn.name.or_default().into(),
        ip: conn.ip.or_default().into(),
        port: conn.port.or_default(),
        in_msgs: conn.in_msgs.or_default(),
        out_msgs: conn.out_msgs.or_default(),
    })
}

/// The fields of a JSON object that are read, all of them optional.
macro_rules! raw {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct $name { $($field: Lax<$type>),* }
        impl Fields<'_> for $name {}
    )*};
}

raw! {
    RawVarz {
        server_id: String,
        server_name: String,
        name: String,
        version: String,
        host: String,
        port: u16,
        start: String,
        mem: u64,
        connections: u64,
        remotes: u64,
        routes: u64,
        slow_consumers: u64,
        slow_consumer_stats: BTreeMap<String, u64>,
        stalled_clients: u64,
        system_account: String,
        cluster: Obj<RawCluster>,
        gateway: Obj<RawGatewayOpts>,
        jetstream: Obj<RawJetStream>,
    }
    RawJsz { server_id: String, account_details: Vec<Obj<RawJszAccount>> }
    RawJszAccount { stream_detail: Vec<Obj<RawJszStream>> }
    RawJszStream { cluster: Obj<RawJszCluster> }
    RawJszCluster { leader: String }
    RawMeta { leader: String }
    RawCluster { name: String, addr: String, cluster_port: u16, urls: Vec<String>, pool_size: i64 }
    RawGatewayOpts { name: String, host: String, port: u16, gateways: Vec<Obj<RawRemote>> }
    RawRemote { name: String, urls: Vec<String> }
    RawJetStream { config: Obj<RawNothing>, meta: Obj<RawMeta> }
    RawNothing {}
    RawRoutez { server_id: String, routes: Vec<Obj<RawRoute>> }
    RawRoute {
        rid: u64,
        remote_id: String,
        remote_name: String,
        did_solicit: bool,
        is_configured: bool,
        ip: String,
        port: u16,
        in_msgs: u64,
        out_msgs: u64,
        in_bytes: u64,
        out_bytes: u64,
        pending_size: u64,
        account: String,
    }
    RawGatewayz {
        server_id: String,
        outbound_gateways: BTreeMap<String, Obj<RawGateway>>,
        inbound_gateways: BTreeMap<String, Vec<Obj<RawGateway>>>,
    }
    RawGateway { connection: Obj<RawConn> }
    RawConn { cid: u64, name: String, ip: String, port: u16, in_msgs: u64, out_msgs: u64 }
    RawInfo { server_id: String, server_name: String, version: String, cluster: String, gateway: String }
    RawHealthz { status: String, error: String }
    RawAccstatz { server_id: String, account_statz: Vec<Obj<RawAccount>> }
    RawAccount { acc: String, total_conns: u64, sent: Obj<RawTally>, received: Obj<RawTally>, slow_consumers: u64 }
    RawTally { msgs: u64, bytes: u64 }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
