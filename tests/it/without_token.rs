//! Servers and commands without an auth token: shared keys verify webhooks, and API keys make the REST calls.

use std::path::Path;
use std::process::Command;

use replyhook::config::{ReconcileSettings, SendSettings, Settings, SigningSettings, Sources};
use replyhook::signature::{CapturedRequest, SignatureAlgorithm, sign_with};
use replyhook::{FormParams, Secret};
use serde_json::{Value, json};

use crate::support::server::reserve_port;
use crate::support::{
    ACCOUNT, ANA, Dev, EMPTY, FakeTwilio, ORIGIN, OTHER_TOKEN, SANDBOX, Server, TOKEN, TestApp,
    UNSET, Wait, Webhook, base64_of, installed, replyhook, report_skipped, root,
};

const SHA256: SignatureAlgorithm = SignatureAlgorithm::HmacSha256;
const SETTINGS: &str = "X-Twilio-Webhooks-Signature-Settings";
const SUBACCOUNT: &str = "AC00000000000000000000000000000002";
const API_KEY: &str = "SK00000000000000000000000000000001";
const SUB_API_KEY: &str = "SK00000000000000000000000000000002";
const SHARED_KEY: &str = "webhooks_sharedkey_main";
const SUB_SHARED_KEY: &str = "webhooks_sharedkey_sub";
const USER: &str = "whatsapp:+15550001111";

/// Permissions that a bot needs, as the manual lists them.
const PERMISSIONS: [&str; 5] = [
    "/twilio/messaging/messages/create",
    "/twilio/messaging/messages/read",
    "/twilio/messaging/messages/list",
    "/twilio/messaging/messages/update",
    "/twilio/messaging/services/read",
];

/// Settings of an account and of a subaccount, each with a shared key and an API key, and without an auth token.
const ENV: [(&str, &str); 10] = [
    ("TWILIO_AUTH_TOKEN", UNSET),
    ("TWILIO_ACCOUNT_SID", ACCOUNT),
    ("REPLYHOOK__TWILIO__API_KEY_SID", API_KEY),
    ("REPLYHOOK__TWILIO__API_KEY_SECRET", "main api secret"),
    (
        "REPLYHOOK__SIGNATURE__SHARED_KEYS__WEBHOOKS_SHAREDKEY_MAIN__SECRET",
        "main shared secret",
    ),
    (
        "REPLYHOOK__TWILIO__ACCOUNTS__AC00000000000000000000000000000002__API_KEY_SID",
        SUB_API_KEY,
    ),
    (
        "REPLYHOOK__TWILIO__ACCOUNTS__AC00000000000000000000000000000002__API_KEY_SECRET",
        "sub api secret",
    ),
    (
        "REPLYHOOK__SIGNATURE__SHARED_KEYS__WEBHOOKS_SHAREDKEY_SUB__SECRET",
        "sub shared secret",
    ),
    (
        "REPLYHOOK__SIGNATURE__SHARED_KEYS__WEBHOOKS_SHAREDKEY_SUB__ACCOUNT",
        SUBACCOUNT,
    ),
    ("REPLYHOOK__REPLY__PATH", "rest"),
];

fn signed(webhook: Webhook, id: &str, secret: &str) -> Webhook {
    let url = format!("{ORIGIN}{}", webhook.target);
    let signature = sign_with(SHA256, &Secret::new(secret), &url, Some(&webhook.form)).unwrap();
    webhook
        .signature(&signature)
        .header(SETTINGS, &format!("key={id},algorithm={SHA256}"))
}

fn of_main(number: u64) -> Webhook {
    signed(
        Webhook::message(number, "hi"),
        SHARED_KEY,
        "main shared secret",
    )
}

