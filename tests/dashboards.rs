//! Every query of the dashboard and of the alerts, run by a real Prometheus that has scraped the real `/metrics`.
//!
//! Without `WATCHDOG_TARGETS` (`host:port,host:port`) the targets are made-up agents behind the real HTTP adapter, and
//! with the feature `lab` real agents on real servers, one of which stalls and is restarted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::prometheus::Prometheus;
use common::{Served, sample};
use serde_json::Value;
use tokio::time::{Instant, sleep};

struct Query {
    place: String,
    expr: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What Grafana would send with every variable at "all" and the shortest interval.
fn substituted(expr: &str) -> String {
    expr.replace("$__rate_interval", "5s")
        .replace("$job", "watchdog")
        .replace("$instance", ".*")
        .replace("$region", ".*")
}

fn dashboard() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&read("dashboards/watchdog.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(Query {
                place: format!("panel {}", panel["title"]),
                expr: substituted(target["expr"].as_str().unwrap()),
            });
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inner = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
        let (metric, label) = inner.and_then(|q| q.rsplit_once(", ")).unwrap();
        queries.push(Query {
            place: format!("variable {}", variable["name"]),
            expr: format!("group by ({label}) ({})", substituted(metric)),
        });
    }
    assert!(queries.len() > 40, "only {} queries found", queries.len());
    queries
}

fn finite(sample: &Value) -> bool {
    let value = sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
    value.is_some_and(f64::is_finite)
}

/// Queries that give no figure until `wait` is over, or that Prometheus refuses.
async fn without_data(prometheus: &Prometheus, queries: Vec<Query>, wait: Duration) -> Vec<String> {
    let deadline = Instant::now() + wait;
    let mut silent = Vec::new();
    for Query { place, expr } in queries {
        loop {
            match prometheus.query(&expr).await {
                Ok(result) if result.iter().any(finite) => break,
                Err(error) => {
                    silent.push(format!("{place}: {expr}\n    {error}"));
                    break;
                }
                Ok(result) if Instant::now() >= deadline => {
                    silent.push(format!("{place}: {expr}\n    {result:?}"));
                    break;
                }
                Ok(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
    silent
}

/// Made-up agents in three regions that live for as long as the test: counters grow every half second.
async fn made_up_agents() -> Vec<Served> {
    let mut agents = Vec::new();
    for (host, region) in [("iad-1", "iad"), ("fra-1", "fra"), ("syd-1", "syd")] {
        let mut snapshot = sample::full();
        snapshot.agent.host = sample::host(host);
        snapshot.agent.region = sample::region(region);
        snapshot.server.name = host.to_owned();
        let served = Served::start(snapshot.clone()).await;
        let sender = served.snapshots.clone();
        tokio::spawn(async move {
            while sender.send(Arc::new(snapshot.clone())).is_ok() {
                sleep(Duration::from_millis(500)).await;
                sample::tick(&mut snapshot);
            }
        });
        agents.push(served);
    }
    agents
}

fn given_targets() -> Option<Vec<SocketAddr>> {
    let targets = std::env::var("WATCHDOG_TARGETS").ok()?;
    Some(
        targets
            .split(',')
            .map(|target| target.trim().parse().unwrap())
            .collect(),
    )
}

#[tokio::test]
async fn every_dashboard_query_has_data_and_every_rule_is_evaluated() {
    let agents = made_up_agents().await;
    let targets = given_targets().unwrap_or_else(|| agents.iter().map(|agent| agent.address).collect());
    let Some(prometheus) = Prometheus::start(&targets).await else {
        return;
    };

    let silent = without_data(&prometheus, dashboard(), Duration::from_secs(30)).await;
    assert!(silent.is_empty(), "no data for:\n{}", silent.join("\n"));

    let rules = prometheus.rules().await;
    assert!(rules.len() > 10, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
        let expr = rule["query"].as_str().unwrap();
        prometheus
            .query(expr)
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", rule["name"]));
    }
    if given_targets().is_none() {
        let firing = r#"ALERTS{alertname="WatchdogRemedyGaveUp", alertstate="firing"}"#;
        let silent = without_data(
            &prometheus,
            vec![Query {
                place: "the made-up fault that was given up".to_owned(),
                expr: firing.to_owned(),
            }],
            Duration::from_secs(10),
        )
        .await;
        assert!(silent.is_empty(), "{silent:?}");
    }
}

/// Two regions in one cluster (between clusters it is chance whose gateway traffic a route carries), and a stall that an agent heals by a restart: what makes every panel speak but a few.
#[cfg(feature = "lab")]
mod real {
    use std::path::PathBuf;

    use nats_watchdog::lab::{AgentSpec, Lab, LabSpec, Sticks, What};

    use super::*;

    /// Panels whose figures take longer than a test: of two acts in an hour, of what goes wrong only seldom.
    const SELDOM: [&str; 4] = [
        "panel \"Acts\"",
        "panel \"Probes without an answer\"",
        "panel \"Messages dropped\"",
        "panel \"Refusals by gate\"",
    ];

    async fn lab() -> Lab {
        let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/servers/2.10.26/nats-server");
        assert!(server.exists(), "{} is missing: run tools/servers.sh", server.display());
        let agents = AgentSpec {
            bin: env!("CARGO_BIN_EXE_watchdog").into(),
            extra_toml: "[remediation]\npath_resets = false".to_owned(),
            ..AgentSpec::new("restart")
        };
        Lab::start(LabSpec {
            regions: ["iad", "fra"].map(str::to_owned).to_vec(),
            agents: Some(agents),
            lab_bin: Some(env!("CARGO_BIN_EXE_watchdog-lab").into()),
            ..LabSpec::new(server)
        })
        .await
        .unwrap()
    }

    fn one(place: &str, expr: &str) -> Vec<Query> {
        vec![Query {
            place: place.to_owned(),
            expr: expr.to_owned(),
        }]
    }

    #[tokio::test]
    async fn every_dashboard_query_has_data_from_real_agents() {
        let lab = lab().await;
        let targets: Vec<SocketAddr> = lab.hosts().iter().map(|h| h.agent_http.parse().unwrap()).collect();
        let Some(prometheus) = Prometheus::start(&targets).await else {
            return;
        };
        let well = one("all paths well", r#"sum(watchdog_paths{state="ok"}) == 12"#);
        let silent = without_data(&prometheus, well, Duration::from_secs(60)).await;
        assert!(silent.is_empty(), "{silent:?}");

        lab.stall_on("iad-1", "iad-2", What::Messages, Sticks::Connections)
            .unwrap();
        for (place, expr) in [
            ("a stall is seen", r#"watchdog_paths{state="stalled"} > 0"#),
            ("a fault is named", r#"watchdog_faults{kind="route", region="iad"} > 0"#),
            (
                "it is healed by a restart",
                r#"watchdog_remediation_actions_total{action="restart", outcome="healed"} > 0"#,
            ),
        ] {
            let silent = without_data(&prometheus, one(place, expr), Duration::from_secs(60)).await;
            assert!(silent.is_empty(), "{silent:?}\n{}", lab.agent_log("iad-2"));
        }
        let expected = dashboard()
            .into_iter()
            .filter(|q| !SELDOM.contains(&q.place.as_str()) && !q.expr.contains("watchdog_gateways_"))
            .collect();
        let silent = without_data(&prometheus, expected, Duration::from_secs(45)).await;
        assert!(silent.is_empty(), "no data for:\n{}", silent.join("\n"));
        for rule in prometheus.rules().await {
            assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
        }
    }
}
