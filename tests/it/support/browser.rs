use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::Wait;
use super::{Program, base64_decoded, wire};

/// Limit for everything that a page does by itself.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Real Chromium, controlled via `WebDriver` (w3.org/TR/webdriver2). It is closed on drop.
pub struct Browser {
    _driver: Program,
    address: SocketAddr,
    session: String,
    /// Temporary profile, separate from that of the user's browser.
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser in which `evil.example` resolves to this machine, as an attacker's DNS server could do.
    pub fn start(chromedriver: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = start_driver(chromedriver, profile.path());
        let user_data = profile.path().join("profile");
        let user_data = format!("--user-data-dir={}", user_data.display());
        let mut browser = Self {
            _driver: driver,
            address: ([127, 0, 0, 1], port).into(),
            session: String::new(),
            _profile: profile,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,943",
            "--lang=en-US",
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
            &user_data,
        ];
        let started = browser.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": PAGE_TIMEOUT.as_millis(), "pageLoad": PAGE_TIMEOUT.as_millis()},
                "unhandledPromptBehavior": "ignore",
            }}}),
        );
        browser.session = format!("/session/{}", started["sessionId"].as_str().unwrap());
        browser
    }

    /// URL of a page of the driver, whose origin differs from that of all other pages.
    pub fn foreign_page(&self) -> String {
        format!("http://{}/status", self.address)
    }

    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// Runs a script's statements, and returns what they return.
    pub fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.command("POST", "/execute/sync", &body)
    }

    /// Runs a script that calls `done` with its result, and returns that.
    pub fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1];\n{script}");
        let body = json!({"script": script, "args": []});
        self.command("POST", "/execute/async", &body)
    }

    /// Waits in the page until an expression has a value, and returns that.
    pub fn wait_for(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             const look = () => {{
               const found = {expression};
               if (found) done(found); else setTimeout(look, 20);
             }};
             look();"
        );
        let target = format!("{}/execute/async", self.session);
        let body = json!({"script": script, "args": []});
        match self.try_call("POST", &target, &body) {
            Ok(found) => found,
            Err(problem) => {
                let text = self.run("return document.body.innerText");
                panic!(
                    "{expression}: {problem}\n{}",
                    text.as_str().unwrap_or_default()
                )
            }
        }
    }

    /// Clicks the element of a selector, as a user would, and waits until the page shows the effect.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
        self.wait_for_frame();
    }

    /// Waits until the page has drawn what its scripts have changed so far.
    ///
    /// The page draws parts of a change in the next frame, so a script could read old and new content together.
    pub fn wait_for_frame(&self) {
        self.run_async("requestAnimationFrame(() => done())");
    }

    /// Types into the element of a selector. A file picker takes the paths of files.
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        let path = format!("/element/{element}/value");
        self.command("POST", &path, &json!({"text": text}));
    }

    /// Presses keys one after the other, on the element that has the focus.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.command("POST", "/actions", &json!({"actions": [keyboard]}));
    }

    /// Returns role and name of an element, as a screen reader gets them.
    pub fn role_and_label(&self, selector: &str) -> (String, String) {
        let element = self.element(selector);
        let text = |name: &str| {
            let found = self.command("GET", &format!("/element/{element}/{name}"), &Value::Null);
            found.as_str().unwrap_or_default().to_owned()
        };
        (text("computedrole"), text("computedlabel"))
    }

    fn element(&self, selector: &str) -> String {
        let query = json!({"using": "css selector", "value": selector});
        let found = self.command("POST", "/element", &query);
        let (_, id) = found.as_object().unwrap().iter().next().unwrap();
        id.as_str().unwrap().to_owned()
    }

    /// Screenshot of the page as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let screenshot = self.command("GET", "/screenshot", &Value::Null);
        base64_decoded(screenshot.as_str().unwrap())
    }

    /// Screenshot of the element of a selector as PNG.
    #[cfg(feature = "testing")]
    pub fn screenshot_of(&self, selector: &str) -> Vec<u8> {
        let element = self.element(selector);
        let path = format!("/element/{element}/screenshot");
        let screenshot = self.command("GET", &path, &Value::Null);
        base64_decoded(screenshot.as_str().unwrap())
    }

    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height});
        self.command("POST", "/window/rect", &size);
    }

    /// Returns true if a dialog of the page is open.
    pub fn has_alert(&self) -> bool {
        let target = format!("{}/alert/text", self.session);
        self.try_call("GET", &target, &Value::Null).is_ok()
    }

    /// Returns the lines of the console since the last call.
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let lines = entries.as_array().unwrap().iter();
        lines
            .map(|entry| format!("{}: {}", entry["level"], entry["message"]))
            .collect()
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("{}{path}", self.session), body)
    }

    fn call(&self, method: &str, target: &str, body: &Value) -> Value {
        self.try_call(method, target, body)
            .unwrap_or_else(|problem| panic!("{method} {target}: {problem}"))
    }

    fn try_call(&self, method: &str, target: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        // A browser on a busy machine takes a while to start.
        let connected = TcpStream::connect_timeout(&self.address, PAGE_TIMEOUT);
        let mut stream = connected.map_err(|error| error.to_string())?;
        let configured = stream.set_read_timeout(Some(2 * PAGE_TIMEOUT));
        let sent = configured.and_then(|()| stream.write_all(request.as_bytes()));
        sent.map_err(|error| error.to_string())?;
        let answer = wire::read_response(&mut stream).ok_or("no answer from the driver")?;
        let mut document: Value =
            serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        let value = document["value"].take();
        if answer.status == 200 {
            Ok(value)
        } else {
            Err(format!("{}: {}", value["error"], value["message"]))
        }
    }
}

/// Starts the driver, and returns it with its port.
// The driver takes a free port on IPv6, and then the same one on IPv4, where another program may have it. It then ends.
fn start_driver(chromedriver: &str, folder: &Path) -> (Program, u16) {
    let wait = Wait::until("the driver has a port on IPv4 and IPv6");
    loop {
        let driver = Program::start(
            Command::new(chromedriver)
                .arg("--port=0")
                // Its temporary files are deleted with the profile.
                .env("TMPDIR", folder)
                // The page shows local times.
                .env("TZ", "UTC"),
        );
        let port = driver.wait_for("port of the driver", |line| {
            if line.contains("port not available") {
                return Some(None);
            }
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok().map(Some)
        });
        if let Some(port) = port {
            return (driver, port);
        }
        wait.check();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium with all its processes, before the driver is killed.
        let _ = self.try_call("DELETE", &self.session, &Value::Null);
    }
}
