use std::fmt::Write;
use std::path::{Path, PathBuf};

use replyhook::handler::RulesFile;

use crate::{Answer, print};

#[derive(clap::Args)]
#[command(after_help = "\
Exit code 0 if every example goes as the file says, 1 if one does not, 2 if the file has problems.

Example:
  replyhook rules test bot.toml")]
pub(crate) struct Rules {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run the examples that stand in a file of rules
    Test {
        /// File of rules
        file: PathBuf,
    },
}

impl Rules {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let Command::Test { file } = self.command;
        let rules = read(&file)?;
        let results = rules.set()?.run_examples();
        if results.is_empty() {
            print("no example: write [[example]] with says and gets\n")?;
            return Ok(Answer::Yes);
        }
        let mut text = String::new();
        let mut failed = 0;
        for result in &results {
            match &result.failure {
                None => writeln!(text, "ok      {}", result.name)?,
                Some(failure) => {
                    failed += 1;
                    writeln!(text, "failed  {}", result.name)?;
                    let line = format!("{}:{}", file.display(), failure.line);
                    writeln!(text, "        {line}: expected {}", failure.expected)?;
                    writeln!(
                        text,
                        "        {:>width$}  found    {}",
                        "",
                        failure.found,
                        width = line.len()
                    )?;
                }
            }
        }
        writeln!(
            text,
            "{} of {} examples went as the file says",
            results.len() - failed,
            results.len()
        )?;
        print(&text)?;
        Ok(if failed == 0 { Answer::Yes } else { Answer::No })
    }
}

/// Reads a file of rules; each of its problems is told with the file's name before it.
pub(crate) fn read(file: &Path) -> anyhow::Result<RulesFile> {
    RulesFile::read(file).map_err(|error| {
        let lines = error.to_string().replace('\n', "\n  ");
        anyhow::anyhow!("{} has problems:\n  {lines}", file.display())
    })
}
