//! conf/office.toml as it is shipped: baresip as the phones and as the world, Kamailio as both gateways of the carrier.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::agent::Agent;
use crate::baresip::Baresip;
use crate::kamailio::{Kamailio, NEIGHBOUR};
use crate::message::Message;
use crate::pki::{Authority, Kind};
use crate::place::{Place, SERVER, STRANGER, wait_for};
use crate::process;
use crate::server::{Conf, Server, binary};

const OFFICE: &str = include_str!("../../conf/office.toml");

const PATIENCE: Duration = Duration::from_secs(20);
const PASSWORD: &str = "open-sesame-4711";

/// The hosts of the phones 10 and 11, and of a phone of the world.
const PHONES: [u8; 2] = [21, 22];
const WORLD: u8 = 30;

/// The conf with the addresses of a test: the server's, and those of the gateways.
fn conf(place: &Place, gateways: [SocketAddr; 2]) -> Conf {
    let text = OFFICE
        .replace("127.0.0.1", &place.ip(SERVER).to_string())
        .replace("192.0.2.10", &gateways[0].ip().to_string())
        .replace("192.0.2.11", &gateways[1].ip().to_string());
    assert!(!text.contains("192.0.2."), "an address that no test stands for");
    Conf::shipped(place, &text, true, gateways[0])
}

/// What the conf names, made as its first lines say.
fn prepared(place: &Place) -> Authority {
    fs::create_dir(place.path("certs")).expect("a folder");
    let authority = Authority::new(place, "certs/ca");
    authority.issue(place, "certs/ecdsa", Kind::Ecdsa, &["example.com", &place.ip(SERVER).to_string()]);
    let file = place.write("certs/carrier.password", &format!("{PASSWORD}\n"));
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("the password's file");
    let file = place.path("strowger.toml").display().to_string();
    for user in ["10", "11"] {
        let (name, password) = (format!("{user}@example.com"), format!("open-{user}"));
        let added = ["-c", &file, "user", "add", &name, "--create", "--password", &password];
        let added = process::run(place, "user-add", binary(), &added, PATIENCE);
        assert_eq!(added.code, Some(0), "{added:?}");
    }
    authority
}

/// A carrier's gateway: it knows the account by its password, sends its number to the server, and all others to the world.
fn gateway(place: &Place, at: SocketAddr, server: SocketAddr, world: SocketAddr) -> Kamailio {
    let script = format!(
        "#!KAMAILIO\ndebug=1\nlog_stderror=yes\nchildren=1\ntcp_children=1\nauto_aliases=no\ndns=no\nrev_dns=no\n\
         listen=udp:{at}\nlisten=tcp:{at}\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"rr.so\"\n\
         loadmodule \"pv.so\"\nloadmodule \"textops.so\"\nloadmodule \"siputils.so\"\nloadmodule \"auth.so\"\n\
         loadmodule \"usrloc.so\"\nloadmodule \"registrar.so\"\n\
         request_route {{\n\
         if (has_totag()) {{\n loose_route(); t_relay(); exit;\n}}\n\
         if (is_method(\"CANCEL|ACK\")) {{\n if (t_check_trans()) t_relay(); exit;\n}}\n\
         if (is_method(\"OPTIONS\")) {{\n sl_send_reply(\"200\", \"OK\"); exit;\n}}\n\
         if (is_method(\"REGISTER\")) {{\n\
         if (!pv_www_authenticate(\"carrier\", \"{PASSWORD}\", \"0\")) {{ www_challenge(\"carrier\", \"1\"); exit; }}\n\
         if (!save(\"location\")) sl_reply_error();\nexit;\n}}\n\
         record_route();\n\
         if ($rU =~ \"^4930123\") {{\n $ru = \"sip:\" + $rU + \"@{server}\";\n t_relay(); exit;\n}}\n\
         if (!pv_proxy_authenticate(\"carrier\", \"{PASSWORD}\", \"0\")) {{ proxy_challenge(\"carrier\", \"1\"); exit; }}\n\
         consume_credentials();\n$du = \"sip:{world}\";\nif (!t_relay()) sl_reply_error();\n}}\n"
    );
    Kamailio::run(place, &script, at)
}

/// Waits until the call is established on both sides; the caller ends it.
fn talk(caller: &mut Baresip, callee: &mut Baresip) {
    callee.event("CALL_INCOMING");
    callee.command("accept", "");
    caller.event("CALL_ESTABLISHED");
    callee.event("CALL_ESTABLISHED");
    caller.command("hangup", "");
    callee.event("CALL_CLOSED");
    caller.event("CALL_CLOSED");
}

