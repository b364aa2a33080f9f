//! Who proved what: the auditor's own book of challenges, credentials and dialogs (RFC 3261 §22, RFC 7616). An identity is a user and a
//! domain; how a URI is spelled besides says nothing (§19.1.4).

use crate::address::Address;
use crate::bearer::{Name, without_dot};
use crate::bindings::address_of_record;
use crate::digest::{Account, Challenge, Credentials, field_of};
use crate::hashing::digest;
use crate::plan::ServerPlan;
use crate::reading::{Field, Reading};
use crate::text::address_spec;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use strowger::base::Instant;
use strowger::stack::Location;

/// The two sides of a dialog that a request of theirs may open.
struct Parties {
    tag: Vec<u8>,
    from: Name,
    /// Who was called.
    to: Name,
    /// By which name in To.
    named: Name,
}

/// One server's book.
pub(super) struct Guard {
    pub asks_callers: bool,
    pub asks_registrants: bool,
    /// Empty: the domain of whom it asks.
    realm: Vec<u8>,
    lifetime_ms: u64,
    accounts: Vec<Account>,
    domains: Vec<Vec<u8>>,
    ips: Vec<IpAddr>,
    /// Nonces that it gave out since it began: for which realm, and when.
    nonces: BTreeMap<Vec<u8>, (Vec<u8>, Instant)>,
    /// What each count of a nonce was first used for, and by which call: what differs was not authorised.
    taken: BTreeMap<(u64, u32), (u64, Vec<u8>)>,
    /// By the digest of a message: the accounts that it proved.
    proved: BTreeMap<u64, Vec<usize>>,
    /// By the digest of a Call-ID.
    calls: BTreeMap<u64, Vec<Parties>>,
    /// To tags that went back in what opens a dialog, each in its call.
    tags: BTreeSet<u64>,
    /// Address-of-record and contact that somebody was right to bind.
    contacts: BTreeSet<(Vec<u8>, u64)>,
}

impl Guard {
    pub fn new(plan: &ServerPlan) -> Guard {
        let settings = &plan.settings;
        Guard {
            asks_callers: settings.auth.challenge_proxy,
            asks_registrants: settings.auth.challenge_register,
            realm: settings.auth.realm.clone().into_bytes(),
            lifetime_ms: settings.auth.nonce_lifetime,
            accounts: plan.accounts.clone(),
            domains: settings.domains.clone(),
            ips: plan.addresses.iter().map(SocketAddr::ip).collect(),
            nonces: BTreeMap::new(),
            taken: BTreeMap::new(),
            proved: BTreeMap::new(),
            calls: BTreeMap::new(),
            tags: BTreeSet::new(),
            contacts: BTreeSet::new(),
        }
    }

    pub fn asks(&self) -> bool {
        self.asks_callers || self.asks_registrants
    }

    /// True for a user of this server, whatever port, transport or dot is written behind the domain.
    pub fn is_ours(&self, name: &Name) -> bool {
        let address = Address { user: b"", host: &name.host, port: None, params: b"" };
        match address.ip() {
            Some(ip) => self.ips.contains(&ip),
            None => self.domains.contains(&name.host),
        }
    }

    /// True for credentials that answer a challenge of this server: it alone has a use for them.
    pub fn is_for_us(&self, credentials: &[u8]) -> bool {
        let Some(realm) = field_of(credentials, b"realm") else {
            return false;
        };
        match self.realm.is_empty() {
            true => self.is_ours(&Name { user: Vec::new(), host: without_dot(realm).to_ascii_lowercase() }),
            false => self.realm.eq_ignore_ascii_case(realm),
        }
    }

    /// The same for what may be read otherwise.
    pub fn may_be_for_us(&self, credentials: &[u8]) -> bool {
        let lower = credentials.to_ascii_lowercase();
        let mut realms = self.domains.iter().chain([&self.realm]);
        let names = |realm: &Vec<u8>| !realm.is_empty() && crate::text::find(&lower, 0, realm).is_some();
        self.asks() && (self.is_for_us(credentials) || realms.any(names))
    }

