use std::fmt::Write;
use std::path::{Path, PathBuf};

use replyhook::config::{ConsentSettings, Settings, Sources};
use replyhook::store::StoreUrl;
use replyhook::store::sqlite::file_warnings;

use crate::exit::ExitStatus;
use crate::opt_out_advice::opt_out_advice;
use crate::print::print;
use crate::rules;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Exit codes:
  0  no problems; there may be warnings
  2  problems, or usage error

Examples:
  replyhook check --config replyhook.toml
  replyhook check --rules bot.toml        check only a rules file, and print its table of routes")]
pub(crate) struct Check {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Check only this rules file
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    rules: Option<PathBuf>,
}

impl Check {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        if let Some(file) = &self.rules {
            return check_rules(file, &self.settings.sources());
        }
        let sources = self.settings.sources();
        let mut text = String::new();
        for (key, value, origin) in Settings::effective(&sources) {
            writeln!(text, "{key} = {value}  # {origin}")?;
        }
        // Before `load`, which may fail: the effective values help to find the cause.
        print(&text)?;
        let loaded = Settings::load(&sources)?;
        let mut text = String::new();
        for warning in &loaded.warnings {
            writeln!(text, "warning: {warning}")?;
        }
        if let StoreUrl::Sqlite(path) = &loaded.settings.store.url {
            for warning in file_warnings(path) {
                writeln!(text, "warning: store.url: {warning}")?;
            }
        }
        let own_numbers = loaded.settings.guard.own_numbers.iter();
        for advice in opt_out_advice(&loaded.settings, own_numbers) {
            writeln!(text, "note: {}: {}", advice.found, advice.remedy)?;
        }
        let url = &loaded.settings.server.public_url;
        writeln!(text, "\nno problem. Enter in Twilio's console:")?;
        for (name, path) in url.paths().named() {
            writeln!(text, "  {name:9} {}", url.endpoint(path))?;
        }
        print(&text)?;
        Ok(ExitStatus::Yes)
    }
}

fn check_rules(file: &Path, sources: &Sources) -> anyhow::Result<ExitStatus> {
    let rules = rules::read_rules(file)?.set()?;
    let examples = rules.examples();
    let (stop_words, start_words) = ConsentSettings::words(sources);
    let warnings = rules.warnings(&stop_words, &start_words);
    let mut text = format!("{}\n\n", rules.table());
    for warning in warnings {
        writeln!(text, "warning: {}: {warning}", file.display())?;
    }
    text.push_str("no problem");
    match examples {
        0 => writeln!(text, ", and no example")?,
        _ => writeln!(
            text,
            "; {}: replyhook rules test {}",
            rules::format_example_count(examples),
            file.display()
        )?,
    }
    print(&text)?;
    Ok(ExitStatus::Yes)
}
