//! Fuzz target: any bytes as a stream, cut anywhere. The frames do not depend on the cuts, and what a frame holds is what the parser sees.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strowger::sip::{Fault, Frame, Framer, Index, Message};

const LIMIT: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    // The tail of the input says where to cut.
    let (stream, cuts) = bytes.split_at(bytes.len() - (bytes.len() / 4).min(16));
    let whole = frames(stream, &[]);
    let cuts: Vec<usize> =
        cuts.chunks(2).map(|pair| (usize::from(pair[0]) << 8 | usize::from(*pair.last().unwrap())) % (stream.len() + 1)).collect();
    assert_eq!(frames(stream, &cuts), whole);
    let each: Vec<usize> = (0..stream.len().min(600)).collect();
    assert_eq!(frames(stream, &each), whole);

    let mut at = 0;
    for &(frame, start, length) in &whole {
        assert_eq!(start, at);
        at += length;
        if !matches!(frame, Frame::Message(_)) {
            continue;
        }
        assert!(length <= LIMIT);
        let framed = &stream[start..start + length];
        let mut index = Index::default();
        let Ok(message) = Message::parse(framed, &mut index) else {
            continue;
        };
        assert!(!matches!(
            message.fault(),
            Some(
                Fault::Truncated
                    | Fault::BareLf
                    | Fault::ContentLength
                    | Fault::ContentLengthTooLong
                    | Fault::ContentLengthRepeated
            )
        ));
        if message.fault().is_none() {
            assert_eq!((message.start(), message.end()), (0, length));
        }
    }
});

/// Each frame with its start and length; lengths of what is not whole do not count.
fn frames(stream: &[u8], cuts: &[usize]) -> Vec<(Frame, usize, usize)> {
    let mut cuts = cuts.to_vec();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let mut framer = Framer::new(LIMIT);
    let mut frames = Vec::new();
    let mut start = 0;
    for cut in cuts {
        loop {
            let frame = framer.next(&stream[start..cut.max(start)]);
            let length = match frame {
                Frame::More => break,
                Frame::Message(length) => length,
                Frame::KeepAlive | Frame::Ping => 2,
                Frame::Noise(length) => length,
                Frame::Bad(_) => 0,
            };
            match frames.last_mut() {
                // A run of noise may be cut anywhere.
                Some((Frame::Noise(known), _, run)) if matches!(frame, Frame::Noise(_)) => {
                    *known += length;
                    *run += length;
                }
                _ => frames.push((frame, start, length)),
            }
            start += length;
            if length == 0 {
                return frames;
            }
        }
    }
    frames
}
