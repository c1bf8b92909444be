//! Settings: one report of all problems, each with key, origin and remedy; and the precedence of the sources.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use replyhook::config::{DEFAULT_TOML, Loaded, Problems, ReconcileSettings, Settings, Sources};

use crate::support::{ACCOUNT, ORIGIN, OTHER_TOKEN, TOKEN, read, root};

fn load(env: &[(&str, &str)], file: &str) -> Result<Loaded, Problems> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    Settings::load(
        &Sources::default()
            .with_file(path.path())
            .with_env(env.iter().copied()),
    )
}

const REQUIRED_ENV: [(&str, &str); 2] = [("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", ORIGIN)];

/// Returns the key and the text of each problem.
fn problems(env: &[(&str, &str)], file: &str) -> Vec<(String, String)> {
    let problems = load(env, file).expect_err("there are problems");
    problems
        .iter()
        .map(|problem| (problem.key.clone(), problem.text.clone()))
        .collect()
}

fn only_problem(env: &[(&str, &str)], file: &str) -> String {
    let found = problems(&[&REQUIRED_ENV, env].concat(), file);
    assert_eq!(found.len(), 1, "{found:?}");
    format!("{}: {}", found[0].0, found[0].1)
}

#[test]
fn config_file_with_five_errors_lists_all_five() {
    let file = "
        [server]
        shutdown_timeout = 5
        max_headers = 5
        listen = \"here\"
        [reply]
        deadline_ms = \"soon\"
        [log]
        format = \"xml\"
    ";
    assert_eq!(
        problems(&REQUIRED_ENV, file),
        [
            (
                "reply.deadline_ms".to_owned(),
                "is a text, expected a whole number without quotes".to_owned()
            ),
            (
                "server.shutdown_timeout".to_owned(),
                "is not a known key; did you mean server.shutdown_timeout_s?".to_owned()
            ),
            (
                "server.listen".to_owned(),
                "is \"here\": write ADDRESS:PORT, such as \"127.0.0.1:8080\" or \"[::]:8080\""
                    .to_owned()
            ),
            (
                "server.max_headers".to_owned(),
                "is 5: write a number from 16 to 1024".to_owned()
            ),
            (
                "log.format".to_owned(),
                "is \"xml\": write \"auto\", \"pretty\" or \"json\"".to_owned()
            ),
        ]
    );
}

#[test]
fn missing_required_settings_are_reported_with_remedy() {
    let found = problems(&[], "");
    assert_eq!(found.len(), 2);
    assert!(
        found[0]
            .1
            .contains("set TWILIO_AUTH_TOKEN (or TWILIO_AUTH_TOKEN_FILE)"),
        "{found:?}"
    );
    assert!(
        found[1].1.contains("set PUBLIC_URL to what Twilio calls"),
        "{found:?}"
    );
}

// Aliases are the well-known names of a setting, such as PUBLIC_URL and PORT.
#[test]
fn environment_overrides_file_and_aliases_override_both() {
    let file =
        "[server]\npublic_url = \"https://file.example\"\nshutdown_timeout_s = 1\nmax_params = 100";
    let env = [
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("REPLYHOOK__SERVER__PUBLIC_URL", "https://env.example"),
        ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "2"),
    ];
    let settings = load(&env, file).unwrap().settings;
    assert_eq!(
        settings.server.public_url.to_string(),
        "https://env.example"
    );
    assert_eq!(
        (settings.server.shutdown_timeout, settings.server.max_params),
        (Duration::from_secs(2), 100)
    );
    let settings = load(
        &[
            &env[..],
            &[("PUBLIC_URL", "https://name.example"), ("PORT", "3000")],
        ]
        .concat(),
        file,
    )
    .unwrap()
    .settings;
    assert_eq!(
        settings.server.public_url.to_string(),
        "https://name.example"
    );
    assert_eq!(settings.server.listen.to_string(), "0.0.0.0:3000");
    let listen = [("REPLYHOOK__SERVER__LISTEN", "[::1]:1"), ("PORT", "3000")];
    assert_eq!(
        load(&[&REQUIRED_ENV[..], &listen].concat(), "")
            .unwrap()
            .settings
            .server
            .listen
            .to_string(),
        "[::1]:3000"
    );
}

