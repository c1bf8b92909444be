//! Options of `replyhook dev`, `chat` and `serve` that name a bot: a rules file, a service, or a command.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::server::reserve_port;
use crate::support::{ANA, Dev, Program, Wait, installed, replyhook, report_skipped, root};

const RULES: &str = "[[rule]]\nwhen.text = \"hi\"\nreply = \"Hello from the file\"\n";

fn reply(dev: &Dev, text: &str) -> String {
    let result = dev.says(&json!({"from": ANA, "body": text, "profile_name": "Ana"}));
    let body = result["messages"][0]["body"].as_str();
    body.unwrap_or_else(|| panic!("no reply: {result}"))
        .to_owned()
}

/// Returns the rest of a printed line that begins with `start`.
fn printed(dev: &Dev, start: &str) -> String {
    dev.program.wait_for(start, |line| {
        line.trim().strip_prefix(start).map(str::to_owned)
    })
}

#[test]
fn rules_option_replaces_configured_handler() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    fs::write(&file, RULES).unwrap();
    let file = file.to_str().unwrap();
    let env = [("REPLYHOOK__HANDLER__KIND", "echo")];
    let (code, out, err) = replyhook(&["chat", "--rules", file], &env, "hi\n");
    assert_eq!((code, &*out), (0, "bot: Hello from the file\n"), "{err}");
    let dev = Dev::start_with(&["--port", "0", "--rules", file], &env);
    assert_eq!(reply(&dev, "hi"), "Hello from the file");
    // `serve` reads the same file: a missing one is named.
    let missing = folder.path().join("nowhere.toml");
    let token = "0123456789abcdef0123456789abcdef";
    let serve = ["serve", "--rules", missing.to_str().unwrap()];
    let env = [
        ("TWILIO_AUTH_TOKEN", token),
        ("PUBLIC_URL", "https://bot.example.com"),
    ];
    let (code, _, err) = replyhook(&serve, &env, "");
    assert_eq!(code, 2);
    assert!(err.contains("nowhere.toml"), "{err}");
}

// The option overrides PORT, and a busy port is named.
#[test]
fn serve_port_option_overrides_environment() {
    let busy = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let env = [
        ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
        ("PUBLIC_URL", "https://bot.example.com"),
        ("DATABASE_URL", "sqlite::memory:"),
        ("REPLYHOOK__ADMIN__LISTEN", ""),
        ("PORT", "1"),
    ];
    let (code, _, err) = replyhook(&["serve", "--port", &port], &env, "");
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains(&format!("cannot listen on 0.0.0.0:{port} (PORT or --port)")),
        "{err}"
    );
}

fn forward_service(secret: &str, port: &str) -> Option<crate::support::Program> {
    let python = installed("REPLYHOOK_TEST_PYTHON")?;
    let program = crate::support::Program::start(
        std::process::Command::new(python)
            .arg(root().join("examples/forward/bot.py"))
            .env_clear()
            .env("FORWARD_SECRET", secret)
            .env("PORT", port),
    );
    program.wait_for("port", |line| {
        line.strip_prefix("listening on ").map(str::to_owned)
    });
    Some(program)
}

#[test]
fn forward_option_prints_secret_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let reserved = reserve_port();
    let port = reserved.local_addr().unwrap().port().to_string();
    let url = format!("http://127.0.0.1:{port}/message");
    let start = |args: &[&str]| {
        let args = [&["--port", "0", "--forward", &url], args].concat();
        // A secret of the settings belongs to another service.
        let env = [("REPLYHOOK__HANDLER__FORWARD_SECRET_FILE", "/nowhere")];
        Dev::start_in(folder.path(), &args, &env)
    };
    let dev = start(&[]);
    let secret = printed(&dev, "FORWARD_SECRET=");
    assert!(secret.starts_with("whsec_"), "{secret}");
    let Some(_service) = forward_service(&secret, &port) else {
        report_skipped("the service of dev --forward");
        return;
    };
    assert_eq!(reply(&dev, "hi"), "Hello Ana, you said: hi");
    let account = dev.account.clone();
    drop(dev);
    let again = start(&[]);
    assert_eq!(printed(&again, "FORWARD_SECRET="), secret);
    assert_eq!(again.account, account);
    drop(again);
    assert_ne!(
        printed(&start(&["--new-credentials"]), "FORWARD_SECRET="),
        secret
    );
}

