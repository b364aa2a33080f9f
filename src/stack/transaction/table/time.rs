//! Timers of transactions: what is due, and what it means.

use super::super::timer::Timer;
use super::super::{ClientEvent, ServerEvent};
use super::{CLIENT_TOKEN, Notice, Transactions};
use crate::base::{Instant, Outbox};
use std::hint::black_box;

impl Transactions {
    /// Carries out what is due until something concerns the transaction user; to be called until it returns `None`.
    pub fn poll(&mut self, now: Instant, outbox: &mut Outbox) -> Option<Notice> {
        while let Some(token) = self.wheel.poll(now) {
            self.foresee_due();
            let slot = token & !CLIENT_TOKEN;
            let notice =
                if token & CLIENT_TOKEN != 0 { self.client_timer(now, slot, outbox) } else { self.server_timer(now, slot, outbox) };
            if notice.is_some() {
                return notice;
            }
        }
        None
    }

    /// Prefetches what the next timers will need. A finished transaction was not accessed for its whole linger time; prefetching
    /// overlaps its cache misses with the current work.
    fn foresee_due(&self) {
        let mut due = self.wheel.due();
        // Its record was prefetched one timer ago: now its place in the directory.
        if let Some(token) = due.next()
            && token & CLIENT_TOKEN == 0
            && let Some((_, server)) = self.servers.tenant(token)
        {
            black_box(self.directory.head(server.key.0));
        }
        match due.next() {
            Some(token) if token & CLIENT_TOKEN != 0 => {
                let client = self.clients.tenant(token & !CLIENT_TOKEN);
                black_box(client.map(|(_, client)| (client.clock.end_at, client.state)));
            }
            Some(token) => {
                let server = self.servers.tenant(token);
                black_box(server.map(|(_, server)| (server.key.0, server.state)));
            }
            None => {}
        }
    }

    fn client_timer(&mut self, now: Instant, slot: u32, outbox: &mut Outbox) -> Option<Notice> {
        let id = self.clients.tenant(slot)?.0;
        let client = self.clients.get_mut(id)?;
        let due = client.clock.due(now);
        client.clock.arm(&mut self.wheel);
        // A second timer C, 64·T1 after the CANCEL, ends the branch.
        let event = match due? {
            Timer::C if client.cancel.is_some() => ClientEvent::Abandon,
            timer => ClientEvent::Fired(timer),
        };
        self.step_client(now, id, event, None, outbox).1
    }

    fn server_timer(&mut self, now: Instant, slot: u32, outbox: &mut Outbox) -> Option<Notice> {
        let id = self.servers.tenant(slot)?.0;
        let server = self.servers.get_mut(id)?;
        let due = server.clock.due(now);
        server.clock.arm(&mut self.wheel);
        let event = ServerEvent::Fired(due?);
        let context = server.context.get();
        let late = self.step_server(now, id, event, None, outbox).1;
        match (late, self.servers.get(id)) {
            (true, _) => Some(Notice::Late(id)),
            (false, None) => context.map(Notice::Expired),
            (false, Some(_)) => None,
        }
    }
}
