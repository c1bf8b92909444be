//! Proxy that terminates TLS for `localhost`, with a certificate of its own CA.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;

use super::http::{Arrived, Listener, answer};

/// Decision about a request.
pub enum Turn {
    /// Passes the request on.
    On(Arrived),
    /// Sends this response.
    Back(Vec<u8>),
}

pub struct TlsProxy {
    listener: Listener,
    authority: NamedTempFile,
    behind: Arc<Mutex<Option<SocketAddr>>>,
}

impl TlsProxy {
    pub fn start(turn: impl Fn(Arrived) -> Turn + Send + Sync + 'static) -> Self {
        Self::start_until(4096, turn)
    }

    /// Starts a proxy whose certificate expires on the first day of a year.
    pub fn start_until(year: i32, turn: impl Fn(Arrived) -> Turn + Send + Sync + 'static) -> Self {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
        let mut own = CertificateParams::new(["localhost".to_owned()]).unwrap();
        own.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let own = own.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();
        let behind: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let to = behind.clone();
        let listener = Listener::start(Some(Arc::new(config)), move |arrived| {
            let passed = match turn(arrived) {
                Turn::Back(answer) => return answer,
                Turn::On(arrived) => {
                    let to = *to.lock().unwrap();
                    to.and_then(|to| arrived.pass(to))
                }
            };
            passed.unwrap_or_else(|| answer(502, &[], "nobody is there"))
        });
        Self {
            listener,
            authority: file,
            behind,
        }
    }

    /// Starts a proxy that changes nothing.
    pub fn plain() -> Self {
        Self::start(Turn::On)
    }

    /// Sets the address to which requests are passed on.
    pub fn leads_to(&self, address: SocketAddr) {
        *self.behind.lock().unwrap() = Some(address);
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
