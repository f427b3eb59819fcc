"""The operations of the library etcd3gw with the JSON gateway of the server at the address given."""

import base64
import sys
import threading

import etcd3gw
from etcd3gw import exceptions
from expectations import EVENTUALLY, eventually, refused


def keys(client):
    """Writing, reading, comparing, removing."""
    assert client.api_path == "/v3/"
    assert client.get("gw/none") == []
    assert client.put("gw/a", "1") and client.get("gw/a") == [b"1"]
    assert client.put("gw/a", "2")
    [(value, about)] = client.get("gw/a", metadata=True)
    assert (value, about["key"], about["version"]) == (b"2", b"gw/a", "2"), about
    assert int(about["mod_revision"]) == int(about["create_revision"]) + 1
    assert client.get("gw/a", revision=int(about["create_revision"])) == [b"1"]
    assert client.create("gw/b", "3") and not client.create("gw/b", "4")
    assert client.replace("gw/b", "3", "5") and not client.replace("gw/b", "3", "6")
    raw = bytes(range(256))
    client.put(b"gw/raw", raw)
    assert client.get("gw/raw", serializable=True) == [raw]
    client.put("gw/empty", "")
    listed = client.get_prefix("gw/", sort_order="descend", sort_target="mod")
    in_order = [(about["key"], value) for value, about in listed]
    assert in_order[0] == (b"gw/empty", b""), in_order
    assert [key for key, _ in in_order[1:]] == [b"gw/raw", b"gw/b", b"gw/a"], in_order
    assert len(client.get("gw/a", range_end="gw/c", limit=1)) == 1
    assert client.get("gw/a", range_end="gw/c", min_mod_revision=int(about["mod_revision"]) + 1)
    assert len(client.get_all()) == 4
    assert not client.delete("gw/none") and client.delete("gw/a", prev_kv=True)
    assert client.delete_prefix("gw/") and client.get_all() == []
    error = refused(exceptions.Etcd3Exception, lambda: client.put("", "x"))
    assert "etcdserver: key is not provided" in str(error) + str(error.detail_text), error


def transactions(client):
    """The message itself, names and numbers of enums."""

    def encoded(text):
        return base64.b64encode(text.encode()).decode()

    answer = client.transaction(
        {
            "compare": [
                {"key": encoded("tx/a"), "target": "VERSION", "result": "LESS", "version": 1},
                {"key": encoded("tx/b"), "target": 1, "result": 0, "create_revision": "0"},
            ],
            "success": [
                {"request_put": {"key": encoded("tx/a"), "value": encoded("1")}},
                {"request_range": {"key": encoded("tx/a")}},
            ],
            "failure": [],
        }
    )
    assert answer["succeeded"] is True
    assert "response_put" in answer["responses"][0]
    kept = answer["responses"][1]["response_range"]["kvs"][0]
    assert base64.b64decode(kept["value"]) == b"1", kept
    revision = int(answer["header"]["revision"])
    client.post(client.get_url("/kv/compaction"), json={"revision": revision})
    error = refused(exceptions.Etcd3Exception, lambda: client.get("tx/a", revision=1))
    assert "required revision has been compacted" in error.detail_text, error.detail_text


def leases(client):
    """Times of keys."""
    lease = client.lease(1000)
    client.put("lease/a", "x", lease=lease)
    assert client.create("lease/b", "y", lease=lease)
    assert sorted(lease.keys()) == [b"lease/a", b"lease/b"]
    assert 900 < lease.ttl() <= 1000 and lease.refresh() == 1000
    assert lease.revoke() and client.get("lease/a") == []
    assert (lease.ttl(), lease.refresh(), lease.keys()) == (-1, -1, [])
    client.put("lease/c", "x", lease=client.lease(1))
    eventually(lambda: client.get("lease/c") == [])


def watches(client):
    """The past and what comes; an event is a piece of the stream of its own."""
    client.put("w/a", "1")
    [(_, about)] = client.get("w/a", metadata=True)
    revision = int(about["mod_revision"])
    client.delete("w/a")
    seen, stop = client.watch_prefix("w/", start_revision=revision, prev_kv=True)
    first, second = next(seen), next(seen)
    assert (first["kv"]["key"], first["kv"]["value"]) == (b"w/a", b"1") and "type" not in first
    assert second["type"] == "DELETE" and second["prev_kv"]["value"] == "MQ==", second
    # One after the other, as fast as they come.
    writers = [
        threading.Thread(target=lambda: [client.put("w/many", str(at)) for at in range(50)])
        for client in (etcd3gw.client(client.host, client.port) for _ in range(2))
    ]
    for writer in writers:
        writer.start()
    assert len([next(seen) for _ in range(100)]) == 100
    for writer in writers:
        writer.join()
    stop()
    seen, stop = client.watch("w/a", start_revision=revision, filters=["NOPUT"])
    assert next(seen)["type"] == "DELETE"
    stop()
    once = client.watch_once("w/a", timeout=EVENTUALLY, start_revision=revision)
    assert once["kv"]["value"] == b"1"
    refused(exceptions.WatchTimedOut, lambda: client.watch_prefix_once("none/", timeout=0.2))


def locks(client):
    """A key with a lease."""
    lock, rival = client.lock("job", ttl=60), client.lock("job", ttl=60)
    assert lock.acquire() and lock.is_acquired() and lock.refresh() == 60
    assert not rival.acquire() and not rival.is_acquired()
    assert not rival.release() and lock.release()
    with rival:
        assert rival.is_acquired()
    short = client.lock("short", ttl=1)
    assert short.acquire()
    eventually(lambda: not short.is_acquired())


def cluster(client):
    """Members and status."""
    [member] = client.members()
    status = client.status()
    assert member["ID"] == status["leader"] == status["header"]["member_id"], status
    assert member["clientURLs"] and member["peerURLs"] and member["name"]
    assert status["version"].startswith("3.") and int(status["dbSize"]) > 0, status


def accounts(client):
    """Users and passwords by the library's own session."""

    def call(path, **fields):
        return client.post(client.get_url(path), json=fields)

    call("/auth/user/add", name="root", password="secret")
    call("/auth/user/grant", user="root", role="root")
    call("/auth/enable")
    refused(exceptions.Etcd3Exception, lambda: client.put("a", "1"))
    token = call("/auth/authenticate", name="root", password="secret")["token"]
    client.session.headers["Authorization"] = token
    assert client.put("a", "1")
    client.session.headers["Authorization"] = "wrong.1"
    error = refused(exceptions.Etcd3Exception, lambda: client.put("a", "1"))
    assert "invalid auth token" in error.detail_text, error.detail_text
    client.session.headers["Authorization"] = token
    call("/auth/disable")


def main(host, port):
    """Everything, in order."""
    client = etcd3gw.client(host, port, timeout=EVENTUALLY)
    keys(client)
    transactions(client)
    leases(client)
    watches(client)
    locks(client)
    cluster(client)
    accounts(client)
    print("etcd3gw works")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