#[test]
fn effective_setting_names_its_origin() {
    let loaded = load(&REQUIRED_ENV, "[server]\nshutdown_timeout_s = 7").unwrap();
    let origin = |key: &str| {
        loaded
            .effective
            .iter()
            .find(|(known, ..)| known == key)
            .unwrap()
            .clone()
    };
    assert_eq!(
        origin("server.public_url").2,
        "environment variable PUBLIC_URL"
    );
    assert_eq!(origin("server.max_params").2, "default");
    let (_, value, from) = origin("server.shutdown_timeout_s");
    assert_eq!(value, "7");
    assert!(from.starts_with('/'), "{from}");
    assert_eq!(origin("twilio.auth_token").1, "********");
}

#[test]
fn invalid_value_is_reported_with_expected_form() {
    let in_main_table = format!(
        "[twilio.accounts.{ACCOUNT}]\napi_key_sid = \"SK00000000000000000000000000000001\"\napi_key_secret = \"x\""
    );
    for (env, file, problem) in [
        (
            &[("PORT", "http")][..],
            "",
            "PORT: is \"http\": write a port from 0 to 65535",
        ),
        (
            &[("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "soon")],
            "",
            "server.shutdown_timeout_s: is not a whole number",
        ),
        (
            &[("REPLYHOOK__SEVER__SHUTDOWN_TIMEOUT_S", "1")],
            "",
            "sever.shutdown_timeout_s: is not a known key; did you mean server.shutdown_timeout_s?",
        ),
        (
            &[("PUBLIC_URL", "https://h/webhook")],
            "",
            "server.public_url: must not end in the endpoint's path, which the server adds: write https://h",
        ),
        (
            &[("PUBLIC_URL", "https://h/?x=1")],
            "",
            "server.public_url: must not have a query: write https://h",
        ),
        (
            &[("TWILIO_AUTH_TOKEN", " ")],
            "",
            "twilio.auth_token: is empty: with an empty token anyone could sign; set it or leave it out",
        ),
        (
            &[("TWILIO_ACCOUNT_SID", "SK123")],
            "",
            "twilio.account_sid: is not an account SID: expected AC and 32 hexadecimal digits, 34 characters",
        ),
        (
            &[("TWILIO_AUTH_TOKEN_SECONDARY_FILE", "/nonexistent")],
            "",
            "twilio.auth_token_secondary_file: names /nonexistent, which cannot be read: No such file or directory (os error 2)",
        ),
        (
            &[("TWILIO_AUTH_TOKEN_FILE", "/dev/null")],
            "",
            "twilio.auth_token: and twilio.auth_token_file are both set: keep one of them",
        ),
        (
            &[],
            "[twilio.accounts.AC1]\nauth_token = \"x\"",
            "twilio.accounts.AC1.auth_token: is not an account SID: expected AC and 32 hexadecimal digits, 34 characters",
        ),
        (
            &[("TWILIO_ACCOUNT_SID", ACCOUNT)],
            &in_main_table,
            &format!(
                "twilio.accounts.{ACCOUNT}.api_key_secret: is a key of the main account, twilio.account_sid, whose keys are in \
                 [twilio]: move auth_token, api_key_sid and api_key_secret to [twilio], and leave this table out"
            ),
        ),
        (
            &[],
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            "admin.listen: has the port of server.listen: the private listener needs one of its own",
        ),
        (
            &[],
            "[signature]\nmode = \"report\"",
            "signature.mode: is report, which explains to every client why its signature does not match: set server.listen to a loopback address, or start with --allow-public-diagnostics",
        ),
        (
            &[],
            "[handler]\nkind = \"parrot\"",
            "handler.kind: is \"parrot\": write \"echo\", \"forward\" or \"rules\"",
        ),
        (
            &[],
            "[log]\nlevel = \"a=b=c\"",
            "log.level: is \"a=b=c\": write error, warn, info, debug or trace, or directives such as \"info,replyhook=debug\"",
        ),
        (
            &[],
            "[telemetry]\notlp_endpoint = \"collector\"",
            "telemetry.otlp_endpoint: is not a URL: write one such as http://127.0.0.1:4318/v1/traces",
        ),
        (
            &[],
            "server = 5",
            "server: is not a known key; did you mean server.listen?",
        ),
    ] {
        let found = only_problem(env, file);
        assert_eq!(found, problem);
    }
}

#[test]
fn invalid_log_level_is_rejected_and_directive_accepted() {
    for level in [
        "infoo",
        "loud",
        "info,replyhook",
        "replyhook=debg",
        "nonsense=",
        "info,nonsense=,warn",
        "",
    ] {
        let found = only_problem(&[("REPLYHOOK__LOG__LEVEL", level)], "");
        assert!(
            found.starts_with(&format!("log.level: is {level:?}: write")),
            "{found}"
        );
    }
    for level in [
        "INFO",
        "info,replyhook=debug",
        "off",
        "replyhook::webhook=trace",
    ] {
        load(
            &[&REQUIRED_ENV[..], &[("REPLYHOOK__LOG__LEVEL", level)]].concat(),
            "",
        )
        .unwrap();
    }
}

#[test]
fn misplaced_secret_is_not_shown() {
    let wrong = [
        ("TWILIO_ACCOUNT_SID", OTHER_TOKEN),
        ("REPLYHOOK__TWILIO__AUTH_TOKEN_SECONDARY_FILE", OTHER_TOKEN),
    ];
    let userinfo = [
        ("PUBLIC_URL", "https://user:canary@h.test"),
        ("TWILIO_AUTH_TOKEN", TOKEN),
    ];
    let unquoted = format!("[twilio]\nauth_token = {OTHER_TOKEN}\n");
    let sources = |env: &[(&str, &str)]| {
        Sources::default()
            .with_env(REQUIRED_ENV)
            .with_env(env.iter().copied())
    };
    let mut text = load(&[&REQUIRED_ENV[..], &wrong].concat(), "")
        .unwrap_err()
        .to_string();
    text += &load(&REQUIRED_ENV, &unquoted).unwrap_err().to_string();
    text += &format!("{:?}", Settings::effective(&sources(&wrong)));
    text += &format!("{:?}", Settings::effective(&sources(&userinfo)));
    assert!(
        !text.contains(OTHER_TOKEN) && !text.contains("canary"),
        "{text}"
    );
    assert!(text.contains("looks like the token itself"), "{text}");
}

// A password or token may be in the user, the query or the fragment of a URL, even of an invalid one.
#[test]
fn urls_are_shown_without_secrets() {
    let url =
        |scheme: &str| format!("{scheme}://u:canary@host.test/place?key=canary&b=canary#canary");
    let (web, database) = (url("https"), url("postgres"));
    let env = [
        ("DATABASE_URL", &*database),
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", &*web),
        (
            "REPLYHOOK__HANDLER__FORWARD_SECRET",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        ),
        ("REPLYHOOK__TELEMETRY__OTLP_ENDPOINT", &*web),
    ];
    let env = if cfg!(feature = "otel") {
        &env[..]
    } else {
        &env[..4]
    };
    let loaded = load(&[&REQUIRED_ENV[..], env].concat(), "").unwrap();
    let text = format!("{loaded:?}");
    assert!(!text.contains("canary"), "{text}");
    let value = |key: &str| {
        let found = loaded.effective.iter().find(|(name, ..)| name == key);
        found.unwrap().1.clone()
    };
    assert_eq!(
        value("handler.forward_url"),
        "\"https://…@host.test/place?key=…&b=…#…\""
    );
    assert_eq!(
        value("store.url"),
        "\"postgres://…@host.test/place?key=…&b=…#…\""
    );

    let texts = [
        &*web,
        "https://u:can/canary@host.test/",
        "https://u:p?canary@host.test/",
        "u:canary@host.test/place?key=canary",
        "https:/u:canary@host.test",
    ];
    for key in [
        "STORE__URL",
        "HANDLER__FORWARD_URL",
        "TELEMETRY__OTLP_ENDPOINT",
        "SERVER__PUBLIC_URL",
        "TWILIO__API_URL",
        "TWILIO__MESSAGING_URL",
        "TWILIO__CONTENT_URL",
    ] {
        for text in texts {
            let env = [(format!("REPLYHOOK__{key}"), text)];
            let sources = Sources::default()
                .with_env([
                    ("TWILIO_AUTH_TOKEN", TOKEN),
                    ("REPLYHOOK__HANDLER__KIND", "forward"),
                ])
                .with_env(env);
            let mut output = format!("{:?}", Settings::effective(&sources));
            match Settings::load(&sources) {
                Ok(loaded) => output += &format!("{loaded:?}"),
                Err(problems) => output += &format!("{problems} {problems:?}"),
            }
            assert!(!output.contains("canary"), "{key} = {text}: {output}");
        }
    }
    // URLs in settings that expect another kind of value.
    for key in [
        "SERVER__LISTEN",
        "HANDOFF__TTL",
        "LOG__FORMAT",
        "LOG__LEVEL",
        "MEDIA__ALLOWED_REDIRECT_HOSTS",
    ] {
        let name = format!("REPLYHOOK__{key}");
        let text = format!(
            "{:?}",
            load(&[&REQUIRED_ENV[..], &[(&*name, &*web)]].concat(), "")
        );
        assert!(!text.contains("canary"), "{key}: {text}");
    }
}

#[test]
fn port_is_part_of_effective_listen_address() {
    let effective = Settings::effective(&Sources::default().with_env([("PORT", "3000")]));
    let listen = effective
        .iter()
        .find(|(key, ..)| key == "server.listen")
        .unwrap();
    assert_eq!(
        (listen.1.as_str(), listen.2.as_str()),
        ("\"0.0.0.0:3000\"", "default, environment variable PORT")
    );
}

#[test]
fn invalid_or_missing_config_file_is_located() {
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), "[twilio\n").unwrap();
    let found = load(&REQUIRED_ENV, "[server]\nshutdown_timeout_s = = 5\n")
        .unwrap_err()
        .to_string();
    assert!(found.contains("line 2, column 22"), "{found}");
    // The file may contain the other settings, so they are not reported as missing.
    for sources in [
        Sources::default().with_file("/nonexistent/replyhook.toml"),
        Sources::default().with_file(broken.path()),
    ] {
        let found = Settings::load(&sources).unwrap_err();
        assert_eq!(found.iter().count(), 1, "{found}");
        let found = ReconcileSettings::load(&sources).unwrap_err();
        assert_eq!(found.iter().count(), 1, "{found}");
    }
    let sources = Sources::default()
        .with_file("/nonexistent/replyhook.toml")
        .with_env(REQUIRED_ENV);
    let found = Settings::load(&sources).unwrap_err().to_string();
    assert!(
        found.contains("--config (/nonexistent/replyhook.toml): cannot be read"),
        "{found}"
    );
}

