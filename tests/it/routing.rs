//! The `Router`: the first matching route replies, despite spelling variants.

use proptest::prelude::*;
use replyhook::route::{
    Captures, FromMessage, PatternError, Router, Shared, any_button, any_list_item, any_media,
    anything, audio, button, channel, command, country, document, first_contact, flow_response,
    forwarded, hours, image, list_item, location, matches, media, quotes_our_message, regex, text,
    try_regex, video, within_km, words,
};
use replyhook::route::{Filter, RouteRequest};
use replyhook::{
    Channel, Context, FormParams, Handler, InboundMessage, Reply, ReplyMessage, Timestamp,
};
use serde::Deserialize;

use crate::support::{EMPTY, TestApp, Webhook, twiml_message};

type Params<'a> = &'a [(&'a str, &'a str)];

/// Parses a message from a form with these additional parameters.
fn message(body: &str, more: &[(&str, &str)]) -> InboundMessage {
    let base = [
        ("MessageSid", "SM00000000000000000000000000000001"),
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("From", "whatsapp:+15550001111"),
        ("To", "whatsapp:+15550002222"),
        ("Body", body),
    ];
    let pairs = base
        .into_iter()
        .filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    let form: FormParams = pairs.chain(more.iter().copied()).collect();
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    InboundMessage::parse(form, now).unwrap()
}

async fn first_reply(bot: &impl Handler, message: InboundMessage) -> Option<String> {
    let cx = Context::new(1, Timestamp::UNIX_EPOCH);
    let reply = bot.handle(cx, message).await.unwrap();
    reply
        .messages()
        .first()
        .map(|message| message.body().to_owned())
}

async fn is_match(filter: Filter, body: &str, more: &[(&str, &str)]) -> bool {
    let bot = Router::new().on(filter, "yes");
    first_reply(&bot, message(body, more)).await.is_some()
}

#[derive(Deserialize)]
struct Order {
    id: u32,
    size: Option<String>,
}

async fn order(Captures(order): Captures<Order>) -> String {
    format!("order {} {}", order.id, order.size.unwrap_or_default())
}

async fn remind(Captures((minutes, what)): Captures<(u32, String)>, cx: Context) -> String {
    format!("in {minutes}: {what} ({})", cx.attempt())
}

fn shop() -> Router {
    Router::new()
        .on(text(["hi", "olá"]), "Hello!")
        .on(regex(r"^order (?<id>\d+)( (?<size>small|large))?$"), order)
        .on(command("remind"), remind)
        .on(image(), |message: InboundMessage| async move {
            Reply::text(format!("{} picture(s)", message.media.len()))
        })
        .on(
            words("refund"),
            ReplyMessage::text("Somebody will call you."),
        )
        .otherwise("Write: order 42")
}

// Case, accents, spaces and punctuation do not matter; a capture that does not fit its type is not a match.
#[tokio::test]
async fn first_matching_route_replies_despite_spelling_variants() {
    let app = TestApp::with(shop());
    let answers = [
        ("hi", "Hello!"),
        ("  OLA ", "Hello!"),
        ("Olá", "Hello!"),
        ("order 42", "order 42 "),
        ("Order 42 Large", "order 42 Large"),
        ("/remind 5 green  tea", "in 5: green  tea (1)"),
        ("/REMIND 5 tea", "in 5: tea (1)"),
        ("I'd like a *refund*, please", "Somebody will call you."),
        // No match: a capture that does not fit its type, or another word.
        ("order 99999999999", "Write: order 42"),
        ("/remind five tea", "Write: order 42"),
        ("/reminder 5 tea", "Write: order 42"),
        ("refunds", "Write: order 42"),
        ("", "Write: order 42"),
    ];
    for (number, (body, answer)) in (1..).zip(answers) {
        assert_eq!(
            app.says(number, body).await,
            twiml_message(answer),
            "{body:?}"
        );
    }
    let picture = Webhook::message(90, "look")
        .with("NumMedia", "1")
        .with("MediaUrl0", "https://api.twilio.com/1")
        .with("MediaContentType0", "image/jpeg");
    assert_eq!(
        app.send(picture).await.twiml(),
        twiml_message("1 picture(s)")
    );
}

#[tokio::test]
async fn router_without_match_and_otherwise_sends_nothing() {
    let app = TestApp::with(Router::new().on(text("hi"), "Hello!"));
    assert_eq!(app.says(1, "ho").await, EMPTY);
}

