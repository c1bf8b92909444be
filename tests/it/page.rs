//! The emulator's page in a real browser, and the emulator's protection against other pages and hosts.
//! `./scripts/test` installs the browser.

mod content;
mod files;
mod reading;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use replyhook::signature::sign;
use replyhook::{FormParams, Secret};
use serde_json::{Value, json};

use crate::support::http::{self, Listener, RawRequest};
use crate::support::{
    ANA, BEN, Browser, Dev, NUMBER, SANDBOX, Webhook, base64_of, installed, report_skipped, root,
    twiml_message, wire,
};

/// Starts `replyhook dev` and a browser with its page; `None` without a browser.
fn open_page(what: &str) -> Option<(Dev, Browser)> {
    open_page_with(what, &["--port", "0"])
}

fn open_page_with(what: &str, args: &[&str]) -> Option<(Dev, Browser)> {
    open_page_in(what, args, &[])
}

fn open_page_in(what: &str, args: &[&str], env: &[(&str, &str)]) -> Option<(Dev, Browser)> {
    let Some(chromedriver) = installed("REPLYHOOK_TEST_CHROMEDRIVER") else {
        report_skipped(&format!("in a browser: {what}"));
        return None;
    };
    let dev = Dev::start_with(args, env);
    let browser = Browser::start(&chromedriver);
    open(&browser, &dev);
    Some((dev, browser))
}

fn open(browser: &Browser, dev: &Dev) {
    browser.open(&dev.url);
    // Earlier, the page would draw the conversation once more, while a test moves the focus or measures positions.
    browser.wait_for("document.querySelector('#chat-address').textContent === 'whatsapp:+15550001111' && document.querySelector('#gone').hidden && document.querySelector('main').ariaBusy !== 'true'");
}

/// Waits until the page shows this text of the bot, and returns all its texts.
fn wait_for_reply(browser: &Browser, text: &str) -> Vec<String> {
    let texts = "[...document.querySelectorAll('[role=log] .bubble.out .text')].map((one) => one.textContent)";
    let found = browser.wait_for(&format!(
        "(() => {{ const texts = {texts}; return texts.includes({}) && texts; }})()",
        json!(text)
    ));
    serde_json::from_value(found).unwrap()
}

/// Asserts that the console is empty: no error, no violation of the page's policy, no failed request.
fn assert_no_console_messages(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
}

fn artifact_path(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join(name)
}

fn reference_picture() -> PathBuf {
    root().join("tests/it/picture.png")
}

const ENTER: &str = "\u{e007}";

#[test]
fn typed_text_gets_reply_in_log() {
    let Some((dev, browser)) = open_page("a text is typed and answered") else {
        return;
    };
    let title = browser.run("return [document.title, document.documentElement.lang]");
    assert!(title[0].as_str().unwrap().contains("replyhook"), "{title}");
    assert_eq!(title[1], "en");
    let label = browser.run("return document.querySelector('#body').labels[0].textContent");
    assert!(
        label.as_str().unwrap().starts_with("Message from Ana"),
        "{label}"
    );
    browser.type_into("#body", "Olá + 100% & <3 👍".replace('👍', "").as_str());
    browser.click("#composer .send");
    wait_for_reply(&browser, "Olá + 100% & <3 ");
    browser.type_into("#body", "and with the Enter key");
    browser.type_into("#body", ENTER);
    let texts = wait_for_reply(&browser, "and with the Enter key");
    assert_eq!(texts.len(), 2, "{texts:?}");
    // The bot's messages become read, since the page shows them.
    browser.wait_for("document.querySelectorAll('[role=log] .out .ticks.read').length === 2");
    // The page keeps the messages of an SMS user separate from Ana's.
    browser.click("#user-list [data-key='+15550004444']");
    browser.wait_for("document.querySelector('#chat-address').textContent === '+15550004444'");
    browser.type_into("#body", "by SMS");
    browser.type_into("#body", ENTER);
    assert_eq!(wait_for_reply(&browser, "by SMS"), ["by SMS"]);
    assert_eq!(dev.conversation(BEN).len(), 2);
    assert_eq!(dev.conversation(ANA).len(), 4);
    assert_no_console_messages(&browser);
}

