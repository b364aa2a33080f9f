"""What a sample is counted as, from symbols as perf, readelf and addr2line print them."""

import argparse
import os
import unittest
from collections import Counter
from unittest import mock

import components
import profiling
import sampling
from components import COMPONENTS, CORE, CRYPTO, DATABASE, KERNEL, LIBC, MAC, MODULES, OTHER, PUBLIC_KEY, SSL, SYMMETRIC, UNNAMED
from profiling import COLOURS, Profiles
from report import Report
from samples import Samples

BINARY = "/usr/bin/strowger"
# As `perf script` names them in a release build.
IN_THE_BINARY = {
    CORE: (
        "strowger::worker::Worker<E>::tick; strowger::worker::Worker<E>::flush; strowger::sip::message::Message::parse; "
        "strowger::sip::via::Stamp::write; <strowger::sip::params::Params as core::iter::traits::iterator::Iterator>::next; "
        "strowger::base::wheel::Wheel::place; strowger::net::tls::machine::Tls::receive; "
        "core::cell::once::OnceCell<T>::try_init; core::ptr::drop_in_place<strowger::worker::mailbox::Letters>; "
        "memchr::arch::x86_64::avx2::memchr::One::find_raw_avx2; alloc::raw_vec::RawVec<T,A>::grow_one; "
        "<std::sys::sync::condvar::futex::Condvar>::wait_timeout"
    ),
    MODULES: (
        "strowger::stack::endpoint::Endpoint::receive_request; "
        "strowger::stack::transaction::table::Transactions::step_server; "
        "strowger::stack::proxy::branches::<impl strowger::stack::endpoint::Endpoint>::start_branch; "
        "strowger::stack::auth::users::Users::find; "
        "strowger::stack::registrar::<impl strowger::stack::endpoint::Endpoint>::register::{{closure}}; "
        "strowger::stack::location::Location::sweep; core::ptr::drop_in_place<strowger::stack::auth::users::Users>"
    ),
    PUBLIC_KEY: (
        "aws_lc_0_41_0_rsaz_amm52x20_x2_ifma256; aws_lc_0_41_0_bn_sqrx8x_internal; "
        "aws_lc_0_41_0_extract_multiplier_2x20_win5; aws_lc_0_41_0_bn_mulx4x_mont; aws_lc_0_41_0_BN_div; "
        "bn_cmp_words_consttime; aws_lc_0_41_0_rsa_invalidate_key; __bn_sqrx8x_reduction; aws_lc_0_41_0_p256_montjscalarmul; "
        "Lp256_montjscalarmul_mainloop; ecp_nistz256_point_addx; __ecp_nistz256_mul_montx; aws_lc_0_41_0_ECDSA_do_sign; "
        "Lcurve25519_x25519_scalarloop; aws_lc_0_41_0_X25519; ec_GFp_nistp384_point_mul; aws_lc_0_41_0_EVP_PKEY_sign; "
        "aws_lc_0_41_0_bignum_montinv_p256; aws_lc_0_41_0_EVP_DigestVerify"
    ),
    SYMMETRIC: (
        "aws_lc_0_41_0_aes_hw_cbc_encrypt; aws_lc_0_41_0_aes_hw_set_encrypt_key; aes_cbc_cipher; _aesni_ctr32_ghash_6x; "
        "aead_tls_seal_scatter; aws_lc_0_41_0_EVP_AEAD_CTX_open; aws_lc_0_41_0_gcm_ghash_clmul; "
        "aws_lc_0_41_0_aes_gcm_decrypt_avx512; aws_lc_0_41_0_DES_encrypt3; aws_lc_0_41_0_EVP_tls_cbc_remove_padding; "
        "chacha20_poly1305_seal_avx2; aws_lc_0_41_0_CRYPTO_gcm128_encrypt_ctr32"
    ),
    MAC: (
        "aws_lc_0_41_0_sha256_block_data_order_hw; aws_lc_0_41_0_sha1_block_data_order_hw; aws_lc_0_41_0_HMAC_Init_ex; "
        "aws_lc_0_41_0_EVP_tls_cbc_copy_mac; aws_lc_0_41_0_EVP_tls_cbc_digest_record; "
        "aws_lc_0_41_0_EVP_final_with_secret_suffix_sha1; aws_lc_0_41_0_CRYPTO_tls1_prf; aws_lc_0_41_0_EVP_DigestUpdate; "
        "aws_lc_0_41_0_HKDF_expand; md5::compress::soft::compress; sha2::sha512::x86::sha512_compress_x86_64_avx2"
    ),
    CRYPTO: (
        "aws_lc_0_41_0_OPENSSL_free; aws_lc_0_41_0_OPENSSL_sk_pop_free_ex; aws_lc_0_41_0_CBB_flush; "
        "aws_lc_0_41_0_CRYPTO_refcount_inc; aws_lc_0_41_0_X509_verify_cert; aws_lc_0_41_0_CRYPTO_rdrand_multiple8; "
        "aws_lc_0_41_0_CTR_DRBG_generate; aws_lc_0_41_0_ASN1_STRING_free"
    ),
    SSL: (
        "SSL_in_init; SSL_do_handshake; bssl::aws_lc_0_41_0::SSLAEADContext::MaxOverhead; "
        "bssl::aws_lc_0_41_0::ssl_run_handshake; "
        "bssl::aws_lc_0_41_0::(anonymous namespace)::X25519KeyShare::~X25519KeyShare(); TLS_method; openssl::ssl::bio::bread"
    ),
    DATABASE: (
        "sqlite3_step; sqlite3VdbeExec; fts5WriteFinish; strowger::store::journal::Book::open; rusqlite::statement::Statement::step"
    ),
    LIBC: ("memcpy; __rust_alloc; __rustc::__rdl_alloc"),
    OTHER: ("[unknown]; ; nobody_knows_this; clap_builder::parser::parser::Parser::parse"),
}
# In files of their own: (symbol, file).
IN_FILES = {
    KERNEL: ("_copy_to_iter [kernel.kallsyms]; nft_do_chain [nf_tables]; bpf_prog_6deef7357e7b4530 bpf_prog_6deef7357e7b4530"),
    LIBC: ("_int_malloc LIB/libc.so.6; __vdso_clock_gettime [vdso]; _dl_relocate LIB/ld-linux-x86-64.so.2; floor LIB/libm.so.6"),
    PUBLIC_KEY: ("RSA_sign LIB/libcrypto.so.3; bn_mul_mont LIB/libcrypto.so.3; ossl_ec_key_simple_oct2priv LIB/libcrypto.so.3"),
    MAC: ("sha256_block_data_order_shaext LIB/libcrypto.so.3; MD5Transform /usr/sbin/kamailio"),
    SYMMETRIC: ("aesni_cbc_encrypt LIB/libcrypto.so.3"),
    UNNAMED: ("[unknown] LIB/libcrypto.so.3"),
    CRYPTO: ("CRYPTO_free LIB/libcrypto.so.3"),
    SSL: ("SSL_read LIB/libssl.so.3"),
    CORE: ("qm_malloc /usr/sbin/kamailio; parse_msg /usr/sbin/kamailio; trim LIB/kamailio/libsrutils.so.1.0"),
    MODULES: ("t_newtran LIB/kamailio/modules/tm.so; tls_read_f LIB/kamailio/modules/tls.so"),
    DATABASE: (
        "db_mysql_query LIB/kamailio/modules/db_mysql.so; sqlite3_step LIB/libsqlite3.so.0; db_fetch LIB/kamailio/libsrdb1.so.1"
    ),
    OTHER: ("[unknown] [unknown]; x //anon"),
}


