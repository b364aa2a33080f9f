//! The server's metrics under the names operators expect: Prometheus names with labels, in a stable order.

mod calls;

pub use calls::RecordNumbers;

use super::crew::Stats;
use super::delay::BOUNDS_NS;
use crate::base::Transport;
use crate::base::metric::Families;
use crate::net::counters::{Handshakes, KINDS, SIDES, Traffic};
use crate::net::sys;
use crate::net::tls::Certificate;
use crate::net::{ListenerCounters, State, StreamCounters, Undeliverable};
use crate::settings::Words;
use crate::stack::counters::{AuthOutcome, Counters, Drop, Limit, Lookup, MethodLabel, Registration, Side};
use crate::trace::TraceCounters;
use std::time::Duration;

/// What is counted outside the workers.
#[derive(Clone, Debug, Default)]
pub struct ProcessStats {
    /// Contacts in the location service now.
    pub bindings: usize,
    /// Memory limit, in bytes, for these and recently removed bindings.
    pub binding_bytes: usize,
    /// Users in force.
    pub users: usize,
    /// The users in force are the previous ones, because the file or database of users cannot be read now.
    pub users_unreadable: bool,
    /// Start time of the server, since 1970.
    pub started: Duration,
    /// Idle clients of the metrics and the control socket that were closed to make room for others.
    pub displaced_clients: u64,
    /// The server is stopping and accepts nothing new.
    pub is_draining: bool,
    pub store: Store,
    /// Present if the location table is shared.
    pub sharing: Option<Shared>,
    /// Log lines that standard error did not take.
    pub log_lines_lost: u64,
    pub trace: TraceCounters,
    /// Present if call records are written.
    pub records: Option<RecordNumbers>,
    /// Trunks, and whether each is registered.
    pub trunks: Vec<(String, bool)>,
    /// Certificates that are shown or trusted.
    pub certificates: Vec<Certificate>,
    pub restarts: Restarts,
}

/// What is known of restarts that the connections outlived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    /// Since the first start of all.
    pub restarts: u64,
    /// Attempts of this process that have failed.
    pub failures: u64,
    /// What the process that served before still has, if it lives: transactions, connections, and seconds until its deadline.
    pub predecessor: Option<(usize, usize, f64)>,
}

/// Counters of the bindings' journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store {
    /// Addresses-of-record that have changed and are not on disk yet.
    pub unstored: usize,
    /// Failed attempts to open, read or write the database.
    pub failures: u64,
    /// Database transactions, and the total seconds they took.
    pub batches: u64,
    pub batch_seconds: f64,
    /// Database rows that were read but rejected.
    pub unusable: u64,
}

/// Counters of the location table that several servers share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared {
    pub is_up: bool,
    pub untold: usize,
    pub lag_seconds: f64,
    pub told: u64,
    pub rejected: u64,
    pub taken_in: u64,
    pub unusable: u64,
    pub no_room: u64,
    pub failures: u64,
    pub readings: u64,
}

/// One metric a line: its kind, name, help text and value.
macro_rules! families {
    ($list:expr; $($kind:ident $name:literal, $help:literal = $value:expr;)+) => {
        $($list.$kind($name, $help).is($value);)+
    };
}

/// A counter with a label for each variant.
macro_rules! by_label {
    ($list:expr, $name:literal, $help:literal, $key:literal, $labels:ident = $counts:expr) => {
        let family = $list.counter($name, $help);
        for (label, count) in $labels::ALL.iter().zip($counts) {
            family.of(&[($key, &label.label())], count);
        }
    };
}

