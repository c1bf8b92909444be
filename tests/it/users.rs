//! Users with several addresses: what reaches which phone, and what an operator sees.
//!
//! Twilio's Python library signs the webhooks, where it is installed. The fake Twilio's record of accepted messages judges
//! what was sent.

use replyhook::{Context, HandlerError, InboundMessage, Reply};

use crate::support::{
    ACCOUNT, EMPTY, FakeTwilio, Fault, HttpResponse, Server, TOKEN, TempStore, Webhook,
};

const BOT: &str = "whatsapp:+15550002222";
const ANA: &str = "whatsapp:+15550001111";
const ANA_ID: &str = "whatsapp:US.13491208655302741918";
const OTHER_ID: &str = "whatsapp:US.99999999999999999999";
const SERVICE: &str = "MG00000000000000000000000000000001";
const TEMPLATE: &str = "HX00000000000000000000000000000001";
/// Signs a webhook with Twilio's Python library, or if that is missing as the test support does.
fn signed(webhook: Webhook) -> Webhook {
    webhook.clone().signed_by_library().unwrap_or(webhook)
}

/// A bot with its store, and the fake Twilio.
struct Bot {
    store: TempStore,
    server: Server,
    twilio: FakeTwilio,
    number: std::cell::Cell<u64>,
}

impl Bot {
    fn start() -> Self {
        let twilio = FakeTwilio::start();
        let store = TempStore::with(&twilio);
        let server = store.server();
        Self {
            store,
            server,
            twilio,
            number: std::cell::Cell::new(0),
        }
    }

    fn receive(&self, from: &str, body: &str, more: &[(&str, &str)]) -> HttpResponse {
        self.number.set(self.number.get() + 1);
        let mut webhook = Webhook::message(self.number.get(), body).with("From", from);
        for (name, value) in more {
            webhook = webhook.with(name, value);
        }
        self.server.send(&signed(webhook))
    }

    /// Sends a message to the bot, which must reply to it.
    fn is_answered(&self, from: &str, more: &[(&str, &str)]) {
        let response = self.receive(from, "hi", more);
        let reply = response.twiml();
        assert!(reply.contains("<Message>hi"), "{from}: {reply}");
    }

    fn is_silent(&self, from: &str, more: &[(&str, &str)]) {
        assert_eq!(self.receive(from, "hi", more).twiml(), EMPTY, "{from}");
    }

    /// Sends an outbound message with the command, and returns its exit code and output.
    fn send(&self, args: &[&str]) -> (i32, String) {
        let env = [
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("REPLYHOOK__TWILIO__CONTENT_URL", "http://127.0.0.1:9"),
            ("REPLYHOOK__CONSENT__REQUIRED", "false"),
        ];
        let (code, out, err) = self.store.run_with(&[&["send"], args].concat(), &env);
        (code, out + &err)
    }

    fn show(&self, user: &str) -> String {
        let (_, out, _) = self.store.run(&["user", "show", user]);
        out
    }
}

#[test]
fn threat_77_stop_under_one_spelling_holds_for_the_other() {
    let bot = Bot::start();
    for (stopped, other) in [
        ("whatsapp:+5215512345678", "whatsapp:+525512345678"),
        ("whatsapp:+556199887766", "whatsapp:+5561999887766"),
        ("whatsapp:+5491123456789", "whatsapp:+541123456789"),
    ] {
        bot.is_answered(stopped, &[]);
        bot.receive(stopped, "STOP", &[]);
        bot.is_silent(other, &[]);
        let (code, out) = bot.send(&["--to", other, "--from", BOT, "--template", TEMPLATE]);
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("opted out"), "{out}");
        assert!(
            bot.show(other)
                .starts_with("gets no replies: opted out of whatsapp:+15550002222 on ")
        );
    }
    assert!(bot.twilio.posts().is_empty());
}

#[test]
fn window_is_shared_by_spellings_and_address_stays_as_given() {
    let bot = Bot::start();
    bot.is_answered("whatsapp:+5215512345678", &[]);
    let (code, out) = bot.send(&[
        "--to",
        "whatsapp:+525512345678",
        "--from",
        BOT,
        "--body",
        "ready",
    ]);
    assert_eq!(code, 0, "{out}");
    // Sent to the address of `--to`, not to the spelling that wrote.
    let phone = bot.twilio.wait_for_phone("whatsapp:+525512345678", 1);
    assert_eq!(phone[0].body, "ready");
    // In Argentina the window is not shared.
    bot.is_answered("whatsapp:+5491123456789", &[]);
    let (code, out) = bot.send(&[
        "--to",
        "whatsapp:+541123456789",
        "--from",
        BOT,
        "--body",
        "ready",
    ]);
    assert_eq!(code, 1, "{out}");
}

