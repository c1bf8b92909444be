//! Twilio's own libraries as judges of the protocol. They sign requests that the server must accept, and forge
//! requests that it must reject. Their languages' XML parsers read its TwiML. `./scripts/test` installs them. The Python
//! library also signs with shared keys; the Node library does not know them yet.

use std::process::Command;

use crate::support::{ACCOUNT, Server, TOKEN, installed, report_skipped, root};

/// Shared keys of the server, and the account of each.
const SHARED_KEYS: [(&str, &str, &str); 3] = [
    ("webhooks_sharedkey_a", "secret of key a", ACCOUNT),
    ("webhooks_sharedkey_b", "secret of key b", ACCOUNT),
    (
        "webhooks_sharedkey_c",
        "secret of key c",
        "AC000000000000000000000000000000ff",
    ),
];

fn run(program: &mut Command, public_url: &str, seed: &str) {
    let mut env = vec![("PUBLIC_URL".to_owned(), public_url.to_owned())];
    for (id, secret, account) in SHARED_KEYS {
        let prefix = format!(
            "REPLYHOOK__SIGNATURE__SHARED_KEYS__{}",
            id.to_ascii_uppercase()
        );
        env.push((format!("{prefix}__SECRET"), secret.to_owned()));
        env.push((format!("{prefix}__ACCOUNT"), account.to_owned()));
    }
    let env: Vec<_> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let server = Server::start(&env);
    let output = program
        .args([
            "--base",
            &format!("http://{}", server.public),
            "--public-url",
            public_url,
            "--token",
            TOKEN,
        ])
        .args(["--cases", "300", "--seed", seed])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("requests accepted") && text.contains("forgeries rejected"),
        "{text}"
    );
    assert!(server.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="ok"}"#) > 300.0);
}

const PUBLIC_URLS: [(&str, &str); 3] = [
    ("https://hooks.example.test/bots/a", "1"),
    ("https://hooks.example.test:8443", "2"),
    ("http://127.0.0.1", "3"),
];

#[test]
fn twilio_python_signatures_accepted_and_forgeries_rejected() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the official Python library as signer");
    };
    for (public_url, seed) in PUBLIC_URLS {
        let mut program = Command::new(&python);
        program.arg(root().join("tests/sdk/sign.py"));
        for (id, secret, _) in SHARED_KEYS {
            program.args(["--shared-key", &format!("{id}:{secret}")]);
        }
        run(&mut program, public_url, seed);
    }
}

#[test]
fn twilio_node_signatures_accepted_and_forgeries_rejected() {
    let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") else {
        return report_skipped("the official Node library as signer");
    };
    for (public_url, seed) in PUBLIC_URLS {
        run(
            Command::new("node")
                .arg(root().join("tests/sdk/sign.mjs"))
                .args(["--node-modules", &modules]),
            public_url,
            seed,
        );
    }
}