#[tokio::test]
async fn filter_matches_only_its_messages() {
    let jpeg = [("MediaUrl0", "u"), ("MediaContentType0", "image/jpeg")];
    let pdf = [("MediaUrl0", "u"), ("MediaContentType0", "application/pdf")];
    let voice = [
        ("MediaUrl0", "u"),
        ("MediaContentType0", "audio/ogg; codecs=opus"),
    ];
    let card = [("MediaUrl0", "u"), ("MediaContentType0", "text/vcard")];
    let untyped = [("MediaUrl0", "u"), ("MessageType", "video")];
    let berlin = [("Latitude", "52.52"), ("Longitude", "13.405")];
    let pressed = [("ButtonPayload", "confirm:42"), ("ButtonText", "Yes!")];
    let bare = [("ButtonText", "Yes!")];
    let chosen = [("ListId", "red"), ("ListTitle", "Red ones")];
    let flow = [("FlowData", r#"{"a":1}"#)];
    let sms = [("From", "+4915112345678"), ("To", "+15550002222")];
    let sms_from_austria = [
        ("From", "+4915112345678"),
        ("To", "+15550002222"),
        ("FromCountry", "AT"),
    ];
    let scoped = [("From", "whatsapp:BR.13491208655302741918")];
    let quoting = [
        (
            "OriginalRepliedMessageSid",
            "SM00000000000000000000000000000009",
        ),
        ("OriginalRepliedMessageSender", "whatsapp:+15550002222"),
    ];
    let quoting_another = [
        (
            "OriginalRepliedMessageSid",
            "SM00000000000000000000000000000009",
        ),
        ("OriginalRepliedMessageSender", "whatsapp:+15550003333"),
    ];
    let none: [(&str, &str); 0] = [];
    let table: Vec<(Filter, Params<'_>, bool)> = vec![
        (anything(), &none, true),
        (any_media(), &jpeg, true),
        (any_media(), &none, false),
        (image(), &jpeg, true),
        (image(), &pdf, false),
        (media("image/*"), &jpeg, true),
        (media("image/png"), &jpeg, false),
        (media("application/pdf"), &pdf, true),
        (document(), &pdf, true),
        (document(), &card, false),
        (media("contact"), &card, true),
        (audio(), &voice, true),
        (video(), &untyped, true),
        (location(), &berlin, true),
        (location(), &none, false),
        (within_km(52.5, 13.4, 3.0), &berlin, true),
        (within_km(52.5, 13.4, 1.0), &berlin, false),
        (within_km(48.1, 11.6, 500.0), &berlin, false),
        (any_button(), &pressed, true),
        (any_button(), &none, false),
        (button("confirm:42"), &pressed, true),
        (button("CONFIRM:42"), &pressed, false),
        (button("yes!"), &pressed, false),
        (button(["no", "yes!"]), &bare, true),
        (any_list_item(), &chosen, true),
        (list_item("red"), &chosen, true),
        (list_item("blue"), &chosen, false),
        (flow_response(), &flow, true),
        (flow_response(), &none, false),
        (forwarded(), &[("Forwarded", "true")], true),
        (forwarded(), &[("FrequentlyForwarded", "true")], true),
        (forwarded(), &none, false),
        (quotes_our_message(), &quoting, true),
        (quotes_our_message(), &quoting_another, false),
        (quotes_our_message(), &none, false),
        (channel(Channel::WhatsApp), &none, true),
        (channel(Channel::Sms), &sms, true),
        (channel(Channel::Sms), &none, false),
        (country("us"), &none, true),
        (country(["DE", "AT"]), &sms, true),
        (country("DE"), &sms_from_austria, false),
        (country("AT"), &sms_from_austria, true),
        (country("BR"), &scoped, true),
        (hours("mon-fri 09:00-17:00", "UTC"), &none, true),
        (hours("mon-fri 09:00-17:00", "Asia/Tokyo"), &none, false),
        (
            matches("short", |message| message.body.len() < 3),
            &none,
            true,
        ),
    ];
    for (filter, more, expected) in table {
        let text = filter.to_string();
        assert_eq!(
            is_match(filter, "hi", more).await,
            expected,
            "{text} {more:?}"
        );
    }
    assert!(is_match(image() & !country("US") | text("hi"), "hi", &none).await);
    assert!(!is_match(!(image() | text("hi")), "hi", &none).await);
}

#[tokio::test]
async fn nested_router_shares_state_and_falls_through() {
    #[derive(Clone)]
    struct Shop(&'static str);

    /// Custom handler argument.
    struct Loud(String);

    impl FromMessage<Shop> for Loud {
        fn from_message(call: &RouteRequest<'_, Shop>) -> Option<Self> {
            let text = call.message().text()?;
            Some(Self(format!(
                "{} at {}",
                text.to_uppercase(),
                call.shared().0
            )))
        }
    }

    async fn about(Shared(shop): Shared<Shop>) -> String {
        format!("This is {}.", shop.0)
    }

    async fn loud(Loud(text): Loud) -> String {
        text
    }

    let by_sms = Router::new()
        .on(text("about"), "See the web.")
        .on(text("loud"), loud);
    let bot = Router::new()
        .nest(channel(Channel::Sms), by_sms)
        .on(text("about"), about)
        .with_state(Shop("Ana's"));
    let by_sms = [("From", "+15550001111"), ("To", "+15550002222")];
    assert_eq!(
        first_reply(&bot, message("about", &[])).await.as_deref(),
        Some("This is Ana's.")
    );
    assert_eq!(
        first_reply(&bot, message("about", &by_sms))
            .await
            .as_deref(),
        Some("See the web.")
    );
    assert_eq!(
        first_reply(&bot, message("loud", &by_sms)).await.as_deref(),
        Some("LOUD at Ana's")
    );
    // Without a match in the nested router, the outer routes are tried.
    let bot = Router::new()
        .nest(anything(), Router::new().on(text("a"), "inner"))
        .on(text("b"), "outer");
    assert_eq!(
        first_reply(&bot, message("b", &[])).await.as_deref(),
        Some("outer")
    );
}

#[tokio::test]
async fn handler_as_route_gets_matching_messages() {
    async fn upper(_cx: Context, message: InboundMessage) -> String {
        message.body.to_uppercase()
    }
    let bot = Router::new()
        .on_handler(words("loud"), upper)
        .otherwise("?");
    assert_eq!(
        first_reply(&bot, message("so loud", &[])).await.as_deref(),
        Some("SO LOUD")
    );
}

#[test]
fn route_table_display_lists_all_routes() {
    let by_sms = Router::new().on(text("hi"), "Hello by SMS");
    let bot: Router = Router::new()
        .nest(channel(Channel::Sms), by_sms)
        .on(text(["hi", "hello"]) & first_contact(), "Welcome!")
        .on(regex(r"^order (?<id>\d+)$") | command("order"), order)
        .on(image() & !country("US"), |_: InboundMessage| async {})
        .on(
            hours("mon-fri 09:00-17:00", "Europe/Berlin"),
            "We are here.",
        )
        .otherwise("?");
    let table = r#"
1    channel sms
1.1  text "hi"                                     says "Hello by SMS"
2    text "hi", "hello" & first contact            says "Welcome!"
3    regex "^order (?<id>\\d+)$" | command /order  order
4    media image & !country US                     a closure
5    during mon-fri 09:00-17:00 Europe/Berlin      says "We are here."
     otherwise                                     says "?""#;
    assert_eq!(bot.to_string(), table.trim_start());
}

#[test]
fn invalid_or_slow_pattern_fails_at_construction() {
    assert!(try_regex("(").is_err());
    for bomb in ["((a{100}){100}){100}", "([ab]{1,5000}){1,2}c"] {
        assert_eq!(try_regex(bomb).err(), Some(PatternError::TooSlow));
    }
    assert!(std::panic::catch_unwind(|| regex("(")).is_err());
    assert!(std::panic::catch_unwind(|| hours("always", "UTC")).is_err());
}

// An aborted match must not count as no match, not even below a negation, and the error omits the text.
#[tokio::test]
async fn pattern_match_exceeding_limit_returns_error() {
    let bot = Router::new()
        .on(!regex("[ab]*a[ab]{300}c"), "none")
        .otherwise("one");
    let cx = || Context::new(1, Timestamp::UNIX_EPOCH);
    let long = bot.handle(cx(), message(&"ab".repeat(1500), &[])).await;
    let error = long.unwrap_err().to_string();
    assert!(error.contains("too long with this message"), "{error}");
    assert!(!error.contains("abab"), "{error}");
    let short = first_reply(&bot, message(&"ab".repeat(100), &[])).await;
    assert_eq!(short.as_deref(), Some("none"));
}

#[tokio::test]
async fn combined_filters_merge_their_captures() {
    let filter = regex(r"(?<id>\d+)") & regex("(?<size>small|large)");
    let bot = Router::new().on(filter, order).otherwise("?");
    let reply = first_reply(&bot, message("a large one: 7", &[])).await;
    assert_eq!(reply.as_deref(), Some("order 7 large"));
}

proptest! {
    // The reply is that of the first route that would match alone.
    #[test]
    fn route_order_decides_reply(
        sought in proptest::collection::vec(("[ab ]{0,3}", any::<bool>()), 0..8),
        body in "[aAbBá ]{0,5}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let filter = |(sought, whole): &(String, bool)| match whole {
                true => text(sought.clone()),
                false => words(sought.clone()),
            };
            let mut bot = Router::new();
            let mut expected = None;
            for (at, row) in sought.iter().enumerate() {
                if expected.is_none() && is_match(filter(row), &body, &[]).await {
                    expected = Some(at.to_string());
                }
                bot = bot.on(filter(row), at.to_string());
            }
            let answer = first_reply(&bot, message(&body, &[])).await;
            assert_eq!(answer, expected);
        });
    }
}
