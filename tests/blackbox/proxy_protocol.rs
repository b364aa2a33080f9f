//! HAProxy in front of TCP and TLS: the client that its header names is the peer; and what comes of headers where none, or another one, was meant.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::UAC;
use crate::agent::{Agent, Request};
use crate::calls::{by_call, callee};
use crate::message::Message;
use crate::openssl_tool::SClient;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SERVER, STRANGER, wait_for};
use crate::process::Process;
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp, listening};

const NAME: &str = "sip.example.test";

/// Where HAProxy listens, and where it connects from.
const BALANCER: u8 = 20;
const BALANCER_BEHIND: u8 = 21;

/// A machine behind it that is down.
const DOWN: u8 = 22;

const HEADER: &str = "strowger_proxy_header_failed_total";

struct HaProxy {
    process: Process,
    clear: SocketAddr,
    secure: SocketAddr,
}

impl HaProxy {
    /// With the conf of docs/clusters.md, at this place's addresses. `to_servers` stands for what it sends to them.
    fn start(place: &Place, to_servers: &str) -> HaProxy {
        let page = include_str!("../../docs/clusters.md");
        let (_, page) = page.split_once("```\nglobal\n").expect("a conf of HAProxy");
        let (text, _) = page.split_once("```").expect("its end");
        let mut text = format!("global\n{text}").replace("send-proxy-v2", to_servers);
        for (shown, host) in [("203.0.113.1", BALANCER), ("192.0.2.8", BALANCER_BEHIND), ("192.0.2.1", SERVER), ("192.0.2.2", DOWN)]
        {
            assert!(text.contains(shown), "{shown} in\n{text}");
            text = text.replace(&format!("{shown}:"), &format!("{}:", place.ip(host)));
            text = text.replace(&format!("{shown}\n"), &format!("{}\n", place.ip(host)));
        }
        let file = place.write("haproxy.cfg", &text).display().to_string();
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"].into_iter().find(|path| Path::new(path).exists());
        let program = Path::new(program.unwrap_or("haproxy"));
        let process = Process::start(place, "haproxy", program, &["-db", "-f", &file].map(str::to_owned), &[]);
        let mut proxy = HaProxy { process, clear: place.at(BALANCER), secure: place.at_port(BALANCER, 5061) };
        let ready = wait_for(Duration::from_secs(10), || {
            let serves = listening(proxy.clear) && listening(proxy.secure);
            (serves || proxy.process.exited().is_some()).then_some(serves)
        });
        assert_eq!(ready, Some(true), "HAProxy: {}\n{text}", proxy.process.stderr());
        for backend in ["strowger", "strowger_tls"] {
            proxy.expect(&format!("Server {backend}/two is DOWN"));
        }
        proxy
    }

    fn said(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    fn expect(&self, text: &str) {
        let found = wait_for(Duration::from_secs(20), || self.said().contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?} from HAProxy:\n{}", self.said());
    }
}

/// A server whose listeners for TCP and TLS take headers from HAProxy.
fn conf(place: &Place) -> (Conf, Authority) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(place).stream("tcp", place.at(SERVER)).tls(place, &[&certificate]);
    let balancer = format!("[\"{}\"]", place.ip(BALANCER_BEHIND));
    // Requests to HAProxy's address are for the servers behind it.
    let domains = format!("[\"example.test\", \"{}\"]", place.ip(BALANCER));
    (conf.proxy_protocol(&balancer).set("server", "domains", &domains).set("log", "level", "\"debug\""), authority)
}

/// Version 1.
fn line(client: &str, destination: SocketAddr) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let destination_ip = match client.is_ipv4() {
        true => destination.ip().to_string(),
        false => format!("::ffff:{}", destination.ip()),
    };
    let (ip, port, to) = (client.ip(), client.port(), destination.port());
    format!("PROXY {family} {ip} {destination_ip} {port} {to}\r\n").into_bytes()
}

/// A request to the server itself whose Via says nothing true.
fn options(agent: &Agent, server: &Server) -> Request {
    let mut request = agent.request("OPTIONS", &format!("sip:{}", server.address));
    request.via = request.via.replace(&agent.address.to_string(), "192.0.2.99:5099");
    request
}

/// The client that an answer or a copy names in the Via at `position`.
fn client_in(message: &Message, position: usize) -> String {
    let via = message.vias().remove(position);
    format!("{}:{}", via.received.unwrap_or_default(), via.rport.unwrap_or_default())
}

