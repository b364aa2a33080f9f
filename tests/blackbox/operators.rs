//! What operators do at the command line, from wherever they stand, and what they are told.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::place::{Place, wait_for};
use crate::process::{self, Outcome, Process};
use crate::server::{Conf, binary};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command from a folder of its own.
fn from(folder: &str, place: &Place, arguments: &[&str]) -> Outcome {
    let script = "cd \"$1\"; shift; exec \"$@\"";
    let program = binary().display().to_string();
    let all = [&["-c", script, "sh", folder, &program], arguments].concat();
    process::run(place, "elsewhere", Path::new("sh"), &all, PATIENCE)
}

/// A conf that names its files by relative paths, in `etc` of the place, and the folder `elsewhere` beside it.
fn relative(place: &Place) -> String {
    for folder in ["etc", "elsewhere"] {
        std::fs::create_dir(place.path(folder)).expect("a folder");
    }
    let conf = Conf::new(place).set("control", "socket", "\"own.sock\"").set("auth", "users", "\"users.db\"");
    place.write("etc/strowger.toml", &conf.set("registrar", "database", "\"bindings.db\"").text()).display().to_string()
}

#[test]
fn relative_paths_are_below_the_conf_wherever_one_stands() {
    let place = Place::new("below");
    let file = relative(&place);
    let database = place.path("etc/users.db").display().to_string();
    let add = ["-c", &file, "user", "add", "alice", "--password", "x"];
    let refused = from("elsewhere", &place, &add);
    let said = [database.as_str(), "there is no such database", "--create", "-c"];
    assert!(refused.code == Some(1) && said.iter().all(|words| refused.stderr.contains(words)), "{refused:?}");
    assert!(!place.path("etc/users.db").exists());

    let added = from("elsewhere", &place, &[&add[..], &["--create"]].concat());
    assert_eq!(added.stdout, format!("alice@example.test added in {database}\n"), "{added:?}");
    for (arguments, said) in [
        (vec!["user", "passwd", "alice", "--password", "y"], "the password of alice@example.test changed"),
        (vec!["user", "rm", "alice"], "alice@example.test removed"),
    ] {
        // By a relative name as well.
        let arguments = [vec!["-c", "../etc/strowger.toml"], arguments].concat();
        let done = from("elsewhere", &place, &arguments);
        assert!(done.code == Some(0) && done.stdout.starts_with(said) && done.stdout.contains("etc/users.db"), "{done:?}");
    }

    let arguments = ["-c", "etc/strowger.toml", "run"].map(str::to_owned);
    let mut server = Process::start(&place, "server", binary(), &arguments, &[]);
    let serves = || (server.stdout().contains("listening") && place.path("etc/own.sock").exists()).then_some(());
    assert!(wait_for(PATIENCE, serves).is_some(), "{}", server.stderr());
    for made in ["etc/strowger.key", "etc/bindings.db"] {
        assert!(place.path(made).exists(), "{made}");
    }
    assert!(server.exited().is_none());
    let stats = from("elsewhere", &place, &["-c", "../etc/strowger.toml", "stats", "strowger_bindings"]);
    assert!(stats.code == Some(0) && stats.stdout.starts_with("strowger_bindings"), "{stats:?}");
    for folder in [".", "elsewhere"] {
        let files = std::fs::read_dir(place.path(folder)).expect("a folder");
        let names: Vec<String> = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name.ends_with(".db") || name.ends_with(".sock") || name.ends_with(".key")), "{names:?}");
    }
}

/// An update must not make a new secret and empty tables beside those that the server had.
#[test]
fn a_server_that_would_leave_its_files_behind_does_not_start() {
    let place = Place::new("left");
    relative(&place);
    place.write("strowger.key", "not looked at");
    let start = ["-c", "etc/strowger.toml", "run"];
    let refused = process::run(&place, "left", binary(), &start, PATIENCE);
    let said = ["[server] key_file: there is no ", "etc/strowger.key", "relative paths are below the conf's folder"];
    assert!(refused.code == Some(1) && said.iter().all(|words| refused.stderr.contains(words)), "{refused:?}");
    assert!(!place.path("etc/strowger.key").exists() && !place.path("etc/bindings.db").exists());
    let checked = process::run(&place, "check", binary(), &["-c", "etc/strowger.toml", "check"], PATIENCE);
    assert!(checked.code == Some(0) && checked.stdout.contains("warning    [server] key_file: there is no "), "{checked:?}");
}

