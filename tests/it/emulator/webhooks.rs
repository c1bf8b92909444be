//! The emulator's webhook calls: their parameters, errors, retries and fallback calls, and the execution of TwiML.

use replyhook::Secret;
use replyhook::signature::{
    AuthTokenKind, PublicUrl, SharedKeyId, SignatureVerifier, UnverifiedRequest,
};
use serde_json::json;

use super::{ANA, BEN, Bench, SMS, WHATSAPP, attempts, bodies};
use crate::support::silent_port;

#[tokio::test]
async fn whatsapp_webhook_has_real_parameters_and_valid_signature() {
    let bench = Bench::new().await;
    bench
        .server
        .queue_twiml("/sms", "<Message>Hi Ana</Message>");
    let answer = bench
        .send_message(
            json!({"from": ANA, "to": WHATSAPP, "body": "Olá + 100% & 👍", "profile_name": "Zoë"}),
        )
        .await;
    assert_eq!(attempts(&answer), [("sms".to_owned(), Some(200), None)]);
    assert_eq!(bodies(&answer), ["Hi Ana"]);

    let request = bench.server.requests().remove(0);
    let sid = answer["message_sid"].as_str().unwrap();
    for (name, value) in [
        ("MessageSid", sid),
        ("SmsSid", sid),
        ("SmsMessageSid", sid),
        ("AccountSid", bench.emulator.account_sid().as_str()),
        ("From", ANA),
        ("To", WHATSAPP),
        ("Body", "Olá + 100% & 👍"),
        ("NumMedia", "0"),
        ("NumSegments", "1"),
        ("SmsStatus", "received"),
        ("MessageType", "text"),
        ("ProfileName", "Zoë"),
        ("WaId", "15550001111"),
        ("ReferralNumMedia", "0"),
        ("ApiVersion", "2010-04-01"),
    ] {
        assert_eq!(request.form.get(name), Some(value), "{name}");
    }
    let id = request.form.get("ExternalUserId").unwrap();
    assert!(id.starts_with("whatsapp:US."), "{id}");
    assert_eq!(request.headers["user-agent"], "TwilioProxy/1.1");
    assert!(request.headers.contains_key("i-twilio-idempotency-token"));

    let url = PublicUrl::parse(bench.server.url()).unwrap().0;
    let token = bench.emulator.auth_token().clone();
    let verifier = SignatureVerifier::new(url, [token]).unwrap();
    let body = request.form.encode();
    let outcome = verifier.verify(&UnverifiedRequest {
        method: &request.method,
        target: "/sms",
        headers: &request.headers,
        body: body.as_bytes(),
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn two_spellings_of_a_number_have_one_external_user_id() {
    let bench = Bench::new().await;
    let id = async |user: &str| {
        bench.server.queue_twiml("/sms", "");
        let message = json!({"from": user, "to": WHATSAPP, "body": "hi"});
        bench.remote.post(&["messages"], &message).await.unwrap();
        let form = bench.server.requests().pop().unwrap().form;
        assert_eq!(form.get("From"), Some(user));
        form.get("ExternalUserId").unwrap().to_owned()
    };
    for (one, other, is_one_user) in [
        ("whatsapp:+5215512345678", "whatsapp:+525512345678", true),
        ("whatsapp:+556199887766", "whatsapp:+5561999887766", true),
        // It may be the landline of another user.
        ("whatsapp:+5491123456789", "whatsapp:+541123456789", false),
    ] {
        assert_eq!(id(one).await == id(other).await, is_one_user, "{one}");
    }
}

// Both kinds of webhooks are signed with it, the message and its status callbacks.
#[tokio::test]
async fn shared_key_fault_signs_webhooks_with_that_key() {
    let bench = Bench::new().await;
    let url = PublicUrl::parse(bench.server.url()).unwrap().0;
    let (id, secret) = (
        SharedKeyId::parse("webhooks_sharedkey_1").unwrap(),
        Secret::new("s3cret"),
    );
    let verifier = SignatureVerifier::new(url, [bench.emulator.auth_token().clone()])
        .unwrap()
        .with_shared_key(id, bench.emulator.account_sid(), &secret)
        .unwrap();
    for (algorithm, header, kind) in [
        (
            json!("HMAC_SHA256"),
            "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
            AuthTokenKind::SharedKey,
        ),
        (
            json!("HMAC_SHA1"),
            "key=webhooks_sharedkey_1,algorithm=HMAC_SHA1",
            AuthTokenKind::SharedKey,
        ),
        (
            json!(null),
            "key=webhooks_sharedkey_1",
            AuthTokenKind::SharedKey,
        ),
        (json!("none"), "", AuthTokenKind::Primary),
    ] {
        let faults = match header {
            "" => json!({}),
            _ => json!({"shared_key": {"id": id, "secret": "s3cret", "algorithm": algorithm}}),
        };
        bench.set_faults(faults).await;
        bench.says("hi").await;
        let request = bench.server.requests_to("/sms").pop().unwrap();
        let sent = request.headers.get("x-twilio-webhooks-signature-settings");
        assert_eq!(sent.map_or("", |value| value.to_str().unwrap()), header);
        let body = request.form.encode();
        let accepted = verifier.verify(&UnverifiedRequest {
            method: &request.method,
            target: "/sms",
            headers: &request.headers,
            body: body.as_bytes(),
        });
        assert_eq!(accepted.unwrap().token, kind, "{header}");
    }
}

// The page sends the faults that it has read when it changes one of them.
#[tokio::test]
async fn faults_hide_secret_of_shared_key_and_keep_it() {
    let bench = Bench::new().await;
    let key = json!({"id": "webhooks_sharedkey_1", "secret": "s3cret", "algorithm": "HMAC_SHA256"});
    let faults = json!({"shared_key": key, "delay_ms": 1});
    let signature = async || {
        bench.says("hi").await;
        let request = bench.server.requests_to("/sms").pop().unwrap();
        let settings = request.headers.get("x-twilio-webhooks-signature-settings");
        settings.map(|value| value.to_str().unwrap().to_owned())
    };
    let answer = bench.remote.put(&["faults"], &faults).await.unwrap();
    let mut read = bench.remote.get(&["faults"]).await.unwrap();
    for text in [&answer, &read] {
        assert!(!text.to_string().contains("s3cret"), "{text}");
        assert_eq!(text["shared_key"]["id"], "webhooks_sharedkey_1");
    }
    let signed = signature().await;
    assert!(signed.is_some());
    read["delay_ms"] = json!(0);
    bench.remote.put(&["faults"], &read).await.unwrap();
    assert_eq!(signature().await, signed);
    // The secret of another key is not known.
    read["shared_key"]["id"] = json!("webhooks_sharedkey_2");
    assert!(bench.remote.put(&["faults"], &read).await.is_err());
}

// SMS has a country and no WhatsApp fields; a business-scoped user has no WaId.
#[tokio::test]
async fn webhook_parameters_depend_on_channel_and_identity() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    bench
        .send_message(json!({"from": BEN, "to": SMS, "body": "x".repeat(161)}))
        .await;
    let user = "whatsapp:US.13491208655302741918";
    bench
        .send_message(json!({"from": user, "to": WHATSAPP, "button": {"text": "Yes", "payload": "confirm:42"}}))
        .await;
    let requests = bench.server.requests();
    let (sms, button) = (&requests[0].form, &requests[1].form);
    assert_eq!(sms.get("NumSegments"), Some("2"));
    assert_eq!(sms.get("FromCountry"), Some("US"));
    assert_eq!(sms.get("ProfileName"), None);
    assert_eq!(sms.get("WaId"), None);
    for (name, value) in [
        ("From", Some(user)),
        ("ExternalUserId", Some(user)),
        ("WaId", None),
        ("Body", Some("Yes")),
        ("ButtonText", Some("Yes")),
        ("ButtonPayload", Some("confirm:42")),
        ("ButtonType", Some("REPLY")),
        ("MessageType", Some("interactive")),
    ] {
        assert_eq!(button.get(name), value, "{name}");
    }
}

#[tokio::test]
async fn invalid_webhook_response_calls_fallback_with_error_code() {
    let long = format!("<Response><!--{}--></Response>", "x".repeat(70_000));
    for (status, content_type, body, code) in [
        (500, "text/plain", "oops", 11217),
        (404, "text/html", "<html/>", 11217),
        (200, "", "<Response/>", 11200),
        (200, "application/json", "{}", 12300),
        (
            200,
            "text/xml",
            "<Response><Message>a & b</Message></Response>",
            12100,
        ),
        (200, "text/xml", " <Response/>", 12100),
        (200, "text/xml", "<html></html>", 12102),
        (200, "text/xml", &long, 11750),
    ] {
        let bench = Bench::new().await;
        bench
            .server
            .queue_response("/sms", status, content_type, body);
        bench
            .server
            .queue_twiml("/fallback", "<Message>Sorry</Message>");
        let answer = bench.says("hi").await;
        let primary = ("sms".to_owned(), Some(u64::from(status)), Some(code));
        let fallback = ("fallback".to_owned(), Some(200), None);
        assert_eq!(
            attempts(&answer),
            [primary, fallback],
            "{content_type} {body:.40}"
        );
        assert_eq!(bodies(&answer), ["Sorry"]);
        assert_eq!(bench.debugger_codes().await, [code]);
        let form = bench.server.requests_to("/fallback").remove(0).form;
        assert_eq!(form.get("ErrorCode"), Some(code.to_string().as_str()));
        let failed = format!("{}/sms", bench.server.url());
        assert_eq!(form.get("ErrorUrl"), Some(failed.as_str()));
        assert_eq!(form.get("MessageSid"), answer["message_sid"].as_str());
    }
}

// An empty response sends nothing and is not an error.
#[tokio::test]
async fn plain_text_response_is_sent_as_message() {
    let bench = Bench::new().await;
    bench.server.queue_response("/sms", 200, "text/plain", "OK");
    bench.server.queue_response("/sms", 204, "", "");
    bench.server.queue_response("/sms", 200, "text/xml", "");
    assert_eq!(bodies(&bench.says("1").await), ["OK"]);
    assert_eq!(bodies(&bench.says("2").await), Vec::<&str>::new());
    assert_eq!(bodies(&bench.says("3").await), Vec::<&str>::new());
    assert_eq!(bench.debugger_codes().await, Vec::<u64>::new());
}

// Retries carry the same idempotency token; without a fragment there are none.
#[tokio::test]
async fn webhook_retry_follows_url_fragment() {
    let bench = Bench::with("#rc=2&rp=5xx", |_| {}).await;
    bench
        .server
        .queue_response("/sms", 503, "text/plain", "later");
    bench
        .server
        .queue_response("/sms", 503, "text/plain", "later");
    bench
        .server
        .queue_twiml("/sms", "<Message>third time</Message>");
    let answer = bench.says("hi").await;
    let statuses: Vec<_> = attempts(&answer).into_iter().map(|row| row.1).collect();
    assert_eq!(statuses, [Some(503), Some(503), Some(200)]);
    assert_eq!(bodies(&answer), ["third time"]);
    let tokens: Vec<_> = bench
        .server
        .requests()
        .iter()
        .map(|request| request.headers["i-twilio-idempotency-token"].clone())
        .collect();
    assert!(tokens.windows(2).all(|two| two[0] == two[1]), "{tokens:?}");

    let bench = Bench::new().await;
    bench
        .server
        .queue_response("/sms", 503, "text/plain", "later");
    bench.server.queue_twiml("/fallback", "");
    assert_eq!(
        attempts(&bench.says("hi").await).len(),
        2,
        "no retry by default"
    );
}

#[tokio::test]
async fn refused_connection_is_retried_once_then_calls_fallback() {
    let silent = silent_port();
    let address = silent.local_addr().unwrap();
    let bench = Bench::with("", |options| {
        options.webhook = format!("http://{address}/sms");
    })
    .await;
    bench
        .server
        .queue_twiml("/fallback", "<Message>Sorry</Message>");
    let answer = bench.says("hi").await;
    let codes: Vec<_> = attempts(&answer).into_iter().map(|row| row.2).collect();
    assert_eq!(codes, [Some(11202), Some(11202), None]);
    assert_eq!(bodies(&answer), ["Sorry"]);
}

// A late response is discarded, and the error code shows which timeout of the URL fragment passed.
#[tokio::test]
async fn late_webhook_response_fails_with_timeout_code() {
    for (fragment, code) in [("#tt=300", 11203), ("#rt=300", 11205)] {
        let bench = Bench::with(fragment, |_| {}).await;
        bench.server.queue_twiml("/sms", "<Message>late</Message>");
        bench
            .server
            .queue_twiml("/fallback", "<Message>Sorry</Message>");
        bench.set_faults(json!({"delay_ms": 400})).await;
        let answer = bench.says("hi").await;
        let codes: Vec<_> = attempts(&answer).into_iter().map(|row| row.2).collect();
        assert_eq!(codes, [Some(code), None], "{fragment}");
        assert_eq!(bodies(&answer), ["Sorry"]);
    }
}

#[tokio::test]
async fn http_redirect_without_target_or_in_loop_fails() {
    for (status, location) in [
        (302, None),
        (302, Some("mailto:a@example.com")),
        (300, Some("/moved")),
        (304, Some("/moved")),
        (308, Some("/moved")),
    ] {
        let bench = Bench::new().await;
        let headers = location.map(|location| ("location", location.to_owned()));
        bench
            .server
            .script("/sms", (status, headers.into_iter().collect(), Vec::new()));
        bench.server.queue_twiml("/fallback", "");
        let rows = attempts(&bench.says("hi").await);
        let failed = ("sms".to_owned(), Some(u64::from(status)), Some(11216));
        assert_eq!(rows[0], failed, "{location:?}");
        assert_eq!(bench.debugger_codes().await, [11216]);
        assert_eq!(bench.server.requests_to("/moved").len(), 0);
    }

    let bench = Bench::new().await;
    let round = vec![("location", "/sms".to_owned())];
    bench.server.script("/sms", (307, round, Vec::new()));
    bench.server.queue_twiml("/fallback", "");
    let rows = attempts(&bench.says("hi").await);
    assert_eq!(
        rows[rows.len() - 2],
        ("sms".to_owned(), Some(307), Some(11215))
    );
    assert_eq!(bench.debugger_codes().await, [11215]);
}

// The webhook runs before the fault drops its connection, so its response is lost and the fallback call replies.
#[tokio::test]
async fn dropped_connection_calls_fallback() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>lost</Message>");
    bench
        .server
        .queue_twiml("/fallback", "<Message>Sorry</Message>");
    bench.set_faults(json!({"drop_connection": true})).await;
    let answer = bench.says("hi").await;
    assert_eq!(attempts(&answer)[0], ("sms".to_owned(), None, Some(11205)));
    assert_eq!(bodies(&answer), ["Sorry"]);
    assert_eq!(
        bench.server.requests_to("/sms").len(),
        1,
        "the webhook was called once"
    );
}

#[tokio::test]
async fn duplicate_deliveries_send_one_reply() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>once</Message>");
    bench.set_faults(json!({"duplicate": 2})).await;
    let answer = bench.says("hi").await;
    assert_eq!(attempts(&answer).len(), 3);
    assert_eq!(bodies(&answer), ["once"]);
    let sids: Vec<_> = bench
        .server
        .requests()
        .iter()
        .map(|request| request.form.get("MessageSid").unwrap().to_owned())
        .collect();
    assert!(sids.windows(2).all(|two| two[0] == two[1]), "{sids:?}");

    bench.set_faults(json!({})).await;
    let sid = answer["message_sid"].as_str().unwrap();
    let path = ["messages", sid, "redeliver"];
    let again = bench.remote.post(&path, &json!({})).await.unwrap();
    assert_eq!(attempts(&again).len(), 1);
    assert_eq!(bodies(&again), Vec::<&str>::new());
}

