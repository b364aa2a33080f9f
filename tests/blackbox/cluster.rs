//! Several servers with one location table, which meet in a Redis of the test's own.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Request};
use crate::exhaustion::Clock;
use crate::pki::{Authority, Certificate, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::redis::Redis;
use crate::server::{Conf, Server};

const PATIENCE: Duration = Duration::from_secs(20);
const DOMAIN: &str = "example.test";

/// Where Redis and the second server listen: in the place of the first, for a phone hears only its own.
const REDIS: u8 = 9;
const SECOND_SERVER: u8 = 20;

fn until(what: &str, mut test: impl FnMut() -> bool) {
    assert!(wait_for(PATIENCE, || test().then_some(())).is_some(), "never: {what}");
}

fn conf(place: &Place, redis: &Redis, node: &str) -> Conf {
    Conf::new(place).set("location", "shared", &redis.url()).set("location", "node", &format!("{node:?}")).set(
        "registrar",
        "database",
        "\"\"",
    )
}

/// A Redis and two servers, each with a folder of its own.
struct Two {
    a: Server,
    b: Server,
    redis: Redis,
    at_a: Place,
    at_b: Place,
    at_redis: Place,
}

impl Two {
    fn start(change: impl Fn(Conf) -> Conf) -> Two {
        let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
        let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
        let a = change(conf(&at_a, &redis, "a")).start(&at_a);
        let b = change(conf(&at_b, &redis, "b").only(at_a.at(SECOND_SERVER))).start(&at_b);
        Two { a, b, redis, at_a, at_b, at_redis }
    }

    fn knows(server: &Server, place: &Place, user: &str) -> bool {
        shows(server, place, user).is_some()
    }

    /// A phone that registers at the first server.
    fn phone(&self) -> Agent {
        self.phone_at(CALLEE)
    }

    fn phone_at(&self, host: u8) -> Agent {
        Agent::new(self.at_a.at(host), self.a.address)
    }
}

/// What a server shows of a user; `None` if nothing.
fn shows(server: &Server, place: &Place, user: &str) -> Option<String> {
    let outcome = server.command(place, &["ul", "show", &format!("{user}@{DOMAIN}")]);
    (outcome.code == Some(0)).then_some(outcome.stdout)
}

fn register(phone: &Agent, user: &str, expires: u32) -> Request {
    let contact = format!("<{}>", phone.uri());
    let request = phone.register(DOMAIN, user, &contact, expires);
    assert_eq!(phone.ask(&request).status(), Some(200));
    request
}

/// The same phone again: its Call-ID stays, its CSeq rises.
fn register_again(phone: &Agent, before: &Request, user: &str, expires: u32) -> Request {
    let contact = format!("<{}>", phone.uri());
    let request = Request { call_id: before.call_id.clone(), ..phone.register(DOMAIN, user, &contact, expires) };
    assert_eq!(phone.ask(&request).status(), Some(200));
    request
}

/// A call through this server reaches the phone.
fn call(server: &Server, from: &Place, phone: &mut Agent, user: &str) {
    let caller = Agent::new(from.at(CALLER), server.address);
    let invite = caller.request("INVITE", &format!("sip:{user}@{DOMAIN}"));
    caller.send(&invite);
    let registered_at = std::mem::replace(&mut phone.peer, server.address);
    let came = phone.expect("an INVITE", |message| message.method() == "INVITE");
    phone.accept(&came);
    let answer = caller.final_for(&invite);
    assert_eq!(answer.status(), Some(200));
    caller.acknowledge(&invite, &answer);
    phone.expect("an ACK", |message| message.method() == "ACK");
    phone.peer = registered_at;
}

#[test]
fn what_registers_at_one_is_called_through_the_other() {
    let two = Two::start(|conf| conf);
    let mut phone = two.phone();
    let first = register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&two.b, &two.at_b, "alice"));
    call(&two.b, &two.at_a, &mut phone, "alice");
    // A removal is seen as well, and so is what an operator binds at the other.
    register_again(&phone, &first, "alice", 0);
    until("gone at b", || !Two::knows(&two.b, &two.at_b, "alice"));
    let bound = two.b.command(&two.at_b, &["ul", "add", &format!("bob@{DOMAIN}"), "sip:bob@192.0.2.7"]);
    assert_eq!(bound.code, Some(0), "{bound:?}");
    until("bob at a", || Two::knows(&two.a, &two.at_a, "bob"));
    assert_eq!(two.a.stat(&two.at_a, "strowger_shared_up"), 1.0);
    assert_eq!(two.a.stat(&two.at_a, "strowger_shared_told_total"), 2.0);
    assert_eq!(two.a.stat(&two.at_a, "strowger_shared_untold"), 0.0);
}

