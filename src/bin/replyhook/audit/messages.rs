//! Checks with messages of every kind that users send.

use replyhook::emulator::SimulatedMessage;
use replyhook::{Address, FormParams};

use super::bot::{AuditedBot, ResponseOutcome, Signing};
use crate::finding::{Finding, Report};

/// A message to send, and what to do if the bot cannot handle it.
struct MessageCheck {
    name: &'static str,
    /// Subject of the finding.
    what: &'static str,
    remedy: &'static str,
    build: fn(&mut AuditedBot) -> FormParams,
}

const MESSAGE_CHECKS: [MessageCheck; 12] = [
    MessageCheck {
        name: "text",
        what: "a text with emoji, accents, +, & and line breaks",
        remedy: "decode the form as UTF-8, and escape what you put into TwiML",
        build: |bot| {
            let mut message = bot.message();
            message.body = Some("Ünï 👋🏽 + 100% <b> & \"x\"\r\nsecond line".to_owned());
            bot.form(&message, &[])
        },
    },
    MessageCheck {
        name: "long text",
        what: "a text of 4,096 characters",
        remedy: "accept bodies of at least 64 kB, and split long replies: a <Message> has 1,600 characters at most",
        build: |bot| {
            let mut message = bot.message();
            // The most that WhatsApp allows.
            message.body = Some("word ".repeat(819) + "x");
            bot.form(&message, &[])
        },
    },
    MessageCheck {
        name: "empty text",
        what: "a message without text and media",
        remedy: "an empty Body is possible, for example with a sticker or an unsupported message: do not rely on a text",
        build: |bot| {
            let message = bot.message();
            bot.form(&message, &[("Body", "")])
        },
    },
    MessageCheck {
        name: "picture",
        what: "a picture without text",
        remedy: "Body is empty if NumMedia is not 0: handle MediaUrl0, and say what you cannot read",
        build: |bot| {
            let mut message = bot.message();
            add_media(&mut message, bot, 1, "image/jpeg");
            bot.form(&message, &[])
        },
    },
    MessageCheck {
        name: "ten files",
        what: "a message with ten files",
        remedy: "an MMS has up to ten files, MediaUrl0 to MediaUrl9: accept a form with 50 parameters",
        build: |bot| {
            let mut message = bot.sms();
            add_media(&mut message, bot, 10, "image/png");
            bot.form(&message, &[])
        },
    },
    MessageCheck {
        name: "voice message",
        what: "a voice message",
        remedy: "MediaContentType0 is audio/ogg: say what you cannot read",
        build: |bot| {
            let mut message = bot.message();
            add_media(&mut message, bot, 1, "audio/ogg");
            bot.form(&message, &[("MessageType", "audio")])
        },
    },
    MessageCheck {
        name: "location",
        what: "a location",
        remedy: "Body is empty; Latitude and Longitude have the place, and Label and Address may be missing",
        build: |bot| {
            let mut message = bot.message();
            message.location = Some((52.520_008, 13.404_954, None));
            bot.form(&message, &[])
        },
    },
    MessageCheck {
        name: "contact",
        what: "a contact card",
        remedy: "it comes as a file with the content type text/vcard and without a text",
        build: |bot| {
            let mut message = bot.message();
            add_media(&mut message, bot, 1, "text/vcard");
            bot.form(&message, &[("MessageType", "contacts")])
        },
    },
    MessageCheck {
        name: "button",
        what: "a tapped button",
        remedy: "ButtonPayload has the ID, and ButtonText and Body the title",
        build: |bot| {
            let mut message = bot.message();
            message.button = Some(("Yes, please".to_owned(), "audit:yes".to_owned()));
            bot.form(&message, &[])
        },
    },
    MessageCheck {
        name: "user without number",
        what: "a WhatsApp user with a business-scoped ID in place of a number",
        remedy: "From may be whatsapp:US.… without a number and without WaId: take From as it is, and reply to it",
        build: |bot| {
            let user = Address::parse("whatsapp:US.13491208655302741918");
            let mut message = bot.message_of(&user);
            message.body = Some("hello".to_owned());
            let form = bot.form(&message, &[("ExternalUserId", "US.13491208655302741918")]);
            form.iter().filter(|(name, _)| *name != "WaId").collect()
        },
    },
    MessageCheck {
        name: "new parameter",
        what: "a message with parameters that Twilio may add",
        remedy: "Twilio adds parameters without notice: verify the signature over all that came, and ignore unknown ones",
        build: |bot| {
            let mut message = bot.message();
            message.body = Some("hello".to_owned());
            let context = r#"{"type":"new","n":1}"#;
            bot.form(
                &message,
                &[("AuditNewParameter", ""), ("AuditContext", context)],
            )
        },
    },
    MessageCheck {
        name: "referral",
        what: "a message after a tap on an advertisement",
        remedy: "parameters that begin with Referral come with it: ignore what you do not need",
        build: |bot| {
            let mut message = bot.message();
            message.body = Some("I saw your ad".to_owned());
            bot.form(
                &message,
                &[
                    ("ReferralNumMedia", "1"),
                    ("ReferralSourceId", "120212345678900000"),
                    ("ReferralSourceType", "ad"),
                    ("ReferralBody", "Two for one"),
                ],
            )
        },
    },
];

