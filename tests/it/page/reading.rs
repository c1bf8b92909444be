//! Reading and writing on the page, in a real browser: scrolling, WhatsApp's markup, lengths, the message box.

use serde_json::{Value, json};

use super::{
    ENTER, assert_no_console_messages, open, open_page, open_page_with, reference_picture,
    wait_for_reply,
};
use crate::support::http::{Listener, RawRequest};
use crate::support::{ANA, BEN, Browser, Dev, NUMBER, SANDBOX};

const UP: &str = "\u{e013}";
const DOWN: &str = "\u{e015}";

fn say(browser: &Browser, text: &str, count: usize) {
    browser.type_into("#body", text);
    browser.type_into("#body", ENTER);
    wait_for_bubbles(browser, count);
}

fn wait_for_bubbles(browser: &Browser, count: usize) {
    browser.wait_for(&format!(
        "document.querySelectorAll('[role=log] .out').length === {count}"
    ));
}

/// Returns true, after two frames, if the last bubble is in view.
const LAST_IS_IN_VIEW: &str = "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => {
   const bottom = (element) => element.getBoundingClientRect().bottom;
   done(bottom([...document.querySelectorAll('.bubble')].at(-1)) <= bottom(document.querySelector('#scroll')) + 1);
 }, 100)))";

fn send_as_bot(dev: &Dev, sender: &str, user: &str, text: &str) {
    let form = [("From", sender), ("To", user), ("Body", text)];
    let path = "/2010-04-01/Accounts/{account}/Messages.json";
    let sent = dev.rest("POST", path, &dev.token, &form);
    assert_eq!(sent.status, 201, "{}", sent.body);
}

fn open_user(browser: &Browser, address: &str) {
    browser.click(&format!("#user-list [data-key='{address}']"));
    browser.wait_for(&format!(
        "document.querySelector('#chat-address').textContent === {}",
        json!(address)
    ));
}

// The chosen entry is in view, and header and faults stay where they are.
#[test]
fn debugger_link_scrolls_only_inspector() {
    let Some((dev, browser)) = open_page("the debugger is opened") else {
        return;
    };
    say(&browser, "hi", 1);
    for _ in 0..4 {
        // Outside the window, so Twilio adds an entry.
        send_as_bot(&dev, SANDBOX, "whatsapp:+15550009999", "no window");
    }
    browser.wait_for("document.querySelectorAll('#debugger-list li').length === 4");
    browser.click("#debugger-link");
    let placed = browser.run(
        "const box = (selector) => document.querySelector(selector).getBoundingClientRect();
         return [document.scrollingElement.scrollTop, box('header').top, document.body.scrollHeight <= innerHeight,
           box('#debugger-title').top >= box('#inspector .head').bottom - 1, box('#debugger-title').bottom <= innerHeight,
           document.activeElement.id]",
    );
    assert_eq!(placed, json!([0, 0, true, true, true, "debugger"]));
    assert_no_console_messages(&browser);
}

#[test]
fn newest_reply_is_in_view_unless_reader_scrolled_up() {
    let Some((dev, browser)) = open_page("new messages are in view") else {
        return;
    };
    let long = "line\\n"
        .repeat(12)
        .replace("\\n", "\u{e008}\u{e007}\u{e008}");
    for number in 1..=14 {
        // Shift+Enter for the lines: long messages are more than the view can be away from the end.
        let lines = if number % 3 == 0 { long.as_str() } else { "" };
        // Each text differs, or the bot would take it for a loop.
        say(&browser, &format!("{lines}{number}"), number);
        assert_eq!(browser.run_async(LAST_IS_IN_VIEW), true, "message {number}");
    }
    browser.run("document.querySelector('#scroll').scrollTop = 40");
    browser.wait_for("!document.querySelector('#newest').hidden");
    send_as_bot(&dev, SANDBOX, ANA, "late news");
    wait_for_bubbles(&browser, 15);
    assert_eq!(browser.run_async(LAST_IS_IN_VIEW), false);
    assert_eq!(
        browser.run("return document.querySelector('#scroll').scrollTop"),
        40
    );
    browser.click("#newest");
    assert_eq!(browser.run_async(LAST_IS_IN_VIEW), true);
    browser.wait_for("document.querySelector('#newest').hidden");
    assert_no_console_messages(&browser);
}

