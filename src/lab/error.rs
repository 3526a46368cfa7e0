//! What can go wrong in a lab.

use std::path::PathBuf;

/// Why a lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory of the lab.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A socket of the lab.
    #[error("{what} {address}: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// On which address.
        address: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program that would not start.
    #[error("start {program}: {source}; is the path right and the file executable?")]
    Spawn {
        /// The program.
        program: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A helper program that failed.
    #[error("run `{command}`: {why}")]
    Run {
        /// The command line.
        command: String,
        /// What it said.
        why: String,
    },
    /// The servers did not find each other in time.
    #[error("mesh not whole after {seconds} s: {missing}; logs are in {dir}")]
    NotWhole {
        /// How long was waited.
        seconds: u64,
        /// What is missing.
        missing: String,
        /// Where the logs are.
        dir: PathBuf,
    },
    /// A server that does not answer on its monitoring port.
    #[error("server {host} (pid {pid:?}) does not answer at {url}: {why}; the end of its log: {log}")]
    NotUp {
        /// The host.
        host: String,
        /// The process, where it lives.
        pid: Option<u32>,
        /// The address.
        url: String,
        /// The last error.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// A name that is not in the lab.
    #[error("no host named {name}; there are: {known}")]
    NoSuchHost {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Nothing for the fault to act on.
    #[error("{what}; see `watchdog-lab ctl status` for the connections there are")]
    NothingToFault {
        /// What was asked.
        what: String,
    },
    /// A process that is not there, or is there already.
    #[error("{what}")]
    Process {
        /// What was asked, and what is.
        what: String,
    },
    /// An HTTP request that failed.
    #[error("get {url}: {why}")]
    Http {
        /// The address.
        url: String,
        /// Why it failed.
        why: String,
    },
    /// The lab at the other end of the control connection said no.
    #[error("lab at {address} refused: {why}")]
    Refused {
        /// The control address.
        address: String,
        /// Its words.
        why: String,
    },
    /// A specification that makes no sense.
    #[error("{0}")]
    Spec(String),
}

impl LabError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    pub(crate) fn socket(what: &'static str, address: impl ToString) -> impl FnOnce(std::io::Error) -> Self {
        let address = address.to_string();
        move |source| Self::Socket { what, address, source }
    }
}
