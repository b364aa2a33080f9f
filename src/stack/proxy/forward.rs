//! The one step that prepares a message for its next hop (RFC 3261 §16.6 steps 2 to 9, §16.7 steps 3 and 9): the received bytes
//! with edits. It is the same for every pass: the first copy, the next branch, the next target, after a wait, in a dialog, an ACK,
//! without state.

use crate::base::hash::write_decimal;
use crate::base::{Flow, Span, Transport};
use crate::sip::{Message, Method, Name, NameAddr, Rewrite, Uri, Via, fill_feedback, fill_received};
use crate::stack::branch::Mark;
use crate::stack::passage::{Passed, Proof};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::{Hop, RequestCopy, first_value_len};
use crate::stack::proxy::withhold::has_secrets;
use crate::stack::request::Request;
use crate::stack::route::Edits;
use crate::stack::settings::Mode;
use crate::stack::turn::Turn;

/// The parameter of our own Via that keeps the port from which the request came over a stream, if the Via below has no `rport` to
/// keep it: only a sender that asks for `rport` gets it back there (RFC 3581 §4). No check covers it. It only selects which
/// connection from the Via's address takes a response that has no transaction any more.
const SOURCE_PORT: &[u8] = b"sp";

impl Proxy {
    /// Writes the copy, as its next hop gets it, into the outbox.
    pub fn send_copy(
        &mut self,
        turn: &mut Turn,
        request: &Request,
        copy: &RequestCopy,
        hop: &Hop,
        write_branch: impl FnOnce(&mut Vec<u8>),
    ) -> Span {
        self.edit(turn, request, copy, hop, write_branch);
        self.introduce(turn, hop);
        let (message, rewrite) = (&request.message, &mut self.rewrite);
        turn.outbox.send(hop.flow, |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        })
    }

    /// Steps 2 to 9, and what must be withheld: puts the edits that make the forwarded request into the rewriter.
    fn edit(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy, hop: &Hop, write_branch: impl FnOnce(&mut Vec<u8>)) {
        let message = &request.message;
        let rewrite = &mut self.rewrite;
        rewrite.clear();
        if message.start() > 0 {
            rewrite.remove(0..message.start());
        }
        let uri = without_headers(copy.uri);
        // Step 6 looks ahead: a strict router as next hop takes the Request-URI, and the real one goes last.
        let strict = copy.first_route(request).filter(|route| !is_loose(route));

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

        // Step 8: our Via on top, and what RFC 3581 §4 records in the one below.
        let head = request.via.value.header.line.start as usize;
        let listener = turn.core.settings.listeners.get(usize::from(hop.flow.listener));
        let advertised = listener.map_or(&[][..], |listener| &listener.advertise);
        rewrite.insert(head, |out| write_via(request, hop.flow.transport, advertised, write_branch, out));
        fill_received(&request.via, request.flow.peer, rewrite);

        // Step 4.
        if turn.core.settings.proxy.record_route && opens_dialog(message.method()) {
            self.record_route(turn, request, copy, hop);
        }
        let rewrite = &mut self.rewrite;
        edit_route(rewrite, request, copy, strict.is_some(), uri);

        // Step 3: Max-Forwards, and Max-Breadth (RFC 5393 §5.3.3).
        let left = match message.max_forwards() {
            Ok(Some(hops)) => u32::from(hops.saturating_sub(1)),
            _ => 70,
        };
        number_line(rewrite, message, Name::MaxForwards, head, left);
        number_line(rewrite, message, Name::MaxBreadth, head, copy.breadth);

        if let Some(edits) = copy.edits {
            edit_headers(rewrite, message, edits);
        }

        // Step 9, and what is withheld.
        add_length(rewrite, message, hop.flow.transport);
        if has_secrets(message) {
            self.withhold(turn, message, &request.flow, &hop.flow);
        }
        if !copy.credentials.is_empty() {
            self.rewrite.insert(message.headers_end(), |out| out.extend_from_slice(copy.credentials));
        }
        if !copy.asserted.is_empty() {
            self.assert(turn, message, copy.asserted, &request.flow, &hop.flow);
        }
    }

    /// Writes the overload status into the Via below ours of the response in the rewriter.
    pub fn notify_load(&mut self, turn: &mut Turn, message: &Message) {
        let below = message.values(Name::Via).nth(1);
        if let Some(via) = below.and_then(|value| Via::parse(value).ok()) {
            fill_feedback(&via, turn.feedback(), &mut self.rewrite);
        }
    }

    /// Puts into the rewriter a response without our Via, for its receiver (§16.7 steps 3 and 9). `source` is where it came from.
    /// Unreadable lines are removed, and the SIP-Version is written as §7.1 wants it sent.
    pub fn edit_response(&mut self, turn: &mut Turn, message: &Message, source: &Flow, receiver: &Flow) {
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
        self.hand_over_route(turn, message, source.peer);
        if has_secrets(message) {
            self.withhold(turn, message, source, receiver);
        }
    }
}

