//! A hand-driven endpoint on a UDP socket or a connection, for what SIPp cannot be made to send or to wait for.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::line::{End, Line};
use crate::message::{Message, parameter};
use crate::pki::{Authority, Certificate};
use crate::place;

/// How long an agent waits for what must come: long, for machines that are busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Agent {
    pub address: SocketAddr,
    /// Where it sends to: the server, or a tap before it.
    pub peer: SocketAddr,
    wire: Wire,
    cseq: Cell<u32>,
    log: RefCell<Vec<Message>>,
}

enum Wire {
    Datagrams(UdpSocket),
    Line(Box<RefCell<Line>>),
}

/// A request in the making. Every line can be changed before it is sent.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub uri: String,
    pub via: String,
    pub from: String,
    pub to: String,
    pub call_id: String,
    pub cseq: u32,
    pub max_forwards: Option<u32>,
    pub contact: Option<String>,
    /// Further header lines, in order.
    pub extra: Vec<String>,
    pub body: Vec<u8>,
}

impl Agent {
    pub fn new(address: SocketAddr, peer: SocketAddr) -> Agent {
        let socket = bind(address);
        let address = socket.local_addr().expect("the agent's address");
        Agent::on(address, peer, Wire::Datagrams(socket))
    }

    fn on(address: SocketAddr, peer: SocketAddr, wire: Wire) -> Agent {
        Agent { address, peer, wire, cseq: Cell::new(0), log: RefCell::default() }
    }

    fn on_line(line: Line) -> Agent {
        let (address, peer) = line.ends();
        Agent::on(address, peer, Wire::Line(Box::new(RefCell::new(line))))
    }

    /// Connects from an ephemeral port of `from`.
    pub fn tcp(from: IpAddr, peer: SocketAddr) -> Agent {
        Agent::on_line(Line::connect(from, peer))
    }

    /// Connects, and shakes hands with who proves to be `name`; `own` is shown where it is asked for.
    pub fn tls(from: IpAddr, peer: SocketAddr, authority: &Authority, name: &str, own: Option<&Certificate>) -> Agent {
        Agent::on_line(Line::connect(from, peer).secure(authority, name, own))
    }

    /// Waits for somebody to connect.
    pub fn accept_from(listener: &TcpListener) -> Agent {
        Agent::on_line(Line::accept(listener))
    }

