//! `replyhook doctor` with a real server behind real proxies.
//!
//! It confirms a correct setup, and names each problem with its remedy.

use std::time::{Duration, Instant};

use http::Method;
use replyhook::probe::{ENDPOINT_HEADER, INSTANCE_HEADER, PARAMETER};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::console::{Console, number, sender, service};
use crate::support::http::{Listener, RawRequest, http_response};
use crate::support::proxy::{ProxyAction, TlsProxy};
use crate::support::{
    ACCOUNT, EMPTY, OTHER_TOKEN, Server, TOKEN, TestApp, UNSET, Webhook, json_lines, replyhook,
    silent_port,
};

const PREFIX: &str = "/bots/a";

/// A server behind a proxy, and a Twilio account with webhook URLs.
struct Deployment {
    server: Server,
    proxy: TlsProxy,
    console: Console,
    public_url: String,
    folder: tempfile::TempDir,
}

impl Deployment {
    /// Creates a correct deployment. The primary URL has the connection overrides of the manual.
    fn with_proxy(proxy: TlsProxy, prefix: &str) -> Self {
        let public_url = format!("{}{prefix}", proxy.origin());
        let [primary, fallback, status] = urls(&public_url);
        let console =
            Console::with_sender([&format!("{primary}#rc=2&rp=ct,5xx"), &fallback, &status]);
        let folder = tempfile::tempdir().unwrap();
        let server = serve(&public_url, &store(&folder), &[]);
        proxy.set_upstream(server.public);
        Self {
            server,
            proxy,
            console,
            public_url,
            folder,
        }
    }

    fn plain() -> Self {
        Self::with_proxy(TlsProxy::plain(), "")
    }

    fn doctor(&self, env: &[(&str, &str)]) -> Run {
        self.doctor_with(&["doctor"], env)
    }

    /// Runs `doctor` with the settings of the server and further ones.
    fn doctor_with(&self, args: &[&str], env: &[(&str, &str)]) -> Run {
        let url = self.console.url();
        let store = store(&self.folder);
        let (listen, admin) = (
            self.server.public.to_string(),
            self.server.private.to_string(),
        );
        let authority = self.proxy.authority().display().to_string();
        let base_env = [
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("PUBLIC_URL", &self.public_url),
            ("DATABASE_URL", &store),
            ("REPLYHOOK__SERVER__LISTEN", &listen),
            ("REPLYHOOK__ADMIN__LISTEN", &admin),
            ("REPLYHOOK__TWILIO__API_URL", &url),
            ("REPLYHOOK__TWILIO__MESSAGING_URL", &url),
            ("SSL_CERT_FILE", &authority),
        ];
        Run(replyhook(args, &[&base_env[..], env].concat(), ""))
    }
}

fn serve(public_url: &str, store: &str, env: &[(&str, &str)]) -> Server {
    let base_env = [("PUBLIC_URL", public_url), ("DATABASE_URL", store)];
    Server::start(&[&base_env[..], env].concat())
}

fn store(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("kept.db").display())
}

fn urls(public_url: &str) -> [String; 3] {
    ["/webhook", "/webhook/fallback", "/webhook/status"].map(|path| format!("{public_url}{path}"))
}

/// A run of the command.
struct Run((i32, String, String));

impl Run {
    #[track_caller]
    fn assert_no_findings(self) -> String {
        let (code, out, err) = self.0;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    }

    /// Checks that a finding is printed, with its remedy in the next line.
    #[track_caller]
    fn assert_finding(&self, line: &str, remedy: &str) -> &Self {
        let (code, out, err) = &self.0;
        assert_eq!((*code, err.as_str()), (1, ""), "{out}");
        let lines: Vec<_> = out.lines().collect();
        let at = lines.iter().position(|found| found.contains(line));
        let at = at.unwrap_or_else(|| panic!("no {line:?} in\n{out}"));
        let below = lines.get(at + 1).copied().unwrap_or_default();
        assert!(
            below.starts_with("     ") && below.contains(remedy),
            "no {remedy:?} below {line:?} in\n{out}"
        );
        self
    }

