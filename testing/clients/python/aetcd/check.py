"""The operations of the library aetcd with the server at the address given."""

import asyncio
import io
import sys
import time

import aetcd
from aetcd import exceptions, rpc, rtypes
from expectations import EVENTUALLY


async def refused(error, text, call):
    """The call is refused with this error and text."""
    try:
        await call
    except error as refusal:
        assert text in str(refusal), refusal
        return
    raise AssertionError(f"it is not refused with {error.__name__}")


async def eventually(holds):
    """Waits until something holds."""
    end = time.monotonic() + EVENTUALLY
    while not await holds():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.1)


async def following(watch, count):
    """That many events of a watch."""
    seen = []

    async def collect():
        async for event in watch:
            seen.append((event.kind, event.kv.key, event.kv.value, event.prev_kv))
            if len(seen) == count:
                return

    await asyncio.wait_for(collect(), EVENTUALLY)
    return seen


async def keys(client):
    """Writing, reading, comparing, removing."""
    assert await client.get(b"a/none") is None
    first = await client.put(b"a/a", b"1")
    second = await client.put(b"a/a", b"2", prev_kv=True)
    assert second.prev_kv.value == b"1"
    assert second.header.revision == first.header.revision + 1
    kept = await client.get(b"a/a", serializable=True)
    assert (kept.key, kept.value, kept.version, kept.lease) == (b"a/a", b"2", 2, 0)
    assert (kept.create_revision, kept.mod_revision) == (
        first.header.revision, second.header.revision,
    )
    assert await client.replace(b"a/a", b"2", b"3")
    assert not await client.replace(b"a/a", b"2", b"4")
    # As many calls at once as one connection takes.
    await asyncio.gather(*(client.put(b"a/many/%03d" % at, b"x" * at) for at in range(300)))
    many = await client.get_prefix(b"a/many/", sort_order="ascend")
    assert many.count == 300 and not many.more
    assert [len(kept.value) for kept in many] == list(range(300))
    down = await client.get_range(b"a/many/000", b"a/many/010", sort_order="descend")
    assert [kept.key[-3:] for kept in down] == [b"%03d" % at for at in range(9, -1, -1)]
    assert all(not kept.value for kept in await client.get_all(keys_only=True))
    assert (await client.delete(b"a/a", prev_kv=True)).prev_kv.value == b"3"
    assert await client.delete(b"a/a") is None
    assert (await client.delete_range(b"a/many/000", b"a/many/100")).deleted == 100
    assert len((await client.delete_prefix(b"a/", prev_kv=True)).prev_kvs) == 200
    await refused(exceptions.InvalidArgumentError, "key is not provided", client.put(b"", b""))


async def transactions(client):
    """Compares, both branches, one inside the other."""
    of = client.transactions
    done, answers = await client.transaction(
        compare=[of.version(b"tx/a") == 0, of.create(b"tx/b") < 1],
        success=[
            of.put(b"tx/a", b"1"),
            of.get(b"tx/a"),
            of.txn(compare=[of.mod(b"tx/a") > 0], success=[], failure=[of.put(b"tx/b", b"2")]),
        ],
        failure=[of.get(b"tx/a")],
    )
    assert done and answers[1][0][0] == b"1" and not answers[2].response_txn.succeeded
    done, answers = await client.transaction(
        compare=[of.value(b"tx/b") != b"2"], success=[], failure=[of.delete(b"tx/b", prev_kv=True)]
    )
    assert not done and answers[0].response_delete_range.prev_kvs[0].value == b"2"


async def leases(client):
    """Times of keys."""
    lease = await client.lease(1000)
    await client.put(b"lease/a", b"x", lease=lease)
    assert await lease.granted_ttl() == 1000 and 900 < await lease.remaining_ttl() <= 1000
    assert list(await lease.keys()) == [b"lease/a"]
    assert (await lease.refresh()).TTL == 1000
    await lease.revoke()
    assert await client.get(b"lease/a") is None and await lease.remaining_ttl() == -1
    assert (await client.lease(1000, lease_id=88)).id == 88
    await refused(exceptions.DuplicateLeaseError, "", client.lease(5, lease_id=88))
    await client.revoke_lease(88)
    await refused(exceptions.ClientError, "lease not found", client.revoke_lease(88))
    await client.put(b"lease/b", b"x", lease=await client.lease(1))

    async def is_gone():
        return await client.get(b"lease/b") is None

    await eventually(is_gone)


