//! The emulator on a machine with other users: the files that it reads, and the clients that may call it.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    ANA, Browser, Dev, HttpResponse, base64_of, installed, replyhook, report_skipped,
};

/// Environment variable of the emulator, which no media path may reveal.
const CANARY: (&str, &str) = ("REPLYHOOK_TEST_CANARY", "s3cret-of-the-environment");

/// Sends a message with the file at a path.
fn send(dev: &Dev, path: &Path) -> HttpResponse {
    let body = json!({"from": ANA, "body": "look", "media": [{"path": path}]}).to_string();
    let (host, bearer) = (dev.host(), dev.bearer().unwrap_or_default());
    let headers = [("Host", &*host), ("Authorization", &*bearer)];
    dev.exchange("POST", "/_emulator/messages", &headers, &body)
}

#[track_caller]
fn assert_rejected(dev: &Dev, path: impl AsRef<Path>) {
    let answer = send(dev, path.as_ref());
    let error: Value = serde_json::from_str(&answer.body).unwrap();
    let error = error["error"].as_str().unwrap_or_default();
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(error.contains("--media-dir"), "{error}");
}

/// Returns the content of the file in the user's last message.
fn last_media_content(dev: &Dev) -> String {
    let conversation = dev.conversation(ANA);
    let sent = conversation.iter().rfind(|one| one["direction"] == "in");
    let src = sent.unwrap()["media"][0]["src"]
        .as_str()
        .unwrap()
        .to_owned();
    dev.exchange("GET", &src, &[("Host", &dev.host())], "").body
}

#[test]
fn media_path_outside_folder_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("secret.txt"), CANARY.1).unwrap();
    symlink("../secret.txt", inside.join("out.txt")).unwrap();
    symlink("/proc/self", inside.join("self")).unwrap();
    let dev = Dev::start_in(&inside, &["--port", "0"], &[CANARY]);
    for path in [
        "/proc/self/environ",
        "self/environ",
        "../secret.txt",
        "out.txt",
        ".",
        "missing.txt",
    ] {
        assert_rejected(&dev, path);
    }
    assert_rejected(&dev, folder.path().join("secret.txt"));
    assert_eq!(dev.conversation(ANA), Vec::<Value>::new());
}

#[test]
fn media_path_in_start_folder_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("pictures")).unwrap();
    let file = folder.path().join("pictures/a.txt");
    std::fs::write(&file, "a picture").unwrap();
    symlink("a.txt", folder.path().join("pictures/b.txt")).unwrap();
    let dev = Dev::start_in(folder.path(), &["--port", "0"], &[]);
    for path in [
        Path::new("pictures/a.txt"),
        Path::new("pictures/b.txt"),
        &file,
    ] {
        let answer = send(&dev, path);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(last_media_content(&dev), "a picture");
    }
}

#[test]
fn media_dir_replaces_start_folder() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["start", "media"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("a.txt"), name).unwrap();
    }
    let start = folder.path().join("start");
    let args = ["--port", "0", "--media-dir", "../media"];
    let dev = Dev::start_in(&start, &args, &[]);
    assert_eq!(send(&dev, Path::new("a.txt")).status, 200);
    assert_eq!(last_media_content(&dev), "media");
    assert_rejected(&dev, start.join("a.txt"));
    let (code, _, err) = replyhook(&["dev", "--media-dir", "/nowhere/at/all"], &[], "");
    assert_eq!(code, 2);
    assert!(err.contains("--media-dir /nowhere/at/all"), "{err}");
}

#[test]
fn chat_sends_photo_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("cat.jpg");
    std::fs::write(&photo, "a cat").unwrap();
    let line = format!("/photo {}\n", photo.display());
    let (code, out, err) = replyhook(&["chat"], &[], &line);
    assert_eq!((code, &*out, &*err), (0, "bot: image/jpeg\n", ""));
}

fn start_protected() -> Dev {
    Dev::start_with(&["--port", "0", "--protect"], &[])
}

const CALLS: [(&str, &str); 8] = [
    ("GET", "/_emulator/config"),
    ("GET", "/_emulator/conversations"),
    ("GET", "/_emulator/exchanges"),
    ("GET", "/_emulator/nothing/here"),
    ("GET", "/_emulator/media/ME00000000000000000000000000000000"),
    ("POST", "/_emulator/messages"),
    ("POST", "/_emulator/reset"),
    ("PUT", "/_emulator/faults"),
];

