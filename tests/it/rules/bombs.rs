//! Hostile templates, patterns and messages: rendering and matching end soon, and the output is correct.

use std::time::Duration;

use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::events::Event;
use replyhook::rules::RuleSet;

use super::{SHOP, app};
use crate::support::{Webhook, cpu_time, twiml_message};

/// Limit for the processor time of one bomb. A debug build takes a fraction of it, and minutes without the limits of
/// templates and patterns.
const MAX_BOMB_TIME: Duration = Duration::from_secs(10);

#[track_caller]
fn assert_bounded(started: Duration, bomb: &str) {
    let time = cpu_time().saturating_sub(started);
    assert!(time < MAX_BOMB_TIME, "{time:?} for {bomb}");
}

// A bomb is rejected when the file is read, or fails its own rule only. Neither takes long.
#[tokio::test]
async fn threat_29_template_and_regex_bombs_fail_safely() {
    let walks = "{% for a in media %}".repeat(8) + "x" + &"{% endfor %}".repeat(8);
    let bombs = [
        walks.as_str(),
        "{{ 'x' * 1000000000 }}",
        "{{ body * 100000000 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ (body * 9000) | replace('b', 'x' * 9000) | replace('x', 'yyyyyyyyy') }}",
        "{{ 10 ** 100000000 }}",
        "{{ (body * 9000) ~ (body * 99999999) }}",
    ];
    for bomb in bombs {
        let rules = format!(
            "[[rule]]\nwhen.text = \"bomb\"\nreply = \"\"\"{bomb}\"\"\"\n[otherwise]\nreply = \"ok\"\n"
        );
        let (app, _file) = app(&rules);
        let files = (0..10).map(|at| {
            (
                format!("MediaUrl{at}"),
                format!("https://api.twilio.com/{at}"),
            )
        });
        let message = files.fold(Webhook::message(1, "bomb"), |message, (name, url)| {
            message.with(&name, &url)
        });
        let started = cpu_time();
        let answer = app.send(message.with("NumMedia", "10")).await;
        assert_bounded(started, bomb);
        assert_eq!(answer.assert_rejected(500), "handler failed\n", "{bomb}");
        assert_eq!(app.says(2, "hi").await, twiml_message("ok"), "{bomb}");
    }
    // These constructs, such as assignments, macros and list expressions, are not part of the language.
    let doubling = "{% set x = [1] %}".to_owned() + &"{% set x = [x, x] %}".repeat(40);
    for bomb in [
        &(doubling + "{{ x | upper | length }}"),
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{{ body in [body ~ 'x'] * 100000000 }}",
        "{{ media * 100000000 | length }}",
        "{{ range(9223372036854775807, -9223372036854775807) }}",
        "{% for x in [media, media] %}{% for y in [x, x] %}{{ y }}{% endfor %}{% endfor %}",
    ] {
        let rules = format!("[otherwise]\nreply = \"\"\"{bomb}\"\"\"\n");
        let started = cpu_time();
        let error = RuleSet::parse(&rules).unwrap_err().to_string();
        assert_bounded(started, bomb);
        assert!(error.starts_with("line 2, column "), "{bomb}: {error}");
        assert!(error.contains("invalid template: "), "{bomb}: {error}");
    }
    for pattern in [
        "((a{100}){100}){100}",
        "(\\\\w{500}){500}",
        "[[:^ascii:]]{50000}",
        // These would fit the size limit, but take seconds on a long text.
        "([ab]{1,5000}){1,2}c",
        "^a?[ab]{1,500}[ab]{1,500}$",
        ".{0,1000}!",
    ] {
        let rules = format!("[[rule]]\nwhen.regex = \"{pattern}\"\nreply = \"x\"\n");
        let started = cpu_time();
        let error = RuleSet::parse(&rules).unwrap_err().to_string();
        assert_bounded(started, pattern);
        assert!(error.contains("regex is too large"), "{pattern}: {error}");
    }
    // Each pattern is fast enough alone, but all of them together are too slow.
    let many = (0..200).map(|at| {
        format!("[[rule]]\nwhen.regex = '[ab]*a[ab]{{190}}(?<x{at}>[c-z])'\nreply = \"x\"\n")
    });
    let (app, _file) = app(&(many.collect::<String>() + "[otherwise]\nreply = \"ok\"\n"));
    // Pseudorandom letters, so that hardly any two parts of the text are equal.
    let mut state = 1_u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    let text: String = (0..1600).map(letter).collect();
    let started = cpu_time();
    let answer = app.send(Webhook::message(1, &text)).await;
    assert_bounded(started, "many patterns");
    assert_eq!(answer.assert_rejected(500), "handler failed\n");
    assert_eq!(app.says(2, "hi").await, twiml_message("ok"));
    // Backtracking engines need exponential time for this pattern.
    let (app, _file) = super::app(
        "[[rule]]\nwhen.regex = '^(a+)+$'\nreply = \"a\"\n[otherwise]\nreply = \"ok\"\n",
    );
    let started = cpu_time();
    assert_eq!(
        app.says(1, &format!("{}b", "a".repeat(1500))).await,
        twiml_message("ok")
    );
    assert_bounded(started, "a nested repetition");
}

