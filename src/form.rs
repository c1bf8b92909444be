//! The decoded pairs of a request: decoded once, in the order they came, verified and read from the same place.
//!
//! `application/x-www-form-urlencoded` as the URL standard decodes it (`+` is a space, a stray `%` stays, a name without
//! `=` has an empty value, empty pieces between `&` are no pairs), but strict about UTF-8: what is no text is refused
//! instead of replaced, since a replaced character would be another text than the one that was signed.
//!
//! All names and values stand one after the other in one buffer; a pair is two offsets into it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

/// Decoded pairs, in order. Texts of users are in here: `Debug` shows the names only.
///
/// ```
/// use replyhook::Form;
///
/// let form = Form::parse(b"Body=two+words&From=whatsapp%3A%2B15550001111", 512)?;
/// assert_eq!(form.get("Body"), Some("two words"));
/// assert_eq!(form.get("From"), Some("whatsapp:+15550001111"));
/// let made = Form::from_iter([("Body", "a & b"), ("To", "+1")]);
/// assert_eq!(made.encode(), "Body=a+%26+b&To=%2B1");
/// assert_eq!(format!("{made:?}"), r#"["Body", "To"]"#);
/// # Ok::<(), replyhook::form::FormError>(())
/// ```
#[derive(Clone, Default)]
pub struct Form {
    text: String,
    pairs: Vec<Pair>,
    /// What was decoded, if it was a text.
    came: Option<Box<str>>,
}

/// `start..middle` is the name, `middle..end` the value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pair {
    /// The first eight bytes of the name: they decide nearly every comparison without a look into the text.
    key: u64,
    start: u32,
    middle: u32,
    end: u32,
}

/// What is no form. It repeats nothing of the input.
///
/// ```
/// use replyhook::form::{Form, FormError};
///
/// assert_eq!(Form::parse(b"a=1&b=2&c=3", 2), Err(FormError::TooManyPairs { limit: 2 }));
/// assert_eq!(Form::parse(b"a=%ff", 512), Err(FormError::NotUtf8 { length: 5 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// More pairs than allowed.
    #[error("more than {limit} parameters")]
    TooManyPairs {
        /// The most that is taken.
        limit: usize,
    },
    /// The decoded bytes of a name or value are not UTF-8.
    #[error("a parameter is not UTF-8 ({length} bytes of input)")]
    NotUtf8 {
        /// Bytes of the whole input.
        length: usize,
    },
    /// More than 4 GiB: the offsets are 32 bits wide.
    #[error("too long to be a form")]
    TooLong,
}

/// A parameter that may be given once came with two different values.
///
/// ```
/// use replyhook::form::{AmbiguousParam, Form};
///
/// let form = Form::from_iter([("From", "+1"), ("Body", "hi"), ("From", "+2")]);
/// assert_eq!(form.single("Body"), Ok(Some("hi")));
/// assert_eq!(form.single("From"), Err(AmbiguousParam { name: "From" }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} came with two different values")]
pub struct AmbiguousParam {
    /// Its name.
    pub name: &'static str,
}

/// How names and repeated values are sorted before they are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortOrder {
    /// By UTF-8 bytes, which is by code points.
    Bytes,
    /// By UTF-16 units, as JavaScript, Java and .NET do. Differs only beyond U+FFFF.
    Utf16,
}

/// The bytes that end a run of bytes that stand for themselves.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'&' as usize] = true;
    table[b'=' as usize] = true;
    table[b'+' as usize] = true;
    table[b'%' as usize] = true;
    table
};

