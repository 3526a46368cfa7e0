//! Reading the local server and its unit, each in its own task, so that a slow answer delays nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use crate::adapters::host::memory;
use crate::adapters::host::systemd::{Systemd, UnitState};
use crate::adapters::nats::lane::Input;
use crate::adapters::server::monitor::Monitor;
use crate::core::agent::event::{Event, UnitReport};
use crate::core::server::Endpoint;

/// `/routez` takes the server's write lock: never more often than this, however often it is asked for.
const LEAST_ROUTES: Duration = Duration::from_millis(250);
/// Between two looks at who leads streams, and before the first, when `/varz` has named the server.
const STREAMS: Duration = Duration::from_secs(30);
const FIRST_STREAMS: Duration = Duration::from_secs(2);
/// Between two looks at the unit.
const UNIT: Duration = Duration::from_secs(5);
/// Between two looks at its memory limit.
const MEMORY: Duration = Duration::from_secs(10);

/// `/varz` and `/healthz` every `poll`, `/routez`, `/gatewayz` and `/accstatz` every `poll_routes` and when
/// asked for. `/accstatz` takes each account's read lock for a moment, and never the server's.
pub(super) fn server(
    monitor: Monitor,
    poll: Duration,
    poll_routes: Duration,
    now: Arc<Notify>,
    inputs: mpsc::Sender<Input>,
) {
    let monitor = Arc::new(monitor);
    let (m, tx) = (monitor.clone(), inputs.clone());
    tokio::spawn(async move {
        let mut every = tokio::time::interval(poll);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if !(read(&m, Endpoint::Varz, &tx).await && read(&m, Endpoint::Healthz, &tx).await) {
                return;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            for endpoint in [Endpoint::Routez, Endpoint::Gatewayz, Endpoint::Accstatz] {
                if !read(&monitor, endpoint, &inputs).await {
                    return;
                }
            }
            tokio::time::sleep(LEAST_ROUTES.min(poll_routes)).await;
            let rest = poll_routes.saturating_sub(LEAST_ROUTES);
            let _ = tokio::time::timeout(rest, now.notified()).await;
        }
    });
}

/// Who leads streams, for the order of a rolling restart. It costs the server a look at each of its streams.
pub(super) fn streams(monitor: Monitor, inputs: mpsc::Sender<Input>) {
    tokio::spawn(async move {
        tokio::time::sleep(FIRST_STREAMS).await;
        while read(&monitor, Endpoint::Jsz, &inputs).await {
            tokio::time::sleep(STREAMS).await;
        }
    });
}

async fn read(monitor: &Monitor, endpoint: Endpoint, inputs: &mpsc::Sender<Input>) -> bool {
    let result = monitor.read(endpoint).await;
    inputs
        .send(Input::Event(Event::Server { endpoint, result }))
        .await
        .is_ok()
}

/// The unit's state.
pub(super) fn unit(unit: String, systemd: Arc<Systemd>, inputs: mpsc::Sender<Input>) {
    tokio::spawn(async move {
        loop {
            let state = systemd.unit_state(&unit).await;
            let report = state.map(|s| report(&s)).map_err(|e| e.to_string());
            if inputs.send(Input::Event(Event::Unit(report))).await.is_err() {
                return;
            }
            tokio::time::sleep(UNIT).await;
        }
    });
}

/// What memory the server may use. Limits are set at starts, and by operators while it runs.
pub(super) fn memory(unit: Option<String>, systemd: Arc<Systemd>, inputs: mpsc::Sender<Input>) {
    tokio::spawn(async move {
        loop {
            let pid = match &unit {
                Some(unit) => systemd.unit_state(unit).await.ok().map(|s| s.main_pid),
                None => None,
            };
            let pid = pid.filter(|pid| *pid != 0);
            let limit = tokio::task::spawn_blocking(move || memory::limit(pid))
                .await
                .ok()
                .flatten();
            if inputs.send(Input::Event(Event::MemoryLimit(limit))).await.is_err() {
                return;
            }
            tokio::time::sleep(MEMORY).await;
        }
    });
}

fn report(s: &UnitState) -> UnitReport {
    UnitReport {
        load: s.load_state.to_string(),
        active: s.active_state.to_string(),
        sub: s.sub_state.clone(),
    }
}
