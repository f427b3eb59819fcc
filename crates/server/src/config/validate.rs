//! Rules between settings, in etcd's order, and what follows from settings that were not given.
//!
//! Source: etcd server/embed/config.go (Validate, UpdateDefaultClusterFromName),
//! server/etcdmain/config.go, server/embed/etcd.go (TLS of listeners).

use std::net::IpAddr;

use super::flags::{self, Flag, Role};
use super::gates::Gate;
use super::notice::Notice;
use super::refusal::Refusal;
use super::settings::Settings;
use super::tls;
use super::value::Value;
use crate::logging::Format;
use base::member_url::{Address, MemberUrl, join_urls as join};
use base::quote::quote;

/// Milliseconds: with more, a failed leader is noticed far too late.
const ELECTION_TIMEOUT_MAX: u64 = 50_000;

/// Checks what can be checked without touching files or listeners.
pub(crate) fn check(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    logging(settings)?;
    urls(settings, notices)?;
    cluster(settings)?;
    timing(settings)?;
    // Nobody is told of a proxy.
    let is_member = settings.text("proxy") == "off";
    let listens = settings.is_given("listen-client-urls") && !settings.from_file && is_member;
    if listens && !settings.is_given("advertise-client-urls") {
        return Err(Refusal::AdvertiseMissing);
    }
    match settings.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        other => return Err(Refusal::CompactionMode(other.to_owned())),
    }
    gates(settings, notices)?;
    name(settings, notices)?;
    tls_settings(settings)?;
    tls_of_listeners(settings, notices)?;
    Ok(())
}

fn logging(settings: &Settings) -> Result<(), Refusal> {
    match settings.text("logger") {
        "zap" => {}
        "capnslog" => {
            return Err(Refusal::Logger("--logger=capnslog is removed in v3.5".to_owned()));
        }
        other => return Err(Refusal::Logger(format!("unknown logger option {}", quote(other)))),
    }
    let outputs = settings.words("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|word| word == "default") {
        return Err(Refusal::SeveralDefaultOutputs);
    }
    if outputs.len() > 1 && outputs.iter().any(|word| word == "systemd/journal") {
        let quoted: Vec<_> = outputs.iter().map(|word| quote(word)).collect();
        return Err(Refusal::JournalWithOthers(format!("[{}]", quoted.join(" "))));
    }
    let format = settings.text("log-format");
    if Format::parse(format).is_none() {
        return Err(Refusal::LogFormat(format.to_owned()));
    }
    if settings.bool("enable-log-rotation") {
        let is_file = |word: &&String| {
            !matches!(word.as_str(), "default" | "stderr" | "stdout" | "systemd/journal")
        };
        let files = outputs.iter().filter(is_file).count();
        if files > 1 || files == 0 && outputs.len() == 1 {
            return Err(Refusal::RotationOutputs);
        }
    }
    Ok(())
}

fn urls(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    for flag in ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls"] {
        bindable(settings.urls(flag))?;
    }
    if settings.urls("listen-client-http-urls").is_empty() {
        notices.push(Notice::warn(
            "Running http and grpc server on single port. This is not recommended for production.",
        ));
    }
    bindable(settings.urls("listen-metrics-urls"))?;
    let peers = settings.urls("initial-advertise-peer-urls");
    if let Some(why) = hostless(peers) {
        return Err(Refusal::AdvertisePeer { urls: join(peers), why });
    }
    let clients = settings.urls("advertise-client-urls");
    if let Some(why) = hostless(clients) {
        return Err(Refusal::AdvertiseClient { urls: join(clients), why });
    }
    let grpc = settings.urls("listen-client-urls");
    let shared = |url: &&MemberUrl| grpc.iter().any(|other| other.address() == url.address());
    match settings.urls("listen-client-http-urls").iter().find(shared) {
        Some(url) => Err(Refusal::SharedClientUrl(url.to_string())),
        None => Ok(()),
    }
}

