//! `release`, which sends held or failed messages again.

use replyhook::MessageSid;
use replyhook::internals::{MessageRow, OutboundRow};
use replyhook::store::{Access, OutboundState};

use super::format::repetitions;
use super::outbound;
use super::query::{
    find_inbound, is_releasable, is_undelivered, list_in_state, print_unknown, refusal,
};
use crate::confirm::confirm;
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_count, now};
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
pub(super) struct Release {
    /// SID of the inbound message whose reply is to be sent, or SID or number of a reply or an outbound message
    #[arg(value_name = "SID|ID", value_parser = parse_target,
        required_unless_present_any = ["all", "outbound", "failed_with"], conflicts_with_all = ["all", "outbound", "failed_with"])]
    target: Option<ReleaseTarget>,
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
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The message that an operator names.
#[derive(Debug, Clone, Copy)]
enum ReleaseTarget {
    Sid(MessageSid),
    /// Number of a message in the outbox.
    Number(i64),
}

fn parse_target(text: &str) -> Result<ReleaseTarget, String> {
    if let Ok(number) = text.parse() {
        return Ok(ReleaseTarget::Number(number));
    }
    let sid = text.parse().map(ReleaseTarget::Sid);
    sid.map_err(|error: replyhook::sid::SidError| error.to_string())
}

impl Release {
    pub(super) fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        if let Some(code) = self.failed_with {
            let (released, refused) = outbound::release_failed(&opened, code)?;
            print_refused(&refused)?;
            return match released {
                0 if !refused.is_empty() => Ok(ExitStatus::No),
                0 => {
                    print(&format!(
                        "Twilio has not rejected an outbound message with {code}\n"
                    ))?;
                    Ok(ExitStatus::No)
                }
                count => print_released(count),
            };
        }
        match (self.target, self.outbound) {
            (Some(ReleaseTarget::Sid(sid)), _) => self.release_by_sid(&opened, sid),
            (Some(ReleaseTarget::Number(id)), _) | (None, Some(id)) => {
                let Some(message) = opened.wait(opened.store.outbound(id))? else {
                    return outbound::print_unknown(id);
                };
                let asks = self.outbound.is_none() || is_undelivered(&message);
                self.send_again(&opened, &[message], asks)
            }
            (None, None) => release_held(&opened),
        }
    }

    fn release_by_sid(&self, opened: &OpenedStore, sid: MessageSid) -> anyhow::Result<ExitStatus> {
        let Some(row) = find_inbound(opened, sid)? else {
            // It may be the SID that Twilio gave to a message of the outbox.
            return match outbound::find_by_sid(opened, sid)? {
                Some(row) => self.send_again(opened, &[row.message], true),
                None => print_unknown(sid),
            };
        };
        if row.replies.is_empty() && matches!(row.state, "failed" | "dead") {
            let hint = if row.params.is_some() {
                format!("; `replyhook messages retry {sid}` runs the handler again")
            } else {
                String::new()
            };
            print(&format!(
                "{sid} is {} and has no reply to send{hint}\n",
                row.state
            ))?;
            return Ok(ExitStatus::No);
        }
        self.send_again(opened, &row.replies, true)
    }

    /// Sends those of the messages that are held or failed. `asks` is true if the operator has to confirm it.
    fn send_again(
        &self,
        opened: &OpenedStore,
        messages: &[OutboundRow],
        asks: bool,
    ) -> anyhow::Result<ExitStatus> {
        let releasable: Vec<_> = messages
            .iter()
            .filter(|message| is_releasable(message))
            .collect();
        for message in messages {
            if let Some(reason) = refusal(message) {
                // The store records the reason, so that the message is not held any more.
                opened.wait(opened.store.send_again(message.id, now()))?;
                print_refused(&[(message.id, reason)])?;
            }
        }
        if releasable.is_empty() {
            if messages.iter().any(|message| refusal(message).is_some()) {
                return Ok(ExitStatus::No);
            }
            let waiting: Vec<_> = messages.iter().filter_map(describe_waiting).collect();
            if !waiting.is_empty() {
                print(&waiting.concat())?;
                return Ok(ExitStatus::No);
            }
            let is_expired =
                |message: &OutboundRow| message.params.is_none() && message.error_code.is_some();
            if messages.iter().any(is_expired) {
                print("nothing to send: the content has been deleted\n")?;
                return Ok(ExitStatus::No);
            }
            return print_released(0);
        }
        let count = format_count(releasable.len() as u64, "message");
        let question = format!("Send {count} again? The user may have it already.");
        if asks && !self.yes && !confirm(&question, &format!("sends {count} again"))? {
            print("nothing was released\n")?;
            return Ok(ExitStatus::No);
        }
        let now = now();
        let mut released = 0;
        // In the order of the parts, which the outbox keeps.
        for message in releasable {
            released += u64::from(opened.wait(opened.store.send_again(message.id, now))?);
        }
        print_released(released)
    }
}

fn release_held(opened: &OpenedStore) -> anyhow::Result<ExitStatus> {
    let rows = list_in_state(opened, "held")?;
    let replies = rows.iter().flat_map(|row| &row.replies);
    let refused = outbound::list_refused(opened)?;
    let refused: Vec<(i64, &str)> = replies
        .filter_map(|reply| Some((reply.id, refusal(reply)?)))
        .chain(refused)
        .collect();
    print_refused(&refused)?;
    let replies = release_replies(opened, &rows)?;
    let outbound = opened.wait(opened.store.release_outbound(None, now()))?;
    // `--all` leaves failed messages alone: their reason should be read first.
    if replies + outbound == 0 && !refused.is_empty() {
        return Ok(ExitStatus::No);
    }
    if replies + outbound == 0 && outbound::has_failed_messages(opened)? {
        print(
            "nothing is held, but an outbound message has failed; see \
             `replyhook messages list --outbound --state failed`\n",
        )?;
        return Ok(ExitStatus::No);
    }
    print_released(replies + outbound)
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

/// Prints the messages that are not released because they must not be sent.
fn print_refused(refused: &[(i64, &str)]) -> anyhow::Result<()> {
    let lines = refused
        .iter()
        .map(|(id, reason)| format!("outbound message {id} is not sent again: {reason}\n"));
    print(&lines.collect::<String>())
}

/// Returns the reason why there is nothing to release for a message that is not held and has not failed, unless it was sent.
fn describe_waiting(message: &OutboundRow) -> Option<String> {
    let id = message.id;
    let repetition = repetitions(message).pop();
    Some(match message.state {
        // A second send waits a minute.
        OutboundState::Pending if let Some(repetition) = repetition => {
            format!(
                "outbound message {id} is sent again by the running server ({repetition}); there is nothing to release\n"
            )
        }
        OutboundState::Pending | OutboundState::Sending => {
            format!(
                "outbound message {id} is sent by the running server; there is nothing to release\n"
            )
        }
        OutboundState::Unknown => format!(
            "the result of outbound message {id} is not known yet, and is being looked up; there is nothing to release\n"
        ),
        OutboundState::Suppressed => {
            let reason = message.reason.as_deref().unwrap_or("suppressed");
            format!("outbound message {id} is not sent: {reason}\n")
        }
        _ => return None,
    })
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
