//! Two baresip phones that register and call each other. What they send and receive is read from their own traces of the wire.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::message::Message;
use crate::pki::{Authority, Kind};
use crate::place::{Place, SERVER, wait_for};
use crate::process::Process;
use crate::server::{Conf, Server};

pub struct Baresip {
    process: Process,
    control: TcpStream,
    pub user: &'static str,
    aor: String,
    server: IpAddr,
}

/// How the phones speak.
enum Way {
    Udp,
    Tcp,
    /// With the authority that the server's certificate must come from.
    Tls(Authority),
}

impl Way {
    /// The AOR, which says where and how to reach the server.
    fn aor(&self, server: &Server, user: &str) -> String {
        match self {
            Way::Udp => server.uri(user),
            Way::Tcp => format!("{};transport=tcp", server.uri(user)),
            Way::Tls(_) => format!("sip:{user}@{};transport=tls", server.secure()),
        }
    }

    /// As a Via says it.
    fn name(&self) -> &'static str {
        match self {
            Way::Udp => "UDP",
            Way::Tcp => "TCP",
            Way::Tls(_) => "TLS",
        }
    }
}

impl Baresip {
    /// A phone of `user` on the address of `host`, which registers at once.
    fn start(place: &Place, server: &Server, way: &Way, user: &'static str, host: u8) -> Baresip {
        let authority = match way {
            Way::Tls(authority) => Some(authority.file.as_path()),
            _ => None,
        };
        Baresip::register(place, user, host, (server.address.ip(), way.aor(server, user)), authority, 600)
    }

    /// The same at a server that is at `ip`, with this AOR and this lifetime; over TLS its certificate must come from the authority.
    pub fn register(
        place: &Place,
        user: &'static str,
        host: u8,
        (server, aor): (IpAddr, String),
        authority: Option<&Path>,
        expires: u32,
    ) -> Baresip {
        let account = format!("<{aor}>;regint={expires};auth_pass=open-{user}");
        Baresip { aor, ..Baresip::with_account(place, server, user, host, &account, authority) }
    }

    /// A phone with an account as baresip writes it, and a wave file for a microphone. `server` is where its messages come from.
    pub fn with_account(
        place: &Place,
        server: IpAddr,
        user: &'static str,
        host: u8,
        account: &str,
        authority: Option<&Path>,
    ) -> Baresip {
        let folder = place.path(user);
        fs::create_dir(&folder).expect("the phone's folder");
        let modules = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules", "/usr/lib64/baresip/modules"];
        let modules = modules.iter().find(|path| Path::new(path).exists()).expect("baresip's modules");
        let microphone = folder.join("microphone.wav");
        fs::write(&microphone, silence()).expect("the phone's microphone");
        let (ip, microphone) = (place.ip(host), microphone.display());
        let ear = folder.join("ear.wav");
        let mut config = format!(
            "poll_method epoll\nsip_listen {ip}:5060\nnet_interface {ip}\nctrl_tcp_listen {ip}:4444\nmodule_path {modules}\n\
             audio_source aufile,{microphone}\naudio_player aufile,{}\naudio_alert aufile,{}\n\
             module g711.so\nmodule aufile.so\nmodule_tmp uuid.so\nmodule_tmp account.so\nmodule_app ctrl_tcp.so\nmodule_app menu.so\n",
            ear.display(),
            ear.display(),
        );
        if let Some(authority) = authority {
            config += &format!("sip_cafile {}\n", authority.display());
        }
        fs::write(folder.join("config"), config).expect("config");
        fs::write(folder.join("accounts"), format!("{account}\n")).expect("accounts");
        fs::write(folder.join("contacts"), "").expect("contacts");
        let arguments = ["-4".to_owned(), "-s".to_owned(), "-f".to_owned(), folder.display().to_string()];
        let process = Process::start(place, user, Path::new("baresip"), &arguments, &[("HOME", &folder.display().to_string())]);
        let control = wait_for(Duration::from_secs(10), || TcpStream::connect((ip, 4444)).ok());
        let control =
            control.unwrap_or_else(|| panic!("baresip does not open its control port: {}{}", process.stdout(), process.stderr()));
        Baresip { process, control, user, aor: String::new(), server }
    }

