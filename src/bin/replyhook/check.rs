use std::fmt::Write;
use std::path::{Path, PathBuf};

use replyhook::config::{ConsentSettings, Settings, Sources};
use replyhook::store::StoreUrl;
use replyhook::store::sqlite::file_warnings;

use crate::exit::ExitStatus;
use crate::operator::format_count;
use crate::opt_out_advice::opt_out_advice;
use crate::print::print;
use crate::rules;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Exit codes:
  0  no problems; without --rules, there may be warnings
  1  the rules file has warnings
  2  problems, or usage error

Examples:
  replyhook check --config replyhook.toml
  replyhook check --all                   also print each setting with its value and source
  replyhook check --rules bot.toml        check only a rules file, and print its table of routes")]
pub(crate) struct Check {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Check only this rules file
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    rules: Option<PathBuf>,
    /// Print the effective value and the source of each setting, too
    #[arg(long, conflicts_with = "rules")]
    all: bool,
}

impl Check {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        if let Some(file) = &self.rules {
            return check_rules(file, &self.settings.sources());
        }
        let sources = self.settings.sources();
        let loaded = match Settings::load(&sources) {
            Ok(loaded) => loaded,
            Err(problems) => {
                // The effective values help to find the cause.
                print(&self.effective_values(&sources)?)?;
                return Err(problems.into());
            }
        };
        let mut findings = String::new();
        for warning in &loaded.warnings {
            writeln!(findings, "warning: {warning}")?;
        }
        if let StoreUrl::Sqlite(path) = &loaded.settings.store.url {
            for warning in file_warnings(path) {
                writeln!(findings, "warning: store.url: {warning}")?;
            }
        }
        let warnings = findings.lines().count();
        let own_numbers = loaded.settings.guard.own_numbers.iter();
        for advice in opt_out_advice(&loaded.settings, own_numbers) {
            writeln!(findings, "note: {}: {}", advice.found, advice.remedy)?;
        }
        let mut text = match warnings {
            0 => "no problem\n".to_owned(),
            _ => format!("no problem, {}\n", format_count(warnings as u64, "warning")),
        };
        text.push_str(&findings);
        let url = &loaded.settings.server.public_url;
        writeln!(text, "\nEnter in Twilio's console:")?;
        for (name, path) in url.paths().named() {
            writeln!(text, "  {name:9} {}", url.endpoint(path))?;
        }
        let values = self.effective_values(&sources)?;
        if !values.is_empty() {
            write!(text, "\n{values}")?;
        }
        print(&text)?;
        Ok(ExitStatus::Yes)
    }

    /// Returns a line for each setting with `--all`, and otherwise nothing.
    fn effective_values(&self, sources: &Sources) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        if self.all {
            for (key, value, origin) in Settings::effective(sources) {
                writeln!(text, "{key} = {value}  # {origin}")?;
            }
        }
        Ok(text)
    }
}

fn check_rules(file: &Path, sources: &Sources) -> anyhow::Result<ExitStatus> {
    let rules = rules::read_rules(file)?.set()?;
    let examples = rules.examples();
    let (stop_words, start_words) = ConsentSettings::words(sources);
    let warnings = rules.warnings(&stop_words, &start_words);
    let mut text = format!("{}\n\n", rules.table());
    for warning in &warnings {
        writeln!(text, "warning: {}: {warning}", file.display())?;
    }
    match warnings.len() {
        0 => text.push_str("no problem"),
        count => text.push_str(&format_count(count as u64, "warning")),
    }
    match examples {
        0 => writeln!(text, ", and no example")?,
        _ => writeln!(
            text,
            "; {}: replyhook rules test {}",
            format_count(examples as u64, "example"),
            file.display()
        )?,
    }
    print(&text)?;
    Ok(if warnings.is_empty() {
        ExitStatus::Yes
    } else {
        ExitStatus::No
    })
}
