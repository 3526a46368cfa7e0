//! A running lab: its servers, its agents, and the handles to disturb them.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{
    Host, LabError, LabSpec, Result,
    board::Board,
    control::{HostView, Status},
    mesh,
    netns::Network,
    process::{Nursery, Running},
};

const POLL: Duration = Duration::from_millis(50);

/// A running lab. Clones are handles to the same lab; it ends, with all its processes, when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) spec: LabSpec,
    pub(super) lab_bin: PathBuf,
    pub(super) hosts: Vec<Host>,
    pub(super) board: Arc<Board>,
    pub(super) control: SocketAddr,
    pub(super) nursery: Nursery,
    pub(super) processes: Mutex<BTreeMap<(usize, Role), Running>>,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
    pub(super) network: Option<Network>,
    pub(super) dir: Dir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Server,
    Agent,
}

#[derive(Debug)]
pub(super) enum Dir {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Dir {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Lab {
    /// The hosts, in the order of their numbers.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.inner.hosts
    }

    /// The host of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        Ok(&self.inner.hosts[self.index(name)?])
    }

    /// What the lab was started with.
    #[must_use]
    pub fn spec(&self) -> &LabSpec {
        &self.inner.spec
    }

    /// The address of the control port, for [`super::send`] and `watchdog-lab ctl --addr`.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.inner.control
    }

    /// The `watchdog-lab` binary that agents are told to call.
    #[must_use]
    pub fn lab_bin(&self) -> &Path {
        &self.inner.lab_bin
    }

    /// Where configurations and logs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.inner.dir.path()
    }

    /// Everything, for `ctl status`.
    #[must_use]
    pub fn status(&self) -> Status {
        let view = |host: &Host| HostView {
            name: host.name.clone(),
            server_pid: self.server_pid(&host.name),
            agent_pid: self.agent_pid(&host.name),
            client_url: host.client_url.clone(),
            monitor_url: host.monitor_url.clone(),
            agent_http: host.agent_http.clone(),
        };
        Status {
            hosts: self.hosts().iter().map(view).collect(),
            faults: self.inner.board.faults(),
            connections: self.connections(),
        }
    }

    /// What is missing for the mesh to be whole; empty where it is.
    pub async fn missing(&self) -> Vec<String> {
        mesh::missing(self.hosts(), &self.inner.spec, &self.connections()).await
    }

    /// Waits until every server sees all its peers and gateways.
    ///
    /// # Errors
    /// Where that is not so in time; the error says what is missing.
    pub async fn wait_until_whole(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let missing = self.missing().await;
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let missing = missing.join("; ");
                return Err(LabError::NotWhole {
                    seconds: patience.as_secs(),
                    missing,
                    dir: self.dir().to_owned(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// All that the server of this host has logged; empty where there is nothing.
    #[must_use]
    pub fn server_log(&self, host: &str) -> String {
        self.host(host).map(|h| read_log(&h.server_log)).unwrap_or_default()
    }

    /// All that the agent of this host has logged; empty where there is nothing.
    #[must_use]
    pub fn agent_log(&self, host: &str) -> String {
        self.host(host).map(|h| read_log(&h.agent_log)).unwrap_or_default()
    }

    pub(super) fn index(&self, name: &str) -> Result<usize> {
        let known = || {
            self.hosts()
                .iter()
                .map(|h| h.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let index = self.hosts().iter().position(|h| h.name == name);
        index.ok_or_else(|| LabError::NoSuchHost {
            name: name.to_owned(),
            known: known(),
        })
    }

    pub(super) fn processes(&self) -> MutexGuard<'_, BTreeMap<(usize, Role), Running>> {
        self.inner.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn read_log(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
