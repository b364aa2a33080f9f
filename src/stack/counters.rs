//! What the rules count: plain numbers per core, summed over the cores on request.

use crate::base::counters;
use crate::sip::Method;
use crate::stack::route_counters::RouteCounters;

/// Declares counter groups once: the enum, its label text and the number of entries.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            pub const COUNT: usize = $name::ALL.len();

            /// Returns the value of the metric's label.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

labels! {
    /// Why a message was neither processed nor answered (`strowger_dropped_total{reason}`).
    Drop {
        /// Not SIP, or nothing in it that an answer could go to.
        Unreadable = "unreadable",
        /// A response that violates §18.1.2 or the grammar.
        BadResponse = "bad_response",
        /// A response whose Via branch is not ours or whose check fails.
        ForeignResponse = "foreign_response",
        /// A response to a transaction that no longer exists (RFC 6026 §7: not forwarded).
        StrayResponse = "stray_response",
        /// An ACK that nothing waits for and that cannot be forwarded.
        StrayAck = "stray_ack",
        /// Retransmission absorbed by a transaction that has nothing to repeat.
        Absorbed = "absorbed",
        /// A branch of a foreign core that does not exist.
        NoSuchCore = "no_such_core",
        /// Longer than `[limits] message_size` or than a datagram carries.
        TooLong = "too_long",
        /// No listener has the peer's address family.
        NoListener = "no_listener",
        /// A `[[route]]` says to drop it.
        Route = "route",
        /// A CRLF keep-alive.
        KeepAlive = "keep_alive",
    }
}

labels! {
    /// Which limit was hit (`strowger_limit_hits_total{limit}`).
    Limit {
        Transactions = "transactions",
        /// Bytes of messages that transactions hold.
        TransactionBytes = "transaction_bytes",
        /// One source's share of transactions.
        TransactionsOfSource = "transactions_of_source",
        /// One address-of-record's share of transactions.
        TransactionsOfAor = "transactions_of_aor",
        Contacts = "contacts",
        /// Size of a contact, its Path or its Call-ID.
        ContactSize = "contact_size",
        Bindings = "bindings",
        /// One source's share of bindings.
        BindingsOfSource = "bindings_of_source",
        Targets = "targets",
        MaxBreadth = "max_breadth",
        MaxForwards = "max_forwards",
        /// DNS queries in flight.
        Questions = "dns_questions",
        /// One asker's share of DNS queries.
        QuestionsOfAsker = "dns_questions_of_asker",
        /// Bytes of messages without a transaction that wait for a DNS answer.
        Held = "dns_held",
        /// New requests refused while a core was behind.
        Overload = "overload",
        /// Lines left out of an answer: over UDP it may be only a few times as long as its request.
        AnswerSize = "answer_size",
        /// Passwords not checked, because too many had been wrong.
        Guesses = "guesses",
        /// Requests of one user.
        PerUser = "requests_per_user",
        /// New requests for one address-of-record.
        PerAor = "requests_per_aor",
    }
}

labels! {
    /// The outcome of a REGISTER (`strowger_registrations_total{outcome}`).
    Registration {
        Added = "added",
        Refreshed = "refreshed",
        Removed = "removed",
        Queried = "queried",
        Refused = "refused",
    }
}

labels! {
    /// The outcome of credentials, or of their absence (`strowger_auth_total{outcome}`).
    AuthOutcome {
        /// No credentials, or an answer to a challenge that is not ours.
        Challenged = "challenged",
        Accepted = "accepted",
        /// The right password, with a nonce that had expired.
        Stale = "stale",
        WrongResponse = "wrong_response",
        UnknownUser = "unknown_user",
        /// A nonce count that was already used.
        Replayed = "replayed",
        /// Outside the grammar, or not what was offered.
        Malformed = "malformed",
        /// The right password, for another Request-URI.
        OtherUri = "other_uri",
        /// Not checked: too many had been wrong.
        TooMany = "too_many",
        /// The right password, for another user's address.
        Forbidden = "forbidden",
    }
}

