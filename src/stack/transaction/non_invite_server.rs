//! The non-INVITE server transaction (RFC 3261 §17.2.2, figure 8, with RFC 4320 §4.1: 100 only if it is late).

use super::timer::Timer::{F, J, Late};
use super::{Action, Action::*, ServerEvent as Event, ServerEvent::*};

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
        // Nothing was answered: a retransmitted request is absorbed. When the client's timer E has reached T2, a 100 is due.
        (Trying, Fired(Late)) => (Trying, &[ReportLate]),
        (Trying, Provisional) => (Proceeding, &[Stop(Late), Transmit, Remember]),
        (Trying, Success | Failure) => (Completed, &[Stop(Late), Transmit, Remember, Start(J)]),

        (Proceeding, Request) => (Proceeding, &[Resend]),
        (Proceeding, Provisional) => (Proceeding, &[Transmit, Remember]),
        (Proceeding, Success | Failure) => (Completed, &[Transmit, Remember, Start(J)]),
        (Proceeding, TransportError) => (Proceeding, &[ReportFailure]),

        (Completed, Request) => (Completed, &[Resend]),
        (Completed, Fired(J)) => (Terminated, &[]),
        (Completed, TransportError) => (Completed, &[ReportFailure]),

        // RFC 4320 §4.2: the client's timer F has fired, so it is too late for any answer. Until then retransmissions are absorbed.
        (Trying | Proceeding, Fired(F)) => (Terminated, &[]),
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
            Trying     Provisional    -> Proceeding Stop(Late) Transmit Remember
            Trying     Success        -> Completed Stop(Late) Transmit Remember Start(J)
            Trying     Failure        -> Completed Stop(Late) Transmit Remember Start(J)
            Trying     Fired(Late)    -> Trying ReportLate
            Trying     Fired(F)       -> Terminated
            Proceeding Request        -> Proceeding Resend
            Proceeding Provisional    -> Proceeding Transmit Remember
            Proceeding Success        -> Completed Transmit Remember Start(J)
            Proceeding Failure        -> Completed Transmit Remember Start(J)
            Proceeding TransportError -> Proceeding ReportFailure
            Proceeding Fired(F)       -> Terminated
            Completed  Request        -> Completed Resend
            Completed  Fired(J)       -> Terminated
            Completed  TransportError -> Completed ReportFailure
            ",
        );
    }
}
