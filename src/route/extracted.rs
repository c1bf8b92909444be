//! Text captured by a filter, and its conversion into typed values.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Text captured by a filter.
#[derive(Clone, Default)]
pub(crate) enum Extracted {
    /// The filter does not capture text.
    #[default]
    Nothing,
    /// Groups of a pattern in order, each with its name, if any, and its text. The first is the whole match.
    Groups(Vec<(Option<String>, Option<String>)>),
    /// Text after a command.
    CommandArgs(String),
    /// Captures of several filters that matched together: at least two, none of them `Nothing` or `Several`.
    Several(Vec<Extracted>),
}

impl Extracted {
    /// Combines the captures of several filters, flattened and without the empty ones.
    pub(super) fn combine(all: impl Iterator<Item = Self>) -> Self {
        let mut parts = Vec::new();
        for captures in all {
            match captures {
                Self::Nothing => {}
                Self::Several(inner) => parts.extend(inner),
                single => parts.push(single),
            }
        }
        match parts.len() {
            0 => Self::Nothing,
            1 => parts.remove(0),
            _ => Self::Several(parts),
        }
    }

    fn parts(&self) -> &[Self] {
        match self {
            Self::Several(parts) => parts,
            single => std::slice::from_ref(single),
        }
    }

    /// Returns the text for a single value.
    fn single_value(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            // `combine` never builds `Several` with fewer than two parts.
            Self::Several(parts) => parts[0].single_value(),
            Self::Groups(groups) => {
                // Index 0 is the whole match, so a length of 2 means that the pattern has exactly one group.
                let index = usize::from(groups.len() == 2);
                groups.get(index)?.1.as_deref()
            }
            Self::CommandArgs(rest) => Some(rest.as_str()).filter(|rest| !rest.is_empty()),
        }
    }

    /// Returns the values by position. For a command these are `number` values, the last of which has the rest of the
    /// text.
    fn positional_values(&self, number: usize) -> Vec<CapturedText> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Several(parts) => parts[0].positional_values(number),
            Self::Groups(groups) => {
                let groups = groups.iter().skip(1);
                groups
                    .map(|(_, value)| CapturedText(value.clone()))
                    .collect()
            }
            Self::CommandArgs(rest) => {
                let mut remaining = rest.as_str();
                let mut values = Vec::with_capacity(number);
                while values.len() < number {
                    let is_last = values.len() + 1 == number;
                    let end = if is_last {
                        None
                    } else {
                        remaining.find(char::is_whitespace)
                    };
                    let (word, more) = end.map_or((remaining, ""), |end| remaining.split_at(end));
                    remaining = more.trim_start();
                    // Missing words become `None`, so that trailing `Option` fields may be left out.
                    values.push(CapturedText(
                        Some(word.to_owned()).filter(|word| !word.is_empty()),
                    ));
                }
                values
            }
        }
    }

    /// Returns the named groups. If several have the same name, the first with a value counts.
    pub(crate) fn named_groups(&self) -> BTreeMap<&str, Option<&str>> {
        let mut named = BTreeMap::new();
        for part in self.parts() {
            let Self::Groups(groups) = part else { continue };
            for (name, value) in groups {
                if let Some(name) = name {
                    let entry = named.entry(name.as_str()).or_insert(None);
                    *entry = entry.or(value.as_deref());
                }
            }
        }
        named
    }

    /// Returns the text after the command, if the filter matched one.
    #[cfg(feature = "rules")]
    pub(crate) fn command_args(&self) -> Option<&str> {
        self.parts().iter().find_map(|part| match part {
            Self::CommandArgs(rest) => Some(rest.as_str()),
            _ => None,
        })
    }
}

/// Hides the captured text, which users wrote.
impl fmt::Debug for Extracted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extracted(…)")
    }
}

/// One captured text, or `None` if its group did not take part in the match. Deserializes into types that parse from
/// text.
#[derive(Clone)]
struct CapturedText(Option<String>);

impl IntoDeserializer<'_, Error> for CapturedText {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let text = self.0.ok_or_else(missing)?;
            // A group may include white space around a number, which `parse` rejects.
            visitor.$visit(text.trim().parse::<$type>().map_err(serde::de::Error::custom)?)
        })+
    };
}

fn missing() -> Error {
    serde::de::Error::custom("no text was captured for this value")
}

impl<'de> Deserializer<'de> for CapturedText {
    type Error = Error;

    parsed! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
        deserialize_char visit_char char,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0.ok_or_else(missing)?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            None => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant: StringDeserializer<Error> = self.0.ok_or_else(missing)?.into_deserializer();
        variant.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

macro_rules! single {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.value().$method(visitor)
        })+
    };
}

impl Extracted {
    fn value(&self) -> CapturedText {
        CapturedText(self.single_value().map(str::to_owned))
    }
}

impl<'de> Deserializer<'de> for &Extracted {
    type Error = Error;

