//! HTTP listener on loopback: it reads one request per connection, sends one response, and closes. It can use TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Longer than anything a test waits for.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

/// Request as it was read.
#[derive(Debug, Clone)]
pub struct RawRequest {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl RawRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    fn read(stream: &mut impl Read) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines.first()?.split(' ');
        let mut request = Self {
            method: words.next()?.to_owned(),
            target: words.next()?.to_owned(),
            headers: lines[1..]
                .iter()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
        };
        let length = request
            .header("content-length")
            .and_then(|length| length.parse().ok());
        request.body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    /// Passes the request on to a listener without TLS, and returns the whole response.
    pub fn forward_to(&self, to: SocketAddr) -> Option<Vec<u8>> {
        const REPLACED: [&str; 2] = ["connection", "content-length"];
        let mut stream = TcpStream::connect_timeout(&to, IO_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(IO_TIMEOUT)).ok()?;
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            if !REPLACED
                .iter()
                .any(|replaced| name.eq_ignore_ascii_case(replaced))
            {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head += &format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&self.body).ok()?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).ok()?;
        Some(response)
    }
}

/// Response after which the connection is closed.
pub fn http_response(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Told\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Running listener. It stops on drop.
pub struct Listener {
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start(
        tls: Option<Arc<ServerConfig>>,
        respond: impl Fn(RawRequest) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, respond) = (stopped.clone(), Arc::new(respond));
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (tls, respond) = (tls.clone(), respond.clone());
                std::thread::spawn(move || serve(stream, tls, &*respond));
            }
        });
        Self {
            address,
            stopped,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Connect, so that `accept` returns and the thread reads `stopped`.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.accepting.take().unwrap().join();
        }
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    respond: impl Fn(RawRequest) -> Vec<u8>,
) {
    let timeout = Some(IO_TIMEOUT);
    if stream.set_read_timeout(timeout).is_err() || stream.set_write_timeout(timeout).is_err() {
        return;
    }
    match tls {
        None => exchange(stream, respond),
        Some(config) => {
            let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            exchange(&mut stream, respond);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

fn exchange(mut stream: impl Read + Write, respond: impl Fn(RawRequest) -> Vec<u8>) {
    if let Some(request) = RawRequest::read(&mut stream) {
        // The client may have closed the connection.
        let _ = stream.write_all(&respond(request));
        let _ = stream.flush();
    }
}
