"""Two nodes of Patroni and PostgreSQL that find their leader in the store whose program is given.

Arguments: the section of Patroni's configuration that names the store (`etcd` is API v2, `etcd3` is
API v3), the program of the store, a folder of the own, the folder of PostgreSQL's programs, and six
free ports with commas between them.
"""

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import psycopg
import yaml

# Seconds that something may take that must happen.
EVENTUALLY = 180

# Seconds after which a leader that says nothing is none any more, and how long a leader asks a store
# that does not answer before it resigns.
LEADER_TIME, STORE_TIME = 30, 10


def eventually(holds, what):
    """Waits until something holds, which is returned; says how long it took."""
    began = time.monotonic()
    while True:
        found = holds()
        took = time.monotonic() - began
        if found:
            if 0.1 < took:
                print(f"{took:5.1f} s: {what}", flush=True)
            return found
        assert took < EVENTUALLY, f"it never happened: {what}"
        time.sleep(0.2)


def started(line, log, **options):
    """A process in the background with its own log."""
    with open(log, "a", encoding="utf-8") as output:
        return subprocess.Popen(
            [str(word) for word in line], stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )


def kill(process):
    """Ends a process and all it has started without a chance to say good-bye."""
    try:
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait()


class Store:
    """The store, a cluster of one."""

    def __init__(self, program, folder, client_port, peer_port, flags):
        peer = f"http://127.0.0.1:{peer_port}"
        self.url = f"http://127.0.0.1:{client_port}"
        self.line = [
            program, "--name=store", f"--data-dir={folder}/store", *flags,
            f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=store={peer}",
        ]
        self.log = folder / "store.log"
        self.process = None

    def start(self):
        """Starts it and waits until it serves."""
        self.process = started(self.line, self.log)
        eventually(self.is_healthy, "the store serves")

    def is_healthy(self):
        """Whether it serves."""
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def call(self, method, path, body, credentials=None):
        """A request with a body, by whom it may be."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        if credentials:
            encoded = base64.b64encode(credentials.encode()).decode()
            request.add_header("Authorization", f"Basic {encoded}")
        with urllib.request.urlopen(request, timeout=EVENTUALLY) as answer:
            return answer.read()

    def protect(self, kind):
        """Only an account may use what Patroni uses, and nothing else."""
        if kind == "etcd":
            paths = {"kv": {"read": ["/service/*"], "write": ["/service/*"]}}
            all_paths = {"kv": {"read": ["/*"], "write": ["/*"]}}
            for name, roles in (("root", []), ("patroni", ["patroni"])):
                if roles:
                    role = {"role": name, "permissions": paths}
                    self.call("PUT", f"/v2/auth/roles/{name}", role)
                user = {"user": name, "password": "secret", "roles": roles}
                self.call("PUT", f"/v2/auth/users/{name}", user)
            self.call("PUT", "/v2/auth/enable", {})
            guest = {"role": "guest", "revoke": all_paths}
            self.call("PUT", "/v2/auth/roles/guest", guest, "root:secret")
            return
        first, last = (base64.b64encode(text).decode() for text in (b"/service/", b"/service0"))
        for name in ("root", "patroni"):
            self.call("POST", "/v3/auth/user/add", {"name": name, "password": "secret"})
            self.call("POST", "/v3/auth/role/add", {"name": name})
            self.call("POST", "/v3/auth/user/grant", {"user": name, "role": name})
        prefix = {"permType": "READWRITE", "key": first, "range_end": last}
        self.call("POST", "/v3/auth/role/grant", {"name": "patroni", "perm": prefix})
        self.call("POST", "/v3/auth/enable", {})


class Node:
    """A Patroni and the PostgreSQL that it runs."""

    def __init__(self, name, folder, programs, store, ports):
        self.name, self.port, rest_port = name, *ports
        self.rest = f"http://127.0.0.1:{rest_port}"
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.file = folder / f"{name}.yml"
        self.process = None
        kind, address = store
        superuser = {"username": "postgres", "password": "secret"}
        self.file.write_text(yaml.safe_dump({
            "scope": "demo",
            "name": name,
            "restapi": {
                "listen": f"127.0.0.1:{rest_port}", "connect_address": f"127.0.0.1:{rest_port}",
            },
            kind: {"host": address, "username": "patroni", "password": "secret"},
            "bootstrap": {
                "dcs": {
                    "ttl": LEADER_TIME, "loop_wait": 2, "retry_timeout": STORE_TIME,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"max_connections": 20, "max_wal_senders": 5},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.data),
                "bin_dir": programs,
                "pgpass": str(folder / f"{name}.pgpass"),
                "authentication": {
                    "superuser": superuser,
                    "replication": {"username": "replicator", "password": "secret"},
                    "rewind": {"username": "rewinder", "password": "secret"},
                },
                "pg_hba": [
                    "local all all trust",
                    "host replication replicator 127.0.0.1/32 md5",
                    "host all all 127.0.0.1/32 md5",
                ],
                "parameters": {
                    "unix_socket_directories": str(folder), "shared_buffers": "16MB", "fsync": "off",
                },
            },
        }))

    def start(self, environment):
        """Starts Patroni, which starts PostgreSQL."""
        self.process = started([environment / "patroni", self.file], self.log)

    def query(self, text):
        """What PostgreSQL answers."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password="secret", dbname="postgres",
            connect_timeout=10, autocommit=True,
        ) as connection:
            answer = connection.execute(text)
            return answer.fetchall() if answer.description else None

    def roles(self):
        """Names and how they are, as this node reads it in the store; nothing where it cannot."""
        try:
            with urllib.request.urlopen(f"{self.rest}/cluster", timeout=30) as answer:
                members = json.load(answer)["members"]
        except (OSError, ValueError):
            return {}
        return {one["name"]: (one["role"], one["state"]) for one in members}

    def kill(self):
        """Ends Patroni and PostgreSQL at once; PostgreSQL may be nobody's child any more."""
        postmaster = self.data / "postmaster.pid"
        first = postmaster.read_text().splitlines()[0] if postmaster.exists() else None
        if self.process is not None:
            kill(self.process)
            self.process = None
        try:
            family = psutil.Process(int(first)) if first else None
            if family and str(self.data) in " ".join(family.cmdline()):
                for one in [family, *family.children(recursive=True)]:
                    one.kill()
                psutil.wait_procs([family], timeout=EVENTUALLY)
        except psutil.NoSuchProcess:
            pass


