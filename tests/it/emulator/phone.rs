//! The emulator's phone and REST API: media, consent, window and statuses.

use std::time::Duration;

use replyhook::emulator::EventStream;
use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage, RestError};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

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

    /// Calls Twilio's REST API with a path of the account's resources, such as `Messages.json`, or with a link of a list.
    async fn rest(&self, method: reqwest::Method, path: &str) -> (u16, Value) {
        let (account, token) = (self.emulator.account_sid(), self.emulator.auth_token());
        let origin = self.emulator.url();
        let url = if path.starts_with('/') {
            format!("{origin}{path}")
        } else {
            format!("{origin}/2010-04-01/Accounts/{account}/{path}")
        };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method, url);
        let request = request.basic_auth(account.as_str(), Some(token.expose()));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        // A deletion has an empty response.
        let body = response.text().await.unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

/// Waits until an event with this name fulfills the condition.
async fn wait_for_event(events: &mut EventStream, name: &str, holds: impl Fn(&Value) -> bool) {
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(event) = events.next().await {
            if event.name == name && holds(&event.data) {
                return;
            }
        }
        panic!("the event stream ended");
    });
    found.await.expect("no event fulfilled the condition");
}

fn bodies_of(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message["body"].as_str().unwrap())
        .collect()
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

// Webhook, REST API and status callbacks, each with the addresses of the channel.
#[tokio::test]
async fn rcs_and_messenger_users_write_and_get_messages() {
    for (user, prefix) in [
        ("rcs:+15550006666", "rcs:"),
        ("messenger:4242", "messenger:"),
    ] {
        let bench = Bench::with("", |options| {
            let origin = options.webhook.trim_end_matches("/sms").to_owned();
            options.status_callback = Some(format!("{origin}/status"));
        })
        .await;
        let config = bench.remote.get(&["config"]).await.unwrap();
        let mut senders = config["senders"].as_array().unwrap().iter();
        let sender = senders.find_map(|sender| sender.as_str().filter(|s| s.starts_with(prefix)));
        let sender = sender.unwrap();
        bench.server.queue_twiml("/sms", "<Message>yes?</Message>");
        bench.server.queue_response("/status", 204, "", "");
        let answer = bench
            .send_message(json!({"from": user, "body": "hi"}))
            .await;
        assert_eq!(answer["messages"][0]["body"], "yes?");
        let form = bench.server.requests_to("/sms").remove(0).form;
        assert_eq!(
            (form.get("From"), form.get("To")),
            (Some(user), Some(sender))
        );
        assert!(bench.text(user, sender, "later").await.is_ok());
        bench
            .wait_for_message(user, |message| {
                message["body"] == "later"
                    && ["delivered", "read"]
                        .iter()
                        .any(|s| message["status"] == *s)
            })
            .await;
        let form = bench.server.requests_to("/status").remove(0).form;
        assert_eq!(
            (form.get("From"), form.get("To")),
            (Some(sender), Some(user))
        );
        assert_eq!(
            form.get("ChannelPrefix"),
            Some(prefix.trim_end_matches(':'))
        );
    }
}

// A burst of more than thirty replies is reported once as 14107, and each reply is still delivered.
#[tokio::test]
async fn reply_loop_is_reported_and_continues() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>again</Message>");
    for _ in 0..30 {
        assert_eq!(bodies(&bench.says("again").await), ["again"]);
    }
    assert_eq!(bench.debugger_codes().await, Vec::<u64>::new());
    for _ in 0..2 {
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

// The page shows the active faults from these events.
#[tokio::test]
async fn used_up_fault_is_reported_as_event() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    let data = crate::support::base64_of(PIXEL);
    bench
        .send_message(json!({"from": ANA, "to": WHATSAPP, "media": [{"data": data}]}))
        .await;
    let form = bench.server.requests().remove(0).form;
    let url = form.get("MediaUrl0").unwrap();
    let (account, token) = (bench.emulator.account_sid(), bench.emulator.auth_token());
    let login = Some((account.as_str(), token.expose()));
    let faults = json!({"rest_error": {"status": 503, "times": 2}, "media_404": 1});
    bench.set_faults(faults).await;
    let mut events = bench.remote.events().await.unwrap();
    for times in [json!(1), Value::Null] {
        let (status, _) = bench.rest(reqwest::Method::GET, "Messages.json").await;
        assert_eq!(status, 503);
        wait_for_event(&mut events, "faults", |faults| {
            faults["rest_error"]["times"] == times && faults["media_404"] == 1
        })
        .await;
    }
    assert_eq!(bench.get(url, login).await.status(), 404);
    wait_for_event(&mut events, "faults", |faults| faults["media_404"] == 0).await;
}

