//! Commands of the README and the manual: they are typed, and their output is compared.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use replyhook::ErrorCode;
use serde_json::json;

use crate::support::markdown::{Block, blocks, pages};
use crate::support::server::reserve_port;
use crate::support::session::{Session, TEMPLATE, example};
use crate::support::{ANA, BEN, Dev, Program, installed, read, report_skipped};

const GUIDE: &str = "docs/src";

/// Command blocks that are not run: page, text and reason.
const NOT_RUN: [(&str, &str, &str); 31] = [
    (
        "README.md",
        "git clone <repository> replyhook && cd replyhook\ncargo run -- dev    # a bot, an emulated Twilio and a chat page: no account, phone or tunnel\n./scripts/test      # every test; installs what is missing\n",
        "it fetches the repository, and its last command runs these tests",
    ),
    (
        "docs/src/how-to/deploy-docker.md",
        "docker build -t replyhook .\ndocker run -p 8080:8080 -v replyhook:/data -e TWILIO_AUTH_TOKEN=… -e PUBLIC_URL=https://bot.example.com replyhook\n",
        "it builds the image: scripts/test-image does",
    ),
    (
        "docs/src/how-to/deploy-fly.md",
        "fly launch --copy-config --no-deploy --ha=false\nfly secrets set TWILIO_AUTH_TOKEN=…\nfly deploy --ha=false\n",
        "it makes an app at fly.io",
    ),
    (
        "docs/src/how-to/express-flask.md",
        "npm install express twilio standardwebhooks\n",
        "scripts/sdk installs them",
    ),
    (
        "docs/src/how-to/express-flask.md",
        "pip install flask twilio requests standardwebhooks\n",
        "scripts/sdk installs them",
    ),
    (
        "docs/src/how-to/express-flask.md",
        "   replyhook dev --webhook http://localhost:3000/sms\n",
        "it needs a bot elsewhere: the tests of the bots of that page do it",
    ),
    (
        "docs/src/how-to/forward.md",
        "replyhook dev -- python bot.py\n",
        "it runs until it is stopped: the tests of `dev` run it",
    ),
    (
        "docs/src/how-to/install.md",
        "git clone <repository> replyhook && cd replyhook\ncargo install --locked --path .\n",
        "it builds the program",
    ),
    (
        "docs/src/how-to/install.md",
        "scripts/package dist\n",
        "it builds the program: `packages` installs the result",
    ),
    (
        "docs/src/how-to/python.md",
        "pip install twilio flask requests pytest\n",
        "scripts/sdk installs them",
    ),
    (
        "docs/src/how-to/python.md",
        "replyhook dev --webhook http://127.0.0.1:5000/sms -- python app.py\n",
        "the page's test in pytest runs it on another port",
    ),
    (
        "docs/src/how-to/python.md",
        "pytest\n",
        "`developer_pages` runs it",
    ),
    (
        "docs/src/how-to/node.md",
        "npm install twilio express\n",
        "scripts/sdk installs them",
    ),
    (
        "docs/src/how-to/node.md",
        "replyhook dev --webhook http://127.0.0.1:3000/sms -- node app.mjs\n",
        "the page's test in node:test runs it on another port",
    ),
    (
        "docs/src/how-to/node.md",
        "node --test\n",
        "`developer_pages` runs it",
    ),
    (
        "docs/src/how-to/migrate.md",
        "replyhook dev --webhook http://localhost:3000/sms\n",
        "it needs a bot elsewhere: the test of the two bots does it",
    ),
    (
        "docs/src/how-to/templates.md",
        "replyhook templates create templates.toml --submit\nreplyhook templates\n",
        "it needs an account: `template_files` runs it with the emulator",
    ),
    (
        "docs/src/tutorial/appointment-bot.md",
        "pip install flask standardwebhooks\n",
        "scripts/sdk installs them",
    ),
    (
        "docs/src/tutorial/appointment-bot.md",
        "replyhook dev -- python bot.py\n",
        "it runs until it is stopped: `appointment_bots` runs it",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "pip install dist/replyhook-*.whl\n",
        "`packages` installs it",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "replyhook dev --forward http://127.0.0.1:3000/message -- python bot.py\n",
        "it runs until it is stopped: `http_bots` runs it",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "npm install dist/replyhook-linux-x64-*.tgz dist/replyhook-0.1.0.tgz\n",
        "`packages` installs it",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "replyhook dev --forward http://127.0.0.1:3000/message -- node bot.mjs\n",
        "it runs until it is stopped: `http_bots` runs it",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "curl http://127.0.0.1:3000/form --data-urlencode phone=+15550003333 -d 'day=Thursday&page=https://shop.example/book'\n",
        "`http_bots` makes these calls to both bots",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "curl http://127.0.0.1:3000/remind -d 'day=Thursday&date=2026-12-02'\ncurl http://127.0.0.1:3000/remind -d 'day=Thursday&date=2026-12-02'\n",
        "`http_bots` makes these calls to both bots",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "curl http://127.0.0.1:3000/desk\ncurl http://127.0.0.1:3000/desk/answer --data-urlencode to=whatsapp:+15550001111 -d 'body=Sorry, no.'\ncurl http://127.0.0.1:3000/desk/done --data-urlencode to=whatsapp:+15550001111\n",
        "`http_bots` makes these calls to both bots",
    ),
    (
        "docs/src/tutorial/http-bot.md",
        "curl -X PUT http://127.0.0.1:8081/_emulator/faults -H 'Content-Type: application/json' -d '{\"content_failure\":{\"code\":63024,\"times\":1}}'\ncurl http://127.0.0.1:3000/form --data-urlencode phone=+15550005555 -d 'day=Friday&page=https://shop.example/book'\ncurl http://127.0.0.1:3000/remind -d 'day=Friday&date=2026-12-03'\ncurl http://127.0.0.1:3000/desk\n",
        "`http_bots` makes these calls to both bots",
    ),
    (
        "docs/src/how-to/python.md",
        "replyhook dev -- python bot.py\n",
        "it runs until it is stopped: `http_bots` runs it",
    ),
    (
        "docs/src/how-to/node.md",
        "replyhook dev -- node bot.mjs\n",
        "it runs until it is stopped: `http_bots` runs it",
    ),
    (
        "docs/src/tutorial/quick-start.md",
        "git clone <repository> replyhook && cd replyhook\ncargo build --locked\nexport PATH=\"$PWD/target/debug:$PATH\"\n",
        "it builds the program",
    ),
    (
        "docs/src/tutorial/real-phone.md",
        "TWILIO_ACCOUNT_SID=AC… TWILIO_AUTH_TOKEN=… replyhook dev --tunnel-url https://x.example.com\n",
        "it needs a tunnel and a real account",
    ),
];