fn of_subaccount(number: u64) -> Webhook {
    let webhook = Webhook::message(number, "hi").with("AccountSid", SUBACCOUNT);
    signed(webhook, SUB_SHARED_KEY, "sub shared secret")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_account_replies_with_its_own_api_key() {
    let twilio = FakeTwilio::start();
    twilio.logins(&[
        (API_KEY, "main api secret"),
        (SUB_API_KEY, "sub api secret"),
    ]);
    let app = TestApp::with_twilio(&twilio, &ENV, |app| app);
    assert_eq!(app.send(of_subaccount(1)).await.twiml(), EMPTY);
    twilio.wait_for_phone(USER, 1);
    assert_eq!(app.send(of_main(2)).await.twiml(), EMPTY);
    twilio.wait_for_phone(USER, 2);
    let users: Vec<String> = twilio.posts().into_iter().map(|post| post.user).collect();
    assert_eq!(users, [SUB_API_KEY, API_KEY]);
}

// Without a configured token, the server rejects every webhook that a token signed.
#[tokio::test]
async fn webhook_signed_with_auth_token_is_rejected() {
    let app = TestApp::build(&ENV, |app| {
        app.handler(async |_, _| -> &str { unreachable!("must not be called") })
    });
    let of_sub = || Webhook::message(1, "hi").with("AccountSid", SUBACCOUNT);
    for webhook in [
        Webhook::message(1, "hi"),
        Webhook::message(1, "hi").token(OTHER_TOKEN),
        Webhook::message(1, "hi").without("AccountSid"),
        Webhook::message(1, "hi").token("main shared secret"),
        Webhook::message(1, "hi").token("main api secret"),
        of_sub(),
        of_sub().token("sub api secret"),
        signed(of_sub(), SHARED_KEY, "main shared secret"),
        signed(Webhook::message(1, "hi"), SHARED_KEY, "main api secret"),
    ] {
        let answer = app.send(webhook).await;
        assert_eq!(answer.assert_rejected(403), "signature not valid\n");
    }
    assert_eq!(app.message_count().await, 0);
}

/// Returns the explanation of a webhook for a server with these settings.
fn explain(env: &[(&str, &str)], webhook: &Webhook) -> String {
    let mut sources = Sources::default()
        .with_env([("PUBLIC_URL", ORIGIN)])
        .with_env(env.iter().copied());
    sources.env.retain(|_, value| value != UNSET);
    let settings = SigningSettings::load(&sources).unwrap();
    let public_url = settings.public_url.unwrap();
    let verifier = settings.twilio.signature_verifier(public_url).unwrap();
    let raw = String::from_utf8(webhook.raw(ORIGIN)).unwrap();
    let request = CapturedRequest::parse(&raw).unwrap();
    verifier.explain(&request.unverified()).to_string()
}

#[test]
fn missing_token_is_explained_for_its_account() {
    let message = || Webhook::message(1, "hi");
    let none_for = |account: &str, setting: &str| {
        format!(
            "no auth token is configured for account {account}, and the request names no SharedKey: set {setting}, or let \
             Twilio sign this webhook with a SharedKey of the account"
        )
    };
    let setting_of = |account: &str| format!("twilio.accounts.{account}.auth_token");
    let stranger = "AC00000000000000000000000000000009";
    for (webhook, explanation) in [
        (message(), none_for(ACCOUNT, "TWILIO_AUTH_TOKEN")),
        (
            message().with("AccountSid", SUBACCOUNT),
            none_for(SUBACCOUNT, &setting_of(SUBACCOUNT)),
        ),
        (
            message().with("AccountSid", stranger),
            none_for(stranger, &setting_of(stranger)),
        ),
        (
            message().without("AccountSid"),
            "no auth token is configured, and the request names no SharedKey: set TWILIO_AUTH_TOKEN, or let Twilio sign \
             this webhook with a SharedKey of the account"
                .to_owned(),
        ),
        (
            message().token("main shared secret"),
            format!(
                "signed with the SharedKey {SHARED_KEY}, but the header X-Twilio-Webhooks-Signature-Settings, which names \
                 the key, is missing: a proxy removes the header and must be told to pass it"
            ),
        ),
        (
            signed(message(), "webhooks_sharedkey_x", "?"),
            "the request names the SharedKey webhooks_sharedkey_x, which is not configured: set \
             signature.shared_keys.webhooks_sharedkey_x.secret and .account, or let Twilio sign this webhook with a \
             SharedKey that is configured"
                .to_owned(),
        ),
        (
            signed(
                message().with("AccountSid", stranger),
                "webhooks_sharedkey_x",
                "?",
            ),
            "the request names the SharedKey webhooks_sharedkey_x, which is not configured, nor is another key or an auth \
             token of its account: set signature.shared_keys.webhooks_sharedkey_x.secret and .account"
                .to_owned(),
        ),
        (of_main(1), "the signature fits".to_owned()),
        (of_subaccount(1), "the signature fits".to_owned()),
    ] {
        assert_eq!(explain(&ENV, &webhook), explanation);
    }
    // With a token for one of the two accounts, the other one still has none.
    let mixed = [&ENV[..], &[("TWILIO_AUTH_TOKEN", TOKEN)]].concat();
    assert_eq!(explain(&mixed, &message()), "the signature fits");
    assert_eq!(
        explain(&mixed, &message().with("AccountSid", SUBACCOUNT)),
        none_for(SUBACCOUNT, &setting_of(SUBACCOUNT))
    );
}

#[test]
fn rejection_log_says_that_no_token_is_configured() {
    let server = Server::start(&ENV);
    assert_eq!(server.send(&Webhook::message(1, "hi")).status, 403);
    let line = server.wait_for("no auth token is configured for account AC");
    assert!(line.contains("rejected_signature"), "{line}");
    assert_eq!(server.send(&of_main(2)).status, 200);
}

/// Returns the texts of the problems and warnings of settings in a file.
fn load(file: &str) -> (Vec<String>, Vec<String>) {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let sources = Sources::default()
        .with_file(path.path())
        .with_env([("PUBLIC_URL", ORIGIN)]);
    match Settings::load(&sources) {
        Ok(loaded) => {
            let warnings = loaded.warnings.iter();
            let warnings = warnings.map(|warning| format!("{}: {}", warning.key, warning.text));
            (Vec::new(), warnings.collect())
        }
        Err(problems) => {
            let problems = problems.iter();
            let problems = problems.map(|problem| format!("{}: {}", problem.key, problem.text));
            (problems.collect(), Vec::new())
        }
    }
}

/// A table of the account's main keys.
fn main_table(fields: &str) -> String {
    format!("[twilio]\naccount_sid = \"{ACCOUNT}\"\n{fields}\n")
}

fn api_key(sid: &str) -> String {
    format!("api_key_sid = \"{sid}\"\napi_key_secret = \"s3cret\"")
}

fn shared_key_of(account: &str) -> String {
    format!("[signature.shared_keys.k]\nsecret = \"x\"\naccount = \"{account}\"\n")
}

fn sub_table(fields: &str) -> String {
    format!("[twilio.accounts.{SUBACCOUNT}]\n{fields}\n")
}

#[test]
fn usable_combination_of_keys_is_accepted() {
    let with_key = main_table(&api_key(API_KEY)) + &shared_key_of(ACCOUNT);
    let sub_key = sub_table(&api_key(SUB_API_KEY));
    let token = format!("auth_token = \"{TOKEN}\"");
    for file in [
        with_key.clone(),
        with_key.clone() + &sub_table(&token),
        with_key.clone()
            + &sub_key
            + "[signature.shared_keys.sub]\nsecret = \"y\"\naccount = \""
            + SUBACCOUNT
            + "\"\n",
        // The main keys are those of every account without account_sid.
        format!("[twilio]\n{}\n", api_key(API_KEY)) + &shared_key_of(SUBACCOUNT),
        format!("[twilio]\n{token}\n") + &shared_key_of(SUBACCOUNT) + &sub_key,
        // An account of its own, without main keys.
        sub_table(&token),
        sub_key.clone() + &shared_key_of(SUBACCOUNT),
        sub_table(&(token.clone() + "\n" + &api_key(SUB_API_KEY))),
        main_table("") + &format!("[twilio.accounts.{ACCOUNT}]\n{token}\n"),
    ] {
        assert_eq!(load(&file), (vec![], vec![]), "{file}");
    }
}

#[test]
fn wrong_combination_of_keys_is_reported_with_remedy() {
    let missing_token = "twilio.auth_token: is missing: set TWILIO_AUTH_TOKEN (or TWILIO_AUTH_TOKEN_FILE) to the auth token \
         in Twilio's console, or configure a key in signature.shared_keys; without either nothing can be verified. To try a bot without \
         an account, run `replyhook dev`, or in Rust a DevServer";
    let with_key = main_table(&api_key(API_KEY)) + &shared_key_of(ACCOUNT);
    let of_sub = |field: &str| format!("twilio.accounts.{SUBACCOUNT}{field}");
    for (file, problem) in [
        (String::new(), missing_token.to_owned()),
        (main_table(&api_key(API_KEY)), missing_token.to_owned()),
        (sub_table(&api_key(API_KEY)), missing_token.to_owned()),
        (
            main_table(&api_key(API_KEY))
                + &shared_key_of(SUBACCOUNT)
                + &sub_table(&api_key(SUB_API_KEY)),
            format!(
                "twilio.auth_token: is missing, and no key in signature.shared_keys has the account {ACCOUNT}: set \
                 TWILIO_AUTH_TOKEN, or the account of a shared key; without either nothing of the account can be verified"
            ),
        ),
        (
            main_table("") + &shared_key_of(ACCOUNT),
            "twilio.api_key_sid: is missing: without an auth token, calls of Twilio's API (late replies, media) need an API \
             key; set twilio.api_key_sid and twilio.api_key_secret"
                .to_owned(),
        ),
        (
            main_table(&format!("api_key_sid = \"{API_KEY}\"")) + &shared_key_of(ACCOUNT),
            "twilio.api_key_secret: is missing: twilio.api_key_sid is set, and needs its secret".to_owned(),
        ),
        (
            main_table("api_key_secret = \"s3cret\"") + &shared_key_of(ACCOUNT),
            "twilio.api_key_sid: is missing: twilio.api_key_secret is set, and needs its SK…".to_owned(),
        ),
        (
            main_table(&api_key(ACCOUNT)) + &shared_key_of(ACCOUNT),
            "twilio.api_key_sid: is not an API key: write SK and 32 hexadecimal digits".to_owned(),
        ),
        (
            main_table(&format!(
                "auth_token_secondary = \"{TOKEN}\"\n{}",
                api_key(API_KEY)
            )) + &shared_key_of(ACCOUNT),
            "twilio.auth_token_secondary: is set without twilio.auth_token: set TWILIO_AUTH_TOKEN to it, and leave this one \
             out"
            .to_owned(),
        ),
        (
            with_key.clone() + &sub_table(""),
            of_sub(
                ": is empty: set auth_token, or api_key_sid and api_key_secret, or leave the account out",
            ),
        ),
        (
            with_key.clone() + &sub_table("api_key_sid = \"\""),
            of_sub(".api_key_sid: is empty: set it or leave the account out"),
        ),
        (
            with_key.clone() + &sub_table(&format!("api_key_sid = \"{API_KEY}\"")),
            of_sub(&format!(
                ".api_key_secret: is missing: {} is set, and needs its secret",
                of_sub(".api_key_sid")
            )),
        ),
        (
            with_key.clone() + &sub_table("api_key_secret = \"s3cret\""),
            of_sub(&format!(
                ".api_key_sid: is missing: {} is set, and needs its SK…",
                of_sub(".api_key_secret")
            )),
        ),
        (
            with_key.clone() + &sub_table(&api_key("SK1")),
            of_sub(".api_key_sid: is not an API key: write SK and 32 hexadecimal digits"),
        ),
        (
            with_key.clone() + &sub_table("api_key = \"x\""),
            of_sub(
                ".api_key: is not a known key; write twilio.accounts.<AccountSid>.auth_token, …auth_token_file, \
                 …api_key_sid, …api_key_secret or …api_key_secret_file",
            ),
        ),
        (
            with_key.clone() + "[twilio.accounts.AC1]\n",
            "twilio.accounts.AC1.auth_token: is not an account SID: expected AC and 32 hexadecimal digits, 34 characters"
                .to_owned(),
        ),
        (
            with_key.clone()
                + &format!("[signature.shared_keys.sub]\nsecret = \"y\"\naccount = \"{SUBACCOUNT}\"\n"),
            format!(
                "signature.shared_keys.sub.account: is an account that is not configured: set TWILIO_ACCOUNT_SID to it, or \
                 twilio.accounts.{SUBACCOUNT} with an auth_token, or with api_key_sid and api_key_secret; replies via the \
                 REST API need them"
            ),
        ),
        (
            with_key.clone() + "[signature.shared_keys.empty]\n",
            "signature.shared_keys.empty.secret: is missing: set it, or secret_file, to the secret that Twilio showed when \
             the key was created"
                .to_owned(),
        ),
    ] {
        assert_eq!(load(&file), (vec![problem], vec![]), "{file}");
    }
    let (problems, warnings) = load(&(with_key + &sub_table(&api_key(SUB_API_KEY))));
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        warnings,
        [of_sub(
            ".api_key_sid: is set, but the account has neither an auth token nor a shared key, so its webhooks are rejected: \
             set its auth_token, or the account of a key in signature.shared_keys"
        )]
    );
}

