//! `etcd grpc-proxy`: its command line, and one call (SRV-176..181).
//!
//! Source: etcd server/etcdmain/grpc_proxy.go.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use cli::command::{App, Command, Invocation, Outcome};
use cli::flag::{Flag, Kind, Values};
use client::TlsOptions;
use grpc_proxy::{Listen, Profiles, ProxyError, Registration, Settings, Upstream};
use server::logging::{self, Level};
use server::tcp_gateway::{self, Discovery};
use tokio::runtime::Builder;

use crate::gateway::say;

/// Reads what stands behind the name of this mode and does it.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let words = std::iter::once("grpc-proxy").chain(arguments.iter().map(String::as_str));
    let words: Vec<_> = words.map(|word| word.as_bytes().to_vec()).collect();
    match app().resolve(&words) {
        Outcome::Run(Invocation { flags, .. }) => match settings(&flags) {
            Ok(settings) => start(settings, &flags),
            Err(wrong) => {
                say(&mut io::stderr(), &format!("{wrong}\n{}\n", wrong.remedy()));
                ExitCode::FAILURE
            }
        },
        Outcome::Said { stdout, stderr, code } => {
            say(&mut io::stdout(), &stdout);
            // What is wrong stands in the first line, and etcd says it again behind the usage.
            let error = stderr.lines().next().and_then(|line| line.strip_prefix("Error: "));
            say(&mut io::stderr(), &format!("{stderr}{}", error.unwrap_or_default()));
            code.into()
        }
    }
}

fn app() -> App<()> {
    let flags = upstream_flags().into_iter().chain(proxy_flags()).chain(listen_flags());
    let start = Command::new("start", "start the grpc proxy").run(()).flags(flags);
    let proxy =
        Command::new("grpc-proxy <subcommand>", "grpc-proxy related command").subcommands([start]);
    let root = Command::new("etcd", "etcd server").subcommands([proxy]);
    App { root, groups: &[], help_footer: "", is_plain: false }
}

fn upstream_flags() -> Vec<Flag> {
    vec![
        Flag::text(
            "discovery-srv",
            "domain name to query for SRV records describing cluster endpoints",
        ),
        Flag::text("discovery-srv-name", "service name to query when using DNS discovery"),
        Flag::bool("insecure-discovery", "accept insecure SRV records"),
        Flag::new(
            "endpoints",
            Kind::List,
            "127.0.0.1:2379",
            "comma separated etcd cluster endpoints",
        ),
        Flag::new(
            "endpoints-auto-sync-interval",
            Kind::Duration,
            "0s",
            "etcd endpoints auto sync interval (disabled by default)",
        ),
        Flag::new(
            "dial-keepalive-time",
            Kind::Duration,
            "0s",
            "keepalive time for client(grpc-proxy) connections (default 0, disable).",
        ),
        Flag::new(
            "dial-keepalive-timeout",
            Kind::Duration,
            "20s",
            "keepalive timeout for client(grpc-proxy) connections (default 20s).",
        ),
        Flag::bool(
            "permit-without-stream",
            "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
        ),
        Flag::new(
            "max-send-bytes",
            Kind::Int,
            "1572864",
            "message send limits in bytes (default value is 1.5 MiB)",
        ),
        Flag::new(
            "max-recv-bytes",
            Kind::Int,
            "2147483647",
            "message receive limits in bytes (default value is math.MaxInt32)",
        ),
        Flag::text(
            "cert",
            "identify secure connections with etcd servers using this TLS certificate file",
        ),
        Flag::text("key", "identify secure connections with etcd servers using this TLS key file"),
        Flag::text(
            "cacert",
            "verify certificates of TLS-enabled secure etcd servers using this CA bundle",
        ),
        Flag::bool(
            "insecure-skip-tls-verify",
            "skip authentication of etcd server TLS certificates (CAUTION: this option should be \
             enabled only for testing purposes)",
        ),
    ]
}

