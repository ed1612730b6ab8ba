# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which backend a connection gets, and what becomes of it when backends change: real sockets."""

import json
import os
import socket
from collections import Counter

import pytest

from cluster import FAMILIES, IPV4
from conftest import make_cluster
from lab import NAMESPACES, run, wait_for
from many import Many, serve_many
from traffic import Echo, Server, connect, read_all, tcp_who, udp_who

PORT = 30200  # of the service of each test; it is removed after it
MANY = int(os.environ.get("WEFT_MANY", 100000))  # connections
LATE = {"ipv4": "10.244.1.77", "ipv6": "fd00:244:1::77"}  # an endpoint that comes and goes
PODS = (8080, 8081, 8082)  # TCP ports of each pod; its UDP ports begin at 5353


@pytest.fixture(scope="module")
def cluster():
    made = make_cluster()
    try:
        for name in ("p1", "p2"):
            for port in PODS[1:]:
                server = Server(made.lab[name], f"{name}:{port}", tcp=port, udp=port - PODS[0] + 5353)
                made.lab.on_close(server.close)
        yield made
    finally:
        made.close()


@pytest.fixture
def service(cluster):
    """A function that sets the test's service on nodes and reloads them."""

    def change(*backends, proto="tcp", nodes=(1, 2), **keys):
        sections = [("service balanced", {
            "port": f"90/{proto}", "node-port": PORT, "backend": list(backends),
            **{k.replace("_", "-"): v for k, v in keys.items()}})]
        for number in nodes:
            cluster.wefts[number].drop_in("balanced", sections)
            cluster.wefts[number].ctl("reload")

    yield change
    for weft in cluster.wefts.values():
        if (weft.root / "etc/weft/conf.d/balanced.conf").exists():
            weft.drop_in("balanced", None)
            weft.ctl("reload")


def backends(f, *names):
    """"p1:8081 weight=2" as a backend of the family; without a port it is 8080."""
    result = []
    for name in names:
        place, _, options = name.partition(" ")
        pod, _, number = place.partition(":")
        result.append(f"{f.with_port(getattr(f, pod), int(number or PODS[0]))} {options}".strip())
    return result


def told(weft, name="balanced"):
    return next(s for s in weft.ctl_json("status")["services"] if s["name"] == name)


# ---- algorithms --------------------------------------------------------------------------------------


def test_maglev_chooses_alike_on_both_nodes_whatever_the_order_of_their_files(cluster, service, family):
    all_of_them = backends(family, "p1", "p1:8081", "p1:8082", "p2", "p2:8081", "p2:8082")
    service(*all_of_them, nodes=[1], algorithm="maglev")
    service(*reversed(all_of_them), nodes=[2], algorithm="maglev")
    seen = Counter()
    for port in range(40000, 40024):
        first = tcp_who(cluster.client, family.n1, PORT, source=("", port))[0]
        assert tcp_who(cluster.client, family.n2, PORT, source=("", port))[0] == first
        seen[first] += 1
    assert len(seen) >= 4, seen


def open_at(cluster):
    """Open connections by backend, as the first node's flows say."""
    flows = cluster.weft1.ctl_json("flows")["flows"]
    return Counter(f"{f['new_destination']}:{f['new_destination_port']}" for f in flows
                   if f["destination_port"] == PORT and not f["reply"] and f["state"] != "closing")


def test_least_connections_evens_out_what_is_open(cluster, service, family):
    first, second, third = (f"{address}:{port}" for address, port in (
        (family.p1, 8080), (family.p2, 8080), (family.p2, 8081)))
    service(*backends(family, "p1", "p2"), nodes=[1], algorithm="least-connections")
    held = [Echo(cluster.client, family.n1, PORT) for _ in range(20)]
    assert open_at(cluster) == {first: 10, second: 10}
    service(*backends(family, "p1", "p2", "p2:8081"), nodes=[1], algorithm="least-connections")
    held += [Echo(cluster.client, family.n1, PORT) for _ in range(10)]
    assert open_at(cluster) == {first: 10, second: 10, third: 10}
    assert [b["flows"] for b in told(cluster.weft1)["backends"]] == [10, 10, 10]
    for echo in held:
        assert echo.alive()
        echo.close()
    wait_for("them to be closed", lambda: not open_at(cluster))
    held = [Echo(cluster.client, family.n1, PORT) for _ in range(9)]
    assert open_at(cluster) == {first: 3, second: 3, third: 3}
    for echo in held:
        echo.close()


def test_affinity_keeps_a_client_over_a_reload_and_a_restart(cluster, service, family):
    pods = backends(family, "p1", "p1:8081", "p1:8082", "p2", "p2:8081", "p2:8082")
    service(*pods, nodes=[1], affinity="1h")
    first = tcp_who(cluster.client, family.n1, PORT)[0]
    assert {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(10)} == {first}
    cluster.weft1.ctl("reload")
    assert {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(5)} == {first}
    cluster.weft1.kill()
    assert {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(5)} == {first}
    cluster.weft1.start()
    assert {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(5)} == {first}
    service(*pods, nodes=[1])
    assert len({tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(30)}) > 1


