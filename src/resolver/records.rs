//! Converts the library's answers to ours.

use crate::base::dns::{Failure, Naptr, Outcome, RecordType, Records, Srv};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record};
use std::net::IpAddr;

/// The records of one kind in an answer, which may begin with aliases; the shortest TTL of all counts.
pub fn found(kind: RecordType, answers: &[Record]) -> Outcome {
    let ttl_s = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    let all = answers.iter().map(|record| &record.data);
    let records = match kind {
        RecordType::Naptr => Records::Naptr(all.filter_map(naptr).collect()),
        RecordType::Srv => Records::Srv(all.filter_map(srv).collect()),
        RecordType::A | RecordType::Aaaa => Records::Addresses(all.filter_map(address).collect()),
    };
    let ttl_ms = u64::from(ttl_s) * 1000;
    match records.is_empty() {
        true => Outcome::Nothing { exists: true, ttl_ms },
        false => Outcome::Found { records, ttl_ms },
    }
}

/// No records: because there are none, or because nobody answers.
pub fn missing(error: &NetError) -> Outcome {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            code @ (ResponseCode::NoError | ResponseCode::NXDomain) => Outcome::Nothing {
                exists: code == ResponseCode::NoError,
                // RFC 2308 §5: without an SOA it is not to be cached.
                ttl_ms: u64::from(none.negative_ttl.unwrap_or(0)) * 1000,
            },
            _ => Outcome::Failed(Failure::Server),
        },
        NetError::Timeout | NetError::NoConnections | NetError::Io(_) => Outcome::Failed(Failure::Silence),
        NetError::Busy => Outcome::Failed(Failure::Busy),
        _ => Outcome::Failed(Failure::Server),
    }
}

fn naptr(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(naptr) = data else {
        return None;
    };
    Some(Naptr {
        order: naptr.order,
        preference: naptr.preference,
        flags: naptr.flags.to_vec(),
        service: naptr.services.to_vec(),
        regexp: naptr.regexp.to_vec(),
        replacement: text(&naptr.replacement),
    })
}

fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else {
        return None;
    };
    Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: text(&srv.target) })
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// Lower case, without the final dot; empty for the root.
fn text(name: &Name) -> Vec<u8> {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, SRV};
    use hickory_resolver::proto::rr::{self};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(ttl: u32, data: RData) -> Record {
        Record::from_rdata(name("x.example."), ttl, data)
    }

    #[test]
    fn the_shortest_life_counts_and_aliases_are_left_out() {
        let answers = [record(60, RData::CNAME(CNAME(name("y.example.")))), record(300, RData::A(A::new(192, 0, 2, 1)))];
        let records = Records::Addresses(vec!["192.0.2.1".parse().unwrap()]);
        let ttl_ms = 60_000;
        assert_eq!(found(RecordType::A, &answers), Outcome::Found { records, ttl_ms });
        let outcome = found(RecordType::Srv, &answers);
        assert!(matches!(outcome, Outcome::Nothing { exists: true, .. }));
    }

    #[test]
    fn names_lose_their_case_and_their_dot() {
        let answers = [
            record(5, RData::SRV(SRV::new(1, 2, 5070, name("Gate.EXAMPLE.")))),
            record(5, RData::SRV(SRV::new(2, 0, 0, Name::root()))),
        ];
        let Outcome::Found { records, .. } = found(RecordType::Srv, &answers) else {
            panic!("nothing found");
        };
        let Records::Srv(list) = records else {
            panic!("{records:?}");
        };
        let targets: Vec<_> = list.iter().map(|srv| srv.target.as_slice()).collect();
        assert_eq!(targets, [b"gate.example".as_slice(), b""]);
    }

    #[test]
    fn absence_is_no_failure() {
        let none = |code, ttl| {
            let query = Query::query(name("x.example."), rr::RecordType::A);
            let mut none = NoRecords::new(query, code);
            none.negative_ttl = ttl;
            missing(&none.into())
        };
        let nothing = |exists, ttl_ms| Outcome::Nothing { exists, ttl_ms };
        assert_eq!(none(ResponseCode::NXDomain, Some(30)), nothing(false, 30_000));
        assert_eq!(none(ResponseCode::NoError, None), nothing(true, 0));
        let server = Outcome::Failed(Failure::Server);
        assert_eq!(none(ResponseCode::ServFail, Some(30)), server);
        assert_eq!(none(ResponseCode::Refused, None), server);
        assert_eq!(missing(&NetError::Timeout), Outcome::Failed(Failure::Silence));
    }
}