#[test]
fn start_by_rcs_ends_stop_by_sms() {
    let bot = Bot::start();
    let sms = [("To", "+15550002222"), ("MessagingServiceSid", SERVICE)];
    let rcs = [("To", "rcs:brand_agent"), ("MessagingServiceSid", SERVICE)];
    bot.is_answered("+15550001111", &sms);
    bot.receive("+15550001111", "STOP", &sms);
    bot.is_silent("rcs:+15550001111", &rcs);
    let to = [
        "--to",
        "+15550001111",
        "--service",
        SERVICE,
        "--body",
        "news",
    ];
    assert_eq!(bot.send(&to).0, 1);
    bot.receive("rcs:+15550001111", "START", &rcs);
    bot.is_answered("+15550001111", &sms);
    assert_eq!(bot.send(&to).0, 0);
    assert_eq!(bot.twilio.wait_for_phone("+15550001111", 1)[0].body, "news");
}

#[test]
fn status_callback_with_id_ties_it_to_the_number() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[]);
    let callback = Webhook::form(
        "/webhook/status",
        &[
            ("MessageSid", "MM00000000000000000000000000000015"),
            ("AccountSid", ACCOUNT),
            ("MessageStatus", "delivered"),
            ("From", BOT),
            ("To", ANA),
            ("ExternalUserId", ANA_ID),
        ],
    );
    // A callback with an invalid signature creates no link.
    let forged = callback
        .clone()
        .with("ExternalUserId", OTHER_ID)
        .token("00000000000000000000000000000000");
    bot.server.send(&forged).assert_rejected(403);
    bot.server.send(&signed(callback)).twiml();
    bot.receive(ANA_ID, "STOP", &[]);
    bot.is_silent(ANA, &[]);
    bot.is_answered(OTHER_ID, &[]);
    let shown = bot.show(ANA);
    assert!(
        shown.contains(
            "by status callback to whatsapp:+15550002222 (MM00000000000000000000000000000015)"
        ),
        "{shown}"
    );
}

#[test]
fn only_a_business_scoped_id_ties_addresses_together() {
    let bot = Bot::start();
    for (number, id) in [
        "whatsapp:",
        "",
        "whatsapp:+15550009999",
        "whatsapp:ACME",
        "junk",
    ]
    .into_iter()
    .enumerate()
    {
        for name in ["ExternalUserId", "ParentExternalUserId"] {
            let [one, other] = ["3", "4"].map(|last| format!("whatsapp:+1555000{number}00{last}"));
            bot.is_answered(&one, &[(name, id)]);
            bot.is_answered(&other, &[(name, id)]);
            let shown = bot.show(&one);
            assert_eq!(
                shown.matches("\naddress ").count(),
                1,
                "{name}={id}: {shown}"
            );
        }
        let stopped = format!("whatsapp:+1555000{number}005");
        let other = format!("whatsapp:+1555000{number}006");
        bot.receive(&stopped, "STOP", &[("ExternalUserId", id)]);
        bot.is_silent(&stopped, &[]);
        bot.is_answered(&other, &[("ExternalUserId", id)]);
    }
    // Messages with an empty `From` are not of one user.
    bot.receive("whatsapp:", "hi", &[("ExternalUserId", ANA_ID)]);
    bot.is_answered(ANA, &[("ExternalUserId", ANA_ID)]);
    assert_eq!(bot.show(ANA).matches("\naddress ").count(), 2);
}

#[test]
fn threat_78_new_owner_of_a_number_inherits_nothing() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[("ExternalUserId", ANA_ID)]);
    bot.store
        .run_ok(&["consent", "opt-in", ANA, "--sender", BOT]);
    bot.is_answered(ANA, &[("ExternalUserId", OTHER_ID)]);
    let shown = bot.show(ANA);
    assert!(shown.starts_with("gets replies\n"), "{shown}");
    assert!(!shown.contains(ANA_ID), "{shown}");
    assert!(
        shown.contains("no opt-in recorded") && shown.contains("new owner"),
        "{shown}"
    );
    let ledger = bot.store.run_ok(&["consent", "export"]);
    assert!(
        ledger.contains(&format!("{ANA} {ACCOUNT} split webhook")),
        "{ledger}"
    );
    // A STOP of the number holds for the next owner too.
    bot.receive(ANA, "STOP", &[("ExternalUserId", OTHER_ID)]);
    bot.is_silent(
        ANA,
        &[("ExternalUserId", "whatsapp:US.33333333333333333333")],
    );
    bot.is_silent(OTHER_ID, &[]);
    bot.is_answered(ANA_ID, &[]);
}

