//! Values in the source of a test.

use std::fmt::Write;

use serde_json::Value;

/// Spelling of JSON in a programming language.
pub(super) struct LiteralStyle {
    pub(super) words: [&'static str; 3],
    pub(super) quote: fn(&str) -> String,
}

impl LiteralStyle {
    pub(super) fn literal(&self, value: &Value) -> String {
        let [null, yes, no] = self.words;
        match value {
            Value::Null => null.to_owned(),
            Value::Bool(value) => if *value { yes } else { no }.to_owned(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => (self.quote)(text),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.literal(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Object(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{}: {}", (self.quote)(name), self.literal(value)))
                    .collect();
                format!("{{{}}}", fields.join(", "))
            }
        }
    }

    pub(super) fn texts(&self, texts: &[String]) -> String {
        let texts: Vec<_> = texts.iter().map(|text| (self.quote)(text)).collect();
        format!("[{}]", texts.join(", "))
    }
}

/// Returns a text as a string of JSON, which is one of Python and JavaScript too.
pub(super) fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Also invisible characters that change the direction of a line, or end it.
            c if c.is_control()
                || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Path, query and fragment of a bot's webhook URL, if a test can start that bot at a port of its own.
pub(super) fn webhook_path(webhook: &str) -> Option<&str> {
    let rest = webhook.strip_prefix("http://")?;
    let (host, _) = rest.split_once('/')?;
    let (name, _port) = host.rsplit_once(':')?;
    let is_local = ["127.0.0.1", "localhost", "[::1]"].contains(&name);
    is_local.then(|| &rest[host.len()..])
}
