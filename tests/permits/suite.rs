//! What every register keeps to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nats_watchdog::adapters::store::edit::edit;
use nats_watchdog::adapters::store::register::Register;
use nats_watchdog::core::agent::event::Action;
use nats_watchdog::core::ids::{HostName, Mono, Now, Region, Wall};
use nats_watchdog::core::permit::StoreError;
use nats_watchdog::core::permit::document::{Document, Scope};
use nats_watchdog::core::permit::machine::{Machine, Told};
use nats_watchdog::core::permit::policy::{Arbiter, Permits};
use nats_watchdog::core::permit::rules::{self, By, Claim};

use crate::faults::Faulty;

/// Fresh registers that [`conforms`] asks for.
pub(crate) const REGISTERS: usize = 10;

pub(crate) async fn conforms<R: Register + 'static>(mut fresh: impl FnMut() -> R) {
    an_empty_one_has_nothing_and_takes_one_first(fresh()).await;
    a_swap_wants_the_newest_revision(fresh()).await;
    of_many_at_once_one_wins(fresh()).await;
    what_is_no_document_is_never_overwritten(fresh()).await;
    for fault in 0..6 {
        a_permit_is_taken_used_and_given_back(fresh(), fault).await;
    }
}

async fn an_empty_one_has_nothing_and_takes_one_first(r: impl Register) {
    assert_eq!(r.get().await, Ok(None));
    let first = r.compare_and_swap(b"one".to_vec(), None).await.unwrap();
    let stored = r.get().await.unwrap().unwrap();
    assert_eq!((stored.revision, stored.bytes.as_slice()), (first, &b"one"[..]));
    assert_eq!(
        r.compare_and_swap(b"two".to_vec(), None).await,
        Err(StoreError::Conflict)
    );
}

async fn a_swap_wants_the_newest_revision(r: impl Register) {
    let first = r.compare_and_swap(b"one".to_vec(), None).await.unwrap();
    let second = r.compare_and_swap(b"two\n\0\xff".to_vec(), Some(first)).await.unwrap();
    assert!(second > first, "revisions count upwards");
    assert_eq!(
        r.compare_and_swap(b"three".to_vec(), Some(first)).await,
        Err(StoreError::Conflict)
    );
    assert_eq!(r.get().await.unwrap().unwrap().bytes, b"two\n\0\xff");
}

