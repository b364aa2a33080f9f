//! Digest authentication (RFC 3261 §22, RFC 7616, RFC 8760): who is asked, what is accepted, and what is said to the others.

use std::sync::Arc;
use strowger::base::{Instant, Key};
use strowger::sip::Credentials;
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::auth::digest::{Algorithm, Hash, ha1, response};
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::auth::users::{Entry, Users};
use strowger::stack::counters::AuthOutcome;

use crate::bench::*;
use crate::message::{Request, Text, unique};

pub const REALM: &str = "example.com";

/// The proxy of example.com with alice (password "a") and bob (password "b").
pub fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut bench = Bench::with(change);
    bench.know(&[("alice", "a"), ("bob", "b")]);
    bench
}

pub fn registrar() -> Bench {
    bench(|settings| settings.auth.challenge_register = true)
}

pub fn proxy() -> Bench {
    let mut b = bench(|settings| settings.auth.challenge_proxy = true);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

impl Bench {
    pub fn know(&mut self, users: &[(&str, &str)]) {
        let mut known = Users::new(Key::new(3, 4), users.len());
        for (name, password) in users {
            let (name, realm) = (name.as_bytes(), REALM.as_bytes());
            let whole = [name, b"@", realm].concat();
            let hash = |algorithm, name| Some(ha1(algorithm, name, realm, password.as_bytes()));
            known.insert(&Entry {
                name,
                domain: realm,
                md5: hash(Algorithm::Md5, name),
                md5_whole: hash(Algorithm::Md5, &whole),
                sha256: hash(Algorithm::Sha256, name),
                sha512_256: None,
            });
        }
        let (known, shared) = (Arc::new(known), Arc::new(Nonces::new(Key::new(5, 6), 1, 1000)));
        for core in &mut self.cores {
            core.handle_users(known.clone());
            core.share_nonces(shared.clone());
        }
    }

    pub fn outcomes(&self, outcome: AuthOutcome) -> u64 {
        let count = |core: &strowger::stack::Endpoint| core.counters().auth[outcome as usize];
        self.cores.iter().map(count).sum()
    }
}

/// A parameter of a challenge, without its quotes.
pub fn said<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let rest = challenge.strip_prefix("Digest ")?;
    rest.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).map(|value| value.trim_matches('"'))
}

/// A client that answers challenges.
#[derive(Clone)]
pub struct Client {
    pub user: &'static str,
    pub password: &'static str,
    pub qop: Option<&'static str>,
    pub nc: u32,
    pub session: bool,
    pub uri: &'static str,
}

pub const BOBS: Client = Client { user: "bob", password: "b", qop: Some("auth"), nc: 1, session: false, uri: "sip:example.com" };

pub const ALICES: Client = Client { user: "alice", password: "a", uri: "sip:bob@example.com", ..BOBS };

impl Client {
    /// The value of (Proxy-)Authorization that answers a challenge.
    pub fn answer(&self, challenge: &str, method: &str, body: &str) -> String {
        let nonce = said(challenge, "nonce").expect("a nonce");
        let realm = said(challenge, "realm").expect("a realm");
        let algorithm = said(challenge, "algorithm").expect("an algorithm");
        let nc = format!("{:08x}", self.nc);
        let credentials = Credentials {
            username: self.user.as_bytes(),
            realm: realm.as_bytes(),
            nonce: nonce.as_bytes(),
            uri: self.uri.as_bytes(),
            response: b"",
            algorithm: None,
            cnonce: (self.qop.is_some() || self.session).then_some(&b"c"[..]),
            qop: self.qop.map(str::as_bytes),
            nc: self.qop.is_some().then_some(nc.as_bytes()),
        };
        let (function, _) = Algorithm::parse(algorithm.as_bytes()).expect("a known algorithm");
        let (user, realm_bytes) = (self.user.as_bytes(), realm.as_bytes());
        let secret = ha1(function, user, realm_bytes, self.password.as_bytes());
        let (method, body) = (method.as_bytes(), body.as_bytes());
        let hash: Hash = response(function, self.session, &secret, &credentials, method, body).expect("a response");
        let response = String::from_utf8(hash.hex().bytes().to_vec()).unwrap();
        let mut text = format!(
            "Digest username=\"{}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{}\", response=\"{response}\", algorithm={algorithm}{}",
            self.user,
            self.uri,
            if self.session { "-sess" } else { "" },
        );
        if let Some(qop) = self.qop {
            text += &format!(", qop={qop}, nc={nc}");
        }
        if credentials.cnonce.is_some() {
            text += ", cnonce=\"c\"";
        }
        text
    }
}