#[test]
fn protected_emulator_rejects_calls_without_its_key() {
    let dev = start_protected();
    let (host, key) = (dev.host(), dev.key().unwrap());
    let port = host.rsplit_once(':').unwrap().1;
    assert_eq!(key.len(), 32);
    let wrong = "0".repeat(32);
    for given in [
        vec![],
        vec![("Authorization", format!("Bearer {wrong}"))],
        vec![("Authorization", format!("Bearer {}", &key[1..]))],
        vec![(
            "Authorization",
            format!("Basic {}", base64_of(key.as_bytes())),
        )],
        vec![("Cookie", format!("replyhook_key_{port}={wrong}"))],
        vec![("Cookie", format!("replyhook_key_1={key}"))],
    ] {
        let mut headers = vec![("Host", &*host)];
        headers.extend(given.iter().map(|(name, value)| (*name, &**value)));
        for (method, path) in CALLS
            .into_iter()
            .chain([("GET", "/_emulator/events"), ("GET", "/")])
        {
            let answer = dev.exchange(method, path, &headers, "");
            assert_eq!(answer.status, 401, "{method} {path} with {given:?}");
            assert!(!answer.body.contains(&*dev.token), "{}", answer.body);
        }
        let answer = dev.exchange("GET", &format!("/?key={wrong}"), &headers, "");
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("set-cookie"), None);
    }
    // The emulated REST API has its own credentials.
    let path = "/2010-04-01/Accounts/{account}.json";
    assert_eq!(dev.rest("GET", path, &dev.token, &[]).status, 200);
    assert_eq!(dev.rest("GET", path, "wrong", &[]).status, 401);
}

#[test]
fn printed_key_opens_page_and_calls() {
    let dev = start_protected();
    let (host, key) = (dev.host(), dev.key().unwrap());
    let page = dev.exchange("GET", &format!("/?key={key}"), &[("Host", &host)], "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("role=\"log\""), "{}", page.body);
    let cookie = page.header("set-cookie").unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = format!("other=1; {}", cookie.split(';').next().unwrap());
    let bearer = dev.bearer().unwrap();
    for header in [("Cookie", &*cookie), ("Authorization", &*bearer)] {
        let headers = [("Host", &*host), header];
        for (method, path) in [
            ("GET", "/_emulator/config"),
            ("GET", "/_emulator/conversations"),
            ("PUT", "/_emulator/faults"),
            ("GET", "/"),
        ] {
            let answer = dev.exchange(method, path, &headers, "");
            assert_eq!(answer.status, 200, "{method} {path} with {header:?}");
        }
    }
    assert_eq!(
        dev.says(&json!({"from": ANA, "body": "hi"}))["messages"][0]["body"],
        "hi"
    );
}

#[test]
fn unprotected_emulator_needs_no_key() {
    let dev = Dev::start();
    assert_eq!(dev.page, format!("{}/", dev.url));
    let page = dev.exchange("GET", "/", &[("Host", &dev.host())], "");
    assert_eq!((page.status, page.header("set-cookie")), (200, None));
}

#[test]
fn chat_attaches_to_protected_emulator_by_printed_address() {
    let dev = start_protected();
    let chat = |url: &str| replyhook(&["chat", "--emulator", url], &[], "hi\n");
    assert_eq!(chat(&dev.page), (0, "bot: hi\n".to_owned(), String::new()));
    for url in [&dev.url, &format!("{}/?key=wrong", dev.url)] {
        let (code, out, err) = chat(url);
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert!(err.contains("this emulator is protected"), "{err}");
    }
}

#[test]
fn protected_emulator_page_works_in_browser() {
    let Some(chromedriver) = installed("REPLYHOOK_TEST_CHROMEDRIVER") else {
        return report_skipped("in a browser: the page of a protected emulator");
    };
    let dev = start_protected();
    let browser = Browser::start(&chromedriver);
    browser.open(&dev.page);
    browser.wait_for("document.querySelector('#chat-address').textContent === 'whatsapp:+15550001111' && document.querySelector('#gone').hidden");
    browser.type_into("#body", "with the key");
    browser.click("#composer .send");
    browser.wait_for("[...document.querySelectorAll('[role=log] .bubble.out .text')].some((one) => one.textContent === 'with the key')");
    // The page removes the key from the address, and a reload uses the cookie.
    assert_eq!(browser.run("return location.href"), format!("{}/", dev.url));
    browser.open(&dev.url);
    browser.wait_for("document.querySelectorAll('[role=log] .bubble.out .text').length === 1");
    assert_eq!(browser.console(), Vec::<String>::new());
}
