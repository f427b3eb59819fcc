//! Changing who is a member: checked, proposed, and awaited until it is applied here.
//!
//! Source: etcd server/etcdserver/server.go (`AddMember` and what follows it).

use std::future::Future;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base::MemberId;
use proto::etcdserverpb as pb;
use proto::raftpb::{ConfChange, ConfChangeType};
use state::Refusal;
use state::members::{ChangeContext, MemberObject, member_id};

use super::others::LeaderError;
use super::reconfiguration::{Unwise, View};
use crate::auth::Caller;
use crate::handle::{Handle, ProposeError};

impl From<Unwise> for ProposeError {
    fn from(unwise: Unwise) -> Self {
        match unwise {
            Unwise::NotEnoughStarted => Self::NotEnoughStarted,
            Unwise::Unhealthy => Self::Unhealthy,
        }
    }
}

/// Adds a member that is reached at these URLs: it, and all members after that.
///
/// # Errors
///
/// As [`Handle::change_members`], or the change is unwise.
pub(crate) async fn add(
    handle: &Handle,
    peer_urls: Vec<String>,
    learner: bool,
) -> Result<(pb::Member, Vec<pb::Member>), ProposeError> {
    check(handle, "rejecting member add request", |view| view.check_add(learner))?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = member_id(&peer_urls, "", Some(unix.as_secs()));
    let member = MemberObject { id, peer_urls, is_learner: learner, ..MemberObject::default() };
    let kind = if learner {
        ConfChangeType::ConfChangeAddLearnerNode
    } else {
        ConfChangeType::ConfChangeAddNode
    };
    let message = member.to_message();
    let members = change(handle, kind, id, Some(ChangeContext::of(member))).await?;
    Ok((message, members))
}

/// Removes a member; all members after that.
///
/// # Errors
///
/// As [`Handle::change_members`], or the change is unwise.
pub(crate) async fn remove(handle: &Handle, id: MemberId) -> Result<Vec<pb::Member>, ProposeError> {
    check(handle, "rejecting member remove request", |view| view.check_remove(id))?;
    change(handle, ConfChangeType::ConfChangeRemoveNode, id, None).await
}

/// Changes where a member is reached; all members after that.
///
/// # Errors
///
/// As [`Handle::change_members`].
pub(crate) async fn update(
    handle: &Handle,
    id: MemberId,
    peer_urls: Vec<String>,
) -> Result<Vec<pb::Member>, ProposeError> {
    let member = MemberObject { id, peer_urls, ..MemberObject::default() };
    let context = Some(ChangeContext::of(member));
    change(handle, ConfChangeType::ConfChangeUpdateNode, id, context).await
}

/// Gives a learner its vote, here or, if another member leads, there; all members after that.
///
/// # Errors
///
/// As [`Handle::change_members`], or the learner is not ready.
pub(crate) async fn promote(
    handle: &Handle,
    caller: &Caller,
    id: MemberId,
) -> Result<Vec<pb::Member>, ProposeError> {
    match promote_here(handle, id).await {
        Err(ProposeError::NotLeader) => {
            by_leader(handle, handle.deadline(), |leader| async move {
                handle.peers().others().promote(&leader.peer_ur_ls, caller, id).await
            })
            .await
        }
        ended => {
            handle.metrics().server.on_promotion(ended.as_ref().err());
            ended
        }
    }
}

/// Gives a learner its vote if this member leads, and so knows how far the learner is.
///
/// # Errors
///
/// `NotLeader`, or as [`promote`].
pub(crate) async fn promote_here(
    handle: &Handle,
    id: MemberId,
) -> Result<Vec<pb::Member>, ProposeError> {
    handle.wait_applied().await?;
    if !handle.leads() {
        return Err(ProposeError::NotLeader);
    }
    match handle.learner_ready(id).await? {
        // The leader does not follow itself; whoever is no learner is refused once applied.
        None if id != handle.member_id() => return Err(Refusal::MemberNotFound.into()),
        Some(false) => {
            tracing::error!(
                "member-id" = %id,
                "rejecting promote learner: learner is not ready"
            );
            return Err(ProposeError::LearnerNotReady);
        }
        None | Some(true) => {}
    }
    check(handle, "rejecting member promote request", |view| view.check_promote())?;
    let context = Some(ChangeContext::promotion(id));
    change(handle, ConfChangeType::ConfChangeAddNode, id, context).await
}

/// Makes a strict check, unless they are off.
fn check(
    handle: &Handle,
    rejecting: &'static str,
    ask: impl Fn(&View<'_, &dyn Fn(MemberId) -> Option<Instant>>) -> Result<(), Unwise>,
) -> Result<(), ProposeError> {
    if !handle.limits().strict_reconfiguration {
        return Ok(());
    }
    let members = handle.reads().members();
    let connected_since = |id| handle.peers().connected_since(id);
    let view = View {
        own: handle.member_id(),
        members: &members,
        connected_since: &connected_since as &dyn Fn(MemberId) -> Option<Instant>,
        now: Instant::now(),
    };
    ask(&view).map_err(|unwise| {
        let reason = match unwise {
            Unwise::NotEnoughStarted => "not enough healthy members",
            Unwise::Unhealthy => {
                "local member has not been connected to enough peers for 5 s, reconfigure breaks \
                 active quorum"
            }
        };
        tracing::warn!("local-member-id" = %handle.member_id(), "{rejecting}; {reason}");
        unwise.into()
    })
}

async fn change(
    handle: &Handle,
    kind: ConfChangeType,
    id: MemberId,
    context: Option<ChangeContext>,
) -> Result<Vec<pb::Member>, ProposeError> {
    let change = ConfChange {
        id: None,
        r#type: Some(kind as i32),
        node_id: Some(id.0),
        context: context.map(|context| context.to_json()),
    };
    handle.change_members(change).await
}

/// Asks the leader, whoever that is, until it answers or `deadline` is over.
///
/// # Errors
///
/// What the leader refused with; `NoLeader` or `TimedOut` if it did not answer; `NotLeader` if this
/// member leads.
pub(crate) async fn by_leader<T, F>(
    handle: &Handle,
    deadline: Instant,
    ask: impl Fn(pb::Member) -> F,
) -> Result<T, ProposeError>
where
    F: Future<Output = Result<T, LeaderError>>,
{
    loop {
        let id = handle.status().leader;
        let leader = handle.reads().members().into_iter().find(|member| member.id == id.0);
        let known = leader.is_some();
        if let Some(leader) = leader
            && id != handle.member_id()
        {
            let asked = tokio::time::timeout_at(deadline.into(), ask(leader)).await;
            match asked {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(LeaderError::Refused(error))) => return Err(error),
                Ok(Err(LeaderError::Again)) | Err(_) => {}
            }
        } else if known {
            // This member leads by now.
            return Err(ProposeError::NotLeader);
        }
        if deadline < Instant::now() {
            return Err(if known { ProposeError::TimedOut } else { ProposeError::NoLeader });
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Before the leader is asked again.
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(50);