class Components(unittest.TestCase):
    def test_what_is_in_our_binary_is_told_by_its_name(self):
        for wanted, symbols in IN_THE_BINARY.items():
            for symbol in symbols.split("; "):
                with self.subTest(symbol=symbol):
                    self.assertEqual(components.component(symbol, BINARY, 0x39E225), wanted)

    def test_what_is_in_a_file_of_its_own_is_told_by_the_file(self):
        for wanted, found in IN_FILES.items():
            for symbol, file in (each.split(" ", 1) for each in found.split("; ")):
                with self.subTest(symbol=symbol):
                    file = file.replace("LIB", "/usr/lib/x86_64-linux-gnu")
                    self.assertEqual(components.component(symbol, file, 0x1000), wanted)

    def test_an_address_of_the_kernel_is_the_kernels_whatever_its_symbol(self):
        self.assertEqual(components.component("[unknown]", "[unknown]", 0xFFFFFFFF813620E2), KERNEL)

    def test_a_local_c_function_is_told_by_its_source(self):
        for symbol, source, wanted in [
            ("accessPayload", "sqlite3.c", DATABASE),
            ("asn1_item_ex_d2i", "tasn_dec.c", CRYPTO),
            ("mod_mul_consttime", "bcm.c", PUBLIC_KEY),
            ("sk_call_free_func", "ssl_x509.cc", SSL),
            ("__floattidf", "compiler_builtins.4e30281dd23088d2-cgu.109", LIBC),
        ]:
            with self.subTest(symbol=symbol):
                self.assertEqual(components.component(symbol, BINARY, 0x1000, source), wanted)

    def test_what_is_inlined_counts_as_itself_and_generic_code_as_its_users(self):
        iterator = "<core::slice::iter::Iter<T> as core::iter::traits::iterator::Iterator>::fold"
        for chain, wanted in [
            ("strowger::stack::transaction::table::Transactions::foresee_due < strowger::worker::Worker<E>::tick", MODULES),
            (f"{iterator} < strowger::sip::message::cr_or_lf < strowger::stack::endpoint::Endpoint::receive", CORE),
            (f"{iterator} < md5::consume < strowger::stack::auth::digest::hash", MAC),
            ("memchr::memchr::memchr < strowger::stack::proxy::locate::Walk::target", MODULES),
            ("core::mem::replace < core::cell::once::OnceCell<T>::try_init", CORE),
        ]:
            with self.subTest(chain=chain):
                self.assertEqual(components.of_inlined(chain.split(" < ")), wanted)

    def test_each_component_has_a_place_in_the_thesis(self):
        found = components.as_thesis(dict.fromkeys(components.COMPONENTS, 1.0), components.OURS_AS_THESIS)
        self.assertEqual(sum(found.values()), len(components.COMPONENTS))
        self.assertEqual(found["libcrypto"], 5)


