use std::fmt::Write;

use anyhow::anyhow;
use replyhook::config::SenderSettings;
use replyhook::twilio::{Client, Template};
use serde_json::json;

use crate::{Answer, Failed, SettingsArgs, print, printable, runtime};

#[derive(clap::Args)]
#[command(after_help = "\
Asks Twilio (twilio.content_url) with TWILIO_ACCOUNT_SID and its auth token or API key. Outside of the 24-hour window WhatsApp
takes only templates that are approved; `replyhook send` refuses others.

Exit code 0, also where there is none; 1 if Twilio does not answer.

Example:
  replyhook templates --json | jq -r 'select(.status == \"approved\") | .content_sid'")]
pub(crate) struct Templates {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Templates {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let settings = SenderSettings::load(&self.settings.sources())?;
        let credentials = settings.credentials.ok_or_else(|| {
            anyhow!("TWILIO_AUTH_TOKEN is missing, and so are twilio.api_key_sid and twilio.api_key_secret: Twilio is asked with them")
        })?;
        let client = Client::new(settings.content_url);
        let templates = runtime()?.block_on(client.templates(&credentials));
        let mut templates = templates.map_err(Failed::from)?;
        templates.sort_by(|a, b| (&a.name, &a.language).cmp(&(&b.name, &b.language)));
        let mut text = String::new();
        for template in &templates {
            if self.json {
                writeln!(text, "{}", whole(template))?;
            } else {
                text.push_str(&line(template));
            }
        }
        print(&text)?;
        Ok(Answer::Yes)
    }
}

fn whole(template: &Template) -> serde_json::Value {
    json!({"name": template.name, "content_sid": template.sid, "language": template.language, "types": template.types,
        "status": template.approval.status.as_str(), "category": template.approval.category,
        "reason": template.approval.reason, "variables": template.variables})
}

fn line(template: &Template) -> String {
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
