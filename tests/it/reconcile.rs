//! Reconcile after an outage: it backfills messages that only Twilio has, and reports replies that Twilio never sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use replyhook::clock::SignedDuration;
use replyhook::internals::{AcceptOutcome, Completion, NewInbound, NewOutbound, Store};
use replyhook::signature::AuthTokenKind;
use replyhook::store::Access;
use replyhook::store::sqlite::SqliteStore;
use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage};
use replyhook::{
    AccountSid, Clock, Context, InboundMessage, ManualClock, Reply, Secret, SystemClock,
};
use rustix::process::Signal;

use crate::support::{
    ACCOUNT, FakeTwilio, Fault, HttpResponse, Policy, SentVia, TOKEN, TempStore, Webhook,
    json_lines, open_window, twiml_message,
};

const USER: &str = "whatsapp:+15550001111";
const BOT: &str = "whatsapp:+15550002222";
const TEXT: &str = "canary-text-7f3a";

fn sid(number: u64) -> String {
    format!("SM{number:032x}")
}

/// Sends a message that Twilio cannot deliver, since no server is reachable.
fn lose_message(twilio: &FakeTwilio, webhook: &Webhook) {
    assert!(
        !twilio
            .deliver(|| None, webhook, Policy::NEITHER)
            .acknowledged()
    );
}

fn message_from(number: u64, user: &str, body: &str) -> Webhook {
    Webhook::message(number, body).with("From", user)
}

#[track_caller]
fn assert_run(run: (i32, String, String), code: i32, part: &str) -> String {
    let (found, out, err) = run;
    assert_eq!(found, code, "{out}{err}");
    assert!(out.contains(part) || err.contains(part), "{out}{err}");
    out
}

// Its reply goes via the REST API, is held after an unknown outcome, and is sent once released.
#[test]
fn reconcile_backfills_lost_message_once() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server();
    let delivery = twilio.deliver(
        || Some(server.public),
        &Webhook::message(1, "hi"),
        Policy::NEITHER,
    );
    assert!(delivery.acknowledged());
    lose_message(&twilio, &Webhook::message(2, TEXT));

    let dry = store.run_for_account(&["reconcile", "--dry-run"]);
    let dry = assert_run(dry, 1, "1 known, 1 missing, 0 added\n");
    assert!(
        dry.starts_with(&format!("missing {} whatsapp:…11 ", sid(2))),
        "{dry}"
    );
    assert!(!dry.contains(TEXT));
    assert_eq!(store.run_json(&["messages", "list", "--json"]).len(), 1);

    // The fake Twilio closes the connection without a response, so the outcome of the REST call is unknown.
    twilio.fault(Fault::ResetBefore, 1);
    let run = store.run_for_account(&["reconcile", "--json"]);
    let lines = json_lines(&assert_run(run, 0, ""));
    assert_eq!(lines[0]["kind"], "added");
    assert_eq!(lines[0]["message_sid"], sid(2));
    assert_eq!(lines[0]["user"], "whatsapp:…11");
    let counts = serde_json::json!({"kind": "counts", "listed": 2, "known": 1, "missing": 1, "added": 1,
        "answered": 0, "closed": 0, "sent": 0, "unreadable": 0, "compared": 0, "expired": 0, "unsent": 0});
    assert_eq!(lines[1], counts);
    let again = store.run_for_account(&["reconcile"]);
    assert_run(
        again,
        0,
        "2 inbound messages in Twilio's list: 2 known, 0 missing, 0 added\n",
    );

    let held = store.wait_for(&["messages", "list", "--state", "held"]);
    assert!(held.starts_with(&sid(2)), "{held}");
    assert!(
        held.trim_end()
            .ends_with("whether it was sent is not known"),
        "{held}"
    );
    let text = store.run_ok(&["messages", "show", &sid(2)]);
    assert!(text.contains("messages release SM"), "{text}");
    assert_eq!(twilio.phone(USER).len(), 1);

    let released = store.run_ok(&["messages", "release", "--all"]);
    assert!(released.starts_with("1 message released"), "{released}");
    let phone = twilio.wait_for_phone(USER, 2);
    assert_eq!(
        (phone[1].via, phone[1].body.as_str()),
        (SentVia::Rest, TEXT)
    );
    store.wait_for(&["messages", "list", "--state", "sent"]);
    assert_eq!(twilio.phone(USER).len(), 2);
    assert_eq!(store.run(&["messages", "release", &sid(2)]).0, 1);
    // A webhook for the backfilled message counts as a redelivery.
    let late = server.send(&Webhook::message(2, TEXT));
    assert_eq!(late.twiml(), crate::support::EMPTY);
}