/// Only the server that has a phone's connection reaches it: the other calls it through that one, and hears when it is gone.
#[test]
fn a_phone_on_a_connection_is_called_through_the_server_that_has_it() {
    let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
    let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    let key = at_a.path("cluster.key").display().to_string();
    let one_key = |conf: Conf| conf.set("server", "key_file", &format!("{key:?}"));
    let a = one_key(conf(&at_a, &redis, "a")).stream("tcp", at_a.at(SERVER)).start(&at_a);
    let b = one_key(conf(&at_b, &redis, "b").only(at_a.at(SECOND_SERVER))).start(&at_b);
    let phone = Agent::tcp(at_a.ip(CALLEE), a.address);
    register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&b, &at_b, "alice"));
    // A node knows the others by their signs of life, one a second.
    let caller = Agent::new(at_a.at(CALLER), b.address);
    until("called through a", || {
        let message = caller.request("MESSAGE", &format!("sip:alice@{DOMAIN}"));
        caller.send(&message);
        if let Some(came) = phone.receive(Duration::from_millis(300)) {
            phone.respond(&came, 200, &[]);
        }
        caller.final_for(&message).status() == Some(200)
    });
    let invite = caller.request("INVITE", &format!("sip:alice@{DOMAIN}"));
    caller.send(&invite);
    let came = phone.expect("an INVITE", |message| message.method() == "INVITE");
    assert!(came.all("route").is_empty(), "{came:?}");
    phone.accept(&came);
    let answer = caller.final_for(&invite);
    assert_eq!(answer.status(), Some(200));
    caller.acknowledge(&invite, &answer);
    phone.expect("an ACK", |message| message.method() == "ACK");
    let bye = caller.in_dialog("BYE", &invite, &answer);
    caller.send(&bye);
    let came = phone.expect("a BYE", |message| message.method() == "BYE");
    phone.respond(&came, 200, &[]);
    assert_eq!(caller.final_for(&bye).status(), Some(200));
    // The connection is gone, and then the server.
    drop(phone);
    until("not reached", || {
        let message = caller.request("MESSAGE", &format!("sip:alice@{DOMAIN}"));
        caller.ask(&message).status() == Some(480)
    });
    a.signal("KILL");
    until("passed over", || {
        let begun = Instant::now();
        let message = caller.request("MESSAGE", &format!("sip:alice@{DOMAIN}"));
        caller.ask(&message).status() == Some(480) && begun.elapsed() < Duration::from_millis(500)
    });
}

/// What the phone's refreshes bring is told once in several lifetimes.
#[test]
fn refreshes_are_not_told_one_by_one() {
    let two = Two::start(|conf| conf);
    let phone = two.phone();
    let mut last = register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&two.b, &two.at_b, "alice"));
    let before = two.redis.scripts(&two.at_redis);
    for _ in 0..20 {
        last = register_again(&phone, &last, "alice", 600);
    }
    register(&Agent::new(two.at_a.at(SECOND_CALLEE), two.a.address), "bob", 600);
    until("bob at b", || Two::knows(&two.b, &two.at_b, "bob"));
    assert_eq!(two.redis.scripts(&two.at_redis), before + 1, "bob, and none of the refreshes");
}

#[test]
fn what_has_expired_at_home_is_gone_everywhere() {
    let two = Two::start(|conf| conf.set("registrar", "min_expires", "\"1s\""));
    let phone = two.phone();
    register(&phone, "alice", 3);
    until("seen at b", || Two::knows(&two.b, &two.at_b, "alice"));
    until("gone at a", || !Two::knows(&two.a, &two.at_a, "alice"));
    until("gone at b", || !Two::knows(&two.b, &two.at_b, "alice"));
}

/// A third server reads what is there before it serves.
#[test]
fn a_server_that_joins_knows_everything_at_once() {
    let two = Two::start(|conf| conf);
    for number in 0..300 {
        let bound = two.a.command(&two.at_a, &["ul", "add", &format!("u{number}@{DOMAIN}"), "sip:u@192.0.2.7"]);
        assert_eq!(bound.code, Some(0), "{bound:?}");
    }
    until("all at b", || two.b.stat(&two.at_b, "strowger_bindings") == 300.0);
    let at_c = Place::new("node-c");
    let c = conf(&at_c, &two.redis, "c").start(&at_c);
    assert_eq!(c.stat(&at_c, "strowger_bindings"), 300.0);
    c.expect_log(&["300 bindings read"]);
}

/// Redis is stopped, and goes on: what was registered meanwhile is told then.
#[test]
fn while_redis_says_nothing_calls_and_registrations_go_on() {
    let two = Two::start(|conf| conf);
    let mut phone = two.phone();
    register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&two.b, &two.at_b, "alice"));
    two.redis.signal("STOP");
    let other = Agent::new(two.at_a.at(SECOND_CALLEE), two.a.address);
    register(&other, "bob", 600);
    two.a.expect_log(&["the location table is not shared", "does not answer in time", "calls and registrations go on"]);
    two.b.expect_log(&["the location table is not shared"]);
    assert_eq!(two.a.stat(&two.at_a, "strowger_shared_up"), 0.0);
    assert_eq!(two.a.stat(&two.at_a, "strowger_shared_untold"), 1.0);
    assert!(two.a.stat(&two.at_a, "strowger_shared_lag_seconds") > 1.0);
    call(&two.b, &two.at_a, &mut phone, "alice");
    two.redis.signal("CONT");
    until("bob at b", || Two::knows(&two.b, &two.at_b, "bob"));
    two.a.expect_log(&["the location table is shared again after"]);
    until("up", || two.a.stat(&two.at_a, "strowger_shared_up") == 1.0);
    assert_eq!(two.a.log().matches("the location table is not shared").count(), 1, "one line when it goes");
}

