//! Checks of templates before sending: approval by WhatsApp, and variables.

use replyhook::outbound::SendErrorKind;
use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage};
use replyhook::{Echo, Secret};
use serde_json::json;

use super::{ANA, BEN, SERVICE, TEMPLATE, US};
use crate::support::{ACCOUNT, Dev, Scripted, TOKEN, TestApp, Webhook, json_lines, replyhook};

fn path(template: &str) -> String {
    format!("/v1/Content/{template}/ApprovalRequests")
}

fn hx(number: u32) -> String {
    format!("HX{number:032x}")
}

async fn beside(content: &Scripted) -> TestApp {
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__CONSENT__REQUIRED", "false"),
        ("REPLYHOOK__TWILIO__CONTENT_URL", content.url()),
    ];
    let app = TestApp::build(&env, |app| app.handler(Echo));
    app.opened().await;
    app
}

/// Scripts a template with the one variable `1`, and its approval by WhatsApp.
fn says(content: &Scripted, template: &str, approval: &serde_json::Value) {
    approves(content, template, approval);
    reads(content, template, "Hi {{1}}!", &json!({"1": "Jane"}));
}

fn approves(content: &Scripted, template: &str, approval: &serde_json::Value) {
    let body = json!({"sid": template, "whatsapp": approval}).to_string();
    content.answers(&path(template), 200, "application/json", &body);
}

/// Scripts the text of a template, with sample values of its variables.
fn reads(content: &Scripted, template: &str, text: &str, samples: &serde_json::Value) {
    let body =
        json!({"sid": template, "variables": samples, "types": {"twilio/text": {"body": text}}});
    let at = format!("/v1/Content/{template}");
    content.answers(&at, 200, "application/json", &body.to_string());
}

/// Runs a command that calls this Content API.
async fn run(content: &Scripted, args: &[&str], database: &str) -> (i32, String, String) {
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("REPLYHOOK__CONSENT__REQUIRED", "false"),
        ("REPLYHOOK__TWILIO__CONTENT_URL", content.url()),
        ("DATABASE_URL", database),
    ];
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let env = env.map(|(name, value)| (name, value.to_owned()));
    let ran = tokio::task::spawn_blocking(move || {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let env: Vec<_> = env.iter().map(|(n, v)| (*n, v.as_str())).collect();
        replyhook(&args, &env, "")
    });
    ran.await.unwrap()
}