/// Answers the messages with an app in this process, and lets the fake Twilio execute the responses.
fn converse(store: &TempStore, twilio: &FakeTwilio, webhooks: &[Webhook]) {
    store.app(
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
    let store = TempStore::with(&twilio);
    lose_message(&twilio, &Webhook::message(1, "first"));
    converse(&store, &twilio, &[Webhook::message(2, "second")]);
    let run = store.run_for_account(&["reconcile"]);
    assert_run(run, 0, "1 known, 1 missing, 1 added\n");
}

// The option --include-answered backfills them, too.
#[test]
fn reconcile_skips_messages_answered_by_lost_journal() {
    let twilio = FakeTwilio::start();
    let webhooks = [Webhook::message(1, "one"), Webhook::message(2, "two")];
    converse(&TempStore::with(&twilio), &twilio, &webhooks);
    lose_message(&twilio, &Webhook::message(3, "three"));
    // A user who never got a message.
    lose_message(&twilio, &message_from(4, "whatsapp:+15550009999", "four"));

    let store = TempStore::with(&twilio);
    store.run_ok(&["migrate"]);
    let again = ["reconcile", "--include-answered", "--dry-run"];
    let run = store.run_for_account(&again);
    assert_run(run, 1, "0 known, 4 missing, 0 added\n");
    let run = store.run_for_account(&["reconcile"]);
    let out = assert_run(run, 0, "0 known, 4 missing, 2 added, 2 answered before\n");
    assert!(out.starts_with(&format!("answered {} ", sid(1))), "{out}");
    assert!(out.contains("--restored"), "{out}");
    let first = store.run_json(&["messages", "show", &sid(1), "--json"]);
    assert_eq!(first[0]["state"], "answered");
    let reason = first[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("it was answered before"), "{reason}");
    let run = store.run_for_account(&["reconcile"]);
    assert_run(run, 0, "4 known, 0 missing, 0 added\n");

    let _server = store.server();
    twilio.wait_for_phone("whatsapp:+15550009999", 1);
    let phone = twilio.wait_for_phone(USER, 3);
    let texts: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert_eq!(twilio.posts().len(), 2);
}

// The backup was made while handlers ran. A journal that is lost has replied to the first message since.
#[test]
fn restored_open_message_answered_since_is_not_handled_again() {
    const OTHER: &str = "whatsapp:+15550009999";
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let (answered, unanswered) = (Webhook::message(1, "one"), message_from(2, OTHER, "two"));
    let running = Arc::new(AtomicUsize::new(0));
    let counting = running.clone();
    let hang = move |_: Context, _: InboundMessage| {
        counting.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Reply>()
    };
    store.app(
        |app| app.handler(hang),
        async |app| {
            // The app is dropped while both handlers run.
            tokio::select! {
                _ = app.send(answered.clone()) => panic!("the handler returned"),
                _ = app.send(unanswered.clone()) => panic!("the handler returned"),
                () = app.wait_until(|| running.load(Ordering::Relaxed) == 2) => {}
            }
        },
    );
    converse(&TempStore::with(&twilio), &twilio, &[answered]);
    lose_message(&twilio, &unanswered);

    let known = "2 inbound messages in Twilio's list: 2 known, 0 missing, 0 added\n";
    let again = ["reconcile", "--restored", "--include-answered", "--dry-run"];
    let out = assert_run(store.run_for_account(&again), 0, known);
    assert!(out.contains("\n0 open messages that"), "{out}");
    let dry = store.run_for_account(&["reconcile", "--restored", "--dry-run"]);
    let out = assert_run(dry, 1, known);
    assert!(
        out.starts_with(&format!("closed {} whatsapp:…11 ", sid(1))),
        "{out}"
    );
    assert!(
        out.contains("\n1 open message that Twilio shows as answered\n"),
        "{out}"
    );
    let run = store.run_for_account(&["reconcile", "--restored", "--json"]);
    let lines = json_lines(&assert_run(run, 0, ""));
    assert_eq!(lines[0]["kind"], "closed");
    assert_eq!(lines[0]["message_sid"], sid(1));
    assert_eq!(lines[1]["closed"], 1);

    let server = store.server();
    twilio.wait_for_phone(OTHER, 1);
    // A second reply would be sent before this one.
    let next = Webhook::message(3, "three");
    assert!(
        twilio
            .deliver(|| Some(server.public), &next, Policy::NEITHER)
            .acknowledged()
    );
    let phone = twilio.wait_for_phone(USER, 2);
    let texts: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(texts, ["one", "three"]);
}

/// Returns a stopped store with a message whose reply is queued, and a backup of it.
fn queued_reply_and_backup(twilio: &FakeTwilio) -> (TempStore, TempStore) {
    let (store, backup) = (TempStore::with(twilio), TempStore::with(twilio));
    store.run_ok(&["migrate"]);
    lose_message(twilio, &Webhook::message(1, "one"));
    assert_run(store.run_for_account(&["reconcile"]), 0, "1 added\n");
    let busy = Fault::Status {
        status: 429,
        code: Some(20429),
        retry_after: Some(3),
    };
    twilio.fault(busy, 1);
    let server = store.server();
    twilio.wait_for_posts(1);
    // The server records the error after the fake has sent it.
    let deadline = Instant::now() + Duration::from_mins(1);
    let state = || {
        let shown = store.run_json(&["messages", "show", &sid(1), "--json"]);
        shown[0]["replies"][0]["state"].clone()
    };
    while state() != "pending" {
        assert!(Instant::now() < deadline, "the reply is not queued again");
    }
    server.signal(Signal::KILL);
    server.wait();
    rusqlite::Connection::open(store.path())
        .unwrap()
        .execute("VACUUM INTO ?1", [backup.path().to_str()])
        .unwrap();
    (store, backup)
}

// A dry run marks nothing, and must report the same as the run after it.
#[test]
fn restored_dry_run_recognizes_queued_reply_that_was_sent() {
    let twilio = FakeTwilio::start();
    let (store, backup) = queued_reply_and_backup(&twilio);
    // The reply is sent after the backup. It does not prove a reply to the message that was lost before it.
    lose_message(&twilio, &Webhook::message(2, "two"));
    let server = store.server();
    twilio.wait_for_phone(USER, 1);
    server.signal(Signal::TERM);
    server.wait();

    let dry = backup.run_for_account(&["reconcile", "--restored", "--dry-run"]);
    let out = assert_run(dry, 1, "1 known, 1 missing, 0 added\n");
    assert!(out.starts_with("sent SM"), "{out}");
    assert!(
        out.contains("\n0 open messages that") && out.contains("\n1 message of the outbox"),
        "{out}"
    );
    let run = backup.run_for_account(&["reconcile", "--restored"]);
    assert_run(run, 0, "1 known, 1 missing, 1 added\n");
}

// Its message is shown as deferred, like one whose handler has not replied yet.
#[test]
fn restored_queued_reply_is_not_closed_after_later_message() {
    let twilio = FakeTwilio::start();
    let (_, backup) = queued_reply_and_backup(&twilio);
    converse(
        &TempStore::with(&twilio),
        &twilio,
        &[Webhook::message(2, "two")],
    );
    let run = backup.run_for_account(&["reconcile", "--restored"]);
    let out = assert_run(run, 0, "1 known, 1 missing, 0 added, 1 answered before\n");
    assert!(out.contains("\n0 open messages that"), "{out}");
    let shown = backup.run_json(&["messages", "show", &sid(1), "--json"]);
    assert_eq!(shown[0]["replies"][0]["state"], "pending");
}

/// Stores a message of a user who wrote 30 hours ago, so that a REST call with a template is in flight for it.
async fn store_call_after_window_closed(store: &TempStore, account: AccountSid) {
    let journal: Arc<dyn Store> = Arc::new(SqliteStore::file(store.path()));
    journal.open(Access::Owner).await.unwrap();
    let now = SystemClock.now();
    let received_at = now - SignedDuration::from_hours(30);
    let inbound = NewInbound {
        account,
        sid: sid(1).parse().unwrap(),
        sender: BOT.into(),
        user: vec![USER.into()],
        service: None,
        auth_token: AuthTokenKind::Primary,
        params: Webhook::message(1, "one").form.encode(),
        consent: None,
        max_attempts: 1,
        retry_after_crash: false,
        final_response: String::new(),
        received_at,
    };
    let AcceptOutcome::Claimed(claim) = journal.accept(Arc::new(inbound)).await.unwrap() else {
        panic!("the message is not claimed");
    };
    journal
        .complete_inline(claim, None, Completion::default(), received_at)
        .await
        .unwrap();
    let news = NewOutbound {
        account,
        auth_token: AuthTokenKind::Primary,
        sender: BOT.into(),
        user: USER.into(),
        service: None,
        params: [("To", USER), ("Body", "news")].into_iter().collect(),
        template: false,
    };
    journal.enqueue(vec![news], now).await.unwrap();
    assert_eq!(journal.claim(1, now).await.unwrap().len(), 1);
    journal.close().await.unwrap();
}

// The outbox has the text that the template replaced. The template is this server's, and proves no reply to the lost
// message before it.
#[test]
fn reconcile_recognizes_template_in_flight() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let account: AccountSid = ACCOUNT.parse().unwrap();
    lose_message(&twilio, &Webhook::message(2, "two"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        store_call_after_window_closed(&store, account).await;
        let credentials = Credentials::auth_token(account, Secret::new(TOKEN));
        // With the text that Twilio renders.
        let template = NewMessage::text(USER, "We have news for you.").from(BOT);
        Client::new(ApiUrl::parse(&twilio.url()).unwrap())
            .messages(account, &credentials)
            .create(&template, &open_window())
            .await
            .unwrap();
    });
    let run = store.run_for_account(&["reconcile", "--dry-run"]);
    assert_run(run, 1, "0 known, 1 missing, 0 added\n");
}

