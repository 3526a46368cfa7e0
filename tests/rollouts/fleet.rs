//! A lab whose servers are swapped by a hook: each host starts what its own link points to.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nats_watchdog::lab::{AgentSpec, Lab, LabSpec, Topology, get_json};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

pub(crate) const OLD: &str = "2.10.26";
pub(crate) const NEW: &str = "2.15.1";
const LIMIT: Duration = Duration::from_secs(900);

pub(crate) struct Fleet {
    pub(crate) lab: Lab,
    dir: tempfile::TempDir,
}

pub(crate) fn binary(version: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{version}/nats-server"));
    assert!(path.exists(), "{} is missing: run tools/servers.sh", path.display());
    path
}

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What differs between fleets.
pub(crate) struct Shape {
    pub(crate) topology: Topology,
    pub(crate) per_region: usize,
    pub(crate) jetstream: bool,
    pub(crate) version: &'static str,
    /// `[permits]` of the agents and of the command; empty = no store.
    pub(crate) permits: String,
    /// Agents have credentials of the system account.
    pub(crate) system: bool,
}

impl Fleet {
    pub(crate) async fn start(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lab");
        let server = dir.path().join("server.sh");
        script(&server, "#!/bin/sh\nexec \"$(dirname \"$2\")/nats-server\" \"$@\"\n");
        let hook = dir.path().join("upgrade.sh");
        let at = dir.path().display();
        script(
            &hook,
            &format!(
                "#!/bin/sh\nset -e\necho \"$WATCHDOG_HOST $WATCHDOG_HOOK $WATCHDOG_ROLLOUT\" >>{at}/hooks.log\n\
                 sleep \"$(cat {at}/slow 2>/dev/null || echo 0)\"\n\
                 target=$(cat {at}/target-$WATCHDOG_HOST 2>/dev/null || cat {at}/target)\n\
                 ln -sfn \"$target\" {at}/lab/$WATCHDOG_HOST/nats-server\necho \"$WATCHDOG_HOST has $target\"\n"
            ),
        );
        let operator = nkeys::KeyPair::new_user();
        std::fs::write(dir.path().join("operator.nk"), operator.seed().unwrap()).unwrap();
        let system = match shape.system {
            true => "[system]\nuser = \"sys\"\npassword = \"sys\"\n",
            false => "",
        };
        let agents = AgentSpec {
            bin: env!("CARGO_BIN_EXE_watchdog").into(),
            parts: true,
            extra_toml: format!(
                "{}\n{system}[control]\noperators = [\"{}\"]\n[server]\nlame_duck_duration = \"30s\"\n[hooks.upgrade]\ncommand = [\"{}\"]\ntimeout = \"20s\"\n",
                shape.permits,
                operator.public_key(),
                hook.display()
            ),
            ..AgentSpec::new("observe")
        };
        let spec = LabSpec {
            agents: Some(agents),
            lab_bin: Some(env!("CARGO_BIN_EXE_watchdog-lab").into()),
            topology: shape.topology,
            per_region: shape.per_region,
            jetstream: shape.jetstream,
            server_extra: "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"1s\"\n".to_owned(),
            dir: Some(root.clone()),
            ..LabSpec::new(&server)
        };
        for (host, _) in spec.host_names() {
            std::fs::create_dir_all(root.join(&host)).unwrap();
            symlink(binary(shape.version), root.join(&host).join("nats-server")).unwrap();
        }
        let lab = Lab::start(spec).await.unwrap();
        lab.wait_until_easy(Duration::from_secs(120)).await.unwrap();
        let fleet = Self { lab, dir };
        if !shape.permits.is_empty() {
            std::fs::write(fleet.config(), &shape.permits).unwrap();
        }
        fleet.hook_installs(&binary(NEW));
        // An agent takes no command that may have been sent before it started.
        sleep(Duration::from_secs(11)).await;
        fleet
    }

    /// What the hook swaps in.
    pub(crate) fn hook_installs(&self, binary: &Path) {
        std::fs::write(self.dir.path().join("target"), binary.display().to_string()).unwrap();
    }

