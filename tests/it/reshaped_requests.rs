//! Captured requests whose signed bytes are split into other names and values, so that the signature still matches.

use std::collections::HashSet;

use http::{HeaderMap, Method};
use proptest::prelude::*;
use replyhook::internals::SendEligibility;
use replyhook::message::ConversationEvent;
use replyhook::signature::{
    Explanation, PublicUrl, SignatureErrorKind, SignatureVerifier, UnverifiedRequest, sign,
};
use replyhook::{Clock, FormParams, InboundMessage, Secret, StatusUpdate, SystemClock, Timestamp};

use crate::support::{ACCOUNT, EMPTY, ORIGIN, Server, TOKEN, TestApp, Webhook};

const OWN_SID: &str = "SM0000000000000000000000000000ab01";
const QUOTED_SID: &str = "MM0000000000000000000000000000ab02";
const OTHER_SID: &str = "SM0000000000000000000000000000ab03";

/// Parameters in the sets and the order in which they were captured; the values are made up.
const CAPTURES: [(&str, &str, &str); 13] = [
    (
        "text",
        "/webhook",
        "SmsMessageSid={OWN_SID}&NumMedia=0&ProfileName=Zo%C3%AB&MessageType=text&SmsSid={OWN_SID}&WaId=15550001111&SmsStatus=received&Body=STOP+Calling+me%2C+Carl&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&From=whatsapp%3A%2B15550001111&ApiVersion=2010-04-01",
    ),
    (
        "image",
        "/webhook",
        "MediaContentType0=image%2Fjpeg&SmsMessageSid={OWN_SID}&NumMedia=1&ProfileName=Ana&MessageType=image&SmsSid={OWN_SID}&WaId=15550001111&SmsStatus=received&Body=look&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&From=whatsapp%3A%2B15550001111&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2F2010-04-01%2FAccounts%2F{ACCOUNT}%2FMessages%2F{OWN_SID}%2FMedia%2FME00000000000000000000000000000001&ApiVersion=2010-04-01",
    ),
    (
        "location",
        "/webhook",
        "Latitude=52.5200&Longitude=13.4050&Address=1+Example+St&Label=Office&SmsMessageSid={OWN_SID}&NumMedia=0&ProfileName=Ana&SmsSid={OWN_SID}&WaId=15550001111&SmsStatus=received&Body=&To=whatsapp%3A%2B15550002222&NumSegments=1&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&From=whatsapp%3A%2B15550001111&ApiVersion=2010-04-01",
    ),
    (
        "tap",
        "/webhook",
        "OriginalRepliedMessageSender=whatsapp%3A%2B15550002222&ExternalUserId=whatsapp%3AUS.13491208655302741918&SmsMessageSid={OWN_SID}&FrequentlyForwarded=false&NumMedia=0&ProfileName=Ana&MessageType=interactive&SmsSid={OWN_SID}&SmsStatus=received&Body=Yes&Forwarded=false&ButtonText=Yes&To=whatsapp%3A%2B15550002222&ButtonPayload=confirm%3A42&NumSegments=1&ReferralNumMedia=0&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&OriginalRepliedMessageSid={QUOTED_SID}&ChannelMetadata=%7B%22type%22%3A%22whatsapp%22%2C%22data%22%3A%7B%22context%22%3A%7B%22ProfileName%22%3A%22Ana%22%2C%22ButtonText%22%3A%22Yes%22%7D%7D%7D&From=whatsapp%3AUS.13491208655302741918&ApiVersion=2010-04-01",
    ),
    (
        "quoted reply",
        "/webhook",
        "OriginalRepliedMessageSender=whatsapp%3A%2B15550002222&SmsMessageSid={OWN_SID}&NumMedia=0&ProfileName=Ana&MessageType=text&SmsSid={OWN_SID}&WaId=15550001111&SmsStatus=received&Body=this+one&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&OriginalRepliedMessageSid={QUOTED_SID}&From=whatsapp%3A%2B15550001111&ApiVersion=2010-04-01",
    ),
    (
        "template button",
        "/webhook",
        "SmsMessageSid={OWN_SID}&NumMedia=0&ProfileName=Ana&MessageType=button&SmsSid={OWN_SID}&WaId=15550001111&SmsStatus=received&Body=Confirm&ButtonText=Confirm&ButtonPayload=confirm&To=whatsapp%3A%2B15550002222&NumSegments=1&ReferralNumMedia=0&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&OriginalRepliedMessageSid={QUOTED_SID}&OriginalRepliedMessageSender=whatsapp%3A%2B15550002222&ParentExternalUserId=whatsapp%3AUS.ENT.11815799212886844830&ExternalUserId=whatsapp%3AUS.13491208655302741918&From=whatsapp%3A%2B15550001111&ApiVersion=2010-04-01",
    ),
    (
        "list pick",
        "/webhook",
        "SmsMessageSid={OWN_SID}&NumMedia=0&ProfileName=Ana&MessageType=interactive&SmsSid={OWN_SID}&WaId=15550001111&SmsStatus=received&Body=Morning&ListId=slot%3A1&ListTitle=Morning&ListDescription=9+to+12&To=whatsapp%3A%2B15550002222&NumSegments=1&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&OriginalRepliedMessageSid={QUOTED_SID}&OriginalRepliedMessageSender=whatsapp%3A%2B15550002222&From=whatsapp%3A%2B15550001111&ApiVersion=2010-04-01",
    ),
    (
        "opt-out",
        "/webhook",
        "ToCountry=US&ToState=CA&SmsMessageSid={OWN_SID}&NumMedia=0&ToCity=&FromZip=&SmsSid={OWN_SID}&FromState=NY&SmsStatus=received&FromCity=&OptOutType=STOP&Body=Stop&FromCountry=US&To=%2B15550003333&MessagingServiceSid=MG00000000000000000000000000000001&ToZip=&NumSegments=1&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&From=%2B15550004444&ApiVersion=2010-04-01",
    ),
    (
        "status sent",
        "/webhook/status",
        "SmsSid={OWN_SID}&SmsStatus=sent&MessageStatus=sent&ChannelToAddress=%2B1555000XXXX&To=whatsapp%3A%2B15550001111&ChannelPrefix=whatsapp&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&StructuredMessage=false&From=whatsapp%3A%2B15550002222&ApiVersion=2010-04-01&ChannelInstallSid=XE00000000000000000000000000000001",
    ),
    (
        "status read at the message URL",
        "/webhook",
        "EventType=READ&SmsSid={OWN_SID}&SmsStatus=read&MessageStatus=read&ChannelToAddress=%2B1555000XXXX&To=whatsapp%3A%2B15550001111&ChannelPrefix=whatsapp&MessageSid={OWN_SID}&AccountSid={ACCOUNT}&From=whatsapp%3A%2B15550002222&ApiVersion=2010-04-01&ChannelInstallSid=XE00000000000000000000000000000001",
    ),
    (
        "conversation message",
        "/webhook",
        "EventType=onMessageAdded&AccountSid={ACCOUNT}&ConversationSid=CH00000000000000000000000000000001&MessageSid=IM00000000000000000000000000000001&ChatServiceSid=IS00000000000000000000000000000001&Body=hello+all&Author=%2B15550001111&ParticipantSid=MB00000000000000000000000000000001&Source=SMS&RetryCount=0",
    ),
    (
        "conversation delivery",
        "/webhook",
        "EventType=onDeliveryUpdated&AccountSid={ACCOUNT}&ConversationSid=CH00000000000000000000000000000001&MessageSid=IM00000000000000000000000000000001&ChannelMessageSid={QUOTED_SID}&DeliveryReceiptSid=DY00000000000000000000000000000001&ChatServiceSid=IS00000000000000000000000000000001&ParticipantSid=MB00000000000000000000000000000001&Status=delivered",
    ),
    (
        "conversation group",
        "/webhook",
        "EventType=onConversationAdded&MessagingBinding.Address=%2B15550003333&AccountSid={ACCOUNT}&MessagingBinding.ProxyAddress=%2B15550002222&MessagingBinding.Address=%2B15550001111&ConversationSid=CH00000000000000000000000000000001&ChatServiceSid=IS00000000000000000000000000000001&Body=hello+all&MessagingBinding.AuthorAddress=%2B15550001111&Source=SMS",
    ),
];

