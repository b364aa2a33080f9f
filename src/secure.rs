//! What the conf says of secrets, as the wires take it: certificates and keys with all that handshakes are made from, who may read their
//! files, and that no crash leaves them behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use strowger::base::Key;
use strowger::config::key;
use strowger::config::model::{self, Conf};
use strowger::net::sys;
use strowger::net::tls::{self, Contexts};

/// What handshakes are made from: certificates, keys, sessions. `None` where nothing of the conf needs TLS.
pub fn contexts(conf: &Conf, previous: Option<&Contexts>) -> Result<Option<Arc<Contexts>>, String> {
    let needed = |transport: model::Transport| transport == model::Transport::Tls;
    if !conf.listen.iter().any(|listen| needed(listen.transport)) {
        return Ok(None);
    }
    let contexts = Contexts::load(&tls_settings(conf), previous);
    contexts
        .map(|contexts| Some(Arc::new(contexts)))
        .map_err(|error| error.to_string())
}

/// What stands for the certificate that a route shows, between the rules and the wires: 0 for what all are shown.
pub(crate) fn identity_of(route: &model::Route) -> u64 {
    if route.certificate.is_empty() {
        return 0;
    }
    let names = route.certificate.iter().flat_map(|pair| {
        let (certificate, key) = (&pair.certificate, &pair.private_key);
        [certificate, key].map(|path| path.as_os_str().as_encoded_bytes())
    });
    let names: Vec<&[u8]> = names.collect();
    Key::new(0, 0).derive("identity").hash(&names).max(1)
}

fn tls_settings(conf: &Conf) -> tls::Settings {
    let tls = &conf.tls;
    let pairs = |pairs: &[model::Pair]| -> Vec<tls::Pair> {
        let pair = |pair: &model::Pair| tls::Pair {
            certificate: pair.certificate.clone(),
            private_key: pair.private_key.clone(),
        };
        pairs.iter().map(pair).collect()
    };
    let version = |version: model::TlsVersion| match version {
        model::TlsVersion::V1_2 => tls::Version::Tls12,
        model::TlsVersion::V1_3 => tls::Version::Tls13,
    };
    let purpose = |purpose: &model::Purpose| match purpose {
        model::Purpose::ClientAuth => tls::Purpose::ClientAuth,
        model::Purpose::ServerAuth => tls::Purpose::ServerAuth,
        model::Purpose::Any => tls::Purpose::Any,
    };
    tls::Settings {
        default_identity: pairs(&tls.identity),
        identities: tls
            .identities
            .iter()
            .map(|identity| tls::Identity {
                name: identity.name.clone(),
                pairs: pairs(&identity.pairs),
            })
            .collect(),
        client_identity: pairs(&tls.client_identity),
        client_identities: {
            let routes = conf
                .routes
                .iter()
                .filter(|route| !route.certificate.is_empty());
            let all = routes.map(|route| (identity_of(route), pairs(&route.certificate)));
            all.collect::<BTreeMap<_, _>>().into_iter().collect()
        },
        show_client_certificate: tls.show_client_certificate,
        trusted_ca: tls.trusted_ca.clone(),
        verify_client: match tls.verify_client {
            model::VerifyClient::No => tls::VerifyClient::No,
            model::VerifyClient::Optional => tls::VerifyClient::Optional,
            model::VerifyClient::Required => tls::VerifyClient::Required,
        },
        client_purposes: tls.client_purposes.iter().map(purpose).collect(),
        verify_server: tls.verify_server,
        min_version: version(tls.min_version),
        max_version: version(tls.max_version),
        ciphers: tls.ciphers.clone(),
        ciphersuites: tls.ciphersuites.clone(),
        groups: tls.groups.clone(),
        server_session_reuse: tls.server_session_reuse,
        client_session_reuse: tls.client_session_reuse,
        session_lifetime: tls.session_lifetime,
    }
}

/// Where the conf wants it, as almost always. To be repeated when the process has become another user.
pub(crate) fn forbid_dumps(conf: &Conf) {
    if !conf.server.core_dumps
        && let Err(error) = sys::dumps::forbid()
    {
        log::warn!("core dumps cannot be forbidden: {error}");
    }
}

/// A line for each file whose secrets others may read.
pub(crate) fn warn_of_exposed(conf: &Conf) {
    for line in key::exposed_files(conf) {
        log::warn!("{line}");
    }
}
