//! [`PhoneContent`]: content as the user's phone shows it.

use serde::Serialize;

use crate::shared_location::SharedLocation;
use replyhook_core::choice::TapPayload;

/// Content of a message in the form in which the phone shows it.
#[derive(Clone, Serialize)]
pub(crate) struct PhoneContent {
    #[serde(rename = "type")]
    pub(crate) layout: PhoneLayout,
    /// Text, without title and subtitle.
    pub(crate) body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subtitle: Option<String>,
    /// Text of the button that opens a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) button: Option<String>,
    /// Buttons, rows or chips, those of a carousel's cards included.
    pub(crate) items: Vec<PhoneItem>,
    /// URLs as the template has them. The control API adds type and path of the fetched files.
    pub(crate) media: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cards: Vec<PhoneCard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<SharedLocation>,
    /// Fields of the form that a Flow's button opens, if the template names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flow: Option<Vec<FlowInput>>,
    /// True if WhatsApp has approved the template. A tap then has another `MessageType`.
    #[serde(skip)]
    pub(crate) is_approved: bool,
}

/// Form of content on a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PhoneLayout {
    Buttons,
    List,
    Chips,
    Card,
    Carousel,
    Location,
    Media,
    Text,
}

/// Button, row or chip.
#[derive(Clone, Serialize)]
pub(crate) struct PhoneItem {
    /// ID of the button, by which a tap names it. Default: its title.
    pub(crate) id: String,
    /// Payload that a tap sends, if it is not the ID: that of a choice of replyhook, which names the question as well.
    #[serde(skip)]
    pub(crate) question_payload: Option<String>,
    pub(crate) title: String,
    #[serde(skip_serializing_if = "PhoneItemKind::is_reply")]
    pub(crate) kind: PhoneItemKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Target of a link, number of a call, or code to copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// True for a link or number that sends a message as well, which RCS does for those with an ID.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_reported: bool,
}

/// Effect of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PhoneItemKind {
    /// Sends a message.
    Reply,
    /// Opens a URL.
    Link,
    /// Calls a number.
    Phone,
    /// Copies a code.
    Copy,
    /// Permits a call by WhatsApp.
    Call,
    /// Opens a form.
    Flow,
    /// Product of a catalog, or a payment: the emulator shows it only.
    Other,
}

/// Card of a carousel.
#[derive(Clone, Serialize)]
pub(crate) struct PhoneCard {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    pub(crate) body: String,
    pub(crate) items: Vec<PhoneItem>,
    pub(crate) media: Vec<String>,
}

/// Input of a Flow's form.
#[derive(Clone, Serialize)]
pub(crate) struct FlowInput {
    pub(crate) name: String,
    pub(crate) label: String,
}

impl PhoneItemKind {
    // By reference, as serde calls it.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_reply(&self) -> bool {
        *self == Self::Reply
    }
}

impl PhoneItem {
    /// Sets the ID, given the one in the template.
    // A choice of replyhook has an ID that differs in every question. A test or a person knows the bot's own.
    pub(crate) fn identified_by(self, id: String) -> Self {
        match TapPayload::parse(&id) {
            Some(tap) => Self {
                id: tap.id,
                question_payload: Some(id),
                ..self
            },
            None => Self { id, ..self },
        }
    }

    /// Returns the payload that a tap sends.
    pub(crate) fn payload(&self) -> &str {
        self.question_payload.as_deref().unwrap_or(&self.id)
    }
}

impl PhoneContent {
    /// Creates content with a text only.
    pub(crate) fn new(layout: PhoneLayout, body: String) -> Self {
        Self {
            layout,
            body,
            title: None,
            subtitle: None,
            button: None,
            items: Vec::new(),
            media: Vec::new(),
            cards: Vec::new(),
            location: None,
            flow: None,
            is_approved: false,
        }
    }

    /// Returns all texts: title, body and subtitle.
    pub(crate) fn text(&self) -> String {
        let parts = [
            self.title.as_deref(),
            Some(self.body.as_str()),
            self.subtitle.as_deref(),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect();
        parts.join("\n")
    }

    /// Returns the URLs of all media, those of the cards included.
    pub(crate) fn media_urls(&self) -> Vec<String> {
        let of_cards = self.cards.iter().flat_map(|card| &card.media);
        self.media.iter().chain(of_cards).cloned().collect()
    }
}
