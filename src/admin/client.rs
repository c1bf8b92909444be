//! Client of a private listener on this machine: [`check_readiness`] and [`health_check`].
//!
//! The client uses a plain blocking socket. An HTTP client would be costly to build for one small response.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::readiness::Readiness;
use crate::probe::{INSTANCE_HEADER, Instance};

// Limits the memory if the listener is not a replyhook server. A response of `/readyz` is much smaller.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024;

/// Response of a private listener to `/readyz`. See [`check_readiness`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadinessReport {
    /// True if the server can accept messages.
    pub is_ready: bool,
    /// Identity of the server process; `None` if the response has no valid instance header.
    pub instance: Option<Instance>,
    /// Checks of the server; `None` if the body is not that of `/readyz`.
    pub readiness: Option<Readiness>,
    body: String,
}

/// The error of a readiness check that got no response. See [`check_readiness`] for an example.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadinessError {
    /// The listener did not respond in time.
    #[error("no response from {0} in time")]
    Timeout(SocketAddr),
    /// The connection could not be made, or broke.
    #[error("no response from {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
}

/// Calls `/readyz` of the private listener at `listen`.
///
/// `timeout` limits the connection attempt and each read and write.
///
/// ```no_run
/// use std::time::Duration;
/// use replyhook::admin::{ReadinessError, check_readiness};
///
/// match check_readiness("127.0.0.1:9090".parse()?, Duration::from_secs(2)) {
///     Ok(report) if report.is_ready => println!("ready"),
///     Ok(report) => println!("not ready: {:?}", report.readiness),
///     Err(ReadinessError::Timeout(address)) => println!("timeout at {address}"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Errors
/// [`ReadinessError`] if no response arrives. A response that reports "not ready" is not an error.
pub fn check_readiness(
    listen: SocketAddr,
    timeout: Duration,
) -> Result<ReadinessReport, ReadinessError> {
    let hosts: &[IpAddr] = match listen.ip() {
        // A server can listen on an unspecified address, but a client cannot connect to it portably. A listener on
        // `[::]` may accept IPv6 only, or IPv4 as well.
        IpAddr::V4(ip) if ip.is_unspecified() => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(ip) if ip.is_unspecified() => &[
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        ],
        ip => &[ip],
    };
    // Overwritten by each failed attempt, as `hosts` is never empty.
    let mut last_error = ReadinessError::Timeout(listen);
    for host in hosts {
        let address = SocketAddr::new(*host, listen.port());
        match send_request(address, timeout) {
            Ok(response) => return Ok(parse_report(&response)),
            // An expired socket timeout is `WouldBlock` on Unix; `connect_timeout` returns `TimedOut`.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                last_error = ReadinessError::Timeout(address);
            }
            Err(error) => last_error = ReadinessError::Connect(address, error),
        }
    }
    Err(last_error)
}

/// Checks that a server is ready, for use as a container's health check.
///
/// `timeout` limits the connection attempt and each read and write.
///
/// ```no_run
/// use std::time::Duration;
///
/// let listen = "127.0.0.1:9090".parse()?;
/// if let Err(reason) = replyhook::admin::health_check(listen, Duration::from_secs(2)) {
///     eprintln!("{reason}");
///     std::process::exit(1);
/// }
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Errors
/// A text with the cause: the listener does not respond, or it reports that the server is not ready.
pub fn health_check(listen: SocketAddr, timeout: Duration) -> Result<(), String> {
    match check_readiness(listen, timeout) {
        Ok(report) if report.is_ready => Ok(()),
        Ok(report) => Err(format!("not ready: {}", report.body.trim())),
        Err(error) => Err(error.to_string()),
    }
}

fn send_request(address: SocketAddr, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // `Connection: close`, so that reading to the end needs no parsing of lengths.
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

// Never fails: if another program listens on the port, `instance` and `readiness` are `None`.
fn parse_report(response: &str) -> ReadinessReport {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let instance = headers.find(|(name, _)| name.eq_ignore_ascii_case(INSTANCE_HEADER));
    ReadinessReport {
        is_ready: head.starts_with("HTTP/1.1 200 "),
        instance: instance.and_then(|(_, value)| Instance::parse(value.trim())),
        readiness: serde_json::from_str(body.trim()).ok(),
        body: body.to_owned(),
    }
}