fn bindable(urls: &[MemberUrl]) -> Result<(), Refusal> {
    let host_name = |url: &&MemberUrl| {
        matches!(url.address(), Address::Tcp { .. }) && url.socket_address().is_none()
    };
    match urls.iter().find(host_name) {
        Some(url) => Err(Refusal::BindHost(url.to_string())),
        None => Ok(()),
    }
}

/// CB-21: clients that ask the members for their URLs use what is advertised alone. etcd says nothing.
fn only_for_this_host(settings: &Settings) -> Option<Notice> {
    let advertised = settings.urls("advertise-client-urls");
    if advertised.is_empty()
        || !advertised.iter().all(is_loopback)
        || settings.urls("listen-client-urls").iter().all(is_loopback)
    {
        return None;
    }
    let urls = join(advertised);
    let text = "clients of other hosts that ask for the members' URLs are told of loopback \
                addresses only; set --advertise-client-urls to addresses that they can reach";
    Some(Notice::warn(text).with("advertise-client-urls", urls))
}

fn is_loopback(url: &MemberUrl) -> bool {
    match url.address() {
        Address::Tcp { .. } => {
            url.socket_address().is_some_and(|address| address.ip().is_loopback())
        }
        Address::Unix { .. } => true,
    }
}

fn hostless(urls: &[MemberUrl]) -> Option<String> {
    let hostless =
        |url: &&MemberUrl| matches!(url.address(), Address::Tcp { host, .. } if host.is_empty());
    urls.iter().find(hostless).map(|url| format!("unexpected empty host ({url})"))
}

fn cluster(settings: &Settings) -> Result<(), Refusal> {
    let endpoints = settings.words("discovery-endpoints");
    let ways = [
        settings.is_given("initial-cluster") && !settings.text("initial-cluster").is_empty(),
        !settings.text("discovery").is_empty(),
        !settings.text("discovery-srv").is_empty(),
        !endpoints.is_empty(),
    ];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Refusal::SeveralBootstraps);
    }
    if settings.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err(Refusal::HalfDiscovery);
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err(Refusal::EmptyDiscoveryEndpoint);
    }
    Ok(())
}

fn timing(settings: &Settings) -> Result<(), Refusal> {
    let heartbeat = settings.unsigned("heartbeat-interval");
    let election = settings.unsigned("election-timeout");
    for (flag, value) in [("heartbeat-interval", heartbeat), ("election-timeout", election)] {
        if value == 0 {
            return Err(Refusal::Zero { flag, value: format!("{value}ms") });
        }
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(Refusal::ElectionTooShort { election, heartbeat });
    }
    if election > ELECTION_TIMEOUT_MAX {
        return Err(Refusal::ElectionTooLong { election, max: ELECTION_TIMEOUT_MAX });
    }
    if settings.duration("compact-hash-check-time") <= 0 {
        let value = settings.value("compact-hash-check-time").to_string();
        return Err(Refusal::Zero { flag: "compact-hash-check-time", value });
    }
    let rate = settings.signed("distributed-tracing-sampling-rate");
    if settings.bool("enable-distributed-tracing") && !(0..=1_000_000).contains(&rate) {
        return Err(Refusal::SamplingRate(rate));
    }
    Ok(())
}

fn gates(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let gates = settings.gates("feature-gates");
    for (name, value) in settings.older_gates() {
        let Some(Role::Gate(gate)) = flags::find(name).map(|flag| flag.role) else {
            continue;
        };
        if let Some(gate_value) = Gate::find(gate).and_then(|gate| gates.listed(gate)) {
            return Err(Refusal::GateTwice { flag: name, value, gate, gate_value });
        }
    }
    notices.extend(gates.without_effect().map(|(gate, on, why)| {
        Notice::warn("feature gate has no effect")
            .with("feature-gate", format!("{}={on}", gate.name()))
            .with("reason", why)
    }));
    let persist = gates.is_enabled(Gate::LeaseCheckpointPersist);
    let checkpoint = gates.is_enabled(Gate::LeaseCheckpoint);
    if checkpoint && !persist {
        notices.push(Notice::warn(
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist",
        ));
    }
    if persist && !checkpoint {
        return Err(Refusal::PersistWithoutCheckpoint);
    }
    Ok(())
}

