//! What a leader looks after besides its log: the cluster version, a downgrade, equal data.
//!
//! Every loop runs on every member and does something only while that member leads. Source: etcd
//! server/etcdserver/server.go (`monitorClusterVersions` and its neighbours).

use std::time::Duration;

use base::MemberId;
use proto::etcdserverpb as pb;
use proto::membershippb;

use super::corruption::{self, Answered, Compared};
use super::versions::{Known, Release, decide, needs_old_form};
use crate::handle::{Handle, ProposeError, RequestKind};

/// How often the version is looked at.
const VERSION_INTERVAL: Duration = Duration::from_secs(4);

/// How often it is looked whether the first election may be nearer, and after what pause: for five
/// seconds, as etcd does.
const ADVANCE_LOOKS: usize = 100;
const ADVANCE_PAUSE: Duration = Duration::from_millis(50);

/// How the members' data is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// Before this member serves, if it has been a member before.
    pub(crate) initial: bool,
    /// The newest state, so often; `None` for never.
    pub(crate) periodic: Option<Duration>,
    /// What compactions left, so often; `None` for never.
    pub(crate) compactions: Option<Duration>,
    /// How often it is looked whether a downgrade is done.
    pub(crate) downgrade: Duration,
}

fn others_of(handle: &Handle) -> Vec<pb::Member> {
    let own = handle.member_id().0;
    handle.reads().members().into_iter().filter(|member| member.id != own).collect()
}

/// The releases that all members run, this one's own included; `None` for who cannot be asked.
async fn releases(handle: &Handle) -> Vec<Option<Release>> {
    let others = handle.peers().others();
    let members = others_of(handle);
    let asked = futures_util::future::join_all(members.iter().map(|member| async {
        let release = others.release_of(member).await;
        release
            .inspect_err(|reason| {
                tracing::warn!(
                    "remote-member-id" = %MemberId(member.id),
                    error = reason,
                    "failed to get version"
                );
            })
            .ok()
    }));
    let mut releases = asked.await;
    releases.push(Some(Release::own()));
    releases
}

fn cluster_release(handle: &Handle) -> Option<Release> {
    handle.reads().cluster_version().as_deref().and_then(Release::parse)
}

/// Lets most of the first election timeout go by once more than one other member is reached: if a
/// leader is among them it has been heard by then, if none is there is nothing to wait for. Alone,
/// a member does not wait in any case. Source: etcd server/etcdserver/server.go (`adjustTicks`).
pub(crate) async fn advance_election(handle: Handle, ticks: u64) {
    for _ in 0..ADVANCE_LOOKS {
        tokio::time::sleep(ADVANCE_PAUSE).await;
        let peers = handle.peers();
        let others = others_of(&handle);
        let reached = others.iter().filter(|it| peers.connected_since(MemberId(it.id)).is_some());
        let reached = reached.count();
        if 1 < reached {
            tracing::info!(
                "local-member-id" = %handle.member_id(),
                "forward-ticks" = ticks,
                "active-remote-members" = reached,
                "initialized peer connections; fast-forwarding election ticks"
            );
            handle.advance(ticks);
            return;
        }
    }
}