#[test]
fn options_that_exclude_each_other_exit_with_2() {
    for (args, part) in [
        (
            &["--forward", "http://localhost:1/m", "--rules", "r.toml"][..],
            "cannot be used with",
        ),
        (
            &[
                "--forward",
                "http://localhost:1/m",
                "--webhook",
                "http://localhost:1/s",
            ],
            "cannot be used with",
        ),
        (&["--rules", "r.toml", "--", "true"], "cannot be used with"),
        (&["--forward", "localhost:3000"], "forward_url"),
        (
            &["--port", "0", "--", "no-such-program-anywhere"],
            "cannot start no-such-program-anywhere",
        ),
    ] {
        let args = [&["dev", "--emulator-port", "0"], args].concat();
        let (code, _, err) = replyhook(&args, &[], "");
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
}

/// Returns whether a process runs. One that has ended but was not waited for by its parent does not.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Writes a Python service that replies with its process ID and one of its variables.
fn write_service(file: &Path, variable: &str, reply: &str) {
    let text = format!(
        "import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        kind, body = {reply}
        self.send_response(200)
        self.send_header('content-type', kind)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
assert os.environ['{variable}']
assert 'TWILIO_API_KEY_SECRET' not in os.environ, 'a real credential'
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
"
    );
    fs::write(file, text).unwrap();
}

/// Chats until a reply is accepted. The bot's process may not listen yet; then the handler fails.
fn wait_for_reply<T>(dev: &Dev, accept: impl Fn(&str) -> Option<T>) -> T {
    let wait = Wait::until("the bot replies");
    for number in 0.. {
        // Repeated texts would be taken for a loop of two bots.
        let body = format!("hi {number}");
        let result = dev.says(&json!({"from": ANA, "body": body, "profile_name": "Ana"}));
        if let Some(found) = result["messages"][0]["body"].as_str().and_then(&accept) {
            return found;
        }
        wait.check();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    unreachable!()
}

/// Returns the ID of the process that replies, once it is another one than `but`.
fn wait_for_process(dev: &Dev, but: Option<i32>) -> i32 {
    wait_for_reply(dev, |body| {
        body.parse().ok().filter(|pid| Some(*pid) != but)
    })
}

/// Chats with a bot whose process `dev` starts, kills the process, and chats with the next one.
fn check_command(args: &[&str], variable: &str, reply_expression: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot.py");
    write_service(&file, variable, reply_expression);
    let args = [
        &["--port", "0"],
        args,
        &["--", "python3", file.to_str().unwrap()],
    ]
    .concat();
    let env = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("TWILIO_API_KEY_SECRET", "real"),
        ("TWILIO_AUTH_TOKEN", "real"),
    ];
    let mut dev = Dev::start_in(folder.path(), &args, &env);
    let first = wait_for_process(&dev, None);
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    let line = printed(&dev, "The bot's process ");
    assert!(line.contains("signal 9"), "{line}");
    let second = wait_for_process(&dev, Some(first));
    assert_eq!(dev.program.signal_and_wait(Signal::TERM), Some(0));
    assert!(!is_running(second), "it still runs");
}

#[test]
fn command_of_forward_service_is_started_and_started_again() {
    check_command(&[], "FORWARD_SECRET", "'text/plain', str(os.getpid())");
}

#[test]
fn command_of_webhook_server_gets_emulated_account() {
    let reserved = reserve_port();
    let port = reserved.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/sms");
    let reply = "'text/xml', f'<Response><Message>{os.getpid()}</Message></Response>'";
    check_command(&["--webhook", &url], "TWILIO_ACCOUNT_SID", reply);
}

// The lines to paste for a server that handles webhooks itself.
#[test]
fn webhook_option_prints_lines_for_env_file_node_and_python() {
    let dev = Dev::start_with(&["--webhook", "http://127.0.0.1:9/sms"], &[]);
    assert_eq!(printed(&dev, "TWILIO_ACCOUNT_SID="), dev.account);
    assert_eq!(printed(&dev, "TWILIO_AUTH_TOKEN="), dev.token);
    assert_eq!(printed(&dev, "TWILIO_API_URL="), dev.url);
    assert_eq!(
        printed(&dev, "client.api.baseUrl = client.content.baseUrl = "),
        "process.env.TWILIO_API_URL;"
    );
    assert_eq!(
        printed(&dev, "client.api.base_url = client.content.base_url = "),
        "os.environ[\"TWILIO_API_URL\"]"
    );
    let config: Value = dev.control("GET", "/config", &Value::Null);
    assert_eq!(config["webhook"], "http://127.0.0.1:9/sms");
}

/// Chats with an example that `dev` starts.
fn check_example(program: &str, file: &str, env: &[(&str, &str)]) {
    let bot = root().join("examples/forward").join(file);
    let args = ["--port", "0", "--", program, bot.to_str().unwrap()];
    let dev = Dev::start_with(&args, env);
    let reply = wait_for_reply(&dev, |body| Some(body.to_owned()));
    assert!(reply.starts_with("Hello Ana, you said: hi"), "{reply}");
}

// The examples find their port as hosting platforms pass it.
#[test]
fn examples_read_port_and_secret_of_environment() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the examples in Python and Node as commands of dev");
    };
    check_example(&python, "bot.py", &[]);
    let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") else {
        return report_skipped("the example in Node as a command of dev");
    };
    let path = installed("PATH").unwrap();
    let env = [("NODE_PATH", modules.as_str()), ("PATH", path.as_str())];
    check_example("node", "bot.mjs", &env);
}

