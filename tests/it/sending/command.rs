//! The command `send` next to a running server: one message, or one per row of a CSV file.

use std::path::{Path, PathBuf};

use super::{ANA, BEN, SENDER, SERVICE, TEMPLATE, UNREACHABLE_CONTENT_API};
use crate::support::{
    ACCOUNT, FakeTwilio, Fault, TOKEN, TempStore, Wait, Webhook, json_lines, replyhook,
};

const ENV: [(&str, &str); 3] = [
    ("TWILIO_ACCOUNT_SID", ACCOUNT),
    ("TWILIO_AUTH_TOKEN", TOKEN),
    UNREACHABLE_CONTENT_API,
];

fn send(store: &TempStore, args: &[&str]) -> (i32, String, String) {
    store.run_with(&[&["send"], args].concat(), &ENV)
}

pub(super) fn opt_in(store: &TempStore, user: &str) {
    store.run_ok(&["consent", "opt-in", user, "--sender", SENDER]);
}

/// Writes `rows.csv` next to the store.
pub(super) fn write_csv(store: &TempStore, text: &str) -> PathBuf {
    let path = store.path().with_file_name("rows.csv");
    std::fs::write(&path, text).unwrap();
    path
}

pub(super) fn send_csv(store: &TempStore, path: &Path, args: &[&str]) -> (i32, String, String) {
    let path = path.to_str().unwrap();
    send(store, &[&["--csv", path, "--from", SENDER], args].concat())
}

#[test]
fn send_command_queues_message_for_running_server() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    let args = ["--to", ANA, "--from", SENDER, "--body", "ready"];
    let (code, out, err) = send(&store, &args);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "message 1: pending\n", "")
    );
    assert_eq!(twilio.wait_for_phone(ANA, 1)[0].body, "ready");
    let dry = [&args[..], &["--idempotency-key", "k", "--dry-run"]].concat();
    let (code, out, _) = send(&store, &dry);
    assert_eq!((code, out.as_str()), (0, "would be queued\n"));
    let keyed = [&args[..], &["--idempotency-key", "k", "--wait"]].concat();
    let (code, out, err) = send(&store, &keyed);
    let sid = &twilio.phone(ANA)[1].sid;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("message 2: sent {sid} queued\n"));
    let (code, out, _) = send(&store, &keyed);
    assert_eq!(
        (code, out),
        (
            0,
            format!("already queued as message 2: sent {sid} queued\n")
        )
    );
    let blank = [&args[..], &["--idempotency-key", ""]].concat();
    assert_eq!(send(&store, &blank).0, 2);
    let another = [&keyed[..], &["--media", "https://h/a.png"]].concat();
    let (code, out, _) = send(&store, &another);
    assert_eq!(code, 1);
    assert!(
        out.starts_with("not queued, because another message has its key: message 2: sent"),
        "{out}"
    );
    let (code, out, _) = send(&store, &[&keyed[..], &["--json"]].concat());
    let row = &json_lines(&out)[0];
    assert_eq!(code, 0);
    assert_eq!(
        (&row["duplicate"], &row["message_sid"]),
        (&true.into(), &sid.as_str().into())
    );
    assert_eq!(twilio.posts().len(), 2);
    // With --wait, the command reports Twilio's rejection.
    let code = Some(21211);
    let rejected = Fault::Status {
        status: 400,
        code,
        retry_after: None,
    };
    twilio.fault(rejected, 1);
    let (code, out, _) = send(&store, &[&args[..], &["--wait"]].concat());
    assert!(
        code == 1 && out.contains("failed Twilio rejected it: "),
        "{out}"
    );
    let released = store.run_ok(&["messages", "release", "--outbound", "3"]);
    assert!(released.starts_with("1 message released"), "{released}");
    twilio.wait_for_phone(ANA, 3);
}

#[test]
fn ineligible_send_exits_with_1_and_reason() {
    let store = TempStore::new();
    let _server = store.server();
    let text = ["--to", ANA, "--from", SENDER, "--body", "hi"];
    let template = ["--to", ANA, "--from", SENDER, "--template", TEMPLATE];
    for (args, part) in [
        (&text[..], "window is closed"),
        (&template[..], "no opt-in is recorded"),
    ] {
        let (code, out, err) = send(&store, args);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(part), "{err}");
    }
    opt_in(&store, ANA);
    let (code, ..) = send(&store, &[&template[..], &["--var", "1=Ana"]].concat());
    assert_eq!(code, 0);
    store.run_ok(&["consent", "opt-out", ANA, "--sender", SENDER]);
    let (code, _, err) = send(&store, &template);
    assert!(code == 1 && err.contains("has opted out"), "{err}");
    // Twilio is unreachable, so the message stays pending.
    let sms = [
        "--to",
        "+15550001111",
        "--from",
        "+15550002222",
        "--body",
        "hi",
        "--wait=0",
    ];
    let (code, out, err) = send(&store, &sms);
    assert_eq!(code, 1);
    assert!(
        out.contains("pending") && err.contains("check that a server runs"),
        "{out}{err}"
    );
}

