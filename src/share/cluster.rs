//! A cluster of Redis servers: which of them has which slots, and a connection to each. If slots move, a command is refused with `MOVED`, and
//! whoever hears that connects anew.

use super::access::Access;
use super::reply::{Contents, Reply};
use super::trouble::{Trouble, unexpected};
use super::wire::Wire;
use std::ops::RangeInclusive;

/// Slots, and the number of the connection to the server that has them.
type Slots = Vec<(RangeInclusive<u16>, usize)>;

/// Asks the servers, one after the other, who has which slots, and connects to all of those.
pub fn connect(hosts: &[(String, u16)], access: &Access) -> Result<(Slots, Vec<Wire>), Trouble> {
    let mut outcome = Err(Trouble::Lost("it has no address".to_owned()));
    for (host, port) in hosts {
        outcome = by_map_of(host, *port, access);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn by_map_of(host: &str, port: u16, access: &Access) -> Result<(Slots, Vec<Wire>), Trouble> {
    let open = |host: &str, port| Wire::open(host, port, access);
    let reply = open(host, port)?.call(&[b"CLUSTER", b"SLOTS"])?;
    let (mut slots, mut servers, mut wires) = (Slots::new(), Vec::new(), Vec::new());
    for range in reply.list().unwrap_or_default() {
        let (range, ip, port) = read_range(range).ok_or_else(|| unexpected("CLUSTER SLOTS", &reply))?;
        // A server that does not know its own address means the one at which it was asked.
        let server = (if ip.is_empty() { host.to_owned() } else { ip }, port);
        let number = match servers.iter().position(|known| *known == server) {
            Some(number) => number,
            None => {
                wires.push(open(&server.0, server.1)?);
                servers.push(server);
                wires.len() - 1
            }
        };
        slots.push((range, number));
    }
    let covered: usize = slots.iter().map(|(range, _)| range.len()).sum();
    match covered == 16384 {
        true => Ok((slots, wires)),
        false => Err(Trouble::Lost(format!("the cluster has servers for {covered} of its 16384 slots"))),
    }
}

/// Reads a range of slots and the address of its primary.
fn read_range(range: &Reply) -> Option<(RangeInclusive<u16>, String, u16)> {
    let [first, last, primary, ..] = range.list()? else {
        return None;
    };
    let [ip, port, ..] = primary.list()? else {
        return None;
    };
    let short = |reply: &Reply| u16::try_from(reply.number()?).ok();
    let ip = String::from_utf8_lossy(ip.text().unwrap_or_default()).into_owned();
    Some((short(first)?..=short(last)?, ip, short(port)?))
}
