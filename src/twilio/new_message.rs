//! [`NewMessage`]: a message to send, and its parameters for `POST Messages`.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::address::Address;
use crate::form::FormParams;
use crate::reply::Reply;
use crate::sid::MessagingServiceSid;
use crate::twiml::replace_invalid_chars;

/// A message to send.
///
/// `Debug` shows kinds and sizes, and masks texts and addresses.
///
/// ```
/// use replyhook::twilio::NewMessage;
///
/// let text = NewMessage::text("whatsapp:+15550001111", "It is ready.").from("whatsapp:+15550002222");
/// let template = NewMessage::template(
///     "whatsapp:+15550001111",
///     "HX00000000000000000000000000000001",
///     [("1", "Ana"), ("2", "12:00")],
/// );
/// let location = NewMessage::location("whatsapp:+15550001111", 40.4168, -3.7038, "Puerta del Sol");
/// # drop((text, template.from("whatsapp:+15550002222"), location));
/// ```
#[derive(Clone)]
pub struct NewMessage {
    pub(crate) to: Address,
    pub(crate) from: Option<Address>,
    pub(crate) messaging_service_sid: Option<MessagingServiceSid>,
    pub(crate) content: NewMessageContent,
    pub(crate) media: Vec<String>,
    pub(crate) send_at: Option<Timestamp>,
    status_callback: Option<String>,
}

/// Content of a [`NewMessage`].
#[derive(Clone)]
pub(crate) enum NewMessageContent {
    Text(String),
    Template {
        sid: String,
        variables: BTreeMap<String, String>,
    },
    Location(PinnedLocation),
    Reply(Reply),
}

/// A location: latitude and longitude in degrees, and a label, which may be empty.
#[derive(Clone)]
pub(crate) struct PinnedLocation {
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    label: String,
}

impl PinnedLocation {
    // Twilio requires a `Body` with a location. Without a label the coordinates are the text.
    fn body(&self) -> String {
        if self.label.is_empty() {
            format!("{}, {}", self.latitude, self.longitude)
        } else {
            self.label.clone()
        }
    }

    // The form of `PersistentAction`: `geo:LATITUDE,LONGITUDE|LABEL`, the label being optional.
    fn persistent_action(&self) -> String {
        let point = format!("geo:{},{}", self.latitude, self.longitude);
        if self.label.is_empty() {
            point
        } else {
            format!("{point}|{}", self.label)
        }
    }
}

impl NewMessage {
    /// Creates a text message.
    pub fn text(to: impl Into<Address>, body: impl Into<String>) -> Self {
        Self::new(to, NewMessageContent::Text(body.into()))
    }

    /// Creates a message from a template, `HX…`, with the values of its variables.
    ///
    /// On WhatsApp only a template may be sent outside the customer service window.
    ///
    /// ```
    /// use replyhook::twilio::NewMessage;
    ///
    /// let template = "HX00000000000000000000000000000001";
    /// NewMessage::template("whatsapp:+15550001111", template, [("1", "Ana"), ("2", "12:00")]);
    /// ```
    pub fn template<N: Into<String>, V: Into<String>>(
        to: impl Into<Address>,
        content_sid: impl Into<String>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables.into_iter();
        let content = NewMessageContent::Template {
            sid: content_sid.into(),
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        };
        Self::new(to, content)
    }

    /// Creates a location message (WhatsApp): latitude and longitude in degrees, and a label, which may be empty.
    pub fn location(to: impl Into<Address>, latitude: f64, longitude: f64, label: &str) -> Self {
        let location = PinnedLocation {
            latitude,
            longitude,
            label: label.to_owned(),
        };
        Self::new(to, NewMessageContent::Location(location))
    }

    /// Creates a message with the content of a bot's reply: choices, a link button, files, a template by its name, or several
    /// messages in order.
    ///
    /// Only an `OutboundClient` sends it, because it stores the open question. [`Messages::create`] does not.
    ///
    /// ```
    /// use replyhook::ReplyMessage;
    /// use replyhook::twilio::NewMessage;
    ///
    /// let question = ReplyMessage::text("When shall we deliver?").choices(["Today", "Another day"]);
    /// let message = NewMessage::reply("whatsapp:+15550001111", question).from("whatsapp:+15550002222");
    /// # drop(message);
    /// ```
    ///
    /// [`Messages::create`]: super::Messages::create
    pub fn reply(to: impl Into<Address>, reply: impl Into<Reply>) -> Self {
        Self::new(to, NewMessageContent::Reply(reply.into()))
    }

    fn new(to: impl Into<Address>, content: NewMessageContent) -> Self {
        Self {
            to: to.into(),
            from: None,
            messaging_service_sid: None,
            content,
            media: Vec::new(),
            send_at: None,
            status_callback: None,
        }
    }

