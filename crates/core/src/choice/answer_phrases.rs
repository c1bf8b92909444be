//! Introductory words of an answer, such as "I'd like".

use super::answer_words::without_polite_words;

/// Lead-ins before a title, as folded words. A number after these may be an amount.
const TITLE_LEAD_INS: [&str; 39] = [
    "i d like to",
    "i would like to",
    "i want to",
    "i need to",
    "i d like",
    "i would like",
    "i want",
    "i d prefer",
    "i prefer",
    "i ll take",
    "i will take",
    "i take",
    "i ll have",
    "i ll go with",
    "i go with",
    "let s do",
    "let s say",
    "let s take",
    "make it",
    "give me",
    "on",
    "for",
    "quiero",
    "prefiero",
    "me quedo con",
    "para",
    "ich nehme",
    "ich mochte",
    "ich will",
    "lieber",
    "je prends",
    "je veux",
    "je voudrais",
    "je prefere",
    "quero",
    "prefiro",
    "vorrei",
    "prendo",
    "хочу",
];
/// Lead-ins before a title or a number, which name a choice.
const CHOICE_LEAD_INS: [&str; 17] = [
    "i choose",
    "i ll choose",
    "i pick",
    "i ll pick",
    "i select",
    "choose",
    "pick",
    "press",
    "select",
    "my choice is",
    "my answer is",
    "elijo",
    "ich wahle",
    "je choisis",
    "escolho",
    "scelgo",
    "выбираю",
];
/// Words of agreement before an answer, if the question does not ask for them.
const AGREEMENT: [&str; 11] = [
    "yes", "yeah", "yep", "ok", "okay", "sure", "si", "ja", "oui", "sim", "да",
];
/// Words whose presence in a title means that agreement is an answer.
const REFUSAL: [&str; 6] = ["no", "nein", "non", "nao", "нет", "not"];
/// Articles before a title.
const ARTICLES: [&str; 12] = [
    "the", "el", "la", "los", "las", "le", "les", "die", "das", "der", "den", "il",
];

/// Returns the words of an answer without its lead-in, and true if a number in them names a choice. `None` if it has no
/// lead-in.
pub(super) fn without_lead_in<'a>(
    answer: &'a [String],
    titles: &[Vec<String>],
) -> Option<(&'a [String], bool)> {
    let answer = without_polite_words(answer);
    let mut title_words = titles.iter().flatten().map(String::as_str);
    let asks_for_agreement =
        title_words.any(|word| AGREEMENT.contains(&word) || REFUSAL.contains(&word));
    let agrees = |word: &String| AGREEMENT.contains(&word.as_str());
    let rest = match answer.split_first() {
        Some((first, rest)) if agrees(first) && !asks_for_agreement => rest,
        _ => answer,
    };
    let has_agreement = rest.len() < answer.len();
    let stripped = |lead_ins: &[&str]| {
        let mut lead_ins = lead_ins.iter();
        lead_ins.find_map(|lead_in| strip_words(rest, lead_in))
    };
    let (rest, names_choice) = if let Some(rest) = stripped(&CHOICE_LEAD_INS) {
        (rest, true)
    } else if let Some(rest) = stripped(&TITLE_LEAD_INS) {
        (rest, false)
    } else if has_agreement {
        (rest, true)
    } else {
        return None;
    };
    let rest = without_polite_words(rest);
    (!rest.is_empty()).then_some((rest, names_choice))
}

/// Returns the words without an article, and without the "one" of "the large one"; `None` without an article.
pub(super) fn without_article(words: &[String]) -> Option<&[String]> {
    let (first, rest) = words.split_first()?;
    if !ARTICLES.contains(&first.as_str()) {
        return None;
    }
    let rest = match rest.split_last() {
        Some((last, shorter)) if last == "one" && !shorter.is_empty() => shorter,
        _ => rest,
    };
    (!rest.is_empty()).then_some(rest)
}

fn strip_words<'a>(words: &'a [String], prefix: &str) -> Option<&'a [String]> {
    let prefix: Vec<&str> = prefix.split(' ').collect();
    let start = words.get(..prefix.len())?;
    if start != prefix {
        return None;
    }
    words.get(prefix.len()..)
}
