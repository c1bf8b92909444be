//! The typing indicator: sent on WhatsApp only, and never in the way of a reply.

use replyhook::{Context, InboundMessage};

use super::ANA;
use crate::support::{ACCOUNT, ScriptedServer, TOKEN, TestApp, Webhook, base64_of, twiml_message};

const PATH: &str = "/v2/Indicators/Typing.json";

async fn bot(cx: Context, message: InboundMessage) -> String {
    cx.typing().await;
    message.body
}

#[tokio::test]
async fn typing_indicator_is_sent_only_for_whatsapp() {
    let twilio = ScriptedServer::start().await;
    twilio.queue_response(PATH, 200, "application/json", r#"{"success":true}"#);
    let env = [("REPLYHOOK__TWILIO__MESSAGING_URL", twilio.url())];
    let app = TestApp::build(&env, |app| app.handler(bot));
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let requests = twilio.requests();
    assert_eq!((requests.len(), requests[0].path.as_str()), (1, PATH));
    let sid = format!("SM{:032x}", 1);
    assert_eq!(requests[0].form.get("messageId"), Some(sid.as_str()));
    assert_eq!(requests[0].form.get("channel"), Some("whatsapp"));
    let login = base64_of(format!("{ACCOUNT}:{TOKEN}").as_bytes());
    assert_eq!(
        requests[0].headers["authorization"],
        format!("Basic {login}")
    );
    // Other channels have no typing indicator.
    let sms = Webhook::message(2, "hi")
        .with("From", &ANA[9..])
        .with("To", "+15550002222");
    assert_eq!(app.send(sms).await.twiml(), twiml_message("hi"));
    assert_eq!(twilio.requests().len(), 1);
}

#[tokio::test]
async fn typing_indicator_failure_does_not_prevent_reply() {
    let twilio = ScriptedServer::start().await;
    twilio.queue_response(PATH, 500, "text/plain", "no");
    for url in [twilio.url(), "http://127.0.0.1:9"] {
        let env = [("REPLYHOOK__TWILIO__MESSAGING_URL", url)];
        let app = TestApp::build(&env, |app| app.handler(bot));
        assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    }
    // A `Context` without a server, as in unit tests, sends no indicator.
    Context::new(1, replyhook::Timestamp::UNIX_EPOCH)
        .typing()
        .await;
}