/// Returns all metrics of the server.
pub fn metrics(stats: &Stats, beside: &ProcessStats) -> Families {
    let mut list = Families::default();
    messages(&mut list, stats);
    rules(&mut list, &stats.numbers.counters);
    calls::outcomes(&mut list, &stats.numbers.counters.calls);
    hit(&mut list, "requests_per_source", stats.numbers.shut_out);
    hit(&mut list, "desk_clients", beside.displaced_clients);
    families! { list;
        gauge "strowger_banned_sources", "Sources that are banned now ([limits] ban)." = stats.numbers.banned_sources;
    }
    let transactions =
        list.gauge("strowger_transactions", "Transactions in memory, those that only answer retransmissions included.");
    let occupancy = &stats.numbers.occupancy;
    transactions.of(&[("kind", &"server")], occupancy.server_transactions);
    transactions.of(&[("kind", &"client")], occupancy.client_transactions);
    families! { list;
        gauge "strowger_transaction_bytes", "Bytes of the messages that transactions hold." = occupancy.blob_bytes;
        gauge "strowger_requests_pending", "Requests that wait for their final response." = occupancy.pending;
        gauge "strowger_requests_parked",
            "Branches, and messages without a transaction, that wait for the name of their next hop." = occupancy.parked;
        gauge "strowger_dns_names", "Answers of the domain name system that are remembered or awaited." = occupancy.names;
        gauge "strowger_timers", "Timers that are set." = occupancy.timers;
        gauge "strowger_bindings", "Contacts in the location service." = beside.bindings;
        gauge "strowger_binding_bytes",
            "Bytes of the contacts, paths and Call-IDs that bindings hold, by the 320 that each has begun." = beside.binding_bytes;
        gauge "strowger_users", "Users who can answer a challenge." = beside.users;
        gauge "strowger_users_unreadable",
            "1 while the users cannot be read and those of before are in force." = beside.users_unreadable;
        gauge "strowger_draining", "1 while no new dialogs are begun because the server is about to stop." = beside.is_draining;
    }
    store(&mut list, stats, &beside.store);
    if let Some(sharing) = &beside.sharing {
        shared(&mut list, sharing);
    }
    dropped(&mut list, stats);
    listeners(&mut list, stats);
    streams(&mut list, &stats.numbers.streams);
    mail(&mut list, stats);
    workers(&mut list, stats);
    traces(&mut list, &beside.trace);
    if let Some(numbers) = &beside.records {
        calls::records(&mut list, numbers);
    }
    trunks(&mut list, &beside.trunks);
    restarts(&mut list, &beside.restarts);
    certificates(&mut list, &beside.certificates);
    process(&mut list, beside);
    list
}

fn restarts(list: &mut Families, restarts: &Restarts) {
    let (transactions, connections, seconds) = restarts.predecessor.unwrap_or_default();
    families! { list;
        counter "strowger_restarts_total", "Processes that have served before this one and handed over to the next." = restarts.restarts;
        counter "strowger_restarts_failed_total", "Restarts that were refused or failed: this process went on serving." = restarts.failures;
        gauge "strowger_predecessor", "1 while the process that served before this one lives." = restarts.predecessor.is_some();
        gauge "strowger_predecessor_transactions", "Transactions that it still has. They are in no other metric." = transactions;
        gauge "strowger_predecessor_connections", "Connections that it still has. They are in no other metric." = connections;
        gauge "strowger_predecessor_seconds", "Time until it ends in any case." = seconds;
    }
}

fn trunks(list: &mut Families, trunks: &[(String, bool)]) {
    let family = list.gauge("strowger_trunk_registered", "Whether the registration with the carrier of a [[trunk]] holds: 1 or 0.");
    for (name, is_registered) in trunks {
        family.of(&[("trunk", name)], *is_registered);
    }
}

