//! Calls of the control API that change conditions, kept for tests of a conversation.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Call of the control API that changes what the bot's server experiences.
#[derive(Clone)]
pub(super) enum ControlAction {
    /// The faults as a whole.
    Faults(Map<String, Value>),
    /// Seconds by which the clock was advanced.
    Clock(i64),
    /// SID of a message that was delivered again.
    Redelivery(String),
}

/// Returns the faults that are on, without those that need a secret.
pub(super) fn active_faults(faults: &impl Serialize) -> Map<String, Value> {
    let faults = serde_json::to_value(faults).unwrap_or_default();
    let Value::Object(mut faults) = faults else {
        return Map::new();
    };
    faults.retain(|name, value| {
        let is_off = value.is_null() || *value == json!(0) || *value == json!(false);
        !is_off && !["shared_key", "api_key"].contains(&name.as_str())
    });
    for fault in faults.values_mut().filter_map(Value::as_object_mut) {
        fault.retain(|_, value| !value.is_null());
    }
    faults
}