/// Whatever HAProxy writes in front: the client is seen by the rules, by operators and by phones that are called back.
fn the_client_is_the_peer(name: &str, to_servers: &str) {
    let place = Place::new(name);
    let (conf, authority) = conf(&place);
    let gateway = Agent::new(place.at(CALLEE), place.at(SERVER));
    let server = conf
        .route(&format!(
            "to_user_prefix = \"49\"\nfrom_source = [\"{}\"]\naction = \"relay\"\ntarget = [\"sip:{}\"]",
            place.ip(CALLER),
            gateway.address
        ))
        .start(&place);
    let haproxy = HaProxy::start(&place, to_servers);
    let trace = server.begin(&place, "trace", &["trace", "--json", "--peer", &place.ip(CALLER).to_string()]);
    let follows = wait_for(Duration::from_secs(10), || (server.stat(&place, "strowger_traces") > 0.0).then_some(()));
    assert!(follows.is_some(), "{}", trace.stderr());
    for is_secure in [false, true] {
        let caller = match is_secure {
            false => Agent::tcp(place.ip(CALLER), haproxy.clear),
            true => Agent::tls(place.ip(CALLER), haproxy.secure, &authority, NAME, None),
        };
        // `received` and `rport`, in the answer and in what is relayed by the route for this source.
        let answer = caller.ask(&options(&caller, &server));
        assert_eq!(answer.status(), Some(200));
        assert_eq!(client_in(&answer, 0), caller.address.to_string(), "{answer:?}");
        let call = caller.request("MESSAGE", &server.uri("4930"));
        caller.send(&call);
        let arrived = gateway.expect("MESSAGE", |message| message.is("MESSAGE") && message.call_id() == call.call_id);
        assert_eq!(client_in(&arrived, 1), caller.address.to_string(), "{arrived:?}");
        gateway.respond(&arrived, 200, &[]);
        assert_eq!(caller.final_for(&call).status(), Some(200));
        // What an operator sees: the client's end of the connection, and ours.
        let port = if is_secure { 5061 } else { 5060 };
        let ends = format!("\"from\":\"{}\",\"to\":\"{}\"", caller.address, place.at_port(SERVER, port));
        let is_traced = wait_for(Duration::from_secs(5), || trace.stdout().contains(&ends).then_some(()));
        assert!(is_traced.is_some(), "no {ends} in {}", trace.stdout());
        let shown = server.command(&place, &["connections"]).stdout;
        assert!(shown.contains(&caller.address.to_string()), "{shown}");
        assert!(!shown.contains(&place.ip(BALANCER_BEHIND).to_string()), "{shown}");
        // A phone is called by its connection.
        let register = caller.register(&server.address.to_string(), "phone", &format!("<{}>", caller.uri()), 600);
        assert_eq!(caller.ask(&register).status(), Some(200));
        let rung = gateway.request("MESSAGE", &server.uri("phone"));
        gateway.send(&rung);
        let arrived = caller.expect("MESSAGE", |message| message.is("MESSAGE") && message.call_id() == rung.call_id);
        caller.respond(&arrived, 200, &[]);
        assert_eq!(gateway.final_for(&rung).status(), Some(200));
    }
    // Another source does not get the route.
    let other = Agent::tcp(place.ip(STRANGER), haproxy.clear);
    assert_eq!(other.ask(&other.request("MESSAGE", &server.uri("4930"))).status(), Some(404));
    let mut s_client = SClient::connect(&place, haproxy.secure, &["-servername", NAME]);
    s_client.ask();
    s_client.leave();
    // Nothing was wrong with any of it, the checks among it.
    assert_eq!(server.stat(&place, HEADER), 0.0);
    let failed = "strowger_tls_handshakes_total{side=\"server\",kind=\"failed\"}";
    assert_eq!(server.stats(&place)[failed], 0.0);
    let balancer = place.ip(BALANCER_BEHIND).to_string();
    let log = server.log();
    let blamed: Vec<&str> = log.lines().filter(|line| line.contains(&balancer) && !line.contains(" DEBUG ")).collect();
    assert!(blamed.is_empty(), "{blamed:#?}");
    assert!(log.contains(&format!("PROXY header: from {}:", place.ip(CALLER))), "{log}");
    let own = match to_servers {
        "send-proxy" => format!("PROXY header: from {balancer}:"),
        _ => "PROXY header: its own connection".to_owned(),
    };
    assert!(log.contains(&own), "a check says that it is one: {log}");
    assert!(!haproxy.said().contains("/one is DOWN"), "{}", haproxy.said());
}

#[test]
fn haproxy_by_version_2_as_the_documentation_has_it() {
    the_client_is_the_peer("haproxy-v2", "send-proxy-v2");
}

#[test]
fn haproxy_by_version_2_with_a_checksum_and_more() {
    the_client_is_the_peer("haproxy-crc", "send-proxy-v2 proxy-v2-options crc32c,ssl,cert-cn,unique-id");
}

#[test]
fn haproxy_by_version_1() {
    the_client_is_the_peer("haproxy-v1", "send-proxy");
}

