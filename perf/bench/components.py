"""To which of the report's components a sample of the CPU belongs: told by the function's name and the file that it is in. No
clock, no process.

The server's Rust code, SQLite, and AWS-LC with its libssl are one binary, so the file says little and the name must tell. The
report counted functions of OpenSIPS 1.4, whose core and modules are files of their own; RUST says which of our modules do the work
of which."""

import re
from collections.abc import Mapping, Sequence

KERNEL = "kernel"
CORE = "server core"
MODULES = "server modules"
PUBLIC_KEY = "libcrypto: public key"
SYMMETRIC = "libcrypto: symmetric"
MAC = "libcrypto: MAC"
CRYPTO = "libcrypto: other"
# Of a library without symbols for what it does not export, as distributions ship it: its ciphers among it.
UNNAMED = "libcrypto: unnamed"
SSL = "libssl"
LIBC = "libc"
DATABASE = "database"
OTHER = "other"
# In the order in which they are stacked.
COMPONENTS = [KERNEL, CORE, MODULES, PUBLIC_KEY, SYMMETRIC, MAC, CRYPTO, UNNAMED, SSL, LIBC, DATABASE, OTHER]

# Rust code by its module path: the first two names of it, or else the first.
RUST: dict[str, str] = {
    # The transaction layer and the transaction user (RFC 3261 §16, §17, §10, §22). OpenSIPS has them as modules: tm, rr, sl,
    # maxfwd, registrar, usrloc, auth. Users and bindings are in our own memory, and looked up here; the report's were in MySQL.
    "strowger::stack": MODULES,
    # What stands on disk: bindings and users in SQLite, and the threads that write and read them.
    **dict.fromkeys("strowger::store rusqlite libsqlite3_sys hashlink fallible_streaming_iterator".split(), DATABASE),
    # worker: the loop; net: the wires; sip: the parser and what it writes; base: timers, pools, tables; config, control, log.
    # OpenSIPS has them in its core: receive loop, transports, parser, timer, memory manager.
    "strowger": CORE,
    # Digest authentication hashes with these, whatever TLS library is built in; the kind of work is the MACs'.
    **dict.fromkeys("md5 sha2 sha1 hmac digest block_buffer crypto_common".split(), MAC),
    # Bindings of the TLS library: a few instructions each.
    **dict.fromkeys("openssl_sys openssl".split(), SSL),
    # The allocator's entrance: a jump to libc.
    "__rustc": LIBC,
    # The crates on which the above stand. A C server has such code in its core.
    **dict.fromkeys(
        "std core alloc hashbrown memchr mio siphasher httparse socket2 libc log foreign_types foreign_types_shared smallvec "
        "once_cell env_logger tokio hickory_proto hickory_net hickory_resolver signal_hook signal_hook_registry serde_core serde "
        "serde_json bytes getrandom rand moka parking_lot parking_lot_core futures_channel futures_util crossbeam_epoch "
        "crossbeam_channel foldhash ahash itoa ryu subtle generic_array typenum".split(),
        CORE,
    ),
}
# Says nothing of who works: what it was inlined into does.
GENERIC = set(
    "std core alloc hashbrown memchr foreign_types foreign_types_shared smallvec once_cell libc generic_array typenum openssl "
    "openssl_sys subtle".split()
)

