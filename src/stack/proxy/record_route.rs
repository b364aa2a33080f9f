//! Our Record-Route (RFC 3261 §16.6 step 4): two of them if the sides differ (RFC 5658 §3), SIPS if the request is (RFC 5630),
//! and the flow token in it (RFC 5626 §5.3).

use crate::base::{Channel, Transport};
use crate::sip::{Message, Method, Name, NameAddr, Uri};
use crate::stack::cookie::{self, Draft, Holder, Target};
use crate::stack::dialog::{accepted, refreshes_target};
use crate::stack::facts::contact;
use crate::stack::hop_uri::is_sips;
use crate::stack::identity::Dialog as Call;
use crate::stack::moved::Kind;
use crate::stack::preprocess::MAX_OWN_ROUTES;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::{Hop, RequestCopy};
use crate::stack::proxy::next_hop::is_per_call;
use crate::stack::request::Request;
use crate::stack::source_proof::is_private;
use crate::stack::token::{self, Side, TrunkUsed};
use crate::stack::turn::Turn;
use std::net::SocketAddr;
use std::ops::Range;

impl Proxy {
    /// Step 4, through the rewriter.
    pub fn record_route(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy, hop: &Hop) {
        let dialog = match request.opening {
            Some(dialog) => dialog,
            None => turn.core.identity.dialog(&request.message, Side::Caller, &mut turn.core.facts),
        };
        let beyond = turn.recorded_below(&request.message);
        let holder = turn.holder(request, hop);
        let split = self.write_token(turn, request, copy, hop);
        let (out, back) = (hop.flow.listener, request.flow.listener);
        // Above those of the request, which may be above the Via.
        let top = request.message.headers_start();
        let (rewrite, cookies, facts) = (&mut self.rewrite, turn.core.cookies, &mut turn.core.facts);
        let target = match contact(&request.message) {
            Some(contact) => Target::At(contact),
            None => Target::Anywhere,
        };
        let sips = is_sips(copy.uri)
            || copy.first_route(request).and_then(|route| NameAddr::parse(route).ok()).is_some_and(|route| is_sips(route.uri));
        let mut record = |listener: u16, token: &[u8]| {
            let Some(listener) = turn.core.settings.listeners.get(listener as usize) else {
                return; // gone with the conf of before
            };
            rewrite.insert(top, |out| {
                out.extend_from_slice(match (listener.transport, sips) {
                    (Transport::Tls, true) => b"Record-Route: <sips:",
                    _ => b"Record-Route: <sip:",
                });
                out.extend_from_slice(&listener.advertise);
                out.extend_from_slice(match (listener.transport, sips) {
                    (Transport::Udp, _) | (Transport::Tls, true) => b"",
                    (Transport::Tcp, _) => b";transport=tcp",
                    (Transport::Tls, false) => b";transport=tls",
                });
                out.extend_from_slice(b";lr;");
                out.extend_from_slice(cookie::PARAM);
                out.push(b'=');
                let draft = Draft { target, route: beyond, token };
                cookies.write_callees(&request.message, &dialog, holder, &draft, facts, out);
                out.extend_from_slice(b">\r\n");
            });
        };
        if out == back {
            record(out, &self.token);
        } else {
            let (caller, callee) = self.token.split_at(split);
            record(out, callee);
            record(back, caller);
        }
    }

