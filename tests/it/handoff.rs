//! Handoff of a conversation: its messages are redirected without a handler run, until the handoff ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use replyhook::config::Settings;
use replyhook::reply::RedirectError;
use replyhook::{Clock, Context, HandlerError, InboundMessage, ManualClock, Reply, SystemClock};
use tokio::sync::Semaphore;

use crate::support::twilio::SentVia;
use crate::support::{EMPTY, FakeTwilio, TempStore, TestApp, Webhook, sources, twiml_message};

const FLOW: &str = "https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1?a=1&b=2";
const USER: &str = "whatsapp:+15550001111";
const AGENT: &str = "whatsapp:+15550003333";

/// Returns the TwiML that redirects to the flow.
fn redirect_twiml(before: &str) -> String {
    let url = FLOW.replace('&', "&amp;");
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Response>{before}<Redirect method="POST">{url}</Redirect></Response>"#
    )
}

/// Hands off a user who writes "human". Ends a user's handoff when an agent writes "done ADDRESS".
async fn bot(cx: Context, message: InboundMessage) -> Result<Reply, HandlerError> {
    if let Some(user) = message.body.strip_prefix("done ") {
        let ended = cx.end_handoff(user).await?;
        return Ok(Reply::text(ended.to_string()));
    }
    match message.body.as_str() {
        "human" => {
            let reply = Reply::handoff(FLOW).map_err(HandlerError::new)?;
            Ok(reply.and("One moment."))
        }
        body => Ok(Reply::text(body)),
    }
}

fn message_from(user: &str, number: u64, body: &str) -> Webhook {
    Webhook::message(number, body).with("From", user)
}

#[tokio::test]
async fn message_during_handoff_is_redirected_without_handler() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let app = TestApp::with(move |cx: Context, message: InboundMessage| {
        counter.fetch_add(1, Ordering::SeqCst);
        bot(cx, message)
    });
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let handed_over = redirect_twiml("<Message>One moment.</Message>");
    assert_eq!(app.says(2, "human").await, handed_over);
    assert_eq!(app.says(3, "hello?").await, redirect_twiml(""));
    assert_eq!(
        app.says(4, "done whatsapp:+15550001111").await,
        redirect_twiml("")
    );
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    // Redeliveries get the saved responses, and other conversations still reach the bot.
    assert_eq!(app.says(2, "human").await, handed_over);
    assert_eq!(app.says(3, "hello?").await, redirect_twiml(""));
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let ben = app
        .send(message_from("whatsapp:+15550009999", 5, "hi"))
        .await;
    assert_eq!(ben.twiml(), twiml_message("hi"));
    let to_other_sender = Webhook::message(6, "hi").with("To", "whatsapp:+15550004444");
    assert_eq!(app.send(to_other_sender).await.twiml(), twiml_message("hi"));
}

#[tokio::test]
async fn redirect_without_handoff_affects_one_message() {
    let app = TestApp::with(async |_: Context, message: InboundMessage| {
        let flow = Reply::redirect(FLOW)?;
        Ok::<_, RedirectError>(match message.body.as_str() {
            "flow" => flow,
            _ => Reply::text("mine"),
        })
    });
    assert_eq!(app.says(1, "flow").await, redirect_twiml(""));
    assert_eq!(app.says(2, "hi").await, twiml_message("mine"));
}

#[tokio::test]
async fn handoff_is_ended_from_other_conversation_or_store() {
    let app = TestApp::with(bot);
    app.says(1, "human").await;
    let done = message_from(AGENT, 2, &format!("done {USER}"));
    assert_eq!(app.send(done).await.twiml(), twiml_message("true"));
    assert_eq!(app.says(3, "hi").await, twiml_message("hi"));
    let done = message_from(AGENT, 4, &format!("done {USER}"));
    assert_eq!(app.send(done).await.twiml(), twiml_message("false"));

    app.says(5, "human").await;
    let (sender, user) = ("whatsapp:+15550002222".into(), USER.into());
    let other_sender = "whatsapp:+15550004444".into();
    let now = SystemClock.now();
    let ended = app.store.end_handoff(Some(&other_sender), &user, now).await;
    assert_eq!(ended.unwrap(), 0);
    assert_eq!(app.says(6, "hi").await, redirect_twiml(""));
    let ended = app.store.end_handoff(Some(&sender), &user, now).await;
    assert_eq!(ended.unwrap(), 1);
    assert_eq!(app.says(7, "hi").await, twiml_message("hi"));
}

