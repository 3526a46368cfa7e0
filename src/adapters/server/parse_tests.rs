use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const VERSIONS: [&str; 3] = ["2.9.10", "2.10.26", "2.15.1"];

fn fixture(version: &str, endpoint: &str) -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::read(format!("{root}/tests/fixtures/{version}/{endpoint}.json")).unwrap()
}

#[test]
fn varz_of_every_version_is_understood() {
    for version in VERSIONS {
        let varz = parse_varz(&fixture(version, "varz")).unwrap();
        assert_eq!(varz.version, version);
        assert_eq!(varz.server_name, "a");
        assert_eq!(varz.server_id.len(), 56);
        assert_eq!((varz.host.as_str(), varz.port), ("127.0.0.2", 4222));
        assert_eq!(varz.cluster.as_deref(), Some("A"));
        assert_eq!(varz.cluster_addr, Some(("127.0.0.2".to_owned(), 6222)));
        assert_eq!(varz.gateway_addr, Some(("127.0.0.2".to_owned(), 7222)));
        assert_eq!(varz.gateways["B"], ["127.0.0.3:7222"]);
        assert_eq!(varz.system_account, "$SYS");
        assert_eq!(varz.remotes, 1);
        assert!(varz.mem > 10_000_000);
        assert!(!varz.jetstream);
        let old = version == "2.9.10";
        assert_eq!(varz.pool_size, if old { None } else { Some(3) });
        assert_eq!(varz.routes, if old { 1 } else { 4 });
        assert_eq!(varz.slow_consumers_by_kind.len(), if old { 0 } else { 4 });
        assert_eq!(varz.stalled_clients.is_some(), version == "2.15.1");
    }
}

#[test]
fn the_start_keeps_its_nanoseconds() {
    let varz = parse_varz(&fixture("2.10.26", "varz")).unwrap();
    let start = varz.start.unwrap();
    assert_eq!(start.0.subsec_nanos(), 977_717_697);
    assert_eq!(start.rfc3339(), "2026-11-24T17:40:12.977Z");
    // Go cuts trailing zeroes.
    assert_eq!(
        parse_time("2026-11-24T17:40:15.98484142Z").unwrap().0.subsec_nanos(),
        984_841_420
    );
    assert_eq!(parse_time("2026-11-24T17:40:15Z").unwrap().0.subsec_nanos(), 0);
    assert_eq!(parse_time("0001-01-01T00:00:00Z"), None);
    assert_eq!(parse_time("yesterday"), None);
}

#[test]
fn routez_of_every_version_is_understood() {
    for version in VERSIONS {
        let routes = parse_routez(&fixture(version, "routez")).unwrap();
        let old = version == "2.9.10";
        assert_eq!(routes.len(), if old { 1 } else { 4 }, "{version}");
        for route in &routes {
            assert_eq!(route.remote_id.len(), 56);
            assert_eq!(&*route.remote_name, if old { "" } else { "a2" });
            assert!(route.rid > 0 && route.port > 1024);
            assert_eq!(&*route.ip, "127.0.0.1");
            assert!(!route.did_solicit && !route.is_configured);
        }
        let system: Vec<_> = routes.iter().filter(|r| r.account.as_deref() == Some("$SYS")).collect();
        assert_eq!(
            system.len(),
            usize::from(!old),
            "one connection is the system account's"
        );
        assert!(
            routes
                .iter()
                .any(|r| r.in_msgs > 0 && r.in_bytes > 0 && r.out_bytes > 0)
        );
    }
}

#[test]
fn gatewayz_of_every_version_is_understood() {
    for version in VERSIONS {
        let gatewayz = parse_gatewayz(&fixture(version, "gatewayz")).unwrap();
        assert_eq!(gatewayz.outbound.len(), 1);
        let out = &gatewayz.outbound[0];
        assert_eq!((&*out.cluster, &*out.ip, out.port), ("B", "127.0.0.3", 7222));
        assert_eq!(out.remote_id.len(), 56);
        assert!(out.out_msgs > 0);
        assert_eq!(gatewayz.inbound.len(), usize::from(version != "2.15.1"));
    }
}

