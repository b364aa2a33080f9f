//! Our Record-Route (RFC 3261 §16.6 step 4): two of them where the sides differ (RFC 5658 §3), SIPS where the request is (RFC 5630),
//! and the flow token in it (RFC 5626 §5.3).

use super::next_hop::{Hop, first_route, is_per_call};
use super::request::MAX_OWN_ROUTES;
use crate::base::{Channel, Instant, Transport};
use crate::sip::{Message, Method, Name, NameAddr, Uri};
use crate::stack::Endpoint;
use crate::stack::cookie::{self, Draft, Holder, Recorded, Target, Verdict};
use crate::stack::facts::contact;
use crate::stack::hop_uri::is_sips;
use crate::stack::identity::Dialog as Call;
use crate::stack::moved::{Kind, Known};
use crate::stack::passage::Proof;
use crate::stack::request::{DialogRoute, Request};
use crate::stack::source_proof::is_private;
use crate::stack::token::{self, Side};
use std::net::SocketAddr;
use std::ops::Range;

impl Endpoint {
    /// Step 4, into the rewriter. `uri` and `path` are the Request-URI and the Route that the copy will have.
    pub(in crate::stack) fn record_route(&mut self, message: &Message, incoming: &Request, uri: &[u8], path: &[u8], hop: &Hop) {
        let dialog = match incoming.opening {
            Some(dialog) => dialog,
            None => self.identity.dialog(message, Side::Caller, &mut self.facts),
        };
        let beyond = self.recorded_below(message);
        let holder = self.holder(message, incoming, hop);
        let split = self.write_token(message, incoming, hop);
        let (out, back) = (hop.flow.listener, incoming.flow.listener);
        // Above those that came, which may stand above the Via.
        let top = message.headers_start();
        let (rewrite, cookies, facts) = (&mut self.rewrite, self.cookies, &mut self.facts);
        let target = match contact(message) {
            Some(contact) => Target::At(contact),
            None => Target::Anywhere,
        };
        let sips = is_sips(uri)
            || first_route(incoming, path)
                .and_then(|route| NameAddr::parse(route).ok())
                .is_some_and(|route| is_sips(route.uri));
        let mut record = |listener: u16, token: &[u8]| {
            let Some(listener) = self.settings.listeners.get(listener as usize) else {
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
                let draft = Draft {
                    target,
                    route: beyond,
                    token,
                };
                cookies.write_callees(message, &dialog, holder, &draft, facts, out);
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

    /// The flow token of this request's Record-Route, into `self.token`: how to reach the caller, who may have come from behind a
    /// NAT or by a connection, and the phone that has opened the way on which it is called. Where the second part begins.
    fn write_token(&mut self, message: &Message, incoming: &Request, hop: &Hop) -> usize {
        let token = &mut self.token;
        token.clear();
        if is_first_hop(message, incoming) && needs_flow(message, incoming) {
            token::write(Side::Caller, &incoming.flow, token);
        }
        let split = token.len();
        if hop.fixed {
            token::write(Side::Callee, &hop.flow, token);
        }
        if is_per_call(&hop.flow) {
            token::write_per_call(token);
        }
        if let Channel::Peer { name, .. } = hop.flow.channel
            && name != 0
            && self.shares_address(hop.flow.peer)
        {
            token::write_name(name, &mut self.token);
        }
        if self.settings.guards() && self.is_guarded_dialog(incoming, hop.flow.peer) {
            token::write_guarded(&mut self.token);
        }
        if self.has_an_end_here(incoming, hop.flow.peer) {
            token::write_here(&mut self.token);
        }
        split
    }

    /// Who may use the callee's cookie: the name in To is the caller's word, and no proof that it belongs to whoever gets the request. A next hop
    /// of the conf answers for the names that it is called by.
    fn holder<'a>(&self, message: &Message, incoming: &Request<'a>, hop: &Hop) -> Holder<'a> {
        let Ok(to) = message.to() else {
            return Holder::Named;
        };
        if let Some(shown) = incoming.shown.filter(|_| incoming.trusted) {
            return match self.cookies.names_both(&shown) {
                true => Holder::Named,
                false => Holder::Unknown,
            };
        }
        if hop.by_conf || self.is_for_whom_it_names(message, incoming) {
            return Holder::Named;
        }
        let Ok(to) = Uri::parse(to.uri) else {
            return Holder::Named;
        };
        if self.settings.whose(&to).is_none() {
            return Holder::Named;
        }
        // By the name of a user with a password nobody else goes but who was asked for by that user: its calls are forwarded.
        let is_forwarded = incoming.passed.is_some_and(|passed| passed.named);
        match is_forwarded || !self.has_password(&to) {
            true => Holder::Called(incoming.uri),
            false => Holder::Unknown,
        }
    }

    /// Whether the Request-URI is for the one whom To names.
    pub(super) fn is_for_whom_it_names(&self, message: &Message, incoming: &Request) -> bool {
        let Ok(to) = message.to() else {
            return false;
        };
        to.uri == incoming.uri || Uri::parse(to.uri).is_ok_and(|to| self.settings.is_same_address(&incoming.parsed, &to))
    }

    /// The Record-Route of the proxy that the callee's requests go to behind us.
    fn recorded_below<'a>(&self, message: &Message<'a>) -> Option<&'a [u8]> {
        let values = message.values(Name::RecordRoute).take(MAX_OWN_ROUTES);
        let mut uris = values.filter_map(|value| Some(NameAddr::parse(value.text).ok()?.uri));
        uris.find(|uri| !Uri::parse(uri).is_ok_and(|uri| self.is_own_uri(&uri)))
    }

    // ---- the response: the caller gets a cookie of its own ---------------------------------------------------------------

    /// §16.7 step 8: what we have recorded is rewritten for the caller, into the rewriter, where the response makes a dialog or goes on
    /// in one. Whatever does not bear the check of this dialog stays as it is.
    pub(in crate::stack) fn hand_over_route(&mut self, message: &Message, source: SocketAddr) {
        let status = message.status();
        if !(101..300).contains(&status) || message.header(Name::RecordRoute).is_none() || message.to_tag().is_none() {
            if (200..300).contains(&status) && message.method() == Method::Invite {
                let dialog = self.dialog_of_answer(message);
                self.note_accepted(&dialog, source);
            }
            return self.note_answer(message, status);
        }
        let dialog = self.dialog_of_answer(message);
        if status >= 200 {
            self.note_accepted(&dialog, source);
        }
        let (cookies, facts) = (self.cookies, &mut self.facts);
        let contact = contact(message);
        let is_invite = message.method() == Method::Invite;
        let mut beyond = None;
        let mut is_within = true;
        for value in message.values(Name::RecordRoute) {
            let found = cookie_in(value.text);
            let cookie = found.clone().and_then(|range| value.text.get(range));
            let read = |text| cookies.read_callees(message, &dialog, text);
            let (Some(found), Some(callees)) = (found, cookie.and_then(read)) else {
                beyond = NameAddr::parse(value.text).ok().map(|address| address.uri);
                continue;
            };
            is_within &= callees.is_within();
            let target = match contact {
                Some(contact) => Target::At(contact),
                None if status >= 200 && (is_invite || !callees.is_within()) => Target::Anywhere,
                None => Target::Nowhere,
            };
            let draft = Draft {
                target,
                route: beyond,
                token: callees.token(),
            };
            let start = value.span.start as usize;
            self.rewrite.replace(start + found.start..start + found.end, |out| {
                cookies.write_callers(message, &callees, &dialog, &draft, facts, out);
            });
        }
        if is_within {
            self.note_answer(message, status);
        }
    }

    fn note_accepted(&mut self, dialog: &Call, source: SocketAddr) {
        self.transactions.accepted.note(accepted(dialog));
        if self.settings.guards() && self.is_guarded_place(source) {
            self.transactions.accepted.note(!accepted(dialog));
        }
    }

    /// Whether an ACK is for a call that was answered here of late by a next hop for our users only.
    pub(in crate::stack) fn was_accepted_there(&mut self, message: &Message) -> bool {
        let dialog = self.identity.dialog(message, Side::Caller, &mut self.facts);
        self.transactions.accepted.knows(!accepted(&dialog))
    }

    /// Whether an ACK without a route of ours is for a call that was answered here of late: some callees give none back, and some callers
    /// leave it out.
    pub(in crate::stack) fn was_accepted(&mut self, message: &Message) -> bool {
        let dialog = self.identity.dialog(message, Side::Caller, &mut self.facts);
        self.transactions.accepted.knows(accepted(&dialog))
    }

    /// What the response has in common with the request that it answers, where that is remembered, or says itself.
    fn dialog_of_answer(&mut self, message: &Message) -> Call {
        let (identity, facts) = (self.identity, &mut self.facts);
        let find = || identity.dialog(message, Side::Caller, facts);
        self.answered.unwrap_or_else(find)
    }

    /// A response within a dialog says where its sender wants to be reached from now on.
    fn note_answer(&mut self, message: &Message, status: u16) {
        if !refreshes_target(message.method()) || !(200..300).contains(&status) || !self.settings.proxy.record_route {
            return;
        }
        if let (Some(tag), Some(contact)) = (message.to_tag(), contact(message)) {
            let (now, facts) = (self.now, &mut self.facts);
            let moved = &self.location.moved;
            moved.note(now, message, tag, Kind::Target, contact, facts);
        }
    }

    // ---- the request within a dialog -------------------------------------------------------------------------------------

    /// What the cookie is worth that one of our own URIs shows.
    pub(in crate::stack) fn read_cookie<'a>(&mut self, message: &Message, uri: &Uri<'a>) -> Verdict<'a> {
        match uri.param(cookie::PARAM).flatten() {
            Some(text) => {
                let (identity, facts) = (&self.identity, &mut self.facts);
                self.cookies.check(identity, message, text, facts)
            }
            None => Verdict::Foreign,
        }
    }

    /// The request belongs to a dialog that we let pass. Whether it goes where the other side is, and whether its sender bears the name that
    /// it had, is in the cookie, or was noted since.
    pub(in crate::stack) fn judge_dialog<'a>(&mut self, message: &Message, recorded: &Recorded<'a>, incoming: &mut Request<'a>) {
        incoming.shown = Some(*recorded);
        // Of what has changed in a dialog that another run has begun, nothing may be known: then at least it can be ended.
        let ends = matches!(message.method(), Method::Bye | Method::Ack);
        let is_lost = ends && !recorded.is_other_sides && !self.cookies.is_of_this_run(recorded);
        let from = message.from().map_or(&[][..], |from| from.uri);
        let from_tag = message.from_tag().unwrap_or_default();
        let (cookies, facts) = (self.cookies, &mut self.facts);
        let (now, moved) = (self.now, &self.location.moved);
        if !cookies.is_named(recorded, from, facts) && !is_lost {
            let known = moved.knows(now, message, from_tag, Kind::Name, from, facts);
            incoming.renamed = known == Known::No || (known == Known::Perhaps && !ends);
        }
        let route = incoming.next_route;
        let route = route.and_then(|value| Some(NameAddr::parse(value.text).ok()?.uri));
        incoming.dialog.is_named = cookies.names_both(recorded);
        let goes_by = ends || cookies.goes_by(recorded, route, facts);
        let leads_to = is_lost || cookies.leads_to(recorded, incoming.uri, facts) || {
            let tag = message.to_tag().unwrap_or_default();
            let known = moved.knows(now, message, tag, Kind::Target, incoming.uri, facts);
            known == Known::Yes || (known == Known::Perhaps && ends)
        };
        incoming.trusted = goes_by && (leads_to || self.is_contact_of_callee(message, incoming));
        incoming.stranded = !incoming.trusted;
        if incoming.trusted && !incoming.renamed {
            incoming.proof = Proof::Dialog;
        }
    }

    /// The other side is one of our users, and has registered this contact: whoever may call the user may reach it. The way there is known
    /// by that, too.
    fn is_contact_of_callee(&mut self, message: &Message, incoming: &mut Request) -> bool {
        let callee = self.find_callee(message, incoming);
        incoming.dialog.flow = callee.flow;
        incoming.dialog.is_current = true;
        callee.is_contact
    }

    /// A request within a dialog says where its sender wants to be reached from now on, and by what name.
    pub(in crate::stack) fn note_refresh(&mut self, now: Instant, message: &Message, incoming: &Request) {
        if !incoming.trusted {
            return;
        }
        let (Some(tag), Ok(from)) = (message.from_tag(), message.from()) else {
            return;
        };
        let (moved, facts) = (&self.location.moved, &mut self.facts);
        // A BYE has not been asked to prove it.
        if incoming.renamed && message.method() != Method::Bye {
            moved.note(now, message, tag, Kind::Name, from.uri, facts);
        }
        if refreshes_target(message.method())
            && let Some(contact) = contact(message)
        {
            moved.note(now, message, tag, Kind::Target, contact, facts);
        }
    }

    /// What one of our Record-Routes says of the way to the receiver. Each of two says it of its own side (RFC 5658 §3).
    pub(in crate::stack) fn read_token(&self, recorded: &Recorded, dialog: &mut DialogRoute) {
        if recorded.towards == Side::Callee {
            let per_call = dialog.per_call.unwrap_or_default();
            dialog.per_call = Some(per_call || token::is_per_call(recorded.token));
            dialog.name = dialog.name.or_else(|| token::read_name(recorded.token));
        }
        if recorded.token.is_empty() {
            return;
        }
        dialog.guarded |= token::is_guarded(recorded.token);
        dialog.is_here |= token::is_here(recorded.token);
        if dialog.flow.is_none() {
            dialog.flow = token::read(recorded.towards, recorded.token);
        }
        if dialog.sender.is_none() {
            dialog.sender = token::read(recorded.towards.other(), recorded.token);
        }
    }
}

