//! Matching of a message against filters, and their combination.

use std::cell::OnceCell;
use std::fmt;
use std::ops::{BitAnd, BitOr, Not};
use std::sync::Arc;

use super::extracted::Extracted;
use super::hours::Hours;
use super::pattern::{Effort, Pattern};
use crate::address::Channel;
use crate::address_pattern::{AddressPattern, country_of, matches_author};
use crate::folding::{fold, is_invisible, normalize, spaced_words};
use crate::message::{InboundMessage, MessageType};

/// Condition of a route on a message.
///
/// The functions of this module create filters; `&`, `|` and `!` combine them.
///
/// ```
/// use replyhook::route::{Filter, command, first_contact, text};
///
/// fn greeting() -> Filter {
///     text(["hi", "hello"]) | command("start")
/// }
/// let known = greeting() & !first_contact();
/// assert_eq!(known.to_string(), r#"(text "hi", "hello" | command /start) & !first contact"#);
/// ```
#[derive(Clone)]
pub struct Filter(pub(super) FilterKind);

pub(super) type Predicate = Arc<dyn Fn(&InboundMessage) -> bool + Send + Sync>;

#[derive(Clone)]
pub(super) enum FilterKind {
    Anything,
    Text(Vec<SearchText>),
    Words(Vec<SearchText>),
    Command(String),
    Regex(Pattern),
    Media(Option<String>),
    Location(Option<GeoCircle>),
    Choice(Option<Vec<SearchText>>),
    Button(Option<Vec<SearchText>>),
    List(Option<Vec<SearchText>>),
    Flow,
    FirstContact,
    Forwarded,
    QuotesOurMessage,
    Channel(Channel),
    Country(Vec<String>),
    /// Authors.
    From(Vec<AddressPattern>),
    /// Senders that messages are sent to.
    To(Vec<AddressPattern>),
    During(Hours),
    Predicate(&'static str, Predicate),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
}

/// Text that a filter looks for.
#[derive(Clone)]
pub(super) struct SearchText {
    /// As the bot's author wrote it. The route table shows this, and payloads and ids are compared with it.
    pub(super) original: String,
    /// Folded, for comparison with what users write.
    pub(super) normalized: String,
}

#[derive(Clone, Copy)]
pub(super) struct GeoCircle {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    pub(super) km: f64,
}

/// Message to match, with derived values that several filters need, each computed at most once.
pub(super) struct Subject<'a> {
    pub(super) message: &'a InboundMessage,
    /// Always false unless [`Filter::needs_first_contact`] holds for a filter of the router, which saves the query.
    pub(super) is_first_contact: bool,
    pub(super) effort: Effort,
    folded: OnceCell<String>,
    words: OnceCell<String>,
    normalized: OnceCell<(String, u64)>,
    country: OnceCell<Option<&'a str>>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(message: &'a InboundMessage, is_first_contact: bool) -> Self {
        Self {
            message,
            is_first_contact,
            effort: Effort::default(),
            folded: OnceCell::new(),
            words: OnceCell::new(),
            normalized: OnceCell::new(),
            country: OnceCell::new(),
        }
    }

    fn folded(&self) -> &str {
        self.folded.get_or_init(|| fold(&self.message.body))
    }

    fn words(&self) -> &str {
        self.words.get_or_init(|| spaced_words(self.folded()))
    }

    /// Returns the text that patterns are matched against, and its number of characters.
    fn normalized(&self) -> (&str, u64) {
        let (text, characters) = self.normalized.get_or_init(|| {
            let text = normalize(&self.message.body);
            let characters = text.chars().count() as u64;
            (text, characters)
        });
        (text, *characters)
    }

    fn country(&self) -> Option<&'a str> {
        *self.country.get_or_init(|| country_of(self.message))
    }
}

impl BitAnd for Filter {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        match self.0 {
            // Flattened, so that `a & b & c` is displayed without parentheses.
            FilterKind::All(mut filters) => {
                filters.push(other);
                Self(FilterKind::All(filters))
            }
            _ => Self(FilterKind::All(vec![self, other])),
        }
    }
}