// Verbs after a redirect or an action are not executed.
#[tokio::test]
async fn twiml_redirect_and_action_continue_with_target_document() {
    let bench = Bench::new().await;
    bench.server.queue_twiml(
        "/sms",
        "<Message>one</Message><Redirect method=\"GET\">/two?step=2</Redirect><Message>never</Message>",
    );
    bench.server.queue_twiml(
        "/two",
        "<Message action=\"three\">two</Message><Message>nor this</Message>",
    );
    bench
        .server
        .queue_twiml("/three", "<Message>three</Message>");
    let answer = bench.says("hi").await;
    assert_eq!(bodies(&answer), ["one", "two", "three"]);
    let two = bench.server.requests_to("/two").remove(0);
    assert_eq!(
        (two.method.as_str(), two.form.get("step")),
        ("GET", Some("2"))
    );
    assert_eq!(two.form.get("Body"), Some("hi"));
    let three = bench.server.requests_to("/three").remove(0);
    assert_eq!(three.form.get("MessageStatus"), Some("queued"));
    let sent = answer["messages"][1]["sid"].as_str();
    assert_eq!(three.form.get("MessageSid"), sent);
}

#[tokio::test]
async fn twiml_redirect_loop_ends_after_fifty_documents() {
    let bench = Bench::new().await;
    bench
        .server
        .queue_twiml("/sms", "<Redirect>/sms</Redirect>");
    let answer = bench.says("hi").await;
    assert_eq!(attempts(&answer).len(), 50);
    assert_eq!(bench.debugger_codes().await, [14106]);
}

