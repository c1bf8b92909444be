//! The examples in a rules file, which `rules test` runs.

use replyhook::rules::{ExampleFailure, RuleSet};

use super::TempRules;
use crate::support::{replyhook, root};

#[test]
fn rules_test_runs_examples_of_file() {
    let shop = root()
        .join("examples/rules/shop.toml")
        .display()
        .to_string();
    let (code, output, _) = replyhook(&["rules", "test", &shop], &[], "");
    assert_eq!(code, 0, "{output}");
    assert!(output.ends_with("8 of 8 examples passed\n"), "{output}");

    let wrong = TempRules::new(
        "[otherwise]\nreply = \"Hi {{ profile_name }}\"\n\n[[example]]\nsays = \"x\"\ngets = \"Hi\"\n\n\
         [[example]]\nname = \"by hand\"\nsays = \"x\"\nforwards = true\n",
    );
    let (code, output, _) = replyhook(&["rules", "test", &wrong.name()], &[], "");
    assert_eq!(code, 1);
    let failure = format!("{}:8: expected a call of the service", wrong.name());
    assert!(output.contains(&failure), "{output}");
    assert!(output.contains("found    \"Hi \""), "{output}");
    assert!(output.contains("0 of 2 examples"), "{output}");

    let (code, _, error) = replyhook(&["rules", "test", "no-such-file.toml"], &[], "");
    assert_eq!(code, 2);
    assert!(
        error.contains("no-such-file.toml cannot be read"),
        "{error}"
    );
}

#[test]
fn example_can_opt_out_and_in() {
    let rules = |text: &str| {
        TempRules::new(&format!(
            "[[rule]]\nwhen.text = \"stop\"\nreply = \"never\"\n[otherwise]\nreply = \"hello\"\n\
             {text}[[example]]\nturns = [\n\
             {{ says = \"start\", gets = \"hello\" }},\n\
             {{ says = \"stop\", gets = \"Bye.\" }},\n\
             {{ says = \"hi\", gets = [] }},\n\
             {{ says = \"Start.\", gets = \"Welcome back.\" }},\n\
             {{ says = \"hi\", gets = \"hello\" }},\n]\n"
        ))
    };
    let rules_file = rules("[opt_out]\nstop_reply = \"Bye.\"\nstart_reply = \"Welcome back.\"\n");
    let (code, output, _) = replyhook(&["rules", "test", &rules_file.name()], &[], "");
    assert_eq!(code, 0, "{output}");
    let (code, output, _) = replyhook(&["rules", "test", &rules("").name()], &[], "");
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("write opt_out.stop_reply to set it here"),
        "{output}"
    );
}

/// Runs one example with these turns, of a bot that welcomes a new user, and returns its failure.
fn example_failure(turns: &str) -> Option<ExampleFailure> {
    let rules = format!(
        "[opt_out]\nstop_reply = \"Bye.\"\nstart_reply = \"Welcome back.\"\n\
         [[rule]]\nwhen.first_contact = true\nreply = \"Welcome!\"\n[otherwise]\nreply = \"hello\"\n\
         [[example]]\nturns = [\n{turns}]\n"
    );
    let results = RuleSet::parse(&rules).unwrap().run_examples();
    results[0].failure.clone()
}

// The server sends nothing to a user who has already opted out.
#[test]
fn example_second_stop_gets_no_reply() {
    let first = "{ says = \"stop\", gets = \"Bye.\" },\n";
    let turns = format!(
        "{first}{{ says = \"STOP\", gets = [] }},\n{{ says = \"start\", gets = \"Welcome back.\" }},\n"
    );
    assert_eq!(example_failure(&turns), None);
    let failure = example_failure(&first.repeat(2)).unwrap();
    assert_eq!(failure.found, "no reply");
}

// Twilio has replied to such a message, so the server does not.
#[test]
fn example_opt_out_type_decides_instead_of_text() {
    let turns = "{ says = \"hi\", gets = \"Welcome!\" },\n\
         { says = \"help\", params = { OptOutType = \"HELP\" }, gets = [] },\n\
         { says = \"begin\", params = { OptOutType = \"START\" }, gets = [] },\n\
         { says = \"no more\", params = { OptOutType = \"STOP\" }, gets = [] },\n\
         { says = \"hi\", gets = [] },\n\
         { says = \"begin\", params = { OptOutType = \"START\" }, gets = [] },\n\
         { says = \"hi\", gets = \"hello\" },\n";
    assert_eq!(example_failure(turns), None);
}

#[test]
fn example_keyword_counts_as_first_contact() {
    let turns = "{ says = \"stop\", gets = \"Bye.\" },\n\
         { says = \"start\", gets = \"Welcome back.\" },\n\
         { says = \"hi\", gets = \"hello\" },\n";
    assert_eq!(example_failure(turns), None);
}

#[test]
fn rules_test_checks_media_time_and_several_files() {
    let rules = "[hours]\nopen = \"mon-fri 09:00-17:00\"\n\
                 [[rule]]\nwhen.hours = \"open\"\nreply = [{ text = \"Menu\", media = \"https://example.com/menu.png\" }]\n\
                 [otherwise]\nreply = \"Closed.\"\n\
                 [[example]]\nturns = [\n\
                 { says = \"a\", gets = { text = \"Menu\", media = \"https://example.com/menu.png\" } },\n\
                 { says = \"b\", at = \"2026-01-05T22:00:00Z\", gets = \"Closed.\" },\n]\n";
    let right = TempRules::new(rules);
    let wrong = TempRules::new(&rules.replacen(
        "media = \"https://example.com/menu.png\" } }",
        "media = [] } }",
        1,
    ));
    let (code, output, _) = replyhook(&["rules", "test", &right.name(), &wrong.name()], &[], "");
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("1 of 1 example passed"), "{output}");
    assert!(
        output.contains("found    \"Menu\" with https://example.com/menu.png"),
        "{output}"
    );
}

// This also holds after a turn that sets its own time.
#[test]
fn example_turn_follows_one_second_after_previous() {
    let rules = "[otherwise]\nreply = \"{{ date }} {{ time }}\"\n[[example]]\nturns = [\n\
         { says = \"a\", gets = \"2026-01-05 09:00\" },\n\
         { says = \"b\", at = \"2026-03-01T22:59:59Z\", gets = \"2026-03-01 22:59\" },\n\
         { says = \"c\", gets = \"2026-03-01 23:00\" },\n]\n";
    let results = RuleSet::parse(rules).unwrap().run_examples();
    assert_eq!(results[0].failure, None);
}

#[test]
fn example_with_two_expectations_is_rejected() {
    for expected in [
        "gets = \"x\"\nforwards = true",
        "gets = []\nhandoff = true",
        "forwards = true\nhandoff = true",
    ] {
        let rules = format!("[otherwise]\nreply = \"x\"\n[[example]]\nsays = \"a\"\n{expected}\n");
        let error = RuleSet::parse(&rules).unwrap_err().to_string();
        assert!(
            error.contains("line 3, column 1: an example expects one thing"),
            "{error}"
        );
    }
}
