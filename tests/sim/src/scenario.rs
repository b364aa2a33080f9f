//! From a seed to a network: servers, phones, settings and weather.

use super::addresses::{dead, phone_address, server_address};
use super::air::Weather;
use super::digest::Account;
use super::names::Zone;
use super::plan::{BOSS, CIRCLE, GATEWAY_PREFIX, MALLORY, PhonePlan, ServerPlan, Temper};
use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::{Key, Rng, Transport};
use strowger::sip::KeptUri;
use strowger::stack::Settings;
use strowger::stack::route::{Action, Network, NextHop, Route, Routes};
use strowger::stack::settings::{Fork, Listener, Mode, Outgoing};

/// Longer than any run.
pub const LONG_MS: u64 = 30 * 24 * 3600 * 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    V4,
    V6,
    Both,
}

pub struct Scenario {
    pub seed: u64,
    pub servers: Vec<ServerPlan>,
    pub phones: Vec<PhonePlan>,
    pub weather: Weather,
    /// Addresses with weather of their own.
    pub places: Vec<(SocketAddr, Weather)>,
    pub attackers: Vec<SocketAddr>,
    /// Where the phones are.
    pub homes: Vec<SocketAddr>,
    pub hostile: bool,
    /// Reports of unreachable ports reach the servers.
    pub icmp: bool,
    pub t1_ms: u64,
    pub t2_ms: u64,
    /// Servers and phones speak TCP too.
    pub streams: bool,
    /// The servers ask who somebody is.
    pub guarded: bool,
    /// Where names lead; in some runs there are any.
    pub zone: Arc<Zone>,
}

/// The domain of one of the servers.
fn domain(n: usize) -> String {
    format!("{}.example", ["a", "b"][n % 2])
}

fn pick<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.below(choices.len() as u64) as usize].clone()
}

impl Scenario {
    pub fn new(seed: u64, rng: &mut Rng) -> Scenario {
        let families = pick(rng, &[Families::V4, Families::V4, Families::V6, Families::Both, Families::Both]);
        let chain = rng.one_in(4);
        let t1_ms = pick(rng, &[500, 500, 500, 100]);
        let t2_ms = 8 * t1_ms;
        let mut phones = Self::plan_phones(rng, families, if chain { 2 } else { 1 });
        let mut servers = Vec::new();
        for n in 0..if chain { 2 } else { 1 } {
            servers.push(Self::plan_server(rng, n, families, chain, t1_ms, &phones));
        }
        let weather = pick(rng, &[Weather::CLEAN, Weather::USUAL, Weather::USUAL, Weather::BAD, Weather::BRUTAL]);
        let mut places = Vec::new();
        for phone in &phones {
            if rng.one_in(5) {
                let own = pick(rng, &[Weather::CLEAN, Weather::BAD, Weather::BRUTAL]);
                places.push((phone.at, own));
            }
        }
        let v6 = families == Families::V6;
        let attackers = (0..3).map(|n| phone_address(v6, 200 + n)).collect();
        let streams = seed % 4 == 3;
        if streams {
            let rng = &mut Rng::new(seed ^ 0x7c9);
            Self::add_streams(rng, &mut servers, &mut phones);
        }
        let guarded = seed / 4 % 2 == 1;
        if guarded {
            let rng = &mut Rng::new(seed ^ 0xa17);
            Self::add_guards(rng, &mut servers, &mut phones);
        }
        if seed % 2 == 1 {
            // Strangers are answered as often as the RFC has it.
            for server in &mut servers {
                Arc::make_mut(&mut server.settings).limits.answer_factor = 0;
            }
        }
        Self::add_habits(&mut Rng::new(seed ^ 0x1e5), &mut servers, &mut phones);
        let mut zone = Zone::default();
        if seed % 4 == 1 {
            zone = Zone::new(seed, &mut phones);
            Self::name_gateways(&mut servers, &phones, t1_ms);
        }
        Scenario {
            seed,
            streams,
            guarded,
            homes: phones.iter().map(|phone| phone.at).collect(),
            zone: Arc::new(zone),
            servers,
            phones,
            weather,
            places,
            attackers,
            hostile: !rng.one_in(4),
            icmp: rng.one_in(2),
            t1_ms,
            t2_ms,
        }
    }

