//! What one poll of a large mesh costs: `/routez` of 600 peers with 4 connections each.
#![allow(missing_docs)]

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use nats_watchdog::adapters::server::parse::parse_routez;

const PEERS: u64 = 600;
const PER_PEER: u64 = 4;

fn main() {
    divan::main();
}

/// As 2.15.1 prints it, indentation included.
fn routez() -> Vec<u8> {
    let route = |peer: u64, slot: u64| {
        let account = if slot == 0 {
            "\n      \"account\": \"$SYS\","
        } else {
            ""
        };
        format!(
            r#"    {{
      "rid": {rid},
      "remote_id": "N{peer:055}",
      "remote_name": "server-{peer}",
      "did_solicit": true,
      "is_configured": false,
      "ip": "10.{peer_high}.{peer_low}.1",
      "port": 6222,
      "start": "2026-11-24T17:40:14.08037283Z",
      "last_activity": "2026-11-24T17:40:14.080555771Z",
      "rtt": "292µs",
      "uptime": "4d8h3m",
      "idle": "1s",
      "pending_size": 0,
      "in_msgs": {rid}123,
      "out_msgs": {rid}456,
      "in_bytes": {rid}123456,
      "out_bytes": {rid}654321,
      "subscriptions": 1200,{account}
      "compression": "off"
    }}"#,
            rid = peer * PER_PEER + slot + 5,
            peer_high = peer / 256,
            peer_low = peer % 256,
        )
    };
    let routes: Vec<_> = (0..PEERS)
        .flat_map(|p| (0..PER_PEER).map(move |s| route(p, s)))
        .collect();
    let routes = routes.join(",\n");
    format!(
        "{{\n  \"server_id\": \"N\",\n  \"num_routes\": {},\n  \"routes\": [\n{routes}\n  ]\n}}",
        PEERS * PER_PEER
    )
    .into_bytes()
}

#[divan::bench]
fn routez_of_600_peers_with_4_connections(bencher: Bencher<'_, '_>) {
    let body = routez();
    bencher
        .counter(BytesCount::new(body.len()))
        .counter(ItemsCount::new(PEERS * PER_PEER))
        .bench(|| parse_routez(divan::black_box(&body)).expect("the body is a routez"));
}
