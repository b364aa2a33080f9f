//! Targets that fail, with real sockets and times: the second one is asked in time, the next calls pass over the first, and operators see it.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Request};
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, wait_for};
use crate::server::{Conf, Server};

const PATIENCE: Duration = Duration::from_millis(500);

/// Everything for `carrier.test` goes to two gateways, the second of which stands in for the first.
fn start(place: &Place, more: &str) -> Server {
    let (first, second) = (place.at(CALLEE), place.at(SECOND_CALLEE));
    Conf::new(place)
        .set("next_hop", "patience", r#""500ms""#)
        .set("next_hop", "retry", r#""2s""#)
        .route(&format!("to_host = \"carrier.test\"\naction = \"relay\"\ntarget = [\"sip:{first}\", \"sip:{second}\"]\n{more}"))
        .start(place)
}

fn send(place: &Place, server: &Server, method: &str) -> (Agent, Request, Instant) {
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    let request = caller.request(method, "sip:1@carrier.test");
    let now = Instant::now();
    caller.send(&request);
    (caller, request, now)
}

/// A request that the second gateway refuses, and how long that takes.
fn refused_by(gateway: &Agent, place: &Place, server: &Server, method: &str) -> Duration {
    let (caller, request, began) = send(place, server, method);
    let arrived = gateway.expect(method, |message| message.is(method));
    gateway.respond(&arrived, 486, &[]);
    let refused = caller.final_for(&request);
    assert_eq!(refused.status(), Some(486), "{refused:?}");
    let took = began.elapsed();
    if method == "INVITE" {
        caller.acknowledge(&request, &refused);
    }
    gateway.forget();
    took
}

#[test]
fn a_silent_gateway_costs_one_request_its_patience_and_the_next_nothing() {
    for method in ["INVITE", "MESSAGE"] {
        let place = Place::new("silent-gateway");
        let server = start(&place, "");
        // It is there, and says nothing: no port is closed.
        let silent = Agent::new(place.at(CALLEE), server.address);
        let good = Agent::new(place.at(SECOND_CALLEE), server.address);
        let first = refused_by(&good, &place, &server, method);
        assert!(first >= PATIENCE && first < Duration::from_secs(4), "{method}: {first:?}");
        let next = refused_by(&good, &place, &server, method);
        assert!(next < PATIENCE, "{method}: {next:?}");
        let peer = place.at(CALLEE);
        server.expect_log(&[&format!(
            "next hop {peer} over UDP (target of [[route]] 1) has failed: no response in 0.5 s; passed over for "
        )]);
        sees(&place, &server, false, "no response");

        // When its time is over one request tries it, and its answer makes it well.
        silent.collect(Duration::from_millis(50));
        let answered = wait_for(Duration::from_secs(10), || {
            let (caller, request, _) = send(&place, &server, "MESSAGE");
            match silent.receive(Duration::from_millis(100)).filter(|message| message.is("MESSAGE")) {
                Some(trial) => {
                    silent.respond(&trial, 200, &[]);
                    Some(caller.final_for(&request))
                }
                None => {
                    let arrived = good.expect("MESSAGE", |message| message.is("MESSAGE"));
                    good.respond(&arrived, 200, &[]);
                    good.forget();
                    caller.final_for(&request);
                    None
                }
            }
        });
        assert_eq!(answered.as_ref().and_then(Message::status), Some(200), "{answered:?}");
        server.expect_log(&[&format!("next hop {peer} over UDP (target of [[route]] 1) answers again after ")]);
        sees(&place, &server, true, "-");
    }
}

/// What the commands say of the two gateways.
#[track_caller]
fn sees(place: &Place, server: &Server, first_is_up: bool, cause: &str) {
    let (first, second) = (place.at(CALLEE), place.at(SECOND_CALLEE));
    let table = server.command(place, &["targets"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    let words = |uri: String| -> Vec<String> {
        let line = table.stdout.lines().find(|line| line.contains(&uri));
        line.unwrap_or_default().split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    let state = if first_is_up { "up" } else { "down" };
    assert_eq!(words(format!("sip:{first}"))[..5], ["1", &format!("sip:{first}"), &first.to_string(), state, cause]);
    assert_eq!(words(format!("sip:{second}"))[3], "up");
    let json = server.command(place, &["targets", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["targets"][0]["is_up"], first_is_up, "{json}");
    assert_eq!(json["targets"][0]["failure"]["cause"], if first_is_up { serde_json::Value::Null } else { cause.into() });
    let stats = server.stats(place);
    let up = |address| stats.get(&format!("strowger_target_up{{target=\"sip:{address}\"}}")).copied();
    assert_eq!((up(first), up(second)), (Some(f64::from(first_is_up)), Some(1.0)), "{stats:#?}");
    assert_eq!(stats.get("strowger_next_hops_failed"), Some(&f64::from(!first_is_up)));
}

/// A gateway whose port is closed is passed over at once: the network says that nobody is there.
#[test]
fn a_gateway_that_is_not_there_is_passed_over_at_once() {
    let place = Place::new("closed-gateway");
    let server = start(&place, "");
    let good = Agent::new(place.at(SECOND_CALLEE), server.address);
    let first = refused_by(&good, &place, &server, "INVITE");
    assert!(first < PATIENCE, "{first:?}");
    sees(&place, &server, false, "port unreachable");
}

/// `failover` lists the answers after which the second gateway is asked.
#[test]
fn an_answer_that_the_route_lists_leads_to_the_second_gateway() {
    let place = Place::new("failover");
    let server = start(&place, "failover = [\"5xx\", 486]");
    let first = Agent::new(place.at(CALLEE), server.address);
    let second = Agent::new(place.at(SECOND_CALLEE), server.address);
    for status in [500, 486] {
        let (caller, request, _) = send(&place, &server, "INVITE");
        let arrived = first.expect("INVITE", |message| message.is("INVITE"));
        first.respond(&arrived, status, &[]);
        let arrived = second.expect("INVITE", |message| message.is("INVITE"));
        second.respond(&arrived, 404, &[]);
        let refused = caller.final_for(&request);
        let expected = if status == 486 { 486 } else { 404 };
        assert_eq!(refused.status(), Some(expected), "{refused:?}");
        caller.acknowledge(&request, &refused);
        first.forget();
        second.forget();
    }
    sees(&place, &server, true, "-");
}
