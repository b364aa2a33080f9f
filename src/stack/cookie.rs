//! The cookie of our Record-Route: with it a request proves that it belongs to a dialog whose first request we let pass, and that
//! it goes where that dialog's other side wants to be reached. It needs no memory, survives a restart, and is valid on every core
//! and every server that has the key.
//!
//! Each side has its own cookie, and each cookie is valid for one direction. The callee's is in the request. The caller's is in the
//! response: we rewrite our value there (RFC 3261 §16.7 step 8), since only then is the callee's tag known.
//!
//! It has four parts, each a keyed check:
//! * *call*: Call-ID and the opener's tag. It proves nothing alone; it tells a cookie that is shown outside its own dialog from one
//!   that was written with another key.
//! * *dialog*: the same, plus the names in From and To, the answerer's tag once it is known, which side may show the cookie, and
//!   the flow token. It shows that the sender is the party to that dialog that it claims to be, as far as we know it.
//! * *target*: the place of the other side's Contact. It shows that the other side wants to be reached there.
//! * *route*: the place of the proxy beyond us, if there is one.
//!
//! If the dialog's opener understands that names may change within it (RFC 4916), *dialog* covers no names, and a fifth part,
//! *name*, covers the name of the side that the cookie was given to. If the caller wrote another name in To than the one that it
//! called, *name* covers both: the callee is the one that was called, but bears the name in To.

use crate::base::Key;
use crate::base::hash::{hex_128, read_hex, read_hex_128, write_hex_digits};
use crate::sip::{Message, Name};
use crate::stack::facts::{fact, write_name, write_place};
use crate::stack::identity::{Dialog, Identity};
use crate::stack::token::Side;
use crate::stack::trunk::Trunk;
use std::net::IpAddr;

/// The parameter of our Record-Route URI that carries the cookie.
pub const PARAM: &[u8] = b"sc";

/// Bits of the first two digits. This one: the cookie is the caller's.
const CALLERS: u8 = 1;
/// Names may change, hence a fifth part.
const CHANGES: u8 = 2;
/// There is a proxy beyond us, hence a fourth part.
const ROUTE: u8 = 4;
/// It was written when both tags were known: the callee's own cookie covers its tag too.
const BOTH: u8 = 8;
/// To names another user than the one that was called, hence a fifth part.
const CALLED: u8 = 16;

/// Digits of each part.
const FLAGS: usize = 2;
const RUN: usize = 3;
const CALL: usize = 5;
const DIALOG: usize = 12;
const TARGET: usize = 10;
const PLACE: usize = 8;
const NAME: usize = 10;

/// Digits at the start of every cookie: flags, run, call, dialog, target.
const ALWAYS: usize = FLAGS + RUN + CALL + DIALOG + TARGET;

/// A parsed cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shown<'a> {
    flags: u8,
    run: u16,
    call: u64,
    dialog: u64,
    target: u64,
    route: u64,
    name: u64,
    token: &'a [u8],
}

impl<'a> Shown<'a> {
    fn read(text: &'a [u8]) -> Option<Shown<'a>> {
        // The parts that every cookie has are read as one number.
        let (always, mut rest) = text.split_first_chunk::<ALWAYS>()?;
        let mut number = read_hex_128(always)?;
        let mut last = |places: usize| {
            let field = number as u64 & digits(places);
            number >>= 4 * places;
            field
        };
        let (target, dialog, call) = (last(TARGET), last(DIALOG), last(CALL));
        let (run, flags) = (last(RUN) as u16, last(FLAGS) as u8);
        let mut next = |digits: usize| {
            let (number, more) = rest.split_at_checked(digits)?;
            rest = more;
            read_hex(number)
        };
        let route = match flags & ROUTE {
            0 => 0,
            _ => next(PLACE)?,
        };
        let name = match flags & (CHANGES | CALLED) {
            0 => 0,
            _ => next(NAME)?,
        };
        Some(Shown { flags, run, call, dialog, target, route, name, token: rest })
    }

    /// Returns which side opened the dialog, as seen from the side that the cookie was given to.
    fn opener(&self) -> Side {
        match self.flags & CALLERS {
            0 => Side::Callee,
            _ => Side::Caller,
        }
    }
}

/// A cookie of ours that matches the request that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    shown: Shown<'a>,
    /// It was given to the other side than the one that shows it. It then says nothing of where that side wants to be reached, and
    /// of its tag only what was known at the time.
    pub is_other_sides: bool,
    /// The properties of the request's dialog that all its messages share.
    pub dialog: Dialog,
    /// The side that the request is for: the one that did not send it.
    pub towards: Side,
    /// See [`crate::stack::token`].
    pub token: &'a [u8],
    /// Which secret it was written with; 0: the first.
    pub secret: u8,
}