fn proxy_flags() -> Vec<Flag> {
    vec![
        Flag::text(
            "advertise-client-url",
            "advertise address to register (must be reachable by client)",
        )
        .or("127.0.0.1:23790"),
        Flag::text(
            "resolver-prefix",
            "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
        ),
        Flag::int("resolver-ttl", "specify TTL, in seconds, when registering proxy endpoints"),
        Flag::text("namespace", "string to prefix to all keys for namespacing requests"),
        Flag::bool(
            "enable-pprof",
            "Enable runtime profiling data via HTTP server. Address is at client URL + \
             \"/debug/pprof/\"",
        ),
        Flag::text("data-dir", "Data directory for persistent data").or("default.proxy"),
        Flag::bool(
            "experimental-serializable-ordering",
            "Ensure serializable reads have monotonically increasing store revisions across \
             endpoints.",
        ),
        Flag::text(
            "experimental-leasing-prefix",
            "leasing metadata prefix for disconnected linearized reads.",
        ),
        Flag::bool("experimental-enable-grpc-logging", "logging all grpc requests and responses"),
        Flag::bool("debug", "Enable debug-level logging for grpc-proxy."),
    ]
}

fn listen_flags() -> Vec<Flag> {
    let duration =
        |name, default, usage: &'static str| Flag::new(name, Kind::Duration, default, usage);
    vec![
        Flag::text("listen-addr", "listen address").or("127.0.0.1:23790"),
        Flag::text(
            "metrics-addr",
            "listen for endpoint /metrics requests on an additional interface",
        ),
        duration(
            "grpc-keepalive-min-time",
            "5s",
            "Minimum interval duration that a client should wait before pinging proxy.",
        ),
        duration(
            "grpc-keepalive-interval",
            "2h0m0s",
            "Frequency duration of server-to-client ping to check if a connection is alive (0 to \
             disable).",
        ),
        duration(
            "grpc-keepalive-timeout",
            "20s",
            "Additional duration of wait before closing a non-responsive connection (0 to disable).",
        ),
        Flag::text(
            "cert-file",
            "identify secure connections to the proxy using this TLS certificate file",
        ),
        Flag::text("key-file", "identify secure connections to the proxy using this TLS key file"),
        Flag::text(
            "trusted-ca-file",
            "verify certificates of TLS-enabled secure proxy using this CA bundle",
        ),
        Flag::new(
            "listen-cipher-suites",
            Kind::List,
            "",
            "Comma-separated list of supported TLS cipher suites between client/proxy (empty will \
             be auto-populated by Go).",
        ),
        Flag::bool("auto-tls", "proxy TLS using generated certificates"),
        Flag::text("client-crl-file", "proxy client certificate revocation list file."),
        Flag::new(
            "self-signed-cert-validity",
            Kind::Uint,
            "1",
            "The validity period of the proxy certificates, unit is year",
        ),
        Flag::text(
            "tls-min-version",
            "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
        )
        .or("TLS1.2"),
        Flag::text(
            "tls-max-version",
            "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty \
             defers to Go).",
        ),
        Flag::new(
            "max-concurrent-streams",
            Kind::Uint32,
            "4294967295",
            "Maximum concurrent streams that each client can open at a time.",
        ),
    ]
}

/// Flags that do not go together, in etcd's words.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("invalid resolver-ttl {0}")]
    ResolverTtl(i64),
    #[error("invalid resolver-prefix {}", base::quote::quote(.0))]
    ResolverPrefix(String),
    #[error("invalid advertise-client-url {}", base::quote::quote(.0))]
    AdvertiseUrl(String),
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    Validity,
    #[error(
        "{flag} is invalid: unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)",
        base::quote::quote(.value)
    )]
    TlsVersion { flag: &'static str, value: String },
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsVersions { min: String, max: String },
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    SuitesForNothing,
    #[error("unexpected TLS cipher suite {}", base::quote::quote(.0))]
    CipherSuite(String),
}

