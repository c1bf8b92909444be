//! The emulator's phone and REST API: media, consent, window and statuses.

use std::time::Duration;

use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage, RestError};
use serde_json::{Value, json};

use crate::support::open_window;

use super::{ANA, BEN, Bench, SMS, WHATSAPP, attempts, bodies};

/// Header of a PNG file of one pixel.
const PIXEL: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0,
    1, 0, 0, 0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89,
];

impl Bench {
    async fn send(&self, message: NewMessage) -> Result<replyhook::twilio::Message, RestError> {
        let client = Client::new(ApiUrl::parse(self.emulator.url()).unwrap());
        let account = self.emulator.account_sid();
        let credentials = Credentials::auth_token(account, self.emulator.auth_token().clone());
        client
            .messages(account, &credentials)
            .create(&message, &open_window())
            .await
    }

    async fn text(&self, to: &str, from: &str, body: &str) -> Result<String, Option<u32>> {
        let sent = self.send(NewMessage::text(to, body).from(from)).await;
        sent.map(|message| message.sid.to_string())
            .map_err(|error| error.code().map(|code| code.0))
    }

    /// Sends a GET request without following redirects, like a bot that fetches media.
    async fn get(&self, url: &str, login: Option<(&str, &str)>) -> reqwest::Response {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let mut request = client.get(url);
        if let Some((user, password)) = login {
            request = request.basic_auth(user, Some(password));
        }
        request.send().await.unwrap()
    }
}

// An authenticated request is redirected to a signed link, which expires after four hours.
#[tokio::test]
async fn inbound_media_requires_login_and_signed_link() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    let data = crate::support::base64_of(PIXEL);
    let media = json!([{"data": data, "content_type": "image/png", "filename": "p.png"}]);
    let answer = bench
        .send_message(json!({"from": ANA, "to": WHATSAPP, "media": media}))
        .await;
    assert!(answer["message_sid"].as_str().unwrap().starts_with("MM"));
    let form = bench.server.requests().remove(0).form;
    assert_eq!(form.get("NumMedia"), Some("1"));
    assert_eq!(form.get("MediaContentType0"), Some("image/png"));
    assert_eq!(form.get("MessageType"), Some("image"));
    let url = form.get("MediaUrl0").unwrap();
    assert!(url.starts_with(bench.emulator.url()), "{url}");

    let (account, token) = (bench.emulator.account_sid(), bench.emulator.auth_token());
    let login = Some((account.as_str(), token.expose()));
    assert_eq!(bench.get(url, None).await.status(), 401);
    assert_eq!(
        bench
            .get(url, Some((account.as_str(), "wrong")))
            .await
            .status(),
        401
    );
    bench.set_faults(json!({"media_404": 1})).await;
    assert_eq!(bench.get(url, login).await.status(), 404);
    let redirect = bench.get(url, login).await;
    assert_eq!(redirect.status(), 307);
    let link = redirect.headers()["location"].to_str().unwrap().to_owned();
    let file = bench.get(&link, None).await;
    assert_eq!(file.headers()["content-type"], "image/png");
    assert_eq!(file.bytes().await.unwrap(), PIXEL);
    assert_eq!(
        bench
            .get(&link.replace("signature=", "signature=x"), None)
            .await
            .status(),
        403
    );
    bench
        .remote
        .post(&["clock"], &json!({"advance_seconds": 4 * 3600 + 1}))
        .await
        .unwrap();
    assert_eq!(
        bench.get(&link, None).await.status(),
        403,
        "a link expires after four hours"
    );
}

#[tokio::test]
async fn reply_media_is_fetched_and_missing_file_fails() {
    let bench = Bench::new().await;
    let png = vec![("content-type", "image/png".to_owned())];
    bench.server.script("/a.png", (200, png, PIXEL.to_vec()));
    bench.server.queue_twiml(
        "/sms",
        "<Message><Body>Look</Body><Media>/a.png</Media></Message>\
         <Message><Media>/missing.png</Media></Message>",
    );
    let answer = bench.says("hi").await;
    assert_eq!(bodies(&answer), ["Look"]);
    let media = &answer["messages"][0]["media"][0];
    assert_eq!(media["content_type"], "image/png");
    assert_eq!(media["url"], format!("{}/a.png", bench.server.url()));
    let src = format!("{}{}", bench.emulator.url(), media["src"].as_str().unwrap());
    assert_eq!(bench.get(&src, None).await.bytes().await.unwrap(), PIXEL);
    bench
        .wait_for_message(ANA, |message| message["error_code"] == 63019)
        .await;
    assert_eq!(bench.debugger_codes().await, [63019]);
}