pub fn register() -> Request {
    let n = unique();
    Request::new("REGISTER", "sip:example.com")
        .via(BOB, &format!("z9hG4bKreg{n}"))
        .from("<sip:bob@example.com>;tag=b")
        .to("<sip:bob@example.com>")
        .call_id("bobs-phone")
        .cseq(n as u32)
        .add("Contact: <sip:bob@10.0.1.2:5060>")
}

fn challenges(answer: &Text) -> Vec<String> {
    let name = match answer.status() {
        401 => "WWW-Authenticate",
        407 => "Proxy-Authenticate",
        other => panic!("{other} is no challenge: {answer}"),
    };
    let found = answer.all(name);
    found.iter().map(|line| line.to_string()).collect()
}

/// The challenge for one algorithm.
pub fn challenge(answer: &Text, algorithm: &str) -> String {
    let all = challenges(answer);
    all.into_iter().find(|line| said(line, "algorithm") == Some(algorithm)).expect("a challenge for it")
}

#[track_caller]
pub fn ask(b: &mut Bench) -> Sent {
    let answer = b.send_for_one(BOB, register());
    assert_eq!(answer.status(), 401, "{answer}");
    answer
}

#[track_caller]
pub fn register_with(b: &mut Bench, client: &Client, challenge: &str) -> Sent {
    let line = client.answer(challenge, "REGISTER", "");
    b.send_for_one(BOB, register().add(&format!("Authorization: {line}")))
}

// ---- the registrar ---------------------------------------------------------------------------------------------------------

#[test]
fn a_register_is_asked_and_then_bound() {
    let mut b = registrar();
    let asked = ask(&mut b);
    let all = challenges(&asked);
    let algorithms: Vec<_> = all.iter().map(|line| said(line, "algorithm")).collect();
    assert_eq!(algorithms, [Some("SHA-256"), Some("MD5")], "in the order of the conf");
    for line in &all {
        assert_eq!(said(line, "realm"), Some(REALM));
        assert_eq!(said(line, "qop"), Some("auth,auth-int"));
        assert_eq!(said(line, "stale"), None);
    }
    assert_ne!(said(&all[0], "nonce"), said(&all[1], "nonce"));
    assert_eq!(asked.header("Contact"), None);
    for algorithm in ["SHA-256", "MD5"] {
        let answer = register_with(&mut b, &BOBS, &challenge(&asked, algorithm));
        assert_eq!(answer.status(), 200, "{algorithm}: {answer}");
        assert_eq!(answer.header("Contact"), Some("<sip:bob@10.0.1.2:5060>;expires=3600"));
    }
    assert_eq!(b.outcomes(AuthOutcome::Challenged), 1);
    assert_eq!(b.outcomes(AuthOutcome::Accepted), 2);
}

/// The flow of the studies' clients: MD5, no qop, a new nonce each time.
#[test]
fn clients_without_qop_are_served_once_for_each_nonce() {
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.auth.algorithms = vec![Algorithm::Md5];
        settings.auth.qop = false;
    });
    let old = Client { qop: None, ..BOBS };
    let asked = challenge(&ask(&mut b), "MD5");
    assert_eq!(said(&asked, "qop"), None);
    assert_eq!(register_with(&mut b, &old, &asked).status(), 200);
    let again = register_with(&mut b, &old, &asked);
    assert_eq!(again.status(), 401);
    let asked = challenge(&again, "MD5");
    assert_eq!(said(&asked, "stale"), Some("true"), "its one use is over");
    assert_eq!(register_with(&mut b, &old, &asked).status(), 200);
}

