//! `del`: deletes keys.
//!
//! etcd: `etcdctl/ctlv3/command/del_command.go`.

use std::time::Duration;

use cli::exit::Failure;
use cli::flag::{Argument, Flag, Values};
use cli::printer::Response;
use cli::quote::quote;
use proto::etcdserverpb::DeleteRangeRequest;

use super::get::{both, key_range};
use super::{Command, KEY_VALUE, REMOVE};
use crate::call::Call;

/// Time to think again after a range was given without saying so.
const REGRET: Duration = Duration::from_secs(2);

pub(crate) fn command() -> Command {
    let use_line = "del [options] <key> [range_end]";
    Command::new(use_line, "Removes the specified key or range of keys [key, range_end)")
        .also(REMOVE)
        .group(KEY_VALUE)
        .flags([
            Flag::bool("prefix", "delete keys with matching prefix"),
            Flag::bool("prev-kv", "return deleted key-value pairs"),
            Flag::bool(
                "from-key",
                "delete keys that are greater than or equal to the given key using byte compare",
            ),
            Flag::bool("range", "delete range of keys"),
        ])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let request = request(&call.flags, &call.arguments)?;
    if is_unannounced_range(&call.flags, &call.arguments) {
        tokio::time::sleep(REGRET).await;
    }
    let (client, printer) = call.connect().await?;
    let response = client.delete(request).await.map_err(Failure::error)?;
    printer.print(&Response::Delete(&response))
}

/// Whether a range is given without the flag that says that it is meant.
pub(crate) fn is_unannounced_range(flags: &Values, arguments: &[Argument]) -> bool {
    arguments.len() > 1 && !flags.bool("range")
}

/// Makes the request, also for a line of a transaction. Warns of ranges that may not be meant.
pub(crate) fn request(
    flags: &Values,
    arguments: &[Argument],
) -> Result<DeleteRangeRequest, Failure> {
    if arguments.is_empty() || arguments.len() > 2 {
        let message = "del command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_arguments(message));
    }
    if flags.bool("prefix") && flags.bool("from-key") {
        return Err(Failure::bad_arguments(both("prefix", "from-key")));
    }
    let (key, range_end) = key_range(flags, arguments)?;
    if is_unannounced_range(flags, arguments) {
        let (first, end) = (quote(&arguments[0]), quote(&arguments[1]));
        eprintln!(
            "Warning: Keys between {first} and {end} will be deleted. Please interrupt the \
             command within next 2 seconds to cancel. You can provide `--range` flag to avoid the \
             delay."
        );
    }
    Ok(DeleteRangeRequest { key, range_end, prev_kv: flags.bool("prev-kv") })
}
