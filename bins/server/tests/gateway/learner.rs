//! What a learner answers: every path of the gateway, so every call, at one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use retcd_conformance::cluster::{Cluster, ClusterOptions, PATIENCE};
use retcd_conformance::{ask, real_etcd};
use serde_json::Value;

use super::OURS;

/// Paths that a learner answers as a member does.
const ANSWERED: [&str; 2] = ["/v3/maintenance/status", "/v3/maintenance/snapshot"];

/// G-014: a learner answers its status, serializable ranges and snapshots, and refuses everything
/// else, calls with one message as well as streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_refuses_all_but_three_calls() -> anyhow::Result<()> {
    let openapi = include_str!("../../../../docs/api/openapi.json");
    let openapi: Value = serde_json::from_str(openapi)?;
    let paths: Vec<_> = openapi["paths"].as_object().into_iter().flatten().collect();
    ensure!(paths.len() > 40, "{}", paths.len());
    let real = real_etcd("3.7").map(|folder| folder.join("etcd"));
    for program in [PathBuf::from(OURS)].into_iter().chain(real) {
        let mut cluster = Cluster::start(&[program.as_path()], ClusterOptions::default()).await?;
        let learner = cluster.add(&program, true).await?;
        let endpoint = cluster.member(learner).direct_endpoint();
        let address = endpoint.trim_start_matches("http://").parse()?;
        let local = r#"{"key":"Zm9v","serializable":true}"#;
        let began = Instant::now();
        // It serves once it has heard of itself.
        while !ask(address, "POST", "/v3/kv/range", local).is_ok_and(|it| it.status == 200) {
            ensure!(began.elapsed() < PATIENCE, "{}", cluster.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (path, _) in &paths {
            // A stream begins with its first message.
            let body = if path.as_str() == "/v3/watch" { r#"{"create_request":{}}"# } else { "{}" };
            let answer = ask(address, "POST", path, body)?;
            if ANSWERED.contains(&path.as_str()) {
                ensure!(answer.status == 200, "{path}: {answer:?}");
                continue;
            }
            let mut told: Value = serde_json::from_str(answer.body.trim_end())?;
            if let Some(error) = told.get_mut("error") {
                told = error.take();
            }
            let refusal = (answer.status, &told["code"], &told["message"]);
            let text = Value::from("etcdserver: rpc not supported for learner");
            ensure!(refusal == (400, &Value::from(9), &text), "{path}: {refusal:?}");
        }
        ensure!(program != Path::new(OURS) || paths.len() == 51);
    }
    Ok(())
}
