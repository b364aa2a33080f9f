//! The timers of RFC 3261 §17 (table 4), L and M of RFC 6026, C of §16.6, the 100 of RFC 4320, and one of our own, patience.

use crate::base::Transport;
use crate::settings::Timers;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// INVITE request retransmission, UDP only.
    A,
    /// INVITE transaction timeout.
    B,
    /// Proxy INVITE transaction timeout.
    C,
    /// Wait for response retransmissions, INVITE client.
    D,
    /// Non-INVITE request retransmission, UDP only.
    E,
    /// Non-INVITE transaction timeout; on the server side the time after which an answer is of no use (RFC 4320 §4.2).
    F,
    /// INVITE response retransmission, UDP only.
    G,
    /// Wait for the ACK.
    H,
    /// Wait for ACK retransmissions.
    I,
    /// Wait for non-INVITE request retransmissions.
    J,
    /// Wait for response retransmissions, non-INVITE client.
    K,
    /// Wait for INVITE retransmissions after a 2xx.
    L,
    /// Wait for further 2xx.
    M,
    /// RFC 4320 §4.1: when the client's timer E reaches T2.
    Late,
    /// How long a next hop may be silent before another one is tried. Each branch has its own.
    Patience,
}

impl Timer {
    pub const ALL: &'static [Timer] = &[
        Timer::A,
        Timer::B,
        Timer::C,
        Timer::D,
        Timer::E,
        Timer::F,
        Timer::G,
        Timer::H,
        Timer::I,
        Timer::J,
        Timer::K,
        Timer::L,
        Timer::M,
        Timer::Late,
        Timer::Patience,
    ];

    /// True for the timers that repeat a message (or a duty) while another timer limits the total.
    pub const fn repeats(self) -> bool {
        matches!(self, Timer::A | Timer::E | Timer::G | Timer::Late)
    }

    /// Milliseconds until it fires; `None` if the transport makes it unnecessary.
    pub fn duration_ms(self, timers: &Timers, transport: Transport) -> Option<u64> {
        let reliable = transport.is_reliable();
        match self {
            Timer::A | Timer::E | Timer::G => (!reliable).then_some(timers.t1),
            Timer::B | Timer::F | Timer::H => Some(64 * timers.t1),
            Timer::C => Some(timers.c),
            Timer::D | Timer::J => Some(if reliable { 0 } else { timers.linger }),
            Timer::I | Timer::K => Some(if reliable { 0 } else { timers.t4.min(timers.linger) }),
            // L and M do not depend on the transport (RFC 6026 §8.7).
            Timer::L | Timer::M => Some(timers.linger),
            Timer::Late => Some(late_ms(timers)),
            Timer::Patience => None,
        }
    }
}

/// When timer E, doubling from T1, is first reset to T2: 3.5 s by default.
fn late_ms(timers: &Timers) -> u64 {
    let (mut interval, mut elapsed) = (timers.t1.max(1), 0);
    while interval < timers.t2 {
        elapsed += interval;
        interval *= 2;
    }
    elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_4() {
        let t = Timers::default();
        let udp = |timer: Timer| timer.duration_ms(&t, Transport::Udp);
        let tcp = |timer: Timer| timer.duration_ms(&t, Transport::Tcp);
        assert_eq!((udp(Timer::A), tcp(Timer::A)), (Some(500), None));
        assert_eq!((udp(Timer::B), tcp(Timer::B)), (Some(32_000), Some(32_000)));
        assert_eq!(udp(Timer::C), Some(180_000));
        assert_eq!((udp(Timer::D), tcp(Timer::D)), (Some(32_000), Some(0)));
        assert_eq!((udp(Timer::E), tcp(Timer::E)), (Some(500), None));
        assert_eq!(udp(Timer::F), Some(32_000));
        assert_eq!((udp(Timer::G), tcp(Timer::G)), (Some(500), None));
        assert_eq!(udp(Timer::H), Some(32_000));
        assert_eq!((udp(Timer::I), tcp(Timer::I)), (Some(5000), Some(0)));
        assert_eq!((udp(Timer::J), tcp(Timer::J)), (Some(32_000), Some(0)));
        assert_eq!((udp(Timer::K), tcp(Timer::K)), (Some(5000), Some(0)));
        assert_eq!((udp(Timer::L), tcp(Timer::M)), (Some(32_000), Some(32_000)));
        assert_eq!(udp(Timer::Late), Some(3500));
    }
}
