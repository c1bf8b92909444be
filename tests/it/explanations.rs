//! Explanations of rejected requests: a table of invalid signatures, each with its exact remedy.

use http::Method;
use replyhook::config::Sources;
use replyhook::signature::{CapturedRequest, Explanation, sign};
use replyhook::{FormParams, Secret};

use crate::support::{ACCOUNT, ORIGIN, OTHER_TOKEN, TOKEN, TestApp, Webhook, base64_of};

const OTHER: &str = "AC000000000000000000000000000000ff";

/// Returns the explanation of a webhook for a server with these settings.
fn explain(env: &[(&str, &str)], webhook: &Webhook) -> String {
    let sources = Sources::default()
        .with_env([
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("PUBLIC_URL", "https://bot.example.com/a"),
        ])
        .with_env(env.iter().copied());
    let settings = replyhook::config::SigningSettings::load(&sources).unwrap();
    let verifier = settings
        .twilio
        .signature_verifier(settings.public_url.unwrap())
        .unwrap();
    let raw = webhook.raw("https://bot.example.com/a");
    let request = CapturedRequest::parse(&String::from_utf8(raw).unwrap()).unwrap();
    let explanation = verifier.explain(&request.unverified());
    assert_eq!(
        explanation == Explanation::Verifies,
        verifier.verify(&request.unverified()).is_ok()
    );
    explanation.to_string()
}

fn message() -> Webhook {
    Webhook::message(1, "two words and a + plus").header("Host", "10.0.0.3:8080")
}

const VERIFIED_URL: &str = "https://bot.example.com/a/webhook";

fn signed_for(url: &str, public_url: &str) -> String {
    format!(
        "signed for {url} and verified for {VERIFIED_URL}: set PUBLIC_URL={public_url}, or enter {VERIFIED_URL} in Twilio's console"
    )
}

fn mapped(path: &str, webhook: &str, verified_url: &str) -> String {
    format!(
        "signed for https://bot.example.com/a{path} and verified for {verified_url}: a proxy maps the path; let it pass the path \
         as it is and set server.paths.{webhook} = \"{path}\", or enter {verified_url} in Twilio's console"
    )
}

