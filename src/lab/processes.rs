//! The servers and agents of a lab as processes.

use std::time::{Duration, Instant};

use super::{
    Host, Lab, LabError, Result,
    board::Caller,
    get_json,
    process::{Program, Running},
    running::{Role, read_log},
};

const UP_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

impl Lab {
    /// SIGKILLs a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn kill_server(&self, host: &str) -> Result<()> {
        self.take(host, Role::Server).map(drop)
    }

    /// Stops a server with SIGTERM.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub async fn stop_server(&self, host: &str) -> Result<()> {
        stop(self.take(host, Role::Server)?).await;
        Ok(())
    }

    /// Starts a server and waits until it answers on its monitoring port.
    ///
    /// # Errors
    /// Where the host is unknown, its server runs already, or does not come up.
    pub async fn start_server(&self, host: &str) -> Result<()> {
        self.launch(self.index(host)?, Role::Server)?;
        self.wait_until_up(self.host(host)?).await
    }

    /// Stops a server if it runs, starts it and waits until it answers.
    ///
    /// # Errors
    /// Where the host is unknown, or the server does not come up.
    pub async fn restart_server(&self, host: &str) -> Result<()> {
        self.index(host)?;
        if let Ok(running) = self.take(host, Role::Server) {
            stop(running).await;
        }
        self.start_server(host).await
    }

    /// SIGSTOPs a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn freeze_server(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Server, "STOP")
    }

    /// SIGCONTs a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn thaw_server(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Server, "CONT")
    }

    /// Sends any signal (`"USR2"` makes a server a lame duck) to a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn signal_server(&self, host: &str, signal: &str) -> Result<()> {
        self.signal(host, Role::Server, signal)
    }

    /// Starts an agent.
    ///
    /// # Errors
    /// Where the host is unknown, its agent runs already, or the lab has no agents.
    pub fn start_agent(&self, host: &str) -> Result<()> {
        self.launch(self.index(host)?, Role::Agent)
    }

    /// Stops an agent with SIGTERM.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub async fn stop_agent(&self, host: &str) -> Result<()> {
        stop(self.take(host, Role::Agent)?).await;
        Ok(())
    }

    /// SIGKILLs an agent.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub fn kill_agent(&self, host: &str) -> Result<()> {
        self.take(host, Role::Agent).map(drop)
    }

    /// SIGSTOPs an agent.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub fn freeze_agent(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Agent, "STOP")
    }

    /// SIGCONTs an agent.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub fn thaw_agent(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Agent, "CONT")
    }

    /// The server's process, while it lives.
    #[must_use]
    pub fn server_pid(&self, host: &str) -> Option<u32> {
        self.pid(host, Role::Server)
    }

    /// The agent's process, while it lives.
    #[must_use]
    pub fn agent_pid(&self, host: &str) -> Option<u32> {
        self.pid(host, Role::Agent)
    }

    pub(super) fn launch(&self, index: usize, role: Role) -> Result<()> {
        let host = &self.inner.hosts[index];
        let mut processes = self.processes();
        if let Some(running) = processes.get_mut(&(index, role))
            && running.is_alive()
        {
            let what = format!("start {role:?} of {}: it runs already as {}", host.name, running.pid());
            return Err(LabError::Process { what });
        }
        let path = |file: &str| host.dir.join(file).display().to_string();
        let (bin, args, log) = match (role, &self.inner.spec.agents) {
            (Role::Server, _) => (
                &self.inner.spec.server,
                vec!["-c".into(), path("server.conf")],
                &host.server_log,
            ),
            (Role::Agent, Some(agent)) => (
                &agent.bin,
                vec!["agent".into(), "--config".into(), path("watchdog.toml")],
                &host.agent_log,
            ),
            (Role::Agent, None) => {
                return Err(LabError::Process {
                    what: "start an agent: this lab has none".into(),
                });
            }
        };
        let program = Program {
            bin: bin.clone(),
            args,
            log: log.clone(),
            netns: host.netns.clone(),
        };
        let running = self.inner.nursery.start(&program)?;
        self.inner.board.learn_process(
            running.pid(),
            match role {
                Role::Server => Caller::Server(index),
                Role::Agent => Caller::Agent(index),
            },
        );
        processes.insert((index, role), running);
        Ok(())
    }

    fn take(&self, host: &str, role: Role) -> Result<Running> {
        let key = (self.index(host)?, role);
        let running = self.processes().remove(&key);
        let running = running.ok_or_else(|| LabError::Process {
            what: format!("{role:?} of {host} is not running"),
        })?;
        self.inner.board.forget_process(running.pid());
        Ok(running)
    }

    fn signal(&self, host: &str, role: Role, name: &str) -> Result<()> {
        let key = (self.index(host)?, role);
        match self.processes().get_mut(&key) {
            Some(running) => running.signal(name),
            None => Err(LabError::Process {
                what: format!("{role:?} of {host} is not running"),
            }),
        }
    }

    fn pid(&self, host: &str, role: Role) -> Option<u32> {
        let key = (self.index(host).ok()?, role);
        self.processes()
            .get_mut(&key)
            .and_then(|running| running.is_alive().then(|| running.pid()))
    }

    pub(super) async fn wait_until_up(&self, host: &Host) -> Result<()> {
        let url = format!("{}/varz", host.monitor_url);
        let deadline = Instant::now() + UP_PATIENCE;
        loop {
            let Err(error) = get_json(&url).await else {
                return Ok(());
            };
            let pid = self.server_pid(&host.name);
            if pid.is_none() || Instant::now() > deadline {
                let log = read_log(&host.server_log);
                let mut tail: Vec<&str> = log.lines().rev().take(3).collect();
                tail.reverse();
                let (host, log) = (host.name.clone(), tail.join(" / "));
                return Err(LabError::NotUp {
                    host,
                    pid,
                    url,
                    why: error.to_string(),
                    log,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn stop(running: Running) {
    // Only fails where the runtime is ending, and then dropping the process has killed it.
    let _ = tokio::task::spawn_blocking(move || running.stop(STOP_PATIENCE)).await;
}
