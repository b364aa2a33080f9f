//! The server's numbers under the names that operators know: Prometheus names with labels, in a stable order.

use super::crew::Stats;
use super::delay::BOUNDS_NS;
use crate::base::Transport;
use crate::net::counters::{Handshakes, KINDS, SIDES, Traffic};
use crate::net::sys;
use crate::net::{ListenerCounters, State, StreamCounters, Undeliverable};
use crate::stack::counters::{
    AuthOutcome, Counters, Drop, Limit, Lookup, MethodLabel, Registration, Side,
};
use std::fmt::Display;

/// What is counted elsewhere than at the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// Contacts in the location service now.
    pub bindings: usize,
    /// Users in force.
    pub users: usize,
    /// They are those of before, because the file or database of users cannot be read now.
    pub users_unreadable: bool,
}

/// All metrics of the server.
pub fn metrics(stats: &Stats, beside: &Beside) -> Vec<(String, f64)> {
    let mut list = List::default();
    messages(&mut list, stats);
    rules(&mut list, &stats.counters);
    list.count(
        "limit_hits_total",
        "limit",
        "requests_per_source",
        stats.shut_out,
    );
    list.gauge(
        "transactions",
        "kind",
        "server",
        stats.occupancy.server_transactions,
    );
    list.gauge(
        "transactions",
        "kind",
        "client",
        stats.occupancy.client_transactions,
    );
    list.plain("requests_pending", stats.occupancy.pending);
    list.plain("timers", stats.occupancy.timers);
    list.plain("requests_parked", stats.occupancy.parked);
    list.plain("dns_names", stats.occupancy.names);
    list.plain("bindings", beside.bindings);
    list.plain("users", beside.users);
    list.plain("users_unreadable", usize::from(beside.users_unreadable));
    dropped(&mut list, stats);
    listeners(&mut list, stats);
    streams(&mut list, &stats.streams);
    list.plain("mail_sent_total", stats.mail.sent as usize);
    list.plain("mail_received_total", stats.mail.received as usize);
    list.plain("mail_deliveries_total", stats.mail.deliveries as usize);
    loop_delay(&mut list, stats);
    for worker in &stats.workers {
        let core = stats.cores.get(worker.core).copied().unwrap_or(0);
        list.label(
            "worker_cpu_seconds_total",
            "core",
            core,
            seconds(worker.cpu_ns),
        );
    }
    for worker in &stats.workers {
        let core = stats.cores.get(worker.core).copied().unwrap_or(0);
        list.gauge("worker_turns_total", "core", core, worker.turns as usize);
    }
    if let Some(bytes) = resident_bytes() {
        let name = "process_resident_memory_bytes".to_owned();
        list.all.push((name, bytes as f64));
    }
    list.all
}

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// A column of the listeners' table.
type Column = (&'static str, fn(&ListenerCounters) -> u64);
/// One of the two directions.
type Direction = (&'static str, fn(&ListenerCounters) -> &Traffic);

#[derive(Default)]
struct List {
    all: Vec<(String, f64)>,
}

impl List {
    fn plain(&mut self, name: &str, value: usize) {
        self.all.push((format!("strowger_{name}"), value as f64));
    }

    fn gauge(&mut self, name: &str, key: &str, label: impl Display, value: usize) {
        self.label(name, key, label, value as f64);
    }

    fn count(&mut self, name: &str, key: &str, label: impl Display, value: u64) {
        self.label(name, key, label, value as f64);
    }

    fn label(&mut self, name: &str, key: &str, label: impl Display, value: f64) {
        self.all
            .push((format!("strowger_{name}{{{key}=\"{label}\"}}"), value));
    }
}

fn messages(list: &mut List, stats: &Stats) {
    let directions: [Direction; 2] = [
        ("in", |listener| &listener.received),
        ("out", |listener| &listener.sent),
    ];
    for transport in TRANSPORTS {
        for (direction, traffic) in directions {
            let label = transport.name().to_ascii_lowercase();
            let labels = format!("{{transport=\"{label}\",direction=\"{direction}\"");
            let sum = |pick: &dyn Fn(&Traffic) -> u64| -> f64 {
                let own = stats.listeners.iter().filter(|(t, _, _)| *t == transport);
                own.map(|(_, _, l)| pick(traffic(l))).sum::<u64>() as f64
            };
            for (number, kind) in KINDS.iter().enumerate() {
                let name = format!("strowger_messages_total{labels},kind=\"{kind}\"}}");
                list.all
                    .push((name, sum(&|traffic| traffic.messages[number])));
            }
            let name = format!("strowger_message_bytes_total{labels}}}");
            list.all.push((name, sum(&|traffic| traffic.bytes)));
            let name = format!("strowger_message_batches_total{labels}}}");
            list.all.push((name, sum(&|traffic| traffic.batches)));
        }
    }
}

/// A column of the handshakes' table.
type HandshakeColumn = (&'static str, fn(&Handshakes) -> u64);

fn streams(list: &mut List, streams: &StreamCounters) {
    for transport in [Transport::Tcp, Transport::Tls] {
        let label = transport.name().to_ascii_lowercase();
        for state in State::ALL {
            let name = format!(
                "strowger_connections{{transport=\"{label}\",state=\"{}\"}}",
                state.label()
            );
            list.all.push((name, streams.open(transport, state) as f64));
        }
    }
    let plain = [
        ("connections_accepted_total", streams.accepted),
        ("connections_opened_total", streams.connecting),
        ("connections_failed_total", streams.failed),
        ("connections_idle_closed_total", streams.idle_closed),
        ("connections_unframed_total", streams.garbage),
        ("connections_accept_errors_total", streams.accept_errors),
        ("idle_sweep_visited_total", streams.sweep_visited),
    ];
    for (name, count) in plain {
        list.plain(name, count as usize);
    }
    list.count("limit_hits_total", "limit", "connections", streams.refused);
    list.count(
        "limit_hits_total",
        "limit",
        "tls_handshakes",
        streams.handshakes_held,
    );
    let kinds: [HandshakeColumn; 4] = [
        ("full", |handshakes| handshakes.full),
        ("resumed", |handshakes| handshakes.resumed),
        ("mutual", |handshakes| handshakes.mutual),
        ("failed", |handshakes| handshakes.failed),
    ];
    for (side, handshakes) in SIDES.iter().zip(&streams.handshakes) {
        for (kind, pick) in kinds {
            let name = format!("strowger_tls_handshakes_total{{side=\"{side}\",kind=\"{kind}\"}}");
            list.all.push((name, pick(handshakes) as f64));
        }
        list.count("tls_handshake_calls_total", "side", side, handshakes.calls);
    }
}

fn rules(list: &mut List, counters: &Counters) {
    for (method, count) in MethodLabel::ALL.iter().zip(counters.requests) {
        list.count("requests_total", "method", method.label(), count);
    }
    for (class, count) in (1..).zip(counters.responses) {
        list.count("responses_total", "class", format_args!("{class}xx"), count);
    }
    for (side, count) in Side::ALL.iter().zip(counters.retransmissions) {
        list.count("retransmissions_total", "side", side.label(), count);
    }
    for (outcome, count) in Registration::ALL.iter().zip(counters.registrations) {
        list.count("registrations_total", "outcome", outcome.label(), count);
    }
    for (outcome, count) in AuthOutcome::ALL.iter().zip(counters.auth) {
        list.count("auth_total", "outcome", outcome.label(), count);
    }
    for (limit, count) in Limit::ALL.iter().zip(counters.limit_hits) {
        list.count("limit_hits_total", "limit", limit.label(), count);
    }
    for (outcome, count) in Lookup::ALL.iter().zip(counters.lookups) {
        list.count("dns_queries_total", "outcome", outcome.label(), count);
    }
    list.plain("requests_refused_total", counters.refused as usize);
    list.plain("flows_dead_total", counters.dead_flows as usize);
    list.plain("requests_stateless_total", counters.stateless as usize);
}

fn dropped(list: &mut List, stats: &Stats) {
    for (reason, count) in Drop::ALL.iter().zip(stats.counters.dropped) {
        list.count("dropped_total", "reason", reason.label(), count);
    }
    for reason in Undeliverable::ALL {
        let each = stats.listeners.iter();
        let count = each.map(|(_, _, listener)| listener.undelivered[reason as usize]);
        list.count("dropped_total", "reason", reason.label(), count.sum());
    }
    list.count(
        "dropped_total",
        "reason",
        "mail_full",
        stats.mail.dropped_full,
    );
    list.count(
        "dropped_total",
        "reason",
        "mail_unknown_core",
        stats.mail.dropped_unknown,
    );
}

fn listeners(list: &mut List, stats: &Stats) {
    let columns: [Column; 5] = [
        ("udp_kernel_drops_total", |listener| listener.kernel_drops),
        ("udp_receive_buffer_bytes", |listener| {
            listener.receive_buffer
        }),
        ("udp_send_buffer_bytes", |listener| listener.send_buffer),
        ("udp_send_queue_bytes", |listener| listener.waiting_bytes),
        ("udp_icmp_errors_total", |listener| listener.icmp_errors),
    ];
    for (name, pick) in columns {
        let udp = stats
            .listeners
            .iter()
            .filter(|(t, _, _)| *t == Transport::Udp);
        for (_, address, listener) in udp {
            list.count(name, "listener", address, pick(listener));
        }
    }
}

fn loop_delay(list: &mut List, stats: &Stats) {
    let mut cumulative = 0;
    for (bound, count) in BOUNDS_NS.iter().zip(stats.delay.buckets) {
        cumulative += count;
        list.count(
            "loop_delay_seconds_bucket",
            "le",
            seconds(*bound),
            cumulative,
        );
    }
    let all = stats.delay.count();
    list.count("loop_delay_seconds_bucket", "le", "+Inf", all);
    let sum = (
        "strowger_loop_delay_seconds_sum".to_owned(),
        seconds(stats.delay.sum_ns),
    );
    list.all.push(sum);
    list.plain("loop_delay_seconds_count", all as usize);
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
