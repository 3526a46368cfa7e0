//! Whole rollouts on real servers under real agents: upgrades by a hook, failures in the middle, deaths at each step,
//! JetStream.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod brownout;
mod fleet;
mod jetstream;
mod kills;
mod store;
mod traffic;

use std::path::Path;
use std::time::Duration;

use nats_watchdog::lab::Topology;
use tokio::time::sleep;

use fleet::{Fleet, NEW, OLD, Shape, binary, text};
use traffic::{Traffic, Watch};

async fn fleet(per_region: usize, topology: Topology) -> Fleet {
    Fleet::start(Shape {
        topology,
        per_region,
        jetstream: false,
        version: OLD,
        permits: String::new(),
        system: false,
    })
    .await
}

const QUICK: [&str; 6] = ["--hook", "upgrade", "--stagger", "1s", "--timeout", "60s"];

#[tokio::test(flavor = "multi_thread")]
async fn twelve_servers_in_three_clusters_are_upgraded_by_a_hook_while_clients_work() {
    let fleet = fleet(4, Topology::ClusterPerRegion).await;
    let traffic = Traffic::start(&fleet.lab).await;
    let watch = Watch::start(&fleet.lab);
    let begun = std::time::Instant::now();
    let filter = format!("version<{NEW}");
    let words = [
        &["--all", "--where", &filter, "--yes", "--reason", "upgrade"],
        &QUICK[..],
    ]
    .concat();
    let output = fleet.restart(&words).await;
    let took = begun.elapsed();
    let (most, down) = watch.end().await;
    let tally = traffic.end(&down).await;
    let said = text(&output);
    eprintln!(
        "{OLD} to {NEW}, 12 servers: {took:?}, {tally:?}, {} looks saw a server down, at most {most}\n{said}",
        down.len()
    );
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(most, 1, "two servers were down together: {said}");
    assert!(!down.is_empty(), "the watch saw no server down: it proves nothing");
    let versions = fleet.versions().await;
    assert!(versions.values().all(|v| v == NEW), "{versions:?}");
    assert!(
        fleet.hooks().len() == 12 && fleet.hooks().values().all(|n| *n == 1),
        "{:?}",
        fleet.hooks()
    );
    assert!(tally.disconnects >= 6, "clients were never moved: {tally:?}");
    assert_eq!(tally.lost_without_reason, 0, "{tally:?}");
    assert!(said.contains("draining clients"), "nobody was drained: {said}");
    assert_eq!(fleet.open_rollouts().await, [""; 0]);
    // The same selection is empty now, and that is an error and no success.
    let again = fleet.restart(&words).await;
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    assert!(text(&again).contains("the selection is empty"), "{}", text(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_does_not_start_halts_in_its_wave_and_a_mended_rollout_goes_on() {
    let fleet = fleet(2, Topology::OneCluster).await;
    // In order: fra-1, then its region, so that fra-2 is the second wave.
    let broken = "fra-2";
    fleet.hook_installs_at(broken, Some(Path::new("/bin/false")));
    let before = fleet.ids().await;
    let words = [&["--all", "--yes", "--lame-duck", "never"], &QUICK[..]].concat();
    let output = fleet.restart(&words).await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("halted at fra-2"), "{said}");
    assert!(said.contains("no new server answered"), "{said}");
    let id = said
        .split("--resume ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    for (host, id) in fleet.ids().await {
        let touched = ["fra-1", broken].contains(&host.as_str());
        assert_eq!(before[&host] != id, touched, "{host}: {said}");
    }
    // Another one is refused, by name, while this is open; going on is refused while the host is down.
    let second = fleet.restart(&["--region", "iad", "--yes"]).await;
    assert_eq!(second.status.code(), Some(3), "{}", text(&second));
    assert!(text(&second).contains(&format!("rollout {id} of")), "{}", text(&second));
    let early = fleet.restart(&["--resume", id, "--yes"]).await;
    assert_eq!(early.status.code(), Some(3), "{}", text(&early));
    assert!(text(&early).contains("fra-2"), "{}", text(&early));

    // Mended: the good binary, started by hand.
    fleet.hook_installs_at(broken, None);
    fleet.links_to(broken, &binary(NEW));
    fleet.lab.start_server(broken).await.unwrap();
    fleet.lab.wait_until_easy(Duration::from_secs(60)).await.unwrap();
    let resumed = fleet.restart(&["--resume", id, "--yes"]).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    let versions = fleet.versions().await;
    assert!(versions.values().all(|v| v == NEW), "{versions:?}");
    assert!(fleet.hooks().values().all(|n| *n == 1), "{:?}", fleet.hooks());
    assert_eq!(fleet.open_rollouts().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_leaves_the_server_running_and_an_abort_lets_another_begin() {
    let fleet = fleet(1, Topology::OneCluster).await;
    std::fs::remove_file(fleet.lab.dir().parent().unwrap().join("target")).unwrap();
    let before = fleet.ids().await;
    let words = [&["--all", "--yes", "--lame-duck", "never"], &QUICK[..]].concat();
    let output = fleet.restart(&words).await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("running hook upgrade failed"), "{said}");
    assert!(fleet.versions().await.values().all(|v| v == OLD), "{said}");
    let touched = fleet.ids().await.iter().filter(|(h, id)| before[*h] != **id).count();
    assert_eq!(touched, 1, "{said}");
    let id = said
        .split("--resume ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let wrong = fleet.restart(&["--abort", "00000000"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(text(&wrong).contains(&format!("open is {id}")), "{}", text(&wrong));
    let abort = fleet.restart(&["--abort", id]).await;
    assert_eq!(abort.status.code(), Some(0), "{}", text(&abort));
    let gone = fleet.restart(&["--resume", id, "--yes"]).await;
    assert_eq!(gone.status.code(), Some(2), "{}", text(&gone));
    let next = fleet
        .restart(&["--all", "--yes", "--stagger", "0s", "--lame-duck", "never"])
        .await;
    assert_eq!(next.status.code(), Some(0), "{}", text(&next));
}

/// The operator's terminal dies at each step; nothing is done twice, and another one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_kills_the_command_at_any_step_can_go_on_from_elsewhere() {
    let fleet = fleet(2, Topology::OneCluster).await;
    kills::the_command_dies(&fleet).await;
}

/// kill -9 of the agent while its hook runs, and while its server restarts.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_in_the_middle_leaves_no_server_stopped_and_runs_no_hook_twice() {
    let fleet = fleet(1, Topology::OneCluster).await;
    fleet.hook_takes(4);
    let words = [&["--all", "--lame-duck", "never"], &QUICK[..]].concat();
    let mut rolling = fleet.begin(&words);
    let host = rolling.until("accepted").await["host"].as_str().unwrap().to_owned();
    for _ in 0..200 {
        if fleet.hooks().contains_key(&host) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(fleet.hooks().contains_key(&host), "the hook did not run");
    fleet.lab.kill_agent(&host).unwrap();
    fleet.lab.start_agent(&host).unwrap();
    let id = rolling.id();
    let (code, lines) = rolling.end().await;
    assert_eq!(code, Some(4), "{lines:#?}");
    let reason = lines.last().unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains("died while hook upgrade ran"), "{reason}");
    let versions = fleet.versions().await;
    assert!(
        versions.values().all(|v| v == OLD || v == NEW),
        "a server is down: {versions:?}"
    );
    assert_eq!(fleet.hooks()[&host], 1);

    // The hook went on by itself and did its work; whether or not, the rollout can be ended.
    fleet.hook_takes(0);
    fleet.lab.wait_until_easy(Duration::from_secs(60)).await.unwrap();
    // A fresh agent takes no command for a while.
    sleep(Duration::from_secs(11)).await;
    let (code, lines) = fleet.begin(&["--resume", &id]).end().await;
    assert_eq!(code, Some(0), "{lines:#?}");
    let versions = fleet.versions().await;
    assert!(versions.values().all(|v| v == NEW), "{versions:?}");
}
