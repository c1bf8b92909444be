//! Floods of requests to `/media`: they do not delay messages, and forged tokens use no threads or database queries.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use replyhook::{Context, InboundMessage, Media, Reply};

use crate::support::{
    ACCOUNT, ORIGIN, RawServer, ResponseEnd, ScriptedServer, Server, TempStore, Webhook,
    twiml_message, wire,
};

/// Path with a forged token of the same length as a real one.
fn forged_path(number: usize) -> String {
    format!("/media/{number:A>64}")
}

/// Stores a file of this size through an app, and returns the path of its link.
fn create_link(store: &TempStore, bytes: usize) -> String {
    let file = Media::bytes(vec![7; bytes], "video/mp4");
    let bot = move |_: Context, _: InboundMessage| {
        let file = file.clone();
        async move { Reply::media(file) }
    };
    let twiml = store.app(|app| app.handler(bot), async |app| app.says(1, "hi").await);
    path(&twiml)
}

fn path(twiml: &str) -> String {
    let (_, rest) = twiml.split_once(ORIGIN).unwrap();
    rest.split('<').next().unwrap().to_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// Asserts that a message gets its reply in time. It has its own user, so that no guard blocks it.
fn assert_answered(server: &Server, number: u64) {
    let from = format!("whatsapp:+1555000{number:04}");
    let message = Webhook::message(number, "hi").with("From", &from);
    assert_eq!(server.send(&message).twiml(), twiml_message("hi"));
}

/// Sends each request on its own connection, all at the same time.
fn send_concurrently(server: &Server, paths: impl Iterator<Item = String>) -> Vec<TcpStream> {
    let started = paths.map(|path| {
        let mut stream = wire::connect(server.public);
        let request = get(&path);
        let (all_but_end, end) = request.split_at(request.len() - 1);
        stream.write_all(all_but_end.as_bytes()).unwrap();
        (stream, end.to_owned())
    });
    let mut started: Vec<_> = started.collect();
    for (stream, end) in &mut started {
        stream.write_all(end.as_bytes()).unwrap();
    }
    started.into_iter().map(|(stream, _)| stream).collect()
}

fn statuses(streams: &mut [TcpStream]) -> Vec<u16> {
    let status = |stream| wire::read_response(stream).map_or(0, |answer| answer.status);
    streams.iter_mut().map(status).collect()
}

fn threads(server: &Server) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid()));
    tasks.unwrap().count()
}

/// Number of open descriptors of files whose path contains `name`.
fn descriptors(server: &Server, name: &str) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains(name))
        .count()
}

/// Sends a request on a connection with a small receive buffer, and does not read the response.
async fn slow_reader(server: &Server, path: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.public).await.unwrap();
    let mut stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    stream.write_all(get(path).as_bytes()).unwrap();
    stream
}

/// Returns how many readers got the file, and asserts that the others got a 503 with Retry-After.
fn count_served(readers: &mut [TcpStream]) -> usize {
    let mut served = 0;
    for reader in readers {
        let head = wire::read_head(reader).unwrap();
        if head.starts_with("HTTP/1.1 200 ") {
            served += 1;
        } else {
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            assert!(head.contains("retry-after: 5\r\n"), "{head}");
        }
    }
    served
}

/// A hundred megabytes in KiB, the unit of [`Server::resident`].
const HUNDRED_MB: u64 = 100_000_000 / 1024;

#[test]
fn forged_media_tokens_use_no_thread_or_lookup() {
    let store = TempStore::new();
    let path = create_link(&store, 100);
    let server = store.server();
    assert_answered(&server, 101);
    let before = (threads(&server), descriptors(&server, "kept.db"));
    // From here on, every lookup of a link fails.
    let db = rusqlite::Connection::open(store.path()).unwrap();
    db.execute("ALTER TABLE media_link RENAME TO away", [])
        .unwrap();
    for round in 0..3 {
        let mut streams =
            send_concurrently(&server, (0..300).map(|n| forged_path(1000 * round + n)));
        assert_eq!(statuses(&mut streams), [404; 300]);
    }
    let after = (threads(&server), descriptors(&server, "kept.db"));
    // The server's periodic reads may open up to four connections, each with a thread and two descriptors.
    assert!(after.0 <= before.0 + 4, "threads: {before:?} {after:?}");
    assert!(after.1 <= before.1 + 9, "descriptors: {before:?} {after:?}");
    assert_answered(&server, 102);
    let status = || wire::exchange(server.public, get(&path).as_bytes()).unwrap();
    let real = status();
    assert_eq!(real.assert_rejected(503), "store unavailable\n");
    assert_eq!(real.header("retry-after"), Some("5"));
    db.execute("ALTER TABLE away RENAME TO media_link", [])
        .unwrap();
    assert_eq!(status().status, 200);
}

