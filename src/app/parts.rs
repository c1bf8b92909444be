//! Conversions from settings to the configuration of each component.

use std::time::Duration;

use super::tunnel::Tunnel;
use crate::app_error::AppError;
use crate::config::{OnCrash, ReplyRoute, Settings, SignatureMode, TwilioSettings};
use crate::delivery::{ApiRoute, ApiRoutes, DeliveryPolicy};
use crate::dispatch::{AccessRules, ChoiceSettings, DispatchLimits, GuardRules, spellings};
use crate::outbound::SendingAccount;
use crate::reloadable::Reloadable;
use crate::sid::AccountSid;
use crate::signature::{
    AuthTokenKind, PublicUrl, RequestLimits, SignatureLayer, SignatureVerifier,
};
use crate::store::{CrashPolicy, StoreHandle, StoreUrl};
use crate::twilio::{AccountKeys, ApiUrl, Client, Keyring};
use crate::webhook::RejectionLog;

/// Maximum time that a fallback call waits for the handler: the user has already waited for the failed primary call.
const FALLBACK_DEADLINE: Duration = Duration::from_secs(5);

pub(super) fn guard_rules(settings: &Settings) -> GuardRules {
    GuardRules {
        loops: settings.guard.loop_detection,
        per_minute: settings.guard.messages_per_user_per_minute,
        own_numbers: settings
            .guard
            .own_numbers
            .iter()
            .flat_map(spellings)
            .collect(),
        access: AccessRules {
            allow: settings.guard.allow.clone(),
            block: settings.guard.block.clone(),
            refusal: settings.guard.refusal.clone(),
        },
    }
}

pub(super) fn delivery_policy(settings: &Settings) -> DeliveryPolicy {
    DeliveryPolicy {
        on_unknown: settings.outbound.on_unknown,
        wait_for_delivery: settings.reply.wait_for_delivery,
        window_closed_template: settings.reply.window_closed_template.clone(),
        consent_required: settings.consent.required,
    }
}

pub(super) fn dispatch_limits(settings: &Settings) -> DispatchLimits {
    DispatchLimits {
        deadline: settings.reply.deadline,
        // A configured deadline below 5 s applies to fallback calls as well.
        fallback_deadline: FALLBACK_DEADLINE.min(settings.reply.deadline),
        debounce: settings.reply.debounce,
        numbered: settings.reply.numbered,
        markdown: settings.reply.markdown,
        max_messages: settings.reply.max_messages,
        is_rest_only: settings.reply.path == ReplyRoute::Rest,
        typing_after: Some(settings.reply.typing_after).filter(|after| !after.is_zero()),
        handoff_ttl: settings.handoff.ttl,
        handler: settings.handler.timeout,
        running: settings.handler.max_concurrent,
        crashes: CrashPolicy {
            retry: settings.handler.on_crash == OnCrash::Retry,
            max_attempts: settings.handler.max_attempts,
        },
    }
}

pub(super) fn choices(settings: &Settings) -> ChoiceSettings {
    ChoiceSettings {
        button: settings.reply.choices.button.clone(),
        hint: settings.reply.choices.hint.clone(),
        ttl: settings.reply.choices.ttl,
    }
}

/// Base URL of status callbacks, or `None` if `PUBLIC_URL` is a loopback address and the API is not.
///
/// Twilio rejects a message whose status callback URL it cannot reach (error 21609).
fn status_callback(settings: &Settings) -> Option<PublicUrl> {
    let public_url = &settings.server.public_url;
    let is_reachable = !public_url.is_loopback() || settings.rest.api_url.is_loopback();
    is_reachable.then(|| public_url.clone())
}

pub(super) fn routes(
    settings: &Settings,
    restrict_to: Option<AccountSid>,
    tunnel: Option<&Tunnel>,
) -> ApiRoutes {
    ApiRoutes {
        default: ApiRoute {
            client: Client::new(settings.rest.api_url.clone()),
            content: Client::new(settings.rest.content_url.clone()),
            status_callback: status_callback(settings),
        },
        restrict_to,
        tunnel: tunnel.map(|tunnel| {
            let route = ApiRoute {
                // The default URL is Twilio's: `rest.api_url` of a dev server is its emulator.
                client: Client::new(ApiUrl::default()),
                content: Client::new(ApiUrl::content()),
                status_callback: Some(tunnel.public_url.clone()),
            };
            (tunnel.account, route)
        }),
    }
}

pub(super) fn keyring(settings: &Settings, tunnel: Option<&Tunnel>) -> Keyring {
    let keyring = settings.twilio.keyring();
    match tunnel {
        Some(tunnel) => keyring.with_account(tunnel.account, tunnel.keys.clone()),
        None => keyring,
    }
}

/// Returns the account of outbound messages, with the credentials for its templates.
pub(super) fn sending_account(settings: &Settings, keyring: &Keyring) -> SendingAccount {
    let account = settings.twilio.account_sid;
    SendingAccount {
        sid: account,
        credentials: account
            .and_then(|account| keyring.credentials(account, AuthTokenKind::Primary)),
    }
}