/// Returns true if all commands of a block call Twilio. They are typed with a dev server, whose account is emulated.
fn calls_twilio(block: &Block) -> bool {
    let commands = ["replyhook send ", "replyhook reconcile "];
    let asks = |line: &str| commands.iter().any(|command| line.starts_with(command));
    // An opt-in comes before the message that needs it.
    let is_opt_in = |line: &str| line.starts_with("replyhook consent opt-in ");
    block.kind == "sh"
        && block.text.lines().any(asks)
        && block.text.lines().all(|line| asks(line) || is_opt_in(line))
}

/// Runs the commands of a page in one session, and returns the differences.
fn run_page(page: &str) -> Vec<String> {
    let blocks = blocks(page);
    if !blocks.iter().any(|block| block.kind == "console") {
        return Vec::new();
    }
    let mut session = Session::start();
    let mut wrong = Vec::new();
    for block in blocks {
        if block.kind != "console" {
            session.write_file(&block);
        } else if block.text.contains("--example hello") && !example("hello").exists() {
            // `cargo test --test it` alone does not build examples; `cargo test` does.
            report_skipped("README's ten-line bot: the example `hello` is not built");
        } else if let Err(difference) = session.run_block(&block) {
            wrong.push(format!("{page}, line {}: {difference}", block.line));
        }
    }
    wrong
}

