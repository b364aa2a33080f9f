//! Who may register and call: the hashes of all users, made whole by whoever reads the database and never changed afterwards. A look is
//! one hash lookup, however many users there are.

use super::digest::{Algorithm, Hash};
use crate::base::Key;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What is known of one user in one realm. What is `None` is not known.
#[derive(Clone, Copy, Default)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    /// The realm that the hashes were made with; the domain of the address-of-record.
    pub domain: &'a [u8],
    /// Of `name:domain:password`.
    pub md5: Option<Hash>,
    /// Of `name@domain:domain:password`, for phones that write their whole address as their name (`ha1b` of other servers).
    pub md5_whole: Option<Hash>,
    pub sha256: Option<Hash>,
    pub sha512_256: Option<Hash>,
}

/// All users. Memory: some 50 bytes for each with one MD5 hash, and 32 more for each SHA-2 hash.
#[derive(Default)]
pub struct Users {
    key: Option<Key>,
    rows: HashMap<u128, u32, BuildHasherDefault<Spread>>,
    md5: Column<16>,
    md5_whole: Column<16>,
    sha256: Column<32>,
    sha512_256: Column<32>,
    len: u32,
}

/// One hash for each user, none at all where no user has it.
#[derive(Default)]
struct Column<const LEN: usize> {
    hashes: Vec<[u8; LEN]>,
    held: u32,
}

impl<const LEN: usize> Column<LEN> {
    /// What stands for a hash that is not known. No password has it: nobody has found one in all the years.
    const NONE: [u8; LEN] = [0; LEN];

    fn push(&mut self, row: u32, hash: Option<&Hash>) {
        let hash = hash.and_then(|hash| <[u8; LEN]>::try_from(hash.bytes()).ok());
        let (place, hash) = (row as usize, hash.unwrap_or(Self::NONE));
        if self.hashes.len() <= place {
            if hash == Self::NONE {
                return;
            }
            self.hashes.resize(place + 1, Self::NONE);
        }
        let before = std::mem::replace(&mut self.hashes[place], hash);
        self.held -= u32::from(before != Self::NONE);
        self.held += u32::from(hash != Self::NONE);
    }

    fn get(&self, row: u32) -> Option<Hash> {
        let hash = self.hashes.get(row as usize)?;
        match *hash == Self::NONE {
            true => None,
            false => Hash::new(hash),
        }
    }
}

/// One user that was found.
#[derive(Clone, Copy)]
pub struct User<'a> {
    users: &'a Users,
    row: u32,
    /// The name was written with its domain.
    whole: bool,
}

impl User<'_> {
    pub fn ha1(&self, algorithm: Algorithm) -> Option<Hash> {
        match (algorithm, self.whole) {
            (Algorithm::Md5, false) => self.users.md5.get(self.row),
            (Algorithm::Md5, true) => self.users.md5_whole.get(self.row),
            (Algorithm::Sha256, false) => self.users.sha256.get(self.row),
            (Algorithm::Sha512_256, false) => self.users.sha512_256.get(self.row),
            (_, true) => None,
        }
    }
}

impl Users {
    /// `key` keeps strangers from choosing names that collide.
    pub fn new(key: Key, expected: usize) -> Users {
        Users {
            key: Some(key),
            rows: HashMap::with_capacity_and_hasher(expected, BuildHasherDefault::default()),
            ..Users::default()
        }
    }

    /// Adds a user, or replaces what was known of it.
    pub fn insert(&mut self, entry: &Entry) {
        let Some(place) = self.place(entry.name, entry.domain) else {
            return;
        };
        let row = *self.rows.entry(place).or_insert(self.len);
        self.len = self.len.max(row + 1);
        self.md5.push(row, entry.md5.as_ref());
        self.md5_whole.push(row, entry.md5_whole.as_ref());
        self.sha256.push(row, entry.sha256.as_ref());
        self.sha512_256.push(row, entry.sha512_256.as_ref());
    }

