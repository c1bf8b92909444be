//! Operator commands next to a running server: their output, their changes, and the data that they never show.

use std::process::Command;

use replyhook::clock::SignedDuration;
use replyhook::internals::ConsentState;
use replyhook::store::{Access, ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::{
    App, Clock, Context, HandlerError, InboundMessage, ManualClock, SystemClock, Timestamp,
};
use rustix::process::Signal;

use crate::support::{
    ACCOUNT, EMPTY, FakeTwilio, TempStore, Webhook, app::sources, replyhook, twiml_message,
};

const USER: &str = "whatsapp:+15550417263";
const NUMBER: &str = "15550417263";
const BOT: &str = "whatsapp:+15550002222";
const TEXT: &str = "canary-text-7f3a";
const NAME: &str = "canary-name-91bc";
const CANARIES: [&str; 3] = [NUMBER, TEXT, NAME];

fn canary(number: u64, text: &str) -> Webhook {
    Webhook::message(number, text)
        .with("From", USER)
        .with("ProfileName", NAME)
}

fn sid(number: u64) -> String {
    format!("SM{number:032x}")
}

async fn failing(_cx: Context, _message: InboundMessage) -> Result<String, HandlerError> {
    Err(HandlerError::new("no"))
}

#[track_caller]
fn assert_no_canary(text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} is in {text}");
    }
}

// Only --content shows texts and full addresses.
#[test]
fn messages_list_is_newest_first_and_hides_content() {
    let store = TempStore::new();
    let server = store.server();
    server.send(&Webhook::message(1, "hi")).twiml();
    let colored = format!("{TEXT}\u{9b}31m\nred");
    server.send(&canary(2, &colored)).twiml();

    let list = store.run_ok(&["messages", "list"]);
    assert_no_canary(&list);
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let [newer, older] = &lines[..] else {
        panic!("{list}")
    };
    assert_eq!(newer[..3], [&sid(2), "answered", "whatsapp:…63"]);
    assert_eq!(older[..3], [&sid(1), "answered", "whatsapp:…11"]);
    assert!(
        newer.len() == 4 && newer[3].ends_with(['s', 'm']),
        "{newer:?}"
    );

    let json = store.run_ok(&["messages", "list", "--json"]);
    assert_no_canary(&json);
    let lines = store.run_json(&["messages", "list", "--json"]);
    let names: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "attempt",
            "message_sid",
            "received_at",
            "replies",
            "state",
            "user"
        ]
    );
    assert_eq!(lines[0]["message_sid"], sid(2));
    assert_eq!(lines[0]["user"], "whatsapp:…63");
    assert_eq!(
        (&lines[0]["attempt"], &lines[0]["state"]),
        (&1.into(), &"answered".into())
    );
    let received_at: Timestamp = lines[0]["received_at"].as_str().unwrap().parse().unwrap();
    assert!(received_at <= SystemClock.now());
    assert_eq!(lines[0]["replies"], serde_json::json!([]));

    let content = store.run_ok(&["messages", "list", "--content"]);
    assert!(content.contains(USER) && content.contains(TEXT));
    assert!(
        !content.contains(['\u{1b}', '\u{9b}']),
        "{content:?} contains terminal control characters"
    );
    let lines = store.run_json(&["messages", "list", "--json", "--content"]);
    assert_eq!(lines[0]["body"], colored);
    assert_eq!(lines[0]["user"], USER);
    assert!(lines[0]["response"].as_str().unwrap().contains(TEXT));

    for (args, expected) in [
        (&["--limit", "1"][..], vec![sid(2)]),
        (&["--user", USER], vec![sid(2)]),
        (&["--user", "whatsapp:+15550009999"], vec![]),
        (&["--state", "answered"], vec![sid(2), sid(1)]),
        (&["--state", "held"], vec![]),
    ] {
        let list = store.run_json(&[&["messages", "list", "--json"], args].concat());
        let sids: Vec<_> = list
            .iter()
            .map(|line| line["message_sid"].clone())
            .collect();
        assert_eq!(sids, expected, "{args:?}");
    }
}

// Lists show the address as `sms:…33`.
#[test]
fn sms_user_is_found_with_and_without_channel() {
    let store = TempStore::new();
    let server = store.server();
    let from = |number, user| Webhook::message(number, "hi").with("From", user);
    server.send(&from(1, "+15550007733")).twiml();
    server.send(&from(2, "whatsapp:+15550007733")).twiml();
    for user in ["+15550007733", "sms:+15550007733"] {
        let list = store.run_json(&["messages", "list", "--json", "--user", user]);
        let sids: Vec<_> = list.iter().map(|line| &line["message_sid"]).collect();
        assert_eq!(sids, [&sid(1)], "{user}");
    }
}

