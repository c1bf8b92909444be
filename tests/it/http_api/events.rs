//! Events of the changes that clients of the API make.

use serde_json::{Value, json};

use super::{ANA, SENDER, encoded, on_both_stores};
use crate::support::{Description, ScriptedServer, Wait};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// Waits for a number of events, and returns those from `first` on.
async fn events_from(service: &ScriptedServer, first: usize, number: usize) -> Vec<Value> {
    let wait = Wait::until(format!("the service got {number} events"));
    loop {
        let requests = service.requests_to("/events").split_off(first);
        if requests.len() >= number {
            let events = requests.iter().map(|request| {
                let event: Value = serde_json::from_slice(&request.body).unwrap();
                Description::current().check_webhook(event["type"].as_str().unwrap(), &event);
                event
            });
            return events.collect();
        }
        wait.check_found(&requests.len());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_the_api_are_events_in_order() {
    let service = ScriptedServer::start().await;
    service.queue_response("/events", 204, "", "");
    let url = format!("{}/events", service.url());
    let env = [
        ("REPLYHOOK__HANDLER__EVENTS_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
    ];
    on_both_stores(
        &env,
        |app| app,
        async |app, api, twilio| {
            // The service has the events of both stores.
            let first = service.requests_to("/events").len();
            app.says(1, "hi").await;
            let consent = format!("/v1/consents/{}", encoded(ANA));
            let agreed =
                json!({"sender": SENDER, "status": "opted_in", "source": "form", "note": "box 3"});
            assert_eq!(api.put(&consent, agreed.clone()).await.status(), 200);
            // Repeated, so nothing changes.
            assert_eq!(api.put(&consent, agreed).await.status(), 200);
            let handoff = format!("/v1/handoffs/{}", encoded(ANA));
            let begun = api.put(&handoff, json!({"url": null, "ttl": "12h"})).await;
            assert_eq!(begun.status(), 200, "{}", begun.http.body);
            app.says(2, "anyone?").await;
            assert_eq!(api.call("DELETE", &handoff, None).await.status(), 204);
            // Nothing ends.
            assert_eq!(api.call("DELETE", &handoff, None).await.status(), 204);
            let refused = json!({"sender": SENDER, "status": "opted_out"});
            assert_eq!(api.put(&consent, refused).await.status(), 200);
            let events = events_from(&service, first, 5).await;
            let types: Vec<_> = events
                .iter()
                .map(|event| event["type"].as_str().unwrap())
                .collect();
            let expected = [
                "consent.changed",
                "handoff.started",
                "message.received",
                "handoff.ended",
                "consent.changed",
            ];
            assert_eq!(types, expected);
            let data: Vec<_> = events.iter().map(|event| &event["data"]).collect();
            for (data, status, note) in [
                (data[0], "opted_in", json!("box 3")),
                (data[4], "opted_out", Value::Null),
            ] {
                assert_eq!(
                    (&data["address"], &data["sender"]),
                    (&json!(ANA), &json!(SENDER))
                );
                assert_eq!(
                    (&data["status"], &data["source"]),
                    (&json!(status), &json!("api"))
                );
                assert_eq!(data["note"], note);
            }
            assert_eq!(
                (&data[1]["url"], &data[1]["reason"]),
                (&Value::Null, &json!("request"))
            );
            assert_eq!(data[1]["until"], begun.json["until"]);
            assert_eq!(data[2]["body"], "anyone?");
            assert_eq!(data[3]["reason"], "request");
            assert_eq!(twilio.posts().len(), 0);
        },
    )
    .await;
}
