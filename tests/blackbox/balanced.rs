//! A whole cluster from outside: phones behind HAProxy and beside it, calls from one node to another, TLS sessions that any node resumes,
//! registrations that all nodes know, and a node that is killed.

use std::time::{Duration, Instant};

use crate::UAC;
use crate::agent::{Agent, Request};
use crate::baresip::Baresip;
use crate::message::Message;
use crate::openssl_tool::{SClient, handshake};
use crate::place::{CALLEE, CALLER, Place, STRANGER, wait_for};
use crate::sipp::{Running, Scenario, Sipp};
use crate::whole_cluster::{Cluster, NODES, Node};

const PATIENCE: Duration = Duration::from_secs(20);

const IS_HUNG_UP: &str = include_str!("scenarios/uac-is-hung-up.xml");
const REGISTER_ONCE: &str = include_str!("scenarios/register-once.xml");

/// Where the phone with TLS is.
const PHONE: u8 = 50;

/// How long its registration lasts: it registers again a little sooner.
const PHONES_EXPIRES: u32 = 60;

fn until<T>(what: &str, test: impl FnMut() -> Option<T>) -> T {
    wait_for(PATIENCE, test).unwrap_or_else(|| panic!("never: {what}"))
}

/// A phone that registers over TLS through HAProxy, and the node that has its connection.
fn phone(place: &Place, cluster: &Cluster) -> (Baresip, usize) {
    let aor = format!("sip:alice@{};transport=tls", cluster.secure);
    let phone = Baresip::register(place, "alice", PHONE, (cluster.secure.ip(), aor), Some(&cluster.authority()), PHONES_EXPIRES);
    phone.wait_for_message("200 to REGISTER", |sent, message| !sent && message.answers("REGISTER", 200));
    let node = node_of(place, cluster, &phone).expect("a node with the phone's connection");
    (phone, node)
}

/// The node that has the connection by which the phone has registered last, by what its operator sees.
fn node_of(place: &Place, cluster: &Cluster, phone: &Baresip) -> Option<usize> {
    let trace = phone.trace();
    let (_, answer) = trace.iter().rev().find(|(sent, message)| !sent && message.answers("REGISTER", 200))?;
    let seen = answer.top_via();
    let peer = format!("{}:{} ", seen.received?, seen.rport?);
    cluster.nodes.iter().position(|node| has_connection_of(place, node, &peer))
}

fn has_connection_of(place: &Place, node: &Node, peer: &str) -> bool {
    let shown = node.command(place, &["connections"]);
    shown.code == Some(0) && shown.stdout.contains(peer)
}

fn alice(cluster: &Cluster) -> String {
    format!("alice@{}", cluster.clear.ip())
}

/// SIPp calls alice over UDP at this node.
fn call<'a>(place: &'a Place, cluster: &Cluster, node: &Node, name: &'a str, scenario: &'static str) -> Running {
    let sipp = Sipp::new(place, name, place.at(CALLER), Scenario::Text(scenario));
    sipp.with(&["-d", "300"]).call("alice", cluster.clear, node.address)
}

/// Waits until alice is reached through a node. The nodes know each other by their signs of life, one a second.
fn until_reached(place: &Place, cluster: &Cluster, node: &Node) {
    let caller = Agent::new(place.at(STRANGER), node.address);
    until("alice is reached", || {
        let options = caller.request("OPTIONS", &format!("sip:{}", alice(cluster)));
        let is_reached = caller.ask(&options).status() == Some(200);
        std::thread::sleep(Duration::from_millis(50));
        is_reached.then_some(())
    });
}

