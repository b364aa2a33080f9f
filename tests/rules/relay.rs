//! Two servers that share their location table: a phone that came to one of them by a connection, or from behind a NAT, is called
//! through it by the other.

use std::sync::Arc;

use strowger::base::{Channel, Flow, Instant, Transport};
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::location::{SharingTerms, Untold};
use strowger::stack::relay::RelayTokens;
use strowger::stack::settings::Settings;

use crate::bench::*;
use crate::message::Request;

const HOME: &str = "10.0.0.1:5060";
const OTHER: &str = "10.0.0.2:5060";
const NAT: &str = "198.51.100.7:40123";

struct Pair {
    home: Bench,
    other: Bench,
}

fn server(name: &str, at: &str, change: impl FnOnce(&mut Settings)) -> Bench {
    let wall_ms = 1_800_000_000_000;
    let terms = SharingTerms { node: name.into(), wall_ms, run: wall_ms, is_acknowledged: false };
    let listeners = vec![listener(at), strowger::stack::settings::Listener { transport: Transport::Tcp, ..listener(at) }];
    let mut bench = Bench::with_location(
        |location| location.with_sharing(terms),
        |settings| {
            settings.listeners = listeners;
            change(settings);
        },
    );
    let run = bench.location.shared().unwrap().own().cookie_run();
    bench.cores[0].share_nonces(Arc::new(Nonces::new(SECRET, run, 1000)));
    bench
}

/// One server sees a sign of life of another, which takes requests at this address.
fn meet(one: &Bench, other: &Bench, at: &str) {
    let own = other.location.shared().unwrap().own();
    one.location.shared().unwrap().node_seen(&own.name, Some(address(at)), Some(own.run));
}

fn connection() -> Flow {
    let channel = Channel::Connection { slot: 3, generation: 4 };
    Flow { transport: Transport::Tcp, channel, ..Flow::datagram(1, address(NAT)) }
}

impl Pair {
    fn new(change: impl Fn(&mut Settings)) -> Pair {
        let pair = Pair { home: server("home", HOME, &change), other: server("other", OTHER, &change) };
        meet(&pair.home, &pair.other, OTHER);
        meet(&pair.other, &pair.home, HOME);
        pair
    }

    /// Bob registers at home by a flow of his own, and the other server learns of it.
    fn register(&mut self, flow: Flow) {
        if let Channel::Connection { slot, generation } = flow.channel {
            self.home.live.enter(0, slot, generation);
        }
        let via = format!("SIP/2.0/{} 192.168.7.7:5060;rport;branch=z9hG4bKr{}", flow.transport.name(), crate::message::unique());
        let register = Request::new("REGISTER", "sip:example.com")
            .set("Via", &via)
            .from("<sip:bob@example.com>;tag=r")
            .to("<sip:bob@example.com>")
            .add("Contact: <sip:bob@192.168.7.7:5060>");
        assert_eq!(only(self.home.send_on(0, flow, register)).status(), 200);
        self.share();
    }

    fn share(&self) {
        let (home, other) = (self.home.location.shared().unwrap(), self.other.location.shared().unwrap());
        let (mut round, mut untold) = (home.begin_telling(), Untold::default());
        let tokens = RelayTokens::new(SECRET);
        while let Some(shard) = round.next_shard() {
            home.take_untold(shard, &mut untold, &mut |reached, flow, out| tokens.write(&home.own(), reached, flow, out));
        }
        for (position, row) in (1000 * crate::message::unique()..).zip(untold.iter()) {
            assert!(home.told(&row, position));
            other.take_in(Instant::from_ms(self.other.now), &row, true);
        }
        home.finish_telling(round.number);
    }

    /// Sends what left for the other server there.
    fn at_home(&mut self, sent: &Sent) -> Vec<Sent> {
        assert_eq!(sent.to, HOME, "{sent}");
        self.home.send(OTHER, &sent.bytes[..])
    }

    fn at_other(&mut self, sent: &Sent) -> Vec<Sent> {
        assert_eq!(sent.to, OTHER, "{sent}");
        self.other.send(HOME, &sent.bytes[..])
    }
}

fn invite() -> Request {
    Request::invite()
}