#[test]
fn messages_show_prints_details_or_reports_unknown_message() {
    let store = TempStore::new();
    let server = store.server();
    server.send(&canary(1, TEXT)).twiml();
    let text = store.run_ok(&["messages", "show", &sid(1)]);
    assert_no_canary(&text);
    for part in [&sid(1), ACCOUNT, "answered", "whatsapp:…63", "attempt   1"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let text = store.run_ok(&["messages", "show", &sid(1), "--content"]);
    assert!(text.contains(TEXT) && text.contains(USER), "{text}");
    assert_no_canary(&store.run_ok(&["messages", "show", &sid(1), "--json"]));
    let text = store.run_json(&["messages", "show", &sid(1), "--json", "--content"]);
    let params = text[0]["params"].as_array().unwrap();
    assert!(params.contains(&serde_json::json!(["ProfileName", NAME])));

    for command in ["show", "retry", "release"] {
        let (code, out, err) = store.run(&["messages", command, &sid(9)]);
        assert_eq!((code, err.as_str()), (1, ""));
        assert!(
            out.contains(&format!("message {} is not in the journal", sid(9))),
            "{out}"
        );
        let (code, out, err) = store.run(&["messages", command, "SM1"]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains("not a message SID"), "{err}");
    }
    let (code, out, _) = store.run(&["messages", "retry", &sid(1)]);
    assert!(
        code == 1 && out.contains("is answered: only failed or dead"),
        "{out}"
    );
    assert_eq!(
        store.run(&["messages", "release", &sid(1)]),
        (1, "nothing is held\n".to_owned(), String::new())
    );
    assert_eq!(store.run(&["messages", "release", "--all"]).0, 1);
}

#[test]
fn messages_export_is_complete_and_tolerates_closed_pipe() {
    let store = TempStore::new();
    let server = store.server();
    for number in 1..=3 {
        server.send(&canary(number, TEXT)).twiml();
    }
    assert_no_canary(&store.run_ok(&["messages", "export"]));
    let lines = store.run_json(&["messages", "export", "--content"]);
    let sids: Vec<_> = lines.iter().map(|line| &line["message_sid"]).collect();
    assert_eq!(sids, [&sid(3), &sid(2), &sid(1)]);
    assert_eq!(lines[2]["account_sid"], ACCOUNT);
    assert_eq!(lines[2]["body"], TEXT);
    let cut = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "DATABASE_URL=sqlite:{} {} messages export | head -c 10",
            store.path().display(),
            env!("CARGO_BIN_EXE_replyhook")
        ))
        .output()
        .unwrap();
    assert_eq!((cut.stdout.len(), cut.stderr.len()), (10, 0));
}

