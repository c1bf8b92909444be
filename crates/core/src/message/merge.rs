//! Merging of several messages of a user into one, for `reply.debounce_ms`.

use super::inbound_message::InboundMessage;
use super::parts::MessageType;

impl InboundMessage {
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
    use crate::form::FormParams;

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
