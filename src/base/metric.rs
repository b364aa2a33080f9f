//! Metrics as operators read them: families of samples under Prometheus names, each with a help text.

use std::fmt::{Display, Write};

/// All metrics of the server, in the order of their first mention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Families {
    all: Vec<Family>,
}

/// One metric and its samples, one for each set of labels. There may be none.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises; its name ends with `_total`.
    Counter,
    Gauge,
    /// Samples by bound (`_bucket`, cumulative), their sum (`_sum`) and their number (`_count`).
    Histogram,
}

/// One value under its full name: `strowger_requests_total{method="INVITE"}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub value: f64,
}

/// A type that a sample's value can be made from.
pub trait Amount {
    fn amount(self) -> f64;
}

impl Amount for f64 {
    fn amount(self) -> f64 {
        self
    }
}

impl Amount for u64 {
    fn amount(self) -> f64 {
        self as f64
    }
}

impl Amount for usize {
    fn amount(self) -> f64 {
        self as f64
    }
}

impl Amount for bool {
    fn amount(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl Families {
    /// Returns the counter `name`, which is created if necessary: several modules may count under one name.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, help, Kind::Counter)
    }

    /// Returns the gauge `name`.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        debug_assert!(!name.ends_with("_total"), "{name}");
        self.family(name, help, Kind::Gauge)
    }

    /// Adds a histogram from its bounds and the number in each bucket, not cumulative; the last bucket has no bound.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, bounds: &[f64], buckets: &[u64], sum: f64) {
        self.histogram_of(name, help, &[], bounds, buckets, sum);
    }

    /// The same for one set of labels among several.
    pub fn histogram_of(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &dyn Display)],
        bounds: &[f64],
        buckets: &[u64],
        sum: f64,
    ) {
        debug_assert_eq!(bounds.len() + 1, buckets.len(), "{name}");
        let family = self.family(name, help, Kind::Histogram);
        let mut cumulative = 0;
        for (number, count) in buckets.iter().enumerate() {
            cumulative += count;
            let bound: &dyn Display = match bounds.get(number) {
                Some(bound) => bound,
                None => &"+Inf",
            };
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            family.push("_bucket", &labels, cumulative.amount());
        }
        family.push("_sum", labels, sum);
        family.push("_count", labels, cumulative.amount());
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) -> &mut Family {
        let known = self.all.iter().position(|family| family.name == name);
        let place = known.unwrap_or_else(|| {
            self.all.push(Family { name, help, kind, samples: Vec::new() });
            self.all.len() - 1
        });
        let family = &mut self.all[place];
        debug_assert_eq!((family.help, family.kind), (help, kind), "{name} is named in two ways");
        family
    }

    pub fn iter(&self) -> impl Iterator<Item = &Family> {
        self.all.iter()
    }

    /// Returns the value of a sample by its full name.
    pub fn value(&self, name: &str) -> Option<f64> {
        let mut samples = self.all.iter().flat_map(|family| &family.samples);
        samples.find(|sample| sample.name == name).map(|sample| sample.value)
    }
}

impl Family {
    /// Sets the sample without labels.
    pub fn is(&mut self, value: impl Amount) {
        self.push("", &[], value.amount());
    }

    /// Sets the sample with these labels.
    pub fn of(&mut self, labels: &[(&str, &dyn Display)], value: impl Amount) {
        self.push("", labels, value.amount());
    }

    fn push(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: f64) {
        let mut name = format!("{}{suffix}", self.name);
        for (number, (key, label)) in labels.iter().enumerate() {
            name.push(if number == 0 { '{' } else { ',' });
            name.push_str(key);
            name.push_str("=\"");
            // Writing to a string cannot fail.
            let _ = write!(Escaped(&mut name), "{label}");
            name.push('"');
        }
        if !labels.is_empty() {
            name.push('}');
        }
        self.samples.push(Sample { name, value });
    }
}

/// Escapes what is written between a label's quotes.
struct Escaped<'s>(&'s mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(family: &Family) -> Vec<&str> {
        let names = family.samples.iter().map(|sample| sample.name.as_str());
        names.collect()
    }

    #[test]
    fn a_family_is_one_however_often_it_is_named() {
        let mut families = Families::default();
        let help = "Times that a limit was reached.";
        let hits = families.counter("a_hits_total", help);
        hits.of(&[("limit", &"x")], 1u64);
        families.gauge("a_things", "Things there are.").is(7usize);
        let hits = families.counter("a_hits_total", help);
        hits.of(&[("limit", &"y"), ("side", &2)], 3u64);
        let all: Vec<&Family> = families.iter().collect();
        assert_eq!(all.len(), 2);
        assert_eq!(names(all[0]), ["a_hits_total{limit=\"x\"}", "a_hits_total{limit=\"y\",side=\"2\"}"]);
        assert_eq!(families.value("a_things"), Some(7.0));
        assert_eq!(families.value("a_hits_total{limit=\"y\",side=\"2\"}"), Some(3.0));
        assert_eq!(families.value("a_hits_total"), None);
    }

    #[test]
    fn what_a_label_may_not_hold_is_escaped() {
        let mut families = Families::default();
        let family = families.gauge("a_thing", "A thing.");
        family.of(&[("name", &"a\"b\\c\nd é")], true);
        assert_eq!(names(family), [r#"a_thing{name="a\"b\\c\nd é"}"#], "as the text format has it");
    }

    #[test]
    fn buckets_add_up() {
        let mut families = Families::default();
        families.histogram("a_seconds", "Time.", &[0.00001, 0.5], &[3, 0, 2], 1.25);
        let family = families.iter().next().unwrap();
        let samples: Vec<(&str, f64)> = family.samples.iter().map(|sample| (sample.name.as_str(), sample.value)).collect();
        assert_eq!(
            samples,
            [
                ("a_seconds_bucket{le=\"0.00001\"}", 3.0),
                ("a_seconds_bucket{le=\"0.5\"}", 3.0),
                ("a_seconds_bucket{le=\"+Inf\"}", 5.0),
                ("a_seconds_sum", 1.25),
                ("a_seconds_count", 5.0),
            ]
        );
    }
}
