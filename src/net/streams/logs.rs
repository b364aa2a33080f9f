//! What the connections of one core may log: lines about single peers, and one a second about each limit that is hit.

use crate::base::{Instant, LogBudget};
use crate::net::state::{State, Why};

pub struct Logs {
    pub single: LogBudget,
    /// All slots for connections are taken.
    pub full: LogBudget,
    /// The kernel hands over no connection.
    pub accept: LogBudget,
    pub waiting: LogBudget,
    pub overload: LogBudget,
    /// Too much waits for peers that do not read.
    pub unsent: LogBudget,
    yields: LogBudget,
    stalled: LogBudget,
    late: LogBudget,
    blank: LogBudget,
    unfinished: LogBudget,
    proxy_header: LogBudget,
}

impl Default for Logs {
    fn default() -> Logs {
        Logs {
            single: LogBudget::new("single connections"),
            full: LogBudget::of_limit("connections refused"),
            accept: LogBudget::of_limit("connections that cannot be accepted"),
            waiting: LogBudget::of_limit("TLS clients that wait"),
            overload: LogBudget::of_limit("TLS connections refused"),
            unsent: LogBudget::of_limit("messages for peers that do not read"),
            yields: LogBudget::of_limit("connections closed for those of other sources"),
            stalled: LogBudget::of_limit("stalled TLS handshakes"),
            late: LogBudget::of_limit("TLS clients whose turn has not come"),
            blank: LogBudget::of_limit("connections with too many keep-alives"),
            unfinished: LogBudget::of_limit("messages that were not whole in time"),
            proxy_header: LogBudget::new("connections without a PROXY header"),
        }
    }
}

impl Logs {
    /// Returns the budget of lines about connections that end for this reason.
    pub fn about(&mut self, why: &Why) -> &mut LogBudget {
        match why {
            Why::Yields(_) => &mut self.yields,
            Why::Stalled(_) => &mut self.stalled,
            Why::Late => &mut self.late,
            Why::Blank(_) => &mut self.blank,
            Why::Unfinished | Why::Crowded(_) => &mut self.unfinished,
            Why::ProxyHeader(_) | Why::Overdue(State::ProxyHeader) => &mut self.proxy_header,
            _ => &mut self.single,
        }
    }

    pub fn renew(&mut self, now: Instant) {
        for log in [
            &mut self.single,
            &mut self.full,
            &mut self.accept,
            &mut self.waiting,
            &mut self.overload,
            &mut self.unsent,
            &mut self.yields,
            &mut self.stalled,
            &mut self.late,
            &mut self.blank,
            &mut self.unfinished,
            &mut self.proxy_header,
        ] {
            log.renew(now);
        }
    }
}