labels! {
    /// The outcome of a DNS query (`strowger_dns_queries_total{outcome}`).
    Lookup {
        Found = "found",
        /// No such record.
        Nothing = "nothing",
        /// No server answered in time.
        Silence = "silence",
        /// A server said that it cannot or will not.
        Refused = "refused",
        /// Not sent: too many others are in flight.
        Busy = "busy",
    }
}

labels! {
    /// Requests by method (`strowger_requests_total{method}`).
    MethodLabel {
        Invite = "INVITE", Ack = "ACK", Bye = "BYE", Cancel = "CANCEL", Register = "REGISTER", Options = "OPTIONS",
        Prack = "PRACK", Update = "UPDATE", Info = "INFO", Refer = "REFER", Subscribe = "SUBSCRIBE",
        Notify = "NOTIFY", Message = "MESSAGE", Publish = "PUBLISH", Other = "other",
    }
}

labels! {
    /// Which side of a transaction saw or sent a retransmission (`strowger_retransmissions_total{side}`).
    Side {
        /// A request that was received again.
        Server = "server",
        /// A request or an ACK that we sent again.
        Client = "client",
    }
}

impl MethodLabel {
    pub fn of(method: Method) -> MethodLabel {
        match method {
            Method::Invite => MethodLabel::Invite,
            Method::Ack => MethodLabel::Ack,
            Method::Bye => MethodLabel::Bye,
            Method::Cancel => MethodLabel::Cancel,
            Method::Register => MethodLabel::Register,
            Method::Options => MethodLabel::Options,
            Method::Prack => MethodLabel::Prack,
            Method::Update => MethodLabel::Update,
            Method::Info => MethodLabel::Info,
            Method::Refer => MethodLabel::Refer,
            Method::Subscribe => MethodLabel::Subscribe,
            Method::Notify => MethodLabel::Notify,
            Method::Message => MethodLabel::Message,
            Method::Publish => MethodLabel::Publish,
            Method::Other => MethodLabel::Other,
        }
    }
}

counters! {
    /// All counters of one core.
    #[derive(Clone, Debug, Default)]
    pub struct Counters {
        pub requests: [u64; MethodLabel::COUNT],
        /// Responses by class, 1xx to 6xx.
        pub responses: [u64; 6],
        pub retransmissions: [u64; Side::COUNT],
        pub registrations: [u64; Registration::COUNT],
        pub auth: [u64; AuthOutcome::COUNT],
        pub dropped: [u64; Drop::COUNT],
        pub limit_hits: [u64; Limit::COUNT],
        /// DNS queries that have ended.
        pub lookups: [u64; Lookup::COUNT],
        /// Requests that we answered ourselves with a 4xx, 5xx or 6xx.
        pub refused: u64,
        /// Requests forwarded without a transaction.
        pub stateless: u64,
        /// Bindings left out of a target set because the connection to their phone is gone.
        pub dead_flows: u64,
        /// Registrations refused at once because nothing can be stored.
        pub unstored: u64,
        /// Outcomes of calls, by route and next hop.
        pub calls: RouteCounters,
    }
}

impl Counters {
    pub fn drop(&mut self, reason: Drop) {
        self.dropped[reason as usize] += 1;
    }

    pub fn hit(&mut self, limit: Limit) {
        self.limit_hits[limit as usize] += 1;
    }
}

counters! {
    /// Entries that currently exist on one core.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Occupancy {
        pub server_transactions: usize,
        pub client_transactions: usize,
        /// Requests still awaiting their final response.
        pub pending: usize,
        pub timers: usize,
        pub blobs: usize,
        /// The bytes that these take.
        pub blob_bytes: usize,
        /// Branches and messages that wait for a DNS answer.
        pub parked: usize,
        /// Names known or queried; they stay when there is no traffic.
        pub names: usize,
        /// Calls in progress that will leave a record, on all cores; reported by the first core.
        pub calls: usize,
    }
}

impl Occupancy {
    pub fn is_quiet(&self) -> bool {
        Occupancy { names: 0, ..*self } == Occupancy::default()
    }
}