#[test]
fn invalid_arguments_exit_with_2_before_opening_store() {
    let store = TempStore::new();
    for (args, part) in [
        (
            &["messages", "list", "--state", "lost"][..],
            "possible values: received",
        ),
        (&["messages", "list", "--limit", "0"], "0 is not in"),
        (
            &["messages", "list", "--user", "15550001111"],
            "write it as Twilio does: +15550001111",
        ),
        (&["messages", "release"], "required"),
        (&["messages", "release", &sid(1), "--all"], "cannot be used"),
        (&["purge"], "--user"),
        (
            &["purge", "--user", USER, "--expired", "--yes"],
            "cannot be used",
        ),
        (&["purge", "--user", " ", "--yes"], "not an address"),
        (&["purge", "--user", "rubbish", "--yes"], "not an address"),
        (&["messages", "list", "--user", "rubbish"], "not an address"),
        (&["consent", "show", "rubbish"], "not an address"),
        (&["user", "show", "nonsense"], "not an address"),
        (&["handoff", "end", "nonsense"], "not an address"),
        (
            &["user", "split", "whatsapp:ACME", "--reason", "x"],
            "not an address",
        ),
        (
            &["user", "merge", USER, USER, "--reason", "x"],
            "both addresses are the same",
        ),
        (
            &["user", "split", USER, "--reason", "one\ntwo"],
            "--reason has a line break",
        ),
        (&["consent", "opt-out", USER], "--sender"),
        (
            &["consent", "show", USER, "--service", "MG1"],
            "not a Messaging Service SID",
        ),
        (
            &[
                "consent",
                "opt-in",
                USER,
                "--sender",
                BOT,
                "--evidence",
                "x",
            ],
            "not a message SID",
        ),
        (
            &[
                "consent",
                "opt-out",
                "whatsapp:15550001111",
                "--sender",
                BOT,
            ],
            "whatsapp:+15550001111",
        ),
        (&["consent", "export", "--json", "--csv"], "cannot be used"),
        (&["reconcile", "--since", "0"], "0 is not in 1..=720"),
    ] {
        let (code, out, err) = store.run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?} {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    assert_eq!(store.files(), [] as [&str; 0]);
}

#[test]
fn commands_without_store_fail_and_create_nothing() {
    let store = TempStore::new();
    let sid = sid(1);
    let commands = [
        &["messages", "list"][..],
        &["messages", "show", &sid],
        &["messages", "export"],
        &["messages", "release", "--all"],
        &["purge", "--user", USER, "--yes"],
        &["purge", "--expired"],
        &["consent", "show", USER, "--sender", BOT],
        &["consent", "opt-in", USER, "--sender", BOT],
        &["consent", "export"],
        &["reconcile"],
    ];
    for args in commands {
        let (code, out, err) = store.run_for_account(args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?} {err}");
        assert!(
            err.contains("kept.db does not exist; use the server's DATABASE_URL"),
            "{err}"
        );
        assert_eq!(store.files(), [] as [&str; 0], "{args:?}");
    }
    for (url, code, part) in [
        ("sqlite::memory:", 2, "other processes cannot read"),
        ("mysql://h/db", 2, "(DATABASE_URL) is not a valid store URL"),
    ] {
        let (found, _, err) = replyhook(commands[0], &[("DATABASE_URL", url)], "");
        assert!(found == code && err.contains(part), "{err}");
    }
    std::fs::write(store.path(), "no database, but a text of some length").unwrap();
    let (code, _, err) = store.run(commands[0]);
    assert!(
        code == 1 && err.contains("damaged, or belongs to another program"),
        "{err}"
    );
}

#[test]
fn messages_retry_reruns_handler_of_failed_message() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let answer = store.app(
        |app| app.handler(failing),
        async |app| app.send(canary(1, TEXT)).await,
    );
    assert_eq!(answer.status, 500);
    let list = store.run_ok(&["messages", "list", "--state", "failed"]);
    assert!(list.trim_end().ends_with("the handler failed"), "{list}");

    let retried = store.run_ok(&["messages", "retry", &sid(1)]);
    assert!(retried.contains("will be handled again"), "{retried}");
    let (code, out, _) = store.run(&["messages", "retry", &sid(1)]);
    assert!(code == 1 && out.contains("is deferred"), "{out}");

    let _server = store.server();
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, TEXT);
    store.wait_for(&["messages", "list", "--state", "sent"]);
    let shown = store.run_json(&["messages", "show", &sid(1), "--json"]);
    assert_eq!(shown[0]["attempt"], 2);
    assert_eq!(shown[0]["replies"][0]["state"], "sent");
    assert!(
        shown[0]["replies"][0]["sid"]
            .as_str()
            .unwrap()
            .starts_with("SM")
    );
}

#[test]
fn messages_retry_since_reruns_recent_failed_messages() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let retry = ["messages", "retry", "--state", "failed", "--since", "6"];
    let clock = std::sync::Arc::new(ManualClock::new(SystemClock.now()));
    store.app(
        |app| app.handler(failing).clock(clock.clone()),
        async |app| {
            for number in 2..4 {
                assert_eq!(app.send(canary(number, TEXT)).await.status, 500);
            }
            clock.advance(-SignedDuration::from_hours(7));
            assert_eq!(app.send(canary(1, TEXT)).await.status, 500);
        },
    );
    let retried = store.run_ok(&retry);
    assert!(
        retried.starts_with("2 messages to be handled again"),
        "{retried}"
    );
    let (code, out, _) = store.run(&retry);
    assert!(code == 1 && out.starts_with("0 messages"), "{out}");
    let _server = store.server();
    assert_eq!(twilio.wait_for_phone(USER, 2).len(), 2);
    store.run_ok(&["messages", "retry", "--state", "failed"]);
    assert_eq!(twilio.wait_for_phone(USER, 3).len(), 3);
}

// A code that this version does not know links to Twilio's page.
#[test]
fn failed_reply_is_shown_with_error_explanation() {
    assert_failure_is_explained(63016, "use a template (63016)");
    let link = "see https://www.twilio.com/docs/api/errors/30022 (30022)";
    assert_failure_is_explained(30022, link);
}

