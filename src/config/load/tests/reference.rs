//! The reference `conf/strowger.toml`, made from the table of keys and from the parts that are not plain keys.

use crate::settings::table::table;

/// A row of the table.
struct Row {
    about: &'static [&'static str],
    key: &'static str,
    default: &'static str,
}

/// A section of it.
struct Plain {
    name: &'static str,
    about: &'static [&'static str],
    rows: &'static [Row],
}

macro_rules! texts {
    ($($(#[doc = $about:literal])* [$section:ident] $name:ident {
        $($(#[doc = $doc:literal])*
        $change:ident $key:ident: $type:ty = $default:expr, $toml:literal, $reader:expr;)*
    })*) => {
        const SECTIONS: &[Plain] = &[$(Plain {
            name: stringify!($section),
            about: &[$($about),*],
            rows: &[$(Row {
                about: &[$($doc),*],
                key: stringify!($key),
                default: $toml,
            }),*],
        }),*];
    };
}
table!(texts);

/// Handwritten parts, and the section, or the key of a section, that each one precedes.
const BY_HAND: &[(&str, &str, &str)] = &[
    ("server", "", HEAD),
    ("tls", "", LISTEN),
    ("tls", "trusted_ca", CERTIFICATE),
    ("tls", "show_client_certificate", CLIENT_CERTIFICATE),
    ("connections", "", IDENTITY),
    ("timers", "", ROUTE),
];

fn by_hand(section: &str, key: &str) -> Option<&'static str> {
    let mut all = BY_HAND.iter();
    let found = all.find(|(of, before, _)| *of == section && *before == key);
    found.map(|(_, _, text)| *text)
}

/// The column at which a line gives its default.
const DEFAULTS_AT: usize = 31;

fn reference() -> String {
    let mut text = String::new();
    let comment = |about: &[&str]| -> String {
        let lines = about.iter().map(|line| format!("#{line}\n"));
        lines.collect()
    };
    for section in SECTIONS {
        if let Some(piece) = by_hand(section.name, "") {
            text += &format!("{piece}\n");
        }
        text += &format!("{}[{}]\n", comment(section.about), section.name);
        for Row { about, key, default } in section.rows {
            text += by_hand(section.name, key).unwrap_or_default();
            text += &comment(about);
            // A default described in words is not a value that could stand there.
            text += &match about.iter().any(|line| line.starts_with(" Default: ")) {
                true => format!("#{key} = {default}\n"),
                false => {
                    let setting = format!("{key} = {default}");
                    format!("{setting:<DEFAULTS_AT$} # default: {default}\n")
                }
            };
        }
        text.push('\n');
    }
    format!("{}\n", text.trim_end())
}

/// If set for a test, the reference is rewritten.
const WRITE: &str = "STROWGER_WRITE_REFERENCE";

/// The fuzzer's dictionary must have every key; its other words are kept.
#[test]
fn the_reference_is_what_the_fuzzer_knows() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/conf.dict");
    let there = std::fs::read_to_string(path).unwrap();
    let keys = crate::config::load::known_keys().into_values().flatten().map(|key| format!("\"{key} = \""));
    let known = |key: &String| there.lines().any(|line| line == key);
    let missing: Vec<String> = keys.filter(|key| !known(key)).collect();
    if missing.is_empty() {
        return;
    }
    assert!(std::env::var_os(WRITE).is_some(), "tests/fuzz/conf.dict lacks {missing:?}: run with {WRITE}=1");
    let (about, entries): (Vec<&str>, Vec<&str>) = there.lines().partition(|line| line.starts_with('#'));
    let mut lines: Vec<&str> = entries.into_iter().chain(missing.iter().map(String::as_str)).collect();
    lines.sort_unstable();
    lines.dedup();
    std::fs::write(path, [about, lines].concat().join("\n") + "\n").unwrap();
}

#[test]
fn the_reference_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/strowger.toml");
    let (made, there) = (reference(), std::fs::read_to_string(path).unwrap());
    if made == there {
        return;
    }
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    let mut lines = made.lines().zip(there.lines()).enumerate();
    let first = lines.find(|(_, (made, there))| made != there);
    panic!("{WRITE}=1 writes conf/strowger.toml anew from the table; the first line that differs: {first:#?}");
}

