//! `get`: reads keys.
//!
//! etcd: `etcdctl/ctlv3/command/get_command.go`.

use bytes::Bytes;
use cli::exit::{ExitCode, Failure};
use cli::flag::{Argument, Flag, Values};
use cli::printer::{Format, Response};
use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::{Command, KEY_VALUE};
use crate::call::{Call, connect, is_serializable};
use crate::hint;
use crate::v2::elsewhere;

pub(crate) fn command() -> Command {
    Command::new("get [options] <key> [range_end]", "Gets the key or a range of keys")
        .also(&["range", "read"])
        .group(KEY_VALUE)
        .flags([
            Flag::text("consistency", "Linearizable(l) or Serializable(s)").or("l"),
            Flag::text("order", "Order of results; ASCEND or DESCEND (ASCEND by default)"),
            Flag::text("sort-by", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
            Flag::int("limit", "Maximum number of results"),
            Flag::bool("prefix", "Get keys with matching prefix"),
            Flag::bool(
                "from-key",
                "Get keys that are greater than or equal to the given key using byte compare",
            ),
            Flag::int("rev", "Specify the kv revision"),
            Flag::bool("keys-only", "Get only the keys"),
            Flag::bool("count-only", "Get only the count"),
            Flag::bool(
                "print-value-only",
                "Only write values when using the \"simple\" output format",
            ),
            Flag::int("min-create-rev", "Minimum create revision"),
            Flag::int("max-create-rev", "Maximum create revision"),
            Flag::int("min-mod-rev", "Minimum modification revision"),
            Flag::int("max-mod-rev", "Maximum modification revision"),
            Flag::bool("stream", "Use the RangeStream RPC"),
        ])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let request = request(&call.flags, &call.arguments)?;
    let globals = call.globals().await?;
    let (options, mut printer) = (globals.client.clone(), globals.printer);
    let client = connect(globals.client).await?;
    let (key, is_prefix) = (request.key.clone(), call.flags.bool("prefix"));
    let is_one_place = request.range_end.is_empty() || is_prefix;
    let response = if call.flags.bool("stream") {
        client.get_stream(request).await
    } else {
        client.get(request).await
    };
    let response = response.map_err(Failure::error)?;
    // The format is checked behind the call, as etcd does: a refused call is the first to be told.
    if call.flags.bool("count-only") && printer.format != Format::Fields {
        return Err(Failure::bad_arguments("--count-only is only for `--write-out=fields`"));
    }
    if call.flags.bool("print-value-only") {
        if printer.format != Format::Simple {
            let message = "print-value-only is only for `--write-out=simple`";
            return Err(Failure::bad_arguments(message));
        }
        printer.value_only = true;
    }
    let is_empty = response.kvs.is_empty() && response.count == 0;
    printer.print(&Response::Get(&response))?;
    if is_empty
        && is_one_place
        && hint::are_wanted()
        && let Some(text) = elsewhere::hint(&options, &key).await
    {
        eprintln!("{text}");
    }
    Ok(())
}

/// Makes the request, also for a line of a transaction.
pub(crate) fn request(flags: &Values, arguments: &[Argument]) -> Result<RangeRequest, Failure> {
    let (key, range_end) = range(flags, arguments)?;
    let (sort_order, sort_target) = sort(flags)?;
    let revision = |name: &str| flags.int(name).max(0);
    for bound in ["create", "mod"] {
        let (low, high) =
            (flags.int(&format!("min-{bound}-rev")), flags.int(&format!("max-{bound}-rev")));
        if high > 0 && low > high {
            let name = if bound == "create" { "Create" } else { "Mod" };
            let message = format!("getMin{name}Rev(={low}) > getMax{name}Rev(={high})");
            return Err(Failure::new(ExitCode::BadFeature, message));
        }
    }
    Ok(RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: revision("rev"),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable: is_serializable(flags.text("consistency"))?,
        keys_only: flags.bool("keys-only"),
        count_only: flags.bool("count-only"),
        min_mod_revision: revision("min-mod-rev"),
        max_mod_revision: revision("max-mod-rev"),
        min_create_revision: revision("min-create-rev"),
        max_create_revision: revision("max-create-rev"),
    })
}

/// The key and the end of the range, as they go on the wire.
fn range(flags: &Values, arguments: &[Argument]) -> Result<(Bytes, Bytes), Failure> {
    if arguments.is_empty() {
        let message = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_arguments(message));
    }
    if flags.bool("prefix") && flags.bool("from-key") {
        return Err(Failure::bad_arguments(both("prefix", "from-key")));
    }
    if flags.bool("keys-only") && flags.bool("count-only") {
        return Err(Failure::bad_arguments(both("keys-only", "count-only")));
    }
    is_serializable(flags.text("consistency"))?;
    key_range(flags, arguments)
}

/// The range that a key, an optional end and the flags `prefix` and `from-key` stand for.
pub(crate) fn key_range(flags: &Values, arguments: &[Argument]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let key = arguments[0].clone();
    if let Some(end) = arguments.get(1) {
        if prefix || from_key {
            let message = "too many arguments, only accept one argument when `--prefix` \
                or `--from-key` is set";
            return Err(Failure::bad_arguments(message));
        }
        return Ok((Bytes::from(key), Bytes::from(end.clone())));
    }
    // The wire has no empty key: the first key is a zero byte, and so is "no end".
    let zero = || Bytes::from_static(&[0]);
    Ok(match (prefix, from_key) {
        (true, _) | (_, true) if key.is_empty() => (zero(), zero()),
        (true, _) => {
            let end = client::prefix_end(&key);
            (Bytes::from(key), Bytes::from(end))
        }
        (_, true) => (Bytes::from(key), zero()),
        (false, false) => (Bytes::from(key), Bytes::new()),
    })
}

/// The complaint about two flags that exclude each other.
pub(crate) fn both(left: &str, right: &str) -> String {
    format!("`--{left}` and `--{right}` cannot be set at the same time, choose one")
}

fn sort(flags: &Values) -> Result<(SortOrder, SortTarget), Failure> {
    let bad = |what: &str, text: &str| {
        Failure::new(ExitCode::BadFeature, format!("bad sort {what} {text}"))
    };
    let order = flags.text("order");
    let sort_order = match order.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(bad("order", order)),
    };
    let target = flags.text("sort-by");
    let sort_target = match target.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad("target", target)),
    };
    // Keys come in this order anyway; asked for it, a member would fetch them all first.
    if sort_target == SortTarget::Key && sort_order == SortOrder::Ascend {
        return Ok((SortOrder::None, sort_target));
    }
    Ok((sort_order, sort_target))
}
