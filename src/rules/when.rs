//! `when`: the condition of a rule. All keys of a table must match, and of a list of texts at least one.

use std::collections::BTreeMap;

use super::reader::{Fields, Located, RulesReader, is_name};
use super::template;
use crate::address::Channel;
use crate::address_pattern::AddressPattern;
use crate::route::{self, Filter, Hours};
use crate::spelling::nearest;

/// A filter, and the names of the values that it captures.
pub(super) struct RuleCondition {
    pub(super) filter: Filter,
    pub(super) names: Vec<String>,
}

/// The time zone of the file, and its named hours.
pub(super) struct TimeSettings {
    pub(super) zone: String,
    pub(super) named: BTreeMap<String, Hours>,
}

const CHANNELS: [(&str, Channel); 4] = [
    ("whatsapp", Channel::WhatsApp),
    ("sms", Channel::Sms),
    ("rcs", Channel::Rcs),
    ("messenger", Channel::Messenger),
];

const MEDIA: [&str; 5] = ["image", "audio", "video", "document", "contact"];

/// Creates a filter that matches any of several texts.
type TextsFilter = fn(Vec<String>) -> Filter;
/// Creates a filter without arguments.
type PlainFilter = fn() -> Filter;
type CombineFilters = fn(Vec<Filter>) -> Filter;

const BY_TEXTS: [(&str, TextsFilter); 3] = [
    ("text", |texts| route::text(texts)),
    ("words", |texts| route::words(texts)),
    ("country", |texts| route::country(texts)),
];
const BY_CHOICE: [(&str, PlainFilter, TextsFilter); 3] = [
    ("choice", route::any_choice, |texts| route::choice(texts)),
    ("button", route::any_button, |texts| route::button(texts)),
    ("list", route::any_list_item, |texts| {
        route::list_item(texts)
    }),
];
const BY_FLAG: [(&str, PlainFilter); 4] = [
    ("flow", route::flow_response),
    ("first_contact", route::first_contact),
    ("forwarded", route::forwarded),
    ("quotes_our_message", route::quotes_our_message),
];
/// Creates a filter that matches any of several addresses.
type AddressFilter = fn(Vec<AddressPattern>) -> Filter;

const BY_ADDRESS: [(&str, AddressFilter); 2] = [("from", route::sent_by), ("to", route::sent_to)];
const COMBINED: [(&str, CombineFilters); 2] = [("any", route::any), ("all", route::all)];

/// Reads a `when`. Keys with problems are reported and left out.
pub(super) fn read(
    reader: &mut RulesReader<'_>,
    mut fields: Fields<'_>,
    times: &TimeSettings,
) -> RuleCondition {
    let mut when = WhenReader {
        reader,
        filters: Vec::new(),
        names: Vec::new(),
    };
    when.read_texts(&mut fields);
    when.read_choices(&mut fields);
    when.read_flags(&mut fields);
    when.read_command(&mut fields);
    when.read_regex(&mut fields);
    when.read_media(&mut fields);
    when.read_location(&mut fields);
    when.read_channel(&mut fields);
    when.read_addresses(&mut fields);
    when.read_hours(&mut fields, times);
    when.read_combined(&mut fields, times);
    let WhenReader { filters, names, .. } = when;
    if fields.is_empty() {
        let text = "when is empty: leave it out for every message";
        reader.add_problem(&fields.span, text);
    }
    reader.report_unknown_keys(&fields);
    let filter = if filters.is_empty() {
        route::anything()
    } else {
        route::all(filters)
    };
    RuleCondition { filter, names }
}

struct WhenReader<'r, 's> {
    reader: &'r mut RulesReader<'s>,
    filters: Vec<Filter>,
    names: Vec<String>,
}

impl WhenReader<'_, '_> {
    fn read_texts(&mut self, fields: &mut Fields<'_>) {
        for (key, make) in BY_TEXTS {
            let Some(value) = fields.take(key) else {
                continue;
            };
            let Some(texts) = self.reader.texts(value, key) else {
                continue;
            };
            // A rule that never matches, or always, is a mistake that no message would reveal.
            if let Some(message) = texts.iter().find_map(|text| text_problem(key, text)) {
                self.reader.add_problem(&value.span(), message);
            }
            self.filters.push(make(texts));
        }
    }

    fn read_choices(&mut self, fields: &mut Fields<'_>) {
        for (key, any, make) in BY_CHOICE {
            let Some(value) = fields.take(key) else {
                continue;
            };
            let filter = match value.get_ref().as_bool() {
                Some(wanted) => Some(negate_unless(any(), wanted)),
                None => self.reader.filled_texts(value, key).map(make),
            };
            self.filters.extend(filter);
        }
    }

