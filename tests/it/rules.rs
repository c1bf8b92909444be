//! A bot in a TOML file: what it says, what is told of a wrong one, and that a changed one is read anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use replyhook::config::{Settings, Sources};
use replyhook::handler::{RuleSet, RulesFile};
use replyhook::testing::TestBot;
use replyhook::twiml::Document;
use replyhook::{App, Channel, Reply};
use serde_json::json;

use crate::support::{
    ANA, Dev, Scripted, Server, TestApp, Webhook, replyhook, root, says, sources,
};

const SHOP: &str = include_str!("../../examples/rules/shop.toml");

/// A file of rules that can be changed.
struct File(tempfile::TempDir);

impl File {
    fn new(rules: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(rules);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("bot.toml")
    }

    fn name(&self) -> String {
        self.path().display().to_string()
    }

    /// At once: who looks at it meanwhile sees the old rules or the new ones whole.
    fn write(&self, rules: &str) {
        let new = self.path().with_extension("new");
        std::fs::write(&new, rules).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}

fn app(rules: &str) -> (TestApp, File) {
    app_with(rules, &[])
}

fn app_with(rules: &str, env: &[(&str, &str)]) -> (TestApp, File) {
    let file = File::new(rules);
    let name = file.name();
    let own = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", name.as_str()),
    ];
    let app = TestApp::build(&[&own[..], env].concat(), |builder| builder);
    (app, file)
}

async fn bot(rules: &Path) -> TestBot {
    let env = [
        ("REPLYHOOK__HANDLER__KIND".to_owned(), "rules".to_owned()),
        (
            "REPLYHOOK__HANDLER__RULES".to_owned(),
            rules.display().to_string(),
        ),
    ];
    TestBot::start_with(Sources::default().with_env(env), App::builder).await
}

#[tokio::test]
async fn the_examples_bot_greets_answers_and_asks_also_across_a_restart() {
    let bot = bot(&root().join("examples/rules/shop.toml")).await;
    let ana = bot.whatsapp("+34600000001").named("Ana");
    ana.says("Hola").await.assert_reply(
        "Hello Ana, this is Ana's flowers. Write *order 42*, *book*, or send a picture.",
    );
    ana.says("order 7")
        .await
        .assert_replies(&["Order 7 is on its way.", "Your receipt"])
        .assert_media(1);
    ana.says("/remind water the <roses> & \"tulips\"")
        .await
        .assert_reply("I will remind you: water the <roses> & \"tulips\"");
    ana.shares(40.42, -3.7, "")
        .await
        .assert_reply("We deliver there today.");
    ana.shares(52.52, 13.405, "")
        .await
        .assert_reply("We are sorry, that is too far.");
    let png = include_bytes!("picture.png");
    ana.sends_file("image/png", png, "")
        .await
        .assert_reply("What a picture! We will look at it.");
    ana.says("a table, please")
        .await
        .assert_reply("What is your name?");
    bot.restart().await;
    ana.says("Ana").await.assert_reply("For how many, Ana?");
    ana.says("some").await.assert_reply("A number, please.");
    ana.says("Never mind")
        .await
        .assert_reply("Maybe another time, Ana.");
    ana.says("book").await.assert_reply("What is your name?");
    bot.advance(Duration::from_mins(31)).await;
    ana.says("Ana")
        .await
        .assert_reply("Write *order 42*, *book*, or send a picture.");
    ana.says("STOP").await.assert_reply(
        "You will hear no more from Ana's flowers. Write START if you change your mind.",
    );
}

