//! `watchdog restart` against real servers that are really restarted.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod fleet;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use nats_watchdog::adapters::nats::control::{Operator, ask};
use nats_watchdog::cli::restart::show::Console;
use nats_watchdog::cli::restart::{Output, RestartArgs, roll};
use nats_watchdog::core::control::{Answer, Command, Envelope, Verb};
use tokio::sync::mpsc;

use fleet::{Fleet, Nature, PREFIX, fleet, host, now};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: RestartArgs,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn read(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An operator, its seed in a file, and another that nobody obeys.
struct Keys {
    operator: Operator,
    stranger: Operator,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("operator.nk");
        let pair = nkeys::KeyPair::new_user();
        std::fs::write(&file, pair.seed().unwrap()).unwrap();
        let stranger = nkeys::KeyPair::new_user().seed().unwrap();
        Self {
            operator: Operator::from_file(&file).unwrap(),
            stranger: Operator::from_seed(&stranger).unwrap(),
            file,
            _dir: dir,
        }
    }

    fn operators(&self) -> [String; 1] {
        [self.operator.public_key()]
    }
}

struct Run {
    out: Text,
    err: Text,
    interrupt: mpsc::Sender<()>,
    argv: Vec<String>,
    console: Console,
}

impl Run {
    fn new(keys: &Keys, flags: &str) -> Self {
        let mut base = format!("watchdog restart {flags}");
        if !flags.contains("--prefix") {
            base.push_str(&format!(" --prefix {PREFIX}"));
        }
        if !flags.contains("--waves") {
            base.push_str(" --waves all");
        }
        if !flags.contains("--operator") {
            base.push_str(&format!(" --operator {}", keys.file.display()));
        }
        let argv: Vec<String> = base.split_whitespace().map(str::to_owned).collect();
        let (out, err) = (Text::default(), Text::default());
        let (interrupt, interrupts) = mpsc::channel(2);
        let output = if flags.contains("json") {
            Output::Json
        } else {
            Output::Table
        };
        let console = Console::detached(
            output,
            Box::new(out.clone()),
            Box::new(err.clone()),
            argv.clone(),
            interrupts,
        );
        Self {
            out,
            err,
            interrupt,
            argv,
            console,
        }
    }

    async fn go(&mut self, client: &async_nats::Client) -> u8 {
        let args = Cli::parse_from(&self.argv[1..]).args;
        let code = roll(args, client.clone(), &mut self.console).await.unwrap();
        eprintln!("exit {code:?}\n{}{}", self.out.read(), self.err.read());
        code as u8
    }
}