#[test]
fn documented_command_prints_documented_output() {
    let pages: Vec<_> = ["README.md".to_owned()]
        .into_iter()
        .chain(pages("docs"))
        .collect();
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = pages
            .iter()
            .map(|page| scope.spawn(|| run_page(page)))
            .collect();
        let wrong = readers.into_iter().map(|reader| reader.join().unwrap());
        wrong.flatten().collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn untested_shell_block_has_reason() {
    let mut not_run = Vec::new();
    for page in ["README.md".to_owned()].into_iter().chain(pages(GUIDE)) {
        for block in blocks(&page).into_iter().filter(|block| block.kind == "sh") {
            if calls_twilio(&block) {
                continue;
            }
            let is_it =
                |(file, text, _): &&(&str, &str, &str)| *file == page && block.text == *text;
            let known = NOT_RUN.iter().find(is_it);
            let known = known.unwrap_or_else(|| {
                panic!(
                    "{page}, line {}: make it `console`, or add it to NOT_RUN",
                    block.line
                )
            });
            not_run.push(*known);
        }
    }
    for listed in NOT_RUN {
        assert!(
            not_run.contains(&listed),
            "{listed:?} is not in the documentation"
        );
    }
}

/// Runs a command of a page with a dev server, and returns its output.
fn run_with_emulator(dev: &Dev, folder: &Path, store: &str, command: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_replyhook")).parent().unwrap();
    let output = Command::new("bash")
        .args(["-c", &command.replace("HX…", TEMPLATE)])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
        .env("DATABASE_URL", store)
        .env("TWILIO_ACCOUNT_SID", &dev.account)
        .env("TWILIO_AUTH_TOKEN", &dev.token)
        .env("REPLYHOOK__TWILIO__API_URL", &dev.url)
        .env("REPLYHOOK__TWILIO__CONTENT_URL", &dev.url)
        .current_dir(folder)
        .output()
        .unwrap();
    let output_text =
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "$ {command}\n{output_text}");
    output_text
}

#[test]
fn documented_twilio_command_runs_with_emulator() {
    let mut count = 0;
    for page in ["README.md".to_owned()].into_iter().chain(pages(GUIDE)) {
        for block in blocks(&page).into_iter().filter(calls_twilio) {
            let folder = tempfile::tempdir().unwrap();
            let store = format!("sqlite:{}", folder.path().join("desk.db").display());
            let env = [("DATABASE_URL", store.as_str())];
            let dev = Dev::start_in(folder.path(), &["--port", "0"], &env);
            // The server learns the sender of the pages from a first message to it. Only a text needs one of the recipient:
            // a template needs the opt-in that the page shows before it.
            let author = if block.text.contains("--body") {
                ANA
            } else {
                "whatsapp:+15550009999"
            };
            dev.says(&json!({"from": author, "to": "whatsapp:+15550002222", "body": "hi"}));
            let customers = format!("to,1\n{ANA},Ana\n");
            std::fs::write(folder.path().join("customers.csv"), customers).unwrap();
            for command in block.text.lines() {
                let output = run_with_emulator(&dev, folder.path(), &store, command);
                assert!(
                    !command.ends_with("--wait") || output.starts_with("message 1: sent SM"),
                    "{output}"
                );
                count += 1;
            }
        }
    }
    assert!(count >= 5, "{count} commands");
}

// No test would check a block in another language.
#[test]
fn code_block_has_known_language() {
    const KINDS: [&str; 9] = [
        "console", "sh", "rust", "toml", "json", "js", "python", "ini", "text",
    ];
    for page in ["README.md".to_owned()].into_iter().chain(pages(GUIDE)) {
        for block in blocks(&page) {
            let kind = block.kind.split(',').next().unwrap();
            assert!(
                KINDS.contains(&kind),
                "{page}, line {}: {kind}: commands are `console`, or `sh` with a reason",
                block.line
            );
        }
    }
}

#[test]
fn page_with_rust_is_included_in_doctests() {
    let compiled = read("src/lib.rs");
    for page in pages(GUIDE) {
        let kinds: Vec<_> = blocks(&page).into_iter().map(|block| block.kind).collect();
        if !kinds.iter().any(|kind| kind.starts_with("rust")) {
            continue;
        }
        assert!(!kinds.iter().any(|kind| kind.contains("ignore")), "{page}");
        let included = format!("include_str!(\"../{page}\")");
        assert!(compiled.contains(&included), "src/lib.rs lacks {included}");
    }
}

