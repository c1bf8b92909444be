//! The cryptography of outgoing TLS: chosen once, here, so that a library user needs no set-up.

/// Installs ring as rustls' provider unless the process has chosen one. Call before any HTTP client is built.
pub(crate) fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
