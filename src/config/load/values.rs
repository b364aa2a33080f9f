//! Parsers of values: each function understands one kind, and its error says what would have been accepted.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::wrong::{Parsed, Value, found, integer, must_be, wrong};
use crate::base::Network;
use crate::config::units;
use crate::settings::{Capacity, Millis, RecordsTo, Seconds, Words};

pub(super) fn string<'v>(value: &'v Value<'_>, what: &str) -> Parsed<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(must_be(value, what)),
    }
}

pub(super) fn boolean(value: &Value<'_>) -> Parsed<bool> {
    match value.get_ref() {
        DeValue::Boolean(boolean) => Ok(*boolean),
        _ => Err(must_be(value, "true or false")),
    }
}

pub(super) fn number<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&Value<'_>) -> Parsed<T> {
    move |value| {
        let number = integer(value).filter(|number| (min..=max).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| must_be(value, &format!("an integer from {min} to {max}")))
    }
}

pub(super) fn capacity(value: &Value<'_>) -> Parsed<Capacity> {
    // The arenas' indices have 32 bits, and the last of them is reserved.
    let max = u64::from(u32::MAX) - 1;
    match number(0, max)(value) {
        Ok(0) => Ok(Capacity::FromMemory),
        Ok(count) => Ok(Capacity::Exactly(count)),
        Err(_) => {
            let what = format!("an integer from 1 to {max}, or 0 for as many as the memory holds");
            Err(must_be(value, &what))
        }
    }
}

/// A limit of connections, each of which uses a file; `None` for 0.
pub(super) fn connections(value: &Value<'_>) -> Parsed<Option<usize>> {
    let max = u64::from(u32::MAX);
    match number(0, max)(value) {
        Ok(0) => Ok(None),
        Ok(count) => Ok(Some(count)),
        Err(_) => {
            let what = format!("an integer from 1 to {max}, or 0 for as many as the process may open files");
            Err(must_be(value, &what))
        }
    }
}

pub(super) fn time(min: Duration, max: Duration) -> impl Fn(&Value<'_>) -> Parsed<Duration> {
    move |value| {
        let what = "a time such as \"500ms\", \"5s\", \"2m\" or \"1h\"";
        let text = string(value, what)?;
        let time = units::parse_time(text).ok_or_else(|| must_be(value, what))?;
        if (min..=max).contains(&time) {
            return Ok(time);
        }
        let what = format!("a time from \"{}\" to \"{}\"", units::time(min), units::time(max));
        Err(must_be(value, &what))
    }
}

pub(super) fn millis(min: Duration, max: Duration) -> impl Fn(&Value<'_>) -> Parsed<Millis> {
    let millis = |time: Duration| Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
    move |value| time(min, max)(value).map(millis)
}

/// A time that a SIP header can express: `Expires` and `expires` count in seconds.
pub(super) fn seconds(min: Duration, max: Duration) -> impl Fn(&Value<'_>) -> Parsed<Seconds> {
    move |value| match time(min, max)(value)? {
        time if time.subsec_micros() == 0 => Ok(Seconds::try_from(time.as_secs()).unwrap_or(Seconds::MAX)),
        _ => Err(must_be(value, "a time of whole seconds such as \"60s\"")),
    }
}

pub(super) fn size(min: usize, max: usize) -> impl Fn(&Value<'_>) -> Parsed<usize> {
    move |value| {
        let what = "a size such as \"512B\", \"64KiB\" or \"4MiB\"";
        let text = string(value, what)?;
        let size = units::parse_size(text).ok_or_else(|| must_be(value, what))?;
        if (min..=max).contains(&size) {
            return Ok(size);
        }
        let what = format!("a size from \"{}\" to \"{}\"", units::size(min), units::size(max));
        Err(must_be(value, &what))
    }
}

/// How faults describe a list of networks.
pub(super) const NETWORKS: &str = "a list of networks such as [\"192.0.2.0/24\"]";

/// An address, with or without a port; 53 is the default.
pub(super) fn name_server(value: &Value<'_>) -> Parsed<SocketAddr> {
    let what = "IP addresses such as \"192.0.2.53\" or \"192.0.2.53:5353\"";
    let text = string(value, what)?;
    let ip = text.parse().map(|ip| SocketAddr::new(ip, 53));
    let address = ip.or_else(|_| text.parse::<SocketAddr>());
    address.ok().filter(|address| !address.ip().is_unspecified() && address.port() != 0).ok_or_else(|| must_be(value, what))
}