// A process that the bot's process has started keeps the port, and must end with it.
#[test]
fn processes_of_ended_bot_are_ended_before_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("server.py");
    write_service(&server, "FORWARD_SECRET", "'text/plain', str(os.getpid())");
    let script = "python3 server.py & sleep 1; exit 3";
    let args = ["--port", "0", "--", "sh", "-c", script];
    let env = [("PATH", "/usr/local/bin:/usr/bin:/bin")];
    let mut dev = Dev::start_in(folder.path(), &args, &env);
    let first = wait_for_process(&dev, None);
    assert!(printed(&dev, "The bot's process ").contains("exit code 3"));
    let second = wait_for_process(&dev, Some(first));
    assert!(!is_running(first));
    assert_eq!(dev.program.signal_and_wait(Signal::TERM), Some(0));
    assert!(!is_running(second));
}

// The developer of a server for webhooks gets told which option is missing.
#[test]
fn bot_that_ends_early_is_reported_with_the_missing_option() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--port", "0", "--", "sh", "-c", "exit 7"];
    let dev = Dev::start_in(folder.path(), &args, &[("PATH", "/usr/bin:/bin")]);
    let output = dev.program.output();
    let parts = [
        "Chat with your bot",
        "exit code 7",
        "--webhook http://",
        "does not listen on port",
        "Ctrl-C",
    ];
    let found = parts.map(|part| {
        output
            .find(part)
            .unwrap_or_else(|| panic!("{part}: {output}"))
    });
    assert!(found.is_sorted(), "{output}");
    assert_eq!(output.matches("--webhook http://").count(), 1, "{output}");
}

#[test]
fn page_is_named_while_bot_does_not_listen() {
    let folder = tempfile::tempdir().unwrap();
    let port = reserve_port();
    let port_number = port.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port_number}/sms");
    let program = Program::start(
        Command::new(env!("CARGO_BIN_EXE_replyhook"))
            .args(["dev", "--emulator-port", "0", "--webhook", &url])
            .args(["--", "sleep", "60"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_STATE_HOME", folder.path())
            .current_dir(folder.path()),
    );
    let waiting = format!("for the bot to listen on port {port_number}");
    program.wait_for("what is waited for", |line| {
        line.contains(&waiting).then_some(())
    });
    let output = program.output();
    assert!(output.contains("Chat with your bot"), "{output}");
    assert!(!output.contains("Ctrl-C"), "{output}");
}

#[test]
fn port_of_bot_that_another_program_has_is_an_error() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/sms");
    let named = format!("another program listens on port {port} already");
    for options in [
        &["--webhook", &url][..],
        &["--port", "0", "--forward", &url],
    ] {
        let args = [
            &["dev", "--emulator-port", "0"],
            options,
            &["--", "sleep", "60"],
        ]
        .concat();
        let (code, out, err) = replyhook(&args, &[("PATH", "/usr/bin:/bin")], "");
        assert_eq!(code, 2, "{out}{err}");
        assert!(err.contains(&named), "{err}");
    }
}

#[test]
fn printed_url_of_bot_has_no_password_or_query_value() {
    let url = "http://user:s3cret@127.0.0.1:9/message?key=s3cret";
    let dev = Dev::start_with(&["--port", "0", "--forward", url], &[]);
    let output = dev.program.output();
    assert!(output.contains("127.0.0.1:9/message"), "{output}");
    assert!(!output.contains("s3cret"), "{output}");
}

// On loopback `dev` makes a token for the bot. On other addresses the API stays closed unless the settings have a token.
#[test]
fn bot_gets_access_to_api_on_loopback() {
    let token = "0123456789abcdef0123456789abcdef-of-the-settings";
    let configured = ("REPLYHOOK__ADMIN__TOKEN", token);
    let open = ("REPLYHOOK__ADMIN__ALLOW_REMOTE", "true");
    for (listen, more, expected) in [
        ("127.0.0.1:0", &[][..], "http://127.0.0.1:"),
        ("127.0.0.1:0", &[configured], token),
        ("0.0.0.0:0", &[], "none none"),
        ("0.0.0.0:0", &[configured, open], "http://127.0.0.1:"),
        ("", &[], "none none"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let names = ["REPLYHOOK_API_URL", "REPLYHOOK_API_TOKEN"];
        let [url, secret] = names.map(|name| format!("os.environ.get('{name}', 'none')"));
        let reply = format!("'text/plain', {url} + ' ' + {secret}");
        write_service(&folder.path().join("server.py"), "FORWARD_SECRET", &reply);
        let base = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("REPLYHOOK__ADMIN__LISTEN", listen),
        ];
        let env = [&base[..], more].concat();
        let args = ["--port", "0", "--", "python3", "server.py"];
        let dev = Dev::start_in(folder.path(), &args, &env);
        let reply = wait_for_reply(&dev, |body| Some(body.to_owned()));
        assert!(reply.contains(expected), "{listen}: {reply}");
        let secret = reply.split(' ').next_back().unwrap();
        assert!(secret == "none" || secret.len() >= 32, "{reply}");
    }
}
