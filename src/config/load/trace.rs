//! The values of `[trace]`.

use toml::de::DeValue;

use std::net::{IpAddr, Ipv4Addr};

use super::document::{Document, Plain};
use super::values::string;
use super::wrong::{Parsed, Value, must_be};
use crate::base::Transport;
use crate::config::model::Listen;
use crate::settings::{Collector, Trace};

impl Document<'_> {
    pub(super) fn trace(&mut self, listen: &[Listen]) -> Trace {
        let mut section = self.section(Trace::NAME);
        let trace = Trace::read(&mut section);
        if let Some(why) = trace.hep.as_ref().and_then(|collector| unfit(collector, listen)) {
            section.wrong(section.place("hep"), why);
        }
        trace
    }
}

/// Why no collector can be at this address. Where a name leads is known only later.
fn unfit(collector: &Collector, listen: &[Listen]) -> Option<String> {
    let host = match collector.host.strip_suffix('.').unwrap_or(&collector.host) {
        name if name.eq_ignore_ascii_case("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address.parse().ok()?,
    };
    let host = host.to_canonical();
    let kind = match host {
        _ if host.is_unspecified() => Some("stands for all addresses"),
        _ if host.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("is the broadcast address"),
        _ => None,
    };
    if let Some(kind) = kind {
        return Some(format!("hep names {collector}, but {host} {kind}: name one host"));
    }
    let is_own = |l: &&Listen| {
        let own = l.address.ip().to_canonical();
        let is_all = own.is_unspecified() && own.is_ipv4() == host.is_ipv4();
        l.transport == Transport::Udp && l.address.port() == collector.port && (own == host || is_all)
    };
    let own = listen.iter().find(is_own)?;
    Some(format!(
        "hep names {collector}, but a [[listen]] takes SIP by UDP at {}: the copies would come back; name a collector with another port",
        own.address
    ))
}

/// `udp:HOST:PORT`; an IPv6 address stands in brackets.
pub(super) fn collector(value: &Value<'_>) -> Parsed<Collector> {
    let what = "a collector such as \"udp:192.0.2.9:9060\", \"udp:[2001:db8::9]:9060\" or \"udp:homer.example.com:9060\"";
    let text = string(value, what)?;
    let parse = || {
        let (name, port) = text.strip_prefix("udp:")?.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let bare = name.strip_prefix('[').map_or(Some(name), |rest| rest.strip_suffix(']'))?;
        // A colon without brackets is a port too many, or an IPv6 address whose end is ambiguous.
        let is_bracketed = bare.len() != name.len();
        let fits = match is_bracketed {
            true => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            false => is_host(bare),
        };
        fits.then(|| Collector { host: bare.to_owned(), port })
    };
    parse().ok_or_else(|| must_be(value, what))
}

/// An IPv4 address or the name of a host.
pub(super) fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(fits)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return name.parse::<std::net::Ipv4Addr>().is_ok();
    }
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A fraction of the whole.
pub(super) fn share(value: &Value<'_>) -> Parsed<f64> {
    let number = match value.get_ref() {
        DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
        DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
        _ => None,
    };
    number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| must_be(value, "a number from 0.0 to 1.0"))
}

#[cfg(test)]
mod tests {
    use crate::config::load::parse;
    use crate::config::machine::Machine;
    use crate::settings::Trace;

    fn trace(key: &str, value: &str) -> Result<Trace, String> {
        let machine = Machine { cores: vec![0], memory: 1 << 30, files: 1 << 20 };
        let conf = parse("t", &format!("[trace]\n{key} = {value}\n"), &machine);
        conf.map(|conf| conf.trace).map_err(|faults| faults.to_string())
    }

