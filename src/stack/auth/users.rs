//! Who may register and call: the hashes of all users, built completely when the database is read and immutable afterwards. A
//! lookup is one hash lookup, however many users there are. A user without a hash can prove nothing, and does not count as one.

use super::digest::{Algorithm, Hash};
use crate::base::{BuildPrehashed, Key};
use std::collections::HashMap;

/// What is known of one user in one realm; `None` means unknown.
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
    rows: HashMap<u128, u32, BuildPrehashed>,
    md5: Column<16>,
    md5_whole: Column<16>,
    sha256: Column<32>,
    sha512_256: Column<32>,
    len: u32,
    /// For each realm, how many users have exactly which hashes ([`Users::has`]).
    realms: HashMap<u128, [u32; 1 << Algorithm::ALL.len()], BuildPrehashed>,
}

/// One hash for each user; empty if no user has one.
#[derive(Default)]
struct Column<const LEN: usize> {
    hashes: Vec<[u8; LEN]>,
}

impl<const LEN: usize> Column<LEN> {
    /// Stands for an unknown hash. No known password hashes to it.
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
        self.hashes[place] = hash;
    }

    fn get(&self, row: u32) -> Option<Hash> {
        let hash = self.hashes.get(row as usize)?;
        match *hash == Self::NONE {
            true => None,
            false => Hash::new(hash),
        }
    }
}

/// A user that was found.
#[derive(Clone, Copy)]
pub struct User<'a> {
    users: &'a Users,
    row: u32,
    /// Whether the name was written with its domain.
    whole: bool,
}

impl User<'_> {
    /// Returns the name as stored in the table; `login` is what it was found by.
    pub fn name<'l>(&self, login: &'l [u8]) -> &'l [u8] {
        match memchr::memrchr(b'@', login) {
            Some(at) if self.whole => &login[..at],
            _ => login,
        }
    }

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
    /// Creates the table. `key` prevents strangers from choosing names that collide.
    pub fn new(key: Key, expected: usize) -> Users {
        Users { key: Some(key), rows: HashMap::with_capacity_and_hasher(expected, BuildPrehashed::default()), ..Users::default() }
    }

    /// Adds a user, or replaces what was known of it. An entry without a hash is ignored.
    pub fn insert(&mut self, entry: &Entry) {
        let hashes = [entry.md5, entry.md5_whole, entry.sha256, entry.sha512_256];
        let places = (self.place(entry.name, entry.domain), self.place(b"", entry.domain));
        let (Some(place), Some(realm)) = places else {
            return;
        };
        if entry.name.is_empty() || hashes.iter().all(Option::is_none) {
            return;
        }
        let row = *self.rows.entry(place).or_insert(self.len);
        let before = (row < self.len).then(|| self.has(row));
        self.len = self.len.max(row + 1);
        self.md5.push(row, entry.md5.as_ref());
        self.md5_whole.push(row, entry.md5_whole.as_ref());
        self.sha256.push(row, entry.sha256.as_ref());
        self.sha512_256.push(row, entry.sha512_256.as_ref());
        let now = self.has(row);
        let counts = self.realms.entry(realm).or_default();
        if let Some(before) = before {
            counts[before] -= 1;
        }
        counts[now] += 1;
    }

    /// Returns the algorithms for which a user can answer a challenge, one bit each in the order of [`Algorithm::ALL`].
    fn has(&self, row: u32) -> usize {
        let user = |whole| User { users: self, row, whole };
        let knows = |algorithm| user(false).ha1(algorithm).is_some() || user(true).ha1(algorithm).is_some();
        bits(knows)
    }

    /// Finds the user that credentials name: `alice`, or `alice@example.com`, in the realm of the challenge.
    pub fn find(&self, name: &[u8], realm: &[u8]) -> Option<User<'_>> {
        let found = |name: &[u8], whole| {
            let row = *self.rows.get(&self.place(name, realm)?)?;
            Some(User { users: self, row, whole })
        };
        found(name, false).or_else(|| {
            let at = memchr::memrchr(b'@', name)?;
            let of_realm = name[at + 1..].eq_ignore_ascii_case(realm);
            of_realm.then(|| found(&name[..at], true)).flatten()
        })
    }

    /// Returns whether every user of a realm has a hash of this algorithm: otherwise some could not answer a challenge for it.
    /// Users that could not answer a challenge for any of `offered` are not counted.
    pub fn all_have(&self, realm: &[u8], algorithm: Algorithm, offered: &[Algorithm]) -> bool {
        let realm = self.place(b"", realm);
        let Some(counts) = realm.and_then(|realm| self.realms.get(&realm)) else {
            return true;
        };
        let offered = bits(|algorithm| offered.contains(&algorithm));
        let wanted = bits(|one| one == algorithm);
        let lacks = |has: usize| has & offered != 0 && has & wanted == 0;
        let mut kinds = counts.iter().enumerate();
        !kinds.any(|(has, count)| *count > 0 && lacks(has))
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Names are compared verbatim, domains without case.
    fn place(&self, name: &[u8], domain: &[u8]) -> Option<u128> {
        let key = self.key.as_ref()?;
        let mut lower = [0; 256];
        let lower = lower.get_mut(..domain.len())?;
        lower.copy_from_slice(domain);
        lower.make_ascii_lowercase();
        Some(key.wide(&[name, lower]))
    }
}

