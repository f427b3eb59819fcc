//! What the command-line tools have in common: flags and help as Go's pflag and cobra shape them,
//! output formats, and exit codes.
//!
//! It knows the shapes, not the commands: those are in `bins/`. Nothing here touches the network;
//! [`global::GlobalFlags`] only says how a client is to be made.
//!
//! Invariant: with the same command line and the same responses, what is printed equals what
//! etcd's own tools print, byte for byte.
//!
//! etcd: `etcdctl/ctlv3`, `pkg/cobrautl`, `pkg/flags`.

pub mod command;
pub mod completion;
mod csv;
pub mod duration;
pub mod exit;
pub mod flag;
pub mod global;
mod hint;
pub mod json;
pub mod log;
mod man;
pub mod number;
pub mod os;
pub mod printer;
pub mod quote;
pub mod size;
mod suggest;
pub mod table;
pub mod usage;
