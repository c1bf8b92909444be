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

/// That of every account; or, at a desk, of the emulator's alone, and behind a tunnel of one more.
pub(crate) struct Routes {
    pub(crate) home: Route,
    /// Whose messages go there; without one everybody's.
    pub(crate) only: Option<AccountSid>,
    pub(crate) elsewhere: Option<(AccountSid, Route)>,
}

impl Routes {
    /// `None` for an account whose messages are not ours to send.
    pub(crate) fn of(&self, account: AccountSid) -> Option<&Route> {
        let is = |known: &AccountSid| known.to_lowercase() == account.to_lowercase();
        match &self.elsewhere {
            Some((known, route)) if is(known) => Some(route),
            _ => self.only.as_ref().is_none_or(is).then_some(&self.home),
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

    fn route(url: &str) -> Route {
        let (status_callback, _) = PublicUrl::parse(url).unwrap();
        Route {
            client: Client::new(ApiUrl::default()),
            status_callback: Some(status_callback),
        }
    }

    fn leads_to(routes: &Routes, account: AccountSid) -> Option<String> {
        let callback = routes.of(account)?.status_callback.as_ref()?;
        Some(callback.endpoint("/"))
    }

    #[test]
    fn an_account_goes_its_own_way_and_a_desk_leaves_strangers_alone() {
        let server = Routes {
            home: route("https://home.test"),
            only: None,
            elsewhere: None,
        };
        assert_eq!(
            leads_to(&server, account('1')).as_deref(),
            Some("https://home.test/")
        );
        let desk = Routes {
            home: route("https://home.test"),
            only: Some(account('a')),
            elsewhere: Some((account('b'), route("https://tunnel.test"))),
        };
        assert_eq!(
            leads_to(&desk, account('A')).as_deref(),
            Some("https://home.test/")
        );
        assert_eq!(
            leads_to(&desk, account('b')).as_deref(),
            Some("https://tunnel.test/")
        );
        assert_eq!(leads_to(&desk, account('c')), None);
    }
}
