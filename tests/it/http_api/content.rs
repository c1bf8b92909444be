//! Content of `POST /v1/messages`: the same format as the response of a forward service.

use std::sync::{Arc, Mutex};

use replyhook::choice::Chosen;
use replyhook::{Context, InboundMessage};
use serde_json::{Value, json};

use super::{ANA, SENDER, SERVICE, TEMPLATE, WITH_CONTENT, encoded, on_both_stores};
use crate::support::Webhook;

const SMS_USER: &str = "+15550001111";
const SMS_SENDER: &str = "+15550002222";

/// Adds a user and a sender to a message.
fn to(user: &str, sender: &str, mut message: Value) -> Value {
    message["to"] = json!(user);
    message["from"] = json!(sender);
    message
}

fn question() -> Value {
    json!({
        "body": "When?", "choices": ["Today", {"id": "other", "title": "Another day"}],
        "choices_key": "day", "choices_hint": "Only the number.",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_are_asked_and_answered() {
    let answers = Arc::new(Mutex::new(Vec::<Option<Chosen>>::new()));
    let seen = answers.clone();
    on_both_stores(
        &[WITH_CONTENT],
        move |app| {
            let seen = seen.clone();
            app.handler(move |_cx: Context, message: InboundMessage| {
                seen.lock().unwrap().push(message.choice());
                std::future::ready(())
            })
        },
        async |app, api, twilio| {
            let last = || {
                let chosen = answers.lock().unwrap().last().unwrap().clone().unwrap();
                (chosen.id, chosen.via.as_str(), chosen.key)
            };
            let key = Some("day".to_owned());
            app.says(1, "hello").await;
            let asked = api.post(to(ANA, SENDER, question())).await;
            assert_eq!(asked.status(), 202, "{}", asked.http.body);
            let phone = twilio.wait_for_phone(ANA, 1);
            let content = phone[0].content.as_ref().unwrap();
            assert_eq!(content["type"], "twilio/quick-reply");
            let button = &content["fields"]["actions"][1];
            assert_eq!(button["title"], "Another day");
            let tap = Webhook::message(2, "Another day")
                .with("ButtonText", "Another day")
                .with("ButtonPayload", button["id"].as_str().unwrap())
                .with("MessageType", "interactive");
            app.send(tap).await.twiml();
            assert_eq!(last(), ("other".to_owned(), "button", key.clone()));
            // By SMS, the same question is a numbered text.
            let sms = |number, body| {
                Webhook::message(number, body)
                    .with("From", SMS_USER)
                    .with("To", SMS_SENDER)
            };
            app.send(sms(3, "hello")).await.twiml();
            assert_eq!(
                api.post(to(SMS_USER, SMS_SENDER, question()))
                    .await
                    .status(),
                202
            );
            let phone = twilio.wait_for_phone(SMS_USER, 1);
            assert_eq!(
                phone[0].body,
                "When?\n1. Today\n2. Another day\nOnly the number."
            );
            app.send(sms(4, "1")).await.twiml();
            assert_eq!(last(), ("Today".to_owned(), "number", key.clone()));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_key_covers_every_part_of_a_message() {
    on_both_stores(
        &[WITH_CONTENT],
        |app| app,
        async |app, api, twilio| {
            app.says(1, "hello").await;
            let whole = |body: &str, label: &str, file: &str| {
                let mut message = question();
                message["body"] = json!(body);
                message["media"] = json!([file]);
                message["location"] = json!({"latitude": 40.4, "longitude": -3.7, "label": label});
                to(ANA, SENDER, message)
            };
            let menu = "https://h/menu.pdf";
            let message = whole("When?", "Office", menu);
            let first = api.post_with_key("order-42", message.clone()).await;
            assert_eq!(first.status(), 202, "{}", first.http.body);
            let posts = twilio.wait_for_posts(3);
            assert_eq!(posts[0].form.get("MediaUrl"), Some(menu));
            assert_eq!(
                posts[2].form.get("PersistentAction"),
                Some("geo:40.4,-3.7|Office")
            );
            app.wait_for_outbox("pending", 0).await;
            let again = api.post_with_key("order-42", message.clone()).await;
            assert_eq!(
                (again.status(), &again.json["id"]),
                (202, &first.json["id"])
            );
            // One part differs, wherever it is.
            for other in [
                whole("Which day?", "Office", menu),
                whole("When?", "Home", menu),
                whole("When?", "Office", "https://h/other.pdf"),
                to(ANA, SENDER, question()),
            ] {
                let answer = api.post_with_key("order-42", other).await;
                answer.assert_problem(409, "key_in_use");
                assert_eq!(answer.json["id"], first.json["id"]);
            }
            // Also after Twilio has refused the question, which was then sent as a text.
            let question = twilio.phone(ANA)[1].sid.clone();
            app.send(twilio.status_webhook(&question, "undelivered", Some(63005)))
                .await
                .twiml();
            twilio.wait_for_posts(4);
            let again = api.post_with_key("order-42", message).await;
            assert_eq!(
                (again.status(), &again.json["id"]),
                (202, &first.json["id"])
            );
            app.wait_for_outbox("pending", 0).await;
            assert_eq!(twilio.posts().len(), 4);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_templates_and_long_texts_are_sent() {
    on_both_stores(
        &[WITH_CONTENT],
        |app| app,
        async |app, api, twilio| {
            app.says(1, "hello").await;
            let link = json!({"body": "Your parcel.", "content": {"link": {"title": "Track it", "url": "https://example.com/42"}}});
            assert_eq!(api.post(to(ANA, SENDER, link)).await.status(), 202);
            let phone = twilio.wait_for_phone(ANA, 1);
            let content = phone[0].content.as_ref().unwrap();
            assert_eq!(content["type"], "twilio/call-to-action");
            let sid = twilio.add_template("receipt", "es", "twilio/text", "approved");
            let named = json!({"name": "receipt", "language": "es", "variables": {"1": "Ana"}});
            let answer = api.post(to(ANA, SENDER, json!({"content": named}))).await;
            assert_eq!(answer.status(), 202, "{}", answer.http.body);
            let by_sid = json!({"sid": sid, "variables": {"1": 12}});
            let both = json!({"body": "Hello.", "content": by_sid});
            assert_eq!(api.post(to(ANA, SENDER, both)).await.status(), 202);
            let posts = twilio.wait_for_posts(4);
            assert_eq!(posts[1].form.get("ContentSid"), Some(sid.as_str()));
            assert_eq!(posts[2].form.get("Body"), Some("Hello."));
            assert_eq!(posts[3].form.get("ContentSid"), Some(sid.as_str()));
            assert_eq!(
                posts[3].form.get("ContentVariables"),
                Some(r#"{"1":"12"}"#)
            );
            let long = json!({"body": "word ".repeat(400)});
            assert_eq!(api.post(to(ANA, SENDER, long)).await.status(), 202);
            let posts = twilio.wait_for_posts(6);
            assert!(posts[4].form.get("Body").unwrap().len() > 1000);
            // Half of a character, as JavaScript cuts a text.
            let cut = format!(r#"{{"to":"{ANA}","from":"{SENDER}","body":"cut \ud83d"}}"#);
            let answer = api.post_raw(&cut).await;
            assert_eq!(answer.status(), 202, "{}", answer.http.body);
            let posts = twilio.wait_for_posts(7);
            assert_eq!(posts[6].form.get("Body"), Some("cut \u{FFFD}"));
        },
    )
    .await;
}

// A template alone may be sent outside of the window. With a text, or as a question, it may not.
#[tokio::test(flavor = "multi_thread")]
async fn content_is_checked_as_a_whole() {
    let senders = format!("{SENDER},{SMS_SENDER},{SERVICE}");
    let env = [("REPLYHOOK__OUTBOUND__SENDERS", senders.as_str())];
    on_both_stores(
        &env,
        |app| app,
        async |_, api, twilio| {
            let opted_in = json!({"sender": SENDER, "status": "opted_in"});
            let path = format!("/v1/consents/{}", encoded(ANA));
            assert_eq!(api.put(&path, opted_in).await.status(), 200);
            let template = json!({"sid": TEMPLATE, "variables": {"1": "Ana"}});
            let with_text = json!({"body": "secret text", "content": template.clone()});
            api.post(to(ANA, SENDER, with_text))
                .await
                .assert_problem(422, "window_closed");
            api.post(to(ANA, SENDER, question()))
                .await
                .assert_problem(422, "window_closed");
            let mut by_service = question();
            by_service["to"] = json!(SMS_USER);
            by_service["messaging_service_sid"] = json!(SERVICE);
            let answer = api.post(by_service).await;
            let message = answer.assert_problem(422, "invalid_message");
            assert!(message.contains("needs its sender"), "{message}");
            assert_eq!(twilio.posts().len(), 0);
            let alone = to(ANA, SENDER, json!({"content": template}));
            assert_eq!(api.post(alone).await.status(), 202);
            twilio.wait_for_posts(1);
        },
    )
    .await;
}