// The environment fills a table that the file has empty.
#[test]
fn environment_completes_empty_account_table() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), sub_table("")).unwrap();
    let name = format!("REPLYHOOK__TWILIO__ACCOUNTS__{SUBACCOUNT}__AUTH_TOKEN");
    let sources = Sources::default().with_file(file.path()).with_env([
        ("PUBLIC_URL", ORIGIN),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        (&name, OTHER_TOKEN),
    ]);
    let settings = Settings::load(&sources).unwrap().settings;
    assert_eq!(settings.twilio.accounts.len(), 1);
}

// `send` and `reconcile` run next to the server, perhaps without access to its secrets for webhooks.
#[test]
fn commands_need_no_key_that_verifies_webhooks() {
    let file = format!(
        "{}{}[signature.shared_keys.k]\nsecret_file = \"/nonexistent\"\n",
        main_table(&api_key(API_KEY)),
        sub_table(&api_key(SUB_API_KEY))
    );
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let sources = Sources::default().with_file(path.path());
    assert!(SendSettings::load(&sources).unwrap().credentials.is_some());
    let settings = ReconcileSettings::load(&sources).unwrap();
    let accounts: Vec<_> = settings
        .accounts
        .iter()
        .map(|(sid, credentials)| (sid.as_str(), format!("{credentials:?}")))
        .collect();
    assert_eq!(accounts.len(), 2);
    assert!(accounts[0].0 == ACCOUNT && accounts[0].1.contains(API_KEY));
    assert!(accounts[1].0 == SUBACCOUNT && accounts[1].1.contains(SUB_API_KEY));
}

