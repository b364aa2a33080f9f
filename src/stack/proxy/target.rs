//! The target set (RFC 3261 §16.5): where one request may go, in the order of q.

use crate::base::{Flow, Rng, Span, Transport};
use crate::settings::Millis;
use crate::sip::{Fault, Scheme, Uri};
use crate::stack::health::NamedBy;
use crate::stack::proxy::locate::ServerAddress;
use crate::stack::route::{Edits, NextHop, Statuses};
use crate::stack::token::TrunkUsed;
use crate::stack::trunk::Trunk;
use crate::stack::weights::by_weight;
use std::net::SocketAddr;
use std::sync::Arc;

/// One place to send a request to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The new Request-URI, in [`TargetSet::text`].
    pub uri: Span,
    /// Path of the binding (RFC 3327), a comma list for Route; empty if there is none.
    pub path: Span,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    /// Where to send, if not to the URI or the topmost Route: a next hop of the conf.
    pub hop: Option<ConfHop>,
    /// Its URI, in [`TargetSet::text`], if the conf gives a name, or uses TLS: next hops of different names at one address are
    /// distinct, and each proves its own name.
    pub hop_uri: Option<Span>,
    /// The certificate that the next hop of the conf is shown ([`NextHop::identity`]).
    pub identity: u64,
    /// Where the next hop's name leads for this copy.
    pub server_address: Option<ServerAddress>,
    /// The transport, if nothing else names one; otherwise it is chosen.
    pub transport: Option<Transport>,
    /// Only TLS may be used.
    pub secure: bool,
    /// The call has its connections to itself.
    pub per_call: bool,
    /// The listener at which the binding was registered.
    pub listener: Option<u16>,
    /// The address that the binding was registered from.
    pub source: Option<SocketAddr>,
    /// Its registration does not show that its phone receives what is sent to `source`.
    pub is_unsure: bool,
    /// An operator has bound it.
    pub by_operator: bool,
    /// It goes to a server that shares our location table, which alone reaches the phone: the CSeq of the binding.
    pub relayed: Option<u32>,
    /// The conf leads our users there, and nobody else.
    pub for_users: bool,
    /// The conf names its host, though not where that is.
    pub is_named: bool,
    /// The flow that the phone has opened, if it must be used: a connection, or a hole in a NAT.
    pub flow: Option<Flow>,
    /// The target is not reachable any other way: it is dead if `flow` is.
    pub flow_only: bool,
    /// Tried only after the one before it failed: a next hop of the conf behind another.
    pub spare: bool,
    /// Its position among the next hops of its `[[route]]`.
    pub number: u16,
    /// Its share of the requests, among the next hops of a route that shares them out.
    pub weight: u16,
}

impl Target {
    /// Whether the conf says where it leads.
    pub fn is_by_conf(&self) -> bool {
        self.hop.is_some() || self.hop_uri.is_some()
    }

    /// Where its destination comes from.
    pub fn named_by(&self) -> NamedBy {
        match (self.is_by_conf(), self.source.is_some() || self.by_operator) {
            (true, _) => NamedBy::Conf,
            (false, true) => NamedBy::Contact,
            (false, false) => NamedBy::Message,
        }
    }
}

/// A next hop of the conf, as far as it must be remembered when the conf changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfHop {
    pub address: SocketAddr,
    pub transport: Transport,
}

impl ConfHop {
    /// `None` if the conf gives a name.
    pub fn new(conf: &NextHop) -> Option<ConfHop> {
        Some(ConfHop { address: conf.address?, transport: conf.transport })
    }

    pub fn is(&self, conf: &NextHop) -> bool {
        Some(*self) == ConfHop::new(conf)
    }
}

/// Targets and their text; reused from request to request.
#[derive(Default)]
pub struct TargetSet {
    pub text: Vec<u8>,
    pub targets: Vec<Target>,
    /// The `[[route]]` that has led to them, by position.
    pub route: Option<u16>,
    /// What the route changes in the header fields of every copy.
    pub edits: Option<Arc<Edits>>,
    /// The URI of the user that the request has proved to be on this pass; empty: none.
    asserted: Span,
    /// Whose challenges are answered, and with which password.
    pub trunk: Option<Arc<Trunk>>,
    /// How it was used when the dialog began that the request belongs to.
    pub trunk_used: Option<TrunkUsed>,
    /// The header line that answers the challenge to the current copy; empty: none does.
    pub credentials: Vec<u8>,
    /// What the route says about its targets: after which final responses the next one is tried, and how long one may be silent, in
    /// milliseconds, if it overrides `[next_hop]`.
    pub failover: Statuses,
    pub patience: Option<Millis>,
}

impl TargetSet {
    pub fn clear(&mut self) {
        self.text.clear();
        self.targets.clear();
        self.route = None;
        self.edits = None;
        self.asserted = Span::default();
        self.trunk = None;
        self.trunk_used = None;
        self.credentials.clear();
        self.failover = Statuses::default();
        self.patience = None;
    }

    /// Keeps the identity that the request has proved, for every copy of it.
    pub fn assert(&mut self, user: &[u8]) {
        self.asserted = match user.is_empty() {
            true => Span::default(),
            false => self.append(user),
        };
    }

    pub fn asserted(&self) -> &[u8] {
        self.get(self.asserted)
    }

    pub fn push(&mut self, uri: &[u8], path: &[u8], q: u16) -> &mut Target {
        let uri = self.append(uri);
        let path = self.append(path);
        self.add(uri, path, q)
    }

