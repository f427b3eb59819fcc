//! `compaction`: drops history.
//!
//! etcd: `etcdctl/ctlv3/command/compaction_command.go`.

use cli::exit::Failure;
use cli::flag::Flag;
use cli::number;
use proto::etcdserverpb::CompactionRequest;

use super::{Command, KEY_VALUE};
use crate::call::Call;
use crate::terminal::say;

pub(crate) fn command() -> Command {
    Command::new("compaction [options] <revision>", "Compacts the event history in etcd")
        .group(KEY_VALUE)
        .flags([Flag::bool(
            "physical",
            "'true' to wait for compaction to physically remove all old revisions",
        )])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let [revision] = call.exactly("compaction command needs 1 argument")?;
    let revision = number::parse_int(&revision, 10).map_err(Failure::error)?;
    let request = CompactionRequest { revision, physical: call.flags.bool("physical") };
    let (client, _) = call.connect().await?;
    client.compact(request).await.map_err(Failure::error)?;
    say!("compacted revision {revision}");
    Ok(())
}
