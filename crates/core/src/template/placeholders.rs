//! Variables in the texts of a template: `{{1}}` or `{{name}}`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextPiece<'a> {
    Words(&'a str),
    /// Name of a variable.
    Variable(&'a str),
    /// `{{` that does not begin a variable, and stays in the text.
    Malformed,
}

/// Splits a text at its variables.
pub(super) fn text_pieces(text: &str) -> Vec<TextPiece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        if start > 0 {
            pieces.push(TextPiece::Words(&rest[..start]));
        }
        let after = &rest[start + 2..];
        let variable = after
            .split_once("}}")
            .map(|(name, rest)| (name.trim(), rest));
        let is_name = |name: &str| {
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '{' || c == '}')
        };
        if let Some((name, after)) = variable.filter(|(name, _)| is_name(name)) {
            pieces.push(TextPiece::Variable(name));
            rest = after;
        } else {
            // The text goes on after these braces, and may have a variable.
            pieces.push(TextPiece::Malformed);
            rest = after;
        }
    }
    if !rest.is_empty() {
        pieces.push(TextPiece::Words(rest));
    }
    pieces
}

/// Returns the names of the variables in a text, in their order.
pub fn placeholder_names(text: &str) -> Vec<&str> {
    let pieces = text_pieces(text).into_iter();
    let names = pieces.filter_map(|piece| match piece {
        TextPiece::Variable(name) => Some(name),
        _ => None,
    });
    names.collect()
}

/// Samples of a template's variables by name.
pub(super) struct Samples(BTreeMap<String, String>);

impl Samples {
    /// Reads `variables`. Values that are neither texts nor numbers are left out.
    pub(super) fn read(variables: Option<&Value>) -> Self {
        let samples = variables.and_then(Value::as_object).into_iter().flatten();
        let samples = samples.filter_map(|(name, value)| match value {
            Value::String(text) => Some((name.clone(), text.clone())),
            Value::Number(number) => Some((name.clone(), number.to_string())),
            _ => None,
        });
        Self(samples.collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|sample| !sample.is_empty())
    }

    /// Replaces the variables of a text by their samples. One without a sample stays.
    pub(super) fn fill(&self, text: &str) -> String {
        let pieces = text_pieces(text).into_iter();
        let filled = pieces.map(|piece| match piece {
            TextPiece::Words(words) => words.to_owned(),
            TextPiece::Malformed => "{{".to_owned(),
            TextPiece::Variable(name) => match self.0.get(name) {
                Some(sample) => sample.clone(),
                None => format!("{{{{{name}}}}}"),
            },
        });
        filled.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_split_at_its_variables() {
        use TextPiece::{Malformed, Variable, Words};
        for (text, expected) in [
            ("Hi {{1}}!", vec![Words("Hi "), Variable("1"), Words("!")]),
            ("{{ name }}{{2}}", vec![Variable("name"), Variable("2")]),
            (
                "a {{b c}} {{1}}",
                vec![Words("a "), Malformed, Words("b c}} "), Variable("1")],
            ),
            ("a {{", vec![Words("a "), Malformed]),
            ("{{}}", vec![Malformed, Words("}}")]),
            ("{1} }}", vec![Words("{1} }}")]),
            ("", vec![]),
        ] {
            assert_eq!(text_pieces(text), expected, "{text}");
        }
    }

    #[test]
    fn samples_fill_a_text() {
        let samples = json!({"1": "Ana", "2": 7, "3": null});
        let samples = Samples::read(Some(&samples));
        assert_eq!(
            samples.fill("{{1}} {{2}} {{3}} {{x y}}"),
            "Ana 7 {{3}} {{x y}}"
        );
        assert!(samples.has("2") && !samples.has("3"));
    }

    proptest! {
        // Nothing of a text is lost, whatever its braces are.
        #[test]
        fn pieces_are_the_whole_text(text in "[a{} é1]{0,30}") {
            let joined = Samples::read(None).fill(&text);
            let without_blanks = |text: &str| text.replace(' ', "");
            prop_assert_eq!(without_blanks(&joined), without_blanks(&text));
        }
    }
}
