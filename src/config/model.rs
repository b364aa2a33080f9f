//! The conf as plain checked data: what [`load`](super::load) makes of a TOML file, with the defaults of every key.
//!
//! `conf/strowger.toml` says what each key means; the names here are the same.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A whole conf. It is immutable once loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conf {
    pub server: Server,
    pub listen: Listeners,
    pub tls: Tls,
    pub connections: Connections,
    pub proxy: Proxy,
    pub registrar: Registrar,
    pub auth: Auth,
    /// In the order of the file: the first that matches wins.
    pub routes: Vec<Route>,
    pub timers: Timers,
    pub limits: Limits,
    pub udp: Udp,
    pub dns: Dns,
    pub control: Control,
    pub metrics: Metrics,
    pub log: Log,
}

impl Conf {
    /// Every certificate with its key.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        let tls = &self.tls;
        let named = tls.identities.iter().flat_map(|identity| &identity.pairs);
        let of_routes = self.routes.iter().flat_map(|route| &route.certificate);
        let own = tls.identity.iter().chain(&tls.client_identity);
        own.chain(named).chain(of_routes)
    }

    /// Whether anybody is ever asked who they are: only then are there users to be read.
    pub fn challenges(&self) -> bool {
        self.auth.challenge_register || self.challenges_calls()
    }

    /// Whether a request that is to be relayed is ever challenged.
    pub fn challenges_calls(&self) -> bool {
        let of_route =
            |route: &Route| route.challenge == Some(true) || route.from == Callers::Users;
        self.auth.challenge_proxy || self.routes.iter().any(of_route)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// One worker is pinned to each of these CPU cores. 1 to 255 of them, no core twice.
    pub cores: Vec<usize>,
    /// The hosts this server is responsible for; its own listen addresses are so without being named.
    pub domains: Vec<Host>,
    /// The file that keeps the server's secret across restarts.
    pub key_file: PathBuf,
    /// How long a server that was told to stop waits for the requests that it has begun.
    pub drain_deadline: Duration,
    /// The user that the server becomes once its keys are read; `None`: it stays who it is.
    pub user: Option<String>,
    /// The group, instead of that user's. Only where there is a user.
    pub group: Option<String>,
    /// Whether a crash may leave a core, with all keys in it.
    pub core_dumps: bool,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            cores: vec![0],
            domains: Vec::new(),
            key_file: PathBuf::from("strowger.key"),
            drain_deadline: Duration::from_secs(30),
            user: None,
            group: None,
            core_dumps: false,
        }
    }
}

/// The listeners: never empty, no address twice for one transport, nor for TCP and TLS. Where one speaks TLS,
/// [`Tls::identity`] is not empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Listeners(pub(super) Vec<Listen>);

impl std::ops::Deref for Listeners {
    type Target = [Listen];

    fn deref(&self) -> &[Listen] {
        &self.0
    }
}

impl Default for Listeners {
    fn default() -> Listeners {
        let listen = |transport: Transport| Listen {
            transport,
            address: transport.default_address(),
            advertise: None,
        };
        Listeners(vec![listen(Transport::Udp), listen(Transport::Tcp)])
    }
}

/// One `[[listen]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub transport: Transport,
    pub address: SocketAddr,
    /// What Via and Record-Route say instead of the address. Always given where the address is a wildcard.
    pub advertise: Option<HostPort>,
}

impl Listen {
    /// What Via and Record-Route say (RFC 3261 §18.1.1 `sent-by`).
    pub fn sent_by(&self) -> HostPort {
        self.advertise.clone().unwrap_or(HostPort {
            host: Host::Address(self.address.ip()),
            port: self.address.port(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// The port of a URI that names none (RFC 3261 §19.1.2).
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
        }
    }

    /// Where a `[[listen]]` listens that names no address.
    pub fn default_address(self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.default_port())
    }

    /// TCP carries it.
    pub fn is_stream(self) -> bool {
        self != Transport::Udp
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        })
    }
}

