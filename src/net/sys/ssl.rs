//! What the `openssl` crate does not wrap of the TLS library: ticket keys, session resumption, a chain for each certificate.

use std::sync::{Arc, OnceLock};
use std::{ptr, slice};

#[cfg(feature = "aws-lc")]
use foreign_types::ForeignType;
use foreign_types::ForeignTypeRef;
use libc::{c_int, c_uchar, c_void};
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslContextRef, SslRef, SslSessionRef};
use openssl::stack::StackRef;
use openssl::x509::{X509, X509PurposeId, X509Ref, X509StoreContextRef, X509VerifyResult};
use openssl_sys as ffi;

/// The length of the name by which a ticket names its key.
pub const TICKET_NAME: usize = 16;

/// The keys of one generation of tickets: AES-256-CBC, then HMAC-SHA256 (RFC 5077 §4).
#[derive(Clone)]
pub struct TicketKey {
    pub name: [u8; TICKET_NAME],
    pub cipher: [u8; 32],
    pub mac: [u8; 32],
}

/// A store of ticket keys.
pub trait TicketKeys: Send + Sync + 'static {
    /// Returns the key for a new ticket; `None`: no ticket can be issued.
    fn to_seal(&self) -> Option<TicketKey>;
    /// Returns the key of that name if its tickets are still valid, and whether the client should get a new ticket instead.
    fn to_open(&self, name: &[u8]) -> Option<(TicketKey, bool)>;
    /// Returns the keys for the process that takes over; empty if it derives them itself.
    fn legacy(&self) -> Vec<u8> {
        Vec::new()
    }
}

type Keys = Arc<dyn TicketKeys>;

