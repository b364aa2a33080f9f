//! `[trace] hep`: copies for a collector, read by Kamailio's own decoder, and collectors that are dead, unknown or changed.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use crate::agent::{Agent, bind};
use crate::message::find;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, STRANGER, wait_for};
use crate::process::Process;
use crate::server::{Conf, Server};

const NAME: &str = "sip.example.test";

/// The collector's host within the place.
const COLLECTOR: u8 = 9;
const PORT: u16 = 9060;

/// The columns of the table that Kamailio's module sipcapture writes: those that are numbers, and the others.
const NUMBERS: [&str; 9] =
    ["date", "micro_ts", "source_port", "destination_port", "contact_port", "originator_port", "proto", "family", "type"];
const COLUMNS: &str = "date micro_ts method reply_reason ruri ruri_user ruri_domain from_user from_domain from_tag to_user to_domain to_tag \
    pid_user contact_user auth_user callid callid_aleg via_1 via_1_branch cseq diversion reason content_type auth authorization user_agent \
    source_ip source_port destination_ip destination_port contact_ip contact_port originator_ip originator_port correlation_id proto family \
    rtp_stat type node msg custom_field1 custom_field2 custom_field3 id";

/// What it logs of each message that it has stored.
const STORED: &str = "a copy is stored";

/// Kamailio as a collector, which writes what it decodes into a table of text.
struct Kamailio {
    process: Option<Process>,
    table: std::path::PathBuf,
}

impl Kamailio {
    fn start(place: &Place) -> Kamailio {
        let folder = place.path("collected");
        fs::create_dir_all(&folder).expect("the collector's folder");
        let column = |name: &str| match NUMBERS.contains(&name) {
            true => format!("{name}(int,null)"),
            false => format!("{name}(string,null)"),
        };
        let head: Vec<String> = COLUMNS.split_whitespace().map(column).collect();
        let table = folder.join("sip_capture");
        fs::write(&table, head.join(" ") + "\n").expect("the table");
        fs::write(folder.join("version"), "table_name(string) table_version(int)\n").expect("the table of versions");
        let script = format!(
            "#!KAMAILIO\ndebug=1\nlog_stderror=yes\nchildren=1\nauto_aliases=no\ndns=no\nrev_dns=no\ndisable_tcp=yes\n\
             listen=udp:{}\nloadmodule \"pv.so\"\nloadmodule \"xlog.so\"\nloadmodule \"db_text.so\"\n\
             loadmodule \"sipcapture.so\"\nmodparam(\"sipcapture\", \"db_url\", \"text://{}\")\n\
             modparam(\"sipcapture\", \"capture_on\", 1)\nmodparam(\"sipcapture\", \"hep_capture_on\", 1)\n\
             request_route {{ route(COPY); }}\nonreply_route {{ route(COPY); }}\n\
             route[COPY] {{ sip_capture(); xlog(\"L_ALERT\", \"{STORED}\\n\"); drop; }}\n",
            place.at_port(COLLECTOR, PORT),
            folder.display()
        );
        let script = place.write("collector.cfg", &script).display().to_string();
        let run = folder.display().to_string();
        let arguments = ["-f", &script, "-DD", "-E", "-m", "32", "-M", "4", "-Y", &run, "-w", &run].map(str::to_owned);
        let program = ["/usr/sbin/kamailio", "/usr/local/sbin/kamailio"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("kamailio");
        let mut process = Process::start(place, "collector", Path::new(program), &arguments, &[]);
        // It serves when nobody else can have its port.
        let ready = wait_for(Duration::from_secs(15), || {
            let is_taken = UdpSocket::bind(place.at_port(COLLECTOR, PORT)).is_err();
            (is_taken || process.exited().is_some()).then_some(is_taken)
        });
        assert_eq!(ready, Some(true), "Kamailio: {}", process.stderr());
        Kamailio { process: Some(process), table }
    }

    /// Waits for so many messages. Of each: method or status, both ends, correlation, node, and the message, the oldest first.
    fn collect(mut self, count: usize) -> Vec<[String; 5]> {
        let process = self.process.take().expect("a collector that runs");
        wait_for(Duration::from_secs(10), || (process.stderr().matches(STORED).count() >= count).then_some(()));
        // It writes the table when it ends.
        process.signal("TERM");
        process.finish(Duration::from_secs(10));
        let text = fs::read_to_string(&self.table).expect("the table");
        let place = |name: &str| COLUMNS.split_whitespace().position(|column| column == name).expect(name);
        let row = |line: &str| {
            let cells = cells(line);
            let cell = |name: &str| cells.get(place(name)).cloned().unwrap_or_default();
            let end = |side: &str| format!("{}:{}", cell(&format!("{side}_ip")), cell(&format!("{side}_port")));
            let ends = format!("{} {}", end("source"), end("destination"));
            [cell("method"), ends, cell("correlation_id"), cell("node"), cell("msg")]
        };
        let mut rows: Vec<_> = text.lines().skip(1).map(row).collect();
        // The newest stand first in the file.
        rows.reverse();
        rows
    }
}

impl Drop for Kamailio {
    /// Its children end with it when it is asked to, and not when it is killed.
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take()
            && process.exited().is_none()
        {
            process.signal("TERM");
            wait_for(Duration::from_secs(5), || process.exited());
        }
    }
}

