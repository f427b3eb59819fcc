//! `make-mirror`: copies keys to another cluster and follows their changes.
//!
//! etcd: `etcdctl/ctlv3/command/make_mirror_command.go`, `client/v3/mirror/syncer.go`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cli::exit::Failure;
use cli::flag::{Flag, Kind};
use cli::global::read_user;
use client::{Client, TlsOptions, WatchOptions, prefix_end};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchResponse,
};
use proto::mvccpb::Event;
use proto::mvccpb::event::EventType;

use super::{Command, UTILITY};
use crate::call::{Call, connect};
use crate::terminal::{ask_password, say};

/// Pairs per read of the first copy. The same as etcd's.
const BATCH_PAIRS: i64 = 1000;
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub(crate) fn command() -> Command {
    let short = "Makes a mirror at the destination etcd cluster";
    Command::new("make-mirror [options] <destination>", short)
        .group(UTILITY)
        .flags(flags())
        .run(|call| Box::pin(run(call)))
}

fn flags() -> [Flag; 11] {
    [
        Flag::text("prefix", "Key-value prefix to mirror"),
        Flag::int("rev", "Specify the kv revision to start to mirror"),
        Flag::new(
            "max-txn-ops",
            Kind::Uint,
            "128",
            "Maximum number of operations permitted in a transaction during syncing updates.",
        ),
        Flag::text(
            "dest-prefix",
            "destination prefix to mirror a prefix to a different prefix in the destination \
             cluster",
        ),
        Flag::bool("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
        Flag::text(
            "dest-cert",
            "Identify secure client using this TLS certificate file for the destination cluster",
        ),
        Flag::text("dest-key", "Identify secure client using this TLS key file"),
        Flag::text(
            "dest-cacert",
            "Verify certificates of TLS enabled secure servers using this CA bundle",
        ),
        Flag::bool("dest-insecure-transport", "Disable transport security for client connections")
            .or("true"),
        Flag::text(
            "dest-user",
            "Destination username[:password] for authentication (prompt if password is not \
             supplied)",
        ),
        Flag::text(
            "dest-password",
            "Destination password for authentication (if this option is used, --user option \
             shouldn't include password)",
        ),
    ]
}

/// Where pairs go, and under which names.
#[derive(Debug)]
struct Mirror {
    source: Client,
    destination: Client,
    prefix: Bytes,
    destination_prefix: Bytes,
    operations_max: usize,
    /// Pairs copied so far.
    copied: Arc<AtomicU64>,
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let [destination] = call.exactly("make-mirror takes one destination argument")?;
    let globals = call.globals().await?;
    let flags = &call.flags;
    let mut options = globals.client.at(vec![destination]).with_command_timeout(None);
    options.credentials = read_user(flags.text("dest-user"), flags.text("dest-password"), || {
        ask_password("Destination Password: ").map_err(Failure::error)
    })?;
    options.tls = destination_tls(&call);
    let destination = connect(options).await?;
    let source = connect(globals.client.with_command_timeout(None)).await?;
    let prefix = flags.text("prefix");
    let destination_prefix = flags.text("dest-prefix");
    if flags.bool("no-dest-prefix") && !destination_prefix.is_empty() {
        let message =
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
        return Err(Failure::bad_arguments(message));
    }
    let start_revision = (flags.int("rev") - 1).max(0);
    let keep =
        !flags.bool("no-dest-prefix") && destination_prefix.is_empty() && start_revision == 0;
    let destination_prefix = if keep { prefix } else { destination_prefix };
    let mirror = Mirror {
        source,
        destination,
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        destination_prefix: Bytes::copy_from_slice(destination_prefix.as_bytes()),
        operations_max: usize::try_from(flags.uint("max-txn-ops")).unwrap_or(usize::MAX),
        copied: Arc::default(),
    };
    report(Arc::clone(&mirror.copied));
    let revision = if start_revision == 0 { mirror.copy_all().await? } else { start_revision };
    mirror.follow(revision + 1).await
}

fn destination_tls(call: &Call) -> Option<TlsOptions> {
    let file = |name: &str| {
        let path = call.flags.text(name);
        (!path.is_empty()).then(|| path.into())
    };
    let tls = TlsOptions {
        certificate: file("dest-cert"),
        key: file("dest-key"),
        authorities: file("dest-cacert"),
        ..TlsOptions::default()
    };
    let wanted = tls != TlsOptions::default() || !call.flags.bool("dest-insecure-transport");
    wanted.then_some(tls)
}

/// Prints how many pairs were copied, now and then.
fn report(copied: Arc<AtomicU64>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            say!("{}", copied.load(Ordering::Relaxed));
        }
    });
}

