//! Signature verification: it accepts Twilio's signatures in every known spelling, and no others.

use base64::Engine as _;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use replyhook::signature::{
    AuthTokenKind, PublicUrl, SignatureErrorKind, SignatureVerifier, TokenError, UnverifiedRequest,
    Verified, sign,
};
use replyhook::{FormParams, Secret};

use crate::support::{ACCOUNT, ORIGIN, OTHER_TOKEN, TOKEN, TestApp, Webhook, base64_of};

fn verifier(public_url: &str, token: &str) -> SignatureVerifier {
    SignatureVerifier::new(
        PublicUrl::parse(public_url).unwrap().0,
        [Secret::new(token)],
    )
    .unwrap()
}

fn verify(
    verifier: &SignatureVerifier,
    method: &Method,
    target: &str,
    body: &str,
    signature: &str,
) -> Result<Verified, SignatureErrorKind> {
    let mut headers = HeaderMap::new();
    headers.insert("x-twilio-signature", signature.parse().unwrap());
    if *method != Method::GET {
        headers.insert(
            "content-type",
            "application/x-www-form-urlencoded; charset=UTF-8"
                .parse()
                .unwrap(),
        );
    }
    let request = UnverifiedRequest {
        method,
        target,
        headers: &headers,
        body: body.as_bytes(),
    };
    verifier.verify(&request).map_err(|error| error.kind())
}

// twilio-python computed these signatures.
#[test]
fn twilio_python_signatures_verify() {
    const WHATSAPP: &str = "MediaContentType0=image%2Fjpeg&SmsMessageSid=MM00000000000000000000000000000011&NumMedia=1&ProfileName=Ana&MessageType=image&SmsSid=MM00000000000000000000000000000011&WaId=15550001111&SmsStatus=received&Body=look&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid=MM00000000000000000000000000000011&AccountSid=AC00000000000000000000000000000001&From=whatsapp%3A%2B15550001111&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2F2010-04-01%2FAccounts%2FAC00000000000000000000000000000001%2FMessages%2FMM00000000000000000000000000000011%2FMedia%2FME00000000000000000000000000000001&ApiVersion=2010-04-01";
    const PLAIN: &str = "SmsMessageSid=SM00000000000000000000000000000001&NumMedia=0&ProfileName=Zo%C3%AB&MessageType=text&SmsSid=SM00000000000000000000000000000001&WaId=15550001111&SmsStatus=received&Body=Ol%C3%A1+%2B+100%25+%26+%F0%9F%91%8D&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid=SM00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001&From=whatsapp%3A%2B15550001111&ApiVersion=2010-04-01";
    const BLANKS: &str = "ToCity=&Body=&FromZip=&NumMedia=0&MessageSid=SM00000000000000000000000000000002&AccountSid=AC00000000000000000000000000000001";
    let post = Method::POST;
    for (method, target, body, signature) in [
        (
            &post,
            "/twilio/whatsapp",
            WHATSAPP,
            "r+8XwdY2vQo+WIb/iKO5na1YT84=",
        ),
        (
            &post,
            "/twilio/whatsapp",
            PLAIN,
            "t8Tq0bXHM59z4ow/A5+Nq0Ge4Ns=",
        ),
        (&post, "/twilio/sms", BLANKS, "T/krdGIu3u+l561N/brAh7LoOsw="),
        // Signed with :443, which the URL does not have.
        (&post, "/twilio/sms", BLANKS, "VjrI8rNP32kcSXDf2Ub7kpLl2QA="),
        (
            &post,
            "/twilio/sms",
            "Body=++hi%0D%0Athere++&MessageSid=SM00000000000000000000000000000003",
            "eIviMN83MknGiqDa/LQAvdAE6Co=",
        ),
        (
            &post,
            "/twilio/fallback?tenant=a%20b",
            "ErrorUrl=https%3A%2F%2Fhooks.example.test%2Ftwilio%2Fwhatsapp&ErrorCode=11200&MessageSid=SM00000000000000000000000000000004&Body=x",
            "BL/Qysf1QdMxPKxMgEgyQgcgkJ4=",
        ),
        (
            &post,
            "/twilio/sms",
            "Tag=b&Tag=a&Tag=b&MessageSid=SM00000000000000000000000000000005",
            "yE2hgc6OhKz4XI2UN4pe05VW0Bw=",
        ),
        (
            &post,
            "/twilio/status",
            "ErrorCode=63016&MessageStatus=undelivered&SmsStatus=undelivered&MessageSid=SM00000000000000000000000000000006&EventType=UNDELIVERED&ChannelPrefix=whatsapp&To=whatsapp%3AUS.13491208655302741918",
            "+OkKvjTKWTbTNkX8SMPFPRTHmyc=",
        ),
        (
            &Method::GET,
            "/twilio/sms?x=1&MessageSid=SM00000000000000000000000000000007&Body=Hello%20there",
            "",
            "07kIepIGnUKLoR0VVQ6Tq43aw6o=",
        ),
    ] {
        let verified = verify(&verifier(ORIGIN, TOKEN), method, target, body, signature);
        assert!(verified.is_ok(), "{target} {body}");
    }
    let mismatch = SignatureErrorKind::Mismatch;
    for (body, signature, why) in [
        (BLANKS, "Ym1wxvubU9XoDLGyLQFfQ5DDOBQ=", "blanks dropped"),
        (
            "Tag=b&Tag=a&Tag=b&MessageSid=SM00000000000000000000000000000005",
            "MN92Ac38v9Hror+//J7D8VBrSpU=",
            "name once",
        ),
    ] {
        let rejected = verify(
            &verifier(ORIGIN, TOKEN),
            &post,
            "/twilio/sms",
            body,
            signature,
        );
        assert_eq!(rejected.unwrap_err(), mismatch, "{why}");
    }
}

