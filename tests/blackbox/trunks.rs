//! Trunks with carriers that ask for passwords: another strowger, and Kamailio.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use md5::{Digest, Md5};
use sha2::Sha256;

use crate::agent::{Agent, PATIENCE};
use crate::kamailio::{Kamailio, NEIGHBOUR};
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::server::{Conf, Server};

const REALM: &str = "carrier.test";
const USER: &str = "4930";
const PASSWORD: &str = "open-sesame-4711";

/// A server with a trunk to a carrier: what begins with 0 goes there, and what comes from there for its user to `phone`.
fn with_trunk(place: &Place, carrier: SocketAddr, phone: SocketAddr, password: &str) -> Conf {
    let file = place.write("carrier.password", &format!("{password}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the password's file");
    let trunk = format!(
        "name = \"carrier\"\nregistrar = \"sip:{carrier}\"\nuser = \"{USER}\"\nexpires = \"60s\"\npassword_file = {:?}",
        file.display().to_string()
    );
    let out = format!(
        "to_user_prefix = \"0\"\naction = \"relay\"\ntarget = [\"sip:{carrier}\"]\nset_host = \"{carrier}\"\ntrunk = \"carrier\""
    );
    let back = format!(
        "from_source = [\"{}/32\"]\nto_user_prefix = \"{USER}\"\naction = \"relay\"\ntarget = [\"sip:{phone}\"]",
        carrier.ip()
    );
    Conf::new(place).section("[[trunk]]", &trunk).route(&out).route(&back)
}

/// The same by a connection over TLS, to a carrier that proves its address by a certificate of this authority.
fn by_tls(place: &Place, carrier: IpAddr, authority: &Authority) -> Conf {
    let file = place.write("carrier.password", &format!("{PASSWORD}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the password's file");
    let trunk = format!(
        "name = \"carrier\"\nregistrar = \"sip:{carrier}:5061;transport=tls\"\nuser = \"{USER}\"\npassword_file = {:?}",
        file.display().to_string()
    );
    let out = format!(
        "to_user_prefix = \"0\"\naction = \"relay\"\ntarget = [\"sip:{carrier}:5061;transport=tls\"]\nset_host = \"{carrier}\"\n\
         trunk = \"carrier\""
    );
    let own = authority.issue(place, "own", Kind::Ecdsa, &["server.test"]);
    Conf::new(place).tls(place, &[&own]).trust(authority, "no").section("[[trunk]]", &trunk).route(&out)
}

/// What `strowger trunks` says of the trunk.
fn standing(server: &Server, place: &Place) -> serde_json::Value {
    let outcome = server.command(place, &["trunks", "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let list: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("a JSON list");
    list[0].clone()
}

#[track_caller]
fn await_state(server: &Server, place: &Place, state: &str) -> serde_json::Value {
    let found = wait_for(PATIENCE, || Some(standing(server, place)).filter(|one| one["state"] == state));
    found.unwrap_or_else(|| panic!("not {state}: {:?}\n{}", standing(server, place), server.log()))
}

/// The password is nowhere where others could read it.
fn assert_secret(server: &Server, place: &Place) {
    let process = format!("/proc/{}", server.id());
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("{process}/{file}")).expect("what the machine says of the process");
        assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{file}");
    }
    let said = server.command(place, &["trunks"]).stdout + &server.command(place, &["stats"]).stdout + &server.log();
    assert!(!said.contains(PASSWORD) && !said.contains("response="), "{said}");
}

/// A call out by `server`, whose From has the trunk's user at the carrier.
fn call_out(caller: &Agent, callee: &Agent, server: &Server, carrier: SocketAddr) {
    let mut invite = caller.request("INVITE", &format!("sip:0123@{}", server.address));
    invite.from = format!("<sip:{USER}@{}>;tag=x{}", carrier.ip(), invite.call_id.len());
    caller.send(&invite);
    let there = callee.expect("the INVITE", |message| message.is("INVITE"));
    assert!(there.header("proxy-authorization").is_none(), "{there:?}");
    callee.accept(&there);
    let ok = caller.final_for(&invite);
    assert_eq!(ok.status(), Some(200), "{ok:?}");
    caller.send(&caller.in_dialog("ACK", &invite, &ok));
    callee.expect("the ACK", |message| message.is("ACK"));
    let challenged = caller.log().iter().any(|message| matches!(message.status(), Some(401 | 407)));
    assert!(!challenged, "the caller knows nothing of challenges: {:?}", caller.log());
    // Challenged as well, if the carrier asks within dialogs.
    let bye = caller.in_dialog("BYE", &invite, &ok);
    caller.send(&bye);
    let there = callee.expect("the BYE", |message| message.is("BYE"));
    callee.respond(&there, 200, &[]);
    assert_eq!(caller.final_for(&bye).status(), Some(200));
}

/// A call from the carrier for the trunk's user.
fn call_in(caller: &Agent, phone: &Agent, carrier: SocketAddr) {
    let message = caller.request("MESSAGE", &format!("sip:{USER}@{carrier}"));
    caller.send(&message);
    let there = phone.expect("the MESSAGE", |message| message.is("MESSAGE"));
    phone.respond(&there, 200, &[]);
    assert_eq!(caller.final_for(&message).status(), Some(200));
}

/// A strowger that asks everybody who they are, with the carrier's account.
fn carrier(place: &Place, algorithm: &str) -> Conf {
    let hashed = |text: &str| match algorithm {
        "SHA-256" => format!("{:x}", Sha256::digest(text)),
        _ => format!("{:x}", Md5::digest(text)),
    };
    let users = format!("{USER}:{REALM}:{}\n", hashed(&format!("{USER}:{REALM}:{PASSWORD}")));
    let users = place.write("users.txt", &users).display().to_string();
    Conf::new(place)
        .set("auth", "realm", &format!("{REALM:?}"))
        .set("auth", "algorithms", &format!("[{algorithm:?}]"))
        .set("auth", "challenge_register", "true")
        .set("auth", "challenge_proxy", "true")
        .set("auth", "users", &format!("{users:?}"))
}

#[test]
fn a_trunk_with_another_strowger() {
    for algorithm in ["MD5", "SHA-256"] {
        let (there, here) = (Place::new("trunk-carrier"), Place::new("trunk-server"));
        let carrier = carrier(&there, algorithm).start(&there);
        let phone = Agent::new(here.at(SECOND_CALLEE), here.at(SERVER));
        let server = with_trunk(&here, carrier.address, phone.address, PASSWORD).start(&here);
        let entry = await_state(&server, &here, "registered");
        assert_eq!(entry["user"], USER);
        assert!((1..=60).contains(&entry["granted_for_s"].as_u64().unwrap()), "{entry}");
        assert_eq!(server.stats(&here)["strowger_trunk_registered{trunk=\"carrier\"}"], 1.0);
        server.expect_log(&["trunk \"carrier\"", "registered as sip:4930@"]);
        let shown = carrier.show(&there, USER).stdout;
        assert!(shown.contains(&format!("sip:{USER}@{}", server.address)), "{shown}");
        // Out and in.
        let callee = Agent::new(there.at(CALLEE), carrier.address);
        carrier.bind(&there, "0123", callee.address);
        call_out(&Agent::new(here.at(CALLER), server.address), &callee, &server, carrier.address);
        call_in(&Agent::new(there.at(CALLER), carrier.address), &phone, carrier.address);
        assert_secret(&server, &here);
        // The registration is given back.
        server.signal("TERM");
        let gone = wait_for(PATIENCE, || (carrier.show(&there, USER).code == Some(1)).then_some(()));
        assert_eq!(gone, Some(()), "it is registered still");
        server.finish(PATIENCE);
    }
}

/// Registration, challenge and call over one connection, whose far end has proved who it is; an impostor gets no password.
#[test]
fn a_trunk_over_tls() {
    let (there, here) = (Place::new("trunk-tls-carrier"), Place::new("trunk-tls-server"));
    let authority = Authority::new(&here, "ca");
    let address = there.ip(SERVER);
    let shown = authority.issue(&there, "carrier", Kind::Ecdsa, &[&address.to_string()]);
    let carrier = carrier(&there, "SHA-256").tls(&there, &[&shown]).start(&there);
    let server = by_tls(&here, address, &authority).start(&here);
    await_state(&server, &here, "registered");
    let bound = carrier.show(&there, USER).stdout;
    assert!(bound.contains(&format!("sip:{USER}@{}:5061;transport=tls", here.ip(SERVER))), "{bound}");
    let callee = Agent::new(there.at(CALLEE), carrier.address);
    carrier.bind(&there, "0123", callee.address);
    call_out(&Agent::new(here.at(CALLER), server.address), &callee, &server, carrier.address);
    let stats = server.stats(&here);
    assert_eq!(stats["strowger_tls_handshakes_total{side=\"client\",kind=\"full\"}"], 1.0, "one connection for all");
    assert_secret(&server, &here);

    let elsewhere = Place::new("trunk-tls-stranger");
    let stranger = Authority::new(&elsewhere, "stranger");
    let impostor = by_tls(&elsewhere, address, &stranger).start(&elsewhere);
    let entry = await_state(&impostor, &elsewhere, "failed");
    assert_eq!(impostor.stats(&elsewhere)["strowger_tls_handshakes_total{side=\"client\",kind=\"full\"}"], 0.0, "{entry}");
}

#[test]
fn a_password_that_is_refused_is_told_and_no_call_shows_the_challenge() {
    let (there, here) = (Place::new("trunk-refusing"), Place::new("trunk-refused"));
    let carrier = carrier(&there, "MD5").start(&there);
    let server = with_trunk(&here, carrier.address, here.at(SECOND_CALLEE), "wrong").start(&here);
    let entry = await_state(&server, &here, "failed");
    assert_eq!(entry["why"], "the password is refused");
    server.expect_log(&["trunk \"carrier\"", "is not registered: the password is refused"]);
    assert_eq!(server.stats(&here)["strowger_trunk_registered{trunk=\"carrier\"}"], 0.0);
    let caller = Agent::new(here.at(CALLER), server.address);
    let mut message = caller.request("MESSAGE", &format!("sip:0123@{}", server.address));
    message.from = format!("<sip:{USER}@{}>;tag=x", carrier.address.ip());
    assert_eq!(caller.ask(&message).status(), Some(502));
    server.expect_log(&["trunk \"carrier\"", "refuses its password"]);
}

#[test]
fn a_trunk_with_kamailio() {
    for algorithm in ["MD5", "SHA-256"] {
        let place = Place::new("trunk-kamailio");
        let (next, kamailio) = (place.at(CALLEE), place.at(NEIGHBOUR));
        let script = format!(
            "#!KAMAILIO\ndebug=1\nlog_stderror=yes\nchildren=1\ntcp_children=1\nauto_aliases=no\ndns=no\nrev_dns=no\n\
             listen=udp:{kamailio}\nlisten=tcp:{kamailio}\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"rr.so\"\n\
             loadmodule \"pv.so\"\nloadmodule \"textops.so\"\nloadmodule \"siputils.so\"\nloadmodule \"auth.so\"\n\
             loadmodule \"usrloc.so\"\nloadmodule \"registrar.so\"\nmodparam(\"auth\", \"algorithm\", \"{algorithm}\")\n\
             request_route {{\n\
             if (has_totag()) {{\n\
             if (is_method(\"BYE\")) {{\n\
             if (!pv_proxy_authenticate(\"{REALM}\", \"{PASSWORD}\", \"0\")) {{ proxy_challenge(\"{REALM}\", \"1\"); exit; }}\n\
             consume_credentials();\n}}\n\
             loose_route(); t_relay(); exit;\n}}\n\
             if (is_method(\"ACK\")) {{\n if (t_check_trans()) t_relay(); exit;\n}}\n\
             if (is_method(\"REGISTER\")) {{\n\
             if (!pv_www_authenticate(\"{REALM}\", \"{PASSWORD}\", \"0\")) {{ www_challenge(\"{REALM}\", \"1\"); exit; }}\n\
             if (!save(\"location\")) sl_reply_error();\nexit;\n}}\n\
             if ($rU == \"{USER}\") {{\n if (!lookup(\"location\")) {{ sl_send_reply(\"404\", \"Nobody\"); exit; }}\n t_relay(); exit;\n}}\n\
             if (!pv_proxy_authenticate(\"{REALM}\", \"{PASSWORD}\", \"0\")) {{ proxy_challenge(\"{REALM}\", \"1\"); exit; }}\n\
             consume_credentials();\nrecord_route();\n$du = \"sip:{next}\";\nif (!t_relay()) sl_reply_error();\n}}\n"
        );
        let _kamailio = Kamailio::run(&place, &script, kamailio);
        let phone = Agent::new(place.at(SECOND_CALLEE), place.at(SERVER));
        let server = with_trunk(&place, kamailio, phone.address, PASSWORD).start(&place);
        await_state(&server, &place, "registered");
        let callee = Agent::new(next, kamailio);
        call_out(&Agent::new(place.at(CALLER), server.address), &callee, &server, kamailio);
        call_in(&Agent::new(place.at_port(CALLER, 5070), kamailio), &phone, kamailio);
        assert_secret(&server, &place);
        server.signal("TERM");
        server.finish(Duration::from_secs(20));
        let caller = Agent::new(place.at_port(CALLER, 5071), kamailio);
        let message = caller.request("MESSAGE", &format!("sip:{USER}@{kamailio}"));
        assert_eq!(caller.ask(&message).status(), Some(404), "it is registered still");
    }
}

/// A target that does not answer is known before a call meets it.
#[test]
fn targets_are_probed() {
    let place = Place::new("probe");
    let route = format!(
        "to_user_prefix = \"0\"\naction = \"relay\"\ntarget = [\"sip:{}\", \"sip:{}\"]\nprobe = \"1s\"",
        place.at(CALLEE),
        place.at(SECOND_CALLEE)
    );
    let gate = Agent::new(place.at(SECOND_CALLEE), place.at(SERVER));
    let server = Conf::new(&place).set("next_hop", "patience", "\"500ms\"").route(&route).start(&place);
    let probe = gate.expect("an OPTIONS", |message| message.is("OPTIONS"));
    gate.respond(&probe, 200, &[]);
    server.expect_log(&[&format!("next hop {} over UDP (target of [[route]] 1) has failed", place.at(CALLEE))]);
    let again = gate.expect("another OPTIONS", |message| message.is("OPTIONS") && message.cseq() > probe.cseq());
    assert_eq!(again.call_id(), probe.call_id());
    gate.respond(&again, 404, &[]);
    // It comes back.
    let back = Agent::new(place.at(CALLEE), server.address);
    let probe = back.expect("an OPTIONS", |message| message.is("OPTIONS"));
    back.respond(&probe, 200, &[]);
    server.expect_log(&[&format!("next hop {} over UDP (target of [[route]] 1) answers again", place.at(CALLEE))]);
}
