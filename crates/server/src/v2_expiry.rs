//! Saying what time it is, so that v2 keys end: every half a second the leader puts its clock into
//! the log, and all members remove what ends by then (V2-064).
//!
//! Only while there is anything that ends. Source: etcd v3.4.23 etcdserver/server.go (`sync`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use crate::handle::{Handle, ProposeError};

const INTERVAL: Duration = Duration::from_millis(500);

/// Does it until the member stops.
pub(crate) async fn run(handle: Handle) {
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !handle.leads() || !handle.reads().v2().has_expiring() {
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        match handle.expire_v2(now).await {
            Ok(()) => {}
            Err(ProposeError::Stopped) => return,
            Err(error) => tracing::debug!(error = %error, "no time for v2 keys was agreed on"),
        }
    }
}
