//! `replyhook audit`: a correct bot passes every check, and each check finds the bot that has its fault.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use replyhook::{FormParams, Secret};
use serde_json::Value;

use crate::support::{ORIGIN, OTHER_TOKEN, Server, TOKEN, replyhook, silent_port};

/// A small bot with at most one fault.
#[derive(Default)]
struct FaultyBot {
    fault: &'static str,
    origin: String,
    saved: Mutex<HashMap<String, String>>,
    opted_out: Mutex<Vec<String>>,
    number: AtomicU32,
    busy: tokio::sync::Mutex<()>,
}

impl FaultyBot {
    fn verifies(&self, uri: &Uri, headers: &HeaderMap, form: &FormParams) -> bool {
        let url = format!("{}{uri}", self.origin);
        let expected = replyhook::signature::sign(&Secret::new(TOKEN), &url, Some(form)).unwrap();
        match (self.fault, headers.get("X-Twilio-Signature")) {
            ("no verification", _)
            | ("missing signature accepted", None)
            | ("any signature accepted", Some(_)) => true,
            (_, Some(signature)) => *signature == expected.as_str(),
            (_, None) => false,
        }
    }

    async fn respond(&self, uri: &Uri, form: &FormParams) -> Result<String, StatusCode> {
        let crash = Err(StatusCode::INTERNAL_SERVER_ERROR);
        let get = |name: &str| form.get(name).unwrap_or_default();
        match uri.path() {
            "/status" if self.fault == "status 404" => return Err(StatusCode::NOT_FOUND),
            "/status" if self.fault == "status as message" => return Ok(message("thank you")),
            "/status" => return Ok(String::new()),
            "/fallback" if self.fault == "fallback fails" => return crash,
            _ => {}
        }
        let has_media = get("NumMedia") != "0";
        let fails = match self.fault {
            "emoji" => !get("Body").is_ascii(),
            "short texts only" => get("Body").len() > 1600,
            "needs a text" => get("Body").is_empty() && !has_media && get("Latitude").is_empty(),
            "no media" => has_media,
            "one file" => form.get("MediaUrl1").is_some(),
            "no voice" => get("MediaContentType0") == "audio/ogg",
            "no location" => form.get("Latitude").is_some(),
            "no contact" => get("MediaContentType0") == "text/vcard",
            "no button" => form.get("ButtonPayload").is_some(),
            "needs a number" => form.get("WaId").is_none() && get("From").starts_with("whatsapp:"),
            "known parameters only" => form.get("AuditNewParameter").is_some(),
            "no referral" => form.get("ReferralSourceId").is_some(),
            "opt-out fails" => form.get("OptOutType").is_some(),
            _ => false,
        };
        if fails {
            return crash;
        }
        if self.fault == "one at a time" {
            let Ok(_busy) = self.busy.try_lock() else {
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            };
            // Long enough for the next request to come.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.fault == "slow" && get("MediaContentType0") == "audio/ogg" {
            tokio::time::sleep(Duration::from_millis(3100)).await;
        }
        if form.get("OptOutType").is_some() && self.fault != "answers keywords" {
            return Ok(String::new());
        }
        let user = get("From").to_owned();
        if self.fault != "ignores stop" && user.starts_with("whatsapp:") {
            let mut opted_out = self.opted_out.lock().unwrap();
            match get("Body") {
                "STOP" => opted_out.push(user.clone()),
                "START" => opted_out.retain(|other| *other != user),
                _ => {}
            }
            if opted_out.contains(&user) {
                return Ok(String::new());
            }
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let reply = match self.fault {
            "long reply" => message(&"x".repeat(1601)),
            "unknown verb" => format!("{}<Play>no</Play>", message("hi")),
            "empty reply" => message(""),
            "duplicates" => return Ok(message(&format!("message {number}"))),
            _ => message(&format!("message {number}")),
        };
        let mut saved = self.saved.lock().unwrap();
        Ok(saved
            .entry(get("MessageSid").to_owned())
            .or_insert(reply)
            .clone())
    }
}

fn message(text: &str) -> String {
    format!("<Message>{text}</Message>")
}

async fn answer(
    State(bot): State<Arc<FaultyBot>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = FormParams::parse(&body, 1000).unwrap();
    if !bot.verifies(&uri, &headers, &form) {
        let status = match bot.fault {
            "500 for forgeries" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::FORBIDDEN,
        };
        return status.into_response();
    }
    match bot.respond(&uri, &form).await {
        Ok(verbs) => {
            let document = format!("<Response>{verbs}</Response>");
            ([("content-type", "text/xml")], document).into_response()
        }
        Err(status) => status.into_response(),
    }
}

/// Audits a bot with this fault. Returns the exit code, and check and result of each finding that is not ok.
async fn audit(fault: &'static str) -> (i32, Vec<(String, String)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let bot = FaultyBot {
        fault,
        origin: origin.clone(),
        ..FaultyBot::default()
    };
    let router = Router::new().fallback(answer).with_state(Arc::new(bot));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let audit = tokio::task::spawn_blocking(move || {
        let [webhook, fallback, status] =
            ["/sms", "/fallback", "/status"].map(|path| format!("{origin}{path}"));
        let args = [
            "audit",
            &webhook,
            "--fallback",
            &fallback,
            "--status-callback",
            &status,
            "--json",
        ];
        replyhook(&args, &[("TWILIO_AUTH_TOKEN", TOKEN)], "")
    });
    let (code, out, err) = audit.await.unwrap();
    server.abort();
    assert_eq!(err, "", "{fault}");
    let mut lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let score = lines.pop().unwrap();
    let counted: u64 = ["ok", "note", "warn", "fail"]
        .map(|key| score[key].as_u64().unwrap())
        .iter()
        .sum();
    assert_eq!(counted, lines.len() as u64, "{out}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems = lines.iter().filter(|line| line["result"] != "ok");
    let problems: Vec<_> = problems
        .map(|line| {
            assert!(!text(&line["remedy"]).is_empty(), "{line}");
            (text(&line["check"]), text(&line["result"]))
        })
        .collect();
    (code, problems)
}

/// Faults, and the findings of each.
const FAULTS: [(&str, &[(&str, &str)]); 26] = [
    ("none", &[]),
    (
        "no verification",
        &[
            ("unsigned", "fail"),
            ("wrong key", "fail"),
            ("altered", "fail"),
        ],
    ),
    ("missing signature accepted", &[("unsigned", "fail")]),
    (
        "any signature accepted",
        &[("wrong key", "fail"), ("altered", "fail")],
    ),
    (
        "500 for forgeries",
        &[
            ("unsigned", "warn"),
            ("wrong key", "warn"),
            ("altered", "warn"),
        ],
    ),
    ("emoji", &[("text", "fail")]),
    ("short texts only", &[("long text", "fail")]),
    ("needs a text", &[("empty text", "fail")]),
    (
        "no media",
        &[
            ("picture", "fail"),
            ("ten files", "fail"),
            ("voice message", "fail"),
            ("contact", "fail"),
        ],
    ),
    ("one file", &[("ten files", "fail")]),
    ("no voice", &[("voice message", "fail")]),
    ("no location", &[("location", "fail")]),
    ("no contact", &[("contact", "fail")]),
    ("no button", &[("button", "fail")]),
    ("needs a number", &[("user without number", "fail")]),
    ("known parameters only", &[("new parameter", "fail")]),
    ("no referral", &[("referral", "fail")]),
    ("duplicates", &[("duplicate", "warn")]),
    ("one at a time", &[("concurrent", "fail")]),
    ("status 404", &[("status callback", "fail")]),
    ("status as message", &[("status callback", "fail")]),
    ("fallback fails", &[("fallback", "fail")]),
    (
        "opt-out fails",
        &[
            ("sms stop", "fail"),
            ("sms help", "fail"),
            ("sms start", "fail"),
        ],
    ),
    (
        "answers keywords",
        &[
            ("sms stop", "fail"),
            ("sms help", "warn"),
            ("sms start", "warn"),
        ],
    ),
    ("ignores stop", &[("whatsapp stop", "warn")]),
    ("slow", &[("time", "warn")]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_finds_fault_of_each_bot() {
    for (fault, expected) in FAULTS {
        let (code, problems) = audit(fault).await;
        let expected: Vec<_> = expected
            .iter()
            .map(|(check, result)| ((*check).to_owned(), (*result).to_owned()))
            .collect();
        assert_eq!(problems, expected, "{fault}");
        assert_eq!(code, i32::from(!expected.is_empty()), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_finds_twiml_that_twilio_rejects_or_ignores() {
    for fault in ["long reply", "unknown verb", "empty reply"] {
        let twiml = ("twiml".to_owned(), "fail".to_owned());
        assert_eq!(audit(fault).await, (1, vec![twiml]), "{fault}");
    }
}

#[test]
fn audit_of_replyhook_passes() {
    let server = Server::start(&[]);
    let [webhook, fallback, status] = ["webhook", "webhook/fallback", "webhook/status"]
        .map(|path| format!("http://{}/{path}", server.public));
    // The server verifies for its public URL, which has the same path.
    let url = format!("{ORIGIN}/webhook");
    let env = [("TWILIO_AUTH_TOKEN", TOKEN)];
    let (code, out, err) = replyhook(&["audit", &webhook, "--url", &url], &env, "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("24 of 24 checks passed; 0 failed, 0 warned, 2 not checked"),
        "{out}"
    );
    // Both were not checked.
    assert!(
        out.contains("note fallback: ") && out.contains("note status callback: "),
        "{out}"
    );
    let args = [
        "audit",
        &webhook,
        "--url",
        &url,
        "--from",
        "+15550004444",
        "--fallback",
        &fallback,
    ];
    let (code, out, err) = replyhook(
        &[&args[..], &["--status-callback", &status]].concat(),
        &env,
        "",
    );
    // The public URL of these two is another one, so they are rejected.
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("FAIL fallback: ") && out.contains("FAIL status callback: "),
        "{out}"
    );
    assert!(
        out.contains("note whatsapp stop: not checked: --from is not a WhatsApp user"),
        "{out}"
    );
}

#[test]
fn audit_without_usable_webhook_stops_and_says_why() {
    let server = Server::start(&[]);
    let webhook = format!("http://{}/webhook", server.public);
    let other = [("TWILIO_AUTH_TOKEN", OTHER_TOKEN)];
    let silent = silent_port();
    let unreachable = format!("http://{}/webhook", silent.local_addr().unwrap());
    for (target, part) in [(&webhook, "HTTP 403"), (&unreachable, "no response")] {
        let (code, out, _) = replyhook(&["audit", target], &other, "");
        assert_eq!(code, 1, "{out}");
        assert!(
            out.starts_with("FAIL signed: ") && out.contains(part),
            "{out}"
        );
        assert!(out.contains("0 of 1 checks passed"), "{out}");
    }
    for (args, part) in [
        (
            &["audit", "https://bot.example.com/sms"][..],
            "set TWILIO_AUTH_TOKEN",
        ),
        (
            &["audit", "ftp://localhost/"][..],
            "not an http or https URL",
        ),
        (
            &["audit", "http://localhost/", "--fallback", "no url"][..],
            "--fallback",
        ),
    ] {
        let (code, _, err) = replyhook(args, &[], "");
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(part), "{err}");
    }
}
