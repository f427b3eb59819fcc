//! What the gateway tells open calls when the server ends: that they are lost, in the words of
//! etcd's gateway, whose connection to the server's calls breaks then (GW-16). Without it a client
//! could not tell the end of a stream from a broken connection.

use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;

/// How long calls with one answer may go on; shorter than what a port gives open requests.
const GRACE: Duration = Duration::from_millis(500);

/// Whether the server ends; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    receiver: watch::Receiver<bool>,
}

impl Stopping {
    /// It ends once `receiver` turns true.
    pub(super) fn new(receiver: watch::Receiver<bool>) -> Self {
        Self { receiver }
    }

    /// Waits until the server begins to end.
    pub(super) async fn begun(&self) {
        self.clone().into_begun().await;
    }

    /// As [`Stopping::begun`], for who cannot borrow.
    pub(super) async fn into_begun(mut self) {
        // A sender that is gone means the end, too.
        let _begun = self.receiver.wait_for(|stop| *stop).await;
    }

    /// Waits until calls with one answer have had their time to come to an end.
    pub(super) async fn over(&self) {
        self.begun().await;
        tokio::time::sleep(GRACE).await;
    }
}

/// What is said of a call that the server's end cut off.
pub(super) fn lost() -> Status {
    Status::unavailable("error reading from server: EOF")
}
