//! The operations of the crate `etcd` with the server at the address given.

use etcd::auth::{self, AuthChange, NewUser, Role};
use etcd::kv::{self, Action, GetOptions, WatchOptions};
use etcd::{members, stats, Client, Error};
use futures::{Future, Stream};
use tokio::runtime::Runtime;

/// Waits for an answer.
fn wait<T, E>(
    runtime: &mut Runtime,
    work: impl Future<Item = T, Error = E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    runtime.block_on(work)
}

/// The server refused with this code.
fn refused<T: std::fmt::Debug>(answer: Result<T, Vec<Error>>, code: u64) {
    match answer {
        Err(errors) => match &errors[..] {
            [Error::Api(error)] => assert_eq!(error.error_code, code, "{error:?}"),
            other => panic!("{other:?}"),
        },
        Ok(answer) => panic!("it is not refused: {answer:?}"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let url = format!("http://{}:{}", arguments[1], arguments[2]);
    let client = Client::new(&[&url], None).expect("a URL");
    let runtime = &mut Runtime::new().expect("threads");

    let set = wait(runtime, kv::set(&client, "/rs/a", "1", None)).expect("set");
    assert_eq!(set.data.action, Action::Set);
    let cluster = set.cluster_info;
    assert!(cluster.etcd_index.is_some() && cluster.raft_index.is_some());
    assert!(cluster.cluster_id.is_some() && cluster.raft_term.is_some());
    let get = wait(runtime, kv::get(&client, "/rs/a", GetOptions::default())).expect("get");
    assert_eq!(get.data.node.value.as_deref(), Some("1"));
    let index = get.data.node.modified_index;
    let swap = kv::compare_and_swap(&client, "/rs/a", "2", Some(1000), Some("1"), index);
    let swapped = wait(runtime, swap).expect("compare and swap").data;
    assert_eq!(swapped.action, Action::CompareAndSwap);
    assert!(swapped.node.ttl.is_some_and(|ttl| ttl > 0));
    let swap = kv::compare_and_swap(&client, "/rs/a", "3", None, Some("1"), None);
    refused(wait(runtime, swap), 101);
    refused(wait(runtime, kv::create(&client, "/rs/a", "x", None)), 105);
    refused(wait(runtime, kv::update(&client, "/rs/none", "x", None)), 100);
    let updated = wait(runtime, kv::update(&client, "/rs/a", "4", None)).expect("update").data;
    assert_eq!((updated.action, updated.node.ttl), (Action::Update, None));

    wait(runtime, kv::create_dir(&client, "/rs/d", None)).expect("create a directory");
    let first = wait(runtime, kv::create_in_order(&client, "/rs/d", "one", None)).expect("first");
    let second = wait(runtime, kv::create_in_order(&client, "/rs/d", "two", None)).expect("second");
    assert!(first.data.node.key < second.data.node.key);
    let all = GetOptions { recursive: true, sort: true, strong_consistency: true };
    let tree = wait(runtime, kv::get(&client, "/rs", all)).expect("get all").data.node;
    let nodes = tree.nodes.expect("a directory has nodes");
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[1].nodes.as_ref().map(Vec::len), Some(2));
    refused(wait(runtime, kv::delete_dir(&client, "/rs/d")), 108);

    let since = first.data.node.modified_index;
    let options = WatchOptions { index: since, recursive: true, timeout: None };
    let past = wait(runtime, kv::watch(&client, "/rs/d", options)).expect("watch the past");
    assert_eq!(past.data.node.value.as_deref(), Some("one"));
    let next = second.data.node.modified_index.map(|index| index + 1);
    let options = WatchOptions { index: next, recursive: true, timeout: None };
    let future = kv::watch(&client, "/rs", options);
    let writing = kv::set(&client, "/rs/w", "x", None);
    let both = future.map_err(|error| format!("{error:?}")).join(
        writing.map_err(|error| format!("{error:?}")),
    );
    let (event, _) = wait(runtime, both).expect("watch and set");
    assert_eq!(event.data.node.key.as_deref(), Some("/rs/w"));

    let removal = kv::compare_and_delete(&client, "/rs/a", Some("4"), None);
    let removed = wait(runtime, removal).expect("compare and delete").data;
    assert_eq!(removed.action, Action::CompareAndDelete);
    let gone = wait(runtime, kv::delete(&client, "/rs", true)).expect("delete").data;
    assert_eq!(gone.prev_node.and_then(|node| node.dir), Some(true));

    let members = wait(runtime, members::list(&client)).expect("members").data;
    assert_eq!(members.len(), 1);
    let own = wait(runtime, stats::self_stats(&client).collect()).expect("own statistics");
    assert_eq!(own[0].data.leader_info.id, own[0].data.id);
    let leader = wait(runtime, stats::leader_stats(&client)).expect("the leader's statistics");
    assert!(leader.data.followers.is_empty());
    let store = wait(runtime, stats::store_stats(&client).collect()).expect("the store's");
    assert!(store[0].data.set_success > 0);
    wait(runtime, client.versions().collect()).expect("versions");
    wait(runtime, client.health().collect()).expect("health");

    assert!(!wait(runtime, auth::status(&client)).expect("whether there is auth").data);
    let role = Role::new("crab");
    let made = wait(runtime, auth::create_role(&client, role)).expect("a role").data;
    assert_eq!(made.name(), "crab");
    let mut user = NewUser::new("ferris", "secret");
    user.add_role("crab");
    let made = wait(runtime, auth::create_user(&client, user)).expect("a user").data;
    assert_eq!((made.name(), made.role_names()), ("ferris", &["crab".to_owned()][..]));
    let users = wait(runtime, auth::get_users(&client)).expect("users").data;
    assert!(users.iter().any(|user| user.name() == "ferris"));
    wait(runtime, auth::delete_user(&client, "ferris")).expect("no user");
    wait(runtime, auth::delete_role(&client, "crab")).expect("no role");
    assert_eq!(wait(runtime, auth::disable(&client)).expect("off").data, AuthChange::Unchanged);
    println!("the crate etcd works");
}
