//! The programs in `examples/`: their bots in the test kit, and their servers in process.

#[path = "../../examples/appointment.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod appointment;
#[path = "../../examples/mounted.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod mounted;
#[path = "../../examples/order_status.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod order_status;
#[path = "../../examples/photo_receipt.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod photo_receipt;
#[path = "../../examples/reminders.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod reminders;
#[path = "../../examples/several_senders.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod several_senders;
#[path = "../../examples/shop_finder.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod shop_finder;
#[path = "../../examples/verify_only.rs"]
#[expect(dead_code, reason = "no test calls its main")]
mod verify_only;

use std::time::Duration;

use http::Request;
use replyhook::App;
use replyhook::outbound::SendErrorKind;
use replyhook::testing::TestBot;

use crate::support::{
    ACCOUNT, ORIGIN, RawServer, TOKEN, TestApp, Webhook, app, root, twiml_message,
};

#[tokio::test]
async fn order_status_accepts_every_order_number_format() {
    let bot = TestBot::start(|| App::builder().handler(order_status::bot())).await;
    let ana = bot.whatsapp("+34600000001");
    for text in ["order 42", "Order 42", "#42", "42", "/order 42"] {
        ana.says(text).await.assert_reply("Order 42 leaves today.");
    }
    ana.says("order 7")
        .await
        .assert_reply("There is no order 7.");
    for text in ["where is it?", "99999999999", "/order mine"] {
        ana.says(text)
            .await
            .assert_reply("Write your order's number, such as: order 42");
    }
}

#[tokio::test]
async fn appointment_repeats_question_until_valid_answer_across_restart() {
    let bot = TestBot::start(|| App::builder().handler(appointment::bot())).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("I want to book")
        .await
        .assert_reply("1 a cut, or 2 a shave?");
    ana.says("1").await.assert_reply("Which day?");
    bot.restart().await;
    for (text, reply) in [
        ("Christmas Eve", "A day such as 2026-12-24, please."),
        ("2026-12-24", "In the morning?"),
        ("yes", "Your cut: Thursday, 24 December, 09:00."),
        ("yes", "Write *book* for an appointment."),
        ("book", "1 a cut, or 2 a shave?"),
        ("Never mind", "Maybe another time."),
    ] {
        ana.says(text).await.assert_reply(reply);
    }
}

// On SMS Twilio treats CANCEL, END and QUIT as an opt-out. Canceling a form must not opt the user out.
#[tokio::test]
async fn appointment_canceled_by_sms_keeps_user_opted_in() {
    let bot = TestBot::start(|| App::builder().handler(appointment::bot())).await;
    let ben = bot.sms("+15550004444");
    for _ in 0..2 {
        ben.says("book")
            .await
            .assert_reply("1 a cut, or 2 a shave?");
        ben.says("never mind")
            .await
            .assert_reply("Maybe another time.");
    }
}

// The file name that a user sends could be a path outside the folder.
#[tokio::test]
async fn photo_receipt_saves_photo_under_generated_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let bot =
        TestBot::start(move || App::builder().handler(photo_receipt::bot(path.clone()))).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("here")
        .await
        .assert_reply("Send a photo of your receipt.");
    let photo = std::fs::read(root().join("tests/it/picture.png")).unwrap();
    let thanks = format!("Got it: {} bytes.", photo.len());
    ana.sends_file("image/png", &photo, "../../etc/passwd")
        .await
        .assert_reply(&thanks);
    let kept: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    let [kept] = &kept[..] else {
        panic!("{kept:?}")
    };
    assert_eq!(std::fs::read(kept.as_ref().unwrap().path()).unwrap(), photo);
    ana.sends_file("image/png", b"%PDF-1.4", "")
        .await
        .assert_reply("That is not a photo I can read.");
}