#[test]
fn every_way_to_compute_the_response_is_accepted() {
    let mut b = registrar();
    for algorithm in ["SHA-256", "MD5"] {
        for qop in [None, Some("auth"), Some("auth-int")] {
            for session in [false, true] {
                let asked = challenge(&ask(&mut b), algorithm);
                let client = Client { qop, session, ..BOBS };
                let answer = register_with(&mut b, &client, &asked);
                assert_eq!(answer.status(), 200, "{algorithm} {qop:?} {session}: {answer}");
            }
        }
    }
    // A phone that writes its whole address as its name.
    let asked = challenge(&ask(&mut b), "MD5");
    let whole = Client { user: "bob@example.com", ..BOBS };
    assert_eq!(register_with(&mut b, &whole, &asked).status(), 200);
}

#[test]
fn a_nonce_is_kept_and_counted_up_but_no_count_comes_twice() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    for nc in [1, 2, 3, 7, 5] {
        let client = Client { nc, ..BOBS };
        assert_eq!(register_with(&mut b, &client, &asked).status(), 200, "{nc}");
    }
    let replay = register_with(&mut b, &Client { nc: 5, ..BOBS }, &asked);
    assert_eq!(replay.status(), 401);
    assert_eq!(
        said(&challenge(&replay, "SHA-256"), "stale"),
        Some("true"),
        "the password is right: a phone takes the new nonce without a question"
    );
    assert_eq!(b.outcomes(AuthOutcome::Replayed), 1);
    assert_eq!(b.outcomes(AuthOutcome::Challenged), 1, "and no challenge but the first");
}

#[test]
fn a_replay_on_another_core_is_found_out() {
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.cores = 2;
    });
    let asked = challenge(&only(b.send_by(0, 0, BOB, register())), "SHA-256");
    let line = format!("Authorization: {}", BOBS.answer(&asked, "REGISTER", ""));
    let good = only(b.send_by(1, 0, BOB, register().add(&line)));
    assert_eq!(good.status(), 200, "a nonce is good on every core");
    let replayed = only(b.send_by(0, 0, BOB, register().add(&line)));
    assert_eq!(replayed.status(), 401);
}

#[test]
fn a_retransmission_is_no_replay() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "MD5");
    let line = format!("Authorization: {}", BOBS.answer(&asked, "REGISTER", ""));
    let request = register().add(&line);
    let first = b.send_for_one(BOB, request.clone());
    assert_eq!(first.status(), 200);
    let second = b.send_for_one(BOB, request);
    assert_eq!(second.status(), 200, "{second}");
    assert_eq!(b.outcomes(AuthOutcome::Replayed), 0);
}

#[test]
fn a_call_that_is_played_again_when_it_is_over_rings_nobody() {
    let mut b = proxy();
    let asked = call(&mut b);
    let invite = invite_with(&ALICES, &asked);
    let sent = b.send(ALICE, invite.clone());
    let refused = b.send(BOB, the(&sent, BOB).answer(486));
    b.send(ALICE, invite.ack(the(&refused, ALICE)));
    b.tick(60_000);
    let replayed = b.send_for_one(ALICE, invite);
    assert_eq!(replayed.status(), 407);
    assert_eq!(b.outcomes(AuthOutcome::Replayed), 1);
}

#[test]
fn an_old_nonce_is_stale_for_who_knows_the_password_and_only_then() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    b.tick(300_001);
    let stale = register_with(&mut b, &BOBS, &asked);
    assert_eq!(said(&challenge(&stale, "SHA-256"), "stale"), Some("true"));
    let wrong = Client { password: "x", ..BOBS };
    let refused = register_with(&mut b, &wrong, &asked);
    assert_eq!(said(&challenge(&refused, "SHA-256"), "stale"), None);
    let asked = challenge(&stale, "SHA-256");
    assert_eq!(register_with(&mut b, &BOBS, &asked).status(), 200);
    assert_eq!(b.outcomes(AuthOutcome::Stale), 1);
}