# ---- who, and where to -------------------------------------------------------------------------------


def test_local_traffic_stays_on_the_node_and_shows_the_client(cluster, service, family):
    service(*backends(family, "p1", "p2"), external_traffic="local")
    for node, pod in ((family.n1, "p1"), (family.n2, "p2")):
        for _ in range(8):
            assert tcp_who(cluster.client, node, PORT)[:2] == (pod, family.client)
    service(*backends(family, "p2"), external_traffic="local")
    before = cluster.weft1.drops("NO_LOCAL_BACKEND")
    with pytest.raises(TimeoutError):
        connect(cluster.client, family.n1, PORT, timeout=0.5)
    assert cluster.weft1.drops("NO_LOCAL_BACKEND") > before
    assert tcp_who(cluster.client, family.n2, PORT)[:2] == ("p2", family.client)


class Late:
    """An endpoint of the first node whose namespace comes and goes."""

    def __init__(self, lab):
        self.lab, self.path, self.server = lab, NAMESPACES / f"{lab.prefix}late", None

    def comes(self):
        self.server = Server(self.lab.namespace("late"), "late")

    def goes(self):
        if self.server:
            self.server.close()
            run("ip", "netns", "delete", self.path.name)
        self.server = None


@pytest.fixture
def late(cluster, service):
    made, weft = Late(cluster.lab), cluster.weft1
    weft.drop_in("late", [("endpoint late", {"netns": made.path, "address": [LATE[f.name] for f in FAMILIES]})])
    yield made
    made.goes()
    weft.drop_in("late", None)
    weft.ctl("reload")


def test_a_backend_gets_no_flow_before_its_endpoint_is_there_nor_after(cluster, service, late, family):
    def asked(count=16):
        return {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(count)}

    keys = {"nodes": [1], "health_check_node_port": 30300}
    both = [family.with_port(LATE[family.name], 8080), *backends(family, "p2")]
    service(*both, **keys)
    assert asked() == {"p2"}
    assert "its endpoint is pending" in told(cluster.weft1)["reason"]
    service(*both, **keys, external_traffic="local")
    with pytest.raises(TimeoutError):
        connect(cluster.client, family.n1, PORT, timeout=0.5)
    assert health(cluster, family.n1)[0] == 503
    service(*both[:1], **keys)
    with pytest.raises(ConnectionRefusedError):
        connect(cluster.client, family.n1, PORT)

    late.comes()
    service(*both, **keys, external_traffic="local")
    wait_for("the endpoint", lambda: "reason" not in told(cluster.weft1))
    assert asked() == {"late"}
    assert health(cluster, family.n1)[:2] == (200, {"service": {"name": "balanced"}, "localEndpoints": 1})
    service(*both, **keys)
    assert asked(32) == {"late", "p2"}
    cluster.weft1.kill()
    cluster.weft1.start()
    assert asked(32) == {"late", "p2"}, "a restart takes nothing away"

    late.goes()
    wait_for("it to be missed", lambda: "its endpoint is pending" in told(cluster.weft1).get("reason", ""))
    assert asked() == {"p2"}


def test_source_ranges_let_only_their_clients_in(cluster, service, family):
    length = 128 if ":" in family.client else 32
    service(*backends(family, "p1"), nodes=[1], source_range=f"{family.client}/{length}")
    assert tcp_who(cluster.client, family.n1, PORT)[0] == "p1"
    service(*backends(family, "p1"), nodes=[1], source_range=f"{family.n2}/{length}")
    before = cluster.weft1.drops("SOURCE_REFUSED")
    with pytest.raises(TimeoutError):
        connect(cluster.client, family.n1, PORT, timeout=0.5)
    assert cluster.weft1.drops("SOURCE_REFUSED") > before


# ---- states ------------------------------------------------------------------------------------------


def echo_at(cluster, family, pod):
    """A kept connection that has the backend on POD."""
    for _ in range(50):
        echo = Echo(cluster.client, family.n1, PORT)
        assert echo.alive()
        port = echo.socket.getsockname()[1]
        flows = cluster.weft1.ctl_json("flows")["flows"]
        if any(f["source_port"] == port and f["new_destination"] == getattr(family, pod) for f in flows):
            return echo
        echo.close()
    raise AssertionError(f"no connection came to {pod}")


def test_a_connection_lives_through_every_state_of_its_backend_but_removal(cluster, service, family):
    service(*backends(family, "p1", "p2"), nodes=[1])
    echo = echo_at(cluster, family, "p1")
    for state in ("weight=0", "state=draining", "state=maintenance", "state=active weight=3"):
        service(*backends(family, f"p1 {state}", "p2"), nodes=[1])
        assert echo.alive(), state
        got = {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(24)}
        assert got == ({"p1", "p2"} if "active" in state else {"p2"}), state
    service(*backends(family, "p1 state=draining", "p2 state=maintenance"), nodes=[1])
    assert {tcp_who(cluster.client, family.n1, PORT)[0] for _ in range(8)} == {"p1"}
    service(*backends(family, "p2"), nodes=[1])
    with pytest.raises(ConnectionResetError):
        echo.alive()


