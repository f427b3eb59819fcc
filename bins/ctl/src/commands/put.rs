//! `put`: writes one key.
//!
//! etcd: `etcdctl/ctlv3/command/put_command.go`.

use std::io::Read;

use bytes::Bytes;
use cli::exit::Failure;
use cli::flag::{Argument, Flag, Values};
use cli::number;
use cli::printer::Response;
use proto::etcdserverpb::PutRequest;

use super::{Command, KEY_VALUE};
use crate::call::Call;

const LONG: &str = "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
";

const WRONG_ARGUMENTS: &str = "put command needs 1 argument and input from stdin or 2 arguments";

pub(crate) fn command() -> Command {
    let use_line = "put [options] <key> <value> (<value> can also be given from stdin)";
    Command::new(use_line, "Puts the given key into the store")
        .also(&["write", "create"])
        .long(LONG)
        .group(KEY_VALUE)
        .flags([
            Flag::text("lease", "lease ID (in hexadecimal) to attach to the key").or("0"),
            Flag::bool("prev-kv", "return the previous key-value pair before modification"),
            Flag::bool("ignore-value", "updates the key using its current value"),
            Flag::bool("ignore-lease", "updates the key using its current lease"),
        ])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let request = request(&call.flags, &call.arguments)?;
    let (client, printer) = call.connect().await?;
    let response = client.put(request).await.map_err(Failure::error)?;
    printer.print(&Response::Put(&response))
}

/// Makes the request, also for a line of a transaction. Reads standard input for a missing value.
pub(crate) fn request(flags: &Values, arguments: &[Argument]) -> Result<PutRequest, Failure> {
    let Some((key, rest)) = arguments.split_first() else {
        return Err(Failure::bad_arguments(WRONG_ARGUMENTS));
    };
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && !rest.is_empty() {
        let message = "put command needs only 1 argument when 'ignore-value' is set";
        return Err(Failure::bad_arguments(message));
    }
    let value = match rest.first() {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => value_from_stdin()?,
    };
    let lease = number::parse_int(flags.text("lease"), 16).map_err(|error| {
        Failure::bad_arguments(format!("bad lease ID ({error}), expecting ID in Hex"))
    })?;
    Ok(PutRequest {
        key: Bytes::from(key.clone()),
        value: Bytes::from(value),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}

fn value_from_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut value);
    if read.is_err() || value.is_empty() {
        return Err(Failure::bad_arguments(WRONG_ARGUMENTS));
    }
    Ok(value)
}
