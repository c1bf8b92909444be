//! Content on the page, in a real browser: buttons, lists, chips, cards, links, media, locations and forms, by mouse
//! and by keyboard.

use serde_json::{Value, json};

use super::{ENTER, assert_no_console_messages, open_page, reference_picture};
use crate::support::{ANA, Browser, Dev, SANDBOX, base64_of};

const RITA: &str = "rcs:+15550005555";
const MAX: &str = "messenger:24680013579";
const TAB: &str = "\u{e004}";
const ESCAPE: &str = "\u{e00c}";
const DOWN: &str = "\u{e015}";
const SPACE: &str = " ";
const OFFERS: &str = "[role=log] .out .offers";

/// Creates a template, and returns its SID.
fn create(dev: &Dev, types: &Value) -> String {
    let body = json!({"friendly_name": "shown", "language": "en", "types": types});
    let path = "/v1/Content";
    let json_type = "application/json";
    let created = dev.call("POST", path, &dev.token, json_type, &body.to_string());
    assert_eq!(created.status, 201, "{}", created.body);
    let created: Value = serde_json::from_str(&created.body).unwrap();
    created["sid"].as_str().unwrap().to_owned()
}

fn submit(dev: &Dev, sid: &str) {
    let path = format!("/v1/Content/{sid}/ApprovalRequests/whatsapp");
    let body = json!({"name": "shown", "category": "UTILITY"}).to_string();
    let submitted = dev.call("POST", &path, &dev.token, "application/json", &body);
    assert_eq!(submitted.status, 201, "{}", submitted.body);
}

fn send(dev: &Dev, user: &str, sid: &str) {
    let sender = match user.split_once(':').unwrap().0 {
        "rcs" => "rcs:replyhook_agent",
        "messenger" => "messenger:104000000000001",
        _ => SANDBOX,
    };
    let form = [("From", sender), ("To", user), ("ContentSid", sid)];
    let path = "/2010-04-01/Accounts/{account}/Messages.json";
    let sent = dev.rest("POST", path, &dev.token, &form);
    assert_eq!(sent.status, 201, "{}", sent.body);
}

/// Sends types to a user in an open window.
fn ask(dev: &Dev, user: &str, types: &Value) {
    dev.says(&json!({"from": user, "body": "hi"}));
    send(dev, user, &create(dev, types));
}

/// Returns the parameters of the user's last webhook, when it has this value of a parameter.
fn wait_for_params(dev: &Dev, name: &str, value: &str) -> Value {
    let is_match = |exchange: &Value| {
        let params = exchange["params"].as_array().unwrap();
        exchange["kind"] == "webhook" && params.contains(&json!([name, value]))
    };
    let found = dev.wait_for_exchanges(1, is_match);
    found.last().unwrap()["params"].clone()
}

fn param<'a>(params: &'a Value, name: &str) -> Option<&'a str> {
    let mut params = params.as_array().unwrap().iter();
    params.find(|pair| pair[0] == name)?[1].as_str()
}

fn wait_for_text(browser: &Browser, selector: &str, text: &str) {
    browser.wait_for(&format!(
        "[...document.querySelectorAll({})].some((one) => one.checkVisibility() && one.textContent.includes({}))",
        json!(selector),
        json!(text)
    ));
}

/// Presses Tab until the element of a selector has the focus.
fn tab_to(browser: &Browser, selector: &str) {
    browser.run("document.querySelector('#sender-choice').closest('.head').querySelector('#files-open').focus()");
    for _ in 0..40 {
        browser.press(TAB);
        let has_focus = format!(
            "return document.activeElement === document.querySelector({})",
            json!(selector)
        );
        if browser.run(&has_focus) == true {
            return;
        }
    }
    panic!("Tab does not reach {selector}");
}

fn open_user(browser: &Browser, address: &str) {
    browser.click(&format!("#user-list [data-key='{address}']"));
    browser.wait_for(&format!(
        "document.querySelector('#chat-address').textContent === {}",
        json!(address)
    ));
}

