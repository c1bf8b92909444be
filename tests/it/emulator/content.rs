//! The emulator's Content API, and content on the phone: types, taps and refusals.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ANA, BEN, Bench, SMS, WHATSAPP};

const RITA: &str = "rcs:+15550005555";
const RCS: &str = "rcs:replyhook_agent";
const MAX: &str = "messenger:24680013579";
const MESSENGER: &str = "messenger:104000000000001";
/// Loopback URL of a picture, which the scripted server has.
const PICTURE: &str = "/a.png";

impl Bench {
    /// Calls the Content API, with a path or a link of a list.
    async fn content(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.emulator.url())
        };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (account, token) = (self.emulator.account_sid(), self.emulator.auth_token());
        let mut request = client
            .request(method, url)
            .basic_auth(account.as_str(), Some(token.expose()));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Creates a template with these types, and returns its SID.
    async fn template(&self, types: Value) -> String {
        self.template_with(json!({}), types).await
    }

    /// Creates a template with these samples and types, and returns its SID.
    async fn template_with(&self, variables: Value, types: Value) -> String {
        let body = json!({"friendly_name": "question", "language": "en", "variables": variables, "types": types});
        let (status, made) = self.content(Method::POST, "/v1/Content", Some(&body)).await;
        assert_eq!(status, 201, "{made}");
        made["sid"].as_str().unwrap().to_owned()
    }

    async fn submit(&self, sid: &str) {
        let path = format!("/v1/Content/{sid}/ApprovalRequests/whatsapp");
        let body = json!({"name": "question", "category": "UTILITY"});
        let (status, approval) = self.content(Method::POST, &path, Some(&body)).await;
        assert_eq!((status, &approval["status"]), (201, &json!("received")));
    }

    /// Calls `POST Messages.json`.
    async fn create_message(&self, params: &[(&str, &str)]) -> (u16, Value) {
        let account = self.emulator.account_sid();
        let url = format!(
            "{}/2010-04-01/Accounts/{account}/Messages.json",
            self.emulator.url()
        );
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(params)
            .finish();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client
            .post(url)
            .basic_auth(
                account.as_str(),
                Some(self.emulator.auth_token().expose().to_owned()),
            )
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Sends a template, and returns the message when its status is final.
    async fn send_content(&self, user: &str, sid: &str, variables: &Value) -> Value {
        let variables = variables.to_string();
        let params = [
            ("From", sender(user)),
            ("To", user),
            ("ContentSid", sid),
            ("ContentVariables", variables.as_str()),
        ];
        let (status, created) = self.create_message(&params).await;
        assert_eq!(status, 201, "{created}");
        let sid = created["sid"].clone();
        self.wait_for_message(user, |message| {
            let is_final = matches!(
                message["status"].as_str(),
                Some("delivered" | "read" | "failed")
            );
            message["sid"] == sid && is_final
        })
        .await
    }

    /// Sends types as a new template, and returns the content on the phone.
    async fn shown(&self, user: &str, types: Value) -> Value {
        let sid = self.template(types).await;
        let message = self.send_content(user, &sid, &json!({})).await;
        assert_eq!(message["error_code"], Value::Null, "{message:#}");
        message["content"].clone()
    }

    /// Sends types as a new template, and returns the error code of the failed message.
    async fn refused(&self, user: &str, types: Value) -> u64 {
        let sid = self.template(types).await;
        let message = self.send_content(user, &sid, &json!({})).await;
        assert_eq!(message["status"], "failed", "{message:#}");
        message["error_code"].as_u64().unwrap()
    }

    /// Lets a user write, so that the window is open.
    async fn open_window(&self, user: &str) {
        self.send_message(json!({"from": user, "body": "hi"})).await;
    }

    /// Sends a message, and returns the parameters of its webhook.
    async fn params(&self, message: Value) -> replyhook::FormParams {
        self.send_message(message).await;
        self.server.requests_to("/sms").pop().unwrap().form
    }

    async fn rejection(&self, message: Value) -> String {
        let rejected = self.remote.post(&["messages"], &message).await;
        rejected.unwrap_err().to_string()
    }
}

fn sender(user: &str) -> &'static str {
    match user.split(':').next().unwrap() {
        "whatsapp" => WHATSAPP,
        "rcs" => RCS,
        "messenger" => MESSENGER,
        _ => SMS,
    }
}

async fn bench() -> Bench {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    bench
}

fn quick_reply() -> Value {
    json!({"twilio/quick-reply": {"body": "When?", "actions": [
        {"type": "QUICK_REPLY", "title": "Today", "id": "today"},
        {"type": "QUICK_REPLY", "title": "Another day", "id": "other"},
    ]}})
}