/// A host as SIP writes it: a name in lower case, or an address (IPv6 in brackets).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: Host,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How connections are made secure. The files were there, and were PEM of their kind, when the conf was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// What we show as server to clients that ask for no other name: at most two pairs. Empty: no listener speaks TLS.
    pub identity: Vec<Pair>,
    /// Further identities by the name that the client asks for (SNI); no name twice.
    pub identities: Vec<Identity>,
    /// What we show as client to servers that ask; empty: `identity`.
    pub client_identity: Vec<Pair>,
    /// False: nothing is shown to servers, and `client_identity` is empty.
    pub show_client_certificate: bool,
    /// The authorities that peers' certificates must come from; `None`: the system's, which vouch for servers only.
    pub trusted_ca: Option<PathBuf>,
    /// `No` where there is no `trusted_ca`.
    pub verify_client: VerifyClient,
    /// What a client's certificate must be made for, one of these at least; never empty.
    pub client_purposes: Vec<Purpose>,
    /// The chain and the name (RFC 5922) of each server we connect to.
    pub verify_server: bool,
    pub min_version: TlsVersion,
    /// Not below `min_version`.
    pub max_version: TlsVersion,
    /// OpenSSL's list for TLS 1.2; empty: a modern default.
    pub ciphers: String,
    /// OpenSSL's list for TLS 1.3; empty: the library's default.
    pub ciphersuites: String,
    /// Key exchange groups, the one that is offered first at the beginning; never empty. Those of the default that the library does not
    /// have are left out.
    pub groups: Vec<String>,
    pub server_session_reuse: bool,
    pub client_session_reuse: bool,
    /// How long a session can be resumed; whole seconds.
    pub session_lifetime: Duration,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            identity: Vec::new(),
            identities: Vec::new(),
            client_identity: Vec::new(),
            show_client_certificate: true,
            trusted_ca: None,
            verify_client: VerifyClient::No,
            client_purposes: vec![Purpose::ClientAuth],
            verify_server: true,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            ciphers: String::new(),
            ciphersuites: String::new(),
            groups: ["X25519MLKEM768", "X25519", "P-256", "P-384"]
                .map(str::to_owned)
                .into(),
            server_session_reuse: true,
            client_session_reuse: true,
            session_lifetime: Duration::from_secs(3600),
        }
    }
}

/// The PEM files of a certificate with its chain, and of the private key that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

/// One `[[tls.identity]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A DNS name in lower case.
    pub name: String,
    /// One or two.
    pub pairs: Vec<Pair>,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    No,
    /// Asked, and it must be good where one comes.
    Optional,
    Required,
}

impl fmt::Display for VerifyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VerifyClient::No => "no",
            VerifyClient::Optional => "optional",
            VerifyClient::Required => "required",
        })
    }
}

/// A key purpose (RFC 5280 §4.2.1.12) that is accepted of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    ClientAuth,
    ServerAuth,
    /// Whatever it was made for.
    Any,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::ClientAuth => "clientAuth",
            Purpose::ServerAuth => "serverAuth",
            Purpose::Any => "any",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        })
    }
}

/// How connections over TCP and TLS are made, kept and ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Connections {
    pub outgoing: Outgoing,
    /// After so long without a byte either way a connection is closed.
    pub idle_timeout: Duration,
    /// How long a message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// For the TCP handshake of a connection that we open.
    pub connect_timeout: Duration,
    /// For the TLS handshake, whoever began it.
    pub handshake_timeout: Duration,
    /// Connections of the whole server; `None`: as many as the process may open files.
    pub max: Option<usize>,
    /// TLS handshakes at a time, of one core.
    pub handshakes: usize,
    /// Bytes that may wait to be sent on one connection.
    pub send_queue: usize,
    /// Bytes that may wait on all connections, before each may have no more than a part of `send_queue`.
    pub unsent_bytes: usize,
    /// Bytes that messages which have begun and are not whole may hold, those of all connections.
    pub unfinished_bytes: usize,
    /// Bytes of keep-alives and blank lines that one connection may bring in a minute without a message.
    pub keep_alive_bytes: usize,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            outgoing: Outgoing::Reuse,
            idle_timeout: Duration::from_secs(120),
            message_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            max: None,
            handshakes: 512,
            send_queue: 256 * 1024,
            unsent_bytes: 256 << 20,
            unfinished_bytes: 64 << 20,
            keep_alive_bytes: 1 << 10,
        }
    }
}

impl Connections {
    /// Connections of the whole server, where the process may open `files` files: some are left for listeners, polls and
    /// operators.
    pub fn most(&self, files: usize) -> usize {
        self.max
            .unwrap_or_else(|| files.saturating_sub(64 + files / 16).max(1))
    }
}