    /// What the Via says.
    pub fn transport(&self) -> &'static str {
        match &self.wire {
            Wire::Datagrams(_) => "UDP",
            Wire::Line(line) => line.borrow().transport(),
        }
    }

    /// A URI at which this agent can be reached, if by no other way then by its connection.
    pub fn uri(&self) -> String {
        match self.transport() {
            "UDP" => format!("sip:agent@{}", self.address),
            other => format!("sip:agent@{};transport={}", self.address, other.to_ascii_lowercase()),
        }
    }

    /// The socket below, to do to it what no agent does.
    pub fn stream(&self) -> TcpStream {
        match &self.wire {
            Wire::Datagrams(_) => panic!("{} is no connection", self.address),
            Wire::Line(line) => line.borrow().stream(),
        }
    }

    /// Waits until the peer has ended the connection; None when it does not in time.
    pub fn end(&self, within: Duration) -> Option<End> {
        let end = Instant::now() + within;
        while self.receive(end.saturating_duration_since(Instant::now())).is_some() {}
        match &self.wire {
            Wire::Datagrams(_) => None,
            Wire::Line(line) => line.borrow().end(),
        }
    }

    /// A request outside a dialog, complete and lawful.
    pub fn request(&self, method: &str, uri: &str) -> Request {
        let unique = unique();
        let cseq = self.cseq.get() + 1;
        self.cseq.set(cseq);
        Request {
            method: method.to_owned(),
            uri: uri.to_owned(),
            via: format!("SIP/2.0/{} {};branch=z9hG4bKt{unique};rport", self.transport(), self.address),
            from: format!("<sip:agent@{}>;tag=f{unique}", self.address),
            to: format!("<{uri}>"),
            call_id: format!("c{unique}@{}", self.address.ip()),
            cseq,
            max_forwards: Some(70),
            contact: Some(format!("<{}>", self.uri())),
            extra: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A REGISTER of `user` at the peer's address for this agent's own address.
    pub fn register(&self, domain: &str, user: &str, contact: &str, expires: u32) -> Request {
        let mut register = self.request("REGISTER", &format!("sip:{domain}"));
        register.to = format!("<sip:{user}@{domain}>");
        register.from = format!("<sip:{user}@{domain}>;tag=r{}", unique());
        register.contact = (!contact.is_empty()).then(|| contact.to_owned());
        register.extra.push(format!("Expires: {expires}"));
        register
    }

    pub fn send(&self, request: &Request) {
        self.send_bytes(&request.bytes());
    }

    pub fn send_bytes(&self, bytes: &[u8]) {
        let sent = match &self.wire {
            Wire::Datagrams(socket) => socket.send_to(bytes, self.peer).map(drop),
            Wire::Line(line) => line.borrow_mut().send(bytes),
        };
        sent.unwrap_or_else(|error| panic!("{} bytes to {}: {error}", bytes.len(), self.peer));
    }

    /// The same where the peer may have closed: false then.
    pub fn try_send(&self, bytes: &[u8]) -> bool {
        match &self.wire {
            Wire::Datagrams(socket) => socket.send_to(bytes, self.peer).is_ok(),
            Wire::Line(line) => line.borrow_mut().send(bytes).is_ok(),
        }
    }

    /// Says that nothing more will come; answers are read still.
    pub fn say_goodbye(&self) {
        match &self.wire {
            Wire::Datagrams(_) => panic!("{} is no connection", self.address),
            Wire::Line(line) => line.borrow_mut().say_goodbye(),
        }
    }

    /// The next message; None when none comes in time.
    pub fn receive(&self, within: Duration) -> Option<Message> {
        let message = match &self.wire {
            Wire::Datagrams(socket) => receive_datagram(socket, within),
            Wire::Line(line) => line.borrow_mut().receive(within),
        };
        self.log.borrow_mut().extend(message.clone());
        message
    }

    /// Waits for a message that `fits`, passing over others (they stay in `log`).
    pub fn expect(&self, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        self.expect_within(PATIENCE, what, fits)
    }

    pub fn expect_within(&self, within: Duration, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        let end = Instant::now() + within;
        while let Some(message) = self.receive(end.saturating_duration_since(Instant::now())) {
            if fits(&message) {
                return message;
            }
        }
        let seen: Vec<String> = self
            .log()
            .iter()
            .map(|message| format!("{} [{}]", message.start, message.header("cseq").unwrap_or_default()))
            .collect();
        panic!("{} waited for {what}, and saw {seen:#?}", self.address);
    }

    /// Sends a request and gives its final response.
    pub fn ask(&self, request: &Request) -> Message {
        self.send(request);
        self.final_for(request)
    }

    /// The final response to a request that was sent before.
    pub fn final_for(&self, request: &Request) -> Message {
        self.expect(&format!("a final response to {}", request.method), |message| {
            message.is_final_for(&request.method) && message.call_id() == request.call_id && message.cseq() == request.cseq
        })
    }

    /// Whatever arrives within the time.
    pub fn collect(&self, within: Duration) -> Vec<Message> {
        let end = Instant::now() + within;
        let mut all = Vec::new();
        while let Some(message) = self.receive(end.saturating_duration_since(Instant::now())) {
            all.push(message);
        }
        all
    }

    /// Forgets what was received: for agents that live long.
    pub fn forget(&self) {
        self.log.borrow_mut().clear();
    }

    /// Everything received until now.
    pub fn log(&self) -> Vec<Message> {
        self.log.borrow().clone()
    }

    /// Answers a request towards the peer. A response other than 100 gets a To tag of this agent's.
    pub fn respond(&self, request: &Message, status: u16, extra: &[&str]) {
        self.send_bytes(&response(request, status, &self.tag(), extra, b""));
    }

    /// The To tag of this agent's responses.
    pub fn tag(&self) -> String {
        format!("t{}", self.address.port())
            + &match self.address.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3].to_string(),
                std::net::IpAddr::V6(_) => String::new(),
            }
    }

    /// 200 to an INVITE, with a Contact at this agent's address.
    pub fn accept(&self, invite: &Message) {
        self.respond(invite, 200, &[&format!("Contact: <{}>", self.uri())]);
    }

    /// The ACK of a non-2xx final response: same branch, To tag of the response (RFC 3261 §17.1.1.3).
    pub fn acknowledge(&self, invite: &Request, response: &Message) {
        let mut ack = invite.clone();
        ack.method = "ACK".to_owned();
        ack.to = response.header("to").unwrap_or_default().to_owned();
        ack.contact = None;
        ack.extra.clear();
        ack.body.clear();
        self.send(&ack);
    }

    /// A request within the dialog that `response` (2xx to `invite`) made, with the route set that it carries.
    pub fn in_dialog(&self, method: &str, invite: &Request, response: &Message) -> Request {
        let target = response.contacts().first().cloned().unwrap_or_else(|| panic!("no Contact in {response:?}"));
        let mut request = self.request(method, &target);
        request.from.clone_from(&invite.from);
        request.to = response.header("to").unwrap_or_default().to_owned();
        request.call_id.clone_from(&invite.call_id);
        request.cseq = if method == "ACK" { invite.cseq } else { invite.cseq + request.cseq };
        request.extra = response.all("record-route").iter().rev().map(|route| format!("Route: {route}")).collect();
        request
    }
}

