//! Finding members in DNS.
//!
//! Source: etcd server/etcdmain/util.go (`discoverEndpoints`), client/pkg/transport.

use std::path::PathBuf;
use std::time::Duration;

use client::srv::{Dns, NoEndpoints, client_targets};
use tls::{ClientPolicy, Protocols};
use tokio::net::TcpStream;

use crate::settings::Discovery;

/// An endpoint has this long to show its certificate.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// The URLs that count; none if none shows a certificate for the domain.
pub(crate) async fn find(
    discovery: &Discovery,
    authorities: Option<PathBuf>,
) -> Result<Vec<String>, NoEndpoints> {
    let Discovery { domain, service_name, insecure } = discovery;
    let found = client_targets(&Dns::of_system(), domain, service_name).await?;
    let found: Vec<_> = found
        .into_iter()
        .map(|(scheme, target)| (scheme, format!("{}:{}", target.host, target.port)))
        .collect();
    let urls: Vec<_> = found.iter().map(|(scheme, place)| format!("{scheme}://{place}")).collect();
    let all = urls.join(",");
    tracing::info!("srv-server" = domain, endpoints = all, "discovered cluster from SRV");
    if *insecure {
        return Ok(urls);
    }
    tracing::info!("srv-server" = domain, endpoints = all, "validating discovered SRV endpoints");
    let settings = tls::Settings {
        trusted_ca_file: authorities,
        server_name: Some(domain.clone()),
        ..tls::Settings::default()
    };
    let (mut valid, mut failures) = (Vec::new(), Vec::new());
    let policy = ClientPolicy::new(&settings, Protocols::Unsaid);
    for ((scheme, place), url) in found.iter().zip(urls) {
        let checked = match &policy {
            Err(error) => Err(tls::describe_policy_error(error)),
            Ok(_) if *scheme != "https" => Err("it is insecure".to_owned()),
            Ok(policy) => tokio::time::timeout(HANDSHAKE_TIME_MAX, shake_hands(policy, place))
                .await
                .unwrap_or_else(|_| Err("i/o timeout".to_owned())),
        };
        match checked {
            Ok(()) => valid.push(url),
            Err(why) => failures.push(format!("{url:?} failed ({why})")),
        }
    }
    let all = valid.join(",");
    if failures.is_empty() {
        tracing::info!(
            "srv-server" = domain,
            endpoints = all,
            "using validated discovered SRV endpoints"
        );
    } else {
        tracing::warn!(
            "srv-server" = domain,
            endpoints = all,
            error = failures.join(","),
            "failed to validate discovered endpoints"
        );
    }
    Ok(valid)
}

async fn shake_hands(policy: &ClientPolicy, place: &str) -> Result<(), String> {
    let stream = TcpStream::connect(place).await.map_err(|error| error.to_string())?;
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    policy.connect(host, stream).await.map(drop).map_err(|error| error.words)
}
