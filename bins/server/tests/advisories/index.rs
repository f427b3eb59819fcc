//! Every advisory and the rows of reliability 7.7, with the test that shows it.

use std::path::Path;

use anyhow::Context as _;

/// The advisory or row, the file, the function.
const INDEX: &[(&str, &str, &str)] = &[
    // A check that was missing.
    (
        "CVE-2026-33413",
        "bins/server/tests/advisories/rights.rs",
        "calls_that_were_forgotten_are_guarded",
    ),
    (
        "CVE-2026-33413",
        "crates/state/tests/gate.rs",
        "the_gate_agrees_with_a_judge_that_asks_key_by_key",
    ),
    (
        "CVE-2023-32082",
        "bins/server/tests/advisories/rights.rs",
        "a_lease_does_not_tell_keys_that_may_not_be_read",
    ),
    // Another form of the same request.
    ("CVE-2026-33343", "bins/server/tests/advisories/rights.rs", "what_is_nested_is_looked_at"),
    ("CVE-2026-44283", "bins/server/tests/advisories/rights.rs", "what_is_nested_is_looked_at"),
    (
        "CVE-2026-73499",
        "bins/server/tests/advisories/rights.rs",
        "a_watch_of_all_that_follows_is_looked_at_as_such",
    ),
    ("CVE-2026-73499", "crates/state/src/auth/ranges.rs", "only_an_open_end_covers_an_open_end"),
    // A check that was lost.
    (
        "NOSPACE without auth, 3.5",
        "bins/server/tests/advisories/rights.rs",
        "an_alarm_does_not_switch_the_checks_off",
    ),
    ("NOSPACE without auth, 3.5", "crates/state/tests/auth.rs", "alarms_do_not_open_the_gate"),
    // One taken for another.
    ("CVE-2018-16886", "bins/server/tests/tls.rs", "a_certificate_names_its_user"),
    ("CVE-2018-16886", "crates/server/src/grpc/call.rs", "what_a_proxy_adds_is_seen"),
    ("GO-2024-2530", "bins/server/tests/tls.rs", "a_certificate_names_its_user"),
    // Listeners that differ.
    ("CVE-2026-59818", "bins/server/tests/tls.rs", "revoked_clients_are_refused_on_every_port"),
    ("CVE-2020-15136", "bins/server/tests/tcp_gateway.rs", "what_cannot_start_says_why"),
    ("GO-2024-2528", "bins/server/tests/tcp_gateway.rs", "what_cannot_start_says_why"),
    // Secrets.
    ("CVE-2021-28235", "bins/server/tests/advisories/secrets.rs", "no_password_is_told_or_kept"),
    ("audit 12", "bins/server/tests/advisories/secrets.rs", "no_password_is_told_or_kept"),
    // Resources.
    (
        "CVE-2020-15114",
        "crates/server/src/tcp_gateway/endpoints.rs",
        "a_gateway_to_itself_is_found_out",
    ),
    ("CVE-2026-73500", "bins/server/tests/advisories/slow.rs", "a_handshake_has_an_end"),
    (
        "lease body of peers",
        "bins/server/tests/advisories/peers.rs",
        "bodies_of_members_have_an_end",
    ),
    (
        "snapshot message limit",
        "bins/server/tests/advisories/peers.rs",
        "bodies_of_members_have_an_end",
    ),
    ("GO-2024-2529", "bins/server/tests/bad_input.rs", "settings_that_cannot_work_are_refused"),
    // Decoders.
    ("CVE-2020-15106", "crates/wal/tests/damage.rs", "every_flipped_byte_is_detected_or_harmless"),
    ("CVE-2020-15112", "crates/wal/tests/damage.rs", "every_flipped_byte_is_detected_or_harmless"),
    ("nil decoder", "crates/wal/tests/damage.rs", "every_flipped_byte_is_detected_or_harmless"),
    ("cluster size -1", "crates/server/src/boot/discovery.rs", "a_size_is_a_number_above_zero"),
    (
        "bad sort target",
        "bins/server/tests/bad_input.rs",
        "requests_without_sense_are_refused_in_etcds_words",
    ),
    (
        "bytes that are no message",
        "bins/server/tests/bad_input.rs",
        "bytes_that_are_no_message_are_refused",
    ),
    // Files and passwords.
    ("CVE-2020-15113", "crates/server/src/config/data_dir.rs", "an_open_folder_is_told_about"),
    // There is no least length in etcd, to this day; guessing is what is made slow.
    ("CVE-2020-15115", "bins/server/tests/advisories/secrets.rs", "passwords_have_no_least_length"),
    (
        "CVE-2020-15115",
        "crates/server/src/auth/passwords.rs",
        "many_wrong_passwords_take_their_time",
    ),
    // Browsers.
    (
        "CVE-2018-1098",
        "bins/server/tests/advisories/browsers.rs",
        "what_another_page_sends_is_not_done",
    ),
    (
        "CVE-2018-1099",
        "bins/server/tests/advisories/browsers.rs",
        "a_name_that_is_not_ours_is_not_answered",
    ),
    // Members.
    (
        "consensus panic from a peer",
        "bins/server/tests/advisories/peers.rs",
        "messages_that_cannot_be_end_nothing",
    ),
    ("#14571", "crates/state/tests/auth.rs", "a_crash_leaves_auth_and_the_applied_index_together"),
    (
        "MemberUpdate promoted a learner",
        "crates/state/src/members/tests.rs",
        "an_update_keeps_name_and_learner_flag",
    ),
    (
        "websocket bearer token",
        "crates/server/src/http/gateway/websocket.rs",
        "the_token_comes_in_a_header_that_a_page_can_set",
    ),
    // Reliability 7.7.
    ("A1", "crates/tls/tests/handshakes.rs", "a_pair_is_replaced_file_by_file_under_load"),
    ("A2", "crates/tls/tests/handshakes.rs", "authorities_are_replaced_with_and_without_overlap"),
    ("A3", "crates/tls/tests/handshakes.rs", "revoked_certificates_are_refused_at_once"),
    ("A4", "bins/server/tests/tls.rs", "revoked_clients_are_refused_on_every_port"),
    ("A5", "crates/tls/tests/handshakes.rs", "clients_that_are_refused_are_told_why"),
    ("A5", "bins/server/tests/tls.rs", "bad_clients_are_refused_as_by_real_etcd"),
    ("A6", "crates/state/tests/gate.rs", "the_door_is_the_same_for_all_who_are_alike"),
    ("A7", "bins/server/tests/auth.rs", "a_permission_that_goes_ends_its_watches"),
    ("A8", "bins/server/tests/flags/limits.rs", "an_unused_token_ends"),
    ("A8", "crates/state/tests/auth.rs", "a_request_from_before_a_change_is_refused"),
    ("A9", "crates/state/tests/auth.rs", "a_crash_leaves_auth_and_the_applied_index_together"),
    ("A10", "crates/state/tests/auth.rs", "root_cannot_be_taken_away"),
    ("A10", "crates/state/tests/auth.rs", "a_user_without_a_password_gets_no_token"),
    ("A11", "crates/server/src/auth/jwt/tests.rs", "strange_tokens_are_refused"),
    ("A12", "bins/server/tests/advisories/secrets.rs", "no_password_is_told_or_kept"),
    ("A13", "bins/server/tests/advisories/browsers.rs", "what_another_page_sends_is_not_done"),
    // Reliability 7.6 and G24.
    ("L11", "bins/server/tests/bad_input.rs", "a_server_without_descriptors_keeps_its_connections"),
    ("L12", "bins/server/tests/bad_input.rs", "floods_of_frames_disturb_nobody"),
    ("G19", "bins/server/tests/http.rs", "connections_of_one_address_are_bounded"),
    ("G24", "bins/server/tests/advisories/slow.rs", "heads_and_bodies_have_an_end"),
    ("G24", "bins/server/tests/tls.rs", "slow_handshakes_do_not_hinder_others"),
];

/// CB-82: the tests are there under the names the table gives.
#[test]
fn every_advisory_has_its_test() -> anyhow::Result<()> {
    for (advisory, file, test) in INDEX {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        assert!(text.contains(&format!("fn {test}(")), "{advisory}: {file} has no {test}");
    }
    Ok(())
}
