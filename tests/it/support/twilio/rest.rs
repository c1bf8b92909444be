//! REST API `/2010-04-01/Accounts/{AccountSid}/Messages`: create, fetch, list. One request per connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use base64::Engine;
use replyhook::FormParams;
use serde_json::{Value, json};

use super::phone::{Message, is_too_long};
use super::{Connection, ContentFault, Fault, Inner, Post, PostOutcome, State};
use crate::support::TOKEN;

/// Page size of a list without `PageSize`.
const PAGE_SIZE: usize = 50;

struct Request {
    method: String,
    path: String,
    query: FormParams,
    /// User and password.
    login: Option<(String, String)>,
    body: Vec<u8>,
}

pub(super) fn serve(mut connection: Connection) {
    let Some(request) = read(&connection.stream) else {
        return;
    };
    if let Some(answer) = answer(&connection.inner, &request) {
        // The client may have closed the connection.
        let _ = connection.stream.write_all(answer.as_bytes());
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let header = |name: &str| {
        let mut headers = lines.iter().filter_map(|line| line.split_once(':'));
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let login = header("authorization").and_then(|value| {
        let encoded = value.strip_prefix("Basic ")?;
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .ok()?;
        let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    });
    let mut words = lines.first()?.split(' ');
    let method = words.next()?.to_owned();
    let (path, query) = words.next().map(|target| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (path.to_owned(), query.to_owned())
    })?;
    Some(Request {
        method,
        path,
        query: FormParams::parse(query.as_bytes(), usize::MAX).ok()?,
        login,
        body,
    })
}

/// Returns the response. `None` closes the connection without one.
fn answer(inner: &Inner, request: &Request) -> Option<String> {
    if ["/v1/Content", "/v1/ContentAndApprovals"].contains(&request.path.as_str()) {
        return content(inner, request);
    }
    if let Some(path) = request.path.strip_prefix("/v1/Content/") {
        return Some(inner.lock().content_details(path));
    }
    let path = request.path.strip_prefix("/2010-04-01/Accounts/");
    let Some((account, resource)) = path.and_then(|path| path.split_once('/')) else {
        return Some(error(404, Some(20404), None));
    };
    let is_known = inner.lock().is_authorized(account, request.login.as_ref());
    match (request.method.as_str(), resource) {
        ("POST", "Messages.json") => post(inner, account, request, is_known),
        _ if !is_known => Some(error(401, Some(20003), None)),
        ("GET", "Messages.json") => Some(list(&mut inner.lock(), account, &request.query)),
        ("GET", resource) => Some(fetch(&inner.lock(), account, resource)),
        _ => Some(error(404, Some(20404), None)),
    }
}

fn content(inner: &Inner, request: &Request) -> Option<String> {
    let (user, _) = request.login.clone()?;
    let mut state = inner.lock();
    if !state.is_authorized(&user, request.login.as_ref()) {
        return Some(error(401, Some(20003), None));
    }
    let fault = state.content.faults.pop_front();
    inner.changed.notify_all();
    match fault {
        Some(ContentFault::Status(status)) => {
            Some(error(status, Some(20_000 + u32::from(status)), None))
        }
        Some(ContentFault::Hang) => {
            drop(state);
            drop(inner.wait_while(|state| !state.stopped));
            None
        }
        None => Some(state.content_call(&user, &request.method, &request.body)),
    }
}

fn post(inner: &Inner, account: &str, request: &Request, is_known: bool) -> Option<String> {
    let form = FormParams::parse(&request.body, usize::MAX).ok()?;
    let rejected = if is_known {
        let has_content = inner.lock().has_content(&form);
        let rejected = rejection(&form).or((!has_content).then_some(21655));
        rejected.map(|code| (400, code))
    } else {
        Some((401, 20003))
    };
    let mut state = inner.lock();
    let number = state.posts.len();
    let user = request.login.as_ref().map(|(user, _)| user.clone());
    state.posts.push(Post {
        form: form.clone(),
        user: user.unwrap_or_default(),
        outcome: rejected.map_or(PostOutcome::Waiting, |(status, _)| {
            PostOutcome::Status(status)
        }),
    });
    drop(state);
    inner.changed.notify_all();
    if let Some((status, code)) = rejected {
        return Some(error(status, Some(code), None));
    }
    // In the order of arrival, so that the phone does not depend on the order of threads.
    let mut state = inner.wait_while(|state| {
        let waits = |post: &Post| post.outcome == PostOutcome::Waiting;
        !state.stopped && (state.held || state.posts[..number].iter().any(waits))
    });
    if state.stopped {
        return None;
    }
    let fault = state.faults.pop_front();
    state.posts[number].outcome = fault.map_or(PostOutcome::Status(201), PostOutcome::Fault);
    let answer = match fault {
        None => {
            let message = state.accept_message(account, &form);
            Some(http(201, None, &message.json(true).to_string()))
        }
        Some(Fault::Status {
            status,
            code,
            retry_after,
        }) => Some(error(status, code, retry_after)),
        Some(Fault::Denied(text)) => {
            let body = json!({"code": 70051, "message": text, "status": 403});
            Some(http(403, None, &body.to_string()))
        }
        Some(Fault::ResetBefore | Fault::Hang) => None,
        Some(Fault::AcceptedThenReset) => {
            state.accept_message(account, &form);
            None
        }
        Some(Fault::AcceptedThenGarbage) => {
            state.accept_message(account, &form);
            Some(http(201, None, r#"{"sid":"#))
        }
        Some(Fault::AcceptedThenStatus(status)) => {
            state.accept_message(account, &form);
            Some(error(status, Some(20_000 + u32::from(status)), None))
        }
    };
    drop(state);
    inner.changed.notify_all();
    if fault == Some(Fault::Hang) {
        drop(inner.wait_while(|state| !state.stopped));
    }
    answer
}

/// Twilio's error code if it rejects a message.
fn rejection(form: &FormParams) -> Option<u32> {
    let channel = |address: &str| {
        address
            .split_once(':')
            .map(|(channel, _)| channel.to_owned())
    };
    let Some(to) = form.get("To") else {
        return Some(21604);
    };
    let from = form.get("From");
    if from.is_none() && form.get("MessagingServiceSid").is_none() {
        return Some(21603);
    }
    if from.is_some_and(|from| channel(from) != channel(to)) {
        return Some(21910);
    }
    let has_content = ["Body", "MediaUrl", "ContentSid"]
        .iter()
        .any(|name| form.get(name).is_some_and(|value| !value.is_empty()));
    if !has_content {
        return Some(21619);
    }
    is_too_long(form.get("Body").unwrap_or_default()).then_some(21617)
}

fn fetch(state: &State, account: &str, resource: &str) -> String {
    let sid = resource
        .strip_prefix("Messages/")
        .and_then(|name| name.strip_suffix(".json"));
    let mut messages = state.messages.iter();
    match messages.find(|message| message.account == account && Some(message.sid.as_str()) == sid) {
        Some(message) => http(200, None, &message.json(false).to_string()),
        None => error(404, Some(20404), None),
    }
}

/// Returns the requested page of a list, by default the first.
fn list(state: &mut State, account: &str, query: &FormParams) -> String {
    state.lists.push(query.clone());
    if let Some(status) = state.list_faults.pop_front() {
        return error(status, Some(20_000 + u32::from(status)), None);
    }
    let asked = |name, value: &str| query.get(name).is_none_or(|asked| asked == value);
    let found = |message: &&Message| {
        message.account == account
            && asked("To", &message.to)
            && asked("From", &message.from)
            && query
                .get("DateSent>")
                .is_none_or(|day| *message.day() >= *day)
    };
    let page_size = query.get("PageSize").and_then(|size| size.parse().ok());
    let page_size = page_size.unwrap_or(PAGE_SIZE);
    let number: usize = query
        .get("Page")
        .and_then(|page| page.parse().ok())
        .unwrap_or(0);
    let mut messages = state
        .messages
        .iter()
        .rev()
        .filter(found)
        .skip(number * page_size);
    let page: Vec<Value> = messages
        .by_ref()
        .take(page_size)
        .map(|message| message.json(false))
        .collect();
    // The URI of every page contains the filters.
    let asked: FormParams = query
        .iter()
        .filter(|(name, _)| !["PageSize", "Page", "PageToken"].contains(name))
        .chain([("PageSize", page_size.to_string().as_str())])
        .collect();
    let uri = format!(
        "/2010-04-01/Accounts/{account}/Messages.json?{}",
        asked.encode()
    );
    let next = messages
        .next()
        .map(|_| format!("{uri}&Page={}&PageToken=PA", number + 1));
    let page = json!({
        "end": (number * page_size + page.len()).saturating_sub(1),
        "first_page_uri": format!("{uri}&Page=0"),
        "messages": page,
        "next_page_uri": next,
        "page": number,
        "page_size": page_size,
        "previous_page_uri": null,
        "start": number * page_size,
        "uri": format!("{uri}&Page={number}"),
    });
    http(200, None, &page.to_string())
}

impl State {
    fn is_authorized(&self, account: &str, login: Option<&(String, String)>) -> bool {
        login.is_some_and(|login| {
            if self.logins.is_empty() {
                login.0 == account && login.1 == TOKEN
            } else {
                self.logins.contains(login)
            }
        })
    }
}

/// Error response. Without a code it is that of a proxy in front of Twilio.
pub(super) fn error(status: u16, code: Option<u32>, retry_after: Option<u64>) -> String {
    let body = code.map(|code| {
        let more_info = format!("https://www.twilio.com/docs/errors/{code}");
        let message = "not this time";
        json!({"code": code, "message": message, "more_info": more_info, "status": status})
            .to_string()
    });
    http(
        status,
        retry_after,
        body.as_deref().unwrap_or("upstream connect error"),
    )
}

pub(super) fn http(status: u16, retry_after: Option<u64>, body: &str) -> String {
    let retry_after = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        retry_after.unwrap_or_default(),
        body.len()
    )
}
