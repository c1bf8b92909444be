//! Checks of opt-outs: keywords that Twilio handles on SMS, and STOP on WhatsApp, which is left to the bot.

use replyhook::{Address, Channel};

use super::bot::{AuditedBot, ResponseOutcome};
use crate::finding::{Finding, Report};

/// Keywords that Twilio answers itself, with the value of `OptOutType`.
const TWILIO_KEYWORDS: [(&str, &str); 3] = [
    ("sms stop", "STOP"),
    ("sms help", "HELP"),
    ("sms start", "START"),
];

pub(super) async fn check(bot: &mut AuditedBot, report: &mut Report) -> anyhow::Result<()> {
    let user = bot.sms();
    for (check, keyword) in TWILIO_KEYWORDS {
        let mut message = user.clone();
        message.body = Some(keyword.to_owned());
        let form = bot.form(&message, &[("OptOutType", keyword)]);
        report.add(match bot.post(check, form).await {
            ResponseOutcome::Accepted { messages: 0 } => Finding::ok(
                check,
                format!("{keyword} on SMS, which Twilio answers itself, gets no second answer"),
            ),
            ResponseOutcome::Accepted { .. } if keyword == "STOP" => Finding::fail(
                check,
                "STOP on SMS is answered, after the user opted out",
                "send nothing if OptOutType is STOP: Twilio has confirmed it, and blocks the reply (21610)",
            ),
            ResponseOutcome::Accepted { .. } => Finding::warn(
                check,
                format!("{keyword} on SMS is answered twice, by Twilio and by the bot"),
                "send nothing if OptOutType is set",
            ),
            ResponseOutcome::Failed(reason) => Finding::fail(
                check,
                format!("{keyword} on SMS is not accepted: {reason}"),
                "respond with an empty <Response/> if OptOutType is set",
            ),
        })?;
    }
    check_whatsapp(bot, report).await
}

/// Sends STOP and then another message, on WhatsApp.
async fn check_whatsapp(bot: &mut AuditedBot, report: &mut Report) -> anyhow::Result<()> {
    const CHECK: &str = "whatsapp stop";
    let user = bot.message();
    if *Address::parse(user.from.as_str()).channel() != Channel::WhatsApp {
        return report.add(Finding::note(
            CHECK,
            "not checked: --from is not a WhatsApp user",
            "leave out --from, or give a WhatsApp user",
        ));
    }
    let mut outcomes = Vec::new();
    for text in ["STOP", "hello", "START"] {
        let mut message = user.clone();
        message.body = Some(text.to_owned());
        let form = bot.form(&message, &[]);
        outcomes.push(bot.post(CHECK, form).await);
    }
    let failed = outcomes.iter().find_map(|outcome| match outcome {
        ResponseOutcome::Failed(reason) => Some(reason),
        ResponseOutcome::Accepted { .. } => None,
    });
    report.add(match (failed, &outcomes[1]) {
        (Some(reason), _) => Finding::fail(
            CHECK,
            format!("STOP, another message and START are not all accepted: {reason}"),
            "respond with TwiML to every message",
        ),
        (None, ResponseOutcome::Accepted { messages: 0 }) => {
            Finding::ok(CHECK, "a user who wrote STOP gets no more replies")
        }
        (None, _) => Finding::warn(
            CHECK,
            "a user who wrote STOP gets replies as before",
            "on WhatsApp Twilio does not handle STOP unless Advanced Opt-Out does: store it, and send nothing until START",
        ),
    })
}
