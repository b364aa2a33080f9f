//! Valid confs, confs with every kind of fault, and the reference `conf/strowger.toml` itself.

mod reference;
mod slips;

use std::collections::BTreeSet;
use std::fs;

use super::document::nearest;
use super::*;
use crate::base::{Network, Transport};
use crate::config::model::{Listen, Listeners, default_address};
use crate::net::tls::{Certificates, Identity, Pair};
use crate::settings::*;
use crate::stack::route::{Action, Edits, NextHop, Route};
use std::time::Duration;

fn machine() -> Machine {
    Machine { cores: vec![0, 1], memory: 1 << 30, files: 1 << 20 }
}

fn good(text: &str) -> Conf {
    parse("t", text, &machine()).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Returns the lines that refuse `text`.
fn faults(text: &str) -> Vec<String> {
    match parse("t", text, &machine()) {
        Ok(conf) => panic!("{text:?} was taken as {conf:?}"),
        Err(faults) => faults.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Returns the one line that refuses `text`.
fn fault(text: &str) -> String {
    let mut lines = faults(text);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

const REFERENCE: &str = include_str!("../../../conf/strowger.toml");

/// Base64 of a SEQUENCE of one INTEGER: all of a certificate or key that the reader understands.
const SEQUENCE: &str = "MAMCAQU=";

fn pem(label: &str) -> String {
    format!("-----BEGIN {label}-----\n{SEQUENCE}\n-----END {label}-----\n")
}

/// Makes a folder with these certificates, and keys in files of their own.
struct Certs(tempfile::TempDir);

impl Certs {
    fn new(names: &[&str]) -> Certs {
        let certs = Certs(tempfile::tempdir().unwrap());
        for name in names {
            certs.write(&format!("{name}.pem"), pem("CERTIFICATE"));
            certs.write(&format!("{name}.key"), pem("PRIVATE KEY"));
        }
        certs
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pair(&self, name: &str) -> Pair {
        Pair { certificate: self.path(&format!("{name}.pem")), private_key: self.path(&format!("{name}.key")) }
    }

    /// `text` with its files below `certs/` in this folder.
    fn settle(&self, text: &str) -> String {
        text.replace("\"certs/", &format!("\"{}/", self.0.path().display()))
    }
}

/// Adds the keys that are commented out with `#` and no blank.
fn put_in(conf: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    conf.lines().map(line).collect()
}

/// The reference with every commented-out key added, and the folder of the files that it names.
fn reference_in_full() -> (Certs, String) {
    let certs = Certs::new(&["ecdsa", "rsa", "example.org-ecdsa", "example.org-rsa", "carrier"]);
    certs.write("carrier.password", "secret\n");
    let full = certs.settle(&put_in(REFERENCE));
    (certs, full)
}

/// `scripts/run` serves the reference with TLS: its `with_tls` makes a valid conf of the file, with the listener.
#[test]
fn the_reference_as_scripts_run_serves_it_speaks_tls() {
    let root = env!("CARGO_MANIFEST_DIR");
    let script = "source <(sed -n '/^with_tls()/,/^}/p' scripts/run); with_tls";
    let made = std::process::Command::new("bash").args(["-euc", script]).current_dir(root).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let certs = Certs::new(&["ecdsa", "rsa", "ca"]);
    let conf = good(&certs.settle(&String::from_utf8(made.stdout).unwrap()));
    let mut expected = Conf::default();
    expected.listen.0.push(Listen::new(Transport::Tls, "127.0.0.1:5061".parse().unwrap()));
    expected.certificates.default_identity = vec![certs.pair("ecdsa"), certs.pair("rsa")];
    expected.tls.trusted_ca = Some(certs.path("ca.pem"));
    assert_eq!(conf, expected);
}

/// The conf of the service names what it keeps by absolute paths: it may not write where it lies.
#[test]
fn the_conf_of_the_service_is_the_reference_with_absolute_paths() {
    let root = env!("CARGO_MANIFEST_DIR");
    let made = std::process::Command::new("scripts/service-conf").current_dir(root).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let conf = parse_below("t", &String::from_utf8(made.stdout).unwrap(), Some("/etc/strowger"), &machine()).unwrap();
    let state = |path: &Path| Path::new("/var/lib/strowger").join(path);
    let mut expected = Conf::default();
    expected.server.key_file = state(&expected.server.key_file);
    expected.registrar.database = expected.registrar.database.map(|path| state(&path));
    expected.auth.users = state(&expected.auth.users);
    expected.control.socket = Path::new("/run/strowger").join(&expected.control.socket);
    assert_eq!(conf, expected);
}

/// The proxy modes of `conf/`: as they are, and over TLS as each of them describes.
#[test]
fn the_confs_of_the_proxy_modes_are_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut modes = BTreeSet::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if !["chain", "outbound", "inbound", "local"].contains(&&*name) || path.extension().is_none_or(|kind| kind != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("strowger run -c conf/{name}.toml")), "{name}");
        let plain = load(Some(&path), &machine()).unwrap_or_else(|faults| panic!("{faults}"));
        let transports = |conf: &Conf| -> Vec<Transport> { conf.listen.iter().map(|l| l.transport).collect() };
        use Transport::{Tcp, Tls};
        assert_eq!(transports(&plain), [Transport::Udp, Tcp], "{name}");
        assert!(plain.certificates.default_identity.is_empty(), "{name}");

        let certs = Certs::new(&["ecdsa", "rsa", "ca"]);
        let secure = put_in(&text).replace("transport=tcp", "transport=tls");
        let secure = good(&certs.settle(&secure));
        assert_eq!(transports(&secure), [Transport::Udp, Tcp, Tls], "{name}");
        let pairs = [certs.pair("ecdsa"), certs.pair("rsa")];
        assert_eq!(secure.certificates.default_identity, pairs, "{name}");

        let route = |route: &Route, transport: Transport| match &route.action {
            Action::Relay(targets) => assert_eq!(targets[0].transport, transport, "{name}"),
            other => panic!("{name}: {other:?}"),
        };
        for (conf, transport) in [(&plain, Tcp), (&secure, Tls)] {
            let right = match &conf.routes[..] {
                [only] => {
                    route(only, transport);
                    only.outgoing.unwrap_or(conf.connections.outgoing)
                }
                [] => conf.connections.outgoing,
                more => panic!("{name}: {more:?}"),
            };
            let lasting = name == "chain" || name == "outbound";
            let expected = match lasting {
                true => Outgoing::Reuse,
                false => Outgoing::PerCall,
            };
            assert_eq!(right, expected, "{name}");
            assert_eq!(conf.routes.is_empty(), !lasting, "{name}");
        }
        modes.insert(name);
    }
    let known = ["chain", "inbound", "local", "outbound"].map(str::to_owned);
    assert_eq!(modes, BTreeSet::from(known));
}

#[test]
fn nothing_is_the_defaults() {
    assert_eq!(good(""), Conf::default());
}

#[test]
fn the_reference_says_the_defaults() {
    assert_eq!(good(REFERENCE), Conf::default());
}

#[test]
fn the_reference_has_the_known_keys_and_no_others() {
    /// The keys of `table`; those of inner tables are prefixed with the table's name.
    fn write_keys(prefix: &str, table: &toml::Table, written: &mut BTreeSet<String>) {
        for (key, value) in table {
            let tables = match value {
                toml::Value::Table(table) => vec![table],
                toml::Value::Array(array) => array.iter().filter_map(|t| t.as_table()).collect(),
                _ => Vec::new(),
            };
            if !prefix.is_empty() {
                written.insert(format!("{prefix}{key}"));
            }
            for table in tables {
                write_keys(&format!("{prefix}{key}."), table, written);
            }
        }
    }

    let (_certs, full) = reference_in_full();
    good(&full);
    let mut written = BTreeSet::new();
    write_keys("", &full.parse().unwrap(), &mut written);
    let mut known = BTreeSet::new();
    for (section, keys) in known_keys() {
        for key in keys {
            known.insert(format!("{section}.{key}"));
        }
    }
    assert_eq!(written, known);
    assert!(known.len() > 50, "{known:?}");
}

#[test]
fn each_default_told_in_the_reference_is_the_value_beside_it() {
    let mut told = 0;
    for line in REFERENCE.lines() {
        if let Some((setting, default)) = line.split_once("# default: ") {
            let (_, value) = setting.split_once(" = ").unwrap();
            assert_eq!(value.trim_end(), default, "{line}");
            told += 1;
        }
    }
    let active = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let untold = |line: &&str| active(line) && !line.contains("# default: ");
    let second_listener = ["transport = \"tcp\"", "address = \"127.0.0.1:5060\""];
    assert_eq!(REFERENCE.lines().filter(untold).collect::<Vec<_>>(), second_listener);
    assert!(told > 40, "{told}");
    // The comments on keys that are commented out.
    assert_eq!(Server::default().cores, [0]);
    assert_eq!(DEFAULT_REJECTION, 403);
    assert_eq!(Listeners::default()[0].advertise, None);
    assert_eq!(Certificates::default().default_identity, []);
    let tls = default_address(Transport::Tls);
    assert_eq!(tls.to_string(), "127.0.0.1:5061");
}

// A key that is not named here has a row in the table, and with it a default that is read.
#[allow(clippy::needless_update)]
#[test]
fn a_conf_with_everything() {
    let certs = Certs::new(&["a", "b", "c", "d"]);
    let both = pem("CERTIFICATE") + &pem("EC PRIVATE KEY");
    certs.write("client.pem", both);
    certs.write("redis.password", "sesame\n");
    let conf = good(&certs.settle(
        r#"
        [server]
        cores = [1, 0]
        domains = ["Example.COM.", "192.0.2.1", "[2001:db8::1]"]
        key_file = "/var/lib/strowger/key"
        shared_key = true
        drain_deadline = "90s"
        restart_deadline = "15m"
        user = "strowger"
        group = "ssl-cert"
        [[listen]]
        address = "0.0.0.0:5060"
        advertise = "sip.example.com:5070"
        [[listen]]
        transport = "udp"
        address = "[::1]:5060"
        [[listen]]
        transport = "tcp"
        address = "192.0.2.1:5060"
        proxy_protocol = ["192.0.2.8/29", "2001:db8::5"]
        [[listen]]
        transport = "tls"
        [tls]
        certificate = ["certs/a.pem", "certs/b.pem"]
        private_key = ["certs/a.key", "certs/b.key"]
        trusted_ca = "certs/a.pem"
        verify_client = "required"
        client_purposes = ["clientAuth", "serverAuth"]
        verify_server = false
        min_version = "1.2"
        max_version = "1.3"
        ciphers = "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA"
        ciphersuites = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"
        groups = ["P-384", "X25519"]
        show_client_certificate = true
        server_session_reuse = false
        client_session_reuse = false
        session_lifetime = "10m"
        client_certificate = "certs/client.pem"
        [[tls.identity]]
        name = "Example.ORG"
        certificate = "certs/c.pem"
        private_key = "certs/c.key"
        [[tls.identity]]
        name = "example.net."
        certificate = ["certs/d.pem"]
        private_key = "certs/d.key"
        [connections]
        outgoing = "per-call"
        idle_timeout = "5m"
        message_timeout = "40s"
        connect_timeout = "500ms"
        handshake_timeout = "2s"
        max = 5000
        handshakes = 100
        send_queue = "1MiB"
        unsent_bytes = "5MiB"
        unfinished_bytes = "3MiB"
        keep_alive_bytes = "128B"
        [proxy]
        mode = "stateless"
        record_route = false
        fork = "sequential"
        redirect = true
        max_breadth = 5
        in_dialog_without_route = "refuse"
        [registrar]
        enabled = false
        min_expires = "10s"
        default_expires = "2m"
        max_expires = "3h"
        max_contacts = 1
        contact_networks = ["192.0.2.0/24"]
        database = "/var/lib/strowger/bindings.db"
        durability = "acknowledged"
        [location]
        shared = "redis://[2001:db8::8]:6380/2"
        node = "berlin-1"
        user = "strowger"
        password_file = "certs/redis.password"
        replicas = 1
        stream = 5000
        [auth]
        realm = "Example Telephones (öffentlich)"
        challenge_register = true
        challenge_proxy = true
        challenge_bye = true
        algorithms = ["MD5", "SHA-512-256", "SHA-256"]
        qop = false
        nonce_lifetime = "90s"
        guesses = 7
        check_uri = "strict"
        certificate = "identity"
        users = "/etc/strowger/users"
        [[route]]
        methods = ["INVITE", "X-own"]
        from_source = ["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"]
        to_host = "Example.NET"
        to_user_prefix = "+49"
        action = "relay"
        target = ["sip:192.0.2.10", "sip:gw@[2001:db8::5]:5080;transport=UDP;lr"]
        [[route]]
        to_user_prefix = "1"
        action = "relay"
        outgoing = "reuse"
        challenge = false
        from = "anyone"
        certificate = "certs/c.pem"
        private_key = "certs/c.key"
        target = ["sip:192.0.2.10;transport=tcp", "sips:GW.example.org;maddr=192.0.2.11", "sip:192.0.2.12;transport=TLS",
                  "sips:192.0.2.13:5081;transport=tcp", "sip:a.example;maddr=192.0.2.14", "sip:B.example:5070",
                  "sips:c.example"]
        [[route]]
        to_user_prefix = "0"
        action = "redirect"
        challenge = true
        from = "users"
        target = ["sips:bob@example.org"]
        [[route]]
        methods = ["PUBLISH"]
        action = "reject"
        status = 501
        [[route]]
        to_host = "a.example.com"
        action = "reject"
        [[route]]
        user_agent = ["Friendly-Scanner", "sipvicious"]
        action = "drop"
        [[route]]
        to_host = "b.example.com"
        action = "redirect"
        [[route]]
        action = "location"
        outgoing = "per-call"
        [timers]
        t1 = "250ms"
        t2 = "2s"
        t4 = "2500ms"
        c = "4m"
        linger = "0s"
        [limits]
        message_size = "8KiB"
        transactions = 1_000
        bindings = 0x10
        contact_size = "2KiB"
        requests_per_source = 500
        answer_factor = 5
        requests_per_user = 40
        requests_per_aor = 30
        ban = "10m"
        trusted_sources = ["192.0.2.0/24", "2001:db8::1"]
        overload = "200ms"
        shed = "kernel"
        [dns]
        servers = ["192.0.2.53", "[2001:db8::53]:5353"]
        timeout = "900ms"
        cache = 100
        questions = 1
        held = "64KiB"
        [udp]
        receive_buffer = "1MiB"
        send_buffer = "64KiB"
        batch = 8
        gather = "50us"
        [control]
        socket = "/run/strowger.sock"
        [metrics]
        address = "[::1]:9090"
        [log]
        level = "debug"
        "#,
    ));
    let secs = Duration::from_secs;
    assert_eq!(conf.server.cores, [1, 0]);
    assert_eq!(conf.server.domains, ["example.com", "192.0.2.1", "[2001:db8::1]"]);
    assert_eq!(conf.server.key_file, Path::new("/var/lib/strowger/key"));
    assert!(conf.server.shared_key);
    assert_eq!(conf.server.drain_deadline, secs(90));
    assert_eq!(conf.server.restart_deadline, secs(900));
    assert_eq!(conf.server.user.as_deref(), Some("strowger"));
    assert_eq!(conf.server.group.as_deref(), Some("ssl-cert"));
    let advertised: Vec<_> = conf.listen.iter().map(|l| l.advertise.as_deref()).collect();
    assert_eq!(advertised, [Some("sip.example.com:5070"), None, None, None]);
    let balancers: Vec<Vec<String>> =
        conf.listen.iter().map(|l| l.proxy_protocol.iter().map(Network::to_string).collect()).collect();
    assert_eq!(balancers, [&[][..], &[], &["192.0.2.8/29", "2001:db8::5/128"], &[]]);
    let addresses: Vec<String> = conf.listen.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(addresses, ["0.0.0.0:5060", "[::1]:5060", "192.0.2.1:5060", "127.0.0.1:5061"]);
    let transports: Vec<Transport> = conf.listen.iter().map(|l| l.transport).collect();
    let (udp, tcp) = (Transport::Udp, Transport::Tcp);
    assert_eq!(transports, [udp, udp, tcp, Transport::Tls]);
    let identity = |name: &str, pair: &str| Identity { name: name.to_owned(), pairs: vec![certs.pair(pair)] };
    let [(number, of_route)] = &conf.certificates.client_identities[..] else {
        panic!("{:?}", conf.certificates);
    };
    assert_eq!(of_route[..], [certs.pair("c")]);
    assert_eq!(
        conf.certificates,
        Certificates {
            default_identity: vec![certs.pair("a"), certs.pair("b")],
            identities: vec![identity("example.org", "c"), identity("example.net", "d")],
            client_identity: vec![Pair { certificate: certs.path("client.pem"), private_key: certs.path("client.pem") }],
            client_identities: vec![(*number, of_route.clone())],
        }
    );
    assert_eq!(
        conf.tls,
        Tls {
            show_client_certificate: true,
            trusted_ca: Some(certs.path("a.pem")),
            verify_client: VerifyClient::Required,
            client_purposes: vec![Purpose::ClientAuth, Purpose::ServerAuth],
            verify_server: false,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            ciphers: "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA".to_owned(),
            ciphersuites: "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256".to_owned(),
            groups: vec!["P-384".to_owned(), "X25519".to_owned()],
            server_session_reuse: false,
            client_session_reuse: false,
            session_lifetime: 600,
            ..Tls::default()
        }
    );
    assert_eq!(
        conf.location,
        SharedTable {
            shared: Some(SharedStore {
                kind: StoreKind::Single,
                is_secure: false,
                hosts: vec![("2001:db8::8".to_owned(), 6380)],
                db: 2
            }),
            node: Some("berlin-1".to_owned()),
            user: Some("strowger".to_owned()),
            password_file: Some(certs.path("redis.password")),
            replicas: 1,
            stream: 5000,
        }
    );
    assert_eq!(conf.location_password.as_ref().unwrap().reveal(), b"sesame");
    assert_eq!(
        conf.connections,
        Connections {
            outgoing: Outgoing::PerCall,
            idle_timeout: 300_000,
            message_timeout: 40_000,
            connect_timeout: 500,
            handshake_timeout: 2000,
            max: Some(5000),
            handshakes: 100,
            send_queue: 1 << 20,
            unsent_bytes: 5 << 20,
            unfinished_bytes: 3 << 20,
            keep_alive_bytes: 128,
            ..Connections::default()
        }
    );
    assert_eq!(
        conf.proxy,
        Proxy {
            mode: Mode::Stateless,
            record_route: false,
            fork: Fork::Sequential,
            redirect: true,
            max_breadth: 5,
            in_dialog_without_route: InDialog::Refuse,
            ..Proxy::default()
        }
    );
    assert_eq!(
        conf.registrar,
        Registrar {
            enabled: false,
            min_expires: 10,
            default_expires: 120,
            max_expires: 10_800,
            max_contacts: 1,
            contact_networks: vec![Network::new("192.0.2.0".parse().unwrap(), 24)],
            database: Some("/var/lib/strowger/bindings.db".into()),
            durability: Durability::Acknowledged,
            ..Registrar::default()
        }
    );
    assert_eq!(
        conf.auth,
        Auth {
            realm: "Example Telephones (öffentlich)".to_owned(),
            challenge_register: true,
            challenge_proxy: true,
            challenge_bye: true,
            algorithms: vec![Algorithm::Md5, Algorithm::Sha512_256, Algorithm::Sha256],
            qop: false,
            nonce_lifetime: 90_000,
            guesses: 7,
            check_uri: UriCheck::Strict,
            certificate: Certificate::Identity,
            users: PathBuf::from("/etc/strowger/users"),
            ..Auth::default()
        }
    );
    assert!(conf.challenges() && conf.challenges_calls());
    let [first, streams, second, third, fourth, dropped, fifth, sixth] = &conf.routes[..] else {
        panic!("{:?}", conf.routes);
    };
    assert_eq!(first.methods, [&b"INVITE"[..], b"X-own"]);
    let networks: Vec<String> = first.from_source.iter().map(Network::to_string).collect();
    assert_eq!(networks, ["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"]);
    assert_eq!(first.to_host, Some(b"example.net".to_vec().into()));
    assert_eq!(first.to_user_prefix.as_deref(), Some(&b"+49"[..]));
    let shown = |identity: u64, uri: &str, address: &str, transport: Transport, host: &str| {
        let hop = NextHop {
            uri: uri.parse().unwrap(),
            address: (!address.is_empty()).then(|| address.parse().unwrap()),
            transport,
            host: host.into(),
            identity,
        };
        let is_open = !uri.starts_with("sips") && !uri.to_lowercase().contains("transport");
        assert_eq!(hop.leaves_transport_open(), is_open, "{uri}");
        hop
    };
    let hop = |uri: &str, address: &str, transport, host: &str| shown(0, uri, address, transport, host);
    assert_eq!(
        first.action,
        Action::Relay(vec![
            hop("sip:192.0.2.10", "192.0.2.10:5060", udp, "192.0.2.10"),
            hop("sip:gw@[2001:db8::5]:5080;transport=UDP;lr", "[2001:db8::5]:5080", udp, "2001:db8::5"),
        ])
    );
    let tls = Transport::Tls;
    let hop = |uri: &str, address: &str, transport, host: &str| shown(*number, uri, address, transport, host);
    assert_eq!(
        streams.action,
        Action::Relay(vec![
            hop("sip:192.0.2.10;transport=tcp", "192.0.2.10:5060", tcp, "192.0.2.10"),
            hop("sips:GW.example.org;maddr=192.0.2.11", "192.0.2.11:5061", tls, "gw.example.org"),
            hop("sip:192.0.2.12;transport=TLS", "192.0.2.12:5061", tls, "192.0.2.12"),
            hop("sips:192.0.2.13:5081;transport=tcp", "192.0.2.13:5081", tls, "192.0.2.13"),
            hop("sip:a.example;maddr=192.0.2.14", "192.0.2.14:5060", udp, "a.example"),
            hop("sip:B.example:5070", "", udp, "b.example"),
            hop("sips:c.example", "", tls, "c.example"),
        ])
    );
    assert_eq!(first.outgoing, None);
    assert_eq!(streams.outgoing, Some(Outgoing::Reuse));
    let files: Vec<_> = conf.pairs().map(|pair| &pair.certificate).collect();
    for name in ["a.pem", "b.pem", "c.pem", "d.pem", "client.pem"] {
        assert!(files.contains(&&certs.path(name)), "{name}");
    }
    assert_eq!(sixth.outgoing, Some(Outgoing::PerCall));
    assert_eq!([first, streams, second].map(|route| route.challenge), [None, Some(false), Some(true)]);
    assert_eq!([first, streams, second].map(|route| route.users_only), [false, false, true]);
    assert_eq!(second.action, Action::Redirect(vec![b"sips:bob@example.org".to_vec()]));
    assert_eq!(third.action, Action::Reject(501));
    assert_eq!(fourth.action, Action::Reject(403));
    assert_eq!(dropped.action, Action::Drop);
    assert_eq!(dropped.user_agent, [&b"friendly-scanner"[..], b"sipvicious"]);
    assert_eq!(fifth.action, Action::Redirect(vec![]));
    assert_eq!(sixth.action, Action::Location);
    assert_eq!(conf.timers, Timers { t1: 250, t2: 2000, t4: 2500, c: 240_000, linger: 0, ..Timers::default() });
    assert_eq!(
        conf.limits,
        Limits {
            message_size: 8192,
            transactions: Capacity::Exactly(1000),
            bindings: Capacity::Exactly(16),
            contact_size: 2048,
            requests_per_source: 500,
            answer_factor: 5,
            requests_per_user: 40,
            requests_per_aor: 30,
            ban: 600_000,
            trusted_sources: [("192.0.2.0", 24), ("2001:db8::1", 128)]
                .map(|(address, prefix)| Network::new(address.parse().unwrap(), prefix))
                .to_vec(),
            overload: 200,
            shed: Shed::Kernel,
            ..Limits::default()
        }
    );
    assert_eq!(
        conf.udp,
        Udp { receive_buffer: 1 << 20, send_buffer: 64 << 10, batch: 8, gather: Duration::from_micros(50), ..Udp::default() }
    );
    let servers = ["192.0.2.53:53", "[2001:db8::53]:5353"];
    assert_eq!(
        conf.dns,
        Dns {
            servers: servers.map(|at| at.parse().unwrap()).to_vec(),
            timeout: 900,
            cache: 100,
            questions: 1,
            held: 64 << 10,
            ..Dns::default()
        }
    );
    assert_eq!(conf.control.socket, Path::new("/run/strowger.sock"));
    assert_eq!(conf.metrics.address, "[::1]:9090".parse().ok());
    assert_eq!(conf.log.level, log::LevelFilter::Debug);
}

#[test]
fn a_misspelt_key_is_told_with_its_place_and_the_nearest_known_one() {
    for (text, line) in [
        (
            "[proxy]\n  recrod_route = true\n",
            "t:2:3: unknown key \"recrod_route\" in [proxy]; the nearest known one is \"record_route\"",
        ),
        (
            "[proxy]\nrecord-route = true\n",
            "t:2:1: unknown key \"record-route\" in [proxy]; the nearest known one is \"record_route\"",
        ),
        (
            "[[listen]]\nadress = \"127.0.0.1:5060\"\n",
            "t:2:1: unknown key \"adress\" in [[listen]]; the nearest known one is \"address\"",
        ),
        (
            "[[route]]\naction = \"location\"\nmethod = [\"INVITE\"]\n",
            "t:3:1: unknown key \"method\" in [[route]]; the nearest known one is \"methods\"",
        ),
        ("[timer]\nt1 = \"500ms\"\n", "t:1:2: unknown section \"timer\"; the nearest known one is [timers]"),
        ("[server]\nrecord_route = true\n", "t:2:1: unknown key \"record_route\" in [server]; it belongs in [proxy]"),
        ("max_contacts = 5\n", "t:1:1: \"max_contacts\" is outside of its section: move it below [registrar]"),
        ("[control]\nzzzz = 1\n", "t:2:1: unknown key \"zzzz\" in [control]; the keys there are socket, group, mode"),
        // Columns count characters, not bytes.
        (
            "proxy = { \"ümläut\" = 1, forck = \"parallel\", mode = \"stateful\" }\n",
            "t:1:11: unknown key \"ümläut\" in [proxy]; the keys there are mode, record_route, fork, redirect, max_breadth, in_dialog_without_route",
        ),
    ] {
        assert_eq!(faults(text)[0], line);
    }
}

#[test]
fn every_fault_is_told_in_the_order_of_the_file() {
    let text = "\
[udp]
batch = 0
[server]
cores = [0, 9, \"x\", 0]
domain = [\"example.com\"]
[proxy]
mode = 1
fork = \"serial\"
[nonsense]
[[listen]]
transport = \"sctp\"
address = \"localhost:5060\"
";
    assert_eq!(
        faults(text),
        [
            "t:2:9: batch must be an integer from 1 to 1024, not the integer 0",
            "t:4:13: cores names core 9, but this process may run on 0, 1 only",
            "t:4:16: cores must be the numbers of CPU cores, from 0, not the string \"x\"",
            "t:4:21: cores names the integer 0 twice; remove one",
            "t:5:1: unknown key \"domain\" in [server]; the nearest known one is \"domains\"",
            "t:7:8: mode must be one of \"stateful\", \"stateless\", not the integer 1",
            "t:8:8: fork must be one of \"parallel\", \"sequential\", not the string \"serial\"",
            "t:9:2: unknown section \"nonsense\"; the sections are auth, connections, control, dns, limits, listen, location, log, metrics, next_hop, proxy, records, registrar, route, server, timers, tls, tls.identity, trace, trunk, udp",
            "t:11:13: transport must be one of \"udp\", \"tcp\", \"tls\", not the string \"sctp\"",
            "t:12:11: address must be an address with a port such as \"127.0.0.1:5060\" or \"[::1]:5060\", not the string \"localhost:5060\"",
        ]
    );
}

#[test]
fn each_value_that_is_wrong_is_refused_at_its_place() {
    // The section's text, the key and value, and what the refusal must say.
    for (section, setting, says) in [
        ("server", "cores = 0", "a list of CPU cores"),
        ("server", "cores = []", "empty list"),
        ("server", "cores = [-1]", "from 0, not the integer -1"),
        ("server", "cores = [0.5]", "the number 0.5"),
        ("server", "domains = \"example.com\"", "a list of hosts"),
        ("server", "domains = [\"example.com:5060\"]", "without a port"),
        ("server", "domains = [\"a..b\"]", "a host such as"),
        ("server", "domains = [\"-a.example\"]", "a host such as"),
        ("server", "domains = [\"192.0.2\"]", "a host such as"),
        ("server", "core_dumps = \"no\"", "true or false"),
        ("server", "key_file = \"\"", "the path of a file"),
        ("server", "key_file = 1", "the path of a file"),
        ("server", "drain_deadline = \"25h\"", "from \"0s\" to"),
        ("server", "drain_deadline = 30", "a time such as"),
        ("server", "restart_deadline = \"25h\"", "from \"0s\" to"),
        ("metrics", "address = \"9090\"", "an address with a port"),
        ("metrics", "address = \"127.0.0.1:0\"", "from 1 to 65535"),
        ("metrics", "address = 9090", "an address with a port"),
        ("server", "user = 1", "the name of a user"),
        ("server", "user = \"a b\"", "the name of a user"),
        ("server", "user = \"-a\"", "the name of a user"),
        ("server", "group = \"a:b\"", "the name of a user or group"),
        ("server", "group = \"nogroup\"", "there is no user"),
        ("[listen]", "transport = \"tls\"", "add certificate ="),
        ("[listen]", "transport = \"sctp\"", "must be one of"),
        ("[listen]", "address = \"127.0.0.1\"", "an address with a port"),
        ("[listen]", "address = \"127.0.0.1:0\"", "a port from 1 to 65535"),
        ("[listen]", "address = \"127.0.0.1:65536\"", "an address with a port"),
        ("[listen]", "address = \"224.0.1.75:5060\"", "of this machine"),
        ("[listen]", "address = \"0.0.0.0:5060\"", "add advertise = \"HOST:5060\""),
        ("[listen]", "advertise = \"sip.example.com\"", "a host with a port"),
        ("[listen]", "advertise = \"2001:db8::1:5060\"", "a host with a port"),
        ("[listen]", "advertise = \"sip.example.com:+5\"", "a host with a port"),
        ("[listen]", "advertise = \"0.0.0.0:5060\"", "by which peers reach"),
        ("[listen]", "proxy_protocol = [\"192.0.2.8\"]", "has no effect here: this listener is for UDP"),
        ("proxy", "record_route = \"yes\"", "true or false, not the string \"yes\""),
        ("proxy", "redirect = 1", "true or false, not the integer 1"),
        ("proxy", "max_breadth = 0", "from 1 to 1000"),
        ("proxy", "max_breadth = true", "the boolean true"),
        ("registrar", "min_expires = 60", "a time such as"),
        ("registrar", "min_expires = \"1500ms\"", "whole seconds"),
        ("registrar", "min_expires = \"61m\"", "from \"1s\" to \"1h\""),
        ("registrar", "max_contacts = 1979-05-27", "the date"),
        ("registrar", "database = 1", "the path of a file"),
        ("registrar", "durability = \"never\"", "one of \"batched\", \"acknowledged\""),
        ("auth", "realm = 1", "the realm of a challenge"),
        ("auth", "realm = 'a\"b'", "no place in a realm"),
        ("auth", "realm = 'a\\b'", "no place in a realm"),
        ("auth", "realm = \"a\\u0007b\"", "no place in a realm"),
        ("auth", "realm = \"a \"", "a blank at its beginning or end"),
        ("auth", "challenge_register = 1", "true or false"),
        ("auth", "challenge_proxy = \"yes\"", "true or false"),
        ("auth", "challenge_bye = 0", "true or false"),
        ("auth", "check_uri = true", "\"strict\", \"address\", \"off\""),
        ("auth", "check_uri = \"lax\"", "\"strict\", \"address\", \"off\""),
        ("auth", "certificate = true", "one of \"off\", \"identity\", \"identity-and-password\""),
        ("tls", "groups = [\"x25519\"]", "one of \"X25519MLKEM768\", \"SecP256r1MLKEM768\""),
        ("tls", "groups = \"X25519\"", "a list of key exchange groups"),
        ("tls", "groups = []", "is an empty list"),
        ("tls", "client_purposes = [\"emailProtection\"]", "one of \"clientAuth\", \"serverAuth\", \"any\""),
        ("tls", "client_purposes = []", "is an empty list"),
        ("tls", "show_client_certificate = \"no\"", "true or false"),
        ("auth", "qop = \"auth\"", "true or false"),
        ("auth", "algorithms = \"MD5\"", "a list of \"SHA-256\""),
        ("auth", "algorithms = []", "an empty list"),
        ("auth", "algorithms = [\"SHA-1\"]", "one of \"SHA-256\", \"SHA-512-256\", \"MD5\", not the string \"SHA-1\""),
        ("auth", "algorithms = [\"md5\"]", "must be one of"),
        ("auth", "nonce_lifetime = \"5s\"", "from \"10s\" to \"24h\""),
        ("auth", "nonce_lifetime = 300", "a time such as"),
        ("auth", "users = \"\"", "the path of a file"),
        ("timers", "t1 = \"0s\"", "from \"10ms\" to \"1m\""),
        ("timers", "t1 = \"500\"", "a time such as"),
        ("timers", "c = {}", "a table"),
        ("timers", "linger = []", "a list"),
        ("limits", "message_size = \"65537B\"", "from \"1KiB\" to \"64KiB\""),
        ("limits", "message_size = 65536", "a size such as"),
        ("limits", "transactions = -1", "0 for as many as the memory holds"),
        ("limits", "bindings = 99999999999", "0 for as many as the memory holds"),
        ("limits", "requests_per_source = 100001", "from 0 to 100000"),
        ("limits", "requests_per_user = -1", "from 0 to 100000"),
        ("limits", "requests_per_aor = 100001", "from 0 to 100000"),
        ("limits", "ban = \"25h\"", "from \"0s\" to \"24h\""),
        ("limits", "ban = 600", "a time such as"),
        ("auth", "guesses = 1001", "from 0 to 1000"),
        ("dns", "servers = [\"ns.example.net\"]", "IP addresses such as"),
        ("dns", "servers = [\"0.0.0.0\"]", "IP addresses such as"),
        ("dns", "servers = [\"192.0.2.1:0\"]", "IP addresses such as"),
        ("dns", "servers = \"192.0.2.1\"", "a list of addresses"),
        ("dns", "timeout = \"50ms\"", "from \"100ms\" to \"30s\""),
        ("dns", "cache = 99", "from 100 to 10000000"),
        ("dns", "questions = 0", "from 1 to 10000"),
        ("dns", "held = \"1KiB\"", "from \"64KiB\" to \"1GiB\""),
        ("udp", "receive_buffer = \"4MB\"", "a size such as"),
        ("udp", "send_buffer = \"1B\"", "from \"4KiB\" to \"1GiB\""),
        ("log", "level = \"verbose\"", "one of \"off\", \"error\""),
    ] {
        let fault = fault(&format!("[{section}]\n{setting}\n"));
        let key = setting.split_once(' ').unwrap().0;
        // The wrong value, or the wrong entry of it.
        let value = setting.split_once(" = ").unwrap().1;
        let entry = value.starts_with('[') && !says.contains("list");
        let column = key.len() + 4 + usize::from(entry);
        let place = format!("t:2:{column}: {key} ");
        assert!(fault.starts_with(&place), "{setting}: {fault}");
        assert!(fault.contains(says), "{setting}: {fault}");
    }
    let long = format!("[control]\nsocket = \"{}\"\n", "x".repeat(100));
    assert!(fault(&long).contains("at most 99 bytes"));
}

#[test]
fn networks_of_load_balancers_that_are_wrong() {
    let listen = |value: &str| format!("[[listen]]\ntransport = \"tcp\"\nproxy_protocol = {value}\n");
    for (value, at, says) in [
        ("true", 18, "must be a list of networks such as [\"192.0.2.0/24\"], not the boolean true"),
        ("\"192.0.2.8\"", 18, "must be a list of networks"),
        ("[]", 18, "is an empty list: name at least one, or leave the key out"),
        ("[\"lb.example.com\"]", 19, "must be networks such as"),
        ("[\"192.0.2.0/29\", \"192.0.2.8/24\"]", 35, "the network is 192.0.2.0/24"),
    ] {
        let fault = fault(&listen(value));
        assert!(fault.starts_with(&format!("t:3:{at}: proxy_protocol ")) && fault.contains(says), "{value}: {fault}");
    }
}

#[test]
fn nothing_is_acknowledged_that_is_in_memory_only() {
    let conf = |durability: &str| format!("[registrar]\ndatabase = \"\"\n{durability}");
    let said = fault(&conf("durability = \"acknowledged\"\n"));
    assert!(said.starts_with("t:3:14: durability is "), "{said}");
    assert!(said.contains("in memory only"), "{said}");
    for durability in ["", "durability = \"batched\"\n"] {
        assert_eq!(good(&conf(durability)).registrar.database, None);
    }
}

#[test]
fn each_route_that_is_wrong_is_refused() {
    for (settings, says) in [
        ("methods = []\naction = \"location\"", "empty list"),
        ("methods = [\"invite\"]\naction = \"location\"", "write \"INVITE\""),
        ("methods = [\"IN VITE\"]\naction = \"location\"", "methods such as"),
        ("from_source = [\"192.0.2.1/24\"]\naction = \"location\"", "the network is 192.0.2.0/24"),
        ("from_source = [\"192.0.2.0/33\"]\naction = \"location\"", "networks such as"),
        ("from_source = [\"example.com\"]\naction = \"location\"", "networks such as"),
        ("to_host = \"a b\"\naction = \"location\"", "a host such as"),
        ("to_user_prefix = \"\"\naction = \"location\"", "begins with"),
        ("to_user_prefix = \"a@b\"\naction = \"location\"", "begins with"),
        ("methods = [\"INVITE\"]", "has no action"),
        ("action = \"ignore\"", "one of \"relay\", \"location\", \"redirect\", \"reject\", \"drop\""),
        ("action = \"drop\"\nchallenge = true", "challenge has no effect here"),
        ("action = \"drop\"\nstatus = 403", "status has no effect here"),
        ("user_agent = [\"\"]\naction = \"drop\"", "parts of User-Agents"),
        ("action = \"relay\"\ntarget = \"sip:192.0.2.1\"", "a list of SIP URIs"),
        ("action = \"relay\"\ntarget = []", "empty list"),
        ("action = \"relay\"\ntarget = [\"192.0.2.1\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sips:gw.example.net\"]", "no [[listen]] speaks tls:"),
        ("action = \"relay\"\ntarget = [\"sip:gw_1.example.net\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sips:192.0.2.1\"]", "no [[listen]] speaks tls over IPv4"),
        ("action = \"relay\"\ntarget = [\"sip:[2001:db8::1];transport=tcp\"]", "no [[listen]] speaks tcp over IPv6"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1;transport=sctp\"]", "one of udp, tcp, tls, not \"sctp\""),
        ("action = \"relay\"\ntarget = [\"sips:192.0.2.1;transport=udp\"]", "remove transport=udp"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1;transport=tcp;Transport=udp\"]", "Transport appears twice"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1;maddr=192.0.2.2\"]", "beside a host name only"),
        ("action = \"relay\"\ntarget = [\"sip:a.example;maddr=b.example\"]", "maddr must be an IP address"),
        ("action = \"relay\"\ntarget = [\"sip:a.example;maddr=239.1.2.3\"]", "239.1.2.3 is the address of no server"),
        ("action = \"relay\"\ntarget = [\"sip:0.0.0.0\"]", "the address of no server"),
        ("action = \"relay\"\noutgoing = \"once\"", "one of \"reuse\", \"per-call\""),
        ("action = \"reject\"\noutgoing = \"reuse\"", "only the actions \"relay\" and \"location\" take it"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1:0\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sip:@192.0.2.1\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sip:2001:db8::1\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1>\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1?a=b\"]", "SIP URIs such as"),
        ("action = \"relay\"\ntarget = [\"sip:192.0.2.1\", \"sip:192.0.2.1\"]", "twice"),
        ("action = \"relay\"\nstatus = 403", "only the actions \"reject\" take it"),
        ("action = \"location\"\ntarget = [\"sip:192.0.2.1\"]", "only the actions \"relay\" and \"redirect\" take it"),
        ("action = \"redirect\"\ntarget = [\"tel:+1\"]", "SIP URIs such as"),
        ("action = \"reject\"\nstatus = 302", "from 400 to 699"),
        (
            "action = \"reject\"\nfrom = \"users\"",
            "from has no effect here: only the actions \"relay\", \"location\" and \"redirect\" take it",
        ),
        ("action = \"relay\"\nfrom = \"users\"\nchallenge = false", "challenge = false contradicts from = \"users\""),
        ("action = \"relay\"\nfrom = \"us\"", "\"anyone\", \"users\""),
        ("action = \"reject\"\nchallenge = true", "only the actions \"relay\", \"location\" and \"redirect\" take it"),
        ("action = \"relay\"\nchallenge = \"yes\"", "true or false"),
    ] {
        let fault = fault(&format!("[[route]]\n{settings}\n"));
        assert!(fault.contains(says), "{settings}: {fault}");
    }
}

#[test]
fn what_a_route_says_of_its_targets_and_requests_is_read_or_refused() {
    let relay = "[[route]]\naction = \"relay\"\ntarget = [\"sip:192.0.2.1\", \"sip:192.0.2.2\"]\n";
    let conf = good(&format!(
        "{relay}weight = [70, 70]\nfailover = [408, \"5XX\"]\npatience = \"2s\"\nprobe = \"10s\"\nstrip = 1\nprefix = \"+49\"\n\
         set_host = \"Carrier.example:5070\"\nadd_header = [\"X-Account : 42 \", \"P-Asserted-Identity: <sip:+1@h>\"]\nremove_header = [\"X-Internal\"]\n"
    ));
    let route = &conf.routes[0];
    assert_eq!((&route.weights[..], route.patience, route.probe), (&[70, 70][..], Some(2000), Some(10_000)));
    let tried_again: Vec<u16> = (300..700).filter(|status| route.failover.have(*status)).collect();
    assert_eq!(tried_again, [vec![408], (500..600).collect()].concat());
    let edits = Edits {
        strip: 1,
        prefix: b"+49".to_vec(),
        set_host: Some(b"carrier.example:5070".to_vec()),
        add_header: b"X-Account: 42\r\nP-Asserted-Identity: <sip:+1@h>\r\n".to_vec(),
        remove_header: vec![b"x-internal".to_vec()],
    };
    assert_eq!(*route.edits, edits);
    let plain = &good(relay).routes[0];
    assert!(plain.failover.have(503) && !plain.failover.have(500) && plain.edits.keep_uri());
    for (setting, says) in [
        ("weight = [1]", "has 1 numbers for 2 targets"),
        ("weight = [0, 0]", "one must be above 0"),
        ("weight = [1, 65536]", "from 0 to 65535"),
        ("weight = 5", "one for each target"),
        ("failover = []", "empty list"),
        ("failover = [200]", "final responses such as"),
        ("failover = [\"2xx\"]", "final responses such as"),
        ("failover = [\"503\"]", "final responses such as"),
        ("failover = [503, 503]", "twice"),
        ("patience = \"1ms\"", "from \"100ms\" to \"2m\""),
        ("probe = \"10ms\"", "from \"1s\" to \"1h\""),
        ("strip = 33", "from 0 to 32"),
        ("prefix = \"a b\"", "user part may begin with"),
        ("prefix = \"a@b\"", "user part may begin with"),
        ("prefix = \"a:b\"", "user part may begin with"),
        ("set_host = \"a b\"", "a host, with a port"),
        ("set_host = \"user@a.example\"", "a host, with a port"),
        ("set_host = \"a.example;lr\"", "a host, with a port"),
        ("add_header = [\"X-Account\"]", "header lines such as"),
        ("add_header = [\"X-A: b\\r\\nVia: c\"]", "header lines such as"),
        ("add_header = [\"X A: b\"]", "header lines such as"),
        ("add_header = [\"via: SIP/2.0/UDP h\"]", "adds via"),
        ("add_header = [\"l: 0\"]", "adds l"),
        ("remove_header = [\"Record-Route\"]", "removes Record-Route"),
        ("remove_header = [\"I\"]", "removes I"),
        ("remove_header = [\"X:\"]", "names of header fields"),
    ] {
        let fault = fault(&format!("{relay}{setting}\n"));
        assert!(fault.contains(says), "{setting}: {fault}");
    }
    for (settings, says) in [
        ("action = \"relay\"\nfailover = [503]", "there is no second target"),
        ("action = \"relay\"\nprobe = \"5s\"", "there is no target to ask"),
        ("action = \"reject\"\nstrip = 1", "only the actions \"relay\" take it"),
        ("action = \"location\"\nadd_header = [\"A: b\"]", "only the actions \"relay\" take it"),
    ] {
        let fault = fault(&format!("[[route]]\n{settings}\n"));
        assert!(fault.contains(says), "{settings}: {fault}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let fault_of = |text: &str| fault(text);
    assert_eq!(
        fault_of("[registrar]\ndefault_expires = \"30s\"\n"),
        "t:2:19: min_expires = \"1m\" (the default) is above default_expires = \"30s\": lower the one or raise the other"
    );
    assert_eq!(
        fault_of("[registrar]\ndefault_expires = \"2h\"\n"),
        "t:2:19: default_expires = \"2h\" is above max_expires = \"1h\" (the default): lower the one or raise the other"
    );
    assert_eq!(
        fault_of("[timers]\nt1 = \"2s\"\nt2 = \"1s\"\n"),
        "t:2:6: t1 = \"2s\" is above t2 = \"1s\": lower the one or raise the other"
    );
    assert_eq!(
        fault_of("[server]\ndomains = [\"a.example\", \"A.Example\"]\n"),
        "t:2:25: domains names the string \"A.Example\" twice; remove one"
    );
    assert_eq!(
        fault_of("[auth]\nalgorithms = [\"MD5\", \"MD5\"]\n"),
        "t:2:22: algorithms names the string \"MD5\" twice; remove one"
    );
    let bye = "[auth]\nchallenge_bye = true\n";
    assert_eq!(
        fault_of(bye),
        "t:2:17: challenge_bye has no effect here, because no calls are challenged: \
         add challenge_proxy = true, or challenge = true or from = \"users\" to a [[route]]"
    );
    good(&format!("{bye}challenge_proxy = true\n"));
    good(&format!("{bye}[[route]]\naction = \"location\"\nfrom = \"users\"\n"));
    let certificate = "[auth]\ncertificate = \"identity\"\n";
    assert_eq!(
        fault_of(certificate),
        "t:2:15: certificate has no effect here, because no client is asked for one: \
         add verify_client = \"optional\" or \"required\" in [tls]"
    );
    assert_eq!(
        fault_of("[tls]\nclient_purposes = [\"any\", \"clientAuth\"]\n"),
        "t:2:19: client_purposes has \"any\" beside others, which it includes: remove them, or it"
    );
    good("[tls]\nclient_purposes = \"any\"\nshow_client_certificate = false\n");
    let long = format!("[auth]\nrealm = \"{}\"\n", "x".repeat(256));
    assert!(fault_of(&long).contains("at most 255 bytes"));
    let listen = "[[listen]]\naddress = \"127.0.0.1:5060\"\n";
    assert_eq!(
        fault_of(&format!("{listen}{listen}")),
        "t:4:11: another [[listen]] has udp 127.0.0.1:5060 already; remove one or change its address"
    );
    let stream = |transport: &str| format!("[[listen]]\ntransport = \"{transport}\"\naddress = \"127.0.0.1:5060\"\n");
    good(&format!("{listen}{}", stream("tcp")));
    assert_eq!(
        fault_of(&format!("{0}{0}", stream("tcp"))),
        "t:6:11: another [[listen]] has tcp 127.0.0.1:5060 already; remove one or change its address"
    );
    let certs = Certs::new(&["a"]);
    let tls = certs.settle("[tls]\ncertificate = \"certs/a.pem\"\nprivate_key = \"certs/a.key\"\n");
    assert_eq!(
        fault_of(&format!("{}{}{tls}", stream("tls"), stream("tcp"))),
        "t:6:11: another [[listen]] has tls 127.0.0.1:5060 already, and tcp takes the same port of TCP; \
         remove one or change its address"
    );
    let location = "[[route]]\naction = \"location\"\n";
    assert!(fault_of(&format!("{location}{location}")).starts_with("t:3:1: this [[route]] is never reached"),);
    let many = Machine { cores: (0..300).collect(), memory: 0, files: 0 };
    let cores = |count: usize| {
        let cores: Vec<usize> = (0..count).collect();
        parse("t", &format!("[server]\ncores = {cores:?}\n"), &many)
    };
    assert!(cores(256).unwrap_err().to_string().contains("has 255 at most"));
    assert_eq!(cores(255).unwrap().server.cores.len(), 255);
    // A time that was refused already is not compared as well.
    assert!(fault_of("[registrar]\nmin_expires = \"2h\"\n").contains("from \"1s\" to \"1h\""));
}

#[test]
fn a_tls_listener_has_a_certificate() {
    let listen = "[[listen]]\ntransport = \"tls\"\n";
    assert_eq!(
        fault(listen),
        "t:2:13: transport = \"tls\" needs a certificate: add certificate = \"FILE\" and private_key = \"FILE\" in [tls]"
    );
    let certs = Certs::new(&["a"]);
    let named = "[tls]\ncertificate = \"certs/a.pem\"\nprivate_key = \"certs/a.key\"\n";
    let conf = good(&certs.settle(&format!("{listen}{named}")));
    assert_eq!(conf.certificates.default_identity, [certs.pair("a")]);
    assert_eq!(conf.listen[0].address.port(), 5061);
    // A wrong certificate is reported, and not that there is none.
    let missing = certs.settle(&format!("{listen}{named}").replace("a.key", "b.key"));
    assert!(fault(&missing).contains("b.key"));
    let empty = "[tls]\ncertificate = \"\"\nprivate_key = []\n";
    assert!(fault(&format!("{listen}{empty}")).contains("needs a certificate"));
}

#[test]
fn each_setting_of_tls_that_is_wrong_is_refused() {
    let certs = Certs::new(&["a", "b"]);
    let pair = "certificate = \"certs/a.pem\"\nprivate_key = \"certs/a.key\"";
    let identity = format!("{pair}\n[[tls.identity]]\nname = \"a.example\"\n{pair}");
    for (settings, line, says) in [
        ("certificate = \"certs/none.pem\"", 2, "none.pem\", which cannot be read: No such file"),
        ("certificate = \"certs/a.key\"", 2, "holds a private key, but no certificate"),
        ("certificate = \"certs/a.pem\"\nprivate_key = \"certs/a.pem\"", 3, "holds a certificate, but no private key"),
        ("certificate = 5", 2, "must be the path of a file, not the integer 5"),
        ("certificate = [\"\"]", 2, "must be the path of a file"),
        ("certificate = [\"certs/a.pem\", \"certs/a.pem\"]", 2, "twice"),
        ("certificate = [\"certs/a.pem\", \"certs/b.pem\", \"certs/a.pem\"]", 2, "3 entries, but takes 2 at most"),
        ("certificate = \"certs/a.pem\"", 2, "certificate names 1, private_key 0; add to private_key"),
        ("private_key = \"certs/a.key\"", 2, "add to certificate"),
        (
            "certificate = [\"certs/a.pem\", \"certs/b.pem\"]\nprivate_key = \"certs/a.key\"",
            2,
            "certificate names 2, private_key 1",
        ),
        ("client_certificate = \"certs/a.pem\"", 2, "name the key's file in client_private_key"),
        ("client_private_key = \"certs/a.key\"", 2, "add to client_certificate"),
        (
            "client_certificate = \"certs/a.pem\"\nclient_private_key = \"certs/a.key\"\nshow_client_certificate = false",
            2,
            "show_client_certificate = false shows none",
        ),
        (
            "[[route]]\naction = \"reject\"\ncertificate = \"certs/a.pem\"\nprivate_key = \"certs/a.key\"",
            4,
            "only targets over TLS are shown it",
        ),
        (
            "[[route]]\naction = \"relay\"\ntarget = [\"sip:192.0.2.1;transport=udp\"]\n\
             certificate = \"certs/a.pem\"\nprivate_key = \"certs/a.key\"",
            5,
            "only targets over TLS are shown it",
        ),
        ("[[route]]\naction = \"reject\"\ncertificate = \"certs/a.pem\"", 4, "name the key's file in private_key"),
        ("trusted_ca = \"certs/a.key\"", 2, "but no certificate"),
        ("trusted_ca = true", 2, "the path of a file"),
        ("verify_client = \"required\"", 2, "verify_client = \"required\" needs trusted_ca"),
        ("verify_client = \"optional\"\ntrusted_ca = \"\"", 2, "needs trusted_ca"),
        ("verify_client = true", 2, "one of \"no\", \"optional\", \"required\""),
        ("verify_client = \"required\"\ntrusted_ca = 5", 3, "the path of a file"),
        ("verify_server = \"no\"", 2, "true or false"),
        ("min_version = \"1.1\"", 2, "one of \"1.2\", \"1.3\""),
        ("max_version = 1.3", 2, "not the number 1.3"),
        ("min_version = \"1.3\"\nmax_version = \"1.2\"", 2, "min_version = \"1.3\" is above max_version = \"1.2\""),
        ("ciphers = \"AES128-SHA;RC4\"", 2, "an OpenSSL cipher list"),
        ("ciphers = \"TLS_AES_128_GCM_SHA256\"", 2, "name it in ciphersuites"),
        ("min_version = \"1.3\"\nciphers = \"AES128-SHA\"", 3, "min_version = \"1.3\" leaves it out"),
        ("ciphersuites = \"AES128-SHA\"", 2, "the suites of TLS 1.3 are TLS_AES_128_GCM_SHA256"),
        ("max_version = \"1.2\"\nciphersuites = \"TLS_AES_128_GCM_SHA256\"", 3, "max_version = \"1.2\" leaves it out"),
        ("session_lifetime = \"0s\"", 2, "from \"1s\" to \"168h\""),
        ("session_lifetime = \"1500ms\"", 2, "whole seconds"),
        ("trusted_cas = \"\"", 2, "the nearest known one is \"trusted_ca\""),
        ("identity = {}", 2, "double brackets, [[tls.identity]]"),
        (
            "[[tls.identity]]\nname = \"a.example\"\ncertificate = \"certs/a.pem\"\nprivate_key = \"certs/a.key\"",
            2,
            "a further identity needs a first",
        ),
        (&identity.replace("a.example", "192.0.2.1"), 5, "a client asks for no address"),
        (&identity.replace("a.example", "*.example"), 5, "a host such as"),
        (&identity.replace("name =", "nam ="), 4, "has no name: add name = \"HOST\""),
        (&format!("{pair}\n[[tls.identity]]\nname = \"a.example\""), 4, "has no certificate"),
        (
            &format!("{identity}\n[[tls.identity]]\nname = \"A.example\"\n{pair}"),
            9,
            "another [[tls.identity]] has the name \"a.example\" already",
        ),
        (&format!("{identity}\nciphers = \"\""), 8, "unknown key \"ciphers\" in [[tls.identity]]; it belongs in [tls]"),
    ] {
        let faults = faults(&certs.settle(&format!("[tls]\n{settings}\n")));
        let first = &faults[0];
        assert!(first.starts_with(&format!("t:{line}:")), "{settings}: {faults:#?}");
        assert!(first.contains(says), "{settings}: {faults:#?}");
        // The misspelt name is reported as well.
        assert!(faults.len() == 1 || settings.contains("nam ="), "{settings}: {faults:#?}");
    }
    assert!(fault("[\"tls.identity\"]\n").contains("unknown section"));
}

#[test]
fn each_setting_of_connections_that_is_wrong_is_refused() {
    for (setting, says) in [
        ("outgoing = \"percall\"", "one of \"reuse\", \"per-call\""),
        ("idle_timeout = \"0s\"", "from \"1s\" to \"24h\""),
        ("idle_timeout = 120", "a time such as"),
        ("connect_timeout = \"3m\"", "from \"100ms\" to \"2m\""),
        ("handshake_timeout = \"10ms\"", "from \"100ms\" to \"2m\""),
        ("max = -1", "or 0 for as many as the process may open files"),
        ("max = 1048576", "may open 1048576 files in all: raise that limit"),
        ("handshakes = 0", "from 1 to 1000000"),
        ("send_queue = \"1KiB\"", "from \"4KiB\" to \"64MiB\""),
        ("message_timeout = \"500ms\"", "from \"1s\" to \"1h\""),
        ("unsent_bytes = \"64KiB\"", "from \"1MiB\" to"),
        ("unfinished_bytes = \"64KiB\"", "from \"1MiB\" to"),
        ("keep_alive_bytes = \"4B\"", "from \"64B\" to \"64MiB\""),
        ("idle_time = \"1s\"", "the nearest known one is \"idle_timeout\""),
    ] {
        let fault = fault(&format!("[connections]\n{setting}\n"));
        assert!(fault.contains(says), "{setting}: {fault}");
    }
    let most = |max, files| Connections { max, ..Connections::default() }.most(files);
    assert_eq!(most(Some(7), 1024), 7);
    assert_eq!(most(None, 1024), 1024 - 64 - 64);
    assert_eq!(most(None, 10), 1);
}

#[test]
fn next_hops_need_a_listener_of_their_transport() {
    let relay = |target: &str| format!("[[route]]\naction = \"relay\"\ntarget = [\"sip:192.0.2.1\", \"{target}\"]\n");
    // Without any [[listen]] there is UDP and TCP.
    good(&relay("sip:192.0.2.1;transport=tcp"));
    assert_eq!(
        fault(&relay("sip:192.0.2.1;transport=tls")),
        "t:3:28: target has \"sip:192.0.2.1;transport=tls\", but no [[listen]] speaks tls over IPv4: add one, \
         to which its responses can come back"
    );
    let udp = "[[listen]]\ntransport = \"udp\"\n";
    assert!(fault(&(relay("sip:192.0.2.1;transport=tcp") + udp)).contains("speaks tcp over IPv4"));
    // A faulty listener might be the one.
    let wrong = fault(&(relay("sip:192.0.2.1;transport=tcp") + "[[listen]]\ntransport = \"tpc\"\n"));
    assert!(wrong.contains("not the string \"tpc\""), "{wrong}");
    // A redirection may go anywhere.
    good("[[route]]\naction = \"redirect\"\ntarget = [\"sips:[2001:db8::1]\"]\n");
}

#[test]
fn sections_in_the_wrong_brackets_are_told_so() {
    assert!(fault("[[proxy]]\n").contains("single brackets, [proxy]"));
    assert!(fault("[listen]\n").contains("double brackets, [[listen]]"));
    assert!(fault("listen = []\n").contains("remove it"));
    assert!(fault("listen = [1]\n").contains("write [[listen]]"));
    assert!(fault("proxy = 5\n").contains("write [proxy]"));
}

#[test]
fn what_is_not_toml_is_told_with_its_place_and_alone() {
    let lines = faults("[proxy]\nmode = stateful\nzzz = 1\n");
    assert!(lines[0].starts_with("t:2:8: this is not TOML: "), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains("zzz")), "{lines:#?}");

    let lines = faults("[proxy]\nmode = \"stateful\"\nmode = \"stateless\"\n[udp\n");
    assert!(lines.iter().any(|line| line.starts_with("t:3:1: ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("t:4:")), "{lines:#?}");
}

#[test]
fn a_default_core_that_is_not_ours_gives_way_to_one_that_is() {
    let machine = Machine { cores: vec![2, 3], memory: 0, files: 0 };
    assert_eq!(parse("t", "", &machine).unwrap().server.cores, [2]);
    assert!(parse("t", "[server]\ncores = [0]\n", &machine).is_err());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("none.toml");
    let faults = load(Some(&path), &machine()).unwrap_err().to_string();
    assert!(faults.contains("none.toml: cannot be read: "), "{faults}");

    fs::write(&path, b"[proxy]\n# \xff\n").unwrap();
    let faults = load(Some(&path), &machine()).unwrap_err().to_string();
    assert!(faults.ends_with("none.toml:2:3: this is not UTF-8 text"), "{faults}");

    fs::write(&path, REFERENCE).unwrap();
    let conf = load(Some(&path), &machine()).unwrap();
    assert_eq!(conf.server.key_file, place.path().join("strowger.key"));
    let fixed = crate::config::Plan::new(&Conf::default(), &conf).fixed;
    assert_eq!(fixed, ["[server] key_file", "[registrar] database", "[control] socket"], "paths, and nothing else");
}

#[test]
fn a_slip_is_near_to_what_was_meant() {
    for slip in ["acbdef", "abcdeff", "xbcdef", "abcde"] {
        assert_eq!(nearest(slip, &["abcdef", "uvwxyz"]), Some("abcdef"), "{slip}");
    }
    assert_eq!(nearest("adres", &["address", "advertise"]), Some("address"));
    assert_eq!(nearest("x", &["t1", "t2", "c"]), None);
    assert_eq!(nearest(&"x".repeat(10_000), &["address"]), None);
}

proptest::proptest! {
    /// No text makes the reader panic, and a text that it accepts it accepts again.
    #[test]
    fn any_text_is_taken_or_refused(text in "([a-z_]{1,12}|\\[\\[?[a-z]{1,9}\\]?\\]|[=\"'\n,{}\\[\\]#. 0-9:/-]|ü){0,60}") {
        let first = parse("t", &text, &machine());
        assert_eq!(first, parse("t", &text, &machine()));
    }
}

#[test]
fn trunks_are_read_and_routes_go_by_them() {
    let certs = Certs::new(&[]);
    certs.write("carrier.password", "open sesame\r\n");
    let conf = good(&certs.settle(
        r#"
        [[trunk]]
        name = "carrier"
        registrar = "sip:carrier.example;transport=tcp"
        user = "4930"
        password_file = "certs/carrier.password"
        [[trunk]]
        name = "other"
        registrar = "sip:192.0.2.1:5080"
        user = "u"
        auth_user = "login"
        realm = "Realm"
        password_file = "certs/carrier.password"
        register = false
        [[route]]
        to_user_prefix = "0"
        action = "relay"
        target = ["sip:192.0.2.1:5080"]
        trunk = "other"
        "#,
    ));
    let [carrier, other] = &conf.trunks[..] else {
        panic!("{:?}", conf.trunks);
    };
    assert_eq!((carrier.user.as_slice(), carrier.auth_user.as_slice()), (&b"4930"[..], &b"4930"[..]));
    assert_eq!((carrier.register, carrier.expires, carrier.realm.clone()), (true, 600, None));
    assert_eq!(carrier.password.reveal(), b"open sesame");
    assert_eq!((carrier.registrar.address, carrier.registrar.transport), (None, Transport::Tcp));
    assert_eq!((other.register, other.realm.as_deref()), (false, Some(&b"Realm"[..])));
    assert_eq!(other.auth_user, b"login");
    assert_eq!(conf.routes[0].trunk.as_ref(), Some(other));
    assert_eq!(conf.password_files.len(), 2);
    // Nothing that is printed of a conf contains the password.
    assert!(!format!("{conf:?}").contains("sesame"));
}

#[test]
fn trunks_that_cannot_work_are_told() {
    let certs = Certs::new(&[]);
    certs.write("good", "pw");
    certs.write("empty", "\n");
    certs.write("lines", "a\nb\n");
    certs.write("long", "x".repeat(1025));
    let trunk = |more: &str| format!("[[trunk]]\nname = \"a\"\nregistrar = \"sip:c.example\"\nuser = \"u\"\n{more}\n");
    let with = |file: &str| trunk(&format!("password_file = \"certs/{file}\""));
    let route = |more: &str| format!("[[route]]\naction = \"relay\"\ntarget = [\"sip:192.0.2.1\"]\n{more}\n");
    for (text, wanted) in [
        ("[[trunk]]\nname = \"a\"\n".to_owned(), "this [[trunk]] has no registrar"),
        (trunk(""), "this [[trunk]] has no password_file"),
        (with("missing"), "cannot be read"),
        (with("empty"), "is empty"),
        (with("lines"), "more than one line"),
        (with("long"), "longer than 1024 bytes"),
        (with("good") + &with("good"), "name is \"a\", as another [[trunk]] has it"),
        (with("good") + "register = false\nexpires = \"1h\"\n", "expires has no effect here"),
        (with("good") + "auth_user = \"a\\\"b\"\n", "auth_user must be"),
        (with("good") + &route("trunk = \"b\""), "there is no such [[trunk]]"),
        (route("trunk = \"b\""), "there is no [[trunk]]: add one"),
        (with("good") + "[[route]]\naction = \"relay\"\ntrunk = \"a\"\n", "trunk needs targets"),
        (with("good") + "[[route]]\naction = \"location\"\ntrunk = \"a\"\n", "trunk has no effect here"),
        ("[proxy]\nmode = \"stateless\"\n".to_owned() + &with("good") + &route("trunk = \"a\""), "mode = \"stateful\""),
    ] {
        let told = faults(&certs.settle(&text)).join("\n");
        assert!(told.contains(wanted), "{text}\n{told}");
    }
}
