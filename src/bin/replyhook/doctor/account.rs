//! Checks of the credentials, the primary auth token and the clock.

use replyhook::config::Settings;
use replyhook::twilio::{
    Account, AccountKeys, ApiKey, AuthTokens, Client, Credentials, ListMessages, RestError,
    RestErrorKind,
};
use replyhook::{AccountSid, Clock, Secret, SystemClock, Timestamp};

use super::accepted_account::AcceptedAccount;
use crate::finding::{Finding, Report};

const CHECK: &str = "credentials";
/// Name of an API key in a finding.
const API_KEY: &str = "API key";
/// Largest accepted difference to Twilio's clock, in seconds.
const MAX_SKEW: i64 = 60;

/// Checks all accounts, and returns those whose webhooks can be read.
pub(super) async fn check<'a>(
    settings: &Settings,
    accepted_accounts: &'a [AcceptedAccount],
    report: &mut Report,
) -> anyhow::Result<Vec<&'a AcceptedAccount>> {
    let main_keys = settings.twilio.main.as_ref();
    let has_main_tokens = main_keys.and_then(AccountKeys::tokens).is_some();
    if settings.twilio.account_sid.is_none() && (has_main_tokens || accepted_accounts.is_empty()) {
        report.add(Finding::note(
            CHECK,
            "TWILIO_ACCOUNT_SID is not set: the auth token, the clock, and the webhooks at Twilio are not checked",
            "set TWILIO_ACCOUNT_SID to the account of TWILIO_AUTH_TOKEN (AC…, in Twilio's console), for the server too: it \
             then accepts webhooks of that account only",
        ))?;
    }
    let client = Client::new(settings.rest.api_url.clone());
    let mut usable = Vec::new();
    let mut clock = Clocks::default();
    for accepted in accepted_accounts {
        let checked_token = match accepted.keys.tokens() {
            Some(tokens) => check_token(&client, accepted, tokens, &mut clock, settings).await,
            None => KeyCheck {
                finding: not_checkable_finding(accepted.account),
                is_usable: false,
            },
        };
        report.add(checked_token.finding)?;
        clock.report(report)?;
        let is_usable = match accepted.keys.api_key() {
            Some(key) => {
                let checked = check_key(&client, accepted.account, key, &mut clock, settings).await;
                report.add(checked.finding)?;
                clock.report(report)?;
                checked.is_usable
            }
            None => checked_token.is_usable,
        };
        if is_usable {
            usable.push(accepted);
        }
    }
    Ok(usable)
}

/// The result of checking a token or key.
struct KeyCheck {
    finding: Finding,
    /// True if further calls can be made with it.
    is_usable: bool,
}

/// Reads the account with its auth token. A standard API key may not do this.
async fn check_token(
    client: &Client,
    accepted: &AcceptedAccount,
    tokens: &AuthTokens,
    clock: &mut Clocks,
    settings: &Settings,
) -> KeyCheck {
    let credentials = Credentials::auth_token(accepted.account, tokens.primary.clone());
    let response = client.accounts(&credentials).fetch(accepted.account).await;
    if let Ok(account) = &response {
        clock.compare(account.answered_at);
    }
    KeyCheck {
        finding: match &response {
            Ok(account) => account_finding(accepted.account, &tokens.primary, account),
            Err(error) => error_finding(accepted.account, "auth token", error, settings),
        },
        is_usable: response.is_ok(),
    }
}

/// Lists one message with an API key, which a standard key may do.
async fn check_key(
    client: &Client,
    account: AccountSid,
    key: &ApiKey,
    clock: &mut Clocks,
    settings: &Settings,
) -> KeyCheck {
    let credentials = key.credentials();
    let mut filter = ListMessages::default();
    filter.page_size = Some(1);
    let listed = client.messages(account, &credentials).page(&filter).await;
    if let Ok(page) = &listed {
        clock.compare(page.answered_at);
    }
    let is_restricted = matches!(&listed, Err(error) if error.is_missing_permission());
    KeyCheck {
        finding: match &listed {
            Ok(_) => Finding::ok(CHECK, format!("the API key of {account} is right")),
            Err(error) if is_restricted => Finding::warn(
                CHECK,
                format!("the API key of {account} may not list messages: {error}"),
                "give the key the permission /twilio/messaging/messages/list: `replyhook reconcile`, and the look-up of a \
                 message whose result is unknown, need it",
            ),
            Err(error) => error_finding(account, API_KEY, error, settings),
        },
        // Twilio knows the key, which may have other permissions.
        is_usable: listed.is_ok() || is_restricted,
    }
}

/// Returns the note for an account without an auth token.
fn not_checkable_finding(account: AccountSid) -> Finding {
    Finding::note(
        CHECK,
        format!(
            "not checkable without the auth token of {account}: the status of the account, and its primary auth token"
        ),
        "nothing to do: only the auth token, or a main API key, may read the account",
    )
}

/// The comparison with Twilio's clock, which is reported once.
#[derive(Default)]
struct Clocks {
    finding: Option<Finding>,
    is_known: bool,
}

impl Clocks {
    /// Compares the local clock with the time of a response. Call it directly after the response.
    fn compare(&mut self, theirs: Option<Timestamp>) {
        if let Some(theirs) = theirs.filter(|_| !self.is_known) {
            self.is_known = true;
            self.finding = Some(clock_finding(theirs, SystemClock.now()));
        }
    }

    fn report(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.finding
            .take()
            .map_or(Ok(()), |finding| report.add(finding))
    }
}

/// Returns the finding for an account that Twilio has returned.
fn account_finding(sid: AccountSid, token: &Secret, account: &Account) -> Finding {
    let primary_token = account.auth_token.as_ref();
    let differs = primary_token.is_some_and(|theirs| {
        let theirs = theirs.expose();
        // Compare only what has the form of a token: the response may have something else in its place.
        let is_token = theirs.len() == 32 && theirs.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_token && theirs != token.expose()
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
        } if credential == API_KEY => Finding::fail(
            CHECK,
            found,
            "the API key's SID and secret do not fit together, the key was deleted, or it belongs to another account or \
             region: create a new API key in Twilio's console, where its secret is shown only once, and set api_key_sid and \
             api_key_secret to it",
        ),
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
