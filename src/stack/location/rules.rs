//! What a binding that is read back from disk must be: no row is trusted more than a message.

use super::Row;
use crate::sip::Uri;
use crate::stack::Settings;
use std::sync::Arc;

/// The rules by which rows are judged, for whoever reads them.
#[derive(Clone, Debug, Default)]
pub struct RowRules(Arc<Settings>);

impl RowRules {
    pub fn new(settings: Arc<Settings>) -> RowRules {
        RowRules(settings)
    }

    /// For a server that is responsible for one domain.
    #[cfg(test)]
    pub fn of_domain(domain: &[u8]) -> RowRules {
        RowRules::new(Arc::new(Settings { domains: vec![domain.to_vec()], ..Settings::default() }))
    }

    /// Seconds that a binding lasts at most.
    pub fn max_expires_s(&self) -> u32 {
        self.0.registrar.max_expires
    }

    /// Contacts that an address-of-record may have.
    pub fn max_contacts(&self) -> usize {
        self.0.registrar.max_contacts
    }

    /// Whether a row could have come by a REGISTER, and what is wrong with it if not.
    pub fn check(&self, aor: &[u8], row: &Row) -> Result<(), &'static str> {
        self.0.check_row(aor, row)
    }

    /// Whether a contact names the address-of-record that it is bound to, or this server and no user of it.
    pub fn leads_back(&self, contact: &[u8], aor: &[u8]) -> bool {
        Uri::parse(contact).is_ok_and(|uri| self.0.leads_back(&uri, aor))
    }
}
