//! A server in a process of its own, ended with what started it.

use std::fs;
use std::process::Child;

pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// A line of what Linux tells about a process's memory: `VmRSS` now, `VmHWM` at its peak.
    pub(crate) fn memory_kib(&self, line: &str) -> f64 {
        let status = format!("/proc/{}/status", self.0.id());
        let status = fs::read_to_string(status).expect("Linux tells a running process's memory");
        let mut found = status.lines().filter_map(|found| found.strip_prefix(line));
        let number = found.find_map(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        number.expect("a number of kB")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails for one that has ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
