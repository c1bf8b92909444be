//! A conversation that was handed over: its messages are redirected and its handler is not asked, until it is taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use replyhook::config::Settings;
use replyhook::reply::RedirectError;
use replyhook::{Clock, Context, HandlerError, InboundMessage, ManualClock, Reply, SystemClock};
use tokio::sync::Semaphore;

use crate::support::twilio::By;
use crate::support::{EMPTY, FakeTwilio, Kept, Scripted, TestApp, Webhook, says, sources};

const FLOW: &str = "https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1?a=1&b=2";
const USER: &str = "whatsapp:+15550001111";
const AGENT: &str = "whatsapp:+15550003333";

/// The document that redirects to the flow.
fn redirects(before: &str) -> String {
    let url = FLOW.replace('&', "&amp;");
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Response>{before}<Redirect method="POST">{url}</Redirect></Response>"#
    )
}

/// Hands over who asks for a human, and takes back whom an agent names.
async fn bot(cx: Context, message: InboundMessage) -> Result<Reply, HandlerError> {
    if let Some(user) = message.body.strip_prefix("done ") {
        let ended = cx.take_back(user).await?;
        return Ok(Reply::text(ended.to_string()));
    }
    match message.body.as_str() {
        "human" => {
            let reply = Reply::hand_over(FLOW).map_err(HandlerError::new)?;
            Ok(reply.and("One moment."))
        }
        body => Ok(Reply::text(body)),
    }
}

fn from(user: &str, number: u64, body: &str) -> Webhook {
    Webhook::message(number, body).with("From", user)
}

#[tokio::test]
async fn every_later_message_is_redirected_and_the_handler_is_not_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let app = TestApp::with(move |cx: Context, message: InboundMessage| {
        counted.fetch_add(1, Ordering::SeqCst);
        bot(cx, message)
    });
    assert_eq!(app.says(1, "hi").await, says("hi"));
    let handed_over = redirects("<Message>One moment.</Message>");
    assert_eq!(app.says(2, "human").await, handed_over);
    assert_eq!(app.says(3, "hello?").await, redirects(""));
    assert_eq!(
        app.says(4, "done whatsapp:+15550001111").await,
        redirects("")
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // Who asks again gets what was saved, and others have the bot.
    assert_eq!(app.says(2, "human").await, handed_over);
    assert_eq!(app.says(3, "hello?").await, redirects(""));
    assert_eq!(app.says(1, "hi").await, says("hi"));
    let ben = app.send(from("whatsapp:+15550009999", 5, "hi")).await;
    assert_eq!(ben.twiml(), says("hi"));
    let elsewhere = Webhook::message(6, "hi").with("To", "whatsapp:+15550004444");
    assert_eq!(app.send(elsewhere).await.twiml(), says("hi"));
}

#[tokio::test]
async fn a_redirect_alone_is_of_one_message() {
    let app = TestApp::with(async |_: Context, message: InboundMessage| {
        let flow = Reply::redirect(FLOW)?;
        Ok::<_, RedirectError>(match message.body.as_str() {
            "flow" => flow,
            _ => Reply::text("mine"),
        })
    });
    assert_eq!(app.says(1, "flow").await, redirects(""));
    assert_eq!(app.says(2, "hi").await, says("mine"));
}

#[tokio::test]
async fn another_conversations_handler_and_the_store_take_it_back() {
    let app = TestApp::with(bot);
    app.says(1, "human").await;
    let done = from(AGENT, 2, &format!("done {USER}"));
    assert_eq!(app.send(done).await.twiml(), says("true"));
    assert_eq!(app.says(3, "hi").await, says("hi"));
    let done = from(AGENT, 4, &format!("done {USER}"));
    assert_eq!(app.send(done).await.twiml(), says("false"));

    app.says(5, "human").await;
    let (us, user) = ("whatsapp:+15550002222".into(), USER.into());
    let elsewhere = "whatsapp:+15550004444".into();
    let now = SystemClock.now();
    let ended = app.store.take_back(Some(&elsewhere), &user, now).await;
    assert_eq!(ended.unwrap(), 0);
    assert_eq!(app.says(6, "hi").await, redirects(""));
    let ended = app.store.take_back(Some(&us), &user, now).await;
    assert_eq!(ended.unwrap(), 1);
    assert_eq!(app.says(7, "hi").await, says("hi"));
}

#[test]
fn a_time_that_is_none_is_told_with_what_to_write() {
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
async fn it_ends_so_long_after_its_last_message() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let time = clock.clone();
    let env = [("REPLYHOOK__HANDOFF__TTL", "2h")];
    let app = TestApp::build(&env, |app| app.handler(bot).clock(time));
    app.says(1, "human").await;
    for number in 2..5 {
        clock.advance(SignedDuration::from_mins(119));
        assert_eq!(app.says(number, "hi").await, redirects(""));
    }
    clock.advance(SignedDuration::from_mins(120));
    assert_eq!(app.says(5, "hi").await, says("hi"));
}

