# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's life: killed, followed, stopped, reloaded, cleaned up after."""

import re
import threading

import pytest

from cluster import FAMILIES, IPV4, Cluster, standard_modules
from conftest import make_cluster
from packets import attached, has_tcx
from traffic import Echo, tcp_who, udp_who
from weft import BUILD_SANITIZED

ATTACH = ["tcx", "clsact"] if has_tcx() else ["clsact"]


@pytest.fixture(params=ATTACH)
def cluster(request):
    made = make_cluster(BUILD_SANITIZED, {"debug-attach": request.param})
    try:
        yield made
    finally:
        made.close()


def endpoint_device(cluster):
    return cluster.weft1.ctl_json("status")["endpoints"][0]["interface"]


def pins(weft):
    """Every pin below the node's bpffs, but for generation numbers and the kernel's own two files."""
    names = (str(p.relative_to(weft.bpffs)) for p in weft.bpffs.rglob("*") if p.is_file())
    return sorted(re.sub(r"\d+$", "N", name) for name in names if not name.endswith(".debug"))


def reachable(cluster):
    return all(tcp_who(cluster.client, f.n1, port)[0] == pod
               for f in FAMILIES for port, pod in ((f.near, "p1"), (f.far, "p2")))


def test_traffic_goes_on_without_a_daemon_and_a_successor_takes_over(cluster):
    weft, device = cluster.weft1, endpoint_device(cluster)
    echoes = [Echo(cluster.client, f.n1, p) for f in FAMILIES for p in (f.near, f.far)]
    echoes.append(Echo(cluster.client, IPV4.p1, 8080))
    echoes.append(Echo(cluster.p1, IPV4.p2, 8080))
    generation, pinned = weft.generation(), pins(weft)
    hung = [attached(cluster.n1, d) for d in ("eth0", device)]
    assert hung == [[1, 1], [1, 1]]
    for _ in range(2):
        weft.kill()
        assert all(echo.alive() for echo in echoes)
        assert reachable(cluster)
        weft.start()
        assert weft.generation() > generation
        generation = weft.generation()
        assert all(echo.alive() for echo in echoes)
        assert reachable(cluster)
        assert [attached(cluster.n1, d) for d in ("eth0", device)] == hung
        assert pins(weft) == pinned
        assert endpoint_device(cluster) == device
    weft.stop()


def test_a_stopped_daemon_leaves_traffic_running(cluster):
    echo = Echo(cluster.client, IPV4.n1, IPV4.far)
    cluster.weft1.stop()
    assert echo.alive()
    assert reachable(cluster)


def test_what_the_configuration_lost_while_the_daemon_was_away_is_gone_after_its_start(cluster):
    weft = cluster.weft1
    assert tcp_who(cluster.client, IPV4.n1, IPV4.near)[0] == "p1"
    weft.kill()
    sections = cluster.sections(1, standard_modules(host_routing=False))
    weft.configure([s for s in sections if s[0] != "service near-ipv4"])
    weft.start()
    with pytest.raises(OSError):
        tcp_who(cluster.client, IPV4.n1, IPV4.near, timeout=1)
    assert tcp_who(cluster.client, IPV4.n1, IPV4.far)[0] == "p2"


def test_reloads_lose_nothing(cluster):
    weft = cluster.weft1
    echo = Echo(cluster.client, IPV4.n1, IPV4.far)
    stop, lost, done = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                tcp_who(cluster.client, IPV4.n1, IPV4.web, timeout=5)
                udp_who(cluster.client, IPV4.n1, IPV4.dns, timeout=0.9, tries=1)
                done.append(1)
            except OSError as error:
                lost.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        generation = weft.generation()
        for _ in range(10):
            weft.ctl("reload")
            assert weft.generation() > generation
            generation = weft.generation()
            assert echo.alive()
    finally:
        stop.set()
        thread.join()
    assert not lost
    assert len(done) > 10


def test_a_refused_reload_changes_nothing(cluster):
    weft = cluster.weft1
    generation = weft.generation()
    weft.drop_in("bad", [("module nodeport-snat", {"snat-portz": "1-2"})])
    result = weft.ctl("reload", check=False)
    assert result.returncode != 0
    assert "snat-portz" in result.stderr + result.stdout
    assert weft.generation() == generation
    assert reachable(cluster)
    weft.drop_in("bad", None)
    weft.ctl("reload")
    assert weft.generation() > generation


def test_a_module_taken_out_leaves_its_connections_alone(cluster):
    weft = cluster.weft1
    echo = Echo(cluster.client, IPV4.n1, IPV4.far)
    assert echo.alive()
    weft.drop_in("off", [("module nodeport-snat", {"enabled": "no"})])
    weft.ctl("reload")
    assert echo.alive()
    with pytest.raises(OSError):
        tcp_who(cluster.client, IPV4.n1, IPV4.far, timeout=1)
    weft.drop_in("off", None)
    weft.ctl("reload")
    assert tcp_who(cluster.client, IPV4.n1, IPV4.far)[0] == "p2"
    assert echo.alive()


def host_state(node):
    """Everything of a node's network that weft may change, as text."""
    interfaces = ("all", "default", "eth0")
    state = {key: node.sysctl(key) for key in (
        "ipv4/ip_forward", "ipv4/ip_local_reserved_ports",
        *(f"{version}/conf/{i}/forwarding" for i in interfaces for version in ("ipv4", "ipv6")),
        *(f"ipv4/conf/{i}/rp_filter" for i in interfaces),
        *(f"ipv6/conf/{i}/accept_ra" for i in interfaces))}
    state["links"] = sorted(line.split(": ")[1].split("@")[0]
                            for line in node.run("ip", "-o", "link").stdout.splitlines())
    for version in ("-4", "-6"):
        state["routes" + version] = sorted(
            line.strip() for line in node.run("ip", version, "route").stdout.splitlines())
    state["rules"] = node.run("nft", "list", "ruleset").stdout
    state["eth0"] = attached(node, "eth0")
    return state


def test_cleanup_takes_everything_away_and_says_so():
    with Cluster() as cluster:
        before = [host_state(node) for node in (cluster.n1, cluster.n2)]
        cluster.weft(standard_modules(), build=BUILD_SANITIZED)
        assert host_state(cluster.n1) != before[0]
        cluster.weft1.stop()
        cluster.weft2.kill()
        for weft in (cluster.weft1, cluster.weft2):
            said = weft.ctl("cleanup").stdout
            assert "eth0" in said and "10.244." in said
            assert not pins(weft)
            assert weft.ctl("status", check=False).returncode != 0
        assert [host_state(node) for node in (cluster.n1, cluster.n2)] == before
        for pod in (cluster.p1, cluster.p2):
            assert "eth0" not in pod.run("ip", "-o", "link").stdout
        assert "nothing" in cluster.weft1.ctl("cleanup").stdout.lower()
