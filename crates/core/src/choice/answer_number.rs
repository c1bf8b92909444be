//! The number that a typed answer names, and the numbers in titles.

use super::answer_words::ascii_digit;

/// Number in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerNumber {
    pub(super) value: usize,
    pub(super) kind: NumberKind,
}

/// Form of a number in an answer. The forms differ in the titles that they may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberKind {
    /// "2", which may be an amount.
    Plain,
    /// "number 2" or "#2", which may be the choice "Table 2".
    Numbered,
    /// "the second one", which may be the choice "Second floor".
    Ordinal,
    /// "option 2", which can only be the second choice.
    Position,
}

/// Words before the number of a choice.
const POSITION_LABELS: [&str; 12] = [
    "option",
    "opcion",
    "opcao",
    "opzione",
    "choice",
    "answer",
    "reply",
    "variant",
    "variante",
    "auswahl",
    "antwort",
    "вариант",
];
/// Words for "number".
const NUMBER_LABELS: [&str; 10] = [
    "#",
    "number",
    "num",
    "numero",
    "nummer",
    "nr",
    "номер",
    "番",
    "番号",
    "numer",
];
const ARTICLES: [&str; 10] = [
    "the", "el", "la", "le", "die", "das", "der", "il", "lo", "den",
];
/// Ends of an ordinal number in digits.
const ORDINAL_ENDS: [&str; 10] = [
    "st", "nd", "rd", "th", "er", "e", "eme", "ere", "番", "番目",
];

/// Numbers in words, from 1. Omits words that mean something else in another of these languages, such as `um`.
const CARDINALS: [&[&str]; 10] = [
    &["one", "uno", "eins", "un", "один", "一"],
    &["two", "dos", "zwei", "deux", "dois", "duas", "два", "二"],
    &["three", "tres", "drei", "trois", "tre", "три", "三"],
    &[
        "four",
        "cuatro",
        "vier",
        "quatre",
        "quatro",
        "quattro",
        "четыре",
        "四",
    ],
    &["five", "cinco", "funf", "cinq", "cinque", "пять", "五"],
    &["six", "seis", "sechs", "шесть", "六"],
    &["seven", "siete", "sieben", "sete", "sette", "семь", "七"],
    &[
        "eight",
        "ocho",
        "acht",
        "huit",
        "oito",
        "otto",
        "восемь",
        "八",
    ],
    &["nine", "nueve", "neun", "neuf", "nove", "девять", "九"],
    &["ten", "diez", "zehn", "dix", "dez", "dieci", "десять", "十"],
];
/// Ordinal numbers in English, from 1.
const ORDINALS: [&str; 10] = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
];
/// Ordinal numbers of other languages, from 1, which need an article: Portuguese "segunda" alone is Monday.
const ORDINALS_WITH_ARTICLE: [&[&str]; 3] = [
    &[
        "primera", "primero", "erste", "ersten", "premier", "premiere", "primo", "prima",
    ],
    &[
        "segunda", "segundo", "zweite", "zweiten", "deuxieme", "seconde", "secondo",
    ],
    &[
        "tercera",
        "tercero",
        "dritte",
        "dritten",
        "troisieme",
        "terzo",
        "terza",
    ],
];

/// Returns an answer with the abbreviations of "number" replaced by `#`, before it is split into words.
// Before the split, since "No. 2" and "no 2" have the same words, and "no 2" refuses the second choice.
//
// `has_no` is true for a question with the choice "No", where "No. 1" could be both.
pub(super) fn replace_number_signs(answer: &str, has_no: bool) -> String {
    let chars: String = answer
        .chars()
        // The sign of a keycap emoji, such as 2️⃣, would stay a word of its own.
        .filter(|c| *c != '\u{20e3}')
        .map(|c| if c == '№' { '#' } else { ascii_digit(c) })
        .collect();
    let mut text = chars.to_lowercase();
    for sign in ["n.º", "n.°", "nº", "n°", "no."] {
        if sign == "no." && has_no {
            continue;
        }
        if let Some(rest) = text.trim_start().strip_prefix(sign) {
            let rest = rest.trim_start();
            if rest.starts_with(|c: char| c.is_numeric()) {
                text = format!("#{rest}");
            }
        }
    }
    // A digit with the sign of an ordinal: 2º, 2ª.
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        let follows_digit = result.ends_with(|last: char| last.is_ascii_digit());
        if !(follows_digit && matches!(c, 'º' | 'ª' | '°')) {
            result.push(c);
        }
    }
    result
}

