//! Checks that the bot accepts what Twilio signed, and nothing else.

use replyhook::Secret;
use replyhook::signature::SigningKey;

use super::bot::{AuditedBot, ResponseOutcome, Signing};
use crate::finding::{Finding, Report};

const VERIFY: &str = "anybody can send messages to the bot as any user: verify X-Twilio-Signature over URL and all \
                      parameters, and respond with 403";

/// Returns false if the bot rejects a correctly signed message.
pub(super) async fn check(bot: &mut AuditedBot, report: &mut Report) -> anyhow::Result<bool> {
    let webhook = bot.webhook();
    if !webhook.is_https() && !webhook.is_loopback() {
        report.add(Finding::fail(
            "https",
            "the webhook is called without TLS",
            "use https: anybody on the way can read and change the messages",
        ))?;
    }
    let mut message = bot.message();
    message.body = Some("hello".to_owned());
    let form = bot.form(&message, &[]);
    let (outcome, result) = bot.exchange("signed", form.clone(), Signing::Correct).await;
    if let ResponseOutcome::Failed(reason) = outcome {
        let is_rejected = matches!(&result, Ok(response) if matches!(response.status, 401 | 403));
        let remedy = if is_rejected {
            "give this command the token that the bot verifies with (TWILIO_AUTH_TOKEN), and the URL that it verifies \
             with (--url); nothing else was checked"
        } else {
            "start the bot, and correct the URL; `replyhook invoke` shows one response; nothing else was checked"
        };
        let found = format!("a signed message was not accepted: {reason}");
        report.add(Finding::fail("signed", found, remedy))?;
        return Ok(false);
    }
    report.add(Finding::ok("signed", "a signed message is accepted"))?;

    let other_key = SigningKey::AuthToken(Secret::new("a token that no account has"));
    let altered = bot.form(&message, &[("Body", "another text")]);
    let forgeries = [
        (
            "unsigned",
            "without a signature",
            form.clone(),
            Signing::Missing,
        ),
        (
            "wrong key",
            "signed with another key",
            form.clone(),
            Signing::With(&other_key),
        ),
        (
            "altered",
            "whose text was changed after signing",
            altered,
            Signing::Of(&form),
        ),
    ];
    for (check, what, form, signing) in forgeries {
        let (_, result) = bot.exchange(check, form, signing).await;
        let finding = match result {
            Ok(response) if matches!(response.status, 400..=499) => Finding::ok(
                check,
                format!("a message {what} is rejected ({})", response.status),
            ),
            Ok(response) if response.status >= 500 => Finding::warn(
                check,
                format!("a message {what} gets {}", response.status),
                "respond with 403, so that monitoring can tell a forged request from a broken bot",
            ),
            Ok(response) => Finding::fail(
                check,
                format!("a message {what} is accepted ({})", response.status),
                VERIFY,
            ),
            Err(error) => Finding::warn(
                check,
                format!("a message {what} gets no response: {error}"),
                "respond with 403",
            ),
        };
        report.add(finding)?;
    }
    Ok(true)
}