#[test]
fn pressed_quick_reply_is_sent_to_bot() {
    let Some((dev, browser)) = open_page("a quick reply is pressed") else {
        return;
    };
    let offered = dev.send_quick_replies(
        ANA,
        "Are you at home?",
        &[("Yes", "home:yes"), ("Not today", "home:no")],
    );
    let buttons = browser.wait_for(
        "(() => { const all = [...document.querySelectorAll('[role=log] .offers button')]; return all.length && all.map((one) => one.textContent); })()",
    );
    assert_eq!(buttons, json!(["Yes", "Not today"]));
    browser.click("[role=log] .offers button:nth-child(2)");
    wait_for_reply(&browser, "Not today");
    let messages = dev.conversation(ANA);
    let shown: Vec<_> = messages
        .iter()
        .map(|message| &message["direction"])
        .collect();
    assert_eq!(shown, ["out", "in", "out"]);
    assert_eq!(messages[0]["sid"], offered.as_str());
    assert_eq!(
        messages[1]["button"],
        json!({"text": "Not today", "payload": "home:no"})
    );
    let webhook = dev.wait_for_exchanges(1, |exchange| exchange["kind"] == "webhook");
    for pair in [
        ["ButtonText", "Not today"],
        ["ButtonPayload", "home:no"],
        ["Body", "Not today"],
    ] {
        let params = webhook[0]["params"].as_array().unwrap();
        assert!(
            params.contains(&json!(pair)),
            "{pair:?} is not in {params:?}"
        );
    }
    assert_no_console_messages(&browser);
}

#[test]
fn picked_dropped_and_received_media_is_shown() {
    let Some((dev, browser)) = open_page("pictures are shown") else {
        return;
    };
    let loaded = |count: usize, of: &str| {
        browser.wait_for(&format!(
            "(() => {{ const all = [...document.querySelectorAll('[role=log] {of} img')];
              const is = (one) => one.complete && one.naturalWidth === 360 && one.getAttribute('src').startsWith('/_emulator/media/');
              return all.length === {count} && all.every(is); }})()"
        ));
    };
    browser.type_into(
        "#composer input[type=file]",
        reference_picture().to_str().unwrap(),
    );
    browser.wait_for("document.querySelector('.chips').textContent.includes('picture.png')");
    browser.click("#composer .send");
    wait_for_reply(&browser, "image/png");
    loaded(1, ".in");
    // Drop a file on the conversation, and add a text.
    let dropped = base64_of(&std::fs::read(reference_picture()).unwrap());
    browser.run(&format!(
        "const bytes = Uint8Array.from(atob('{dropped}'), (one) => one.charCodeAt(0));
         const files = new DataTransfer();
         files.items.add(new File([bytes], 'dropped.png', {{ type: 'image/png' }}));
         const event = (name) => new DragEvent(name, {{ dataTransfer: files, bubbles: true, cancelable: true }});
         document.querySelector('#log').dispatchEvent(event('dragover'));
         document.querySelector('#log').dispatchEvent(event('drop'));"
    ));
    browser.wait_for("document.querySelector('.chips').textContent.includes('dropped.png')");
    browser.type_into("#body", "look at this");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "look at this");
    loaded(2, ".in");
    // Send the picture as the bot, via the REST API.
    let messages = dev.conversation(ANA);
    let src = messages[0]["media"][0]["src"].as_str().unwrap();
    let form = [
        ("From", SANDBOX),
        ("To", ANA),
        ("Body", "yours"),
        ("MediaUrl", &*format!("{}{src}", dev.url)),
    ];
    let sent = dev.rest(
        "POST",
        "/2010-04-01/Accounts/{account}/Messages.json",
        &dev.token,
        &form,
    );
    assert_eq!(sent.status, 201, "{}", sent.body);
    wait_for_reply(&browser, "yours");
    loaded(1, ".out");
    assert_no_console_messages(&browser);
}

