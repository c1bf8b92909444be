//! Status callbacks: parsed, passed to the `on_status` hook, and acknowledged even if the hook panics.

use std::sync::{Arc, Mutex};

use replyhook::{MessageStatus, StatusUpdate};

use crate::support::{ACCOUNT, EMPTY, TestApp, Webhook};

fn callback(status: &str) -> Webhook {
    Webhook::form(
        "/webhook/status",
        &[
            ("MessageSid", "MM00000000000000000000000000000015"),
            ("SmsSid", "MM00000000000000000000000000000015"),
            ("AccountSid", ACCOUNT),
            ("MessageStatus", status),
            ("SmsStatus", status),
            ("From", "whatsapp:+15550002222"),
            ("To", "whatsapp:+15550001111"),
            ("ChannelPrefix", "whatsapp"),
            ("ChannelInstallSid", "XE00000000000000000000000000000001"),
            ("ChannelToAddress", "+1555000XXXX"),
            ("StructuredMessage", "false"),
            ("ApiVersion", "2010-04-01"),
        ],
    )
}

#[tokio::test]
async fn status_callback_is_parsed_and_passed_to_hook() {
    let updates: Arc<Mutex<Vec<StatusUpdate>>> = Arc::default();
    let recorder = updates.clone();
    let app = TestApp::build(&[], |app| {
        app.on_status(move |update| {
            recorder.lock().unwrap().push(update);
            async {}
        })
    });
    assert_eq!(app.send(callback("sent")).await.twiml(), EMPTY);
    let failed = callback("undelivered")
        .with("ErrorCode", "63016")
        .with("ErrorMessage", "x")
        .with("EventType", "UNDELIVERED");
    assert_eq!(app.send(failed).await.twiml(), EMPTY);
    assert_eq!(app.send(callback("teleported")).await.twiml(), EMPTY);
    let updates = std::mem::take(&mut *updates.lock().unwrap());
    assert_eq!(updates[0].status, MessageStatus::Sent);
    assert_eq!(
        (
            updates[0].structured_message,
            updates[0].channel_prefix.as_deref()
        ),
        (Some(false), Some("whatsapp"))
    );
    assert_eq!(
        updates[0].channel_install_sid.unwrap().as_str(),
        "XE00000000000000000000000000000001"
    );
    assert_eq!(
        (
            updates[1].status.is_failure(),
            updates[1].error_code.unwrap().0
        ),
        (true, 63016)
    );
    assert_eq!(
        updates[1].error_code.unwrap().meaning(),
        Some("free-form text outside the 24-hour window: use a template")
    );
    assert_eq!(updates[2].status, MessageStatus::Other("teleported".into()));
    assert_eq!(updates[2].status.rank(), None);
    for (status, count) in [("sent", 1.0), ("undelivered", 1.0), ("other", 1.0)] {
        assert_eq!(
            app.metric(&format!(
                r#"replyhook_status_updates_total{{status="{status}"}}"#
            ))
            .await,
            count
        );
    }
}

#[tokio::test]
async fn status_callback_with_panicking_hook_is_acknowledged() {
    let app = TestApp::build(&[], |app| {
        app.on_status(|_| async { panic!("in the hook") })
    });
    assert_eq!(app.send(callback("read")).await.twiml(), EMPTY);
    let app = TestApp::build(&[], |app| {
        app.on_status(|update| {
            assert_eq!(update.status.as_str(), "never", "before the future");
            async {}
        })
    });
    assert_eq!(app.send(callback("read")).await.twiml(), EMPTY);
}

#[tokio::test]
async fn invalid_status_callback_is_rejected() {
    let app = TestApp::echo();
    app.send(callback("sent").without("MessageStatus"))
        .await
        .assert_rejected(400);
    app.send(callback("sent").with("MessageSid", "SM1"))
        .await
        .assert_rejected(400);
    app.send(callback("sent").also("MessageStatus", "read"))
        .await
        .assert_rejected(400);
    app.send(callback("sent").signature(""))
        .await
        .assert_rejected(403);
}
