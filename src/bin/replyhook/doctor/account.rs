//! Checks of the credentials, the primary auth token and the clock.

use replyhook::config::Settings;
use replyhook::twilio::{Account, Client, ListMessages, RestError, RestErrorKind};
use replyhook::{AccountSid, Clock, SystemClock, Timestamp};

use super::Caller;
use super::finding::{Finding, Report};

const CHECK: &str = "credentials";
/// Largest accepted difference to Twilio's clock, in seconds.
const MAX_SKEW: i64 = 60;

/// Checks all accounts, and returns those whose webhooks can be read.
pub(super) async fn look<'a>(
    settings: &Settings,
    callers: &'a [Caller],
    report: &mut Report,
) -> anyhow::Result<Vec<&'a Caller>> {
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
    for caller in callers {
        // With the token even if there is an API key: a standard key cannot read the account.
        let by_token = client.account(caller.account, &caller.by_token()).await;
        // Directly after the response, whose time it is compared with.
        let now = SystemClock.now();
        match &by_token {
            Ok(account) => {
                report.add(known(caller, account))?;
                if let Some(theirs) = account.answered_at
                    && !clock_is_known
                {
                    clock_is_known = true;
                    report.add(clock(theirs, now))?;
                }
            }
            Err(error) => report.add(rejected(caller.account, "auth token", error, settings))?,
        }
        let by_key = match &caller.api_key {
            // Listing messages is a permission that a standard API key has.
            Some(key) => {
                let mut one = ListMessages::default();
                one.page_size = Some(1);
                let listed = client.messages(caller.account, key).list(&one).await;
                report.add(match &listed {
                    Ok(_) => {
                        Finding::ok(CHECK, format!("the API key of {} is right", caller.account))
                    }
                    Err(error) => rejected(caller.account, "API key", error, settings),
                })?;
                listed.is_ok()
            }
            None => by_token.is_ok(),
        };
        if by_key {
            usable.push(caller);
        }
    }
    Ok(usable)
}

fn known(caller: &Caller, account: &Account) -> Finding {
    let sid = caller.account;
    let signs = account.auth_token.as_ref();
    let differs = signs.is_some_and(|theirs| {
        let theirs = theirs.expose();
        // Compare only what has the form of a token: the response may have something else in its place.
        let is_token = theirs.len() == 32 && theirs.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token && theirs != caller.token.expose()
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

fn rejected(account: AccountSid, what: &str, error: &RestError, settings: &Settings) -> Finding {
    let found = format!("{what} of {account}: {error}");
    match error.kind() {
        RestErrorKind::Rejected {
            status: 401 | 403, ..
        } => Finding::fail(
            CHECK,
            found,
            format!(
                "copy the {what} of exactly this account (a subaccount has its own; a region too) from Twilio's console: \
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

fn clock(theirs: Timestamp, ours: Timestamp) -> Finding {
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
