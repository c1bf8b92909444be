//! A child process that is killed when its handle is dropped.

use std::fs;
use std::process::Child;

/// A running child process.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Returns a line of `/proc/PID/status` in KiB: `VmRSS` is the resident memory now, `VmHWM` its peak.
    ///
    /// # Panics
    /// If the process has ended, or outside of Linux.
    pub(crate) fn memory_kib(&self, line: &str) -> f64 {
        let status = format!("/proc/{}/status", self.0.id());
        let status = fs::read_to_string(status).expect("Linux reports a running process's memory");
        let mut found = status.lines().filter_map(|found| found.strip_prefix(line));
        let number = found.find_map(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        number.expect("a number of kB")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL: a benchmark that panics must not wait for a graceful shutdown. An error means that the process has
        // ended.
        let _ = self.0.kill();
        // Reaps the process, so that its port and its files are free when this returns.
        let _ = self.0.wait();
    }
}
