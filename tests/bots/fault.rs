//! Bot of the fault tests. The text of a message selects the behavior and is the reply. `sign up` starts a form.

use std::io::Write;
use std::time::Duration;

use replyhook::dialogue::{Form, Question};
use replyhook::route::{Router, anything, text};
use replyhook::{App, AppError, Context, InboundMessage, Media, Reply};
use serde::Deserialize;

/// Waits for `slow MS …`, never returns on the first attempt of `hang …`, fails for `fail …`, panics for `panic …`,
/// sends a picture for `picture`, and asks `ask …` with two choices, whose answer it repeats. Any other text is echoed
/// immediately.
async fn bot(cx: Context, message: InboundMessage) -> Result<Reply, &'static str> {
    if let Some(chosen) = message.choice().filter(|chosen| chosen.current) {
        return Ok(Reply::text(format!("{} it is", chosen.id)));
    }
    let mut words = message.body.split(' ');
    match words.next() {
        Some("slow") => {
            let pause = words.next().and_then(|pause| pause.parse().ok());
            tokio::time::sleep(Duration::from_millis(pause.unwrap_or_default())).await;
        }
        Some("hang") if cx.attempt() == 1 => std::future::pending().await,
        Some("fail") => return Err("failed on request"),
        // With private data, which must not reach the log.
        Some("panic") => panic!("{} wrote: {}", message.from.as_str(), message.body),
        Some("ask") => return Ok(Reply::text(message.body).choices(["Today", "Tomorrow"])),
        Some("picture") => return Ok(Reply::media(Media::bytes(*b"\x89PNG", "image/png"))),
        _ => {}
    }
    Ok(Reply::text(message.body))
}

#[derive(Deserialize)]
struct Signup {
    name: String,
    age: u8,
}

#[tokio::main]
async fn main() {
    // With `-> Result<(), AppError>` every error would end with exit code 1.
    if let Err(error) = run().await {
        let _ = writeln!(std::io::stderr(), "{error}");
        std::process::exit(error.exit_code().into());
    }
}

async fn run() -> Result<(), AppError> {
    let signup = Form::new("signup")
        .ask("name", "Your name?")
        .ask("age", Question::new("Your age?").parse::<u8>())
        .done(|_cx, signup: Signup| async move { format!("{} is {}.", signup.name, signup.age) });
    let bot = Router::new()
        .form(text("sign up"), signup)
        .on_handler(anything(), bot);
    App::builder().handler(bot).build()?.run().await
}
