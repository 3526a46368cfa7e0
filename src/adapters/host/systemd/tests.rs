use std::process::{Child, Command, Stdio};

use super::*;

const UNIT: &str = "nats-server.service";

/// A real bus with no systemd on it.
struct Bus(Child, String);

impl Bus {
    fn start() -> Option<Self> {
        let mut child = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| eprintln!("skipped: dbus-daemon is needed: {e}"))
            .ok()?;
        let mut address = String::new();
        let out = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut address).unwrap();
        Some(Self(child, address.trim().to_owned()))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn without_a_bus_the_error_says_what_to_do() {
    let systemd = Systemd::at("unix:path=/nonexistent/bus");
    let error = systemd.unit_state(UNIT).await.unwrap_err();
    assert!(matches!(error, SystemdError::NoBus { .. }), "{error:?}");
    assert!(error.to_string().contains("server.restart_command"), "{error}");
    let error = systemd.restart_unit(UNIT, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, SystemdError::NoBus { .. }), "{error:?}");
}

#[tokio::test]
async fn a_bus_without_systemd_is_as_good_as_none() {
    let Some(bus) = Bus::start() else { return };
    let error = Systemd::at(&bus.1).unit_state(UNIT).await.unwrap_err();
    assert!(matches!(error, SystemdError::NoBus { .. }), "{error:?}");
}

#[test]
fn a_unit_with_an_unreadable_state_is_an_error_not_a_stopped_one() {
    let error = UnitState::read(&Default::default(), &Default::default()).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}
