//! The transaction layer (RFC 3261 §17): four state machines in four files, and the table that runs them.
//!
//! A machine is a pure function from state and event to the next state and a list of actions; [`Transactions`] holds the records,
//! carries out the actions and matches messages to the records. What concerns the transaction user is returned as a [`Notice`] or
//! as a `bool` ("deliver").

pub mod ack;
mod clock;
pub mod directory;
pub mod invite_client;
pub mod invite_server;
pub mod non_invite_client;
pub mod non_invite_server;
mod refused;
pub mod table;
pub mod timer;

pub use table::{Client, ClientKind, Ends, Holders, Hope, Notice, Server, Transactions};
pub use timer::Timer;

/// What can happen to a client transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    Provisional,
    Success,
    /// 300 to 699.
    Failure,
    Fired(Timer),
    TransportError,
    /// The transaction user gives it up.
    Abandon,
}

/// What can happen to a server transaction. The responses come from the transaction user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// The request came again.
    Request,
    Ack,
    Provisional,
    Success,
    /// 300 to 699.
    Failure,
    Fired(Timer),
    TransportError,
}

/// What a step requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Hand the message to the transaction user.
    Deliver,
    /// Send the response that the transaction user gave.
    Transmit,
    /// Keep that response for retransmissions.
    Remember,
    /// Release the bytes kept for retransmissions.
    Forget,
    /// Send the kept message once more.
    Resend,
    /// Make the ACK to a non-2xx (§17.1.1.3), send it, and keep it in place of the request.
    SendAck,
    /// Send the kept ACK once more.
    ResendAck,
    Start(Timer),
    /// Start a repeating timer at T2 whatever its interval was.
    StartAtT2(Timer),
    Stop(Timer),
    ReportTimeout,
    ReportSilence,
    ReportTimerC,
    ReportFailure,
    ReportLate,
}

/// Walks every pair of state and event and compares with a table of `State Event -> State Action…` lines; a pair without a line
/// must change nothing.
#[cfg(test)]
fn walk<S, E>(states: &[S], events: Vec<E>, step: impl Fn(S, E) -> (S, &'static [Action]), table: &str)
where
    S: Copy + PartialEq + std::fmt::Debug,
    E: Copy + std::fmt::Debug,
{
    let mut lines: std::collections::BTreeMap<String, String> = table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (pair, outcome) = line.split_once("->").expect("a line of the table");
            let pair: Vec<_> = pair.split_whitespace().collect();
            (pair.join(" "), outcome.trim().to_string())
        })
        .collect();
    for state in states {
        for event in &events {
            let (next, actions) = step(*state, *event);
            let mut seen = format!("{next:?}");
            for action in actions {
                seen.push_str(&format!(" {action:?}"));
            }
            let pair = format!("{state:?} {event:?}");
            let expected = lines.remove(&pair).unwrap_or_else(|| format!("{state:?}"));
            assert_eq!(seen, expected, "{pair}");
        }
    }
    assert!(lines.is_empty(), "pairs that do not exist: {lines:?}");
}

#[cfg(test)]
impl ClientEvent {
    fn all() -> Vec<ClientEvent> {
        use ClientEvent::*;
        let fired = Timer::ALL.iter().map(|timer| Fired(*timer));
        [Provisional, Success, Failure, TransportError, Abandon].into_iter().chain(fired).collect()
    }
}

#[cfg(test)]
impl ServerEvent {
    fn all() -> Vec<ServerEvent> {
        use ServerEvent::*;
        let fired = Timer::ALL.iter().map(|timer| Fired(*timer));
        [Request, Ack, Provisional, Success, Failure, TransportError].into_iter().chain(fired).collect()
    }
}
