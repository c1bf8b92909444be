//! `templates create`: creates the templates of a file at Twilio, and submits them to WhatsApp.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use replyhook::twilio::{Approval, ApprovalStatus, Contents, StoredTemplate};
use replyhook_core::template::{DeclaredTemplate, is_same_content};

use super::content_api::content_api;
use super::template_file::TemplateFile;
use crate::exit::{ExitStatus, Failed};
use crate::print::{print, printable};
use crate::runtime::runtime;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
pub(super) struct CreateTemplatesArgs {
    /// File with templates: TOML if the name ends in .toml, else JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Submit the templates to WhatsApp for approval, unless they are submitted
    #[arg(long)]
    submit: bool,
    /// Create the templates although `lint` has findings; Twilio and WhatsApp decide
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A template of the file, and the one with the same name, language and content at Twilio.
struct TemplatePlan {
    declared: DeclaredTemplate,
    existing: Option<StoredTemplate>,
}

impl CreateTemplatesArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitStatus> {
        let file = TemplateFile::read(&self.file)?;
        let findings = file.findings(self.submit, &[]);
        if !findings.is_empty() {
            // If standard error is closed, the exit code is left.
            let _ = std::io::stderr().write_all(file.format(&findings)?.as_bytes());
            if !self.force {
                let hint = "nothing was created: correct the file, or use --force";
                return Err(Failed(hint.to_owned()).into());
            }
        }
        let declared: Result<Vec<_>, _> =
            file.templates.iter().map(DeclaredTemplate::read).collect();
        let declared = declared.map_err(|finding| {
            anyhow!(
                "{}: {}: {}",
                self.file.display(),
                finding.path,
                finding.reason
            )
        })?;
        if self.submit && declared.iter().any(|template| template.category.is_none()) {
            bail!("a template without `category` cannot be submitted");
        }
        let (client, credentials) = content_api(&self.settings)?;
        let contents = client.contents(&credentials);
        runtime()?.block_on(self.create_all(&contents, declared))
    }

    async fn create_all(
        &self,
        contents: &Contents<'_>,
        declared: Vec<DeclaredTemplate>,
    ) -> anyhow::Result<ExitStatus> {
        let names: Vec<_> = declared
            .iter()
            .map(|template| template.friendly_name.as_str())
            .collect();
        let stored = contents.find_stored(&names).await.map_err(Failed::from)?;
        // Compare all templates first: with a conflict, nothing is created.
        let (plans, conflicts) = plan(declared, &stored);
        if !conflicts.is_empty() {
            let conflicts = conflicts.join("\n");
            return Err(Failed(format!("{conflicts}\nnothing was created")).into());
        }
        let mut status = ExitStatus::Yes;
        for plan in plans {
            let name = plan.declared.friendly_name.clone();
            // A line for each template before the next call: after a failure, the operator sees how far it came.
            let approval = self.create_one(contents, plan).await;
            let approval = approval.map_err(|Failed(error)| {
                let error = format!(
                    "{name}: {error}\nthe same command again continues: it keeps what exists"
                );
                Failed(error)
            })?;
            let is_refused = approval.is_some_and(|approval| {
                matches!(
                    approval.status,
                    ApprovalStatus::Rejected | ApprovalStatus::Paused | ApprovalStatus::Disabled
                )
            });
            if self.submit && is_refused {
                status = ExitStatus::No;
            }
        }
        Ok(status)
    }

    /// Creates and submits a template as far as necessary, prints it, and returns its approval, if it was submitted.
    async fn create_one(
        &self,
        contents: &Contents<'_>,
        plan: TemplatePlan,
    ) -> Result<Option<Approval>, Failed> {
        let TemplatePlan { declared, existing } = plan;
        let (sid, state, known) = match existing {
            Some(stored) => (stored.sid, "exists", Some(stored.approval)),
            None => (contents.create(&declared.content).await?, "made", None),
        };
        let known = known.filter(|approval| approval.status != ApprovalStatus::Unsubmitted);
        let approval = match &declared.category {
            Some(category) if self.submit && known.is_none() => {
                let submitted = contents.submit(&sid, &declared.whatsapp_name, category);
                submitted.await.map(Some)
            }
            _ => Ok(known),
        };
        let shown = match &approval {
            Ok(Some(approval)) => approval.to_string(),
            Ok(None) | Err(_) => ApprovalStatus::Unsubmitted.as_str().to_owned(),
        };
        let DeclaredTemplate {
            friendly_name,
            language,
            ..
        } = &declared;
        let line = format!("{sid} {state:6} {friendly_name} {language} {shown}");
        let line = printable(&line).replace(['\n', '\t'], " ") + "\n";
        print(&line).map_err(|error| Failed(error.to_string()))?;
        Ok(approval?)
    }
}

/// Finds the template at Twilio for each declared one, and describes each whose content differs.
fn plan(
    declared: Vec<DeclaredTemplate>,
    stored: &[StoredTemplate],
) -> (Vec<TemplatePlan>, Vec<String>) {
    let mut plans = Vec::new();
    let mut conflicts = Vec::new();
    for declared in declared {
        let named: Vec<_> = stored
            .iter()
            .filter(|stored| {
                stored.name == declared.friendly_name && stored.language == declared.language
            })
            .collect();
        let same = named
            .iter()
            .find(|stored| is_same_content(&declared.content, &stored.types, &stored.variables));
        if let (None, Some(other)) = (same, named.first()) {
            conflicts.push(format!(
                "{} ({}) exists at Twilio as {} with another content; rename the template in the file, or delete that one",
                declared.friendly_name, declared.language, other.sid
            ));
        }
        let existing = same.map(|stored| (*stored).clone());
        plans.push(TemplatePlan { declared, existing });
    }
    (plans, conflicts)
}
