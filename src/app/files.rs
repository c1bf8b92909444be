//! The media component: clients to fetch attachments with, and the folder to save them in.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Settings;
use crate::delivery::{ApiRoutes, DeliveryParts};
use crate::media::{AutoSave, Folder, LinkLimits, MediaAccounts, MediaService};
use crate::reloadable::Reloadable;
use crate::sid::AccountSid;
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::twilio::media::MediaHosts;
use crate::twilio::{Client, Credentials, Keyring};

/// Fetches an account's media with the routes and credentials of the outbox worker.
struct DeliveryAccounts {
    routes: Arc<ApiRoutes>,
    keyring: Reloadable<Keyring>,
    public_url: PublicUrl,
}

impl MediaAccounts for DeliveryAccounts {
    fn rest_client(
        &self,
        account: AccountSid,
        auth_token: AuthTokenKind,
    ) -> Option<(&Client, Credentials)> {
        let (route, credentials) =
            self.routes
                .authenticated(&self.keyring.load(), account, auth_token)?;
        Some((&route.client, credentials))
    }

    fn public_url(&self, account: AccountSid) -> PublicUrl {
        // Media links of a tunnel's account must use the tunnel's URL, which is the base of its status callbacks too.
        let route = self.routes.route_for(account);
        let known = route.and_then(|route| route.status_callback.as_ref());
        known.unwrap_or(&self.public_url).clone()
    }
}

/// Builds the service that fetches, saves and links media.
pub(super) fn media_service(
    settings: &Settings,
    delivery: &DeliveryParts,
    clock: &Arc<dyn Clock>,
    tasks: &TaskTracker,
) -> MediaService {
    let media = &settings.media;
    let auto_save = media.save_dir.as_ref().map(|folder| AutoSave {
        folder: Folder::new(folder.clone(), media.save_quota),
        then_delete: media.delete_after_save,
    });
    let hosts = MediaHosts::new(media.allowed_redirect_hosts.clone());
    let (store, clock) = (delivery.store.clone(), clock.clone());
    let accounts = Arc::new(DeliveryAccounts {
        routes: delivery.routes.clone(),
        keyring: delivery.keyring.clone(),
        public_url: settings.server.public_url.clone(),
    });
    let limits = LinkLimits::new(settings.server.max_in_flight);
    MediaService::new(
        accounts,
        hosts,
        auto_save,
        limits,
        store,
        clock,
        tasks.clone(),
    )
}
