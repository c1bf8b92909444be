//! `templates lint`: checks templates without a call of Twilio.

use std::path::PathBuf;

use replyhook::Channel;

use super::template_file::TemplateFile;
use crate::channel_name::parse_channel;
use crate::exit::ExitStatus;
use crate::print::print;

#[derive(clap::Args)]
pub(super) struct LintTemplatesArgs {
    /// Files with templates: TOML if the name ends in .toml, else JSON
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Require what a submission to WhatsApp needs too, such as a category
    #[arg(long)]
    submit: bool,
    /// Channels that each template is sent on: whatsapp, sms, rcs, messenger
    #[arg(long, value_delimiter = ',', value_parser = parse_channel)]
    channels: Vec<Channel>,
    /// Print one JSON object per finding
    #[arg(long)]
    json: bool,
}

impl LintTemplatesArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitStatus> {
        // Read all files first: an unreadable one is reported before any finding.
        let files: anyhow::Result<Vec<_>> = self
            .files
            .iter()
            .map(|file| TemplateFile::read(file))
            .collect();
        let mut text = String::new();
        let mut status = ExitStatus::Yes;
        for file in files? {
            let findings = file.findings(self.submit, &self.channels);
            if !findings.is_empty() {
                status = ExitStatus::No;
            }
            text += &if self.json {
                file.format_json(&findings)?
            } else {
                file.format(&findings)?
            };
        }
        print(&text)?;
        Ok(status)
    }
}
