//! Sessions to resume as a client: by the server's name, address and port; bounded, and the least used go first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use openssl::ssl::SslSession;

use crate::net::sys::ssl;

/// How many peers are remembered. Twice as many for a while: see `Generations`.
const PEERS: usize = 4096;

/// How many tickets of one peer: a server gives one or two with each connection, and a burst of connections takes many.
const SESSIONS: usize = 16;

/// Whom a session is with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerName {
    /// As `names::normal` has it; also a numeric address.
    pub name: String,
    pub address: SocketAddr,
}

/// One cache for each client context: a session is never offered under other settings than it was made with.
#[derive(Default)]
pub struct ClientSessions {
    generations: Mutex<Generations>,
}

/// New and used entries are in `young`; when it is full, it becomes `old`, and what was old is forgotten. So nothing is
/// forgotten that was used among the last `PEERS`, each step is O(1), and no list is kept.
#[derive(Default)]
struct Generations {
    young: HashMap<Arc<PeerName>, Vec<SslSession>>,
    old: HashMap<Arc<PeerName>, Vec<SslSession>>,
}

impl Generations {
    fn entry(&mut self, peer: &Arc<PeerName>) -> &mut Vec<SslSession> {
        if !self.young.contains_key(peer) {
            if self.young.len() >= PEERS {
                self.old = std::mem::take(&mut self.young);
            }
            let sessions = self.old.remove(peer).unwrap_or_default();
            self.young.insert(peer.clone(), sessions);
        }
        self.young.entry(peer.clone()).or_default()
    }
}

impl ClientSessions {
    /// Keeps a session for later.
    pub fn put(&self, peer: &Arc<PeerName>, session: SslSession) {
        let mut generations = self.lock();
        let sessions = generations.entry(peer);
        if !is_single_use(&session) {
            // The newest stands for all: it is used again and again.
            sessions.clear();
        }
        if sessions.len() >= SESSIONS {
            sessions.remove(0);
        }
        sessions.push(session);
    }

    /// The newest session with the peer. One of TLS 1.3 is handed out once only (RFC 8446 §C.4).
    pub fn take(&self, peer: &Arc<PeerName>) -> Option<SslSession> {
        let mut generations = self.lock();
        if !generations.young.contains_key(peer) && !generations.old.contains_key(peer) {
            return None;
        }
        let sessions = generations.entry(peer);
        match sessions.last() {
            Some(session) if is_single_use(session) => sessions.pop(),
            Some(session) => Some(session.clone()),
            None => None,
        }
    }

    /// Forgets the sessions with a peer.
    pub fn forget(&self, peer: &Arc<PeerName>) {
        let mut generations = self.lock();
        generations.young.remove(peer);
        generations.old.remove(peer);
    }

    /// Makes what is kept of one name that of another.
    #[cfg(test)]
    pub fn rename(&self, from: &str, to: &str) {
        let mut generations = self.lock();
        let all = std::mem::take(&mut generations.young);
        for (peer, sessions) in all {
            let mut peer = PeerName::clone(&peer);
            if peer.name == from {
                peer.name = to.into();
            }
            generations.young.insert(Arc::new(peer), sessions);
        }
    }

    /// How many sessions are kept.
    pub fn len(&self) -> usize {
        let generations = self.lock();
        let young = generations.young.values().map(Vec::len).sum::<usize>();
        young + generations.old.values().map(Vec::len).sum::<usize>()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(|fault| fault.into_inner())
    }
}

fn is_single_use(session: &SslSession) -> bool {
    ssl::is_single_use(session)
}