    /// Writes the flow token of this request's Record-Route into the proxy's `token`: how to reach a caller that may have come from
    /// behind a NAT or by a connection, and the flow by which the called phone is reached. Returns where the second part begins.
    fn write_token(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy, hop: &Hop) -> usize {
        let (token, mask) = (&mut self.token, turn.core.cookies.mask());
        token.clear();
        if is_first_hop(request) && needs_flow(request) {
            token::write(Side::Caller, &request.flow, mask, token);
        }
        let split = token.len();
        if hop.fixed {
            token::write(Side::Callee, &hop.flow, mask, token);
        }
        if is_per_call(&hop.flow) {
            token::write_per_call(token);
        }
        if let Some(trunk) = copy.trunk {
            let begins = || TrunkUsed { mark: trunk.mark(), door: turn.core.cookies.door(trunk, hop.flow.peer.ip()) };
            token::write_trunk(copy.trunk_used.unwrap_or_else(begins), token);
        }
        if let Channel::Peer { name, .. } = hop.flow.channel
            && name != 0
            && turn.shares_address(hop.flow.peer)
        {
            token::write_name(name, &mut self.token);
        }
        if turn.core.settings.guards() && turn.is_guarded_dialog(request, hop.flow.peer) {
            token::write_guarded(&mut self.token);
        }
        if turn.has_an_end_here(request, hop.flow.peer) {
            token::write_here(&mut self.token);
        }
        split
    }

    // ---- the response: the caller gets a cookie of its own ---------------------------------------------------------------

    /// §16.7 step 8: rewrites our Record-Route for the caller, through the rewriter, if the response makes a dialog or belongs to
    /// one. A value that does not bear the check of this dialog is left as it is.
    pub fn hand_over_route(&mut self, turn: &mut Turn, message: &Message, source: SocketAddr) {
        let status = message.status();
        if !(101..300).contains(&status) || message.header(Name::RecordRoute).is_none() || message.to_tag().is_none() {
            if (200..300).contains(&status) && message.method() == Method::Invite {
                let dialog = turn.dialog_of_answer(message);
                turn.note_accepted(&dialog, source);
            }
            return turn.note_answer(message, status);
        }
        let dialog = turn.dialog_of_answer(message);
        if status >= 200 {
            turn.note_accepted(&dialog, source);
        }
        let (cookies, facts) = (turn.core.cookies, &mut turn.core.facts);
        let contact = contact(message);
        let is_invite = message.method() == Method::Invite;
        let mut beyond = None;
        let mut is_within = true;
        for value in message.values(Name::RecordRoute) {
            let found = cookie_in(value.text);
            let cookie = found.clone().and_then(|range| value.text.get(range));
            let read = |text| cookies.read_callees(message, &dialog, text);
            // Another server with the same secret gives the caller its own.
            let callees = cookie.and_then(read).filter(|callees| cookies.is_callees_of_this_run(callees));
            let (Some(found), Some(callees)) = (found, callees) else {
                beyond = NameAddr::parse(value.text).ok().map(|address| address.uri);
                continue;
            };
            is_within &= callees.is_within();
            let target = match contact {
                Some(contact) => Target::At(contact),
                None if status >= 200 && (is_invite || !callees.is_within()) => Target::Anywhere,
                None => Target::Nowhere,
            };
            let draft = Draft { target, route: beyond, token: callees.token() };
            let start = value.span.start as usize;
            self.rewrite.replace(start + found.start..start + found.end, |out| {
                cookies.write_callers(message, &callees, &dialog, &draft, facts, out);
            });
        }
        if is_within {
            turn.note_answer(message, status);
        }
    }
}

