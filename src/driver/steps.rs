//! The steps of an ordered restart at the edge: what drains, stops, starts the local server and runs a hook.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::adapters::host::command;
use crate::adapters::host::systemd::{JobResult, Systemd, SystemdError, UnitState};
use crate::adapters::nats::system;
use crate::adapters::server::monitor::Monitor;
use crate::config::settings::{Connect, Hook, Parts, RestartVia, Server};
use crate::core::agent::run::{ServerStep, StepError};
use crate::core::ids::HostName;
use crate::core::server::{Endpoint, ReadError, Sample};

/// Between two looks at a server that drains. `Restart=always` has it up again 100 ms after its end.
const LOOK: Duration = Duration::from_millis(100);
/// For a command that only signals.
const SIGNAL: Duration = Duration::from_secs(20);
/// For another leader of the meta group.
const NEW_LEADER: Duration = Duration::from_secs(10);
/// Makes a nats-server a lame duck. `SIGUSR2` on Linux, except on MIPS, Alpha and SPARC.
const SIGUSR2: i32 = 12;
/// Of a command's last line, what goes to the history.
const LAST_LINE: usize = 200;

pub(super) struct Steps {
    pub(super) systemd: Arc<Systemd>,
    pub(super) server: Server,
    pub(super) hooks: BTreeMap<String, Hook>,
    pub(super) host: HostName,
    pub(super) rollout: String,
    /// Of the system account.
    pub(super) system: Option<Connect>,
}

impl Steps {
    pub(super) async fn take(&self, step: &ServerStep) -> Result<String, StepError> {
        let deadline = self.server.restart_deadline;
        match (step, &self.server.restart) {
            (ServerStep::StepDown, _) => self.step_down().await,
            (ServerStep::Drain, RestartVia::Unit(unit)) => self.drain_unit(unit).await,
            (ServerStep::Drain, RestartVia::Command(_, parts)) => self.drain(parts).await,
            (ServerStep::Stop, RestartVia::Unit(unit)) => {
                job("stop", unit, self.systemd.stop_unit(unit, deadline).await)
            }
            (ServerStep::Stop, RestartVia::Command(_, parts)) => part(parts.stop.as_deref(), deadline).await,
            (ServerStep::Start, RestartVia::Unit(unit)) => {
                job("start", unit, self.systemd.start_unit(unit, deadline).await)
            }
            (ServerStep::Start, RestartVia::Command(_, parts)) => part(parts.start.as_deref(), deadline).await,
            (ServerStep::Restart, RestartVia::Unit(unit)) => {
                job("restart", unit, self.systemd.restart_unit(unit, deadline).await)
            }
            (ServerStep::Restart, RestartVia::Command(argv, _)) => part(Some(argv), deadline).await,
            (ServerStep::Hook(name), _) => self.hook(name).await,
        }
    }

    /// Asked, and then waited for: a drain that begins before another server leads leaves the group without a word.
    async fn step_down(&self) -> Result<String, StepError> {
        let failed = |what| StepError { touched: false, what };
        let Some(connect) = &self.system else {
            return Err(failed(
                "there are no credentials of the system account any more".to_owned(),
            ));
        };
        let monitor = Monitor::new(&self.server.monitor, self.server.timeout);
        let monitor = monitor.map_err(|e| failed(e.to_string()))?;
        system::step_down(connect, &self.host)
            .await
            .map_err(|e| failed(format!("{e}; it hands over when it is stopped")))?;
        let begun = Instant::now();
        while begun.elapsed() < NEW_LEADER {
            if let Ok(Sample::Varz(varz)) = monitor.read(Endpoint::Varz).await
                && let Some(leader) = varz.meta_leader.filter(|l| !l.is_empty() && *l != varz.server_name)
            {
                return Ok(format!("{leader} leads the meta group now"));
            }
            sleep(LOOK).await;
        }
        let limit = humantime::format_duration(NEW_LEADER);
        Err(failed(format!("no other server leads the meta group after {limit}")))
    }

    fn patience(&self) -> Duration {
        self.server.lame_duck_duration + super::LAME_DUCK_MARGIN
    }

