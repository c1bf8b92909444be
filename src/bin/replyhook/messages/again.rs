//! A second try: `retry` of handlers, `release` of what is sent.

use replyhook::MessageSid;
use replyhook::clock::{SignedDuration, Timestamp};
use replyhook::store::{Access, MessageFilter, MessageRow};

use super::{PAGE, find, outgoing, unknown};
use crate::operator::{Opened, now, number};
use crate::{Answer, SettingsArgs, print};

#[derive(clap::Args)]
pub(super) struct Retry {
    /// The message's SID
    #[arg(required_unless_present = "state", conflicts_with = "state")]
    sid: Option<MessageSid>,
    /// Whatever is in this state because its handler failed
    #[arg(long, value_parser = ["failed", "dead"])]
    state: Option<String>,
    /// Only what came in the last so many hours
    #[arg(long, value_name = "HOURS", requires = "state", value_parser = clap::value_parser!(u32).range(1..))]
    since: Option<u32>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
pub(super) struct Release {
    /// The SID of the message that is answered
    #[arg(required_unless_present_any = ["all", "outbound", "failed_with"], conflicts_with_all = ["all", "outbound", "failed_with"])]
    sid: Option<MessageSid>,
    /// The number of a message that was sent first, as `replyhook send` tells it
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["all", "failed_with"])]
    outbound: Option<i64>,
    /// What was sent first and Twilio refused with this code, such as 20003 for a wrong token, once that is mended
    #[arg(long, value_name = "CODE", conflicts_with = "all")]
    failed_with: Option<u32>,
    /// Whatever is held
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Retry {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        match (self.sid, &self.state) {
            (Some(sid), _) => Self::one(&opened, sid),
            (None, state) => self.all(&opened, state.as_deref().unwrap_or("failed")),
        }
    }

    fn all(&self, opened: &Opened, state: &str) -> anyhow::Result<Answer> {
        let now = now();
        let hours = i64::from(self.since.unwrap_or(u32::MAX));
        let since = now.checked_sub(SignedDuration::from_hours(hours));
        let since = since.unwrap_or(Timestamp::MIN);
        let mut rows = in_state(opened, state)?;
        rows.retain(|row| row.received_at >= since);
        let mut retried = 0;
        // The oldest first, as they came.
        for row in rows.iter().rev() {
            retried += u64::from(opened.wait(opened.store.retry(row.sid, now))?);
        }
        let left = rows.len() as u64 - retried;
        if left > 0 {
            print(&format!(
                "{} left: where a reply failed and not the handler, `replyhook messages release SM…` sends it\n",
                number(left, "message")
            ))?;
        }
        print(&format!(
            "{} handled again by the running server, and answered by REST\n",
            number(retried, "message")
        ))?;
        Ok(if retried > 0 { Answer::Yes } else { Answer::No })
    }

    fn one(opened: &Opened, sid: MessageSid) -> anyhow::Result<Answer> {
        if opened.wait(opened.store.retry(sid, now()))? {
            print(&format!(
                "{sid} is handled again by the running server, and answered by REST\n"
            ))?;
            return Ok(Answer::Yes);
        }
        let Some(row) = find(opened, sid)? else {
            return unknown(sid);
        };
        let why = match row.state {
            "failed" | "dead" if row.params.is_none() => "its content has been deleted",
            "failed" | "held" => {
                "its handler did not fail: `replyhook messages release` sends its replies"
            }
            _ => "only what failed, or is dead, can be handled again",
        };
        print(&format!("{sid} is {}: {why}\n", row.state))?;
        Ok(Answer::No)
    }
}

impl Release {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        if let Some(code) = self.failed_with {
            return match outgoing::release_failed(&opened, code)? {
                0 => {
                    print(&format!(
                        "nothing that was sent first was refused with {code}\n"
                    ))?;
                    Ok(Answer::No)
                }
                count => freed(count),
            };
        }
        match (self.sid, self.outbound) {
            (Some(sid), _) => match find(&opened, sid)? {
                Some(row) => freed(release(&opened, &[row])?),
                None => unknown(sid),
            },
            (None, Some(id)) => freed(opened.wait(opened.store.release_outgoing(Some(id), now()))?),
            (None, None) => {
                let replies = release(&opened, &in_state(&opened, "held")?)?;
                let outgoing = opened.wait(opened.store.release_outgoing(None, now()))?;
                if replies + outgoing == 0 && outgoing::any_failed(&opened)? {
                    print(
                        "nothing is held, but something that was sent first has failed: \
                         `replyhook messages list --outbound --state failed`\n",
                    )?;
                    return Ok(Answer::No);
                }
                freed(replies + outgoing)
            }
        }
    }
}

/// Every message in a state, newest first.
fn in_state(opened: &Opened, state: &str) -> anyhow::Result<Vec<MessageRow>> {
    let mut all = Vec::new();
    let mut filter = MessageFilter {
        state: Some(state.to_owned()),
        limit: PAGE,
        ..MessageFilter::default()
    };
    loop {
        let rows = opened.wait(opened.store.messages(filter.clone()))?;
        let Some(last) = rows.last() else {
            return Ok(all);
        };
        filter.before = Some(last.id);
        all.extend(rows);
    }
}

fn release(opened: &Opened, rows: &[MessageRow]) -> anyhow::Result<u64> {
    let now = now();
    let mut freed = 0;
    // The oldest first, as they would have been sent.
    for row in rows.iter().rev() {
        freed += opened.wait(opened.store.release(row.sid, now))?;
    }
    Ok(freed)
}

fn freed(freed: u64) -> anyhow::Result<Answer> {
    if freed == 0 {
        print("nothing is held\n")?;
        return Ok(Answer::No);
    }
    print(&format!(
        "{} released: the running server sends it\n",
        number(freed, "message")
    ))?;
    Ok(Answer::Yes)
}
