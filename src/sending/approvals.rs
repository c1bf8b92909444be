//! Whether WhatsApp has approved a template: asked for once a minute, however many messages use it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{SendError, SendErrorKind};
use crate::clock::after;
use crate::twilio::{Approval, ApprovalStatus, Client, Credentials, RestErrorKind};

/// How long an answer counts.
const COUNTS: Duration = Duration::from_mins(1);
/// Templates whose answers are kept.
const MOST: usize = 1000;

/// What Twilio said last.
pub(super) struct Approvals {
    twilio: Option<(Client, Credentials)>,
    known: Mutex<HashMap<String, (Timestamp, Answer)>>,
}

#[derive(Clone)]
enum Answer {
    Is(Approval),
    Missing,
    /// Nobody could be asked. Then Twilio decides when it is sent: that it cannot be asked is no reason to hold everything.
    NotKnown,
}

impl Approvals {
    pub(super) fn new(twilio: Option<(Client, Credentials)>) -> Self {
        Self {
            twilio,
            known: Mutex::default(),
        }
    }

    /// Whether a template may be sent. One that was never submitted may while the window is open: quick replies and lists
    /// are sent that way.
    pub(super) async fn check(
        &self,
        template: &str,
        window_open: bool,
        now: Timestamp,
    ) -> Result<(), SendError> {
        match self.of(template, now).await {
            Answer::NotKnown => Ok(()),
            Answer::Missing => Err(SendError::new(SendErrorKind::NoSuchTemplate)),
            Answer::Is(approval) => match approval.status {
                ApprovalStatus::Approved => Ok(()),
                ApprovalStatus::Unsubmitted if window_open => Ok(()),
                _ => Err(SendError::with(
                    SendErrorKind::NotApproved,
                    approval.to_string(),
                )),
            },
        }
    }

    async fn of(&self, template: &str, now: Timestamp) -> Answer {
        let Some((client, credentials)) = &self.twilio else {
            return Answer::NotKnown;
        };
        let known = self.lock().get(template).cloned();
        if let Some((until, answer)) = known
            && now < until
        {
            return answer;
        }
        let answer = match client.approval(template, credentials).await {
            Ok(approval) => Answer::Is(approval),
            Err(error) if matches!(error.kind(), RestErrorKind::Refused { status: 404, .. }) => {
                Answer::Missing
            }
            Err(error) => {
                tracing::warn!(
                    template,
                    "whether a template is approved could not be asked: {error}"
                );
                Answer::NotKnown
            }
        };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(template.to_owned(), (after(now, COUNTS), answer.clone()));
        answer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, Answer)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
