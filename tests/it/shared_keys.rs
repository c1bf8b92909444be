//! Webhooks that Twilio signs with a shared key in place of the auth token.

use http::{HeaderMap, Method};
use proptest::prelude::*;
use replyhook::config::{Settings, SigningSettings, Sources};
use replyhook::signature::{
    AuthTokenKind, CapturedRequest, PublicUrl, SharedKeyId, SignatureAlgorithm, SignatureErrorKind,
    SignatureVerifier, UnverifiedRequest, sign_with,
};
use replyhook::{AccountSid, FormParams, Secret};

use crate::support::{
    ACCOUNT, EMPTY, FakeTwilio, ORIGIN, OTHER_TOKEN, Server, TOKEN, TestApp, Webhook, base64_of,
    replyhook,
};

const SHA1: SignatureAlgorithm = SignatureAlgorithm::HmacSha1;
const SHA256: SignatureAlgorithm = SignatureAlgorithm::HmacSha256;
const OTHER_ACCOUNT: &str = "AC000000000000000000000000000000ff";
const SETTINGS: &str = "X-Twilio-Webhooks-Signature-Settings";

/// ID and secret of a key.
type Key = (&'static str, &'static str);

const A: Key = (
    "webhooks_sharedkey_01h455vb4pex5vsknk084sn02a",
    "secret of key a",
);
const B: Key = (
    "webhooks_sharedkey_01h455vb4pex5vsknk084sn02b",
    "secret of key b",
);
/// The key of the other account.
const C: Key = ("webhooks_sharedkey_c", "secret of key c");

