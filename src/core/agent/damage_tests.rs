//! A ledger that was cut in half, is garbage, or tells of the future: the limits count as used, and a human is told.

use super::*;

const WHY: &str = "/var/lib/watchdog/ledger.json is damaged (EOF) and not used";

fn damaged(change: impl Fn(&mut Remediation)) -> Fleet {
    let restored = Restored {
        ledger: Some(Err(WHY.to_owned())),
        ..Restored::default()
    };
    Fleet::with(6, change, restored)
}

fn to_0(f: &Fleet) -> Vec<&str> {
    f.acts.iter().filter(|a| a.1 == 0).map(|a| a.2.as_str()).collect()
}

#[test]
fn after_a_damaged_ledger_a_reset_waits_for_its_limit_and_no_longer() {
    let mut f = damaged(|p| p.mode = Mode::Restart);
    assert_eq!(f.cores[0].ledger.left(ActKind::Reset, 20, f.now()), 0);
    // So that the sender heals it meanwhile no more than its receiver.
    f.stalled.insert((3, 0));
    f.cores[3].reset_unavailable = Some("not here".to_owned());
    f.run(160.0);
    assert_eq!(to_0(&f), Vec::<&str>::new());
    let fault = &f.cores[0].snapshot(f.now()).faults[0];
    assert!(
        fault.remedy.starts_with("blocked: the limit of 20 resets"),
        "{}",
        fault.remedy
    );
    f.run(30.0);
    assert_eq!(to_0(&f), ["reset route connection 3 to b3"]);
    assert_eq!(f.all_faults(), []);
}

#[test]
fn after_a_damaged_ledger_no_restart_is_made_and_a_human_is_told_what_to_do() {
    let mut f = damaged(|p| (p.mode, p.path_resets) = (Mode::Restart, false));
    // Before anything is wrong: in the history, in status, as a figure.
    let s = f.cores[0].snapshot(f.now());
    assert!(s.remediation.ledger_damaged);
    assert_eq!(s.remediation.blocking.len(), 2, "{:?}", s.remediation.blocking);
    let told = f.records.iter().filter(|(i, r)| *i == 0 && r.contains(WHY)).count();
    assert_eq!(told, 1, "{:?}", f.records);
    f.stalled.insert((3, 0));
    f.run(3550.0);
    assert_eq!(to_0(&f), Vec::<&str>::new());
    let s = f.cores[0].snapshot(f.now());
    let remedy = &s.faults[0].remedy;
    assert!(remedy.starts_with("gave up: what was done here before"), "{remedy}");
    for part in [WHY, "all limits count as used", "`watchdog resume`"] {
        assert!(remedy.contains(part), "{remedy}");
    }
    assert!(s.remediation.blocked["flapping"] > 0);
    // Nobody came, and by now nothing would be remembered anyway.
    f.run(100.0);
    assert_eq!(to_0(&f), ["restart"]);
    assert!(!f.cores[0].snapshot(f.now()).remediation.ledger_damaged);
}

#[test]
fn a_resume_ends_what_a_damaged_ledger_holds_but_not_the_limit() {
    let mut f = damaged(|p| (p.mode, p.path_resets) = (Mode::Restart, false));
    f.stalled.insert((3, 0));
    f.run(60.0);
    f.signed_resume(0);
    f.run(60.0);
    let s = f.cores[0].snapshot(f.now());
    assert!(!s.remediation.ledger_damaged);
    assert!(
        s.faults[0].remedy.starts_with("blocked: the limit of 2 restarts"),
        "{}",
        s.faults[0].remedy
    );
    f.run(1700.0);
    assert_eq!(to_0(&f), ["restart"]);
}

#[test]
fn the_next_process_knows_of_the_damage_and_of_its_reason_too() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.stalled.insert((0, 3));
    f.run(30.0);
    assert_eq!(f.resets(), 1);
    let half = f.disk[&3].len() / 2;
    f.disk.get_mut(&3).unwrap().truncate(half);
    f.agent_dies(3);
    // Another one, which finds no damaged file any more.
    f.agent_dies(3);
    let core = &f.cores[3];
    assert_eq!(core.ledger.left(ActKind::Restart, 2, f.now()), 0);
    assert_eq!(core.ledger.left(ActKind::Reset, 20, f.now()), 0);
    let s = core.snapshot(f.now());
    assert!(s.remediation.ledger_damaged);
    let why = &s.remediation.blocking[1];
    assert!(why.contains("cannot be read (EOF while parsing"), "{why}");
}

/// Every time, and every count, as a clock that was wrong or a bad disk may have left it.
fn twisted(text: &str, to: u64) -> String {
    fn twist(v: &mut serde_json::Value, to: u64) {
        match v {
            serde_json::Value::Object(m) => {
                for (key, v) in m.iter_mut() {
                    match key.as_str() {
                        "secs" | "at_ms" => *v = to.into(),
                        "resets" | "restarts" => *v = u32::try_from(to).unwrap_or(u32::MAX).into(),
                        _ => twist(v, to),
                    }
                }
            }
            serde_json::Value::Array(a) => a.iter_mut().for_each(|v| twist(v, to)),
            _ => {}
        }
    }
    let mut v = serde_json::from_str(text).unwrap();
    twist(&mut v, to);
    v.to_string()
}

#[test]
fn a_ledger_that_tells_of_the_future_counts_as_used_and_breaks_nothing() {
    for to in [u64::MAX, 4_000_000_000] {
        let mut f = Fleet::with(
            6,
            |p| (p.mode, p.path_resets) = (Mode::Restart, false),
            Restored::default(),
        );
        f.stubborn = true;
        f.stalled.insert((0, 3));
        f.run(60.0);
        assert_eq!(f.acts.len(), 1);
        let future = twisted(&f.disk[&3], to);
        f.disk.insert(3, future);
        f.agent_dies(3);
        let (core, now) = (&f.cores[3], f.now());
        for (kind, per_hour) in [(ActKind::Restart, 2), (ActKind::Restart, 4)] {
            assert_eq!(core.ledger.left(kind, per_hour, now), 0, "{to}");
            assert!(core.ledger.wait(kind, per_hour, now) <= Duration::from_secs(3600 / u64::from(per_hour)));
        }
        let last = core.snapshot(now).remediation.last_restart.unwrap();
        assert!(last <= now.wall.as_secs_f64(), "{last}");
        f.run(200.0);
        assert_eq!(f.acts.len(), 1, "{to}: {:?}", f.acts);
        // An hour is the most that any of it can hold, by this process's own clock.
        let core = &f.cores[3];
        let later = now_at(f.now + Duration::from_secs(3600));
        assert_eq!(core.ledger.left(ActKind::Restart, 2, later), 2, "{to}");
        assert_eq!(core.ledger.memory.tried("route:a0>b3", later), None);
    }
}

#[test]
fn no_cut_of_a_ledger_is_read_as_fewer_acts() {
    let mut f = Fleet::with(
        6,
        |p| (p.mode, p.path_resets) = (Mode::Restart, false),
        Restored::default(),
    );
    f.stalled.insert((0, 3));
    f.run(60.0);
    let whole = f.disk[&3].clone();
    let read = |text: &str| serde_json::from_str::<Ledger>(text);
    assert!(read(&whole).is_ok());
    for n in 0..whole.len() {
        assert!(read(&whole[..n]).is_err(), "{n} of {}", whole.len());
    }
    for garbage in [
        "{}",
        "null",
        "[]",
        "0",
        "{\"full_at\":{}}",
        "{\"full_at\":{},\"acts\":[],\"later\":1}",
    ] {
        assert!(read(garbage).is_err(), "{garbage}");
    }
}
