//! The README: its bot is the example `hello`, and its sections are in order. `guide.rs` runs its commands.

use std::process::Command;

use crate::support::read;
use crate::support::session::example;

/// Returns the first code block of this language that contains a word.
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

#[test]
fn readme_bot_matches_example_within_ten_lines() {
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

// A new reader needs the sections in this order, and a short page.
#[test]
fn readme_headings_are_in_order() {
    let readme = read("README.md");
    let mut last = 0;
    for heading in [
        "```sh",
        "```console",
        "## Features",
        "## A bot in ten lines",
        "## Ways to use replyhook",
        "## Documentation",
        "## Status",
    ] {
        let at = readme
            .find(heading)
            .unwrap_or_else(|| panic!("README has no {heading}"));
        assert!(at > last, "{heading} is out of order");
        last = at;
    }
    assert!(readme.lines().count() <= 130, "the README is too long");
}

#[test]
fn ten_line_bot_lists_configuration_problems() {
    if !example("hello").exists() {
        return crate::support::report_skipped(
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

#[test]
fn console_guide_names_each_place_and_url() {
    let page = read("docs/src/how-to/configure-twilio.md");
    for part in [
        "sandbox",
        "WhatsApp sender",
        "Messaging Service",
        "precedence",
        "/webhook/fallback",
        "/webhook/status",
        "#rc=",
    ] {
        assert!(page.contains(part), "the page does not mention {part}");
    }
}
