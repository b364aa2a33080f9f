//! What is known of the dialog that a request belongs to: by the cookie and the flow token of our Record-Route in its Route, and by what was noted.

use crate::sip::{Message, Method, NameAddr, Uri};
use crate::stack::cookie::{self, Recorded, Verdict};
use crate::stack::core::Core;
use crate::stack::facts::contact;
use crate::stack::identity::Dialog as Call;
use crate::stack::moved::{Kind, Known};
use crate::stack::passage::Proof;
use crate::stack::request::{DialogRoute, Request};
use crate::stack::token::{self, Side};
use crate::stack::turn::Turn;

impl Core {
    /// What the cookie is worth that one of our own URIs shows.
    pub fn read_cookie<'a>(&mut self, message: &Message, uri: &Uri<'a>) -> Verdict<'a> {
        match uri.param(cookie::PARAM).flatten() {
            Some(text) => {
                let (identity, facts) = (&self.identity, &mut self.facts);
                self.cookies.check(identity, message, text, facts)
            }
            None => Verdict::Foreign,
        }
    }
}

impl Turn<'_> {
    /// The request belongs to a dialog that we let pass. Whether it goes where the other side is, and whether its sender bears the name that
    /// it had, is in the cookie, or was noted since.
    pub fn judge_dialog<'a>(&mut self, recorded: &Recorded<'a>, request: &mut Request<'a>) {
        request.shown = Some(*recorded);
        // Of what has changed in a dialog that another run has begun, nothing may be known: then at least it can be ended.
        let ends = matches!(request.message.method(), Method::Bye | Method::Ack);
        let is_lost = ends && !recorded.is_other_sides && !self.core.cookies.is_of_this_run(recorded);
        let from = request.message.from().map_or(&[][..], |from| from.uri);
        let from_tag = request.message.from_tag().unwrap_or_default();
        let (cookies, facts) = (self.core.cookies, &mut self.core.facts);
        let (now, moved) = (self.now, &self.core.location.moved);
        if !cookies.is_named(recorded, from, facts) && !is_lost {
            let known = moved.knows(now, &request.message, from_tag, Kind::Name, from, facts);
            request.renamed = known == Known::No || (known == Known::Perhaps && !ends);
        }
        let route = request.next_route;
        let route = route.and_then(|value| Some(NameAddr::parse(value.text).ok()?.uri));
        request.dialog.is_named = cookies.names_both(recorded);
        let goes_by = ends || cookies.goes_by(recorded, route, facts);
        let leads_to = is_lost || cookies.leads_to(recorded, request.uri, facts) || {
            let tag = request.message.to_tag().unwrap_or_default();
            let known = moved.knows(now, &request.message, tag, Kind::Target, request.uri, facts);
            known == Known::Yes || (known == Known::Perhaps && ends)
        };
        request.trusted = goes_by && (leads_to || self.is_contact_of_callee(request));
        request.stranded = !request.trusted;
        if request.trusted && !request.renamed {
            request.proof = Proof::Dialog;
        }
    }

    /// The other side is one of our users, and has registered this contact: whoever may call the user may reach it. The way there is known
    /// by that, too.
    fn is_contact_of_callee(&mut self, request: &mut Request) -> bool {
        let callee = self.find_callee(request);
        request.dialog.flow = callee.flow;
        request.dialog.is_current = true;
        callee.is_contact
    }

    /// A request within a dialog says where its sender wants to be reached from now on, and by what name.
    pub fn note_refresh(&mut self, request: &Request) {
        if !request.trusted {
            return;
        }
        let (Some(tag), Ok(from)) = (request.message.from_tag(), request.message.from()) else {
            return;
        };
        let (moved, facts) = (&self.core.location.moved, &mut self.core.facts);
        // A BYE has not been asked to prove it.
        if request.renamed && request.message.method() != Method::Bye {
            moved.note(self.now, &request.message, tag, Kind::Name, from.uri, facts);
        }
        if refreshes_target(request.message.method())
            && let Some(contact) = contact(&request.message)
        {
            moved.note(self.now, &request.message, tag, Kind::Target, contact, facts);
        }
    }

    /// What one of our Record-Routes says of the way to the receiver. Each of two says it of its own side (RFC 5658 §3).
    pub fn read_token(&self, recorded: &Recorded, dialog: &mut DialogRoute) {
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

    /// Whether an ACK is for a call that was answered here of late by a next hop for our users only.
    pub fn was_accepted_there(&mut self, message: &Message) -> bool {
        let dialog = self.core.identity.dialog(message, Side::Caller, &mut self.core.facts);
        self.transactions.accepted.knows(!accepted(&dialog))
    }

    /// Whether an ACK without a route of ours is for a call that was answered here of late: some callees give none back, and some callers
    /// leave it out.
    pub fn was_accepted(&mut self, message: &Message) -> bool {
        let dialog = self.core.identity.dialog(message, Side::Caller, &mut self.core.facts);
        self.transactions.accepted.knows(accepted(&dialog))
    }
}

/// What a call is remembered by until its ACK has come.
pub(in crate::stack) fn accepted(dialog: &Call) -> u128 {
    u128::from(dialog.whole) << 64 | u128::from(dialog.call)
}

/// Requests that say anew where their sender is to be reached (RFC 3261 §12.2, RFC 3311, RFC 6665).
pub(in crate::stack) fn refreshes_target(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}
