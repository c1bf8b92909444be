//! A right that the API key lacks (70051): the operator reads Twilio's own text, and other messages go on.

use std::sync::Arc;
use std::time::Duration;

use replyhook::{Clock, Echo, ManualClock, SystemClock};

use crate::support::{FakeTwilio, Fault, TempStore, TestApp, Webhook};

const SEND: &str = "Authorization Failed: principal lacks twilio/messaging/messages/create";
const OTHER: &str = "Authorization Failed: principal lacks twilio/messaging/services/read";

// A missing right for one message does not delay others: the wait is shorter than the pause of an account.
#[test]
fn missing_permission_is_shown_in_twilios_words() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let server = store.server_with(&[("REPLYHOOK__REPLY__PATH", "rest")]);
    twilio.fault(Fault::Denied(OTHER), 1);
    let (code, out, err) = store.send_text("+15550003333", &["--wait=30"]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    let reason = format!(
        "Twilio rejected it with the text \"{OTHER}\": the API key lacks a permission (70051)"
    );
    assert!(out.contains(&reason), "{out}");
    let (code, out, err) = store.send_text("+15550004444", &["--wait=30", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let shown = store.run_ok(&["messages", "show", "--outbound", "1"]);
    assert!(
        shown.contains(OTHER) && shown.contains("the API key lacks a permission (70051)"),
        "{shown}"
    );
    let list = store.run_ok(&["messages", "list", "--outbound"]);
    assert!(list.contains(OTHER), "{list}");
    server.wait_for(OTHER);
    // A reply too.
    twilio.fault(Fault::Denied(OTHER), 1);
    server.send(&Webhook::message(1, "hi")).twiml();
    store.wait_for(&["messages", "list", "--state", "failed"]);
    let shown = store.run_ok(&["messages", "show", "SM00000000000000000000000000000001"]);
    assert!(shown.contains(OTHER), "{shown}");
}

// Every message would fail, so the others wait until the key has the right.
#[tokio::test(flavor = "multi_thread")]
async fn missing_permission_to_send_pauses_account() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let settings = [("REPLYHOOK__REPLY__PATH", "rest")];
    let app = TestApp::with_twilio(&twilio, &settings, |app| app.clock(shared).handler(Echo));
    twilio.fault(Fault::Denied(SEND), 1);
    app.says(1, "one").await;
    twilio.wait_for_posts(1);
    app.wait_for_outbox("pending", 0).await;
    app.says(2, "two").await;
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    clock.advance(Duration::from_mins(1).try_into().unwrap());
    let phone = twilio.wait_for_phone("whatsapp:+15550001111", 1);
    assert_eq!(phone[0].body, "two");
}
