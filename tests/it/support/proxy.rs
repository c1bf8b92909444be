//! Proxy that terminates TLS for `localhost`, with a certificate of its own CA.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;

use super::http::{Listener, RawRequest, http_response};

/// Decision about a request.
pub enum ProxyAction {
    /// Forwards the request.
    Forward(RawRequest),
    /// Sends this response.
    Respond(Vec<u8>),
}

pub struct TlsProxy {
    listener: Listener,
    authority: NamedTempFile,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
}

impl TlsProxy {
    pub fn start(decide: impl Fn(RawRequest) -> ProxyAction + Send + Sync + 'static) -> Self {
        Self::start_until(4096, decide)
    }

    /// Starts a proxy whose certificate expires on the first day of a year.
    pub fn start_until(
        year: i32,
        decide: impl Fn(RawRequest) -> ProxyAction + Send + Sync + 'static,
    ) -> Self {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
        let mut certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
        certificate.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();
        let upstream: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let to = upstream.clone();
        let listener = Listener::start(Some(Arc::new(config)), move |request| {
            let response = match decide(request) {
                ProxyAction::Respond(answer) => return answer,
                ProxyAction::Forward(request) => {
                    let to = *to.lock().unwrap();
                    to.and_then(|to| request.forward_to(to))
                }
            };
            response.unwrap_or_else(|| http_response(502, &[], "the upstream is not reachable"))
        });
        Self {
            listener,
            authority: file,
            upstream,
        }
    }

    /// Starts a proxy that changes nothing.
    pub fn plain() -> Self {
        Self::start(ProxyAction::Forward)
    }

    /// Sets the address to which requests are forwarded.
    pub fn set_upstream(&self, address: SocketAddr) {
        *self.upstream.lock().unwrap() = Some(address);
    }

    pub fn port(&self) -> u16 {
        self.listener.address.port()
    }

    pub fn origin(&self) -> String {
        format!("https://localhost:{}", self.port())
    }

    /// File with the CA's certificate.
    pub fn authority(&self) -> &Path {
        self.authority.path()
    }
}
