//! Outbound messages in the operator commands: found by ID, and released after the cause of a failure is fixed.

use super::command::{opt_in, send_csv, write_csv};
use super::{ANA, BEN, SENDER, TEMPLATE};
use crate::support::{ACCOUNT, Dev, FakeTwilio, Fault, TempStore, Webhook, json_lines, replyhook};

const LIST_OUTBOUND: [&str; 3] = ["messages", "list", "--outbound"];

#[test]
fn failed_outbound_is_listed_and_released_by_cause() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    opt_in(&store, ANA);
    opt_in(&store, BEN);
    assert_eq!(store.run_ok(&LIST_OUTBOUND), "");
    let wrong_token = Fault::Status {
        status: 401,
        code: Some(20003),
        retry_after: None,
    };
    twilio.fault(wrong_token, 1);
    let first = write_csv(
        &store,
        &format!("to,template,1,key\n{BEN},{TEMPLATE},Ben,ben\n"),
    );
    assert_eq!(send_csv(&store, &first, &[]).0, 0);
    store.wait_for(&[&LIST_OUTBOUND[..], &["--state", "failed"]].concat());
    let (code, out, _) = send_csv(&store, &first, &["--json"]);
    let row = &json_lines(&out)[0];
    assert_eq!((code, &row["id"]), (1, &1.into()));
    let (_, out, _) = send_csv(&store, &first, &[]);
    let expected =
        "line 2 whatsapp:…33: queued before as message 1, which failed: Twilio rejected it: ";
    assert!(
        out.starts_with(expected) && out.contains("(20003)"),
        "{out}"
    );

    let list = store.run_ok(&LIST_OUTBOUND);
    assert!(
        list.starts_with("1      failed     whatsapp:…33 "),
        "{list}"
    );
    assert!(
        list.contains("Twilio rejected it: ") && !list.contains("5550003333"),
        "{list}"
    );
    let line = &store.run_json(&[&LIST_OUTBOUND[..], &["--json"]].concat())[0];
    for (field, value) in [
        ("id", serde_json::json!(1)),
        ("direction", "outbound".into()),
        ("state", "failed".into()),
        ("account_sid", ACCOUNT.into()),
        ("from", SENDER.into()),
        ("user", "whatsapp:…33".into()),
        ("error_code", 20003.into()),
        ("message_sid", serde_json::Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    let exported = store.run_json(&["messages", "export", "--outbound", "--content"]);
    assert_eq!(
        (exported.len(), &exported[0]["body"]),
        (1, &TEMPLATE.into())
    );
    assert_eq!(exported[0]["user"], BEN);
    let shown = store.run_ok(&["messages", "show", "--outbound", "1"]);
    for part in [
        "outbound  1\n",
        "state     failed\n",
        "release --failed-with 20003",
        "release --outbound 1",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    for command in ["show", "release"] {
        let (code, out, _) = store.run(&["messages", command, "--outbound", "2"]);
        assert!(
            code == 1 && out.starts_with("outbound message 2 does not exist"),
            "{command}: {out}"
        );
    }
    let (code, out, _) = store.run(&["messages", "release", "--all"]);
    assert!(
        code == 1 && out.contains("messages list --outbound --state failed"),
        "{out}"
    );
    assert_eq!(
        store
            .run(&["messages", "release", "--failed-with", "63024"])
            .0,
        1
    );
    assert_eq!(twilio.posts().len(), 1);

    // A restart ends the pause of one minute that follows a rejected auth token.
    drop(server);
    let _server = store.server();
    let freed = store.run_ok(&["messages", "release", "--failed-with", "20003"]);
    assert!(freed.starts_with("1 message released"), "{freed}");
    let sid = &twilio.wait_for_phone(BEN, 1)[0].sid;
    store.wait_for(&[&LIST_OUTBOUND[..], &["--state", "sent"]].concat());
    let by_sid = store.run_ok(&["messages", "show", sid]);
    assert!(by_sid.contains("outbound  1\n"), "{by_sid}");
    let (code, out, _) = store.run(&["messages", "release", sid]);
    assert_eq!((code, out.as_str()), (1, "nothing is held\n"));
    let (code, out, _) = store.run(&["messages", "retry", sid]);
    assert!(
        code == 1 && out.contains("is outbound message 1, which has no handler"),
        "{out}"
    );
    assert_eq!(send_csv(&store, &first, &[]).0, 0);
}

#[test]
fn csv_rows_to_one_user_arrive_in_order() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    let texts: Vec<String> = (1..=20).map(|number| format!("n{number}")).collect();
    let rows: String = texts.iter().map(|text| format!("{ANA},{text}\n")).collect();
    let path = write_csv(&store, &format!("to,body\n{rows}"));
    assert_eq!(send_csv(&store, &path, &[]).0, 0);
    let phone = twilio.wait_for_phone(ANA, 20);
    let arrived: Vec<_> = phone.into_iter().map(|message| message.body).collect();
    assert_eq!(arrived, texts);
}

// The command ran with another TWILIO_ACCOUNT_SID than the server, so the message stays pending.
#[test]
fn outbound_for_another_account_logs_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("kept.db").display());
    let dev = Dev::start_with(&["--port", "0"], &[("DATABASE_URL", store.as_str())]);
    let other_account = "AC00000000000000000000000000000009";
    let env = [
        ("DATABASE_URL", store.as_str()),
        ("TWILIO_ACCOUNT_SID", other_account),
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
    assert!(err.contains(&format!("sends for {other_account}")), "{err}");
    let warned = |line: &str| {
        line.contains("that this server does not send for")
            .then_some(())
    };
    dev.program.wait_for("the warning", warned);
    let own_env = [
        ("DATABASE_URL", store.as_str()),
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
    ];
    for env in [&env, &own_env] {
        let args = [&sms[..], &["--wait=0"]].concat();
        replyhook(&args, env, "");
    }
    // The last message was queued after a second one of the other account. Once it is sent, that one was checked, too.
    dev.wait_for_exchanges(1, |exchange| exchange["kind"] == "rest");
    let output = dev.program.output();
    assert_eq!(
        output.matches("that this server does not send for").count(),
        1,
        "{output}"
    );
}
