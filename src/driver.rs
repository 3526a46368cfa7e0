//! The driver: the only reader of clock and entropy. Takes events to the core, its wishes to the adapters, and what
//! becomes of them back as events. One loop, one owner of the state; readers get snapshots.

mod acts;
mod control;
mod keep;
mod permits;
mod poll;
mod steps;
mod system;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, info, warn};

use crate::adapters::host::sockets::{self, ServerEndpoint};
use crate::adapters::host::systemd::Systemd;
use crate::adapters::http;
use crate::adapters::nats::lane::{self, Input, Lane};
use crate::adapters::server::monitor::Monitor;
use crate::adapters::store::register::{self, Permits};
use crate::config::settings::RestartVia;
use crate::config::{Env, Settings};
use crate::core::agent::event::{Action, Event};
use crate::core::agent::{Core, Restored, TICK};
use crate::core::canary::beacon::Beacon;
use crate::core::control::{NonceMemory, Watermark};
use crate::core::ids::{HostName, LaneName, Mono, Now, Wall};
use crate::core::policy::{Policy, RestartWays};
use crate::core::remedy::ledger::Boot;
use crate::core::server::Sample;
use crate::core::view::Snapshot;

use keep::Keeper;

/// Inputs that wait for the loop; a second of a 900-host fleet is far below.
const QUEUE: usize = 8192;
/// Inputs taken between two looks at the clock.
const BATCH: usize = 256;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Snapshots are made this often, and at once when something is recorded.
const SNAPSHOT: Duration = Duration::from_secs(1);

struct Clock(Instant);

