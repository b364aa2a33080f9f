//! A restart: the predecessor keeps its transactions and connections, the successor has all sockets. Here the two are joined by mail
//! that is carried in memory, and every core of either numbers those of the other behind its own.

use std::sync::Arc;
use strowger::base::{Channel, Errand, Flow, Instant, Transport, Transport::*};
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::counterpart::{Bequest, Counterpart, Predecessor};
use strowger::stack::counters::Drop;

use crate::bench::*;
use crate::message::{Request, Text};

const PHONE: &str = "10.0.1.2:40000";

struct Pair {
    old: Bench,
    new: Bench,
    cores: u8,
    /// Letters from one process to the other.
    letters: usize,
}

fn bench_of(pair: Option<&Bench>, cores: u8, run: u32, change: &impl Fn(&mut Settings)) -> Bench {
    let change = |settings: &mut Settings| {
        settings.cores = cores;
        settings.listeners = listeners();
        settings.limits.answer_factor = 0;
        change(settings);
    };
    let mut bench = match pair {
        None => Bench::with(change),
        Some(old) => Bench::over(old.location.clone(), &[SECRET], change),
    };
    let nonces = Arc::new(Nonces::new(SECRET, run, 64));
    bench.cores.iter_mut().for_each(|core| core.share_nonces(nonces.clone()));
    bench
}

impl Pair {
    /// A server on this many cores, and another that will take its place.
    fn new(cores: u8) -> Pair {
        Pair::with(cores, |_| ())
    }

    fn with(cores: u8, change: impl Fn(&mut Settings)) -> Pair {
        let old = bench_of(None, cores, 7, &change);
        let new = bench_of(Some(&old), cores, 8, &change);
        Pair { old, new, cores, letters: 0 }
    }

    /// The successor takes over; `connections` are those that the predecessor has.
    fn hand_over(&mut self, connections: &[Flow]) {
        self.new.now = self.old.now;
        let now = Instant::from_ms(self.old.now);
        let mut bequest = Bequest::default();
        for core in &mut self.old.cores {
            core.handle_counterpart(Some(Counterpart::Successor));
            let mut own = Bequest::default();
            core.bequeath(now, &mut own);
            bequest.add(own);
        }
        let listeners = (0..listeners().len() as u16).map(Some).collect();
        let predecessor = Arc::new(Predecessor::new(&bequest, listeners));
        for core in &mut self.new.cores {
            core.handle_counterpart(Some(Counterpart::Predecessor(predecessor.clone())));
            core.inherit(now, &bequest);
        }
        for flow in connections {
            self.new.live.enter_other(&flip(*flow, self.cores));
        }
    }

    fn at_old(&mut self, act: impl FnOnce(&mut Bench) -> Vec<Sent>) -> Vec<Sent> {
        let sent = act(&mut self.old);
        self.carry(sent)
    }

    fn at_new(&mut self, act: impl FnOnce(&mut Bench) -> Vec<Sent>) -> Vec<Sent> {
        let sent = act(&mut self.new);
        self.carry(sent)
    }

    /// Carries the letters until there are none; no message goes round for long.
    fn carry(&mut self, mut sent: Vec<Sent>) -> Vec<Sent> {
        let before = self.letters;
        loop {
            let (from_old, from_new) = (std::mem::take(&mut self.old.beyond), std::mem::take(&mut self.new.beyond));
            if from_old.is_empty() && from_new.is_empty() {
                return sent;
            }
            self.letters += from_old.len() + from_new.len();
            assert!(self.letters - before < 10, "letters without an end");
            for (letters, bench) in [(from_old, &mut self.new), (from_new, &mut self.old)] {
                for letter in letters {
                    let (core, flow) = (letter.core - self.cores, flip(letter.flow, self.cores));
                    let Some(errand) = letter.errand else {
                        assert!(bench.live.takes_answers(&flow), "sent on a connection that is gone");
                        let (to, text) = (flow.peer.to_string(), Text::new(&letter.bytes));
                        let at = bench.now;
                        sent.push(Sent { at, to, listener: flow.listener, flow, host: None, identity: 0, text });
                        continue;
                    };
                    assert_ne!(errand, Errand::Response { crossed: false });
                    bench.live.enter_other(&flow);
                    sent.extend(bench.mail(core, errand, flow, &letter.bytes));
                }
            }
        }
    }

