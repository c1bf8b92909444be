use std::fmt::Write;
use std::path::{Path, PathBuf};

use replyhook::handler::{ExampleResult, RulesFile};

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
    /// Run the examples that stand in files of rules
    Test {
        /// Files of rules
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

impl Rules {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let Command::Test { files } = self.command;
        // One that cannot be used is told before any is tried.
        let rules: anyhow::Result<Vec<_>> = files.iter().map(|file| read(file)).collect();
        let mut text = String::new();
        let mut all_went_well = true;
        for (file, rules) in files.iter().zip(rules?) {
            let results = rules.set()?.run_examples();
            all_went_well &= results.iter().all(|result| result.failure.is_none());
            write_results(&mut text, file, &results)?;
        }
        print(&text)?;
        Ok(if all_went_well {
            Answer::Yes
        } else {
            Answer::No
        })
    }
}

fn write_results(text: &mut String, file: &Path, results: &[ExampleResult]) -> std::fmt::Result {
    let name = file.display();
    if results.is_empty() {
        return writeln!(
            text,
            "{name}: no example: write [[example]] with says and gets"
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
    let went_well = results.iter().filter(|result| result.failure.is_none());
    writeln!(
        text,
        "{name}: {} of {} went as the file says",
        went_well.count(),
        examples(results.len())
    )
}

/// As it is said of a number of them.
pub(crate) fn examples(number: usize) -> String {
    match number {
        1 => "1 example".to_owned(),
        _ => format!("{number} examples"),
    }
}

/// Reads a file of rules; each of its problems is told with the file's name before it.
pub(crate) fn read(file: &Path) -> anyhow::Result<RulesFile> {
    RulesFile::read(file).map_err(|error| {
        let lines = error.to_string().replace('\n', "\n  ");
        anyhow::anyhow!("{} has problems:\n  {lines}", file.display())
    })
}
