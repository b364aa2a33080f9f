//! Sessions to resume as a client: by the server's name, address and port; bounded, and the least recently used are dropped first.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use openssl::ssl::SslSession;

use super::recent::Recent;
use crate::net::sys::ssl;

/// How many peers are remembered; temporarily twice as many, see `Recent`.
const PEERS: usize = 1024;

/// How many tickets are kept for one peer: a server gives one or two with each connection, and each concurrently open connection
/// needs one. With 16, a fifth of the handshakes of 48 simultaneous calls was full.
const SESSIONS: usize = 64;

/// The peer of a session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerName {
    /// As returned by `names::normal`; also a numeric address.
    pub name: String,
    pub address: SocketAddr,
}

/// One cache for each client context: a session is never offered under other settings than it was made with.
#[derive(Default)]
pub struct ClientSessions {
    peers: Mutex<Recent<Arc<PeerName>, Vec<SslSession>, PEERS>>,
}

impl ClientSessions {
    /// Keeps a session for later.
    pub fn put(&self, peer: &Arc<PeerName>, session: SslSession) {
        let mut peers = self.lock();
        let sessions = peers.entry(peer);
        if !is_single_use(&session) {
            // Only the newest is kept: it can be reused repeatedly.
            sessions.clear();
        }
        if sessions.len() >= SESSIONS {
            sessions.remove(0);
        }
        sessions.push(session);
    }

    /// Returns the newest session with the peer. A TLS 1.3 session is handed out only once (RFC 8446 §C.4).
    pub fn take(&self, peer: &Arc<PeerName>) -> Option<SslSession> {
        let mut peers = self.lock();
        let sessions = peers.get(peer)?;
        match sessions.last() {
            Some(session) if is_single_use(session) => sessions.pop(),
            Some(session) => Some(session.clone()),
            None => None,
        }
    }

    /// Forgets the sessions with a peer.
    pub fn forget(&self, peer: &Arc<PeerName>) {
        self.lock().remove(peer);
    }

    /// Moves what is kept for one name to another.
    #[cfg(test)]
    pub fn rename(&self, from: &str, to: &str) {
        let mut peers = self.lock();
        let all: Vec<_> = peers.drain().collect();
        for (peer, sessions) in all {
            let mut peer = PeerName::clone(&peer);
            if peer.name == from {
                peer.name = to.into();
            }
            peers.insert(Arc::new(peer), sessions);
        }
    }

    /// Returns how many sessions are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Arc<PeerName>, Vec<SslSession>, PEERS>> {
        self.peers.lock().unwrap_or_else(|fault| fault.into_inner())
    }
}

fn is_single_use(session: &SslSession) -> bool {
    ssl::is_single_use(session)
}