#[tokio::test]
async fn invalid_twiml_message_is_dropped_with_error_code() {
    let eleven = "<Message>m</Message>".repeat(11);
    let long = format!("<Message>{}</Message>", "x".repeat(1601));
    let wrong = "<Message/><Message from=\"+1999\">a</Message><Message to=\"+15550009999\">b</Message><Say>c</Say>";
    for (verbs, shown, codes) in [
        (eleven.as_str(), 10, vec![14109]),
        (&long, 0, vec![14103]),
        (wrong, 0, vec![14110, 14103, 14108, 14101]),
        (
            "<message>lost</message><Message>kept</Message>",
            1,
            vec![12200],
        ),
        ("<Message>lost<Body>kept</Body></Message>", 1, vec![12200]),
        (
            "<Message to=\"whatsapp:nobody\">a</Message>",
            0,
            vec![14101],
        ),
        (
            "<Message><Media>/a</Media><Media>/b</Media></Message>",
            0,
            vec![14103],
        ),
    ] {
        let bench = Bench::new().await;
        bench.server.queue_twiml("/sms", verbs);
        let answer = bench.says("hi").await;
        assert_eq!(bodies(&answer).len(), shown, "{verbs:.60}");
        assert_eq!(bench.debugger_codes().await, codes, "{verbs:.60}");
    }
}

