//! Where a name leads (RFC 3263 §4): NAPTR, SRV and addresses as far as they are known, in the order in which they are to be tried.

use crate::base::dns::{DomainName, Failure, Naptr, Question, RecordType, Records};
use crate::base::{Instant, Rng, ShareHolder, Transport};
use crate::stack::counters::Limit;
use crate::stack::health::{NamedBy, Neighbour, Standing};
use crate::stack::hop_uri::HopQuery;
use crate::stack::names::{Look, MOST_RECORDS, Names, NoRoom};
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::settings::Settings;
use crate::stack::turn::Turn;
use crate::stack::weights::by_weight;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow::{self, Break, Continue};

/// The deadline has passed.
pub const TOO_LATE: Refusal = Refusal::new(503, "Next Hop Name Not Answered In Time");

/// One server's address, and how to speak to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerAddress {
    pub address: SocketAddr,
    pub transport: Transport,
}

impl ServerAddress {
    pub fn named_by(self, named_by: NamedBy) -> Neighbour {
        Neighbour { named_by, transport: self.transport, address: self.address }
    }
}

/// A place that a target of this request was sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tried {
    /// The target's index in the target set.
    pub target: u16,
    pub server_address: ServerAddress,
}

/// Which place is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// When the search began: answers that have come since are valid for it.
    pub since: Instant,
    /// Of this target.
    pub target: u16,
    /// The places that have been tried already.
    pub tried: &'a [Tried],
    /// There is no time to wait for answers.
    pub is_late: bool,
}

impl Search<'_> {
    /// If the next hop's name leads to several servers, the same one is chosen for all requests with this Call-ID, as RFC 3263 §4.4
    /// wants, as long as it has not failed; whether it answers this request is not known.
    pub fn without_memory(since: Instant) -> Search<'static> {
        Search { since, target: 0, tried: &[], is_late: false }
    }

    fn is_new(&self, server_address: ServerAddress) -> bool {
        let tried = Tried { target: self.target, server_address };
        !self.tried.contains(&tried)
    }
}

/// Why a name leads nowhere. The last of several reasons counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nowhere {
    NotAName,
    NoSuchName,
    /// No record says where the server is.
    NoAddress,
    /// Its servers speak only transports that none of our listeners speaks.
    NoTransport,
    /// The domain says that it has no such service (RFC 2782: target ".").
    NoService,
    Failed(Failure),
    /// Every place has been tried.
    Exhausted,
}

impl Nowhere {
    pub const fn reason(self) -> &'static str {
        match self {
            Nowhere::NotAName => "Next Hop Is Not A Domain Name",
            Nowhere::NoSuchName => "Next Hop Name Does Not Exist",
            Nowhere::NoAddress => "Next Hop Name Has No Address",
            Nowhere::NoTransport => "No Common Transport With The Next Hop",
            Nowhere::NoService => "Next Hop Domain Offers No SIP",
            Nowhere::Failed(Failure::Silence) => "Next Hop Name Not Answered By DNS",
            Nowhere::Failed(Failure::Server) => "Next Hop Name Refused By DNS",
            Nowhere::Failed(Failure::Busy) => "Too Many DNS Questions",
            Nowhere::Exhausted => "Next Hop Has No Further Server",
        }
    }
}

/// Which transports our listeners speak, over IPv4 and IPv6.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speaks {
    v4: [bool; 3],
    v6: [bool; 3],
}

impl Speaks {
    pub fn new(settings: &Settings) -> Speaks {
        let mut speaks = Speaks::default();
        for listener in &settings.listeners {
            let family = match listener.address {
                SocketAddr::V4(_) => &mut speaks.v4,
                SocketAddr::V6(_) => &mut speaks.v6,
            };
            family[listener.transport as usize] = true;
        }
        speaks
    }

    fn any(&self, transport: Transport) -> bool {
        self.v4[transport as usize] || self.v6[transport as usize]
    }

    fn takes(&self, transport: Transport, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.v4[transport as usize],
            IpAddr::V6(_) => self.v6[transport as usize],
        }
    }
}

/// Why a walk ends before all places were visited.
enum End {
    Chosen(ServerAddress),
    /// What comes next depends on the answer to this question.
    Unknown(u128),
}

type Walked<T = ()> = ControlFlow<End, T>;

/// Our order of transports that the other side leaves to us (§4.1): UDP, which everybody speaks, first.
const PREFERENCE: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// The purpose of a walk.
struct Lookup {
    /// Answers that have come since are valid for it.
    since: Instant,
    /// Determines the order among equals.
    seed: u64,
    /// Whose share of questions the walk uses.
    asker: ShareHolder,
    /// What it means if there is no place.
    nowhere: Nowhere,
}

