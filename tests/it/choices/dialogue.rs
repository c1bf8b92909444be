//! One dialogue on four channels: the server is killed between question and answer, and the answers are the same.

use std::rc::Rc;

use crate::support::{FakeTwilio, PhoneMessage, Policy, Server, Webhook, report_skipped};

const RULES: &str = r#"
[[rule]]
when.text = "book"
ask = "visit"

[[form]]
name = "visit"
done = "{{ day }} at {{ hour }}, {{ name }}."

[[form.ask]]
field = "day"
question = { text = "Which day?", choices = [{ id = "mon", title = "Monday" }, { id = "tue", title = "Tuesday" }] }

[[form.ask]]
field = "hour"
question = { text = "Which hour?", choices = ["9 am", "10 am", "11 am", "2 pm", "3 pm"] }

[[form.ask]]
field = "name"
question = "Your name?"

[otherwise]
reply = "Write book."
"#;

/// User, sender, and the way to answer each of the two questions.
const CHANNELS: [(&str, &str, Answer, Answer); 4] = [
    (
        "whatsapp:+15550001111",
        "whatsapp:+15550002222",
        Answer::Tap(1),
        Answer::Tap(3),
    ),
    (
        "rcs:+15550001111",
        "rcs:brand",
        Answer::Tap(1),
        Answer::Text("2pm"),
    ),
    (
        "messenger:1234567890",
        "messenger:9876543210",
        Answer::Text("tuesday!"),
        Answer::Tap(3),
    ),
    (
        "+15550001111",
        "+15550002222",
        Answer::Text("2."),
        Answer::Text("4"),
    ),
];

#[derive(Clone, Copy)]
enum Answer {
    /// Tap on the option with this index.
    Tap(usize),
    Text(&'static str),
}

impl Answer {
    fn webhook(self, number: u64, question: &PhoneMessage) -> Webhook {
        let index = match self {
            Self::Text(text) => return Webhook::message(number, text),
            Self::Tap(index) => index,
        };
        let fields = &question.content.as_ref().expect("a rich question")["fields"];
        let options = if fields["items"].is_null() {
            &fields["actions"]
        } else {
            &fields["items"]
        };
        let option = &options[index];
        let title = option["title"]
            .as_str()
            .or_else(|| option["item"].as_str())
            .unwrap();
        Webhook::message(number, title)
            .with("ButtonText", title)
            .with("ButtonPayload", option["id"].as_str().unwrap())
    }
}

/// Runs the dialogue on each channel. `next` returns the server of the next message.
fn run(twilio: &FakeTwilio, mut next: impl FnMut() -> Rc<Server>) {
    let mut number = 0;
    for (user, sender, day, hour) in CHANNELS {
        let mut seen = 0;
        let mut say = |webhook: &dyn Fn(u64) -> Webhook| {
            number += 1;
            let webhook = webhook(number).with("From", user).with("To", sender);
            let server = next();
            let delivered = twilio.deliver(|| Some(server.public), &webhook, Policy::BOTH);
            assert!(delivered.acknowledged(), "{user}");
            seen += 1;
            let phone = twilio.wait_for_phone(user, seen);
            assert_eq!(phone.len(), seen, "{user} was asked twice");
            phone[seen - 1].clone()
        };
        let question = say(&|number| Webhook::message(number, "book"));
        assert!(question.body.starts_with("Which day?"), "{}", question.body);
        let question = say(&|number| day.webhook(number, &question));
        assert!(
            question.body.starts_with("Which hour?"),
            "{user}: {}",
            question.body
        );
        let question = say(&|number| hour.webhook(number, &question));
        assert_eq!(question.body, "Your name?", "{user}");
        let done = say(&|number| Webhook::message(number, "Ana"));
        assert_eq!(done.body, "tue at 2 pm, Ana.", "{user}");
    }
}

fn rules() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bot.toml"), RULES).unwrap();
    folder
}

fn start_server(url: &str, folder: &tempfile::TempDir, twilio: &FakeTwilio) -> Rc<Server> {
    let (rules, api) = (folder.path().join("bot.toml"), twilio.url());
    Rc::new(Server::start(&[
        ("DATABASE_URL", url),
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", rules.to_str().unwrap()),
        ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", api.as_str()),
    ]))
}

#[test]
fn dialogue_survives_kill_on_every_channel() {
    let (folder, twilio) = (rules(), FakeTwilio::start());
    let url = format!("sqlite:{}", folder.path().join("replyhook.db").display());
    // A server of its own for each message. It is killed when it is dropped, which is after the question has arrived.
    run(&twilio, || start_server(&url, &folder, &twilio));
}

#[cfg(feature = "postgres")]
#[test]
fn dialogue_continues_on_another_machine() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = runtime.block_on(crate::support::postgres::TestDatabase::create()) else {
        return report_skipped("a dialogue on two machines, which needs PostgreSQL");
    };
    let (folder, twilio) = (rules(), FakeTwilio::start());
    let url = database.url().expose().to_owned();
    // Each answers what the other has asked. At every fourth message one is killed, and a new one takes its place.
    let mut servers = [(); 2].map(|()| start_server(&url, &folder, &twilio));
    let mut messages = 0;
    run(&twilio, || {
        messages += 1;
        servers.swap(0, 1);
        if messages % 4 == 0 {
            servers[1] = start_server(&url, &folder, &twilio);
        }
        servers[0].clone()
    });
    drop(servers);
    runtime.block_on(database.remove());
}
