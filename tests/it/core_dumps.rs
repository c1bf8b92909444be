//! Core dumps, which would contain tokens, phone numbers and messages.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Server, Webhook, report_skipped, twiml_message};

/// Starts a server in a folder, with unlimited core files.
fn serve(folder: &Path, core_dumps: &str) -> Server {
    let mut command = Command::new("sh");
    let script = r#"cd "$0" && ulimit -c unlimited && exec "$@""#;
    command
        .args(["-c", script])
        .arg(folder)
        .arg(env!("CARGO_BIN_EXE_replyhook"));
    Server::start_by(command, &[("REPLYHOOK__SERVER__CORE_DUMPS", core_dumps)])
}

/// Returns the server's soft limit for core files.
fn core_limit(server: &Server) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    line.and_then(|line| line.split_whitespace().next())
        .unwrap()
        .to_owned()
}

fn may_dump() -> bool {
    let shell = Command::new("sh")
        .args(["-c", "ulimit -c unlimited"])
        .status();
    shell.is_ok_and(|status| status.success())
}

#[test]
fn crash_of_server_leaves_no_core_file() {
    if !may_dump() {
        return report_skipped("core files: this user's hard limit is 0");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), "false");
    assert_eq!(core_limit(&server), "0");
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    server.signal(Signal::ABORT);
    let (status, log) = server.wait();
    assert_eq!(
        (status.signal(), status.core_dumped()),
        (Some(6), false),
        "{log}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn core_dumps_setting_keeps_system_limit() {
    if !may_dump() {
        return report_skipped("core files: this user's hard limit is 0");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), "true");
    assert_eq!(core_limit(&server), "unlimited");
    server.signal(Signal::ABORT);
    let (status, log) = server.wait();
    // Shows that the test above can fail. No dump is required if the pattern names a pipe or another folder.
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let is_file_here = !pattern.starts_with(['|', '/']);
    assert!(status.core_dumped() || !is_file_here, "{log}");
}
