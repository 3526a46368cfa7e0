//! Whole configurations, good and bad, as people write them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nkeys::KeyPair;

use super::keys::{self, KEYS};
use super::settings::{Auth, Mode, Parts, RestartVia, Settings};
use super::{Env, Loaded};

/// A configuration directory of its own; paths in texts come out as `DIR`.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text.replace("DIR", self.path())).unwrap();
        path
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn load(&self, env: &Env) -> Result<Loaded, String> {
        let main = self.0.path().join("watchdog.toml");
        Settings::load(Some(&main), env).map_err(|e| e.to_string().replace(self.path(), "DIR"))
    }
}

fn env(pairs: &[(&str, &str)]) -> Env {
    Env {
        variables: pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        hostname: Some("iad-1.example.net\n".into()),
    }
}

fn creds() -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\neyJ0.e30.x\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        KeyPair::new_user().seed().unwrap()
    )
}

fn origin(loaded: &Loaded, key: &str) -> (String, String) {
    let shown = loaded.origins.iter().find(|shown| shown.key == key);
    let shown = shown.unwrap_or_else(|| panic!("{key} is not shown"));
    (shown.value.clone(), shown.origin.clone())
}

/// Two places name defaults: the table that people read and the core that its tests run with.
#[test]
fn the_core_and_the_table_of_keys_have_the_same_defaults() {
    let dir = Dir::new();
    dir.write("watchdog.toml", "[host]\nname = \"a\"\nregion = \"iad\"");
    let settings = dir.load(&env(&[])).unwrap().settings;
    assert_eq!(settings.remediation, crate::core::policy::Remediation::default());
    assert_eq!(settings.canary, crate::core::policy::Canary::default());
}

#[test]
fn a_region_is_all_that_an_agent_must_be_told() {
    let dir = Dir::new();
    dir.write("watchdog.toml", "[host]\nregion = \"iad\"\n");
    let settings = dir.load(&env(&[])).unwrap().settings;
    assert_eq!(settings.host.as_str(), "iad-1");
    assert_eq!(settings.region.as_str(), "iad");
    assert_eq!(settings.lanes.len(), 1);
    assert_eq!(settings.system, None);
    assert_eq!(settings.lanes[0].connect.urls, ["nats://127.0.0.1:4222"]);
    assert_eq!(settings.server.restart, RestartVia::Unit("nats-server.service".into()));
    assert_eq!(settings.server.poll_routes, Duration::from_secs(2));
    assert_eq!(settings.canary.stall_after, 3);
    assert_eq!(settings.remediation.mode, Mode::Observe);
    assert_eq!(settings.remediation.confirm, Duration::from_millis(300));
    assert_eq!(settings.http, "127.0.0.1:9777".parse().unwrap());
    assert_eq!(settings.state, None);
}

