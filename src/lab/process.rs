//! Child processes that do not outlive the lab.
//!
//! `setpriv --pdeathsig` has the kernel kill a child when the *thread* that started it ends, so one thread starts them all and
//! lives as long as the lab.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{LabError, Result};

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts children from a thread of its own.
#[derive(Debug)]
pub(crate) struct Nursery {
    jobs: mpsc::Sender<Job>,
    setpriv: bool,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) bin: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) log: PathBuf,
    pub(crate) netns: Option<String>,
}

impl Nursery {
    pub(crate) fn new() -> Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let run = move || {
            for (mut command, reply) in todo {
                // A caller that is gone cannot own the child: it must not live.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    let _ = (orphan.kill(), orphan.wait());
                }
            }
        };
        thread::Builder::new()
            .name("lab-nursery".into())
            .spawn(run)
            .map_err(|source| LabError::Spawn {
                program: "a thread".into(),
                source,
            })?;
        Ok(Self {
            jobs,
            setpriv: on_path("setpriv"),
        })
    }

    pub(crate) fn start(&self, program: &Program) -> Result<Running> {
        let mut words: Vec<String> = Vec::new();
        if let Some(netns) = &program.netns {
            words.extend(["ip", "netns", "exec", netns].map(String::from));
        }
        if self.setpriv {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(String::from));
        }
        words.push(program.bin.display().to_string());
        words.extend(program.args.iter().cloned());
        let failed = |source| LabError::Spawn {
            program: program.bin.display().to_string(),
            source,
        };
        // setpriv would fail only after it was started, with the reason in a log that nobody reads.
        if !program.bin.is_file() && !on_path(&program.bin) {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let log = File::options().create(true).append(true).open(&program.log);
        let log = log.map_err(LabError::file("open log", &program.log))?;
        let err = log.try_clone().map_err(LabError::file("open log", &program.log))?;
        let mut command = Command::new(&words[0]);
        // A group of their own: Ctrl-C is for the lab, which then ends them in order.
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            .process_group(0);
        let (reply, answer) = mpsc::sync_channel(0);
        let gone = || io::Error::other("the lab is ending");
        self.jobs.send((command, reply)).map_err(|_| failed(gone()))?;
        let child = answer.recv().map_err(|_| failed(gone()))?.map_err(failed)?;
        Ok(Running { child })
    }
}

/// A child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&mut self, name: &str) -> Result<()> {
        if !self.is_alive() {
            return Err(LabError::Process {
                what: format!("send SIG{name}: process {} has ended", self.pid()),
            });
        }
        run("kill", &["-s", name, &self.pid().to_string()])
    }

    /// SIGTERM, then SIGKILL after `patience`. Blocks.
    pub(crate) fn stop(mut self, patience: Duration) {
        let asked = self.signal("TERM").is_ok();
        let deadline = Instant::now() + patience;
        while asked && self.is_alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Runs a short helper program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let failed = |why: String| LabError::Run {
        command: format!("{program} {}", args.join(" ")),
        why,
    };
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Whether a program of this name is on `PATH`.
pub(crate) fn on_path(name: impl AsRef<Path>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name.as_ref()).is_file())
}
