//! Parts of an inbound message. Enums keep a value that they do not know in `Other`.

use std::fmt;

use crate::address::Address;
use crate::sid::{MediaSid, MessageSid};

// Values that Twilio adds later must not make a message unreadable, and must stay readable themselves.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A value that this version does not know.
            Other(String),
        }

        impl $name {
            /// Parses Twilio's text, ignoring case. An unknown text is kept unchanged.
            pub fn parse(text: &str) -> Self {
                $(if text.eq_ignore_ascii_case($text) { return Self::$variant; })+
                Self::Other(text.to_owned())
            }

            /// Returns the text that Twilio uses.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }
    };
}
pub(crate) use open_enum;

/// A media file of a message. Its URL needs Twilio's basic authentication, so do not pass it to a browser.
///
/// ```
/// use replyhook::{InboundMessage, Timestamp};
///
/// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
/// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
/// let file = [
///     ("MediaContentType0", "image/jpeg"),
///     ("MediaUrl0", "https://api.twilio.com/…/Media/ME00000000000000000000000000000001"),
/// ];
/// let message = InboundMessage::parse(pairs.into_iter().chain(file).collect(), Timestamp::UNIX_EPOCH)?;
/// let picture = &message.media[0];
/// assert_eq!(picture.content_type.as_deref(), Some("image/jpeg"));
/// assert_eq!(picture.sid(), "ME00000000000000000000000000000001".parse().ok());
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaItem {
    /// SID of the message that contains the file. It differs from that of the [`InboundMessage`](super::InboundMessage)
    /// if the file comes from a merged message.
    pub message_sid: MessageSid,
    /// `MediaUrl{N}`.
    pub url: String,
    /// `MediaContentType{N}`: a hint from the sending side, not verified.
    pub content_type: Option<String>,
}

impl MediaItem {
    /// Returns the SID at the end of the URL; `None` if the URL does not have Twilio's format.
    pub fn sid(&self) -> Option<MediaSid> {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next()?.parse().ok()
    }
}

impl fmt::Debug for MediaItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaItem")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// A location that the user sent.
///
/// ```
/// use replyhook::{InboundMessage, Timestamp};
///
/// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
/// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
/// let pin = [("Latitude", "40.4530"), ("Longitude", "-3.6883"), ("Label", "Stadium")];
/// let message = InboundMessage::parse(pairs.into_iter().chain(pin).collect(), Timestamp::UNIX_EPOCH)?;
/// let here = message.location.expect("a location");
/// assert_eq!(here.label.as_deref(), Some("Stadium"));
/// assert!(here.km_to(40.4168, -3.7038) < 5.0);
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Location {
    /// Degrees north, from -90 to 90.
    pub latitude: f64,
    /// Degrees east, from -180 to 180.
    pub longitude: f64,
    /// Postal address.
    pub address: Option<String>,
    /// Name of the place.
    pub label: Option<String>,
}

impl Location {
    /// Returns the great-circle distance to another location in kilometres. Its coordinates are in degrees.
    ///
    /// ```
    /// use replyhook::route::{Router, location};
    /// use replyhook::InboundMessage;
    ///
    /// async fn distance(message: InboundMessage) -> Option<String> {
    ///     let here = message.location?;
    ///     Some(format!("It is {:.0} km to Madrid.", here.km_to(40.4168, -3.7038)))
    /// }
    ///
    /// let bot = Router::new().on(location(), distance);
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    pub fn km_to(&self, latitude: f64, longitude: f64) -> f64 {
        // Haversine formula on a sphere of the mean radius. The error against the ellipsoid is below one percent.
        const EARTH_RADIUS_KM: f64 = 6371.0;
        let half_sine = |from: f64, to: f64| ((to - from).to_radians() / 2.0).sin().powi(2);
        let along = self.latitude.to_radians().cos() * latitude.to_radians().cos();
        let a = half_sine(self.latitude, latitude) + along * half_sine(self.longitude, longitude);
        // Rounding can exceed 1 for opposite points of the globe, and `asin` would return NaN.
        2.0 * EARTH_RADIUS_KM * a.sqrt().min(1.0).asin()
    }
}

/// A tapped quick-reply button.
///
/// ```
/// use replyhook::{InboundMessage, Timestamp};
///
/// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
/// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
/// let tap = [("ButtonText", "Yes"), ("ButtonPayload", "confirm:42")];
/// let message = InboundMessage::parse(pairs.into_iter().chain(tap).collect(), Timestamp::UNIX_EPOCH)?;
/// let payload = message.button.and_then(|button| button.payload);
/// assert_eq!(payload.as_deref().and_then(|it| it.strip_prefix("confirm:")), Some("42"));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Button {
    /// `ButtonText`: the button's visible text.
    pub text: Option<String>,
    /// `ButtonPayload`: the ID that the developer gave the button. Free text, even if it looks like JSON.
    pub payload: Option<String>,
    /// `ButtonType`, such as `REPLY` or `ACTION`.
    pub kind: Option<String>,
}

/// A chosen item of a list.
///
/// ```
/// use replyhook::{InboundMessage, Timestamp};
///
/// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
/// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
/// let row = [("ListId", "margherita"), ("ListTitle", "Pizza Margherita")];
/// let message = InboundMessage::parse(pairs.into_iter().chain(row).collect(), Timestamp::UNIX_EPOCH)?;
/// let list = message.list.expect("a chosen item");
/// assert_eq!((list.id.as_deref(), list.title.as_deref()), (Some("margherita"), Some("Pizza Margherita")));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListChoice {
    /// `ListId`.
    pub id: Option<String>,
    /// `ListTitle`.
    pub title: Option<String>,
    /// `ListDescription`.
    pub description: Option<String>,
}

