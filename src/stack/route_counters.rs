//! Outcomes of calls, by `[[route]]` and next hop: each INVITE that opens a call, each copy of it that leaves, and its final
//! response. Rows are looked up when the conf is read, so that a call needs no search.

use crate::stack::route::{Action, Route};

/// Upper bounds of the time until calls are answered, in milliseconds.
pub const SETUP_BOUNDS_MS: [u64; 11] = [100, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000];

/// Maximum rows of one core. After very many reloads with new next hops each time, further ones are counted as if without a route.
const MOST_ROWS: usize = 4096;

/// Status codes that one row counts separately; next hops may answer with any.
const MOST_CODES: usize = 32;

/// How a branch ended, if not by a status.
pub const TIMED_OUT: u16 = 0;
pub const UNREACHABLE: u16 = 1;
/// Any status that is not counted separately.
pub const OTHER: u16 = 2;

/// The row of a branch; a request that does not open a call has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowId(u16);

impl RowId {
    pub const NONE: RowId = RowId(u16::MAX);
    /// The row for requests that take no route.
    pub const LOCATION: RowId = RowId(0);
}

/// The copies that went to one next hop of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Counted from 1; 0: no route.
    pub route: u16,
    /// The next hop as written in the conf, or a word for those it does not name.
    pub target: Box<str>,
    pub attempts: u64,
    /// By status.
    pub codes: Vec<(u16, u64)>,
    setup: usize,
}

/// How long it took until the calls of one route were answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// Counted from 1; 0: no route.
    pub route: u16,
    /// By [`SETUP_BOUNDS_MS`], not cumulative; the last bucket has no bound.
    pub buckets: [u64; SETUP_BOUNDS_MS.len() + 1],
    pub sum_ms: u64,
}

/// The counters of calls; see the module documentation.
#[derive(Clone, Debug)]
pub struct RouteCounters {
    pub rows: Vec<Row>,
    pub setups: Vec<Setup>,
    /// The rows of each next hop of each route of the conf; one row for a route that names none.
    of_routes: Vec<Vec<RowId>>,
}

impl Default for RouteCounters {
    fn default() -> RouteCounters {
        let mut counters = RouteCounters { rows: Vec::new(), setups: Vec::new(), of_routes: Vec::new() };
        counters.row(0, "location");
        counters
    }
}

impl RouteCounters {
    pub fn new(routes: &[Route]) -> RouteCounters {
        let mut counters = RouteCounters::default();
        counters.configure(routes);
        counters
    }

    /// Sets the routes for what comes next. Existing counts stay.
    pub fn configure(&mut self, routes: &[Route]) {
        self.of_routes = (1..)
            .zip(routes)
            .map(|(number, route)| match &route.action {
                Action::Relay(hops) if hops.is_empty() => vec![self.row(number, "request-uri")],
                Action::Relay(hops) => hops.iter().map(|hop| self.row(number, &String::from_utf8_lossy(hop.uri.text()))).collect(),
                Action::Location => vec![self.row(number, "location")],
                Action::Redirect(_) | Action::Reject(_) | Action::Drop => Vec::new(),
            })
            .collect();
    }

    /// Returns the row of this next hop of a route, by their positions.
    pub fn of(&self, route: Option<u16>, hop: u16) -> RowId {
        let Some(route) = route else {
            return RowId::LOCATION;
        };
        let rows = self.of_routes.get(usize::from(route));
        let row = rows.and_then(|rows| rows.get(usize::from(hop)).or(rows.first()));
        row.copied().unwrap_or(RowId::LOCATION)
    }

    #[inline]
    pub fn attempt(&mut self, row: RowId) {
        if let Some(row) = self.rows.get_mut(usize::from(row.0)) {
            row.attempts += 1;
        }
    }

    /// Counts the end of a branch, by this status or [`TIMED_OUT`] or [`UNREACHABLE`].
    #[inline]
    pub fn end(&mut self, row: RowId, code: u16) {
        if let Some(row) = self.rows.get_mut(usize::from(row.0)) {
            row.count(code, 1);
        }
    }

    /// Counts a call answered this long after it arrived.
    #[inline]
    pub fn answered(&mut self, row: RowId, setup_ms: u64) {
        let row = self.rows.get(usize::from(row.0));
        if let Some(setup) = row.and_then(|row| self.setups.get_mut(row.setup)) {
            let bucket = SETUP_BOUNDS_MS.partition_point(|bound| *bound < setup_ms);
            setup.buckets[bucket] += 1;
            setup.sum_ms += setup_ms;
        }
    }