#[test]
fn operator_merges_and_splits_with_a_reason() {
    let bot = Bot::start();
    let new_number = "whatsapp:+15550009999";
    bot.receive(ANA, "STOP", &[]);
    bot.is_answered(new_number, &[]);
    let merge = ["user", "merge", new_number, ANA, "--reason"];
    let (code, _, err) = bot.store.run(&[&merge[..], &[" "]].concat());
    assert_eq!(code, 2);
    assert!(err.contains("--reason is empty"), "{err}");
    let merged = bot
        .store
        .run_ok(&[&merge[..], &["says her letter"]].concat());
    assert!(merged.contains("are one user"), "{merged}");
    let (code, out, _) = bot.store.run(&[&merge[..], &["again"]].concat());
    assert_eq!((code, out.contains("one user already")), (1, true), "{out}");
    bot.is_silent(new_number, &[]);
    let shown = bot.show(new_number);
    let first = shown.lines().next().unwrap();
    assert!(
        first.starts_with("gets no replies: opted out of whatsapp:+15550002222 on "),
        "{shown}"
    );
    assert!(
        first.ends_with("by STOP (SM00000000000000000000000000000001), as whatsapp:+15550001111"),
        "{shown}"
    );
    assert!(shown.contains("says her letter"), "{shown}");
    let split = ["user", "split", new_number, "--reason", "a mistake"];
    bot.store.run_ok(&split);
    let (code, out, _) = bot.store.run(&split);
    assert_eq!(
        (code, out.contains("tied to no other address")),
        (1, true),
        "{out}"
    );
    bot.is_answered(new_number, &[]);
    bot.is_silent(ANA, &[]);
    let ledger = bot.store.run_json(&["consent", "export", "--json"]);
    let notes: Vec<&str> = ledger
        .iter()
        .filter_map(|entry| entry["note"].as_str())
        .collect();
    assert!(
        notes.iter().any(|note| note.contains("says her letter")),
        "{notes:?}"
    );
    assert!(
        notes.iter().any(|note| note.contains("a mistake")),
        "{notes:?}"
    );
}

// A consent or a link of a mistyped address would have no effect.
#[test]
fn commands_reject_addresses_that_no_user_has() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[]);
    for wrong in [
        "whatsapp:15550001",
        "whatsapp:12345",
        "whatsapp:ACME",
        "whatsapp:",
        "rcs:15550001111",
        "rcs:brand_agent",
        "15550001111",
        "ACME Shop",
    ] {
        for args in [
            &["user", "show", wrong][..],
            &["user", "merge", ANA, wrong, "--reason", "a letter"],
            &["user", "split", wrong, "--reason", "a letter"],
            &["consent", "opt-out", wrong, "--service", SERVICE],
            &["consent", "show", wrong],
        ] {
            let (code, _, err) = bot.store.run(args);
            assert!(
                code == 2 && err.contains("not an address"),
                "{args:?}: {err}"
            );
        }
    }
    let (code, _, err) =
        bot.store
            .run(&["consent", "opt-out", ANA, "--sender", "whatsapp:15550002"]);
    assert!(code == 2 && err.contains("not an address"), "{err}");
    assert_eq!(bot.store.run_ok(&["consent", "export"]), "");
}

#[test]
fn user_show_hides_texts_and_prints_json() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[("ExternalUserId", ANA_ID)]);
    bot.receive(ANA, "a secret", &[]);
    let shown = bot.show(ANA_ID);
    assert!(shown.starts_with("gets replies\n"), "{shown}");
    assert!(
        shown.contains("by same form to whatsapp:+15550002222 (SM"),
        "{shown}"
    );
    assert!(shown.contains("window open until"), "{shown}");
    assert!(!shown.contains("a secret"), "{shown}");
    let content = bot.store.run_ok(&["user", "show", ANA, "--content"]);
    assert!(content.contains("a secret"), "{content}");
    let user = &bot.store.run_json(&["user", "show", ANA, "--json"])[0];
    assert_eq!(user["verdict"], "gets replies");
    assert_eq!(user["addresses"], serde_json::json!([ANA, ANA_ID]));
    assert_eq!(user["conversations"][0]["window"]["open"], true);
    assert_eq!(user["messages"].as_array().unwrap().len(), 2);
    let (code, out, _) = bot.store.run(&["user", "show", "whatsapp:+15550007777"]);
    assert_eq!(
        (code, out.starts_with("nothing is stored")),
        (1, true),
        "{out}"
    );
}

#[test]
fn purge_deletes_the_same_number_on_other_channels() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[("ExternalUserId", ANA_ID)]);
    bot.is_answered("+15550001111", &[("To", "+15550002222")]);
    let purged = bot.store.run_ok(&["purge", "--user", ANA_ID, "--yes"]);
    assert!(purged.contains("the content of 2 messages"), "{purged}");
    let (code, _, _) = bot.store.run(&["user", "show", "+15550001111"]);
    assert_eq!(code, 1);
}

