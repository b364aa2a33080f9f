//! `[[route]]`: conditions, and an action with what it takes.

use std::net::{IpAddr, SocketAddr};

use super::OUTGOING;
use super::document::{Document, Section, Value};
use super::tls::Alone;
use super::uri::{parse_host, parse_uri, uri, user_prefix};
use super::values::*;
use crate::config::model::*;

/// What a `[[route]]` rejects with where it names no status: 403 Forbidden.
pub const DEFAULT_REJECTION: u16 = 403;

const CALLERS: [(&str, Callers); 2] = [("anyone", Callers::Anyone), ("users", Callers::Users)];

const AGENTS: &str = "a list of parts of User-Agents such as [\"friendly-scanner\"]";

pub(super) const TARGETS: &str = "a list of SIP URIs such as [\"sip:192.0.2.10:5060\"]";

impl Document<'_> {
    pub(super) fn routes(&mut self) -> Vec<Route> {
        let mut routes = Vec::new();
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
            let route = section.route();
            let conditions = [
                "methods",
                "from_source",
                "to_host",
                "to_user_prefix",
                "user_agent",
            ];
            if !conditions.iter().any(|key| section.given(key)) {
                all_taken_at = all_taken_at.or(Some(routes.len() + 1));
            }
            routes.push(route);
        }
        routes
    }
}

impl Section<'_, '_> {
    pub(super) fn route(&mut self) -> Route {
        let methods = list("a list of methods such as [\"INVITE\"]", method);
        let networks = list("a list of networks such as [\"192.0.2.0/24\"]", network);
        let methods = self.read("methods", filled(methods));
        let from_source = self.read("from_source", filled(networks));
        let challenge = self.read("challenge", boolean);
        let from = self.read("from", one_of(&CALLERS)).unwrap_or_default();
        // Users are known by their answers to challenges.
        if challenge == Some(false) && from == Callers::Users {
            let message = "challenge = false contradicts from = \"users\", which challenges everybody: remove one of the two";
            self.wrong(self.place("challenge"), message);
        }
        let certificate = self.pairs("certificate", "private_key", Alone::HoldsItsKey);
        let action = self.certified_action(&certificate);
        Route {
            methods: methods.unwrap_or_default(),
            from_source: from_source.unwrap_or_default(),
            to_host: self.read("to_host", host),
            to_user_prefix: self.read("to_user_prefix", user_prefix),
            user_agent: self
                .read("user_agent", filled(list(AGENTS, agent)))
                .unwrap_or_default(),
            outgoing: self.read("outgoing", one_of(&OUTGOING)),
            challenge,
            from,
            certificate,
            action,
        }
    }

    /// The action; a certificate is shown to targets over TLS, and says nothing where there are none.
    fn certified_action(&mut self, certificate: &[Pair]) -> Action {
        let action = self.action();
        let is_shown = match &action {
            // The records of a name may say TLS where its URI says nothing.
            Action::Relay(targets) => targets
                .iter()
                .any(|target| target.transport == Transport::Tls || target.transport_is_open),
            _ => false,
        };
        if !certificate.is_empty() && !is_shown && self.sound(["action", "target"]) {
            let message = "certificate says nothing here: only targets over TLS are shown it, such as \"sips:gw.example.net\"; \
                           remove it, or add one";
            self.wrong(self.place("certificate"), message);
        }
        action
    }

