//! What can be wrong with a message: one small enum whose reason phrases name the fault to the peer.

/// The first fault found in a message, a header field value, or a stream. `reason` can be used as the reason phrase of a response
/// with the code `status`; a fault in a response is never answered, only counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fault {
    /// No SIP start line: nothing to answer and nothing to use.
    NotSip,
    /// The start line has the shape of a request or a response but not its grammar (RFC 3261 §7.1, §7.2).
    StartLine,
    /// A SIP-Version other than 2.0.
    Version,
    /// A Status-Code that is not three digits between 100 and 699.
    StatusCode,
    /// A request method that is not a token.
    Method,
    /// A Request-URI outside of the grammar of its scheme.
    RequestUri,
    /// `?headers` in a Request-URI, which RFC 3261 §19.1.1 forbids.
    RequestUriHeaders,
    /// A CR not followed by an LF.
    BareCr,
    /// An LF not preceded by a CR.
    BareLf,
    /// The bytes end before the empty line that ends the header section.
    Truncated,
    /// A header line without a name, without a colon, or whose name is not a token.
    HeaderLine,
    /// More header lines than [`super::MAX_HEADER_LINES`].
    TooManyHeaders,
    /// A message larger than the offsets or the framer's limit allow.
    TooLarge,
    ViaMissing,
    FromMissing,
    ToMissing,
    CallIdMissing,
    CSeqMissing,
    FromRepeated,
    ToRepeated,
    CallIdRepeated,
    CSeqRepeated,
    MaxForwardsRepeated,
    ContentLengthRepeated,
    /// The stream needs a Content-Length to find the end of the message, and there is none (RFC 3261 §18.3).
    ContentLengthMissing,
    ContentLength,
    /// Content-Length counts more bytes than the datagram brought.
    ContentLengthTooLong,
    Via,
    From,
    To,
    CallId,
    CSeq,
    /// The method in CSeq is not that of the start line.
    CSeqMethod,
    /// The same, if the start line's method is unknown: RFC 4475 §3.1.2.18 prefers 501.
    CSeqMethodUnknown,
    MaxForwards,
    /// A header field that should hold one number holds something else.
    Number,
    /// A name-addr or addr-spec (Contact, Route, Record-Route, Path …) outside of the grammar.
    Address,
    /// A URI outside of the grammar of its scheme.
    Uri,
    Host,
    Port,
    /// Parameters outside of the grammar: `;;`, a name that is not a token, an open quote.
    Parameter,
    Q,
    Expires,
    /// Digest credentials outside of the grammar, or without a required parameter (RFC 7616 §3.4).
    Credentials,
}

impl Fault {
    /// A reason phrase that names the fault.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::NotSip => "Not SIP",
            Fault::StartLine => "Malformed Start Line",
            Fault::Version => "Version Not Supported",
            Fault::StatusCode => "Malformed Status Code",
            Fault::Method => "Malformed Method",
            Fault::RequestUri => "Malformed Request-URI",
            Fault::RequestUriHeaders => "Header Fields In Request-URI",
            Fault::BareCr => "CR Without LF",
            Fault::BareLf => "LF Without CR",
            Fault::Truncated => "No Empty Line After Header Fields",
            Fault::HeaderLine => "Malformed Header Line",
            Fault::TooManyHeaders => "Too Many Header Lines",
            Fault::TooLarge => "Message Too Large",
            Fault::ViaMissing => "Missing Via",
            Fault::FromMissing => "Missing From",
            Fault::ToMissing => "Missing To",
            Fault::CallIdMissing => "Missing Call-ID",
            Fault::CSeqMissing => "Missing CSeq",
            Fault::FromRepeated => "More Than One From",
            Fault::ToRepeated => "More Than One To",
            Fault::CallIdRepeated => "More Than One Call-ID",
            Fault::CSeqRepeated => "More Than One CSeq",
            Fault::MaxForwardsRepeated => "More Than One Max-Forwards",
            Fault::ContentLengthRepeated => "More Than One Content-Length",
            Fault::ContentLengthMissing => "Missing Content-Length",
            Fault::ContentLength => "Malformed Content-Length",
            Fault::ContentLengthTooLong => "Content-Length Beyond End Of Message",
            Fault::Via => "Malformed Via",
            Fault::From => "Malformed From",
            Fault::To => "Malformed To",
            Fault::CallId => "Malformed Call-ID",
            Fault::CSeq => "Malformed CSeq",
            Fault::CSeqMethod => "CSeq Method Differs From Start Line",
            Fault::CSeqMethodUnknown => "Unknown Method Differs From CSeq",
            Fault::MaxForwards => "Malformed Max-Forwards",
            Fault::Number => "Malformed Number",
            Fault::Address => "Malformed Address",
            Fault::Uri => "Malformed URI",
            Fault::Host => "Malformed Host",
            Fault::Port => "Malformed Port",
            Fault::Parameter => "Malformed Parameter",
            Fault::Q => "Malformed q Parameter",
            Fault::Expires => "Malformed Expires Parameter",
            Fault::Credentials => "Malformed Credentials",
        }
    }

    /// The status code that a request with this fault is answered with.
    pub fn status(self) -> u16 {
        match self {
            Fault::Version => 505,
            Fault::CSeqMethodUnknown => 501,
            Fault::TooLarge | Fault::TooManyHeaders => 513,
            _ => 400,
        }
    }
}