/// What a call is remembered by until its ACK has come.
fn accepted(dialog: &Call) -> u128 {
    u128::from(dialog.whole) << 64 | u128::from(dialog.call)
}

/// Requests that say anew where their sender is to be reached (RFC 3261 §12.2, RFC 3311, RFC 6665).
fn refreshes_target(method: Method) -> bool {
    matches!(
        method,
        Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer
    )
}

/// Where the cookie stands in a Record-Route value, if it has one.
fn cookie_in(value: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    loop {
        at += memchr::memchr(b';', value.get(at..)?)? + 1;
        let rest = value.get(at..)?;
        if let Some(text) = rest.strip_prefix(cookie::PARAM)
            && let Some(text) = text.strip_prefix(b"=")
        {
            let len = text.iter().take_while(|b| b.is_ascii_alphanumeric());
            let start = value.len() - text.len();
            return Some(start..start + len.count());
        }
    }
}

/// True when the request comes from where it was made: no proxy has touched it.
fn is_first_hop(message: &Message, incoming: &Request) -> bool {
    // A proxy that is one more hop away leaves its Via; looking for it costs more than the other question.
    (incoming.flow.transport.is_reliable() || !names_source(incoming)) && message.values(Name::Via).nth(1).is_none()
}

/// True when the sender cannot be reached by what it says of itself: it came by a connection, or from behind a NAT.
fn needs_flow(message: &Message, incoming: &Request) -> bool {
    if incoming.flow.transport.is_reliable() {
        return true;
    }
    // Who does not ask for answers by the way of the request need not listen there (RFC 3581 §3).
    if incoming.via.rport().is_none() {
        return false;
    }
    let contact = message.values(Name::Contact).next();
    let contact = contact.and_then(|value| NameAddr::parse(value.text).ok());
    let Some(uri) = contact.and_then(|contact| Uri::parse(contact.uri).ok()) else {
        return false;
    };
    // A public address of a host with several is reached as any other: to follow the source instead would hand the dialog to
    // whoever repeats a stranger's request. So is who knows the address that the NAT gives, and says so.
    let port = uri.port.unwrap_or(Transport::Udp.default_port());
    match uri.host.ip() {
        Some(ip) => is_private(ip) && SocketAddr::new(ip, port) != incoming.flow.peer,
        None => true,
    }
}

/// True when the topmost Via names the address from which the request came.
fn names_source(incoming: &Request) -> bool {
    let (via, peer) = (&incoming.via, incoming.flow.peer);
    via.host.ip() == Some(peer.ip()) && via.port.unwrap_or(5060) == peer.port()
}
