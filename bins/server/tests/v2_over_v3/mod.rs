//! `--experimental-enable-v2v3` (V2-180): the keys of the second generation in the third's store.

use anyhow::{Context as _, ensure};
use retcd_conformance::Keys;

use crate::v2_support::{V2, start};

const FLAG: &str = "--experimental-enable-v2v3=/__v2";

/// What is asked, the status, and what the answer has in it, in this order; `@N` stands for the
/// index that the store had at first plus N.
const STEPS: &[(&str, u16, &[&str])] = &[
    ("GET /", 200, &["{\"action\":\"get\",\"node\":{\"dir\":true}}"]),
    (
        "GET /a",
        404,
        &["{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/a\",\"index\":@0}"],
    ),
    (
        "PUT /a value=1",
        201,
        &[
            "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"1\",\"modifiedIndex\":@1,\"createdIndex\":@1}}",
        ],
    ),
    (
        "PUT /a value=2",
        200,
        &[
            "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"2\",\"modifiedIndex\":@2,\"createdIndex\":@1},",
            "\"prevNode\":{\"key\":\"/a\",\"value\":\"1\",\"modifiedIndex\":@1,\"createdIndex\":@1}}",
        ],
    ),
    (
        "PUT /a value=3&prevValue=9",
        412,
        &["\"errorCode\":101", "\"cause\":\"[9 != 2]\"", "\"index\":@2"],
    ),
    (
        "PUT /a value=3&prevIndex=@2",
        200,
        &["\"compareAndSwap\"", "\"value\":\"3\",\"modifiedIndex\":@3,"],
    ),
    (
        "PUT /a value=4&prevExist=false",
        412,
        &["\"errorCode\":105", "\"cause\":\"/a\"", "\"index\":@3"],
    ),
    (
        "PUT /a value=4&prevExist=true",
        200,
        &["\"update\"", "\"value\":\"4\",\"modifiedIndex\":@4,"],
    ),
    ("PUT /none value=4&prevExist=true", 404, &["\"errorCode\":100"]),
    ("PUT /d/e/f value=x", 201, &["\"key\":\"/d/e/f\"", "\"modifiedIndex\":@5,"]),
    ("PUT /d/e value=x", 403, &["\"errorCode\":102", "\"cause\":\"/d/e\""]),
    ("PUT /a/b value=x", 400, &["\"errorCode\":104", "\"cause\":\"/a\""]),
    ("GET /a/b", 400, &["\"errorCode\":104", "\"cause\":\"/a\""]),
    ("PUT /d/_h value=x", 201, &["\"key\":\"/d/_h\""]),
    ("GET /d/_h", 200, &["\"value\":\"x\""]),
    // A neighbour whose name begins alike is no child.
    ("PUT /dd/e value=x", 201, &["\"modifiedIndex\":@7,"]),
    (
        "GET /d?recursive=true&sorted=true",
        200,
        &[
            "{\"action\":\"get\",\"node\":{\"key\":\"/d\",\"dir\":true,\"nodes\":[{\"key\":\"/d/e\",\"dir\":true,",
            "\"nodes\":[{\"key\":\"/d/e/f\",\"value\":\"x\",\"modifiedIndex\":@5,\"createdIndex\":@5}],",
            "\"modifiedIndex\":@5,\"createdIndex\":@5}],\"modifiedIndex\":@5,\"createdIndex\":@5}}",
        ],
    ),
    (
        "GET /?quorum=true",
        200,
        &["\"key\":\"/a\"", "\"key\":\"/d\",\"dir\":true", "\"key\":\"/dd\""],
    ),
    ("POST /queue value=one", 201, &["\"create\"", "\"modifiedIndex\":@8,"]),
    ("PUT /empty dir=true", 201, &["\"key\":\"/empty\",\"dir\":true"]),
    ("PUT /empty dir=true", 403, &["\"errorCode\":102"]),
    ("DELETE /empty", 403, &["\"errorCode\":102"]),
    (
        "DELETE /empty?dir=true",
        200,
        &["\"delete\"", "\"dir\":true,\"modifiedIndex\":@10,\"createdIndex\":@9}"],
    ),
    ("DELETE /d?dir=true", 403, &["\"errorCode\":108"]),
    (
        "DELETE /d?recursive=true",
        200,
        &["\"delete\"", "\"prevNode\":{\"key\":\"/d\",\"dir\":true,"],
    ),
    ("GET /d", 404, &["\"errorCode\":100"]),
    ("GET /dd/e", 200, &["\"value\":\"x\""]),
    ("DELETE /a?prevValue=0", 412, &["\"errorCode\":101", "[0 != 4]"]),
    (
        "DELETE /a?prevValue=4",
        200,
        &["\"compareAndDelete\"", "\"prevNode\":{\"key\":\"/a\",\"value\":\"4\","],
    ),
    ("DELETE /a", 404, &["\"errorCode\":100"]),
    ("DELETE /dd/e", 200, &["\"delete\"", "\"prevNode\":{\"key\":\"/dd/e\",\"value\":\"x\","]),
    ("DELETE /?recursive=true", 400, &["\"errorCode\":107"]),
    ("PUT /t value=x&ttl=5", 500, &["\"errorCode\":300", "TTLs are unsupported"]),
];