/// Settings of the three keys, as a file.
fn settings_file() -> tempfile::NamedTempFile {
    let table = |(id, secret): Key, account: &str| {
        format!("[signature.shared_keys.{id}]\nsecret = \"{secret}\"\naccount = \"{account}\"\n")
    };
    let text = table(A, ACCOUNT) + &table(B, ACCOUNT) + &table(C, OTHER_ACCOUNT);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// The same settings, as environment variables.
fn env() -> Vec<(String, String)> {
    let keys = [(A, ACCOUNT), (B, ACCOUNT), (C, OTHER_ACCOUNT)];
    let of_key = |((id, secret), account): (Key, &str)| {
        let prefix = format!(
            "REPLYHOOK__SIGNATURE__SHARED_KEYS__{}",
            id.to_ascii_uppercase()
        );
        [
            (format!("{prefix}__SECRET"), secret.to_owned()),
            (format!("{prefix}__ACCOUNT"), account.to_owned()),
        ]
    };
    keys.into_iter().flat_map(of_key).collect()
}

fn borrowed(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// Signs a webhook with the secret of a key, and names the key.
fn signed(webhook: Webhook, key: Key, algorithm: SignatureAlgorithm) -> Webhook {
    let header = format!("key={},algorithm={algorithm}", key.0);
    signed_unnamed(webhook, key, algorithm).header(SETTINGS, &header)
}

fn signed_unnamed(webhook: Webhook, key: Key, algorithm: SignatureAlgorithm) -> Webhook {
    let url = format!("{ORIGIN}{}", webhook.target);
    let form = (webhook.method != Method::GET).then_some(&webhook.form);
    let signature = sign_with(algorithm, &Secret::new(key.1), &url, form).unwrap();
    webhook.signature(&signature)
}

const VERIFIED: &str = r#"replyhook_verified_requests_total{auth_token="shared_key"}"#;
const REJECTED: &str =
    r#"replyhook_webhooks_total{endpoint="primary",outcome="rejected_signature"}"#;
const OF_ACCOUNT: &str =
    r#"replyhook_webhooks_total{endpoint="primary",outcome="rejected_account"}"#;

#[tokio::test]
async fn shared_keys_and_auth_token_verify_on_one_url() {
    let env = env();
    let app = TestApp::build(&borrowed(&env), |app| app);
    app.send(signed(Webhook::message(1, "hi"), A, SHA1))
        .await
        .twiml();
    app.send(signed(Webhook::message(2, "hi"), A, SHA256))
        .await
        .twiml();
    app.send(signed(Webhook::message(3, "hi"), B, SHA256))
        .await
        .twiml();
    app.send(signed(Webhook::message(4, "hi").get(), B, SHA256))
        .await
        .twiml();
    let of_other = Webhook::message(5, "hi").with("AccountSid", OTHER_ACCOUNT);
    app.send(signed(of_other, C, SHA256)).await.twiml();
    app.send(Webhook::message(6, "hi")).await.twiml();
    // An empty header is a missing one.
    app.send(Webhook::message(7, "hi").header(SETTINGS, ""))
        .await
        .twiml();
    assert_eq!(app.metric(VERIFIED).await, 5.0);
    assert_eq!(
        app.metric(r#"replyhook_verified_requests_total{auth_token="primary"}"#)
            .await,
        2.0
    );
}

#[tokio::test]
async fn settings_header_is_read_as_twilio_libraries_do() {
    let env = env();
    let app = TestApp::build(&borrowed(&env), |app| app);
    for (number, (algorithm, header)) in [
        // Without an algorithm.
        (SHA1, format!("key={}", A.0)),
        (SHA1, format!("key={},algorithm=", A.0)),
        (SHA1, format!("key={},algorithm=hmac_sha1", A.0)),
        (SHA256, format!(" algorithm = HMAC_SHA256 , key = {} ", A.0)),
        (
            SHA256,
            format!("key={},version=2,algorithm=HMAC_SHA256,new", A.0),
        ),
        (
            SHA256,
            format!("key={},algorithm=HMAC_SHA256", A.0.to_ascii_uppercase()),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let message = Webhook::message(number as u64, "hi");
        let webhook = signed_unnamed(message, A, algorithm).header(SETTINGS, &header);
        assert_eq!(app.send(webhook).await.status, 200, "{header}");
    }
}

#[tokio::test]
async fn forged_shared_key_request_is_rejected_before_handler() {
    let env = env();
    let app = TestApp::build(&borrowed(&env), |app| {
        app.handler(async |_, _| -> &str { unreachable!("must not be called") })
    });
    let message = || Webhook::message(1, "hi");
    let named = |key: &str, algorithm: &str| format!("key={key},algorithm={algorithm}");
    let forged = [
        (
            "secret of another key",
            signed_unnamed(message(), B, SHA256).header(SETTINGS, &named(A.0, "HMAC_SHA256")),
        ),
        (
            "auth token",
            message().header(SETTINGS, &named(A.0, "HMAC_SHA1")),
        ),
        ("header removed", signed_unnamed(message(), A, SHA1)),
        (
            "header removed, 44 characters",
            signed_unnamed(message(), A, SHA256),
        ),
        (
            "token with SHA-256",
            signed_unnamed(message(), ("", TOKEN), SHA256),
        ),
        (
            "other algorithm",
            signed_unnamed(message(), A, SHA1).header(SETTINGS, &named(A.0, "HMAC_SHA256")),
        ),
        (
            "other algorithm",
            signed_unnamed(message(), A, SHA256).header(SETTINGS, &named(A.0, "HMAC_SHA1")),
        ),
        (
            "unknown algorithm",
            signed_unnamed(message(), A, SHA256).header(SETTINGS, &named(A.0, "HMAC_SHA512")),
        ),
        (
            "unknown key",
            signed(message(), ("webhooks_sharedkey_x", A.1), SHA256),
        ),
        (
            "no key",
            signed_unnamed(message(), A, SHA256).header(SETTINGS, "algorithm=HMAC_SHA256"),
        ),
        (
            "no key, auth token",
            message().header(SETTINGS, "algorithm=HMAC_SHA1"),
        ),
        (
            "empty key",
            message().header(SETTINGS, "key=,algorithm=HMAC_SHA1"),
        ),
        ("no parts, auth token", message().header(SETTINGS, "x")),
        (
            "doubled header",
            signed(signed(message(), A, SHA256), A, SHA256),
        ),
        (
            "two keys",
            signed_unnamed(message(), A, SHA1)
                .header(SETTINGS, &format!("key={},key={}", A.0, B.0)),
        ),
        (
            "two algorithms",
            signed_unnamed(message(), A, SHA1).header(
                SETTINGS,
                &format!("key={},algorithm=HMAC_SHA1,algorithm=HMAC_SHA256", A.0),
            ),
        ),
        ("changed body", {
            let mut webhook = signed(message(), A, SHA256);
            webhook.form = message().with("Body", "bye").form;
            webhook
        }),
        ("two signatures", {
            let webhook = signed(message(), A, SHA256);
            let signature = webhook.signature.clone().unwrap();
            webhook.header("X-Twilio-Signature", &signature)
        }),
        ("without padding", {
            let webhook = signed(message(), A, SHA256);
            let signature = webhook.signature.clone().unwrap();
            webhook.signature(signature.trim_end_matches('='))
        }),
    ];
    let count = u32::try_from(forged.len()).unwrap();
    for (what, webhook) in forged {
        let answer = app.send(webhook).await;
        assert_eq!(
            answer.assert_rejected(403),
            "signature not valid\n",
            "{what}"
        );
    }
    assert_eq!(app.metric(REJECTED).await, f64::from(count));
    assert_eq!(app.metric(VERIFIED).await, 0.0);
    assert_eq!(app.metric(OF_ACCOUNT).await, 0.0);
}

#[tokio::test]
async fn shared_key_request_of_other_account_is_rejected_account() {
    let env = env();
    let app = TestApp::build(&borrowed(&env), |app| app);
    let of_other = || Webhook::message(1, "hi").with("AccountSid", OTHER_ACCOUNT);
    app.send(signed(of_other(), A, SHA256))
        .await
        .assert_rejected(403);
    app.send(signed(Webhook::message(2, "hi"), C, SHA1))
        .await
        .assert_rejected(403);
    let malformed = Webhook::message(3, "hi").with("AccountSid", "AC1");
    app.send(signed(malformed, A, SHA256))
        .await
        .assert_rejected(403);
    assert_eq!(app.metric(OF_ACCOUNT).await, 3.0);
    // Without the secret, the account of a key is not revealed.
    let forged = of_other()
        .signature(&base64_of(&[7; 32]))
        .header(SETTINGS, &format!("key={},algorithm=HMAC_SHA256", A.0));
    app.send(forged).await.assert_rejected(403);
    assert_eq!(app.metric(OF_ACCOUNT).await, 3.0);
    assert_eq!(app.metric(REJECTED).await, 1.0);
}

// The key of the subaccount verifies its webhook; its REST calls need the configured auth token.
#[tokio::test(flavor = "multi_thread")]
async fn rest_reply_to_shared_key_request_uses_credentials_of_its_account() {
    let twilio = FakeTwilio::start();
    twilio.logins(&[(ACCOUNT, TOKEN), (OTHER_ACCOUNT, OTHER_TOKEN)]);
    let mut env = env();
    for (name, value) in [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        (
            "REPLYHOOK__TWILIO__ACCOUNTS__AC000000000000000000000000000000FF__AUTH_TOKEN",
            OTHER_TOKEN,
        ),
        ("REPLYHOOK__REPLY__DEADLINE_MS", "150"),
    ] {
        env.push((name.to_owned(), value.to_owned()));
    }
    let app = TestApp::with_twilio(&twilio, &borrowed(&env), |app| {
        app.handler(async |_, _| {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            "late"
        })
    });
    let of_other = Webhook::message(1, "hi").with("AccountSid", OTHER_ACCOUNT);
    let answer = app.send(signed(of_other, C, SHA256)).await;
    assert_eq!(answer.twiml(), EMPTY);
    twilio.wait_for_phone("whatsapp:+15550001111", 1);
    let answer = app.send(signed(Webhook::message(2, "hi"), A, SHA256)).await;
    assert_eq!(answer.twiml(), EMPTY);
    twilio.wait_for_phone("whatsapp:+15550001111", 2);
    let users: Vec<String> = twilio.posts().into_iter().map(|post| post.user).collect();
    assert_eq!(users, [OTHER_ACCOUNT, ACCOUNT]);
}

#[test]
fn rejection_log_names_unknown_key() {
    let env = env();
    let server = Server::start(&borrowed(&env));
    let webhook = signed(
        Webhook::message(1, "hi"),
        ("webhooks_sharedkey_x", A.1),
        SHA256,
    );
    assert_eq!(server.send(&webhook).status, 403);
    let line = server.wait_for("the request names the SharedKey webhooks_sharedkey_x");
    assert!(line.contains("rejected_signature"), "{line}");
    let signature = webhook.signature.unwrap();
    assert!(!server.log().contains(&signature) && !server.log().contains(A.1));
}

#[test]
fn rejection_log_gives_true_reason_for_key_of_other_account() {
    let env = env();
    let server = Server::start(&borrowed(&env));
    let webhook = signed(Webhook::message(1, "hi"), C, SHA256);
    assert_eq!(server.send(&webhook).status, 403);
    let line = server.wait_for("rejected_account");
    let reason = "the AccountSid is not configured, or is not that of the SharedKey";
    assert!(line.contains(reason), "{line}");
}

/// Returns the explanation of a webhook for a server with the three keys.
fn explain(webhook: &Webhook) -> String {
    let env = env();
    let sources = Sources::default()
        .with_env([("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", ORIGIN)])
        .with_env(borrowed(&env));
    let settings = SigningSettings::load(&sources).unwrap();
    let verifier = settings
        .twilio
        .signature_verifier(settings.public_url.unwrap())
        .unwrap();
    let raw = String::from_utf8(webhook.raw(ORIGIN)).unwrap();
    let request = CapturedRequest::parse(&raw).unwrap();
    verifier.explain(&request.unverified()).to_string()
}

#[test]
fn explanation_of_shared_key_names_exact_fix() {
    let message = || Webhook::message(1, "hi");
    let (a, b) = (A.0, B.0);
    let named_a = format!("key={a},algorithm=HMAC_SHA256");
    for (webhook, remedy) in [
        (signed(message(), A, SHA256), "the signature fits".to_owned()),
        (
            signed(message(), ("webhooks_sharedkey_x", "?"), SHA256),
            "the request names the SharedKey webhooks_sharedkey_x, which is not configured: set \
             signature.shared_keys.webhooks_sharedkey_x.secret and .account, or let Twilio sign this webhook with the auth \
             token"
                .to_owned(),
        ),
        (
            signed(message().with("AccountSid", OTHER_ACCOUNT), A, SHA256),
            format!(
                "signed with the SharedKey {a} of account {ACCOUNT}, although its AccountSid is another: correct \
                 signature.shared_keys.{a}.account, or let Twilio sign the webhooks of each account with its own key"
            ),
        ),
        (
            signed_unnamed(message(), B, SHA1),
            format!(
                "signed with the SharedKey {b}, but the header X-Twilio-Webhooks-Signature-Settings, which names the key, \
                 is missing: a proxy removes the header and must be told to pass it"
            ),
        ),
        (
            signed_unnamed(message(), B, SHA256),
            "signed with a SharedKey, but the header X-Twilio-Webhooks-Signature-Settings, which names the key, is \
             missing: a proxy removes the header and must be told to pass it"
                .to_owned(),
        ),
        (
            signed_unnamed(message(), B, SHA256).header(SETTINGS, &named_a),
            format!(
                "signed with the secret configured for the SharedKey {b}, although the request names {a}: correct the \
                 secrets of the two in signature.shared_keys"
            ),
        ),
        (
            signed_unnamed(message(), A, SHA256).header(SETTINGS, "algorithm=HMAC_SHA256"),
            "the X-Twilio-Webhooks-Signature-Settings header names no key: the request is not Twilio's, or a proxy changes \
             the header"
                .to_owned(),
        ),
        (
            signed(message(), A, SHA256).header(SETTINGS, &named_a),
            "there is more than one X-Twilio-Webhooks-Signature-Settings header, key or algorithm: a proxy doubles it and \
             must pass it once"
                .to_owned(),
        ),
        (
            signed_unnamed(message(), A, SHA256).header(SETTINGS, &format!("key={a},algorithm=HMAC_SHA512")),
            "the X-Twilio-Webhooks-Signature-Settings header names an algorithm other than HMAC_SHA1 and HMAC_SHA256: let \
             the setting of this webhook at Twilio use one of the two"
                .to_owned(),
        ),
        (
            signed_unnamed(message(), A, SHA256).header(SETTINGS, &format!("key={a}")),
            format!(
                "signed with the SharedKey {a} by HMAC_SHA256, although the header X-Twilio-Webhooks-Signature-Settings names \
                 HMAC_SHA1, or no algorithm, which means the same: a proxy changes the header and must pass it as it is"
            ),
        ),
        (
            signed_unnamed(message(), A, SHA1).header(SETTINGS, &named_a),
            format!(
                "signed with the SharedKey {a} by HMAC_SHA1, although the header X-Twilio-Webhooks-Signature-Settings names \
                 HMAC_SHA256: a proxy changes the header and must pass it as it is"
            ),
        ),
        (
            message().signature(&base64_of(&[7; 20])).header(SETTINGS, &named_a),
            "the signature has the length of HMAC_SHA1, although the header X-Twilio-Webhooks-Signature-Settings names \
             HMAC_SHA256: the request is not Twilio's, or a proxy changes one of the two headers"
                .to_owned(),
        ),
        (
            signed_unnamed(message(), A, SHA256).header(SETTINGS, "key=webhooks_sharedkey_x"),
            "the request names the SharedKey webhooks_sharedkey_x, which is not configured: set \
             signature.shared_keys.webhooks_sharedkey_x.secret and .account, or let Twilio sign this webhook with the auth \
             token"
                .to_owned(),
        ),
        (
            signed(message(), (a, "a mistyped secret"), SHA256),
            format!(
                "none of these: another URL, key, body or query that was tried; verified for {ORIGIN}/webhook with the \
                 SharedKey {a}, so compare the URL with Twilio's console, and signature.shared_keys.{a}.secret with the \
                 secret that Twilio showed when the key was created"
            ),
        ),
        (
            {
                let mut webhook = signed(message(), A, SHA256);
                let secret = Secret::new(A.1);
                let url = "https://x.ngrok.app/webhook";
                webhook.signature = Some(sign_with(SHA256, &secret, url, Some(&webhook.form)).unwrap());
                webhook.header("X-Forwarded-Host", "x.ngrok.app")
            },
            format!(
                "signed for https://x.ngrok.app/webhook and verified for {ORIGIN}/webhook: set \
                 PUBLIC_URL=https://x.ngrok.app, or enter {ORIGIN}/webhook in Twilio's console"
            ),
        ),
    ] {
        assert_eq!(explain(&webhook), remedy);
    }
}

// The sender of a request chooses the ID, and a terminal or log must not show what it likes.
#[test]
fn explanation_quotes_plain_key_ids_only() {
    for id in ["evil.example", "evil <b>", &"evil".repeat(17), "evil\u{e9}"] {
        let header = format!("key={id},algorithm=HMAC_SHA256");
        let webhook = signed_unnamed(Webhook::message(1, "hi"), A, SHA256);
        let text = explain(&webhook.header(SETTINGS, &header));
        assert!(!text.contains("evil"), "{text}");
        assert!(text.contains("names no key"), "{text}");
    }
}

fn load(env: &[(&str, &str)], file: &str) -> Result<Settings, Vec<String>> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let sources = Sources::default()
        .with_file(path.path())
        .with_env([("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", ORIGIN)])
        .with_env(env.iter().copied());
    let loaded = Settings::load(&sources).map_err(|problems| {
        let problems = problems.iter();
        problems
            .map(|problem| format!("{}: {}", problem.key, problem.text))
            .collect::<Vec<_>>()
    })?;
    Ok(loaded.settings)
}

#[test]
fn shared_key_settings_come_from_file_environment_and_secret_file() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "from the file\n").unwrap();
    let file = format!(
        "[signature.shared_keys.webhooks_sharedkey_A]\nsecret = \"?\"\naccount = \"{OTHER_ACCOUNT}\"\n\
         [signature.shared_keys.b]\nsecret_file = \"{}\"\n\
         [twilio.accounts.{OTHER_ACCOUNT}]\nauth_token = \"{OTHER_TOKEN}\"\n",
        secret.path().display()
    );
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        (
            "REPLYHOOK__SIGNATURE__SHARED_KEYS__WEBHOOKS_SHAREDKEY_A__SECRET",
            "from the environment",
        ),
    ];
    let settings = load(&env, &file).unwrap();
    let keys = settings.twilio.shared_keys.iter();
    let keys: Vec<_> = keys
        .map(|key| (key.id.as_str(), key.secret.expose(), key.account.as_str()))
        .collect();
    assert_eq!(
        keys,
        [
            ("b", "from the file", ACCOUNT),
            (
                "webhooks_sharedkey_A",
                "from the environment",
                OTHER_ACCOUNT
            ),
        ]
    );
    let shown = format!("{settings:?}");
    assert!(!shown.contains("from the"), "{shown}");
}