#[test]
fn a_file_runs_its_own_examples() {
    let shop = root()
        .join("examples/rules/shop.toml")
        .display()
        .to_string();
    let (code, output, _) = replyhook(&["rules", "test", &shop], &[], "");
    assert_eq!(code, 0, "{output}");
    assert!(
        output.ends_with("7 of 7 examples went as the file says\n"),
        "{output}"
    );

    let wrong = File::new(
        "[otherwise]\nreply = \"Hi {{ profile_name }}\"\n\n[[example]]\nsays = \"x\"\ngets = \"Hi\"\n\n\
         [[example]]\nname = \"by hand\"\nsays = \"x\"\nforwards = true\n",
    );
    let (code, output, _) = replyhook(&["rules", "test", &wrong.name()], &[], "");
    assert_eq!(code, 1);
    let place = format!("{}:8: expected that the service is asked", wrong.name());
    assert!(output.contains(&place), "{output}");
    assert!(output.contains("found    \"Hi \""), "{output}");
    assert!(output.contains("0 of 2 examples"), "{output}");

    let (code, _, error) = replyhook(&["rules", "test", "no-such-file.toml"], &[], "");
    assert_eq!(code, 2);
    assert!(
        error.contains("no-such-file.toml cannot be read"),
        "{error}"
    );
}

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
fn all_problems_are_told_at_once_with_line_column_and_what_to_write() {
    let file = File::new(WRONG);
    let (code, _, error) = replyhook(&["check", "--rules", &file.name()], &[], "");
    assert_eq!(code, 2);
    for line in [
        r#"line 1, column 12: "Europe/Berln" is no time zone: write one as in "Europe/Berlin" or "UTC""#,
        "line 2, column 2: hour is not known here: did you mean hours?",
        "line 5, column 10: txt is not known here: did you mean text?",
        "line 6, column 1: repply is not known here: did you mean reply?",
        "line 8, column 14: regex is none: unclosed group",
        "line 9, column 19: profil_name is not defined here: did you mean profile_name?",
        "line 11, column 13: text is of type integer: write a text in quotes, or several in brackets",
        "line 12, column 13: no template: this if has no end: write {% endif %}",
        r#"line 14, column 14: media is "imagee": did you mean "image"?"#,
        r#"line 15, column 7: there is no form "bookng": did you mean "booking"?"#,
        "line 16, column 1: a rule does one thing: reply, ask, hand_over or forward",
        r#"line 17, column 14: "mon-sun 9-5" are no hours"#,
        "line 20, column 1: a form needs done: what is said when all has been answered",
        "line 23, column 9: field is a name of letters, digits and _",
        "line 24, column 19: nme is not defined here",
        r#"line 25, column 8: type is "interger": did you mean "integer"?"#,
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
    let no_toml = File::new("[[rule]]\nreply = \"Hi\n");
    let (code, _, error) = replyhook(&["check", "--rules", &no_toml.name()], &[], "");
    assert_eq!(code, 2);
    assert!(
        error.contains("line 2, column 12: this is no TOML"),
        "{error}"
    );
}

#[test]
fn a_pattern_that_cannot_stand_for_a_whole_answer_is_told() {
    let form = |pattern: &str| {
        format!(
            "[[form]]\nname = \"f\"\ndone = \"{{{{ code }}}}\"\n[[form.ask]]\nfield = \"code\"\nquestion = \"?\"\n\
             pattern = '{pattern}'\n[otherwise]\nask = \"f\"\n"
        )
    };
    assert!(RuleSet::parse(&form(r"\d{5}")).is_ok());
    // By itself it is a pattern; its comment would swallow what ends the whole.
    for pattern in [r"(?x)\d{5} # a code", "a)|(b"] {
        let error = RuleSet::parse(&form(pattern)).unwrap_err().to_string();
        assert!(
            error.contains("line 7, column 11: regex is none"),
            "{error}"
        );
    }
}

/// What is wrong with rules.
fn told(rules: &str) -> String {
    RuleSet::parse(rules).map_or_else(|error| error.to_string(), |_| String::new())
}

#[test]
fn what_would_match_every_message_or_none_is_told() {
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
        let said = told(&format!("[[rule]]\nwhen = {when}\nreply = \"x\"\n"));
        assert!(said.contains(problem), "{when}: {said}");
    }
    for when in [
        "{ text = \"👍\" }",
        "{ country = [\"de\", \"GB\"] }",
        "{ words = \"thank you!\" }",
    ] {
        let said = told(&format!("[[rule]]\nwhen = {when}\nreply = \"x\"\n"));
        assert_eq!(said, "", "{when}");
    }
}

