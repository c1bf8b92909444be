use std::fmt::Write;
use std::path::{Path, PathBuf};

use replyhook::Channel;
use replyhook::config::{ChoicesSettings, ConsentSettings, Sources};
use replyhook::rules::{ExampleResult, ExampleSettings, RulesFile};

use crate::channel_name::parse_channel;
use crate::exit::ExitStatus;
use crate::operator::format_count;
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Exit codes:
  0  all examples passed, without a warning
  1  an example failed, or there are warnings
  2  a file has problems, or usage error

Example:
  replyhook rules test bot.toml
  replyhook rules test bot.toml --channels whatsapp,sms,rcs,messenger")]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(clap::Subcommand)]
enum RulesCommand {
    /// Run the examples of rules files
    Test {
        /// Rules files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Channels on which to run each example that has no `from`: whatsapp, sms, rcs, messenger
        #[arg(long, value_delimiter = ',', value_parser = parse_channel, default_value = "whatsapp")]
        channels: Vec<Channel>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

impl RulesArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let RulesCommand::Test {
            files,
            channels,
            settings,
        } = self.command;
        // Read all files first: an unusable one is reported before any example runs.
        let rules: anyhow::Result<Vec<_>> = files.iter().map(|file| read_rules(file)).collect();
        let sources = settings.sources();
        let (stop_words, start_words) = ConsentSettings::words(&sources);
        let settings = example_settings(&sources)?;
        let mut text = String::new();
        let mut has_failures = false;
        let mut warnings = 0;
        for (file, rules) in files.iter().zip(rules?) {
            for warning in rules.set()?.warnings(&stop_words, &start_words) {
                warnings += 1;
                writeln!(text, "warning: {}: {warning}", file.display())?;
            }
            for channel in &channels {
                let results = rules.set()?.run_examples_with(channel, &settings);
                has_failures |= results.iter().any(|result| result.failure.is_some());
                if channels.len() > 1 {
                    writeln!(text, "on {}:", channel.as_str())?;
                }
                write_results(&mut text, file, &results)?;
            }
        }
        if warnings > 0 {
            let warnings = format_count(warnings, "warning");
            writeln!(text, "{warnings}, so the exit code is 1")?;
        }
        print(&text)?;
        Ok(if has_failures || warnings > 0 {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }
}

/// Returns the settings that examples depend on: those of the server, from the same sources.
fn example_settings(sources: &Sources) -> anyhow::Result<ExampleSettings> {
    let choices = ChoicesSettings::load(sources)?;
    let mut settings = ExampleSettings::default();
    settings.choices_button = choices.button;
    settings.choices_ttl = choices.ttl;
    Ok(settings)
}

fn write_results(text: &mut String, file: &Path, results: &[ExampleResult]) -> std::fmt::Result {
    let name = file.display();
    if results.is_empty() {
        return writeln!(
            text,
            "{name}: no examples; add [[example]] with says and gets"
        );
    }
    for ExampleResult { name, failure, .. } in results {
        let Some(failure) = failure else {
            writeln!(text, "ok      {name}")?;
            continue;
        };
        let line = format!("{}:{}", file.display(), failure.line);
        let indent = " ".repeat(line.len());
        writeln!(text, "failed  {name}")?;
        writeln!(text, "        {line}: expected {}", failure.expected)?;
        writeln!(text, "        {indent}  found    {}", failure.found)?;
    }
    let passed = results.iter().filter(|result| result.failure.is_none());
    writeln!(
        text,
        "{name}: {} of {} passed",
        passed.count(),
        format_count(results.len() as u64, "example")
    )
}

/// Reads a rules file. The error has the file's name and all problems.
pub(crate) fn read_rules(file: &Path) -> anyhow::Result<RulesFile> {
    RulesFile::read(file).map_err(|error| {
        let lines = error.to_string().replace('\n', "\n  ");
        anyhow::anyhow!("{} has problems:\n  {lines}", file.display())
    })
}
