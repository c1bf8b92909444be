//! Checks of what all responses have in common: time and TwiML.

use std::time::Duration;

use super::bot::AuditedBot;
use crate::finding::{Finding, Report};

/// Time after which a response is slow: a fifth of Twilio's timeout of 15 seconds.
const SLOW: Duration = Duration::from_secs(3);

pub(super) fn check(bot: &AuditedBot, report: &mut Report) -> anyhow::Result<()> {
    let responses = &bot.responses;
    if let Some(slowest) = responses.iter().max_by_key(|response| response.time) {
        let found = format!(
            "the slowest response took {} ms ({})",
            slowest.time.as_millis(),
            slowest.check
        );
        report.add(if slowest.time < SLOW {
            Finding::ok("time", found)
        } else {
            Finding::warn(
                "time",
                found,
                "Twilio waits 15 s, and then calls the fallback URL: respond with <Response/>, and send the reply by the \
                 REST API",
            )
        })?;
    }
    let mut faults: Vec<String> = Vec::new();
    for response in responses {
        for fault in &response.faults {
            let fault = format!("{}: {fault}", response.check);
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    report.add(if faults.is_empty() {
        Finding::ok(
            "twiml",
            format!("Twilio can use all of {} responses", responses.len()),
        )
    } else {
        Finding::fail(
            "twiml",
            faults.join("; "),
            "Twilio ignores or rejects these parts: the user gets nothing of them",
        )
    })
}
