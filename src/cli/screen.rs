//! The screen of `strowger top`: turns two samples of the statistics, what has passed and a size into lines of text, nothing else.

mod calls;
mod history;
mod machine;
mod view;

pub use history::History;
pub use view::{Line, Look, Moment, Piece};
use view::{View, WIDTH, alarm, line, plain, short};

/// Renders the screen for `now`, with rates since `before`; `note` is a remark about the query itself. No line is longer than
/// `width`, and there are no more than `height`. At 80 by 24 everything fits; on a lower screen blank lines go first, then what an
/// operator asks last.
pub fn render(
    before: Option<&Moment>,
    now: &Moment,
    history: &History,
    note: Option<&str>,
    (width, height): (usize, usize),
) -> Vec<Line> {
    let view = View::new(before, now);
    let mut lines = vec![view.head(), view.state()];
    lines.push(Line::default());
    view.calls(&mut lines, history);
    lines.push(Line::default());
    view.machine(&mut lines);
    let room = height.saturating_sub(1);
    if lines.len() > room {
        lines.retain(|line| *line != Line::default());
    }
    // The footer stays visible however low the screen is.
    lines.truncate(room);
    lines.push(match note {
        Some(note) => alarm(note),
        None => plain("q quits"),
    });
    lines.truncate(height);
    for line in &mut lines {
        line.cut(width);
    }
    lines
}

