# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules from outside the tree, built against an installed weft, and the guide that teaches it."""

import json
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from cluster import IPV4, Cluster, standard_modules
from conftest import start_servers
from lab import PATIENCE, run
from traffic import connect, tcp_who, udp_who
from weft import BUILD, TOP, Weft, ini

EXAMPLE = TOP / "examples/limiter"
ABI = TOP / "tests/abi"
GUIDE = TOP / "docs/writing-a-module.md"
TOO_MANY = "TOO_MANY_CONNECTIONS"
HEAVY, LIGHT = "192.0.2.101", "192.0.2.102"  # two more addresses of the client


def the_only(paths):
    (path,) = paths
    return path


class Installed:
    """weft as `meson install` leaves it, in a directory of its own, and modules built against it."""

    def __init__(self, directory):
        self.directory = directory
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", directory / "root")
        pkgconfig = the_only((directory / "root").rglob("weft.pc")).parent
        self.environment = os.environ | {"PKG_CONFIG_PATH": str(pkgconfig)}
        self.modules = Path(self.run("pkg-config", "--variable=moduledir", "weft").stdout.strip()).resolve()

    def run(self, *argv, **keywords):
        return run(*argv, env=self.environment, **keywords)

    def make(self, name, *patches, broken=None):
        """A build of the example; its .so. broken: what sed does to its stage."""
        source = self.directory / name
        shutil.copytree(EXAMPLE, source)
        for patch in patches:
            self.run("patch", "-p1", "-i", patch, cwd=source)
        if broken:
            self.run("sed", "-i", broken, "limiter.bpf.c", cwd=source)
        self.run("meson", "setup", "build", cwd=source)
        self.run("ninja", "-C", "build", cwd=source)
        return source / "build/limiter.so"

    def put(self, so):
        """Installs a module as a package manager would: the new file replaces the old one."""
        run("install", "-m", "644", so, self.modules)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("weft"))


@pytest.fixture(scope="module")
def builds(installed):
    return installed.make("first"), installed.make("second", EXAMPLE / "second-version.patch")


def start(made, installed, modules):
    """Starts weftd on both nodes, with the modules of the installed tree, and the servers."""
    for number in (1, 2):
        node = Weft(made.lab, made.lab[f"n{number}"], f"n{number}", module_dir=installed.modules)
        node.configure(made.sections(number, modules))
        made.wefts[number] = node.start()
    start_servers(made)


@pytest.fixture
def cluster(installed):
    with Cluster() as made:
        made.client.ip(f"addr add {HEAVY}/24 dev eth0", f"addr add {LIGHT}/24 dev eth0")
        start(made, installed, standard_modules())
        yield made
        for name in ("limiter.so", "no-telnet.so"):
            (installed.modules / name).unlink(missing_ok=True)


def admitted(cluster, source):
    try:
        return tcp_who(cluster.client, IPV4.n1, IPV4.web, timeout=0.7 * PATIENCE, source=(source, 0))[0] in ("p1", "p2")
    except OSError:
        return False


def drops(weft, module, reason):
    return sum(row["packets"] for row in weft.ctl_json("status")["drops"]
               if row["what"] == reason and row["module"] == module)


def counters(weft, module):
    """What the module counts itself."""
    (row,) = running(weft, module)
    return {counter["name"]: counter["value"] for counter in row["counters"]}


def running(weft, name):
    return [m for m in weft.ctl_json("modules")["modules"] if m["name"] == name and m["state"] == "on"]


def limiter(limit, window="1h"):
    return [("module limiter", {"limit": limit, "window": window, "except": IPV4.client})]


class Requests:
    """TCP and UDP requests from a source without a limit, one after the other, in a thread."""

    def __init__(self, cluster):
        self.cluster, self.lost, self.done = cluster, [], 0
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.end.is_set():
            try:
                tcp_who(self.cluster.client, IPV4.n1, IPV4.web, timeout=5 * PATIENCE, source=(IPV4.client, 0))
                udp_who(self.cluster.client, IPV4.n1, IPV4.dns, timeout=0.9 * PATIENCE, tries=1,
                        source=(IPV4.client, 0))
                self.done += 2
            except OSError as error:
                self.lost.append(repr(error))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()