    /// Phones that write no length, and one that is believed what it asserts.
    fn add_habits(rng: &mut Rng, servers: &mut [ServerPlan], phones: &mut [PhonePlan]) {
        for phone in phones.iter_mut() {
            phone.terse = rng.one_in(4);
        }
        if rng.one_in(3) {
            let address = phones[0].at.ip();
            let prefix = if address.is_ipv6() { 128 } else { 32 };
            for server in servers {
                let limits = &mut Arc::make_mut(&mut server.settings).limits;
                limits.trusted_sources = vec![Network { address, prefix }];
            }
        }
    }

    /// Dice of its own: the seeds without streams stay what they were.
    fn add_streams(rng: &mut Rng, servers: &mut [ServerPlan], phones: &mut [PhonePlan]) {
        for phone in phones.iter_mut() {
            if !phone.behind_nat && !rng.one_in(3) {
                phone.transport = Transport::Tcp;
                phone.path = false;
            }
        }
        let per_call = rng.one_in(2);
        for server in servers {
            let settings = Arc::make_mut(&mut server.settings);
            if per_call {
                settings.outgoing = Outgoing::PerCall;
            }
            let same = settings.listeners.clone();
            settings.listeners.extend(same.into_iter().map(|udp| Listener { transport: Transport::Tcp, ..udp }));
            each_target(&mut settings.routes, |target| {
                let by_tcp = |p: &&PhonePlan| p.transport == Transport::Tcp;
                let mut phones = phones.iter().filter(by_tcp);
                if phones.any(|p| Some(p.at) == target.address) {
                    target.transport = Transport::Tcp;
                    target.uri = uri(&format!("{};transport=tcp", target.uri));
                }
            });
        }
    }

    /// Servers that ask: users with secrets, sometimes of a second domain, and what each phone belongs to.
    fn add_guards(rng: &mut Rng, servers: &mut [ServerPlan], phones: &mut [PhonePlan]) {
        for (number, server) in servers.iter_mut().enumerate() {
            let settings = Arc::make_mut(&mut server.settings);
            let mut domains = vec![server.domain.clone()];
            if rng.one_in(3) {
                domains.push(format!("also-{}", server.domain));
                settings.domains.push(domains[1].clone().into_bytes());
            }
            let auth = &mut settings.auth;
            auth.challenge_proxy = true;
            auth.challenge_register = !rng.one_in(4);
            auth.challenge_bye = rng.one_in(8);
            auth.qop = !rng.one_in(6);
            auth.nonce_lifetime = pick(rng, &[300_000, 20_000, LONG_MS, LONG_MS]);
            let mut realms = domains.clone();
            if rng.one_in(4) {
                auth.realm = "everybody".to_owned();
                realms = vec!["everybody".into()];
            }
            let users = (0..8).map(|n| format!("u{n}")).chain([BOSS.into(), MALLORY.into()]);
            for user in users {
                server.accounts.extend(realms.iter().map(|realm| Account::new(&user, realm)));
            }
            for phone in phones.iter_mut().filter(|phone| phone.server == number) {
                phone.domain = pick(rng, &domains);
            }
        }
    }

    /// The realm in which a server's user proves who it is.
    pub fn realm(&self, server: usize, domain: &str) -> String {
        let realm = &self.servers[server].settings.auth.realm;
        match realm.is_empty() {
            true => domain.to_string(),
            false => realm.clone(),
        }
    }