class Cluster:
    """Both nodes, and what the tool of Patroni says of them."""

    def __init__(self, environment, nodes):
        self.environment, self.nodes = environment, {node.name: node for node in nodes}

    def tool(self, *words):
        """What the tool prints, if it succeeds; it finds the store as the nodes do."""
        file = next(iter(self.nodes.values())).file
        done = subprocess.run(
            [self.environment / "patronictl", "-c", file, *words], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=EVENTUALLY, check=False,
        )
        if done.returncode == 0:
            return done.stdout or "nothing"
        # Whoever is busy refuses for a moment.
        print(f"{words}: {done.stdout}\n{done.stderr}", flush=True)
        return None

    def does(self, *words):
        """What the tool prints, once it succeeds."""
        return eventually(lambda: self.tool(*words), f"patronictl {words[0]}")

    def roles(self):
        """Names and how they are, as the store has them. The tool takes seconds to start, so it is
        not what is asked again and again."""
        found = (node.roles() for node in self.nodes.values() if node.process is not None)
        return next((roles for roles in found if roles), {})

    def is_settled(self, leader):
        """Whether that one leads and the other one follows it, line by line."""
        return self.settled() is self.nodes[leader]

    def settled(self):
        """Whoever leads, if somebody does and is followed."""
        found = sorted(self.roles().values())
        is_well = found == [("leader", "running"), ("replica", "streaming")]
        return self.leader() if is_well else None

    def leader(self):
        """Whoever leads and is fine, if somebody does."""
        leaders = [name for name, state in self.roles().items() if state == ("leader", "running")]
        assert len(leaders) < 2, leaders
        return self.nodes[leaders[0]] if leaders else None

    def write(self, value):
        """Writes through the leader and reads at the other one, which cannot be written."""
        leader = eventually(self.settled, "there is a leader")
        eventually(lambda: attempted(leader, f"insert into facts values ({value})"), "written")
        [other] = [node for node in self.nodes.values() if node is not leader]
        seen = f"select count(distinct value) from facts where value = {value}"
        eventually(lambda: attempted(other, seen) == [(1,)], "copied")
        assert not attempted(other, "insert into facts values (0)")
        assert is_follower(leader) == [(False,)] and is_follower(other) == [(True,)]

    def facts(self):
        """All that was written, as each has it."""
        text = "select array_agg(distinct value order by value) from facts"
        return [attempted(node, text) for node in self.nodes.values()]


