//! Asking the private listener of a server on this machine, over a plain socket: no client is built for one small answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Readiness;
use crate::probe::{INSTANCE_HEADER, Instance};

/// Most bytes of an answer.
const MOST_BYTES: u64 = 64 * 1024;

/// What a private listener says about its server.
///
/// Heard by: see [`readiness`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Heard {
    /// Whether messages can be accepted.
    pub is_ready: bool,
    /// Which server it is; `None` where the listener is none of this version's.
    pub instance: Option<Instance>,
    /// What stands in the way; `None` where the answer is not that of a `/readyz`.
    pub readiness: Option<Readiness>,
    body: String,
}

/// Why a private listener was not heard.
///
/// Told apart: see [`readiness`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unheard {
    /// Somebody is there, and does not answer.
    #[error("no answer from {0} in time")]
    Silent(SocketAddr),
    /// No connection, or one that broke off.
    #[error("no answer from {0}: {1}")]
    Failed(SocketAddr, std::io::Error),
}

/// Asks `/readyz`.
///
/// ```no_run
/// use std::time::Duration;
/// use replyhook::admin::{Unheard, readiness};
///
/// match readiness("127.0.0.1:9090".parse()?, Duration::from_secs(2)) {
///     Ok(heard) if heard.is_ready => println!("ready"),
///     Ok(heard) => println!("not ready: {:?}", heard.readiness),
///     Err(Unheard::Silent(address)) => println!("nothing from {address}"),
///     Err(unheard) => println!("{unheard}"),
/// }
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Errors
/// [`Unheard`]: there is no answer at all.
pub fn readiness(listen: SocketAddr, patience: Duration) -> Result<Heard, Unheard> {
    let hosts: &[IpAddr] = match listen.ip() {
        // An unspecified address is listened on and cannot be called.
        IpAddr::V4(ip) if ip.is_unspecified() => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(ip) if ip.is_unspecified() => &[
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        ],
        ip => &[ip],
    };
    let mut last = Unheard::Silent(listen);
    for host in hosts {
        let address = SocketAddr::new(*host, listen.port());
        match ask(address, patience) {
            Ok(answer) => return Ok(heard(&answer)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                last = Unheard::Silent(address);
            }
            Err(error) => last = Unheard::Failed(address, error),
        }
    }
    Err(last)
}

/// Asks `/readyz` of a private listener on this machine, as a container's health check does.
///
/// ```no_run
/// use std::time::Duration;
///
/// let listen = "127.0.0.1:9090".parse()?;
/// if let Err(reason) = replyhook::admin::probe(listen, Duration::from_secs(2)) {
///     eprintln!("{reason}");
///     std::process::exit(1);
/// }
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Errors
/// What stands in the way: the listener does not answer, or it answers that it is not ready.
pub fn probe(listen: SocketAddr, patience: Duration) -> Result<(), String> {
    match readiness(listen, patience) {
        Ok(heard) if heard.is_ready => Ok(()),
        Ok(heard) => Err(format!("not ready: {}", heard.body.trim())),
        Err(unheard) => Err(unheard.to_string()),
    }
}

fn ask(address: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn heard(answer: &str) -> Heard {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let instance = headers.find(|(name, _)| name.eq_ignore_ascii_case(INSTANCE_HEADER));
    Heard {
        is_ready: head.starts_with("HTTP/1.1 200 "),
        instance: instance.and_then(|(_, value)| Instance::parse(value.trim())),
        readiness: serde_json::from_str(body.trim()).ok(),
        body: body.to_owned(),
    }
}
