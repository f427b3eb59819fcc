//! The requests whose numbers are compared, by name.

use bytes::Bytes;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};
use proto::health::health_client::HealthClient;
use proto::health::{HealthCheckRequest, HealthListRequest};
use proto::v3lockpb::lock_client::LockClient;
use proto::v3lockpb::{LockRequest, UnlockRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A client, and who it says it is.
pub(crate) struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    auth: AuthClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    watch: WatchClient<Channel>,
    health: HealthClient<Channel>,
    lock: LockClient<Channel>,
    token: Option<String>,
}

/// In their order; what they do is in [`Clients::step`].
pub(crate) const STEPS: [&str; 69] = [
    "put",
    "put again",
    "put and see what was",
    "put and keep the value",
    "put and keep the lease of no key",
    "put no key",
    "put with an unknown lease",
    "range",
    "range of all",
    "range of no key",
    "range of a future revision",
    "txn with a compare and three operations",
    "txn that fails its second compare",
    "txn that only reads",
    "txn that reads behind a compare",
    "txn with a put that keeps a value",
    "txn within a txn",
    "txn with an unknown lease",
    "delete",
    "delete nothing",
    "delete and see what was",
    "grant",
    "grant twice",
    "put with the lease",
    "put another with the lease",
    "keep alive",
    "keep no lease alive",
    "revoke",
    "revoke again",
    "compact",
    "compact again",
    "compact the future",
    "range of a compacted revision",
    "watch",
    "raise an alarm",
    "clear the alarm",
    "clear no alarm",
    "check health",
    "check the health of no service",
    "list health",
    "lock",
    "unlock",
    "add role",
    "add role again",
    "grant permission",
    "revoke permission not given",
    "get role",
    "get no role",
    "list roles",
    "delete no role",
    "enable auth too early",
    "add user",
    "add root",
    "change password",
    "grant role",
    "grant root",
    "revoke role not given",
    "get user",
    "list users",
    "auth status",
    "enable auth",
    "put as nobody",
    "authenticate wrongly",
    "authenticate",
    "put where not allowed",
    "add role as no administrator",
    "get user as no administrator",
    "authenticate as root",
    "disable auth",
];

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn range(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn delete(key: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), ..Default::default() }
}

fn ops(requests: impl IntoIterator<Item = Op>) -> Vec<pb::RequestOp> {
    requests.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect()
}

/// That a key was written so often.
fn version(key: &'static str, version: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::Version(version)),
    }
}

const LEASE: i64 = 7;
const UNKNOWN: i64 = 77;
const LOCK_LEASE: i64 = 8;

type Done = Result<(), Status>;