/// Which connection a request takes to a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// The one that is open to the same peer under the same name.
    Reuse,
    /// A new one for each call, closed when the call is over.
    PerCall,
}

impl fmt::Display for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outgoing::Reuse => "reuse",
            Outgoing::PerCall => "per-call",
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    pub mode: Mode,
    pub record_route: bool,
    pub fork: Fork,
    /// Answer 302 with the targets instead of relaying.
    pub redirect: bool,
    /// Branches that one request may open from here on (RFC 5393 §5).
    pub max_breadth: u32,
    pub in_dialog_without_route: InDialog,
}

/// What is done with a request within a dialog that is for one of our users and shows no route of ours, where we record routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDialog {
    Relay,
    Refuse,
}

impl Default for Proxy {
    fn default() -> Proxy {
        Proxy {
            mode: Mode::Stateful,
            record_route: true,
            fork: Fork::Parallel,
            redirect: false,
            max_breadth: 60,
            in_dialog_without_route: InDialog::Relay,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Stateful,
    Stateless,
}

/// In which order the targets of one request are tried; equal q is always tried in parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    Parallel,
    Sequential,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Registrar {
    pub enabled: bool,
    pub min_expires: Duration,
    /// Between the two others.
    pub default_expires: Duration,
    pub max_expires: Duration,
    /// Contacts of one address-of-record.
    pub max_contacts: usize,
    /// Where contacts may lie besides where they were registered from; none: anywhere but where only this host has a say.
    pub contact_networks: Vec<Network>,
    /// The SQLite database that bindings are kept in; `None`: in memory only.
    pub database: Option<PathBuf>,
    /// `Batched` where there is no `database`.
    pub durability: Durability,
}

impl Default for Registrar {
    fn default() -> Registrar {
        Registrar {
            enabled: true,
            min_expires: Duration::from_secs(60),
            default_expires: Duration::from_secs(3600),
            max_expires: Duration::from_secs(3600),
            max_contacts: 10,
            contact_networks: Vec::new(),
            database: Some(PathBuf::from("strowger.db")),
            durability: Durability::Batched,
        }
    }
}

/// When a registration is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// At once; the disk follows.
    Batched,
    /// When it is on disk.
    Acknowledged,
}

/// Who must prove to be whom, by Digest (RFC 3261 §22).
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Fit to stand in a quoted string as it is; empty: the domain of the request.
    pub realm: String,
    /// 401 to a REGISTER.
    pub challenge_register: bool,
    /// 407 to a request from one of our users.
    pub challenge_proxy: bool,
    /// The same for a BYE within a dialog. Not without [`Conf::challenges_calls`].
    pub challenge_bye: bool,
    /// Offered in this order; never empty, none twice.
    pub algorithms: Vec<Algorithm>,
    pub qop: bool,
    pub nonce_lifetime: Duration,
    /// Wrong passwords a minute from one source for one user; 0: any number.
    pub guesses: u32,
    pub check_uri: UriCheck,
    /// `Off` where clients are not asked for certificates.
    pub certificate: Certificate,
    /// A SQLite database, or a text file.
    pub users: PathBuf,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            realm: String::new(),
            challenge_register: false,
            challenge_proxy: false,
            challenge_bye: false,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            qop: true,
            nonce_lifetime: Duration::from_secs(300),
            guesses: 10,
            check_uri: UriCheck::Address,
            certificate: Certificate::Off,
            users: PathBuf::from("strowger.db"),
        }
    }
}

/// How exactly the `uri` of credentials must be the Request-URI (RFC 7616 §3.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriCheck {
    /// The same by RFC 3261 §19.1.4.
    Strict,
    /// The same user at the same host.
    Address,
    Off,
}

/// What a client's certificate says of who it is (RFC 5922 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    Off,
    /// It proves an identity, in the place of a password.
    Identity,
    /// It proves an identity, and a password is asked for besides.
    IdentityAndPassword,
}

/// A hash function that a challenge names (RFC 8760). Each may be used with its variant for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha512_256,
    Md5,
}

