//! An inbound message as a type.

use std::fmt;

use jiff::Timestamp;

use super::flow;
use super::message_status::MessageStatus;
use super::parts::{
    Button, GeoInfo, JsonText, ListChoice, Location, MediaItem, MessageType, OptOutType, Referral,
    RepliedTo,
};
use crate::address::{Address, Channel};
use crate::choice::{ChoiceVia, Chosen, OpenQuestion, TapPayload};
use crate::form::FormParams;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};

/// A message of a user, as the primary webhook or the fallback URL received it.
///
/// ```
/// use replyhook::{FormParams, InboundMessage, Timestamp};
///
/// let form = FormParams::from_iter([
///     ("MessageSid", "SM00000000000000000000000000000001"),
///     ("AccountSid", "AC00000000000000000000000000000001"),
///     ("From", "whatsapp:+15550001111"),
///     ("To", "whatsapp:+15550002222"),
///     ("Body", "hi"),
///     ("ProfileName", "Ana"),
/// ]);
/// let message = InboundMessage::parse(form, Timestamp::UNIX_EPOCH)?;
/// assert_eq!(message.body, "hi");
/// assert_eq!(message.profile_name.as_deref(), Some("Ana"));
/// assert!(message.media.is_empty());
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct InboundMessage {
    /// `MessageSid`, the same in every redelivery of this message.
    pub message_sid: MessageSid,
    /// `AccountSid`: the account or subaccount that owns the sender in [`to`](Self::to).
    pub account_sid: AccountSid,
    /// `MessagingServiceSid`, if the sender belongs to a Messaging Service.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// `From`: the user.
    pub from: Address,
    /// `To`: your sender.
    pub to: Address,
    /// `Body`: up to 1600 characters, more if messages are [`merged`](Self::merged). Untrusted. Empty for most media
    /// and for every location.
    pub body: String,
    /// `MediaUrl{N}` and `MediaContentType{N}`, in the order of N. `NumMedia` does not limit them.
    pub media: Vec<MediaItem>,
    /// `NumMedia`: Twilio's count, which may differ from the length of [`media`](Self::media).
    pub num_media: Option<u32>,
    /// `NumSegments`: always 1 on channels other than SMS and MMS.
    pub num_segments: Option<u32>,
    /// `MessageType`.
    pub message_type: Option<MessageType>,
    /// `SmsStatus`, `received` on every inbound message.
    pub sms_status: Option<MessageStatus>,
    /// `ProfileName`: the display name that the user chose. Any Unicode text, untrusted.
    pub profile_name: Option<String>,
    /// `WaId`: the user's number as digits without `+`. Missing if the number is hidden.
    pub wa_id: Option<String>,
    /// `ExternalUserId`: the business-scoped ID of a WhatsApp user (since 2026).
    pub external_user_id: Option<Address>,
    /// `ParentExternalUserId`: the ID of the same user across linked portfolios.
    pub parent_external_user_id: Option<Address>,
    /// `Latitude` and `Longitude`, with `Address` and `Label`.
    pub location: Option<Location>,
    /// `ButtonText`, `ButtonPayload`, `ButtonType`.
    pub button: Option<Button>,
    /// `ListId`, `ListTitle`, `ListDescription`.
    pub list: Option<ListChoice>,
    /// `InteractiveData`: JSON of an interactive response.
    pub interactive_data: Option<JsonText>,
    /// `FlowData`: JSON of a WhatsApp Flow's result.
    pub flow_data: Option<JsonText>,
    /// `ChannelMetadata`: JSON without a documented schema.
    pub channel_metadata: Option<JsonText>,
    /// `AddOns`: JSON, only with Marketplace add-ons.
    pub add_ons: Option<JsonText>,
    /// `Forwarded`.
    pub forwarded: Option<bool>,
    /// `FrequentlyForwarded`.
    pub frequently_forwarded: Option<bool>,
    /// `OriginalRepliedMessageSid` and `…Sender`: the message that this one quotes.
    pub replied_to: Option<RepliedTo>,
    /// `Referral…`: the advertisement or post that led the user here.
    pub referral: Option<Referral>,
    /// `OptOutType`, with Advanced Opt-Out. Twilio has already replied to the user.
    pub opt_out_type: Option<OptOutType>,
    /// `FromCity`, `FromState`, `FromZip`, `FromCountry` (SMS and MMS).
    pub from_geo: GeoInfo,
    /// `ToCity`, `ToState`, `ToZip`, `ToCountry` (SMS and MMS).
    pub to_geo: GeoInfo,
    /// `ApiVersion`.
    pub api_version: Option<String>,
    /// Time at which the server had verified the request. Twilio does not send a time.
    pub received_at: Timestamp,
    /// With `reply.debounce_ms`: SIDs of the further messages that the handler gets together with this one, in order.
    ///
    /// Their texts are lines of [`body`](Self::body), and their files are in [`media`](Self::media). A part such as
    /// [`button`](Self::button) comes from the one message that has it. The counts are sums, and
    /// [`profile_name`](Self::profile_name) is the latest one. Other fields are those of the first message, to which
    /// the handler replies.
    pub merged: Vec<MessageSid>,
    /// All decoded parameters in the order received, including unknown ones: exactly those that were verified. With
    /// merged messages, the parameters of each message follow one another. The payload of a button of our own question is
    /// replaced by the ID of the choice.
    pub params: FormParams,
    /// The choice, once it was compared with the open question.
    pub(super) chosen: Option<Box<Chosen>>,
    /// True if our payload was stripped.
    pub(super) had_payload: bool,
}

