//! An accepting thread, and one thread for each of a bounded number of clients: for the control socket and the metrics endpoint.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::guests::{Guests, Line, Place};
use crate::base::source::source;
use crate::base::{Instant as Moment, LogBudget};

/// A socket that clients connect to.
pub trait Listener: AsFd + Send + Sync + 'static {
    type Stream: Line + AsFd + 'static;

    /// Returns the next client, its name for the log, and its source.
    fn next(&self) -> io::Result<(Self::Stream, String, u64)>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn next(&self) -> io::Result<(TcpStream, String, u64)> {
        let (stream, peer) = self.accept()?;
        Ok((stream, peer.to_string(), source(peer.ip())))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    /// All clients have one source: only one user may open the socket.
    fn next(&self) -> io::Result<(UnixStream, String, u64)> {
        let (stream, _) = self.accept()?;
        Ok((stream, "a client".to_owned(), 0))
    }
}

/// What is done for a client.
pub trait Service: Send + Sync + 'static {
    type Listener: Listener;

    /// Its name in log lines.
    const NAME: &'static str;
    /// The name of its threads.
    const THREAD: &'static str;

    fn serve(&self, stream: &Stream<Self>, place: &Place<Stream<Self>>) -> io::Result<()>;

    /// Answers a client for which there is no place. The stream does not block: a short answer fits into the socket's buffer.
    fn turn_away(&self, stream: &Stream<Self>) -> io::Result<()>;
}

type Stream<S> = <<S as Service>::Listener as Listener>::Stream;

/// A listener whose clients are served. Dropping it stops accepting; answers in progress are finished.
pub struct Acceptor<S: Service> {
    shared: Arc<Shared<S>>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared<S: Service> {
    service: S,
    listener: S::Listener,
    clients: Arc<Guests<Stream<S>>>,
    closing: AtomicBool,
}

impl<S: Service> Acceptor<S> {
    /// Serves at most `most` clients at a time. For a further one the oldest idle client is closed; if none is idle, it is turned
    /// away.
    pub fn start(listener: S::Listener, service: S, most: usize) -> io::Result<Acceptor<S>> {
        let shared = Arc::new(Shared { service, listener, clients: Arc::new(Guests::new(most)), closing: AtomicBool::new(false) });
        let served = Arc::clone(&shared);
        let accepting = thread::Builder::new().name(S::THREAD.to_owned()).spawn(move || served.accept())?;
        Ok(Acceptor { shared, accepting: Some(accepting) })
    }

    pub fn clients(&self) -> &Guests<Stream<S>> {
        &self.shared.clients
    }

    /// Stops accepting.
    pub fn stop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // This wakes the accepting thread. If it cannot be woken, it is left to end with the process.
        let woken = SockRef::from(&self.shared.listener).shutdown(Shutdown::Both);
        if let (Ok(()), Some(accepting)) = (woken, self.accepting.take()) {
            let _ = accepting.join();
        }
    }
}

impl<S: Service> Drop for Acceptor<S> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<S: Service> Shared<S> {
    fn accept(self: &Arc<Self>) {
        let began = Instant::now();
        let mut log = LogBudget::of_limit(S::NAME);
        let mut accept_log = LogBudget::of_limit(S::NAME);
        loop {
            let next = self.listener.next();
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            let now = Moment::from_ms(began.elapsed().as_millis() as u64);
            log.renew(now);
            accept_log.renew(now);
            match next {
                Ok((stream, peer, source)) => {
                    if let Err(error) = self.admit(stream, &peer, source, &mut log)
                        && log.may_say()
                    {
                        log::warn!("{}: {peer} is not served: {error}", S::NAME);
                    }
                }
                Err(error) => {
                    if accept_log.may_say() {
                        log::warn!("{}: cannot accept: {error}", S::NAME);
                    }
                    // Most likely no descriptor is left: retrying at once would only burn the core.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Starts a thread for the client, or turns it away.
    fn admit(self: &Arc<Self>, stream: Stream<S>, peer: &str, source: u64, log: &mut LogBudget) -> io::Result<()> {
        let stream = Arc::new(stream);
        let most = self.clients.most();
        let Some(place) = self.clients.enter(source, &stream) else {
            SockRef::from(&*stream).set_nonblocking(true)?;
            self.service.turn_away(&stream)?;
            return Err(io::Error::other(format!("{most} clients are being served, which is the limit, and none of them idles")));
        };
        if place.is_taken_over && log.may_say() {
            log::warn!(
                "{}: {most} clients are being served, which is the limit: the one that has idled longest was closed for {peer}",
                S::NAME
            );
        }
        let shared = Arc::clone(self);
        let serving = thread::Builder::new().name(format!("{}-client", S::THREAD));
        serving.spawn(move || {
            if let Err(error) = shared.service.serve(&stream, &place) {
                log::debug!("{}: client {}: {error}", S::NAME, place.number);
            }
        })?;
        Ok(())
    }
}