#[test]
fn invalid_handoff_ttl_error_suggests_valid_format() {
    for wrong in ["24", "a day", "0s", "-1h", "721h"] {
        let problems = Settings::load(&sources(&[("REPLYHOOK__HANDOFF__TTL", wrong)]));
        let problems = problems.unwrap_err().to_string();
        assert!(
            problems.contains("handoff.ttl") && problems.contains(r#"as in "24h" or "90m""#),
            "{wrong}: {problems}"
        );
    }
    for right in ["24h", "90m", "1h 30m", "720h"] {
        Settings::load(&sources(&[("REPLYHOOK__HANDOFF__TTL", right)])).unwrap();
    }
}

#[tokio::test]
async fn handoff_expires_ttl_after_last_message() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let time = clock.clone();
    let env = [("REPLYHOOK__HANDOFF__TTL", "2h")];
    let app = TestApp::build(&env, |app| app.handler(bot).clock(time));
    app.says(1, "human").await;
    for number in 2..5 {
        clock.advance(SignedDuration::from_mins(119));
        assert_eq!(app.says(number, "hi").await, redirect_twiml(""));
    }
    clock.advance(SignedDuration::from_mins(120));
    assert_eq!(app.says(5, "hi").await, twiml_message("hi"));
}

#[tokio::test]
async fn stop_during_handoff_opts_out_and_prevents_redirect() {
    let app = TestApp::with(bot);
    app.says(1, "human").await;
    assert!(app.says(2, "STOP").await.contains("no more messages"));
    assert_eq!(app.says(3, "hi").await, EMPTY);
    app.says(4, "START").await;
    assert_eq!(app.says(5, "hi").await, redirect_twiml(""));
}

// The message behind the late one also missed the deadline, so only messages after it are redirected.
#[tokio::test(flavor = "multi_thread")]
async fn late_handoff_sends_via_rest_and_redirects_later() {
    let twilio = FakeTwilio::start();
    let go = Arc::new(Semaphore::new(0));
    let let_go = go.clone();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let time = clock.clone();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.clock(time)
            .handler(move |cx: Context, message: InboundMessage| {
                let go = let_go.clone();
                async move {
                    go.acquire().await.map_err(HandlerError::new)?.forget();
                    bot(cx, message).await
                }
            })
    });
    let app = Arc::new(app);
    // The second message waits behind the first, and misses the deadline too.
    for (number, text) in [(1, "human"), (2, "hello?")] {
        let client = app.clone();
        let request = tokio::spawn(async move { client.says(number, text).await });
        app.wait_for_messages(usize::try_from(number).unwrap())
            .await;
        clock.advance(SignedDuration::from_secs(10));
        assert_eq!(request.await.unwrap(), EMPTY);
    }
    go.add_permits(1);
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (phone[0].body.as_str(), phone[0].via),
        ("One moment.", SentVia::Rest)
    );
    assert_eq!(app.says(3, "hi").await, redirect_twiml(""));
    let filter = replyhook::internals::MessageFilter {
        limit: 9,
        ..Default::default()
    };
    let rows = app.store.messages(filter).await.unwrap();
    let reasons = rows.iter().map(|row| row.reason.as_deref());
    let not_redirected =
        "it was not redirected to the handoff URL: its reply went via the REST API";
    let redirected = "the bot did not get it: the conversation is handed off";
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [Some(redirected), Some(not_redirected), Some(not_redirected)]
    );
    assert_eq!(twilio.posts().len(), 1);
}