#[test]
fn guide_page_is_listed_once_in_summary() {
    let summary = read(&format!("{GUIDE}/SUMMARY.md"));
    for page in pages(GUIDE) {
        let name = page.trim_start_matches(GUIDE).trim_start_matches('/');
        let listed = summary.matches(&format!("]({name})")).count();
        assert_eq!(listed, usize::from(name != "SUMMARY.md"), "{name}");
    }
}

// Each listed code has a meaning at Twilio, and each code with a remedy in `doctor` is listed.
#[test]
fn error_code_page_lists_known_and_doctor_codes() {
    let page = read(&format!("{GUIDE}/reference/error-codes.md"));
    let first = |row: &str| row.strip_prefix("| ")?.split(' ').next()?.parse().ok();
    let codes: Vec<ErrorCode> = page.lines().filter_map(first).collect();
    assert!(codes.len() > 20, "{codes:?}");
    for code in &codes {
        assert!(code.meaning().is_some(), "{code}");
    }
    let table = read("src/bin/replyhook/doctor/remedy.rs");
    let arm = |line: &str| line.trim().split_once(" =>")?.0.parse().ok();
    let known: Vec<ErrorCode> = table.lines().filter_map(arm).collect();
    assert!(known.len() > 7, "{known:?}");
    for code in known {
        assert!(codes.contains(&code), "{code} is not on the page");
    }
}

/// Waits until a program listens on the port.
fn wait_for_listener(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Checks that a bot of the manual in another language replies to the emulator.
fn check_echo_bot(kind: &str, file: &str, command: &mut Command) {
    let page = format!("{GUIDE}/how-to/migrate.md");
    let mut blocks = blocks(&page).into_iter();
    let bot = blocks.find(|block| block.kind == kind).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(file);
    std::fs::write(&file, bot.text).unwrap();
    if let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") {
        std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    }
    let reserved = reserve_port();
    let port = reserved.local_addr().unwrap().port();
    let dev = Dev::start_with(&["--webhook", &format!("http://127.0.0.1:{port}/sms")], &[]);
    let bot = Program::start(
        command
            .arg(&file)
            .env("PORT", port.to_string())
            .env("TWILIO_AUTH_TOKEN", &dev.token),
    );
    wait_for_listener(port);
    dev.says(&json!({"from": ANA, "body": "1 < 2"}));
    let reply = dev.conversation(ANA).pop().unwrap();
    assert_eq!(
        reply["body"],
        "You said: 1 < 2",
        "{reply:#} {}",
        bot.output()
    );
}

#[test]
fn guide_express_bot_echoes_message() {
    match installed("REPLYHOOK_TEST_NODE_MODULES") {
        Some(_) => check_echo_bot("js", "bot.mjs", &mut Command::new("node")),
        None => report_skipped("the guide's bot in Express"),
    }
}

#[test]
fn guide_flask_bot_echoes_message() {
    match installed("REPLYHOOK_TEST_PYTHON") {
        Some(python) => check_echo_bot("python", "bot.py", &mut Command::new(python)),
        None => report_skipped("the guide's bot in Flask"),
    }
}

/// A picture of 68 bytes, as far as the bots care.
const PICTURE: [u8; 68] = [7; 68];

/// Starts the bot in a code block of a page, on a port, with these variables.
fn start_bot(text: &str, folder: &Path, command: &mut Command, env: &[(&str, &str)]) -> Program {
    let file = folder.join("bot.mjs");
    std::fs::write(&file, text).unwrap();
    if let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") {
        let _ = std::os::unix::fs::symlink(modules, folder.join("node_modules"));
    }
    Program::start(command.arg(&file).envs(env.iter().copied()))
}

