//! `watchdog agent`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Exit, Failure};
use crate::config::{Env, Settings};
use crate::driver;
use crate::telemetry::logging::{self, LogFormat};

/// Run the agent: what systemd starts on every host
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog agent --config /etc/watchdog/watchdog.toml

Exit codes:
  0  told to stop, and stopped in order
  1  failed
  2  usage or configuration: all errors on stderr")]
pub(super) struct Agent {
    /// Configuration file; conf.d/*.toml beside it is read too [default: /etc/watchdog/watchdog.toml]
    #[arg(short, long, value_name = "FILE", env = "WATCHDOG_CONFIG")]
    config: Option<PathBuf>,
    /// How to log; WATCHDOG_LOG or RUST_LOG set the levels
    #[arg(long, value_name = "text|json", default_value = "text", env = "WATCHDOG_LOG_FORMAT")]
    log_format: LogFormat,
}

impl Agent {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let loaded = Settings::load(self.config.as_deref(), &Env::system()).map_err(Failure::usage)?;
        logging::init(self.log_format).map_err(Failure::usage)?;
        // As a task, not on this thread: else every message would wake two threads instead of one.
        let agent = driver::run(loaded.settings, self.config);
        super::runtime()?
            .block_on(async { tokio::spawn(agent).await })
            .context("the agent's loop ended in a panic")??;
        Ok(Exit::Done)
    }
}
