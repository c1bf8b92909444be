//! Conversion of filled content to its form on a phone.

use std::collections::BTreeSet;

use super::content_type::{
    ActionFields, CardFields, CarouselFields, CatalogFields, ContentAction, ContentActionKind,
    FlowFields, ListFields, LocationFields, MediaFields, TypedContent,
};
use super::phone_content::{
    FlowInput, PhoneCard, PhoneContent, PhoneItem, PhoneItemKind, PhoneLayout,
};
use crate::shared_location::SharedLocation;
use replyhook_core::address::Channel;

/// Returns content as the phone shows it on a channel.
pub(crate) fn render(content: TypedContent, channel: &Channel) -> PhoneContent {
    match content {
        TypedContent::Text(text) => PhoneContent::new(PhoneLayout::Text, text.body),
        TypedContent::Media(media) => render_media(media),
        TypedContent::Location(location) => render_location(location),
        TypedContent::QuickReply(question) | TypedContent::CallToAction(question) => {
            render_buttons(question, channel)
        }
        TypedContent::ListPicker(list) => render_list(list),
        TypedContent::Card(card) => render_card(card, channel),
        TypedContent::Carousel(carousel) => render_carousel(carousel, channel),
        TypedContent::Catalog(catalog) => render_catalog(catalog),
        TypedContent::Flow(flow) => render_flow(flow),
        TypedContent::Authentication(authentication) => {
            // WhatsApp writes this text itself, in the template's language.
            let body = "Your verification code is on this button.".to_owned();
            let code = |action: super::content_type::CopyCodeAction| {
                let title = action.copy_code_text;
                item(
                    title.unwrap_or_else(|| "Copy code".to_owned()),
                    PhoneItemKind::Copy,
                )
            };
            PhoneContent {
                items: authentication.actions.into_iter().map(code).collect(),
                ..PhoneContent::new(PhoneLayout::Buttons, body)
            }
        }
        TypedContent::Schedule => PhoneContent::new(PhoneLayout::Text, String::new()),
    }
}

fn render_media(media: MediaFields) -> PhoneContent {
    PhoneContent {
        media: media.media,
        ..PhoneContent::new(PhoneLayout::Media, media.body.unwrap_or_default())
    }
}

fn render_location(location: LocationFields) -> PhoneContent {
    let body = location.label.clone().unwrap_or_default();
    PhoneContent {
        location: Some(SharedLocation {
            latitude: location.latitude,
            longitude: location.longitude,
            address: location.address,
            label: location.label,
        }),
        ..PhoneContent::new(PhoneLayout::Location, body)
    }
}

fn render_buttons(question: ActionFields, channel: &Channel) -> PhoneContent {
    let buttons = question.actions.into_iter();
    PhoneContent {
        items: buttons.map(|action| button(action, channel)).collect(),
        ..PhoneContent::new(PhoneLayout::Buttons, question.body)
    }
}

fn render_list(list: ListFields) -> PhoneContent {
    let row = |row: super::content_type::ListRow| {
        let shown = item(row.item, PhoneItemKind::Reply).identified_by(row.id);
        PhoneItem {
            description: row.description.filter(|text| !text.is_empty()),
            ..shown
        }
    };
    PhoneContent {
        button: Some(list.button),
        items: list.items.into_iter().map(row).collect(),
        ..PhoneContent::new(PhoneLayout::List, list.body)
    }
}

fn render_card(card: CardFields, channel: &Channel) -> PhoneContent {
    let body = card.body.unwrap_or_default();
    // RCS turns a card without media into a text with chips.
    let has_chips = *channel == Channel::Rcs && card.media.is_empty();
    let layout = if has_chips {
        PhoneLayout::Chips
    } else {
        PhoneLayout::Card
    };
    let buttons = card.actions.into_iter();
    // Without a body, the title is the text.
    let (title, body) = match card.title {
        Some(title) if body.is_empty() => (None, title),
        title => (title, body),
    };
    PhoneContent {
        title,
        subtitle: card.subtitle.filter(|text| !text.is_empty()),
        items: buttons.map(|action| button(action, channel)).collect(),
        media: card.media,
        ..PhoneContent::new(layout, body)
    }
}

