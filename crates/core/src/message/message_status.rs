//! Delivery status of a message.

use super::parts::open_enum;

open_enum! {
    /// Delivery status of a message, as in `MessageStatus` and `SmsStatus`.
    ///
    /// Twilio does not guarantee the order of status callbacks; they may also be lost or repeated. Compare
    /// [`MessageStatus::rank`] to recognize an outdated one.
    ///
    /// ```
    /// use replyhook::MessageStatus;
    ///
    /// let (received, known) = (MessageStatus::parse("sent"), MessageStatus::Delivered);
    /// assert!(received.rank() < known.rank(), "an outdated callback");
    /// assert!(MessageStatus::Failed.is_failure());
    /// ```
    MessageStatus {
        /// Accepted; the Messaging Service has yet to choose the sender.
        Accepted = "accepted",
        /// Waiting for its send time.
        Scheduled = "scheduled",
        /// Queued for its sender.
        Queued = "queued",
        /// Being sent to the carrier or channel.
        Sending = "sending",
        /// Accepted by the carrier or channel.
        Sent = "sent",
        /// Delivered to the phone.
        Delivered = "delivered",
        /// Read by the user (WhatsApp, RCS).
        Read = "read",
        /// Accepted by the carrier or channel, but not delivered. Final.
        Undelivered = "undelivered",
        /// Rejected by Twilio or the first hop. Final.
        Failed = "failed",
        /// Canceled before its send time. Final.
        Canceled = "canceled",
        /// Inbound, in transit to you.
        Receiving = "receiving",
        /// Inbound, received by Twilio.
        Received = "received",
        /// Deprecated by Twilio.
        PartiallyDelivered = "partially_delivered",
    }
}

impl MessageStatus {
    /// Returns the progress of an outbound message. A status with a lower or equal rank is outdated. `None` for inbound
    /// and unknown statuses.
    pub fn rank(&self) -> Option<u8> {
        // The final failures share the highest rank: nothing may follow them, and the first one stays.
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

    /// Returns whether the user will not get the message.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Undelivered | Self::Failed | Self::Canceled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A final failure outranks every other status.
    #[test]
    fn status_rank_rises_from_accepted_to_failed() {
        let statuses = [
            "accepted",
            "queued",
            "sending",
            "sent",
            "delivered",
            "read",
            "failed",
        ];
        let ranks: Vec<_> = statuses
            .iter()
            .map(|text| MessageStatus::parse(text).rank().unwrap())
            .collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(MessageStatus::parse("teleported").rank(), None);
    }
}