/// A walk over all places that a name leads to, as far as is known.
struct Walk<'n, 'c> {
    names: &'n Names,
    now: Instant,
    since: Instant,
    speaks: Speaks,
    seed: u64,
    /// Questions whose answers the walk needs next.
    unknown: Vec<Question>,
    why: Nowhere,
    /// Called with each address in order; true ends the walk.
    choose: &'c mut dyn FnMut(ServerAddress) -> bool,
}

impl Turn<'_> {
    /// Returns the first place in the order of §4 that has not been tried and has not failed; if all have failed, the one that
    /// failed longest ago. Missing records are asked for on account of `asked_by`, or of the conf.
    pub fn find_server_address(
        &mut self,
        query: &HopQuery,
        call_id: &[u8],
        search: Search,
        named_by: NamedBy,
        asked_by: Option<IpAddr>,
    ) -> Result<ServerAddress, Obstacle> {
        let names = &self.core.names;
        let lookup = Lookup {
            since: search.since,
            seed: names.seed(call_id),
            asker: asked_by.map_or(ShareHolder::NOBODY, |ip| names.asker(ip)),
            nowhere: match search.tried.iter().any(|t| t.target == search.target) {
                true => Nowhere::Exhausted,
                false => Nowhere::NoAddress,
            },
        };
        let health = (!self.core.health.is_all_well()).then(|| self.core.health.clone());
        let now = self.now;
        let mut failed: Option<(Instant, ServerAddress)> = None;
        let mut choose = |server_address: ServerAddress| {
            let is_new = search.is_new(server_address);
            let Some(health) = health.as_ref().filter(|_| is_new) else {
                return is_new;
            };
            let standing = health.standing(now, &server_address.named_by(named_by));
            if let Standing::Failed(last) = standing
                && failed.is_none_or(|(earliest, _)| last < earliest)
            {
                failed = Some((last, server_address));
            }
            standing == Standing::Good
        };
        let (walked, why) = self.walk(query, &lookup, &mut choose);
        match (walked, failed) {
            (Break(End::Chosen(server_address)), _) => Ok(server_address),
            (Break(End::Unknown(question)), _) if !search.is_late => Err(Obstacle::Unknown(question)),
            (_, Some((_, server_address))) => Ok(server_address),
            (Break(End::Unknown(_)), None) => Err(TOO_LATE.into()),
            (Continue(()), None) => Err(nowhere(why)),
        }
    }

    /// Passes each address to which the name leads to `found`. An error if not all are known, with the question whose answer says
    /// more if one is under way.
    pub fn all_addresses(
        &mut self,
        query: &HopQuery,
        since: Instant,
        found: &mut dyn FnMut(SocketAddr),
    ) -> Result<(), Option<u128>> {
        let mut choose = |server_address: ServerAddress| {
            found(server_address.address);
            false
        };
        let lookup = Lookup { since, seed: 0, asker: ShareHolder::NOBODY, nowhere: Nowhere::NoAddress };
        match self.walk(query, &lookup, &mut choose) {
            (Break(End::Unknown(question)), _) => Err(Some(question)),
            (_, Nowhere::Failed(_)) => Err(None),
            _ => Ok(()),
        }
    }

    /// Returns how the walk ended, and why it has led nowhere if it has. Missing records are asked for.
    fn walk(&mut self, query: &HopQuery, lookup: &Lookup, choose: &mut dyn FnMut(ServerAddress) -> bool) -> (Walked, Nowhere) {
        let mut walk = Walk {
            names: &self.core.names,
            now: self.now,
            since: lookup.since,
            speaks: Speaks::new(&self.core.settings),
            seed: lookup.seed,
            unknown: Vec::new(),
            why: lookup.nowhere,
            choose,
        };
        let end = walk.target(query);
        let (unknown, why) = (walk.unknown, walk.why);
        for question in &unknown {
            match self.core.names.ask(self.now, question, lookup.asker) {
                Ok(true) => self.outbox.questions.push(*question),
                Ok(false) => {}
                Err(no_room) => {
                    self.core.counters.hit(match no_room {
                        NoRoom::OfAll => Limit::Questions,
                        NoRoom::OfAsker => Limit::QuestionsOfAsker,
                    });
                    return (Continue(()), Nowhere::Failed(Failure::Busy));
                }
            }
        }
        (end, why)
    }

    /// Whether the name is now known to lead to a place of which `is` holds. Nothing is asked.
    pub fn leads_to(&self, query: &HopQuery, mut is: impl FnMut(ServerAddress) -> bool) -> bool {
        let mut walk = Walk {
            names: &self.core.names,
            now: self.now,
            since: self.now,
            speaks: Speaks::new(&self.core.settings),
            seed: 0,
            unknown: Vec::new(),
            why: Nowhere::NoAddress,
            choose: &mut is,
        };
        matches!(walk.target(query), Break(End::Chosen(_)))
    }
}