// Test vectors of Twilio's own libraries, with the token `12345`.
#[test]
fn official_library_signature_vectors_verify() {
    const P5: &str = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
    const U: &str = "/myapp.php?foo=1&bar=2";
    for (origin, target, body, signature) in [
        (
            "https://mycompany.com",
            U,
            P5,
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (
            "https://mycompany.com",
            U,
            P5,
            "kvajT1Ptam85bY51eRf/AJRuM3w=",
        ),
        (
            "https://mycompany.com:443",
            U,
            P5,
            "kvajT1Ptam85bY51eRf/AJRuM3w=",
        ),
        (
            "https://mycompany.com:1234",
            U,
            P5,
            "CYn1h0gLBdNxDGkKJg6hYohgeD8=",
        ),
        (
            "https://mycompany.com:1234",
            U,
            P5,
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (
            "http://mycompany.com",
            U,
            P5,
            "OyGYPqTF6ztdbRNCvuQO/oPvqQ4=",
        ),
        (
            "http://mycompany.com:80",
            U,
            P5,
            "0ZXoZLH/DfblKGATFgpif+LLRf4=",
        ),
        (
            "http://mycompany.com:1234",
            U,
            P5,
            "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=",
        ),
        (
            "https://MyCompany.com",
            U,
            P5,
            "g9IN/x4Cft2g517EjYvEvM/W7LU=",
        ),
        (
            "https://mycompany.com",
            "/myapp.php",
            P5,
            "1xaxFBvyzXYvWplzNOSs28HWO94=",
        ),
        (
            "https://mycompany.com",
            "/myapp.php?foo=hello%20world&bar=test%2Bvalue",
            P5,
            "er2tvAP1Wx+iuTTE2BPgvEaN1cs=",
        ),
        (
            "https://mycompany.com",
            U,
            "",
            "zYQTYrRWXE7LtzbG4PfP7/bkkGo=",
        ),
        (
            "https://mycompany.com",
            U,
            "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
        (
            "https://mycompany.com",
            U,
            "Digits=&CallSid=CA1234567890ABCDE&EmptyParam=",
            "9HHp/OqQMEwdrVebHDdA/+tqjX8=",
        ),
        (
            "https://mycompany.com",
            U,
            "Message=Hello+%26+goodbye%21+%40%23%24%25%5E*%28%29&From=%2B1+%28415%29+867-5309&Special=unicode%3A+%C3%B1%C3%A1%C3%A9%C3%AD%C3%B3%C3%BA",
            "dCPiR4WtQ6QFN6pJh81CtlCcWLQ=",
        ),
        (
            "https://mycompany.com",
            U,
            "callSid=lowercase&CallSid=uppercase&CALLSID=allcaps",
            "jDK7WKT8wiNrwggd4ceTv4e1MJ4=",
        ),
    ] {
        let verified = verify(
            &verifier(origin, "12345"),
            &Method::POST,
            target,
            body,
            signature,
        );
        assert!(verified.is_ok(), "{origin}{target} {body}");
    }
    // Userinfo is not signed, so the server removes it from the configured URL.
    let with_userinfo = verifier("https://user:pass@mycompany.com", "12345");
    assert!(
        verify(
            &with_userinfo,
            &Method::POST,
            U,
            P5,
            "RSOYDt4T1cUTdK1PDd93/VVr8B8="
        )
        .is_ok()
    );
    assert!(
        verify(
            &with_userinfo,
            &Method::POST,
            U,
            P5,
            "CukzLTc1tT5dXEDIHm/tKBanW10="
        )
        .is_err()
    );
}

// A proxy may pass the prefix of PUBLIC_URL on or strip it.
#[test]
fn public_url_prefix_verifies_kept_or_stripped() {
    let verifier = verifier("https://hooks.example.test/bots/a", TOKEN);
    let signature = sign(
        &Secret::new(TOKEN),
        "https://hooks.example.test/bots/a/webhook",
        Some(&FormParams::from_iter([("A", "b")])),
    )
    .unwrap();
    for target in ["/bots/a/webhook", "/webhook"] {
        assert!(
            verify(&verifier, &Method::POST, target, "A=b", &signature).is_ok(),
            "{target}"
        );
    }
    for target in ["/a/webhook", "/bots/a/webhook/", "/bots/b/webhook"] {
        assert!(
            verify(&verifier, &Method::POST, target, "A=b", &signature).is_err(),
            "{target}"
        );
    }
}

#[tokio::test]
async fn threat_01_forged_or_missing_signature_is_rejected_before_handler() {
    let app = TestApp::with(async |_, _| -> &str { unreachable!("the handler was called") });
    let good = Webhook::message(1, "hi");
    let valid = good.signature_for(ORIGIN);
    for forged in [
        good.clone().signature(""),
        good.clone().header("X-Twilio-Signature", "").signature(""),
        good.clone().token(OTHER_TOKEN),
        good.clone().signature(&base64_of(&[0; 20])),
        good.clone().signature(&valid).with("Body", "ho"),
        good.clone().signature(&valid).also("Extra", ""),
        good.clone().signature(&valid).without("NumMedia"),
        good.clone().signature(&valid).to("/webhook?x=1"),
        good.clone()
            .signature(&valid)
            .method(Method::GET)
            .to(&format!("/webhook?{}", good.form.encode())),
    ] {
        assert_eq!(
            app.send(forged).await.assert_rejected(403),
            "signature not valid\n"
        );
    }
    assert!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="rejected_signature"}"#)
            .await
            >= 9.0
    );
}

#[tokio::test]
async fn threat_02_two_signature_headers_are_rejected_even_if_valid() {
    let app = TestApp::echo();
    let good = Webhook::message(1, "hi");
    let valid = good.signature_for(ORIGIN);
    app.send(good.clone().header("X-Twilio-Signature", &valid))
        .await
        .assert_rejected(403);
    app.send(
        good.clone()
            .header("x-twilio-signature", &base64_of(&[0; 20])),
    )
    .await
    .assert_rejected(403);
    app.send(good).await.twiml();
}

// Only the canonical Base64 of exactly 20 bytes is accepted.
#[tokio::test]
async fn threat_03_signature_other_than_canonical_base64_is_rejected() {
    let app = TestApp::echo();
    let good = Webhook::message(1, "hi");
    let valid = good.signature_for(ORIGIN);
    let megabyte = "A".repeat(1 << 20);
    let last = valid.as_bytes()[26];
    // The last character has four data bits, and two bits that must be zero.
    let noncanonical = format!(
        "{}{}=",
        &valid[..26],
        char::from(if last == b'A' { b'B' } else { last + 1 })
    );
    for odd in [
        valid.trim_end_matches('='),
        &valid.replace('+', "-").replace('/', "_").replace('=', ""),
        &format!("{valid} x"),
        &format!("sha1={valid}"),
        &noncanonical,
        &base64_of(&[0; 19]),
        &base64_of(&[0; 21]),
        "!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        &megabyte,
    ] {
        app.send(good.clone().signature(odd))
            .await
            .assert_rejected(403);
    }
}

// The comparison covers all bits. `architecture` checks that its time does not depend on them.
#[test]
fn threat_04_signature_with_flipped_bit_is_rejected() {
    let verifier = verifier(ORIGIN, TOKEN);
    let form = FormParams::from_iter([("Body", "hi")]);
    let valid = sign(
        &Secret::new(TOKEN),
        &format!("{ORIGIN}/webhook"),
        Some(&form),
    )
    .unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&valid)
        .unwrap();
    for bit in 0..160 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let rejected = verify(
            &verifier,
            &Method::POST,
            "/webhook",
            "Body=hi",
            &base64_of(&flipped),
        );
        assert_eq!(rejected.unwrap_err(), SignatureErrorKind::Mismatch);
    }
}

