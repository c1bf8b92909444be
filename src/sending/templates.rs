//! What Twilio knows of a template: whether WhatsApp has approved it, and which variables it has. Asked for once a minute,
//! however many messages use it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{SendError, SendErrorKind};
use crate::clock::after;
use crate::twilio::{
    Approval, ApprovalStatus, Client, Credentials, RestError, RestErrorKind, TemplateVariables,
};

/// How long an answer counts.
const COUNTS: Duration = Duration::from_mins(1);
/// Templates whose answers are kept.
const MOST: usize = 1000;

/// What Twilio said last.
pub(super) struct Templates {
    twilio: Option<(Client, Credentials)>,
    known: Mutex<HashMap<String, (Timestamp, Known)>>,
}

/// What is known of one.
#[derive(Clone)]
pub(super) struct Known {
    approval: Answer<Approval>,
    variables: Answer<TemplateVariables>,
}

#[derive(Clone)]
enum Answer<T> {
    Is(T),
    Missing,
    /// Nobody could be asked. Then Twilio decides when it is sent: that it cannot be asked is no reason to hold everything.
    NotKnown,
}

impl Known {
    /// Whether WhatsApp lets it be sent. One that was never submitted may while the window is open: quick replies and
    /// lists are sent that way.
    pub(super) fn is_approved(&self, window_open: bool) -> Result<(), SendError> {
        match &self.approval {
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

    /// Whether these are its variables. Twilio would put the sample in the place of one that is missing, and somebody
    /// would be told the name that was made up for WhatsApp's reviewers.
    pub(super) fn takes(&self, given: &BTreeMap<String, String>) -> Result<(), SendError> {
        let Answer::Is(variables) = &self.variables else {
            return match self.variables {
                Answer::Missing => Err(SendError::new(SendErrorKind::NoSuchTemplate)),
                _ => Ok(()),
            };
        };
        let missing = variables
            .needed
            .iter()
            .filter(|name| !given.contains_key(*name));
        let unknown = given
            .keys()
            .filter(|name| !variables.needed.contains(*name) && !variables.samples.contains(*name));
        let told: Vec<String> = [
            listed(missing, "it has no value for the template's"),
            listed(unknown, "the template has no"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if told.is_empty() {
            return Ok(());
        }
        Err(SendError::with(
            SendErrorKind::WrongVariables,
            told.join("; "),
        ))
    }
}

/// `what variable 1`, `what variables 1, 2`.
fn listed<'a>(names: impl Iterator<Item = &'a String>, what: &str) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let word = match names.len() {
        0 => return None,
        1 => "variable",
        _ => "variables",
    };
    Some(format!("{what} {word} {}", names.join(", ")))
}

impl Templates {
    pub(super) fn new(twilio: Option<(Client, Credentials)>) -> Self {
        Self {
            twilio,
            known: Mutex::default(),
        }
    }

    pub(super) async fn of(&self, template: &str, now: Timestamp) -> Known {
        let Some((client, credentials)) = &self.twilio else {
            return Known {
                approval: Answer::NotKnown,
                variables: Answer::NotKnown,
            };
        };
        let known = self.lock().get(template).cloned();
        if let Some((until, known)) = known
            && now < until
            // Noted before the clock was set back.
            && until <= after(now, COUNTS)
        {
            return known;
        }
        let (approval, variables) = tokio::join!(
            client.approval(template, credentials),
            client.template_variables(template, credentials)
        );
        let new = Known {
            approval: told(template, approval.map(Some)),
            variables: told(template, variables),
        };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(template.to_owned(), (after(now, COUNTS), new.clone()));
        new
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, Known)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told<T>(template: &str, answer: Result<Option<T>, RestError>) -> Answer<T> {
    match answer {
        Ok(Some(answer)) => Answer::Is(answer),
        Ok(None) => Answer::NotKnown,
        Err(error) if matches!(error.kind(), RestErrorKind::Refused { status: 404, .. }) => {
            Answer::Missing
        }
        Err(error) => {
            tracing::warn!(template, "a template could not be looked at: {error}");
            Answer::NotKnown
        }
    }
}