fn assert_failure_is_explained(code: u32, explanation: &str) {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    store.app(
        |app| app.handler(failing),
        async |app| app.send(canary(1, TEXT)).await,
    );
    store.run_ok(&["messages", "retry", &sid(1)]);
    twilio.fault(
        crate::support::Fault::Status {
            status: 400,
            code: Some(code),
            retry_after: None,
        },
        1,
    );
    let _server = store.server();
    twilio.wait_for_posts(1);
    let list = store.wait_for(&["messages", "list", "--state", "failed"]);
    assert!(list.contains(explanation), "{list}");
    let text = store.run_ok(&["messages", "show", &sid(1)]);
    assert!(text.contains("reply 1   failed"), "{text}");
    assert!(text.contains(explanation), "{text}");
    let lines = store.run_json(&["messages", "list", "--json"]);
    assert_eq!(lines[0]["replies"][0]["error_code"], code);
    let (exit, out, _) = store.run(&["messages", "retry", &sid(1)]);
    assert!(exit == 1 && out.contains("messages release"), "{out}");
}

#[test]
fn migrate_updates_schema_unless_server_is_running() {
    let store = TempStore::new();
    let migrated = store.run_ok(&["migrate"]);
    let newest = format!("schema number {},", replyhook::internals::SCHEMA);
    assert!(migrated.contains(&newest), "{migrated}");
    assert_eq!(store.run_ok(&["messages", "list"]), "");
    assert_eq!(store.run_ok(&["migrate"]), migrated);
    let server = store.server();
    let (code, out, err) = store.run(&["migrate"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("a running server owns sqlite:"), "{err}");
    assert!(err.contains("stop it"), "{err}");
    drop(server);
    assert_eq!(store.run_ok(&["migrate"]), migrated);
}

// The database file has none of the user's data, yet a redelivery is still recognized.
#[test]
fn purge_removes_user_data_but_keeps_deduplication() {
    let store = TempStore::new();
    let server = store.server();
    server.send(&Webhook::message(3, "hi")).twiml();
    server.send(&canary(1, TEXT)).twiml();
    // Longer than a database page, and than one message of the reply.
    let long = format!("{TEXT} ").repeat(1000);
    server.send(&canary(2, &long)).twiml();
    assert_eq!(store.find_canary(&[TEXT]), Some(TEXT));

    let (code, out, err) = store.run(&["purge", "--user", USER]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("use --yes"), "{err}");
    let purged = store.run_ok(&["purge", "--user", USER, "--yes"]);
    assert!(
        purged.starts_with("deleted: the content of 2 messages, ") && purged.contains("keys"),
        "{purged}"
    );
    assert_eq!(store.find_canary(&CANARIES), None);

    // The deduplication keys stay, so a redelivery gets the empty response.
    assert_eq!(server.send(&canary(1, TEXT)).twiml(), EMPTY);
    assert_eq!(store.find_canary(&CANARIES), None);
    let shown = store.run_json(&["messages", "show", &sid(1), "--json", "--content"]);
    assert_eq!(
        (&shown[0]["user"], &shown[0]["body"], &shown[0]["reason"]),
        (
            &serde_json::Value::Null,
            &serde_json::Value::Null,
            &"purged".into()
        )
    );
    // A new user is not mistaken for the purged one, and other users keep their data.
    let newcomer = "whatsapp:+15550001234";
    let webhook = Webhook::message(4, "hello").with("From", newcomer);
    server.send(&webhook).twiml();
    let theirs = store.run_json(&["messages", "list", "--user", newcomer, "--json"]);
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    let all = store.run_json(&["messages", "list", "--json", "--content"]);
    let users: Vec<_> = all.iter().map(|line| line["user"].as_str()).collect();
    assert_eq!(
        users,
        [Some(newcomer), None, None, Some("whatsapp:+15550001111")]
    );
    // A second purge is not an error.
    let purged = store.run_ok(&["purge", "--user", USER, "--yes"]);
    assert!(
        purged.starts_with("deleted: the content of 0 messages"),
        "{purged}"
    );
}

#[test]
fn opt_out_survives_purge_unless_explicitly_forgotten() {
    let store = TempStore::new();
    let server = store.server();
    server.send(&canary(1, TEXT)).twiml();
    server.send(&canary(2, "STOP")).twiml();
    let purged = store.run_ok(&["purge", "--user", USER, "--yes"]);
    assert!(purged.contains("an opt-out with its evidence"), "{purged}");
    assert_eq!(store.find_canary(&[TEXT, NAME]), None);
    assert_eq!(server.send(&canary(3, "hi")).twiml(), EMPTY);
    let ledger = store.run_json(&["consent", "export", "--json"]);
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0]["evidence"], sid(2));

    store.run_ok(&["purge", "--user", USER, "--forget-opt-out", "--yes"]);
    assert_eq!(store.find_canary(&CANARIES), None);
    assert_eq!(store.run_ok(&["consent", "export"]), "");
    assert_eq!(server.send(&canary(4, "hi")).twiml(), twiml_message("hi"));

    // A withdrawn opt-out is not kept, so the purge also deletes the number.
    server.send(&canary(5, "STOP")).twiml();
    server.send(&canary(6, "START")).twiml();
    store.run_ok(&["purge", "--user", USER, "--yes"]);
    assert_eq!(store.find_canary(&CANARIES), None);
}

