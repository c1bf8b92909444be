//! TLS provider for outgoing calls, installed by replyhook so that its users need no setup.

/// Installs ring as the process-wide provider of rustls, unless there is one. Call it before an HTTP client is built.
pub fn install_provider() {
    // An error means that a provider is installed already: ours from an earlier call, or one that the program chose.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
