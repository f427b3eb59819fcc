//! `cluster-health` (CTL2-50 to CTL2-53).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/cluster_health.go.

use std::time::Duration;

use serde_json::Value;

use super::http::{Client, Question, Until};
use super::members::{Member, members};
use super::settings::Endpoint;
use super::watch::until_interrupted;
use super::{Call, Code, Done, Failure};
use crate::terminal::say;

/// Between two looks with `--forever`.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) async fn run(call: &Call) -> Done {
    if call.own.is_set("forever") { until_interrupted(look(call)).await } else { look(call).await }
}

async fn look(call: &Call) -> Done {
    let client = call.client().await?;
    call.show_endpoints(&client);
    let members = members(&client, Until::Forever).await.map_err(|error| {
        say!("cluster may be unhealthy: failed to list members");
        error.failure(Code::Server)
    })?;
    loop {
        let mut healthy = 0;
        for member in &members {
            healthy += usize::from(is_healthy(&client, member).await);
        }
        let is_well = healthy == members.len();
        match healthy {
            _ if is_well => say!("cluster is healthy"),
            0 => say!("cluster is unavailable"),
            _ => say!("cluster is degraded"),
        }
        if !call.own.is_set("forever") {
            let unwell = Failure { text: String::new(), code: Code::NotHealthy };
            return if is_well { Ok(()) } else { Err(unwell) };
        }
        say!("\nnext check after 10 second...\n");
        tokio::time::sleep(PAUSE).await;
    }
}

/// CTL2-51. The first URL that answers decides.
async fn is_healthy(client: &Client, member: &Member) -> bool {
    let Member { id, client_urls: urls, .. } = member;
    if urls.is_empty() {
        say!("member {id} is unreachable: no available published client urls");
        return false;
    }
    for url in urls {
        let is_well = match ask(client, url).await {
            Ok(is_well) => is_well,
            Err(error) => {
                say!("failed to check the health of member {id} on {url}: {error}");
                continue;
            }
        };
        let word = if is_well { "healthy" } else { "unhealthy" };
        say!("member {id} is {word}: got {word} result from {url}");
        return is_well;
    }
    say!("member {id} is unreachable: [{}] are all unreachable", urls.join(" "));
    false
}

/// What a member says at a URL of its own; the error is for people.
async fn ask(client: &Client, url: &str) -> Result<bool, String> {
    let failed = |error: &dyn std::fmt::Display| format!("Get \"{url}/health\": {error}");
    let endpoint = Endpoint::parse(url).map_err(|error| failed(&error.text.trim_end()))?;
    let question = Question { method: "GET", ..Question::default() };
    let target = format!("{}/health", endpoint.base());
    let answer = client.exchange(&endpoint, &target, &question).await;
    let answer = answer.map_err(|reason| failed(&reason))?;
    let said: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(said["health"] == "true" || said["health"] == true)
}
