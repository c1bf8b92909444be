//! Messages as the phone shows them, as text.

use std::fmt;

use replyhook::ErrorCode;
use serde_json::Value;

/// A message as the phone shows it.
pub(super) struct Bubble {
    pub(super) author: String,
    body: String,
    /// Media, locations, and titles of cards.
    extras: Vec<String>,
    /// Buttons, rows or chips, each with its number.
    items: Vec<String>,
    failure: Option<String>,
}

impl Bubble {
    pub(super) fn new(message: &Value) -> Self {
        let mut extras = Vec::new();
        for media in message["media"].as_array().into_iter().flatten() {
            extras.push(format!(
                "[{} {}]",
                text(&media["content_type"]),
                text(&media["url"])
            ));
        }
        if let Some(location) = message["location"].as_object() {
            let label = location
                .get("label")
                .and_then(Value::as_str)
                .unwrap_or_default();
            extras.push(format!(
                "[location {},{} {label}]",
                location["latitude"], location["longitude"]
            ));
        }
        let content = &message["content"];
        for card in content["cards"].as_array().into_iter().flatten() {
            let parts = [text(&card["title"]), text(&card["body"])];
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            extras.push(format!("[card {}]", parts.join(": ")));
        }
        let items = content["items"].as_array().into_iter().flatten();
        let items = items
            .zip(1..)
            .map(|(item, number)| describe_item(item, number));
        let status = message["status"].as_str().unwrap_or_default();
        let failure = matches!(status, "failed" | "undelivered")
            .then(|| format_failure(status, message["error_code"].as_u64().unwrap_or_default()));
        let author = message["by"].as_str().unwrap_or("bot");
        Self {
            author: author.to_owned(),
            body: text(&message["body"]),
            extras,
            items: items.collect(),
            failure,
        }
    }

    /// Creates the note that a message which was shown before has failed.
    pub(super) fn failed(code: u64) -> Self {
        Self {
            author: "bot".to_owned(),
            body: "(the message above)".to_owned(),
            extras: Vec::new(),
            items: Vec::new(),
            failure: Some(format_failure("failed", code)),
        }
    }

    /// Creates the note that the handler of the user's message has failed.
    pub(super) fn bot_failed(reason: &str) -> Self {
        Self {
            author: "bot failed".to_owned(),
            body: String::new(),
            extras: Vec::new(),
            items: Vec::new(),
            failure: Some(reason.to_owned()),
        }
    }

    pub(super) fn has_succeeded(&self) -> bool {
        self.failure.is_none()
    }

    /// Returns the message with each item on a line of its own.
    pub(super) fn to_lines(&self) -> String {
        let mut lines = vec![self.first_line()];
        lines.extend(self.items.iter().map(|item| format!("  {item}")));
        lines.join("\n")
    }

    fn first_line(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        if !self.body.is_empty() {
            parts.push(&self.body);
        }
        parts.extend(self.extras.iter().map(String::as_str));
        parts.extend(self.failure.as_deref());
        parts.join(" ")
    }
}

impl fmt::Display for Bubble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first_line())?;
        for item in &self.items {
            write!(f, " [{item}]")?;
        }
        Ok(())
    }
}

/// Returns number, title and effect of an item, as in `2 Tomorrow (before 6 pm)`.
fn describe_item(item: &Value, number: u32) -> String {
    let title = text(&item["title"]);
    let effect = match item["kind"].as_str() {
        Some("link") => format!("link to {}", text(&item["value"])),
        Some("phone") => format!("calls {}", text(&item["value"])),
        Some("copy") => format!("copies {}", text(&item["value"])),
        Some("flow") => "opens a form".to_owned(),
        _ => text(&item["description"]),
    };
    if effect.is_empty() {
        format!("{number} {title}")
    } else {
        format!("{number} {title} ({effect})")
    }
}

/// Returns the status of a message that failed, with the meaning of its error code.
fn format_failure(status: &str, code: u64) -> String {
    let meaning = u32::try_from(code).map(|code| ErrorCode(code).meaning_or_link());
    format!("[{status} {code}: {}]", meaning.unwrap_or_default())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_numbered_in_one_line_or_several() {
        let question = Bubble::new(&json!({"by": "bot", "body": "When?", "content": {"items": [
            {"id": "a", "title": "Today", "description": "before 6 pm"},
            {"id": "b", "title": "Shop", "kind": "link", "value": "https://h"},
        ]}}));
        assert_eq!(
            question.to_string(),
            "When? [1 Today (before 6 pm)] [2 Shop (link to https://h)]"
        );
        assert_eq!(
            question.to_lines(),
            "When?\n  1 Today (before 6 pm)\n  2 Shop (link to https://h)"
        );
    }
}
