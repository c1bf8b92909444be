//! Opt-out and opt-in keywords: who handles them on each channel, phrases, and decorated keywords.

use replyhook::config::Sources;
use replyhook::emulator::EmulatorClient;
use replyhook::{App, DevServer, DevServerOptions, Echo};
use serde_json::{Value, json};

use crate::support::{
    EMPTY, FakeTwilio, HttpResponse, ORIGIN, TOKEN, TestApp, Webhook, replyhook, report_skipped,
    twiml_message,
};

const LOOP_DETECTION_OFF: (&str, &str) = ("REPLYHOOK__GUARD__LOOP_DETECTION", "false");
const OWN: (&str, &str) = ("REPLYHOOK__CONSENT__SMS", "own");
const GOODBYE: &str = "You will get no more messages from us. Write START to get them again.";
const WELCOME: &str = "You will get messages from us again. Write STOP to end them.";

/// Channels, each with a user and a sender.
const WHATSAPP: (&str, &str) = ("whatsapp:+15550001111", "whatsapp:+15550002222");
const SMS: (&str, &str) = ("+15550001111", "+15550002222");
const RCS: (&str, &str) = ("rcs:+15550003333", "rcs:brand_agent");
const TOLL_FREE: (&str, &str) = ("+15550004444", "+18885550100");

struct Bot {
    app: TestApp,
    number: std::cell::Cell<u64>,
}

impl Bot {
    fn echo(env: &[(&str, &str)]) -> Self {
        let env = [&[LOOP_DETECTION_OFF][..], env].concat();
        Self::of(TestApp::build(&env, |app| app.handler(Echo)))
    }

    fn of(app: TestApp) -> Self {
        Self {
            app,
            number: std::cell::Cell::new(1),
        }
    }

    fn webhook(&self, (user, sender): (&str, &str), body: &str) -> Webhook {
        let number = self.number.replace(self.number.get() + 1);
        let webhook = Webhook::message(number, body);
        webhook.with("From", user).with("To", sender)
    }

    async fn says(&self, pair: (&str, &str), body: &str) -> String {
        let answer: HttpResponse = self.app.send(self.webhook(pair, body)).await;
        answer.twiml().to_owned()
    }

    async fn assert_opted_out(&self, pair: (&str, &str), expected: bool) {
        let reply = if expected {
            EMPTY.to_owned()
        } else {
            twiml_message("hi")
        };
        assert_eq!(self.says(pair, "hi").await, reply, "{pair:?}");
    }
}

// Twilio's keywords, which Twilio confirms, on SMS and RCS alike.
#[tokio::test]
async fn twilio_handles_keywords_on_sms_and_rcs() {
    let bot = Bot::echo(&[]);
    for pair in [SMS, RCS] {
        for stop in ["STOP", "cancel", " End\n", "REVOKE"] {
            assert_eq!(bot.says(pair, stop).await, EMPTY, "{pair:?} {stop:?}");
            bot.assert_opted_out(pair, true).await;
            assert_eq!(bot.says(pair, "Yes").await, EMPTY);
            bot.assert_opted_out(pair, false).await;
        }
        for ordinary in ["please stop", "dar de baja", "YES"] {
            assert_eq!(bot.says(pair, ordinary).await, twiml_message(ordinary));
        }
    }
}

// To Twilio a decorated keyword is an ordinary message: it neither confirms it nor blocks the user.
#[tokio::test]
async fn decorated_keywords_count_and_are_confirmed() {
    let bot = Bot::echo(&[]);
    for pair in [WHATSAPP, SMS, RCS] {
        for stop in [
            "stop!",
            "*STOP*",
            "“Stop.”",
            "S\u{200b}T\u{200d}OP",
            "¡Stop!",
            "STÓP",
            "ｓｔｏｐ！",
        ] {
            let reply = bot.says(pair, stop).await;
            assert_eq!(reply, twiml_message(GOODBYE), "{pair:?} {stop:?}");
            bot.assert_opted_out(pair, true).await;
            assert_eq!(bot.says(pair, "_start_!").await, twiml_message(WELCOME));
            bot.assert_opted_out(pair, false).await;
        }
    }
    for ordinary in ["please stop", "stop it!", "don't stop", "stopp", "!"] {
        let reply = bot.says(WHATSAPP, ordinary).await;
        assert_eq!(reply, twiml_message(ordinary));
    }
}

