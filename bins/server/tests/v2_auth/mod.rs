//! Users, roles and what they may (features 1.7), from outside; and the same story told to etcd 3.4.

use anyhow::ensure;
use retcd_conformance::{Server, ServerOptions};

use crate::v2_support::{V2, await_index, start};

/// Who asks: names and passwords as they stand in the header.
const NOBODY: Option<&str> = None;
const EMPTY: Option<&str> = Some("");
const NO_BASIC: Option<&str> = Some("Bearer x");
const ROOT: Option<&str> = Some("Basic cm9vdDpycA==");
const ALICE: Option<&str> = Some("Basic YWxpY2U6YXA=");
const ALICE_WRONG: Option<&str> = Some("Basic YWxpY2U6d3Jvbmc=");
const STRANGER: Option<&str> = Some("Basic bm9ib2R5Ong=");

/// Who, method, path, body; status and how the answer begins.
type Step = (Option<&'static str>, &'static str, &'static str, &'static str, u16, &'static str);

const DENIED: &str = "{\"errorCode\":110,\"message\":\"The request requires user authentication\",\
                      \"cause\":\"Insufficient credentials\",\"index\":0}\n";
const NOT_ROOT: &str = "{\"message\":\"Insufficient credentials\"}";
const INVALID: &str = "{\"message\":\"Invalid JSON in request body.\"}";

/// V2-150, V2-155 to V2-163: everybody may do everything as long as it is off.
const BEFORE: &[Step] = &[
    (NOBODY, "GET", "/auth/enable", "", 200, "{\"enabled\":false}\n"),
    (NOBODY, "GET", "/auth/users", "", 200, "{\"users\":null}\n"),
    (NOBODY, "DELETE", "/auth/enable", "", 409, "{\"message\":\"auth: already disabled\"}"),
    (
        NOBODY,
        "PUT",
        "/auth/enable",
        "",
        409,
        "{\"message\":\"auth: No root user available, please create one\"}",
    ),
    (NOBODY, "PUT", "/auth/users/alice", "{", 400, INVALID),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{}",
        400,
        "{\"message\":\"User JSON name does not match the name in the URL\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\"}",
        400,
        "{\"message\":\"auth: Cannot create user alice with an empty password\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"USER\":\"alice\",\"Password\":\"ap\",\"grant\":null}",
        201,
        "{\"user\":\"alice\",\"roles\":null}\n",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"password\":\"ap\",\"roles\":[\"x\"]}",
        409,
        "{\"message\":\"auth: User alice already exists.\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"roles\":[\"a\"],\"grant\":[\"a\"]}",
        400,
        "{\"message\":\"User JSON contains both roles and grant/revoke\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"grant\":[\"app\",\"gone\"]}",
        200,
        "{\"user\":\"alice\",\"roles\":[\"app\",\"gone\"]}\n",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"grant\":[\"app\"]}",
        409,
        "{\"message\":\"auth: Granting duplicate role app for user alice\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"grant\":[\"z\"],\"revoke\":[\"z\"]}",
        400,
        "{\"message\":\"auth: User not updated. Use grant/revoke/password to update the user.\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"revoke\":[\"nope\"]}",
        409,
        "{\"message\":\"auth: Revoking ungranted role nope for user alice\"}",
    ),
    (
        NOBODY,
        "GET",
        "/auth/users/alice",
        "",
        404,
        "{\"message\":\"auth: Role app does not exist.\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/roles/app",
        "{\"role\":\"app\"}",
        201,
        "{\"role\":\"app\",\"permissions\":{\"kv\":{\"read\":null,\"write\":null}}}\n",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/roles/app",
        "{\"role\":\"app\"}",
        409,
        "{\"message\":\"auth: Role app already exists.\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/roles/app",
        "{\"role\":\"app\",\"grant\":{\"kv\":{\"read\":[\"/b/*\",\"/a\"],\"write\":[\"/b/*\"]}}}",
        200,
        "{\"role\":\"app\",\"permissions\":{\"kv\":{\"read\":[\"/a\",\"/b/*\"],\"write\":[\"/b/*\"]}}}\n",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/roles/app",
        "{\"role\":\"app\",\"grant\":{\"kv\":{\"read\":[\"/a\"]}}}",
        409,
        "{\"message\":\"auth: Granting duplicate read permission /a\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/roles/app",
        "{\"role\":\"app\",\"revoke\":{\"kv\":{\"read\":[\"/nope\"]}}}",
        400,
        "{\"message\":\"auth: Role not updated. Use grant/revoke to update the role.\"}",
    ),
    (
        NOBODY,
        "PUT",
        "/auth/roles/root",
        "{\"role\":\"root\"}",
        403,
        "{\"message\":\"auth: Cannot modify role root: is root role.\"}",
    ),
    (NOBODY, "GET", "/auth/users/a/b", "", 400, "{\"message\":\"Invalid path\"}"),
    (
        NOBODY,
        "DELETE",
        "/auth/users/nob",
        "",
        404,
        "{\"message\":\"auth: User nob does not exist\"}",
    ),
    (
        NOBODY,
        "DELETE",
        "/auth/roles/nob",
        "",
        404,
        "{\"message\":\"auth: Role nob doesn't exist.\"}",
    ),
    (NOBODY, "PUT", "/auth/roles/gone", "{\"role\":\"gone\"}", 201, "{\"role\":\"gone\","),
    (NOBODY, "DELETE", "/auth/roles/gone", "", 200, ""),
    (
        NOBODY,
        "PUT",
        "/auth/users/root",
        "{\"user\":\"root\",\"password\":\"rp\"}",
        201,
        "{\"user\":\"root\",\"roles\":[\"root\"]}\n",
    ),
    (NOBODY, "PUT", "/keys/a", "value=1", 201, "{\"action\":\"set\""),
    (NOBODY, "PUT", "/keys/b/x", "value=1", 201, "{\"action\":\"set\""),
    (NOBODY, "PUT", "/keys/c", "value=1", 201, "{\"action\":\"set\""),
    // V2-151, V2-153: guests may do everything with keys until that is taken from them.
    (NOBODY, "PUT", "/auth/enable", "", 200, ""),
    (NOBODY, "GET", "/auth/enable", "", 200, "{\"enabled\":true}\n"),
    (NOBODY, "PUT", "/auth/enable", "", 401, NOT_ROOT),
    (ROOT, "PUT", "/auth/enable", "", 409, "{\"message\":\"auth: already enabled\"}"),
    (
        ROOT,
        "GET",
        "/auth/roles/guest",
        "",
        200,
        "{\"role\":\"guest\",\"permissions\":{\"kv\":{\"read\":[\"/*\"],\"write\":[\"/*\"]}}}\n",
    ),
    (NOBODY, "PUT", "/keys/c", "value=2", 200, "{\"action\":\"set\""),
    (EMPTY, "GET", "/keys/c", "", 200, "{\"action\":\"get\""),
    (NOBODY, "GET", "/keys/?recursive=true", "", 200, "{\"action\":\"get\""),
    // V2-165: who is named counts as nobody else.
    (ALICE, "GET", "/keys/c", "", 401, DENIED),
    (ALICE_WRONG, "GET", "/keys/c", "", 401, DENIED),
    (STRANGER, "GET", "/keys/c", "", 401, DENIED),
    (NO_BASIC, "GET", "/keys/c", "", 401, DENIED),
];

