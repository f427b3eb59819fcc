//! Running real servers side by side: ours, and etcd's own where the machine has it.
//!
//! A test asks [`real_etcd`] for etcd's programs; without them it prints that it was skipped. Every
//! server gets free ports on the loopback interface and a folder of its own, and is killed when
//! its handle is dropped.

#![allow(clippy::print_stdout, reason = "a skipped test says so on the output of the test run")]

pub mod cluster;
pub mod differential;
mod ended;
pub mod frames;
pub mod http;
mod keys;
mod patience;
mod plain_http;
mod process;
pub mod service;

pub use ended::Ended;
pub use keys::Keys;
pub use patience::{Condition, PATIENCE, eventually};
pub use plain_http::{Answer, ask};
pub use process::{Server, ServerOptions, real_etcd};
