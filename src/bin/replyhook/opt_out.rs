//! Opt-outs as sentences.

use replyhook::internals::{AddressConsent, AppliedOptOut};
use replyhook::store::ConsentSource;
use replyhook::{Address, Timestamp};
use serde_json::{Value, json};

/// Returns a sentence such as `opted out of +15550002222 on 3 Nov by STOP (SM…)`; `None` if the address has not opted out.
pub(crate) fn describe_opt_out(consent: &AddressConsent, now: Timestamp) -> Option<String> {
    let opt_out = consent.opt_out.as_ref()?;
    let scope = consent.scope.as_str();
    let date = format_date(opt_out.at, now);
    let cause = describe_cause(opt_out, &consent.address);
    Some(format!("opted out of {scope} on {date} by {cause}"))
}

/// Returns the cause with its evidence, and the address that opted out if that is another one than `user`.
fn describe_cause(opt_out: &AppliedOptOut, user: &Address) -> String {
    let cause = match opt_out.source {
        ConsentSource::Keyword => "STOP",
        ConsentSource::OptOutType => "STOP, as Twilio reports",
        ConsentSource::Refusal => "error 21610 or 63014 of Twilio",
        ConsentSource::Operator => "an operator",
        ConsentSource::Api => "the API",
        ConsentSource::Webhook => "a webhook",
    };
    let note = opt_out.note.as_deref().map(|note| format!(": {note}"));
    let evidence = opt_out.evidence.map(|sid| format!(" ({sid})"));
    let is_other = opt_out.address != *user;
    let other = is_other.then(|| format!(", as {}", opt_out.address.as_str()));
    let details = [note, evidence, other].into_iter().flatten();
    std::iter::once(cause.to_owned()).chain(details).collect()
}

/// Formats a day, with its year unless that is the present one.
fn format_date(at: Timestamp, now: Timestamp) -> String {
    let is_this_year = at.strftime("%Y").to_string() == now.strftime("%Y").to_string();
    let format = if is_this_year { "%-d %b" } else { "%-d %b %Y" };
    at.strftime(format).to_string()
}

/// Returns when, how and where the user opted out: `opted out since … by STOP (SM…)`. The text names the scope if it is
/// not `asked`.
pub(crate) fn describe_since(consent: &AddressConsent, asked: &str) -> Option<String> {
    let opt_out = consent.opt_out.as_ref()?;
    let scope = consent.scope.as_str();
    let of_scope = if scope == asked {
        String::new()
    } else {
        format!(" of {scope}")
    };
    Some(format!(
        "opted out since {:.0}{of_scope} by {}",
        opt_out.at,
        describe_cause(opt_out, &consent.address)
    ))
}

/// Returns the object of a consent for `--json`.
pub(crate) fn consent_json(consent: &AddressConsent) -> Value {
    let opt_out = consent.opt_out.as_ref().map(|opt_out| {
        json!({
            "at": opt_out.at.to_string(),
            "source": opt_out.source.as_str(),
            "evidence": opt_out.evidence.map(|sid| sid.to_string()),
            "note": opt_out.note,
            "user": opt_out.address.as_str(),
        })
    });
    json!({
        "user": consent.address.as_str(),
        "scope": consent.scope.as_str(),
        "opted_out": opt_out,
        "opted_in": consent.opted_in.map(|at| at.to_string()),
    })
}