impl Turn<'_> {
    /// Who may use the callee's cookie: the name in To is the caller's claim, and no proof that it belongs to the receiver of the
    /// request. A next hop of the conf answers for the names that it is called by.
    fn holder<'a>(&self, request: &Request<'a>, hop: &Hop) -> Holder<'a> {
        let Ok(to) = request.message.to() else {
            return Holder::Named;
        };
        if let Some(shown) = request.shown.filter(|_| request.trusted) {
            return match self.core.cookies.names_both(&shown) {
                true => Holder::Named,
                false => Holder::Unknown,
            };
        }
        if hop.by_conf || self.core.is_for_whom_it_names(request) {
            return Holder::Named;
        }
        let Ok(to) = Uri::parse(to.uri) else {
            return Holder::Named;
        };
        if self.core.settings.whose(&to).is_none() {
            return Holder::Named;
        }
        // Under the name of a user with a password nobody else passes, unless that user forwards calls.
        let is_forwarded = request.passed.is_some_and(|passed| passed.named);
        match is_forwarded || !self.core.has_password(&to) {
            true => Holder::Called(request.uri),
            false => Holder::Unknown,
        }
    }

    /// The Record-Route of the proxy behind us that the callee's requests go to.
    fn recorded_below<'a>(&self, message: &Message<'a>) -> Option<&'a [u8]> {
        let values = message.values(Name::RecordRoute).take(MAX_OWN_ROUTES);
        let mut uris = values.filter_map(|value| Some(NameAddr::parse(value.text).ok()?.uri));
        let is_another =
            |uri: &Uri| uri.param(cookie::PARAM).flatten().is_some_and(|text| self.core.cookies.is_text_of_another_run(text));
        uris.find(|uri| !Uri::parse(uri).is_ok_and(|uri| self.core.is_own_uri(&uri) && !is_another(&uri)))
    }

    fn note_accepted(&mut self, dialog: &Call, source: SocketAddr) {
        self.transactions.accepted.note(accepted(dialog));
        if self.core.settings.guards() && self.is_guarded_address(source) {
            self.transactions.accepted.note(!accepted(dialog));
        }
    }

    /// What the response shares with the request that it answers, remembered or read from the response.
    fn dialog_of_answer(&mut self, message: &Message) -> Call {
        let (identity, facts) = (self.core.identity, &mut self.core.facts);
        let find = || identity.dialog(message, Side::Caller, facts);
        self.answered.unwrap_or_else(find)
    }

    /// A response within a dialog gives its sender's current contact.
    fn note_answer(&mut self, message: &Message, status: u16) {
        if !refreshes_target(message.method()) || !(200..300).contains(&status) || !self.core.settings.proxy.record_route {
            return;
        }
        if let (Some(tag), Some(contact)) = (message.to_tag(), contact(message)) {
            let (now, facts) = (self.now, &mut self.core.facts);
            let moved = &self.core.location.moved;
            moved.note(now, message, tag, Kind::Target, contact, facts);
        }
    }
}

/// The offset of the cookie in a Record-Route value, if it has one.
fn cookie_in(value: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    loop {
        at += memchr::memchr(b';', value.get(at..)?)? + 1;
        let rest = value.get(at..)?;
        if let Some(text) = rest.strip_prefix(cookie::PARAM)
            && let Some(text) = text.strip_prefix(b"=")
        {
            let len = memchr::memchr2(b';', b'>', text).unwrap_or(text.len());
            let start = value.len() - text.len();
            return Some(start..start + len);
        }
    }
}

/// True if the request comes directly from its originator, without a proxy between.
fn is_first_hop(request: &Request) -> bool {
    // A proxy one hop further away leaves its Via; looking for it costs more than the other check.
    (request.flow.transport.is_reliable() || !names_source(request)) && request.message.values(Name::Via).nth(1).is_none()
}

/// True if the sender cannot be reached by the address that it gives: it came by a connection, or from behind a NAT.
fn needs_flow(request: &Request) -> bool {
    if request.flow.transport.is_reliable() {
        return true;
    }
    // A client that does not ask for answers on the request's flow need not listen there (RFC 3581 §3).
    if request.via.rport().is_none() {
        return false;
    }
    let contact = request.message.values(Name::Contact).next();
    let contact = contact.and_then(|value| NameAddr::parse(value.text).ok());
    let Some(uri) = contact.and_then(|contact| Uri::parse(contact.uri).ok()) else {
        return false;
    };
    // A public address of a host with several is reached as any other: following the source instead would hand the dialog to
    // whoever replays a stranger's request. The same goes for a client that knows, and gives, the address that the NAT assigned to
    // it.
    let port = uri.port.unwrap_or(Transport::Udp.default_port());
    match uri.host.ip() {
        Some(ip) => is_private(ip) && SocketAddr::new(ip, port) != request.flow.peer,
        None => true,
    }
}

/// True if the topmost Via names the address from which the request came.
fn names_source(request: &Request) -> bool {
    let (via, peer) = (&request.via, request.flow.peer);
    via.host.ip() == Some(peer.ip()) && via.port.unwrap_or(5060) == peer.port()
}
