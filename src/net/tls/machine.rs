//! One TLS connection: bytes in, bytes out.

use std::net::SocketAddr;
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, ShutdownState, Ssl, SslRef, SslStream};
use openssl::x509::X509VerifyResult;

use super::failure::{self, By, Failure};
use super::flights::{Flights, whole_records};
use super::names;
use super::notes::notes_index;
use super::sessions::ClientSessions;
use super::settings::Side;
use super::wire::Wire;
use crate::base::ProvedNames;

/// The most plaintext that one record carries.
const RECORD: usize = 1 << 14;

/// The library over two byte queues. Pass what arrives to `receive`, and write what `output` holds.
pub struct Tls {
    stream: SslStream<Wire>,
    peer: SocketAddr,
    side: Side,
    /// Whether the peer's certificate, if there is one, had to be valid.
    verifies: bool,
    state: TlsState,
    /// Only during the handshake.
    handshake: Option<Box<Handshake>>,
    handshake_calls: u32,
}

struct Handshake {
    flights: Flights,
    /// What the caller sent before the handshake was complete.
    waiting: Vec<u8>,
    /// Where the offered session came from.
    offered: Option<Arc<ClientSessions>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TlsState {
    Handshaking,
    Open,
    /// A close_notify has arrived: nothing more will. Ours may still have to be sent.
    PeerClosed,
    /// Our close_notify is in the output.
    Closed,
    Failed,
}

/// The result of receiving bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// The handshake was completed by these bytes.
    pub established_now: bool,
    /// The peer has announced that it will send nothing more (close_notify).
    pub closed: bool,
}

impl Tls {
    pub(super) fn new(
        ssl: Ssl,
        peer: SocketAddr,
        side: Side,
        verifies: bool,
        offered: Option<Arc<ClientSessions>>,
    ) -> Result<Tls, ErrorStack> {
        Ok(Tls {
            stream: SslStream::new(ssl, Wire::default())?,
            peer,
            side,
            verifies,
            state: TlsState::Handshaking,
            handshake: Some(Box::new(Handshake { flights: Flights::new(side), waiting: Vec::new(), offered })),
            handshake_calls: 0,
        })
    }

    /// Takes an `Ssl` of a context that the caller has made. What it shows, verifies and offers is the caller's matter: the connection
    /// proves no names.
    pub fn from_ssl(mut ssl: Ssl, peer: SocketAddr, side: Side) -> Result<Tls, ErrorStack> {
        match side {
            Side::Server => ssl.set_accept_state(),
            Side::Client => ssl.set_connect_state(),
        }
        Tls::new(ssl, peer, side, false, None)
    }

    /// Puts a client's first flight into the output. No effect on a server, which has to wait.
    pub fn start(&mut self) -> Result<(), Failure> {
        if self.side == Side::Client && self.handshake_calls == 0 {
            self.shake_hands()?;
        }
        Ok(())
    }

    /// True if a record has begun to arrive and is incomplete.
    pub fn is_inside_record(&self) -> bool {
        !self.stream.get_ref().held().is_empty()
    }

    /// Returns the number of bytes of an incomplete record.
    pub fn held_bytes(&self) -> usize {
        self.stream.get_ref().held().len()
    }

