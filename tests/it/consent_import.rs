//! The command `consent import`: opt-ins and opt-outs from a CSV file.

use std::path::PathBuf;

use crate::support::{TempStore, Webhook};

const ANA: &str = "whatsapp:+15550001111";
const SENDER: &str = "whatsapp:+15550002222";

fn write_csv(store: &TempStore, text: &str) -> PathBuf {
    let path = store.path().with_file_name("opt-ins.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn import(store: &TempStore, args: &[&str], text: &str) -> (i32, String, String) {
    let path = write_csv(store, text);
    store.run(&[&["consent", "import", path.to_str().unwrap()], args].concat())
}

fn export(store: &TempStore) -> Vec<serde_json::Value> {
    store.run_json(&["consent", "export", "--json"])
}

#[test]
fn imported_rows_have_their_evidence_and_second_run_changes_nothing() {
    let store = TempStore::new();
    store.run_ok(&["migrate"]);
    let file = format!(
        "\u{feff}address,sender,status,source,note,evidence,at\r\n\
         {ANA},{SENDER},opted_in,order form,\"box 2, \"\"news\"\"\",https://shop.example.com/forms/17,2026-01-02T03:04:05Z\r\n\
         +15550009999,,opted_out,phone call,,,\r\n\
         {ANA},{SENDER},opted_in,order form,\"box 2, \"\"news\"\"\",https://shop.example.com/forms/17,2026-01-02T03:04:05Z\r\n\
         whatsapp:+15550007777,{SENDER},,,,SM00000000000000000000000000000009,\r\n"
    );
    let service = ["--service", "MG00000000000000000000000000000001"];
    let dry = import(&store, &[&service[..], &["--dry-run"]].concat(), &file);
    let summary = "4 rows: 3 would be recorded, 1 unchanged, 0 rejected\n";
    assert_eq!(dry, (0, summary.to_owned(), String::new()));
    assert!(export(&store).is_empty());
    let first = import(&store, &service, &file);
    let summary = "4 rows: 3 recorded, 1 unchanged, 0 rejected\n";
    assert_eq!(first, (0, summary.to_owned(), String::new()));
    let ledger = export(&store);
    assert_eq!(ledger.len(), 3);
    let ana = &ledger[0];
    assert_eq!((&ana["user"], &ana["scope"]), (&ANA.into(), &SENDER.into()));
    assert_eq!(
        (&ana["action"], &ana["source"]),
        (&"opt_in".into(), &"order form".into())
    );
    assert_eq!(ana["note"], "box 2, \"news\"");
    assert_eq!(ana["evidence"], "https://shop.example.com/forms/17");
    assert_eq!(ana["at"], "2026-01-02T03:04:05Z");
    assert_eq!(
        (&ledger[1]["scope"], &ledger[1]["action"]),
        (&service[1].into(), &"opt_out".into())
    );
    assert_eq!(ledger[2]["evidence"], "SM00000000000000000000000000000009");
    let shown = store.run_ok(&["consent", "show", ANA, "--sender", SENDER]);
    assert!(shown.contains("opted in since 2026-01-02"), "{shown}");
    let second = import(&store, &service, &file);
    let summary = "4 rows: 0 recorded, 4 unchanged, 0 rejected\n";
    assert_eq!(second, (0, summary.to_owned(), String::new()));
    assert_eq!(export(&store), ledger);
}

#[test]
fn exported_ledger_can_be_imported_elsewhere() {
    let store = TempStore::new();
    store.run_ok(&["migrate"]);
    store.run_ok(&[
        "consent", "opt-in", ANA, "--sender", SENDER, "--note", "box 2",
    ]);
    let exported = store.run_ok(&["consent", "export", "--csv"]);
    let other = TempStore::new();
    other.run_ok(&["migrate"]);
    let (code, out, err) = import(&other, &[], &exported);
    assert_eq!(
        (code, out.as_str()),
        (0, "1 row: 1 recorded, 0 unchanged, 0 rejected\n"),
        "{err}"
    );
    let (before, after) = (&export(&store)[0], &export(&other)[0]);
    for name in ["user", "scope", "action", "source", "note", "at"] {
        assert_eq!(before[name], after[name], "{name}");
    }
}

// The STOP is newer than the form, or the time of the form is unknown.
#[test]
fn import_does_not_end_newer_opt_out() {
    let store = TempStore::new();
    let server = store.server();
    server.send(&Webhook::message(1, "hi")).twiml();
    server.send(&Webhook::message(2, "STOP")).twiml();
    let file = format!("address,source,at\n{ANA},form,2026-01-02T03:04:05Z\n{ANA},form,\n");
    let (code, out, _) = import(&store, &["--sender", SENDER], &file);
    assert_eq!(code, 1);
    assert_eq!(
        out.matches("the user decided otherwise").count(),
        2,
        "{out}"
    );
    assert!(
        out.starts_with("line 2 whatsapp:…11: ") && out.contains("line 3 "),
        "{out}"
    );
    let shown = store.run_ok(&["consent", "show", ANA, "--sender", SENDER]);
    assert!(shown.contains("opted out since"), "{shown}");
}

// The last word counts, and not the one that the present consent began with.
#[test]
fn import_does_not_replace_the_last_word() {
    let store = TempStore::new();
    store.run_ok(&["migrate"]);
    let ben = "whatsapp:+15550003333";
    let row = |user, status, at| format!("{user},{status},form,2026-0{at}-01T00:00:00Z\n");
    let import_rows = |rows: &[String]| {
        let file = "address,status,source,at\n".to_owned() + &rows.concat();
        let (code, out, err) = import(&store, &["--sender", SENDER], &file);
        assert_eq!(err, "", "{out}");
        (code, out.matches("the user decided otherwise").count())
    };
    let stated = [
        row(ANA, "opted_out", 1),
        row(ANA, "opted_out", 3),
        row(ben, "opted_in", 1),
        row(ben, "opted_out", 2),
        row(ben, "opted_in", 4),
    ];
    assert_eq!(import_rows(&stated), (0, 0));
    // Between the two opt-outs, and between the end of the opt-out and its beginning.
    let older = [row(ANA, "opted_in", 2), row(ben, "opted_out", 3)];
    assert_eq!(import_rows(&older), (1, 2));
    let show = |user| store.run_ok(&["consent", "show", user, "--sender", SENDER]);
    assert!(
        show(ANA).contains("opted out since 2026-01-01"),
        "{}",
        show(ANA)
    );
    assert!(show(ben).contains("not opted out"), "{}", show(ben));
    assert_eq!(import_rows(&[row(ANA, "opted_in", 4)]), (0, 0));
    assert!(show(ANA).contains("not opted out"), "{}", show(ANA));
}

// START by a message is newer than a row that says when the user refused.
#[test]
fn import_does_not_end_newer_start() {
    let store = TempStore::new();
    let server = store.server();
    for (number, text) in [(1, "STOP"), (2, "START")] {
        server.send(&Webhook::message(number, text)).twiml();
    }
    let file = format!("address,status,source,at\n{ANA},opted_out,form,2026-01-02T03:04:05Z\n");
    let (code, out, _) = import(&store, &["--sender", SENDER], &file);
    assert_eq!(code, 1);
    assert!(out.contains("the user decided otherwise"), "{out}");
    assert!(
        server
            .send(&Webhook::message(3, "hi"))
            .twiml()
            .contains("<Message>hi")
    );
}

#[test]
fn invalid_row_is_rejected_by_line_and_others_are_recorded() {
    let store = TempStore::new();
    store.run_ok(&["migrate"]);
    let rows = [
        ("15550001111,,form,,", "the address is not an address"),
        (",,form,,", "the address is missing"),
        (
            "whatsapp:+15550001111,yes,form,,",
            "neither opted_in nor opted_out",
        ),
        ("whatsapp:+15550001111,,,,", "without evidence"),
        ("whatsapp:+15550001111,,form,tomorrow,", "invalid time"),
        (
            "whatsapp:+15550001111,,form,2099-01-01T00:00:00Z,",
            "has not come yet",
        ),
        (
            "+15550001111,,form,,",
            "different channels, sms and whatsapp",
        ),
        (
            "whatsapp:+15550001111,,form,",
            "4 fields, but the header line has 5",
        ),
        (
            "whatsapp:+15550001111,,form,,15550002222",
            "the sender is not an address",
        ),
    ];
    let mut file = "address,status,source,at,sender\n".to_owned();
    for (row, _) in rows {
        file += row;
        file += "\n";
    }
    file += "whatsapp:+15550008888,,form,,\n";
    let (code, out, err) = import(&store, &["--sender", SENDER], &file);
    assert_eq!((code, err.as_str()), (1, ""));
    let lines: Vec<_> = out.lines().collect();
    for (number, (row, part)) in (2..).zip(rows) {
        let line = lines[number - 2];
        assert!(
            line.starts_with(&format!("line {number}")) && line.contains(part),
            "{row}: {line}"
        );
        let of_row = line.replace(
            "write it as Twilio does: +15550001111, or whatsapp:+15550001111",
            "",
        );
        assert!(!of_row.contains("5550001111"), "{line}");
    }
    assert_eq!(
        lines[rows.len()],
        "10 rows: 1 recorded, 0 unchanged, 9 rejected"
    );
    assert_eq!(export(&store).len(), 1);
    let (_, out, _) = import(&store, &["--sender", SENDER, "--json"], &file);
    assert!(
        out.contains(r#""kind":"counts""#) && out.contains(r#""line":3"#),
        "{out}"
    );
    // A file that cannot be used as a whole records nothing.
    for (file, part) in [
        ("user,number\n+15550001111,5\n", "unknown column \"number\""),
        ("sender\n+15550001111\n", "the column `address` is missing"),
        ("address,user\n+15550001111,\n", "two columns"),
        ("address,source\n+15550001111,\"form\n", "never closed"),
    ] {
        let (code, _, err) = import(&store, &[], file);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(part), "{err}");
    }
    assert_eq!(export(&store).len(), 1);
}
