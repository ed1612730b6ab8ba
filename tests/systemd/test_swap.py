# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every module is replaced, removed, added and given other options by `systemctl reload`, under load.

A new module is one row of ROWS; what people exchange for one another is a row of EXCHANGES.
"""

import os
import shutil
from dataclasses import dataclass, field

import pytest

from cluster import IPV4, IPV6, standard_modules
from lab import run, wait_for
from load import Load
from machine import MODULES, reset, systemctl
from traffic import tcp_who
from weft import BUILD

CLUSTER_IP = "10.96.0.10"
INSIDE = ("service inside", {"port": "80/tcp", "cluster-ip": CLUSTER_IP,
                             "backend": [f"{IPV4.p1}:8080", f"{IPV4.p2}:8080"]})


# ---- what each module is for --------------------------------------------------------------------

def answers(ns, address, port):
    try:
        return tcp_who(ns, address, port, timeout=0.5)
    except OSError:
        return None


def routed_by_weft(cluster):
    return f"via {IPV4.n2}" in cluster.n1.run("ip", "route", "show", "10.244.2.0/24").stdout


def node_port_answers(cluster):
    return answers(cluster.client, IPV4.n1, IPV4.far)


def masqueraded(cluster):
    seen = answers(cluster.p1, IPV4.client, 8080)
    return seen and seen[1] == IPV4.n1


def past_the_stack(cluster):
    return "host-routing" in run("weftctl", "chain").stdout


def untracked(cluster):
    return "notrack" in cluster.n1.run("nft", "list", "ruleset").stdout


def cluster_ip_answers(cluster):
    return answers(cluster.p1, CLUSTER_IP, 80)


def tunnelled(cluster):
    """Pods of the other node are reached by a way of weft's that is not the other node itself."""
    ways = cluster.n1.run("ip", "route", "show", "10.244.2.0/24").stdout
    return "proto 119" in ways and f"via {IPV4.n2}" not in ways and answers(cluster.p1, IPV4.p2, 8080)


def client_seen(cluster):
    """By a backend on another node: none but DSR shows it the client."""
    seen = answers(cluster.client, IPV4.n1, IPV4.far)
    return seen and seen[1] == IPV4.client


def wait_for_work(works, cluster):
    """Under load a server's queue may be full, and a SYN is sent again after a second."""
    wait_for(works.__name__, lambda: works(cluster))


@dataclass
class Row:
    """A module: what it does (a question about the cluster), with which it is tried, and other options.
    without: whether what the load asks for can be begun without it, too. other: the other node has to have it,
    all the time. tunnel: both have to, and without it there is no way between the pods; what is sent meanwhile
    is sent again. brings: modules that come and go with it."""

    name: str
    works: object
    options: dict
    with_: dict = field(default_factory=dict)
    less: tuple = ()
    without: bool = True
    urls: tuple = ()
    other: bool = False
    tunnel: bool = False
    brings: tuple = ()

    def modules(self, **options):
        modules = {k: v for k, v in standard_modules().items() if k not in self.less} | self.with_
        return modules | {self.name: modules.get(self.name, {}) | options}

    def rest(self):
        """What is left without it."""
        return {name: keys for name, keys in self.modules().items() if name != self.name}

    def change(self, change):
        """What a reload is to do with it, and with what it brings."""
        return {name: change for name in (self.name, *self.brings)}


