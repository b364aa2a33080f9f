//! The token that names a call in its Call-ID, branch and tags: run, slot and generation in hexadecimal, so that any message finds its
//! state by index and a message of an earlier call or run finds none.

/// Length of a token in text, and of a tag, which is one without the run's part.
pub const TOKEN: usize = 24;
pub const TAG: usize = TOKEN - 8;

/// What both sides' tags are made of.
pub fn tag(token: &[u8; TOKEN]) -> &[u8; TAG] {
    token.last_chunk().expect("a tag is shorter than a token")
}

/// Names a slot of the call table while one call holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub slot: u32,
    pub generation: u32,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn write_hex(number: u32, out: &mut [u8]) {
    for (at, digit) in out.iter_mut().enumerate() {
        *digit = DIGITS[(number >> (28 - 4 * at)) as usize & 15];
    }
}

fn read_hex(text: &[u8]) -> Option<u32> {
    let mut number = 0;
    for byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u32::from(digit);
    }
    Some(number)
}

/// The part of every token that tells one run of the generator from another.
#[derive(Clone, Copy)]
pub struct Run([u8; 8]);

impl Run {
    pub fn new(number: u32) -> Run {
        let mut text = [0; 8];
        write_hex(number, &mut text);
        Run(text)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    pub fn token(&self, identity: Identity) -> [u8; TOKEN] {
        let mut text = [0; TOKEN];
        text[..8].copy_from_slice(&self.0);
        write_hex(identity.slot, &mut text[8..16]);
        write_hex(identity.generation, &mut text[16..]);
        text
    }

    /// Reads the token at the start of `text`; nothing when it is not one of this run.
    pub fn identity(&self, text: &[u8]) -> Option<Identity> {
        let token = text.get(..TOKEN)?;
        if token[..8] != self.0 {
            return None;
        }
        of_any_run(token)
    }
}

/// Reads the token at the start of `text`, of whatever run.
pub fn of_any_run(text: &[u8]) -> Option<Identity> {
    let token = text.get(..TOKEN)?;
    Some(Identity { slot: read_hex(&token[8..16])?, generation: read_hex(&token[16..])? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_another_runs_does_not() {
        let identity = Identity { slot: 0x0012_abcd, generation: u32::MAX };
        let token = Run::new(7).token(identity);
        assert_eq!(&token, b"000000070012abcdffffffff");
        assert_eq!(Run::new(7).identity(&token), Some(identity));
        assert_eq!(Run::new(8).identity(&token), None);
        assert_eq!(Run::new(7).identity(&token[..23]), None);
        assert_eq!(Run::new(7).identity(b"000000070012abcdfffffffg"), None);
    }
}
