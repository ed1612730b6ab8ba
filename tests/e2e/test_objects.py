# SPDX-License-Identifier: LGPL-2.1-or-later
"""Objects set at run time: by the control socket, at once, and for good."""

import json
import re
import socket
import time

import pytest

from cluster import IPV4
from conftest import make_cluster
from lab import PATIENCE, run, wait_for
from traffic import Echo, connect, tcp_who
from weft import BUILD_SANITIZED

STORE = "var/lib/weft/objects"


class Refused(Exception):
    def __init__(self, message):
        self.error = message["error"].removeprefix("io.weft.Node.")
        self.parameters = message["parameters"]
        super().__init__(json.dumps(message))


class Control:
    """The control socket of a node."""

    def __init__(self, weft):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20 * PATIENCE)
        self.socket.connect(str(weft.root / "run/weft/control"))

    def call(self, method, **parameters):
        self.socket.sendall(json.dumps({"method": "io.weft.Node." + method,
                                        "parameters": parameters}).encode() + b"\0")
        text = b""
        while not text.endswith(b"\0"):
            part = self.socket.recv(1 << 16)
            assert part, "the daemon ended the connection"
            text += part
        message = json.loads(text[:-1])
        if "error" in message:
            raise Refused(message)
        return message["parameters"]

    def close(self):
        self.socket.close()


def settings(**keys):
    """port="80/tcp", backend=[…] as the methods want them."""
    return [{"key": key.replace("_", "-"), "value": value}
            for key, values in keys.items() for value in (values if isinstance(values, list) else [values])]


def call(weft, method, **parameters):
    control = Control(weft)
    try:
        return control.call(method, **parameters)
    finally:
        control.close()


def set_service(weft, name, **keys):
    return call(weft, "SetServices", services=[{"name": name, "settings": settings(**keys)}])["services"][0]


def refusal(f, *arguments, **keywords):
    with pytest.raises(Refused) as caught:
        f(*arguments, **keywords)
    return caught.value


def answers(cluster, port):
    try:
        return tcp_who(cluster.client, IPV4.n1, port, timeout=1)[0]
    except OSError:
        return None


