//! What the watchdog is for, on real servers of three versions with real agents: a path that is up and passes nothing is
//! found, named, and healed by one host, without harm to any client. And what is none is left alone.
//!
//! Bounds here are loose, since machines are busy; the figures are measured by `make bench` and stand in docs/measured.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    collections::BTreeSet,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use nats_watchdog::lab::{AgentSpec, Flow, Lab, LabSpec, PoolSlot, Sticks, Topology, What, get_json};
use serde_json::Value;

const OLD: &str = "2.9.10";
const POOLED: &str = "2.10.26";
const NEW: &str = "2.15.1";
const READY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(45);
const SILENCE: Duration = Duration::from_millis(500);

fn spec(version: &str, mode: &str, toml: &str) -> LabSpec {
    let server = format!(".tools/servers/{version}/nats-server");
    let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(server);
    assert!(server.exists(), "{} is missing: run tools/servers.sh", server.display());
    let mut agents = AgentSpec::new(mode);
    agents.bin = env!("CARGO_BIN_EXE_watchdog").into();
    agents.extra_toml = toml.to_owned();
    LabSpec {
        agents: Some(agents),
        lab_bin: Some(env!("CARGO_BIN_EXE_watchdog-lab").into()),
        ..LabSpec::new(server)
    }
}

async fn start(spec: LabSpec) -> Lab {
    let lab = Lab::start(spec).await.unwrap();
    lab.wait_until_easy(READY).await.unwrap();
    // Health `ok` takes a few intervals; until then agents are not witnesses.
    eventually(READY, || async {
        for host in lab.hosts() {
            let health = api(&lab, &host.name, "status").await["agent"]["health"].clone();
            if health != "ok" {
                return Err(format!("{} is {health}", host.name));
            }
        }
        Ok(())
    })
    .await;
    lab
}

async fn eventually<F, R>(limit: Duration, mut check: F)
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), String>>,
{
    let end = Instant::now() + limit;
    loop {
        match check().await {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < end, "not within {limit:?}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn api(lab: &Lab, host: &str, what: &str) -> Value {
    let url = format!("http://{}/api/v1/{what}", lab.host(host).unwrap().agent_http);
    get_json(&url).await.unwrap_or_default()
}

/// (host, event, subject, text) of all agents.
async fn records(lab: &Lab) -> Vec<(String, String, String, String)> {
    let mut all = Vec::new();
    for host in lab.hosts() {
        let history = api(lab, &host.name, "history").await;
        for r in history["history"].as_array().into_iter().flatten() {
            let field = |name: &str| r[name].as_str().unwrap_or_default().to_owned();
            all.push((host.name.clone(), field("event"), field("subject"), field("text")));
        }
    }
    all
}

async fn acts(lab: &Lab) -> Vec<(String, String, String)> {
    let records = records(lab).await;
    records
        .into_iter()
        .filter(|r| r.1 == "act")
        .map(|(host, _, subject, text)| (host, subject, text))
        .collect()
}

async fn faults(lab: &Lab) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for host in lab.hosts() {
        for f in api(lab, &host.name, "faults").await["faults"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let field = |name: &str| f[name].as_str().unwrap_or_default().to_owned();
            all.insert((field("id"), field("kind")));
        }
    }
    all
}

async fn healed(lab: &Lab, by: &str, fault: &str) {
    eventually(SOON, || async {
        let records = records(lab).await;
        let done = |r: &&(String, String, String, String)| r.0 == by && r.2 == fault && r.3.starts_with("healed by");
        match records.iter().find(done) {
            Some(_) => Ok(()),
            None => Err(format!("{by} has not healed {fault}: {:?}", acts(lab).await)),
        }
    })
    .await;
    quiet(lab).await;
}

/// All faults are gone and every path is ok.
async fn quiet(lab: &Lab) {
    eventually(SOON, || async {
        let faults = faults(lab).await;
        if faults.is_empty() {
            Ok(())
        } else {
            Err(format!("{faults:?}"))
        }
    })
    .await;
    lab.wait_until_easy(SOON).await.unwrap();
}

/// Root may reset sockets; without it these tests cannot run.
fn may_reset() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap().trim();
    let may = u64::from_str_radix(effective, 16).unwrap() >> 12 & 1 == 1;
    if !may {
        eprintln!("SKIPPED: resetting sockets needs root or CAP_NET_ADMIN");
    }
    may
}

