//! The redirect server (RFC 3261 §8.3): the targets as Contact values of a 302, best first.

use super::target::TargetSet;

/// Appends one Contact line for each target, with its q.
pub fn write_contacts(targets: &TargetSet, out: &mut Vec<u8>) {
    for target in &targets.targets {
        out.extend_from_slice(b"Contact: <");
        out.extend_from_slice(targets.get(target.uri));
        out.push(b'>');
        write_q(target.q, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `;q=0.5`; nothing for 1, which is the default.
pub fn write_q(thousandths: u16, out: &mut Vec<u8>) {
    if thousandths >= 1000 {
        return;
    }
    out.extend_from_slice(b";q=0");
    if thousandths > 0 {
        out.push(b'.');
        let mut rest = thousandths;
        while rest > 0 {
            out.push(b'0' + (rest / 100) as u8);
            rest = rest % 100 * 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_is_written_short() {
        for (q, text) in [
            (1000, ""),
            (0, ";q=0"),
            (5, ";q=0.005"),
            (500, ";q=0.5"),
            (250, ";q=0.25"),
        ] {
            let mut out = Vec::new();
            write_q(q, &mut out);
            assert_eq!(out, text.as_bytes(), "{q}");
        }
    }
}