/// Of a conf, commands that speak to the server need the socket's path alone.
#[test]
fn commands_work_while_the_conf_has_faults() {
    let place = Place::new("faulty");
    let server = Conf::new(&place).start(&place);
    let good = Conf::new(&place).text();
    let file = place.path("strowger.toml").display().to_string();
    let commands: [&[&str]; 9] = [
        &["stats"],
        &["ul", "show"],
        &["connections"],
        &["log"],
        &["top", "--once", "--interval", "0.1"],
        &["trace", "--seconds", "1"],
        &["targets"],
        &["trunks"],
        &["ul", "add", "bob", "sip:bob@192.0.2.1"],
    ];
    let missing = place.path("missing.pem").display().to_string();
    for text in [
        format!("{good}\n[timers]\nt1 = \"soon\"\n"),
        format!("{good}\n[tls]\ncertificate = {missing:?}\nprivate_key = {missing:?}\n"),
        format!("{good}\n[timers]\nt1 = \n"),
    ] {
        place.write("strowger.toml", &text);
        for command in commands {
            let outcome = process::run(&place, "command", binary(), &[&["-c", &file], command].concat(), PATIENCE);
            assert!(outcome.code == Some(0) && outcome.stderr.is_empty(), "{command:?}: {outcome:?}");
        }
        let said = server.log().len();
        let refused = process::run(&place, "reload", binary(), &["-c", &file, "reload"], PATIENCE);
        assert!(refused.code == Some(1) && refused.stderr.lines().count() > 0, "{refused:?}");
        for line in refused.stderr.lines() {
            server.expect_log_after(said, &["reload refused", line]);
            let log = server.log();
            assert_eq!(log[said..].matches(line).count(), 1, "said once: {}", &log[said..]);
        }
    }
    // What cannot be made out at all: the default path is tried, and one line says how to name another.
    place.write("strowger.toml", "no conf at all\n");
    let lost = process::run(&place, "lost", binary(), &["-c", &file, "stats"], PATIENCE);
    assert!(
        lost.code == Some(1) && lost.stderr.lines().count() == 2 && lost.stderr.contains("--control names another"),
        "{lost:?}"
    );
    std::fs::remove_file(&file).expect("the conf goes");
    let gone = process::run(&place, "gone", binary(), &["-c", &file, "stats"], PATIENCE);
    assert!(gone.code == Some(1) && gone.stderr.lines().count() == 1 && gone.stderr.contains("--control PATH"), "{gone:?}");
    assert_eq!(server.command(&place, &["drain", "--deadline", "0"]).code, Some(0), "and it ends as it is told");
    assert_eq!(server.finish(PATIENCE).code, Some(0));
}

/// A FIFO that nobody writes to must not hold a command for ever.
#[test]
fn a_fifo_is_no_conf() {
    let place = Place::new("fifo");
    assert!(Command::new("mkfifo").arg(place.path("fifo")).status().expect("mkfifo").success());
    for command in ["check", "run", "stats", "reload"] {
        let refused = process::run(&place, "fifo", binary(), &["-c", "fifo", command], Duration::from_secs(5));
        assert!(
            refused.code == Some(1) && refused.stderr.starts_with("fifo: this is a FIFO: name a file"),
            "{command}: {refused:?}"
        );
    }
}

#[test]
fn check_says_the_routes_and_the_limits_in_words() {
    let place = Place::new("words");
    let conf = Conf::new(&place)
        .route("methods = [\"INVTE\"]\naction = \"reject\"\nstatus = 410")
        .route(&format!("to_user_prefix = \"00\"\naction = \"relay\"\ntarget = [\"sip:{}\"]", place.at(crate::place::SERVER)));
    let file = conf.write(&place).display().to_string();
    let checked = process::run(&place, "check", binary(), &["-c", &file, "check"], PATIENCE);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for line in [
        "route 1    INVTE: answered 410",
        "route 2    every request to users that begin with 00: relayed to sip:127.",
        "limit      ",
        " transactions: a quarter of the memory",
        " open files: the hard limit of this process",
        "methods has \"INVTE\", which is no known method; the nearest known one is \"INVITE\"",
        "which is this server itself, by its [[listen]] udp ",
        "control.sock, for its owner alone",
    ] {
        assert!(checked.stdout.contains(line), "no {line:?} in\n{}", checked.stdout);
    }
    let server = conf.start(&place);
    server.expect_log(&["WARN", "strowger.toml:", "the nearest known one is \"INVITE\""]);
}

