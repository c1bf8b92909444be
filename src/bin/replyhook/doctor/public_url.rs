//! Check of `PUBLIC_URL`: sends a signed probe to each endpoint, over the same path and in the same form as Twilio.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::LOCATION;
use http::{HeaderMap, Method};
use replyhook::FormParams;
use replyhook::config::Settings;
use replyhook::emulator::{SignedRequest, SignedRequestError, SignedResponse, send_signed};
use replyhook::probe::{ENDPOINT_HEADER, INSTANCE_HEADER, Instance, PARAMETER};
use replyhook::signature::{PublicUrl, SigningKey};
use replyhook::store::StoreUrl;

use super::remedy;
use super::server::LocalServer;
use super::webhook_url::without_secrets;
use crate::finding::{Finding, Report, Severity};
const CHECK: &str = "url";

/// The result for one endpoint. Endpoints with equal verdicts share a line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    severity: Severity,
    /// Predicate of a sentence whose subject is the URL.
    predicate: String,
    remedy: Option<String>,
}

impl Verdict {
    fn fail(predicate: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fail,
            predicate: predicate.into(),
            remedy: Some(remedy.into()),
        }
    }
}

pub(super) async fn check(
    settings: &Settings,
    local_server: LocalServer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let public_url = &settings.server.public_url;
    // An emulated Twilio on this machine can call loopback addresses; Twilio cannot.
    if public_url.is_loopback() && !settings.rest.api_url.is_loopback() {
        report.add(Finding::warn(
            CHECK,
            format!("{public_url} is this machine itself, which Twilio cannot call (11205)"),
            "run a tunnel or a proxy with a public address to this server, and set PUBLIC_URL to that address",
        ))?;
    }
    let Some(probe) = Probe::new(settings) else {
        return report.add(Finding::note(
            CHECK,
            format!("{public_url} was not checked: the settings have no key to sign the request"),
            "set TWILIO_AUTH_TOKEN, or a key in signature.shared_keys",
        ));
    };
    let endpoints = public_url.paths().named();
    let [primary, fallback, status] = endpoints.map(|(_, path)| probe.send(public_url, path));
    let (primary, fallback, status) = tokio::join!(primary, fallback, status);
    let mut verdicts = Vec::new();
    for ((name, path), result) in endpoints.into_iter().zip([primary, fallback, status]) {
        let verdict = match result {
            Ok(result) if result.status == 403 && request_id(&result.headers).is_some() => {
                // Repeat it alone: a server explains one rejection at a time, and the three probes were concurrent.
                let repeated = probe.send(public_url, path).await;
                rejection_verdict(&probe, settings, path, &repeated.unwrap_or(result)).await
            }
            Ok(result) => response_verdict(settings, local_server, name, &result),
            Err(error) => failed_request_verdict(&error),
        };
        verdicts.push((name, path, verdict));
    }
    for finding in group_verdicts(public_url, &verdicts) {
        report.add(finding)?;
    }
    Ok(())
}

/// Returns one finding per distinct verdict, with the names of its endpoints.
fn group_verdicts(public_url: &PublicUrl, verdicts: &[(&str, &str, Verdict)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reported: Vec<&Verdict> = Vec::new();
    for (_, path, verdict) in verdicts {
        if reported.contains(&verdict) {
            continue;
        }
        reported.push(verdict);
        let same = verdicts.iter().filter(|(_, _, other)| other == verdict);
        let names: Vec<_> = same.map(|(name, _, _)| *name).collect();
        let subject = match names.as_slice() {
            [_] => public_url.endpoint(path),
            names => format!("{public_url} ({})", names.join(", ")),
        };
        findings.push(Finding {
            check: CHECK,
            severity: verdict.severity,
            found: format!("{subject} {}", verdict.predicate),
            remedy: verdict.remedy.clone(),
        });
    }
    findings
}

/// The key and parameters of the probes.
struct Probe {
    key: SigningKey,
    form: FormParams,
}

impl Probe {
    /// Creates a probe that is signed with the auth token, or else with a shared key.
    fn new(settings: &Settings) -> Option<Self> {
        let (key, account) = settings.twilio.signing_key()?;
        // A new value per run, so that each run has another signature.
        let nonce = format!("{:016x}", RandomState::new().hash_one(PARAMETER));
        let account = account.map(|account| ("AccountSid", account.to_string()));
        Some(Self {
            key,
            form: account.into_iter().chain([(PARAMETER, nonce)]).collect(),
        })
    }

    /// Returns the setting of the key.
    fn key_setting(&self) -> String {
        match &self.key {
            SigningKey::AuthToken(_) => "TWILIO_AUTH_TOKEN".to_owned(),
            SigningKey::SharedKey { id, .. } => format!("signature.shared_keys.{id}"),
        }
    }

    /// Returns the headers of the signature.
    fn header_names(&self) -> &'static str {
        match &self.key {
            SigningKey::AuthToken(_) => "X-Twilio-Signature",
            SigningKey::SharedKey { .. } => {
                "X-Twilio-Signature or X-Twilio-Webhooks-Signature-Settings"
            }
        }
    }

    async fn send(
        &self,
        public_url: &PublicUrl,
        path: &str,
    ) -> Result<SignedResponse, SignedRequestError> {
        self.send_to(public_url.endpoint(path), None).await
    }

    async fn send_to(
        &self,
        url: String,
        signed_url: Option<String>,
    ) -> Result<SignedResponse, SignedRequestError> {
        let webhook = SignedRequest {
            url,
            signed_url,
            method: Method::POST,
            form: self.form.clone(),
            headers: HeaderMap::new(),
        };
        send_signed(&self.key, &webhook).await
    }

    /// Sends the probe to the public listener directly, as a proxy that changes nothing would.
    ///
    /// Returns `None` if the address of the listener is unknown, or the call fails.
    async fn send_directly(&self, settings: &Settings, path: &str) -> Option<SignedResponse> {
        let server = &settings.server;
        let port = server.listen.port();
        let host = match server.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V6(ip) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        // Port 0 is any free port, which only the server knows.
        if port == 0 {
            return None;
        }
        let prefix = server.public_url.prefix();
        let url = format!("http://{host}:{port}{prefix}{path}");
        let signed_url = server.public_url.endpoint(path);
        self.send_to(url, Some(signed_url)).await.ok()
    }
}

