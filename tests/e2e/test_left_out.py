# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules that do not run: they brought weftd down, or the kernel (a faked one) lacks what they need."""

import json
import signal

import pytest

from cluster import IPV4, Cluster, standard_modules
from conftest import start_servers
from lab import run
from test_reload import Node
from traffic import tcp_who
from weft import BUILD, BUILD_SANITIZED, Weft

NO_PEER = "no-redirect-peer"
NO_NEIGHBOUR = "no-redirect_neigh"


def state(weft, name):
    """(state, reason) of a module in status."""
    (row,) = (m for m in weft.ctl_json("status")["modules"] if m["name"] == name)
    return row["state"], row.get("reason", "")


def ends(weft):
    """Starts weftd, which is to end by itself; its exit status."""
    with open(weft.log_path, "ab") as log:
        weft.process = weft.ns.start(*weft.command(), stdout=log, stderr=log)
    return weft.process.wait(60)


def crashes(weft):
    path = weft.root / "run/weft/crashes"
    return path.read_text().splitlines() if path.exists() else []


def traffic_works(cluster):
    return all(tcp_who(cluster.client, IPV4.n1, port)[0] == pod
               for port, pod in ((IPV4.near, "p1"), (IPV4.far, "p2")))


# ---- crashed -------------------------------------------------------------------------------------

@pytest.mark.parametrize("phase", ["configure", "attach"])
def test_a_module_that_brought_weftd_down_twice_is_left_out_until_its_file_is_another(phase):
    with Cluster() as cluster:
        node = Node(cluster, BUILD)
        weft = node.weft
        node.put("faulty-crash")
        node.configure(faulty={"fail": phase})
        for times in (1, 2):
            assert ends(weft) == -signal.SIGABRT
            assert len(crashes(weft)) == times - 1, "counted by the next start"
        weft.start()
        start_servers(cluster)
        assert len(crashes(weft)) == 2
        on, reason = state(weft, "faulty")
        assert on == "off" and f"brought weftd down 2 times, at last in {phase}" in reason
        assert "weftctl reload" in reason
        assert f"left out: {reason}" in weft.log()
        assert traffic_works(cluster)

        node.reload()
        assert state(weft, "faulty")[0] == "off", "the same file stays out"
        node.put("faulty-1")
        node.configure(faulty={})
        node.reload()
        assert state(weft, "faulty")[0] == "on"
        assert traffic_works(cluster)
        weft.stop()


def test_a_crash_in_an_event_counts_and_clearing_the_count_lets_the_file_in_again():
    with Cluster() as cluster:
        node = Node(cluster, BUILD)
        weft = node.weft
        node.put("faulty-crash")
        for _ in range(2):
            node.configure(faulty={"fail": "event"})
            weft.start()
            node.configure(faulty={"fail": "event"}, more=[("peer n3", {"address": "192.0.2.13"})])
            weft.ctl("reload", check=False)
            assert weft.process.wait(60) == -signal.SIGABRT
        weft.start()
        assert "at last in event" in state(weft, "faulty")[1]
        (weft.root / "run/weft/crashes").unlink()
        node.configure(faulty={})
        node.reload()
        assert state(weft, "faulty")[0] == "on"
        weft.stop()


def test_a_daemon_that_is_killed_or_stopped_counts_against_no_module():
    with Cluster() as cluster:
        node = Node(cluster)
        weft = node.weft
        node.put("faulty-crash")
        node.configure(faulty={})
        for end in (weft.kill, weft.stop, weft.kill):
            weft.start()
            assert (weft.root / "run/weft/callback").read_text() == ""
            end()
        weft.start()
        assert not crashes(weft)
        assert state(weft, "faulty")[0] == "on"
        weft.stop()


# ---- the mode table ------------------------------------------------------------------------------

def lesser(cluster, mode, facts, modules=None):
    """weftd for node 1, not started, on a kernel that lacks something."""
    weft = Weft(cluster.lab, cluster.n1, "n1", BUILD_SANITIZED)
    weft.configure(cluster.sections(1, standard_modules() if modules is None else modules, {"mode": mode}))
    command = [*weft.command()]
    weft.command = lambda: ["env", f"WEFTD_DEBUG_FACTS={facts}", *command]
    return weft