    async fn drain_unit(&self, unit: &str) -> Result<String, StepError> {
        let untouched = |e: SystemdError| StepError {
            touched: false,
            what: e.to_string(),
        };
        let pid = self.systemd.unit_state(unit).await.map_err(untouched)?.main_pid;
        if pid == 0 {
            return Err(StepError {
                touched: false,
                what: format!("{unit} has no main process that could be drained"),
            });
        }
        self.systemd.kill_unit(unit, SIGUSR2).await.map_err(untouched)?;
        let begun = Instant::now();
        let patience = self.patience();
        while begun.elapsed() < patience {
            // A word that systemd owes is no end of the process.
            if let Ok(UnitState { main_pid, .. }) = self.systemd.unit_state(unit).await
                && main_pid != pid
            {
                return Ok(drained(begun));
            }
            sleep(LOOK).await;
        }
        Err(late(patience))
    }

    async fn drain(&self, parts: &Parts) -> Result<String, StepError> {
        let failed = |touched| move |what: String| StepError { touched, what };
        let monitor = Monitor::new(&self.server.monitor, self.server.timeout);
        let monitor = monitor.map_err(|e| failed(false)(e.to_string()))?;
        let id = match monitor.read(Endpoint::Varz).await {
            Ok(Sample::Varz(varz)) => varz.server_id,
            Ok(_) => String::new(),
            Err(e) => return Err(failed(false)(e.to_string())),
        };
        if let Err(error) = part(parts.lame_duck.as_deref(), SIGNAL).await {
            // A lame duck says no.
            let well = matches!(monitor.read(Endpoint::Healthz).await, Ok(Sample::Healthz(h)) if h.ok);
            return Err(failed(!well)(error.what));
        }
        let begun = Instant::now();
        let patience = self.patience();
        while begun.elapsed() < patience {
            match monitor.read(Endpoint::Varz).await {
                Err(ReadError::Connect { .. }) => return Ok(drained(begun)),
                Ok(Sample::Varz(varz)) if varz.server_id != id => return Ok(drained(begun)),
                _ => {}
            }
            sleep(LOOK).await;
        }
        Err(late(patience))
    }

    async fn hook(&self, name: &str) -> Result<String, StepError> {
        let failed = |what| StepError { touched: true, what };
        let Some(hook) = self.hooks.get(name) else {
            return Err(failed(format!("the configuration has no hook {name:?} any more")));
        };
        let host = self.host.to_string();
        let environment = [
            ("WATCHDOG_HOST", host.as_str()),
            ("WATCHDOG_ROLLOUT", self.rollout.as_str()),
            ("WATCHDOG_HOOK", name),
        ];
        let output = command::run_with(&hook.command, &environment, hook.timeout).await;
        let output = output.map_err(|e| failed(e.to_string()))?;
        if !output.trim().is_empty() {
            info!(hook = name, "the hook wrote: {}", output.trim());
        }
        Ok(last_line(&output))
    }
}

async fn part(argv: Option<&[String]>, deadline: Duration) -> Result<String, StepError> {
    let failed = |what| StepError { touched: true, what };
    let argv = argv.ok_or_else(|| failed("no command is configured for it any more".to_owned()))?;
    let output = command::run(argv, deadline).await.map_err(|e| failed(e.to_string()))?;
    Ok(last_line(&output))
}

fn job(verb: &str, unit: &str, result: Result<JobResult, SystemdError>) -> Result<String, StepError> {
    let failed = |touched, what| StepError { touched, what };
    match result {
        Ok(JobResult::Done) => Ok(format!("the {verb} job of {unit} is done")),
        Ok(other) => Err(failed(true, format!("the {verb} job of {unit} ended as {other}"))),
        Err(e @ SystemdError::AccessDenied { .. }) => Err(failed(false, e.to_string())),
        Err(e) => Err(failed(true, e.to_string())),
    }
}

fn drained(begun: Instant) -> String {
    format!("the server ended after {:.1} s", begun.elapsed().as_secs_f64())
}

fn late(patience: Duration) -> StepError {
    StepError {
        touched: true,
        what: format!(
            "the lame duck did not end within {}: is server.lame_duck_duration as long as that of nats-server?",
            humantime::format_duration(patience)
        ),
    }
}

fn last_line(output: &str) -> String {
    let line = output.trim().lines().next_back().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(LAST_LINE).collect()
}
