//! Choices of a service behind the handler `forward`.

use serde_json::{Value, json};

use crate::support::{EMPTY, FakeTwilio, ScriptedServer, TestApp, Webhook, twiml_message};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const USER: &str = "whatsapp:+15550001111";

/// An app that forwards to a scripted service.
struct Forwarding {
    app: TestApp,
    twilio: FakeTwilio,
    service: ScriptedServer,
}

impl Forwarding {
    async fn start() -> Self {
        let service = ScriptedServer::start().await;
        let url = format!("{}/message", service.url());
        let twilio = FakeTwilio::start();
        let env = [
            ("REPLYHOOK__HANDLER__KIND", "forward"),
            ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
        ];
        let app = TestApp::with_twilio(&twilio, &env, |app| app);
        Self {
            app,
            twilio,
            service,
        }
    }

    /// Sends a message, to which the service responds with this JSON. Returns the TwiML.
    async fn exchange(&self, webhook: Webhook, response: &Value) -> String {
        self.respond(response);
        self.app.send(webhook).await.twiml().to_owned()
    }

    /// Sets the response of the service.
    fn respond(&self, response: &Value) {
        self.service.clear_responses("/message");
        self.service
            .queue_response("/message", 200, "application/json", &response.to_string());
    }

    fn last_choice(&self) -> Value {
        let request = self.service.requests().pop().unwrap();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        body["choice"].clone()
    }
}

fn sms(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .with("From", "+15550001111")
        .with("To", "+15550002222")
}

