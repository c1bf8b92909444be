//! Restoring a backup with the commands of the manual: no message is lost, and no user gets a second reply.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::markdown::blocks;
use crate::support::{ACCOUNT, FakeTwilio, Policy, Server, TOKEN, Webhook, replyhook};

const USER: &str = "whatsapp:+15550001111";
const BOT: &str = "whatsapp:+15550002222";

/// Returns the manual's commands for restoring a backup.
fn documented_steps() -> Vec<String> {
    let mut blocks = blocks("docs/src/how-to/backup-restore.md").into_iter();
    let begins = "rm -f replyhook.db-wal replyhook.db-shm";
    let steps = blocks.find(|block| block.text.starts_with(begins)).unwrap();
    steps.text.lines().map(str::to_owned).collect()
}

fn run_line(line: &str, folder: &Path, env: &[(&str, &str)]) -> (i32, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_replyhook")).parent().unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let output_text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), output_text)
}

#[test]
fn restored_backup_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let twilio = FakeTwilio::start();
    let file = folder.path().join("replyhook.db");
    let (url, api) = (format!("sqlite:{}", file.display()), twilio.url());
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
    ];
    let deliver = |server: &Server, number, body| {
        let message = Webhook::message(number, body);
        let delivery = twilio.deliver(|| Some(server.public), &message, Policy::NEITHER);
        assert!(delivery.acknowledged());
    };
    // The backup has an answered message, and an outbound message that is still pending.
    let server = Server::start(&env);
    deliver(&server, 1, "one");
    server.signal(Signal::TERM);
    server.wait();
    let send = ["send", "--to", USER, "--from", BOT, "--body", "waits"];
    let (code, _, error) = replyhook(&send, &env, "");
    assert_eq!(code, 0, "{error}");
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute("VACUUM INTO ?1", [folder.path().join("copy.db").to_str()])
        .unwrap();
    // After the backup, the server sends the pending message and answers another one.
    let server = Server::start(&env);
    twilio.wait_for_phone(USER, 2);
    deliver(&server, 2, "two");
    server.signal(Signal::KILL);
    server.wait();
    assert!(folder.path().join("replyhook.db-wal").exists());
    let no_server = || None;
    twilio.deliver(no_server, &Webhook::message(3, "three"), Policy::NEITHER);

    let steps = documented_steps();
    let results: Vec<_> = steps
        .iter()
        .map(|line| run_line(line, folder.path(), &env))
        .collect();
    let found = |added: u32| {
        format!(
            "3 inbound messages in Twilio's list: 1 known, 2 missing, {added} added, 1 answered before\n\
             0 open messages that Twilio shows as answered\n\
             1 message of the outbox that Twilio has already sent\n"
        )
    };
    let codes: Vec<_> = results.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [0, 0, 1, 0], "{results:?}");
    assert!(results[2].1.ends_with(&found(0)), "{}", results[2].1);
    assert!(results[3].1.ends_with(&found(1)), "{}", results[3].1);

    let server = Server::start(&env);
    twilio.wait_for_phone(USER, 4);
    // A duplicate would be sent before this message is answered, so the check below would find it.
    deliver(&server, 4, "four");
    server.wait_until("replyhook_replies_total{outcome=\"sent\"}", 1.0);
    server.signal(Signal::TERM);
    server.wait();
    let phone = twilio.phone(USER);
    let texts: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(texts, ["one", "waits", "two", "three", "four"]);
}