    fn read_flags(&mut self, fields: &mut Fields<'_>) {
        for (key, make) in BY_FLAG {
            let wanted = self.reader.flag(fields, key);
            self.filters
                .extend(wanted.map(|wanted| negate_unless(make(), wanted)));
        }
    }

    fn read_command(&mut self, fields: &mut Fields<'_>) {
        let Some(name) = self.reader.text(fields, "command") else {
            return;
        };
        let word = name.value.trim().trim_start_matches('/');
        if word.is_empty() || word.contains(char::is_whitespace) {
            let text = "command is one word, as in \"order\" for /order 42";
            return self.reader.add_problem(&name.span, text);
        }
        self.filters.push(route::command(word));
    }

    fn read_regex(&mut self, fields: &mut Fields<'_>) {
        let Some(pattern) = self.reader.text(fields, "regex") else {
            return;
        };
        if pattern.value.trim().is_empty() {
            let text =
                "regex is empty: write a pattern, or text = \"\" for a message without a text";
            return self.reader.add_problem(&pattern.span, text);
        }
        match self.reader.compile_pattern(&pattern.value) {
            Ok(compiled) => {
                let filter = route::regex_filter(compiled);
                for name in filter.group_names() {
                    if template::BUILT_IN_NAMES.contains(&name) {
                        let text = format!(
                            "{name} is a name that every template has: choose another name"
                        );
                        self.reader.add_problem(&pattern.span, text);
                    }
                    self.names.push(name.to_owned());
                }
                self.filters.push(filter);
            }
            Err(text) => {
                // Define the names that the pattern would capture, so that their use in a template is not a second
                // problem.
                self.names.extend(guess_group_names(&pattern.value));
                self.reader.add_problem(&pattern.span, text);
            }
        }
    }

    fn read_media(&mut self, fields: &mut Fields<'_>) {
        let Some(value) = fields.take("media") else {
            return;
        };
        if let Some(wanted) = value.get_ref().as_bool() {
            return self.filters.push(negate_unless(route::any_media(), wanted));
        }
        let Some(kinds) = self.reader.texts(value, "media") else {
            return;
        };
        for kind in &kinds {
            if !kind.contains('/') && !MEDIA.contains(&kind.as_str()) {
                let text = match nearest(kind, MEDIA.into_iter()) {
                    Some(known) => format!("media is {kind:?}: did you mean {known:?}?"),
                    None => format!(
                        "media is {kind:?}: write {}, or a type such as \"application/pdf\"",
                        MEDIA.join(", ")
                    ),
                };
                self.reader.add_problem(&value.span(), text);
            }
        }
        let kinds = kinds.into_iter().map(route::media);
        self.filters.push(route::any(kinds.collect()));
    }

    fn read_location(&mut self, fields: &mut Fields<'_>) {
        let Some(value) = fields.take("location") else {
            return;
        };
        if let Some(wanted) = value.get_ref().as_bool() {
            return self.filters.push(negate_unless(route::location(), wanted));
        }
        let Some(mut table) = self.reader.table_of(value, "location") else {
            return;
        };
        let latitude = self.reader.number(&mut table, "latitude");
        let longitude = self.reader.number(&mut table, "longitude");
        let km = self.reader.number(&mut table, "km");
        self.reader.report_unknown_keys(&table);
        // Report only missing keys here: for a key of a wrong type that was done.
        let is_whole = ["latitude", "longitude", "km"]
            .iter()
            .all(|key| table.has(key));
        let (Some(latitude), Some(longitude), Some(km)) = (latitude, longitude, km) else {
            if !is_whole {
                let text = "location is true, or { latitude = 52.52, longitude = 13.405, km = 5 }";
                self.reader.add_problem(&table.span, text);
            }
            return;
        };
        let message = if latitude.abs() > 90.0 {
            "latitude is from -90 to 90"
        } else if longitude.abs() > 180.0 {
            "longitude is from -180 to 180"
        } else if km <= 0.0 {
            "km is above 0"
        } else {
            return self.filters.push(route::within_km(latitude, longitude, km));
        };
        self.reader.add_problem(&table.span, message);
    }

    fn read_channel(&mut self, fields: &mut Fields<'_>) {
        let Some(value) = fields.take("channel") else {
            return;
        };
        let mut filters = Vec::new();
        for name in self.reader.texts(value, "channel").unwrap_or_default() {
            match CHANNELS.iter().find(|(known, _)| *known == name) {
                Some((_, channel)) => filters.push(route::channel(channel.clone())),
                None => self.reader.add_problem(
                    &value.span(),
                    format!(
                        "channel is {name:?}: write \"whatsapp\", \"sms\", \"rcs\" or \"messenger\""
                    ),
                ),
            }
        }
        if !filters.is_empty() {
            self.filters.push(route::any(filters));
        }
    }

