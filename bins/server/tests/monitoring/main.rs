//! What the server tells of itself: the dashboard and the alert rules of this repository ask for what
//! is there, and what is there grows as etcd's does.

mod clients;
mod page;
mod steps;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use promql_parser::parser::{self, Expr};
use retcd_conformance::cluster::{Cluster, ClusterOptions};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

const ALERTS: &str = include_str!("../../../../monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../../monitoring/dashboard.json");

/// MET-75.
const ALERT_NAMES: [&str; 13] = [
    "etcdMembersDown",
    "etcdInsufficientMembers",
    "etcdNoLeader",
    "etcdHighNumberOfLeaderChanges",
    "etcdHighNumberOfFailedGRPCRequests",
    "etcdGRPCRequestsSlow",
    "etcdMemberCommunicationSlow",
    "etcdHighNumberOfFailedProposals",
    "etcdHighFsyncDurations",
    "etcdHighCommitDurations",
    "etcdDatabaseQuotaLowSpace",
    "etcdExcessiveDatabaseGrowth",
    "etcdDatabaseHighFragmentationRatio",
];

/// Told only while there is something to tell.
const SILENT_WHEN_WELL: [&str; 2] =
    ["etcd_debugging_server_alarms", "etcd_network_peer_sent_failures_total"];

/// The expressions of the rules: what stands behind `expr:`, on the line or indented below it.
fn expressions_of_rules() -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = ALERTS.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("expr:") else { continue };
        let mut text = rest.trim().to_owned();
        if text == "|" {
            let depth = line.len() - line.trim_start().len();
            text.clear();
            while let Some(more) = lines.next_if(|more| {
                more.trim().is_empty() || depth < more.len() - more.trim_start().len()
            }) {
                text.push_str(more);
                text.push('\n');
            }
        }
        found.push(text);
    }
    found
}

fn expressions_of_dashboard() -> anyhow::Result<Vec<String>> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let texts = targets.map(|target| {
        let text = target["expr"].as_str().context("a target has an expression")?;
        // What Grafana puts in.
        Ok(text.replace("$__rate_interval", "5m"))
    });
    texts.collect()
}

/// The names of the series that an expression asks for.
fn names(expression: &Expr, found: &mut BTreeSet<String>) {
    let selected = match expression {
        Expr::Aggregate(inner) => return names(&inner.expr, found),
        Expr::Unary(inner) => return names(&inner.expr, found),
        Expr::Paren(inner) => return names(&inner.expr, found),
        Expr::Subquery(inner) => return names(&inner.expr, found),
        Expr::Binary(both) => {
            names(&both.lhs, found);
            return names(&both.rhs, found);
        }
        Expr::Call(call) => {
            return call.args.args.iter().for_each(|inner| names(inner, found));
        }
        Expr::VectorSelector(selector) => selector.name.clone(),
        Expr::MatrixSelector(selector) => selector.vs.name.clone(),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => None,
    };
    found.extend(selected);
}

/// The names of the metrics that a server tells.
async fn told(endpoint: &str) -> anyhow::Result<BTreeSet<String>> {
    let address = endpoint.strip_prefix("http://").context("no TLS here")?.parse()?;
    let page =
        tokio::task::spawn_blocking(move || retcd_conformance::ask(address, "GET", "/metrics", ""));
    let body = page.await??.body;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split(['{', ' ']).next());
    Ok(names.map(str::to_owned).collect())
}

/// MET-75, issue 6.6: every expression can be parsed, and whatever it asks for is told by a member
/// of a cluster that runs with `--metrics=extensive`.
#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_ask_for_what_the_server_tells() -> anyhow::Result<()> {
    let mut wanted = BTreeSet::new();
    for text in expressions_of_rules().into_iter().chain(expressions_of_dashboard()?) {
        let parsed = parser::parse(&text);
        let parsed = parsed.map_err(|what| anyhow::anyhow!("{text}: {what}"))?;
        names(&parsed, &mut wanted);
    }
    for name in ALERT_NAMES {
        assert!(ALERTS.contains(&format!("alert: {name}\n")), "{name} is missing");
    }
    assert!(40 < wanted.len(), "only {} names were found", wanted.len());
    // Prometheus itself says who answers.
    wanted.remove("up");

    let flags = vec!["--metrics=extensive".to_owned()];
    let options = ClusterOptions { flags, ..ClusterOptions::default() };
    let ours = Path::new(OURS);
    let cluster = Cluster::start(&[ours, ours], options).await?;
    let endpoints = cluster.endpoints();
    let mut kv = proto::etcdserverpb::kv_client::KvClient::connect(endpoints[0].clone()).await?;
    let put = proto::etcdserverpb::PutRequest {
        key: "a".into(),
        value: "b".into(),
        ..Default::default()
    };
    kv.put(put).await?;
    let mut all = BTreeSet::new();
    for endpoint in &endpoints {
        all.extend(told(endpoint).await?);
    }
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|name| !all.contains(*name) && !SILENT_WHEN_WELL.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "nobody tells {missing:?}");
    Ok(())
}