/// Commands that change something say what.
#[test]
fn what_has_changed_is_said() {
    let place = Place::new("said");
    let server = Conf::new(&place).start(&place);
    let done = |arguments: &[&str]| {
        let outcome = server.command(&place, arguments);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout
    };
    let add = ["ul", "add", "1003", "sip:1003@192.0.2.1", "--expires", "77", "--q", "0.25", "--path", "<sip:192.0.2.9;lr>"];
    assert_eq!(done(&add), "sip:1003@192.0.2.1 bound to 1003 for 77 s\n");
    let shown: serde_json::Value = serde_json::from_str(&done(&["ul", "show", "--json"])).expect("JSON");
    let contact = &shown[0]["contacts"][0];
    assert_eq!(shown[0]["aor"], "sip:1003@example.test");
    assert_eq!((contact["q"].as_f64(), &contact["path"][0]), (Some(0.25), &serde_json::json!("<sip:192.0.2.9;lr>")));
    let wrong = server.command(&place, &["ul", "add", "1003", "sip:1003@192.0.2.1", "--path", "sip:192.0.2.9"]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("<sip:192.0.2.1;lr>") && wrong.stderr.lines().count() == 1, "{wrong:?}");
    assert_eq!(done(&["ul", "rm", "1003"]), "1 contact of 1003 removed\n");
    Conf::new(&place).set("timers", "t1", "\"400ms\"").write(&place);
    let reloaded = done(&["reload"]);
    assert!(reloaded.starts_with("reloaded, changed: ") && reloaded.contains("[timers] t1"), "{reloaded}");
    assert_eq!(done(&["reload"]), "reloaded, the conf says what it said before\n");
}

#[test]
fn the_control_socket_is_for_a_group_as_well_if_the_conf_says_so() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new("group");
    let own = std::fs::metadata(place.directory()).expect("a folder").gid();
    let names = Command::new("getent").args(["group", &own.to_string()]).output().expect("getent").stdout;
    let name = String::from_utf8_lossy(&names).split(':').next().expect("a name").to_owned();
    let conf = |mode: &str| Conf::new(&place).set("control", "group", &format!("{name:?}")).set("control", "mode", mode);
    let mode = |conf: Conf| {
        let server = conf.start(&place);
        assert_eq!(server.command(&place, &["stats"]).code, Some(0));
        let socket = std::fs::metadata(place.path("control.sock")).expect("a socket");
        (socket.mode() & 0o777, socket.gid())
    };
    assert_eq!(mode(conf("\"0660\"")), (0o660, own));
    assert_eq!(mode(Conf::new(&place)).0, 0o600);
    let file = Conf::new(&place).set("control", "group", "\"no-such-group\"").write(&place).display().to_string();
    for command in ["check", "run"] {
        let refused = process::run(&place, "group", binary(), &["-c", &file, command], PATIENCE);
        assert!(refused.code == Some(1) && refused.stderr.contains("[control] group: there is no group"), "{refused:?}");
    }
}

/// Runs a command in a terminal, typing each of these when it has asked for something.
fn at_a_terminal(place: &Place, command: &str, typed: &[&str]) -> Outcome {
    let whole = format!("exec '{}' {command}", binary().display());
    let arguments = ["-q", "-e", "-f", "-c", &whole, "/dev/null"].map(str::to_owned);
    let (process, mut keys) = Process::converse(place, "typing", Path::new("script"), &arguments);
    for (number, word) in typed.iter().enumerate() {
        let asked = || (process.stdout().matches(": ").count() > number).then_some(());
        assert!(wait_for(PATIENCE, asked).is_some(), "{}", process.stdout());
        // The terminal is without echo only once the question is there.
        std::thread::sleep(Duration::from_millis(200));
        keys.write_all(format!("{word}\r").as_bytes()).expect("keys");
    }
    process.finish(PATIENCE)
}

#[test]
fn passwords_are_asked_for_twice_and_not_shown() {
    let place = Place::new("asked");
    let file = Conf::new(&place).write(&place).display().to_string();
    let add = format!("-c '{file}' user add alice --create");
    let differ = at_a_terminal(&place, &add, &["open sesame", "open simsim"]);
    assert!(differ.code == Some(1) && differ.stdout.contains("not the same; nothing is changed"), "{differ:?}");
    assert!(!place.path("strowger.db").exists());
    let added = at_a_terminal(&place, &add, &["open sesame", "open sesame"]);
    assert!(added.code == Some(0) && added.stdout.contains("alice@example.test added in "), "{added:?}");
    for shown in [&differ, &added] {
        assert!(
            shown.stdout.contains("password of alice@example.test: ") && shown.stdout.contains("the same again: "),
            "{shown:?}"
        );
        assert!(!shown.stdout.contains("sesame") && !shown.stdout.contains("simsim"), "{shown:?}");
    }
    let piped = process::run(&place, "piped", binary(), &["-c", &file, "user", "add", "bob"], PATIENCE);
    assert!(piped.code == Some(1) && piped.stderr.contains("--password-stdin") && piped.stderr.lines().count() == 1, "{piped:?}");
}

