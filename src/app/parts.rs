//! What each part takes of the settings.

use std::sync::Arc;
use std::time::Duration;

use super::Tunnel;
use crate::config::{OnCrash, Settings, SignatureMode, TwilioSettings};
use crate::delivery::{DeliveryPolicy, Keyring, Route, Routes};
use crate::dispatch::{DispatchLimits, Guard, GuardRules};
use crate::sid::AccountSid;
use crate::signature::{PublicUrl, RequestLimits, SignatureLayer, SignatureVerifier};
use crate::start_error::StartError;
use crate::store::{CrashPolicy, Store, StoreUrl};
use crate::twilio::{ApiUrl, Client};
use crate::webhook::RefusalReport;

/// What a fallback call waits for a handler: it comes when the primary's time is used up already.
const FALLBACK_DEADLINE: Duration = Duration::from_secs(5);

pub(super) fn guard(settings: &Settings) -> Guard {
    Guard::new(GuardRules {
        loops: settings.guard.loops,
        per_minute: settings.guard.messages_per_user_per_minute,
        own_numbers: settings.guard.own_numbers.clone(),
    })
}

pub(super) fn delivery_policy(settings: &Settings) -> DeliveryPolicy {
    DeliveryPolicy {
        on_unknown: settings.outbound.on_unknown,
        late_template: settings.reply.window_closed_template.clone(),
        consent_required: settings.consent.required,
    }
}

pub(super) fn dispatch_limits(settings: &Settings) -> DispatchLimits {
    DispatchLimits {
        deadline: settings.reply.deadline,
        fallback_deadline: FALLBACK_DEADLINE.min(settings.reply.deadline),
        merge: settings.reply.debounce,
        numbered: settings.reply.numbered,
        max_messages: settings.reply.max_messages,
        hand_over: settings.handoff.ttl,
        handler: settings.handler.timeout,
        running: settings.handler.max_concurrent,
        crashes: CrashPolicy {
            retry: settings.handler.on_crash == OnCrash::Retry,
            attempts: settings.handler.max_attempts,
        },
    }
}

/// Where Twilio reports what becomes of a message. It refuses an address that it could never reach (21609).
fn status_callback(settings: &Settings) -> Option<PublicUrl> {
    let public_url = &settings.server.public_url;
    let reachable = !public_url.is_loopback() || settings.rest.api_url.is_loopback();
    reachable.then(|| public_url.clone())
}

pub(super) fn routes(
    settings: &Settings,
    only: Option<AccountSid>,
    tunnel: Option<&Tunnel>,
) -> Routes {
    Routes {
        home: Route {
            client: Client::new(settings.rest.api_url.clone()),
            status_callback: status_callback(settings),
        },
        only,
        elsewhere: tunnel.map(|tunnel| {
            let route = Route {
                client: Client::new(ApiUrl::default()),
                status_callback: Some(tunnel.public_url.clone()),
            };
            (tunnel.account, route)
        }),
    }
}

pub(super) fn keyring(settings: &Settings, tunnel: Option<&Tunnel>) -> Keyring {
    let accounts = settings.twilio.accounts.iter();
    let behind = tunnel.and_then(|tunnel| {
        let token = tunnel.tokens.first()?;
        Some((tunnel.account.to_lowercase(), token.clone()))
    });
    Keyring {
        account: settings.twilio.account_sid,
        api_key: settings.rest.api_key.clone(),
        primary: settings.twilio.auth_token.clone(),
        secondary: settings.twilio.auth_token_secondary.clone(),
        accounts: accounts
            .map(|account| (account.sid.to_lowercase(), account.auth_token.clone()))
            .chain(behind)
            .collect(),
    }
}

/// The store at an address; nothing is opened or connected yet.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::Access;
///
/// let store = replyhook::open_later(&"sqlite::memory:".parse()?)?;
/// store.open(Access::Owner).await?;
/// store.check().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`StartError`] when this build does not have its kind.
pub fn open_later(url: &StoreUrl) -> Result<Arc<dyn Store>, StartError> {
    match url {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => Ok(Arc::new(crate::store::sqlite::SqliteStore::file(path))),
        #[cfg(feature = "sqlite")]
        StoreUrl::Memory => Ok(Arc::new(crate::store::sqlite::SqliteStore::memory())),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => Ok(Arc::new(crate::store::postgres::PostgresStore::new(
            url.clone(),
        ))),
        #[expect(
            clippy::allow_attributes,
            reason = "with all kinds built in nothing is left"
        )]
        #[allow(
            unreachable_patterns,
            reason = "with all kinds built in nothing is left"
        )]
        url => Err(StartError::config(&format!(
            "{url} (DATABASE_URL) is a kind of store that this build does not have"
        ))),
    }
}

pub(super) fn signature_layer(
    settings: &Settings,
    tunnel: Option<Tunnel>,
) -> Result<SignatureLayer, StartError> {
    let server = &settings.server;
    let mut verifier =
        verifier(&settings.twilio, server.public_url.clone())?.with_max_params(server.max_params);
    if let Some(tunnel) = tunnel {
        let behind = SignatureVerifier::new(tunnel.public_url, tunnel.tokens)
            .map_err(|error| StartError::config(&error))?
            .with_default_account(tunnel.account)
            .with_max_params(server.max_params);
        verifier = verifier.or(behind);
    }
    let limits = RequestLimits {
        body_bytes: server.max_body_bytes,
        body_time: server.body_timeout,
        target_bytes: server.max_uri_bytes,
    };
    let report = RefusalReport::new(settings.signature.mode == SignatureMode::Report);
    Ok(SignatureLayer::new(Arc::new(verifier))
        .with_limits(limits)
        .on_refusal(move |refusal| report.report(refusal)))
}

/// The verifier that tokens and a public URL make.
///
/// ```
/// use replyhook::config::{SigningSettings, Sources};
///
/// let settings = SigningSettings::load(&Sources::default().with_env([
///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
///     ("PUBLIC_URL", "https://bot.example.com"),
/// ]))?;
/// let public_url = settings.public_url.expect("it was set");
/// let verifier = replyhook::verifier(&settings.twilio, public_url)?;
/// assert_eq!(verifier.public_url().to_string(), "https://bot.example.com");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`StartError`] when a token cannot be a key.
pub fn verifier(
    twilio: &TwilioSettings,
    public_url: PublicUrl,
) -> Result<SignatureVerifier, StartError> {
    let tokens = std::iter::once(&twilio.auth_token)
        .chain(&twilio.auth_token_secondary)
        .cloned();
    let mut verifier =
        SignatureVerifier::new(public_url, tokens).map_err(|error| StartError::config(&error))?;
    if let Some(account) = twilio.account_sid {
        verifier = verifier.with_default_account(account);
    }
    for account in &twilio.accounts {
        verifier = verifier
            .with_account(account.sid, [account.auth_token.clone()])
            .map_err(|error| StartError::config(&error))?;
    }
    Ok(verifier)
}
