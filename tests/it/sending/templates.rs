//! Checks of templates before sending: approval by WhatsApp, and variables.

use replyhook::outbound::SendErrorKind;
use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage};
use replyhook::{Echo, Secret};
use serde_json::json;

use super::{ANA, BEN, SENDER, SERVICE, TEMPLATE};
use crate::support::{
    ACCOUNT, Dev, ScriptedServer, TOKEN, TestApp, Webhook, json_lines, replyhook,
};

fn approval_path(template: &str) -> String {
    format!("/v1/Content/{template}/ApprovalRequests")
}

fn hx(number: u32) -> String {
    format!("HX{number:032x}")
}

async fn app_with_content(content: &ScriptedServer) -> TestApp {
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__CONSENT__REQUIRED", "false"),
        ("REPLYHOOK__TWILIO__CONTENT_URL", content.url()),
    ];
    let app = TestApp::build(&env, |app| app.handler(Echo));
    app.wait_until_ready().await;
    app
}

/// Scripts a template with the one variable `1`, and its approval by WhatsApp.
fn set_approval_and_text(content: &ScriptedServer, template: &str, approval: &serde_json::Value) {
    set_approval(content, template, approval);
    set_text(content, template, "Hi {{1}}!", &json!({"1": "Jane"}));
}

fn set_approval(content: &ScriptedServer, template: &str, approval: &serde_json::Value) {
    let body = json!({"sid": template, "whatsapp": approval}).to_string();
    content.queue_response(&approval_path(template), 200, "application/json", &body);
}

/// Scripts the text of a template, with sample values of its variables.
fn set_text(content: &ScriptedServer, template: &str, text: &str, samples: &serde_json::Value) {
    let body =
        json!({"sid": template, "variables": samples, "types": {"twilio/text": {"body": text}}});
    let at = format!("/v1/Content/{template}");
    content.queue_response(&at, 200, "application/json", &body.to_string());
}

/// Runs a command that calls this Content API.
async fn run(content: &ScriptedServer, args: &[&str], database: &str) -> (i32, String, String) {
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("REPLYHOOK__CONSENT__REQUIRED", "false"),
        ("REPLYHOOK__TWILIO__CONTENT_URL", content.url()),
        ("DATABASE_URL", database),
    ];
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let env = env.map(|(name, value)| (name, value.to_owned()));
    let task = tokio::task::spawn_blocking(move || {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let env: Vec<_> = env.iter().map(|(n, v)| (*n, v.as_str())).collect();
        replyhook(&args, &env, "")
    });
    task.await.unwrap()
}

// The error names the variables; templates that cannot be read are left to Twilio.
#[tokio::test]
async fn template_with_missing_or_unknown_variable_is_rejected() {
    let content = ScriptedServer::start().await;
    let app = app_with_content(&content).await;
    let approved = json!({"status": "approved"});
    set_approval(&content, TEMPLATE, &approved);
    // Twilio would send the sample value of a missing variable.
    let samples = json!({"1": "Jane", "2": "noon", "old": "x"});
    set_text(
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
    for (variables, problem) in [
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
        let by_whatsapp =
            NewMessage::template(ANA, TEMPLATE, variables.iter().copied()).from(SENDER);
        for message in [by_whatsapp, by_sms(variables)] {
            let error = app.outbound.send(&message).await.unwrap_err();
            assert_eq!(error.kind(), SendErrorKind::WrongVariables);
            assert_eq!(error.to_string(), problem);
        }
    }
    for also in [None, Some(("old", "y"))] {
        let variables: Vec<_> = whole.into_iter().chain(also).collect();
        app.outbound.send(&by_sms(&variables)).await.unwrap();
    }
    // The text of these templates cannot be read: one has none, the other is forbidden.
    let (hidden, forbidden) = (hx(7), hx(8));
    set_approval(&content, &hidden, &approved);
    set_text(&content, &hidden, "", &json!({}));
    set_approval(&content, &forbidden, &approved);
    let at = format!("/v1/Content/{forbidden}");
    content.queue_response(&at, 403, "application/json", r#"{"code":20403}"#);
    for template in [hidden, forbidden] {
        let message = NewMessage::template(ANA, template, [("9", "Z")]).from(SENDER);
        app.outbound.send(&message).await.unwrap();
    }
}

#[tokio::test]
async fn send_command_rejects_wrong_template_variables() {
    let content = ScriptedServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("kept.db").display());
    let (code, ..) = run(&content, &["migrate"], &database).await;
    assert_eq!(code, 0);
    // Each command fetches the template again.
    for _ in 0..4 {
        set_approval(&content, TEMPLATE, &json!({"status": "approved"}));
        set_text(
            &content,
            TEMPLATE,
            "Hi {{1}}, see you at {{2}}.",
            &json!({}),
        );
    }
    let one = [
        "send",
        "--to",
        ANA,
        "--from",
        SENDER,
        "--template",
        TEMPLATE,
    ];
    for extra in [&["--wait"][..], &["--var", "1=Ana", "--dry-run"]] {
        let (code, out, err) = run(&content, &[&one[..], extra].concat(), &database).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("the template's variable"), "{err}");
    }
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, format!("to,1,2\n{ANA},Ana,12:00\n{BEN},Ben,\n")).unwrap();
    let file = file.to_str().unwrap();
    let rows = [
        "send",
        "--csv",
        file,
        "--from",
        SENDER,
        "--template",
        TEMPLATE,
    ];
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
    let content = ScriptedServer::start().await;
    let app = app_with_content(&content).await;
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
        set_approval_and_text(&content, &hx(number), approval);
        let message = NewMessage::template(ANA, hx(number), [("1", "Ana")]).from(SENDER);
        let error = app.outbound.send(&message).await.unwrap_err();
        assert_eq!(error.kind(), SendErrorKind::NotApproved);
        assert_eq!(
            error.to_string(),
            format!("WhatsApp has not approved the template: it is {shown}")
        );
    }
    // Nothing was queued.
    assert_eq!(app.outbox().await["pending"], 0);
    let missing = NewMessage::template(ANA, hx(99), [("1", "Ana")]).from(SENDER);
    let error = app.outbound.send(&missing).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::NoSuchTemplate);
    // In an open window, an unsubmitted template may be sent: lists and quick replies are never submitted.
    app.send(Webhook::message(1, "hi").with("From", BEN)).await;
    for (number, is_accepted) in [(5, true), (1, false)] {
        let message = NewMessage::template(BEN, hx(number), [("1", "Ben")]).from(SENDER);
        assert_eq!(app.outbound.send(&message).await.is_ok(), is_accepted);
    }
    // SMS templates need no approval.
    let sms = NewMessage::template("+15550001111", hx(1), [("1", "Ana")]);
    app.outbound
        .send(&sms.service(SERVICE.parse().unwrap()))
        .await
        .unwrap();
}

