//! Where a message is on its way.

use super::parts::open_enum;

open_enum! {
    /// Where a message is on its way. Order is not promised by Twilio, calls may be lost or repeated: compare
    /// [`MessageStatus::rank`].
    ///
    /// ```
    /// use replyhook::MessageStatus;
    ///
    /// let (told, known) = (MessageStatus::parse("sent"), MessageStatus::Delivered);
    /// assert!(told.rank() < known.rank(), "an old callback, which comes late");
    /// assert!(MessageStatus::Failed.is_failure());
    /// ```
    MessageStatus {
        /// A Messaging Service will choose the sender.
        Accepted = "accepted",
        /// Waits for its time.
        Scheduled = "scheduled",
        /// Waits for its sender.
        Queued = "queued",
        /// On its way to the carrier or channel.
        Sending = "sending",
        /// Taken by the carrier or channel.
        Sent = "sent",
        /// On the phone.
        Delivered = "delivered",
        /// Seen by the user (WhatsApp, RCS).
        Read = "read",
        /// Taken upstream, then not delivered. Final.
        Undelivered = "undelivered",
        /// Refused by Twilio or the first hop. Final.
        Failed = "failed",
        /// Called back before its time. Final.
        Canceled = "canceled",
        /// Inbound, on its way to you.
        Receiving = "receiving",
        /// Inbound.
        Received = "received",
        /// Deprecated by Twilio.
        PartiallyDelivered = "partially_delivered",
    }
}

impl MessageStatus {
    /// How far a message has come: only a higher rank is news. `None` for inbound and unknown ones.
    pub fn rank(&self) -> Option<u8> {
        Some(match self {
            Self::Accepted | Self::Scheduled => 0,
            Self::Queued => 1,
            Self::Sending => 2,
            Self::Sent => 3,
            Self::PartiallyDelivered | Self::Delivered => 4,
            Self::Read => 5,
            Self::Undelivered | Self::Failed | Self::Canceled => 6,
            Self::Receiving | Self::Received | Self::Other(_) => return None,
        })
    }

    /// Whether it says that the user will not see the message.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Undelivered | Self::Failed | Self::Canceled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_rise_along_the_way_and_final_failures_stand_above_all() {
        let way = [
            "accepted",
            "queued",
            "sending",
            "sent",
            "delivered",
            "read",
            "failed",
        ];
        let ranks: Vec<_> = way
            .iter()
            .map(|text| MessageStatus::parse(text).rank().unwrap())
            .collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(MessageStatus::parse("teleported").rank(), None);
    }
}
