//! What sends first, and what shows that somebody types.

use std::sync::Arc;

use super::Tunnel;
use crate::clock::Clock;
use crate::config::Settings;
use crate::delivery::Keyring;
use crate::dispatch::{Inbound, TypingHook};
use crate::sending::{SendRules, Sender};
use crate::signature::TokenSlot;
use crate::store::Store;
use crate::twilio::{ApiUrl, Client};

pub(super) fn sender(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    keyring: &Keyring,
) -> Sender {
    let account = settings.twilio.account_sid;
    let rules = SendRules {
        account,
        consent_required: settings.consent.required,
        per_second: settings.outbound.rate_per_second,
    };
    let templates = account.map(|account| {
        let client = Client::new(settings.rest.content_url.clone());
        (client, keyring.credentials(account, TokenSlot::Primary))
    });
    Sender::new(store.clone(), clock.clone(), rules, templates)
}

/// A real account behind a tunnel is called at Twilio: its token is not for the emulator.
pub(super) fn typing(
    settings: &Settings,
    tunnel: Option<&Tunnel>,
    keyring: Arc<Keyring>,
) -> TypingHook {
    let home = Arc::new(Client::new(settings.rest.messaging_url.clone()));
    let elsewhere =
        tunnel.map(|tunnel| (tunnel.account, Arc::new(Client::new(ApiUrl::messaging()))));
    Arc::new(move |inbound: Inbound| {
        let (home, keyring) = (home.clone(), keyring.clone());
        let client = match &elsewhere {
            Some((account, client)) if account.to_lowercase() == inbound.account.to_lowercase() => {
                client.clone()
            }
            _ => home,
        };
        Box::pin(async move {
            let credentials = keyring.credentials(inbound.account, inbound.slot);
            client.typing(inbound.sid, &credentials).await
        })
    })
}
