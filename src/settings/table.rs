//! Every plain key of the conf, a row each: its documentation as `conf/strowger.toml` has it, whether a reload may change it, its type, its
//! default, the same as the file writes it, and what reads it. `[[listen]]`, `[[route]]`, `[[tls.identity]]` and certificates are not plain:
//! [`crate::config`] has those.
//!
//! A new key is a row here, and its use: `STROWGER_WRITE_REFERENCE=1 cargo test --profile checked --lib the_reference_is` then writes `conf/strowger.toml`.
//!
//! The rows are read twice. Here they become the structs with their defaults. In [`crate::config`] they become the reader, the comparison of
//! two confs and the reference; only there does the last column mean anything.

use super::words::*;
use super::{Capacity, Collector, Millis, Seconds, SharedStore};
use crate::base::Network;
use log::LevelFilter;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Hands all rows to the macro `$expand`. A row: `live` or `fixed`, key: type = default, "default in TOML", reader.
#[rustfmt::skip]
macro_rules! table { ($expand:ident) => { $expand! {
    [server] Server {
        /// The CPU cores to serve on: one event loop is pinned to each. All of them share every listen address.
        /// Default: the first core that the process may run on.
        fixed cores: Vec<usize> = vec![0], "[0]", cores;
        /// The hosts this server is responsible for: it registers and looks up sip:USER@HOST for these. Its own listen addresses,
        /// and what they advertise, always are among them.
        live domains: Vec<String> = Vec::new(), "[]", list("a list of hosts such as [\"example.com\"]", host);
        /// The file that keeps the server's secret, so that calls go on across a restart: branches and Record-Route cookies are
        /// signed with it. If it is missing, it is made, readable by its owner alone. It may hold up to four, one a line: the first signs,
        /// and what any of them has signed is accepted. A file that has changed is read at the next start.
        fixed key_file: PathBuf = "strowger.key".into(), "\"strowger.key\"", path;
        /// Whether other servers have the same secrets, and stand before the same phones: then a challenge of one of
        /// them may be answered at another, and a TLS session with one is resumed by all. The clocks of their machines must agree. What
        /// is given up for it: docs/clusters.md.
        fixed shared_key: bool = false, "false", boolean;
        /// How long a server that is asked to stop (SIGTERM, "strowger drain") waits for the requests that it has begun, "0s" to "24h".
        /// Meanwhile it takes no new calls. A second SIGTERM ends the waiting.
        live drain_deadline: Duration = Duration::from_secs(30), "\"30s\"", time(Duration::ZERO, 24 * HOUR);
        /// How long the old process of a restart ("strowger restart") goes on at most with the requests and connections that it has, "0s" to
        /// "24h"; it ends before if it has none. A connection that is left then is closed, and its phone registers again by another.
        live restart_deadline: Duration = Duration::from_secs(3600), "\"1h\"", time(Duration::ZERO, 24 * HOUR);
        /// The user that the server becomes once its keys are read, for good. Only root can do that; ports below 1024 work all the same.
        /// The control socket and the databases are opened by that user, and must lie where it may write. "": the user stays the same.
        /// A reload and "strowger restart" read certificates, keys and users as that user: what only root can read is read at a start alone.
        fixed user: Option<String> = None, "\"\"", optional(account);
        /// The group that goes with it. "": the user's own.
        fixed group: Option<String> = None, "\"\"", optional(account);
        /// Whether a crash may leave a core dump. It would hold all keys, and what was said last: false leaves none, neither as a file nor to a
        /// program that collects crashes, and keeps debuggers of other users than root out. true leaves that to the system.
        fixed core_dumps: bool = false, "false", boolean;
    }
    /// How connections are made secure, as a server and as a client. All files are PEM. They are looked at all the time: replaced ones are
    /// read again within two seconds, and take effect for new connections when each key fits its certificate; until then a line in the
    /// log says what is wrong, and the old ones stay in use. A key that anyone but its owner may read gets a warning in the log.
    [tls] Tls {
        /// The authorities that the certificates of peers must come from. "": those of the system, which vouch for servers only.
        live trusted_ca: Option<PathBuf> = None, "\"\"", optional(pem_file(Kind::Certificate));
        /// Whether clients must prove who they are: "no", they are not asked; "optional", a certificate that is shown must be valid;
        /// "required", no client is served without one. The last two need trusted_ca.
        live verify_client: VerifyClient = VerifyClient::No, "\"no\"", word;
        /// What the certificate of a client must be made for (its extended key usage), one of these at least: "clientAuth", "serverAuth", or
        /// "any", whatever it is made for. Public authorities have stopped issuing certificates for clients: to take other proxies by those
        /// that they have, name both. Servers that this server connects to must have "serverAuth" in any case.
        live client_purposes: Vec<Purpose> = vec![Purpose::ClientAuth], "[\"clientAuth\"]", filled(one_or_more(3, word));
        /// Whether servers must: the chain of their certificate, and that it belongs to the host in the target (RFC 5922). Otherwise
        /// anyone in between can read and change what is sent.
        live verify_server: bool = true, "true", boolean;
        /// "1.2" or "1.3".
        live min_version: Version = Version::Tls12, "\"1.2\"", word;
        live max_version: Version = Version::Tls13, "\"1.3\"", word;
        /// The suites of TLS 1.2, as a list in OpenSSL's words, the best first. "": forward secrecy and authenticated encryption
        /// only. TLS_RSA_WITH_AES_128_CBC_SHA, which RFC 3261 section 26.2.1 makes mandatory, is "AES128-SHA" here: it has neither.
        live ciphers: String = String::new(), "\"\"", ciphers;
        /// The suites of TLS 1.3. "": the library's.
        live ciphersuites: String = String::new(), "\"\"", ciphersuites;
        /// Key exchange groups, the preferred one first: X25519MLKEM768 (which a quantum computer does not break),
        /// SecP256r1MLKEM768, SecP384r1MLKEM1024, X25519, X448, P-256, P-384, P-521. Of the default, those that the TLS library does not
        /// have are left out; one that another list names must be there.
        live groups: Vec<String> = ["X25519MLKEM768", "X25519", "P-256", "P-384"].map(str::to_owned).into(), "[\"X25519MLKEM768\", \"X25519\", \"P-256\", \"P-384\"]", filled(list(GROUPS_MEANT, group));
        /// Whether clients may resume a session instead of a whole handshake, and whether this server does with other servers.
        live server_session_reuse: bool = true, "true", boolean;
        live client_session_reuse: bool = true, "true", boolean;
        /// For how long a session can be resumed, "1s" to "168h".
        live session_lifetime: Seconds = 3600, "\"1h\"", seconds(SECOND, 168 * HOUR);
        /// Whether it shows one at all: false for servers that refuse a certificate that is not made for clients.
        live show_client_certificate: bool = true, "true", boolean;
    }
    /// Connections over TCP and TLS.
    [connections] Connections {
        /// "reuse": requests to one next hop share a connection. "per-call": each call gets a new one, even to the same address,
        /// and it is closed when the call is over. A [[route]] may say otherwise for its next hops.
        live outgoing: Outgoing = Outgoing::Reuse, "\"reuse\"", word;
        /// A connection on which nothing is sent or received for this long is closed, "1s" to "24h".
        live idle_timeout: Millis = 120_000, "\"120s\"", millis(SECOND, 24 * HOUR);
        /// How long a message may take on a connection from its first byte to its last, "1s" to "1h"; after that the connection is closed, whatever
        /// comes or goes meanwhile. The longest message needs some 9 s on a line of 56 kbit/s.
        live message_timeout: Millis = 20_000, "\"20s\"", millis(SECOND, HOUR);
        /// How long a next hop may take to accept a connection, "100ms" to "2m". After that the next target is tried, or 503 answered.
        live connect_timeout: Millis = 5000, "\"5s\"", millis(100 * MS, 2 * MINUTE);
        /// The same for the TLS handshake after it, and for the handshake of a client that connects to us.
        live handshake_timeout: Millis = 5000, "\"5s\"", millis(100 * MS, 2 * MINUTE);
        /// Connections of the whole server. 0: the number of files that the process may open, less some. One source (an IPv4 address, or an IPv6 network of
        /// 64 bits) may have all of them. But if all are taken, a new connection of a source that has fewer takes the place of the oldest
        /// one of the source that has most: one that has brought nothing yet, else the one that has been quiet for the longest time. What
        /// trusted_sources in [limits] names never gives way.
        live max: Option<usize> = None, "0", connections;
        /// TLS handshakes that one core has in hand at a time, 1 to 1000000: a flood of them must not push out what is established.
        /// Clients beyond them wait until one is done, the sources in turn. Once half of them are taken, one source gets no more than a quarter,
        /// and if all are taken, one that has not moved for a second gives way. What trusted_sources in [limits] names is not bound by that.
        live handshakes: usize = 512, "512", number(1, 1_000_000);
        /// What may wait for a peer that reads slowly, on each connection, "4KiB" to "64MiB". A message beyond it is not sent: its
        /// transaction fails, no other.
        live send_queue: usize = 256 << 10, "\"256KiB\"", size(4 << 10, 64 << 20);
        /// What may wait like that on all connections together, "1MiB" to "64GiB", divided among the cores. While more waits, send_queue is a sixteenth of
        /// what it says.
        live unsent_bytes: usize = 256 << 20, "\"256MiB\"", size(1 << 20, 64 << 30);
        /// Memory for messages that have begun and are not complete, on all connections together, "1MiB" to "64GiB", divided among the
        /// cores. Beyond it a connection is closed: of those that have waited longest for the rest, the one that holds most.
        live unfinished_bytes: usize = 64 << 20, "\"64MiB\"", size(1 << 20, 64 << 30);
        /// What one connection may bring in a minute without a message: keep-alives (CRLF, RFC 5626) and blank lines, "64B" to "64MiB". A connection
        /// that brings more is closed. A ping is 4 bytes and comes every 25 to 120 s. [limits] requests_per_source counts pings as requests.
        live keep_alive_bytes: usize = 1 << 10, "\"1KiB\"", size(64, 64 << 20);
    }
    [proxy] Proxy {
        /// "stateful": transactions, forking, retransmissions, CANCEL, Timer C (RFC 3261 section 16.2).
        /// "stateless": each message is relayed on its own, to one target (section 16.11).
        fixed mode: Mode = Mode::Stateful, "\"stateful\"", word;
        /// Stay on the path of the dialogs that are made through this server.
        live record_route: bool = true, "true", boolean;
        /// "parallel": all targets at once. "sequential": by q-value, the highest first; equal q always in parallel.
        live fork: Fork = Fork::Parallel, "\"parallel\"", word;
        /// Answer 302 with the targets instead of relaying.
        live redirect: bool = false, "false", boolean;
        /// Branches that one request may open from here on, 1 to 1000 (RFC 5393).
        live max_breadth: u32 = 60, "60", number(1, 1000);
        /// A BYE, a re-INVITE or another request within a dialog that is for one of our users and comes by no route that we have recorded: where
        /// record_route is true, every phone and gateway that keeps to the RFC shows such a route. "refuse": answered 403, unless the sender has
        /// proved by its password who it is. "relay": to the user's phones, as if it were the first of its dialog: for what does not keep to the
        /// RFC, SIPp's own scenarios among it. An ACK without such a route passes only if its call was answered here a moment ago.
        live in_dialog_without_route: InDialog = InDialog::Relay, "\"relay\"", word;
    }
    [registrar] Registrar {
        live enabled: bool = true, "true", boolean;
        /// A shorter registration is refused with 423. From "1s" to "1h".
        live min_expires: Seconds = 60, "\"60s\"", seconds(SECOND, HOUR);
        /// For a REGISTER that names no expiry.
        live default_expires: Seconds = 3600, "\"1h\"", seconds(SECOND, 24 * 365 * HOUR);
        /// A longer registration is cut to this.
        live max_expires: Seconds = 3600, "\"1h\"", seconds(SECOND, 24 * 365 * HOUR);
        /// Contacts of one address-of-record, 1 to 1000.
        live max_contacts: usize = 10, "10", number(1, 1000);
        /// Networks in which contacts may lie, in CIDR form or as single addresses, besides where they are registered from. []: anywhere, but a phone
        /// that registers from elsewhere does not reach this machine's own addresses and loopback by its contact, nor, from a public address, those of
        /// private networks (RFC 1918, 4193, 6598). Any other contact is reached by the way that its REGISTER came. If that was another
        /// proxy, it is not called, unless the proxy is one of [limits] trusted_sources.
        live contact_networks: Vec<Network> = Vec::new(), "[]", list(NETWORKS, network);
        /// The SQLite database that bindings are kept in, so that a restart loses none: the table "strowger_binding". If it is missing,
        /// it is made, readable by its owner alone. One server at a time has it: a second one does not start. "": bindings are in memory only.
        /// It may be the users' database, too; then they are lost with it if it is torn. If it cannot be read or written (a full disk, a
        /// corrupt file, another program's file), a line in the log says why, calls go on, and strowger_store_failures_total counts. A file
        /// that is corrupt or not ours is not touched: move it away, with those beside it that end in -wal and -shm, and all bindings are
        /// written into a new one. After a start, bindings are missing until it can be read, or their phones register.
        fixed database: Option<PathBuf> = Some("strowger.db".into()), "\"strowger.db\"", optional(path);
        /// When a registration is answered. "batched": at once; the disk follows within about a second, and a crash loses no more
        /// than that. "acknowledged": when it is on disk, some milliseconds later; while nothing can be written, registrations are
        /// answered 503 with Retry-After, and what is bound stays bound in memory. If the table is shared ([location]), "acknowledged"
        /// waits for Redis instead of the disk.
        fixed durability: Durability = Durability::Batched, "\"batched\"", word;
    }
    /// One location table for several servers: what a phone registers at one of them, all know. They meet in a Redis; each has the whole table in
    /// memory, and no call waits for it. docs/clusters.md says how to set that up, and what happens when Redis is away.
    [location] SharedTable {
        /// The Redis that the servers share, as in "redis://192.0.2.8:6379/0": host, port and database; "rediss://…": over TLS, and its certificate must
        /// be for that host and come from [tls] trusted_ca, else from the system's authorities. "redis-sentinel://HOST:PORT,HOST:PORT/SERVICE/0": the primary
        /// that these sentinels name for the service. "redis-cluster://HOST:PORT,HOST:PORT": a cluster, of which these servers are asked for the others. Both are
        /// spoken to over TLS with "rediss-sentinel://…", "rediss-cluster://…". "": nothing is shared.
        fixed shared: Option<SharedStore> = None, "\"\"", optional(shared_store);
        /// This server's name among them; no two have the same. A second one is refused when it starts. "": what the first [[listen]] advertises.
        fixed node: Option<String> = None, "\"\"", optional(node_name);
        /// The user that Redis knows this server as (its ACL). "": its default user.
        fixed user: Option<String> = None, "\"\"", optional(redis_user);
        /// The file with the password, on one line. "": Redis asks for none.
        fixed password_file: Option<PathBuf> = None, "\"\"", optional(path);
        /// Replicas of Redis that must have a change before it counts as told, 0 to 10. With durability = "acknowledged" in [registrar], a
        /// registration is answered then.
        fixed replicas: usize = 0, "0", number(0, 10);
        /// Changes that Redis keeps of each of the table's 16 parts, 1000 to 10000000. A server that has missed more reads the whole table.
        fixed stream: usize = 100_000, "100000", number(1000, 10_000_000);
    }
    /// Who must prove who they are, by Digest (RFC 7616, RFC 8760). Users are made with "strowger user add".
    [auth] Auth {
        /// The realm of every challenge. The hashes of all users must have been made with it. "": the domain of the request, so
        /// that users of several domains can have the same name. No double quotes and no backslashes.
        live realm: String = String::new(), "\"\"", realm;
        /// A REGISTER is answered 401 until its user proves that the address-of-record is theirs.
        live challenge_register: bool = false, "false", boolean;
        /// A request whose From is in our domains is answered 407 until its sender proves to be that user, whatever port or parameters the
        /// From has: our domains, advertised names and addresses are ours in any spelling. A From of any other domain, an anonymous
        /// one and tel: are not our users and are not asked; see "from" of [[route]]. Never ACK and CANCEL, nor requests in a
        /// dialog, which has passed. A [[route]] may say otherwise for what takes it.
        /// A user whose name has an "@" is that user at that domain; any other is the user of that name at the domain that the
        /// request names.
        live challenge_proxy: bool = false, "false", boolean;
        /// A BYE is challenged in its dialog too, if calls are challenged. Phones that hang up without an answer to the
        /// challenge leave the other side waiting. Anyone with the name of a user who has a password is asked; a gateway that was
        /// called by a number is not.
        live challenge_bye: bool = false, "false", boolean;
        /// "SHA-256", "SHA-512-256" and "MD5", in the order in which they are offered: a phone takes the first that it knows, and
        /// some look at the first only. The user that a request names is offered those of them that it has hashes for; an
        /// anonymous caller and a name that does not exist, all. "strowger check" counts the users that lack some. (docs/users.md)
        live algorithms: Vec<Algorithm> = vec![Algorithm::Sha256, Algorithm::Md5], "[\"SHA-256\", \"MD5\"]", filled(list(ALGORITHMS, word));
        /// Offer qop "auth" and "auth-int": a phone may then use a nonce again and again, counting. Without it each request is
        /// challenged anew; some phones from before 1999 want that.
        live qop: bool = true, "true", boolean;
        /// How long a nonce is valid, "10s" to "24h".
        live nonce_lifetime: Millis = 300_000, "\"5m\"", millis(10 * SECOND, 24 * HOUR);
        /// Wrong passwords that one source may send for one user within a minute, 1 to 1000; users that do not exist count alike. For the rest of
        /// that minute no password from there is checked for that user, and the answer is 403, right or wrong. One source may send ten times as many for
        /// all users, and all sources for one user; where a password has been right within a day it is checked all the same. One line says so,
        /// which conf/fail2ban/ has a filter for, and if [limits] says ban, the source is banned. What [limits] trusted_sources names is
        /// exempt: another proxy, through which all calls come, belongs there. 0: any number. (docs/security/sources.md)
        live guesses: u32 = 10, "10", number(0, 1000);
        /// Credentials are made for one Request-URI (RFC 7616); on a request to another they get 400. "address": user and host must
        /// be the same; port, parameters and sip: or sips: may differ, our domain may have become our address, and what some
        /// clients write instead is taken: this server without a user, and in a REGISTER the address-of-record. "strict": the same
        /// by RFC 3261, section 19.1.4. "off": not looked at, for a proxy before this one that rewrites users or domains.
        live check_uri: UriCheck = UriCheck::Address, "\"address\"", word;
        /// What a client's certificate says about who it is, if [tls] verify_client asks for one. "off": nothing; it may connect, and
        /// proves who it is by its password. "identity": it proves an identity, in place of the password, and that one only: the
        /// alternative name sip:alice@example.com is that user; sip:example.com, or without any sip: name the DNS name example.com, is every
        /// user of that domain (RFC 5922). A client that registers or calls as another of our users over that connection is answered 403, and so is
        /// one whose certificate names no one: the common name does not count. "identity-and-password": the same, and a password
        /// is asked for as well, if one is asked for at all. A client that shows no certificate is asked for a password as usual.
        live certificate: Certificate = Certificate::Off, "\"off\"", word;
        /// The users: a SQLite database with the table "subscriber" as Kamailio and OpenSIPS have it, or a text file with lines
        /// user:realm:HA1 (32 hexadecimal digits are MD5, 64 are SHA-256; ":SHA-512-256" after them says otherwise). It is read
        /// when the server starts and whenever it has changed; needed where something above or a [[route]] challenges. If there is no
        /// users.db, but a strowger.db with users, as earlier versions made it, that is used, and a line in the log says so.
        live users: PathBuf = "users.db".into(), "\"users.db\"", path;
    }
    /// When a next hop, a target of a [[route]] or a server of a domain, counts as failed: no connection, no answer, a 503, a port unreachable.
    /// "strowger targets" shows them. A failed one is passed over, as long as there is another.
    [next_hop] NextHops {
        /// How long a next hop may say nothing at all to a request, not even 100 Trying, "100ms" to "2m". Then the next target is tried, and this one
        /// counts as failed unless it answers others meanwhile. Where there is no other, the request is sent again until it times out (64 times
        /// t1). A [[route]] may say otherwise.
        live patience: Millis = 4000, "\"4s\"", millis(100 * MS, 2 * MINUTE);
        /// For how long a failed next hop is passed over, "1s" to "1h"; then one request tries it again, and each failure doubles the time, up to 16
        /// times. A 503 with Retry-After says for how long itself, up to 10 minutes.
        live retry: Millis = 30_000, "\"30s\"", millis(SECOND, HOUR);
    }
    [timers] Timers {
        /// RFC 3261, table 4: the round trip time assumed, the longest interval between two retransmissions of a request that is
        /// not an INVITE, and how long a message stays in the network.
        live t1: Millis = 500, "\"500ms\"", millis(10 * MS, MINUTE);
        live t2: Millis = 4000, "\"4s\"", millis(10 * MS, 10 * MINUTE);
        live t4: Millis = 5000, "\"5s\"", millis(10 * MS, 10 * MINUTE);
        /// How long a callee may ring without a further provisional response (Timer C).
        live c: Millis = 180_000, "\"180s\"", millis(SECOND, 24 * HOUR);
        /// How long a completed transaction answers retransmissions: 64 times t1 by the RFC. Less saves memory on a network that
        /// loses little.
        live linger: Millis = 32_000, "\"32s\"", millis(Duration::ZERO, 10 * MINUTE);
    }
    [limits] Limits {
        /// The longest message taken, "1KiB" to "64KiB".
        live message_size: usize = 64 << 10, "\"64KiB\"", size(1 << 10, 64 << 10);
        /// Transactions at a time, of the whole server. A request beyond them is answered 503. 0: as many as fit into a share of the memory.
        /// In any case the messages that transactions hold take no more than a quarter of the memory: beyond that, too, a request
        /// is answered 503.
        live transactions: Capacity = Capacity::FromMemory, "0", capacity;
        /// Bindings in the location service. A REGISTER beyond them is answered 503. One counts as several from some 320 bytes of text on, one for
        /// each 320 begun; an address of 320 bytes or more counts in the same way. 0: as many as fit into a share of the memory.
        fixed bindings: Capacity = Capacity::FromMemory, "0", capacity;
        /// The longest contact that is stored, with its parameters, "128B" to "60KiB". Its Path and its Call-ID may be as long, each. A REGISTER
        /// with a longer one is answered 400 and binds nothing, and so does one whose contacts together would not fit into an answer.
        live contact_size: usize = 1 << 10, "\"1KiB\"", size(1 << 7, 60 << 10);
        /// Requests a second that one source may send, 1 to 100000, over any transport and to any listener: an IPv4 address, or an IPv6
        /// network of 64 bits. It may send a second's worth at once. Anything beyond is dropped unread, and counted. A provider or a
        /// proxy that brings many calls is one source, too, unless trusted_sources names it. 0: any number.
        /// By UDP an address can be forged. So each has three shares: one for its connections, one for places (address and port) that have
        /// proved to be there, by a nonce or a response that came back, and one for the rest. Of the last two each eighth of the ports may use
        /// an eighth more, which a flood from other ports leaves to it. When those are used up, datagrams with a nonce that was sent to their address,
        /// and those of dialogs, have one share more each (docs/security/sources.md).
        live requests_per_source: u32 = 0, "0", number(0, 100_000);
        /// How much a request may make the server send over UDP, as a multiple of its length, to places that have not proved that they receive it: 0 to 1000.
        /// A source can be forged, and a contact can name any machine; without a bound the server would multiply what a stranger sends. A place proves
        /// itself for an hour by answering a challenge, or a request that was sent there; a connection is proof; trusted_sources and next hops of the
        /// conf need none. Beyond the bound repetitions are not sent, nor the request to further contacts at machines that have not registered
        /// them themselves. The first final answer always leaves. 0: any number.
        live answer_factor: usize = 3, "3", number(0, 1000);
        /// Requests a second that one user may send, 1 to 100000, from wherever: those for which its password was asked and was right. What
        /// is beyond is answered 503 with Retry-After. 0: any number.
        live requests_per_user: u32 = 0, "0", number(0, 100_000);
        /// New requests a second for one address-of-record, called or registered, 1 to 100000: a phone takes a few calls a second. What is beyond is
        /// answered 480 with Retry-After. 0: any number.
        live requests_per_aor: u32 = 0, "0", number(0, 100_000);
        /// How long a source is banned that has hit requests_per_source or, in [auth], guesses: "0s" to "24h". Nothing that it sends is
        /// read except responses, and its connections are closed. If it may have been forged, only UDP from places that have proved nothing is
        /// banned, and two REGISTERs a second from each eighth of its ports are read all the same, so that a client there can prove itself. All clients
        /// behind one NAT are one source. "0s": no source is banned.
        live ban: Millis = 0, "\"0s\"", millis(Duration::ZERO, 24 * HOUR);
        /// Networks, in CIDR form or as single addresses, of peers that are trusted to tell the truth about others: gateways, your other proxies.
        /// requests_per_source, requests_per_user, ban and the guesses of [auth] do not apply to them. And only what comes
        /// from there keeps its P-Asserted-Identity and P-Preferred-Identity (RFC 3325); and one whose user asks for privacy
        /// ("Privacy: id") goes to them only. What others assert is removed, in requests and in responses.
        live trusted_sources: Vec<Network> = Vec::new(), "[]", list(NETWORKS, network);
        /// How long messages may wait in the kernel before a worker takes them, "0s" to "10s". If they wait longer, or the kernel drops some
        /// for lack of room, new calls over UDP wait in a queue until what has begun is done. It has room for what is let in within three quarters of that
        /// time, 200 ms at most; one call may wait longer, up to 400 ms. Those that find it full, with a share of all other requests that begin something,
        /// are answered 503 with Retry-After. And when TLS handshakes have waited that long before they begin, for ten times as long,
        /// new TLS connections are closed that would wait for more than three quarters of it, and those that have waited longer go last. "0s": nothing is refused, and what does not fit into the
        /// buffers is lost, whatever it is.
        live overload: Millis = 100, "\"100ms\"", millis(Duration::ZERO, 10 * SECOND);
        /// What refuses them: "answer", the server, by a 503 to each; "kernel": if most must be refused for longer than a moment, the kernel drops a
        /// share of the INVITEs that begin a call and come by UDP, before the server has to receive them, and a part is still answered 503. So most of
        /// what is possible goes through, where answers alone leave the less of it the more comes; callers that were dropped repeat for 32 s, and some of
        /// them are served that late (docs/overload.md).
        live shed: Shed = Shed::Kernel, "\"kernel\"", word;
    }
    [udp] Udp {
        /// The buffers of each socket, as requested from the kernel: net.core.rmem_max and wmem_max bound what it grants. What is lost for
        /// lack of room is counted in strowger_dropped_total.
        fixed receive_buffer: usize = 4 << 20, "\"4MiB\"", size(4 << 10, 1 << 30);
        fixed send_buffer: usize = 4 << 20, "\"4MiB\"", size(4 << 10, 1 << 30);
        /// Datagrams that one system call receives at most, 1 to 1024; it sends up to twice as many.
        fixed batch: usize = 64, "64", number(1, 1024);
        /// While so many messages come that at least eight are expected within this time (16,000 a second, some 2,700 calls), a worker
        /// lets them gather for up to this time instead of waking for each: a wake-up costs more than a message. The faster they come
        /// the less it waits, and at lower rates nothing is delayed. At most "10ms"; "0s": it wakes for each.
        fixed gather: Duration = Duration::from_micros(500), "\"500us\"", time(Duration::ZERO, 10 * MS);
    }
    /// How host names are resolved: those of next hops, of contacts, and of Request-URIs and Routes that may be relayed to.
    /// NAPTR, SRV, AAAA and A records are followed (RFC 3263) to the transports and address families of the [[listen]]
    /// sections. A server that fails (no connection, no answer at all, 503) is followed by the next of its name.
    [dns] Dns {
        /// The name servers: addresses, with a port if it is not 53. []: the servers of /etc/resolv.conf, which is read when the
        /// server starts and with each reload; its search list is not used: names are whole. Names in /etc/hosts are known too.
        live servers: Vec<SocketAddr> = Vec::new(), "[]", list("a list of addresses such as [\"192.0.2.53\"]", name_server);
        /// How long a request waits for the names of its next hop, "100ms" to "30s". Meanwhile its caller has a 100, other requests
        /// go on, and a CANCEL ends the wait. Then the next target is tried, or the request fails.
        live timeout: Millis = 4000, "\"4s\"", millis(100 * MS, 30 * SECOND);
        /// Answers that each core remembers, 100 to 10000000, each for as long as the records allow; while no server answers, those
        /// that have expired stand in for up to a day (RFC 8767).
        live cache: usize = 10_000, "10000", number(100, 10_000_000);
        /// Questions on their way at a time, 1 to 10000. As many more may wait; one beyond those fails at once. A reload does not change this.
        fixed questions: usize = 512, "512", number(1, 10_000);
        /// What may wait on each core without a transaction, "64KiB" to "1GiB": ACKs in dialogs, and all requests in mode
        /// "stateless". What does not fit is answered 503; an ACK is dropped.
        live held: usize = 4 << 20, "\"4MiB\"", size(64 << 10, 1 << 30);
    }
    [control] Control {
        /// The socket through which "strowger ul", "stats", "top" and the like speak to the running server: JSON-RPC 2.0, one object a
        /// line. Who can open it can do all of that; only its owner can, if mode says nothing else.
        fixed socket: PathBuf = "strowger.sock".into(), "\"strowger.sock\"", socket;
        /// The group of the socket's file, of which the server's user must be a member. "": its own group.
        fixed group: Option<String> = None, "\"\"", optional(account);
        /// The mode of the socket's file: "0600", its owner alone can open it; "0660", its group as well. Never anybody.
        fixed mode: u32 = 0o600, "\"0600\"", socket_mode;
    }
    [metrics] Metrics {
        /// Where Prometheus finds the metrics, by HTTP at /metrics, and probes find /health and /ready, as in "127.0.0.1:9090". Anyone who can connect can
        /// read them.
        /// "": nowhere.
        live address: Option<SocketAddr> = None, "\"\"", optional(listen_address);
    }
    /// One line of JSON for each call when it is over: Call-ID, from, to, authenticated user, source, route, the next hops tried and what came of
    /// each, final status, milliseconds to the first ringing, to the answer and to the end, and who ended it.
    [records] Records {
        /// A file, to which lines are appended, opened again by SIGHUP; or "unixgram:/run/…", the socket of a program that takes a datagram for each.
        /// "": no records, and no count of calls. Nobody waits for it: up to 4 MiB of lines do, then they are lost and counted
        /// (strowger_records_lost_total).
        fixed file: Option<RecordsTo> = None, "\"\"", optional(records);
        /// A call that was answered and of which nothing was heard for so long, no BYE and no refresh, "1m" to "168h", leaves a record that says "lost".
        live lost_after: Millis = 43_200_000, "\"12h\"", millis(MINUTE, 168 * HOUR);
        /// Calls at a time that leave one, 1 to 100000000: each takes some 400 bytes.
        fixed most: usize = 1_000_000, "1000000", number(1, 100_000_000);
    }
    /// Copies of messages for a collector of calls such as Homer, by HEP version 3. "strowger trace" needs none of this.
    [trace] Trace {
        /// Where the copies go, as in "udp:192.0.2.9:9060". They are not encrypted, what came over TLS neither: credentials and media keys are
        /// masked, names and texts are not. A collector that is dead, slow or unknown holds up no call: what it does not take is lost, and
        /// counted (strowger_hep_lost_total). Its name is looked up when the server starts, and again when nothing can be sent. "": nowhere.
        live hep: Option<Collector> = None, "\"\"", optional(collector);
        /// What this server is called there: the capture agent's number, 0 to 4294967295.
        live hep_id: u32 = 0, "0", number(0, u64::from(u32::MAX));
        /// Of how many calls, 0.0 to 1.0. A hash of the Call-ID picks them: all of a call goes, or nothing, and servers with the same share pick
        /// the same calls.
        live share: f64 = 1.0, "1.0", share;
    }
    [log] Log {
        /// "off", "error", "warn", "info", "debug" or "trace", to standard error. The environment's RUST_LOG takes precedence, and so does
        /// "strowger log LEVEL" until this key changes. The server never waits for its reader: up to 1 MiB of lines are kept, then the newest are lost,
        /// counted (strowger_log_lines_lost_total) and reported.
        /// RUST_LOG and the lines name what they are about by its subject: auth, control, conf, database, dns, location, log, metrics, network,
        /// overload, registrar, routing, server, tls, worker. RUST_LOG="info,tls=debug" is an example.
        live level: LevelFilter = LevelFilter::Info, "\"info\"", word;
        /// "text": time (UTC, milliseconds), level, subject and what happened, with the Call-ID where a message is meant. "json": the same as one
        /// object a line, with the keys time, level, subject, message and call_id. "journald": for a service of systemd, whose journal reads the
        /// priority in front of each line and has the time already.
        live format: LogFormat = LogFormat::Text, "\"text\"", word;
    }
} }; }
pub(crate) use table;

/// A struct for each section, with the documentation of its keys and their defaults.
macro_rules! structs {
    ($($(#[doc = $about:literal])* [$section:ident] $name:ident {
        $($(#[doc = $doc:literal])*
        $change:ident $key:ident: $type:ty = $default:expr, $toml:literal, $reader:expr;)*
    })*) => {$(
        #[doc = concat!("`[", stringify!($section), "]` of the conf.")]
        ///
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($key: $default,)* }
            }
        }
    )*};
}
table!(structs);