#[test]
fn redelivery_shows_two_calls_and_one_reply() {
    let Some((dev, browser)) = open_page("a message is delivered again") else {
        return;
    };
    let webhooks = |count: usize| {
        browser.wait_for(&format!(
            "(() => {{ const titles = [...document.querySelectorAll('#exchange-list .title')].map((one) => one.textContent);
              return titles.filter((one) => one.startsWith('Webhook')).length === {count} && titles; }})()"
        ))
    };
    browser.type_into("#body", "once");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "once");
    webhooks(1);
    browser.run("window.again = document.querySelector('[data-key=again]')");
    browser.click("[data-key=again]");
    browser.wait_for(
        "document.querySelector('#notices').textContent.includes('Delivered again: 200')",
    );
    let titles = webhooks(2);
    assert!(
        titles
            .as_array()
            .unwrap()
            .contains(&json!("Webhook, duplicate")),
        "{titles}"
    );
    assert_eq!(wait_for_reply(&browser, "once"), ["once"]);
    // The `duplicate` fault repeats the delivery without a click, like a retry by Twilio.
    dev.control("PUT", "/faults", &json!({"duplicate": 1}));
    browser.type_into("#body", "twice");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "twice");
    webhooks(2);
    assert_eq!(wait_for_reply(&browser, "twice"), ["once", "twice"]);
    // Updates keep the button element, so that a click during one is not lost.
    assert_eq!(browser.run("return window.again.isConnected"), true);
    let answers = dev
        .conversation(ANA)
        .iter()
        .filter(|message| message["direction"] == "out")
        .count();
    assert_eq!(answers, 2);
    let calls = dev.wait_for_exchanges(4, |exchange| exchange["kind"] == "webhook");
    assert_eq!(calls.len(), 4);
    for pair in [&calls[..2], &calls[2..]] {
        assert_eq!(pair[0]["message_sid"], pair[1]["message_sid"]);
        assert_eq!(pair[0]["response"]["body"], pair[1]["response"]["body"]);
    }
    assert_no_console_messages(&browser);
}

// The indicator disappears with the bot's reply, and a reset empties the page.
#[test]
fn typing_indicator_and_reset_update_page() {
    let Some((dev, browser)) = open_page("typing is shown, and a reset empties the page") else {
        return;
    };
    let hint = "document.querySelector('#empty').checkVisibility()";
    browser.wait_for(hint);
    browser.type_into("#body", "are you there?");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "are you there?");
    assert_eq!(browser.run(&format!("return {hint}")), false);
    let sid = dev.conversation(ANA)[0]["sid"].clone();
    let form = [
        ("channel", "whatsapp"),
        ("messageId", sid.as_str().unwrap()),
    ];
    let typing = dev.rest("POST", "/v2/Indicators/Typing.json", &dev.token, &form);
    assert_eq!(typing.status, 200, "{}", typing.body);
    browser.wait_for("document.querySelector('#typing').textContent.includes('typing…')");
    let form = [("From", SANDBOX), ("To", ANA), ("Body", "I am")];
    let path = "/2010-04-01/Accounts/{account}/Messages.json";
    assert_eq!(dev.rest("POST", path, &dev.token, &form).status, 201);
    wait_for_reply(&browser, "I am");
    browser.wait_for("document.querySelector('#typing').textContent === ''");
    browser.wait_for("document.querySelector('#exchange-list .call')");
    dev.control("POST", "/reset", &json!({}));
    browser.wait_for(hint);
    browser.wait_for("document.querySelectorAll('.bubble, .call, #exchange > *').length === 0");
    assert_no_console_messages(&browser);
}

#[test]
fn user_named_plus_is_listed() {
    let Some((_dev, browser)) = open_page("a user named + is added") else {
        return;
    };
    browser.click("#add-open");
    browser.type_into("#add-address", "+15550002222");
    browser.type_into("#add-name", "+");
    browser.type_into("#add-name", ENTER);
    let avatar = "document.querySelector('#user-list [data-key=\"+15550002222\"] .avatar')";
    let shown = browser.wait_for(&format!("{avatar} && {avatar}.textContent"));
    assert_eq!(shown, "+");
    assert_no_console_messages(&browser);
}

// The bot has a sender on RCS, so the user can write to it.
#[test]
fn rcs_user_is_added_and_gets_reply() {
    let Some((_dev, browser)) = open_page("an RCS user is added") else {
        return;
    };
    browser.click("#add-open");
    browser.type_into("#add-address", "rcs:+15550006666");
    browser.type_into("#add-address", ENTER);
    browser.wait_for("document.querySelector('label[for=body]').textContent.includes('by RCS')");
    let channel = "document.querySelector('#user-list [data-key=\"rcs:+15550006666\"] .channel')";
    let shown = browser.wait_for(&format!("{channel} && {channel}.textContent"));
    assert_eq!(shown, "RCS");
    browser.type_into("#body", "hi by RCS");
    browser.type_into("#body", ENTER);
    assert_eq!(wait_for_reply(&browser, "hi by RCS"), ["hi by RCS"]);
    assert_no_console_messages(&browser);
}