impl Mirror {
    /// Copies every pair as of one revision, and returns it.
    async fn copy_all(&self) -> Result<i64, Failure> {
        let (mut key, end) = self.range();
        let mut revision = 0;
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: end.clone(),
                revision,
                limit: BATCH_PAIRS,
                ..RangeRequest::default()
            };
            let response = self.source.get(request).await.map_err(Failure::error)?;
            if revision == 0 {
                revision = response.header.map_or(0, |header| header.revision);
            }
            let more = response.more;
            for pair in response.kvs {
                // The next batch starts at the first key that can follow.
                key = Bytes::from([&pair.key[..], &[0]].concat());
                let put = self.put(&pair.key, pair.value);
                self.destination.put(put).await.map_err(Failure::error)?;
                self.copied.fetch_add(1, Ordering::Relaxed);
            }
            if !more {
                return Ok(revision);
            }
        }
    }

    /// Repeats every change from a revision on.
    async fn follow(&self, start_revision: i64) -> Result<(), Failure> {
        let (key, range_end) = self.range();
        let options = WatchOptions { key, range_end, start_revision, ..WatchOptions::default() };
        let mut watcher = self.source.watch(options);
        while let Some(response) = watcher.next().await {
            let response = response.map_err(Failure::error)?;
            if response.compact_revision != 0 {
                return Err(Failure::error(COMPACTED));
            }
            self.repeat(response).await?;
        }
        Err(Failure::error("<nil>"))
    }

    /// Changes of one revision stay in one transaction, unless there are too many.
    async fn repeat(&self, response: WatchResponse) -> Result<(), Failure> {
        let mut operations = Vec::new();
        let mut revision = 0;
        for event in response.events {
            let pair_revision = event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
            let is_next = revision != 0 && revision < pair_revision;
            if is_next || operations.len() == self.operations_max {
                self.commit(std::mem::take(&mut operations)).await?;
            }
            revision = pair_revision;
            operations.push(self.operation(event));
            self.copied.fetch_add(1, Ordering::Relaxed);
        }
        if operations.is_empty() { Ok(()) } else { self.commit(operations).await }
    }

    async fn commit(&self, success: Vec<RequestOp>) -> Result<(), Failure> {
        let request = TxnRequest { success, ..TxnRequest::default() };
        self.destination.txn(request).await.map_err(Failure::error).map(drop)
    }

    fn operation(&self, event: Event) -> RequestOp {
        let kind = event.r#type();
        let pair = event.kv.unwrap_or_default();
        let request = match kind {
            EventType::Put => Request::RequestPut(self.put(&pair.key, pair.value)),
            EventType::Delete => {
                let key = self.rename(&pair.key);
                Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                })
            }
        };
        RequestOp { request: Some(request) }
    }

    fn put(&self, key: &[u8], value: Bytes) -> PutRequest {
        PutRequest { key: self.rename(key), value, ..PutRequest::default() }
    }

    /// Every key here starts with the prefix.
    fn rename(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        Bytes::from([&self.destination_prefix[..], rest].concat())
    }

    fn range(&self) -> (Bytes, Bytes) {
        if self.prefix.is_empty() {
            let zero = Bytes::from_static(&[0]);
            return (zero.clone(), zero);
        }
        (self.prefix.clone(), Bytes::from(prefix_end(&self.prefix)))
    }
}