/// The beginning of the file.
const HEAD: &str = r##"# The conf of strowger: every key there is. A key that is left out has its default, and this file as it stands says
# nothing but the defaults. A line that begins with # and no blank is a key that is left out.
#
# Times are whole numbers with a unit: "500ms", "5s", "2m", "1h". Sizes too: "512B", "64KiB", "4MiB".
# Relative paths are below the folder of this file, wherever strowger is started.
#
# Check a conf with: strowger check -c FILE
"##;

/// `[[listen]]`.
const LISTEN: &str = r##"# One section for each address to listen on. Without any: these two, UDP and TCP on 127.0.0.1:5060.
[[listen]]
# "udp", "tcp" or "tls".
transport = "udp"               # default: "udp"
# Default for tls: "127.0.0.1:5061".
address = "127.0.0.1:5060"      # default: "127.0.0.1:5060"
# What Via and Record-Route say: the host and port by which peers reach this listener. Needed where the address is
# 0.0.0.0 or [::]. Default: the address.
#advertise = "sip.example.com:5060"
[[listen]]
transport = "tcp"
address = "127.0.0.1:5060"
# For tcp and tls: from where load balancers connect that begin each connection with a PROXY header (version 1 or 2), which names the client. It
# is then the peer for every limit, route and log line. A connection from there without a header is closed. Whoever is in these networks can
# name any address: name the balancers alone. From everywhere else no header is taken. docs/clusters.md has HAProxy's side. Default: none.
#proxy_protocol = ["192.0.2.8/29"]
# TLS needs a certificate and its key in [tls].
#[[listen]]
#transport = "tls"
#address = "127.0.0.1:5061"
"##;

/// The certificates of `[tls]` that the server shows.
const CERTIFICATE: &str = r##"# What this server shows: one file, or a list of one with an RSA key and one with an ECDSA key, of which the client gets
# what it can use. In each file the certificate itself stands first, then the intermediate ones. Default: none.
#certificate = ["certs/ecdsa.pem", "certs/rsa.pem"]
# The keys of these certificates, in the same order, not encrypted.
#private_key = ["certs/ecdsa.key", "certs/rsa.key"]
"##;

/// Those that the client shows.
const CLIENT_CERTIFICATE: &str = r##"# What this server shows to servers that ask for a certificate. "": the certificate above.
client_certificate = ""         # default: ""
# Its key. "": the key stands in the same file as the certificate.
client_private_key = ""         # default: ""
"##;

/// `[[tls.identity]]`.
const IDENTITY: &str = r##"# A further certificate, for clients that ask for this name (SNI). As many sections as there are names.
#[[tls.identity]]
#name = "example.org"
#certificate = ["certs/example.org-ecdsa.pem", "certs/example.org-rsa.pem"]
#private_key = ["certs/example.org-ecdsa.key", "certs/example.org-rsa.key"]
"##;

