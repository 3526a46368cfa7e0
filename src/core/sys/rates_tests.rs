use proptest::prelude::*;

use super::*;
use crate::core::sys::reading::AccountTraffic;

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

fn accstatz(id: &str, received: u64, sent: u64) -> Accstatz {
    let tally = |msgs: u64| Tally {
        msgs,
        bytes: msgs.saturating_mul(100),
    };
    Accstatz {
        server_id: id.to_owned(),
        system: Some(AccountTraffic {
            received: tally(received),
            sent: tally(sent),
            ..AccountTraffic::default()
        }),
        ..Accstatz::default()
    }
}

fn route(rid: u64, peer: &str, msgs: u64) -> Route {
    Route {
        rid,
        remote_id: peer.into(),
        account: Some("$SYS".into()),
        in_msgs: msgs,
        in_bytes: msgs * 100,
        ..Route::default()
    }
}

#[test]
fn a_rate_is_what_came_between_two_readings() {
    let mut r = Rates::default();
    assert_eq!(
        r.on_account(&accstatz("A", 1_000, 0), true, at(0)),
        None,
        "one reading is no rate"
    );
    let step = r.on_account(&accstatz("A", 1_050, 20), true, at(2_000)).unwrap();
    assert_eq!(step.source, Source::Account);
    assert!((step.received.unwrap().amount.msgs - 50.0).abs() < 1e-9);
    assert!((r.received(at(2_000)).unwrap().msgs - 25.0).abs() < 1e-9);
    assert!((r.sent(at(2_000)).unwrap().msgs - 10.0).abs() < 1e-9);
    assert_eq!(r.source(at(11_999)), Some(Source::Account));
    assert_eq!(r.source(at(12_000)), None, "old readings are in no use");
    assert_eq!(
        r.age(at(60_000)),
        Some(Duration::from_secs(58)),
        "and their age is told"
    );
}

#[test]
fn a_restart_a_wrap_and_a_step_back_in_time_make_no_rate() {
    let mut r = Rates::default();
    r.on_account(&accstatz("A", 5_000, 0), true, at(0));
    r.on_account(&accstatz("A", 5_010, 0), true, at(2_000));
    assert_eq!(
        r.on_account(&accstatz("B", 70, 0), true, at(4_000)),
        None,
        "another process"
    );
    assert_eq!(
        r.on_account(&accstatz("B", 3, 0), true, at(6_000)),
        None,
        "a lower count"
    );
    assert_eq!(
        r.on_account(&accstatz("B", u64::MAX, 0), true, at(8_000)),
        None,
        "more than can be"
    );
    assert_eq!(
        r.on_account(&accstatz("B", 13, 0), true, at(10_000)),
        None,
        "the wrap back"
    );
    assert_eq!(
        r.on_account(&accstatz("B", 14, 0), true, at(9_000)),
        None,
        "time went back"
    );
    let step = r.on_account(&accstatz("B", 15, 0), true, at(12_000)).unwrap();
    assert!((step.received.unwrap().amount.msgs - 2.0).abs() < 1e-9);
    let (received, _) = r.totals();
    assert!(
        (received.msgs - 12.0).abs() < 1e-9,
        "totals have only what was believed: {received:?}"
    );
    let odd: Vec<_> = r.odd_readings().iter().map(|(o, n)| (o.name(), *n)).collect();
    assert_eq!(odd, [("reset", 3), ("garbage", 1), ("backwards", 1)]);
}

#[test]
fn a_route_that_reconnects_counts_from_its_own_beginning() {
    let mut r = Rates::default();
    r.on_routes("A", "$SYS", &[route(1, "P", 10_000), route(2, "Q", 500)], at(0));
    let step = r
        .on_routes("A", "$SYS", &[route(1, "P", 10_004), route(9, "Q", 6)], at(2_000))
        .unwrap();
    assert!((step.received.unwrap().amount.msgs - 10.0).abs() < 1e-9);
    let top: Vec<&str> = r.top(5, at(2_000)).into_iter().map(|(p, _)| p).collect();
    assert_eq!(top, ["Q", "P"]);
    assert_eq!(
        r.on_routes("B", "$SYS", &[route(1, "P", 3)], at(4_000)),
        None,
        "another process"
    );
}