#[test]
fn reconcile_reads_all_pages_oldest_first() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    store.run_ok(&["migrate"]);
    for number in 1..=401 {
        lose_message(&twilio, &Webhook::message(number, "hi"));
    }
    let run = store.run_for_account(&["reconcile"]);
    let out = assert_run(run, 0, "0 known, 401 missing, 401 added\n");
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
    let first = store.run_json(&["messages", "show", &sid(1), "--json", "--content"]);
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
    let store = TempStore::with(&twilio);
    let users = [
        "whatsapp:+15550001001",
        "whatsapp:+15550001002",
        "whatsapp:+15550001003",
        "+15550001004",
        "whatsapp:+15550001005",
    ];
    let service = "MG00000000000000000000000000000001";
    // A lost STOP, and no later message.
    lose_message(&twilio, &message_from(1, users[0], "stop."));
    // A lost STOP, followed by START.
    lose_message(&twilio, &message_from(2, users[1], "STOP"));
    // A lost START, followed by STOP.
    lose_message(&twilio, &message_from(3, users[2], "START"));
    // A lost SMS to a Messaging Service, with one of Twilio's own keywords.
    let cancel = message_from(4, users[3], "CANCEL").with("To", "+15550002222");
    lose_message(&twilio, &cancel.with("MessagingServiceSid", service));
    // STOP and START, both lost.
    lose_message(&twilio, &message_from(5, users[4], "STOP"));
    lose_message(&twilio, &message_from(6, users[4], "START"));
    store.app(
        |app| app,
        async |app| {
            for webhook in [
                message_from(7, users[1], "START"),
                message_from(8, users[2], "STOP"),
            ] {
                let answer = app.send(webhook.clone()).await;
                assert!(twilio.execute(&webhook, &answer));
            }
        },
    );
    let run = store.run_for_account(&["reconcile"]);
    let out = assert_run(run, 0, "2 known, 6 missing, 6 added\n");
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
        let state = store.run_ok(&[&["consent", "show", user], scope].concat());
        assert_eq!(state.contains(": opted out since"), opted_out, "{state}");
    }
    let ledger = store.run_json(&["consent", "export", "--json"]);
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
fn send_ten_minutes_ago(store: &TempStore, webhooks: &[Webhook]) -> Vec<HttpResponse> {
    let earlier = SystemClock.now() - SignedDuration::from_mins(10);
    store.app(
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
    let store = TempStore::with(&twilio);
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
    let answers = send_ten_minutes_ago(&store, &webhooks);
    assert_eq!(answers[0].twiml(), twiml_message(TEXT));
    for number in [0, 2, 3, 5] {
        assert!(twilio.execute(&webhooks[number], &answers[number]));
    }
    let run = store.run_for_account(&["reconcile", "--check-replies"]);
    let out = assert_run(
        run,
        1,
        "5 messages of TwiML replies compared: 2 not in Twilio's list, 0 not comparable",
    );
    assert!(
        out.starts_with(&format!("unsent {} whatsapp:…11 10m ", sid(2))),
        "{out}"
    );
    assert!(!out.contains(TEXT));
    let run = store.run_for_account(&["reconcile", "--check-replies", "--json"]);
    let lines = json_lines(&assert_run(run, 1, ""));
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
    assert_eq!(store.run_for_account(&["reconcile"]).0, 0);

    for number in [1, 4] {
        assert!(twilio.execute(&webhooks[number], &answers[number]));
    }
    let run = store.run_for_account(&["reconcile", "--check-replies"]);
    assert_run(run, 0, ": 0 not in Twilio's list");
}

#[test]
fn reconcile_without_credentials_or_twilio_explains_failure() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    store.run_ok(&["migrate"]);
    let (code, out, err) = store.run(&["reconcile"]);
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
    assert_run(
        store.run_with(&["reconcile"], &by_key),
        1,
        "the credentials are wrong (20003",
    );
    twilio.logins(&[(key, "s3cret")]);
    assert_run(
        store.run_with(&["reconcile"], &by_key),
        0,
        "0 inbound messages",
    );
    // A second account has its own auth token.
    let other = "AC00000000000000000000000000000002";
    let key_of_other = format!("REPLYHOOK__TWILIO__ACCOUNTS__{other}__AUTH_TOKEN");
    let both = [&by_key[..], &[(key_of_other.as_str(), TOKEN)]].concat();
    twilio.logins(&[(key, "s3cret"), (other, TOKEN)]);
    lose_message(
        &twilio,
        &Webhook::message(1, "hi").with("AccountSid", other),
    );
    assert_run(store.run_with(&["reconcile"], &both), 0, "1 added\n");
    twilio.start_outage();
    assert_run(
        store.run_with(&["reconcile"], &by_key),
        1,
        "Twilio could not be reached",
    );
}
