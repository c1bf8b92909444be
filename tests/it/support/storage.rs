//! A server of raw answers, for what no honest one says: it writes what a test orders, byte by byte, and keeps what it was
//! asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What follows the bytes of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Close,
    /// Nothing, for as long as the other side waits.
    Silence,
    /// As many zeros as the other side takes.
    Forever,
    /// So many zeros, and then nothing.
    Stuck(usize),
}

#[derive(Default)]
struct Inner {
    /// For each method and path, what comes next; the last stays.
    answers: HashMap<String, VecDeque<(Vec<u8>, End)>>,
    /// Heads of requests.
    asked: Vec<String>,
}

#[derive(Clone)]
pub struct Storage {
    url: String,
    inner: Arc<Mutex<Inner>>,
    count: Arc<watch::Sender<usize>>,
}

impl Storage {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let storage = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::default(),
            count: Arc::new(watch::Sender::new(0)),
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

    /// The next answer to a method and path, as in `GET /x`: all of it, head and body.
    pub fn raw(&self, what: &str, bytes: impl Into<Vec<u8>>, end: End) {
        let mut inner = self.inner.lock().unwrap();
        let answers = inner.answers.entry(what.to_owned()).or_default();
        answers.push_back((bytes.into(), end));
    }

    /// A whole answer.
    pub fn answers(&self, what: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.raw(
            what,
            [(head + "\r\n").as_bytes(), body].concat(),
            End::Close,
        );
    }

    /// The heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.inner.lock().unwrap().asked.clone()
    }

    /// The method and path of each.
    pub fn lines(&self) -> Vec<String> {
        let line = |head: String| head.split(" HTTP/").next().unwrap_or_default().to_owned();
        self.asked().into_iter().map(line).collect()
    }

    /// Waits for so many requests.
    pub async fn wait_for(&self, requests: usize) {
        let mut count = self.count.subscribe();
        count.wait_for(|count| *count >= requests).await.unwrap();
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let what = head.split(" HTTP/").next().unwrap().to_owned();
        let (bytes, end) = {
            let mut inner = self.inner.lock().unwrap();
            inner.asked.push(head);
            let answers = inner.answers.entry(what).or_default();
            let answer = if answers.len() > 1 {
                answers.pop_front()
            } else {
                answers.front().cloned()
            };
            let none = b"HTTP/1.1 404 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            answer.unwrap_or((none.to_vec(), End::Close))
        };
        self.count.send_modify(|count| *count += 1);
        // Who asked may have had enough.
        let _ = stream.write_all(&bytes).await;
        match end {
            End::Close => {}
            End::Silence => silence(&mut stream).await,
            End::Stuck(zeros) => {
                for _ in 0..zeros / 8192 {
                    let _ = stream.write_all(&[0; 8192]).await;
                }
                silence(&mut stream).await;
            }
            End::Forever => while stream.write_all(&[0; 8192]).await.is_ok() {},
        }
    }
}

/// Until the other side is gone.
async fn silence(stream: &mut BufReader<TcpStream>) {
    let mut nothing = String::new();
    let _ = stream.read_line(&mut nothing).await;
}