#[test]
fn invalid_send_usage_exits_with_2_and_hint() {
    let store = TempStore::new();
    drop(store.server());
    let to = ["--to", ANA, "--from", SENDER];
    for (args, part) in [
        (&["--body", "hi"][..], "--to"),
        (
            &["--to", "15550001111", "--body", "hi"],
            "write it as Twilio does",
        ),
        (&["--to", "ACME Shop", "--body", "hi"], "not an address"),
        (&["--to", ANA, "--body", "hi"], "missing sender"),
        (
            &["--to", ANA, "--service", SERVICE, "--body", "hi"],
            "needs its sender",
        ),
        (
            &["--to", ANA, "--from", "+15550002222", "--body", "hi"],
            "different channels",
        ),
        (&to, "nothing to send"),
        (
            &["--to", ANA, "--from", SENDER, "--template", "HX1"],
            "invalid template",
        ),
        (
            &[
                "--to",
                ANA,
                "--from",
                SENDER,
                "--template",
                TEMPLATE,
                "--body",
                "x",
            ],
            "cannot be used",
        ),
        (
            &["--to", ANA, "--from", SENDER, "--body", "x", "--var", "1=a"],
            "variables without a template",
        ),
        (
            &[
                "--to",
                ANA,
                "--from",
                SENDER,
                "--template",
                TEMPLATE,
                "--var",
                "1",
            ],
            "NAME=VALUE",
        ),
        (
            &["--to", ANA, "--from", SENDER, "--location", "here"],
            "LATITUDE,LONGITUDE",
        ),
        (
            &["--to", ANA, "--from", SENDER, "--location", "-91,0"],
            "invalid location",
        ),
        (
            &[
                "--to", ANA, "--from", SENDER, "--body", "x", "--media", "a.png",
            ],
            "invalid media URL",
        ),
        (
            &["--to", ANA, "--from", SENDER, "--body", "x", "--at", "soon"],
            "--at",
        ),
        (
            &[
                "--to",
                ANA,
                "--service",
                SERVICE,
                "--from",
                SENDER,
                "--body",
                "x",
                "--at",
                "2020-01-01T00:00:00Z",
            ],
            "5 minutes to 35 days",
        ),
        (&["--csv", "/nowhere.csv"], "could not read"),
        (&["--csv", "x", "--to", ANA], "cannot be used"),
        (
            &["--to", ANA, "--from", SENDER, "--dry-run"],
            "nothing to send",
        ),
    ] {
        let (code, out, err) = send(&store, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?} {err}");
        assert!(err.contains(part), "{args:?}: {err}");
        assert!(
            !err.contains("5550001111") || err.contains("write it as"),
            "{err}"
        );
    }
    let (code, _, err) = store.run(&["send", "--to", ANA, "--from", SENDER, "--body", "x"]);
    assert!(code == 2 && err.contains("set TWILIO_ACCOUNT_SID"), "{err}");
    let nowhere = TempStore::new();
    let (code, _, err) = send(&nowhere, &["--to", ANA, "--from", SENDER, "--body", "x"]);
    assert!(
        code == 1 && err.contains("use the server's DATABASE_URL"),
        "{err}"
    );
    assert_eq!(nowhere.files(), [] as [&str; 0]);
}

