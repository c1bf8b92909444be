//! Settings of commands that call Twilio or queue messages for a running server.
//!
//! They do not need `PUBLIC_URL`, nor an auth token if there is an API key.

use super::consent::ConsentSettings;
use super::layers::Layers;
use super::problem::Problems;
use super::reader::SettingsReader;
use super::sections::RestSettings;
use super::sources::Sources;
use super::store::StoreSettings;
use super::{consent, sections, store};
use crate::sid::AccountSid;
use crate::twilio::{ApiUrl, Credentials};

pub use crate::delivery::OnUnknown;

/// The settings for comparing the journal with Twilio's message list.
///
/// Loaded in the same way as [`StoreSettings`], which has an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReconcileSettings {
    /// Accounts whose webhooks the server accepts, each with the credentials for its message list.
    pub accounts: Vec<(AccountSid, Credentials)>,
    /// Base URL of the REST API.
    pub api_url: ApiUrl,
    /// The store with the journal.
    pub store: StoreSettings,
    /// Opt-out and opt-in keywords.
    pub consent: ConsentSettings,
}

impl ReconcileSettings {
    /// Reads only these settings; others may be missing.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let rest = sections::rest(&mut reader);
        let api_key = rest.as_ref().and_then(|rest| rest.api_key.clone());
        let accounts = accounts(
            &mut reader,
            api_key.map(|(sid, secret)| Credentials::api_key(sid, secret)),
        );
        let store = store::store(&mut reader);
        let consent = consent::consent(&mut reader);
        let (problems, _) = reader.finish();
        match (rest, store, consent) {
            (Some(rest), Some(store), Some(consent)) if problems.is_empty() => Ok(Self {
                accounts,
                api_url: rest.api_url,
                store,
                consent,
            }),
            _ => Err(problems),
        }
    }
}

/// The settings of the `[outbound]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundSettings {
    /// Maximum number of outbound messages per second of one sender; 0 for no limit.
    pub rate_per_second: u32,
    /// Action for a message sent via the REST API, a reply or an outbound message, whose outcome is unknown.
    pub on_unknown: OnUnknown,
}

pub(super) fn outbound(reader: &mut SettingsReader<'_>) -> Option<OutboundSettings> {
    let rate = reader.number("outbound.rate_per_second", 0..=10_000);
    let on_unknown = [("hold", OnUnknown::Hold), ("resend", OnUnknown::Resend)];
    let on_unknown = reader.choice("outbound.on_unknown", &on_unknown);
    Some(OutboundSettings {
        rate_per_second: u32::try_from(rate?).ok()?,
        on_unknown: on_unknown?,
    })
}

/// The settings for queueing outbound messages and listing templates.
///
/// Loaded in the same way as [`StoreSettings`], which has an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SendSettings {
    /// The account that sends.
    pub account: AccountSid,
    /// Credentials for the API of templates, if an API key or auth token is set.
    pub credentials: Option<Credentials>,
    /// Base URL of the API of templates.
    pub content_url: ApiUrl,
    /// The store with the outbox.
    pub store: StoreSettings,
    /// Consent rules, among them whether a template needs an opt-in.
    pub consent: ConsentSettings,
    /// Rate limit of outbound messages.
    pub outbound: OutboundSettings,
}

impl SendSettings {
    /// Reads only these settings; others may be missing.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let account = require_account_sid(&mut reader, "that sends");
        let rest = sections::rest(&mut reader);
        let credentials = rest_credentials(&mut reader, account, rest.as_ref());
        let store = store::store(&mut reader);
        let consent = consent::consent(&mut reader);
        let outbound = outbound(&mut reader);
        let (problems, _) = reader.finish();
        match (account, rest, store, consent, outbound) {
            (Some(account), Some(rest), Some(store), Some(consent), Some(outbound))
                if problems.is_empty() =>
            {
                Ok(Self {
                    account,
                    credentials,
                    content_url: rest.content_url,
                    store,
                    consent,
                    outbound,
                })
            }
            _ => Err(problems),
        }
    }
}

