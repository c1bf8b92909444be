//! `retry`, which runs handlers again, and `release`, which sends held or failed messages.

use replyhook::MessageSid;
use replyhook::clock::{SignedDuration, Timestamp};
use replyhook::internals::{MessageFilter, MessageRow};
use replyhook::store::Access;

use super::outbound;
use super::query::{PAGE_SIZE, find_inbound, print_unknown};
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_count, now};
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
pub(super) struct Retry {
    /// SID of the message
    #[arg(required_unless_present = "state", conflicts_with = "state")]
    sid: Option<MessageSid>,
    /// Retry all messages in this state whose handler failed
    #[arg(long, value_parser = ["failed", "dead"])]
    state: Option<String>,
    /// Only messages received in the last HOURS
    #[arg(long, value_name = "HOURS", requires = "state", value_parser = clap::value_parser!(u32).range(1..))]
    since: Option<u32>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
pub(super) struct Release {
    /// SID of the inbound message whose reply is to be sent, or of an outbound message
    #[arg(required_unless_present_any = ["all", "outbound", "failed_with"], conflicts_with_all = ["all", "outbound", "failed_with"])]
    sid: Option<MessageSid>,
    /// Release the outbound message with this number, which `replyhook send` prints
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["all", "failed_with"])]
    outbound: Option<i64>,
    /// Release the outbound messages that Twilio rejected with this code, such as 20003 for a wrong token; fix the cause
    /// first
    #[arg(long, value_name = "CODE", conflicts_with = "all")]
    failed_with: Option<u32>,
    /// Release all held messages
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Retry {
    pub(super) fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        match (self.sid, &self.state) {
            (Some(sid), _) => Self::retry_one(&opened, sid),
            (None, state) => self.retry_all(&opened, state.as_deref().unwrap_or("failed")),
        }
    }

    fn retry_all(&self, opened: &OpenedStore, state: &str) -> anyhow::Result<ExitStatus> {
        let now = now();
        let hours = i64::from(self.since.unwrap_or(u32::MAX));
        let since = now.checked_sub(SignedDuration::from_hours(hours));
        let since = since.unwrap_or(Timestamp::MIN);
        let mut rows = list_in_state(opened, state)?;
        rows.retain(|row| row.received_at >= since);
        let mut retried = 0;
        // Oldest first, in the order in which the messages arrived.
        for row in rows.iter().rev() {
            retried += u64::from(opened.wait(opened.store.retry(row.sid, now))?);
        }
        let skipped = rows.len() as u64 - retried;
        if skipped > 0 {
            print(&format!(
                "{} left; if a reply failed and not the handler, `replyhook messages release SM…` sends it\n",
                format_count(skipped, "message")
            ))?;
        }
        print(&format!(
            "{} to be handled again by the running server; replies are sent via the REST API\n",
            format_count(retried, "message")
        ))?;
        Ok(if retried > 0 {
            ExitStatus::Yes
        } else {
            ExitStatus::No
        })
    }

    fn retry_one(opened: &OpenedStore, sid: MessageSid) -> anyhow::Result<ExitStatus> {
        if opened.wait(opened.store.retry(sid, now()))? {
            print(&format!(
                "{sid} will be handled again by the running server; the reply is sent via the REST API\n"
            ))?;
            return Ok(ExitStatus::Yes);
        }
        let Some(row) = find_inbound(opened, sid)? else {
            let Some(row) = outbound::find_by_sid(opened, sid)? else {
                return print_unknown(sid);
            };
            let id = row.message.id;
            print(&format!(
                "{sid} is outbound message {id}, which has no handler: `replyhook messages release --outbound {id}` sends \
                 it if it is held or failed\n"
            ))?;
            return Ok(ExitStatus::No);
        };
        let reason = match row.state {
            "failed" | "dead" if row.params.is_none() => "its content has been deleted",
            "failed" | "held" => {
                "its handler did not fail: `replyhook messages release` sends its replies"
            }
            _ => "only failed or dead messages can be handled again",
        };
        print(&format!("{sid} is {}: {reason}\n", row.state))?;
        Ok(ExitStatus::No)
    }
}

impl Release {
    pub(super) fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        if let Some(code) = self.failed_with {
            return match outbound::release_failed(&opened, code)? {
                0 => {
                    print(&format!(
                        "Twilio has not rejected an outbound message with {code}\n"
                    ))?;
                    Ok(ExitStatus::No)
                }
                count => print_released(count),
            };
        }
        match (self.sid, self.outbound) {
            (Some(sid), _) => match find_inbound(&opened, sid)? {
                Some(row) => print_released(release_replies(&opened, &[row])?),
                // It may be the SID that Twilio gave to an outbound message.
                None => match outbound::find_by_sid(&opened, sid)? {
                    Some(row) => release_outbound(&opened, row.message.id),
                    None => print_unknown(sid),
                },
            },
            (None, Some(id)) => match outbound::find_by_id(&opened, id)? {
                Some(_) => release_outbound(&opened, id),
                None => outbound::print_unknown(id),
            },
            (None, None) => {
                let replies = release_replies(&opened, &list_in_state(&opened, "held")?)?;
                let outbound = opened.wait(opened.store.release_outbound(None, now()))?;
                // `--all` leaves failed messages alone: their reason should be read first.
                if replies + outbound == 0 && outbound::has_failed_messages(&opened)? {
                    print(
                        "nothing is held, but an outbound message has failed; see \
                         `replyhook messages list --outbound --state failed`\n",
                    )?;
                    return Ok(ExitStatus::No);
                }
                print_released(replies + outbound)
            }
        }
    }
}

/// Returns all messages in a state, newest first.
fn list_in_state(opened: &OpenedStore, state: &str) -> anyhow::Result<Vec<MessageRow>> {
    let mut messages = Vec::new();
    let mut filter = MessageFilter {
        state: Some(state.to_owned()),
        limit: PAGE_SIZE,
        ..MessageFilter::default()
    };
    loop {
        let rows = opened.wait(opened.store.messages(filter.clone()))?;
        let Some(last) = rows.last() else {
            return Ok(messages);
        };
        filter.before_id = Some(last.id);
        messages.extend(rows);
    }
}

fn release_replies(opened: &OpenedStore, rows: &[MessageRow]) -> anyhow::Result<u64> {
    let now = now();
    let mut released = 0;
    // Oldest first, in the order in which they would have been sent.
    for row in rows.iter().rev() {
        released += opened.wait(opened.store.release(row.sid, now))?;
    }
    Ok(released)
}

fn release_outbound(opened: &OpenedStore, id: i64) -> anyhow::Result<ExitStatus> {
    print_released(opened.wait(opened.store.release_outbound(Some(id), now()))?)
}

fn print_released(count: u64) -> anyhow::Result<ExitStatus> {
    if count == 0 {
        print("nothing is held\n")?;
        return Ok(ExitStatus::No);
    }
    print(&format!(
        "{} released, to be sent by the running server\n",
        format_count(count, "message")
    ))?;
    Ok(ExitStatus::Yes)
}
