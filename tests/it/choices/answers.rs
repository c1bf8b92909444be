//! The choice that a typed answer means, measured with answers that were written down before.

use proptest::prelude::*;
use replyhook::choice::{Choice, Choices};

const ANSWERS: &str = include_str!("answers.tsv");

/// Answer of the list, and the number of the choice that a person takes; 0 for none.
struct Answer {
    titles: Vec<&'static str>,
    text: String,
    expected: usize,
    /// False if the question was shown with buttons, a list or chips.
    has_numbers: bool,
}

fn unescape(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |mut text, part| {
        let (code, rest) = part.split_once('}').expect("a closed escape");
        let code = u32::from_str_radix(code, 16).expect("a code point");
        text.push(char::from_u32(code).expect("a character"));
        text.push_str(rest);
        text
    });
    text.replace("\\n", "\n")
}

fn answers() -> Vec<Answer> {
    let (mut titles, mut has_numbers) = (Vec::new(), true);
    let mut answers = Vec::new();
    for line in ANSWERS.lines() {
        if let Some(list) = line.strip_prefix("= ") {
            (titles, has_numbers) = (list.split(" | ").collect(), true);
        } else if let Some(list) = line.strip_prefix("~ ") {
            (titles, has_numbers) = (list.split(" | ").collect(), false);
        } else if let Some((text, expected)) = line.split_once('\t') {
            answers.push(Answer {
                titles: titles.clone(),
                text: unescape(text),
                expected: expected.parse().unwrap_or(0),
                has_numbers,
            });
        }
    }
    answers
}

fn found(choices: &Choices, text: &str) -> usize {
    position(choices, choices.find(text))
}

fn position(choices: &Choices, found: Option<&Choice>) -> usize {
    let position = found.and_then(|found| choices.iter().position(|choice| choice == found));
    position.map_or(0, |index| index + 1)
}

#[test]
fn answers_of_people_are_found_and_none_wrongly() {
    let answers = answers();
    assert!(answers.len() >= 300, "{}", answers.len());
    let (mut understood, mut missed, mut wrong) = (0, Vec::new(), Vec::new());
    for answer in &answers {
        let choices = Choices::new(answer.titles.iter().copied()).unwrap();
        let found = if answer.has_numbers {
            found(&choices, &answer.text)
        } else {
            position(&choices, choices.find_without_numbers(&answer.text))
        };
        let shown = format!(
            "{:?} of {:?}: {found}, expected {}",
            answer.text, answer.titles, answer.expected
        );
        understood += usize::from(answer.expected > 0);
        if found != answer.expected {
            let list = if found == 0 { &mut missed } else { &mut wrong };
            list.push(shown);
        }
    }
    assert!(wrong.is_empty(), "found wrongly:\n{}", wrong.join("\n"));
    let percent = (understood - missed.len()) * 100 / understood;
    assert!(
        percent >= 95,
        "{percent} % of {understood} found; missed:\n{}",
        missed.join("\n")
    );
}

const TITLES: [&str; 5] = ["Today", "Más tarde", "Самовывоз", "Another day", "Übergroß"];
/// Signs around an answer, which do not change it.
const NOISE: &str = "[ \\n\\t.,;!?()\"'*_~…«»“”👍🙏\u{200e}\u{feff}]{0,6}";

proptest! {
    #[test]
    fn noise_around_an_answer_changes_nothing(
        index in 0..TITLES.len(),
        before in NOISE,
        after in NOISE,
        is_upper in any::<bool>(),
        is_number in any::<bool>(),
    ) {
        let choices = Choices::new(TITLES).unwrap();
        let answer = match (is_number, is_upper) {
            (true, _) => (index + 1).to_string(),
            (false, true) => TITLES[index].to_uppercase(),
            (false, false) => TITLES[index].to_owned(),
        };
        prop_assert_eq!(found(&choices, &format!("{before}{answer}{after}")), index + 1);
    }

    // A found choice is always in the answer: one of its words, or its number.
    #[test]
    fn any_text_finds_only_what_it_names(
        text in "(\\PC|[0-9 #.-]|today|another|day|one|two|not){0,8}",
    ) {
        let choices = Choices::new(TITLES).unwrap();
        let number = found(&choices, &text);
        let names_number = ["0", "1", "2", "3", "4", "5", "one", "two"];
        let has_digit = text.chars().any(char::is_numeric) || names_number.iter().any(|name| text.contains(name));
        if number > 0 && !has_digit {
            let first: String = TITLES[number - 1].chars().take(1).collect();
            prop_assert!(text.to_lowercase().contains(&first.to_lowercase()), "{text:?}: {number}");
        }
    }

    #[test]
    fn several_choices_in_one_answer_find_none(
        one in 0..TITLES.len(),
        other in 0..TITLES.len(),
        between in "( and | or |, | |/|\\n| y | oder )",
    ) {
        prop_assume!(one != other);
        let choices = Choices::new(TITLES).unwrap();
        let answer = format!("{}{between}{}", TITLES[one], TITLES[other]);
        prop_assert_eq!(found(&choices, &answer), 0);
        let answer = format!("{}{between}{}", one + 1, other + 1);
        prop_assert_eq!(found(&choices, &answer), 0);
        let answer = format!("{}. {}", one + 1, TITLES[other]);
        prop_assert_eq!(found(&choices, &answer), 0);
    }
}