// As `docker run --env-file` passes it on. Twilio would be rejected with every message.
#[test]
fn token_in_quotation_marks_is_a_problem_with_remedy() {
    for value in [
        "\"0123456789abcdef0123456789abcdef\"",
        "'0123456789abcdef0123456789abcdef'",
    ] {
        let error = load(
            &[&REQUIRED_ENV[..], &[("TWILIO_AUTH_TOKEN", value)]].concat(),
            "",
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("quotation mark") && error.contains("remove the marks"),
            "{error}"
        );
        assert!(!error.contains("0123456789abcdef"), "{error}");
    }
}

// These values work but are probably mistakes.
#[test]
fn suspicious_value_produces_warning() {
    let warnings = |env: &[(&str, &str)]| -> Vec<String> {
        let loaded = load(&[&REQUIRED_ENV[..], env].concat(), "").unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect()
    };
    assert_eq!(warnings(&[]), Vec::<String>::new());
    for (name, value, part) in [
        ("PUBLIC_URL", "http://bot.example.com", "uses http"),
        ("PUBLIC_URL", "https://bot.example.com/", "slash at its end"),
        (
            "PUBLIC_URL",
            "https://u:p@bot.example.com",
            "user and password",
        ),
        ("PUBLIC_URL", "https://bot.example.com#rc=2", "fragment"),
        ("PUBLIC_URL", "https://my_bot.example.com", "underscore"),
        (
            "TWILIO_AUTH_TOKEN",
            " 0123456789abcdef0123456789abcdef\n",
            "white space around it",
        ),
        (
            "TWILIO_AUTH_TOKEN",
            "SK0123456789abcdef0123456789abcdef",
            "is the SID of an API key",
        ),
        ("TWILIO_AUTH_TOKEN", ACCOUNT, "is the SID of an account"),
        ("TWILIO_AUTH_TOKEN", "your_auth_token", "is a placeholder"),
        (
            "TWILIO_AUTH_TOKEN",
            "00000000000000000000000000000000",
            "is a placeholder",
        ),
        ("TWILIO_AUTH_TOKEN", "short", "is not 32 hexadecimal digits"),
    ] {
        let found = warnings(&[(name, value)]);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{name}={value}: {found:?}"
        );
    }
}