// A fault without a count has none in its description. A counted fault disappears when it is used up.
#[test]
fn rest_fault_is_described_until_used_up() {
    let Some((dev, browser)) = open_page("a fault of the REST API is described") else {
        return;
    };
    let shows = |text: &str| {
        browser.wait_for(&format!(
            "document.querySelector('#faults-now').textContent === {}",
            json!(text)
        ));
    };
    dev.control("PUT", "/faults", &json!({"rest_error": {"status": 503}}));
    shows("Active: REST returns 503");
    let fault = json!({"rest_error": {"status": 503, "times": 1}});
    dev.control("PUT", "/faults", &fault);
    shows("Active: REST returns 503 (1×)");
    let path = "/2010-04-01/Accounts/{account}/Messages.json";
    assert_eq!(dev.rest("GET", path, &dev.token, &[]).status, 503);
    shows("No faults");
    assert_no_console_messages(&browser);
}

/// Texts that would run code if the page inserted them as HTML.
const HOSTILE: [&str; 5] = [
    r#"<img src=x onerror="window.hit=1">"#,
    "<script>window.hit=1</script>",
    r#""><svg onload=window.hit=1><iframe srcdoc="<script>top.hit=1</script>">"#,
    "</p></article></div><style>*{display:none}</style><a href=javascript:window.hit=1>x</a>",
    "{{constructor.constructor('window.hit=1')()}} &lt;img src=x onerror=alert(1)&gt;",
];

#[test]
fn threat_40_hostile_texts_stay_texts() {
    let Some((dev, browser)) = open_page("hostile texts stay texts") else {
        return;
    };
    let elements = "return ['script', 'iframe', 'style', 'svg', 'object', 'embed', 'base'].map((name) => document.querySelectorAll(name).length)";
    let before = browser.run(elements);
    for text in HOSTILE {
        browser.type_into("#body", text);
        browser.type_into("#body", ENTER);
        wait_for_reply(&browser, text);
    }
    let typed = browser.run("return [...document.querySelectorAll('[role=log] .in .text')].map((one) => one.textContent)");
    assert_eq!(typed, json!(HOSTILE));
    // Other sources of text: names, files, locations, buttons, addresses and the response of a server.
    let [image, script, markup, ..] = HOSTILE;
    dev.says(
        &json!({"from": ANA, "body": image, "profile_name": script, "params": {"Zzz<b>": markup}}),
    );
    dev.says(&json!({"from": ANA, "location": {"latitude": 1.0, "longitude": 2.0, "label": image, "address": script}}));
    dev.says(&json!({"from": ANA, "button": {"text": image, "payload": script}}));
    dev.says(&json!({"from": format!("messenger:{image}"), "body": script}));
    let page = base64_of(b"<script>top.hit=1</script>");
    let file = json!({"data": page, "content_type": "text/html", "filename": script});
    let drawing = base64_of(b"<svg xmlns='http://www.w3.org/2000/svg' onload='top.hit=1'/>");
    let svg = json!({"data": drawing, "content_type": "image/svg+xml", "filename": markup});
    dev.says(&json!({"from": ANA, "body": "files", "media": [file, svg]}));
    dev.send_quick_replies(ANA, image, &[("<svg onload=hit()>", markup)]);
    wait_for_reply(&browser, "files");
    browser.wait_for("document.querySelector('[role=log] .offers button')");
    // Open the details of each message and everything in the inspector.
    browser.run("for (const one of document.querySelectorAll('[role=log] .details')) one.click()");
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true");
    browser.wait_for("document.querySelector('#exchange-list .call')");
    let after = browser.run(elements);
    assert_eq!(
        before,
        after,
        "{}",
        browser.run("return document.body.innerHTML")
    );
    let pictures = browser.run("return [...document.querySelectorAll('[role=log] img')].map((one) => one.getAttribute('src'))");
    let is_emulator_url = |src: &Value| src.as_str().unwrap().starts_with("/_emulator/media/ME");
    assert!(
        pictures.as_array().unwrap().iter().all(is_emulator_url),
        "{pictures}"
    );
    assert_eq!(browser.run("return String(window.hit)"), "undefined");
    assert!(!browser.has_alert());
    // An HTML file runs no code, even if it is opened directly.
    for message in dev.conversation(ANA) {
        for media in message["media"].as_array().unwrap() {
            let response = dev.exchange(
                "GET",
                media["src"].as_str().unwrap(),
                &[("Host", &dev.host())],
                "",
            );
            assert_eq!(
                response.header("content-security-policy"),
                Some("default-src 'none'; sandbox")
            );
            assert_eq!(response.header("content-disposition"), Some("attachment"));
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        }
    }
    let loud: Vec<_> = browser.console();
    assert_eq!(loud, Vec::<String>::new());
}

