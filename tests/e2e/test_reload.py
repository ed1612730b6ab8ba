# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reloads: what goes on, what is replaced, and that a failure anywhere changes nothing."""

import json
import os
import re
import shutil
import signal

import pytest

from cluster import IPV4, Cluster, standard_modules
from conftest import start_servers
from lab import run, wait_for
from packets import attached, mac, syn_flood
from test_life import host_state, pins
from traffic import Echo, tcp_who, udp_who
from weft import BUILD, BUILD_SANITIZED, Weft

FAULTY = "faulty"


class Node:
    """Node 1 with a module directory of its own, into which builds of the module are put."""

    def __init__(self, cluster, build=BUILD_SANITIZED, environment=None):
        self.cluster, self.ns, self.build = cluster, cluster.n1, build
        self.modules = cluster.lab.directory / "modules"
        self.modules.mkdir()
        for name in standard_modules():
            shutil.copy(build / f"modules/{name}.so", self.modules)
        self.weft = Weft(cluster.lab, cluster.n1, "n1", build, self.modules)
        if environment:
            self.set_environment(environment)
        cluster.wefts[1] = self.weft
        other = Weft(cluster.lab, cluster.n2, "n2", build)
        other.configure(cluster.sections(2, standard_modules()))
        cluster.wefts[2] = other.start()

    def set_environment(self, environment):
        command = [*Weft.command(self.weft)]
        self.weft.command = lambda: ["env", *(f"{k}={v}" for k, v in environment.items()), *command]

    def put(self, build, name=FAULTY):
        """Installs a build as a package manager would: a new file in the old one's place."""
        new = self.modules / f".{name}"
        shutil.copy(self.build / f"tests/e2e/{build}.so", new)
        os.rename(new, self.modules / f"{name}.so")

    def configure(self, faulty=None, without=(), more=(), **options):
        modules = {k: v for k, v in standard_modules(**options).items() if k not in without}
        if faulty is not None:
            modules[FAULTY] = faulty
        self.weft.configure(self.cluster.sections(1, modules, more=more))

    def start(self, **keywords):
        self.configure(**keywords)
        self.weft.start()
        start_servers(self.cluster)
        return self

    def plan(self):
        rows = self.weft.ctl_json("reload", "--dry-run")["changes"]
        return {row["module"]: row["change"] for row in rows}

    def reload(self):
        self.weft.ctl("reload")

    def said(self, since):
        return self.weft.log()[since:]

    def mark(self):
        return len(self.weft.log())


@pytest.fixture(scope="module")
def node():
    with Cluster() as cluster:
        made = Node(cluster)
        made.put("faulty-1")
        yield made.start(faulty={})
        made.weft.stop()


@pytest.fixture(autouse=True)
def as_it_was(request):
    """Every test begins with the first build and no options."""
    yield
    if "node" in request.fixturenames:
        node = request.getfixturevalue("node")
        node.put("faulty-1")
        node.configure()
        node.reload()
        node.configure(faulty={})
        node.reload()


def expect_unchanged(node, *reasons, look=True):
    """A reload is refused, says why, and leaves nothing behind. look: links can be looked at."""
    weft, echo = node.weft, Echo(node.cluster.client, IPV4.n1, IPV4.far)

    def state():
        return weft.generation(), pins(weft), host_state(node.ns), programs(weft) if look else None

    before = state()
    result = weft.ctl("reload", check=False)
    assert result.returncode != 0
    for reason in reasons:
        assert reason in result.stderr, result.stderr
    assert state() == before
    assert echo.alive()
    assert tcp_who(node.cluster.client, IPV4.n1, IPV4.near)[0] == "p1"


def programs(weft):
    """Number of the program of each link."""
    return {pin.name: json.loads(run("bpftool", "-j", "link", "show", "pinned", pin).stdout)["prog_id"]
            for pin in (weft.bpffs / "links").iterdir()}


@pytest.mark.parametrize("phase", ["configure", "load", "prepare", "attach", "reconfigure"])
def test_a_module_that_fails_changes_nothing_whatever_the_phase(node, phase):
    node.configure(faulty={"fail": phase})
    expect_unchanged(node, f"module faulty, {phase}: it was told to fail here")


def test_a_program_that_the_verifier_refuses_changes_nothing(node):
    node.put("faulty-refused")
    expect_unchanged(node, "module faulty, stage faulty at from-uplink", "invalid access to map value")


def test_a_self_test_that_fails_changes_nothing(node):
    node.put("faulty-test")
    expect_unchanged(node, 'module faulty, self-test "what is not IP is dropped"', "the verdict is next")


def test_a_missing_file_changes_nothing(node):
    (node.modules / "faulty.so").unlink()
    expect_unchanged(node, "there is no faulty.so in")


def test_a_module_of_another_abi_changes_nothing(node):
    node.put("faulty-abi")
    expect_unchanged(node, "module ABI 2, this weftd speaks 1")


