# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shipped presets: each is right, and carries what it says it carries."""

import subprocess

import pytest

from cluster import IPV4, Cluster
from conftest import start_servers
from traffic import Server, datagram, ping, tcp_who, udp_who
from lab import Lab
from weft import BUILD, TOP, Weft

PRESETS = sorted((TOP / "conf.d/presets").glob("*.conf"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_a_right_configuration_by_itself(path, tmp_path):
    drop_in = tmp_path / "etc/weft/conf.d/20-modules.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(path.read_text())
    result = subprocess.run([BUILD / "core/ctl/weftctl", "--root", tmp_path, "check", "--module-dir",
                             BUILD / "modules"], text=True, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.fixture(scope="module", params=PRESETS, ids=lambda path: path.stem)
def cluster(request):
    with Cluster() as made:
        made.weft({}, {"mode": "strict"},
                  files={"etc/weft/conf.d/20-modules.conf": request.param.read_text()})
        start_servers(made)
        made.preset = request.param
        yield made


def test_every_module_of_it_runs_and_says_what_it_does(cluster):
    wanted = {line[8:-1] for line in cluster.preset.read_text().splitlines()
              if line.startswith("[module ")}
    for weft in (cluster.weft1, cluster.weft2):
        on = {m["name"]: m.get("status") for m in weft.ctl_json("modules")["modules"] if m["state"] == "on"}
        assert wanted <= on.keys()
        assert all(on.values()), on


def test_services_are_reached_from_outside(cluster, family):
    assert tcp_who(cluster.client, family.n1, family.near)[0] == "p1"
    assert tcp_who(cluster.client, family.n1, family.far)[0] == "p2"
    assert tcp_who(cluster.client, family.n2, family.far)[0] == "p2"
    assert udp_who(cluster.client, family.n1, family.far_udp)[0] == "p2"
    assert {tcp_who(cluster.client, family.external, 80)[0] for _ in range(30)} == {"p1", "p2"}


def test_the_client_is_seen_as_the_preset_says(cluster, family):
    direct = cluster.preset.stem in ("native-dsr", "native-legacy-hybrid", "native-host-routing-hybrid")
    _, seen, _ = tcp_who(cluster.client, family.n1, family.far)
    assert seen == (family.client if direct else family.n1)
    _, seen, _ = udp_who(cluster.client, family.n1, family.far_udp)
    assert seen == (family.client if cluster.preset.stem == "native-dsr" else family.n1)


def test_endpoints_reach_each_other_with_their_own_addresses(cluster, family):
    name, seen, _ = tcp_who(cluster.p1, family.p2, 8080)
    assert (name, seen) == ("p2", family.p1)
    name, seen, _ = tcp_who(cluster.p2, family.p1, 8080)
    assert (name, seen) == ("p1", family.p2)
    assert ping(cluster.p1, family.p2)
    assert datagram(cluster.p1, family.p2, 5353, b"x" * 1200) == b"x" * 1200


def test_who_is_asked_by_an_endpoint_outside_sees_the_node(cluster):
    server = Server(cluster.client, "outside", tcp=8090, udp=5390)
    try:
        _, seen, _ = tcp_who(cluster.p1, IPV4.client, 8090)
        assert seen == IPV4.n1
    finally:
        server.close()


# ---- with other networks than those of the self-tests -------------------------------------------

SETS = {"native-snat": {"native-routing": {}, "nodeport-snat": {}},
        "native-dsr": {"native-routing": {}, "nodeport-dsr": {}},
        "native-ipip": {"native-routing": {}, "nodeport-dsr": {"dispatch": "ipip"}},
        "native-hybrid": {"native-routing": {}, "nodeport-snat": {}, "nodeport-dsr": {}, "hybrid": {}},
        "vxlan-snat": {"vxlan": {}, "nodeport-snat": {}},
        "geneve-hybrid": {"geneve": {}, "nodeport-snat": {}, "nodeport-dsr": {"dispatch": "geneve"}, "hybrid": {}}}
PEERS = {"alone": [], "peer": [("peer n2", {"address": ["192.0.2.12", "2001:db8::12"],
                                            "pod-cidr": ["172.20.2.0/24", "fd77:2::/64"]})]}


@pytest.fixture(scope="module")
def weft():
    with Lab() as lab:
        ns = lab.namespace("n1")
        lab.switch("switch", ns)
        ns.ip("addr add 192.0.2.11/24 dev eth0", "addr add 2001:db8::11/64 dev eth0 nodad")
        yield Weft(lab, ns, "n1", BUILD)


@pytest.mark.parametrize("masquerading", [[], ["bpf-masq"]], ids=["plain", "masquerading"])
@pytest.mark.parametrize("peers", PEERS)
@pytest.mark.parametrize("modules", SETS.values(), ids=SETS)
def test_a_node_of_any_networks_passes_the_self_tests(weft, modules, peers, masquerading):
    modules = modules | {name: {} for name in ("clusterip", "host-routing", *masquerading)}
    weft.configure([("weft", {"mode": "strict"}),
                    ("node", {"name": "n1", "uplink": "eth0", "pod-cidr": ["172.20.1.0/24", "fd77:1::/64"]}),
                    *PEERS[peers], *[(f"module {name}", keys) for name, keys in modules.items()]])
    weft.start()
    weft.stop()
    weft.ctl("cleanup")