#[test]
fn a_call_goes_through_the_server_that_has_the_phone() {
    // Whether each knows the address of the other as its own, so that it may take its place when that is gone.
    for (flow, knows) in [connection(), Flow::datagram(0, address(NAT))].into_iter().flat_map(|flow| [(flow, false), (flow, true)])
    {
        let mut pair = Pair::new(|settings| {
            if knows {
                settings.domains.extend([b"10.0.0.1".to_vec(), b"10.0.0.2".to_vec()]);
            }
        });
        pair.register(flow);
        let sent = pair.other.send(ALICE, invite());
        let between = the(&sent, HOME).clone();
        assert_eq!(between.uri(), "sip:bob@192.168.7.7:5060");
        assert_eq!(between.all("Route").len(), 1, "{between}");
        let sent = pair.at_home(&between);
        let at_bob = the(&sent, NAT).clone();
        assert_eq!((at_bob.flow.transport, at_bob.uri()), (flow.transport, "sip:bob@192.168.7.7:5060"));
        assert!(at_bob.all("Route").is_empty(), "the token stays between the servers: {at_bob}");
        assert_eq!(at_bob.all("Record-Route").len(), if flow.transport == Transport::Udp { 2 } else { 3 });
        // The answer comes back by both, and so do the requests of the dialog.
        let answer = at_bob.answer(200).add("Contact: <sip:bob@192.168.7.7:5060>");
        let back = only(pair.home.send_on(0, flow, answer));
        let ok = only(pair.at_other(&back));
        assert_eq!((ok.to.as_str(), ok.status()), (ALICE, 200));
        let routes: Vec<String> = ok.all("Record-Route").iter().map(|route| route.to_string()).collect();
        let within = |method: &str, cseq: u32| {
            let request = Request::new(method, "sip:bob@192.168.7.7:5060").to(ok.header("To").unwrap());
            let request = request.call_id(ok.header("Call-ID").unwrap()).cseq(cseq);
            routes.iter().fold(request, |request, route| request.top(&format!("Route: {route}")))
        };
        let at_home = only(pair.other.send(ALICE, within("ACK", 1)));
        assert_eq!(only(pair.at_home(&at_home)).to, NAT);
        let at_home = the(&pair.other.send(ALICE, within("BYE", 2)), HOME).clone();
        let bye = the(&pair.at_home(&at_home), NAT).clone();
        assert_eq!((bye.method(), bye.flow.transport), ("BYE", flow.transport));
        let back = only(pair.home.send_on(0, flow, bye.answer(200)));
        assert_eq!(only(pair.at_other(&back)).to, ALICE);
        pair.home.assert_quiet();
        pair.other.assert_quiet();
        // When it is gone, the other takes its place, as far as it can.
        if knows {
            pair.other.location.shared().unwrap().node_gone(b"home", Instant::from_ms(pair.other.now));
            let sent = pair.other.send(ALICE, within("BYE", 3));
            assert!(to(&sent, HOME).is_empty(), "{}", show(&sent));
            assert!(sent.iter().any(|sent| sent.method() == "BYE"), "{}", show(&sent));
        }
    }
}

#[test]
fn strangers_cannot_use_the_token() {
    let mut pair = Pair::new(|_| ());
    pair.register(connection());
    let sent = pair.other.send(ALICE, invite());
    let between = the(&sent, HOME).clone();
    // Whoever has seen it, from elsewhere; and the other server with one that is not whole.
    let sent = pair.home.send("10.0.9.9:5060", &between.bytes[..]);
    assert!(to(&sent, NAT).is_empty(), "{}", show(&sent));
    let text = String::from_utf8(between.bytes.clone()).unwrap();
    let route = between.header("Route").unwrap();
    let user = route.split('@').next().unwrap().trim_start_matches("<sip:").to_owned();
    let last = if user.ends_with('0') { "1" } else { "0" };
    let forged = text.replace(&user, &format!("{}{last}", &user[..user.len() - 1])).replace("z9hG4bK", "z9hG4bKx");
    let sent = pair.home.send(OTHER, forged.as_bytes());
    assert!(to(&sent, NAT).is_empty(), "{}", show(&sent));
}

#[test]
fn a_phone_whose_connection_or_server_is_gone_is_passed_over() {
    let mut pair = Pair::new(|_| ());
    pair.register(connection());
    let request = invite();
    let sent = pair.other.send(ALICE, &request);
    let between = the(&sent, HOME).clone();
    pair.home.live.enter(0, 3, 0);
    let sent = pair.at_home(&between);
    let failed = the(&sent, OTHER).clone();
    assert_eq!(failed.status(), 430);
    let sent = pair.at_other(&failed);
    let answer = the(&sent, ALICE).clone();
    assert_eq!(answer.status(), 480, "{}", show(&sent));
    pair.other.send(ALICE, request.ack(&answer));
    pair.other.assert_quiet();
    // Nobody is sent there again, until the phone has registered by another connection.
    let sent = pair.other.send(ALICE, invite());
    assert_eq!(the(&sent, ALICE).status(), 480, "{}", show(&sent));
    assert!(to(&sent, HOME).is_empty());
    let channel = Channel::Connection { slot: 5, generation: 1 };
    pair.register(Flow { channel, ..connection() });
    assert_eq!(to(&pair.other.send(ALICE, invite()), HOME).len(), 1);
    // With the server itself nothing is tried.
    pair.other.location.shared().unwrap().node_gone(b"home", Instant::from_ms(pair.other.now));
    let sent = pair.other.send(ALICE, invite());
    assert_eq!(the(&sent, ALICE).status(), 480, "{}", show(&sent));
    assert!(to(&sent, HOME).is_empty());
}

