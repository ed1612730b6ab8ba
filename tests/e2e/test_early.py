# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules that see every packet of a hook: they come and go under load, and nothing passes them by."""

import os
import shutil

import pytest

from cluster import IPV4, IPV6, Cluster, standard_modules
from conftest import start_servers
from lab import PATIENCE, wait_for
from load import Load
from test_life import host_state, pins
from traffic import Server, datagram, tcp_who
from weft import BUILD_SANITIZED, Weft

HOOKS = ["from-endpoint", "to-endpoint", "from-uplink", "to-uplink"]
SHUT = 4711


class Nodes:
    """Both nodes, with tcx and with clsact, and a module directory into which builds of tally are put."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.modules = cluster.lab.directory / "modules"
        self.modules.mkdir()
        for name in standard_modules():
            shutil.copy(BUILD_SANITIZED / f"modules/{name}.so", self.modules)
        self.put("tally-1")
        for number in (1, 2):
            cluster.wefts[number] = Weft(cluster.lab, cluster.lab[f"n{number}"], f"n{number}", BUILD_SANITIZED,
                                         self.modules)
            self.configure(number)
            cluster.wefts[number].start()
        start_servers(cluster)
        cluster.lab.on_close(Server(cluster.client, "client").close)

    def put(self, build):
        shutil.copy(BUILD_SANITIZED / f"tests/e2e/{build}.so", self.modules / ".tally")
        os.rename(self.modules / ".tally", self.modules / "tally.so")

    def configure(self, number, tally=None, **core):
        modules = standard_modules()
        if tally is not None:
            modules["tally"] = tally
        if number == 2:
            core["debug-attach"] = "clsact"
        self.cluster.wefts[number].configure(self.cluster.sections(number, modules, core))

    def reload(self, tally=None):
        for number, weft in self.cluster.wefts.items():
            self.configure(number, tally)
            weft.ctl("reload")


@pytest.fixture(scope="module")
def nodes():
    with Cluster() as cluster:
        made = Nodes(cluster)
        yield made
        for weft in cluster.wefts.values():
            weft.stop()


def tally(weft):
    """What the module has counted, by hook."""
    (row,) = [m for m in weft.ctl_json("modules")["modules"] if m["name"] == "tally" and m["state"] == "on"]
    return {c["name"].replace("_", "-"): c["value"] for c in row["counters"]}


def stages(weft):
    return [(s["hook"], s.get("phase"), s["module"]) for s in weft.ctl_json("chain")["stages"]]


def expect_seen(weft):
    """Each hook begins with the early chain, and says that it is not replayed in XDP."""
    rows, said = stages(weft), weft.ctl("chain").stdout
    for hook in HOOKS:
        assert [r[1:] for r in rows if r[0] == hook][:3] == [("early", "engine"), ("early", "tally"), (None, "engine")]
        assert f"{hook} is not replayed in XDP: stage tally of module tally sees every packet" in said
    assert not [r for r in rows if r[0] == "xdp-uplink"]
    assert ({(n["hook"], n["module"], n["stage"], n["reason"]) for n in weft.ctl_json("chain")["not_replayed"]} ==
            {(hook, "tally", "tally", "early") for hook in HOOKS})


def test_it_is_added_replaced_told_other_options_and_removed_under_load(nodes):
    wefts = nodes.cluster.wefts.values()
    with Load(nodes.cluster) as load:
        nodes.reload({})
        for weft in wefts:
            expect_seen(weft)
            wait_for("every hook to have seen packets", lambda weft=weft: all(tally(weft)[h] > 0 for h in HOOKS), 20)
        nodes.put("tally-2")
        before = {weft.name: tally(weft) for weft in wefts}
        nodes.reload({})
        for weft in wefts:
            assert "tally-2" in weft.ctl("modules").stdout
            assert all(tally(weft)[h] >= before[weft.name][h] for h in HOOKS)  # the counts are kept
        nodes.reload({"drop-port": SHUT})
        load.check()
        nodes.reload()
        for weft in wefts:
            assert not [row for row in stages(weft) if "early" in row]
            assert weft.ctl_json("chain")["not_replayed"] == []
            assert "XDP" not in weft.ctl("chain").stdout
        load.check()


@pytest.fixture(scope="module")
def seen(nodes):
    nodes.reload({"drop-port": SHUT})
    return nodes.cluster


def test_each_packet_of_a_flow_is_seen_wherever_it_passes(seen):
    """Also on the way into an endpoint, which host routing would shorten."""
    packets = 50
    for f in (IPV4, IPV6):
        before = tally(seen.weft1)
        for _ in range(packets):
            datagram(seen.client, f.n1, f.dns, b"who", source=(f.client, 40123))
        after = tally(seen.weft1)
        grown = {hook: after[hook] - before[hook] for hook in HOOKS}
        assert grown["from-uplink"] >= packets and grown["to-uplink"] >= packets, grown
    before = tally(seen.weft1)
    for _ in range(packets):
        datagram(seen.client, IPV4.p1, 5353, b"who", source=(IPV4.client, 40124))
    grown = {hook: n - before[hook] for hook, n in tally(seen.weft1).items()}
    assert all(grown[hook] >= packets for hook in HOOKS), grown


@pytest.mark.parametrize("number", [1, 2], ids=["tcx", "clsact"])
def test_what_it_drops_is_counted_under_its_name(seen, number):
    weft, address = seen.wefts[number], getattr(IPV4, f"n{number}")
    with pytest.raises(OSError):
        datagram(seen.client, address, SHUT, b"who", timeout=0.2, tries=2)
    drops = [d for d in weft.ctl_json("status")["drops"] if d["what"] == "TALLIED"]
    assert [(d["module"], d["hook"], d["packets"]) for d in drops] == [("tally", "from-uplink", 2)], drops
    assert 'reason="TALLIED"' in weft.ctl("metrics").stdout
    assert tcp_who(seen.client, address, IPV4.web)[0] in ("p1", "p2")


def xdp(weft):
    (uplink,) = weft.ctl_json("status")["uplinks"]
    return uplink["xdp"]


def test_replay_in_xdp_ends_without_taking_the_program_from_the_driver(nodes):
    weft = nodes.cluster.weft1
    link = weft.bpffs / "links/eth0-xdp-uplink"
    try:
        nodes.configure(1, xdp="best-effort")
        weft.ctl("reload")
        assert xdp(weft) and link.exists()
        nodes.configure(1, {}, xdp="best-effort")
        weft.ctl("reload")
        assert not xdp(weft) and link.exists()
        nodes.configure(1, {}, xdp="native")
        result = weft.ctl("reload", check=False)
        assert result.returncode != 0 and "[weft] xdp = native asks for it" in result.stderr
        nodes.configure(1, xdp="best-effort")
        weft.ctl("reload")
        assert xdp(weft)
    finally:
        nodes.reload()
    assert not link.exists()


def test_a_daemon_killed_while_it_is_added_leaves_a_working_datapath_and_its_successor_repairs(nodes):
    cluster, weft = nodes.cluster, nodes.cluster.weft1
    plain = weft.command
    nodes.configure(1)
    weft.ctl("reload")
    before, usual = host_state(cluster.n1), pins(weft)
    weft.stop()
    weft.command = lambda: ["env", "WEFTD_DEBUG_SWITCH=kill exit-hooks", *plain()]
    weft.start()
    nodes.configure(1, {})
    weft.ctl("reload", check=False)
    assert weft.process.wait(20 * PATIENCE) != 0
    assert tcp_who(cluster.client, IPV4.n1, IPV4.near)[0] == "p1"
    assert tcp_who(cluster.client, IPV4.n1, IPV4.far)[0] == "p2"
    weft.command = plain
    weft.start()
    expect_seen(weft)
    assert tcp_who(cluster.client, IPV4.n1, IPV4.near)[0] == "p1"
    nodes.configure(1)
    weft.ctl("reload")
    assert pins(weft) == usual
    assert host_state(cluster.n1) == before
    nodes.configure(1, {})
    weft.ctl("reload")
    weft.stop()
    weft.ctl("cleanup")
    assert pins(weft) == []
    weft.start()
