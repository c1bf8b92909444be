use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HttpResponse, Program, base64_of, wire};

/// Limit for conditions that must become true.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

pub const ANA: &str = "whatsapp:+15550001111";
pub const BEN: &str = "+15550004444";
pub const SANDBOX: &str = "whatsapp:+14155238886";
pub const NUMBER: &str = "+15005550006";

/// Running `replyhook dev`, on free ports. It is killed on drop.
pub struct Dev {
    pub program: Program,
    /// URL of the emulator: `http://127.0.0.1:…`.
    pub url: String,
    /// Printed address of the page, with the key if the run is protected.
    pub page: String,
    pub account: String,
    pub token: String,
    address: SocketAddr,
}

impl Dev {
    pub fn start() -> Self {
        Self::start_with(&["--port", "0"], &[])
    }

    pub fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_in(&std::env::temp_dir(), args, env)
    }

    pub fn start_in(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let program = Program::start(
            Command::new(env!("CARGO_BIN_EXE_replyhook"))
                .args(["dev", "--emulator-port", "0"])
                .args(args)
                .env_clear()
                .env("XDG_STATE_HOME", folder.join("state"))
                .envs(env.iter().copied())
                .current_dir(folder),
        );
        Self::from_program(program)
    }

    /// Waits until a started program has printed its welcome.
    pub fn from_program(program: Program) -> Self {
        let page: String = program.wait_for("address of the page", |line| {
            let url = line.trim().strip_prefix("Chat with your bot:")?;
            Some(url.trim().to_owned())
        });
        let url = page
            .split("/?")
            .next()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        program.wait_for("end of the welcome", |line| {
            line.contains("Ctrl-C ends it").then_some(())
        });
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let mut dev = Self {
            program,
            url,
            page,
            account: String::new(),
            token: String::new(),
            address,
        };
        let config = dev.control("GET", "/config", &Value::Null);
        config["account_sid"]
            .as_str()
            .unwrap()
            .clone_into(&mut dev.account);
        config["auth_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut dev.token);
        dev
    }

    /// Sends a request with these headers, `Connection` and `Content-Length`.
    pub fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> HttpResponse {
        let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let mut stream = wire::connect(self.address);
        // The emulator may wait for two calls of the bot, each as long as Twilio does.
        stream
            .set_read_timeout(Some(Duration::from_secs(40)))
            .unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        wire::read_response(&mut stream).expect("the emulator closed without an answer")
    }

    /// Key of a protected run.
    pub fn key(&self) -> Option<&str> {
        Some(self.page.split_once("?key=")?.1)
    }

    pub fn bearer(&self) -> Option<String> {
        self.key().map(|key| format!("Bearer {key}"))
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Calls the control interface, which must return 200.
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let target = format!("/_emulator{path}");
        let (host, bearer) = (self.host(), self.bearer());
        let mut headers = vec![("Host", &*host)];
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let answer = self.exchange(method, &target, &headers, &body);
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Sends a user's message, and returns the result.
    pub fn says(&self, message: &Value) -> Value {
        self.control("POST", "/messages", message)
    }

    pub fn conversation(&self, user: &str) -> Vec<Value> {
        let path = format!("/conversations/{user}");
        let messages = self.control("GET", &path, &Value::Null);
        messages.as_array().unwrap().clone()
    }

    pub fn debugger(&self) -> Vec<Value> {
        let entries = self.control("GET", "/debugger", &Value::Null);
        entries.as_array().unwrap().clone()
    }

    pub fn exchanges(&self) -> Vec<Value> {
        let exchanges = self.control("GET", "/exchanges", &Value::Null);
        exchanges.as_array().unwrap().clone()
    }

    /// Waits for at least `count` exchanges that match.
    pub fn wait_for_exchanges(
        &self,
        count: usize,
        is_match: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let mut exchanges = self.exchanges();
            exchanges.retain(&is_match);
            if exchanges.len() >= count {
                return exchanges;
            }
            assert!(
                Instant::now() < deadline,
                "fewer than {count} exchanges: {exchanges:#?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Calls Twilio's REST API with an auth token.
    pub fn rest(
        &self,
        method: &str,
        path: &str,
        token: &str,
        form: &[(&str, &str)],
    ) -> HttpResponse {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let content_type = "application/x-www-form-urlencoded";
        self.call(method, path, token, content_type, &body)
    }

    pub fn call(
        &self,
        method: &str,
        path: &str,
        token: &str,
        content_type: &str,
        body: &str,
    ) -> HttpResponse {
        let login = base64_of(format!("{}:{token}", self.account).as_bytes());
        let headers = [
            ("Host", self.host()),
            ("Authorization", format!("Basic {login}")),
            ("Content-Type", content_type.to_owned()),
        ];
        let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
        let path = path.replace("{account}", &self.account);
        self.exchange(method, &path, &headers, body)
    }

    /// Sends a template with quick replies to a user, and returns the SID of the message.
    pub fn send_quick_replies(&self, user: &str, text: &str, buttons: &[(&str, &str)]) -> String {
        let actions: Vec<Value> = buttons
            .iter()
            .map(|(title, id)| json!({"type": "QUICK_REPLY", "title": title, "id": id}))
            .collect();
        let template = json!({
            "friendly_name": "offer", "language": "en",
            "types": {"twilio/quick-reply": {"body": text, "actions": actions}},
        });
        let created = self.call(
            "POST",
            "/v1/Content",
            &self.token,
            "application/json",
            &template.to_string(),
        );
        assert_eq!(created.status, 201, "{}", created.body);
        let created: Value = serde_json::from_str(&created.body).unwrap();
        // Approved, so that it may open the conversation.
        let approval = json!({"name": "offer", "category": "UTILITY"}).to_string();
        let path = format!(
            "/v1/Content/{}/ApprovalRequests/whatsapp",
            created["sid"].as_str().unwrap()
        );
        let submitted = self.call("POST", &path, &self.token, "application/json", &approval);
        assert_eq!(submitted.status, 201, "{}", submitted.body);
        let form = [
            ("From", SANDBOX),
            ("To", user),
            ("ContentSid", created["sid"].as_str().unwrap()),
        ];
        let path = "/2010-04-01/Accounts/{account}/Messages.json";
        let sent = self.rest("POST", path, &self.token, &form);
        assert_eq!(sent.status, 201, "{}", sent.body);
        let sent: Value = serde_json::from_str(&sent.body).unwrap();
        sent["sid"].as_str().unwrap().to_owned()
    }
}
