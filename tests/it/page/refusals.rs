//! Refused REST calls, late replies and replies that cannot be sent, in a real browser: each below its message.

use serde_json::{Value, json};

use super::{ENTER, assert_no_console_messages, open_page_in, open_page_with, wait_for_reply};
use crate::support::http::{Listener, http_response};
use crate::support::{ANA, Browser, Dev, SANDBOX};

const MESSAGES: &str = "/2010-04-01/Accounts/{account}/Messages.json";

/// Selects an inbound message by its number, waits until the inspector lists this call, and returns `[title, verdict]` of
/// all calls. `verdict` is the start of the verdict's text.
fn calls_of(browser: &Browser, number: usize, title: &str, verdict: &str) -> Vec<(String, String)> {
    browser.wait_for(&format!(
        "document.querySelectorAll('[role=log] .in .details').length > {number}"
    ));
    browser.run(&format!(
        "document.querySelectorAll('[role=log] .in .details')[{number}].click()"
    ));
    // Otherwise the list may still be the one of the message that was selected before.
    browser.wait_for_frame();
    let calls = browser.wait_for(&format!(
        "(() => {{
           const text = (row, part) => row.querySelector(part).textContent;
           const calls = [...document.querySelectorAll('#exchange-list .call')].map((row) => [text(row, '.title'), text(row, '.verdict')]);
           const isSelected = document.querySelectorAll('[role=log] .in')[{number}].classList.contains('chosen');
           return isSelected && calls.some(([title, verdict]) => title === {} && verdict.startsWith({})) && calls;
         }})()",
        json!(title),
        json!(verdict)
    ));
    serde_json::from_value(calls).unwrap()
}

/// Waits until the debugger marks entries of the selected message, and returns how each begins.
fn marked_entries(browser: &Browser, code: u32) -> Vec<String> {
    let entries = browser.wait_for(&format!(
        "(() => {{
           const own = [...document.querySelectorAll('#debugger-list .own strong')].map((one) => one.textContent);
           return own.some((text) => text.endsWith(' {code}')) && own;
         }})()"
    ));
    serde_json::from_value(entries).unwrap()
}

fn refused(calls: &[(String, String)]) -> Vec<&str> {
    let rest = calls.iter().filter(|(title, _)| title.starts_with("REST"));
    let verdicts = rest.map(|(_, verdict)| verdict.as_str());
    verdicts
        .filter(|verdict| !verdict.starts_with("20"))
        .collect()
}

fn type_text(browser: &Browser, text: &str, count: usize) {
    browser.type_into("#body", text);
    browser.type_into("#body", ENTER);
    browser.wait_for(&format!(
        "document.querySelectorAll('[role=log] .in .ticks').length === {count} && [...document.querySelectorAll('[role=log] .in .ticks')].every((one) => one.textContent === '✓✓')"
    ));
}

// The bot is another server, as with Node and Python: the emulator knows only when it called.
#[test]
fn refused_call_of_another_server_stands_below_its_message() {
    let bot = Listener::start(None, |_| {
        http_response(200, &[("Content-Type", "text/xml")], "<Response/>")
    });
    let webhook = format!("http://{}/sms", bot.address);
    let args = ["--webhook", webhook.as_str()];
    let Some((dev, browser)) = open_page_with("refused REST calls", &args) else {
        return;
    };
    let form = [("From", SANDBOX), ("To", ANA), ("Body", "a reply")];
    for (number, (status, code)) in [(429, 20429), (400, 21211), (503, 20503)]
        .into_iter()
        .enumerate()
    {
        type_text(&browser, &format!("message {number}"), number + 1);
        let fault = json!({"rest_error": {"status": status, "code": code, "times": 1}});
        dev.control("PUT", "/faults", &fault);
        let refused = dev.rest("POST", MESSAGES, &dev.token, &form);
        assert_eq!(refused.status, status, "{}", refused.body);
    }
    type_text(&browser, "no call", 4);
    for (number, expected) in ["429 · 20429", "400 · 21211", "503 · 20503"]
        .into_iter()
        .enumerate()
    {
        let calls = calls_of(&browser, number, "REST call by the bot", expected);
        assert_eq!(refused(&calls), [expected]);
        let code: u32 = expected.split(' ').next_back().unwrap().parse().unwrap();
        assert_eq!(marked_entries(&browser, code), [format!("Error {code}")]);
    }
    let calls = calls_of(&browser, 3, "Webhook", "200");
    assert_eq!(refused(&calls), Vec::<&str>::new());
    browser.wait_for("!document.querySelector('#debugger-list .own')");
    // The failed calls of this test are not errors of the page.
    assert_no_console_messages(&browser);
}

