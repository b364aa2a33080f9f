//! What the predecessor of a restart leaves to its successor: its sockets, and what its workers know.

use crate::base::pack::{Pack, Unpack};
use crate::base::{Flow, ProvedNames, Transport};
use crate::stack::counterpart::Bequest;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The sockets of one listener of the predecessor.
#[derive(Debug)]
pub struct Inherited {
    pub transport: Transport,
    /// The address that they are bound to, with the port that the kernel chose.
    pub address: SocketAddr,
    /// By core.
    pub sockets: Vec<OwnedFd>,
}

/// What the predecessor's workers leave to the successor's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// What its rules know.
    pub rules: Bequest,
    /// Its connections.
    pub connections: Vec<Flow>,
    /// What the peers of some have proved by certificate.
    pub proved: Vec<(Flow, ProvedNames)>,
}

impl Legacy {
    /// Appends it as bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let rules = &self.rules;
        out.put_u32(rules.run);
        out.put_u64(rules.sharing_run);
        out.put_u8(rules.has_forgotten.into());
        out.put_u32(rules.transactions.len() as u32);
        for (key, core) in &rules.transactions {
            out.put_u128(*key);
            out.put_u8(*core);
        }
        out.put_u32(rules.moved.len() as u32);
        rules.moved.iter().for_each(|fact| out.put_u64(*fact));
        out.put_u32(self.connections.len() as u32);
        self.connections.iter().for_each(|flow| flow.pack(out));
        out.put_u32(self.proved.len() as u32);
        for (flow, names) in &self.proved {
            flow.pack(out);
            out.put_names(names);
        }
    }

    /// Reads what [`Legacy::write`] wrote; `None` if it is anything else.
    pub fn read(bytes: &[u8]) -> Option<Legacy> {
        let mut from = Unpack::new(bytes);
        let mut legacy = Legacy::default();
        let rules = &mut legacy.rules;
        rules.run = from.u32()?;
        rules.sharing_run = from.u64()?;
        rules.has_forgotten = from.u8()? != 0;
        for _ in 0..from.u32()? {
            rules.transactions.push((from.u128()?, from.u8()?));
        }
        for _ in 0..from.u32()? {
            rules.moved.push(from.u64()?);
        }
        for _ in 0..from.u32()? {
            legacy.connections.push(Flow::unpack(&mut from)?);
        }
        for _ in 0..from.u32()? {
            let flow = Flow::unpack(&mut from)?;
            legacy.proved.push((flow, from.names()?));
        }
        from.is_empty().then_some(legacy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Channel;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_is() {
        let flow = |slot| Flow {
            transport: Transport::Tls,
            core: 1,
            channel: Channel::Connection { slot, generation: 9 },
            ..Flow::datagram(2, "[2001:db8::1]:5061".parse().unwrap())
        };
        let rules = Bequest {
            run: 0xdead_beef,
            sharing_run: u64::MAX,
            transactions: vec![(u128::MAX - 5, 0), (1 << 100, 3)],
            moved: vec![7, u64::MAX],
            has_forgotten: true,
        };
        let proved =
            vec![(flow(2), vec!["sip:alice@example.com".into(), "example.com".into()].into()), (flow(1), Vec::new().into())];
        let legacy = Legacy { rules, connections: vec![flow(1), flow(2)], proved };
        for legacy in [legacy, Legacy::default()] {
            let mut bytes = Vec::new();
            legacy.write(&mut bytes);
            assert_eq!(Legacy::read(&bytes), Some(legacy));
            for cut in 0..bytes.len() {
                assert_eq!(Legacy::read(&bytes[..cut]), None, "{cut}");
            }
            bytes.push(0);
            assert_eq!(Legacy::read(&bytes), None);
        }
    }
}
