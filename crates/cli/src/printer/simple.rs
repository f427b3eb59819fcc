//! The simple format: sentences and bare values.
//!
//! etcd: `etcdctl/ctlv3/command/printer_simple.go`.

use std::io::{self, Write};

use proto::authpb::{Permission, permission};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op;
use proto::mvccpb::KeyValue;

use super::fields::{alarm_name, event_name};
use super::{EndpointHealth, Printer, Rendered, Response, RevokedPermission, endpoint};
use crate::quote::hex;

const ROOT_ROLE: &str = "root";
/// The range end that means "to the last key".
const OPEN_END: &[u8] = b"\0";

/// Appends the response. This format knows them all.
#[allow(clippy::wildcard_enum_match_arm, reason = "the rest are users and roles")]
pub(super) fn write(
    printer: &Printer,
    response: &Response<'_>,
    rendered: &mut Rendered,
) -> io::Result<()> {
    if let Response::EndpointHealth(list) = response {
        return health(list, rendered);
    }
    let out = &mut rendered.stdout;
    let mut pairs = Pairs { printer, out };
    match response {
        Response::Put(response) => pairs.put(response),
        Response::Get(response) => pairs.get(response),
        Response::Delete(response) => pairs.delete(response),
        Response::Txn(response) => pairs.txn(response),
        Response::Watch(response) => pairs.watch(response),
        Response::EndpointStatus(list) => rows(out, &endpoint::status_rows(list)),
        Response::EndpointHashKv(list) => rows(out, &endpoint::hash_rows(list)),
        Response::MemberList(list) => rows(out, &endpoint::member_rows(&list.members)),
        Response::MoveLeader { from, to, .. } => {
            writeln!(out, "Leadership transferred from {from:x} to {to:x}")
        }
        Response::DowngradeValidate(response) => downgrade(out, "validate", response),
        Response::DowngradeEnable(response) => downgrade(out, "enable", response),
        Response::DowngradeCancel(response) => downgrade(out, "cancel", response),
        Response::Alarm(response) => response.alarms.iter().try_for_each(|alarm| {
            writeln!(out, "memberID:{} alarm:{} ", alarm.member_id, alarm_name(alarm.alarm))
        }),
        Response::AuthStatus(response) => {
            writeln!(out, "Authentication Status: {}", response.enabled)?;
            writeln!(out, "AuthRevision: {}", response.auth_revision)
        }
        Response::LeaseGrant(_)
        | Response::LeaseRevoke { .. }
        | Response::LeaseKeepAlive(_)
        | Response::LeaseTimeToLive { .. }
        | Response::LeaseLeases(_) => lease(out, response),
        Response::MemberAdd(_)
        | Response::MemberRemove { .. }
        | Response::MemberUpdate { .. }
        | Response::MemberPromote { .. } => member(out, response),
        _ => user_or_role(out, response),
    }
}

struct Pairs<'a> {
    printer: &'a Printer,
    out: &'a mut Vec<u8>,
}

