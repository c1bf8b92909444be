//! What a command needs that calls Twilio, or has something sent, beside a running server: no `PUBLIC_URL`, and no auth
//! token where there is an API key.

use super::layers::Layers;
use super::reader::Reader;
use super::{ConsentSettings, Problems, RestSettings, Sources, StoreSettings, keeping, sections};
use crate::sid::AccountSid;
use crate::twilio::{ApiUrl, Credentials};

pub use crate::delivery::OnUnknown;

/// What comparing the journal with Twilio's list needs of the settings.
///
/// Read by itself: as in the example of [`StoreSettings`](super::StoreSettings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReconcileSettings {
    /// The accounts whose webhooks the server takes, and who asks for their lists.
    pub accounts: Vec<(AccountSid, Credentials)>,
    /// Where the API is.
    pub api_url: ApiUrl,
    /// Where the journal is.
    pub store: StoreSettings,
    /// Which words opt out and in.
    pub consent: ConsentSettings,
}

impl ReconcileSettings {
    /// Reads only these; the rest of the settings may be missing.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let rest = sections::rest(&mut reader);
        let api_key = rest.as_ref().and_then(|rest| rest.api_key.clone());
        let accounts = accounts(
            &mut reader,
            api_key.map(|(sid, secret)| Credentials::api_key(sid, secret)),
        );
        let store = keeping::store(&mut reader);
        let consent = keeping::consent(&mut reader);
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

/// `[outbound]`
///
/// Part of [`Settings`](super::Settings), which says how it is read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundSettings {
    /// Outbound messages per second that one sender may send; 0 for no limit.
    pub rate_per_second: u32,
    /// Action for an outbound message with an unknown outcome.
    pub on_unknown: OnUnknown,
}

pub(super) fn outbound(reader: &mut Reader<'_>) -> Option<OutboundSettings> {
    let rate = reader.number("outbound.rate_per_second", 0..=10_000);
    let on_unknown = [("hold", OnUnknown::Hold), ("resend", OnUnknown::Resend)];
    let on_unknown = reader.choice("outbound.on_unknown", &on_unknown);
    Some(OutboundSettings {
        rate_per_second: u32::try_from(rate?).ok()?,
        on_unknown: on_unknown?,
    })
}

/// What sending first, and looking at templates, needs of the settings.
///
/// Read by itself: as in the example of [`StoreSettings`](super::StoreSettings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SenderSettings {
    /// The account that sends.
    pub account: AccountSid,
    /// Who asks about templates, if there is something to ask with.
    pub credentials: Option<Credentials>,
    /// Where the API of templates is.
    pub content_url: ApiUrl,
    /// Where the outbox is.
    pub store: StoreSettings,
    /// Whether a template needs an opt-in.
    pub consent: ConsentSettings,
    /// How fast it goes.
    pub outbound: OutboundSettings,
}

impl SenderSettings {
    /// Reads only these; the rest of the settings may be missing.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let account = own_account(&mut reader, "which sends");
        let rest = sections::rest(&mut reader);
        let credentials = own_credentials(&mut reader, account, rest.as_ref());
        let store = keeping::store(&mut reader);
        let consent = keeping::consent(&mut reader);
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

/// What looking at the webhooks of senders, and setting them, needs of the settings.
///
/// Read by itself: as in the example of [`StoreSettings`](super::StoreSettings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebhookSettings {
    /// Who asks.
    pub credentials: Credentials,
    /// Where the API of senders is.
    pub messaging_url: ApiUrl,
}

impl WebhookSettings {
    /// Reads only these; the rest of the settings may be missing.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let account = own_account(&mut reader, "whose senders these are");
        let rest = sections::rest(&mut reader);
        let before = reader.problem_count();
        let credentials = own_credentials(&mut reader, account, rest.as_ref());
        if account.is_some() && credentials.is_none() && reader.problem_count() == before {
            reader.problem(
                "twilio.auth_token",
                "is missing: set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret: Twilio is asked with them",
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

/// The API key, else the account's own token.
fn own_credentials(
    reader: &mut Reader<'_>,
    account: Option<AccountSid>,
    rest: Option<&RestSettings>,
) -> Option<Credentials> {
    let token = sections::token(reader, "twilio.auth_token");
    if let Some((sid, secret)) = rest.and_then(|rest| rest.api_key.clone()) {
        return Some(Credentials::api_key(sid, secret));
    }
    Some(Credentials::auth_token(account?, token?))
}

fn own_account(reader: &mut Reader<'_>, which: &str) -> Option<AccountSid> {
    const KEY: &str = "twilio.account_sid";
    match reader.text(KEY) {
        "" => {
            reader.problem(
                KEY,
                format!("is missing: set TWILIO_ACCOUNT_SID to the account {which}"),
            );
            None
        }
        text => sections::sid(reader, KEY, text),
    }
}

/// The account itself by its API key, else by its token; those beside it by their own tokens.
fn accounts(
    reader: &mut Reader<'_>,
    api_key: Option<Credentials>,
) -> Vec<(AccountSid, Credentials)> {
    let mut accounts: Vec<(AccountSid, Credentials)> = Vec::new();
    let own = own_account(reader, "whose messages are listed");
    let before = reader.problem_count();
    let token = sections::token(reader, "twilio.auth_token");
    if api_key.is_none() && token.is_none() && reader.problem_count() == before {
        reader.problem(
            "twilio.auth_token",
            "is missing: set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret: Twilio's list is asked for \
             with them",
        );
    }
    if let Some(own) = own {
        let token = token.map(|token| Credentials::auth_token(own, token));
        accounts.extend(api_key.or(token).map(|credentials| (own, credentials)));
    }
    for name in reader.layers.accounts() {
        let key = format!("twilio.accounts.{name}.auth_token");
        let sid = sections::sid(reader, &key, &name);
        if let (Some(sid), Some(token)) = (sid, sections::token(reader, &key)) {
            let known = accounts
                .iter()
                .position(|(known, _)| known.to_lowercase() == sid.to_lowercase());
            let credentials = Credentials::auth_token(sid, token);
            match known {
                // Its own token counts before the default one, as it does for replies.
                Some(at) => accounts[at].1 = credentials,
                None => accounts.push((sid, credentials)),
            }
        }
    }
    accounts
}
