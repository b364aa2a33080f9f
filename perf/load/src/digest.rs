//! Digest on the client's side (RFC 3261 §22, RFC 7616 §3.3, §3.4): which challenge is answered, with what, and the nonces that users keep.
//! How challenges are read and what is hashed is the server's library's.

use std::rc::Rc;

use clap::{Args, ValueEnum};
use strowger::sip::{self, Challenge};
use strowger::stack::auth::digest::{Algorithm, Hash, response};

use crate::accounts::{Accounts, NameArguments};
use crate::message::Message;
use crate::stats::{Count, Stats};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Manner {
    /// Each request leaves without credentials first, and its challenge is answered
    New,
    /// A nonce is used again and again, counting, until the server wants another
    Kept,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Protection {
    /// qop=auth where the server offers it
    Auth,
    /// None, as the clients of RFC 2069 do
    None,
}

#[derive(Args)]
pub struct AuthArguments {
    /// Answer the registrar's 401 and the proxy's 407. Without it a challenge is an error
    #[arg(long, value_enum)]
    auth: Option<Manner>,
    /// With --auth: the first challenge of this algorithm is answered, md5, sha-256 or sha-512-256
    #[arg(long, value_parser = algorithm, default_value = "md5")]
    algorithm: Algorithm,
    #[arg(long, value_enum, default_value_t = Protection::Auth)]
    qop: Protection,
    #[command(flatten)]
    names: NameArguments,
}

/// Reads the name of an algorithm, as options give it.
pub fn algorithm(name: &str) -> Result<Algorithm, &'static str> {
    match Algorithm::parse(name.as_bytes()) {
        Some((algorithm, false)) => Ok(algorithm),
        _ => Err("not md5, sha-256 or sha-512-256"),
    }
}

/// Whether a challenge asks for this algorithm; it is MD5 where none is named.
fn asks_for(challenge: &Challenge, algorithm: Algorithm) -> bool {
    challenge.algorithm.map_or(Some((Algorithm::Md5, false)), Algorithm::parse) == Some((algorithm, false))
}

/// Whether `auth` is among the kinds of protection that a challenge offers.
fn offers_auth(challenge: &Challenge) -> bool {
    let mut offered = challenge.qop.unwrap_or_default().split(|byte| *byte == b',');
    offered.any(|qop| qop.trim_ascii().eq_ignore_ascii_case(b"auth"))
}

/// Who asks, and so which headers the question and the answer stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// 401, WWW-Authenticate, Authorization.
    Registrar,
    /// 407, Proxy-Authenticate, Proxy-Authorization.
    Proxy,
}

impl Asker {
    /// The first letter of the header that brings the challenge, in lower case.
    fn initial(self) -> u8 {
        match self {
            Asker::Registrar => b'w',
            Asker::Proxy => b'p',
        }
    }

    fn answer_in(self) -> &'static [u8] {
        match self {
            Asker::Registrar => b"Authorization",
            Asker::Proxy => b"Proxy-Authorization",
        }
    }
}

impl AuthArguments {
    pub fn accounts(&self) -> Rc<Accounts> {
        self.names.accounts()
    }

    /// What the users of one flow answer with; nothing without `--auth`.
    pub fn credentials(&self, accounts: &Rc<Accounts>, cnonce: &str) -> Option<Credentials> {
        let manner = self.auth?;
        let users = accounts.names.count() as usize;
        Some(Credentials {
            accounts: accounts.clone(),
            manner,
            algorithm: self.algorithm,
            protection: self.qop,
            cnonce: cnonce.as_bytes().to_vec(),
            realm: Vec::new(),
            ha1: vec![None; users],
            sessions: (0..users).map(|_| Session::default()).collect(),
        })
    }
}

/// What a request said of its sender when it was challenged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Carried {
    #[default]
    Nothing,
    /// Credentials with a nonce from before.
    Kept,
    /// Credentials with the nonce of the challenge that it answers.
    Fresh,
}

/// The request that credentials are for.
pub struct Request<'a> {
    pub asker: Asker,
    pub method: &'static str,
    pub uri: &'a [u8],
}

