use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::UNSET;

/// Runs the real binary until it exits, and returns its exit code, stdout and stderr.
pub fn replyhook(args: &[&str], env: &[(&str, &str)], input: &str) -> (i32, String, String) {
    // A later value replaces an earlier one.
    let mut env: BTreeMap<_, _> = env.iter().copied().collect();
    env.retain(|_, value| *value != UNSET);
    let mut child = Command::new(env!("CARGO_BIN_EXE_replyhook"))
        .args(args)
        .env_clear()
        .envs(env)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}
