# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab of every test: a client outside, two nodes with a pod each, a switch between them.

        client            n1 ── p1          every node: weftd, modules from INI files
    192.0.2.100      192.0.2.11             p1 10.244.1.10, p2 10.244.2.10
    2001:db8::100   2001:db8::11            fd00:244:1::10, fd00:244:2::10
          │                │
          └──── switch ────┤
                           │
                          n2 ── p2
                      192.0.2.12

The client is the outside: it has routes to the pods and the service addresses over n1, and the nodes'
default route leads to it.
"""

from dataclasses import dataclass

from lab import Lab
from weft import BUILD, Weft


@dataclass(frozen=True)
class Family:
    """The addresses of the lab in one family, and how to write them."""

    name: str
    client: str
    n1: str
    n2: str
    p1: str
    p2: str
    external: str
    balancer: str
    web: int  # node ports: TCP 8080 of both pods,
    dns: int  # UDP 5353 of both pods,
    near: int  # TCP 8080 of p1 alone,
    far: int  # TCP 8080 of p2 alone,
    far_udp: int  # UDP 5353 of p2 alone,
    shut: int  # UDP port of p2 on which nobody listens,
    none: int  # TCP without any backend,
    none_udp: int  # UDP without any backend

    def with_port(self, address, port):
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


IPV4 = Family("ipv4", "192.0.2.100", "192.0.2.11", "192.0.2.12", "10.244.1.10", "10.244.2.10",
              "198.51.100.7", "203.0.113.10",
              30080, 30053, 30081, 30082, 30054, 30099, 30098, 30097)
IPV6 = Family("ipv6", "2001:db8::100", "2001:db8::11", "2001:db8::12", "fd00:244:1::10",
              "fd00:244:2::10", "2001:db8:ffff::7", "2001:db8:fffe::10",
              30180, 30153, 30181, 30182, 30154, 30199, 30198, 30197)
FAMILIES = [IPV4, IPV6]

POD_CIDRS = {"1": ["10.244.1.0/24", "fd00:244:1::/64"], "2": ["10.244.2.0/24", "fd00:244:2::/64"]}
NATIVE_CIDRS = ["10.244.0.0/16", "fd00:244::/32"]


def services(f):
    """The service sections of one family."""
    p1, p2 = f.p1, f.p2

    def service(name, port, node_port, backends, **more):
        keys = {"port": port, "node-port": node_port, **more}
        if backends:
            keys["backend"] = [f.with_port(address, number) for address, number in backends]
        return (f"service {name}-{f.name}", keys)

    return [
        service("web", "80/tcp", f.web, [(p1, 8080), (p2, 8080)],
                **{"external-ip": f.external, "load-balancer-ip": f.balancer}),
        service("dns", "53/udp", f.dns, [(p1, 5353), (p2, 5353)], **{"external-ip": f.external}),
        service("near", "8081/tcp", f.near, [(p1, 8080)]),
        service("far", "8082/tcp", f.far, [(p2, 8080)]),
        service("far-udp", "54/udp", f.far_udp, [(p2, 5353)]),
        service("shut", "99/udp", f.shut, [(p2, 9)]),
        service("none", "98/tcp", f.none, []),
        service("none-udp", "97/udp", f.none_udp, []),
    ]


class Cluster:
    """The lab above. plain(): with nothing but the kernel's routing; weft(): with weftd on both nodes."""

    def __init__(self, home=None):
        self.lab = lab = Lab(home)
        self.client, self.n1, self.n2, self.p1, self.p2 = (
            lab.namespace(name) for name in ("client", "n1", "n2", "p1", "p2"))
        self.switch = lab.switch("switch", self.client, self.n1, self.n2)
        self.wefts = {}
        self.pair = "veth"  # what weft makes for p1 and p2
        for ns, v4, v6 in ((self.client, IPV4.client, IPV6.client), (self.n1, IPV4.n1, IPV6.n1),
                           (self.n2, IPV4.n2, IPV6.n2)):
            ns.ip(f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0")
        for f in FAMILIES:
            self.client.ip(f"route add {f.p1} via {f.n1}", f"route add {f.p2} via {f.n2}",
                           f"route add {f.external} via {f.n1}", f"route add {f.balancer} via {f.n1}")
            for node in (self.n1, self.n2):
                node.ip(f"route add default via {f.client}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.lab.close()

    def plain(self):
        """Pods wired by hand and routed by the kernel."""
        for node, peer, pod, number in ((self.n1, "n2", self.p1, 1), (self.n2, "n1", self.p2, 2)):
            node.sysctl("ipv4/ip_forward", 1)
            node.sysctl("ipv6/conf/all/forwarding", 1)
            self.lab.cable(node, "pod", pod, "eth0")
            for f in FAMILIES:
                address = getattr(f, f"p{number}")
                gateway = address.replace("10", "1") if ":" in address else f"10.244.{number}.1"
                length = 64 if ":" in address else 24
                node.ip(f"addr add {gateway}/{length} dev pod",
                        f"route add {getattr(f, f'p{3 - number}')} via {getattr(f, peer)}")
                pod.ip(f"addr add {address}/{length} dev eth0", f"route add default via {gateway}")

    def sections(self, number, modules, core=None, more=()):
        """The whole configuration of node NUMBER (1, 2)."""
        other = 3 - number
        result = [("weft", core or {}),
                  ("node", {"name": f"n{number}", "uplink": "eth0",
                            "address": [getattr(f, f"n{number}") for f in FAMILIES],
                            "pod-cidr": POD_CIDRS[str(number)]}),
                  (f"peer n{other}", {"address": [getattr(f, f"n{other}") for f in FAMILIES],
                                      "pod-cidr": POD_CIDRS[str(other)]}),
                  (f"endpoint p{number}", {"netns": self.lab[f"p{number}"].path, "kind": self.pair,
                                           "address": [getattr(f, f"p{number}") for f in FAMILIES]})]
        for f in FAMILIES:
            result += services(f)
        return result + [(f"module {name}", keys) for name, keys in modules.items()] + list(more)

    def weft(self, modules, core=None, build=BUILD, more=(), files=None):
        """Starts weftd on both nodes. files: further ones, by name below its root."""
        self.modules = modules
        for number in (1, 2):
            node = Weft(self.lab, getattr(self, f"n{number}"), f"n{number}", build)
            node.configure(self.sections(number, modules, core, more))
            for name, text in (files or {}).items():
                (node.root / name).write_text(text)
            self.wefts[number] = node.start()
        return self

    @property
    def weft1(self):
        return self.wefts[1]

    @property
    def weft2(self):
        return self.wefts[2]

    def account(self):
        return "\n".join(weft.account() for weft in self.wefts.values())


def standard_modules(host_routing=True, **options):
    """The modules of a node: options by module name with '_' for '-'."""
    modules = {
        "native-routing": {"cidr": NATIVE_CIDRS, "direct-node-routes": "yes"},
        "nodeport-snat": {},
        "bpf-masq": {"ipv6": "yes"},
    }
    if host_routing:
        modules["host-routing"] = {}
    for name, keys in options.items():
        modules[name.replace("_", "-")].update(keys)
    return modules


def overlay_modules(kind, host_routing=True, **options):
    """The modules of a node whose pods are reached through a tunnel; options: of the tunnel."""
    modules = {kind: options, "nodeport-snat": {}, "bpf-masq": {"ipv6": "yes"}}
    if host_routing:
        modules["host-routing"] = {}
    return modules
