//! The manual: its generated pages are up to date, and it has a page for each subject of Twilio's overview.
//!
//! `REPLYHOOK_UPDATE_DOCS=1 cargo test --test it manual` writes the generated pages.

use std::fmt::Write as _;

use replyhook::config::DEFAULT_TOML;

use crate::support::markdown::pages;
use crate::support::{installed, read, replyhook, root};

const NOTE: &str = "<!-- Generated: REPLYHOOK_UPDATE_DOCS=1 cargo test --test it manual -->\n\n";

/// Asserts that a file has this generated text. Writes the file first if `REPLYHOOK_UPDATE_DOCS` is set.
pub fn assert_up_to_date(file: &str, text: &str) {
    if installed("REPLYHOOK_UPDATE_DOCS").is_some() {
        std::fs::write(root().join(file), text).unwrap();
    }
    let is_same = std::fs::read_to_string(root().join(file)).is_ok_and(|found| found == text);
    assert!(
        is_same,
        "{file} is stale; run REPLYHOOK_UPDATE_DOCS=1 cargo test --test it"
    );
}

/// Short names of environment variables, by key.
const SHORT_NAMES: [(&str, &str); 9] = [
    ("twilio.auth_token", "TWILIO_AUTH_TOKEN"),
    ("twilio.auth_token_file", "TWILIO_AUTH_TOKEN_FILE"),
    ("twilio.auth_token_secondary", "TWILIO_AUTH_TOKEN_SECONDARY"),
    (
        "twilio.auth_token_secondary_file",
        "TWILIO_AUTH_TOKEN_SECONDARY_FILE",
    ),
    ("twilio.account_sid", "TWILIO_ACCOUNT_SID"),
    ("server.public_url", "PUBLIC_URL"),
    ("server.listen", "PORT"),
    ("store.url", "DATABASE_URL"),
    ("store.url_file", "DATABASE_URL_FILE"),
];

#[test]
fn configuration_page_has_every_setting_of_default_toml() {
    let mut page = format!(
        "{NOTE}# Configuration\n\nSettings come from `replyhook.toml` (or `--config FILE`) and from the environment. The environment \
         overrides the file. Each key is also an environment variable: `server.listen` is `REPLYHOOK__SERVER__LISTEN`. The short \
         names in the second column override both. In the environment, commas separate the items of a list.\n\n\
         `replyhook check` reports all problems together, each with its key, its source and the fix. `replyhook config default` prints \
         these defaults as a file. Keys that are \"reloaded on SIGHUP\" [apply without a \
         restart](../how-to/reload-settings.md).\n"
    );
    let mut section = String::new();
    let mut comment = String::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            comment.clear();
            let head = "| key | short name | default | meaning |\n|---|---|---|---|\n";
            write!(page, "\n## {section}\n\n{head}").unwrap();
        } else if let Some(text) = line.strip_prefix('#') {
            // A table whose name is the operator's.
            if let Some((table, _)) = text
                .trim()
                .strip_prefix('[')
                .and_then(|name| name.rsplit_once('.'))
            {
                let meaning = std::mem::take(&mut comment);
                let meaning = meaning.trim().trim_end_matches(':');
                writeln!(page, "| `[{table}.…]` | | | {meaning} |").unwrap();
                continue;
            }
            // Example settings are not part of the meaning.
            if text.contains(" = \"\"") {
                continue;
            }
            comment = format!("{comment} {}", text.trim());
        } else if let Some((key, value)) = line.split_once(" = ") {
            let key = format!("{section}.{key}");
            let short = SHORT_NAMES.iter().find(|(known, _)| *known == key);
            let short = short.map_or(String::new(), |(_, short)| format!("`{short}`"));
            let meaning = comment.trim().replace('|', "\\|");
            let default = if value == "\"\"" {
                String::new()
            } else {
                format!("`{value}`")
            };
            writeln!(page, "| `{key}` | {short} | {default} | {meaning} |").unwrap();
            comment.clear();
        } else {
            comment.clear();
        }
    }
    assert!(
        page.lines().filter(|line| line.starts_with("| `")).count() > 60,
        "{page}"
    );
    assert_up_to_date("docs/src/reference/configuration.md", &page);
}

fn help(path: &[&str]) -> String {
    let (code, text, _) = replyhook(&[path, &["--help"]].concat(), &[], "");
    assert_eq!(code, 0, "{path:?}");
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// Returns the commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.trim().is_empty());
    let named = listed.filter_map(|line| {
        let is_name = line.starts_with("  ") && !line.starts_with("   ");
        is_name.then(|| line.split_whitespace().next())?
    });
    named
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn command_line_page_has_every_command() {
    let all = help(&[]);
    let mut page = format!(
        "{NOTE}# Command line\n\nExit codes: 0 done or yes · 1 no (a signature does not verify, the server is not ready, a send failed, \
         or there are findings) · 2 wrong usage or configuration · 74 the disk failed · 130 or 143 a second SIGINT or SIGTERM.\n\n\
         ```text\n{all}\n```\n"
    );
    let mut count = 0;
    for command in commands(&all) {
        let text = help(&[&command]);
        write!(page, "\n## replyhook {command}\n\n```text\n{text}\n```\n").unwrap();
        for sub in commands(&text) {
            let text = help(&[&command, &sub]);
            write!(
                page,
                "\n### replyhook {command} {sub}\n\n```text\n{text}\n```\n"
            )
            .unwrap();
        }
        count += 1;
    }
    assert!(count >= 20, "{count} commands");
    assert_up_to_date("docs/src/reference/cli.md", &page);
}

fn title(page: &str) -> String {
    let text = read(page);
    let title = text.lines().find_map(|line| line.strip_prefix("# "));
    title
        .unwrap_or_else(|| panic!("{page} has no title"))
        .to_owned()
}

// llms.txt is an index for language models: one line per page, with its title and path.
#[test]
fn llms_txt_lists_every_page() {
    let mut text = "# replyhook\n\n> A webhook server for Twilio WhatsApp and SMS bots, written in Rust.\n\n## Manual\n\n".to_owned();
    for page in pages("docs/src") {
        if !page.ends_with("SUMMARY.md") {
            writeln!(
                text,
                "- [{}]({})",
                title(&page),
                page.trim_start_matches("docs/")
            )
            .unwrap();
        }
    }
    assert_up_to_date("docs/llms.txt", &text);
}

// The subjects are those of Twilio's overview of the WhatsApp Business Platform, each with the title of its page.
#[test]
fn subjects_of_twilios_overview_have_a_page() {
    for (subject, expected) in [
        (
            "get a WhatsApp number: sandbox, self sign-up, verification, limits, tech providers",
            "Get a WhatsApp or SMS number",
        ),
        ("record opt-ins", "Record and honor opt-ins and opt-outs"),
        (
            "addresses, free-form messages, link previews, what your customers see",
            "The WhatsApp Business Platform and replyhook",
        ),
        (
            "sender configuration, webhooks in their three places",
            "Configure webhooks in the Twilio console",
        ),
        ("templates", "Send WhatsApp templates"),
        (
            "the customer service window",
            "The customer service window and consent",
        ),
        ("the fallback URL", "The fallback URL"),
        (
            "receiving, TwiML",
            "Receiving messages and replying with TwiML",
        ),
        ("message status", "Status callbacks"),
    ] {
        let found = pages("docs/src")
            .iter()
            .any(|page| !page.ends_with("SUMMARY.md") && title(page) == expected);
        assert!(found, "{subject}: no page is titled {expected:?}");
    }
}