#[test]
fn sign_and_invoke_commands_explain_or_use_what_is_there() {
    let server = Server::start(&ENV);
    let url = format!("http://{}/webhook", server.public);
    let args = ["sign", "--url", "https://x.example/webhook"];
    let (code, _, err) = replyhook(&args, &ENV, "");
    assert_eq!(code, 2);
    assert!(
        err.contains(
            "no auth token is configured; set TWILIO_AUTH_TOKEN, or name a key with --shared-key"
        ),
        "{err}"
    );
    let signed_url = format!("{ORIGIN}/webhook");
    let (code, out, err) = replyhook(&["invoke", &url, "--url", &signed_url], &ENV, "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("200 text/xml"), "{out}");
}

#[test]
fn twilio_python_signature_with_shared_key_is_accepted_without_token() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the official Python library as signer");
    };
    let twilio = FakeTwilio::start();
    twilio.logins(&[(API_KEY, "main api secret")]);
    let url = twilio.url();
    let env = [&ENV[..], &[("REPLYHOOK__TWILIO__API_URL", url.as_str())]].concat();
    let server = Server::start(&env);
    for (number, count, algorithm) in [(1, 1, "HMAC_SHA1"), (2, 2, "HMAC_SHA256")] {
        let webhook = Webhook::message(number, "olá + 100 %");
        let output = Command::new(&python)
            .arg(root().join("tests/sdk/shared_key.py"))
            .args([
                "main shared secret",
                algorithm,
                &format!("{ORIGIN}/webhook"),
            ])
            .args(
                webhook
                    .form
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let signature = String::from_utf8(output.stdout).unwrap();
        let header = format!("key={SHARED_KEY},algorithm={algorithm}");
        let webhook = webhook
            .signature(signature.trim())
            .header(SETTINGS, &header);
        assert_eq!(server.send(&webhook).twiml(), EMPTY);
        assert_eq!(twilio.wait_for_phone(USER, count).len(), count);
    }
    assert!(twilio.posts().iter().all(|post| post.user == API_KEY));
}