impl BitOr for Filter {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        match self.0 {
            FilterKind::Any(mut filters) => {
                filters.push(other);
                Self(FilterKind::Any(filters))
            }
            _ => Self(FilterKind::Any(vec![self, other])),
        }
    }
}

impl Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        Self(FilterKind::Not(Box::new(self)))
    }
}

impl Filter {
    /// Returns the names of a pattern's groups; none for other filters.
    #[cfg(feature = "rules")]
    pub(crate) fn group_names(&self) -> impl Iterator<Item = &str> {
        let pattern = match &self.0 {
            FilterKind::Regex(pattern) => Some(pattern),
            _ => None,
        };
        pattern
            .into_iter()
            .flat_map(|pattern| pattern.regex().capture_names().flatten())
    }

    /// Returns true if the filter needs a query of the journal.
    pub(super) fn needs_first_contact(&self) -> bool {
        match &self.0 {
            FilterKind::FirstContact => true,
            FilterKind::All(filters) | FilterKind::Any(filters) => {
                filters.iter().any(Self::needs_first_contact)
            }
            FilterKind::Not(filter) => filter.needs_first_contact(),
            _ => false,
        }
    }

    /// Returns the captures if the filter matches.
    pub(super) fn matches(&self, subject: &Subject<'_>) -> Option<Extracted> {
        let message = subject.message;
        let is_match = match &self.0 {
            FilterKind::Anything => true,
            FilterKind::Text(texts) => texts.iter().any(|text| text.normalized == subject.folded()),
            // Each word of both texts has a space on either side, so that `contains` finds whole words only.
            FilterKind::Words(words) => words
                .iter()
                .any(|word| subject.words().contains(&word.normalized)),
            FilterKind::Command(name) => {
                return parse_command(name, &message.body).map(Extracted::CommandArgs);
            }
            FilterKind::Regex(pattern) => return match_pattern(pattern, subject),
            FilterKind::Media(kind) => has_media(message, kind.as_deref()),
            FilterKind::Location(None) => message.location.is_some(),
            FilterKind::Location(Some(circle)) => {
                message.location.as_ref().is_some_and(|location| {
                    location.km_to(circle.latitude, circle.longitude) <= circle.km
                })
            }
            FilterKind::Choice(wanted) => message.choice().is_some_and(|chosen| {
                // Folded: no two choices of a question have the same folded ID.
                let id = fold(&chosen.id);
                let mut wanted = wanted.iter().flatten().peekable();
                wanted.peek().is_none() || wanted.any(|wanted| wanted.normalized == id)
            }),
            FilterKind::Button(wanted) => message.button.as_ref().is_some_and(|button| {
                is_chosen(
                    wanted.as_deref(),
                    button.payload.as_deref(),
                    button.text.as_deref(),
                )
            }),
            FilterKind::List(wanted) => message.list.as_ref().is_some_and(|item| {
                is_chosen(wanted.as_deref(), item.id.as_deref(), item.title.as_deref())
            }),
            FilterKind::Flow => message.flow_data.is_some(),
            FilterKind::FirstContact => subject.is_first_contact,
            FilterKind::Forwarded => {
                message.forwarded == Some(true) || message.frequently_forwarded == Some(true)
            }
            // A quoted message without a sender counts as one of ours.
            FilterKind::QuotesOurMessage => message
                .replied_to
                .as_ref()
                .is_some_and(|quoted| quoted.from.as_ref().is_none_or(|from| *from == message.to)),
            FilterKind::Channel(channel) => message.channel() == channel,
            FilterKind::Country(countries) => subject.country().is_some_and(|from| {
                countries
                    .iter()
                    .any(|country| country.eq_ignore_ascii_case(from))
            }),
            FilterKind::From(patterns) => matches_author(patterns, message),
            FilterKind::To(patterns) => patterns
                .iter()
                .any(|pattern| pattern.matches_sender(message)),
            FilterKind::During(hours) => hours.contain(message.received_at),
            FilterKind::Predicate(_, predicate) => predicate(message),
            FilterKind::All(filters) => return matches_all(filters, subject),
            FilterKind::Any(filters) => {
                // Match all filters, even after the first that matches: others may capture further named groups.
                let mut captures = filters.iter().filter_map(|filter| filter.matches(subject));
                let first = captures.next()?;
                return Some(Extracted::combine(std::iter::once(first).chain(captures)));
            }
            FilterKind::Not(filter) => filter.matches(subject).is_none(),
        };
        is_match.then_some(Extracted::Nothing)
    }
}

