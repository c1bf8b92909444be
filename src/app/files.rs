//! Who fetches files, and what happens to them, by the settings.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Settings;
use crate::delivery::Delivery;
use crate::media::{Accounts, Folder, Keep, LinkLimits, Media};
use crate::sid::AccountSid;
use crate::signature::{PublicUrl, TokenSlot};
use crate::twilio::media::MediaHosts;
use crate::twilio::{Client, Credentials};

/// Files come from where messages go to.
struct ByDelivery {
    delivery: Arc<Delivery>,
    public_url: PublicUrl,
}

impl Accounts for ByDelivery {
    fn of(&self, account: AccountSid, slot: TokenSlot) -> Option<(&Client, Credentials)> {
        let route = self.delivery.routes.of(account)?;
        let credentials = self.delivery.keyring.credentials(account, slot);
        Some((&route.client, credentials))
    }

    fn public_url(&self, account: AccountSid) -> PublicUrl {
        let route = self.delivery.routes.of(account);
        let known = route.and_then(|route| route.status_callback.as_ref());
        known.unwrap_or(&self.public_url).clone()
    }
}

pub(super) fn media(
    settings: &Settings,
    delivery: &Arc<Delivery>,
    clock: &Arc<dyn Clock>,
    tasks: &TaskTracker,
) -> Media {
    let media = &settings.media;
    let keep = media.save.as_ref().map(|folder| Keep {
        folder: Folder::new(folder.clone(), media.quota),
        then_delete: media.delete_after_save,
    });
    let hosts = MediaHosts::new(media.hosts.clone());
    let (store, clock) = (delivery.store.clone(), clock.clone());
    let accounts = Arc::new(ByDelivery {
        delivery: delivery.clone(),
        public_url: settings.server.public_url.clone(),
    });
    let limits = LinkLimits::new(settings.server.max_in_flight);
    Media::new(accounts, hosts, keep, limits, store, clock, tasks.clone())
}
