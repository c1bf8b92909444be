//! Templates of replies and outbound messages against the emulator: refused before the call if WhatsApp would refuse them.

use replyhook::outbound::SendErrorKind;
use replyhook::testing::TestBot;
use replyhook::twilio::NewMessage;
use replyhook::{App, Context, InboundMessage, ReplyMessage};
use serde_json::{Value, json};

use crate::support::{base64_of, wire};

/// Replies with the template that the user names.
fn bot(_cx: Context, message: InboundMessage) -> std::future::Ready<ReplyMessage> {
    std::future::ready(ReplyMessage::content(message.body))
}

/// Creates a resource at the emulator of a bot, and returns its SID.
async fn create(bot: &TestBot, kind: &str, fields: &Value, is_approved: bool) -> String {
    let types = json!({kind: fields, "twilio/text": {"body": "text"}});
    create_types(bot, &types, is_approved).await
}

/// As [`create`], with these types alone.
async fn create_types(bot: &TestBot, types: &Value, is_approved: bool) -> String {
    let config = bot.emulator_client().get(&["config"]).await.unwrap();
    let text = |key: &str| config[key].as_str().unwrap().to_owned();
    let login = base64_of(format!("{}:{}", text("account_sid"), text("auth_token")).as_bytes());
    let url = bot.emulator_client().url().to_owned();
    let call = async |path: String, body: Value| -> Value {
        let (login, host) = (
            login.clone(),
            url.strip_prefix("http://").unwrap().to_owned(),
        );
        let body = body.to_string();
        let call = tokio::task::spawn_blocking(move || {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            wire::exchange(host.parse().unwrap(), request.as_bytes()).unwrap()
        });
        let response = call.await.unwrap();
        assert_eq!(response.status, 201, "{}", response.body);
        serde_json::from_str(&response.body).unwrap()
    };
    let content = json!({"friendly_name": "x", "language": "en", "types": types});
    let created = call("/v1/Content".to_owned(), content).await;
    let sid = created["sid"].as_str().unwrap().to_owned();
    if is_approved {
        let path = format!("/v1/Content/{sid}/ApprovalRequests/whatsapp");
        call(path, json!({"name": "x", "category": "UTILITY"})).await;
    }
    sid
}

fn carousel() -> Value {
    let action = json!({"type": "URL", "title": "Open", "url": "https://shop.example/1"});
    let card = |title: &str| json!({"title": title, "body": "b", "media": "https://shop.example/a.png", "actions": [action]});
    json!({"body": "Two", "cards": [card("A"), card("B")]})
}

fn quick_replies(number: usize) -> Value {
    let action = |number: usize| json!({"type": "QUICK_REPLY", "title": format!("Title {number}"), "id": format!("{number}")});
    json!({"body": "When?", "actions": (0..number).map(action).collect::<Vec<_>>()})
}

/// Number of messages to a user that Twilio has accepted, failed ones included.
async fn accepted(bot: &TestBot, user: &str) -> usize {
    let conversation = bot.emulator_client().get(&["conversations", user]).await;
    let conversation = conversation.unwrap();
    let messages = conversation.as_array().unwrap().iter();
    messages
        .filter(|message| message["direction"] == "out")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn template_that_needs_approval_is_refused_within_the_window() {
    let test = TestBot::start(|| App::builder().handler(bot)).await;
    let ana = test.whatsapp("+34600000001");
    let reply = json!({"body": "When?", "button": "Days", "items": [{"item": "Today", "id": "t", "description": "d"}]});
    let link = json!({"body": "x", "actions": [{"type": "PHONE_NUMBER", "title": "Call", "phone": "+15550001111"}]});
    for (kind, fields, is_approved, reason) in [
        ("twilio/list-picker", &reply, false, None),
        ("twilio/quick-reply", &quick_replies(3), false, None),
        (
            "twilio/quick-reply",
            &quick_replies(4),
            false,
            Some("more than 3 quick replies"),
        ),
        ("twilio/quick-reply", &quick_replies(4), true, None),
        (
            "twilio/call-to-action",
            &link,
            false,
            Some("calls a number"),
        ),
        (
            "twilio/carousel",
            &carousel(),
            false,
            Some("a carousel needs"),
        ),
    ] {
        let sid = create(&test, kind, fields, is_approved).await;
        let before = accepted(&test, ana.address()).await;
        let exchange = ana.says(&sid).await;
        let message = NewMessage::template(ana.address(), &sid, [("", ""); 0]).from(ana.sender());
        let outbound = test.outbound().await;
        let sent = outbound.send(&message).await;
        match reason {
            None => {
                assert_eq!(exchange.received.len(), 1, "{kind}");
                test.send_result(&sent.unwrap()).await.assert_delivered();
            }
            Some(reason) => {
                exchange.assert_no_reply();
                assert_eq!(accepted(&test, ana.address()).await, before, "{kind}");
                let error = sent.unwrap_err();
                assert_eq!(error.kind(), SendErrorKind::NotApproved);
                assert!(error.to_string().contains(reason), "{error}");
            }
        }
    }
}

// A channel that has no type of the template would get nothing: refused in replies and in outbound messages.
#[tokio::test(flavor = "multi_thread")]
async fn template_that_a_channel_cannot_show_is_refused() {
    let test = TestBot::start(|| App::builder().handler(bot)).await;
    let list = json!({"body": "When?", "button": "Days", "items": [{"item": "Today", "id": "t", "description": "d"}]});
    let place = json!({"latitude": 40.4, "longitude": -3.7, "label": "Office"});
    let picture = json!({"media": ["https://shop.example/a.webp"], "body": "Look"});
    let with_text = json!({"twilio/list-picker": list, "twilio/text": {"body": "When?"}});
    let users = [
        ("whatsapp:+34600000001", "WhatsApp"),
        ("+34600000002", "SMS"),
        ("rcs:+34600000003", "RCS"),
        ("messenger:34600000004", "Messenger"),
    ];
    for (types, shown_on) in [
        (json!({"twilio/list-picker": list}), &["WhatsApp"][..]),
        (json!({"twilio/location": place}), &["WhatsApp"]),
        (
            json!({"twilio/quick-reply": quick_replies(2)}),
            &["WhatsApp", "Messenger"],
        ),
        (
            json!({"twilio/card": {"title": "A", "body": "b"}}),
            &["WhatsApp", "RCS", "Messenger"],
        ),
        (json!({"twilio/media": picture}), &["WhatsApp", "Messenger"]),
        (with_text, &["WhatsApp", "SMS", "RCS", "Messenger"]),
    ] {
        let sid = create_types(&test, &types, false).await;
        for (address, channel) in users {
            let user = test.user(address);
            let before = accepted(&test, address).await;
            let exchange = user.says(&sid).await;
            let message = NewMessage::template(address, &sid, [("", ""); 0]).from(user.sender());
            let sent = test.outbound().await.send(&message).await;
            if shown_on.contains(&channel) {
                assert_eq!(exchange.received.len(), 1, "{types} on {channel}");
                let sent = test.send_result(&sent.unwrap()).await;
                sent.assert_delivered();
                continue;
            }
            exchange.assert_no_reply();
            assert_eq!(
                accepted(&test, address).await,
                before,
                "{types} on {channel}"
            );
            let error = sent.unwrap_err();
            assert_eq!(error.kind(), SendErrorKind::Invalid, "{types} on {channel}");
            let reason = error.to_string();
            let is_named = reason.starts_with(channel) || reason.contains("the type of a file");
            assert!(is_named, "{reason}");
        }
    }
}