impl Clock {
    fn now(&self) -> Now {
        Now {
            mono: Mono(self.0.elapsed()),
            wall: Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

struct Driver {
    settings: Settings,
    config: Option<PathBuf>,
    clock: Clock,
    core: Core,
    lanes: BTreeMap<LaneName, Lane>,
    inputs: mpsc::Sender<Input>,
    routes_now: Arc<Notify>,
    keeper: Option<Arc<Keeper>>,
    system: system::Counting,
    permits: Option<Arc<Permits>>,
    systemd: Arc<Systemd>,
    endpoint: Option<ServerEndpoint>,
    listen: Option<IpAddr>,
    nonces: NonceMemory,
    snapshots: watch::Sender<Arc<Snapshot>>,
    snapshot_at: Instant,
    news: bool,
    leaving: bool,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be had at start: the HTTP address, the state directory of another agent, unreadable credentials.
pub async fn run(settings: Settings, config: Option<PathBuf>) -> Result<()> {
    let listener = http::bind(settings.http).await?;
    let keeper = keep::open(settings.state.as_deref())?;
    let clock = Clock(Instant::now());
    let now = clock.now();
    let taken = match &keeper {
        Ok(Some(keeper)) => keeper.watermark(),
        _ => Watermark::default(),
    };
    let restored = restored(&settings, keeper.as_ref()).await;
    let core = Core::new(policy(&settings), restored, rand::random(), now);
    let (inputs, queue) = mpsc::channel(QUEUE);
    let mut lanes = BTreeMap::new();
    for (i, l) in settings.lanes.iter().enumerate() {
        let opened = lane::open(l, &settings.host, &settings.prefix, i == 0, inputs.clone())
            .await
            .with_context(|| format!("lane {}", l.name))?;
        lanes.insert(l.name.clone(), opened);
    }
    let permits = register::open(&settings.permits, &format!("watchdog {} permits", settings.host))
        .await
        .map_err(|e| anyhow::anyhow!("permits: {e}"))?;
    let (snapshots, readers) = watch::channel(Arc::new(core.snapshot(now)));
    let driver = Driver {
        config,
        core,
        lanes,
        inputs,
        routes_now: Arc::new(Notify::new()),
        keeper: keeper.ok().flatten().map(Arc::new),
        system: system::Counting::default(),
        permits: permits.map(Arc::new),
        systemd: Arc::new(Systemd::new()),
        endpoint: None,
        listen: None,
        nonces: NonceMemory::restored(now.wall, taken),
        snapshots,
        snapshot_at: Instant::now(),
        news: true,
        leaving: false,
        settings,
        clock,
    };
    driver.go(queue, listener, readers).await
}

/// What the core is told of the settings.
#[must_use]
pub fn policy(s: &Settings) -> Policy {
    Policy {
        host: s.host.clone(),
        region: s.region.clone(),
        lanes: s.lanes.iter().map(|l| l.name.clone()).collect(),
        canary: s.canary.clone(),
        remediation: s.remediation.clone(),
        brownout: s.brownout.clone(),
        permits: s.permits.rules.clone(),
        restart_deadline: s.server.restart_deadline,
        restart: restart_ways(s),
        has_unit: matches!(s.server.restart, RestartVia::Unit(_)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// A lame duck may take so much longer than its duration.
const LAME_DUCK_MARGIN: Duration = Duration::from_secs(30);

fn restart_ways(s: &Settings) -> RestartWays {
    let (lame_duck, can_stop) = match &s.server.restart {
        RestartVia::Unit(_) => (true, true),
        RestartVia::Command(_, parts) => (parts.lame_duck.is_some(), parts.stop.is_some()),
    };
    RestartWays {
        hooks: s
            .hooks
            .iter()
            .map(|(name, hook)| (name.clone(), hook.timeout))
            .collect(),
        lame_duck: lame_duck.then_some(s.server.lame_duck_duration + LAME_DUCK_MARGIN),
        can_stop,
        step_down: s.system.is_some(),
    }
}

/// Linux only: elsewhere the wall clock alone tells how long the agent was away.
pub(super) fn boot() -> Option<Boot> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let up = uptime.split_whitespace().next()?.parse().ok()?;
    Some(Boot {
        id: id.trim().to_owned(),
        up: Duration::try_from_secs_f64(up).ok()?,
    })
}

async fn restored(settings: &Settings, keeper: Result<&Option<Keeper>, &String>) -> Restored {
    let mut restored = Restored {
        reset_unavailable: sockets::capability().await.err().map(|e| e.to_string()),
        boot: boot(),
        ..Restored::default()
    };
    match keeper {
        Err(e) => restored.state_error = Some(e.clone()),
        Ok(None) => {
            restored.state_error = Some(
                "no state.directory is configured: nothing is kept, so nothing is done but what operators order"
                    .to_owned(),
            );
        }
        Ok(Some(keeper)) => keeper.restore(&mut restored),
    }
    if let Some(e) = &restored.state_error {
        warn!("{e}");
    }
    if let Some(e) = restored
        .reset_unavailable
        .as_ref()
        .filter(|_| settings.remediation.path_resets)
    {
        warn!("sockets cannot be reset here: {e}");
    }
    restored
}

impl Driver {
    async fn go(
        mut self,
        mut queue: mpsc::Receiver<Input>,
        listener: TcpListener,
        readers: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<()> {
        let (stop_http, stopped) = watch::channel(false);
        let mut stopped_http = stopped.clone();
        let web = tokio::spawn(http::serve(listener, readers, async move {
            let _ = stopped_http.wait_for(|stop| *stop).await;
        }));
        self.poll()?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut hup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        info!(host = %self.settings.host, region = %self.settings.region, mode = self.settings.remediation.mode.name(),
            http = %self.settings.http, "watchdog {} is up", env!("CARGO_PKG_VERSION"));
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let alive = sd_notify::watchdog_enabled().map(|limit| limit / 4);
        let mut said_alive = Instant::now();
        let mut inputs = Vec::with_capacity(BATCH);
        while !self.leaving {
            tokio::select! {
                biased;
                _ = tick.tick() => self.event(Event::Tick).await,
                _ = term.recv() => self.event(Event::Shutdown).await,
                _ = int.recv() => self.event(Event::Shutdown).await,
                _ = hup.recv() => self.reload().await,
                n = queue.recv_many(&mut inputs, BATCH) => {
                    if n == 0 {
                        break;
                    }
                    for input in inputs.drain(..) {
                        self.input(input).await;
                    }
                }
            }
            self.show();
            if alive.is_some_and(|every| said_alive.elapsed() >= every) {
                said_alive = Instant::now();
                let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&self.status_line())]);
            }
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        for lane in self.lanes.values() {
            lane.flush(GOODBYE).await;
        }
        let _ = stop_http.send(true);
        let _ = tokio::time::timeout(GOODBYE, web).await;
        if let Some(keeper) = &self.keeper {
            keeper.finish();
        }
        info!("left in order");
        Ok(())
    }

    async fn input(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.event(event).await,
            Input::Control { payload, reply } => self.request(&payload, reply).await,
            Input::Taken { order, kept, reply } => self.order(*order, kept, reply).await,
        }
    }

    async fn event(&mut self, event: Event) {
        self.overhear(&event);
        self.count_system(&event);
        let now = self.clock.now();
        let actions = self.core.handle(event, now);
        self.carry_out(actions).await;
    }

    /// What the adapters need to know of the server.
    fn overhear(&mut self, event: &Event) {
        match event {
            Event::Server {
                result: Ok(Sample::Varz(v)),
                ..
            } => {
                self.endpoint = Some(ServerEndpoint {
                    host: v.host.clone(),
                    port: v.port,
                });
                self.listen = v
                    .cluster_addr
                    .as_ref()
                    .or(v.gateway_addr.as_ref())
                    .and_then(|(host, _)| host.parse().ok());
            }
            Event::Dropped { reason, detail } => debug!(reason, "dropped: {detail}"),
            _ => {}
        }
    }

    async fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish { lane, beacon } => {
                    let (host, region) = (&self.settings.host, &self.settings.region);
                    let subject = Beacon::subject(&self.settings.prefix, region, host);
                    if let Some(lane) = self.lanes.get(&lane)
                        && !lane.publish(subject, beacon.encode()).await
                    {
                        debug!(lane = %lane.name(), "a beacon could not be sent");
                    }
                }
                Action::Probe { id, lane, target } => self.probe(id, &lane, &target),
                Action::CheckNetwork { check, addresses } => self.check_network(check, addresses),
                Action::SaveLedger { act, ledger } => self.save_ledger(act, ledger),
                Action::SaveRoster(roster) => self.save_roster(roster),
                Action::Reset { act, target } => self.reset(act, target),
                Action::Restart { act } => self.restart(act),
                Action::Step { act, step } => self.step(act, step),
                Action::SaveRollout(rollout) => self.save_rollout(rollout),
                Action::ReadPermits { ask } => self.read_permits(ask),
                Action::WritePermits { ask, bytes, expect } => self.write_permits(ask, bytes, expect),
                Action::ReadRoutes => self.routes_now.notify_one(),
                Action::Record(record) => self.record(record),
                Action::Tell(told) => self.tell(&told).await,
                Action::Leave => self.leaving = true,
            }
        }
    }

    fn probe(&self, id: u64, lane: &LaneName, target: &HostName) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.probe(id, target);
        }
    }

    fn show(&mut self) {
        if self.news || self.snapshot_at.elapsed() >= SNAPSHOT {
            self.news = false;
            self.snapshot_at = Instant::now();
            let snapshot = Arc::new(self.core.snapshot(self.clock.now()));
            self.snapshots.send_replace(snapshot);
        }
    }

    fn status_line(&self) -> String {
        let s = self.snapshots.borrow();
        let stalled: u64 = s.regions.iter().filter_map(|r| r.paths.get("stalled")).sum();
        format!(
            "server {}, {} hosts known, {stalled} paths stalled, {} faults, mode {}",
            if s.server.up { "up" } else { "down" },
            s.agent.roster,
            s.faults.len(),
            s.remediation.mode
        )
    }

    /// SIGHUP: a bad file changes nothing and says so.
    async fn reload(&mut self) {
        let loaded = match Settings::load(self.config.as_deref(), &Env::system()) {
            Ok(loaded) => loaded,
            Err(errors) => {
                error!("the configuration was not reloaded, nothing changed:\n{errors}");
                return;
            }
        };
        let mut new = loaded.settings;
        let now = self.clock.now();
        let actions = self.core.reload(new.canary.clone(), new.remediation.clone(), now);
        self.core.reload_brownout(new.brownout.clone());
        self.settings.brownout = new.brownout.clone();
        self.settings.canary = new.canary.clone();
        self.settings.remediation = new.remediation.clone();
        self.settings.operators.clone_from(&new.operators);
        new.state.clone_from(&self.settings.state);
        if new != self.settings {
            warn!(
                "some of what changed needs a restart of the agent: only canary, remediation, brownout and control.operators are reloaded"
            );
        }
        self.carry_out(actions).await;
    }
}

/// Reads the local server for ever.
impl Driver {
    fn poll(&self) -> Result<()> {
        let server = &self.settings.server;
        let monitor = Monitor::new(&server.monitor, server.timeout).context("server.monitor")?;
        poll::server(
            monitor,
            server.poll,
            server.poll_routes,
            self.routes_now.clone(),
            self.inputs.clone(),
        );
        let monitor = Monitor::new(&server.monitor, server.timeout).context("server.monitor")?;
        poll::streams(monitor, self.inputs.clone());
        let unit = match &server.restart {
            RestartVia::Unit(unit) => Some(unit.clone()),
            RestartVia::Command(..) => None,
        };
        poll::memory(unit.clone(), self.systemd.clone(), self.inputs.clone());
        if let Some(unit) = unit {
            poll::unit(unit, self.systemd.clone(), self.inputs.clone());
        }
        Ok(())
    }
}
