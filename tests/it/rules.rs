//! Bots in rules files: replies, reported problems, and hot reload.

use std::path::{Path, PathBuf};
use std::time::Duration;

use replyhook::App;
use replyhook::config::Sources;
use replyhook::emulator::EmulatorClient;
use replyhook::rules::RuleSet;
use replyhook::testing::TestBot;
use serde_json::json;

use crate::support::{
    ANA, Dev, ScriptedServer, Server, TestApp, Wait, Webhook, replyhook, root, twiml_message,
};

mod bombs;
mod examples;
mod problems;

const SHOP: &str = include_str!("../../examples/rules/shop.toml");

/// Rules file that a test can change.
struct TempRules(tempfile::TempDir);

impl TempRules {
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

    /// Replaces the file atomically, so that a reader sees either the old or the new rules.
    fn write(&self, rules: &str) {
        let new = self.path().with_extension("new");
        std::fs::write(&new, rules).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}

fn app(rules: &str) -> (TestApp, TempRules) {
    app_with(rules, &[])
}

fn app_with(rules: &str, env: &[(&str, &str)]) -> (TestApp, TempRules) {
    let file = TempRules::new(rules);
    let name = file.name();
    let base_env = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", name.as_str()),
    ];
    let app = TestApp::build(&[&base_env[..], env].concat(), |builder| builder);
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

// Goes through the replies of examples/rules/shop.toml.
#[tokio::test]
async fn shop_example_bot_keeps_form_across_restart() {
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
fn check_prints_rule_table() {
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
        twiml_message("7.0 for 2 cakes, whatsapp, +15550001111")
    );
    assert_eq!(
        app.says(2, "Order 4").await,
        twiml_message("14.0 for 4 pieces, whatsapp, +15550001111")
    );
    let german = Webhook::message(3, "order 4").with("From", "whatsapp:+4915112345678");
    assert!(app.send(german).await.twiml().contains("ORDER 4: "));
    let pressed = Webhook::message(4, "Yes").with("ButtonPayload", "yes:2");
    assert_eq!(app.send(pressed).await.twiml(), twiml_message("yes:2"));
    assert_eq!(app.says(5, "Nothing").await, crate::support::EMPTY);
}

#[tokio::test]
async fn template_filters_format_prices_links_and_markup() {
    let (app, _file) = app(
        "[vars]\nprice = 3\n[otherwise]\nreply = \"\"\"{{ '%.2f' | format(price) }} https://example.com/?q={{ text | urlencode }} {{ text | escape_markup }}\"\"\"\n",
    );
    assert_eq!(
        app.says(1, "a *b* é").await,
        twiml_message(
            "3.00 https://example.com/?q=a%20%2Ab%2A%20%C3%A9 a \u{2060}*\u{2060}b\u{2060}*\u{2060} é"
        )
    );
}

#[tokio::test]
async fn forward_rule_sends_only_its_messages_to_service() {
    let service = ScriptedServer::start().await;
    service.queue_response("/message", 200, "text/plain", "from the service");
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
    assert_eq!(app.says(1, "hi").await, twiml_message("from the rules"));
    assert!(service.requests().is_empty());
    assert_eq!(app.says(2, "ho").await, twiml_message("from the service"));
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn missing_value_fails_only_its_rule() {
    let (app, _file) = app(
        "[[rule]]\nwhen.text = \"where\"\nreply = \"{{ location.latitude }}\"\n\
         [[rule]]\nwhen.text = \"picture\"\nreply = { media = \"{{ profile_name }}\" }\n\
         [otherwise]\nreply = \"ok\"\n",
    );
    for (number, text) in [(1, "where"), (2, "picture")] {
        let answer = app.send(Webhook::message(number, text)).await;
        assert_eq!(answer.assert_rejected(500), "handler failed\n");
    }
    assert_eq!(app.says(3, "hi").await, twiml_message("ok"));
}

#[tokio::test]
async fn first_contact_matcher_works_in_server_and_examples() {
    let rules = "[[rule]]\nwhen.first_contact = true\nreply = \"Welcome!\"\n[otherwise]\nreply = \"Again.\"\n\
         [[example]]\nturns = [{ says = \"a\", gets = \"Welcome!\" }, { says = \"b\", gets = \"Again.\" }]\n";
    let (app, file) = app(rules);
    assert_eq!(app.says(1, "hi").await, twiml_message("Welcome!"));
    assert_eq!(app.says(2, "hi").await, twiml_message("Again."));
    let other = Webhook::message(3, "hi").with("From", "whatsapp:+15550009999");
    assert_eq!(app.send(other).await.twiml(), twiml_message("Welcome!"));
    let (code, output, _) = replyhook(&["rules", "test", &file.name()], &[], "");
    assert_eq!(code, 0, "{output}");
}

// The examples pass, but a user of SMS who writes the word unsubscribes.
#[test]
fn rules_test_with_keyword_as_choice_exits_with_1() {
    let rules = |word: &str| {
        format!(
            "[[rule]]\nwhen.text = \"hi\"\nreply.text = \"Go on?\"\nreply.choices = [\"Yes please\", \"{word}\"]\n\
             [[example]]\nsays = \"bye\"\ngets = []\n"
        )
    };
    for (word, expected) in [("No thanks", 0), ("Stop", 1)] {
        let file = TempRules::new(&rules(word));
        let (code, output, err) = replyhook(&["rules", "test", &file.name()], &[], "");
        assert_eq!(code, expected, "{output}{err}");
        assert!(output.contains("1 of 1 example passed"), "{output}");
        assert_eq!(output.contains("warning: "), expected == 1, "{output}");
        let is_explained = output.ends_with("1 warning, so the exit code is 1\n");
        assert_eq!(is_explained, expected == 1, "{output}");
    }
}

#[tokio::test]
async fn rules_hot_reload_keeps_old_rules_on_error() {
    let file = TempRules::new("[otherwise]\nreply = \"one\"\n");
    let name = file.name();
    let server = Server::start(&[
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", &name),
    ]);
    let mut number = 0;
    let mut send_next = || {
        number += 1;
        let text = format!("message {number}");
        server
            .send(&Webhook::message(number, &text))
            .twiml()
            .to_owned()
    };
    assert_eq!(send_next(), twiml_message("one"));
    file.write("[otherwise]\nreply = \"two\"\n[opt_out]\nstop_reply = \"Gone.\"\n");
    server.wait_for("reloaded rules");
    assert_eq!(send_next(), twiml_message("two"));
    file.write("[otherwise]\nreply = \"three {{ nme }}\"\n");
    let line = server.wait_for("could not reload rules; the previous rules stay in use");
    assert!(
        line.contains("line 2, column 19: nme is not defined here: did you mean"),
        "{line}"
    );
    assert_eq!(send_next(), twiml_message("two"));
    let stop = Webhook::message(900, "STOP").with("From", "whatsapp:+15550007777");
    assert_eq!(server.send(&stop).twiml(), twiml_message("Gone."));
}

#[tokio::test]
async fn handoff_rule_redirects_message_and_later_messages() {
    let flow = "https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1";
    let rules = format!(
        "[[rule]]\nwhen.text = \"human\"\nhandoff = \"{flow}\"\n[otherwise]\nreply = \"mine\"\n"
    );
    let table = RuleSet::parse(&rules).unwrap().table();
    assert!(table.contains(&format!("hands off to {flow}")), "{table}");
    let (app, _file) = app(&rules);
    assert_eq!(app.says(1, "hi").await, twiml_message("mine"));
    let redirect = format!("<Response><Redirect method=\"POST\">{flow}</Redirect></Response>");
    assert!(app.says(2, "human").await.ends_with(&redirect));
    assert!(app.says(3, "hi").await.ends_with(&redirect));
    let example = "[[example]]\nturns = [{ says = \"human\", handoff = true }, { says = \"hi\", handoff = true }]\n";
    let results = RuleSet::parse(&(rules.clone() + example))
        .unwrap()
        .run_examples();
    assert_eq!(results[0].failure, None);
    let gets = example.replacen("handoff = true", "gets = []", 1);
    let results = RuleSet::parse(&(rules.clone() + &gets))
        .unwrap()
        .run_examples();
    let failure = results[0].failure.as_ref().unwrap();
    assert_eq!(
        (failure.expected.as_str(), failure.found.as_str()),
        ("no reply", "a handoff")
    );
    let wrong = rules.replace("https:", "");
    let error = RuleSet::parse(&wrong).unwrap_err().to_string();
    assert!(
        error.contains("line 3, column 11: handoff is not an http or https URL"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_hot_reload_reports_invalid_rules_to_page() {
    let file = TempRules::new("[otherwise]\nreply = \"one\"\n");
    let name = file.name();
    let dev = Dev::start_with(
        &["--port", "0"],
        &[
            ("REPLYHOOK__HANDLER__KIND", "rules"),
            ("REPLYHOOK__HANDLER__RULES", &name),
        ],
    );
    let reply_to = |text: &str| {
        let exchange = dev.says(&json!({"from": ANA, "to": crate::support::SANDBOX, "body": text}));
        exchange["messages"][0]["body"].clone()
    };
    let mut events = EmulatorClient::new(&dev.url)
        .unwrap()
        .events()
        .await
        .unwrap();
    let mut page_gets = async || {
        let wait = Wait::until("the page gets the result of the reload");
        loop {
            // Checked after each event, and limited, because there may be no further event.
            let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
            let event = event.expect("no event").unwrap();
            wait.check();
            if event.name == "reload" {
                break event.data;
            }
        }
    };
    assert_eq!(reply_to("a"), "one");
    file.write("[otherwise]\nreply = \"two\"\n");
    assert_eq!(page_gets().await, json!({"ok": true, "message": null}));
    assert_eq!(reply_to("b"), "two");
    file.write("[otherwise]\nrepply = \"three\"\n");
    let wrong = "line 2, column 1: repply is not known here: did you mean reply?";
    assert_eq!(page_gets().await, json!({"ok": false, "message": wrong}));
    assert_eq!(reply_to("c"), "two");
}

/// Runs the rules' examples, and returns the unexpected results.
fn failed_examples(rules: &str) -> Vec<String> {
    let results = RuleSet::parse(rules).unwrap().run_examples();
    let failures = results.into_iter().filter_map(|result| result.failure);
    let found = failures.map(|failure| format!("line {}: {}", failure.line, failure.found));
    found.collect()
}

/// Rules whose only form asks for one value, with an example for each answer and the bot's reply to it.
fn form_rules(kind: &str, answers: &[(&str, &str)]) -> String {
    let form = format!(
        "[otherwise]\nask = \"f\"\n[[form]]\nname = \"f\"\ndone = \"got {{{{ a }}}}\"\n\
         [[form.ask]]\nfield = \"a\"\nquestion = \"?\"\nhint = \"again\"\n{kind}\n"
    );
    let examples = answers.iter().map(|(says, gets)| {
        format!(
            "[[example]]\nturns = [{{ says = \"x\", gets = \"?\" }}, {{ says = \"{says}\", gets = \"{gets}\" }}]\n"
        )
    });
    form + &examples.collect::<String>()
}

#[test]
fn form_answers_are_parsed_in_common_spellings() {
    let nothing: [String; 0] = [];
    let numbers = form_rules(
        "type = \"number\"",
        &[
            ("3", "got 3"),
            ("3,5", "got 3.5"),
            ("２．５", "got 2.5"),
            ("3.0", "got 3"),
            ("1000", "got 1000"),
            ("0.125", "got 0.125"),
            ("-0,125", "got -0.125"),
            ("1.2345", "got 1.2345"),
            // Ambiguous: the separator may be for thousands or decimals.
            ("1,000", "again"),
            ("12.500", "again"),
            ("1,000.50", "again"),
            ("1.000.000", "again"),
            ("inf", "again"),
        ],
    );
    assert_eq!(failed_examples(&numbers), nothing);
    let integers = form_rules(
        "type = \"integer\"",
        &[
            ("４２", "got 42"),
            ("\u{200e}42 ", "got 42"),
            ("4.2", "again"),
        ],
    );
    assert_eq!(failed_examples(&integers), nothing);
    let choices = form_rules(
        "choice = [\"Window\", \"Bar\"]",
        &[
            ("2.", "got Bar"),
            ("(1)", "got Window"),
            ("bar!", "got Bar"),
            ("_Bar_", "got Bar"),
            ("“window”", "got Window"),
            ("３", "again"),
            ("the bar", "again"),
        ],
    );
    assert_eq!(failed_examples(&choices), nothing);
}

// Phones write curly quotes, markup and invisible characters.
#[test]
fn text_matchers_ignore_phone_typography() {
    let nothing: [String; 0] = [];
    let compared = [
        ("text = \"don't\"", "Don’t"),
        ("text = \"what's up?\"", "What’s up?"),
        ("words = \"don't\"", "I don’t know"),
        ("text = 'say \"hi\"'", "say “hi”"),
        ("words = \"refund\"", "a _refund_ please"),
        ("words = \"refund\"", "*refund* ~now~"),
        ("text = \"❤\"", "❤\u{fe0f}"),
        ("text = \"❤\u{fe0f}\"", "❤"),
        ("text = \"hi\"", "\u{200e}hi"),
        ("command = \"order\"", "\u{200e}/order 7"),
        ("regex = '^order'", "\u{200e}order 7"),
    ];
    for (when, says) in compared {
        let rules = format!(
            "[[rule]]\nwhen.{when}\nreply = \"yes\"\n[otherwise]\nreply = \"no\"\n[[example]]\nsays = \"{says}\"\ngets = \"yes\"\n"
        );
        assert_eq!(failed_examples(&rules), nothing, "{when} {says}");
    }
}

// Every part that matches sets its variables, and the variables of other parts are empty.
#[test]
fn captures_of_any_and_all_are_merged() {
    let nothing: [String; 0] = [];
    let rules = r#"
[[rule]]
when.any = [{ regex = '^order (?<id>\d+)$' }, { command = "order" }]
reply = "Order {{ id or args }} is on its way."
[[rule]]
when = { regex = '^from (?<where>\w+)', all = [{ regex = 'to (?<there>\w+)$' }] }
reply = "{{ where }}-{{ there | upper }}"
[[rule]]
when = { command = "book", regex = '(?<number>\d+)?$' }
reply = "{{ args }}|{{ number | default('?') }}"
[[rule]]
when.any = [{ words = "size" }, { regex = '(?<size>small|large)' }]
reply = "size {{ size | default('any') }}"
[[example]]
turns = [
  { says = "order 7", gets = "Order 7 is on its way." },
  { says = "/order 8", gets = "Order 8 is on its way." },
  { says = "from Ulm to Bonn", gets = "Ulm-BONN" },
  { says = "/book for 4", gets = "for 4|4" },
  { says = "/book", gets = "|?" },
  { says = "size large", gets = "size large" },
  { says = "which size?", gets = "size any" },
]
"#;
    assert_eq!(failed_examples(rules), nothing);
}

#[test]
fn flow_response_fields_are_available_by_name() {
    let nothing: [String; 0] = [];
    let rules = r#"
[[rule]]
when.flow = true
reply = "{{ flow.name }}, {{ flow.guests * 2 }}, {{ flow['Your wishes'] }}, {{ flow.vip }}, [{{ flow.deep }}{{ flow.none }}{{ flow.nothing }}]"
[otherwise]
reply = "{% if flow %}yes{% else %}no {{ flow.name | default('name') }}{% endif %}"
[[example]]
params = { FlowData = '{"name": "Ana", "guests": 2, "Your wishes": ["a table", "bread"], "vip": true, "deep": {"a": 1}, "none": null}' }
gets = "Ana, 4, a table, bread, True, []"
[[example]]
says = "hi"
gets = "no name"
"#;
    assert_eq!(failed_examples(rules), nothing);
}

// The values 0 and false are not missing.
#[test]
fn default_filter_applies_only_to_missing_values() {
    let nothing: [String; 0] = [];
    let rules = r#"
[vars]
zero = 0
no = false
[otherwise]
reply = "{{ profile_name | default('friend') }} {{ zero | default(5) }} {{ no | default('x') }} {{ zero | default(5, true) }} {{ args | default }}{{ location | default('nowhere') }}"
[[example]]
says = "hi"
gets = "friend 0 False 5 nowhere"
"#;
    assert_eq!(failed_examples(rules), nothing);
}

#[tokio::test]
async fn from_and_to_match_users_and_senders() {
    const WHATSAPP: &str = "whatsapp:+15550002222";
    let (app, _file) = app(
        "[[rule]]\nwhen = { from = [\"+1555000\", \"whatsapp:US.1349\", \"DE\"], to = \"whatsapp:\" }\nreply = \"staff\"\n\
         [[rule]]\nwhen.to = [\"sms:+15550003333\", \"rcs:shop\"]\nreply = \"shop\"\n\
         [[rule]]\nwhen.not.from = \"+1555\"\nreply = \"stranger\"\n\
         [otherwise]\nreply = \"other\"",
    );
    for (number, (from, to, reply)) in (1..).zip([
        ("whatsapp:+15550001111", WHATSAPP, "staff"),
        ("whatsapp:US.13491208655302741918", WHATSAPP, "staff"),
        ("whatsapp:+4915112345678", WHATSAPP, "staff"),
        ("+15550001111", "+15550003333", "shop"),
        ("rcs:+15550001111", "rcs:shop_agent", "shop"),
        ("rcs:+15550001111", "rcs:+15550003333", "other"),
        ("+15550001111", "+15550009999", "other"),
        ("+34600000001", "+15550009999", "stranger"),
    ]) {
        let webhook = Webhook::message(number, "hi").with("From", from);
        let answer = app.send(webhook.with("To", to)).await;
        assert_eq!(answer.twiml(), twiml_message(reply), "{from} {to}");
    }
}

#[test]
fn malformed_addresses_of_rules_are_reported() {
    for (when, expected) in [
        (
            "from = [\"+1555\", \"15550001111\"]",
            "from, entry 2: a phone number begins with +",
        ),
        (
            "to = \"whatsapp:*\"",
            "to, entry 1: an entry has no wildcards",
        ),
        ("from = \"\"", "from, entry 1: it is empty"),
        ("to = []", "to is empty: write at least one text"),
        ("from = 5", "from is of type integer"),
        ("form = \"+1555\"", "did you mean from?"),
    ] {
        let rules = format!("[[rule]]\nwhen = {{ {when} }}\nreply = \"x\"");
        let error = RuleSet::parse(&rules).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