#[test]
fn commands_show_why_the_bot_did_not_get_a_message() {
    let bot = Bot::start();
    let through = [("MessagingServiceSid", SERVICE)];
    bot.is_answered(ANA, &through);
    bot.receive(ANA, "STOP", &through);
    bot.is_silent(ANA, &through);
    bot.is_silent(ANA, &through);
    let stop = "SM00000000000000000000000000000002";
    let silent = "SM00000000000000000000000000000003";
    let listed = bot.store.run_ok(&["messages", "list"]);
    assert!(listed.contains("its user has opted out"), "{listed}");
    let shown = bot.store.run_ok(&["messages", "show", silent]);
    assert!(
        shown.contains("the bot did not get it: its user has opted out"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("opted out of {SERVICE} on ")),
        "{shown}"
    );
    assert!(shown.contains(&format!("by STOP ({stop})")), "{shown}");
    let lines = bot.store.run_json(&["messages", "list", "--json"]);
    let reasons = lines.iter().map(|line| line["reason"].as_str());
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [
            Some("the bot did not get it: its user has opted out"),
            Some("the bot did not get it: its user has opted out"),
            Some("the bot did not get it: an opt-out keyword"),
            None,
        ]
    );
    let json = &bot.store.run_json(&["messages", "show", silent, "--json"])[0];
    assert_eq!(json["opt_outs"][0]["scope"], SERVICE);
    assert_eq!(json["opt_outs"][0]["opted_out"]["evidence"], stop);
    // The opt-out from the service counts for the sender.
    let by_sender = bot.store.run_ok(&["consent", "show", ANA, "--sender", BOT]);
    assert!(by_sender.contains("opted out since"), "{by_sender}");
    assert!(
        by_sender.contains(&format!("of {SERVICE} by STOP ({stop})")),
        "{by_sender}"
    );
    let everywhere = bot.store.run_ok(&["consent", "show", ANA]);
    assert!(
        everywhere.contains(&format!("{ANA} for {SERVICE}: opted out since")),
        "{everywhere}"
    );
    // Once, and without the number.
    let line = bot
        .server
        .wait_for("a message was not given to the bot: its user has opted out");
    assert!(line.contains(SERVICE) && line.contains("keyword"), "{line}");
    let log = bot.server.log();
    assert_eq!(log.matches("its user has opted out").count(), 1, "{log}");
    assert!(!log.contains("15550001111"), "{log}");
}

#[test]
fn guard_counts_a_user_under_all_addresses_and_says_so() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server_with(&[("REPLYHOOK__GUARD__MESSAGES_PER_USER_PER_MINUTE", "2")]);
    let bot = Bot {
        store,
        server,
        twilio,
        number: std::cell::Cell::new(0),
    };
    let other_number = "whatsapp:+15550009999";
    bot.is_answered(ANA, &[("To", "whatsapp:+15550004444")]);
    bot.store.run_ok(&[
        "user",
        "merge",
        ANA,
        other_number,
        "--reason",
        "a second phone",
    ]);
    bot.is_answered(ANA, &[]);
    // The second sender is another conversation of the same user.
    bot.is_silent(other_number, &[]);
    let shown = bot
        .store
        .run_ok(&["messages", "show", "SM00000000000000000000000000000003"]);
    assert!(
        shown.contains("more than guard.messages_per_user_per_minute"),
        "{shown}"
    );
}