impl Recorded<'_> {
    /// Returns whether the run of this number wrote it, or one that has the same digits.
    pub fn is_of_run(&self, run: u32) -> bool {
        self.shown.run == digits_of(run)
    }

    /// Returns whether one run wrote both.
    pub fn is_of_the_run_of(&self, other: &Recorded) -> bool {
        self.shown.run == other.shown.run
    }
}

/// Returns whether cookies bear the same of two runs.
pub fn look_alike(one: u32, other: u32) -> bool {
    digits_of(one) == digits_of(other)
}

/// What a cookie bears of the number of a run.
const fn digits_of(run: u32) -> u16 {
    (run & 0xfff) as u16
}

/// What a cookie shown by a request is worth.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// Not ours, or of another call.
    Foreign,
    /// Of this call, but shown by another party, for another target, or with another tag.
    Misused,
    Ours(Recorded<'a>),
}

/// Where the side that a cookie leads to can be reached.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    At(&'a [u8]),
    /// It should have said so but has not: anywhere.
    Anywhere,
    /// It has not said so yet.
    Nowhere,
}

/// The party that the callee's cookie is given to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder<'a> {
    /// The one that To names.
    Named,
    /// This user was called, and may also bear the name in To, which is another one of ours.
    Called(&'a [u8]),
    /// Another cookie says it, or it is unknown.
    Unknown,
}

/// What a new cookie states besides the dialog.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub target: Target<'a>,
    /// The Record-Route of the proxy beyond us.
    pub route: Option<&'a [u8]>,
    pub token: &'a [u8],
}

/// Writes and checks cookies.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    dialogs: Key,
    targets: Key,
    routes: Key,
    names: Key,
    /// Identifies this run of the server.
    run: u16,
    /// Hides the places of connections from every other run.
    mask: u64,
    /// The same of the predecessor while that lives.
    predecessor: Option<(u16, u64)>,
}

/// The party that a new cookie is for.
struct Bearer<'a> {
    flags: u8,
    run: u16,
    /// The tag of the side that did not open the dialog; empty until it is known.
    tag: &'a [u8],
    /// The names under which the cookie may be shown.
    names: [&'a [u8]; 2],
}

impl Cookies {
    pub fn new(secret: Key) -> Cookies {
        Cookies {
            dialogs: secret.derive("record-route"),
            targets: secret.derive("record-route target"),
            routes: secret.derive("record-route beyond"),
            names: secret.derive("record-route name"),
            run: 0,
            mask: 0,
            predecessor: None,
        }
    }

    /// Sets the run, which differs from that of every other server and every earlier run except by chance.
    pub fn begin(&mut self, run: u32) {
        (self.run, self.mask) = (digits_of(run), self.mask_of(run));
    }

    /// Sets the run of a predecessor that still has its connections, or forgets it.
    pub fn follow(&mut self, run: Option<u32>) {
        self.predecessor = run.map(|run| (digits_of(run), self.mask_of(run)));
    }

    fn mask_of(&self, run: u32) -> u64 {
        self.dialogs.derive("place of a connection").hash_numbers(run.into(), 0, 0)
    }

    /// Returns what the predecessor masks the places of its connections with, if it wrote the cookie and still has them.
    pub fn mask_of_predecessor(&self, recorded: &Recorded) -> Option<u64> {
        let (run, mask) = self.predecessor?;
        (recorded.shown.run == run && recorded.secret == 0).then_some(mask)
    }

