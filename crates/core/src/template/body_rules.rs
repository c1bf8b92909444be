//! Rules of WhatsApp for the variables in a body.

use std::collections::BTreeSet;

use super::finding::TemplateFinding;
use super::placeholders::{TextPiece, text_pieces};

/// Appends the problems that WhatsApp's approval finds in the variables of a body.
///
/// Source: twilio.com/docs/content/using-variables-with-content-api, error 63040.
pub(super) fn check_body(path: &str, body: &str, findings: &mut Vec<TemplateFinding>) {
    let pieces = text_pieces(body);
    // Blanks at the ends are not shown.
    let is_text = |piece: &&TextPiece<'_>| match piece {
        TextPiece::Words(words) => !words.trim().is_empty(),
        _ => true,
    };
    let shown: Vec<_> = pieces.iter().filter(is_text).copied().collect();
    if let Some(TextPiece::Variable(name)) = shown.first() {
        findings.push(TemplateFinding::new(
            path,
            format!("it starts with the variable {{{{{name}}}}}, which WhatsApp rejects"),
            "put words before it",
        ));
    }
    // WhatsApp takes punctuation after a last variable as its end too.
    let has_words = |words: &str| words.chars().any(char::is_alphanumeric);
    let mut from_end = shown.iter().rev();
    let last =
        from_end.find(|piece| !matches!(piece, TextPiece::Words(words) if !has_words(words)));
    if let Some(TextPiece::Variable(name)) = last {
        findings.push(TemplateFinding::new(
            path,
            format!("it ends with the variable {{{{{name}}}}}, which WhatsApp rejects"),
            "put words after it; punctuation is not enough",
        ));
    }
    for pair in shown.windows(2) {
        if let [TextPiece::Variable(one), TextPiece::Variable(other)] = pair {
            findings.push(TemplateFinding::new(
                path,
                format!("the variables {{{{{one}}}}} and {{{{{other}}}}} are next to each other, which WhatsApp rejects"),
                "put words between them, or make them one variable",
            ));
        }
    }
    let mut names = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    let mut number = 0;
    for piece in &shown {
        if let TextPiece::Variable(name) = piece {
            number += 1;
            if !names.insert(*name) {
                repeated.insert(*name);
            }
        }
    }
    for name in repeated {
        findings.push(TemplateFinding::new(
            path,
            format!("the variable {{{{{name}}}}} occurs twice"),
            "give each place a variable of its own",
        ));
    }
    let words = shown.iter().map(|piece| match piece {
        TextPiece::Words(words) => words.split_whitespace().map(word_count).sum(),
        _ => 0,
    });
    let words: usize = words.sum();
    let needed = 2 * number + 1;
    if number > 0 && words < needed {
        findings.push(TemplateFinding::new(
            path,
            format!("it has {words} words for {number} variables; WhatsApp requires {needed}"),
            "add words, or use fewer variables",
        ));
    }
}

/// Returns the number of words in a text without blanks.
fn word_count(text: &str) -> usize {
    // Thai, Lao, Burmese, Khmer, Chinese and Japanese have no blanks between words.
    let is_unspaced = |c: &char| {
        matches!(c, '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}'
            | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}')
    };
    let unspaced = text.chars().filter(is_unspaced).count();
    unspaced.max(usize::from(text.chars().any(char::is_alphanumeric)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_rules_have_right_and_wrong_variants() {
        for (body, reasons) in [
            ("Your order {{1}} is ready.", &[][..]),
            ("No variables", &[]),
            ("Hi {{1}}, your order {{2}} has been sent.", &[]),
            // The order of the numbers does not matter to WhatsApp.
            ("Your order {{2}} leaves on {{1}} in the morning.", &[]),
            ("お客様の{{1}}が届きました", &[]),
            (
                "{{1}} is your code for today",
                &["starts with the variable {{1}}"],
            ),
            (" \n{{1}} is your code for today", &["starts with"]),
            (
                "Your code for today is {{1}}",
                &["ends with the variable {{1}}"],
            ),
            ("Your code for today is {{1}}.", &["ends with"]),
            (
                "Your code for today is {{ code }} !\n",
                &["ends with the variable {{code}}"],
            ),
            (
                "Dear {{1}} {{2}}, we thank you for coming.",
                &["next to each other"],
            ),
            (
                "Dear {{1}}{{2}}, we thank you for coming.",
                &["{{1}} and {{2}} are next"],
            ),
            (
                "Dear {{1}}, that is {{1}} from us to you.",
                &["{{1}} occurs twice"],
            ),
            (
                "Hi {{1}}, gate {{2}}. Thank you.",
                &["4 words for 2 variables"],
            ),
            ("{{1}}", &["starts", "ends", "0 words"]),
        ] {
            let mut findings = Vec::new();
            check_body("body", body, &mut findings);
            assert_eq!(findings.len(), reasons.len(), "{body}: {findings:#?}");
            for (finding, reason) in findings.iter().zip(reasons) {
                assert!(
                    finding.reason.contains(reason),
                    "{body}: {}",
                    finding.reason
                );
            }
        }
    }
}
