//! Decoded form parameters: decoded once, in the order received. The verifier and the message parser read the same
//! ones.
//!
//! `application/x-www-form-urlencoded` is decoded as in the URL standard: `+` is a space, a stray `%` stays, a name
//! without `=` has an empty value, and empty parts between `&` are skipped. Unlike there, invalid UTF-8 is rejected
//! instead of replaced, since a replacement character would differ from the signed text.
//!
//! One buffer holds all names and values, one after the other. A pair consists of offsets into the buffer.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

/// Decoded form parameters, in the order received. `Debug` shows only the names, because the values hold users' texts.
///
/// ```
/// use replyhook::FormParams;
///
/// let form = FormParams::parse(b"Body=two+words&From=whatsapp%3A%2B15550001111", 512)?;
/// assert_eq!(form.get("Body"), Some("two words"));
/// assert_eq!(form.get("From"), Some("whatsapp:+15550001111"));
/// let made = FormParams::from_iter([("Body", "a & b"), ("To", "+1")]);
/// assert_eq!(made.encode(), "Body=a+%26+b&To=%2B1");
/// assert_eq!(format!("{made:?}"), r#"["Body", "To"]"#);
/// # Ok::<(), replyhook::form::FormError>(())
/// ```
#[derive(Clone, Default)]
pub struct FormParams {
    text: String,
    pairs: Vec<Pair>,
    /// The input, if it was valid UTF-8 as it arrived.
    received: Option<Box<str>>,
}

/// Offsets of a pair: `start..middle` is the name, `middle..end` the value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pair {
    /// First eight bytes of the name. They decide nearly every comparison without access to the buffer.
    key: u64,
    start: u32,
    middle: u32,
    end: u32,
}

/// Error of an input that is not a valid form. It contains nothing of the input.
///
/// ```
/// use replyhook::form::{FormError, FormParams};
///
/// assert_eq!(FormParams::parse(b"a=1&b=2&c=3", 2), Err(FormError::TooManyPairs { limit: 2 }));
/// assert_eq!(FormParams::parse(b"a=%ff", 512), Err(FormError::NotUtf8 { length: 5 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// More pairs than allowed.
    #[error("more than {limit} parameters")]
    TooManyPairs {
        /// Maximum number of pairs.
        limit: usize,
    },
    /// The decoded bytes of a name or value are not UTF-8.
    #[error("a parameter is not UTF-8 ({length} bytes of input)")]
    NotUtf8 {
        /// Length of the whole input in bytes.
        length: usize,
    },
    /// More than 4 GiB, which the 32-bit offsets cannot address.
    #[error("the form is larger than 4 GiB")]
    TooLong,
}

/// Error of a parameter that has two different values, although it must have only one.
///
/// ```
/// use replyhook::form::{AmbiguousParam, FormParams};
///
/// let form = FormParams::from_iter([("From", "+1"), ("Body", "hi"), ("From", "+2")]);
/// assert_eq!(form.get_unique("Body"), Ok(Some("hi")));
/// assert_eq!(form.get_unique("From"), Err(AmbiguousParam { name: "From" }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} has two different values")]
pub struct AmbiguousParam {
    /// Name of the parameter.
    pub name: &'static str,
}

/// Sort order of names, and of the values of a repeated name, in the signed string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortOrder {
    /// UTF-8 bytes, which is the order of code points.
    Bytes,
    /// UTF-16 code units, as in JavaScript, Java and .NET. Differs only for characters beyond U+FFFF.
    Utf16,
}

/// Bytes that need decoding. All others are copied in runs.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'&' as usize] = true;
    table[b'=' as usize] = true;
    table[b'+' as usize] = true;
    table[b'%' as usize] = true;
    table
};

impl FormParams {
    /// Decodes a body, or a query without its `?`.
    ///
    /// # Errors
    /// [`FormError`] if there are more than `max_pairs` pairs, or one of them is not UTF-8.
    pub fn parse(input: &[u8], max_pairs: usize) -> Result<Self, FormError> {
        if u32::try_from(input.len()).is_err() {
            return Err(FormError::TooLong);
        }
        // Decoding never makes a text longer, so no offset can exceed the length checked above.
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let mut text = Vec::with_capacity(input.len());
        // A message has about twenty parameters. `max_pairs` would not do: callers pass up to `usize::MAX`.
        let mut pairs = Vec::with_capacity(32);
        let mut rest = input;
        while !rest.is_empty() {
            if let [b'&', after @ ..] = rest {
                rest = after;
                continue;
            }
            // Before decoding the pair, so that excess input costs nothing more.
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
                    // Digits are below 16 in `HEX`, other bytes have all bits set, so one comparison checks both.
                    [b'%', high, low, after @ ..]
                        if HEX[usize::from(*high)] | HEX[usize::from(*low)] < 16 =>
                    {
                        text.push(HEX[usize::from(*high)] << 4 | HEX[usize::from(*low)]);
                        after
                    }
                    // A stray `%`, or a second `=`, stands for itself.
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
        // The buffer as a whole is not enough: a character split between a name and a value would be valid only there.
        let is_boundary = |at: u32| text.is_char_boundary(at as usize);
        if !pairs
            .iter()
            .all(|pair| is_boundary(pair.start) && is_boundary(pair.middle))
        {
            return Err(error);
        }
        let received = std::str::from_utf8(input).ok().map(Box::from);
        Ok(Self {
            text,
            pairs,
            received,
        })
    }

    /// Iterates over all pairs in the order received.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        self.pairs
            .iter()
            .map(|pair| (self.name(*pair), self.value(*pair)))
    }

