//! The states of a connection, and the one step between them: what happens to a connection, and what is to be done about it. Pure.

use super::tls::Failure;
use crate::sip::Fault;
use std::io;

/// Where a connection is in its life. Each state has a deadline of its own; what is closed is not in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Waits for the peer to accept.
    Connecting,
    /// A peer has opened it for TLS. Its handshake has not begun: nothing has come yet, or it is not its turn.
    Accepted,
    /// Waits for the peer's part of the TLS handshake.
    Handshaking,
    /// Carries messages, and none has begun. Its deadline is the idle time-out.
    Open,
    /// The same, but a message or a TLS record has begun and is not whole. Until it is, nothing gives the connection more time.
    Receiving,
    /// Nothing more is read from it; it closes as soon as what is owed and what waits has left.
    Draining,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Connecting, State::Accepted, State::Handshaking, State::Open, State::Receiving, State::Draining];

    /// The states as operators see them: whether a message has begun is of no interest to them.
    pub const SHOWN: [State; 5] = [State::Connecting, State::Accepted, State::Handshaking, State::Open, State::Draining];

    /// The one of [`State::SHOWN`] as which this one is counted.
    pub const fn shown(self) -> State {
        match self {
            State::Receiving => State::Open,
            state => state,
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Accepted => "accepted",
            State::Handshaking => "handshaking",
            State::Open | State::Receiving => "open",
            State::Draining => "draining",
        }
    }

    /// True if messages go both ways.
    pub const fn is_open(self) -> bool {
        matches!(self, State::Open | State::Receiving)
    }

    /// True if what the rules have to say may leave.
    pub const fn may_speak(self) -> bool {
        matches!(self, State::Open | State::Receiving | State::Draining)
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub enum Why {
    /// Nothing more was to be said, by either side.
    Done,
    Error(io::Error),
    Tls(Failure),
    /// The peer closed it before the TLS handshake was done.
    Early,
    /// The stream could not be framed.
    Garbage(Fault),
    /// The deadline of the state it was in.
    Overdue(State),
    /// The peer left messages half sent.
    Truncated,
    /// A message has begun, and was not whole in its time.
    Unfinished,
    /// It only waited for what was owed to it, and another connection needs its place.
    Displaced,
    /// Another connection needs its place, and its source holds that many.
    Yields(usize),
    /// Its TLS handshake has stalled, and others wait; that many may be in progress.
    Stalled(usize),
    /// More bytes than this came between messages.
    Blank(usize),
    /// Messages that are not whole hold more bytes than this.
    Crowded(usize),
    /// Its source is banned.
    Banned,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Done => f.write_str("done"),
            Why::Error(error) => write!(f, "{error}"),
            Why::Tls(failure) => write!(f, "{failure}"),
            Why::Early => f.write_str("closed by the peer before the TLS handshake was done"),
            Why::Garbage(fault) => write!(f, "not SIP: {}", fault.reason()),
            Why::Overdue(State::Connecting) => f.write_str("no answer within connect_timeout"),
            Why::Overdue(State::Accepted | State::Handshaking) => f.write_str("no TLS handshake within handshake_timeout"),
            Why::Overdue(State::Open) => f.write_str("idle for idle_timeout"),
            Why::Overdue(State::Draining) => f.write_str("the peer does not read what it is sent"),
            Why::Truncated => f.write_str("ended in the middle of a message"),
            Why::Unfinished | Why::Overdue(State::Receiving) => f.write_str("a message was not complete within message_timeout"),
            Why::Banned => f.write_str("its source is banned ([limits] ban)"),
            Why::Displaced => f.write_str("its peer sends no more, and another connection needs the place"),
            Why::Yields(held) => write!(
                f,
                "all places for connections are taken, and its source holds {held} of them ([connections] max; [limits] trusted_sources \
                 exempts a network)"
            ),
            Why::Stalled(most) => {
                write!(f, "its TLS handshake has stalled and others wait: the limit is {most} at a time ([connections] handshakes)")
            }
            Why::Blank(most) => {
                write!(f, "more than {most} bytes of keep-alives and blank lines in a minute ([connections] keep_alive_bytes)")
            }
            Why::Crowded(most) => write!(
                f,
                "incomplete messages hold more than {most} bytes on this core, and the one on this connection is among the oldest \
                 ([connections] unfinished_bytes)"
            ),
        }
    }
}