    fn add(&mut self, uri: Span, path: Span, q: u16) -> &mut Target {
        self.targets.push(Target {
            uri,
            path,
            q,
            hop: None,
            hop_uri: None,
            identity: 0,
            server_address: None,
            transport: None,
            secure: false,
            per_call: false,
            listener: None,
            source: None,
            is_unsure: false,
            by_operator: false,
            relayed: None,
            for_users: false,
            is_named: false,
            flow: None,
            flow_only: false,
            spare: false,
            number: 0,
            weight: 0,
        });
        let last = self.targets.len() - 1;
        &mut self.targets[last]
    }

    /// Returns a SIPS URI as the SIP URI of the same resource.
    pub fn push_sip(&mut self, uri: &[u8], path: &[u8], q: u16) -> &mut Target {
        self.text.extend_from_slice(b"sip:");
        let rest = self.append(uri.get(5..).unwrap_or_default());
        let path = self.append(path);
        self.add(Span::new(rest.start as usize - 4, rest.end as usize), path, q)
    }

    /// Returns a URI without its port, `maddr` and `transport`.
    pub fn push_without_maddr(&mut self, uri: &Uri) -> &mut Target {
        let start = self.text.len();
        self.text.extend_from_slice(match uri.scheme {
            Scheme::Sips => b"sips:",
            _ => b"sip:",
        });
        if let Some(user) = uri.user {
            self.text.extend_from_slice(user);
            if let Some(password) = uri.password {
                self.text.push(b':');
                self.text.extend_from_slice(password);
            }
            self.text.push(b'@');
        }
        self.text.extend_from_slice(uri.host_text);
        for (name, value) in uri.params {
            let own = |own: &[u8]| name.eq_ignore_ascii_case(own);
            if own(b"maddr") || own(b"transport") {
                continue;
            }
            self.text.push(b';');
            self.text.extend_from_slice(name);
            if let Some(value) = value {
                self.text.push(b'=');
                self.text.extend_from_slice(value);
            }
        }
        let uri = Span::new(start, self.text.len());
        let path = self.append(b"");
        self.add(uri, path, 1000)
    }

    pub fn set_per_call(&mut self, per_call: bool) {
        if per_call {
            self.targets.iter_mut().for_each(|target| target.per_call = true);
        }
    }

    /// Directs the target that was pushed last to a next hop of the conf.
    pub fn lead_to(&mut self, hop: &NextHop) {
        let conf = ConfHop::new(hop);
        let is_named = conf.is_none() || hop.transport == Transport::Tls;
        let uri = is_named.then(|| self.append(hop.uri.text()));
        if let Some(target) = self.targets.last_mut() {
            (target.hop, target.hop_uri) = (conf, uri);
            target.identity = hop.identity;
        }
    }

    /// Changes the URIs as the route says. An error if nothing dialable is left of one.
    pub fn edit(&mut self, edits: &Arc<Edits>) -> Result<(), Fault> {
        if !edits.keep_headers() {
            self.edits = Some(edits.clone());
        }
        if edits.keep_uri() {
            return Ok(());
        }
        let dialling = edits.dialling();
        for number in 0..self.targets.len() {
            let mut edited = Vec::new();
            let target = &self.targets[number];
            dialling.write(&Uri::parse(self.get(target.uri))?, &mut edited)?;
            self.targets[number].uri = self.append(&edited);
        }
        Ok(())
    }

    /// The conf names the host of the URIs, and no other next hop: their destination counts as the conf's.
    pub fn lead_where_the_uri_says(&mut self) {
        for target in &mut self.targets {
            if !target.is_by_conf() {
                target.hop_uri = Some(target.uri);
            }
        }
    }

    /// Orders next hops by their weights, those without one last. The first is tried, and the others are its spares.
    pub fn order_by_weight(&mut self, seed: u64) {
        self.targets.sort_by_key(|target| target.weight == 0);
        let group = |target: &Target| (u16::from(target.weight == 0), target.weight);
        by_weight(&mut self.targets, &mut Rng::new(seed), group);
        self.mark_spares();
    }

    /// All but the first are for when the one before has failed.
    pub fn mark_spares(&mut self) {
        for (number, target) in self.targets.iter_mut().enumerate() {
            target.spare = number > 0;
        }
    }

    /// Resets it to this one target of another set.
    pub fn copy_one(&mut self, other: &TargetSet, target: &Target) {
        self.clear();
        self.edits = other.edits.clone();
        self.assert(other.asserted());
        let hop_uri = target.hop_uri.map(|uri| self.append(other.get(uri)));
        let copy = Target { hop_uri, ..*target };
        let own = self.push(other.get(target.uri), other.get(target.path), target.q);
        let (uri, path) = (own.uri, own.path);
        *own = Target { uri, path, ..copy };
    }

    pub fn get(&self, span: Span) -> &[u8] {
        self.text.get(span.range()).unwrap_or(&[])
    }

    /// Highest q first; equal q keep their order.
    pub fn sort_by_q(&mut self) {
        self.targets.sort_by_key(|target| std::cmp::Reverse(target.q));
    }

    /// Drops the targets that equal `uri`. False if none is left.
    pub fn keep_other_than(&mut self, uri: &Uri) -> bool {
        let text = &self.text;
        self.targets.retain(|target| {
            let this = text.get(target.uri.range()).unwrap_or_default();
            !Uri::parse(this).is_ok_and(|this| this.equals(uri))
        });
        !self.targets.is_empty()
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_q_and_in_order() {
        let mut set = TargetSet::default();
        for (uri, q) in [("a", 500), ("b", 1000), ("c", 500), ("d", 0)] {
            set.push(uri.as_bytes(), b"", q);
        }
        set.sort_by_q();
        let order: Vec<_> = set.targets.iter().map(|t| set.get(t.uri)[0]).collect();
        assert_eq!(order, b"bacd");
        set.clear();
        assert!(set.targets.is_empty());
    }
}