// The longest template of each kind is parsed and rendered with half the stack of a worker thread.
#[test]
fn threat_29_nested_template_does_not_overflow_stack() {
    let within = |before: &str, times: usize, middle: &str, after: &str| {
        format!("{}{middle}{}", before.repeat(times), after.repeat(times))
    };
    let templates = [
        format!("{{{{ body {} }}}}", "| upper ".repeat(99)),
        format!("{{{{ {} body }}}}", "not ".repeat(199)),
        format!("{{{{ {}1 }}}}", "-".repeat(199)),
        format!("{{{{ location{} }}}}", ".latitude".repeat(99)),
        format!("{{{{ body{} }}}}", "[0]".repeat(66)),
        format!("{{{{ body{} }}}}", " ~ body".repeat(99)),
        format!("{{{{ body{} }}}}", " if body else body".repeat(49)),
        format!("{{{{ {} }}}}", within("(", 99, "body", ")")),
        format!("{{{{ 2{} }}}}", " ** 1".repeat(99)),
        format!("{{{{ body{} }}}}", " is string".repeat(99)),
        within("{% if body %}", 100, "x", "{% endif %}"),
        within("{% for a in media %}", 100, "x", "{% endfor %}"),
        format!(
            "{{% if not body %}}a{}{{% endif %}}",
            "{% elif not body %}b".repeat(198)
        ),
        format!("{{{{ {} }}}}", within("body | default(", 49, "body", ")")),
    ];
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let run = move || {
        let rendered = templates.iter().filter(|template| {
            let rules = format!(
                "[otherwise]\nreply = \"\"\"{template}\"\"\"\n[[example]]\nsays = \"x\"\ngets = []\n"
            );
            RuleSet::parse(&rules).is_ok_and(|set| set.run_examples().len() == 1)
        });
        (rendered.count(), templates.len())
    };
    let (rendered, all) = small.spawn(run).unwrap().join().unwrap();
    // Some templates exceed a limit of minijinja, and are rejected.
    assert!(
        rendered * 2 > all,
        "only {rendered} of {all} templates were rendered"
    );
}

#[tokio::test]
async fn threat_75_user_text_is_never_parsed_as_template() {
    let (app, _file) = app(
        "[[rule]]\nwhen.regex = 'say (?<what>.*)'\nreply = \"{{ what }}|{{ profile_name }}\"\n\
         [[rule]]\nwhen.text = \"form\"\nask = \"form\"\n\
         [otherwise]\nreply = \"{{ body }}\"\n\
         [[form]]\nname = \"form\"\ndone = \"{{ answer }}\"\n[[form.ask]]\nfield = \"answer\"\nquestion = \"?\"\n",
    );
    let poison = "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}{# gone #}";
    assert_eq!(app.says(1, poison).await, twiml_message(poison));
    let named = Webhook::message(2, &format!("say {poison}")).with("ProfileName", poison);
    assert_eq!(
        app.send(named).await.twiml(),
        twiml_message(&format!("{poison}|{poison}"))
    );
    assert_eq!(app.says(3, "form").await, twiml_message("?"));
    assert_eq!(app.says(4, poison).await, twiml_message(poison));
}

