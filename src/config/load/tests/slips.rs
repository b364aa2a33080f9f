//! What operators get wrong in a conf, and what they are told: one line, with what would be right.

use super::*;

/// Warnings of a conf that is taken.
fn warnings(text: &str) -> Vec<String> {
    good(text).warnings
}

#[test]
fn single_brackets_for_double_ones_are_one_line() {
    for section in ["listen", "route", "trunk", "tls.identity"] {
        let text = format!("[{section}]\ntransport = \"tcp\"\nname = \"n\"\n");
        let lines = faults(&text);
        let right = format!("{section} may appear several times: write it with double brackets, [[{section}]]");
        assert!(lines.len() == 1 && lines[0].ends_with(&right), "{lines:#?}");
    }
    assert!(
        fault("[[registrar]]\nenabled = true\n")
            .ends_with("[registrar] may appear only once: write it with single brackets, [registrar]")
    );
}

#[test]
fn what_stands_twice_is_told_with_its_first_line() {
    for (text, said) in [
        (
            "[registrar]\nenabled = true\n\n[proxy]\n[registrar]\nmax_contacts = 1\n",
            "t:5:2: [registrar] stands in line 1 already: move what is below this one there, and remove this line",
        ),
        ("[timers]\nt1 = \"1s\"\nt2 = \"4s\"\n t1 = \"2s\"\n", "t:4:2: t1 stands in line 2 already: remove one of the two"),
        // The same key of another section is another key.
        ("[timers]\nt1 = \"1s\"\n[auth]\nqop = true\nqop = false\n", "t:5:1: qop stands in line 4 already: remove one of the two"),
        (
            "[listen]\ntransport = \"udp\"\n[[listen]]\ntransport = \"tcp\"\n",
            "t:3:3: there may be several [[listen]], each with double brackets; line 1 has the first: write [[listen]] in both",
        ),
        (
            "[[registrar]]\n[[registrar]]\n[registrar]\n",
            "t:3:2: [registrar] stands in line 1 already: move what is below this one there, and remove this line",
        ),
        ("proxy = { mode = \"stateful\", mode = \"stateless\" }\n", "t:1:30: mode is there already: remove one of the two"),
    ] {
        assert_eq!(fault(text), said, "{text}");
    }
}

#[test]
fn two_listeners_where_the_kernel_takes_one() {
    let two = |one: &str, other: &str| {
        let listen = |words: &str| {
            let (transport, address) = words.split_once(' ').unwrap();
            format!("[[listen]]\ntransport = {transport:?}\naddress = {address:?}\nadvertise = \"sip.example.com:5060\"\n")
        };
        parse("t", &(listen(one) + &listen(other)), &machine())
    };
    for (one, other, said) in [
        ("udp 127.0.0.1:5060", "udp 127.0.0.1:5060", "another [[listen]] has udp 127.0.0.1:5060 already; remove one"),
        ("udp 0.0.0.0:5060", "udp 127.0.0.1:5060", "has udp 0.0.0.0:5060, and 0.0.0.0:5060 takes that port at every address"),
        ("udp 127.0.0.1:5060", "udp 0.0.0.0:5060", "has udp 127.0.0.1:5060, and 0.0.0.0:5060 takes that port at every address"),
        ("tcp [::]:5060", "tcp [::1]:5060", "has tcp [::]:5060, and [::]:5060 takes that port"),
    ] {
        let faults = two(one, other).expect_err(one).to_string();
        assert!(faults.starts_with("t:7:11: ") && faults.contains(said) && faults.lines().count() == 1, "{faults}");
    }
    // Sockets for IPv6 leave IPv4 alone, UDP has ports of its own, and so has each address.
    for (one, other) in [
        ("udp [::]:5060", "udp 0.0.0.0:5060"),
        ("udp [::]:5060", "udp 127.0.0.1:5060"),
        ("udp 0.0.0.0:5060", "tcp 127.0.0.1:5060"),
        ("udp 127.0.0.1:5060", "udp 127.0.0.2:5060"),
        ("udp 0.0.0.0:5060", "udp 127.0.0.1:5061"),
    ] {
        assert!(two(one, other).is_ok(), "{one} {other}");
    }
}