fn buttons() -> Value {
    json!({"twilio/quick-reply": {"body": "When?", "actions": [
        {"type": "QUICK_REPLY", "title": "Today", "id": "today"},
        {"type": "QUICK_REPLY", "title": "Another day", "id": "other"},
    ]}})
}

#[test]
fn buttons_are_tapped_by_mouse_and_keyboard() {
    let Some((dev, browser)) = open_page("buttons are tapped by keyboard") else {
        return;
    };
    ask(&dev, ANA, &buttons());
    wait_for_text(&browser, OFFERS, "Another day");
    let group = browser.role_and_label(OFFERS);
    assert_eq!(group, ("group".to_owned(), "Buttons".to_owned()));
    browser.click(&format!("{OFFERS} button:nth-child(2)"));
    let params = wait_for_params(&dev, "ButtonPayload", "other");
    assert_eq!(param(&params, "MessageType"), Some("interactive"));
    wait_for_text(&browser, "[role=log] .in .tap", "Another day");
    // The title, and not the payload, which is among the parameters.
    let bubble = browser
        .run("return document.querySelector('[role=log] .in .content:has(.tap)').textContent");
    assert_eq!(bubble, "Tapped “Another day”");
    // The message that is shown is the one that the emulator has, not a second one.
    browser.wait_for("document.querySelectorAll('[role=log] .in .tap').length === 1");
    tab_to(&browser, &format!("{OFFERS} button"));
    browser.press(SPACE);
    wait_for_params(&dev, "ButtonPayload", "today");
    browser.wait_for("document.querySelectorAll('[role=log] .in .tap').length === 2");
    assert_no_console_messages(&browser);
}

#[test]
fn list_opens_dialog_and_sends_row() {
    let Some((dev, browser)) = open_page("a list is opened and a row is chosen") else {
        return;
    };
    let list = json!({"twilio/list-picker": {"body": "Which day?", "button": "Days", "items": [
        {"item": "Monday", "id": "mon", "description": "9 to 12"},
        {"item": "Tuesday", "id": "tue", "description": "13 to 17"},
        {"item": "Friday", "id": "fri", "description": "closed at noon"},
    ]}});
    ask(&dev, ANA, &list);
    wait_for_text(&browser, OFFERS, "Days");
    tab_to(&browser, &format!("{OFFERS} button"));
    browser.press(ENTER);
    browser.wait_for("document.querySelector('dialog').open");
    let dialog = browser.role_and_label("dialog");
    assert_eq!(dialog, ("dialog".to_owned(), "Days".to_owned()));
    wait_for_text(&browser, "dialog .rows", "13 to 17");
    // Escape closes it, and the focus is back at the button.
    browser.press(ESCAPE);
    browser.wait_for("!document.querySelector('dialog')");
    let is_back = format!("document.activeElement === document.querySelector('{OFFERS} button')");
    browser.wait_for(&is_back);
    browser.press(ENTER);
    browser.wait_for("document.activeElement.closest('dialog .rows')");
    browser.press(DOWN);
    let (role, row) = browser.role_and_label("dialog .row:focus");
    assert_eq!((role.as_str(), row.as_str()), ("button", "Tuesday"));
    let described = browser.run(
        "return document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent",
    );
    assert_eq!(described, "13 to 17");
    browser.press(ENTER);
    let params = wait_for_params(&dev, "ButtonPayload", "tue");
    assert_eq!(param(&params, "Body"), Some("Tuesday"));
    browser.wait_for("!document.querySelector('dialog')");
    // By mouse.
    browser.click(&format!("{OFFERS} button"));
    browser.click("dialog .rows li:nth-child(3) button");
    wait_for_params(&dev, "ButtonPayload", "fri");
    assert_no_console_messages(&browser);
}

