//! The one step that prepares a message for its next hop (RFC 3261 §16.6 steps 2 to 9, §16.7 steps 3 and 9): the received bytes with edits. It
//! is the same for every pass: the first copy, the next branch, the next target, after a wait, in a dialog, an ACK, without state.

use super::next_hop::{Hop, first_route, first_value_len};
use super::withhold::has_secrets;
use crate::base::hash::write_decimal;
use crate::base::{Flow, Outbox, Span, Transport};
use crate::sip::{Message, Method, Name, NameAddr, Rewrite, Uri, fill_received};
use crate::stack::Endpoint;
use crate::stack::branch::Mark;
use crate::stack::identity::Dialog;
use crate::stack::passage::{Passed, Proof};
use crate::stack::request::Request;
use crate::stack::settings::Mode;
use crate::stack::token::Side;

/// The parameter of our own Via that keeps the port from which the request came over a stream, where the Via below has no `rport` to keep it:
/// only who asks gets it back there (RFC 3581 §4). No check covers it. It says which of the connections from the Via's address takes a response
/// that has no transaction any more, and nothing else.
const SOURCE_PORT: &[u8] = b"sp";

impl Endpoint {
    /// The request as [`Endpoint::edit`] has changed it, to its next hop.
    pub(in crate::stack) fn send_copy(&mut self, message: &Message, hop: &Hop, outbox: &mut Outbox) -> Span {
        self.introduce(hop, outbox);
        let rewrite = &mut self.rewrite;
        outbox.send(hop.flow, |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        })
    }

    /// Steps 2 to 9, and what must not leave: the edits that make the forwarded request, into the rewriter.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::stack) fn edit(
        &mut self,
        message: &Message,
        incoming: &Request,
        uri: &[u8],
        path: &[u8],
        hop: &Hop,
        breadth: u32,
        write_branch: impl FnOnce(&mut Vec<u8>),
    ) {
        let flow = hop.flow;
        let uri = without_headers(uri);
        let rewrite = &mut self.rewrite;
        rewrite.clear();
        if message.start() > 0 {
            rewrite.remove(0..message.start());
        }
        // Step 6 looks ahead: a strict router as next hop takes the Request-URI, and the real one goes last.
        let strict = first_route(incoming, path).filter(|route| !is_loose(route));
        let head = incoming.via.value.header.line.start as usize;
        // Record-Route and Route must stand above those that came, which may stand above the Via.
        let top = message.headers_start();

        // Step 2: the Request-URI.
        let new_uri = match strict {
            Some(route) => NameAddr::parse(route).map_or(route, |address| address.uri),
            None => uri,
        };
        if new_uri != message.request_uri() {
            rewrite.replace(message.request_uri_range(), |out| {
                out.extend_from_slice(new_uri);
            });
        }
        if let Some(version) = message.unusual_version() {
            rewrite.replace(version, |out| out.extend_from_slice(b"SIP/2.0"));
        }

        // Step 8: our Via on top, and what RFC 3581 §4 wants to be known of the one below.
        let listener = self.settings.listeners.get(usize::from(flow.listener));
        rewrite.insert(head, |out| {
            out.extend_from_slice(b"Via: SIP/2.0/");
            out.extend_from_slice(flow.transport.name().as_bytes());
            out.push(b' ');
            out.extend_from_slice(listener.map_or(&[][..], |listener| &listener.advertise));
            // The branch first: it then stands at the same place in every response, whatever the peer makes of `rport`.
            out.extend_from_slice(b";branch=");
            write_branch(out);
            out.extend_from_slice(b";rport");
            if incoming.flow.transport.is_reliable() && incoming.via.rport().is_none() {
                out.push(b';');
                out.extend_from_slice(SOURCE_PORT);
                out.push(b'=');
                write_decimal(u64::from(incoming.flow.peer.port()), out);
            }
            out.extend_from_slice(b"\r\n");
        });
        fill_received(&incoming.via, incoming.flow.peer, rewrite);

        // Step 4.
        if self.settings.proxy.record_route && opens_dialog(message.method()) {
            self.record_route(message, incoming, uri, path, hop);
        }
        let rewrite = &mut self.rewrite;

        // §16.4 and step 6: Route values that named us go; those of the binding's Path come.
        for value in message.values(Name::Route).take(incoming.own_routes) {
            rewrite.remove_value(&value);
        }
        if incoming.from_strict_router
            && let Some(value) = message.values(Name::Route).last()
        {
            rewrite.remove_value(&value);
        }
        let mut path = path;
        if strict.is_some() {
            match path.is_empty() {
                true => {
                    if let Some(value) = incoming.next_route {
                        rewrite.remove_value(&value);
                    }
                }
                false => path = after_first_value(path),
            }
        }
        if !path.is_empty() {
            rewrite.insert(top, |out| {
                out.extend_from_slice(b"Route: ");
                out.extend_from_slice(path);
                out.extend_from_slice(b"\r\n");
            });
        }
        if strict.is_some() {
            rewrite.insert(message.headers_end(), |out| {
                out.extend_from_slice(b"Route: <");
                out.extend_from_slice(uri);
                out.extend_from_slice(b">\r\n");
            });
        }

        // Step 3: Max-Forwards, and Max-Breadth (RFC 5393 §5.3.3).
        number_line(
            rewrite,
            message,
            Name::MaxForwards,
            head,
            match message.max_forwards() {
                Ok(Some(hops)) => u32::from(hops.saturating_sub(1)),
                _ => 70,
            },
        );
        number_line(rewrite, message, Name::MaxBreadth, head, breadth);

        // Step 9, and what stays here.
        add_length(rewrite, message, flow.transport);
        if has_secrets(message) {
            self.withhold(message, &incoming.flow, &flow);
        }
    }

    /// A response without our Via, for the one that it goes to (§16.7 steps 3 and 9), into the rewriter. `source` is where it came from.
    /// Lines that nobody can read go, and the SIP-Version is written as §7.1 wants it sent.
    pub(in crate::stack) fn edit_response(&mut self, message: &Message, source: &Flow, receiver: &Flow) {
        let rewrite = &mut self.rewrite;
        rewrite.clear();
        if message.start() > 0 {
            rewrite.remove(0..message.start());
        }
        if let Some(version) = message.unusual_version() {
            rewrite.replace(version, |out| out.extend_from_slice(b"SIP/2.0"));
        }
        if let Ok(top) = message.top_via_value() {
            rewrite.remove_value(&top);
        }
        for line in message.unread_lines() {
            rewrite.remove(line);
        }
        add_length(rewrite, message, receiver.transport);
        self.hand_over_route(message, source.peer);
        if has_secrets(message) {
            self.withhold(message, source, receiver);
        }
    }

    /// Works out what our Via will say of the request, in every copy of it.
    pub(in crate::stack) fn mark(&mut self, message: &Message, incoming: &mut Request) {
        let proof = match (self.settings.proxy.mode, incoming.proof) {
            (Mode::Stateless, _) => Proof::Shared,
            // A dialog is shown anew on each pass; of another mode's passage nothing is known.
            (Mode::Stateful, Proof::Shared | Proof::Dialog) => Proof::None,
            (Mode::Stateful, proof) => proof,
        };
        // Within a dialog only credentials are worth remembering: nothing else is refused what has passed.
        let passage = match proof == Proof::None && message.to_tag().is_some() {
            true => 0,
            false => self.passage(message, incoming, proof),
        };
        incoming.mark = Mark {
            loop_hash: self.loop_hash(incoming.flow, message),
            passage,
        };
    }

    fn passage(&mut self, message: &Message, incoming: &mut Request, proof: Proof) -> u64 {
        let dialog = match incoming.shown {
            Some(shown) => shown.dialog,
            None => self.opening(message, incoming),
        };
        let named = proof != Proof::Shared && self.is_for_whom_it_names(message, incoming);
        let passed = Passed { proof, named };
        let wall_ms = self.wall_ms + self.now.as_ms();
        self.passages.of(message, dialog.whole, passed, wall_ms)
    }

    /// What the request is known by as one of whoever opens a dialog.
    pub(in crate::stack) fn opening(&mut self, message: &Message, incoming: &mut Request) -> Dialog {
        let (identity, facts) = (self.identity, &mut self.facts);
        let find = || identity.dialog(message, Side::Caller, facts);
        *incoming.opening.get_or_insert_with(find)
    }

    /// The hash over all that decides the way: of the source too, where a route asks for it.
    pub(in crate::stack) fn loop_hash(&self, flow: Flow, message: &Message) -> u32 {
        let source = self.settings.routes.look_at_source();
        self.identity.loop_hash(message, source.then(|| flow.peer.ip()))
    }

    /// Max-Breadth of the request: what it says, at most our own maximum, which is also the default.
    pub(in crate::stack) fn incoming_breadth(&self, message: &Message) -> u32 {
        let maximum = self.settings.proxy.max_breadth;
        match message.number(Name::MaxBreadth) {
            Ok(Some(breadth)) => breadth.min(maximum),
            _ => maximum,
        }
    }
}