// The error names the variables; templates that cannot be read are left to Twilio.
#[tokio::test]
async fn template_with_missing_or_unknown_variable_is_rejected() {
    let content = Scripted::start().await;
    let app = beside(&content).await;
    let approved = json!({"status": "approved"});
    approves(&content, TEMPLATE, &approved);
    // Twilio would send the sample value of a missing variable.
    let samples = json!({"1": "Jane", "2": "noon", "old": "x"});
    reads(
        &content,
        TEMPLATE,
        "Hi {{1}}, see you at {{2}}, {{ place }}.",
        &samples,
    );
    let by_sms = |variables: &[(&str, &str)]| {
        let to = "+15550001111";
        NewMessage::template(to, TEMPLATE, variables.iter().copied()).from("+15550002222")
    };
    let whole = [("1", "Ana"), ("2", "12:00"), ("place", "here")];
    for (variables, told) in [
        (
            &whole[..1],
            "it has no value for the template's variables 2, place",
        ),
        (
            &[whole[0], whole[1], whole[2], ("9", "Z")],
            "the template has no variable 9",
        ),
        (
            &[whole[0], whole[1], ("plaec", "here")],
            "it has no value for the template's variable place; the template has no variable plaec",
        ),
    ] {
        let by_whatsapp = NewMessage::template(ANA, TEMPLATE, variables.iter().copied()).from(US);
        for message in [by_whatsapp, by_sms(variables)] {
            let error = app.sender.send(&message).await.unwrap_err();
            assert_eq!(error.kind(), SendErrorKind::WrongVariables);
            assert_eq!(error.to_string(), told);
        }
    }
    for also in [None, Some(("old", "y"))] {
        let variables: Vec<_> = whole.into_iter().chain(also).collect();
        app.sender.send(&by_sms(&variables)).await.unwrap();
    }
    // The text of these templates cannot be read: one has none, the other is forbidden.
    let (hidden, forbidden) = (hx(7), hx(8));
    approves(&content, &hidden, &approved);
    reads(&content, &hidden, "", &json!({}));
    approves(&content, &forbidden, &approved);
    let at = format!("/v1/Content/{forbidden}");
    content.answers(&at, 403, "application/json", r#"{"code":20403}"#);
    for template in [hidden, forbidden] {
        let message = NewMessage::template(ANA, template, [("9", "Z")]).from(US);
        app.sender.send(&message).await.unwrap();
    }
}

#[tokio::test]
async fn send_command_rejects_wrong_template_variables() {
    let content = Scripted::start().await;
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("kept.db").display());
    let (code, ..) = run(&content, &["migrate"], &database).await;
    assert_eq!(code, 0);
    // Each command fetches the template again.
    for _ in 0..4 {
        approves(&content, TEMPLATE, &json!({"status": "approved"}));
        reads(
            &content,
            TEMPLATE,
            "Hi {{1}}, see you at {{2}}.",
            &json!({}),
        );
    }
    let one = ["send", "--to", ANA, "--from", US, "--template", TEMPLATE];
    for extra in [&["--wait"][..], &["--var", "1=Ana", "--dry-run"]] {
        let (code, out, err) = run(&content, &[&one[..], extra].concat(), &database).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("the template's variable"), "{err}");
    }
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, format!("to,1,2\n{ANA},Ana,12:00\n{BEN},Ben,\n")).unwrap();
    let file = file.to_str().unwrap();
    let rows = ["send", "--csv", file, "--from", US, "--template", TEMPLATE];
    for (extra, would) in [(&["--dry-run"][..], "would be "), (&[], "")] {
        let (code, out, _) = run(&content, &[&rows[..], extra].concat(), &database).await;
        assert_eq!(code, 1);
        let expected = format!(
            "line 3 whatsapp:…33: it has no value for the template's variable 2\n\
             2 rows: 1 {would}queued, 0 duplicates, 1 rejected\n"
        );
        assert_eq!(out, expected);
    }
}

#[tokio::test]
async fn unapproved_template_is_rejected_with_reason() {
    let content = Scripted::start().await;
    let app = beside(&content).await;
    let approvals = [
        (
            json!({"status": "rejected", "rejection_reason": "INVALID_FORMAT"}),
            "rejected (INVALID_FORMAT)",
        ),
        (
            json!({"status": "paused", "rejection_reason": ""}),
            "paused",
        ),
        (json!({"status": "pending"}), "pending"),
        (json!({"status": "disabled"}), "disabled"),
        (json!({"status": "unsubmitted"}), "unsubmitted"),
        (json!(null), "unsubmitted"),
        (json!({"status": "some news"}), "some news"),
    ];
    for (number, (approval, shown)) in (1..).zip(&approvals) {
        says(&content, &hx(number), approval);
        let message = NewMessage::template(ANA, hx(number), [("1", "Ana")]).from(US);
        let error = app.sender.send(&message).await.unwrap_err();
        assert_eq!(error.kind(), SendErrorKind::NotApproved);
        assert_eq!(
            error.to_string(),
            format!("WhatsApp has not approved the template: it is {shown}")
        );
    }
    // Nothing was queued.
    assert_eq!(app.outbox().await["pending"], 0);
    let missing = NewMessage::template(ANA, hx(99), [("1", "Ana")]).from(US);
    let error = app.sender.send(&missing).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::NoSuchTemplate);
    // In an open window, an unsubmitted template may be sent: lists and quick replies are never submitted.
    app.send(Webhook::message(1, "hi").with("From", BEN)).await;
    for (number, taken) in [(5, true), (1, false)] {
        let message = NewMessage::template(BEN, hx(number), [("1", "Ben")]).from(US);
        assert_eq!(app.sender.send(&message).await.is_ok(), taken);
    }
    // SMS templates need no approval.
    let sms = NewMessage::template("+15550001111", hx(1), [("1", "Ana")]);
    app.sender
        .send(&sms.service(SERVICE.parse().unwrap()))
        .await
        .unwrap();
}

