//! What every part of a core's element reads and none owns: the settings, the location service, the users, the keys, what is known
//! of peers, names and load; and what the core counts and logs.

use crate::base::{Flow, Instant, Key, LiveConnections, Load, LogBudget, Sources};
use crate::settings::Shed;
use crate::sip::{Index, Message, Name, Scheme, Uri};
use crate::stack::auth::answering::Answering;
use crate::stack::auth::nonce::Nonces;
use crate::stack::auth::users::Users;
use crate::stack::branch::Signer;
use crate::stack::calls::Calls;
use crate::stack::cookie::Cookies;
use crate::stack::counterpart::{Counterpart, Predecessor};
use crate::stack::date::Date;
use crate::stack::gates::Gates;
use crate::stack::health::Health;
use crate::stack::identity::{Dialog, Identity};
use crate::stack::location::Server;
use crate::stack::lost_ways::LostWays;
use crate::stack::names::Names;
use crate::stack::other_secret::OtherSecret;
use crate::stack::overload::Overload;
use crate::stack::passage::Passages;
use crate::stack::peer_flows::PeerFlows;
use crate::stack::relay::RelayTokens;
use crate::stack::request::Request;
use crate::stack::route_counters::RouteCounters;
use crate::stack::token::Side;
use crate::stack::trunk_table::TrunkTable;
use crate::stack::{Counters, Location, Settings};
use std::sync::Arc;

/// Minimum number of nonces in use whose counts are remembered: some 64 bytes each.
const NONCE_WINDOWS: usize = 1 << 19;

pub(in crate::stack) struct Core {
    pub settings: Arc<Settings>,
    pub location: Arc<Location>,
    pub peer_flows: PeerFlows,
    /// This core's number, from 0.
    pub number: u8,
    /// The other process while a restart is under way.
    pub counterpart: Option<Counterpart>,
    /// No dialog may begin here any more.
    pub is_draining: bool,
    pub signer: Signer,
    pub identity: Identity,
    pub passages: Passages,
    pub cookies: Cookies,
    pub relay_tokens: RelayTokens,
    pub counters: Counters,
    /// Scratch buffer reused for each message: an address-of-record, output whose destination is not yet known, and header lines.
    pub aor: Vec<u8>,
    pub scratch: Vec<u8>,
    pub lines: Vec<u8>,
    /// The URI of the user that the current request has proved to be; empty if nothing was proved.
    pub proved_user: Vec<u8>,
    /// The facts covered by the current keyed value.
    pub facts: Vec<u8>,
    /// For a message that is read while another one is being handled.
    pub second_index: Index,
    pub names: Names,
    pub gates: Gates,
    /// Of those that only other servers have.
    pub lost_ways: LostWays,
    pub users: Arc<Users>,
    pub nonces: Arc<Nonces>,
    /// What all cores know about senders.
    pub sources: Arc<Sources>,
    /// What all cores know about failed next hops.
    pub health: Arc<Health>,
    /// What the secrets besides the first have signed.
    pub others: Box<[OtherSecret]>,
    /// Makes nonces that the core issues in the same millisecond differ.
    pub nonce_count: u32,
    /// The time since 1970 at [`crate::base::Instant`] zero, in milliseconds.
    pub wall_ms: u64,
    pub date: Date,
    pub log: LogBudget,
    /// A separate budget, so that what strangers cause to be logged cannot use it up.
    pub guess_log: LogBudget,
    /// The budget for lines about next hops that fail and recover.
    pub health_log: LogBudget,
    pub overload: Overload,
    /// The calls in progress on all cores; without it no call leaves a record.
    pub calls: Option<Arc<Calls>>,
    /// When the next part of them is searched for lost calls.
    pub sweep_calls_at: Instant,
    /// State of the trunks' registrations, shared by all cores.
    pub trunks: Arc<TrunkTable>,
    pub answering: Answering,
}

impl Core {
    pub fn new(settings: Arc<Settings>, location: Arc<Location>, live: Arc<LiveConnections>, number: u8, secret: Key) -> Core {
        let counters = Counters { calls: RouteCounters::new(&settings.routes), ..Counters::default() };
        Core {
            names: Names::new(secret, settings.dns.cache, settings.per_core.questions),
            gates: Gates::default(),
            lost_ways: LostWays::default(),
            settings,
            location,
            peer_flows: PeerFlows::new(live, number, secret),
            number,
            counterpart: None,
            is_draining: false,
            signer: Signer::new(secret),
            identity: Identity::new(secret),
            passages: Passages::new(secret),
            cookies: Cookies::new(secret),
            relay_tokens: RelayTokens::new(secret),
            counters,
            aor: Vec::new(),
            scratch: Vec::new(),
            lines: Vec::new(),
            proved_user: Vec::new(),
            facts: Vec::new(),
            second_index: Index::default(),
            users: Arc::default(),
            nonces: Arc::new(Nonces::new(secret, 0, NONCE_WINDOWS)),
            sources: Arc::new(Sources::new(secret, 0)),
            health: Arc::new(Health::new(secret)),
            others: Box::default(),
            nonce_count: 0,
            wall_ms: 0,
            date: Date::default(),
            log: LogBudget::new("refused messages and failed branches"),
            guess_log: LogBudget::new("guessed passwords"),
            health_log: LogBudget::new("next hops that have failed or answer again"),
            overload: Overload::new(secret.derive("overload")),
            calls: None,
            sweep_calls_at: Instant::from_ms(0),
            trunks: Arc::default(),
            answering: Answering::new(secret, number),
        }
    }