impl Algorithm {
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512_256, Algorithm::Md5];

    /// As a challenge writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512_256 => "SHA-512-256",
            Algorithm::Md5 => "MD5",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One `[[route]]`: a request that meets every condition named takes the action.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Method names; empty: any.
    pub methods: Vec<String>,
    /// Networks of the peer that sent it; empty: any.
    pub from_source: Vec<Network>,
    /// The host of the Request-URI.
    pub to_host: Option<Host>,
    /// What the user part of the Request-URI begins with.
    pub to_user_prefix: Option<String>,
    /// What the User-Agent has in it, one of these, lower-case; empty: anything.
    pub user_agent: Vec<String>,
    /// Instead of [`Connections::outgoing`], for what this route sends.
    pub outgoing: Option<Outgoing>,
    /// Instead of [`Auth::challenge_proxy`], for what takes this route.
    pub challenge: Option<bool>,
    /// What its targets are shown over TLS if they ask, instead of what all are; empty: the same.
    pub certificate: Vec<Pair>,
    pub from: Callers,
    pub action: Action,
}

/// Who may take a `[[route]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    #[default]
    Anyone,
    /// Our own users, proved, whatever else is challenged.
    Users,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Relay to the first of these, to the next where it fails; where there are none, to the host of the Request-URI.
    Relay(Vec<Target>),
    /// Look the Request-URI up in the location service.
    Location,
    /// Answer 302 with these SIP URIs, or, where there are none, with the registered contacts.
    Redirect(Vec<String>),
    /// Answer this status, 400 to 699.
    Reject(u16),
    /// Answer nothing.
    Drop,
}

/// A next hop: a SIP URI and what follows from it. A `[[listen]]` speaks its transport and address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the conf has it.
    pub uri: String,
    /// The host of the URI where that is an address, else its `maddr`; with its port, or the transport's. `None`: the host is a
    /// name, to be looked up for each request (RFC 3263).
    pub address: Option<SocketAddr>,
    /// What the URI says; TLS for each `sips:` URI.
    pub transport: Transport,
    /// The URI says nothing of it, and the records of a name may.
    pub transport_is_open: bool,
    /// The host of the URI: what the certificate of a TLS server must prove (RFC 5922).
    pub host: Host,
}

/// A network in CIDR form; the bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `address` with the bits after `prefix` cleared; `None` where the prefix is too long for the family.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Network> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= width).then(|| Network {
            address: masked(address, prefix),
            prefix,
        })
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// An IPv4 peer that a dual-stack socket shows as `::ffff:a.b.c.d` is in the IPv4 network.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = match (self.address, peer) {
            (IpAddr::V4(_), IpAddr::V6(mapped)) => match mapped.to_ipv4_mapped() {
                Some(address) => IpAddr::V4(address),
                None => return false,
            },
            (IpAddr::V6(_), IpAddr::V4(_)) => return false,
            _ => peer,
        };
        masked(peer, self.prefix) == self.address
    }
}

/// `address` with the bits after `prefix` cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The timers of RFC 3261 §17 and Timer C of §16.6 that are not fixed by the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Timers {
    pub t1: Duration,
    /// Not below `t1`.
    pub t2: Duration,
    pub t4: Duration,
    pub c: Duration,
    /// How long a completed transaction answers retransmissions.
    pub linger: Duration,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            c: Duration::from_secs(180),
            linger: Duration::from_secs(32),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of the longest message taken.
    pub message_size: usize,
    /// Transactions of the whole server.
    pub transactions: Capacity,
    /// Bindings of the whole server.
    pub bindings: Capacity,
    /// Bytes of the longest contact that is bound, with its parameters; of its Path and its Call-ID, too.
    pub contact_size: usize,
    /// Requests a second from one source; 0: any number.
    pub requests_per_source: u32,
    /// How many times as long as a request may be what it makes us send to places that have proved nothing; 0: any number.
    pub answer_factor: usize,
    /// Requests a second of one user, and new ones for one address-of-record; 0: any number.
    pub requests_per_user: u32,
    pub requests_per_aor: u32,
    /// How long a source that hit its limit is not heard; zero: it is heard on.
    pub ban: Duration,
    /// Networks of peers that are believed what they assert of others, and that no limit of a source is for.
    pub trusted_sources: Vec<Network>,
    /// How long messages may wait for a worker before new requests are refused; zero: for ever.
    pub overload: Duration,
    /// Who refuses them.
    pub shed: Shed,
}

