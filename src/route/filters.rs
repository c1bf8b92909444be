//! Functions that create filters.

use std::sync::Arc;

use super::filter::{Filter, FilterKind, GeoCircle, SearchText};
use super::hours::{Hours, HoursError};
use super::pattern::{Pattern, PatternError};
use crate::address::Channel;
use crate::folding::{IntoTexts, fold, spaced_words};
use crate::message::InboundMessage;

fn search_texts(texts: impl IntoTexts, normalize: impl Fn(&str) -> String) -> Vec<SearchText> {
    let texts = texts.texts().into_iter();
    texts
        .map(|original| SearchText {
            normalized: normalize(&original),
            original,
        })
        .collect()
}

/// Matches every message.
///
/// ```
/// use replyhook::route::{Router, anything, hours};
///
/// let closed = Router::new().on(anything(), "We are closed. Tomorrow at nine!");
/// let bot = Router::<()>::new().nest(!hours("mon-fri 09:00-17:30", "Europe/Berlin"), closed);
/// # drop(bot);
/// ```
pub fn anything() -> Filter {
    Filter(FilterKind::Anything)
}

/// Matches a whole text, ignoring case, accents, width, and the amount of white space.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, text};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = TestBot::start(|| App::builder().handler(Router::new().on(text("où est-ce"), "Here."))).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("  OU  est-ce ").await.assert_reply("Here.");
/// ana.says("où est-ce que").await.assert_no_reply();
/// # });
/// ```
pub fn text(texts: impl IntoTexts) -> Filter {
    Filter(FilterKind::Text(search_texts(texts, fold)))
}

/// Matches a word or a phrase anywhere in the text, ignoring case, accents, and punctuation between words.
///
/// Only whole words match. A text without letters and digits contains no words, so it never matches.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, words};
/// use replyhook::{App, testing::TestBot};
///
/// let refund = || Router::new().on(words(["refund", "money back"]), "We will call you.");
/// let bot = TestBot::start(move || App::builder().handler(refund())).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("I want my money, back!").await.assert_reply("We will call you.");
/// ana.says("Is it refundable?").await.assert_no_reply();
/// # });
/// ```
pub fn words(words: impl IntoTexts) -> Filter {
    // Without a word there is only a space to look for, which every text contains after `spaced_words`.
    let words = words.texts().into_iter().filter(|words| has_word(words));
    let words: Vec<_> = words.collect();
    Filter(FilterKind::Words(search_texts(words, |word| {
        spaced_words(&fold(word))
    })))
}

/// Returns true if [`words`] finds a word to look for in the text.
pub(crate) fn has_word(text: &str) -> bool {
    !spaced_words(&fold(text)).trim().is_empty()
}

/// Matches a command by its name, such as `order` for `/order 42`, ignoring case and accents.
///
/// [`Captures`](super::Captures) takes the text after the command.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Captures, Router, command};
/// use replyhook::{App, testing::TestBot};
///
/// async fn order(Captures(id): Captures<u32>) -> String {
///     format!("Order {id} ships today.")
/// }
///
/// let bot = TestBot::start(|| App::builder().handler(Router::new().on(command("order"), order))).await;
/// bot.sms("+34600000001").says("/Order 42").await.assert_reply("Order 42 ships today.");
/// # });
/// ```
pub fn command(name: impl Into<String>) -> Filter {
    Filter(FilterKind::Command(fold(
        name.into().trim_start_matches('/'),
    )))
}

/// Matches a regular expression anywhere in the text; anchor it with `^` and `$`.
///
/// The pattern ignores case, unless it says `(?-i)`, but not accents. It is matched against the text after NFKC
/// normalization, without white space around it. [`Captures`](super::Captures) takes its groups.
///
/// Patterns that could take long with a long text are rejected. If all patterns of a router together take more than
/// about 25 ms for one message, the handler fails for that message.
///
/// ```
/// use replyhook::route::{Captures, Router, regex};
///
/// async fn order(Captures((id, size)): Captures<(u32, String)>) -> String {
///     format!("Order {id}, {size}")
/// }
///
/// let bot = Router::new().on(regex(r"^order (\d+) (small|large)$"), order);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
///
/// # Panics
/// If the pattern is invalid or too expensive ([`PatternError`]). The panic occurs when the router is built, not when a
/// message arrives. [`try_regex`] returns the error instead.
#[track_caller]
pub fn regex(pattern: &str) -> Filter {
    try_regex(pattern).unwrap_or_else(|error| panic!("{error}"))
}