/// §16.9: a next hop without an address cannot be reached.
fn nowhere(why: Nowhere) -> Obstacle {
    let refusal = Refusal::new(503, why.reason());
    match why {
        // The failures of its servers are in the log already.
        Nowhere::Exhausted => refusal.logged().into(),
        _ => refusal.into(),
    }
}

impl<'n> Walk<'n, '_> {
    fn target(&mut self, query: &HopQuery) -> Walked {
        let Some(host) = DomainName::new(b"", query.host) else {
            self.why = Nowhere::NotAName;
            return Continue(());
        };
        let transport = match (query.secure, query.transport) {
            (true, _) => Some(Transport::Tls),
            (false, transport) => transport,
        };
        if transport.is_some_and(|transport| !self.speaks.any(transport)) {
            self.why = Nowhere::NoTransport;
            return Continue(());
        }
        match (query.port, transport) {
            (Some(port), _) => match transport.or(self.preferred()) {
                Some(transport) => self.addresses(&host, port, transport),
                None => Continue(()),
            },
            (None, Some(transport)) if query.transport.is_some() => {
                let found = self.services(service(transport), &host, transport)?;
                self.without_services(found, &host, transport)
            }
            (None, _) => self.by_naptr(&host, query.secure),
        }
    }

    /// §4.1, the last paragraphs: neither transport nor port is given.
    fn by_naptr(&mut self, host: &DomainName, secure: bool) -> Walked {
        let mut named = false;
        match self.look(host, RecordType::Naptr)? {
            Look::Records(Records::Naptr(rules)) => {
                for rule in rules {
                    let Some(transport) = transport_of(rule, secure) else {
                        continue;
                    };
                    named = true;
                    if !self.speaks.any(transport) {
                        self.why = Nowhere::NoTransport;
                        continue;
                    }
                    if let Some(name) = DomainName::new(b"", &rule.replacement) {
                        self.services_at(&name, transport)?;
                    }
                }
            }
            Look::Failed(failure) => self.why = Nowhere::Failed(failure),
            _ => {}
        }
        if named {
            return Continue(());
        }
        // No NAPTR records: SRV for each transport that we speak, all asked for at once.
        let ours = PREFERENCE.map(|transport| {
            let fits = self.speaks.any(transport) && (!secure || transport == Transport::Tls);
            fits.then_some(transport)
        });
        for transport in ours.into_iter().flatten() {
            if let Some(name) = DomainName::new(service(transport), host.as_bytes()) {
                self.foresee(&name, RecordType::Srv);
            }
        }
        for transport in ours.into_iter().flatten() {
            if self.services(service(transport), host, transport)? {
                return Continue(());
            }
        }
        match ours.into_iter().flatten().next() {
            Some(transport) => self.without_services(false, host, transport),
            None => Continue(()),
        }
    }

    /// §4.2: no SRV records, so the name is a host's own.
    fn without_services(&mut self, found: bool, host: &DomainName, transport: Transport) -> Walked {
        match found {
            true => Continue(()),
            false => self.addresses(host, transport.default_port(), transport),
        }
    }

    fn services(&mut self, prefix: &[u8], host: &DomainName, transport: Transport) -> Walked<bool> {
        match DomainName::new(prefix, host.as_bytes()) {
            Some(name) => self.services_at(&name, transport),
            // Too long to have SRV records.
            None => Continue(false),
        }
    }

    /// Visits the servers of SRV records in the order of RFC 2782. False: there are none.
    fn services_at(&mut self, name: &DomainName, transport: Transport) -> Walked<bool> {
        let list = match self.look(name, RecordType::Srv)? {
            Look::Records(Records::Srv(list)) => list,
            Look::Failed(failure) => {
                self.why = Nowhere::Failed(failure);
                return Continue(false);
            }
            _ => return Continue(false),
        };
        let mut rng = Rng::new(self.names.seed_for(self.seed, name));
        let mut order = [0u8; MOST_RECORDS];
        let order = &mut order[..list.len().min(MOST_RECORDS)];
        for (position, slot) in (0..).zip(order.iter_mut()) {
            *slot = position;
        }
        let server = |position: &u8| list.get(usize::from(*position));
        by_weight(order, &mut rng, |position| server(position).map_or((u16::MAX, 0), |one| (one.priority, one.weight)));
        for server in order.iter().filter_map(server) {
            if server.target.is_empty() {
                self.why = Nowhere::NoService;
            } else if let Some(ip) = Settings::ip(&server.target) {
                // Against RFC 2782, but common.
                self.show(ip, server.port, transport)?;
            } else if let Some(host) = DomainName::new(b"", &server.target) {
                self.addresses(&host, server.port, transport)?;
            }
        }
        Continue(true)
    }

    /// Visits the addresses of a host: IPv6 before IPv4 if we speak both (RFC 7984 §4.2 with RFC 6724), each starting at an offset
    /// of the request's own, so that calls spread over them.
    fn addresses(&mut self, host: &DomainName, port: u16, transport: Transport) -> Walked {
        let families =
            [(RecordType::Aaaa, self.speaks.v6[transport as usize]), (RecordType::A, self.speaks.v4[transport as usize])];
        for (kind, wanted) in families {
            if wanted {
                self.foresee(host, kind);
            }
        }
        for (kind, wanted) in families {
            if !wanted {
                continue;
            }
            match self.look(host, kind)? {
                Look::Records(Records::Addresses(list)) => {
                    let mut rng = Rng::new(self.names.seed_for(self.seed, host));
                    let first = rng.below(list.len() as u64) as usize;
                    for ip in list.iter().cycle().skip(first).take(list.len()) {
                        self.show(*ip, port, transport)?;
                    }
                }
                Look::Failed(failure) => self.why = Nowhere::Failed(failure),
                Look::Nothing { exists: false } => self.note(Nowhere::NoSuchName),
                _ => self.note(Nowhere::NoAddress),
            }
        }
        Continue(())
    }

    fn show(&mut self, ip: IpAddr, port: u16, transport: Transport) -> Walked {
        let sendable = !ip.is_unspecified() && !ip.is_multicast() && port != 0;
        let server_address = ServerAddress { address: SocketAddr::new(ip, port), transport };
        if sendable && self.speaks.takes(transport, ip) && (self.choose)(server_address) {
            return Break(End::Chosen(server_address));
        }
        Continue(())
    }

    /// A failure says more than an empty result.
    fn note(&mut self, why: Nowhere) {
        if !matches!(self.why, Nowhere::Failed(_) | Nowhere::Exhausted) {
            self.why = why;
        }
    }

    /// Returns what is known of a name; if nothing is, the walk ends here.
    fn look(&mut self, name: &DomainName, kind: RecordType) -> Walked<Look<'n>> {
        match self.names.look(self.now, self.since, name, kind) {
            Look::Unknown(question) => {
                self.foresee(name, kind);
                Break(End::Unknown(question))
            }
            look => Continue(look),
        }
    }

    /// Has it asked for, if it is not known, while an earlier answer is awaited.
    fn foresee(&mut self, name: &DomainName, kind: RecordType) {
        let question = Question { name: *name, kind };
        let known = self.names.look(self.now, self.since, name, kind);
        if matches!(known, Look::Unknown(_)) && !self.unknown.contains(&question) {
            self.unknown.push(question);
        }
    }

    /// The transport if only a port is given (§4.1): UDP, or another that we speak.
    fn preferred(&self) -> Option<Transport> {
        PREFERENCE.into_iter().find(|one| self.speaks.any(*one))
    }
}

