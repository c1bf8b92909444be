//! `retry`, which runs handlers again.

use replyhook::MessageSid;
use replyhook::clock::{SignedDuration, Timestamp};
use replyhook::store::Access;

use super::outbound;
use super::query::{find_inbound, is_releasable, list_in_state, print_unknown};
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
            let hint = if is_releasable(&row.message) {
                format!(": `replyhook messages release {sid}` sends it again")
            } else {
                String::new()
            };
            print(&format!(
                "{sid} is outbound message {id}, which has no handler{hint}\n"
            ))?;
            return Ok(ExitStatus::No);
        };
        let reason = match row.state {
            "failed" | "dead" if row.params.is_none() => "its content has been deleted",
            "failed" | "held" if row.replies.iter().any(is_releasable) => {
                "its handler did not fail: `replyhook messages release` sends its replies"
            }
            "failed" | "held" => "its handler did not fail",
            _ => "only failed or dead messages can be handled again",
        };
        print(&format!("{sid} is {}: {reason}\n", row.state))?;
        Ok(ExitStatus::No)
    }
}