/// Matches a regular expression that is not known at compile time; see [`regex()`].
///
/// ```
/// use replyhook::route::try_regex;
///
/// let filter = try_regex(r"^order \d+$")?;
/// assert_eq!(filter.to_string(), r#"regex "^order \\d+$""#);
/// assert!(try_regex("(").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PatternError`] if the pattern is invalid, too large, or could take long with a long text.
pub fn try_regex(pattern: &str) -> Result<Filter, PatternError> {
    Pattern::compile(pattern).map(regex_filter)
}

/// Matches a compiled pattern.
pub(crate) fn regex_filter(pattern: Pattern) -> Filter {
    Filter(FilterKind::Regex(pattern))
}

/// Matches a message with media of any type.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, any_media, image};
///
/// async fn other(message: InboundMessage) -> String {
///     format!("{} file(s), but I can only view pictures.", message.media.len())
/// }
///
/// let bot = Router::new().on(image(), "What a picture!").on(any_media(), other);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn any_media() -> Filter {
    Filter(FilterKind::Media(None))
}

/// Matches media of a type, such as `application/pdf`, or of a kind: `image`, `audio`, `video`, `contact` or
/// `document`.
///
/// A document is media of any type that is not one of the other kinds.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, audio, document, image, media, video};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new()
///     .on(media("application/pdf"), "An invoice?")
///     .on(image() | video(), "Nice to see.")
///     .on(audio(), "I cannot listen.")
///     .on(document(), "Send it as PDF, please.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.sends_file("application/pdf", b"%PDF-1.7", "").await.assert_reply("An invoice?");
/// ana.sends_file("audio/ogg", b"OggS", "").await.assert_reply("I cannot listen.");
/// # });
/// ```
pub fn media(kind: impl Into<String>) -> Filter {
    let kind = kind.into().to_ascii_lowercase();
    // `image/*` means the kind `image`.
    Filter(FilterKind::Media(Some(
        kind.trim_end_matches("/*").to_owned(),
    )))
}

/// Matches a picture.
///
/// See [`media`] for an example.
pub fn image() -> Filter {
    media("image")
}

/// Matches a voice note or another audio file.
///
/// See [`media`] for an example.
pub fn audio() -> Filter {
    media("audio")
}

/// Matches a video.
///
/// See [`media`] for an example.
pub fn video() -> Filter {
    media("video")
}

/// Matches media that is not a picture, audio, video or contact.
///
/// See [`media`] for an example.
pub fn document() -> Filter {
    media("document")
}

/// Matches any location.
///
/// See [`within_km`] and [`Location::km_to`](crate::message::Location::km_to) for examples.
pub fn location() -> Filter {
    Filter(FilterKind::Location(None))
}

/// Matches a location at most `km` kilometres from a point, by great-circle distance.
///
/// `latitude` and `longitude` are in degrees, positive to the north and east.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, location, within_km};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new()
///     .on(within_km(40.4168, -3.7038, 10.0), "We deliver.")
///     .on(location(), "Too far, sorry.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.shares(40.4530, -3.6883, "Stadium").await.assert_reply("We deliver.");
/// ana.shares(41.3874, 2.1686, "Barcelona").await.assert_reply("Too far, sorry.");
/// # });
/// ```
pub fn within_km(latitude: f64, longitude: f64, km: f64) -> Filter {
    Filter(FilterKind::Location(Some(GeoCircle {
        latitude,
        longitude,
        km,
    })))
}

/// Matches any tapped button.
///
/// See [`button`] for an example.
pub fn any_button() -> Filter {
    Filter(FilterKind::Button(None))
}