    /// Returns what the run masks the places of connections with ([`crate::stack::token`]).
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// Returns what shows in the token that a trunk's carrier was at this address, to nobody else. Another account under the same name
    /// has another.
    pub fn door(&self, trunk: &Trunk, ip: IpAddr) -> u32 {
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let [name, registrar, user, realm, password] = trunk.account();
        let key = self.dialogs.derive("door of a carrier");
        key.hash(&[&ip.octets(), name, registrar, user, realm, password]) as u32
    }

    /// Appends the callee's cookie, for a request that opens a dialog or continues one: it leads to the request's sender.
    pub fn write_callees(
        &self,
        message: &Message,
        dialog: &Dialog,
        holder: Holder,
        draft: &Draft,
        facts: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let mut flags = 0;
        let tag = message.to_tag();
        if tag.is_some() {
            flags |= BOTH;
        }
        if lets_names_change(message) {
            flags |= CHANGES;
        }
        if holder != Holder::Named {
            flags |= CALLED;
        }
        let tag = tag.unwrap_or_default();
        let to = message.to().map_or(&[][..], |to| to.uri);
        let names = match holder {
            Holder::Named => [to, &[]],
            Holder::Called(uri) => [uri, to],
            Holder::Unknown => [&[][..]; 2],
        };
        let bearer = Bearer { flags, run: self.run, tag, names };
        self.write(&bearer, dialog, draft, facts, out);
    }