impl Wrong {
    fn remedy(&self) -> &'static str {
        match self {
            Self::ResolverTtl(_) => "give --resolver-ttl at least 1 with --resolver-prefix",
            Self::ResolverPrefix(_) => "give --resolver-prefix with --resolver-ttl, or neither",
            Self::AdvertiseUrl(_) => "give --advertise-client-url with --resolver-prefix",
            Self::Validity => "give --self-signed-cert-validity at least 1, in years",
            Self::TlsVersion { .. } | Self::TlsVersions { .. } => {
                "use TLS1.2 or TLS1.3, the smaller one for --tls-min-version"
            }
            Self::SuitesForNothing => "leave out --listen-cipher-suites, or allow TLS1.2",
            Self::CipherSuite(_) => {
                "use names such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 in --listen-cipher-suites, \
                 or leave it out"
            }
        }
    }
}

fn settings(flags: &Values) -> Result<Settings, Wrong> {
    let registration = registration(flags)?;
    Ok(Settings {
        listen: listen(flags)?,
        upstream: upstream(flags),
        advertise_client_url: flags.text("advertise-client-url").to_owned(),
        registration,
        namespace: bytes_of(flags, "namespace"),
        leasing_prefix: bytes_of(flags, "experimental-leasing-prefix"),
        is_ordered: flags.bool("experimental-serializable-ordering"),
        logs_calls: flags.bool("experimental-enable-grpc-logging"),
        profiles: flags.bool("enable-pprof").then_some(PROFILES),
    })
}

/// Profiles are the server's.
const PROFILES: Profiles = |uri| Box::pin(async move { server::profile(&uri).await });

fn bytes_of(flags: &Values, name: &str) -> Bytes {
    Bytes::copy_from_slice(flags.text(name).as_bytes())
}

