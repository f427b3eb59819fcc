"""The operations of python-etcd with the server at the address given."""

import sys
import threading

import etcd
from expectations import eventually, refused


def keys(client):
    """Writing, reading, comparing, removing."""
    set_ = client.write("/py/a", "1")
    assert (set_.action, set_.value, set_.newKey) == ("set", "1", True), set_
    assert client.read("/py/a").value == "1"
    assert client.get("/py/a").value == "1"
    assert client.set("/py/a", "2")._prev_node.value == "1"
    client.update(client.read("/py/a"))
    assert client.test_and_set("/py/a", "3", "2").value == "3"
    refused(etcd.EtcdCompareFailed, lambda: client.test_and_set("/py/a", "4", "2"))
    refused(etcd.EtcdAlreadyExist, lambda: client.write("/py/a", "5", prevExist=False))
    refused(etcd.EtcdKeyNotFound, lambda: client.read("/py/none"))
    refused(etcd.EtcdNotFile, lambda: client.write("/py", "x"))
    refused(etcd.EtcdNotDir, lambda: client.write("/py/a/b", "x"))
    refused(etcd.EtcdRootReadOnly, lambda: client.delete("/", recursive=True))
    client.write("/py/dir", None, dir=True)
    first = client.write("/py/dir", "one", append=True)
    second = client.write("/py/dir", "two", append=True)
    assert first.key < second.key
    listed = client.read("/py", recursive=True, sorted=True)
    assert [leaf.value for leaf in listed.leaves] == ["3", "one", "two"], listed
    refused(etcd.EtcdDirNotEmpty, lambda: client.delete("/py/dir", dir=True))
    assert "/py/a" in client and "/py/none" not in client
    assert client.delete("/py/dir", recursive=True).action == "delete"
    assert client.pop("/py/a").value == "3"


def times(client):
    """What ends, and what is kept alive."""
    client.write("/py/t", "x", ttl=1)
    assert client.read("/py/t").ttl is not None
    client.refresh("/py/t", ttl=1000)
    assert client.read("/py/t").ttl > 500
    client.write("/py/u", "x", ttl=1)

    def is_gone():
        try:
            client.read("/py/u")
        except etcd.EtcdKeyNotFound:
            return True
        return False

    eventually(is_gone)
    assert client.read("/py/t").value == "x"


def watches(client, other):
    """Waiting for a change, and for one that was."""
    index = client.write("/py/w", "0").modifiedIndex
    told = []
    watching = threading.Thread(
        target=lambda: told.append(client.watch("/py/w", index=index + 1, timeout=60))
    )
    watching.start()
    other.write("/py/w", "1")
    watching.join(60)
    assert told and told[0].value == "1", told
    events = client.eternal_watch("/py/w", index=index)
    assert [next(events).value for _ in range(2)] == ["0", "1"]


def locks(client, other):
    """The recipe of locks, which lives on in-order keys and their times."""
    lock = etcd.Lock(client, "job")
    assert lock.acquire(blocking=True, lock_ttl=60, timeout=60)
    rival = etcd.Lock(other, "job")
    assert not rival.acquire(blocking=False, lock_ttl=60)
    lock.release()
    assert rival.acquire(blocking=True, lock_ttl=60, timeout=60)
    rival.release()


def cluster(client):
    """Members, leader, statistics."""
    members = client.members
    assert len(members) == 1, members
    assert client.leader["id"] in members
    assert client.machines and client.base_uri in client.machines
    assert client.stats["state"] == "StateLeader"
    assert client.leader_stats["followers"] == {}
    assert client.store_stats["setsSuccess"] > 0
    assert client.version


def accounts(client):
    """Users and roles."""
    from etcd import auth

    role = auth.EtcdRole(client, "reader")
    role.acls = {"/py/*": "R"}
    role.write()
    user = auth.EtcdUser(client, "guido")
    user.roles = ["reader"]
    user.password = "secret"
    user.write()
    # Reading a user back does not work with this library since etcd 2.2, which shows whole roles.
    read = auth.EtcdRole(client, "reader")
    read.read()
    assert read.acls == {"/py/*": "R"}, read.acls
    user.delete()
    role.delete()


def main(host, port):
    """Everything, in order."""
    client, other = (etcd.Client(host=host, port=port, read_timeout=120) for _ in range(2))
    keys(client)
    times(client)
    watches(client, other)
    locks(client, other)
    cluster(client)
    accounts(client)
    print("python-etcd works")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
