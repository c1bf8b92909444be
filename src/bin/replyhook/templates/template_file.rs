//! [`TemplateFile`]: the templates of a file, and their findings.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use replyhook::Channel;
use replyhook_core::template::{
    TemplateFinding, lint_channels, lint_template, repeated_templates, templates_of,
};
use serde_json::{Value, json};

use crate::operator::format_count;
use crate::print::printable;

/// Templates of a file in JSON or TOML.
pub(super) struct TemplateFile {
    path: PathBuf,
    pub(super) templates: Vec<Value>,
}

impl TemplateFile {
    /// Reads a file. The ending `.toml` means TOML, any other one JSON.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        // Editors on Windows write it.
        let text = text.trim_start_matches('\u{FEFF}');
        let is_toml = path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("toml"));
        let value = if is_toml {
            toml::from_str(text).map_err(|error| {
                let line = error
                    .span()
                    .map_or(1, |span| text[..span.start].lines().count().max(1));
                anyhow!("{name} is invalid TOML: {} at line {line}", error.message())
            })?
        } else {
            serde_json::from_str(text)
                .map_err(|error| anyhow!("{name} is invalid JSON: {error}"))?
        };
        let templates = templates_of(value).map_err(|problem| anyhow!("{name}: {problem}"))?;
        Ok(Self {
            path: path.to_owned(),
            templates,
        })
    }

    /// Returns the findings of all templates, each with the index of its template.
    pub(super) fn findings(
        &self,
        is_submitted: bool,
        channels: &[Channel],
    ) -> Vec<(usize, TemplateFinding)> {
        let templates = self.templates.iter().enumerate();
        let findings = templates.flat_map(|(index, template)| {
            let findings = lint_template(template, is_submitted).into_iter();
            let findings = findings.chain(lint_channels(template, channels));
            findings.map(move |finding| (index, finding))
        });
        let mut findings: Vec<_> = findings
            .chain(repeated_templates(&self.templates))
            .collect();
        findings.sort_by_key(|(index, _)| *index);
        findings
    }

    /// Formats findings, and their number.
    pub(super) fn format(
        &self,
        findings: &[(usize, TemplateFinding)],
    ) -> Result<String, std::fmt::Error> {
        let file = self.path.display();
        let mut text = String::new();
        for (index, finding) in findings {
            let TemplateFinding {
                path,
                reason,
                remedy,
                ..
            } = finding;
            let line = format!("{file}: {}: {path}: {reason}", self.label(*index));
            writeln!(text, "{}\n  {}", one_line(&line), one_line(remedy))?;
        }
        let number = match findings.len() {
            0 => "no findings".to_owned(),
            number => format_count(number as u64, "finding"),
        };
        let templates = format_count(self.templates.len() as u64, "template");
        writeln!(text, "{file}: {templates}, {number}")?;
        Ok(text)
    }

    /// Formats findings as JSON, one object a line.
    pub(super) fn format_json(
        &self,
        findings: &[(usize, TemplateFinding)],
    ) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        for (index, finding) in findings {
            let TemplateFinding {
                path,
                reason,
                remedy,
                ..
            } = finding;
            let template = &self.templates[*index];
            let line = json!({"file": self.path.display().to_string(), "template": template["friendly_name"],
                "language": template["language"], "path": path, "reason": reason, "remedy": remedy});
            writeln!(text, "{line}")?;
        }
        Ok(text)
    }

    /// Returns name and language of a template, else its number in the file.
    fn label(&self, index: usize) -> String {
        let text = |name: &str| self.templates[index].get(name).and_then(Value::as_str);
        match (text("friendly_name"), text("language")) {
            (Some(name), Some(language)) => format!("{name} ({language})"),
            (Some(name), None) => name.to_owned(),
            _ => format!("template {}", index + 1),
        }
    }
}

fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}
