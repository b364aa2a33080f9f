//! Where the location table is that several servers share: `redis://HOST:PORT/DB` and the like.

use std::fmt;

/// A Redis in which several servers have one location table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    pub kind: StoreKind,
    /// All of them are spoken to over TLS.
    pub is_secure: bool,
    /// Names, or addresses without brackets, with their ports: that of Redis, those of its sentinels, or those of some servers of the cluster.
    pub hosts: Vec<(String, u16)>,
    pub db: u32,
}

/// How the server is found, and spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One server.
    Single,
    /// The primary that the sentinels name for this service.
    Sentinels(String),
    /// A cluster, of which some servers are named.
    Cluster,
}

/// As the conf writes it.
impl fmt::Display for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "rediss" } else { "redis" };
        f.write_str(scheme)?;
        f.write_str(match self.kind {
            StoreKind::Single => "://",
            StoreKind::Sentinels(_) => "-sentinel://",
            StoreKind::Cluster => "-cluster://",
        })?;
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        if let StoreKind::Sentinels(service) = &self.kind {
            write!(f, "/{service}")?;
        }
        match self.kind {
            StoreKind::Cluster => Ok(()),
            _ => write!(f, "/{}", self.db),
        }
    }
}
