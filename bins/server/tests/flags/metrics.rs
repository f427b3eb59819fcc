//! How much is measured.

use retcd_conformance::{Keys, ask};

use super::start;

/// SRV-111, MET-70: how long calls take is told by method, if it shall be.
#[tokio::test]
async fn extensive_metrics_tell_how_long_calls_take() -> anyhow::Result<()> {
    let sample = "grpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    for (flag, expected) in [("--metrics=extensive", Some("3")), ("--metrics=basic", None)] {
        let (server, _folder) = start(&[flag])?;
        let keys = Keys::of(&server.endpoint())?;
        for key in ["a", "b", "c"] {
            keys.put(key, "").await?;
        }
        let text = ask(server.address(), "GET", "/metrics", "")?.body;
        let found = text.lines().find_map(|line| line.strip_prefix(sample));
        assert_eq!(found.map(str::trim), expected, "{flag}");
    }
    Ok(())
}