// The setting belongs to a handler kind that is not the configured one.
#[test]
fn unused_handler_setting_produces_warning() {
    let forward = "forward_url = \"http://127.0.0.1:3000/\"";
    for (file, parts) in [
        (
            forward,
            &[
                "handler.forward_url",
                "own words back",
                "kind = \"forward\"",
            ][..],
        ),
        (
            "rules = \"bot.toml\"",
            &["handler.rules", "own words back", "kind = \"rules\""],
        ),
        (
            "kind = \"forward\"\nforward_url = \"http://127.0.0.1:3000/\"\nrules = \"bot.toml\"\n\
             forward_secret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\"",
            &["handler.rules", "handler.kind is \"forward\""],
        ),
    ] {
        let loaded = load(&REQUIRED_ENV, &format!("[handler]\n{file}")).unwrap();
        let [warning] = &loaded.warnings[..] else {
            panic!("{file}: {:?}", loaded.warnings);
        };
        let warning = warning.to_string();
        for part in parts {
            assert!(warning.contains(part), "{file}: {warning}");
        }
    }
}

/// Loads settings whose environment has the account's SID in lower case and [`OTHER_TOKEN`].
fn load_with_lower_case_account(sid: &str, file: &str) -> Settings {
    let name = format!(
        "REPLYHOOK__TWILIO__ACCOUNTS__{}__AUTH_TOKEN",
        sid.to_lowercase()
    );
    let env = [&REQUIRED_ENV[..], &[(&name, OTHER_TOKEN)]].concat();
    load(&env, file).unwrap().settings
}

