//! Senders at Twilio with their webhooks: WhatsApp senders, phone numbers and Messaging Services.

use replyhook::Address;
use replyhook::config::SenderWebhookSettings;
use replyhook::twilio::{
    Client, ConfiguredWebhooks, Credentials, MessagingService, PhoneNumber, RestError,
    RestErrorKind, WebhookMethods, WhatsAppSender,
};
use replyhook::{AccountSid, Channel};

use crate::exit::Failed;
use crate::operator::parse_address;

/// A sender, by its SID or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SenderId {
    Sid(SenderKind, String),
    Address(SenderKind, Address),
}

/// Kinds of senders, which Twilio configures by different resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SenderKind {
    WhatsApp,
    Number,
    Service,
}

impl SenderKind {
    const ALL: [Self; 3] = [Self::WhatsApp, Self::Number, Self::Service];

    /// Returns the HTTP methods that webhooks of such a sender may have.
    pub(crate) fn methods(self) -> &'static [&'static str] {
        match self {
            Self::WhatsApp => &["POST", "PUT"],
            Self::Number | Self::Service => &["GET", "POST"],
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::WhatsApp => "WhatsApp sender",
            Self::Number => "phone number",
            Self::Service => "Messaging Service",
        }
    }
}

impl SenderId {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let kinds = [
            ("XE", SenderKind::WhatsApp),
            ("PN", SenderKind::Number),
            ("MG", SenderKind::Service),
        ];
        for (prefix, kind) in kinds {
            let digits = text.strip_prefix(prefix);
            if digits.is_some_and(|digits| {
                digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            }) {
                return Ok(Self::Sid(kind, text.to_owned()));
            }
        }
        let address = parse_address(text)?;
        let kind = match address.channel() {
            Channel::WhatsApp => SenderKind::WhatsApp,
            Channel::Sms => SenderKind::Number,
            _ => {
                return Err(
                    "the webhooks of senders on this channel are set in Twilio's console only; write whatsapp:+…, +…, XE…, \
                     PN… or MG…",
                );
            }
        };
        Ok(Self::Address(kind, address))
    }

    fn kind(&self) -> SenderKind {
        match self {
            Self::Sid(kind, _) | Self::Address(kind, _) => *kind,
        }
    }

    fn matches(&self, sender: &ConfiguredSender) -> bool {
        match self {
            Self::Sid(_, sid) => *sid == sender.sid,
            Self::Address(_, address) => sender.address.as_ref() == Some(address),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Sid(_, sid) => sid,
            Self::Address(_, address) => address.as_str(),
        }
    }
}

/// A sender with the webhooks that Twilio has.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredSender {
    pub(crate) kind: SenderKind,
    pub(crate) sid: String,
    /// `None` for a Messaging Service.
    pub(crate) address: Option<Address>,
    /// Status and reasons, quality and limit, or the name of a service, one per line.
    pub(crate) details: Vec<String>,
    /// Status of a WhatsApp sender; empty for others.
    pub(crate) status: String,
    /// The status callback of a number is that of calls, and is not among these.
    pub(crate) webhooks: ConfiguredWebhooks,
    pub(crate) methods: WebhookMethods,
    /// TwiML application whose webhooks Twilio calls in place of the number's.
    application_sid: Option<String>,
    /// The webhooks of the numbers in the service are called in place of the service's.
    pub(crate) uses_number_webhooks: bool,
}

impl ConfiguredSender {
    /// Returns the address, or the SID of a service, as commands accept it.
    pub(crate) fn name(&self) -> &str {
        self.address.as_ref().map_or(&self.sid, Address::as_str)
    }

    /// Returns the webhooks that this sender has, of those that a server wants.
    pub(crate) fn applicable(&self, wanted: &ConfiguredWebhooks) -> ConfiguredWebhooks {
        let mut webhooks = wanted.clone();
        if self.kind == SenderKind::Number {
            webhooks.status = None;
        }
        webhooks
    }