fn file(flags: &Values, name: &str) -> Option<PathBuf> {
    Some(flags.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn registration(flags: &Values) -> Result<Option<Registration>, Wrong> {
    let prefix = flags.text("resolver-prefix").to_owned();
    let ttl_seconds = flags.int("resolver-ttl");
    let address = flags.text("advertise-client-url");
    match (prefix.is_empty(), ttl_seconds) {
        (false, ..1) => Err(Wrong::ResolverTtl(ttl_seconds)),
        (true, 1..) => Err(Wrong::ResolverPrefix(prefix)),
        (false, _) if address.is_empty() => Err(Wrong::AdvertiseUrl(address.to_owned())),
        (false, _) => Ok(Some(Registration { prefix, ttl_seconds })),
        (true, _) => Ok(None),
    }
}

fn upstream(flags: &Values) -> Upstream {
    let (certificate, key) = (file(flags, "cert"), file(flags, "key"));
    let authorities = file(flags, "cacert");
    let skip_verification = flags.bool("insecure-skip-tls-verify");
    let is_secure =
        certificate.is_some() || key.is_some() || authorities.is_some() || skip_verification;
    let bytes_max = |name| usize::try_from(flags.int(name)).ok().filter(|bytes| *bytes != 0);
    Upstream {
        endpoints: flags.list("endpoints").to_vec(),
        auto_sync_interval: flags.duration("endpoints-auto-sync-interval"),
        tls: is_secure.then_some(TlsOptions {
            certificate,
            key,
            authorities,
            server_name: None,
            skip_verification,
        }),
        keepalive_time: flags.duration("dial-keepalive-time"),
        keepalive_timeout: flags.duration("dial-keepalive-timeout"),
        keepalive_without_calls: flags.bool("permit-without-stream"),
        request_bytes_max: bytes_max("max-send-bytes").unwrap_or(REQUEST_BYTES_MAX),
        response_bytes_max: bytes_max("max-recv-bytes").unwrap_or(usize::MAX),
    }
}

fn discovery(flags: &Values) -> Option<Discovery> {
    let domain = Some(flags.text("discovery-srv")).filter(|domain| !domain.is_empty())?;
    Some(Discovery {
        domain: domain.to_owned(),
        service_name: flags.text("discovery-srv-name").to_owned(),
        insecure: flags.bool("insecure-discovery"),
        trusted_ca_file: file(flags, "cacert"),
    })
}

/// What etcd's clients send if nobody says more.
const REQUEST_BYTES_MAX: usize = 2 << 20;

fn listen(flags: &Values) -> Result<Listen, Wrong> {
    let (cert_file, key_file) = (file(flags, "cert-file"), file(flags, "key-file"));
    let trusted_ca_file = file(flags, "trusted-ca-file");
    let years = flags.uint("self-signed-cert-validity");
    let is_auto = flags.bool("auto-tls");
    if is_auto && years == 0 {
        return Err(Wrong::Validity);
    }
    let (version_min, version_max) = versions(flags)?;
    let cipher_suites = flags.list("listen-cipher-suites").to_vec();
    if version_min == Some(tls::Version::V13) && !cipher_suites.is_empty() {
        return Err(Wrong::SuitesForNothing);
    }
    let is_given = cert_file.is_some() || key_file.is_some() || trusted_ca_file.is_some();
    let is_unknown = |name: &&String| !server::config::is_cipher_suite(name);
    if (is_given || is_auto)
        && let Some(unknown) = cipher_suites.iter().find(is_unknown)
    {
        return Err(Wrong::CipherSuite(unknown.clone()));
    }
    let tls = tls::Settings {
        cert_file,
        key_file,
        trusted_ca_file,
        crl_file: file(flags, "client-crl-file"),
        cipher_suites,
        version_min,
        version_max,
        ..tls::Settings::default()
    };
    let folder = PathBuf::from(flags.text("data-dir")).join("fixtures").join("proxy");
    Ok(Listen {
        address: flags.text("listen-addr").to_owned(),
        metrics_url: Some(flags.text("metrics-addr").to_owned()).filter(|url| !url.is_empty()),
        tls: (is_given || is_auto).then_some(tls),
        self_signed: (is_auto && !is_given).then_some((folder, years)),
        concurrent_streams_max: u32::try_from(flags.uint("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        keepalive_interval: flags.duration("grpc-keepalive-interval"),
        keepalive_timeout: flags.duration("grpc-keepalive-timeout"),
        ping_interval_min: flags.duration("grpc-keepalive-min-time"),
    })
}

type Versions = (Option<tls::Version>, Option<tls::Version>);

fn versions(flags: &Values) -> Result<Versions, Wrong> {
    let version = |flag| match flags.text(flag) {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(tls::Version::V12)),
        "TLS1.3" => Ok(Some(tls::Version::V13)),
        value => Err(Wrong::TlsVersion { flag, value: value.to_owned() }),
    };
    let (min, max) = (version("tls-min-version")?, version("tls-max-version")?);
    if let (Some(least), Some(most)) = (min, max)
        && most < least
    {
        let text = |flag| flags.text(flag).to_owned();
        let (min, max) = (text("tls-min-version"), text("tls-max-version"));
        return Err(Wrong::TlsVersions { min, max });
    }
    Ok((min, max))
}

fn start(mut settings: Settings, flags: &Values) -> ExitCode {
    if flags.bool("debug") {
        logging::set_level(Level::Debug);
    }
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&ProxyError::Threads(error)),
    };
    if let Some(discovery) = discovery(flags) {
        match runtime.block_on(tcp_gateway::discover(&discovery)) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => settings.upstream.endpoints = found,
            Err(error) => {
                say(&mut io::stderr(), &format!("{error}\n{}\n", error.remedy()));
                return ExitCode::FAILURE;
            }
        }
    }
    let serving = grpc_proxy::serve(settings, server::notify_ready, server::wait_for_signal());
    let ended = runtime.block_on(serving);
    runtime.shutdown_timeout(Duration::from_millis(200));
    match ended {
        Ok(signal) => {
            signal.end_process();
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &ProxyError) -> ExitCode {
    if matches!(error, ProxyError::Tls(_)) {
        logging::log_failure("failed to create TLS listener", error);
        say(&mut io::stderr(), &format!("{}\n", error.remedy()));
    } else {
        say(&mut io::stderr(), &format!("{error}\n{}\n", error.remedy()));
    }
    ExitCode::FAILURE
}
