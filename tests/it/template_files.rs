//! `templates lint` and `templates create`: templates in files, checked offline, created and submitted with the emulator.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::markdown::blocks;
use crate::support::{ACCOUNT, ANA, Dev, SANDBOX, ScriptedServer, TOKEN, json_lines, replyhook};

const PAGE: &str = "docs/src/how-to/templates.md";

/// Folder with files of templates.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `templates lint` with a file, without network and settings.
    fn lint(&self, name: &str, text: &str, args: &[&str]) -> (i32, String, String) {
        let path = self.write(name, text);
        let base = ["templates", "lint", path.to_str().unwrap()];
        replyhook(&[&base, args].concat(), &[], "")
    }

    /// Runs `templates create` with a file and the emulator.
    fn create(&self, dev: &Dev, templates: &Value, args: &[&str]) -> (i32, String, String) {
        let path = self.write("created.json", &templates.to_string());
        let base = ["templates", "create", path.to_str().unwrap()];
        templates_command(dev, &[&base, args].concat())
    }
}

fn templates_command(dev: &Dev, args: &[&str]) -> (i32, String, String) {
    let env = [
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
        ("TWILIO_AUTH_TOKEN", dev.token.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", dev.url.as_str()),
    ];
    replyhook(args, &env, "")
}

/// Runs `templates list --json`.
fn listed(dev: &Dev) -> Vec<Value> {
    let (code, out, err) = templates_command(dev, &["templates", "list", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    json_lines(&out)
}

fn set_state(dev: &Dev, faults: &Value) {
    dev.control("PUT", "/faults", faults);
}

fn order_ready() -> Value {
    json!({"friendly_name": "order_ready", "language": "en", "category": "UTILITY", "variables": {"1": "42"},
        "types": {"twilio/text": {"body": "Your order {{1}} is ready."}}})
}

/// A template of each content type that `lint` accepts.
fn one_of_each_type() -> Value {
    let link = json!({"type": "URL", "title": "Open", "url": "https://shop.example/1"});
    let quick = json!({"type": "QUICK_REPLY", "title": "Today", "id": "today"});
    let picture = "https://shop.example/a.png";
    let row = json!({"item": "Today", "id": "today", "description": "before 6 pm"});
    let card = json!({"title": "A", "body": "b", "media": picture, "actions": [link]});
    let types = json!({
        "twilio/text": {"body": "Hello"},
        "twilio/media": {"body": "Look", "media": [picture]},
        "twilio/location": {"latitude": 52.5, "longitude": 13, "label": "Office"},
        "twilio/quick-reply": {"body": "When?", "actions": [quick]},
        "twilio/call-to-action": {"body": "Look", "actions": [link]},
        "twilio/list-picker": {"body": "When?", "button": "Days", "items": [row]},
        "twilio/card": {"title": "Hello", "subtitle": "The shop", "actions": [quick]},
        "twilio/carousel": {"body": "Two", "cards": [card, card]},
        "twilio/catalog": {"body": "Look", "items": [{"id": "1", "section_title": "All"}]},
        "twilio/flows": {"body": "Book", "button_text": "Book", "type": "OTHER", "pages": []},
        "whatsapp/card": {"body": "Hello", "header_text": "Hi", "footer": "The shop", "actions": [quick, link]},
        "whatsapp/flows": {"body": "Book", "button_text": "Book", "flow_id": "1"},
        "whatsapp/authentication": {"actions": [{"type": "COPY_CODE", "copy_code_text": "Copy"}]},
    });
    let templates = types.as_object().unwrap().iter().map(|(name, content)| {
        let friendly_name = name.replace(['/', '-'], "_");
        json!({"friendly_name": friendly_name, "language": "en", "types": {name: content}})
    });
    templates.collect()
}

#[test]
fn right_files_have_no_findings() {
    let files = Files::new();
    let two = json!([order_ready(), {"friendly_name": "hello", "language": "pt_BR", "types": {"twilio/text": {"body": "Olá"}}}]);
    let toml = "[[templates]]\nfriendly_name = \"hello\"\nlanguage = \"en\"\nvariables = { 1 = \"Ana\" }\n\
        [templates.types.\"twilio/text\"]\nbody = \"Hello {{1}}, welcome to us.\"\n";
    for (name, text, count) in [
        ("one.json", order_ready().to_string(), "1 template"),
        ("two.json", two.to_string(), "2 templates"),
        (
            "listed.json",
            json!({"templates": two}).to_string(),
            "2 templates",
        ),
        (
            "bom.json",
            format!("\u{FEFF}{}", order_ready()),
            "1 template",
        ),
        ("several.toml", toml.to_owned(), "1 template"),
        ("types.json", one_of_each_type().to_string(), "13 templates"),
    ] {
        let (code, out, err) = files.lint(name, &text, &[]);
        let path = files.0.path().join(name);
        let expected = format!("{}: {count}, no findings\n", path.display());
        assert_eq!((code, out, err.as_str()), (0, expected, ""), "{name}");
    }
}

#[test]
fn findings_have_place_reason_and_remedy() {
    let files = Files::new();
    let wrong = json!([
        {"friendly_name": "Order Ready", "language": "en-us", "variables": {}, "types": {
            "twilio/quick-reply": {"body": "{{1}} {{2}}, your order is here for you", "actions": [{"title": "Cancel", "id": "c"}]},
        }},
        {"language": "en", "types": {"twilio/text": {"body": "Hello"}}},
    ]);
    let (code, out, err) = files.lint("wrong.json", &wrong.to_string(), &[]);
    assert_eq!((code, err.as_str()), (1, ""));
    for expected in [
        "Order Ready (en-us): friendly_name: WhatsApp does not take this name\n  use lower case",
        "language: WhatsApp does not know this language code\n  use `en_US`\n",
        "types.twilio/quick-reply.body: it starts with the variable {{1}}",
        "types.twilio/quick-reply.body: the variables {{1}} and {{2}} are next to each other",
        "types.twilio/quick-reply.body: the variable {{2}} has no sample\n  add \"2\" to `variables`\n",
        "types.twilio/quick-reply.actions[0].title: on SMS, CANCEL is an opt-out keyword",
        "template 2: friendly_name: it is missing\n  add it\n",
        ": 2 templates, 8 findings\n",
    ] {
        assert!(out.contains(expected), "{expected}\n\n{out}");
    }
    let (code, out, _) = files.lint("wrong.json", &wrong.to_string(), &["--json"]);
    let lines = json_lines(&out);
    assert_eq!((code, lines.len()), (1, 8));
    assert_eq!(lines[0]["template"], "Order Ready");
    assert_eq!(lines[0]["path"], "friendly_name");
    assert!(
        lines
            .iter()
            .all(|line| !line["remedy"].as_str().unwrap().is_empty())
    );
    // A submission needs a category, and an ordinary check does not.
    let plain = json!({"friendly_name": "hello", "language": "en", "types": {"twilio/text": {"body": "Hello"}}});
    assert_eq!(files.lint("plain.json", &plain.to_string(), &[]).0, 0);
    let (code, out, _) = files.lint("plain.json", &plain.to_string(), &["--submit"]);
    assert!(
        code == 1 && out.contains("category: it is missing"),
        "{out}"
    );
    let twice = json!([order_ready(), order_ready()]);
    let (code, out, _) = files.lint("twice.json", &twice.to_string(), &[]);
    assert!(
        code == 1 && out.contains("another template of the file"),
        "{out}"
    );
}

// A list has no form on SMS, and on RCS no list.
#[test]
fn channels_without_a_type_are_findings() {
    let files = Files::new();
    let row = json!({"item": "Today", "id": "today"});
    let list = json!({"twilio/list-picker": {"body": "When?", "button": "Days", "items": [row]}});
    let mut template = json!({"friendly_name": "day", "language": "en", "types": list});
    let all = ["--channels", "whatsapp,sms,rcs,messenger"];
    let text = template.to_string();
    assert_eq!(files.lint("day.json", &text, &[]).0, 0);
    assert_eq!(
        files.lint("day.json", &text, &["--channels", "whatsapp"]).0,
        0
    );
    let (code, out, err) = files.lint("day.json", &text, &all);
    assert_eq!((code, err.as_str()), (1, ""));
    for channel in ["sms", "rcs", "messenger"] {
        let expected = format!("types: no content type can be shown on {channel}");
        assert!(out.contains(&expected), "{out}");
    }
    assert!(
        out.contains("3 findings") && out.contains("add twilio/text"),
        "{out}"
    );
    template["types"]["twilio/text"] = json!({"body": "When? Reply with the day."});
    let (code, out, _) = files.lint("day.json", &template.to_string(), &all);
    assert_eq!(code, 0, "{out}");
    let (code, _, err) = files.lint("day.json", &text, &["--channels", "fax"]);
    assert!(
        code == 2 && err.contains("whatsapp, sms, rcs or messenger"),
        "{err}"
    );
}

#[test]
fn unreadable_file_exits_with_2_and_quotes_no_text() {
    let files = Files::new();
    for (name, text, part) in [
        ("a.json", "{\"friendly_name\": \"secret\",", "invalid JSON"),
        ("a.toml", "friendly_name = secret\n", "invalid TOML"),
        ("b.toml", "a = 1\nb = = \"secret\"\n", "at line 2"),
        ("b.json", "[]", "no template"),
        ("c.json", "\"secret\"", "expected a template"),
        ("d.json", "{\"templates\": \"secret\"}", "not a list"),
        ("e.json", "[7]", "expected a template"),
    ] {
        let (code, out, err) = files.lint(name, text, &[]);
        assert_eq!((code, out.as_str()), (2, ""), "{name}: {err}");
        assert!(err.contains(part) && err.contains(name), "{name}: {err}");
        assert!(!err.contains("secret"), "{err}");
    }
    let (code, _, err) = replyhook(&["templates", "lint", "/nowhere/a.json"], &[], "");
    assert!(
        code == 2 && err.contains("cannot read /nowhere/a.json"),
        "{err}"
    );
}

#[test]
fn second_run_changes_nothing_and_other_content_is_refused() {
    let (dev, files) = (Dev::start(), Files::new());
    let (code, out, err) = files.create(&dev, &order_ready(), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let made = listed(&dev);
    assert_eq!(made.len(), 1);
    let sid = made[0]["content_sid"].as_str().unwrap();
    assert_eq!(out, format!("{sid} made   order_ready en unsubmitted\n"));
    let (code, out, _) = files.create(&dev, &order_ready(), &[]);
    assert_eq!(
        (code, out),
        (0, format!("{sid} exists order_ready en unsubmitted\n"))
    );
    // Of two templates one is new; because of the other, it is not created.
    let mut changed = order_ready();
    changed["types"]["twilio/text"]["body"] = json!("Your order {{1}} is here now.");
    let new = json!({"friendly_name": "hello", "language": "en", "types": {"twilio/text": {"body": "Hello"}}});
    let (code, out, err) = files.create(&dev, &json!([new, changed]), &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    let expected = format!("order_ready (en) exists at Twilio as {sid} with another content");
    assert!(
        err.contains(&expected) && err.contains("nothing was created"),
        "{err}"
    );
    assert_eq!(listed(&dev).len(), 1);
    // Other samples are another content too, and another language is another template.
    let mut sample = order_ready();
    sample["variables"]["1"] = json!("43");
    assert_eq!(files.create(&dev, &sample, &[]).0, 1);
    let mut german = order_ready();
    german["language"] = json!("de");
    let (code, out, _) = files.create(&dev, &json!([order_ready(), german]), &[]);
    assert_eq!((code, out.lines().count()), (0, 2));
    assert!(
        out.contains(" exists order_ready en ") && out.contains(" made   order_ready de "),
        "{out}"
    );
}

/// Serves a list with one template on each of `pages` pages, the last of which is `last`.
fn start_long_list(server: &ScriptedServer, pages: usize, last: &Value) {
    for page in 1..=pages {
        let other = json!({"sid": format!("HX{page:032x}"), "friendly_name": format!("other_{page}"), "language": "en",
            "variables": {}, "types": {}, "approval_requests": {}});
        let next = format!("{}/v1/ContentAndApprovals?Page={page}", server.url());
        let next = (page < pages).then_some(next);
        let content = if page == pages { last } else { &other };
        let body = json!({"contents": [content], "meta": {"next_page_url": next}}).to_string();
        server.queue_response("/v1/ContentAndApprovals", 200, "application/json", &body);
    }
}

// Twilio's pages have 100 templates each, so this one is behind the first 5,000.
#[test]
fn template_on_a_late_page_is_found_and_not_created_again() {
    let (runtime, files) = (tokio::runtime::Runtime::new().unwrap(), Files::new());
    let server = runtime.block_on(ScriptedServer::start());
    let mut stored = order_ready();
    stored["sid"] = json!("HX000000000000000000000000000000ff");
    stored["approval_requests"] = json!({"status": "approved", "category": "UTILITY"});
    start_long_list(&server, 52, &stored);
    let path = files.write("created.json", &order_ready().to_string());
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("REPLYHOOK__TWILIO__CONTENT_URL", server.url()),
    ];
    let create = ["templates", "create", path.to_str().unwrap(), "--submit"];
    let (code, out, err) = replyhook(&create, &env, "");
    assert_eq!((code, err.as_str()), (0, ""));
    let sid = stored["sid"].as_str().unwrap();
    assert_eq!(out, format!("{sid} exists order_ready en approved\n"));
    assert_eq!(server.requests().len(), 52);
}

#[test]
fn every_content_type_is_created_and_found_again() {
    let (dev, files) = (Dev::start(), Files::new());
    for (state, number) in [(" made ", 13), (" exists ", 13)] {
        let (code, out, err) = files.create(&dev, &one_of_each_type(), &[]);
        assert_eq!((code, err.as_str()), (0, ""));
        let found = out.lines().filter(|line| line.contains(state)).count();
        assert_eq!(found, number, "{out}");
    }
}

#[test]
fn submission_is_shown_with_reason_and_sends_follow_it() {
    let (dev, files) = (Dev::start(), Files::new());
    set_state(&dev, &json!({"template_state": "pending"}));
    let (code, out, err) = files.create(&dev, &order_ready(), &["--submit"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.ends_with(" made   order_ready en pending\n"), "{out}");
    let sid = listed(&dev)[0]["content_sid"].as_str().unwrap().to_owned();
    let database = format!("sqlite:{}", files.0.path().join("bot.db").display());
    let env = [
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
        ("TWILIO_AUTH_TOKEN", dev.token.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", dev.url.as_str()),
        ("REPLYHOOK__CONSENT__REQUIRED", "false"),
        ("DATABASE_URL", database.as_str()),
    ];
    assert_eq!(replyhook(&["migrate"], &env, "").0, 0);
    let send = [
        "send",
        "--to",
        ANA,
        "--from",
        SANDBOX,
        "--template",
        &sid,
        "--var",
        "1=42",
        "--dry-run",
    ];
    for (state, shown, code) in [
        ("pending", "pending", 0),
        ("rejected", "rejected (INVALID_FORMAT)", 1),
        ("paused", "paused", 1),
    ] {
        set_state(&dev, &json!({"template_state": state}));
        let (_, out, _) = templates_command(&dev, &["templates"]);
        assert_eq!(out, format!("{sid} order_ready en {shown} 1=\"42\"\n"));
        let (refused, _, err) = replyhook(&send, &env, "");
        assert_eq!(refused, 1, "{state}: {err}");
        assert!(err.contains(&format!("it is {shown}")), "{err}");
        // A submitted template is not submitted again.
        let again = files.create(&dev, &order_ready(), &["--submit"]);
        assert_eq!(again.0, code, "{again:?}");
        assert_eq!(again.1, format!("{sid} exists order_ready en {shown}\n"));
    }
    set_state(&dev, &json!({}));
    let again = files.create(&dev, &order_ready(), &["--submit"]);
    assert_eq!(
        (again.0, again.1),
        (0, format!("{sid} exists order_ready en approved\n"))
    );
    let (code, _, err) = replyhook(&send, &env, "");
    assert_eq!(code, 0, "{err}");
}

#[test]
fn existing_template_is_submitted_later_by_its_whatsapp_name() {
    let (dev, files) = (Dev::start(), Files::new());
    let mut template = order_ready();
    template["friendly_name"] = json!("Order ready!");
    template["name"] = json!("order_ready_2");
    template["category"] = json!("MARKETING");
    assert_eq!(files.create(&dev, &template, &[]).0, 0);
    assert_eq!(listed(&dev)[0]["status"], "unsubmitted");
    let (code, out, err) = files.create(&dev, &template, &["--submit"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(" exists Order ready! en pending"), "{out}");
    let template = &listed(&dev)[0];
    assert_eq!(
        (&template["status"], &template["category"]),
        (&json!("approved"), &json!("MARKETING"))
    );
    let path = format!(
        "/v1/Content/{}/ApprovalRequests",
        template["content_sid"].as_str().unwrap()
    );
    let answer = dev.call("GET", &path, &dev.token, "application/json", "");
    let approval: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(approval["whatsapp"]["name"], "order_ready_2");
}

#[test]
fn findings_prevent_creation_unless_forced() {
    let (dev, files) = (Dev::start(), Files::new());
    let mut wrong = order_ready();
    wrong["types"]["twilio/text"]["body"] = json!("Your order is {{1}}");
    let (code, out, err) = files.create(&dev, &wrong, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("ends with the variable {{1}}") && err.contains("use --force"),
        "{err}"
    );
    assert_eq!(listed(&dev).len(), 0);
    let (code, out, err) = files.create(&dev, &wrong, &["--force"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains(" made ") && err.contains("ends with"),
        "{out}{err}"
    );
    // Without a name, a second run could not find the template.
    let nameless = json!({"language": "en", "types": {"twilio/text": {"body": "Hello"}}});
    let (code, _, err) = files.create(&dev, &nameless, &["--force"]);
    assert!(
        code == 2 && err.contains("friendly_name: it is missing"),
        "{err}"
    );
    let mut uncategorized = order_ready();
    uncategorized["category"] = Value::Null;
    let (code, _, err) = files.create(&dev, &uncategorized, &["--force", "--submit"]);
    assert!(code == 2 && err.contains("`category`"), "{err}");
    assert_eq!(listed(&dev).len(), 1);
}

#[test]
fn failed_call_is_reported_and_the_next_run_continues() {
    let (dev, files) = (Dev::start(), Files::new());
    set_state(&dev, &json!({"content_error": {"status": 503, "times": 1}}));
    let (code, out, err) = files.create(&dev, &order_ready(), &["--submit"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("503"), "{err}");
    let (code, out, _) = files.create(&dev, &order_ready(), &["--submit"]);
    assert!(code == 0 && out.contains(" made "), "{out}");
    let (code, _, err) = replyhook(
        &[
            "templates",
            "create",
            files.0.path().join("created.json").to_str().unwrap(),
        ],
        &[],
        "",
    );
    assert_eq!(code, 2, "{err}");
}

#[test]
fn file_of_the_manual_is_linted_and_created() {
    let (dev, files) = (Dev::start(), Files::new());
    let found = blocks(PAGE).into_iter();
    let block = found
        .into_iter()
        .find(|block| block.text.starts_with("# templates.toml"));
    let path = files.write("templates.toml", &block.unwrap().text);
    let path = path.to_str().unwrap();
    let (code, out, _) = replyhook(&["templates", "lint", path, "--submit"], &[], "");
    assert_eq!(code, 0, "{out}");
    let (code, out, err) = templates_command(&dev, &["templates", "create", path, "--submit"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(" made   order_ready en pending"), "{out}");
    let template = &listed(&dev)[0];
    assert_eq!(template["status"], "approved");
    assert_eq!(
        template["types"],
        json!(["twilio/quick-reply", "twilio/text"])
    );
}