#[test]
fn a_phone_behind_haproxy_is_called_through_every_node() {
    let place = Place::new("balanced-call");
    let cluster = Cluster::start(&place, &[]);
    let (mut alice, home) = phone(&place, &cluster);
    // The other nodes first, and the phone's own.
    for number in (1..=NODES).map(|step| (home + step) % NODES) {
        let node = &cluster.nodes[number];
        until_reached(&place, &cluster, node);
        let caller = call(&place, &cluster, node, "uac", UAC);
        alice.event("CALL_INCOMING");
        alice.command("accept", "");
        let report = caller.succeed(1);
        let call_id = report.received()[0].call_id().to_owned();
        for method in ["INVITE", "ACK", "BYE"] {
            let came = alice.wait_for_message(method, |sent, message| !sent && message.is(method) && message.call_id() == call_id);
            let nodes_passed = if number == home { 1 } else { 2 };
            // Within the call each goes where it can, which may be the way of the first node alone.
            let vias = came.vias().len();
            assert!(vias == 1 + nodes_passed || method != "INVITE", "{came:?}");
            assert_eq!(came.top_via().transport, "TLS", "{came:?}");
        }
        let caller = call(&place, &cluster, node, "hung-up", IS_HUNG_UP);
        alice.event("CALL_INCOMING");
        alice.command("accept", "");
        alice.event("CALL_ESTABLISHED");
        alice.command("hangup", "");
        caller.succeed(1);
    }
    cluster.end();
}

#[test]
fn a_tls_session_is_resumed_at_another_node_behind_haproxy() {
    let place = Place::new("balanced-tls");
    let cluster = Cluster::start(&place, &[]);
    let file = place.path("session").display().to_string();
    for way in ["-tls1_2", "-tls1_3"] {
        let mut seen = Vec::new();
        let client_ip = format!(" {}:", place.ip(CALLER));
        for number in 0..NODES + 1 {
            let session = if number == 0 { ["-sess_out", &file] } else { ["-sess_in", &file] };
            let trusting = ["-CAfile", &cluster.authority().display().to_string(), "-verify_return_error"];
            let mut client = SClient::connect(&place, cluster.secure, &[&[way], &trusting[..], &session].concat());
            client.ask();
            // The peer that a node shows is the client, which HAProxy has named.
            let node =
                cluster.nodes.iter().position(|node| has_connection_of(&place, node, &client_ip)).expect("a node with the client");
            let of_haproxy = format!("{}:", cluster.clear.ip());
            let shown = cluster.nodes[node].command(&place, &["connections"]).stdout;
            assert!(!shown.contains(&of_haproxy), "{shown}");
            let said = client.leave();
            let is_resumed = handshake(&said).contains("Reused, TLS");
            assert_ne!(is_resumed, handshake(&said).contains("New, TLS"), "{said}");
            assert_eq!(is_resumed, number > 0, "{way} at node {node} after {seen:?}: {said}");
            until("it has left", || (!has_connection_of(&place, &cluster.nodes[node], &client_ip)).then_some(()));
            seen.push(node);
        }
        // HAProxy takes them in turn.
        let others = seen[1..].iter().filter(|node| **node != seen[0]).count();
        assert!(others >= NODES - 1, "{seen:?}");
    }
    cluster.end();
}

#[test]
fn what_registers_behind_haproxy_and_beside_it_is_known_to_all_nodes() {
    const EACH: u32 = 150;
    let place = Place::new("balanced-load");
    let cluster = Cluster::start(&place, &[]);
    let register = |name: &'static str, user: &str, host: u8, next_hop, transport: Option<&'static str>| {
        let sipp = Sipp::new(&place, name, place.at(host), Scenario::Text(REGISTER_ONCE)).calls(EACH).with(&["-r", "75"]);
        let sipp = match transport {
            Some(transport) => sipp.over(transport),
            None => sipp,
        };
        sipp.call(user, cluster.clear, next_hop)
    };
    // Over UDP at each node, over TCP on one connection, and on one for each phone.
    let mut running: Vec<Running> = ["udp-a", "udp-b", "udp-c"]
        .into_iter()
        .zip(&cluster.nodes)
        .zip(60..)
        .map(|((name, node), host)| register(name, name, host, node.address, None))
        .collect();
    running.push(register("tcp-one", "tcp-one", 70, cluster.clear, Some("t1")));
    running.push(register("tcp-each", "tcp-each", 71, cluster.clear, Some("tn")));
    let loads = running.len();
    for load in running {
        load.succeed(EACH);
    }
    let wanted = loads * EACH as usize;
    let tables = until("known to all nodes", || {
        let tables: Vec<_> = cluster.nodes.iter().map(|node| node.bindings()).collect::<Option<_>>()?;
        tables.iter().all(|table| table.len() == wanted).then_some(tables)
    });
    assert!(tables.iter().all(|table| *table == tables[0]), "they are the same everywhere");
    assert!(tables[0].values().all(|contacts| contacts.len() == 1));
    for user in ["udp-a", "udp-b", "udp-c", "tcp-one", "tcp-each"] {
        let aor = format!("sip:{user}{EACH}@{}", cluster.clear.ip());
        assert!(tables[0].contains_key(&aor), "{aor}");
    }
    cluster.end();
}