STACKS = """\
worker-0
\tffffffff813620e2 handle_softirqs ([kernel.kallsyms])
\t          39e225 strowger::stack::transaction::table::Clock::arm (/usr/bin/strowger)
\t          3794fb strowger::worker::Worker<E>::tick (/usr/bin/strowger)
\t          375995 std::sys::backtrace::__rust_begin_short_backtrace (/usr/bin/strowger)
\tffffffffffffffff [unknown] ([unknown])

worker-0
\t          39dec5 strowger::stack::proxy::branches::<impl strowger::stack::endpoint::Endpoint>::forward (/usr/bin/strowger)
\t          3794fb strowger::worker::Worker<E>::tick (/usr/bin/strowger)

worker-0
\t           96c98 sysmalloc (/usr/lib/x86_64-linux-gnu/libc.so.6)

"""
SYMBOLS = """\
   Num:    Value          Size Type    Bind   Vis      Ndx Name
  5148: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS sqlite3.c
  5149: 0000000000549ff0  1746 FUNC    LOCAL  DEFAULT   16 accessPayload
  6455: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS bcm.c
  6456: 0000000000650420   271 FUNC    LOCAL  DEFAULT   16 bn_cmp_words_consttime
  6457: 0000000000650430     8 OBJECT  LOCAL  DEFAULT   16 table
  6700: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS
  6701: 0000000000650530     8 FUNC    LOCAL  DEFAULT   16 _init
  6800: 0000000000650540     8 FUNC    GLOBAL DEFAULT   16 SSL_read
"""
SEGMENTS = """\
  LOAD           0x000000 0x0000000000000000 0x0000000000000000 0x175978 0x175978 R   0x1000
  LOAD           0x175980 0x0000000000176980 0x0000000000176980 0x6cec80 0x6cec80 R E 0x1000
"""
CHAINS = """\
0x000000000037a4fb
strowger::stack::transaction::table::Transactions::foresee_due
src/stack/transaction/table.rs:525
strowger::worker::Worker<E>::tick
src/worker/mod.rs:207
0x0000000000001000
??
??:0
"""


