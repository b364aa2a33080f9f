//! `openssl s_client` and `openssl s_server` as children: what they say of a handshake, and what they are told to send.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ChildStdin;
use std::time::Duration;

use crate::agent::{response, unique};
use crate::message::{Framer, Message, find};
use crate::pki::{Authority, Certificate};
use crate::place::{CALLER, Place, wait_for};
use crate::process::Process;
use crate::sipp::listening;

const PATIENCE: Duration = Duration::from_secs(10);

pub struct SClient {
    process: Process,
    input: ChildStdin,
    server: SocketAddr,
}

impl SClient {
    /// Connects to `server`; `arguments` are added to those that every client gets.
    pub fn connect(place: &Place, server: SocketAddr, arguments: &[&str]) -> SClient {
        let mut all: Vec<String> = ["s_client", "-connect"].map(str::to_owned).to_vec();
        all.push(server.to_string());
        // From an address of the test's own, so that a log line can be told by it.
        all.extend(["-bind".to_owned(), format!("{}:0", place.ip(CALLER))]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let name = format!("s_client-{}", unique());
        let (process, input) = Process::converse(place, &name, Path::new("openssl"), &all);
        SClient { process, input, server }
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Lines that begin with R, K, k or Q are commands to it, anything else goes to the server.
    pub fn say(&mut self, bytes: &[u8]) {
        // What it no longer takes, it will not print an answer to.
        let _ = self.input.write_all(bytes);
    }

    pub fn expect(&self, text: &str) {
        let found = wait_for(PATIENCE, || self.output().contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?} from s_client:\n{}", self.output());
    }

    /// Sends an OPTIONS and waits for the server's 200.
    pub fn ask(&mut self) {
        let request = options(self.server);
        let call = request.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap_or_default().to_owned();
        self.say(request.as_bytes());
        let answered = wait_for(PATIENCE, || {
            let output = self.output();
            let answer = output.split("SIP/2.0 200 ").skip(1);
            answer.into_iter().find(|rest| rest.contains(&call)).map(drop)
        });
        assert!(answered.is_some(), "no 200 to OPTIONS:\n{}", self.output());
    }

    /// Ends its input, which makes it say goodbye and leave; gives all that it has printed.
    pub fn leave(self) -> String {
        drop(self.input);
        let outcome = self.process.finish(PATIENCE);
        outcome.stdout + &outcome.stderr
    }

    /// Waits until the server has ended the connection, or has never let it begin.
    pub fn refused(mut self) -> String {
        let gone = wait_for(PATIENCE, || self.process.exited());
        assert!(gone.is_some(), "s_client is still there:\n{}", self.output());
        self.output()
    }
}

/// An OPTIONS to the server itself, as it goes over TLS.
pub fn options(server: SocketAddr) -> String {
    let unique = unique();
    format!(
        "OPTIONS sip:{server};transport=tls SIP/2.0\r\nVia: SIP/2.0/TLS {}:5061;branch=z9hG4bK{unique};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:s_client@example.test>;tag={unique}\r\nTo: <sip:{server}>\r\nCall-ID: {unique}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        server.ip()
    )
}

pub struct SServer {
    process: Process,
    /// What is written here goes to the client. Without an input it would leave at once.
    input: ChildStdin,
    /// What it has printed up to here was dealt with.
    answered: usize,
}

impl SServer {
    /// Accepts connections at `address`, one after the other, and shows `certificate`.
    pub fn start(place: &Place, address: SocketAddr, certificate: &Certificate, arguments: &[&str]) -> SServer {
        let mut all: Vec<String> = ["s_server", "-accept"].map(str::to_owned).to_vec();
        all.extend([
            address.to_string(),
            "-cert".to_owned(),
            certificate.file.display().to_string(),
            "-key".to_owned(),
            certificate.key.display().to_string(),
        ]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let name = format!("s_server-{}", unique());
        let (process, input) = Process::converse(place, &name, Path::new("openssl"), &all);
        let mut server = SServer { process, input, answered: 0 };
        let open = wait_for(PATIENCE, || (listening(address) || server.process.exited().is_some()).then(|| listening(address)));
        assert_eq!(open, Some(true), "no s_server:\n{}", server.output());
        server
    }

    pub fn output(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Waits for the next request after those that were answered before, answers it, and gives it.
    pub fn answer(&mut self, status: u16) -> Message {
        let found = wait_for(PATIENCE, || {
            let printed = self.process.stdout();
            let rest = printed.get(self.answered..)?;
            let end = rest.find(" SIP/2.0\r\n")?;
            let start = rest[..end].rfind('\n').map_or(0, |newline| newline + 1);
            let mut framer = Framer::default();
            framer.push(&rest.as_bytes()[start..]);
            let request = framer.take()?;
            Some((self.answered + start + request.raw.len(), request))
        });
        let Some((end, request)) = found else {
            panic!("no request to s_server:\n{}", self.output());
        };
        self.answered = end;
        let answer = response(&request, status, "s_server", &[], b"");
        self.input.write_all(&answer).expect("s_server's input");
        request
    }

    pub fn expect(&self, text: &str) {
        let found = wait_for(PATIENCE, || self.output().contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?} from s_server:\n{}", self.output());
    }
}

/// The arguments that make a client show this certificate.
pub fn showing(certificate: &Certificate) -> Vec<String> {
    vec!["-cert".to_owned(), certificate.file.display().to_string(), "-key".to_owned(), certificate.key.display().to_string()]
}

/// The arguments that make either side insist on a certificate from this authority.
pub fn trusting(authority: &Authority) -> Vec<String> {
    vec!["-CAfile".to_owned(), authority.file.display().to_string(), "-verify_return_error".to_owned()]
}

/// The part of s_client's output that tells of the handshake: without what was received later.
pub fn handshake(output: &str) -> &str {
    match find(output.as_bytes(), b"SIP/2.0 200 ") {
        Some(end) => &output[..end],
        None => output,
    }
}