fn list() -> Value {
    json!({"twilio/list-picker": {"body": "When?", "button": "Days", "items": [
        {"item": "Today", "id": "today", "description": "before 6 pm"},
        {"item": "Another day", "id": "other", "description": "you choose"},
    ]}})
}

#[tokio::test]
async fn content_is_created_changed_submitted_and_deleted() {
    let bench = bench().await;
    let sid = bench.template(quick_reply()).await;
    let path = format!("/v1/Content/{sid}");
    let (status, fetched) = bench.content(Method::GET, &path, None).await;
    assert_eq!((status, &fetched["types"]), (200, &quick_reply()));
    let approvals = format!("{path}/ApprovalRequests");
    let state = async || {
        let (_, answer) = bench.content(Method::GET, &approvals, None).await;
        answer["whatsapp"]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(state().await, "unsubmitted");
    let change = json!({"types": list(), "variables": {"1": "x"}});
    let (status, changed) = bench.content(Method::PUT, &path, Some(&change)).await;
    assert_eq!(
        (status, &changed["types"], &changed["friendly_name"]),
        (200, &list(), &json!("question"))
    );
    let other_language = json!({"language": "de", "types": list()});
    let (status, _) = bench
        .content(Method::PUT, &path, Some(&other_language))
        .await;
    assert_eq!(status, 400);
    bench.submit(&sid).await;
    assert_eq!(state().await, "approved");
    // Submitted content can be neither changed nor submitted again.
    let (status, _) = bench.content(Method::PUT, &path, Some(&change)).await;
    assert_eq!(status, 400);
    let again = json!({"name": "question", "category": "UTILITY"});
    let submit = format!("{approvals}/whatsapp");
    let (status, error) = bench.content(Method::POST, &submit, Some(&again)).await;
    assert_eq!((status, &error["code"]), (400, &json!(92009)));
    for expected in ["pending", "rejected", "paused"] {
        bench.set_faults(json!({"template_state": expected})).await;
        assert_eq!(state().await, expected);
    }
    bench.set_faults(json!({})).await;
    let (status, list) = bench
        .content(Method::GET, "/v1/ContentAndApprovals", None)
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        list["contents"][0]["approval_requests"]["status"],
        "approved"
    );
    assert_eq!(
        bench.content(Method::DELETE, &path, None).await,
        (204, Value::Null)
    );
    for method in [Method::GET, Method::DELETE] {
        let (status, error) = bench.content(method, &path, None).await;
        assert_eq!((status, &error["code"]), (404, &json!(20404)));
    }
}