#[test]
fn threat_40_foreign_page_in_same_browser_reaches_nothing() {
    let Some((dev, browser)) = open_page("a foreign page reaches nothing") else {
        return;
    };
    dev.says(&json!({"from": ANA, "body": "mine"}));
    let attack = format!(
        "const target = '{}';
         const forged = JSON.stringify({{ from: '{ANA}', body: 'forged' }});
         const form = (enctype) => new Promise((resolve) => {{
           const frame = document.createElement('iframe');
           frame.name = 'frame' + enctype.length;
           document.documentElement.append(frame);
           const form = document.createElement('form');
           Object.assign(form, {{ method: 'POST', action: target + '/_emulator/messages', enctype, target: frame.name }});
           const field = document.createElement('input');
           Object.assign(field, {{ name: forged.slice(0, -1) + ',\"profile_name\":\"', value: '\"}}' }});
           form.append(field);
           document.documentElement.append(form);
           frame.onload = () => resolve('sent');
           form.submit();
         }});
         const tries = [
           fetch(target + '/_emulator/config').then((answer) => answer.text()),
           fetch(target + '/_emulator/conversations').then((answer) => answer.text()),
           fetch(target + '/_emulator/messages', {{ method: 'POST', headers: {{ 'Content-Type': 'application/json' }}, body: forged }}),
           fetch(target + '/_emulator/messages', {{ method: 'POST', mode: 'no-cors', body: forged }}),
           fetch(target + '/_emulator/reset', {{ method: 'POST', mode: 'no-cors' }}),
           fetch(target + '/_emulator/faults', {{ method: 'PUT', body: '{{\"duplicate\":3}}' }}),
           new Promise((resolve, reject) => {{
             const events = new EventSource(target + '/_emulator/events');
             events.onopen = () => resolve('opened');
             events.onerror = () => reject('rejected');
           }}),
           form('text/plain'),
         ];
         Promise.allSettled(tries).then((all) => done(all.map((one) => one.status === 'rejected' ? 'rejected' : one.value.type ?? one.value)));",
        dev.url
    );
    for foreign in [
        browser.foreign_page(),
        "data:text/html,<title>x</title>".to_owned(),
    ] {
        browser.open(&foreign);
        let result = browser.run_async(&attack);
        for (index, outcome) in result.as_array().unwrap().iter().enumerate() {
            // The browser may send a no-cors request, but does not let the page read its response.
            let may_leave = matches!(index, 3 | 4) && outcome == "opaque";
            let is_form = index == 7 && outcome == "sent";
            assert!(
                may_leave || is_form || outcome == "rejected",
                "{foreign}: {result}"
            );
        }
        let bodies: Vec<_> = dev
            .conversation(ANA)
            .iter()
            .map(|one| one["body"].clone())
            .collect();
        assert_eq!(bodies, ["mine", "mine"], "{foreign}");
        assert_eq!(
            dev.control("GET", "/faults", &Value::Null)["duplicate"],
            0,
            "{foreign}"
        );
    }
    // DNS rebinding: a foreign host name that resolves to this machine.
    browser.open(&dev.url.replace("127.0.0.1", "evil.example"));
    let shown = browser.run("return document.body.innerText");
    assert!(
        shown.as_str().unwrap().contains("this machine's own pages"),
        "{shown}"
    );
}

