//! A real systemd with bus and polkit in namespaces of its own, on an overlay of `/` that leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

pub(crate) struct Machine {
    unshare: Child,
    init: u32,
    cgroup: PathBuf,
    dir: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(30);
/// This test binary, inside.
const INSIDE: &str = "/usr/bin/watchdog-inside";

/// Polls until it holds.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(value) = look() {
            return Some(value);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Why this host cannot boot one, or nothing.
fn lacking() -> Option<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let root = status.lines().any(|l| l.starts_with("Uid:\t0\t0\t"));
    let there = |path: &str| Path::new(path).exists();
    if !root {
        Some("needs root")
    } else if !there("/lib/systemd/systemd") || !there("/usr/bin/dbus-daemon") {
        Some("needs systemd and dbus: run tools/setup-root-tests.sh")
    } else if !there("/usr/lib/polkit-1/polkitd") {
        Some("needs polkit: run tools/setup-root-tests.sh")
    } else {
        None
    }
}

impl Machine {
    /// Boots one with the shipped files in their places and a nats-server as user `nats`. Nothing where this host
    /// cannot do that.
    pub(crate) fn boot() -> Option<Self> {
        if let Some(reason) = lacking() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("files"));
        fs::create_dir(dir.path().join("overlay")).unwrap();

        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified = mounts.find(|m| m[2] == "cgroup2").expect("a cgroup2 mount")[1].to_owned();
        let name = dir
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('.');
        let cgroup = Path::new(&unified).join(format!("watchdog-test-{name}"));
        fs::create_dir(&cgroup).unwrap();

        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd");
        let log = fs::File::create(dir.path().join("boot.log")).unwrap();
        let unshare = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c"])
            .arg("echo 0 >\"$1/cgroup.procs\" && exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child \"$2\" \"$3\"")
            .arg("boot")
            .args([&cgroup, &tests.join("boot.sh"), dir.path()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut machine = Self {
            unshare,
            init: 0,
            cgroup,
            dir,
        };
        let id = machine.unshare.id();
        let children = format!("/proc/{id}/task/{id}/children");
        machine.init = machine.wait_for("its first process", || {
            let init: u32 = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
            (name.trim() == "systemd").then_some(init)
        });
        machine.wait_for("the end of its boot", || {
            let output = machine.run(&["systemctl", "is-system-running"]);
            (text(&output) == "running").then_some(())
        });
        Some(machine)
    }

    fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        within(PATIENCE, look).unwrap_or_else(|| self.fail(&format!("no {what} in {PATIENCE:?}")))
    }

    /// Fails the test with all that the machine said.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let boot = fs::read_to_string(self.dir.path().join("boot.log")).unwrap_or_default();
        let mut journal = String::new();
        if self.init != 0 {
            let units = ["watchdog", "nats-server", "sandbox@*"];
            journal = text(&self.run(&[&["systemctl", "status", "-n0"], &units[..]].concat()));
            journal += "\n";
            journal += &text(&self.run(&["journalctl", "--no-pager", "-n", "60", "-o", "cat"]));
        }
        panic!("{what}\nboot: {boot}\njournal: {journal}");
    }

    /// Runs a command inside, as root, for at most 30 s.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        Command::new("timeout")
            .args(["80", "nsenter", "--all", "--target", &self.init.to_string()])
            .args(command)
            .env("SYSTEMD_PAGER", "")
            .output()
            .unwrap()
    }

    pub(crate) fn run_as_watchdog(&self, command: &[&str]) -> Output {
        let drop = ["setpriv", "--reuid=watchdog", "--regid=watchdog", "--init-groups"];
        self.run(&[&drop, command].concat())
    }

    /// One property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        text(&self.run(&["systemctl", "show", unit, "--value", "-p", property]))
    }

    /// Runs one of this binary's ignored tests as a unit with the user, the rights and the sandbox of the shipped one.
    pub(crate) fn run_in_the_sandbox(&self, test: &str) {
        let unit = format!("sandbox@{test}.service");
        if !self.run(&["systemctl", "start", &unit]).status.success() {
            self.fail(test);
        }
        let journal = text(&self.run(&["journalctl", "-o", "cat", "-u", &unit]));
        assert!(journal.contains("1 passed"), "{test} did not run: {journal}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its first process goes with unshare, and everything inside with that.
        self.unshare.kill().ok();
        self.unshare.wait().ok();
        within(Duration::from_secs(10), || remove(&self.cgroup).ok());
    }
}

pub(crate) fn text(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

fn install(root: &Path) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |path: &str, content: &[u8], mode| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).unwrap();
    };
    let shipped = |name| fs::read(repository.join("systemd").join(name)).unwrap();
    write(
        "usr/lib/sysusers.d/watchdog.conf",
        &shipped("watchdog.sysusers.conf"),
        0o644,
    );
    write(
        "etc/polkit-1/rules.d/50-watchdog.rules",
        &shipped("50-watchdog.rules"),
        0o644,
    );
    let service = shipped("watchdog.service");
    write("etc/systemd/system/watchdog.service", &service, 0o644);
    write(
        "etc/systemd/system/watchdog.service.d/test.conf",
        b"[Service]\nWatchdogSec=2s\n",
        0o644,
    );
    write("etc/systemd/system/sandbox@.service", &service, 0o644);
    let sandbox = format!(
        "[Service]\nType=oneshot\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart={INSIDE} --exact %i --ignored --nocapture\n"
    );
    write(
        "etc/systemd/system/sandbox@.service.d/test.conf",
        sandbox.as_bytes(),
        0o644,
    );

    let ourselves = fs::read(env::current_exe().unwrap()).unwrap();
    write(&INSIDE[1..], &ourselves, 0o755);
    let agent = fs::read(env!("CARGO_BIN_EXE_watchdog")).unwrap();
    write("usr/bin/watchdog", &agent, 0o755);
    write("etc/watchdog/watchdog.toml", CONFIGURATION, 0o644);

    let server = repository.join(".tools/servers/2.10.26/nats-server");
    let server = fs::read(server).expect("run tools/servers.sh first");
    write("usr/bin/nats-server", &server, 0o755);
    write(
        "usr/lib/sysusers.d/test.conf",
        b"u nats - \"NATS\" / -\nu peer - \"Peer\" / -\n",
        0o644,
    );
    for (unit, user, arguments) in [
        (
            "nats-server",
            "nats",
            "-a 127.0.0.1 -p 4222 -m 8222 --cluster nats://127.0.0.1:6222",
        ),
        (
            "peer",
            "peer",
            "-a 127.0.0.1 -p 4223 -m 8223 --cluster nats://127.0.0.1:6223 --routes nats://127.0.0.1:6222",
        ),
    ] {
        let text = format!(
            "[Service]\nUser={user}\nExecStart=/usr/bin/nats-server {arguments} --cluster_name test\nRestart=on-failure\n"
        );
        write(&format!("etc/systemd/system/{unit}.service"), text.as_bytes(), 0o644);
    }
    let target = b"[Unit]\nWants=dbus.service polkit.service nats-server.service peer.service watchdog.service\n";
    write("etc/systemd/system/watchdog-test.target", target, 0o644);
}

/// The machine has a private network, so fixed ports are its own.
const CONFIGURATION: &[u8] = b"[host]\nname = \"test-1\"\nregion = \"test\"\n\n[nats]\nurl = \"nats://127.0.0.1:4222\"\n\n[server]\nmonitor = \"http://127.0.0.1:8222\"\nunit = \"nats-server.service\"\n\n[http]\nlisten = \"127.0.0.1:9777\"\n";
