//! Outbound messages: `--outbound`.

use std::fmt::Write;

use replyhook::internals::{MessageFilter, OutboundDetails};
use replyhook::store::OutboundState;
use replyhook::{ErrorCode, MessageSid, Timestamp};
use serde_json::{Value, json};

use super::format::{
    failure_reason, format_text, meaning, repetitions, reply_body, unstated_refusal,
};
use super::query::{PAGE_SIZE, is_releasable, refusal};
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_age, format_user, now};
use crate::print::{print, printable, try_print};

/// Calls `show` with each page of the filtered messages, until it returns false or `remaining` are shown.
fn for_each_page(
    opened: &OpenedStore,
    mut filter: MessageFilter,
    mut remaining: u32,
    mut show: impl FnMut(&[OutboundDetails]) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    while remaining > 0 {
        filter.limit = remaining.min(PAGE_SIZE);
        let rows = opened.wait(opened.store.outbound_messages(filter.clone()))?;
        let Some(last) = rows.last() else { break };
        filter.before_id = Some(last.message.id);
        remaining -= u32::try_from(rows.len())
            .unwrap_or(remaining)
            .min(remaining);
        if !show(&rows)? {
            break;
        }
    }
    Ok(())
}

pub(super) fn list(
    opened: &OpenedStore,
    filter: MessageFilter,
    limit: u32,
    json: bool,
    content: bool,
) -> anyhow::Result<()> {
    let now = now();
    for_each_page(opened, filter, limit, |rows| {
        let lines = rows.iter().map(|row| {
            if json {
                format!("{}\n", message_json(row, content))
            } else {
                format_line(row, now, content)
            }
        });
        try_print(&lines.collect::<String>())
    })
}

/// Returns the message with this number, which is [`SendReceipt::id`](replyhook::outbound::SendReceipt::id).
pub(super) fn find_by_id(opened: &OpenedStore, id: i64) -> anyhow::Result<Option<OutboundDetails>> {
    // `MessageFilter` has no id: read the newest message up to this one, and compare.
    let filter = MessageFilter {
        before_id: id.checked_add(1),
        limit: 1,
        ..MessageFilter::default()
    };
    let found = opened.wait(opened.store.outbound_messages(filter))?.pop();
    Ok(found.filter(|row| row.message.id == id))
}

/// Returns the message with this SID of Twilio's, which may be a reply.
pub(super) fn find_by_sid(
    opened: &OpenedStore,
    sid: MessageSid,
) -> anyhow::Result<Option<OutboundDetails>> {
    let filter = MessageFilter {
        sid: Some(sid),
        limit: 1,
        ..MessageFilter::default()
    };
    Ok(opened.wait(opened.store.outbound_messages(filter))?.pop())
}

pub(super) fn print_unknown(id: i64) -> anyhow::Result<ExitStatus> {
    print(&format!(
        "outbound message {id} does not exist, or has been deleted\n"
    ))?;
    Ok(ExitStatus::No)
}

/// Returns true if an outbound message has failed. `release --all` does not send such messages.
pub(super) fn has_failed_messages(opened: &OpenedStore) -> anyhow::Result<bool> {
    let filter = MessageFilter {
        state: Some(OutboundState::Failed.as_str().to_owned()),
        limit: 1,
        ..MessageFilter::default()
    };
    Ok(!opened
        .wait(opened.store.outbound_messages(filter))?
        .is_empty())
}

/// Returns the held messages that `release` refuses, with the reasons.
pub(super) fn list_refused(opened: &OpenedStore) -> anyhow::Result<Vec<(i64, &'static str)>> {
    let filter = MessageFilter {
        state: Some(OutboundState::Held.as_str().to_owned()),
        ..MessageFilter::default()
    };
    let mut refused = Vec::new();
    for_each_page(opened, filter, u32::MAX, |rows| {
        let messages = rows.iter().map(|row| &row.message);
        refused.extend(messages.filter_map(|message| Some((message.id, refusal(message)?))));
        Ok(true)
    })?;
    Ok(refused)
}