fn name(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    match settings.text("name") {
        "" => Err(Refusal::EmptyName),
        "default" => {
            notices.push(
                Notice::warn(
                    "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name",
                )
                .with("name", "default"),
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

fn tls_settings(settings: &Settings) -> Result<(), Refusal> {
    let min = tls::version(settings.text("tls-min-version"))?;
    let max = tls::version(settings.text("tls-max-version"))?;
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Refusal::TlsRange { min: min.as_str(), max: max.as_str() });
    }
    let suites = settings.words("cipher-suites");
    if min == Some(super::TlsVersion::V13) && !suites.is_empty() {
        return Err(Refusal::CipherSuitesWithTls13);
    }
    if let Some(unknown) = suites.iter().find(|suite| !tls::is_cipher_suite(suite)) {
        return Err(Refusal::CipherSuite(unknown.clone()));
    }
    let both =
        |first, second| !settings.words(first).is_empty() && !settings.words(second).is_empty();
    if both("peer-cert-allowed-cn", "peer-cert-allowed-hostname") {
        return Err(Refusal::AllowedTwice);
    }
    for (key, cert) in [("key-file", "cert-file"), ("peer-key-file", "peer-cert-file")] {
        let (key, cert) = (settings.text(key), settings.text(cert));
        if key.is_empty() != cert.is_empty() {
            let present = |file: &str| (!file.is_empty()).to_string();
            return Err(Refusal::HalfPair { key: present(key), cert: present(cert) });
        }
    }
    Ok(())
}

fn tls_of_listeners(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let clients = || {
        settings.urls("listen-client-urls").iter().chain(settings.urls("listen-client-http-urls"))
    };
    let has_client_cert = !settings.text("cert-file").is_empty() || settings.bool("auto-tls");
    let has_peer_cert =
        !settings.text("peer-cert-file").is_empty() || settings.bool("peer-auto-tls");
    for url in settings.urls("listen-peer-urls") {
        listener_notices(url, "peer", has_peer_cert, settings, notices);
        if url.scheme().is_tls() && !has_peer_cert {
            return Err(Refusal::PeerTlsMissing(url.to_string()));
        }
    }
    for url in clients() {
        listener_notices(url, "client", has_client_cert, settings, notices);
        if url.scheme().is_tls() && !has_client_cert {
            return Err(Refusal::ClientTlsMissing(url.to_string()));
        }
    }
    let metrics = settings.urls("listen-metrics-urls");
    if metrics.iter().any(|url| url.scheme().is_tls()) && !has_client_cert {
        return Err(Refusal::MetricsTlsMissing);
    }
    Ok(())
}

/// SRV-036: certificates that a plain listener does not use.
fn listener_notices(
    url: &MemberUrl,
    role: &str,
    has_cert: bool,
    settings: &Settings,
    notices: &mut Vec<Notice>,
) {
    if url.scheme().is_tls() {
        return;
    }
    let (scheme, field, flag) = match role {
        "peer" => ("HTTP", "peer-url", "peer-client-cert-auth"),
        _ => ("http or unix", "client-url", "client-cert-auth"),
    };
    if has_cert {
        notices.push(
            Notice::warn(format!(
                "scheme is {scheme} while key and cert files are present; ignoring key and cert files"
            ))
            .with(field, url.as_str()),
        );
    }
    if settings.bool(flag) {
        notices.push(
            Notice::warn(format!(
                "scheme is {scheme} while --{flag} is enabled; ignoring client cert auth for this URL"
            ))
            .with(field, url.as_str()),
        );
    }
}

/// Fills in what was left out: the advertised host of a member that listens on all addresses, its
/// own entry in the cluster, and no cluster at all when it is to be discovered. SRV-070.
pub(crate) fn settle_addresses(
    settings: &mut Settings,
    default_host: &dyn Fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) {
    let default_cluster = default_text("initial-cluster");
    let discovers = ["discovery", "discovery-srv", "discovery-srv-name", "discovery-token"]
        .iter()
        .any(|flag| !settings.text(flag).is_empty());
    if discovers && !settings.is_given("initial-cluster") {
        settings.derive("initial-cluster", Value::Text(String::new()));
    }
    for (advertise, listen) in [
        ("initial-advertise-peer-urls", "listen-peer-urls"),
        ("advertise-client-urls", "listen-client-urls"),
    ] {
        let Some(port) = port_of_all_addresses(settings.urls(listen)) else {
            continue;
        };
        if join(settings.urls(advertise)) != default_text(advertise) {
            continue;
        }
        let Some(host) = default_host() else {
            notices.push(Notice::info("failed to detect default host"));
            continue;
        };
        let url = settings.urls(advertise)[0].with_host(&host.to_string(), port);
        settings.derive(advertise, Value::Urls(vec![url]));
        notices.push(
            Notice::info("detected default host for advertise").with("host", host.to_string()),
        );
    }
    notices.extend(only_for_this_host(settings));
    if settings.text("name") != "default" && settings.text("initial-cluster") == default_cluster {
        let name = settings.text("name");
        let own: Vec<_> = settings
            .urls("initial-advertise-peer-urls")
            .iter()
            .map(|url| format!("{name}={url}"))
            .collect();
        settings.derive("initial-cluster", Value::Text(own.join(",")));
    }
    if settings.text("data-dir").is_empty() {
        let folder = format!("{}.etcd", settings.text("name"));
        notices.push(
            Notice::warn("'data-dir' was empty; using default").with("data-dir", folder.as_str()),
        );
        settings.derive("data-dir", Value::Text(folder));
    }
}

fn port_of_all_addresses(urls: &[MemberUrl]) -> Option<u16> {
    match urls.first()?.address() {
        Address::Tcp { host, port } if host == "0.0.0.0" => Some(*port),
        Address::Tcp { .. } | Address::Unix(_) => None,
    }
}

fn default_text(name: &str) -> &'static str {
    flags::find(name).map_or("", |flag| flag.default)
}

/// Tells about older names, deprecated flags, and flags that have no effect.
pub(crate) fn tell_about_flags(settings: &Settings, notices: &mut Vec<Notice>) {
    for flag in settings.given() {
        let name = flag.name;
        match flag.role {
            Role::Alias(target) => notices.push(Notice::warn(format!(
                "--{name} is deprecated in v3.6 and will be decommissioned in v3.7. Use '--{target}' instead."
            ))),
            Role::Gate(gate) => {
                notices.push(Notice::warn(format!(
                    "--{name} is deprecated in v3.6 and will be decommissioned in v3.7. Use '--feature-gates={gate}=true' instead."
                )));
            }
            Role::Ignored => notices.push(
                Notice::warn("flag is no longer supported - ignoring").with("flag-name", name),
            ),
            Role::Setting => notices.extend(setting_notice(flag, settings)),
        }
    }
}

fn setting_notice(flag: &Flag, settings: &Settings) -> Option<Notice> {
    let name = flag.name;
    Some(match name {
        "max-snapshots" => {
            Notice::warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.")
        }
        "v2-deprecation" => Notice::warn(
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
        ),
        _ if settings.is_changed(flag) => Notice::warn("flag is accepted but has no effect")
            .with("flag", format!("--{name}"))
            .with("value", settings.value(name).to_string())
            .with("reason", flag.idle?),
        _ => return None,
    })
}
