//! `[[route]]`: conditions, and an action with its parameters.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::document::{Document, Section};
use super::tls::Alone;
use super::uri::*;
use super::values::*;
use super::wrong::*;
use crate::base::{Key, Transport};
use crate::net::tls::Pair;
use crate::settings::{Callers, Mode};
use crate::sip::{Host, Scheme};
use crate::stack::route::{Action, NextHop, Route, Routes};
use crate::stack::trunk::Trunk;

/// The status of a `[[route]]` that rejects and names none: 403 Forbidden.
pub const DEFAULT_REJECTION: u16 = 403;

const AGENTS: &str = "a list of parts of User-Agents such as [\"friendly-scanner\"]";

pub(super) const TARGETS: &str = "a list of SIP URIs such as [\"sip:192.0.2.10:5060\"]";

/// What an action does.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Relay,
    Location,
    Redirect,
    Reject,
    Drop,
}

const KINDS: [(&str, Kind); 5] = [
    ("relay", Kind::Relay),
    ("location", Kind::Location),
    ("redirect", Kind::Redirect),
    ("reject", Kind::Reject),
    ("drop", Kind::Drop),
];

/// Keys, the actions that take them, and those actions as a message names them.
const TAKEN: &[(&str, &[Kind], &str)] = &[
    ("target", &[Kind::Relay, Kind::Redirect], "\"relay\" and \"redirect\""),
    ("outgoing", &[Kind::Relay, Kind::Location], "\"relay\" and \"location\""),
    ("challenge", &[Kind::Relay, Kind::Location, Kind::Redirect], "\"relay\", \"location\" and \"redirect\""),
    ("from", &[Kind::Relay, Kind::Location, Kind::Redirect], "\"relay\", \"location\" and \"redirect\""),
    ("status", &[Kind::Reject], "\"reject\""),
    ("weight", &[Kind::Relay], "\"relay\""),
    ("failover", &[Kind::Relay], "\"relay\""),
    ("patience", &[Kind::Relay, Kind::Location], "\"relay\" and \"location\""),
    ("probe", &[Kind::Relay], "\"relay\""),
    ("strip", &[Kind::Relay], "\"relay\""),
    ("prefix", &[Kind::Relay], "\"relay\""),
    ("set_host", &[Kind::Relay], "\"relay\""),
    ("add_header", &[Kind::Relay], "\"relay\""),
    ("remove_header", &[Kind::Relay], "\"relay\""),
    ("trunk", &[Kind::Relay], "\"relay\""),
];

impl Document<'_> {
    /// Returns the routes, and by number the certificates that their next hops are shown.
    pub(super) fn routes(&mut self, trunks: &[Arc<Trunk>], mode: Mode) -> (Routes, Vec<(u64, Vec<Pair>)>) {
        let mut routes = Vec::new();
        let mut certificates = BTreeMap::new();
        let mut all_taken_at = None;
        for (table, at) in self.tables("route").unwrap_or_default() {
            let mut section = self.open("route", Some(table), at);
            if let Some(before) = all_taken_at {
                let message = format!(
                    "this [[route]] is never reached, because number {before} names no condition and takes every request; \
                     move that one to the end"
                );
                section.wrong(at, message);
            }
            let (route, pairs) = section.route(trunks, mode);
            if !pairs.is_empty() {
                certificates.insert(number_of(&pairs), pairs);
            }
            let conditions = ["methods", "from_source", "to_host", "to_user_prefix", "user_agent"];
            if !conditions.iter().any(|key| section.given(key)) {
                all_taken_at = all_taken_at.or(Some(routes.len() + 1));
            }
            routes.push(route);
        }
        (routes.into(), certificates.into_iter().collect())
    }
}

/// The number of a certificate between the rules and the wires; 0 for the one that all are shown.
fn number_of(pairs: &[Pair]) -> u64 {
    if pairs.is_empty() {
        return 0;
    }
    let names = pairs.iter().flat_map(|pair| {
        let files = [&pair.certificate, &pair.private_key];
        files.map(|path| path.as_os_str().as_encoded_bytes())
    });
    let names: Vec<&[u8]> = names.collect();
    Key::new(0, 0).derive("identity").hash(&names).max(1)
}