#[test]
fn acknowledged_registrations_are_refused_while_nobody_can_be_told() {
    let two = Two::start(|conf| conf.set("registrar", "durability", "\"acknowledged\""));
    let phone = two.phone();
    register(&phone, "alice", 600);
    assert!(!two.redis.ask(&two.at_redis, &["KEYS", "strowger:*:aor:alice@*"]).is_empty(), "it was told before the 200");
    two.redis.signal("STOP");
    let other = Agent::new(two.at_a.at(SECOND_CALLEE), two.a.address);
    let request = other.register(DOMAIN, "bob", &format!("<{}>", other.uri()), 600);
    let refused = other.ask(&request);
    assert_eq!(refused.status(), Some(503));
    assert!(refused.header("retry-after").is_some());
    two.a.expect_log(&["registrations are answered 503 until it is, calls go on"]);
    two.redis.signal("CONT");
    until("accepted again", || {
        let request = other.register(DOMAIN, "bob", &format!("<{}>", other.uri()), 600);
        other.ask(&request).status() == Some(200)
    });
    until("bob at b", || Two::knows(&two.b, &two.at_b, "bob"));
}

/// A new Redis at the same address has nothing: the servers tell it everything.
#[test]
fn a_redis_that_lost_everything_is_told_everything() {
    let Two { a, b, redis, at_a, at_b, at_redis } = Two::start(|conf| conf);
    let phone = Agent::new(at_a.at(CALLEE), a.address);
    let first = register(&phone, "alice", 600);
    let other = Agent::new(at_a.at(SECOND_CALLEE), b.address);
    register(&other, "bob", 600);
    let gone = Agent::new(at_a.at(30), a.address);
    let registered = register(&gone, "carol", 600);
    until("all known", || Two::knows(&b, &at_b, "alice") && Two::knows(&a, &at_a, "bob") && Two::knows(&b, &at_b, "carol"));
    let address = redis.address;
    redis.kill();
    a.expect_log(&["the location table is not shared"]);
    register_again(&gone, &registered, "carol", 0);
    register_again(&phone, &first, "alice", 600);
    let redis = Redis::start(&at_redis, address);
    until("all told", || redis.ask(&at_redis, &["KEYS", "strowger:*:aor:*"]).lines().count() == 3);
    until("shared again", || a.stat(&at_a, "strowger_shared_up") == 1.0 && b.stat(&at_b, "strowger_shared_up") == 1.0);
    until("the removal is known", || !Two::knows(&b, &at_b, "carol"));
    assert!(Two::knows(&b, &at_b, "alice") && Two::knows(&a, &at_a, "bob"));
    // What comes later is followed.
    let late = Agent::new(at_a.at(31), b.address);
    register(&late, "dave", 600);
    until("dave at a", || Two::knows(&a, &at_a, "dave"));
}

/// Somebody empties it while everybody is connected.
#[test]
fn a_redis_that_is_emptied_is_told_everything() {
    let two = Two::start(|conf| conf);
    let phone = two.phone();
    register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&two.b, &two.at_b, "alice"));
    two.redis.ask(&two.at_redis, &["FLUSHALL"]);
    until("told again", || !two.redis.ask(&two.at_redis, &["KEYS", "strowger:*:aor:alice@*"]).is_empty());
    // And it forgets the script.
    two.redis.ask(&two.at_redis, &["SCRIPT", "FLUSH"]);
    let other = Agent::new(two.at_a.at(SECOND_CALLEE), two.b.address);
    register(&other, "bob", 600);
    until("bob at a", || Two::knows(&two.a, &two.at_a, "bob"));
    assert_eq!(two.b.stat(&two.at_b, "strowger_shared_failures_total"), 0.0);
}

#[test]
fn a_redis_that_restarts_with_its_data_loses_nothing() {
    let [at_a, at_redis] = ["node-a", "redis"].map(Place::new);
    let redis = Redis::start_with(&at_redis, at_a.at_port(REDIS, 6379), &["--appendonly", "yes"]);
    let a = conf(&at_a, &redis, "a").start(&at_a);
    let phone = Agent::new(at_a.at(CALLEE), a.address);
    register(&phone, "alice", 600);
    until("told", || !redis.ask(&at_redis, &["KEYS", "strowger:*:aor:alice@*"]).is_empty());
    let (address, told) = (redis.address, a.stat(&at_a, "strowger_shared_told_total"));
    redis.kill();
    a.expect_log(&["the location table is not shared"]);
    let redis = Redis::start_with(&at_redis, address, &["--appendonly", "yes"]);
    a.expect_log_within(PATIENCE, &["1 bindings read", "0 that it does not have"]);
    until("up", || a.stat(&at_a, "strowger_shared_up") == 1.0);
    assert_eq!(a.stat(&at_a, "strowger_shared_told_total"), told, "nothing was told again");
    drop(redis);
}

