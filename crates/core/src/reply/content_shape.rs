//! Content resources that carry rich messages: one for each shape, and everything in it is a variable.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::address::Channel;
use crate::choice::{ChoiceForm, Choices};

/// Version of the shapes, in the name of each resource. A new layout needs a new version, since both may be in use.
const VERSION: u32 = 1;
/// Description of an item without one, in a list where others have one. A language-neutral sign, since Twilio's page
/// requires a description.
const NO_DESCRIPTION: &str = "–";

/// Shape of a content resource: its kind, and the number of its options.
///
/// A resource with this shape serves all messages of it, because texts, titles and IDs are variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentShape {
    /// Quick-reply buttons.
    Buttons(u8),
    /// List.
    List(u8),
    /// List whose items have descriptions.
    DescribedList(u8),
    /// Card without media on RCS, whose buttons are chips.
    Chips(u8),
    /// Button that opens a URL.
    Link,
    /// Card on RCS whose button opens a URL.
    LinkCard,
}

impl ContentShape {
    /// Parameter of a stored message that names its shape, in place of `ContentSid`. Twilio never gets it.
    pub const PARAM: &str = "ContentShape";

    /// Returns the shapes that messages on a channel can have. Without `has_descriptions`, those of lists with descriptions
    /// are left out.
    pub fn of_channel(channel: &Channel, has_descriptions: bool) -> Vec<Self> {
        let buttons = |max| (1..=max).map(Self::Buttons);
        match channel {
            Channel::WhatsApp => {
                let described = (1..=10).filter(|_| has_descriptions);
                let lists = (1..=10).map(Self::List);
                let lists = lists.chain(described.map(Self::DescribedList));
                buttons(3).chain(lists).chain([Self::Link]).collect()
            }
            Channel::Messenger => buttons(10).chain([Self::Link]).collect(),
            Channel::Rcs => (1..=11).map(Self::Chips).chain([Self::LinkCard]).collect(),
            Channel::Sms | Channel::Other(_) => Vec::new(),
        }
    }

    /// Returns the shape of a question in a form; `None` for a text.
    pub(super) fn of(form: ChoiceForm, choices: &Choices) -> Option<Self> {
        let number = u8::try_from(choices.len()).ok()?;
        let mut described = choices.iter().map(|choice| choice.description_text());
        Some(match form {
            ChoiceForm::Buttons => Self::Buttons(number),
            ChoiceForm::List if described.any(|text| text.is_some()) => Self::DescribedList(number),
            ChoiceForm::List => Self::List(number),
            ChoiceForm::Chips => Self::Chips(number),
            ChoiceForm::Text => return None,
        })
    }

    /// Returns the `friendly_name` of the resource, by which every server finds it.
    pub fn name(self) -> String {
        let (kind, number) = self.parts();
        match number {
            0 => format!("replyhook {kind} v{VERSION}"),
            number => format!("replyhook {kind}-{number} v{VERSION}"),
        }
    }

    /// Parses the text that [`name`](Self::name) returns.
    pub fn parse(name: &str) -> Option<Self> {
        let shape = name.strip_prefix("replyhook ")?;
        let kind = shape.split(['-', ' ']).next()?;
        let number = shape.strip_prefix(kind)?.strip_prefix('-');
        let number = number.and_then(|rest| rest.split(' ').next()?.parse().ok());
        let parsed = match (kind, number) {
            ("buttons", Some(number)) => Self::Buttons(number),
            ("list", Some(number)) => Self::List(number),
            ("described_list", Some(number)) => Self::DescribedList(number),
            ("chips", Some(number)) => Self::Chips(number),
            ("link", None) => Self::Link,
            ("link_card", None) => Self::LinkCard,
            _ => return None,
        };
        (parsed.name() == name).then_some(parsed)
    }

    fn parts(self) -> (&'static str, u8) {
        match self {
            Self::Buttons(number) => ("buttons", number),
            Self::List(number) => ("list", number),
            Self::DescribedList(number) => ("described_list", number),
            Self::Chips(number) => ("chips", number),
            Self::Link => ("link", 0),
            Self::LinkCard => ("link_card", 0),
        }
    }

    /// Returns the request that creates the resource: one rich type, and a text for a channel without it.
    pub fn resource(self) -> Value {
        let (_, number) = self.parts();
        let options = |make: &dyn Fn(u8) -> Value| (1..=number).map(make).collect::<Vec<_>>();
        let (kind, content) = match self {
            Self::Buttons(_) => {
                let actions = options(
                    &|number| json!({"type": "QUICK_REPLY", "title": format!("{{{{t{number}}}}}"), "id": format!("{{{{i{number}}}}}")}),
                );
                (
                    "twilio/quick-reply",
                    json!({"body": "{{body}}", "actions": actions}),
                )
            }
            Self::List(_) => {
                let items = options(
                    &|number| json!({"item": format!("{{{{t{number}}}}}"), "id": format!("{{{{i{number}}}}}")}),
                );
                (
                    "twilio/list-picker",
                    json!({"body": "{{body}}", "button": "{{button}}", "items": items}),
                )
            }
            Self::DescribedList(_) => {
                let items = options(
                    &|number| json!({"item": format!("{{{{t{number}}}}}"), "id": format!("{{{{i{number}}}}}"), "description": format!("{{{{d{number}}}}}")}),
                );
                (
                    "twilio/list-picker",
                    json!({"body": "{{body}}", "button": "{{button}}", "items": items}),
                )
            }
            Self::Chips(_) => {
                let actions = options(
                    &|number| json!({"type": "QUICK_REPLY", "title": format!("{{{{t{number}}}}}"), "id": format!("{{{{i{number}}}}}"), "chip_list": true}),
                );
                (
                    "twilio/card",
                    json!({"body": "{{body}}", "actions": actions}),
                )
            }
            Self::Link => (
                "twilio/call-to-action",
                json!({"body": "{{body}}", "actions": [{"type": "URL", "title": "{{t1}}", "url": "{{url}}"}]}),
            ),
            Self::LinkCard => (
                "twilio/card",
                json!({"body": "{{body}}", "actions": [{"type": "URL", "title": "{{t1}}", "url": "{{url}}"}]}),
            ),
        };
        let mut types = Map::new();
        types.insert(kind.to_owned(), content);
        types.insert("twilio/text".to_owned(), json!({"body": "{{text}}"}));
        json!({
            "friendly_name": self.name(),
            // The resource contains variables only, so any language is valid.
            "language": "en",
            "variables": self.samples(),
            "types": types,
        })
    }