impl Section<'_, '_> {
    /// Returns a route, and the certificates that it shows.
    fn route(&mut self, trunks: &[Arc<Trunk>], mode: Mode) -> (Route, Vec<Pair>) {
        let methods = list("a list of methods such as [\"INVITE\"]", method);
        let methods = self.read("methods", filled(methods));
        self.warn_of_near_methods(methods.as_deref().unwrap_or_default());
        let from_source = self.read("from_source", filled(list(NETWORKS, network)));
        let challenge = self.read("challenge", boolean);
        let from = self.read("from", word::<Callers>).unwrap_or_default();
        // Users are known by their answers to challenges.
        if challenge == Some(false) && from == Callers::Users {
            let message = "challenge = false contradicts from = \"users\", which challenges everybody: remove one of the two";
            self.wrong(self.place("challenge"), message);
        }
        let pairs = self.pairs("certificate", "private_key", Alone::HoldsItsKey);
        let action = self.certified_action(&pairs);
        let targets = match &action {
            Action::Relay(hops) => hops.len(),
            _ => 0,
        };
        let route = Route {
            action,
            weights: self.weights(targets),
            failover: self.failover(targets),
            patience: self.read("patience", millis(Duration::from_millis(100), Duration::from_secs(120))),
            probe: self.probe(targets),
            edits: self.edits().into(),
            trunk: self.trunk(trunks, targets, mode),
            methods: methods.unwrap_or_default(),
            from_source: from_source.unwrap_or_default(),
            to_host: self.read("to_host", host).map(|host| host.into_bytes().into()),
            to_user_prefix: self.read("to_user_prefix", user_prefix),
            user_agent: self.read("user_agent", filled(list(AGENTS, agent))).unwrap_or_default(),
            outgoing: self.read("outgoing", word),
            challenge,
            users_only: from == Callers::Users,
        };
        (route, pairs)
    }

    /// Any word may be a method of an extension, but one that is nearly a known one is most likely that.
    fn warn_of_near_methods(&mut self, methods: &[Vec<u8>]) {
        for (method, at) in methods.iter().zip(self.entry_places("methods")) {
            let method = String::from_utf8_lossy(method);
            let known = METHODS.iter().map(|known| (strsim::osa_distance(&method, known), known));
            if let Some((1 | 2, near)) = known.min().filter(|(distance, near)| distance * 3 <= near.len()) {
                let message = format!("methods has {method:?}, which is no known method; the nearest known one is {near:?}");
                self.document.warnings.push(Wrong::new(at, message));
            }
        }
    }

    /// Returns the action; a certificate is shown to targets over TLS, and has no effect if there are none.
    fn certified_action(&mut self, certificate: &[Pair]) -> Action {
        let mut action = self.action();
        let mut is_shown = false;
        if let Action::Relay(targets) = &mut action {
            for target in targets {
                target.identity = number_of(certificate);
                // The records of a name may say TLS even if its URI does not.
                is_shown |= target.transport == Transport::Tls || target.leaves_transport_open();
            }
        }
        if !certificate.is_empty() && !is_shown && self.sound(["action", "target"]) {
            let message = "certificate has no effect here: only targets over TLS are shown it, such as \"sips:gw.example.net\"; \
                           remove it, or add one";
            self.wrong(self.place("certificate"), message);
        }
        action
    }