    /// Gateways are called by their names, and nobody waits too long for one.
    fn name_gateways(servers: &mut [ServerPlan], phones: &[PhonePlan], t1_ms: u64) {
        for server in servers {
            let settings = Arc::make_mut(&mut server.settings);
            settings.dns.timeout = 8 * t1_ms;
            each_target(&mut settings.routes, |target| {
                let this = |p: &&PhonePlan| Some(p.at) == target.address;
                let Some(host) = phones.iter().find(this).and_then(|p| p.host.as_ref()) else {
                    return;
                };
                target.address = None;
                target.uri = uri(&format!("sip:{host}"));
                let name = host.split(':').next().unwrap_or_default();
                target.host = name.as_bytes().to_vec();
            });
        }
    }

    fn plan_phones(rng: &mut Rng, families: Families, servers: usize) -> Vec<PhonePlan> {
        let count = 6 + rng.below(7) as usize;
        let users = 4 + rng.below(4);
        let mut phones = Vec::new();
        for n in 0..count {
            let v6 = match families {
                Families::V4 => false,
                Families::V6 => true,
                Families::Both => rng.one_in(2),
            };
            let server = rng.below(servers as u64) as usize;
            let temper = pick(
                rng,
                &[
                    Temper::Honest,
                    Temper::Honest,
                    Temper::Honest,
                    Temper::Honest,
                    Temper::Honest,
                    Temper::Slow,
                    Temper::Silent,
                    Temper::Busy,
                    Temper::Decline,
                    Temper::Redirect,
                    Temper::RingForever,
                    Temper::LateAnswer,
                    Temper::DoubleFinal,
                    Temper::Impatient,
                ],
            );
            let behind_nat = rng.one_in(6);
            phones.push(PhonePlan {
                at: phone_address(v6, n),
                server,
                server_at: server_address(v6, server),
                user: format!("u{}", rng.below(users)),
                temper,
                behind_nat,
                rport: behind_nat || rng.one_in(2),
                private_contact: behind_nat && rng.one_in(2),
                path: rng.one_in(6),
                compact: rng.one_in(4),
                transport: Transport::Udp,
                host: None,
                names_transport: false,
                terse: false,
                domain: domain(server),
            });
        }
        phones
    }

    fn plan_server(rng: &mut Rng, n: usize, families: Families, chain: bool, t1_ms: u64, phones: &[PhonePlan]) -> ServerPlan {
        let addresses: Vec<SocketAddr> = match families {
            Families::V4 => vec![server_address(false, n)],
            Families::V6 => vec![server_address(true, n)],
            Families::Both => vec![server_address(false, n), server_address(true, n)],
        };
        let mut settings =
            Settings { domains: vec![domain(n).into_bytes()], cores: pick(rng, &[1, 1, 2, 3]), ..Settings::default() };
        settings.listeners = addresses
            .iter()
            .map(|address| Listener { transport: Transport::Udp, address: *address, advertise: address.to_string().into_bytes() })
            .collect();
        settings.local_addresses = addresses.iter().map(|a| a.ip()).collect();
        settings.proxy.mode = if rng.one_in(6) { Mode::Stateless } else { Mode::Stateful };
        settings.proxy.record_route = !rng.one_in(4);
        settings.proxy.fork = pick(rng, &[Fork::Parallel, Fork::Parallel, Fork::Sequential]);
        settings.proxy.redirect = rng.one_in(14);
        settings.proxy.max_breadth = pick(rng, &[60, 60, 60, 3]);
        settings.registrar.min_expires = pick(rng, &[60, 10]);
        settings.registrar.default_expires = pick(rng, &[3600, 120]);
        settings.registrar.max_expires = 3600;
        settings.registrar.max_contacts = pick(rng, &[10, 10, 3]);
        settings.timers.t1 = t1_ms;
        settings.timers.t2 = 8 * t1_ms;
        settings.timers.t4 = 10 * t1_ms;
        settings.next_hop.patience = 8 * t1_ms;
        settings.timers.c = pick(rng, &[180_000, 40_000]);
        settings.timers.linger = pick(rng, &[64 * t1_ms, 64 * t1_ms, 10 * t1_ms, 2 * t1_ms]);
        if rng.one_in(10) {
            settings.per_core.transactions = 12;
        }
        settings.routes = Self::plan_routes(rng, n, &addresses, chain, phones);
        ServerPlan {
            settings: Arc::new(settings),
            key: Key::new(rng.next_u64(), rng.next_u64()),
            domain: domain(n),
            accounts: Vec::new(),
            addresses,
            mail_ms: pick(rng, &[0, 1, 15]),
            tick_ms: pick(rng, &[0, 1, 10]),
        }
    }

