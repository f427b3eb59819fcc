//! What the tests that run programs have in common.

#![allow(dead_code, reason = "not every test uses everything")]
#![allow(clippy::unwrap_used, reason = "only tests use this")]

pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod v2;
