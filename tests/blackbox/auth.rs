//! Digest authentication with software that is not ours: SIPp registers and calls, two baresip phones do both.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use crate::UAC;
use crate::calls::{by_call, callee};
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place};
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};

/// The realm of all users here.
const REALM: &str = "strowger.test";

/// A conf whose users are those of `names`, each with its name behind "open " as password.
pub fn guarded(place: &Place, names: &[&str]) -> Conf {
    let lines: String = names
        .iter()
        .map(|name| {
            let hash = Md5::digest(format!("{name}:{REALM}:open-{name}"));
            format!("{name}:{REALM}:{hash:x}\n")
        })
        .collect();
    let users = place.write("users.txt", &lines);
    Conf::new(place)
        .set("auth", "realm", &format!("{REALM:?}"))
        .set("auth", "algorithms", r#"["MD5"]"#)
        .set("auth", "challenge_register", "true")
        .set("auth", "challenge_proxy", "true")
        .set("auth", "users", &format!("{:?}", users.display().to_string()))
}

/// REGISTER, 401, REGISTER, 200 as the studies' clients do it: MD5, no qop, a new nonce for each registration.
const REGISTER: &str = r#"<?xml version="1.0" encoding="ISO-8859-1"?>
<scenario name="registers with digest">
  <send retrans="300"><![CDATA[
REGISTER sip:[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
Max-Forwards: 70
From: <sip:phone@[remote_ip]:[remote_port]>;tag=[pid]r[call_number]
To: <sip:phone@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 REGISTER
Contact: <sip:phone@[local_ip]:[local_port]>
Expires: 1800
Content-Length: 0

]]></send>
  <recv response="401" auth="true"/>
  <send retrans="300"><![CDATA[
REGISTER sip:[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
Max-Forwards: 70
From: <sip:phone@[remote_ip]:[remote_port]>;tag=[pid]r[call_number]
To: <sip:phone@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 2 REGISTER
Contact: <sip:phone@[local_ip]:[local_port]>
Expires: 1800
[authentication username=phone password=PASSWORD]
Content-Length: 0

]]></send>
  <recv response="STATUS"/>
</scenario>
"#;

#[test]
fn the_registration_of_the_studies() {
    const CALLS: u32 = 50;
    let place = Place::new("auth-register");
    let conf = guarded(&place, &["phone"]).set("auth", "qop", "false");
    let server = conf.set("registrar", "max_expires", r#""1h""#).start(&place);
    let scenario = REGISTER.replace("PASSWORD", "open-phone").replace("STATUS", "200");
    let report = Sipp::new(&place, "register", place.at(CALLER), Scenario::Text(scenario.leak()))
        .calls(CALLS)
        .with(&["-r", "100"])
        .call("phone", server.address, server.address)
        .succeed(CALLS);
    let calls = by_call(report.received());
    assert_eq!(calls.len(), CALLS as usize);
    let mut nonces = BTreeMap::new();
    for answers in calls.values() {
        let [challenge, ok] = &answers[..] else {
            panic!("two answers: {answers:#?}");
        };
        let line = one(challenge, "www-authenticate");
        assert!(line.starts_with(&format!("Digest realm=\"{REALM}\", nonce=\"")), "{line}");
        assert!(line.ends_with("\", algorithm=MD5"), "no qop and nothing else: {line}");
        *nonces.entry(line).or_insert(0) += 1;
        assert!(ok.answers("REGISTER", 200));
        let contact = one(ok, "contact");
        let expected = format!("<sip:phone@{}>;expires=1800", place.at(CALLER));
        assert_eq!(contact, expected);
    }
    assert_eq!(nonces.len(), CALLS as usize, "each has its own nonce");
    let stat = |outcome: &str| {
        let name = format!("strowger_auth_total{{outcome={outcome:?}}}");
        server.stats(&place)[name.as_str()]
    };
    assert_eq!((stat("challenged"), stat("accepted")), (50.0, 50.0));
    assert_eq!(server.stat(&place, "strowger_bindings"), 1.0);
}

#[test]
fn a_wrong_password_registers_nobody_and_is_told_once() {
    let place = Place::new("auth-wrong");
    let server = guarded(&place, &["phone"]).start(&place);
    let scenario = REGISTER.replace("PASSWORD", "guess").replace("STATUS", "401");
    Sipp::new(&place, "register", place.at(CALLER), Scenario::Text(scenario.leak()))
        .calls(1)
        .call("phone", server.address, server.address)
        .succeed(1);
    assert_eq!(server.stat(&place, "strowger_bindings"), 0.0);
    let line = server.expect_log(&["REGISTER", &place.at(CALLER).to_string(), "wrong password"]);
    assert!(line.contains("user \"phone\""), "{line}");
    let log = server.log();
    assert!(!log.contains("response=") && !log.contains("guess"), "{log}");
    assert_eq!(log.matches(&place.at(CALLER).to_string()).count(), 1, "{log}");
}

/// Registers with the right password and with a wrong one. Returns what nobody else may see: passwords, and what was made of them.
pub fn register_and_fail(place: &Place, server: &Server) -> Vec<String> {
    let mut secrets = Vec::new();
    for (name, password, status) in [("right", "open-phone", "200"), ("wrong", "guess", "401")] {
        let scenario = REGISTER.replace("PASSWORD", password).replace("STATUS", status);
        let scenario = Scenario::Text(scenario.leak());
        let report =
            Sipp::new(place, name, place.at(CALLER), scenario).calls(1).call("phone", server.address, server.address).succeed(1);
        let sent = report.messages.iter().filter(|traced| traced.sent);
        for message in sent.map(|traced| &traced.message) {
            // The reader divides a list at its commas, which stand between the parameters too.
            for part in message.all("authorization") {
                let (key, value) = part.split_once('=').unwrap_or_default();
                if ["response", "cnonce", "nonce"].contains(&key.trim()) {
                    secrets.push(value.trim_matches('"').to_owned());
                }
            }
        }
        secrets.push(password.to_owned());
    }
    secrets
}

/// SIPp's caller with a 407 on its way, made of the scenario that has none.
fn uac() -> String {
    let from = "<sip:caller@[local_ip]:[local_port]>";
    let ours = "<sip:caller@[remote_ip]:[remote_port]>";
    let text = UAC.replace(&format!("From: \"Caller\" {from}"), &format!("From: \"Caller\" {ours}"));
    let start = text.find("  <send").expect("the INVITE");
    let end = text.find("  <recv").expect("what follows it");
    let invite = &text[start..end];
    let again = invite
        .replace("CSeq: 1 INVITE", "CSeq: 2 INVITE")
        .replace("Content-Type:", "[authentication username=caller password=open-caller]\nContent-Type:");
    let ack = format!(
        "  <recv response=\"407\" auth=\"true\"/>\n  <send><![CDATA[\n\
         ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n[last_Via:]\nMax-Forwards: 70\n\
         From: \"Caller\" {ours};tag=[pid]a[call_number]\n[last_To:]\nCall-ID: [call_id]\nCSeq: 1 ACK\nContent-Length: 0\n\n]]></send>\n"
    );
    let rest = text[end..].replace("CSeq: 1 ACK", "CSeq: 2 ACK").replace("CSeq: 2 BYE", "CSeq: 3 BYE");
    format!("{}{invite}{ack}{again}{rest}", &text[..start])
}

#[test]
fn a_caller_proves_itself_once_for_each_call() {
    const CALLS: u32 = 20;
    let place = Place::new("auth-call");
    let server = guarded(&place, &["caller"]).start(&place);
    server.bind(&place, "bob", place.at(CALLEE));
    let callee = callee(&place, "uas", CALLEE, place.at(CALLEE)).calls(CALLS).answer();
    let caller = Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(uac().leak()))
        .calls(CALLS)
        .with(&["-r", "20"])
        .call("bob", server.address, server.address)
        .succeed(CALLS);
    let callee = callee.succeed(CALLS);
    for messages in by_call(caller.received()).values() {
        let challenges: Vec<&Message> =
            messages.iter().filter(|message| message.is_final_for("INVITE") && message.cseq() == 1).collect();
        assert_eq!(challenges.len(), 1);
        assert!(challenges[0].answers("INVITE", 407));
        let line = one(challenges[0], "proxy-authenticate");
        assert!(line.contains("qop=\"auth,auth-int\""), "{line}");
        assert!(challenges[0].all("record-route").is_empty());
        assert!(!messages.iter().any(|message| message.answers("BYE", 407)));
    }
    let to_callee = callee.received();
    assert_eq!(to_callee.iter().filter(|m| m.is("INVITE")).count(), CALLS as usize);
    for message in &to_callee {
        assert!(message.all("proxy-authorization").is_empty(), "{message:?}");
        assert!(!(message.is("ACK") && message.cseq() == 1), "the ACK of the 407 stays: {message:?}");
    }
}

fn one(message: &Message, name: &str) -> String {
    let found = message.all(name);
    assert!(!found.is_empty(), "no {name}: {message:?}");
    // The reader divides a list at its commas, which stand between a challenge's parameters too.
    found.join(", ")
}
