//! A hash by which texts are compared and remembered.

/// A running hash; not for secrets, only to compare.
pub struct Digest(u64);

impl Digest {
    pub fn new() -> Digest {
        Digest(0x5157_4f57_4745_5231)
    }

    pub fn add(&mut self, text: &[u8]) {
        let mut chunks = text.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(chunks.remainder()) {
            *place = *byte;
        }
        self.number(u64::from_le_bytes(word));
        self.number(text.len() as u64);
    }

    pub fn number(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    pub fn finish(&self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x ^ (x >> 32)
    }
}

impl Default for Digest {
    fn default() -> Self {
        Digest::new()
    }
}

pub fn digest(text: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.add(text);
    digest.finish()
}

/// A line in pieces, the values of `sc` parameters left out.
pub fn without_cookies(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    const NAME: &[u8] = b";sc=";
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let found = text.windows(NAME.len()).position(|window| window == NAME);
        let Some(end) = found.map(|at| at + NAME.len()) else {
            return Some(text);
        };
        let (piece, value) = text.split_at(end);
        let len = value.iter().take_while(|b| b.is_ascii_alphanumeric());
        rest = value.get(len.count()..);
        Some(piece)
    })
}