#[test]
fn shared_key_problem_names_key_and_remedy() {
    let table = |fields: &str| format!("[signature.shared_keys.k]\n{fields}");
    let account = format!("account = \"{ACCOUNT}\"");
    for (file, problem) in [
        (
            table(&account),
            "signature.shared_keys.k.secret: is missing: set it, or secret_file, to the secret that Twilio showed when the \
             key was created",
        ),
        (
            table(&format!("secret = \"\"\n{account}")),
            "signature.shared_keys.k.secret: is empty: set it or leave it out",
        ),
        (
            table(&format!("secret = \"x\"\nsecret_file = \"/x\"\n{account}")),
            "signature.shared_keys.k.secret: and signature.shared_keys.k.secret_file are both set: keep one of them",
        ),
        (
            table(&format!("secret_file = \"/nonexistent\"\n{account}")),
            "signature.shared_keys.k.secret_file: names /nonexistent, which cannot be read: No such file or directory (os \
             error 2)",
        ),
        (
            table("secret = \"x\""),
            "signature.shared_keys.k.account: is missing: set it, or TWILIO_ACCOUNT_SID, to the account whose webhooks the \
             key signs",
        ),
        (
            table("secret = \"x\"\naccount = \"SK1\""),
            "signature.shared_keys.k.account: is not an account SID: expected AC and 32 hexadecimal digits, 34 characters",
        ),
        (
            table(&format!(
                "secret = \"x\"\n{account}\nalgorithm = \"HMAC_SHA256\""
            )),
            "signature.shared_keys.k.algorithm: is not a known key; write signature.shared_keys.<ID>.secret, …secret_file \
             or …account",
        ),
        (
            table("secret = 5\n") + &account,
            "signature.shared_keys.k.secret: is not a text in quotes",
        ),
        (
            format!("[signature.shared_keys.\"a b\"]\nsecret = \"x\"\n{account}"),
            "signature.shared_keys.a b.secret: has a name that is not the ID of a SharedKey: expected 1 to 64 letters, \
             digits, _ or -",
        ),
    ] {
        let problems = load(&[], &file).unwrap_err();
        assert!(
            problems.iter().any(|found| found == problem),
            "{problems:?}"
        );
    }
}