/// Keeps v2 requests out of the log while a member is known that would not survive them.
pub(crate) async fn watch_v2(handle: Handle) {
    let mut news = handle.news();
    loop {
        let members = others_of(&handle);
        let others = handle.peers().others();
        let asked = members.iter().map(|member| others.reads_v2(member));
        let asked = futures_util::future::join_all(asked).await;
        handle.bar_v2(asked.contains(&Ok(false)));
        tokio::select! {
            () = tokio::time::sleep(VERSION_INTERVAL) => {}
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Keeps the cluster version what every member can speak (CB-54).
pub(crate) async fn watch_version(handle: Handle) {
    let mut news = handle.news();
    loop {
        // Between founding a cluster and its first version nobody should wait.
        let undecided = handle.reads().cluster_version().is_none();
        tokio::select! {
            () = tokio::time::sleep(VERSION_INTERVAL) => {}
            changed = news.changed(), if undecided => {
                if changed.is_err() {
                    return;
                }
            }
        }
        if handle.leads() {
            update_version(&handle).await;
        }
    }
}

/// The cluster version now and what it should be; `None` to leave it.
fn next_version(
    handle: &Handle,
    releases: &[Option<Release>],
) -> Option<(Option<Release>, Release)> {
    let cluster = cluster_release(handle);
    let lowest = releases.iter().copied().collect::<Option<Vec<_>>>();
    let lowest = lowest.and_then(|all| all.into_iter().min());
    let downgrade = handle.reads().downgrade();
    let downgrade = downgrade.enabled.then(|| Release::parse(&downgrade.target_version)).flatten();
    let version = decide(Known { cluster, lowest, downgrade })?;
    Some((cluster, version))
}

async fn update_version(handle: &Handle) {
    let releases = releases(handle).await;
    if next_version(handle, &releases).is_none() {
        return;
    }
    // Only what is certain to be the newest may be decided upon: another member may lead since.
    if let Err(error) = handle.linearize().await {
        tracing::debug!(error = %error, "cannot look at the cluster version");
        return;
    }
    let Some((cluster, version)) = next_version(handle, &releases) else { return };
    match cluster {
        Some(before) => tracing::info!(
            from = %before,
            to = %version,
            "updating cluster version using v3 API"
        ),
        None => tracing::info!(
            "cluster-version" = %version,
            "setting up initial cluster version using v3 API"
        ),
    }
    let kind = RequestKind::ClusterVersionSet;
    let proposed = if needs_old_form(cluster, &releases) {
        handle.propose_v2(kind, "/0/version".to_owned(), version.to_cluster_version()).await
    } else {
        let ver = version.to_cluster_version();
        handle.propose(kind, &membershippb::ClusterVersionSetRequest { ver }).await
    };
    match proposed {
        Ok(_) => {
            tracing::info!("cluster-version" = %version, "cluster version is updated");
        }
        Err(error) => tracing::warn!(error = %error, "failed to update cluster version"),
    }
}

/// Tells the cluster this member's name and client URLs, once (CB-40).
///
/// # Errors
///
/// As [`Handle::propose`].
pub(crate) async fn publish(
    handle: &Handle,
    name: &str,
    client_urls: &[String],
) -> Result<(), ProposeError> {
    let own = handle.member_id();
    let kind = RequestKind::ClusterMemberAttrSet;
    let cluster = cluster_release(handle);
    let releases = match cluster {
        // It says enough, and nobody need be asked.
        Some(version) if Release::MINIMUM < version => Vec::new(),
        Some(_) | None => releases(handle).await,
    };
    if needs_old_form(cluster, &releases) {
        let path = format!("/0/members/{own}/attributes");
        let value = serde_json::json!({ "name": name, "clientURLs": client_urls }).to_string();
        handle.propose_v2(kind, path, value).await?;
    } else {
        let attributes =
            membershippb::Attributes { name: name.to_owned(), client_urls: client_urls.to_vec() };
        let member_attributes = Some(attributes);
        let request =
            membershippb::ClusterMemberAttrSetRequest { member_id: own.0, member_attributes };
        handle.propose(kind, &request).await?;
    }
    Ok(())
}

/// Ends a downgrade once every member runs the older release (CB-57).
pub(crate) async fn watch_downgrade(handle: Handle, interval: Duration) {
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        let downgrade = handle.reads().downgrade();
        if !downgrade.enabled || !handle.leads() {
            continue;
        }
        let Some(target) = Release::parse(&downgrade.target_version) else { continue };
        if releases(&handle).await.iter().all(|release| *release == Some(target)) {
            tracing::info!("cluster-version" = %target, "the cluster has been downgraded");
            let request = membershippb::DowngradeInfoSetRequest::default();
            let cancelled = handle.propose(RequestKind::DowngradeInfoSet, &request).await;
            if let Err(error) = cancelled {
                tracing::warn!(error = %error, "failed to cancel downgrade");
            }
        }
    }
}

/// Everyone's hash at a revision.
async fn hashes(handle: &Handle, revision: i64) -> Vec<Answered> {
    let others = handle.peers().others();
    let members = others_of(handle);
    let asked = members.iter().map(|member| others.hash_of(member, revision));
    futures_util::future::join_all(asked).await
}

async fn own_hash(handle: &Handle) -> Option<mvcc::Hash> {
    let keys = handle.reads().keys().clone();
    let hashed = tokio::task::spawn_blocking(move || keys.hash(0)).await;
    match hashed {
        Ok(Ok(hash)) => Some(hash),
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "failed to check hash KV");
            None
        }
        Err(_) => None,
    }
}