/// The users of one flow, as challenged ones.
pub struct Credentials {
    accounts: Rc<Accounts>,
    manner: Manner,
    algorithm: Algorithm,
    protection: Protection,
    cnonce: Vec<u8>,
    /// Of the last challenge.
    realm: Vec<u8>,
    /// By user, where it is known for this realm.
    ha1: Vec<Option<Hash>>,
    sessions: Vec<Session>,
}

/// A user's last nonce.
#[derive(Default)]
struct Session {
    nonce: Vec<u8>,
    opaque: Option<Vec<u8>>,
    /// How often the nonce has been used.
    count: u32,
    /// With `qop=auth`.
    counts: bool,
    names_algorithm: bool,
}

/// A server that says more than this in a challenge is not answered: the request would not fit a datagram.
const LONGEST_CHALLENGE: usize = 1_024;

impl Credentials {
    /// Before a user's request leaves for the first time: whether it carries credentials.
    pub fn begin(&mut self, user: u32) -> Carried {
        let session = &mut self.sessions[user as usize];
        if self.manner == Manner::New || session.nonce.is_empty() {
            return Carried::Nothing;
        }
        session.count += 1;
        Carried::Kept
    }

    /// A request of this user was challenged. True where it is to be sent again, with credentials ([`Credentials::write`]).
    pub fn challenged(&mut self, user: u32, asker: Asker, carried: Carried, message: &Message, stats: &mut Stats) -> bool {
        let raw = message.raw;
        let lines = message.challenges.as_slice().iter();
        let found = lines
            .filter(|line| message.whole(**line)[0] | 0x20 == asker.initial())
            .filter_map(|line| Challenge::parse(message.value(*line)).ok().flatten())
            .find(|challenge| asks_for(challenge, self.algorithm));
        let Some(challenge) = found else {
            stats.wrong("no challenge of the chosen algorithm", raw);
            return false;
        };
        let opaque = challenge.opaque.unwrap_or_default();
        if challenge.realm.len() + challenge.nonce.len() + opaque.len() > LONGEST_CHALLENGE {
            stats.wrong("a challenge too long to be answered", raw);
            return false;
        }
        stats.counts.add(Count::Challenged);
        if challenge.stale {
            stats.counts.add(Count::Stale);
        }
        let session = &mut self.sessions[user as usize];
        // A kept nonce may have served its time without the server's saying so; the one it has just given may not.
        if carried == Carried::Fresh || (carried == Carried::Kept && session.nonce == challenge.nonce && !challenge.stale) {
            stats.counts.add(Count::CredentialsRefused);
            stats.wrong("credentials refused", raw);
            return false;
        }
        session.nonce.clear();
        session.nonce.extend_from_slice(challenge.nonce);
        session.opaque = challenge.opaque.map(<[u8]>::to_vec);
        session.count = 1;
        session.counts = offers_auth(&challenge) && self.protection == Protection::Auth;
        session.names_algorithm = challenge.algorithm.is_some();
        if challenge.realm != self.realm {
            self.realm = challenge.realm.to_vec();
            self.ha1.fill(None);
        }
        true
    }

