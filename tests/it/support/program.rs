use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::output_file::OutputFile;
use super::wait::Wait;

/// Child process whose output is kept. It is killed on drop.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: OutputFile,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let output = OutputFile::new();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(output.stdio())
            .stderr(output.stdio())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            input: child.stdin.take(),
            child,
            output,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, waits until the process exits, and returns its exit code.
    pub fn signal_and_wait(&mut self, signal: Signal) -> Option<i32> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
        let wait = Wait::until("the program exits");
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            wait.check();
            std::thread::yield_now();
        }
    }

    /// Writes a line to the program's stdin.
    pub fn write_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits until `find` returns a value for a line of the output, and returns that.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let wait = Wait::until(format!("the output has {what}"));
        loop {
            let output = self.output();
            if let Some(found) = output.lines().find_map(&find) {
                return found;
            }
            wait.check_found(&output);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Output so far, of stdout and stderr.
    pub fn output(&self) -> String {
        self.output.text()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // `dev` ends its bot when it ends, but not when it is killed.
        let children = children(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in children {
            // A bot has a group of its own, with the processes that it started. Other children have their parent's.
            let _ = rustix::process::kill_process(child, Signal::KILL);
            let _ = rustix::process::kill_process_group(child, Signal::KILL);
        }
    }
}

/// Returns the processes that a process has started and that still run.
fn children(pid: u32) -> Vec<Pid> {
    let mut children = Vec::new();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.into_iter().flatten().flatten() {
        let listed = std::fs::read_to_string(thread.path().join("children"));
        let pids = listed.unwrap_or_default();
        let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
        children.extend(pids.filter_map(Pid::from_raw));
    }
    children
}