#[test]
fn what_is_wrong_is_asked_again_and_counted() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    let cases = [
        (Client { password: "x", ..BOBS }, AuthOutcome::WrongResponse),
        (Client { user: "carol", ..BOBS }, AuthOutcome::UnknownUser),
        (Client { user: "Bob", ..BOBS }, AuthOutcome::UnknownUser),
        (Client { user: "bob@example.net", ..BOBS }, AuthOutcome::UnknownUser),
        (Client { nc: 0, ..BOBS }, AuthOutcome::Malformed),
    ];
    for (client, outcome) in cases {
        let before = b.outcomes(outcome);
        let answer = register_with(&mut b, &client, &asked);
        assert_eq!(answer.status(), 401, "{outcome:?}");
        assert_eq!(answer.header("Contact"), None);
        assert_eq!(b.outcomes(outcome), before + 1, "{outcome:?}");
    }
    // Lines that no client of ours writes.
    let good = BOBS.answer(&asked, "REGISTER", "");
    let cases = [
        (good.replace("uri=", "x="), AuthOutcome::Malformed),
        (good.replace("SHA-256", "SHA-512-256"), AuthOutcome::Malformed),
        (good.replace("SHA-256", "SHA-1"), AuthOutcome::Malformed),
        (good.replace("SHA-256", "MD5"), AuthOutcome::WrongResponse),
        (good.replace("nc=00000001, ", ""), AuthOutcome::Malformed),
        (good.replace("qop=auth,", "qop=none,"), AuthOutcome::Malformed),
        (good.replace(&REALM.to_string(), "example.net"), AuthOutcome::Challenged),
        (good.replace(said(&asked, "nonce").unwrap(), "0123456789abcdef0123456789abcdef"), AuthOutcome::Challenged),
    ];
    for (line, outcome) in cases {
        assert_ne!(line, good, "{outcome:?}");
        let before = b.outcomes(outcome);
        let request = register().add(&format!("Authorization: {line}"));
        assert_eq!(b.send_for_one(BOB, request).status(), 401, "{line}");
        assert_eq!(b.outcomes(outcome), before + 1, "{line}");
    }
    assert_eq!(b.outcomes(AuthOutcome::Accepted), 0);
}

#[test]
fn credentials_for_no_uri_at_all_are_refused() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    for uri in ["", " ", "example.com", "sip:", "*"] {
        let answer = register_with(&mut b, &Client { uri, ..BOBS }, &asked);
        assert_eq!(answer.status(), 400, "{uri:?}");
    }
}

#[test]
fn nobody_registers_for_another() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "MD5");
    let alice = Client { uri: "sip:example.com", ..ALICES };
    let answer = register_with(&mut b, &alice, &asked);
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.header("WWW-Authenticate"), None);
    assert_eq!(b.outcomes(AuthOutcome::Forbidden), 1);
}

#[test]
fn a_realm_of_its_own_serves_all_domains() {
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.auth.realm = "example.com".to_owned();
        settings.domains.push(b"example.net".to_vec());
    });
    let request = || register().from("<sip:bob@example.net>;tag=b").to("<sip:bob@example.net>");
    let asked = challenge(&b.send_for_one(BOB, request()), "SHA-256");
    assert_eq!(said(&asked, "realm"), Some(REALM));
    let line = BOBS.answer(&asked, "REGISTER", "");
    let answer = b.send_for_one(BOB, request().add(&format!("Authorization: {line}")));
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_domain_is_the_same_in_any_case() {
    let mut b = registrar();
    let request = || register().to("<sip:bob@EXAMPLE.com>");
    let asked = challenge(&b.send_for_one(BOB, request()), "SHA-256");
    assert_eq!(said(&asked, "realm"), Some(REALM), "as the hashes were made");
    let line = BOBS.answer(&asked, "REGISTER", "");
    let answer = b.send_for_one(BOB, request().add(&format!("Authorization: {line}")));
    assert_eq!(answer.status(), 200);
}

#[test]
fn the_right_one_of_several_credentials_is_found() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    let line = BOBS.answer(&asked, "REGISTER", "");
    let other = line.replace(REALM, "example.org");
    let request = register()
        .add("Authorization: Basic Ym9iOmI=")
        .add(&format!("Authorization: {other}"))
        .add(&format!("Authorization: {line}"));
    assert_eq!(b.send_for_one(BOB, request).status(), 200);
}