    /// Appends the header line with which the user's request answers its last challenge, the same again until the nonce is counted up.
    pub fn write(&mut self, user: u32, request: &Request, out: &mut Vec<u8>) {
        let (accounts, realm, algorithm) = (&self.accounts, &self.realm[..], self.algorithm);
        let ha1 = *self.ha1[user as usize].get_or_insert_with(|| accounts.ha1(user, realm, algorithm));
        let Session { nonce, opaque, count, counts, names_algorithm } = &self.sessions[user as usize];
        let (username, nonce, uri) = (accounts.names.name(user), &nonce[..], request.uri);
        let mut credentials = sip::Credentials { username, realm, nonce, uri, ..sip::Credentials::default() };
        let mut nc = String::new();
        if *counts {
            nc = format!("{count:08x}");
            credentials.cnonce = Some(&self.cnonce);
            credentials.qop = Some(b"auth");
            credentials.nc = Some(nc.as_bytes());
        }
        let response = response(algorithm, false, &ha1, &credentials, request.method.as_bytes(), b"");
        let response = response.expect("its qop has all that it needs").hex();
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[request.asker.answer_in(), b": Digest username=\"", username, b"\",realm=\"", realm, b"\",nonce=\"", nonce]);
        put(&[b"\",uri=\"", uri, b"\",response=\"", response.bytes(), b"\""]);
        if *names_algorithm {
            put(&[b",algorithm=", algorithm.name().as_bytes()]);
        }
        if let Some(opaque) = opaque {
            put(&[b",opaque=\"", opaque, b"\""]);
        }
        if *counts {
            put(&[b",cnonce=\"", &self.cnonce, b"\",qop=auth,nc=", nc.as_bytes()]);
        }
        put(&[b"\r\n"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use clap::Parser;
    use strowger::stack::auth::digest::hash;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        auth: AuthArguments,
    }

    fn credentials(line: &str) -> Credentials {
        let line = Line::parse_from(["x"].into_iter().chain(line.split_whitespace()));
        let accounts = line.auth.accounts();
        let found = line.auth.credentials(&accounts, "0badcafe");
        found.expect("--auth is given")
    }

    fn challenge(lines: &str) -> Vec<u8> {
        format!("SIP/2.0 401 Unauthorized\r\nVia: x\r\n{lines}Content-Length: 0\r\n\r\n").into_bytes()
    }

    #[test]
    fn what_a_challenge_asks_for() {
        let read = |text: &'static [u8]| Challenge::parse(text).ok().flatten().expect("a challenge");
        let challenge = read(b"Digest realm=\"r\",nonce=\"n\",qop = \"auth-int, Auth\",algorithm=sha-256");
        assert!(asks_for(&challenge, Algorithm::Sha256) && !asks_for(&challenge, Algorithm::Md5));
        assert!(offers_auth(&challenge));
        let bare = read(b"Digest realm=\"r\", nonce=\"n\"");
        assert!(asks_for(&bare, Algorithm::Md5) && !offers_auth(&bare));
        let other = read(b"Digest realm=\"r\",nonce=\"n\",qop=\"auth-int\",algorithm=MD5-sess");
        assert!(!asks_for(&other, Algorithm::Md5) && !offers_auth(&other));
        assert_eq!((algorithm("sha-256"), algorithm("md5")), (Ok(Algorithm::Sha256), Ok(Algorithm::Md5)));
        assert!(algorithm("md5-sess").is_err() && algorithm("sha").is_err());
    }

    #[test]
    fn an_algorithm_that_is_not_named_is_not_named_again_and_opaque_comes_back() {
        let mut stats = Stats::new();
        let bare = "WWW-Authenticate: Digest realm=\"r\",nonce=\"n1\",opaque=\"o\"\r\n";
        let said = answer(&mut credentials("--auth new"), Carried::Nothing, bare, &mut stats);
        let expected = expected("n1", None).replace(",algorithm=MD5", ",opaque=\"o\"");
        assert_eq!(said, Some(expected));
    }

    const MD5: &str = "WWW-Authenticate: Digest realm=\"r\",nonce=\"n1\",algorithm=MD5,qop=\"auth\"\r\n";

    /// What a challenge comes to: whether it is answered, and with what.
    fn answer(to: &mut Credentials, carried: Carried, lines: &str, stats: &mut Stats) -> Option<String> {
        let raw = challenge(lines);
        let message = message::read(&raw).expect("whole");
        to.challenged(1, Asker::Registrar, carried, &message, stats).then(|| write(to))
    }

    fn write(credentials: &mut Credentials) -> String {
        let request = Request { asker: Asker::Registrar, method: "REGISTER", uri: b"sip:h" };
        let mut line = Vec::new();
        credentials.write(1, &request, &mut line);
        String::from_utf8(line).expect("text")
    }

    fn expected(nonce: &str, count: Option<u32>) -> String {
        let hex = |parts: &[&[u8]]| String::from_utf8(hash(Algorithm::Md5, parts).hex().bytes().to_vec()).expect("digits");
        let ha1 = hex(&[b"u00001", b"r", b"pwu00001"]);
        let ha2 = hex(&[b"REGISTER", b"sip:h"]);
        let (middle, end) = match count {
            None => (nonce.to_owned(), String::new()),
            Some(count) => (format!("{nonce}:{count:08x}:0badcafe:auth"), format!(",cnonce=\"0badcafe\",qop=auth,nc={count:08x}")),
        };
        let response = hex(&[ha1.as_bytes(), middle.as_bytes(), ha2.as_bytes()]);
        format!(
            "Authorization: Digest username=\"u00001\",realm=\"r\",nonce=\"{nonce}\",uri=\"sip:h\",\
             response=\"{response}\",algorithm=MD5{end}\r\n"
        )
    }

    #[test]
    fn a_kept_nonce_is_counted_up_and_given_up_when_it_is_stale() {
        let mut kept = credentials("--auth kept --users 10");
        let mut stats = Stats::new();
        assert_eq!(kept.begin(1), Carried::Nothing);
        let first = answer(&mut kept, Carried::Nothing, MD5, &mut stats);
        assert_eq!(first, Some(expected("n1", Some(1))));
        for count in 2..20 {
            assert_eq!(kept.begin(1), Carried::Kept);
            assert_eq!(write(&mut kept), expected("n1", Some(count)));
            // The same request again is the same to the byte.
            assert_eq!(write(&mut kept), expected("n1", Some(count)));
        }
        // Nobody else has it.
        assert_eq!(kept.begin(2), Carried::Nothing);
        let stale = MD5.replace("n1", "n2\",stale=\"true");
        let second = answer(&mut kept, Carried::Kept, &stale, &mut stats);
        assert_eq!(second, Some(expected("n2", Some(1))));
        assert_eq!(stats.counts.get(Count::Challenged), 2);
        assert_eq!(stats.counts.get(Count::Stale), 1);
        assert_eq!(stats.counts.get(Count::CredentialsRefused), 0);
    }

    #[test]
    fn who_is_refused_does_not_try_again() {
        for (carried, refused) in [(Carried::Nothing, false), (Carried::Kept, true), (Carried::Fresh, true)] {
            let mut kept = credentials("--auth kept");
            let mut stats = Stats::new();
            assert!(answer(&mut kept, Carried::Nothing, MD5, &mut stats).is_some());
            let again = answer(&mut kept, carried, MD5, &mut stats);
            assert_eq!(again.is_none(), refused, "{carried:?}");
            let count = stats.counts.get(Count::CredentialsRefused);
            assert_eq!(count, u64::from(refused), "{carried:?}");
        }
        // A kept nonce that the server has forgotten.
        let mut kept = credentials("--auth kept");
        let mut stats = Stats::new();
        assert!(answer(&mut kept, Carried::Nothing, MD5, &mut stats).is_some());
        let other = MD5.replace("n1", "n2");
        assert!(answer(&mut kept, Carried::Kept, &other, &mut stats).is_some());
    }

    #[test]
    fn the_challenge_of_the_chosen_algorithm_and_header_is_taken() {
        let both = format!(
            "{}Proxy-Authenticate: Digest realm=\"r\",nonce=\"n9\",algorithm=MD5\r\n{MD5}",
            MD5.replace("MD5", "SHA-256").replace("n1", "n0"),
        );
        let mut stats = Stats::new();
        let mut md5 = credentials("--auth new");
        let said = answer(&mut md5, Carried::Nothing, &both, &mut stats);
        assert_eq!(said, Some(expected("n1", Some(1))));
        let mut sha256 = credentials("--auth new --algorithm sha-256");
        let said = answer(&mut sha256, Carried::Nothing, &both, &mut stats).expect("an answer");
        assert!(said.contains("nonce=\"n0\"") && said.contains(",algorithm=SHA-256,"), "{said}");
        // Nothing of the kind, or too much.
        assert_eq!(answer(&mut sha256, Carried::Nothing, MD5, &mut stats), None);
        let long = MD5.replace("n1", &"n".repeat(LONGEST_CHALLENGE));
        assert_eq!(answer(&mut md5, Carried::Nothing, &long, &mut stats), None);
        assert_eq!(stats.counts.get(Count::Wrong), 2);
    }

    #[test]
    fn another_realm_is_another_secret() {
        let mut new = credentials("--auth new");
        let mut stats = Stats::new();
        let first = answer(&mut new, Carried::Nothing, MD5, &mut stats);
        let other = MD5.replace("\"r\"", "\"other\"");
        let second = answer(&mut new, Carried::Nothing, &other, &mut stats).expect("an answer");
        assert_ne!(first.as_deref().map(response), Some(response(&second)));
        let third = answer(&mut new, Carried::Nothing, MD5, &mut stats);
        assert_eq!(third, first);
    }

    fn response(line: &str) -> &str {
        let start = line.find("response=\"").expect("a response") + 10;
        &line[start..start + 32]
    }
}
