//! The states of a connection, and the single transition function: what happens to a connection, and what has to be done about it.
//! Pure.

use super::proxy_header::HeaderFault;
use super::tls::Failure;
use crate::sip::Fault;
use std::io;

/// The state of a connection. Each state has its own deadline; closed connections are not in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Waits for the peer to accept.
    Connecting,
    /// Opened by a load balancer. The PROXY header, which says whose connection it is, is not complete.
    ProxyHeader,
    /// Opened by a peer for TLS. Its handshake has not begun: nothing has arrived yet, or it is not its turn.
    Accepted,
    /// Waits for the peer's part of the TLS handshake.
    Handshaking,
    /// Carries messages, and none has begun. Its deadline is the idle timeout.
    Open,
    /// As [`State::Open`], but a message or a TLS record has begun and is incomplete. Until it is complete, nothing extends the
    /// deadline.
    Receiving,
    /// Nothing more is read from it; it closes as soon as everything owed and queued has been sent.
    Draining,
}

impl State {
    pub const ALL: [State; 7] = [
        State::Connecting,
        State::ProxyHeader,
        State::Accepted,
        State::Handshaking,
        State::Open,
        State::Receiving,
        State::Draining,
    ];

    /// The states shown to operators, who need not know whether a message has begun.
    pub const SHOWN: [State; 6] =
        [State::Connecting, State::ProxyHeader, State::Accepted, State::Handshaking, State::Open, State::Draining];