    /// The same for one host; `None` = as for all.
    pub(crate) fn hook_installs_at(&self, host: &str, binary: Option<&Path>) {
        let file = self.dir.path().join(format!("target-{host}"));
        match binary {
            Some(binary) => std::fs::write(file, binary.display().to_string()).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
    }

    /// How long the hook takes.
    pub(crate) fn hook_takes(&self, seconds: u32) {
        std::fs::write(self.dir.path().join("slow"), seconds.to_string()).unwrap();
    }

    pub(crate) fn links_to(&self, host: &str, binary: &Path) {
        let link = self.lab.host(host).unwrap().dir.join("nats-server");
        std::fs::remove_file(&link).unwrap();
        symlink(binary, link).unwrap();
    }

    /// Hosts by how often their hook ran.
    pub(crate) fn hooks(&self) -> BTreeMap<String, usize> {
        let log = std::fs::read_to_string(self.dir.path().join("hooks.log")).unwrap_or_default();
        let mut runs = BTreeMap::new();
        for line in log.lines() {
            *runs.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        runs
    }

    /// The command's own configuration, where there is a store of permits.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("operator.toml")
    }

    fn command(&self, words: &[&str]) -> Command {
        let urls: Vec<&str> = self.lab.hosts().iter().map(|h| h.client_url.as_str()).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        command
            .arg("restart")
            .args(words)
            .args([
                "--server",
                &urls.join(","),
                "--user",
                "watchdog",
                "--password",
                "watchdog",
            ])
            .arg("--operator")
            .arg(self.dir.path().join("operator.nk"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.config().exists() && !words.contains(&"--config") {
            command.arg("--config").arg(self.config());
        }
        command
    }

    pub(crate) async fn restart(&self, words: &[&str]) -> Output {
        let output = timeout(LIMIT, self.command(words).output()).await;
        output.expect("the command does not end").unwrap()
    }

    /// The command under way, with its JSON lines.
    pub(crate) fn begin(&self, words: &[&str]) -> Rolling {
        let mut child = self
            .command(words)
            .args(["--output", "json", "--yes"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Rolling {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    pub(crate) async fn varz(&self, key: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for host in self.lab.hosts() {
            let varz = get_json(&format!("{}/varz", host.monitor_url)).await;
            let value = varz.map_or_else(|e| e.to_string(), |v| v[key].as_str().unwrap_or_default().to_owned());
            all.insert(host.name.clone(), value);
        }
        all
    }

    pub(crate) async fn versions(&self) -> BTreeMap<String, String> {
        self.varz("version").await
    }

    pub(crate) async fn ids(&self) -> BTreeMap<String, String> {
        self.varz("server_id").await
    }

    /// The rollouts that agents keep as open, once nothing more is written or after ten seconds.
    pub(crate) async fn open_rollouts(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut open = Vec::new();
            for host in self.lab.hosts() {
                let file = host.dir.join("state/rollout.json");
                let text = std::fs::read_to_string(file).unwrap_or_default();
                let record: Value = serde_json::from_str(&text).unwrap_or_default();
                open.extend(record["id"].as_str().map(|id| format!("{}: {id}", host.name)));
            }
            if open.is_empty() || Instant::now() > deadline {
                return open;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A `watchdog restart` that runs.
pub(crate) struct Rolling {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) seen: Vec<Value>,
}

impl Rolling {
    /// Reads on to an event of this name.
    pub(crate) async fn until(&mut self, event: &str) -> Value {
        let found = self.reach(event).await;
        found.unwrap_or_else(|| panic!("it ended without {event}: {:?}", self.seen))
    }

    /// Reads on to an event of this name; `None` = it ended without.
    pub(crate) async fn reach(&mut self, event: &str) -> Option<Value> {
        let deadline = Instant::now() + Duration::from_secs(240);
        loop {
            let line = timeout(
                deadline.saturating_duration_since(Instant::now()),
                self.lines.next_line(),
            )
            .await
            .unwrap_or_else(|_| panic!("no {event} after {:?}", self.seen))
            .unwrap();
            let value: Value = serde_json::from_str(&line?).unwrap();
            self.seen.push(value.clone());
            if value["event"] == event {
                return Some(value);
            }
        }
    }

    pub(crate) fn id(&self) -> String {
        let id = self.seen.iter().find_map(|v| v["rollout"].as_str());
        id.expect("a line with the rollout's name").to_owned()
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its exit code, and all lines.
    pub(crate) async fn end(mut self) -> (Option<i32>, Vec<Value>) {
        while let Some(line) = timeout(LIMIT, self.lines.next_line())
            .await
            .expect("it does not end")
            .unwrap()
        {
            self.seen.push(serde_json::from_str(&line).unwrap());
        }
        let status = self.child.wait().await.unwrap();
        (status.code(), self.seen)
    }
}

pub(crate) fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}
