//! The dev server with its emulator, which share a clock.

use std::net::{SocketAddr, TcpStream};

use replyhook::clock::SignedDuration;
use replyhook::{App, Context, HandlerError, InboundMessage, IntoReply, Media, Reply};
use serde_json::json;

use super::{
    ANA, WHATSAPP, attempts, bodies, start_dev_server, start_echo_server, wait_for_message,
};
use crate::support::installed;

// The bot replies, and the state shows its handler, its pending messages and an open window that closes after 24
// hours.
#[tokio::test]
async fn conversation_state_follows_emulator_clock() {
    let (dev_server, remote) = start_echo_server().await;
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "hello"});
    let answer = remote.post(&["messages"], &message).await.unwrap();
    assert_eq!(bodies(&answer), ["hello"]);
    let state = remote.get(&["state", ANA]).await.unwrap();
    assert_eq!(state["window"]["open"], true);
    assert_eq!(state["handler"], "echo");
    assert_eq!(state["pending"], 0);
    let advance = json!({"advance_seconds": 25 * 3600});
    remote.post(&["clock"], &advance).await.unwrap();
    let state = remote.get(&["state", ANA]).await.unwrap();
    assert_eq!(
        state["window"]["open"], false,
        "the server is on the emulator's clock"
    );
    dev_server.stop().await;
}

// At the deadline the emulator gets an empty response; the reply follows when the handler finishes.
#[tokio::test]
async fn slow_handler_replies_via_rest_api() {
    let (dev_server, remote) = start_echo_server().await;
    remote
        .put(&["faults"], &json!({"handler_ms": 20_000}))
        .await
        .unwrap();
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "slow"});
    let sending = {
        let remote = remote.clone();
        tokio::spawn(async move { remote.post(&["messages"], &message).await })
    };
    dev_server.wait_for_handler_call(0).await;
    dev_server.clock().advance(SignedDuration::from_secs(10));
    let answer = sending.await.unwrap().unwrap();
    assert_eq!(bodies(&answer), Vec::<&str>::new());
    assert!(answer["twiml"].as_str().unwrap().ends_with("<Response/>"));
    dev_server.clock().advance(SignedDuration::from_secs(10));
    wait_for_message(&remote, ANA, |m| {
        m["body"] == "slow" && m["status"] == "read"
    })
    .await;
    dev_server.stop().await;
}

/// Variable that makes the test below start the dev server whose output its other run reads.
const CHILD: &str = "REPLYHOOK_TEST_DEV_SERVER_LOG";

// Logs are set up once in a process, so this test runs itself in another one. `dev` and programs of users share the code.
#[tokio::test]
async fn dev_server_logs_why_a_bot_failed() {
    const NAME: &str = "emulator::dev_server::dev_server_logs_why_a_bot_failed";
    if installed(CHILD).is_some() {
        let bot = async |_: Context, message: InboundMessage| match message.body.as_str() {
            "tea" => Err(HandlerError::new("out of tea")),
            _ => Ok(Reply::media(Media::file("/nowhere/missing.png"))),
        };
        let (dev_server, remote) = start_dev_server(App::builder().handler(bot)).await;
        for body in ["tea", "picture"] {
            let message = json!({"from": ANA, "to": WHATSAPP, "body": body});
            remote.post(&["messages"], &message).await.unwrap();
        }
        dev_server.stop().await;
        return;
    }
    let test = std::env::current_exe().unwrap();
    let mut test = tokio::process::Command::new(test);
    let output = test
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output();
    let output = output.await.unwrap();
    let logged = [output.stdout, output.stderr].concat();
    let logged = String::from_utf8(logged).unwrap();
    assert!(output.status.success(), "{logged}");
    // The second one names the file, since a reply may have several.
    for part in ["out of tea", "the file /nowhere/missing.png"] {
        assert!(logged.contains(part), "{part}: {logged}");
    }
}

