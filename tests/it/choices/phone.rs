//! Choices on the emulated phone: the same conversation on every channel.

use replyhook::choice::Chosen;
use replyhook::dialogue::{Answers, Form, Question};
use replyhook::route::{Router, any_choice, choice, text};
use replyhook::testing::TestBot;
use replyhook::{App, Handler, Reply};

const DAYS: [&str; 3] = ["Today", "Tomorrow", "Another day"];
const HOURS: [&str; 5] = ["9 am", "10 am", "11 am", "2 pm", "3 pm"];

async fn old_or_later(chosen: Chosen) -> String {
    let is_open = if chosen.current { "open" } else { "over" };
    format!("{} ({is_open})", chosen.id)
}

fn bot() -> impl Handler {
    let visit = Form::new("visit")
        .ask("day", Question::new("Which day?").choices(DAYS))
        .ask("hour", Question::new("Which hour?").choices(HOURS))
        .done(|_cx, answers: Answers| async move {
            let answer = |field: &str| answers.of::<String>(field).unwrap_or_default();
            format!("{} at {}.", answer("day"), answer("hour"))
        });
    Router::new()
        .form(text("book"), visit)
        .on(text("hi"), Reply::text("When?").choices(DAYS))
        .on(choice("today"), "Before 6 pm.")
        .on(any_choice(), old_or_later)
        .otherwise("What?")
}

#[tokio::test(flavor = "multi_thread")]
async fn conversation_is_the_same_on_every_channel() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    for address in [
        "whatsapp:+34600000001",
        "rcs:+34600000002",
        "messenger:34600000003",
        "+34600000004",
    ] {
        let ana = bot.user(address);
        ana.says("hi").await.assert_choices(DAYS);
        ana.taps("Today").await.assert_reply("Before 6 pm.");
        ana.says("hi").await.assert_choices(DAYS);
        ana.says("another day, please")
            .await
            .assert_reply("Another day (open)");
        ana.says("2").await.assert_reply("What?");
        ana.says("book").await.assert_choices(DAYS);
        ana.taps("Tomorrow").await.assert_choices(HOURS);
        ana.says("2pm").await.assert_reply("Tomorrow at 2 pm.");
    }
}

// The bot sees that a tapped question is over. On SMS the same tap is a typed number, which is an ordinary text then.
#[tokio::test(flavor = "multi_thread")]
async fn button_of_old_question_is_known_as_such() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await.assert_choices(DAYS);
    ana.taps("Another day")
        .await
        .assert_reply("Another day (open)");
    ana.taps("Tomorrow").await.assert_reply("Tomorrow (over)");
    let ben = bot.sms("+34600000002");
    ben.says("hi").await.assert_choices(DAYS);
    ben.taps("Another day")
        .await
        .assert_reply("Another day (open)");
    ben.taps("Tomorrow").await.assert_reply("What?");
}