    /// Takes ciphertext as it arrived and appends its decrypted content to `plaintext`.
    ///
    /// Check `output` afterwards, also on failure: it then holds an alert for the peer. After a failure nothing more is received.
    pub fn receive(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<Progress, Failure> {
        let mut progress = Progress::default();
        match self.state {
            TlsState::Handshaking | TlsState::Open => {}
            TlsState::PeerClosed | TlsState::Closed | TlsState::Failed => {
                progress.closed = true;
                return Ok(progress);
            }
        }
        let result = self.digest(ciphertext, plaintext, &mut progress);
        let wire = self.stream.get_mut();
        if result.is_err() || progress.closed {
            wire.clear_input();
        } else {
            wire.tidy();
        }
        result.map(|()| progress)
    }

    fn digest(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>, progress: &mut Progress) -> Result<(), Failure> {
        self.stream.get_mut().push(ciphertext);
        if self.state == TlsState::Handshaking {
            let Some(handshake) = &mut self.handshake else {
                debug_assert!(false, "a handshake without its flights");
                return Ok(());
            };
            let len = handshake.flights.take(self.stream.get_ref().held());
            if len == 0 {
                return Ok(());
            }
            self.stream.get_mut().release(len);
            progress.established_now = self.shake_hands()?;
            if !progress.established_now {
                return Ok(());
            }
        }
        let wire = self.stream.get_mut();
        let len = whole_records(wire.held());
        wire.release(len);
        self.read(plaintext, progress)
    }

    /// Calls the library once; returns whether the handshake is complete.
    fn shake_hands(&mut self) -> Result<bool, Failure> {
        self.handshake_calls += 1;
        drop(ErrorStack::get());
        match self.stream.do_handshake() {
            Ok(()) => {
                self.state = TlsState::Open;
                let waiting = self.handshake.take().map(|handshake| handshake.waiting);
                if let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) {
                    self.send(&waiting)?;
                }
                Ok(true)
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn read(&mut self, plaintext: &mut Vec<u8>, progress: &mut Progress) -> Result<(), Failure> {
        loop {
            let unread = self.stream.get_ref().unread();
            let pending = self.stream.ssl().pending();
            if unread == 0 && pending == 0 {
                return Ok(());
            }
            // A record's plaintext is never longer than the record.
            let room = if pending > 0 { pending } else { unread.min(RECORD) };
            let len = plaintext.len();
            plaintext.resize(len + room, 0);
            // Errors that another connection left in the library's queue would be attributed to this one.
            drop(ErrorStack::get());
            let result = self.stream.ssl_read(&mut plaintext[len..]);
            plaintext.truncate(len + result.as_ref().map_or(0, |read| *read));
            match result {
                Ok(_) => {}
                Err(error) if error.code() == ErrorCode::WANT_READ => {
                    // It held a message that is not data, such as a ticket. More may follow.
                    if self.stream.get_ref().unread() == unread {
                        return Ok(());
                    }
                }
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    self.state = TlsState::PeerClosed;
                    progress.closed = true;
                    return Ok(());
                }
                Err(error) => return Err(self.fail(&error)),
            }
        }
    }

    /// Encrypts into the output. What is sent before the handshake is complete waits for that; what is sent after `close` or after
    /// a failure is dropped.
    pub fn send(&mut self, plaintext: &[u8]) -> Result<(), Failure> {
        match self.state {
            TlsState::Handshaking => {
                if let Some(handshake) = &mut self.handshake {
                    handshake.waiting.extend_from_slice(plaintext);
                }
                return Ok(());
            }
            TlsState::Open | TlsState::PeerClosed => {}
            TlsState::Closed | TlsState::Failed => return Ok(()),
        }
        let mut rest = plaintext;
        while !rest.is_empty() {
            drop(ErrorStack::get());
            match self.stream.ssl_write(rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or(&[]),
                Err(error) => return Err(self.fail(&error)),
            }
        }
        Ok(())
    }

    /// Returns what is to be written to the peer. The caller takes it out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.stream.get_mut().output
    }

    /// Puts a close_notify into the output, if the handshake was completed and nothing has failed.
    pub fn close(&mut self) {
        if matches!(self.state, TlsState::Open | TlsState::PeerClosed) {
            drop(ErrorStack::get());
            // It goes into the queue, which takes everything; any other failure can be ignored.
            let _ = self.stream.shutdown();
            drop(ErrorStack::get());
        }
        if self.state != TlsState::Failed {
            self.state = TlsState::Closed;
        }
    }

    fn fail(&mut self, error: &ssl::Error) -> Failure {
        let in_handshake = self.state == TlsState::Handshaking;
        self.state = TlsState::Failed;
        let ssl = self.stream.ssl();
        let notes = notes_index().ok().and_then(|index| ssl.ex_data(index));
        let detail = notes.and_then(|notes| notes.refusal.get());
        let alert = self.handshake.as_ref().and_then(|handshake| handshake.flights.alert()).and_then(failure::alert_name);
        let (by, reason) = match (alert, error.ssl_error()) {
            // A client that refuses our certificate may send its alert in the clear even if TLS 1.3 requires it encrypted (OpenSSL
            // does), and the library then complains about the record.
            (Some(alert), _) => (By::Peer, alert.to_string()),
            (None, Some(errors)) => failure::read(Some(errors), ssl, detail.map(String::as_str)),
            (None, None) => (By::Us, error.to_string()),
        };
        if let Some(handshake) = self.handshake.take()
            && let Some(sessions) = handshake.offered
            && let Some(notes) = notes
        {
            // The offered session may be the cause.
            sessions.forget(&notes.peer);
        }
        drop(ErrorStack::get());
        Failure { by, reason, in_handshake }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// True if data can be exchanged.
    pub fn is_established(&self) -> bool {
        matches!(self.state, TlsState::Open | TlsState::PeerClosed)
    }

    /// True if the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.ssl().session_reused()
    }

    /// True if the client showed a certificate, in this handshake or in the one whose session it resumed.
    ///
    /// A client that resumes is not asked again; for it this is false.
    pub fn is_mutual(&self) -> bool {
        match self.side {
            Side::Server => self.ssl().peer_certificate().is_some(),
            Side::Client => {
                let notes = notes_index().ok().and_then(|index| self.ssl().ex_data(index));
                notes.is_some_and(|notes| notes.was_asked && notes.has_certificate)
            }
        }
    }

    /// For example "TLSv1.3".
    pub fn version(&self) -> &'static str {
        self.ssl().version_str()
    }