    /// One of the predecessor's connections ends.
    fn lose(&mut self, flow: Flow) -> Vec<Sent> {
        let theirs = flip(flow, self.cores);
        let sent = self.at_old(|old| old.lose(flow));
        self.new.live.end_other(&theirs, false);
        sent.into_iter().chain(self.at_new(|new| new.lose_other(theirs))).collect()
    }

    /// The predecessor ends, and all that it has with it.
    fn end(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for core in &mut self.new.cores {
            core.handle_counterpart(None);
        }
        for core in 0..self.cores {
            for flow in self.new.live.forget_others(self.cores + core) {
                sent.extend(self.new.lose_other(flow));
            }
        }
        sent
    }

    fn tick(&mut self, ms: u64) -> Vec<Sent> {
        let sent = self.at_old(|old| old.tick(ms));
        sent.into_iter().chain(self.at_new(|new| new.tick(ms))).collect()
    }

    #[track_caller]
    fn assert_quiet(&mut self) {
        self.tick(600_000);
        self.old.assert_quiet();
        self.new.assert_quiet();
    }
}

/// To either process its own cores are the first.
fn flip(flow: Flow, cores: u8) -> Flow {
    match flow.channel {
        Channel::Datagram { .. } => flow,
        _ => Flow { core: (flow.core + cores) % (2 * cores), ..flow },
    }
}

fn register(transport: Transport) -> Request {
    Request::new("REGISTER", "sip:example.com")
        .via("10.0.1.2:5060", &format!("z9hG4bKreg{}", crate::message::unique()))
        .by(transport)
        .from("<sip:bob@example.com>;tag=r")
        .to("<sip:bob@example.com>")
        .add("Contact: <sip:bob@10.0.1.2:5060;transport=tcp>")
}

/// The request of a dialog, sent by the caller (Alice) along the route of her 200.
fn within(method: &str, ok: &Sent, number: u32) -> Request {
    let request = Request::new(method, "sip:bob@10.0.1.2:5060;transport=tcp")
        .to(ok.header("To").unwrap())
        .call_id(ok.header("Call-ID").unwrap())
        .cseq(number);
    request.top(&format!("Route: {}", ok.header("Record-Route").unwrap()))
}

fn bob_answers(at_bob: &Sent, status: u16) -> crate::message::Answer {
    at_bob.answer(status).add("Contact: <sip:bob@10.0.1.2:5060;transport=tcp>")
}

fn both(test: impl Fn(&mut Pair, usize)) {
    for cores in [1, 2] {
        for core in 0..cores {
            test(&mut Pair::new(cores), usize::from(core));
        }
    }
}

/// Alice calls Bob, who has registered by UDP, on core `by` of the predecessor.
fn invited(p: &mut Pair, by: usize) -> (Request, Sent) {
    p.old.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::invite();
    let sent = p.old.send_by(by, 0, ALICE, &request);
    (request, the(&sent, BOB).clone())
}

// ---- transactions of the predecessor ---------------------------------------------------------------------------------------

