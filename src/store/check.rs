//! Test message of [`Store::check`](super::store_trait::Store::check), which is accepted and then rolled back.

use jiff::Timestamp;

use super::error::{StoreError, StoreErrorKind};
use super::new_inbound::NewInbound;
use crate::signature::AuthTokenKind;

/// Builds a message of an account and a user that do not exist at Twilio. `number` is part of its SID and address.
pub(super) fn new_inbound(number: i64) -> Result<NewInbound, StoreError> {
    let internal = |_| StoreError::new(StoreErrorKind::Internal);
    Ok(NewInbound {
        account: format!("AC{:032x}", 0).parse().map_err(internal)?,
        sid: format!("SM{number:032x}").parse().map_err(internal)?,
        sender: "check:replyhook".into(),
        user: vec![format!("check:{number}").into()],
        service: None,
        auth_token: AuthTokenKind::Primary,
        params: "Body=check".to_owned(),
        consent: None,
        max_attempts: 1,
        retry_after_crash: false,
        final_response: String::new(),
        received_at: Timestamp::UNIX_EPOCH,
    })
}