async fn of_many_at_once_one_wins(r: impl Register + 'static) {
    let r = Arc::new(r);
    let first = r.compare_and_swap(b"0".to_vec(), None).await.unwrap();
    let tasks: Vec<_> = (0..8u8)
        .map(|i| {
            let r = r.clone();
            tokio::spawn(async move { r.compare_and_swap(vec![i], Some(first)).await })
        })
        .collect();
    let mut won = Vec::new();
    for (i, t) in tasks.into_iter().enumerate() {
        match t.await.unwrap() {
            Ok(_) => won.push(i),
            Err(e) => assert_eq!(e, StoreError::Conflict),
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(usize::from(r.get().await.unwrap().unwrap().bytes[0]), won[0]);
}

/// Whoever wrote it, by whatever store: an agent takes no permit, an operator changes nothing, both say why, and the bytes
/// stay as they are.
async fn what_is_no_document_is_never_overwritten(r: impl Register) {
    let host = HostName::new("h").unwrap();
    let region = Region::new("r").unwrap();
    let large = [b"{\"v\":1,\"x\":\"".to_vec(), vec![b'x'; 200_000], b"\"}".to_vec()].concat();
    let past = br#"{"v":1,"holders":[{"host":"x","region":"r","why":"w","token":"t","phase":"acting","since":0,"renewed":0,"until":1}]}"#;
    let future = br#"{"v":1,"pauses":[{"scope":"fleet","who":"ann","why":"x","since":1e15,"until":1.8e19}]}"#;
    let mut revision = None;
    for (n, (bytes, said)) in [
        (&b"{\"v\":7,\"holders\":\"a new shape\"}"[..], "of version 7"),
        (b"by hand", "the permit document cannot be read"),
        (b"\xff\xfe\0", "the permit document cannot be read"),
        (b"{\"v\":1", "the permit document cannot be read"),
        (b"[]", "the permit document cannot be read"),
        (b"{\"v\":1,\"holders\":{}}", "the permit document cannot be read"),
        (
            b"{\"v\":1,\"pauses\":[{\"scope\":\"fleet\",\"who\":\"a\",\"why\":\"b\",\"since\":-1}]}",
            "is no Unix time",
        ),
        (&large, "bytes, at most"),
        (past, "x took a permit and has not been heard since 1970"),
        (future, "paused by ann: x (until 9999"),
    ]
    .into_iter()
    .enumerate()
    {
        revision = Some(r.compare_and_swap(bytes.to_vec(), revision).await.unwrap());
        let policy = Permits {
            arbiter: Arbiter::Register,
            ..Permits::default()
        };
        let begin = Instant::now();
        let mut m = Machine::new(policy, host.clone(), region.clone(), n as u64, Mono::default());
        let claim = Claim {
            host: host.clone(),
            region: region.clone(),
            cluster: String::new(),
            why: "t".to_owned(),
            ordered: false,
            part: None,
            token: m.token(),
        };
        let mut out = Vec::new();
        m.take(claim, now(begin), &mut out);
        let Told::Refused(refusal) = until_told(&mut m, &r, out, begin).await else {
            panic!("{said}: a permit was taken, or nothing told")
        };
        assert!(refusal.to_string().contains(said), "{refusal}");
        let readable = Document::decode(bytes).is_ok();
        let by = By {
            who: "ann".to_owned(),
            why: String::new(),
        };
        if !readable {
            let wall = now(begin).wall;
            let pause = edit(&r, |doc| Ok((rules::pause(doc, Scope::Fleet, &by, None, wall), ()))).await;
            let error = pause.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let there = r.get().await.unwrap().unwrap();
        assert_eq!(Some(there.revision), revision, "{said}");
        assert!(there.bytes == bytes, "{said}: overwritten");
    }
}

fn now(begin: Instant) -> Now {
    let wall = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Now {
        mono: Mono(begin.elapsed()),
        wall: Wall(wall),
    }
}

/// The agents' own machine on this register, with one fault of each kind in each step.
async fn a_permit_is_taken_used_and_given_back(r: impl Register, fault: u32) {
    let r = Faulty::new(r);
    let host = HostName::new("h").unwrap();
    let region = Region::new("r").unwrap();
    let policy = Permits {
        arbiter: Arbiter::Register,
        spacing: Duration::ZERO,
        ..Permits::default()
    };
    let begin = Instant::now();
    let mut m = Machine::new(policy, host.clone(), region.clone(), 1, Mono::default());
    let token = m.token();
    let claim = Claim {
        host,
        region,
        cluster: String::new(),
        why: "t".to_owned(),
        ordered: false,
        part: None,
        token,
    };
    for step in [Told::Taken, Told::Fenced, Told::Released] {
        let f = &r.faults;
        let strikes = [
            None,
            Some(&f.lost_replies),
            Some(&f.conflicts),
            Some(&f.delays),
            Some(&f.stale_reads),
            Some(&f.gone),
        ];
        if let Some(fault) = strikes[fault as usize] {
            fault.store(2, Ordering::SeqCst);
        }
        let mut out = Vec::new();
        match step {
            Told::Taken => m.take(claim.clone(), now(begin), &mut out),
            Told::Fenced => m.fence(now(begin), &mut out),
            _ => m.release(now(begin), &mut out),
        }
        assert_eq!(until_told(&mut m, &r, out, begin).await, step, "fault {fault}");
        // What is really there, behind the faults.
        let there = r.inner.get().await.unwrap().unwrap();
        let held = Document::decode(&there.bytes).unwrap().holders.len();
        assert_eq!(
            held,
            usize::from(step != Told::Released),
            "fault {fault} after {step:?}"
        );
    }
}

async fn until_told<R: Register>(m: &mut Machine, r: &R, mut out: Vec<Action>, begin: Instant) -> Told {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let mut next = Vec::new();
        let mut told = None;
        for action in out.drain(..) {
            told = match action {
                Action::ReadPermits { ask } => {
                    let result = r.get().await;
                    m.on_read(ask, result, now(begin), &mut next)
                }
                Action::WritePermits { ask, bytes, expect } => {
                    let result = r.compare_and_swap(bytes, expect).await;
                    m.on_written(ask, result, now(begin), &mut next)
                }
                other => panic!("{other:?}"),
            };
        }
        if let Some(told) = told {
            return told;
        }
        if next.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Some(told) = m.tick(now(begin), &mut next) {
                return told;
            }
        }
        out = next;
    }
    panic!("nothing was told within 30 s");
}

/// Adds lines by compare and swap for a while; those whose write was confirmed.
pub(crate) async fn append(r: &impl Register, writer: u32, span: Duration) -> Vec<String> {
    let end = Instant::now() + span;
    let (mut confirmed, mut n) = (Vec::new(), 0);
    while Instant::now() < end {
        let Ok(stored) = r.get().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let line = format!("{writer}.{n}");
        n += 1;
        let expect = stored.as_ref().map(|s| s.revision);
        let mut bytes = stored.map(|s| s.bytes).unwrap_or_default();
        bytes.extend_from_slice(format!("{line}\n").as_bytes());
        if r.compare_and_swap(bytes, expect).await.is_ok() {
            confirmed.push(line);
        }
    }
    confirmed
}

pub(crate) fn entries(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}
