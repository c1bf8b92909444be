//! Twilio's error codes, as in the parameter `ErrorCode`, in REST responses and in Twilio's debugger.
//!
//! Source: Twilio's error dictionary, paraphrased.

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
        let found = MEANINGS
            .binary_search_by_key(&self.0, |(code, _)| *code)
            .ok()?;
        Some(MEANINGS[found].1)
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
        "the URL could not be fetched: it answered 4xx or 5xx, or sent no content type",
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
        "a loop of replies: too many between two numbers in a short time",
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
    (21701, "the Messaging Service does not exist"),
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
    (30034, "the number is not registered for US A2P 10DLC"),
    (30036, "the validity period ran out"),
    (30410, "the provider did not answer in time"),
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
    (63014, "the user has blocked you"),
    (63015, "the receiver has not joined the sandbox"),
    (
        63016,
        "free-form text outside the 24-hour window: use a template",
    ),
    (63017, "the account sends too fast for the channel"),
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
    (63033, "the user has blocked you"),
    (63034, "the media file is too large"),
    (63035, "the RCS agent is not launched"),
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
    (63051, "the WhatsApp sender is locked"),
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
    }
}