fn filled(text: &str, base: u64) -> String {
    let mut text = text.to_owned();
    for number in (0..20).rev() {
        text = text.replace(&format!("@{number}"), &(base + number).to_string());
    }
    text
}

fn index(v2: &V2) -> anyhow::Result<u64> {
    Ok(v2.get("/keys/")?.header("x-etcd-index").parse()?)
}

/// V2-180.
#[test]
fn keys_live_in_the_store_of_the_third_generation() -> anyhow::Result<()> {
    let (server, _folder) = start(&[FLAG])?;
    let v2 = V2::of(&server)?;
    let base = index(&v2)?;
    for (step, status, parts) in STEPS {
        let step = filled(step, base);
        let answer = v2.step(&step)?;
        ensure!(answer.status == *status, "{step}: {answer:?}");
        let mut rest = answer.body.as_str();
        for part in *parts {
            let part = filled(part, base);
            let at =
                rest.find(&part).with_context(|| format!("{step}: no {part} in {answer:?}"))?;
            rest = &rest[at + part.len()..];
        }
    }
    // Clients of the third generation see them.
    v2.step("PUT /seen value=hello")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let keys = Keys::of(&server.endpoint())?;
    let row = runtime.block_on(keys.get("/__v2/002/k//1/seen"))?;
    ensure!(row.as_deref() == Some(&b"hello"[..]), "{row:?}");
    Ok(())
}

/// V2-180, with V2-070 to V2-077.
#[test]
fn changes_are_waited_for() -> anyhow::Result<()> {
    let (server, _folder) = start(&[FLAG])?;
    let v2 = V2::of(&server)?;
    let waits = [
        v2.begin("/keys/w?wait=true")?,
        v2.begin("/keys/?wait=true&recursive=true")?,
        v2.begin("/keys/w/deep/key?wait=true")?,
    ];
    let begun = index(&v2)?;
    let set = v2.step("PUT /_hidden value=0")?;
    ensure!(set.status == 201, "{set:?}");
    let made = v2.step("PUT /w/deep/other value=1")?;
    let [direct, recursive, below] = waits;
    ensure!(recursive.finish()?.body == made.body, "{made:?}");
    let gone = v2.step("DELETE /w?recursive=true")?;
    ensure!(below.finish()?.body == gone.body, "{gone:?}");
    ensure!(direct.finish()?.body == gone.body, "{gone:?}");
    // What was is told again, from the index that is asked for.
    let past = v2.get(&format!("/keys/w?wait=true&recursive=true&waitIndex={}", begun + 1))?;
    ensure!(past.body == made.body, "{past:?}");
    let next = v2.get(&format!("/keys/w?wait=true&recursive=true&waitIndex={}", begun + 3))?;
    ensure!(next.body == gone.body, "{next:?}");
    Ok(())
}