#[test]
fn a_dead_flow_elsewhere_ends_no_fork() {
    let mut pair = Pair::new(|_| ());
    pair.register(connection());
    pair.other.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = invite();
    let sent = pair.other.send(ALICE, &request);
    let (between, at_bob) = (the(&sent, HOME).clone(), the(&sent, BOB).clone());
    pair.home.live.enter(0, 3, 0);
    let failed = the(&pair.at_home(&between), OTHER).clone();
    let sent = pair.at_other(&failed);
    assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
    let sent = pair.other.send(BOB, at_bob.answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
}

/// The caller has proved who it is where it called.
#[test]
fn nobody_is_asked_twice() {
    let mut pair = Pair::new(|settings| settings.auth.challenge_proxy = true);
    pair.register(connection());
    pair.other.know(&[]);
    let sent = pair.other.send(ALICE, invite().from("<sip:alice@elsewhere.example>;tag=x"));
    let between = the(&sent, HOME).clone();
    let as_ours = String::from_utf8(between.bytes.clone()).unwrap().replace("alice@elsewhere.example", "alice@example.com");
    let sent = pair.home.send(OTHER, as_ours.as_bytes());
    assert_eq!(to(&sent, NAT).len(), 1, "{}", show(&sent));
}

// ---- requests within a dialog, by whichever server ------------------------------------------------------------------------------

const THIRD: &str = "10.0.0.3:5060";
const SERVERS: [&str; 3] = [HOME, OTHER, THIRD];

/// What the servers call themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    /// Each by its own address.
    Own,
    /// Each by its own address, and all know those of all as theirs.
    All,
    /// All by one name.
    One,
}

/// Three servers with one table and one secret; what one sends to another arrives there.
struct Net(Vec<Bench>);

impl Net {
    fn new(names: Names) -> Net {
        let change = |settings: &mut Settings| {
            settings.auth.challenge_proxy = false;
            match names {
                Names::Own => {}
                Names::All => settings.domains.extend(SERVERS.map(|at| at.trim_end_matches(":5060").as_bytes().to_vec())),
                Names::One => settings.listeners.iter_mut().for_each(|one| one.advertise = b"sip.example.com:5060".to_vec()),
            }
        };
        let net = Net(["home", "other", "third"].iter().zip(SERVERS).map(|(name, at)| server(name, at, change)).collect());
        for (number, one) in net.0.iter().enumerate() {
            for (other, at) in net.0.iter().zip(SERVERS).enumerate().filter(|(other, _)| *other != number).map(|(_, pair)| pair) {
                meet(one, other, at);
            }
        }
        net
    }

    /// Carries what `sent` of server `from` has for other servers there. Returns what leaves for others, with the server that it leaves.
    fn carry(&mut self, from: usize, sent: Vec<Sent>) -> Vec<(usize, Sent)> {
        let (mut waiting, mut left, mut turns): (Vec<_>, Vec<_>, _) =
            (sent.into_iter().map(|sent| (from, sent)).collect(), Vec::new(), 0);
        while !waiting.is_empty() {
            turns += 1;
            assert!(turns < 50, "it goes round");
            let (from, sent) = waiting.remove(0);
            match SERVERS.iter().position(|at| *at == sent.to) {
                None => left.push((from, sent)),
                Some(to) => {
                    assert_ne!(from, to, "to itself: {sent}");
                    let next = self.0[to].send(SERVERS[from], &sent.bytes[..]);
                    waiting.extend(next.into_iter().map(|sent| (to, sent)));
                }
            }
        }
        left
    }
}

/// A phone of a call: the server that it has come to, and how.
#[derive(Clone, Copy)]
struct Phone {
    server: usize,
    flow: Flow,
    user: &'static str,
    contact: &'static str,
}

impl Phone {
    fn bob(flow: Flow) -> Phone {
        Phone { server: 0, flow, user: "bob", contact: "sip:bob@192.168.7.7:5060" }
    }

