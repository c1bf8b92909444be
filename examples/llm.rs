//! A bot that replies with a language model. It sends the conversation's history, and limits the tokens of each user.
//!
//! `docs/src/how-to/llm.md` describes its variables and techniques.
//!
//! `LLM_URL=http://localhost:11434/v1 LLM_MODEL=llama3.2 cargo run --example llm`

// The bot has its own file, so that a test can include it without this `main`.
#[path = "llm/bot.rs"]
mod bot;

use std::error::Error;

use replyhook::App;

/// Reads a setting of this example; replyhook reads its own settings itself.
#[expect(
    clippy::disallowed_methods,
    reason = "the example shows which settings it reads"
)]
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let model = bot::Model::new(
        &setting("LLM_URL", "http://localhost:11434/v1"),
        &setting("LLM_KEY", ""),
        &setting("LLM_MODEL", "llama3.2"),
        &setting("LLM_PROMPT", "You answer a shop's customers, briefly."),
        bot::daily_tokens(&setting("LLM_DAILY_TOKENS", "50000"))?,
    );
    let model = model.limited_by(bot::limit(&setting("LLM_LIMIT", "max_tokens"))?);
    App::builder()
        .handler(bot::bot(model))
        .build()?
        .run()
        .await?;
    Ok(())
}
