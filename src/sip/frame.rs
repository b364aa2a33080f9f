//! Message boundaries in a stream (RFC 3261 §18.3), with the keep-alives of RFC 5626 §3.5.1 between messages.

use super::cursor;
use super::error::Fault;
use super::header::Name;
use super::start_line::is_start_line;

/// What is at the front of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Nothing complete yet.
    More,
    /// One message of this many bytes.
    Message(usize),
    /// A CRLF (two bytes) between messages, alone: the answer to a ping, or space before a message.
    KeepAlive,
    /// The second CRLF (two bytes) in a row: a ping, which wants a CRLF back.
    Ping,
    /// This many meaningless bytes between messages: a lone CR or LF, and the NULs that some send to keep a NAT open.
    Noise(usize),
    /// No boundary can be found any more: answer what is there, and close.
    Bad(Fault),
}

/// Finds messages in a stream, resumably: each byte is examined once, however the stream is split.
///
/// The caller keeps the bytes from the last boundary on, calls [`Framer::next`] when more have come, and drops as many as the frame
/// says (two for `KeepAlive` and `Ping`) before it calls again. After `Bad` the framer must not be used again.
///
/// Every connection has one, so it is small: offsets into the buffer have 32 bits.
#[derive(Debug)]
pub struct Framer {
    /// A larger message is refused.
    limit: u32,
    state: State,
    /// Where the current line starts, and how far it was searched for its end.
    line: u32,
    scanned: u32,
    /// Where the value of the Content-Length line starts; 0: there is none.
    content_length: u32,
    /// A fault reported at the end of the headers, so that what comes before can still be answered.
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a start line, after this many CRLFs in a row.
    Between {
        crlfs: u8,
    },
    Headers,
    /// The total length is known.
    Body {
        length: u32,
    },
}

impl Framer {
    /// `limit`: the largest message, in bytes.
    pub fn new(limit: usize) -> Framer {
        Framer {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            state: State::Between { crlfs: 0 },
            line: 0,
            scanned: 0,
            content_length: 0,
            fault: None,
        }
    }

    /// True if a message has begun and is not complete.
    pub fn is_inside_message(&self) -> bool {
        !matches!(self.state, State::Between { .. })
    }

    /// Examines the front of `buffer`, which starts at a boundary and holds at least what it held in the last call.
    pub fn next(&mut self, buffer: &[u8]) -> Frame {
        if let State::Between { crlfs } = self.state {
            match buffer {
                [] | [b'\r'] => return Frame::More,
                // No SIP begins like this: TLS, STUN and the like.
                [first, ..] if *first < b' ' && !matches!(first, b'\r' | b'\n' | b'\t' | 0) => {
                    return Frame::Bad(Fault::NotSip);
                }
                [b'\r', b'\n', ..] => {
                    self.state = State::Between { crlfs: (crlfs + 1) % 2 };
                    return if crlfs == 0 { Frame::KeepAlive } else { Frame::Ping };
                }
                [b'\r' | b'\n' | 0, ..] => {
                    self.state = State::Between { crlfs: 0 };
                    return Frame::Noise(noise(buffer));
                }
                _ => {
                    self.state = State::Headers;
                    self.line = 0;
                    self.scanned = 0;
                    self.content_length = 0;
                    self.fault = None;
                }
            }
        }
        if let State::Headers = self.state {
            let limit = self.limit as usize;
            match self.headers(buffer) {
                Ok(Some(length)) if length > limit => return Frame::Bad(Fault::TooLarge),
                Ok(Some(length)) => self.state = State::Body { length: length as u32 },
                Ok(None) if buffer.len() >= limit => return Frame::Bad(Fault::TooLarge),
                Ok(None) => return Frame::More,
                Err(fault) => return Frame::Bad(fault),
            }
        }
        match self.state {
            State::Body { length } if buffer.len() >= length as usize => {
                self.state = State::Between { crlfs: 0 };
                Frame::Message(length as usize)
            }
            _ => Frame::More,
        }
    }

