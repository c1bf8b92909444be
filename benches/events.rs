//! Response time of messages while the service at `handler.events_url` hangs. Linux only.
//!
//! A thousand events wait, and every tenth message adds one. The service accepts connections and never responds. The same
//! messages go alternately to a server with this service, and to one without events. The p99 response times are divided.
//!
//! `cargo bench --bench events` prints the figures. With `-- --check` it exits with 1 if a limit is missed.
//! `-- --binary PATH` measures another build of the program.

mod arrivals;
mod figures;
mod running;
mod runtime;
#[expect(
    dead_code,
    reason = "this benchmark starts no server without replyhook"
)]
mod servers;
mod steady;
mod webhook;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrivals::send_all;
use figures::{Figures, Run, median};
use replyhook::signature::sign;
use replyhook::{FormParams, Secret};
use servers::{Server, http};
use webhook::{PUBLIC_URL, TARGET, TEXT, TOKEN, Webhook};

/// Limit: p99 response time, divided by that of the server without events. An event is one more row in the transaction.
const MAX_RATIO: f64 = 1.5;
/// Limit: messages that fail.
const MAX_FAILED: f64 = 0.0;
/// Interval of the messages: 200 a second. At more, the queue of a slow machine would be measured, and not the service.
const INTERVAL: Duration = Duration::from_millis(5);
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// Extent of a run.
struct Plan {
    rounds: u32,
    /// Messages in each round.
    messages: u32,
    /// Events that wait before the first round.
    queued: u32,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let run = Run::from_args();
    let (rounds, messages, queued) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, 20, 5),
        // The median of many rounds, because a shared disk sometimes delays an fsync by more than anything else does.
        Run::Measure | Run::Check => (9, 600, 1_000),
    };
    let plan = Plan {
        rounds,
        messages,
        queued,
    };
    let binary = args.iter().skip_while(|arg| *arg != "--binary").nth(1);
    let binary = binary.map_or(env!("CARGO_BIN_EXE_replyhook"), String::as_str);
    // Before any thread starts, since threads inherit the processor.
    servers::stay_on(servers::CLIENT);
    let mut figures = Figures::new(run);
    measure(binary, &plan, &mut figures);
    figures.end()
}

fn measure(binary: &str, plan: &Plan, figures: &mut Figures) {
    let (url, hanging_requests) = start_hanging_service();
    let events = [
        ("REPLYHOOK__HANDLER__EVENTS_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
    ];
    let hanging = Server::replyhook(binary, &events);
    let without = Server::replyhook(binary, &[]);
    // Waits until both listen.
    drop((hanging.connect(), without.connect()));
    // The stores of both servers get the same messages.
    let queued: Vec<_> = (0..plan.queued).map(opt_out).collect();
    let mut failed = 0;
    for server in [&hanging, &without] {
        failed += send_all(server.address, &queued, INTERVAL).1;
    }
    let round = |server: &Server, number: u32| {
        let first = plan.queued + number * plan.messages;
        let requests = (first..first + plan.messages).map(|number| match number % 10 {
            0 => opt_out(number),
            _ => ordinary(number),
        });
        let requests: Vec<_> = requests.collect();
        send_all(server.address, &requests, INTERVAL)
    };
    // Alternately, so that a change of the machine's speed affects both sides.
    let (mut on_hanging, mut on_other) = (Vec::new(), Vec::new());
    for number in 0..plan.rounds {
        for (server, waits) in [(&hanging, &mut on_hanging), (&without, &mut on_other)] {
            let (p99, failed_here) = round(server, number);
            waits.push(p99);
            failed += failed_here;
        }
    }
    let fsync = hanging.fsync_ms(plan.messages / 20);
    let (hanging_p99, other_p99) = (median(on_hanging), median(on_other));
    figures.show("p99 of an fsync", fsync, "ms");
    let requests = f64::from(hanging_requests.load(Ordering::Relaxed));
    figures.show("requests to the service that hang", requests, "");
    let peak = hanging.process.memory_kib("VmHWM");
    figures.show("peak memory, service hangs", peak, "kB");
    figures.limit("failed messages", f64::from(failed), "", MAX_FAILED);
    figures.show("p99 response time, service hangs", hanging_p99, "ms");
    figures.show("same, without events", other_p99, "ms");
    figures.limit("ratio of p99", hanging_p99 / other_p99, "×", MAX_RATIO);
}

/// Starts a service that accepts connections and never reads. Returns its URL, and the number of connections.
fn start_hanging_service() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = listener.local_addr().expect("it is bound");
    // Relaxed: the number is read after the last round, and may miss the newest connection.
    let accepted = Arc::new(AtomicU32::new(0));
    let counter = accepted.clone();
    std::thread::spawn(move || {
        // Kept, since a closed connection would not hang.
        let mut connections = Vec::new();
        for connection in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            connections.push(connection);
        }
    });
    (format!("http://{address}/events"), accepted)
}

/// Returns a message of a user, as other benchmarks send it.
fn ordinary(number: u32) -> Vec<u8> {
    let webhook = Webhook::numbered(number);
    http(&webhook.body, &webhook.signature)
}

/// Returns a message with which a user of its own opts out, which is an event.
fn opt_out(number: u32) -> Vec<u8> {
    // Not a number of `ordinary`, whose users go on writing.
    let (sid, phone) = (
        format!("SM{number:032x}"),
        format!("whatsapp:+1666{number:07}"),
    );
    let form = FormParams::from_iter([
        ("MessageSid", sid.as_str()),
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("From", &phone),
        ("To", "whatsapp:+15550002222"),
        ("Body", "STOP"),
        ("NumMedia", "0"),
        // As long as the other messages.
        ("ProfileName", TEXT),
    ]);
    let url = format!("{PUBLIC_URL}{TARGET}");
    let signature = sign(&Secret::new(TOKEN), &url, Some(&form)).expect("the token is not blank");
    http(&form.encode(), &signature)
}
