//! An appointment bot with choices, as in the tutorial: `cargo run --example choices dev`.

use replyhook::choice::Choice;
use replyhook::config::Sources;
use replyhook::dialogue::{Form, Question};
use replyhook::route::{Router, text};
use replyhook::{App, AppError, DevServer, DevServerOptions, Handler, Reply, ReplyMessage};
use serde::Deserialize;

const HINT: &str = "Please answer with one of the choices, or write never mind.";

#[derive(Deserialize)]
struct Appointment {
    what: String,
    day: String,
    sure: Sure,
}

#[derive(Deserialize)]
enum Sure {
    Confirm,
    #[serde(rename = "Not now")]
    NotNow,
}

pub(crate) fn bot() -> impl Handler {
    let day = |title, hours| Choice::new(title, title).description(hours);
    let days = [
        day("Tuesday", "9 am to 1 pm"),
        day("Wednesday", "9 am to 6 pm"),
        day("Thursday", "2 pm to 8 pm"),
        day("Friday", "9 am to 6 pm"),
        day("Saturday", "9 am to noon"),
    ];
    let what = Question::new("What shall we do?").choices(["Haircut", "Beard trim", "Both"]);
    let which_day = ReplyMessage::text("Which day?").choices_button("Days");
    let sure = Question::with(|answers| {
        let what: String = answers.of("what").unwrap_or_default();
        let day: String = answers.of("day").unwrap_or_default();
        Reply::text(format!("{what} on {day}: is that right?"))
    });
    let form = Form::new("appointment")
        .ask("what", what.hint(HINT))
        .ask("day", Question::new(which_day).choices(days).hint(HINT))
        .ask("sure", sure.choices(["Confirm", "Not now"]).hint(HINT))
        .cancel("never mind", "Maybe another time.")
        .done(|_cx, booked: Appointment| async move {
            match booked.sure {
                Sure::Confirm => format!("Booked: {} on {}.", booked.what, booked.day),
                Sure::NotNow => "Nothing is booked.".to_owned(),
            }
        });
    Router::new()
        .form(text("book"), form)
        .otherwise("Write book for an appointment.")
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is printed for the user")]
async fn main() -> Result<(), AppError> {
    let builder = App::builder().handler(bot());
    if std::env::args().nth(1).as_deref() == Some("dev") {
        let options = DevServerOptions::default();
        let mut server = DevServer::start(builder, Sources::from_env(), options).await?;
        println!("Chat with your bot: {}/", server.emulator().url());
        return server.wait().await;
    }
    builder.build()?.run().await
}

#[cfg(test)]
mod tests {
    use replyhook::App;
    use replyhook::testing::TestBot;

    #[tokio::test]
    async fn tap_number_and_title_book_an_appointment() {
        let bot = TestBot::start(|| App::builder().handler(super::bot())).await;
        for ana in [bot.whatsapp("+34600000001"), bot.sms("+34600000002")] {
            ana.says("book")
                .await
                .assert_choices(["Haircut", "Beard trim", "Both"]);
            ana.taps("Beard trim")
                .await
                .assert_reply_contains("Which day?");
            ana.says("3").await.assert_choices(["Confirm", "Not now"]);
            ana.says("confirm, please")
                .await
                .assert_reply("Booked: Beard trim on Thursday.");
        }
    }
}