// If the Content API is unavailable, Twilio decides whether to send the template.
#[tokio::test]
async fn template_approval_is_cached_and_failure_allows_sending() {
    let content = Scripted::start().await;
    let app = beside(&content).await;
    says(&content, TEMPLATE, &json!({"status": "approved"}));
    content.answers(&path(&hx(2)), 503, "text/plain", "busy");
    let at = format!("/v1/Content/{}", hx(2));
    content.answers(&at, 503, "text/plain", "busy");
    for template in [TEMPLATE, &hx(2)] {
        for user in [ANA, BEN] {
            let message = NewMessage::template(user, template, [("1", "x")]).from(US);
            app.sender.send(&message).await.unwrap();
        }
        assert_eq!(content.asked_at(&path(template)).len(), 1);
    }
    let asked = &content.asked()[0];
    assert!(
        asked.headers["authorization"]
            .to_str()
            .unwrap()
            .starts_with("Basic ")
    );
}

#[tokio::test]
async fn template_list_follows_pages_of_same_host() {
    let content = Scripted::start().await;
    let one = |sid: &str, name: &str, approval: &serde_json::Value| {
        json!({"sid": sid, "friendly_name": name, "language": "en", "variables": {"1": "Ana", "2": 7},
            "types": {"twilio/text": {"body": "Hi {{1}}"}}, "approval_requests": approval})
    };
    let page = |contents: &[serde_json::Value], next: Option<String>| {
        json!({"contents": contents, "meta": {"next_page_url": next, "key": "contents"}})
            .to_string()
    };
    let list = "/v1/ContentAndApprovals";
    let next = format!("{}{list}?PageSize=100&Page=1", content.url());
    let approved = json!({"status": "approved", "category": "UTILITY", "rejection_reason": ""});
    let rejected =
        json!({"status": "rejected", "category": "MARKETING", "rejection_reason": "SPAM"});
    let first = page(&[one(&hx(2), "welcome", &approved)], Some(next));
    let second = page(&[one(&hx(1), "offer", &rejected)], None);
    for body in [&first, &second, &first, &second] {
        content.answers(list, 200, "application/json", body);
    }
    let none = "sqlite:nowhere.db";
    let (code, out, err) = run(&content, &["templates"], none).await;
    let (offer, welcome) = (hx(1), hx(2));
    let expected = format!(
        "{offer} offer en rejected (SPAM) 1=\"Ana\" 2=\"7\"\n{welcome} welcome en approved 1=\"Ana\" 2=\"7\"\n"
    );
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, expected.as_str(), "")
    );
    let (code, out, _) = run(&content, &["templates", "--json"], none).await;
    let lines = json_lines(&out);
    assert_eq!(code, 0);
    assert_eq!(lines[0]["status"], "rejected");
    assert_eq!(lines[0]["reason"], "SPAM");
    assert_eq!(lines[1]["content_sid"], welcome);
    assert_eq!(lines[1]["variables"], json!({"1": "Ana", "2": "7"}));
    content.forget(list);
    content.answers(
        list,
        401,
        "application/json",
        r#"{"code":20003,"status":401}"#,
    );
    let (code, out, err) = run(&content, &["templates"], none).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("20003"), "{err}");
    // Another host gets no credentials.
    content.forget(list);
    let elsewhere = page(
        &[],
        Some("https://evil.example/v1/ContentAndApprovals?Page=1".to_owned()),
    );
    content.answers(list, 200, "application/json", &elsewhere);
    let client = Client::new(ApiUrl::parse(content.url()).unwrap());
    let own = Credentials::auth_token(ACCOUNT.parse().unwrap(), Secret::new(TOKEN));
    assert!(client.templates(&own).await.is_err());
}

#[test]
fn templates_command_lists_emulator_templates() {
    let dev = Dev::start();
    let made = json!({"friendly_name": "order_ready", "language": "en", "variables": {"1": "42"},
        "types": {"twilio/text": {"body": "Order {{1}} is ready."}}});
    let answer = dev.call(
        "POST",
        "/v1/Content",
        &dev.token,
        "application/json",
        &made.to_string(),
    );
    let made: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let env = [
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
        ("TWILIO_AUTH_TOKEN", dev.token.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", dev.url.as_str()),
    ];
    let (code, out, err) = replyhook(&["templates"], &env, "");
    assert_eq!((code, err.as_str()), (0, ""));
    let sid = made["sid"].as_str().unwrap();
    assert_eq!(out, format!("{sid} order_ready en approved 1=\"42\"\n"));
}