fn certificates(list: &mut Families, certificates: &[Certificate]) {
    let family = list.gauge(
        "strowger_tls_certificate_expires_seconds",
        "When a certificate, or the first of its chain, ceases to be valid, in seconds since 1970. Role: shown or trusted.",
    );
    let key = |certificate: &Certificate| (certificate.file.clone(), certificate.role, certificate.subject.clone());
    // They are sorted. One of several authorities of one name is enough: the first to end.
    for alike in certificates.chunk_by(|one, other| key(one) == key(other)) {
        let Some(certificate) = alike.iter().min_by_key(|certificate| certificate.valid_until) else {
            continue;
        };
        let file = certificate.file.display();
        let labels: [(&str, &dyn std::fmt::Display); 3] =
            [("file", &file), ("name", &certificate.subject), ("role", &certificate.role.label())];
        family.of(&labels, certificate.valid_until as f64);
    }
}

/// One of the two directions.
type Direction = (&'static str, fn(&ListenerCounters) -> &Traffic);

fn messages(list: &mut Families, stats: &Stats) {
    let directions: [Direction; 2] = [("in", |listener| &listener.received), ("out", |listener| &listener.sent)];
    for (name, transport) in Transport::WORDS {
        for (direction, traffic) in directions {
            let sum = |pick: &dyn Fn(&Traffic) -> u64| -> u64 {
                let own = stats.listeners.iter().filter(|(t, _, _)| t == transport);
                own.map(|(_, _, l)| pick(traffic(l))).sum()
            };
            let messages = list.counter("strowger_messages_total", "Messages received and sent, by what they are.");
            for (number, kind) in KINDS.iter().enumerate() {
                messages.of(
                    &[("transport", name), ("direction", &direction), ("kind", kind)],
                    sum(&|traffic| traffic.messages[number]),
                );
            }
            let labels: [(&str, &dyn std::fmt::Display); 2] = [("transport", name), ("direction", &direction)];
            list.counter("strowger_message_bytes_total", "Bytes of the messages received and sent.")
                .of(&labels, sum(&|traffic| traffic.bytes));
            list.counter("strowger_message_batches_total", "System calls that received or sent at least one message.")
                .of(&labels, sum(&|traffic| traffic.batches));
        }
    }
}

/// Limits that were hit are counted by the rules, by the wires and outside them.
fn hit(list: &mut Families, limit: &str, count: u64) {
    list.counter("strowger_limit_hits_total", "Times that something was refused or put off because a limit was reached.")
        .of(&[("limit", &limit)], count);
}

const SHED: (&str, &str) = (
    "strowger_shed_total",
    "New requests that were not served because of overload: answered 503 (or, of calls, forgotten after waiting too long), or dropped by the kernel before they were queued.",
);

fn rules(list: &mut Families, counters: &Counters) {
    by_label!(
        list,
        "strowger_requests_total",
        "Requests received, by method, retransmissions included.",
        "method",
        MethodLabel = counters.requests
    );
    let responses = list.counter("strowger_responses_total", "Responses received from next hops, by class.");
    for (class, count) in (1..).zip(counters.responses) {
        responses.of(&[("class", &format_args!("{class}xx"))], count);
    }
    by_label!(
        list,
        "strowger_retransmissions_total",
        "Requests that came again (server), and requests and ACKs that were sent again (client).",
        "side",
        Side = counters.retransmissions
    );
    by_label!(
        list,
        "strowger_registrations_total",
        "REGISTER requests, by what they came to.",
        "outcome",
        Registration = counters.registrations
    );
    by_label!(
        list,
        "strowger_auth_total",
        "Requests that had to prove who sent them, by what their credentials came to.",
        "outcome",
        AuthOutcome = counters.auth
    );
    for (limit, count) in Limit::ALL.iter().zip(counters.limit_hits) {
        hit(list, limit.label(), count);
    }
    list.counter(SHED.0, SHED.1).of(&[("by", &"answer")], counters.limit_hits[Limit::Overload as usize]);
    by_label!(
        list,
        "strowger_dns_queries_total",
        "Questions to the domain name system, by what they came to.",
        "outcome",
        Lookup = counters.lookups
    );
    families! { list;
        counter "strowger_requests_refused_total",
            "Requests that this server itself answered with a 4xx, 5xx or 6xx, challenges included." = counters.refused;
        counter "strowger_flows_dead_total",
            "Bindings passed over because the connection to their phone was gone." = counters.dead_flows;
        counter "strowger_requests_stateless_total", "Requests forwarded without a transaction." = counters.stateless;
    }
}

fn dropped(list: &mut Families, stats: &Stats) {
    let dropped =
        list.counter("strowger_dropped_total", "Messages that were neither processed nor answered, or could not be sent.");
    for (reason, count) in Drop::ALL.iter().zip(stats.numbers.counters.dropped) {
        dropped.of(&[("reason", &reason.label())], count);
    }
    for reason in Undeliverable::ALL {
        let each = stats.listeners.iter();
        let count = each.map(|(_, _, listener)| listener.undelivered[reason as usize]);
        dropped.of(&[("reason", &reason.label())], count.sum::<u64>());
    }
    dropped.of(&[("reason", &"banned")], stats.numbers.banned);
    dropped.of(&[("reason", &"mail_full")], stats.numbers.mail.dropped_full);
    let unknown = stats.numbers.mail.dropped_unknown;
    dropped.of(&[("reason", &"mail_unknown_core")], unknown);
}

fn store(list: &mut Families, stats: &Stats, store: &Store) {
    families! { list;
        gauge "strowger_bindings_unstored", "Addresses-of-record that have changed and are not on disk yet." = store.unstored;
        counter "strowger_store_failures_total",
            "Attempts to open, read or write the database of bindings that failed." = store.failures;
        counter "strowger_bindings_unusable_total",
            "Rows of the database that hold what no REGISTER could have brought, and were left out when it was read." = store.unusable;
        counter "strowger_store_batches_total", "Batches of bindings that were written to disk." = store.batches;
        counter "strowger_store_batch_seconds_total", "Time that writing these batches took." = store.batch_seconds;
    }
    let held = &stats.numbers.held;
    families! { list;
        gauge "strowger_registrations_held", "Answers to registrations that wait for the disk." = held.waiting;
        counter "strowger_registrations_held_total", "Answers to registrations that have waited for the disk." = held.kept;
        counter "strowger_registrations_unstored_total",
            "Registrations that were answered 503 because they could not be stored: at once, or after a wait for the disk, or because too many waited."
            = stats.numbers.counters.unstored + held.refused + held.full;
    }
    hit(list, "held_answers", held.full);
}

fn shared(list: &mut Families, shared: &Shared) {
    families! { list;
        gauge "strowger_shared_up", "1 while the location table is shared with the other servers." = shared.is_up;
        gauge "strowger_shared_untold",
            "Addresses-of-record with changes that the other servers were not told of yet." = shared.untold;
        gauge "strowger_shared_lag_seconds", "For how long there has been something to tell the other servers." = shared.lag_seconds;
        counter "strowger_shared_told_total", "Changes of bindings that the shared table has accepted." = shared.told;
        counter "strowger_shared_rejected_total",
            "Changes of bindings that the shared table has rejected because it had a newer one." = shared.rejected;
        counter "strowger_shared_taken_in_total", "Changes of bindings that came from the other servers." = shared.taken_in;
        counter "strowger_shared_unusable_total",
            "What the shared table has that no server could have written, and that was left alone." = shared.unusable;
        counter "strowger_shared_no_room_total",
            "Bindings of other servers that [limits] bindings left no room for." = shared.no_room;
        counter "strowger_shared_failures_total", "Attempts to speak to the shared table that failed." = shared.failures;
        counter "strowger_shared_readings_total", "Times that the whole shared table was read." = shared.readings;
    }
}

fn listeners(list: &mut Families, stats: &Stats) {
    let udp = || {
        let all = stats.listeners.iter();
        all.filter(|(transport, _, _)| *transport == Transport::Udp)
    };
    macro_rules! by_listener {
        ($kind:ident $name:literal, $help:literal = $field:ident) => {
            let family = list.$kind($name, $help);
            for (_, address, listener) in udp() {
                family.of(&[("listener", address)], listener.$field);
            }
        };
    }
    by_listener!(counter "strowger_udp_kernel_drops_total",
        "Datagrams that the kernel threw away because the receive buffer was full." = kernel_drops);
    let shed = udp().map(|(_, _, listener)| listener.shed).sum::<u64>();
    list.counter(SHED.0, SHED.1).of(&[("by", &"kernel")], shed);
    by_listener!(gauge "strowger_udp_receive_buffer_bytes", "Receive buffers that the kernel granted." = receive_buffer);
    by_listener!(gauge "strowger_udp_send_buffer_bytes", "Send buffers that the kernel granted." = send_buffer);
    by_listener!(gauge "strowger_udp_send_queue_bytes", "Bytes that wait for the kernel to take them." = waiting_bytes);
    by_listener!(counter "strowger_udp_icmp_errors_total", "Datagrams of ours that came back as undeliverable." = icmp_errors);
}

fn streams(list: &mut Families, streams: &StreamCounters) {
    let connections = list.gauge("strowger_connections", "TCP and TLS connections, by the state they are in.");
    for transport in [Transport::Tcp, Transport::Tls] {
        let name = transport.word();
        for state in State::SHOWN {
            connections.of(&[("transport", &name), ("state", &state.label())], streams.open(transport, state));
        }
    }
    families! { list;
        counter "strowger_connections_accepted_total", "Connections that peers opened." = streams.accepted;
        counter "strowger_connections_opened_total", "Connections that this server began to open." = streams.connecting;
        counter "strowger_connections_failed_total", "Connections of ours that were not answered." = streams.failed;
        counter "strowger_connections_banned_total",
            "Connections that were not taken, or were closed, because their source is banned." = streams.banned;
        counter "strowger_proxy_header_failed_total",
            "Connections from networks in proxy_protocol that were closed because the PROXY header was wrong, incomplete or missing."
            = streams.proxy_header_failed;
        counter "strowger_connections_idle_closed_total",
            "Connections closed because nothing had come or gone for too long." = streams.idle_closed;
        counter "strowger_connections_unfinished_total",
            "Connections closed because a message was not complete within message_timeout." = streams.unfinished;
        counter "strowger_connections_displaced_total",
            "Connections that sent no more and waited for answers, closed because others needed their places." = streams.displaced;
        counter "strowger_connections_unframed_total",
            "Connections closed because no message could be found in what they brought." = streams.garbage;
        counter "strowger_connections_accept_errors_total",
            "Connections that the kernel could not hand over." = streams.accept_errors;
        counter "strowger_idle_sweep_visited_total",
            "Entries of the list of idle connections that were looked at." = streams.sweep_visited;
    }
    stream_limits(list, streams);
    handshakes(list, streams);
}

fn stream_limits(list: &mut Families, streams: &StreamCounters) {
    hit(list, "connections", streams.refused);
    hit(list, "tls_handshakes", streams.handshakes_held);
    hit(list, "tls_overload", streams.handshakes_refused);
    hit(list, "connections_of_source", streams.yielded);
    hit(list, "tls_stalled", streams.stalled);
    hit(list, "keep_alive_bytes", streams.blank);
    hit(list, "unfinished_bytes", streams.crowded);
    hit(list, "unsent_bytes", streams.unsent);
    families! { list;
        gauge "strowger_unsent_bytes", "Bytes that wait on connections for their peers to take them." = streams.unsent_bytes;
        gauge "strowger_unfinished_bytes",
            "Memory of messages that have begun on connections and are not whole." = streams.unfinished_bytes;
    }
}

/// A column of the handshakes' table.
type HandshakeColumn = (&'static str, fn(&Handshakes) -> u64);

fn handshakes(list: &mut Families, streams: &StreamCounters) {
    let kinds: [HandshakeColumn; 4] = [
        ("full", |handshakes| handshakes.full),
        ("resumed", |handshakes| handshakes.resumed),
        ("mutual", |handshakes| handshakes.mutual),
        ("failed", |handshakes| handshakes.failed),
    ];
    let handshakes = list.counter(
        "strowger_tls_handshakes_total",
        "TLS handshakes that ended: full, resumed or failed; a mutual one counts as full or resumed too.",
    );
    for (side, counters) in SIDES.iter().zip(&streams.handshakes) {
        for (kind, pick) in kinds {
            handshakes.of(&[("side", side), ("kind", &kind)], pick(counters));
        }
    }
    let calls =
        list.counter("strowger_tls_handshake_calls_total", "Calls of SSL_do_handshake: one for each flight of a handshake.");
    for (side, counters) in SIDES.iter().zip(&streams.handshakes) {
        calls.of(&[("side", side)], counters.calls);
    }
}

fn mail(list: &mut Families, stats: &Stats) {
    families! { list;
        counter "strowger_mail_sent_total", "Letters from one core to another." = stats.numbers.mail.sent;
        counter "strowger_mail_received_total", "Letters that arrived." = stats.numbers.mail.received;
        counter "strowger_mail_deliveries_total",
            "Times that one core handed letters to another, several at a time." = stats.numbers.mail.deliveries;
    }
}

fn workers(list: &mut Families, stats: &Stats) {
    list.histogram(
        "strowger_loop_delay_seconds",
        "What the turns of the loops took: for so long whatever came next had to wait.",
        &BOUNDS_NS.map(seconds),
        &stats.numbers.delay.buckets,
        seconds(stats.numbers.delay.sum_ns),
    );
    let core = |number: usize| stats.cores.get(number).copied().unwrap_or(0);
    let cpu = list.counter("strowger_worker_cpu_seconds_total", "CPU time of each worker.");
    for worker in &stats.workers {
        cpu.of(&[("core", &core(worker.core))], seconds(worker.cpu_ns));
    }
    let turns = list.counter("strowger_worker_turns_total", "Turns of each worker's loop.");
    for worker in &stats.workers {
        turns.of(&[("core", &core(worker.core))], worker.turns);
    }
    let long = list.counter(
        "strowger_long_turns_total",
        "Turns that took more than 100 ms, by whether the thread was working most of the time or did not run.",
    );
    for worker in &stats.workers {
        let (core, turns) = (core(worker.core), worker.long_turns);
        for (cause, count) in [("work", turns.working), ("halted", turns.halted)] {
            long.of(&[("core", &core), ("cause", &cause)], count);
        }
    }
}

fn traces(list: &mut Families, trace: &TraceCounters) {
    list.gauge("strowger_traces", "Clients that follow calls now (strowger trace).").is(trace.sessions);
    for (name, help, count) in [
        ("strowger_trace_events_total", "Messages, decisions and timers that were copied for those who follow calls.", trace.shown),
        ("strowger_trace_lost_total", "The same that were not copied, because whoever follows calls reads too slowly.", trace.lost),
        ("strowger_hep_sent_total", "Copies of messages that were sent to the collector ([trace] hep).", trace.hep_sent),
        ("strowger_hep_lost_total", "Copies of messages that could not be sent to it.", trace.hep_lost),
    ] {
        list.counter(name, help).is(count);
    }
}

/// Under the names that Prometheus's own libraries use.
fn process(list: &mut Families, beside: &ProcessStats) {
    families! { list;
        gauge "process_start_time_seconds", "When the server started, in seconds since 1970." = beside.started.as_secs_f64();
        counter "strowger_log_lines_lost_total",
            "Lines of the log that were not written: standard error did not take them in time." = beside.log_lines_lost;
    }
    let memory = list.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.");
    if let Some(bytes) = resident_bytes() {
        memory.is(bytes);
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Returns the resident memory of the process, from `/proc`.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * sys::page_size() as u64)
}