impl Clients {
    pub(crate) async fn of(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect().await?;
        Ok(Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            auth: AuthClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()),
            health: HealthClient::new(channel.clone()),
            lock: LockClient::new(channel),
            token: None,
        })
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let token = MetadataValue::try_from(token.as_str()).expect("a token is text");
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// Makes a request by its name; whether it is refused is for the numbers to tell.
    pub(crate) async fn step(&mut self, name: &str) {
        drop(self.make(name).await);
    }

    async fn make(&mut self, name: &str) -> Done {
        let words = ["put", "range", "txn", "delete", "grant", "revoke", "compact"];
        match name {
            "delete no role"
            | "grant permission"
            | "grant role"
            | "grant root"
            | "revoke permission not given"
            | "revoke role not given" => self.roles(name).await,
            "grant" | "grant twice" | "revoke" | "revoke again" => self.leases(name).await,
            "keep alive" => self.keep_alive(LEASE).await,
            "keep no lease alive" => self.keep_alive(UNKNOWN).await,
            "watch" => self.watch().await,
            _ if name.contains("alarm") => self.alarms(name).await,
            _ if name.contains("health") => self.health(name).await,
            "lock" | "unlock" => self.lock(name).await,
            _ if name.starts_with("txn") => self.txns(name).await,
            _ if name.starts_with("put") => self.puts(name).await,
            _ if words.iter().any(|word| name.starts_with(word)) => self.keys(name).await,
            _ => self.users(name).await,
        }
    }

    async fn puts(&mut self, name: &str) -> Done {
        let request = match name {
            "put" | "put again" => put("a", "1"),
            "put and see what was" => pb::PutRequest { prev_kv: true, ..put("a", "22") },
            "put and keep the value" => pb::PutRequest { ignore_value: true, ..put("a", "") },
            "put and keep the lease of no key" => {
                pb::PutRequest { ignore_lease: true, ..put("none", "1") }
            }
            "put no key" => put("", "1"),
            "put with an unknown lease" => pb::PutRequest { lease: UNKNOWN, ..put("a", "1") },
            "put with the lease" => pb::PutRequest { lease: LEASE, ..put("l", "1") },
            "put another with the lease" => pb::PutRequest { lease: LEASE, ..put("m", "1") },
            "put as nobody" | "put where not allowed" => put("else", "1"),
            _ => unreachable!("{name}"),
        };
        let request = self.ask(request);
        self.kv.put(request).await.map(drop)
    }

    async fn keys(&mut self, name: &str) -> Done {
        let compact = |revision| pb::CompactionRequest { revision, physical: true };
        match name {
            "range" => self.kv.range(range("a")).await.map(drop),
            "range of all" => {
                let all = pb::RangeRequest { range_end: "\0".into(), ..range("\0") };
                self.kv.range(all).await.map(drop)
            }
            "range of no key" => self.kv.range(range("")).await.map(drop),
            "range of a future revision" => {
                let request = pb::RangeRequest { revision: 1000, ..range("a") };
                self.kv.range(request).await.map(drop)
            }
            "range of a compacted revision" => {
                let request = pb::RangeRequest { revision: 2, ..range("a") };
                self.kv.range(request).await.map(drop)
            }
            "delete" => self.kv.delete_range(delete("a")).await.map(drop),
            "delete nothing" => self.kv.delete_range(delete("none")).await.map(drop),
            "delete and see what was" => {
                let request = pb::DeleteRangeRequest { prev_kv: true, ..delete("b") };
                self.kv.delete_range(request).await.map(drop)
            }
            "compact" | "compact again" => self.kv.compact(compact(5)).await.map(drop),
            "compact the future" => self.kv.compact(compact(1000)).await.map(drop),
            _ => unreachable!("{name}"),
        }
    }

    async fn txns(&mut self, name: &str) -> Done {
        let (compare, success) = match name {
            "txn with a compare and three operations" => (
                vec![version("none", 0)],
                vec![
                    Op::RequestPut(put("b", "1")),
                    Op::RequestPut(put("c", "1")),
                    Op::RequestRange(range("a")),
                ],
            ),
            "txn that fails its second compare" => (
                vec![version("none", 0), version("none", 1), version("none", 2)],
                vec![Op::RequestPut(put("d", "1"))],
            ),
            "txn that only reads" => {
                (vec![], vec![Op::RequestRange(range("a")), Op::RequestRange(range("b"))])
            }
            "txn that reads behind a compare" => {
                (vec![version("none", 0)], vec![Op::RequestRange(range("a"))])
            }
            "txn with a put that keeps a value" => {
                let kept = pb::PutRequest { ignore_value: true, ..put("c", "") };
                (vec![], vec![Op::RequestPut(kept)])
            }
            "txn within a txn" => {
                let inner = pb::TxnRequest {
                    compare: vec![version("none", 0)],
                    success: ops([Op::RequestPut(put("d", "1"))]),
                    failure: vec![],
                };
                (vec![], vec![Op::RequestTxn(inner), Op::RequestDeleteRange(delete("none"))])
            }
            "txn with an unknown lease" => {
                let request = pb::PutRequest { lease: UNKNOWN, ..put("e", "1") };
                (vec![version("none", 0)], vec![Op::RequestPut(request)])
            }
            _ => unreachable!("{name}"),
        };
        let request = pb::TxnRequest { compare, success: ops(success), failure: vec![] };
        self.kv.txn(request).await.map(drop)
    }

    async fn leases(&mut self, name: &str) -> Done {
        if name.starts_with("grant") {
            let request = pb::LeaseGrantRequest { ttl: 1000, id: LEASE };
            return self.lease.lease_grant(request).await.map(drop);
        }
        self.lease.lease_revoke(pb::LeaseRevokeRequest { id: LEASE }).await.map(drop)
    }

    /// The client ends the stream once it was answered.
    async fn keep_alive(&mut self, id: i64) -> Done {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let sent = sender.send(pb::LeaseKeepAliveRequest { id }).await;
        sent.expect("the stream is open");
        let answers = self.lease.lease_keep_alive(ReceiverStream::new(receiver)).await?;
        let mut answers = answers.into_inner();
        answers.message().await?;
        drop(sender);
        while answers.message().await?.is_some() {}
        Ok(())
    }

    /// Watches, sees a put and a deletion, and gives up.
    async fn watch(&mut self) -> Done {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let create =
            pb::WatchCreateRequest { key: "w".into(), ..pb::WatchCreateRequest::default() };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        sender.send(request).await.expect("the stream is open");
        let answers = self.watch.watch(ReceiverStream::new(receiver)).await?;
        let mut answers = answers.into_inner();
        answers.message().await?;
        self.kv.put(put("w", "1")).await?;
        answers.message().await?;
        self.kv.delete_range(delete("w")).await?;
        answers.message().await?;
        // The server's side lasts until the client gives up the stream.
        drop((sender, answers));
        Ok(())
    }

    async fn alarms(&mut self, name: &str) -> Done {
        let raises = name.starts_with("raise");
        let action = if raises { AlarmAction::Activate } else { AlarmAction::Deactivate };
        let request = pb::AlarmRequest {
            action: action.into(),
            member_id: 0xa1a,
            alarm: pb::AlarmType::Nospace.into(),
        };
        self.maintenance.alarm(request).await.map(drop)
    }

    async fn health(&mut self, name: &str) -> Done {
        if name == "list health" {
            let answer = self.health.list(HealthListRequest {}).await?.into_inner();
            let serving = answer.statuses.into_iter().map(|(name, it)| (name, it.status()));
            let whole =
                (String::new(), proto::health::health_check_response::ServingStatus::Serving);
            assert_eq!(serving.collect::<Vec<_>>(), [whole]);
            return Ok(());
        }
        let service = if name == "check health" { "" } else { "none" }.to_owned();
        self.health.check(HealthCheckRequest { service }).await.map(drop)
    }

    async fn lock(&mut self, name: &str) -> Done {
        let key = format!("lock/{LOCK_LEASE:x}").into();
        if name == "unlock" {
            return self.lock.unlock(UnlockRequest { key }).await.map(drop);
        }
        let request = pb::LeaseGrantRequest { ttl: 1000, id: LOCK_LEASE };
        self.lease.lease_grant(request).await?;
        let request = LockRequest { name: "lock".into(), lease: LOCK_LEASE };
        self.lock.lock(request).await.map(drop)
    }

    async fn roles(&mut self, name: &str) -> Done {
        let (user, role) = ("user".to_owned(), "role".to_owned());
        match name {
            "delete no role" => {
                let request = pb::AuthRoleDeleteRequest { role: "none".to_owned() };
                self.auth.role_delete(request).await.map(drop)
            }
            "grant permission" => {
                let permission = proto::authpb::Permission {
                    perm_type: proto::authpb::permission::Type::Readwrite.into(),
                    key: "a".into(),
                    range_end: Bytes::new(),
                };
                let request =
                    pb::AuthRoleGrantPermissionRequest { name: role, perm: Some(permission) };
                self.auth.role_grant_permission(request).await.map(drop)
            }
            "grant role" => {
                let request = pb::AuthUserGrantRoleRequest { user, role };
                self.auth.user_grant_role(request).await.map(drop)
            }
            "grant root" => {
                let root = || "root".to_owned();
                let request = pb::AuthUserGrantRoleRequest { user: root(), role: root() };
                self.auth.user_grant_role(request).await.map(drop)
            }
            "revoke permission not given" => {
                let (key, range_end) = ("none".into(), Bytes::new());
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                self.auth.role_revoke_permission(request).await.map(drop)
            }
            "revoke role not given" => {
                let request = pb::AuthUserRevokeRoleRequest { name: user, role: "none".to_owned() };
                self.auth.user_revoke_role(request).await.map(drop)
            }
            _ => unreachable!("{name}"),
        }
    }

    async fn users(&mut self, name: &str) -> Done {
        let role = || "role".to_owned();
        match name {
            "add role" | "add role again" | "add role as no administrator" => {
                let request = self.ask(pb::AuthRoleAddRequest { name: role() });
                self.auth.role_add(request).await.map(drop)
            }
            "get role" => {
                let request = pb::AuthRoleGetRequest { role: role() };
                self.auth.role_get(request).await.map(drop)
            }
            "get no role" => {
                let request = pb::AuthRoleGetRequest { role: "none".to_owned() };
                self.auth.role_get(request).await.map(drop)
            }
            "list roles" => self.auth.role_list(pb::AuthRoleListRequest {}).await.map(drop),
            "enable auth" | "enable auth too early" => {
                self.auth.auth_enable(pb::AuthEnableRequest {}).await.map(drop)
            }
            "add user" | "add root" => {
                let name = if name == "add root" { "root" } else { "user" };
                let (name, password) = (name.to_owned(), "p".to_owned());
                let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
                self.auth.user_add(request).await.map(drop)
            }
            "change password" => {
                let (name, password) = ("user".to_owned(), "q".to_owned());
                let hashed_password = String::new();
                let request = pb::AuthUserChangePasswordRequest { name, password, hashed_password };
                self.auth.user_change_password(request).await.map(drop)
            }
            "get user" | "get user as no administrator" => {
                let name = if self.token.is_some() { "root" } else { "user" };
                let request = self.ask(pb::AuthUserGetRequest { name: name.to_owned() });
                self.auth.user_get(request).await.map(drop)
            }
            "list users" => self.auth.user_list(pb::AuthUserListRequest {}).await.map(drop),
            "auth status" => self.auth.auth_status(pb::AuthStatusRequest {}).await.map(drop),
            "authenticate wrongly" => self.authenticate("user", "wrong").await,
            "authenticate" => self.authenticate("user", "q").await,
            "authenticate as root" => self.authenticate("root", "p").await,
            "disable auth" => {
                let request = self.ask(pb::AuthDisableRequest {});
                self.auth.auth_disable(request).await.map(drop)
            }
            _ => unreachable!("{name}"),
        }
    }

    async fn authenticate(&mut self, name: &str, password: &str) -> Done {
        let (name, password) = (name.to_owned(), password.to_owned());
        let answer = self.auth.authenticate(pb::AuthenticateRequest { name, password }).await?;
        self.token = Some(answer.into_inner().token);
        Ok(())
    }
}
