//! Inbound messages as text and as JSON.

use std::fmt::Write;
use std::path::PathBuf;

use replyhook::internals::{
    MessageRow, OutboundRow, REJECTED, RedactedParams, TEMPLATE_NAME, TEMPLATE_SID,
};
use replyhook::store::OutboundState;
use replyhook::{ErrorCode, FormParams, MessageSid};
use serde_json::{Value, json};

use super::query::{is_releasable, refusal};
use crate::operator::{format_age, format_user, now};
use crate::print::printable;

pub(super) fn format_line(row: &MessageRow, now: replyhook::Timestamp, content: bool) -> String {
    let user_text = row
        .user
        .as_ref()
        .map_or_else(|| "-".to_owned(), |address| format_user(address, content));
    let reason = reason(row).or_else(|| {
        row.handed_off_until
            .filter(|until| *until > now)
            .map(|_| "the conversation is handed off".to_owned())
    });
    let (age, reason) = (format_age(row.received_at, now), reason.unwrap_or_default());
    let line = format!(
        "{} {:<8} {user_text:<12} {age:>4} {reason}",
        row.sid, row.state
    );
    let mut text = format!("{}\n", printable(&line));
    if content {
        for line in format_texts(row) {
            text += "  ";
            text += &line;
            text.push('\n');
        }
    }
    text
}

/// Returns the reason of a message's state: its own, or that of the first reply that has one.
fn reason(row: &MessageRow) -> Option<String> {
    row.reason
        .clone()
        .or_else(|| row.replies.iter().find_map(failure_reason))
}

pub(super) fn failure_reason(reply: &OutboundRow) -> Option<String> {
    let repeated = [reply.resent_after, reply.text_after, reply.retried_after];
    let repeated = repeated.into_iter().flatten().next();
    if let (OutboundState::Pending, Some(code)) = (reply.state, repeated) {
        return Some(format!("to be sent again: {}", meaning(code)));
    }
    let code = reply.error_code.map(meaning);
    match (&reply.reason, code) {
        (Some(reason), Some(code)) => Some(format!("{reason}: {code}")),
        (reason, code) => reason.clone().or(code),
    }
}

/// Returns the reason why `release` does not send a message, unless the message has that reason already.
pub(super) fn unstated_refusal(message: &OutboundRow) -> Option<&'static str> {
    refusal(message).filter(|refusal| message.reason.as_deref() != Some(*refusal))
}

/// Returns a line for each automatic repetition of a send, with its cause.
pub(super) fn repetitions(message: &OutboundRow) -> Vec<String> {
    let reason = message.reason.as_deref().unwrap_or_default();
    // Stopped before a call: the user has opted out since, or the window has closed.
    let is_stopped = match message.state {
        OutboundState::Suppressed => true,
        OutboundState::Failed => !reason.starts_with(REJECTED),
        _ => false,
    };
    let choose = |due: &'static str, stopped: &'static str, made: &'static str| match message.state
    {
        OutboundState::Pending => due,
        _ if is_stopped => stopped,
        _ => made,
    };
    let causes = [
        (
            message.retried_after,
            choose("to be retried after", "not retried after", "retried after"),
        ),
        (
            message.resent_after,
            choose(
                "second send due after",
                "no second send after",
                "second send after",
            ),
        ),
        (
            message.text_after,
            choose(
                "to be sent as text after",
                "not sent as text after",
                "sent as text after",
            ),
        ),
    ];
    let lines = causes.into_iter().filter_map(|(code, words)| {
        let code = code?;
        Some(format!("{words}: {}", meaning(code)))
    });
    lines.collect()
}

/// Formats an error code with its meaning.
pub(super) fn meaning(code: u32) -> String {
    format!("{} ({code})", ErrorCode(code).meaning_or_link())
}

/// Formats a text of a message with its author.
pub(super) fn format_text(author: &str, text: &str) -> String {
    // The `Debug` format escapes control characters, which could change the terminal's state.
    format!("{author}: {text:?}")
}

/// Returns the texts of a message, its response and its replies, one per line.
pub(crate) fn format_texts(row: &MessageRow) -> Vec<String> {
    let body = row
        .params
        .as_ref()
        .map(|params| format_text("user", &body(params)));
    let response = row
        .response
        .as_ref()
        .map(|response| format_text("response", &response.0));
    let replies = row.replies.iter().filter_map(|reply| reply.params.as_ref());
    body.into_iter()
        .chain(response)
        .chain(replies.map(|params| format_text("reply", &reply_body(params))))
        .collect()
}

fn parse_form(params: &RedactedParams) -> FormParams {
    FormParams::parse(params.0.as_bytes(), usize::MAX).unwrap_or_default()
}

fn body(params: &RedactedParams) -> String {
    parse_form(params)
        .get("Body")
        .unwrap_or_default()
        .to_owned()
}

