# SPDX-License-Identifier: LGPL-2.1-or-later
"""A tunnel whose other end is a device of the kernel that weft knows nothing of, in both directions."""

import pytest

from cluster import FAMILIES, IPV4, IPV6, Cluster, overlay_modules
from lab import has_link_kind
from traffic import Server, datagram, ping, tcp_who, udp_who, upload
from weft import Weft

VNI = 77
UNDERLAYS = {"ipv4": (IPV4.n1, IPV4.n2, 1450), "ipv6": (IPV6.n1, IPV6.n2, 1430)}  # the ends, what the tunnel leaves
PORTS = {"vxlan": 8472, "geneve": 6081}
KINDS = [kind for kind in PORTS if has_link_kind(kind)]


@pytest.fixture(scope="module", params=[(kind, mode, underlay) for kind in KINDS for mode in ("bpf", "device")
                                        for underlay in UNDERLAYS],
                ids=lambda p: f"{p[0]}-{p[1]}-over-{p[2]}")
def beside(request):
    """weft on n1; n2 is without. The endpoint's identity is the one network that the other end knows."""
    kind, mode, underlay = request.param
    with Cluster() as cluster:
        weft = Weft(cluster.lab, cluster.n1, "n1")
        weft.configure(cluster.sections(1, overlay_modules(kind, mode=mode), {"underlay": underlay}))
        weft.drop_in("50-identity", [("endpoint p1", {"identity": VNI})])
        cluster.wefts[1] = weft.start()
        cluster.kind, cluster.underlay = kind, underlay
        pod, plain = Server(cluster.p1, "p1"), Server(cluster.n2, "plain")
        cluster.lab.on_close(pod.close)
        cluster.lab.on_close(plain.close)
        yield cluster


def fixed(kind, ours, theirs):
    """A device with one network and one other end."""
    if kind == "geneve":
        return f"id {VNI} remote {ours}", ""
    return f"id {VNI} local {theirs} remote {ours} nolearning", ""


def by_route(kind, ours, theirs):
    """A device that the route tells where to."""
    return "external", f"encap {'ip6' if ':' in ours else 'ip'} id {VNI} dst {ours}"


@pytest.fixture(params=[fixed, by_route], ids=lambda f: f.__name__)
def other_end(request, beside):
    """The device on n2, with the pod's address and ways to the pod of n1."""
    ours, theirs, mtu = UNDERLAYS[beside.underlay]
    options, encap = request.param(beside.kind, ours, theirs)
    beside.n2.ip(f"link add plain address 02:aa:bb:cc:dd:ee mtu {mtu} type {beside.kind} {options} "
                 f"dstport {PORTS[beside.kind]} udp6zerocsumrx", "link set plain up")
    for f in FAMILIES:
        beside.n2.ip(f"addr add {f.p2} dev plain" + (" nodad" if ":" in f.p2 else ""),
                     f"route add {f.p1} {encap} dev plain src {f.p2}",
                     f"neigh add {f.p1} lladdr 02:00:00:00:00:01 dev plain nud permanent")
    yield beside
    beside.n2.ip("link del plain")


def test_a_plain_device_and_weft_speak_in_both_directions(other_end, family):
    c, data = other_end, bytes(range(256)) * 24
    assert tcp_who(c.n2, family.p1, 8080)[:2] == ("p1", family.p2)
    assert udp_who(c.n2, family.p1, 5353)[:2] == ("p1", family.p2)
    assert tcp_who(c.p1, family.p2, 8080)[:2] == ("plain", family.p1)
    assert udp_who(c.p1, family.p2, 5353)[:2] == ("plain", family.p1)
    assert ping(c.p1, family.p2)
    assert ping(c.n2, family.p1)
    assert datagram(c.p1, family.p2, 5353, data) == data, "in fragments, there and back"
    assert datagram(c.n2, family.p1, 5353, data) == data
    assert upload(c.p1, family.p2, 8080, 8 << 20)
    assert upload(c.n2, family.p1, 8080, 8 << 20)
    assert not c.weft1.ctl_json("status")["drops"]