impl InboundMessage {
    /// Returns the channel of the message.
    pub fn channel(&self) -> &Channel {
        self.from.channel()
    }

    /// Returns the choice that the user has taken, by a tap or as a typed answer to the open question.
    ///
    /// A tap on a button of another program or a template is a choice without a key, whose ID is the payload. It is not
    /// current while a question of the bot is open. See [`ReplyMessage::choices`](crate::reply::ReplyMessage::choices).
    ///
    /// ```
    /// use replyhook::choice::ChoiceVia;
    /// use replyhook::{InboundMessage, Timestamp};
    ///
    /// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
    /// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
    /// let tap = [("ButtonText", "Yes"), ("ButtonPayload", "confirm:42")];
    /// let message = InboundMessage::parse(pairs.into_iter().chain(tap).collect(), Timestamp::UNIX_EPOCH)?;
    /// let chosen = message.choice().expect("a tap");
    /// assert_eq!((chosen.id.as_str(), chosen.via, chosen.key), ("confirm:42", ChoiceVia::Button, None));
    /// # Ok::<(), replyhook::message::ParseError>(())
    /// ```
    pub fn choice(&self) -> Option<Chosen> {
        match &self.chosen {
            Some(chosen) => Some((**chosen).clone()),
            None => self.tapped(None, false),
        }
    }

    /// Finds the choice that this message names in the open question of its conversation, and strips our payload from the
    /// message. Returns true if the message answers that question.
    #[doc(hidden)]
    pub fn resolve_choice(&mut self, open: Option<&OpenQuestion>) -> bool {
        let is_tap = self.button.is_some() || self.list.is_some();
        let tap = self.tap_payload();
        // Without a payload, a tap is matched by its title, as if the user had typed it.
        let is_typed = !is_tap || self.tap_id().is_none();
        let has_content = !self.media.is_empty() || self.location.is_some();
        let answer = open.filter(|_| is_typed && !has_content);
        let mut answered = answer.and_then(|open| open.typed(&self.body, self.channel()));
        if let Some(chosen) = answered.as_mut().filter(|_| is_tap) {
            chosen.via = self.via();
        }
        let tapped_open = tap.as_ref().and_then(|tap| open?.tapped(tap));
        let answers_open = answered.is_some() || tapped_open.is_some();
        let chosen = tapped_open
            .or(answered)
            .or_else(|| self.tapped(tap.as_ref(), open.is_some()));
        self.chosen = chosen.map(Box::new);
        if tap.is_some() {
            self.had_payload = true;
            self.strip_payloads();
        }
        answers_open
    }

    /// Returns whether the message is a tap on a choice of ours.
    #[doc(hidden)]
    pub fn is_tap_on_choice(&self) -> bool {
        self.had_payload || self.tap_payload().is_some()
    }

    fn tap_id(&self) -> Option<&str> {
        let payload = self
            .button
            .as_ref()
            .and_then(|button| button.payload.as_deref());
        payload.or_else(|| self.list.as_ref()?.id.as_deref())
    }