    /// Returns a sample for each variable. Twilio sends it for a variable without a value; our messages set all.
    fn samples(self) -> BTreeMap<String, String> {
        let (_, number) = self.parts();
        let mut names = vec!["body".to_owned(), "text".to_owned()];
        match self {
            Self::List(_) | Self::DescribedList(_) => names.push("button".to_owned()),
            Self::Link | Self::LinkCard => names.push("t1".to_owned()),
            Self::Buttons(_) | Self::Chips(_) => {}
        }
        for number in 1..=number {
            names.extend([format!("t{number}"), format!("i{number}")]);
            if matches!(self, Self::DescribedList(_)) {
                names.push(format!("d{number}"));
            }
        }
        let mut samples: BTreeMap<_, _> =
            names.into_iter().map(|name| (name.clone(), name)).collect();
        if matches!(self, Self::Link | Self::LinkCard) {
            samples.insert("url".to_owned(), "https://example.com".to_owned());
        }
        samples
    }

    /// Returns the variables of a question, given the payload of each choice.
    pub(super) fn question_variables(
        self,
        question: &str,
        label: &str,
        choices: &Choices,
        payloads: Vec<String>,
    ) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::from([("body".to_owned(), question.to_owned())]);
        if matches!(self, Self::List(_) | Self::DescribedList(_)) {
            variables.insert("button".to_owned(), label.to_owned());
        }
        for ((number, choice), payload) in (1..).zip(choices).zip(payloads) {
            variables.insert(format!("t{number}"), choice.title().to_owned());
            variables.insert(format!("i{number}"), payload);
            if matches!(self, Self::DescribedList(_)) {
                let description = choice.description_text().unwrap_or(NO_DESCRIPTION);
                variables.insert(format!("d{number}"), description.to_owned());
            }
        }
        variables
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> BTreeSet<ContentShape> {
        let channels = [
            Channel::WhatsApp,
            Channel::Messenger,
            Channel::Rcs,
            Channel::Sms,
        ];
        let shapes = channels
            .iter()
            .flat_map(|channel| ContentShape::of_channel(channel, true));
        shapes.collect()
    }

    // Each question that a form can show has a shape among those of its channel.
    #[test]
    fn shapes_of_channel_cover_its_forms() {
        for channel in [
            Channel::WhatsApp,
            Channel::Messenger,
            Channel::Rcs,
            Channel::Sms,
        ] {
            let shapes = ContentShape::of_channel(&channel, true);
            for (number, length) in (1..=12).flat_map(|number| [(number, 5), (number, 24)]) {
                let title =
                    |number: usize| crate::choice::Choice::from(format!("{number:0length$}"));
                let described = |number| title(number).description("x");
                for choices in [
                    Choices::new((0..number).map(title)),
                    Choices::new((0..number).map(described)),
                ] {
                    let choices = choices.unwrap();
                    let form = ChoiceForm::of(&channel, "Which?", &choices, Some("x"));
                    let shape = ContentShape::of(form, &choices);
                    assert!(
                        shape.is_none_or(|shape| shapes.contains(&shape)),
                        "{shape:?}"
                    );
                }
            }
        }
        assert_eq!(
            ContentShape::of_channel(&Channel::WhatsApp, false).len(),
            14
        );
    }

    #[test]
    fn shape_name_names_one_shape() {
        let shapes = all();
        let names: BTreeSet<_> = shapes.iter().map(|shape| shape.name()).collect();
        assert_eq!(names.len(), shapes.len());
        for shape in shapes {
            assert_eq!(ContentShape::parse(&shape.name()), Some(shape));
        }
        for name in [
            "",
            "replyhook",
            "replyhook buttons-3 v2",
            "replyhook buttons v1",
            "my template",
        ] {
            assert_eq!(ContentShape::parse(name), None, "{name}");
        }
    }

    #[test]
    fn shape_has_one_rich_type_and_sample_of_each_variable() {
        for shape in all() {
            let resource = shape.resource();
            let types = resource["types"].as_object().unwrap();
            assert_eq!(types.len(), 2, "{}", shape.name());
            assert!(types.contains_key("twilio/text"));
            let text = resource["types"].to_string();
            let used: BTreeSet<_> = text
                .split("{{")
                .skip(1)
                .map(|rest| rest.split("}}").next().unwrap().to_owned())
                .collect();
            let samples: BTreeSet<_> = shape.samples().into_keys().collect();
            assert_eq!(used, samples, "{}", shape.name());
        }
    }
}
