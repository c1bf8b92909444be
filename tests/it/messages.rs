//! Parsing of webhooks: a request becomes an inbound message with all its parameters, or is rejected and not stored.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use replyhook::message::{MessageType, OptOutType, ReferralSource};
use replyhook::signature::sign;
use replyhook::{Address, Channel, Context, FormParams, InboundMessage, Secret, Timestamp};

use crate::support::{EMPTY, TestApp, Webhook, cpu_time, twiml_message};

/// App whose handler collects the messages that it gets.
fn build_recording_app() -> (TestApp, Arc<Mutex<Vec<InboundMessage>>>) {
    let messages = Arc::new(Mutex::new(Vec::new()));
    let recorder = messages.clone();
    let app = TestApp::with(move |_: Context, message: InboundMessage| {
        recorder.lock().unwrap().push(message);
        async {}
    });
    (app, messages)
}

fn parse_form(text: &str) -> FormParams {
    FormParams::parse(text.as_bytes(), 512).unwrap()
}

fn parse_message(form: &str) -> InboundMessage {
    InboundMessage::parse(parse_form(form), Timestamp::UNIX_EPOCH).unwrap()
}

#[test]
fn captured_media_location_button_and_stop_are_parsed() {
    let image = parse_message(
        "MediaContentType0=image%2Fjpeg&SmsMessageSid=MM00000000000000000000000000000011&NumMedia=1&ProfileName=Ana&MessageType=image&SmsSid=MM00000000000000000000000000000011&WaId=15550001111&SmsStatus=received&Body=look&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid=MM00000000000000000000000000000011&AccountSid=AC00000000000000000000000000000001&From=whatsapp%3A%2B15550001111&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2F2010-04-01%2FAccounts%2FAC00000000000000000000000000000001%2FMessages%2FMM00000000000000000000000000000011%2FMedia%2FME00000000000000000000000000000001&ApiVersion=2010-04-01",
    );
    assert_eq!(
        (image.body.as_str(), image.media.len(), image.num_media),
        ("look", 1, Some(1))
    );
    assert_eq!(image.media[0].content_type.as_deref(), Some("image/jpeg"));
    assert!(
        image.media[0]
            .url
            .ends_with("/Media/ME00000000000000000000000000000001")
    );
    assert_eq!(
        (image.profile_name.as_deref(), image.wa_id.as_deref()),
        (Some("Ana"), Some("15550001111"))
    );
    assert_eq!(image.message_type, Some(MessageType::Image));
    assert_eq!(image.channel(), &Channel::WhatsApp);
    assert_eq!(image.params.len(), 17);

    let pin = parse_message(
        "Latitude=52.5200&Longitude=13.4050&Address=1+Example+St&Label=Office&NumMedia=0&Body=&To=whatsapp%3A%2B15550002222&MessageSid=SM00000000000000000000000000000012&AccountSid=AC00000000000000000000000000000001&From=whatsapp%3A%2B15550001111",
    );
    let location = pin.location.clone().unwrap();
    assert_eq!((location.latitude, location.longitude), (52.52, 13.405));
    assert_eq!(
        (location.address.as_deref(), location.label.as_deref()),
        (Some("1 Example St"), Some("Office"))
    );
    assert_eq!(pin.text(), None);

    let button = parse_message(
        "OriginalRepliedMessageSender=whatsapp%3A%2B15550002222&ExternalUserId=whatsapp%3AUS.13491208655302741918&FrequentlyForwarded=false&NumMedia=0&MessageType=interactive&Body=Yes&Forwarded=false&ButtonText=Yes&To=whatsapp%3A%2B15550002222&ButtonPayload=confirm%3A42&MessageSid=SM00000000000000000000000000000013&AccountSid=AC00000000000000000000000000000001&OriginalRepliedMessageSid=MM00000000000000000000000000000010&ChannelMetadata=%7B%22type%22%3A%22whatsapp%22%7D&From=whatsapp%3AUS.13491208655302741918",
    );
    assert_eq!(
        button.button.clone().unwrap().payload.as_deref(),
        Some("confirm:42")
    );
    assert_eq!(
        button.external_user_id,
        Some(Address::parse("whatsapp:US.13491208655302741918"))
    );
    assert_eq!(
        (
            button.wa_id.as_deref(),
            button.forwarded,
            button.frequently_forwarded
        ),
        (None, Some(false), Some(false))
    );
    let quoted = button.replied_to.clone().unwrap();
    assert_eq!(
        (quoted.message_sid.as_str(), quoted.from.unwrap().as_str()),
        (
            "MM00000000000000000000000000000010",
            "whatsapp:+15550002222"
        )
    );
    assert_eq!(
        button.channel_metadata.unwrap().value().unwrap()["type"],
        "whatsapp"
    );

    let sms = parse_message(
        "ToCountry=US&ToState=CA&NumMedia=0&ToCity=&FromZip=&FromState=NY&OptOutType=STOP&Body=Stop&FromCountry=US&To=%2B15550003333&MessagingServiceSid=MG00000000000000000000000000000001&NumSegments=1&MessageSid=SM00000000000000000000000000000014&AccountSid=AC00000000000000000000000000000001&From=%2B15550004444&ReferralSourceType=ad&ReferralCtwaClid=clid&AddOns=not+json",
    );
    assert_eq!(
        (sms.channel(), sms.opt_out_type.clone()),
        (&Channel::Sms, Some(OptOutType::Stop))
    );
    assert_eq!(
        (sms.from_geo.state.as_deref(), sms.from_geo.city.as_deref()),
        (Some("NY"), None)
    );
    assert_eq!(
        (sms.to_geo.state.as_deref(), sms.to_geo.country.as_deref()),
        (Some("CA"), Some("US"))
    );
    assert_eq!(
        sms.messaging_service_sid.unwrap().as_str(),
        "MG00000000000000000000000000000001"
    );
    assert_eq!(sms.referral.unwrap().source_type, Some(ReferralSource::Ad));
    let add_ons = sms.add_ons.unwrap();
    assert_eq!((add_ons.as_str(), add_ons.value()), ("not json", None));
}