#[test]
fn accstatz_of_every_version_is_understood() {
    for version in VERSIONS {
        let read = parse_accstatz(&fixture(version, "accstatz"), "SYS").unwrap();
        assert_eq!(read.server_id.len(), 56);
        assert_eq!((read.accounts, read.active_accounts), (4, 1), "{version}");
        let system = read.system.unwrap();
        assert_eq!((system.clients, system.slow_consumers), (0, 0));
        assert!(
            system.sent.msgs >= 7 && system.sent.bytes > 5_000,
            "{version}: {system:?}"
        );
        let old = version == "2.9.10";
        assert_eq!(system.received.msgs == 0, old, "2.9 books what routes bring on $G");
        let other = parse_accstatz(&fixture(version, "accstatz"), "$SYS").unwrap();
        assert_eq!(other.system, None, "no such account is not an account without traffic");
    }
}

#[test]
fn an_account_without_good_counters_is_no_account() {
    let read = |counters: &str| {
        let body = format!(r#"{{"server_id":"N","account_statz":[{{"acc":"S","total_conns":2,{counters}}},7,null]}}"#);
        parse_accstatz(body.as_bytes(), "S").unwrap()
    };
    let good = read(r#""sent":{"msgs":18446744073709551615,"bytes":1},"received":{"msgs":0,"bytes":0}"#);
    assert_eq!(good.system.unwrap().sent.msgs, u64::MAX);
    for bad in [
        r#""sent":{"msgs":1,"bytes":1}"#,
        r#""sent":{"msgs":-1,"bytes":1},"received":{"msgs":0,"bytes":0}"#,
        r#""sent":{"msgs":1e30,"bytes":1},"received":{"msgs":0,"bytes":0}"#,
        r#""sent":[],"received":{"msgs":0,"bytes":0}"#,
    ] {
        let read = read(bad);
        assert_eq!((read.system, read.active_accounts), (None, 1), "{bad}");
    }
    assert_eq!(
        parse_accstatz(&fixture("2.15.1", "routez"), "SYS"),
        Err(ParseError::Missing("account_statz"))
    );
}

#[test]
fn healthz_is_ok_only_with_200_and_ok() {
    let ok = fixture("2.9.10", "healthz");
    assert!(parse_healthz(200, &ok).unwrap().ok);
    assert!(!parse_healthz(503, &ok).unwrap().ok);
    let no = parse_healthz(500, br#"{"status":"error","error":"server is not listening"}"#).unwrap();
    assert_eq!((no.ok, no.detail.as_str()), (false, "server is not listening"));
    assert!(!parse_healthz(200, br#"{"status":"unavailable"}"#).unwrap().ok);
}

#[test]
fn json_of_something_else_is_not_a_servers() {
    for body in ["{}", "[]", "5", "null", r#"{"server_id":""}"#, r#"["a","b","c","d"]"#] {
        assert!(
            matches!(parse_varz(body.as_bytes()), Err(ParseError::Missing(_))),
            "{body}"
        );
        assert!(
            matches!(parse_routez(body.as_bytes()), Err(ParseError::Missing(_))),
            "{body}"
        );
        assert!(
            matches!(parse_gatewayz(body.as_bytes()), Err(ParseError::Missing(_))),
            "{body}"
        );
        assert!(
            matches!(parse_healthz(200, body.as_bytes()), Err(ParseError::Missing(_))),
            "{body}"
        );
    }
}

#[test]
fn no_list_of_routes_is_not_an_empty_list_of_routes() {
    let varz = fixture("2.10.26", "varz");
    assert_eq!(parse_routez(&varz), Err(ParseError::Missing("routes")));
    assert_eq!(parse_gatewayz(&varz), Err(ParseError::Missing("outbound_gateways")));
    assert_eq!(parse_routez(br#"{"server_id":"N","routes":[]}"#), Ok(vec![]));
    assert_eq!(
        parse_routez(br#"{"server_id":"N","routes":null}"#),
        Err(ParseError::Missing("routes"))
    );
}

#[test]
fn a_cut_off_answer_is_told_from_garbage() {
    let whole = fixture("2.15.1", "routez");
    let end = whole.iter().rposition(|b| *b == b'}').unwrap();
    for cut in 1..end {
        assert_eq!(parse_routez(&whole[..cut]), Err(ParseError::CutOff(cut)));
    }
    for garbage in [&b"<html><body>hi</body></html>"[..], b"", b"\xff\xfe\x00", b"NaN"] {
        assert!(matches!(parse_varz(garbage), Err(ParseError::NotJson(_))));
    }
}

#[test]
fn odd_values_are_missing_values() {
    let routes = parse_routez(
        br#"{"server_id":"N","routes":[
            {"remote_id":"P","rid":-1,"port":99999,"in_msgs":-5,"out_msgs":null,"in_bytes":1e30,"ip":7,"account":""},
            {"rid":3}, null, 5, {"remote_id":null}]}"#,
    );
    let route = Route {
        remote_id: "P".into(),
        ..Route::default()
    };
    assert_eq!(routes, Ok(vec![route]));
    let varz = parse_varz(
        br#"{"server_id":"N","version":"2","cluster":[],"gateway":{"gateways":{}},"mem":"1","jetstream":{}}"#,
    );
    assert_eq!(varz.map(|v| (v.cluster, v.mem, v.jetstream)), Ok((None, 0, false)));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Every place in `value` that can be replaced.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let mut into = |key: String, inner: &Value| {
        let at = format!("{at}/{key}");
        all.push(at.clone());
        places(inner, &at, all);
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, inner)| into(key.replace('~', "~0").replace('/', "~1"), inner)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, inner)| into(i.to_string(), inner)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), status: u16) {
        let _ = (parse_varz(&body), parse_routez(&body), parse_gatewayz(&body), parse_healthz(status, &body));
        let _ = parse_accstatz(&body, "SYS");
    }

    #[test]
    fn arbitrary_json_never_panics(body in any_json(), status: u16) {
        let body = body.to_string().into_bytes();
        let _ = (parse_varz(&body), parse_routez(&body), parse_gatewayz(&body), parse_healthz(status, &body));
        let _ = parse_accstatz(&body, "SYS");
    }

    /// Whatever stands in any one place of a real answer, the rest is still read.
    #[test]
    fn one_strange_field_costs_one_field(version in 0..3usize, pick: prop::sample::Index, strange in any_json()) {
        for endpoint in ["varz", "routez", "gatewayz", "accstatz"] {
            let mut value: Value = serde_json::from_slice(&fixture(VERSIONS[version], endpoint)).unwrap();
            let mut all = Vec::new();
            places(&value, "", &mut all);
            let place = pick.get(&all);
            *value.pointer_mut(place).unwrap() = strange.clone();
            let body = value.to_string().into_bytes();
            let needed =
                ["/server_id", "/version", "/routes", "/outbound_gateways", "/inbound_gateways", "/account_statz"];
            let read = match endpoint {
                "varz" => parse_varz(&body).map(drop),
                "routez" => parse_routez(&body).map(drop),
                "accstatz" => parse_accstatz(&body, "SYS").map(drop),
                _ => parse_gatewayz(&body).map(drop),
            };
            prop_assert!(read.is_ok() || needed.contains(&place.as_str()), "{place}: {read:?}");
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_recursed_into() {
    let body = format!(r#"{{"server_id":"N","x":{}"#, "[".repeat(100_000));
    assert!(parse_varz(body.as_bytes()).is_err());
    assert!(parse_varz(json!({"server_id": "N", "version": "2"}).to_string().as_bytes()).is_ok());
}