#[test]
fn purge_expired_deletes_content_beyond_retention() {
    let store = TempStore::new();
    let long_ago = SystemClock.now() - replyhook::clock::SignedDuration::from_hours(31 * 24);
    store.app(
        |app| app.clock(ManualClock::new(long_ago)),
        async |app| app.send(canary(1, TEXT)).await,
    );
    // Before a server starts, which deletes it too.
    let done = store.run_ok(&["purge", "--expired"]);
    assert!(
        done.starts_with("deleted: content from before 20"),
        "{done}"
    );
    assert!(
        done.contains(": the texts of 1 message, and 0 messages of the outbox"),
        "{done}"
    );
    let server = store.server();
    server.send(&Webhook::message(2, "hi")).twiml();
    let again = store.run_ok(&["purge", "--expired"]);
    assert!(again.contains(": the texts of 0 messages,"), "{again}");
    let lines = store.run_json(&["messages", "list", "--json", "--content"]);
    let known: Vec<_> = lines
        .iter()
        .map(|line| (&line["message_sid"], line["body"].as_str()))
        .collect();
    assert_eq!(
        known,
        [(&sid(2).into(), Some("hi")), (&sid(1).into(), None)]
    );
}

#[test]
fn reconcile_restored_requires_stopped_server() {
    let store = TempStore::new();
    let server = store.server();
    let (code, _, err) = store.run_for_account(&["reconcile", "--restored"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("a running server owns sqlite:"), "{err}");
    drop(server);
    // Without a server the command calls Twilio, which is not reachable here.
    let (code, _, err) = store.run_for_account(&["reconcile", "--restored"]);
    assert_eq!(code, 1, "{err}");
}

#[test]
fn database_after_graceful_shutdown_is_one_copyable_file() {
    let store = TempStore::new();
    let server = store.server();
    assert_eq!(server.send(&canary(1, "hi")).twiml(), twiml_message("hi"));
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(store.path(), &copy).unwrap();
    let copy = rusqlite::Connection::open(copy).unwrap();
    let count: i64 = copy
        .query_row("SELECT count(*) FROM inbound", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
}

// A sender of one channel cannot reach a user of another.
#[test]
fn consent_for_mismatched_sender_and_user_is_rejected() {
    let store = TempStore::new();
    let _server = store.server();
    let phone = USER.trim_start_matches("whatsapp:");
    for what in ["opt-out", "opt-in", "show"] {
        for (user, sender) in [(phone, BOT), (USER, "+15550002222"), (USER, "Shop")] {
            let (code, out, err) = store.run(&["consent", what, user, "--sender", sender]);
            assert_eq!((code, out.as_str()), (2, ""), "{what} {user} {sender}");
            assert!(err.contains("as Twilio does"), "{err}");
        }
    }
    assert!(store.run_json(&["consent", "export", "--json"]).is_empty());
}

// After both, one of them counts, and the line says which.
#[test]
fn consent_show_names_the_state_that_counts() {
    let store = TempStore::new();
    let _server = store.server();
    let change = |what| store.run_ok(&["consent", what, USER, "--sender", BOT, "--note", "x"]);
    assert!(change("opt-in").ends_with("; the opt-in counts\n"));
    let out = change("opt-out");
    assert!(
        out.ends_with("; the opt-out counts: nothing is sent\n"),
        "{out}"
    );
    let show = ["consent", "show", USER];
    assert_eq!(store.run_ok(&show), out);
    let service = "MG0123456789abcdef0123456789abcdef";
    store.run_ok(&[
        "consent",
        "opt-in",
        USER,
        "--service",
        service,
        "--note",
        "x",
    ]);
    let shown = store.run_ok(&show);
    assert!(shown.contains("; the opt-in counts\n"), "{shown}");
    let last = shown.lines().last().unwrap();
    assert!(last.contains("its Messaging Service counts"), "{shown}");
}

#[test]
fn consent_commands_show_change_and_export_with_evidence() {
    let store = TempStore::new();
    let server = store.server();
    let show = ["consent", "show", USER, "--sender", BOT];
    assert_eq!(
        store.run_ok(&show),
        format!("{USER} for {BOT}: not opted out, no opt-in recorded\n")
    );
    let note = "by \"phone\", twice";
    let evidence = sid(7);
    let out = store.run_ok(&[
        "consent",
        "opt-out",
        USER,
        "--sender",
        BOT,
        "--note",
        note,
        "--evidence",
        &evidence,
    ]);
    assert!(out.contains(": opted out since 20"), "{out}");
    // The opt-out takes effect immediately.
    assert_eq!(server.send(&canary(1, "hi")).twiml(), EMPTY);
    let out = store.run_ok(&["consent", "opt-in", USER, "--sender", BOT]);
    assert!(out.contains(": not opted out, opted in since 20"), "{out}");
    assert_eq!(server.send(&canary(2, "hi")).twiml(), twiml_message("hi"));
    let service = "MG00000000000000000000000000000001";
    store.run_ok(&["consent", "opt-out", USER, "--service", service]);
    assert!(store.run_ok(&show).contains(": not opted out"));

    let ledger = store.run_json(&["consent", "export", "--json"]);
    assert_eq!(ledger.len(), 3);
    let first = &ledger[0];
    for (name, value) in [
        ("user", USER),
        ("scope", BOT),
        ("action", "opt_out"),
        ("source", "operator"),
        ("evidence", &evidence),
        ("note", note),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    assert!(first["at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    assert_eq!(ledger[1]["action"], "opt_in");
    assert_eq!(ledger[2]["scope"], service);
    let csv = store.run_ok(&["consent", "export", "--csv"]);
    let mut lines = csv.split("\r\n");
    assert_eq!(
        lines.next(),
        Some("id,user,scope,action,source,evidence,note,at")
    );
    let row =
        format!(r#"1,"{USER}","{BOT}","opt_out","operator","{evidence}","by ""phone"", twice",20"#);
    assert!(lines.next().unwrap().starts_with(&row), "{csv}");
    let plain = store.run_ok(&["consent", "export"]);
    assert_eq!(plain.lines().count(), 3);
    assert!(plain.contains(&format!("{USER} {BOT} opt_out operator {evidence} {note}")));
}

// One user may have two addresses: a phone number and an ExternalUserId.
#[test]
fn opt_in_ends_opt_out_under_other_address_of_the_conversation() {
    let store = TempStore::new();
    let server = store.server();
    let id = "whatsapp:US.13491208655302741918";
    let stop = canary(1, "STOP").with("ExternalUserId", id);
    server.send(&stop).twiml();
    store.run_ok(&["consent", "opt-in", USER, "--sender", BOT]);
    assert_eq!(server.send(&canary(2, "hi")).twiml(), twiml_message("hi"));
    let by_id = canary(3, "hi").with("From", id);
    assert_eq!(server.send(&by_id).twiml(), twiml_message("hi"));
}

#[tokio::test]
async fn consent_is_recorded_and_read_via_app_store() {
    let app = App::builder().sources(sources(&[])).build().unwrap();
    let store = app.store();
    let scope = ConsentScope::Sender(BOT.into());
    let at = SystemClock.now();
    let record = ConsentRecord {
        scope: scope.clone(),
        user: USER.into(),
        action: ConsentAction::OptIn,
        source: ConsentSource::Api,
        evidence: None,
        note: None,
        at,
    };
    assert!(store.record_consent(record.clone()).await.is_err());
    let (_webhooks, mut worker) = app.into_parts();
    worker.open().await.unwrap();
    store.record_consent(record).await.unwrap();
    let state = store.consent(vec![scope], &USER.into()).await.unwrap();
    let at = Timestamp::from_microsecond(at.as_microsecond()).unwrap();
    let expected = ConsentState {
        opted_out: None,
        opted_in: Some(at),
    };
    assert_eq!(state, expected);
    assert!(store.open(Access::Operator).await.is_err());
}