    /// A message reaches the server. True if it proves somebody. `is_exempt`: it comes by a route that the server gave out.
    pub fn hear(&mut self, now: Instant, message: &Reading, is_exempt: bool) -> bool {
        let method = message.method();
        let field = match method {
            b"REGISTER" => Field::Authorization,
            _ => Field::ProxyAuthorization,
        };
        if message.count(field) == 0 || self.proved.contains_key(&message.digest) {
            return false;
        }
        let (asks, name) = match method {
            b"REGISTER" => (self.asks_registrants, Field::To),
            _ => (self.asks_callers, Field::From),
        };
        let name = message.value(name).and_then(Name::of);
        let Some(name) = name.filter(|name| asks && self.is_ours(name)) else {
            return false;
        };
        let realm_asked = match self.realm.is_empty() {
            true => &name.host,
            false => &self.realm,
        };
        // Credentials that nobody asks for are not used.
        let is_exempt = is_exempt && method != b"BYE" && !self.bears_another_name(message, &name);
        if is_exempt || message.vias.len() > 1 {
            return false;
        }
        let facts = facts(message);
        let mut proved = Vec::new();
        for credentials in Credentials::all(message, field) {
            let Some((realm, since)) = self.nonces.get(credentials.nonce) else {
                continue;
            };
            let fresh = now.ms_since(*since) <= self.lifetime_ms;
            let realm = realm.eq_ignore_ascii_case(credentials.realm) && realm.eq_ignore_ascii_case(realm_asked);
            if !fresh || !realm || !self.is_made_for(credentials.uri, message.uri()) {
                continue;
            }
            let right = |account: &Account| {
                let realm = account.realm.as_bytes();
                realm.eq_ignore_ascii_case(credentials.realm) && credentials.are_of(account, method, message.body())
            };
            let Some(account) = self.accounts.iter().position(right) else {
                continue;
            };
            let use_of = (digest(credentials.nonce), credentials.nc);
            let first = self.taken.entry(use_of);
            let (first, _) = first.or_insert_with(|| (facts, message.call_id().to_vec()));
            if *first == facts {
                proved.push(account);
            }
        }
        if proved.is_empty() {
            return false;
        }
        self.proved.insert(message.digest, proved);
        let to = message.value(Field::To).and_then(Name::of);
        let owner = to.is_some_and(|to| self.has_proved(message, &to));
        if let (b"REGISTER", true, Some(aor)) = (method, owner, address_of_record(message)) {
            for contact in message.values(Field::Contact) {
                let contact = digest(address_spec(contact));
                self.contacts.insert((aor.clone(), contact));
            }
        }
        true
    }

    /// Whether credentials with this `uri` are good for a Request-URI: the same user at the same host, or this server itself, as some
    /// clients write (RFC 7616 §3.4.6, and what `[auth] check_uri` allows unless it is strict).
    fn is_made_for(&self, said: &[u8], uri: &[u8]) -> bool {
        let (said, asked) = match (Name::of(said), Name::of(uri)) {
            (Some(said), Some(asked)) => (said, asked),
            _ => return said == uri,
        };
        said == asked || (said.user.is_empty() && self.is_ours(&said))
    }

    /// A response leaves the server.
    pub fn say(&mut self, now: Instant, message: &Reading) {
        let opens = (101..300).contains(&message.status());
        if let Some(tag) = message.tag(Field::To).filter(|_| opens) {
            self.tags.insert(tag_in_call(message, tag));
        }
        if !self.asks() {
            return;
        }
        for challenge in Challenge::all(message) {
            let issue = (challenge.realm, now);
            self.nonces.entry(challenge.nonce).or_insert(issue);
        }
    }

    /// True for a message that somebody has proved anything with.
    pub fn knows(&self, message: &Reading) -> bool {
        self.proved.contains_key(&message.digest)
    }

    /// True if the To tag is one that went back in this call.
    pub fn has_told_tag(&self, message: &Reading) -> bool {
        let tag = message.tag(Field::To);
        tag.is_some_and(|tag| self.tags.contains(&tag_in_call(message, tag)))
    }

    pub fn has_proved(&self, message: &Reading, name: &Name) -> bool {
        let accounts = self.proved.get(&message.digest);
        accounts.into_iter().flatten().any(|account| {
            let account = &self.accounts[*account];
            let domain = self.domains.contains(&name.host) && self.realm.is_empty();
            account.user.as_bytes() == name.user && (!domain || account.realm.as_bytes() == name.host)
        })
    }

    /// What the credentials of a request were used for before, for people.
    pub fn used_before(&self, message: &Reading) -> String {
        let mut out = String::new();
        for field in [Field::Authorization, Field::ProxyAuthorization] {
            for credentials in Credentials::all(message, field) {
                let use_of = (digest(credentials.nonce), credentials.nc);
                if let Some((_, call)) = self.taken.get(&use_of) {
                    out += &format!("; used by {}", String::from_utf8_lossy(call));
                }
            }
        }
        out
    }