#[test]
fn account_sid_in_environment_matches_ignoring_case() {
    let file = format!("[twilio.accounts.{ACCOUNT}]\nauth_token = \"from the file\"");
    let settings = load_with_lower_case_account(ACCOUNT, &file);
    assert_eq!(settings.twilio.accounts.len(), 1);
    assert_eq!(settings.twilio.accounts[0].sid.as_str(), ACCOUNT);
    let tokens = settings.twilio.accounts[0].keys.tokens().unwrap();
    assert_eq!(tokens.primary.expose(), OTHER_TOKEN);
}

/// SID whose letters show a difference in case, unlike those of [`ACCOUNT`].
const UPPER_ACCOUNT: &str = "ACABCDEF00000000000000000000000001";

// The two fields differ as well, so that the account must be recognized by its SID alone.
#[test]
fn account_token_in_environment_replaces_file_ignoring_case() {
    let file = format!("[twilio.accounts.{UPPER_ACCOUNT}]\nauth_token_file = \"/nowhere/token\"");
    let settings = load_with_lower_case_account(UPPER_ACCOUNT, &file);
    assert_eq!(settings.twilio.accounts.len(), 1);
    let tokens = settings.twilio.accounts[0].keys.tokens().unwrap();
    assert_eq!(tokens.primary.expose(), OTHER_TOKEN);
}