#[test]
fn sign_and_explain_commands_use_shared_key() {
    let file = settings_file();
    let config = file.path().to_str().unwrap();
    let env = [("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", ORIGIN)];
    let url = format!("{ORIGIN}/webhook");
    let form = FormParams::from_iter([("Body", "hi")]);
    let sign = |more: &[&str]| {
        let args = [
            "sign", "--config", config, "--url", &url, "--data", "Body=hi",
        ];
        replyhook(&[&args[..], more].concat(), &env, "")
    };
    for (more, algorithm) in [(&[][..], SHA256), (&["--algorithm", "hmac_sha1"], SHA1)] {
        let more = [&["--shared-key", A.0][..], more].concat();
        let (code, out, err) = sign(&more);
        let expected = sign_with(algorithm, &Secret::new(A.1), &url, Some(&form)).unwrap();
        assert_eq!((code, out.trim_end()), (0, expected.as_str()), "{err}");
        let signature = format!("X-Twilio-Signature: {expected}");
        let settings = format!("{SETTINGS}: key={},algorithm={algorithm}", A.0);
        let explained = [
            "explain", "--config", config, "--url", &url, "--data", "Body=hi", "--header",
            &signature, "--header", &settings,
        ];
        let (code, out, err) = replyhook(&explained, &env, "");
        assert_eq!((code, out.as_str()), (0, "the signature fits\n"), "{err}");
    }
    for (more, part) in [
        (
            &["--shared-key", "webhooks_sharedkey_x"][..],
            "--shared-key webhooks_sharedkey_x is not configured",
        ),
        (&["--shared-key", "a b"], "not the ID of a SharedKey"),
        (
            &["--shared-key", A.0, "--algorithm", "HMAC_MD5"],
            "expected HMAC_SHA1 or HMAC_SHA256",
        ),
        (&["--algorithm", "HMAC_SHA1"], "--shared-key"),
    ] {
        let (code, _, err) = sign(more);
        assert_eq!(code, 2, "{more:?} {err}");
        assert!(err.contains(part), "{more:?}: {err}");
    }
    let (code, out, _) = replyhook(&["check", "--all", "--config", config], &env, "");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains(A.0) && !out.contains(A.1), "{out}");
}

