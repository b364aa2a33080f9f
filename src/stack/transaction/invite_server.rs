//! The INVITE server transaction (RFC 3261 §17.2.1, figure 7, as RFC 6026 §8.5 replaces it).

use super::timer::Timer::{G, H, I, L};
use super::{Action, Action::*, ServerEvent as Event, ServerEvent::*};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

use State::*;

/// Returns what happens in `state` on `event`. Pairs that are not in the figure change nothing.
pub fn step(state: State, event: Event) -> (State, &'static [Action]) {
    match (state, event) {
        (Proceeding, Request) => (Proceeding, &[Resend]),
        (Proceeding, Provisional) => (Proceeding, &[Transmit, Remember]),
        (Proceeding, Success) => (Accepted, &[Forget, Transmit, Start(L)]),
        (Proceeding, Failure) => (Completed, &[Transmit, Remember, Start(G), Start(H)]),
        (Proceeding, TransportError) => (Proceeding, &[ReportFailure]),

        // A non-2xx is retransmitted until its ACK comes.
        (Completed, Request) => (Completed, &[Resend]),
        (Completed, Fired(G)) => (Completed, &[Resend, Start(G)]),
        (Completed, Ack) => (Confirmed, &[Stop(G), Stop(H), Forget, Start(I)]),
        (Completed, Fired(H)) => (Terminated, &[ReportTimeout]),
        (Completed, TransportError) => (Completed, &[ReportFailure]),

        // Retransmitted ACKs are absorbed.
        (Confirmed, Fired(I)) => (Terminated, &[]),

        // Retransmitted INVITEs are absorbed; further 2xx pass; an ACK to a 2xx is the proxy's to forward.
        (Accepted, Success) => (Accepted, &[Transmit]),
        (Accepted, Ack) => (Accepted, &[Deliver]),
        (Accepted, Fired(L)) => (Terminated, &[]),
        (Accepted, TransportError) => (Accepted, &[ReportFailure]),

        (state, _) => (state, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk;
    use super::*;

    /// Checks every pair of state and event against the figure, written out a second time.
    #[test]
    fn every_pair() {
        walk(
            &[Proceeding, Completed, Confirmed, Accepted, Terminated],
            Event::all(),
            step,
            "
            Proceeding Request        -> Proceeding Resend
            Proceeding Provisional    -> Proceeding Transmit Remember
            Proceeding Success        -> Accepted Forget Transmit Start(L)
            Proceeding Failure        -> Completed Transmit Remember Start(G) Start(H)
            Proceeding TransportError -> Proceeding ReportFailure
            Completed  Request        -> Completed Resend
            Completed  Ack            -> Confirmed Stop(G) Stop(H) Forget Start(I)
            Completed  Fired(G)       -> Completed Resend Start(G)
            Completed  Fired(H)       -> Terminated ReportTimeout
            Completed  TransportError -> Completed ReportFailure
            Confirmed  Fired(I)       -> Terminated
            Accepted   Success        -> Accepted Transmit
            Accepted   Ack            -> Accepted Deliver
            Accepted   Fired(L)       -> Terminated
            Accepted   TransportError -> Accepted ReportFailure
            ",
        );
    }
}
