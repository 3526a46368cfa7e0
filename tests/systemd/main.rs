//! The shipped unit, user and polkit rule under a real systemd, with a real nats-server of another user.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::net::SocketAddr;
use std::time::Duration;

use machine::{Machine, text, within};
use nats_watchdog::adapters::host::sockets::{Match, ServerEndpoint, capability, destroy, find};
use nats_watchdog::adapters::host::systemd::{ActiveState, JobResult, LoadState, Systemd, SystemdError};
use serde_json::Value;

const SERVER: &str = "nats-server.service";

#[test]
fn the_agent_starts_as_its_own_user_and_says_ready() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    // Type=notify: active means that READY came.
    assert_eq!(machine.show("watchdog", "ActiveState"), "active");
    let pid = machine.show("watchdog", "MainPID");
    assert_eq!(text(&machine.run(&["ps", "-o", "user=", "-p", &pid])), "watchdog");
    let state = text(&machine.run(&["stat", "-c", "%U %a", "/var/lib/watchdog"]));
    assert_eq!(state, "watchdog 700");
}

/// In the sandbox and with the rights of the shipped unit it reads the server, and can reset sockets.
#[test]
fn the_agent_sees_its_server_and_takes_a_new_mode_on_reload() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let status = || {
        let output = machine.run_as_watchdog(&["watchdog", "status", "--output", "json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let is = |what: &str, at: &str, value: Value| {
        let there = within(Duration::from_secs(20), || {
            (status().pointer(at) == Some(&value)).then_some(())
        });
        if there.is_none() {
            machine.fail(&format!("{what}: {at} is not {value} in {}", status()));
        }
    };
    is("reads its server", "/server/up", true.into());
    is("a fresh agent", "/remediation/mode", "observe".into());
    is("may reset sockets", "/remediation/reset_unavailable", Value::Null);
    is("keeps its state", "/agent/state_error", Value::Null);

    let append = |text: &str| {
        let command = format!("echo '{text}' >>/etc/watchdog/watchdog.toml && systemctl reload watchdog");
        assert!(machine.run(&["sh", "-c", &command]).status.success());
    };
    append("[remediation]\nmode = \"reset\"");
    is("takes over a new mode", "/remediation/mode", "reset".into());
    append("tries = \"many\"");
    let told = within(Duration::from_secs(10), || {
        let journal = text(&machine.run(&["journalctl", "-o", "cat", "-u", "watchdog"]));
        journal.contains("nothing changed").then_some(())
    });
    assert!(told.is_some(), "a bad file is not told");
    is("keeps the mode that it had", "/remediation/mode", "reset".into());
    assert_eq!(machine.show("watchdog", "NRestarts"), "0");
}

/// A configuration that cannot work is told once, not tried again and again.
#[test]
fn an_agent_with_a_wrong_configuration_is_not_started_again() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.run(&[
        "sh",
        "-c",
        "echo nonsense >>/etc/watchdog/watchdog.toml; systemctl restart watchdog",
    ]);
    assert_eq!(machine.show("watchdog", "ActiveState"), "failed");
    assert_eq!(machine.show("watchdog", "ExecMainStatus"), "2");
    assert_eq!(machine.show("watchdog", "NRestarts"), "0");
}

#[test]
fn an_agent_that_hangs_is_started_anew() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let pid = machine.show("watchdog", "MainPID");
    // Longer than its WatchdogSec: an agent that is alive is left alone.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(machine.show("watchdog", "MainPID"), pid);
    machine.run(&["kill", "-STOP", &pid]);
    let again = within(Duration::from_secs(15), || {
        let now = machine.show("watchdog", "MainPID");
        let active = machine.show("watchdog", "ActiveState") == "active";
        (active && now != pid && now != "0").then_some(())
    });
    if again.is_none() {
        machine.fail("the agent hangs and systemd leaves it");
    }
    assert_eq!(machine.show("watchdog", "NRestarts"), "1");
    let journal = text(&machine.run(&["journalctl", "-o", "cat", "-u", "watchdog"]));
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

#[test]
fn the_unit_is_hardened() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let report = text(&machine.run(&["systemd-analyze", "security", "--no-pager", "watchdog.service"]));
    let level: f64 = report
        .split("Overall exposure level for watchdog.service:")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| machine.fail(&report));
    assert!(level <= 2.5, "{report}");
}

#[test]
fn polkit_lets_the_agent_restart_the_server() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.run_in_the_sandbox("inside_the_server_is_restarted");
}