# libcrypto by name, without its prefixes; the first that fits decides. What fits none is CRYPTO: ASN.1, X.509, memory, errors,
# random numbers.
CRYPTO_NAMES = [
    # Random numbers: before the ciphers, one of whose names theirs begins with. The blocks that a CTR-DRBG encrypts count as
    # symmetric all the same.
    (r"ctr_drbg|rand_|rdrand|drbg|crypto_rdrand|crypto_sysrand|jent_", CRYPTO),
    # Of a CBC record's MAC, and the key derivation of TLS, which is HMAC from end to end.
    (
        r"evp_tls_cbc_(copy_mac|digest_record)|tls_cbc_digest|evp_final_with_secret_suffix|crypto_tls1_prf|tls1_prf|tls1_p_hash|hkdf|pkcs5_pbkdf2|"
        r"ssl3_cbc_(copy_mac|digest)",
        MAC,
    ),
    (r"evp_digest(sign|verify)|do_sigver", PUBLIC_KEY),
    (
        r"hmac|sha(1|2|3|224|256|384|512)|keccak|md[45]|evp_md|evp_digest|md_|ripemd|blake2|poly1305|siphash|evp_sha|evp_md5|update_sha|mdc",
        MAC,
    ),
    (
        r"l?(rsa|rsaz|bn_|bignum|extract_multiplier|mul_mont|montgomery|from_words52|to_words52|ec_|ecp_|eckey|ecdsa|ecdh|ecx|x25519|x448|"
        r"curve25519|ed25519|edwards25519|fe_|ge_|p256|p384|p521|felem|fiat_|dh_|dsa_|ffc_|kem_|ml_kem|mlkem|pqdsa|ml_?dsa|sig_ml_dsa|evp_pkey|"
        r"pkey_|sm2|mod_(exp|inverse|mul|sqr|add|sub)|miller|"
        r"constant_time_(select|lookup)_bn|arbitrary_bignum|digest_to_scalar|pmeth|freeze_private_key|mont_|words52|amm52|__bn|"
        r"bn[a-z0-9]*x_|gather5|scalar_)",
        PUBLIC_KEY,
    ),
    (
        r"aes|aesni|vaes|vpaes|gcm|ghash|chacha|des_|rc4|rc2|cbc|ctr|camellia|aria|sm4|evp_cipher|evp_(en|de)crypt|evp_aead|aead_|crypto_(gcm|cbc|ctr)|"
        r"evp_tls_cbc|e_tls|des3|tdes|evp_aes|evp_des|evp_has_aes|cipher_",
        SYMMETRIC,
    ),
]
CRYPTO_PATTERNS = [(re.compile(r"_*(?:" + pattern + ")", re.IGNORECASE), component) for pattern, component in CRYPTO_NAMES]

# AWS-LC puts its version before what it exports, and its C++ code into a namespace.
AWS_LC = re.compile(r"aws_lc(?:_fips)?_\d+_\d+_\d+_")
LIBSSL_NAME = re.compile(
    r"(bssl::|SSL_|SSL3_|TLS_|DTLS_|ssl_|ssl3_|tls1_|tls13_|dtls1_|tls_|i2d_SSL|d2i_SSL|ossl_statem|ossl_ssl|ossl_tls|"
    r"statem_|BIO_f_ssl)"
)
SQLITE_NAME = re.compile(r"sqlite3|fts[35]|rtree|btree|pager|vdbe|wal[A-Z]|unix[A-Z]|pcache")
# What compilers put into a program in place of a call of libc.
LIBC_NAME = re.compile(
    r"_*(mem(cpy|move|set|cmp|chr)|bcmp|str(len|cmp|chr)|(rust|rdl|rg)_(alloc|dealloc|realloc|alloc_zeroed))(_\w+)?$"
)
# The servers that are not ours have an MD5 of their own.
PEER_MD5 = re.compile(r"(U_)?MD5(Init|Update|Final|Transform)|core_hash_md5|MDString")
PEERS = {"kamailio", "opensips"}
LIBC_FILE = re.compile(
    r"(libc|libm|libpthread|librt|libdl|ld-linux[^/]*|libgcc_s|libresolv|libjemalloc|libmimalloc)[-.][^/]*so|libc\.so|"
    r"\[vdso\]|\[vsyscall\]|linux-vdso"
)
# Sources of the C code in our binary, as its symbol table names them for functions that are not exported.
SSL_SOURCE = re.compile(r"\.cc$")

KERNEL_HALF = 1 << 63


def component(symbol: str, file: str, address: int = 0, source: str | None = None) -> str:
    """The component of the function `symbol` in the program or library `file`. `source` is the source file that the symbol table
    names for it."""
    if address >= KERNEL_HALF or file.startswith(("[kernel", "[guest", "[nf_", "bpf_")):
        return KERNEL
    name = file.rsplit("/", 1)[-1]
    if LIBC_FILE.match(name):
        return LIBC
    if name.startswith("libcrypto"):
        return of_crypto(symbol)
    if name.startswith("libssl"):
        return SSL
    if name in PEERS:
        return MAC if PEER_MD5.match(symbol) else CORE
    if "/kamailio/" in file or "/opensips/" in file:
        return of_peer(file, name)
    if re.match(r"lib(sqlite3|mysqlclient|mariadb|pq)\b", name):
        return DATABASE
    if re.match(r"lib(srutils|kcore|kmi|print|trie|binrpc)", name):
        return CORE
    if file.startswith("[") and file != "[unknown]" or symbol in ("", "[unknown]"):
        return OTHER
    return of_program(symbol, source)


