//! What must hold of the table between two calls. Compiled with debug assertions only.

use super::unanswered::NONE;
use super::{Client, Server, Transactions};
use crate::base::Id;

impl Transactions {
    /// Each record has its timer, and is found by its key; those that wait on a connection are in that connection's list, and no
    /// others are.
    pub fn check(&self) {
        self.servers.check();
        self.clients.check();
        self.wheel.check();
        self.pool.check();
        assert_eq!(self.wheel.added(), self.servers.len() + self.clients.len(), "timers and transactions");
        for (id, server) in self.servers.iter() {
            assert_eq!(self.find_server(server.key.0), Some(id), "server transaction {id:?}");
        }
        let mut listed = 0;
        for (id, client) in self.clients.iter().filter(|(_, client)| client.listed) {
            listed += 1;
            let is_reliable = client.flow.transport.is_reliable();
            assert!(is_reliable, "client transaction {id:?} is listed");
        }
        let mut in_lists = 0;
        for (key, first) in &self.unanswered {
            let (mut before, mut slot) = (NONE, *first);
            while slot != NONE {
                let (id, client) = self.clients.tenant(slot).expect("a list leads to a record");
                assert_eq!(self.peer_flows.key(&client.flow), Some(*key), "client transaction {id:?}");
                assert!(client.listed, "client transaction {id:?} is not listed");
                assert_eq!(client.before, before, "before client transaction {id:?}");
                (before, slot, in_lists) = (slot, client.after, in_lists + 1);
                assert!(in_lists <= listed, "a list of those that wait has no end");
            }
        }
        assert_eq!(listed, in_lists, "client transactions that wait on connections");
    }

    /// Server transactions with their names.
    pub fn servers(&self) -> impl Iterator<Item = (Id, &Server)> {
        self.servers.iter()
    }

    pub fn clients(&self) -> impl Iterator<Item = (Id, &Client)> {
        self.clients.iter()
    }

    /// Blocks of the pool that the records hold.
    pub fn blobs(&self) -> usize {
        let servers = self.servers.iter().map(|(_, server)| &server.response);
        let clients = self.clients.iter().map(|(_, client)| &client.sent);
        servers.chain(clients).filter(|blob| blob.is_held()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClientKind, Transactions};
    use crate::base::tests::assert_panics;
    use crate::base::{Flow, Id, Instant, Key, LiveConnections, Outbox, Sources, Transport};
    use crate::stack::Settings;
    use crate::stack::peer_flows::PeerFlows;
    use std::sync::Arc;

    /// Two requests came, and one was sent over TCP twice.
    fn caught(what: &str, spoil: impl FnOnce(&mut Transactions, Id, Id)) {
        let (key, settings) = (Key::new(1, 2), Settings::default());
        let peer_flows = PeerFlows::new(Arc::new(LiveConnections::new(1, 4)), 0, key);
        let sources = Arc::new(Sources::new(key, 0));
        let mut table = Transactions::new(settings.timers.clone(), &settings.per_core, peer_flows, sources, key);
        let (now, mut outbox) = (Instant::from_ms(1000), Outbox::default());
        let peer = "192.0.2.1:5060".parse().unwrap();
        let flow = Flow::datagram(0, peer);
        table.open_server(now, true, 7, flow);
        let server = table.open_server(now, true, 7 << 64, flow);
        let next = Flow::towards(Transport::Tcp, 0, 0, peer, 0, 0);
        let span = outbox.send(next, |out| out.extend_from_slice(b"INVITE"));
        let mut open = || table.open_client(now, ClientKind::Invite, server, next, span, &outbox);
        let (_, client) = (open(), open());
        table.check();
        spoil(&mut table, server, client);
        assert_panics(what, || table.check());
    }

    #[test]
    fn what_is_spoilt_is_found() {
        caught("timers and transactions", |table, _, _| {
            table.wheel.add(9);
        });
        caught("server transaction", |table, server, _| {
            table.servers.get_mut(server).unwrap().key.0 ^= 1 << 3;
        });
        caught("server transaction", |table, server, _| {
            let record = table.servers.get(server).unwrap();
            table.directory.remove_first(record.key.0, server.slot, record.next);
        });
        caught("client transactions that wait", |table, _, _| table.unanswered.clear());
        caught("is not listed", |table, _, client| {
            table.clients.get_mut(client).unwrap().listed = false;
        });
        caught("before client transaction", |table, _, client| {
            table.clients.get_mut(client).unwrap().before = 77;
        });
    }
}