/// Chats with a bot of the page about Express and Flask. It counts the texts of each user.
fn chat_with_counting_bot(dev: &Dev, bot: &Program) {
    let picture = json!([{"data": STANDARD.encode(PICTURE), "content_type": "image/png"}]);
    for (message, reply) in [
        (
            json!({"from": ANA, "body": "hi"}),
            Some(format!("{ANA} wrote 1: hi")),
        ),
        (
            json!({"from": ANA, "body": "1 < 2"}),
            Some(format!("{ANA} wrote 2: 1 < 2")),
        ),
        (
            json!({"from": BEN, "body": "hi"}),
            Some(format!("{BEN} wrote 1: hi")),
        ),
        (
            json!({"from": ANA, "media": picture}),
            Some("Got 68 bytes.".to_owned()),
        ),
        (json!({"from": ANA, "body": "silence"}), None),
    ] {
        let answer = dev.says(&message);
        let replies = answer["messages"].as_array().unwrap().iter();
        let replies: Vec<_> = replies
            .map(|reply| reply["body"].as_str().unwrap())
            .collect();
        let expected: Vec<_> = reply.as_deref().into_iter().collect();
        assert_eq!(replies, expected, "{answer:#} {}", bot.output());
        let attempts = answer["attempts"].as_array().unwrap();
        assert!(
            attempts.iter().all(|attempt| attempt["status"] == 200),
            "{answer:#}"
        );
        let url = attempts[0]["url"].as_str().unwrap();
        assert!(url.ends_with("/sms"), "{url}");
    }
}

/// Checks that a bot does the same before and after its move behind replyhook.
fn check_moved_bot(kind: &str, command: impl Fn() -> Command) {
    let page = format!("{GUIDE}/how-to/express-flask.md");
    let texts = |kind: &str| {
        let blocks = blocks(&page).into_iter();
        let texts = blocks.filter(|block| block.kind == kind);
        texts.map(|block| block.text).collect::<Vec<_>>()
    };
    let [before, after] = texts(kind).try_into().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let reserved = reserve_port();
    let port = reserved.local_addr().unwrap().port();
    let port_text = port.to_string();
    let dev = Dev::start_with(&["--webhook", &format!("http://127.0.0.1:{port}/sms")], &[]);
    let env = [
        ("PORT", port_text.as_str()),
        ("TWILIO_ACCOUNT_SID", &dev.account),
        ("TWILIO_AUTH_TOKEN", &dev.token),
        ("SESSION_SECRET", "any"),
    ];
    let bot = start_bot(&before, folder.path(), &mut command(), &env);
    wait_for_listener(port);
    chat_with_counting_bot(&dev, &bot);
    drop((bot, dev, reserved));

    let settings = texts("toml").remove(0);
    let quoted = |key: &str| {
        let line = settings.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim_matches([' ', '=', '"']).to_owned()
    };
    let reserved = reserve_port();
    let port = reserved.local_addr().unwrap().port();
    let port_text = port.to_string();
    let settings_here = settings.replace("localhost:3000", &format!("127.0.0.1:{port}"));
    std::fs::write(folder.path().join("replyhook.toml"), settings_here).unwrap();
    let secret = quoted("forward_secret");
    let env = [("PORT", port_text.as_str()), ("FORWARD_SECRET", &secret)];
    let bot = start_bot(&after, folder.path(), &mut command(), &env);
    wait_for_listener(port);
    let dev = Dev::start_in(folder.path(), &["--port", "0"], &[]);
    chat_with_counting_bot(&dev, &bot);
    // Another secret: the bot rejects the message, and replyhook sends nothing.
    let other = format!("whsec_{}", STANDARD.encode([8; 32]));
    let env = [("REPLYHOOK__HANDLER__FORWARD_SECRET", other.as_str())];
    let dev = Dev::start_in(folder.path(), &["--port", "0"], &env);
    let answer = dev.says(&json!({"from": ANA, "body": "hi"}));
    assert_eq!(answer["attempts"][0]["status"], 500, "{answer:#}");
}

#[test]
fn express_bot_replies_alike_before_and_after_move() {
    match installed("REPLYHOOK_TEST_NODE_MODULES") {
        Some(_) => check_moved_bot("js", || Command::new("node")),
        None => report_skipped("the guide's move of a bot in Express"),
    }
}

#[test]
fn flask_bot_replies_alike_before_and_after_move() {
    match installed("REPLYHOOK_TEST_PYTHON") {
        Some(python) => check_moved_bot("python", || Command::new(&python)),
        None => report_skipped("the guide's move of a bot in Flask"),
    }
}
