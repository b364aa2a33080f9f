//! Responses to a request (RFC 3261 §8.2.6): its Via, From, To, Call-ID and CSeq under a new status line.

use std::net::SocketAddr;
use std::ops::Range;

use super::cursor;
use super::header::{Header, Name};
use super::message::Message;
use super::status;
use super::via::{Feedback, Stamp};

/// The content of a response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply<'a> {
    pub status: u16,
    /// Empty for the default phrase of the status.
    pub reason: &'a [u8],
    /// The tag that To gets if it has none; empty for none, as in a 100.
    pub to_tag: &'a [u8],
    /// Where the request came from: stamped on the topmost Via as `received` and `rport` (RFC 3581 §4).
    pub received: Option<SocketAddr>,
    /// What the topmost Via says about our load, if that is offered (RFC 7339).
    pub feedback: Option<Feedback>,
}

/// Appends a response without a body. `extra` writes whole header lines, each with its CRLF. A faulty request is answered with what
/// could be read of it.
pub fn write(request: &Message, reply: &Reply, extra: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    write_fitting(request, reply, |out, _| extra(out), out);
}

/// The same; `extra` gets the offset in `out` at which its lines begin, and may remove some of them again ([`fit_lines`]).
pub fn write_fitting(request: &Message, reply: &Reply, extra: impl FnOnce(&mut Vec<u8>, usize), out: &mut Vec<u8>) {
    out.reserve(request.headers_end() - request.start() + 128);
    out.extend_from_slice(b"SIP/2.0 ");
    cursor::write_number(u32::from(reply.status), out);
    out.push(b' ');
    match reply.reason {
        b"" => out.extend_from_slice(status::reason(reply.status).as_bytes()),
        reason => write_line_safe(reason, out),
    }
    out.extend_from_slice(b"\r\n");

    let mut vias = request.all(Name::Via);
    if let Some(source) = reply.received {
        // If the topmost Via is unreadable, it is copied with the others.
        if let Ok(via) = request.top_via() {
            vias.next();
            let mut line = Line::start(request, &via.value.header, out);
            match reply.feedback {
                Some(feedback) if via.offers_control() => {
                    let stamps = via.stamps(source).into_iter().flatten();
                    let mut edits: Vec<_> = stamps.chain(via.feedback(feedback)).collect();
                    edits.sort_by_key(|(range, _)| range.start);
                    line.edit(edits, out);
                }
                _ => line.edit(via.stamps(source).into_iter().flatten(), out),
            }
            line.finish(out);
        }
    }
    for header in vias {
        Line::start(request, &header, out).finish(out);
    }
    for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
        if let Some(header) = request.header(name) {
            let mut line = Line::start(request, &header, out);
            if name == Name::To && !reply.to_tag.is_empty() && !has_tag(request) {
                line.copy_to(header.value_span.range().end, out);
                out.extend_from_slice(b";tag=");
                out.extend_from_slice(reply.to_tag);
            }
            line.finish(out);
        }
    }
    if reply.status == 100 {
        // §8.2.6.1
        if let Some(header) = request.header(Name::Timestamp) {
            Line::start(request, &header, out).finish(out);
        }
    }
    let begin = out.len();
    extra(out, begin);
    out.extend_from_slice(END);
}

/// The end of every response without a body.
const END: &[u8] = b"Content-Length: 0\r\n\r\n";

/// Returns where the first `count` lines end that begin at `begin` in `text`; folded lines count as one.
pub fn end_of_lines(text: &[u8], begin: usize, count: usize) -> usize {
    let rest = text.get(begin..).unwrap_or_default();
    let ends = memchr::memchr_iter(b'\n', rest).map(|at| begin + at + 1);
    let mut ends = ends.filter(|next| !matches!(text.get(*next), Some(b' ' | b'\t')));
    match count.checked_sub(1) {
        Some(before) => ends.nth(before).unwrap_or(text.len()),
        None => begin,
    }
}

/// Removes lines at the end of `out`, down to `begin`, until the whole response ends before `most`. Returns how many were removed.
pub fn fit_lines(out: &mut Vec<u8>, begin: usize, most: usize) -> usize {
    let mut gone = 0;
    while out.len() > begin && out.len().saturating_add(END.len()) > most {
        // The end of the line before the last one; folded lines count as one.
        let before = out.get(begin..out.len() - 1).unwrap_or_default();
        let kept =
            memchr::memrchr_iter(b'\n', before).map(|at| begin + at + 1).find(|next| !matches!(out.get(*next), Some(b' ' | b'\t')));
        out.truncate(kept.unwrap_or(begin));
        gone += 1;
    }
    gone
}

fn has_tag(request: &Message) -> bool {
    request.to().is_ok_and(|to| to.params.get(b"tag").is_some())
}

/// A header line being copied into the response. A line of a valid request is copied as it is; of a faulty one the value is, on one
/// line of our own.
struct Line<'a> {
    bytes: &'a [u8],
    exact: bool,
    /// What was copied, and where the line ends.
    done: usize,
    end: usize,
}

