//! The server's numbers under the names that operators know: Prometheus names with labels, in a stable order.

use super::crew::Stats;
use super::delay::BOUNDS_NS;
use crate::base::Transport;
use crate::base::metric::Families;
use crate::net::counters::{Handshakes, KINDS, SIDES, Traffic};
use crate::net::sys;
use crate::net::{ListenerCounters, State, StreamCounters, Undeliverable};
use crate::settings::Words;
use crate::stack::counters::{AuthOutcome, Counters, Drop, Limit, Lookup, MethodLabel, Registration, Side};
use crate::trace::TraceCounters;
use std::time::Duration;

/// What is counted elsewhere than at the workers.
#[derive(Clone, Debug, Default)]
pub struct ProcessStats {
    /// Contacts in the location service now.
    pub bindings: usize,
    /// Bytes that these and those that have just gone may hold.
    pub binding_bytes: usize,
    /// Users in force.
    pub users: usize,
    /// They are those of before, because the file or database of users cannot be read now.
    pub users_unreadable: bool,
    /// When the server started, since 1970.
    pub started: Duration,
    /// Clients of the metrics and the control socket that idled and were closed for others.
    pub displaced_clients: u64,
    /// It was told to stop, and begins nothing new.
    pub is_draining: bool,
    pub store: Store,
    /// Lines of the log that standard error did not take.
    pub log_lines_lost: u64,
    pub trace: TraceCounters,
    /// Trunks, and whether each is registered.
    pub trunks: Vec<(String, bool)>,
}

/// What the journal of the bindings counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store {
    /// Addresses-of-record that have changed and are not on disk yet.
    pub unstored: usize,
    /// Attempts to open, read or write the database that failed.
    pub failures: u64,
    /// Changes of the database, and the seconds that they took together.
    pub batches: u64,
    pub batch_seconds: f64,
    /// Rows of the database that were read and not taken.
    pub unusable: u64,
}

/// All metrics of the server.
pub fn metrics(stats: &Stats, beside: &ProcessStats) -> Families {
    let mut list = Families::default();
    messages(&mut list, stats);
    rules(&mut list, &stats.counters);
    list.counter(LIMIT_HITS.0, LIMIT_HITS.1)
        .of(&[("limit", &"requests_per_source")], stats.shut_out);
    list.counter(LIMIT_HITS.0, LIMIT_HITS.1)
        .of(&[("limit", &"desk_clients")], beside.displaced_clients);
    list.gauge(
        "strowger_banned_sources",
        "Sources that are not heard for a while ([limits] ban).",
    )
    .is(stats.banned_sources);
    let transactions = list.gauge(
        "strowger_transactions",
        "Transactions in memory, those that only answer retransmissions included.",
    );
    let occupancy = &stats.occupancy;
    transactions.of(&[("kind", &"server")], occupancy.server_transactions);
    transactions.of(&[("kind", &"client")], occupancy.client_transactions);
    list.gauge("strowger_transaction_bytes", "Bytes of the messages that transactions hold.")
        .is(occupancy.blob_bytes);
    list.gauge("strowger_requests_pending", "Requests that wait for their final response.")
        .is(occupancy.pending);
    list.gauge(
        "strowger_requests_parked",
        "Branches, and messages without a transaction, that wait for the name of their next hop.",
    )
    .is(occupancy.parked);
    list.gauge(
        "strowger_dns_names",
        "Answers of the domain name system that are remembered or awaited.",
    )
    .is(occupancy.names);
    list.gauge("strowger_timers", "Timers that are set.").is(occupancy.timers);
    list.gauge("strowger_bindings", "Contacts in the location service.")
        .is(beside.bindings);
    list.gauge(
        "strowger_binding_bytes",
        "Bytes of the contacts, paths and Call-IDs that bindings hold, by the 320 that each has begun.",
    )
    .is(beside.binding_bytes);
    list.gauge("strowger_users", "Users who can answer a challenge.")
        .is(beside.users);
    list.gauge(
        "strowger_users_unreadable",
        "1 while the users cannot be read and those of before are in force.",
    )
    .is(beside.users_unreadable);
    list.gauge(
        "strowger_draining",
        "1 while no new dialogs are begun because the server is about to stop.",
    )
    .is(beside.is_draining);
    store(&mut list, stats, &beside.store);
    dropped(&mut list, stats);
    listeners(&mut list, stats);
    streams(&mut list, &stats.streams);
    mail(&mut list, stats);
    workers(&mut list, stats);
    traces(&mut list, &beside.trace);
    trunks(&mut list, &beside.trunks);
    process(&mut list, beside);
    list
}