#[test]
fn wrong_signature_explanation_names_exact_fix() {
    let message = message;
    let unsigned_blank = |webhook: &Webhook| -> FormParams {
        webhook.form.iter().filter(|(_, v)| !v.is_empty()).collect()
    };
    let sms = message().with("FromCity", "").with("ToZip", "");
    let table: Vec<(&str, Webhook, String)> = vec![
        (
            "another scheme",
            message().signed_for("http://bot.example.com/a/webhook"),
            signed_for("http://bot.example.com/a/webhook", "http://bot.example.com/a"),
        ),
        (
            "the tunnel's host, from X-Forwarded-Host",
            message().header("X-Forwarded-Host", "x.ngrok.app").signed_for("https://x.ngrok.app/webhook"),
            signed_for("https://x.ngrok.app/webhook", "https://x.ngrok.app"),
        ),
        (
            "the host of Forwarded, with a prefix",
            message().header("Forwarded", "for=1.2.3.4;host=\"y.example.com\";proto=https").signed_for("https://y.example.com/a/webhook"),
            signed_for("https://y.example.com/a/webhook", "https://y.example.com/a"),
        ),
        (
            "another port, from X-Forwarded-Port",
            message().header("X-Forwarded-Port", "8443").signed_for("https://bot.example.com:8443/a/webhook"),
            signed_for("https://bot.example.com:8443/a/webhook", "https://bot.example.com:8443/a"),
        ),
        (
            "without the prefix",
            message().signed_for("https://bot.example.com/webhook"),
            signed_for("https://bot.example.com/webhook", "https://bot.example.com"),
        ),
        (
            "another prefix, from X-Forwarded-Prefix",
            message().header("X-Forwarded-Prefix", "/bots/b").signed_for("https://bot.example.com/bots/b/webhook"),
            signed_for("https://bot.example.com/bots/b/webhook", "https://bot.example.com/bots/b"),
        ),
        (
            "a slash too many in the console",
            message().signed_for("https://bot.example.com/a/webhook/"),
            format!("signed for {VERIFIED_URL}/ and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "a host in capitals",
            message().signed_for("https://BOT.EXAMPLE.COM/a/webhook"),
            signed_for("https://BOT.EXAMPLE.COM/a/webhook", "https://BOT.EXAMPLE.COM/a"),
        ),
        (
            "a host with a capital letter",
            message().signed_for("https://Bot.example.com/a/webhook"),
            signed_for("https://Bot.example.com/a/webhook", "https://Bot.example.com/a"),
        ),
        (
            "a host with capital letters and a port",
            message().header("X-Forwarded-Port", "8443").signed_for("https://Bot.Example.Com/a/webhook"),
            signed_for("https://Bot.Example.Com/a/webhook", "https://Bot.Example.Com/a"),
        ),
        (
            "a host whose first label is in capitals",
            message().signed_for("https://BOT.example.com/a/webhook"),
            signed_for("https://BOT.example.com/a/webhook", "https://BOT.example.com/a"),
        ),
        (
            "a host in capitals and a mapped path",
            message().signed_for("https://BOT.EXAMPLE.COM/a/sms"),
            format!("signed for https://BOT.EXAMPLE.COM/a/sms and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "a host with other capitals, from X-Forwarded-Host, and a mapped path",
            message().header("X-Forwarded-Host", "bot.EXAMPLE.com").signed_for("https://bot.EXAMPLE.com/a/sms"),
            format!("signed for https://bot.EXAMPLE.com/a/sms and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "a scheme in capitals",
            message().signed_for("HTTPS://bot.example.com/a/webhook"),
            format!("signed for HTTPS://bot.example.com/a/webhook and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "scheme and host in capitals",
            message().signed_for("HTTPS://BOT.EXAMPLE.COM/a/webhook"),
            format!("signed for HTTPS://BOT.EXAMPLE.COM/a/webhook and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "a scheme in capitals and a mapped path",
            message().signed_for("HTTPS://bot.example.com/a/sms"),
            format!("signed for HTTPS://bot.example.com/a/sms and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "a common path that a proxy maps",
            message().signed_for("https://bot.example.com/a/sms"),
            mapped("/sms", "primary", VERIFIED_URL),
        ),
        (
            "a common path with a slash, mapped by a proxy that strips the prefix too",
            message().to("/webhook/status?x=1").signed_for("https://bot.example.com/a/twilio/status/?x=1"),
            mapped("/twilio/status", "status", &format!("{VERIFIED_URL}/status"))
                .replacen("/twilio/status and", "/twilio/status/ and", 1),
        ),
        (
            "the path of another webhook",
            message().to("/a/webhook/fallback").signed_for(VERIFIED_URL),
            format!(
                "signed for {VERIFIED_URL} and verified for {VERIFIED_URL}/fallback: a proxy maps the path of one webhook to \
                 another; let it pass the path as it is"
            ),
        ),
        (
            "another path, from X-Original-URI",
            message().header("X-Original-URI", "/a/our/own/path").signed_for("https://bot.example.com/a/our/own/path"),
            mapped("/our/own/path", "primary", VERIFIED_URL),
        ),
        (
            "a common path without the prefix",
            message().signed_for("https://bot.example.com/sms"),
            format!("signed for https://bot.example.com/sms and verified for {VERIFIED_URL}: enter {VERIFIED_URL} in Twilio's console"),
        ),
        (
            "the default token where the account has its own",
            message().with("AccountSid", OTHER),
            format!(
                "signed with the default token and not with the one configured for account {OTHER}: correct \
                 twilio.accounts.{OTHER}.auth_token"
            ),
        ),
        (
            "another account's token",
            message().token(OTHER_TOKEN),
            format!(
                "signed with the token configured for account {OTHER}, not with the default token: configure the account \
                 of this message with that token too, or exchange the two tokens"
            ),
        ),
        (
            "a body that was added",
            message().signature(&sign(&Secret::new(TOKEN), VERIFIED_URL, None).unwrap()),
            "signed as a request without parameters: something between Twilio and here turns a GET into a POST, or adds \
             a body; let it pass requests unchanged"
                .to_owned(),
        ),
        (
            "a POST that became a GET",
            {
                let signature = message().signature_for("https://bot.example.com/a");
                message().get().signature(&signature)
            },
            "signed as a POST and received as a GET: a redirect or proxy turned it around; give Twilio the final URL, \
             with its https and without a redirect"
                .to_owned(),
        ),
        (
            "a line feed at the end of the body",
            message().body(message().form.encode() + "\r\n"),
            "the signature fits without the white space at the end of the body: something between Twilio and here adds \
             it; let it pass the body unchanged"
                .to_owned(),
        ),
        (
            "a body that was encoded twice",
            {
                let twice: FormParams = message().form.iter().map(|(n, v)| (n.to_owned(), FormParams::from_iter([(v, "")]).encode().trim_end_matches('=').to_owned())).collect();
                message().body(twice.encode())
            },
            "the signature fits once the parameters are decoded a second time: something between Twilio and here encodes \
             the body again; let it pass the body unchanged"
                .to_owned(),
        ),
        (
            "a plus that became a space",
            {
                let sent = Webhook::message(1, "hi").header("Host", "10.0.0.3");
                let body = sent.form.encode().replace("%2B", "+");
                sent.body(body)
            },
            "the signature fits with + where there are spaces now: something between Twilio and here decodes the body and \
             does not encode + as %2B; let it pass the body unchanged"
                .to_owned(),
        ),
        (
            "line ends that were converted",
            message().with("Body", "a\r\nb").body(message().with("Body", "a\nb").form.encode()),
            "the signature fits with other line ends in the parameters: something between Twilio and here converts them; \
             let it pass the body unchanged"
                .to_owned(),
        ),
        (
            "blanks that were dropped",
            sms.clone().body(unsigned_blank(&sms).encode()),
            "the signature fits once empty parameters are added: something between Twilio and here drops empty parameters; \
             let it pass the body unchanged"
                .to_owned(),
        ),
        (
            "a signer that leaves out blanks",
            sms.clone().signature(&sign(&Secret::new(TOKEN), VERIFIED_URL, Some(&unsigned_blank(&sms))).unwrap()),
            "signed without its empty parameters, which Twilio never does: the signer must sign empty parameters too".to_owned(),
        ),
        (
            "a body read as Latin-1",
            message().with("Body", "olá").body(message().with("Body", "olÃ¡").form.encode()),
            "the signature fits once the parameters are read as UTF-8: something between Twilio and here decodes the body \
             in another character set; let it pass the body unchanged"
                .to_owned(),
        ),
        (
            "a body in base64",
            message().body(base64_of(message().form.encode().as_bytes())),
            // The encoded form has no AccountSid, and is explained nevertheless.
            "the signature fits once the body is decoded from base64: a gateway passes it encoded; let it pass the body as \
             it is"
                .to_owned(),
        ),
        (
            "a signer that takes one value of a repeated name",
            message().also("Tag", "a").also("Tag", "b").signature(&sign(&Secret::new(TOKEN), VERIFIED_URL, Some(&message().also("Tag", "a").form)).unwrap()),
            "signed with one value of a repeated parameter, which Twilio never does: the signer must sign every distinct \
             value, sorted, with the name before each"
                .to_owned(),
        ),
        (
            "a query that was encoded again",
            message().to("/webhook?tenant=a+b").signed_for(&format!("{VERIFIED_URL}?tenant=a%20b")),
            "the signature fits with the query encoded in another way: something between Twilio and here re-encodes it; \
             let it pass the query unchanged, or enter a URL without a query in Twilio's console"
                .to_owned(),
        ),
        (
            "a query that was sorted",
            message().to("/webhook?a=1&b=2").signed_for(&format!("{VERIFIED_URL}?b=2&a=1")),
            "the signature fits with the query's pairs in another order: something between Twilio and here sorts them; let \
             it pass the query unchanged, or enter a URL without a query in Twilio's console"
                .to_owned(),
        ),
        (
            "a query that was added",
            message().to("/webhook?utm=x").signed_for(VERIFIED_URL),
            "the signature fits without the query: something between Twilio and here adds it; let it pass the URL \
             unchanged"
                .to_owned(),
        ),
        (
            "a SharedKey",
            message().signature(&base64_of(&[7; 32])).header("X-Twilio-Webhooks-Signature-Settings", "key=SH0123,algorithm=HMAC_SHA256"),
            "the request names the SharedKey SH0123, which is not configured: set signature.shared_keys.SH0123.secret and \
             .account, or let Twilio sign this webhook with the auth token"
                .to_owned(),
        ),
        (
            "no header",
            message().signature(""),
            "the X-Twilio-Signature header is missing: the request is not Twilio's, or a proxy removes the header and must be \
             told to pass it"
                .to_owned(),
        ),
        (
            "two headers",
            message().header("X-Twilio-Signature", &base64_of(&[7; 20])),
            "there is more than one X-Twilio-Signature header: a proxy doubles it and must pass it once".to_owned(),
        ),
        (
            "a malformed header",
            message().signature("sha1=0"),
            "the X-Twilio-Signature header is not 28 characters of base64, or 44 with HMAC_SHA256: the request is not \
             Twilio's, or a proxy changes the header"
                .to_owned(),
        ),
        (
            "JSON instead of a form",
            message().content_type(Some("application/json")),
            "the body is neither application/x-www-form-urlencoded in UTF-8 nor vouched for by one bodySHA256 in the \
             query: a proxy changes Content-Type, or the request is not a messaging webhook"
                .to_owned(),
        ),
        (
            "no known cause",
            message().signature(&base64_of(&[7; 20])),
            format!(
                "none of these: another URL, token, body or query that was tried; verified for {VERIFIED_URL}, so compare this with \
                 Twilio's console, and TWILIO_AUTH_TOKEN with the primary token of the account that owns the sender (not an \
                 API key's secret, not a secondary token that was not promoted)"
            ),
        ),
        ("nothing wrong", message(), "the signature fits".to_owned()),
    ];
    assert!(table.len() >= 14);
    let accounts = [(
        "REPLYHOOK__TWILIO__ACCOUNTS__AC000000000000000000000000000000FF__AUTH_TOKEN",
        OTHER_TOKEN,
    )];
    for (what, webhook, remedy) in table {
        assert_eq!(explain(&accounts, &webhook), remedy, "{what}");
    }
}

// The path that most pages name, where the server has another.
#[test]
fn default_path_is_named_where_another_is_configured() {
    let env = [("REPLYHOOK__SERVER__PATHS__PRIMARY", "/inbox")];
    let verified = "https://bot.example.com/a/inbox";
    for path in ["/webhook", "/webhook/"] {
        let signed = format!("https://bot.example.com/a{path}");
        let text = explain(&env, &message().to("/inbox").signed_for(&signed));
        let start =
            format!("signed for {signed} and verified for {verified}: a proxy maps the path");
        assert!(text.starts_with(&start), "{text}");
    }
}

#[test]
fn unconfigured_account_is_named_in_explanation() {
    let webhook = message().with("AccountSid", OTHER);
    assert_eq!(
        explain(&[("TWILIO_ACCOUNT_SID", ACCOUNT)], &webhook),
        "the AccountSid is not configured: set TWILIO_ACCOUNT_SID to it, or add its token as \
         twilio.accounts.<AccountSid>.auth_token"
    );
}

#[test]
fn explanation_never_quotes_forged_header() {
    let evil = "evil.example/<script>\u{1b}[31m";
    for name in [
        "X-Forwarded-Host",
        "Host",
        "Forwarded",
        "X-Original-URI",
        "X-Forwarded-Prefix",
        "X-Twilio-Webhooks-Signature-Settings",
    ] {
        let value = if name.contains("Settings") {
            "key=evil.example <script>,algorithm=x"
        } else {
            &evil.replace('\u{1b}', "")
        };
        let text = explain(
            &[],
            &Webhook::message(1, "hi")
                .signature(&base64_of(&[7; 20]))
                .header(name, value),
        );
        assert!(!text.contains("evil"), "{name}: {text}");
    }
}

#[tokio::test]
async fn report_mode_rejects_and_explains_to_caller() {
    let env = [
        ("REPLYHOOK__SIGNATURE__MODE", "report"),
        ("REPLYHOOK__SERVER__LISTEN", "127.0.0.1:0"),
    ];
    let app = TestApp::build(&env, |app| {
        app.handler(async |_, _| -> &str { unreachable!("must not be called") })
    });
    let answer = app
        .send(Webhook::message(1, "hi").signed_for("http://hooks.example.test/webhook"))
        .await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.body,
        format!(
            "signed for http://hooks.example.test/webhook and verified for {ORIGIN}/webhook: set \
             PUBLIC_URL=http://hooks.example.test, or enter {ORIGIN}/webhook in Twilio's console\n"
        )
    );
    // A rejection for another reason is not explained.
    let method = Webhook::message(2, "hi").method(Method::DELETE);
    assert_eq!(app.send(method).await.body, "method not allowed\n");
}
