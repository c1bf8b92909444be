//! `PUT`, `GET` and `DELETE /v1/handoffs/{address}`.

use std::sync::Arc;

use replyhook::clock::SignedDuration;
use replyhook::{Clock, ManualClock, SystemClock};
use serde_json::json;

use super::{ANA, BEN, SENDER, encoded, on_both_stores};
use crate::support::{EMPTY, ORIGIN, Webhook, twiml_message};

#[tokio::test(flavor = "multi_thread")]
async fn silent_handoff_ends_by_delete_or_time_without_message() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let time = clock.clone();
    on_both_stores(
        &[],
        move |app| app.clock(time.clone()),
        async |app, api, _| {
            let path = format!("/v1/handoffs/{}", encoded(ANA));
            let silent = json!({"url": null, "ttl": "12h"});
            api.put(&path, silent.clone())
                .await
                .assert_problem(404, "no_conversation");
            assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
            api.get(&path).await.assert_problem(404, "no_handoff");
            let begun = api.put(&path, silent.clone()).await;
            assert_eq!(begun.status(), 200, "{}", begun.http.body);
            assert_eq!(begun.json["url"], json!(null));
            assert_eq!(
                (&begun.json["ttl"], &begun.json["sender"]),
                (&json!("12h"), &json!(SENDER))
            );
            let shown = api.get(&path).await;
            assert_eq!(shown.json, begun.json);
            assert_eq!(app.says(2, "hello?").await, EMPTY);
            // Other users still have the bot.
            let ben = app.send(Webhook::message(3, "hi").with("From", BEN)).await;
            assert_eq!(ben.twiml(), twiml_message("hi"));
            // Each message of the user extends it, by its own time and not by that of the settings.
            for number in 4..6 {
                clock.advance(SignedDuration::from_hours(11));
                assert_eq!(app.says(number, "hello?").await, EMPTY);
            }
            clock.advance(SignedDuration::from_hours(12));
            api.get(&path).await.assert_problem(404, "no_handoff");
            assert_eq!(app.says(6, "back").await, twiml_message("back"));
            api.put(&path, silent.clone()).await;
            assert_eq!(app.says(7, "hello?").await, EMPTY);
            assert_eq!(api.call("DELETE", &path, None).await.status(), 204);
            assert_eq!(app.says(8, "thanks").await, twiml_message("thanks"));
            assert_eq!(api.call("DELETE", &path, None).await.status(), 204);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handoff_with_url_redirects_one_senders_conversation() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, _| {
            const OTHER: &str = "whatsapp:+15550004444";
            app.says(1, "hi").await;
            app.send(Webhook::message(2, "hi").with("To", OTHER)).await;
            let path = format!("/v1/handoffs/{}", encoded(ANA));
            let begun = api
                .put(
                    &path,
                    json!({"url": "https://flow.example.test/", "sender": SENDER}),
                )
                .await;
            assert_eq!(
                (&begun.json["sender"], &begun.json["ttl"]),
                (&json!(SENDER), &json!("24h"))
            );
            assert!(
                app.says(3, "hi")
                    .await
                    .contains("<Redirect method=\"POST\">https://flow.example.test/</Redirect>")
            );
            let other = app.send(Webhook::message(4, "hi").with("To", OTHER)).await;
            assert_eq!(other.twiml(), twiml_message("hi"));
            let of_other = format!("{path}?sender={}", encoded(OTHER));
            api.get(&of_other).await.assert_problem(404, "no_handoff");
            // Without a sender, all conversations of the user; the one that ends last comes first.
            api.put(&of_other, json!({"ttl": "90m"})).await;
            let all = api.get(&path).await.json;
            assert_eq!(
                (&all["sender"], all["handoffs"].as_array().unwrap().len()),
                (&json!(SENDER), 2)
            );
            assert_eq!(api.call("DELETE", &of_other, None).await.status(), 204);
            assert_eq!(
                api.get(&path).await.json["handoffs"]
                    .as_array()
                    .unwrap()
                    .len(),
                1
            );
            assert_eq!(api.call("DELETE", &path, None).await.status(), 204);
            assert_eq!(app.says(5, "hi").await, twiml_message("hi"));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_handoff_gets_422_and_changes_nothing() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, _| {
            app.says(1, "hi").await;
            let path = format!("/v1/handoffs/{}", encoded(ANA));
            for (wrong, reason) in [
                (json!({"url": "/flow"}), "invalid_field"),
                (json!({"url": 5}), "invalid_field"),
                (json!({"url": format!("{ORIGIN}/webhook")}), "invalid_field"),
                (json!({"ttl": "24"}), "invalid_field"),
                (json!({"ttl": "0s"}), "invalid_field"),
                (json!({"ttl": "721h"}), "invalid_field"),
                (json!({"ttl": 12}), "invalid_field"),
                (json!({"sender": "+15550002222"}), "invalid_address"),
            ] {
                api.put(&path, wrong).await.assert_problem(422, reason);
            }
            assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
        },
    )
    .await;
}
