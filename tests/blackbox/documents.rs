//! What the documents say: each conf in them is right, each command in them works, and each metric that they name exists.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::place::{Place, SERVER, wait_for};
use crate::process::{self, Outcome, Process};
use crate::server::binary;

/// What a line must not begin with to be run here, and why.
const NOT_RUN: [(&str, &str); 9] = [
    ("sudo ", "it changes the machine"),
    ("systemctl ", "there is no service"),
    ("journalctl ", "there is no service"),
    ("sudoedit ", "it opens an editor"),
    ("sqlite3 strowger.db \"DROP TABLE", "there are no users of an earlier version"),
    ("podman ", "there is no image"),
    ("cargo ", "it builds for minutes"),
    ("scripts/", "it sets the machine up"),
    ("perf/", "it measures for minutes"),
];

/// What goes on until it is interrupted.
const LASTING: [&str; 4] = ["strowger run", "strowger trace", "strowger top", "openssl s_client"];

const PATIENCE: Duration = Duration::from_secs(20);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages, by their path from the root.
fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = vec!["README.md".into()];
    for folder in ["docs", "docs/security"] {
        for entry in fs::read_dir(root().join(folder)).expect("the folder of the documents") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(root().join(&path)).expect("a page"));
    paths.into_iter().map(read).collect()
}

/// The blocks of one language in a page, each with the number of its first line.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        let text = line.trim_start();
        match (&mut open, text.strip_prefix("```")) {
            (None, Some(opened)) => open = Some((number + 2, opened == language, line.len() - text.len(), String::new())),
            (Some((first, is_wanted, ..)), Some(_)) => {
                let (first, is_wanted) = (*first, *is_wanted);
                let text = open.take().map(|(_, _, _, text)| text).unwrap_or_default();
                if is_wanted {
                    found.push((first, text));
                }
            }
            (Some((_, _, indent, block)), None) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// A folder with what the documents take to be there: the program, the shipped confs, certificates, users.
fn furnish(place: &Place) {
    let folder = place.directory();
    for below in ["bin", "target/release", "conf", "etc", "log", "run"] {
        fs::create_dir_all(folder.join(below)).expect("a folder");
    }
    symlink(binary(), folder.join("bin/strowger")).expect("a link to the program");
    symlink(binary(), folder.join("target/release/strowger")).expect("a link to the program");
    // It would need a screen.
    place.write("bin/wireshark", "#!/bin/sh\nexec cat >/dev/null\n");
    fs::set_permissions(folder.join("bin/wireshark"), Permissions::from_mode(0o755)).expect("a program");
    let certs = folder.join("certs").display().to_string();
    let made = process::run(place, "certs", &root().join("scripts/certs"), &[&certs], PATIENCE);
    assert_eq!(made.code, Some(0), "{made:?}");
    symlink(folder.join("certs"), folder.join("conf/certs")).expect("a link to the certificates");
    for kind in ["ca", "ecdsa", "rsa", "client"] {
        for end in ["pem", "key"] {
            let file = |name: &str| folder.join(format!("{name}.{end}"));
            let _ = fs::copy(file(&format!("certs/{kind}")), file(&format!("etc/{kind}")));
            let _ = fs::copy(file("certs/ecdsa"), file("certs/sip.example.com"));
        }
    }
    for entry in fs::read_dir(root().join("conf")).expect("conf").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(entry.path()).expect("a conf");
            place.write(&format!("conf/{}", entry.file_name().display()), &moved(place, &text));
        }
    }
    for password in ["etc/carrier.password", "redis.password"] {
        place.write(password, "secret\n");
    }
    let realm = "0123456789abcdef0123456789abcdef";
    place.write("users.txt", &format!("dora:example.com:{realm}\n"));
}

/// A text of the documents at this place: with its addresses, and its folder in place of the machine's.
fn moved(place: &Place, text: &str) -> String {
    let folder = place.directory().display();
    text.replace("127.0.0.1", &place.ip(SERVER).to_string())
        .replace("user = \"strowger\"", "user = \"nobody\"")
        .replace("/etc/strowger/", &format!("{folder}/etc/"))
        .replace("/var/log/strowger/", &format!("{folder}/log/"))
        .replace("/var/lib/strowger/", &format!("{folder}/"))
        .replace("/run/strowger/", &format!("{folder}/run/"))
}