#[tokio::test]
async fn failing_handler_triggers_fallback_call() {
    let (dev_server, remote) = start_echo_server().await;
    remote
        .put(&["faults"], &json!({"handler_fails": true}))
        .await
        .unwrap();
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "crash"});
    let answer = remote.post(&["messages"], &message).await.unwrap();
    let statuses: Vec<_> = attempts(&answer).into_iter().map(|row| row.1).collect();
    assert_eq!(statuses, [Some(500), Some(200)]);
    assert_eq!(bodies(&answer), Vec::<&str>::new());
    dev_server.stop().await;
}

/// Fails in the way that the message names.
async fn failing(_cx: Context, message: InboundMessage) -> Result<Reply, HandlerError> {
    match message.body.as_str() {
        "error" => Err(HandlerError::new("the warehouse does not answer")),
        "panic" => panic!("+15550001111"),
        "reply" => Reply::text("When?").choices(["A", "a"]).into_reply(),
        _ => Ok(Reply::text("Fine.")),
    }
}

// The message is marked with the reason, although the fallback call has succeeded.
#[tokio::test]
async fn message_names_reason_of_failed_handler() {
    let (dev_server, remote) = start_dev_server(App::builder().handler(failing)).await;
    for (body, expected) in [
        ("error", Some("the warehouse does not answer")),
        ("panic", Some("the handler panicked")),
        ("reply", Some("choices 1 and 2 have the same title")),
        ("fine", None),
    ] {
        let message = json!({"from": ANA, "to": WHATSAPP, "body": body});
        let answer = remote.post(&["messages"], &message).await.unwrap();
        let conversation = remote.get(&["conversations", ANA]).await.unwrap();
        let mut shown = conversation.as_array().unwrap().iter();
        let shown = shown.find(|shown| shown["sid"] == answer["message_sid"]);
        for failure in [&answer["failure"], &shown.unwrap()["failure"]] {
            let matches = expected.map_or(failure.is_null(), |expected| {
                failure.as_str().is_some_and(|text| text.contains(expected))
            });
            assert!(matches, "{body}: {failure}");
        }
    }
    // Nothing of a panic's text, which may quote a message.
    let conversation = remote.get(&["conversations", ANA]).await.unwrap();
    let failures = conversation.as_array().unwrap().iter();
    let failures: Vec<_> = failures
        .map(|message| message["failure"].to_string())
        .collect();
    assert!(!failures.concat().contains("+15550001111"), "{failures:?}");
    dev_server.stop().await;
}

// The fallback call runs the handler again. If it succeeds, nothing has failed.
#[tokio::test]
async fn handler_that_succeeds_again_leaves_no_failure() {
    let second = |cx: Context, _message: InboundMessage| async move {
        match cx.fallback() {
            None => Err(HandlerError::new("not yet")),
            Some(_) => Ok("Now."),
        }
    };
    let (dev_server, remote) = start_dev_server(App::builder().handler(second)).await;
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "hi"});
    let answer = remote.post(&["messages"], &message).await.unwrap();
    assert_eq!(
        (&answer["failure"], bodies(&answer)),
        (&json!(null), vec!["Now."])
    );
    dev_server.stop().await;
}

// The page shows a late reply's calls below the message that it answers, and not below a later one.
#[tokio::test]
async fn state_names_message_that_late_reply_answers() {
    let (dev_server, remote) = start_echo_server().await;
    let late = json!({"handler_ms": 20_000});
    remote.put(&["faults"], &late).await.unwrap();
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "slow"});
    let sending = {
        let remote = remote.clone();
        tokio::spawn(async move { remote.post(&["messages"], &message).await })
    };
    dev_server.wait_for_handler_call(0).await;
    dev_server.clock().advance(SignedDuration::from_secs(10));
    let answered = sending.await.unwrap().unwrap();
    dev_server.clock().advance(SignedDuration::from_secs(10));
    let is_reply =
        |message: &serde_json::Value| message["direction"] == "out" && message["body"] == "slow";
    let reply = wait_for_message(&remote, ANA, is_reply).await;
    let state = remote.get(&["state", ANA]).await.unwrap();
    let answers = &state["answers"];
    assert_eq!(
        answers[reply["sid"].as_str().unwrap()],
        answered["message_sid"]
    );
    dev_server.stop().await;
}