impl Form {
    /// Decodes a body or a query (without its `?`).
    ///
    /// # Errors
    /// [`FormError`] when there are more than `max_pairs` pairs or one of them is not UTF-8.
    pub fn parse(input: &[u8], max_pairs: usize) -> Result<Self, FormError> {
        if u32::try_from(input.len()).is_err() {
            return Err(FormError::TooLong);
        }
        // Decoding never lengthens: every offset fits where the input's length does.
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let mut text = Vec::with_capacity(input.len());
        let mut pairs = Vec::with_capacity(32);
        let mut rest = input;
        while !rest.is_empty() {
            if let [b'&', after @ ..] = rest {
                rest = after;
                continue;
            }
            if pairs.len() == max_pairs {
                return Err(FormError::TooManyPairs { limit: max_pairs });
            }
            let start = offset(text.len());
            let mut middle = None;
            loop {
                let run = rest.iter().position(|byte| SPECIAL[usize::from(*byte)]);
                let (plain, special) = rest.split_at(run.unwrap_or(rest.len()));
                text.extend_from_slice(plain);
                rest = match special {
                    [] => {
                        rest = special;
                        break;
                    }
                    [b'&', after @ ..] => {
                        rest = after;
                        break;
                    }
                    [b'=', after @ ..] if middle.is_none() => {
                        middle = Some(offset(text.len()));
                        after
                    }
                    [b'+', after @ ..] => {
                        text.push(b' ');
                        after
                    }
                    [b'%', high, low, after @ ..]
                        if HEX[usize::from(*high)] | HEX[usize::from(*low)] < 16 =>
                    {
                        text.push(HEX[usize::from(*high)] << 4 | HEX[usize::from(*low)]);
                        after
                    }
                    [other, after @ ..] => {
                        text.push(*other);
                        after
                    }
                };
            }
            let end = offset(text.len());
            let middle = middle.unwrap_or(end);
            pairs.push(Pair {
                key: leading_bytes(&text[start as usize..middle as usize]),
                start,
                middle,
                end,
            });
        }
        let error = FormError::NotUtf8 {
            length: input.len(),
        };
        let text = String::from_utf8(text).map_err(|_| error)?;
        // Two halves of a character in a name and its value would be valid together and not apart.
        let apart = |at: u32| text.is_char_boundary(at as usize);
        if !pairs
            .iter()
            .all(|pair| apart(pair.start) && apart(pair.middle))
        {
            return Err(error);
        }
        let came = std::str::from_utf8(input).ok().map(Box::from);
        Ok(Self { text, pairs, came })
    }

