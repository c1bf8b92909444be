//! What a route can look for.

use std::sync::Arc;

use super::filter::{Filter, Kind, Near, Sought};
use super::hours::{Hours, HoursError};
use super::pattern::{PATTERN_BYTES, Pattern, PatternError};
use crate::address::Channel;
use crate::handler::folding::{fold, spaced_words};
use crate::message::InboundMessage;

/// One text or several of which any will do: `"hi"`, `["hi", "hello"]`, a `Vec`.
///
/// ```
/// use replyhook::route::text;
///
/// assert_eq!(text("hi").to_string(), r#"text "hi""#);
/// assert_eq!(text(["hi", "hello"]).to_string(), r#"text "hi", "hello""#);
/// let configured: Vec<String> = "hi hello".split(' ').map(str::to_owned).collect();
/// assert_eq!(text(configured).to_string(), r#"text "hi", "hello""#);
/// ```
pub trait Texts {
    /// The texts.
    fn texts(self) -> Vec<String>;
}

impl Texts for &str {
    fn texts(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Texts for String {
    fn texts(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>, const N: usize> Texts for [T; N] {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> Texts for Vec<T> {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

fn sought(texts: impl Texts, compared: impl Fn(&str) -> String) -> Vec<Sought> {
    let texts = texts.texts().into_iter();
    texts
        .map(|written| Sought {
            compared: compared(&written),
            written,
        })
        .collect()
}

/// Every message.
///
/// ```
/// use replyhook::route::{Router, anything, hours};
///
/// let closed = Router::new().on(anything(), "We are closed. Tomorrow at nine!");
/// let bot = Router::<()>::new().nest(!hours("mon-fri 09:00-17:30", "Europe/Berlin"), closed);
/// # drop(bot);
/// ```
pub fn anything() -> Filter {
    Filter(Kind::Anything)
}

/// A whole text. Case, accents, width and space around and between do not matter.
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
pub fn text(texts: impl Texts) -> Filter {
    Filter(Kind::Text(sought(texts, fold)))
}

/// A word, or words in a row, anywhere in the text. Case, accents and what stands between words do not matter; a part of a word
/// is none, and where there is no letter and no digit, there is no word.
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
pub fn words(words: impl Texts) -> Filter {
    let words = words.texts().into_iter().filter(|words| has_word(words));
    let words: Vec<_> = words.collect();
    Filter(Kind::Words(sought(words, |word| spaced_words(&fold(word)))))
}

/// Whether [`words`] would look for anything.
pub(crate) fn has_word(text: &str) -> bool {
    !spaced_words(&fold(text)).trim().is_empty()
}

/// `/order 42`: the command's name, without the slash. Case and accents do not matter. [`Captures`](super::Captures) has what
/// stands behind it.
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
    Filter(Kind::Command(fold(name.into().trim_start_matches('/'))))
}

/// A regular expression, anywhere in the text unless `^` and `$` say otherwise: without case (`(?-i)` turns that off), on the
/// text after NFKC and without space around it. Accents do matter here. [`Captures`](super::Captures) has its groups.
///
/// Patterns that a text could keep busy are refused, and where all of a router take over some 25 ms with one message, the message
/// fails as a handler's error does.
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
/// Where the pattern is none, or one that takes too much ([`PatternError`]): this happens when the bot is put together. [`try_regex`] says so.
#[track_caller]
pub fn regex(pattern: &str) -> Filter {
    try_regex(pattern).unwrap_or_else(|error| panic!("{error}"))
}

/// The same for a pattern that is not known before.
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
/// [`PatternError`]: the pattern is none, too large, or a long text could keep it busy for long.
pub fn try_regex(pattern: &str) -> Result<Filter, PatternError> {
    Pattern::within(pattern, PATTERN_BYTES).map(of_pattern)
}

/// A pattern that was compiled.
pub(crate) fn of_pattern(pattern: Pattern) -> Filter {
    Filter(Kind::Regex(pattern))
}

/// Any file.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, any_media, image};
///
/// async fn other(message: InboundMessage) -> String {
///     format!("{} file(s), but I can only look at pictures.", message.media.len())
/// }
///
/// let bot = Router::new().on(image(), "What a picture!").on(any_media(), other);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn any_media() -> Filter {
    Filter(Kind::Media(None))
}

/// A file of a type such as `image`, `application/pdf`, or `document`: what is none of image, audio, video and contact.
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
    Filter(Kind::Media(Some(kind.trim_end_matches("/*").to_owned())))
}

/// A picture.
///
/// In a router: see [`media`].
pub fn image() -> Filter {
    media("image")
}

/// A voice note, or another recording.
///
/// In a router: see [`media`].
pub fn audio() -> Filter {
    media("audio")
}

/// A film.
///
/// In a router: see [`media`].
pub fn video() -> Filter {
    media("video")
}

/// A file that is none of picture, recording, film and contact.
///
/// In a router: see [`media`].
pub fn document() -> Filter {
    media("document")
}

/// Any location.
///
/// In a router: see [`near`], and [`Location::km_to`](crate::message::Location::km_to).
pub fn location() -> Filter {
    Filter(Kind::Location(None))
}

/// A location within so many kilometres of a place, as the crow flies.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, location, near};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new()
///     .on(near(40.4168, -3.7038, 10.0), "We deliver.")
///     .on(location(), "Too far, sorry.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.shares(40.4530, -3.6883, "Stadium").await.assert_reply("We deliver.");
/// ana.shares(41.3874, 2.1686, "Barcelona").await.assert_reply("Too far, sorry.");
/// # });
/// ```
pub fn near(latitude: f64, longitude: f64, km: f64) -> Filter {
    Filter(Kind::Location(Some(Near {
        latitude,
        longitude,
        km,
    })))
}

/// Any pressed button.
///
/// With others behind it: see [`button`].
pub fn any_button() -> Filter {
    Filter(Kind::Button(None))
}

/// A pressed button: its payload as it is, or, where it has none, its text, as [`text()`] compares.
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
pub fn button(payloads: impl Texts) -> Filter {
    Filter(Kind::Button(Some(sought(payloads, fold))))
}

/// Any choice from a list.
///
/// With others before it: see [`list_item`].
pub fn any_list_item() -> Filter {
    Filter(Kind::List(None))
}

/// A choice from a list: its id as it is, or, where it has none, its title, as [`text()`] compares.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, any_list_item, list_item};
///
/// async fn chosen(message: InboundMessage) -> Option<String> {
///     Some(format!("{}, very well.", message.list?.title?))
/// }
///
/// let bot = Router::new().on(list_item("human"), "Somebody will call.").on(any_list_item(), chosen);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn list_item(ids: impl Texts) -> Filter {
    Filter(Kind::List(Some(sought(ids, fold))))
}

/// What a WhatsApp Flow gave.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, flow_answer};
///
/// async fn booked(message: InboundMessage) -> Option<String> {
///     let answers = message.flow_data?.value()?;
///     Some(format!("Booked for {}.", answers["date"].as_str()?))
/// }
///
/// let bot = Router::new().on(flow_answer(), booked);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn flow_answer() -> Filter {
    Filter(Kind::Flow)
}

/// The first message of its author to this sender of yours, as far as the journal knows.
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
    Filter(Kind::FirstContact)
}