/// Compares this member with the others before it serves; how many of them differ.
pub(crate) async fn initial_check(handle: &Handle) -> usize {
    let own = handle.member_id();
    tracing::info!("local-member-id" = %own, "starting initial corruption check");
    let Some(hash) = own_hash(handle).await else { return 0 };
    let peers = hashes(handle, hash.revision).await;
    let mismatches = corruption::initial_mismatches(own, &hash, &peers);
    if mismatches == 0 {
        tracing::info!(
            "local-member-id" = %own,
            "initial corruption checking passed; no corruption"
        );
    }
    mismatches
}

/// Compares everyone's newest state from time to time (CB-65).
pub(crate) async fn watch_state(handle: Handle, interval: Duration) {
    tracing::info!(
        "local-member-id" = %handle.member_id(),
        interval = ?interval,
        "enabled corruption checking"
    );
    loop {
        tokio::time::sleep(interval).await;
        if handle.leads() {
            check_state(&handle).await;
        }
    }
}

async fn check_state(handle: &Handle) {
    let Some(before) = own_hash(handle).await else { return };
    let peers = hashes(handle, before.revision).await;
    if let Err(error) = handle.linearize().await {
        tracing::warn!(error = %error, "failed to check hash KV");
        return;
    }
    let Some(after) = own_hash(handle).await else { return };
    let culprit = corruption::periodic_culprit(handle.member_id(), &before, &after, &peers);
    if let Some(culprit) = culprit {
        raise(handle, culprit).await;
    }
    let checked = peers.iter().filter(|(_, answer)| answer.is_ok()).count();
    tracing::info!("number-of-peers-checked" = checked, "finished peer corruption check");
}

/// Compares what compactions left behind from time to time (CB-65).
pub(crate) async fn watch_compactions(handle: Handle, interval: Duration) {
    let mut checked = 0;
    loop {
        tokio::time::sleep(interval).await;
        if handle.leads() && !others_of(&handle).is_empty() {
            checked = check_compactions(&handle, checked).await;
        }
    }
}

/// Looks at compactions above the one that was last found equal everywhere; the newest such.
async fn check_compactions(handle: &Handle, checked: i64) -> i64 {
    let own = handle.member_id();
    let mut hashes_kept = handle.reads().keys().compaction_hashes();
    hashes_kept.retain(|hash| checked < hash.revision);
    if hashes_kept.is_empty() {
        return checked;
    }
    tracing::info!("local-member-id" = %own, "starting compact hash check");
    let mut count = 0;
    let mut newest = checked;
    for hash in hashes_kept.iter().rev() {
        let peers = hashes(handle, hash.revision).await;
        count += 1;
        match corruption::compare_compaction(own, hash, &peers) {
            Compared::Same => newest = hash.revision,
            Compared::Incomplete => continue,
            Compared::Corrupt(members) => {
                for member in members {
                    raise(handle, member).await;
                }
            }
        }
        break;
    }
    tracing::info!("number-of-hashes-checked" = count, "finished compaction hash check");
    newest
}

/// Raises CORRUPT for a member; 0 is the cluster.
async fn raise(handle: &Handle, member: MemberId) {
    let request = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate as i32,
        member_id: member.0,
        alarm: pb::AlarmType::Corrupt as i32,
    };
    if let Err(error) = handle.propose(RequestKind::Alarm, &request).await {
        tracing::error!(error = %error, "failed to raise the alarm CORRUPT");
    }
}