#[test]
fn rcs_chips_and_reported_links_are_tapped() {
    let Some((dev, browser)) = open_page("RCS chips are tapped") else {
        return;
    };
    let card = json!({"twilio/card": {"title": "When?", "actions": [
        {"type": "QUICK_REPLY", "title": "Today", "id": "today"},
        {"type": "PHONE_NUMBER", "title": "Call us", "phone": "+15550009999", "id": "call"},
    ]}});
    open_user(&browser, RITA);
    ask(&dev, RITA, &card);
    wait_for_text(&browser, OFFERS, "Today");
    assert_eq!(browser.role_and_label(OFFERS).1, "Suggestions");
    tab_to(&browser, &format!("{OFFERS} button"));
    browser.press(ENTER);
    let params = wait_for_params(&dev, "ButtonPayload", "today");
    assert_eq!(param(&params, "ButtonType"), Some("REPLY"));
    browser.click(&format!("{OFFERS} .action"));
    let params = wait_for_params(&dev, "ButtonPayload", "call");
    assert_eq!(param(&params, "ButtonType"), Some("ACTION"));
    wait_for_text(&browser, "#notices", "call +15550009999");
    assert_no_console_messages(&browser);
}

#[test]
fn messenger_buttons_are_tapped() {
    let Some((dev, browser)) = open_page("Messenger buttons are tapped") else {
        return;
    };
    open_user(&browser, MAX);
    ask(&dev, MAX, &buttons());
    wait_for_text(&browser, OFFERS, "Today");
    tab_to(&browser, &format!("{OFFERS} button"));
    browser.press(ENTER);
    let params = wait_for_params(&dev, "ButtonPayload", "today");
    assert_eq!(param(&params, "From"), Some(MAX));
    assert_no_console_messages(&browser);
}

#[test]
fn link_button_is_a_link_and_script_url_is_not() {
    let Some((dev, browser)) = open_page("a URL button is a link") else {
        return;
    };
    let link = |url: &str| {
        json!({"twilio/call-to-action": {"body": "Look", "actions": [
            {"type": "URL", "title": "Our shop", "url": url, "id": "shop"},
        ]}})
    };
    ask(&dev, ANA, &link("https://shop.example/a?b=1"));
    wait_for_text(&browser, &format!("{OFFERS} a"), "Our shop");
    let (role, label) = browser.role_and_label(&format!("{OFFERS} a"));
    assert_eq!(role, "link");
    assert_eq!(
        label.replace(" ,", ","),
        "Our shop, opens a link in a new tab"
    );
    let link_parts = browser.run(&format!(
        "const link = document.querySelector('{OFFERS} a'); return [link.href, link.target, link.rel]"
    ));
    assert_eq!(
        link_parts,
        json!([
            "https://shop.example/a?b=1",
            "_blank",
            "noopener noreferrer"
        ])
    );
    dev.control("POST", "/reset", &json!({}));
    ask(&dev, ANA, &link("javascript:window.hit=1"));
    wait_for_text(&browser, &format!("{OFFERS} button"), "Our shop");
    tab_to(&browser, &format!("{OFFERS} button"));
    browser.press(ENTER);
    wait_for_text(&browser, "#notices", "would open javascript:");
    assert_eq!(browser.run("return String(window.hit)"), "undefined");
    // Nothing arrives at the bot.
    assert_eq!(dev.conversation(ANA).len(), 3);
    assert_no_console_messages(&browser);
}

/// Returns the URL of a picture that the emulator serves.
fn picture_url(dev: &Dev) -> String {
    let data = base64_of(&std::fs::read(reference_picture()).unwrap());
    let media = json!([{"data": data, "content_type": "image/png"}]);
    dev.says(&json!({"from": "whatsapp:+15550007070", "media": media}));
    let src = dev.conversation("whatsapp:+15550007070")[0]["media"][0]["src"].clone();
    format!("{}{}", dev.url, src.as_str().unwrap())
}

fn wait_for_pictures(browser: &Browser, selector: &str, count: usize) {
    browser.wait_for(&format!(
        "(() => {{ const all = [...document.querySelectorAll('{selector} img')];
          return all.length === {count} && all.every((one) => one.complete && one.naturalWidth === 360); }})()"
    ));
}