#[tokio::test]
async fn content_list_is_paged_and_searched() {
    let bench = bench().await;
    let mut made = Vec::new();
    for number in 0..5 {
        let text = json!({"twilio/text": {"body": number.to_string()}});
        made.push(bench.template(text).await);
    }
    let mut found = Vec::new();
    let mut next = json!("/v1/Content?PageSize=2");
    let mut previous = Value::Null;
    while let Some(path) = next.as_str() {
        let (status, page) = bench.content(Method::GET, path, None).await;
        assert_eq!(status, 200, "{page}");
        let contents = page["contents"].as_array().unwrap().iter();
        found.extend(contents.map(|content| content["sid"].as_str().unwrap().to_owned()));
        previous = page["meta"]["previous_page_url"].clone();
        next = page["meta"]["next_page_url"].clone();
        // A deletion between two pages hides no other template.
        if found.len() == 2 {
            let path = format!("/v1/Content/{}", made[0]);
            bench.content(Method::DELETE, &path, None).await;
        }
    }
    assert_eq!(found, made);
    let (_, page) = bench
        .content(Method::GET, previous.as_str().unwrap(), None)
        .await;
    assert_eq!(page["contents"][0]["sid"], made[2].as_str());
    let (_, page) = bench
        .content(Method::GET, "/v2/Content?ContentName=nothing", None)
        .await;
    assert_eq!(page["contents"], json!([]));
    let (_, page) = bench
        .content(
            Method::GET,
            "/v2/Content?ContentName=QUEST&Language=en",
            None,
        )
        .await;
    assert_eq!(page["contents"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn invalid_content_gets_error_of_twilio() {
    let bench = bench().await;
    let text = json!({"twilio/text": {"body": "hi"}});
    for (body, part) in [
        (json!({"types": text}), "language"),
        (json!({"language": "en"}), "types"),
        (json!({"language": "en", "types": {}}), "types"),
        (
            json!({"language": "en", "types": {"twilio/tex": {}}}),
            "unknown content type",
        ),
        (
            json!({"language": "en", "types": {"twilio/list-picker": {"body": "b", "button": "c"}}}),
            "types.twilio/list-picker: missing field `items`",
        ),
        (
            json!({"language": "en", "variables": {"1": null}, "types": {"twilio/card": {"actions": []}}}),
            "title or body",
        ),
        (
            json!({"language": "en", "variables": {"a b": "x"}, "types": text}),
            "variables",
        ),
    ] {
        let (status, error) = bench
            .content(Method::POST, "/v1/Content", Some(&body))
            .await;
        assert_eq!((status, &error["code"]), (400, &json!(20001)), "{body}");
        assert_eq!(error["status"], 400);
        let more_info = error["more_info"].as_str().unwrap();
        assert!(more_info.ends_with("/20001"), "{more_info}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    let sid = bench.template(text).await;
    let submit = format!("/v1/Content/{sid}/ApprovalRequests/whatsapp");
    for (name, category) in [("Upper", "UTILITY"), ("ok", "NEWS"), ("", "UTILITY")] {
        let body = json!({"name": name, "category": category});
        let (status, _) = bench.content(Method::POST, &submit, Some(&body)).await;
        assert_eq!(status, 400, "{body}");
    }
    let (status, _) = bench.content(Method::PUT, "/v1/Content", None).await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn each_type_is_shown_as_on_a_phone() {
    let bench = bench().await;
    bench.server.script(
        PICTURE,
        (
            200,
            vec![("content-type", "image/png".to_owned())],
            b"png".to_vec(),
        ),
    );
    let picture = format!("{}{PICTURE}", bench.server.url());
    bench.open_window(ANA).await;
    bench.open_window(MAX).await;
    let items = json!([{"id": "today", "title": "Today"}, {"id": "other", "title": "Another day"}]);
    let shown = bench.shown(ANA, quick_reply()).await;
    assert_eq!(
        shown,
        json!({"type": "buttons", "body": "When?", "items": items, "media": []})
    );
    let shown = bench.shown(MAX, quick_reply()).await;
    assert_eq!(
        (&shown["type"], &shown["items"]),
        (&json!("buttons"), &items)
    );
    let shown = bench.shown(ANA, list()).await;
    let rows = json!([
        {"id": "today", "title": "Today", "description": "before 6 pm"},
        {"id": "other", "title": "Another day", "description": "you choose"},
    ]);
    assert_eq!(
        shown,
        json!({"type": "list", "body": "When?", "button": "Days", "items": rows, "media": []})
    );
    let chips = json!({"twilio/card": {"title": "When?", "actions": [
        {"type": "QUICK_REPLY", "title": "Today", "id": "today"},
    ]}});
    let shown = bench.shown(RITA, chips.clone()).await;
    let chip = json!([{"id": "today", "title": "Today"}]);
    assert_eq!(
        shown,
        json!({"type": "chips", "body": "When?", "items": chip, "media": []})
    );
    assert_eq!(bench.shown(ANA, chips).await["type"], "card");
    let media = json!({"twilio/media": {"body": "look", "media": [picture]}});
    for user in [ANA, RITA, MAX, BEN] {
        let shown = bench.shown(user, media.clone()).await;
        assert_eq!(
            (&shown["type"], &shown["body"]),
            (&json!("media"), &json!("look"))
        );
        let file = &shown["media"][0];
        assert_eq!(file["content_type"], "image/png");
        assert!(
            file["src"]
                .as_str()
                .unwrap()
                .starts_with("/_emulator/media/ME")
        );
    }
    let link = json!({"twilio/call-to-action": {"body": "Open", "actions": [
        {"type": "URL", "title": "Shop", "url": "https://shop.example"},
    ]}});
    let shown = bench.shown(ANA, link).await;
    let item =
        json!({"id": "Shop", "title": "Shop", "kind": "link", "value": "https://shop.example"});
    assert_eq!(shown["items"], json!([item]));
    let place =
        json!({"twilio/location": {"latitude": 52.5, "longitude": 13.4, "label": "Office"}});
    let shown = bench.shown(ANA, place).await;
    assert_eq!(shown["type"], "location");
    assert_eq!(
        shown["location"],
        json!({"latitude": 52.5, "longitude": 13.4, "label": "Office"})
    );
    let card = |title: &str, id: &str| {
        json!({"title": title, "body": "b", "media": picture, "actions": [
            {"type": "QUICK_REPLY", "title": "Take", "id": id},
        ]})
    };
    let carousel =
        json!({"twilio/carousel": {"body": "Two", "cards": [card("A", "a"), card("B", "b")]}});
    let shown = bench.shown(RITA, carousel).await;
    assert_eq!(
        (&shown["type"], &shown["body"]),
        (&json!("carousel"), &json!(""))
    );
    assert_eq!(shown["cards"][1]["title"], "B");
    assert_eq!(shown["cards"][1]["media"][0]["url"], picture.as_str());
    assert_eq!(shown["items"][1], json!({"id": "b", "title": "Take"}));
    // The most complex type of each channel.
    let several = json!({"twilio/text": {"body": "1 Today"}, "twilio/list-picker": list()["twilio/list-picker"],
        "twilio/quick-reply": quick_reply()["twilio/quick-reply"]});
    for (user, expected) in [
        (ANA, "list"),
        (MAX, "buttons"),
        (RITA, "text"),
        (BEN, "text"),
    ] {
        assert_eq!(bench.shown(user, several.clone()).await["type"], expected);
    }
    // The response of POST messages has the content too, and an ordinary text has none.
    let conversation = bench.conversation(ANA).await;
    assert_eq!(conversation[0]["content"], Value::Null);
}

#[tokio::test]
async fn variables_fill_every_text_and_default_to_samples() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let shape = json!({"friendly_name": "buttons_2", "language": "en",
    "variables": {"1": "?", "2": "Yes", "3": "yes", "4": "No", "5": "no"},
    "types": {"twilio/quick-reply": {"body": "{{1}}", "actions": [
        {"title": "{{2}}", "id": "{{3}}"}, {"title": "{{4}}", "id": "{{5}}"},
    ]}}});
    let (_, made) = bench
        .content(Method::POST, "/v1/Content", Some(&shape))
        .await;
    let sid = made["sid"].as_str().unwrap();
    let values = json!({"1": "At\nhome?", "2": "Sí", "3": "home:yes"});
    let message = bench.send_content(ANA, sid, &values).await;
    assert_eq!(message["body"], "At\nhome?");
    assert_eq!(
        message["content"]["items"],
        json!([{"id": "home:yes", "title": "Sí"}, {"id": "no", "title": "No"}])
    );
    // Without a title after filling.
    let message = bench.send_content(ANA, sid, &json!({"2": ""})).await;
    assert_eq!(message["error_code"], 63005);
}

#[tokio::test]
async fn whatsapp_tap_sends_parameters_of_quick_reply() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let sid = bench.template(quick_reply()).await;
    let asked = bench.send_content(ANA, &sid, &json!({})).await;
    assert!(asked["sid"].as_str().unwrap().starts_with("MM"), "{asked}");
    let form = bench
        .params(json!({"from": ANA, "choice": {"id": "other"}}))
        .await;
    for (name, value) in [
        ("MessageType", "interactive"),
        ("Body", "Another day"),
        ("ButtonText", "Another day"),
        ("ButtonPayload", "other"),
        ("OriginalRepliedMessageSid", asked["sid"].as_str().unwrap()),
        ("OriginalRepliedMessageSender", WHATSAPP),
        ("Forwarded", "false"),
        ("FrequentlyForwarded", "false"),
        ("To", WHATSAPP),
    ] {
        assert_eq!(form.get(name), Some(value), "{name}");
    }
    let metadata: Value = serde_json::from_str(form.get("ChannelMetadata").unwrap()).unwrap();
    assert_eq!(metadata["data"]["context"]["ButtonText"], "Another day");
    // A row of a list has the same shape.
    let sid = bench.template(list()).await;
    bench.send_content(ANA, &sid, &json!({})).await;
    let form = bench
        .params(json!({"from": ANA, "choice": {"id": "today"}}))
        .await;
    assert_eq!(form.get("ButtonPayload"), Some("today"));
    assert_eq!(form.get("MessageType"), Some("interactive"));
    // A button of an approved template has another type.
    let sid = bench.template(quick_reply()).await;
    bench.submit(&sid).await;
    bench.send_content(ANA, &sid, &json!({})).await;
    let form = bench
        .params(json!({"from": ANA, "choice": {"id": "today"}}))
        .await;
    assert_eq!(form.get("MessageType"), Some("button"));
    assert_eq!(form.get("ButtonText"), Some("Today"));
    // A button of an old message can be tapped too.
    let old = json!({"id": "today", "message_sid": asked["sid"]});
    let form = bench.params(json!({"from": ANA, "choice": old})).await;
    assert_eq!(form.get("OriginalRepliedMessageSid"), asked["sid"].as_str());
    let shown = bench.conversation(ANA).await;
    assert_eq!(
        shown.last().unwrap()["button"],
        json!({"text": "Today", "payload": "today"})
    );
}

#[tokio::test]
async fn rcs_and_messenger_taps_send_their_parameters() {
    let bench = bench().await;
    let card = json!({"twilio/card": {"title": "When?", "actions": [
        {"type": "QUICK_REPLY", "title": "Today", "id": "today"},
        {"type": "URL", "title": "Shop", "url": "https://shop.example", "id": "shop"},
        {"type": "URL", "title": "Blog", "url": "https://blog.example"},
    ]}});
    let shown = bench.shown(RITA, card.clone()).await;
    assert_eq!(shown["items"][1]["is_reported"], true);
    for (id, title, button_type) in [("today", "Today", "REPLY"), ("shop", "Shop", "ACTION")] {
        let form = bench
            .params(json!({"from": RITA, "choice": {"id": id}}))
            .await;
        for (name, value) in [
            ("Body", title),
            ("ButtonText", title),
            ("ButtonPayload", id),
            ("ButtonType", button_type),
            ("To", RCS),
        ] {
            assert_eq!(form.get(name), Some(value), "{name}");
        }
    }
    // A link without an ID is not reported.
    let rejected = bench
        .rejection(json!({"from": RITA, "choice": {"id": "Blog"}}))
        .await;
    assert!(rejected.contains("opens a link"), "{rejected}");
    bench.open_window(MAX).await;
    let sid = bench.template(quick_reply()).await;
    bench.send_content(MAX, &sid, &json!({})).await;
    let form = bench
        .params(json!({"from": MAX, "choice": {"id": "other"}}))
        .await;
    assert_eq!(form.get("Body"), Some("Another day"));
    assert_eq!(form.get("ButtonPayload"), Some("other"));
}

#[tokio::test]
async fn call_request_and_flow_are_answered() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let call = json!({"twilio/call-to-action": {"body": "May we call?", "actions": [
        {"type": "VOICE_CALL_REQUEST", "title": "Permit", "id": "permit"},
    ]}});
    bench.shown(ANA, call).await;
    let form = bench
        .params(json!({"from": ANA, "choice": {"id": "permit"}}))
        .await;
    assert_eq!(form.get("ButtonText"), Some("VOICE_CALL_REQUEST"));
    assert_eq!(form.get("ButtonPayload"), Some("ACCEPTED"));
    let flow = json!({"twilio/flows": {"body": "Book a table", "button_text": "Book", "type": "OTHER", "pages": [
        {"id": "p1", "title": "Guests", "layout": [{"type": "TEXT_HEADING", "label": "Hello"}, {"type": "TEXT_INPUT", "label": "Name"}]},
    ]}});
    let sid = bench.template(flow).await;
    bench.submit(&sid).await;
    let message = bench.send_content(ANA, &sid, &json!({})).await;
    assert_eq!(
        message["content"]["flow"],
        json!([{"name": "Name", "label": "Name"}])
    );
    let rejected = bench
        .rejection(json!({"from": ANA, "choice": {"id": "Book"}}))
        .await;
    assert!(rejected.contains("flow"), "{rejected}");
    let fields = json!({"Name": "Ana & Ben", "guests": 2});
    let form = bench.params(json!({"from": ANA, "flow": fields})).await;
    assert_eq!(form.get("MessageType"), Some("interactive"));
    let interactive: Value = serde_json::from_str(form.get("InteractiveData").unwrap()).unwrap();
    assert_eq!(interactive, fields);
    let raw: Value = serde_json::from_str(form.get("FlowData").unwrap()).unwrap();
    let inner: Value = serde_json::from_str(raw["response_json"].as_str().unwrap()).unwrap();
    assert_eq!(inner, fields);
    assert_eq!(
        form.get("OriginalRepliedMessageSid"),
        message["sid"].as_str()
    );
    assert_eq!(
        bench.conversation(ANA).await.last().unwrap()["flow"],
        fields
    );
}

#[tokio::test]
async fn invalid_tap_is_explained_and_sends_nothing() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let rejected = bench
        .rejection(json!({"from": ANA, "choice": {"id": "today"}}))
        .await;
    assert!(rejected.contains("no message"), "{rejected}");
    let sid = bench.template(quick_reply()).await;
    bench.send_content(ANA, &sid, &json!({})).await;
    let before = bench.server.requests_to("/sms").len();
    for (message, part) in [
        (
            json!({"from": ANA, "choice": {"id": "tomorrow"}}),
            "its items are today, other",
        ),
        (
            json!({"from": ANA, "choice": {"id": "today", "message_sid": "SM1"}}),
            "choice.message_sid",
        ),
        (
            json!({"from": ANA, "choice": {"id": "today"}, "body": "x"}),
            "leave out",
        ),
        (json!({"from": ANA, "choice": {}}), "missing field `id`"),
        (json!({"from": ANA, "choice": "today"}), "invalid type"),
        (
            json!({"from": BEN, "choice": {"id": "today"}}),
            "no message",
        ),
        (json!({"from": BEN, "flow": {"a": 1}}), "only WhatsApp"),
        (
            json!({"from": ANA, "location": {"latitude": 91.0, "longitude": 0.0}}),
            "location.latitude",
        ),
    ] {
        let rejected = bench.rejection(message.clone()).await;
        assert!(rejected.contains(part), "{message}: {rejected}");
    }
    assert_eq!(bench.server.requests_to("/sms").len(), before);
}

#[tokio::test]
async fn invalid_content_sid_or_variables_are_rejected() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let sid = bench.template(quick_reply()).await;
    let deleted = bench.template(quick_reply()).await;
    let path = format!("/v1/Content/{deleted}");
    bench.content(Method::DELETE, &path, None).await;
    let base = [("From", WHATSAPP), ("To", ANA)];
    for (params, code) in [
        (vec![("ContentVariables", "{}"), ("Body", "hi")], 21654),
        (vec![("ContentSid", "HX1")], 21655),
        (vec![("ContentSid", deleted.as_str())], 21655),
        (
            vec![("ContentSid", sid.as_str()), ("ContentVariables", "null")],
            21656,
        ),
        (
            vec![("ContentSid", sid.as_str()), ("ContentVariables", "{{}}")],
            21656,
        ),
        (
            vec![
                ("ContentSid", sid.as_str()),
                ("ContentVariables", r#"{"1":null}"#),
            ],
            21656,
        ),
    ] {
        let params = [&base[..], &params].concat();
        let (status, error) = bench.create_message(&params).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{params:?}");
    }
    // Content wins over a text.
    let params = [&base[..], &[("ContentSid", sid.as_str()), ("Body", "x")]].concat();
    let (status, created) = bench.create_message(&params).await;
    assert_eq!((status, &created["body"]), (201, &json!("When?")));
}

#[tokio::test]
async fn refused_content_fails_by_status() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let many: Vec<_> = (0..4)
        .map(|n| json!({"type": "QUICK_REPLY", "title": n.to_string(), "id": n.to_string()}))
        .collect();
    let buttons = json!({"twilio/quick-reply": {"body": "b", "actions": many}});
    assert_eq!(bench.refused(ANA, buttons).await, 63005);
    let long = json!({"twilio/quick-reply": {"body": "b".repeat(1025), "actions": [{"title": "a", "id": "a"}]}});
    assert_eq!(bench.refused(ANA, long).await, 63021);
    let missing = json!({"twilio/text": {"body": "Hi {{1}}"}});
    assert_eq!(bench.refused(ANA, missing).await, 63028);
    // No type for the channel.
    assert_eq!(bench.refused(BEN, quick_reply()).await, 63021);
    // An approved template takes no line break in a value.
    let template = json!({"twilio/text": {"body": "Hi {{1}}, welcome to us."}});
    let sid = bench.template_with(json!({"1": "Ana"}), template).await;
    let values = json!({"1": "Ana\nBen"});
    let message = bench.send_content(ANA, &sid, &values).await;
    assert_eq!(message["error_code"], Value::Null);
    bench.submit(&sid).await;
    let message = bench.send_content(ANA, &sid, &values).await;
    assert_eq!(message["error_code"], 63013);
    assert!(bench.debugger_codes().await.contains(&63013));
}

#[tokio::test]
async fn closed_window_takes_approved_templates_only() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let advance = json!({"advance_seconds": 25 * 3600});
    bench.remote.post(&["clock"], &advance).await.unwrap();
    let code = async |sid: &str| {
        let message = bench.send_content(ANA, sid, &json!({})).await;
        message["error_code"].clone()
    };
    let buttons = bench.template(quick_reply()).await;
    assert_eq!(code(&buttons).await, 63016);
    bench.submit(&buttons).await;
    assert_eq!(code(&buttons).await, Value::Null);
    // A list opens no conversation, even if it is approved.
    let rows = bench.template(list()).await;
    bench.submit(&rows).await;
    assert_eq!(code(&rows).await, 63016);
    for (state, expected) in [("pending", 63016), ("rejected", 63040), ("paused", 63041)] {
        bench.set_faults(json!({"template_state": state})).await;
        assert_eq!(code(&buttons).await, expected, "{state}");
    }
    bench.set_faults(json!({})).await;
    // Messenger takes content in its window only; RCS has no window.
    let max = bench.send_content(MAX, &buttons, &json!({})).await;
    assert_eq!(max["error_code"], 63016);
    let text = bench.template(json!({"twilio/text": {"body": "hi"}})).await;
    let rita = bench.send_content(RITA, &text, &json!({})).await;
    assert_eq!(rita["error_code"], Value::Null);
}

