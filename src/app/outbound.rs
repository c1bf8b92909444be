//! The client for outbound messages, the HTTP API, and the typing indicators.

use std::sync::Arc;

use super::tunnel::Tunnel;
use crate::admin::Admin;
use crate::api::{AccessToken, AllowedSenders, Api, ApiParts};
use crate::clock::Clock;
use crate::config::Settings;
use crate::dispatch::{TypingHook, TypingIndicators, TypingTarget};
use crate::outbound::{OutboundClient, OutboundConfig, SendingAccount};
use crate::reloadable::Reloadable;
use crate::store::{Store, StoreHandle};
use crate::telemetry::metrics::Metrics;
use crate::twilio::{ApiUrl, Client, Keyring};

/// Builds the client that queues outbound messages.
pub(super) fn client(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    sending_account: Reloadable<SendingAccount>,
) -> OutboundClient {
    let config = OutboundConfig {
        account: settings.twilio.account_sid,
        consent_required: settings.consent.required,
        rate_per_second: settings.outbound.rate_per_second,
    };
    let templates = Client::new(settings.rest.content_url.clone());
    let choices = &settings.reply.choices;
    OutboundClient::new(StoreHandle(store.clone()), clock.clone(), config, None)
        .with_choices(choices.button.as_str(), choices.hint.as_str(), choices.ttl)
        .following(sending_account, templates)
}

/// Builds the HTTP API, if it has a token.
pub(super) fn http_api(
    settings: &Settings,
    outbound: &OutboundClient,
    admin: &Admin,
    keyring: Reloadable<Keyring>,
) -> Option<Arc<Api>> {
    let token = settings.admin.token.as_ref()?;
    Some(Arc::new(Api::new(ApiParts {
        token: AccessToken::new(token),
        senders: AllowedSenders(settings.outbound.senders.clone()),
        outbound: outbound.clone(),
        store: admin.store.clone(),
        clock: admin.dispatcher.clock.clone(),
        metrics: admin.metrics.clone(),
        keyring,
        public_url: settings.server.public_url.clone(),
        handoff_ttl: settings.handoff.ttl,
    })))
}

/// Builds the typing indicators, which are sent via the REST API.
///
/// Calls for the tunnel's account go to Twilio, all others to `twilio.messaging_url`, so that a dev server never sends a
/// real account's token to the emulator.
pub(super) fn typing(
    settings: &Settings,
    tunnel: Option<&Tunnel>,
    keyring: Reloadable<Keyring>,
    metrics: &Arc<Metrics>,
) -> Arc<TypingIndicators> {
    let default_client = Arc::new(Client::new(settings.rest.messaging_url.clone()));
    let tunnel_client =
        tunnel.map(|tunnel| (tunnel.account, Arc::new(Client::new(ApiUrl::messaging()))));
    let hook: TypingHook = Arc::new(move |target: TypingTarget| {
        let (default_client, keyring) = (default_client.clone(), keyring.clone());
        let client = match &tunnel_client {
            Some((account, client)) if account.to_lowercase() == target.account.to_lowercase() => {
                client.clone()
            }
            _ => default_client,
        };
        Box::pin(async move {
            let keyring = keyring.load();
            // Without keys of the account, no REST call is possible, so its users see no indicator.
            let Some(credentials) = keyring.credentials(target.account, target.auth_token) else {
                return Ok(());
            };
            let indicator = client.typing_indicator(&credentials);
            match &target.rcs {
                Some((sender, user)) => indicator.create_rcs(sender, user).await,
                None => indicator.create(target.message).await,
            }
        })
    });
    Arc::new(TypingIndicators::new(hook, metrics.clone()))
}