    /// `action` with what it takes, and nothing that it does not take.
    pub(super) fn action(&mut self) -> Action {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Relay,
            Location,
            Redirect,
            Reject,
            Drop,
        }
        let kinds = [
            ("relay", Kind::Relay),
            ("location", Kind::Location),
            ("redirect", Kind::Redirect),
            ("reject", Kind::Reject),
            ("drop", Kind::Drop),
        ];
        let wrong_before = self.document.wrongs.len();
        let kind = self.read("action", one_of(&kinds));
        let kind_is_wrong = self.document.wrongs.len() > wrong_before;
        if kind.is_none() && !kind_is_wrong && self.table.is_some_and(|table| !table.is_empty()) {
            let message = "this [[route]] has no action: add action = \"relay\", \"location\", \"redirect\", \"reject\" or \"drop\"";
            self.wrong(self.at, message);
        }
        let (mut hops, mut uris) = (None, None);
        match kind {
            // A name in a redirection is the caller's to resolve; a next hop is ours.
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
            for (key, takers, meaning) in [
                (
                    "target",
                    [Kind::Relay, Kind::Redirect].as_slice(),
                    "\"relay\" and \"redirect\"",
                ),
                (
                    "outgoing",
                    [Kind::Relay, Kind::Location].as_slice(),
                    "\"relay\" and \"location\"",
                ),
                (
                    "challenge",
                    [Kind::Relay, Kind::Location, Kind::Redirect].as_slice(),
                    "\"relay\", \"location\" and \"redirect\"",
                ),
                (
                    "from",
                    [Kind::Relay, Kind::Location, Kind::Redirect].as_slice(),
                    "\"relay\", \"location\" and \"redirect\"",
                ),
                ("status", [Kind::Reject].as_slice(), "\"reject\""),
            ] {
                if self.given(key) && !takers.contains(&kind) {
                    let message = format!(
                        "{key} says nothing here: only the actions {meaning} take it; remove it or change the action"
                    );
                    self.wrong(self.place(key), message);
                }
            }
        }
        match kind {
            Some(Kind::Relay) => Action::Relay(hops.unwrap_or_default()),
            Some(Kind::Redirect) => Action::Redirect(uris.unwrap_or_default()),
            Some(Kind::Reject) => {
                let status = status.and_then(|status| u16::try_from(status).ok());
                Action::Reject(status.unwrap_or(DEFAULT_REJECTION))
            }
            Some(Kind::Drop) => Action::Drop,
            Some(Kind::Location) | None => Action::Location,
        }
    }
}

/// A part of a User-Agent, lower-case.
fn agent(value: &Value<'_>) -> Parsed<String> {
    let text = string(value, AGENTS)?;
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(must_be(value, AGENTS));
    }
    Ok(text.to_ascii_lowercase())
}

/// The SIP URI of a next hop: with an address as its host or beside it, or with a name that is looked up (RFC 3263).
pub(super) fn target(value: &Value<'_>) -> Parsed<Target> {
    let what = "SIP URIs such as \"sip:192.0.2.10:5060\" or \"sip:sip.example.net\"";
    let text = string(value, what)?;
    let uri = parse_uri(text).ok_or_else(|| must_be(value, what))?;
    if let Some(name) = uri.repeated_param() {
        let phrase = format!("has {text:?}, but {name} stands there twice: remove one");
        return Err(wrong(value, phrase));
    }
    let transport = match uri.param("transport").map(str::to_ascii_lowercase) {
        None if uri.secure => Transport::Tls,
        None => Transport::Udp,
        Some(name) => match (name.as_str(), uri.secure) {
            // What a sips URI names is what carries TLS (RFC 3261 §26.2.2); transport=tls is of old.
            ("tcp" | "tls", true) | ("tls", false) => Transport::Tls,
            ("tcp", false) => Transport::Tcp,
            ("udp", false) => Transport::Udp,
            ("udp", true) => {
                let phrase = format!(
                    "has {text:?}, but sips goes by TLS, which UDP does not carry: remove transport=udp"
                );
                return Err(wrong(value, phrase));
            }
            _ => {
                let phrase = format!(
                    "has {text:?}, but transport must be one of udp, tcp, tls, not {name:?}"
                );
                return Err(wrong(value, phrase));
            }
        },
    };
    let address = match (&uri.host, uri.param("maddr")) {
        (Host::Address(address), None) => Some(*address),
        (Host::Address(_), Some(_)) => {
            let phrase = format!(
                "has {text:?}, but maddr stands beside a host name only: write the address as the host"
            );
            return Err(wrong(value, phrase));
        }
        (Host::Name(_), Some(maddr)) => match parse_host(maddr) {
            Some(Host::Address(address)) => Some(address),
            _ => {
                let phrase = format!("has {text:?}, but maddr must be an IP address here");
                return Err(wrong(value, phrase));
            }
        },
        (Host::Name(_), None) => None,
    };
    let no_server = |ip: &IpAddr| ip.is_unspecified() || ip.is_multicast();
    if let Some(address) = address.filter(no_server) {
        let phrase = format!("has {text:?}, but {address} is the address of no server");
        return Err(wrong(value, phrase));
    }
    let port = uri.port.unwrap_or(transport.default_port());
    Ok(Target {
        uri: text.to_owned(),
        address: address.map(|address| SocketAddr::new(address, port)),
        transport,
        transport_is_open: !uri.secure && uri.param("transport").is_none(),
        host: uri.host,
    })
}