fn is_up(server: &Server, place: &Place, gateway: SocketAddr) -> bool {
    server.stat(place, &format!("strowger_target_up{{target=\"sip:{}\"}}", gateway.ip())) == 1.0
}

fn invites(phone: &Baresip) -> Vec<Message> {
    let messages = phone.trace().into_iter();
    messages.filter(|(_, message)| message.is("INVITE")).map(|(_, message)| message).collect()
}

#[test]
fn an_office_calls_itself_and_the_world() {
    let place = Place::new("office");
    // Each gateway can go by itself.
    let second = Place::new("office-second");
    let (gateways, world_at) = ([place.at(NEIGHBOUR), second.at(NEIGHBOUR)], place.at(WORLD));
    let conf = conf(&place, gateways);
    let file = conf.write(&place).display().to_string();
    let authority = prepared(&place);
    let checked = process::run(&place, "check", binary(), &["check", "-c", &file], PATIENCE);
    assert_eq!(checked.code, Some(0), "{checked:?}");

    let first_gateway = gateway(&place, gateways[0], place.at(SERVER), world_at);
    let _second_gateway = gateway(&second, gateways[1], place.at(SERVER), world_at);
    let server = conf.start(&place);
    let registered = || (server.stat(&place, "strowger_trunk_registered{trunk=\"carrier\"}") == 1.0).then_some(());
    assert!(wait_for(PATIENCE, registered).is_some(), "{}", server.log());

    let account =
        |user: &str, way: &str| format!("<sip:{user}@example.com>;outbound=\"sip:{way}\";regint=600;auth_pass=open-{user}");
    let secure = account("10", &format!("{};transport=tls", server.secure()));
    let clear = account("11", &server.address.to_string());
    let ip = server.address.ip();
    let mut ten = Baresip::with_account(&place, ip, "10", PHONES[0], &secure, Some(&authority.file));
    let mut eleven = Baresip::with_account(&place, ip, "11", PHONES[1], &clear, None);
    let account = format!("<sip:49171234567@{world_at}>;regint=0");
    let mut world = Baresip::with_account(&place, gateways[0].ip(), "world", WORLD, &account, None);
    for phone in [&ten, &eleven] {
        phone.wait_for_message("200 to REGISTER", |sent, message| !sent && message.answers("REGISTER", 200));
    }

    // Within the office, from TLS to UDP and back.
    ten.command("dial", "sip:11@example.com");
    talk(&mut ten, &mut eleven);
    eleven.command("dial", "sip:10@example.com");
    talk(&mut eleven, &mut ten);

    // Out and in.
    ten.command("dial", "sip:0171234567@example.com");
    talk(&mut ten, &mut world);
    let called = invites(&world);
    assert!(called.iter().all(|invite| invite.request_uri().contains("49171234567@")), "{called:?}");
    assert!(called.iter().all(|invite| invite.all("proxy-authorization").is_empty()), "{called:?}");
    world.command("dial", &format!("sip:493012311@{}", gateways[0]));
    talk(&mut world, &mut eleven);

    // The first gateway goes. The caller does not notice.
    assert!(is_up(&server, &place, gateways[0]) && is_up(&server, &place, gateways[1]));
    drop(first_gateway);
    eleven.command("dial", "sip:0171234567@example.com");
    talk(&mut eleven, &mut world);
    assert!(!is_up(&server, &place, gateways[0]) && is_up(&server, &place, gateways[1]));
    let last = invites(&world).pop().expect("it was called");
    assert_eq!(last.vias()[0].sent_by, gateways[1].to_string());

    // Who is nobody calls neither out nor in another's name; 112 takes everybody.
    let stranger = Agent::new(place.at(STRANGER), server.address);
    for (from, expected) in [("<sip:x@elsewhere.test>;tag=x", 403), ("<sip:10@example.com>;tag=x", 407)] {
        let mut invite = stranger.request("INVITE", "sip:0171234567@example.com");
        invite.from = from.to_owned();
        assert_eq!(stranger.ask(&invite).status(), Some(expected), "{from}");
    }
    stranger.send(&stranger.request("INVITE", "sip:112@example.com"));
    world
        .wait_for_message("the emergency call", |_, message| message.is("INVITE") && message.request_uri().starts_with("sip:112@"));
}