// The findings of `replyhook templates lint` reject a template. Advice, such as about a keyword as a title, does not.
#[tokio::test]
async fn badly_written_template_is_rejected_with_reason() {
    let bench = bench().await;
    let text = |body: &str| json!({"twilio/text": {"body": body}});
    let keyword = json!({"title": "Cancel", "id": "c"});
    for (types, reason) in [
        (
            text("Your code for today is {{1}}"),
            "ends with the variable {{1}}",
        ),
        (
            text("{{1}} is your code for today"),
            "starts with the variable",
        ),
        (
            text("Your code {{2}} is new, {{3}} is old now"),
            "no sample",
        ),
        (text(&"b".repeat(1025)), "1025 characters"),
        (
            json!({"twilio/quick-reply": {"body": "Stay?", "actions": [keyword]}}),
            "",
        ),
        (text("Your order {{1}} is ready."), ""),
    ] {
        let sid = bench.template_with(json!({"1": "42"}), types.clone()).await;
        bench.submit(&sid).await;
        let path = format!("/v1/Content/{sid}/ApprovalRequests");
        let (_, answer) = bench.content(Method::GET, &path, None).await;
        let approval = &answer["whatsapp"];
        let found = approval["rejection_reason"].as_str().unwrap();
        let expected = if reason.is_empty() {
            "approved"
        } else {
            "rejected"
        };
        assert_eq!(approval["status"], expected, "{types}: {found}");
        assert!(
            found.contains(reason) && found.is_empty() == reason.is_empty(),
            "{found}"
        );
    }
}