#[test]
fn a_line_that_cannot_be_read_spoils_no_other() {
    let mut b = registrar();
    for broken in [
        "Digest username=\"x\", realm=\"example.org\"",
        "Digest realm=\"example.com\", nonce=\"0\", realm=\"example.org\"",
        "Digest realm=\"example.com",
        "Digest",
        "=",
        "",
    ] {
        let broken = format!("Authorization: {broken}");
        // Alone, or beside nothing but others' lines, it is refused.
        let before = b.outcomes(AuthOutcome::Malformed);
        let answer = b.send_for_one(BOB, register().add(&broken));
        let asked = challenge(&answer, "SHA-256");
        let good = BOBS.answer(&asked, "REGISTER", "");
        let other = format!("Authorization: {}", good.replace(REALM, "example.org"));
        for request in [register().add(&broken).add(&other), register().add(&other).add(&broken)] {
            let answer = b.send_for_one(BOB, request);
            assert_eq!(answer.status(), 401, "{broken}");
        }
        assert_eq!(b.outcomes(AuthOutcome::Malformed), before + 3, "{broken}");
        // Nor does it help who has the wrong password.
        let wrong = Client { password: "x", ..BOBS };
        let wrong = wrong.answer(&asked, "REGISTER", "");
        let request = register().add(&broken).add(&format!("Authorization: {wrong}"));
        let before = b.outcomes(AuthOutcome::WrongResponse);
        assert_eq!(b.send_for_one(BOB, request).status(), 401, "{broken}");
        assert_eq!(b.outcomes(AuthOutcome::WrongResponse), before + 1);
        for is_first in [true, false] {
            let asked = challenge(&ask(&mut b), "SHA-256");
            let good = BOBS.answer(&asked, "REGISTER", "");
            let good = format!("Authorization: {good}");
            let request = match is_first {
                true => register().add(&broken).add(&other).add(&good),
                false => register().add(&good).add(&broken),
            };
            assert_eq!(b.send_for_one(BOB, request).status(), 200, "{broken}");
        }
    }
}

#[test]
fn a_line_that_cannot_be_read_spoils_no_call() {
    for is_first in [true, false] {
        let mut b = proxy();
        let asked = call(&mut b);
        let good = ALICES.answer(&asked, "INVITE", "");
        let lines = [
            "Proxy-Authorization: Digest username=\"x\", realm=\"example.org\"".to_string(),
            format!("Proxy-Authorization: {good}"),
        ];
        let lines = match is_first {
            true => [&lines[0], &lines[1]],
            false => [&lines[1], &lines[0]],
        };
        let sent = b.send(ALICE, invite().add(lines[0]).add(lines[1]));
        let at_bob = the(&sent, BOB);
        let left = at_bob.all("Proxy-Authorization");
        assert_eq!(left, ["Digest username=\"x\", realm=\"example.org\""]);
    }
}

/// bob with both hashes, alice with MD5 alone, as another server's users are imported; carol with SHA-256 alone; dave with one that
/// is not offered.
pub fn know_users_of_every_kind(b: &mut Bench) {
    let mut users = Users::new(Key::new(3, 4), 4);
    let hash = |algorithm, name| Some(ha1(algorithm, name, b"example.com", b"b"));
    let (md5, sha256) = (|name| hash(Algorithm::Md5, name), |name| hash(Algorithm::Sha256, name));
    let entry = |name| Entry { name, domain: b"example.com", ..Entry::default() };
    users.insert(&Entry { md5: md5(b"bob"), sha256: sha256(b"bob"), ..entry(b"bob") });
    users.insert(&Entry { md5: md5(b"alice"), ..entry(b"alice") });
    users.insert(&Entry { sha256: sha256(b"carol"), ..entry(b"carol") });
    users.insert(&Entry { sha512_256: hash(Algorithm::Sha512_256, b"dave"), ..entry(b"dave") });
    users.insert(&Entry { md5_whole: md5(b"erin@example.com"), ..entry(b"erin") });
    b.cores[0].handle_users(Arc::new(users));
}

