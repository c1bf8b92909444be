use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::UNSET;

/// Runs the real binary until it exits, and returns its exit code, stdout and stderr.
pub fn replyhook(args: &[&str], env: &[(&str, &str)], input: &str) -> (i32, String, String) {
    // A later value replaces an earlier one.
    let mut env: BTreeMap<_, _> = env.iter().copied().collect();
    env.retain(|_, value| *value != UNSET);
    let Output {
        status,
        stdout,
        stderr,
    } = run(
        Command::new(env!("CARGO_BIN_EXE_replyhook"))
            .args(args)
            .env_clear()
            .envs(env)
            .current_dir(std::env::temp_dir()),
        input,
    );
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// Runs a command with this input, and returns its output if it succeeds.
pub fn output_of(command: &mut Command, input: &str) -> String {
    let output = run(command, input);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A command that fails may exit before it reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}