#[tokio::test]
async fn review_takes_its_time_by_the_clock() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let advance = async |seconds: u32| {
        let advance = json!({"advance_seconds": seconds});
        bench.remote.post(&["clock"], &advance).await.unwrap();
    };
    advance(25 * 3600).await;
    bench.set_faults(json!({"template_review_s": 600})).await;
    let good = bench.template(quick_reply()).await;
    let bad = bench
        .template(json!({"twilio/text": {"body": "Code: {{1}}"}}))
        .await;
    let states = async || {
        let path = "/v1/ContentAndApprovals";
        let (_, list) = bench.content(Method::GET, path, None).await;
        let states = list["contents"].as_array().unwrap().iter();
        let states = states.map(|content| content["approval_requests"]["status"].clone());
        states.collect::<Value>()
    };
    for sid in [&good, &bad] {
        bench.submit(sid).await;
    }
    // A later submission is not delayed, and those before keep their time.
    bench.set_faults(json!({})).await;
    assert_eq!(states().await, json!(["pending", "pending"]));
    let message = bench.send_content(ANA, &good, &json!({})).await;
    assert_eq!(message["error_code"], 63016);
    advance(590).await;
    assert_eq!(states().await, json!(["pending", "pending"]));
    advance(20).await;
    assert_eq!(states().await, json!(["approved", "rejected"]));
    let message = bench.send_content(ANA, &good, &json!({})).await;
    assert_eq!(message["error_code"], Value::Null);
    let message = bench.send_content(ANA, &bad, &json!({"1": "42"})).await;
    assert_eq!(message["error_code"], 63040);
}