/// Something that signs: the auth token, a configured key, or neither.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Signer {
    Token,
    Key(Key),
}

fn signers() -> impl Strategy<Value = Signer> {
    prop_oneof![
        Just(Signer::Token),
        Just(Signer::Key(A)),
        Just(Signer::Key(B)),
        Just(Signer::Key(C)),
        Just(Signer::Key(("webhooks_sharedkey_x", "of a stranger"))),
    ]
}

fn algorithms() -> impl Strategy<Value = SignatureAlgorithm> {
    prop_oneof![Just(SHA1), Just(SHA256)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    // Of all mixes of key, algorithm, account and header, only those are accepted that Twilio makes.
    #[test]
    fn mix_of_key_algorithm_account_and_header_is_accepted_only_if_all_match(
        (signer, algorithm) in (signers(), algorithms()),
        (named, named_algorithm) in (signers(), prop_oneof![algorithms().prop_map(Some), Just(None)]),
        account in prop_oneof![Just(ACCOUNT), Just(OTHER_ACCOUNT)],
        body in any::<String>(),
    ) {
        let (url, _) = PublicUrl::parse(ORIGIN).unwrap();
        let sid = |account: &str| AccountSid::parse(account).unwrap();
        let mut verifier = SignatureVerifier::new(url, [Secret::new(TOKEN)]).unwrap();
        for ((id, secret), account) in [(A, ACCOUNT), (B, ACCOUNT), (C, OTHER_ACCOUNT)] {
            let id = SharedKeyId::parse(id).unwrap();
            verifier = verifier.with_shared_key(id, sid(account), &Secret::new(secret)).unwrap();
        }
        let form = FormParams::from_iter([("AccountSid", account), ("Body", &body)]);
        let secret = match signer { Signer::Token => TOKEN, Signer::Key((_, secret)) => secret };
        let url = format!("{ORIGIN}/webhook");
        let signature = sign_with(algorithm, &Secret::new(secret), &url, Some(&form)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-twilio-signature", signature.parse().unwrap());
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        if let Signer::Key((id, _)) = named {
            let header = match named_algorithm {
                Some(algorithm) => format!("key={id},algorithm={algorithm}"),
                None => format!("key={id}"),
            };
            headers.insert("x-twilio-webhooks-signature-settings", header.parse().unwrap());
        }
        let body = form.encode();
        let request = UnverifiedRequest { method: &Method::POST, target: "/webhook", headers: &headers, body: body.as_bytes() };
        let result = verifier.verify(&request).map(|verified| verified.token).map_err(|error| error.kind());

        let is_signed = signer == named && match named {
            Signer::Token => algorithm == SHA1,
            Signer::Key(_) => algorithm == named_algorithm.unwrap_or(SHA1),
        };
        match named {
            Signer::Token if is_signed => prop_assert_eq!(result, Ok(AuthTokenKind::Primary)),
            Signer::Key(key) if is_signed && [A, B, C].contains(&key) => {
                let expected = if account == (if key == C { OTHER_ACCOUNT } else { ACCOUNT }) {
                    Ok(AuthTokenKind::SharedKey)
                } else {
                    Err(SignatureErrorKind::UnknownAccount)
                };
                prop_assert_eq!(result, expected);
            }
            _ => {
                let kind = result.unwrap_err();
                prop_assert!(kind != SignatureErrorKind::UnknownAccount, "{:?}", kind);
            }
        }
    }
}
