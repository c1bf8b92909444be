//! What a pattern or a command took out of a text, as typed values.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Call, FromMessage};

/// What was taken out of a text.
#[derive(Clone, Default)]
pub(crate) enum Taken {
    /// Nothing: the route looks at something else.
    #[default]
    Nothing,
    /// A pattern's groups, in order, by name where they have one. The first is the whole match.
    Groups(Vec<(Option<String>, Option<String>)>),
    /// What stands behind a command.
    Rest(String),
    /// What several filters took that match together, each by itself.
    Several(Vec<Taken>),
}

/// What the route's pattern or command took out of the text, as a type of yours.
///
/// A struct takes named groups by name; a tuple takes groups, or the words behind a command, in order, and its last field all
/// that is left; a single value takes the only group, or all that stands behind the command. `Option` is for what may be
/// missing. What does not fit the type does not match: the next route is tried. Where several patterns or commands of a filter
/// match, names are found in each, and what goes by order in the first.
///
/// ```
/// use replyhook::route::{Captures, Router, command, regex};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Order {
///     id: u32,
///     size: Option<String>,
/// }
///
/// async fn order(Captures(order): Captures<Order>) -> String {
///     format!("Order {} ({})", order.id, order.size.unwrap_or_default())
/// }
///
/// async fn remind(Captures((minutes, what)): Captures<(u32, String)>) -> String {
///     format!("In {minutes} minutes: {what}")
/// }
///
/// let bot = Router::new()
///     .on(regex(r"^order (?<id>\d+)( (?<size>small|large))?$"), order)
///     .on(command("remind"), remind)
///     .otherwise("Write: order 42, or /remind 5 tea");
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Captures<T>(pub T);

impl<T: DeserializeOwned + Send, S> FromMessage<S> for Captures<T> {
    fn from_message(call: &Call<'_, S>) -> Option<Self> {
        T::deserialize(call.taken).ok().map(Self)
    }
}

impl Taken {
    /// What all of these took.
    pub(super) fn of(all: impl Iterator<Item = Self>) -> Self {
        let mut parts = Vec::new();
        for taken in all {
            match taken {
                Self::Nothing => {}
                Self::Several(more) => parts.extend(more),
                one => parts.push(one),
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
            one => std::slice::from_ref(one),
        }
    }

    /// The whole, for a single value.
    fn whole(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Several(parts) => parts[0].whole(),
            Self::Groups(groups) => {
                let only = usize::from(groups.len() == 2);
                groups.get(only)?.1.as_deref()
            }
            Self::Rest(rest) => Some(rest.as_str()).filter(|rest| !rest.is_empty()),
        }
    }

    /// So many values in order; the last one of a command has all that is left.
    fn in_order(&self, number: usize) -> Vec<Value> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Several(parts) => parts[0].in_order(number),
            Self::Groups(groups) => {
                let groups = groups.iter().skip(1);
                groups.map(|(_, value)| Value(value.clone())).collect()
            }
            Self::Rest(rest) => {
                let mut left = rest.as_str();
                let mut values = Vec::with_capacity(number);
                while values.len() < number {
                    let is_last = values.len() + 1 == number;
                    let end = if is_last {
                        None
                    } else {
                        left.find(char::is_whitespace)
                    };
                    let (word, more) = end.map_or((left, ""), |end| left.split_at(end));
                    left = more.trim_start();
                    values.push(Value(Some(word.to_owned()).filter(|word| !word.is_empty())));
                }
                values
            }
        }
    }

    /// The named values: of several with a name the first that is one.
    pub(crate) fn named(&self) -> BTreeMap<&str, Option<&str>> {
        let mut named = BTreeMap::new();
        for part in self.parts() {
            let Self::Groups(groups) = part else { continue };
            for (name, value) in groups {
                if let Some(name) = name {
                    let kept = named.entry(name.as_str()).or_insert(None);
                    *kept = kept.or(value.as_deref());
                }
            }
        }
        named
    }

    /// What stands behind the command, if one was called.
    #[cfg(feature = "rules")]
    pub(crate) fn rest(&self) -> Option<&str> {
        self.parts().iter().find_map(|part| match part {
            Self::Rest(rest) => Some(rest.as_str()),
            _ => None,
        })
    }
}

