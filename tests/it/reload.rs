//! Reload of the settings on SIGHUP, through the real binary.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use replyhook::signature::{SignatureAlgorithm, sign_with};
use replyhook::{App, Secret};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{
    ACCOUNT, Dev, EMPTY, FakeTwilio, ORIGIN, OTHER_TOKEN, Program, Server, TOKEN, Wait, Webhook,
    app, replyhook, twiml_message, wire,
};

const APPLIED: &str = r#"replyhook_reloads_total{outcome="applied"}"#;
const REJECTED: &str = r#"replyhook_reloads_total{outcome="rejected"}"#;
const SUBACCOUNT: &str = "AC000000000000000000000000000000ff";

/// Folder with the files of a server.
struct Files(tempfile::TempDir);

impl Files {
    fn new(settings: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("replyhook.toml", settings);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file atomically.
    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// Starts a server whose settings are in `replyhook.toml`, which has the auth token as well.
    fn server(&self) -> Server {
        self.server_with(&[])
    }

    fn server_with(&self, env: &[(&str, &str)]) -> Server {
        let mut shell = Command::new("/bin/sh");
        // Without the token of the environment, which overrides that of the file. `exec`: the signals go to the server.
        let script = format!(
            "unset TWILIO_AUTH_TOKEN; exec {} \"$1\" --config {}",
            env!("CARGO_BIN_EXE_replyhook"),
            self.path("replyhook.toml").display()
        );
        shell.args(["-c", &script, "sh"]);
        Server::start_by(shell, env)
    }
}

fn settings(token: &str) -> String {
    format!("[twilio]\nauth_token = \"{token}\"\n")
}

/// Sends SIGHUP, and returns the log lines of the reload.
fn reload(server: &Server) -> String {
    let before = server.log().lines().count();
    server.signal(Signal::HUP);
    let lines = server.wait_for_new(before, |line| {
        line.contains("reloaded the settings") || line.contains("could not reload the settings")
    });
    lines.join("\n")
}

#[track_caller]
fn assert_verifies(server: &Server, webhook: &Webhook) {
    let answer = server.send(webhook);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[track_caller]
fn assert_refused(server: &Server, webhook: &Webhook) {
    assert_eq!(server.send(webhook).status, 403);
}

// The token of the webhooks and of the REST API. A request that has begun before the reload keeps its token.
#[test]
fn token_rotated_in_secret_file_applies_on_sighup() {
    let files = Files::new(&format!(
        "[twilio]\nauth_token_file = \"token\"\naccount_sid = \"{ACCOUNT}\"\n[reply]\npath = \"rest\"\n\
         [server]\nbody_timeout_ms = 60000\n"
    ));
    files.write("token", TOKEN);
    let twilio = FakeTwilio::start();
    twilio.logins(&[(ACCOUNT, OTHER_TOKEN)]);
    let server = files.server_with(&[("REPLYHOOK__TWILIO__API_URL", &twilio.url())]);
    assert_refused(&server, &Webhook::message(1, "hi").token(OTHER_TOKEN));
    let begun = Webhook::message(2, "begun before").raw(ORIGIN);
    let (first, rest) = begun.split_at(begun.len() - 5);
    let mut connection = wire::connect(server.public);
    connection.write_all(first).unwrap();
    server.wait_until("replyhook_requests_in_flight", 1.0);
    files.write("token", OTHER_TOKEN);
    let log = reload(&server);
    assert!(log.contains("applied: twilio.auth_token"), "{log}");
    connection.write_all(rest).unwrap();
    let answer = wire::read_response(&mut connection).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_refused(&server, &Webhook::message(3, "hi"));
    let rotated = Webhook::message(4, "after").with("From", "whatsapp:+15550004444");
    assert_verifies(&server, &rotated.token(OTHER_TOKEN));
    // Twilio accepts the new token only, so this REST call was made with it.
    twilio.wait_for_phone("whatsapp:+15550004444", 1);
    assert_eq!(server.metric(APPLIED), 1.0);
    let log = server.log();
    assert!(!log.contains(TOKEN) && !log.contains(OTHER_TOKEN), "{log}");
}

// The first message fails, and the pause of the account makes the second one wait.
#[test]
fn new_api_key_ends_pause_of_rejected_one_on_sighup() {
    const API_KEY: &str = "SK00000000000000000000000000000001";
    const WAITING: &str = "whatsapp:+15550005555";
    let settings = |secret: &str| {
        format!(
            "[twilio]\nauth_token = \"{TOKEN}\"\naccount_sid = \"{ACCOUNT}\"\napi_key_sid = \"{API_KEY}\"\n\
             api_key_secret = \"{secret}\"\n[reply]\npath = \"rest\"\n"
        )
    };
    let files = Files::new(&settings("wrong"));
    let twilio = FakeTwilio::start();
    twilio.logins(&[(API_KEY, "right")]);
    let server = files.server_with(&[("REPLYHOOK__TWILIO__API_URL", &twilio.url())]);
    assert_verifies(&server, &Webhook::message(1, "rejected"));
    server.wait_until(r#"replyhook_replies_total{outcome="failed"}"#, 1.0);
    assert_verifies(&server, &Webhook::message(2, "hi").with("From", WAITING));
    server.wait_until(r#"replyhook_replies_total{outcome="retry"}"#, 1.0);
    // A reload that leaves the keys as they are does not end the pause: the next message would fail too.
    reload(&server);
    let other = "whatsapp:+15550006666";
    assert_verifies(&server, &Webhook::message(3, "hi").with("From", other));
    server.wait_until(r#"replyhook_replies_total{outcome="retry"}"#, 2.0);
    assert_eq!(twilio.posts().len(), 1);
    files.write("replyhook.toml", &settings("right"));
    reload(&server);
    twilio.wait_for_phone(WAITING, 1);
    twilio.wait_for_phone(other, 1);
}

#[test]
fn account_and_shared_key_are_added_and_removed_on_sighup() {
    const KEY: &str = "webhooks_sharedkey_01h455vb4pex5vsknk084sn02a";
    let main = settings(TOKEN) + &format!("account_sid = \"{ACCOUNT}\"\n");
    let files = Files::new(&main);
    let server = files.server();
    let of_subaccount = |number| {
        let webhook = Webhook::message(number, "hi").with("AccountSid", SUBACCOUNT);
        webhook.token(OTHER_TOKEN)
    };
    let by_key = |number| {
        let webhook = Webhook::message(number, "hi");
        let (url, secret) = (
            format!("{ORIGIN}{}", webhook.target),
            Secret::new("the key"),
        );
        let algorithm = SignatureAlgorithm::HmacSha256;
        let signature = sign_with(algorithm, &secret, &url, Some(&webhook.form)).unwrap();
        webhook.signature(&signature).header(
            "X-Twilio-Webhooks-Signature-Settings",
            &format!("key={KEY},algorithm={algorithm}"),
        )
    };
    assert_refused(&server, &of_subaccount(1));
    assert_refused(&server, &by_key(2));
    let both = format!(
        "{main}[twilio.accounts.{SUBACCOUNT}]\nauth_token = \"{OTHER_TOKEN}\"\n\
         [signature.shared_keys.{KEY}]\nsecret = \"the key\"\n"
    );
    files.write("replyhook.toml", &both);
    let log = reload(&server);
    for key in [
        format!("twilio.accounts.{SUBACCOUNT}.auth_token"),
        format!("signature.shared_keys.{KEY}.secret"),
    ] {
        assert!(log.contains(&key), "{log}");
    }
    assert_verifies(&server, &of_subaccount(3));
    assert_verifies(&server, &by_key(4));
    files.write("replyhook.toml", &main);
    reload(&server);
    assert_refused(&server, &of_subaccount(5));
    assert_refused(&server, &by_key(6));
    assert_verifies(&server, &Webhook::message(7, "hi"));
}

#[test]
fn consent_words_and_confirmation_change_on_sighup() {
    let files = Files::new(&settings(TOKEN));
    let server = files.server();
    let basta = |number, user| Webhook::message(number, "Basta").with("From", user);
    let answer = server.send(&basta(1, "whatsapp:+15550000001"));
    assert_eq!(answer.twiml(), twiml_message("Basta"));
    let consent = "[consent]\nstop_words = [\"BASTA\"]\nstop_reply = \"Finito.\"\n";
    files.write("replyhook.toml", &(settings(TOKEN) + consent));
    let log = reload(&server);
    assert!(
        log.contains("applied: consent.stop_reply, consent.stop_words"),
        "{log}"
    );
    let answer = server.send(&basta(2, "whatsapp:+15550000002"));
    assert_eq!(answer.twiml(), twiml_message("Finito."));
}

#[test]
fn guard_changes_on_sighup() {
    let files = Files::new(&settings(TOKEN));
    let server = files.server();
    let send = |number, user: &str| {
        let webhook = Webhook::message(number, "hi").with("From", user);
        server.send(&webhook).twiml().to_owned()
    };
    let (ana, ben) = ("whatsapp:+15550000001", "whatsapp:+4915112345678");
    assert_eq!(send(1, ana), twiml_message("hi"));
    let guard =
        "[guard]\nblock = [\"+1555\"]\nrefusal = \"Not here.\"\nmessages_per_user_per_minute = 1\n";
    files.write("replyhook.toml", &(settings(TOKEN) + guard));
    let log = reload(&server);
    assert!(
        log.contains("applied: guard.block, guard.messages_per_user_per_minute, guard.refusal"),
        "{log}"
    );
    assert_eq!(send(2, ana), twiml_message("Not here."));
    assert_eq!(send(3, ben), twiml_message("hi"));
    assert_eq!(send(4, ben), EMPTY);
    // A wrong entry changes nothing.
    let wrong = guard.replace("+1555", "1555 0000");
    files.write("replyhook.toml", &(settings(TOKEN) + &wrong));
    let log = reload(&server);
    assert!(log.contains("could not reload the settings"), "{log}");
    assert_eq!(send(5, "whatsapp:+15550000002"), twiml_message("Not here."));
    let own = format!("[guard]\nown_numbers = [\"{ben}\"]\nallow = [\"US\"]\n");
    files.write("replyhook.toml", &(settings(TOKEN) + &own));
    reload(&server);
    assert_eq!(send(6, ana), twiml_message("hi"));
    assert_eq!(send(7, ben), EMPTY);
    for reason in ["own_number", "rate"] {
        let series = format!(r#"replyhook_messages_blocked_total{{reason="{reason}"}}"#);
        assert_eq!(server.metric(&series), 1.0, "{reason}");
    }
}

#[test]
fn log_level_changes_on_sighup() {
    let level = |level: &str| settings(TOKEN) + &format!("[log]\nlevel = \"{level}\"\n");
    let files = Files::new(&level("info"));
    let server = files.server();
    files.write("replyhook.toml", &level("error"));
    server.signal(Signal::HUP);
    server.wait_until(APPLIED, 1.0);
    server.signal(Signal::HUP);
    server.wait_until(APPLIED, 2.0);
    files.write("replyhook.toml", &level("info,replyhook=debug"));
    reload(&server);
    // The lines of the first two reloads are `info`, which was not logged then.
    let log = server.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("reloaded the settings"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("applied: log.level"), "{log}");
}

#[test]
fn rules_and_their_confirmations_reload_with_settings() {
    let settings = |stop_reply: &str| {
        format!(
            "{}[handler]\nkind = \"rules\"\nrules = \"bot.toml\"\n[consent]\nstop_reply = \"{stop_reply}\"\n",
            settings(TOKEN)
        )
    };
    let files = Files(tempfile::tempdir().unwrap());
    files.write("replyhook.toml", &settings("Bye one."));
    files.write("bot.toml", "[otherwise]\nreply = \"one\"\n");
    let server = files.server();
    let reply = |number, body: &str, user: &str| {
        let webhook = Webhook::message(number, body).with("From", user);
        server.send(&webhook).twiml().to_owned()
    };
    assert_eq!(
        reply(1, "hi", "whatsapp:+15550000001"),
        twiml_message("one")
    );
    files.write("bot.toml", "[otherwise]\nreply = \"two\"\n");
    files.write("replyhook.toml", &settings("Bye two."));
    reload(&server);
    assert_eq!(
        reply(2, "hi", "whatsapp:+15550000001"),
        twiml_message("two")
    );
    assert_eq!(
        reply(3, "STOP", "whatsapp:+15550000002"),
        twiml_message("Bye two.")
    );
    // A text of the rules file has precedence over that of the settings, whichever is reloaded last.
    files.write(
        "bot.toml",
        "[otherwise]\nreply = \"three\"\n[opt_out]\nstop_reply = \"Gone.\"\n",
    );
    reload(&server);
    files.write("replyhook.toml", &settings("Bye three."));
    reload(&server);
    assert_eq!(
        reply(4, "STOP", "whatsapp:+15550000003"),
        twiml_message("Gone.")
    );
    // Invalid rules reject the settings too.
    files.write("bot.toml", "[otherwise]\nreply = \"four {{ nme }}\"\n");
    files.write(
        "replyhook.toml",
        &settings("Bye").replace(TOKEN, OTHER_TOKEN),
    );
    let log = reload(&server);
    assert!(
        log.contains("could not reload the settings; the previous settings stay in use")
            && log.contains("line 2, column 18: nme is not defined here"),
        "{log}"
    );
    assert_refused(&server, &Webhook::message(5, "hi").token(OTHER_TOKEN));
    assert_eq!(
        reply(6, "hi", "whatsapp:+15550000001"),
        twiml_message("three")
    );
}

#[test]
fn wrong_file_changes_nothing_and_log_says_why() {
    let files = Files::new(&(settings(TOKEN) + "[server]\nbody_timeout_ms = 60000\n"));
    let server = files.server();
    let begun = Webhook::message(1000, "begun before").raw(ORIGIN);
    let (first, rest) = begun.split_at(begun.len() - 5);
    let mut connection = wire::connect(server.public);
    connection.write_all(first).unwrap();
    server.wait_until("replyhook_requests_in_flight", 1.0);
    let valid = settings(OTHER_TOKEN) + "[consent]\nstop_words = [\"BASTA\"]\n";
    let missing_file = "[twilio]\nauth_token_file = \"no-such-file\"\n";
    let wrong = [
        (format!("{valid}stop_replie = \"Bye\"\n"), "did you mean"),
        (
            format!("{valid}[server]\nmax_params = 1\n"),
            "write a number from",
        ),
        (
            format!("{valid}[twilio.accounts.AC1]\nauth_token = \"{TOKEN}\"\n"),
            "twilio.accounts.AC1",
        ),
        (missing_file.to_owned(), "cannot be read"),
        (
            settings("").replace("\"\"", "\"\"\n[log]\nlevel = \"loud\""),
            "with an empty token",
        ),
        (format!("{valid}[twilio"), "is not TOML"),
        // What `check` accepts and the server cannot use.
        (
            format!(
                "{valid}stop_reply = \"{}\"\n",
                "x".repeat(64 * 1024).as_str()
            ),
            "",
        ),
    ];
    let path = files.path("replyhook.toml").display().to_string();
    let mut rejected = 0.0;
    for (number, (text, reason)) in (1..).zip(&wrong) {
        files.write("replyhook.toml", text);
        let log = reload(&server);
        assert!(
            log.contains("could not reload the settings; the previous settings stay in use")
                && log.contains(reason),
            "{text:.200}: {log}"
        );
        // The texts of `check`.
        let env = [("PUBLIC_URL", ORIGIN)];
        let (code, _, problems) = replyhook(&["check", "--config", &path], &env, "");
        let problems = problems.lines().filter(|line| line.starts_with("  "));
        let logged = log.replace("\\\"", "\"");
        let mut seen = 0;
        for problem in problems {
            assert!(logged.contains(problem.trim()), "{problem}: {logged}");
            seen += 1;
        }
        assert_eq!(seen > 0, code == 2, "{text:.200}");
        rejected += 1.0;
        assert_eq!(server.metric(REJECTED), rejected);
        assert_refused(
            &server,
            &Webhook::message(number * 10, "hi").token(OTHER_TOKEN),
        );
        let user = format!("whatsapp:+1555000100{number}");
        let basta = Webhook::message(number * 10 + 1, "Basta").with("From", &user);
        assert_eq!(server.send(&basta).twiml(), twiml_message("Basta"));
    }
    assert_eq!(server.metric(APPLIED), 0.0);
    connection.write_all(rest).unwrap();
    let answer = wire::read_response(&mut connection).unwrap();
    assert_eq!(answer.twiml(), twiml_message("begun before"));
    files.write("replyhook.toml", &valid);
    reload(&server);
    assert_verifies(&server, &Webhook::message(1, "hi").token(OTHER_TOKEN));
    assert_refused(&server, &Webhook::message(2, "hi"));
    let log = server.log();
    assert!(!log.contains(TOKEN) && !log.contains(OTHER_TOKEN), "{log}");
}

// Also the default file, which may be missing at the start.
#[test]
fn vanished_default_file_changes_nothing_and_log_says_so() {
    let files = Files(tempfile::tempdir().unwrap());
    let mut shell = Command::new("/bin/sh");
    let script = format!(
        "cd {} && exec {} \"$1\"",
        files.0.path().display(),
        env!("CARGO_BIN_EXE_replyhook")
    );
    shell.args(["-c", &script, "sh"]);
    let server = Server::start_by(shell, &[]);
    let log = reload(&server);
    assert!(log.contains("no change to apply"), "{log}");
    let account = format!(
        "[twilio.accounts.{SUBACCOUNT}]\nauth_token = \"{OTHER_TOKEN}\"\n\
         [consent]\nstop_words = [\"BASTA\"]\nstop_reply = \"Finito.\"\n"
    );
    files.write("replyhook.toml", &account);
    reload(&server);
    let of_account = |number| {
        let webhook = Webhook::message(number, "hi").with("AccountSid", SUBACCOUNT);
        webhook.token(OTHER_TOKEN)
    };
    assert_verifies(&server, &of_account(1));
    std::fs::rename(files.path("replyhook.toml"), files.path("away")).unwrap();
    for number in [2, 4] {
        let log = reload(&server);
        assert!(
            log.contains("could not reload the settings; the previous settings stay in use")
                && log.contains("replyhook.toml")
                && log.contains("cannot be read: No such file or directory"),
            "{log}"
        );
        assert_verifies(&server, &of_account(number));
        let user = format!("whatsapp:+1555000000{number}");
        let basta = Webhook::message(number + 1, "Basta").with("From", &user);
        assert_eq!(server.send(&basta).twiml(), twiml_message("Finito."));
    }
    assert_eq!(server.metric(REJECTED), 2.0);
    // An empty file is read as such.
    files.write("replyhook.toml", "");
    reload(&server);
    assert_refused(&server, &of_account(6));
}

#[test]
fn changed_keys_that_need_restart_are_named() {
    let files = Files::new(&settings(TOKEN));
    let server = files.server();
    let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let text = settings(OTHER_TOKEN)
        + &format!(
            "[reply]\nmax_messages = 5\n[handler]\nforward_secret = \"{secret}\"\n\
             [server]\nmax_in_flight = 987654\n"
        );
    files.write("replyhook.toml", &text);
    let named = "takes effect after a restart: handler.forward_secret, reply.max_messages, server.max_in_flight";
    let log = reload(&server);
    assert!(log.contains(named), "{log}");
    assert!(log.contains(r#""level":"WARN""#), "{log}");
    // The rest applies.
    assert!(log.contains("applied: twilio.auth_token"), "{log}");
    assert_verifies(&server, &Webhook::message(1, "hi").token(OTHER_TOKEN));
    // They still differ from what the server uses.
    let log = reload(&server);
    assert!(log.contains(named), "{log}");
    assert!(log.contains("no change to apply"), "{log}");
    files.write("replyhook.toml", &settings(OTHER_TOKEN));
    let log = reload(&server);
    assert!(!log.contains("restart"), "{log}");
    let log = server.log();
    for value in [secret, "987654"] {
        assert!(!log.contains(value), "{log}");
    }
}

#[test]
fn several_signals_apply_the_last_file() {
    let files = Files::new(&settings(TOKEN));
    let server = files.server();
    for number in 1..=20 {
        let consent =
            format!("[consent]\nstop_words = [\"WORD{number}\"]\nstop_reply = \"Bye.\"\n");
        files.write("replyhook.toml", &(settings(TOKEN) + &consent));
        server.signal(Signal::HUP);
    }
    let wait = Wait::until("the last file is in use");
    for number in 1.. {
        let user = format!("whatsapp:+1555{number:07}");
        let webhook = Webhook::message(number, "WORD20").with("From", &user);
        if server.send(&webhook).twiml() == twiml_message("Bye.") {
            break;
        }
        wait.check_found(&server.log());
    }
    // Each reload ends before the next one begins.
    let applied = server.metric(APPLIED);
    assert!((1.0..=20.0).contains(&applied), "{applied}");
}

// Both tokens are configured all the time, and change places.
#[test]
fn every_message_is_answered_once_during_reloads() {
    const SENDERS: u64 = 4;
    const MESSAGES: u64 = 50;
    let both = |first: &str, second: &str| {
        format!("[twilio]\nauth_token = \"{first}\"\nauth_token_secondary = \"{second}\"\n")
    };
    let files = Files::new(&both(TOKEN, OTHER_TOKEN));
    let server = files.server();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let server = &server;
                scope.spawn(move || {
                    for number in 0..MESSAGES {
                        let text = format!("message {sender} {number}");
                        let token = [TOKEN, OTHER_TOKEN][usize::from(number % 2 == 0)];
                        let user = format!("whatsapp:+1555000{sender:04}");
                        let webhook = Webhook::message(1 + sender * MESSAGES + number, &text)
                            .with("From", &user)
                            .token(token);
                        assert_eq!(server.send(&webhook).twiml(), twiml_message(&text));
                    }
                })
            })
            .collect();
        let (server, files, is_done) = (&server, &files, &is_done);
        let reloads = scope.spawn(move || {
            let mut count = 0;
            while count < 20 || !is_done.load(Ordering::Relaxed) {
                let (first, second) = if count % 2 == 0 {
                    (OTHER_TOKEN, TOKEN)
                } else {
                    (TOKEN, OTHER_TOKEN)
                };
                files.write("replyhook.toml", &both(first, second));
                let log = reload(server);
                assert!(log.contains("reloaded the settings; applied"), "{log}");
                count += 1;
            }
            count
        });
        for sender in senders {
            sender.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(reloads.join().unwrap() >= 20);
    });
    let answered = server.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="ok"}"#);
    assert_eq!(answered, 200.0);
    assert_eq!(
        server.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="duplicate"}"#),
        0.0
    );
}

#[test]
fn sighup_before_server_is_ready_does_not_end_it() {
    let command = Command::new(env!("CARGO_BIN_EXE_replyhook"));
    let server = Server::launch(command, &[]);
    let wait = Wait::until("the process handles SIGHUP");
    while !handles_sighup(server.pid()) {
        wait.check();
    }
    for _ in 0..3 {
        server.signal(Signal::HUP);
    }
    server.wait_for("ready: enter these URLs");
    server.wait_for("reloaded the settings");
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Returns whether a process has a handler for signal 1.
fn handles_sighup(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 1 == 1)
}

#[test]
fn sighup_during_shutdown_does_not_end_it() {
    let files = Files::new(&(settings(TOKEN) + "[server]\nbody_timeout_ms = 60000\n"));
    let server = files.server();
    let begun = Webhook::message(1, "hi").raw(ORIGIN);
    let (first, rest) = begun.split_at(begun.len() - 5);
    let mut connection = wire::connect(server.public);
    connection.write_all(first).unwrap();
    server.wait_until("replyhook_requests_in_flight", 1.0);
    server.signal(Signal::TERM);
    server.wait_for("draining");
    server.signal(Signal::HUP);
    connection.write_all(rest).unwrap();
    assert!(wire::read_response(&mut connection).is_some());
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

// The handler is there before the command line is read: the help waits for its reader.
#[test]
fn sighup_is_handled_before_command_line_is_read() {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b' '; 4096]).is_ok() {}
    writer.set_nonblocking(false).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_replyhook"))
        .args(["serve", "--help"])
        .stdout(OwnedFd::from(writer))
        .spawn()
        .unwrap();
    let wait = Wait::until("the process handles SIGHUP");
    while !handles_sighup(serve.id()) {
        wait.check();
    }
    kill_process(Pid::from_child(&serve), Signal::HUP).unwrap();
    let text = std::io::read_to_string(reader).unwrap();
    assert!(text.contains("Usage: replyhook serve"), "{text}");
    assert_eq!(serve.wait().unwrap().code(), Some(0));
}

/// Starts `dev` with a program that sets the treatment of SIGHUP.
fn start_dev(folder: &Path, with: &mut Command) -> Program {
    Program::start(
        with.arg(env!("CARGO_BIN_EXE_replyhook"))
            .args(["dev", "--emulator-port", "0", "--port", "0"])
            .env("XDG_STATE_HOME", folder.join("state"))
            .current_dir(folder),
    )
}

// A terminal that closes sends SIGHUP. The file of the settings is watched.
#[test]
fn sighup_ends_dev() {
    let folder = tempfile::tempdir().unwrap();
    // The tests themselves may run under nohup, which a child inherits.
    let program = start_dev(
        folder.path(),
        Command::new("env").arg("--default-signal=HUP"),
    );
    let mut dev = Dev::from_program(program);
    assert_eq!(dev.program.signal_and_wait(Signal::HUP), Some(0));
}

#[test]
fn sighup_does_not_end_dev_under_nohup() {
    let folder = tempfile::tempdir().unwrap();
    let program = start_dev(folder.path(), &mut Command::new("nohup"));
    let dev = Dev::from_program(program);
    let pid = Pid::from_raw(i32::try_from(dev.program.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    let answer = dev.says(&json!({"from": "whatsapp:+15550001111", "body": "still here?"}));
    assert_eq!(answer["messages"][0]["body"], "still here?");
}

// A program with a router of its own asks for the reload itself.
#[tokio::test]
async fn reload_handle_reloads_mounted_app() {
    let files = Files(tempfile::tempdir().unwrap());
    files.write("token", TOKEN);
    let file = files.path("token").display().to_string();
    let env = [
        ("TWILIO_AUTH_TOKEN", ""),
        ("TWILIO_AUTH_TOKEN_FILE", file.as_str()),
    ];
    let app = App::builder().sources(app::sources(&env)).build().unwrap();
    let (reload, admin) = (app.reload_handle(), app.admin_router());
    let (router, mut worker) = app.into_parts();
    worker.open().await.unwrap();
    // Before the worker runs: it finds the request.
    files.write("token", OTHER_TOKEN);
    reload.request();
    let running = tokio::spawn(worker.run(std::future::pending::<()>()));
    let wait = Wait::until("the reload is applied");
    loop {
        let request = http::Request::get("/metrics");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let metrics = app::call_router(&admin, request).await.body;
        if metrics.contains(&format!("{APPLIED} 1")) {
            break;
        }
        wait.pause().await;
    }
    let rotated = Webhook::message(1, "hi").token(OTHER_TOKEN);
    let answer = app::call_router(&router, rotated.request()).await;
    assert_eq!(answer.twiml(), twiml_message("hi"));
    let old = app::call_router(&router, Webhook::message(2, "hi").request()).await;
    assert_eq!(old.status, 403);
    running.abort();
}