/// Returns the captured requests as [`Webhook`]s, each with its kind.
fn captures() -> impl Iterator<Item = (&'static str, Webhook)> {
    CAPTURES.into_iter().map(|(kind, target, body)| {
        let body = body
            .replace("{OWN_SID}", OWN_SID)
            .replace("{QUOTED_SID}", QUOTED_SID)
            .replace("{ACCOUNT}", ACCOUNT);
        let mut webhook = Webhook::form(target, &[]);
        webhook.form = FormParams::parse(body.as_bytes(), 512).unwrap();
        (kind, webhook)
    })
}

fn capture(kind: &str) -> Webhook {
    captures().find(|(known, _)| *known == kind).unwrap().1
}

fn signature(target: &str, form: &FormParams) -> String {
    let url = format!("{ORIGIN}{target}");
    sign(&Secret::new(TOKEN), &url, Some(form)).unwrap()
}

/// Signed string of a capture, with the position of each name and value.
struct SignedText {
    text: String,
    /// Start of the name, start of the value; the pair ends where the next one starts.
    pairs: Vec<(usize, usize)>,
}

impl SignedText {
    fn from_form(form: &FormParams) -> Self {
        let mut sorted: Vec<_> = form.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let (mut text, mut pairs) = (String::new(), Vec::new());
        for (name, value) in sorted {
            pairs.push((text.len(), text.len() + name.len()));
            text = text + name + value;
        }
        Self { text, pairs }
    }