// The bot deletes the only file of a message while the emulator still fetches it.
#[tokio::test]
async fn media_deleted_during_fetch_is_not_stored() {
    let bench = Bench::new().await;
    let files = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a.png", files.local_addr().unwrap());
    let message = NewMessage::text(BEN, "look").from(SMS).media(url);
    let sid = bench.send(message).await.unwrap().sid.to_string();
    let accepted = tokio::time::timeout(Duration::from_secs(20), files.accept());
    let (stream, _) = accepted.await.expect("the file is not fetched").unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0);
    }

    let list = format!("Messages/{sid}/Media.json");
    let (_, media) = bench.rest(reqwest::Method::GET, &list).await;
    let file = media["media_list"][0]["sid"].as_str().unwrap();
    let path = format!("Messages/{sid}/Media/{file}.json");
    let (status, _) = bench.rest(reqwest::Method::DELETE, &path).await;
    assert_eq!(status, 204);
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: image/png\r\n";
    let response = format!("{head}content-length: 4\r\n\r\nabcd");
    stream.write_all(response.as_bytes()).await.unwrap();
    let sent = bench
        .wait_for_message(BEN, |message| message["status"] == "delivered")
        .await;
    assert_eq!(sent["media"], json!([]));
    let src = format!("{}/_emulator/media/{file}", bench.emulator.url());
    assert_eq!(bench.get(&src, None).await.status(), 404);
}

// Deleted and new messages do not shift the pages.
#[tokio::test]
async fn message_list_continues_after_newest_is_deleted() {
    let bench = Bench::new().await;
    let mut sids = Vec::new();
    for body in ["1", "2", "3", "4"] {
        sids.push(bench.text(BEN, SMS, body).await.unwrap());
    }
    let get = reqwest::Method::GET;
    let (_, first) = bench.rest(get.clone(), "Messages.json?PageSize=2").await;
    assert_eq!(bodies_of(&first), ["4", "3"]);
    let newest = format!("Messages/{}.json", sids[3]);
    let (status, _) = bench.rest(reqwest::Method::DELETE, &newest).await;
    assert_eq!(status, 204);
    bench.text(BEN, SMS, "5").await.unwrap();
    let next = first["next_page_uri"].as_str().unwrap();
    let (_, second) = bench.rest(get.clone(), next).await;
    assert_eq!(bodies_of(&second), ["2", "1"]);
    assert_eq!(second["next_page_uri"], Value::Null);
    let previous = second["previous_page_uri"].as_str().unwrap();
    let (_, previous) = bench.rest(get, previous).await;
    assert_eq!(bodies_of(&previous), ["5", "3"]);
}

// A 401 without `WWW-Authenticate` does not ask for a password. Webhooks follow the same rule.
#[tokio::test]
async fn password_is_not_sent_without_challenge() {
    let bench = Bench::with("", |options| {
        options.webhook = options.webhook.replace("http://", "http://bob:s3cret@");
        let origin = options.webhook.trim_end_matches("/sms").to_owned();
        options.status_callback = Some(format!("{origin}/status"));
    })
    .await;
    bench.server.queue_response("/status", 401, "", "");
    bench.server.queue_response("/sms", 401, "", "");
    bench.server.queue_twiml("/fallback", "");
    bench.says("hi").await;
    bench.text(BEN, SMS, "news").await.unwrap();
    // One entry for the webhook, and one for each of the two statuses.
    let reported = tokio::time::timeout(Duration::from_secs(20), async {
        while bench.debugger_codes().await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    reported.await.expect("fewer than three debugger entries");
    let requests = bench.server.requests();
    for (path, count) in [("/sms", 1), ("/status", 2)] {
        let calls = requests.iter().filter(|request| request.path == path);
        assert_eq!(calls.count(), count, "{path}");
    }
    for request in requests {
        assert!(!request.headers.contains_key("authorization"));
    }
}