def test_changed_state_without_a_migration_changes_nothing(node):
    node.put("faulty-changed")
    expect_unchanged(node, "map seen holds state of version 1", "has version 2", "no migration")


def test_a_bpffs_that_takes_no_pin_changes_nothing(node):
    before = programs(node.weft)
    run("mount", "-o", "remount,ro", node.weft.bpffs)
    try:
        node.configure(faulty={"number": 2})
        expect_unchanged(node, "Read-only file system", look=False)
    finally:
        run("mount", "-o", "remount,rw", node.weft.bpffs)
    assert programs(node.weft) == before


def seen(node):
    """What the module counted, by the pin of its map."""
    (pin,) = (node.weft.bpffs / "modules/faulty").iterdir()
    shown = run("bpftool", "map", "lookup", "pinned", pin, "key", "0", "0", "0", "0", "-j").stdout
    return int.from_bytes(bytes(int(b, 0) for b in re.findall(r"0x[0-9a-f]+", shown.split('"value"')[1])[:4]),
                          "little"), pin.name


def count_on_from(node, count):
    """What the module counted was COUNT: whatever else may come by, nobody gets there from zero."""
    (pin,) = (node.weft.bpffs / "modules/faulty").iterdir()
    run("bpftool", "map", "update", "pinned", pin, "key", "0", "0", "0", "0", "value",
        *map(str, count.to_bytes(4, "little")))


def test_what_did_not_change_is_kept_and_nothing_is_asked_of_it(node):
    node.configure(faulty={})
    assert set(node.plan().values()) == {"kept"}
    mark = node.mark()
    node.reload()
    assert "module=faulty" not in node.said(mark) and "takes over" not in node.said(mark)


def test_newcomers_after_a_reload_do_not_take_the_places_of_those_before_it(node):
    """Half-open flows: there is room for all of them on one CPU, so none has to go."""
    cluster, weft = node.cluster, node.weft
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        syn_flood(cluster.client, mac(cluster.n1), IPV4.n1, IPV4.far, 150, seed=1)
        wait_for("them to be half open", lambda: weft.ctl_json("status")["flows"]["new"] >= 250, 5)
        before = weft.events("EVICTED")
        node.reload()
        syn_flood(cluster.client, mac(cluster.n1), IPV4.n1, IPV4.far, 50, seed=2)
        wait_for("the others beside them", lambda: weft.ctl_json("status")["flows"]["new"] >= 350, 5)
        assert weft.events("EVICTED") == before
    finally:
        os.sched_setaffinity(0, everywhere)


def test_other_options_replace_an_instance_or_are_taken_live(node):
    mark = node.mark()
    node.configure(faulty={"number": 7})
    assert node.plan()["faulty"] == "replaced"
    node.reload()
    said = node.said(mark)
    order = ["prepares, old version faulty-1", "attaches", "takes over from faulty-1, number 7",
             "detaches, version faulty-1"]
    assert [said.find(text) for text in order] == sorted(said.find(text) for text in order) and order[0] in said

    mark = node.mark()
    node.configure(faulty={"number": 8, "live": "yes"})
    assert node.plan()["faulty"] == "reconfigured"
    node.reload()
    said = node.said(mark)
    assert "takes over from itself, number 8" in said
    assert "attaches" not in said and "detaches" not in said


def test_another_build_replaces_the_module_and_is_given_its_state(node):
    for _ in range(3):
        tcp_who(node.cluster.client, IPV4.n1, IPV4.near)
    assert seen(node)[0] > 0
    count_on_from(node, 1_000_000)
    name = seen(node)[1]
    node.put("faulty-1b")
    assert node.plan()["faulty"] == "replaced"
    mark = node.mark()
    node.reload()
    assert "takes over from faulty-1," in node.said(mark)
    count, name_now = seen(node)
    assert count >= 1_000_000 and name_now == name

    mark = node.mark()
    node.put("faulty-2")
    node.reload()
    assert "migrates seen from version 1" in node.said(mark)
    count_now, name_now = seen(node)
    assert count_now >= count and name_now.startswith("seen-2-")
    tcp_who(node.cluster.client, IPV4.n1, IPV4.near)
    assert seen(node)[0] > count_now


def test_the_old_build_s_mapping_goes_with_its_last_generation(node):
    def mapped():
        maps = open(f"/proc/{node.weft.process.pid}/maps").read()
        return len(set(re.findall(r"(\S+) \d+ +/memfd:weft-module", maps)))

    before = mapped()
    for build in ("faulty-1b", "faulty-1", "faulty-1b"):
        node.put(build)
        node.reload()
    assert mapped() == before