    /// Reads the callee's cookie in a response that carries the callee's tag; `None` if `text` is not a cookie of this dialog.
    pub fn read_callees<'a>(&self, response: &Message, dialog: &Dialog, text: &'a [u8]) -> Option<CalleesCookie<'a>> {
        let shown = Shown::read(text)?;
        if shown.flags & CALLERS != 0 {
            return None;
        }
        let tag = match shown.flags & BOTH {
            0 => &[][..],
            _ => response.to_tag()?,
        };
        let fits = shown.dialog == self.dialog(shown.flags, shown.run, dialog, tag, shown.token);
        fits.then_some(CalleesCookie { shown })
    }

    /// Appends the caller's cookie, which takes the place of `cookie`.
    pub fn write_callers(
        &self,
        response: &Message,
        cookie: &CalleesCookie,
        dialog: &Dialog,
        draft: &Draft,
        facts: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let flags = CALLERS | cookie.shown.flags & (CHANGES | CALLED | BOTH);
        let tag = response.to_tag().unwrap_or_default();
        let holder = response.from().map_or(&[][..], |from| from.uri);
        let bearer = Bearer { flags, run: cookie.shown.run, tag, names: [holder, &[]] };
        self.write(&bearer, dialog, draft, facts, out);
    }

    #[inline]
    fn write(&self, bearer: &Bearer, dialog: &Dialog, draft: &Draft, facts: &mut Vec<u8>, out: &mut Vec<u8>) {
        let &Bearer { flags, run, tag, names } = bearer;
        let flags = match draft.route {
            Some(_) => flags | ROUTE,
            None => flags,
        };
        let check = self.dialog(flags, run, dialog, tag, draft.token);
        let target = self.target(check, draft.target, facts);
        // What every cookie has is one number.
        let fields = [(u64::from(run), RUN), (dialog.call.get() & digits(CALL), CALL), (check, DIALOG), (target, TARGET)];
        let join = |number, (field, places): (u64, usize)| number << (4 * places) | u128::from(field);
        let number = fields.into_iter().fold(u128::from(flags), join);
        out.extend_from_slice(&hex_128(number));
        if let Some(route) = draft.route {
            write_hex_digits(self.route(check, route, facts), PLACE, out);
        }
        if flags & (CHANGES | CALLED) != 0 {
            write_hex_digits(self.name(check, names, facts), NAME, out);
        }
        out.extend_from_slice(draft.token);
    }

    /// Returns what the cookie shown by this request, which has a To tag, is worth. A request without a To tag belongs to no dialog
    /// (§12.2.1.1), and one call's cookie must not let other calls past the routes. Inlined, because a verdict is large.
    #[inline(always)]
    pub fn check<'a>(&self, identity: &Identity, message: &Message, text: &'a [u8], facts: &mut Vec<u8>) -> Verdict<'a> {
        let (Some(shown), Some(to_tag)) = (Shown::read(text), message.to_tag()) else {
            return Verdict::Foreign;
        };
        let from_tag = message.from_tag().unwrap_or_default();
        let opener = shown.opener();
        let dialog = identity.dialog(message, opener, facts);
        let answerer = match opener {
            Side::Caller => to_tag,
            Side::Callee if shown.flags & BOTH != 0 => from_tag,
            Side::Callee => &[],
        };
        let fits = |dialog: &Dialog, tag: &[u8]| {
            shown.call == dialog.call.get() & digits(CALL)
                && shown.dialog == self.dialog(shown.flags, shown.run, dialog, tag, shown.token)
        };
        let mut recorded =
            Recorded { shown, is_other_sides: false, dialog, towards: opener.other(), token: shown.token, secret: 0 };
        if fits(&dialog, answerer) {
            return Verdict::Ours(recorded);
        }
        let reversed = identity.dialog(message, opener.other(), facts);
        let answerer = match opener {
            Side::Caller => from_tag,
            Side::Callee if shown.flags & BOTH != 0 => to_tag,
            Side::Callee => &[],
        };
        if fits(&reversed, answerer) {
            (recorded.is_other_sides, recorded.dialog) = (true, reversed);
            recorded.towards = opener;
            return Verdict::Ours(recorded);
        }
        let is_of = |dialog: Dialog| dialog.call.get() & digits(CALL) == shown.call;
        match is_of(dialog) || is_of(reversed) {
            true => Verdict::Misused,
            false => Verdict::Foreign,
        }
    }

    /// Returns whether this run of the server wrote the cookie that is in a response for the caller to get its own.
    pub fn is_callees_of_this_run(&self, cookie: &CalleesCookie) -> bool {
        cookie.shown.run == self.run
    }

    /// Returns whether a Record-Route value or a Route value of ours, whose cookie this may be, is one of another run: of another server
    /// that goes by our names, or from before a restart.
    pub fn is_text_of_another_run(&self, text: &[u8]) -> bool {
        Shown::read(text).is_some_and(|shown| shown.run != self.run)
    }

    /// Returns whether this run of the server wrote the cookie: only then do we know every move of its dialog since.
    pub fn is_of_this_run(&self, recorded: &Recorded) -> bool {
        recorded.shown.run == self.run && recorded.secret == 0
    }

    /// Returns whether `uri` is where the other side wants to be reached, as far as the cookie states it.
    pub fn leads_to(&self, recorded: &Recorded, uri: &[u8], facts: &mut Vec<u8>) -> bool {
        let shown = &recorded.shown;
        if recorded.is_other_sides {
            return false;
        }
        shown.target == self.target(shown.dialog, Target::At(uri), facts)
            || shown.target == self.target(shown.dialog, Target::Anywhere, facts)
    }

    /// Returns whether `route`, the remaining Route, is the proxy beyond us, or is absent if there is none.
    pub fn goes_by(&self, recorded: &Recorded, route: Option<&[u8]>, facts: &mut Vec<u8>) -> bool {
        let shown = &recorded.shown;
        if recorded.is_other_sides {
            return route.is_none();
        }
        match (shown.flags & ROUTE, route) {
            (0, None) => true,
            (0, Some(_)) | (_, None) => false,
            (_, Some(route)) => shown.route == self.route(shown.dialog, route, facts),
        }
    }

    /// Returns whether names may change in its dialog.
    pub fn lets_names_change(&self, recorded: &Recorded) -> bool {
        recorded.shown.flags & CHANGES != 0
    }

    /// Returns whether the sender bears the name that the cookie was given to. If names don't change, the check has covered that.
    pub fn is_named(&self, recorded: &Recorded, from: &[u8], facts: &mut Vec<u8>) -> bool {
        self.names_both(recorded) || self.is_given_to(recorded, [from, &[]], facts)
    }

    /// Returns whether the cookie was given to `called`, which the caller called by the name `from`.
    pub fn is_called(&self, recorded: &Recorded, called: &[u8], from: &[u8], facts: &mut Vec<u8>) -> bool {
        recorded.shown.flags & CALLED != 0 && self.is_given_to(recorded, [called, from], facts)
    }

    fn is_given_to(&self, recorded: &Recorded, names: [&[u8]; 2], facts: &mut Vec<u8>) -> bool {
        let shown = &recorded.shown;
        !recorded.is_other_sides && shown.name == self.name(shown.dialog, names, facts)
    }

    /// Returns whether both sides of the dialog are, and remain, the ones that its names say.
    pub fn names_both(&self, recorded: &Recorded) -> bool {
        recorded.shown.flags & (CHANGES | CALLED) == 0
    }

    fn dialog(&self, flags: u8, run: u16, dialog: &Dialog, tag: &[u8], token: &[u8]) -> u64 {
        let common = match flags & CHANGES {
            0 => dialog.whole,
            _ => dialog.call.get(),
        };
        let head = u64::from(flags) << 16 | u64::from(run);
        let mut numbers = [0; 16];
        numbers[..8].copy_from_slice(&common.to_le_bytes());
        numbers[8..].copy_from_slice(&head.to_le_bytes());
        self.dialogs.hash(&[&numbers, tag, token]) & digits(DIALOG)
    }

    fn target(&self, check: u64, target: Target, facts: &mut Vec<u8>) -> u64 {
        start(check, facts);
        match target {
            Target::At(uri) => write_place(uri, facts),
            Target::Anywhere => {}
            Target::Nowhere => facts.push(0),
        }
        self.targets.text(facts) & digits(TARGET)
    }

    fn route(&self, check: u64, uri: &[u8], facts: &mut Vec<u8>) -> u64 {
        start(check, facts);
        write_place(uri, facts);
        self.routes.text(facts) & digits(PLACE)
    }

    fn name(&self, check: u64, [holder, alias]: [&[u8]; 2], facts: &mut Vec<u8>) -> u64 {
        start(check, facts);
        fact(facts, |out| write_name(holder, out));
        if !alias.is_empty() {
            fact(facts, |out| write_name(alias, out));
        }
        self.names.text(facts) & digits(NAME)
    }
}

