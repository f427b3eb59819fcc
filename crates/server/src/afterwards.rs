//! What a connection's task goes on with once HTTP has left the connection to another protocol.
//!
//! It runs where the connection ran, so that the connection stays counted, its writes leave and a
//! revoked certificate ends it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

/// Goes with a request that asks for another protocol; clones are of one connection.
#[derive(Clone, Default)]
pub(crate) struct Afterwards {
    task: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
}

impl std::fmt::Debug for Afterwards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Afterwards").finish_non_exhaustive()
    }
}

impl Afterwards {
    /// What is to be done when the answer was sent.
    pub(crate) fn set(&self, task: BoxFuture<'static, ()>) {
        *self.task.lock() = Some(task);
    }

    /// Does it, if there is anything.
    pub(crate) async fn run(self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.await;
        }
    }
}