    fn tap_payload(&self) -> Option<TapPayload> {
        TapPayload::parse(self.tap_id()?)
    }

    fn via(&self) -> ChoiceVia {
        if self.list.is_some() {
            ChoiceVia::List
        } else {
            ChoiceVia::Button
        }
    }

    /// Returns the choice of a tap on a question that is not open: one of ours that is over, or one of another program.
    ///
    /// `is_asking`: a question of ours is open, so that a tap on another one is not what the bot waits for.
    fn tapped(&self, tap: Option<&TapPayload>, is_asking: bool) -> Option<Chosen> {
        let parsed = self.tap_payload();
        let tap = tap.or(parsed.as_ref());
        let button_text = self
            .button
            .as_ref()
            .and_then(|button| button.text.as_deref());
        let list_title = self.list.as_ref().and_then(|list| list.title.as_deref());
        let title = list_title.or(button_text).filter(|title| !title.is_empty());
        let is_tap = self.button.is_some() || self.list.is_some();
        let title = title.or_else(|| self.text().filter(|_| is_tap));
        if let Some(tap) = tap {
            let title = title.unwrap_or(&tap.id);
            let key = tap.key.clone();
            return Some(Chosen::new(tap.id.as_str(), title, tap.via, key, false));
        }
        let id = self.tap_id().filter(|id| !id.is_empty()).or(title)?;
        let title = title.unwrap_or(id);
        Some(Chosen::new(id, title, self.via(), None, !is_asking))
    }

    /// Replaces our payloads by the IDs of the choices, also in the parameters.
    fn strip_payloads(&mut self) {
        let strip = |text: &mut Option<String>| {
            if let Some(tap) = text.as_deref().and_then(TapPayload::parse) {
                *text = Some(tap.id);
            }
        };
        if let Some(button) = &mut self.button {
            strip(&mut button.payload);
        }
        if let Some(list) = &mut self.list {
            strip(&mut list.id);
        }
        let params = self.params.iter().map(|(name, value)| {
            let is_payload = matches!(name, "ButtonPayload" | "ListId");
            let tap = TapPayload::parse(value).filter(|_| is_payload);
            (name, tap.map_or_else(|| value.to_owned(), |tap| tap.id))
        });
        self.params = params.collect();
    }

    /// Returns the fields of a WhatsApp Flow's result by name; `None` if the message is not a valid one.
    ///
    /// ```
    /// use replyhook::{InboundMessage, Timestamp};
    ///
    /// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
    /// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
    /// let result = [("FlowData", r#"{"guests": 2}"#)];
    /// let message = InboundMessage::parse(pairs.into_iter().chain(result).collect(), Timestamp::UNIX_EPOCH)?;
    /// assert_eq!(message.flow_fields().expect("a result")["guests"], 2);
    /// # Ok::<(), replyhook::message::ParseError>(())
    /// ```
    pub fn flow_fields(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        flow::fields(self.flow_data.as_ref(), self.interactive_data.as_ref())
    }

    /// Returns the body, unless it is empty or white space only.
    pub fn text(&self) -> Option<&str> {
        (!self.body.trim().is_empty()).then_some(self.body.as_str())
    }