// As Twilio does, the emulator confirms the opt-out itself, and rejects the bot's messages with 21610 until START.
#[tokio::test]
async fn sms_stop_is_confirmed_and_blocks_outbound() {
    let bench = Bench::new().await;
    bench
        .server
        .queue_twiml("/sms", "<Message>from the bot</Message>");
    let stop = json!({"from": BEN, "to": SMS, "body": " Stop "});
    let answer = bench.send_message(stop.clone()).await;
    assert_eq!(
        attempts(&answer)[0].1,
        Some(200),
        "Twilio calls the webhook for STOP, too"
    );
    assert_eq!(bench.server.requests()[0].form.get("OptOutType"), None);
    let [confirmation] = bodies(&answer)[..] else {
        panic!("{answer}")
    };
    assert!(confirmation.contains("unsubscribed"), "{confirmation}");
    assert_eq!(bench.debugger_codes().await, [21610]);
    assert_eq!(bench.text(BEN, SMS, "news").await, Err(Some(21610)));

    bench
        .send_message(json!({"from": BEN, "to": SMS, "body": "START"}))
        .await;
    assert!(bench.text(BEN, SMS, "news").await.is_ok());
}

// On WhatsApp, Twilio does not handle STOP, so the emulator delivers it like any message and blocks nothing.
#[tokio::test]
async fn whatsapp_stop_is_left_to_bot() {
    let bench = Bench::new().await;
    bench
        .server
        .queue_twiml("/sms", "<Message>from the bot</Message>");
    assert_eq!(bodies(&bench.says("STOP").await), ["from the bot"]);
    assert!(bench.text(ANA, WHATSAPP, "news").await.is_ok());
}

// Twilio accepts a free-form message outside the window and reports 63016 later; the user's next message reopens the
// window.
#[tokio::test]
async fn closed_window_fails_text_but_not_template() {
    let bench = Bench::with("", |options| {
        let origin = options.webhook.trim_end_matches("/sms").to_owned();
        options.status_callback = Some(format!("{origin}/status"));
    })
    .await;
    bench.server.queue_twiml("/sms", "");
    bench.server.queue_response("/status", 204, "", "");
    bench.says("hi").await;
    let advance = json!({"advance_seconds": 25 * 3600});
    bench.remote.post(&["clock"], &advance).await.unwrap();
    let sid = bench.text(ANA, WHATSAPP, "news").await.unwrap();
    let failed = bench
        .wait_for_message(ANA, |message| {
            message["sid"] == sid.as_str() && message["status"] == "failed"
        })
        .await;
    assert_eq!(failed["error_code"], 63016);
    let content = format!("HX{}", "1".repeat(32));
    let values = [("1".to_owned(), "Ana".to_owned())];
    let template = NewMessage::template(ANA, content, values).from(WHATSAPP);
    let sent = bench.send(template).await.unwrap().sid.to_string();
    bench
        .wait_for_message(ANA, |message| {
            message["sid"] == sent.as_str() && message["status"] == "read"
        })
        .await;
    let callbacks: Vec<_> = bench
        .server
        .requests_to("/status")
        .into_iter()
        .filter(|request| request.form.get("MessageSid") == Some(&sid))
        .collect();
    assert_eq!(callbacks.len(), 1);
    for (name, value) in [
        ("MessageStatus", "failed"),
        ("ErrorCode", "63016"),
        ("ChannelPrefix", "whatsapp"),
    ] {
        assert_eq!(callbacks[0].form.get(name), Some(value), "{name}");
    }
    bench.says("I am back").await;
    let sid = bench.text(ANA, WHATSAPP, "hello").await.unwrap();
    bench
        .wait_for_message(ANA, |message| {
            message["sid"] == sid.as_str() && message["status"] == "read"
        })
        .await;
}

async fn received_statuses(bench: &Bench, to: &str, from: &str, last: &str) -> Vec<String> {
    let callback = format!("{}/status", bench.server.url());
    let before = bench.server.requests_to("/status").len();
    let message = NewMessage::text(to, "news")
        .from(from)
        .status_callback(callback);
    bench.send(message).await.unwrap();
    let callbacks = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let requests = bench.server.requests_to("/status");
            let statuses: Vec<String> = requests[before..]
                .iter()
                .map(|request| request.form.get("MessageStatus").unwrap().to_owned())
                .collect();
            if statuses.len() == 3 || statuses.iter().any(|status| status == last) {
                return statuses;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    callbacks.await.expect("no callbacks")
}

#[tokio::test]
async fn status_callbacks_arrive_in_order_unless_reordered() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    bench.server.queue_response("/status", 204, "", "");
    bench.says("hi").await;
    assert_eq!(
        received_statuses(&bench, ANA, WHATSAPP, "read").await,
        ["sent", "delivered", "read"]
    );
    assert_eq!(
        received_statuses(&bench, BEN, SMS, "delivered").await,
        ["sent", "delivered"]
    );
    bench.set_faults(json!({"reorder_status": true})).await;
    assert_eq!(
        received_statuses(&bench, ANA, WHATSAPP, "sent").await,
        ["read", "delivered", "sent"]
    );
}

