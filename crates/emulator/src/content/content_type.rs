//! Fields of the content types, such as those of `twilio/quick-reply`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::content_kind::ContentKind;

/// Content of one type.
pub(crate) enum TypedContent {
    Text(TextFields),
    Media(MediaFields),
    Location(LocationFields),
    QuickReply(ActionFields),
    CallToAction(ActionFields),
    ListPicker(ListFields),
    Card(CardFields),
    Carousel(CarouselFields),
    Catalog(CatalogFields),
    Flow(FlowFields),
    Authentication(AuthenticationFields),
    Schedule,
}

#[derive(Deserialize)]
pub(crate) struct TextFields {
    pub(crate) body: String,
}

#[derive(Deserialize)]
pub(crate) struct MediaFields {
    pub(crate) body: Option<String>,
    pub(crate) media: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct LocationFields {
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) label: Option<String>,
    pub(crate) address: Option<String>,
}

/// Fields of `twilio/quick-reply`, `twilio/call-to-action` and `twilio/pay`.
#[derive(Deserialize)]
pub(crate) struct ActionFields {
    pub(crate) body: String,
    pub(crate) actions: Vec<ContentAction>,
}

#[derive(Deserialize)]
pub(crate) struct ListFields {
    pub(crate) body: String,
    /// Text of the button that opens the list.
    pub(crate) button: String,
    pub(crate) items: Vec<ListRow>,
}

#[derive(Deserialize)]
pub(crate) struct ListRow {
    pub(crate) item: String,
    pub(crate) id: String,
    pub(crate) description: Option<String>,
}

/// Fields of `twilio/card` and `whatsapp/card`.
#[derive(Deserialize)]
pub(crate) struct CardFields {
    #[serde(alias = "header_text")]
    pub(crate) title: Option<String>,
    pub(crate) body: Option<String>,
    #[serde(alias = "footer")]
    pub(crate) subtitle: Option<String>,
    #[serde(default)]
    pub(crate) media: Vec<String>,
    #[serde(default)]
    pub(crate) actions: Vec<ContentAction>,
}

#[derive(Deserialize)]
pub(crate) struct CarouselFields {
    pub(crate) body: String,
    pub(crate) cards: Vec<CarouselCard>,
}

#[derive(Deserialize)]
pub(crate) struct CarouselCard {
    pub(crate) title: Option<String>,
    pub(crate) body: String,
    pub(crate) media: String,
    pub(crate) actions: Vec<ContentAction>,
}

#[derive(Deserialize)]
pub(crate) struct CatalogFields {
    pub(crate) body: String,
    pub(crate) title: Option<String>,
    pub(crate) subtitle: Option<String>,
    #[serde(default)]
    pub(crate) items: Vec<CatalogProduct>,
    pub(crate) dynamic_items: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct CatalogProduct {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) media_url: Option<String>,
    pub(crate) price: Option<f64>,
    pub(crate) description: Option<String>,
}

/// Fields of `twilio/flows`, whose pages are in the template, and of `whatsapp/flows`, which names a Flow of Meta.
#[derive(Deserialize)]
pub(crate) struct FlowFields {
    pub(crate) body: String,
    pub(crate) button_text: String,
    pub(crate) subtitle: Option<String>,
    pub(crate) media_url: Option<String>,
    #[serde(default)]
    pub(crate) pages: Vec<FlowPage>,
}

#[derive(Deserialize)]
pub(crate) struct FlowPage {
    pub(crate) title: Option<String>,
    #[serde(default)]
    pub(crate) layout: Vec<FlowComponent>,
}

#[derive(Deserialize)]
pub(crate) struct FlowComponent {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) label: Option<String>,
    pub(crate) name: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct AuthenticationFields {
    pub(crate) actions: Vec<CopyCodeAction>,
}

#[derive(Deserialize)]
pub(crate) struct CopyCodeAction {
    pub(crate) copy_code_text: Option<String>,
}