/// Runs a line in the place's folder.
fn shell(place: &Place, name: &str, line: &str) -> Outcome {
    let is_lasting = LASTING.iter().any(|lasting| line.starts_with(lasting));
    let line = line.trim_end_matches('&').trim_end();
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let folder = place.directory().display();
    let bounded = match is_lasting {
        true => "timeout --signal=INT --kill-after=5 2",
        false => "timeout --kill-after=5 15",
    };
    let text = format!("cd {folder} && PATH={path:?} {bounded} bash -o pipefail -c \"$0\" <stdin");
    place.write("stdin", "secret\nsecret\n");
    let arguments = ["-c".to_owned(), text, line.to_owned()];
    Process::start(place, name, Path::new("bash"), &arguments, &[]).finish(PATIENCE)
}

/// What the confs in the documents leave open: users, and a listener for TLS where a next hop is reached by it.
fn completed(block: &str) -> String {
    let mut text = block.to_owned();
    let needs_tls = (text.contains("sips:") || text.contains("transport=tls")) && !text.contains("transport = \"tls\"");
    if !text.contains("[[listen]]") {
        text.push_str("\n[[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:5060\"\n");
        text.push_str("[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:5060\"\n");
    }
    if needs_tls {
        text.push_str("\n[[listen]]\ntransport = \"tls\"\naddress = \"127.0.0.1:5061\"\n");
    }
    if (needs_tls || text.contains("transport = \"tls\"")) && !text.contains("\ncertificate = ") {
        let section = if text.contains("[tls]") { "" } else { "[tls]\n" };
        let lines = format!("{section}certificate = [\"certs/ecdsa.pem\"]\nprivate_key = [\"certs/ecdsa.key\"]\n");
        text = match text.find("[tls]\n") {
            Some(at) => format!("{}{lines}{}", &text[..at + 6], &text[at + 6..]),
            None => format!("{text}\n{lines}"),
        };
    }
    text
}

