//! Choices in a rules file: problems, warnings and examples.

use std::time::Duration;

use replyhook::Channel;
use replyhook::rules::{ExampleSettings, RuleSet};

use crate::support::{FakeTwilio, TestApp, Webhook, replyhook};

const USER: &str = "whatsapp:+15550001111";

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
        (
            "reply.content = { name = 'x' }",
            "content lacks the language",
        ),
        (
            "reply.content = { sid = 'HX00000000000000000000000000000042', name = 'x' }",
            "content names one template",
        ),
        (
            "reply.content = { name = 'x', language = 'en' }\nreply.location = { latitude = 1, longitude = 2 }",
            "content or location",
        ),
        (
            "reply.choices = ['A', 'B']\nreply.choices_button = 'A label that is too long'",
            "choices_button has over 20 characters",
        ),
        (
            "reply.location = { latitude = 1, longitude = 2, label = '{{ body ' }",
            "line 3",
        ),
        (
            "reply.content = { link = { title = 'Open' } }",
            "a link has a title and a url",
        ),
        (
            "reply.content = { link = { title = ' ', url = 'https://h' } }",
            "title of the link is empty",
        ),
        (
            "reply.content = { link = { title = 'Open', url = 'h/x' } }",
            "the link's url is not an http or https URL",
        ),
        (
            "reply.content = { link = { title = 'Open', url = 'https://h', id = 1 } }",
            "id",
        ),
        (
            "reply.content = { name = 'x', link = { title = 'Open', url = 'https://h' } }",
            "names a template or has a link",
        ),
        (
            "reply.choices = ['A']\nreply.content = { link = { title = 'Open', url = 'https://h' } }",
            "choices or a link",
        ),
    ] {
        let error = RuleSet::parse(&format!("{otherwise}{choices}")).err();
        let error = error.unwrap_or_else(|| panic!("{choices} is accepted"));
        assert!(error.to_string().contains(expected), "{choices}: {error}");
    }
}