/// What a challenge offers, in its order.
fn offered(answer: &Text) -> Vec<String> {
    challenges(answer).iter().map(|line| said(line, "algorithm").expect("an algorithm").to_owned()).collect()
}

#[test]
fn each_user_is_offered_what_it_has_hashes_for_whatever_others_have() {
    let mut b = registrar();
    know_users_of_every_kind(&mut b);
    let asked = |b: &mut Bench, to: &str| b.send_for_one(BOB, register().to(to));
    for (to, expected) in [
        ("<sip:bob@example.com>", &["SHA-256", "MD5"][..]),
        ("<sip:b%6Fb@EXAMPLE.com.:5070;x=y>", &["SHA-256", "MD5"]),
        ("<sip:alice@example.com>", &["MD5"]),
        ("<sip:al%69ce@Example.com.>", &["MD5"]),
        ("<sip:erin@example.com>", &["MD5"]),
        ("<sip:carol@example.com>", &["SHA-256"]),
        // It could answer nothing of what the conf says: it is as one that does not exist.
        ("<sip:dave@example.com>", &["SHA-256", "MD5"]),
        ("<sip:nobody@example.com>", &["SHA-256", "MD5"]),
        ("<sip:example.com>", &["SHA-256", "MD5"]),
    ] {
        let answer = asked(&mut b, to);
        assert_eq!((answer.status(), offered(&answer)), (401, expected.iter().map(|one| (*one).to_owned()).collect()), "{to}");
    }
    // Of another name as long as any, or longer.
    for len in [255, 256, 600] {
        let answer = asked(&mut b, &format!("<sip:{}@example.com>", "n".repeat(len)));
        assert_eq!(offered(&answer), ["SHA-256", "MD5"], "{len}");
    }
    let answer = ask(&mut b);
    let first = challenges(&answer).swap_remove(0);
    assert_eq!(register_with(&mut b, &BOBS, &first).status(), 200, "bob by SHA-256");
}

#[test]
fn the_order_and_the_choice_are_the_confs_for_every_user() {
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.auth.algorithms = vec![Algorithm::Md5, Algorithm::Sha256];
    });
    know_users_of_every_kind(&mut b);
    assert_eq!(offered(&ask(&mut b)), ["MD5", "SHA-256"]);
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.auth.algorithms = vec![Algorithm::Sha256];
    });
    know_users_of_every_kind(&mut b);
    let alice = b.send_for_one(BOB, register().to("<sip:alice@example.com>"));
    assert_eq!(offered(&alice), ["SHA-256"], "what the conf does not say is offered to nobody");
}

#[test]
fn a_caller_is_offered_what_it_has_hashes_for() {
    let mut b = proxy();
    know_users_of_every_kind(&mut b);
    let asked = |b: &mut Bench, from: &str| {
        let n = unique();
        let invite = invite().via(ALICE, &format!("z9hG4bKcall{n}")).from(&format!("{from};tag=a")).call_id(&format!("call{n}"));
        let sent = b.send(ALICE, invite);
        let answer = sent.iter().find(|sent| sent.status() == 407).expect("a challenge");
        offered(answer)
    };
    assert_eq!(asked(&mut b, "<sip:alice@example.com>"), ["MD5"]);
    assert_eq!(asked(&mut b, "<sip:bob@example.com>"), ["SHA-256", "MD5"]);
    assert_eq!(asked(&mut b, "<sip:nobody@example.com>"), ["SHA-256", "MD5"]);
}