/// `[[route]]`.
const ROUTE: &str = r##"# Where requests go, before the location service is asked: the first section wins whose conditions all hold. Without
# any: requests for our domains go to the location service, requests within a dialog follow their routes, and nothing is
# relayed for strangers.
# Routes are looked at before the question whether a request is for this server itself: a route without conditions that
# relays takes OPTIONS and REGISTER to the server, too. Name methods, or to_host, where that is not meant.
#[[route]]
# Conditions; one that is left out always holds.
#methods = ["INVITE"]
# Networks of the peer that sent the request. What this server has sent to itself, or another with its key_file, comes from none,
# whatever its network, except for "reject" and "drop": a contact that leads to the server lends its address to nobody.
#from_source = ["192.0.2.0/24", "2001:db8::/32"]
# The host of the Request-URI.
#to_host = "example.net"
# What the user part of the Request-URI begins with. Where this is a number (digits, +, * and #), only those and letters count in the
# user part, up to a ";": "0-900", "0/900" and "(0)900" begin with "0900".
#to_user_prefix = "49"
# What the User-Agent has in it, one of these, in any case. Anybody can write another: it keeps away what does not hide.
#user_agent = ["example-phone/1."]
# "relay": to the first target, to the next where it fails; without a target, to the host of the Request-URI, at any port; with to_host or
# set_host to that host alone, and a Route or maddr that leads to another is answered 403. Without them whoever takes the route goes
# where it likes, except to this machine, and from outside to private networks.
# "location": look the Request-URI up in the location service.
# "redirect": answer 302 with the targets; without a target, with the registered contacts.
# "reject": answer the status.
# "drop": answer nothing, to this or to what is wrong with it, and remember nothing.
#action = "relay"
# For "relay": SIP URIs with an IP address or a host name; ";transport=tcp" or ";transport=tls" says how to go there, and
# "sips:" is TLS. The certificate of a TLS server must prove the host of the URI. A host name is looked up as [dns] says,
# unless its address stands beside it, as in "sips:sip.example.net;maddr=192.0.2.12". Of each transport named here there
# must be a [[listen]], to which the responses can come back. For "redirect": any SIP URIs.
#target = ["sip:127.0.0.1:5070", "sip:127.0.0.1:5071;transport=tcp"]
# For "relay": what this server shows to these targets over TLS if they ask for a certificate, instead of what [tls] says; without
# private_key the key stands in the same file. Connections that show different certificates are different connections.
#certificate = "certs/carrier.pem"
#private_key = "certs/carrier.key"
# For "relay" and "location": "reuse" or "per-call" instead of what [connections] says.
#outgoing = "reuse"
# For all but "reject" and "drop": whether our own users must prove who they are to take this route, instead of what challenge_proxy
# in [auth] says. It asks those only whose From is in our domains; anybody else takes the route unasked.
#challenge = true
# For all but "reject" and "drop": who may take this route. "users": our own users alone, proved, whatever [auth] says. A From in our
# domains gets 407 until its user proves to be that. One at anonymous.invalid (RFC 3323) gets 407 until anybody of ours
# proves to be that, in the realm of [auth], or else the domain that is called, or the first of [server]. Any other gets
# 403. Not asked are ACK and CANCEL, which end with the request that they belong to, and requests in a dialog that has
# passed and goes by its own route. This is what a way that costs money wants: the targets of such a route are reached by no
# binding, no contact of a dialog and no call that a user or a proxy forwards (docs/security/identity.md).
#from = "anyone"                 # default: "anyone"
# For "relay" with several targets: how much of the requests each gets, as the weights of DNS are (RFC 2782), all requests of a call the
# same; 0: only when the others have failed. Without it the first target gets all, and the others are for when it fails.
#weight = [70, 30]
# For "relay": the final responses of a target after which the next one is tried: numbers, or classes from "3xx" to "6xx". A target without a
# connection, or that says nothing for as long as patience, always is followed by the next one.
#failover = [503]                # default: [503]
# For "relay" and "location": instead of patience in [next_hop].
#patience = "4s"
# For "relay": each target is asked by an OPTIONS so often, "1s" to "1h", whether it is there: a failed one is known before a call meets it.
#probe = "10s"
# For "relay": what is changed in the requests. The user part of the Request-URI loses so many characters at its beginning, 0 to 32, and gains
# the prefix; a shorter one is answered 484. set_host stands for its host and port.
#strip = 1
#prefix = "0049"
#set_host = "carrier.example.net"
# Header lines that are added, and header fields that are removed, all of that name. Those by which requests find their way are this server's.
#add_header = ["X-Account: 42"]
#remove_header = ["X-Internal"]
# For "relay": the account of a [[trunk]]. The targets' 401 and 407 are answered with its password, and the caller knows nothing of it.
#trunk = "carrier"
# Scanners look for what answers: these say who they are. Such a route stands best before all others.
#[[route]]
#user_agent = ["friendly-scanner", "sipvicious", "sipcli", "sip-scan", "sipsak", "sundayddr", "iwar", "pplsip"]
#action = "drop"
#[[route]]
#action = "reject"
# 400 to 699. Default: 403.
#status = 403

# Accounts with carriers (docs/trunks.md). "strowger trunks" shows how their registrations stand.
#[[trunk]]
#name = "carrier"
# Where it registers: a SIP URI as a target of a [[route]] is.
#registrar = "sip:carrier.example.net"
# As the carrier knows it: who registers, and the user of our Contact. Calls that come in have it in their Request-URI.
#user = "4930123"
# Who answers challenges. Default: the user.
#auth_user = "4930123"
# A file with the password on its only line, which nobody else may read (chmod 600).
#password_file = "certs/carrier.password"
# Only challenges in this realm are answered. Default: those in any.
#realm = "carrier.example.net"
# false: the carrier knows us by our address; the password is for calls alone.
#register = true                 # default: true
# For how long the registration is asked for, "30s" to "168h"; it is refreshed between the half and three quarters of what is granted.
#expires = "10m"                 # default: "10m"
"##;
