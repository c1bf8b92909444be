//! `templates`: lists, checks and creates templates.

mod content_api;
mod create;
mod lint;
mod template_file;

use std::fmt::Write;

use replyhook::twilio::Template;
use replyhook::{Address, Channel};
use serde_json::json;

use self::content_api::content_api;
use self::create::CreateTemplatesArgs;
use self::lint::LintTemplatesArgs;
use crate::exit::{ExitStatus, Failed};
use crate::print::{print, printable};
use crate::runtime::runtime;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Reads the templates from Twilio (twilio.content_url) with TWILIO_ACCOUNT_SID and its auth token or API key. Outside of
the customer service window, WhatsApp accepts only approved templates, and `replyhook send` rejects others.

Exit codes:
  0  listed, even if there are none
  1  Twilio rejected the request or did not respond
  2  usage or configuration error

Examples:
  replyhook templates create templates.toml --submit
  replyhook templates --json | jq -r 'select(.status == \"approved\") | .content_sid'"
)]
pub(crate) struct TemplatesArgs {
    #[command(subcommand)]
    command: Option<TemplatesCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(clap::Subcommand)]
enum TemplatesCommand {
    /// List templates, their variables and WhatsApp's approval (default)
    List(ListArgs),
    /// Make the content resources for questions with choices and link buttons, unless they exist
    #[command(after_help = "\
Makes 14 resources for WhatsApp: 1 to 3 buttons, lists of 1 to 10 rows, and a link button. Messenger needs 1 to 10 buttons
and a link button, RCS 1 to 11 chips and a link card. The server makes a missing one for the first message that needs it.

Exit codes:
  0  all exist
  1  Twilio rejected a request or did not respond; a second call makes the rest
  2  usage or configuration error

Examples:
  replyhook templates prepare
  replyhook templates prepare --channels whatsapp,messenger,rcs --descriptions")]
    Prepare(PrepareArgs),
    /// Check the templates of files, without a call of Twilio
    #[command(after_help = "\
A file has a template, or a list of templates, in the JSON of Twilio's Content API (POST /v1/Content): friendly_name,
language, variables with samples, types. The keys category and name are for the submission to WhatsApp. TOML has the same
keys, with several templates as [[templates]].

The rules are those of Twilio and of WhatsApp's approval: variables, samples, lengths, buttons, names, language codes,
categories, and opt-out keywords of SMS as titles.

Exit codes:
  0  no findings
  1  findings
  2  a file cannot be read, or usage error

Examples:
  replyhook templates lint templates.toml
  replyhook templates lint order.json --submit --json")]
    Lint(LintTemplatesArgs),
    /// Create the templates of a file at Twilio, and submit them to WhatsApp
    #[command(after_help = "\
Checks the file as `templates lint` does, and creates nothing if there are findings. A template that exists with the same
name, language and content is not created again. If a template with that name and language has other content, nothing
is created.

Exit codes:
  0  all exist
  1  findings, another content at Twilio, or Twilio rejected a request or did not respond; with --submit also a template
     that WhatsApp has rejected, paused or disabled
  2  the file cannot be read, usage or configuration error

Examples:
  replyhook templates create templates.toml
  replyhook templates create templates.toml --submit")]
    Create(CreateTemplatesArgs),
}

#[derive(clap::Args)]
struct PrepareArgs {
    /// Channels of your senders
    #[arg(long, value_name = "CHANNELS", value_delimiter = ',', default_value = "whatsapp", value_parser = ["whatsapp", "messenger", "rcs"])]
    channels: Vec<String>,
    /// Also make lists whose rows have descriptions (WhatsApp): 10 resources more
    #[arg(long)]
    descriptions: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct ListArgs {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl TemplatesArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.command {
            None => self.list.run(),
            Some(TemplatesCommand::List(list)) => list.run(),
            Some(TemplatesCommand::Prepare(prepare)) => prepare.run(),
            Some(TemplatesCommand::Lint(lint)) => lint.run(),
            Some(TemplatesCommand::Create(create)) => create.run(),
        }
    }
}

impl PrepareArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let (client, credentials) = content_api(&self.settings)?;
        let channels: Vec<_> = self.channels.iter().map(|name| channel(name)).collect();
        let contents = client.contents(&credentials);
        let prepared = runtime()?.block_on(contents.prepare_choices(&channels, self.descriptions));
        let mut text = String::new();
        for content in prepared.map_err(Failed::from)? {
            let state = if content.is_new { "made" } else { "exists" };
            writeln!(text, "{} {state:6} {}", content.sid, content.name)?;
        }
        print(&text)?;
        Ok(ExitStatus::Yes)
    }
}

fn channel(name: &str) -> Channel {
    // The channel of any address with this prefix.
    Address::parse(format!("{name}:x")).channel().clone()
}

impl ListArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let (client, credentials) = content_api(&self.settings)?;
        let templates = runtime()?.block_on(client.contents(&credentials).list());
        let mut templates = templates.map_err(Failed::from)?;
        templates.sort_by(|a, b| (&a.name, &a.language).cmp(&(&b.name, &b.language)));
        let mut text = String::new();
        for template in &templates {
            if self.json {
                writeln!(text, "{}", template_json(template))?;
            } else {
                text.push_str(&format_line(template));
            }
        }
        print(&text)?;
        Ok(ExitStatus::Yes)
    }
}

fn template_json(template: &Template) -> serde_json::Value {
    json!({"name": template.name, "content_sid": template.sid, "language": template.language, "types": template.types,
        "status": template.approval.status.as_str(), "category": template.approval.category,
        "reason": template.approval.reason, "variables": template.variables})
}

fn format_line(template: &Template) -> String {
    let variables = template.variables.iter();
    let variables: Vec<_> = variables
        .map(|(name, sample)| format!("{name}={sample:?}"))
        .collect();
    let line = format!(
        "{} {} {} {} {}",
        template.sid,
        template.name,
        template.language,
        template.approval,
        variables.join(" ")
    );
    printable(&line).replace('\n', " ") + "\n"
}
