//! The lower half of the screen: messages, the loop, connections and cores, for those who look for the reason.

use super::view::{Line, Look, View, WIDTH, line, plain, short};

/// CPU columns per line, and the number of lines.
const CORES_A_LINE: usize = 8;
const CORE_LINES: usize = 2;

pub(super) const TRANSPORTS: [&str; 3] = ["udp", "tcp", "tls"];

impl View<'_> {
    pub(super) fn machine(&self, lines: &mut Vec<Line>) {
        self.messages(lines);
        self.requests(lines);
        self.turns(lines);
        self.auth(lines);
        self.connections(lines);
        self.handshakes(lines);
        self.cores(lines);
    }

    fn messages(&self, lines: &mut Vec<Line>) {
        let heading = "messages/s      req. in  req. out  resp. in resp. out  KiB/s in KiB/s out batch";
        lines.push(line(heading, Look::Heading));
        for transport in TRANSPORTS {
            let messages = |direction, kind| {
                let labels = [("transport", transport), ("direction", direction), ("kind", kind)];
                short(self.rate("strowger_messages_total", &labels))
            };
            let of = |direction| [("transport", transport), ("direction", direction)];
            let bytes = |direction| {
                let bytes = self.rate("strowger_message_bytes_total", &of(direction));
                short(bytes.map(|bytes| bytes / 1024.0))
            };
            // How many messages one system call receives.
            let batches = self.risen("strowger_message_batches_total", &of("in"));
            let received = self.risen("strowger_messages_total", &of("in"));
            let batch = match (received, batches) {
                (Some(received), Some(batches)) if batches > 0.0 => short(Some(received / batches)),
                _ => "-".to_owned(),
            };
            lines.push(plain(format!(
                "{transport:<13}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{batch:>6}",
                messages("in", "request"),
                messages("out", "request"),
                messages("in", "response"),
                messages("out", "response"),
                bytes("in"),
                bytes("out"),
            )));
        }
    }

    fn requests(&self, lines: &mut Vec<Line>) {
        let again = |side| short(self.rate("strowger_retransmissions_total", &[("side", side)]));
        let count = |name, labels: &[(&str, &str)]| short(Some(self.value(name, labels)));
        lines.push(plain(format!(
            "repeated/s   to us {:>6}  by us {:>6}  transactions in {:>6} out {:>6}",
            again("server"),
            again("client"),
            count("strowger_transactions", &[("kind", "server")]),
            count("strowger_transactions", &[("kind", "client")]),
        )));
    }

    /// A turn is the longest that a message waits before it is read: the server's own share of every delay.
    fn turns(&self, lines: &mut Vec<Line>) {
        const NAMES: [&str; 2] = ["strowger_loop_delay_seconds_sum", "strowger_loop_delay_seconds_count"];
        let mean = match NAMES.map(|name| self.risen(name, &[])) {
            [Some(sum), Some(count)] if count > 0.0 => format!("{:.3}", (sum / count * 1000.0).min(99_999.0)),
            _ => "-".to_owned(),
        };
        lines.push(plain(format!(
            "loop turns/s {:>6}   each in ms: mean {mean}  p50 {}  p99 {}",
            short(self.rate(NAMES[1], &[])),
            self.quantile(0.5),
            self.quantile(0.99),
        )));
    }

    fn auth(&self, lines: &mut Vec<Line>) {
        let auth = |outcome| self.rate("strowger_auth_total", &[("outcome", outcome)]);
        let wrong = ["wrong_response", "unknown_user", "replayed", "malformed", "forbidden"];
        let wrong: Option<f64> = wrong.map(auth).into_iter().sum();
        let line = plain(format!(
            "auth/s       challenged {:>6}  accepted {:>6}  stale {:>6}",
            short(auth("challenged")),
            short(auth("accepted")),
            short(auth("stale")),
        ));
        lines.push(line.and(format!("  refused {:>6}", short(wrong)), alarm_if(wrong)));
    }

    /// Returns the upper bound of this fraction of the turns since the last moment, in milliseconds.
    fn quantile(&self, part: f64) -> String {
        const NAME: &str = "strowger_loop_delay_seconds_bucket";
        let all = self.risen(NAME, &[("le", "+Inf")]).unwrap_or(0.0);
        if all <= 0.0 {
            return "-".to_owned();
        }
        let mut bounds: Vec<(f64, f64)> = Vec::new();
        for name in self.now.values.keys() {
            let bound =
                name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix("{le=\"")).and_then(|rest| rest.strip_suffix("\"}"));
            if let Some(text) = bound
                && let Ok(bound) = text.parse::<f64>()
                && bound.is_finite()
            {
                let risen = self.risen(NAME, &[("le", text)]).unwrap_or(0.0);
                bounds.push((bound, risen));
            }
        }
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let found = bounds.iter().find(|(_, risen)| *risen >= all * part);
        match (found, bounds.last()) {
            (Some((bound, _)), _) => format!("<= {}", bound * 1000.0),
            (None, Some((last, _))) => format!("> {}", last * 1000.0),
            (None, None) => "-".to_owned(),
        }
    }

    fn connections(&self, lines: &mut Vec<Line>) {
        let open = |transport| short(Some(self.value("strowger_connections", &[("transport", transport), ("state", "open")])));
        let beginning = ["connecting", "accepted", "handshaking"];
        let beginning: f64 = beginning.iter().map(|state| self.value("strowger_connections", &[("state", state)])).sum();
        let rate = |name| short(self.rate(name, &[]));
        lines.push(plain(format!(
            "connections  tcp {:>6}  tls {:>6}  begun {:>6}  in/s {:>6}  out/s {:>6}",
            open("tcp"),
            open("tls"),
            short(Some(beginning)),
            rate("strowger_connections_accepted_total"),
            rate("strowger_connections_opened_total"),
        )));
    }

    fn handshakes(&self, lines: &mut Vec<Line>) {
        let all = |kind| self.rate("strowger_tls_handshakes_total", &[("kind", kind)]);
        let failed = all("failed");
        let line = plain(format!(
            "TLS/s        full {:>6}  resumed {:>6}  mutual {:>6}",
            short(all("full")),
            short(all("resumed")),
            short(all("mutual")),
        ));
        lines.push(line.and(format!("  failed {:>6}", short(failed)), alarm_if(failed)));
    }

    /// The load of each worker on its core.
    fn cores(&self, lines: &mut Vec<Line>) {
        const NAME: &str = "strowger_worker_cpu_seconds_total";
        let mut cores: Vec<(u64, &str)> = self
            .now
            .values
            .keys()
            .filter_map(|name| {
                let rest = name.strip_prefix(NAME)?.strip_prefix("{core=\"")?;
                let core = rest.strip_suffix("\"}")?;
                Some((core.parse().ok()?, core))
            })
            .collect();
        cores.sort_unstable();
        let room = CORES_A_LINE * CORE_LINES;
        for (number, some) in cores.chunks(CORES_A_LINE).take(CORE_LINES).enumerate() {
            let mut text = match number {
                0 => "cpu % of core".to_owned(),
                _ => " ".repeat(13),
            };
            for (_, core) in some {
                let rate = self.rate(NAME, &[("core", core)]);
                let percent = rate.map_or("-".to_owned(), |rate| format!("{:.0}", rate * 100.0));
                text.push_str(&format!(" {core:>3}:{percent:<3}"));
            }
            let is_last = (number + 1) * CORES_A_LINE >= room;
            if is_last && cores.len() > room {
                text.truncate(WIDTH - 8);
                text.push_str(&format!(" and {}", cores.len() - room));
            }
            lines.push(plain(text));
        }
    }
}

/// The look of what should not happen.
pub(super) fn alarm_if(rate: Option<f64>) -> Look {
    match rate {
        Some(rate) if rate > 0.0 => Look::Alarm,
        _ => Look::Plain,
    }
}
