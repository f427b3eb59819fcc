//! `defrag`: gives free pages of each endpoint's backend back to the file system.
//!
//! etcd: `etcdctl/ctlv3/command/defrag_command.go`.

use std::time::Instant;

use cli::duration;
use cli::exit::{ExitCode, Failure};
use proto::etcdserverpb::DefragmentRequest;

use super::endpoint::{cluster_flag, endpoints};
use super::{Command, MAINTENANCE};
use crate::call::{Call, connect};
use crate::terminal::say;

pub(crate) fn command() -> Command {
    let short = "Defragments the storage of the etcd members with given endpoints";
    Command::new("defrag", short)
        .elsewhere(&[("--data-dir", "`etcdutl defrag --data-dir`")])
        .group(MAINTENANCE)
        .persistent_flags([cluster_flag()])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let globals = call.globals().await?;
    let mut failed = false;
    for endpoint in endpoints(&call, &globals).await? {
        let client = connect(globals.client.at(vec![endpoint.clone()])).await?;
        let start = Instant::now();
        let result = client.defragment(DefragmentRequest {}).await;
        let took = duration::format(start.elapsed());
        match result {
            Ok(_) => say!("Finished defragmenting etcd member[{endpoint}]. took {took}"),
            Err(error) => {
                failed = true;
                let what = format!("etcd member[{endpoint}]. took {took}.");
                eprintln!("Failed to defragment {what} ({error})");
            }
        }
    }
    if failed { Err(Failure::silent(ExitCode::Error)) } else { Ok(()) }
}