/// RFC 3261 §16.5: who exists and is not there is 480, who does not exist 404; before it has ever registered, and long after.
#[test]
fn a_user_of_ours_without_a_phone_is_480_and_a_name_that_does_not_exist_404() {
    let called = |b: &mut Bench, method: &str, uri: &str| {
        let n = unique();
        let request = Request::new(method, uri).via(ALICE, &format!("z9hG4bKaway{n}")).call_id(&format!("away{n}"));
        b.send_for_one(ALICE, request).status()
    };
    let mut b = registrar();
    for method in ["INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE"] {
        assert_eq!(called(&mut b, method, "sip:bob@example.com"), 480, "{method}");
        assert_eq!(called(&mut b, method, "sip:nobody@example.com"), 404, "{method}");
    }
    for uri in ["sip:b%6Fb@EXAMPLE.com;x=y", "sip:bob@example.com:5060"] {
        assert_eq!(called(&mut b, "MESSAGE", uri), 480, "{uri}");
    }
    for uri in ["sip:Bob@example.com", "sip:bob@10.0.0.1"] {
        assert_eq!(called(&mut b, "MESSAGE", uri), 404, "{uri}");
    }
    b.location.add(Default::default(), b"bob@example.com", b"sip:bob@10.0.1.2:5060", 1).unwrap();
    b.location.add(Default::default(), b"guest@example.com", b"sip:guest@10.0.1.2:5060", 1).unwrap();
    for _ in 0..3 {
        b.tick(100_000);
        for _ in 0..2000 {
            b.location.sweep_some(Instant::from_ms(b.now));
        }
    }
    // Without a password the registrar knows only whom it has seen of late.
    assert_eq!((called(&mut b, "MESSAGE", "sip:bob@example.com"), called(&mut b, "MESSAGE", "sip:guest@example.com")), (480, 404));
}

// ---- the proxy -------------------------------------------------------------------------------------------------------------

pub fn invite() -> Request {
    Request::invite().from("<sip:alice@example.com>;tag=a")
}

#[track_caller]
pub fn call(b: &mut Bench) -> String {
    let answer = b.send_for_one(ALICE, invite());
    assert_eq!(answer.status(), 407, "{answer}");
    challenge(&answer, "SHA-256")
}

pub fn invite_with(client: &Client, challenge: &str) -> Request {
    let line = client.answer(challenge, "INVITE", "");
    invite().add(&format!("Proxy-Authorization: {line}"))
}

#[test]
fn a_caller_of_ours_is_asked_without_a_trace() {
    let mut b = proxy();
    let before = b.server_transactions();
    let asked = call(&mut b);
    assert_eq!(b.server_transactions(), before, "a challenge costs no state");
    let sent = b.send(ALICE, invite_with(&ALICES, &asked));
    let at_bob = the(&sent, BOB);
    assert_eq!(at_bob.method(), "INVITE");
    assert_eq!(at_bob.header("Proxy-Authorization"), None, "consumed");
    b.assert_quiet();
}

#[test]
fn credentials_for_others_go_on() {
    let mut b = proxy();
    let asked = call(&mut b);
    let line = ALICES.answer(&asked, "INVITE", "");
    let other = format!("Proxy-Authorization: {}", line.replace(REALM, "example.org"));
    let sent = b.send(ALICE, invite_with(&ALICES, &asked).add(&other));
    let kept = the(&sent, BOB).all("Proxy-Authorization").join("\n");
    assert!(kept.contains("realm=\"example.org\"") && !kept.contains(REALM), "{kept}");
}

#[test]
fn nobody_calls_as_another_and_nobody_learns_who_is_there() {
    let mut b = proxy();
    let asked = call(&mut b);
    let bob = Client { uri: ALICES.uri, ..BOBS };
    let answer = b.send_for_one(ALICE, invite_with(&bob, &asked));
    assert_eq!(answer.status(), 403);
    let nobody = Request::new("INVITE", "sip:nobody@example.com").from("<sip:alice@example.com>;tag=a");
    assert_eq!(b.send_for_one(ALICE, nobody).status(), 407);
}

#[test]
fn who_calls_from_elsewhere_is_not_asked() {
    let mut b = proxy();
    let sent = b.send(ALICE, invite().from("<sip:alice@example.org>;tag=a"));
    assert_eq!(the(&sent, BOB).method(), "INVITE");
    let sent = b.send(ALICE, invite().from("<tel:+4930123456>;tag=a"));
    assert_eq!(the(&sent, BOB).method(), "INVITE");
}

