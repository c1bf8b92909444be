//! Choices that a message on the phone offers: its buttons, rows or chips, or the lines of a numbered text.

use serde_json::{Value, json};

/// Mark between title and description in a numbered text.
const DESCRIPTION_MARK: &str = " – ";

/// Choice of a message.
pub(super) struct OfferedItem {
    /// Title; in a numbered text with the description, if it has one.
    pub(super) title: String,
    /// Message of the user who chooses it.
    pub(super) reply: Value,
}

impl OfferedItem {
    /// Returns whether this is the choice with a title.
    pub(super) fn has_title(&self, title: &str) -> bool {
        is_title_of(&self.title, title)
    }
}

/// Returns whether a line of a message is a title, with or without a description.
pub(super) fn is_title_of(line: &str, title: &str) -> bool {
    let rest = line.strip_prefix(title);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(DESCRIPTION_MARK))
}

/// Returns the choices of a message in the control API's JSON.
pub(super) fn offered_items(message: &Value) -> Vec<OfferedItem> {
    let items = message["content"]["items"].as_array();
    let items: Vec<_> = items.into_iter().flatten().collect();
    if items.is_empty() {
        let body = message["body"].as_str().unwrap_or_default();
        return numbered_lines(body);
    }
    let offered = items.into_iter().map(|item| OfferedItem {
        title: item["title"].as_str().unwrap_or_default().to_owned(),
        reply: json!({"choice": {"id": item["id"], "message_sid": message["sid"]}}),
    });
    offered.collect()
}

/// Returns the choices of a text with lines such as `2. Tomorrow`. They have the numbers from 1, in order.
fn numbered_lines(body: &str) -> Vec<OfferedItem> {
    let mut items = Vec::new();
    for line in body.lines() {
        let number = items.len() + 1;
        let title = line.strip_prefix(&format!("{number}. "));
        items.extend(title.map(|title| OfferedItem {
            title: title.to_owned(),
            reply: json!({"body": number.to_string()}),
        }));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_text_offers_its_lines() {
        let text = "When?\n1. Today – before 6 pm\n2. Another day\nReply with the number.";
        let items = offered_items(&json!({"sid": "SM1", "body": text}));
        let replies: Vec<_> = items.iter().map(|item| item.reply.clone()).collect();
        assert_eq!(replies, [json!({"body": "1"}), json!({"body": "2"})]);
        assert!(items[0].has_title("Today") && items[1].has_title("Another day"));
        assert!(!items[0].has_title("Tod"));
        assert!(offered_items(&json!({"body": "2. no first line"})).is_empty());
    }
}
