//! The bot under test: requests to its webhooks, and what Twilio would do with the responses.

use std::time::Duration;

use anyhow::bail;
use http::{HeaderMap, HeaderValue, Method, Uri};
use replyhook::emulator::{
    SignedRequest, SignedRequestError, SignedResponse, SimulatedMessage, send_signed,
    send_unsigned, sender_for,
};
use replyhook::signature::{SIGNATURE_HEADER, SigningKey};
use replyhook::twiml::interpreter::{self, Verb};
use replyhook::{AccountSid, Address, FormParams};

/// Sender of an SMS bot, if no other is given.
const SMS_SENDER: &str = "+15550003333";

/// URL of a webhook, and the URL to sign if it differs.
#[derive(Clone)]
pub(super) struct AuditedUrl {
    url: String,
    signed_url: Option<String>,
    is_https: bool,
    is_loopback: bool,
}

impl AuditedUrl {
    pub(super) fn parse(url: &str, signed_url: Option<String>) -> anyhow::Result<Self> {
        let Ok(parsed) = url.parse::<Uri>() else {
            bail!("not a URL; write it as in http://localhost:3000/sms");
        };
        let (Some(scheme @ ("http" | "https")), Some(host)) = (parsed.scheme_str(), parsed.host())
        else {
            bail!("not an http or https URL; write it as in http://localhost:3000/sms");
        };
        let ip = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host.eq_ignore_ascii_case("localhost")
            || ip
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        Ok(Self {
            url: url.to_owned(),
            signed_url,
            is_https: scheme == "https",
            is_loopback,
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}

/// Use that Twilio makes of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResponseOutcome {
    /// It sends this number of messages to the user.
    Accepted { messages: usize },
    /// It cannot use the response, for this reason.
    Failed(String),
}

/// Signature of a request.
#[derive(Clone, Copy)]
pub(super) enum Signing<'a> {
    Correct,
    /// No signature header.
    Missing,
    /// The signature of other parameters.
    Of(&'a FormParams),
    /// A signature with another key.
    With(&'a SigningKey),
}

pub(super) struct AuditedBot {
    key: SigningKey,
    account: AccountSid,
    webhook: AuditedUrl,
    user: Option<Address>,
    sender: Option<String>,
    /// Number of invented users so far.
    users: u32,
    /// Name of the check, time, and faults of each response that Twilio can use.
    pub(super) responses: Vec<BotResponse>,
}

/// Properties of a response that matter in every check.
pub(super) struct BotResponse {
    pub(super) check: &'static str,
    pub(super) time: Duration,
    pub(super) faults: Vec<String>,
}

impl AuditedBot {
    pub(super) fn new(
        key: SigningKey,
        account: AccountSid,
        webhook: AuditedUrl,
        user: Option<Address>,
        sender: Option<String>,
    ) -> Self {
        Self {
            key,
            account,
            webhook,
            user,
            sender,
            users: 0,
            responses: Vec::new(),
        }
    }

    pub(super) fn webhook(&self) -> &AuditedUrl {
        &self.webhook
    }

    pub(super) fn account(&self) -> AccountSid {
        self.account
    }

    /// Returns a message of a WhatsApp user, or of the user of `--from`.
    pub(super) fn message(&mut self) -> SimulatedMessage {
        // Another user in each check, so that a rate limit or a dialogue of the bot does not disturb the next one.
        self.users += 1;
        let invented = format!("whatsapp:+1555010{:04}", self.users);
        let user = self.user.clone();
        self.message_of(&user.unwrap_or_else(|| Address::parse(invented)))
    }

    /// Returns a message of an SMS user.
    pub(super) fn sms(&mut self) -> SimulatedMessage {
        self.users += 1;
        let invented = format!("+1555020{:04}", self.users);
        let number = self.user.as_ref().map(|user| user.id().to_owned());
        self.message_of(&Address::parse(number.unwrap_or(invented)))
    }

    /// Returns a message of this user to the sender of `--to`, if that is on the same channel.
    pub(super) fn message_of(&self, user: &Address) -> SimulatedMessage {
        let own = self.sender.as_deref();
        let own = own.filter(|sender| Address::parse(*sender).channel() == user.channel());
        let mut message = SimulatedMessage::default();
        own.or_else(|| sender_for(user))
            .unwrap_or(SMS_SENDER)
            .clone_into(&mut message.to);
        user.as_str().clone_into(&mut message.from);
        message
    }

    /// Returns the parameters of a message, with some of them added or replaced.
    pub(super) fn form(
        &self,
        message: &SimulatedMessage,
        overrides: &[(&str, &str)],
    ) -> FormParams {
        let form = message.form(self.account);
        let is_kept = |name: &str| !overrides.iter().any(|(other, _)| *other == name);
        let kept = form.iter().filter(|(name, _)| is_kept(name));
        kept.chain(overrides.iter().copied()).collect()
    }

    /// Posts a form to the webhook, correctly signed.
    pub(super) async fn post(&mut self, check: &'static str, form: FormParams) -> ResponseOutcome {
        let webhook = self.webhook.clone();
        self.post_to(check, &webhook, form).await
    }

    /// Posts a form to another endpoint, correctly signed.
    pub(super) async fn post_to(
        &mut self,
        check: &'static str,
        endpoint: &AuditedUrl,
        form: FormParams,
    ) -> ResponseOutcome {
        let result = send(&self.key, endpoint, form, Signing::Correct).await;
        self.evaluate(check, result.as_ref())
    }

    /// Posts a form and also returns the response itself.
    pub(super) async fn exchange(
        &mut self,
        check: &'static str,
        form: FormParams,
        signing: Signing<'_>,
    ) -> (ResponseOutcome, Result<SignedResponse, SignedRequestError>) {
        let result = send(&self.key, &self.webhook, form, signing).await;
        // A response to a forged request says nothing about the bot's replies.
        let outcome = match signing {
            Signing::Correct => self.evaluate(check, result.as_ref()),
            _ => outcome(result.as_ref()).0,
        };
        (outcome, result)
    }

    /// Posts forms at the same time.
    pub(super) async fn post_all(
        &mut self,
        check: &'static str,
        forms: Vec<FormParams>,
    ) -> Vec<ResponseOutcome> {
        let mut requests = tokio::task::JoinSet::new();
        for form in forms {
            let (key, webhook) = (self.key.clone(), self.webhook.clone());
            requests.spawn(async move { send(&key, &webhook, form, Signing::Correct).await });
        }
        let results = requests.join_all().await;
        results
            .iter()
            .map(|result| self.evaluate(check, result.as_ref()))
            .collect()
    }

    /// Decides what Twilio does with a response, and notes its time and faults.
    fn evaluate(
        &mut self,
        check: &'static str,
        result: Result<&SignedResponse, &SignedRequestError>,
    ) -> ResponseOutcome {
        let (outcome, faults) = outcome(result);
        if let Ok(response) = result {
            self.responses.push(BotResponse {
                check,
                time: response.time,
                faults,
            });
        }
        outcome
    }
}

async fn send(
    key: &SigningKey,
    endpoint: &AuditedUrl,
    form: FormParams,
    signing: Signing<'_>,
) -> Result<SignedResponse, SignedRequestError> {
    let mut request = SignedRequest {
        url: endpoint.url.clone(),
        signed_url: endpoint.signed_url.clone(),
        method: Method::POST,
        form,
        headers: HeaderMap::new(),
    };
    match signing {
        Signing::Correct => send_signed(key, &request).await,
        Signing::Missing => send_unsigned(&request).await,
        Signing::With(other) => send_signed(other, &request).await,
        Signing::Of(signed_form) => {
            let url = endpoint.signed_url.as_deref().unwrap_or(&endpoint.url);
            let signature = key.sign(url, Some(signed_form))?;
            let signature =
                HeaderValue::try_from(signature).expect("base64 is a valid header value");
            request.headers.insert(SIGNATURE_HEADER, signature);
            send_signed(key, &request).await
        }
    }
}

/// Decides what Twilio does with a response. Also returns what it ignores or rejects in it.
fn outcome(result: Result<&SignedResponse, &SignedRequestError>) -> (ResponseOutcome, Vec<String>) {
    let response = match result {
        Ok(response) => response,
        Err(SignedRequestError::Failed { code, .. }) => {
            let reason = format!("no response: {} ({code})", code.meaning_or_link());
            return (ResponseOutcome::Failed(reason), Vec::new());
        }
        Err(error) => return (ResponseOutcome::Failed(error.to_string()), Vec::new()),
    };
    if let Some(code) = response.error_code {
        let reason = format!(
            "HTTP {}: {} ({code})",
            response.status,
            code.meaning_or_link()
        );
        return (ResponseOutcome::Failed(reason), Vec::new());
    }
    let content_type = response.content_type.as_deref().unwrap_or_default();
    if content_type.to_ascii_lowercase().starts_with("text/plain") {
        let messages = usize::from(!response.body.is_empty());
        return (ResponseOutcome::Accepted { messages }, Vec::new());
    }
    // An empty body is valid and has no messages.
    let verdict = interpreter::parse(response.body.as_bytes()).unwrap_or_default();
    let warnings = verdict.warnings.iter();
    let mut faults: Vec<String> = warnings
        .map(|(code, what)| format!("{what} ({code})"))
        .collect();
    let mut messages = 0;
    for verb in &verdict.verbs {
        let Verb::Message(message) = verb else {
            continue;
        };
        messages += 1;
        let length = message.body.chars().count();
        if length > MAX_TWIML_CHARACTERS {
            faults.push(format!(
                "a <Message> has {length} characters, of {MAX_TWIML_CHARACTERS} at most (21617)"
            ));
        }
        if message.body.trim().is_empty() && message.media.is_empty() {
            faults.push("a <Message> is empty (14103)".to_owned());
        }
    }
    (ResponseOutcome::Accepted { messages }, faults)
}

/// Maximum length of a message.
///
/// Source: twilio.com/docs/api/errors/21617.
const MAX_TWIML_CHARACTERS: usize = 1600;
