//! `replyhook messages`: what came and what was sent first, looked at and set going again.

mod again;
mod outgoing;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use replyhook::config::{MediaSettings, Sources};
use replyhook::saved_files;
use replyhook::store::{
    Access, MessageFilter, MessageRow, OutgoingRow, ReplyRow, ReplyState, TakenParams,
};
use replyhook::{Address, ErrorCode, Form, MessageSid};
use serde_json::{Value, json};

use self::again::{Release, Retry};
use crate::operator::{Opened, address, age, now, user};
use crate::{Answer, SettingsArgs, print, print_on, printable};

/// Messages at once.
const PAGE: u32 = 500;

#[derive(clap::Args)]
#[command(after_help = "\
Works beside a running server. Numbers are masked, and texts are shown only with --content. What was sent first, by
`replyhook send` or a program, answers nothing: it is listed with --outbound, and has a number in place of a SID.

Examples:
  replyhook messages list --state held
  replyhook messages list --user whatsapp:+15550001111 --json
  replyhook messages show SM00000000000000000000000000000001
  replyhook messages list --outbound --state failed
  replyhook messages release --all
  replyhook messages release --failed-with 20003")]
pub(crate) struct Messages {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// One line a message, newest first: its SID, state, user, age, and why it stands where it stands
    #[command(after_help = "Exit code 0, also where there is none.")]
    List(List),
    /// Everything about one message and its replies
    #[command(after_help = "Exit code 1 if there is no such message.")]
    Show(Show),
    /// Let a message that failed, or is dead, be handled again; its answer goes by REST
    #[command(after_help = "\
Exit code 0 if one will be, 1 if none failed.

Example, once a broken bot is mended:
  replyhook messages retry --state dead --since 6")]
    Retry(Retry),
    /// Send what is held, or failed, of a message's reply, or of what was sent first
    #[command(after_help = "Exit code 0 if something is sent, 1 if nothing was held.")]
    Release(Release),
    /// Everything, one JSON object a line, newest first
    #[command(after_help = "Example:\n  replyhook messages export --content > messages.jsonl")]
    Export(Export),
}