/// Tokens of templates, and some that are not allowed in them.
const WORDS: [&str; 48] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{{-",
    "-}}",
    "if",
    "elif",
    "else",
    "endif",
    "for",
    "endfor",
    "in",
    "media",
    "a",
    "body",
    "text",
    "location",
    "(",
    ")",
    "[",
    "]",
    ".",
    ",",
    ":",
    "|",
    "~",
    "*",
    "**",
    "+",
    "-",
    "//",
    "==",
    "<",
    "and",
    "not",
    "is",
    "upper",
    "default",
    "replace",
    "length",
    "none",
    "divisibleby",
    "'x'",
    "9",
    "999999999999",
];

proptest! {
    // A changed rules file either loads, or each of its problems has a line of the file.
    #[test]
    fn arbitrary_rules_file_loads_or_locates_its_problems(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..40usize, "[\\[\\]{}=\"'.%a-z0-9 \n-]{0,6}"), 1..4),
    ) {
        let mut text: Vec<char> = SHOP.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = RuleSet::parse(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(!error.problems().is_empty());
            for problem in error.problems() {
                prop_assert!((1..=lines).contains(&problem.line), "{problem}");
                prop_assert!(!problem.text.is_empty());
            }
        }
    }

    // Every template ends: with a text, a failed rule, or a problem of the file.
    #[test]
    fn arbitrary_template_terminates(
        words in proptest::collection::vec(prop::sample::select(&WORDS[..]), 1..60),
    ) {
        let rules = format!(
            "[otherwise]\nreply = \'\'\'{}\'\'\'\n[[example]]\nsays = \"some words\"\n\
             params = {{ NumMedia = \"1\", MediaUrl0 = \"https://api.twilio.com/1\" }}\ngets = []\n",
            words.join(" ")
        );
        match RuleSet::parse(&rules) {
            Ok(set) => prop_assert_eq!(set.run_examples().len(), 1),
            Err(error) => prop_assert!(error.to_string().starts_with("line 2, column "), "{}", error),
        }
    }

    // The output for any user text is valid TwiML with exactly the expected text.
    #[test]
    fn template_output_is_valid_twiml(
        body in "\\PC{0,40}|[<>&\"'\\]\n\r{}%#]{0,20}",
        parts in proptest::collection::vec(prop::sample::select(&PARTS[..]), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let template: String = parts.iter().map(|(written, _)| *written).collect();
            let expected: String = parts.iter().map(|(_, render)| render(&body)).collect();
            let (app, _file) = app(&format!("[otherwise]\nreply = '''You said: {template}.'''\n"));
            if !["stop", "start"].contains(&body.trim().to_lowercase().as_str()) {
                let twiml = app.says(1, &body).await;
                assert_eq!(texts_of(&twiml), [format!("You said: {expected}.")], "{twiml}");
            }
        });
    }
}

type Render = fn(&str) -> String;

/// Parts of templates, and the text of each for a message body.
const PARTS: [(&str, Render); 8] = [
    ("{{ body }}", |body| body.to_owned()),
    ("{{ body | upper }}", |body| body.to_uppercase()),
    ("<b> & \"x\" ]]> &amp; {# gone #}", |_| {
        "<b> & \"x\" ]]> &amp; ".to_owned()
    }),
    ("{{ body ~ '<' ~ body }}", |body| format!("{body}<{body}")),
    ("{{ body | length }}", |body| {
        body.chars().count().to_string()
    }),
    ("{% if body %}a & b{% else %}<none>{% endif %}", |body| {
        let text = if body.is_empty() { "<none>" } else { "a & b" };
        text.to_owned()
    }),
    ("{{ body | replace('&', '&amp;') }}", |body| {
        body.replace('&', "&amp;")
    }),
    ("{{ body[:3] }}", |body| body.chars().take(3).collect()),
];

/// Texts of a TwiML document's messages, as an XML parser reads them.
fn texts_of(twiml: &str) -> Vec<String> {
    let mut reader = Reader::from_str(twiml);
    reader.config_mut().check_end_names = true;
    let mut texts = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) if start.name().as_ref() == "Message" => texts.push(String::new()),
            Event::Text(text) => {
                if let Some(last) = texts.last_mut() {
                    last.push_str(&text.xml10_content());
                }
            }
            Event::GeneralRef(reference) => {
                let last = texts.last_mut().unwrap();
                match reference.resolve_char_ref().unwrap() {
                    Some(c) => last.push(c),
                    None => {
                        last.push_str(quick_xml::escape::resolve_xml_entity(&reference).unwrap());
                    }
                }
            }
            Event::Eof => return texts,
            _ => {}
        }
    }
}