// The fragment of the URL sets the retries; its password is sent only on request and appears in no control response.
#[tokio::test]
async fn status_callback_retries_per_url_and_hides_password() {
    let bench = Bench::with("", |options| {
        let origin = options.webhook.trim_end_matches("/sms").to_owned();
        let origin = origin.replace("http://", "http://bob:s3cret@");
        options.status_callback = Some(format!("{origin}/status#rc=2&rp=5xx"));
    })
    .await;
    bench.server.queue_twiml("/sms", "<Message>hi</Message>");
    bench.server.queue_response("/status", 503, "", "");
    bench.server.queue_response("/status", 503, "", "");
    let auth_headers = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    bench
        .server
        .script("/status", (401, auth_headers, Vec::new()));
    bench.server.queue_response("/status", 204, "", "");
    bench.says("hello").await;
    bench
        .wait_for_message(ANA, |message| message["status"] == "read")
        .await;
    let callbacks = tokio::time::timeout(Duration::from_secs(20), async {
        while bench.server.requests_to("/status").len() < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    callbacks
        .await
        .expect("six calls: two that failed, one without a password, three statuses");
    let requests = bench.server.requests_to("/status");
    let statuses: Vec<_> = requests
        .iter()
        .map(|request| request.form.get("MessageStatus").unwrap())
        .collect();
    assert_eq!(
        statuses,
        ["sent", "sent", "sent", "sent", "delivered", "read"]
    );
    assert!(!requests[0].headers.contains_key("authorization"));
    assert_eq!(
        requests[3].headers["authorization"],
        "Basic Ym9iOnMzY3JldA=="
    );
    assert!(
        requests[0].headers["host"]
            .to_str()
            .unwrap()
            .starts_with("127.0.0.1")
    );
    for path in ["config", "exchanges", "debugger"] {
        let shown = bench.remote.get(&[path]).await.unwrap().to_string();
        assert!(!shown.contains("s3cret"), "{path}: {shown}");
    }
}

#[tokio::test]
async fn message_to_business_scoped_id_reaches_users_phone() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    bench.says("hi").await;
    let form = bench.server.requests().remove(0).form;
    let id = form.get("ExternalUserId").unwrap();
    let sid = bench.text(id, WHATSAPP, "by your id").await.unwrap();
    bench
        .wait_for_message(ANA, |message| {
            message["sid"] == sid.as_str() && message["status"] == "read"
        })
        .await;
}

// Invalid messages get Twilio's error codes, and the rest_error fault fails the configured number of calls.
#[tokio::test]
async fn rest_api_rejects_invalid_messages_and_injects_errors() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    bench.says("hi").await;
    for (to, from, body, code) in [
        ("whatsapp:nobody", WHATSAPP, "x", 21211),
        (ANA, SMS, "x", 21910),
        (ANA, "whatsapp:+19990000000", "x", 63007),
        (BEN, "+19990000000", "x", 21606),
        (BEN, SMS, "", 21619),
        (BEN, SMS, &"x".repeat(1601), 21617),
    ] {
        assert_eq!(
            bench.text(to, from, body).await,
            Err(Some(code)),
            "{to} {from}"
        );
    }
    let file = |n: u32| format!("{}/{n}.png", bench.server.url());
    let two = NewMessage::text(ANA, "x").from(WHATSAPP);
    let two = bench.send(two.media(file(1)).media(file(2))).await;
    assert_eq!(two.unwrap_err().code().map(|code| code.0), Some(21623));
    let unreachable = NewMessage::text(ANA, "x").from(WHATSAPP);
    let unreachable = unreachable.status_callback("http://a_b.example.com/status");
    let rejected = bench.send(unreachable).await.unwrap_err();
    assert_eq!(rejected.code().map(|code| code.0), Some(21609));
    let fault = json!({"rest_error": {"status": 400, "code": 21611, "times": 2}});
    bench.set_faults(fault).await;
    assert_eq!(bench.text(ANA, WHATSAPP, "x").await, Err(Some(21611)));
    assert_eq!(bench.text(ANA, WHATSAPP, "x").await, Err(Some(21611)));
    assert!(bench.text(ANA, WHATSAPP, "x").await.is_ok());
}

// A burst of seventeen replies is reported once as 14107, and each reply is still delivered.
#[tokio::test]
async fn reply_loop_is_reported_and_continues() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>again</Message>");
    for _ in 0..17 {
        assert_eq!(bodies(&bench.says("again").await), ["again"]);
    }
    assert_eq!(bench.debugger_codes().await, [14107]);
}

#[tokio::test]
async fn message_resource_matches_twilio_schema() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    bench.says("hi").await;
    let (account, token) = (bench.emulator.account_sid(), bench.emulator.auth_token());
    let url = format!(
        "{}/2010-04-01/Accounts/{account}/Messages.json",
        bench.emulator.url()
    );
    let list = bench
        .get(&url, Some((account.as_str(), token.expose())))
        .await;
    let list: Value = serde_json::from_str(&list.text().await.unwrap()).unwrap();
    let mut fields: Vec<_> = list["messages"][0]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    fields.sort();
    let schema = [
        "account_sid",
        "api_version",
        "body",
        "date_created",
        "date_sent",
        "date_updated",
        "direction",
        "error_code",
        "error_message",
        "from",
        "messaging_service_sid",
        "num_media",
        "num_segments",
        "price",
        "price_unit",
        "sid",
        "status",
        "subresource_uris",
        "to",
        "uri",
    ];
    assert_eq!(fields, schema);
}
