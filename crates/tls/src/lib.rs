//! One TLS policy for every listener and dialer.
//!
//! [`ServerPolicy`] and [`ClientPolicy`] are made once from [`Settings`], which say what the flags
//! say, and are then asked for every handshake. Files are looked at again each time, so that a
//! certificate, an authority or a revocation list is replaced without a restart.
//!
//! Not here: sockets, flags, log lines about connections, and DNS ([`ReverseLookup`] is given).
//!
//! Invariants:
//! - a policy that was made has always a usable certificate: what is put in place of a file and
//!   cannot be used is logged once, and the last good content stays;
//! - who presents a certificate is checked in every handshake: sessions are never resumed;
//! - one provider of cryptography: aws-lc-rs.
//!
//! Source: etcd client/pkg/transport/{listener,listener_tls}.go, client/pkg/tlsutil.

mod chain;
mod client;
mod der;
mod error;
mod first;
mod identity;
mod key_pair;
mod names;
mod pem;
mod reload;
mod revocation;
mod roots;
mod self_signed;
mod server;
mod settings;
mod suites;
mod verify;
mod words;

pub use client::{ClientPolicy, ClientStream, ConnectError, Protocols};
pub use error::{FileError, FileKind, FileProblem, PolicyError};
pub use first::First;
pub use identity::{Identity, common_name};
pub use names::ReverseLookup;
pub use self_signed::{SelfSigned, SelfSignedError, self_signed};
pub use server::{Accepted, Rejection, ServerPolicy, ServerStream};
pub use settings::{Settings, Version};
pub use words::{describe, describe_policy_error};
