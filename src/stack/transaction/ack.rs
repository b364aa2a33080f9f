//! The requests that a client transaction makes itself, from the request that it sent: the ACK to a non-2xx (RFC 3261 §17.1.1.3)
//! and the CANCEL (§9.1). Both carry the branch, Request-URI, Route, From, Call-ID and CSeq number of that request.

use crate::base::hash::write_decimal;
use crate::sip::{Index, Message, Name};

/// Appends the ACK to `response`; its To is the response's.
pub fn write_ack(request: &[u8], response: &Message, index: &mut Index, out: &mut Vec<u8>) {
    write(request, b"ACK", Some(response), index, out);
}

/// Appends the CANCEL of `request`; its To is the request's.
pub fn write_cancel(request: &[u8], index: &mut Index, out: &mut Vec<u8>) {
    write(request, b"CANCEL", None, index, out);
}

fn write(request: &[u8], method: &[u8], response: Option<&Message>, index: &mut Index, out: &mut Vec<u8>) {
    let Ok(request) = Message::parse(request, index) else {
        return;
    };
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(request.request_uri());
    out.extend_from_slice(b" SIP/2.0\r\n");
    if let Ok(via) = request.top_via() {
        line(b"Via: ", via.text, out);
    }
    for route in request.all(Name::Route) {
        line(b"Route: ", route.value, out);
    }
    // A response without a To is acknowledged too.
    let to = response.and_then(|response| response.header(Name::To));
    for (prefix, header) in [
        (&b"From: "[..], request.header(Name::From)),
        (b"To: ", to.or_else(|| request.header(Name::To))),
        (b"Call-ID: ", request.header(Name::CallId)),
    ] {
        if let Some(header) = header {
            line(prefix, header.value, out);
        }
    }
    if let Ok(cseq) = request.cseq() {
        out.extend_from_slice(b"CSeq: ");
        write_decimal(u64::from(cseq.number), out);
        out.push(b' ');
        line(b"", method, out);
    }
    out.extend_from_slice(b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
}

fn line(prefix: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(prefix);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
