//! The operator's own commands, to restart a server without systemd and as hooks: an argument list, no shell, a deadline.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How much of the end of its output is kept.
const KEPT: usize = 4096;
/// How long a child of the command that it left behind may hold its output open.
const LINGER: Duration = Duration::from_millis(500);

/// Why the command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is none.
    #[error("the command is empty: give it a program and its arguments, as a list")]
    Empty,
    /// It could not be started.
    #[error("cannot start {command}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended badly.
    #[error("{command} ended with {status}{}", said(output))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// It did not end in time and was killed.
    #[error("{command} did not end within {} and was killed{}", humantime::format_duration(*.deadline), said(output))]
    Deadline {
        /// The command line.
        command: String,
        /// How long it had.
        deadline: Duration,
        /// The end of what it wrote.
        output: String,
    },
}

/// Runs the command to its end and returns the last 4 KiB of what it wrote, standard output before standard error.
pub async fn run(argv: &[String], deadline: Duration) -> Result<String, CommandError> {
    run_with(argv, &[], deadline).await
}

/// [`run`] with variables beside those of this process.
pub async fn run_with(argv: &[String], variables: &[(&str, &str)], deadline: Duration) -> Result<String, CommandError> {
    let (program, arguments) = argv.split_first().ok_or(CommandError::Empty)?;
    let command = argv.join(" ");
    let failed = |source| CommandError::Start {
        command: argv.join(" "),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdout = Tail::of(child.stdout.take());
    let stderr = Tail::of(child.stderr.take());

    let ended = tokio::time::timeout(deadline, child.wait()).await;
    if ended.is_err() {
        // An error here is a child that has just ended by itself.
        child.kill().await.ok();
    }
    let output = last(&[stdout.end().await, stderr.end().await].concat());
    match ended {
        Err(_) => Err(CommandError::Deadline {
            command,
            deadline,
            output,
        }),
        Ok(status) => match status.map_err(failed)? {
            status if status.success() => Ok(output),
            status => Err(CommandError::Failed {
                command,
                status,
                output,
            }),
        },
    }
}

/// The last [`KEPT`] bytes of a pipe, read as they come so that the command never blocks on a full one.
struct Tail {
    reader: JoinHandle<()>,
    kept: watch::Receiver<Vec<u8>>,
}

impl Tail {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let (keep, kept) = watch::channel(Vec::new());
        let reader = tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut chunk = [0; KEPT];
            while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
                keep.send_modify(|kept| {
                    kept.extend_from_slice(&chunk[..read]);
                    kept.drain(..kept.len().saturating_sub(KEPT));
                });
            }
        });
        Self { reader, kept }
    }

    async fn end(mut self) -> Vec<u8> {
        if tokio::time::timeout(LINGER, &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        self.kept.borrow().clone()
    }
}

fn last(text: &[u8]) -> String {
    let cut = text.len().saturating_sub(KEPT);
    String::from_utf8_lossy(&text[cut..]).into_owned()
}

fn said(output: &str) -> String {
    match output.trim() {
        "" => ", and wrote nothing".to_owned(),
        text => format!("; it wrote: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_a_command_writes_comes_back() {
        assert_eq!(run(&sh("echo out; echo err >&2"), SOON).await.unwrap(), "out\nerr\n");
    }

    #[tokio::test]
    async fn arguments_reach_no_shell() {
        let argv = ["echo", "$HOME; ls"].map(str::to_owned);
        assert_eq!(run(&argv, SOON).await.unwrap(), "$HOME; ls\n");
    }

    #[tokio::test]
    async fn a_failure_carries_the_end_of_a_long_output() {
        let error = run(&sh("yes | head -c 100000; echo it broke >&2; exit 3"), SOON).await;
        let Err(CommandError::Failed { status, output, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((status.code(), output.len()), (Some(3), KEPT));
        assert!(output.ends_with("it broke\n"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed() {
        let error = run(&sh("echo $$; exec sleep 600"), Duration::from_millis(300)).await;
        let Err(CommandError::Deadline { output, .. }) = error else {
            panic!("{error:?}")
        };
        let pid = output.trim();
        assert!(!pid.is_empty() && !std::path::Path::new("/proc").join(pid).exists());
    }

    #[tokio::test]
    async fn a_child_left_behind_holds_nothing_up() {
        let started = std::time::Instant::now();
        let output = run(&sh("sleep 5 & echo $!"), SOON).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(4), "{output}");
    }

    #[tokio::test]
    async fn what_cannot_start_is_named() {
        let error = run(&["/nonexistent/restart".to_owned()], SOON).await.unwrap_err();
        assert!(
            error.to_string().contains("cannot start /nonexistent/restart"),
            "{error}"
        );
        assert!(matches!(run(&[], SOON).await, Err(CommandError::Empty)));
    }
}
