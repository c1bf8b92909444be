//! Reconcile after an outage: it backfills messages that only Twilio has, and reports replies that Twilio never sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use replyhook::{Clock, Context, InboundMessage, ManualClock, Reply, SystemClock};
use rustix::process::Signal;

use crate::support::{
    ACCOUNT, Answer, By, FakeTwilio, Fault, Kept, Policy, TOKEN, Webhook, json_lines, says,
};

const USER: &str = "whatsapp:+15550001111";
const BOT: &str = "whatsapp:+15550002222";
const TEXT: &str = "canary-text-7f3a";

fn sid(number: u64) -> String {
    format!("SM{number:032x}")
}

/// Sends a message that Twilio cannot deliver, since no server is reachable.
fn lose(twilio: &FakeTwilio, webhook: &Webhook) {
    assert!(
        !twilio
            .deliver(|| None, webhook, Policy::NEITHER)
            .acknowledged()
    );
}

fn from(number: u64, user: &str, body: &str) -> Webhook {
    Webhook::message(number, body).with("From", user)
}

#[track_caller]
fn ends(run: (i32, String, String), code: i32, part: &str) -> String {
    let (found, out, err) = run;
    assert_eq!(found, code, "{out}{err}");
    assert!(out.contains(part) || err.contains(part), "{out}{err}");
    out
}

// Its reply goes via the REST API, is held after an unknown outcome, and is sent once released.
#[test]
fn reconcile_backfills_lost_message_once() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    let server = kept.server();
    let reached = twilio.deliver(
        || Some(server.public),
        &Webhook::message(1, "hi"),
        Policy::NEITHER,
    );
    assert!(reached.acknowledged());
    lose(&twilio, &Webhook::message(2, TEXT));

    let dry = kept.run_for_account(&["reconcile", "--dry-run"]);
    let dry = ends(dry, 1, "1 known, 1 missing, 0 added\n");
    assert!(
        dry.starts_with(&format!("missing {} whatsapp:…11 ", sid(2))),
        "{dry}"
    );
    assert!(!dry.contains(TEXT));
    assert_eq!(kept.lines(&["messages", "list", "--json"]).len(), 1);

    // The fake Twilio closes the connection without a response, so the outcome of the REST call is unknown.
    twilio.fault(Fault::ResetBefore, 1);
    let run = kept.run_for_account(&["reconcile", "--json"]);
    let lines = json_lines(&ends(run, 0, ""));
    assert_eq!(lines[0]["kind"], "added");
    assert_eq!(lines[0]["message_sid"], sid(2));
    assert_eq!(lines[0]["user"], "whatsapp:…11");
    let counts = serde_json::json!({"kind": "counts", "listed": 2, "known": 1, "missing": 1, "added": 1,
        "answered": 0, "closed": 0, "sent": 0, "unreadable": 0, "compared": 0, "expired": 0, "unsent": 0});
    assert_eq!(lines[1], counts);
    let again = kept.run_for_account(&["reconcile"]);
    ends(
        again,
        0,
        "2 inbound messages in Twilio's list: 2 known, 0 missing, 0 added\n",
    );

    let held = kept.wait_for(&["messages", "list", "--state", "held"]);
    assert!(held.starts_with(&sid(2)), "{held}");
    assert!(
        held.trim_end()
            .ends_with("whether it was sent is not known"),
        "{held}"
    );
    let shown = kept.prints(&["messages", "show", &sid(2)]);
    assert!(shown.contains("messages release SM"), "{shown}");
    assert_eq!(twilio.phone(USER).len(), 1);

    let released = kept.prints(&["messages", "release", "--all"]);
    assert!(released.starts_with("1 message released"), "{released}");
    let phone = twilio.wait_for_phone(USER, 2);
    assert_eq!((phone[1].by, phone[1].body.as_str()), (By::Rest, TEXT));
    kept.wait_for(&["messages", "list", "--state", "sent"]);
    assert_eq!(twilio.phone(USER).len(), 2);
    assert_eq!(kept.run(&["messages", "release", &sid(2)]).0, 1);
    // A webhook for the backfilled message counts as a redelivery.
    let late = server.send(&Webhook::message(2, TEXT));
    assert_eq!(late.twiml(), crate::support::EMPTY);
}