// The other problem must not hide that of the account. `replyhook reconcile` reads the accounts by itself.
#[test]
fn account_without_token_is_reported_with_other_problems() {
    let text = format!(
        "[twilio]\naccount_sid = \"{ACCOUNT}\"\n[twilio.accounts.{UPPER_ACCOUNT}]\nauth_token_file = \"\""
    );
    let expected = (
        format!("twilio.accounts.{UPPER_ACCOUNT}.auth_token_file"),
        "is empty: set it or leave the account out".to_owned(),
    );
    let found = problems(&[("PUBLIC_URL", ORIGIN)], &text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].0, "twilio.auth_token");
    assert_eq!(found[1], expected);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    let sources = Sources::default()
        .with_file(file.path())
        .with_env([("TWILIO_AUTH_TOKEN", TOKEN)]);
    let found = ReconcileSettings::load(&sources).unwrap_err();
    let found: Vec<_> = found
        .iter()
        .map(|problem| (problem.key.clone(), problem.text.clone()))
        .collect();
    assert_eq!(found, [expected]);
}

// `DATABASE_URL` sorts before `REPLYHOOK__STORE__URL_FILE`, and `DATABASE_URL_FILE` before `REPLYHOOK__STORE__URL`.
#[test]
fn short_variable_overrides_prefixed_counterpart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sqlite:short.db\n").unwrap();
    let path = file.path().to_str().unwrap();
    for [short, prefixed] in [
        [
            ("DATABASE_URL", "sqlite:short.db"),
            ("REPLYHOOK__STORE__URL_FILE", "/nowhere/url"),
        ],
        [
            ("DATABASE_URL_FILE", path),
            ("REPLYHOOK__STORE__URL", "sqlite:prefixed.db"),
        ],
    ] {
        let loaded = load(&[&REQUIRED_ENV[..], &[short, prefixed]].concat(), "").unwrap();
        let url = loaded.settings.store.url.to_string();
        assert!(url.contains("short.db"), "{short:?}: {url}");
    }
}

#[test]
fn secret_file_in_environment_overrides_config_file_value() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{OTHER_TOKEN}\n")).unwrap();
    let env = [
        ("PUBLIC_URL", ORIGIN),
        ("TWILIO_AUTH_TOKEN_FILE", file.path().to_str().unwrap()),
    ];
    let settings = load(&env, &format!("[twilio]\nauth_token = \"{TOKEN}\""))
        .unwrap()
        .settings;
    let tokens = settings.twilio.main.as_ref().unwrap().tokens().unwrap();
    assert_eq!(tokens.primary.expose(), OTHER_TOKEN);
}

#[test]
fn own_numbers_accept_only_twilio_address_formats() {
    const KEY: &str = "REPLYHOOK__GUARD__OWN_NUMBERS";
    let named = |text| load(&[&REQUIRED_ENV[..], &[(KEY, text)]].concat(), "").unwrap();
    let numbers = named(" +15550002222,whatsapp:+15550002222, 12345,rcs:our_agent, ");
    let texts = numbers.settings.guard.own_numbers.iter();
    let texts: Vec<_> = texts.map(replyhook::Address::as_str).collect();
    assert_eq!(
        texts,
        [
            "+15550002222",
            "whatsapp:+15550002222",
            "12345",
            "rcs:our_agent"
        ]
    );
    assert!(named("").settings.guard.own_numbers.is_empty());
    for odd in ["15550002222", "whatsapp:15550002222", "+1-555-000-2222"] {
        let problem = only_problem(&[(KEY, odd)], "");
        assert!(problem.starts_with("guard.own_numbers: has"), "{problem}");
    }
}