#[test]
fn concurrent_media_readers_share_few_database_connections() {
    let store = TempStore::new();
    let path = create_link(&store, 1024 * 1024);
    let server = store.server();
    for _ in 0..3 {
        let mut streams = send_concurrently(&server, (0..90).map(|_| path.clone()));
        assert_eq!(statuses(&mut streams), [200; 90]);
    }
    // The writer, four readers for messages and two for files each have the database and its log open. The lock file
    // and the shared memory are open once.
    let open = descriptors(&server, "kept.db");
    assert!(open <= 7 * 2 + 2, "{open}");
    assert_answered(&server, 102);
}

// At most 96 readers are served; the others get 503, and messages still get their replies.
#[tokio::test(flavor = "multi_thread")]
async fn slow_media_readers_do_not_block_messages() {
    const READERS: usize = 130;
    let (store, path, server) = tokio::task::block_in_place(|| {
        let store = TempStore::new();
        let path = create_link(&store, 8 * 1024 * 1024);
        let server = store.server_with(&[("REPLYHOOK__SERVER__WRITE_TIMEOUT_MS", "60000")]);
        (store, path, server)
    });
    let before = server.resident();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(slow_reader(&server, &path).await);
    }
    tokio::task::block_in_place(|| {
        assert_eq!(count_served(&mut readers), 96);
        let growth = server.resident().saturating_sub(before);
        assert!(growth < HUNDRED_MB, "{growth} KiB");
        for number in 10..20 {
            assert_answered(&server, number);
        }
        drop(readers);
        // Each permit is released when the server notices the closed connection.
        let whole = wire::exchange(server.public, get(&path).as_bytes()).unwrap();
        assert_eq!((whole.status, whole.body.len()), (200, 8 * 1024 * 1024));
    });
    drop(store);
}

// At most 64 downloads from Twilio run concurrently, and further readers get 503.
#[tokio::test(flavor = "multi_thread")]
async fn slow_media_readers_make_few_twilio_calls() {
    const READERS: usize = 300;
    let (storage, service) = (RawServer::start().await, ScriptedServer::start().await);
    service.queue_response("/message", 204, "", "");
    let message = format!("MM{:032x}", 1);
    let media = "ME00000000000000000000000000000001";
    let call = format!("GET /2010-04-01/Accounts/{ACCOUNT}/Messages/{message}/Media/{media}");
    let begin = "HTTP/1.1 200 x\r\ncontent-type: video/mp4\r\ncontent-length: 16777216\r\n\r\n";
    storage.queue_bytes(&call, begin, ResponseEnd::Forever);
    let url = format!("{}/message", service.url());
    let secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let settings = [
        ("REPLYHOOK__TWILIO__API_URL", storage.url()),
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", secret),
        ("REPLYHOOK__SERVER__WRITE_TIMEOUT_MS", "60000"),
    ];
    let incoming = Webhook::message(1, "")
        .with("MessageSid", &message)
        .with("NumMedia", "1")
        .with("MediaUrl0", &format!("https://api.twilio.com/{media}"))
        .with("MediaContentType0", "video/mp4");
    let server = tokio::task::block_in_place(|| {
        let server = Server::start(&settings);
        server.send(&incoming).twiml();
        server
    });
    let message: serde_json::Value = serde_json::from_slice(&service.requests()[0].body).unwrap();
    let link = message["media"][0]["link"].as_str().unwrap();
    let path = link.strip_prefix(ORIGIN).unwrap();
    let before = server.resident();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(slow_reader(&server, path).await);
    }
    tokio::task::block_in_place(|| {
        assert_eq!(count_served(&mut readers), 64);
        assert_eq!(storage.requests().len(), 64);
        let growth = server.resident().saturating_sub(before);
        assert!(growth < HUNDRED_MB, "{growth} KiB");
        server.send(&Webhook::message(2, "hi")).twiml();
    });
    drop(readers);
    storage.wait_for_closed(64).await;
    let mut next_reader = slow_reader(&server, path).await;
    tokio::task::block_in_place(|| {
        assert_eq!(count_served(std::slice::from_mut(&mut next_reader)), 1);
    });
}