#[test]
fn threat_40_foreign_origin_or_host_is_rejected() {
    let dev = Dev::start();
    let port = dev.host().split_once(':').unwrap().1.to_owned();
    let host = dev.host();
    let body = json!({"from": ANA, "body": "forged"}).to_string();
    let hosts = [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("evil.example:{port}"),
        format!("0.0.0.0:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
    ])
    .map(|host| vec![("Host", host)]);
    let origins = [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "https://127.0.0.1",
        "",
        "file://",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("https://{host}"),
        format!("http://{host}.evil.example"),
        format!("http://evil.example:{port}"),
    ])
    .map(|origin| vec![("Host", host.clone()), ("Origin", origin)]);
    let sites = ["cross-site", "same-site"].map(|site| {
        vec![
            ("Host", host.clone()),
            ("Sec-Fetch-Site", site.to_owned()),
            ("Sec-Fetch-Mode", "no-cors".to_owned()),
        ]
    });
    for headers in hosts.chain(origins).chain(sites) {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        for (method, target) in [
            ("POST", "/_emulator/messages"),
            ("POST", "/_emulator/reset"),
            ("PUT", "/_emulator/faults"),
            ("POST", "/_emulator/clock"),
            ("GET", "/_emulator/config"),
            ("GET", "/_emulator/events"),
            ("GET", "/_emulator/conversations"),
            ("GET", "/"),
            ("GET", "/2010-04-01/Accounts.json"),
        ] {
            let answer = dev.exchange(method, target, &headers, &body);
            assert_eq!(
                answer.status, 403,
                "{method} {target} {headers:?}: {}",
                answer.body
            );
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    assert_eq!(
        dev.control("GET", "/conversations", &Value::Null),
        json!([])
    );
    // The emulator accepts this machine's own names, and its page cannot be put into a frame.
    for name in ["127.0.0.1", "localhost", "[::1]"] {
        let own_host = format!("{name}:{port}");
        let origin = format!("http://{own_host}");
        let page = dev.exchange("GET", "/", &[("Host", &own_host), ("Origin", &origin)], "");
        assert_eq!(page.status, 200);
        let policy = page.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'self'",
            "frame-ancestors 'none'",
            "object-src 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert!(!page.body.contains(&dev.token));
    }
}

/// Addresses on which a process listens, from `/proc`.
#[cfg(target_os = "linux")]
fn listening_addresses(pid: u32) -> std::collections::BTreeSet<String> {
    use std::collections::BTreeSet;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: BTreeSet<String> = files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN; 07 is an unconnected UDP socket.
            if matches!(fields[3], "0A" | "07") && sockets.contains(fields[9]) {
                found.insert(fields[1].to_owned());
            }
        }
    }
    found
}

// The listen address and public URL of a real server's settings do not change this.
#[test]
#[cfg(target_os = "linux")]
fn threat_39_dev_listens_on_loopback_only() {
    let open = [
        ("REPLYHOOK__SERVER__LISTEN", "0.0.0.0:0"),
        ("PUBLIC_URL", "https://hooks.example.test"),
    ];
    for (args, env, count) in [
        (&["--port", "0"][..], &[][..], 2),
        (&["--port", "0"], &open, 2),
        (&["--webhook", "http://127.0.0.1:9/sms"], &open, 1),
    ] {
        let dev = Dev::start_with(args, env);
        let listens = listening_addresses(dev.program.pid());
        assert_eq!(listens.len(), count, "{args:?}: {listens:?}");
        for address in listens {
            assert!(
                address.starts_with("0100007F:"),
                "{address} is not 127.0.0.1"
            );
        }
    }
}

#[test]
fn threat_39_server_port_does_not_serve_emulator() {
    let dev = Dev::start();
    let config = dev.control("GET", "/config", &Value::Null);
    let webhook = config["webhook"].as_str().unwrap();
    let server = webhook
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/webhook")
        .unwrap();
    for target in [
        "/",
        "/_emulator/config",
        "/page/page.js",
        "/metrics",
        "/readyz",
        "/2010-04-01/Accounts.json",
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        let answer = wire::exchange(server.parse().unwrap(), request.as_bytes()).unwrap();
        assert_eq!(answer.status, 404, "{target}: {}", answer.body);
    }
}

const REAL_TOKEN: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e70a";
const REAL_SECOND: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e70b";
const REAL_KEY: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e70c";
const REAL_ACCOUNT: &str = "AC5ec7e75ec7e75ec7e75ec7e75ec7e701";

