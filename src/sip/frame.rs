//! Message boundaries in a stream (RFC 3261 §18.3), with the keep-alives of RFC 5626 §3.5.1 between messages.

use super::cursor::{self, SPACE};
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
            if matches!(line[0], b'c' | b'C' | b'l' | b'L') {
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
        debug_assert!(!text.iter().any(|&b| cursor::is(b, SPACE)) || text.len() > 2);
        let length = cursor::number_saturating(text).ok_or(Fault::ContentLength)?;
        Ok(body.saturating_add(length as usize))
    }
}