#[tokio::test]
async fn rejected_handoff_leaves_conversation_with_bot() {
    let app =
        TestApp::with(
            async |_: Context, message: InboundMessage| match message.body.as_str() {
                "self" => Reply::handoff("https://hooks.example.test/webhook"),
                _ => Ok(Reply::text("mine")),
            },
        );
    app.send(Webhook::message(1, "self"))
        .await
        .assert_rejected(500);
    assert_eq!(app.says(2, "hi").await, twiml_message("mine"));
    for url in ["/flow", "flow", "", "mailto:a@example.test"] {
        assert_eq!(Reply::handoff(url), Err(RedirectError), "{url}");
    }
}

#[test]
fn handoff_survives_restart_and_ends_by_command() {
    let store = TempStore::new();
    let begin = async |app: &TestApp| {
        assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
        app.says(2, "human").await;
    };
    store.app(|app| app.handler(bot), begin);
    store.app(
        |app| app.handler(bot),
        async |app| {
            assert_eq!(app.says(3, "hi").await, redirect_twiml(""));
        },
    );
    let list = store.run_ok(&["messages", "list"]);
    assert_eq!(
        list.matches("the conversation is handed off").count(),
        3,
        "{list}"
    );
    let sid = format!("SM{:032x}", 2);
    let shown = store.run_ok(&["messages", "show", &sid]);
    assert!(shown.contains("handoff   until 20"), "{shown}");
    let shown = store.run_json(&["messages", "show", &sid, "--json"]);
    assert!(
        shown[0]["handed_off_until"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );

    let other = ["handoff", "end", USER, "--sender", "whatsapp:+15550004444"];
    let not = (
        1,
        "whatsapp:…11 is not handed off\n".to_owned(),
        String::new(),
    );
    assert_eq!(store.run(&other), not);
    let listed = store.run_ok(&["handoff", "list"]);
    assert!(
        listed.starts_with("whatsapp:…11  with whatsapp:+15550002222  until 20"),
        "{listed}"
    );
    assert!(!listed.contains("https://"), "{listed}");
    let listed = store.run_json(&["handoff", "list", "--json", "--content"]);
    assert_eq!(listed[0]["users"][0], USER);
    assert!(listed[0]["url"].as_str().unwrap().starts_with("https://"));
    let end = store.run_ok(&["handoff", "end", USER]);
    assert_eq!(
        end,
        "the bot replies to whatsapp:…11 again, in 1 conversation\n"
    );
    assert_eq!(store.run(&["handoff", "end", USER]), not);
    assert_eq!(store.run_ok(&["handoff", "list"]), "no active handoffs\n");
    store.app(
        |app| app.handler(bot),
        async |app| {
            assert_eq!(app.says(4, "hi").await, twiml_message("hi"));
        },
    );
    // Only the message that was redirected says so.
    let list = store.run_ok(&["messages", "list"]);
    assert_eq!(list.matches("handed off").count(), 1, "{list}");
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn handoff_in_emulator_delivers_flow_reply() {
    use replyhook::App;
    use replyhook::testing::TestBot;

    use crate::support::ScriptedServer;

    let flow = ScriptedServer::start().await;
    flow.queue_twiml("/flow", "<Message>A person.</Message>");
    let url = format!("{}/flow", flow.url());
    let bot = TestBot::start(move || {
        let url = url.clone();
        App::builder().handler(move |_: Context, message: InboundMessage| {
            let url = url.clone();
            async move {
                match message.body.as_str() {
                    "human" => Reply::handoff(url),
                    _ => Ok(Reply::text("The bot.")),
                }
            }
        })
    })
    .await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await.assert_reply("The bot.");
    ana.says("human")
        .await
        .assert_reply("A person.")
        .assert_handler_runs(1);
    ana.says("hi")
        .await
        .assert_reply("A person.")
        .assert_handler_runs(0);
    let shown = bot
        .emulator_client()
        .get(&["state", ana.address()])
        .await
        .unwrap();
    assert_eq!(shown["handed_off_to"], format!("{}/flow", flow.url()));
    bot.restart().await;
    ana.says("still there?").await.assert_reply("A person.");
    let requests = flow.requests_to("/flow");
    let bodies = requests
        .iter()
        .map(|request| request.form.get("Body").unwrap_or_default());
    assert_eq!(bodies.collect::<Vec<_>>(), ["human", "hi", "still there?"]);
}