    /// Sets the sender.
    #[must_use]
    pub fn from(mut self, from: impl Into<Address>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Sets the Messaging Service that sends the message.
    ///
    /// Without [`from`](Self::from) the service chooses the sender. With it, the service's features apply to that
    /// sender.
    #[must_use]
    pub fn service(mut self, service: MessagingServiceSid) -> Self {
        self.messaging_service_sid = Some(service);
        self
    }

    /// Adds a media file at a public URL.
    #[must_use]
    pub fn media(mut self, url: impl Into<String>) -> Self {
        self.media.push(url.into());
        self
    }

    /// Schedules the message at Twilio, 5 minutes to 35 days ahead. Scheduling requires a Messaging Service.
    #[must_use]
    pub fn send_at(mut self, at: Timestamp) -> Self {
        self.send_at = Some(at);
        self
    }

    /// Sets the URL of the message's status callbacks.
    #[must_use]
    pub fn status_callback(mut self, url: impl Into<String>) -> Self {
        self.status_callback = Some(url.into());
        self
    }

    /// Returns the parameters of `POST Messages` for time and status callback.
    pub(crate) fn further_params(&self) -> Vec<(&'static str, String)> {
        // Twilio's format has whole seconds.
        let send_at = self.send_at.map(|at| at.strftime("%FT%TZ").to_string());
        let further = [
            ("ScheduleType", send_at.as_ref().map(|_| "fixed".to_owned())),
            ("SendAt", send_at),
            ("StatusCallback", self.status_callback.clone()),
        ];
        let further = further.into_iter();
        further
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// Returns the parameters of `POST Messages`.
    // The order of parameters is fixed: `OutboundClient` compares encoded forms to find out if a key was used for
    // another message.
    pub(crate) fn form(&self) -> FormParams {
        let (body, action, template) = match &self.content {
            NewMessageContent::Text(text) => (Some(text.clone()), None, None),
            NewMessageContent::Location(location) => (
                Some(location.body()),
                Some(location.persistent_action()),
                None,
            ),
            NewMessageContent::Template { sid, variables } => (None, None, Some((sid, variables))),
            // `OutboundClient` renders it for the channel.
            NewMessageContent::Reply(_) => (None, None, None),
        };
        // A message of media alone has no `Body`.
        let body = body.filter(|body| !body.is_empty());
        // A text must be the same whichever way it is sent; see `twiml`.
        let replace = |text: String| replace_invalid_chars(&text).into_owned();
        let (body, action) = (body.map(replace), action.map(replace));
        let variables = template.filter(|(_, variables)| !variables.is_empty());
        let variables = variables.map(|(_, variables)| -> BTreeMap<_, _> {
            let variables = variables.iter();
            variables
                .map(|(name, value)| (name, replace_invalid_chars(value)))
                .collect()
        });
        // A map of strings always serializes, so `ok()` drops nothing.
        let variables = variables.and_then(|variables| serde_json::to_string(&variables).ok());
        let further = self.further_params();
        let service = self.messaging_service_sid.as_ref();
        let single_valued = [
            ("To", Some(self.to.as_str())),
            ("From", self.from.as_ref().map(Address::as_str)),
            (
                "MessagingServiceSid",
                service.map(MessagingServiceSid::as_str),
            ),
            ("Body", body.as_deref()),
            ("ContentSid", template.map(|(sid, _)| sid.as_str())),
            ("ContentVariables", variables.as_deref()),
            ("PersistentAction", action.as_deref()),
        ];
        let single_valued = single_valued
            .iter()
            .filter_map(|(name, value)| Some((*name, (*value)?)))
            .chain(further.iter().map(|(name, value)| (*name, value.as_str())));
        // `MediaUrl` is repeated, once per file.
        single_valued
            .chain(self.media.iter().map(|url| ("MediaUrl", url.as_str())))
            .collect()
    }
}

// Kinds and sizes only: `Debug` must not reveal texts. `Address` masks itself.
impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, size) = match &self.content {
            NewMessageContent::Text(text) => ("text", text.len()),
            NewMessageContent::Template { variables, .. } => ("template", variables.len()),
            NewMessageContent::Location(_) => ("location", 1),
            NewMessageContent::Reply(reply) => ("reply", reply.messages().len()),
        };
        f.debug_struct("NewMessage")
            .field("to", &self.to)
            .field("from", &self.from)
            .field("messaging_service_sid", &self.messaging_service_sid)
            .field(kind, &size)
            .field("media", &self.media.len())
            .finish_non_exhaustive()
    }
}