#[tokio::test]
async fn stop_comes_first_and_whoever_has_opted_out_is_not_redirected() {
    let app = TestApp::with(bot);
    app.says(1, "human").await;
    assert!(app.says(2, "STOP").await.contains("no more messages"));
    assert_eq!(app.says(3, "hi").await, EMPTY);
    app.says(4, "START").await;
    assert_eq!(app.says(5, "hi").await, redirects(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_hand_over_says_its_texts_by_rest_and_counts_for_the_later_messages() {
    let twilio = FakeTwilio::start();
    let go = Arc::new(Semaphore::new(0));
    let let_go = go.clone();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let time = clock.clone();
    let app = TestApp::beside(&twilio, &[], |app| {
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
    // The second waits behind the first, and for too long.
    for (number, text) in [(1, "human"), (2, "hello?")] {
        let asking = app.clone();
        let asked = tokio::spawn(async move { asking.says(number, text).await });
        while app.kept().await < usize::try_from(number).unwrap() {}
        clock.advance(SignedDuration::from_secs(10));
        assert_eq!(asked.await.unwrap(), EMPTY);
    }
    go.add_permits(1);
    let shown = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (shown[0].body.as_str(), shown[0].by),
        ("One moment.", By::Rest)
    );
    assert_eq!(app.says(3, "hi").await, redirects(""));
    let filter = replyhook::store::MessageFilter {
        limit: 9,
        ..Default::default()
    };
    let rows = app.store.messages(filter).await.unwrap();
    let reasons = rows.iter().map(|row| row.reason.as_deref());
    let not_redirected =
        "it was not redirected to where its conversation is handed over: its answer went by REST";
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [None, Some(not_redirected), Some(not_redirected)]
    );
    assert_eq!(twilio.posts().len(), 1);
}

#[tokio::test]
async fn a_hand_over_that_is_refused_begins_nothing() {
    let app =
        TestApp::with(
            async |_: Context, message: InboundMessage| match message.body.as_str() {
                "self" => Reply::hand_over("https://hooks.example.test/webhook"),
                _ => Ok(Reply::text("mine")),
            },
        );
    app.send(Webhook::message(1, "self")).await.refused(500);
    assert_eq!(app.says(2, "hi").await, says("mine"));
    for url in ["/flow", "flow", "", "mailto:a@example.test"] {
        assert_eq!(Reply::hand_over(url), Err(RedirectError), "{url}");
    }
}

#[test]
fn it_outlasts_a_restart_is_shown_and_is_handed_back_by_command() {
    let kept = Kept::new();
    let begin = async |app: &TestApp| {
        assert_eq!(app.says(1, "hi").await, says("hi"));
        app.says(2, "human").await;
    };
    kept.app(|app| app.handler(bot), begin);
    kept.app(
        |app| app.handler(bot),
        async |app| {
            assert_eq!(app.says(3, "hi").await, redirects(""));
        },
    );
    let list = kept.prints(&["messages", "list"]);
    assert_eq!(
        list.matches("its conversation is handed over").count(),
        3,
        "{list}"
    );
    let sid = format!("SM{:032x}", 2);
    let shown = kept.prints(&["messages", "show", &sid]);
    assert!(
        shown.contains("handover  its conversation, until 20"),
        "{shown}"
    );
    let shown = kept.lines(&["messages", "show", &sid, "--json"]);
    assert!(
        shown[0]["handed_over_until"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );

    let other = ["handback", USER, "--sender", "whatsapp:+15550004444"];
    let not = (
        1,
        "whatsapp:…11 is not handed over\n".to_owned(),
        String::new(),
    );
    assert_eq!(kept.run(&other), not);
    let back = kept.prints(&["handback", USER]);
    assert_eq!(
        back,
        "the bot answers whatsapp:…11 again, in 1 conversation\n"
    );
    assert_eq!(kept.run(&["handback", USER]), not);
    kept.app(
        |app| app.handler(bot),
        async |app| {
            assert_eq!(app.says(4, "hi").await, says("hi"));
        },
    );
    assert!(!kept.prints(&["messages", "list"]).contains("handed over"));
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn on_the_desk_what_the_flow_says_is_what_the_user_gets() {
    use replyhook::App;
    use replyhook::testing::TestBot;

    let flow = Scripted::start().await;
    flow.twiml("/flow", "<Message>A person.</Message>");
    let url = format!("{}/flow", flow.url());
    let bot = TestBot::start(move || {
        let url = url.clone();
        App::builder().handler(move |_: Context, message: InboundMessage| {
            let url = url.clone();
            async move {
                match message.body.as_str() {
                    "human" => Reply::hand_over(url),
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
    let shown = bot.remote().get(&["state", ana.address()]).await.unwrap();
    assert_eq!(shown["handed_over_to"], format!("{}/flow", flow.url()));
    bot.restart().await;
    ana.says("still there?").await.assert_reply("A person.");
    let asked = flow.asked_at("/flow");
    let bodies = asked
        .iter()
        .map(|asked| asked.form.get("Body").unwrap_or_default());
    assert_eq!(bodies.collect::<Vec<_>>(), ["human", "hi", "still there?"]);
}