/// It does not know its own bindings after that, but Redis does.
#[test]
fn a_server_that_was_killed_comes_back_with_all_bindings() {
    let Two { a, b, redis: _redis, at_a, at_b, at_redis: _place } = Two::start(|conf| conf);
    let mut phone = Agent::new(at_a.at(CALLEE), a.address);
    register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&b, &at_b, "alice"));
    a.signal("KILL");
    a.finish(PATIENCE);
    assert!(Two::knows(&b, &at_b, "alice"), "its phones can still be called");
    call(&b, &at_a, &mut phone, "alice");
    let a = conf(&at_a, &_redis, "a").start(&at_a);
    assert!(Two::knows(&a, &at_a, "alice"));
    call(&a, &at_a, &mut phone, "alice");
}

#[test]
fn two_servers_with_one_name_do_not_run() {
    let [at_a, at_b] = ["node-a", "node-b"].map(Place::new);
    let redis = Redis::start(&at_b, at_a.at_port(REDIS, 6379));
    let a = conf(&at_a, &redis, "same").start(&at_a);
    let file = conf(&at_b, &redis, "same").write(&at_b).display().to_string();
    let second = crate::process::run(&at_b, "second", crate::server::binary(), &["run", "-c", &file], PATIENCE);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another server that lives is called \"same\""), "{second:?}");
    // One that has stopped leaves its name at once.
    a.signal("TERM");
    assert_eq!(a.finish(PATIENCE).code, Some(0));
    let start = Instant::now();
    let _b = conf(&at_b, &redis, "same").start(&at_b);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn keys_of_others_are_left_alone() {
    let two = Two::start(|conf| conf.set("registrar", "durability", "\"acknowledged\""));
    // CRC-32 of the address, modulo 16, is its part.
    let bob = Agent::new(two.at_a.at(CALLEE), two.a.address);
    register(&bob, "bob", 600);
    until("told", || !two.redis.ask(&two.at_redis, &["KEYS", "strowger:*:aor:bob@*"]).is_empty());
    let key = two.redis.ask(&two.at_redis, &["KEYS", "strowger:*:aor:bob@*"]);
    two.redis.ask(&two.at_redis, &["DEL", &key]);
    two.redis.ask(&two.at_redis, &["SET", &key, "mine"]);
    let other = Agent::new(two.at_a.at(SECOND_CALLEE), two.a.address);
    let contact = format!("<{}>", other.uri());
    // What others cannot know of is not acknowledged.
    let again = || other.ask(&other.register(DOMAIN, "bob", &contact, 600));
    let refused = again();
    assert_eq!((refused.status(), refused.header("retry-after").is_some()), (Some(503), true));
    two.a.expect_log(&["bob@example.test", "is left alone and not used", "WRONGTYPE", &key, "answered 503"]);
    assert!(two.a.stat(&two.at_a, "strowger_shared_unusable_total") >= 1.0);
    register(&two.phone_at(40), "carol", 600);
    until("carol at b", || Two::knows(&two.b, &two.at_b, "carol"));
    assert_eq!(two.redis.ask(&two.at_redis, &["GET", &key]), "mine");
    two.redis.ask(&two.at_redis, &["DEL", &key]);
    assert_eq!(again().status(), Some(200));
    until("bob at b", || shows(&two.b, &two.at_b, "bob").is_some_and(|shown| shown.contains(&other.uri())));
}

#[test]
fn a_password_and_a_user_of_redis() {
    let [at_a, at_redis] = ["node-a", "redis"].map(Place::new);
    let redis = Redis::start_with(&at_redis, at_a.at_port(REDIS, 6379), &["--requirepass", "sesame"]);
    redis.ask(&at_redis, &["ACL", "SETUSER", "strowger", "on", ">open", "~strowger:*", "+@all", "-@admin", "-@dangerous", "+info"]);
    let file = |text: &str| format!("{:?}", at_a.write("redis.password", text).display().to_string());
    let wrong = conf(&at_a, &redis, "a").set("location", "password_file", &file("wrong\n")).start(&at_a);
    let said = wrong.expect_log(&["the location table is not shared", "WRONGPASS"]);
    assert!(!said.contains("wrong\n"), "{said}");
    drop(wrong);
    for (user, password) in [("", "sesame\n"), ("strowger", "open\n")] {
        let own = conf(&at_a, &redis, "a").set("location", "password_file", &file(password));
        let own = match user {
            "" => own,
            user => own.set("location", "user", &format!("{user:?}")),
        };
        let a = own.start(&at_a);
        let phone = Agent::new(at_a.at(CALLEE), a.address);
        register(&phone, "alice", 600);
        until("told", || a.stat(&at_a, "strowger_shared_told_total") == 1.0);
        a.signal("TERM");
        assert_eq!(a.finish(PATIENCE).code, Some(0));
    }
}

/// A change counts as told when so many replicas have it.
#[test]
fn replicas_must_have_what_is_acknowledged() {
    let [at_a, at_redis] = ["node-a", "redis"].map(Place::new);
    let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    let acknowledged = |place| conf(place, &redis, "a").set("registrar", "durability", "\"acknowledged\"");
    let a = acknowledged(&at_a).set("location", "replicas", "1").start(&at_a);
    let phone = Agent::new(at_a.at(CALLEE), a.address);
    let ask = || phone.ask(&phone.register(DOMAIN, "alice", &format!("<{}>", phone.uri()), 600)).status();
    assert_eq!(ask(), Some(503));
    a.expect_log(&["its primary has 0 replicas, [location] replicas wants 1", "5 s at most"]);
    a.expect_log(&["goes on with a primary that has 0 replicas"]);
    a.expect_log(&["0 replicas have it, [location] replicas wants 1"]);
    let (ip, port) = (redis.address.ip().to_string(), redis.address.port().to_string());
    let replica = Redis::start_with(&at_redis, at_a.at_port(REDIS, 6380), &["--replicaof", &ip, &port]);
    until("accepted", || ask() == Some(200));
    assert!(!replica.ask(&at_redis, &["KEYS", "strowger:*:aor:alice@*"]).is_empty());
}

