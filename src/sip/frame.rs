//! Message boundaries in a stream (RFC 3261 §18.3), with the keep-alives of RFC 5626 §3.5.1 between messages.

use super::cursor;
use super::error::Fault;
use super::header::Name;

/// What the front of the buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Nothing whole yet.
    More,
    /// One message of that many bytes.
    Message(usize),
    /// A CRLF (two bytes) between messages, alone: the answer to a ping, or space before a message.
    KeepAlive,
    /// The second CRLF (two bytes) in a row: a ping, which wants a CRLF back.
    Ping,
    /// No boundary can be found any more: answer what is there, and close.
    Bad(Fault),
}

/// Finds messages in a stream, resumably: a byte is looked at once, however the stream is cut.
///
/// The caller keeps the bytes from the last boundary on, calls [`Framer::next`] when more have come, and drops as many as the frame says
/// (two for `KeepAlive` and `Ping`) before it calls again. After `Bad` the framer is of no more use.
#[derive(Debug)]
pub struct Framer {
    /// A message that is larger is refused.
    limit: usize,
    state: State,
    /// Where the line that is being read starts, and how far it was searched for its end.
    line: usize,
    scanned: usize,
    /// Where the value of the Content-Length line starts.
    content_length: Option<usize>,
    /// A fault for the end of the headers, so that what comes before the end can still be answered.
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a start line, so many CRLFs in a row behind.
    Between {
        crlfs: u8,
    },
    Headers,
    /// The whole length is known.
    Body {
        length: usize,
    },
}

impl Framer {
    /// `limit`: the largest message, in bytes.
    pub fn new(limit: usize) -> Framer {
        Framer {
            limit,
            state: State::Between { crlfs: 0 },
            line: 0,
            scanned: 0,
            content_length: None,
            fault: None,
        }
    }

    /// Looks at the front of `buffer`, which starts at a boundary and holds at least what it held in the last call.
    pub fn next(&mut self, buffer: &[u8]) -> Frame {
        if let State::Between { crlfs } = self.state {
            match buffer {
                [] | [b'\r'] => return Frame::More,
                [b'\r', b'\n', ..] => {
                    self.state = State::Between {
                        crlfs: (crlfs + 1) % 2,
                    };
                    return if crlfs == 0 {
                        Frame::KeepAlive
                    } else {
                        Frame::Ping
                    };
                }
                _ => {
                    self.state = State::Headers;
                    self.line = 0;
                    self.scanned = 0;
                    self.content_length = None;
                    self.fault = None;
                }
            }
        }
        if let State::Headers = self.state {
            match self.headers(buffer) {
                Ok(Some(length)) if length > self.limit => return Frame::Bad(Fault::TooLarge),
                Ok(Some(length)) => self.state = State::Body { length },
                Ok(None) if buffer.len() >= self.limit => return Frame::Bad(Fault::TooLarge),
                Ok(None) => return Frame::More,
                Err(fault) => return Frame::Bad(fault),
            }
        }
        match self.state {
            State::Body { length } if buffer.len() >= length => {
                self.state = State::Between { crlfs: 0 };
                Frame::Message(length)
            }
            _ => Frame::More,
        }
    }

    /// Walks the header lines that have come; the length of the message once the empty line has.
    fn headers(&mut self, buffer: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.scanned..]) {
            let end = self.scanned + found;
            let line = &buffer[self.line..end];
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
            self.line = end + 1;
            self.scanned = end + 1;
        }
        self.scanned = buffer.len();
        Ok(None)
    }

    fn note_content_length(&mut self, line: &[u8]) {
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        if Name::parse(cursor::trim_end(&line[..colon])) != Name::ContentLength {
            return;
        }
        if self.content_length.replace(self.line + colon + 1).is_some() {
            self.fault = self.fault.or(Some(Fault::ContentLengthRepeated));
        }
    }

    /// The length of the message whose body starts at `body`.
    fn length(&self, buffer: &[u8], body: usize) -> Result<usize, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let start = self.content_length.ok_or(Fault::ContentLengthMissing)?;
        // The value may be folded: it ends where a line starts that no white space opens.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, Message};
    use proptest::prelude::*;

    /// Feeds `stream` in the given pieces, as a connection would, and notes each frame.
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
        assert_eq!(
            whole.iter().map(|(frame, _)| *frame).collect::<Vec<_>>(),
            expected()
        );
        assert_eq!(
            whole
                .iter()
                .flat_map(|(_, bytes)| bytes.clone())
                .collect::<Vec<_>>(),
            STREAM
        );
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
            (
                "l: 1\r\nContent-Length: 1\r\n",
                Fault::ContentLengthRepeated,
            ),
            ("l: five\r\n", Fault::ContentLength),
            ("l: -1\r\n", Fault::ContentLength),
            ("l:\r\n", Fault::ContentLength),
            ("l: 1\r\n 1\r\n", Fault::ContentLength),
            ("l: 0\n", Fault::BareLf),
            ("l: 99999999999999999999\r\n", Fault::TooLarge),
            ("l: 971\r\n", Fault::TooLarge),
        ] {
            let stream = format!("BYE sip:a SIP/2.0\r\n{headers}\r\n");
            assert_eq!(
                first(stream.as_bytes(), 999),
                Some(Frame::Bad(fault)),
                "{headers:?}"
            );
        }
        assert_eq!(
            first(b"BYE sip:a SIP/2.0\r\nl: 1\r\n\n", 999),
            Some(Frame::Bad(Fault::BareLf))
        );
        assert_eq!(first(&[b'x'; 99], 99), Some(Frame::Bad(Fault::TooLarge)));
        assert_eq!(first(&[b'x'; 98], 99), None);
        let exact = [
            b"BYE sip:a SIP/2.0\r\nl: 970\r\n\r\n".as_slice(),
            &[b'x'; 970],
        ]
        .concat();
        assert_eq!(
            first(&exact, exact.len()),
            Some(Frame::Message(exact.len()))
        );
        assert_eq!(
            first(&exact, exact.len() - 1),
            Some(Frame::Bad(Fault::TooLarge))
        );
    }

    proptest! {
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