#[test]
fn each_conf_in_the_documents_is_right() {
    let place = Place::new("documents-confs");
    furnish(&place);
    let database = format!("[auth]\nusers = {:?}\n", place.path("strowger.db").display().to_string());
    let database = place.write("database.toml", &database).display().to_string();
    let made = shell(&place, "users", &format!("strowger user add alice@example.com --create --password-stdin -c {database}"));
    assert_eq!(made.code, Some(0), "{made:?}");
    fs::copy(place.path("strowger.db"), place.path("users.db")).expect("a second database");
    let (mut count, mut wrong) = (0, String::new());
    for (page, text) in pages() {
        for (line, block) in blocks(&text, "toml") {
            let file = place.write("page.toml", &moved(&place, &completed(&block)));
            let checked = shell(&place, "check", &format!("strowger check -c {}", file.display()));
            count += 1;
            if checked.code != Some(0) {
                wrong.push_str(&format!("{page}:{line}: {}\n", checked.stderr.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count >= 15, "only {count} were found");
}

/// A server such as the documents speak of.
fn serve(place: &Place) -> Process {
    let ip = place.ip(SERVER);
    let listen = |transport, port| format!("[[listen]]\ntransport = \"{transport}\"\naddress = \"{ip}:{port}\"\n");
    let conf = format!(
        "[server]\ndomains = [\"example.com\", \"{ip}\"]\n{}{}{}\
         [tls]\ncertificate = [\"certs/ecdsa.pem\"]\nprivate_key = [\"certs/ecdsa.key\"]\n\
         [records]\nfile = \"calls.json\"\n",
        listen("udp", 5060),
        listen("tcp", 5060),
        listen("tls", 5061),
    );
    place.write("conf/strowger.toml", &conf);
    let text = format!("cd {} && exec strowger run", place.directory().display());
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let server = Process::start(place, "strowger", Path::new("bash"), &["-c".to_owned(), text], &[("PATH", &path)]);
    let serves = wait_for(PATIENCE, || place.path("conf/strowger.sock").exists().then_some(()));
    assert!(serves.is_some(), "the server does not start: {}", server.stderr());
    server
}

/// A line of a list of commands, such as `strowger ul show [AOR]`, as somebody would type it.
fn filled(line: &str) -> String {
    // Nothing but this makes a database.
    let mut text = line.replace("[--create]", "--create");
    while let (Some(from), Some(to)) = (text.find('['), text.find(']')) {
        text.replace_range(from..=to, "");
    }
    let words = [("AOR", "sip:bob@example.com"), ("CONTACT", "sip:bob@192.0.2.9"), ("NAME", "carol"), ("FILE", "users.txt")];
    let fill = |word: &str| {
        let known = words.iter().find(|(name, _)| *name == word);
        known.map_or(word.to_owned(), |(_, value)| (*value).to_owned())
    };
    let mut filled = match text.contains('\'') || text.contains('"') {
        true => text,
        false => text.split(' ').map(fill).collect::<Vec<_>>().join(" "),
    };
    // There is no terminal to be asked at.
    if filled.contains("strowger user add") && !filled.contains("--password-stdin") {
        filled.push_str(" --password-stdin");
    }
    filled
}

/// A line without what it says about itself.
fn command_of(line: &str) -> &str {
    line.find(" # ").map_or(line, |at| &line[..at]).trim()
}

#[test]
fn each_command_in_the_documents_works() {
    let (mut count, mut wrong) = (0, String::new());
    for (page, text) in pages() {
        let blocks = blocks(&text, "sh");
        if blocks.is_empty() {
            continue;
        }
        let place = Place::new("documents-commands");
        furnish(&place);
        let mut server = serve(&place);
        for (first, block) in blocks {
            for (offset, line) in block.lines().enumerate() {
                let line = command_of(line);
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                if NOT_RUN.iter().any(|(beginning, _)| line.starts_with(beginning)) || line.contains(" sudo ") {
                    for file in line
                        .split(' ')
                        .filter(|word| word.starts_with("scripts/") || word.starts_with("conf/") && word.contains('.'))
                    {
                        assert!(root().join(file).exists(), "{page}:{}: there is no {file}", first + offset);
                    }
                    continue;
                }
                if line.starts_with("strowger run") {
                    // It takes the place of this one.
                    server.signal("INT");
                    assert!(wait_for(PATIENCE, || server.exited()).is_some(), "the server does not end");
                } else if server.exited().is_some() {
                    server = serve(&place);
                }
                let outcome = shell(&place, "command", &filled(&moved(&place, line)));
                count += 1;
                let is_lasting = LASTING.iter().any(|lasting| line.starts_with(lasting));
                let is_good = match outcome.code {
                    Some(0) => true,
                    Some(124 | 130) => is_lasting,
                    // As SIPp says that it goes on in the background.
                    Some(99) => line.ends_with("-bg"),
                    _ => false,
                };
                if !is_good {
                    wrong.push_str(&format!("{page}:{}: {line}: {outcome:?}\n", first + offset));
                }
            }
        }
        // A restart may have put another process in its place, which would stay.
        shell(&place, "command", &moved(&place, "strowger drain --deadline 1 --wait"));
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 30, "only {count} were run");
}

/// All words of a text that begin like a metric's name.
fn metric_names(text: &str) -> Vec<String> {
    let is_of_name = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    let mut names: Vec<String> = text
        .split(|character| !is_of_name(character))
        .filter(|word| word.starts_with("strowger_") && word.len() > "strowger_".len() && !word.ends_with('_'))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn each_metric_in_the_documents_exists() {
    let mut sources = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => sources.push_str(&fs::read_to_string(path).unwrap_or_default()),
            }
        }
    }
    let known = metric_names(&sources);
    // Tables of the database; a backend of HAProxy's.
    let others = ["strowger_binding", "strowger_binding_log", "strowger_tls"];
    let mut wrong = String::new();
    for (page, text) in pages() {
        for name in metric_names(&text) {
            // What is named by its beginning, as for `strowger stats`, stands for all of them.
            let is_known = known.iter().any(|one| one == &name || name.strip_suffix("_bucket") == Some(one));
            let is_beginning = text.contains(&format!("strowger stats {name}")) && known.iter().any(|one| one.starts_with(&name));
            if !is_known && !is_beginning && !others.contains(&name.as_str()) {
                wrong.push_str(&format!("{page}: {name}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "these are not there:\n{wrong}");
}