/// Starts `dev` with a deadline so short that the faults make every reply a late one.
fn open_with_late_replies(what: &str) -> Option<(Dev, Browser)> {
    let deadline = [("REPLYHOOK__REPLY__DEADLINE_MS", "150")];
    open_page_in(what, &["--port", "0"], &deadline)
}

// Both messages are in before the first reply is sent, so the times of the calls do not tell which one they answer.
#[test]
fn refused_late_reply_stands_below_message_it_answers() {
    let Some((dev, browser)) = open_with_late_replies("a late reply is refused") else {
        return;
    };
    let faults = json!({"handler_ms": 1500, "rest_error": {"status": 429, "times": 1}});
    dev.control("PUT", "/faults", &faults);
    type_text(&browser, "first", 1);
    type_text(&browser, "second", 2);
    wait_for_reply(&browser, "first");
    wait_for_reply(&browser, "second");
    let first = calls_of(&browser, 0, "REST call by the bot", "201");
    assert_eq!(refused(&first), ["429 · 20429"], "{first:?}");
    assert_eq!(marked_entries(&browser, 20429), ["Error 20429"]);
    let created = |calls: &[(String, String)]| calls.iter().filter(|(_, is)| is == "201").count();
    assert_eq!(created(&first), 1, "{first:?}");
    let second = calls_of(&browser, 1, "REST call by the bot", "201");
    assert_eq!(refused(&second), Vec::<&str>::new(), "{second:?}");
    assert_eq!(created(&second), 1, "{second:?}");
    browser.wait_for("!document.querySelector('#debugger-list .own')");
    // The selected reply shows the calls of its own message.
    let shown = browser.run("return document.querySelectorAll('[role=log] .out').length");
    assert_eq!(shown, 2);
    browser.run("document.querySelector('[role=log] .out .details').click()");
    browser.wait_for("[...document.querySelectorAll('#exchange-list .verdict')].some((one) => one.textContent === '429 · 20429')");
    assert_no_console_messages(&browser);
}

/// A rules file whose reply to "file" has a type that WhatsApp does not take. It is checked after the handler.
fn write_rules(folder: &std::path::Path) -> String {
    let file = folder.join("bot.toml");
    let rules = "[[rule]]\nwhen.text = 'file'\n\
                 reply = { text = 'here', media = 'https://example.com/setup', content_type = 'application/x-msdownload' }\n\
                 [[rule]]\nwhen.text = 'question'\nreply = { text = 'When?', choices = ['Today', 'Tomorrow'] }\n\
                 [otherwise]\nreply = 'Fine.'\n";
    std::fs::write(&file, rules).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn message_whose_reply_cannot_be_sent_shows_reason() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write_rules(folder.path());
    let args = ["--port", "0", "--rules", &*rules];
    let Some((dev, browser)) = open_page_with("a reply that cannot be sent", &args) else {
        return;
    };
    for text in ["file", "hello"] {
        browser.type_into("#body", text);
        browser.type_into("#body", ENTER);
    }
    wait_for_reply(&browser, "Fine.");
    let shown = browser.wait_for(
        "(() => { const problems = [...document.querySelectorAll('[role=log] .in')].map((one) => [one.querySelector('.ticks').textContent, one.querySelector('.problem')?.textContent]);
           return problems[0][1] && problems; })()",
    );
    assert_eq!(shown[0][0], "⚠");
    let problem = shown[0][1].as_str().unwrap();
    assert!(
        problem.starts_with("Your bot failed: the reply cannot be sent: ")
            && problem.contains("application/x-msdownload"),
        "{problem}"
    );
    assert_eq!(shown[1][1], Value::Null);
    // The question is refused after the webhook has responded with 200.
    let fault = json!({"rest_error": {"status": 400, "code": 21211}});
    dev.control("PUT", "/faults", &fault);
    browser.type_into("#body", "question");
    browser.type_into("#body", ENTER);
    let problem = browser.wait_for(
        "document.querySelectorAll('[role=log] .in')[2]?.querySelector('.problem')?.textContent",
    );
    let problem = problem.as_str().unwrap();
    assert!(
        problem.contains("the reply cannot be sent: Twilio rejected it")
            && problem.contains("(21211)"),
        "{problem}"
    );
    assert_eq!(dev.conversation(ANA)[1]["failure"], Value::Null);
    assert_no_console_messages(&browser);
}