    /// All pairs in the order they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        self.pairs
            .iter()
            .map(|pair| (self.name(*pair), self.value(*pair)))
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    fn values<'form, 'name>(
        &'form self,
        name: &'name str,
    ) -> impl Iterator<Item = &'form str> + use<'form, 'name> {
        let key = leading_bytes(name.as_bytes());
        let named = move |pair: &&Pair| pair.key == key && self.name(**pair) == name;
        self.pairs
            .iter()
            .filter(named)
            .map(|pair| self.value(*pair))
    }

    /// The value of a name that may be given once; repeats of the same value count once.
    ///
    /// # Errors
    /// [`AmbiguousParam`] when it came with two different values: whoever reads the first and whoever reads the last
    /// would disagree on what was signed.
    pub fn single(&self, name: &'static str) -> Result<Option<&str>, AmbiguousParam> {
        let mut values = self.values(name);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            return Err(AmbiguousParam { name });
        }
        Ok(first)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs as they came, if that was a text, and encoded otherwise: [`parse`](Self::parse) makes the same of both.
    ///
    /// ```
    /// use replyhook::Form;
    ///
    /// let form = Form::parse(b"Body=it's&Empty", 512)?;
    /// assert_eq!(form.as_it_came(), "Body=it's&Empty");
    /// assert_eq!(form.encode(), "Body=it%27s&Empty=");
    /// # Ok::<(), replyhook::form::FormError>(())
    /// ```
    pub fn as_it_came(&self) -> Cow<'_, str> {
        match &self.came {
            Some(came) => Cow::Borrowed(came),
            None => Cow::Owned(self.encode()),
        }
    }

    /// Encodes the pairs again, in order.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(self.text.len() * 2);
        for (name, value) in self.iter() {
            if !out.is_empty() {
                out.push('&');
            }
            encode_into(&mut out, name);
            out.push('=');
            encode_into(&mut out, value);
        }
        out
    }

    /// Appends what is signed of the pairs: sorted by name, each name followed by its value; of a repeated name the
    /// distinct values, sorted, the name before each.
    ///
    /// Source: twilio-python and twilio-node's validators, and the Conversations webhooks that repeat a name.
    pub(crate) fn append_signed(&self, order: SortOrder, out: &mut Vec<u8>) {
        for pair in self.signed(order) {
            out.extend_from_slice(self.bytes(pair.start..pair.end));
        }
    }

    /// The names and values whose bytes [`append_signed`](Self::append_signed) appends, in its order.
    pub(crate) fn signed_pairs(&self, order: SortOrder) -> impl Iterator<Item = (&str, &str)> {
        self.signed(order)
            .map(|pair| (self.name(pair), self.value(pair)))
    }

    fn signed(&self, order: SortOrder) -> impl Iterator<Item = Pair> {
        let mut sorted = self.pairs.clone();
        sorted.sort_unstable_by(|a, b| {
            // In ASCII both orders agree.
            if a.key != b.key && (a.key | b.key) & NOT_ASCII == 0 {
                a.key.cmp(&b.key)
            } else {
                self.compare(order, *a, *b)
            }
        });
        let mut last: Option<Pair> = None;
        sorted.into_iter().filter(move |pair| {
            let repeats = last.is_some_and(|last| {
                last.key == pair.key && self.compare(order, last, *pair).is_eq()
            });
            last = Some(*pair);
            !repeats
        })
    }

    #[cold]
    fn compare(&self, order: SortOrder, a: Pair, b: Pair) -> Ordering {
        let texts = match order {
            SortOrder::Bytes => str::cmp,
            SortOrder::Utf16 => utf16_order,
        };
        texts(self.name(a), self.name(b)).then_with(|| texts(self.value(a), self.value(b)))
    }

    fn bytes(&self, at: Range<u32>) -> &[u8] {
        &self.text.as_bytes()[at.start as usize..at.end as usize]
    }

    /// Whether [`SortOrder::Utf16`] may differ from [`SortOrder::Bytes`]: where characters beyond U+FFFF and characters
    /// from U+E000 stand in names, or in the values of a repeated one, and nowhere else.
    pub(crate) fn has_two_orders(&self) -> bool {
        let beyond_bmp = |text: &str| text.bytes().any(|byte| byte >= 0xF0);
        if !beyond_bmp(&self.text) || !self.text.bytes().any(|byte| matches!(byte, 0xEE | 0xEF)) {
            return false;
        }
        let mut names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.iter().any(|name| beyond_bmp(name)) || names.windows(2).any(|two| two[0] == two[1])
    }

    fn name(&self, pair: Pair) -> &str {
        &self.text[pair.start as usize..pair.middle as usize]
    }

    fn value(&self, pair: Pair) -> &str {
        &self.text[pair.middle as usize..pair.end as usize]
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Form {
    /// # Panics
    /// Beyond 4 GiB of text.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut form = Self::default();
        let offset = |at: usize| u32::try_from(at).expect("a form is shorter than 4 GiB");
        for (name, value) in pairs {
            let start = offset(form.text.len());
            form.text.push_str(name.as_ref());
            let middle = offset(form.text.len());
            form.text.push_str(value.as_ref());
            form.pairs.push(Pair {
                key: leading_bytes(name.as_ref().as_bytes()),
                start,
                middle,
                end: offset(form.text.len()),
            });
        }
        form
    }
}

/// The same pairs in the same order, however they were encoded.
impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.pairs == other.pairs
    }
}

impl Eq for Form {}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

fn utf16_order(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

/// The high bits of eight bytes.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// The first eight bytes as a number that sorts as they do.
fn leading_bytes(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = name.len().min(8);
    first[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(first)
}

/// What a hexadecimal digit stands for; 16 and more for any other byte.
const HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit as usize] as usize] = digit;
        table[b"0123456789ABCDEF"[digit as usize] as usize] = digit;
        digit += 1;
    }
    table
};

/// The bytes that stand for themselves in what is encoded.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table[b'*' as usize] = true;
    table[b'-' as usize] = true;
    table[b'.' as usize] = true;
    table[b'_' as usize] = true;
    table
};