/// Asks who answers for alice at this node: the status, and how long it took.
fn ask_for_alice(place: &Place, cluster: &Cluster, node: &Node) -> (Option<u16>, Duration) {
    let caller = Agent::new(place.at(STRANGER), node.address);
    let began = Instant::now();
    let invite = caller.request("INVITE", &format!("sip:{}", alice(cluster)));
    caller.send(&invite);
    let answer = caller.final_for(&invite);
    caller.acknowledge(&invite, &answer);
    (answer.status(), began.elapsed())
}

#[test]
fn when_a_node_is_killed_its_phone_is_passed_over_and_comes_back_through_another() {
    let place = Place::new("balanced-kill");
    let mut cluster = Cluster::start(&place, &[]);
    let (mut phone, home) = phone(&place, &cluster);
    let others: Vec<usize> = (0..NODES).filter(|number| *number != home).collect();
    let name = cluster.nodes[home].name.clone();
    for number in &others {
        until_reached(&place, &cluster, &cluster.nodes[*number]);
    }
    cluster.kill(&name);
    // The phone alone: nobody is there, and that is said at once.
    let other = others[0];
    until("it is passed over", || {
        let (status, time) = ask_for_alice(&place, &cluster, &cluster.nodes[other]);
        (status == Some(480) && time < Duration::from_millis(500)).then_some(())
    });
    // With a second phone it is that one which is called, by whichever node.
    let mut desk = Agent::new(place.at(CALLEE), cluster.nodes[other].address);
    let contact = format!("<{}>", desk.uri());
    let domain = cluster.clear.ip().to_string();
    assert_eq!(desk.ask(&desk.register(&domain, "alice", &contact, 600)).status(), Some(200));
    for number in &others {
        let node = &cluster.nodes[*number];
        until("the desk phone is known", || node.shows(&place, &alice(&cluster)).filter(|shown| shown.contains(&desk.uri())));
        let caller = Agent::new(place.at(STRANGER), node.address);
        let invite = caller.request("INVITE", &format!("sip:{}", alice(&cluster)));
        caller.send(&invite);
        let came = desk.expect("an INVITE", |message| message.is("INVITE"));
        desk.peer = node.address;
        desk.accept(&came);
        assert_eq!(caller.final_for(&invite).status(), Some(200));
        assert_eq!(came.top_via().sent_by, node.address.to_string(), "{came:?}");
    }
    desk.peer = cluster.nodes[other].address;
    let removal = desk.register(&domain, "alice", &contact, 0);
    assert_eq!(desk.ask(&removal).status(), Some(200));

    // It registers again, and HAProxy has another node for it.
    let end = Instant::now() + Duration::from_secs(u64::from(PHONES_EXPIRES) + 20);
    let now = wait_for(end - Instant::now(), || {
        std::thread::sleep(Duration::from_millis(200));
        node_of(&place, &cluster, &phone).filter(|now| *now != home)
    });
    assert!(now.is_some(), "the phone registers at another node");
    for number in others {
        let node = &cluster.nodes[number];
        until_reached(&place, &cluster, node);
        let caller = call(&place, &cluster, node, "uac", UAC);
        phone.event("CALL_INCOMING");
        phone.command("accept", "");
        caller.succeed(1);
    }
    // The node comes back, knows where the phone is, and calls it there.
    cluster.restart(&name);
    let node = &cluster.nodes[home];
    until_reached(&place, &cluster, node);
    let caller = call(&place, &cluster, node, "uac-at-home", UAC);
    phone.event("CALL_INCOMING");
    phone.command("accept", "");
    caller.succeed(1);
    cluster.end();
}

