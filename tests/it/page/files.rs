//! Conversations in files, in a real browser: saving, opening, and what is not such a file.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    ENTER, assert_no_console_messages, open, open_page, reference_picture, wait_for_reply,
};
use crate::support::Browser;

/// Keeps the name and content of every download, which a headless browser would not show.
const KEEP_DOWNLOADS: &str = "window.downloads = [];
   const original = HTMLAnchorElement.prototype.click;
   HTMLAnchorElement.prototype.click = function () {
     if (!this.download) return original.call(this);
     const { href, download } = this;
     fetch(href).then((response) => response.text()).then((text) => window.downloads.push([download, text]));
   };
   const create = URL.createObjectURL;
   const blobs = new Map();
   URL.createObjectURL = (blob) => { const url = create.call(URL, blob); blobs.set(url, blob); return url; };
   window.fetch = new Proxy(window.fetch, { apply: (target, self, [url, ...rest]) => blobs.has(url) ? Promise.resolve(new Response(blobs.get(url))) : Reflect.apply(target, self, [url, ...rest]) });";

fn downloaded(browser: &Browser, button: &str) -> (String, String) {
    browser.run("window.downloads = []");
    browser.click(button);
    let found = browser.wait_for("window.downloads[0]");
    serde_json::from_value(found).unwrap()
}

fn open_file(browser: &Browser, file: &Path) {
    browser.type_into("#conversation-file", file.to_str().unwrap());
}

#[test]
fn saved_conversation_is_opened_elsewhere() {
    let Some((dev, browser)) = open_page("a conversation is saved and opened") else {
        return;
    };
    browser.run(KEEP_DOWNLOADS);
    browser.type_into(
        "#composer input[type=file]",
        reference_picture().to_str().unwrap(),
    );
    browser.type_into("#body", "*look*");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "look");
    browser.click("#files-open");
    let (name, text) = downloaded(&browser, "#save-conversation");
    assert_eq!(name, "ana.json");
    let token: &str = &dev.token;
    assert!(!text.contains(token));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ana.json");
    std::fs::write(&file, &text).unwrap();
    // Another start of the emulator knows nothing of it.
    dev.control("POST", "/reset", &json!({}));
    browser.wait_for("document.querySelectorAll('.bubble').length === 0");
    open(&browser, &dev);
    open_file(&browser, &file);
    wait_for_reply(&browser, "look");
    browser.wait_for("[...document.querySelectorAll('[role=log] .in img')].some((one) => one.naturalWidth === 360)");
    let shown = browser.run(
        "return [document.querySelector('#saved').textContent, document.querySelector('#body').disabled,
           [...document.querySelectorAll('.ticks')].map((one) => one.textContent)[0], document.querySelectorAll('#exchange-list .call').length > 0]",
    );
    assert!(
        shown[0]
            .as_str()
            .unwrap()
            .contains("Saved conversation, from ana.json"),
        "{shown}"
    );
    assert_eq!((&shown[1], &shown[2]), (&json!(true), &json!("✓✓")));
    browser.wait_for("document.querySelector('#exchange-list .call')");
    // A message of the same user does not get into it.
    dev.says(&json!({"from": "whatsapp:+15550001111", "body": "new"}));
    browser.wait_for("document.querySelector('#user-list .unread')");
    assert_eq!(
        browser.run("return document.querySelectorAll('.bubble').length"),
        2
    );
    browser.click("#close-saved");
    wait_for_reply(&browser, "new");
    assert_eq!(
        browser.run("return document.querySelector('#body').disabled"),
        false
    );
    assert_no_console_messages(&browser);
}

#[test]
fn other_file_is_rejected_with_reason() {
    let Some((dev, browser)) = open_page("opening a file without a conversation") else {
        return;
    };
    browser.type_into("#body", "mine");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "mine");
    let folder = tempfile::tempdir().unwrap();
    let format = "replyhook conversation 1";
    let message = json!({"sid": "SM1", "sender": "+1", "body": "x", "status": "read", "at": "2026-01-01T00:00:00Z", "direction": "out", "media": []});
    let mut with_script = message.clone();
    with_script["media"] = json!([{"src": "javascript:window.hit=1", "content_type": "image/png"}]);
    with_script["body"] = "<img src=x onerror=window.hit=1>".into();
    for (name, content) in [
        ("a.json", "no JSON".to_owned()),
        ("b.json", "null".to_owned()),
        (
            "c.json",
            json!({"format": format, "user": "+1", "messages": [{}], "exchanges": []}).to_string(),
        ),
        (
            "d.json",
            json!({"format": format, "user": "+1", "messages": [message], "exchanges": [null]})
                .to_string(),
        ),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        open_file(&browser, &file);
        browser.wait_for(&format!(
            "document.querySelector('#notices').textContent.includes('{name} is not a conversation that this page has saved.')"
        ));
        assert_eq!(wait_for_reply(&browser, "mine"), ["mine"]);
    }
    let file = folder.path().join("e.json");
    let hostile = json!({"format": format, "user": "whatsapp:+15550001111", "messages": [with_script], "exchanges": []});
    std::fs::write(&file, hostile.to_string()).unwrap();
    open_file(&browser, &file);
    wait_for_reply(&browser, "<img src=x onerror=window.hit=1>");
    assert_eq!(browser.run("return String(window.hit)"), "undefined");
    assert_eq!(dev.conversation("whatsapp:+15550001111").len(), 2);
    assert_no_console_messages(&browser);
}

#[test]
fn conversation_is_saved_as_test_in_each_language() {
    let Some((_dev, browser)) = open_page("a conversation is saved as a test") else {
        return;
    };
    browser.run(KEEP_DOWNLOADS);
    browser.type_into("#body", "remember this");
    browser.type_into("#body", ENTER);
    wait_for_reply(&browser, "remember this");
    browser.click("#files-open");
    for (language, file, part) in [
        ("rust", "ana_test.rs", "TestBot::start"),
        ("python", "test_ana.py", "def test_"),
        ("node", "ana.test.mjs", "node:test"),
    ] {
        let (name, text) = downloaded(&browser, &format!("[data-language={language}]"));
        assert_eq!(name, file);
        assert!(
            text.contains(part) && text.contains("remember this"),
            "{text}"
        );
    }
    let label: Value = browser.role_and_label(".tests").1.into();
    assert_eq!(label, "Save as test:");
    assert_no_console_messages(&browser);
}