    /// Walks the header lines that have come; returns the length of the message once the empty line is there.
    fn headers(&mut self, buffer: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.scanned as usize..]) {
            let end = self.scanned as usize + found;
            let line = &buffer[self.line as usize..end];
            // The position of the next message is unknown. It is not searched for: a web page could make its visitor's browser send
            // one inside something else. But the head is awaited, as it may contain a request that can be answered.
            if self.line == 0 && !is_start_line(line) {
                self.fault = Some(Fault::NotSip);
            }
            match line {
                [] => self.fault = self.fault.or(Some(Fault::BareLf)),
                [.., b'\r'] => {}
                _ => self.fault = self.fault.or(Some(Fault::BareLf)),
            }
            if matches!(line, [] | [b'\r']) {
                return self.length(buffer, end + 1).map(Some);
            }
            if self.line > 0 && matches!(line[0], b'c' | b'C' | b'l' | b'L') {
                self.note_content_length(line);
            }
            self.line = end as u32 + 1;
            self.scanned = self.line;
        }
        self.scanned = buffer.len() as u32;
        Ok(None)
    }

    fn note_content_length(&mut self, line: &[u8]) {
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        if Name::parse(cursor::trim_end(&line[..colon])) != Name::ContentLength {
            return;
        }
        let value = self.line + colon as u32 + 1;
        if std::mem::replace(&mut self.content_length, value) != 0 {
            self.fault = self.fault.or(Some(Fault::ContentLengthRepeated));
        }
    }

    /// The length of the message whose body starts at `body`.
    fn length(&self, buffer: &[u8], body: usize) -> Result<usize, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let start = match self.content_length {
            0 => return Err(Fault::ContentLengthMissing),
            start => start as usize,
        };
        // The value may be folded: it ends where a line starts without white space.
        let mut end = start;
        while let Some(found) = memchr::memchr(b'\n', &buffer[end..body]) {
            end += found + 1;
            if !matches!(buffer.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let text = cursor::trim(&buffer[start..end]);
        let length = cursor::number_saturating(text).ok_or(Fault::ContentLength)?;
        Ok(body.saturating_add(length as usize))
    }
}