    /// Splits the signed string at these positions; `None` if they are invalid.
    fn split_at(&self, pairs: &[(usize, usize)]) -> Option<FormParams> {
        let ends = pairs.iter().skip(1).map(|(start, _)| *start);
        let ends = ends.chain([self.text.len()]);
        let cut = pairs.iter().zip(ends).map(|((start, value), end)| {
            Some((self.text.get(*start..*value)?, self.text.get(*value..end)?))
        });
        let cut = cut.collect::<Option<Vec<_>>>()?;
        (pairs.first()?.0 == 0).then(|| cut.into_iter().collect())
    }

    /// Returns every way to move or remove one boundary, or to add a pair inside of a value.
    fn single_moves(&self) -> Vec<Vec<(usize, usize)>> {
        let mut found = Vec::new();
        for at in 0..self.pairs.len() {
            let (start, value) = self.pairs[at];
            let next = self.pairs.get(at + 1);
            let end = next.map_or(self.text.len(), |next| next.0);
            let with = |pairs: &[(usize, usize)]| {
                [&self.pairs[..at], pairs, &self.pairs[at + 1..]].concat()
            };
            found.extend((start..=end).map(|moved| with(&[(start, moved)])));
            if at > 0 {
                found.push(with(&[]));
                let earliest = self.pairs[at - 1].1;
                found.extend((earliest..=value).map(|moved| with(&[(moved, value)])));
            }
            for from in value..end {
                let ends = (from + 1..=end.min(from + 12)).chain([end]);
                found.extend(ends.map(|to| with(&[(start, value), (from, to)])));
            }
        }
        found.retain(|pairs| self.is_sorted(pairs));
        found
    }

    /// Returns whether the names are in signing order. Otherwise the form has another signature.
    fn is_sorted(&self, pairs: &[(usize, usize)]) -> bool {
        let names = pairs
            .iter()
            .map(|(start, value)| self.text.get(*start..*value));
        names.is_sorted()
    }