/// Whole calls by SIPp, over one connection and over one for each.
#[test]
fn calls_through_haproxy() {
    const CALLS: u32 = 40;
    let place = Place::new("haproxy-calls");
    let server = conf(&place).0.set("server", "cores", "[0]").start(&place);
    let haproxy = HaProxy::start(&place, "send-proxy-v2");
    let bob = place.at(CALLEE);
    server.bind(&place, "bob", bob);
    for transport in ["t1", "tn"] {
        let uas = callee(&place, "uas", CALLEE, bob).calls(CALLS).answer();
        Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
            .over(transport)
            .with(&["-r", "50"])
            .calls(CALLS)
            .call("bob", server.address, haproxy.clear)
            .succeed(CALLS);
        let calls = by_call(uas.succeed(CALLS).received());
        assert_eq!(calls.len(), CALLS as usize);
        for messages in calls.values() {
            assert_eq!(messages.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
            let client = messages[0].vias().remove(1);
            assert_eq!(client.received.unwrap_or(place.ip(CALLER).to_string()), place.ip(CALLER).to_string());
        }
    }
    assert_eq!(server.stat(&place, HEADER), 0.0);
}

/// A client that is over its limit is banned, and neither the balancer nor others behind it.
#[test]
fn limits_are_those_of_the_client() {
    let place = Place::new("haproxy-limits");
    let (conf, _) = conf(&place);
    let server = conf.set("limits", "requests_per_source", "20").set("limits", "ban", "\"60s\"").start(&place);
    let haproxy = HaProxy::start(&place, "send-proxy-v2");
    let [flooder, other] = [STRANGER, CALLER].map(|host| Agent::tcp(place.ip(host), haproxy.clear));
    assert_eq!(other.ask(&options(&other, &server)).status(), Some(200));
    for _ in 0..100 {
        if !flooder.try_send(&options(&flooder, &server).bytes()) {
            break;
        }
    }
    assert!(flooder.end(Duration::from_secs(5)).is_some(), "its connection is closed");
    server.expect_log(&[&format!("{} is banned for 1 minute", flooder.address.ip())]);
    let before = server.stat(&place, "strowger_connections_banned_total");
    let again = Agent::tcp(place.ip(STRANGER), haproxy.clear);
    assert!(again.end(Duration::from_secs(5)).is_some(), "and so is the next one");
    assert_eq!(server.stat(&place, "strowger_connections_banned_total"), before + 1.0);
    // By another connection too.
    for agent in [&other, &Agent::tcp(place.ip(CALLER), haproxy.clear)] {
        assert_eq!(agent.ask(&options(agent, &server)).status(), Some(200));
    }
    assert_eq!(server.stat(&place, "strowger_banned_sources"), 1.0);
    assert_eq!(server.stat(&place, HEADER), 0.0);
}

/// Written by hand: who may send a header, who must, and what becomes of the others.
#[test]
fn headers_from_where_they_are_not_meant_and_none_where_they_are() {
    let place = Place::new("haproxy-hand");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    let balancer = || Agent::tcp(place.ip(BALANCER_BEHIND), server.address);
    for client in ["192.0.2.7:50000", "[2001:db8::7]:50000"] {
        let agent = balancer();
        agent.send_bytes(&line(client, server.address));
        let answer = agent.ask(&options(&agent, &server));
        assert_eq!(answer.status(), Some(200));
        assert_eq!(client_in(&answer, 0).replace(['[', ']'], ""), client.replace(['[', ']'], ""), "{answer:?}");
    }
    // Without one, as before, over TCP and TLS.
    for agent in
        [Agent::tcp(place.ip(CALLER), server.address), Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None)]
    {
        let answer = agent.ask(&options(&agent, &server));
        assert_eq!(client_in(&answer, 0), agent.address.to_string(), "{answer:?}");
    }
    assert_eq!(server.stat(&place, HEADER), 0.0);
    // A header from elsewhere is no SIP, and no record of TLS.
    for (port, counter) in [(5060, "strowger_connections_unframed_total"), (5061, "strowger_tls_handshakes_total")] {
        let liar = Agent::tcp(place.ip(STRANGER), place.at_port(SERVER, port));
        let before = server.stat(&place, counter);
        liar.send_bytes(&[line("192.0.2.7:50000", server.address), options(&liar, &server).bytes()].concat());
        assert!(liar.end(Duration::from_secs(5)).is_some());
        assert!(!liar.log().iter().any(|answer| answer.status() == Some(200)), "{:?}", liar.log());
        assert_eq!(server.stat(&place, counter), before + 1.0, "{counter}");
    }
    assert_eq!(server.stat(&place, HEADER), 0.0);
    // None, or a wrong one, from where it must be: closed, with the balancer's address.
    let datagram = [b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".as_slice(), &[127; 12]].concat();
    for (bytes, why) in [
        (options(&balancer(), &server).bytes(), "no PROXY header: the connection begins with something else"),
        (b"PROXY TCP4 192.0.2.7\r\n".to_vec(), "no PROXY header: its line is not"),
        (datagram, "no PROXY header: it is for UDP"),
    ] {
        let before = server.stat(&place, HEADER);
        let log = server.log().len();
        let agent = balancer();
        agent.send_bytes(&bytes);
        assert!(agent.end(Duration::from_secs(5)).is_some());
        assert!(agent.log().is_empty(), "{:?}", agent.log());
        assert_eq!(server.stat(&place, HEADER), before + 1.0);
        server.expect_log_after(log, &["WARN", &format!("TCP from {}: closed", agent.address), why]);
        // One line a second.
        std::thread::sleep(Duration::from_millis(1200));
    }
}
