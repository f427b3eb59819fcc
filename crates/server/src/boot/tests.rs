//! Who a new member is, by those that answer.

use std::sync::Arc;
use std::time::Duration;

use base::MemberId;
use storage::Origin;

use super::{OriginOptions, origin};
use crate::config::{ClusterState, InitialCluster};
use crate::peers::ask::Asker;
use crate::peers::dial::PeerDial;

/// D19, CB-13: a member with an empty directory cannot be one that the cluster knows.
#[test]
fn identity_comes_from_the_cluster_that_answers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asker = Asker::new(Arc::new(PeerDial::new(Duration::from_secs(30), None)));
    runtime.block_on(async {
        let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", peer.local_addr().unwrap());
        let cluster = InitialCluster::parse(&format!("a={url},b=http://10.0.0.1:1")).unwrap();
        let ids: Vec<MemberId> = [&url[..], "http://10.0.0.1:1"]
            .map(|url| state::members::member_id(&[url.to_owned()], "t", None))
            .into();
        let ours = state::members::cluster_id(&ids);
        let options = OriginOptions {
            name: "b".to_owned(),
            state: ClusterState::New,
            cluster,
            token: "t".to_owned(),
            discovery: None,
            learners_max: 1,
            request_timeout: Duration::from_secs(30),
        };
        for (cluster, clients, expected) in [
            (ours.to_string(), r#"["http://c:1"]"#, "has already been bootstrapped"),
            ("1f".to_owned(), "[]", "cluster ID mismatch: "),
            (ours.to_string(), "[]", ""),
        ] {
            let body = format!(
                r#"[{{"id":{},"peerURLs":["http://10.0.0.1:1"],"clientURLs":{clients}}}]"#,
                ids[1].0
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: {cluster}\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let serve = async {
                let (mut socket, _) = peer.accept().await.unwrap();
                let mut request = [0; 1024];
                let _read = socket.read(&mut request).await.unwrap();
                socket.write_all(answer.as_bytes()).await.unwrap();
            };
            let (found, ()) = tokio::join!(origin::find(&options, &asker), serve);
            match found {
                Ok(Origin::Founder { own, members }) => {
                    assert_eq!((own, members.len(), expected), (ids[1], 2, ""));
                }
                Ok(joining) => panic!("{joining:?}"),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        }
    });
}
