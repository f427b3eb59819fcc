//! Every flag is proven by a test that is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use retcd_conformance::real_etcd;

use super::{OURS, text};

/// The flags, and the module and function that show what each does.
const PROOFS: [(&str, &str); 40] = [
    ("advertise-client-url", "doors::registered_proxies_are_members"),
    ("auto-tls", "doors::doors_have_tls"),
    ("cacert", "tls::members_are_reached_over_tls"),
    ("cert", "tls::members_are_reached_over_tls"),
    ("cert-file", "doors::doors_have_tls"),
    ("client-crl-file", "tls::revoked_clients_are_refused"),
    ("data-dir", "tls::own_certificates_are_valid_as_long_as_wished"),
    ("debug", "flags::the_log_tells_what_is_asked_for"),
    ("dial-keepalive-time", "flags::a_silent_member_is_asked_whether_it_lives"),
    ("dial-keepalive-timeout", "flags::a_silent_member_is_asked_whether_it_lives"),
    ("discovery-srv", "discovery::members_are_found_in_dns"),
    ("discovery-srv-name", "discovery::members_are_found_in_dns"),
    ("enable-pprof", "flags::profiles_are_offered_if_asked_for"),
    ("endpoints", "members::calls_leave_a_member_that_is_gone"),
    ("endpoints-auto-sync-interval", "members::members_are_found_by_asking_one"),
    ("experimental-enable-grpc-logging", "flags::the_log_tells_what_is_asked_for"),
    ("experimental-leasing-prefix", "keys::owned_keys_are_given_up_for_a_write"),
    ("experimental-serializable-ordering", "members::ordered_reads_do_not_go_back"),
    ("grpc-keepalive-interval", "flags::an_idle_client_is_asked_whether_it_lives"),
    ("grpc-keepalive-min-time", "flags::clients_may_ping_as_the_flag_says"),
    ("grpc-keepalive-timeout", "flags::an_idle_client_is_asked_whether_it_lives"),
    ("help", "doors::help_names_every_flag_of_etcd"),
    ("insecure-discovery", "discovery::members_are_found_in_dns"),
    ("insecure-skip-tls-verify", "tls::members_are_reached_over_tls"),
    ("key", "tls::members_are_reached_over_tls"),
    ("key-file", "doors::doors_have_tls"),
    ("listen-addr", "calls::calls_go_through"),
    ("listen-cipher-suites", "tls::versions_and_suites_are_kept_to"),
    ("max-concurrent-streams", "flags::a_connection_may_have_so_many_streams"),
    ("max-recv-bytes", "flags::messages_have_limits"),
    ("max-send-bytes", "flags::messages_have_limits"),
    ("metrics-addr", "doors::plain_endpoints_are_served"),
    ("namespace", "keys::a_namespace_is_all_that_clients_see"),
    ("permit-without-stream", "flags::nobody_is_asked_without_the_flags"),
    ("resolver-prefix", "doors::registered_proxies_are_members"),
    ("resolver-ttl", "doors::registered_proxies_are_members"),
    ("self-signed-cert-validity", "tls::own_certificates_are_valid_as_long_as_wished"),
    ("tls-max-version", "tls::versions_and_suites_are_kept_to"),
    ("tls-min-version", "tls::versions_and_suites_are_kept_to"),
    ("trusted-ca-file", "doors::doors_have_tls"),
];

fn help(program: &Path) -> anyhow::Result<BTreeSet<String>> {
    let arguments = ["grpc-proxy", "start", "--help"];
    let output = Command::new(program).env_clear().args(arguments).output()?;
    let help = text(&output.stdout);
    let flags = help.lines().filter_map(|line| line.split_once("--"));
    let names = flags.filter(|(before, _)| before.len() == 6);
    Ok(names.filter_map(|(_, rest)| Some(rest.split(' ').next()?.to_owned())).collect())
}

/// SRV-176..179: nothing is taken that does nothing.
#[test]
fn every_flag_is_proven() -> anyhow::Result<()> {
    let proven: BTreeSet<_> = PROOFS.iter().map(|(flag, _)| (*flag).to_owned()).collect();
    assert_eq!(help(Path::new(OURS))?, proven);
    for line in ["3.4", "3.5", "3.7"] {
        let Some(real) = real_etcd(line) else { continue };
        let listed = help(&real.join("etcd"))?;
        let missing: Vec<_> = listed.difference(&proven).collect();
        assert!(missing.is_empty(), "{line}: {missing:?}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc_proxy");
    for (flag, proof) in PROOFS {
        let (module, test) = proof.split_once("::").context(proof)?;
        let source = fs::read_to_string(folder.join(format!("{module}.rs")))?;
        assert!(source.contains(&format!("fn {test}(")), "--{flag}: {proof}");
    }
    Ok(())
}