#[test]
fn metrics_and_a_listener_at_one_port_of_tcp() {
    let at = |metrics: &str, listener: &str| {
        let text = format!(
            "[[listen]]\ntransport = \"tcp\"\naddress = {listener:?}\nadvertise = \"a.example:5060\"\n[metrics]\naddress = {metrics:?}\n"
        );
        parse("t", &text, &machine())
    };
    for (metrics, listener) in [
        ("127.0.0.1:5060", "127.0.0.1:5060"),
        ("0.0.0.0:5060", "127.0.0.1:5060"),
        ("127.0.0.1:5060", "0.0.0.0:5060"),
        ("[::]:5060", "127.0.0.1:5060"),
    ] {
        let faults = at(metrics, listener).expect_err(metrics).to_string();
        let said = format!("t:6:11: address is {metrics}, and a [[listen]] takes that port of TCP: it has tcp {listener}");
        assert!(faults.starts_with(&said), "{faults}");
    }
    assert!(at("127.0.0.1:9090", "127.0.0.1:5060").is_ok());
    assert!(at("127.0.0.2:5060", "127.0.0.1:5060").is_ok());
    assert!(parse("t", "[[listen]]\n[metrics]\naddress = \"127.0.0.1:5060\"\n", &machine()).is_ok(), "that one is for UDP");
}

#[test]
fn a_method_that_is_nearly_a_known_one_is_warned_of() {
    let route = |methods: &str| warnings(&format!("[[route]]\nmethods = [{methods}]\naction = \"reject\"\n"));
    let said = "t:2:23: methods has \"INVTE\", which is no known method; the nearest known one is \"INVITE\"";
    assert_eq!(route("\"OPTIONS\", \"INVTE\""), [said]);
    for methods in ["\"INVITE\", \"BYE\"", "\"PING\"", "\"X-own\"", "\"DO\"", "\"SERVICE\""] {
        assert!(route(methods).is_empty(), "{methods}");
    }
}

#[test]
fn a_target_that_is_this_server_is_warned_of() {
    let with = |listen: &str, target: &str| {
        warnings(&format!("[[listen]]\n{listen}\n[[route]]\naction = \"relay\"\ntarget = [\"sip:192.0.2.99\", {target:?}]\n"))
    };
    let own = "address = \"127.0.0.1:5060\"";
    let wild = "address = \"0.0.0.0:5080\"\nadvertise = \"192.0.2.50:5080\"";
    for (listen, target) in
        [(own, "sip:127.0.0.1"), (own, "sip:x@127.0.0.1:5060;lr"), (wild, "sip:127.0.0.7:5080"), (wild, "sip:192.0.2.50:5080")]
    {
        let said = with(listen, target);
        assert!(said.len() == 1 && said[0].contains("is this server itself") && said[0].contains(target), "{target}: {said:?}");
    }
    for (listen, target) in
        [(own, "sip:127.0.0.1:5070"), (own, "sip:gw.example"), (wild, "sip:192.0.2.50"), (wild, "sip:127.0.0.7")]
    {
        assert!(with(listen, target).is_empty(), "{target}");
    }
}

/// A route that changes the Request-URI may lead to the server itself, as that for numbers that are called from outside does there.
#[test]
fn an_office_is_not_warned_of_its_own_way_back() {
    let own = |edit: &str| {
        let route = format!("[[route]]\naction = \"relay\"\ntarget = [\"sip:127.0.0.1:5060\"]\n{edit}\n");
        warnings(&format!("[[listen]]\naddress = \"127.0.0.1:5060\"\n{route}"))
    };
    for edit in ["strip = 1", "prefix = \"9\"", "set_host = \"example.com\""] {
        assert!(own(edit).is_empty(), "{edit}");
    }
    for edit in ["", "add_header = [\"X-Account: 42\"]"] {
        assert_eq!(own(edit).len(), 1, "{edit}");
    }
    let certs = Certs::new(&["ecdsa"]);
    certs.write("carrier.password", "secret\n");
    assert_eq!(warnings(&certs.settle(include_str!("../../../../conf/office.toml"))), [""; 0]);
}