/// Asserts that a reply and an outbound message, which failed before the number got a new owner, stay unsent.
fn assert_nothing_reaches_the_new_owner(twilio: &FakeTwilio, store: &TempStore) {
    let failed = |times| {
        let fault = Fault::Status {
            status: 400,
            code: Some(63016),
            retry_after: None,
        };
        twilio.fault(fault, times);
    };
    let message = |number, id: &str| {
        Webhook::message(number, "hi")
            .with("From", ANA)
            .with("ExternalUserId", id)
    };
    let sid = "SM00000000000000000000000000000001";
    store.app(
        |app| {
            app.handler(async |_, _| -> Result<&str, std::io::Error> {
                Err(std::io::Error::other("no reply"))
            })
        },
        async |app| {
            assert_eq!(app.send(message(1, ANA_ID)).await.status, 500);
        },
    );
    // The reply takes the REST API, and Twilio rejects it.
    store.run_ok(&["messages", "retry", sid]);
    failed(2);
    let server = store.server();
    store.wait_for(&["messages", "list", "--state", "failed"]);
    let env = [("REPLYHOOK__TWILIO__CONTENT_URL", "http://127.0.0.1:9")];
    let send = ["send", "--to", ANA, "--from", BOT, "--body", "ready"];
    let account = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
    ];
    let (code, out, err) = store.run_with(&send, &[&account[..], &env].concat());
    assert_eq!(code, 0, "{out}{err}");
    store.wait_for(&["messages", "list", "--outbound", "--state", "failed"]);
    let reply = server.send(&message(2, OTHER_ID));
    assert!(reply.twiml().contains("<Message>hi"), "{}", reply.twiml());
    let reason = "it must not be sent: its address is of another user now";
    for args in [
        &["messages", "show", sid][..],
        &["messages", "show", "--outbound", "2"],
    ] {
        let shown = store.run_ok(args);
        assert!(
            shown.contains(&format!("reason    {reason}"))
                || shown.contains(&format!("reason: {reason}")),
            "{shown}"
        );
        assert!(
            !shown.contains("messages release SM") && !shown.contains("release --outbound"),
            "{shown}"
        );
    }
    for target in [sid, "2"] {
        let (code, out, _) = store.run(&["messages", "release", target, "--yes"]);
        assert!(code == 1 && out.contains(reason), "{out}");
    }
    // Anything that had been released would go out before this message.
    let (code, out, err) = store.run_with(&send, &[&account[..], &env].concat());
    assert_eq!(code, 0, "{out}{err}");
    let phone = twilio.wait_for_phone(ANA, 1);
    assert_eq!(phone[0].body, "ready");
    assert_eq!(twilio.posts().len(), 3);
}

#[test]
fn threat_78_failed_messages_do_not_reach_the_new_owner() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    assert_nothing_reaches_the_new_owner(&twilio, &store);
}

#[cfg(feature = "postgres")]
#[test]
fn threat_78_failed_messages_do_not_reach_the_new_owner_in_postgres() {
    use crate::support::postgres::TestDatabase;

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = runtime.block_on(TestDatabase::create()) else {
        return crate::support::report_skipped("messages to a former owner over PostgreSQL");
    };
    let twilio = FakeTwilio::start();
    let store = TempStore::in_database(database.url().expose(), &twilio);
    assert_nothing_reaches_the_new_owner(&twilio, &store);
    runtime.block_on(database.remove());
}

const OTHER_ACCOUNT: &str = "AC00000000000000000000000000000099";
const OTHER_BOT: &str = "whatsapp:+15550004444";
const OTHER_TOKEN: &str = "99999999999999999999999999999999";

#[test]
fn user_show_and_purge_take_each_account_by_itself() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let token = format!("REPLYHOOK__TWILIO__ACCOUNTS__{OTHER_ACCOUNT}__AUTH_TOKEN");
    let server = store.server_with(&[(&token, OTHER_TOKEN)]);
    let ben = "whatsapp:+15550003333";
    let own = Webhook::message(1, "hi").with("From", ANA);
    server.send(&own.with("ExternalUserId", ANA_ID)).twiml();
    let other = Webhook::message(2, "hi")
        .with("From", ben)
        .with("To", OTHER_BOT)
        .with("AccountSid", OTHER_ACCOUNT)
        .with("ExternalUserId", ANA_ID)
        .token(OTHER_TOKEN);
    server.send(&other).twiml();
    let of_one = store.run_ok(&["user", "show", ANA]);
    assert!(of_one.contains(ANA_ID) && !of_one.contains(ben), "{of_one}");
    let shown = store.run_ok(&["user", "show", ANA_ID]);
    let blocks: Vec<&str> = shown.split("\n\n").collect();
    assert_eq!(blocks.len(), 2, "{shown}");
    for (block, account, own, foreign) in [
        (blocks[0], ACCOUNT, ANA, ben),
        (blocks[1], OTHER_ACCOUNT, ben, ANA),
    ] {
        assert!(block.starts_with("gets replies\naccount       "), "{shown}");
        assert!(block.contains(account) && block.contains(own), "{shown}");
        assert!(!block.contains(foreign), "{shown}");
    }
    let in_other = store.run_ok(&["user", "show", ANA_ID, "--account", OTHER_ACCOUNT]);
    assert!(
        in_other.contains(ben) && !in_other.contains(ANA),
        "{in_other}"
    );
    let lines = store.run_json(&["user", "show", ANA_ID, "--json"]);
    assert_eq!(lines[0]["account_sid"], ACCOUNT);
    assert_eq!(lines[1]["account_sid"], OTHER_ACCOUNT);
    // An account without messages.
    let unknown = "AC00000000000000000000000000000042";
    for args in [
        &["user", "show", ANA][..],
        &["user", "merge", ANA, ben, "--reason", "a test"],
        &["user", "split", ANA, "--reason", "a test"],
        &["purge", "--user", ANA, "--yes"],
    ] {
        let (code, out, err) = store.run(&[args, &["--account", unknown]].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        let known = format!("has messages of {ACCOUNT}, {OTHER_ACCOUNT}");
        assert!(err.contains(unknown) && err.contains(&known), "{err}");
    }
    let purged = store.run_ok(&["purge", "--user", ANA, "--yes"]);
    assert!(purged.contains("the content of 1 message,"), "{purged}");
    assert!(store.run_ok(&["user", "show", ben]).contains(ANA_ID));
    server
        .send(&Webhook::message(3, "hi").with("From", ANA_ID))
        .twiml();
    let purged = store.run_ok(&["purge", "--user", ANA_ID, "--yes"]);
    for account in [ACCOUNT, OTHER_ACCOUNT] {
        let report = format!("account {account}\ndeleted: the content of 1 message,");
        assert!(purged.contains(&report), "{purged}");
    }
    assert_eq!(store.run(&["user", "show", ben]).0, 1);
}

