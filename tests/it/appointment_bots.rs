//! The bots of the tutorial on choices, `examples/choices/`: each holds the same conversation, and the page shows them.

#[path = "../../examples/choices/main.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod program;

use std::path::Path;
use std::process::Command;

use replyhook::App;
use replyhook::config::Sources;
use replyhook::testing::TestBot;
use serde_json::json;

use crate::support::markdown::blocks;
use crate::support::session::example;
use crate::support::{
    ANA, BEN, Browser, Dev, Program, installed, read, replyhook, report_skipped, root,
};

const PAGE: &str = "docs/src/tutorial/appointment-bot.md";
const FOLDER: &str = "examples/choices";
const SERVICES: [&str; 3] = ["Haircut", "Beard trim", "Both"];
const DAYS: [&str; 5] = ["Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SURE: [&str; 2] = ["Confirm", "Not now"];
/// Reply of the bots with a form to an unknown answer.
const FORM_HINT: &str = "Please answer with one of the choices, or write never mind.";
const SERVICE_HINT: &str = "Please answer with one of the choices, or write book.";
const ENTER: &str = "\u{e007}";
const RITA: &str = "rcs:+15550005555";

fn sources(env: &[(&str, &str)]) -> Sources {
    let env = env
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Sources::default().with_env(env)
}

async fn rules_bot() -> TestBot {
    let rules = root().join(FOLDER).join("appointment.toml");
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", rules.to_str().unwrap()),
    ];
    TestBot::start_with(sources(&env), App::builder).await
}

async fn rust_bot() -> TestBot {
    TestBot::start(|| App::builder().handler(program::bot())).await
}

/// The bot in Python, started as the page says: `replyhook dev -- python bot.py`.
// Not in `TestBot`, whose clock stands still: the service rejects signatures that are not of today.
fn start_python_bot() -> Option<Dev> {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        report_skipped("the tutorial's bot in Python");
        return None;
    };
    let args = ["--port", "0", "--", &python, "bot.py"];
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        root().join(FOLDER).join("bot.py"),
        folder.path().join("bot.py"),
    )
    .unwrap();
    Some(Dev::start_in(folder.path(), &args, &[]))
}

