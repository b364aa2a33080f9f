//! Two servers that share their location table: a phone that came to one of them by a connection, or from behind a NAT, is called
//! through it by the other.

use strowger::base::{Channel, Flow, Instant, Transport};
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
    Bench::with_location(
        |location| location.with_sharing(terms),
        |settings| {
            settings.listeners = listeners;
            change(settings);
        },
    )
}

fn connection() -> Flow {
    let channel = Channel::Connection { slot: 3, generation: 4 };
    Flow { transport: Transport::Tcp, channel, ..Flow::datagram(1, address(NAT)) }
}

impl Pair {
    fn new(change: impl Fn(&mut Settings)) -> Pair {
        let pair = Pair { home: server("home", HOME, &change), other: server("other", OTHER, &change) };
        pair.home.location.shared().unwrap().node_seen(b"other", Some(address(OTHER)));
        pair.other.location.shared().unwrap().node_seen(b"home", Some(address(HOME)));
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
        for (position, row) in (1..).zip(untold.iter()) {
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
    for flow in [connection(), Flow::datagram(0, address(NAT))] {
        let mut pair = Pair::new(|_| ());
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