#[test]
fn user_show_names_both_spellings_of_a_number() {
    let bot = Bot::start();
    let (stored, other) = ("whatsapp:+525512345678", "whatsapp:+5215512345678");
    bot.is_answered(stored, &[]);
    for (asked, spelling) in [(stored, other), (other, stored)] {
        let shown = bot.show(asked);
        assert!(
            shown.contains(&format!("address       {spelling}\n")),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("is {spelling} by the two spellings of one number")),
            "{shown}"
        );
        assert!(shown.contains("window open until"), "{shown}");
        let listed = bot.store.run_ok(&["messages", "list", "--user", asked]);
        assert_eq!(listed.lines().count(), 1, "{listed}");
    }
    let consent = ["consent", "opt-out", stored, "--sender", BOT];
    bot.store.run_ok(&consent);
    let shown = bot
        .store
        .run_ok(&["consent", "show", other, "--sender", BOT]);
    assert!(shown.contains("opted out since"), "{shown}");
    let purged = bot.store.run_ok(&["purge", "--user", other, "--yes"]);
    assert!(purged.contains("the content of 1 message,"), "{purged}");
}

#[test]
fn consent_of_a_sender_names_opt_out_of_its_service() {
    let bot = Bot::start();
    // The sender was last seen in a service, by another user's message.
    bot.is_answered("whatsapp:+15550005555", &[("MessagingServiceSid", SERVICE)]);
    bot.store
        .run_ok(&["consent", "opt-out", ANA, "--service", SERVICE]);
    bot.is_silent(ANA, &[]);
    let shown = bot.store.run_ok(&["consent", "show", ANA, "--sender", BOT]);
    assert!(
        shown.contains("opted out since") && shown.contains(&format!("of {SERVICE} by")),
        "{shown}"
    );
    // The message that is not given to the bot does not name the service either.
    let line = bot
        .server
        .wait_for("a message was not given to the bot: its user has opted out");
    assert!(
        line.contains(SERVICE) && line.contains("operator"),
        "{line}"
    );
}

#[test]
fn consent_names_guard_and_handoff() {
    let store = TempStore::new();
    let hand_off = async |_: Context, message: InboundMessage| match message.body.as_str() {
        "human" => Ok::<_, HandlerError>(Reply::silent_handoff()),
        _ => Ok(Reply::text("hi")),
    };
    store.app(
        |app| app.handler(hand_off),
        async |app| app.says(1, "hi").await,
    );
    let show = |scope: &[&str], env: &[(&str, &str)]| {
        let (code, out, err) = store.run_with(&[&["consent", "show", ANA], scope].concat(), env);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    };
    assert!(!show(&[], &[]).contains("gets no replies"));
    let block = [("REPLYHOOK__GUARD__BLOCK", "+1555")];
    let blocked = format!("{ANA}: gets no replies: blocked by guard.block (\"+1555\")\n");
    for scope in [&[][..], &["--sender", BOT], &["--service", SERVICE]] {
        let shown = show(scope, &block);
        assert!(shown.ends_with(&blocked), "{shown}");
        assert!(shown.contains("no opt"), "{shown}");
    }
    let allow = show(&[], &[("REPLYHOOK__GUARD__ALLOW", "DE")]);
    assert!(
        allow.ends_with("gets no replies: not in guard.allow\n"),
        "{allow}"
    );
    store.app(
        |app| app.handler(hand_off),
        async |app| app.says(2, "human").await,
    );
    let handed_off = format!("{ANA}: gets no replies: handed off until 20");
    for scope in [&[][..], &["--sender", BOT]] {
        let shown = show(scope, &[]);
        assert!(
            shown.contains(&handed_off) && shown.ends_with(&format!(" on {BOT}\n")),
            "{shown}"
        );
    }
    // Another sender of yours has no handoff of this user.
    let elsewhere = show(&["--sender", "whatsapp:+15550004444"], &[]);
    assert!(!elsewhere.contains("gets no replies"), "{elsewhere}");
    // Both, and the opt-out in its own line.
    store.run_ok(&["consent", "opt-out", ANA, "--sender", BOT]);
    let shown = show(&[], &block);
    assert!(
        shown.contains("; the opt-out counts: nothing is sent\n") && shown.ends_with(&blocked),
        "{shown}"
    );
    let (code, _, err) = store.run_with(
        &["consent", "show", ANA],
        &[("REPLYHOOK__GUARD__BLOCK", "1555 0001")],
    );
    assert!(code == 2 && err.contains("guard.block"), "{err}");
}