/// Holds the page's conversations on each channel.
async fn assert_converses(bot: &TestBot, hint: &str) {
    for address in [
        "whatsapp:+34600000001",
        "rcs:+34600000002",
        "messenger:34600000003",
        "+34600000004",
    ] {
        let ana = bot.user(address);
        // A tap, a number and a title.
        ana.says("book").await.assert_choices(SERVICES);
        ana.taps("Beard trim").await.assert_choices(DAYS);
        bot.restart().await;
        let confirm = ana.says("3").await;
        confirm.assert_choices(SURE);
        confirm.assert_reply_contains("Beard trim on Thursday: is that right?");
        ana.says("confirm, please")
            .await
            .assert_reply("Booked: Beard trim on Thursday.");
        // An unknown answer does not end the question.
        ana.says("Book").await.assert_choices(SERVICES);
        ana.says("a perm").await.assert_reply(hint);
        ana.says("both").await.assert_choices(DAYS);
        ana.taps("Saturday").await.assert_choices(SURE);
        ana.says("2").await.assert_reply("Nothing is booked.");
        // The cancel word unsubscribes no user.
        ana.says("book").await.assert_choices(SERVICES);
        ana.says("Never mind")
            .await
            .assert_reply("Maybe another time.");
        ana.says("book").await.assert_choices(SERVICES);
        ana.says("never mind")
            .await
            .assert_reply("Maybe another time.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_bot_converses_on_each_channel() {
    let bot = rules_bot().await;
    assert_converses(&bot, FORM_HINT).await;
    bot.sms("+34600000009")
        .says("hi")
        .await
        .assert_reply("Write book for an appointment.");
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_bot_converses_on_each_channel() {
    let bot = rust_bot().await;
    assert_converses(&bot, FORM_HINT).await;
    bot.sms("+34600000009")
        .says("hi")
        .await
        .assert_reply("Write book for an appointment.");
}

#[test]
fn python_bot_converses_on_each_channel() {
    let Some(dev) = start_python_bot() else {
        return;
    };
    for (address, tap) in [
        ("whatsapp:+34600000001", "/tap 2"),
        ("rcs:+34600000002", "/tap 2"),
        ("messenger:34600000003", "/tap 2"),
        ("+34600000004", "2"),
    ] {
        let says = format!(
            "book\n{tap}\n3\nconfirm, please\nBook\na perm\nnever mind\nbook\nboth\nsaturday\n2\n"
        );
        let chat = ["chat", "--emulator", &dev.url, "--as", address];
        let (code, output, problem) = replyhook(&chat, &[], &says);
        assert_eq!(code, 0, "{problem}");
        let lines: Vec<_> = output.lines().collect();
        let expected = [
            "What shall we do?",
            "Which day?",
            "Beard trim on Thursday: is that right?",
            "Booked: Beard trim on Thursday.",
            "What shall we do?",
            SERVICE_HINT,
            "Maybe another time.",
            "What shall we do?",
            "Which day?",
            "Both on Saturday: is that right?",
            "Nothing is booked.",
        ];
        assert_eq!(lines.len(), expected.len(), "{address}: {output}");
        for (line, expected) in lines.iter().zip(expected) {
            let expected = format!("bot: {expected}");
            assert!(
                line.starts_with(&expected),
                "{address}: {line}, not {expected}"
            );
        }
    }
}

// A button of a question that is over.
#[test]
fn python_bot_takes_no_answer_to_old_question() {
    let Some(dev) = start_python_bot() else {
        return;
    };
    let chat = ["chat", "--emulator", &dev.url];
    let (_, output, _) = replyhook(&chat, &[], "book\nboth\nfriday\n/tap 1\n/tap 1\n");
    let lines: Vec<_> = output.lines().skip(3).collect();
    let hint = format!("bot: {SERVICE_HINT}");
    assert_eq!(lines, ["bot: Booked: Both on Friday.", &hint], "{output}");
}

#[test]
fn page_shows_the_programs_that_are_tested() {
    let file = |name: &str| read(&format!("{FOLDER}/{name}"));
    let texts = |kind: &str| -> Vec<String> {
        let blocks = blocks(PAGE).into_iter();
        let blocks = blocks.filter(|block| block.kind.starts_with(kind));
        blocks.map(|block| block.text).collect()
    };
    assert!(texts("toml").contains(&file("appointment.toml")));
    assert_eq!(texts("python"), [file("bot.py")]);
    // The page has neither the comment about the example, nor what only this repository's lints and tests need.
    let program: Vec<_> = file("main.rs")
        .lines()
        .filter(|line| !line.starts_with("//!") && !line.starts_with("#[expect("))
        .map(|line| line.replace("pub(crate) fn", "fn"))
        .collect();
    assert_eq!(
        texts("rust").join("\n"),
        program.join("\n").trim_start().to_owned() + "\n"
    );
}

/// Runs the program of the example as the page says, with the argument `dev`.
#[test]
fn rust_program_starts_its_emulator() {
    let program = example("choices");
    if !program.exists() {
        // `cargo test --test it` alone does not build examples; `cargo test` does.
        return report_skipped(
            "the tutorial's program in Rust: the example `choices` is not built",
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(
        Command::new(program)
            .arg("dev")
            .env_clear()
            .current_dir(folder.path()),
    );
    program.wait_for("address of the page", |line| {
        line.starts_with("Chat with your bot: http://127.0.0.1:")
            .then_some(())
    });
}

/// Opens the page of a bot's emulator with a user, as wide as a phone.
fn open(browser: &Browser, url: &str, user: &str, height: i64) {
    browser.open(url);
    let selected = |address: &str| {
        browser.wait_for(&format!(
            "document.querySelector('#chat-address').textContent === {}",
            json!(address)
        ));
    };
    selected(ANA);
    browser.click(&format!("#user-list [data-key='{user}']"));
    selected(user);
    set_height(browser, height);
}

/// Writes a text on the page, and waits for the bot's message with this text.
fn write(browser: &Browser, text: &str, reply: &str) {
    browser.type_into("#body", &format!("{text}{ENTER}"));
    wait_for_bubble(browser, reply);
}

fn wait_for_bubble(browser: &Browser, text: &str) {
    let last = "[...document.querySelectorAll('[role=log] .bubble.out')].at(-1)";
    browser.wait_for(&format!("{last}?.textContent.includes({})", json!(text)));
}

/// Makes the page narrow, and its conversation this high.
fn set_height(browser: &Browser, height: i64) {
    const WIDTH: u32 = 440;
    const FIRST: i64 = 900;
    browser.resize(WIDTH, FIRST.try_into().unwrap());
    let found = browser.run("return document.querySelector('#chat').clientHeight");
    let rest = FIRST - found.as_i64().unwrap();
    browser.resize(WIDTH, (height + rest).try_into().unwrap());
    browser.wait_for(&format!(
        "document.querySelector('#chat').clientHeight === {height}"
    ));
}

/// Saves a screenshot of the phone, which `scripts/pictures` copies to the manual.
fn save(browser: &Browser, name: &str) {
    // SMS reports no more than the delivery.
    let is_last_status = "[...document.querySelectorAll('[role=log] .out .ticks')].every((one) => one.textContent === '✓✓' && (one.matches('.read') || document.body.dataset.channel === 'sms'))";
    browser.wait_for(is_last_status);
    // The state of the user on the server is loaded later.
    browser.wait_for("document.querySelector('#pills').textContent.includes('Not opted out')");
    // No text cursor, which is visible or not.
    browser.run("document.querySelector('#body').blur()");
    let screenshot = browser.screenshot_of("#chat");
    assert!(screenshot.starts_with(b"\x89PNG"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    std::fs::create_dir_all(target.join("pictures")).unwrap();
    std::fs::write(target.join("pictures").join(name), screenshot).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tutorial_screenshots_are_saved() {
    let Some(chromedriver) = installed("REPLYHOOK_TEST_CHROMEDRIVER") else {
        report_skipped("in a browser: pictures of the tutorial");
        return;
    };
    let browser = Browser::start(&chromedriver);
    // Kept to the end, since the page reports a server that is gone.
    let (rules, python, rust) = (rules_bot().await, start_python_bot(), rust_bot().await);

    open(&browser, rules.emulator_client().url(), ANA, 400);
    write(&browser, "book", "What shall we do?");
    save(&browser, "appointment-buttons.png");

    set_height(&browser, 560);
    browser.click("[role=log] .offers button:nth-child(2)");
    wait_for_bubble(&browser, "Which day?");
    // By keyboard: the mouse would be above a row, and change its color.
    browser
        .run("document.querySelector('[role=log] .bubble.out:last-child .offers button').focus()");
    browser.press(ENTER);
    browser.wait_for("document.querySelector('dialog').open");
    save(&browser, "appointment-list.png");

    if let Some(dev) = &python {
        open(&browser, &dev.url, BEN, 700);
        write(&browser, "book", "What shall we do?");
        write(&browser, "2", "Which day?");
        let question = "Beard trim on Thursday: is that right?";
        write(&browser, "thursday", question);
        save(&browser, "appointment-sms.png");
    }

    // Typed, since the page shows the payload of a tap, which differs in each run.
    open(&browser, rust.emulator_client().url(), RITA, 560);
    write(&browser, "book", "What shall we do?");
    write(&browser, "beard trim", "Which day?");
    save(&browser, "appointment-rcs.png");
    assert_eq!(browser.console(), Vec::<String>::new());
}