#[test]
fn whatsapp_markup_is_shown_on_whatsapp_only() {
    let Some((dev, browser)) = open_page("WhatsApp's markup is shown") else {
        return;
    };
    dev.says(&json!({"from": ANA, "body": "hi"}));
    dev.says(&json!({"from": "+15550004444", "body": "hi"}));
    for (text, html) in [
        (
            "*bold* _italic_ ~struck~ `code`",
            "<strong>bold</strong> <em>italic</em> <s>struck</s> <code>code</code>",
        ),
        ("```a *b*\nc```", "<code class=\"mono\">a *b*\nc</code>"),
        (
            "*bold _both_*, (*b*)!",
            "<strong>bold <em>both</em></strong>, (<strong>b</strong>)!",
        ),
        (
            "2*3*4 snake_case_name * a * _ b_",
            "2*3*4 snake_case_name * a * _ b_",
        ),
        ("*not\nclosed*", "*not\nclosed*"),
        (
            "- a\n- *b*\n1. c\n2. d\nend",
            "<ul><li>a</li><li><strong>b</strong></li></ul><ol start=\"1\"><li value=\"1\">c</li><li value=\"2\">d</li></ol>end",
        ),
        (
            "> quoted\n> more\nplain\nlines",
            "<blockquote>quoted\nmore</blockquote>plain\nlines",
        ),
        ("<b>&*<i>*", "&lt;b&gt;&amp;<strong>&lt;i&gt;</strong>"),
    ] {
        send_as_bot(&dev, SANDBOX, ANA, text);
        browser.wait_for(&format!(
            "[...document.querySelectorAll('[role=log] .out .text')].at(-1)?.innerHTML === {}",
            json!(html)
        ));
    }
    open_user(&browser, "+15550004444");
    send_as_bot(&dev, NUMBER, "+15550004444", "*bold* - a");
    wait_for_reply(&browser, "*bold* - a");
    assert_eq!(
        browser.run("return document.querySelectorAll('.text strong').length"),
        0
    );
    assert_no_console_messages(&browser);
}

#[test]
fn segments_are_shown_under_sms_only() {
    let Some((_dev, browser)) = open_page("segments are shown") else {
        return;
    };
    let size = |text: &str| {
        browser.type_into("#body", text);
        browser.run("return document.querySelector('#size').textContent")
    };
    assert_eq!(size("hello"), "5 characters");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "hello");
    browser.wait_for("document.querySelector('.texts')");
    let shown = browser.run("return document.querySelector('#inspector').textContent");
    assert!(!shown.as_str().unwrap().contains("segment"), "{shown}");
    open_user(&browser, "+15550004444");
    assert_eq!(size("hello"), "5 characters, 1 SMS segment (GSM-7)");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "hello");
    browser.wait_for("document.querySelector('.texts')?.textContent.includes('1 SMS segment')");
    assert_no_console_messages(&browser);
}

#[test]
fn open_window_has_24_hours() {
    let Some((dev, browser)) = open_page("the window is shown") else {
        return;
    };
    say(&browser, "hi", 1);
    let pills = "[...document.querySelectorAll('#pills li')].map((one) => one.textContent)";
    browser.wait_for(&format!("{pills}.includes('Window: 24 h left')"));
    let shown = browser.run(&format!("return {pills}"));
    assert_eq!(shown[2], "Handler: echo");
    dev.control("POST", "/clock", &json!({"advance_seconds": 5400}));
    browser.wait_for(&format!("{pills}.includes('Window: 22 h 30 min left')"));
    assert_no_console_messages(&browser);
}

#[test]
fn parameters_are_confirmed_in_their_panel() {
    let Some((dev, browser)) = open_page("parameters are confirmed") else {
        return;
    };
    browser.type_into("#body", "with parameters");
    browser.click("[aria-controls=panel-params]");
    browser.type_into("#params", "Forwarded");
    browser.click("#panel-params [type=submit]");
    browser.wait_for("document.querySelector('#notices').textContent.includes('“Forwarded”')");
    browser.type_into("#params", "=true");
    browser.click("#panel-params [type=submit]");
    wait_for_reply(&browser, "with parameters");
    let calls = dev.wait_for_exchanges(1, |exchange| exchange["kind"] == "webhook");
    let params = calls[0]["params"].as_array().unwrap();
    assert!(params.contains(&json!(["Forwarded", "true"])), "{params:?}");
    browser.wait_for("!document.querySelector('#panel-params').checkVisibility()");
    assert_no_console_messages(&browser);
}

#[test]
fn arrow_up_recalls_earlier_messages() {
    let Some((_dev, browser)) = open_page("a message is recalled") else {
        return;
    };
    let recalled = || browser.run("return document.querySelector('#body').value");
    browser.type_into("#body", UP);
    assert_eq!(recalled(), "");
    say(&browser, "first", 1);
    say(&browser, "second", 2);
    browser.type_into("#body", UP);
    assert_eq!(recalled(), "second");
    browser.type_into("#body", UP);
    assert_eq!(recalled(), "first");
    browser.type_into("#body", UP);
    assert_eq!(recalled(), "first");
    browser.type_into("#body", DOWN);
    assert_eq!(recalled(), "second");
    browser.type_into("#body", "!");
    browser.type_into("#body", UP);
    assert_eq!(recalled(), "second!", "an edited text stays");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "second!");
    assert_no_console_messages(&browser);
}