#[test]
fn before_2_10_what_is_counted_comes_first_and_the_account_tells_what_is_sent() {
    let mut r = Rates::default();
    let peers = |n: u64| {
        BTreeMap::from([(
            "P".to_owned(),
            Tally {
                msgs: n,
                bytes: n * 600,
            },
        )])
    };
    r.on_account(&accstatz("A", 0, 100), false, at(0));
    let step = r.on_account(&accstatz("A", 0, 130), false, at(2_000)).unwrap();
    assert_eq!((step.source, step.received), (Source::AccountSent, None));
    r.on_counted(1, &peers(5), at(2_500));
    let step = r.on_counted(1, &peers(9), at(3_500)).unwrap();
    assert_eq!(step.source, Source::Counted);
    assert!((step.received.unwrap().amount.msgs - 4.0).abs() < 1e-9);
    assert_eq!(
        r.on_account(&accstatz("A", 0, 150), false, at(4_000)),
        None,
        "not judged twice"
    );
    assert!(r.sent(at(4_000)).is_some());
    assert_eq!(
        r.on_counted(2, &peers(2), at(4_500)),
        None,
        "a new subscription begins anew"
    );
    assert!(r.on_counted(2, &peers(3), at(5_500)).is_some());
}

#[test]
fn where_jetstream_shares_the_account_what_is_counted_by_subject_comes_first() {
    let mut r = Rates::default();
    let peers = |n| BTreeMap::from([("A".to_owned(), Tally { msgs: n, bytes: n })]);
    r.set_shared(true);
    r.on_account(&accstatz("A", 0, 0), true, at(0));
    assert!(r.on_account(&accstatz("A", 9_000, 9_000), true, at(1_000)).is_some());
    assert!(r.is_shared(), "nothing else is there");
    r.on_counted(1, &peers(1), at(1_500));
    let step = r.on_counted(1, &peers(2), at(2_500)).unwrap();
    assert_eq!(
        (step.source, step.received.unwrap().amount.msgs),
        (Source::Counted, 1.0)
    );
    assert!(!r.is_shared());
    assert_eq!(r.on_account(&accstatz("A", 18_000, 18_000), true, at(3_000)), None);
    r.set_shared(false);
    let step = r.on_account(&accstatz("A", 18_001, 18_001), true, at(4_000)).unwrap();
    assert_eq!(
        step.source,
        Source::Account,
        "without JetStream the counters are the better ones"
    );
}

proptest! {
    /// Whatever comes, in whatever order of time: no panic, no negative and no giant rate.
    #[test]
    fn garbage_makes_no_negative_and_no_giant_rate(
        readings in prop::collection::vec((0u8..4, any::<u64>(), any::<u64>(), 0u64..30_000, 0u8..3), 1..60)
    ) {
        let mut r = Rates::default();
        for (kind, a, b, t, id) in readings {
            let (id, now) = (format!("S{id}"), at(t));
            let step = match kind {
                0 => r.on_account(&accstatz(&id, a, b), true, now),
                1 => r.on_account(&accstatz(&id, a, b), false, now),
                2 => r.on_routes(&id, "$SYS", &[route(a % 5, &id, b / 1000)], now),
                _ => r.on_counted(a % 3, &BTreeMap::from([(id, Tally { msgs: a, bytes: b })]), now),
            };
            let flows = step.into_iter().flat_map(|s| [s.received, s.sent]).flatten();
            for flow in flows {
                let secs = flow.over.as_secs_f64();
                prop_assert!(secs > 0.0 && flow.amount.msgs >= 0.0 && flow.amount.bytes >= 0.0);
                prop_assert!(flow.amount.msgs / secs <= MOST_MSGS * 3.0 && flow.amount.bytes / secs <= MOST_BYTES * 3.0);
            }
            let rate = r.received(now).unwrap_or_default();
            prop_assert!(rate.msgs.is_finite() && rate.msgs >= 0.0);
        }
    }
}