#[test]
fn location_or_content_alone_is_one_message() {
    let rules = "[[rule]]\nwhen.text = 'where'\nreply.location = { latitude = 1, longitude = 2 }\n\
         [otherwise]\nreply.content = { name = 'x', language = 'en' }\n\
         [[example]]\nsays = 'where'\ngets = ['']\n[[example]]\nsays = 'hi'\ngets = ['']\n\
         [[example]]\nsays = 'hi'\ngets = ['', '']\n";
    let results = RuleSet::parse(rules).unwrap().run_examples();
    let passed: Vec<_> = results
        .iter()
        .map(|result| result.failure.is_none())
        .collect();
    assert_eq!(passed, [true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_and_label_are_templates() {
    const SID: &str = "HX00000000000000000000000000000042";
    let rules = format!(
        "[[rule]]\nwhen.text = 'where'\nreply.location = {{ latitude = 1, longitude = 2, label = 'For {{{{ profile_name }}}}' }}\n\
         [otherwise]\nreply.content = {{ sid = '{SID}', variables = {{ 1 = '{{{{ body }}}}!' }} }}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot.toml");
    std::fs::write(&file, rules).unwrap();
    let twilio = FakeTwilio::start();
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", file.to_str().unwrap()),
    ];
    let app = TestApp::with_twilio(&twilio, &env, |app| app);
    app.send(Webhook::message(1, "where").with("ProfileName", "Ana"))
        .await;
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "For Ana");
    app.says(2, "hi").await;
    let phone = twilio.wait_for_phone(USER, 2);
    assert_eq!(phone[1].body, format!(r#"{SID} {{"1":"hi!"}}"#));
}

// A tap on the form's own question is its answer, although the title is a cancel word too.
#[test]
fn tap_on_choice_of_form_precedes_cancel_word() {
    let rules = "[[rule]]\nwhen.text = 'book'\nask = 'f'\n[otherwise]\nreply = 'Other.'\n\
         [[form]]\nname = 'f'\ncancel = 'later'\ncanceled = 'Canceled.'\ndone = 'At {{ a }}.'\n\
         [[form.ask]]\nfield = 'a'\nquestion = { text = 'When?', choices = ['Now', 'Later'] }\n\
         [[example]]\nturns = [{ says = 'book', gets = 'When?' }, { taps = 'Later', gets = 'At Later.' }]\n\
         [[example]]\nturns = [{ says = 'book', gets = 'When?' }, { says = 'later', gets = 'Canceled.' }]\n";
    for result in RuleSet::parse(rules).unwrap().run_examples() {
        assert_eq!(result.failure, None, "{}", result.name);
    }
}

// On SMS and RCS, Twilio handles these words itself.
#[test]
fn keywords_as_choices_or_words_of_a_form_are_warned_about() {
    let warnings = |rules: &str| -> Vec<String> {
        let rules = RuleSet::parse(rules).unwrap();
        let warnings = rules.warnings(&["STOP", "basta"], &["START"]);
        warnings.iter().map(ToString::to_string).collect()
    };
    let otherwise = "[otherwise]\nreply.text = 'Sure?'\n";
    let found = warnings(&format!(
        "{otherwise}reply.choices = ['Yes', 'No', 'Stop.', 'Basta!']"
    ));
    assert_eq!(found.len(), 3);
    assert!(!found[0].contains("WhatsApp"), "{found:?}");
    for found in &found[1..] {
        assert!(
            found.contains("WhatsApp") && found.contains("Messenger"),
            "{found}"
        );
    }
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
    // As the matcher and the reader of keywords fold a typed answer.
    let found = warnings(&format!(
        "{otherwise}reply.choices = ['Cancel!', '🛑 Stop', 'Hélp', 'Later']"
    ));
    assert_eq!(found.len(), 3, "{found:?}");
    // "stop" and "end" are taken for these.
    let found = warnings(&format!(
        "{otherwise}reply.choices = ['Basta (all)', 'End (now)', 'Stop it (now)', 'Help (24 h)']"
    ));
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn check_of_rules_with_a_consent_keyword_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("bot.toml");
    for (title, expected) in [("Cancel!", 1), ("Never mind", 0)] {
        let text = format!("[otherwise]\nreply.text = 'Sure?'\nreply.choices = ['{title}']\n");
        std::fs::write(&rules, text).unwrap();
        let (code, out, err) = replyhook(&["check", "--rules", rules.to_str().unwrap()], &[], "");
        assert_eq!(code, expected, "{out}{err}");
        assert_eq!(out.contains("no problem"), expected == 0, "{out}");
        assert_eq!(out.contains("1 warning"), expected == 1, "{out}");
    }
}

// A number counts as a position only where the channel showed numbers, if a title has a number.
#[test]
fn typed_number_is_never_taken_for_a_position_that_was_not_shown() {
    for (says, on_whatsapp, on_sms) in [
        ("2", "What?", "3 people by number, True"),
        ("3", "3 people by text, True", "What?"),
    ] {
        for (channel, gets) in [(Channel::WhatsApp, on_whatsapp), (Channel::Sms, on_sms)] {
            let rules = format!(
                "[[rule]]\nwhen.choice = true\nreply = '{{{{ choice.id }}}} by {{{{ choice.via }}}}, {{{{ choice.current }}}}'\n\
                 [[rule]]\nwhen.text = 'book'\nreply.text = 'How many?'\nreply.choices = ['1 person', '3 people', '4 people']\n\
                 [otherwise]\nreply = 'What?'\n\
                 [[example]]\nturns = [{{ says = 'book', gets = 'How many?' }}, {{ says = '{says}', gets = '{gets}' }}]\n"
            );
            let results = RuleSet::parse(&rules).unwrap().run_examples_on(&channel);
            assert_eq!(results[0].failure, None, "{says} on {channel:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_a_question_are_templates() {
    let rules = "[[rule]]\nwhen.choice = true\nreply = '{{ choice.key }}'\n\
         [otherwise]\nreply.text = 'When?'\nreply.choices = ['A', 'B', 'C', 'D']\n\
         reply.choices_key = 'of {{ profile_name }}'\nreply.choices_button = 'Menu {{ profile_name }}'\n\
         reply.choices_hint = 'A number, {{ profile_name }}.'\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot.toml");
    std::fs::write(&file, rules).unwrap();
    let twilio = FakeTwilio::start();
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", file.to_str().unwrap()),
    ];
    let app = TestApp::with_twilio(&twilio, &env, |app| app);
    for (number, name, label) in [(1, "Ana", "Menu Ana"), (2, "Maximiliano Alexander", "☰")] {
        let webhook = Webhook::message(number, "hi").with("ProfileName", name);
        app.send(webhook).await;
        let phone = twilio.wait_for_phone(USER, usize::try_from(number).unwrap());
        let fields = &phone.last().unwrap().content.as_ref().unwrap()["fields"];
        assert_eq!(fields["button"], label);
    }
    let sms = |number: u64, body: &str| {
        Webhook::message(number, body)
            .with("From", "+15550001111")
            .with("To", "+15550002222")
            .with("ProfileName", "Ana")
    };
    let asked = app.send(sms(3, "hi")).await.twiml().to_owned();
    assert!(asked.contains("A number, Ana."), "{asked}");
    let answered = app.send(sms(4, "2")).await.twiml().to_owned();
    assert!(answered.contains("of Ana"), "{answered}");
}

/// Rules whose examples show the way of an answer, and a question that is over.
const WAYS: &str = r#"
[[rule]]
when.choice = true
reply = "{{ choice.id }} by {{ choice.via }}, {{ choice.current }}"

[[rule]]
when.text = "hours"
reply.text = "When?"
reply.choices = ["9 am", "10 am", "11 am", "2 pm"]

[[rule]]
when.text = "days"
reply.text = "When?"
reply.choices = ["Today", "Tomorrow"]

[otherwise]
reply = "What?"
"#;

fn failures(examples: &str, channel: &Channel, settings: &ExampleSettings) -> Vec<String> {
    let rules = RuleSet::parse(&format!("{WAYS}{examples}")).unwrap();
    let results = rules.run_examples_with(channel, settings).into_iter();
    results
        .filter_map(|result| Some(result.failure?.found))
        .collect()
}

#[test]
fn tap_in_example_has_the_way_of_the_channels_form() {
    for (channel, day, hour) in [
        (Channel::WhatsApp, "button", "list"),
        (Channel::Rcs, "chip", "chip"),
        (Channel::Messenger, "button", "button"),
        (Channel::Sms, "number", "number"),
    ] {
        let examples = format!(
            "[[example]]\nturns = [{{ says = 'days', gets = 'When?' }}, {{ taps = 'Tomorrow', gets = 'Tomorrow by {day}, True' }},\n\
             {{ says = 'hours', gets = 'When?' }}, {{ taps = '2 pm', gets = '2 pm by {hour}, True' }}]\n"
        );
        let found = failures(&examples, &channel, &ExampleSettings::default());
        assert!(found.is_empty(), "{channel:?}: {found:?}");
    }
    let mut no_lists = ExampleSettings::default();
    no_lists.choices_button = String::new();
    let example = "[[example]]\nturns = [{ says = 'hours', gets = 'When?' }, { taps = '2 pm', gets = '2 pm by number, True' }]\n";
    assert!(failures(example, &Channel::WhatsApp, &no_lists).is_empty());
}

#[test]
fn question_of_example_is_over_after_choices_ttl() {
    let example = |minute: &str, gets: &str, turn: &str| {
        format!(
            "[[example]]\nturns = [{{ says = 'days', gets = 'When?', at = '2026-01-05T09:00:00Z' }},\n\
             {{ {turn}, gets = '{gets}', at = '2026-01-05T{minute}:00Z' }}]\n"
        )
    };
    let mut settings = ExampleSettings::default();
    settings.choices_ttl = Duration::from_hours(1);
    for (minute, turn, on_whatsapp, on_sms) in [
        (
            "09:59",
            "says = '2'",
            "Tomorrow by number, True",
            "Tomorrow by number, True",
        ),
        ("10:00", "says = '2'", "What?", "What?"),
        (
            "09:59",
            "taps = 'Tomorrow'",
            "Tomorrow by button, True",
            "Tomorrow by number, True",
        ),
        (
            "10:00",
            "taps = 'Tomorrow'",
            "Tomorrow by button, False",
            "What?",
        ),
    ] {
        for (channel, gets) in [(Channel::WhatsApp, on_whatsapp), (Channel::Sms, on_sms)] {
            let found = failures(&example(minute, gets, turn), &channel, &settings);
            assert!(
                found.is_empty(),
                "{minute} {turn} on {channel:?}: {found:?}"
            );
        }
    }
    // 24 hours by default.
    let later = example("20:00", "Tomorrow by number, True", "says = '2'");
    assert!(failures(&later, &Channel::Sms, &ExampleSettings::default()).is_empty());
}

#[test]
fn rules_test_reads_settings_of_questions() {
    let folder = tempfile::tempdir().unwrap();
    let (rules, config) = (folder.path().join("bot.toml"), folder.path().join("r.toml"));
    let example = "[[example]]\nturns = [{ says = 'days', gets = 'When?', at = '2026-01-05T09:00:00Z' },\n\
         { says = '2', gets = 'What?', at = '2026-01-05T11:00:00Z' }]\n";
    std::fs::write(&rules, format!("{WAYS}{example}")).unwrap();
    std::fs::write(&config, "[reply]\nchoices_ttl = '1h'\n").unwrap();
    let (rules, config) = (rules.to_str().unwrap(), config.to_str().unwrap());
    let test = ["rules", "test", rules];
    let with_file = ["rules", "test", rules, "--config", config];
    let ttl = "REPLYHOOK__REPLY__CHOICES_TTL";
    for (args, env, expected) in [
        (&test[..], &[][..], 1),
        (&with_file, &[], 0),
        (&test, &[(ttl, "1h")], 0),
        (&test, &[(ttl, "soon")], 2),
        (
            &["rules", "test", rules, "--config", "/no/such.toml"],
            &[],
            2,
        ),
    ] {
        let (code, out, err) = replyhook(args, env, "");
        assert_eq!(code, expected, "{args:?} {env:?}: {out}{err}");
    }
    let (_, _, err) = replyhook(&test, &[(ttl, "soon")], "");
    assert!(err.contains("reply.choices_ttl"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn link_of_a_rule_is_a_button_below_its_text() {
    let rules = "[[rule]]\nwhen.text = 'bad'\nreply.text = 'x'\n\
         reply.content = { link = { title = 'Open', url = 'javascript:{{ body }}' } }\n\
         [otherwise]\nreply.text = 'Your parcel.'\n\
         reply.content = { link = { title = 'Track {{ body }}', url = 'https://example.com/{{ body }}' } }\n\
         [[example]]\nsays = '42'\ngets = 'Your parcel.'\n";
    assert!(
        RuleSet::parse(rules).unwrap().run_examples()[0]
            .failure
            .is_none()
    );
    let without_text =
        "[otherwise]\nreply.content = { link = { title = 'A', url = 'https://h' } }\n";
    let error = RuleSet::parse(without_text).err().unwrap().to_string();
    assert!(error.contains("a link needs a text above it"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot.toml");
    std::fs::write(&file, rules).unwrap();
    let twilio = FakeTwilio::start();
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", file.to_str().unwrap()),
    ];
    let app = TestApp::with_twilio(&twilio, &env, |app| app);
    app.says(1, "42").await;
    let phone = twilio.wait_for_phone("whatsapp:+15550001111", 1);
    let fields = &phone[0].content.as_ref().unwrap()["fields"];
    assert_eq!(fields["body"], "Your parcel.");
    assert_eq!(fields["actions"][0]["title"], "Track 42");
    assert_eq!(fields["actions"][0]["url"], "https://example.com/42");
    // As from a service: the text without the link. Of another user, whose reply follows none that is being sent.
    let bad = Webhook::message(2, "bad").with("From", "whatsapp:+15550004444");
    let response = app.send(bad).await;
    let response = response.twiml();
    assert!(response.contains(">x<"), "{response}");
}
