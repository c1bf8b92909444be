//! Delivery of a message through the emulator, with faults that are restored afterwards.

use std::time::Duration;

use anyhow::anyhow;
use replyhook::emulator::{EmulatorClient, EmulatorClientError};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::finding::rejection_question;

const MAX_RESTORE_ATTEMPTS: u32 = 5;
/// Interval between two attempts to restore the emulator's faults.
const RESTORE_INTERVAL: Duration = Duration::from_millis(100);

/// Serializes deliveries with faults. Locked before [`PREVIOUS_FAULTS`].
static FAULTS_LOCK: Mutex<()> = Mutex::const_new(());
/// Previous values of the faults that a delivery has changed and not restored yet.
static PREVIOUS_FAULTS: Mutex<Option<Value>> = Mutex::const_new(None);

/// A message that the emulator has delivered.
pub(super) struct ChatDelivery {
    /// The emulator's report.
    pub(super) report: Value,
    /// Failure of the last webhook call, or of restoring the faults.
    pub(super) problem: Option<String>,
}

/// Sends a message. Faults are in force from its first webhook call until its last one has ended.
///
/// The emulator has one set of faults for all users, so messages that are sent in that time get them as well.
///
/// # Errors
/// If the emulator does not respond, or rejects the message.
pub(super) async fn deliver(
    emulator: &EmulatorClient,
    faults: Option<Value>,
    message: &Value,
) -> anyhow::Result<ChatDelivery> {
    let Some(faults) = faults else {
        let report = emulator.post(&["messages"], message).await?;
        let problem = failure_reason(&report);
        return Ok(ChatDelivery { report, problem });
    };
    // One at a time: of two concurrent deliveries, the second would take the faults of the first for the original ones,
    // and restore them at its end.
    let _guard = FAULTS_LOCK.lock().await;
    // Those of an earlier delivery whose restore has failed.
    restore_faults(emulator).await?;
    let delivered = match inject_faults(emulator, &faults).await {
        Ok(()) => emulator.post(&["messages"], message).await,
        Err(error) => Err(error),
    };
    // Even if `inject_faults` failed: the emulator may have changed the faults although its response was lost.
    let restored = restore_faults(emulator).await;
    match (delivered, restored) {
        (Ok(report), restored) => {
            let problems = [
                failure_reason(&report),
                restored.err().map(|error| error.to_string()),
            ];
            let problems: Vec<_> = problems.into_iter().flatten().collect();
            let problem = (!problems.is_empty()).then(|| problems.join("; "));
            Ok(ChatDelivery { report, problem })
        }
        (Err(error), Ok(())) => Err(error.into()),
        // Tell both: the user can act on the second.
        (Err(error), Err(restore_error)) => Err(anyhow!("{error}; {restore_error}")),
    }
}

/// Changes these faults, and keeps their previous values for [`restore_faults`].
async fn inject_faults(
    emulator: &EmulatorClient,
    faults: &Value,
) -> Result<(), EmulatorClientError> {
    // Locked until the faults are in force: a concurrent `restore_faults` must not come before that.
    let mut previous_faults = PREVIOUS_FAULTS.lock().await;
    let current = emulator.get(&["faults"]).await?;
    let mut previous = json!({});
    for (name, _) in faults.as_object().into_iter().flatten() {
        previous[name] = current[name].clone();
    }
    *previous_faults = Some(previous);
    emulator.put(&["faults"], &merge(current, faults)).await?;
    Ok(())
}

/// Restores the faults that a delivery has changed, if any.
///
/// # Errors
/// An explanation for the user, if the emulator accepts none of several attempts.
pub(super) async fn restore_faults(emulator: &EmulatorClient) -> anyhow::Result<()> {
    let mut previous_faults = PREVIOUS_FAULTS.lock().await;
    let Some(previous) = &*previous_faults else {
        return Ok(());
    };
    let mut attempt = 1;
    loop {
        match change_faults(emulator, previous).await {
            Ok(()) => break,
            Err(error) if attempt == MAX_RESTORE_ATTEMPTS => {
                return Err(anyhow!(
                    "the faults of /late or /down stay in the emulator: {error}; turn them off on its page"
                ));
            }
            Err(_) => {}
        }
        attempt += 1;
        tokio::time::sleep(RESTORE_INTERVAL).await;
    }
    *previous_faults = None;
    Ok(())
}

/// Changes these faults, and leaves the others.
async fn change_faults(
    emulator: &EmulatorClient,
    changes: &Value,
) -> Result<(), EmulatorClientError> {
    // Read again: other faults may count down, and the user may have changed them on the page.
    let current = emulator.get(&["faults"]).await?;
    emulator.put(&["faults"], &merge(current, changes)).await?;
    Ok(())
}

fn merge(mut faults: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        faults[name] = value.clone();
    }
    faults
}

/// Returns the reason why Twilio could not use the last response, if so.
pub(super) fn failure_reason(delivery: &Value) -> Option<String> {
    let last = delivery["attempts"].as_array()?.last()?;
    let code = last["error_code"].as_u64()?;
    let meaning = u32::try_from(code)
        .ok()
        .map(|code| replyhook::ErrorCode(code).meaning_or_link());
    let status = last["status"].as_u64();
    let question = rejection_question(status).map(|question| format!("; {question}"));
    let status = status.map_or_else(|| "no response".to_owned(), |status| status.to_string());
    Some(format!(
        "{}: {status}: {} ({code}){}",
        last["url"].as_str().unwrap_or_default(),
        meaning.unwrap_or_default(),
        question.unwrap_or_default()
    ))
}
