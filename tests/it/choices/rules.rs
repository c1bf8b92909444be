//! Choices in a rules file: problems, warnings and examples.

use replyhook::Channel;
use replyhook::rules::RuleSet;

const BOT: &str = r#"
[[rule]]
when.choice = "today"
reply = "Before {{ choice.title }} 6 pm, by {{ choice.via }}."

[[rule]]
when.choice = true
reply = "{{ choice.id }} ({{ choice.key }})"

[otherwise]
reply.text = "When, {{ profile_name or 'you' }}?"
reply.choices = [{ id = "today", title = "Today" }, "Another day"]
reply.choices_key = "day"

[[example]]
name = "a typed title"
turns = [
  { says = "hi", gets = "When, you?" },
  { says = "TODAY!", gets = "Before Today 6 pm, by text." },
  { says = "1", gets = "When, you?" },
  { says = "2.", gets = "Another day (day)" },
]

[[example]]
name = "a tap"
turns = [
  { says = "hi", gets = "When, you?" },
  { taps = "Another day", gets = "Another day (day)" },
]
"#;

#[test]
fn rules_ask_and_answer_on_every_channel() {
    for channel in [
        Channel::WhatsApp,
        Channel::Sms,
        Channel::Rcs,
        Channel::Messenger,
    ] {
        for result in RuleSet::parse(BOT).unwrap().run_examples_on(&channel) {
            assert_eq!(result.failure, None, "{} on {channel:?}", result.name);
        }
    }
}

#[test]
fn tap_on_missing_choice_fails_the_example() {
    let missing = BOT.replace("taps = \"Another day\"", "taps = \"Never\"");
    let results = RuleSet::parse(&missing).unwrap().run_examples();
    let failure = results[1].failure.as_ref().unwrap();
    assert!(
        failure.found.contains("no choice \"Never\""),
        "{}",
        failure.found
    );
}

#[test]
fn invalid_choices_are_problems_of_the_file() {
    let otherwise = "[otherwise]\nreply.text = 'When?'\n";
    for (choices, expected) in [
        ("reply.choices = []", "at least one choice"),
        ("reply.choices = ['A', 'a']", "the same title"),
        ("reply.choices = ['A', '']", "is empty"),
        (
            "reply.choices = [{ id = 'x', title = 'A' }, { id = 'X', title = 'B' }]",
            "the same id",
        ),
        ("reply.choices = 'A'", "choices is a list of titles"),
        ("reply.choices = [{ id = 'x' }]", "a choice needs a title"),
        ("reply.choices_key = 'x'", "belong to choices"),
        ("reply.content = { sid = 'HX1' }", "not a content SID"),
        (
            "reply.location = { latitude = 91, longitude = 0 }",
            "not a location",
        ),
    ] {
        let error = RuleSet::parse(&format!("{otherwise}{choices}")).err();
        let error = error.unwrap_or_else(|| panic!("{choices} is accepted"));
        assert!(error.to_string().contains(expected), "{choices}: {error}");
    }
}

// On SMS and RCS, Twilio handles these words itself.
#[test]
fn keywords_as_choices_or_words_of_a_form_are_warned_about() {
    let warnings = |rules: &str| -> Vec<String> {
        let rules = RuleSet::parse(rules).unwrap();
        rules.warnings().iter().map(ToString::to_string).collect()
    };
    let otherwise = "[otherwise]\nreply.text = 'Sure?'\n";
    let found = warnings(&format!(
        "{otherwise}reply.choices = ['Yes', 'No', 'Stop.']"
    ));
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("line 3, ") && found[0].contains("YES is a keyword"),
        "{found:?}"
    );
    let form = "[[rule]]\nask = 'f'\n[[form]]\nname = 'f'\ncancel = ['cancel', 'never mind']\ncanceled = 'Ok.'\ndone = 'Done.'\n\
         [[form.ask]]\nfield = 'a'\nquestion = 'A?'\nchoice = ['End', 'Go on']\n";
    let found = warnings(form);
    assert!(
        found[0].contains("CANCEL") && found[1].contains("END"),
        "{found:?}"
    );
    assert_eq!(found.len(), 2);
    assert_eq!(warnings(BOT), Vec::<String>::new());
}