/// Starts `top` in a terminal, in a session of its own, so that no signal tells it when that terminal goes; returns its process's number.
fn top_in_a_terminal(place: &Place, size: (u32, u32)) -> (Process, u32) {
    let (columns, rows) = size;
    let top = format!(
        "stty rows {rows} cols {columns}; exec setsid -w sh -c \"echo \\$\\$ > top.pid; exec '{}' --control '{}' top --interval 0.1\"",
        binary().display(),
        place.path("control.sock").display(),
    );
    let arguments = ["-q", "-e", "-f", "-c", &top, "/dev/null"].map(str::to_owned);
    // Its keys are never typed: the terminal stays open until `script` ends.
    let (process, keys) = Process::converse(place, "top", Path::new("script"), &arguments);
    std::mem::forget(keys);
    let drawn = || process.stdout().contains("q quits").then_some(());
    assert!(wait_for(PATIENCE, drawn).is_some(), "{}", process.stdout());
    let id = std::fs::read_to_string(place.path("top.pid")).expect("a number").trim().parse().expect("a number");
    (process, id)
}

/// Whether a process has ended, even if nobody has asked for its result.
fn has_ended(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

/// An SSH session that ends takes the terminal away. What is left must not read end-of-file for ever.
#[test]
fn top_ends_when_its_terminal_is_gone() {
    let place = Place::new("top-gone");
    let _server = Conf::new(&place).start(&place);
    let (terminal, id) = top_in_a_terminal(&place, (80, 24));
    // Until it has waited for keys a few times.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!has_ended(id));
    terminal.signal("KILL");
    let ended = wait_for(Duration::from_secs(3), || has_ended(id).then_some(()));
    if ended.is_none() {
        let _ = Command::new("sh").args(["-c", &format!("kill -9 {id}")]).status();
    }
    assert!(ended.is_some(), "it runs on without a terminal");
}

#[test]
fn top_ends_at_once_by_a_signal_and_gives_the_terminal_back() {
    let place = Place::new("top-signal");
    let _server = Conf::new(&place).start(&place);
    for signal in ["TERM", "HUP"] {
        let (terminal, id) = top_in_a_terminal(&place, (80, 24));
        let told = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status().expect("kill");
        assert!(told.success());
        assert!(wait_for(Duration::from_secs(1), || has_ended(id).then_some(())).is_some(), "{signal}");
        let outcome = terminal.finish(PATIENCE);
        assert!(outcome.stdout.contains("\u{1b}[?1049l") && outcome.stdout.contains("\u{1b}[?25h"), "{signal}: {outcome:?}");
        assert_eq!(outcome.code, Some(0), "{signal}: {outcome:?}");
    }
}

/// Of any size, down to nothing that could be read.
#[test]
fn top_draws_on_terminals_of_every_size() {
    let place = Place::new("top-size");
    let _server = Conf::new(&place).start(&place);
    for size in [(20, 5), (80, 24), (200, 60), (1, 1), (7, 2)] {
        let whole = format!(
            "stty rows {} cols {}; exec '{}' --control '{}' top --interval 0.1",
            size.1,
            size.0,
            binary().display(),
            place.path("control.sock").display()
        );
        let arguments = ["-q", "-e", "-f", "-c", &whole, "/dev/null"].map(str::to_owned);
        let (process, mut keys) = Process::converse(&place, "top-size", Path::new("script"), &arguments);
        let drawn = || process.stdout().contains("\u{1b}[1;1H").then_some(());
        assert!(wait_for(PATIENCE, drawn).is_some(), "{size:?}: {}", process.stdout());
        std::thread::sleep(Duration::from_millis(300));
        keys.write_all(b"q").expect("a key");
        let outcome = process.finish(PATIENCE);
        assert!(outcome.code == Some(0) && !outcome.stdout.contains("panicked"), "{size:?}: {outcome:?}");
    }
}