    /// A command to the phone, e.g. `dial`: a netstring of JSON.
    pub fn command(&mut self, command: &str, parameters: &str) {
        let text = format!(r#"{{"command":"{command}","params":"{parameters}","token":"test"}}"#);
        write!(self.control, "{}:{text},", text.len()).expect("a command to baresip");
    }

    /// Waits until the phone reports an event, e.g. `CALL_ESTABLISHED`.
    pub fn event(&mut self, event: &str) {
        self.control.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let mut heard = String::new();
        let found = wait_for(Duration::from_secs(10), || {
            let mut buffer = [0; 4096];
            if let Ok(length) = self.control.read(&mut buffer) {
                heard += &String::from_utf8_lossy(&buffer[..length]);
            }
            heard.contains(&format!(r#""type":"{event}""#)).then_some(())
        });
        assert!(found.is_some(), "{} waited for {event} and heard {heard}", self.user);
    }

    /// Every message the phone has sent or received: (sent, message).
    pub fn trace(&self) -> Vec<(bool, Message)> {
        let text = self.process.stdout();
        let mut messages = Vec::new();
        for piece in text.split("\u{1b}[36;1m#\n").skip(1) {
            let Some((ways, rest)) = piece.split_once('\n') else {
                continue;
            };
            let from = ways.split_whitespace().nth(1).unwrap_or_default();
            let sent = !from.starts_with(&format!("{}:", self.server));
            let message = rest.split("\u{1b}[;m").next().unwrap_or_default();
            messages.extend(Message::read(message.as_bytes()).map(|message| (sent, message)));
        }
        messages
    }

    pub fn wait_for_message(&self, what: &str, fits: impl Fn(bool, &Message) -> bool) -> Message {
        let found = wait_for(Duration::from_secs(10), || self.trace().into_iter().find(|(sent, message)| fits(*sent, message)));
        found.unwrap_or_else(|| panic!("{} has not seen {what}:\n{}", self.user, self.process.stdout())).1
    }
}

/// A second of silence, 8 kHz, 16 bits, one channel.
fn silence() -> Vec<u8> {
    let samples = 8000_u32;
    let mut wave = Vec::new();
    wave.extend(b"RIFF");
    wave.extend((36 + samples * 2).to_le_bytes());
    wave.extend(b"WAVEfmt ");
    wave.extend(16_u32.to_le_bytes());
    wave.extend([1, 0, 1, 0]);
    wave.extend(8000_u32.to_le_bytes());
    wave.extend(16_000_u32.to_le_bytes());
    wave.extend([2, 0, 16, 0]);
    wave.extend(b"data");
    wave.extend((samples * 2).to_le_bytes());
    wave.resize(44 + samples as usize * 2, 0);
    wave
}

#[test]
fn two_phones_call_each_other() {
    let place = Place::new("baresip");
    let server = Conf::new(&place).start(&place);
    call_each_other(&place, &server, &Way::Udp);
}

#[test]
fn two_phones_call_each_other_over_tcp() {
    let place = Place::new("baresip-tcp");
    let conf = Conf::new(&place);
    let server = conf.stream("tcp", place.at(SERVER)).start(&place);
    call_each_other(&place, &server, &Way::Tcp);
    assert_messages(&place, &server, "tcp");
}

#[test]
fn two_phones_call_each_other_over_tls() {
    let place = Place::new("baresip-tls");
    let authority = Authority::new(&place, "ca");
    let ip = place.ip(SERVER).to_string();
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[&ip]);
    let conf = Conf::new(&place).tls(&place, &[&certificate]);
    let server = conf.start(&place);
    call_each_other(&place, &server, &Way::Tls(authority));
    assert_messages(&place, &server, "tls");
    let stats = server.stats(&place);
    let client = "strowger_tls_handshakes_total{side=\"client\",kind=\"full\"}";
    assert_eq!(stats[client], 0.0, "the phones' own connections were used");
}

#[test]
fn two_phones_with_passwords_call_each_other() {
    let place = Place::new("baresip-auth");
    let server = crate::auth::guarded(&place, &["alice", "bob"]).start(&place);
    call_each_other(&place, &server, &Way::Udp);
    let stats = server.stats(&place);
    let auth = |outcome: &str| stats[format!("strowger_auth_total{{outcome={outcome:?}}}").as_str()];
    // Each registers, unregisters and calls.
    assert!(auth("accepted") >= 6.0, "{stats:?}");
    assert_eq!(auth("wrong_response") + auth("forbidden") + auth("replayed"), 0.0);
}

/// All that passed took one transport.
fn assert_messages(place: &Place, server: &Server, transport: &str) {
    for (name, value) in server.stats(place) {
        if name.starts_with("strowger_messages_total") && name.contains("request") {
            let own = name.contains(&format!("transport=\"{transport}\""));
            assert_eq!(value > 0.0, own, "{name}: {value}");
        }
    }
}

fn call_each_other(place: &Place, server: &Server, way: &Way) {
    let (at_alice, at_bob) = (place.ip(21).to_string(), place.ip(22).to_string());
    let mut alice = Baresip::start(place, server, way, "alice", 21);
    let mut bob = Baresip::start(place, server, way, "bob", 22);
    for (phone, ip) in [(&alice, &at_alice), (&bob, &at_bob)] {
        let registered = phone.wait_for_message("200 to REGISTER", |sent, message| !sent && message.answers("REGISTER", 200));
        assert_eq!(registered.contacts().len(), 1, "{registered:?}");
        let shown = server.show(place, phone.user);
        assert!(shown.stdout.contains(ip.as_str()), "{shown:?}");
    }

    alice.command("dial", &bob.aor);
    bob.event("CALL_INCOMING");
    alice.event("CALL_RINGING");
    bob.command("accept", "");
    alice.event("CALL_ESTABLISHED");
    bob.event("CALL_ESTABLISHED");
    alice.command("hangup", "");
    bob.event("CALL_CLOSED");
    alice.wait_for_message("200 to BYE", |sent, message| !sent && message.answers("BYE", 200));

    let server_address = match way {
        Way::Tls(_) => server.secure().to_string(),
        _ => server.address.to_string(),
    };
    let invite = bob.wait_for_message("INVITE", |sent, message| !sent && message.is("INVITE"));
    assert_eq!(invite.vias().len(), 2);
    assert_eq!(invite.top_via().sent_by, server_address);
    assert_eq!(invite.top_via().transport, way.name());
    assert_eq!(invite.all("record-route").len(), 1);
    assert_eq!(invite.max_forwards(), Some(69));
    for method in ["ACK", "BYE"] {
        let arrived =
            bob.wait_for_message(method, |sent, message| !sent && message.is(method) && message.call_id() == invite.call_id());
        assert_eq!(arrived.vias().len(), 2, "{arrived:?}");
        assert!(arrived.all("route").is_empty(), "{arrived:?}");
        assert_eq!(
            vec![arrived.request_uri().to_owned()],
            bob.wait_for_message("200", |sent, message| sent && message.answers("INVITE", 200)).contacts()
        );
    }
    let heard: Vec<Message> = alice
        .trace()
        .into_iter()
        .filter(|(sent, message)| !sent && message.call_id() == invite.call_id())
        .map(|(_, message)| message)
        .collect();
    assert!(heard.iter().any(|message| message.answers("INVITE", 100)));
    assert_eq!(heard.iter().filter(|message| message.is_final_for("INVITE") && !message.answers("INVITE", 407)).count(), 1);
    assert_eq!(heard.iter().filter(|message| message.is_final_for("BYE")).count(), 1);

    // The other way round, and given up while it rings.
    bob.command("dial", &alice.aor);
    alice.event("CALL_INCOMING");
    bob.event("CALL_RINGING");
    bob.command("hangup", "");
    alice.event("CALL_CLOSED");
    bob.wait_for_message("487", |sent, message| !sent && message.answers("INVITE", 487));
    let cancel = alice.wait_for_message("CANCEL", |sent, message| !sent && message.is("CANCEL"));
    assert_eq!(cancel.vias().len(), 1);

    // Phones that are switched off take their bindings with them.
    for (phone, ip) in [(&mut alice, &at_alice), (&mut bob, &at_bob)] {
        phone.command("quit", "");
        let gone =
            wait_for(Duration::from_secs(5), || (!server.show(place, phone.user).stdout.contains(ip.as_str())).then_some(()));
        assert!(gone.is_some(), "{} is still registered", phone.user);
    }
}