ROWS = [
    Row("native-routing", routed_by_weft, {"skip-unreachable": "yes"}),
    Row("nodeport-snat", node_port_answers, {"snat-ports": "40000-45000"}, without=False),
    Row("bpf-masq", masqueraded, {"masquerade-link-local": "yes"}),
    Row("host-routing", past_the_stack, {}),
    Row("notrack", untracked, {"cidr": "10.244.0.0/15"}, with_={"notrack": {}}, less=("host-routing",)),
    Row("clusterip", cluster_ip_answers, {"loopback-address": "169.254.42.7, fd77:6566:74::7"}, with_={"clusterip": {}},
        without=False, urls=("http://10.96.0.10/",)),
    Row("vxlan", tunnelled, {"mtu": 1400}, with_={"vxlan": {}}, less=("native-routing",), without=False,
        tunnel=True),
    Row("geneve", tunnelled, {"mtu": 1400}, with_={"geneve": {}}, less=("native-routing",), without=False,
        tunnel=True),
    Row("nodeport-dsr", client_seen, {"port-range": "30000-32000"}, with_={"nodeport-dsr": {}},
        less=("nodeport-snat",), without=False, other=True),
    Row("hybrid", client_seen, {"udp": "dsr"}, with_={"hybrid": {}}, brings=("nodeport-dsr",), other=True),
]


# ---- the nodes ----------------------------------------------------------------------------------

def fabric(cluster, do):
    """The network knows the pods' ways, too: what goes without native-routing is its."""
    for node, ways in ((cluster.n1, ((IPV4.n2, "10.244.2.0/23"), (IPV6.n2, "fd00:244:2::/47"))),
                       (cluster.n2, ((IPV4.n1, "10.244.0.0/23"), (IPV6.n1, "fd00:244::/47")))):
        node.ip(*(f"route {do} {pods} via {peer}" for peer, pods in ways))


# Of the machine's own, so that conntrack looks at what crosses the stack.
FIREWALL = """
table inet firewall {
        chain forward {
                type filter hook forward priority 0
                ct state established accept
        }
}
"""


@pytest.fixture(scope="module")
def node(cluster):
    """Node 1 under systemd, and node 2; put back to the standard afterwards."""
    fabric(cluster, "add")
    cluster.n1.run("nft", "-f", "-", input=FIREWALL)
    reset(cluster.weft1)
    cluster.weft1.configure(cluster.sections(1, standard_modules()))
    systemctl("start", "weftd.socket", "weftd.service")
    yield Node(cluster)
    for so in MODULES.glob("*.so"):
        put(so.stem, BUILD / f"modules/{so.name}")
    cluster.n1.run("nft", "delete", "table", "inet", "firewall")
    fabric(cluster, "del")
    reset(cluster.weft1)
    cluster.weft2.configure(cluster.sections(2, standard_modules()))
    cluster.weft2.ctl("reload")


class Node:
    def __init__(self, cluster):
        self.cluster, self.weft = cluster, cluster.weft1

    def configure(self, modules):
        self.weft.configure(self.cluster.sections(1, modules, more=[INSIDE]))

    def other_to(self, modules):
        """The other node to other modules."""
        self.cluster.weft2.configure(self.cluster.sections(2, modules))
        self.cluster.weft2.ctl("reload")

    def reload(self, expected):
        """What systemctl does; the plan says of each module what is to come of it, and the others are kept."""
        plan = {row["module"]: row["change"] for row in self.weft.ctl_json("reload", "--dry-run")["changes"]}
        changed = {name: change for name, change in plan.items() if change != "kept"}
        assert changed == expected
        generation = self.weft.generation()
        self.weft.reload()
        assert self.weft.generation() == generation + 1

    def reload_to(self, modules):
        """To other modules, whatever that changes."""
        self.configure(modules)
        self.weft.reload()


def put(name, so):
    """Installs a file as a package manager does: the new one in the place of the old."""
    new = MODULES / f".{name}"
    shutil.copy(so, new)
    os.rename(new, MODULES / f"{name}.so")


def new_build(name, directory):
    """The module as another build leaves it: the same code, not the same file."""
    note, so = directory / "note", directory / f"{name}.so"
    note.write_text(f"another build of {name}")
    run("objcopy", "--add-section", f".weft-build={note}", BUILD / f"modules/{name}.so", so)
    return so


