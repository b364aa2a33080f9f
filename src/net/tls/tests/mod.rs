//! The machine in memory: two of them, and the bytes between them split in every way.

mod handshakes;
mod pki;
mod refusals;
mod sessions;
mod trust;

use std::net::SocketAddr;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::{Contexts, Failure, Pair, Settings, Tls, VerifyClient, Version};
use pki::{Authority, Kind, Wish, issue, write, write_authorities};

/// The name that the servers of the tests have, and their address.
const NAME: &str = "sip.example.com";
const ADDRESS: &str = "127.0.0.1";

fn server_address() -> SocketAddr {
    "127.0.0.1:5061".parse().unwrap()
}

fn client_address() -> SocketAddr {
    "127.0.0.1:50000".parse().unwrap()
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("strowger test authority"))
}

/// A folder with an authority's certificate, and settings that name files in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { folder: TempDir::new().unwrap() };
        write_authorities(bench.folder.path(), "ca", &[authority()]);
        bench
    }

    /// Issues a certificate and writes it.
    fn pair(&self, file: &str, wish: &Wish) -> Pair {
        let certificate = issue(authority(), wish);
        write(self.folder.path(), file, wish.kind, &[&certificate])
    }

    /// A server with these kinds of certificate, or a client that trusts it.
    fn settings(&self, kinds: &[Kind]) -> Settings {
        let mut settings = Settings::default();
        settings.certificates.default_identity =
            kinds.iter().map(|kind| self.pair(&format!("server-{kind:?}"), &Wish::new(&[NAME, ADDRESS], *kind))).collect();
        settings.rules.trusted_ca = Some(self.folder.path().join("ca.pem"));
        settings
    }

    fn server(&self, kinds: &[Kind], change: impl FnOnce(&mut Settings)) -> Contexts {
        let mut settings = self.settings(kinds);
        change(&mut settings);
        Contexts::load(&settings, None).unwrap()
    }

    fn client(&self, change: impl FnOnce(&mut Settings)) -> Contexts {
        self.server(&[], change)
    }
}

fn only(version: Version) -> impl Fn(&mut Settings) {
    move |settings| {
        settings.rules.min_version = version;
        settings.rules.max_version = version;
    }
}

/// How bytes are split on their way.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Everything that one side had to send, at once.
    Whole,
    OneByOne,
    /// At random, from a seed.
    Random(u64),
}

impl Cut {
    const ALL: [Cut; 6] = [Cut::Whole, Cut::OneByOne, Cut::Random(1), Cut::Random(2), Cut::Random(3), Cut::Random(4)];

    fn next(&mut self, rest: usize) -> usize {
        match self {
            Cut::Whole => rest,
            Cut::OneByOne => 1,
            Cut::Random(state) => {
                *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let random = (*state >> 33) as usize;
                // Sizes of all magnitudes.
                (random >> 8) % (1 << (random % 12)).min(rest) + 1
            }
        }
    }
}

/// One end of a line.
struct End {
    tls: Tls,
    heard: Vec<u8>,
    established: u32,
    closed: bool,
    failure: Option<Failure>,
}

impl End {
    fn new(tls: Tls) -> End {
        End { tls, heard: Vec::new(), established: 0, closed: false, failure: None }
    }

    fn hear(&mut self, bytes: &[u8]) {
        match self.tls.receive(bytes, &mut self.heard) {
            Ok(progress) => {
                self.established += u32::from(progress.established_now);
                self.closed |= progress.closed;
            }
            Err(failure) => {
                assert!(self.failure.is_none(), "failed twice");
                self.failure = Some(failure);
            }
        }
    }
}

/// A server and a client.
struct Line {
    server: End,
    client: End,
    cut: Cut,
}

impl Line {
    /// Both ends, and the handshake between them as far as it goes.
    fn new(server: &Contexts, client: &Contexts, name: &str, cut: Cut) -> Line {
        let mut line = Line {
            server: End::new(server.accept(client_address()).unwrap()),
            client: End::new(client.connect(server_address(), name).unwrap()),
            cut,
        };
        line.client.tls.start().unwrap();
        line.run();
        line
    }

    /// Carries bytes until both are silent.
    fn run(&mut self) {
        loop {
            let there = std::mem::take(self.client.tls.output());
            let back = std::mem::take(self.server.tls.output());
            if there.is_empty() && back.is_empty() {
                return;
            }
            for (bytes, to) in [(there, &mut self.server), (back, &mut self.client)] {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let len = self.cut.next(rest.len());
                    to.hear(&rest[..len]);
                    rest = &rest[len..];
                }
            }
        }
    }

    #[track_caller]
    fn assert_open(&self) {
        for end in [&self.server, &self.client] {
            assert_eq!(end.failure, None);
            assert!(end.tls.is_established());
            assert_eq!(end.established, 1);
        }
        assert_eq!(self.server.tls.is_resumed(), self.client.tls.is_resumed());
        assert_eq!(self.server.tls.version(), self.client.tls.version());
        assert_eq!(self.server.tls.cipher(), self.client.tls.cipher());
    }

    /// Both send, both receive.
    #[track_caller]
    fn talk(&mut self) {
        self.client.tls.send(b"OPTIONS sip:a SIP/2.0\r\n").unwrap();
        self.server.tls.send(b"SIP/2.0 200 OK\r\n").unwrap();
        self.run();
        assert_eq!(self.server.heard, b"OPTIONS sip:a SIP/2.0\r\n");
        assert_eq!(self.client.heard, b"SIP/2.0 200 OK\r\n");
        self.server.heard.clear();
        self.client.heard.clear();
    }

    /// Both announce that nothing more will come.
    #[track_caller]
    fn close(&mut self) {
        self.client.tls.close();
        self.run();
        assert!(self.server.closed && !self.client.closed);
        self.server.tls.close();
        self.run();
        assert_eq!(self.server.failure, None);
        assert_eq!(self.client.failure, None);
    }
}

fn required(settings: &mut Settings) {
    settings.rules.verify_client = VerifyClient::Required;
}