    /// Returns the name and the webhook of each endpoint that this kind of sender has.
    pub(crate) fn endpoints(&self) -> Vec<(&'static str, Option<&str>, &str)> {
        let (webhooks, methods) = (&self.webhooks, &self.methods);
        let mut endpoints = vec![
            (
                "webhook",
                webhooks.inbound.as_deref(),
                methods.inbound.as_str(),
            ),
            (
                "fallback",
                webhooks.fallback.as_deref(),
                methods.fallback.as_str(),
            ),
        ];
        if self.kind != SenderKind::Number {
            let status = (webhooks.status.as_deref(), methods.status.as_str());
            endpoints.push(("status callback", status.0, status.1));
        }
        endpoints
    }
}

impl From<WhatsAppSender> for ConfiguredSender {
    fn from(sender: WhatsAppSender) -> Self {
        let reasons = sender.offline_reasons.iter().map(|reason| {
            let text = format!("offline: {} ({})", reason.message, reason.code);
            text.replace(" ()", "")
        });
        let mut details: Vec<_> = reasons.collect();
        let quality = sender
            .quality_rating
            .map(|rating| format!("quality: {rating}"));
        let limit = sender
            .messaging_limit
            .map(|limit| format!("limit: {limit}"));
        details.extend(quality.into_iter().chain(limit));
        Self {
            kind: SenderKind::WhatsApp,
            sid: sender.sid,
            address: Some(sender.address),
            details,
            status: sender.status,
            webhooks: sender.webhooks,
            methods: sender.methods,
            application_sid: None,
            uses_number_webhooks: false,
        }
    }
}

impl From<PhoneNumber> for ConfiguredSender {
    fn from(number: PhoneNumber) -> Self {
        let application = number.application_sid.as_ref();
        let details = application.map(|application| {
            format!("the application {application} is called in place of these webhooks")
        });
        Self {
            kind: SenderKind::Number,
            sid: number.sid,
            address: Some(number.number),
            details: details.into_iter().collect(),
            status: String::new(),
            webhooks: ConfiguredWebhooks::new(
                number.webhooks.inbound,
                number.webhooks.fallback,
                None,
            ),
            methods: number.methods,
            application_sid: number.application_sid,
            uses_number_webhooks: false,
        }
    }
}

impl From<MessagingService> for ConfiguredSender {
    fn from(service: MessagingService) -> Self {
        let mut details = vec![service.friendly_name];
        if service.uses_inbound_webhook_on_number {
            details.push("the webhooks of its numbers are called in place of these".to_owned());
        }
        Self {
            kind: SenderKind::Service,
            sid: service.sid,
            address: None,
            details,
            status: String::new(),
            webhooks: service.webhooks,
            methods: service.methods,
            application_sid: None,
            uses_number_webhooks: service.uses_inbound_webhook_on_number,
        }
    }
}

/// Client for the webhooks of an account's senders.
pub(crate) struct SendersClient {
    api: Client,
    messaging: Client,
    account: AccountSid,
    credentials: Credentials,
}

impl SendersClient {
    pub(crate) fn new(settings: SenderWebhookSettings) -> Self {
        Self {
            api: Client::new(settings.api_url),
            messaging: Client::new(settings.messaging_url),
            account: settings.account,
            credentials: settings.credentials,
        }
    }

