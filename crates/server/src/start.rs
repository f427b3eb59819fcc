//! Starting a member: stands in until the parts are joined.

use crate::config::Config;

/// Why a member could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The parts are not joined yet.
    #[error("starting a member is not built yet")]
    NotBuilt,
}

/// Runs a member until it is told to stop.
///
/// # Errors
///
/// Always, for now.
pub fn run(config: Config) -> Result<(), StartError> {
    drop(config);
    Err(StartError::NotBuilt)
}
