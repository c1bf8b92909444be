//! Twilio's error codes, as in the parameter `ErrorCode`, in REST responses and in Twilio's debugger.
//!
//! Source: Twilio's error dictionary, paraphrased.

use std::borrow::Cow;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A Twilio error code, such as 11200 or 63016.
///
/// ```
/// use replyhook::ErrorCode;
///
/// assert_eq!(ErrorCode(21610).meaning(), Some("the receiver has opted out"));
/// assert_eq!("21610".parse(), Ok(ErrorCode(21610)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// Returns the meaning in one line; `None` for a code that this version does not know.
    pub fn meaning(self) -> Option<&'static str> {
        // The table must stay sorted by code; the test below checks it.
        match MEANINGS.binary_search_by_key(&self.0, |(code, _)| *code) {
            Ok(found) => Some(MEANINGS[found].1),
            // Twilio's Senders API, about one step of the registration each.
            Err(_) if (63100..=63118).contains(&self.0) => {
                Some("the channel sender could not be registered or changed")
            }
            Err(_) => None,
        }
    }

    /// Returns the meaning, or a reference to Twilio's page about a code that this version does not know.
    ///
    /// ```
    /// use replyhook::ErrorCode;
    ///
    /// assert_eq!(ErrorCode(21610).meaning_or_link(), "the receiver has opted out");
    /// assert_eq!(ErrorCode(30022).meaning_or_link(), "see https://www.twilio.com/docs/api/errors/30022");
    /// ```
    pub fn meaning_or_link(self) -> Cow<'static, str> {
        match self.meaning() {
            Some(meaning) => meaning.into(),
            None => format!("see {}", self.more_info()).into(),
        }
    }

    /// Returns the URL of Twilio's page about the code.
    pub fn more_info(self) -> String {
        format!("https://www.twilio.com/docs/api/errors/{}", self.0)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ErrorCode {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// Codes with their meanings, sorted by code.
const MEANINGS: &[(u32, &str)] = &[
    (11100, "the URL is malformed"),
    (
        11200,
        "the URL could not be fetched, or its answer has no content type",
    ),
    (11201, "the connection timed out, twice"),
    (11202, "the connection was refused"),
    (11203, "the total time of all tries was used up"),
    (
        11205,
        "no connection (network, private address or localhost), or no response within 15 seconds",
    ),
    (11206, "the answer broke the HTTP protocol"),
    (11210, "the host name does not resolve"),
    (11215, "too many redirects"),
    (
        11216,
        "a redirect that Twilio does not follow: only 301, 302, 303 and 307 with a valid Location",
    ),
    (11217, "the URL answered 4xx or 5xx"),
    (11220, "the TLS handshake failed"),
    (11235, "the certificate is for another host"),
    (11236, "the certificate has expired"),
    (11237, "the certificate has no path to a trusted root"),
    (11240, "the edge in the URL's fragment is malformed"),
    (11241, "the edge in the URL's fragment is not supported"),
    (11242, "the edge in the URL's fragment is not permitted"),
    (11243, "the retry policy in the URL's fragment is wrong"),
    (11251, "the answer broke the protocol beyond repair"),
    (11300, "the URL template is wrong"),
    (11310, "the URL template is wrong"),
    (11320, "the URL template is wrong"),
    (
        11321,
        "the configured URL is malformed, so it was not called",
    ),
    (11322, "the configured HTTP method is wrong"),
    (11750, "the answer is longer than 64 kB"),
    (11751, "a media file is too large for the channel"),
    (
        11770,
        "the answer is empty although its encoding is chunked",
    ),
    (12100, "the answer is not XML"),
    (12101, "the XML version is wrong"),
    (12102, "the answer's root is not Response"),
    (
        12200,
        "the answer holds a verb or attribute that TwiML does not have",
    ),
    (12300, "the answer's content type cannot be used"),
    (12301, "the content type of an upload cannot be used"),
    (12400, "Twilio failed inside"),
    (14101, "a Message's `to` is wrong"),
    (14102, "a Message's `from` is wrong"),
    (
        14103,
        "a Message's body is empty or longer than 1600 characters",
    ),
    (14104, "a `method` is wrong"),
    (14105, "a `statusCallback` is wrong"),
    (14106, "more than 50 documents were fetched for one message"),
    (
        14107,
        "a loop of replies: more than 30 between two numbers, each within 30 seconds of the last",
    ),
    (14108, "a Message's `from` cannot send messages"),
    (14109, "more than 10 Messages in one answer"),
    (14110, "a verb that messaging does not allow"),
    (14111, "a trial account wrote to an unverified number"),
    (20003, "the credentials are wrong"),
    (20404, "not found"),
    (20429, "too many requests"),
    (20500, "Twilio failed inside"),
    (20503, "Twilio is not available"),
    (21211, "the receiver's address is invalid"),
    (21408, "the receiver's country is not enabled"),
    (21602, "the body is missing"),
    (21603, "sender and Messaging Service are both missing"),
    (21604, "the receiver is missing"),
    (21606, "the sender cannot be used for this receiver"),
    (21608, "a trial account wrote to an unverified number"),
    (21609, "the status callback URL is invalid"),
    (21610, "the receiver has opted out"),
    (21611, "the sender's queue is full"),
    (21612, "the receiver cannot be reached by SMS"),
    (21614, "the receiver is not a mobile number"),
    (21617, "the body is longer than 1600 characters"),
    (21619, "body, media and content are all missing"),
    (21620, "a media URL is invalid"),
    (21623, "more than 10 media files"),
    (21624, "the validity period is out of range"),
    (21654, "the content SID is missing"),
    (21655, "the content SID is invalid"),
    (21656, "the content variables are invalid"),
    (21658, "a parameter is too long"),
    (21660, "the sender is not in this account"),
    (21661, "the sender cannot send SMS"),
    (21662, "this combination is not possible in region IE1"),
    (21663, "this combination is not possible in region IE1"),
    (21664, "FallbackFrom cannot be used together with From"),
    (21665, "FallbackFrom is not a valid sender of this account"),
    (21666, "FallbackFrom requires a Messaging Service"),
    (
        21667,
        "FallbackFrom requires a Messaging Service with an RCS sender",
    ),
    (21668, "this combination is not possible in region IE1"),
    (21701, "the Messaging Service does not exist"),
    (21702, "the Messaging Service accepts no new messages"),
    (21703, "the Messaging Service has no usable sender"),
    (21705, "the Messaging Service SID is invalid"),
    (21910, "sender and receiver are on different channels"),
    (30001, "the queue overflowed"),
    (30002, "the account is suspended"),
    (30003, "the handset cannot be reached"),
    (30004, "the message was blocked"),
    (30005, "the handset is unknown"),
    (30006, "the receiver is a landline or cannot be reached"),
    (30007, "the carrier filtered the message as spam"),
    (30008, "unknown failure"),
    (30032, "the toll-free number is not verified"),
    (30033, "the A2P 10DLC campaign is suspended"),
    (30034, "the number is not registered for US A2P 10DLC"),
    (30036, "the validity period ran out"),
    (30042, "the sender ID is blocked"),
    (
        30043,
        "an international message was sent by a domestic route",
    ),
    (30046, "no device of the receiver was reached by RCS"),
    (30410, "the provider did not answer in time"),
    (
        30450,
        "SMS pumping protection blocks the receiver for some minutes",
    ),
    (
        30453,
        "SMS pumping protection blocks the receiver for some hours",
    ),
    (30454, "the message volume of the trial account is used up"),
    (63001, "the channel rejected the credentials"),
    (63002, "the channel does not know the sender"),
    (
        63003,
        "the channel does not know the receiver: not a WhatsApp user",
    ),
    (63005, "the channel rejected the content"),
    (63006, "the message could not be formatted for the channel"),
    (63007, "the account has no channel sender with this address"),
    (63008, "the channel is misconfigured"),
    (63009, "the channel's provider failed"),
    (63010, "Twilio failed inside"),
    (63011, "the request to the channel was invalid"),
    (63012, "the channel's provider failed inside"),
    (63013, "the content violates the channel's policy"),
    (
        63014,
        "the user has blocked you, or opted out at the channel",
    ),
    (63015, "the receiver has not joined the sandbox"),
    (
        63016,
        "free-form text outside the 24-hour window: use a template",
    ),
    (
        63017,
        "the account and its subaccounts send too fast for the channel",
    ),
    (63018, "the sender sends too fast for the channel"),
    (63019, "the media file could not be downloaded"),
    (63020, "the Business Manager invitation was not accepted"),
    (63021, "the content is invalid or too long for the channel"),
    (63022, "the display-name certificate is wrong"),
    (63023, "the channel failed"),
    (63024, "the receiver is invalid"),
    (63025, "the media file exists already"),
    (63026, "the message was flagged as spam"),
    (63027, "the template does not exist in that language"),
    (63028, "the number of template variables is wrong"),
    (63029, "the receiver could not download the template"),
    (63030, "a parameter is not supported on this channel"),
    (63031, "sender and receiver are the same"),
    (63032, "WhatsApp limits messages to this user"),
    (63033, "the receiver has opted out"),
    (63034, "the media file is too large"),
    (63035, "the RCS sender may not send to this receiver"),
    (63036, "the number cannot be reached by RCS"),
    (
        63037,
        "the media file could not be uploaded; Twilio tries again",
    ),
    (63038, "the account's daily limit of messages is reached"),
    (63039, "the Messenger channel warns of abuse"),
    (63040, "the template was rejected"),
    (63041, "the template is paused"),
    (63042, "the template is disabled"),
    (
        63049,
        "WhatsApp withheld a marketing template from this user",
    ),
    (63050, "the user has opted out of marketing messages"),
    (63051, "the WhatsApp sender or account is locked"),
    (
        63052,
        "the text of a template was sent as a body; use the template's SID",
    ),
    (
        63053,
        "the template is not synchronized yet; this takes up to 10 minutes",
    ),
    (63054, "the template is not available"),
    (
        63055,
        "a message that is not marketing was sent by the Marketing Messages API",
    ),
    (63056, "the account's type does not allow this message"),
    (63057, "too many templates were submitted"),
    (63058, "the business may not message users in this country"),
    (
        63059,
        "the number has moved to another WhatsApp Business Account",
    ),
    (
        63062,
        "the terms of the Marketing Messages API are not accepted",
    ),
    (63106, "the number cannot be reached by RCS"),
    (63119, "a limit of Meta for senders is reached"),
    (63120, "the WhatsApp sender is locked"),
    (70051, "the API key lacks a permission"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_table_is_sorted_for_lookup() {
        assert!(MEANINGS.is_sorted_by(|(a, _), (b, _)| a < b));
        for (code, meaning) in MEANINGS {
            assert_eq!(ErrorCode(*code).meaning(), Some(*meaning));
        }
        assert_eq!(ErrorCode(1).meaning(), None);
        assert!(ErrorCode(63100).meaning().is_some() && ErrorCode(63121).meaning().is_none());
    }
}