/// Releases the messages that Twilio rejected with this code. Returns their number, and those that must not be sent with the
/// reasons.
pub(super) fn release_failed(
    opened: &OpenedStore,
    code: u32,
) -> anyhow::Result<(u64, Vec<(i64, &'static str)>)> {
    let filter = MessageFilter {
        state: Some(OutboundState::Failed.as_str().to_owned()),
        ..MessageFilter::default()
    };
    let (mut ids, mut refused) = (Vec::new(), Vec::new());
    for_each_page(opened, filter, u32::MAX, |rows| {
        // The filter also finds messages that Twilio accepted and could not deliver: do not send them a second time.
        let rejected = rows.iter().map(|row| &row.message).filter(|message| {
            message.state == OutboundState::Failed && message.error_code == Some(code)
        });
        for message in rejected {
            ids.push(message.id);
            refused.extend(refusal(message).map(|reason| (message.id, reason)));
        }
        Ok(true)
    })?;
    let now = now();
    let mut released = 0;
    // Oldest first, in the order in which they would have been sent.
    for id in ids.into_iter().rev() {
        released += opened.wait(opened.store.release_outbound(Some(id), now))?;
    }
    Ok((released, refused))
}

fn format_line(row: &OutboundDetails, now: Timestamp, content: bool) -> String {
    let message = &row.message;
    let user_text = format_user(&row.user, content);
    let sid = message.sid.map(|sid| sid.to_string()).unwrap_or_default();
    let (age, reason) = (format_age(row.created_at, now), failure_reason(message));
    let details = [sid, reason.unwrap_or_default()].join(" ");
    let line = format!(
        "{:<6} {:<10} {user_text:<12} {age:>4} {}",
        message.id,
        row.state,
        details.trim()
    );
    let mut text = format!("{}\n", printable(&line));
    if content && let Some(params) = &message.params {
        text += "  ";
        text += &format_text("text", &reply_body(params));
        text.push('\n');
    }
    text
}

/// Returns the object for `--json` and `export`.
pub(super) fn message_json(row: &OutboundDetails, content: bool) -> Value {
    let message = &row.message;
    let sid = message.sid.as_ref().map(MessageSid::as_str);
    let mut line = json!({
        "id": message.id,
        "direction": "outbound",
        "message_sid": sid,
        "account_sid": row.account.as_str(),
        "state": row.state,
        "attempt": row.attempt,
        "from": row.sender.as_str(),
        "user": format_user(&row.user, content),
        "created_at": row.created_at.to_string(),
        "status": message.status,
        "error_code": message.error_code,
        "earlier_sid": message.earlier_sid.as_ref().map(MessageSid::as_str),
        "resent_after": message.resent_after,
        "text_after": message.text_after,
        "retried_after": message.retried_after,
        "reason": message.reason,
        "refusal": refusal(message),
    });
    if content {
        line["body"] = json!(message.params.as_ref().map(reply_body));
    }
    line
}

pub(super) fn format_details(
    row: &OutboundDetails,
    content: bool,
) -> Result<String, std::fmt::Error> {
    let message = &row.message;
    let mut text = String::new();
    writeln!(text, "outbound  {}", message.id)?;
    writeln!(text, "account   {}", row.account)?;
    writeln!(text, "from      {}", row.sender.as_str())?;
    writeln!(text, "user      {}", format_user(&row.user, content))?;
    writeln!(
        text,
        "queued    {:.0}, {} ago",
        row.created_at,
        format_age(row.created_at, now())
    )?;
    writeln!(text, "state     {}", row.state)?;
    writeln!(text, "attempt   {}", row.attempt)?;
    if let Some(sid) = &message.sid {
        writeln!(text, "SID       {sid}")?;
    }
    if let Some(status) = &message.status {
        writeln!(text, "status    {status}")?;
    }
    if let Some(code) = message.error_code {
        writeln!(text, "error     {}", meaning(code))?;
        if message.state == OutboundState::Failed {
            let code = ErrorCode(code);
            writeln!(
                text,
                "          `replyhook messages release --failed-with {code}` sends all that Twilio rejected with this code"
            )?;
        }
    }
    if let Some(reason) = &message.reason {
        writeln!(text, "reason    {reason}")?;
    }
    if let Some(refusal) = unstated_refusal(message) {
        writeln!(text, "reason    {refusal}")?;
    }
    if let Some(sid) = &message.earlier_sid {
        writeln!(text, "earlier   {sid}, which failed")?;
    }
    for repetition in repetitions(message) {
        writeln!(text, "again     {repetition}")?;
    }
    if is_releasable(message) {
        writeln!(
            text,
            "          `replyhook messages release --outbound {}` sends it",
            message.id
        )?;
    }
    let mut text = format!("{}\n", printable(&text));
    if content && let Some(params) = &message.params {
        writeln!(text, "{}", format_text("text", &reply_body(params)))?;
    }
    Ok(text)
}