    /// Returns every choice of positions, in sorted order, at which the string has a name that decides the handling.
    ///
    /// The bytes between two names belong to the value before them. After a SID, they form a separate parameter.
    fn moves_of_known_names(&self) -> Vec<Vec<(usize, usize)>> {
        const NAMES: [(&str, bool); 9] = [
            ("AccountSid", true),
            ("Body", false),
            ("EventType", false),
            ("ExternalUserId", false),
            ("From", false),
            ("MessageSid", true),
            ("MessageStatus", false),
            ("OptOutType", false),
            ("To", false),
        ];
        let mut chosen: Vec<Vec<(usize, &str)>> = vec![Vec::new()];
        for (name, must) in NAMES {
            let mut longer = Vec::new();
            for places in &chosen {
                let from = places.last().map_or(0, |(at, name)| at + name.len());
                for (at, _) in self.text[from..].match_indices(name) {
                    longer.push([&places[..], &[(from + at, name)]].concat());
                }
                if !must {
                    longer.push(places.clone());
                }
            }
            chosen = longer;
        }
        let mut found = Vec::new();
        for places in chosen {
            for rest in 1..=16 {
                let mut pairs = Vec::new();
                for (at, (start, name)) in places.iter().enumerate() {
                    let end = places.get(at + 1).map_or(self.text.len(), |next| next.0);
                    let sid = start + name.len() + 34;
                    pairs.push((*start, start + name.len()));
                    if name.ends_with("Sid") && sid < end {
                        pairs.push((sid, end.min(sid + rest)));
                    }
                }
                if places[0].0 > 0 {
                    pairs.insert(0, (0, places[0].0.min(rest)));
                }
                found.push(pairs);
            }
        }
        found.retain(|pairs| self.is_sorted(pairs));
        found
    }
}

/// Returns the generated forms that differ from a capture and have its signature.
fn reshape(webhook: &Webhook) -> Vec<FormParams> {
    let signed = SignedText::from_form(&webhook.form);
    let original = signature(&webhook.target, &webhook.form);
    let whole = signed.split_at(&signed.pairs).unwrap();
    let mut seen = HashSet::new();
    [signed.single_moves(), signed.moves_of_known_names()]
        .concat()
        .into_iter()
        .filter(|pairs| seen.insert(pairs.clone()))
        .filter_map(|pairs| signed.split_at(&pairs))
        .filter(|form| *form != whole && signature(&webhook.target, form) == original)
        .collect()
}

/// Returns the message that an endpoint would read from a form, without verification.
fn read_subject(form: &FormParams) -> Option<String> {
    if ConversationEvent::is_one(form) {
        return ConversationEvent::parse(form.clone()).ok()?.message_sid;
    }
    if form
        .get("MessageStatus")
        .is_some_and(|status| !status.is_empty())
    {
        let update = StatusUpdate::parse(form.clone()).ok()?;
        return Some(format!("status of {}", update.message_sid));
    }
    let message = InboundMessage::parse(form.clone(), Timestamp::UNIX_EPOCH).ok()?;
    Some(message.message_sid.to_string())
}

fn verify(webhook: &Webhook, form: &FormParams) -> Result<(), SignatureErrorKind> {
    let url = PublicUrl::parse(ORIGIN).unwrap().0;
    let verifier = SignatureVerifier::new(url, [Secret::new(TOKEN)]).unwrap();
    let mut headers = HeaderMap::new();
    let content_type = "application/x-www-form-urlencoded";
    headers.insert("content-type", content_type.parse().unwrap());
    let signature = signature(&webhook.target, &webhook.form);
    headers.insert("x-twilio-signature", signature.parse().unwrap());
    let body = form.encode();
    let request = UnverifiedRequest {
        method: &Method::POST,
        target: &webhook.target,
        headers: &headers,
        body: body.as_bytes(),
    };
    let verdict = verifier.verify(&request);
    let explanation = verifier.explain(&request);
    assert_eq!(verdict.is_ok(), explanation == Explanation::Verifies);
    verdict.map(drop).map_err(|error| error.kind())
}

