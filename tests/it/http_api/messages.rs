//! `POST /v1/messages` and `GET /v1/messages/{id}`.

use std::sync::Arc;

use replyhook::clock::SignedDuration;
use replyhook::{Clock, ManualClock, SystemClock};
use serde_json::{Value, json};

use super::{ANA, Answer, BEN, Client, SENDER, SERVICE, TEMPLATE, encoded, on_both_stores};
use crate::support::{TestApp, Wait, Webhook};

fn text(body: &str) -> Value {
    json!({"to": ANA, "from": SENDER, "body": body})
}

fn template(to: &str) -> Value {
    json!({"to": to, "from": SENDER, "content": {"sid": TEMPLATE, "variables": {"1": "Ana", "2": 12}}})
}

async fn wait_for_state(api: &Client, id: i64, state: &str) -> Answer {
    let wait = Wait::until(format!("message {id} is {state}"));
    loop {
        let answer = api.get(&format!("/v1/messages/{id}")).await;
        if answer.json["state"] == state {
            return answer;
        }
        wait.check_found(&answer.json);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_message_is_queued_sent_and_shown() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, twilio| {
            app.says(1, "hello").await;
            let answer = api.post(text("Your order is ready.")).await;
            assert_eq!(answer.status(), 202, "{}", answer.http.body);
            let id = answer.json["id"].as_i64().unwrap();
            assert_eq!(answer.json, json!({"id": id, "state": "pending"}));
            let location = answer.http.header("location").unwrap().to_owned();
            assert_eq!(location, format!("/v1/messages/{id}"));
            assert_eq!(
                twilio.wait_for_phone(ANA, 1)[0].body,
                "Your order is ready."
            );
            let shown = wait_for_state(api, id, "sent").await.json;
            assert_eq!(shown["sid"], twilio.phone(ANA)[0].sid.as_str());
            assert_eq!(shown["error_code"], Value::Null);
            let sid = shown["sid"].as_str().unwrap().to_owned();
            app.send(twilio.status_webhook(&sid, "undelivered", Some(63016)))
                .await;
            let shown = wait_for_state(api, id, "failed").await.json;
            assert_eq!(shown["error_code"], 63016);
            assert!(
                shown["error_meaning"].as_str().unwrap().len() > 10,
                "{shown}"
            );
            for unknown in ["999999", "x", "-1", "1.5"] {
                let answer = api.get(&format!("/v1/messages/{unknown}")).await;
                answer.assert_problem(404, "unknown_message");
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_key_queues_one_message_and_refuses_another() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, twilio| {
            app.says(1, "hello").await;
            let answers = futures_util::future::join_all(
                (0..8).map(|_| api.post_with_key("order-42", text("ready"))),
            )
            .await;
            let ids: Vec<_> = answers
                .iter()
                .map(|answer| answer.json["id"].clone())
                .collect();
            assert!(answers.iter().all(|answer| answer.status() == 202));
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            twilio.wait_for_phone(ANA, 1);
            let other = api.post_with_key("order-42", text("something else")).await;
            other.assert_problem(409, "key_in_use");
            assert_eq!(other.json["id"], ids[0]);
            let path = format!("/v1/messages/{}", ids[0]);
            assert_eq!(other.http.header("location"), Some(path.as_str()));
            // A rejected message does not use up its key, and a repeated one is not checked again.
            let rejected = api.post_with_key("order-43", template(BEN)).await;
            rejected.assert_problem(422, "no_opt_in");
            opt(api, ANA, "opted_out").await;
            let again = api.post_with_key("order-42", text("ready")).await;
            assert_eq!((again.status(), &again.json["id"]), (202, &ids[0]));
            let headers = [("Idempotency-Key", " ")];
            let blank = api
                .call_with("POST", "/v1/messages", &headers, Some(text("x")))
                .await;
            blank.assert_problem(400, "invalid_key");
            let headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
            let double = api
                .call_with("POST", "/v1/messages", &headers, Some(text("x")))
                .await;
            double.assert_problem(400, "invalid_key");
            assert_eq!(twilio.posts().len(), 1);
        },
    )
    .await;
}

async fn opt(api: &Client, user: &str, status: &str) {
    let path = format!("/v1/consents/{}", encoded(user));
    let answer = api
        .put(
            &path,
            json!({"sender": SENDER, "status": status, "source": "form"}),
        )
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.http.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn message_that_may_not_be_sent_gets_422_with_reason() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, twilio| {
            // Another user has written, so the sender is known.
            app.send(Webhook::message(1, "hi").with("From", "whatsapp:+15550007777"))
                .await;
            api.post(text("secret text"))
                .await
                .assert_problem(422, "window_closed");
            api.post(template(ANA))
                .await
                .assert_problem(422, "no_opt_in");
            opt(api, ANA, "opted_in").await;
            assert_eq!(api.post(template(ANA)).await.status(), 202);
            // Before the opt-out, which would suppress it.
            twilio.wait_for_posts(1);
            opt(api, ANA, "opted_out").await;
            api.post(template(ANA))
                .await
                .assert_problem(422, "opted_out");
            let unknown = json!({"to": ANA, "from": "whatsapp:+15550004444", "body": "hi"});
            let answer = api.post(unknown).await;
            answer.assert_problem(422, "unknown_sender");
            let remedy = answer.json["remedy"].as_str().unwrap();
            assert!(remedy.contains("outbound.senders"), "{remedy}");
            let service =
                json!({"to": ANA, "messaging_service_sid": SERVICE, "content": {"sid": TEMPLATE}});
            api.post(service)
                .await
                .assert_problem(422, "unknown_sender");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_senders_need_no_message_and_exclude_others() {
    let env = [(
        "REPLYHOOK__OUTBOUND__SENDERS",
        "+15550003333,MG00000000000000000000000000000001",
    )];
    on_both_stores(
        &env,
        |app| app,
        async |app, api, twilio| {
            app.says(1, "hello").await;
            api.post(text("hi"))
                .await
                .assert_problem(422, "unknown_sender");
            let sms = json!({"to": "+15550001111", "from": "+15550003333", "body": "hi"});
            assert_eq!(api.post(sms).await.status(), 202);
            let service =
                json!({"to": "+15550001111", "messaging_service_sid": SERVICE, "body": "again"});
            assert_eq!(api.post(service).await.status(), 202);
            twilio.wait_for_phone("+15550001111", 2);
            let consent = json!({"sender": SENDER, "status": "opted_in"});
            let path = format!("/v1/consents/{}", encoded(ANA));
            api.put(&path, consent)
                .await
                .assert_problem(422, "unknown_sender");
        },
    )
    .await;
}

#[tokio::test]
async fn invalid_message_gets_422_with_reason() {
    let now = SystemClock.now();
    let clock = Arc::new(ManualClock::new(now));
    let env = [
        ("REPLYHOOK__ADMIN__TOKEN", crate::support::API_TOKEN),
        ("TWILIO_ACCOUNT_SID", crate::support::ACCOUNT),
        (
            "REPLYHOOK__OUTBOUND__SENDERS",
            "whatsapp:+15550002222,MG00000000000000000000000000000001",
        ),
    ];
    let app = TestApp::build(&env, |app| app.clock(clock));
    app.wait_until_ready().await;
    let api = Client::of(&app);
    app.says(1, "hello").await;
    let at = |minutes| (now + SignedDuration::from_mins(minutes)).to_string();
    for (field, value, reason) in [
        ("to", json!(5), "invalid_field"),
        ("to", Value::Null, "invalid_address"),
        ("from", Value::Null, "missing_sender"),
        ("from", json!("15550002222"), "invalid_address"),
        ("messaging_service_sid", json!("MG1"), "invalid_address"),
        (
            "account_sid",
            json!("AC00000000000000000000000000000009"),
            "unknown_account",
        ),
        ("account_sid", json!("x"), "unknown_account"),
        ("body", json!(""), "empty_message"),
        ("body", json!(7), "invalid_field"),
        ("body", json!("x".repeat(21 * 1600)), "invalid_message"),
        ("media", json!("https://h/a.png"), "invalid_field"),
        ("media", json!([5]), "invalid_field"),
        ("media", json!(["/a.png"]), "invalid_field"),
        ("media", json!(["https://h/a.txt"]), "invalid_message"),
        ("choices", json!("Today"), "invalid_field"),
        ("choices", json!(["Today", "today"]), "invalid_field"),
        ("choices", json!([{"id": "x"}]), "invalid_field"),
        ("choices_key", json!("day"), "invalid_field"),
        ("choices_button", json!("Days"), "invalid_field"),
        ("choices_hint", json!("Tap."), "invalid_field"),
        ("send_at", json!("tomorrow"), "invalid_field"),
        ("send_at", json!(at(-1)), "time_in_past"),
        ("send_at", json!(at(60)), "invalid_message"),
    ] {
        let mut message = text("secret text");
        message[field] = value;
        let answer = api.post(message).await;
        answer.assert_problem(422, reason);
    }
    for content in [
        json!({"content": {"sid": 5}}),
        json!({"content": "HX"}),
        json!({"content": {"sid": TEMPLATE, "variables": {"1": []}}}),
        json!({"content": {"sid": "HX1"}}),
        json!({"content": {"name": "receipt"}}),
        json!({"content": {"link": {"title": "Track it", "url": "/x"}}}),
        json!({"location": {"latitude": "x", "longitude": 1}}),
        json!({"location": {"latitude": 91, "longitude": 1}}),
    ] {
        let mut message = json!({"to": ANA, "from": SENDER});
        let (name, value) = content.as_object().unwrap().iter().next().unwrap();
        message[name] = value.clone();
        api.post(message).await.assert_problem(422, "invalid_field");
    }
    let past = json!({"to": ANA, "from": SENDER, "messaging_service_sid": SERVICE, "body": "x", "send_at": at(-5)});
    let answer = api.post(past).await;
    let message = answer.assert_problem(422, "time_in_past");
    assert_eq!(message, "the time in send_at has passed");
    assert_eq!(app.outbox().await["pending"], 0);
    // A location, media without a text, and a scheduled message are valid.
    for message in [
        json!({"to": ANA, "from": SENDER, "location": {"latitude": 40.4, "longitude": -3.7, "label": "Office"}}),
        json!({"to": ANA, "from": SENDER, "media": ["https://h/a.png"]}),
        json!({"to": ANA, "from": SENDER, "messaging_service_sid": SERVICE, "body": "x", "send_at": at(60)}),
    ] {
        let answer = api.post(message).await;
        assert_eq!(answer.status(), 202, "{}", answer.http.body);
    }
}

// A subaccount has its own sender. Without an account in request and settings, the account of the sender's messages sends.
#[tokio::test(flavor = "multi_thread")]
async fn account_of_request_or_sender_sends_message() {
    let subaccount = "AC00000000000000000000000000000002";
    let env = [(
        "REPLYHOOK__TWILIO__ACCOUNTS__AC00000000000000000000000000000002__AUTH_TOKEN",
        crate::support::OTHER_TOKEN,
    )];
    on_both_stores(
        &env,
        |app| app,
        async |app, api, twilio| {
            app.says(1, "hello").await;
            twilio.logins(&[(subaccount, crate::support::OTHER_TOKEN)]);
            let mut message = text("from the subaccount");
            message["account_sid"] = json!(subaccount);
            assert_eq!(api.post(message).await.status(), 202);
            let posts = twilio.wait_for_posts(1);
            assert!(
                format!("{:?}", posts[0]).contains(subaccount),
                "{:?}",
                posts[0]
            );
        },
    )
    .await;
}