/// A lame duck ends with a clean exit, which `Restart=on-failure` leaves alone: whoever sends the signal starts it again.
#[test]
fn the_sandbox_lets_the_agent_drain_stop_and_start_the_server() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.run_in_the_sandbox("inside_the_server_is_drained_stopped_and_started");
}

/// A unit that systemd always starts again stays stopped while a hook runs: a stop is an order, and no end that is mended.
#[test]
fn a_unit_that_always_restarts_stays_stopped_for_a_hook() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let always = "mkdir -p /etc/systemd/system/nats-server.service.d && \
                  printf '[Service]\\nRestart=always\\n' >/etc/systemd/system/nats-server.service.d/always.conf && \
                  systemctl daemon-reload";
    assert!(machine.run(&["sh", "-c", always]).status.success());
    assert_eq!(machine.show(SERVER, "Restart"), "always");
    machine.run_in_the_sandbox("inside_a_stop_after_a_lame_duck_outlasts_restart_always");
}

#[test]
fn polkit_refuses_every_other_verb_and_unit() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let pid = machine.show(SERVER, "MainPID");
    let manager = [
        "busctl",
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    ];
    let call = |arguments: &[&str]| machine.run_as_watchdog(&[&manager, arguments].concat());
    for arguments in [
        &["ReloadUnit", "ss", SERVER, "replace"][..],
        &["StopUnit", "ss", "peer.service", "replace"],
        &["StartUnit", "ss", "peer.service", "replace"],
        &["KillUnit", "ssi", "peer.service", "all", "12"],
        &["RestartUnit", "ss", "peer.service", "replace"],
        &["RestartUnit", "ss", "watchdog.service", "replace"],
        &["Reload"],
    ] {
        let output = call(arguments);
        assert!(!output.status.success(), "{arguments:?} was allowed");
        let said = text(&output);
        let refused = said.contains("Access denied") || said.contains("authentication required");
        assert!(refused, "{arguments:?}: {said}");
    }
    assert_eq!(machine.show(SERVER, "MainPID"), pid);
    // The same way, so that the refusals above are not those of a broken call.
    let output = call(&["RestartUnit", "ss", SERVER, "replace"]);
    assert!(output.status.success(), "{}", text(&output));
    machine.run_in_the_sandbox("inside_another_unit_is_refused");
}

#[test]
fn the_sandbox_lets_the_agent_reset_a_route() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    let pid = machine.show(SERVER, "MainPID");
    machine.run_in_the_sandbox("inside_a_route_is_reset");
    assert_eq!(machine.show(SERVER, "MainPID"), pid);
}

// From here on: run inside the machine, by the tests above.

