//! When a call is tried again, and when it must not be.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use proto::etcdserverpb::{PutRequest, RangeRequest, ResponseHeader, WatchResponse};
use proto::mvccpb::{Event, KeyValue};
use retcd_client::{Applied, Client, Options, TlsOptions, WatchOptions};
use support::{End, Member, Wire};
use tonic::Status;

/// An address where nobody listens.
fn nobody() -> String {
    ports::free_address().unwrap().to_string()
}

async fn connect(endpoints: &[String], timeout: Duration) -> Client {
    let mut options = Options::new(endpoints.to_vec());
    options.command_timeout = Some(timeout);
    Client::connect(options).await.unwrap()
}

/// What a server says first.
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What a server that ends says: no request counts, and there is no error.
const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// G7.
#[tokio::test]
async fn write_that_reached_a_member_is_not_sent_again() {
    let member = Member::default();
    let failure = Status::unavailable("etcdserver: leader changed");
    member.script.lock().unwrap().failures.push_back(failure);
    let client = connect(&[member.start().to_string()], LONG).await;
    let error = client.put(PutRequest::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: leader changed");
    assert_eq!(error.applied(), Applied::Unknown);
    assert_eq!(member.script.lock().unwrap().puts, 1);
}

/// G7.
#[tokio::test]
async fn write_on_a_connection_that_breaks_is_not_sent_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Begins to speak, takes a part of the request, and hangs up. A second connection would be
    // counted.
    let connections = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &EMPTY_SETTINGS).unwrap();
        // What comes before a request is shorter.
        let mut begun = [0; 120];
        std::io::Read::read_exact(&mut stream, &mut begun).unwrap();
        drop(stream);
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let client = connect(&[address], LONG).await;
    let error = client.put(PutRequest::default()).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Unknown);
    let listener = connections.join().unwrap();
    assert!(listener.accept().is_err(), "nobody came back");
}

/// G7: a server that ends says which requests it has not looked at.
#[tokio::test]
async fn write_that_a_server_at_its_end_did_not_look_at_goes_on() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ending = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &EMPTY_SETTINGS).unwrap();
        // What comes before a request is shorter.
        let mut begun = [0; 120];
        std::io::Read::read_exact(&mut stream, &mut begun).unwrap();
        std::io::Write::write_all(&mut stream, &GO_AWAY).unwrap();
        // Until the client has closed its side.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    let member = Member::default();
    let client = connect(&[address, member.start().to_string()], LONG).await;
    client.put(PutRequest::default()).await.unwrap();
    assert_eq!(member.script.lock().unwrap().puts, 1);
    ending.join().unwrap();
}

/// G7: a port that takes connections and says nothing of HTTP/2 was never connected to.
#[tokio::test]
async fn write_goes_on_from_an_endpoint_that_hangs_up() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let member = Member::default();
    let client = connect(&[address, member.start().to_string()], LONG).await;
    client.put(PutRequest::default()).await.unwrap();
    assert_eq!(member.script.lock().unwrap().puts, 1);
}

/// G7.
#[tokio::test]
async fn refused_write_is_known_not_to_be_applied() {
    let member = Member::default();
    let failure = Status::failed_precondition("etcdserver: key is not provided");
    member.script.lock().unwrap().failures.push_back(failure);
    let client = connect(&[member.start().to_string()], LONG).await;
    let error = client.put(PutRequest::default()).await.unwrap_err();
    assert_eq!(error.applied(), Applied::No);
}

/// G7.
#[tokio::test]
async fn write_goes_to_the_next_endpoint_if_none_listens_at_the_first() {
    let member = Member::default();
    let client = connect(&[nobody(), member.start().to_string()], LONG).await;
    client.put(PutRequest::default()).await.unwrap();
    assert_eq!(member.script.lock().unwrap().puts, 1);
}