/// The cells of a row: colons stand between them, and a backslash before one that does not.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut is_escaped) = (vec![String::new()], false);
    for c in line.chars() {
        let last = cells.len() - 1;
        match c {
            _ if is_escaped => {
                cells[last].push(c);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            ':' => cells.push(String::new()),
            c => cells[last].push(c),
        }
    }
    cells
}

fn conf(place: &Place, collector: &str) -> Conf {
    Conf::new(place).set("trace", "hep", &format!("\"udp:{collector}\"")).set("trace", "hep_id", "77")
}

/// Sends a MESSAGE to bob, who answers 200; its Call-ID.
fn call(server: &Server, caller: &Agent, phone: &Agent) -> String {
    let request = caller.request("MESSAGE", &server.uri("bob")).with("Authorization: Digest response=\"SECRET\"");
    caller.send(&request);
    let arrived = phone.expect("the request", |message| message.call_id() == request.call_id);
    phone.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    request.call_id
}

#[test]
fn kamailio_decodes_what_it_is_sent() {
    let place = Place::new("hep-kamailio");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
    let collector = Kamailio::start(&place);
    let server = conf(&place, &place.at_port(COLLECTOR, PORT).to_string()).tls(&place, &[&certificate]).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let caller = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
    let call_id = call(&server, &caller, &phone);
    let rows = collector.collect(4);
    let (there, here, phone, ours) = (caller.address, caller.peer, phone.address, server.address);
    let heads: Vec<String> = rows.iter().map(|row| row[..4].join(" ")).collect();
    let expected = [
        format!("MESSAGE {there} {here} {call_id} homer01:77"),
        format!("MESSAGE {ours} {phone} {call_id} homer01:77"),
        format!("200 {phone} {ours} {call_id} homer01:77"),
        format!("200 {here} {there} {call_id} homer01:77"),
    ];
    assert_eq!(heads, expected);
    let text = format!("{rows:?}");
    assert!(text.contains("Digest *****") && !text.contains("SECRET"), "{text}");
    assert_eq!(server.stat(&place, "strowger_hep_sent_total"), 4.0);
    assert_eq!(server.stat(&place, "strowger_hep_lost_total"), 0.0);
}

