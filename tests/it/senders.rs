//! The webhooks of WhatsApp senders, numbers and Messaging Services at Twilio: `replyhook sender`, and `replyhook dev`
//! behind a tunnel.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::console::{Console, number, sender, service};
use crate::support::{ACCOUNT, Dev, OTHER_TOKEN, TOKEN, json_lines, replyhook};

const FIRST: &str = "XE00000000000000000000000000000001";
const SECOND: &str = "XE00000000000000000000000000000002";
const NUMBER: &str = "whatsapp:+15550002222";
const OTHER: &str = "whatsapp:+15550003333";
const OLD_WEBHOOKS: [&str; 3] = [
    "https://old.example.test/it's#rc=1",
    "https://old.example.test/sorry",
    "",
];
const TUNNEL: &str = "https://tunnel.example.test/a";

/// Console with two senders. The webhook method of the second one is PUT.
fn start_console() -> Console {
    let console = Console::with_sender(OLD_WEBHOOKS);
    console.change(|state| {
        let mut second = sender(["https://second.example.test/", "", ""]);
        second["sid"] = SECOND.into();
        second["sender_id"] = OTHER.into();
        second["webhook"]["callback_method"] = "PUT".into();
        state.senders.push(second);
    });
    console
}

fn env(console: &Console) -> [(&'static str, String); 4] {
    [
        ("TWILIO_ACCOUNT_SID", ACCOUNT.to_owned()),
        ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
        ("REPLYHOOK__TWILIO__MESSAGING_URL", console.url()),
        ("REPLYHOOK__TWILIO__API_URL", console.url()),
    ]
}

/// Runs `replyhook sender`.
fn run(console: &Console, args: &[&str], more: &[(&str, &str)]) -> (i32, String, String) {
    let env = env(console);
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    replyhook(
        &[&["sender"], args].concat(),
        &[&env[..], more].concat(),
        "",
    )
}

#[track_caller]
fn run_ok(console: &Console, args: &[&str], more: &[(&str, &str)]) -> String {
    let (code, out, err) = run(console, args, more);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

/// URLs of a sender: primary, fallback, status.
fn urls(webhooks: &Value) -> [Value; 3] {
    ["callback_url", "fallback_url", "status_callback_url"].map(|name| webhooks[name].clone())
}

#[test]
fn senders_are_shown_with_their_webhooks() {
    let console = start_console();
    let [primary, fallback, _] = OLD_WEBHOOKS;
    assert_eq!(
        run_ok(&console, &["show", NUMBER], &[]),
        format!(
            "{NUMBER} {FIRST} ONLINE\n  webhook         POST {primary}\n  fallback        POST {fallback}\n  \
             status callback none\n"
        )
    );
    assert_eq!(run_ok(&console, &["show"], &[]).lines().count(), 8);
    let lines = json_lines(&run_ok(&console, &["show", "--json"], &[]));
    assert_eq!(
        lines[1],
        json!({
            "address": OTHER, "sid": SECOND, "status": "ONLINE", "details": [],
            "webhook": "https://second.example.test/", "webhook_method": "PUT",
            "fallback": null, "fallback_method": "POST",
            "status_callback": null, "status_callback_method": "POST",
        })
    );
    let by_sid = json_lines(&run_ok(&console, &["show", SECOND, "--json"], &[]));
    assert_eq!(by_sid, lines[1..]);
}

#[test]
fn sender_set_changes_only_given_options() {
    let console = start_console();
    let args = [
        "set",
        OTHER,
        "--fallback",
        "https://new.example.test/f",
        "--json",
    ];
    let shown = json_lines(&run_ok(&console, &args, &[]));
    assert_eq!(shown[0]["fallback"], "https://new.example.test/f");
    let webhooks = console.webhooks(1);
    assert_eq!(webhooks["callback_url"], "https://second.example.test/");
    assert_eq!(webhooks["callback_method"], "PUT");
    run_ok(
        &console,
        &["set", OTHER, "--fallback", "", "--method", "POST"],
        &[],
    );
    let webhooks = console.webhooks(1);
    assert_eq!(webhooks["fallback_url"], Value::Null);
    assert_eq!(webhooks["callback_method"], "POST");
    assert_eq!(
        urls(&console.webhooks(0))[0],
        OLD_WEBHOOKS[0],
        "sender 0 unchanged"
    );
}

#[test]
fn sender_set_from_config_sets_all_three_urls() {
    let console = start_console();
    let (code, _, err) = run(&console, &["set", NUMBER, "--from-config"], &[]);
    assert!(code == 2 && err.contains("PUBLIC_URL"), "{err}");
    let here = [("PUBLIC_URL", "https://bot.example.test/b")];
    run_ok(&console, &["set", FIRST, "--from-config"], &here);
    let url = |path| Value::from(format!("https://bot.example.test/b/webhook{path}"));
    let expected = [url("#rc=2&rp=ct,5xx"), url("/fallback"), url("/status")];
    assert_eq!(urls(&console.webhooks(0)), expected);
}

const SMS_NUMBER: &str = "+15550003344";
const NUMBER_SID: &str = "PN00000000000000000000000000000001";
const SERVICE: &str = "MG00000000000000000000000000000001";

/// Console with a WhatsApp sender, a number and a Messaging Service that uses the webhooks of its numbers.
fn start_console_of_all_kinds() -> Console {
    let console = Console::with_sender(OLD_WEBHOOKS);
    console.change(|state| {
        state.numbers = vec![number("https://old.example.test/sms", "")];
        state.services = vec![service("https://old.example.test/service", true)];
    });
    console
}

#[test]
fn senders_of_all_kinds_are_shown() {
    let console = start_console_of_all_kinds();
    console.change(|state| {
        state.senders[0]["status"] = "OFFLINE".into();
        state.senders[0]["offline_reasons"] =
            json!([{"code": "63020", "message": "Account\nrestricted", "more_info": "https://x.test"}]);
        state.senders[0]["properties"] =
            json!({"quality_rating": "LOW", "messaging_limit": "1K Customers/24hr"});
    });
    let shown = run_ok(&console, &["show"], &[]);
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    assert_eq!(lines[0], format!("{NUMBER} {FIRST} OFFLINE"));
    assert_eq!(
        lines[1..4],
        [
            "offline: Account restricted (63020)",
            "quality: LOW",
            "limit: 1K Customers/24hr"
        ]
    );
    assert_eq!(
        lines[7..10],
        [
            &format!("{SMS_NUMBER} {NUMBER_SID}"),
            "webhook         POST https://old.example.test/sms",
            "fallback        none",
        ]
    );
    assert_eq!(
        lines[10..13],
        [
            SERVICE,
            "Shop",
            "the webhooks of its numbers are called in place of these"
        ]
    );
    console.change(|state| state.hides_services = true);
    let (code, out, err) = run(&console, &["show"], &[]);
    // The rest is shown.
    assert_eq!((code, out.contains(NUMBER_SID)), (0, true), "{out}{err}");
    assert!(
        err.contains("could not read the Messaging Services: ") && err.contains("70051"),
        "{err}"
    );
}

#[test]
fn sender_set_changes_numbers_and_services() {
    let console = start_console_of_all_kinds();
    let here = [("PUBLIC_URL", "https://bot.example.test/b")];
    let url = |path| Value::from(format!("https://bot.example.test/b/webhook{path}"));
    run_ok(&console, &["set", SMS_NUMBER, "--from-config"], &here);
    let shown = run_ok(&console, &["set", SERVICE, "--from-config"], &here);
    assert!(!shown.contains("in place of these"), "{shown}");
    let [(changed_number, number), (changed_service, service)] =
        console.changes().try_into().unwrap();
    assert_eq!(
        [changed_number.as_str(), &changed_service],
        [NUMBER_SID, SERVICE]
    );
    assert_eq!(
        [&number["sms_url"], &number["sms_fallback_url"]],
        [&url("#rc=2&rp=ct,5xx"), &url("/fallback")]
    );
    assert_eq!(number["sms_method"], "POST");
    // It is the one of calls.
    assert_eq!(number["status_callback"], Value::Null);
    assert_eq!(service["inbound_request_url"], url("#rc=2&rp=ct,5xx"));
    assert_eq!(service["status_callback"], url("/status"));
    assert_eq!(service["use_inbound_webhook_on_number"], false);
    run_ok(
        &console,
        &["set", NUMBER_SID, "--fallback", "", "--method", "GET"],
        &[],
    );
    let (_, number) = console.changes().pop().unwrap();
    assert_eq!(
        [&number["sms_fallback_url"], &number["sms_method"]],
        ["", "GET"]
    );
    assert_eq!(number["sms_url"], url("#rc=2&rp=ct,5xx"), "unchanged");
}

#[test]
fn sender_options_of_another_kind_change_nothing() {
    let console = start_console_of_all_kinds();
    for (args, code, part) in [
        (
            &["set", SMS_NUMBER, "--status-callback", "https://x.test/s"][..],
            1,
            "is for calls",
        ),
        (
            &["set", NUMBER_SID, "--method", "PUT"][..],
            1,
            "have GET or POST",
        ),
        (
            &["set", NUMBER, "--method", "GET"][..],
            1,
            "have POST or PUT",
        ),
        (
            &["set", "+15550009999", "--method", "POST"][..],
            1,
            "no phone number +15550009999; it has: +15550003344",
        ),
        (
            &[
                "set",
                "MG00000000000000000000000000000009",
                "--method",
                "POST",
            ][..],
            1,
            "it has: MG0000",
        ),
        (
            &["set", "rcs:brand", "--method", "POST"][..],
            2,
            "in Twilio's console only",
        ),
    ] {
        let (exit, _, err) = run(&console, args, &[]);
        assert_eq!(exit, code, "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    console.change(|state| state.numbers[0]["sms_application_sid"] = "AP1".into());
    let (code, _, err) = run(&console, &["set", SMS_NUMBER, "--method", "POST"], &[]);
    assert_eq!(code, 1);
    assert!(
        err.contains("has the application AP1, whose webhooks Twilio calls"),
        "{err}"
    );
    assert_eq!(console.changes(), []);
}

// A service uses its own webhooks during the run, and those of its numbers again afterwards.
#[test]
fn tunnel_webhooks_of_number_and_service_are_restored() {
    let console = start_console_of_all_kinds();
    let folder = tempfile::tempdir().unwrap();
    let mut dev = start_dev_in(folder.path(), &console, &[SMS_NUMBER, SERVICE]);
    let output = dev.program.output();
    let number_command = format!(
        "replyhook sender set {SMS_NUMBER} --webhook 'https://old.example.test/sms' --fallback '' --method POST\n"
    );
    assert!(output.contains(&number_command), "{output}");
    assert!(
        output.contains("# then let the service use the webhooks of its numbers"),
        "{output}"
    );
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
    let changes = console.changes();
    let [
        (_, number),
        (_, service),
        (_, number_after),
        (_, service_after),
    ] = changes.as_slice()
    else {
        panic!("{changes:?}");
    };
    assert_eq!(
        [&number["sms_url"], &number["sms_fallback_url"]],
        [&tunnel_webhooks()[0], &tunnel_webhooks()[1]]
    );
    assert_eq!(service["inbound_request_url"], tunnel_webhooks()[0]);
    assert_eq!(service["use_inbound_webhook_on_number"], false);
    assert_eq!(
        [&number_after["sms_url"], &number_after["sms_fallback_url"]],
        ["https://old.example.test/sms", ""]
    );
    assert_eq!(
        service_after["inbound_request_url"],
        "https://old.example.test/service"
    );
    assert_eq!(service_after["use_inbound_webhook_on_number"], true);
}

// Invalid arguments and missing settings change nothing either.
#[test]
fn unknown_sender_or_invalid_credentials_change_nothing() {
    let console = start_console();
    let unknown = "whatsapp:+15550009999";
    for args in [
        &["show", unknown][..],
        &["set", unknown, "--webhook", "https://h.test/"],
    ] {
        let (code, out, err) = run(&console, args, &[]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(
            err.contains(unknown) && err.contains(&format!("it has: {NUMBER}, {OTHER}")),
            "{err}"
        );
    }
    let wrong = [("TWILIO_AUTH_TOKEN", OTHER_TOKEN)];
    for args in [
        &["show"][..],
        &["set", NUMBER, "--webhook", "https://h.test/"],
    ] {
        let (code, out, err) = run(&console, args, &wrong);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("401") && !err.contains(OTHER_TOKEN), "{err}");
    }
    for (args, part) in [
        (&["set", NUMBER][..], "--from-config"),
        (
            &["set", NUMBER, "--webhook", "bot.example.test"],
            "a complete URL",
        ),
        (
            &[
                "set",
                NUMBER,
                "--from-config",
                "--webhook",
                "https://h.test/",
            ],
            "cannot be used with",
        ),
        (
            &["set", "15550002222", "--from-config"],
            "write it as Twilio does",
        ),
        (&["set", NUMBER, "--method", "DELETE"], "GET, POST, PUT"),
    ] {
        let (code, _, err) = run(&console, args, &[]);
        assert!(code == 2 && err.contains(part), "{args:?}: {err}");
    }
    let (code, _, err) = run(&console, &["show"], &[("TWILIO_ACCOUNT_SID", "")]);
    assert!(code == 2 && err.contains("TWILIO_ACCOUNT_SID"), "{err}");
    let (code, _, err) = run(&console, &["show"], &[("TWILIO_AUTH_TOKEN", "")]);
    assert!(code == 2 && err.contains("TWILIO_AUTH_TOKEN"), "{err}");
    assert_eq!(console.changes(), []);
}

/// Starts `replyhook dev` with the tunnel's URL and these senders.
fn start_dev(console: &Console, senders: &[&str]) -> Dev {
    start_dev_in(&std::env::temp_dir(), console, senders)
}

/// Like [`start_dev`], in this folder, which may have files of earlier runs.
fn start_dev_in(folder: &Path, console: &Console, senders: &[&str]) -> Dev {
    let env = env(console);
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut args = vec!["--port", "0", "--tunnel-url", TUNNEL];
    args.extend(senders.iter().flat_map(|sender| ["--sender", sender]));
    Dev::start_in(folder, &args, &env)
}

fn tunnel_webhooks() -> [Value; 3] {
    ["/webhook", "/webhook/fallback", "/webhook/status"]
        .map(|path| format!("{TUNNEL}{path}").into())
}

// dev points the senders at the tunnel, and prints the command that restores their webhooks by hand.
#[test]
fn tunnel_webhooks_are_restored_on_exit() {
    for signal in [Signal::INT, Signal::TERM] {
        let console = start_console();
        let before = [console.webhooks(0), console.webhooks(1)].map(|webhooks| urls(&webhooks));
        let mut dev = start_dev(&console, &[NUMBER, SECOND]);
        for index in 0..2 {
            let webhooks = console.webhooks(index);
            assert_eq!(urls(&webhooks), tunnel_webhooks());
            assert_eq!(webhooks["callback_method"], "POST");
        }
        let output = dev.program.output();
        let back = format!(
            "replyhook sender set {NUMBER} --webhook 'https://old.example.test/it'\\''s#rc=1' --fallback \
             'https://old.example.test/sorry' --status-callback ''"
        );
        assert!(output.contains(&back), "{output}");
        assert!(
            !output.contains("Ignored, to keep real credentials out of this run"),
            "{output}"
        );
        assert_eq!(dev.program.signal_and_wait(signal), Some(0));
        let empty = |urls: [Value; 3]| urls.map(|url| if url == "" { Value::Null } else { url });
        for (index, before) in before.into_iter().enumerate() {
            assert_eq!(urls(&console.webhooks(index)), empty(before));
        }
        assert_eq!(console.webhooks(1)["callback_method"], "PUT");
    }
}

// While the tunnel is in use the method is POST, so a command without `--method` would leave that.
#[test]
fn printed_restore_command_has_webhook_method() {
    let console = start_console();
    console.change(|state| state.senders[0]["webhook"]["fallback_method"] = "PUT".into());
    let folder = tempfile::tempdir().unwrap();
    let mut dev = start_dev_in(folder.path(), &console, &[NUMBER, OTHER]);
    let output = dev.program.output();
    let back = "--webhook 'https://second.example.test/' --fallback '' --status-callback '' --method PUT\n";
    assert!(output.contains(back), "{output}");
    let partly =
        "--status-callback '' --method POST\n    # then set the method of the fallback to PUT";
    assert!(output.contains(partly), "{output}");
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
}

/// Paths of the files in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

// The first run backs up the original webhooks, and later runs keep that backup until one exits normally.
#[test]
fn webhooks_after_kill_are_restored_by_next_run() {
    let console = start_console();
    console.change(|state| state.senders[0]["webhook"]["callback_method"] = "PUT".into());
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut dev = start_dev_in(folder.path(), &console, &[NUMBER]);
        assert_eq!(urls(&console.webhooks(0)), tunnel_webhooks());
        assert_eq!(dev.program.signal_and_wait(Signal::KILL), None);
        let [file] = &files(folder.path())[..] else {
            panic!("{:?}", files(folder.path()))
        };
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let mut dev = start_dev_in(folder.path(), &console, &[NUMBER]);
    let output = dev.program.output();
    assert!(
        output.contains("'https://old.example.test/sorry'"),
        "{output}"
    );
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
    let [primary, fallback, _] = OLD_WEBHOOKS;
    let old = [primary.into(), fallback.into(), Value::Null];
    assert_eq!(urls(&console.webhooks(0)), old);
    assert_eq!(console.webhooks(0)["callback_method"], "PUT");
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
}

// dev says that it cannot restore webhooks without a backup, and ignores a backup once the webhooks were changed
// elsewhere.
#[test]
fn sender_already_on_tunnel_without_backup_stays_unchanged() {
    let console = start_console();
    let folder = tempfile::tempdir().unwrap();
    let mut dev = start_dev_in(folder.path(), &console, &[NUMBER, OTHER]);
    dev.program.signal_and_wait(Signal::KILL);
    let other_folder = tempfile::tempdir().unwrap();
    let mut dev = start_dev_in(other_folder.path(), &console, &[NUMBER]);
    let output = dev.program.output();
    let note = format!("{NUMBER} had the tunnel's URLs already");
    assert!(
        output.contains(&note) && output.contains("they stay"),
        "{output}"
    );
    assert!(!output.contains("kill -9"), "{output}");
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
    assert_eq!(urls(&console.webhooks(0)), tunnel_webhooks());
    // A backup is ignored once the webhook has been changed to another URL.
    let other = "https://deployed.example.test/webhook";
    console.change(|state| state.senders[1]["webhook"]["callback_url"] = other.into());
    let mut dev = start_dev_in(folder.path(), &console, &[NUMBER, OTHER]);
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
    assert_eq!(urls(&console.webhooks(1))[0], other);
    assert_eq!(urls(&console.webhooks(0))[0], OLD_WEBHOOKS[0]);
}

#[test]
fn failed_webhook_backup_changes_no_sender() {
    let console = start_console();
    let folder = tempfile::tempdir().unwrap();
    // A folder has the name of the backup file.
    let in_the_way = format!("replyhook-dev-{FIRST}.json/x");
    std::fs::create_dir_all(folder.path().join(in_the_way)).unwrap();
    let failed = Command::new(env!("CARGO_BIN_EXE_replyhook"))
        .args(["dev", "--port", "0", "--emulator-port", "0"])
        .args(["--tunnel-url", TUNNEL, "--sender", NUMBER])
        .env_clear()
        .envs(env(&console))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && err.contains(FIRST), "{err}");
    assert_eq!(console.changes(), []);
}

#[test]
fn dev_without_sender_option_changes_no_sender() {
    let console = start_console();
    let mut dev = start_dev(&console, &[]);
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
    assert_eq!(console.changes(), []);
}

#[test]
fn webhooks_changed_during_run_are_not_restored() {
    let console = start_console();
    let mut dev = start_dev(&console, &[NUMBER]);
    let other = "https://deployed.example.test/webhook";
    console.change(|state| state.senders[0]["webhook"]["callback_url"] = other.into());
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(0));
    assert_eq!(urls(&console.webhooks(0))[0], other);
    assert_eq!(console.changes().len(), 1);
}

// An unknown sender is reported before any sender is changed.
#[test]
fn failed_sender_update_restores_earlier_senders() {
    let console = start_console();
    console.change(|state| state.unchangeable = vec![SECOND]);
    let env = env(&console);
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let dev = [
        "dev",
        "--port",
        "0",
        "--emulator-port",
        "0",
        "--tunnel-url",
        TUNNEL,
    ];
    let both = ["--sender", NUMBER, "--sender", OTHER];
    let (code, out, err) = replyhook(&[&dev[..], &both].concat(), &env, "");
    assert_eq!(code, 1, "{err}");
    assert!(!out.contains("Ctrl-C"), "{out}");
    assert!(err.contains("63100"), "{err}");
    let [primary, fallback, _] = OLD_WEBHOOKS;
    assert_eq!(
        urls(&console.webhooks(0)),
        [primary.into(), fallback.into(), Value::Null]
    );
    let touched = console.changes().len();
    let both = ["--sender", NUMBER, "--sender", "whatsapp:+15550009999"];
    let (code, _, err) = replyhook(&[&dev[..], &both].concat(), &env, "");
    assert!(code == 1 && err.contains("no WhatsApp sender"), "{err}");
    assert_eq!(console.changes().len(), touched);
    let (code, _, err) = replyhook(&["dev", "--sender", NUMBER], &env, "");
    assert!(code == 2 && err.contains("--tunnel-url"), "{err}");
}

#[test]
fn failed_restore_prints_manual_command() {
    let console = start_console();
    let mut dev = start_dev(&console, &[NUMBER]);
    console.change(|state| state.unchangeable = vec![FIRST]);
    assert_eq!(dev.program.signal_and_wait(Signal::INT), Some(1));
    let way = "replyhook sender set whatsapp:+15550002222 --webhook";
    dev.program
        .wait_for("way back", |line| line.starts_with(way).then_some(()));
    let output = dev.program.output();
    assert!(output.contains("Twilio still calls the tunnel"), "{output}");
}

/// Runs `dev` with a sender, which fails to write to this file. Returns the webhooks that were set.
fn webhooks_set_by_failing_dev(console: &Console, stdout: File, script: &str) -> Vec<[Value; 3]> {
    let failed = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_replyhook")])
        .args(["dev", "--port", "0", "--emulator-port", "0"])
        .args(["--tunnel-url", TUNNEL, "--sender", NUMBER])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(env(console))
        .current_dir(std::env::temp_dir())
        .stdout(stdout)
        .stderr(Stdio::null())
        .status();
    assert_eq!(failed.unwrap().code(), Some(2));
    let changes = console.changes();
    changes.iter().map(|(_, webhooks)| urls(webhooks)).collect()
}

#[test]
fn startup_error_leaves_webhooks_unchanged() {
    let console = start_console();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let set = webhooks_set_by_failing_dev(&console, full.unwrap(), "exec \"$0\" \"$@\"");
    assert_eq!(set, Vec::<[Value; 3]>::new());
}

#[test]
fn webhooks_are_restored_if_the_welcome_cannot_be_written() {
    let console = start_console();
    // The address of the page fits into a file of 512 bytes, and the text after the change of the webhooks does not.
    let script = "trap '' XFSZ; ulimit -f 1; exec timeout 60 \"$0\" \"$@\"";
    let stdout = tempfile::tempfile().unwrap();
    let set = webhooks_set_by_failing_dev(&console, stdout, script);
    assert_eq!(set, [tunnel_webhooks(), OLD_WEBHOOKS.map(Value::from)]);
}