    #[track_caller]
    fn assert_lacks(&self, text: &str) -> &Self {
        assert!(!self.0.1.contains(text), "{text:?} is in\n{}", self.0.1);
        self
    }
}

/// Starts a proxy that strips the prefix, and responds to paths without it with 404.
fn start_prefix_stripping_proxy() -> TlsProxy {
    TlsProxy::start(|mut request| {
        let rest = request.target.strip_prefix(PREFIX).map(str::to_owned);
        let Some(rest) = rest else {
            return ProxyAction::Respond(http_response(404, &[], "default backend"));
        };
        request.target = rest;
        ProxyAction::Forward(request)
    })
}

// On Fly, a second machine would have a store of its own. The number of machines is unknown here.
#[test]
fn sqlite_on_fly_is_a_finding_and_a_warning() {
    let fly = [("FLY_APP_NAME", "my-bot.example")];
    let deployment = Deployment::plain();
    deployment
        .doctor(&fly)
        .assert_finding("in a machine of Fly", "fly scale count 1");
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&deployment.public_url, &store(&folder), &fly);
    server.wait_for("a second one replies twice");
    assert!(
        !deployment
            .server
            .log()
            .contains("a second one replies twice")
    );
}

#[test]
fn doctor_behind_prefix_stripping_tls_proxy_passes() {
    let deployment = Deployment::with_proxy(start_prefix_stripping_proxy(), PREFIX);
    let out = deployment.doctor(&[]).assert_no_findings();
    for line in [
        "ok   store: it accepts writes\n",
        &format!(
            "ok   url: {} (primary, fallback, status) leads to this very server, and the signature verifies\n",
            deployment.public_url
        ),
        &format!("ok   credentials: the auth token of {ACCOUNT} is right\n"),
        "ok   clock: it agrees with Twilio's\n",
        "ok   twilio: sender XE00000000000000000000000000000001 (whatsapp:…22) calls this server\n",
    ] {
        assert!(out.contains(line), "{line} is not in\n{out}");
    }
    assert!(out.lines().all(|line| line.starts_with("ok   ")), "{out}");
    assert!(
        !out.contains(TOKEN) && !out.contains("15550002222"),
        "{out}"
    );
    for endpoint in ["primary", "fallback", "status"] {
        let series =
            format!(r#"replyhook_webhooks_total{{endpoint="{endpoint}",outcome="probe"}}"#);
        assert_eq!(deployment.server.metric(&series), 1.0);
    }
}

#[test]
fn doctor_behind_host_rewriting_proxy_passes() {
    let proxy = TlsProxy::start(|mut request| {
        for (name, value) in &mut request.headers {
            if name.eq_ignore_ascii_case("host") {
                "10.0.0.7:8080".clone_into(value);
            }
        }
        ProxyAction::Forward(request)
    });
    Deployment::with_proxy(proxy, "")
        .doctor(&[])
        .assert_no_findings();
}

#[test]
fn public_url_without_proxy_prefix_is_reported() {
    let deployment = Deployment::with_proxy(start_prefix_stripping_proxy(), "");
    deployment
        .doctor(&[])
        .assert_finding(
            "(primary, fallback, status) responds with 404",
            "write PUBLIC_URL as the proxy expects it, with the prefix",
        )
        .assert_lacks("verifies");
}

// The token that doctor uses is not the server's.
#[test]
fn mismatched_auth_token_is_reported_but_not_printed() {
    let deployment = Deployment::plain();
    deployment
        .doctor(&[("TWILIO_AUTH_TOKEN", OTHER_TOKEN)])
        .assert_finding(
            "responds with 403: the signature does not verify, neither through the proxy nor when it is sent directly",
            "another TWILIO_AUTH_TOKEN or another PUBLIC_URL",
        )
        .assert_finding(
            "FAIL credentials: auth token of AC00000000000000000000000000000001: Twilio rejected the call: the credentials \
             are wrong (20003",
            "copy the auth token of exactly this account",
        )
        .assert_lacks(OTHER_TOKEN);
    // The server's log does not contain the token either.
    assert!(!deployment.server.log().contains(OTHER_TOKEN));
}

// Twilio accepts the token for REST calls but signs webhooks with another one.
#[test]
fn non_primary_auth_token_is_reported() {
    let deployment = Deployment::plain();
    deployment
        .console
        .change(|state| state.auth_token = OTHER_TOKEN.to_owned());
    deployment
        .doctor(&[])
        .assert_finding(
            "FAIL credentials: the auth token of AC00000000000000000000000000000001 is not its primary one",
            "TWILIO_AUTH_TOKEN_SECONDARY",
        )
        .assert_lacks(OTHER_TOKEN);
}

#[test]
fn proxy_changing_requests_is_distinguished_from_wrong_token() {
    let proxy = TlsProxy::start(|mut request| {
        request.body.extend_from_slice(b"&via=proxy");
        ProxyAction::Forward(request)
    });
    Deployment::with_proxy(proxy, "").doctor(&[]).assert_finding(
        "responds with 403: the signature does not verify, although the server accepts the same request when it is sent directly",
        "let it pass all of them as they are",
    );
}

#[test]
fn report_mode_rejection_shows_servers_explanation() {
    let proxy = TlsProxy::start(|mut request| {
        request.body.extend_from_slice(b"\r\n");
        ProxyAction::Forward(request)
    });
    let public_url = proxy.origin();
    let mut deployment = Deployment::with_proxy(proxy, "");
    let report = [("REPLYHOOK__SIGNATURE__MODE", "report")];
    deployment.server = serve(&public_url, "sqlite::memory:", &report);
    deployment.proxy.set_upstream(deployment.server.public);
    deployment.doctor(&report).assert_finding(
        "responds with 403",
        "the server reports: the signature fits without the white space",
    );
}

#[test]
fn proxy_response_is_distinguished_from_server_response() {
    let deployments = |back: Vec<u8>| {
        Deployment::with_proxy(
            TlsProxy::start(move |_| ProxyAction::Respond(back.clone())),
            "",
        )
        .doctor(&[])
    };
    let redirect = [("Location", "https://www.example.com/webhook?from=old")];
    deployments(http_response(301, &redirect, "")).assert_finding(
        "redirects (301) to https://www.example.com/webhook: Twilio follows with a GET",
        "set PUBLIC_URL=https://www.example.com and",
    );
    deployments(http_response(302, &[("Location", "/login")], ""))
        .assert_finding("redirects (302) to /login", "without a redirect");
    let html = [("Content-Type", "text/html")];
    deployments(http_response(200, &html, "<html>Welcome</html>")).assert_finding(
        "responds with 200 (text/html), and that is not this version of replyhook",
        "something else answers there",
    );
    deployments(http_response(403, &html, "blocked")).assert_finding(
        "responds with 403, and that is not replyhook",
        "a firewall or a proxy rejects",
    );
    deployments(http_response(401, &[], ""))
        .assert_finding("requires a password", "exempt /webhook");
    deployments(http_response(502, &[], ""))
        .assert_finding("the proxy does not reach the server", "start the server");
}

#[test]
fn proxy_mapping_all_paths_to_one_is_reported() {
    let proxy = TlsProxy::start(|mut request| {
        "/webhook".clone_into(&mut request.target);
        ProxyAction::Forward(request)
    });
    // The request is signed for one path and received at another, so the server rejects it, like one of Twilio's.
    Deployment::with_proxy(proxy, "")
        .doctor(&[])
        .assert_finding(
            "(fallback, status) responds with 403",
            "let it pass all of them as they are",
        );
}

// With PostgreSQL, several machines may serve the URL, so doctor only prints a note.
#[test]
fn public_url_reaching_another_process_is_reported() {
    let deployment = Deployment::plain();
    let other = serve(&deployment.public_url, "sqlite::memory:", &[]);
    deployment.proxy.set_upstream(other.public);
    deployment.doctor(&[]).assert_finding(
        "(primary, fallback, status) leads to another replyhook process",
        "stop one of the two",
    );
    #[cfg(feature = "postgres")]
    {
        let shared = [("DATABASE_URL", "postgres://replyhook@127.0.0.1:9/replyhook")];
        let out = deployment.doctor(&shared).assert_no_findings();
        assert!(
            out.contains("note url: ") && out.contains("several machines"),
            "{out}"
        );
    }
}

#[test]
fn doctor_without_admin_listener_prints_note_and_continues() {
    let deployment = Deployment::plain();
    let out = deployment
        .doctor(&[("REPLYHOOK__ADMIN__LISTEN", "")])
        .assert_no_findings();
    assert!(out.contains("note server: admin.listen is empty"), "{out}");
    assert!(out.contains("leads to a replyhook process"), "{out}");
}

#[test]
fn doctor_without_account_sid_notes_skipped_checks() {
    let deployment = Deployment::plain();
    let run = deployment.doctor(&[("TWILIO_ACCOUNT_SID", "")]);
    let out = run.assert_no_findings();
    assert!(
        out.contains("note credentials: TWILIO_ACCOUNT_SID is not set"),
        "{out}"
    );
    assert!(!out.contains(" clock: "), "{out}");
}

// Nothing listens at the admin address, and the public URL refuses connections or does not resolve.
#[test]
fn unreachable_addresses_are_reported_with_twilio_error_codes() {
    let silent = silent_port();
    let silent_address = silent.local_addr().unwrap().to_string();
    let nameless = format!("{}.test", "a".repeat(64));
    let no_name = ("does not resolve (11210)", "create the name in DNS");
    for (public_url, (line, remedy)) in [
        (
            format!("http://{silent_address}"),
            ("was refused (11202)", "start the proxy"),
        ),
        (format!("http://{nameless}"), no_name),
        (format!("https://{nameless}"), no_name),
    ] {
        let run = Run(replyhook(
            &["doctor"],
            &[
                ("TWILIO_AUTH_TOKEN", TOKEN),
                ("PUBLIC_URL", &public_url),
                ("REPLYHOOK__ADMIN__LISTEN", &silent_address),
            ],
            "",
        ));
        run.assert_finding(line, remedy).assert_finding(
            "FAIL server: no response from 127.0.0.1:",
            "start `replyhook serve`",
        );
    }
}

// Twilio would refuse the connection in each of these cases.
#[test]
fn tls_error_is_reported_with_twilio_error_code() {
    let deployment = Deployment::plain();
    let strangers = TlsProxy::plain();
    let others = strangers.authority().display().to_string();
    deployment
        .doctor(&[("SSL_CERT_FILE", &others)])
        .assert_finding(
            "cannot be called: the certificate has no path to a trusted root (11237)",
            "a public authority",
        );
    let by_address = format!("https://127.0.0.1:{}", deployment.proxy.port());
    deployment
        .doctor(&[("PUBLIC_URL", &by_address)])
        .assert_finding(
            "is for another host (11235)",
            "a certificate for PUBLIC_URL's host",
        );
    let no_tls = format!("https://{}", deployment.server.public);
    deployment
        .doctor(&[("PUBLIC_URL", &no_tls)])
        .assert_finding("handshake failed (11220)", "supports neither TLS 1.2");
    let expired = Deployment::with_proxy(TlsProxy::start_until(2020, ProxyAction::Forward), "");
    expired
        .doctor(&[])
        .assert_finding("has expired (11236)", "renew the certificate");
}

#[test]
fn loopback_public_url_with_real_twilio_is_reported() {
    let deployment = Deployment::plain();
    let env = [
        ("REPLYHOOK__TWILIO__API_URL", "https://api.twilio.com"),
        ("TWILIO_ACCOUNT_SID", ""),
    ];
    deployment
        .doctor(&env)
        .assert_finding("is this machine itself", "run a tunnel");
}

#[test]
fn locked_store_is_reported() {
    let deployment = Deployment::plain();
    let other = rusqlite::Connection::open(deployment.folder.path().join("kept.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    deployment.doctor(&[]).assert_finding(
        "FAIL store: it does not accept writes: ",
        "a program that locks the file",
    );
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
}

// SIGSTOP suspends the server's process: connections open, but no response comes.
#[test]
fn suspended_server_is_reported_within_time_limit() {
    let deployment = Deployment::plain();
    deployment.server.signal(Signal::STOP);
    let started = Instant::now();
    let run = deployment.doctor_with(&["doctor", "--timeout-ms", "200"], &[]);
    deployment.server.signal(Signal::CONT);
    assert!(started.elapsed() < Duration::from_secs(40));
    run.assert_finding("FAIL server: no response from 127.0.0.1:", "it is stopped")
        .assert_finding("(primary, fallback, status) cannot be called", "15 seconds");
}

#[test]
fn admin_address_of_another_program_is_reported() {
    let deployment = Deployment::plain();
    let other = Listener::start(None, |_: RawRequest| http_response(200, &[], "hello"));
    deployment
        .doctor(&[("REPLYHOOK__ADMIN__LISTEN", &other.address.to_string())])
        .assert_finding(
            "is not a private listener of replyhook",
            "another program has that address",
        );
}

// The sender has the fallback URL as its primary URL and the other way round.
#[test]
fn swapped_webhook_urls_are_reported_with_remedy() {
    let deployment = Deployment::plain();
    let [primary, fallback, status] = urls(&deployment.public_url);
    deployment.console.change(|state| {
        state.senders = vec![sender([&fallback, &primary, &status])];
    });
    let run = deployment.doctor_with(&["doctor", "--json"], &[]);
    assert_eq!(run.0.0, 1, "{}", run.0.1);
    let lines = json_lines(&run.0.1);
    let swapped: Vec<&Value> = lines.iter().filter(|line| line["result"] != "ok").collect();
    assert_eq!(swapped.len(), 1, "{lines:?}");
    assert_eq!(swapped[0]["check"], "twilio");
    assert_eq!(swapped[0]["result"], "fail");
    assert_eq!(
        swapped[0]["found"],
        "sender XE00000000000000000000000000000001 (whatsapp:…22) has primary and fallback the wrong way round"
    );
    let remedy = swapped[0]["remedy"].as_str().unwrap();
    assert!(
        remedy.starts_with(&format!(
            "enter {primary} as the webhook for incoming messages and {fallback} as its fallback"
        )),
        "{remedy}"
    );
    for line in &lines {
        assert_eq!(line["remedy"].is_null(), line["result"] == "ok", "{line}");
    }
}

// Every result page is read, but only numbers and senders that call this server are checked.
#[test]
fn foreign_numbers_and_senders_are_counted_not_checked() {
    let deployment = Deployment::plain();
    let [primary, fallback, status] = urls(&deployment.public_url);
    let other = "https://u:canary-password@other.example.com/sms";
    deployment.console.change(|state| {
        state.senders = vec![
            sender([other, other, ""]),
            sender([&primary, &fallback, ""]),
        ];
        state.numbers = vec![
            number(other, ""),
            number("", ""),
            number(&primary, &primary),
        ];
    });
    deployment
        .doctor(&[])
        .assert_finding(
            "FAIL twilio: number PN00000000000000000000000000000001 (sms:…44) has the primary as its fallback too",
            &format!("enter {fallback} as its fallback"),
        )
        .assert_finding(
            "warn twilio: sender XE00000000000000000000000000000001 (whatsapp:…22) has no status callback",
            &format!("enter {status} as its status callback"),
        )
        .assert_finding("note twilio: further numbers, WhatsApp senders and Messaging Services that call other servers: 3", "nothing")
        .assert_lacks("canary-password")
        .assert_lacks("15550003344");
}

// Twilio's API does not tell who handles opt-out keywords, but a number shows that it is toll-free.
#[test]
fn opt_out_handling_of_senders_is_noted() {
    let deployment = Deployment::plain();
    let [primary, fallback, _] = urls(&deployment.public_url);
    let mut toll_free = number(&primary, &fallback);
    toll_free["phone_number"] = "+18885550100".into();
    deployment
        .console
        .change(|state| state.numbers = vec![toll_free]);
    let text = deployment.doctor(&[]).assert_no_findings();
    assert!(
        text.contains("note consent: toll-free numbers (1)"),
        "{text}"
    );
    assert!(text.contains("YES does not end an opt-out"), "{text}");
    assert!(!text.contains("8885550100"), "{text}");
    let own = [("REPLYHOOK__CONSENT__SMS", "own")];
    let text = deployment.doctor(&own).assert_no_findings();
    assert!(text.contains("note consent: consent.sms is own"), "{text}");
    assert!(text.contains("21610"), "{text}");
}

#[test]
fn offline_reasons_and_quality_of_senders_are_reported() {
    let deployment = Deployment::plain();
    let mut senders = [(); 2].map(|()| {
        let [primary, fallback, status] = urls(&deployment.public_url);
        sender([&primary, &fallback, &status])
    });
    senders[0]["properties"] =
        json!({"quality_rating": "LOW", "messaging_limit": "1K Customers/24hr"});
    senders[1]["properties"] = json!({"quality_rating": "HIGH"});
    senders[1]["status"] = "OFFLINE".into();
    senders[1]["offline_reasons"] = json!([{"code": "63020", "message": "Business account error"}]);
    deployment
        .console
        .change(|state| state.senders = senders.to_vec());
    deployment
        .doctor(&[])
        .assert_finding(
            "warn twilio: sender XE00000000000000000000000000000001 (whatsapp:…22) has the quality rating LOW; its limit is \
             1K Customers/24hr",
            "WhatsApp may lower its limit",
        )
        .assert_finding(
            "is OFFLINE: it neither gets nor sends messages; Business account error (63020)",
            "see why",
        )
        .assert_lacks("15550002222");
}

#[test]
fn webhooks_of_messaging_services_are_checked() {
    let deployment = Deployment::plain();
    let [primary, fallback, _] = urls(&deployment.public_url);
    deployment.console.change(|state| {
        state.services = vec![service(&primary, false), service(&primary, true)];
        state.services[1]["fallback_url"] = fallback.into();
    });
    deployment
        .doctor(&[])
        .assert_finding(
            "warn twilio: Messaging Service MG00000000000000000000000000000001 has no fallback: a message that the primary",
            "replyhook sender set MG00000000000000000000000000000001 --from-config",
        )
        .assert_finding(
            "note twilio: Messaging Service MG00000000000000000000000000000001 has this server's URL, and the webhooks of its \
             numbers are called instead",
            "nothing to do if its numbers call this server",
        );
    deployment
        .console
        .change(|state| state.hides_services = true);
    deployment.doctor(&[]).assert_finding(
        "could not read the Messaging Services of",
        "needs the permission",
    );
}

#[test]
fn account_without_webhook_to_server_is_reported() {
    let deployment = Deployment::plain();
    deployment.console.change(|state| state.senders.clear());
    let [primary, ..] = urls(&deployment.public_url);
    deployment.doctor(&[]).assert_finding(
        "warn twilio: of the numbers, WhatsApp senders and Messaging Services (0) none calls ",
        &format!("enter {primary} as the webhook for incoming messages"),
    );
}

#[test]
fn suspended_account_and_wrong_clock_are_reported() {
    let deployment = Deployment::plain();
    deployment.console.change(|state| {
        state.status = "suspended".to_owned();
        state.seconds_ahead = 3600;
    });
    deployment
        .doctor(&[])
        .assert_finding(
            "FAIL credentials: AC00000000000000000000000000000001 is suspended",
            "console",
        )
        .assert_finding("s behind Twilio", "NTP");
    deployment.console.change(|state| {
        state.status = "active".to_owned();
        state.seconds_ahead = -3600;
    });
    deployment
        .doctor(&[])
        .assert_finding("warn clock: this machine is 36", "NTP")
        .assert_finding("s ahead of Twilio", "NTP");
    deployment.console.change(|state| state.seconds_ahead = 30);
    deployment.doctor(&[]).assert_no_findings();
}

#[test]
fn unreachable_twilio_api_is_reported() {
    let deployment = Deployment::plain();
    let silent = silent_port();
    let unreachable_url = format!("http://{}", silent.local_addr().unwrap());
    deployment
        .doctor(&[("REPLYHOOK__TWILIO__API_URL", &unreachable_url)])
        .assert_finding(
            "FAIL credentials: auth token of AC00000000000000000000000000000001: Twilio could not be reached",
            "let this machine make HTTPS connections to that host",
        )
        .assert_lacks(" twilio: ");
    deployment
        .doctor(&[("REPLYHOOK__TWILIO__MESSAGING_URL", &unreachable_url)])
        .assert_finding(
            "warn twilio: could not read the WhatsApp senders of AC",
            "twilio.messaging_url",
        )
        .assert_lacks("none calls");
}

#[test]
fn api_key_and_auth_token_are_both_checked() {
    let deployment = Deployment::plain();
    let sid = format!("SK{}", "0".repeat(32));
    let key = |secret| {
        [
            ("REPLYHOOK__TWILIO__API_KEY_SID", sid.as_str()),
            ("REPLYHOOK__TWILIO__API_KEY_SECRET", secret),
        ]
    };
    let out = deployment.doctor(&key(TOKEN)).assert_no_findings();
    assert!(out.contains("ok   credentials: the API key of AC"), "{out}");
    deployment
        .doctor(&key("canary-secret"))
        .assert_finding(
            "FAIL credentials: API key of AC",
            "the API key's SID and secret do not fit together",
        )
        .assert_lacks("token that was rotated")
        .assert_lacks("canary-secret")
        .assert_lacks(" twilio: ");
}

/// Settings of a shared key and an API key in place of the auth token.
const WITHOUT_TOKEN: [(&str, &str); 5] = [
    ("TWILIO_AUTH_TOKEN", UNSET),
    ("TWILIO_ACCOUNT_SID", ACCOUNT),
    (
        "REPLYHOOK__TWILIO__API_KEY_SID",
        "SK00000000000000000000000000000001",
    ),
    ("REPLYHOOK__TWILIO__API_KEY_SECRET", TOKEN),
    ("REPLYHOOK__SIGNATURE__SHARED_KEYS__KEY_A__SECRET", "s3cret"),
];

// The time of the list of messages is compared, since the account cannot be read.
#[test]
fn doctor_without_token_takes_clock_from_messages() {
    let mut deployment = Deployment::plain();
    deployment.server = serve(&deployment.public_url, "sqlite::memory:", &WITHOUT_TOKEN);
    deployment.proxy.set_upstream(deployment.server.public);
    let out = deployment.doctor(&WITHOUT_TOKEN).assert_no_findings();
    assert!(
        out.contains("leads to this very server, and the signature verifies"),
        "{out}"
    );
    assert!(out.contains("note credentials: not checkable"), "{out}");
    deployment
        .console
        .change(|state| state.seconds_ahead = 3600);
    deployment
        .doctor(&WITHOUT_TOKEN)
        .assert_finding("s behind Twilio", "NTP")
        .assert_lacks("s3cret");
}

#[test]
fn mismatched_shared_key_is_reported_but_not_printed() {
    let mut deployment = Deployment::plain();
    deployment.server = serve(&deployment.public_url, "sqlite::memory:", &WITHOUT_TOKEN);
    deployment.proxy.set_upstream(deployment.server.public);
    let other = (
        "REPLYHOOK__SIGNATURE__SHARED_KEYS__KEY_A__SECRET",
        "canary-secret",
    );
    deployment
        .doctor(&[&WITHOUT_TOKEN[..], &[other]].concat())
        .assert_finding(
            "responds with 403: the signature does not verify, neither through the proxy nor when it is sent directly",
            "another signature.shared_keys.key_a or another PUBLIC_URL",
        )
        .assert_lacks("canary-secret");
}

#[test]
fn invalid_settings_list_all_problems_and_exit_2() {
    let env = [
        ("PORT", "x"),
        (
            "REPLYHOOK__TWILIO__MESSAGING_URL",
            "http://messaging.example.com",
        ),
    ];
    let (code, out, err) = replyhook(&["doctor"], &env, "");
    assert_eq!((code, out.as_str()), (2, ""));
    for part in [
        "4 problems",
        "TWILIO_AUTH_TOKEN",
        "PUBLIC_URL",
        "PORT",
        "twilio.messaging_url",
    ] {
        assert!(err.contains(part), "{part} is not in {err}");
    }
}

const ENDPOINTS: [(&str, &str); 3] = [
    ("/webhook", "primary"),
    ("/webhook/fallback", "fallback"),
    ("/webhook/status", "status"),
];

// Each endpoint answers a probe with its own name and the ID of the process.
#[tokio::test]
async fn signed_probe_reaches_neither_journal_nor_handler() {
    let app = TestApp::echo();
    let mut instances = Vec::new();
    for (path, endpoint) in ENDPOINTS {
        let probe = Webhook::form(path, &[(PARAMETER, "nonce")]);
        for probe in [
            probe.clone(),
            probe.clone().method(Method::PUT),
            probe.get(),
        ] {
            let answer = app.send(probe).await;
            assert_eq!(answer.twiml(), EMPTY);
            assert_eq!(answer.headers[ENDPOINT_HEADER], endpoint);
            instances.push(answer.headers[INSTANCE_HEADER].clone());
        }
        let series =
            format!(r#"replyhook_webhooks_total{{endpoint="{endpoint}",outcome="probe"}}"#);
        assert_eq!(app.metric(&series).await, 3.0);
    }
    instances.dedup();
    assert_eq!(instances.len(), 1);
    assert_eq!(app.message_count().await, 0);
    assert_eq!(
        app.metric("replyhook_handler_duration_seconds_count").await,
        0.0
    );
    // The response to a message does not identify the process.
    let answer = app.send(Webhook::message(1, "hi")).await;
    assert!(!answer.headers.contains_key(INSTANCE_HEADER));
}

// A caller without a valid signature of a known account must not learn which process it reached.
#[tokio::test]
async fn unverified_probe_gets_403_without_probe_headers() {
    let account = [("TWILIO_ACCOUNT_SID", ACCOUNT)];
    let app = TestApp::build(&account, |app| app);
    let other_account = "AC00000000000000000000000000000009";
    for (path, _) in ENDPOINTS {
        let probe = Webhook::form(path, &[(PARAMETER, "nonce"), ("AccountSid", ACCOUNT)]);
        for probe in [
            probe.clone().token(OTHER_TOKEN),
            probe.clone().signature("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            probe.clone().with("AccountSid", other_account),
        ] {
            let answer = app.send(probe).await;
            assert_eq!(answer.status, 403);
            assert!(!answer.headers.contains_key(INSTANCE_HEADER));
            assert!(!answer.headers.contains_key(ENDPOINT_HEADER));
        }
        assert_eq!(app.send(probe).await.status, 200);
    }
}

#[test]
fn admin_listener_identifies_its_process() {
    let (one, other) = (Server::start(&[]), Server::start(&[]));
    let instance = |server: &Server, path| {
        let answer = server.get(path);
        answer.headers[INSTANCE_HEADER].to_str().unwrap().to_owned()
    };
    assert_eq!(instance(&one, "/livez"), instance(&one, "/readyz"));
    assert_ne!(instance(&one, "/readyz"), instance(&other, "/readyz"));
}
