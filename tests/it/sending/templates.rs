//! Templates: whether WhatsApp has approved them is looked at before one is sent.

use replyhook::sending::SendErrorKind;
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

fn says(content: &Scripted, template: &str, approval: &serde_json::Value) {
    let body = json!({"sid": template, "whatsapp": approval}).to_string();
    content.answers(&path(template), 200, "application/json", &body);
}

#[tokio::test]
async fn a_template_that_is_not_approved_is_refused_with_the_reason() {
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
    // Nobody was asked to send anything.
    assert_eq!(app.outbox().await["pending"], 0);
    let missing = NewMessage::template(ANA, hx(99), [("1", "Ana")]).from(US);
    let error = app.sender.send(&missing).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::NoSuchTemplate);
    // Lists and quick replies are never submitted, and are for an open window.
    app.send(Webhook::message(1, "hi").with("From", BEN)).await;
    for (number, taken) in [(5, true), (1, false)] {
        let message = NewMessage::template(BEN, hx(number), [("1", "Ben")]).from(US);
        assert_eq!(app.sender.send(&message).await.is_ok(), taken);
    }
    // Only WhatsApp approves.
    let sms = NewMessage::template("+15550001111", hx(1), [("1", "Ana")]);
    app.sender
        .send(&sms.service(SERVICE.parse().unwrap()))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_approval_is_asked_for_once_and_where_nobody_answers_twilio_decides() {
    let content = Scripted::start().await;
    let app = beside(&content).await;
    says(&content, TEMPLATE, &json!({"status": "approved"}));
    content.answers(&path(&hx(2)), 503, "text/plain", "busy");
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
async fn templates_are_listed_over_all_pages_of_their_own_host() {
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
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("REPLYHOOK__TWILIO__CONTENT_URL", content.url()),
    ];
    let run = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env: Vec<(String, String)> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        tokio::task::spawn_blocking(move || {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let env: Vec<_> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            replyhook(&args, &env, "")
        })
    };
    let (code, out, err) = run(&["templates"]).await.unwrap();
    let (offer, welcome) = (hx(1), hx(2));
    let expected = format!(
        "{offer} offer en rejected (SPAM) 1=\"Ana\" 2=\"7\"\n{welcome} welcome en approved 1=\"Ana\" 2=\"7\"\n"
    );
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, expected.as_str(), "")
    );
    let (code, out, _) = run(&["templates", "--json"]).await.unwrap();
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
    let (code, out, err) = run(&["templates"]).await.unwrap();
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
fn at_the_desk_templates_are_the_emulators() {
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
