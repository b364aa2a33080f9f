//! The screen of `strowger top`: turns two samples of the statistics and a size into lines of text, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

/// The output of `strowger stats` at one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// When it was requested, on the requester's clock.
    pub at: Duration,
    /// The same since 1970.
    pub wall: Duration,
    pub version: String,
    /// By full name, including labels.
    pub values: BTreeMap<String, f64>,
}

/// One line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Plain,
    Heading,
    /// Something is refused, lost or wrong.
    Alarm,
}

/// Renders the screen for `now`, with rates since `before`; `note` is a remark about the query itself. No line is longer than
/// `width`, and there are no more than `height`. At 80 by 24 everything fits.
pub fn render(before: Option<&Moment>, now: &Moment, note: Option<&str>, width: usize, height: usize) -> Vec<Line> {
    let view = View::new(before, now);
    let mut lines = Vec::new();
    view.head(&mut lines);
    view.load(&mut lines);
    lines.push(plain(""));
    view.messages(&mut lines);
    view.answers(&mut lines);
    lines.push(plain(""));
    view.connections(&mut lines);
    lines.push(plain(""));
    view.cores(&mut lines);
    view.alarms(&mut lines);
    let foot = match note {
        Some(note) => alarm(note),
        None => plain("q quits"),
    };
    // The footer stays visible however low the screen is.
    lines.truncate(height.saturating_sub(1));
    lines.push(foot);
    lines.truncate(height);
    for line in &mut lines {
        line.text = cut(&line.text, width);
    }
    lines
}

fn plain(text: impl Into<String>) -> Line {
    let (text, look) = (text.into(), Look::Plain);
    Line { text, look }
}

fn heading(text: impl Into<String>) -> Line {
    let (text, look) = (text.into(), Look::Heading);
    Line { text, look }
}

fn alarm(text: impl Into<String>) -> Line {
    let (text, look) = (text.into(), Look::Alarm);
    Line { text, look }
}

/// Returns the text cut to `width`, without terminal control characters.
fn cut(text: &str, width: usize) -> String {
    let visible = |c: char| if c.is_control() { '?' } else { c };
    let cut: String = text.chars().take(width).map(visible).collect();
    cut.trim_end().to_owned()
}

/// The width that the columns are designed for.
const WIDTH: usize = 80;

/// CPU columns per line, and the number of lines.
const CORES_A_LINE: usize = 8;
const CORE_LINES: usize = 2;

const TRANSPORTS: [&str; 3] = ["udp", "tcp", "tls"];

/// Two moments and the time between them.
struct View<'m> {
    before: Option<&'m Moment>,
    now: &'m Moment,
    seconds: f64,
}

