//! Construction of messages that TwiML cannot carry: choices, templates, locations and link buttons.

use std::collections::BTreeMap;

use super::messages::ReplyMessage;
use super::rich_content::{ChoiceQuestion, Place, RichContent, TemplateContent, TemplateKey};
use super::rich_wire::WireRichContent;
use crate::address::Channel;
use crate::choice::{Choice, Choices, OpenQuestion};

impl ReplyMessage {
    /// Adds choices, and makes the text their question.
    ///
    /// The channel decides the form: buttons, a list, chips, or the text with a number before each title, which every
    /// channel can show. No title is cut; [`ChoiceForm`](crate::choice::ChoiceForm) has the limits. The user may tap a
    /// choice, or type its title or number. [`InboundMessage::choice`](crate::message::InboundMessage::choice) returns it.
    ///
    /// The question is open until it is answered, the next one is asked in the conversation, or `reply.choices_ttl` has
    /// passed. Only a tap can answer it after that.
    ///
    /// Invalid choices, such as two with the same title, fail the handler that returns them; see
    /// [`ChoicesError`](crate::choice::ChoicesError).
    ///
    /// ```
    /// use replyhook::ReplyMessage;
    /// use replyhook::choice::Choice;
    ///
    /// let question = ReplyMessage::text("When shall we deliver?")
    ///     .choices([Choice::new("today", "Today").description("before 6 pm"), Choice::new("other", "Another day")])
    ///     .choices_key("delivery");
    /// # drop(question);
    /// ```
    #[must_use]
    pub fn choices(mut self, choices: impl IntoIterator<Item = impl Into<Choice>>) -> Self {
        self.question().choices = Choices::new(choices);
        self
    }

    /// Sets a key, which [`Chosen::key`](crate::choice::Chosen::key) repeats, to tell questions apart.
    #[must_use]
    pub fn choices_key(mut self, key: impl Into<String>) -> Self {
        self.question().key = Some(key.into()).filter(|key| !key.is_empty());
        self
    }

    /// Sets the label of the button that opens a list, at most 20 characters, in place of `reply.choices_button`.
    #[must_use]
    pub fn choices_button(mut self, label: impl Into<String>) -> Self {
        self.question().button = Some(label.into());
        self
    }

    /// Sets the last line of a numbered text, such as "Reply with the number.", in place of `reply.choices_hint`.
    #[must_use]
    pub fn choices_hint(mut self, hint: impl Into<String>) -> Self {
        self.question().hint = Some(hint.into());
        self
    }

    /// Creates a message from a template at Twilio, `HX…`.
    ///
    /// Its variables are set by [`variable`](Self::variable). Within the customer service window, a template needs
    /// WhatsApp's approval only for some content types.
    ///
    /// ```
    /// use replyhook::ReplyMessage;
    ///
    /// let receipt = ReplyMessage::content("HX00000000000000000000000000000001").variable("1", "Ana");
    /// # drop(receipt);
    /// ```
    pub fn content(sid: impl Into<String>) -> Self {
        Self::from_template(TemplateKey::Sid(sid.into()))
    }

    /// Creates a message from the template with this name and language, such as `en` or `pt_BR`.
    ///
    /// The account's list of templates is read when the message is sent, and for a minute after. A message with an unknown
    /// template, or with one that WhatsApp must approve first, fails without a call.
    ///
    /// ```
    /// use replyhook::ReplyMessage;
    ///
    /// let receipt = ReplyMessage::template("receipt", "en").variable("1", "Ana");
    /// # drop(receipt);
    /// ```
    pub fn template(name: impl Into<String>, language: impl Into<String>) -> Self {
        Self::from_template(TemplateKey::Name {
            name: name.into(),
            language: language.into(),
        })
    }

    /// Sets a variable of the template. Without a template it has no effect.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Some(RichContent::Template(template)) = self.rich.as_deref_mut() {
            template.variables.insert(name.into(), value.into());
        }
        self
    }

    /// Creates a location. Latitude and longitude are in degrees. The label may be empty.
    ///
    /// WhatsApp shows it on a map. On other channels it is a text with a link to a map.
    ///
    /// ```
    /// use replyhook::ReplyMessage;
    ///
    /// let here = ReplyMessage::location(40.4168, -3.7038, "Puerta del Sol");
    /// # drop(here);
    /// ```
    pub fn location(latitude: f64, longitude: f64, label: impl Into<String>) -> Self {
        let is_valid = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        Self::default().with_rich(RichContent::Location(Place {
            coordinates: is_valid.then(|| (latitude.to_string(), longitude.to_string())),
            label: label.into(),
        }))
    }

    /// Adds a button that opens a URL: a title of at most 20 characters.
    ///
    /// On a channel without such buttons, the URL follows the text.
    ///
    /// ```
    /// use replyhook::ReplyMessage;
    ///
    /// let track = ReplyMessage::text("Your parcel is on its way.").link("Track it", "https://example.com/42");
    /// # drop(track);
    /// ```
    #[must_use]
    pub fn link(self, title: impl Into<String>, url: impl Into<String>) -> Self {
        self.with_rich(RichContent::Link {
            title: title.into(),
            url: url.into(),
        })
    }

    /// Returns the question as it is stored until its answer; `None` without valid choices.
    #[doc(hidden)]
    pub fn open_question(&self) -> Option<OpenQuestion> {
        let Some(RichContent::Choices(question)) = self.rich.as_deref() else {
            return None;
        };
        Some(OpenQuestion {
            id: question.id.clone()?,
            key: question.key.clone(),
            choices: question.choices.clone().ok()?,
            text_units: self.body().encode_utf16().count(),
            label: question.button.clone().unwrap_or_default(),
            has_numbers: false,
        })
    }

    /// Returns the payload of a tap on each choice, in order; `None` if the channel shows nothing to tap. Needs the
    /// identity of the question.
    #[doc(hidden)]
    pub fn choice_payloads(&self, channel: &Channel) -> Option<Vec<String>> {
        let RichContent::Choices(question) = self.rich.as_deref()? else {
            return None;
        };
        let rendered = question.render(self.body(), channel);
        let Some(WireRichContent::Shape { variables, .. }) = rendered.content else {
            return None;
        };
        let payload = |number: usize| variables.get(&format!("i{number}")).cloned();
        Some((1..).map_while(payload).collect())
    }

    /// Returns the titles of the choices.
    #[doc(hidden)]
    pub fn choice_titles(&self) -> Vec<&str> {
        let Some(RichContent::Choices(question)) = self.rich.as_deref() else {
            return Vec::new();
        };
        let choices = question.choices.iter().flat_map(Choices::iter);
        choices.map(Choice::title).collect()
    }

    fn from_template(key: TemplateKey) -> Self {
        Self::default().with_rich(RichContent::Template(TemplateContent {
            key,
            variables: BTreeMap::new(),
        }))
    }

    fn with_rich(mut self, content: RichContent) -> Self {
        self.rich = Some(Box::new(content));
        self
    }

    /// Returns the question of the message, which replaces any other content.
    fn question(&mut self) -> &mut ChoiceQuestion {
        if !matches!(self.rich.as_deref(), Some(RichContent::Choices(_))) {
            self.rich = None;
        }
        let content = self
            .rich
            .get_or_insert_with(|| Box::new(RichContent::Choices(ChoiceQuestion::new())));
        match &mut **content {
            RichContent::Choices(question) => question,
            _ => unreachable!("any other content was removed"),
        }
    }
}