// If the Content API is unavailable, Twilio decides whether to send the template.
#[tokio::test]
async fn template_approval_is_cached_and_failure_allows_sending() {
    let content = ScriptedServer::start().await;
    let app = app_with_content(&content).await;
    set_approval_and_text(&content, TEMPLATE, &json!({"status": "approved"}));
    content.queue_response(&approval_path(&hx(2)), 503, "text/plain", "busy");
    let at = format!("/v1/Content/{}", hx(2));
    content.queue_response(&at, 503, "text/plain", "busy");
    for template in [TEMPLATE, &hx(2)] {
        for user in [ANA, BEN] {
            let message = NewMessage::template(user, template, [("1", "x")]).from(SENDER);
            app.outbound.send(&message).await.unwrap();
        }
        assert_eq!(content.requests_to(&approval_path(template)).len(), 1);
    }
    let request = &content.requests()[0];
    assert!(
        request.headers["authorization"]
            .to_str()
            .unwrap()
            .starts_with("Basic ")
    );
}

// WhatsApp's rule (63013) is for approved templates only, so it needs the approval first.
#[tokio::test]
async fn line_break_in_variable_is_rejected_for_approved_template_only() {
    let content = ScriptedServer::start().await;
    let app = app_with_content(&content).await;
    // In an open window.
    app.send(Webhook::message(1, "hello").with("From", BEN))
        .await;
    let statuses = ["approved", "unsubmitted"];
    for (number, status) in (1..).zip(statuses) {
        set_approval_and_text(&content, &hx(number), &json!({"status": status}));
    }
    let hidden = hx(3);
    content.queue_response(&approval_path(&hidden), 503, "text/plain", "busy");
    let at = format!("/v1/Content/{hidden}");
    content.queue_response(&at, 503, "text/plain", "busy");
    for value in ["a\nb", " ", "a     b"] {
        let send = async |to: &str, number| {
            let message = NewMessage::template(to, hx(number), [("1", value)]).from(SENDER);
            app.outbound.send(&message).await
        };
        for (to, number) in [(BEN, 1), (ANA, 1), (ANA, 3)] {
            let error = send(to, number).await.unwrap_err();
            assert_eq!(error.kind(), SendErrorKind::Invalid, "{number}");
            let text = error.to_string();
            assert!(
                text.contains("variable 1") && text.contains("63013"),
                "{text}"
            );
        }
        // The approval is unknown. An open window does not require it.
        for number in [2, 3] {
            send(BEN, number).await.unwrap();
        }
        // With a closed window, the missing approval is the reason.
        let error = send(ANA, 2).await.unwrap_err();
        assert_eq!(error.kind(), SendErrorKind::NotApproved);
    }
}

#[tokio::test]
async fn template_list_follows_pages_of_same_host() {
    let content = ScriptedServer::start().await;
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
        content.queue_response(list, 200, "application/json", body);
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
    content.clear_responses(list);
    content.queue_response(
        list,
        401,
        "application/json",
        r#"{"code":20003,"status":401}"#,
    );
    let (code, out, err) = run(&content, &["templates"], none).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("20003"), "{err}");
    // Another host gets no credentials.
    content.clear_responses(list);
    let page_with_foreign_link = page(
        &[],
        Some("https://evil.example/v1/ContentAndApprovals?Page=1".to_owned()),
    );
    content.queue_response(list, 200, "application/json", &page_with_foreign_link);
    let client = Client::new(ApiUrl::parse(content.url()).unwrap());
    let credentials = Credentials::auth_token(ACCOUNT.parse().unwrap(), Secret::new(TOKEN));
    assert!(client.contents(&credentials).list().await.is_err());
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
    assert_eq!(out, format!("{sid} order_ready en unsubmitted 1=\"42\"\n"));
    let path = format!("/v1/Content/{sid}/ApprovalRequests/whatsapp");
    let submission = json!({"name": "order_ready", "category": "UTILITY"}).to_string();
    let answer = dev.call("POST", &path, &dev.token, "application/json", &submission);
    assert_eq!(answer.status, 201, "{}", answer.body);
    let (_, out, _) = replyhook(&["templates"], &env, "");
    assert_eq!(out, format!("{sid} order_ready en approved 1=\"42\"\n"));
}
