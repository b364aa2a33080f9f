//! The location table that several servers share through Redis.

mod form;
#[cfg(test)]
mod redis_server;
mod resp;
mod script;
mod shards;
mod trouble;
mod wire;
