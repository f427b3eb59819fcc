"""The operations of the library etcd3 with the server at the address given."""

import io
import sys
import threading

import etcd3
import grpc
from etcd3 import events, exceptions
from expectations import EVENTUALLY, eventually, refused


def keys(client):
    """Writing, reading, comparing, removing."""
    assert client.get("/py/none") == (None, None)
    first = client.put("/py/a", "1")
    assert first.header.revision > 1 and first.header.cluster_id and first.header.member_id
    assert client.put("/py/a", "2", prev_kv=True).prev_kv.value == b"1"
    value, about = client.get("/py/a")
    assert (value, about.key, about.version) == (b"2", b"/py/a", 2)
    assert about.create_revision == first.header.revision == about.mod_revision - 1
    assert about.response_header.raft_term > 0
    assert client.get("/py/a", serializable=True)[0] == b"2"
    assert client.put_if_not_exists("/py/b", "3")
    assert not client.put_if_not_exists("/py/b", "4")
    assert client.replace("/py/b", "3", "5") and not client.replace("/py/b", "3", "6")
    # The empty value and every byte.
    client.put(b"/py/\x00\xff", bytes(range(256)))
    assert client.get(b"/py/\x00\xff")[0] == bytes(range(256))
    client.put("/py/c", "")
    assert client.get("/py/c")[0] == b""
    listed = [(about.key, value) for value, about in client.get_prefix("/py/")]
    assert [key for key, _ in listed] == [b"/py/\x00\xff", b"/py/a", b"/py/b", b"/py/c"]
    down = client.get_prefix("/py/", sort_order="descend", sort_target="mod", keys_only=True)
    assert [(value, about.key[4:]) for value, about in down] == [
        (b"", b"c"), (b"", b"\x00\xff"), (b"", b"b"), (b"", b"a"),
    ]
    by_value = client.get_range("/py/a", "/py/c", sort_order="ascend", sort_target="value")
    assert [value for value, _ in by_value] == [b"2", b"5"]
    by_version = client.get_prefix("/py/", sort_order="descend", sort_target="version")
    assert next(by_version)[1].key == b"/py/a"
    assert len(list(client.get_all())) == 4
    assert client.delete("/py/none") is False
    gone = client.delete("/py/a", prev_kv=True, return_response=True)
    assert (gone.deleted, gone.prev_kvs[0].value) == (1, b"2")
    assert client.delete_prefix("/py/").deleted == 3
    assert not list(client.get_all(keys_only=True))
    error = refused(grpc.RpcError, lambda: client.put("", "x"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "etcdserver: key is not provided"


def transactions(client):
    """Compares of every kind, both branches, one inside the other."""
    of = client.transactions
    created = client.put("/tx/a", "1").header.revision
    done, answers = client.transaction(
        compare=[
            of.value("/tx/a") == "1",
            of.value("/tx/a") != "2",
            of.version("/tx/a") > 0,
            of.version("/tx/a") < 2,
            of.create("/tx/a") == created,
            of.mod("/tx/a") == created,
            of.create("/tx/none") == 0,
        ],
        success=[
            of.put("/tx/b", "2"),
            of.get("/tx/a"),
            of.txn(
                # All compares are of what was before.
                compare=[of.version("/tx/b") == 0],
                success=[of.put("/tx/c", "3")],
                failure=[of.delete("/tx/a")],
            ),
            of.delete("/tx/a", prev_kv=True),
        ],
        failure=[of.put("/tx/d", "4")],
    )
    assert done, answers
    assert answers[0].response_put.header.revision == created + 1
    assert answers[1][0][0] == b"1"
    assert answers[2].response_txn.succeeded
    assert answers[3].response_delete_range.prev_kvs[0].value == b"1"
    assert [about.key for _, about in client.get_prefix("/tx/")] == [b"/tx/b", b"/tx/c"]
    done, answers = client.transaction(
        compare=[of.version("/tx/b") == 7], success=[], failure=[of.get("/tx/b")]
    )
    assert not done and answers[0][0][0] == b"2"
    twice = [of.put("/tx/e", "1"), of.put("/tx/e", "2")]
    error = refused(grpc.RpcError, lambda: client.transaction([], twice, []))
    assert error.details() == "etcdserver: duplicate key given in txn request"


def leases(client):
    """Times of keys."""
    lease = client.lease(1000)
    client.put("/lease/a", "x", lease=lease)
    assert (lease.ttl, lease.granted_ttl, list(lease.keys)) == (1000, 1000, [b"/lease/a"])
    assert 900 < lease.remaining_ttl <= 1000
    assert client.get("/lease/a")[1].lease_id == lease.id
    assert lease.refresh()[0].TTL == 1000
    lease.revoke()
    assert client.get("/lease/a") == (None, None)
    assert lease.remaining_ttl == -1
    assert lease.refresh()[0].TTL == 0
    assert client.lease(1000, lease_id=77).id == 77
    error = refused(exceptions.PreconditionFailedError, lambda: client.lease(5, lease_id=77))
    assert error is not None
    client.revoke_lease(77)
    error = refused(grpc.RpcError, lambda: client.revoke_lease(77))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found",
    )
    client.put("/lease/b", "x", lease=client.lease(1))
    eventually(lambda: client.get("/lease/b")[0] is None)


def watches(client):
    """The past and what comes, of one key and of many, with what was before."""
    revision = client.put("/w/a", "1").header.revision
    client.put("/w/b", "2")
    client.delete("/w/a")
    seen, stop = client.watch_prefix("/w/", start_revision=revision, prev_kv=True)
    told = [next(seen) for _ in range(3)]
    assert [type(event) for event in told] == [
        events.PutEvent, events.PutEvent, events.DeleteEvent,
    ]
    assert [(event.key, event.value) for event in told[:2]] == [(b"/w/a", b"1"), (b"/w/b", b"2")]
    assert told[2].prev_value == b"1" and told[2].mod_revision == revision + 2
    client.put("/w/c", "3")
    assert next(seen).value == b"3"
    stop()
    answers, stop = client.watch_response("/w/a", start_revision=revision)
    answer = next(answers)
    assert len(answer.events) == 2 and answer.header.revision >= revision + 3
    stop()
    told, done = [], threading.Event()

    def on_answer(answer):
        told.extend(answer.events)
        if len(told) == 2:
            done.set()

    watch = client.add_watch_callback("/w/d", on_answer)
    client.put("/w/d", "1")
    client.put("/w/dd", "none of it")
    client.put("/w/d", "2")
    assert done.wait(EVENTUALLY), told
    client.cancel_watch(watch)
    assert [event.value for event in told] == [b"1", b"2"]
    once = client.watch_once("/w/b", timeout=EVENTUALLY, start_revision=revision)
    assert once.value == b"2"
    refused(exceptions.WatchTimedOut, lambda: client.watch_once("/w/none", timeout=0.2))
    # Two watches of one stream.
    one, stop_one = client.watch("/w/one")
    two, stop_two = client.watch("/w/two")
    client.put("/w/two", "2")
    client.put("/w/one", "1")
    assert (next(one).value, next(two).value) == (b"1", b"2")
    stop_one()
    stop_two()


def locks(client, other):
    """The recipe of locks: a key with a lease, waited for by watching."""
    lock, rival = client.lock("job", ttl=60), other.lock("job", ttl=60)
    assert lock.acquire() and lock.is_acquired()
    assert not rival.acquire(timeout=0) and not rival.is_acquired()
    assert lock.refresh()[0].TTL == 60
    assert lock.release() and not lock.is_acquired()
    with rival:
        assert rival.is_acquired()
        # It ends by itself when nobody refreshes it.
    short = client.lock("short", ttl=1)
    assert short.acquire()
    eventually(lambda: not short.is_acquired())


def cluster(client):
    """Members, status, alarms, hash, compaction, defragmentation, snapshot."""
    members = list(client.members)
    assert len(members) == 1 and members[0].client_urls and members[0].name
    status = client.status()
    assert status.leader.id == members[0].id
    assert status.version.startswith("3.") and status.db_size > 0 and status.raft_index > 0
    # A member that never comes would stop a cluster of one: what is refused shows the call works.
    taken = members[0].peer_urls
    error = refused(exceptions.PreconditionFailedError, lambda: client.add_member(taken))
    assert error is not None
    error = refused(grpc.RpcError, lambda: client.remove_member(4711))
    assert error.details() == "etcdserver: member not found"
    members[0].update(taken)
    assert list(client.list_alarms()) == [] == list(members[0].active_alarms)
    raised = client.create_alarm()
    assert [(alarm.alarm_type, alarm.member_id) for alarm in raised] == [(1, 0)]
    assert len(list(client.list_alarms())) == 1
    error = refused(grpc.RpcError, lambda: client.put("full", "x"))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "etcdserver: mvcc: database space exceeded"
    assert len(client.disarm_alarm()) == 1
    revision = client.put("full", "no more").header.revision
    assert client.hash() != 0
    client.compact(revision, physical=True)
    error = refused(grpc.RpcError, lambda: client.compact(revision))
    assert error.code() == grpc.StatusCode.OUT_OF_RANGE
    assert error.details() == "etcdserver: mvcc: required revision has been compacted"
    too_old, _ = client.watch("full", start_revision=2)
    refused(exceptions.RevisionCompactedError, lambda: next(too_old))
    client.defragment()
    saved = io.BytesIO()
    client.snapshot(saved)
    # A page of the database begins with its number and kind; behind the pages is a checksum.
    assert saved.tell() % 512 == 32, saved.tell()


def accounts(client, host, port):
    """Users and passwords; the library can only use them, so the raw calls make them."""
    from etcd3.etcdrpc import rpc_pb2, rpc_pb2_grpc

    auth = rpc_pb2_grpc.AuthStub(client.channel)
    auth.UserAdd(rpc_pb2.AuthUserAddRequest(name="root", password="secret"))
    auth.UserGrantRole(rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
    auth.RoleAdd(rpc_pb2.AuthRoleAddRequest(name="reader"))
    grant = rpc_pb2.AuthRoleGrantPermissionRequest(name="reader")
    grant.perm.permType, grant.perm.key, grant.perm.range_end = 0, b"/auth/", b"/auth0"
    auth.RoleGrantPermission(grant)
    auth.UserAdd(rpc_pb2.AuthUserAddRequest(name="guido", password="python"))
    auth.UserGrantRole(rpc_pb2.AuthUserGrantRoleRequest(user="guido", role="reader"))
    auth.AuthEnable(rpc_pb2.AuthEnableRequest())
    error = refused(grpc.RpcError, lambda: client.get("/auth/a"))
    assert error.details() == "etcdserver: user name is empty"

    def signed_in(user, password):
        signed = etcd3.client(host, port, timeout=EVENTUALLY, user=user, password=password)
        # The token goes as a header too; as a credential it is for TLS only since grpcio 1.5x.
        signed.call_credentials = signed.watcher._credentials = None
        return signed

    error = refused(grpc.RpcError, lambda: signed_in("guido", "perl"))
    assert error.details() == "etcdserver: authentication failed, invalid user ID or password"
    root = signed_in("root", "secret")
    root.put("/auth/a", "1")
    guido = signed_in("guido", "python")
    assert guido.get("/auth/a")[0] == b"1"
    error = refused(grpc.RpcError, lambda: guido.put("/auth/a", "2"))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied",
    )
    seen, stop = guido.watch_prefix("/auth/")
    root.put("/auth/b", "2")
    assert next(seen).value == b"2"
    stop()
    rpc_pb2_grpc.AuthStub(root.channel).AuthDisable(
        rpc_pb2.AuthDisableRequest(), metadata=root.metadata
    )
    client.put("/auth/a", "3")


def main(host, port):
    """Everything, in order."""
    client, other = (etcd3.client(host, port, timeout=EVENTUALLY) for _ in range(2))
    keys(client)
    transactions(client)
    leases(client)
    watches(client)
    locks(client, other)
    cluster(client)
    accounts(client, host, port)
    print("etcd3 of Python works")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
