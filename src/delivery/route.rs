//! API and status callback of each account.

use crate::sid::AccountSid;
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::twilio::{Client, Credentials, Keyring};

/// API to call, and the URL that it calls back.
pub(crate) struct ApiRoute {
    pub(crate) client: Client,
    /// Client of the Content API, which is on another host.
    pub(crate) content: Client,
    /// Public URL of the status callback; `None` if Twilio could not call it.
    pub(crate) status_callback: Option<PublicUrl>,
}

/// Routes of all accounts.
// A server has one route for every account. The dev server has one for the emulator's account, and with a tunnel
// another for a real account: a message of a real account must never go to the emulator, nor the reverse.
pub(crate) struct ApiRoutes {
    pub(crate) default: ApiRoute,
    /// The only account of the default route; `None` for every account.
    pub(crate) restrict_to: Option<AccountSid>,
    pub(crate) tunnel: Option<(AccountSid, ApiRoute)>,
}

impl ApiRoutes {
    /// Returns the route and the credentials of an account; `None` if this server does not send for it.
    pub(crate) fn authenticated(
        &self,
        keyring: &Keyring,
        account: AccountSid,
        verified_by: AuthTokenKind,
    ) -> Option<(&ApiRoute, Credentials)> {
        let route = self.route_for(account)?;
        Some((route, keyring.credentials(account, verified_by)?))
    }

    /// Returns the route of an account, or `None` if this server does not send for it.
    pub(crate) fn route_for(&self, account: AccountSid) -> Option<&ApiRoute> {
        // A SID may have capital digits in a configuration.
        let is_account = |known: &AccountSid| known.to_lowercase() == account.to_lowercase();
        match &self.tunnel {
            Some((known, route)) if is_account(known) => Some(route),
            _ => self
                .restrict_to
                .as_ref()
                .is_none_or(is_account)
                .then_some(&self.default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twilio::ApiUrl;

    fn account(digit: char) -> AccountSid {
        AccountSid::parse(&format!("AC{}", digit.to_string().repeat(32))).unwrap()
    }

    fn route(url: &str) -> ApiRoute {
        let (status_callback, _) = PublicUrl::parse(url).unwrap();
        ApiRoute {
            client: Client::new(ApiUrl::default()),
            content: Client::new(ApiUrl::default()),
            status_callback: Some(status_callback),
        }
    }

    fn callback_url(routes: &ApiRoutes, account: AccountSid) -> Option<String> {
        let callback = routes.route_for(account)?.status_callback.as_ref()?;
        Some(callback.endpoint("/"))
    }

    // The dev server sends nothing for accounts that it does not know.
    #[test]
    fn delivery_route_depends_on_account() {
        let server = ApiRoutes {
            default: route("https://home.test"),
            restrict_to: None,
            tunnel: None,
        };
        assert_eq!(
            callback_url(&server, account('1')).as_deref(),
            Some("https://home.test/")
        );
        let dev_server = ApiRoutes {
            default: route("https://home.test"),
            restrict_to: Some(account('a')),
            tunnel: Some((account('b'), route("https://tunnel.test"))),
        };
        assert_eq!(
            callback_url(&dev_server, account('A')).as_deref(),
            Some("https://home.test/")
        );
        assert_eq!(
            callback_url(&dev_server, account('b')).as_deref(),
            Some("https://tunnel.test/")
        );
        assert_eq!(callback_url(&dev_server, account('c')), None);
    }
}
