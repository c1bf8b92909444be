//! The choice that a typed answer certainly means.
//!
//! The comparisons in order: the title as it is, the folded title, the words of the title, and the number. An answer
//! that fits two choices, or one choice and something else, is none.

use super::answer_number::{
    AnswerNumber, NumberKind, digit_value, has_number, is_numeric, number, ordinal_value,
    replace_number_signs,
};
use super::answer_phrases::{without_article, without_lead_in};
use super::answer_words::{pictures, without_polite_words, words, words_before_parenthesis};
use super::single_choice::Choice;
use crate::folding::fold;
use crate::sms_keywords::sms_keyword;

/// Choice that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypedAnswer {
    pub(super) index: usize,
    /// True for a number, false for a title.
    pub(super) is_number: bool,
}

/// Returns the choice that an answer means. `has_numbers` is true if the question showed a number before each title.
pub(super) fn find(choices: &[Choice], answer: &str, has_numbers: bool) -> Option<TypedAnswer> {
    let answer = answer.trim();
    let longest = choices.iter().map(|choice| choice.title().len()).max();
    // Longer than any decorated title, so it is not an answer. This bounds the work for a long message.
    if answer.is_empty() || answer.len() > longest.unwrap_or(0) * 2 + 200 {
        return None;
    }
    let title = |index| TypedAnswer {
        index,
        is_number: false,
    };
    if let Some(index) = choices.iter().position(|choice| choice.title() == answer) {
        return Some(title(index));
    }
    let folded = fold(answer);
    if let Some(index) = choices
        .iter()
        .position(|choice| fold(choice.title()) == folded)
    {
        return Some(title(index));
    }
    let answer_words = words(answer);
    if answer_words.is_empty() {
        let shown = pictures(&folded);
        let has_it =
            |choice: &Choice| !shown.is_empty() && pictures(&fold(choice.title())) == shown;
        return only(choices, has_it).map(title);
    }
    let titles: Vec<Vec<String>> = choices.iter().map(|choice| words(choice.title())).collect();
    let by_words = by_words(choices, &titles, &answer_words);
    by_words
        .map(title)
        .or_else(|| by_number(&titles, answer, has_numbers))
        .or_else(|| by_phrase(choices, &titles, &answer_words, has_numbers))
}

/// Returns the choice that an answer with other words names: "I'd like tomorrow", "the large one", "press 2".
// The remaining words must be a whole title or a number: any other word may change the meaning.
fn by_phrase(
    choices: &[Choice],
    titles: &[Vec<String>],
    answer: &[String],
    has_numbers: bool,
) -> Option<TypedAnswer> {
    let lead_in = without_lead_in(answer, titles);
    let (rest, names_choice) = lead_in.unwrap_or((without_polite_words(answer), false));
    let index = by_words(choices, titles, rest)
        .or_else(|| by_words(choices, titles, without_article(rest)?));
    if let Some(index) = index {
        return Some(TypedAnswer {
            index,
            is_number: false,
        });
    }
    let found = number(rest).filter(|_| names_choice)?;
    by_single_number(titles, found, has_numbers)
}

/// Returns the texts that answer with a title: itself, and the one before its parenthesis, as "stop" for `Stop (all)`.
pub fn answer_texts(title: &str) -> Vec<String> {
    let before = words_before_parenthesis(title).map(|words| words.join(" "));
    std::iter::once(title.to_owned()).chain(before).collect()
}

/// Returns the SMS keyword with which a user may answer a title: the title itself, or the text before its parenthesis.
pub fn title_keyword(title: &str) -> Option<&'static str> {
    let answers = answer_texts(title);
    answers.iter().find_map(|answer| sms_keyword(answer))
}

/// Returns the only choice whose title has the words of the answer.
fn by_words(choices: &[Choice], titles: &[Vec<String>], answer: &[String]) -> Option<usize> {
    if let Some(index) = only(titles, |title| title == answer) {
        return Some(index);
    }
    let answer = without_polite_words(answer);
    if let Some(index) = only(titles, |title| without_polite_words(title) == answer) {
        return Some(index);
    }
    only(choices, |choice| {
        words_before_parenthesis(choice.title()).is_some_and(|title| title == answer)
    })
}