/// A server without an auth token, and the emulator as its Twilio, which knows one shared key and one API key.
struct Deployment {
    dev: Dev,
    server: Server,
    env: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

impl Deployment {
    fn start(allow: Option<&[&str]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reserved = reserve_port();
        let origin = format!("http://{}", reserved.local_addr().unwrap());
        let [primary, fallback, status] =
            ["", "/fallback", "/status"].map(|path| format!("{origin}/webhook{path}"));
        let dev = Dev::start_with(
            &[
                "--webhook",
                &primary,
                "--fallback",
                &fallback,
                "--status-callback",
                &status,
            ],
            &[],
        );
        dev.control(
            "PUT",
            "/faults",
            &json!({
                "shared_key": {"id": SHARED_KEY, "secret": "main shared secret", "algorithm": "HMAC_SHA256"},
                "api_key": {"sid": API_KEY, "secret": "main api secret", "allow": allow},
            }),
        );
        let file = |name: &str| folder.path().join(name).display().to_string();
        let env = vec![
            ("TWILIO_AUTH_TOKEN", UNSET.to_owned()),
            ("TWILIO_ACCOUNT_SID", dev.account.clone()),
            ("REPLYHOOK__TWILIO__API_KEY_SID", API_KEY.to_owned()),
            (
                "REPLYHOOK__TWILIO__API_KEY_SECRET",
                "main api secret".to_owned(),
            ),
            (
                "REPLYHOOK__SIGNATURE__SHARED_KEYS__WEBHOOKS_SHAREDKEY_MAIN__SECRET",
                "main shared secret".to_owned(),
            ),
            ("REPLYHOOK__TWILIO__API_URL", dev.url.clone()),
            ("REPLYHOOK__TWILIO__MESSAGING_URL", dev.url.clone()),
            ("REPLYHOOK__TWILIO__CONTENT_URL", dev.url.clone()),
            (
                "REPLYHOOK__SERVER__LISTEN",
                reserved.local_addr().unwrap().to_string(),
            ),
            ("REPLYHOOK__MEDIA__SAVE_DIR", file("media")),
            ("REPLYHOOK__REPLY__PATH", "rest".to_owned()),
            ("PUBLIC_URL", origin),
            ("DATABASE_URL", format!("sqlite:{}", file("kept.db"))),
        ];
        let server = Server::start(&borrowed(&env));
        Self {
            dev,
            server,
            env,
            folder,
        }
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let private = self.server.private.to_string();
        let mut env = borrowed(&self.env);
        env.push(("REPLYHOOK__ADMIN__LISTEN", &private));
        replyhook(args, &env, "")
    }