#[test]
fn the_conf_of_another_proxy_is_recognised() {
    let said = "this is a conf of Kamailio or OpenSIPS, which strowger does not read: docs/coming-from-kamailio.md";
    for (text, line) in [
        ("#!KAMAILIO\n#\n# Kamailio config\n", 1),
        ("debug=2\nlog_stderror=no\n\nloadmodule \"tm.so\"\nmodparam(\"tm\", \"fr_timer\", 3000)\n", 4),
        ("####### Global #######\nudp_workers=4\n\nsocket=udp:127.0.0.1:5060\n\n route{\n\tt_relay();\n}\n", 6),
    ] {
        // A comment alone is a valid conf, which says nothing: what follows in the file makes it none.
        let lines = faults(&format!("{text}listen=udp:127.0.0.1:5060\n"));
        assert!(lines.len() == 1 && lines[0].contains(said) && lines[0].starts_with(&format!("t:{line}:")), "{lines:#?}");
    }
    assert!(!fault("route = [\n").contains("Kamailio"));
}

#[test]
fn only_a_file_is_a_conf() {
    let place = tempfile::tempdir().unwrap();
    let fifo = place.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let giant = place.path().join("giant");
    fs::File::create(&giant).unwrap().set_len(17 << 20).unwrap();
    for (path, said) in [
        (fifo.as_path(), "this is a FIFO: name a file"),
        (place.path(), "this is a folder: name a file"),
        (Path::new("/dev/zero"), "this is a device: name a file"),
        (giant.as_path(), "this has 17 MiB, and no conf has more than 16"),
    ] {
        for refused in [load(Some(path), &machine()).map(drop), control_socket(Some(path)).map(drop)] {
            let faults = refused.unwrap_err().to_string();
            assert!(faults.starts_with(&format!("{}: {said}", path.display())), "{faults}");
        }
    }
}

/// Commands need the socket's path and nothing else of the conf.
#[test]
fn the_control_socket_is_found_in_a_conf_with_faults() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c.toml");
    let of = |text: &str| {
        fs::write(&path, text).unwrap();
        control_socket(Some(&path)).unwrap()
    };
    let below = |name: &str| place.path().join(name);
    for (text, socket) in [
        ("", "strowger.sock"),
        ("[proxy]\nmode = \"wrong\"\n[tls]\ncertificate = \"none.pem\"\n[control]\nsocket = \"own.sock\"\n", "own.sock"),
        ("[control]\nsocket = \"own.sock\"\n[proxy]\nmode = \n", "own.sock"),
        ("[control]\nsocket = \"own.sock\"\nmode = 7\n", "own.sock"),
    ] {
        assert_eq!(of(text), ControlSocket { path: below(socket), doubt: None }, "{text}");
    }
    for text in ["[control]\nsocket = 7\n", "this is no TOML\n"] {
        let found = of(text);
        assert_eq!(found.path, below("strowger.sock"), "{text}");
        assert!(found.doubt.is_some_and(|line| line.contains("--control") && line.contains("c.toml")), "{text}");
    }
}

#[test]
fn a_socket_whose_path_is_too_long_is_named_whole() {
    let machine = machine();
    let folder = format!("/{}", "x".repeat(95));
    for text in ["", "[control]\nsocket = \"strowger.sock\"\n", "[control]\nsocket = \"ok.sock\"\nmode = \"0660\"\n"] {
        let faults = parse_below("t", text, Some(&folder), &machine).unwrap_err().to_string();
        assert!(faults.lines().count() == 1 && faults.contains(&folder) && faults.contains("99 bytes"), "{faults}");
    }
    assert!(parse_below("t", "[control]\nsocket = \"/run/strowger.sock\"\n", Some(&folder), &machine).is_ok());
}

#[test]
fn nobody_but_owner_and_group_opens_the_control_socket() {
    let mode = |value: &str| parse("t", &format!("[control]\nmode = {value}\n"), &machine()).map(|conf| conf.control.mode);
    assert_eq!((mode("\"0600\""), mode("\"0660\"")), (Ok(0o600), Ok(0o660)));
    for wrong in ["\"0666\"", "\"0000\"", "\"rw\"", "0o660", "\"\""] {
        let faults = mode(wrong).unwrap_err().to_string();
        assert!(faults.contains("\"0600\", for its owner, or \"0660\", for its group as well"), "{faults}");
    }
}