fn render_carousel(carousel: CarouselFields, channel: &Channel) -> PhoneContent {
    // RCS drops the text above the cards.
    let body = if *channel == Channel::Rcs {
        String::new()
    } else {
        carousel.body
    };
    let cards: Vec<PhoneCard> = carousel
        .cards
        .into_iter()
        .map(|card| PhoneCard {
            title: card.title,
            body: card.body,
            items: card
                .actions
                .into_iter()
                .map(|action| button(action, channel))
                .collect(),
            media: vec![card.media],
        })
        .collect();
    let items = cards.iter().flat_map(|card| card.items.clone()).collect();
    PhoneContent {
        items,
        cards,
        ..PhoneContent::new(PhoneLayout::Carousel, body)
    }
}

fn render_catalog(catalog: CatalogFields) -> PhoneContent {
    let media = catalog
        .items
        .iter()
        .filter_map(|product| product.media_url.clone());
    let media = media.collect();
    let product = |product: super::content_type::CatalogProduct| {
        let id = product.id.unwrap_or_default();
        let name = product.name.unwrap_or_else(|| id.clone());
        let price = product.price.map(|price| price.to_string());
        let details: Vec<_> = [price, product.description].into_iter().flatten().collect();
        PhoneItem {
            id,
            description: Some(details.join(", ")).filter(|text| !text.is_empty()),
            ..item(name, PhoneItemKind::Other)
        }
    };
    PhoneContent {
        title: catalog.title,
        subtitle: catalog.subtitle,
        items: catalog.items.into_iter().map(product).collect(),
        media,
        ..PhoneContent::new(PhoneLayout::Card, catalog.body)
    }
}

fn render_flow(flow: FlowFields) -> PhoneContent {
    let mut names = BTreeSet::new();
    let mut inputs = Vec::new();
    for page in flow.pages {
        let title = page.title.unwrap_or_default();
        for component in page.layout {
            // The other components, such as headings, take no input.
            let takes_input = !component.kind.to_uppercase().contains("TEXT")
                || component.kind.to_uppercase().contains("INPUT");
            let label = component.label.unwrap_or_else(|| title.clone());
            let name = component.name.unwrap_or_else(|| label.clone());
            if takes_input && !name.is_empty() && names.insert(name.clone()) {
                inputs.push(FlowInput { name, label });
            }
        }
    }
    PhoneContent {
        subtitle: flow.subtitle,
        items: vec![item(flow.button_text, PhoneItemKind::Flow)],
        media: flow.media_url.into_iter().collect(),
        flow: Some(inputs),
        ..PhoneContent::new(PhoneLayout::Buttons, flow.body)
    }
}

fn button(action: ContentAction, channel: &Channel) -> PhoneItem {
    use ContentActionKind as A;
    let (kind, value) = match action.kind() {
        A::QuickReply => (PhoneItemKind::Reply, None),
        A::Url | A::PaymentLink => (PhoneItemKind::Link, action.url),
        A::PhoneNumber => (PhoneItemKind::Phone, action.phone),
        A::CopyCode => (PhoneItemKind::Copy, action.code),
        A::VoiceCall | A::VoiceCallRequest => (PhoneItemKind::Call, None),
        A::RequestContactInfo | A::Pix | A::Boleto => (PhoneItemKind::Other, action.code),
    };
    let id = action.id.filter(|id| !id.is_empty());
    let is_action = matches!(kind, PhoneItemKind::Link | PhoneItemKind::Phone);
    let is_reported = is_action && id.is_some() && *channel == Channel::Rcs;
    let id = id.unwrap_or_else(|| action.title.clone());
    PhoneItem {
        value,
        is_reported,
        ..item(action.title, kind).identified_by(id)
    }
}

fn item(title: String, kind: PhoneItemKind) -> PhoneItem {
    PhoneItem {
        id: title.clone(),
        question_payload: None,
        title,
        kind,
        description: None,
        value: None,
        is_reported: false,
    }
}