#[tokio::test]
async fn content_faults_fail_calls_and_messages() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let sid = bench.template(quick_reply()).await;
    let path = format!("/v1/Content/{sid}");
    let fault = json!({"content_error": {"status": 429, "code": 20429, "times": 2}});
    bench.set_faults(fault).await;
    for expected in [429, 429, 200] {
        assert_eq!(bench.content(Method::GET, &path, None).await.0, expected);
    }
    // Messages are not calls of the Content API.
    bench
        .set_faults(json!({"content_error": {"status": 503}, "content_failure": {"code": 63005, "times": 1}}))
        .await;
    let failed = bench.send_content(ANA, &sid, &json!({})).await;
    assert_eq!(failed["error_code"], 63005);
    let sent = bench.send_content(ANA, &sid, &json!({})).await;
    assert_eq!(sent["error_code"], Value::Null);
    assert_eq!(bench.content(Method::GET, &path, None).await.0, 503);
    bench.set_faults(json!({"content_delay_ms": 150})).await;
    let started = std::time::Instant::now();
    bench.content(Method::GET, &path, None).await;
    assert!(started.elapsed() >= std::time::Duration::from_millis(150));
    // A lost template is gone for good.
    bench.set_faults(json!({"content_lost": 1})).await;
    let params = [
        ("From", WHATSAPP),
        ("To", ANA),
        ("ContentSid", sid.as_str()),
    ];
    for _ in 0..2 {
        let (status, error) = bench.create_message(&params).await;
        assert_eq!((status, &error["code"]), (400, &json!(21655)));
    }
    assert_eq!(bench.content(Method::GET, &path, None).await.0, 404);
    for faults in [
        json!({"template_state": "approved"}),
        json!({"content_error": {"status": 200}}),
        json!({"content_failure": {}}),
        json!({"content_delay_ms": 600_001}),
    ] {
        let rejected = bench.remote.put(&["faults"], &faults).await;
        assert!(rejected.is_err(), "{faults}");
    }
}

