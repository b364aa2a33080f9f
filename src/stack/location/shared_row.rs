//! A version of a binding on its way to the store or from it: nothing in it is specific to one node or one run.

use super::binding::{Binding, BindingText, Reached};
use super::shared_note::{NodeNumber, SharedNote};
use super::version::{Claim, Version};
use crate::base::hash::write_decimal;
use crate::base::{Flow, Instant, Span, Transport};
use std::net::SocketAddr;

/// A version of a binding. All times are milliseconds since 1970.
///
/// Its name within its address-of-record, the *field*, follows from the text: [`SharedRow::write_field`].
#[derive(Clone, Copy, Debug)]
pub struct SharedRow<'a> {
    pub aor: &'a [u8],
    pub text: BindingText<'a>,
    pub version: Version,
    /// The name of the node that made this version.
    pub node: &'a [u8],
    /// The token by which that node reaches the phone; empty if any node reaches it at its contact.
    pub relay: &'a [u8],
    /// Where the REGISTER came from; `None` for what an operator has bound.
    pub peer: Option<(Transport, SocketAddr)>,
    /// The flow of our own that `relay` names. Only for a row that is taken in and that this node made; nobody else's flow is ours.
    pub flow: Option<Flow>,
    /// When it expires, as far as its node knew; if it was removed, how long an older REGISTER must not restore it.
    pub expires_ms: u64,
    /// How long the store and the others keep it, if nothing else comes. The store drops it then.
    pub lease_ms: u64,
    /// What the phone was granted, in seconds.
    pub lifetime_s: u32,
    pub reg_id: u32,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub reached: Reached,
    pub removed: bool,
    /// Its phone may not receive what is sent to `peer` ([`Binding::is_unsure`]).
    pub is_unsure: bool,
    /// It names the address that it is bound to ([`Binding::leads_back`]). Each node finds that out itself, by
    /// [`super::RowRules::leads_back`].
    pub leads_back: bool,
    /// A number that rises with each change that the store accepts for an address, such as its place in the stream. Only for a
    /// row that is taken in.
    pub position: u64,
}

impl<'a> SharedRow<'a> {
    pub fn claim(&self) -> Claim<'a> {
        Claim { version: self.version, call_id: self.text.call_id, node: self.node }
    }

    /// Appends the binding's name within its address-of-record: reg-id, `;` and instance if it has both, otherwise its contact as
    /// written. Different bindings of one address have different ones: no URI begins with a digit.
    pub fn write_field(&self, out: &mut Vec<u8>) {
        match has_seat(self.text.instance, self.reg_id) {
            true => {
                write_decimal(u64::from(self.reg_id), out);
                out.push(b';');
                out.extend_from_slice(self.text.instance);
            }
            false => out.extend_from_slice(self.text.uri),
        }
    }
}

/// Returns whether a binding goes by its instance and reg-id.
fn has_seat(instance: &[u8], reg_id: u32) -> bool {
    reg_id != 0 && !instance.is_empty()
}

impl Binding {
    /// Returns whether a binding with this text would have the same field.
    pub(super) fn is_field(&self, text: &BindingText, reg_id: u32) -> bool {
        let own = self.text();
        match (has_seat(own.instance, self.reg_id), has_seat(text.instance, reg_id)) {
            (true, true) => self.reg_id == reg_id && own.instance == text.instance,
            (false, false) => own.uri == text.uri,
            _ => false,
        }
    }
}

/// Copies of versions that the store is to be told. Its allocation is reused.
#[derive(Default)]
pub struct Untold {
    bytes: Vec<u8>,
    rows: Vec<UntoldRow>,
}

/// URI, Call-ID, Path and instance are one after the other in the bytes, and so are the rest.
struct UntoldRow {
    aor: Span,
    uri: Span,
    call_id: Span,
    path: Span,
    instance: Span,
    node: Span,
    relay: Span,
    row: SharedRow<'static>,
}

/// The clock and the name that a binding is copied with.
pub(super) struct Outward<'a> {
    pub wall_ms: u64,
    pub node: &'a [u8],
}

/// Writes the token by which this node reaches a phone over a flow of its own, or nothing if any node may reach it at its contact.
pub type TokenOf<'a> = dyn FnMut(Reached, &Flow, &mut Vec<u8>) + 'a;

impl Untold {
    pub(super) fn push(&mut self, aor: &[u8], binding: &Binding, note: &SharedNote, outward: &Outward, token: &mut TokenOf) {
        let text = binding.text();
        let source = binding.source();
        let is_own = note.node == NodeNumber::OWN;
        let start = self.bytes.len();
        match source {
            Some(flow) if is_own && !binding.removed => token(binding.reached, &flow, &mut self.bytes),
            _ if binding.removed => {}
            _ => self.bytes.extend_from_slice(&note.relay),
        }
        let relay = Span::new(start, self.bytes.len());
        let wall = |at: Instant| outward.wall_ms.saturating_add(at.as_ms());
        let row = SharedRow {
            aor: b"",
            text: BindingText::default(),
            version: note.version,
            node: b"",
            relay: b"",
            peer: source.map(|flow| (flow.transport, flow.peer)),
            flow: None,
            expires_ms: wall(match is_own {
                true => binding.expires,
                false => note.told_expires,
            }),
            lease_ms: wall(note.lease),
            lifetime_s: note.lifetime_s,
            reg_id: binding.reg_id,
            q: binding.q,
            reached: binding.reached,
            removed: binding.removed,
            is_unsure: binding.is_unsure,
            leads_back: binding.leads_back,
            position: 0,
        };
        let row = UntoldRow {
            aor: self.append(aor),
            uri: self.append(text.uri),
            call_id: self.append(text.call_id),
            path: self.append(text.path),
            instance: self.append(text.instance),
            node: self.append(outward.node),
            relay,
            row,
        };
        self.rows.push(row);
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        Span::append(bytes, &mut self.bytes)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the bytes of memory in use.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<UntoldRow>()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
    }

    /// Returns the versions; those of one address follow each other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SharedRow<'_>> {
        let get = |span: Span| span.in_text(&self.bytes);
        self.rows.iter().map(move |row| SharedRow {
            aor: get(row.aor),
            text: BindingText { uri: get(row.uri), call_id: get(row.call_id), path: get(row.path), instance: get(row.instance) },
            node: get(row.node),
            relay: get(row.relay),
            ..row.row
        })
    }
}
