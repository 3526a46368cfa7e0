//! Recordings of what a server's monitoring says of its system traffic, as fixtures for the pure detector.
//!
//! One JSON object a line: `at` in seconds, and whole answers of `/varz`, `/routez` and `/accstatz`, less the fields that no
//! agent reads. `/varz` and `/routez` stand only in lines where they are not as they were: their counters of single routes are
//! left out.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{LabError, Result, get_json};

const VARZ: [&str; 11] = [
    "server_id",
    "server_name",
    "version",
    "start",
    "system_account",
    "remotes",
    "cluster",
    "gateway",
    "jetstream",
    "mem",
    "connections",
];
const ROUTE: [&str; 5] = ["rid", "remote_id", "remote_name", "ip", "account"];
const ACCOUNT: [&str; 6] = ["acc", "conns", "total_conns", "sent", "received", "slow_consumers"];

/// Reads one server every `every` for `span`, and writes what it says. A server that does not answer is left out.
///
/// # Errors
/// Where `out` cannot be written.
pub async fn record(monitor: &str, every: Duration, span: Duration, out: &Path) -> Result<u64> {
    let failed = |source| LabError::File {
        what: "write",
        path: out.to_owned(),
        source,
    };
    let mut file = File::create(out).map_err(failed)?;
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(every);
    let (mut varz, mut routez) = (Value::Null, Value::Null);
    let mut lines = 0;
    while begun.elapsed() < span {
        ticks.tick().await;
        let at = (begun.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
        let mut line = json!({ "at": at });
        if let Ok(read) = get_json(&format!("{monitor}/varz")).await {
            let read = only(&read, &VARZ);
            if steady(&read) != steady(&varz) {
                line["varz"] = read.clone();
                varz = read;
            }
        }
        if let Ok(read) = get_json(&format!("{monitor}/routez")).await {
            let mut routes = each(&read["routes"], &ROUTE);
            // The server lists them in any order.
            routes.sort_by_key(|r| r["rid"].as_u64());
            let read = json!({ "server_id": read["server_id"], "routes": routes });
            if read != routez {
                line["routez"] = read.clone();
                routez = read;
            }
        }
        if let Ok(read) = get_json(&format!("{monitor}/accstatz?unused=1")).await {
            let mut accounts = each(&read["account_statz"], &ACCOUNT);
            for account in &mut accounts {
                for direction in ["sent", "received"] {
                    account[direction] = only(&account[direction], &["msgs", "bytes"]);
                }
            }
            line["accstatz"] = json!({ "server_id": read["server_id"], "account_statz": accounts });
        }
        writeln!(file, "{line}").map_err(failed)?;
        lines += 1;
    }
    Ok(lines)
}

/// Without what moves all the time.
fn steady(varz: &Value) -> Value {
    let mut varz = varz.clone();
    if let Some(fields) = varz.as_object_mut() {
        fields.remove("mem");
        fields.remove("connections");
    }
    varz
}

fn only(from: &Value, keys: &[&str]) -> Value {
    let kept = keys
        .iter()
        .filter_map(|k| Some(((*k).to_owned(), from.get(k)?.clone())));
    Value::Object(kept.collect::<Map<_, _>>())
}

fn each(list: &Value, keys: &[&str]) -> Vec<Value> {
    list.as_array()
        .map(|all| all.iter().map(|one| only(one, keys)).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_agent_reads_is_left_out_and_memory_alone_is_no_news() {
        let read = json!({"server_id": "A", "mem": 1, "now": "x", "cluster": {"name": "C"}});
        assert_eq!(
            only(&read, &VARZ),
            json!({"server_id": "A", "mem": 1, "cluster": {"name": "C"}})
        );
        assert_eq!(steady(&json!({"mem": 1, "a": 2})), steady(&json!({"mem": 3, "a": 2})));
        assert_eq!(each(&json!(null), &ROUTE), Vec::<Value>::new());
    }
}