impl<'m> View<'m> {
    fn new(before: Option<&'m Moment>, now: &'m Moment) -> View<'m> {
        // The counters of a previous server process do not apply to this one.
        let started = |moment: &Moment| moment.values.get("process_start_time_seconds").copied();
        let before = before.filter(|before| started(before) == started(now) && before.at < now.at);
        let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
        View { before, now, seconds }
    }

    /// Returns the current value of a gauge or counter; with labels, the sum of those that have all of these.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(self.now, name, labels)
    }

    /// Returns how much a counter has risen; `None` if there is no earlier moment.
    fn risen(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let before = self.before?;
        Some((sum(self.now, name, labels) - sum(before, name, labels)).max(0.0))
    }

    /// The same per second.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        Some(self.risen(name, labels)? / self.seconds)
    }

    fn head(&self, lines: &mut Vec<Line>) {
        let start = self.value("process_start_time_seconds", &[]);
        let now = self.now.wall.as_secs_f64();
        let up = match start > 0.0 && now > start {
            true => clock(now - start),
            false => "-".to_owned(),
        };
        let memory = self.value("process_resident_memory_bytes", &[]) / 1_048_576.0;
        let users = short(Some(self.value("strowger_users", &[])));
        let memory = short(Some(memory));
        let right = format!("users {users}   memory {memory} MiB   up {up}");
        let left = format!("strowger {}", self.now.version);
        let left = cut(&left, WIDTH.saturating_sub(right.chars().count() + 1));
        let gap = WIDTH.saturating_sub(left.chars().count() + right.chars().count());
        lines.push(heading(format!("{left}{:gap$}{right}", "")));
    }

    fn load(&self, lines: &mut Vec<Line>) {
        let requests = |method| self.rate("strowger_requests_total", &[("method", method)]);
        let again = |side| self.rate("strowger_retransmissions_total", &[("side", side)]);
        lines.push(plain(format!(
            "requests/s   INVITE {:>6}  REGISTER {:>6}  again to us {:>6}  by us {:>6}",
            short(requests("INVITE")),
            short(requests("REGISTER")),
            short(again("server")),
            short(again("client")),
        )));
        let count = |name, labels: &[(&str, &str)]| short(Some(self.value(name, labels)));
        lines.push(plain(format!(
            "now          pending {:>6}  transactions in {:>6} out {:>6}  bindings {:>6}",
            count("strowger_requests_pending", &[]),
            count("strowger_transactions", &[("kind", "server")]),
            count("strowger_transactions", &[("kind", "client")]),
            count("strowger_bindings", &[]),
        )));
    }

    fn messages(&self, lines: &mut Vec<Line>) {
        lines.push(heading("messages/s      req. in  req. out  resp. in resp. out  KiB/s in KiB/s out batch"));
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

    fn answers(&self, lines: &mut Vec<Line>) {
        let mut line = "responses/s  ".to_owned();
        for class in ["1xx", "2xx", "3xx", "4xx", "5xx", "6xx"] {
            let rate = self.rate("strowger_responses_total", &[("class", class)]);
            line.push_str(&format!("{class} {:>6} ", short(rate)));
        }
        lines.push(plain(line));
        let mean = match (self.risen("strowger_loop_delay_seconds_sum", &[]), self.risen("strowger_loop_delay_seconds_count", &[]))
        {
            (Some(sum), Some(count)) if count > 0.0 => {
                format!("{:.3}", (sum / count * 1000.0).min(99_999.0))
            }
            _ => "-".to_owned(),
        };
        // A turn is the longest that a message waits before it is read: the server's own share of every delay.
        lines.push(plain(format!(
            "loop turns/s {:>6}   each in ms: mean {mean}  p50 {}  p99 {}",
            short(self.rate("strowger_loop_delay_seconds_count", &[])),
            self.quantile(0.5),
            self.quantile(0.99),
        )));
        let auth = |outcome| self.rate("strowger_auth_total", &[("outcome", outcome)]);
        let wrong = ["wrong_response", "unknown_user", "replayed", "malformed", "forbidden"];
        let wrong: Option<f64> = wrong.map(auth).into_iter().sum();
        let line = format!(
            "auth/s       challenged {:>6}  accepted {:>6}  stale {:>6}  refused {:>6}",
            short(auth("challenged")),
            short(auth("accepted")),
            short(auth("stale")),
            short(wrong),
        );
        lines.push(match wrong {
            Some(wrong) if wrong > 0.0 => alarm(line),
            _ => plain(line),
        });
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
        lines.push(heading("connections connecting accepted handshaking   open draining"));
        for transport in ["tcp", "tls"] {
            let count = |state| {
                let labels = [("transport", transport), ("state", state)];
                short(Some(self.value("strowger_connections", &labels)))
            };
            let ways = match transport {
                "tcp" => format!("  accepted {:>6}/s", short(self.rate("strowger_connections_accepted_total", &[]))),
                _ => format!("  opened   {:>6}/s", short(self.rate("strowger_connections_opened_total", &[]))),
            };
            lines.push(plain(format!(
                "{transport:<11} {:>10} {:>8} {:>11} {:>6} {:>8}{ways}",
                count("connecting"),
                count("accepted"),
                count("handshaking"),
                count("open"),
                count("draining"),
            )));
        }
        for side in ["server", "client"] {
            let shaken = |kind| {
                let labels = [("side", side), ("kind", kind)];
                self.rate("strowger_tls_handshakes_total", &labels)
            };
            let failed = shaken("failed");
            let line = format!(
                "TLS {side}/s full {:>6}  resumed {:>6}  mutual {:>6}  failed {:>6}",
                short(shaken("full")),
                short(shaken("resumed")),
                short(shaken("mutual")),
                short(failed),
            );
            lines.push(match failed {
                Some(failed) if failed > 0.0 => alarm(line),
                _ => plain(line),
            });
        }
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
            let mut line = match number {
                0 => "cpu % of core".to_owned(),
                _ => " ".repeat(13),
            };
            for (_, core) in some {
                let rate = self.rate(NAME, &[("core", core)]);
                let percent = rate.map_or("-".to_owned(), |rate| format!("{:.0}", rate * 100.0));
                line.push_str(&format!(" {core:>3}:{percent:<3}"));
            }
            let is_last = (number + 1) * CORES_A_LINE >= room;
            if is_last && cores.len() > room {
                line.truncate(WIDTH - 8);
                line.push_str(&format!(" and {}", cores.len() - room));
            }
            lines.push(plain(line));
        }
    }

    /// What was refused for lack of room, and what was lost.
    fn alarms(&self, lines: &mut Vec<Line>) {
        lines.push(self.list("limits hit/s", "strowger_limit_hits_total", &[]));
        lines.push(self.list(
            "dropped/s",
            "strowger_dropped_total",
            // These are routine: what ends here by rule, and what carries no message.
            &["absorbed", "keep_alive"],
        ));
        let mut states = Vec::new();
        if self.value("strowger_draining", &[]) > 0.0 {
            states.push("draining: no new dialogs".to_owned());
        }
        if self.value("strowger_users_unreadable", &[]) > 0.0 {
            states.push("users cannot be read".to_owned());
        }
        let store = self.risen("strowger_store_failures_total", &[]);
        if store.is_some_and(|failures| failures > 0.0) {
            states.push("bindings cannot be stored".to_owned());
        }
        let kernel = self.rate("strowger_udp_kernel_drops_total", &[]);
        if let Some(drops) = kernel.filter(|drops| *drops > 0.0) {
            states.push(format!("receive buffer full {}/s", short(Some(drops))));
        }
        let waiting = self.value("strowger_udp_send_queue_bytes", &[]);
        if waiting > 0.0 {
            states.push(format!("{} B wait to be sent", short(Some(waiting))));
        }
        lines.push(match states.is_empty() {
            true => plain("state        serving"),
            false => alarm(format!("state        {}", states.join(", "))),
        });
    }

    /// Lists the labels of a counter that have risen, the most first; one label each.
    fn list(&self, title: &str, name: &str, usual: &[&str]) -> Line {
        let mut risen: Vec<(&str, f64)> = self
            .now
            .values
            .keys()
            .filter_map(|whole| {
                let labels = whole.strip_prefix(name)?.strip_prefix('{')?;
                let (key, value) = labels.strip_suffix("\"}")?.split_once("=\"")?;
                let rate = self.rate(name, &[(key, value)])?;
                (rate > 0.0).then_some((value, rate))
            })
            .collect();
        risen.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        let is_usual = risen.iter().all(|(label, _)| usual.contains(label));
        let words: Vec<String> = risen.iter().map(|(label, rate)| format!("{label} {}", short(Some(*rate)))).collect();
        let text = match words.is_empty() {
            true => "none".to_owned(),
            false => words.join("  "),
        };
        let text = format!("{title:<13}{text}");
        match is_usual {
            true => plain(text),
            false => alarm(text),
        }
    }
}