#[test]
fn redis_is_spoken_to_over_tls_and_must_prove_who_it_is() {
    let [at_a, at_redis] = ["node-a", "redis"].map(Place::new);
    let authority = Authority::new(&at_redis, "an authority");
    let stranger = Authority::new(&at_a, "another authority");
    let own = at_a.ip(REDIS).to_string();
    let certificate = authority.issue(&at_redis, "redis", Kind::Ecdsa, &[&own]);
    let path = |path: &std::path::Path| path.display().to_string();
    let start = |certificate: &Certificate, plain: u16, tls: &str| {
        let [file, key, ca] = [&certificate.file, &certificate.key, &authority.file].map(|file| path(file));
        let own = ["--tls-port", tls, "--tls-cert-file", &file, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        Redis::start_with(&at_redis, at_a.at_port(REDIS, plain), &[&own[..], &["--tls-auth-clients", "no"]].concat())
    };
    let redis = start(&certificate, 6379, "6390");
    let _of_another_name = start(&authority.issue(&at_redis, "other", Kind::Ecdsa, &["redis.example.test"]), 6380, "6391");
    let secure = |port: u16, trusted: &Authority| {
        conf(&at_a, &redis, "a").set("location", "shared", &format!("\"rediss://{own}:{port}/0\"")).set(
            "tls",
            "trusted_ca",
            &format!("{:?}", path(&trusted.file)),
        )
    };
    // Not from whom we trust, and not for that host.
    for (port, trusted, why) in [(6390, &stranger, "self"), (6391, &authority, "IP address mismatch")] {
        let wrong = secure(port, trusted).start(&at_a);
        wrong.expect_log(&["the location table is not shared: its certificate is not accepted", why]);
    }
    let a = secure(6390, &authority).start(&at_a);
    let phone = Agent::new(at_a.at(CALLEE), a.address);
    register(&phone, "alice", 600);
    until("told", || !redis.ask(&at_redis, &["KEYS", "strowger:*:aor:alice@*"]).is_empty());
    assert_eq!(a.stat(&at_a, "strowger_shared_up"), 1.0);
}

/// The sentinels make a replica the primary, and the servers follow.
#[test]
fn when_the_primary_is_killed_its_successor_is_used() {
    let [at_a, at_b, at_redis, at_sentinel] = ["node-a", "node-b", "redis", "sentinel"].map(Place::new);
    let primary = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    let (ip, port) = (primary.address.ip().to_string(), primary.address.port().to_string());
    let announced = ["--replicaof", &ip, &port, "--replica-announce-ip", &ip];
    let replica = Redis::start_with(&at_redis, at_a.at_port(REDIS, 6380), &announced);
    until("replicated", || primary.ask(&at_redis, &["INFO", "replication"]).contains("state=online"));
    let _sentinel = Redis::sentinel(&at_sentinel, at_a.at_port(REDIS, 26379), primary.address);
    let shared = format!("\"redis-sentinel://{ip}:1,{ip}:26379/main/0\"");
    let conf_of = |place, node| conf(place, &primary, node).set("location", "shared", &shared);
    let a = conf_of(&at_a, "a").start(&at_a);
    let b = conf_of(&at_b, "b").only(at_a.at(SECOND_SERVER)).start(&at_b);
    let phone = Agent::new(at_a.at(CALLEE), a.address);
    register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&b, &at_b, "alice"));
    primary.kill();
    let other = Agent::new(at_a.at(SECOND_CALLEE), b.address);
    register(&other, "bob", 600);
    until("bob at a", || Two::knows(&a, &at_a, "bob"));
    until("told", || replica.ask(&at_redis, &["KEYS", "strowger:*:aor:*"]).lines().count() == 2);
    a.expect_log(&["redis-sentinel://", "the location table is shared again after"]);
    assert!(replica.ask(&at_redis, &["ROLE"]).starts_with("master"));
    assert!(Two::knows(&b, &at_b, "alice"));
}