/// Percent-encodes as Twilio's own requests do: letters, digits and `*-._` stand, a space is `+`.
fn encode_into(out: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = text;
    loop {
        let run = rest.bytes().position(|byte| !PLAIN[usize::from(byte)]);
        let (plain, after) = rest.split_at(run.unwrap_or(rest.len()));
        out.push_str(plain);
        let Some(special) = after.chars().next() else {
            return;
        };
        let (special, after) = after.split_at(special.len_utf8());
        if special == " " {
            out.push('+');
        } else {
            for byte in special.bytes() {
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(input: &str) -> Vec<(String, String)> {
        let form = Form::parse(input.as_bytes(), 512).unwrap();
        form.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn signed(form: &Form, order: SortOrder) -> String {
        let mut out = Vec::new();
        form.append_signed(order, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn odd_forms_decode_as_the_url_standard_says() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(parse("a=1&b"), [pair("a", "1"), pair("b", "")]);
        assert_eq!(parse("&&a==&"), [pair("a", "=")]);
        assert_eq!(parse("=x"), [pair("", "x")]);
        assert_eq!(parse("a=%"), [pair("a", "%")]);
        assert_eq!(parse("a=%4&b=%zz"), [pair("a", "%4"), pair("b", "%zz")]);
        assert_eq!(parse("B%6fdy=%2b+%00"), [pair("Body", "+ \0")]);
    }

    #[test]
    fn what_is_not_utf8_is_refused_even_when_name_and_value_join_to_a_character() {
        for input in [
            "a=%ff",
            "a%C3=%A9",
            "a=%C3&%A9=b",
            "a=%C0%80",
            "a=%ED%A0%80",
        ] {
            let error = Form::parse(input.as_bytes(), 512).unwrap_err();
            assert_eq!(
                error,
                FormError::NotUtf8 {
                    length: input.len()
                },
                "{input}"
            );
        }
    }

    #[test]
    fn the_limit_of_pairs_is_exact() {
        let input = vec!["a=1"; 512].join("&");
        assert!(Form::parse(input.as_bytes(), 512).is_ok());
        let input = input + "&b";
        assert_eq!(
            Form::parse(input.as_bytes(), 512),
            Err(FormError::TooManyPairs { limit: 512 })
        );
    }

    #[test]
    fn equal_repeats_count_once_and_different_ones_are_ambiguous() {
        let form = Form::parse(b"From=a&Body=x&From=a&Body=y", 512).unwrap();
        assert_eq!(form.single("From"), Ok(Some("a")));
        assert_eq!(form.single("To"), Ok(None));
        assert_eq!(form.single("Body"), Err(AmbiguousParam { name: "Body" }));
    }

    #[test]
    fn signed_text_is_sorted_by_name_and_repeats_only_distinct_values() {
        let form = Form::from_iter([
            ("T", "b"),
            ("T", "a"),
            ("T", "b"),
            ("MediaUrl2", ""),
            ("MediaUrl10", ""),
        ]);
        assert_eq!(signed(&form, SortOrder::Bytes), "MediaUrl10MediaUrl2TaTb");
        let form = Form::from_iter([("ReasonConferenceEnded", "test"), ("Reason", "zzz")]);
        assert_eq!(
            signed(&form, SortOrder::Bytes),
            "ReasonzzzReasonConferenceEndedtest"
        );
    }

    #[test]
    fn the_two_orders_differ_only_beyond_the_basic_plane() {
        let form = Form::from_iter([("T", "\u{1F44D}"), ("T", "\u{FF21}")]);
        assert!(form.has_two_orders());
        assert!(!Form::from_iter([("T", "\u{1F44D}"), ("U", "\u{FF21}")]).has_two_orders());
        assert_eq!(signed(&form, SortOrder::Bytes), "T\u{FF21}T\u{1F44D}");
        assert_eq!(signed(&form, SortOrder::Utf16), "T\u{1F44D}T\u{FF21}");
    }

    proptest! {
        #[test]
        fn what_is_kept_of_a_form_decodes_to_the_same(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(form) = Form::parse(&input, usize::MAX) {
                let kept = form.as_it_came();
                let text = std::str::from_utf8(&input);
                prop_assert!(text.is_err() || text == Ok(kept.as_ref()));
                prop_assert_eq!(Form::parse(kept.as_bytes(), usize::MAX), Ok(form.clone()));
                prop_assert_eq!(Form::parse(form.encode().as_bytes(), usize::MAX), Ok(form));
            }
        }

        #[test]
        fn any_bytes_decode_as_form_urlencoded_does_or_are_refused(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let reference: Vec<_> = form_urlencoded::parse(&input).into_owned().collect();
            if let Ok(form) = Form::parse(&input, usize::MAX) {
                let pairs: Vec<_> = form.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                prop_assert_eq!(pairs, reference);
            } else {
                let lossy = reference.iter().any(|(n, v)| n.contains('\u{FFFD}') || v.contains('\u{FFFD}'));
                prop_assert!(lossy);
            }
        }

        #[test]
        fn what_is_encoded_decodes_to_the_same_pairs(pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..20)) {
            let form: Form = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(Form::parse(form.encode().as_bytes(), 512), Ok(form));
        }
    }
}