def attempted(node, text):
    """What PostgreSQL answers, true where that is nothing, or nothing where it does not."""
    try:
        answer = node.query(text)
        return True if answer is None else answer
    except psycopg.Error:
        return None


def is_follower(node):
    """What PostgreSQL says of itself, once it says something."""
    return eventually(lambda: attempted(node, "select pg_is_in_recovery()"), f"{node.name} answers")


def story(cluster, store, one, two):
    """What happens to a cluster in a bad week."""
    one.start(cluster.environment)
    eventually(lambda: cluster.roles() == {"one": ("leader", "running")}, "one has begun")
    two.start(cluster.environment)
    eventually(lambda: cluster.is_settled("one"), "two follows")
    make = "create table if not exists facts (value integer)"
    eventually(lambda: attempted(one, make), "there is a table")
    cluster.write(1)

    # Configuration for both is in the store.
    cluster.does("edit-config", "demo", "--force", "-p", "work_mem=5MB")
    for node in (one, two):
        eventually(
            lambda: attempted(node, "show work_mem") == [("5MB",)], f"{node.name} is configured"
        )
    assert "work_mem: 5MB" in cluster.does("show-config", "demo")

    order = ("switchover", "demo", "--leader", "one", "--candidate", "two", "--force")
    eventually(lambda: cluster.is_settled("two") or cluster.tool(*order), "two is told to take over")
    eventually(lambda: cluster.is_settled("two"), "two took over because it was told to")
    cluster.write(2)
    eventually(lambda: json.loads(cluster.does("history", "demo", "-f", "json")), "it is history")

    two.kill()
    eventually(lambda: cluster.leader() is one, "one took over because two was dead")
    eventually(lambda: attempted(one, "insert into facts values (3)"), "written")
    two.start(cluster.environment)
    eventually(lambda: cluster.is_settled("one"), "two came back and follows")
    cluster.write(4)

    # A store that was away for long costs the leader its office, never two of them at a time.
    kill(store.process)
    eventually(lambda: is_follower(one) == [(True,)], "one has resigned")
    assert is_follower(two) == [(True,)]
    store.start()
    leader = eventually(cluster.settled, "somebody leads again, the other one follows")
    cluster.write(5)

    # One that was away for a moment only is hardly noticed.
    kill(store.process)
    store.start()
    again = eventually(cluster.settled, "somebody leads, the other one follows")
    print(f"{leader.name} led, {again.name} leads")
    cluster.write(6)

    cluster.does("pause", "demo", "--wait")
    assert "Maintenance mode: on" in cluster.does("list", "demo")
    cluster.does("resume", "demo", "--wait")
    cluster.does("restart", "demo", again.name, "--force")
    eventually(cluster.settled, "PostgreSQL was started again")
    eventually(lambda: cluster.facts() == [[([1, 2, 3, 4, 5, 6],)]] * 2, "nothing was lost")


def main(kind, program, folder, programs, ports):
    """Everything, in order; and nothing is left running."""
    folder = pathlib.Path(folder)
    environment = pathlib.Path(sys.executable).parent
    client_port, peer_port, *others = (int(port) for port in ports.split(","))
    flags = os.environ.get("STORE_FLAGS", "").split()
    store = Store(program, folder, client_port, peer_port, flags)
    address = (kind, f"127.0.0.1:{client_port}")
    one = Node("one", folder, programs, address, others[:2])
    two = Node("two", folder, programs, address, others[2:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))
    try:
        store.start()
        store.protect(kind)
        story(Cluster(environment, (one, two)), store, one, two)
        print(f"Patroni works with {kind}")
    except BaseException:
        for log in (one.log, two.log, store.log):
            print(f"== {log.name}\n{log.read_text()[-6000:] if log.exists() else ''}")
        raise
    finally:
        for node in (one, two):
            node.kill()
        if store.process is not None:
            kill(store.process)


if __name__ == "__main__":
    main(*sys.argv[1:])
