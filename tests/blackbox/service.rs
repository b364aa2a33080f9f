//! As a service: what the service manager is told, and whose rights the server has once it serves.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::place::{CALLER, Place, SERVER};
use crate::process::{self, Outcome};
use crate::server::{Conf, binary};

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Manager {
        let socket = UnixDatagram::bind_addr(address).expect("the manager's socket");
        let patience = Some(Duration::from_secs(10));
        socket.set_read_timeout(patience).expect("a time-out");
        Manager(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 1000];
        let length = self.0.recv(&mut bytes).expect("a word from the server");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    /// The next word that is no beat of the watchdog.
    fn next_but_alive(&self) -> String {
        loop {
            match self.next() {
                word if word == "WATCHDOG=1" => {}
                word => return word,
            }
        }
    }

    /// Asserts that a word begins with this line, and has a line of status for people.
    fn expect(&self, line: &str) -> String {
        let word = self.next_but_alive();
        let mut lines = word.lines();
        assert_eq!(lines.next(), Some(line), "{word}");
        assert!(lines.any(|line| line.starts_with("STATUS=")), "{word}");
        word
    }
}

#[test]
fn the_service_manager_hears_all_of_a_servers_life() {
    let place = Place::new("notify");
    let path = place.path("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).expect("a path"));
    let path = path.display().to_string();
    // The server feeds the watchdog three times in this time.
    let patience = Duration::from_millis(900);
    let patience_us = patience.as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", &patience_us)];
    let mut server = Conf::new(&place).start_with(&place, &environment);
    manager.expect("READY=1");
    server.assert_alive(&place, CALLER);

    let begin = Instant::now();
    let mut last = begin;
    for _ in 0..6 {
        assert_eq!(manager.next(), "WATCHDOG=1");
        assert!(last.elapsed() < patience, "after {:?}", last.elapsed());
        last = Instant::now();
    }
    assert!(begin.elapsed() > patience, "after {:?}", begin.elapsed());

    let reload = server.command(&place, &["reload"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    let word = manager.expect("RELOADING=1");
    let at_us = word.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(at_us.is_some_and(|us| us.parse::<u64>().is_ok_and(|us| us > 0)));
    manager.expect("READY=1");
    server.signal("HUP");
    manager.expect("RELOADING=1");
    manager.expect("READY=1");

    // It drains for up to 30 s, and asks for that time.
    server.signal("TERM");
    let word = manager.expect("STOPPING=1");
    let asked_us = word.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let asked_us: u64 = asked_us.expect("it").parse().expect("a number");
    assert!((44_000_000..=45_000_000).contains(&asked_us), "{word}");
    assert!(word.ends_with("\nSTATUS=draining"), "{word}");
    let word = manager.expect("STOPPING=1");
    assert!(word.ends_with("\nSTATUS=stopping"), "{word}");
    let end = server.finish(Duration::from_secs(10));
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn its_socket_can_be_an_abstract_one() {
    let place = Place::new("notify-abstract");
    let name = format!("strowger-{}", place.at(SERVER));
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::at(&address);
    let spelled = format!("@{name}");
    // A watchdog of somebody else's.
    let environment = [("NOTIFY_SOCKET", spelled.as_str()), ("WATCHDOG_USEC", "60000"), ("WATCHDOG_PID", "1")];
    let server = Conf::new(&place).start_with(&place, &environment);
    assert!(manager.next().starts_with("READY=1\n"));
    std::thread::sleep(Duration::from_millis(200));
    server.signal("TERM");
    assert!(manager.next().starts_with("STOPPING=1\n"));
}

#[test]
fn a_manager_that_is_not_there_does_no_harm() {
    let place = Place::new("notify-nobody");
    for socket in ["/nowhere/notify", "relative", ""] {
        let environment = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "100000")];
        let mut server = Conf::new(&place).start_with(&place, &environment);
        server.assert_alive(&place, CALLER);
        server.signal("TERM");
        let end = server.finish(Duration::from_secs(10));
        assert_eq!(end.code, Some(0), "{end:?}");
        let told = end.stderr.contains("service manager");
        assert_eq!(told, !socket.is_empty(), "{end:?}");
    }
}

/// The effective user of this process.
fn own_user() -> u32 {
    fs::metadata("/proc/self").expect("this process").uid()
}

/// The numbers behind a name of a thread's status.
fn numbers(status: &str, name: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let fields = line.expect("it is there").split_whitespace();
    fields.map(|field| field.parse().expect("a number")).collect()
}

/// A number of a user or group, by the file that every system has.
fn number_of(file: &str, name: &str) -> u32 {
    let text = fs::read_to_string(file).expect("the file");
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let field = line.and_then(|line| line.split(':').nth(2));
    field.expect("an entry").parse().expect("a number")
}

#[test]
fn root_binds_and_nobody_serves() {
    if own_user() != 0 {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let place = Place::new("user");
    let (nobody, daemon) = (number_of("/etc/passwd", "nobody"), number_of("/etc/group", "daemon"));
    chown(place.directory(), Some(nobody), None).expect("nobody's folder");
    // A port that only root can bind, and a database for which it needs nobody's rights.
    let address = place.at_port(SERVER, 843);
    let conf = Conf::new(&place)
        .only(address)
        .stream("tcp", address)
        .set("server", "cores", "[0]")
        .set("server", "user", "\"nobody\"")
        .set("server", "group", "\"daemon\"")
        .set("registrar", "database", "\"bindings.db\"")
        .set("auth", "challenge_register", "true")
        .set("auth", "users", "\"users.db\"");
    let file = conf.write(&place).display().to_string();
    let users = ["user", "add", "a@example.test", "--password", "x", "--create"];
    let added = run(&place, &[&["-c", &file], &users[..]].concat());
    assert_eq!(added.code, Some(0), "{added:?}");
    chown(place.path("users.db"), Some(nobody), None).expect("nobody's database");

    let mut server = conf.start(&place);
    server.assert_alive(&place, CALLER);
    let tasks = format!("/proc/{}/task", server.id());
    let mut threads = 0;
    for task in fs::read_dir(&tasks).expect("the server's threads") {
        let path = task.expect("a thread").path().join("status");
        let status = fs::read_to_string(path).expect("its status");
        assert_eq!(numbers(&status, "Uid"), [nobody; 4], "{status}");
        assert_eq!(numbers(&status, "Gid"), [daemon; 4], "{status}");
        assert_eq!(numbers(&status, "Groups"), [daemon], "{status}");
        assert_eq!(numbers(&status, "NoNewPrivs"), [1], "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let none = format!("{set}:\t0000000000000000");
            assert!(status.lines().any(|line| line == none), "{status}");
        }
        threads += 1;
    }
    assert!(threads >= 3, "{threads} threads");
    assert_eq!(server.stat(&place, "strowger_users"), 1.0);
    let socket = fs::metadata(place.path("control.sock")).expect("the control socket");
    assert_eq!(socket.uid(), nobody);
    let bindings = fs::metadata(place.path("bindings.db")).expect("the bindings");
    assert_eq!(bindings.uid(), nobody);
    for beside in ["users.db-wal", "users.db-shm"] {
        if let Ok(file) = fs::metadata(place.path(beside)) {
            assert_eq!(file.uid(), nobody, "{beside}");
        }
    }
    // What it reads again it still can.
    let reload = server.command(&place, &["reload"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    let agent = Agent::new(place.at_port(CALLER, 0), address);
    agent.send(&agent.request("REGISTER", "sip:example.test"));
    agent.expect("401", |message| message.answers("REGISTER", 401));
}

fn run(place: &Place, arguments: &[&str]) -> Outcome {
    let within = Duration::from_secs(10);
    process::run(place, "command", binary(), arguments, within)
}

#[test]
fn who_cannot_be_somebody_else_does_not_serve() {
    let place = Place::new("user-refused");
    for (user, group, why) in [
        ("no-such-user", "", "there is no user \"no-such-user\""),
        ("nobody", "no-such-group", "there is no group \"no-such-group\""),
        ("root", "", "user \"root\" is root"),
    ] {
        let conf = Conf::new(&place).set("server", "user", &format!("{user:?}")).set("server", "group", &format!("{group:?}"));
        let file = conf.write(&place).display().to_string();
        for command in ["check", "run"] {
            let outcome = run(&place, &[command, "-c", &file]);
            assert_eq!(outcome.code, Some(1), "{command}: {outcome:?}");
            let told = format!("[server] user: {why}");
            assert!(outcome.stderr.contains(&told), "{command}: {outcome:?}");
        }
    }
    if own_user() != 0 {
        let conf = Conf::new(&place).set("server", "user", "\"nobody\"");
        let file = conf.write(&place).display().to_string();
        let outcome = run(&place, &["run", "-c", &file]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("only root"), "{outcome:?}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let place = Place::new("unit");
    let unit = include_str!("../../conf/strowger.service");
    let installed = "/usr/local/bin/strowger";
    assert!(unit.contains(installed));
    let unit = unit.replace(installed, &binary().display().to_string());
    let file = place.write("strowger.service", &unit);
    let file = file.display().to_string();
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no", &file]).output();
    match verify {
        Err(error) => eprintln!("skipped: no systemd-analyze here ({error})"),
        Ok(output) => {
            // What it does not know it says, and ignores.
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            assert!(!said.contains("strowger.service"), "{said}");
        }
    }
}

#[test]
fn the_containers_conf_needs_nothing_beside_it() {
    let place = Place::new("container-conf");
    let conf = include_str!("../../conf/container.toml").replace("/run/strowger", &place.directory().display().to_string());
    let conf = conf.replace("0.0.0.0", &place.ip(SERVER).to_string());
    // In the container the folder of the conf is root's and the server is not root, so all that it keeps must be in the volume. Root may
    // write anywhere, hence the look at what is in the folder in the end.
    let [etc, volume] = ["etc", "volume"].map(|name| place.directory().join(name));
    for folder in [&etc, &volume] {
        fs::create_dir(folder).unwrap();
    }
    let conf = conf.replace("/var/lib/strowger", &volume.display().to_string());
    let file = etc.join("container.toml");
    fs::write(&file, conf).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o555)).unwrap();
    let file = file.display().to_string();
    let checked = run(&place, &["check", "-c", &file]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    // Nobody registers until somebody says who may.
    let mut server = process::Process::start(&place, "server", binary(), &["run".to_owned(), "-c".to_owned(), file], &[]);
    let agent = Agent::new(place.at(CALLER), place.at(SERVER));
    let answers = |method: &str| {
        crate::place::wait_for(Duration::from_secs(10), || {
            agent.send(&agent.request(method, "sip:sip.example.com"));
            agent.receive(Duration::from_millis(500))?.status()
        })
    };
    assert_eq!(answers("OPTIONS"), Some(200));
    assert!(answers("REGISTER").is_some_and(|status| status >= 400));
    assert!(server.exited().is_none());
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    let names = |folder| -> Vec<_> { fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    assert_eq!(names(&etc), ["container.toml"]);
    assert!(names(&volume).contains(&"strowger.key".into()), "{:?}", names(&volume));
}
