//! The server around the consensus core: configuration, log, listeners and services.
//!
//! Nothing here decides about data: that is done by the crates below, which know neither network
//! nor clock.

pub mod config;
pub mod logging;
mod start;

pub use start::{StartError, run};
