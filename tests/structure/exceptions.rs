//! What breaks a rule for now. Less is welcome and has to be struck off here; more needs a reason that is better than the rule.

use crate::Exceptions;

/// One row after the other, without a branch.
const A_TABLE: &str = "a table: shorter only if torn apart";
/// Older than the rule.
const TO_SPLIT: &str = "to be split by subject";

pub const EXCEPTIONS: Exceptions = Exceptions {
    files: &[
        ("sip/message.rs", 852, TO_SPLIT),
        ("store/bindings.rs", 730, TO_SPLIT),
        ("store/journal.rs", 808, TO_SPLIT),
    ],
    functions: &[
        ("sip/status.rs", "reason", 87, A_TABLE),
        ("worker/metrics.rs", "streams", 107, A_TABLE),
    ],
    circles: &[
        &["stack/registrar/mod.rs", "stack/registrar/update.rs"],
        &[
            "stack/location/journal.rs",
            "stack/location/mod.rs",
            "stack/location/record.rs",
        ],
        &[
            "cli/trace.rs",
            "cli/trace/ladder.rs",
            "cli/trace/pcap.rs",
            "cli/trace/summary.rs",
            "cli/trace/text.rs",
        ],
        &["base/notes.rs", "base/outbox.rs"],
        &["base/guesses.rs", "base/sources.rs"],
        &["config/load/document.rs", "config/load/values.rs"],
        &["config/load/sections.rs", "config/load/tls.rs"],
        &["sip/message.rs", "sip/rewrite.rs", "sip/values.rs", "sip/via.rs"],
        &["sip/place.rs", "sip/uri.rs"],
        &["store/bindings.rs", "store/clock.rs", "store/round_log.rs"],
        &["store/subscriber.rs", "store/users.rs"],
        &["worker/mailbox.rs", "worker/mod.rs"],
    ],
};