async fn a_stalled_route_is_reset(version: &str) {
    if !may_reset() {
        return;
    }
    let lab = start(spec(version, "reset", "")).await;
    let mut flow = Flow::start(lab.host("iad-1").unwrap(), lab.host("nrt-2").unwrap())
        .await
        .unwrap();
    let begin = Instant::now();
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    healed(&lab, "nrt-2", "route:iad-1>nrt-2").await;
    let acts = acts(&lab).await;
    assert_eq!(acts.len(), 1, "exactly one host acts: {acts:?}");
    eventually(SOON, || {
        std::future::ready(flow.gap(begin, SILENCE).map(drop).ok_or("no flow".to_owned()))
    })
    .await;
    let gap = flow.gap(begin, SILENCE).unwrap();
    assert!(
        gap.resumed - begin < Duration::from_secs(15),
        "{:?}",
        gap.resumed - begin
    );
    assert_eq!(flow.disconnects(), 0, "a client was disconnected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_route_is_reset_on_2_9() {
    a_stalled_route_is_reset(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_route_is_reset_on_2_10() {
    a_stalled_route_is_reset(POOLED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_route_is_reset_on_the_newest() {
    a_stalled_route_is_reset(NEW).await;
}

/// Who heard a goodbye misses nobody, until others say that the host is there again.
async fn who_comes_back_behind_a_stall_is_missed_there(version: &str) {
    if !may_reset() {
        return;
    }
    let lab = start(spec(version, "reset", "")).await;
    lab.stop_agent("iad-1").await.unwrap();
    eventually(SOON, || async {
        let said = records(&lab).await;
        let left = |r: &(String, String, String, String)| r.0 == "nrt-2" && r.3.contains("iad-1 said goodbye");
        if said.iter().any(left) {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    })
    .await;
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    let begin = Instant::now();
    lab.start_agent("iad-1").unwrap();
    healed(&lab, "nrt-2", "route:iad-1>nrt-2").await;
    eprintln!(
        "heard again {:.1} s after the start of its agent",
        begin.elapsed().as_secs_f64()
    );
    let acts = acts(&lab).await;
    assert_eq!(acts.len(), 1, "exactly one host acts: {acts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_behind_a_stall_is_missed_there_on_2_9() {
    who_comes_back_behind_a_stall_is_missed_there(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_behind_a_stall_is_missed_there_on_2_10() {
    who_comes_back_behind_a_stall_is_missed_there(POOLED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_behind_a_stall_is_missed_there_on_the_newest() {
    who_comes_back_behind_a_stall_is_missed_there(NEW).await;
}

async fn a_stalled_route_is_healed_by_a_restart(version: &str) {
    // All agents of this machine share a file of permits; without a store a turn comes by lot.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("permits.json");
    let toml = format!("[remediation]\npath_resets = false\n[permits]\nstore = \"file\"\nfile = {file:?}\n");
    let lab = start(spec(version, "restart", &toml)).await;
    let before = lab.server_pid("nrt-2");
    let mut flow = Flow::start(lab.host("iad-1").unwrap(), lab.host("nrt-1").unwrap())
        .await
        .unwrap();
    let begin = Instant::now();
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    healed(&lab, "nrt-2", "route:iad-1>nrt-2").await;
    assert!(begin.elapsed() < Duration::from_secs(60));
    let acts = acts(&lab).await;
    assert_eq!(acts.len(), 1, "exactly one host acts: {acts:?}");
    assert_ne!(lab.server_pid("nrt-2"), before);
    eventually(SOON, || async {
        let document = std::fs::read_to_string(&file).unwrap();
        let back = document.contains("\"holders\": []") && document.contains("\"released\":");
        if back { Ok(()) } else { Err(document) }
    })
    .await;
    assert_eq!(flow.gap(begin, SILENCE), None, "the flow beside it was disturbed");
    assert_eq!(flow.disconnects(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_route_is_healed_by_a_restart_on_2_9() {
    a_stalled_route_is_healed_by_a_restart(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_route_is_healed_by_a_restart_on_2_10() {
    a_stalled_route_is_healed_by_a_restart(POOLED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_route_is_healed_by_a_restart_on_the_newest() {
    a_stalled_route_is_healed_by_a_restart(NEW).await;
}

/// Loss between two regions looks like this to each receiver: one check of the network that passes is no proof then.
#[tokio::test(flavor = "multi_thread")]
async fn where_paths_beside_it_stall_too_a_restart_waits_for_one_more_try_and_one_follows_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("permits.json");
    let toml = format!(
        "[remediation]\npath_resets = false\nmax_sick_fraction = 0.5\n[permits]\nstore = \"file\"\nfile = {file:?}\nspacing = \"5s\"\n"
    );
    let lab = start(spec(NEW, "restart", &toml)).await;
    let pids: Vec<_> = lab.hosts().iter().map(|h| lab.server_pid(&h.name)).collect();
    let begin = Instant::now();
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    lab.stall("iad-2", "nrt-1", What::Messages).unwrap();
    eventually(SOON, || async {
        match acts(&lab).await.len() {
            0 => Err("nobody acts".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    // 3 s of silence are a verdict, then the network is looked at; three times that and its allowance follow. A stall that
    // is alone is acted on after 7 s.
    let waited = begin.elapsed();
    assert!(waited > Duration::from_secs(13), "{waited:?}");
    let said = records(&lab).await;
    let held = said.iter().any(|r| r.3.contains("the next try of a connection"));
    assert!(held, "{said:?}");
    healed(&lab, "nrt-2", "route:iad-1>nrt-2").await;
    healed(&lab, "nrt-1", "route:iad-2>nrt-1").await;
    let mut who: Vec<String> = acts(&lab).await.into_iter().map(|a| a.0).collect();
    who.sort();
    assert_eq!(who, ["nrt-1", "nrt-2"], "each receiver acts once, nobody else does");
    for (host, pid) in lab.hosts().iter().zip(pids) {
        let same = lab.server_pid(&host.name) == pid;
        assert_eq!(same, !who.contains(&host.name), "{}", host.name);
    }
}

async fn a_server_that_did_not_come_back_is_the_last_one(version: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (bad, wrapper) = (dir.path().join("bad"), dir.path().join("nats-server"));
    let toml = "[remediation]\npath_resets = false\nmax_sick_fraction = 0.5\n";
    let mut spec = spec(version, "restart", toml);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *nrt-2*) [ -e {} ] && exit 1 ;; esac\nexec {} \"$@\"\n",
        bad.display(),
        spec.server.display()
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
    spec.server = wrapper;
    let lab = start(spec).await;
    std::fs::write(&bad, "").unwrap();
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    eventually(SOON, || async {
        match acts(&lab).await.as_slice() {
            [(host, ..)] if host == "nrt-2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    lab.stall("iad-1", "nrt-1", What::Messages).unwrap();
    // The restart that has begun holds this one for 160 s, and what came of it until that host is back.
    eventually(Duration::from_secs(240), || async {
        let faults = api(&lab, "nrt-1", "faults").await.to_string();
        match faults.contains("gave up: the server of nrt-2 was being restarted, and nobody has heard that host since")
        {
            true => Ok(()),
            false => Err(faults),
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(acts(&lab).await.len(), 1);
    // Mended: its host is back, and the next one gets its turn.
    std::fs::remove_file(&bad).unwrap();
    lab.start_server("nrt-2").await.unwrap();
    healed(&lab, "nrt-1", "route:iad-1>nrt-1").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: so long a restart may still end well"]
async fn without_a_store_a_server_that_did_not_come_back_is_the_last_one_on_2_9() {
    a_server_that_did_not_come_back_is_the_last_one(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: so long a restart may still end well"]
async fn without_a_store_a_server_that_did_not_come_back_is_the_last_one_on_2_10() {
    a_server_that_did_not_come_back_is_the_last_one(POOLED).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: so long a restart may still end well"]
async fn without_a_store_a_server_that_did_not_come_back_is_the_last_one_on_the_newest() {
    a_server_that_did_not_come_back_is_the_last_one(NEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_finds_the_same_and_touches_nothing() {
    let lab = start(spec(NEW, "observe", "")).await;
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    eventually(SOON, || async {
        let said = records(&lab).await;
        let would = said
            .iter()
            .any(|r| r.0 == "nrt-2" && r.1 == "would" && r.3.contains("would reset ") && r.3.contains("to iad-1"));
        if would { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    assert_eq!(acts(&lab).await, []);
    assert_eq!(
        faults(&lab).await,
        BTreeSet::from([("route:iad-1>nrt-2".to_owned(), "route".to_owned())])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_waits_for_ever_for_info_is_found_and_reset() {
    if !may_reset() {
        return;
    }
    let lab = start(LabSpec {
        topology: Topology::ClusterPerRegion,
        ..spec(OLD, "reset", "[remediation]\nmesh_confirm = \"4s\"\n")
    })
    .await;
    let pid = lab.server_pid("iad-1");
    lab.hold_gateway_info("iad-1", "fra").unwrap();
    eventually(SOON, || async {
        let found = faults(&lab).await;
        let named = found
            .iter()
            .any(|(id, kind)| id == "gateway:iad-1>cluster fra" && kind == "gateway");
        if named { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    healed(&lab, "iad-1", "gateway:iad-1>cluster fra").await;
    let acts = acts(&lab).await;
    assert!(
        acts.iter()
            .all(|(host, _, text)| host == "iad-1" && text.starts_with("reset")),
        "{acts:?}"
    );
    assert_eq!(lab.server_pid("iad-1"), pid, "healed without a restart");
}

async fn only_new_interest_is_missing(version: &str) {
    if !may_reset() {
        return;
    }
    let lab = start(spec(version, "reset", "")).await;
    lab.stall("iad-1", "nrt-2", What::Interest).unwrap();
    healed(&lab, "iad-1", "interest:iad-1>nrt-2").await;
    let acts = acts(&lab).await;
    assert!(acts.iter().all(|(host, ..)| host == "iad-1"), "{acts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_new_interest_is_missing_on_2_9() {
    only_new_interest_is_missing(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_new_interest_is_missing_on_the_newest() {
    only_new_interest_is_missing(NEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_pool_connection_is_seen_by_the_lane_on_it() {
    if !may_reset() {
        return;
    }
    let lab = start(LabSpec {
        accounts: vec!["audit".to_owned()],
        ..spec(POOLED, "reset", "")
    })
    .await;
    lab.stall("iad-1", "nrt-2", What::Pool(PoolSlot::Account("audit".to_owned())))
        .unwrap();
    healed(&lab, "nrt-2", "pool:iad-1>nrt-2").await;
    let acts = acts(&lab).await;
    assert_eq!(acts.len(), 1, "{acts:?}");
}

async fn two_routes_that_stall_at_once(version: &str) {
    if !may_reset() {
        return;
    }
    let lab = start(spec(version, "reset", "")).await;
    let pids: Vec<_> = lab.hosts().iter().map(|h| lab.server_pid(&h.name)).collect();
    lab.stall("iad-1", "nrt-2", What::Messages).unwrap();
    lab.stall("fra-2", "iad-2", What::Messages).unwrap();
    healed(&lab, "nrt-2", "route:iad-1>nrt-2").await;
    healed(&lab, "iad-2", "route:fra-2>iad-2").await;
    let mut acts = acts(&lab).await;
    acts.sort();
    let who: Vec<(&str, &str)> = acts.iter().map(|a| (a.0.as_str(), a.1.as_str())).collect();
    let right = [("iad-2", "route:fra-2>iad-2"), ("nrt-2", "route:iad-1>nrt-2")];
    assert_eq!(who, right, "each receiver acts once, nobody else does: {acts:?}");
    for (host, pid) in lab.hosts().iter().zip(pids) {
        assert_eq!(lab.server_pid(&host.name), pid, "{} was restarted", host.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routes_that_stall_at_once_are_healed_by_their_receivers_on_2_9() {
    two_routes_that_stall_at_once(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routes_that_stall_at_once_are_healed_by_their_receivers_on_the_newest() {
    two_routes_that_stall_at_once(NEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remedy_that_does_not_help_is_not_repeated_for_ever() {
    if !may_reset() {
        return;
    }
    let toml = "[remediation]\nverify = \"2s\"\nsender_delay = \"120s\"\n";
    let lab = start(spec(NEW, "reset", toml)).await;
    lab.stall_on("iad-1", "nrt-2", What::Messages, Sticks::Pair).unwrap();
    eventually(SOON, || async {
        let said = records(&lab).await;
        let end = said.iter().any(|r| r.0 == "nrt-2" && r.1 == "gave_up");
        if end {
            Ok(())
        } else {
            Err(format!("{:?}", acts(&lab).await))
        }
    })
    .await;
    assert_eq!(acts(&lab).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_servers_and_slow_agents_are_nobodys_reason_to_act() {
    let lab = start(spec(NEW, "restart", "")).await;
    let pids: Vec<_> = lab.hosts().iter().map(|h| lab.server_pid(&h.name)).collect();

    // A killed server: its host is the fault, for as long as it lasts.
    lab.kill_server("fra-1").unwrap();
    eventually(SOON, || async {
        let found = faults(&lab).await;
        let named = found.iter().any(|(id, _)| id == "host:fra-1");
        if named { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let status = api(&lab, "fra-1", "status").await;
    assert_eq!(status["server"]["up"], false);
    lab.start_server("fra-1").await.unwrap();
    quiet(&lab).await;

    // An agent that is stopped in order has departed.
    lab.stop_agent("iad-2").await.unwrap();
    eventually(SOON, || async {
        let said = records(&lab).await;
        let goodbyes = said
            .iter()
            .filter(|r| r.2 == "iad-2" && r.3.contains("goodbye"))
            .count();
        if goodbyes == 5 {
            Ok(())
        } else {
            Err(format!("{goodbyes} of 5 heard the goodbye"))
        }
    })
    .await;
    assert_eq!(faults(&lab).await, BTreeSet::new());
    lab.start_agent("iad-2").unwrap();
    quiet(&lab).await;

    // An agent that stands still for five seconds blames itself.
    lab.freeze_agent("nrt-1").unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    lab.thaw_agent("nrt-1").unwrap();
    eventually(SOON, || async {
        let said = records(&lab).await;
        let blames = said.iter().any(|r| r.0 == "nrt-1" && r.3.contains("stood still"));
        if blames {
            Ok(())
        } else {
            Err("nrt-1 does not blame itself".to_owned())
        }
    })
    .await;
    quiet(&lab).await;

    // A server that its operator restarts.
    lab.restart_server("fra-2").await.unwrap();
    quiet(&lab).await;

    assert_eq!(acts(&lab).await, []);
    for (host, pid) in lab.hosts().iter().zip(pids) {
        let touched = ["fra-1", "fra-2"].contains(&host.name.as_str());
        assert_eq!(lab.server_pid(&host.name) != pid, touched, "{}", host.name);
    }
}