#[tokio::test]
async fn state_says_why_bot_did_not_get_a_message() {
    let (dev_server, remote) = start_echo_server().await;
    let mut sids = Vec::new();
    for body in ["hi", "STOP", "hello?"] {
        let message = json!({"from": ANA, "to": WHATSAPP, "body": body});
        let sent = remote.post(&["messages"], &message).await.unwrap();
        sids.push(sent["message_sid"].as_str().unwrap().to_owned());
    }
    let reasons = remote.get(&["state", ANA]).await.unwrap()["reasons"].clone();
    let expected = json!({
        &sids[1]: "the bot did not get it: an opt-out keyword",
        &sids[2]: "the bot did not get it: its user has opted out",
    });
    assert_eq!(reasons, expected);
    dev_server.stop().await;
}

// After a reset, a MessageSid that was a duplicate before is a new message.
#[tokio::test]
async fn reset_clears_server_store() {
    let (dev_server, remote) = start_echo_server().await;
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "one", "params": {"MessageSid": format!("SM{:032}", 1)}});
    remote.post(&["messages"], &message).await.unwrap();
    remote.post(&["messages"], &message).await.unwrap();
    assert_eq!(
        dev_server.handler_calls(),
        1,
        "the same MessageSid is the same message"
    );
    remote.post(&["reset"], &json!({})).await.unwrap();
    let answer = remote.post(&["messages"], &message).await.unwrap();
    assert_eq!(dev_server.handler_calls(), 2, "the store was cleared");
    assert_eq!(bodies(&answer), ["one"]);
    dev_server.stop().await;
}

async fn shouting(_cx: Context, message: InboundMessage) -> String {
    message.body.to_uppercase()
}

// A redelivery after a restart gets the saved response, and the handler does not run again.
#[tokio::test]
async fn custom_handler_restart_keeps_saved_responses() {
    let (mut dev_server, remote) = start_dev_server(App::builder().handler(shouting)).await;
    assert_eq!(dev_server.handler_name(), Some("your handler"));
    let message = json!({"from": ANA, "to": WHATSAPP, "body": "hello"});
    let answer = remote.post(&["messages"], &message).await.unwrap();
    assert_eq!(bodies(&answer), ["HELLO"]);
    dev_server
        .restart(App::builder().handler(shouting))
        .await
        .unwrap();
    let sid = answer["message_sid"].as_str().unwrap();
    let again = remote
        .post(&["messages", sid, "redeliver"], &json!({}))
        .await
        .unwrap();
    assert_eq!(again["twiml"], answer["twiml"]);
    assert_eq!(dev_server.handler_calls(), 1);
    dev_server.stop().await;
}

// The port is never free in between: another program would get it, and the server could not start again.
#[tokio::test(flavor = "multi_thread")]
async fn restart_keeps_the_port() {
    let (mut dev_server, _) = start_echo_server().await;
    let url = dev_server.server_url().unwrap().to_owned();
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let connecting = tokio::task::spawn_blocking(move || {
        let mut refused = None;
        while stopped.try_recv().is_err() && refused.is_none() {
            refused = TcpStream::connect(address).err();
        }
        refused
    });
    for _ in 0..20 {
        dev_server.restart(App::builder()).await.unwrap();
        assert_eq!(dev_server.server_url(), Some(&*url));
    }
    stop.send(()).unwrap();
    let refused = connecting.await.unwrap();
    assert!(refused.is_none(), "{refused:?}");
    dev_server.stop().await;
}