/// V2-164 to V2-168, with guests who may only read `/a`.
const ENFORCED: &[Step] = &[
    (
        ROOT,
        "PUT",
        "/auth/roles/guest",
        "{\"role\":\"guest\",\"revoke\":{\"kv\":{\"read\":[\"/*\"],\"write\":[\"/*\"]}},\
         \"grant\":{\"kv\":{\"read\":[\"/a\"]}}}",
        200,
        "{\"role\":\"guest\",\"permissions\":{\"kv\":{\"read\":[\"/a\"],\"write\":[]}}}\n",
    ),
    (NOBODY, "GET", "/keys/a", "", 200, "{\"action\":\"get\""),
    (NOBODY, "GET", "/keys/c", "", 401, DENIED),
    (NOBODY, "PUT", "/keys/a", "value=2", 401, DENIED),
    (NOBODY, "POST", "/keys/b", "value=2", 401, DENIED),
    (NOBODY, "DELETE", "/keys/a", "", 401, DENIED),
    (NOBODY, "GET", "/keys/c?wait=true", "", 401, DENIED),
    (NOBODY, "PUT", "/keys/c?ttl=x", "", 400, "{\"errorCode\":202,"),
    (ALICE, "GET", "/keys/a", "", 200, "{\"action\":\"get\""),
    (ALICE, "GET", "/keys/b/x", "", 200, "{\"action\":\"get\""),
    (ALICE, "GET", "/keys/b", "", 401, DENIED),
    (ALICE, "GET", "/keys/b/?recursive=true", "", 200, "{\"action\":\"get\""),
    (ALICE, "GET", "/keys/?recursive=true", "", 401, DENIED),
    (ALICE, "GET", "/keys/a?recursive=true", "", 401, DENIED),
    (ALICE, "PUT", "/keys/b/y", "value=2", 201, "{\"action\":\"set\""),
    (ALICE, "PUT", "/keys/a", "value=2", 401, DENIED),
    (ALICE, "DELETE", "/keys/b/y", "", 200, "{\"action\":\"delete\""),
    (ALICE, "DELETE", "/keys/b?recursive=true", "", 401, DENIED),
    (ALICE_WRONG, "GET", "/keys/a", "", 401, DENIED),
    (ROOT, "GET", "/keys/?recursive=true&sorted=true", "", 200, "{\"action\":\"get\""),
    (ROOT, "PUT", "/keys/c", "value=3", 200, "{\"action\":\"set\""),
    (NOBODY, "GET", "/members", "", 200, "{\"members\":["),
    (NOBODY, "GET", "/machines", "", 200, "http://"),
    (NOBODY, "GET", "/stats/self", "", 200, "{\"name\":"),
    (NOBODY, "GET", "/stats/store", "", 200, "{\"getsSuccess\":"),
    (NOBODY, "POST", "/members", "{}", 401, NOT_ROOT),
    (ALICE, "DELETE", "/members/abc", "", 401, NOT_ROOT),
    (ROOT, "DELETE", "/members/abc", "", 404, "{\"message\":\"No such member: abc\"}"),
    (NOBODY, "GET", "/auth/users", "", 401, NOT_ROOT),
    (ALICE, "GET", "/auth/users/alice", "", 401, NOT_ROOT),
    (ALICE, "DELETE", "/auth/enable", "", 401, NOT_ROOT),
    (
        ROOT,
        "GET",
        "/auth/users",
        "",
        200,
        "{\"users\":[{\"user\":\"alice\",\"roles\":[{\"role\":\"app\",",
    ),
    (
        ROOT,
        "DELETE",
        "/auth/users/root",
        "",
        403,
        "{\"message\":\"auth: Cannot delete root user while auth is enabled.\"}",
    ),
    (
        ROOT,
        "PUT",
        "/auth/users/alice",
        "{\"user\":\"alice\",\"password\":\"new\"}",
        200,
        "{\"user\":\"alice\",\"roles\":[\"app\",\"gone\"]}\n",
    ),
    (ALICE, "GET", "/keys/a", "", 401, DENIED),
    (Some("Basic YWxpY2U6bmV3"), "GET", "/keys/a", "", 200, "{\"action\":\"get\""),
    (ROOT, "DELETE", "/auth/roles/guest", "", 200, ""),
    (NOBODY, "GET", "/keys/a", "", 401, DENIED),
    (ROOT, "DELETE", "/auth/enable", "", 200, ""),
    (NOBODY, "PUT", "/keys/a", "value=9", 200, "{\"action\":\"set\""),
    (NOBODY, "DELETE", "/auth/users/root", "", 200, ""),
];