#[tokio::test]
async fn handler_receives_verified_parameters_in_order() {
    let (app, messages) = build_recording_app();
    let webhook = Webhook::message(1, "hi")
        .with("Unknown", "ñ")
        .also("Unknown", "2")
        .with("zz", "");
    app.send(webhook.clone()).await.twiml();
    let messages = messages.lock().unwrap();
    assert_eq!(messages[0].params, webhook.form);
    assert_eq!(messages[0].params.get("Unknown"), Some("ñ"));
}

// This holds with and without a trailing slash and the path prefix of the public URL.
#[tokio::test]
async fn endpoint_accepts_post_put_and_get_only() {
    let app = TestApp::build(
        &[("PUBLIC_URL", "https://hooks.example.test/bots/a")],
        |app| app,
    );
    for endpoint in ["/webhook", "/webhook/fallback", "/webhook/status"] {
        for slash in ["", "/"] {
            for prefix in ["", "/bots/a"] {
                let path = format!("{prefix}{endpoint}{slash}");
                let url = format!("https://hooks.example.test/bots/a{endpoint}{slash}");
                let message = Webhook::message(1, "hi").to(&path);
                let message = if endpoint == "/webhook/status" {
                    message.with("MessageStatus", "sent")
                } else {
                    message
                };
                app.send(message.clone().signed_for(&url)).await.twiml();
                app.send(message.clone().signed_for(&url).method(Method::PUT))
                    .await
                    .twiml();
                let get = message.clone().get();
                let url = format!("{url}?{}", get.form.encode());
                app.send(get.signed_for(&url)).await.twiml();
                for method in [
                    Method::HEAD,
                    Method::DELETE,
                    Method::PATCH,
                    Method::OPTIONS,
                    Method::TRACE,
                ] {
                    let answer = app.send(message.clone().method(method)).await;
                    assert_eq!(
                        (answer.status, answer.header("allow")),
                        (405, Some("GET, POST, PUT"))
                    );
                }
            }
        }
    }
    assert_eq!(
        app.send(Webhook::message(1, "hi").to("/other"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn response_has_own_request_id() {
    let app = TestApp::echo();
    let first = app.send(Webhook::message(1, "hi")).await;
    let second = app.send(Webhook::message(2, "hi").signature("")).await;
    let ids = [
        first.header("x-request-id").unwrap(),
        second.header("x-request-id").unwrap(),
    ];
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn threat_14_content_type_other_than_form_gets_415() {
    let app = TestApp::echo();
    let message = Webhook::message(1, "hi");
    for content_type in [
        None,
        Some("application/json"),
        Some("text/plain"),
        Some("multipart/form-data; boundary=x"),
        Some("application/x-www-form-urlencoded; charset=utf-16"),
        Some("application/x-www-form-urlencoded-not"),
        Some(""),
    ] {
        app.send(message.clone().content_type(content_type))
            .await
            .assert_rejected(415);
    }
    for content_type in [
        "application/x-www-form-urlencoded; charset=UTF-8",
        "Application/X-WWW-Form-Urlencoded;charset=\"utf-8\"",
        "application/x-www-form-urlencoded; boundary=x",
    ] {
        app.send(message.clone().content_type(Some(content_type)))
            .await
            .twiml();
    }
    app.send(message.header("Content-Type", "application/json"))
        .await
        .assert_rejected(415);
}

// Brackets in a parameter name have no meaning.
#[tokio::test]
async fn threat_20_parameters_beyond_512_are_rejected() {
    let app = TestApp::echo();
    let fill = |count: usize| {
        (0..count).fold(Webhook::message(1, "hi"), |webhook, n| {
            webhook.also(&format!("p{n}"), "")
        })
    };
    let used = Webhook::message(1, "hi").form.len();
    app.send(fill(512 - used)).await.twiml();
    app.send(fill(513 - used)).await.assert_rejected(400);
    let form = (0..10_000)
        .map(|n| format!("{n}="))
        .collect::<Vec<_>>()
        .join("&");
    app.send(Webhook::message(1, "hi").body(form))
        .await
        .assert_rejected(400);
    let (app, messages) = build_recording_app();
    app.send(
        Webhook::message(2, "hi")
            .with("a[b][c]", "1")
            .with("a[b]", "2"),
    )
    .await
    .twiml();
    assert_eq!(messages.lock().unwrap()[0].params.get("a[b][c]"), Some("1"));
}

/// Processor time of this thread for parsing, signing and reading a message with these further parameters.
fn measure_reading(names: &[String]) -> Duration {
    let body = format!(
        "{}&{}",
        Webhook::message(1, "hi").form.encode(),
        names.join("&")
    );
    let started = cpu_time();
    let form = FormParams::parse(body.as_bytes(), usize::MAX).unwrap();
    assert!(form.len() > names.len());
    let token = Secret::new(crate::support::TOKEN);
    sign(&token, crate::support::ORIGIN, Some(&form)).unwrap();
    InboundMessage::parse(form, Timestamp::UNIX_EPOCH).unwrap();
    cpu_time().saturating_sub(started)
}

// The names have the same length, the same first and last eight bytes, and the same polynomial hash. A map without a
// random key would compare each with all others: for so many names, that takes many times as long.
#[test]
fn threat_21_colliding_parameter_names_cost_little_more() {
    let colliding: Vec<String> = (0..1 << 14)
        .map(|number: u32| {
            let middle = (0..14).map(|bit| ["Aa", "BB"][usize::from((number >> bit) & 1 == 1)]);
            format!("prefix__{}__suffix", middle.collect::<String>())
        })
        .collect();
    let different: Vec<String> = (0..1 << 14)
        .map(|number: u32| format!("{:08x}{:036}", number.wrapping_mul(0x9E37_79B1), number))
        .collect();
    assert_eq!(colliding[0].len(), different[0].len());
    // The minimum of several runs: an interruption can only make a run longer.
    let runs = (0..5).map(|_| (measure_reading(&colliding), measure_reading(&different)));
    let (colliding, different): (Vec<_>, Vec<_>) = runs.unzip();
    let (colliding, different) = (colliding.iter().min(), different.iter().min());
    assert!(
        *colliding.unwrap() < *different.unwrap() * 8,
        "{colliding:?}, and without collisions {different:?}"
    );
    // Equal names do not merge: the list keeps every pair.
    let equal = vec!["aaaaaaaaaaaaaaaa=x"; 512].join("&");
    assert_eq!(parse_form(&equal).len(), 512);
}

#[tokio::test]
async fn threat_23_invalid_utf8_is_rejected_and_nul_preserved() {
    let app = TestApp::echo();
    for bad in ["Body=%ff", "Body=%C0%80", "Body=%ED%A0%80", "Bo%C3=%A9"] {
        app.send(Webhook::message(1, "hi").body(format!("MessageSid=SM1&{bad}")))
            .await
            .assert_rejected(400);
    }
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="bad_form"}"#)
            .await,
        4.0
    );
    let (app, messages) = build_recording_app();
    app.send(Webhook::message(2, "a\0b")).await.twiml();
    assert_eq!(messages.lock().unwrap()[0].body, "a\0b");
}

// A valid signature does not excuse a missing or malformed MessageSid, AccountSid, From or To.
#[tokio::test]
async fn threat_24_message_without_valid_identifiers_is_rejected() {
    let app = TestApp::with(async |_, _| -> &str { unreachable!("the handler was called") });
    for (name, value) in [
        ("MessageSid", "SM1"),
        ("MessageSid", "SMzz000000000000000000000000000001"),
        ("MessageSid", "XX00000000000000000000000000000001"),
        ("MessageSid", "sm00000000000000000000000000000001"),
        ("AccountSid", "AC1"),
        ("MessageSid", ""),
        ("From", ""),
        ("To", ""),
    ] {
        app.send(Webhook::message(1, "hi").with(name, value))
            .await
            .assert_rejected(400);
    }
    for name in ["MessageSid", "AccountSid", "From", "To"] {
        app.send(Webhook::message(1, "hi").without(name))
            .await
            .assert_rejected(400);
    }
    // The signed string has no delimiters, so moving a boundary between name and value keeps the signature valid.
    let reshaped = Webhook::message(1, "hi")
        .without("Body")
        .with("Bod", "yhi")
        .without("MessageSid")
        .with("MessageSi", &format!("dSM{:032x}", 1));
    assert_eq!(
        reshaped.signature_for("https://hooks.example.test"),
        Webhook::message(1, "hi").signature_for("https://hooks.example.test")
    );
    app.send(reshaped).await.assert_rejected(400);
}

#[tokio::test]
async fn threat_25_long_and_unusual_texts_come_back_unchanged() {
    let app = TestApp::echo();
    for (number, text) in [
        "😀".repeat(800),
        "א".repeat(1600),
        "👨‍👩‍👧‍👦".repeat(60),
        "e\u{301}\u{200F}\u{202E}x".to_owned(),
        "é".repeat(1600),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(app.says(number as u64, text).await, twiml_message(text));
    }
}

#[tokio::test]
async fn status_callback_on_message_url_skips_handler() {
    let app = TestApp::with(async |_, _| -> &str { unreachable!("the handler was called") });
    let callback = Webhook::message(1, "")
        .with("MessageStatus", "delivered")
        .with("SmsStatus", "delivered");
    assert_eq!(app.send(callback).await.twiml(), EMPTY);
    assert_eq!(
        app.metric(r#"replyhook_status_updates_total{status="delivered"}"#)
            .await,
        1.0
    );
}

#[tokio::test]
async fn message_with_empty_status_reaches_handler() {
    let app = TestApp::echo();
    assert_eq!(
        app.send(Webhook::message(1, "hi").with("MessageStatus", ""))
            .await
            .twiml(),
        twiml_message("hi")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn text_reaches_handler_unchanged(text in any::<String>(), name in any::<String>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (app, messages) = build_recording_app();
            app.send(Webhook::message(1, &text).with("ProfileName", &name)).await.twiml();
            let messages = messages.lock().unwrap();
            prop_assert_eq!(&messages[0].body, &text);
            prop_assert_eq!(messages[0].profile_name.as_deref().unwrap_or_default(), &name);
            Ok(())
        })?;
    }
}
