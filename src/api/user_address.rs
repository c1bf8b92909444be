//! Addresses of users and senders in requests.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use http::Uri;

use super::problem::ApiProblem;
use crate::address::Address;
use crate::form::FormParams;
use crate::sid::MessagingServiceSid;
use crate::store::ConsentScope;

const ADDRESS_REMEDY: &str = "write the address as Twilio does, such as +15550107788 or whatsapp:+15550107788; in a path, with \
                              + as %2B and : as %3A";
/// Maximum number of parameters in a query.
const MAX_QUERY_PARAMS: usize = 32;

/// Address in a path, decoded.
pub(super) type AddressInPath = Result<Path<String>, PathRejection>;

/// Reads an address as Twilio writes it.
///
/// # Errors
/// [`ApiProblem`] with the reason `invalid_address`.
pub(super) fn parse_address(text: &str) -> Result<Address, ApiProblem> {
    Address::parse_strict(text).ok_or_else(|| invalid_address("the address is not one of Twilio's"))
}

/// Reads the address of a user, which is not a sender's name such as ACME or `rcs:brand`.
///
/// # Errors
/// [`ApiProblem`] with the reason `invalid_address`.
pub(super) fn parse_user(text: &str) -> Result<Address, ApiProblem> {
    let address = parse_address(text)?;
    if !address.can_be_user() {
        return Err(invalid_address(
            "the address is that of a sender, such as an alphanumeric sender ID, which cannot receive messages",
        ));
    }
    Ok(address)
}

/// Reads the user's address in a path, which is percent-encoded.
pub(super) fn user_in_path(path: AddressInPath) -> Result<Address, ApiProblem> {
    let Ok(Path(text)) = path else {
        return Err(invalid_address("the address in the path is not UTF-8"));
    };
    parse_user(&text)
}

pub(super) fn invalid_address(message: &str) -> ApiProblem {
    ApiProblem::rejected("invalid_address", message, ADDRESS_REMEDY)
}

/// Returns the parameters `sender` and `service` of a query.
///
/// # Errors
/// [`ApiProblem`] if the query cannot be read.
pub(super) fn scope_in_query(uri: &Uri) -> Result<(Option<String>, Option<String>), ApiProblem> {
    let query = uri.query().unwrap_or_default();
    let params = FormParams::parse(query.as_bytes(), MAX_QUERY_PARAMS).map_err(|_| {
        ApiProblem::bad_request(
            "invalid_query",
            "the query cannot be read",
            "percent-encode the value: + as %2B, and : as %3A",
        )
    })?;
    let param = |name| params.get(name).map(str::to_owned);
    Ok((param("sender"), param("service")))
}

/// Reads one sender, or one Messaging Service, which must be able to reach the user.
///
/// # Errors
/// [`ApiProblem`] if one of them is invalid, or if both are given.
pub(super) fn parse_scope(
    user: &Address,
    sender: Option<&str>,
    service: Option<&str>,
) -> Result<Option<ConsentScope>, ApiProblem> {
    match (sender, service) {
        (Some(_), Some(_)) => Err(ApiProblem::rejected(
            "invalid_scope",
            "both sender and service are given",
            "leave one out: the sender, or the Messaging Service that it is in",
        )),
        (Some(sender), None) => {
            let sender = parse_sender(user, sender)?;
            Ok(Some(ConsentScope::Sender(sender)))
        }
        (None, Some(service)) => Ok(Some(ConsentScope::Service(parse_service(service)?))),
        (None, None) => Ok(None),
    }
}

/// Reads a sender, which must be on the user's channel.
///
/// # Errors
/// [`ApiProblem`] with the reason `invalid_address`.
pub(super) fn parse_sender(user: &Address, text: &str) -> Result<Address, ApiProblem> {
    let sender = parse_address(text)?;
    if sender.channel() != user.channel() {
        return Err(invalid_address(&format!(
            "user and sender are on different channels, {} and {}",
            user.channel().as_str(),
            sender.channel().as_str()
        )));
    }
    Ok(sender)
}

/// Reads the SID of a Messaging Service.
///
/// # Errors
/// [`ApiProblem`] with the reason `invalid_address`.
pub(super) fn parse_service(text: &str) -> Result<MessagingServiceSid, ApiProblem> {
    text.trim().parse().map_err(|_| {
        ApiProblem::rejected(
            "invalid_address",
            "the Messaging Service is not a SID",
            "write MG and 32 hexadecimal digits",
        )
    })
}
