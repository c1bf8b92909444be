//! `PUT` and `GET /v1/consents/{address}`.

use serde_json::{Value, json};

use super::{ANA, BEN, SENDER, SERVICE, encoded, on_both_stores};
use crate::support::Webhook;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_consent_is_returned_with_its_evidence() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, _| {
            let path = format!("/v1/consents/{}", encoded(ANA));
            api.get(&path).await.assert_problem(404, "no_consent");
            let given = json!({
                "sender": SENDER, "status": "opted_in", "source": "order form", "note": "box 2",
                "evidence": "https://shop.example.com/forms/17", "at": "2026-11-20T10:00:00Z",
            });
            let put = api.put(&path, given.clone()).await;
            assert_eq!(put.status(), 200, "{}", put.http.body);
            for name in ["sender", "status", "source", "note", "evidence", "at"] {
                assert_eq!(put.json[name], given[name], "{name}");
            }
            assert_eq!(put.json["address"], ANA);
            assert_eq!(api.get(&path).await.json["consents"], json!([put.json]));
            let scoped = format!("{path}?sender={}", encoded(SENDER));
            assert_eq!(api.get(&scoped).await.json, put.json);
            let other = format!("{path}?service={SERVICE}");
            api.get(&other).await.assert_problem(404, "no_consent");
            // A repeated request adds nothing to the ledger.
            let ledger = app.store.consent_ledger(0, 99).await.unwrap().len();
            api.put(&path, given.clone()).await;
            assert_eq!(app.store.consent_ledger(0, 99).await.unwrap().len(), ledger);
            // The SID of a message is evidence that `consent export` shows too.
            let sid = format!("SM{:032x}", 7);
            let by_service = json!({"service": SERVICE, "status": "opted_out", "evidence": sid});
            let put = api.put(&path, by_service).await;
            assert_eq!(
                (&put.json["evidence"], &put.json["source"]),
                (&json!(sid), &json!("api"))
            );
            let all = api.get(&path).await.json;
            assert_eq!(
                (&all["status"], &all["service"]),
                (&json!("opted_out"), &json!(SERVICE))
            );
            assert_eq!(all["consents"].as_array().unwrap().len(), 2);
            let entry = app
                .store
                .consent_ledger(0, 99)
                .await
                .unwrap()
                .pop()
                .unwrap();
            assert_eq!(entry.record.evidence.unwrap().as_str(), sid);
        },
    )
    .await;
}

// The ledger of the address ends with the same request, but the user has changed it under the other spelling.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_counts_after_change_under_other_spelling() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, _| {
            let (named, other) = ("whatsapp:+5215512345678", "whatsapp:+525512345678");
            let path = format!("/v1/consents/{}", encoded(named));
            let put = async |status: &str| {
                let request = json!({"sender": SENDER, "status": status, "source": "form"});
                let answer = api.put(&path, request).await;
                assert_eq!(answer.json["status"], status, "{}", answer.http.body);
                app.store.consent_ledger(0, 99).await.unwrap().len()
            };
            let says = async |number, text| {
                let webhook = Webhook::message(number, text).with("From", other);
                app.send(webhook).await;
            };
            says(1, "hi").await;
            assert_eq!((put("opted_out").await, put("opted_out").await), (1, 1));
            says(2, "START").await;
            assert_eq!((put("opted_out").await, put("opted_out").await), (3, 3));
            assert_eq!((put("opted_in").await, put("opted_in").await), (4, 4));
            says(3, "STOP").await;
            assert_eq!((put("opted_in").await, put("opted_in").await), (6, 6));
        },
    )
    .await;
}

// An opt-in of last month must not end the STOP of today.
#[tokio::test(flavor = "multi_thread")]
async fn older_opt_in_does_not_end_newer_opt_out() {
    on_both_stores(&[], |app| app, async |app, api, _| {
        app.says(1, "hi").await;
        app.says(2, "STOP").await;
        let path = format!("/v1/consents/{}", encoded(ANA));
        let mut opt_in = json!({"sender": SENDER, "status": "opted_in", "source": "form", "at": "2026-01-01T00:00:00Z"});
        let answer = api.put(&path, opt_in.clone()).await;
        answer.assert_problem(422, "newer_consent");
        let shown = api.get(&path).await.json;
        assert_eq!((&shown["status"], &shown["source"]), (&json!("opted_out"), &json!("keyword")));
        assert_eq!(shown["evidence"], format!("SM{:032x}", 2));
        // Without a time the user has agreed just now.
        opt_in.as_object_mut().unwrap().remove("at");
        assert_eq!(api.put(&path, opt_in.clone()).await.json["status"], "opted_in");
        // After a further STOP, the same form is a new change.
        app.says(3, "STOP").await;
        assert_eq!(api.put(&path, opt_in.clone()).await.json["status"], "opted_in");
        let entries = app.store.consent_ledger(0, 99).await.unwrap().len();
        api.put(&path, opt_in).await;
        assert_eq!(app.store.consent_ledger(0, 99).await.unwrap().len(), entries);
    })
    .await;
}

// STOP and START without an earlier opt-in leave no consent, and still one record.
#[tokio::test(flavor = "multi_thread")]
async fn opt_out_stops_bot_and_resumed_user_has_no_status() {
    on_both_stores(
        &[],
        |app| app,
        async |app, api, _| {
            let path = format!("/v1/consents/{}", encoded(BEN));
            let from_ben = |number, body| Webhook::message(number, body).with("From", BEN);
            app.send(from_ben(1, "hi")).await;
            api.put(&path, json!({"sender": SENDER, "status": "opted_out"}))
                .await;
            let reply = app.send(from_ben(2, "hello?")).await;
            assert_eq!(reply.twiml(), crate::support::EMPTY);
            app.send(from_ben(3, "START")).await;
            let shown = api.get(&path).await.json;
            assert_eq!(
                (&shown["status"], &shown["source"]),
                (&Value::Null, &json!("keyword"))
            );
        },
    )
    .await;
}

#[tokio::test]
async fn invalid_consent_gets_422() {
    let app = crate::support::TestApp::build(
        &[("REPLYHOOK__ADMIN__TOKEN", crate::support::API_TOKEN)],
        |app| app,
    );
    app.wait_until_ready().await;
    let api = super::Client::of(&app);
    let path = format!("/v1/consents/{}", encoded(ANA));
    for (change, reason) in [
        (json!({"sender": null}), "missing_sender"),
        (json!({"service": SERVICE}), "invalid_scope"),
        (json!({"sender": "+15550002222"}), "invalid_address"),
        (json!({"sender": 5}), "invalid_field"),
        (json!({"sender": null, "service": "MG1"}), "invalid_address"),
        (json!({"status": null}), "invalid_field"),
        (json!({"status": "yes"}), "invalid_field"),
        (json!({"source": "x".repeat(201)}), "invalid_field"),
        (json!({"note": ["x"]}), "invalid_field"),
        (json!({"at": "yesterday"}), "invalid_field"),
        (json!({"at": "2099-01-01T00:00:00Z"}), "time_in_future"),
    ] {
        let mut consent = json!({"sender": SENDER, "status": "opted_in"});
        for (name, value) in change.as_object().unwrap() {
            consent[name] = value.clone();
        }
        api.put(&path, consent).await.assert_problem(422, reason);
    }
    assert!(app.store.consent_ledger(0, 9).await.unwrap().is_empty());
}