    fn plan_routes(rng: &mut Rng, n: usize, addresses: &[SocketAddr], chain: bool, phones: &[PhonePlan]) -> Routes {
        let mut routes = Vec::new();
        if chain {
            let other = (n + 1) % 2;
            let target = addresses.iter().map(|a| server_address(a.is_ipv6(), other)).map(next_hop).take(1).collect::<Vec<_>>();
            for host in [domain(other), CIRCLE.to_string()] {
                routes.push(route(Some(host), None, Action::Relay(target.clone())));
            }
        }
        // Calls to a gateway: the first target may be dead, the second is a phone.
        if let Some(gateway) = phones.iter().find(|p| p.server == n) {
            let mut targets = Vec::new();
            if rng.one_in(2) {
                targets.push(next_hop(dead(gateway.at.is_ipv6())));
            }
            targets.push(next_hop(gateway.at));
            routes.push(route(Some(domain(n)), Some(GATEWAY_PREFIX.to_vec()), Action::Relay(targets)));
        }
        let refused = Some("refused.example".into());
        routes.push(route(refused, None, Action::Reject(403)));
        routes.into()
    }

    /// Where a name or number leads for somebody of the given family, as DNS would say it.
    pub fn resolve(&self, host: &[u8], port: Option<u16>, v6: bool) -> Option<SocketAddr> {
        let ip = super::address::Address { user: b"", host, port, params: b"" }.ip();
        if let Some(ip) = ip {
            return Some(SocketAddr::new(ip, port.unwrap_or(5060)));
        }
        let server = self.servers.iter().find(|s| {
            let domains = &mut s.settings.domains.iter();
            domains.any(|domain| domain.eq_ignore_ascii_case(host))
        })?;
        server.addresses.iter().find(|a| a.is_ipv6() == v6).copied()
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let mut out = format!("{} phones, weather {:?}", self.phones.len(), self.weather);
        for server in &self.servers {
            let s = &server.settings;
            out += &format!(
                "; {} {:?} {:?} rr={} redirect={} cores={} linger={} t1={} c={} breadth={} listeners={} guarded={} {:?}",
                server.domain,
                s.proxy.mode,
                s.proxy.fork,
                s.proxy.record_route,
                s.proxy.redirect,
                s.cores,
                s.timers.linger,
                s.timers.t1,
                s.timers.c,
                s.proxy.max_breadth,
                server.addresses.len(),
                self.guarded,
                s.auth.realm,
            );
        }
        out
    }
}

fn next_hop(address: SocketAddr) -> NextHop {
    NextHop {
        uri: uri(&format!("sip:{address}")),
        address: Some(address),
        transport: Transport::Udp,
        host: address.ip().to_string().into_bytes(),
        identity: 0,
    }
}

fn uri(text: &str) -> KeptUri {
    text.parse().expect("a URI")
}

fn each_target(routes: &mut Routes, mut change: impl FnMut(&mut NextHop)) {
    routes.change(|routes| {
        for route in routes {
            if let Action::Relay(targets) = &mut route.action {
                targets.iter_mut().for_each(&mut change);
            }
        }
    });
}

fn route(to_host: Option<String>, prefix: Option<Vec<u8>>, action: Action) -> Route {
    Route {
        methods: Vec::new(),
        from_source: Vec::new(),
        to_host: to_host.map(|host| host.into_bytes().into()),
        to_user_prefix: prefix,
        user_agent: Vec::new(),
        action,
        outgoing: None,
        challenge: None,
        users_only: false,
        ..Route::default()
    }
}