/// Answers the messages with an app in this process, and lets the fake Twilio execute the responses.
fn converse(kept: &Kept, twilio: &FakeTwilio, webhooks: &[Webhook]) {
    kept.app(
        |app| app,
        async |app| {
            for webhook in webhooks {
                let answer = app.send(webhook.clone()).await;
                assert!(twilio.execute(webhook, &answer));
            }
        },
    );
}

#[test]
fn reconcile_backfills_message_older_than_answered_one() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    lose(&twilio, &Webhook::message(1, "first"));
    converse(&kept, &twilio, &[Webhook::message(2, "second")]);
    let run = kept.run_for_account(&["reconcile"]);
    ends(run, 0, "1 known, 1 missing, 1 added\n");
}

// The option --include-answered backfills them, too.
#[test]
fn reconcile_skips_messages_answered_by_lost_journal() {
    let twilio = FakeTwilio::start();
    let said = [Webhook::message(1, "one"), Webhook::message(2, "two")];
    converse(&Kept::with(&twilio), &twilio, &said);
    lose(&twilio, &Webhook::message(3, "three"));
    // A user who never got a message.
    lose(&twilio, &from(4, "whatsapp:+15550009999", "four"));

    let kept = Kept::with(&twilio);
    kept.prints(&["migrate"]);
    let again = ["reconcile", "--include-answered", "--dry-run"];
    let run = kept.run_for_account(&again);
    ends(run, 1, "0 known, 4 missing, 0 added\n");
    let run = kept.run_for_account(&["reconcile"]);
    let out = ends(run, 0, "0 known, 4 missing, 2 added, 2 answered before\n");
    assert!(out.starts_with(&format!("answered {} ", sid(1))), "{out}");
    assert!(out.contains("--restored"), "{out}");
    let first = kept.lines(&["messages", "show", &sid(1), "--json"]);
    assert_eq!(first[0]["state"], "answered");
    let reason = first[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("it was answered before"), "{reason}");
    let run = kept.run_for_account(&["reconcile"]);
    ends(run, 0, "4 known, 0 missing, 0 added\n");

    let _server = kept.server();
    twilio.wait_for_phone("whatsapp:+15550009999", 1);
    let shown = twilio.wait_for_phone(USER, 3);
    let texts: Vec<_> = shown.iter().map(|shown| shown.body.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert_eq!(twilio.posts().len(), 2);
}

// The backup was made while handlers ran. A journal that is lost has replied to the first message since.
#[test]
fn restored_open_message_answered_since_is_not_handled_again() {
    const OTHER: &str = "whatsapp:+15550009999";
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    let (answered, unanswered) = (Webhook::message(1, "one"), from(2, OTHER, "two"));
    let running = Arc::new(AtomicUsize::new(0));
    let counting = running.clone();
    let hang = move |_: Context, _: InboundMessage| {
        counting.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Reply>()
    };
    kept.app(
        |app| app.handler(hang),
        async |app| {
            // The app is dropped while both handlers run.
            tokio::select! {
                _ = app.send(answered.clone()) => panic!("the handler returned"),
                _ = app.send(unanswered.clone()) => panic!("the handler returned"),
                () = app.until(|| running.load(Ordering::Relaxed) == 2) => {}
            }
        },
    );
    converse(&Kept::with(&twilio), &twilio, &[answered]);
    lose(&twilio, &unanswered);

    let known = "2 inbound messages in Twilio's list: 2 known, 0 missing, 0 added\n";
    let again = ["reconcile", "--restored", "--include-answered", "--dry-run"];
    let out = ends(kept.run_for_account(&again), 0, known);
    assert!(out.contains("\n0 open messages that"), "{out}");
    let dry = kept.run_for_account(&["reconcile", "--restored", "--dry-run"]);
    let out = ends(dry, 1, known);
    assert!(
        out.starts_with(&format!("closed {} whatsapp:…11 ", sid(1))),
        "{out}"
    );
    assert!(
        out.contains("\n1 open message that Twilio shows as answered\n"),
        "{out}"
    );
    let run = kept.run_for_account(&["reconcile", "--restored", "--json"]);
    let lines = json_lines(&ends(run, 0, ""));
    assert_eq!(lines[0]["kind"], "closed");
    assert_eq!(lines[0]["message_sid"], sid(1));
    assert_eq!(lines[1]["closed"], 1);

    let server = kept.server();
    twilio.wait_for_phone(OTHER, 1);
    // A second reply would be sent before this one.
    let next = Webhook::message(3, "three");
    assert!(
        twilio
            .deliver(|| Some(server.public), &next, Policy::NEITHER)
            .acknowledged()
    );
    let shown = twilio.wait_for_phone(USER, 2);
    let texts: Vec<_> = shown.iter().map(|shown| shown.body.as_str()).collect();
    assert_eq!(texts, ["one", "three"]);
}

/// Returns a stopped store with a message whose reply is queued, and a backup of it.
fn queued_reply_and_backup(twilio: &FakeTwilio) -> (Kept, Kept) {
    let (kept, backup) = (Kept::with(twilio), Kept::with(twilio));
    kept.prints(&["migrate"]);
    lose(twilio, &Webhook::message(1, "one"));
    ends(kept.run_for_account(&["reconcile"]), 0, "1 added\n");
    let busy = Fault::Status {
        status: 429,
        code: Some(20429),
        retry_after: Some(3),
    };
    twilio.fault(busy, 1);
    let server = kept.server();
    twilio.wait_for_posts(1);
    // The server records the error after the fake has sent it.
    let deadline = Instant::now() + Duration::from_mins(1);
    let state = || {
        let shown = kept.lines(&["messages", "show", &sid(1), "--json"]);
        shown[0]["replies"][0]["state"].clone()
    };
    while state() != "pending" {
        assert!(Instant::now() < deadline, "the reply is not queued again");
    }
    server.signal(Signal::KILL);
    server.wait();
    rusqlite::Connection::open(kept.path())
        .unwrap()
        .execute("VACUUM INTO ?1", [backup.path().to_str()])
        .unwrap();
    (kept, backup)
}

// A dry run marks nothing, and must report the same as the run after it.
#[test]
fn restored_dry_run_recognizes_queued_reply_that_was_sent() {
    let twilio = FakeTwilio::start();
    let (kept, backup) = queued_reply_and_backup(&twilio);
    // The reply is sent after the backup. It does not prove a reply to the message that was lost before it.
    lose(&twilio, &Webhook::message(2, "two"));
    let server = kept.server();
    twilio.wait_for_phone(USER, 1);
    server.signal(Signal::TERM);
    server.wait();

    let dry = backup.run_for_account(&["reconcile", "--restored", "--dry-run"]);
    let out = ends(dry, 1, "1 known, 1 missing, 0 added\n");
    assert!(out.starts_with("sent SM"), "{out}");
    assert!(
        out.contains("\n0 open messages that") && out.contains("\n1 message of the outbox"),
        "{out}"
    );
    let run = backup.run_for_account(&["reconcile", "--restored"]);
    ends(run, 0, "1 known, 1 missing, 1 added\n");
}

// Its message is shown as deferred, like one whose handler has not replied yet.
#[test]
fn restored_queued_reply_is_not_closed_after_later_message() {
    let twilio = FakeTwilio::start();
    let (_, backup) = queued_reply_and_backup(&twilio);
    converse(&Kept::with(&twilio), &twilio, &[Webhook::message(2, "two")]);
    let run = backup.run_for_account(&["reconcile", "--restored"]);
    let out = ends(run, 0, "1 known, 1 missing, 0 added, 1 answered before\n");
    assert!(out.contains("\n0 open messages that"), "{out}");
    let shown = backup.lines(&["messages", "show", &sid(1), "--json"]);
    assert_eq!(shown[0]["replies"][0]["state"], "pending");
}

#[test]
fn reconcile_reads_all_pages_oldest_first() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    kept.prints(&["migrate"]);
    for number in 1..=401 {
        lose(&twilio, &Webhook::message(number, "hi"));
    }
    let run = kept.run_for_account(&["reconcile"]);
    let out = ends(run, 0, "0 known, 401 missing, 401 added\n");
    assert!(out.starts_with(&format!("added {} ", sid(1))));
    assert_eq!(twilio.lists().len(), 3);
    let pages: Vec<_> = twilio
        .lists()
        .iter()
        .map(|list| list.get("Page").map(str::to_owned))
        .collect();
    assert_eq!(pages, [None, Some("1".to_owned()), Some("2".to_owned())]);
    assert!(
        twilio
            .lists()
            .iter()
            .all(|list| list.get("DateSent>").is_some())
    );
    let first = kept.lines(&["messages", "show", &sid(1), "--json", "--content"]);
    assert_eq!(first[0]["state"], "deferred");
    let params = first[0]["params"].clone();
    let expected = serde_json::json!([
        ["MessageSid", sid(1)],
        ["AccountSid", ACCOUNT],
        ["From", USER],
        ["To", BOT],
        ["Body", "hi"],
        ["NumMedia", "0"]
    ]);
    assert_eq!(params, expected);
}