@pytest.mark.parametrize("mode", ["strict", "partial"])
def test_strict_and_partial_refuse_to_start_without_a_hard_need(mode):
    with Cluster() as cluster:
        weft = lesser(cluster, mode, NO_PEER)
        assert ends(weft) == 1
        said = [line for line in weft.log().splitlines() if "not started:" in line]
        assert len(said) == 1 and "on Linux " in said[0]
        assert "module host-routing needs the kernel's feature redirect-peer" in said[0]
        assert not [p for p in weft.bpffs.rglob("*") if p.is_file() and not p.name.endswith(".debug")]
        weft.check_log()


def test_strict_refuses_a_reload_without_a_hard_need_and_the_running_generation_goes_on():
    with Cluster() as cluster:
        weft = lesser(cluster, "strict", NO_PEER, standard_modules(host_routing=False)).start()
        generation = weft.generation()
        weft.configure(cluster.sections(1, standard_modules(), {"mode": "strict"}))
        result = weft.ctl("reload", check=False)
        assert result.returncode != 0
        assert "module host-routing needs the kernel's feature redirect-peer" in result.stderr
        assert weft.generation() == generation
        weft.stop()


@pytest.mark.parametrize("fact, lack", [(NO_PEER, "feature redirect-peer"), (NO_NEIGHBOUR, "eBPF helper redirect_neigh")])
def test_probe_leaves_out_what_lacks_a_hard_need_with_the_reason_and_the_rest_works(fact, lack):
    with Cluster() as cluster:
        cluster.wefts[1] = weft = lesser(cluster, "probe", fact).start()
        other = Weft(cluster.lab, cluster.n2, "n2", BUILD_SANITIZED)
        other.configure(cluster.sections(2, standard_modules()))
        cluster.wefts[2] = other.start()
        start_servers(cluster)
        on, reason = state(weft, "host-routing")
        assert on == "off" and reason.startswith(f"needs the kernel's {lack}")
        assert weft.log().count(f"left out: {reason}") == 1
        assert {state(weft, name)[0] for name in standard_modules(host_routing=False)} == {"on"}
        assert traffic_works(cluster)
        weft.stop()


@pytest.mark.parametrize("mode", ["strict", "probe", "partial"])
def test_a_soft_need_that_is_missing_is_a_fallback_and_logged_in_every_mode(mode):
    with Cluster() as cluster:
        weft = lesser(cluster, mode, NO_NEIGHBOUR, standard_modules(host_routing=False)).start()
        on, reason = state(weft, "nodeport-snat")
        assert on == "on" and "without the kernel's eBPF helper redirect_neigh" in reason
        assert reason in weft.log()
        assert "faked" in weft.log()
        weft.stop()


@pytest.mark.parametrize("fact, expected", [
    ("fib-lookup-src", {"bpf-masq": ("on", "without the kernel's feature fib-lookup-src"), "host-routing": ("on", "")}),
    ("fib_lookup", {"bpf-masq": ("off", "needs the kernel's eBPF helper fib_lookup"),
                    "host-routing": ("off", "needs the kernel's eBPF helper fib_lookup"), "notrack": ("on", "")}),
    ("nftables", {"notrack": ("off", "needs the kernel's feature nftables"), "native-routing": ("on", "")}),
    ("masquerade-free", {"host-routing": ("off", "take [module host-routing] away"),
                         "notrack": ("off", "take [module notrack] away"), "bpf-masq": ("on", "")}),
    ("redirect-free", {"notrack": ("off", "take [module notrack] away"), "host-routing": ("on", "")}),
])
def test_what_the_host_path_modules_do_without(fact, expected):
    with Cluster() as cluster:
        weft = lesser(cluster, "probe", f"no-{fact}", {**standard_modules(), "notrack": {}}).start()
        for module, (on, text) in expected.items():
            assert state(weft, module)[0] == on and text in state(weft, module)[1], state(weft, module)
        weft.stop()


def test_weftctl_probe_takes_the_same_facts():
    def verdicts(facts):
        said = json.loads(run("env", f"WEFTD_DEBUG_FACTS={facts}", BUILD / "core/ctl/weftctl", "--json",
                              "--module-dir", BUILD / "modules", "probe").stdout)
        absent = {f["name"] for f in said["facts"] if not f["present"]}
        return absent, {m["name"]: (m["verdict"], m["reason"]) for m in said["modules"]}

    absent, modules = verdicts(f"{NO_PEER} {NO_NEIGHBOUR}")
    assert {"redirect-peer", "redirect_neigh"} <= absent
    assert modules["host-routing"][0] == "refused" and "redirect-peer" in modules["host-routing"][1]
    assert modules["nodeport-snat"][0] == "fallback"
    assert modules["bpf-masq"][0] == "use"
    assert verdicts("")[1]["host-routing"][0] == "use"