@pytest.fixture
def swapped(node, request):
    """The row's modules at work on the node, and on the other where it needs them."""
    row = request.param
    if row.other or row.tunnel:
        node.other_to(row.modules())
    if row.tunnel:
        fabric(node.cluster, "del")
    node.reload_to(row.modules())
    yield row
    put(row.name, BUILD / f"modules/{row.name}.so")
    node.reload_to(standard_modules())
    if row.tunnel:
        fabric(node.cluster, "add")
    if row.other or row.tunnel:
        node.other_to(standard_modules())


@pytest.mark.parametrize("swapped", ROWS, ids=lambda row: row.name, indirect=True)
def test_a_module_is_replaced_reconfigured_removed_and_added_under_load(cluster, node, swapped, tmp_path):
    row = swapped
    urls = [(cluster.p1, url) for url in row.urls]
    wait_for_work(row.works, cluster)

    with Load(cluster, urls=urls) as load:
        put(row.name, new_build(row.name, tmp_path))
        node.reload({row.name: "replaced"})
        wait_for_work(row.works, cluster)
        if row.options:
            node.configure(row.modules(**row.options))
            plan = {c["module"]: c["change"] for c in node.weft.ctl_json("reload", "--dry-run")["changes"]}
            assert plan[row.name] in ("reconfigured", "replaced")
            node.reload({row.name: plan[row.name]})
            load.check()
            wait_for_work(row.works, cluster)
            node.reload_to(row.modules())

    with Load(cluster, urls=urls, new=row.without, lossy=row.tunnel) as load:
        node.configure(row.rest())
        node.reload(row.change("removed"))
        assert not row.works(cluster)
        if row.tunnel:
            node.other_to(row.rest())
            node.other_to(row.modules())
        else:
            load.check()
        node.configure(row.modules())
        node.reload(row.change("added"))
        wait_for_work(row.works, cluster)


@dataclass
class Exchange:
    """Modules in the place of others, on both nodes. lossy: while the nodes differ, packets are lost and sent
    again; else the other node can do both before this one begins."""

    before: tuple
    after: tuple
    works_before: object
    works_after: object
    lossy: bool = False

    def __str__(self):
        return f"{'+'.join(self.before)}-{'+'.join(self.after)}"


def no_client_seen(cluster):
    seen = answers(cluster.client, IPV4.n1, IPV4.far)
    return seen and seen[1] == IPV4.n1


EXCHANGES = [
    Exchange(("vxlan",), ("geneve",), tunnelled, tunnelled, lossy=True),
    Exchange(("nodeport-snat",), ("nodeport-dsr",), no_client_seen, client_seen),
    Exchange(("nodeport-snat",), ("hybrid",), no_client_seen, client_seen),
    Exchange(("nodeport-dsr",), ("hybrid",), client_seen, client_seen),
]
ROLES = ({"native-routing", "vxlan", "geneve"}, {"nodeport-snat", "nodeport-dsr", "hybrid"})


def with_modules(names):
    """The standard modules, with these in the place of those that have their role."""
    standard = standard_modules()
    rivals = {rival for role in ROLES if role & set(names) for rival in role}
    return {name: keys for name, keys in standard.items() if name not in rivals} | {
        name: standard.get(name, {}) for name in names}


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_modules_are_exchanged_for_one_another_and_back_under_load(cluster, node, exchange):
    before, after = with_modules(exchange.before), with_modules(exchange.after)
    node.other_to(before)
    node.reload_to(before)
    try:
        wait_for_work(exchange.works_before, cluster)
        with Load(cluster, lossy=exchange.lossy) as load:
            for modules, works in ((after, exchange.works_after), (before, exchange.works_before)):
                if modules is after:
                    node.other_to(modules)
                    node.reload_to(modules)
                else:
                    node.reload_to(modules)
                    node.other_to(modules)
                load.check()
                wait_for_work(works, cluster)
    finally:
        node.reload_to(standard_modules())
        node.other_to(standard_modules())


def test_every_module_that_is_installed_has_a_row():
    assert {so.stem for so in MODULES.glob("*.so")} == {row.name for row in ROWS}