class Sampling(unittest.TestCase):
    def test_stacks_are_read_innermost_first_and_lose_their_unknown_end(self):
        found = sampling.parse(STACKS)
        self.assertEqual([len(sample.frames) for sample in found], [4, 2, 1])
        self.assertEqual(found[0].frames[1], (0x39E225, "strowger::stack::transaction::table::Clock::arm", "/usr/bin/strowger"))

    def test_sources_of_local_functions(self):
        self.assertEqual(sampling.sources(SYMBOLS), {"accessPayload": "sqlite3.c", "bn_cmp_words_consttime": "bcm.c"})

    def test_inlined_functions_by_address(self):
        self.assertEqual(
            sampling.chains(CHAINS),
            {0x37A4FB: ["strowger::stack::transaction::table::Transactions::foresee_due", "strowger::worker::Worker<E>::tick"]},
        )

    def program(self):
        program = sampling.Program(None)
        program.path = os.path.realpath(BINARY)
        program.segments = sampling.segments(SEGMENTS)
        program.chains[0x3794FB] = sampling.chains(CHAINS)[0x37A4FB]
        return program

    def test_an_offset_becomes_the_linkers_address(self):
        self.assertEqual(self.program().address(0x3794FB), 0x37A4FB)
        self.assertEqual(self.program().address(0x100), 0x100)

    def test_shares_are_of_the_innermost_function(self):
        counts, unknown = sampling.profile(sampling.parse(STACKS), self.program())
        self.assertEqual(dict(counts), {KERNEL: 1, MODULES: 1, LIBC: 1})
        self.assertFalse(unknown)

    def test_folded_stacks_begin_at_the_loop_and_show_what_is_inlined(self):
        stacks, cut = sampling.fold(sampling.parse(STACKS), self.program())
        # The third has no loop in it.
        self.assertEqual(cut, 1)
        self.assertEqual(
            sampling.folded(stacks).splitlines(),
            [
                "worker-0;strowger::worker::Worker<E>::tick;strowger::stack::transaction::table::Transactions::foresee_due;"
                "strowger::stack::proxy::branches::Endpoint::forward 1",
                "worker-0;strowger::worker::Worker<E>::tick;strowger::stack::transaction::table::Transactions::foresee_due;"
                "strowger::stack::transaction::table::Clock::arm;handle_softirqs 1",
                "worker-0;sysmalloc 1",
            ],
        )
        self.assertAlmostEqual(sampling.inclusive(stacks, r"::tick$"), 2 / 3)
        self.assertEqual(sampling.inclusive(stacks, r"^SSL_do_handshake$"), 0)


class Flames(unittest.TestCase):
    def test_functions_have_the_colours_of_what_they_work_for_most(self):
        stacks = Counter({(("w", None), ("a", CORE), ("c", KERNEL)): 3, (("w", None), ("c", MAC)): 1, (("b", OTHER),): 1})
        found = sampling.palette(stacks, {CORE: "#0072B2", KERNEL: "#9a9a9a", MAC: "#000000", OTHER: "#ffffff"})
        self.assertEqual(found, "a->rgb(0,114,178)\nb->rgb(255,255,255)\nc->rgb(154,154,154)\n")
        self.assertEqual(set(COLOURS), set(COMPONENTS))

    def test_names_keep_what_separates_them_out(self):
        self.assertEqual(sampling.short("<fn(a) -> b as c>::d;e"), "<fn(a) → b as c>::d:e")
        self.assertEqual(sampling.short("bssl::aws_lc_0_41_0::ssl_run_handshake(x)"), "bssl::ssl_run_handshake")


class TheReport(unittest.TestCase):
    def test_shares_are_of_all_runs_and_costs_of_those_without_the_profiler(self):
        found = Profiles(argparse.Namespace())
        case, samples = profiling.UNIT, Samples()
        statistics = {
            "strowger_idle_sweep_visited_total": 4,
            'strowger_tls_handshake_calls_total{side="server"}': 30,
            'strowger_tls_handshakes_total{side="server",kind="full"}': 10,
            'strowger_tls_handshakes_total{side="server",kind="mutual"}': 10,
        }
        for kernel in (60, 40):
            result = {
                **{"counted": {KERNEL: kernel, CORE: 100 - kernel}, "unknown": {"x (y)": 2}, "statistics": statistics},
                **{"server_cpu_us_each": 24.0, "completed_per_second": 1000, "completed_in_all": 800, "cut_off": 0.1},
                **{"sampled_busy": 0.9, "server_busy": 0.95, "inclusive": dict.fromkeys(profiling.INCLUSIVE, 0.25)},
            }
            samples.add(found.key(case), result)
        samples.add(f"{case.name}|strowger|window", {"server_cpu_us_each": 20.0})
        found.samples, said = samples, Report("profile", "", {"machine": "", "minutes": 1})
        with mock.patch.object(profiling, "draw_costs"):
            profiling.tell(said, found)
        tables = {title: frame.set_index("case").loc["chain-udp"] for title, frame in said.tables if "case" in frame}
        shares, costs, trust, faults = tables.values()
        self.assertEqual((shares["samples"], shares[KERNEL], shares[CORE]), ("200", "50.0", "50.0"))
        self.assertEqual((costs["all"], costs[KERNEL]), ("20.0 ×1", "10.0"))
        self.assertEqual((trust["with it"], trust.iloc[-1]), ("+20 %", "x (y) 2.0 %"))
        self.assertEqual((faults["calls for each handshake as server"], faults["as client"]), ("3.00", "—"))
        self.assertEqual(faults["connections looked at for each call"], "0.0050")
