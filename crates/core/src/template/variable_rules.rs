//! Rules for the variables of a whole template: their braces, samples and numbers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::finding::TemplateFinding;
use super::limits::MAX_VARIABLE_NAME;
use super::part_rules::TemplatePart;
use super::placeholders::{Samples, TextPiece, text_pieces};

/// Checks the braces in all texts of a part, and that each variable has a sample. Collects the names of the variables.
pub(super) fn check_placeholders(
    part: &TemplatePart<'_>,
    samples: &Samples,
    used: &mut BTreeSet<String>,
    findings: &mut Vec<TemplateFinding>,
) {
    let child = |path: String, value| TemplatePart { path, value };
    match part.value {
        Value::String(text) => {
            for piece in text_pieces(text) {
                match piece {
                    TextPiece::Words(_) => {}
                    TextPiece::Malformed => findings.push(TemplateFinding::new(
                        &*part.path,
                        "`{{` does not begin a variable",
                        "write {{1}} or {{name}}, without blanks in the name",
                    )),
                    // One finding for each variable, at its first place.
                    TextPiece::Variable(name) => {
                        if used.insert(name.to_owned()) {
                            check_variable(&part.path, name, samples, findings);
                        }
                    }
                }
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                let part = child(format!("{}[{index}]", part.path), value);
                check_placeholders(&part, samples, used, findings);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let part = child(part.path_of(name), value);
                check_placeholders(&part, samples, used, findings);
            }
        }
        _ => {}
    }
}

fn check_variable(path: &str, name: &str, samples: &Samples, findings: &mut Vec<TemplateFinding>) {
    if name.chars().count() > MAX_VARIABLE_NAME {
        let reason = format!(
            "the name of the variable {{{{{name}}}}} has more than {MAX_VARIABLE_NAME} characters"
        );
        findings.push(TemplateFinding::new(path, reason, "rename it"));
    }
    if !samples.has(name) {
        findings.push(TemplateFinding::new(
            path,
            format!("the variable {{{{{name}}}}} has no sample"),
            format!("add {name:?} to `variables`"),
        ));
    }
}

/// Checks that the numbers of variables begin with 1 and skip none.
pub(super) fn check_numbers(used: &BTreeSet<String>, findings: &mut Vec<TemplateFinding>) {
    let numbers: BTreeSet<u32> = used.iter().filter_map(|name| name.parse().ok()).collect();
    let Some(last) = numbers.last() else { return };
    // A large number, such as that of a year, would have a long list of skipped ones.
    if let Some(skipped) = (1..=*last).find(|number| !numbers.contains(number)) {
        findings.push(TemplateFinding::new(
            "types",
            format!("the variables skip the number {{{{{skipped}}}}}, which WhatsApp rejects"),
            "number the variables from 1 without a gap",
        ));
    } else if numbers.contains(&0) {
        let reason = "the variables begin with {{0}}";
        findings.push(TemplateFinding::new(
            "types",
            reason,
            "number the variables from 1",
        ));
    }
}