// A keyword in a lost message counts unless the user sent a later one.
#[test]
fn reconcile_applies_latest_consent_keyword() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    let users = [
        "whatsapp:+15550001001",
        "whatsapp:+15550001002",
        "whatsapp:+15550001003",
        "+15550001004",
        "whatsapp:+15550001005",
    ];
    let service = "MG00000000000000000000000000000001";
    // A lost STOP, and no later message.
    lose(&twilio, &from(1, users[0], "stop."));
    // A lost STOP, followed by START.
    lose(&twilio, &from(2, users[1], "STOP"));
    // A lost START, followed by STOP.
    lose(&twilio, &from(3, users[2], "START"));
    // A lost SMS to a Messaging Service, with one of Twilio's own keywords.
    let cancel = from(4, users[3], "CANCEL").with("To", "+15550002222");
    lose(&twilio, &cancel.with("MessagingServiceSid", service));
    // STOP and START, both lost.
    lose(&twilio, &from(5, users[4], "STOP"));
    lose(&twilio, &from(6, users[4], "START"));
    kept.app(
        |app| app,
        async |app| {
            for webhook in [from(7, users[1], "START"), from(8, users[2], "STOP")] {
                let answer = app.send(webhook.clone()).await;
                assert!(twilio.execute(&webhook, &answer));
            }
        },
    );
    let run = kept.run_for_account(&["reconcile"]);
    let out = ends(run, 0, "2 known, 6 missing, 6 added\n");
    let line = out.lines().next().unwrap();
    assert!(line.ends_with(" opt_out"), "{line}");
    let sms = ["--service", service];
    for (user, scope, opted_out) in [
        (users[0], &["--sender", BOT][..], true),
        (users[1], &["--sender", BOT], false),
        (users[2], &["--sender", BOT], true),
        (users[3], &sms, true),
        (users[4], &["--sender", BOT], false),
    ] {
        let state = kept.prints(&[&["consent", "show", user], scope].concat());
        assert_eq!(state.contains(": opted out since"), opted_out, "{state}");
    }
    let ledger = kept.lines(&["consent", "export", "--json"]);
    let of_second: Vec<_> = ledger
        .iter()
        .filter(|line| line["user"] == users[1])
        .map(|line| (&line["action"], &line["source"], &line["evidence"]))
        .collect();
    assert_eq!(
        of_second,
        [
            (&"opt_out".into(), &"keyword".into(), &sid(2).into()),
            (&"resume".into(), &"keyword".into(), &sid(7).into()),
        ]
    );
}