#[tokio::test]
#[ignore = "run inside the machine"]
async fn inside_a_stop_after_a_lame_duck_outlasts_restart_always() {
    let systemd = Systemd::new();
    let limit = Duration::from_secs(20);
    // Sooner than systemd's own restart, right at it, and after it.
    for wait in [0, 100, 600] {
        let before = systemd.unit_state(SERVER).await.unwrap();
        assert_eq!(before.active_state, ActiveState::Active);
        systemd.kill_unit(SERVER, 12).await.unwrap();
        let mut ended = false;
        for _ in 0..3_000 {
            ended = systemd.unit_state(SERVER).await.unwrap().main_pid != before.main_pid;
            if ended {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(ended, "the lame duck does not end");
        tokio::time::sleep(Duration::from_millis(wait)).await;
        assert_eq!(systemd.stop_unit(SERVER, limit).await.unwrap(), JobResult::Done);
        // While a hook would run.
        for _ in 0..30 {
            let stopped = systemd.unit_state(SERVER).await.unwrap();
            assert_eq!(
                stopped.main_pid, 0,
                "systemd started it {wait} ms after the drain: {stopped:?}"
            );
            assert!(
                matches!(stopped.active_state, ActiveState::Inactive | ActiveState::Failed),
                "{stopped:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(systemd.start_unit(SERVER, limit).await.unwrap(), JobResult::Done);
        assert_eq!(
            systemd.unit_state(SERVER).await.unwrap().active_state,
            ActiveState::Active
        );
        // A server that has just started ends at SIGUSR2 before it knows the signal.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::test]
#[ignore = "run inside the machine"]
async fn inside_the_server_is_restarted() {
    let systemd = Systemd::new();
    let before = systemd.unit_state(SERVER).await.unwrap();
    assert_eq!(before.load_state, LoadState::Loaded);
    assert_eq!(
        (before.active_state, before.sub_state.as_str()),
        (ActiveState::Active, "running")
    );
    assert_eq!((before.unit_file_state.as_str(), before.job), ("static", None));

    // Many times over: the end of the job is a signal that must never be missed.
    let mut last = before.main_pid;
    for _ in 0..4 {
        let result = systemd.restart_unit(SERVER, Duration::from_secs(20)).await.unwrap();
        assert_eq!(result, JobResult::Done);
        let after = systemd.unit_state(SERVER).await.unwrap();
        assert_eq!(after.active_state, ActiveState::Active);
        assert_ne!(after.main_pid, last);
        assert!(after.inactive_exit > before.inactive_exit);
        last = after.main_pid;
    }
    let late = systemd.restart_unit(SERVER, Duration::ZERO).await.unwrap_err();
    assert!(matches!(late, SystemdError::Deadline { .. }), "{late}");
}

#[tokio::test]
#[ignore = "run inside the machine"]
async fn inside_the_server_is_drained_stopped_and_started() {
    let systemd = Systemd::new();
    let limit = Duration::from_secs(20);
    let before = systemd.unit_state(SERVER).await.unwrap();
    systemd.kill_unit(SERVER, 12).await.unwrap();
    let mut after = before.clone();
    for _ in 0..200 {
        after = systemd.unit_state(SERVER).await.unwrap();
        if after.active_state == ActiveState::Inactive {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        (&after.active_state, after.main_pid),
        (&ActiveState::Inactive, 0),
        "{after:?}"
    );
    assert_eq!(
        systemd.stop_unit(SERVER, limit).await.unwrap(),
        JobResult::Done,
        "stopped is fine"
    );
    assert_eq!(systemd.start_unit(SERVER, limit).await.unwrap(), JobResult::Done);
    assert_eq!(
        systemd.start_unit(SERVER, limit).await.unwrap(),
        JobResult::Done,
        "running is fine"
    );
    let started = systemd.unit_state(SERVER).await.unwrap();
    assert_eq!(started.active_state, ActiveState::Active);
    assert_ne!(started.main_pid, before.main_pid);
    assert_eq!(systemd.stop_unit(SERVER, limit).await.unwrap(), JobResult::Done);
    // nats-server ends with status 1 on SIGTERM, which the stock unit calls a failure.
    let stopped = systemd.unit_state(SERVER).await.unwrap();
    let ended = matches!(stopped.active_state, ActiveState::Inactive | ActiveState::Failed);
    assert!(ended && stopped.main_pid == 0, "{stopped:?}");
    assert_eq!(systemd.start_unit(SERVER, limit).await.unwrap(), JobResult::Done);
}

#[tokio::test]
#[ignore = "run inside the machine"]
async fn inside_another_unit_is_refused() {
    let systemd = Systemd::new();
    let before = systemd.unit_state("peer.service").await.unwrap();
    let refused = systemd
        .restart_unit("peer.service", Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(matches!(refused, SystemdError::AccessDenied { .. }), "{refused:?}");
    assert!(refused.to_string().contains("50-watchdog.rules"), "{refused}");
    assert_eq!(systemd.unit_state("peer.service").await.unwrap(), before);

    let absent = systemd.unit_state("no-such.service").await.unwrap();
    assert_eq!(absent.load_state, LoadState::NotFound);
    assert_eq!((absent.active_state, absent.main_pid), (ActiveState::Inactive, 0));
}

/// The peer dialled, so each of its connections has a port of its own at the other end.
#[tokio::test]
#[ignore = "run inside the machine"]
async fn inside_a_route_is_reset() {
    capability().await.unwrap();
    let server = ServerEndpoint {
        host: "127.0.0.1".into(),
        port: 4222,
    };
    let peer = ServerEndpoint {
        host: "127.0.0.1".into(),
        port: 4223,
    };
    let listener: SocketAddr = "127.0.0.1:6222".parse().unwrap();
    let dialled = async || find(&peer, &Match::AnyOf(vec![listener])).await.unwrap();

    let mut routes = Vec::new();
    for _ in 0..100 {
        routes = dialled().await;
        if routes.len() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(routes.len(), 4, "{routes:?}");
    let one = find(&server, &Match::One(routes[0].local)).await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(destroy(&one).await.unwrap().destroyed.len(), 1);
    let left = dialled().await;
    assert!(routes[1..].iter().all(|route| left.contains(route)), "{left:?}");
    assert!(
        !left
            .iter()
            .any(|route| route.local == routes[0].local && route.inode == routes[0].inode)
    );
}
