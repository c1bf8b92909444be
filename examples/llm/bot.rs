//! The language model's bot, for any endpoint with OpenAI's `POST {base}/chat/completions`.

use std::sync::Arc;
use std::time::Duration;

use replyhook::handler::Role;
use replyhook::{Context, Handler, HandlerError, InboundMessage, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Reply to a user whose daily token budget is used up.
pub(crate) const USED_UP: &str = "That is all I can answer today. Please write again tomorrow.";

pub(crate) struct Model {
    client: reqwest::Client,
    url: String,
    key: Secret,
    name: String,
    prompt: String,
    daily_tokens: u64,
    limit: &'static str,
}

/// Tokens that a user has used today. Stored as a state of the conversation.
#[derive(Default, Serialize, Deserialize)]
struct Budget {
    /// Days since 1970 (UTC).
    day: i64,
    tokens: u64,
}

/// Error of a request to the model.
// Its text is logged, so it contains neither what the user wrote nor what the model or the endpoint returned.
#[derive(Debug, thiserror::Error)]
enum ModelError {
    #[error("request to the model failed: {0}")]
    HttpError(reqwest::Error),
    #[error("the model returned status {status} ({code})")]
    Status { status: u16, code: String },
    #[error("the model's response is not a chat completion")]
    NotUnderstood,
}

/// Parses `LLM_DAILY_TOKENS`.
///
/// # Errors
/// A text for the operator, if the value is not a whole number.
pub(crate) fn daily_tokens(value: &str) -> Result<u64, String> {
    let not_a_number = |_| {
        format!(
            "invalid LLM_DAILY_TOKENS `{value}`; expected a whole number of tokens, such as 50000"
        )
    };
    value.trim().parse().map_err(not_a_number)
}

/// Parses `LLM_LIMIT`: the name of the parameter that limits the tokens of a response.
///
/// OpenAI's newer models reject `max_tokens`. Other endpoints do not know `max_completion_tokens`.
///
/// # Errors
/// A text for the operator, if the value is another name.
pub(crate) fn limit(value: &str) -> Result<&'static str, String> {
    let names = ["max_tokens", "max_completion_tokens"];
    let name = names.into_iter().find(|name| *name == value.trim());
    name.ok_or_else(|| {
        format!(
            "invalid LLM_LIMIT `{value}`; expected {} or {}",
            names[0], names[1]
        )
    })
}

/// Returns the code of an endpoint's error, or else its type.
// Never its message, which may quote the request, and so the user.
fn error_code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let names = ["code", "type"].map(|key| body["error"][key].as_str().unwrap_or_default());
    // An endpoint could put a text into these fields too. A name has no spaces, and is short.
    let is_name = |name: &&str| {
        let mut bytes = name.bytes();
        (1..=40).contains(&name.len())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let name = names.into_iter().find(is_name);
    name.unwrap_or("no code").to_owned()
}

impl Model {
    pub(crate) fn new(base: &str, key: &str, name: &str, prompt: &str, daily_tokens: u64) -> Self {
        // Cargo.toml enables reqwest with `rustls-no-provider`, so the TLS provider must be installed first. An error
        // means that one is installed already. With reqwest's default features this line is not needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            // Below the default of `handler.timeout_ms`, 120 s: the attempt fails with an error that names the cause,
            // before the handler is canceled without one.
            .timeout(Duration::from_secs(100));
        Self {
            client: client.build().expect("TLS has a provider"),
            url: format!("{}/chat/completions", base.trim_end_matches('/')),
            key: Secret::new(key),
            name: name.to_owned(),
            prompt: prompt.to_owned(),
            daily_tokens,
            limit: "max_tokens",
        }
    }

    /// Sets the name of the parameter that limits a response, as returned by [`limit`].
    pub(crate) fn limited_by(mut self, limit: &'static str) -> Self {
        self.limit = limit;
        self
    }

    /// Requests a completion. Returns its text, and the number of tokens that the request and the response took.
    async fn complete(&self, messages: &[Value]) -> Result<(String, u64), ModelError> {
        let request = json!({"model": self.name, "messages": messages, self.limit: 500});
        // The base URL may contain a secret, and the error is logged.
        let failed = |error: reqwest::Error| ModelError::HttpError(error.without_url());
        let call = self.client.post(&self.url);
        let mut call = call
            .header("Content-Type", "application/json")
            .body(request.to_string());
        // Local endpoints such as Ollama need no key.
        if !self.key.expose().is_empty() {
            call = call.bearer_auth(self.key.expose());
        }
        let response = call.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        if !status.is_success() {
            return Err(ModelError::Status {
                status: status.as_u16(),
                code: error_code(&body),
            });
        }
        let completion: Value =
            serde_json::from_slice(&body).map_err(|_| ModelError::NotUnderstood)?;
        let text = completion["choices"][0]["message"]["content"].as_str();
        let text = text.ok_or(ModelError::NotUnderstood)?.trim().to_owned();
        // Some endpoints report no usage. Without an estimate, four bytes per token, their users would have no limit.
        let guessed = (request.to_string().len() + text.len()) as u64 / 4;
        let tokens = completion["usage"]["total_tokens"].as_u64();
        Ok((text, tokens.unwrap_or(guessed)))
    }

    async fn reply_to(&self, cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
        // A picture, a location or a tapped button without text. It does not use the budget.
        let Some(text) = message.text() else {
            return Ok("I can read texts only.".to_owned());
        };
        // Messages of a conversation are handled one after the other, so no other message changes the budget between
        // `load` and `save`.
        let state = cx.state_named::<Budget>("budget");
        let mut budget = state.load().await?;
        let today = message.received_at.as_second().div_euclid(86_400);
        if budget.day != today {
            budget = Budget {
                day: today,
                tokens: 0,
            };
        }
        if budget.tokens >= self.daily_tokens {
            return Ok(USED_UP.to_owned());
        }
        // The user's texts get the role `user` only. In the system prompt they could change the bot's instructions.
        let mut messages = vec![json!({"role": "system", "content": self.prompt})];
        messages.extend(
            cx.history(20)
                .await?
                .into_iter()
                .map(|entry| match entry.role {
                    Role::User => json!({"role": "user", "content": entry.text}),
                    Role::Bot => json!({"role": "assistant", "content": entry.text}),
                }),
        );
        // The history ends before this message.
        messages.push(json!({"role": "user", "content": text}));
        let (reply, tokens) = self.complete(&messages).await.map_err(HandlerError::new)?;
        budget.tokens = budget.tokens.saturating_add(tokens);
        // Saved together with the reply: a failed attempt uses no budget.
        state.save(&budget).await?;
        Ok(reply)
    }
}

pub(crate) fn bot(model: Model) -> impl Handler + Clone {
    let model = Arc::new(model);
    move |cx: Context, message: InboundMessage| {
        let model = model.clone();
        async move { model.reply_to(cx, message).await }
    }
}