/// Adds files whose URLs have the form of Twilio's and lead nowhere.
fn add_media(message: &mut SimulatedMessage, bot: &AuditedBot, files: usize, content_type: &str) {
    for index in 0..files {
        let url = format!(
            "https://api.twilio.com/2010-04-01/Accounts/{}/Messages/MM{:032x}/Media/ME{index:032x}",
            bot.account(),
            0
        );
        message.media.push((url, content_type.to_owned()));
    }
}

pub(super) async fn check(bot: &mut AuditedBot, report: &mut Report) -> anyhow::Result<()> {
    for check in &MESSAGE_CHECKS {
        let form = (check.build)(bot);
        let result = match bot.post(check.name, form).await {
            ResponseOutcome::Accepted { messages: 0 } => {
                Ok(format!("{} is accepted, without a reply", check.what))
            }
            ResponseOutcome::Accepted { .. } => Ok(format!("{} gets a reply", check.what)),
            ResponseOutcome::Failed(reason) => {
                let found = format!("{} is lost: {reason}", check.what);
                Err((found, check.remedy))
            }
        };
        report.add(Finding::from_result(check.name, result))?;
    }
    check_duplicate(bot, report).await?;
    check_concurrent(bot, report).await
}

/// Sends one message twice, as Twilio does after a lost response.
async fn check_duplicate(bot: &mut AuditedBot, report: &mut Report) -> anyhow::Result<()> {
    const CHECK: &str = "duplicate";
    let mut message = bot.message();
    message.body = Some("hello".to_owned());
    let form = bot.form(&message, &[]);
    let (first, first_result) = bot.exchange(CHECK, form.clone(), Signing::Correct).await;
    let (second, second_result) = bot.exchange(CHECK, form, Signing::Correct).await;
    let is_same = match (&first_result, &second_result) {
        (Ok(first), Ok(second)) => (first.status, &first.body) == (second.status, &second.body),
        _ => false,
    };
    report.add(match (first, second) {
        (ResponseOutcome::Accepted { .. }, ResponseOutcome::Accepted { .. }) if is_same => {
            Finding::ok(CHECK, "a message that comes twice gets the same response")
        }
        (ResponseOutcome::Accepted { .. }, ResponseOutcome::Accepted { .. }) => Finding::warn(
            CHECK,
            "a message that comes twice is handled twice: the responses differ",
            "Twilio calls again when a response is lost: store the MessageSid with the response, and repeat it",
        ),
        (ResponseOutcome::Failed(reason), _) | (_, ResponseOutcome::Failed(reason)) => Finding::fail(
            CHECK,
            format!("a message that comes twice is lost: {reason}"),
            "Twilio calls again when a response is lost: repeat the first response",
        ),
    })
}

/// Number of users who write at the same time.
const CONCURRENT_USERS: usize = 10;

async fn check_concurrent(bot: &mut AuditedBot, report: &mut Report) -> anyhow::Result<()> {
    const CHECK: &str = "concurrent";
    let forms = (0..CONCURRENT_USERS).map(|_| {
        let mut message = bot.message();
        message.body = Some("hello".to_owned());
        bot.form(&message, &[])
    });
    let forms = forms.collect();
    let outcomes = bot.post_all(CHECK, forms).await;
    let failed = outcomes.iter().find_map(|outcome| match outcome {
        ResponseOutcome::Failed(reason) => Some(reason),
        ResponseOutcome::Accepted { .. } => None,
    });
    let result = match failed {
        None => Ok(format!(
            "{CONCURRENT_USERS} users who write at the same time are answered"
        )),
        Some(reason) => Err((
            format!(
                "of {CONCURRENT_USERS} messages at the same time at least one is lost: {reason}"
            ),
            "Twilio sends messages of different users at the same time: do not handle them one after the other",
        )),
    };
    report.add(Finding::from_result(CHECK, result))
}
