//! HTTP/1.1 without a library, for requests that one would not send and responses that it would hide.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::HeaderMap;

use super::HttpResponse;

/// Longer than any timeout that a test sets.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause of a slow client between two bytes. Far shorter than any timeout of the server, so that each byte is in time.
pub const TRICKLE_INTERVAL: Duration = Duration::from_millis(200);

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, IO_TIMEOUT).unwrap();
    stream.set_read_timeout(Some(IO_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(IO_TIMEOUT)).unwrap();
    stream
}

/// Sends bytes on a new connection, and reads one response.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<HttpResponse> {
    let mut stream = connect(address);
    // The server may have responded and closed before it has read everything.
    let _ = stream.write_all(bytes);
    read_response(&mut stream)
}

/// Reads the head of a response. Returns `None` if the connection is closed without one.
pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Reads one response. Returns `None` if the connection is closed without one.
pub fn read_response(stream: &mut TcpStream) -> Option<HttpResponse> {
    let head = read_head(stream)?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        headers.append(
            name.parse::<http::HeaderName>().unwrap(),
            value.trim().parse().unwrap(),
        );
    }
    let length = headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(HttpResponse {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Sends one byte every 200 ms until the peer responds or closes. Returns the response, if there is one.
#[track_caller]
pub fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> Option<HttpResponse> {
    // The wait for a response is the pause between two bytes.
    stream.set_read_timeout(Some(TRICKLE_INTERVAL)).unwrap();
    let is_pause = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
    let ended = bytes.iter().any(|byte| {
        let waited = stream
            .write_all(&[*byte])
            .and_then(|()| stream.peek(&mut [0]));
        !waited.is_err_and(|error| is_pause(error.kind()))
    });
    assert!(ended, "the peer waits for a client that sends slowly");
    stream.set_read_timeout(Some(IO_TIMEOUT)).unwrap();
    read_response(stream)
}

/// Waits until the peer closes the connection. Returns false if it is still open after `IO_TIMEOUT`.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}