// The template is deleted between the call and the time of sending.
#[tokio::test]
async fn scheduled_message_of_deleted_template_fails() {
    let bench = bench().await;
    bench.open_window(ANA).await;
    let sid = bench.template(quick_reply()).await;
    let config = bench.remote.get(&["config"]).await.unwrap();
    let now: jiff::Timestamp = config["now"].as_str().unwrap().parse().unwrap();
    let at = now
        .checked_add(jiff::SignedDuration::from_mins(10))
        .unwrap()
        .to_string();
    let service = format!("MG{}", "0".repeat(32));
    let params = [
        ("MessagingServiceSid", service.as_str()),
        ("To", ANA),
        ("ContentSid", sid.as_str()),
        ("ScheduleType", "fixed"),
        ("SendAt", at.as_str()),
    ];
    let (status, created) = bench.create_message(&params).await;
    assert_eq!(status, 201, "{created}");
    let path = format!("/v1/Content/{sid}");
    bench.content(Method::DELETE, &path, None).await;
    let advance = json!({"advance_seconds": 601});
    bench.remote.post(&["clock"], &advance).await.unwrap();
    let failed = bench
        .wait_for_message(ANA, |message| {
            message["sid"] == created["sid"] && message["status"] == "failed"
        })
        .await;
    assert_eq!(failed["error_code"], 63027);
}