#[test]
fn access_lists_reject_malformed_entries() {
    const KEY: &str = "REPLYHOOK__GUARD__BLOCK";
    let named = |text| load(&[&REQUIRED_ENV[..], &[(KEY, text)]].concat(), "").unwrap();
    let listed = named(" +1555,whatsapp:+15550002222, de, US.1349,messenger:, 12345, ");
    let entries = listed.settings.guard.block.iter();
    let entries: Vec<_> = entries.map(replyhook::AddressPattern::as_str).collect();
    assert_eq!(
        entries,
        [
            "+1555",
            "whatsapp:+15550002222",
            "de",
            "US.1349",
            "messenger:",
            "12345"
        ]
    );
    for (file, expected) in [
        ("allow = [\"\"]", "guard.allow: entry 1: it is empty"),
        (
            "allow = [\"DE\", \"UK\"]",
            "guard.allow: entry 2: the United Kingdom is GB",
        ),
        (
            "block = [\"watsapp:+1555\"]",
            "guard.block: entry 1: the text before the colon is not a channel; write whatsapp, sms, rcs or messenger",
        ),
        (
            "block = [\"+1555*\"]",
            "guard.block: entry 1: an entry has no wildcards; it already matches every address that begins with it, as +1555 does",
        ),
        (
            "block = [\"+1 555\"]",
            "guard.block: entry 1: after the + come 1 to 15 digits without spaces or hyphens, as in +15550001111 or +1555",
        ),
        (
            "block = [\"15550001111\"]",
            "guard.block: entry 1: a phone number begins with +, as in +15550001111 or +1555",
        ),
        (
            "block = [\"1 555\"]",
            "guard.block: entry 1: an address has no spaces",
        ),
        (
            "block = [\"Germany\"]",
            "guard.block: entry 1: write an address or its beginning, such as whatsapp:+15550001111 or +1555, or a country, such as DE",
        ),
        (
            "allow = \"+1555\"",
            "guard.allow: is a text, expected a list in brackets, such as [\"a\", \"b\"]",
        ),
    ] {
        assert_eq!(only_problem(&[], &format!("[guard]\n{file}")), expected);
    }
    let long = format!(
        "[guard]\nblock = [\"DE\"]\nrefusal = \"{}\"",
        "x".repeat(1601)
    );
    assert_eq!(
        only_problem(&[], &long),
        "guard.refusal: has over 1600 characters: Twilio accepts no more"
    );
    // Each wrong entry is reported.
    let problems = load(&REQUIRED_ENV, "[guard]\nblock = [\"+\", \"DE\", \"*\"]").unwrap_err();
    let text = problems.to_string();
    assert!(
        text.contains("entry 1") && text.contains("entry 3"),
        "{text}"
    );
    let unused = load(&REQUIRED_ENV, "[guard]\nrefusal = \"No.\"").unwrap();
    assert!(unused.warnings[0].to_string().contains("has no effect"));
}

#[test]
fn consent_keywords_reject_ambiguous_and_empty_phrases() {
    for (file, expected) in [
        (
            "stop_words = [\"STOP\", \"\"]",
            "consent.stop_words: has \"\", which is an empty phrase: punctuation is not compared",
        ),
        (
            "start_words = [\"!?\"]",
            "consent.start_words: has \"!?\", which is an empty phrase: punctuation is not compared",
        ),
        (
            "start_words = [\"Stop!\"]",
            "consent.start_words: has \"Stop!\", which consent.stop_words has too: a message can mean only one of both",
        ),
        (
            "sms_start_words = [\"début\", \"ANNULER\"]\nsms_stop_words = [\"STOP\", \"annulér.\"]",
            "consent.sms_start_words: has \"ANNULER\", which consent.sms_stop_words has too: a message can mean only one of both",
        ),
        (
            "sms = \"ours\"",
            "consent.sms: is \"ours\": write \"twilio\" or \"own\"",
        ),
    ] {
        let text = only_problem(&[], &format!("[consent]\n{file}"));
        assert_eq!(text, expected);
    }
}

#[test]
fn renamed_key_is_rejected_with_its_new_name() {
    for (file, env, expected) in [
        (
            "[reply]\napology = \"sorry\"",
            None,
            "reply.apology: is now called reply.fallback_text",
        ),
        (
            "[server]\ndrain_s = 5",
            None,
            "server.drain_s: is now called server.shutdown_timeout_s",
        ),
        (
            "",
            Some(("REPLYHOOK__SEND__PER_SECOND", "5")),
            "send.per_second: is now called outbound.rate_per_second",
        ),
    ] {
        assert_eq!(
            only_problem(&env.into_iter().collect::<Vec<_>>(), file),
            expected
        );
    }
}