#[test]
fn what_would_never_be_used_is_told() {
    let form = "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"x\"\n";
    let ask = "[[form.ask]]\nfield = \"a\"\nquestion = \"?\"\n";
    let files = (0..11).map(|at| format!("\"https://example.com/{at}.png\""));
    let files = files.collect::<Vec<_>>().join(", ");
    for (rules, problem) in [
        (
            format!("{form}cancelled = \"bye\"\n{ask}"),
            "cancelled is never said",
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
            "stop_reply is no template",
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
        let said = told(&rules);
        assert!(said.contains(problem), "{rules}\n{said}");
    }
    // One mistake is told once: not that a form with a problem is none, nor that there is no rule.
    let said = told(
        "[[rule]]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = 5\n[[form.ask]]\nfield = \"a\"\nquestion = \"?\"\n",
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = told("[[rule]]\nrepply = \"f\"\n");
    assert!(!said.contains("there is no rule"), "{said}");
}

#[test]
fn a_mistake_is_told_once_and_with_what_to_write() {
    let form = "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"{{ a }}\"\n[[form.ask]]\nfield = \"a\"\nquestion = \"?\"\n";
    let example = "[otherwise]\nreply = \"x\"\n[[example]]\n";
    for (rules, problem) in [
        (
            "[[rule]]\nwhen.regex = '(?<id>\\d+'\nreply = \"{{ id }}\"\n".to_owned(),
            "regex is none",
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
            "forward is of type string",
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
            "write [] to say nothing",
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
        let said = told(&rules);
        let shown = &rules[..rules.len().min(300)];
        assert!(said.contains(problem), "{shown}\n{said}");
        assert_eq!(said.lines().count(), 1, "{shown}\n{said}");
    }
    let several = told("[otherwise]\nreply = \"{{ a | uper }} {{ [1] }} {{ media.url }}\"\n");
    assert_eq!(several.lines().count(), 3, "{several}");
}

#[test]
fn patterns_of_all_languages_letters_fit_and_very_many_do_not() {
    for pattern in [
        r"^\w{2,20}$",
        r"(?i)^name: \w{1,20}, mail: \S{1,90}$",
        r"\w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+",
    ] {
        let said = told(&format!(
            "[[rule]]\nwhen.regex = '{pattern}'\nreply = \"x\"\n"
        ));
        assert_eq!(said, "", "{pattern}");
    }
    let many = "[[rule]]\nwhen.regex = '^\\w{2,20}$'\nreply = \"x\"\n".repeat(50);
    let said = told(&many);
    assert!(
        said.contains("all patterns together are too large"),
        "{said}"
    );
}

#[test]
fn a_form_has_a_hundred_questions_at_most() {
    let form = |number: usize| {
        let asks =
            (0..number).map(|at| format!("[[form.ask]]\nfield = \"f{at}\"\nquestion = \"?\"\n"));
        let head = "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"x\"\n".to_owned();
        told(&(head + &asks.collect::<String>()))
    };
    assert_eq!(form(100), "");
    assert!(form(5000).contains("over 100 questions"));
}

#[test]
fn an_example_may_opt_out_and_in() {
    let rules = |text: &str| {
        File::new(&format!(
            "[[rule]]\nwhen.text = \"stop\"\nreply = \"never\"\n[otherwise]\nreply = \"hello\"\n\
             {text}[[example]]\nturns = [\n\
             {{ says = \"start\", gets = \"hello\" }},\n\
             {{ says = \"stop\", gets = \"Bye.\" }},\n\
             {{ says = \"hi\", gets = [] }},\n\
             {{ says = \"Start.\", gets = \"Welcome back.\" }},\n\
             {{ says = \"hi\", gets = \"hello\" }},\n]\n"
        ))
    };
    let told = rules("[opt_out]\nstop_reply = \"Bye.\"\nstart_reply = \"Welcome back.\"\n");
    let (code, output, _) = replyhook(&["rules", "test", &told.name()], &[], "");
    assert_eq!(code, 0, "{output}");
    let (code, output, _) = replyhook(&["rules", "test", &rules("").name()], &[], "");
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("write opt_out.stop_reply to say it here"),
        "{output}"
    );
}

#[test]
fn a_problem_in_a_text_with_escapes_has_its_own_column() {
    for (text, column) in [
        (r#""\t\"{{ nme }}""#, 17),
        (r#""\u00e9{{ nme }}""#, 19),
        (r#""é{{ nme }}""#, 14),
        ("'{{ nme }}'", 13),
    ] {
        let said = told(&format!("[otherwise]\nreply = {text}\n"));
        assert!(
            said.starts_with(&format!("line 2, column {column}: nme")),
            "{text}: {said}"
        );
    }
    let said = told("[otherwise]\nreply = \"\"\"\none \\\n   two\nthree {{ nme }}\"\"\"\n");
    assert!(said.starts_with("line 5, column 10: nme"), "{said}");
}

#[test]
fn of_very_many_problems_the_first_are_told() {
    let said = told(&"[[rule]]\nrepply = \"x\"\n".repeat(5000));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 100);
    assert!(
        lines[99].ends_with("there are more problems: mend these first"),
        "{}",
        lines[99]
    );
    let long = told(&format!(
        "[otherwise]\nreply = \"x\"\n{} = 1\n",
        "k".repeat(500_000)
    ));
    assert!(long.len() < 1000, "{}", long.len());
    let wide = File::new(&format!(
        "[otherwise]\nreply = \"ok\"\n[[rule]]\nwhen.text = \"{}\"\nreply = \"x\"\n",
        "w".repeat(70_000)
    ));
    let (code, output, error) = replyhook(&["check", "--rules", &wide.name()], &[], "");
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(output.contains("www…"), "{output}");
}

#[test]
fn examples_look_at_files_and_times_and_several_files_are_run() {
    let rules = "[hours]\nopen = \"mon-fri 09:00-17:00\"\n\
                 [[rule]]\nwhen.hours = \"open\"\nreply = [{ text = \"Menu\", media = \"https://example.com/menu.png\" }]\n\
                 [otherwise]\nreply = \"Closed.\"\n\
                 [[example]]\nturns = [\n\
                 { says = \"a\", gets = { text = \"Menu\", media = \"https://example.com/menu.png\" } },\n\
                 { says = \"b\", at = \"2026-01-05T22:00:00Z\", gets = \"Closed.\" },\n]\n";
    let right = File::new(rules);
    let wrong = File::new(&rules.replacen(
        "media = \"https://example.com/menu.png\" } }",
        "media = [] } }",
        1,
    ));
    let (code, output, _) = replyhook(&["rules", "test", &right.name(), &wrong.name()], &[], "");
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("1 of 1 example went as the file says"),
        "{output}"
    );
    assert!(
        output.contains("found    \"Menu\" with https://example.com/menu.png"),
        "{output}"
    );
}

#[test]
fn check_shows_the_table_of_routes() {
    let shop = root()
        .join("examples/rules/shop.toml")
        .display()
        .to_string();
    let (code, output, error) = replyhook(&["check", "--rules", &shop], &[], "");
    assert_eq!(code, 0, "{error}");
    assert!(
        output.contains("\n4  words \"book\", \"table\""),
        "{output}"
    );
    assert!(output.contains("asks booking"), "{output}");
}

#[test]
fn settings_that_name_no_usable_rules_are_problems_with_their_key() {
    let problems = |env: &[(&str, &str)]| {
        let own = [("REPLYHOOK__HANDLER__KIND", "rules")];
        Settings::load(&sources(&[&own[..], env].concat()))
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
    let file = File::new("[[rule]]\nfoo = 1\nreply = \"x\"\n");
    let name = file.name();
    let wrong = problems(&[("REPLYHOOK__HANDLER__RULES", &name)]);
    assert!(
        wrong.contains("line 2, column 1: foo is not known here"),
        "{wrong}"
    );
    let file = File::new("[otherwise]\nforward = true\n");
    let name = file.name();
    let alone = problems(&[("REPLYHOOK__HANDLER__RULES", &name)]);
    assert!(
        alone.contains("handler.forward_url") && alone.contains("the rule at line 1"),
        "{alone}"
    );
}

#[tokio::test]
async fn matchers_are_combined_and_captures_are_variables() {
    let (app, _file) = app(r#"
[vars]
price = 3.5
[[rule]]
when.all = [{ words = "order" }, { any = [{ channel = "sms" }, { not = { country = "DE" } }] }]
when.regex = '(?<number>\d+)( (?<what>\w+))?'
reply = "{{ number | int * price }} for {{ number }} {{ what or 'pieces' }}, {{ channel }}, {{ user }}"
[[rule]]
when = { button = ["yes:1", "yes:2"] }
reply = { text = "{{ button.payload }}" }
[[rule]]
when.text = "nothing"
reply = []
[otherwise]
reply = "{{ body | upper }}: {{ date }} {{ time }} {{ weekday }}"
"#);
    assert_eq!(
        app.says(1, "order 2 cakes").await,
        says("7.0 for 2 cakes, whatsapp, +15550001111")
    );
    assert_eq!(
        app.says(2, "Order 4").await,
        says("14.0 for 4 pieces, whatsapp, +15550001111")
    );
    let german = Webhook::message(3, "order 4").with("From", "whatsapp:+4915112345678");
    assert!(app.send(german).await.twiml().contains("ORDER 4: "));
    let pressed = Webhook::message(4, "Yes").with("ButtonPayload", "yes:2");
    assert_eq!(app.send(pressed).await.twiml(), says("yes:2"));
    assert_eq!(app.says(5, "Nothing").await, crate::support::EMPTY);
}

#[tokio::test]
async fn filters_format_prices_links_and_what_others_wrote() {
    let (app, _file) = app(
        "[vars]\nprice = 3\n[otherwise]\nreply = \"\"\"{{ '%.2f' | format(price) }} https://example.com/?q={{ text | urlencode }} {{ text | escape_markup }}\"\"\"\n",
    );
    assert_eq!(
        app.says(1, "a *b* é").await,
        says(
            "3.00 https://example.com/?q=a%20%2Ab%2A%20%C3%A9 a \u{2060}*\u{2060}b\u{2060}*\u{2060} é"
        )
    );
}

#[tokio::test]
async fn what_rules_hand_over_is_asked_of_the_service() {
    let service = Scripted::start().await;
    service.answers("/message", 200, "text/plain", "from the service");
    let url = format!("{}/message", service.url());
    let env = [
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        (
            "REPLYHOOK__HANDLER__FORWARD_SECRET",
            "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        ),
    ];
    let rules =
        "[[rule]]\nwhen.text = \"hi\"\nreply = \"from the rules\"\n[otherwise]\nforward = true\n";
    let (app, _file) = app_with(rules, &env);
    assert_eq!(app.says(1, "hi").await, says("from the rules"));
    assert!(service.asked().is_empty());
    assert_eq!(app.says(2, "ho").await, says("from the service"));
    assert_eq!(service.asked().len(), 1);
}

#[tokio::test]
async fn what_a_message_does_not_have_fails_its_rule_and_nothing_else() {
    let (app, _file) = app(
        "[[rule]]\nwhen.text = \"where\"\nreply = \"{{ location.latitude }}\"\n\
         [[rule]]\nwhen.text = \"picture\"\nreply = { media = \"{{ profile_name }}\" }\n\
         [otherwise]\nreply = \"ok\"\n",
    );
    for (number, text) in [(1, "where"), (2, "picture")] {
        let answer = app.send(Webhook::message(number, text)).await;
        assert_eq!(answer.refused(500), "handler failed\n");
    }
    assert_eq!(app.says(3, "hi").await, says("ok"));
}

#[tokio::test]
async fn threat_29_bombs_in_templates_and_patterns_end_in_a_rule_error() {
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
        let answer = app.send(message.with("NumMedia", "10")).await;
        assert_eq!(answer.refused(500), "handler failed\n", "{bomb}");
        assert_eq!(app.says(2, "hi").await, says("ok"), "{bomb}");
    }
    // What would have to be kept, put together or called is not in the language.
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
        let error = RuleSet::parse(&rules).unwrap_err().to_string();
        assert!(error.starts_with("line 2, column "), "{bomb}: {error}");
        assert!(error.contains("no template: "), "{bomb}: {error}");
    }
    for pattern in [
        "((a{100}){100}){100}",
        "(\\\\w{500}){500}",
        "[[:^ascii:]]{50000}",
    ] {
        let rules = format!("[[rule]]\nwhen.regex = \"{pattern}\"\nreply = \"x\"\n");
        let error = RuleSet::parse(&rules).unwrap_err().to_string();
        assert!(error.contains("regex is too large"), "{pattern}: {error}");
    }
    // One that drives other engines into exponential time.
    let (app, _file) =
        app("[[rule]]\nwhen.regex = '^(a+)+$'\nreply = \"a\"\n[otherwise]\nreply = \"ok\"\n");
    assert_eq!(
        app.says(1, &format!("{}b", "a".repeat(1500))).await,
        says("ok")
    );
}

/// The longest of each kind, read and rendered where there is half the stack that a worker has.
#[test]
fn threat_29_what_nests_in_a_template_does_not_end_the_stack() {
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
    // minijinja has a limit of its own, which some do not get past.
    assert!(
        rendered * 2 > all,
        "{rendered} of {all} are within the language"
    );
}

#[tokio::test]
async fn the_first_contact_is_known_by_the_journal_and_in_examples() {
    let rules = "[[rule]]\nwhen.first_contact = true\nreply = \"Welcome!\"\n[otherwise]\nreply = \"Again.\"\n\
         [[example]]\nturns = [{ says = \"a\", gets = \"Welcome!\" }, { says = \"b\", gets = \"Again.\" }]\n";
    let (app, file) = app(rules);
    assert_eq!(app.says(1, "hi").await, says("Welcome!"));
    assert_eq!(app.says(2, "hi").await, says("Again."));
    let other = Webhook::message(3, "hi").with("From", "whatsapp:+15550009999");
    assert_eq!(app.send(other).await.twiml(), says("Welcome!"));
    let (code, output, _) = replyhook(&["rules", "test", &file.name()], &[], "");
    assert_eq!(code, 0, "{output}");
}

#[tokio::test]
async fn threat_75_what_users_write_is_never_read_as_a_template() {
    let (app, _file) = app(
        "[[rule]]\nwhen.regex = 'say (?<what>.*)'\nreply = \"{{ what }}|{{ profile_name }}\"\n\
         [[rule]]\nwhen.text = \"form\"\nask = \"form\"\n\
         [otherwise]\nreply = \"{{ body }}\"\n\
         [[form]]\nname = \"form\"\ndone = \"{{ answer }}\"\n[[form.ask]]\nfield = \"answer\"\nquestion = \"?\"\n",
    );
    let poison = "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}{# gone #}";
    assert_eq!(app.says(1, poison).await, says(poison));
    let named = Webhook::message(2, &format!("say {poison}")).with("ProfileName", poison);
    assert_eq!(
        app.send(named).await.twiml(),
        says(&format!("{poison}|{poison}"))
    );
    assert_eq!(app.says(3, "form").await, says("?"));
    assert_eq!(app.says(4, poison).await, says(poison));
}

#[tokio::test]
async fn a_changed_file_is_obeyed_and_a_wrong_one_leaves_the_old_rules() {
    let file = File::new("[otherwise]\nreply = \"one\"\n");
    let name = file.name();
    let server = Server::start(&[
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", &name),
    ]);
    let mut number = 0;
    let mut said = || {
        number += 1;
        let text = format!("message {number}");
        server
            .send(&Webhook::message(number, &text))
            .twiml()
            .to_owned()
    };
    assert_eq!(said(), says("one"));
    file.write("[otherwise]\nreply = \"two\"\n[opt_out]\nstop_reply = \"Gone.\"\n");
    server.wait_for("the rules have changed and are obeyed");
    assert_eq!(said(), says("two"));
    file.write("[otherwise]\nreply = \"three {{ nme }}\"\n");
    let line = server.wait_for("the rules have changed and are wrong: the old ones stay");
    assert!(
        line.contains("line 2, column 19: nme is not defined here: did you mean"),
        "{line}"
    );
    assert_eq!(said(), says("two"));
    let stop = Webhook::message(900, "STOP").with("From", "whatsapp:+15550007777");
    assert_eq!(server.send(&stop).twiml(), says("Gone."));
}

#[tokio::test]
async fn a_rule_hands_over_and_later_messages_are_redirected() {
    let flow = "https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1";
    let rules = format!(
        "[[rule]]\nwhen.text = \"human\"\nhand_over = \"{flow}\"\n[otherwise]\nreply = \"mine\"\n"
    );
    let table = RuleSet::parse(&rules).unwrap().table();
    assert!(table.contains(&format!("hands over to {flow}")), "{table}");
    let (app, _file) = app(&rules);
    assert_eq!(app.says(1, "hi").await, says("mine"));
    let redirect = format!("<Response><Redirect method=\"POST\">{flow}</Redirect></Response>");
    assert!(app.says(2, "human").await.ends_with(&redirect));
    assert!(app.says(3, "hi").await.ends_with(&redirect));
    let example = "[[example]]\nturns = [{ says = \"human\", hands_over = true }, { says = \"hi\", hands_over = true }]\n";
    let results = RuleSet::parse(&(rules.clone() + example))
        .unwrap()
        .run_examples();
    assert_eq!(results[0].failure, None);
    let gets = example.replacen("hands_over = true", "gets = []", 1);
    let results = RuleSet::parse(&(rules.clone() + &gets))
        .unwrap()
        .run_examples();
    let failure = results[0].failure.as_ref().unwrap();
    assert_eq!(
        (failure.expected.as_str(), failure.found.as_str()),
        ("nothing", "that somebody else answers")
    );
    let wrong = rules.replace("https:", "");
    let error = RuleSet::parse(&wrong).unwrap_err().to_string();
    assert!(
        error.contains("line 3, column 13: hand_over is no http or https URL"),
        "{error}"
    );
}

#[test]
fn dev_obeys_changed_rules_and_tells_the_page_of_wrong_ones() {
    let file = File::new("[otherwise]\nreply = \"one\"\n");
    let name = file.name();
    let dev = Dev::start_with(
        &["--port", "0"],
        &[
            ("REPLYHOOK__HANDLER__KIND", "rules"),
            ("REPLYHOOK__HANDLER__RULES", &name),
        ],
    );
    let said = |text: &str| {
        let exchange = dev.says(&json!({"from": ANA, "to": crate::support::SANDBOX, "body": text}));
        exchange["messages"][0]["body"].clone()
    };
    let logs = |part: &str| {
        dev.program
            .wait_for(part, |line| line.contains(part).then_some(()));
    };
    assert_eq!(said("a"), "one");
    file.write("[otherwise]\nreply = \"two\"\n");
    logs("the rules have changed and are obeyed");
    assert_eq!(said("b"), "two");
    file.write("[otherwise]\nrepply = \"three\"\n");
    logs("did you mean reply?");
    assert_eq!(said("c"), "two");
}

/// What templates are made of, and some of what they are not.
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
    /// Whatever is done to a file, it is either obeyed or its faults have a place in it.
    #[test]
    fn any_file_loads_or_points_at_its_faults(
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

    /// Whatever is put together out of the language, it comes to an end: a text, a rule error, or a problem of the file.
    #[test]
    fn templates_of_any_words_end(
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

    /// Whatever users write, what a template makes of it is valid TwiML that says just that.
    #[test]
    fn what_templates_say_is_valid_twiml(body in "\\PC{0,40}|[<>&\"'\\]\n\r{}%#]{0,20}") {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (app, _file) = app("[otherwise]\nreply = \"You said: {{ body }}.\"\n");
            let expected = Reply::text(format!("You said: {body}."));
            let expected = Document::render(&expected, &Channel::WhatsApp, None).unwrap();
            if !["stop", "start"].contains(&body.trim().to_lowercase().as_str()) {
                assert_eq!(app.says(1, &body).await, expected.as_str());
            }
        });
    }
}

#[test]
fn what_never_ends_is_no_file_of_rules() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [Path::new("/dev/zero"), &pipe, folder.path()] {
        let error = RulesFile::read(path).unwrap_err().to_string();
        assert!(error.ends_with("is no file"), "{error}");
    }
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    let error = RulesFile::read(&large).unwrap_err().to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
    std::fs::write(&large, b"[otherwise]\nreply = \"caf\xe9\"\n").unwrap();
    let error = RulesFile::read(&large).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 2, column 13: this is no UTF-8: save the file as UTF-8"
    );
    // As Windows' editor writes it.
    std::fs::write(&large, "\u{feff}[otherwise]\r\nreply = \"café\"\r\n").unwrap();
    RulesFile::read(&large).unwrap();
}