def test_a_udp_client_of_a_removed_backend_is_given_another(cluster, service, family):
    service(*backends(family, "p1:5353", "p2:5353"), nodes=[1], proto="udp")
    with cluster.client.inside():
        s = socket.socket(socket.AF_INET6 if ":" in family.n1 else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect((family.n1, PORT))

    def ask():
        s.send(b"who")
        return s.recv(100).decode().split()[0]

    first = ask()
    assert {ask() for _ in range(5)} == {first}
    other = "p2" if first == "p1" else "p1"
    service(*backends(family, f"{other}:5353"), nodes=[1], proto="udp")
    assert {ask() for _ in range(5)} == {other}
    s.close()


def test_a_renamed_service_is_served_under_its_new_name(cluster, service):
    service(*backends(IPV4, "p1"), nodes=[1])
    weft = cluster.weft1
    try:
        weft.drop_in("balanced", None)
        weft.drop_in("renamed", [("service renamed", {
            "port": "90/tcp", "node-port": PORT, "backend": backends(IPV4, "p1")})])
        weft.ctl("reload")
        assert told(weft, "renamed")["state"] == "ready"
        assert tcp_who(cluster.client, IPV4.n1, PORT)[0] == "p1"
    finally:
        weft.drop_in("renamed", None)
        weft.ctl("reload")


# ---- the health-check node port ----------------------------------------------------------------------


def health(cluster, address, port=30300):
    with connect(cluster.client, address, port) as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
        head, body = read_all(s).decode().split("\r\n\r\n")
    lines = head.split("\r\n")
    return int(lines[0].split()[1]), json.loads(body), dict(line.split(": ") for line in lines[1:])


def test_the_health_check_port_says_how_many_backends_are_here(cluster, service, family):
    keys = {"health_check_node_port": 30300, "external_traffic": "local"}
    service(*backends(family, "p1", "p1:8081", "p2"), **keys)
    status, body, headers = health(cluster, family.n1)
    assert (status, body) == (200, {"service": {"name": "balanced"}, "localEndpoints": 2})
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
    assert health(cluster, family.n2)[1]["localEndpoints"] == 1
    service(*backends(family, "p1 state=draining", "p1:8081", "p2"), **keys)
    assert health(cluster, family.n1)[1]["localEndpoints"] == 1
    service(*backends(family, "p1"), **keys)
    assert health(cluster, family.n2)[:2] == (503, {"service": {"name": "balanced"}, "localEndpoints": 0})
    service(*backends(family, "p1"), **{**keys, "health_check_node_port": 30301})
    assert health(cluster, family.n1, 30301)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        health(cluster, family.n1)


def test_a_health_check_port_that_is_taken_is_reported_and_opened_later(cluster, service):
    with cluster.n1.inside():
        squatter = socket.create_server(("", 30300))
    service(*backends(IPV4, "p1"), nodes=[1], health_check_node_port=30300)
    assert "30300" in told(cluster.weft1)["reason"]
    assert tcp_who(cluster.client, IPV4.n1, PORT)[0] == "p1", "the service itself is served"
    squatter.close()
    wait_for("the port to be taken over", lambda: "reason" not in told(cluster.weft1), 30)
    assert health(cluster, IPV4.n1)[0] == 200


def test_a_silent_client_of_the_health_check_port_holds_nobody_up(cluster, service):
    service(*backends(IPV4, "p1"), nodes=[1], health_check_node_port=30300)
    silent = [connect(cluster.client, IPV4.n1, 30300) for _ in range(20)]
    silent[0].sendall(b"GET / HT")
    assert health(cluster, IPV4.n1)[0] == 200
    for s in silent:
        wait_for("a silent client to be let go", lambda s=s: s.recv(1) == b"", 20)
        s.close()
    assert cluster.weft1.ctl("status").returncode == 0


# ---- many flows --------------------------------------------------------------------------------------


def test_a_hundred_thousand_connections_live_through_a_reload_and_a_restart():
    """At eight ports of the first node, each with a backend of its own there and one far away."""
    each, ports = MANY // 8, range(7000, 7008)
    cluster = make_cluster(core={"flow-table-size": "512K"}, nodeport_snat={"snat-ports": "1024-65535"})
    held = []
    try:
        for port in ports:
            for pod in (cluster.p1, cluster.p2):
                serve_many(pod, port)
        cluster.weft1.drop_in("many", [(f"service many-{port}", {
            "port": f"{port}/tcp", "node-port": 23700 + port,
            "backend": [f"{IPV4.p1}:{port}", f"{IPV4.p2}:{port}"]}) for port in ports])
        cluster.weft1.ctl("reload")
        for port in ports:
            held.append(Many(cluster.client, IPV4.n1, 23700 + port, each))
        assert [one.opened() for one in held] == [each] * len(held)
        cluster.weft1.ctl("reload")
        assert [one.alive() for one in held] == [each] * len(held), "after a reload"
        cluster.weft1.kill()
        cluster.weft1.start()
        assert [one.alive() for one in held] == [each] * len(held), "after a restart"
    finally:
        for one in held:
            one.close()
        cluster.close()