/// Returns how many bytes at the front are CR, LF and NUL, up to a whole CRLF or a possible one.
fn noise(buffer: &[u8]) -> usize {
    let mut at = 0;
    while let [b'\r' | b'\n' | 0, rest @ ..] = &buffer[at..] {
        match (buffer[at], rest) {
            (b'\r', [] | [b'\n', ..]) => break,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, Message};
    use proptest::prelude::*;

    /// Feeds `stream` in the given pieces, as a connection would, and records each frame.
    fn frames(stream: &[u8], cuts: &[usize], limit: usize) -> Vec<(Frame, Vec<u8>)> {
        let mut framer = Framer::new(limit);
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        let mut given = 0;
        let mut cuts = cuts.to_vec();
        cuts.push(stream.len());
        cuts.sort_unstable();
        for cut in cuts {
            buffer.extend_from_slice(&stream[given.min(cut)..cut]);
            given = given.max(cut);
            loop {
                let frame = framer.next(&buffer);
                let length = match frame {
                    Frame::More => break,
                    Frame::Message(length) => length,
                    Frame::KeepAlive | Frame::Ping => 2,
                    Frame::Noise(length) => length,
                    Frame::Bad(_) => {
                        frames.push((frame, Vec::new()));
                        return frames;
                    }
                };
                frames.push((frame, buffer.drain(..length).collect()));
            }
        }
        frames
    }

    const STREAM: &[u8] = b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\nSubject: c\r\nContent-Length : 10\r\n\r\n0123\r\n\r\n89\
        SIP/2.0 200 OK\r\nl:\r\n  0\r\n\r\n\r\n\r\n\r\n\r\n\r\nBYE sip:a SIP/2.0\r\nL: 3\r\nX: y\r\n\r\nabc";

    fn expected() -> Vec<Frame> {
        vec![
            Frame::KeepAlive,
            Frame::Ping,
            Frame::Message(68),
            Frame::Message(27),
            Frame::KeepAlive,
            Frame::Ping,
            Frame::KeepAlive,
            Frame::Ping,
            Frame::KeepAlive,
            Frame::Message(36),
        ]
    }

    #[test]
    fn every_pair_of_splits_gives_the_same_frames() {
        let whole = frames(STREAM, &[], 1000);
        assert_eq!(whole.iter().map(|(frame, _)| *frame).collect::<Vec<_>>(), expected());
        assert_eq!(whole.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), STREAM);
        for a in 0..=STREAM.len() {
            for b in a..=STREAM.len() {
                assert_eq!(frames(STREAM, &[a, b], 1000), whole, "{a} {b}");
            }
        }
        let each_byte: Vec<usize> = (0..STREAM.len()).collect();
        assert_eq!(frames(STREAM, &each_byte, 1000), whole);
    }

    #[test]
    fn what_cannot_be_framed() {
        let first = |stream: &[u8], limit| frames(stream, &[], limit).pop().map(|(frame, _)| frame);
        for (headers, fault) in [
            ("Subject: x\r\n", Fault::ContentLengthMissing),
            ("l: 1\r\nContent-Length: 1\r\n", Fault::ContentLengthRepeated),
            ("l: five\r\n", Fault::ContentLength),
            ("l: -1\r\n", Fault::ContentLength),
            ("l:\r\n", Fault::ContentLength),
            ("l: 1\r\n 1\r\n", Fault::ContentLength),
            ("l: 0\n", Fault::BareLf),
            ("l: 99999999999999999999\r\n", Fault::TooLarge),
            ("l: 971\r\n", Fault::TooLarge),
        ] {
            let stream = format!("BYE sip:a SIP/2.0\r\n{headers}\r\n");
            assert_eq!(first(stream.as_bytes(), 999), Some(Frame::Bad(fault)), "{headers:?}");
        }
        assert_eq!(first(b"BYE sip:a SIP/2.0\r\nl: 1\r\n\n", 999), Some(Frame::Bad(Fault::BareLf)));
        assert_eq!(first(&[b'x'; 99], 99), Some(Frame::Bad(Fault::TooLarge)));
        assert_eq!(first(&[b'x'; 98], 99), None);
        let exact = [b"BYE sip:a SIP/2.0\r\nl: 970\r\n\r\n".as_slice(), &[b'x'; 970]].concat();
        assert_eq!(first(&exact, exact.len()), Some(Frame::Message(exact.len())));
        assert_eq!(first(&exact, exact.len() - 1), Some(Frame::Bad(Fault::TooLarge)));
    }

    /// The messages and the end of a stream, however it is split; keep-alives and noise are left out.
    fn messages(stream: &[u8], cuts: &[usize]) -> Vec<(Frame, Vec<u8>)> {
        let mut found = frames(stream, cuts, 4096);
        found.retain(|(frame, _)| matches!(frame, Frame::Message(_) | Frame::Bad(_)));
        found
    }

    #[test]
    fn noise_before_a_message_is_passed_over_however_it_is_cut() {
        let request = b"OPTIONS sip:a SIP/2.0\r\nl: 2\r\n\r\nxy";
        for noise in [&b"\r\r\n"[..], b"\r", b"\n", b"\n\n", b"\n\r", b"\r\r\r", b"\0", b"\0\0\0\0\r\n\0", b"\r\0\n\r\n\r\n\r"] {
            let stream = [noise, request, noise, request].concat();
            let expected = (Frame::Message(request.len()), request.to_vec());
            for a in 0..=stream.len() {
                for b in a..=stream.len() {
                    let found = messages(&stream, &[a, b]);
                    assert_eq!(found, [expected.clone(), expected.clone()], "{a} {b}");
                }
            }
        }
        // Not a ping.
        for noise in [&b"\r\r\n"[..], b"\n\n\r\n", b"\r\n\0\r\n", b"\0\0"] {
            let all = frames(noise, &[], 4096);
            assert!(all.iter().all(|(frame, _)| *frame != Frame::Ping), "{all:?}");
        }
    }

    #[test]
    fn what_is_not_sip_ends_the_stream_with_its_head_however_it_is_cut() {
        for junk in [
            &b"HELLO WORLD\r\nContent-Length: 0\r\n\r\n"[..],
            b"HELLO\r\nOPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n",
            b"HELLO\nOPTIONS sip:a SIP/2.0\r\nl: 0\r\nl: 0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nOPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n",
            b" \r\nOPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n",
            b"\xff\xfe\r\n\r\n",
            b"\r\n\r\nx\n\n",
        ] {
            for a in 0..=junk.len() {
                let found = messages(junk, &[a]);
                assert_eq!(found, [(Frame::Bad(Fault::NotSip), Vec::new())], "{a}");
            }
            let each_byte: Vec<usize> = (0..junk.len()).collect();
            assert_eq!(messages(junk, &each_byte).len(), 1);
            // Not before: the head may contain something to answer.
            let unfinished = &junk[..junk.len() - 1];
            assert_eq!(messages(unfinished, &[]), []);
        }
        // Bytes that are not even text are not awaited.
        for junk in [&b"\x16\x03\x01"[..], b"\x01", b"\0\x01\0\0", b"\r\n\x1b"] {
            let found = messages(junk, &[]);
            assert_eq!(found, [(Frame::Bad(Fault::NotSip), Vec::new())]);
        }
        // A request that is SIP but faulty is a message, and answered as one.
        for request in [
            &b" OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n"[..],
            b"OPT{ONS sip:a SIP/2.0\r\nl: 0\r\n\r\n",
            b"OPTIONS  sip:a  sip/3.1 \r\nl: 0\r\n\r\n",
            b"SIP/2.0 abc\r\nl: 0\r\n\r\n",
            b"sip/7.0\r\nl: 0\r\n\r\n",
        ] {
            assert_eq!(messages(request, &[]), [(Frame::Message(request.len()), request.to_vec())]);
            assert!(Message::parse(request, &mut Index::default()).is_ok());
        }
    }

    proptest! {
        /// What is framed can be read, and what is not SIP is never framed.
        #[test]
        fn a_start_line_is_what_a_message_begins_with(line in "[ -~\t]{0,20}( sip/2.0| SIP/2.0|SIP/2.0 |)[ -~]{0,4}") {
            let message = format!("x{line}\r\nl: 0\r\n\r\n");
            let read = Message::parse(message.as_bytes(), &mut Index::default()).is_ok();
            let framed = messages(message.as_bytes(), &[]);
            prop_assert_eq!(matches!(framed[0].0, Frame::Message(_)), read);
        }

        #[test]
        fn random_messages_at_random_splits(
            bodies in proptest::collection::vec("[\r\na-z:]{0,40}", 1..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.extend_from_slice(
                    format!("INFO sip:a SIP/2.0\r\nCSeq: 1 INFO\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
                );
            }
            let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            let found = frames(&stream, &cuts, 65_536);
            prop_assert_eq!(found.len(), bodies.len());
            for ((frame, bytes), body) in found.iter().zip(&bodies) {
                prop_assert_eq!(*frame, Frame::Message(bytes.len()));
                let mut index = Index::default();
                let message = Message::parse(bytes, &mut index).unwrap();
                prop_assert_eq!(message.fault(), None);
                prop_assert_eq!(message.body(), body.as_bytes());
                prop_assert_eq!(message.end(), bytes.len());
            }
        }
    }
}