impl Pairs<'_> {
    fn pair(&mut self, pair: &KeyValue) -> io::Result<()> {
        if !self.printer.value_only {
            self.text(&pair.key)?;
        }
        self.text(&pair.value)
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.printer.hex {
            return writeln!(self.out, "{}", hex(bytes));
        }
        self.out.write_all(bytes)?;
        self.out.write_all(b"\n")
    }

    fn put(&mut self, response: &pb::PutResponse) -> io::Result<()> {
        writeln!(self.out, "OK")?;
        response.prev_kv.iter().try_for_each(|pair| self.pair(pair))
    }

    fn get(&mut self, response: &pb::RangeResponse) -> io::Result<()> {
        response.kvs.iter().try_for_each(|pair| self.pair(pair))
    }

    fn delete(&mut self, response: &pb::DeleteRangeResponse) -> io::Result<()> {
        writeln!(self.out, "{}", response.deleted)?;
        response.prev_kvs.iter().try_for_each(|pair| self.pair(pair))
    }

    fn txn(&mut self, response: &pb::TxnResponse) -> io::Result<()> {
        writeln!(self.out, "{}", if response.succeeded { "SUCCESS" } else { "FAILURE" })?;
        for operation in &response.responses {
            writeln!(self.out)?;
            match &operation.response {
                Some(response_op::Response::ResponseDeleteRange(inner)) => self.delete(inner)?,
                Some(response_op::Response::ResponsePut(inner)) => self.put(inner)?,
                Some(response_op::Response::ResponseRange(inner)) => self.get(inner)?,
                Some(response_op::Response::ResponseTxn(_)) | None => {
                    writeln!(self.out, "unexpected response {operation:?}")?;
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, response: &pb::WatchResponse) -> io::Result<()> {
        for event in &response.events {
            writeln!(self.out, "{}", event_name(event.r#type))?;
            if let Some(pair) = &event.prev_kv {
                self.pair(pair)?;
            }
            self.pair(&event.kv.clone().unwrap_or_default())?;
        }
        Ok(())
    }
}

fn rows(out: &mut Vec<u8>, rows: &[Vec<String>]) -> io::Result<()> {
    rows.iter().try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}

fn health(list: &[EndpointHealth], rendered: &mut Rendered) -> io::Result<()> {
    for EndpointHealth { endpoint, took, error, .. } in list {
        if error.is_empty() {
            let text = "is healthy: successfully committed proposal: took =";
            writeln!(rendered.stdout, "{endpoint} {text} {took}")?;
        } else {
            let text = "is unhealthy: failed to commit proposal:";
            writeln!(rendered.stderr, "{endpoint} {text} {error}")?;
        }
    }
    Ok(())
}

fn downgrade(out: &mut Vec<u8>, step: &str, response: &pb::DowngradeResponse) -> io::Result<()> {
    writeln!(out, "Downgrade {step} success, cluster version {}", response.version)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "called for leases only")]
fn lease(out: &mut Vec<u8>, response: &Response<'_>) -> io::Result<()> {
    match response {
        Response::LeaseGrant(response) => {
            writeln!(out, "lease {:016x} granted with TTL({}s)", response.id, response.ttl)
        }
        Response::LeaseRevoke { id, .. } => writeln!(out, "lease {id:016x} revoked"),
        Response::LeaseKeepAlive(response) => {
            writeln!(out, "lease {:016x} keepalived with TTL({})", response.id, response.ttl)
        }
        Response::LeaseTimeToLive { response, keys } => time_to_live(out, response, *keys),
        Response::LeaseLeases(response) => {
            writeln!(out, "found {} leases", response.leases.len())?;
            response.leases.iter().try_for_each(|lease| writeln!(out, "{:016x}", lease.id))
        }
        _ => Ok(()),
    }
}

fn time_to_live(
    out: &mut Vec<u8>,
    response: &pb::LeaseTimeToLiveResponse,
    keys: bool,
) -> io::Result<()> {
    let pb::LeaseTimeToLiveResponse { id, ttl, granted_ttl, .. } = response;
    if *granted_ttl == 0 && *ttl == -1 {
        return writeln!(out, "lease {id:016x} already expired");
    }
    write!(out, "lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)")?;
    if keys {
        write!(out, ", attached keys([")?;
        out.extend_from_slice(&response.keys.join(&b' '));
        write!(out, "])")?;
    }
    writeln!(out)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "called for members only")]
fn member(out: &mut Vec<u8>, response: &Response<'_>) -> io::Result<()> {
    let cluster = |header: Option<pb::ResponseHeader>| header.map_or(0, |header| header.cluster_id);
    match response {
        Response::MemberAdd(response) => {
            let member = response.member.clone().unwrap_or_default();
            let learner = if member.is_learner { " as learner " } else { " " };
            let cluster = cluster(response.header);
            writeln!(out, "Member {:16x} added{learner}to cluster {cluster:16x}", member.id)
        }
        Response::MemberRemove { id, response } => {
            writeln!(out, "Member {id:16x} removed from cluster {:16x}", cluster(response.header))
        }
        Response::MemberUpdate { id, response } => {
            writeln!(out, "Member {id:16x} updated in cluster {:16x}", cluster(response.header))
        }
        Response::MemberPromote { id, response } => {
            writeln!(out, "Member {id:16x} promoted in cluster {:16x}", cluster(response.header))
        }
        _ => Ok(()),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "called for users and roles only")]
fn user_or_role(out: &mut Vec<u8>, response: &Response<'_>) -> io::Result<()> {
    match response {
        Response::RoleAdd { role, .. } => writeln!(out, "Role {role} created"),
        Response::RoleGet { role, response } => role_get(out, role, &response.perm),
        Response::RoleDelete { role, .. } => writeln!(out, "Role {role} deleted"),
        Response::RoleList(response) => {
            response.roles.iter().try_for_each(|role| writeln!(out, "{role}"))
        }
        Response::RoleGrantPermission { role, .. } => writeln!(out, "Role {role} updated"),
        Response::RoleRevokePermission(revoked) => role_revoke_permission(out, revoked),
        Response::UserAdd { user, .. } => writeln!(out, "User {user} created"),
        Response::UserGet { user, response } => {
            writeln!(out, "User: {user}")?;
            let roles: String = response.roles.iter().map(|role| format!(" {role}")).collect();
            writeln!(out, "Roles:{roles}")
        }
        Response::UserList(response) => {
            response.users.iter().try_for_each(|user| writeln!(out, "{user}"))
        }
        Response::UserChangePassword(_) => writeln!(out, "Password updated"),
        Response::UserGrantRole { user, role, .. } => {
            writeln!(out, "Role {role} is granted to user {user}")
        }
        Response::UserRevokeRole { user, role, .. } => {
            writeln!(out, "Role {role} is revoked from user {user}")
        }
        Response::UserDelete { user, .. } => writeln!(out, "User {user} deleted"),
        _ => Ok(()),
    }
}

fn role_get(out: &mut Vec<u8>, role: &str, permissions: &[Permission]) -> io::Result<()> {
    writeln!(out, "Role {role}")?;
    for (title, kind) in
        [("KV Read:", permission::Type::Read), ("KV Write:", permission::Type::Write)]
    {
        writeln!(out, "{title}")?;
        if role == ROOT_ROLE && permissions.is_empty() {
            writeln!(out, "\t[, <open ended>")?;
        }
        for permission in permissions {
            let has = permission.perm_type();
            if has == kind || has == permission::Type::Readwrite {
                permission_line(out, permission)?;
            }
        }
    }
    Ok(())
}

fn permission_line(out: &mut Vec<u8>, permission: &Permission) -> io::Result<()> {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    let mut line = b"\t".to_vec();
    if end.is_empty() {
        line.extend_from_slice(key);
    } else {
        line.extend_from_slice(&interval(key, end));
        if !key.is_empty() && client::prefix_end(key) == end {
            line.extend_from_slice(b" (prefix ");
            line.extend_from_slice(key);
            line.push(b')');
        }
    }
    line.push(b'\n');
    out.write_all(&line)
}

/// `[key, end)` or `[key, <open ended>`.
fn interval(key: &[u8], end: &[u8]) -> Vec<u8> {
    if end == OPEN_END {
        [b"[", key, b", <open ended>"].concat()
    } else {
        [b"[", key, b", ", end, b")"].concat()
    }
}

fn role_revoke_permission(out: &mut Vec<u8>, revoked: &RevokedPermission<'_>) -> io::Result<()> {
    let RevokedPermission { role, key, range_end, .. } = revoked;
    let what = if range_end.is_empty() {
        [b"key ", *key].concat()
    } else {
        [b"range ", &interval(key, range_end)[..]].concat()
    };
    out.write_all(b"Permission of ")?;
    out.write_all(&what)?;
    writeln!(out, " is revoked from role {role}")
}