fn keys_index() -> Result<Index<SslContext, Keys>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Keys>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = SslContext::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// Lets the context seal and open tickets with `keys`.
pub fn set_ticket_keys(builder: &mut SslContextBuilder, keys: Keys) -> Result<(), ErrorStack> {
    let index = keys_index()?;
    builder.set_ex_data(index, keys);
    // SAFETY: the builder's pointer is a live SSL_CTX, and the callback is of the type that the library documents.
    let done = unsafe { set_ticket_callback(builder.as_ptr()) };
    if done { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Accepts signatures of Ed25519 keys from peers, as OpenSSL does by itself (RFC 8446 §4.2.3, RFC 8422 §5.1.3).
pub fn accept_ed25519(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    #[cfg(feature = "aws-lc")]
    {
        // What AWS-LC accepts by default, in its order, then Ed25519.
        let algorithms = [
            ffi::SSL_SIGN_ECDSA_SECP256R1_SHA256,
            ffi::SSL_SIGN_RSA_PSS_RSAE_SHA256,
            ffi::SSL_SIGN_RSA_PKCS1_SHA256,
            ffi::SSL_SIGN_ECDSA_SECP384R1_SHA384,
            ffi::SSL_SIGN_RSA_PSS_RSAE_SHA384,
            ffi::SSL_SIGN_RSA_PKCS1_SHA384,
            ffi::SSL_SIGN_ECDSA_SECP521R1_SHA512,
            ffi::SSL_SIGN_RSA_PSS_RSAE_SHA512,
            ffi::SSL_SIGN_RSA_PKCS1_SHA512,
            ffi::SSL_SIGN_RSA_PKCS1_SHA1,
            ffi::SSL_SIGN_ED25519,
        ]
        .map(|algorithm| algorithm as u16);
        // SAFETY: the builder's pointer is a live SSL_CTX, and the library copies as many numbers as the array has.
        let done = unsafe { ffi::SSL_CTX_set_verify_algorithm_prefs(builder.as_ptr(), algorithms.as_ptr(), algorithms.len()) };
        if done != 1 {
            return Err(ErrorStack::get());
        }
    }
    #[cfg(not(feature = "aws-lc"))]
    let _ = builder;
    Ok(())
}

#[cfg(feature = "aws-lc")]
unsafe fn set_ticket_callback(context: *mut ffi::SSL_CTX) -> bool {
    // SAFETY: as the caller promises.
    unsafe { ffi::SSL_CTX_set_tlsext_ticket_key_cb(context, Some(ticket_key)) == 1 }
}

#[cfg(not(feature = "aws-lc"))]
unsafe fn set_ticket_callback(context: *mut ffi::SSL_CTX) -> bool {
    /// SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB of openssl/ssl.h.
    const SET_TICKET_KEY_CALLBACK: c_int = 72;
    type Callback = unsafe extern "C" fn(
        *mut ffi::SSL,
        *mut c_uchar,
        *mut c_uchar,
        *mut ffi::EVP_CIPHER_CTX,
        *mut ffi::HMAC_CTX,
        c_int,
    ) -> c_int;
    // SAFETY: SSL_CTX_callback_ctrl takes every callback as `void (*)(void)` and casts this one back, by its number.
    unsafe {
        let callback = std::mem::transmute::<Callback, unsafe extern "C" fn()>(ticket_key);
        ffi::SSL_CTX_callback_ctrl__fixed_rust(context, SET_TICKET_KEY_CALLBACK, Some(callback)) == 1
    }
}

/// Called when the library needs a key (SSL_CTX_set_tlsext_ticket_key_cb). Returns 1: here it is; 2: here it is, and renew the
/// ticket; 0: none (then a full handshake follows); -1: the handshake fails.
unsafe extern "C" fn ticket_key(
    ssl: *mut ffi::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::HMAC_CTX,
    sealing: c_int,
) -> c_int {
    const IV: usize = 16;
    // SAFETY: the library calls with a live SSL, which outlives the call.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let keys = keys_index().ok().and_then(|index| ssl.ssl_context().ex_data(index));
    let Some(keys) = keys else { return 0 };
    // SAFETY: `name` has 16 bytes and `iv` EVP_MAX_IV_LENGTH (16), to be filled when sealing and to be read when opening; the
    // two contexts are live and initialised, and the keys are as long as the algorithms want them.
    unsafe {
        if sealing == 1 {
            let Some(key) = keys.to_seal() else { return 0 };
            let iv_bytes = slice::from_raw_parts_mut(iv, IV);
            if openssl::rand::rand_bytes(iv_bytes).is_err() {
                return -1;
            }
            slice::from_raw_parts_mut(name, TICKET_NAME).copy_from_slice(&key.name);
            let engine = ptr::null_mut();
            let aes = ffi::EVP_aes_256_cbc();
            if ffi::EVP_EncryptInit_ex(cipher, aes, engine, key.cipher.as_ptr(), iv) != 1 || !init_mac(mac, &key.mac) {
                return -1;
            }
            1
        } else {
            let Some((key, renew)) = keys.to_open(slice::from_raw_parts(name, TICKET_NAME)) else {
                return 0;
            };
            let engine = ptr::null_mut();
            let aes = ffi::EVP_aes_256_cbc();
            if ffi::EVP_DecryptInit_ex(cipher, aes, engine, key.cipher.as_ptr(), iv) != 1 || !init_mac(mac, &key.mac) {
                return -1;
            }
            // A ticket of TLS 1.3 is for one use (RFC 8446 §C.4): its owner needs the next one.
            let is_13 = ssl.version2() == Some(openssl::ssl::SslVersion::TLS1_3);
            if renew || is_13 { 2 } else { 1 }
        }
    }
}

unsafe fn init_mac(mac: *mut ffi::HMAC_CTX, key: &[u8; 32]) -> bool {
    // SAFETY: `mac` is live as the caller promises, and the key has the length that is given (size_t or int, by the library).
    unsafe { ffi::HMAC_Init_ex(mac, key.as_ptr().cast::<c_void>(), key.len() as _, ffi::EVP_sha256(), ptr::null_mut()) == 1 }
}

/// Adds to the chain of the certificate set last. (`add_extra_chain_cert` has a single chain for all certificates.)
pub fn add_chain_certificate(builder: &mut SslContextBuilder, certificate: &X509Ref) -> Result<(), ErrorStack> {
    // SAFETY: both pointers are live; the library takes a reference of its own ("add1").
    let done = unsafe {
        #[cfg(feature = "aws-lc")]
        {
            ffi::SSL_CTX_add1_chain_cert(builder.as_ptr(), certificate.as_ptr()) == 1
        }
        #[cfg(not(feature = "aws-lc"))]
        {
            let certificate = certificate.as_ptr().cast::<c_void>();
            ffi::SSL_CTX_ctrl(builder.as_ptr(), ffi::SSL_CTRL_CHAIN_CERT, 1, certificate) == 1
        }
    };
    if done { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Verifies the certificates that peers show.
pub trait Verify: Send + Sync + 'static {
    /// Returns whether the chain in `store` is valid; if not, the reason is left in it as its error.
    fn verify(&self, store: &mut X509StoreContextRef) -> bool;
}

/// Has `verifier` called for each chain, in place of the library's own check.
pub fn set_verifier(builder: &mut SslContextBuilder, verifier: Box<dyn Verify>) -> Result<(), ErrorStack> {
    /// The address of this is the argument of the callback; the context owns it, and outlives every call.
    struct Owned(Box<dyn Verify>);

    unsafe extern "C" fn verify(store: *mut ffi::X509_STORE_CTX, owned: *mut c_void) -> c_int {
        // SAFETY: the library calls with a live store context, which nothing else uses during the call, and with the argument
        // that was given below: an `Owned` that the context of the connection owns.
        unsafe {
            let owned = &*owned.cast::<Owned>();
            let store = X509StoreContextRef::from_ptr_mut(store);
            c_int::from(owned.0.verify(store))
        }
    }

    #[cfg(not(feature = "aws-lc"))]
    use declared::SSL_CTX_set_cert_verify_callback;
    #[cfg(feature = "aws-lc")]
    use ffi::SSL_CTX_set_cert_verify_callback;
    #[cfg(not(feature = "aws-lc"))]
    mod declared {
        unsafe extern "C" {
            pub fn SSL_CTX_set_cert_verify_callback(
                context: *mut openssl_sys::SSL_CTX,
                callback: Option<unsafe extern "C" fn(*mut openssl_sys::X509_STORE_CTX, *mut libc::c_void) -> libc::c_int>,
                argument: *mut libc::c_void,
            );
        }
    }

    static INDEX: OnceLock<Index<SslContext, Arc<Owned>>> = OnceLock::new();
    let index = match INDEX.get() {
        Some(index) => *index,
        None => {
            let index = SslContext::new_ex_index()?;
            *INDEX.get_or_init(|| index)
        }
    };
    let owned = Arc::new(Owned(verifier));
    let argument = Arc::as_ptr(&owned).cast_mut().cast::<c_void>();
    builder.set_ex_data(index, owned);
    // SAFETY: the pointer is live, and so is the argument for as long as the context is: the context keeps the `Arc`.
    unsafe { SSL_CTX_set_cert_verify_callback(builder.as_ptr(), Some(verify), argument) }
    Ok(())
}

/// Returns the certificate to be verified, and the whole chain as the peer sent it.
pub fn presented(store: &X509StoreContextRef) -> (Option<&X509Ref>, Option<&StackRef<X509>>) {
    #[cfg(not(feature = "aws-lc"))]
    use declared::{X509_STORE_CTX_get0_cert, X509_STORE_CTX_get0_untrusted};
    #[cfg(feature = "aws-lc")]
    use ffi::{X509_STORE_CTX_get0_cert, X509_STORE_CTX_get0_untrusted};
    #[cfg(not(feature = "aws-lc"))]
    mod declared {
        unsafe extern "C" {
            pub fn X509_STORE_CTX_get0_cert(store: *const openssl_sys::X509_STORE_CTX) -> *mut openssl_sys::X509;
            pub fn X509_STORE_CTX_get0_untrusted(store: *const openssl_sys::X509_STORE_CTX) -> *mut openssl_sys::stack_st_X509;
        }
    }
    // SAFETY: the pointer is live; what is returned belongs to the store context, and so lives as long as the borrow.
    unsafe {
        let certificate = X509_STORE_CTX_get0_cert(store.as_ptr());
        let chain = X509_STORE_CTX_get0_untrusted(store.as_ptr());
        ((!certificate.is_null()).then(|| X509Ref::from_ptr(certificate)), (!chain.is_null()).then(|| StackRef::from_ptr(chain)))
    }
}

/// Has the chain verified for any purpose: the purpose is checked afterwards ([`is_made_for`]).
pub fn take_any_purpose(store: &mut X509StoreContextRef) {
    #[cfg(not(feature = "aws-lc"))]
    use declared::{X509_STORE_CTX_get0_param, X509_VERIFY_PARAM_set_purpose};
    #[cfg(feature = "aws-lc")]
    use ffi::{X509_STORE_CTX_get0_param, X509_VERIFY_PARAM_set_purpose};
    #[cfg(not(feature = "aws-lc"))]
    mod declared {
        unsafe extern "C" {
            pub fn X509_STORE_CTX_get0_param(store: *mut openssl_sys::X509_STORE_CTX) -> *mut openssl_sys::X509_VERIFY_PARAM;
            pub fn X509_VERIFY_PARAM_set_purpose(param: *mut openssl_sys::X509_VERIFY_PARAM, purpose: libc::c_int) -> libc::c_int;
        }
    }
    // SAFETY: the pointer is live; the parameters belong to the store context, and the call only sets a number in them.
    unsafe {
        let parameters = X509_STORE_CTX_get0_param(store.as_ptr());
        if !parameters.is_null() {
            X509_VERIFY_PARAM_set_purpose(parameters, X509PurposeId::ANY.as_raw());
        }
    }
}

/// Returns whether a certificate is made for the purpose, by its extensions (extended key usage, key usage, basic constraints).
pub fn is_made_for(certificate: &X509Ref, purpose: X509PurposeId, is_authority: bool) -> bool {
    #[cfg(not(feature = "aws-lc"))]
    use declared::X509_check_purpose;
    #[cfg(feature = "aws-lc")]
    use ffi::X509_check_purpose;
    #[cfg(not(feature = "aws-lc"))]
    mod declared {
        unsafe extern "C" {
            pub fn X509_check_purpose(
                certificate: *mut openssl_sys::X509,
                purpose: libc::c_int,
                is_authority: libc::c_int,
            ) -> libc::c_int;
        }
    }
    // SAFETY: the pointer is live; the library may note in the certificate what it has read of it, under a lock of its own.
    unsafe { X509_check_purpose(certificate.as_ptr(), purpose.as_raw(), c_int::from(is_authority)) == 1 }
}

/// Returns the verdict that a certificate is made for another purpose.
pub fn wrong_purpose() -> X509VerifyResult {
    /// X509_V_ERR_INVALID_PURPOSE, of the same value in both libraries.
    const INVALID_PURPOSE: c_int = 26;
    // SAFETY: the value is one of the library's own codes.
    unsafe { X509VerifyResult::from_raw(INVALID_PURPOSE) }
}

/// Sets the lifetime of a session in seconds.
pub fn set_session_timeout(builder: &mut SslContextBuilder, seconds: u32) {
    // SAFETY: the pointer is live, and the calls only set numbers.
    unsafe {
        #[cfg(feature = "aws-lc")]
        {
            ffi::SSL_CTX_set_timeout(builder.as_ptr(), seconds);
            ffi::SSL_CTX_set_session_psk_dhe_timeout(builder.as_ptr(), seconds);
        }
        #[cfg(not(feature = "aws-lc"))]
        {
            unsafe extern "C" {
                fn SSL_CTX_set_timeout(context: *mut ffi::SSL_CTX, seconds: libc::c_long) -> libc::c_long;
            }
            SSL_CTX_set_timeout(builder.as_ptr(), libc::c_long::from(seconds));
        }
    }
}

/// Sets how many tickets a server sends after a full TLS 1.3 handshake.
pub fn set_ticket_count(builder: &mut SslContextBuilder, count: usize) -> Result<(), ErrorStack> {
    // SAFETY: the pointer is live, and the call only sets a number.
    let done = unsafe { ffi::SSL_CTX_set_num_tickets(builder.as_ptr(), count) };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Sets the TLS 1.3 suites, by name and separated by colons. (The crate offers this for OpenSSL only.)
pub fn set_ciphersuites(builder: &mut SslContextBuilder, list: &str) -> Result<(), ErrorStack> {
    let Ok(list) = std::ffi::CString::new(list) else {
        return Err(ErrorStack::get());
    };
    // SAFETY: both pointers are live, and the library copies what it needs of the string.
    let done = unsafe { ffi::SSL_CTX_set_ciphersuites(builder.as_ptr(), list.as_ptr()) };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Has `callback` called on a client when the server requests a certificate. (On a server it is called in each handshake.)
pub fn set_certificate_callback(builder: &mut SslContextBuilder, callback: fn(&mut SslRef)) {
    unsafe extern "C" fn asked(ssl: *mut ffi::SSL, callback: *mut c_void) -> c_int {
        // SAFETY: the argument is the function pointer that was given below, and the SSL is live and not used elsewhere
        // while the library is in this call.
        unsafe {
            let callback = std::mem::transmute::<*mut c_void, fn(&mut SslRef)>(callback);
            callback(SslRef::from_ptr_mut(ssl));
        }
        1
    }
    #[cfg(not(feature = "aws-lc"))]
    use declared::SSL_CTX_set_cert_cb;
    #[cfg(feature = "aws-lc")]
    use ffi::SSL_CTX_set_cert_cb;
    #[cfg(not(feature = "aws-lc"))]
    mod declared {
        unsafe extern "C" {
            pub fn SSL_CTX_set_cert_cb(
                context: *mut openssl_sys::SSL_CTX,
                callback: Option<unsafe extern "C" fn(*mut openssl_sys::SSL, *mut libc::c_void) -> libc::c_int>,
                argument: *mut libc::c_void,
            );
        }
    }
    // SAFETY: the pointer is live; the argument comes back to `asked` as it is given, and a function lives for ever.
    unsafe { SSL_CTX_set_cert_cb(builder.as_ptr(), Some(asked), callback as *mut c_void) }
}

/// Frees after the handshake what only handshakes need: the connection then cannot renegotiate. OpenSSL has no equivalent.
pub fn shed_handshake(ssl: &mut Ssl) {
    #[cfg(feature = "aws-lc")]
    // SAFETY: the pointer is live, and the call only sets a flag.
    unsafe {
        ffi::SSL_set_shed_handshake_config(ssl.as_ptr(), 1);
    }
    #[cfg(not(feature = "aws-lc"))]
    let _ = ssl;
}

/// Offers the server `session`, which was established on a connection of the context `made_by`.
///
/// Returns whether it is offered: not if the connection belongs to another context, as the library requires the same one.
pub fn offer_session(ssl: &mut Ssl, session: &SslSessionRef, made_by: &SslContextRef) -> bool {
    if ssl.ssl_context().as_ptr() != made_by.as_ptr() {
        return false;
    }
    // SAFETY: the session was made by a connection of this very context.
    unsafe { ssl.set_session(session).is_ok() }
}

/// Returns the name that a client requests (RFC 6066 §3), while its ClientHello is being processed (SSL_CTX_set_client_hello_cb).
#[cfg(not(feature = "aws-lc"))]
pub fn asked_name(ssl: &SslRef) -> Option<String> {
    const SERVER_NAME: libc::c_uint = 0;
    const HOST_NAME: u8 = 0;
    let mut data = ptr::null();
    let mut len = 0;
    // SAFETY: the pointers are live; what is returned lies in the ClientHello, which lives until the callback returns, and is
    // copied before.
    let extension = unsafe {
        if ffi::SSL_client_hello_get0_ext(ssl.as_ptr(), SERVER_NAME, &mut data, &mut len) != 1 {
            return None;
        }
        slice::from_raw_parts(data, len)
    };
    // A list, its length before it; of each entry the kind and the length. There is one entry.
    let [_, _, HOST_NAME, high, low, name @ ..] = extension else {
        return None;
    };
    let name = name.get(..usize::from(u16::from_be_bytes([*high, *low])))?;
    String::from_utf8(name.to_vec()).ok()
}

/// Returns whether a session is a TLS 1.3 session, whose tickets should be used only once (RFC 8446 §C.4).
pub fn is_single_use(session: &SslSessionRef) -> bool {
    // SAFETY: the pointer is live, and the call only reads.
    unsafe {
        #[cfg(feature = "aws-lc")]
        {
            ffi::SSL_SESSION_should_be_single_use(session.as_ptr()) == 1
        }
        #[cfg(not(feature = "aws-lc"))]
        {
            ffi::SSL_SESSION_get_protocol_version(session.as_ptr()) >= ffi::TLS1_3_VERSION
        }
    }
}

/// Returns the verdict that the certificate does not prove the requested name.
pub fn name_mismatch() -> X509VerifyResult {
    /// X509_V_ERR_HOSTNAME_MISMATCH, of the same value in both libraries.
    const HOSTNAME_MISMATCH: c_int = 62;
    // SAFETY: the value is one of the library's own codes.
    unsafe { X509VerifyResult::from_raw(HOSTNAME_MISMATCH) }
}