#[test]
fn media_link_survives_restart_and_forgeries_get_404() {
    let store = TempStore::new();
    let path = create_link(&store, 100);
    let (tagged, end) = path.split_at(path.len() - 1);
    let wrong_tag = format!("{tagged}{}", if end == "A" { "B" } else { "A" });
    let mut answers = Vec::new();
    for _ in 0..2 {
        let server = store.server();
        let found = wire::exchange(server.public, get(&path).as_bytes()).unwrap();
        assert_eq!((found.status, found.body.len()), (200, 100));
        for path in [&wrong_tag, &forged_path(1)] {
            let rejected = wire::exchange(server.public, get(path).as_bytes()).unwrap();
            answers.push((rejected.status, rejected.body));
        }
    }
    assert_eq!(answers, vec![(404, "not found\n".to_owned()); 4]);
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use super::*;
    use crate::support::postgres::TestDatabase;
    use crate::support::{TestApp, report_skipped};

    /// Creates a database with a media link, and returns it with the link's path; `None` without PostgreSQL.
    async fn create_postgres_link() -> Option<(TestDatabase, String)> {
        let Some(database) = TestDatabase::create().await else {
            report_skipped("media links over PostgreSQL");
            return None;
        };
        let url = database.url();
        let app = TestApp::build(&[("DATABASE_URL", url.expose())], |app| {
            app.handler(async |_, _| Reply::media(Media::bytes(*b"a file", "video/mp4")))
        });
        let path = path(&app.says(1, "hi").await);
        app.shut_down().await;
        Some((database, path))
    }

    fn server(database: &TestDatabase) -> Server {
        Server::start(&[("DATABASE_URL", database.url().expose())])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn media_link_works_on_every_machine() {
        let Some((database, path)) = create_postgres_link().await else {
            return;
        };
        tokio::task::block_in_place(|| {
            for server in [server(&database), server(&database)] {
                let found = wire::exchange(server.public, get(&path).as_bytes()).unwrap();
                assert_eq!((found.status, found.body.as_str()), (200, "a file"));
            }
        });
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn forged_media_tokens_ignore_locked_table() {
        let Some((database, path)) = create_postgres_link().await else {
            return;
        };
        let server = tokio::task::block_in_place(|| server(&database));
        let mut db = database.connect().await;
        let lock = "BEGIN; LOCK TABLE media_link IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut db).await.unwrap();
        tokio::task::block_in_place(|| {
            let mut wrong_tag = path.clone();
            wrong_tag.replace_range(
                path.len() - 1..,
                if path.ends_with('A') { "B" } else { "A" },
            );
            let paths = (0..100).map(|n| [forged_path(n), wrong_tag.clone()][n % 2].clone());
            let mut streams = send_concurrently(&server, paths);
            assert_eq!(statuses(&mut streams), [404; 100]);
            // Only a real token makes the server query the table, where it waits for the lock.
            let real = wire::exchange(server.public, get(&path).as_bytes()).unwrap();
            assert_eq!(real.assert_rejected(503), "store unavailable\n");
        });
        drop(db);
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_media_links_leave_connections_for_messages() {
        let Some((database, path)) = create_postgres_link().await else {
            return;
        };
        let server = tokio::task::block_in_place(|| server(&database));
        let mut db = database.connect().await;
        let lock = "BEGIN; LOCK TABLE media_link IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut db).await.unwrap();
        tokio::task::block_in_place(|| {
            let mut streams = send_concurrently(&server, (0..90).map(|_| path.clone()));
            for number in 10..30 {
                assert_answered(&server, number);
            }
            assert_eq!(statuses(&mut streams), [503; 90]);
            // A link that cannot be read does not count as an outage of the database.
            assert_answered(&server, 30);
        });
        drop(db);
        database.remove().await;
    }
}