/// What happens to a connection.
#[derive(Debug)]
pub enum Event {
    /// The peer has accepted it. `by_tls`: a handshake comes next.
    Connected { by_tls: bool },
    /// Its turn to shake hands has come.
    Turn,
    /// The handshake is done.
    Established,
    /// It was read. `is_inside`: a message or a TLS record has begun and is not whole; `is_news`: something has become whole, or has begun;
    /// `is_old`: the connection has stood in its list for long enough to be given a new place in it.
    Read { is_inside: bool, is_news: bool, is_old: bool },
    /// The peer sends no more. `is_inside`: a message has begun and will not become whole.
    End { is_inside: bool },
    /// Nothing more is to be read from it, for this reason.
    Unheard(Why),
    /// All that was to leave has left. `is_even`: no answer is owed to the peer; `is_released`: the one call that it served is over.
    Silent { is_even: bool, is_released: bool },
    /// The time of its state is up. `is_excused`: somebody has good reason to let the other wait.
    Overdue { is_excused: bool },
    /// It cannot go on, or may not.
    Abort(Why),
}

/// What is to be done when a step is taken. A connection whose state changes stands at the young end of the list of its new state.
#[derive(Debug)]
pub enum Action {
    Nothing,
    /// It goes to the young end of its list.
    Renew,
    /// What waits is written at the end of the turn.
    Write,
    /// The rules are notified that nothing more comes by it; what is owed and what waits is still written.
    Drain(Why),
    /// It leaves the table.
    Close(Why),
}