/// Starts `dev` with a real server's settings, and asserts that it uses and shows none of their credentials.
fn assert_no_real_token(args: &[&str], env: &[(&str, &str)]) -> Dev {
    let dev = Dev::start_with(&[&["--port", "0"], args].concat(), env);
    let result = dev.says(&json!({"from": ANA, "body": "hello", "media": []}));
    assert_eq!(result["messages"][0]["body"], "hello", "{result:#}");
    dev.says(&json!({"from": BEN, "body": "hello"}));
    let form = [("From", NUMBER), ("To", BEN), ("Body", "by REST")];
    let path = "/2010-04-01/Accounts/{account}/Messages.json";
    for real in [REAL_TOKEN, REAL_SECOND, REAL_KEY] {
        assert_eq!(dev.rest("POST", path, real, &form).status, 401);
    }
    assert_eq!(dev.rest("POST", path, &dev.token, &form).status, 201);
    // Every signature was made with the emulator's own token.
    let signed = dev.wait_for_exchanges(2 + 3 + 2 + 2, |exchange| exchange["signed"].is_object());
    for exchange in &signed {
        let request = &exchange["request"];
        let headers: Vec<(String, String)> =
            serde_json::from_value(request["headers"].clone()).unwrap();
        let signature = headers
            .iter()
            .find(|(name, _)| name == "x-twilio-signature");
        let (_, signature) = signature.unwrap_or_else(|| panic!("{exchange:#}"));
        let params: Vec<(String, String)> =
            serde_json::from_value(exchange["params"].clone()).unwrap();
        let form: FormParams = params
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let url = request["url"].as_str().unwrap();
        let by = |token: &str| sign(&Secret::new(token), url, Some(&form)).unwrap();
        assert_eq!(*signature, by(&dev.token), "{exchange:#}");
        for real in [REAL_TOKEN, REAL_SECOND, REAL_KEY] {
            assert_ne!(*signature, by(real));
        }
    }
    // The dev server rejects signatures made with the real tokens.
    let config = dev.control("GET", "/config", &Value::Null);
    let webhook = config["webhook"].as_str().unwrap();
    let server = webhook.strip_suffix("/webhook").unwrap();
    for real in [REAL_TOKEN, REAL_SECOND] {
        for origin in [server, "https://hooks.example.test"] {
            let forged = Webhook::message(1, "forged").token(real);
            let address = server.strip_prefix("http://").unwrap().parse().unwrap();
            let answer = wire::exchange(address, &forged.raw(origin)).unwrap();
            assert_eq!(answer.status, 403, "{}", answer.body);
        }
    }
    // No output contains a real token, key or account SID.
    for (what, text) in [
        ("config", config.to_string()),
        (
            "exchanges",
            dev.control("GET", "/exchanges", &Value::Null).to_string(),
        ),
        (
            "debugger",
            dev.control("GET", "/debugger", &Value::Null).to_string(),
        ),
        (
            "conversations",
            dev.control("GET", "/conversations", &Value::Null)
                .to_string(),
        ),
        ("output", dev.program.output()),
    ] {
        for secret in [REAL_TOKEN, REAL_SECOND, REAL_KEY, REAL_ACCOUNT] {
            assert!(!text.contains(secret), "{what}: {text}");
            let login = base64_of(format!("{}:{secret}", dev.account).as_bytes());
            assert!(!text.contains(&login), "{what}: {text}");
        }
    }
    let login = base64_of(format!("{REAL_ACCOUNT}:{REAL_TOKEN}").as_bytes());
    let login = format!("Basic {login}");
    let target = format!("/2010-04-01/Accounts/{REAL_ACCOUNT}/Messages.json");
    let headers = [("Host", &*dev.host()), ("Authorization", &*login)];
    assert_eq!(dev.exchange("GET", &target, &headers, "").status, 401);
    dev
}

#[test]
fn threat_41_real_token_in_environment_is_unused() {
    let env = [
        ("TWILIO_AUTH_TOKEN", REAL_TOKEN),
        ("TWILIO_AUTH_TOKEN_SECONDARY", REAL_SECOND),
        ("TWILIO_ACCOUNT_SID", REAL_ACCOUNT),
        ("PUBLIC_URL", "https://hooks.example.test"),
        (
            "REPLYHOOK__TWILIO__API_KEY_SID",
            "SK5ec7e75ec7e75ec7e75ec7e75ec7e702",
        ),
        ("REPLYHOOK__TWILIO__API_KEY_SECRET", REAL_KEY),
        ("REPLYHOOK__TWILIO__API_URL", "http://127.0.0.1:9"),
    ];
    let dev = assert_no_real_token(&[], &env);
    let output = dev.program.output();
    for (name, _) in env {
        assert!(
            output.contains(name),
            "the output does not say that {name} is not used:\n{output}"
        );
    }
}

#[test]
fn threat_41_real_token_in_settings_is_unused() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let settings = format!(
        "[twilio]\nauth_token = \"{REAL_TOKEN}\"\nauth_token_secondary = \"{REAL_SECOND}\"\naccount_sid = \"{REAL_ACCOUNT}\"\n\
         api_key_sid = \"SK5ec7e75ec7e75ec7e75ec7e75ec7e702\"\napi_key_secret = \"{REAL_KEY}\"\n\
         [twilio.accounts.{REAL_ACCOUNT}]\nauth_token = \"{REAL_TOKEN}\"\n\
         [server]\npublic_url = \"https://hooks.example.test\"\n"
    );
    std::fs::write(file.path(), settings).unwrap();
    assert_no_real_token(&["--config", file.path().to_str().unwrap()], &[]);
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), REAL_TOKEN).unwrap();
    assert_no_real_token(
        &[],
        &[("TWILIO_AUTH_TOKEN_FILE", token.path().to_str().unwrap())],
    );
}

