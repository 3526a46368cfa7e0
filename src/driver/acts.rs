//! What touches the world, each in a task of its own with a limit, each telling the core how it ended.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::steps::Steps;
use super::{Driver, boot};
use crate::adapters::host::command;
use crate::adapters::host::sockets::{self, Match, ServerEndpoint};
use crate::adapters::host::systemd::JobResult;
use crate::adapters::nats::lane::Input;
use crate::adapters::server::network;
use crate::config::settings::RestartVia;
use crate::core::agent::event::{Event, ResetTarget, RosterEntry};
use crate::core::agent::run::ServerStep;
use crate::core::control::roll::Record as Rollout;
use crate::core::remedy::ledger::Ledger;

/// For one address of a network check.
const CHECK: Duration = Duration::from_secs(2);
/// For a reset as a whole.
const RESET: Duration = Duration::from_secs(5);
/// For a write to disk.
const WRITE: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn later(&self, event: impl Future<Output = Event> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _ = inputs.send(Input::Event(event.await)).await;
        });
    }

    pub(super) fn check_network(&self, check: u64, addresses: Vec<String>) {
        let from = self.listen.filter(|ip| !ip.is_unspecified());
        self.later(async move {
            let mut seen = Vec::new();
            for address in addresses {
                let found = network::check(&address, from, CHECK).await;
                if found.check.info_seen() {
                    let result = Ok(found.passed());
                    return Event::Checked { check, result };
                }
                seen.push(format!("{address}: {}", found.check));
            }
            Event::Checked {
                check,
                result: Err(seen.join("; ")),
            }
        });
    }

    pub(super) fn save_ledger(&self, act: u64, ledger: Box<Ledger>) {
        let keeper = self.keeper.clone();
        let ledger = ledger.written(boot(), self.clock.now());
        self.later(async move {
            let result = match keeper {
                None => Err("no usable state.directory".to_owned()),
                Some(keeper) => {
                    let write = tokio::task::spawn_blocking(move || keeper.ledger(&ledger));
                    match timeout(WRITE, write).await {
                        Ok(Ok(result)) => result,
                        Ok(Err(e)) => Err(e.to_string()),
                        Err(_) => Err("the disk does not answer".to_owned()),
                    }
                }
            };
            Event::LedgerSaved { act, result }
        });
    }

    pub(super) fn save_roster(&self, roster: Vec<RosterEntry>) {
        let Some(keeper) = self.keeper.clone() else { return };
        if self.leaving || self.inputs.is_closed() {
            return;
        }
        self.later(async move {
            let write = tokio::task::spawn_blocking(move || keeper.roster(&roster));
            Event::StateKept(match write.await {
                Ok(result) => result.err(),
                Err(e) => Some(e.to_string()),
            })
        });
    }

    pub(super) fn reset(&self, act: u64, target: ResetTarget) {
        let endpoint = self.endpoint.clone();
        self.later(async move {
            let result = match endpoint {
                None => Err("the local server's client address is not known".to_owned()),
                Some(endpoint) => match timeout(RESET, reset(&endpoint, &target)).await {
                    Ok(result) => result,
                    Err(_) => Err("the kernel does not answer".to_owned()),
                },
            };
            Event::ActDone { act, result }
        });
    }

    pub(super) fn save_rollout(&self, rollout: Option<Box<Rollout>>) {
        let Some(keeper) = self.keeper.clone() else { return };
        keeper.want_rollout(rollout);
        self.later(async move {
            let write = tokio::task::spawn_blocking(move || keeper.rollout());
            Event::StateKept(match write.await {
                Ok(result) => result.err(),
                Err(e) => Some(e.to_string()),
            })
        });
    }

    pub(super) fn step(&self, act: u64, step: ServerStep) {
        let steps = Steps {
            systemd: self.systemd.clone(),
            server: self.settings.server.clone(),
            hooks: self.settings.hooks.clone(),
            host: self.settings.host.clone(),
            rollout: self.core.open_record().map(|r| r.id.clone()).unwrap_or_default(),
            system: self.settings.system.clone(),
        };
        self.later(async move {
            let result = steps.take(&step).await;
            Event::StepDone { act, result }
        });
    }

    pub(super) fn restart(&self, act: u64) {
        let deadline = self.settings.server.restart_deadline;
        let via = self.settings.server.restart.clone();
        let systemd = self.systemd.clone();
        self.later(async move {
            let result = match via {
                RestartVia::Command(argv, _) => command::run(&argv, deadline).await.map_err(|e| e.to_string()),
                RestartVia::Unit(unit) => match systemd.restart_unit(&unit, deadline).await {
                    Ok(JobResult::Done) => Ok(format!("{unit} was restarted")),
                    Ok(other) => Err(format!("the restart job of {unit} ended as {other}")),
                    Err(e) => Err(e.to_string()),
                },
            };
            Event::ActDone { act, result }
        });
    }
}

async fn reset(endpoint: &ServerEndpoint, target: &ResetTarget) -> Result<String, String> {
    let mut remotes: BTreeSet<SocketAddr> = BTreeSet::new();
    for remote in &target.remotes {
        let found = lookup_host(remote.as_str()).await;
        remotes.extend(found.map_err(|e| format!("{remote} does not resolve: {e}"))?);
    }
    let wanted = Match::AnyOf(remotes.into_iter().collect());
    let found = sockets::find(endpoint, &wanted).await.map_err(|e| e.to_string())?;
    if found.is_empty() {
        return Err(format!(
            "no socket of the local server goes to {}",
            target.remotes.join(", ")
        ));
    }
    let outcome = sockets::destroy(&found).await.map_err(|e| e.to_string())?;
    if let Some((socket, e)) = outcome.failed.first() {
        return Err(format!("{} to {} is still there: {e}", socket.local, socket.remote));
    }
    Ok(format!(
        "destroyed {} and found {} gone, of {}",
        outcome.destroyed.len(),
        outcome.gone.len(),
        target.what
    ))
}
