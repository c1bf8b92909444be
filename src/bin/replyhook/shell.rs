//! Shell completions and manual pages, generated from the clap definitions.

use std::path::PathBuf;

use anyhow::Context;

use crate::exit::ExitStatus;
use crate::print::print;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  replyhook completions bash > /etc/bash_completion.d/replyhook")]
pub(crate) struct Completions {
    /// Shell: bash, elvish, fish, powershell or zsh
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self, mut command: clap::Command) -> anyhow::Result<ExitStatus> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "replyhook", &mut script);
        print(&String::from_utf8(script)?)?;
        Ok(ExitStatus::Yes)
    }
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  replyhook man | man -l -\n  replyhook man --dir /usr/local/share/man/man1"
)]
pub(crate) struct Man {
    /// Write the manual pages of all commands into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, command: clap::Command) -> anyhow::Result<ExitStatus> {
        if let Some(dir) = self.dir {
            clap_mangen::generate_to(command, &dir).with_context(|| dir.display().to_string())?;
            return Ok(ExitStatus::Yes);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        print(&String::from_utf8(page)?)?;
        Ok(ExitStatus::Yes)
    }
}