    /// For example "ECDHE-RSA-AES128-GCM-SHA256"; empty before one is agreed on.
    pub fn cipher(&self) -> &'static str {
        self.ssl().current_cipher().map_or("", |suite| suite.name())
    }

    /// Returns how often the library was called for the handshake: once for each flight received, and once for a client's first.
    pub fn handshake_calls(&self) -> u32 {
        self.handshake_calls
    }

    /// Returns the SIP domains that the peer's certificate proves (RFC 5922 §7.1), in lower case; empty unless the certificate was
    /// verified. A connection may be reused for these (RFC 5923 §5).
    pub fn peer_names(&self) -> Vec<String> {
        let was_established = !matches!(self.state, TlsState::Handshaking | TlsState::Failed);
        if !self.verifies || !was_established || self.ssl().verify_result() != X509VerifyResult::OK {
            return Vec::new();
        }
        let names = self.ssl().peer_certificate().map(|certificate| names::identities(&certificate));
        drop(ErrorStack::get());
        names.unwrap_or_default()
    }

    /// Returns the names in the client's verified certificate, from this handshake or from the one whose session it resumed: empty
    /// if it has expired since or contains no usable name; `None` if none was shown, and always for a server, whose name was
    /// checked on connecting.
    pub fn client_names(&self) -> Option<ProvedNames> {
        let is_verified = self.side == Side::Server
            && self.verifies
            && self.is_established()
            && self.ssl().verify_result() == X509VerifyResult::OK;
        if !is_verified {
            return None;
        }
        let certificate = self.ssl().peer_certificate()?;
        let now = Asn1Time::days_from_now(0).ok()?;
        let owners = match certificate.not_after() > now {
            true => names::owners(&certificate),
            false => Vec::new(),
        };
        drop(ErrorStack::get());
        Some(owners.into())
    }

    #[cfg(test)]
    pub(super) fn peer_certificate(&self) -> Option<openssl::x509::X509> {
        self.ssl().peer_certificate()
    }

    #[cfg(test)]
    pub(super) fn held_capacity(&self) -> usize {
        self.stream.get_ref().capacity()
    }

    /// The library's own view of the connection, to read what is not told here.
    pub fn ssl(&self) -> &SslRef {
        self.stream.ssl()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // If a connection is dropped without a shutdown, the library does not resume its session.
        if matches!(self.state, TlsState::Open | TlsState::PeerClosed | TlsState::Closed) {
            self.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
        }
    }
}