    /// Merges the next message into this one. Returns false, and changes nothing, if a part of it would be lost, such
    /// as the second of two button taps.
    #[doc(hidden)]
    pub fn absorb(&mut self, next: Self) -> bool {
        // Messages of one conversation can still differ in account or Messaging Service, and `self` holds one of each.
        let is_same_conversation = self.from == next.from
            && self.to == next.to
            && self.account_sid == next.account_sid
            && self.messaging_service_sid == next.messaging_service_sid;
        // Each of these fields can hold the part of one message only.
        let has_conflict = self.location.is_some() && next.location.is_some()
            || self.button.is_some() && next.button.is_some()
            || self.list.is_some() && next.list.is_some()
            || self.interactive_data.is_some() && next.interactive_data.is_some()
            || self.flow_data.is_some() && next.flow_data.is_some()
            || self.replied_to.is_some() && next.replied_to.is_some()
            || self.referral.is_some() && next.referral.is_some();
        if !is_same_conversation || has_conflict {
            return false;
        }
        if !self.body.is_empty() && !next.body.is_empty() {
            self.body.push('\n');
        }
        self.body.push_str(&next.body);
        self.media.extend(next.media);
        self.num_media = sum_counts(self.num_media, next.num_media);
        self.num_segments = sum_counts(self.num_segments, next.num_segments);
        // A type other than `text` describes the merged message better, whichever message it comes from.
        if matches!(self.message_type, None | Some(MessageType::Text)) {
            self.message_type = next.message_type.or(self.message_type.take());
        }
        self.location = self.location.take().or(next.location);
        self.button = self.button.take().or(next.button);
        self.list = self.list.take().or(next.list);
        self.interactive_data = self.interactive_data.take().or(next.interactive_data);
        self.flow_data = self.flow_data.take().or(next.flow_data);
        self.replied_to = self.replied_to.take().or(next.replied_to);
        self.referral = self.referral.take().or(next.referral);
        // The latest name wins: the user may have changed it.
        self.profile_name = next.profile_name.or(self.profile_name.take());
        self.wa_id = self.wa_id.take().or(next.wa_id);
        self.external_user_id = self.external_user_id.take().or(next.external_user_id);
        // `FormParams::get` returns the first value, so identifying parameters stay those of the first message.
        self.params = self.params.iter().chain(next.params.iter()).collect();
        self.merged.push(next.message_sid);
        true
    }
}

/// Shows identifiers, lengths and types, but no phone number, name or text.
impl fmt::Debug for InboundMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundMessage")
            .field("message_sid", &self.message_sid)
            .field("account_sid", &self.account_sid)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("body_len", &self.body.len())
            .field("media", &self.media)
            .field("message_type", &self.message_type)
            .field("merged", &self.merged)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

