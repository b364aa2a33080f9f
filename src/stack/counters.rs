//! What the rules count: plain numbers of one core, added up over the cores when somebody asks.

use crate::base::counters;
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

            /// As the metric's label says it.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

labels! {
    /// Why a message was neither processed nor answered (`strowger_dropped_total{reason}`).
    Drop {
        /// Not SIP, or nothing in it to answer to.
        Unreadable = "unreadable",
        /// A response that a rule of §18.1.2 or the grammar refuses.
        BadResponse = "bad_response",
        /// A response whose Via branch is not ours or whose check fails.
        ForeignResponse = "foreign_response",
        /// A response to a transaction that is no more (RFC 6026 §7: not forwarded).
        StrayResponse = "stray_response",
        /// An ACK that nobody waits for and that cannot be forwarded.
        StrayAck = "stray_ack",
        /// Retransmission absorbed by a transaction that has nothing to repeat.
        Absorbed = "absorbed",
        /// A branch of a foreign core that does not exist.
        NoSuchCore = "no_such_core",
        /// Longer than `[limits] message_size` or than a datagram carries.
        TooLong = "too_long",
        /// The listener's address family reaches no such peer.
        NoListener = "no_listener",
        /// A [[route]] says that it gets no answer.
        Route = "route",
        /// A CRLF keep-alive.
        KeepAlive = "keep_alive",
    }
}

labels! {
    /// Which limit was hit (`strowger_limit_hits_total{limit}`).
    Limit {
        Transactions = "transactions",
        /// Bytes of the messages that transactions hold.
        TransactionBytes = "transaction_bytes",
        /// One source's share of them.
        TransactionsOfSource = "transactions_of_source",
        /// The share of those for one address-of-record.
        TransactionsOfAor = "transactions_of_aor",
        Contacts = "contacts",
        /// A contact, its Path or its Call-ID.
        ContactSize = "contact_size",
        Bindings = "bindings",
        /// One source's share of them.
        BindingsOfSource = "bindings_of_source",
        Targets = "targets",
        MaxBreadth = "max_breadth",
        MaxForwards = "max_forwards",
        /// DNS questions on their way.
        Questions = "dns_questions",
        /// One asker's share of them.
        QuestionsOfAsker = "dns_questions_of_asker",
        /// Bytes of messages without a transaction that wait for a name.
        Held = "dns_held",
        /// New requests that were refused while a core was behind.
        Overload = "overload",
        /// Lines of an answer that were left out: over UDP it may be no more than a few times as long as its request.
        AnswerSize = "answer_size",
        /// Passwords that were not looked at, because too many had been wrong.
        Guesses = "guesses",
        /// Requests of one user.
        PerUser = "requests_per_user",
        /// New requests for one address-of-record.
        PerAor = "requests_per_aor",
    }
}

labels! {
    /// What a REGISTER came to (`strowger_registrations_total{outcome}`).
    Registration {
        Added = "added",
        Refreshed = "refreshed",
        Removed = "removed",
        Queried = "queried",
        Refused = "refused",
    }
}

labels! {
    /// What credentials, or the lack of them, came to (`strowger_auth_total{outcome}`).
    AuthOutcome {
        /// None, or an answer to somebody else's challenge.
        Challenged = "challenged",
        Accepted = "accepted",
        /// The right password, with a nonce that had expired.
        Stale = "stale",
        WrongResponse = "wrong_response",
        UnknownUser = "unknown_user",
        /// A count that had come before.
        Replayed = "replayed",
        /// Outside of the grammar, or of what was offered.
        Malformed = "malformed",
        /// The right password, for another Request-URI.
        OtherUri = "other_uri",
        /// Not looked at: too many had been wrong.
        TooMany = "too_many",
        /// The right password, for another user's address.
        Forbidden = "forbidden",
    }
}

labels! {
    /// What a question to the domain name system came to (`strowger_dns_queries_total{outcome}`).
    Lookup {
        Found = "found",
        /// No such record.
        Nothing = "nothing",
        /// No server answered in time.
        Silence = "silence",
        /// A server said that it cannot or will not.
        Refused = "refused",
        /// It was not asked: too many others are on their way.
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
        /// A request that came again.
        Server = "server",
        /// A request or an ACK that we sent again.
        Client = "client",
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
        /// Questions to the domain name system that have ended.
        pub lookups: [u64; Lookup::COUNT],
        /// Requests that we answered ourselves with a 4xx, 5xx or 6xx.
        pub refused: u64,
        /// Requests forwarded without a transaction.
        pub stateless: u64,
        /// Bindings left out of a target set because the connection that leads to their phone is gone.
        pub dead_flows: u64,
        /// What becomes of calls, by route and next hop.
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
    /// Entries alive now on one core.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Occupancy {
        pub server_transactions: usize,
        pub client_transactions: usize,
        /// Requests still waiting for their final response.
        pub pending: usize,
        pub timers: usize,
        pub blobs: usize,
        /// What these take.
        pub blob_bytes: usize,
        /// Branches and messages that wait for a name.
        pub parked: usize,
        /// Names known or asked for; they stay when all is quiet.
        pub names: usize,
        /// Calls in progress that will leave a record, on all cores; said by the first one.
        pub calls: usize,
    }
}

impl Occupancy {
    pub fn is_quiet(&self) -> bool {
        Occupancy { names: 0, ..*self } == Occupancy::default()
    }
}