/// Button of a message or card.
#[derive(Deserialize)]
pub(crate) struct ContentAction {
    /// `None` in a quick reply, where the type may be left out.
    #[serde(rename = "type")]
    pub(crate) kind: Option<ContentActionKind>,
    pub(crate) title: String,
    pub(crate) url: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) chip_list: bool,
    ttl_minutes: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ContentActionKind {
    QuickReply,
    Url,
    PhoneNumber,
    CopyCode,
    VoiceCall,
    VoiceCallRequest,
    RequestContactInfo,
    Pix,
    Boleto,
    PaymentLink,
}

impl ContentAction {
    pub(crate) fn kind(&self) -> ContentActionKind {
        self.kind.unwrap_or(ContentActionKind::QuickReply)
    }

    /// Returns an explanation of the first field that is missing or invalid.
    fn problem(&self) -> Option<String> {
        use ContentActionKind as A;
        let required = match self.kind() {
            A::Url => Some(("url", &self.url)),
            A::PhoneNumber => Some(("phone", &self.phone)),
            A::CopyCode => Some(("code", &self.code)),
            _ => None,
        };
        if let Some((name, value)) = required
            && value.as_deref().is_none_or(str::is_empty)
        {
            return Some(format!("{name}: required for this type of action"));
        }
        if self
            .ttl_minutes
            .is_some_and(|minutes| !(1..=43_200).contains(&minutes))
        {
            return Some("ttl_minutes: 1 to 43200".to_owned());
        }
        self.title
            .is_empty()
            .then(|| "title: must not be empty".to_owned())
    }
}

/// Parses the fields of a content type.
///
/// # Errors
/// An explanation that names the type and the field.
pub(crate) fn parse_type(name: &str, fields: &Value) -> Result<TypedContent, String> {
    let kind = ContentKind::parse(name).ok_or_else(|| {
        let known = ContentKind::names().join(", ");
        format!("types: unknown content type {name:?}; known types are {known}")
    })?;
    parse_fields(kind, fields).map_err(|problem| format!("types.{name}: {problem}"))
}

/// Parses the fields of a known content type.
///
/// # Errors
/// An explanation that names the field.
pub(crate) fn parse_fields(kind: ContentKind, fields: &Value) -> Result<TypedContent, String> {
    use ContentActionKind as A;
    use ContentKind as K;
    if !fields.is_object() {
        return Err("expected an object".to_owned());
    }
    Ok(match kind {
        K::Text => {
            let text: TextFields = parse(fields)?;
            require_text("body", &text.body)?;
            TypedContent::Text(text)
        }
        K::Media => {
            let media: MediaFields = parse(fields)?;
            count("media", media.media.len(), 10)?;
            TypedContent::Media(media)
        }
        K::Location => {
            let location: LocationFields = parse(fields)?;
            let is_on_earth = (-90.0..=90.0).contains(&location.latitude)
                && (-180.0..=180.0).contains(&location.longitude);
            if !is_on_earth {
                return Err("latitude: -90 to 90, and longitude: -180 to 180 degrees".to_owned());
            }
            TypedContent::Location(location)
        }
        K::QuickReply => {
            let question = parse_actions(fields, 10, &[A::QuickReply], false)?;
            TypedContent::QuickReply(question)
        }
        K::CallToAction => {
            let allowed = [
                A::Url,
                A::PhoneNumber,
                A::CopyCode,
                A::VoiceCall,
                A::VoiceCallRequest,
                A::RequestContactInfo,
            ];
            TypedContent::CallToAction(parse_actions(fields, 10, &allowed, true)?)
        }
        K::Pay => {
            let allowed = [A::Pix, A::Boleto, A::PaymentLink, A::CopyCode, A::Url];
            TypedContent::CallToAction(parse_actions(fields, 10, &allowed, true)?)
        }
        K::ListPicker => TypedContent::ListPicker(parse_list(fields)?),
        K::Card | K::WhatsAppCard => TypedContent::Card(parse_card(kind, fields)?),
        K::Carousel => TypedContent::Carousel(parse_carousel(fields)?),
        K::Catalog => {
            let catalog: CatalogFields = parse(fields)?;
            require_text("body", &catalog.body)?;
            if catalog.items.is_empty() && catalog.dynamic_items.is_none() {
                return Err("items or dynamic_items: one of them is required".to_owned());
            }
            TypedContent::Catalog(catalog)
        }
        K::Flows | K::WhatsAppFlows => {
            if kind == K::WhatsAppFlows && !fields["flow_id"].is_string() {
                return Err("missing field `flow_id`".to_owned());
            }
            if kind == K::Flows && !fields["pages"].is_array() {
                return Err("missing field `pages`".to_owned());
            }
            let flow: FlowFields = parse(fields)?;
            require_text("body", &flow.body)?;
            require_text("button_text", &flow.button_text)?;
            TypedContent::Flow(flow)
        }
        K::Authentication => {
            let authentication: AuthenticationFields = parse(fields)?;
            count("actions", authentication.actions.len(), 1)?;
            TypedContent::Authentication(authentication)
        }
        K::Schedule => TypedContent::Schedule,
    })
}

