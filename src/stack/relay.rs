//! Requests for phones that another server holds: a phone that came to a server by a connection, or from behind a NAT, is reached by
//! that server alone. Another that shares its location table ([`crate::stack::location`]) sends the request there, with a Route whose
//! user part is a token: the phone's flow, named by the server that has it. It is to that server what a flow token of RFC 5626 §5.3 is
//! to an edge proxy.
//!
//! The token's check covers the server's name and the flow, under a key of that server, which alone writes it and reads it. It shows that
//! whoever sends it has read it in the shared table: it is in no message but those between the two servers. It says nothing of the
//! caller, of the Request-URI, or of where it is sent from: that the sender is one of the servers is asked besides. The place of a
//! connection is masked by a number of the server's run, so that none is taken for one of an earlier run. Nothing is sent on by it but
//! over that very flow, so it makes no loop.

use crate::base::hash::{read_hex, write_hex_digits};
use crate::base::{Channel, Flow, Key};
use crate::stack::location::{Reached, Server};
use crate::stack::token::{self, Side};

/// The digits of the check.
const CHECK: usize = 16;

/// Writes and reads these tokens.
#[derive(Clone, Copy, Debug)]
pub struct RelayTokens(Key);

impl RelayTokens {
    pub fn new(secret: Key) -> RelayTokens {
        RelayTokens(secret.derive("relay token"))
    }

    /// Appends the token by which a server reaches a phone; nothing if any server reaches it at its contact.
    pub fn write(&self, server: &Server, reached: Reached, flow: &Flow, out: &mut Vec<u8>) {
        let is_connection = matches!(flow.channel, Channel::Connection { .. });
        if reached == Reached::ByContact && !is_connection {
            return;
        }
        let start = out.len();
        token::write(Side::Callee, flow, self.mask(server), out);
        if out.len() > start {
            let check = self.check(server, &out[start..]);
            write_hex_digits(check, CHECK, out);
        }
    }

    /// Returns whether a user part looks like a token, whoever has written it.
    pub fn is_like(text: &[u8]) -> bool {
        let digits = text.strip_prefix(&[Side::Callee as u8]).unwrap_or_default();
        digits.len() > CHECK && digits.iter().all(u8::is_ascii_hexdigit)
    }

    /// Returns the flow that a token names; `None` if it is not one that the server of this name has written. A connection that an
    /// earlier run has written is some other, which is not there.
    pub fn read(&self, server: &Server, text: &[u8]) -> Option<Flow> {
        let (named, check) = text.split_at_checked(text.len().checked_sub(CHECK)?)?;
        (read_hex(check)? == self.check(server, named)).then(|| token::read(Side::Callee, named, self.mask(server)))?
    }

    fn check(&self, server: &Server, named: &[u8]) -> u64 {
        self.0.hash(&[&server.name, b"\0", named])
    }

    fn mask(&self, server: &Server) -> u64 {
        self.0.hash_numbers(server.run, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;

    #[test]
    fn a_token_is_good_for_its_own_flow_and_server() {
        let tokens = RelayTokens::new(Key::new(1, 2));
        let datagram = Flow::datagram(1, "198.51.100.7:40123".parse().unwrap());
        let connection =
            Flow { transport: Transport::Tls, core: 3, channel: Channel::Connection { slot: 9, generation: 77 }, ..datagram };
        let server = |name: &str, run| Server { name: name.as_bytes().into(), run };
        let here = server("a", 7);
        for (reached, flow) in [(Reached::ByFlow, datagram), (Reached::ByFlowFirst, connection), (Reached::ByContact, connection)] {
            let mut token = Vec::new();
            tokens.write(&here, reached, &flow, &mut token);
            assert!(token.iter().all(u8::is_ascii_alphanumeric));
            assert_eq!(tokens.read(&here, &token), Some(flow));
            assert_eq!(tokens.read(&server("b", 7), &token), None);
            // What is left of a run that has ended: the way to a phone behind a NAT, and no connection.
            let later = tokens.read(&server("a", 8), &token);
            assert_eq!(later == Some(flow), matches!(flow.channel, Channel::Datagram { .. }), "{later:?}");
            assert_eq!(RelayTokens::new(Key::new(1, 3)).read(&here, &token), None);
            for at in 0..token.len() {
                let mut changed = token.clone();
                changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
                assert_eq!(tokens.read(&here, &changed), None);
                assert_eq!(tokens.read(&here, &token[..at]), None);
            }
        }
        let mut none = Vec::new();
        tokens.write(&here, Reached::ByContact, &datagram, &mut none);
        assert!(none.is_empty(), "any server reaches it");
    }
}