#[tokio::test]
async fn captures_of_every_kind_are_accepted() {
    for (kind, webhook) in captures() {
        let app = TestApp::echo();
        let answer = app.send(webhook.clone()).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
        let answer = app.send(webhook.clone().method(Method::PUT)).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
        let answer = app.send(webhook.get()).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
    }
}

#[test]
fn reshaped_capture_never_names_another_message() {
    let mut others = 0;
    for (kind, webhook) in captures() {
        let original = read_subject(&webhook.form);
        let forms = reshape(&webhook);
        assert!(forms.len() > 20, "{kind}: only {} forms", forms.len());
        for form in forms {
            let found = read_subject(&form);
            if found.is_none() || found == original {
                continue;
            }
            others += 1;
            let rejected = verify(&webhook, &form);
            assert_eq!(
                rejected,
                Err(SignatureErrorKind::Reshaped),
                "{kind} is read as {found:?}: {}",
                form.encode()
            );
        }
    }
    // Taps and quoted replies name another message, and a status callback can be read as a message.
    assert!(others > 50, "only {others} forms name another message");
}

#[tokio::test]
async fn reshaped_duplicate_gets_saved_response() {
    for (kind, webhook) in captures().filter(|(kind, _)| !kind.starts_with("conversation")) {
        let app = TestApp::echo();
        let saved = app.send(webhook.clone()).await;
        let before = stored_state(&app, &webhook.form).await;
        let mut seen = HashSet::new();
        let (mut repeats, mut rejected) = (0, 0);
        let deciding = [
            "From",
            "To",
            "Body",
            "OptOutType",
            "MessagingServiceSid",
            "ExternalUserId",
        ];
        for (number, form) in reshape(&webhook).into_iter().enumerate() {
            let decides = deciding.map(|name| form.get(name).map(str::to_owned));
            if !seen.insert(decides) && number % 100 != 0 {
                continue;
            }
            let mut sent = webhook.clone().signature(&webhook.signature_for(ORIGIN));
            sent.form = form.clone();
            let answer = app.send(sent).await;
            if answer.status == 400 {
                rejected += 1;
                continue;
            }
            assert_eq!(
                (answer.status, &answer.body),
                (200, &saved.body),
                "{kind}: {}",
                form.encode()
            );
            repeats += 1;
            let (eligibility, kept) = stored_state(&app, &form).await;
            assert_eq!(kept, before.1, "{kind}: {}", form.encode());
            if form.get("From") != webhook.form.get("From") {
                assert!(
                    !eligibility.opted_out && !eligibility.opted_in,
                    "{kind}: {}",
                    form.encode()
                );
            }
        }
        assert!(
            repeats > 10 && rejected > 0,
            "{kind}: {repeats} repeats, {rejected} rejected"
        );
        assert_eq!(stored_state(&app, &webhook.form).await, before, "{kind}");
    }
}

/// Returns the user's send eligibility, and the number of stored messages.
async fn stored_state(app: &TestApp, form: &FormParams) -> (SendEligibility, usize) {
    let from = form.get("From").unwrap_or_default().into();
    let to = form.get("To").unwrap_or_default().into();
    let eligibility = app.store.eligibility(&to, None, &from, SystemClock.now());
    (eligibility.await.unwrap(), app.message_count().await)
}