/// A call that is up: the caller's INVITE and its answer, and the INVITE as the callee got it.
struct Call {
    invite: Request,
    ok: Message,
    at_callee: Message,
}

fn set_up(cluster: &Cluster, caller: &Agent, callee: &Agent) -> Call {
    let invite = caller.request("INVITE", &format!("sip:{}", alice(cluster)));
    caller.send(&invite);
    let at_callee = callee.expect("an INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
    callee.accept(&at_callee);
    let ok = caller.final_for(&invite);
    assert_eq!(ok.status(), Some(200), "{ok:?}");
    caller.send(&caller.in_dialog("ACK", &invite, &ok));
    callee.expect("the ACK", |message| message.is("ACK") && message.call_id() == invite.call_id);
    Call { invite, ok, at_callee }
}

/// The callee has a connection to one node, its caller came to another: when that one is killed, either hangs up through what is left.
#[test]
fn a_call_goes_on_when_the_node_that_it_was_set_up_through_is_killed() {
    let place = Place::new("balanced-dialog");
    let mut cluster = Cluster::start(&place, &[]);
    let callee = Agent::tcp(place.ip(PHONE), cluster.clear);
    let register = callee.register(&cluster.clear.ip().to_string(), "alice", &format!("<{}>", callee.uri()), 600);
    assert_eq!(callee.ask(&register).status(), Some(200));
    let peer = format!(" {} ", callee.address);
    let home = cluster.nodes.iter().position(|node| has_connection_of(&place, node, &peer)).expect("a node with its connection");
    let [first, second] = [(home + 1) % NODES, (home + 2) % NODES];
    let mut caller = Agent::new(place.at(CALLER), cluster.nodes[first].address);
    for node in [first, second] {
        caller.peer = cluster.nodes[node].address;
        until("the phone is reached", || {
            let options = caller.request("OPTIONS", &format!("sip:{}", alice(&cluster)));
            caller.send(&options);
            if let Some(came) = callee.receive(Duration::from_millis(300)) {
                callee.respond(&came, 200, &[]);
            }
            (caller.final_for(&options).status() == Some(200)).then_some(())
        });
    }
    caller.peer = cluster.nodes[first].address;
    let call = set_up(&cluster, &caller, &callee);
    let name = cluster.nodes[first].name.clone();
    cluster.kill(&name);
    caller.peer = cluster.nodes[second].address;
    let bye = caller.in_dialog("BYE", &call.invite, &call.ok);
    caller.send(&bye);
    let came = callee.expect("the BYE", |message| message.is("BYE"));
    callee.respond(&came, 200, &[]);
    assert_eq!(caller.final_for(&bye).status(), Some(200));

    let call = set_up(&cluster, &caller, &callee);
    let name = cluster.nodes[second].name.clone();
    cluster.kill(&name);
    // For as long as its last sign of life is good, it is asked in vain.
    caller.peer = cluster.nodes[home].address;
    until("the callee hangs up", || {
        let mut bye = callee.request("BYE", &call.at_callee.contacts()[0]);
        bye.from = call.ok.header("to").expect("a To").to_owned();
        bye.to.clone_from(&call.invite.from);
        bye.call_id.clone_from(&call.invite.call_id);
        bye.extra = call.at_callee.all("record-route").iter().map(|route| format!("Route: {route}")).collect();
        callee.send(&bye);
        if let Some(came) = caller.receive(Duration::from_millis(300)) {
            caller.respond(&came, 200, &[]);
        }
        (callee.final_for(&bye).status() == Some(200)).then_some(())
    });
    cluster.end();
}
