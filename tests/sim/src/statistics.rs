//! What the laboratory did: asserted over all seeds, so that a run cannot silently test nothing.

macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counted events of one or several runs.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Statistics { $($(#[$doc])* pub $name: u64),+ }

        impl Statistics {
            pub fn add(&mut self, other: &Statistics) {
                $(self.$name += other.$name;)+
            }

            /// Names and numbers, in order.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

statistics! {
    steps,
    /// Datagrams put on the network, by whomever.
    datagrams,
    lost,
    duplicated,
    /// Datagrams that arrived after a later one on the same way.
    reordered,
    /// Datagrams sent to an address where nobody lives, reported back to the sender.
    unreachable,
    /// Handed to a server.
    received_by_servers,
    sent_by_servers,
    mails,
    registers,
    bindings_checked,
    calls_placed,
    calls_answered,
    calls_refused,
    calls_cancelled,
    calls_timed_out,
    /// Calls that rang on several branches, of which one was answered and others cancelled.
    forks_with_losers,
    /// 2xx beyond the first to one INVITE.
    second_answers,
    /// Answers that crossed with the CANCEL.
    late_answers,
    reinvites,
    byes_answered,
    other_requests,
    other_answers,
    redirected,
    client_retransmissions,
    answer_retransmissions,
    /// Retransmissions that a server recognised and did not pass on.
    absorbed,
    timer_c_cancels,
    /// Calls of phones that may be asked who they are, and those of them that were answered.
    asked_calls,
    asked_calls_answered,
    /// 401 and 407 that phones were given, and credentials that they sent.
    challenges,
    proofs,
    /// Requests with credentials that the auditor found to be right.
    proved,
    hostile,
    mangled,
    forged_branches,
    spoofed,
    stranger_routes,
    foreign_cancels,
    replayed_registers,
    loops,
    /// 482 and 483 that a server gave.
    looped_answers,
    double_finals,
    /// Calls that hostile agents were given, and calls of theirs that were answered: lawful, until they use what they learn.
    gang_answers,
    gang_calls,
    /// Requests under a Via of ours that was copied from another.
    forged_spirals,
    /// Requests with the cookie of a call, for what the call is not.
    reused_cookies,
    /// Other people's names, spelled otherwise.
    misspelled,
    /// Credentials made for another Request-URI.
    lent,
    /// Counts of a nonce used twice.
    counted_again,
    registered_for_others,
    /// Other people's requests with credentials, changed.
    replayed_proofs,
    cancels_by_branch,
    stray_acks,
    /// Contacts that name the server.
    bound_to_server,
    /// Two REGISTERs of one CSeq.
    registered_twice,
    odd_responses,
    without_length,
    asserted,
    long_lists,
    stateless_forwards,
    chained_forwards,
    cross_family_forwards,
    /// Branches that began after others had ended.
    sequential_moves,
    /// Requests to phones behind a NAT, by the way of their REGISTER.
    to_nat,
    /// Requests with the Path of a binding.
    by_path,
    /// Requests to places where names led.
    by_name,
    /// To the name servers.
    questions,
    questions_unanswered,
    /// Requests refused because a server was full.
    full,
    /// Connections that somebody wanted to open, and what became of them.
    connections,
    stream_messages,
    /// Pieces into which the messages on streams were cut.
    chunks,
    resets,
    /// Connections of a call that were closed at its end.
    releases,
    calls_by_stream,
    sabotages,
    /// Conditions that the auditor tested, of all kinds.
    checks,
}