#[tokio::test]
async fn text_with_another_message_sid_is_rejected() {
    let app = TestApp::echo();
    for text in [
        &format!("see MessageSid{OTHER_SID} and MessageSid{OWN_SID}"),
        &format!("MessageSidIM{}", "0".repeat(32)),
        "EventTypeonX",
    ] {
        let webhook = capture("text").with("Body", text);
        for to in ["/webhook", "/webhook/fallback"] {
            let answer = app.send(webhook.clone().to(to)).await;
            assert_eq!(answer.assert_rejected(400), "malformed form\n");
        }
        app.send(webhook.get()).await.assert_rejected(400);
    }
    assert_eq!(app.message_count().await, 0);
    let series = |endpoint| {
        format!(r#"replyhook_webhooks_total{{endpoint="{endpoint}",outcome="bad_form"}}"#)
    };
    app.wait_for(&series("primary"), 6.0).await;
    app.wait_for(&series("fallback"), 3.0).await;
    // Accepted as text: a pair with separators, another name, half a SID, and the message's own SID.
    for (number, text) in [
        &format!("MessageSid: {OTHER_SID}"),
        &format!("MessageSid={OTHER_SID}"),
        &format!("messagesid{OTHER_SID}"),
        &format!("MessageSid{}", &OTHER_SID[..32]),
        &format!("MessageSidSM{:032x}", 5),
    ]
    .into_iter()
    .enumerate()
    {
        app.send(Webhook::message(number as u64 + 1, text))
            .await
            .twiml();
    }
}

#[test]
fn rejected_text_is_logged_without_its_content() {
    let server = Server::start(&[]);
    let text = format!("canary-text MessageSid{OTHER_SID}");
    server
        .send(&Webhook::message(1, &text))
        .assert_rejected(400);
    server.wait_for("a user's text holds such a pair");
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains("such a pair"))
        .unwrap();
    assert!(
        line.contains("bad_form") && line.contains("ERROR"),
        "{line}"
    );
    assert!(!log.contains("canary") && !log.contains(OTHER_SID), "{log}");
}

#[tokio::test]
async fn exempt_names_must_match_exactly() {
    let app = TestApp::echo();
    for name in [
        "OriginalRepliedMessageSid",
        "ChannelMessageSid",
        "SmsMessageSid",
    ] {
        app.send(capture("text").with(name, OTHER_SID))
            .await
            .twiml();
        app.send(capture("text").with(name, OTHER_SID).get())
            .await
            .twiml();
        for (name, value) in [
            (format!("x{name}"), OTHER_SID.to_owned()),
            (name[1..].to_owned(), OTHER_SID.to_owned()),
            (name.to_owned(), format!("{OTHER_SID}0")),
            ("Tag".to_owned(), format!("{name}{OTHER_SID}")),
        ] {
            let webhook = capture("text").with(&name, &value);
            app.send(webhook).await.assert_rejected(400);
        }
    }
    assert_eq!(app.message_count().await, 1);
}

#[tokio::test]
async fn get_signature_does_not_fit_reshaped_post() {
    // A user who knows the account SID writes a message inside of a message. It needs only letters, digits and spaces,
    // which become `+`.
    let inner =
        format!("xAccountSid{ACCOUNT}BodySTOPFrom 15559990000MessageSid{OTHER_SID}To 15550003333Z");
    let original = Webhook::form(
        "/webhook",
        &[
            ("AccountSid", ACCOUNT),
            ("Body", &inner),
            ("From", "+15550004444"),
            ("MessageSid", OWN_SID),
            ("To", "+15550003333"),
        ],
    )
    .get();
    let query = original.target.strip_prefix("/webhook").unwrap();
    let at = |text: &str| query.find(text).unwrap();
    let (account, body) = (at(&format!("AccountSid{ACCOUNT}")), at("BodySTOP"));
    let (from, sid, to) = (
        at("From+1555999"),
        at(&format!("MessageSid{OTHER_SID}")),
        at("To+15550003333Z"),
    );
    let rest = to + "To+15550003333".len();
    let pairs = [
        (&query[..account], ""),
        ("AccountSid", &query[account + 10..body]),
        ("Body", "STOP"),
        ("From", &query[from + 4..sid]),
        ("MessageSid", OTHER_SID),
        ("To", "+15550003333"),
        ("Z", &query[rest + 1..]),
    ];
    let forged = Webhook::form("/webhook", &pairs).signature(&original.signature_for(ORIGIN));
    assert_eq!(read_subject(&forged.form).as_deref(), Some(OTHER_SID));
    assert_eq!(forged.form.get("From"), Some("+15559990000"));
    // The same attack, with a part of the query left in the URL.
    let split = Webhook::form(&format!("/webhook{}", &query[..account]), &pairs[1..]);
    let split = split.signature(&original.signature_for(ORIGIN));
    let app = TestApp::echo();
    for forged in [forged, split] {
        assert_eq!(
            app.send(forged).await.assert_rejected(400),
            "malformed form\n"
        );
    }
    assert_eq!(app.message_count().await, 0);
}