fn parse<T: DeserializeOwned>(fields: &Value) -> Result<T, String> {
    serde_json::from_value(fields.clone()).map_err(|error| error.to_string())
}

fn require_text(name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{name}: must not be empty"));
    }
    Ok(())
}

fn count(name: &str, number: usize, max: usize) -> Result<(), String> {
    if (1..=max).contains(&number) {
        Ok(())
    } else {
        Err(format!("{name}: {number} given; 1 to {max} are allowed"))
    }
}

fn parse_actions(
    fields: &Value,
    max: usize,
    allowed: &[ContentActionKind],
    needs_type: bool,
) -> Result<ActionFields, String> {
    let question: ActionFields = parse(fields)?;
    require_text("body", &question.body)?;
    count("actions", question.actions.len(), max)?;
    check_actions(&question.actions, allowed, needs_type)?;
    Ok(question)
}

fn check_actions(
    actions: &[ContentAction],
    allowed: &[ContentActionKind],
    needs_type: bool,
) -> Result<(), String> {
    for (index, action) in actions.iter().enumerate() {
        if needs_type && action.kind.is_none() {
            return Err(format!("actions[{index}]: missing field `type`"));
        }
        if !allowed.contains(&action.kind()) {
            return Err(format!("actions[{index}].type: not allowed here"));
        }
        if let Some(problem) = action.problem() {
            return Err(format!("actions[{index}].{problem}"));
        }
    }
    Ok(())
}

fn parse_list(fields: &Value) -> Result<ListFields, String> {
    let list: ListFields = parse(fields)?;
    require_text("body", &list.body)?;
    require_text("button", &list.button)?;
    count("items", list.items.len(), 10)?;
    for (index, row) in list.items.iter().enumerate() {
        require_text(&format!("items[{index}].item"), &row.item)?;
        require_text(&format!("items[{index}].id"), &row.id)?;
    }
    Ok(list)
}

fn parse_card(kind: ContentKind, fields: &Value) -> Result<CardFields, String> {
    use ContentActionKind as A;
    let card: CardFields = parse(fields)?;
    if kind == ContentKind::WhatsAppCard && card.body.is_none() {
        return Err("missing field `body`".to_owned());
    }
    if card.title.is_none() && card.body.is_none() {
        return Err("title or body: one of them is required".to_owned());
    }
    if card.actions.len() > 11 {
        return Err(format!(
            "actions: {} given; at most 11 are allowed",
            card.actions.len()
        ));
    }
    let allowed = [
        A::QuickReply,
        A::Url,
        A::PhoneNumber,
        A::CopyCode,
        A::VoiceCall,
        A::Pix,
        A::Boleto,
        A::PaymentLink,
    ];
    check_actions(&card.actions, &allowed, true)?;
    Ok(card)
}