/// A forwarded message.
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
    Filter(Kind::Forwarded)
}

/// A message that quotes one of yours.
///
/// ```
/// use replyhook::InboundMessage;
/// use replyhook::route::{Router, reply_to_us};
///
/// async fn quoted(message: InboundMessage) -> Option<String> {
///     Some(format!("You mean {}.", message.replied_to?.message_sid))
/// }
///
/// let bot = Router::new().on(reply_to_us(), quoted);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn reply_to_us() -> Filter {
    Filter(Kind::ReplyToUs)
}

/// A channel.
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
    Filter(Kind::Channel(channel))
}

/// Authors of a country, as in `DE`: as Twilio says (SMS), by a business-scoped id, or by the calling code and, for +1, the
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
pub fn country(countries: impl Texts) -> Filter {
    let countries = countries.texts().into_iter();
    Filter(Kind::Country(
        countries
            .map(|country| country.to_ascii_uppercase())
            .collect(),
    ))
}

/// Messages that come in these [`Hours`].
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
    Filter(Kind::During(hours))
}

/// Messages that come in hours such as `mon-fri 09:00-17:30` of a time zone such as `Europe/Berlin`.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use replyhook::route::{Router, hours};
/// use replyhook::{App, testing::TestBot};
///
/// let bot = || Router::new().on(hours("mon-fri 08:00-18:00", "UTC"), "At once!").otherwise("On Monday.");
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// let ana = bot.whatsapp("+34600000001");
/// // A kit's first day is a Monday.
/// ana.says("Help!").await.assert_reply("At once!");
/// bot.advance(Duration::from_hours(5 * 24)).await;
/// ana.says("Help!").await.assert_reply("On Monday.");
/// # });
/// ```
///
/// # Panics
/// Where there are no such hours: this happens when the bot is put together. [`Hours::parse`] says so.
#[track_caller]
pub fn hours(times: &str, zone: &str) -> Filter {
    let hours: Result<Hours, HoursError> = Hours::parse(times, zone);
    during(hours.unwrap_or_else(|error| panic!("{error}")))
}

/// Whatever your function says yes to; the name is for the table of routes.
///
/// ```
/// use replyhook::route::{Router, when};
///
/// let shouting = when("shouting", |message| {
///     message.body.chars().any(char::is_alphabetic) && message.body == message.body.to_uppercase()
/// });
/// let bot = Router::<()>::new().on(shouting, "No need to shout.");
/// assert!(bot.to_string().contains("shouting"));
/// ```
pub fn when(
    name: &'static str,
    predicate: impl Fn(&InboundMessage) -> bool + Send + Sync + 'static,
) -> Filter {
    Filter(Kind::Predicate(name, Arc::new(predicate)))
}

/// All of these, as `&` makes it of two; without any, every message.
///
/// ```
/// use replyhook::route::{all, image, forwarded};
///
/// assert_eq!(all(vec![image(), !forwarded()]).to_string(), "media image & !forwarded");
/// ```
pub fn all(filters: Vec<Filter>) -> Filter {
    match <[Filter; 1]>::try_from(filters) {
        Ok([filter]) => filter,
        Err(filters) => Filter(Kind::All(filters)),
    }
}

/// One of these at least, as `|` makes it of two; without any, no message.
///
/// ```
/// use replyhook::route::{command, one_of, text};
///
/// let filters = ["hours", "menu"].map(|word| text(word) | command(word));
/// assert_eq!(
///     one_of(filters.into()).to_string(),
///     r#"(text "hours" | command /hours) | (text "menu" | command /menu)"#
/// );
/// ```
pub fn one_of(filters: Vec<Filter>) -> Filter {
    match <[Filter; 1]>::try_from(filters) {
        Ok([filter]) => filter,
        Err(filters) => Filter(Kind::OneOf(filters)),
    }
}