// Neither when another user is opened nor when a fault is switched on.
#[test]
fn rows_of_chips_and_faults_do_not_move() {
    let Some((_dev, browser)) = open_page("the rows do not move") else {
        return;
    };
    browser.run(
        "window.tops = new Set();
         const note = () => {
           window.tops.add(document.querySelector('#scroll').getBoundingClientRect().top);
           requestAnimationFrame(note);
         };
         note();",
    );
    say(&browser, "hi", 1);
    browser.wait_for("document.querySelectorAll('#pills li').length >= 3");
    for user in ["+15550004444", ANA, "rcs:+15550005555", ANA] {
        open_user(&browser, user);
        browser.wait_for("document.querySelectorAll('#pills li').length >= 2");
    }
    assert_eq!(browser.run("return window.tops.size"), 1);
    let places = "[...document.querySelectorAll('#faults-list [data-key]')].filter((one) => one.dataset.key !== 'clear').map((one) => one.getBoundingClientRect().left)";
    let before = browser.run(&format!("return {places}"));
    browser.click("#faults-list [data-key=Duplicate]");
    browser.wait_for("document.querySelector('#faults-now').textContent.startsWith('Active')");
    assert_eq!(browser.run(&format!("return {places}")), before);
    browser.click("#faults-list [data-key=clear]");
    browser.wait_for("document.querySelector('#faults-now').textContent === 'No faults'");
    assert_no_console_messages(&browser);
}

// At 200 % zoom, a phone's width and in both schemes, nothing is wider or higher than the screen.
#[test]
fn page_fits_small_screens() {
    let Some((dev, browser)) = open_page_with("small screens", &["--port", "0"]) else {
        return;
    };
    dev.says(&json!({"from": ANA, "body": "*hi*\n- a\n> b ".to_owned() + &"wide".repeat(60)}));
    for (width, height) in [(640, 543), (500, 844), (1280, 943)] {
        browser.resize(width, height);
        open(&browser, &dev);
        browser.wait_for("document.querySelectorAll('.bubble').length === 2");
        browser.click("#files-open");
        let root: Value = browser.run(
            "const root = document.scrollingElement;
             return [root.scrollWidth <= innerWidth, root.scrollHeight <= innerHeight, document.querySelector('#composer').getBoundingClientRect().bottom <= innerHeight]",
        );
        assert_eq!(root, json!([true, true, true]), "{width}x{height}");
    }
    assert_no_console_messages(&browser);
}

// The response to the page's request is from before an event that the page gets while the request is in flight.
#[test]
fn event_during_load_is_newer_than_its_response() {
    let Some((dev, browser)) = open_page("an event arrives while a conversation is loaded") else {
        return;
    };
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let picture = std::fs::read(reference_picture()).unwrap();
    let slow = Listener::start(None, move |_: RawRequest| {
        let _ = gate.lock().unwrap().recv();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            picture.len()
        );
        [head.as_bytes(), &picture].concat()
    });
    browser.click(&format!("#user-list [data-key='{BEN}']"));
    browser.wait_for(&format!(
        "document.querySelector('#chat-address').textContent === '{BEN}'"
    ));
    dev.says(&json!({"from": ANA, "body": "hi"}));
    let url = format!("http://{}/a.png", slow.address);
    let form = [
        ("To", ANA),
        ("From", SANDBOX),
        ("Body", "Look"),
        ("MediaUrl", &*url),
    ];
    let path = "/2010-04-01/Accounts/{account}/Messages.json";
    let sent = dev.rest("POST", path, &dev.token, &form);
    assert_eq!(sent.status, 201, "{}", sent.body);
    browser.run(
        "const real = window.fetch;
         window.fetch = async (...args) => {
           const response = await real(...args);
           if (!String(args[0]).includes('conversations/')) return response;
           const text = await response.text();
           window.held = true;
           await new Promise((release) => { window.release = release; });
           return new Response(text, { status: response.status, headers: response.headers });
         };
         window.restore = () => { window.fetch = real; window.release(); };",
    );
    browser.click(&format!("#user-list [data-key='{ANA}']"));
    browser.wait_for("window.held");
    release.send(()).unwrap();
    let pictures = "document.querySelectorAll('[role=log] .out img').length === 1";
    browser.wait_for(pictures);
    browser.run("window.restore()");
    browser.wait_for("document.querySelector('[role=log] .bubble.in')");
    browser.wait_for(pictures);
}