impl View<'_> {
    fn head(&self) -> Line {
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
        let room = WIDTH.saturating_sub(right.chars().count() + 1);
        let left: String = format!("strowger {}", self.now.version).chars().take(room).collect();
        let gap = WIDTH.saturating_sub(left.chars().count() + right.chars().count());
        line(format!("{left}{:gap$}{right}", ""), Look::Heading)
    }

    /// What is wrong with the server as a whole.
    fn state(&self) -> Line {
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
        if self.find("strowger_shared_up") == Some(0.0) {
            states.push("the shared table is away".to_owned());
        }
        let kernel = self.rate("strowger_udp_kernel_drops_total", &[]);
        if let Some(drops) = kernel.filter(|drops| *drops > 0.0) {
            states.push(format!("receive buffer full {}/s", short(Some(drops))));
        }
        let waiting = self.value("strowger_udp_send_queue_bytes", &[]);
        if waiting > 0.0 {
            states.push(format!("{} B wait to be sent", short(Some(waiting))));
        }
        let title = plain("state        ");
        match states.is_empty() {
            true => title.and("serving", Look::Good),
            false => title.and(states.join(", "), Look::Alarm),
        }
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
    use super::machine::TRANSPORTS;
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

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
        for code in ["200", "486", "503", "timeout"] {
            put(&format!("strowger_route_responses_total{{route=\"1\",target=\"sip:192.0.2.9\",code=\"{code}\"}}"), value);
        }
        for target in ["sip:192.0.2.9", "sip:192.0.2.10"] {
            put(&format!("strowger_target_up{{target=\"{target}\"}}"), 1.0);
        }
        put("strowger_call_setup_seconds_count{route=\"1\"}", value);
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
            "strowger_dialogs",
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

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::text).collect()
    }

    fn show(before: Option<&Moment>, now: &Moment, size: (usize, usize)) -> Vec<Line> {
        let mut history = History::default();
        if let Some(before) = before {
            history.take(before, now);
        }
        render(before, now, &history, None, size)
    }

    fn look(lines: &[Line], start: &str) -> Vec<Look> {
        let line = lines.iter().find(|line| line.text().starts_with(start));
        line.map(|line| line.0.iter().map(|piece| piece.look).collect()).unwrap_or_default()
    }

    #[test]
    fn everything_fits_a_terminal_of_80_by_24() {
        for cores in [1, 2, 16, 64, 255] {
            for value in [0.0, 1.0, 99_999.0, 123_456_789.0, 9e15] {
                let (before, now) = (moment(10, cores, 0.0), moment(11, cores, value));
                for before in [None, Some(&before)] {
                    let lines = show(before, &now, (80, 24));
                    let all = texts(&lines).join("\n");
                    assert!(lines.len() <= 24, "{} lines:\n{all}", lines.len());
                    assert_eq!(lines.last().unwrap().text(), "q quits");
                    // Nothing was cut off: what is designed for 80 columns is the same on a wider screen.
                    let wide = show(before, &now, (500, 100));
                    let lists = ["limits", "dropped", "state", "codes"];
                    let same = |(a, b): (&Line, &Line)| a == b || lists.iter().any(|list| b.text().starts_with(list));
                    assert!(lines.iter().zip(&wide).all(same), "cut:\n{all}\n{wide:#?}");
                    assert_eq!(lines.len(), wide.len(), "lines are missing:\n{all}");
                }
            }
        }
    }

    /// Of any size: no line is too long, none too many, and the foot is always there.
    #[test]
    fn a_smaller_terminal_gets_what_fits() {
        let (before, now) = (moment(1, 2, 1.0), moment(2, 2, 9.0));
        for width in 0..=81 {
            for height in 0..=25 {
                let lines = render(Some(&before), &now, &History::default(), Some("gone"), (width, height));
                assert!(lines.len() <= height, "{width} by {height}");
                assert!(lines.iter().all(|line| line.text().chars().count() <= width), "{width} by {height}");
                if width >= 4 && height > 0 {
                    assert_eq!(lines.last().unwrap().text(), "gone");
                }
            }
        }
        let low: Vec<String> = texts(&show(Some(&before), &now, (20, 5)));
        assert_eq!(low[1..], ["state        drainin", "calls now         9", "attempts/s        8", "q quits"], "{low:?}");
        assert!(low[0].starts_with("strowger"), "{low:?}");
    }

    #[test]
    fn what_it_says_at_two_moments() {
        let (before, mut now) = (moment(8, 2, 100.0), moment(10, 2, 300.0));
        now.values.insert("strowger_target_up{target=\"sip:192.0.2.10\"}".to_owned(), 0.0);
        let lines = show(Some(&before), &now, (80, 24));
        let all = texts(&lines).join("\n");
        for words in [
            "up 0:10",
            "calls now       300   waiting for an answer    300   registered    300",
            "attempts/s      100 █",
            "answered/s      100 █",
            "REGISTER/s      100 █",
            "codes/s      200 100  486 100  503 100  timeout 100",
            "targets      1 of 2 down: sip:192.0.2.10",
            "repeated/s   to us    100  by us    100  transactions in    300 out    300",
            "udp                 100       100       100       100",
            "loop turns/s    100   each in ms: mean 0.010  p50 <= 0.01  p99 <= 0.25",
            "challenged    100  accepted    100  stale    100  refused    200",
            "TLS/s        full    200",
            "0:100",
            "limits hit/s connections 100  max_breadth 100  transactions 100",
            "dropped/s    absorbed 100  foreign_response 100  send_queue_full 100",
        ] {
            assert!(all.contains(words), "no {words:?} in\n{all}");
        }
        assert!(look(&lines, "limits hit/s").contains(&Look::Alarm));
        assert!(look(&lines, "targets").contains(&Look::Alarm));
        // Of the codes, those that servers give for themselves; of what was dropped, what is not routine.
        use Look::{Alarm, Plain};
        assert_eq!(look(&lines, "codes/s"), [Plain, Plain, Plain, Plain, Plain, Alarm, Plain, Alarm]);
        assert_eq!(look(&lines, "dropped/s")[..3], [Plain, Plain, Plain]);
        assert!(look(&lines, "dropped/s").contains(&Alarm) && look(&lines, "state").contains(&Alarm));
        assert_eq!(look(&lines, "udp"), [Plain]);
    }

    #[test]
    fn a_quiet_server_raises_no_alarm() {
        let (before, now) = (moment(8, 1, 0.0), moment(9, 1, 0.0));
        let lines = show(Some(&before), &now, (80, 24));
        assert!(lines.iter().all(|line| line.0.iter().all(|piece| piece.look != Look::Alarm)), "{lines:#?}");
        let all = texts(&lines).join("\n");
        assert!(all.contains("limits hit/s none") && all.contains("state        serving"), "{all}");
        assert!(all.contains("p50 -") && all.contains("targets      2 up") && all.contains("codes/s      none"), "{all}");
    }

    /// Only a server that keeps records counts its calls.
    #[test]
    fn what_is_not_counted_is_not_said() {
        let mut now = moment(9, 1, 1.0);
        now.values.retain(|name, _| !name.starts_with("strowger_dialogs") && !name.starts_with("strowger_target_up"));
        let all = texts(&show(None, &now, (80, 24))).join("\n");
        assert!(all.contains("calls now         -") && all.contains("targets      none in the conf"), "{all}");
    }

    #[test]
    fn another_run_of_the_server_is_not_compared_with_the_one_before() {
        let (before, mut now) = (moment(8, 1, 500.0), moment(9, 1, 3.0));
        now.values.insert("process_start_time_seconds".to_owned(), 1007.0);
        let all = texts(&show(Some(&before), &now, (80, 24))).join("\n");
        assert!(all.contains("attempts/s        -\n"), "{all}");
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
        let lines = show(None, &now, (80, 24));
        assert!(lines[0].text().starts_with("strowger 0.1?[2J"), "{lines:?}");
    }
}