    fn alice(flow: Flow) -> Phone {
        Phone { server: 1, flow, user: "alice", contact: "sip:alice@192.168.9.9:5060" }
    }

    fn request(&self, method: &str, uri: &str, to: &str, call_id: &str, cseq: u32) -> Request {
        let via =
            format!("SIP/2.0/{} 192.168.9.9:5060;rport;branch=z9hG4bK{}", self.flow.transport.name(), crate::message::unique());
        Request::new(method, uri)
            .set("Via", &via)
            .from(&format!("<sip:{}@example.com>;tag=tag-{}", self.user, self.user))
            .to(to)
            .call_id(call_id)
            .cseq(cseq)
            .set("Contact", &format!("<{}>", self.contact))
    }

    /// Sends a request by another server than its own, by a flow that it opens there, if `by` says so.
    fn send(&self, net: &mut Net, by: usize, request: Request) -> Vec<(usize, Sent)> {
        let flow = match (by == self.server, self.flow.channel) {
            (false, Channel::Connection { .. }) => {
                net.0[by].live.enter(0, 9, 9);
                Flow { channel: Channel::Connection { slot: 9, generation: 9 }, ..self.flow }
            }
            _ => self.flow,
        };
        let sent = net.0[by].send_on(0, flow, request);
        net.carry(by, sent)
    }
}

/// What arrives at the phone, by its own server.
fn arrived(left: &[(usize, Sent)], phone: &Phone, what: &str) -> Sent {
    let at = phone.flow.peer.to_string();
    let found = left.iter().find(|(server, sent)| *server == phone.server && sent.to == at && sent.gist().starts_with(what));
    let seen: Vec<String> = left.iter().map(|(server, sent)| format!("{server} to {}: {}", sent.to, sent.start_line)).collect();
    found.unwrap_or_else(|| panic!("no {what} at {}: {seen:?}", phone.user)).1.clone()
}

/// A call from alice at "other" to bob at "home" has been answered. Returns what alice and what bob has of it: route set, and the
/// other side's To or From.
fn answered(net: &mut Net, alice: &Phone, bob: &Phone) -> [Vec<String>; 2] {
    for phone in [alice, bob] {
        if let Channel::Connection { slot, generation } = phone.flow.channel {
            net.0[phone.server].live.enter(0, slot, generation);
        }
    }
    let register = bob.request("REGISTER", "sip:example.com", "<sip:bob@example.com>", "registers", 1);
    assert_eq!(only(net.0[0].send_on(0, bob.flow, register)).status(), 200);
    let (home, tokens) = (net.0[0].location.clone(), RelayTokens::new(SECRET));
    let home = home.shared().unwrap();
    let (mut round, mut untold) = (home.begin_telling(), Untold::default());
    while let Some(shard) = round.next_shard() {
        home.take_untold(shard, &mut untold, &mut |reached, flow, out| tokens.write(&home.own(), reached, flow, out));
    }
    for (position, row) in (1..).zip(untold.iter()) {
        for other in &net.0[1..] {
            other.location.shared().unwrap().take_in(Instant::from_ms(other.now), &row, true);
        }
        assert!(home.told(&row, position));
    }
    home.finish_telling(round.number);
    let invite = alice.request("INVITE", "sip:bob@example.com", "<sip:bob@example.com>", "call", 1);
    let left = alice.send(net, 1, invite);
    let at_bob = arrived(&left, bob, "INVITE");
    let answer = at_bob.answer(200).tag("tag-bob").add(&format!("Contact: <{}>", bob.contact));
    let sent = net.0[0].send_on(0, bob.flow, answer);
    let left = net.carry(0, sent);
    let ok = arrived(&left, alice, "200");
    let routes = |text: &Sent| text.all("Record-Route").iter().map(|route| (*route).to_owned()).collect::<Vec<_>>();
    let mut of_alice = routes(&ok);
    of_alice.reverse();
    let [of_alice, of_bob] = [of_alice, routes(&at_bob)];
    let ack = within(alice, bob, "ACK", 1, &of_alice);
    let left = alice.send(net, 1, ack);
    arrived(&left, bob, "ACK");
    [of_alice, of_bob]
}

fn within(from: &Phone, to: &Phone, method: &str, cseq: u32, routes: &[String]) -> Request {
    let to_value = format!("<sip:{}@example.com>;tag=tag-{}", to.user, to.user);
    let request = from.request(method, to.contact, &to_value, "call", cseq);
    routes.iter().rev().fold(request, |request, route| request.top(&format!("Route: {route}")))
}