fn matches_all(filters: &[Filter], subject: &Subject<'_>) -> Option<Extracted> {
    let captures: Option<Vec<_>> = filters
        .iter()
        .map(|filter| filter.matches(subject))
        .collect();
    Some(Extracted::combine(captures?.into_iter()))
}

/// Returns the text after the command if the body calls the command `name`, which is folded.
fn parse_command(name: &str, body: &str) -> Option<String> {
    let text = body.trim_start_matches(|c: char| c.is_whitespace() || is_invisible(c));
    // East Asian input methods also type the full-width slash.
    let text = text.strip_prefix('/').or_else(|| text.strip_prefix('／'))?;
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (command, args) = text.split_at(end);
    // Most commands are others; folding an ASCII text only lowers its case, so the cheap comparison suffices for them.
    let is_match =
        command.eq_ignore_ascii_case(name) || (!command.is_ascii() && fold(command) == name);
    is_match.then(|| args.trim().to_owned())
}

fn match_pattern(pattern: &Pattern, subject: &Subject<'_>) -> Option<Extracted> {
    let (text, characters) = subject.normalized();
    // `None` is not "no match" here: the router calls `Effort::finish` after matching, and fails the message.
    if !subject.effort.try_spend(pattern, characters) {
        return None;
    }
    let pattern = pattern.regex();
    // `is_match` is cheaper than `captures`, and most patterns do not match.
    if !pattern.is_match(text) {
        return None;
    }
    let groups = pattern.captures(text)?;
    let names = pattern.capture_names();
    let values = groups
        .iter()
        .map(|group| group.map(|group| group.as_str().to_owned()));
    Some(Extracted::Groups(
        names
            .map(|name| name.map(str::to_owned))
            .zip(values)
            .collect(),
    ))
}

fn has_media(message: &InboundMessage, kind: Option<&str>) -> bool {
    let Some(kind) = kind else {
        return !message.media.is_empty();
    };
    // Only for media without `MediaContentType{N}`.
    let default_type = message.message_type.as_ref().map(default_content_type);
    message.media.iter().any(|media| {
        let content_type = media.content_type.as_deref().or(default_type.flatten());
        content_type.is_some_and(|content_type| is_of_kind(content_type, kind))
    })
}

/// Returns a content type, or its beginning, for media that came without one.
fn default_content_type(message_type: &MessageType) -> Option<&'static str> {
    Some(match message_type {
        MessageType::Image | MessageType::Sticker => "image/",
        MessageType::Audio => "audio/",
        MessageType::Video => "video/",
        MessageType::Document => "application/",
        MessageType::Contacts => "text/vcard",
        _ => return None,
    })
}

fn is_of_kind(content_type: &str, kind: &str) -> bool {
    // Without parameters, as in `audio/ogg; codecs=opus`.
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let family = essence.split('/').next().unwrap_or_default();
    let is_contact = essence == "text/vcard" || essence == "text/x-vcard";
    match kind {
        "contact" => is_contact,
        "document" => !is_contact && !matches!(family, "image" | "audio" | "video"),
        kind if kind.contains('/') => essence == kind,
        kind => family == kind,
    }
}