/// Matches a tapped button by its payload, compared exactly.
///
/// A button without a payload matches by its text, compared as by [`text()`].
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, any_button, button};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new()
///     .on(button("confirm:42"), "Confirmed.")
///     .on(any_button(), "That button is an old one.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.presses("Yes", "confirm:42").await.assert_reply("Confirmed.");
/// ana.presses("Yes", "confirm:41").await.assert_reply("That button is an old one.");
/// # });
/// ```
pub fn button(payloads: impl IntoTexts) -> Filter {
    Filter(FilterKind::Button(Some(search_texts(payloads, fold))))
}

/// Matches any choice that the user has taken, by a tap or as a typed answer to the open question.
///
/// See [`choice`] for an example.
pub fn any_choice() -> Filter {
    Filter(FilterKind::Choice(None))
}

/// Matches a choice by its ID, which is the title unless the bot gives another. Case and accents do not matter.
///
/// A tap on a question that is over matches too. [`Chosen::current`](crate::choice::Chosen::current) is false then.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, choice};
/// use replyhook::{App, Reply, testing::TestBot};
///
/// let bot = || Router::new()
///     .on(choice("today"), "Before 6 pm.")
///     .otherwise(Reply::text("When shall we deliver?").choices(["Today", "Tomorrow"]));
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.sms("+34600000001");
/// ana.says("hi").await.assert_reply("When shall we deliver?\n1. Today\n2. Tomorrow");
/// ana.says("1").await.assert_reply("Before 6 pm.");
/// # });
/// ```
pub fn choice(ids: impl IntoTexts) -> Filter {
    Filter(FilterKind::Choice(Some(search_texts(ids, fold))))
}

/// Matches any choice from a list.
///
/// See [`list_item`] for an example.
pub fn any_list_item() -> Filter {
    Filter(FilterKind::List(None))
}

/// Matches a choice from a list by its id, compared exactly.
///
/// An item without an id matches by its title, compared as by [`text()`].
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, any_list_item, list_item};
///
/// async fn chosen(message: InboundMessage) -> Option<String> {
///     Some(format!("{}, very well.", message.list?.title?))
/// }
///
/// let bot = Router::new().on(list_item("human"), "A colleague will call.").on(any_list_item(), chosen);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn list_item(ids: impl IntoTexts) -> Filter {
    Filter(FilterKind::List(Some(search_texts(ids, fold))))
}

/// Matches the result of a WhatsApp Flow.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, flow_response};
///
/// async fn booked(message: InboundMessage) -> Option<String> {
///     let answers = message.flow_data?.value()?;
///     Some(format!("Booked for {}.", answers["date"].as_str()?))
/// }
///
/// let bot = Router::new().on(flow_response(), booked);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn flow_response() -> Filter {
    Filter(FilterKind::Flow)
}

/// Matches a user's first message to this sender, according to the journal.
///
/// A router with this filter queries the store once per message, unless a form is in progress.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, first_contact};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new().on(first_contact(), "Welcome!").otherwise("Hello again.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("hi").await.assert_reply("Welcome!");
/// ana.says("hi").await.assert_reply("Hello again.");
/// # });
/// ```
pub fn first_contact() -> Filter {
    Filter(FilterKind::FirstContact)
}

/// Matches a forwarded message.
///
/// ```
/// use replyhook::route::{Router, forwarded, image};
///
/// let bot = Router::<()>::new()
///     .on(image() & forwarded(), "A picture of your own, please.")
///     .on(image(), "Thank you!");
/// assert!(bot.to_string().contains("media image & forwarded"));
/// ```
pub fn forwarded() -> Filter {
    Filter(FilterKind::Forwarded)
}

/// Matches a message that quotes one of your messages.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, quotes_our_message};
///
/// async fn quoted(message: InboundMessage) -> Option<String> {
///     Some(format!("You mean {}.", message.replied_to?.message_sid))
/// }
///
/// let bot = Router::new().on(quotes_our_message(), quoted);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn quotes_our_message() -> Filter {
    Filter(FilterKind::QuotesOurMessage)
}

/// Matches messages of a channel.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, channel};
/// use replyhook::{App, Channel, testing::TestBot};
///
/// let bot = || Router::new().on(channel(Channel::Sms), "hello").otherwise("*hello* 👋");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// bot.sms("+34600000001").says("hi").await.assert_reply("hello");
/// bot.whatsapp("+34600000001").says("hi").await.assert_reply("*hello* 👋");
/// # });
/// ```
pub fn channel(channel: Channel) -> Filter {
    Filter(FilterKind::Channel(channel))
}