    #[test]
    fn collectors() {
        for text in ["udp:192.0.2.9:9060", "udp:[2001:db8::9]:9060", "udp:homer.example.com:1", "udp:homer_1.:65535"] {
            let read = trace("hep", &format!("{text:?}")).unwrap().hep;
            assert_eq!(read.unwrap().to_string(), text);
        }
        assert_eq!(trace("hep", "\"\"").unwrap().hep, None);
        for text in [
            "192.0.2.9:9060",
            "tcp:192.0.2.9:9060",
            "udp:192.0.2.9",
            "udp:192.0.2.9:0",
            "udp:192.0.2.9:65536",
            "udp:192.0.2.999:9060",
            "udp::9060",
            "udp:2001:db8::9:9060",
            "udp:[2001:db8::9:9060",
            "udp:[192.0.2.9]:9060",
            "udp:a b:9060",
            "udp:a..b:9060",
        ] {
            let why = trace("hep", &format!("{text:?}")).unwrap_err();
            assert!(why.starts_with("t:2:7: hep must be a collector such as \"udp:192.0.2.9:9060\""), "{text}: {why}");
        }
        assert!(trace("hep", "9060").unwrap_err().contains("not the integer 9060"));
    }

    #[test]
    fn a_collector_is_one_other_host() {
        let machine = Machine { cores: vec![0], memory: 1 << 30, files: 1 << 20 };
        let read = |listen: &str, hep: &str| {
            let text = format!("[trace]\nhep = {hep:?}\n{listen}");
            parse("t", &text, &machine).map(|_| ()).map_err(|faults| faults.to_string())
        };
        for (hep, why) in [
            ("udp:0.0.0.0:9060", "0.0.0.0 stands for all addresses"),
            ("udp:[::]:9060", ":: stands for all addresses"),
            ("udp:239.1.2.3:9060", "239.1.2.3 is a multicast address"),
            ("udp:[ff02::1]:9060", "ff02::1 is a multicast address"),
            ("udp:255.255.255.255:9060", "255.255.255.255 is the broadcast address"),
        ] {
            let said = read("", hep).unwrap_err();
            assert!(said.starts_with("t:2:7: hep names") && said.contains(why), "{said}");
        }
        let listen = |transport: &str, address: &str| {
            format!("[[listen]]\ntransport = {transport:?}\naddress = {address:?}\nadvertise = \"a.example:5070\"\n")
        };
        for (address, hep) in [
            ("192.0.2.1:5070", "udp:192.0.2.1:5070"),
            ("192.0.2.1:5070", "udp:[::ffff:192.0.2.1]:5070"),
            ("0.0.0.0:5070", "udp:192.0.2.1:5070"),
            ("127.0.0.1:5070", "udp:LocalHost:5070"),
            ("[::]:5070", "udp:[2001:db8::1]:5070"),
        ] {
            let said = read(&listen("udp", address), hep).unwrap_err();
            assert!(said.starts_with("t:2:7: hep names") && said.contains(address), "{said}");
            assert_eq!(read(&listen("tcp", address), hep), Ok(()), "another transport");
        }
        for hep in ["udp:192.0.2.1:5071", "udp:192.0.2.2:5070", "udp:[2001:db8::1]:5070", "udp:a.example:5070"] {
            assert_eq!(read(&listen("udp", "192.0.2.1:5070"), hep), Ok(()), "{hep}");
        }
    }

    #[test]
    fn shares_and_numbers() {
        for (text, share) in [("0.0", 0.0), ("0.25", 0.25), ("1.0", 1.0), ("1", 1.0), ("0", 0.0), ("1e-3", 0.001)] {
            assert_eq!(trace("share", text).unwrap().share, share, "{text}");
        }
        for text in ["1.01", "-0.1", "2", "nan", "inf", "\"0.5\"", "true"] {
            let why = trace("share", text).unwrap_err();
            assert!(why.contains("share must be a number from 0.0 to 1.0, not"), "{text}: {why}");
        }
        assert_eq!(trace("hep_id", "4294967295").unwrap().hep_id, u32::MAX);
        assert!(trace("hep_id", "4294967296").is_err());
    }
}
