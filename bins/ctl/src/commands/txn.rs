//! `txn`: reads a transaction from standard input and runs it.
//!
//! etcd: `etcdctl/ctlv3/command/txn_command.go`.

use std::io::BufRead;

use bytes::Bytes;
use cli::command::parse_line;
use cli::exit::{ExitCode, Failure};
use cli::flag::Flag;
use cli::number;
use cli::printer::Response;
use cli::quote::{quote, unquote_prefix};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::{Command, KEY_VALUE, del, get, put};
use crate::call::Call;
use crate::terminal::say;
use crate::words;

const LONG: &str = r#"Txn reads multiple etcd requests from standard input and applies them as a single atomic transaction.

A transaction consists of three components:
1) a list of conditions,
2) a list of requests to apply if all the conditions are true,
3) a list of requests to apply if any condition is false.

Example interactive stdin usage:

---
etcdctl txn -i
# compares:
mod("key1") > "0"

# success requests (get, put, delete):
put key1 "overwrote-key1"

# failure requests (get, put, delete):
put key1 "created-key1"
put key2 "some extra key"
---

Refer to https://github.com/etcd-io/etcd/blob/main/etcdctl/README.md#txn-options."#;

pub(crate) fn command() -> Command {
    Command::new("txn [options]", "Txn processes all the requests in one transaction")
        .long(LONG)
        .group(KEY_VALUE)
        .flags([Flag::bool("interactive", "Input transaction in interactive mode").short('i')])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("txn command does not accept argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let prompt = |text: &str| {
        if call.flags.bool("interactive") {
            say!("{text}");
        }
    };
    prompt("compares:");
    let compare = read_section(parse_compare)?;
    prompt("success requests (get, put, del):");
    let success = read_section(parse_operation)?;
    prompt("failure requests (get, put, del):");
    let failure = read_section(parse_operation)?;
    let request = TxnRequest { compare, success, failure };
    let response = client.txn(request).await.map_err(Failure::error)?;
    printer.print(&Response::Txn(&response))
}

fn invalid(message: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::InvalidInput, message)
}

/// Reads lines up to an empty one. A last line without its end does not count.
fn read_section<T>(parse: fn(&str) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    loop {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(invalid)?;
        if !line.ends_with('\n') {
            return Err(invalid("EOF"));
        }
        let line = line.trim();
        if line.is_empty() {
            return Ok(items);
        }
        items.push(parse(line)?);
    }
}

fn parse_operation(line: &str) -> Result<RequestOp, Failure> {
    let words = words::split(line).ok_or_else(|| invalid("invalid syntax"))?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    }
    let unknown = || invalid(format!("invalid txn request: {line}"));
    let (name, words) = (String::from_utf8_lossy(&words[0]), &words[1..]);
    let commands = [put::command(), get::command(), del::command()];
    let mut named = commands.iter().filter(|command| command.name().starts_with(&*name));
    let command = named.next().ok_or_else(unknown)?;
    let (flags, arguments) = parse_line(command, words).map_err(|_| unknown())?;
    let request = match command.name() {
        "put" => Request::RequestPut(put::request(&flags, &arguments)?),
        "get" => Request::RequestRange(get::request(&flags, &arguments)?),
        _ => Request::RequestDeleteRange(del::request(&flags, &arguments)?),
    };
    Ok(RequestOp { request: Some(request) })
}

/// Reads `target("key") operator "operand"`.
fn parse_compare(line: &str) -> Result<Compare, Failure> {
    let (target, rest) =
        line.split_once('(').ok_or_else(|| invalid(format!("malformed comparison: {line}")))?;
    let parts = CompareParts::read(rest);
    let CompareParts { key, operator, operand, complete } = &parts;
    if !complete {
        let got = format!("{target}({}) {operator} {}", quote(key), quote(operand));
        return Err(invalid(format!("malformed comparison: {line}; got {got}")));
    }
    let operand_text = String::from_utf8_lossy(operand);
    let number = |radix| {
        number::parse_int(&operand_text, radix)
            .map_err(|_| invalid(format!("invalid txn compare request: {line}")))
    };
    let (compare_target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(operand.clone()))),
        // Leases are written in hexadecimal everywhere else.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => {
            let reason = format!("(unknown target {target})");
            return Err(invalid(format!("malformed comparison: {line} {reason}")));
        }
    };
    let result = match operator.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(invalid(format!("malformed comparison: {line}"))),
    };
    Ok(Compare {
        result: result.into(),
        target: compare_target.into(),
        key: Bytes::from(key.clone()),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// What stands behind the opening parenthesis, as far as it can be read.
#[derive(Debug, Default)]
struct CompareParts {
    key: Vec<u8>,
    operator: String,
    operand: Vec<u8>,
    complete: bool,
}

impl CompareParts {
    fn read(text: &str) -> Self {
        let mut parts = Self::default();
        parts.complete = parts.read_all(text.trim_start()).is_some();
        parts
    }

    fn read_all(&mut self, text: &str) -> Option<()> {
        let (key, rest) = unquote_prefix(text)?;
        self.key = key;
        let rest = rest.strip_prefix(')')?.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        rest[..end].clone_into(&mut self.operator);
        let (operand, _) = unquote_prefix(rest[end..].trim_start())?;
        self.operand = operand;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        let failure = parse_compare(line).unwrap_err();
        assert_eq!(failure.code, ExitCode::InvalidInput);
        failure.message.unwrap()
    }

    /// CTL3-41.
    #[test]
    fn compares_read_target_operator_and_operand() {
        let compare = parse_compare(r#"mod("key1") > "0""#).unwrap();
        assert_eq!(compare.target(), CompareTarget::Mod);
        assert_eq!(compare.result(), CompareResult::Greater);
        assert_eq!(compare.key, "key1");
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(0)));
        let lease = parse_compare(r#"lease("k") = "2be""#).unwrap();
        assert_eq!(lease.target_union, Some(TargetUnion::Lease(0x2be)));
    }

    /// CTL3-41.
    #[test]
    fn malformed_compares_say_what_was_understood() {
        assert_eq!(error("bad"), "malformed comparison: bad");
        assert_eq!(
            error(r#"val("k") = v"#),
            r#"malformed comparison: val("k") = v; got val("k") = """#
        );
        assert_eq!(
            error(r#"foo("k") = "v""#),
            r#"malformed comparison: foo("k") = "v" (unknown target foo)"#
        );
        assert_eq!(error(r#"ver("k") = "v""#), r#"invalid txn compare request: ver("k") = "v""#);
    }
}
