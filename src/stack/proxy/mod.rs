//! The proxy core (RFC 3261 §16): requests in [`request`], responses in [`response`], one function for each step.

pub mod branches;
pub mod cancel;
pub mod context;
pub mod forward;
pub mod guard;
pub mod locate;
pub mod next_hop;
pub mod parked;
pub mod record_route;
pub mod redirect;
pub mod request;
pub mod response;
pub mod stateless;
pub mod target;
pub mod unproved;
pub mod withhold;