#[test]
fn card_media_and_location_are_shown() {
    let Some((dev, browser)) = open_page("cards, media and locations are shown") else {
        return;
    };
    let picture = picture_url(&dev);
    let card = json!({"twilio/card": {"title": "Blue bike", "body": "24 inches", "subtitle": "in stock", "media": [picture],
        "actions": [{"type": "QUICK_REPLY", "title": "Reserve", "id": "bike:1"}]}});
    ask(&dev, ANA, &card);
    wait_for_text(&browser, ".card .title", "Blue bike");
    wait_for_text(&browser, ".card", "in stock");
    wait_for_pictures(&browser, "[role=log] .out .card", 1);
    tab_to(&browser, ".card .offers button");
    browser.press(ENTER);
    wait_for_params(&dev, "ButtonPayload", "bike:1");
    dev.control("POST", "/reset", &json!({}));
    let picture = picture_url(&dev);
    ask(
        &dev,
        ANA,
        &json!({"twilio/media": {"body": "Look", "media": [picture]}}),
    );
    wait_for_pictures(&browser, "[role=log] .out", 1);
    wait_for_text(&browser, "[role=log] .out .text", "Look");
    let place = json!({"twilio/location": {"latitude": 52.52, "longitude": 13.405, "label": "Our shop", "address": "1 High Street"}});
    ask(&dev, ANA, &place);
    wait_for_text(&browser, "[role=log] .out .place", "Our shop");
    wait_for_text(&browser, "[role=log] .out .place", "1 High Street");
    wait_for_text(&browser, "[role=log] .out .place code", "52.52, 13.405");
    assert_no_console_messages(&browser);
}

#[test]
fn carousel_cards_are_labeled_and_tapped() {
    let Some((dev, browser)) = open_page("a carousel is shown and tapped") else {
        return;
    };
    let picture = picture_url(&dev);
    let card = |title: &str, id: &str| {
        json!({"title": title, "body": "one size", "media": picture, "actions": [
            {"type": "QUICK_REPLY", "title": "Take it", "id": id},
        ]})
    };
    let carousel = json!({"twilio/carousel": {"body": "Two hats", "cards": [card("Red hat", "hat:red"), card("Green hat", "hat:green")]}});
    let sid = create(&dev, &carousel);
    submit(&dev, &sid);
    dev.says(&json!({"from": ANA, "body": "hi"}));
    send(&dev, ANA, &sid);
    wait_for_pictures(&browser, "[role=log] .carousel", 2);
    wait_for_text(&browser, "[role=log] .out .text", "Two hats");
    let (_, label) = browser.role_and_label(".carousel .card:nth-child(2)");
    assert_eq!(label, "2 of 2: Green hat");
    tab_to(&browser, ".carousel .card:nth-child(2) button");
    // As after a reconnection. The button stays in the page, with its focus: the user may be clicking on it.
    browser.run("window.button = document.activeElement");
    browser.run_async("import('/page/conversation.js').then(({ load }) => load()).then(done)");
    browser.wait_for("window.button.isConnected && document.activeElement === window.button");
    browser.press(ENTER);
    let params = wait_for_params(&dev, "ButtonPayload", "hat:green");
    assert_eq!(param(&params, "MessageType"), Some("button"));
    assert_no_console_messages(&browser);
}

// The window is closed, so that only an approved template arrives.
#[test]
fn approved_template_opens_conversation_and_is_tapped() {
    let Some((dev, browser)) = open_page("an approved template is shown") else {
        return;
    };
    let sid = create(&dev, &buttons());
    send(&dev, ANA, &sid);
    wait_for_text(&browser, "[role=log] .out .ticks", "63016");
    submit(&dev, &sid);
    send(&dev, ANA, &sid);
    browser.wait_for("document.querySelectorAll('[role=log] .out .ticks.read').length === 1");
    browser.click("[role=log] .out:last-of-type .offers button");
    let params = wait_for_params(&dev, "ButtonPayload", "today");
    assert_eq!(param(&params, "MessageType"), Some("button"));
    assert_no_console_messages(&browser);
}

