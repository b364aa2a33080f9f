//! The target set (RFC 3261 §16.5): where one request may go, in the order of q.

use crate::base::{Flow, Span};
use crate::sip::Uri;
use std::net::SocketAddr;

/// One place to send a request to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The new Request-URI, in [`TargetSet::text`].
    pub uri: Span,
    /// Path of the binding (RFC 3327), a comma list for Route; empty without.
    pub path: Span,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    /// Where to send, if not where the URI or the topmost Route says: a next hop of the conf.
    pub hop: Option<SocketAddr>,
    /// The listener at which the binding was registered.
    pub listener: Option<u16>,
    /// The binding's flow, for a phone behind a NAT.
    pub flow: Option<Flow>,
    /// Tried only when the one before it failed: a next hop of the conf behind another.
    pub spare: bool,
}

/// Targets and their text; reused from request to request.
#[derive(Default)]
pub struct TargetSet {
    pub text: Vec<u8>,
    pub targets: Vec<Target>,
}

impl TargetSet {
    pub fn clear(&mut self) {
        self.text.clear();
        self.targets.clear();
    }

    pub fn push(&mut self, uri: &[u8], path: &[u8], q: u16) -> &mut Target {
        let uri = self.append(uri);
        let path = self.append(path);
        self.targets.push(Target {
            uri,
            path,
            q,
            hop: None,
            listener: None,
            flow: None,
            spare: false,
        });
        let last = self.targets.len() - 1;
        &mut self.targets[last]
    }

    pub fn get(&self, span: Span) -> &[u8] {
        self.text.get(span.range()).unwrap_or(&[])
    }

    /// Highest q first; equal q keep their order.
    pub fn sort_by_q(&mut self) {
        self.targets
            .sort_by_key(|target| std::cmp::Reverse(target.q));
    }

    /// Drops the targets that equal `uri`. False when none is left.
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