def test_modules_are_added_and_removed(node):
    mark = node.mark()
    node.configure()
    assert node.plan()["faulty"] == "removed"
    node.reload()
    assert "detaches" in node.said(mark)
    assert not (node.weft.bpffs / "modules").exists()
    node.configure(faulty={})
    assert node.plan()["faulty"] == "added"
    mark = node.mark()
    node.reload()
    assert "takes over from nobody" in node.said(mark)


def test_a_kept_module_is_told_of_peers(node):
    more = [("peer n3", {"address": "192.0.2.13", "pod-cidr": "10.244.3.0/24"})]
    mark = node.mark()
    node.configure(faulty={}, more=more)
    node.reload()
    assert "peer n3 added" in node.said(mark)
    assert "10.244.3.0/24 via 192.0.2.13" in node.ns.run("ip", "route").stdout
    more[0][1]["pod-cidr"] = "10.244.4.0/24"
    mark = node.mark()
    node.configure(faulty={}, more=more)
    node.reload()
    assert "peer n3 removed" in node.said(mark) and "peer n3 added" in node.said(mark)
    assert "10.244.3.0/24" not in node.ns.run("ip", "route").stdout
    mark = node.mark()
    node.configure(faulty={})
    node.reload()
    assert "peer n3 removed" in node.said(mark) and "added" not in node.said(mark)
    assert "10.244.4.0/24" not in node.ns.run("ip", "route").stdout


def test_a_module_that_fails_at_an_event_is_degraded_until_it_is_made_anew(node):
    def state():
        return {m["name"]: m["state"] for m in node.weft.ctl_json("modules")["modules"]}[FAULTY]

    node.configure(faulty={"fail": "event"})
    node.reload()
    node.configure(faulty={"fail": "event"}, more=[("peer n3", {"address": "192.0.2.13"})])
    node.reload()
    assert "module faulty, event: it was told to fail here" in node.weft.log()
    assert state() == "degraded"
    assert node.plan()[FAULTY] == "replaced"
    node.reload()
    assert state() == "on"


# ---- killed and stopped in the middle ------------------------------------------------------------

STEPS = ["planned", "built", "prepared", "attached", "tested", "pinned", "exit-hooks", "switched", "taken-over",
         "applied", "settled"]


def begin_reload(node):
    return node.ns.start(node.build / "core/ctl/weftctl", "--root", node.weft.root, "--bpffs", node.weft.bpffs,
                         "reload", stdout=-3, stderr=-3)


@pytest.fixture(scope="module")
def killed():
    with Cluster() as cluster:
        made = Node(cluster, BUILD)
        made.put("faulty-1")
        yield made.start(faulty={})


@pytest.mark.parametrize("step", STEPS)
def test_a_daemon_killed_in_mid_switch_leaves_a_working_datapath_and_its_successor_repairs(killed, step):
    node, weft, client = killed, killed.weft, killed.cluster.client
    weft.stop()
    node.put("faulty-1")
    node.set_environment({})
    weft.start()
    pinned, hung = pins(weft), attached(node.ns, "eth0")
    state = host_state(node.ns)
    weft.stop()
    node.set_environment({"WEFTD_DEBUG_SWITCH": f"kill {step}"})
    weft.start()
    echo = Echo(client, IPV4.n1, IPV4.far)
    node.put("faulty-1b")
    begin_reload(node)
    assert weft.process.wait(60) == -signal.SIGKILL
    assert echo.alive()
    assert tcp_who(client, IPV4.n1, IPV4.near)[0] == "p1"
    assert udp_who(client, IPV4.n1, IPV4.far_udp)[0] == "p2"
    node.set_environment({})
    weft.start()
    assert echo.alive()
    assert tcp_who(client, IPV4.n1, IPV4.far)[0] == "p2"
    assert pins(weft) == pinned
    assert attached(node.ns, "eth0") == hung
    assert host_state(node.ns) == state
    assert len(list((weft.bpffs / "modules/faulty").iterdir())) == 1


def test_a_device_that_vanishes_in_mid_switch_changes_nothing_else():
    with Cluster() as cluster:
        node = Node(cluster, BUILD, {"WEFTD_DEBUG_SWITCH": "stop exit-hooks"})
        node.put("faulty-1")
        node.start(faulty={})
        weft, generation = node.weft, node.weft.generation()
        device = weft.ctl_json("status")["endpoints"][0]["interface"]
        echo = Echo(cluster.client, IPV4.n1, IPV4.far)
        before = {k: v for k, v in programs(weft).items() if k.startswith("eth0")}
        process = begin_reload(node)
        wait_for("weftd to stop itself", lambda: "T (stopped)" in
                 open(f"/proc/{weft.process.pid}/status").read())
        node.ns.ip(f"link del {device}")
        weft.process.send_signal(signal.SIGCONT)
        assert process.wait(60) != 0
        assert weft.generation() == generation
        assert {k: v for k, v in programs(weft).items() if k.startswith("eth0")} == before
        assert echo.alive()
        assert "refused" in weft.log()