#[test]
fn list_setting_accepts_toml_array_or_environment_commas() {
    const KEY: &str = "REPLYHOOK__CONSENT__STOP_WORDS";
    let file = "[consent]\nstop_words = [\"STOP\", \"opt out\"]";
    let words = |env: &[(&str, &str)], file| {
        load(&[&REQUIRED_ENV[..], env].concat(), file)
            .unwrap()
            .settings
            .consent
            .stop_words
    };
    assert_eq!(words(&[], file), ["STOP", "opt out"]);
    assert_eq!(
        words(&[(KEY, "BASTA, no more ,")], file),
        ["BASTA", "no more"]
    );
    assert_eq!(
        only_problem(&[], "[consent]\nstop_words = \"STOP END\""),
        "consent.stop_words: is a text, expected a list in brackets, such as [\"a\", \"b\"]"
    );
    assert_eq!(
        only_problem(&[], "[consent]\nstop_words = [\"STOP\", 5]"),
        "consent.stop_words: has an item that is not a text in quotes"
    );
}

#[test]
fn programmatic_setting_has_type_of_its_key() {
    let mut sources = Sources::default().with_env(REQUIRED_ENV);
    sources
        .defaults
        .insert("consent.required", "false".to_owned());
    sources
        .fixed
        .insert("server.shutdown_timeout_s", "7".to_owned());
    let settings = Settings::load(&sources).unwrap().settings;
    assert!(!settings.consent.required);
    assert_eq!(settings.server.shutdown_timeout, Duration::from_secs(7));
    // The environment overrides a default of the program, but not a fixed value.
    let mut sources = sources.with_env([
        ("REPLYHOOK__CONSENT__REQUIRED", "true"),
        ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "8"),
    ]);
    let settings = Settings::load(&sources).unwrap().settings;
    assert!(settings.consent.required);
    assert_eq!(settings.server.shutdown_timeout, Duration::from_secs(7));
    sources
        .fixed
        .insert("server.shutdown_timeout_s", "soon".to_owned());
    let problems = Settings::load(&sources).unwrap_err().to_string();
    assert!(problems.contains("server.shutdown_timeout_s"), "{problems}");
}

#[test]
fn documented_defaults_match_code_and_example_file_loads() {
    let with_needed = DEFAULT_TOML
        .replacen("auth_token = \"\"", &format!("auth_token = \"{TOKEN}\""), 1)
        .replacen(
            "public_url = \"\"",
            &format!("public_url = \"{ORIGIN}\""),
            1,
        );
    let from_file = load(&[], &with_needed).unwrap().settings;
    let from_nothing = load(&REQUIRED_ENV, "").unwrap().settings;
    assert_eq!(format!("{from_file:?}"), format!("{from_nothing:?}"));
    // The example file works once the two required values are set.
    assert!(root().join("replyhook.example.toml").exists());
    load(&REQUIRED_ENV, &read("replyhook.example.toml")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_config_file_loads_or_reports_origin(text in "(\\[[a-z.]{0,12}\\]\n|[a-z_]{1,12} = (\"\\PC{0,10}\"|[0-9]{1,25}|true)\n|\\PC{0,20}\n){0,6}") {
        if let Err(problems) = load(&REQUIRED_ENV, &text) {
            prop_assert!(!problems.is_empty());
            for problem in problems.iter() {
                prop_assert!(!problem.origin.is_empty() && !problem.text.is_empty());
            }
        }
    }

    #[test]
    fn arbitrary_environment_loads_or_names_variable(key in "REPLYHOOK__[A-Z_]{0,30}|PORT|PUBLIC_URL", value in "\\PC{0,30}") {
        let env: BTreeMap<_, _> = REQUIRED_ENV.into_iter().chain([(key.as_str(), value.as_str())]).collect();
        let env: Vec<_> = env.into_iter().collect();
        if let Err(problems) = load(&env, "") {
            prop_assert!(problems.iter().all(|problem| problem.origin.contains(&key)), "{}", problems);
        }
    }
}