/// Reference to a quoted message. Twilio sends it for messages of the last seven days.
///
/// ```
/// use replyhook::InboundMessage;
///
/// /// Returns whether a message quotes the question that you sent under this SID.
/// fn answers(message: &InboundMessage, question: &str) -> bool {
///     message.replied_to.as_ref().is_some_and(|quoted| quoted.message_sid == question)
/// }
/// # let _ = answers;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepliedTo {
    /// `OriginalRepliedMessageSid`, as a text that is not validated.
    pub message_sid: String,
    /// `OriginalRepliedMessageSender`.
    pub from: Option<Address>,
}

/// The advertisement or post that the user tapped before writing.
///
/// ```
/// use replyhook::{InboundMessage, Timestamp};
/// use replyhook::message::ReferralSource;
///
/// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
/// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
/// let ad = [("ReferralSourceType", "ad"), ("ReferralSourceId", "120200000"), ("ReferralHeadline", "Pizza!")];
/// let message = InboundMessage::parse(pairs.into_iter().chain(ad).collect(), Timestamp::UNIX_EPOCH)?;
/// let from = message.referral.expect("an advertisement was tapped");
/// assert_eq!(from.source_type, Some(ReferralSource::parse("ad")));
/// assert_eq!(from.headline.as_deref(), Some("Pizza!"));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Referral {
    /// `ReferralBody`.
    pub body: Option<String>,
    /// `ReferralHeadline`.
    pub headline: Option<String>,
    /// `ReferralSourceId`.
    pub source_id: Option<String>,
    /// `ReferralSourceType`.
    pub source_type: Option<ReferralSource>,
    /// `ReferralSourceUrl`.
    pub source_url: Option<String>,
    /// `ReferralMediaId`.
    pub media_id: Option<String>,
    /// `ReferralMediaContentType`.
    pub media_content_type: Option<String>,
    /// `ReferralMediaUrl`.
    pub media_url: Option<String>,
    /// `ReferralNumMedia`.
    pub num_media: Option<u32>,
    /// `ReferralCtwaClid`: the ID of the click.
    pub ctwa_clid: Option<String>,
}

/// City, state, postal code and country of a phone number, as far as Twilio knows them.
///
/// ```
/// use replyhook::{InboundMessage, Timestamp};
///
/// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
/// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
/// let geo = [("FromCity", "SAN FRANCISCO"), ("FromCountry", "US")];
/// let message = InboundMessage::parse(pairs.into_iter().chain(geo).collect(), Timestamp::UNIX_EPOCH)?;
/// assert_eq!(message.from_geo.country.as_deref(), Some("US"));
/// assert_eq!(message.to_geo.country, None);
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GeoInfo {
    /// Name of the city.
    pub city: Option<String>,
    /// State or province, as a name or a code.
    pub state: Option<String>,
    /// Postal code.
    pub zip: Option<String>,
    /// ISO 3166-1 alpha-2 code of the country.
    pub country: Option<String>,
}

/// JSON text of a parameter, parsed on demand. A text that is not valid JSON stays readable as text.
///
/// ```
/// use replyhook::message::JsonText;
///
/// let answers = JsonText::new(r#"{"date": "2026-12-01"}"#);
/// assert_eq!(answers.value().expect("JSON")["date"], "2026-12-01");
/// let odd = JsonText::new("{not JSON");
/// assert_eq!((odd.value(), odd.as_str()), (None, "{not JSON"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// Wraps a text, without parsing it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text as received.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the text; `None` if it is not valid JSON.
    pub fn value(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.0).ok()
    }
}

macro_rules! opaque_debug {
    ($($name:ident),+) => {$(
        /// Shows only the type's name, because the fields contain text of a user.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}
opaque_debug!(Location, Button, ListChoice, Referral, GeoInfo, JsonText);

open_enum! {
    /// `MessageType`. Captured requests had only `text` and `interactive`; the other values are the channel's own
    /// names.
    ///
    /// ```
    /// use replyhook::message::MessageType;
    ///
    /// assert_eq!(MessageType::parse("image"), MessageType::Image);
    /// assert_eq!(MessageType::parse("hologram").as_str(), "hologram");
    /// ```
    MessageType {
        /// A text message.
        Text = "text",
        /// A tapped button or a chosen list item.
        Interactive = "interactive",
        /// A tapped template button.
        Button = "button",
        /// An image.
        Image = "image",
        /// An audio file or voice note.
        Audio = "audio",
        /// A video.
        Video = "video",
        /// A document.
        Document = "document",
        /// A sticker.
        Sticker = "sticker",
        /// A location.
        Location = "location",
        /// Contact cards.
        Contacts = "contacts",
        /// An order.
        Order = "order",
        /// A reaction.
        Reaction = "reaction",
        /// A message of a type that the channel could not forward.
        Unsupported = "unsupported",
    }
}

open_enum! {
    /// `OptOutType` of Advanced Opt-Out. Twilio has already replied to the user.
    ///
    /// ```
    /// use replyhook::message::OptOutType;
    ///
    /// assert_eq!(OptOutType::parse("STOP"), OptOutType::Stop);
    /// ```
    OptOutType {
        /// The user opted out.
        Stop = "STOP",
        /// The user opted in again.
        Start = "START",
        /// The user asked for help.
        Help = "HELP",
    }
}

open_enum! {
    /// `ReferralSourceType`: the kind of source that a [`Referral`] comes from.
    ///
    /// See [`Referral`] for an example.
    ReferralSource {
        /// A post.
        Post = "post",
        /// An advertisement.
        Ad = "ad",
    }
}