/// Returns the first line of `user show`, by these settings.
fn verdict(store: &TempStore, user: &str, env: &[(&str, &str)]) -> String {
    let (_, out, err) = store.run_with(&["user", "show", user], env);
    assert_eq!(err, "");
    let mut lines = out.lines();
    let first = lines.find(|line| !line.starts_with("nothing is stored"));
    first.unwrap_or_default().to_owned()
}

#[test]
fn verdict_names_the_entry_that_blocks_a_user() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[("ExternalUserId", ANA_ID)]);
    let block = |entry| [("REPLYHOOK__GUARD__BLOCK", entry)];
    let allow = |entry| [("REPLYHOOK__GUARD__ALLOW", entry)];
    let blocked = r#"gets no replies: blocked by guard.block ("+1555")"#;
    assert_eq!(verdict(&bot.store, ANA, &block("DE, +1555")), blocked);
    // The ID is in one conversation with the number.
    assert_eq!(verdict(&bot.store, ANA_ID, &block("+1555")), blocked);
    assert_eq!(
        verdict(&bot.store, ANA, &allow("DE")),
        "gets no replies: not in guard.allow"
    );
    for env in [allow("+1555"), allow("US"), block("DE"), block("+1556")] {
        assert_eq!(verdict(&bot.store, ANA, &env), "gets replies", "{env:?}");
    }
    // `guard.block` also applies to a user without a message.
    let unknown = "whatsapp:+15550007777";
    assert_eq!(verdict(&bot.store, unknown, &block("+1555")), blocked);
    // The opt-out comes first, as in the server.
    bot.receive(ANA, "STOP", &[]);
    let stopped = verdict(&bot.store, ANA, &block("+1555"));
    assert!(
        stopped.starts_with("gets no replies: opted out of whatsapp:+15550002222 on "),
        "{stopped}"
    );
    let (code, _, err) = bot
        .store
        .run_with(&["user", "show", ANA], &block("1555 0001"));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("guard.block"), "{err}");
}