impl Turn<'_> {
    /// Works out what our Via says of the request, the same in every copy of it.
    pub fn mark(&mut self, request: &mut Request) {
        let proof = match (self.core.settings.proxy.mode, request.proof) {
            (Mode::Stateless, _) => Proof::Shared,
            // A dialog shows itself anew on each pass; of another mode's passage nothing is known.
            (Mode::Stateful, Proof::Shared | Proof::Dialog) => Proof::None,
            (Mode::Stateful, proof) => proof,
        };
        // Within a dialog only credentials are worth remembering: nothing else is refused to a request that has passed.
        let passage = match proof == Proof::None && request.message.to_tag().is_some() {
            true => 0,
            false => self.passage(request, proof),
        };
        let loop_hash = self.core.loop_hash(request.flow, &request.message);
        // The server that it is for, which has the same secret, sees it as it came here. That is no loop.
        let loop_hash = if request.node.is_some() { !loop_hash } else { loop_hash };
        request.mark = Mark { loop_hash, passage };
    }

    fn passage(&mut self, request: &mut Request, proof: Proof) -> u64 {
        let dialog = match request.shown {
            Some(shown) => shown.dialog,
            None => self.core.opening(request),
        };
        let named = proof != Proof::Shared && self.core.is_for_whom_it_names(request);
        let passed = Passed { proof, named };
        self.core.passages.of(&request.message, dialog.whole, passed, self.wall_ms())
    }
}

/// Writes our Via. The branch stands first: it is then at the same offset in every response, whatever the peer does with `rport`.
#[inline]
fn write_via(
    request: &Request,
    transport: Transport,
    advertised: &[u8],
    write_branch: impl FnOnce(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(transport.name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(advertised);
    out.extend_from_slice(b";branch=");
    write_branch(out);
    out.extend_from_slice(b";rport");
    if request.flow.transport.is_reliable() && request.via.rport().is_none() {
        out.push(b';');
        out.extend_from_slice(SOURCE_PORT);
        out.push(b'=');
        write_decimal(u64::from(request.flow.peer.port()), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// §16.4 and step 6: removes Route values that named us, and adds those of the binding's Path. With a strict router next
/// (`is_strict`) the first one has become the Request-URI, and `uri` goes last.
#[inline]
fn edit_route(rewrite: &mut Rewrite, request: &Request, copy: &RequestCopy, is_strict: bool, uri: &[u8]) {
    let message = &request.message;
    for value in message.values(Name::Route).take(request.own_routes) {
        rewrite.remove_value(&value);
    }
    if request.from_strict_router
        && let Some(value) = message.values(Name::Route).last()
    {
        rewrite.remove_value(&value);
    }
    let mut path = copy.path;
    if is_strict {
        match path.is_empty() {
            true => {
                if let Some(value) = request.next_route {
                    rewrite.remove_value(&value);
                }
            }
            false => path = after_first_value(path),
        }
    }
    if !path.is_empty() {
        // Above those of the request, which may be above the Via.
        rewrite.insert(message.headers_start(), |out| {
            out.extend_from_slice(b"Route: ");
            out.extend_from_slice(path);
            out.extend_from_slice(b"\r\n");
        });
    }
    if is_strict {
        rewrite.insert(message.headers_end(), |out| {
            out.extend_from_slice(b"Route: <");
            out.extend_from_slice(uri);
            out.extend_from_slice(b">\r\n");
        });
    }
}

/// What the route changes in header fields: those removed, and those appended after all others.
fn edit_headers(rewrite: &mut Rewrite, message: &Message, edits: &Edits) {
    if !edits.remove_header.is_empty() {
        for header in message.headers().filter(|header| edits.removes(header)) {
            rewrite.remove(header.line.range());
        }
    }
    rewrite.insert(message.headers_end(), |out| out.extend_from_slice(&edits.add_header));
}

/// Requests that may open a dialog or refresh its target.
fn opens_dialog(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Subscribe | Method::Notify | Method::Refer | Method::Update | Method::Other)
}

fn after_first_value(list: &[u8]) -> &[u8] {
    list.get(first_value_len(list) + 1..).unwrap_or_default().trim_ascii_start()
}

/// A contact may carry header fields, a Request-URI may not (§16.6 step 2, §19.1.1 table 1).
pub(super) fn without_headers(uri: &[u8]) -> &[u8] {
    if memchr::memchr(b'?', uri).is_none() {
        return uri;
    }
    match Uri::parse(uri).map(|uri| uri.headers) {
        Ok(Some(headers)) => &uri[..uri.len() - headers.len() - 1],
        _ => uri,
    }
}

fn is_loose(route: &[u8]) -> bool {
    NameAddr::parse(route).and_then(|address| Uri::parse(address.uri)).is_ok_and(|uri| uri.is_loose())
}

/// Replaces the number of a header line, or adds the line. Only one is allowed (§7.3.1): others of this name are removed.
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

/// Over a stream a message gives the length of its body (§16.6 step 9, §18.3, §20.14); one that came as a datagram need not have
/// done so.
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