/// Returns the verdict for an endpoint that did not respond.
fn failed_request_verdict(error: &SignedRequestError) -> Verdict {
    match error {
        SignedRequestError::Failed { code, .. } => Verdict::fail(
            format!("cannot be called: {} ({code})", code.meaning_or_link()),
            remedy::transport(*code),
        ),
        error => Verdict::fail(
            format!("cannot be called: {error}"),
            "correct PUBLIC_URL; on a machine without certificates install ca-certificates",
        ),
    }
}

/// Returns the verdict for a rejection by replyhook.
///
/// Sends the probe directly as well, to find out whether the proxy or the settings are the cause.
async fn rejection_verdict(
    probe: &Probe,
    settings: &Settings,
    path: &str,
    result: &SignedResponse,
) -> Verdict {
    let reason = result.body.trim();
    if reason != "signature not valid" {
        // With signature.mode = "report" the response has the explanation.
        return Verdict::fail(
            "responds with 403: the signature does not verify",
            format!("the server reports: {reason}"),
        );
    }
    let log = "its log says why, in a line that begins with `rejected:`";
    let (key, headers) = (probe.key_setting(), probe.header_names());
    match probe.send_directly(settings, path).await {
        Some(direct) if parse_instance(&direct.headers).is_some() => Verdict::fail(
            "responds with 403: the signature does not verify, although the server accepts the same request when it is sent \
             directly",
            format!(
                "something between PUBLIC_URL and the server changes path, query, body, Content-Type or {headers}: let it pass all of them as they are (PUBLIC_URL's own prefix may be stripped); {log}"
            ),
        ),
        Some(direct) if direct.status == 403 => Verdict::fail(
            "responds with 403: the signature does not verify, neither through the proxy nor when it is sent directly",
            format!(
                "the running server has another {key} or another PUBLIC_URL than this command: give both the \
                 same settings and restart the server; {log}"
            ),
        ),
        _ => Verdict::fail(
            "responds with 403: the signature does not verify",
            format!(
                "either the server there has another {key} or PUBLIC_URL than this command, or a proxy changes path, \
                 query, body or {headers}; {log}"
            ),
        ),
    }
}