    fn read_addresses(&mut self, fields: &mut Fields<'_>) {
        for (key, make) in BY_ADDRESS {
            let Some(value) = fields.take(key) else {
                continue;
            };
            let mut patterns = Vec::new();
            let texts = self.reader.texts(value, key).unwrap_or_default();
            for (number, text) in (1..).zip(texts) {
                match AddressPattern::parse(&text) {
                    Ok(pattern) => patterns.push(pattern),
                    // Without the text, which may be a phone number.
                    Err(error) => self
                        .reader
                        .add_problem(&value.span(), format!("{key}, entry {number}: {error}")),
                }
            }
            if !patterns.is_empty() {
                self.filters.push(make(patterns));
            }
        }
    }

    fn read_hours(&mut self, fields: &mut Fields<'_>, times: &TimeSettings) {
        let Some(text) = self.reader.text(fields, "hours") else {
            return;
        };
        // A name first, since `[hours]` may use any word; anything else is read as hours.
        if let Some(hours) = times.named.get(&text.value) {
            return self.filters.push(route::during(hours.clone()));
        }
        match Hours::parse(&text.value, &times.zone) {
            Ok(hours) => self.filters.push(route::during(hours)),
            Err(error) => {
                let named = nearest(&text.value, times.named.keys().map(String::as_str));
                let message = match named {
                    Some(named) => format!("{error}; or did you mean {named:?} of [hours]?"),
                    None => error.to_string(),
                };
                self.reader.add_problem(&text.span, message);
            }
        }
    }

    fn read_combined(&mut self, fields: &mut Fields<'_>, times: &TimeSettings) {
        // Drops the names: a condition that did not match has captured nothing.
        if let Some(table) = self.reader.table(fields, "not") {
            self.filters.push(!read(self.reader, table, times).filter);
        }
        for (key, combine) in COMBINED {
            let mut filters = Vec::new();
            let written = format!("{key} = [{{ … }}, {{ … }}]");
            for table in self.reader.tables(fields, key, &written) {
                let found = read(self.reader, table, times);
                self.names.extend(found.names);
                filters.push(found.filter);
            }
            if !filters.is_empty() {
                self.filters.push(combine(filters));
            }
        }
    }
}

/// Returns the problem of a text that would match no message or every message.
fn text_problem(key: &str, text: &str) -> Option<String> {
    match key {
        "words" if !route::has_word(text) => Some(format!(
            "words has {text:?}, which has no word in it: write text or regex for signs"
        )),
        "country" if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_alphabetic()) => Some(
            format!("country is {text:?}: write two letters, as in \"DE\""),
        ),
        "country" if text.eq_ignore_ascii_case("UK") => {
            Some("country is \"UK\": the United Kingdom is \"GB\"".to_owned())
        }
        _ => None,
    }
}

fn negate_unless(filter: Filter, wanted: bool) -> Filter {
    if wanted { filter } else { !filter }
}

/// Returns the names of the groups of an invalid pattern, as far as they can be found in its text.
fn guess_group_names(pattern: &str) -> impl Iterator<Item = String> {
    let behind = pattern.split("(?").skip(1);
    behind.filter_map(|text| {
        let text = text.strip_prefix('P').unwrap_or(text).strip_prefix('<')?;
        let (name, _) = text.split_once('>')?;
        is_name(name).then(|| name.to_owned())
    })
}

/// Reads `timezone` and `[hours]`.
pub(super) fn read_times(reader: &mut RulesReader<'_>, fields: &mut Fields<'_>) -> TimeSettings {
    let zone = reader.text(fields, "timezone").unwrap_or_else(|| Located {
        value: "UTC".to_owned(),
        span: 0..0,
    });
    let mut named = BTreeMap::new();
    // Parse any valid hours to check the zone. An unknown zone is reported once, and UTC stands in for it: otherwise
    // every `hours` of the file would report it again.
    let zone_check = Hours::parse("mon", &zone.value);
    if let Err(error) = &zone_check {
        reader.add_problem(&zone.span, error.to_string());
    }
    let zone = if zone_check.is_ok() {
        zone.value
    } else {
        "UTC".to_owned()
    };
    let mut times = TimeSettings {
        zone,
        named: BTreeMap::new(),
    };
    if let Some(hours) = reader.table(fields, "hours") {
        for (name, value) in hours.entries() {
            let Some(text) = value.get_ref().as_str() else {
                let text = "hours are a text, as in open = \"mon-fri 09:00-17:30\"";
                reader.add_problem(&value.span(), text);
                continue;
            };
            match Hours::parse(text, &times.zone) {
                Ok(hours) => {
                    named.insert(name.value, hours);
                }
                Err(error) => reader.add_problem(&value.span(), error.to_string()),
            }
        }
    }
    times.named = named;
    times
}