#[test]
fn a_full_configuration_says_everything() {
    let dir = Dir::new();
    dir.write("main.creds", &creds());
    dir.write("logs.nk", &KeyPair::new_user().seed().unwrap());
    dir.write("ca.pem", "-----BEGIN CERTIFICATE-----\nx\n");
    let operator = KeyPair::new_user().public_key();
    dir.write(
        "watchdog.toml",
        &format!(
            r#"
subject_prefix = "ops.watchdog"
[host]
name = "fra-2"
region = "fra"
[nats]
url = "tls://127.0.0.1:4222"
creds = "DIR/main.creds"
inbox_prefix = "_INBOX_w"
tls = {{ ca = "DIR/ca.pem", first = true }}
[[lane]]
name = "logs"
nkey = "DIR/logs.nk"
[system]
user = "sys"
password = "s3cret"
[server]
monitor = "http://127.0.0.1:8222/nats/"
restart_command = ["/bin/restart", "now"]
poll = "500ms"
poll_routes = "3s"
timeout = "1s"
restart_deadline = "2m"
[canary]
interval = "250ms"
stall_after = 4
max_inbound_per_second = 1_000
hosts = {{ iad = ["iad-1", "iad-2"], fra = ["fra-2"] }}
[remediation]
mode = "restart"
path_resets = false
max_sick_fraction = 0.25
restarts_per_hour = 1
resets_per_hour = 5
confirm = "1s"
restart_confirm = "5s"
mesh_confirm = "15s"
sender_delay = "30s"
verify = "20s"
tries = 3
[control]
operators = ["{operator}"]
[http]
listen = "[::1]:9000"
[state]
directory = "/var/lib/watchdog"
"#
        ),
    );
    let loaded = dir.load(&env(&[])).unwrap();
    let s = loaded.settings;
    assert_eq!(s.prefix, "ops.watchdog");
    assert_eq!(s.lanes[0].connect.auth, Auth::Creds(dir.0.path().join("main.creds")));
    assert!(s.lanes[0].connect.tls.first);
    let system = s.system.as_ref().unwrap();
    assert_eq!(system.auth, Auth::User("sys".into(), "s3cret".into()));
    assert_eq!(
        (&system.urls, &system.tls),
        (&s.lanes[0].connect.urls, &s.lanes[0].connect.tls)
    );
    let logs = &s.lanes[1];
    assert_eq!(logs.name.as_str(), "logs");
    assert_eq!(logs.connect.auth, Auth::Nkey(dir.0.path().join("logs.nk")));
    // What a lane does not say it takes from [nats], credentials excepted.
    assert_eq!(logs.connect.urls, s.lanes[0].connect.urls);
    assert_eq!(logs.connect.tls, s.lanes[0].connect.tls);
    assert_eq!(logs.connect.inbox_prefix.as_deref(), Some("_INBOX_w"));
    assert_eq!(s.server.monitor, "http://127.0.0.1:8222/nats");
    assert_eq!(
        s.server.restart,
        RestartVia::Command(vec!["/bin/restart".into(), "now".into()], Parts::default())
    );
    assert_eq!(s.server.poll, Duration::from_millis(500));
    assert_eq!(s.server.poll_routes, Duration::from_secs(3));
    assert_eq!(s.server.timeout, Duration::from_secs(1));
    assert_eq!(s.server.restart_deadline, Duration::from_secs(120));
    assert_eq!(s.canary.interval, Duration::from_millis(250));
    assert_eq!(s.canary.stall_after, 4);
    assert_eq!(s.canary.max_inbound_per_second, 1000);
    assert_eq!(s.canary.hosts.len(), 3);
    assert_eq!(s.remediation.mode, Mode::Restart);
    assert!(!s.remediation.path_resets);
    assert!((s.remediation.max_sick_fraction - 0.25).abs() < 1e-9);
    assert_eq!((s.remediation.restarts_per_hour, s.remediation.resets_per_hour), (1, 5));
    assert_eq!(s.remediation.confirm, Duration::from_secs(1));
    assert_eq!(s.remediation.restart_confirm, Duration::from_secs(5));
    assert_eq!(s.remediation.mesh_confirm, Duration::from_secs(15));
    assert_eq!(s.remediation.sender_delay, Duration::from_secs(30));
    assert_eq!(s.remediation.verify, Duration::from_secs(20));
    assert_eq!(s.remediation.tries, 3);
    assert_eq!(s.operators, [operator]);
    assert_eq!(s.http, "[::1]:9000".parse().unwrap());
    assert_eq!(s.state.as_deref(), Some(Path::new("/var/lib/watchdog")));
}

