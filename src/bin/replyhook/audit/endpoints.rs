//! Checks of the fallback URL and of the status callback URL.

use replyhook::FormParams;

use super::bot::{AuditedBot, AuditedUrl, ResponseOutcome};
use crate::finding::{Finding, Report};

/// Posts the status of a message that the bot never sent.
pub(super) async fn check_status_callback(
    bot: &mut AuditedBot,
    endpoint: Option<AuditedUrl>,
    report: &mut Report,
) -> anyhow::Result<()> {
    const CHECK: &str = "status callback";
    let Some(endpoint) = endpoint else {
        return report.add(Finding::note(
            CHECK,
            "not checked",
            "give its URL with --status-callback; without one you do not learn that a reply was not delivered",
        ));
    };
    let message = bot.message();
    let account = bot.account().to_string();
    let sid = format!("SM{:032x}", 0xa0d1_7000_u64);
    let form: FormParams = [
        ("AccountSid", account.as_str()),
        ("ApiVersion", "2010-04-01"),
        ("ErrorCode", "63016"),
        ("From", &message.to),
        ("MessageSid", &sid),
        ("MessageStatus", "undelivered"),
        ("SmsSid", &sid),
        ("SmsStatus", "undelivered"),
        ("To", &message.from),
    ]
    .into_iter()
    .collect();
    let result = match bot.post_to(CHECK, &endpoint, form).await {
        ResponseOutcome::Accepted { messages: 0 } => Ok("a status is accepted".to_owned()),
        ResponseOutcome::Accepted { .. } => Err((
            "a status is answered like a message".to_owned(),
            "Twilio ignores TwiML here, so the bot handles statuses as messages: use another URL, or tell them apart by \
             MessageStatus",
        )),
        ResponseOutcome::Failed(reason) => Err((
            format!("a status is not accepted: {reason}"),
            "respond with 200 or 204, also for messages that you do not know: Twilio reports every other response",
        )),
    };
    report.add(Finding::from_result(CHECK, result))
}

/// Posts a message to the fallback URL, as after a failed webhook.
pub(super) async fn check_fallback(
    bot: &mut AuditedBot,
    endpoint: Option<AuditedUrl>,
    report: &mut Report,
) -> anyhow::Result<()> {
    const CHECK: &str = "fallback";
    let Some(endpoint) = endpoint else {
        return report.add(Finding::note(
            CHECK,
            "not checked",
            "give its URL with --fallback; without one a message is lost when the webhook fails",
        ));
    };
    let mut message = bot.message();
    message.body = Some("hello".to_owned());
    let form = bot.form(
        &message,
        &[
            ("ErrorCode", "11200"),
            ("ErrorUrl", "https://bot.example.com/webhook"),
        ],
    );
    let result = match bot.post_to(CHECK, &endpoint, form).await {
        ResponseOutcome::Accepted { messages } if messages > 0 => {
            Ok("the user gets a reply after a failed webhook".to_owned())
        }
        ResponseOutcome::Accepted { .. } => Ok("the call is accepted, without a reply".to_owned()),
        ResponseOutcome::Failed(reason) => Err((
            format!("the message is lost: {reason}"),
            "Twilio does not call again: respond with TwiML in any case",
        )),
    };
    report.add(Finding::from_result(CHECK, result))
}