    /// Notes how far this core is behind.
    pub fn note_load(&mut self, now: Instant, load: Load) {
        let limits = &self.settings.limits;
        self.overload.may_shed = limits.shed == Shed::Kernel;
        self.overload.turn(now, load, limits.overload);
    }

    /// Notes that the other process of a restart is there, or is there no more.
    pub fn follow(&mut self, counterpart: Option<Counterpart>) {
        self.counterpart = counterpart;
        let run = self.predecessor().map(|predecessor| predecessor.run);
        self.cookies.follow(run);
    }

    /// Returns the process whose place this one has taken, while it lives.
    pub fn predecessor(&self) -> Option<&Arc<Predecessor>> {
        match &self.counterpart {
            Some(Counterpart::Predecessor(predecessor)) => Some(predecessor),
            _ => None,
        }
    }

    /// Returns the flow that a relay token names; its check does not say whether this process or its predecessor has written it.
    pub fn read_relay_token(&self, own: &Server, text: &[u8]) -> Option<Flow> {
        let flow = self.relay_tokens.read(own, text)?;
        let Some(predecessor) = self.predecessor().filter(|_| !self.peer_flows.is_alive(&flow)) else {
            return Some(flow);
        };
        let before = Server { name: own.name.clone(), run: predecessor.sharing_run };
        let theirs = self.relay_tokens.read(&before, text).and_then(|theirs| predecessor.flow(theirs, &self.settings));
        theirs.filter(|theirs| self.peer_flows.is_alive(theirs)).or(Some(flow))
    }

    /// Applies new settings to what comes next.
    pub fn configure(&mut self, settings: Arc<Settings>) {
        self.names.configure(settings.dns.cache);
        self.gates.keep_those_of(&settings);
        self.counters.calls.configure(&settings.routes);
        self.settings = settings;
    }

    /// Returns the request's identity as one of the side that opens a dialog.
    pub fn opening(&mut self, request: &mut Request) -> Dialog {
        let (identity, facts) = (self.identity, &mut self.facts);
        let find = || identity.dialog(&request.message, Side::Caller, facts);
        *request.opening.get_or_insert_with(find)
    }

    /// Hashes everything that decides the route; includes the source if a route depends on it.
    pub fn loop_hash(&self, flow: Flow, message: &Message) -> u32 {
        let source = self.settings.routes.look_at_source();
        self.identity.loop_hash(message, source.then(|| flow.peer.ip()))
    }

    /// Returns the Max-Breadth of the request: its own value, at most our maximum, which is also the default.
    pub fn incoming_breadth(&self, message: &Message) -> u32 {
        let maximum = self.settings.proxy.max_breadth;
        match message.number(Name::MaxBreadth) {
            Ok(Some(breadth)) => breadth.min(maximum),
            _ => maximum,
        }
    }

    /// Returns whether the URI names this server or one of its domains. A URI with a foreign `maddr` names that other place
    /// (§16.5).
    pub fn is_own_uri(&self, uri: &Uri) -> bool {
        let own = |host: &[u8], ip| self.settings.is_own(host, ip, uri.port);
        matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
            && own(uri.host_text, uri.host.ip())
            && uri.maddr().is_none_or(|maddr| own(maddr, Settings::ip(maddr)))
    }

    /// Returns whether the Request-URI is for the user named in To.
    pub fn is_for_whom_it_names(&self, request: &Request) -> bool {
        let Ok(to) = request.message.to() else {
            return false;
        };
        to.uri == request.uri || Uri::parse(to.uri).is_ok_and(|to| self.settings.is_same_address(&request.parsed, &to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Channel, Transport};
    use crate::stack::counterpart::Bequest;
    use crate::stack::location::Reached;

    #[test]
    fn a_relay_token_names_a_connection_of_the_process_that_wrote_it() {
        let (key, live) = (Key::new(1, 2), Arc::new(LiveConnections::new(1, 16)));
        let mut core = Core::new(Arc::default(), Arc::new(Location::new(key, 10)), live.clone(), 0, key);
        let server = |run| Server { name: b"a".as_slice().into(), run };
        let flow = |listener, core| Flow {
            transport: Transport::Tls,
            core,
            channel: Channel::Connection { slot: 9, generation: 77 },
            ..Flow::datagram(listener, "198.51.100.7:40123".parse().unwrap())
        };
        let token = |run| {
            let mut token = Vec::new();
            core.relay_tokens.write(&server(run), Reached::ByFlow, &flow(1, 0), &mut token);
            token
        };
        let (before, own) = (token(5), token(6));
        let bequest = Bequest { sharing_run: 5, ..Bequest::default() };
        core.follow(Some(Counterpart::Predecessor(Arc::new(Predecessor::new(&bequest, vec![None, Some(2)])))));
        assert_ne!(core.read_relay_token(&server(6), &before), Some(flow(2, 1)), "it is not known to live");
        live.enter_other(&flow(2, 1));
        assert_eq!(core.read_relay_token(&server(6), &before), Some(flow(2, 1)));
        assert_eq!(core.read_relay_token(&server(6), &own), Some(flow(1, 0)));
        core.follow(None);
        assert_ne!(core.read_relay_token(&server(6), &before), Some(flow(2, 1)));
    }
}