#[tokio::test(flavor = "multi_thread")]
async fn service_asks_and_gets_typed_answer() {
    let bot = Forwarding::start().await;
    let question = json!({
        "body": "When?", "choices_key": "day",
        "choices": ["Today", {"id": "other", "title": "Another day", "description": "by post"}, {"title": "Never"}],
    });
    let twiml = bot.exchange(sms(1, "hi"), &question).await;
    let text = "When?\n1. Today\n2. Another day – by post\n3. Never";
    assert_eq!(twiml, twiml_message(text));
    assert_eq!(bot.last_choice(), Value::Null);
    bot.exchange(sms(2, "2"), &json!({})).await;
    let expected = json!({"id": "other", "title": "Another day", "via": "number", "key": "day", "current": true});
    assert_eq!(bot.last_choice(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_gets_tap_without_payload() {
    let bot = Forwarding::start().await;
    let question =
        json!({"body": "When?", "choices": ["A", "B", "C", "D"], "choices_button": "Days"});
    assert_eq!(
        bot.exchange(Webhook::message(1, "hi"), &question).await,
        EMPTY
    );
    let phone = bot.twilio.wait_for_phone(USER, 1);
    let fields = &phone[0].content.as_ref().unwrap()["fields"];
    assert_eq!(fields["button"], "Days");
    let payload = fields["items"][1]["id"].as_str().unwrap();
    let tap = Webhook::message(2, "B")
        .with("ButtonText", "B")
        .with("ButtonPayload", payload);
    bot.exchange(tap, &json!({})).await;
    let expected = json!({"id": "B", "title": "B", "via": "list", "key": null, "current": true});
    assert_eq!(bot.last_choice(), expected);
    let request = bot.service.requests().pop().unwrap();
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    assert!(!body.contains(payload), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_choices_still_ask_the_question() {
    let bot = Forwarding::start().await;
    for (number, (choices, text)) in (1..).zip([
        (json!(["A", "a"]), "When?\nA\na"),
        (json!(["A", ""]), "When?\nA"),
        (json!([]), "When?"),
        (json!("A"), "When?\nA"),
        (json!({"A": "B"}), "When?\nB"),
        (json!([1, "A", {"id": "x"}]), "When?\n1\nA"),
        (
            json!([{"title": 9}, {"title": "A", "id": 5}]),
            "When?\n9\nA",
        ),
        (
            json!([{"id": "x", "title": "A"}, {"id": "X", "title": "B"}]),
            "When?\nA\nB",
        ),
    ]) {
        // A user of its own, since the loop detection counts equal texts.
        let user = format!("+1555000{number:04}");
        let sms = |number, body| sms(number, body).with("From", &user);
        let response = json!({"body": "When?", "choices": choices});
        let twiml = bot.exchange(sms(number, "hi"), &response).await;
        assert_eq!(twiml, twiml_message(text), "{choices}");
        // No question is open, so nothing is guessed.
        let twiml = bot.exchange(sms(100 + number, "1"), &json!({})).await;
        assert_eq!((twiml.as_str(), bot.last_choice()), (EMPTY, Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_choices_are_all_shown() {
    let bot = Forwarding::start().await;
    let titles: Vec<String> = (0..120).map(|number| format!("Title {number}")).collect();
    let response = json!({"body": "When?", "choices": titles});
    let twiml = bot.exchange(sms(1, "hi"), &response).await;
    for title in &titles {
        assert!(twiml.contains(title.as_str()), "{title}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_parts_do_not_lose_the_text() {
    let bot = Forwarding::start().await;
    for (number, invalid) in (1..).zip([
        json!({"location": {"latitude": 91, "longitude": 0}}),
        json!({"location": "here"}),
        json!({"content": {"sid": "HX1"}}),
        json!({"content": 7}),
    ]) {
        let mut response = invalid.clone();
        response["body"] = json!("Here.");
        let user = format!("+1555000{number:04}");
        let webhook = sms(number, "hi").with("From", &user);
        let twiml = bot.exchange(webhook, &response).await;
        assert_eq!(twiml, twiml_message("Here."), "{invalid}");
    }
    // A label that is too long is that of the settings.
    let response = json!({"body": "When?", "choices": ["A", "B", "C", "D"], "choices_button": "A label that is too long"});
    bot.exchange(Webhook::message(9, "hi"), &response).await;
    let phone = bot.twilio.wait_for_phone(USER, 1);
    assert_eq!(phone[0].content.as_ref().unwrap()["fields"]["button"], "☰");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_sends_template_and_location() {
    let bot = Forwarding::start().await;
    let sid = "HX00000000000000000000000000000042";
    let response = json!({"messages": [
        {"content": {"sid": sid, "variables": {"1": "Ana", "2": 7}}},
        {"location": {"latitude": 40.4, "longitude": -3.7, "label": "Office"}},
    ]});
    assert_eq!(
        bot.exchange(Webhook::message(1, "hi"), &response).await,
        EMPTY
    );
    let phone = bot.twilio.wait_for_phone(USER, 2);
    assert_eq!(phone[0].body, format!(r#"{sid} {{"1":"Ana","2":"7"}}"#));
    assert_eq!(phone[1].body, "Office");
    for (number, invalid) in (2..).zip([
        json!({"content": {"sid": "HX1"}}),
        json!({"content": {"sid": sid, "variables": {"1": null}}}),
        json!({"location": {"latitude": 91, "longitude": 0}}),
    ]) {
        bot.respond(&invalid);
        let response = bot.app.send(Webhook::message(number, "hi")).await;
        assert_eq!(response.status, 500, "{invalid}");
    }
}

// Texts of a question, and a link: below the text on WhatsApp, in it on SMS.
#[tokio::test(flavor = "multi_thread")]
async fn hint_and_link_of_a_service_are_shown() {
    let forwarding = Forwarding::start().await;
    let hinted = json!({"body": "When?", "choices": ["A", "B"], "choices_hint": "Nur die Nummer."});
    assert_eq!(
        forwarding.exchange(sms(1, "hi"), &hinted).await,
        twiml_message("When?\n1. A\n2. B\nNur die Nummer.")
    );
    let wrong = json!({"body": "When?", "choices": ["A", "B"], "choices_hint": 7});
    assert_eq!(
        forwarding.exchange(sms(2, "hi"), &wrong).await,
        twiml_message("When?\n1. A\n2. B")
    );
    let link = json!({"link": {"title": "Track it", "url": "https://example.com/42"}});
    let parcel = json!({"body": "Your parcel.", "content": link});
    assert_eq!(
        forwarding.exchange(sms(3, "hi"), &parcel).await,
        twiml_message("Your parcel.\nTrack it: https://example.com/42")
    );
    assert_eq!(
        forwarding
            .exchange(Webhook::message(4, "hi"), &parcel)
            .await,
        EMPTY
    );
    let phone = forwarding.twilio.wait_for_phone(USER, 1);
    let content = phone[0].content.as_ref().unwrap();
    assert_eq!(content["type"], "twilio/call-to-action");
    assert_eq!(content["fields"]["body"], "Your parcel.");
    // Next to choices it is a message of its own.
    let both = json!({"body": "When?", "choices": ["A", "B"], "content": link});
    let twiml = forwarding.exchange(sms(5, "hi"), &both).await;
    assert!(
        twiml.contains("Track it: https://example.com/42"),
        "{twiml}"
    );
    assert!(twiml.contains("When?\n1. A\n2. B"), "{twiml}");
    for (number, invalid) in (6..).zip([
        json!({"link": {"title": "Track it", "url": "example.com"}}),
        json!({"link": {"title": "Track it"}}),
        json!({"link": "https://example.com"}),
        json!({"sid": "HX00000000000000000000000000000042", "link": link["link"]}),
    ]) {
        let response = json!({"body": "Your parcel.", "content": invalid});
        let twiml = forwarding.exchange(sms(number, "hi"), &response).await;
        assert_eq!(twiml, twiml_message("Your parcel."), "{invalid}");
    }
}