impl<'a> Line<'a> {
    fn start(request: &Message<'a>, header: &Header, out: &mut Vec<u8>) -> Line<'a> {
        let bytes = request.bytes();
        let exact = request.fault().is_none();
        let (done, end) = if exact {
            (header.line.range().start, header.line.range().end)
        } else {
            out.extend_from_slice(header.name.canonical().as_bytes());
            out.extend_from_slice(b": ");
            (header.value_span.range().start, header.value_span.range().end)
        };
        Line { bytes, exact, done, end }
    }

    fn copy_to(&mut self, end: usize, out: &mut Vec<u8>) {
        let text = self.bytes.get(self.done..end).unwrap_or_default();
        if self.exact {
            out.extend_from_slice(text);
        } else {
            write_line_safe(text, out);
        }
        self.done = end;
    }

    fn edit(&mut self, edits: impl IntoIterator<Item = (Range<usize>, Stamp)>, out: &mut Vec<u8>) {
        for (range, stamp) in edits {
            self.copy_to(range.start, out);
            stamp.write(out);
            self.done = range.end;
        }
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        self.copy_to(self.end, out);
        if !self.exact {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes `text` so that it stays on one line.
fn write_line_safe(text: &[u8], out: &mut Vec<u8>) {
    let safe = |&b: &u8| if matches!(b, b'\r' | b'\n') { b' ' } else { b };
    out.extend(text.iter().map(safe));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Fault, Index};

    fn answer(request: &str, reply: Reply) -> String {
        let mut index = Index::default();
        let message = Message::parse(request.as_bytes(), &mut index).unwrap();
        let mut out = Vec::new();
        write(&message, &reply, |out| out.extend_from_slice(b"Server: s\r\n"), &mut out);
        let mut index = Index::default();
        assert_eq!(Message::parse(&out, &mut index).unwrap().fault(), None);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn trying_has_the_timestamp_and_no_tag() {
        let request = "INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nVIA: SIP/2.0/UDP h\r\nTimestamp: 54.2\r\n\
            t: sip:b@c\r\nf: <sip:a@b>;tag=1\r\ni: x\r\nCSeq: 1\r\n INVITE\r\nRoute: <sip:r>\r\n\r\n";
        let source = "192.0.2.1:5060".parse().unwrap();
        assert_eq!(
            answer(request, Reply { status: 100, received: Some(source), ..Default::default() }),
            "SIP/2.0 100 Trying\r\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nVIA: SIP/2.0/UDP h\r\nf: <sip:a@b>;tag=1\r\n\
            t: sip:b@c\r\ni: x\r\nCSeq: 1\r\n INVITE\r\nTimestamp: 54.2\r\nServer: s\r\nContent-Length: 0\r\n\r\n"
        );
        let tagged = answer(request, Reply { status: 486, to_tag: b"x9", reason: b"Gone Fishing", ..Default::default() });
        assert!(tagged.starts_with("SIP/2.0 486 Gone Fishing\r\n"));
        assert!(tagged.contains("\r\nt: sip:b@c;tag=x9\r\n"));
        assert!(!tagged.contains("Timestamp"));
    }

    #[test]
    fn a_tag_that_is_there_stays_alone() {
        let request = "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: \"x;tag=0\" <sip:b@c;tag=1> ; Tag=7\r\n\r\n";
        let reply = Reply { status: 481, to_tag: b"new", ..Default::default() };
        assert!(answer(request, reply).contains("\r\nTo: \"x;tag=0\" <sip:b@c;tag=1> ; Tag=7\r\n"));
        let request = request.replace(" ; Tag=7", "");
        assert!(answer(&request, reply).contains("<sip:b@c;tag=1>;tag=new\r\n"));
    }

    #[test]
    fn what_is_broken_is_answered_in_sound_lines() {
        let request = "BYE sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h;rport\n ;branch=a\nFrom: <sip:a@b\nTo: \"open <sip:b@c>\nbad\nCall-ID: x\ry\n\n";
        let mut index = Index::default();
        assert_eq!(Message::parse(request.as_bytes(), &mut index).unwrap().fault(), Some(Fault::BareLf));
        let source = "[2001:db8::9]:70".parse().unwrap();
        assert_eq!(
            answer(
                request,
                Reply { status: 400, reason: b"LF\r\nWithout CR", to_tag: b"t", received: Some(source), feedback: None }
            ),
            "SIP/2.0 400 LF  Without CR\r\nVia: SIP/2.0/UDP h;rport=70  ;branch=a;received=2001:db8::9\r\nFrom: <sip:a@b\r\n\
            To: \"open <sip:b@c>;tag=t\r\nCall-ID: x y\r\nServer: s\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_via_that_cannot_be_read_is_copied_as_it_is() {
        let request = "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;;\r\nTo: <sip:b@c>\r\n\r\n";
        let source = "192.0.2.1:70".parse().unwrap();
        let answer = answer(request, Reply { status: 400, received: Some(source), ..Default::default() });
        assert!(answer.contains("\r\nVia: SIP/2.0/UDP h;;\r\n"));
    }
}
