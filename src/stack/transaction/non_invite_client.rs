//! The non-INVITE client transaction (RFC 3261 §17.1.2, figure 6).

use super::timer::Timer::{E, F, K, Patience};
use super::{Action, Action::*, ClientEvent as Event, ClientEvent::*};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

use State::*;

/// Returns what happens in `state` on `event`. Pairs that are not in the figure change nothing.
pub fn step(state: State, event: Event) -> (State, &'static [Action]) {
    match (state, event) {
        (Trying, Fired(E)) => (Trying, &[Resend, Start(E)]),
        (Trying, Fired(F)) => (Terminated, &[ReportTimeout]),
        (Trying, TransportError) => (Terminated, &[ReportFailure]),
        (Trying, Provisional) => (Proceeding, &[Stop(Patience), Deliver]),
        (Trying, Success | Failure) => (Completed, &[Stop(E), Stop(F), Stop(Patience), Forget, Start(K), Deliver]),
        // Another next hop may be tried, but this one is not given up by the transaction.
        (Trying, Fired(Patience)) => (Trying, &[ReportSilence]),

        // Timer E goes on, at T2 (§17.1.2.2).
        (Proceeding, Fired(E)) => (Proceeding, &[Resend, StartAtT2(E)]),
        (Proceeding, Fired(F)) => (Terminated, &[ReportTimeout]),
        (Proceeding, TransportError) => (Terminated, &[ReportFailure]),
        (Proceeding, Provisional) => (Proceeding, &[Deliver]),
        (Proceeding, Success | Failure) => (Completed, &[Stop(E), Stop(F), Forget, Start(K), Deliver]),

        // Retransmissions of the response are absorbed.
        (Completed, Fired(K)) => (Terminated, &[]),

        (Trying | Proceeding, Abandon) => (Terminated, &[]),
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
            &[Trying, Proceeding, Completed, Terminated],
            Event::all(),
            step,
            "
            Trying     Provisional    -> Proceeding Stop(Patience) Deliver
            Trying     Success        -> Completed Stop(E) Stop(F) Stop(Patience) Forget Start(K) Deliver
            Trying     Failure        -> Completed Stop(E) Stop(F) Stop(Patience) Forget Start(K) Deliver
            Trying     Fired(Patience) -> Trying ReportSilence
            Trying     Fired(E)       -> Trying Resend Start(E)
            Trying     Fired(F)       -> Terminated ReportTimeout
            Trying     TransportError -> Terminated ReportFailure
            Trying     Abandon        -> Terminated
            Proceeding Provisional    -> Proceeding Deliver
            Proceeding Success        -> Completed Stop(E) Stop(F) Forget Start(K) Deliver
            Proceeding Failure        -> Completed Stop(E) Stop(F) Forget Start(K) Deliver
            Proceeding Fired(E)       -> Proceeding Resend StartAtT2(E)
            Proceeding Fired(F)       -> Terminated ReportTimeout
            Proceeding TransportError -> Terminated ReportFailure
            Proceeding Abandon        -> Terminated
            Completed  Fired(K)       -> Terminated
            ",
        );
    }
}