#[test]
fn verdict_says_where_a_user_gets_replies() {
    let bot = Bot::start();
    let (sms, other) = ("+15550001111", "+15550002222");
    bot.is_answered(ANA, &[]);
    bot.is_answered(sms, &[("To", other)]);
    bot.receive(sms, "STOP", &[("To", other)]);
    let shown = verdict(&bot.store, sms, &[]);
    assert!(
        shown.starts_with("gets no replies: opted out of +15550002222 on ")
            && shown.ends_with(
                " by STOP (SM00000000000000000000000000000003); gets replies on whatsapp:+15550002222"
            ),
        "{shown}"
    );
    let shown = verdict(&bot.store, ANA, &[]);
    assert!(
        shown.starts_with(
            "gets replies on whatsapp:+15550002222; gets none: opted out of +15550002222 on "
        ),
        "{shown}"
    );
    let block = [("REPLYHOOK__GUARD__BLOCK", "whatsapp:")];
    let shown = verdict(&bot.store, ANA, &block);
    assert!(
        shown
            .starts_with(r#"gets no replies: blocked by guard.block ("whatsapp:"); opted out of "#),
        "{shown}"
    );
    bot.receive(sms, "START", &[("To", other)]);
    assert_eq!(
        verdict(&bot.store, ANA, &block),
        r#"gets no replies: blocked by guard.block ("whatsapp:") on whatsapp:+15550002222; gets replies on +15550002222"#
    );
    assert_eq!(verdict(&bot.store, ANA, &[]), "gets replies");
    let json = &bot.store.run_json(&["user", "show", ANA, "--json"])[0];
    assert_eq!(json["verdict"], "gets replies");
}

// The service of the sender, which the last message does not name.
#[test]
fn verdict_knows_the_service_of_a_sender() {
    let bot = Bot::start();
    bot.is_answered(ANA, &[("MessagingServiceSid", SERVICE)]);
    bot.receive(ANA, "STOP", &[("MessagingServiceSid", SERVICE)]);
    bot.is_silent(ANA, &[]);
    let shown = verdict(&bot.store, ANA, &[]);
    assert!(
        shown.starts_with(&format!("gets no replies: opted out of {SERVICE} on "))
            && !shown.contains("gets replies"),
        "{shown}"
    );
}

#[test]
fn verdict_says_that_a_conversation_is_handed_off() {
    const FLOW: &str = "https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1";
    let store = TempStore::new();
    let hand_off = async |_: Context, message: InboundMessage| match message.body.as_str() {
        "silent" => Ok(Reply::silent_handoff()),
        _ => Reply::handoff(FLOW).map_err(HandlerError::new),
    };
    store.app(
        |app| app.handler(hand_off),
        async |app| app.says(1, "human").await,
    );
    let shown = verdict(&store, ANA, &[]);
    let start = format!("gets no replies: handed off to {FLOW} until 20");
    assert!(shown.starts_with(&start), "{shown}");
    let block = [("REPLYHOOK__GUARD__BLOCK", "+1555")];
    assert!(verdict(&store, ANA, &block).contains("blocked by guard.block"));
    store.run_ok(&["handoff", "end", ANA]);
    assert_eq!(verdict(&store, ANA, &[]), "gets replies");
    store.app(
        |app| app.handler(hand_off),
        async |app| app.says(2, "silent").await,
    );
    let shown = verdict(&store, ANA, &[]);
    assert!(
        shown.starts_with("gets no replies: handed off until 20"),
        "{shown}"
    );
}

// Every cause, in the journal and in the log: once per user and hour, and without the number.
#[test]
fn every_cause_is_explained_for_the_message() {
    const FLOW: &str = "https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1";
    let rules = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[[rule]]\nwhen = {{ text = \"human\" }}\nhandoff = \"{FLOW}\"\n[otherwise]\nreply = \"ok\"\n"
    );
    std::fs::write(rules.path(), text).unwrap();
    let store = TempStore::new();
    let server = store.server_with(&[
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", rules.path().to_str().unwrap()),
        ("REPLYHOOK__GUARD__MESSAGES_PER_USER_PER_MINUTE", "20"),
        ("REPLYHOOK__GUARD__BLOCK", "+15551"),
        ("REPLYHOOK__GUARD__ALLOW", "US"),
        ("REPLYHOOK__GUARD__OWN_NUMBERS", "whatsapp:+15550009999"),
    ]);
    let mut number = 0;
    let mut send = |user: &str, bodies: &[&str]| {
        for body in bodies {
            number += 1;
            let webhook = Webhook::message(number, body).with("From", user);
            server.send(&webhook).twiml();
        }
        store.run_ok(&["messages", "show", &format!("SM{number:032x}")])
    };
    let texts: Vec<String> = (0..22).map(|number| format!("text {number}")).collect();
    let many: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (user, bodies, reason) in [
        ("whatsapp:+15550000001", &["STOP"][..], "an opt-out keyword"),
        (
            "whatsapp:+15550000001",
            &["hi", "hi"],
            "its user has opted out",
        ),
        ("whatsapp:+15550000001", &["START"], "an opt-in keyword"),
        (
            "whatsapp:+15550000002",
            &["human", "hi", "hi"],
            "the conversation is handed off",
        ),
        (
            "whatsapp:+15551000003",
            &["hi", "hi"],
            "its user is in guard.block",
        ),
        (
            "whatsapp:+4915112345678",
            &["hi", "hi"],
            "its user is not in guard.allow",
        ),
        (
            "whatsapp:+15550009999",
            &["hi", "hi"],
            "its author is one of your own senders",
        ),
        (
            "whatsapp:+15550000005",
            &many,
            "its user sent more than guard.messages_per_user_per_minute",
        ),
        (
            "whatsapp:+15550000006",
            &["loop"; 10],
            "it completed a reply loop",
        ),
        (
            "whatsapp:+15550000006",
            &["hi"],
            "the conversation was muted after a reply loop",
        ),
    ] {
        let shown = send(user, bodies);
        let line = format!("reason    the bot did not get it: {reason}\n");
        assert!(shown.contains(&line), "{reason}: {shown}");
    }
    // The message that began the handoff was given to the bot.
    let begun = store.run_ok(&["messages", "show", &format!("SM{:032x}", 5)]);
    assert!(!begun.contains("did not get it"), "{begun}");
    server.wait_for("a reply loop");
    let log = server.log();
    for reason in [
        "its user has opted out",
        "the conversation is handed off",
        "its user is in guard.block",
        "its user is not in guard.allow",
        "its author is one of your own senders",
        "its user has sent more than guard.messages_per_user_per_minute",
    ] {
        let line = format!("a message was not given to the bot: {reason}");
        assert_eq!(log.matches(&line).count(), 1, "{reason}: {log}");
    }
    assert!(!log.contains("1555") && !log.contains('…'), "{log}");
}
