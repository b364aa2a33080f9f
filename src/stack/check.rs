//! The invariants of a core's element between two messages: the simulator checks them after each step. Only built with debug
//! assertions.

use super::Endpoint;
use super::transaction::Hope;
use std::collections::HashSet;

impl Endpoint {
    /// Asserts that each response context belongs to one server transaction, that its branches and waits exist and refer back to
    /// it, and that every block of memory has an owner.
    pub fn check(&self) {
        self.transactions.check();
        self.proxy.contexts.check();
        self.proxy.parking.check();
        if let Some(calls) = &self.core.calls {
            calls.check();
        }
        let mut blobs = self.transactions.blobs();
        let mut owned = HashSet::<_, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>::default();
        for (server, record) in self.transactions.servers() {
            let Some(id) = record.context.get() else {
                continue;
            };
            assert!(owned.insert(id), "two server transactions have the context {id:?}");
            let context = self.proxy.contexts.get(id).expect("a server transaction's context");
            for branch in context.all_branches() {
                let client = self.transactions.client(branch).expect("a context's branch");
                assert_eq!(client.server, server, "whose branch {branch:?} is");
                let is_silent = context.silent.contains(&branch);
                let hope = if is_silent { Hope::Silent } else { Hope::Awaited };
                assert_eq!(client.hope, hope, "what is hoped of branch {branch:?}");
            }
            for wait in &context.parked {
                assert_eq!(self.proxy.parking.server_of(*wait), Some(server), "whose wait {wait:?} is");
            }
            assert!(context.next_target <= context.targets.targets.len(), "the context {id:?} is behind its targets");
            blobs += usize::from(context.request.is_held()) + usize::from(context.best.is_held());
        }
        assert_eq!(self.proxy.contexts.count(), owned.len(), "contexts and transactions that wait");
        blobs += self.core.overload.waiting();
        assert_eq!(self.transactions.pool.held(), blobs, "blocks of memory and their owners");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tests::assert_panics;
    use crate::base::{Flow, Id, Instant, Key, LiveConnections, OptionalId, Outbox, Transport};
    use crate::stack::settings::Listener;
    use crate::stack::{Element, Location, Settings};
    use std::sync::Arc;

    const INVITE: &[u8] =
        b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\nMax-Forwards: 70\r\n\
        From: <sip:a@x>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";

    /// A call to bob is ringing.
    fn caught(what: &str, spoil: impl FnOnce(&mut Endpoint, Id, Id)) {
        let key = Key::new(1, 2);
        let listener = Listener {
            transport: Transport::Udp,
            address: "127.0.0.1:5060".parse().unwrap(),
            advertise: b"127.0.0.1:5060".to_vec(),
        };
        let settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener], ..Settings::default() };
        let location = Arc::new(Location::new(key, 10));
        let now = Instant::from_ms(1000);
        let bob = location.add(now, b"bob@example.com", b"sip:bob@127.0.0.1:5070", 60);
        assert!(bob.is_ok());
        let live = Arc::new(LiveConnections::new(1, 4));
        let mut endpoint = Endpoint::new(Arc::new(settings), location, live, 0, key);
        let from = Flow::datagram(0, "127.0.0.1:5080".parse().unwrap());
        endpoint.handle(now, from, INVITE, &mut Outbox::default());
        endpoint.check();
        let server = endpoint.transactions.servers().next().unwrap().0;
        let client = endpoint.transactions.clients().next().unwrap().0;
        spoil(&mut endpoint, server, client);
        assert_panics(what, || endpoint.check());
    }

    #[test]
    fn what_is_spoilt_is_found() {
        caught("contexts and transactions", |endpoint, server, _| {
            endpoint.transactions.server_mut(server).unwrap().context = OptionalId::NONE;
        });
        caught("a server transaction's context", |endpoint, server, _| {
            let id = endpoint.transactions.server(server).unwrap().context.get().unwrap();
            endpoint.proxy.contexts.remove(id);
        });
        caught("whose branch", |endpoint, server, client| {
            let generation = server.generation + 1;
            let client = endpoint.transactions.client_mut(client).unwrap();
            client.server = Id { generation, ..server };
        });
        caught("what is hoped of branch", |endpoint, _, client| {
            endpoint.transactions.client_mut(client).unwrap().hope = Hope::GivenUp;
        });
        caught("a context's branch", |endpoint, server, client| {
            let id = endpoint.transactions.server(server).unwrap().context.get().unwrap();
            let slot = client.slot + 1;
            let gone = Id { slot, ..client };
            endpoint.proxy.contexts.get_mut(id).unwrap().branches.push(gone);
        });
        caught("blocks of memory", |endpoint, _, _| {
            endpoint.transactions.pool.store(b"nobody's").unwrap();
        });
    }

    #[test]
    fn what_is_spoilt_in_the_location_table_is_found() {
        let location = Location::new(Key::new(1, 2), 10);
        let location = location.with_journal(crate::stack::location::Durability::Batched);
        let added = location.add(Instant::from_ms(1), b"bob@x", b"sip:b@192.0.2.1", 60);
        assert!(added.is_ok());
        location.check();
        location.spoil();
        assert_panics("for the disk", || location.check());
    }
}