/// Returns the choice whose number the answer is, alone or with its title: `2`, `2. Tomorrow`.
fn by_number(titles: &[Vec<String>], answer: &str, has_numbers: bool) -> Option<TypedAnswer> {
    let has_no = titles.iter().any(|title| title == &["no"]);
    let answer_words = words(&replace_number_signs(answer, has_no));
    let answer_words = without_polite_words(&answer_words);
    if let Some(found) = number(answer_words) {
        return by_single_number(titles, found, has_numbers);
    }
    let with_title = |number: &String, title: &[String]| {
        let index = digit_value(number.trim_start_matches('#'))?.checked_sub(1)?;
        let is_same = titles.get(index)? == title;
        is_same.then_some(TypedAnswer {
            index,
            is_number: false,
        })
    };
    let first = answer_words
        .split_first()
        .and_then(|(first, title)| with_title(first, title));
    // After the title only in parentheses: "no 2" refuses the second choice.
    let last = answer_words.split_last().filter(|_| answer.contains('('));
    first.or_else(|| last.and_then(|(last, title)| with_title(last, title)))
}

/// Returns the choice that a number means: its position, or the number in its title.
fn by_single_number(
    titles: &[Vec<String>],
    found: AnswerNumber,
    has_numbers: bool,
) -> Option<TypedAnswer> {
    let index = found.value.checked_sub(1);
    let index = index.filter(|index| *index < titles.len());
    let by_position = |index| TypedAnswer {
        index,
        is_number: true,
    };
    let by_title = |index| TypedAnswer {
        index,
        is_number: false,
    };
    // "Table 2" ends with a number that names it, and "2 people" does not.
    let is_named = |title: &Vec<String>| {
        title
            .last()
            .is_some_and(|word| has_number(word, found.value))
    };
    let other_is = |is_meant: &dyn Fn(&Vec<String>) -> bool| {
        let mut others = (0..).zip(titles).filter(|(other, _)| index != Some(*other));
        others.any(|(_, title)| is_meant(title))
    };
    match found.kind {
        NumberKind::Plain => {}
        NumberKind::Position => return index.map(by_position),
        NumberKind::Ordinal => {
            let has_ordinal = |title: &Vec<String>| {
                let mut words = title.iter();
                words.any(|word| ordinal_value(word) == Some(found.value))
            };
            return index.filter(|_| !other_is(&has_ordinal)).map(by_position);
        }
        NumberKind::Numbered => {
            let ends_with_number =
                |title: &Vec<String>| title.last().is_some_and(|word| digit_value(word).is_some());
            if index.is_none() || (!has_numbers && titles.iter().any(ends_with_number)) {
                return only(titles, is_named).map(by_title);
            }
            return index.filter(|_| !other_is(&is_named)).map(by_position);
        }
    }
    let is_it = |word: &String| has_number(word, found.value);
    let begins_with_it = |title: &Vec<String>| title.first().is_some_and(is_it);
    let contains_it = |title: &Vec<String>| title.iter().any(is_it);
    // Where no numbers were shown, "2" may be an amount, as of "1 person" and "3 people", and not the second choice.
    if !has_numbers && titles.iter().flatten().any(|word| is_numeric(word)) {
        let index = only(titles, contains_it)?;
        let numbers = titles[index].iter().filter(|word| is_numeric(word)).count();
        let is_certain = numbers == 1 || begins_with_it(&titles[index]);
        return is_certain.then(|| by_title(index));
    }
    // "3" may be the third choice, or the choice "3 pm" or "2-4 people".
    if let Some(index) = index {
        return (!other_is(&contains_it)).then(|| by_position(index));
    }
    only(titles, begins_with_it).map(by_title)
}

/// Returns the index of the only item that fits.
fn only<T>(items: &[T], fits: impl Fn(&T) -> bool) -> Option<usize> {
    let mut fitting = (0..).zip(items).filter(|(_, item)| fits(item));
    let (index, _) = fitting.next()?;
    fitting.next().is_none().then_some(index)
}