def of_peer(file: str, name: str) -> str:
    """Kamailio's and OpenSIPS' own libraries and modules."""
    if "/modules/" in file:
        return DATABASE if name.startswith("db_") else MODULES
    return DATABASE if name.startswith("libsrdb") else CORE


def of_crypto(symbol: str) -> str:
    if symbol in ("", "[unknown]"):
        return UNNAMED
    name = AWS_LC.sub("", symbol, count=1)
    name = re.sub(r"^ossl_", "", name)
    for pattern, found in CRYPTO_PATTERNS:
        if pattern.match(name):
            return found
    return CRYPTO


def of_program(symbol: str, source: str | None = None) -> str:
    """A function of a program that has everything linked in."""
    if LIBC_NAME.match(symbol):
        return LIBC
    if symbol.startswith("bssl::") or (LIBSSL_NAME.match(symbol) and not AWS_LC.match(symbol)):
        return SSL
    if AWS_LC.match(symbol):
        return of_crypto(symbol)
    if SQLITE_NAME.match(symbol):
        return DATABASE
    path = rust_path(symbol)
    if path:
        return of_rust(path)
    if source:
        if source == "sqlite3.c":
            return DATABASE
        if source.startswith("compiler_builtins"):
            return LIBC
        if SSL_SOURCE.search(source):
            return SSL
        if source.endswith(".c") and source != "crtstuff.c":
            return of_crypto(symbol)
    # Assembler's functions are exported by nobody and named in no source.
    found = of_crypto(symbol)
    return found if found != CRYPTO else OTHER


def of_inlined(chain: Sequence[str]) -> str:
    """Of a place in our program where functions are inlined into each other, innermost first: the innermost that says something
    decides. Code of the standard library works for whom it was inlined into."""
    for symbol in chain:
        path = rust_path(symbol)
        if path and path.split("::", 1)[0] not in GENERIC:
            return of_rust(path)
    return of_program(chain[-1]) if chain else OTHER


# A path in a symbol: of the type in "<a::B as c::D>::e", of the first of ours in "core::ptr::drop_in_place<strowger::x::Y>".
OURS = re.compile(r"strowger(?:::[A-Za-z_]\w*)+")
PATH = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_{]\w*)+")


def rust_path(symbol: str) -> str | None:
    """The module path that a Rust symbol belongs to; None where it is not one."""
    if "::" not in symbol or symbol.startswith("bssl::"):
        return None
    found = OURS.search(symbol) or PATH.search(symbol)
    return found.group(0) if found else None


def of_rust(path: str) -> str:
    crate, *modules = path.split("::")
    return RUST.get("::".join([crate, *modules[:1]]), RUST.get(crate, OTHER))


# Shares of the thesis' profile, by what they are of. Its kernel is what is left, so all that it does not name is in it.
THESIS = {
    "kernel": "kernel and the rest",
    "server": "server",
    "transaction_module": "server",
    "libcrypto": "libcrypto",
    "libssl": "libssl",
    "libc": "libc",
}
OURS_AS_THESIS = {
    **dict.fromkeys([KERNEL, DATABASE, OTHER], "kernel and the rest"),
    **dict.fromkeys([CORE, MODULES], "server"),
    **dict.fromkeys([PUBLIC_KEY, SYMMETRIC, MAC, CRYPTO, UNNAMED], "libcrypto"),
    **{SSL: "libssl", LIBC: "libc"},
}
THESIS_COMPONENTS = ["kernel and the rest", "server", "libcrypto", "libssl", "libc"]


def as_thesis(shares: Mapping[str, float], mapping: Mapping[str, str]) -> dict[str, float]:
    """Shares by component, summed up to what the thesis names."""
    found = dict.fromkeys(THESIS_COMPONENTS, 0.0)
    for name, share in shares.items():
        found[mapping[name]] += share
    return found