fn tell(v2: &V2, steps: &[Step]) -> anyhow::Result<()> {
    for (number, &(who, method, path, body, status, begin)) in steps.iter().enumerate() {
        let step = format!("step {number}: {who:?} {method} {path} {body}");
        let answer = v2.ask_as(who, method, path, body)?;
        ensure!(answer.status == status, "{step}: {answer:?}");
        ensure!(answer.body.starts_with(begin), "{step}: {answer:?}");
        ensure!(!begin.is_empty() || answer.body.is_empty(), "{step}: {answer:?}");
    }
    Ok(())
}

/// V2-013: changes of users and roles count in the index that is seen of keys.
fn tell_all(v2: &V2, between: impl FnOnce() -> anyhow::Result<V2>) -> anyhow::Result<()> {
    tell(v2, BEFORE)?;
    let v2 = between()?;
    let index =
        |v2: &V2| Ok::<_, anyhow::Error>(v2.get("/keys/")?.header("x-etcd-index").to_owned());
    let before = index(&v2)?;
    tell(&v2, ENFORCED)?;
    let after = index(&v2)?;
    ensure!((before.as_str(), after.as_str()) == INDEXES, "{before} {after}");
    Ok(())
}

/// The index before and after [`ENFORCED`].
const INDEXES: (&str, &str) = ("20", "29");

/// V2-013, V2-101, V2-150 to V2-170: on ours, also across a restart.
#[test]
fn users_and_roles_count() -> anyhow::Result<()> {
    let (mut server, _folder) = start(&[])?;
    tell_all(&V2::of(&server)?, || {
        server.kill()?;
        server.restart(std::path::Path::new(crate::v2_support::OURS))?;
        V2::of(&server)
    })
}

/// The control: the story is etcd's own.
#[test]
fn users_and_roles_count_as_in_etcd_3_4() -> anyhow::Result<()> {
    let Some(real) = retcd_conformance::real_etcd("3.4") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let options = ServerOptions { flags: vec!["--enable-v2".to_owned()] };
    let server = Server::start(&real.join("etcd"), folder.path(), options)?;
    let v2 = V2::of(&server)?;
    await_index(&v2, "3")?;
    tell_all(&v2, || V2::of(&server))
}