#[tokio::test]
async fn phrases_opt_out_where_configured() {
    let words = (
        "REPLYHOOK__CONSENT__STOP_WORDS",
        "STOP, dar de baja, opt out",
    );
    let bot = Bot::echo(&[words]);
    for stop in ["Dar de baja.", "DAR  DE\nBAJA", "opt-out", "*Opt out*"] {
        assert_eq!(bot.says(WHATSAPP, stop).await, twiml_message(GOODBYE));
        assert_eq!(bot.says(WHATSAPP, "START").await, twiml_message(WELCOME));
    }
    for ordinary in ["dar de baja mañana", "baja", "stop all"] {
        let reply = bot.says(WHATSAPP, ordinary).await;
        assert_eq!(reply, twiml_message(ordinary));
    }
    let usual = Bot::echo(&[]);
    for stop in ["stop all", "Opt out", "OPTOUT"] {
        assert_eq!(usual.says(WHATSAPP, stop).await, twiml_message(GOODBYE));
        assert_eq!(usual.says(WHATSAPP, "START").await, twiml_message(WELCOME));
    }
}

// The carriers of toll-free numbers confirm STOP alone, and YES does not lift their block.
#[tokio::test]
async fn toll_free_senders_know_fewer_keywords() {
    let bot = Bot::echo(&[]);
    assert_eq!(bot.says(TOLL_FREE, "CANCEL").await, twiml_message(GOODBYE));
    assert_eq!(bot.says(TOLL_FREE, "YES").await, EMPTY);
    bot.assert_opted_out(TOLL_FREE, true).await;
    assert_eq!(bot.says(TOLL_FREE, "UNSTOP").await, EMPTY);
    bot.assert_opted_out(TOLL_FREE, false).await;
    assert_eq!(bot.says(TOLL_FREE, "STOP").await, EMPTY);
    bot.assert_opted_out(TOLL_FREE, true).await;
}

#[tokio::test]
async fn own_keywords_replace_twilios_and_are_confirmed() {
    let bot = Bot::echo(&[
        OWN,
        (
            "REPLYHOOK__CONSENT__SMS_STOP_WORDS",
            "STOP, arrêt, plus de messages",
        ),
        ("REPLYHOOK__CONSENT__SMS_START_WORDS", "DÉBUT"),
    ]);
    for pair in [SMS, RCS] {
        for stop in ["STOP", "Arret!", "plus de  messages"] {
            assert_eq!(bot.says(pair, stop).await, twiml_message(GOODBYE));
            bot.assert_opted_out(pair, true).await;
            assert_eq!(bot.says(pair, "début").await, twiml_message(WELCOME));
            bot.assert_opted_out(pair, false).await;
        }
        for ordinary in ["CANCEL", "START", "UNSTOP"] {
            assert_eq!(bot.says(pair, ordinary).await, twiml_message(ordinary));
        }
    }
    assert_eq!(bot.says(WHATSAPP, "arret").await, twiml_message("arret"));
    // With `OptOutType`, Twilio has sent the confirmation.
    let stop = bot.webhook(SMS, "assez").with("OptOutType", "STOP");
    assert_eq!(bot.app.send(stop).await.twiml(), EMPTY);
    bot.assert_opted_out(SMS, true).await;
    let start = bot.webhook(SMS, "encore").with("OptOutType", "START");
    assert_eq!(bot.app.send(start).await.twiml(), EMPTY);
    bot.assert_opted_out(SMS, false).await;
    let default = Bot::echo(&[OWN]);
    assert_eq!(default.says(SMS, "cancel").await, twiml_message(GOODBYE));
}

// The confirmation is the one message that reaches a user who has opted out.
#[tokio::test(flavor = "multi_thread")]
async fn own_confirmation_via_rest_is_sent_once() {
    let twilio = FakeTwilio::start();
    let env = [OWN, ("REPLYHOOK__REPLY__PATH", "rest")];
    let app = TestApp::with_twilio(&twilio, &env, |app| app.handler(Echo));
    let bot = Bot::of(app);
    for (number, pair) in [SMS, RCS].into_iter().enumerate() {
        assert_eq!(bot.says(pair, "STOP").await, EMPTY);
        assert_eq!(twilio.wait_for_phone(pair.0, 1)[0].body, GOODBYE);
        for text in ["STOP", "hi"] {
            assert_eq!(bot.says(pair, text).await, EMPTY);
        }
        bot.app.wait_for_outbox("pending", 0).await;
        assert_eq!(twilio.posts().len(), number + 1);
    }
}