/// Creates the store for a URL, without opening or connecting it.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::Access;
///
/// let store = replyhook::store_from_url(&"sqlite::memory:".parse()?)?;
/// store.open(Access::Owner).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`AppError`] if this build does not support that kind of store.
pub fn store_from_url(url: &StoreUrl) -> Result<StoreHandle, AppError> {
    match url {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => Ok(crate::store::sqlite::SqliteStore::file(path).into()),
        #[cfg(feature = "sqlite")]
        StoreUrl::Memory => Ok(crate::store::sqlite::SqliteStore::memory().into()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => {
            Ok(crate::store::postgres::PostgresStore::new(url.clone()).into())
        }
        // `allow`, not `expect`: the lint fires only with both store features enabled.
        #[expect(
            clippy::allow_attributes,
            reason = "with both store features nothing reaches this arm"
        )]
        #[allow(
            unreachable_patterns,
            reason = "with both store features nothing reaches this arm"
        )]
        url => Err(AppError::config(&format!(
            "this build does not support the store {url} (DATABASE_URL); build with the feature `sqlite` or `postgres`"
        ))),
    }
}

pub(super) fn signature_verifier(
    settings: &Settings,
    tunnel: Option<&Tunnel>,
) -> Result<SignatureVerifier, AppError> {
    let server = &settings.server;
    let mut verifier = settings
        .twilio
        .signature_verifier(server.public_url.clone())?
        .with_max_params(server.max_params);
    if let Some(tunnel) = tunnel {
        // Verify each URL only with its own tokens: the emulator's token must not be valid at the tunnel's URL.
        let tunnel_verifier = main_verifier(tunnel.public_url.clone(), Some(&tunnel.keys))?
            .with_default_account(tunnel.account)
            .with_max_params(server.max_params);
        // A shared key is bound to its account, so it needs no choice between the two URLs.
        let tunnel_verifier = settings.twilio.add_shared_keys(tunnel_verifier)?;
        verifier = verifier.or(tunnel_verifier);
    }
    Ok(verifier)
}

pub(super) fn signature_layer(
    settings: &Settings,
    verifier: Reloadable<SignatureVerifier>,
) -> SignatureLayer {
    let server = &settings.server;
    let mut limits = RequestLimits::default();
    limits.max_body_bytes = server.max_body_bytes;
    limits.body_timeout = server.body_timeout;
    limits.max_uri_bytes = server.max_uri_bytes;
    let rejection_log = RejectionLog::new(settings.signature.mode == SignatureMode::Report);
    SignatureLayer::with_verifier_of(move || verifier.load())
        .with_limits(limits)
        .on_rejection(move |rejection| rejection_log.report(rejection))
}

// Here and not in `config`, since the failure is one of the app.
impl TwilioSettings {
    /// Creates a verifier for these tokens, accounts and shared keys, and a public URL.
    ///
    /// ```
    /// use replyhook::config::{SigningSettings, Sources};
    ///
    /// let settings = SigningSettings::load(&Sources::default().with_env([
    ///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
    ///     ("PUBLIC_URL", "https://bot.example.com"),
    /// ]))?;
    /// let public_url = settings.public_url.expect("it was set");
    /// let verifier = settings.twilio.signature_verifier(public_url)?;
    /// assert_eq!(verifier.public_url().to_string(), "https://bot.example.com");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AppError`] if a token is not usable as a signing key.
    pub fn signature_verifier(&self, public_url: PublicUrl) -> Result<SignatureVerifier, AppError> {
        let mut verifier = main_verifier(public_url, self.main.as_ref())?;
        if let Some(account) = self.account_sid {
            verifier = verifier.with_default_account(account);
        }
        for account in &self.accounts {
            verifier = match (account.keys.tokens(), self.auth_tokens(account.sid)) {
                (Some(tokens), _) => verifier
                    .with_account(account.sid, tokens.iter().cloned())
                    .map_err(|error| AppError::config(&error))?,
                // This account has only an API key, so the main token verifies its webhooks.
                (None, Some(_)) => verifier,
                (None, None) => verifier.with_tokenless_account(account.sid),
            };
        }
        self.add_shared_keys(verifier)
    }

    fn add_shared_keys(&self, verifier: SignatureVerifier) -> Result<SignatureVerifier, AppError> {
        self.shared_keys.iter().try_fold(verifier, |verifier, key| {
            verifier
                .with_shared_key(key.id, key.account, &key.secret)
                .map_err(|error| AppError::config(&error))
        })
    }
}

/// Creates a verifier for the auth tokens of the main account, if it has any.
fn main_verifier(
    public_url: PublicUrl,
    keys: Option<&AccountKeys>,
) -> Result<SignatureVerifier, AppError> {
    // Primary before secondary: `SignatureVerifier::new` derives `AuthTokenKind` from the position.
    match keys.and_then(AccountKeys::tokens) {
        Some(tokens) => SignatureVerifier::new(public_url, tokens.iter().cloned())
            .map_err(|error| AppError::config(&error)),
        None => Ok(SignatureVerifier::without_tokens(public_url)),
    }
}
