use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::wait::Wait;

/// Limit for conditions that must become true.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Child process whose output is read continuously. It is killed on drop.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Arc<Lines>,
}

#[derive(Default)]
struct Lines {
    output: Mutex<Vec<String>>,
    more: Condvar,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Lines::default());
        let out = child.stdout.take().unwrap();
        let err = child.stderr.take().unwrap();
        let (first, second) = (lines.clone(), lines.clone());
        std::thread::spawn(move || first.read(out));
        std::thread::spawn(move || second.read(err));
        Self {
            input: child.stdin.take(),
            child,
            lines,
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
    pub fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let mut lines = self.lines.output.lock().unwrap();
        loop {
            if let Some(found) = lines.iter().find_map(|line| find(line)) {
                return found;
            }
            let (guard, timeout) = self.lines.more.wait_timeout(lines, WAIT_TIMEOUT).unwrap();
            assert!(
                !timeout.timed_out(),
                "no {what} in the output:\n{}",
                guard.join("\n")
            );
            lines = guard;
        }
    }

    /// Output so far, of stdout and stderr.
    pub fn output(&self) -> String {
        self.lines.output.lock().unwrap().join("\n")
    }
}

impl Lines {
    fn read(&self, from: impl std::io::Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.output.lock().unwrap().push(line);
            self.more.notify_all();
        }
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
