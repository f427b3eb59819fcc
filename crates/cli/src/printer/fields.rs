//! The fields format: a line per field, strings quoted.
//!
//! etcd: `etcdctl/ctlv3/command/printer_fields.go`.

use std::io::{self, Write};

use proto::authpb::permission;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op;
use proto::mvccpb::{KeyValue, event};

use super::{EndpointHashKv, EndpointHealth, EndpointStatus, Response};
use crate::quote::quote;

/// Appends the response. False if the format does not know it.
pub(super) fn write(hex: bool, response: &Response<'_>, out: &mut Vec<u8>) -> io::Result<bool> {
    let mut fields = Fields { hex, out };
    match response {
        Response::Put(response) => fields.put(response)?,
        Response::Get(response) => fields.get(response)?,
        Response::Delete(response) => fields.delete(response)?,
        Response::Txn(response) => fields.txn(response)?,
        Response::Watch(response) => fields.watch(response)?,
        Response::LeaseGrant(response) => {
            fields.header(response.header)?;
            fields.lease_id(response.id)?;
            writeln!(fields.out, "\"TTL\" : {}", response.ttl)?;
        }
        Response::LeaseKeepAlive(response) => {
            fields.header(response.header)?;
            fields.lease_id(response.id)?;
            writeln!(fields.out, "\"TTL\" : {}", response.ttl)?;
        }
        Response::LeaseTimeToLive { response, .. } => fields.time_to_live(response)?,
        Response::LeaseLeases(response) => {
            fields.header(response.header)?;
            for lease in &response.leases {
                fields.lease_id(lease.id)?;
            }
        }
        Response::MemberList(response) => fields.member_list(response)?,
        Response::EndpointHealth(list) => fields.health(list)?,
        Response::EndpointStatus(list) => fields.status(list)?,
        Response::EndpointHashKv(list) => fields.hash_kv(list)?,
        Response::Alarm(response) => fields.alarm(response)?,
        Response::RoleGet { response, .. } => fields.role_get(response)?,
        Response::RoleList(response) => {
            fields.header(response.header)?;
            let roles: String =
                response.roles.iter().map(|role| format!(" {}", quote(role.as_bytes()))).collect();
            writeln!(fields.out, "\"Roles\" :{roles}")?;
        }
        Response::LeaseRevoke { response, .. } => fields.header(response.header)?,
        Response::RoleAdd { response, .. } => fields.header(response.header)?,
        Response::RoleDelete { response, .. } => fields.header(response.header)?,
        Response::RoleGrantPermission { response, .. } => fields.header(response.header)?,
        Response::RoleRevokePermission(revoked) => fields.header(revoked.response.header)?,
        Response::UserAdd { response, .. } => fields.header(response.header)?,
        Response::UserChangePassword(response) => fields.header(response.header)?,
        Response::UserGrantRole { response, .. } => fields.header(response.header)?,
        Response::UserRevokeRole { response, .. } => fields.header(response.header)?,
        Response::UserDelete { response, .. } => fields.header(response.header)?,
        Response::MemberAdd(_)
        | Response::MemberRemove { .. }
        | Response::MemberUpdate { .. }
        | Response::MemberPromote { .. }
        | Response::MoveLeader { .. }
        | Response::DowngradeValidate(_)
        | Response::DowngradeEnable(_)
        | Response::DowngradeCancel(_)
        | Response::UserGet { .. }
        | Response::UserList(_)
        | Response::AuthStatus(_) => return Ok(false),
    }
    Ok(true)
}

struct Fields<'a> {
    hex: bool,
    out: &'a mut Vec<u8>,
}