/// The callee's cookie as brought back by a response.
#[derive(Clone, Copy, Debug)]
pub struct CalleesCookie<'a> {
    shown: Shown<'a>,
}

impl<'a> CalleesCookie<'a> {
    pub fn token(&self) -> &'a [u8] {
        self.shown.token
    }

    /// Returns whether the request was one within the dialog.
    pub fn is_within(&self) -> bool {
        self.shown.flags & BOTH != 0
    }
}

fn start(check: u64, facts: &mut Vec<u8>) {
    facts.clear();
    facts.extend_from_slice(&check.to_le_bytes());
}

const fn digits(digits: usize) -> u64 {
    (1 << (4 * digits)) - 1
}

/// Returns whether the sender understands that the other side's name may change (RFC 4916 §4.2): only then may it change.
fn lets_names_change(message: &Message) -> bool {
    message.values(Name::Supported).any(|option| option.text.eq_ignore_ascii_case(b"from-change"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parses field by field, as a cookie is described.
    fn read_slowly(text: &[u8]) -> Option<Shown<'_>> {
        let mut rest = text;
        let mut next = |digits: usize| {
            let (number, more) = rest.split_at_checked(digits)?;
            rest = more;
            read_hex(number)
        };
        let flags = next(FLAGS)? as u8;
        let run = next(RUN)? as u16;
        let (call, dialog, target) = (next(CALL)?, next(DIALOG)?, next(TARGET)?);
        let mut optional = |flag, digits| match flags & flag {
            0 => Some(0),
            _ => next(digits),
        };
        let (route, name) = (optional(ROUTE, PLACE)?, optional(CHANGES | CALLED, NAME)?);
        Some(Shown { flags, run, call, dialog, target, route, name, token: rest })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn all_fields_at_once_are_read_as_one_by_one(
            mut text in "[0-9a-f]{28,64}(|o2[0-9a-f]{16})",
            at in 0usize..64,
            odd in proptest::option::of("[0-9A-Gg:/@` ]"),
        ) {
            if let Some(odd) = odd && at < text.len() {
                text.replace_range(at..at + 1, &odd);
            }
            prop_assert_eq!(Shown::read(text.as_bytes()), read_slowly(text.as_bytes()));
        }
    }
}