/// Requests that may open a dialog or refresh its target.
fn opens_dialog(method: Method) -> bool {
    matches!(
        method,
        Method::Invite | Method::Subscribe | Method::Notify | Method::Refer | Method::Update | Method::Other
    )
}

fn after_first_value(list: &[u8]) -> &[u8] {
    list.get(first_value_len(list) + 1..).unwrap_or_default().trim_ascii_start()
}

/// A contact may carry header fields, a Request-URI may not (§16.6 step 2, §19.1.1 table 1).
fn without_headers(uri: &[u8]) -> &[u8] {
    if memchr::memchr(b'?', uri).is_none() {
        return uri;
    }
    match Uri::parse(uri).map(|uri| uri.headers) {
        Ok(Some(headers)) => &uri[..uri.len() - headers.len() - 1],
        _ => uri,
    }
}

fn is_loose(route: &[u8]) -> bool {
    NameAddr::parse(route)
        .and_then(|address| Uri::parse(address.uri))
        .is_ok_and(|uri| uri.is_loose())
}

/// Replaces the number of a header line, or adds the line. There may be one (§7.3.1): what else has the name goes.
fn number_line(rewrite: &mut Rewrite, message: &Message, name: Name, head: usize, number: u32) {
    let mut lines = message.all(name);
    match lines.next() {
        Some(header) => {
            rewrite.replace(header.value_span.range(), |out| {
                write_decimal(u64::from(number), out);
            });
            lines.for_each(|more| rewrite.remove(more.line.range()));
        }
        None => rewrite.insert(head, |out| {
            out.extend_from_slice(name.canonical().as_bytes());
            out.extend_from_slice(b": ");
            write_decimal(u64::from(number), out);
            out.extend_from_slice(b"\r\n");
        }),
    }
}

/// Over a stream a message says how long its body is (§16.6 step 9, §18.3, §20.14); what came as a datagram need not have said so.
fn add_length(rewrite: &mut Rewrite, message: &Message, transport: Transport) {
    if !transport.is_reliable() || message.has(Name::ContentLength) {
        return;
    }
    rewrite.insert(message.headers_end(), |out| {
        out.extend_from_slice(b"Content-Length: ");
        write_decimal(message.body().len() as u64, out);
        out.extend_from_slice(b"\r\n");
    });
}

/// The port from which the request of this response came over a stream, where our own Via has kept it.
pub(super) fn source_port(message: &Message) -> Option<u16> {
    let via = message.top_via().ok()?;
    let port = std::str::from_utf8(via.params.get(SOURCE_PORT)??).ok()?;
    port.parse().ok().filter(|port| *port != 0)
}