class Kept:
    """A connection that knows which pod it is on."""

    def __init__(self, cluster, port):
        self.socket = connect(cluster.client, IPV4.n1, port)
        self.pod = self.ask()

    def ask(self):
        self.socket.sendall(b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n")
        text = b""
        while b" answers " not in text or not text.endswith(b"\n"):
            part = self.socket.recv(4096)
            assert part, "the connection ended"
            text += part
        return text.split(b"pod ")[1].split()[0].decode()

    def alive(self):
        return self.ask() == self.pod

    def close(self):
        self.socket.close()


def until_on(cluster, port, pod):
    """A connection through the port that is on this pod."""
    for _ in range(100):
        kept = Kept(cluster, port)
        if kept.pod == pod:
            return kept
        kept.close()
    raise AssertionError(f"100 connections and none on {pod}")


@pytest.fixture(scope="module")
def shared():
    made = make_cluster(BUILD_SANITIZED)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(shared):
    """The cluster without any object set at run time, before and after."""
    weft = shared.weft1
    yield shared
    if weft.process.poll() is not None:
        weft.start()
    for kind, key in (("Services", "services"), ("Endpoints", "endpoints"), ("Peers", "peers")):
        names = [o["name"] for o in call(weft, "List" + kind)[key] if o["runtime"]]
        call(weft, "Remove" + kind, names=names)
    weft.check_log()


# ---- services -----------------------------------------------------------------------------------


def test_a_service_set_at_run_time_serves_at_once_and_after_kill_and_restart(cluster):
    weft = cluster.weft1
    assert answers(cluster, 30300) is None
    made = set_service(weft, "run", port="80/tcp", node_port="30300", backend=["10.244.2.10:8080"])
    assert made["state"] == "ready" and made["runtime"]
    assert answers(cluster, 30300) == "p2"
    echo = Echo(cluster.client, IPV4.n1, 30300)
    weft.ctl("reload")
    assert echo.alive() and answers(cluster, 30300) == "p2"
    weft.kill()
    assert echo.alive() and answers(cluster, 30300) == "p2"
    weft.start()
    assert echo.alive() and answers(cluster, 30300) == "p2"
    assert [s["name"] for s in call(weft, "ListServices")["services"] if s["runtime"]] == ["run"]
    call(weft, "RemoveServices", names=["run"])
    assert answers(cluster, 30300) is None
    weft.kill()
    weft.start()
    assert answers(cluster, 30300) is None
    echo.close()


def test_a_service_is_changed_key_by_key_and_its_flows_live_on(cluster):
    weft = cluster.weft1
    weft.ctl("service", "set", "run", "port=80/tcp", "node-port=30300", "backend=10.244.2.10:8080")
    echo = Echo(cluster.client, IPV4.n1, 30300)
    weft.ctl("service", "set", "run", "node-port=30301")
    assert answers(cluster, 30301) == "p2" and answers(cluster, 30300) is None
    assert echo.alive()
    weft.ctl("service", "set", "run", "backend=10.244.1.10:8080")
    assert answers(cluster, 30301) == "p1"
    weft.ctl("service", "set", "run", "backend=", "no-backend=drop")
    assert answers(cluster, 30301) is None
    shown = weft.ctl_json("service", "show", "run")["services"][0]
    assert shown["backends"] == [] and shown["node_port"] == 30301 and shown["port"] == 80
    echo.close()


def test_what_is_wrong_is_said_with_key_value_and_remedy_and_nothing_changes(cluster):
    weft = cluster.weft1
    before = call(weft, "ListServices")
    for words, texts in (
        (["port=80/tcp", "node-port=99999"], ["[service bad] node-port = 99999: ", "65535"]),
        (["prt=80/tcp"], ["[service bad] prt = 80/tcp: unknown key, did you mean \"port\"?"]),
        (["port=80/tcp"], ["[service bad] cannot be reached: add node-port"]),
        (["port=80/tcp", "node-port=8080"], ["node-port = 8080", "30000-32767"]),
        (["port=80/tcp", "node-port=30080"], ["[service bad] node-port = 30080: is taken by [service web-ipv4] in "
                                              + str(weft.file)]),
        (["port=80/tcp", "node-port=30310", "backend=10.0.0.1"], ["\"10.0.0.1\" is no backend: write 10.0.0.1:8080"]),
        (["port=80/tcp", "node-port=30310", "backend=10.0.0.1:80 ; x"], ["would begin a comment"]),
        (["port=80/tcp", "node-port=30310", "external-ip=192.0.2.11"], ["192.0.2.11", "taken by [node]"]),
        (["port=80/tcp", "node-port=30310", "external-ip=192.0.2.12"], ["192.0.2.12", "taken by [peer n2]"]),
        (["port=80/tcp", "node-port=30310", "backend=" + "10.0.0.1:80, " * 20], ["give the key several times"]),
        (["port=80/tcp\n[service evil]\nport=81/tcp"], ["one line"]),
    ):
        result = weft.ctl("service", "set", "bad", *words, check=False)
        assert result.returncode == 1, result.stdout
        for text in texts:
            assert text in result.stderr, result.stderr
        assert "nothing was changed" in result.stderr
    for name in ("../../../etc/weft/conf.d/x", ".hidden", "", "x" * 41, "a b"):
        assert "is no name" in refusal(set_service, weft, name, port="80/tcp", node_port="30310").parameters["reason"]
    assert call(weft, "ListServices") == before
    assert not list((weft.root / STORE).rglob("*bad*"))
    set_service(weft, "bad", port="80/tcp", node_port="30310")  # nothing of all that is in the way


def test_every_fault_of_a_batch_object_is_reported_and_none_of_the_batch_is_done(cluster):
    weft = cluster.weft1
    why = refusal(call, weft, "SetServices", services=[
        {"name": "good", "settings": settings(port="80/tcp", node_port="30320")},
        {"name": "bad", "settings": settings(port="x", node_port="0", weigth="1")}])
    assert why.error == "ObjectInvalid" and why.parameters["name"] == "bad"
    assert len(why.parameters["diagnostics"]) == 3 or "unknown key" in why.parameters["diagnostics"][0]
    assert [s["name"] for s in call(weft, "ListServices")["services"] if s["runtime"]] == []
    why = refusal(call, weft, "SetServices", services=[
        {"name": name, "settings": settings(port="80/tcp", node_port="30320")} for name in ("one", "two")])
    assert "taken by [service one]" in why.parameters["diagnostics"][0]
    assert refusal(call, weft, "ListServices", names=["one"]).error == "ObjectUnknown"
    assert answers(cluster, 30320) is None


def test_objects_of_a_file_are_changed_there_and_an_error_names_file_and_line(cluster):
    weft = cluster.weft1
    line = weft.file.read_text().splitlines().index("[service web-ipv4]") + 1
    for verb in (["service", "set", "web-ipv4", "port=81/tcp"], ["service", "del", "web-ipv4"]):
        result = weft.ctl(*verb, check=False)
        assert result.returncode == 1 and f"{weft.file}:{line}" in result.stderr
    assert refusal(set_service, weft, "web-ipv4", port="81/tcp").error == "ObjectConfigured"
    assert refusal(call, weft, "RemovePeers", names=["n2"]).error == "ObjectConfigured"
    assert refusal(call, weft, "RemoveEndpoints", names=["p1"]).error == "ObjectConfigured"
    assert refusal(call, weft, "RemoveServices", names=["nobody"]).error == "ObjectUnknown"


def test_a_file_that_brings_an_object_set_at_run_time_is_refused_with_both_places(cluster):
    weft = cluster.weft1
    set_service(weft, "twice", port="80/tcp", node_port="30330", backend="10.244.2.10:8080")
    weft.drop_in("twice", [("service twice", {"port": "80/tcp", "node-port": 30331})])
    try:
        generation = weft.generation()
        for verb in ("reload", "check"):
            result = weft.ctl(verb, check=False)
            assert result.returncode == 1
            assert "conf.d/twice.conf:1: [service twice] was set at run time" in result.stderr
            assert f"{weft.root}/{STORE}/service/twice.conf" in result.stderr
            assert "weftctl service del twice" in result.stderr
        assert weft.generation() == generation and answers(cluster, 30330) == "p2"
        weft.ctl("service", "del", "twice")
        weft.ctl("reload")
        assert answers(cluster, 30330) is None
        assert refusal(call, weft, "RemoveServices", names=["twice"]).error == "ObjectConfigured"
    finally:
        weft.drop_in("twice", None)
        weft.ctl("reload")


def test_a_file_that_wants_what_an_object_set_at_run_time_has_is_refused(cluster):
    weft = cluster.weft1
    set_service(weft, "mine", port="80/tcp", node_port="30335")
    weft.drop_in("wants", [("service wants", {"port": "80/tcp", "node-port": 30335})])
    try:
        result = weft.ctl("reload", check=False)
        assert result.returncode == 1
        assert "node-port = 30335: is taken by" in result.stderr
        assert f"{STORE}/service/mine.conf:" in result.stderr
    finally:
        weft.drop_in("wants", None)
        weft.ctl("reload")


def test_each_change_leaves_one_line_that_says_who_and_what(cluster):
    weft = cluster.weft1
    before = len(weft.log().splitlines())
    set_service(weft, "logged", port="80/tcp", node_port="30340")
    call(weft, "RemoveServices", names=["logged"])
    lines = [line for line in weft.log().splitlines()[before:] if "logged" in line]
    assert len(lines) == 2
    assert re.search(r"service logged set at run time by uid 0, pid \d+ \(\S+\): .*node-port = 30340", lines[0])
    assert re.search(r"service logged removed at run time by uid 0, pid \d+ \(\S+\)", lines[1])


# ---- the store ----------------------------------------------------------------------------------


def test_a_stored_object_is_a_section_that_can_be_read(cluster):
    weft = cluster.weft1
    set_service(weft, "kept", port="80/tcp", node_port="30350", backend=["10.244.2.10:8080 weight=2"])
    path = weft.root / STORE / "service/kept.conf"
    first, *rest = path.read_text().splitlines()
    assert first == "# weft object 1, uid 0"
    assert rest == ["[service kept]", "port = 80/tcp", "node-port = 30350", "backend = 10.244.2.10:8080 weight=2"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["kept.conf"]
    call(weft, "RemoveServices", names=["kept"])
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("text, why", [
    ("", "is damaged"),
    ("# weft object 2, uid 0\n[service kept]\nport = 80/tcp\n", "form 2"),
    ("# weft object 1, uid 0\n[service other]\nport = 80/tcp\nnode-port = 30351\n", "does not belong here"),
    ("# weft object 1, uid 0\n[service kept]\nport = 80\n", "port = 80: must be a port"),
    ("# weft object 1, uid 0\n", "there is no [service kept]"),
])
def test_a_damaged_store_is_refused_with_its_file_and_what_runs_goes_on(cluster, text, why):
    weft = cluster.weft1
    set_service(weft, "kept", port="80/tcp", node_port="30350", backend="10.244.2.10:8080")
    path = weft.root / STORE / "service/kept.conf"
    whole = path.read_text()
    path.write_text(text)
    generation = weft.generation()
    result = weft.ctl("reload", check=False)
    assert result.returncode == 1
    assert f"{path}:" in result.stderr and why in result.stderr
    assert weft.generation() == generation and answers(cluster, 30350) == "p2"
    if "damaged" in why or "form" in why:
        assert f"{path}:1" in weft.ctl("service", "set", "kept", "port=81/tcp", check=False).stderr
    path.write_text(whole)
    weft.ctl("reload")


def test_a_store_that_cannot_be_written_refuses_and_nothing_changes(cluster):
    weft = cluster.weft1
    set_service(weft, "old", port="80/tcp", node_port="30360", backend="10.244.2.10:8080")
    store = weft.root / "var/lib/weft"
    copy = {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", store)
    try:
        for path, data in copy.items():
            (store / path).parent.mkdir(parents=True, exist_ok=True)
            (store / path).write_bytes(data)
        with pytest.raises(OSError):
            (store / "full").write_bytes(b"x" * (1 << 20))
        before = call(weft, "ListServices")
        for change in (["service", "set", "new", "port=80/tcp", "node-port=30361", "backend=10.244.2.10:8080"],
                       ["service", "set", "old", "node-port=30361"],
                       ["backend", "drain", "old", "10.244.2.10"]):
            result = weft.ctl(*change, check=False)
            assert result.returncode == 1
            assert "cannot write" in result.stderr and "No space left" in result.stderr, result.stderr
        assert call(weft, "ListServices") == before
        assert answers(cluster, 30360) == "p2" and answers(cluster, 30361) is None
        run("mount", "-o", "remount,ro", store)
        result = weft.ctl("service", "del", "old", check=False)
        assert result.returncode == 1 and "Read-only file system" in result.stderr
        assert call(weft, "ListServices") == before and answers(cluster, 30360) == "p2"
        run("mount", "-o", "remount,rw", store)
        weft.ctl("service", "del", "old")  # taking away needs no room
        assert answers(cluster, 30360) is None
    finally:
        run("umount", store)
        weft.ctl("reload")


# ---- states of backends -------------------------------------------------------------------------


def test_draining_keeps_old_connections_gives_no_new_ones_and_outlives_reload_and_kill(cluster):
    weft = cluster.weft1
    weft.ctl("service", "set", "two", "port=80/tcp", "node-port=30370",
             "backend=10.244.1.10:8080", "backend=10.244.2.10:8080")
    on_p1 = Echo(cluster.client, IPV4.n1, IPV4.near)  # not of this service: must not mind
    kept = until_on(cluster, 30370, "p2")
    weft.ctl("backend", "drain", "two", "10.244.2.10:8080")
    for step in (lambda: None, lambda: weft.ctl("reload"), lambda: (weft.kill(), weft.start())):
        step()
        assert kept.alive() and on_p1.alive()
        assert {answers(cluster, 30370) for _ in range(12)} == {"p1"}
        states = {b["address"]: (b["state"], b["runtime"]) for b in
                  weft.ctl_json("service", "show", "two")["services"][0]["backends"]}
        assert states == {"10.244.1.10": ("active", False), "10.244.2.10": ("draining", True)}
    weft.ctl("service", "set", "two", "node-port=30371")  # another change of the service does not activate it
    assert {answers(cluster, 30371) for _ in range(12)} == {"p1"}
    weft.ctl("backend", "activate", "two", "10.244.2.10:8080")
    assert {answers(cluster, 30371) for _ in range(30)} == {"p1", "p2"}
    assert kept.alive()
    kept.close()
    on_p1.close()


def test_a_service_of_a_file_is_drained_too_and_maintenance_is_kept_even_for_the_last_one(cluster):
    weft = cluster.weft1
    weft.ctl("backend", "drain", "far-ipv4", "10.244.2.10")
    assert answers(cluster, IPV4.far) == "p2", "draining backends serve where no other does"
    echo = Echo(cluster.client, IPV4.n1, IPV4.far)
    weft.ctl("backend", "maintenance", "far-ipv4", "10.244.2.10")
    assert answers(cluster, IPV4.far) is None
    weft.ctl("reload")
    assert answers(cluster, IPV4.far) is None and echo.alive()
    weft.ctl("backend", "activate", "far-ipv4", "10.244.2.10")
    assert answers(cluster, IPV4.far) == "p2"
    assert (weft.root / "var/lib/weft/backends").read_text() == ""
    echo.close()


def test_a_backend_that_is_not_there_is_said_with_what_to_do(cluster):
    weft = cluster.weft1
    result = weft.ctl("backend", "drain", "far-ipv4", "10.244.2.10:99", check=False)
    assert result.returncode == 1
    assert "service far-ipv4 has no backend 10.244.2.10:99" in result.stderr
    assert "weftctl service show far-ipv4" in result.stderr
    why = refusal(call, weft, "SetBackendState", service="no", backend="10.0.0.1:1", state="active")
    assert why.error == "BackendUnknown" and "there is no service no" in why.parameters["reason"]
    assert refusal(call, weft, "SetBackendState", service="far-ipv4", backend="10.244.2.10:8080",
                   state="asleep").error == "org.varlink.service.InvalidParameter"


# ---- peers --------------------------------------------------------------------------------------


def routes(cluster):
    return cluster.n1.run("ip", "route", "show", "proto", "119").stdout


def test_a_peer_added_at_run_time_has_its_routes_at_once_and_after_restart(cluster):
    weft = cluster.weft1
    weft.ctl("peer", "add", "n3", "address=192.0.2.13", "pod-cidr=10.244.3.0/24",
             "n4", "address=192.0.2.14", "pod-cidr=10.244.4.0/24")
    assert "10.244.3.0/24 via 192.0.2.13" in routes(cluster) and "10.244.4.0/24 via 192.0.2.14" in routes(cluster)
    assert "run time" in weft.ctl("peer", "list", "n3").stdout
    result = weft.ctl("peer", "add", "n3", "address=192.0.2.15", check=False)
    assert result.returncode == 1 and "weftctl peer del n3 first" in result.stderr
    why = refusal(call, weft, "AddPeers", peers=[
        {"name": "n5", "settings": settings(address="192.0.2.15", pod_cidr="10.244.4.128/25")}])
    assert "overlaps 10.244.4.0/24 of [peer n4]" in why.parameters["diagnostics"][0]
    weft.kill()
    weft.start()
    assert "10.244.3.0/24 via 192.0.2.13" in routes(cluster)
    weft.ctl("peer", "del", "n3", "n4")
    assert "10.244.3.0" not in routes(cluster) and "10.244.2.0/24" in routes(cluster)


@pytest.mark.timing
def test_a_thousand_peers_are_added_in_under_a_second(cluster):
    weft = cluster.weft1
    words = []
    for i in range(1000):
        words += [f"m{i}", f"address=192.0.2.{20 + i % 60}" if i < 60 else f"address=198.18.{i // 250}.{i % 250 + 1}",
                  f"pod-cidr=10.{100 + i // 250}.{i % 250}.0/24"]
    cluster.n1.ip("route add 198.18.0.0/15 dev eth0")
    try:
        start = time.monotonic()
        weft.ctl("peer", "add", *words)
        took = time.monotonic() - start
        assert routes(cluster).count("10.10") >= 1000
        print(f"1000 peers: {took:.2f} s")
        assert took < 1 * PATIENCE
        start = time.monotonic()
        weft.ctl("peer", "del", *[f"m{i}" for i in range(1000)])
        assert time.monotonic() - start < 2 * PATIENCE
        assert "10.10" not in routes(cluster)
    finally:
        cluster.n1.ip("route del 198.18.0.0/15 dev eth0")


# ---- the node's own addresses -------------------------------------------------------------------


def test_a_service_gets_no_port_of_the_nodes_own_addresses_but_node_ports(cluster):
    weft, node = cluster.weft1, cluster.n1
    node.ip("addr add 192.0.2.99/24 dev eth0", "addr add 192.0.2.98/32 dev lo")
    try:
        for address in ("192.0.2.99", "192.0.2.98"):
            for key in ("external-ip", "load-balancer-ip", "cluster-ip"):
                result = weft.ctl("service", "set", "own", "port=22/tcp", f"{key}={address}", check=False)
                assert result.returncode == 1 and f"{address} is an address of this node" in result.stderr
        weft.drop_in("own", [("service own", {"port": "22/tcp", "external-ip": "192.0.2.99"})])
        result = weft.ctl("reload", check=False)
        assert result.returncode == 1 and "conf.d/own.conf:1: [service own] 192.0.2.99" in result.stderr
        weft.drop_in("own", None)
        weft.ctl("service", "set", "own", "port=30444/tcp", "external-ip=192.0.2.99", "backend=10.244.2.10:8080")
        assert tcp_who(cluster.client, "192.0.2.99", 30444)[0] == "p2"
    finally:
        node.ip("addr del 192.0.2.99/24 dev eth0", "addr del 192.0.2.98/32 dev lo")


def test_an_address_that_becomes_the_nodes_own_is_taken_from_the_service(cluster):
    weft, node = cluster.weft1, cluster.n1
    cluster.client.ip("route add 192.0.2.97 via 192.0.2.11")
    weft.ctl("service", "set", "own", "port=22/tcp", "external-ip=192.0.2.97", "backend=10.244.2.10:8080")
    assert tcp_who(cluster.client, "192.0.2.97", 22)[0] == "p2"

    def state():
        return weft.ctl_json("service", "show", "own")["services"][0]

    node.ip("addr add 192.0.2.97/32 dev eth0")
    try:
        wait_for("the service to be pending", lambda: state()["state"] == "pending")
        assert "192.0.2.97 is an address of this node" in state()["reason"]
        with pytest.raises(ConnectionRefusedError):
            connect(cluster.client, "192.0.2.97", 22)
    finally:
        node.ip("addr del 192.0.2.97/32 dev eth0")
        cluster.client.ip("route del 192.0.2.97 via 192.0.2.11")
    wait_for("the service to be ready", lambda: state()["state"] == "ready")
