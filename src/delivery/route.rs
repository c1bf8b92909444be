//! Where an account's messages go.

use crate::sid::AccountSid;
use crate::signature::PublicUrl;
use crate::twilio::Client;

/// Where REST is called, and where it calls back.
pub(crate) struct Route {
    pub(crate) client: Client,
    /// Where Twilio reports what becomes of a message; `None` where it could not call.
    pub(crate) status_callback: Option<PublicUrl>,
}

/// That of every account but, behind a tunnel, one.
pub(crate) struct Routes {
    pub(crate) home: Route,
    pub(crate) elsewhere: Option<(AccountSid, Route)>,
}

impl Routes {
    pub(super) fn of(&self, account: AccountSid) -> &Route {
        match &self.elsewhere {
            Some((known, route)) if known.to_lowercase() == account.to_lowercase() => route,
            _ => &self.home,
        }
    }
}
