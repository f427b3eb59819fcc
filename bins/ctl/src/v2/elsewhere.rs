//! Whether a key that the third generation does not have is there in the second.
//!
//! Asked only where no dialect was asked for, and only for a moment: whoever finds nothing is told
//! where it is, and nothing else may go wrong by it.

use std::time::Duration;

use base64::Engine as _;
use client::{Credentials, Options};
use serde_json::Value;
use tls::{ClientPolicy, Protocols, Settings};

use super::escape;
use super::http::{Client, Question};
use super::settings::{ClientSettings, Endpoint};

/// What the answer may take.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What to tell somebody who found nothing under `key`; `None` if there is nothing to tell.
pub(crate) async fn hint(options: &Options, key: &[u8]) -> Option<String> {
    let key = std::str::from_utf8(key).ok().filter(|key| key.bytes().all(|byte| 0x20 <= byte))?;
    let client = Client::new(settings(options)?);
    let path = escape::path(&escape::canonical(&format!("/v2/keys/{key}")));
    let question = Question { method: "GET", path, ..Question::default() };
    let answer = client.ask(&question, client.deadline()).await.ok()?;
    let body: Value = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200)?;
    let node = body.get("node")?;
    let has = "hint: the v3 API has nothing here, but the v2 API has";
    if node["dir"] != true {
        let key = node["key"].as_str()?;
        return Some(format!("{has} {key}: ask with ETCDCTL_API=2 etcdctl get {key}"));
    }
    // The root is always there, and empty ones tell nothing.
    node["nodes"].as_array().filter(|nodes| !nodes.is_empty())?;
    let key = node["key"].as_str().unwrap_or("/");
    Some(format!("{has} keys below {key}: ask with etcdctl ls {key}"))
}

/// The same members, asked in the other way.
fn settings(options: &Options) -> Option<ClientSettings> {
    let given = options.tls.clone().unwrap_or_default();
    let settings = Settings {
        cert_file: given.certificate,
        key_file: given.key,
        trusted_ca_file: given.authorities,
        server_name: given.server_name,
        skip_verification: given.skip_verification,
        ..Settings::default()
    };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let endpoints = options.endpoints.iter().map(|text| {
        let text = if text.contains("://") { text.clone() } else { format!("{scheme}://{text}") };
        Endpoint::parse(&text).ok()
    });
    let authorization = match &options.credentials {
        Some(Credentials::Password { user, password }) => {
            let user = format!("{user}:{password}");
            let encoded = base64::engine::general_purpose::STANDARD.encode(user);
            Some(format!("Basic {encoded}"))
        }
        Some(Credentials::Token(_)) | None => None,
    };
    Some(ClientSettings {
        endpoints: endpoints.collect::<Option<_>>()?,
        policy: ClientPolicy::new(&settings, Protocols::Unsaid).ok()?,
        authorization,
        timeout: TIME_MAX,
        total_timeout: TIME_MAX,
        is_debug: false,
    })
}
