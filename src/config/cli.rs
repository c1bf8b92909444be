//! Settings of commands that call Twilio or queue messages for a running server.
//!
//! They do not need `PUBLIC_URL`, nor an auth token if there is an API key.

use super::choices::ChoicesSettings;
use super::consent::ConsentSettings;
use super::layers::Layers;
use super::problem::Problems;
use super::reader::SettingsReader;
use super::sources::Sources;
use super::store::StoreSettings;
use super::twilio::AccountUse;
use super::{choices, consent, sections, store, twilio};
use crate::address::{Channel, Identity};
use crate::sid::AccountSid;
use crate::signature::AuthTokenKind;
use crate::store::ConsentScope;
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
        let accounts = accounts(&mut reader);
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
    /// Senders and Messaging Services from which the HTTP API may send; empty for those that messages came to.
    pub senders: Vec<ConsentScope>,
}

pub(super) fn outbound(reader: &mut SettingsReader<'_>) -> Option<OutboundSettings> {
    let rate = reader.number("outbound.rate_per_second", 0..=10_000);
    let on_unknown = [("hold", OnUnknown::Hold), ("resend", OnUnknown::Resend)];
    let on_unknown = reader.choice("outbound.on_unknown", &on_unknown);
    let senders = senders(reader);
    Some(OutboundSettings {
        rate_per_second: u32::try_from(rate?).ok()?,
        on_unknown: on_unknown?,
        senders: senders?,
    })
}

fn senders(reader: &mut SettingsReader<'_>) -> Option<Vec<ConsentScope>> {
    const KEY: &str = "outbound.senders";
    let mut senders = Vec::new();
    let mut is_valid = true;
    for text in reader.list(KEY) {
        let sender = ConsentScope::parse(&text);
        let is_sender = match &sender {
            ConsentScope::Sender(address) => {
                let is_phone_channel =
                    matches!(address.channel(), Channel::Sms | Channel::WhatsApp);
                let is_unknown = is_phone_channel && address.identity() == Identity::Other;
                !is_unknown && !address.id().is_empty()
            }
            ConsentScope::Service(_) => true,
            ConsentScope::Account(_) => false,
        };
        if !is_sender {
            reader.problem(
                KEY,
                format!(
                    "has {text:?}, which is neither a sender nor a Messaging Service: write [\"+15550002222\", \
                     \"whatsapp:+15550002222\", \"MG…\"]"
                ),
            );
            is_valid = false;
        }
        senders.push(sender);
    }
    is_valid.then_some(senders)
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
    /// Texts and lifetime of questions with choices.
    pub choices: ChoicesSettings,
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
        let (account, credentials) = rest_account(&mut reader, "that sends");
        let rest = sections::rest(&mut reader);
        let store = store::store(&mut reader);
        let consent = consent::consent(&mut reader);
        let outbound = outbound(&mut reader);
        let choices = choices::read(&mut reader);
        let (problems, _) = reader.finish();
        match (account, rest, store, consent, outbound, choices) {
            (
                Some(account),
                Some(rest),
                Some(store),
                Some(consent),
                Some(outbound),
                Some(choices),
            ) if problems.is_empty() => Ok(Self {
                account,
                credentials,
                content_url: rest.content_url,
                store,
                consent,
                outbound,
                choices,
            }),
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
    /// Account that owns the senders.
    pub account: AccountSid,
    /// Credentials of the account.
    pub credentials: Credentials,
    /// Base URL of the API of phone numbers.
    pub api_url: ApiUrl,
    /// Base URL of the API of WhatsApp senders and Messaging Services.
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
        let (account, credentials) = rest_account(&mut reader, "that owns the senders");
        let rest = sections::rest(&mut reader);
        if account.is_some() && credentials.is_none() {
            reader.problem(
                "twilio.auth_token",
                "is missing: set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret, to call Twilio's API",
            );
        }
        let (problems, _) = reader.finish();
        match (account, credentials, rest) {
            (Some(account), Some(credentials), Some(rest)) if problems.is_empty() => Ok(Self {
                account,
                credentials,
                api_url: rest.api_url,
                messaging_url: rest.messaging_url,
            }),
            _ => Err(problems),
        }
    }
}

/// Returns the account of a command's REST calls, and its credentials, if it has any. Records a missing account.
///
/// `purpose` completes "the account …" in the text of the problem.
fn rest_account(
    reader: &mut SettingsReader<'_>,
    purpose: &str,
) -> (Option<AccountSid>, Option<Credentials>) {
    let settings = twilio::twilio(reader, AccountUse::Call);
    require_account_sid(reader, purpose);
    let credentials = settings.as_ref().and_then(|settings| {
        let keyring = settings.keyring();
        keyring.credentials(settings.account_sid?, AuthTokenKind::Primary)
    });
    let account = settings.and_then(|settings| settings.account_sid);
    (account, credentials)
}

/// Records a problem if `twilio.account_sid` is missing. `purpose` completes "the account …" in its text.
fn require_account_sid(reader: &mut SettingsReader<'_>, purpose: &str) {
    const KEY: &str = "twilio.account_sid";
    if reader.text(KEY).is_empty() {
        reader.problem(
            KEY,
            format!("is missing: set TWILIO_ACCOUNT_SID to the account {purpose}"),
        );
    }
}

/// Returns the main account and those below `twilio.accounts`, each with its credentials.
fn accounts(reader: &mut SettingsReader<'_>) -> Vec<(AccountSid, Credentials)> {
    let settings = twilio::twilio(reader, AccountUse::Call);
    require_account_sid(reader, "whose messages are listed");
    let Some(settings) = settings else {
        return Vec::new();
    };
    let keyring = settings.keyring();
    let has_keys = match settings.account_sid {
        Some(account) => keyring.keys(account).is_some(),
        None => settings.main.is_some(),
    };
    if !has_keys {
        reader.problem(
            "twilio.auth_token",
            "is missing: set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret, to read Twilio's message \
             list",
        );
    }
    let with_credentials = |account| {
        let credentials = keyring.credentials(account, AuthTokenKind::Primary)?;
        Some((account, credentials))
    };
    let accounts = keyring.accounts().into_iter();
    accounts.filter_map(with_credentials).collect()
}