/// What becomes of a connection in `state` if this happens to it, and what is to be done. An event that cannot happen in this
/// state is given back.
pub fn step(state: State, event: Event) -> Result<(State, Action), Event> {
    use Action::{Close, Drain, Nothing, Renew, Write};
    use State::{Accepted, Connecting, Draining, Handshaking, Open, Receiving};
    Ok(match (state, event) {
        // ---- before messages can go
        (Connecting, Event::Connected { by_tls: true }) => (Handshaking, Write),
        (Connecting, Event::Connected { by_tls: false }) => (Open, Write),
        (Accepted, Event::Turn) => (Handshaking, Nothing),
        // It waits for us, not we for it.
        (Accepted, Event::Overdue { is_excused: true }) => (Accepted, Renew),
        (Handshaking, Event::Established) => (Open, Write),
        (Connecting | Handshaking, Event::Read { .. }) => (state, Nothing),
        (Connecting | Accepted | Handshaking, Event::End { .. }) => (state, Close(Why::Early)),
        (Connecting | Accepted | Handshaking, Event::Unheard(why)) => (state, Close(why)),

        // ---- while they go
        (Open, Event::Read { is_inside, .. }) if is_inside => (Receiving, Renew),
        (Receiving, Event::Read { is_inside, .. }) if !is_inside => (Open, Renew),
        // A message that has begun has its own time, and so has the next one.
        (Receiving, Event::Read { is_news, .. }) if is_news => (Receiving, Renew),
        (Open, Event::Read { is_news, is_old, .. }) if is_news && is_old => (Open, Renew),
        (Open | Receiving, Event::Read { .. }) => (state, Nothing),
        (Open | Receiving, Event::End { is_inside: true }) => (Draining, Drain(Why::Truncated)),
        (Open | Receiving, Event::End { is_inside: false }) => (Draining, Drain(Why::Done)),
        (Open | Receiving | Draining, Event::Unheard(why)) => (Draining, Drain(why)),
        (Open | Receiving, Event::Silent { is_released, .. }) if is_released => (state, Close(Why::Done)),
        // Somebody's phone is ringing: quiet, but not idle.
        (Open, Event::Overdue { is_excused: true }) => (Open, Renew),
        (Receiving, Event::Overdue { .. }) => (state, Close(Why::Unfinished)),

        // ---- when no more is read
        (Draining, Event::Silent { is_even: true, .. }) => (state, Close(Why::Done)),

        // ---- always
        (_, Event::Silent { .. }) => (state, Nothing),
        (_, Event::Overdue { .. }) => (state, Close(Why::Overdue(state))),
        (_, Event::Abort(why)) => (state, Close(why)),

        // ---- never
        (_, event @ (Event::Connected { .. } | Event::Turn | Event::Established))
        | (Accepted | Draining, event @ Event::Read { .. })
        | (Draining, event @ Event::End { .. }) => return Err(event),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(is_inside: bool, is_news: bool, is_old: bool) -> Event {
        Event::Read { is_inside, is_news, is_old }
    }

    fn silent(is_even: bool, is_released: bool) -> Event {
        Event::Silent { is_even, is_released }
    }

    type Row = (fn() -> Event, [&'static str; 6]);

    /// What becomes of a connection in each state, in the order of [`State::ALL`]: its next state's first letter and what is done; "-": this
    /// cannot happen.
    fn expected() -> [Row; 21] {
        const CLOSED: [&str; 6] = ["C close", "A close", "H close", "O close", "R close", "D close"];
        let ended = ["C close", "A close", "H close", "D drain", "D drain", "-"];
        let unheard = ["C close", "A close", "H close", "D drain", "D drain", "D drain"];
        let still = ["C", "A", "H", "O", "R", "D"];
        [
            (|| Event::Connected { by_tls: true }, ["H write", "-", "-", "-", "-", "-"]),
            (|| Event::Connected { by_tls: false }, ["O write", "-", "-", "-", "-", "-"]),
            (|| Event::Turn, ["-", "H", "-", "-", "-", "-"]),
            (|| Event::Established, ["-", "-", "O write", "-", "-", "-"]),
            (|| read(false, false, false), ["C", "-", "H", "O", "O renew", "-"]),
            (|| read(false, false, true), ["C", "-", "H", "O", "O renew", "-"]),
            (|| read(false, true, false), ["C", "-", "H", "O", "O renew", "-"]),
            (|| read(false, true, true), ["C", "-", "H", "O renew", "O renew", "-"]),
            (|| read(true, false, false), ["C", "-", "H", "R renew", "R", "-"]),
            (|| read(true, false, true), ["C", "-", "H", "R renew", "R", "-"]),
            (|| read(true, true, false), ["C", "-", "H", "R renew", "R renew", "-"]),
            (|| read(true, true, true), ["C", "-", "H", "R renew", "R renew", "-"]),
            (|| Event::End { is_inside: true }, ended),
            (|| Event::End { is_inside: false }, ended),
            (|| Event::Unheard(Why::Banned), unheard),
            (|| silent(false, false), still),
            (|| silent(false, true), ["C", "A", "H", "O close", "R close", "D"]),
            (|| silent(true, false), ["C", "A", "H", "O", "R", "D close"]),
            (|| Event::Overdue { is_excused: false }, CLOSED),
            (|| Event::Overdue { is_excused: true }, ["C close", "A renew", "H close", "O renew", "R close", "D close"]),
            (|| Event::Abort(Why::Displaced), CLOSED),
        ]
    }

    #[test]
    fn every_state_and_every_event() {
        for (event, expected) in expected() {
            for (state, expected) in State::ALL.into_iter().zip(expected) {
                let got = match step(state, event()) {
                    Err(_) => "-".to_owned(),
                    Ok((next, action)) => {
                        let action = match action {
                            Action::Nothing => "",
                            Action::Renew => " renew",
                            Action::Write => " write",
                            Action::Drain(_) => " drain",
                            Action::Close(_) => " close",
                        };
                        format!("{}{action}", &format!("{next:?}")[..1])
                    }
                };
                assert_eq!(got, expected, "{state:?}, {:?}", event());
            }
        }
    }

    #[test]
    fn the_reason_is_the_one_that_is_logged() {
        let why = |state, event| match step(state, event) {
            Ok((_, Action::Close(why) | Action::Drain(why))) => why.to_string(),
            other => panic!("{other:?}"),
        };
        let overdue = || Event::Overdue { is_excused: false };
        let expected = [
            "no answer within connect_timeout",
            "no TLS handshake within handshake_timeout",
            "no TLS handshake within handshake_timeout",
            "idle for idle_timeout",
            "a message was not complete within message_timeout",
            "the peer does not read what it is sent",
        ];
        assert_eq!(State::ALL.map(|state| why(state, overdue())), expected);
        let end = |is_inside| why(State::Receiving, Event::End { is_inside });
        assert_eq!(end(true), "ended in the middle of a message");
        assert_eq!(end(false), "done");
    }

    #[test]
    fn what_is_shown() {
        for state in State::ALL {
            assert!(State::SHOWN.contains(&state.shown()));
            assert_eq!(state.label(), state.shown().label());
        }
    }
}