    /// Waits until the phone shows this number of messages of the bot.
    fn wait_for_replies(&self, number: usize) -> Vec<Value> {
        let wait = Wait::until(format!("{number} messages of the bot are on the phone"));
        loop {
            let mut messages = self.dev.conversation(ANA);
            messages.retain(|message| message["direction"] == "out");
            if messages.len() >= number {
                return messages;
            }
            wait.check_found(&messages);
        }
    }
}

fn borrowed<'a>(env: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    env.iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

fn files_in(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let lengths = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { files_in(&path) } else { 1 }
    });
    lengths.sum()
}

#[test]
fn server_and_commands_work_without_token_by_restricted_key() {
    let deployment = Deployment::start(Some(&PERMISSIONS));
    deployment.dev.says(&json!({"from": ANA, "body": "hi"}));
    assert_eq!(deployment.wait_for_replies(1)[0]["body"], "hi");
    let media = json!([{"data": base64_of(b"a picture"), "content_type": "image/png"}]);
    deployment.dev.says(&json!({"from": ANA, "media": media}));
    let wait = Wait::until("the picture is saved");
    while files_in(&deployment.folder.path().join("media")) == 0 {
        wait.check();
    }
    deployment.wait_for_replies(2);
    let args = [
        "send", "--to", ANA, "--from", SANDBOX, "--body", "ready", "--wait",
    ];
    let (code, out, err) = deployment.run(&args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(deployment.wait_for_replies(3)[2]["body"], "ready");
    let (code, out, err) = deployment.run(&["reconcile", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("2 inbound messages in Twilio's list: 2 known, 0 missing"),
        "{out}"
    );
    let (code, out, err) = deployment.run(&["doctor"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let account = &deployment.dev.account;
    for line in [
        "leads to this very server, and the signature verifies".to_owned(),
        format!(
            "note credentials: not checkable without the auth token of {account}: the status of the account"
        ),
        format!("ok   credentials: the API key of {account} is right"),
        "ok   clock: it agrees with Twilio's".to_owned(),
        format!(
            "note twilio: not checkable with the API key of {account}: the webhooks of its numbers: Twilio rejected the \
             call: the API key lacks a permission (70051, HTTP 403): Permission denied: the API key lacks \
             /twilio/phone-numbers/numbers/list"
        ),
        "/twilio/messaging/senders/list".to_owned(),
    ] {
        assert!(out.contains(&line), "{line} is not in\n{out}");
    }
    let verified = r#"replyhook_verified_requests_total{auth_token="shared_key"}"#;
    assert!(deployment.server.metric(verified) >= 2.0);
    assert!(!deployment.server.log().contains("secret"));
}

#[test]
fn doctor_with_standard_key_reads_webhooks_but_not_the_account() {
    let deployment = Deployment::start(None);
    let (_, out, err) = deployment.run(&["doctor"]);
    assert_eq!(err, "");
    let account = &deployment.dev.account;
    assert!(
        out.contains(&format!(
            "ok   credentials: the API key of {account} is right"
        )),
        "{out}"
    );
    assert!(
        !out.contains("70051") && !out.contains("not checkable with the API key"),
        "{out}"
    );
}

#[test]
fn missing_permission_is_reported_in_twilios_words() {
    let deployment = Deployment::start(Some(&["/twilio/messaging/messages/read"]));
    let (code, out, _) = deployment.run(&["doctor"]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("may not list messages: Twilio rejected the call: the API key lacks a permission (70051, HTTP 403): \
             Permission denied: the API key lacks /twilio/messaging/messages/list"),
        "{out}"
    );
    assert!(
        out.contains("give the key the permission /twilio/messaging/messages/list"),
        "{out}"
    );
    let (code, _, err) = deployment.run(&["reconcile", "--dry-run"]);
    assert_eq!(code, 1);
    assert!(err.contains("/twilio/messaging/messages/list"), "{err}");
    deployment.dev.says(&json!({"from": ANA, "body": "hi"}));
    let line = deployment
        .server
        .wait_for("Permission denied: the API key lacks /twilio/messaging/messages/create");
    assert!(line.contains("Twilio rejected a message"), "{line}");
}

#[test]
fn emulator_api_key_allows_only_its_permissions() {
    let dev = Dev::start();
    let faults =
        |allow: Value| json!({"api_key": {"sid": API_KEY, "secret": "s3cret", "allow": allow}});
    dev.control(
        "PUT",
        "/faults",
        &faults(json!(["/twilio/messaging/messages/create"])),
    );
    let messages = format!("/2010-04-01/Accounts/{}/Messages.json", dev.account);
    let account = format!("/2010-04-01/Accounts/{}.json", dev.account);
    let call = |method: &str, path: &str, user: &str, password: &str, body: &str| {
        let login = base64_of(format!("{user}:{password}").as_bytes());
        let (host, authorization) = (dev.host(), format!("Basic {login}"));
        let headers = [
            ("Host", host.as_str()),
            ("Authorization", &authorization),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let answer = dev.exchange(method, path, &headers, body);
        let code = serde_json::from_str::<Value>(&answer.body).unwrap()["code"].as_u64();
        (answer.status, code.unwrap_or_default())
    };
    let form = FormParams::from_iter([("To", ANA), ("From", SANDBOX), ("Body", "hi")]).encode();
    assert_eq!(call("POST", &messages, API_KEY, "s3cret", &form), (201, 0));
    assert_eq!(call("GET", &messages, API_KEY, "s3cret", ""), (403, 70051));
    assert_eq!(call("GET", &account, API_KEY, "s3cret", ""), (401, 20003));
    assert_eq!(call("GET", &messages, API_KEY, "wrong", ""), (401, 20003));
    assert_eq!(
        call("GET", &messages, SUB_API_KEY, &dev.token, ""),
        (401, 20003)
    );
    assert_eq!(
        call("GET", &account, &dev.account, &dev.token, ""),
        (200, 0)
    );
    dev.control("PUT", "/faults", &faults(Value::Null));
    assert_eq!(call("GET", &messages, API_KEY, "s3cret", ""), (200, 0));
    assert_eq!(call("GET", &account, API_KEY, "s3cret", ""), (401, 20003));
}
