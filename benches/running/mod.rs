//! A server in a process of its own, ended with what started it.

use std::fs;
use std::process::Child;

pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Linux only.
    pub(crate) fn resident_kib(&self) -> f64 {
        let status = format!("/proc/{}/status", self.0.id());
        let status = fs::read_to_string(status).expect("Linux tells a running process's memory");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
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