/// Returns true if a tapped button or list item is one of the wanted ones; `None` accepts any.
fn is_chosen(wanted: Option<&[SearchText]>, id: Option<&str>, title: Option<&str>) -> bool {
    let Some(wanted) = wanted else {
        return true;
    };
    match (id, title) {
        // Compare ids exactly, since a program made them; compare titles folded, as texts.
        (Some(id), _) => wanted.iter().any(|wanted| wanted.original == id),
        (None, Some(title)) => {
            let title = fold(title);
            wanted.iter().any(|wanted| wanted.normalized == title)
        }
        (None, None) => false,
    }
}

/// Text for the table of routes. With `{:#}`, texts and words appear folded, so that equal filters have equal texts.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, texts: &[SearchText]| {
            write!(f, "{name}")?;
            let mut separator = " ";
            let is_normalized =
                f.alternate() && matches!(self.0, FilterKind::Text(_) | FilterKind::Words(_));
            texts.iter().try_for_each(|text| {
                let text = if is_normalized {
                    &text.normalized
                } else {
                    &text.original
                };
                write!(f, "{separator}{text:?}")?;
                separator = ", ";
                Ok(())
            })
        };
        let joined = |f: &mut fmt::Formatter<'_>, filters: &[Filter], operator: &str| {
            let mut separator = "";
            filters.iter().try_for_each(|filter| {
                f.write_str(separator)?;
                separator = operator;
                write_nested(f, filter)
            })
        };
        match &self.0 {
            FilterKind::Anything => f.write_str("anything"),
            FilterKind::Text(texts) => list(f, "text", texts),
            FilterKind::Words(words) => list(f, "words", words),
            FilterKind::Command(name) => write!(f, "command /{name}"),
            FilterKind::Regex(pattern) => write!(f, "regex {:?}", pattern.regex().as_str()),
            FilterKind::Media(None) => f.write_str("media"),
            FilterKind::Media(Some(kind)) => write!(f, "media {kind}"),
            FilterKind::Location(None) => f.write_str("location"),
            FilterKind::Location(Some(circle)) => {
                write!(
                    f,
                    "within {} km of {}, {}",
                    circle.km, circle.latitude, circle.longitude
                )
            }
            FilterKind::Choice(None) => f.write_str("choice"),
            FilterKind::Choice(Some(ids)) => list(f, "choice", ids),
            FilterKind::Button(None) => f.write_str("button"),
            FilterKind::Button(Some(payloads)) => list(f, "button", payloads),
            FilterKind::List(None) => f.write_str("list item"),
            FilterKind::List(Some(ids)) => list(f, "list item", ids),
            FilterKind::Flow => f.write_str("flow response"),
            FilterKind::FirstContact => f.write_str("first contact"),
            FilterKind::Forwarded => f.write_str("forwarded"),
            FilterKind::QuotesOurMessage => f.write_str("quotes our message"),
            FilterKind::Channel(channel) => write!(f, "channel {}", channel.as_str()),
            FilterKind::Country(countries) => write!(f, "country {}", countries.join(", ")),
            FilterKind::From(patterns) => write!(f, "from {}", joined_patterns(patterns)),
            FilterKind::To(patterns) => write!(f, "to {}", joined_patterns(patterns)),
            FilterKind::During(hours) => write!(f, "during {hours}"),
            FilterKind::Predicate(name, _) => f.write_str(name),
            FilterKind::All(filters) => joined(f, filters, " & "),
            FilterKind::Any(filters) => joined(f, filters, " | "),
            FilterKind::Not(filter) => {
                f.write_str("!")?;
                write_nested(f, filter)
            }
        }
    }
}

fn joined_patterns(patterns: &[AddressPattern]) -> String {
    let texts: Vec<_> = patterns.iter().map(AddressPattern::as_str).collect();
    texts.join(", ")
}

fn write_nested(f: &mut fmt::Formatter<'_>, filter: &Filter) -> fmt::Result {
    let is_compound = matches!(filter.0, FilterKind::All(_) | FilterKind::Any(_));
    f.write_str(if is_compound { "(" } else { "" })?;
    fmt::Display::fmt(filter, f)?;
    f.write_str(if is_compound { ")" } else { "" })
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({self})")
    }
}