/// The settings for reading and changing the webhooks of senders.
///
/// Loaded in the same way as [`StoreSettings`], which has an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SenderWebhookSettings {
    /// Credentials for the API of senders.
    pub credentials: Credentials,
    /// Base URL of the API of senders.
    pub messaging_url: ApiUrl,
}

impl SenderWebhookSettings {
    /// Reads only these settings; others may be missing.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let account = require_account_sid(&mut reader, "that owns the senders");
        let rest = sections::rest(&mut reader);
        // If `rest_credentials` reports a problem, such as an empty token, a second one would be noise.
        let problems_before = reader.problem_count();
        let credentials = rest_credentials(&mut reader, account, rest.as_ref());
        if account.is_some() && credentials.is_none() && reader.problem_count() == problems_before {
            reader.problem(
                "twilio.auth_token",
                "is missing: set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret, to call Twilio's API",
            );
        }
        let (problems, _) = reader.finish();
        match (credentials, rest) {
            (Some(credentials), Some(rest)) if problems.is_empty() => Ok(Self {
                credentials,
                messaging_url: rest.messaging_url,
            }),
            _ => Err(problems),
        }
    }
}

/// Returns the API key if there is one, otherwise the account's auth token.
fn rest_credentials(
    reader: &mut SettingsReader<'_>,
    account: Option<AccountSid>,
    rest: Option<&RestSettings>,
) -> Option<Credentials> {
    // Read the token even if there is an API key, so that its problems are reported.
    let token = sections::token(reader, "twilio.auth_token");
    if let Some((sid, secret)) = rest.and_then(|rest| rest.api_key.clone()) {
        return Some(Credentials::api_key(sid, secret));
    }
    Some(Credentials::auth_token(account?, token?))
}

/// Returns `twilio.account_sid`, or records a problem. `purpose` completes "the account …" in its text.
fn require_account_sid(reader: &mut SettingsReader<'_>, purpose: &str) -> Option<AccountSid> {
    const KEY: &str = "twilio.account_sid";
    match reader.text(KEY) {
        "" => {
            reader.problem(
                KEY,
                format!("is missing: set TWILIO_ACCOUNT_SID to the account {purpose}"),
            );
            None
        }
        text => reader.account_sid(KEY, text),
    }
}

/// Returns the main account, with its API key or else its token, and the accounts below `twilio.accounts`.
fn accounts(
    reader: &mut SettingsReader<'_>,
    api_key: Option<Credentials>,
) -> Vec<(AccountSid, Credentials)> {
    let mut accounts: Vec<(AccountSid, Credentials)> = Vec::new();
    let main_account = require_account_sid(reader, "whose messages are listed");
    let problems_before = reader.problem_count();
    let token = sections::token(reader, "twilio.auth_token");
    if api_key.is_none() && token.is_none() && reader.problem_count() == problems_before {
        reader.problem(
            "twilio.auth_token",
            "is missing: set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret, to read Twilio's message \
             list",
        );
    }
    if let Some(main_account) = main_account {
        let token = token.map(|token| Credentials::auth_token(main_account, token));
        accounts.extend(
            api_key
                .or(token)
                .map(|credentials| (main_account, credentials)),
        );
    }
    for name in reader.layers.accounts() {
        if let Some((sid, token)) = sections::account(reader, &name) {
            let existing = accounts
                .iter()
                .position(|(known, _)| known.to_lowercase() == sid.to_lowercase());
            let credentials = Credentials::auth_token(sid, token);
            match existing {
                // Its entry below `twilio.accounts` wins over the default token, as in `Keyring::credentials`.
                Some(index) => accounts[index].1 = credentials,
                None => accounts.push((sid, credentials)),
            }
        }
    }
    accounts
}