fn sum_counts(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn message(number: u32, pairs: &[(&str, &str)]) -> InboundMessage {
        let sid = format!("SM{number:032x}");
        let own = [
            ("MessageSid", sid.as_str()),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("From", "whatsapp:+15550001111"),
            ("To", "whatsapp:+15550002222"),
        ];
        let form: FormParams = own.iter().chain(pairs).copied().collect();
        InboundMessage::parse(form, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn merged_messages_join_texts_media_and_button() {
        let mut whole = message(1, &[("Body", "hi"), ("MessageType", "text")]);
        let photo = [
            ("MediaUrl0", "https://api.example.test/1"),
            ("NumMedia", "1"),
            ("MessageType", "image"),
        ];
        let second = [
            ("Body", "and this"),
            ("MediaUrl0", "https://api.example.test/2"),
            ("NumMedia", "1"),
        ];
        let tap = [
            ("ButtonText", "Yes"),
            ("ButtonPayload", "yes:1"),
            ("Body", "Yes"),
        ];
        for (number, pairs) in [(2, &photo[..]), (3, &second), (4, &tap)] {
            assert!(whole.absorb(message(number, pairs)));
        }
        assert_eq!(whole.body, "hi\nand this\nYes");
        let urls: Vec<_> = whole.media.iter().map(|media| media.url.as_str()).collect();
        assert_eq!(
            urls,
            ["https://api.example.test/1", "https://api.example.test/2"]
        );
        // Each file keeps the SID of its own message, under which Twilio stores it.
        let media_sids: Vec<_> = whole.media.iter().map(|media| media.message_sid).collect();
        assert_eq!(media_sids, whole.merged[..2]);
        assert_eq!(whole.num_media, Some(2));
        assert_eq!(whole.message_type, Some(MessageType::Image));
        assert_eq!(
            whole.button.as_ref().unwrap().payload.as_deref(),
            Some("yes:1")
        );
        let payload = whole.params.get("ButtonPayload");
        assert_eq!(payload, Some("yes:1"));
        let merged: Vec<_> = whole.merged.iter().map(ToString::to_string).collect();
        assert_eq!(merged, [2, 3, 4].map(|number| format!("SM{number:032x}")));
    }

    #[test]
    fn merge_rejects_second_button_location_or_other_sender() {
        let tap = |number| message(number, &[("ButtonPayload", "yes:1"), ("Body", "Yes")]);
        let place = |number| message(number, &[("Latitude", "52.5"), ("Longitude", "13.4")]);
        let mut whole = tap(1);
        assert!(whole.absorb(place(2)));
        for next in [tap(3), place(4)] {
            assert!(!whole.absorb(next));
        }
        let mut elsewhere = message(5, &[("Body", "hi")]);
        elsewhere.to = "whatsapp:+15550003333".into();
        assert!(!whole.absorb(elsewhere));
        assert_eq!((whole.body.as_str(), whole.merged.len()), ("Yes", 1));
    }
}

#[cfg(test)]
mod choice_tests {
    use jiff::Timestamp;

    use super::*;
    use crate::choice::{Choices, QuestionId};
    use crate::form::FormParams;

    fn message(pairs: &[(&str, &str)]) -> InboundMessage {
        let own = [
            ("MessageSid", "SM00000000000000000000000000000002"),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("From", "whatsapp:+15550001111"),
            ("To", "whatsapp:+15550002222"),
        ];
        let form: FormParams = own.iter().chain(pairs).copied().collect();
        InboundMessage::parse(form, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn question(ordinal: usize) -> OpenQuestion {
        let message = message(&[]);
        OpenQuestion {
            id: QuestionId::of_reply(message.account_sid, message.message_sid, ordinal),
            key: Some("day".to_owned()),
            choices: Choices::new(["Today", "Tomorrow"]).unwrap(),
            text_units: 5,
            label: String::new(),
            has_numbers: false,
        }
    }

    fn payload(question: &OpenQuestion, id: &str) -> String {
        let payload = TapPayload {
            via: ChoiceVia::List,
            question: question.id.clone(),
            key: question.key.clone(),
            id: id.to_owned(),
        };
        payload.encode().unwrap()
    }

    #[test]
    fn tap_is_reported_for_open_and_old_questions() {
        let (open, old) = (question(0), question(1));
        for (asked, is_current) in [(&open, true), (&old, false)] {
            let payload = payload(asked, "Tomorrow");
            let mut tap = message(&[
                ("Body", "Tomorrow"),
                ("ButtonText", "Tomorrow"),
                ("ButtonPayload", &payload),
            ]);
            assert_eq!(tap.resolve_choice(Some(&open)), is_current);
            let chosen = tap.choice().unwrap();
            assert_eq!(
                (chosen.id.as_str(), chosen.title.as_str()),
                ("Tomorrow", "Tomorrow")
            );
            assert_eq!((chosen.via, chosen.current), (ChoiceVia::List, is_current));
            assert_eq!(chosen.key.as_deref(), Some("day"));
            let button = tap.button.unwrap();
            assert_eq!(button.payload.as_deref(), Some("Tomorrow"));
            assert_eq!(tap.params.get("ButtonPayload"), Some("Tomorrow"));
        }
    }

    #[test]
    fn typed_answer_needs_open_question() {
        let open = question(0);
        for (body, expected) in [
            ("today", Some(("Today", ChoiceVia::Text))),
            ("2", Some(("Tomorrow", ChoiceVia::Number))),
            ("never", None),
        ] {
            let mut typed = message(&[("Body", body)]);
            assert_eq!(typed.resolve_choice(Some(&open)), expected.is_some());
            let chosen = typed.choice();
            let found = chosen
                .as_ref()
                .map(|chosen| (chosen.id.as_str(), chosen.via));
            assert_eq!(found, expected, "{body}");
            assert!(!typed.resolve_choice(None));
            assert_eq!(typed.choice(), None, "{body}");
        }
        // A picture with a caption is not an answer.
        let mut photo = message(&[("Body", "2"), ("MediaUrl0", "https://h/1")]);
        assert!(!photo.resolve_choice(Some(&open)));
    }

    #[test]
    fn foreign_button_does_not_answer() {
        let open = question(0);
        let mut tap = message(&[
            ("Body", "Today"),
            ("ButtonText", "Today"),
            ("ButtonPayload", "Today"),
        ]);
        assert!(!tap.resolve_choice(Some(&open)));
        let chosen = tap.choice().unwrap();
        assert_eq!((chosen.key, chosen.current), (None, false));
        let mut lost = message(&[("Body", "Today"), ("ButtonText", "Today")]);
        assert!(lost.resolve_choice(Some(&open)));
        assert_eq!(lost.choice().unwrap().via, ChoiceVia::Button);
    }
}