/// Matches users of a country, given as two letters such as `DE`.
///
/// The country comes from `FromCountry` (SMS), from a business-scoped id, or from the calling code and, for +1, the
/// area code.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, country};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new().on(country(["ES", "MX"]), "¡Hola!").otherwise("Hello!");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// bot.whatsapp("+34600000001").says("hi").await.assert_reply("¡Hola!");
/// bot.whatsapp("+4915112345678").says("hi").await.assert_reply("Hello!");
/// # });
/// ```
pub fn country(countries: impl IntoTexts) -> Filter {
    let countries = countries.texts().into_iter();
    Filter(FilterKind::Country(
        countries
            .map(|country| country.to_ascii_uppercase())
            .collect(),
    ))
}

/// Matches messages that arrive during these [`Hours`].
///
/// ```
/// use replyhook::route::{Hours, Router, during};
///
/// let office = Hours::parse("mon-fri 09:00-17:30", "Europe/Berlin")?;
/// let bot = Router::<()>::new().on(!during(office), "We are there on weekdays from nine.");
/// # drop(bot);
/// # Ok::<(), replyhook::route::HoursError>(())
/// ```
pub fn during(hours: Hours) -> Filter {
    Filter(FilterKind::During(hours))
}

/// Matches messages that arrive during hours such as `mon-fri 09:00-17:30` in a time zone such as `Europe/Berlin`.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use replyhook::route::{Router, hours};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new().on(hours("mon-fri 08:00-18:00", "UTC"), "Right away!").otherwise("On Monday.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// // The clock of a `TestBot` starts on a Monday.
/// ana.says("Help!").await.assert_reply("Right away!");
/// bot.advance(Duration::from_hours(5 * 24)).await;
/// ana.says("Help!").await.assert_reply("On Monday.");
/// # });
/// ```
///
/// # Panics
/// If the hours or the time zone are invalid. The panic occurs when the router is built, not when a message arrives.
/// [`Hours::parse`] returns the error instead.
#[track_caller]
pub fn hours(times: &str, zone: &str) -> Filter {
    let hours: Result<Hours, HoursError> = Hours::parse(times, zone);
    during(hours.unwrap_or_else(|error| panic!("{error}")))
}

/// Matches messages for which your function returns true. The name appears in the table of routes.
///
/// ```
/// use replyhook::route::{Router, matches};
///
/// let shouting = matches("shouting", |message| {
///     message.body.chars().any(char::is_alphabetic) && message.body == message.body.to_uppercase()
/// });
/// let bot = Router::<()>::new().on(shouting, "No need to shout.");
/// assert!(bot.to_string().contains("shouting"));
/// ```
pub fn matches(
    name: &'static str,
    predicate: impl Fn(&InboundMessage) -> bool + Send + Sync + 'static,
) -> Filter {
    Filter(FilterKind::Predicate(name, Arc::new(predicate)))
}

/// Matches messages that all filters match, like `&`. An empty list matches every message.
///
/// ```
/// use replyhook::route::{all, image, forwarded};
///
/// assert_eq!(all(vec![image(), !forwarded()]).to_string(), "media image & !forwarded");
/// ```
pub fn all(filters: Vec<Filter>) -> Filter {
    // A single filter stays itself, so that the table of routes shows it without parentheses.
    match <[Filter; 1]>::try_from(filters) {
        Ok([filter]) => filter,
        Err(filters) => Filter(FilterKind::All(filters)),
    }
}

/// Matches messages that at least one filter matches, like `|`. An empty list matches no message.
///
/// ```
/// use replyhook::route::{command, any, text};
///
/// let filters = ["hours", "menu"].map(|word| text(word) | command(word));
/// assert_eq!(
///     any(filters.into()).to_string(),
///     r#"(text "hours" | command /hours) | (text "menu" | command /menu)"#
/// );
/// ```
pub fn any(filters: Vec<Filter>) -> Filter {
    match <[Filter; 1]>::try_from(filters) {
        Ok([filter]) => filter,
        Err(filters) => Filter(FilterKind::Any(filters)),
    }
}