#[test]
fn flow_form_posts_its_fields() {
    let Some((dev, browser)) = open_page("the form of a Flow is filled in") else {
        return;
    };
    let flow = json!({"twilio/flows": {"body": "Book a table", "button_text": "Book", "type": "OTHER", "pages": [
        {"id": "p1", "title": "Guests", "layout": [
            {"type": "TEXT_INPUT", "label": "Name"}, {"type": "TEXT_INPUT", "label": "Guests"},
        ]},
    ]}});
    let sid = create(&dev, &flow);
    submit(&dev, &sid);
    send(&dev, ANA, &sid);
    wait_for_text(&browser, OFFERS, "Book");
    tab_to(&browser, &format!("{OFFERS} button"));
    browser.press(ENTER);
    browser.wait_for("document.activeElement.id === 'flow-0'");
    assert_eq!(
        browser.role_and_label("#flow-1"),
        ("textbox".to_owned(), "Guests".to_owned())
    );
    browser.press("Ana");
    browser.press(TAB);
    browser.press("2");
    browser.press(ENTER);
    let fields = json!({"Name": "Ana", "Guests": "2"});
    let params = wait_for_params(&dev, "MessageType", "interactive");
    let sent: Value = serde_json::from_str(param(&params, "InteractiveData").unwrap()).unwrap();
    assert_eq!(sent, fields);
    let raw: Value = serde_json::from_str(param(&params, "FlowData").unwrap()).unwrap();
    assert!(raw["response_json"].is_string(), "{raw}");
    wait_for_text(&browser, "[role=log] .in .form-answer", "Guests");
    browser.wait_for("!document.querySelector('dialog')");
    // A Flow of Meta has no fields in the template: the form takes any.
    dev.control("POST", "/reset", &json!({}));
    // Until the page has read the conversation again, it replaces the messages that it shows.
    browser.wait_for("document.querySelectorAll('[role=log] article').length === 0");
    let flow =
        json!({"whatsapp/flows": {"body": "Rate us", "button_text": "Rate", "flow_id": "123"}});
    let sid = create(&dev, &flow);
    submit(&dev, &sid);
    send(&dev, ANA, &sid);
    wait_for_text(&browser, OFFERS, "Rate");
    browser.click(&format!("{OFFERS} button"));
    browser.type_into("#flow-fields", "stars");
    browser.click("dialog .primary");
    wait_for_text(&browser, "dialog [role=alert]", "Name=value");
    browser.type_into("#flow-fields", "=5");
    browser.click("dialog .primary");
    let exchanges = dev.wait_for_exchanges(1, |exchange| exchange["kind"] == "webhook");
    let params = &exchanges.last().unwrap()["params"];
    assert_eq!(param(params, "InteractiveData"), Some(r#"{"stars":"5"}"#));
    assert_no_console_messages(&browser);
}

// Texts of a template enter the page as texts only.
#[test]
fn threat_40_hostile_content_stays_text() {
    let Some((dev, browser)) = open_page("hostile content stays text") else {
        return;
    };
    let hostile = "<img src=x onerror=window.hit=1>";
    let short = "<b onload=hit>";
    let list = json!({"twilio/list-picker": {"body": hostile, "button": short, "items": [
        {"item": short, "id": hostile, "description": hostile},
    ]}});
    ask(&dev, ANA, &list);
    wait_for_text(&browser, OFFERS, short);
    browser.click(&format!("{OFFERS} button"));
    wait_for_text(&browser, "dialog .rows", hostile);
    browser.click("dialog .rows button");
    wait_for_params(&dev, "ButtonPayload", hostile);
    assert_eq!(browser.run("return String(window.hit)"), "undefined");
    assert_eq!(
        browser.run("return document.querySelectorAll('[role=log] img, dialog img').length"),
        0
    );
    assert_no_console_messages(&browser);
}
