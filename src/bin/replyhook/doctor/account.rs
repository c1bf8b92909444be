//! Checks of the credentials, the primary auth token and the clock.

use replyhook::config::Settings;
use replyhook::twilio::{Account, Client, ListMessages, RestError, RestErrorKind};
use replyhook::{AccountSid, Clock, SystemClock, Timestamp};

use super::accepted_account::AcceptedAccount;
use super::finding::{Finding, Report};

const CHECK: &str = "credentials";
/// Largest accepted difference to Twilio's clock, in seconds.
const MAX_SKEW: i64 = 60;

/// Checks all accounts, and returns those whose webhooks can be read.
pub(super) async fn check<'a>(
    settings: &Settings,
    accepted_accounts: &'a [AcceptedAccount],
    report: &mut Report,
) -> anyhow::Result<Vec<&'a AcceptedAccount>> {
    if settings.twilio.account_sid.is_none() {
        report.add(Finding::note(
            CHECK,
            "TWILIO_ACCOUNT_SID is not set: the auth token, the clock, and the webhooks at Twilio are not checked",
            "set TWILIO_ACCOUNT_SID to the account of TWILIO_AUTH_TOKEN (AC…, in Twilio's console), for the server too: it \
             then accepts webhooks of that account only",
        ))?;
    }
    let client = Client::new(settings.rest.api_url.clone());
    let mut usable = Vec::new();
    let mut clock_is_known = false;
    for accepted in accepted_accounts {
        // With the token even if there is an API key: a standard key cannot read the account.
        let credentials = accepted.token_credentials();
        let token_response = client.accounts(&credentials).fetch(accepted.account).await;
        // Directly after the response, whose time it is compared with.
        let now = SystemClock.now();
        match &token_response {
            Ok(account) => {
                report.add(account_finding(accepted, account))?;
                if let Some(theirs) = account.answered_at
                    && !clock_is_known
                {
                    clock_is_known = true;
                    report.add(clock_finding(theirs, now))?;
                }
            }
            Err(error) => report.add(error_finding(
                accepted.account,
                "auth token",
                error,
                settings,
            ))?,
        }
        let is_usable = match &accepted.api_key {
            // Listing messages is a permission that a standard API key has.
            Some(key) => {
                let mut filter = ListMessages::default();
                filter.page_size = Some(1);
                let listed = client.messages(accepted.account, key).list(&filter).await;
                report.add(match &listed {
                    Ok(_) => Finding::ok(
                        CHECK,
                        format!("the API key of {} is right", accepted.account),
                    ),
                    Err(error) => error_finding(accepted.account, "API key", error, settings),
                })?;
                listed.is_ok()
            }
            None => token_response.is_ok(),
        };
        if is_usable {
            usable.push(accepted);
        }
    }
    Ok(usable)
}

/// Returns the finding for an account that Twilio has returned.
fn account_finding(accepted: &AcceptedAccount, account: &Account) -> Finding {
    let sid = accepted.account;
    let primary_token = account.auth_token.as_ref();
    let differs = primary_token.is_some_and(|theirs| {
        let theirs = theirs.expose();
        // Compare only what has the form of a token: the response may have something else in its place.
        let is_token = theirs.len() == 32 && theirs.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token && theirs != accepted.token.expose()
    });
    match account.status.as_str() {
        "suspended" | "closed" => Finding::fail(
            CHECK,
            format!("{sid} is {}", account.status),
            "nothing comes or goes until that is settled: see Twilio's console, or write to its support",
        ),
        _ if differs => Finding::fail(
            CHECK,
            format!("the auth token of {sid} is not its primary one, which is what signs webhooks"),
            "set TWILIO_AUTH_TOKEN to the primary token, and TWILIO_AUTH_TOKEN_SECONDARY to this one until it is promoted",
        ),
        _ => Finding::ok(CHECK, format!("the auth token of {sid} is right")),
    }
}

/// Returns the finding for a credential with which a call of Twilio failed.
fn error_finding(
    account: AccountSid,
    credential: &str,
    error: &RestError,
    settings: &Settings,
) -> Finding {
    let found = format!("{credential} of {account}: {error}");
    match error.kind() {
        RestErrorKind::Rejected {
            status: 401 | 403, ..
        } => Finding::fail(
            CHECK,
            found,
            format!(
                "copy the {credential} of exactly this account (a subaccount has its own; a region too) from Twilio's console: \
                 the primary one, live and not test, without blanks; Twilio does not accept a token that was rotated"
            ),
        ),
        RestErrorKind::Rejected { status: 404, .. } => Finding::fail(
            CHECK,
            found,
            "this account does not exist: correct TWILIO_ACCOUNT_SID, or twilio.accounts",
        ),
        RestErrorKind::Connect => Finding::fail(
            CHECK,
            format!("{found} at {}", settings.rest.api_url),
            "let this machine make HTTPS connections to that host: late replies go there. A clock that is far off also \
             makes certificates invalid",
        ),
        _ => Finding::warn(
            CHECK,
            found,
            "try again in a moment, and see https://status.twilio.com",
        ),
    }
}

/// Compares the clock of this machine with the time of Twilio's response.
fn clock_finding(theirs: Timestamp, ours: Timestamp) -> Finding {
    let ahead = ours.duration_since(theirs).as_secs();
    let (seconds, side) = (
        ahead.unsigned_abs(),
        if ahead < 0 { "behind" } else { "ahead of" },
    );
    if ahead.abs() <= MAX_SKEW {
        return Finding::ok("clock", "it agrees with Twilio's");
    }
    Finding::warn(
        "clock",
        format!(
            "this machine is {seconds} s {side} Twilio: the 24-hour window, retention and lists by time go wrong"
        ),
        "set the clock, and keep it right by NTP (timedatectl set-ntp true)",
    )
}