    single! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
        deserialize_identifier
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // A sequence has no fixed length, so `positional_values` would not know into how many words to split a
        // command's text.
        let words = match &self.parts()[0] {
            Extracted::CommandArgs(rest) => rest
                .split_whitespace()
                .map(|word| CapturedText(Some(word.to_owned())))
                .collect(),
            _ => self.positional_values(0),
        };
        visitor.visit_seq(SeqDeserializer::new(words.into_iter()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        number: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut values = SeqDeserializer::new(self.positional_values(number).into_iter());
        let value = visitor.visit_seq(&mut values)?;
        // A pattern with more groups than the tuple has fields does not fit.
        values.end()?;
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        number: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(number, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let named = self.named_groups().into_iter();
        // Omit groups without a value: serde then fills an `Option` with `None`, and rejects other fields as missing.
        let named = named.filter(|(_, value)| value.is_some());
        let values =
            named.map(|(name, value)| (name.to_owned(), CapturedText(value.map(str::to_owned))));
        visitor.visit_map(MapDeserializer::new(values))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !self.named_groups().is_empty() {
            return self.deserialize_map(visitor);
        }
        // Without named groups the fields take the values by position, in the order of their declaration.
        let values = self.positional_values(fields.len());
        let values = fields.iter().copied().zip(values);
        visitor.visit_map(MapDeserializer::new(
            values.filter(|(_, value)| value.0.is_some()),
        ))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value().deserialize_enum(name, variants, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    fn groups(groups: &[(Option<&str>, Option<&str>)]) -> Extracted {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let groups = groups.iter();
        Extracted::Groups(
            groups
                .map(|(name, value)| (owned(*name), owned(*value)))
                .collect(),
        )
    }

    fn read<T: DeserializeOwned>(captures: &Extracted) -> Option<T> {
        T::deserialize(captures).ok()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Size {
        Small,
        Large,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Order {
        id: u32,
        size: Option<Size>,
    }

    // The last field of a tuple takes the rest of the text.
    #[test]
    fn command_captures_assign_words_in_order() {
        let rest = |text: &str| Extracted::CommandArgs(text.to_owned());
        assert_eq!(read::<u32>(&rest("42")), Some(42));
        assert_eq!(read::<u32>(&rest("")), None);
        assert_eq!(read::<Option<u32>>(&rest("")), Some(None));
        assert_eq!(read::<u32>(&rest("forty")), None);
        assert_eq!(
            read::<String>(&rest("two words")),
            Some("two words".to_owned())
        );
        assert_eq!(
            read::<(u32, String)>(&rest("5 green  tea")),
            Some((5, "green  tea".to_owned()))
        );
        assert_eq!(read::<(u32, u32)>(&rest("5 6 7")), None);
        assert_eq!(read::<(u32, Option<u32>)>(&rest("5")), Some((5, None)));
        assert_eq!(read::<Vec<u32>>(&rest("5 6 7")), Some(vec![5, 6, 7]));
        let order = Order {
            id: 7,
            size: Some(Size::Large),
        };
        assert_eq!(read::<Order>(&rest("7 large")), Some(order));
        assert_eq!(read::<Order>(&rest("7 huge")), None);
        assert_eq!(read::<()>(&rest("7")), Some(()));
    }

    #[test]
    fn pattern_captures_groups_by_name_or_position() {
        let captures = groups(&[
            (None, Some("order 7")),
            (Some("id"), Some("7")),
            (Some("size"), None),
        ]);
        assert_eq!(read::<Order>(&captures), Some(Order { id: 7, size: None }));
        assert_eq!(read::<(u32, Option<Size>)>(&captures), Some((7, None)));
        // The pattern has two groups, the tuple one field.
        assert_eq!(read::<(u32,)>(&captures), None);
        // With several groups a single value takes the whole match.
        assert_eq!(read::<String>(&captures), Some("order 7".to_owned()));
        assert_eq!(
            read::<u32>(&groups(&[(None, Some("no 7")), (None, Some("7"))])),
            Some(7)
        );
        assert_eq!(read::<u32>(&Extracted::Nothing), None);
    }

    // Positional captures come from the first filter that has any.
    #[test]
    fn combined_filters_merge_named_captures() {
        let id = groups(&[
            (None, Some("7")),
            (Some("id"), Some("7")),
            (Some("size"), None),
        ]);
        let size = groups(&[(None, Some("large")), (Some("size"), Some("large"))]);
        let all = [
            Extracted::Nothing,
            Extracted::CommandArgs("5 tea".to_owned()),
            id,
            size,
        ];
        let captures = Extracted::combine(all.into_iter());
        let order = Order {
            id: 7,
            size: Some(Size::Large),
        };
        assert_eq!(read::<Order>(&captures), Some(order));
        assert_eq!(
            read::<(u32, String)>(&captures),
            Some((5, "tea".to_owned()))
        );
        assert_eq!(
            read::<Vec<String>>(&captures).map(|words| words.len()),
            Some(2)
        );
    }
}
