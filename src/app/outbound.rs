//! The client for outbound messages and the hook for typing indicators.

use std::sync::Arc;

use super::tunnel::Tunnel;
use crate::clock::Clock;
use crate::config::Settings;
use crate::delivery::Keyring;
use crate::dispatch::{Inbound, TypingHook};
use crate::outbound::{OutboundClient, OutboundConfig, SendingAccount};
use crate::reloadable::Reloadable;
use crate::store::{Store, StoreHandle};
use crate::twilio::{ApiUrl, Client};

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
    OutboundClient::new(StoreHandle(store.clone()), clock.clone(), config, None)
        .following(sending_account, templates)
}

/// Builds the hook that sends typing indicators via the REST API.
///
/// Calls for the tunnel's account go to Twilio, all others to `twilio.messaging_url`, so that a dev server never sends a
/// real account's token to the emulator.
pub(super) fn typing_hook(
    settings: &Settings,
    tunnel: Option<&Tunnel>,
    keyring: Reloadable<Keyring>,
) -> TypingHook {
    let default_client = Arc::new(Client::new(settings.rest.messaging_url.clone()));
    let tunnel_client =
        tunnel.map(|tunnel| (tunnel.account, Arc::new(Client::new(ApiUrl::messaging()))));
    Arc::new(move |inbound: Inbound| {
        let (default_client, keyring) = (default_client.clone(), keyring.clone());
        let client = match &tunnel_client {
            Some((account, client)) if account.to_lowercase() == inbound.account.to_lowercase() => {
                client.clone()
            }
            _ => default_client,
        };
        Box::pin(async move {
            let credentials = keyring.load().credentials(inbound.account, inbound.slot);
            let typing_indicator = client.typing_indicator(&credentials);
            typing_indicator.create(inbound.sid).await
        })
    })
}
