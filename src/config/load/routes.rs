//! `[[route]]`: conditions, and an action with what it takes.

use std::net::SocketAddr;

use super::document::{Document, Section, Value};
use super::uri::{parse_uri, uri, user_prefix};
use super::values::*;
use crate::config::model::*;

/// What a `[[route]]` rejects with where it names no status: 403 Forbidden.
pub const DEFAULT_REJECTION: u16 = 403;

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
            let conditions = ["methods", "from_source", "to_host", "to_user_prefix"];
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
        Route {
            methods: methods.unwrap_or_default(),
            from_source: from_source.unwrap_or_default(),
            to_host: self.read("to_host", host),
            to_user_prefix: self.read("to_user_prefix", user_prefix),
            action: self.action(),
        }
    }

    /// `action` with what it takes, and nothing that it does not take.
    pub(super) fn action(&mut self) -> Action {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Relay,
            Location,
            Redirect,
            Reject,
        }
        let kinds = [
            ("relay", Kind::Relay),
            ("location", Kind::Location),
            ("redirect", Kind::Redirect),
            ("reject", Kind::Reject),
        ];
        let wrong_before = self.document.wrongs.len();
        let kind = self.read("action", one_of(&kinds));
        let kind_is_wrong = self.document.wrongs.len() > wrong_before;
        if kind.is_none() && !kind_is_wrong && self.table.is_some_and(|table| !table.is_empty()) {
            let message = "this [[route]] has no action: add action = \"relay\", \"location\", \"redirect\" or \"reject\"";
            self.wrong(self.at, message);
        }
        let (mut hops, mut uris) = (None, None);
        match kind {
            // A name in a redirection is the caller's to resolve; a next hop is ours.
            Some(Kind::Redirect) => uris = self.read("target", filled(list(TARGETS, uri))),
            _ => hops = self.read("target", filled(list(TARGETS, target))),
        }
        let status = self.read("status", number(400, 699));

        if let Some(kind) = kind {
            for (key, takers, meaning) in [
                (
                    "target",
                    [Kind::Relay, Kind::Redirect].as_slice(),
                    "\"relay\" and \"redirect\"",
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
            Some(Kind::Location) | None => Action::Location,
        }
    }
}

/// A SIP URI that this version can send to: an address, and UDP.
pub(super) fn target(value: &Value<'_>) -> Parsed<Target> {
    let what = "SIP URIs such as \"sip:192.0.2.10:5060\"";
    let text = string(value, what)?;
    let uri = parse_uri(text).ok_or_else(|| must_be(value, what))?;
    if uri.secure {
        let phrase = format!("has {text:?}, but this version speaks UDP only: write a sip: URI");
        return Err(wrong(value, phrase));
    }
    for param in uri.params.split(';').filter(|param| !param.is_empty()) {
        let (name, of) = param.split_once('=').unwrap_or((param, ""));
        if name.eq_ignore_ascii_case("transport") && !of.eq_ignore_ascii_case("udp") {
            let phrase =
                format!("has {text:?}, but this version speaks UDP only: remove transport={of}");
            return Err(wrong(value, phrase));
        }
        if name.eq_ignore_ascii_case("maddr") {
            let phrase = format!(
                "has {text:?}, but a next hop takes no maddr: write its address as the host"
            );
            return Err(wrong(value, phrase));
        }
    }
    match uri.host {
        Host::Address(address) => Ok(Target {
            uri: text.to_owned(),
            address: SocketAddr::new(address, uri.port.unwrap_or(5060)),
        }),
        Host::Name(name) => {
            let phrase = format!(
                "has the host name {name:?}, but this version resolves no names: write its IP address"
            );
            Err(wrong(value, phrase))
        }
    }
}
