//! The upper half of the screen: what an operator asks first. How many calls there are, what becomes of them, which targets are
//! down, and what is refused or lost.

use super::history::{History, Kept};
use super::machine::alarm_if;
use super::view::{Line, Look, View, line, plain, short};

/// The width of the bars: what is left of 80 columns.
const BARS: usize = 40;

impl View<'_> {
    pub(super) fn calls(&self, lines: &mut Vec<Line>, history: &History) {
        // Only a server that keeps records of calls counts those that go on.
        let calls = short(self.find("strowger_dialogs"));
        let setting_up = short(Some(self.value("strowger_requests_pending", &[])));
        let bindings = short(Some(self.value("strowger_bindings", &[])));
        lines.push(line(
            format!("calls now    {calls:>6}   waiting for an answer {setting_up:>6}   registered {bindings:>6}"),
            Look::Heading,
        ));
        for (title, kept) in [("attempts/s", Kept::Attempts), ("answered/s", Kept::Answers), ("REGISTER/s", Kept::Registers)] {
            let rate = short(kept.rate(self));
            lines.push(plain(format!("{title:<13}{rate:>6} ")).and(history.bars(kept, BARS), Look::Good));
        }
        lines.push(self.codes());
        lines.push(self.targets());
        lines.push(self.list("limits hit/s", "strowger_limit_hits_total", &[]));
        // What ends here by rule, and what carries no message, is routine.
        lines.push(self.list("dropped/s", "strowger_dropped_total", &["absorbed", "keep_alive"]));
    }

    /// What calls were answered with by next hops, the most first. That nobody answers a call is no fault, and that a server does is.
    fn codes(&self) -> Line {
        const NAME: &str = "strowger_route_responses_total";
        let mut rates: Vec<(&str, f64)> = self
            .by_label(NAME, "code")
            .into_keys()
            .filter_map(|code| Some((code, self.rate(NAME, &[("code", code)]).filter(|rate| *rate > 0.0)?)))
            .collect();
        rates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        let mut line = plain("codes/s      ");
        if rates.is_empty() {
            return line.and("none", Look::Plain);
        }
        for (code, rate) in rates {
            let look = match code.as_bytes().first() {
                Some(b'1'..=b'4' | b'6') => Look::Plain,
                _ => Look::Alarm,
            };
            line = line.and(format!("{code} {}", short(Some(rate))), look).and("  ", Look::Plain);
        }
        line
    }

    /// The targets of the routes and the accounts with carriers, those that are down by name.
    fn targets(&self) -> Line {
        let mut line = plain("targets      ");
        let all = [("strowger_target_up", "target"), ("strowger_trunk_registered", "trunk")];
        let mut down = Vec::new();
        let mut count = 0;
        for (name, label) in all {
            for (value, samples) in self.by_label(name, label) {
                count += 1;
                if samples.iter().any(|sample| self.find(sample) == Some(0.0)) {
                    down.push(value);
                }
            }
        }
        let failed = self.value("strowger_next_hops_failed", &[]);
        line = match (count, down.len()) {
            (0, _) => line.and("none in the conf", Look::Plain),
            (_, 0) => line.and(format!("{count} up"), Look::Good),
            (_, some) => line.and(format!("{some} of {count} down: {}", down.join(", ")), Look::Alarm),
        };
        match down.is_empty() && failed > 0.0 {
            true => line.and(format!("  other next hops failed: {}", short(Some(failed))), Look::Alarm),
            false => line,
        }
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
        let mut line = plain(format!("{title:<13}"));
        if risen.is_empty() {
            return line.and("none", Look::Plain);
        }
        for (label, rate) in risen {
            let look = match usual.contains(&label) {
                true => Look::Plain,
                false => alarm_if(Some(rate)),
            };
            line = line.and(format!("{label} {}", short(Some(rate))), look).and("  ", Look::Plain);
        }
        line
    }
}
