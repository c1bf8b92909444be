//! The description of the API: `GET /v1/openapi.json`.

use std::collections::BTreeSet;

use crate::support::Description;

#[test]
fn description_is_openapi_31_with_valid_references() {
    let description = Description::current();
    let json = description.json();
    assert!(json["openapi"].as_str().unwrap().starts_with("3.1."));
    let problems = description.problems();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let webhooks: Vec<_> = json["webhooks"].as_object().unwrap().keys().collect();
    let mut events = [
        "message",
        "message.received",
        "message.status",
        "message.failed",
        "consent.changed",
        "handoff.started",
        "handoff.ended",
    ];
    events.sort_unstable();
    let mut found: Vec<_> = webhooks.iter().map(|name| name.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, events);
    let mut ids = BTreeSet::new();
    for group in ["paths", "webhooks"] {
        for (path, item) in json[group].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} is used twice");
                assert!(
                    !operation["responses"].as_object().unwrap().is_empty(),
                    "{method} {path}"
                );
            }
        }
    }
}