    /// The user that credentials name: `alice`, or `alice@example.com`, in the realm of the challenge.
    pub fn find(&self, name: &[u8], realm: &[u8]) -> Option<User<'_>> {
        let found = |name: &[u8], whole| {
            let row = *self.rows.get(&self.place(name, realm)?)?;
            Some(User {
                users: self,
                row,
                whole,
            })
        };
        found(name, false).or_else(|| {
            let at = memchr::memrchr(b'@', name)?;
            let of_realm = name[at + 1..].eq_ignore_ascii_case(realm);
            of_realm.then(|| found(&name[..at], true)).flatten()
        })
    }

    /// Whether every user has a hash of this algorithm: else some could not answer a challenge for it.
    pub fn all_have(&self, algorithm: Algorithm) -> bool {
        let held = match algorithm {
            Algorithm::Md5 => self.md5.held,
            Algorithm::Sha256 => self.sha256.held,
            Algorithm::Sha512_256 => self.sha512_256.held,
        };
        held == self.len
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Names are compared as they are, domains without case.
    fn place(&self, name: &[u8], domain: &[u8]) -> Option<u128> {
        let key = self.key.as_ref()?;
        let mut lower = [0; 256];
        let lower = lower.get_mut(..domain.len())?;
        lower.copy_from_slice(domain);
        lower.make_ascii_lowercase();
        Some(key.wide(&[name, lower]))
    }
}

/// The places are hashes already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::ha1;
    use super::*;

    fn entry<'a>(name: &'a [u8], domain: &'a [u8], password: &[u8]) -> Entry<'a> {
        let whole = [name, b"@", domain].concat();
        Entry {
            name,
            domain,
            md5: Some(ha1(Algorithm::Md5, name, domain, password)),
            md5_whole: Some(ha1(Algorithm::Md5, &whole, domain, password)),
            sha256: Some(ha1(Algorithm::Sha256, name, domain, password)),
            sha512_256: None,
        }
    }

    #[test]
    fn users_are_found_by_name_and_realm() {
        let mut users = Users::new(Key::new(1, 2), 10);
        users.insert(&entry(b"alice", b"example.com", b"a"));
        users.insert(&entry(b"alice", b"example.net", b"b"));
        let com = users.find(b"alice", b"EXAMPLE.com").unwrap();
        let net = users.find(b"alice", b"example.net").unwrap();
        let md5 = |user: User| user.ha1(Algorithm::Md5).unwrap();
        assert!(md5(com).equals(&ha1(Algorithm::Md5, b"alice", b"example.com", b"a")));
        assert!(md5(net).equals(&ha1(Algorithm::Md5, b"alice", b"example.net", b"b")));
        assert!(com.ha1(Algorithm::Sha256).is_some() && com.ha1(Algorithm::Sha512_256).is_none());
        for (name, realm) in [
            (&b"Alice"[..], &b"example.com"[..]),
            (b"bob", b"example.com"),
            (b"alice", b"example.org"),
            (b"alice@example.net", b"example.com"),
            (b"", b""),
        ] {
            assert!(users.find(name, realm).is_none());
        }
        let whole = users.find(b"alice@Example.com", b"example.com").unwrap();
        let expected = ha1(Algorithm::Md5, b"alice@example.com", b"example.com", b"a");
        assert!(md5(whole).equals(&expected));
        assert!(whole.ha1(Algorithm::Sha256).is_none());
    }

    #[test]
    fn the_last_word_counts_and_gaps_stay_gaps() {
        let mut users = Users::new(Key::new(1, 2), 0);
        let bare = Entry {
            name: b"bare",
            domain: b"d",
            ..Entry::default()
        };
        users.insert(&bare);
        assert!(!users.all_have(Algorithm::Md5));
        users.insert(&entry(b"full", b"d", b"p"));
        users.insert(&Entry {
            name: b"last",
            ..bare
        });
        users.insert(&entry(b"bare", b"d", b"p"));
        users.insert(&bare);
        assert_eq!(users.len(), 3);
        for name in [&b"bare"[..], b"last"] {
            let user = users.find(name, b"d").unwrap();
            assert!(Algorithm::ALL.iter().all(|a| user.ha1(*a).is_none()));
        }
        for name in [&b"bare"[..], b"last"] {
            users.insert(&entry(name, b"d", b"new"));
        }
        assert_eq!(users.len(), 3);
        assert!(users.all_have(Algorithm::Md5) && users.all_have(Algorithm::Sha256));
        assert!(!users.all_have(Algorithm::Sha512_256));
        let user = users.find(b"bare", b"d").unwrap();
        let expected = ha1(Algorithm::Md5, b"bare", b"d", b"new");
        assert!(user.ha1(Algorithm::Md5).unwrap().equals(&expected));
    }

    #[test]
    fn nobody_is_found_among_nobody() {
        assert!(Users::default().find(b"a", b"b").is_none());
        assert!(Users::default().is_empty());
    }
}
