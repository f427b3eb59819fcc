//! A member's files: how it starts on them, and what it writes while it runs.
//!
//! Whoever drives a member, with threads on a machine or by calls in the simulator, starts it with
//! [`open`] and [`Opened::boot`], gives [`Log`] what consensus wants written, and receives the
//! databases of other members with [`Receiving`]. The order of writes, syncs and names is decided
//! here and nowhere else, as what a crash leaves depends on it.
//!
//! Not here: threads, the network, time, and what to do about a full disk but for the room that is
//! kept for it ([`Reserve`]).

mod boot;
mod log;
mod log_window;
mod receiving;
mod reserve;
mod snapshots;

pub use boot::{
    BootError, BootOptions, Booted, Opened, Origin, Place, Remedy, conf_state_of, open,
};
pub use log::{Done, Log, LogOptions, Written};
pub use receiving::{Arrived, Landing, PrepareError, Receiving, Stored, Turn};
pub use reserve::{Reserve, is_no_space};
pub use snapshots::SnapshotError;
