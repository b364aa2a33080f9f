//! The laboratory's name servers: where the names of phones lead, and how well they are told (RFC 3263). Answers come late, change,
//! fail, or never come; some of the servers that they name are dead.

use super::address::Address;
use super::addresses::nobody;
use super::hashing::digest;
use super::plan::PhonePlan;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use strowger::base::dns::{Answer, Failure, Naptr, Outcome, Question, RecordType, Records, Srv};
use strowger::base::{Instant, Rng, Transport};

/// All names end with this; those that do not are none.
const DOMAIN: &str = "phones.example";

/// What a name server does with a question.
pub enum Reply {
    Late { ms: u64, answer: Box<Answer> },
    Never,
}

/// All that the name servers know.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    /// By a phone's own name.
    phones: BTreeMap<String, Entry>,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    at: SocketAddr,
    transport: Transport,
    shape: Shape,
    /// Its servers' answers come up to so late.
    late_ms: u64,
    /// Thousandths of questions that come to nothing.
    failing: u64,
}

/// How a name leads to its phone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// By an address.
    Host,
    /// By one of two addresses; nobody is at the other.
    Hosts,
    /// By the second of two SRV records; nobody is at the first.
    Spare,
    /// By NAPTR and SRV.
    Service,
}

const SHAPES: [Shape; 4] = [Shape::Host, Shape::Hosts, Shape::Spare, Shape::Service];

impl Zone {
    /// Gives names to some of the phones.
    pub fn new(seed: u64, phones: &mut [PhonePlan]) -> Zone {
        let mut zone = Zone { seed, ..Zone::default() };
        let rng = &mut Rng::new(seed ^ 0xd05);
        for (number, phone) in phones.iter_mut().enumerate() {
            if phone.behind_nat || rng.one_in(3) {
                continue;
            }
            let name = format!("p{number}.{DOMAIN}");
            let shape = SHAPES[rng.below(SHAPES.len() as u64) as usize];
            phone.host = Some(match shape {
                Shape::Host | Shape::Hosts => format!("{name}:{}", phone.at.port()),
                Shape::Spare | Shape::Service => name.clone(),
            });
            // A transport in the URI leads to its SRV records without NAPTR.
            phone.names_transport = shape == Shape::Spare;
            let entry = Entry {
                at: phone.at,
                transport: phone.transport,
                shape,
                late_ms: [0, 3, 400, 3000][rng.below(4) as usize],
                failing: [0, 0, 100, 500][rng.below(4) as usize],
            };
            zone.phones.insert(name, entry);
        }
        zone
    }

    /// True if a request for this host may be sent there.
    pub fn leads_to(&self, host: &[u8], to: SocketAddr) -> bool {
        let entry = std::str::from_utf8(host).ok();
        let entry = entry.and_then(|host| self.phones.get(host.to_ascii_lowercase().as_str()));
        entry.is_some_and(|entry| {
            let is_nobody = nobody(entry.at.is_ipv6()) == to && entry.shape != Shape::Host;
            to == entry.at || is_nobody && entry.shape != Shape::Service
        })
    }

    /// True if the host of this URI has to be asked for.
    pub fn has_name(&self, uri: &[u8]) -> bool {
        let host = Address::of(uri).map(|address| address.host.to_ascii_lowercase());
        host.is_some_and(|host| host.ends_with(DOMAIN.as_bytes()))
    }

    /// What becomes of a question that is asked now: the same for the same question in the same second.
    pub fn reply(&self, now: Instant, question: &Question) -> Reply {
        let text = format!("{question:?} {} {}", now.as_ms() / 1000, self.seed);
        let rng = &mut Rng::new(digest(text.as_bytes()));
        let name = question.name.to_string();
        let owner = name.split('.').find(|label| {
            let digits = label.strip_prefix('p').unwrap_or("");
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        });
        let owner = owner.map(|label| format!("{label}.{DOMAIN}"));
        let nothing = |exists| Outcome::Nothing { exists, ttl_ms: 5000 };
        let Some(entry) = owner.and_then(|owner| self.phones.get(&owner)) else {
            // Nobody's name: told at once.
            let answer = Box::new(Answer { question: *question, outcome: nothing(false) });
            return Reply::Late { ms: 0, answer };
        };
        if rng.chance(entry.failing / 10) {
            return Reply::Never;
        }
        let outcome = match rng.chance(entry.failing) {
            true if rng.one_in(3) => nothing(false),
            true => Outcome::Failed(Failure::Silence),
            false => match entry.records(&name, question.kind) {
                Some(records) => Outcome::Found { records, ttl_ms: rng.below(30_000) },
                None => nothing(true),
            },
        };
        let answer = Box::new(Answer { question: *question, outcome });
        let ms = rng.below(entry.late_ms + 1);
        Reply::Late { ms, answer }
    }
}

impl Entry {
    fn records(&self, name: &str, kind: RecordType) -> Option<Records> {
        let nobody = nobody(self.at.is_ipv6()).ip();
        let own = name.split('.').next().unwrap_or_default().to_owned();
        let under = |prefix: &str| name.starts_with(prefix);
        let family = |ip: &IpAddr| ip.is_ipv6() == (kind == RecordType::Aaaa);
        let service = match self.transport {
            Transport::Tcp => "_sip._tcp.",
            _ => "_sip._udp.",
        };
        match (kind, self.shape) {
            (RecordType::A | RecordType::Aaaa, shape) => {
                let all = match shape {
                    _ if under("dead.") => vec![nobody],
                    Shape::Hosts => vec![nobody, self.at.ip()],
                    _ => vec![self.at.ip()],
                };
                let all: Vec<IpAddr> = all.into_iter().filter(family).collect();
                (!all.is_empty()).then_some(Records::Addresses(all))
            }
            (RecordType::Srv, Shape::Spare | Shape::Service) if under(service) => {
                let phone = name.strip_prefix(service).unwrap_or_default();
                let srv = |priority, target: String| Srv { priority, weight: 1, port: self.at.port(), target: target.into_bytes() };
                let mut list = vec![srv(20, format!("alive.{phone}"))];
                if self.shape == Shape::Spare {
                    list.push(srv(10, format!("dead.{phone}")));
                }
                Some(Records::Srv(list))
            }
            (RecordType::Naptr, Shape::Service) if own.starts_with('p') => {
                let naptr = |order, word: &str, prefix: &str| Naptr {
                    order,
                    preference: 1,
                    flags: b"s".to_vec(),
                    service: word.as_bytes().to_vec(),
                    regexp: Vec::new(),
                    replacement: format!("{prefix}{name}").into_bytes(),
                };
                let own = match self.transport {
                    Transport::Tcp => "SIP+D2T",
                    _ => "SIP+D2U",
                };
                Some(Records::Naptr(vec![naptr(1, "SIPS+D2T", "_sips._tcp."), naptr(2, own, service)]))
            }
            _ => None,
        }
    }
}