/// Three servers of Redis with a third of the slots each.
#[test]
fn a_cluster_of_redis_keeps_the_parts_where_they_belong() {
    let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
    let servers: Vec<Redis> = (7000..7003)
        .map(|port| {
            let nodes = format!("nodes-{port}.conf");
            let ip = at_a.ip(REDIS).to_string();
            let extra = ["--cluster-enabled", "yes", "--cluster-config-file", &nodes, "--cluster-announce-ip", &ip];
            Redis::start_with(&at_redis, at_a.at_port(REDIS, port), &extra)
        })
        .collect();
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let mut words = vec!["--cluster", "create"];
    words.extend(addresses.iter().map(String::as_str));
    words.extend(["--cluster-yes", "--cluster-replicas", "0"]);
    let made = crate::process::run(&at_redis, "create", std::path::Path::new("redis-cli"), &words, PATIENCE);
    assert_eq!(made.code, Some(0), "{made:?}");
    until("agreed", || servers.iter().all(|server| server.ask(&at_redis, &["CLUSTER", "INFO"]).contains("cluster_state:ok")));
    let shared = format!("\"redis-cluster://{}\"", addresses[0]);
    let conf_of = |place, node| conf(place, &servers[0], node).set("location", "shared", &shared);
    let a = conf_of(&at_a, "a").start(&at_a);
    let b = conf_of(&at_b, "b").only(at_a.at(SECOND_SERVER)).start(&at_b);
    for number in 0..64 {
        let bound = a.command(&at_a, &["ul", "add", &format!("u{number}@{DOMAIN}"), "sip:u@192.0.2.7"]);
        assert_eq!(bound.code, Some(0), "{bound:?}");
    }
    until("all at b", || b.stat(&at_b, "strowger_bindings") == 64.0);
    for server in &servers {
        assert!(!server.ask(&at_redis, &["KEYS", "strowger:*:aor:*"]).is_empty(), "each has a share");
    }
    let at_c = Place::new("node-c");
    let c = conf_of(&at_c, "c").start(&at_c);
    assert_eq!(c.stat(&at_c, "strowger_bindings"), 64.0);
    assert_eq!(c.stat(&at_c, "strowger_shared_up"), 1.0);
    assert_eq!(a.stat(&at_a, "strowger_shared_failures_total"), 0.0);
}