async def watches(client):
    """The past and what comes; filters, many on one stream."""
    revision = (await client.put(b"w/a", b"1")).header.revision
    await client.put(b"w/b", b"2")
    await client.delete(b"w/a")
    watch = await client.watch_prefix(b"w/", start_revision=revision, prev_kv=True, fragment=True)
    seen = await following(watch, 3)
    assert [event[:3] for event in seen[:2]] == [
        ("PUT", b"w/a", b"1"), ("PUT", b"w/b", b"2"),
    ], seen
    assert seen[2][:2] == ("DELETE", b"w/a") and seen[2][3].value == b"1"
    await watch.cancel()
    for kind in (rtypes.EventKind.PUT, rtypes.EventKind.DELETE):
        watch = await client.watch_prefix(b"w/", start_revision=revision, kind=kind)
        assert (await following(watch, 1))[0][0] == kind.value
        await watch.cancel()
    own = await client.watch(b"w/own")
    many = [await client.watch(b"w/many/%d" % at) for at in range(50)]
    await client.put(b"w/own", b"1")
    await asyncio.gather(*(client.put(b"w/many/%d" % at, b"%d" % at) for at in range(50)))
    assert (await following(own, 1))[0][2] == b"1"
    for at, watch in enumerate(many):
        assert (await following(watch, 1))[0][2] == b"%d" % at
        await watch.cancel()
    once = await client.watch_once(b"w/b", timeout=EVENTUALLY, start_revision=revision)
    assert once.kv.value == b"2"
    await refused(exceptions.WatchTimeoutError, "", client.watch_once(b"w/none", timeout=0.2))


async def locks(client):
    """A key with a lease, waited for by watching removals."""
    lock, rival = client.lock(b"job", ttl=60), client.lock(b"job", ttl=60)
    assert await lock.acquire() and await lock.is_acquired()
    assert not await rival.acquire(timeout=0)
    waiting = asyncio.create_task(rival.acquire(timeout=EVENTUALLY))
    assert (await lock.refresh()).TTL == 60
    assert await lock.release() and await waiting
    assert await rival.is_acquired() and await rival.release()


async def cluster(client):
    """Members, status, alarms, hash, compaction, defragmentation, snapshot."""
    members = [member async for member in client.members()]
    status = await client.status()
    assert len(members) == 1 and status.leader.id == members[0].id
    assert status.version.startswith("3.") and status.db_size > 0 and status.raft_term > 0
    await members[0].update(members[0].peer_urls)
    await refused(
        exceptions.PreconditionFailedError,
        "Peer URLs already exists",
        client.add_member(members[0].peer_urls),
    )
    await refused(exceptions.ClientError, "member not found", client.remove_member(4711))
    assert len(await client.create_alarm()) == 1
    alarms = [alarm async for alarm in client.list_alarms()]
    assert [alarm.alarm_type for alarm in alarms] == [rpc.NOSPACE], alarms
    await refused(exceptions.ClientError, "database space exceeded", client.put(b"full", b"x"))
    assert len(await client.disarm_alarm()) == 1
    revision = (await client.put(b"full", b"no more")).header.revision
    assert await client.hash() != 0
    await client.compact(revision, physical=True)
    await refused(exceptions.ClientError, "has been compacted", client.compact(revision))
    await refused(
        exceptions.RevisionCompactedError,
        f"{revision}",
        following(await client.watch(b"full", start_revision=2), 1),
    )
    await client.defragment()
    saved = io.BytesIO()
    await client.snapshot(saved)
    # Whole pages, and a checksum behind.
    assert saved.tell() % 512 == 32, saved.tell()


async def accounts(client, host, port):
    """Users and passwords; the library can only use them, so the raw calls make them."""
    auth = rpc.AuthStub(client.channel)
    for name in ("root", "guido"):
        await auth.UserAdd(rpc.AuthUserAddRequest(name=name, password="secret"))
    await auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
    await auth.AuthEnable(rpc.AuthEnableRequest())
    await refused(exceptions.InvalidArgumentError, "user name is empty", client.get(b"a"))
    wrong = aetcd.Client(host, port, username="guido", password="perl", timeout=EVENTUALLY)
    await refused(exceptions.InvalidArgumentError, "authentication failed", wrong.get(b"a"))
    guido = aetcd.Client(host, port, username="guido", password="secret", timeout=EVENTUALLY)
    await refused(exceptions.ClientError, "permission denied", guido.get(b"a"))
    await guido.close()
    async with aetcd.Client(host, port, username="root", password="secret") as root:
        await root.put(b"a", b"1")
        stub = rpc.AuthStub(root.channel)
        await stub.AuthDisable(rpc.AuthDisableRequest(), metadata=root.metadata)
    assert (await client.get(b"a")).value == b"1"


async def main(host, port):
    """Everything, in order."""
    async with aetcd.Client(host, port, timeout=EVENTUALLY) as client:
        await keys(client)
        await transactions(client)
        await leases(client)
        await watches(client)
        await locks(client)
        await cluster(client)
        await accounts(client, host, port)
    print("aetcd works")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
