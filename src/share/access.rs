//! Where the shared table is, and who we are there.

use super::trouble::Trouble;
use crate::settings::SharedStore;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// When a server that says nothing is asked for a sign of life, and how often.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Who we are to a server.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Empty: the server's default user.
    pub user: String,
    pub password: Option<Vec<u8>>,
}

/// Where the shared table is, and who we are there.
#[derive(Clone)]
pub struct Access {
    pub store: SharedStore,
    pub credentials: Credentials,
    /// The certificates of the authorities that a server's must come from; those of the system if there are none.
    authorities: Option<Vec<u8>>,
    /// Whoever has it is opening a connection, besides us.
    pub opening: Arc<()>,
}

impl Access {
    /// `trusted_ca` is a file with the authorities that a server's certificate must come from; `None` stands for those of the system. The
    /// error is one line.
    pub fn new(store: SharedStore, credentials: Credentials, trusted_ca: Option<&Path>) -> Result<Access, String> {
        let mut access = Access { store, credentials, authorities: None, opening: Arc::default() };
        if let (true, Some(file)) = (access.store.is_secure, trusted_ca) {
            let place = format!("{}: TLS: {}", access.store, file.display());
            access.authorities = Some(std::fs::read(file).map_err(|error| format!("{place}: {error}"))?);
            access.build("localhost", 0).map_err(|error| format!("{place}: {error}"))?;
        }
        Ok(access)
    }

    /// Returns what connects to a server at this place.
    pub fn client(&self, host: &str, port: u16) -> Result<Client, Trouble> {
        self.build(host, port).map_err(|error| Trouble::Lost(error.to_string()))
    }

    fn build(&self, host: &str, port: u16) -> Result<Client, RedisError> {
        let host = host.to_owned();
        let address = match self.store.is_secure {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let info = address
            .into_connection_info()?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive))
            // An ACL user need not be allowed CLIENT SETINFO.
            .set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
        match &self.authorities {
            None => Client::open(info),
            Some(root) => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root.clone()) }),
        }
    }
}