// Twilio's own library signs a keyword of each channel.
#[tokio::test]
async fn keywords_signed_by_twilio_library_opt_out() {
    let bot = Bot::echo(&[]);
    for (pair, text, reply) in [
        (WHATSAPP, "*Stop*", twiml_message(GOODBYE)),
        (SMS, "CANCEL", EMPTY.to_owned()),
        (RCS, "OPTOUT", EMPTY.to_owned()),
    ] {
        let Some(webhook) = bot.webhook(pair, text).signed_by_library() else {
            return report_skipped("keywords signed by the official Python library");
        };
        assert_eq!(bot.app.send(webhook).await.twiml(), reply, "{pair:?}");
        bot.assert_opted_out(pair, true).await;
    }
}

async fn dev_server(env: &[(&str, &str)]) -> (DevServer, EmulatorClient) {
    let mut options = DevServerOptions::default();
    options.emulator_port = Some(0);
    options.port = Some(0);
    let sources = Sources::default().with_env(env.iter().copied());
    let dev_server = DevServer::start(App::builder().handler(Echo), sources, options);
    let dev_server = dev_server.await.unwrap();
    let twilio = EmulatorClient::new(dev_server.emulator().url()).unwrap();
    (dev_server, twilio)
}

async fn texts_after(twilio: &EmulatorClient, user: &str, body: &str) -> Vec<String> {
    let message = json!({"from": user, "body": body});
    let answer = twilio.post(&["messages"], &message).await.unwrap();
    let messages = answer["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message["body"].as_str().unwrap().to_owned())
        .collect()
}

// The emulated Twilio confirms and blocks on RCS as on SMS; the user gets one confirmation.
#[tokio::test]
async fn emulated_twilio_confirms_stop_on_rcs() {
    let (dev_server, twilio) = dev_server(&[]).await;
    for user in ["+15550006666", "rcs:+15550007777"] {
        let texts = texts_after(&twilio, user, "STOP").await;
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].contains("unsubscribed"), "{texts:?}");
        assert_eq!(texts_after(&twilio, user, "hi").await, [""; 0]);
        let texts = texts_after(&twilio, user, "START").await;
        assert!(texts[0].contains("re-subscribed"), "{texts:?}");
        assert_eq!(texts_after(&twilio, user, "hi").await, ["hi"]);
        // To Twilio this is an ordinary message, so the bot confirms it.
        assert_eq!(texts_after(&twilio, user, "stop!").await, [GOODBYE]);
    }
    dev_server.stop().await;
}

// With `own`, the emulated Twilio leaves the keywords to the bot.
#[tokio::test]
async fn emulated_twilio_leaves_own_keywords_to_bot() {
    let (dev_server, twilio) = dev_server(&[OWN]).await;
    for user in ["+15550006666", "rcs:+15550007777"] {
        assert_eq!(texts_after(&twilio, user, "STOP").await, [GOODBYE]);
        assert_eq!(texts_after(&twilio, user, "hi").await, [""; 0]);
        assert_eq!(texts_after(&twilio, user, "START").await, [WELCOME]);
    }
    let debugger = twilio.get(&["debugger"]).await.unwrap();
    assert_eq!(debugger, Value::Array(Vec::new()));
    dev_server.stop().await;
}

fn check(env: &[(&str, &str)]) -> (i32, String, String) {
    let base_env = [
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("PUBLIC_URL", ORIGIN),
        ("DATABASE_URL", "sqlite::memory:"),
    ];
    replyhook(&["check"], &[&base_env[..], env].concat(), "")
}

#[test]
fn check_advises_about_keywords() {
    let stop_words = "REPLYHOOK__CONSENT__SMS_STOP_WORDS";
    let toll_free = ("REPLYHOOK__GUARD__OWN_NUMBERS", "+18885550100");
    for (env, expected) in [
        (
            &[(stop_words, "STOP, basta")][..],
            &["warning: consent.sms_stop_words", "has no effect"][..],
        ),
        (
            &[OWN, (stop_words, "basta")],
            &["lacks STOP", "note: consent.sms is own"],
        ),
        (&[OWN, (stop_words, "Stop!")], &["21610"]),
        (&[toll_free], &["toll-free numbers (1)", "YES"]),
        (&[toll_free, OWN], &["keep these three words"]),
    ] {
        let (code, out, err) = check(env);
        assert_eq!(code, 0, "{err}");
        for part in expected {
            assert!(out.contains(part), "{part} is not in {out}");
        }
    }
    let (_, out, _) = check(&[]);
    assert!(!out.contains("note:") && !out.contains("warning:"), "{out}");
    let (_, out, _) = check(&[OWN]);
    assert!(!out.contains("lacks STOP"), "{out}");
}
