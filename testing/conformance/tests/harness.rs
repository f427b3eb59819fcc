//! The harness against itself: two servers of the same kind never differ.

use retcd_conformance::differential::{self, Side};
use retcd_conformance::{Server, ServerOptions, real_etcd};

#[tokio::test]
async fn two_real_servers_agree() -> anyhow::Result<()> {
    let Some(folder) = real_etcd("3.5") else { return Ok(()) };
    let temporary = tempfile::tempdir()?;
    let start = |name: &str| {
        let folder_of_one = temporary.path().join(name);
        Server::start(&folder.join("etcd"), &folder_of_one, ServerOptions::default())
    };
    let mut servers = (start("left")?, start("right")?);
    let mut left = Side::connect(&servers.0.endpoint()).await?;
    let mut right = Side::connect(&servers.1.endpoint()).await?;
    for seed in 0..20 {
        let Err(error) = differential::run(&mut left, &mut right, seed, 40).await else { continue };
        if servers.0.has_ended() || servers.1.has_ended() {
            println!("real etcd crashed in sequence {seed}; the ones before agreed");
            return Ok(());
        }
        return Err(error);
    }
    Ok(())
}
