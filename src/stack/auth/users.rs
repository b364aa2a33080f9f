//! Who may register and call: the hashes of all users, built completely when the database is read and immutable afterwards. A
//! lookup is one hash lookup, however many users there are. A user without a hash can prove nothing, and does not count as one.

use super::digest::{Algorithm, Hash};
use crate::base::{BuildPrehashed, Key};
use std::collections::HashMap;
use std::fmt;

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
    kinds: Kinds,
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

    /// Returns for which algorithms there is a hash with the name as it was given.
    pub fn known_here(&self) -> Known {
        Known::of(|algorithm| self.ha1(algorithm).is_some())
    }

    /// Returns for which algorithms the user can answer a challenge, by its bare name or by its whole address.
    pub fn known(&self) -> Known {
        self.users.known(self.row)
    }
}

/// The algorithms that there is a hash for: one bit each, in the order of [`Algorithm::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known(u8);

impl Known {
    pub fn of(holds: impl Fn(Algorithm) -> bool) -> Known {
        let algorithms = Algorithm::ALL.into_iter().enumerate();
        Known(algorithms.fold(0, |bits, (place, algorithm)| bits | u8::from(holds(algorithm)) << place))
    }

    pub fn has(self, algorithm: Algorithm) -> bool {
        self.0 & Known::of(|one| one == algorithm).0 != 0
    }

    fn has_all(self, algorithms: &[Algorithm]) -> bool {
        algorithms.iter().all(|algorithm| self.has(*algorithm))
    }

    fn has_any(self, algorithms: &[Algorithm]) -> bool {
        algorithms.iter().any(|algorithm| self.has(*algorithm))
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Algorithm::ALL.into_iter().filter(|algorithm| self.has(*algorithm)).map(Algorithm::name).collect();
        match names.split_last() {
            None => f.write_str("no hash"),
            Some((only, [])) => write!(f, "{only} alone"),
            Some((last, rest)) => write!(f, "{} and {last}", rest.join(", ")),
        }
    }
}

/// How many users have exactly which hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds([u32; 1 << Algorithm::ALL.len()]);

impl Kinds {
    pub fn add(&mut self, known: Known) {
        self.0[usize::from(known.0)] += 1;
    }

    fn remove(&mut self, known: Known) {
        self.0[usize::from(known.0)] -= 1;
    }

    fn each(&self) -> impl Iterator<Item = (Known, u32)> {
        let counts = self.0.iter().enumerate().rev();
        counts.filter(|(_, count)| **count > 0).map(|(bits, count)| (Known(bits as u8), *count))
    }

    /// Returns how many users have no hash for any of these algorithms, and how many have some but not all.
    pub fn lacking(&self, offered: &[Algorithm]) -> (u32, u32) {
        self.each().fold((0, 0), |(none, some), (known, count)| match (known.has_any(offered), known.has_all(offered)) {
            (false, _) => (none + count, some),
            (true, false) => (none, some + count),
            (true, true) => (none, some),
        })
    }

    /// Returns what a conf that offers these algorithms means for those users who lack a hash; empty if nobody does.
    pub fn consequences(&self, offered: &[Algorithm]) -> String {
        let (none, some) = self.lacking(offered);
        let names: Vec<&str> = offered.iter().map(|algorithm| algorithm.name()).collect();
        let names = names.join(", ");
        let mut said = Vec::new();
        if some > 0 {
            said.push(format!(
                "{some} have not all of {names}: in their own names they are offered what they have, and nothing else"
            ));
        }
        if none > 0 {
            said.push(format!("{none} have none of {names} ([auth] algorithms), and can answer no challenge"));
        }
        said.join("; ")
    }
}

/// As in `12 with MD5 and SHA-256, 1 with MD5 alone`; empty if there are none.
impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.each().map(|(known, count)| format!("{count} with {known}")).collect();
        f.write_str(&words.join(", "))
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
        let Some(place) = self.place(entry.name, entry.domain) else {
            return;
        };
        if entry.name.is_empty() || hashes.iter().all(Option::is_none) {
            return;
        }
        let row = *self.rows.entry(place).or_insert(self.len);
        let before = (row < self.len).then(|| self.known(row));
        self.len = self.len.max(row + 1);
        self.md5.push(row, entry.md5.as_ref());
        self.md5_whole.push(row, entry.md5_whole.as_ref());
        self.sha256.push(row, entry.sha256.as_ref());
        self.sha512_256.push(row, entry.sha512_256.as_ref());
        let now = self.known(row);
        if let Some(before) = before {
            self.kinds.remove(before);
        }
        self.kinds.add(now);
    }

    fn known(&self, row: u32) -> Known {
        let user = |whole| User { users: self, row, whole };
        Known::of(|algorithm| user(false).ha1(algorithm).is_some() || user(true).ha1(algorithm).is_some())
    }

    /// Returns how many users have exactly which hashes.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
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
    fn each_user_is_known_by_the_hashes_that_it_has() {
        use Algorithm::{Md5, Sha256, Sha512_256};
        let mut users = Users::new(Key::new(1, 2), 0);
        assert_eq!(users.kinds().to_string(), "");
        users.insert(&entry(b"full", b"d", b"p"));
        users.insert(&Entry { sha256: None, ..entry(b"old", b"d", b"p") });
        let whole = Entry { md5: None, sha256: None, ..entry(b"whole", b"d", b"p") };
        users.insert(&whole);
        users.insert(&Entry { md5: None, md5_whole: None, ..entry(b"new", b"d", b"p") });
        // No user at all.
        users.insert(&Entry { name: b"bare", domain: b"d", ..Entry::default() });
        let known = |name: &[u8]| Algorithm::ALL.map(|one| users.find(name, b"D").unwrap().known().has(one));
        assert_eq!(known(b"full"), [true, true, false]);
        assert_eq!(known(b"old"), [true, false, false]);
        assert_eq!(known(b"whole@d"), [true, false, false], "by its whole address");
        assert_eq!(known(b"new"), [false, true, false]);
        assert_eq!(users.kinds().to_string(), "1 with MD5 and SHA-256, 1 with SHA-256 alone, 2 with MD5 alone");
        assert_eq!(users.kinds().lacking(&[Sha256, Md5]), (0, 3));
        assert_eq!(users.kinds().lacking(&[Sha256]), (2, 0));
        assert_eq!(users.kinds().lacking(&[Sha512_256, Md5]), (1, 3));
        let said = users.kinds().consequences(&[Sha256]);
        assert_eq!(said, "2 have none of SHA-256 ([auth] algorithms), and can answer no challenge");
        // The last word counts here too.
        for name in [&b"old"[..], b"whole", b"new"] {
            users.insert(&entry(name, b"d", b"p"));
        }
        assert_eq!(users.kinds().to_string(), "4 with MD5 and SHA-256");
        assert_eq!(users.kinds().consequences(&[Sha256, Md5]), "");
    }

    #[test]
    fn nobody_is_found_among_nobody() {
        assert!(Users::default().find(b"a", b"b").is_none());
        assert!(Users::default().is_empty());
    }
}