/// The sum of the samples of `name` that have all these labels.
fn sum(moment: &Moment, name: &str, labels: &[(&str, &str)]) -> f64 {
    let from = moment.values.range(name.to_owned()..);
    let same = from.take_while(|(whole, _)| whole.starts_with(name));
    same.filter(|(whole, _)| {
        let rest = whole.get(name.len()..).unwrap_or_default();
        let has = |(key, value): &(&str, &str)| rest.contains(&format!("{key}=\"{value}\""));
        (rest.is_empty() || rest.starts_with('{')) && labels.iter().all(has)
    })
    .map(|(_, value)| value)
    .sum()
}

/// Formats a number in at most six places; "-" if unknown.
fn short(number: Option<f64>) -> String {
    match number {
        None => "-".to_owned(),
        Some(number) if number <= 0.0 => "0".to_owned(),
        // Nobody has half a binding.
        Some(number) if number < 9.95 && number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) if number < 9.95 => format!("{number:.1}"),
        Some(number) if number < 99_999.5 => format!("{number:.0}"),
        Some(number) if number < 9_999_500.0 => format!("{:.0}k", number / 1e3),
        Some(number) if number < 9_999_500_000.0 => format!("{:.0}M", number / 1e6),
        Some(number) => format!("{:.0}G", (number / 1e9).min(99_999.0)),
    }
}