/// Who refuses new requests in an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The server, by an answer to each.
    Answer,
    /// Where most must be refused, the kernel drops some of the INVITEs that come by UDP.
    Kernel,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_size: 64 * 1024,
            transactions: Capacity::FromMemory,
            bindings: Capacity::FromMemory,
            contact_size: 1024,
            requests_per_source: 0,
            answer_factor: 3,
            requests_per_user: 0,
            requests_per_aor: 0,
            ban: Duration::ZERO,
            trusted_sources: Vec::new(),
            overload: Duration::from_millis(100),
            shed: Shed::Answer,
        }
    }
}

/// How many of something there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// `0` in the conf: as many as a share of the memory holds.
    FromMemory,
    Exactly(usize),
}

impl Capacity {
    /// The number, where `share` bytes of memory may go to things of `bytes_each`. At least one.
    pub fn resolve(self, share: u64, bytes_each: usize) -> usize {
        match self {
            Capacity::Exactly(count) => count,
            Capacity::FromMemory => {
                let count = share / bytes_each.max(1) as u64;
                usize::try_from(count).unwrap_or(usize::MAX).max(1)
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Udp {
    /// Bytes asked of the kernel (`SO_RCVBUF`) for each socket.
    pub receive_buffer: usize,
    /// Bytes asked of the kernel (`SO_SNDBUF`) for each socket.
    pub send_buffer: usize,
    /// Datagrams that one system call takes or gives.
    pub batch: usize,
    /// How long a worker that is kept busy lets messages gather before it looks again; zero: not at all.
    pub gather: Duration,
}

impl Default for Udp {
    fn default() -> Udp {
        Udp {
            receive_buffer: 4 * 1024 * 1024,
            send_buffer: 4 * 1024 * 1024,
            batch: 64,
            gather: Duration::from_micros(500),
        }
    }
}

/// How names are resolved (RFC 3263).
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Whom to ask; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long a request waits for all that has to be asked.
    pub timeout: Duration,
    /// Answers that each core remembers.
    pub cache: usize,
    /// Questions on their way at a time.
    pub questions: usize,
    /// Bytes of messages without a transaction that may wait on each core.
    pub held: usize,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            servers: Vec::new(),
            timeout: Duration::from_secs(4),
            cache: 10_000,
            questions: 512,
            held: 4 << 20,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// The control socket's path.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            socket: PathBuf::from("strowger.sock"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Where Prometheus finds the metrics; `None`: nowhere.
    pub address: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: log::LevelFilter,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: log::LevelFilter::Info,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix: u8) -> Network {
        Network::new(address.parse().unwrap(), prefix).unwrap()
    }

    #[test]
    fn networks_hold_their_own_and_nothing_else() {
        let small = network("192.0.2.128", 25);
        assert!(small.contains("192.0.2.255".parse().unwrap()));
        assert!(!small.contains("192.0.2.127".parse().unwrap()));
        assert!(small.contains("::ffff:192.0.2.200".parse().unwrap()));
        assert!(!small.contains("2001:db8::1".parse().unwrap()));

        let all = network("0.0.0.0", 0);
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));

        let one = network("2001:db8::5", 128);
        assert!(one.contains("2001:db8::5".parse().unwrap()));
        assert!(!one.contains("2001:db8::4".parse().unwrap()));
        assert!(network("::", 0).contains("2001:db8::4".parse().unwrap()));
        assert!(!network("::", 0).contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_no_network() {
        assert_eq!(Network::new("192.0.2.0".parse().unwrap(), 33), None);
        assert_eq!(Network::new("2001:db8::".parse().unwrap(), 129), None);
    }

    #[test]
    fn capacity_comes_from_memory_unless_named() {
        assert_eq!(Capacity::FromMemory.resolve(1 << 20, 1024), 1024);
        assert_eq!(Capacity::FromMemory.resolve(10, 1024), 1);
        assert_eq!(Capacity::Exactly(7).resolve(1 << 20, 1024), 7);
    }

    #[test]
    fn sent_by_is_the_address_unless_another_is_advertised() {
        let mut listen = Listen {
            transport: Transport::Udp,
            address: "[2001:db8::1]:5070".parse().unwrap(),
            advertise: None,
        };
        assert_eq!(listen.sent_by().to_string(), "[2001:db8::1]:5070");
        listen.advertise = Some(HostPort {
            host: Host::Name("sip.example.com".to_owned()),
            port: 5060,
        });
        assert_eq!(listen.sent_by().to_string(), "sip.example.com:5060");
    }
}
