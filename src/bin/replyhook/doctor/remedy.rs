//! Remedies for failed connections, by the error code that Twilio's debugger would show.

use replyhook::ErrorCode;

/// Returns the remedy for a URL that did not respond.
pub(super) fn transport(code: ErrorCode) -> &'static str {
    match code.0 {
        11201 => {
            "nothing accepts connections there: open the port in the firewall, or correct the name's address in DNS"
        }
        11202 => {
            "nothing listens there: start the proxy (or the tunnel), or correct PUBLIC_URL's host and port"
        }
        11205 => {
            "the network does not lead there, or the server does not respond within Twilio's 15 seconds: correct \
             PUBLIC_URL's host and port, or the name's address in DNS; check a proxy or server that hangs or is stopped"
        }
        11210 => "create the name in DNS, or correct PUBLIC_URL's host",
        11220 => {
            "the program there supports neither TLS 1.2 nor 1.3, or rejects the name (SNI): let the proxy terminate TLS for \
             this name"
        }
        11235 => {
            "get a certificate for PUBLIC_URL's host, or correct the host; a proxy may need SNI to choose the right one"
        }
        11236 => "renew the certificate, and reload the proxy that has it",
        11237 => {
            "use a certificate of a public authority, and send its whole chain, intermediates included; Twilio trusts no \
             self-signed one"
        }
        _ => "the program there closes the connection, or does not support HTTP/1.1: check its log",
    }
}