async fn restarts_three_one_by_one(version: &str) {
    let keys = Keys::new();
    let fleet = fleet(version, &[Nature::Good; 3], &keys.operators()).await;
    let before = fleet.ids().await;
    let (watch, down) = fleet.watch_down();
    let client = fleet.client().await;
    let mut run = Run::new(&keys, "--all --yes --stagger 1s --timeout 60s");
    assert_eq!(run.go(&client).await, 0);
    watch.abort();
    let after = fleet.ids().await;
    for (before, after) in before.iter().zip(&after) {
        assert!(after.is_some() && before != after, "{before:?} {after:?}");
    }
    let (most, which) = down.lock().unwrap().clone();
    assert_eq!((most, which.len()), (1, 3), "never two down at once, each once");
    let out = run.out.read();
    assert!(out.contains("3 hosts restarted and proved."), "{out}");
    let order: Vec<usize> = ["h0: proved", "h1: proved", "h2: proved"]
        .iter()
        .map(|t| out.find(t).unwrap())
        .collect();
    assert!(order.is_sorted(), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_are_restarted_one_by_one_on_2_9_10() {
    restarts_three_one_by_one("2.9.10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_are_restarted_one_by_one_on_2_10_26() {
    restarts_three_one_by_one("2.10.26").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_are_restarted_one_by_one_on_2_15_1() {
    restarts_three_one_by_one("2.15.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_come_back_halts_with_4_and_the_rest_is_untouched() {
    let keys = Keys::new();
    let natures = [Nature::Good, Nature::NeverBack, Nature::Good];
    let fleet = fleet("2.10.26", &natures, &keys.operators()).await;
    let before = fleet.ids().await;
    let mut run = Run::new(&keys, "--all --yes --stagger 0s --timeout 12s --output json");
    assert_eq!(run.go(&fleet.client().await).await, 4);
    let after = fleet.ids().await;
    assert_ne!(before[0], after[0]);
    assert_eq!(after[1], None);
    assert_eq!(before[2], after[2], "the rest is untouched");
    let last: serde_json::Value = serde_json::from_str(run.out.read().lines().last().unwrap()).unwrap();
    assert_eq!(last["outcome"], "halted");
    assert_eq!((&last["host"], &last["step"]), (&"h1".into(), &"restarting".into()));
    assert_eq!(last["remaining"], serde_json::json!(["h2"]));
    let go_on = last["go_on"].as_str().unwrap();
    let resume = format!(" --resume {}", last["rollout"].as_str().unwrap());
    assert!(go_on.ends_with(&resume), "{go_on}");
    assert!(!go_on.contains("--all"), "{go_on}");

    // Going on as told is refused while the host that failed is still down.
    let mut run = Run::new(&keys, "--yes --host h2");
    assert_eq!(run.go(&fleet.client().await).await, 3);
    assert!(run.err.read().contains("h1 is not heard by"), "{}", run.err.read());
    assert_eq!(before[2], fleet.ids().await[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_finishes_the_host_in_work_and_stops() {
    let keys = Keys::new();
    let fleet = fleet("2.15.1", &[Nature::Good; 2], &keys.operators()).await;
    let before = fleet.ids().await;
    let client = fleet.client().await;
    let mut run = Run::new(&keys, "--all --yes --stagger 0s --timeout 60s");
    let (out, interrupt) = (run.out.clone(), run.interrupt.clone());
    let watch = tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !out.read().contains("h0: accepted") && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        interrupt.send(()).await.unwrap();
    });
    assert_eq!(run.go(&client).await, 4);
    watch.await.unwrap();
    let after = fleet.ids().await;
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
    let err = run.err.read();
    assert!(
        err.contains("stopped by the operator") && err.contains("--resume "),
        "{err}"
    );
    assert!(run.out.read().contains("h0: proved"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_fresh_command_of_an_operator_to_this_host_is_taken() {
    let keys = Keys::new();
    let fleet = fleet("2.10.26", &[Nature::Good], &keys.operators()).await;
    let client = fleet.client().await;
    let before = fleet.ids().await;
    let command = |of: usize, issued_ago: u64| {
        let now = u64::try_from(now().0.as_millis()).unwrap();
        let mut c = Command::read(host(of), Verb::Restart);
        c.nonce = "once".to_owned();
        c.issued_ms = now - issued_ago;
        c.expires_ms = c.issued_ms + 30_000;
        c
    };
    let gate = async |e: &Envelope| match ask(&client, PREFIX, &host(0), e, Duration::from_secs(5)).await.unwrap() {
        Answer::Refused { gate, .. } => gate,
        Answer::Accepted { .. } => "accepted".to_owned(),
        other => panic!("{other:?}"),
    };
    let op = &keys.operator;
    assert_eq!(gate(&Envelope::unsigned(&command(0, 0))).await, "unsigned");
    assert_eq!(gate(&keys.stranger.sign(&command(0, 0))).await, "unknown_key");
    let mut forged = keys.stranger.sign(&command(0, 0));
    forged.key = op.public_key();
    assert_eq!(gate(&forged).await, "bad_signature");
    assert_eq!(gate(&op.sign(&command(0, 45_000))).await, "expired");
    assert_eq!(gate(&op.sign(&command(1, 0))).await, "other_host");
    assert_eq!(fleet.ids().await, before, "nothing was restarted");

    let good = op.sign(&command(0, 0));
    assert_eq!(gate(&good).await, "accepted");
    fleet.restarted(0, &before).await;
    let after = fleet.ids().await;
    assert_eq!(gate_when_back(&client, &good).await, "replayed");
    assert_eq!(fleet.ids().await, after);
}

/// The gate that answers once the agent is connected again.
async fn gate_when_back(client: &async_nats::Client, e: &Envelope) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match ask(client, PREFIX, &host(0), e, Duration::from_secs(1)).await {
            Ok(Answer::Refused { gate, .. }) => return gate,
            Ok(other) => panic!("{other:?}"),
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_done_is_not_done() {
    let keys = Keys::new();
    let fleet = fleet("2.10.26", &[Nature::Good; 2], &[]).await;
    let client = fleet.client().await;
    let before = fleet.ids().await;
    for (flags, code, says) in [
        ("--yes", 2, "nothing selected"),
        ("--all", 2, "no terminal to ask on"),
        (
            "--all --yes --operator /nonexistent",
            2,
            "cannot read the operator's seed",
        ),
        ("--yes --host h7", 2, "did you mean h0 or h1?"),
        ("--yes --region fra --host h1", 2, "h1 is in region iad"),
        ("--all --yes --prefix nobody", 3, "no agent was heard"),
        ("--all --yes", 3, "no operators configured: add control.operators"),
    ] {
        let mut run = Run::new(&keys, flags);
        assert_eq!(run.go(&client).await, code, "{flags}");
        assert!(run.err.read().contains(says), "{flags}: {}", run.err.read());
    }
    let mut run = Run::new(&keys, "--all --dry-run");
    assert_eq!(run.go(&client).await, 0);
    assert!(run.out.read().contains("2 hosts one at a time"), "{}", run.out.read());
    assert_eq!(fleet.ids().await, before, "nothing was restarted");
}

impl Fleet {
    async fn restarted(&self, i: usize, before: &[Option<String>]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let id = self.servers[i].id().await;
            if id.is_some() && id != before[i] {
                return;
            }
            assert!(Instant::now() < deadline, "not restarted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