    /// Returns `action` with its parameters, and refuses any that it does not take.
    fn action(&mut self) -> Action {
        let wrong_before = self.document.wrongs.len();
        let kind = self.read("action", one_of(&KINDS));
        let kind_is_wrong = self.document.wrongs.len() > wrong_before;
        if kind.is_none() && !kind_is_wrong && self.table.is_some_and(|table| !table.is_empty()) {
            let message =
                "this [[route]] has no action: add action = \"relay\", \"location\", \"redirect\", \"reject\" or \"drop\"";
            self.wrong(self.at, message);
        }
        let (mut hops, mut uris) = (None, None);
        match kind {
            // A name in a redirection is for the caller to resolve; a next hop's is for us.
            Some(Kind::Redirect) => uris = self.read("target", filled(list(TARGETS, uri))),
            _ => {
                hops = self.read("target", filled(list(TARGETS, target)));
                if let (Some(Kind::Relay), Some(_)) = (kind, &hops) {
                    let places = self.entry_places("target");
                    self.document.target_places.extend(places);
                }
            }
        }
        let status = self.read("status", number(400, 699));

        if let Some(kind) = kind {
            self.refuse_untaken(kind);
        }
        match kind {
            Some(Kind::Relay) => Action::Relay(hops.unwrap_or_default()),
            Some(Kind::Redirect) => Action::Redirect(uris.unwrap_or_default()),
            Some(Kind::Reject) => Action::Reject(status.unwrap_or(DEFAULT_REJECTION)),
            Some(Kind::Drop) => Action::Drop,
            Some(Kind::Location) | None => Action::Location,
        }
    }

    /// Refuses keys that the action does not take.
    fn refuse_untaken(&mut self, kind: Kind) {
        for (key, takers, meaning) in TAKEN {
            if self.given(key) && !takers.contains(&kind) {
                let message =
                    format!("{key} has no effect here: only the actions {meaning} take it; remove it or change the action");
                self.wrong(self.place(key), message);
            }
        }
    }
}

/// A part of a User-Agent, lower-case.
fn agent(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let text = string(value, AGENTS)?;
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(must_be(value, AGENTS));
    }
    Ok(text.to_ascii_lowercase().into_bytes())
}

/// The SIP URI of a next hop: with an address as its host or beside it, or with a name that is looked up (RFC 3263).
pub(super) fn target(value: &Value<'_>) -> Parsed<NextHop> {
    let what = "SIP URIs such as \"sip:192.0.2.10:5060\" or \"sip:sip.example.net\"";
    let text = string(value, what)?;
    let has = |phrase: String| wrong(value, format!("has {text:?}, but {phrase}"));
    let uri = read_uri(text).ok_or_else(|| must_be(value, what))?;
    if let Some(name) = repeated_param(&uri) {
        return Err(has(format!("{name} appears twice: remove one")));
    }
    let secure = uri.scheme == Scheme::Sips;
    let param = |name: &[u8]| uri.param(name).map(Option::unwrap_or_default);
    let named = param(b"transport");
    let named = named.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase());
    let transport = match (named.as_deref(), secure) {
        // A sips URI implies TLS (RFC 3261 §26.2.2); transport=tls is deprecated.
        (None | Some("tcp" | "tls"), true) | (Some("tls"), false) => Transport::Tls,
        (None | Some("udp"), false) => Transport::Udp,
        (Some("tcp"), false) => Transport::Tcp,
        (Some("udp"), true) => {
            let phrase = "sips goes by TLS, which UDP does not carry: remove transport=udp";
            return Err(has(phrase.to_owned()));
        }
        (Some(name), _) => {
            let phrase = format!("transport must be one of udp, tcp, tls, not {name:?}");
            return Err(has(phrase));
        }
    };
    let address = match (uri.host.ip(), param(b"maddr")) {
        (Some(_), Some(_)) => {
            let phrase = "maddr is allowed beside a host name only: write the address as the host";
            return Err(has(phrase.to_owned()));
        }
        (None, Some(maddr)) => match Host::of(maddr).ip() {
            None => return Err(has("maddr must be an IP address here".to_owned())),
            address => address,
        },
        (address, None) => address,
    };
    let no_server = |ip: &IpAddr| ip.is_unspecified() || ip.is_multicast();
    if let Some(address) = address.filter(no_server) {
        return Err(has(format!("{address} is the address of no server")));
    }
    let port = uri.port.unwrap_or(transport.default_port());
    Ok(NextHop {
        uri: text.parse().map_err(|_| must_be(value, what))?,
        address: address.map(|address| SocketAddr::new(address, port)),
        transport,
        host: match uri.host.ip() {
            Some(ip) => ip.to_string().into_bytes(),
            None => canonical(&uri.host),
        },
        identity: 0,
    })
}
