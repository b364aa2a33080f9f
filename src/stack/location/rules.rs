//! What a binding read back from disk must satisfy: a row is trusted no more than a message.

use super::Row;
use crate::sip::Uri;
use crate::stack::Settings;
use std::sync::Arc;

/// The rules by which rows are judged when they are read.
#[derive(Clone, Debug, Default)]
pub struct RowRules(Arc<Settings>);

impl RowRules {
    pub fn new(settings: Arc<Settings>) -> RowRules {
        RowRules(settings)
    }

    /// The rules of a server that is responsible for one domain.
    #[cfg(test)]
    pub fn of_domain(domain: &[u8]) -> RowRules {
        RowRules::new(Arc::new(Settings { domains: vec![domain.to_vec()], ..Settings::default() }))
    }

    /// Returns the maximum lifetime of a binding, in seconds.
    pub fn max_expires_s(&self) -> u32 {
        self.0.registrar.max_expires
    }

    /// Returns the maximum number of contacts of an address-of-record.
    pub fn max_contacts(&self) -> usize {
        self.0.registrar.max_contacts
    }

    /// Checks whether a row could stem from a REGISTER; the error says what is wrong.
    pub fn check(&self, aor: &[u8], row: &Row) -> Result<(), &'static str> {
        self.0.check_row(aor, row)
    }

    /// Returns whether a contact names the address-of-record that it is bound to, or this server and no user of it.
    pub fn leads_back(&self, contact: &[u8], aor: &[u8]) -> bool {
        Uri::parse(contact).is_ok_and(|uri| self.0.leads_back(&uri, aor))
    }
}