/// One word of a setting.
pub(super) fn word<T: Words>(value: &Value<'_>) -> Parsed<T> {
    one_of(T::WORDS)(value)
}

pub(super) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Value<'_>) -> Parsed<T> {
    move |value| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let what = format!("one of {}", words.join(", "));
        let text = string(value, &what)?;
        let choice = choices.iter().find(|(word, _)| *word == text);
        choice.map(|(_, choice)| *choice).ok_or_else(|| must_be(value, &what))
    }
}

pub(super) fn path(value: &Value<'_>) -> Parsed<PathBuf> {
    let what = "the path of a file";
    match string(value, what)? {
        "" => Err(must_be(value, what)),
        text => Ok(PathBuf::from(text)),
    }
}

/// A list of distinct entries. The faults of all its entries are reported together.
pub(super) fn list<'d, T: PartialEq>(what: &str, parse: impl Fn(&Value<'d>) -> Parsed<T>) -> impl Fn(&Value<'d>) -> Parsed<Vec<T>> {
    move |value| {
        let DeValue::Array(array) = value.get_ref() else {
            return Err(must_be(value, what));
        };
        let mut entries = Vec::new();
        let mut wrongs = Vec::new();
        for entry in array {
            match parse(entry) {
                Ok(parsed) if entries.contains(&parsed) => {
                    let phrase = format!("names {} twice; remove one", found(entry.get_ref()));
                    wrongs.extend(wrong(entry, phrase));
                }
                Ok(parsed) => entries.push(parsed),
                Err(more) => wrongs.extend(more),
            }
        }
        if wrongs.is_empty() { Ok(entries) } else { Err(wrongs) }
    }
}

/// A list that may not be empty.
pub(super) fn filled<'d, T>(parse: impl Fn(&Value<'d>) -> Parsed<Vec<T>>) -> impl Fn(&Value<'d>) -> Parsed<Vec<T>> {
    move |value| {
        let entries = parse(value)?;
        if entries.is_empty() {
            return Err(wrong(value, "is an empty list: name at least one, or leave the key out"));
        }
        Ok(entries)
    }
}

/// A worker's number has eight bits in a Via branch.
const CORES_MOST: usize = 255;

/// CPU cores; which of them exist depends on the machine.
pub(super) fn cores(value: &Value<'_>) -> Parsed<Vec<usize>> {
    let core = |value: &Value<'_>| number(0, u64::MAX)(value).map_err(|_| must_be(value, "the numbers of CPU cores, from 0"));
    let cores = filled(list("a list of CPU cores such as [0] or [0, 1]", core))(value)?;
    if cores.len() > CORES_MOST {
        let count = cores.len();
        let phrase = format!("names {count} cores, but a server has {CORES_MOST} at most");
        return Err(wrong(value, phrase));
    }
    Ok(cores)
}

pub(super) fn listen_address(value: &Value<'_>) -> Parsed<SocketAddr> {
    let what = "an address with a port such as \"127.0.0.1:5060\" or \"[::1]:5060\"";
    let text = string(value, what)?;
    let address: SocketAddr = text.parse().map_err(|_| must_be(value, what))?;
    if address.port() == 0 {
        return Err(must_be(value, "an address with a port from 1 to 65535"));
    }
    if address.ip().is_multicast() {
        return Err(must_be(value, "an address of this machine"));
    }
    Ok(address)
}

pub(super) fn network(value: &Value<'_>) -> Parsed<Network> {
    let what = "networks such as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.1\"";
    let text = string(value, what)?;
    let parse = || {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(whole), |prefix| prefix.parse().ok())?;
        Some((address, Network::new(address, prefix).masked()?))
    };
    let (address, network) = parse().ok_or_else(|| must_be(value, what))?;
    if network.address != address {
        // Either the address or the prefix is not what was meant, and an access rule must not guess.
        return Err(wrong(
            value,
            format!("has {text}, which sets bits after the prefix; the network is {network}, the one host {address}"),
        ));
    }
    Ok(network)
}

/// The methods of RFC 3261 and its extensions, to tell a wrong case from a private method.
pub(super) const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "REGISTER",
    "OPTIONS",
    "PRACK",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "UPDATE",
];

pub(super) fn method(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let what = "methods such as \"INVITE\"";
    let text = string(value, what)?;
    let upper = text.to_ascii_uppercase();
    if text != upper && METHODS.contains(&upper.as_str()) {
        return Err(wrong(value, format!("has {text:?}, but methods are in upper case: write {upper:?}")));
    }
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(must_be(value, what));
    }
    Ok(text.into())
}