    /// A server begins anew, and knows none of the nonces of before.
    pub fn begin_anew(&mut self) {
        self.nonces.clear();
        self.proved.clear();
    }

    /// After a REGISTER that two readers may read differently: the server's word is taken for everything.
    pub fn adopt(&mut self, now: Instant, location: &Location) {
        if self.asks_registrants {
            location.show(now, None, &mut |aor, view| {
                self.contacts.insert((aor.to_vec(), digest(&view.uri)));
            });
        }
    }

    /// Who asks for the bindings of an address-of-record must have proved to be its owner, and so must have all whose contacts
    /// are bound there.
    pub fn bound(&self, now: Instant, copies: &[&Reading], location: &Location) -> Result<(), String> {
        if !self.asks_registrants {
            return Ok(());
        }
        let owner = |copy: &&Reading| {
            let to = copy.value(Field::To).and_then(Name::of);
            to.is_some_and(|to| self.has_proved(copy, &to))
        };
        if !copies.iter().any(owner) {
            return Err("200 to a REGISTER of nobody who has proved to own it".into());
        }
        let mut wrong = None;
        for aor in copies.iter().filter_map(|copy| address_of_record(copy)) {
            location.show(now, Some(&aor), &mut |_, view| {
                let known = self.contacts.contains(&(aor.clone(), digest(&view.uri)));
                if view.expires > now && !known {
                    let contact = String::from_utf8_lossy(&view.uri).into_owned();
                    wrong = Some(format!("{contact} is bound, which no owner asked for"));
                }
            });
        }
        wrong.map_or(Ok(()), Err)
    }

    /// A request that may open a dialog has left. `asked` is its Request-URI as it came.
    pub fn opened(&mut self, message: &Reading, asked: &[u8]) {
        let name = |field| message.value(field).and_then(Name::of);
        let (Some(from), Some(to)) = (name(Field::From), name(Field::To)) else {
            return;
        };
        if !self.asks() || message.tag(Field::To).is_some() {
            return;
        }
        // The name in To is the caller's word: whoever was found by another name is that one. A next hop of the conf is called by any.
        let called = Name::of(asked).filter(|_| asked != message.uri());
        let named = to.clone();
        let to = match called.filter(|called| self.is_ours(&to) && *called != to) {
            Some(called) => called,
            None => to,
        };
        let tag = message.tag(Field::From).unwrap_or(b"").to_vec();
        let calls = self.calls.entry(digest(message.call_id())).or_default();
        let known = |p: &Parties| p.tag == tag && p.from == from && p.to == to && p.named == named;
        if !calls.iter().any(known) {
            calls.push(Parties { tag, from, to, named });
        }
    }

    /// True if it is sent by one who was called by a name that is not its own.
    fn bears_another_name(&self, message: &Reading, name: &Name) -> bool {
        let calls = self.calls.get(&digest(message.call_id()));
        let other = message.tag(Field::To);
        calls.into_iter().flatten().any(|parties| Some(&parties.tag[..]) == other && parties.named == *name && parties.to != *name)
    }

    /// True if the one who sends belongs to a dialog that this server let begin.
    pub fn is_party(&self, message: &Reading, name: &Name) -> bool {
        let (Some(own), Some(other)) = (message.tag(Field::From), message.tag(Field::To)) else {
            return false;
        };
        let calls = self.calls.get(&digest(message.call_id()));
        calls.into_iter().flatten().any(|parties| {
            let calls = parties.tag == own && parties.from == *name;
            let is_called = parties.tag == other && parties.to == *name;
            // Whoever was called by another name may end the call by it, and else bears it once it has proved who it is.
            let bears = message.method() == b"BYE" || self.has_proved(message, &parties.to);
            let is_named = parties.tag == other && parties.named == *name && bears;
            // Who was called may send before its first answer has come by.
            (calls && self.tags.contains(&tag_in_call(message, other))) || is_called || is_named
        })
    }
}

fn tag_in_call(message: &Reading, tag: &[u8]) -> u64 {
    digest(&[message.call_id(), b" ", tag].concat())
}

/// All that makes a request the same request.
fn facts(message: &Reading) -> u64 {
    let start = [message.method(), b" ", message.uri()].concat();
    digest(&start) ^ message.core.rotate_left(17)
}