#[derive(clap::Args)]
struct List {
    /// Only those in this state
    #[arg(long, value_parser = ["received", "processing", "answered", "deferred", "sent", "failed", "held", "unknown", "dead",
        "pending", "sending", "suppressed"])]
    state: Option<String>,
    /// Only those of this user, such as whatsapp:+15550001111
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    user: Option<Address>,
    /// What was sent first, in place of what came: pending, sending, unknown, held, sent, failed or suppressed
    #[arg(long)]
    outbound: bool,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// With numbers and texts
    #[arg(long)]
    content: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct Show {
    /// The message's SID
    #[arg(required_unless_present = "outbound", conflicts_with = "outbound")]
    sid: Option<MessageSid>,
    /// The number of a message that was sent first, as `replyhook send` tells it
    #[arg(long, value_name = "NUMBER")]
    outbound: Option<i64>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// With number and texts
    #[arg(long)]
    content: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct Export {
    /// What was sent first, in place of what came
    #[arg(long)]
    outbound: bool,
    /// With numbers and texts
    #[arg(long)]
    content: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Messages {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        match self.what {
            What::List(list) => list.run(),
            What::Show(show) => show.run(),
            What::Retry(retry) => retry.run(),
            What::Release(release) => release.run(),
            What::Export(export) => export.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        let now = now();
        let mut filter = MessageFilter {
            user: self.user,
            state: self.state,
            ..MessageFilter::default()
        };
        if self.outbound {
            outgoing::list(&opened, filter, self.limit, self.json, self.content)?;
            return Ok(Answer::Yes);
        }
        let mut left = self.limit;
        while left > 0 {
            filter.limit = left.min(PAGE);
            let rows = opened.wait(opened.store.messages(filter.clone()))?;
            let Some(last) = rows.last() else { break };
            filter.before = Some(last.id);
            left -= u32::try_from(rows.len()).unwrap_or(left).min(left);
            let lines = rows.iter().map(|row| {
                if self.json {
                    format!("{}\n", summary(row, self.content))
                } else {
                    line(row, now, self.content)
                }
            });
            if !print_on(&lines.collect::<String>())? {
                break;
            }
        }
        Ok(Answer::Yes)
    }
}

impl Show {
    fn run(self) -> anyhow::Result<Answer> {
        let sources = self.settings.sources();
        let opened = Opened::by(&sources, Access::Operator)?;
        let Some(sid) = self.sid else {
            let id = self.outbound.unwrap_or_default();
            let Some(row) = outgoing::numbered(&opened, id)? else {
                print(&format!(
                    "no message {id} was sent first, or it is forgotten\n"
                ))?;
                return Ok(Answer::No);
            };
            return self.outgoing(&row);
        };
        let Some(row) = find(&opened, sid)? else {
            return match outgoing::called(&opened, sid)? {
                Some(row) => self.outgoing(&row),
                None => unknown(sid),
            };
        };
        let files = files_of(&sources, sid)?;
        if self.json {
            let mut message = whole(&row, self.content);
            message["files"] = json!(files);
            print(&format!("{message}\n"))?;
        } else {
            print(&table(&row, &files, self.content)?)?;
        }
        Ok(Answer::Yes)
    }

    fn outgoing(&self, row: &OutgoingRow) -> anyhow::Result<Answer> {
        if self.json {
            print(&format!("{}\n", outgoing::whole(row, self.content)))?;
        } else {
            print(&outgoing::table(row, self.content)?)?;
        }
        Ok(Answer::Yes)
    }
}

impl Export {
    fn run(self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        let mut filter = MessageFilter {
            limit: PAGE,
            ..MessageFilter::default()
        };
        if self.outbound {
            outgoing::list(&opened, filter, u32::MAX, true, self.content)?;
            return Ok(Answer::Yes);
        }
        loop {
            let rows = opened.wait(opened.store.messages(filter.clone()))?;
            let Some(last) = rows.last() else { break };
            filter.before = Some(last.id);
            let mut text = String::new();
            for row in &rows {
                writeln!(text, "{}", whole(row, self.content))?;
            }
            if !print_on(&text)? {
                break;
            }
        }
        Ok(Answer::Yes)
    }
}

/// The files of a message that `media.save_dir` has kept on this machine.
pub(crate) fn files_of(sources: &Sources, sid: MessageSid) -> anyhow::Result<Vec<PathBuf>> {
    let Some(folder) = MediaSettings::load(sources)?.save else {
        return Ok(Vec::new());
    };
    let files = saved_files(&folder, sid);
    files.with_context(|| format!("media.save_dir names {}", folder.display()))
}

fn find(opened: &Opened, sid: MessageSid) -> anyhow::Result<Option<MessageRow>> {
    let filter = MessageFilter {
        sid: Some(sid),
        limit: 1,
        ..MessageFilter::default()
    };
    Ok(opened.wait(opened.store.messages(filter))?.pop())
}

fn unknown(sid: MessageSid) -> anyhow::Result<Answer> {
    print(&format!(
        "there is no message {sid} in the journal: `replyhook reconcile` fetches what Twilio has and it lacks\n"
    ))?;
    Ok(Answer::No)
}

fn line(row: &MessageRow, now: replyhook::Timestamp, content: bool) -> String {
    let who = row
        .user
        .as_ref()
        .map_or_else(|| "-".to_owned(), |address| user(address, content));
    let reason = reason(row).or_else(|| {
        row.handed_over_until
            .filter(|until| *until > now)
            .map(|_| "its conversation is handed over".to_owned())
    });
    let (age, reason) = (age(row.received_at, now), reason.unwrap_or_default());
    let line = format!("{} {:<8} {who:<12} {age:>4} {reason}", row.sid, row.state);
    let mut text = format!("{}\n", printable(&line));
    if content {
        for said in texts(row) {
            text += "  ";
            text += &said;
            text.push('\n');
        }
    }
    text
}

/// Why a message stands where it stands; where its replies tell, the first that does.
fn reason(row: &MessageRow) -> Option<String> {
    row.reason
        .clone()
        .or_else(|| row.replies.iter().find_map(trouble))
}

fn trouble(reply: &ReplyRow) -> Option<String> {
    let code = reply.error_code.map(meaning);
    match (&reply.reason, code) {
        (Some(reason), Some(code)) => Some(format!("{reason}: {code}")),
        (reason, code) => reason.clone().or(code),
    }
}

/// What a code means, with the code.
fn meaning(code: u32) -> String {
    let meaning = ErrorCode(code)
        .meaning()
        .unwrap_or("not known to this version");
    format!("{meaning} ({code})")
}

/// What somebody said, quoted so that nothing in it commands the terminal.
fn said(who: &str, text: &str) -> String {
    format!("{who}: {text:?}")
}

/// What was said, a line each.
fn texts(row: &MessageRow) -> Vec<String> {
    let body = row
        .params
        .as_ref()
        .map(|params| said("user", &body(params)));
    let answer = row.answer.as_ref().map(|answer| said("answer", &answer.0));
    let replies = row.replies.iter().filter_map(|reply| reply.params.as_ref());
    body.into_iter()
        .chain(answer)
        .chain(replies.map(|params| said("reply", &body_of_reply(params))))
        .collect()
}

fn form(params: &TakenParams) -> Form {
    Form::parse(params.0.as_bytes(), usize::MAX).unwrap_or_default()
}

fn body(params: &TakenParams) -> String {
    form(params).get("Body").unwrap_or_default().to_owned()
}

/// A template has no text of ours.
fn body_of_reply(params: &TakenParams) -> String {
    let form = form(params);
    let text = form.get("Body").or_else(|| form.get("ContentSid"));
    text.unwrap_or_default().to_owned()
}

/// What a line of `list --json` holds.
fn summary(row: &MessageRow, content: bool) -> Value {
    let replies = row.replies.iter().map(|reply| {
        let sid = reply.sid.as_ref().map(MessageSid::as_str);
        let mut line = json!({"id": reply.id, "state": reply.state.as_str(), "sid": sid, "error_code": reply.error_code});
        if content {
            line["body"] = json!(reply.params.as_ref().map(body_of_reply));
        }
        line
    });
    let mut line = json!({
        "message_sid": row.sid.as_str(),
        "state": row.state,
        "attempt": row.attempt,
        "user": row.user.as_ref().map(|address| user(address, content)),
        "received_at": row.received_at.to_string(),
        "replies": replies.collect::<Vec<_>>(),
    });
    if content {
        line["body"] = json!(row.params.as_ref().map(body));
        line["answer"] = json!(row.answer.as_ref().map(|answer| &answer.0));
    }
    line
}

/// The same with everything else that is known.
fn whole(row: &MessageRow, content: bool) -> Value {
    let mut line = summary(row, content);
    line["account_sid"] = json!(row.account.as_str());
    line["reason"] = json!(row.reason);
    line["handed_over_until"] = json!(row.handed_over_until.map(|until| until.to_string()));
    for (reply, line) in row
        .replies
        .iter()
        .zip(line["replies"].as_array_mut().into_iter().flatten())
    {
        line["status"] = json!(reply.status);
        line["reason"] = json!(reply.reason);
    }
    if content {
        let params = row.params.as_ref().map(form);
        let pairs = params.as_ref().map(|form| form.iter().collect::<Vec<_>>());
        line["params"] = json!(pairs);
    }
    line
}

fn table(row: &MessageRow, files: &[PathBuf], content: bool) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let who = row
        .user
        .as_ref()
        .map_or_else(|| "deleted".to_owned(), |address| user(address, content));
    writeln!(text, "message   {}", row.sid)?;
    writeln!(text, "account   {}", row.account)?;
    writeln!(text, "user      {who}")?;
    writeln!(
        text,
        "received  {:.0}, {} ago",
        row.received_at,
        age(row.received_at, now())
    )?;
    writeln!(text, "state     {}", row.state)?;
    writeln!(text, "attempt   {}", row.attempt)?;
    if let Some(reason) = &row.reason {
        writeln!(text, "reason    {reason}")?;
    }
    if let Some(until) = row.handed_over_until {
        writeln!(text, "handover  its conversation, until {until:.0}")?;
    }
    for file in files {
        let bytes = file.metadata().map_or(0, |about| about.len());
        writeln!(text, "file      {} ({bytes} bytes)", file.display())?;
    }
    for (ordinal, reply) in row.replies.iter().enumerate() {
        writeln!(text, "reply {:<3} {}", ordinal + 1, reply.state.as_str())?;
        if let Some(sid) = &reply.sid {
            writeln!(text, "          SID {sid}")?;
        }
        if let Some(status) = &reply.status {
            writeln!(text, "          Twilio says {status}")?;
        }
        if let Some(code) = reply.error_code {
            writeln!(text, "          error: {}", meaning(code))?;
        }
        if let Some(reason) = &reply.reason {
            writeln!(text, "          reason: {reason}")?;
        }
        if reply.state == ReplyState::Held {
            writeln!(
                text,
                "          `replyhook messages release {}` sends it",
                row.sid
            )?;
        }
    }
    let mut text = format!("{}\n", printable(&text));
    if content {
        for said in texts(row) {
            writeln!(text, "{said}")?;
        }
    }
    Ok(text)
}