fn parse_carousel(fields: &Value) -> Result<CarouselFields, String> {
    use ContentActionKind as A;
    let carousel: CarouselFields = parse(fields)?;
    require_text("body", &carousel.body)?;
    count("cards", carousel.cards.len(), 10)?;
    let kinds_of =
        |card: &CarouselCard| -> Vec<_> { card.actions.iter().map(ContentAction::kind).collect() };
    let first = kinds_of(&carousel.cards[0]);
    for (index, card) in carousel.cards.iter().enumerate() {
        let at = |problem: String| format!("cards[{index}].{problem}");
        require_text("media", &card.media).map_err(at)?;
        count("actions", card.actions.len(), 2).map_err(at)?;
        let allowed = [A::Url, A::PhoneNumber, A::QuickReply];
        check_actions(&card.actions, &allowed, true).map_err(at)?;
        if kinds_of(card) != first {
            return Err(at(
                "actions: not the same types in the same order as on the first card".to_owned(),
            ));
        }
    }
    Ok(carousel)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn invalid_type_is_explained_with_its_field() {
        let quick_reply = |action: Value| json!({"body": "b", "actions": [action]});
        for (name, fields, part) in [
            ("twilio/nope", json!({}), "unknown content type"),
            ("twilio/text", json!({}), "missing field `body`"),
            ("twilio/text", json!({"body": 1}), "expected a string"),
            ("twilio/text", json!("hi"), "expected an object"),
            ("twilio/media", json!({"media": []}), "media: 0 given"),
            (
                "twilio/location",
                json!({"latitude": 91.0, "longitude": 0.0}),
                "latitude",
            ),
            (
                "twilio/quick-reply",
                json!({"body": "b", "actions": []}),
                "1 to 10",
            ),
            (
                "twilio/quick-reply",
                quick_reply(json!({"type": "URL", "title": "t", "url": "u"})),
                "actions[0].type",
            ),
            (
                "twilio/quick-reply",
                quick_reply(json!({"title": ""})),
                "actions[0].title",
            ),
            (
                "twilio/call-to-action",
                quick_reply(json!({"type": "URL", "title": "t"})),
                "actions[0].url",
            ),
            (
                "twilio/call-to-action",
                quick_reply(json!({"type": "JUMP", "title": "t"})),
                "unknown variant",
            ),
            (
                "twilio/list-picker",
                json!({"body": "b", "button": "", "items": []}),
                "button",
            ),
            (
                "twilio/list-picker",
                json!({"body": "b", "button": "x", "items": [{"item": "a"}]}),
                "missing field `id`",
            ),
            ("twilio/card", json!({}), "title or body"),
            ("whatsapp/card", json!({"header_text": "h"}), "body"),
            ("whatsapp/flows", json!({"body": "b"}), "flow_id"),
            ("twilio/catalog", json!({"body": "b"}), "items"),
        ] {
            let problem = parse_type(name, &fields).err().unwrap_or_default();
            assert!(problem.contains(part), "{name}: {problem}");
        }
    }

    #[test]
    fn carousel_cards_need_the_same_buttons() {
        let card = |kind: &str| {
            json!({"body": "b", "media": "https://h/a.png",
            "actions": [{"type": kind, "title": "t", "url": "https://h", "phone": "+15550001111", "id": "i"}]})
        };
        let carousel = |second: &str| json!({"body": "b", "cards": [card("URL"), card(second)]});
        assert!(parse_type("twilio/carousel", &carousel("URL")).is_ok());
        let problem = parse_type("twilio/carousel", &carousel("QUICK_REPLY"));
        assert!(problem.err().unwrap().contains("cards[1].actions"));
    }
}
