//! Outbound messages in the operator commands: found by ID, and released after the cause of a failure is fixed.

use super::command::{csv, file, opts_in};
use super::{ANA, BEN, TEMPLATE, US};
use crate::support::{ACCOUNT, Dev, FakeTwilio, Fault, Kept, Webhook, json_lines, replyhook};

const OUTGOING: [&str; 3] = ["messages", "list", "--outbound"];

#[test]
fn failed_outbound_is_listed_and_released_by_cause() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    let server = kept.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    opts_in(&kept, ANA);
    opts_in(&kept, BEN);
    assert_eq!(kept.prints(&OUTGOING), "");
    let wrong_token = Fault::Status {
        status: 401,
        code: Some(20003),
        retry_after: None,
    };
    twilio.fault(wrong_token, 1);
    let first = file(
        &kept,
        &format!("to,template,1,key\n{BEN},{TEMPLATE},Ben,ben\n"),
    );
    assert_eq!(csv(&kept, &first, &[]).0, 0);
    kept.wait_for(&[&OUTGOING[..], &["--state", "failed"]].concat());
    let (code, out, _) = csv(&kept, &first, &["--json"]);
    let told = &json_lines(&out)[0];
    assert_eq!((code, &told["id"]), (1, &1.into()));
    let (_, out, _) = csv(&kept, &first, &[]);
    let expected =
        "line 2 whatsapp:…33: queued before as message 1, which failed: Twilio rejected it: ";
    assert!(
        out.starts_with(expected) && out.contains("(20003)"),
        "{out}"
    );

    let list = kept.prints(&OUTGOING);
    assert!(
        list.starts_with("1      failed     whatsapp:…33 "),
        "{list}"
    );
    assert!(
        list.contains("Twilio rejected it: ") && !list.contains("5550003333"),
        "{list}"
    );
    let line = &kept.lines(&[&OUTGOING[..], &["--json"]].concat())[0];
    for (field, value) in [
        ("id", serde_json::json!(1)),
        ("direction", "outbound".into()),
        ("state", "failed".into()),
        ("account_sid", ACCOUNT.into()),
        ("from", US.into()),
        ("user", "whatsapp:…33".into()),
        ("error_code", 20003.into()),
        ("message_sid", serde_json::Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    let exported = kept.lines(&["messages", "export", "--outbound", "--content"]);
    assert_eq!(
        (exported.len(), &exported[0]["body"]),
        (1, &TEMPLATE.into())
    );
    assert_eq!(exported[0]["user"], BEN);
    let shown = kept.prints(&["messages", "show", "--outbound", "1"]);
    for part in [
        "outbound  1\n",
        "state     failed\n",
        "release --failed-with 20003",
        "release --outbound 1",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let (code, out, _) = kept.run(&["messages", "show", "--outbound", "2"]);
    assert!(
        code == 1 && out.starts_with("outbound message 2 does not exist"),
        "{out}"
    );
    let (code, out, _) = kept.run(&["messages", "release", "--all"]);
    assert!(
        code == 1 && out.contains("messages list --outbound --state failed"),
        "{out}"
    );
    assert_eq!(
        kept.run(&["messages", "release", "--failed-with", "63024"])
            .0,
        1
    );
    assert_eq!(twilio.posts().len(), 1);

    // A restart ends the pause of one minute that follows a rejected auth token.
    drop(server);
    let _server = kept.server();
    let freed = kept.prints(&["messages", "release", "--failed-with", "20003"]);
    assert!(freed.starts_with("1 message released"), "{freed}");
    let sid = &twilio.wait_for_phone(BEN, 1)[0].sid;
    kept.wait_for(&[&OUTGOING[..], &["--state", "sent"]].concat());
    let by_sid = kept.prints(&["messages", "show", sid]);
    assert!(by_sid.contains("outbound  1\n"), "{by_sid}");
    assert_eq!(csv(&kept, &first, &[]).0, 0);
}

#[test]
fn csv_rows_to_one_user_arrive_in_order() {
    let twilio = FakeTwilio::start();
    let kept = Kept::with(&twilio);
    let server = kept.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    let texts: Vec<String> = (1..=20).map(|number| format!("n{number}")).collect();
    let rows: String = texts.iter().map(|text| format!("{ANA},{text}\n")).collect();
    let path = file(&kept, &format!("to,body\n{rows}"));
    assert_eq!(csv(&kept, &path, &[]).0, 0);
    let shown = twilio.wait_for_phone(ANA, 20);
    let arrived: Vec<_> = shown.into_iter().map(|message| message.body).collect();
    assert_eq!(arrived, texts);
}

// The command ran with another TWILIO_ACCOUNT_SID than the server, so the message stays pending.
#[test]
fn outbound_for_another_account_logs_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("kept.db").display());
    let dev = Dev::start_with(&["--port", "0"], &[("DATABASE_URL", store.as_str())]);
    let stranger = "AC00000000000000000000000000000009";
    let env = [
        ("DATABASE_URL", store.as_str()),
        ("TWILIO_ACCOUNT_SID", stranger),
    ];
    let sms = [
        "send",
        "--to",
        "+15550001111",
        "--from",
        "+15550002222",
        "--body",
        "hi",
    ];
    let (code, out, err) = replyhook(&[&sms[..], &["--wait=0"]].concat(), &env, "");
    assert_eq!((code, out.as_str()), (1, "message 1: pending\n"));
    assert!(err.contains(&format!("sends for {stranger}")), "{err}");
    let warned = |line: &str| {
        line.contains("that this server does not send for")
            .then_some(())
    };
    dev.program.wait_for("the warning", warned);
    let own = [
        ("DATABASE_URL", store.as_str()),
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
    ];
    for env in [&env, &own] {
        let args = [&sms[..], &["--wait=0"]].concat();
        replyhook(&args, env, "");
    }
    // The last message was queued after a second one of the other account. Once it is sent, that one was checked, too.
    dev.exchanges_of(1, |exchange| exchange["kind"] == "rest");
    let said = dev.program.said();
    assert_eq!(
        said.matches("that this server does not send for").count(),
        1,
        "{said}"
    );
}