/// Replies of a shop's bot.
fn shop(request: &RawRequest) -> Vec<u8> {
    let form: BTreeMap<_, _> = form_urlencoded::parse(&request.body).into_owned().collect();
    let answer = match (&*form["Body"], &*form["NumMedia"]) {
        (_, "1") => twiml_message("What a place! The driver has it now."),
        ("Yes, please", _) => {
            twiml_message("Done: tomorrow, 9 to 12. You get a message an hour before.")
        }
        ("Do you deliver on Sundays?", _) => twiml_message("We do, from 10 to 16."),
        _ => twiml_message(
            "Good evening, Ana! It is, and leaves for its last mile tomorrow. Where shall it go?",
        ),
    };
    http::http_response(200, &[("Content-Type", "text/xml")], &answer)
}

// Saves a screenshot of a realistic conversation as `page.png` in the target folder.
#[test]
fn page_screenshot_is_saved() {
    let bot = Listener::start(None, |request| shop(&request));
    let webhook = format!("http://{}/sms", bot.address);
    let Some((dev, browser)) = open_page_with("a picture of the page", &["--webhook", &webhook])
    else {
        return;
    };
    dev.says(&json!({"from": BEN, "body": "Do you deliver on Sundays?"}));
    browser.type_into("#body", "Good evening! Is my parcel on its way?");
    browser.type_into("#body", ENTER);
    browser.wait_for("document.querySelectorAll('[role=log] .bubble').length === 2");
    browser.type_into(
        "#composer input[type=file]",
        reference_picture().to_str().unwrap(),
    );
    browser.wait_for("document.querySelector('.chips').textContent.includes('picture.png')");
    browser.type_into("#body", "Here, on the other side");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "What a place! The driver has it now.");
    let buttons = [
        ("Yes, please", "deliver:yes"),
        ("Another day", "deliver:no"),
    ];
    dev.send_quick_replies(ANA, "Shall we deliver it tomorrow?", &buttons);
    browser.wait_for("document.querySelector('[role=log] .offers button')");
    browser.click("[role=log] .offers button");
    browser.wait_for("document.querySelectorAll('[role=log] .out .ticks.read').length === 4");
    browser.wait_for("document.querySelector('#exchange-list .call')");
    let screenshot = browser.screenshot();
    assert!(screenshot.starts_with(b"\x89PNG") && screenshot.len() > 10_000);
    std::fs::write(artifact_path("page.png"), screenshot).unwrap();
    assert_no_console_messages(&browser);
}

// The fallback call succeeds with an empty response, which must not look like a message that the bot has taken.
#[test]
fn message_of_failed_bot_shows_reason_and_that_user_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("bot.toml");
    let text =
        "[[rule]]\nwhen.text = 'fail'\nreply = '{{ 1 / 0 }}'\n[otherwise]\nreply = 'Fine.'\n";
    std::fs::write(&rules, text).unwrap();
    let args = ["--port", "0", "--rules", rules.to_str().unwrap()];
    let Some((_dev, browser)) = open_page_with("a failed bot", &args) else {
        return;
    };
    for text in ["hello", "fail"] {
        browser.type_into("#body", text);
        browser.type_into("#body", ENTER);
        wait_for_reply(&browser, "Fine.");
    }
    browser.wait_for("[...document.querySelectorAll('[role=log] .in .problem')].some((one) => one.textContent.startsWith('Your bot failed: '))");
    let shown = browser.run(
        "return [...document.querySelectorAll('[role=log] .in')].map((one) => [one.querySelector('.ticks').textContent, one.querySelector('.problem')?.textContent])",
    );
    assert_eq!(shown[0], json!(["✓✓", null]));
    assert_eq!(shown[1][0], "⚠");
    let problem = shown[1][1].as_str().unwrap();
    assert!(problem.contains("The user gets nothing"), "{problem}");
    assert!(problem.contains("reply.fallback_text"), "{problem}");
    assert_no_console_messages(&browser);
}