/// CTL3-18.
#[tokio::test]
async fn call_to_nobody_ends_at_the_deadline_without_effect() {
    let client = connect(&[nobody()], SHORT).await;
    let error = client.put(PutRequest::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
    assert_eq!(error.applied(), Applied::No);
}

#[tokio::test]
async fn read_is_repeated_while_the_member_is_unavailable() {
    let member = Member::default();
    for _ in 0..3 {
        let failure = Status::unavailable("etcdserver: leader changed");
        member.script.lock().unwrap().failures.push_back(failure);
    }
    let client = connect(&[member.start().to_string()], LONG).await;
    client.get(RangeRequest::default()).await.unwrap();
    assert_eq!(member.script.lock().unwrap().gets, 4);
}

/// CTL3-11.
#[tokio::test]
async fn too_large_request_is_not_sent() {
    let member = Member::default();
    let client = connect(&[member.start().to_string()], LONG).await;
    let value = vec![0; 3_000_000].into();
    let error = client.put(PutRequest { value, ..PutRequest::default() }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max \
         (3000005 vs. 2097152)"
    );
    assert_eq!(error.applied(), Applied::No);
    assert_eq!(member.script.lock().unwrap().puts, 0);
}

/// CTL3-33.
#[tokio::test]
async fn pieces_of_a_range_become_one() {
    let member = Member::default();
    let client = connect(&[member.start().to_string()], LONG).await;
    let range = client.get_stream(RangeRequest::default()).await.unwrap();
    let keys: Vec<_> = range.kvs.into_iter().map(|pair| pair.key).collect();
    assert_eq!((keys, range.count), (vec!["a".into(), "b".into()], 2));
}

#[tokio::test]
async fn client_without_endpoints_or_with_bad_files_is_refused() {
    let error = Client::connect(Options::new(Vec::new())).await.unwrap_err();
    assert_eq!(error.to_string(), "etcdclient: no available endpoints");
    let mut options = Options::new(vec!["127.0.0.1:1".to_owned()]);
    options.tls = Some(TlsOptions { certificate: Some("cert.pem".into()), ..Default::default() });
    let error = Client::connect(options.clone()).await.unwrap_err();
    let half = "KeyFile and CertFile must both be present[key: , cert: cert.pem]";
    assert_eq!(error.to_string(), half);
    options.tls = Some(TlsOptions { authorities: Some("/none.pem".into()), ..Default::default() });
    let error = Client::connect(options).await.unwrap_err();
    assert_eq!(error.to_string(), "open /none.pem: no such file or directory");
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn created(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), created: true, ..WatchResponse::default() }
}

fn event(revision: i64) -> WatchResponse {
    let pair = KeyValue { mod_revision: revision, ..KeyValue::default() };
    let event = Event { kv: Some(pair), ..Event::default() };
    WatchResponse { header: header(revision), events: vec![event], ..WatchResponse::default() }
}

fn canceled(compact_revision: i64) -> WatchResponse {
    WatchResponse { canceled: true, compact_revision, ..WatchResponse::default() }
}

#[tokio::test]
async fn broken_watch_goes_on_behind_the_last_event() {
    let member = Member::default();
    let broken = || End::Failed(Status::unavailable("broken"));
    member.script.lock().unwrap().watch_answers.extend([
        // Broken before any event: those after revision 5 were promised.
        (vec![created(5)], broken()),
        (vec![created(7), event(6), event(7)], broken()),
        (vec![created(7), event(8), canceled(8)], End::Closed),
    ]);
    let client = connect(&[member.start().to_string()], LONG).await;
    let mut watcher = client.watch(WatchOptions::default());
    let mut revisions = Vec::new();
    while let Some(response) = watcher.next().await {
        let response = response.unwrap();
        revisions
            .extend(response.events.iter().map(|event| event.kv.clone().unwrap().mod_revision));
    }
    assert_eq!(revisions, [6, 7, 8]);
    assert_eq!(member.script.lock().unwrap().watches, [0, 6, 8]);
}

#[tokio::test]
async fn watch_survives_its_connection() {
    let member = Member::default();
    member.script.lock().unwrap().watch_answers.extend([
        (vec![created(5), event(6)], End::Open),
        (vec![created(7), event(7), canceled(7)], End::Closed),
    ]);
    let wire = Wire::to(member.start()).await;
    let client = connect(&[wire.address.to_string()], LONG).await;
    let mut watcher = client.watch(WatchOptions::default());
    assert_eq!(watcher.next().await.unwrap().unwrap().events.len(), 1);
    wire.cut();
    assert_eq!(watcher.next().await.unwrap().unwrap().events.len(), 1);
    assert_eq!(member.script.lock().unwrap().watches, [0, 7]);
}

/// CTL3-48.
#[tokio::test]
async fn refused_watch_ends() {
    let member = Member::default();
    let refused = End::Failed(Status::permission_denied("etcdserver: permission denied"));
    member.script.lock().unwrap().watch_answers.push_back((Vec::new(), refused));
    let client = connect(&[member.start().to_string()], LONG).await;
    let mut watcher = client.watch(WatchOptions::default());
    let error = watcher.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: permission denied");
    assert!(watcher.next().await.is_none());
}

#[test]
fn futures_of_calls_can_move_between_threads() {
    fn check<T: Send>(_: impl FnOnce(Client) -> T) {}
    check(|client| async move { client.put(PutRequest::default()).await });
    check(|client| async move { client.watch(WatchOptions::default()).next().await });
    check(|client| async move { client.lease_keep_alive(1).next().await });
}