def test_a_module_of_ones_own_is_loaded_swapped_and_removed_under_traffic(cluster, installed, builds):
    weft = cluster.weft1
    first, second = builds
    installed.put(first)
    with Requests(cluster) as requests:
        weft.drop_in("20-limiter", limiter(5))
        weft.ctl("reload")
        assert running(weft, "limiter")
        assert [admitted(cluster, HEAVY) for _ in range(7)] == [True] * 5 + [False] * 2
        refused = drops(weft, "limiter", TOO_MANY)
        assert refused >= 2
        counted = counters(weft, "limiter")
        assert counted["refused"] == refused and counted["admitted"] == 5 and counted["excepted"] > 0
        page = weft.ctl("metrics").stdout
        assert re.search(r'^weft_module_counter_total{module="limiter",counter="admitted"} 5$', page, re.M)
        assert re.search(rf'^weft_drop_packets_total{{reason="{TOO_MANY}",.*module="limiter"}} [1-9]', page, re.M)
        assert admitted(cluster, LIGHT)

        # another build with another layout of its map, another limit: who was at it stays counted
        installed.put(second)
        weft.drop_in("20-limiter", limiter(8))
        weft.ctl("reload")
        assert [admitted(cluster, HEAVY) for _ in range(4)] == [True] * 3 + [False]
        assert drops(weft, "limiter", TOO_MANY) > refused
        assert counters(weft, "limiter")["refused"] == drops(weft, "limiter", TOO_MANY)

        weft.drop_in("20-limiter", None)
        weft.ctl("reload")
        assert not running(weft, "limiter")
        assert all(admitted(cluster, HEAVY) for _ in range(3))
    assert not requests.lost
    assert requests.done > 20


@pytest.mark.parametrize("options, second, third", [
    ({"limit": 2}, True, False),
    ({"limit": 2, "reject": "yes"}, True, None),
    ({"limit": 1, "ipv4-prefix": 24}, False, False),
    ({"limit": 1, "observe": "yes"}, True, True),
])
def test_the_limiter_does_what_its_options_say(cluster, installed, builds, options, second, third):
    """Of three connections from two neighbours: the second and the third; None is told that it is refused."""
    installed.put(builds[0])
    cluster.weft1.drop_in("20-limiter", [("module limiter", {"window": "1h"} | options)])
    cluster.weft1.ctl("reload")
    assert admitted(cluster, HEAVY)
    assert admitted(cluster, LIGHT if "ipv4-prefix" in options else HEAVY) == second
    if third is None:
        with pytest.raises(ConnectionRefusedError):
            connect(cluster.client, IPV4.n1, IPV4.web, source=(HEAVY, 0))
    else:
        assert admitted(cluster, HEAVY) == third
    assert (counters(cluster.weft1, "limiter")["over_limit"] > 0) == ("observe" in options)


def test_a_limiter_that_limits_nobody_is_found_by_its_own_packets(cluster, installed):
    weft = cluster.weft1
    generation = weft.generation()
    installed.put(installed.make("broken", broken="s/if (s->count >= limit)/if (0)/"))
    weft.drop_in("20-limiter", [("module limiter", {"limit": 1})])
    result = weft.ctl("reload", check=False)
    assert result.returncode == 1
    assert "with a limit of one, the same source's second connection is dropped" in result.stderr
    assert weft.generation() == generation


def test_a_module_that_lacks_its_role_is_refused_with_the_reason(cluster, installed, builds):
    weft = cluster.weft1
    installed.put(builds[0])
    generation = weft.generation()
    weft.drop_in("20-limiter", limiter(5) + [("module nodeport-snat", {"enabled": "no"})])
    result = weft.ctl("reload", check=False)
    assert result.returncode == 1
    assert "handles the services whose connections are counted" in result.stderr
    assert weft.generation() == generation


def test_a_list_that_the_limiter_has_no_room_for_is_refused_with_its_line(installed, builds, tmp_path):
    installed.put(builds[0])
    file = tmp_path / "etc/weft/weft.conf"
    file.parent.mkdir(parents=True)
    for number, code in ((1024, 0), (1025, 1)):
        prefixes = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(number)]
        file.write_text(ini([("module limiter", {"except": prefixes}), ("module nodeport-snat", {})]))
        result = run(BUILD / "core/ctl/weftctl", "--root", tmp_path, "check", "--module-dir", installed.modules,
                     check=False)
        assert result.returncode == code, result.stderr
    assert "weft.conf:1: [module limiter]: module limiter, configure: except has 1025 prefixes" in result.stderr


def test_probe_says_what_each_module_of_a_directory_would_do(installed, builds):
    installed.put(builds[0])
    report = json.loads(run(BUILD / "core/ctl/weftctl", "probe", "--json", "--module-dir",
                            installed.modules).stdout)
    verdicts = {m["name"]: m["verdict"] for m in report["modules"]}
    assert verdicts["limiter"] in ("use", "fallback")
    assert {"helper", "feature", "host", "link-kind"} == {fact["kind"] for fact in report["facts"]}


