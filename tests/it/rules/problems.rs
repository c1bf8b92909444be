//! Problems of a rules file: all are reported together, each with its position and the fix.

use std::path::Path;

use replyhook::config::Settings;
use replyhook::rules::{RuleSet, RulesFile};

use super::TempRules;
use crate::support::{replyhook, sources};

const WRONG: &str = r#"timezone = "Europe/Berln"
[hour]
open = "x"
[[rule]]
when = { txt = "hi" }
repply = "x"
[[rule]]
when.regex = '(a'
reply = "Hello {{ profil_name }}"
[[rule]]
when.text = 5
reply = "{% if x %}"
[[rule]]
when.media = "imagee"
ask = "bookng"
[[rule]]
when.hours = "mon-sun 9-5"
reply = "x"
ask = "booking"
[[form]]
name = "booking"
[[form.ask]]
field = "a b"
question = "hi {{ nme }}"
type = "interger"
"#;

#[test]
fn rules_problems_are_listed_with_position_and_remedy() {
    let file = TempRules::new(WRONG);
    let (code, _, error) = replyhook(&["check", "--rules", &file.name()], &[], "");
    assert_eq!(code, 2);
    for line in [
        r#"line 1, column 12: "Europe/Berln" is not a time zone; write one such as "Europe/Berlin" or "UTC""#,
        "line 2, column 2: hour is not known here: did you mean hours?",
        "line 5, column 10: txt is not known here: did you mean text?",
        "line 6, column 1: repply is not known here: did you mean reply?",
        "line 8, column 14: invalid regex: unclosed group",
        "line 9, column 19: profil_name is not defined here: did you mean profile_name?",
        "line 11, column 13: text is of type integer: write a text in quotes, or several in brackets",
        "line 12, column 13: invalid template: this if has no end: write {% endif %}",
        r#"line 14, column 14: media is "imagee": did you mean "image"?"#,
        r#"line 15, column 7: unknown form "bookng": did you mean "booking"?"#,
        "line 16, column 1: a rule does one thing: reply, ask, handoff or forward",
        r#"line 17, column 14: invalid hours "mon-sun 9-5""#,
        "line 20, column 1: a form needs done: the reply when all questions are answered",
        "line 23, column 9: field is a name of letters, digits and _",
        "line 24, column 19: nme is not defined here",
        r#"line 25, column 8: type is "interger": did you mean "integer"?"#,
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
    let no_toml = TempRules::new("[[rule]]\nreply = \"Hi\n");
    let (code, _, error) = replyhook(&["check", "--rules", &no_toml.name()], &[], "");
    assert_eq!(code, 2);
    assert!(error.contains("line 2, column 12: invalid TOML"), "{error}");
}

#[test]
fn pattern_unusable_for_whole_answer_is_rejected() {
    let form = |pattern: &str| {
        format!(
            "[[form]]\nname = \"f\"\ndone = \"{{{{ code }}}}\"\n[[form.ask]]\nfield = \"code\"\nquestion = \"?\"\n\
             pattern = '{pattern}'\n[otherwise]\nask = \"f\"\n"
        )
    };
    assert!(RuleSet::parse(&form(r"\d{5}")).is_ok());
    // The first pattern is valid alone, but its comment would hide the end of the wrapper that anchors it.
    for pattern in [r"(?x)\d{5} # a code", "a)|(b"] {
        let error = RuleSet::parse(&form(pattern)).unwrap_err().to_string();
        assert!(
            error.contains("line 7, column 11: invalid regex"),
            "{error}"
        );
    }
}

/// Returns the problems of rules; empty if there are none.
fn problems_in(rules: &str) -> String {
    RuleSet::parse(rules).map_or_else(|error| error.to_string(), |_| String::new())
}

#[test]
fn matcher_matching_everything_or_nothing_is_reported() {
    for (when, problem) in [
        ("{ any = [] }", "any is empty: write any = [{ … }, { … }]"),
        ("{ all = [] }", "all is empty"),
        ("{ any = { text = \"a\" } }", "write any = [{ … }, { … }]"),
        (
            "{ words = \"👍\" }",
            "has no word in it: write text or regex",
        ),
        ("{ words = [\"a\", \"\"] }", "has no word in it"),
        ("{ button = \" \" }", "button has an empty text"),
        ("{ country = \"Germany\" }", "write two letters"),
        ("{ country = \"UK\" }", "the United Kingdom is \"GB\""),
        (
            "{ location = { latitude = 1, longitude = 1, km = -5 } }",
            "km is above 0",
        ),
        (
            "{ location = { latitude = 91, longitude = 1, km = 5 } }",
            "latitude is from -90 to 90",
        ),
        (
            "{ location = { latitude = 1, longitude = 1, km = nan } }",
            "km is of type float: write a number, as in",
        ),
        ("{}", "when is empty"),
    ] {
        let report = problems_in(&format!("[[rule]]\nwhen = {when}\nreply = \"x\"\n"));
        assert!(report.contains(problem), "{when}: {report}");
    }
    for when in [
        "{ text = \"👍\" }",
        "{ country = [\"de\", \"GB\"] }",
        "{ words = \"thank you!\" }",
    ] {
        let report = problems_in(&format!("[[rule]]\nwhen = {when}\nreply = \"x\"\n"));
        assert_eq!(report, "", "{when}");
    }
}

#[test]
fn unused_rules_file_entry_is_reported() {
    let form = "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"x\"\n";
    let ask = "[[form.ask]]\nfield = \"a\"\nquestion = \"?\"\n";
    let files = (0..11).map(|at| format!("\"https://example.com/{at}.png\""));
    let files = files.collect::<Vec<_>>().join(", ");
    for (rules, problem) in [
        (
            format!("{form}canceled = \"bye\"\n{ask}"),
            "canceled is never sent",
        ),
        (
            format!("{form}cancel = \"\"\n{ask}"),
            "cancel has an empty text",
        ),
        (
            format!("{form}{ask}type = \"integer\"\nchoice = [\"a\"]\n"),
            "by type, choice or pattern",
        ),
        (
            format!("{form}ask = 1\n"),
            "write [[form.ask]] above each question",
        ),
        (
            format!("{form}version = 99999999999\n{ask}"),
            "write a whole number from 1 to 4294967295",
        ),
        (
            form.replace("ask = \"f\"", "reply = \"x\"") + ask,
            "no rule begins this form: write ask = \"f\"",
        ),
        (
            "[vars]\nmy-shop = \"a\"\n[otherwise]\nreply = \"x\"\n".to_owned(),
            "\"my-shop\" cannot be named in a template",
        ),
        (
            "[opt_out]\nstop_reply = \"{{ user }}\"\n[otherwise]\nreply = \"x\"\n".to_owned(),
            "stop_reply is not a template",
        ),
        (
            format!(
                "[opt_out]\nstop_reply = \"{}\"\n[otherwise]\nreply = \"x\"\n",
                "x".repeat(1601)
            ),
            "over 1600 characters",
        ),
        (
            format!("[otherwise]\nreply = {{ media = [{files}] }}\n"),
            "over ten files",
        ),
        (
            "[otherwise]\nreply = \"x\"\n[[example]]\nturns = []\n".to_owned(),
            "turns is empty: write turns = [{",
        ),
    ] {
        let report = problems_in(&rules);
        assert!(report.contains(problem), "{rules}\n{report}");
    }
    // One mistake is reported once. An invalid form is not reported as unknown, and an invalid rule not as missing.
    let report = problems_in(
        "[[rule]]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = 5\n[[form.ask]]\nfield = \"a\"\nquestion = \"?\"\n",
    );
    assert_eq!(report.lines().count(), 1, "{report}");
    let report = problems_in("[[rule]]\nrepply = \"f\"\n");
    assert!(!report.contains("has no rules"), "{report}");
}

#[test]
fn rules_mistake_is_reported_once_with_remedy() {
    let form = "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"{{ a }}\"\n[[form.ask]]\nfield = \"a\"\nquestion = \"?\"\n";
    let example = "[otherwise]\nreply = \"x\"\n[[example]]\n";
    for (rules, problem) in [
        (
            "[[rule]]\nwhen.regex = '(?<id>\\d+'\nreply = \"{{ id }}\"\n".to_owned(),
            "invalid regex",
        ),
        (
            format!("{form}type = \"int\"\n"),
            "write text, integer, number",
        ),
        (
            format!("{example}location = {{ latitude = \"a\", longitude = 1 }}\ngets = \"x\"\n"),
            "latitude is of type string",
        ),
        (
            "[rule]\nreply = \"x\"\n".to_owned(),
            "write [[rule]] above each one",
        ),
        (
            "[[rule]]\nrepyl = \"x\"\n".to_owned(),
            "did you mean reply?",
        ),
        (
            "[[rule]]\nforward = \"https://a.example\"\n".to_owned(),
            "write true; the URL is the setting handler.forward_url",
        ),
        (
            "[[rule]]\nreply = { txt = \"x\" }\n".to_owned(),
            "did you mean text?",
        ),
        (
            "[[rule]]\nwhen.location = { latitude = 520, longitude = 1, km = 1 }\nreply = \"x\"\n"
                .to_owned(),
            "latitude is from -90 to 90",
        ),
        (
            "[[rule]]\nreply = \"x\"\ntimezone = \"UTC\"\n".to_owned(),
            "timezone stands above the first [table]",
        ),
        (
            "[[rule]]\nreply = \"x\"\nwords = \"hi\"\n".to_owned(),
            "did you mean when.words?",
        ),
        (
            "[[rule]]\nreply = \"x\"\nforwarded = true\n".to_owned(),
            "did you mean when.forwarded?",
        ),
        (
            "[[rule]]\nreply = \"x\"\ncountry = \"DE\"\n".to_owned(),
            "did you mean when.country?",
        ),
        (
            "[[rule]]\nreply = \"x\"\nchoices = [\"a\", \"b\"]\n".to_owned(),
            "did you mean reply.choices?",
        ),
        (
            "[[rule]]\nreply = \"x\"\nmedia = \"image\"\n".to_owned(),
            "did you mean when.media or reply.media?",
        ),
        (
            "[[rule]]\nreply = { text = \"x\", buttons = [\"a\"] }\n".to_owned(),
            "buttons is not known here: did you mean choices?",
        ),
        (
            "[[rule]]\nreply.picture = \"https://a.example/a.png\"\n".to_owned(),
            "picture is not known here: did you mean media?",
        ),
        (
            "[[rule]]\nwhen.regex = '(?<id>.)'\nreply = \"{{ ID }}\"\n".to_owned(),
            "ID is not defined here: did you mean id?",
        ),
        (
            "[[otherwise]]\nreply = \"x\"\n".to_owned(),
            "otherwise is of type array: write [otherwise], in single brackets",
        ),
        (
            "[[rule]]\nwhen.text = [\"Hi\", \"olá\"]\nreply = \"x\"\n[[rule]]\nwhen.text = [\"hi \", \"OLA\"]\nreply = \"y\"\n"
                .to_owned(),
            "line 4, column 1: no message gets here: the rule at line 1 has the same when",
        ),
        (
            "[otherwise]\nreply = \"{{ text | replace('a') }}\"\n".to_owned(),
            "replace takes 2 to 3 in its brackets, not 1",
        ),
        (
            "[[rule]]\nwhen.regex = \"\\d\"\nreply = \"x\"\n".to_owned(),
            "write a pattern in single quotes",
        ),
        (
            "[[rule]]\nreply = “x”\n".to_owned(),
            "write straight quotes",
        ),
        (
            "[[rule]]\nwhen.regex = ''\nreply = \"x\"\n".to_owned(),
            "regex is empty",
        ),
        (
            "[[rule]]\nreply = \" \"\n".to_owned(),
            "write [] to send no reply",
        ),
        (
            "[[rule]]\nreply = \"x\"\n[[rule]]\nwhen.text = \"a\"\nreply = \"y\"\n".to_owned(),
            "line 3, column 1: no message gets here: the rule at line 1 has no when",
        ),
        (
            format!("[otherwise]\nreply = \"{}\"\n", "a".repeat(40_000)),
            "over 32 KiB",
        ),
        (
            format!("[otherwise]\nreply = \"{{# {}\"\n", "a".repeat(70_000)),
            "over 32 KiB",
        ),
    ] {
        let report = problems_in(&rules);
        let shown = &rules[..rules.len().min(300)];
        assert!(report.contains(problem), "{shown}\n{report}");
        assert_eq!(report.lines().count(), 1, "{shown}\n{report}");
    }
    let several =
        problems_in("[otherwise]\nreply = \"{{ a | uper }} {{ [1] }} {{ media.url }}\"\n");
    assert_eq!(several.lines().count(), 3, "{several}");
}

#[test]
fn unicode_patterns_fit_within_total_size_limit() {
    for pattern in [
        r"^\w{2,20}$",
        r"(?i)^name: \w{1,20}, mail: \S{1,90}$",
        r"\w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+",
    ] {
        let report = problems_in(&format!(
            "[[rule]]\nwhen.regex = '{pattern}'\nreply = \"x\"\n"
        ));
        assert_eq!(report, "", "{pattern}");
    }
    let many =
        (0..50).map(|at| format!("[[rule]]\nwhen.regex = '^\\w{{2,20}}{at}$'\nreply = \"x\"\n"));
    let many: String = many.collect();
    let report = problems_in(&many);
    assert!(
        report.contains("all patterns together are too large"),
        "{report}"
    );
}

#[test]
fn form_over_100_questions_is_rejected() {
    let form = |number: usize| {
        let asks =
            (0..number).map(|at| format!("[[form.ask]]\nfield = \"f{at}\"\nquestion = \"?\"\n"));
        let head = "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"x\"\n".to_owned();
        problems_in(&(head + &asks.collect::<String>()))
    };
    assert_eq!(form(100), "");
    assert!(form(5000).contains("over 100 questions"));
}

#[test]
fn problem_in_escaped_text_has_correct_column() {
    for (text, column) in [
        (r#""\t\"{{ nme }}""#, 17),
        (r#""\u00e9{{ nme }}""#, 19),
        (r#""é{{ nme }}""#, 14),
        ("'{{ nme }}'", 13),
    ] {
        let report = problems_in(&format!("[otherwise]\nreply = {text}\n"));
        assert!(
            report.starts_with(&format!("line 2, column {column}: nme")),
            "{text}: {report}"
        );
    }
    let report =
        problems_in("[otherwise]\nreply = \"\"\"\none \\\n   two\nthree {{ nme }}\"\"\"\n");
    assert!(report.starts_with("line 5, column 10: nme"), "{report}");
}

#[test]
fn problem_list_is_limited_to_100_lines() {
    let report = problems_in(&"[[rule]]\nrepply = \"x\"\n".repeat(5000));
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines.len(), 100);
    assert!(
        lines[99].ends_with("there are more problems; fix these first"),
        "{}",
        lines[99]
    );
    let long = problems_in(&format!(
        "[otherwise]\nreply = \"x\"\n{} = 1\n",
        "k".repeat(500_000)
    ));
    assert!(long.len() < 1000, "{}", long.len());
    let wide = TempRules::new(&format!(
        "[otherwise]\nreply = \"ok\"\n[[rule]]\nwhen.text = \"{}\"\nreply = \"x\"\n",
        "w".repeat(70_000)
    ));
    let (code, output, error) = replyhook(&["check", "--rules", &wide.name()], &[], "");
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(output.contains("www…"), "{output}");
}

#[test]
fn unusable_rules_setting_is_reported_with_key() {
    let problems = |env: &[(&str, &str)]| {
        let base_env = [("REPLYHOOK__HANDLER__KIND", "rules")];
        Settings::load(&sources(&[&base_env[..], env].concat()))
            .unwrap_err()
            .to_string()
    };
    let missing = problems(&[]);
    assert!(
        missing.contains("handler.rules (default): is missing"),
        "{missing}"
    );
    let nowhere = problems(&[("REPLYHOOK__HANDLER__RULES", "/no/such/bot.toml")]);
    assert!(
        nowhere.contains("/no/such/bot.toml cannot be read"),
        "{nowhere}"
    );
    let file = TempRules::new("[[rule]]\nfoo = 1\nreply = \"x\"\n");
    let name = file.name();
    let wrong = problems(&[("REPLYHOOK__HANDLER__RULES", &name)]);
    assert!(
        wrong.contains("line 2, column 1: foo is not known here"),
        "{wrong}"
    );
    let file = TempRules::new("[otherwise]\nforward = true\n");
    let name = file.name();
    let alone = problems(&[("REPLYHOOK__HANDLER__RULES", &name)]);
    assert!(
        alone.contains("handler.forward_url")
            && alone.contains("line 2, column 11, forwards to it"),
        "{alone}"
    );
}

// A device or a pipe may never end.
#[test]
fn rules_file_must_be_regular_small_and_utf8() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [Path::new("/dev/zero"), &pipe, folder.path()] {
        let error = RulesFile::read(path).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file"), "{error}");
    }
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    let error = RulesFile::read(&large).unwrap_err().to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
    std::fs::write(&large, b"[otherwise]\nreply = \"caf\xe9\"\n").unwrap();
    let error = RulesFile::read(&large).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 2, column 13: invalid UTF-8; save the file as UTF-8"
    );
    // Windows editors write a BOM and CRLF.
    std::fs::write(&large, "\u{feff}[otherwise]\r\nreply = \"café\"\r\n").unwrap();
    RulesFile::read(&large).unwrap();
}