    /// Lists the senders of all kinds, and names the kinds that the credentials may not read.
    pub(crate) async fn list_all(&self) -> Result<(Vec<ConfiguredSender>, Vec<String>), Failed> {
        let (mut senders, mut unreadable) = (Vec::new(), Vec::new());
        for kind in SenderKind::ALL {
            match self.list(kind).await {
                Ok(found) => senders.extend(found),
                Err(error) if is_forbidden(&error) => {
                    unreadable.push(format!("could not read the {}s: {error}", kind.noun()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((senders, unreadable))
    }

    async fn list(&self, kind: SenderKind) -> Result<Vec<ConfiguredSender>, RestError> {
        let credentials = &self.credentials;
        Ok(match kind {
            SenderKind::WhatsApp => {
                let senders = self.messaging.channels_senders(credentials).list().await?;
                senders.into_iter().map(Into::into).collect()
            }
            SenderKind::Number => {
                let numbers = self.api.incoming_phone_numbers(self.account, credentials);
                numbers.list().await?.into_iter().map(Into::into).collect()
            }
            SenderKind::Service => {
                let services = self.messaging.services(credentials).list().await?;
                services.into_iter().map(Into::into).collect()
            }
        })
    }

    /// Returns the senders with these ids, in the same order.
    ///
    /// # Errors
    /// If Twilio's list cannot be read, or lacks one of them.
    pub(crate) async fn find(&self, ids: &[SenderId]) -> Result<Vec<ConfiguredSender>, Failed> {
        let mut lists = Vec::new();
        for kind in SenderKind::ALL {
            if ids.iter().any(|id| id.kind() == kind) {
                lists.push((kind, self.list(kind).await?));
            }
        }
        let find = |id: &SenderId| {
            let of_kind = lists.iter().find(|(kind, _)| *kind == id.kind());
            let senders = of_kind.map_or(&[][..], |(_, senders)| senders);
            let sender = senders.iter().find(|sender| id.matches(sender));
            sender.cloned().ok_or_else(|| unknown_sender(id, senders))
        };
        ids.iter().map(find).collect()
    }

    /// Fetches a sender's current state from Twilio.
    #[cfg(feature = "emulator")]
    pub(crate) async fn fetch(
        &self,
        sender: &ConfiguredSender,
    ) -> Result<ConfiguredSender, Failed> {
        let (credentials, sid) = (&self.credentials, sender.sid.as_str());
        Ok(match sender.kind {
            SenderKind::WhatsApp => {
                let senders = self.messaging.channels_senders(credentials);
                senders.fetch(sid).await?.into()
            }
            SenderKind::Number => {
                let numbers = self.api.incoming_phone_numbers(self.account, credentials);
                numbers.fetch(sid).await?.into()
            }
            SenderKind::Service => {
                let services = self.messaging.services(credentials);
                services.fetch(sid).await?.into()
            }
        })
    }

    /// Replaces the webhooks of a sender, and returns the sender as Twilio then has it.
    ///
    /// `uses_number_webhooks` matters for a Messaging Service only.
    ///
    /// # Errors
    /// If Twilio would call another URL than these, or does not accept them.
    pub(crate) async fn set(
        &self,
        sender: &ConfiguredSender,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
        uses_number_webhooks: bool,
    ) -> Result<ConfiguredSender, Failed> {
        if let Some(application) = &sender.application_sid {
            return Err(Failed(format!(
                "{} has the application {application}, whose webhooks Twilio calls in place of the number's: remove it in \
                 Twilio's console, or set the webhooks of the application there",
                sender.name()
            )));
        }
        let (credentials, sid) = (&self.credentials, sender.sid.as_str());
        Ok(match sender.kind {
            SenderKind::WhatsApp => {
                let senders = self.messaging.channels_senders(credentials);
                senders.update(sid, webhooks, methods).await?.into()
            }
            SenderKind::Number => {
                let numbers = self.api.incoming_phone_numbers(self.account, credentials);
                numbers.update(sid, webhooks, methods).await?.into()
            }
            SenderKind::Service => {
                let services = self.messaging.services(credentials);
                let update = services.update(sid, webhooks, methods, uses_number_webhooks);
                update.await?.into()
            }
        })
    }
}

fn is_forbidden(error: &RestError) -> bool {
    matches!(error.kind(), RestErrorKind::Rejected { status: 403, .. })
}

/// Returns the error for a sender that the account does not have. It lists those that it has.
fn unknown_sender(id: &SenderId, senders: &[ConfiguredSender]) -> Failed {
    let known: Vec<_> = senders.iter().map(ConfiguredSender::name).collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Failed(format!(
        "this account has no {} {}; it has: {known}",
        id.kind().noun(),
        id.as_str()
    ))
}