/// Returns the text of a reply, or the Content SID or the name of a template.
pub(super) fn reply_body(params: &RedactedParams) -> String {
    let form = parse_form(params);
    // Twilio renders a template's text, so the store does not have it.
    let names = ["Body", "ContentSid", TEMPLATE_SID, TEMPLATE_NAME];
    let text = names.into_iter().find_map(|name| form.get(name));
    text.unwrap_or_default().to_owned()
}

/// Returns the object for a line of `list --json`.
pub(crate) fn summary_json(row: &MessageRow, content: bool) -> Value {
    let replies = row.replies.iter().map(|reply| {
        let sid = reply.sid.as_ref().map(MessageSid::as_str);
        let mut line = json!({"id": reply.id, "state": reply.state.as_str(), "sid": sid, "error_code": reply.error_code});
        if content {
            line["body"] = json!(reply.params.as_ref().map(reply_body));
        }
        line
    });
    let mut line = json!({
        "message_sid": row.sid.as_str(),
        "state": row.state,
        "attempt": row.attempt,
        "user": row.user.as_ref().map(|address| format_user(address, content)),
        "received_at": row.received_at.to_string(),
        "replies": replies.collect::<Vec<_>>(),
    });
    if let Some(reason) = &row.reason {
        line["reason"] = json!(reason);
    }
    if content {
        line["body"] = json!(row.params.as_ref().map(body));
        line["response"] = json!(row.response.as_ref().map(|response| &response.0));
    }
    line
}

/// Returns the object for `show --json` and `export`: [`summary_json`] with all other fields.
pub(super) fn message_json(row: &MessageRow, content: bool) -> Value {
    let mut line = summary_json(row, content);
    line["account_sid"] = json!(row.account.as_str());
    line["reason"] = json!(row.reason);
    line["handed_off_until"] = json!(row.handed_off_until.map(|until| until.to_string()));
    for (reply, line) in row
        .replies
        .iter()
        .zip(line["replies"].as_array_mut().into_iter().flatten())
    {
        line["status"] = json!(reply.status);
        line["earlier_sid"] = json!(reply.earlier_sid.as_ref().map(MessageSid::as_str));
        line["resent_after"] = json!(reply.resent_after);
        line["text_after"] = json!(reply.text_after);
        line["retried_after"] = json!(reply.retried_after);
        line["reason"] = json!(reply.reason);
        line["refusal"] = json!(refusal(reply));
    }
    if content {
        let params = row.params.as_ref().map(parse_form);
        let pairs = params.as_ref().map(|form| form.iter().collect::<Vec<_>>());
        line["params"] = json!(pairs);
    }
    line
}

pub(super) fn format_details(
    row: &MessageRow,
    files: &[PathBuf],
    content: bool,
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let user_text = row.user.as_ref().map_or_else(
        || "deleted".to_owned(),
        |address| format_user(address, content),
    );
    writeln!(text, "message   {}", row.sid)?;
    writeln!(text, "account   {}", row.account)?;
    writeln!(text, "user      {user_text}")?;
    writeln!(
        text,
        "received  {:.0}, {} ago",
        row.received_at,
        format_age(row.received_at, now())
    )?;
    writeln!(text, "state     {}", row.state)?;
    writeln!(text, "attempt   {}", row.attempt)?;
    if let Some(reason) = &row.reason {
        writeln!(text, "reason    {reason}")?;
    }
    if let Some(until) = row.handed_off_until {
        writeln!(text, "handoff   until {until:.0}")?;
    }
    for file in files {
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        writeln!(text, "file      {} ({bytes} bytes)", file.display())?;
    }
    for (ordinal, reply) in row.replies.iter().enumerate() {
        writeln!(text, "reply {:<3} {}", ordinal + 1, reply.state.as_str())?;
        if let Some(sid) = &reply.sid {
            writeln!(text, "          SID {sid}")?;
        }
        if let Some(status) = &reply.status {
            writeln!(text, "          status: {status}")?;
        }
        if let Some(code) = reply.error_code {
            writeln!(text, "          error: {}", meaning(code))?;
        }
        if let Some(reason) = &reply.reason {
            writeln!(text, "          reason: {reason}")?;
        }
        if let Some(refusal) = unstated_refusal(reply) {
            writeln!(text, "          reason: {refusal}")?;
        }
        if let Some(sid) = &reply.earlier_sid {
            writeln!(text, "          earlier SID {sid}, which failed")?;
        }
        for repetition in repetitions(reply) {
            writeln!(text, "          {repetition}")?;
        }
        if is_releasable(reply) {
            writeln!(
                text,
                "          `replyhook messages release {}` sends it",
                row.sid
            )?;
        }
    }
    let mut text = format!("{}\n", printable(&text));
    if content {
        for line in format_texts(row) {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}