#[test]
fn later_sources_win_and_say_so() {
    let dir = Dir::new();
    dir.write(
        "watchdog.toml",
        "[host]\nregion = \"iad\"\n[canary]\ninterval = \"1s\"\nstall_after = 5\n",
    );
    dir.write(
        "conf.d/20-b.toml",
        "[canary]\ninterval = \"3s\"\n[[lane]]\nname = \"b\"\n",
    );
    dir.write("conf.d/10-a.toml", "canary.interval = \"2s\"\n[[lane]]\nname = \"a\"\n");
    dir.write("conf.d/ignored.txt", "not toml");
    let loaded = dir
        .load(&env(&[
            ("WATCHDOG_CANARY_STALL_AFTER", "7"),
            ("WATCHDOG_REMEDIATION_MODE", "reset"),
            ("STATE_DIRECTORY", "/var/lib/watchdog:/other"),
        ]))
        .unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.canary.interval, Duration::from_secs(3));
    assert_eq!(settings.canary.stall_after, 7);
    assert_eq!(settings.remediation.mode, Mode::Reset);
    assert_eq!(settings.state.as_deref(), Some(Path::new("/var/lib/watchdog")));
    let lanes: Vec<_> = settings.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(lanes, ["main", "a", "b"]);
    let interval = origin(&loaded, "canary.interval");
    assert_eq!(interval.0, "\"3s\"");
    assert!(interval.1.ends_with("conf.d/20-b.toml:2"), "{}", interval.1);
    assert_eq!(
        origin(&loaded, "canary.stall_after"),
        ("7".into(), "$WATCHDOG_CANARY_STALL_AFTER".into())
    );
    assert_eq!(origin(&loaded, "http.listen").1, "default");
    assert_eq!(origin(&loaded, "host.name").1, "the system's host name");
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let mut missing = Vec::new();
    for key in KEYS {
        let Some(variable) = keys::variable(key) else {
            continue;
        };
        let text = super::value::toml_value(key.example).unwrap();
        let text = text.as_str().map_or(text.to_string(), str::to_owned);
        let dir = Dir::new();
        dir.write("watchdog.toml", "[host]\nname = \"h\"\n");
        let env = env(&[(variable.as_str(), &text)]);
        let read = super::source::Layers::read(&dir.0.path().join("watchdog.toml"), true, &env);
        if !read.values.contains_key(key.name) || !read.errors.is_empty() {
            missing.push(variable);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_default_and_example_is_what_its_key_wants() {
    for key in KEYS {
        for text in key.default.into_iter().chain([key.example]) {
            let value = super::value::toml_value(text).unwrap();
            assert_eq!(super::value::parse(key, &value).err(), None, "{} = {text}", key.name);
        }
    }
}

#[test]
fn all_errors_come_at_once_with_line_and_example() {
    let dir = Dir::new();
    dir.write("key.nk", "no seed here");
    dir.write(
        "watchdog.toml",
        r#"[host]
name = "iad.1"
regoin = "iad"

[nats]
url = "nats://a:4222,nats://b:4222"
creds = "DIR/absent.creds"
nkey = "DIR/key.nk"

[canary]
interval = "1 sec ond"
stall_after = 1
max_inbound_per_second = "many"

[remediation]
mode = "reboot"
max_sick_fraction = 10

[server]
monitor = "https://127.0.0.1:8222"
unit = "nats-server.service"
restart_command = ["/bin/x"]

[[lane]]
name = "main"

[[lane]]
nkey = "DIR/key.nk"

[control]
operators = ["UABC"]

[http]
listen = "9777"

[brownout]
[canarry]
x = 1
"#,
    );
    dir.write("conf.d/10.toml", "[server]\npoll = 1\n[permits]\nstore = \"slots\"\n");
    let errors = dir
        .load(&env(&[
            ("WATCHDOG_CANARY_INTERVAL_", "1s"),
            ("WATCHDOG_USEC", "30000000"),
            ("WATCHDOG_REMEDIATION_TRIES", "none"),
        ]))
        .unwrap_err();
    insta::assert_snapshot!(errors);
}

#[test]
fn an_interval_out_of_range_is_refused() {
    for (interval, good) in [("99ms", false), ("100ms", true), ("60s", true), ("61s", false)] {
        let dir = Dir::new();
        dir.write(
            "watchdog.toml",
            &format!("[host]\nregion = \"iad\"\n[canary]\ninterval = \"{interval}\"\n"),
        );
        assert_eq!(dir.load(&env(&[])).is_ok(), good, "{interval}");
    }
}

#[test]
fn a_missing_region_says_how_to_give_one() {
    let dir = Dir::new();
    dir.write("watchdog.toml", "");
    let errors = dir.load(&env(&[])).unwrap_err();
    insta::assert_snapshot!(errors);
}

#[test]
fn broken_toml_is_told_with_its_line_and_nothing_else() {
    let dir = Dir::new();
    dir.write(
        "watchdog.toml",
        "[host]\nregion = iad\n[nats]\npassword = \"s3cret\n[canary\n",
    );
    let errors = dir.load(&env(&[])).unwrap_err();
    insta::assert_snapshot!(errors);
}

#[test]
fn a_file_named_outright_must_be_there() {
    let dir = Dir::new();
    let errors = dir.load(&env(&[])).unwrap_err();
    insta::assert_snapshot!(errors);
}

#[test]
fn without_a_main_file_variables_are_enough() {
    let dir = Dir::new();
    let main = dir.0.path().join("watchdog.toml");
    let good = env(&[("WATCHDOG_HOST_REGION", "iad")]);
    assert!(super::load::load(&main, false, &good).is_ok());
    let errors = super::load::load(&main, false, &env(&[])).unwrap_err();
    let expected = "DIR/watchdog.toml: host.region: is missing (there is no such file): say where this host is \
                    (like [host] region = \"iad\", or WATCHDOG_HOST_REGION=iad)";
    assert_eq!(errors.to_string().replace(dir.path(), "DIR"), expected);
}

#[test]
fn only_variables_that_look_like_ours_are_judged() {
    let dir = Dir::new();
    dir.write("watchdog.toml", "[host]\nregion = \"iad\"\n");
    for (variable, good) in [
        ("WATCHDOG_USEC", true),
        ("WATCHDOG_PID", true),
        ("WATCHDOG_AGENT", true),
        ("WATCHDOG_CONFIG", true),
        ("WATCHDOG_DEVICE", true),
        ("WATCHDOG_CANARY_INTERVALL", false),
        ("WATCHDOG_CANRY_INTERVAL", false),
        ("WATCHDOG_NATS_COLOUR", false),
    ] {
        assert_eq!(dir.load(&env(&[(variable, "1")])).is_ok(), good, "{variable}");
    }
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let dir = Dir::new();
    dir.write("password", "s3cret\n");
    dir.write(
        "watchdog.toml",
        "[host]\nregion = \"iad\"\n[nats]\nuser = \"w\"\npassword_file = \"DIR/password\"\n\
         [[lane]]\nname = \"t\"\ntoken = \"t0ken\"\n[[lane]]\nname = \"u\"\nurl = \"nats://u:pa55@h\"\n",
    );
    let loaded = dir.load(&env(&[])).unwrap();
    let auth: Vec<_> = loaded.settings.lanes.iter().map(|lane| &lane.connect.auth).collect();
    assert_eq!(*auth[0], Auth::User("w".into(), "s3cret".into()));
    assert_eq!(*auth[1], Auth::Token("t0ken".into()));
    assert_eq!(*auth[2], Auth::User("u".into(), "pa55".into()));
    assert_eq!(loaded.settings.lanes[2].connect.urls, ["nats://h"]);
    let all = format!("{:?}{:?}", loaded.origins, loaded.settings);
    for secret in ["s3cret", "t0ken", "pa55"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn a_context_gives_what_the_table_does_not() {
    let dir = Dir::new();
    dir.write("own.creds", &creds());
    dir.write(
        "nats/context/ops.json",
        r#"{"description":"x","url":"nats://10.0.0.1:4222","user":"u","password":"p","inbox_prefix":"_I"}"#,
    );
    let env = env(&[("XDG_CONFIG_HOME", dir.path())]);
    dir.write("watchdog.toml", "[host]\nregion = \"iad\"\n[nats]\ncontext = \"ops\"\n");
    let loaded = dir.load(&env).unwrap();
    let connect = &loaded.settings.lanes[0].connect;
    assert_eq!(connect.urls, ["nats://10.0.0.1:4222"]);
    assert_eq!(connect.auth, Auth::User("u".into(), "p".into()));
    assert_eq!(connect.inbox_prefix.as_deref(), Some("_I"));
    assert!(origin(&loaded, "nats.url").1.contains("ops.json"));

    dir.write(
        "watchdog.toml",
        "[host]\nregion = \"iad\"\n[nats]\ncontext = \"ops\"\nurl = \"nats://127.0.0.1\"\ncreds = \"DIR/own.creds\"\n",
    );
    let connect = dir.load(&env).unwrap().settings.lanes[0].connect.clone();
    assert_eq!(connect.urls, ["nats://127.0.0.1"]);
    assert_eq!(connect.auth, Auth::Creds(dir.0.path().join("own.creds")));
}