#[tokio::test]
async fn photo_receipt_replies_when_download_fails() {
    let storage = RawServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let api = [("REPLYHOOK__TWILIO__API_URL", storage.url())];
    let app = TestApp::build(&api, |app| {
        app.handler(photo_receipt::bot(folder.path().to_owned()))
    });
    let (sid, file) = (format!("MM{:032x}", 1), format!("ME{:032x}", 1));
    let at = format!("GET /2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}/Media/{file}");
    storage.queue_response(&at, 403, &[], b"");
    let photo = Webhook::message(1, "my receipt")
        .with("MessageSid", &sid)
        .with("NumMedia", "1")
        .with("MediaUrl0", &format!("https://api.twilio.com/{file}"))
        .with("MediaContentType0", "image/jpeg");
    assert_eq!(
        app.send(photo).await.twiml(),
        twiml_message("Your photo did not reach me. Please send it once more.")
    );
    assert_eq!(storage.request_lines(), [at]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn shop_finder_names_nearest_shop_and_distance() {
    let bot = TestBot::start(|| App::builder().handler(shop_finder::bot())).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("where are you?")
        .await
        .assert_reply("Share your location, and I find the nearest shop.");
    // The locations are Toledo and Girona.
    ana.shares(39.8628, -4.0273, "")
        .await
        .assert_reply("Gran Vía 1, Madrid: 68 km from you.");
    ana.shares(41.9794, 2.8214, "")
        .await
        .assert_reply("Rambla 7, Barcelona: 86 km from you.");
}

#[tokio::test]
async fn several_senders_are_several_bots() {
    let bot = TestBot::start(|| App::builder().handler(several_senders::bot())).await;
    let to_the_shop = bot.whatsapp("+34600000001");
    let to_the_repairs = bot.sms("+34600000001");
    for (text, shop, repairs) in [
        (
            "Hours",
            "We sell from nine to six.",
            "We repair from seven to three.",
        ),
        (
            "hi",
            "Ana's bicycles. Write *hours*.",
            "Ana's repairs. Write *hours*.",
        ),
    ] {
        to_the_shop.says(text).await.assert_reply(shop);
        to_the_repairs.says(text).await.assert_reply(repairs);
    }
}

#[tokio::test]
async fn reminders_are_sent_once_and_only_with_consent() {
    let bot = TestBot::start(|| App::builder().handler(reminders::bot())).await;
    let ana = bot.whatsapp("+15550001111");
    let appointment = |number| reminders::Appointment {
        number,
        who: "whatsapp:+15550001111",
        time: "12:00",
    };
    let outbound = bot.outbound().await;
    let rejected = reminders::remind(&outbound, &appointment(1)).await;
    assert_eq!(rejected.unwrap_err().kind(), SendErrorKind::NoOptIn);
    ana.says("Tomorrow at twelve, please.")
        .await
        .assert_reply("See you then!");
    let first = reminders::remind(&outbound, &appointment(1)).await.unwrap();
    bot.send_result(&first).await.assert_delivered();
    bot.restart().await;
    bot.advance(Duration::from_hours(1)).await;
    let outbound = bot.outbound().await;
    let again = reminders::remind(&outbound, &appointment(1)).await.unwrap();
    assert!(again.is_duplicate);
    assert_eq!((again.id, again.sid.is_some()), (first.id, true));
    ana.says("STOP").await;
    let unwanted = reminders::remind(&outbound, &appointment(2)).await;
    assert_eq!(unwanted.unwrap_err().kind(), SendErrorKind::OptedOut);
}

#[tokio::test]
async fn mounted_serves_page_and_webhooks() {
    let test = TestApp::with(mounted::bot);
    test.wait_until_ready().await;
    let site = mounted::site(test.router.clone());
    let page = Request::get("/").body(axum::body::Body::empty()).unwrap();
    assert_eq!(app::call_router(&site, page).await.body, "Ana's bicycles");
    let answer = app::call_router(&site, Webhook::message(1, "hi").request()).await;
    assert_eq!(answer.twiml(), twiml_message("You said: hi"));
    test.shut_down().await;
}

#[tokio::test]
async fn verify_only_accepts_only_twilio_signature() {
    let router = verify_only::app(ORIGIN, TOKEN).unwrap();
    let sms = || Webhook::message(1, "1 < 2").to("/sms");
    let answer = app::call_router(&router, sms().request()).await;
    assert_eq!(answer.twiml(), twiml_message("You said: 1 &lt; 2"));
    let forged = sms().token("fedcba9876543210fedcba9876543210");
    app::call_router(&router, forged.request())
        .await
        .assert_rejected(403);
}