/// Answers the messages ten minutes in the past, and returns the responses.
fn answered(kept: &Kept, webhooks: &[Webhook]) -> Vec<Answer> {
    let earlier = SystemClock.now() - replyhook::clock::SignedDuration::from_mins(10);
    kept.app(
        |app| app.clock(ManualClock::new(earlier)),
        async |app| {
            let mut answers = Vec::new();
            for webhook in webhooks {
                answers.push(app.send(webhook.clone()).await);
            }
            answers
        },
    )
}

#[test]
fn reconcile_reports_unsent_reply_without_resending() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    let webhooks = [
        Webhook::message(1, TEXT),
        Webhook::message(2, &format!("{TEXT} two")),
        Webhook::message(3, "1 < 2 & \"so\"\non"),
        // Gets an empty response.
        Webhook::message(4, ""),
        // Two equal replies, of which Twilio sends one.
        Webhook::message(5, "same"),
        Webhook::message(6, "same"),
    ];
    let answers = answered(&kept, &webhooks);
    assert_eq!(answers[0].twiml(), says(TEXT));
    for number in [0, 2, 3, 5] {
        assert!(twilio.execute(&webhooks[number], &answers[number]));
    }
    let run = kept.run_for_account(&["reconcile", "--check-replies"]);
    let out = ends(
        run,
        1,
        "5 messages of TwiML replies compared: 2 not in Twilio's list, 0 not comparable",
    );
    assert!(
        out.starts_with(&format!("unsent {} whatsapp:…11 10m ", sid(2))),
        "{out}"
    );
    assert!(!out.contains(TEXT));
    let run = kept.run_for_account(&["reconcile", "--check-replies", "--json"]);
    let lines = json_lines(&ends(run, 1, ""));
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["message_sid"]),
        (&"unsent".into(), &sid(2).into())
    );
    assert_eq!(lines[1]["message_sid"], sid(5));
    assert_eq!(
        (&lines[2]["kind"], &lines[2]["unsent"]),
        (&"counts".into(), &2.into())
    );
    assert!(twilio.posts().is_empty());
    // Without --check-replies, the command ignores unsent replies.
    assert_eq!(kept.run_for_account(&["reconcile"]).0, 0);

    for number in [1, 4] {
        assert!(twilio.execute(&webhooks[number], &answers[number]));
    }
    let run = kept.run_for_account(&["reconcile", "--check-replies"]);
    ends(run, 0, ": 0 not in Twilio's list");
}