#[test]
fn requests_of_a_dialog_find_both_phones_through_any_server() {
    let bobs = [connection(), Flow::datagram(0, address(NAT))];
    let at_other = Flow { peer: address("198.51.100.99:50000"), ..connection() };
    let alices = [at_other, Flow::datagram(0, at_other.peer)];
    for names in [Names::Own, Names::All, Names::One] {
        for (bob, alice) in bobs.iter().flat_map(|bob| alices.iter().map(move |alice| (*bob, *alice))) {
            let what = format!("{names:?}, {:?}, {:?}", bob.transport, alice.transport);
            let (mut net, alice, bob) = (Net::new(names), Phone::alice(alice), Phone::bob(bob));
            let [of_alice, of_bob] = answered(&mut net, &alice, &bob);
            // By their own servers, and by another: after a failure of a balancer, or by DNS.
            let mut cseq = 1;
            for (method, by) in [("INFO", 1), ("UPDATE", 1), ("INVITE", 1), ("INFO", 2), ("UPDATE", 2), ("BYE", 1)] {
                cseq += 1;
                // The third goes by our names only where they are its own as well.
                if by == 2 && names == Names::Own {
                    continue;
                }
                let left = alice.send(&mut net, by, within(&alice, &bob, method, cseq, &of_alice));
                let at_bob = arrived(&left, &bob, method);
                let answer = at_bob.answer(200).add(&format!("Contact: <{}>", bob.contact));
                let sent = net.0[0].send_on(0, bob.flow, answer);
                let left = net.carry(0, sent);
                let back = left.iter().find(|(server, sent)| *server == by && sent.status() == 200);
                assert!(back.is_some(), "{what}: no answer to {method} by {by}: {left:?}");
            }
            cseq = 100;
            for (method, by) in [("INFO", 0), ("UPDATE", 0), ("INVITE", 0), ("INFO", 2), ("BYE", 0)] {
                cseq += 1;
                if by == 2 && names == Names::Own {
                    continue;
                }
                let left = bob.send(&mut net, by, within(&bob, &alice, method, cseq, &of_bob));
                let at_alice = arrived(&left, &alice, method);
                let answer = at_alice.answer(200).add(&format!("Contact: <{}>", alice.contact));
                let sent = net.0[1].send_on(0, alice.flow, answer);
                let left = net.carry(1, sent);
                let back = left.iter().find(|(server, sent)| *server == by && sent.status() == 200);
                assert!(back.is_some(), "{what}: no answer to {method} by {by}: {left:?}");
            }
        }
    }
}

fn register(cseq: u32, expires: u32) -> Request {
    Request::new("REGISTER", "sip:example.com")
        .from("<sip:bob@example.com>;tag=r")
        .to("<sip:bob@example.com>")
        .call_id("one-phone")
        .cseq(cseq)
        .add(&format!("Contact: <sip:bob@{BOB}>;expires={expires}"))
}

/// A phone leaves at a server that has not heard of its binding: wherever the two meet, the removal wins, and an older REGISTER changes
/// nothing about that.
#[test]
fn a_removal_of_what_is_not_known_yet_is_remembered() {
    let mut pair = Pair::new(|_| ());
    assert_eq!(only(pair.home.send(BOB, register(1, 600))).status(), 200);
    assert_eq!(only(pair.other.send(BOB, register(2, 0))).status(), 200);
    // A server of its own knows whom it has: nothing is remembered there.
    let mut alone = Bench::with_location(|location| location, |_| ());
    assert_eq!(only(alone.send(BOB, register(2, 0))).status(), 200);
    for (bench, remembered) in [(&mut alone, 0), (&mut pair.other, 1)] {
        bench.tick(120_000);
        // Each sweeps a part of the table.
        (0..4096).for_each(|_| _ = bench.location.sweep(Instant::from_ms(bench.now)));
        assert_eq!(bench.location.bindings(), remembered);
    }

    let is_bound = |bench: &mut Bench| !to(&bench.send(ALICE, invite()), BOB).is_empty();
    assert!(is_bound(&mut pair.home));
    // Another half of a minute, and an hour: the removal outlives what others may hold.
    pair.other.tick(3_600_000);
    pair.share();
    assert!(!is_bound(&mut pair.other), "the removal is newer, though it was first");
    std::mem::swap(&mut pair.home, &mut pair.other);
    pair.share();
    assert!(!is_bound(&mut pair.other), "and is told to where the binding was");
    // Its contact comes back with what is newer.
    assert_eq!(only(pair.home.send(BOB, register(3, 600))).status(), 200);
    assert!(is_bound(&mut pair.home));
}
