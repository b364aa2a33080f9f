//! Which part of the table an address-of-record is in, and by which keys Redis has it. All keys of a part have its number as their
//! hash tag, so a cluster keeps them together.

/// The parts of the table.
pub const PARTS: usize = 16;

/// Returns the part of an address: its CRC-32 (that of Ethernet and gzip), modulo 16.
pub fn part_of(address: &[u8]) -> usize {
    crc32(address) as usize % PARTS
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let add = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, add)
}

/// Returns the slot of a cluster for what is hashed of a key: its CRC-16 (XMODEM), modulo 16384.
pub fn slot_of(hashed: &[u8]) -> u16 {
    let step = |crc: u16, _| (crc << 1) ^ (0x1021 & (crc >> 15).wrapping_neg());
    hashed.iter().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), step)) % 16384
}

/// The stream of accepted changes.
pub fn changes_key(part: usize) -> Vec<u8> {
    format!("strowger:{{{part}}}:changes").into_bytes()
}

/// The position of the last change that was accepted.
pub fn position_key(part: usize) -> Vec<u8> {
    format!("strowger:{{{part}}}:position").into_bytes()
}

/// The bindings of an address.
pub fn address_key(part: usize, address: &[u8]) -> Vec<u8> {
    let mut key = format!("strowger:{{{part}}}:aor:").into_bytes();
    key.extend_from_slice(address);
    key
}

/// What the keys of all addresses look like.
pub const ADDRESSES: &[u8] = b"strowger:{*}:aor:*";

/// Returns the address that a key belongs to; `None` if it is not the key of an address, or not in its part.
pub fn address_of(key: &[u8]) -> Option<&[u8]> {
    let rest = key.strip_prefix(b"strowger:{")?;
    let end = memchr::memchr(b'}', rest)?;
    let part: usize = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    let address = rest[end..].strip_prefix(b"}:aor:")?;
    (part_of(address) == part).then_some(address)
}

/// A node's sign of life.
pub fn node_key(name: &[u8]) -> Vec<u8> {
    [b"strowger:node:", name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_anybody_can_compute() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        let part = part_of(b"alice@example.com");
        let key = address_key(part, b"alice@example.com");
        assert_eq!(address_of(&key), Some(&b"alice@example.com"[..]));
        assert_eq!(address_of(&address_key((part + 1) % PARTS, b"alice@example.com")), None);
        assert_eq!(address_of(&changes_key(3)), None);
        assert_eq!(address_of(b"strowger:{x}:aor:a@b"), None);
    }
}
