//! Messages that arrive at a steady rate, each on its own connection, and their response times.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::steady::{percentile, response_times};

/// Number of threads that send messages.
const SENDERS: u32 = 64;
/// Time after which a message has failed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends one message in each interval, whether or not the server keeps up.
///
/// Returns p99 of the [response times](response_times), and the number of failed messages. A failed message counts with the
/// time until its failure.
pub(crate) fn send_all(server: SocketAddr, requests: &[Vec<u8>], interval: Duration) -> (f64, u32) {
    // Relaxed: the end of the threads orders the increments before `into_inner`.
    let failed = AtomicU32::new(0);
    let count = u32::try_from(requests.len()).expect("there are few messages");
    let end = Instant::now() + interval * count + RESPONSE_TIMEOUT;
    let times = response_times(0..SENDERS, requests, interval, |_, request| {
        // While all threads wait for messages that fail, later ones cannot be sent. Those that are still not sent at `end`
        // have failed too; so the round ends even if the server does not respond at all.
        let is_ok = Instant::now() < end && send(server, request).is_ok();
        if !is_ok {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    });
    (percentile(&times, 99), failed.into_inner())
}

/// Sends a message on its own connection, and reads the response.
///
/// # Errors
/// If the server does not respond in time, or with another status than 200.
fn send(server: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, RESPONSE_TIMEOUT)?;
    stream.set_nodelay(true)?;
    // Applies to each read, not to the whole response.
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&piece[..length]);
        // The end of the TwiML is the end of the response. Another response, such as a 503, becomes an error when the
        // server closes the connection or the read times out.
        if received.ends_with(b"</Response>") || received.ends_with(b"<Response/>") {
            break;
        }
    }
    if received.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
