//! What is counted and timed.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Count { $($(#[$doc])* $name,)* }
        const NAMES: &[&str] = &[$($text,)*];
    };
}

counters! {
    /// Left, or should have left, on schedule.
    Scheduled = "scheduled",
    Started = "started",
    Completed = "completed",
    /// Those of them that were scheduled in the measured time and in which nothing was wrong.
    Good = "good",
    /// Ended by a final response that is not a 2xx: all of them, and then by class.
    Refused = "refused",
    Refused3xx = "refused_3xx",
    Refused4xx = "refused_4xx",
    /// Service Unavailable: what a server says that has too much to do.
    Refused503 = "refused_503",
    /// The others of this class.
    Refused5xx = "refused_5xx",
    Refused6xx = "refused_6xx",
    /// Those of all of them that refused a BYE.
    RefusedBye = "refused_bye",
    TimedOut = "timed_out",
    /// Responses 401 and 407 that were answered, or should have been.
    Challenged = "challenges_received",
    /// Those of them that said the nonce was too old, and the credentials right.
    Stale = "challenges_stale",
    /// Those of them that came though the credentials were fresh: the server takes them for wrong.
    CredentialsRefused = "credentials_refused",
    /// Scheduled and never begun, because too many were outstanding.
    Skipped = "skipped",
    /// Begun more than a millisecond after their time.
    Late = "late",
    Trying = "trying_received",
    Ringing = "ringing_received",
    RetransmittedInvite = "retransmitted_invite",
    RetransmittedOk = "retransmitted_2xx",
    RetransmittedRequest = "retransmitted_request",
    RetransmittedAck = "retransmitted_ack",
    /// Requests and final responses that came more than once.
    Repeated = "repeated_received",
    /// Messages that failed a check: not SIP, wrong Via, tag, Call-ID, CSeq, target or status.
    Wrong = "wrong",
    /// Messages of calls that are over, or of another run.
    Stray = "stray",
    Received = "messages_received",
    ReceivedBytes = "bytes_received",
    Sent = "messages_sent",
    SentBytes = "bytes_sent",
    /// Not sent: the kernel refused it, its connection is gone or cannot be opened, or it is longer than a datagram.
    SendErrors = "send_errors",
    /// Connections begun by us.
    Opened = "connections_opened",
    Accepted = "connections_accepted",
    /// Closed by the peer and not by us: right for a connection that the server opened, a loss for our own.
    ClosedByPeer = "connections_closed_by_peer",
    /// Refused, reset, or spoken on in no SIP or no TLS.
    Broken = "connections_broken",
    /// Calls and requests that ended because their connection did.
    Cut = "cut_off",
    ClientFull = "tls_client_full",
    ClientResumed = "tls_client_resumed",
    ClientFailed = "tls_client_failed",
    /// Calls of SSL_do_handshake.
    ClientHandshakeCalls = "tls_client_handshake_calls",
    ServerFull = "tls_server_full",
    ServerResumed = "tls_server_resumed",
    ServerFailed = "tls_server_failed",
    ServerHandshakeCalls = "tls_server_handshake_calls",
}

const COUNTS: usize = NAMES.len();

#[derive(Clone, Copy)]
pub struct Counts([u64; COUNTS]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; COUNTS])
    }
}

impl Counts {
    #[inline]
    pub fn add(&mut self, count: Count) {
        self.0[count as usize] += 1;
    }

    pub fn add_many(&mut self, count: Count, number: u64) {
        self.0[count as usize] += number;
    }

    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    pub fn plus(&self, other: &Counts) -> Counts {
        let mut sum = *self;
        for (number, more) in sum.0.iter_mut().zip(other.0) {
            *number += more;
        }
        sum
    }

    pub fn since(&self, earlier: &Counts) -> Counts {
        let mut difference = *self;
        for (now, then) in difference.0.iter_mut().zip(earlier.0) {
            *now -= then;
        }
        difference
    }

    pub fn retransmissions(&self) -> u64 {
        [Count::RetransmittedInvite, Count::RetransmittedOk, Count::RetransmittedRequest, Count::RetransmittedAck]
            .iter()
            .map(|count| self.get(*count))
            .sum()
    }

    pub fn json(&self) -> Map<String, Value> {
        NAMES.iter().zip(self.0).map(|(name, number)| ((*name).to_string(), json!(number))).collect()
    }
}

/// From the scheduled time of the INVITE (or of the request) to a message, and for the BYE from its own sending. All but the last two are of
/// calls that ended well.
#[derive(Clone, Copy)]
pub enum Span {
    ToTrying,
    ToRinging,
    ToOk,
    /// The same, of all calls that ended while something was measured, whenever they began; not of those that ended later.
    ServedToOk,
    Bye,
    Whole,
    /// To the final response of a call or a request that was refused.
    Refusal,
    /// How far behind the schedule the first message left: the generator's own lag.
    Lag,
}