impl Fields<'_> {
    fn id(&mut self, name: &str, id: u64) -> io::Result<()> {
        if self.hex {
            writeln!(self.out, "\"{name}\" : {id:x}")
        } else {
            writeln!(self.out, "\"{name}\" : {id}")
        }
    }

    fn lease_id(&mut self, id: i64) -> io::Result<()> {
        if self.hex {
            writeln!(self.out, "\"ID\" : {id:016x}")
        } else {
            writeln!(self.out, "\"ID\" : {id}")
        }
    }

    /// Only responses about keys carry a revision; others leave it out.
    fn header(&mut self, header: Option<pb::ResponseHeader>) -> io::Result<()> {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id)?;
        self.id("MemberID", header.member_id)?;
        if header.revision > 0 {
            writeln!(self.out, "\"Revision\" : {}", header.revision)?;
        }
        writeln!(self.out, "\"RaftTerm\" : {}", header.raft_term)
    }

    fn pair(&mut self, prefix: &str, pair: &KeyValue) -> io::Result<()> {
        writeln!(self.out, "\"{prefix}Key\" : {}", quote(&pair.key))?;
        writeln!(self.out, "\"{prefix}CreateRevision\" : {}", pair.create_revision)?;
        writeln!(self.out, "\"{prefix}ModRevision\" : {}", pair.mod_revision)?;
        writeln!(self.out, "\"{prefix}Version\" : {}", pair.version)?;
        writeln!(self.out, "\"{prefix}Value\" : {}", quote(&pair.value))?;
        if self.hex {
            writeln!(self.out, "\"{prefix}Lease\" : {:016x}", pair.lease)
        } else {
            writeln!(self.out, "\"{prefix}Lease\" : {}", pair.lease)
        }
    }

    fn put(&mut self, response: &pb::PutResponse) -> io::Result<()> {
        self.header(response.header)?;
        response.prev_kv.iter().try_for_each(|pair| self.pair("Prev", pair))
    }

    fn get(&mut self, response: &pb::RangeResponse) -> io::Result<()> {
        self.header(response.header)?;
        for pair in &response.kvs {
            self.pair("", pair)?;
        }
        writeln!(self.out, "\"More\" : {}", response.more)?;
        writeln!(self.out, "\"Count\" : {}", response.count)
    }

    fn delete(&mut self, response: &pb::DeleteRangeResponse) -> io::Result<()> {
        self.header(response.header)?;
        writeln!(self.out, "\"Deleted\" : {}", response.deleted)?;
        response.prev_kvs.iter().try_for_each(|pair| self.pair("Prev", pair))
    }

    fn txn(&mut self, response: &pb::TxnResponse) -> io::Result<()> {
        self.header(response.header)?;
        writeln!(self.out, "\"Succeeded\" : {}", response.succeeded)?;
        for operation in &response.responses {
            match &operation.response {
                Some(response_op::Response::ResponseDeleteRange(inner)) => self.delete(inner)?,
                Some(response_op::Response::ResponsePut(inner)) => self.put(inner)?,
                Some(response_op::Response::ResponseRange(inner)) => self.get(inner)?,
                Some(response_op::Response::ResponseTxn(_)) | None => {
                    writeln!(self.out, "\"Unknown\" : \"\"")?;
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, response: &pb::WatchResponse) -> io::Result<()> {
        self.header(response.header)?;
        for event in &response.events {
            writeln!(self.out, "\"Type\" : {}", event_name(event.r#type))?;
            if let Some(pair) = &event.prev_kv {
                self.pair("Prev", pair)?;
            }
            self.pair("", &event.kv.clone().unwrap_or_default())?;
        }
        Ok(())
    }

    fn time_to_live(&mut self, response: &pb::LeaseTimeToLiveResponse) -> io::Result<()> {
        self.header(response.header)?;
        self.lease_id(response.id)?;
        writeln!(self.out, "\"TTL\" : {}", response.ttl)?;
        writeln!(self.out, "\"GrantedTTL\" : {}", response.granted_ttl)?;
        response.keys.iter().try_for_each(|key| writeln!(self.out, "\"Key\" : {}", quote(key)))
    }

    fn member_list(&mut self, response: &pb::MemberListResponse) -> io::Result<()> {
        self.header(response.header)?;
        for member in &response.members {
            self.id("ID", member.id)?;
            writeln!(self.out, "\"Name\" : {}", quote(member.name.as_bytes()))?;
            for url in &member.peer_ur_ls {
                writeln!(self.out, "\"PeerURL\" : {}", quote(url.as_bytes()))?;
            }
            for url in &member.client_ur_ls {
                writeln!(self.out, "\"ClientURL\" : {}", quote(url.as_bytes()))?;
            }
            writeln!(self.out, "\"IsLearner\" : {}\n", member.is_learner)?;
        }
        Ok(())
    }

    fn health(&mut self, list: &[EndpointHealth]) -> io::Result<()> {
        for health in list {
            writeln!(self.out, "\"Endpoint\" : {}", quote(health.endpoint.as_bytes()))?;
            writeln!(self.out, "\"Health\" : {}", health.health)?;
            writeln!(self.out, "\"Took\" : {}", health.took)?;
            writeln!(self.out, "\"Error\" : {}\n", health.error)?;
        }
        Ok(())
    }

    fn status(&mut self, list: &[EndpointStatus]) -> io::Result<()> {
        for status in list {
            let response = &status.response;
            let downgrade = response.downgrade_info.clone().unwrap_or_default();
            let text = |text: &str| quote(text.as_bytes());
            self.header(response.header)?;
            let out = &mut *self.out;
            writeln!(out, "\"Version\" : {}", text(&response.version))?;
            writeln!(out, "\"StorageVersion\" : {}", text(&response.storage_version))?;
            writeln!(out, "\"DBSize\" : {}", response.db_size)?;
            writeln!(out, "\"DBSizeInUse\" : {}", response.db_size_in_use)?;
            writeln!(out, "\"DBSizeQuota\" : {}", response.db_size_quota)?;
            writeln!(out, "\"Leader\" : {}", response.leader)?;
            writeln!(out, "\"IsLearner\" : {}", response.is_learner)?;
            writeln!(out, "\"RaftIndex\" : {}", response.raft_index)?;
            writeln!(out, "\"RaftTerm\" : {}", response.raft_term)?;
            writeln!(out, "\"RaftAppliedIndex\" : {}", response.raft_applied_index)?;
            writeln!(out, "\"Errors\" : [{}]", response.errors.join(" "))?;
            writeln!(out, "\"Endpoint\" : {}", text(&status.endpoint))?;
            writeln!(out, "\"DowngradeTargetVersion\" : {}", text(&downgrade.target_version))?;
            writeln!(out, "\"DowngradeEnabled\" : {}\n", downgrade.enabled)?;
        }
        Ok(())
    }

    fn hash_kv(&mut self, list: &[EndpointHashKv]) -> io::Result<()> {
        for hash in list {
            self.header(hash.response.header)?;
            writeln!(self.out, "\"Endpoint\" : {}", quote(hash.endpoint.as_bytes()))?;
            writeln!(self.out, "\"Hash\" : {}", hash.response.hash)?;
            writeln!(self.out, "\"HashRevision\" : {}\n", hash.response.hash_revision)?;
        }
        Ok(())
    }

    fn alarm(&mut self, response: &pb::AlarmResponse) -> io::Result<()> {
        self.header(response.header)?;
        for alarm in &response.alarms {
            self.id("MemberID", alarm.member_id)?;
            writeln!(self.out, "\"AlarmType\" : {}\n", alarm_name(alarm.alarm))?;
        }
        Ok(())
    }

    fn role_get(&mut self, response: &pb::AuthRoleGetResponse) -> io::Result<()> {
        self.header(response.header)?;
        for permission in &response.perm {
            let kind = permission::Type::try_from(permission.perm_type);
            let kind = kind.map_or("", |kind| kind.as_str_name());
            writeln!(self.out, "\"PermType\" :  {kind}")?;
            writeln!(self.out, "\"Key\" : {}", quote(&permission.key))?;
            writeln!(self.out, "\"RangeEnd\" : {}", quote(&permission.range_end))?;
        }
        Ok(())
    }
}

/// The event's type as etcd names it, or its number.
pub(super) fn event_name(kind: i32) -> String {
    let known = event::EventType::try_from(kind);
    known.map_or_else(|_| kind.to_string(), |known| known.as_str_name().to_owned())
}

/// The alarm as etcd names it, or its number.
pub(super) fn alarm_name(kind: i32) -> String {
    let known = pb::AlarmType::try_from(kind);
    known.map_or_else(|_| kind.to_string(), |known| known.as_str_name().to_owned())
}