#[test]
fn a_call_that_rings_is_answered_by_the_process_that_began_it() {
    both(|p, by| {
        let (_, at_bob) = invited(p, 0);
        p.hand_over(&[]);
        let ringing = only(p.at_new(|new| new.send_by(by, 0, BOB, at_bob.answer(180))));
        assert_eq!((ringing.status(), ringing.to.as_str()), (180, ALICE));
        let ok = only(p.at_new(|new| new.send_by(by, 0, BOB, at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>"))));
        assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
        // Along the route, and from a caller that shows none.
        let ack = within("ACK", &ok, 1).bytes();
        let ack = String::from_utf8(ack).unwrap().replacen(";transport=tcp", "", 1);
        assert_eq!(only(p.at_new(|new| new.send_by(by, 0, ALICE, ack.as_bytes()))).to, BOB);
        let bare = Request::new("ACK", "sip:bob@example.com").to(ok.header("To").unwrap()).call_id(ok.header("Call-ID").unwrap());
        assert_eq!(only(p.at_new(|new| new.send_by(by, 0, ALICE, bare))).to, BOB);
        assert_eq!(p.new.server_transactions() + p.new.client_transactions(), 0);
        // The callee repeats its 200: it has not heard the ACK.
        let again = only(p.at_new(|new| new.send_by(by, 0, BOB, at_bob.answer(200))));
        assert_eq!((again.status(), again.to.as_str()), (200, ALICE));
        p.assert_quiet();
        // When all is over, it belongs to nobody.
        assert!(p.at_new(|new| new.send_by(by, 0, BOB, at_bob.answer(200))).is_empty());
        assert_eq!(p.old.dropped(Drop::StrayResponse), 1);
    });
}

#[test]
fn a_repetition_is_absorbed_where_its_request_is() {
    both(|p, by| {
        let (request, at_bob) = invited(p, 0);
        p.at_old(|old| old.send(BOB, at_bob.answer(180)));
        p.hand_over(&[]);
        let sent = only(p.at_new(|new| new.send_by(by, 0, ALICE, &request)));
        assert_eq!((sent.status(), sent.to.as_str()), (180, ALICE));
        assert_eq!(p.new.server_transactions(), 0);
        let sent = p.at_new(|new| new.send_by(by, 0, BOB, at_bob.answer(486)));
        assert_eq!((the(&sent, ALICE).gist(), the(&sent, BOB).method()), ("486 INVITE".into(), "ACK"));
        let busy = the(&sent, ALICE).clone();
        assert!(p.at_new(|new| new.send_by(by, 0, ALICE, request.ack(&busy))).is_empty());
        assert!(to(&p.tick(20_000), ALICE).is_empty(), "the ACK has arrived");
        p.assert_quiet();
        // Its transaction has ended meanwhile: it is as new as any other, to the successor.
        let sent = p.at_new(|new| new.send_by(by, 0, ALICE, &request));
        assert_eq!(the(&sent, BOB).method(), "INVITE");
        assert_eq!((p.old.server_transactions(), p.new.server_transactions()), (0, 1));
    });
}

#[test]
fn a_cancel_finds_its_invite() {
    both(|p, by| {
        let (request, at_bob) = invited(p, 0);
        p.at_old(|old| old.send(BOB, at_bob.answer(180)));
        p.hand_over(&[]);
        let sent = p.at_new(|new| new.send_by(by, 0, ALICE, request.cancel()));
        assert_eq!((the(&sent, BOB).method(), the(&sent, ALICE).gist()), ("CANCEL", "200 CANCEL".into()));
        let cancel = the(&sent, BOB).clone();
        assert!(p.at_new(|new| new.send_by(by, 0, BOB, cancel.answer(200))).is_empty());
        let sent = p.at_new(|new| new.send_by(by, 0, BOB, at_bob.answer(487)));
        assert_eq!((the(&sent, ALICE).gist(), the(&sent, BOB).method()), ("487 INVITE".into(), "ACK"));
        let end = the(&sent, ALICE).clone();
        assert!(p.at_new(|new| new.send_by(by, 0, ALICE, request.ack(&end))).is_empty());
        p.assert_quiet();
    });
}

#[test]
fn what_neither_knows_ends_at_once() {
    both(|p, by| {
        let (_, at_bob) = invited(p, 0);
        p.hand_over(&[]);
        let request = Request::invite();
        for bench in 0..2 {
            let send = |message: Vec<u8>| move |bench: &mut Bench| bench.send_by(by, 0, ALICE, &message[..]);
            let (cancel, ack) = (request.cancel().bytes(), request.ack(&at_bob.text).bytes());
            let (cancelled, acked) = match bench {
                0 => (p.at_old(send(cancel)), p.at_old(send(ack))),
                _ => (p.at_new(send(cancel)), p.at_new(send(ack))),
            };
            assert_eq!(only(cancelled).gist(), "481 CANCEL");
            assert!(acked.is_empty());
        }
    });
}

// ---- connections of the predecessor ----------------------------------------------------------------------------------------

#[test]
fn a_new_request_on_an_old_connection_is_the_successors() {
    both(|p, by| {
        let phone = p.old.open(Tcp, by as u8, 3, PHONE);
        p.hand_over(&[phone]);
        p.new.register("alice", "<sip:alice@10.0.1.1:5060>");
        let request = Request::new("INVITE", "sip:alice@example.com").via("10.0.1.2:5060", "z9hG4bKphone").by(Tcp);
        let sent = p.at_old(|old| old.send_on(by, phone, &request));
        assert_eq!((the(&sent, PHONE).status(), the(&sent, PHONE).flow), (100, phone));
        let at_alice = the(&sent, ALICE).clone();
        let ok = only(p.at_new(|new| new.send(ALICE, at_alice.answer(200))));
        assert_eq!((ok.status(), ok.flow), (200, phone));
        // The repetition of a client that is asked for none on a connection, and the CANCEL that comes too late.
        assert_eq!(only(p.at_old(|old| old.send_on(by, phone, request.cancel()))).flow, phone);
        assert_eq!(p.old.server_transactions(), 0);
        p.assert_quiet();
    });
}

#[test]
fn a_phone_registers_on_an_old_connection_and_is_called_there() {
    both(|p, by| {
        let phone = p.old.open(Tcp, by as u8, 3, PHONE);
        p.hand_over(&[phone]);
        let answer = only(p.at_old(|old| old.send_on(by, phone, register(Tcp))));
        assert_eq!((answer.status(), answer.flow), (200, phone));
        let sent = p.at_new(|new| new.send(ALICE, Request::invite()));
        let at_bob = the(&sent, PHONE).clone();
        assert_eq!((at_bob.method(), at_bob.flow), ("INVITE", phone));
        let ok = only(p.at_old(|old| old.send_on(by, phone, bob_answers(&at_bob, 200))));
        assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
        for (method, number) in [("ACK", 1), ("INFO", 2), ("BYE", 3)] {
            let sent = only(p.at_new(|new| new.send(ALICE, within(method, &ok, number))));
            assert_eq!((sent.method(), sent.flow), (method, phone));
            if method != "ACK" {
                assert_eq!(only(p.at_old(|old| old.send_on(by, phone, sent.answer(200)))).to, ALICE);
            }
        }
        p.assert_quiet();
    });
}

/// A call that was set up before the handover between Alice, by UDP, and Bob, on a connection.
fn established(p: &mut Pair, by: usize) -> (Flow, Sent, Sent) {
    let phone = p.old.open(Tcp, by as u8, 3, PHONE);
    assert_eq!(only(p.old.send_on(by, phone, register(Tcp))).status(), 200);
    let sent = p.old.send(ALICE, Request::invite());
    let at_bob = the(&sent, PHONE).clone();
    let ok = only(p.old.send_on(by, phone, bob_answers(&at_bob, 200)));
    only(p.old.send(ALICE, within("ACK", &ok, 1)));
    (phone, at_bob, ok)
}

#[test]
fn a_dialog_goes_on_both_ways_over_an_old_connection() {
    both(|p, by| {
        let (phone, at_bob, ok) = established(p, by);
        p.hand_over(&[phone]);
        let sent = only(p.at_new(|new| new.send(ALICE, within("INFO", &ok, 2))));
        assert_eq!((sent.method(), sent.flow), ("INFO", phone));
        let answer = only(p.at_old(|old| old.send_on(by, phone, sent.answer(200))));
        assert_eq!((answer.status(), answer.to.as_str()), (200, ALICE));
        let bye = Request::new("BYE", "sip:alice@10.0.1.1:5060")
            .via("10.0.1.2:5060", "z9hG4bKbye")
            .by(Tcp)
            .from(&format!("{};tag=callee", at_bob.header("To").unwrap()))
            .to(at_bob.header("From").unwrap())
            .call_id(at_bob.header("Call-ID").unwrap())
            .top(&format!("Route: {}", at_bob.header("Record-Route").unwrap()));
        let at_alice = only(p.at_old(|old| old.send_on(by, phone, bye)));
        assert_eq!((at_alice.method(), at_alice.to.as_str()), ("BYE", ALICE));
        let answer = only(p.at_new(|new| new.send(ALICE, at_alice.answer(200))));
        assert_eq!((answer.status(), answer.flow), (200, phone));
        p.assert_quiet();
    });
}

#[test]
fn an_old_connection_that_ends_takes_its_requests_along() {
    both(|p, by| {
        let (phone, _, ok) = established(p, by);
        p.hand_over(&[phone]);
        only(p.at_new(|new| new.send(ALICE, within("BYE", &ok, 2))));
        let sent = p.lose(phone);
        assert_eq!(only(sent).status(), 500);
        // From now on it is gone to the successor too.
        let sent = p.at_new(|new| new.send(ALICE, within("BYE", &ok, 3)));
        assert!(sent.iter().all(|sent| sent.flow != phone), "{}", show(&sent));
        p.assert_quiet();
    });
}

#[test]
fn with_the_predecessor_its_connections_and_transactions_end() {
    both(|p, by| {
        let (phone, _, ok) = established(p, by);
        p.hand_over(&[phone]);
        only(p.at_new(|new| new.send(ALICE, within("INFO", &ok, 2))));
        assert_eq!(only(p.end()).status(), 500);
        let sent = p.new.send(ALICE, within("BYE", &ok, 3));
        assert!(sent.iter().all(|sent| sent.flow.core < p.cores), "{}", show(&sent));
        assert!(p.new.beyond.is_empty());
        // What was the predecessor's is now like anything of an earlier run.
        assert_eq!(only(p.new.send(ALICE, Request::invite().cancel())).gist(), "481 CANCEL");
        assert!(p.new.beyond.is_empty());
    });
}

#[test]
fn without_its_successor_the_predecessor_takes_nothing_new() {
    both(|p, by| {
        let (phone, _, _) = established(p, by);
        p.hand_over(&[phone]);
        for core in &mut p.old.cores {
            core.handle_counterpart(Some(Counterpart::Lost));
        }
        let answer = only(p.old.send_on(by, phone, register(Tcp)));
        assert_eq!((answer.status(), answer.flow), (503, phone));
        assert!(p.old.beyond.is_empty());
    });
}

#[test]
fn a_predecessor_whose_successor_did_not_start_serves_again() {
    both(|p, by| {
        let (phone, _, ok) = established(p, by);
        p.hand_over(&[phone]);
        for core in &mut p.old.cores {
            core.handle_counterpart(None);
        }
        assert_eq!(only(p.old.send_on(by, phone, register(Tcp))).status(), 200);
        let sent = only(p.old.send(ALICE, within("BYE", &ok, 2)));
        assert_eq!((sent.method(), sent.flow), ("BYE", phone));
        assert!(p.old.beyond.is_empty());
    });
}

#[test]
fn a_call_of_the_predecessor_over_its_connection_ends_there() {
    both(|p, by| {
        let phone = p.old.open(Tcp, by as u8, 3, PHONE);
        assert_eq!(only(p.old.send_on(by, phone, register(Tcp))).status(), 200);
        let request = Request::invite();
        let sent = p.old.send(ALICE, &request);
        let at_bob = the(&sent, PHONE).clone();
        p.hand_over(&[phone]);
        // The answer comes on the connection, the CANCEL by UDP.
        assert_eq!(only(p.at_old(|old| old.send_on(by, phone, bob_answers(&at_bob, 180)))).to, ALICE);
        let sent = p.at_new(|new| new.send_by(by, 0, ALICE, request.cancel()));
        assert_eq!((the(&sent, PHONE).method(), the(&sent, PHONE).flow), ("CANCEL", phone));
        let sent = p.at_old(|old| old.send_on(by, phone, at_bob.answer(487)));
        assert_eq!((the(&sent, ALICE).gist(), the(&sent, PHONE).method()), ("487 INVITE".into(), "ACK"));
        let end = the(&sent, ALICE).clone();
        assert!(p.at_new(|new| new.send_by(by, 0, ALICE, request.ack(&end))).is_empty());
        p.assert_quiet();
    });
}