const SPANS: [&str; 8] = ["to_100", "to_180", "to_200", "served_to_200", "bye_to_200", "whole", "to_refusal", "generator_lag"];

/// The measured part of a run in which something began; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mark(u32);

pub struct Stats {
    pub counts: Counts,
    spans: Vec<Histogram<u64>>,
    /// Whether what begins now belongs to a measured part of the run, and its number: what began in an earlier one and ends now is of no interest.
    measuring: bool,
    part: u32,
    complaints: u32,
}

impl Stats {
    pub fn new() -> Stats {
        let histogram = Histogram::new_with_bounds(100, 64_000_000_000, 3).expect("constant bounds");
        Stats { counts: Counts::default(), spans: vec![histogram; SPANS.len()], measuring: false, part: 0, complaints: 0 }
    }

    #[inline]
    pub fn record(&mut self, span: Span, nanoseconds: u64) {
        self.spans[span as usize].saturating_record(nanoseconds);
    }

    /// What begins from now on is measured, and nothing that began before.
    pub fn begin_measuring(&mut self) {
        self.measuring = true;
        self.part += 1;
        for span in &mut self.spans {
            span.reset();
        }
    }

    /// What begins from now on is not measured; what has begun still is.
    pub fn end_measuring(&mut self) {
        self.measuring = false;
    }

    pub fn is_measuring(&self) -> bool {
        self.measuring
    }

    /// For what begins now: tells later whether it is measured.
    pub fn mark(&self) -> Mark {
        Mark(if self.measuring { self.part } else { 0 })
    }

    #[inline]
    pub fn measures(&self, mark: Mark) -> bool {
        mark.0 != 0 && mark.0 == self.part
    }

    /// Counts the end of a call or request by a final response that is not a 2xx.
    pub fn refused(&mut self, status: u16) {
        self.counts.add(Count::Refused);
        self.counts.add(match status {
            503 => Count::Refused503,
            500..=599 => Count::Refused5xx,
            600.. => Count::Refused6xx,
            400..=499 => Count::Refused4xx,
            _ => Count::Refused3xx,
        });
    }

    pub fn quantile_ns(&self, span: Span, quantile: f64) -> u64 {
        self.spans[span as usize].value_at_quantile(quantile)
    }

    /// Counts a message that failed a check, and shows the first few of them.
    pub fn wrong(&mut self, why: &str, raw: &[u8]) {
        self.counts.add(Count::Wrong);
        if self.complaints < 3 {
            self.complaints += 1;
            eprintln!("wrong: {why}\n{}\n", String::from_utf8_lossy(raw).trim_end());
        }
    }

    /// Percentiles in microseconds, for each span that has any.
    pub fn spans_json(&self) -> Value {
        let us = |ns: u64| json!(ns as f64 / 1_000.0);
        let spans: Map<String, Value> = SPANS
            .iter()
            .zip(&self.spans)
            .filter(|(_, span)| !span.is_empty())
            .map(|(name, span)| {
                let value = json!({
                    "count": span.len(),
                    "min": us(span.min()),
                    "p50": us(span.value_at_quantile(0.5)),
                    "p90": us(span.value_at_quantile(0.9)),
                    "p99": us(span.value_at_quantile(0.99)),
                    "p999": us(span.value_at_quantile(0.999)),
                    "max": us(span.max()),
                });
                ((*name).to_string(), value)
            })
            .collect();
        Value::Object(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_in_an_earlier_part_is_not_measured_in_a_later() {
        let mut stats = Stats::new();
        assert!(!stats.measures(stats.mark()));
        stats.begin_measuring();
        let first = stats.mark();
        assert!(stats.measures(first));
        stats.end_measuring();
        // What ends in the drain belongs to the part that it began in; what begins there to none.
        assert!(stats.measures(first) && !stats.measures(stats.mark()));
        stats.begin_measuring();
        assert!(!stats.measures(first) && stats.measures(stats.mark()));
    }

    #[test]
    fn refusals_are_counted_by_class() {
        let mut stats = Stats::new();
        for status in [302, 404, 486, 500, 503, 504, 600] {
            stats.refused(status);
        }
        let counts =
            [Count::Refused, Count::Refused3xx, Count::Refused4xx, Count::Refused503, Count::Refused5xx, Count::Refused6xx]
                .map(|count| stats.counts.get(count));
        assert_eq!(counts, [7, 1, 2, 1, 2, 1]);
    }
}
