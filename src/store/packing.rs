//! Packed values of columns: SIDs, auth tokens and times.

use jiff::Timestamp;

use super::error::{StoreError, StoreErrorKind};
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;

/// Packs a SID into 17 bytes: its first letter and 16 bytes. A SID with uppercase digits, which Twilio does not make,
/// stays text.
pub(super) fn sid_bytes(sid: &str) -> Vec<u8> {
    let bytes = sid.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut packed = Vec::with_capacity(17);
    // The first letter suffices: the SIDs in the store begin with SM, MM or AC.
    packed.push(bytes[0]);
    for pair in bytes[2..].chunks_exact(2) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return bytes.to_vec();
        };
        packed.push(high << 4 | low);
    }
    packed
}

fn sid_text(bytes: &[u8]) -> Result<String, StoreError> {
    // A SID as text has 34 bytes.
    if bytes.len() != 17 {
        return String::from_utf8(bytes.to_vec()).map_err(|_| unreadable());
    }
    let prefix = match bytes[0] {
        b'S' => "SM",
        b'M' => "MM",
        b'A' => "AC",
        _ => return Err(unreadable()),
    };
    let digits = bytes[1..].iter().map(|byte| format!("{byte:02x}"));
    Ok(std::iter::once(prefix.to_owned()).chain(digits).collect())
}

pub(super) fn message_sid(bytes: &[u8]) -> Result<MessageSid, StoreError> {
    sid_text(bytes)?.parse().map_err(|_| unreadable())
}

pub(super) fn account_sid(bytes: &[u8]) -> Result<AccountSid, StoreError> {
    sid_text(bytes)?.parse().map_err(|_| unreadable())
}

pub(super) fn auth_token_number(kind: AuthTokenKind) -> i64 {
    match kind {
        AuthTokenKind::Primary => 0,
        AuthTokenKind::Secondary => 1,
        AuthTokenKind::Subaccount => 2,
        AuthTokenKind::SharedKey => 3,
    }
}

pub(super) fn auth_token(number: i64) -> AuthTokenKind {
    match number {
        1 => AuthTokenKind::Secondary,
        2 => AuthTokenKind::Subaccount,
        3 => AuthTokenKind::SharedKey,
        _ => AuthTokenKind::Primary,
    }
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| unreadable())
}

/// Creates the error for a row with a value that no version of replyhook writes.
pub(super) fn unreadable() -> StoreError {
    // Not `Corrupt`: that makes the server not ready until a restart, and here one row is damaged, not the database.
    StoreError::with_source(StoreErrorKind::Internal, "a row cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_token_kind_round_trips() {
        for kind in [
            AuthTokenKind::Primary,
            AuthTokenKind::Secondary,
            AuthTokenKind::Subaccount,
            AuthTokenKind::SharedKey,
        ] {
            assert_eq!(auth_token(auth_token_number(kind)), kind);
        }
    }

    #[test]
    fn packed_sid_round_trips() {
        for sid in [
            "SM00112233445566778899aabbccddeeff",
            "MMffeeddccbbaa99887766554433221100",
            "SM00112233445566778899AABBCCDDEEFF",
        ] {
            let packed = sid_bytes(sid);
            assert_eq!(message_sid(&packed).unwrap().as_str(), sid);
            // Only a SID with uppercase digits stays text.
            assert_eq!(
                packed.len() == 17,
                sid.bytes()
                    .all(|b| !b"ABCDEF".contains(&b) || b == sid.as_bytes()[0])
            );
        }
        let account = "AC00000000000000000000000000000001";
        assert_eq!(account_sid(&sid_bytes(account)).unwrap().as_str(), account);
        assert!(message_sid(&[0; 17]).is_err());
    }
}
