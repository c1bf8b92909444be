//! Your bot's own process, which `replyhook dev -- COMMAND…` starts, and starts again when it ends.
#![cfg(feature = "emulator")]

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::print::print;

/// Delay before a restart. Without it, a command that always fails would be started in a busy loop.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Time that the process has to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A command, the environment of its process, and the process.
pub(crate) struct BotProcess {
    command: Vec<OsString>,
    env: Vec<(&'static str, String)>,
    removed: Vec<String>,
    child: Child,
    /// Process group of `child`. The processes that `child` starts belong to it, and may outlive `child`.
    group: Option<Pid>,
}

impl BotProcess {
    /// Starts the command with the environment of this process, with these variables, and without the ones to remove.
    ///
    /// # Errors
    /// The program cannot be started, for example because it does not exist.
    pub(crate) fn start(
        command: Vec<OsString>,
        env: Vec<(&'static str, String)>,
        removed: Vec<String>,
    ) -> anyhow::Result<Self> {
        let child = spawn(&command, &env, &removed)?;
        let group = group_of(&child);
        Ok(Self {
            command,
            env,
            removed,
            child,
            group,
        })
    }

    /// Starts the process again whenever it ends, and prints `help` at the first end. Cancel-safe; never returns unless this
    /// process cannot print.
    pub(crate) async fn keep_running(&mut self, mut help: Option<&str>) -> anyhow::Result<()> {
        loop {
            let ended = match self.child.wait().await {
                Ok(status) => describe(status),
                Err(error) => format!("was lost ({error})"),
            };
            // Kill the processes that it has started: one may still listen on the port that the next process needs.
            self.signal(Signal::KILL);
            print(&format!(
                "  The bot's process {ended}. It starts again in {} s.\n",
                RESTART_DELAY.as_secs()
            ))?;
            if let Some(help) = help.take() {
                print(help)?;
            }
            loop {
                tokio::time::sleep(RESTART_DELAY).await;
                match spawn(&self.command, &self.env, &self.removed) {
                    Ok(child) => {
                        self.group = group_of(&child);
                        self.child = child;
                        break;
                    }
                    // The file may be missing for a moment while it is built.
                    Err(error) => print(&format!("  {error:#}\n"))?,
                }
            }
        }
    }

    /// Ends the process and those it has started: SIGTERM, and SIGKILL if they do not end in time.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await;
        // Kill the group even if the process has ended: processes that it has started may ignore SIGTERM.
        self.signal(Signal::KILL);
        if ended.is_err() {
            let _ = self.child.wait().await;
        }
    }

    /// Sends a signal to the process group, which may still have processes after `child` has ended.
    // The kernel does not reuse the number of a group that has processes; for an empty group, the call fails. It
    // assigns numbers in rising order, so it reuses none between the end of the last process and this call.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

// After a panic or an error of `dev`, `stop` is not called.
impl Drop for BotProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    id.and_then(Pid::from_raw)
}

fn spawn(
    command: &[OsString],
    env: &[(&'static str, String)],
    removed: &[String],
) -> anyhow::Result<Child> {
    let (program, args) = command
        .split_first()
        .context("the command after -- is empty")?;
    let mut process = Command::new(program);
    for name in removed {
        process.env_remove(name);
    }
    process
        .args(args)
        .envs(env.iter().map(|(name, value)| (*name, value)))
        // `dev` reads no input either. The kernel would stop a background process that reads the terminal.
        .stdin(Stdio::null())
        // A group of its own: `npm start` and the like start further processes, which must end with it. Ctrl-C of the
        // terminal then does not reach it directly; `stop` passes it on.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}
