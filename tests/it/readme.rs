//! The README works as it stands: its bot is compiled and chatted with, and is the one that it shows.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Server, TOKEN, read};

/// The first block of a kind that has a word in it.
fn block(kind: &str, word: &str) -> String {
    let readme = read("README.md");
    let fence = format!("```{kind}\n");
    let mut blocks = readme.split(&fence).skip(1);
    let found = blocks.find_map(|text| {
        let body = &text[..text.find("```").unwrap()];
        body.contains(word).then(|| body.to_owned())
    });
    found.unwrap_or_else(|| panic!("README has no {kind} block with {word}"))
}

/// Cargo builds examples beside the tests.
fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name)
}

#[test]
fn the_transcript_is_what_the_ten_line_bot_says() {
    let transcript = block("console", "invoke");
    let [_, _, ask, status, answer] = transcript.lines().collect::<Vec<_>>()[..] else {
        panic!("{transcript}")
    };
    let said = ask.split("--data '").nth(1).unwrap().trim_end_matches('\'');
    // `cargo test --test it` alone does not build examples; `cargo test` does.
    if !example("hello").exists() {
        return crate::support::left_out(
            "the README's transcript: the example `hello` is not built",
        );
    }
    // The example runs as the README runs it: it serves whatever it is told, so `serve` as an argument means nothing.
    let server = Server::start_by(
        Command::new(example("hello")),
        &[("PUBLIC_URL", "http://127.0.0.1:8080")],
    );
    let output = Command::new(env!("CARGO_BIN_EXE_replyhook"))
        .args([
            "invoke",
            &format!("http://{}/webhook", server.public),
            "--url",
            "http://127.0.0.1:8080/webhook",
            "--data",
            said,
        ])
        .env_clear()
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let without_time = |line: &str| {
        line.split_whitespace()
            .take(3)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(lines.next().map(without_time), Some(without_time(status)));
    assert_eq!(lines.next(), Some(answer));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_first_command_needs_nothing_and_says_what_the_readme_shows() {
    let shown = block("console", "");
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("$ cargo run -- dev"));
    let mut dev = Command::new(env!("CARGO_BIN_EXE_replyhook"))
        .args(["dev", "--emulator-port", "0", "--port", "0"])
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(dev.stdout.take().unwrap());
    let without_port = |line: &str| {
        line.trim_end_matches(['/', ':'])
            .rsplit_once(':')
            .map(|(text, _)| text.to_owned())
    };
    let mut printed = out
        .lines()
        .map_while(Result::ok)
        .filter(|line| !line.is_empty());
    let printed = printed.next();
    dev.kill().unwrap();
    dev.wait().unwrap();
    let shown = lines.find(|line| !line.is_empty()).unwrap();
    assert_eq!(
        printed.as_deref().and_then(without_port),
        without_port(shown)
    );
}

#[test]
fn the_bot_that_is_shown_is_the_example_and_has_ten_lines() {
    let shown = block("rust,no_run", "bot");
    let example = read("examples/hello.rs");
    let code: String = example
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(shown.trim(), code.trim());
    let lines = shown.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 10, "{lines} lines");
}

#[test]
fn the_readme_is_in_the_order_that_a_stranger_reads() {
    let readme = read("README.md");
    let mut last = 0;
    for heading in [
        "```console",
        "## Two commands",
        "## A bot in ten lines",
        "## Deploying",
        "### What to enter at Twilio",
        "## Configuration",
        "## When a signature does not verify",
        "## Links",
    ] {
        let at = readme
            .find(heading)
            .unwrap_or_else(|| panic!("README has no {heading}"));
        assert!(at > last, "{heading} stands too early");
        last = at;
    }
    for part in [
        "sandbox",
        "WhatsApp sender",
        "Messaging Service",
        "which one counts",
        "/webhook/fallback",
        "/webhook/status",
        "#rc=",
    ] {
        assert!(readme.contains(part), "README does not tell about {part}");
    }
}

#[test]
fn the_ten_line_bot_tells_its_problems_line_by_line() {
    if !example("hello").exists() {
        return crate::support::left_out(
            "the ten-line bot's problems: the example `hello` is not built",
        );
    }
    let output = Command::new(example("hello"))
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        text.starts_with(
            "Error: 2 problems in the settings:\n  twilio.auth_token (default): is missing"
        ),
        "{text}"
    );
}