// Cookies belong to one conversation; another user's request carries none.
#[tokio::test]
async fn http_redirect_drops_parameters_and_keeps_cookies() {
    let bench = Bench::new().await;
    let redirect_headers = vec![
        ("location", "/moved".to_owned()),
        ("set-cookie", "step=1; Path=/; HttpOnly".to_owned()),
    ];
    bench
        .server
        .script("/sms", (302, redirect_headers, Vec::new()));
    bench
        .server
        .queue_twiml("/moved", "<Message>here</Message>");
    let answer = bench.says("hi").await;
    assert_eq!(bodies(&answer), ["here"]);
    let request = bench.server.requests_to("/moved").remove(0);
    assert_eq!(request.method.as_str(), "GET");
    assert!(request.form.is_empty());
    assert_eq!(request.headers["cookie"], "step=1");

    bench
        .send_message(json!({"from": BEN, "to": SMS, "body": "hi"}))
        .await;
    let last = bench.server.requests_to("/sms").pop().unwrap();
    assert!(
        !last.headers.contains_key("cookie"),
        "another conversation has no cookies"
    );
}

// The recorded exchanges do not contain the password.
#[tokio::test]
async fn url_password_is_sent_on_challenge_only() {
    let bench = Bench::with("", |options| {
        options.webhook = options.webhook.replace("http://", "http://user:secret@");
    })
    .await;
    let auth_headers = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    bench.server.script("/sms", (401, auth_headers, Vec::new()));
    bench.server.queue_twiml("/sms", "<Message>in</Message>");
    let answer = bench.says("hi").await;
    assert_eq!(bodies(&answer), ["in"]);
    let requests = bench.server.requests();
    assert!(!requests[0].headers.contains_key("authorization"));
    assert_eq!(
        requests[1].headers["authorization"],
        "Basic dXNlcjpzZWNyZXQ="
    );
    let exchanges = bench.remote.get(&["exchanges"]).await.unwrap();
    assert!(!exchanges.to_string().contains("secret"));
    assert!(!exchanges.to_string().contains("dXNlcjpzZWNyZXQ"));
}

// Entries come from the fragment, the TwiML and the media of a reply; each has a URL with the password.
#[tokio::test]
async fn debugger_entry_omits_url_password() {
    let bench = Bench::with("#zz=1", |options| {
        options.webhook = options.webhook.replace("http://", "http://user:s3cret@");
    })
    .await;
    let file = bench.server.url().replace("http://", "http://user:s3cret@");
    let verbs = format!(
        "<message>a</message><Message from=\"+1999\">b</Message>\
         <Message><Media>{file}/missing.png</Media></Message><Redirect>{file}/gone</Redirect>"
    );
    bench.server.queue_twiml("/sms", &verbs);
    bench.says("hi").await;
    // Both the URL after the redirect and the fallback URL respond with 404.
    assert_eq!(
        bench.debugger_codes().await,
        [11243, 12200, 14108, 63019, 11217, 11217]
    );
    let entries = bench.remote.get(&["debugger"]).await.unwrap();
    assert!(!entries.to_string().contains("s3cret"), "{entries:#}");
    assert_eq!(entries[0]["url"], format!("{}/sms", bench.server.url()));
}