/// The prefix of the domain in the name of its SRV records (§4.2).
const fn service(transport: Transport) -> &'static [u8] {
    match transport {
        Transport::Udp => b"_sip._udp.",
        Transport::Tcp => b"_sip._tcp.",
        Transport::Tls => b"_sips._tcp.",
    }
}

/// The transport of a NAPTR record; `None` for one that §4.1 has us discard.
fn transport_of(rule: &Naptr, secure: bool) -> Option<Transport> {
    let is = |service: &[u8]| rule.service.eq_ignore_ascii_case(service);
    let transport = if is(b"SIPS+D2T") {
        Transport::Tls
    } else if is(b"SIP+D2T") {
        Transport::Tcp
    } else if is(b"SIP+D2U") {
        Transport::Udp
    } else {
        return None;
    };
    let terminal = rule.flags.eq_ignore_ascii_case(b"s") && rule.regexp.is_empty();
    (terminal && (!secure || transport == Transport::Tls)).then_some(transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_are_not_ours_are_discarded() {
        let rule = |flags: &str, service: &str, regexp: &str| Naptr {
            order: 1,
            preference: 1,
            flags: flags.into(),
            service: service.into(),
            regexp: regexp.into(),
            replacement: b"_sip._udp.example.com".to_vec(),
        };
        let of = |service: &str| transport_of(&rule("s", service, ""), false);
        assert_eq!(of("SIP+D2U"), Some(Transport::Udp));
        assert_eq!(of("sip+d2t"), Some(Transport::Tcp));
        assert_eq!(of("SIPS+D2T"), Some(Transport::Tls));
        for other in ["SIP+D2S", "SIPS+D2S", "SIPS+D2U", "E2U+sip", "", "SIP+D2W"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(transport_of(&rule("S", "SIP+D2T", ""), true), None);
        assert_eq!(transport_of(&rule("u", "SIP+D2U", ""), false), None);
        assert_eq!(transport_of(&rule("s", "SIP+D2U", "!.*!x!"), false), None);
    }
}