/// Returns the number that words consist of: `2`, `# 2`, `option two`, `the second one`.
pub(super) fn number(words: &[String]) -> Option<AnswerNumber> {
    let mut rest: Vec<&str> = words.iter().map(String::as_str).collect();
    let has_article = rest.len() > 1 && ARTICLES.contains(&rest[0]);
    if has_article {
        rest.remove(0);
    }
    let mut kind = NumberKind::Plain;
    if rest.len() > 1 && POSITION_LABELS.contains(&rest[0]) {
        kind = NumberKind::Position;
        rest.remove(0);
    } else if rest.len() > 1 && NUMBER_LABELS.contains(&rest[0]) {
        kind = NumberKind::Numbered;
        rest.remove(0);
    }
    if let Some(number) = rest.first().and_then(|first| first.strip_prefix('#'))
        && !number.is_empty()
    {
        rest[0] = number;
        if kind == NumberKind::Plain {
            kind = NumberKind::Numbered;
        }
    }
    let (value, kind) = match rest[..] {
        [digits] if digit_value(digits).is_some() => (digit_value(digits)?, kind),
        // "the 3rd" may be the choice "June 3".
        [digits, end] if ORDINAL_ENDS.contains(&end) => (digit_value(digits)?, kind),
        [word] | [word, "one"] if ORDINALS.contains(&word) => {
            (ordinal_value(word)?, NumberKind::Ordinal)
        }
        [word] if ORDINALS_ALONE.iter().any(|words| words.contains(&word)) => {
            (ordinal_value(word)?, NumberKind::Ordinal)
        }
        [word] if has_article && kind == NumberKind::Plain => {
            (ordinal_value(word)?, NumberKind::Ordinal)
        }
        [word] => (cardinal_value(word)?, kind),
        _ => return None,
    };
    Some(AnswerNumber { value, kind })
}

/// Returns the value of up to three digits.
pub(super) fn digit_value(word: &str) -> Option<usize> {
    let is_number = (1..=3).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| word.parse().ok())?
}

fn cardinal_value(word: &str) -> Option<usize> {
    CARDINALS
        .iter()
        .position(|words| words.contains(&word))
        .map(|at| at + 1)
}

/// Ordinal numbers that stand alone in other languages, from 1.
const ORDINALS_ALONE: [&[&str]; 3] = [
    &[
        "первый",
        "первая",
        "первое",
        "第一",
        "第一个",
        "primero",
        "primeiro",
        "premier",
        "erstes",
    ],
    &[
        "второй",
        "вторая",
        "второе",
        "第二",
        "第二个",
        "segundo",
        "deuxieme",
        "zweites",
    ],
    &[
        "третий",
        "третья",
        "третье",
        "第三",
        "第三个",
        "tercero",
        "terceiro",
        "troisieme",
        "drittes",
    ],
];

/// Returns the value of an ordinal number in any of the languages.
pub(super) fn ordinal_value(word: &str) -> Option<usize> {
    let english = ORDINALS.iter().position(|ordinal| *ordinal == word);
    let others = || {
        let mut tables = [ORDINALS_WITH_ARTICLE, ORDINALS_ALONE].into_iter();
        tables.find_map(|table| table.iter().position(|words| words.contains(&word)))
    };
    english.or_else(others).map(|at| at + 1)
}

/// Returns whether a word of a title is a number, or has one.
pub(super) fn is_numeric(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_digit())
        || cardinal_value(word).is_some()
        || ORDINALS.contains(&word)
}

/// Returns whether a word of a title is this number, or a range that has it.
pub(super) fn has_number(word: &str, value: usize) -> bool {
    if let Some((low, high)) = word.split_once('-')
        && let (Some(low), Some(high)) = (digit_value(low), digit_value(high))
    {
        return (low..=high).contains(&value);
    }
    // An hour or a price, such as 9:30, counts by its first part.
    let first = word.split([':', '.', ',', '/']).next().unwrap_or(word);
    digit_value(first).or_else(|| cardinal_value(word)) == Some(value)
}
