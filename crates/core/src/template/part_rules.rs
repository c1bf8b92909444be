//! [`TypeLint`]: checks of the parts of one content type, such as its texts and URLs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::body_rules::check_body;
use super::finding::TemplateFinding;
use super::limits::{MAX_MEDIA, MAX_URL};
use super::placeholders::{Samples, TextPiece, text_pieces};
use crate::reply::is_web_url;

/// Part of a template, with its path.
#[derive(Clone)]
pub(super) struct TemplatePart<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> TemplatePart<'a> {
    /// Returns a field; `None` without it.
    // Null means the same as a missing field: Twilio's libraries send it for every field that is not set.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self {
            path: self.path_of(name),
            value,
        })
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    fn items(&self) -> Option<Vec<Self>> {
        let items = self.value.as_array()?.iter().enumerate();
        let items = items.map(|(index, value)| Self {
            path: format!("{}[{index}]", self.path),
            value,
        });
        Some(items.collect())
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }
}

/// Checks of one content type.
pub(super) struct TypeLint<'a> {
    pub(super) samples: &'a Samples,
    /// True if WhatsApp's approval sees this type.
    pub(super) is_approved_type: bool,
    pub(super) findings: &'a mut Vec<TemplateFinding>,
}

impl TypeLint<'_> {
    pub(super) fn add(
        &mut self,
        path: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let finding = TemplateFinding::new(path, reason, remedy);
        self.findings.push(finding);
    }

    /// Returns a field that must exist.
    pub(super) fn required<'v>(
        &mut self,
        of: &TemplatePart<'v>,
        name: &str,
    ) -> Option<TemplatePart<'v>> {
        let field = of.field(name);
        if field.is_none() {
            self.add(of.path_of(name), "it is missing", "add it");
        }
        field
    }

    /// Checks a text that must exist, and returns it.
    pub(super) fn required_text<'v>(
        &mut self,
        of: &TemplatePart<'v>,
        name: &str,
        max: usize,
    ) -> Option<&'v str> {
        let part = self.required(of, name)?;
        self.text(&part, max, true)
    }

    /// Checks a text that may be left out, and returns it.
    pub(super) fn optional_text<'v>(
        &mut self,
        of: &TemplatePart<'v>,
        name: &str,
        max: usize,
    ) -> Option<&'v str> {
        let part = of.field(name)?;
        self.text(&part, max, false)
    }

    fn text<'v>(
        &mut self,
        part: &TemplatePart<'v>,
        max: usize,
        is_required: bool,
    ) -> Option<&'v str> {
        let Some(text) = part.text() else {
            self.add(&*part.path, "it is not a text", "write it as a text");
            return None;
        };
        if is_required && text.trim().is_empty() {
            self.add(&*part.path, "it is empty", "write a text");
        }
        // WhatsApp reviews the text with its variables and shows it with their values.
        let filled = self.samples.fill(text).chars().count();
        let length = text.chars().count().max(filled);
        if length > max {
            let reason =
                format!("it has {length} characters with the samples; at most {max} are allowed");
            self.add(&*part.path, reason, "shorten it");
        }
        Some(text)
    }

    /// Checks the body, whose variables WhatsApp reviews.
    pub(super) fn body(
        &mut self,
        of: &TemplatePart<'_>,
        name: &str,
        max: usize,
        is_required: bool,
    ) {
        let text = if is_required {
            self.required_text(of, name, max)
        } else {
            self.optional_text(of, name, max)
        };
        if let Some(text) = text
            && self.is_approved_type
        {
            check_body(&of.path_of(name), text, self.findings);
        }
    }

    /// Returns the entries of a list with 1 to `max` objects or texts.
    pub(super) fn list<'v>(
        &mut self,
        of: &TemplatePart<'v>,
        name: &str,
        max: usize,
    ) -> Vec<TemplatePart<'v>> {
        let Some(part) = self.required(of, name) else {
            return Vec::new();
        };
        let Some(items) = part.items() else {
            self.add(&*part.path, "it is not a list", "write it as a list");
            return Vec::new();
        };
        let number = items.len();
        if !(1..=max).contains(&number) {
            let reason = format!("it has {number} entries; 1 to {max} are allowed");
            self.add(part.path, reason, "add or remove entries");
        }
        items
    }

    /// Checks that no two texts of a list are equal.
    pub(super) fn distinct<'v>(
        &mut self,
        path: &str,
        name: &str,
        texts: impl Iterator<Item = &'v str>,
    ) {
        let mut known = BTreeSet::new();
        let repeated: BTreeSet<_> = texts.filter(|text| !known.insert(*text)).collect();
        if !repeated.is_empty() {
            let reason = format!("two entries have the same `{name}`");
            self.add(path, reason, "make them different");
        }
    }

    /// Checks the URL of a button.
    pub(super) fn button_url(&mut self, of: &TemplatePart<'_>, name: &str) {
        let Some(url) = self.required_text(of, name, MAX_URL) else {
            return;
        };
        let path = of.path_of(name);
        let pieces = text_pieces(url);
        let variables = pieces
            .iter()
            .filter(|piece| matches!(piece, TextPiece::Variable(_)))
            .count();
        match pieces.first() {
            Some(TextPiece::Words(start)) if variables > 0 && !has_path(start) => self.add(
                &*path,
                "the variable is not in the path of the URL",
                "write the domain and a slash before it",
            ),
            Some(TextPiece::Variable(_)) => self.add(
                &*path,
                "the URL begins with a variable",
                "write the domain and a slash before it",
            ),
            _ => self.web_url(&path, url),
        }
        let ends = matches!(pieces.last(), Some(TextPiece::Variable(_)));
        if self.is_approved_type && (variables > 1 || variables == 1 && !ends) {
            self.add(
                path,
                "WhatsApp takes one variable at the end of a URL",
                "use one variable, as the last part",
            );
        }
    }

    /// Checks that a text with its samples is the URL of a website.
    fn web_url(&mut self, path: &str, url: &str) {
        // A text that is empty or has an unreadable variable is a finding already.
        let filled = self.samples.fill(url);
        if !url.is_empty() && !filled.contains("{{") && !is_web_url(&filled) {
            self.add(
                path,
                "it is not an absolute http or https URL",
                "begin with https:// and the domain; samples must complete the URL",
            );
        }
    }

    /// Checks `media`. WhatsApp shows one file.
    pub(super) fn media(&mut self, of: &TemplatePart<'_>) {
        let files = self.list(of, "media", MAX_MEDIA);
        if self.is_approved_type && files.len() > 1 {
            let reason = format!("it has {} files; WhatsApp takes one", files.len());
            self.add(of.path_of("media"), reason, "keep one file");
        }
        for file in files {
            self.media_url(&file);
        }
    }

    pub(super) fn media_url(&mut self, file: &TemplatePart<'_>) {
        if let Some(url) = self.text(file, MAX_URL, true) {
            self.web_url(&file.path, url);
        }
    }
}

/// Returns whether a text is a URL with its domain and the slash after it.
fn has_path(start: &str) -> bool {
    let rest = start.split_once("://").map_or("", |(_, rest)| rest);
    rest.contains('/') && is_web_url(start)
}
