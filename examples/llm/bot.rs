//! The bot itself, against any endpoint that speaks OpenAI's `POST {base}/chat/completions`.

use std::sync::Arc;
use std::time::Duration;

use replyhook::handler::Speaker;
use replyhook::{Context, Handler, HandlerError, InboundMessage, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a user reads who has had the day's share.
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

/// What a user has had, kept with the conversation.
#[derive(Default, Serialize, Deserialize)]
struct Budget {
    /// Since 1970.
    day: i64,
    tokens: u64,
}

/// Why there is no answer. Nothing of it says what anybody wrote.
#[derive(Debug, thiserror::Error)]
enum ModelError {
    #[error("the model cannot be asked: {0}")]
    NoAnswer(reqwest::Error),
    #[error("the model answered {status} ({code})")]
    Status { status: u16, code: String },
    #[error("the model's answer is no chat completion")]
    NotUnderstood,
}

/// `LLM_DAILY_TOKENS`.
pub(crate) fn daily_tokens(value: &str) -> Result<u64, String> {
    let not_a_number = |_| "LLM_DAILY_TOKENS is no whole number of tokens, as in 50000".to_owned();
    value.trim().parse().map_err(not_a_number)
}

/// `LLM_LIMIT`: under which name an endpoint takes how many tokens an answer may have. OpenAI's newer models refuse the
/// first, and not everybody knows the second.
pub(crate) fn limit(value: &str) -> Result<&'static str, String> {
    let names = ["max_tokens", "max_completion_tokens"];
    let name = names.into_iter().find(|name| *name == value.trim());
    name.ok_or_else(|| format!("LLM_LIMIT is neither {} nor {}", names[0], names[1]))
}

/// What an endpoint calls an error: its code, or its type. Never its text, which may quote what was asked.
fn error_code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let names = ["code", "type"].map(|key| body["error"][key].as_str().unwrap_or_default());
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
        // With reqwest's own features this is not needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
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

    /// With what [`limit`] has read.
    pub(crate) fn limited_by(mut self, limit: &'static str) -> Self {
        self.limit = limit;
        self
    }

    /// What the model says, and how many tokens that took.
    async fn complete(&self, messages: &[Value]) -> Result<(String, u64), ModelError> {
        let request = json!({"model": self.name, "messages": messages, self.limit: 500});
        let failed = |error: reqwest::Error| ModelError::NoAnswer(error.without_url());
        let mut call = self.client.post(&self.url).json(&request);
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
        let answer: Value = serde_json::from_slice(&body).map_err(|_| ModelError::NotUnderstood)?;
        let text = answer["choices"][0]["message"]["content"].as_str();
        let text = text.ok_or(ModelError::NotUnderstood)?.trim().to_owned();
        // Where nobody counts, about four letters are a token.
        let guessed = (request.to_string().len() + text.len()) as u64 / 4;
        let tokens = answer["usage"]["total_tokens"].as_u64();
        Ok((text, tokens.unwrap_or(guessed)))
    }

    async fn answer(&self, cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
        let Some(text) = message.text() else {
            return Ok("I can read texts only.".to_owned());
        };
        let kept = cx.state_named::<Budget>("budget");
        let mut budget = kept.load().await?;
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
        // Whatever a user writes, it is never more than a user's message.
        let mut messages = vec![json!({"role": "system", "content": self.prompt})];
        messages.extend(cx.history(20).await?.into_iter().map(|said| match said.by {
            Speaker::User => json!({"role": "user", "content": said.text}),
            Speaker::Bot => json!({"role": "assistant", "content": said.text}),
        }));
        messages.push(json!({"role": "user", "content": text}));
        let (answer, tokens) = self.complete(&messages).await.map_err(HandlerError::new)?;
        budget.tokens = budget.tokens.saturating_add(tokens);
        kept.save(&budget).await?;
        Ok(answer)
    }
}

pub(crate) fn bot(model: Model) -> impl Handler + Clone {
    let model = Arc::new(model);
    move |cx: Context, message: InboundMessage| {
        let model = model.clone();
        async move { model.answer(cx, message).await }
    }
}