#[test]
fn cancel_ack_and_what_is_in_the_dialog_are_not_asked() {
    let mut b = proxy();
    let asked = call(&mut b);
    let invite = invite_with(&ALICES, &asked);
    let sent = b.send(ALICE, invite.clone());
    let at_bob = the(&sent, BOB).clone();
    let ringing = b.send(BOB, at_bob.answer(180));
    assert_eq!(ringing.len(), 1);
    let cancelled = b.send(ALICE, invite.cancel());
    assert_eq!(the(&cancelled, ALICE).status(), 200);
    assert_eq!(the(&cancelled, BOB).method(), "CANCEL");
    let sent = b.send(BOB, at_bob.answer(487));
    assert_eq!(the(&sent, ALICE).status(), 487);
    assert!(b.send(ALICE, invite.ack(the(&sent, ALICE))).is_empty());

    let (routes, call_id) = dialog(&mut b);
    for (method, cseq) in [("ACK", 1), ("INFO", 2), ("BYE", 3)] {
        let request = in_dialog(method, &routes, &call_id).cseq(cseq);
        let sent = b.send(ALICE, request);
        assert_eq!(the(&sent, BOB).method(), method);
    }
}

#[test]
fn a_bye_is_asked_where_the_conf_wants_it() {
    let mut b = bench(|settings| {
        settings.auth.challenge_proxy = true;
        settings.auth.challenge_bye = true;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let (routes, call_id) = dialog(&mut b);
    let bye = || in_dialog("BYE", &routes, &call_id).cseq(3);
    let answer = b.send_for_one(ALICE, bye());
    let asked = challenge(&answer, "SHA-256");
    let client = Client { uri: "sip:bob@10.0.1.2:5060", ..ALICES };
    let line = client.answer(&asked, "BYE", "");
    let sent = b.send(ALICE, bye().add(&format!("Proxy-Authorization: {line}")));
    assert_eq!(the(&sent, BOB).method(), "BYE");
    let info = in_dialog("INFO", &routes, &call_id).cseq(4);
    assert_eq!(the(&b.send(ALICE, info), BOB).method(), "INFO");
}

/// A call that was let pass: the routes that the caller learns, and the Call-ID.
pub fn dialog(b: &mut Bench) -> (Vec<String>, String) {
    let asked = call(b);
    let sent = b.send(ALICE, invite_with(&ALICES, &asked));
    let at_bob = the(&sent, BOB).clone();
    let answer = at_bob.answer(200).tag("callee");
    let ok = b.send_for_one(BOB, answer.add("Contact: <sip:bob@10.0.1.2:5060>"));
    let routes = ok.all("Record-Route").iter().map(|r| r.to_string()).collect();
    (routes, ok.header("Call-ID").unwrap().to_string())
}

pub fn in_dialog(method: &str, routes: &[String], call_id: &str) -> Request {
    let mut request = Request::new(method, "sip:bob@10.0.1.2:5060")
        .from("<sip:alice@example.com>;tag=a")
        .to("<sip:bob@example.com>;tag=callee")
        .call_id(call_id);
    for route in routes {
        request = request.top(&format!("Route: {route}"));
    }
    request
}

#[test]
fn an_invite_that_comes_again_is_asked_once() {
    let mut b = proxy();
    let asked = call(&mut b);
    let invite = invite_with(&ALICES, &asked);
    assert_eq!(b.send(ALICE, invite.clone()).len(), 2, "100 and the INVITE");
    let again = b.send_for_one(ALICE, invite);
    assert_eq!(again.status(), 100);
    assert_eq!(b.outcomes(AuthOutcome::Accepted), 1);
}

#[test]
fn a_body_is_protected_by_auth_int() {
    let mut b = proxy();
    let asked = call(&mut b);
    let client = Client { qop: Some("auth-int"), ..ALICES };
    let line = client.answer(&asked, "INVITE", "v=0\r\n");
    let line = format!("Proxy-Authorization: {line}");
    let changed = b.send_for_one(ALICE, invite().add(&line).body("v=1\r\n"));
    assert_eq!(changed.status(), 407);
    let sent = b.send(ALICE, invite().add(&line).body("v=0\r\n"));
    assert_eq!(the(&sent, BOB).method(), "INVITE");
}