    /// Returns the first value of a name.
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

    /// Returns the value of a name that must have only one. The same value may be repeated.
    ///
    /// # Errors
    /// [`AmbiguousParam`] if there are two different values. One reader would take the first and another one the last,
    /// and both would count as signed.
    pub fn get_unique(&self, name: &'static str) -> Result<Option<&str>, AmbiguousParam> {
        let mut values = self.values(name);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            return Err(AmbiguousParam { name });
        }
        Ok(first)
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether the form is empty.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns the input of [`parse`](Self::parse), or the encoded pairs if the input was not UTF-8. Both decode to the
    /// same pairs.
    ///
    /// ```
    /// use replyhook::FormParams;
    ///
    /// let form = FormParams::parse(b"Body=it's&Empty", 512)?;
    /// assert_eq!(form.as_received(), "Body=it's&Empty");
    /// assert_eq!(form.encode(), "Body=it%27s&Empty=");
    /// # Ok::<(), replyhook::form::FormError>(())
    /// ```
    pub fn as_received(&self) -> Cow<'_, str> {
        match &self.received {
            Some(received) => Cow::Borrowed(received),
            None => Cow::Owned(self.encode()),
        }
    }

    /// Encodes the pairs, in order.
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

    /// Appends the signed string of the pairs: sorted by name, each name followed by its value. A repeated name
    /// contributes its distinct values, sorted, each after the name.
    ///
    /// Source: the validators of twilio-python and twilio-node, and Conversations webhooks, which repeat a name.
    pub(crate) fn append_signed(&self, order: SortOrder, out: &mut Vec<u8>) {
        for pair in self.signed(order) {
            out.extend_from_slice(self.bytes(pair.start..pair.end));
        }
    }

    /// Iterates over the names and values that [`append_signed`](Self::append_signed) appends, in its order.
    pub(crate) fn signed_pairs(&self, order: SortOrder) -> impl Iterator<Item = (&str, &str)> {
        self.signed(order)
            .map(|pair| (self.name(pair), self.value(pair)))
    }

    fn signed(&self, order: SortOrder) -> impl Iterator<Item = Pair> {
        let mut sorted = self.pairs.clone();
        sorted.sort_unstable_by(|a, b| {
            // Different ASCII prefixes order alike in both orders. Equal keys do not imply equal names.
            if a.key != b.key && (a.key | b.key) & NOT_ASCII == 0 {
                a.key.cmp(&b.key)
            } else {
                self.compare(order, *a, *b)
            }
        });
        // After sorting, equal pairs are adjacent. Twilio signs a repeated pair once.
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

    /// Returns whether the two sort orders may differ for this form. They do only if a character beyond U+FFFF is
    /// compared with one from U+E000 to U+FFFF, in names or in values of a repeated name.
    pub(crate) fn has_two_orders(&self) -> bool {
        // Lead bytes: 0xF0 and above for characters beyond U+FFFF, 0xEE and 0xEF for U+E000 to U+FFFF.
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

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for FormParams {
    /// Collects pairs that are already decoded.
    ///
    /// # Panics
    /// Panics if the names and values together exceed 4 GiB.
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

/// Compares pairs and their order, not the encoding in which they were received.
impl PartialEq for FormParams {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.pairs == other.pairs
    }
}

impl Eq for FormParams {}

impl fmt::Debug for FormParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

fn utf16_order(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

/// Mask of the high bit of each of eight bytes, which ASCII leaves clear.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// Returns the first eight bytes as a number that sorts like them; a shorter name is padded with zeros.
fn leading_bytes(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = name.len().min(8);
    first[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(first)
}

/// Values of the hexadecimal digits; 255 for any other byte.
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

/// Bytes that are not encoded.
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

/// Percent-encodes like Twilio's requests: letters, digits and `*-._` stay, a space becomes `+`.
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
        let form = FormParams::parse(input.as_bytes(), 512).unwrap();
        form.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn signed(form: &FormParams, order: SortOrder) -> String {
        let mut out = Vec::new();
        form.append_signed(order, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn odd_form_decodes_per_url_standard() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(parse("a=1&b"), [pair("a", "1"), pair("b", "")]);
        assert_eq!(parse("&&a==&"), [pair("a", "=")]);
        assert_eq!(parse("=x"), [pair("", "x")]);
        assert_eq!(parse("a=%"), [pair("a", "%")]);
        assert_eq!(parse("a=%4&b=%zz"), [pair("a", "%4"), pair("b", "%zz")]);
        assert_eq!(parse("B%6fdy=%2b+%00"), [pair("Body", "+ \0")]);
    }

    // This includes bytes of a name and a value that would join to a valid character.
    #[test]
    fn form_with_invalid_utf8_is_rejected() {
        for input in [
            "a=%ff",
            "a%C3=%A9",
            "a=%C3&%A9=b",
            "a=%C0%80",
            "a=%ED%A0%80",
        ] {
            let error = FormParams::parse(input.as_bytes(), 512).unwrap_err();
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
    fn form_pair_limit_is_exact() {
        let input = vec!["a=1"; 512].join("&");
        assert!(FormParams::parse(input.as_bytes(), 512).is_ok());
        let input = input + "&b";
        assert_eq!(
            FormParams::parse(input.as_bytes(), 512),
            Err(FormError::TooManyPairs { limit: 512 })
        );
    }

    #[test]
    fn repeated_param_is_ambiguous_if_values_differ() {
        let form = FormParams::parse(b"From=a&Body=x&From=a&Body=y", 512).unwrap();
        assert_eq!(form.get_unique("From"), Ok(Some("a")));
        assert_eq!(form.get_unique("To"), Ok(None));
        assert_eq!(
            form.get_unique("Body"),
            Err(AmbiguousParam { name: "Body" })
        );
    }

    #[test]
    fn signed_params_are_sorted_and_deduplicated() {
        let form = FormParams::from_iter([
            ("T", "b"),
            ("T", "a"),
            ("T", "b"),
            ("MediaUrl2", ""),
            ("MediaUrl10", ""),
        ]);
        assert_eq!(signed(&form, SortOrder::Bytes), "MediaUrl10MediaUrl2TaTb");
        let form = FormParams::from_iter([("ReasonConferenceEnded", "test"), ("Reason", "zzz")]);
        assert_eq!(
            signed(&form, SortOrder::Bytes),
            "ReasonzzzReasonConferenceEndedtest"
        );
    }

    // UTF-8 bytes and UTF-16 units sort alike within the basic multilingual plane.
    #[test]
    fn sort_orders_differ_only_beyond_basic_plane() {
        let form = FormParams::from_iter([("T", "\u{1F44D}"), ("T", "\u{FF21}")]);
        assert!(form.has_two_orders());
        assert!(!FormParams::from_iter([("T", "\u{1F44D}"), ("U", "\u{FF21}")]).has_two_orders());
        assert_eq!(signed(&form, SortOrder::Bytes), "T\u{FF21}T\u{1F44D}");
        assert_eq!(signed(&form, SortOrder::Utf16), "T\u{1F44D}T\u{FF21}");
    }

    proptest! {
        #[test]
        fn stored_form_decodes_to_same_pairs(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(form) = FormParams::parse(&input, usize::MAX) {
                let kept = form.as_received();
                let text = std::str::from_utf8(&input);
                prop_assert!(text.is_err() || text == Ok(kept.as_ref()));
                prop_assert_eq!(FormParams::parse(kept.as_bytes(), usize::MAX), Ok(form.clone()));
                prop_assert_eq!(FormParams::parse(form.encode().as_bytes(), usize::MAX), Ok(form));
            }
        }

        // The crate form_urlencoded is the reference, but invalid UTF-8 is rejected instead of replaced.
        #[test]
        fn random_form_decodes_like_form_urlencoded_or_fails(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let reference: Vec<_> = form_urlencoded::parse(&input).into_owned().collect();
            if let Ok(form) = FormParams::parse(&input, usize::MAX) {
                let pairs: Vec<_> = form.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                prop_assert_eq!(pairs, reference);
            } else {
                let lossy = reference.iter().any(|(n, v)| n.contains('\u{FFFD}') || v.contains('\u{FFFD}'));
                prop_assert!(lossy);
            }
        }

        #[test]
        fn encoded_form_decodes_to_same_pairs(pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..20)) {
            let form: FormParams = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(FormParams::parse(form.encode().as_bytes(), 512), Ok(form));
        }
    }
}
