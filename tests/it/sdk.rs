//! Twilio's own libraries as judges of the protocol. They sign requests that the server must accept, and forge
//! requests that it must reject. Their languages' XML parsers read its TwiML. `./scripts/test` installs them.

use std::process::Command;

use crate::support::{Server, TOKEN, installed, report_skipped, root};

fn run(program: &mut Command, public_url: &str, seed: &str) {
    let server = Server::start(&[("PUBLIC_URL", public_url)]);
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
        run(
            Command::new(&python).arg(root().join("tests/sdk/sign.py")),
            public_url,
            seed,
        );
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