// Requests are counted per auth token, which shows when the old one can be removed.
#[tokio::test]
async fn threat_05_secondary_auth_token_is_accepted_only_while_configured() {
    let rotating = TestApp::build(&[("TWILIO_AUTH_TOKEN_SECONDARY", OTHER_TOKEN)], |app| app);
    rotating
        .send(Webhook::message(1, "hi").token(OTHER_TOKEN))
        .await
        .twiml();
    rotating.send(Webhook::message(2, "hi")).await.twiml();
    assert_eq!(
        rotating
            .metric(r#"replyhook_verified_requests_total{auth_token="secondary"}"#)
            .await,
        1.0
    );
    assert_eq!(
        rotating
            .metric(r#"replyhook_verified_requests_total{auth_token="primary"}"#)
            .await,
        1.0
    );
    let done = TestApp::echo();
    done.send(Webhook::message(1, "hi").token(OTHER_TOKEN))
        .await
        .assert_rejected(403);
}

#[tokio::test]
async fn threat_06_valid_signature_for_unknown_account_is_rejected() {
    const OTHER: &str = "AC000000000000000000000000000000ff";
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        (
            "REPLYHOOK__TWILIO__ACCOUNTS__AC000000000000000000000000000000FF__AUTH_TOKEN",
            OTHER_TOKEN,
        ),
    ];
    let app = TestApp::build(&env, |app| app);
    app.send(Webhook::message(1, "hi")).await.twiml();
    app.send(
        Webhook::message(2, "hi")
            .with("AccountSid", OTHER)
            .token(OTHER_TOKEN),
    )
    .await
    .twiml();
    // A request without a valid signature does not reveal which accounts are configured.
    app.send(
        Webhook::message(6, "hi")
            .with("AccountSid", "AC000000000000000000000000000000ee")
            .signature(&base64_of(&[0; 20])),
    )
    .await
    .assert_rejected(403);
    // The requests of a subaccount verify with its own auth token only.
    app.send(Webhook::message(3, "hi").with("AccountSid", OTHER))
        .await
        .assert_rejected(403);
    app.send(Webhook::message(4, "hi").token(OTHER_TOKEN))
        .await
        .assert_rejected(403);
    app.send(Webhook::message(5, "hi").with("AccountSid", "AC000000000000000000000000000000ee"))
        .await
        .assert_rejected(403);
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="rejected_account"}"#)
            .await,
        1.0
    );
}