/// `token` of RFC 3261 §25.1.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// The name of a user or a group of the system.
pub(super) fn account(value: &Value<'_>) -> Parsed<String> {
    let what = "the name of a user or group of this system such as \"strowger\"";
    let text = string(value, what)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    match text.is_empty() || text.starts_with('-') || !text.chars().all(fits) {
        true => Err(must_be(value, what)),
        false => Ok(text.to_owned()),
    }
}

/// A value that is absent if it is the empty string.
pub(super) fn optional<T>(parse: impl Fn(&Value<'_>) -> Parsed<T>) -> impl Fn(&Value<'_>) -> Parsed<Option<T>> {
    move |value| match value.get_ref() {
        DeValue::String(text) if text.is_empty() => Ok(None),
        _ => parse(value).map(Some),
    }
}

/// One entry, or a list of `most` at most; the empty string and the empty list stand for none.
pub(super) fn one_or_more<'d, T: PartialEq>(
    most: usize,
    parse: impl Fn(&Value<'d>) -> Parsed<T>,
) -> impl Fn(&Value<'d>) -> Parsed<Vec<T>> {
    move |value| match value.get_ref() {
        DeValue::String(text) if text.is_empty() => Ok(Vec::new()),
        DeValue::Array(array) if array.len() > most => {
            let phrase = format!("names {} entries, but takes {most} at most", array.len());
            Err(wrong(value, phrase))
        }
        DeValue::Array(_) => list("", &parse)(value),
        _ => parse(value).map(|one| vec![one]),
    }
}

/// The longest path of the control socket: an address takes 107 bytes, and the socket is first made beside its path, with the
/// process's number at the end.
pub(super) const SOCKET_PATH_LONGEST: usize = 99;

pub(super) fn socket(value: &Value<'_>) -> Parsed<PathBuf> {
    let path = path(value)?;
    if path.as_os_str().len() > SOCKET_PATH_LONGEST {
        let phrase = format!("must be a path of at most {SOCKET_PATH_LONGEST} bytes, not {}", path.display());
        return Err(wrong(value, phrase));
    }
    Ok(path)
}

/// The mode of the control socket. To connect is to write.
pub(super) fn socket_mode(value: &Value<'_>) -> Parsed<u32> {
    let what = "\"0600\", for its owner, or \"0660\", for its group as well";
    match string(value, what)? {
        "0600" | "600" => Ok(0o600),
        "0660" | "660" => Ok(0o660),
        _ => Err(must_be(value, what)),
    }
}

pub(super) const ALGORITHMS: &str = "a list of \"SHA-256\", \"SHA-512-256\" and \"MD5\", the one offered first at the beginning";

/// The longest realm, in bytes.
const REALM_LONGEST: usize = 255;

/// Where records go: a file, or a socket after the word unixgram.
pub(super) fn records(value: &Value<'_>) -> Parsed<RecordsTo> {
    let what = "the path of a file such as \"/var/log/strowger/calls.json\", or of a socket such as \"unixgram:/run/calls.sock\"";
    let text = string(value, what)?;
    match text.strip_prefix("unixgram:") {
        // A socket's address has 108 bytes, the last of which is zero.
        Some(path) if !path.is_empty() && path.len() < 108 && !path.contains('\0') => Ok(RecordsTo::Socket(path.into())),
        None if !text.is_empty() && !text.contains('\0') => Ok(RecordsTo::File(text.into())),
        _ => Err(must_be(value, what)),
    }
}

/// `realm-value` (RFC 3261 §25.1) without its quotes and without anything that must be escaped: not every phone can unescape.
pub(super) fn realm(value: &Value<'_>) -> Parsed<String> {
    let what = "the realm of a challenge such as \"example.com\"";
    let text = string(value, what)?;
    if text.len() > REALM_LONGEST {
        let phrase = format!("must be of at most {REALM_LONGEST} bytes");
        return Err(wrong(value, phrase));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() || ['"', '\\'].contains(c)) {
        let phrase = format!("has {text:?}, but {bad:?} has no place in a realm: remove it");
        return Err(wrong(value, phrase));
    }
    if text.trim() != text {
        let phrase = format!("has {text:?}, with a blank at its beginning or end: remove it");
        return Err(wrong(value, phrase));
    }
    Ok(text.to_owned())
}