#[test]
fn reconcile_without_credentials_or_twilio_explains_failure() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    kept.prints(&["migrate"]);
    let (code, out, err) = kept.run(&["reconcile"]);
    assert_eq!((code, out.as_str()), (2, ""));
    for part in ["2 problems", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"] {
        assert!(err.contains(part), "{part} is not in {err}");
    }
    let key = "SK00000000000000000000000000000001";
    let by_key = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__TWILIO__API_KEY_SID", key),
        ("REPLYHOOK__TWILIO__API_KEY_SECRET", "s3cret"),
    ];
    ends(
        kept.run_with(&["reconcile"], &by_key),
        1,
        "the credentials are wrong (20003",
    );
    twilio.logins(&[(key, "s3cret")]);
    ends(
        kept.run_with(&["reconcile"], &by_key),
        0,
        "0 inbound messages",
    );
    // A second account has its own auth token.
    let other = "AC00000000000000000000000000000002";
    let key_of_other = format!("REPLYHOOK__TWILIO__ACCOUNTS__{other}__AUTH_TOKEN");
    let both = [&by_key[..], &[(key_of_other.as_str(), TOKEN)]].concat();
    twilio.logins(&[(key, "s3cret"), (other, TOKEN)]);
    lose(
        &twilio,
        &Webhook::message(1, "hi").with("AccountSid", other),
    );
    ends(kept.run_with(&["reconcile"], &both), 0, "1 added\n");
    twilio.down();
    ends(
        kept.run_with(&["reconcile"], &by_key),
        1,
        "Twilio could not be reached",
    );
}
