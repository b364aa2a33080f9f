//! The INVITE client transaction (RFC 3261 §17.1.1, figure 5, as RFC 6026 §8.4 replaces it).

use super::timer::Timer::{A, B, C, D, M, Patience};
use super::{Action, Action::*, ClientEvent as Event, ClientEvent::*};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Calling,
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

use State::*;

/// Returns what happens in `state` on `event`. Pairs that are not in the figure change nothing.
pub fn step(state: State, event: Event) -> (State, &'static [Action]) {
    match (state, event) {
        // The request was sent; timers A, B and C run, and patience.
        (Calling, Fired(A)) => (Calling, &[Resend, Start(A)]),
        (Calling, Fired(B)) => (Terminated, &[ReportTimeout]),
        (Calling, Fired(C)) => (Terminated, &[ReportTimeout]),
        (Calling, TransportError) => (Terminated, &[ReportFailure]),
        (Calling, Provisional) => (Proceeding, &[Stop(A), Stop(B), Stop(Patience), Start(C), Deliver]),
        (Calling, Success) => (Accepted, &[Stop(A), Stop(B), Stop(Patience), Forget, Start(M), Deliver]),
        (Calling, Failure) => (Completed, &[Stop(A), Stop(B), Stop(Patience), SendAck, Start(D), Deliver]),
        // Another next hop may be tried, but this one is not given up by the transaction.
        (Calling, Fired(Patience)) => (Calling, &[ReportSilence]),

        // Timer C belongs to the proxy (§16.6 step 11); it is kept here because it replaces timer B.
        (Proceeding, Fired(C)) => (Proceeding, &[ReportTimerC]),
        (Proceeding, Provisional) => (Proceeding, &[Deliver]),
        (Proceeding, Success) => (Accepted, &[Stop(C), Forget, Start(M), Deliver]),
        (Proceeding, Failure) => (Completed, &[Stop(C), SendAck, Start(D), Deliver]),

        // A non-2xx has come: every retransmission of it is acknowledged again, here and not further up.
        (Completed, Failure) => (Completed, &[ResendAck]),
        (Completed, TransportError) => (Completed, &[ReportFailure]),
        (Completed, Fired(D)) => (Terminated, &[]),

        // A 2xx has come: every further one is passed to the caller.
        (Accepted, Success) => (Accepted, &[Deliver]),
        (Accepted, Fired(M)) => (Terminated, &[]),

        // The proxy gave the branch up (§9.1: no final response in 64·T1 after the CANCEL).
        (Calling | Proceeding, Abandon) => (Terminated, &[]),
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
            &[Calling, Proceeding, Completed, Accepted, Terminated],
            Event::all(),
            step,
            "
            Calling    Provisional    -> Proceeding Stop(A) Stop(B) Stop(Patience) Start(C) Deliver
            Calling    Success        -> Accepted Stop(A) Stop(B) Stop(Patience) Forget Start(M) Deliver
            Calling    Failure        -> Completed Stop(A) Stop(B) Stop(Patience) SendAck Start(D) Deliver
            Calling    Fired(Patience) -> Calling ReportSilence
            Calling    Fired(A)       -> Calling Resend Start(A)
            Calling    Fired(B)       -> Terminated ReportTimeout
            Calling    Fired(C)       -> Terminated ReportTimeout
            Calling    TransportError -> Terminated ReportFailure
            Calling    Abandon        -> Terminated
            Proceeding Provisional    -> Proceeding Deliver
            Proceeding Success        -> Accepted Stop(C) Forget Start(M) Deliver
            Proceeding Failure        -> Completed Stop(C) SendAck Start(D) Deliver
            Proceeding Fired(C)       -> Proceeding ReportTimerC
            Proceeding Abandon        -> Terminated
            Completed  Failure        -> Completed ResendAck
            Completed  Fired(D)       -> Terminated
            Completed  TransportError -> Completed ReportFailure
            Accepted   Success        -> Accepted Deliver
            Accepted   Fired(M)       -> Terminated
            ",
        );
    }
}