/// Nothing of what users wrote.
impl<T> fmt::Debug for Captures<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Captures(…)")
    }
}

/// Nothing of what users wrote.
impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken(…)")
    }
}

/// One value, or none: a text, and whatever can be read from one.
#[derive(Clone)]
struct Value(Option<String>);

impl IntoDeserializer<'_, Error> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let text = self.0.ok_or_else(missing)?;
            visitor.$visit(text.trim().parse::<$type>().map_err(serde::de::Error::custom)?)
        })+
    };
}

fn missing() -> Error {
    serde::de::Error::custom("nothing was said for it")
}

impl<'de> Deserializer<'de> for Value {
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

impl Taken {
    fn value(&self) -> Value {
        Value(self.whole().map(str::to_owned))
    }
}

impl<'de> Deserializer<'de> for &Taken {
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
        let words = match &self.parts()[0] {
            Taken::Rest(rest) => rest
                .split_whitespace()
                .map(|word| Value(Some(word.to_owned())))
                .collect(),
            _ => self.in_order(0),
        };
        visitor.visit_seq(SeqDeserializer::new(words.into_iter()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        number: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut values = SeqDeserializer::new(self.in_order(number).into_iter());
        let value = visitor.visit_seq(&mut values)?;
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
        let named = self.named().into_iter();
        let named = named.filter(|(_, value)| value.is_some());
        let values = named.map(|(name, value)| (name.to_owned(), Value(value.map(str::to_owned))));
        visitor.visit_map(MapDeserializer::new(values))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !self.named().is_empty() {
            return self.deserialize_map(visitor);
        }
        let values = self.in_order(fields.len());
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

    fn groups(groups: &[(Option<&str>, Option<&str>)]) -> Taken {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let groups = groups.iter();
        Taken::Groups(
            groups
                .map(|(name, value)| (owned(*name), owned(*value)))
                .collect(),
        )
    }

    fn read<T: DeserializeOwned>(taken: &Taken) -> Option<T> {
        T::deserialize(taken).ok()
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

    #[test]
    fn a_command_gives_words_in_order_and_the_last_field_what_is_left() {
        let rest = |text: &str| Taken::Rest(text.to_owned());
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
    fn debug_shows_nothing_that_was_written() {
        assert_eq!(format!("{:?}", Captures("+15550001111")), "Captures(…)");
    }

    #[test]
    fn a_pattern_gives_groups_by_name_or_in_order() {
        let taken = groups(&[
            (None, Some("order 7")),
            (Some("id"), Some("7")),
            (Some("size"), None),
        ]);
        assert_eq!(read::<Order>(&taken), Some(Order { id: 7, size: None }));
        assert_eq!(read::<(u32, Option<Size>)>(&taken), Some((7, None)));
        assert_eq!(read::<(u32,)>(&taken), None);
        assert_eq!(read::<String>(&taken), Some("order 7".to_owned()));
        assert_eq!(
            read::<u32>(&groups(&[(None, Some("no 7")), (None, Some("7"))])),
            Some(7)
        );
        assert_eq!(read::<u32>(&Taken::Nothing), None);
    }

    #[test]
    fn several_give_their_names_together_and_their_order_by_the_first() {
        let id = groups(&[
            (None, Some("7")),
            (Some("id"), Some("7")),
            (Some("size"), None),
        ]);
        let size = groups(&[(None, Some("large")), (Some("size"), Some("large"))]);
        let all = [Taken::Nothing, Taken::Rest("5 tea".to_owned()), id, size];
        let taken = Taken::of(all.into_iter());
        let order = Order {
            id: 7,
            size: Some(Size::Large),
        };
        assert_eq!(read::<Order>(&taken), Some(order));
        assert_eq!(read::<(u32, String)>(&taken), Some((5, "tea".to_owned())));
        assert_eq!(
            read::<Vec<String>>(&taken).map(|words| words.len()),
            Some(2)
        );
    }
}