#[tokio::test]
async fn post_signature_does_not_fit_reshaped_get() {
    // The URL has a query, so the signed parameters can follow in it.
    let inner = format!(
        "x&AccountSid={ACCOUNT}&Body=STOP&From=%2B15559990000&MessageSid={OTHER_SID}&To=%2B15550003333&z="
    );
    let original = Webhook::form(
        "/webhook?tenant=a",
        &[
            ("AccountSid", ACCOUNT),
            ("Body", &inner),
            ("From", "+15550004444"),
            ("MessageSid", OWN_SID),
            ("To", "+15550003333"),
        ],
    );
    let target = format!(
        "/webhook?tenant=a{}",
        SignedText::from_form(&original.form).text
    );
    let mut forged = Webhook::form(&target, &[])
        .method(Method::GET)
        .content_type(None);
    assert_eq!(forged.signature_for(ORIGIN), original.signature_for(ORIGIN));
    forged.form = FormParams::parse(target.split_once('?').unwrap().1.as_bytes(), 512).unwrap();
    assert_eq!(read_subject(&forged.form).as_deref(), Some(OTHER_SID));
    let app = TestApp::echo();
    assert_eq!(
        app.send(forged).await.assert_rejected(400),
        "malformed form\n"
    );
    assert_eq!(app.message_count().await, 0);
}

#[tokio::test]
async fn conversation_events_cannot_become_messages() {
    let text = format!("hiFrom+15559990000MessageSid{OTHER_SID}To+15550002222Z");
    let original = capture("conversation group").with("Body", &text);
    let signed = SignedText::from_form(&original.form).text;
    let at = |text: &str| signed.find(text).unwrap();
    let pairs = [
        ("AccountSid", ACCOUNT),
        ("Body", "hi"),
        ("From", "+15559990000"),
        ("MessageSid", OTHER_SID),
        ("To", "+15550002222"),
        ("Z", &signed[at("+15550002222Z") + 13..]),
    ];
    let forged = Webhook::form("/webhook", &pairs).signature(&original.signature_for(ORIGIN));
    assert_eq!(
        signature("/webhook", &forged.form),
        original.signature_for(ORIGIN)
    );
    let app = TestApp::echo();
    assert_eq!(
        app.send(forged).await.assert_rejected(400),
        "malformed form\n"
    );
    assert_eq!(app.message_count().await, 0);
    // Nor can a message become an event.
    let event = capture("text").with("EventType", "onMessageAdded");
    app.send(event).await.assert_rejected(400);
    assert_eq!(app.send(capture("conversation group")).await.twiml(), EMPTY);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn several_boundary_moves_name_no_other_message(
        kind in 0..CAPTURES.len(),
        moves in proptest::collection::vec(any::<proptest::sample::Index>(), 1..20),
    ) {
        let (_, webhook) = captures().nth(kind).unwrap();
        let original = read_subject(&webhook.form);
        let mut signed = SignedText::from_form(&webhook.form);
        let wanted = signature(&webhook.target, &webhook.form);
        for next in moves {
            let moved = signed.single_moves();
            let pairs = next.get(&moved);
            let Some(form) = signed.split_at(pairs) else { continue };
            if signature(&webhook.target, &form) != wanted {
                continue;
            }
            signed.pairs.clone_from(pairs);
            if verify(&webhook, &form).is_ok() {
                let found = read_subject(&form);
                prop_assert!(found.is_none() || found == original, "{found:?}: {}", form.encode());
            }
        }
    }
}
