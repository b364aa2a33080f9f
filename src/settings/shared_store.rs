//! Where the location table is that several servers share: `redis://HOST:PORT/DB`.

use std::fmt;

/// A Redis in which several servers have one location table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub db: u32,
}

/// As the conf writes it.
impl fmt::Display for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SharedStore { host, port, db } = self;
        match host.contains(':') {
            true => write!(f, "redis://[{host}]:{port}/{db}"),
            false => write!(f, "redis://{host}:{port}/{db}"),
        }
    }
}
