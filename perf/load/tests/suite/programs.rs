//! The programs that tests start, what they say, and certificates.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// `strowger-load` with the words of a line, in which `@` is the directory of certificates.
pub fn generator(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger-load"));
    command.args(words(line));
    command
}

pub fn words(line: &str) -> impl Iterator<Item = String> {
    line.split_whitespace().map(|word| match word.split_once('@') {
        Some((before, after)) => format!("{before}{}{after}", certificates().display()),
        None => word.to_owned(),
    })
}

/// What a program came to.
pub struct Run {
    pub results: Vec<Value>,
    pub code: Option<i32>,
    pub said: String,
}

/// Runs the generator to its end.
pub fn run(line: &str) -> Run {
    let output = generator(line).output().expect("generator");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let results = match serde_json::from_slice(&output.stdout) {
        Ok(Value::Array(results)) => results,
        Ok(result) => vec![result],
        Err(_) => Vec::new(),
    };
    Run { results, code: output.status.code(), said }
}

/// Runs a load from this host on port 25060 there.
pub fn load(host: &str, line: &str) -> Run {
    run(&format!("{line} --server {host}:25060 --local {host}:0 --settle 0 --wait sleep --json -"))
}

impl Run {
    /// The first result, or the only one.
    pub fn result(&self) -> &Value {
        self.results.first().unwrap_or_else(|| panic!("no result: {}", self.said))
    }

    pub fn count(&self, name: &str) -> u64 {
        count(self.result(), name)
    }

    /// Of so many calls or requests, all ended well, and nothing else was to be said.
    pub fn clean(self, number: u64) -> Run {
        assert_eq!(self.result()["clean"], true, "{:#}\n{}", self.result(), self.said);
        assert_eq!(self.code, Some(0));
        assert_eq!(self.count("completed"), number);
        self
    }

    /// It could not run, and said why.
    pub fn refused(&self, why: &str) {
        assert_eq!(self.code, Some(2), "{}", self.said);
        assert!(self.said.contains(why), "{}", self.said);
    }
}

pub fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().unwrap_or_else(|| panic!("{name} in {result:#}"))
}

/// A program that is ended with the test.
pub struct Peer(pub Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    pub fn start(command: &mut Command) -> Peer {
        Peer(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A relay that is ready.
    pub fn relay(line: &str) -> Peer {
        let mut relay = Peer(generator(&format!("relay {line}")).stdout(Stdio::piped()).spawn().expect("relay"));
        let mut said = String::new();
        BufReader::new(relay.0.stdout.take().expect("piped")).read_line(&mut said).expect("a line");
        assert!(said.starts_with("relay ready"), "{said}");
        relay
    }
}

/// A root, an intermediate authority of it, and ends with each kind of key: in `ec.pem`, `rsa.pem` and `ed25519.pem` the chain of three.
pub fn certificates() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificates");
        std::fs::create_dir_all(&directory).expect("a directory");
        let openssl = |line: &str| {
            let done = Command::new("openssl").current_dir(&directory).args(line.split(' ')).output().expect("openssl");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let sign = |name: &str, by: &str, extensions: &str| {
            std::fs::write(directory.join("extensions"), extensions).expect("a file");
            openssl(&format!(
                "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -set_serial 7 -days 30 -extfile extensions -out {name}.pem"
            ));
        };
        let p256 = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
        openssl(&format!("req -x509 {p256} -nodes -subj /CN=root -days 30 -keyout root.key -out root.pem"));
        openssl(&format!("req -new {p256} -nodes -subj /CN=middle -keyout middle.key -out middle.csr"));
        sign("middle", "root", "basicConstraints=critical,CA:true");
        let hosts: String = (1..40).map(|last| format!(",IP:127.1.1.{last}")).collect();
        for (name, key) in [("ec", p256), ("rsa", "-newkey rsa:2048"), ("ed25519", "-newkey ed25519")] {
            openssl(&format!("req -new {key} -nodes -subj /CN=end -keyout {name}.key -out {name}.csr"));
            sign(name, "middle", &format!("subjectAltName=IP:127.0.0.1,IP:::1{hosts}"));
            let files = [name, "middle", "root"].map(|part| directory.join(format!("{part}.pem")));
            let chain = files.clone().map(|file| std::fs::read_to_string(file).expect("a certificate"));
            std::fs::rename(&files[0], directory.join(format!("{name}-alone.pem"))).expect("it is there");
            std::fs::write(&files[0], chain.concat()).expect("a file");
        }
        directory
    })
}