    /// Returns the state of [`State::SHOWN`] under which this one is counted.
    pub const fn shown(self) -> State {
        match self {
            State::Receiving => State::Open,
            state => state,
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::ProxyHeader => "proxy_header",
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

    /// True if messages of the rules may be sent.
    pub const fn may_speak(self) -> bool {
        matches!(self, State::Open | State::Receiving | State::Draining)
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub enum Why {
    /// Neither side had anything more to send.
    Done,
    Error(io::Error),
    Tls(Failure),
    /// The peer closed it before the TLS handshake was done.
    Early,
    /// A load balancer's connection without a PROXY header that could be used.
    ProxyHeader(HeaderFault),
    /// Its PROXY header said whose it is, and that source is refused more connections, which was logged.
    Refused,
    /// The stream could not be framed.
    Garbage(Fault),
    /// The deadline of this state has passed.
    Overdue(State),
    /// The peer ended the stream inside a message.
    Truncated,
    /// A message has begun, but was not completed in time.
    Unfinished,
    /// It only waited for what was owed to it, and another connection needs its slot.
    Displaced,
    /// Another connection needs its slot; its source holds this many connections.
    Yields(usize),
    /// Its TLS handshake has stalled while others wait; this many may be in progress.
    Stalled(usize),
    /// In an overload others went first, for as long as a handshake may take.
    Late,
    /// More than this many bytes arrived between messages.
    Blank(usize),
    /// Incomplete messages hold more than this many bytes.
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
            Why::ProxyHeader(fault) => write!(f, "no PROXY header: {fault} ([[listen]] proxy_protocol)"),
            Why::Refused => f.write_str("refused when its PROXY header said whose it is"),
            Why::Garbage(fault) => write!(f, "not SIP: {}", fault.reason()),
            Why::Overdue(State::Connecting) => f.write_str("no answer within connect_timeout"),
            Why::Overdue(State::ProxyHeader) => f.write_str("no PROXY header within handshake_timeout ([[listen]] proxy_protocol)"),
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
            Why::Late => {
                f.write_str("its turn has not come within handshake_timeout: too many others want one ([limits] overload)")
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
    /// Its PROXY header is complete. `by_tls`: a handshake comes next.
    Introduced { by_tls: bool },
    /// Its turn to begin the handshake has come.
    Turn,
    /// The handshake is done.
    Established,
    /// It was read. `is_inside`: a message or a TLS record has begun and is incomplete; `is_news`: something has begun or become
    /// complete; `is_old`: the connection has been in its list for long enough to be moved to the young end.
    Read { is_inside: bool, is_news: bool, is_old: bool },
    /// The peer sends no more. `is_inside`: a message or a PROXY header has begun and will never be complete.
    End { is_inside: bool },
    /// Nothing more is to be read from it, for this reason.
    Unheard(Why),
    /// Everything queued has been sent. `is_even`: no answer is owed to the peer; `is_released`: the only call that it served is
    /// over.
    Silent { is_even: bool, is_released: bool },
    /// The deadline of its state has passed. `is_excused`: one side has good reason to keep the other waiting.
    Overdue { is_excused: bool },
    /// It cannot or must not go on.
    Abort(Why),
}

/// What a step requires. A connection whose state changes goes to the young end of the list of its new state.
#[derive(Debug)]
pub enum Action {
    Nothing,
    /// Move it to the young end of its list.
    Renew,
    /// Write what waits at the end of the turn.
    Write,
    /// Notify the rules that nothing more arrives on it; what is owed and queued is still written.
    Drain(Why),
    /// Remove it from the table.
    Close(Why),
}

/// Returns the next state of a connection in `state` after this event, and what is to be done. An event that cannot happen in this
/// state is returned as the error.
pub fn step(state: State, event: Event) -> Result<(State, Action), Event> {
    use Action::{Close, Drain, Nothing, Renew, Write};
    use State::{Accepted, Connecting, Draining, Handshaking, Open, ProxyHeader, Receiving};
    Ok(match (state, event) {
        // ---- before messages can go
        (Connecting, Event::Connected { by_tls: true }) => (Handshaking, Write),
        (Connecting, Event::Connected { by_tls: false }) => (Open, Write),
        (ProxyHeader, Event::Introduced { by_tls: true }) => (Accepted, Nothing),
        (ProxyHeader, Event::Introduced { by_tls: false }) => (Open, Nothing),
        (ProxyHeader, Event::End { is_inside: true }) => (ProxyHeader, Close(Why::ProxyHeader(HeaderFault::Truncated))),
        // A load balancer that only looks whether the port is open.
        (ProxyHeader, Event::End { is_inside: false }) => (ProxyHeader, Close(Why::Done)),
        (Accepted, Event::Turn) => (Handshaking, Nothing),
        // It waits for us, not we for it.
        (Accepted, Event::Overdue { is_excused: true }) => (Accepted, Renew),
        (Handshaking, Event::Established) => (Open, Write),
        (Connecting | Handshaking, Event::Read { .. }) => (state, Nothing),
        (Connecting | Accepted | Handshaking, Event::End { .. }) => (state, Close(Why::Early)),
        (Connecting | ProxyHeader | Accepted | Handshaking, Event::Unheard(why)) => (state, Close(why)),

        // ---- while they go
        (Open, Event::Read { is_inside, .. }) if is_inside => (Receiving, Renew),
        (Receiving, Event::Read { is_inside, .. }) if !is_inside => (Open, Renew),
        // A message that has begun has its own deadline, and so has the next one.
        (Receiving, Event::Read { is_news, .. }) if is_news => (Receiving, Renew),
        (Open, Event::Read { is_news, is_old, .. }) if is_news && is_old => (Open, Renew),
        (Open | Receiving, Event::Read { .. }) => (state, Nothing),
        (Open | Receiving, Event::End { is_inside: true }) => (Draining, Drain(Why::Truncated)),
        (Open | Receiving, Event::End { is_inside: false }) => (Draining, Drain(Why::Done)),
        (Open | Receiving | Draining, Event::Unheard(why)) => (Draining, Drain(why)),
        (Open | Receiving, Event::Silent { is_released, .. }) if is_released => (state, Close(Why::Done)),
        // A phone is ringing: quiet, but not idle.
        (Open, Event::Overdue { is_excused: true }) => (Open, Renew),
        (Receiving, Event::Overdue { .. }) => (state, Close(Why::Unfinished)),

        // ---- when no more is read
        (Draining, Event::Silent { is_even: true, .. }) => (state, Close(Why::Done)),

        // ---- always
        (_, Event::Silent { .. }) => (state, Nothing),
        (_, Event::Overdue { .. }) => (state, Close(Why::Overdue(state))),
        (_, Event::Abort(why)) => (state, Close(why)),

        // ---- never
        (_, event @ (Event::Connected { .. } | Event::Introduced { .. } | Event::Turn | Event::Established))
        | (ProxyHeader | Accepted | Draining, event @ Event::Read { .. })
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

    type Row = (fn() -> Event, [&'static str; 7]);

    /// The result of an event in each state, in the order of [`State::ALL`]: the first letter of the next state and the action;
    /// "-": it cannot happen.
    fn expected() -> [Row; 23] {
        const CLOSED: [&str; 7] = ["C close", "P close", "A close", "H close", "O close", "R close", "D close"];
        let ended = ["C close", "P close", "A close", "H close", "D drain", "D drain", "-"];
        let unheard = ["C close", "P close", "A close", "H close", "D drain", "D drain", "D drain"];
        let still = ["C", "P", "A", "H", "O", "R", "D"];
        [
            (|| Event::Connected { by_tls: true }, ["H write", "-", "-", "-", "-", "-", "-"]),
            (|| Event::Connected { by_tls: false }, ["O write", "-", "-", "-", "-", "-", "-"]),
            (|| Event::Introduced { by_tls: true }, ["-", "A", "-", "-", "-", "-", "-"]),
            (|| Event::Introduced { by_tls: false }, ["-", "O", "-", "-", "-", "-", "-"]),
            (|| Event::Turn, ["-", "-", "H", "-", "-", "-", "-"]),
            (|| Event::Established, ["-", "-", "-", "O write", "-", "-", "-"]),
            (|| read(false, false, false), ["C", "-", "-", "H", "O", "O renew", "-"]),
            (|| read(false, false, true), ["C", "-", "-", "H", "O", "O renew", "-"]),
            (|| read(false, true, false), ["C", "-", "-", "H", "O", "O renew", "-"]),
            (|| read(false, true, true), ["C", "-", "-", "H", "O renew", "O renew", "-"]),
            (|| read(true, false, false), ["C", "-", "-", "H", "R renew", "R", "-"]),
            (|| read(true, false, true), ["C", "-", "-", "H", "R renew", "R", "-"]),
            (|| read(true, true, false), ["C", "-", "-", "H", "R renew", "R renew", "-"]),
            (|| read(true, true, true), ["C", "-", "-", "H", "R renew", "R renew", "-"]),
            (|| Event::End { is_inside: true }, ended),
            (|| Event::End { is_inside: false }, ended),
            (|| Event::Unheard(Why::Banned), unheard),
            (|| silent(false, false), still),
            (|| silent(false, true), ["C", "P", "A", "H", "O close", "R close", "D"]),
            (|| silent(true, false), ["C", "P", "A", "H", "O", "R", "D close"]),
            (|| Event::Overdue { is_excused: false }, CLOSED),
            (|| Event::Overdue { is_excused: true }, ["C close", "P close", "A renew", "H close", "O renew", "R close", "D close"]),
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
            "no PROXY header within handshake_timeout ([[listen]] proxy_protocol)",
            "no TLS handshake within handshake_timeout",
            "no TLS handshake within handshake_timeout",
            "idle for idle_timeout",
            "a message was not complete within message_timeout",
            "the peer does not read what it is sent",
        ];
        assert_eq!(State::ALL.map(|state| why(state, overdue())), expected);
        for (state, inside) in [
            (State::Receiving, "ended in the middle of a message"),
            (State::ProxyHeader, "no PROXY header: the connection ended within it ([[listen]] proxy_protocol)"),
        ] {
            assert_eq!(why(state, Event::End { is_inside: true }), inside);
            assert_eq!(why(state, Event::End { is_inside: false }), "done");
        }
    }

    #[test]
    fn what_is_shown() {
        for state in State::ALL {
            assert!(State::SHOWN.contains(&state.shown()));
            assert_eq!(state.label(), state.shown().label());
        }
    }
}