// Signatures are verified against the configured PUBLIC_URL alone.
#[tokio::test]
async fn threat_09_host_and_forwarding_headers_do_not_affect_verification() {
    let app = TestApp::echo();
    let lies = [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Port", "8443"),
        ("Forwarded", "host=evil.example;proto=http"),
        ("X-Original-URL", "/other"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Original-Host", "evil.example"),
    ];
    for (number, (name, value)) in lies.into_iter().enumerate() {
        let number = number as u64;
        app.send(Webhook::message(number, "hi").header(name, value))
            .await
            .twiml();
        for url in [
            "https://evil.example/webhook",
            "http://hooks.example.test/webhook",
            "https://hooks.example.test:8443/webhook",
            "https://hooks.example.test/evil/webhook",
            "https://hooks.example.test/other",
        ] {
            app.send(
                Webhook::message(number, "hi")
                    .header(name, value)
                    .signed_for(url),
            )
            .await
            .assert_rejected(403);
        }
    }
    // Only the path and query of an absolute-form target count.
    let mut absolute = Webhook::message(20, "hi").signed_for(&format!("{ORIGIN}/webhook"));
    absolute.target = "http://evil.example/webhook".to_owned();
    app.send(absolute).await.twiml();
    // A trailing slash makes another URL, which must be signed with the slash.
    app.send(Webhook::message(21, "hi").to("/webhook/"))
        .await
        .twiml();
    app.send(
        Webhook::message(22, "hi")
            .to("/webhook/")
            .signed_for(&format!("{ORIGIN}/webhook")),
    )
    .await
    .assert_rejected(403);
}

#[tokio::test]
async fn threat_10_query_is_verified_byte_for_byte() {
    let app = TestApp::echo();
    let queries = [
        "a=%20", "a=+", "a=%2B", "a=%2b", "a=%7E", "a=~", "", "a", "b=2&a=1", "a=1&&b=2",
        "a=%C3%A9",
    ];
    for (number, signed) in queries.iter().enumerate() {
        for received in queries {
            let webhook = Webhook::message(number as u64, "hi")
                .to(&format!("/webhook?{received}"))
                .signed_for(&format!("{ORIGIN}/webhook?{signed}"));
            let answer = app.send(webhook).await;
            assert_eq!(
                answer.status,
                if received == *signed { 200 } else { 403 },
                "{signed} received as {received}"
            );
        }
    }
    // Twilio is known to sign these spellings although it sends the others.
    for (received, signed) in [
        ("n=it%27s", "n=it's"),
        ("n=it's", "n=it%27s"),
        ("n=a%40b", "n=a@b"),
        ("n=a%3Ab", "n=a:b"),
    ] {
        let webhook = Webhook::message(99, "hi")
            .to(&format!("/webhook?{received}"))
            .signed_for(&format!("{ORIGIN}/webhook?{signed}"));
        app.send(webhook).await.twiml();
    }
}

// The fragment holds Twilio's connection overrides, such as #rc=2.
#[tokio::test]
async fn threat_11_public_url_fragment_is_excluded_from_signature() {
    let app = TestApp::build(
        &[("PUBLIC_URL", "https://hooks.example.test/a#rc=2&rp=all")],
        |app| app,
    );
    let url = "https://hooks.example.test/a/webhook";
    app.send(Webhook::message(1, "hi").signed_for(url))
        .await
        .twiml();
    let token = Secret::new(TOKEN);
    assert_eq!(
        sign(&token, &format!("{url}#rc=2&rp=all"), None),
        sign(&token, url, None)
    );
}

// The parameters of a GET webhook are in its query.
#[tokio::test]
async fn threat_12_get_webhook_is_accepted_and_never_cached() {
    let app = TestApp::echo();
    let answer = app.send(Webhook::message(1, "ça va + bien?").get()).await;
    assert!(answer.twiml().contains("<Message>ça va + bien?</Message>"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let rejected = app
        .send(
            Webhook::message(2, "hi")
                .get()
                .signature(&base64_of(&[1; 20])),
        )
        .await;
    rejected.assert_rejected(403);
    assert_eq!(rejected.header("cache-control"), Some("no-store"));
    assert_eq!(
        app.send(Webhook::message(3, "hi"))
            .await
            .header("cache-control"),
        None
    );
    app.send(Webhook::message(4, "hi").method(Method::PUT))
        .await
        .twiml();
}

// The signature covers such a body only through bodySHA256 in the URL.
#[tokio::test]
async fn threat_13_non_form_body_requires_hash_in_url() {
    const BODY: &str = r#"{"property": "value", "boolean": true}"#;
    const HASH: &str = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert(
        "x-twilio-signature",
        "a9nBmqA0ju/hNViExpshrM61xv4=".parse().unwrap(),
    );
    let target = format!("/myapp.php?foo=1&bar=2&bodySHA256={HASH}");
    let verifier = verifier("https://mycompany.com", "12345");
    let verify = |target: &str, body: &str, headers: &HeaderMap| {
        let request = UnverifiedRequest {
            method: &Method::POST,
            target,
            headers,
            body: body.as_bytes(),
        };
        verifier.verify(&request).map_err(|error| error.kind())
    };
    let hashed = verify(&target, BODY, &headers).unwrap();
    assert!(hashed.form.is_empty() && !hashed.is_form);
    assert_eq!(
        verify(&target, "{}", &headers).unwrap_err(),
        SignatureErrorKind::BodyHash
    );
    for hash in [HASH.to_uppercase(), String::new(), format!("{HASH}0")] {
        let target = format!("/myapp.php?foo=1&bar=2&bodySHA256={hash}");
        let signature = sign(
            &Secret::new("12345"),
            &format!("https://mycompany.com{target}"),
            None,
        )
        .unwrap();
        let mut headers = headers.clone();
        headers.insert("x-twilio-signature", signature.parse().unwrap());
        assert_eq!(
            verify(&target, BODY, &headers).unwrap_err(),
            SignatureErrorKind::BodyHash,
            "{hash}"
        );
    }
    assert_eq!(
        verify("/myapp.php?foo=1&bar=2", BODY, &headers).unwrap_err(),
        SignatureErrorKind::NotAForm
    );
    let twice = format!("{target}&bodySHA256={HASH}");
    assert_eq!(
        verify(&twice, BODY, &headers).unwrap_err(),
        SignatureErrorKind::NotAForm
    );

    // A webhook endpoint rejects a JSON body even if its hash is valid.
    let app = TestApp::echo();
    let mut webhook = Webhook::form(&format!("/webhook?bodySHA256={HASH}"), &[])
        .body(BODY)
        .content_type(Some("application/json"));
    webhook.signature = Some(
        sign(
            &Secret::new(TOKEN),
            &format!("{ORIGIN}{}", webhook.target),
            None,
        )
        .unwrap(),
    );
    app.send(webhook.clone()).await.assert_rejected(415);
    app.send(webhook.body("{}")).await.assert_rejected(403);
}

// Other parameters may repeat and verify as Twilio signs them.
#[tokio::test]
async fn threat_22_conflicting_values_of_deciding_parameter_are_rejected() {
    let app = TestApp::echo();
    app.send(
        Webhook::message(1, "hi")
            .also("Tag", "b")
            .also("Tag", "a")
            .also("Tag", "b"),
    )
    .await
    .twiml();
    app.send(Webhook::message(2, "hi").also("Body", "hi"))
        .await
        .twiml();
    for name in [
        "From",
        "To",
        "Body",
        "MessageSid",
        "AccountSid",
        "MessagingServiceSid",
        "ExternalUserId",
        "ParentExternalUserId",
        "NumMedia",
        "MessageStatus",
        "ErrorCode",
        "ErrorUrl",
        "OptOutType",
    ] {
        let webhook = Webhook::message(3, "hi")
            .also(name, "one")
            .also(name, "two");
        app.send(webhook).await.assert_rejected(400);
    }
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="bad_form"}"#)
            .await,
        13.0
    );
}

#[test]
fn verifier_without_auth_token_cannot_be_created() {
    let url = || PublicUrl::parse(ORIGIN).unwrap().0;
    assert_eq!(
        SignatureVerifier::new(url(), []).unwrap_err(),
        TokenError::None
    );
    for blank in ["", " ", "\n"] {
        assert_eq!(
            SignatureVerifier::new(url(), [Secret::new(blank)]).unwrap_err(),
            TokenError::Blank
        );
        assert_eq!(
            sign(&Secret::new(blank), ORIGIN, None),
            Err(TokenError::Blank)
        );
    }
}

#[test]
fn supplementary_plane_parameters_verify_in_either_sort_order() {
    // In UTF-16, U+1F44D sorts before U+FF21; in UTF-8 bytes, after it.
    let url = format!("{ORIGIN}/webhook");
    let bytes = sign(
        &Secret::new(TOKEN),
        &format!("{url}T\u{FF21}T\u{1F44D}"),
        None,
    )
    .unwrap();
    let utf16 = sign(
        &Secret::new(TOKEN),
        &format!("{url}T\u{1F44D}T\u{FF21}"),
        None,
    )
    .unwrap();
    let body = FormParams::from_iter([("T", "\u{1F44D}"), ("T", "\u{FF21}")]).encode();
    for signature in [bytes, utf16] {
        assert!(
            verify(
                &verifier(ORIGIN, TOKEN),
                &Method::POST,
                "/webhook",
                &body,
                &signature
            )
            .is_ok()
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_signed_form_verifies_and_tampered_form_fails(
        pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..20),
        extra in "[a-z]{1,5}",
    ) {
        let form: FormParams = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let verifier = verifier(ORIGIN, TOKEN);
        let signature = sign(&Secret::new(TOKEN), &format!("{ORIGIN}/webhook"), Some(&form)).unwrap();
        let verified = verify(&verifier, &Method::POST, "/webhook", &form.encode(), &signature);
        let verified = verified.unwrap();
        prop_assert_eq!(verified.token, AuthTokenKind::Primary);
        prop_assert_eq!(&verified.form, &form);
        let tampered: FormParams = form.iter().chain([("zz", extra.as_str())]).collect();
        prop_assert!(verify(&verifier, &Method::POST, "/webhook", &tampered.encode(), &signature).is_err());
    }
}

#[test]
fn chained_verifiers_accept_matching_url_and_token_only() {
    let url = |number: usize| format!("https://h{number}.example.test");
    let token = |number: usize| Secret::new(format!("{number}").repeat(32));
    let one = |number| verifier(&url(number), token(number).expose());
    let left = one(1).or(one(2)).or(one(3));
    let right = one(1).or(one(2).or(one(3)));
    let form = FormParams::from_iter([("Body", "hi"), ("MessageSid", "SM1")]);
    for (signer, place) in [(1, 1), (2, 2), (3, 3), (1, 2), (3, 1)] {
        let signed = sign(
            &token(signer),
            &format!("{}/webhook", url(place)),
            Some(&form),
        )
        .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-twilio-signature", signed.parse().unwrap());
        let form_type = "application/x-www-form-urlencoded";
        headers.insert("content-type", form_type.parse().unwrap());
        let body = form.encode();
        let request = UnverifiedRequest {
            method: &Method::POST,
            target: "/webhook",
            headers: &headers,
            body: body.as_bytes(),
        };
        for chain in [&left, &right] {
            let accepted = chain.verify(&request).is_ok();
            assert_eq!(accepted, signer == place, "{signer} signs for {place}");
        }
    }
}
