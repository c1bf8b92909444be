//! The message of [`Store::check`](super::Store::check), which is accepted and never kept.

use jiff::Timestamp;

use super::{Arrival, StoreError, StoreErrorKind};
use crate::signature::TokenSlot;

/// A message of an account and a user that Twilio does not have. `number` is in its SID and its address.
pub(super) fn arrival(number: i64) -> Result<Arrival, StoreError> {
    let internal = |_| StoreError::new(StoreErrorKind::Internal);
    Ok(Arrival {
        account: format!("AC{:032x}", 0).parse().map_err(internal)?,
        sid: format!("SM{number:032x}").parse().map_err(internal)?,
        us: "check:replyhook".into(),
        user: vec![format!("check:{number}").into()],
        service: None,
        slot: TokenSlot::Primary,
        params: "Body=check".to_owned(),
        consent: None,
        attempts: 1,
        retry_crashed: false,
        last_answer: String::new(),
        at: Timestamp::UNIX_EPOCH,
    })
}