    /// Adds another core's numbers.
    pub fn add(&mut self, other: &RouteCounters) {
        for theirs in &other.rows {
            let RowId(place) = self.row(theirs.route, &theirs.target);
            if let Some(row) = self.rows.get_mut(usize::from(place)) {
                row.attempts += theirs.attempts;
                for (code, count) in &theirs.codes {
                    row.count(*code, *count);
                }
            }
        }
        for theirs in &other.setups {
            let place = self.setup(theirs.route);
            let mine = &mut self.setups[place];
            mine.sum_ms += theirs.sum_ms;
            for (mine, theirs) in mine.buckets.iter_mut().zip(theirs.buckets) {
                *mine += theirs;
            }
        }
    }

    fn row(&mut self, route: u16, target: &str) -> RowId {
        let known = self.rows.iter().position(|row| row.route == route && *row.target == *target);
        let place = match known {
            Some(place) => place,
            None if self.rows.len() >= MOST_ROWS => return RowId::LOCATION,
            None => {
                let setup = self.setup(route);
                self.rows.push(Row { route, target: target.into(), attempts: 0, codes: Vec::new(), setup });
                self.rows.len() - 1
            }
        };
        RowId(place as u16)
    }

    fn setup(&mut self, route: u16) -> usize {
        let known = self.setups.iter().position(|setup| setup.route == route);
        known.unwrap_or_else(|| {
            self.setups.push(Setup { route, ..Setup::default() });
            self.setups.len() - 1
        })
    }
}

impl Row {
    fn count(&mut self, code: u16, count: u64) {
        let is_full = self.codes.len() >= MOST_CODES;
        let known = self.codes.iter_mut().find(|(known, _)| *known == code);
        match known {
            Some((_, sum)) => *sum += count,
            None if is_full && code != OTHER => self.count(OTHER, count),
            None => self.codes.push((code, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::stack::route::NextHop;

    fn relay(hops: &[&str]) -> Route {
        let hop = |uri: &&str| NextHop {
            uri: uri.parse().unwrap(),
            address: None,
            transport: Transport::Udp,
            host: Vec::new(),
            identity: 0,
        };
        Route { action: Action::Relay(hops.iter().map(hop).collect()), ..Route::default() }
    }

    fn codes(counters: &RouteCounters, route: u16, target: &str) -> Vec<(u16, u64)> {
        let row = counters.rows.iter().find(|row| row.route == route && &*row.target == target);
        row.map(|row| row.codes.clone()).unwrap_or_default()
    }

    #[test]
    fn cores_are_added_by_name_and_a_reload_keeps_what_was_counted() {
        let mut one = RouteCounters::new(&[relay(&["sip:a", "sip:b"]), Route::default()]);
        let mut two = RouteCounters::new(&[relay(&["sip:b"])]);
        one.end(one.of(Some(0), 1), 200);
        one.end(one.of(Some(1), 0), 486);
        one.end(one.of(None, 0), 404);
        two.end(two.of(Some(0), 0), 200);
        two.answered(two.of(Some(0), 0), 300);
        one.add(&two);
        assert_eq!(codes(&one, 1, "sip:b"), [(200, 2)]);
        assert_eq!(codes(&one, 2, "location"), [(486, 1)]);
        assert_eq!(codes(&one, 0, "location"), [(404, 1)]);
        assert_eq!((one.setups[1].buckets[2], one.setups[1].sum_ms), (1, 300));
        one.configure(&[relay(&["sip:c", "sip:b"])]);
        one.end(one.of(Some(0), 1), 200);
        one.end(one.of(Some(0), 0), 503);
        assert_eq!(codes(&one, 1, "sip:b"), [(200, 3)]);
        assert_eq!(codes(&one, 1, "sip:c"), [(503, 1)]);
        // A branch that began under a conf with more routes is not counted in another row.
        one.end(one.of(Some(7), 3), 500);
        assert_eq!(codes(&one, 0, "location"), [(404, 1), (500, 1)]);
        one.end(RowId::NONE, 200);
        one.attempt(RowId::NONE);
    }

    #[test]
    fn neither_reloads_nor_strange_codes_take_memory_without_end() {
        let mut counters = RouteCounters::default();
        for reload in 0..MOST_ROWS + 10 {
            counters.configure(&[relay(&[&format!("sip:h{reload}.example.com")])]);
        }
        assert_eq!(counters.rows.len(), MOST_ROWS);
        assert_eq!(counters.of(Some(0), 0), RowId::LOCATION);
        for code in 200..700 {
            counters.end(RowId::LOCATION, code);
        }
        assert_eq!(counters.rows[0].codes.len(), MOST_CODES + 1);
        assert_eq!(counters.rows[0].codes.last(), Some(&(OTHER, 500 - MOST_CODES as u64)));
    }

    #[test]
    fn a_time_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let mut counters = RouteCounters::new(&[]);
        for ms in [0, 100, 101, 128_000, 128_001] {
            counters.answered(RowId::LOCATION, ms);
        }
        let buckets = counters.setups[0].buckets;
        assert_eq!((buckets[0], buckets[1], buckets[10], buckets[11]), (2, 1, 1, 1));
    }
}