// Another server does not say that it is still sending, so the caller says how long to wait.
#[tokio::test]
async fn response_waits_for_rest_message_as_asked() {
    let bench = bench().await;
    let url = format!("{}/_emulator/messages", bench.emulator.url());
    let send = |query: &str| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = json!({"from": ANA, "body": "hi"}).to_string();
        client.post(format!("{url}{query}")).body(body).send()
    };
    let waiting = tokio::spawn(send("?wait_ms=30000"));
    // After the webhook was answered.
    bench
        .wait_for_message(ANA, |message| message["direction"] == "in")
        .await;
    let params = [("From", sender(ANA)), ("To", ANA), ("Body", "from REST")];
    bench.create_message(&params).await;
    let response = waiting.await.unwrap().unwrap().text().await.unwrap();
    let response: Value = serde_json::from_str(&response).unwrap();
    assert_eq!(response["messages"][0]["body"], "from REST");
    for query in ["?wait_ms=60001", "?wait_ms=soon", "?wait=1"] {
        let rejected = send(query).await.unwrap();
        assert_eq!(rejected.status(), 400, "{query}");
    }
}

// A refused call has no message, so it belongs to the conversation of its recipient.
#[tokio::test]
async fn refused_rest_call_is_in_debugger_below_its_message() {
    let bench = bench().await;
    let said = bench.send_message(json!({"from": ANA, "body": "hi"})).await;
    let params = [("From", sender(ANA)), ("To", ANA), ("Body", "x")];
    for (status, code) in [(429, 20429), (500, 20500)] {
        let fault = json!({"rest_error": {"status": status, "code": code, "times": 1}});
        bench.set_faults(fault).await;
        assert_eq!(bench.create_message(&params).await.0, status);
    }
    let long = "x".repeat(1601);
    let params = [("From", sender(ANA)), ("To", ANA), ("Body", long.as_str())];
    assert_eq!(bench.create_message(&params).await.0, 400);
    let debugger = bench.remote.get(&["debugger"]).await.unwrap();
    let entries = debugger.as_array().unwrap();
    let codes: Vec<_> = entries.iter().map(|entry| &entry["code"]).collect();
    assert_eq!(codes, [&json!(20429), &json!(20500), &json!(21617)]);
    for entry in entries {
        assert_eq!(entry["message_sid"], said["message_sid"]);
    }
    let exchanges = bench.remote.get(&["exchanges"]).await.unwrap();
    let exchanges = exchanges.as_array().unwrap().iter();
    let refused: Vec<_> = exchanges.filter(|call| call["kind"] == "rest").collect();
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|call| call["user"] == ANA));
}