/// Three primaries of a cluster, and a replica of the first.
fn cluster_of_four(at_a: &Place, at_redis: &Place) -> (Vec<Redis>, Vec<String>) {
    let ip = at_a.ip(REDIS).to_string();
    let servers: Vec<Redis> = (7000..7004)
        .map(|port| {
            let nodes = format!("nodes-{port}.conf");
            let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"];
            let extra = [&own[..], &["--cluster-config-file", &nodes, "--cluster-announce-ip", &ip]].concat();
            Redis::start_with(at_redis, at_a.at_port(REDIS, port), &extra)
        })
        .collect();
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let words =
        [&["create"], &addresses[..3].iter().map(String::as_str).collect::<Vec<_>>()[..], &["--cluster-replicas", "0"]].concat();
    manage(at_redis, &words);
    let agreed =
        |count: &[Redis]| count.iter().all(|server| server.ask(at_redis, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    until("agreed", || agreed(&servers[..3]));
    let first = servers[0].ask(at_redis, &["CLUSTER", "MYID"]);
    manage(at_redis, &["add-node", &addresses[3], &addresses[0], "--cluster-slave", "--cluster-master-id", &first]);
    until("replicated", || servers[0].ask(at_redis, &["INFO", "replication"]).contains("state=online"));
    until("agreed", || agreed(&servers));
    (servers, addresses)
}

fn manage(at_redis: &Place, words: &[&str]) {
    let words = [&["--cluster"], words, &["--cluster-yes"]].concat();
    let done = crate::process::run(at_redis, "manage", std::path::Path::new("redis-cli"), &words, Duration::from_secs(60));
    assert_eq!(done.code, Some(0), "{done:?}");
}

/// Slots move while bindings are told, and then a primary is killed: all that was and that comes is known everywhere.
#[test]
fn a_cluster_may_move_its_slots_and_lose_a_primary() {
    let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
    let (mut servers, addresses) = cluster_of_four(&at_a, &at_redis);
    let shared = format!("\"redis-cluster://{}\"", addresses.join(","));
    let conf_of = |place, node| conf(place, &servers[0], node).set("location", "shared", &shared);
    let a = conf_of(&at_a, "a").start(&at_a);
    let b = conf_of(&at_b, "b").only(at_a.at(SECOND_SERVER)).start(&at_b);
    let at_c = Place::new("node-c");
    let c = conf_of(&at_c, "c").only(at_a.at(30));
    let mut bound = 0;
    let mut bind = |count: usize| {
        for number in bound..bound + count {
            let added = a.command(&at_a, &["ul", "add", &format!("u{number}@{DOMAIN}"), "sip:u@192.0.2.7"]);
            assert_eq!(added.code, Some(0), "{added:?}");
        }
        bound += count;
        bound as f64
    };
    let all = bind(32);
    until("all at b", || b.stat(&at_b, "strowger_bindings") == all);
    // Slots of the third server go to the second, with what is in them. It keeps some, and so its vote about the failover.
    let held = || servers[2].ask(&at_redis, &["KEYS", "strowger:*:aor:*"]).lines().count();
    let (before, third) = (held(), servers[2].ask(&at_redis, &["CLUSTER", "MYID"]));
    let second = servers[1].ask(&at_redis, &["CLUSTER", "MYID"]);
    let some = ["reshard", &addresses[0], "--cluster-from", &third, "--cluster-to", &second, "--cluster-slots", "3300"];
    manage(&at_redis, &some);
    assert!(held() < before, "parts of the table have moved");
    let all = bind(32);
    until("all at b after the move", || b.stat(&at_b, "strowger_bindings") == all);
    until("shared after the move", || a.stat(&at_a, "strowger_shared_up") == 1.0 && b.stat(&at_b, "strowger_shared_up") == 1.0);
    // The replica takes the place of the first.
    servers.remove(0).kill();
    let all = bind(32);
    until("all at b after the failover", || b.stat(&at_b, "strowger_bindings") == all);
    until("shared after the failover", || {
        a.stat(&at_a, "strowger_shared_untold") == 0.0 && a.stat(&at_a, "strowger_shared_up") == 1.0
    });
    assert!(servers[2].ask(&at_redis, &["ROLE"]).starts_with("master"));
    let c = c.start(&at_c);
    assert_eq!(c.stat(&at_c, "strowger_bindings"), all, "whoever joins finds everything");
}

/// What is shared is by Redis's clock: a server's own may be wrong by more than a binding lasts.
#[test]
fn clocks_need_not_agree() {
    let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
    let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    let conf = |place, node| conf(place, &redis, node).set("registrar", "durability", "\"acknowledged\"");
    let a = conf(&at_a, "a").start(&at_a);
    let clock = Clock::new(&at_b);
    clock.set(-600);
    let b = clock.start(&at_b, &conf(&at_b, "b").only(at_a.at(SECOND_SERVER)));
    b.expect_log(&["this server's clock is", "s behind that of Redis"]);
    let phone = Agent::new(at_a.at(CALLEE), b.address);
    let first = register(&phone, "alice", 60);
    assert!(!redis.ask(&at_redis, &["KEYS", "strowger:*:aor:alice@*"]).is_empty(), "it was told before the 200");
    until("alice at a", || Two::knows(&a, &at_a, "alice"));
    register(&Agent::new(at_a.at(SECOND_CALLEE), a.address), "bob", 60);
    until("bob at b", || Two::knows(&b, &at_b, "bob"));
    register_again(&phone, &first, "alice", 0);
    until("gone at a", || !Two::knows(&a, &at_a, "alice"));
    // It is set while the server runs.
    clock.set(600);
    b.expect_log(&["s ahead of that of Redis"]);
    register_again(&phone, &first, "alice", 60);
    until("alice at a again", || Two::knows(&a, &at_a, "alice"));
}

/// Another program has the stream of a part: the others are shared, and so is that when the key is gone.
#[test]
fn a_stream_that_is_none_takes_its_part_down_alone() {
    let two = Two::start(|conf| conf);
    register(&two.phone(), "alice", 600);
    until("seen at b", || Two::knows(&two.b, &two.at_b, "alice"));
    let key = two.redis.ask(&two.at_redis, &["KEYS", "strowger:*:aor:alice@*"]);
    let stream = format!("{}:changes", &key[..key.find(":aor:").unwrap()]);
    two.redis.ask(&two.at_redis, &["DEL", &stream]);
    two.redis.ask(&two.at_redis, &["SET", &stream, "mine"]);
    two.a.expect_log(&[&stream, "it is no stream"]);
    // A user of the same part, and of each other one.
    let late = two.phone_at(SECOND_CALLEE);
    let bound = |number: u32| two.a.command(&two.at_a, &["ul", "add", &format!("u{number}@{DOMAIN}"), "sip:u@192.0.2.7"]);
    for number in 0..64 {
        assert_eq!(bound(number).code, Some(0));
    }
    register(&late, "alice", 600);
    until("the others at b", || two.b.stat(&two.at_b, "strowger_bindings") > 40.0);
    assert!(two.b.stat(&two.at_b, "strowger_bindings") < 65.0);
    assert_eq!(two.a.stat(&two.at_a, "strowger_shared_up"), 1.0);
    assert_eq!(two.redis.ask(&two.at_redis, &["GET", &stream]), "mine");
    two.redis.ask(&two.at_redis, &["DEL", &stream]);
    until("all at b", || two.b.stat(&two.at_b, "strowger_bindings") == 66.0);
}

/// Another program has the roster's key: everything else is shared, and one line says so.
#[test]
fn a_foreign_roster_keeps_nobody_from_sharing() {
    let [at_a, at_redis] = ["node-a", "redis"].map(Place::new);
    let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    redis.ask(&at_redis, &["SET", "strowger:nodes", "mine"]);
    let a = conf(&at_a, &redis, "a").start(&at_a);
    let said = a.expect_log(&["\"strowger:nodes\" is left alone and not used", "WRONGTYPE"]);
    register(&Agent::new(at_a.at(CALLEE), a.address), "alice", 600);
    until("told", || a.stat(&at_a, "strowger_shared_told_total") == 1.0);
    assert_eq!(a.stat(&at_a, "strowger_shared_up"), 1.0);
    assert_eq!(said.matches("strowger:nodes").count(), 1, "{said}");
    assert_eq!(redis.ask(&at_redis, &["GET", "strowger:nodes"]), "mine");
}

/// A time that no clock shows in the roster, and a sign that is taken back.
#[test]
fn a_server_that_takes_its_sign_back_is_gone_at_once() {
    let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
    let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    redis.ask(&at_redis, &["HSET", "strowger:nodes", "evil", "18446744073709551615"]);
    let key = at_a.path("cluster.key").display().to_string();
    let one_key = |conf: Conf| conf.set("server", "key_file", &format!("{key:?}"));
    let a = one_key(conf(&at_a, &redis, "a")).stream("tcp", at_a.at(SERVER)).start(&at_a);
    let b = one_key(conf(&at_b, &redis, "b").only(at_a.at(SECOND_SERVER))).start(&at_b);
    until("it is taken out", || !redis.ask(&at_redis, &["HKEYS", "strowger:nodes"]).contains("evil"));
    let phone = Agent::tcp(at_a.ip(CALLEE), a.address);
    register(&phone, "alice", 600);
    until("seen at b", || Two::knows(&b, &at_b, "alice"));
    let caller = Agent::new(at_a.at(CALLER), b.address);
    until("called through a", || {
        let message = caller.request("MESSAGE", &format!("sip:alice@{DOMAIN}"));
        caller.send(&message);
        if let Some(came) = phone.receive(Duration::from_millis(300)) {
            phone.respond(&came, 200, &[]);
        }
        caller.final_for(&message).status() == Some(200)
    });
    a.signal("KILL");
    redis.ask(&at_redis, &["DEL", "strowger:node:a"]);
    let start = Instant::now();
    until("passed over", || {
        let message = caller.request("MESSAGE", &format!("sip:alice@{DOMAIN}"));
        caller.ask(&message).status() == Some(480)
    });
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

/// What a server knows may be old while it is not told what others change, even if it can tell Redis itself.
#[test]
fn nothing_is_acknowledged_by_a_server_that_cannot_follow() {
    let two = Two::start(|conf| conf.set("registrar", "durability", "\"acknowledged\""));
    let phone = two.phone();
    let ask = || phone.ask(&phone.register(DOMAIN, "alice", &format!("<{}>", phone.uri()), 600)).status();
    assert_eq!(ask(), Some(200));
    two.redis.ask(&two.at_redis, &["ACL", "SETUSER", "default", "-xread"]);
    two.a.expect_log(&["the location table is not shared", "NOPERM", "registrations are answered 503 until it is"]);
    for _ in 0..3 {
        assert_eq!(ask(), Some(503));
    }
    two.redis.ask(&two.at_redis, &["ACL", "SETUSER", "default", "+xread"]);
    until("accepted again", || ask() == Some(200));
}

/// It hangs for so long that another takes its name: it is told, though it had other troubles before.
#[test]
fn a_server_that_has_lost_its_name_meanwhile_says_so() {
    let [at_a, at_b, at_redis] = ["node-a", "node-b", "redis"].map(Place::new);
    let redis = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    let a = conf(&at_a, &redis, "same").start(&at_a);
    a.signal("STOP");
    until("its sign has expired", || redis.ask(&at_redis, &["EXISTS", "strowger:node:same"]) == "0");
    let b = conf(&at_b, &redis, "same").only(at_a.at(SECOND_SERVER)).start(&at_b);
    assert_eq!(b.stat(&at_b, "strowger_shared_up"), 1.0);
    // It has lost its connection, and then its name.
    redis.ask(&at_redis, &["CLIENT", "PAUSE", "2500"]);
    a.signal("CONT");
    a.expect_log(&["the location table is not shared"]);
    a.expect_log_within(PATIENCE, &["for another reason: another server that lives is called \"same\""]);
    assert_eq!(a.stat(&at_a, "strowger_shared_up"), 0.0);
}

/// The sentinels have made another server the primary: the old one, which lives, is left.
#[test]
fn a_primary_that_was_replaced_is_left() {
    let [at_a, at_redis, at_sentinel] = ["node-a", "redis", "sentinel"].map(Place::new);
    let primary = Redis::start(&at_redis, at_a.at_port(REDIS, 6379));
    let (ip, port) = (primary.address.ip().to_string(), primary.address.port().to_string());
    let replica =
        Redis::start_with(&at_redis, at_a.at_port(REDIS, 6380), &["--replicaof", &ip, &port, "--replica-announce-ip", &ip]);
    until("replicated", || primary.ask(&at_redis, &["INFO", "replication"]).contains("state=online"));
    let _sentinel = Redis::sentinel(&at_sentinel, at_a.at_port(REDIS, 26379), primary.address);
    let shared = format!("\"redis-sentinel://{ip}:26379/main/0\"");
    let a = conf(&at_a, &primary, "a").set("location", "shared", &shared).start(&at_a);
    register(&Agent::new(at_a.at(CALLEE), a.address), "alice", 600);
    until("told", || replica.ask(&at_redis, &["KEYS", "strowger:*:aor:alice@*"]).lines().count() == 1);
    let words = ["-h", &ip, "-p", "26379", "sentinel", "failover", "main"];
    let done = crate::process::run(&at_sentinel, "failover", std::path::Path::new("redis-cli"), &words, PATIENCE);
    assert!(done.stdout.contains("OK"), "{done:?}");
    until("replaced", || replica.ask(&at_redis, &["ROLE"]).starts_with("master"));
    // Whatever the old primary still takes would be lost.
    until("left", || replica.ask(&at_redis, &["CLIENT", "LIST"]).contains("cmd=xread"));
    register(&Agent::new(at_a.at(SECOND_CALLEE), a.address), "bob", 600);
    until("told the new one", || !replica.ask(&at_redis, &["KEYS", "strowger:*:aor:bob@*"]).is_empty());
}
