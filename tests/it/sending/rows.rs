//! Strict parsing of CSV files, so that no user gets the text of another row.

use super::command::{send_csv, write_csv};
use super::{ANA, BEN, SENDER};
use crate::support::{ACCOUNT, FakeTwilio, TempStore, Webhook, json_lines};

// A quote that is never closed would send one user the rows of others.
#[test]
fn misplaced_quote_rejects_whole_file_before_sending() {
    let store = TempStore::new();
    store.server().send(&Webhook::message(1, "hello")).twiml();
    let never = format!("to,body\n{ANA},\"Hi Ana\n{BEN},your code is 1234\n");
    let later = format!("to,body\n{ANA},\"Hi Ana\n{BEN},\"Hi Ben\"\n");
    let within = format!("to,body\n{ANA},Hi \"Ana\"\n");
    let after = format!("to,body\n{ANA},\"Hi\" Ana\n");
    let heading = format!("to,\"body\n{ANA},hi\n");
    for (rows, problem) in [
        (&never, "line 2: a quote is never closed"),
        (&later, "line 3: text after the closing quote of a field"),
        (&within, "line 2: a quote inside of a field without quotes"),
        (&after, "line 2: text after the closing quote of a field"),
        (&heading, "line 1: a quote is never closed"),
    ] {
        let path = write_csv(&store, rows);
        for args in [&[][..], &["--dry-run"]] {
            let (code, out, err) = send_csv(&store, &path, args);
            assert_eq!((code, out.as_str()), (2, ""), "{rows}: {err}");
            assert!(err.contains(problem), "{rows}: {err}");
            assert!(!err.contains("1234"), "{err}");
        }
    }
    // A quoted field may contain line breaks, commas and doubled quotes.
    let whole = format!("\"to\",body\r\n{ANA},\"Hi \"\"Ana\"\",\nhow are you?\"\r\n{ANA},\"\"\"\"");
    let (code, out, err) = send_csv(&store, &write_csv(&store, &whole), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "2 rows: 2 queued, 0 duplicates, 0 rejected\n");
}

#[test]
fn row_error_shows_line_of_row_start() {
    let store = TempStore::new();
    store.server().send(&Webhook::message(1, "hello")).twiml();
    for end in ["\n", "\r\n"] {
        let rows = [
            "",
            "to,body",
            "",
            &format!("{ANA},\"one{end}{end}two\""),
            "",
            "15550006666,hi",
            &format!("{ANA},\"three{end}four\""),
            ",hi",
            "",
            "",
            ANA,
        ]
        .join(end);
        let (code, out, _) = send_csv(&store, &write_csv(&store, &rows), &["--dry-run", "--json"]);
        assert_eq!(code, 1);
        let lines = json_lines(&out);
        let named: Vec<_> = lines
            .iter()
            .filter_map(|line| line["line"].as_u64())
            .collect();
        assert_eq!(named, [8, 11, 14], "{out}");
    }
}

// The key is checked within a file and from one file to the next.
#[test]
fn idempotency_key_for_different_message_is_rejected() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server();
    server.send(&Webhook::message(1, "hello")).twiml();
    let ben = Webhook::message(2, "hello").with("From", BEN);
    server.send(&ben).twiml();
    let rows = format!(
        "to,body,key\n{ANA},one,camp\n{ANA},two,camp\n{BEN},one,camp\n{ANA},one,camp\n{BEN},hi,\n{BEN},hi,\n"
    );
    let rejected = "line 3 whatsapp:…11: line 2 has the same key, but another text or recipient\n\
        line 4 whatsapp:…33: line 2 has the same key, but another text or recipient\n";
    let path = write_csv(&store, &rows);
    for (args, would) in [(&["--dry-run"][..], "would be "), (&[], "")] {
        let (code, out, _) = send_csv(&store, &path, args);
        assert_eq!(code, 1);
        let counts = format!("6 rows: 2 {would}queued, 2 duplicates, 2 rejected\n");
        assert_eq!(out, format!("{rejected}{counts}"));
    }
    twilio.wait_for_posts(2);
    let again = write_csv(&store, &format!("to,body,key\n{ANA},three,camp\n"));
    for args in [&["--dry-run", "--json"][..], &["--json"]] {
        let (code, out, _) = send_csv(&store, &again, args);
        let row = &json_lines(&out)[0];
        assert_eq!(code, 1);
        assert_eq!((&row["line"], &row["id"]), (&2.into(), &1.into()));
        let reason = row["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("message 1 has the same key, but another text"),
            "{reason}"
        );
    }
    let known = write_csv(&store, &format!("to,body,key\n{ANA},one,camp\n"));
    let (code, out, _) = send_csv(&store, &known, &[]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(twilio.posts().len(), 2);
}

// The options have the choices of every row, so each keyword is named once, and only if a row is for SMS or RCS.
#[test]
fn choices_that_are_keywords_are_warned_about() {
    let store = TempStore::new();
    store.server().send(&Webhook::message(1, "hello")).twiml();
    let args = ["--choice", "Stop (all)", "--choice", "Go on", "--dry-run"];
    for (rows, expected) in [
        (format!("to,body\n{ANA},Sure?\n"), 0),
        (
            "to,body\n+15550006666,Sure?\n+15550007777,Sure?\n".to_owned(),
            1,
        ),
    ] {
        let path = write_csv(&store, &rows);
        let sender = if expected == 0 {
            SENDER
        } else {
            "+15550002222"
        };
        let path = path.to_str().unwrap();
        let all = [&["send", "--csv", path, "--from", sender][..], &args[..]].concat();
        let (code, out, err) = store.run_with(&all, &[("TWILIO_ACCOUNT_SID", ACCOUNT)]);
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(
            err.matches("warning: STOP is a keyword").count(),
            expected,
            "{err}"
        );
    }
}