fn trunks(list: &mut Families, trunks: &[(String, bool)]) {
    let family = list.gauge(
        "strowger_trunk_registered",
        "Whether the registration with the carrier of a [[trunk]] holds: 1 or 0.",
    );
    for (name, is_registered) in trunks {
        family.of(&[("trunk", name)], *is_registered);
    }
}

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// One of the two directions.
type Direction = (&'static str, fn(&ListenerCounters) -> &Traffic);

fn messages(list: &mut Families, stats: &Stats) {
    let directions: [Direction; 2] = [("in", |listener| &listener.received), ("out", |listener| &listener.sent)];
    for transport in TRANSPORTS {
        for (direction, traffic) in directions {
            let name = transport.word();
            let sum = |pick: &dyn Fn(&Traffic) -> u64| -> u64 {
                let own = stats.listeners.iter().filter(|(t, _, _)| *t == transport);
                own.map(|(_, _, l)| pick(traffic(l))).sum()
            };
            let messages = list.counter("strowger_messages_total", "Messages received and sent, by what they are.");
            for (number, kind) in KINDS.iter().enumerate() {
                messages.of(
                    &[("transport", &name), ("direction", &direction), ("kind", kind)],
                    sum(&|traffic| traffic.messages[number]),
                );
            }
            let labels: [(&str, &dyn std::fmt::Display); 2] = [("transport", &name), ("direction", &direction)];
            list.counter("strowger_message_bytes_total", "Bytes of the messages received and sent.")
                .of(&labels, sum(&|traffic| traffic.bytes));
            list.counter(
                "strowger_message_batches_total",
                "System calls that received or sent at least one message.",
            )
            .of(&labels, sum(&|traffic| traffic.batches));
        }
    }
}

/// Reached limits are counted by the rules and by the wires, under this name.
const LIMIT_HITS: (&str, &str) = (
    "strowger_limit_hits_total",
    "Times that something was refused or put off because a limit was reached.",
);

const SHED: (&str, &str) = (
    "strowger_shed_total",
    "New requests that were not served because of overload: answered 503, or dropped by the kernel before they were queued.",
);

fn rules(list: &mut Families, counters: &Counters) {
    let requests = list.counter(
        "strowger_requests_total",
        "Requests received, by method, retransmissions included.",
    );
    for (method, count) in MethodLabel::ALL.iter().zip(counters.requests) {
        requests.of(&[("method", &method.label())], count);
    }
    let responses = list.counter("strowger_responses_total", "Responses received from next hops, by class.");
    for (class, count) in (1..).zip(counters.responses) {
        responses.of(&[("class", &format_args!("{class}xx"))], count);
    }
    let retransmissions = list.counter(
        "strowger_retransmissions_total",
        "Requests that came again (server), and requests and ACKs that were sent again (client).",
    );
    for (side, count) in Side::ALL.iter().zip(counters.retransmissions) {
        retransmissions.of(&[("side", &side.label())], count);
    }
    let registrations = list.counter("strowger_registrations_total", "REGISTER requests, by what they came to.");
    for (outcome, count) in Registration::ALL.iter().zip(counters.registrations) {
        registrations.of(&[("outcome", &outcome.label())], count);
    }
    let auth = list.counter(
        "strowger_auth_total",
        "Requests that had to prove who sent them, by what their credentials came to.",
    );
    for (outcome, count) in AuthOutcome::ALL.iter().zip(counters.auth) {
        auth.of(&[("outcome", &outcome.label())], count);
    }
    let hits = list.counter(LIMIT_HITS.0, LIMIT_HITS.1);
    for (limit, count) in Limit::ALL.iter().zip(counters.limit_hits) {
        hits.of(&[("limit", &limit.label())], count);
    }
    list.counter(SHED.0, SHED.1)
        .of(&[("by", &"answer")], counters.limit_hits[Limit::Overload as usize]);
    let lookups = list.counter(
        "strowger_dns_queries_total",
        "Questions to the domain name system, by what they came to.",
    );
    for (outcome, count) in Lookup::ALL.iter().zip(counters.lookups) {
        lookups.of(&[("outcome", &outcome.label())], count);
    }
    list.counter(
        "strowger_requests_refused_total",
        "Requests that this server itself answered with a 4xx, 5xx or 6xx, challenges included.",
    )
    .is(counters.refused);
    list.counter(
        "strowger_flows_dead_total",
        "Bindings passed over because the connection to their phone was gone.",
    )
    .is(counters.dead_flows);
    list.counter(
        "strowger_requests_stateless_total",
        "Requests forwarded without a transaction.",
    )
    .is(counters.stateless);
}

fn dropped(list: &mut Families, stats: &Stats) {
    let dropped = list.counter(
        "strowger_dropped_total",
        "Messages that were neither processed nor answered, or could not be sent.",
    );
    for (reason, count) in Drop::ALL.iter().zip(stats.counters.dropped) {
        dropped.of(&[("reason", &reason.label())], count);
    }
    for reason in Undeliverable::ALL {
        let each = stats.listeners.iter();
        let count = each.map(|(_, _, listener)| listener.undelivered[reason as usize]);
        dropped.of(&[("reason", &reason.label())], count.sum::<u64>());
    }
    dropped.of(&[("reason", &"banned")], stats.banned);
    dropped.of(&[("reason", &"mail_full")], stats.mail.dropped_full);
    let unknown = stats.mail.dropped_unknown;
    dropped.of(&[("reason", &"mail_unknown_core")], unknown);
}

fn store(list: &mut Families, stats: &Stats, store: &Store) {
    list.gauge(
        "strowger_bindings_unstored",
        "Addresses-of-record that have changed and are not on disk yet.",
    )
    .is(store.unstored);
    list.counter(
        "strowger_store_failures_total",
        "Attempts to open, read or write the database of bindings that failed.",
    )
    .is(store.failures);
    list.counter(
        "strowger_bindings_unusable_total",
        "Rows of the database that hold what no REGISTER could have brought, and were left out when it was read.",
    )
    .is(store.unusable);
    list.counter(
        "strowger_store_batches_total",
        "Batches of bindings that were written to disk.",
    )
    .is(store.batches);
    list.counter("strowger_store_batch_seconds_total", "Time that writing these batches took.")
        .is(store.batch_seconds);
    let held = &stats.held;
    list.gauge(
        "strowger_registrations_held",
        "Answers to registrations that wait for the disk.",
    )
    .is(held.waiting);
    list.counter(
        "strowger_registrations_held_total",
        "Answers to registrations that have waited for the disk.",
    )
    .is(held.kept);
    list.counter(
        "strowger_registrations_unstored_total",
        "Registrations that were answered 503 because the disk did not take them.",
    )
    .is(held.refused);
    list.counter(LIMIT_HITS.0, LIMIT_HITS.1)
        .of(&[("limit", &"held_answers")], held.full);
}

fn listeners(list: &mut Families, stats: &Stats) {
    let udp = || {
        let all = stats.listeners.iter();
        all.filter(|(transport, _, _)| *transport == Transport::Udp)
    };
    let family = list.counter(
        "strowger_udp_kernel_drops_total",
        "Datagrams that the kernel threw away because the receive buffer was full.",
    );
    for (_, address, listener) in udp() {
        family.of(&[("listener", address)], listener.kernel_drops);
    }
    let shed = udp().map(|(_, _, listener)| listener.shed).sum::<u64>();
    list.counter(SHED.0, SHED.1).of(&[("by", &"kernel")], shed);
    let family = list.gauge(
        "strowger_udp_receive_buffer_bytes",
        "Receive buffers that the kernel granted.",
    );
    for (_, address, listener) in udp() {
        family.of(&[("listener", address)], listener.receive_buffer);
    }
    let family = list.gauge("strowger_udp_send_buffer_bytes", "Send buffers that the kernel granted.");
    for (_, address, listener) in udp() {
        family.of(&[("listener", address)], listener.send_buffer);
    }
    let family = list.gauge(
        "strowger_udp_send_queue_bytes",
        "Bytes that wait for the kernel to take them.",
    );
    for (_, address, listener) in udp() {
        family.of(&[("listener", address)], listener.waiting_bytes);
    }
    let family = list.counter(
        "strowger_udp_icmp_errors_total",
        "Datagrams of ours that came back as undeliverable.",
    );
    for (_, address, listener) in udp() {
        family.of(&[("listener", address)], listener.icmp_errors);
    }
}

/// A column of the handshakes' table.
type HandshakeColumn = (&'static str, fn(&Handshakes) -> u64);

fn streams(list: &mut Families, streams: &StreamCounters) {
    let connections = list.gauge("strowger_connections", "TCP and TLS connections, by the state they are in.");
    for transport in [Transport::Tcp, Transport::Tls] {
        let name = transport.word();
        for state in State::SHOWN {
            connections.of(
                &[("transport", &name), ("state", &state.label())],
                streams.open(transport, state),
            );
        }
    }
    for (name, help, count) in [
        (
            "strowger_connections_accepted_total",
            "Connections that peers opened.",
            streams.accepted,
        ),
        (
            "strowger_connections_opened_total",
            "Connections that this server began to open.",
            streams.connecting,
        ),
        (
            "strowger_connections_failed_total",
            "Connections of ours that were not answered.",
            streams.failed,
        ),
        (
            "strowger_connections_banned_total",
            "Connections that were not taken, or were closed, because their source is banned.",
            streams.banned,
        ),
        (
            "strowger_connections_idle_closed_total",
            "Connections closed because nothing had come or gone for too long.",
            streams.idle_closed,
        ),
        (
            "strowger_connections_unfinished_total",
            "Connections closed because a message was not complete within message_timeout.",
            streams.unfinished,
        ),
        (
            "strowger_connections_displaced_total",
            "Connections that sent no more and waited for answers, closed because others needed their places.",
            streams.displaced,
        ),
        (
            "strowger_connections_unframed_total",
            "Connections closed because no message could be found in what they brought.",
            streams.garbage,
        ),
        (
            "strowger_connections_accept_errors_total",
            "Connections that the kernel could not hand over.",
            streams.accept_errors,
        ),
        (
            "strowger_idle_sweep_visited_total",
            "Entries of the list of idle connections that were looked at.",
            streams.sweep_visited,
        ),
    ] {
        list.counter(name, help).is(count);
    }
    let hits = list.counter(LIMIT_HITS.0, LIMIT_HITS.1);
    hits.of(&[("limit", &"connections")], streams.refused);
    hits.of(&[("limit", &"tls_handshakes")], streams.handshakes_held);
    hits.of(&[("limit", &"tls_overload")], streams.handshakes_refused);
    hits.of(&[("limit", &"connections_of_source")], streams.yielded);
    hits.of(&[("limit", &"tls_stalled")], streams.stalled);
    hits.of(&[("limit", &"keep_alive_bytes")], streams.blank);
    hits.of(&[("limit", &"unfinished_bytes")], streams.crowded);
    hits.of(&[("limit", &"unsent_bytes")], streams.unsent);
    list.gauge(
        "strowger_unsent_bytes",
        "Bytes that wait on connections for their peers to take them.",
    )
    .is(streams.unsent_bytes);
    list.gauge(
        "strowger_unfinished_bytes",
        "Memory of messages that have begun on connections and are not whole.",
    )
    .is(streams.unfinished_bytes);
    let kinds: [HandshakeColumn; 4] = [
        ("full", |handshakes| handshakes.full),
        ("resumed", |handshakes| handshakes.resumed),
        ("mutual", |handshakes| handshakes.mutual),
        ("failed", |handshakes| handshakes.failed),
    ];
    let handshakes = list.counter(
        "strowger_tls_handshakes_total",
        "TLS handshakes that ended: full or resumed or failed, and of the first two the mutual ones once more.",
    );
    for (side, counters) in SIDES.iter().zip(&streams.handshakes) {
        for (kind, pick) in kinds {
            handshakes.of(&[("side", side), ("kind", &kind)], pick(counters));
        }
    }
    let calls = list.counter(
        "strowger_tls_handshake_calls_total",
        "Calls of SSL_do_handshake: one for each flight of a handshake.",
    );
    for (side, counters) in SIDES.iter().zip(&streams.handshakes) {
        calls.of(&[("side", side)], counters.calls);
    }
}

fn mail(list: &mut Families, stats: &Stats) {
    for (name, help, count) in [
        (
            "strowger_mail_sent_total",
            "Letters from one core to another.",
            stats.mail.sent,
        ),
        ("strowger_mail_received_total", "Letters that arrived.", stats.mail.received),
        (
            "strowger_mail_deliveries_total",
            "Times that one core handed letters to another, several at a time.",
            stats.mail.deliveries,
        ),
    ] {
        list.counter(name, help).is(count);
    }
}

fn workers(list: &mut Families, stats: &Stats) {
    list.histogram(
        "strowger_loop_delay_seconds",
        "What the turns of the loops took: for so long whatever came next had to wait.",
        &BOUNDS_NS.map(seconds),
        &stats.delay.buckets,
        seconds(stats.delay.sum_ns),
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
    list.gauge("strowger_traces", "Clients that follow calls now (strowger trace).")
        .is(trace.sessions);
    for (name, help, count) in [
        (
            "strowger_trace_events_total",
            "Messages, decisions and timers that were copied for those who follow calls.",
            trace.shown,
        ),
        (
            "strowger_trace_lost_total",
            "The same that were not copied, because whoever follows calls reads too slowly.",
            trace.lost,
        ),
        (
            "strowger_hep_sent_total",
            "Copies of messages that were sent to the collector ([trace] hep).",
            trace.hep_sent,
        ),
        (
            "strowger_hep_lost_total",
            "Copies of messages that could not be sent to it.",
            trace.hep_lost,
        ),
    ] {
        list.counter(name, help).is(count);
    }
}

/// Under the names that Prometheus's own libraries use.
fn process(list: &mut Families, beside: &ProcessStats) {
    list.gauge(
        "process_start_time_seconds",
        "When the server started, in seconds since 1970.",
    )
    .is(beside.started.as_secs_f64());
    list.counter(
        "strowger_log_lines_lost_total",
        "Lines of the log that were not written: standard error did not take them in time.",
    )
    .is(beside.log_lines_lost);
    let memory = list.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.");
    if let Some(bytes) = resident_bytes() {
        memory.is(bytes);
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What the process has in memory now, from `/proc`.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * sys::page_size() as u64)
}
