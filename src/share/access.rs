//! Where the shared table is, and who we are there.

use super::wire::Credentials;
use crate::settings::{SharedStore, StoreKind};
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use std::path::Path;

/// Where the shared table is, and who we are there.
#[derive(Clone)]
pub struct Access {
    pub store: SharedStore,
    pub credentials: Credentials,
    /// How servers prove who they are, if they are spoken to over TLS.
    pub connector: Option<SslConnector>,
}

impl Access {
    /// `trusted_ca` is a file with the authorities that a server's certificate must come from; `None` stands for those of the system. The
    /// error is one line.
    pub fn new(store: SharedStore, credentials: Credentials, trusted_ca: Option<&Path>) -> Result<Access, String> {
        let connector = match store.kind {
            StoreKind::Secure => Some(connector(trusted_ca).map_err(|error| format!("{store}: TLS: {error}"))?),
            StoreKind::Plain | StoreKind::Sentinels(_) | StoreKind::Cluster => None,
        };
        Ok(Access { store, credentials, connector })
    }
}

fn connector(trusted_ca: Option<&Path>) -> Result<SslConnector, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    if let Some(file) = trusted_ca {
        // Those, and not the system's as well.
        builder.set_cert_store(X509StoreBuilder::new()?.build());
        builder.set_ca_file(file)?;
    }
    Ok(builder.build())
}