def test_a_module_compiled_for_the_first_abi_still_works(cluster, installed):
    installed.put(ABI / "1.0/limiter.so")
    cluster.weft1.drop_in("20-limiter", limiter(2))
    cluster.weft1.ctl("reload")
    assert [admitted(cluster, HEAVY) for _ in range(3)] == [True, True, False]


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def test_describe_needs_no_root_and_trusts_no_other_user(builds):
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        so = shutil.copy(builds[0], directory)
        command = [shutil.copy(BUILD / "core/ctl/weftctl", directory), "module", "describe", so]
        assert "limiter: Limits" in run(*NOBODY, *command).stdout
        os.chown(so, 65534, 65534)
        assert run(*NOBODY, *command).returncode == 0
        refused = run(*command, check=False)
        assert refused.returncode == 1
        assert "chown root" in refused.stderr


def test_the_header_of_stages_compiles_by_itself(installed, tmp_path):
    (tmp_path / "alone.bpf.c").write_text("#include <weft/stage.bpf.h>\n")
    flags = installed.run("pkg-config", "--variable=bpfcflags", "weft").stdout.split()
    run("clang", *flags, "-Werror", "-c", tmp_path / "alone.bpf.c", "-o", tmp_path / "alone.bpf.o")


# ---- the guide ---------------------------------------------------------------------------------

BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.M | re.S)


def blocks():
    """The guide's code: (language, file name or "", text)."""
    return BLOCK.findall(GUIDE.read_text())


def play(cluster, installed, directory):
    """Does what the guide says: writes its files and runs its commands, on node 1."""
    weft = cluster.weft1
    tools = directory / "bin"
    tools.mkdir()
    (tools / "weftctl").write_text(f"#!/bin/sh\nexec {BUILD}/core/ctl/weftctl --root {weft.root} "
                                   f"--bpffs {weft.bpffs} \"$@\"\n")
    (tools / "weftctl").chmod(0o755)
    environment = installed.environment | {"PATH": f"{tools}:{os.environ['PATH']}", "WEFT": str(TOP)}
    said = []
    for language, name, text in blocks():
        path = weft.root / name[1:] if name.startswith("/") else directory / name
        if language == "sh":
            result = weft.ns.run("sh", "-eu", "-c", text, cwd=directory, env=environment, check=False)
            assert result.returncode == 0, text + result.stdout + result.stderr
            said.append(result.stdout)
        elif name:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return said


def test_every_command_of_the_guide_works(cluster, installed, tmp_path):
    said = play(cluster, installed, tmp_path)
    weft = cluster.weft1
    assert len(said) >= 5
    assert any("refuse_telnet" in text and "from-uplink" in text for text in said)
    assert running(weft, "no-telnet")
    assert [m["version"] for m in running(weft, "limiter")] == ["2"]
    with pytest.raises(ConnectionRefusedError):
        connect(cluster.client, IPV4.p1, 23)
    assert drops(weft, "no-telnet", "POLICY") > 0


def test_what_the_guide_shows_of_the_example_is_the_example():
    sources = "".join(path.read_text() for path in EXAMPLE.iterdir() if path.is_file())
    shown = [text for language, name, text in blocks() if language in ("c", "meson") and not name]
    assert shown
    for text in shown:
        assert text in sources, text


# ---- nothing is named -----------------------------------------------------------------------------

def chosen(weft):
    return {m["name"]: m.get("reason") for m in weft.ctl_json("modules")["modules"] if m["state"] == "on"}


def test_with_nothing_named_weft_chooses_and_traffic_flows(installed, builds):
    installed.put(builds[0])  # may only be named
    broken = installed.modules / "broken.so"
    broken.write_text("this is no module\n")
    with Cluster() as made:
        start(made, installed, {})
        broken.unlink()
        assert "not to be chosen: " in made.weft1.log() and "broken.so" in made.weft1.log()
        assert chosen(made.weft1) == {
            "native-routing": "chosen for routing", "nodeport-snat": "chosen for nodeport",
            "bpf-masq": "chosen for masquerade", "host-routing": "chosen for delivery"}
        assert tcp_who(made.client, IPV4.n1, IPV4.near)[0] == "p1"
        assert tcp_who(made.client, IPV4.n1, IPV4.far)[0] == "p2"
        assert tcp_who(made.p1, IPV4.p2, 8080)[:2] == ("p2", IPV4.p1)

        # a peer behind a router: the network may not know the pods' addresses
        made.weft1.drop_in("far", [("peer far", {"address": "203.0.113.77", "pod-cidr": "10.244.9.0/24"})])
        made.weft1.ctl("reload")
        assert set(chosen(made.weft1)) == {"vxlan", "nodeport-snat", "bpf-masq", "host-routing"}

        made.weft1.drop_in("one", [("module bpf-masq", {})])
        made.weft1.ctl("reload")
        assert set(chosen(made.weft1)) == {"bpf-masq"}