/// Returns one bit for each algorithm, in the order of [`Algorithm::ALL`].
fn bits(holds: impl Fn(Algorithm) -> bool) -> usize {
    let algorithms = Algorithm::ALL.into_iter().enumerate();
    algorithms.fold(0, |bits, (place, algorithm)| bits | usize::from(holds(algorithm)) << place)
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
        let md5_only = |name| Entry { sha256: None, ..entry(name, b"d", b"p") };
        users.insert(&md5_only(b"one"));
        users.insert(&entry(b"full", b"d", b"p"));
        users.insert(&md5_only(b"last"));
        users.insert(&entry(b"one", b"d", b"p"));
        users.insert(&md5_only(b"one"));
        assert_eq!(users.len(), 3);
        for name in [&b"one"[..], b"last"] {
            let user = users.find(name, b"d").unwrap();
            assert!(user.ha1(Algorithm::Md5).is_some() && user.ha1(Algorithm::Sha256).is_none());
        }
        for name in [&b"one"[..], b"last"] {
            users.insert(&entry(name, b"d", b"new"));
        }
        assert_eq!(users.len(), 3);
        let user = users.find(b"one", b"d").unwrap();
        let expected = ha1(Algorithm::Md5, b"one", b"d", b"new");
        assert!(user.ha1(Algorithm::Md5).unwrap().equals(&expected));
    }

    #[test]
    fn who_has_no_hash_is_no_user() {
        let mut users = Users::new(Key::new(1, 2), 0);
        let bare = |name| Entry { name, domain: b"d", ..Entry::default() };
        users.insert(&bare(b"bare"));
        users.insert(&entry(b"", b"d", b"p"));
        assert!(users.is_empty() && users.find(b"bare", b"d").is_none());
        users.insert(&entry(b"full", b"d", b"p"));
        users.insert(&bare(b"full"));
        let full = users.find(b"full", b"D").unwrap();
        assert!(full.ha1(Algorithm::Sha256).is_some());
        assert_eq!(users.len(), 1);
    }

    #[test]
    fn what_is_offered_is_a_matter_of_those_who_can_answer() {
        use Algorithm::{Md5, Sha256, Sha512_256};
        let offered = [Sha256, Md5];
        let mut users = Users::new(Key::new(1, 2), 0);
        let have = |users: &Users, realm: &[u8]| Algorithm::ALL.map(|algorithm| users.all_have(realm, algorithm, &offered));
        assert_eq!(have(&users, b"d"), [true; 3], "nobody is in the way of anything");
        users.insert(&entry(b"full", b"d", b"p"));
        assert_eq!(have(&users, b"D"), [true, true, false]);
        // Of another realm, of no use here, or no user at all.
        users.insert(&Entry { sha256: None, ..entry(b"old", b"elsewhere", b"p") });
        users.insert(&Entry {
            name: b"odd",
            domain: b"d",
            sha512_256: Some(ha1(Sha512_256, b"odd", b"d", b"p")),
            ..Entry::default()
        });
        users.insert(&Entry { name: b"bare", domain: b"d", ..Entry::default() });
        assert_eq!(have(&users, b"d"), [true, true, false]);
        assert_eq!(have(&users, b"elsewhere"), [true, false, false]);
        let old = Entry { sha256: None, ..entry(b"old", b"d", b"p") };
        users.insert(&old);
        assert_eq!(have(&users, b"d"), [true, false, false]);
        users.insert(&entry(b"old", b"d", b"p"));
        assert_eq!(have(&users, b"d"), [true, true, false]);
    }

    #[test]
    fn nobody_is_found_among_nobody() {
        assert!(Users::default().find(b"a", b"b").is_none());
        assert!(Users::default().is_empty());
    }
}
