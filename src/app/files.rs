//! Who fetches files, and what happens to them, by the settings.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Settings;
use crate::delivery::Delivery;
use crate::media::{Accounts, Folder, Keep, Media};
use crate::sid::AccountSid;
use crate::signature::TokenSlot;
use crate::twilio::media::MediaHosts;
use crate::twilio::{Client, Credentials};

/// Files come from where messages go to.
impl Accounts for Delivery {
    fn of(&self, account: AccountSid, slot: TokenSlot) -> Option<(&Client, Credentials)> {
        let route = self.routes.of(account)?;
        Some((&route.client, self.keyring.credentials(account, slot)))
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
    Media::new(delivery.clone(), hosts, keep, clock.clone(), tasks.clone())
}
