use super::super::roll::{Ceiling, least_stagger, roll};
use super::*;

const OLD: ServerVersion = ServerVersion::new(2, 9, 10);
const POOLED: ServerVersion = ServerVersion::new(2, 10, 26);

fn near(what: f64, expected: f64, part: f64) -> bool {
    (what - expected).abs() <= expected.abs() * part
}

#[test]
fn one_statsz_of_each_other_server_per_interval() {
    let quiet = quiet(&Shape::new(31, 1, POOLED));
    assert!(near(quiet.received.msgs_per_second, 3.0, 1e-9));
    let old = super::quiet(&Shape::new(31, 1, OLD));
    assert!(near(old.received.msgs_per_second, 1.0, 1e-9));
    assert_eq!(quiet.received, quiet.sent);
}

#[test]
fn a_pool_makes_statsz_nearly_four_times_as_large() {
    let pooled = Shape::new(24, 1, POOLED);
    let alone = Shape {
        pool_size: -1,
        ..pooled.clone()
    };
    assert!(near(statsz_bytes(&pooled), 10_800.0, 0.15), "{}", statsz_bytes(&pooled));
    assert!(statsz_bytes(&pooled) > 3.0 * statsz_bytes(&alone));
    assert!(
        near(statsz_bytes(&Shape::new(24, 1, OLD)), 3_200.0, 0.15),
        "{}",
        statsz_bytes(&Shape::new(24, 1, OLD))
    );
}

#[test]
fn clusters_make_statsz_smaller_and_not_fewer() {
    let one = Shape::new(40, 1, POOLED);
    let four = Shape {
        clusters: 4,
        ..one.clone()
    };
    assert_eq!(
        quiet(&one).received.msgs_per_second,
        quiet(&four).received.msgs_per_second
    );
    assert!(statsz_bytes(&four) < statsz_bytes(&one) / 2.5);
}

/// Measured: 1,446 and 1,473 deliveries at 20 servers of 2.9.10, its 19 of SHUTDOWN not counted.
#[test]
fn a_restart_of_an_old_server_makes_four_storms() {
    let cost = restart(&Shape::new(20, 1, OLD));
    assert!(near(cost.total.msgs - 19.0, 1_460.0, 0.05), "{}", cost.total.msgs);
    let new = restart(&Shape::new(20, 1, POOLED));
    assert!(new.total.msgs < cost.total.msgs / 2.5);
    assert!(new.into_each.msgs < 2.0 * 19.0);
}

#[test]
fn a_client_costs_a_broadcast_more_on_the_old_and_a_lame_duck_one_more() {
    let of = |version, clients, lame_duck| {
        let shape = Shape {
            clients_per_server: clients,
            lame_duck,
            ..Shape::new(11, 1, version)
        };
        restart(&shape).total.msgs
    };
    assert!(near(of(POOLED, 100, false) - of(POOLED, 0, false), 900.0, 1e-9));
    assert!(near(of(POOLED, 100, true) - of(POOLED, 0, true), 2_000.0, 1e-9));
    assert!(near(of(OLD, 100, false) - of(OLD, 0, false), 1_800.0, 1e-9));
}

#[test]
fn what_all_receive_is_what_all_send() {
    for version in [OLD, POOLED] {
        for clusters in [1, 3] {
            let shape = Shape {
                clients_per_server: 7,
                accounts: 2,
                ..Shape::new(30, clusters, version)
            };
            let cost = restart(&shape);
            let received = cost.into_each.msgs * 29.0 + cost.into_restarted.msgs;
            assert!(near(received, cost.total.msgs, 1e-9), "{received} {}", cost.total.msgs);
        }
    }
}

#[test]
fn fleets_that_are_not_there_cost_nothing_and_break_nothing() {
    for servers in [0, 1] {
        for clusters in [0, 1, 5] {
            let shape = Shape::new(servers, clusters, POOLED);
            assert_eq!(restart(&shape).total.msgs, 0.0);
            assert_eq!(quiet(&shape).received.bytes_per_second, 0.0);
            assert!(least_stagger(&shape, Ceiling::TimesQuiet(2.0)).is_err());
        }
    }
}

#[test]
fn a_lower_ceiling_takes_a_longer_stagger_and_none_keeps_less_than_quiet() {
    let shape = Shape::new(100, 1, POOLED);
    let twice = least_stagger(&shape, Ceiling::TimesQuiet(1.2)).unwrap();
    let more = least_stagger(&shape, Ceiling::TimesQuiet(1.1)).unwrap();
    assert!(more > twice && twice >= restart(&shape).lasts);
    let quiet = quiet(&shape).received.bytes_per_second;
    for bad in [quiet, quiet / 2.0, 0.0, -1.0, f64::NAN] {
        assert!(least_stagger(&shape, Ceiling::BytesPerSecond(bad)).is_err(), "{bad}");
    }
    let text = least_stagger(&shape, Ceiling::TimesQuiet(1.0)).unwrap_err().to_string();
    assert!(text.contains("raise the ceiling"), "{text}");
}

#[test]
fn a_roll_has_one_gap_less_than_servers() {
    let shape = Shape::new(10, 1, POOLED);
    let roll = roll(&shape, Duration::from_secs(30), Duration::from_secs(7));
    assert_eq!(roll.duration, Duration::from_secs(9 * 30 + 10 * 7));
    assert!(near(roll.total.msgs, 10.0 * restart(&shape).total.msgs, 1e-9));
}

#[test]
fn a_limit_of_one_a_second_is_the_worst_since_it_exists() {
    let new = worst_legal(&Shape::new(41, 1, POOLED));
    assert_eq!(new.msgs_per_second, 40.0);
    assert_eq!(worst_legal(&Shape::new(41, 1, OLD)).msgs_per_second, 1_600.0);
}