/// `12:34`, `1:02:03` or `4d 01:02:03`.
fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All names that the screen uses, each with `value`.
    fn moment(at_s: u64, cores: usize, value: f64) -> Moment {
        let mut values = BTreeMap::new();
        let mut put = |name: &str, value: f64| {
            values.insert(name.to_owned(), value);
        };
        for method in ["INVITE", "REGISTER", "BYE"] {
            put(&format!("strowger_requests_total{{method=\"{method}\"}}"), value);
        }
        for side in ["server", "client"] {
            put(&format!("strowger_retransmissions_total{{side=\"{side}\"}}"), value);
            put(&format!("strowger_transactions{{kind=\"{side}\"}}"), value);
            for kind in ["full", "resumed", "mutual", "failed"] {
                put(&format!("strowger_tls_handshakes_total{{side=\"{side}\",kind=\"{kind}\"}}"), value);
            }
        }
        for transport in TRANSPORTS {
            for direction in ["in", "out"] {
                let labels = format!("transport=\"{transport}\",direction=\"{direction}\"");
                for kind in ["request", "response", "keep_alive", "garbage"] {
                    put(&format!("strowger_messages_total{{{labels},kind=\"{kind}\"}}"), value);
                }
                put(&format!("strowger_message_bytes_total{{{labels}}}"), value);
                put(&format!("strowger_message_batches_total{{{labels}}}"), value);
            }
            for state in ["connecting", "accepted", "handshaking", "open", "draining"] {
                put(&format!("strowger_connections{{transport=\"{transport}\",state=\"{state}\"}}"), value);
            }
        }
        for class in 1..=6 {
            put(&format!("strowger_responses_total{{class=\"{class}xx\"}}"), value);
        }
        for outcome in ["challenged", "accepted", "stale", "wrong_response", "unknown_user"] {
            put(&format!("strowger_auth_total{{outcome=\"{outcome}\"}}"), value);
        }
        for reason in ["unreadable", "absorbed", "send_queue_full", "foreign_response"] {
            put(&format!("strowger_dropped_total{{reason=\"{reason}\"}}"), value);
        }
        for limit in ["transactions", "connections", "max_breadth"] {
            put(&format!("strowger_limit_hits_total{{limit=\"{limit}\"}}"), value);
        }
        for name in [
            "strowger_connections_accepted_total",
            "strowger_connections_opened_total",
            "strowger_requests_pending",
            "strowger_bindings",
            "strowger_users",
            "strowger_draining",
            "strowger_users_unreadable",
            "strowger_store_failures_total",
            "strowger_udp_kernel_drops_total{listener=\"192.0.2.1:5060\"}",
            "strowger_udp_send_queue_bytes{listener=\"192.0.2.1:5060\"}",
            "process_resident_memory_bytes",
        ] {
            put(name, value);
        }
        for core in 0..cores {
            put(&format!("strowger_worker_cpu_seconds_total{{core=\"{core}\"}}"), at_s as f64);
        }
        put("process_start_time_seconds", 1000.0);
        put("strowger_loop_delay_seconds_bucket{le=\"0.00001\"}", value / 2.0);
        put("strowger_loop_delay_seconds_bucket{le=\"0.00025\"}", value);
        put("strowger_loop_delay_seconds_bucket{le=\"1\"}", value);
        put("strowger_loop_delay_seconds_bucket{le=\"+Inf\"}", value);
        put("strowger_loop_delay_seconds_sum", value / 1e5);
        put("strowger_loop_delay_seconds_count", value);
        Moment {
            at: Duration::from_secs(at_s),
            wall: Duration::from_secs(1000 + at_s),
            version: "0.1.0 (AWS-LC 1.2.3)".to_owned(),
            values,
        }
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn everything_fits_a_terminal_of_80_by_24() {
        for cores in [1, 2, 16, 64, 255] {
            for value in [0.0, 1.0, 99_999.0, 123_456_789.0, 9e15] {
                let (before, now) = (moment(10, cores, 0.0), moment(11, cores, value));
                for before in [None, Some(&before)] {
                    let lines = render(before, &now, None, 80, 24);
                    let all = texts(&lines).join("\n");
                    assert!(lines.len() <= 24, "{} lines:\n{all}", lines.len());
                    assert_eq!(lines.last().unwrap().text, "q quits");
                    for line in &lines {
                        assert!(line.text.chars().count() <= 80, "{}", line.text);
                    }
                    // Nothing was cut off: what is designed for 80 columns is the same on a wider screen.
                    let wide = render(before, &now, None, 500, 100);
                    let same = |(a, b): (&Line, &Line)| {
                        a == b || b.text.starts_with("limits") || b.text.starts_with("dropped") || b.text.starts_with("state")
                    };
                    assert!(lines.iter().zip(&wide).all(same), "cut:\n{all}\n{wide:#?}");
                    assert_eq!(lines.len(), wide.len(), "lines are missing:\n{all}");
                }
            }
        }
    }

    #[test]
    fn a_smaller_terminal_gets_what_fits() {
        let now = moment(1, 2, 1.0);
        for (width, height) in [(0, 0), (1, 1), (40, 10), (80, 5), (20, 100)] {
            let lines = render(None, &now, Some("gone"), width, height);
            assert!(lines.len() <= height);
            assert!(lines.iter().all(|line| line.text.chars().count() <= width));
            if width >= 4 && height > 0 {
                assert_eq!(lines.last().unwrap().text, "gone");
            }
        }
    }

    #[test]
    fn what_it_says_at_two_moments() {
        let (before, now) = (moment(8, 2, 100.0), moment(10, 2, 300.0));
        let lines = render(Some(&before), &now, None, 80, 24);
        let all = texts(&lines).join("\n");
        for words in [
            "up 0:10",
            "INVITE    100  REGISTER    100  again to us    100  by us    100",
            "pending    300  transactions in    300 out    300",
            "udp                 100       100       100       100",
            "2xx    100",
            "loop turns/s    100   each in ms: mean 0.010  p50 <= 0.01  p99 <= 0.25",
            "challenged    100  accepted    100  stale    100  refused    200",
            "TLS server/s full    100",
            "0:100",
            "limits hit/s connections 100  max_breadth 100  transactions 100",
            "dropped/s    absorbed 100  foreign_response 100  send_queue_full 100",
        ] {
            assert!(all.contains(words), "no {words:?} in\n{all}");
        }
        let look = |start: &str| {
            let line = lines.iter().find(|line| line.text.starts_with(start));
            line.map(|line| line.look)
        };
        assert_eq!(look("limits hit/s"), Some(Look::Alarm));
        assert_eq!(look("dropped/s"), Some(Look::Alarm));
        assert_eq!(look("udp"), Some(Look::Plain));
    }

    #[test]
    fn a_quiet_server_raises_no_alarm() {
        let (before, now) = (moment(8, 1, 0.0), moment(9, 1, 0.0));
        let lines = render(Some(&before), &now, None, 80, 24);
        assert!(lines.iter().all(|line| line.look != Look::Alarm), "{lines:#?}");
        let all = texts(&lines).join("\n");
        assert!(all.contains("limits hit/s none") && all.contains("state        serving"), "{all}");
        assert!(all.contains("p50 -"), "{all}");
    }

    #[test]
    fn another_run_of_the_server_is_not_compared_with_the_one_before() {
        let (before, mut now) = (moment(8, 1, 500.0), moment(9, 1, 3.0));
        now.values.insert("process_start_time_seconds".to_owned(), 1007.0);
        let all = texts(&render(Some(&before), &now, None, 80, 24)).join("\n");
        assert!(all.contains("INVITE      -"), "{all}");
    }

    #[test]
    fn numbers_take_six_places_at_most() {
        for (number, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (0.04, "0.0"),
            (9.94, "9.9"),
            (9.96, "10"),
            (99_999.4, "99999"),
            (99_999.6, "100k"),
            (9_999_499.0, "9999k"),
            (9_999_500.0, "10M"),
            (9e15, "99999G"),
        ] {
            assert_eq!(short(Some(number)), text, "{number}");
        }
        assert_eq!(clock(59.9), "0:59");
        assert_eq!(clock(3_723.0), "1:02:03");
        assert_eq!(clock(349_323.0), "4d 01:02:03");
    }

    #[test]
    fn what_a_server_says_does_not_speak_to_the_terminal() {
        let mut now = moment(1, 1, 1.0);
        now.version = "0.1\u{1b}[2J\n".to_owned();
        let lines = render(None, &now, None, 80, 24);
        assert!(lines[0].text.starts_with("strowger 0.1?[2J"), "{lines:?}");
    }
}