/// A collector that refuses, and one whose name does not exist: calls go on, and what is lost is counted and said once.
#[test]
fn a_dead_or_unknown_collector_changes_nothing() {
    for (name, collector) in [("closed", None), ("unknown", Some("no-such-host.invalid:9060"))] {
        let place = Place::new(&format!("hep-{name}"));
        let closed = place.at_port(COLLECTOR, PORT).to_string();
        let collector = collector.unwrap_or(&closed);
        let mut server = conf(&place, collector).start(&place);
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.bind(&place, "bob", phone.address);
        let caller = Agent::new(place.at_port(CALLER, 0), server.address);
        for _ in 0..25 {
            call(&server, &caller, &phone);
        }
        let lost = wait_for(Duration::from_secs(20), || {
            let lost = server.stat(&place, "strowger_hep_lost_total");
            let sent = server.stat(&place, "strowger_hep_sent_total");
            (lost + sent >= 100.0).then_some(lost)
        });
        // The kernel hears of a closed port with every second datagram at best.
        assert!(lost.is_some_and(|lost| lost >= 2.0), "{name}: {lost:?}");
        server.expect_log(&["[trace] hep", collector, "copies are lost"]);
        assert_eq!(server.log().matches("copies are lost").count(), 1, "{}", server.log());
        server.assert_alive(&place, STRANGER);
    }
}

#[test]
fn a_reload_changes_the_collector_and_the_share() {
    let place = Place::new("hep-reload");
    let (first, second) = (bind(place.at_port(COLLECTOR, PORT)), bind(place.at_port(COLLECTOR, PORT + 1)));
    for socket in [&first, &second] {
        socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a time-out");
    }
    let address = |socket: &UdpSocket| socket.local_addr().expect("an address").to_string();
    let server = conf(&place, &address(&first)).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    // How many copies came, all of them of this call.
    let copies = |socket: &UdpSocket, call_id: &str| {
        let mut buffer = [0; 4096];
        let mut count = 0;
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            assert!(find(&buffer[..length], call_id.as_bytes()).is_some());
            count += 1;
        }
        count
    };
    let call_id = call(&server, &caller, &phone);
    assert_eq!((copies(&first, &call_id), copies(&second, &call_id)), (4, 0));
    for (conf, expected) in [
        (conf(&place, &address(&second)), (0, 4)),
        (conf(&place, &address(&second)).set("trace", "share", "0.0"), (0, 0)),
        (Conf::new(&place), (0, 0)),
        (conf(&place, &address(&first)).set("trace", "share", "1"), (4, 0)),
    ] {
        conf.write(&place);
        let reloaded = server.command(&place, &["reload"]);
        assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
        let call_id = call(&server, &caller, &phone);
        assert_eq!((copies(&first, &call_id), copies(&second, &call_id)), expected);
    }
    // What waits is sent before the end.
    let call_id = call(&server, &caller, &phone);
    server.signal("INT");
    assert_eq!(server.finish(Duration::from_secs(10)).code, Some(0));
    assert_eq!(copies(&first, &call_id), 4);
}

#[test]
fn a_call_is_copied_whole_or_not_at_all() {
    let place = Place::new("hep-share");
    let collector = bind(place.at_port(COLLECTOR, PORT));
    collector.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let address = place.at_port(COLLECTOR, PORT).to_string();
    let server = conf(&place, &address).set("trace", "share", "0.5").start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    let call_ids: Vec<String> = (0..24).map(|_| call(&server, &caller, &phone)).collect();
    let mut counts = vec![0; call_ids.len()];
    let mut buffer = [0; 4096];
    while let Ok((length, _)) = collector.recv_from(&mut buffer) {
        let of = |call_id: &String| find(&buffer[..length], format!("{call_id}\r\n").as_bytes()).is_some();
        counts[call_ids.iter().position(of).expect("a copy of one of them")] += 1;
    }
    assert!(counts.iter().all(|count| [0, 4].contains(count)), "{counts:?}");
    // That all or none of 24 are picked is less likely than one in a million.
    assert!(counts.contains(&0) && counts.contains(&4), "{counts:?}");
}
