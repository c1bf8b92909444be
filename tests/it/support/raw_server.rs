//! HTTP server for raw and invalid responses: it sends the bytes that a test queues, and records requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Behavior after the bytes of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ResponseEnd {
    Close,
    /// Reads the next request on the same connection.
    Keep,
    /// Sends nothing, until the client closes the connection.
    Silence,
    /// Sends zeros, until the client closes the connection.
    Forever,
    /// Sends a zero byte every 200 ms, until the client closes the connection.
    Trickle,
    /// Sends about this number of zero bytes, and then nothing.
    Stuck(usize),
}

#[derive(Default)]
struct Inner {
    /// Queued responses of each method and path. The last one is repeated.
    answers: HashMap<String, VecDeque<(Vec<u8>, ResponseEnd)>>,
    /// Heads of requests.
    requests: Vec<String>,
}

#[derive(Clone)]
pub struct RawServer {
    url: String,
    inner: Arc<Mutex<Inner>>,
    count: Arc<watch::Sender<Count>>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    connections: usize,
    requests: usize,
    /// Connections that both sides have closed.
    closed: usize,
}

impl RawServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let storage = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::default(),
            count: Arc::default(),
        };
        let shared = storage.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().serve(stream));
            }
        });
        storage
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Queues a response, head and body, for a method and path such as `GET /x`.
    pub fn queue_bytes(&self, what: &str, bytes: impl Into<Vec<u8>>, end: ResponseEnd) {
        let mut inner = self.inner.lock().unwrap();
        let answers = inner.answers.entry(what.to_owned()).or_default();
        answers.push_back((bytes.into(), end));
    }

    /// Queues a valid response that ends with its connection.
    pub fn queue_response(&self, what: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n",
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.queue_bytes(
            what,
            [(head + "\r\n").as_bytes(), body].concat(),
            ResponseEnd::Close,
        );
    }

    /// Heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.inner.lock().unwrap().requests.clone()
    }

    /// Method and path of each request so far.
    pub fn request_lines(&self) -> Vec<String> {
        let line = |head: String| head.split(" HTTP/").next().unwrap_or_default().to_owned();
        self.requests().into_iter().map(line).collect()
    }

    /// Waits until this number of requests has arrived.
    pub async fn wait_for(&self, requests: usize) {
        let mut count = self.count.subscribe();
        let reached = count.wait_for(|count| count.requests >= requests).await;
        reached.unwrap();
    }

    /// Waits until this number of connections is closed by both sides.
    pub async fn wait_for_closed(&self, connections: usize) {
        let mut count = self.count.subscribe();
        let closed = count.wait_for(|count| count.closed >= connections).await;
        closed.unwrap();
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        self.count.borrow().connections
    }

    async fn serve(self, stream: TcpStream) {
        self.count.send_modify(|count| count.connections += 1);
        let mut stream = BufReader::new(stream);
        while self.answer(&mut stream).await == Some(ResponseEnd::Keep) {}
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        self.count.send_modify(|count| count.closed += 1);
    }

    /// Reads a request and responds to it. Returns `None` if none arrives.
    async fn answer(&self, stream: &mut BufReader<TcpStream>) -> Option<ResponseEnd> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return None;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or_default()];
        stream.read_exact(&mut body).await.ok()?;
        let request_line = head.split(" HTTP/").next().unwrap().to_owned();
        let (bytes, end) = {
            let mut inner = self.inner.lock().unwrap();
            inner.requests.push(head);
            let answers = inner.answers.entry(request_line).or_default();
            let answer = if answers.len() > 1 {
                answers.pop_front()
            } else {
                answers.front().cloned()
            };
            let none = b"HTTP/1.1 404 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            answer.unwrap_or((none.to_vec(), ResponseEnd::Close))
        };
        self.count.send_modify(|count| count.requests += 1);
        // The client may already have closed the connection.
        let _ = stream.write_all(&bytes).await;
        match end {
            ResponseEnd::Close | ResponseEnd::Keep => {}
            ResponseEnd::Silence => silence(stream).await,
            ResponseEnd::Stuck(zeros) => {
                for _ in 0..zeros / 8192 {
                    let _ = stream.write_all(&[0; 8192]).await;
                }
                silence(stream).await;
            }
            ResponseEnd::Trickle => {
                while stream.write_all(&[0]).await.is_ok() {
                    tokio::time::sleep(super::wire::TRICKLE_INTERVAL).await;
                }
            }
            ResponseEnd::Forever => while stream.write_all(&[0; 8192]).await.is_ok() {},
        }
        Some(end)
    }
}

/// Waits until the client closes the connection.
async fn silence(stream: &mut BufReader<TcpStream>) {
    let mut nothing = String::new();
    let _ = stream.read_line(&mut nothing).await;
}