impl Request {
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} SIP/2.0\r\nVia: {}\r\n", self.method, self.uri, self.via);
        if let Some(hops) = self.max_forwards {
            text += &format!("Max-Forwards: {hops}\r\n");
        }
        text += &format!(
            "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n",
            self.from, self.to, self.call_id, self.cseq, self.method
        );
        if let Some(contact) = &self.contact {
            text += &format!("Contact: {contact}\r\n");
        }
        for line in &self.extra {
            text += &format!("{line}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        let mut bytes = text.into_bytes();
        bytes.extend(&self.body);
        bytes
    }

    pub fn with(mut self, line: &str) -> Request {
        self.extra.push(line.to_owned());
        self
    }

    /// The CANCEL of this request (RFC 3261 §9.1).
    pub fn cancel(&self) -> Request {
        let mut cancel = self.clone();
        cancel.method = "CANCEL".to_owned();
        cancel.contact = None;
        cancel.extra.retain(|line| line.to_ascii_lowercase().starts_with("route:"));
        cancel.body.clear();
        cancel
    }

    pub fn branch(&self) -> String {
        parameter(&self.via, "branch").unwrap_or_default()
    }
}

/// A response as a UAS writes it: the Via, Record-Route, From, Call-ID and CSeq lines of the request, in order.
pub fn response(request: &Message, status: u16, tag: &str, extra: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status} Said by the test\r\n");
    for (name, value) in &request.headers {
        match name.as_str() {
            "via" | "record-route" | "from" | "call-id" | "cseq" => text += &format!("{name}: {value}\r\n"),
            "to" if status > 100 && parameter(value, "tag").is_none() => text += &format!("to: {value};tag={tag}\r\n"),
            "to" => text += &format!("to: {value}\r\n"),
            _ => {}
        }
    }
    for line in extra {
        text += &format!("{line}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut bytes = text.into_bytes();
    bytes.extend(body);
    bytes
}

/// The next datagram that is SIP, and not of another test: an address that the hostile ones mutate can be any in 127.0.0.0/8.
fn receive_datagram(socket: &UdpSocket, within: Duration) -> Option<Message> {
    let end = Instant::now() + within;
    let mut buffer = [0; 65536];
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        socket.set_read_timeout(Some(left)).expect("a time-out");
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && !is_of_another_place(socket, from)
            && let Some(message) = Message::read(&buffer[..length])
        {
            return Some(message);
        }
        if Instant::now() >= end {
            return None;
        }
    }
}

fn is_of_another_place(socket: &UdpSocket, from: SocketAddr) -> bool {
    let place = |address: SocketAddr| place::network(address.ip());
    let ours = socket.local_addr().ok().and_then(place);
    ours.is_some() && place(from).is_some() && place(from) != ours
}

/// A socket on `address`. One that was closed a moment ago may still be held by a child that another test is just starting: between fork and exec it
/// has all our sockets.
pub fn bind(address: SocketAddr) -> UdpSocket {
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        match UdpSocket::bind(address) {
            Ok(socket) => return socket,
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

/// A number that no other request of this run has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{:x}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