/// Returns the verdict for a response other than a rejection by replyhook.
fn response_verdict(
    settings: &Settings,
    local_server: LocalServer,
    name: &str,
    result: &SignedResponse,
) -> Verdict {
    let header = |name| {
        result
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let Some(instance) = parse_instance(&result.headers) else {
        return foreign_response_verdict(settings, result);
    };
    let endpoint = header(ENDPOINT_HEADER).unwrap_or_default();
    if endpoint != name {
        return Verdict::fail(
            format!("leads to the endpoint `{endpoint}` and not to `{name}`"),
            format!(
                "a proxy maps the paths of PUBLIC_URL onto each other: let {} be three paths on the server too",
                path_list(settings)
            ),
        );
    }
    match local_server {
        LocalServer::Known(known) if known == instance => Verdict {
            severity: Severity::Ok,
            predicate: "leads to this very server, and the signature verifies".to_owned(),
            remedy: None,
        },
        // Behind a load balancer any of several servers may respond.
        LocalServer::Known(_) if matches!(settings.store.url, StoreUrl::Postgres(_)) => Verdict {
            severity: Severity::Note,
            predicate: format!(
                "leads to another replyhook process than the one here ({instance}), and the signature verifies"
            ),
            remedy: Some(
                "that is right where several machines share PostgreSQL; if there should be one, stop the other".to_owned(),
            ),
        },
        LocalServer::Known(_) => Verdict::fail(
            format!("leads to another replyhook process than the one here ({instance})"),
            "messages are stored there, in another store: stop one of the two, point the proxy to this one, or let several \
             machines share PostgreSQL (DATABASE_URL)",
        ),
        LocalServer::NotConfigured | LocalServer::Unknown => Verdict {
            severity: Severity::Ok,
            predicate: format!("leads to a replyhook process ({instance}), and the signature verifies"),
            remedy: None,
        },
    }
}

/// Returns the verdict for a response without an instance id, such as that of a proxy or an older replyhook.
fn foreign_response_verdict(settings: &Settings, result: &SignedResponse) -> Verdict {
    let status = result.status;
    let listen = settings.server.listen;
    let is_from_replyhook = request_id(&result.headers).is_some();
    match status {
        300..=399 => redirect_verdict(settings, result),
        404 => Verdict::fail(
            "responds with 404",
            format!(
                "nothing serves that path: let the proxy pass it to {listen} (server.listen), and write PUBLIC_URL as the \
                 proxy expects it, with the prefix, if there is one; the proxy may strip that whole prefix or keep it"
            ),
        ),
        403 => Verdict::fail(
            "responds with 403, and that is not replyhook",
            format!(
                "a firewall or a proxy rejects the request: let it pass POST requests without cookies, from any address \
                 (Twilio's are not fixed), to {}",
                path_list(settings)
            ),
        ),
        401 | 407 => Verdict::fail(
            format!("responds with {status}: it requires a password"),
            format!(
                "exempt {}: the signature authenticates Twilio",
                path_list(settings)
            ),
        ),
        503 if is_from_replyhook => Verdict::fail(
            format!("responds with 503: {}", result.body.trim()),
            "the server accepts no messages now: see its findings above, or try again in a moment",
        ),
        502..=504 => Verdict::fail(
            format!("responds with {status}: the proxy does not reach the server"),
            format!(
                "start the server, and let the proxy pass requests to {listen} (server.listen) of this machine"
            ),
        ),
        200..=299 => Verdict::fail(
            format!(
                "responds with {status} ({}), and that is not this version of replyhook",
                result.content_type.as_deref().unwrap_or("no content type")
            ),
            format!(
                "something else answers there: point the name or the proxy to {listen} (server.listen), or correct \
                 PUBLIC_URL; an older replyhook must be restarted with this version"
            ),
        ),
        status => Verdict::fail(
            format!("responds with {status}"),
            format!(
                "check the log of the program there; the proxy should pass requests to {listen} (server.listen)"
            ),
        ),
    }
}

/// Lists the paths of the webhooks.
fn path_list(settings: &Settings) -> String {
    let [(_, primary), (_, fallback), (_, status)] = settings.server.public_url.paths().named();
    format!("{primary}, {fallback} and {status}")
}

/// Returns the verdict for a redirect, with the `PUBLIC_URL` that would avoid it.
fn redirect_verdict(settings: &Settings, result: &SignedResponse) -> Verdict {
    // Not followed: Twilio follows with a GET without parameters, which cannot deliver a message.
    let location = result.headers.get(LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let location = without_secrets(location.unwrap_or("nowhere"));
    let paths = settings.server.public_url.paths();
    let mut endpoints = paths.named().into_iter().rev();
    let trimmed = location.trim_end_matches('/');
    let corrected_url = endpoints
        .find_map(|(_, path)| trimmed.strip_suffix(path.trim_end_matches('/')))
        .and_then(|url| PublicUrl::parse_with_paths(url, paths.clone()).ok())
        .map(|(url, _)| url)
        .filter(|url| *url != settings.server.public_url);
    let remedy = corrected_url.map_or_else(
        || "let it serve that URL itself, without a redirect".to_owned(),
        |url| format!("set PUBLIC_URL={url} and enter its URLs at Twilio, or remove the redirect"),
    );
    Verdict::fail(
        format!(
            "redirects ({}) to {location}: Twilio follows with a GET, and the message and its signature are lost",
            result.status
        ),
        remedy,
    )
}

fn parse_instance(headers: &HeaderMap) -> Option<Instance> {
    Instance::parse(headers.get(INSTANCE_HEADER)?.to_str().ok()?)
}

/// Returns the request id if it has replyhook's format, which shows that replyhook sent the response.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let (boot, number) = id.split_once('-')?;
    let is_well_formed = boot.len() == 8
        && boot.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit());
    is_well_formed.then_some(id)
}