#[test]
fn csv_row_in_repeated_file_is_sent_once() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    opt_in(&store, BEN);
    let rows = format!(
        "\u{FEFF}to,body,template,1,var.code,key\r\n\
         {ANA},\"Hi, \"\"Ana\"\"\",,,,\r\n\
         {BEN},,{TEMPLATE},Ben,x7,ben-1\r\n\
         whatsapp:+15550005555,hi,,,,\r\n\
         15550006666,hi,,,,\r\n\
         {ANA},hi,,,\r\n\
         ,hi,,,,\r\n\
         {ANA},hi,{TEMPLATE},,,\r\n"
    );
    let path = write_csv(&store, &rows);
    let (code, dry, err) = send_csv(&store, &path, &["--dry-run"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let rejected = "line 4 whatsapp:…55: the customer service window is closed: the user has not written to this sender within \
        24 hours, and only a template may be sent\n\
        line 5 sms:…66: the recipient is not an address: write it as Twilio does: +15550001111, or whatsapp:+15550001111\n\
        line 6: 5 fields, but the header line has 6\n\
        line 7: the recipient is missing\n\
        line 8 whatsapp:…11: both a text and a template are given; leave one out\n";
    assert_eq!(
        dry,
        format!("{rejected}7 rows: 2 would be queued, 0 duplicates, 5 rejected\n")
    );

    let (code, out, _) = send_csv(&store, &path, &[]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        format!("{rejected}7 rows: 2 queued, 0 duplicates, 5 rejected\n")
    );
    assert_eq!(twilio.wait_for_phone(ANA, 1)[0].body, "Hi, \"Ana\"");
    let template = format!(r#"{TEMPLATE} {{"1":"Ben","code":"x7"}}"#);
    assert_eq!(twilio.wait_for_phone(BEN, 1)[0].body, template);
    // Send the file again, with one row corrected.
    let corrected = rows.replace("15550006666,hi", "whatsapp:+15550003333,hi");
    let path = write_csv(&store, &corrected);
    server
        .send(&Webhook::message(2, "hello").with("From", BEN))
        .twiml();
    let (_, out, _) = send_csv(&store, &path, &[]);
    assert!(
        out.ends_with("7 rows: 1 queued, 2 duplicates, 4 rejected\n"),
        "{out}"
    );
    assert_eq!(twilio.wait_for_phone(BEN, 2)[1].body, "hi");
    let (_, out, _) = send_csv(&store, &path, &["--dry-run", "--json"]);
    let lines = json_lines(&out);
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["to"], "whatsapp:…55");
    assert_eq!(
        (&lines[4]["duplicates"], &lines[4]["queued"]),
        (&3.into(), &0.into())
    );
    // With another --idempotency-key, the same rows count as new.
    let (_, out, _) = send_csv(&store, &path, &["--idempotency-key", "spring"]);
    assert!(out.contains("3 queued, 0 duplicates"), "{out}");
    twilio.wait_for_posts(6);
    assert!(!server.log().contains("15550001111"));
}

#[test]
fn csv_row_defaults_come_from_options() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let _server = store.server();
    opt_in(&store, ANA);
    opt_in(&store, BEN);
    let rows = format!("to,1\n{ANA},Ana\n{BEN},\n");
    let path = write_csv(&store, &rows);
    let (code, out, err) = send_csv(
        &store,
        &path,
        &["--template", TEMPLATE, "--var", "1=friend"],
    );
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for (user, name) in [(ANA, "Ana"), (BEN, "friend")] {
        let shown = &twilio.wait_for_phone(user, 1)[0].body;
        assert!(shown.ends_with(&format!(r#"{{"1":"{name}"}}"#)), "{shown}");
    }
    // A repeated row whose message failed is reported, and not sent again.
    let rejected = Fault::Status {
        status: 400,
        code: Some(63024),
        retry_after: None,
    };
    twilio.fault(rejected, 1);
    let path = write_csv(&store, &format!("to,1,key\n{ANA},Ana,again\n"));
    let (code, ..) = send_csv(&store, &path, &["--template", TEMPLATE]);
    assert_eq!(code, 0);
    twilio.wait_for_posts(3);
    let wait = Wait::until("the row is reported as failed");
    let reason = loop {
        let (code, out, _) = send_csv(&store, &path, &["--template", TEMPLATE]);
        if code == 1 {
            break out;
        }
        wait.check_found(&out);
    };
    assert!(
        reason.contains("queued before as message 3, which failed: Twilio rejected it: "),
        "{reason}"
    );
    assert_eq!(twilio.posts().len(), 3);
}

#[test]
fn invalid_csv_file_is_rejected_before_sending() {
    let store = TempStore::new();
    drop(store.server());
    for (rows, part) in [
        ("to;body\n+1;x\n", "unknown column \"to;body\""),
        ("to,boddy\n+1,x\n", "unknown column \"boddy\""),
        ("to,var.\n+1,x\n", "unknown column \"var.\""),
        ("body\nhi\n", "the column `to` is missing"),
        ("", "the column `to` is missing"),
        ("to,body,to\n", "two columns \"to\""),
        ("to,1,var.1\n", "two columns \"var.1\""),
    ] {
        let path = write_csv(&store, rows);
        let (code, out, err) = send_csv(&store, &path, &[]);
        assert_eq!((code, out.as_str()), (2, ""), "{rows:?}: {err}");
        assert!(err.contains(part), "{rows:?}: {err}");
    }
    std::fs::write(
        store.path().with_file_name("rows.csv"),
        b"to,body\n+15550001111,\xff\n",
    )
    .unwrap();
    let path = store.path().with_file_name("rows.csv");
    let (code, out, _) = send_csv(&store, &path, &[]);
    assert!(code == 1 && out.contains("line 2: not UTF-8"), "{out}");
    let url = format!("sqlite:{}", store.path().display());
    let env = [&ENV[..], &[("DATABASE_URL", url.as_str())]].concat();
    let args = ["send", "--csv", "-", "--from", "+15550002222"];
    let (code, out, _) = replyhook(&args, &env, "to,body\n+15550001111,hi\n");
    assert_eq!(
        (code, out.as_str()),
        (0, "1 row: 1 queued, 0 duplicates, 0 rejected\n")
    );
}
