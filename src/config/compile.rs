//! The parameters of the modules below, made of a conf and of the machine's resources; what is constant for a conf is worked out
//! once.

use super::model::Conf;
use crate::net::{Limits, interfaces, tls};
use crate::settings::Durability;
use crate::stack;
use crate::stack::settings::{Listener, PerCore};
use std::net::{IpAddr, SocketAddr};

/// Bytes of memory that one transaction may take in total; the limit from memory is a quarter of it in units of these.
const TRANSACTION_BYTES: usize = 2048;
/// The same for one binding.
const BINDING_BYTES: usize = 512;

impl Conf {
    /// Parameters of the rules. `bound` is where the listeners are, by position, `local` are this machine's addresses, `memory` its
    /// bytes.
    pub fn rules(&self, bound: &[SocketAddr], local: Vec<IpAddr>, memory: u64) -> stack::Settings {
        let listeners = self.listen.iter().zip(bound).map(|(listen, address)| {
            let advertise = match &listen.advertise {
                Some(name) => name.clone(),
                None => interfaces::advertised(*address, &local).to_string(),
            };
            Listener { transport: listen.transport, address: *address, advertise: advertise.into_bytes() }
        });
        let domains = self.server.domains.iter();
        stack::Settings {
            domains: domains.map(|domain| domain.clone().into_bytes()).collect(),
            listeners: listeners.collect(),
            local_addresses: local,
            cores: self.cores() as u8,
            per_core: self.per_core(memory),
            proxy: self.proxy.clone(),
            registrar: self.registrar.clone(),
            auth: self.auth.clone(),
            next_hop: self.next_hop.clone(),
            timers: self.timers.clone(),
            limits: self.limits.clone(),
            dns: self.dns.clone(),
            records: self.records.clone(),
            outgoing: self.connections.outgoing,
            routes: self.routes.clone(),
            trunks: self.trunks.clone(),
        }
    }

    fn cores(&self) -> usize {
        self.server.cores.len().clamp(1, 255)
    }

    /// Limits of one core, if the server has `memory` bytes.
    pub fn per_core(&self, memory: u64) -> PerCore {
        let (cores, limits) = (self.cores(), &self.limits);
        let all = limits.transactions.resolve(memory / 4, TRANSACTION_BYTES);
        // At most that share of the memory, however many transactions the conf allows.
        let share = usize::try_from(memory / 4).unwrap_or(usize::MAX);
        PerCore {
            transactions: (all / cores).max(1),
            // Room for a few of the longest messages, whatever the machine.
            transaction_bytes: (share / cores).max(64 * limits.message_size),
            questions: (self.dns.questions / cores).max(1),
        }
    }

    /// Bindings of the whole server.
    pub fn max_bindings(&self, memory: u64) -> usize {
        self.limits.bindings.resolve(memory / 4, BINDING_BYTES)
    }

    /// What the location service has to record: nothing without a database.
    pub fn durability(&self) -> Option<Durability> {
        let registrar = &self.registrar;
        registrar.database.as_ref().map(|_| registrar.durability)
    }

    /// Parameters of one core's connections, if the process may open `files` files.
    pub fn connection_limits(&self, files: usize) -> Limits {
        let has_balancers = self.listen.iter().any(|listen| !listen.proxy_protocol.is_empty());
        Limits { has_balancers, ..Limits::new(&self.connections, &self.limits, self.cores(), files) }
    }

    /// Parameters of handshakes.
    pub fn tls_settings(&self, ticket_secrets: &tls::TicketSecrets) -> tls::Settings {
        tls::Settings {
            certificates: self.certificates.clone(),
            rules: self.tls.clone(),
            ticket_secrets: ticket_secrets.clone(),
            ..tls::Settings::default()
        }
    }
}
