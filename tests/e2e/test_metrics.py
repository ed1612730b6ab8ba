# SPDX-License-Identifier: LGPL-2.1-or-later
"""The metrics: their text, where it is served, and what it counts."""

import contextlib
import http.client
import json
import re
import signal
import socket
import time

import pytest

from cluster import IPV4
from conftest import make_cluster
from lab import wait_for
from packets import mac, syn_flood
from traffic import Echo, connect, tcp_who
from weft import TOP

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"(weft_[a-z0-9_]+)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\d+)")


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as made:
        yield made


class Page:
    """The text, read strictly: each family once, its samples behind its head, no series twice."""

    def __init__(self, text):
        self.help, self.types, self.samples = {}, {}, {}
        assert text.endswith("\n")
        family = None
        for line in text.splitlines():
            if line.startswith("# HELP "):
                _, _, family, said = line.split(" ", 3)
                assert family not in self.help and said
                self.help[family] = said
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name == family and kind in ("counter", "gauge")
                assert (kind == "counter") == name.endswith("_total"), line
                self.types[name] = kind
            else:
                match = SAMPLE.fullmatch(line)
                assert match and match[1] == family and family in self.types, line
                series = (family, frozenset(re.findall(LABEL, match[2] or "")))
                assert series not in self.samples, f"twice: {line}"
                self.samples[series] = int(match[3])

    def get(self, name, **labels):
        """The sum of the family's samples that have these labels."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        return sum(value for (family, has), value in self.samples.items() if family == name and wanted <= has)


def request(ns, address="127.0.0.1", port=9964, method="GET", path="/metrics"):
    """Status, content type and body."""
    with ns.inside():
        connection = http.client.HTTPConnection(address, port, timeout=20)
        connection.connect()
    connection.request(method, path)
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, reply.getheader("Content-Type"), body


def scrape(ns, *where):
    status, kind, body = request(ns, *where)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return Page(body)


def defined(name):
    text = (TOP / f"bpf/include/weft/{name}.def").read_text()
    return re.findall(r"^WEFT_[A-Z_]+\((\w+), \"", text, re.MULTILINE)


def listen(cluster, where):
    """metrics-listen of node n1 from a reload on; None: the default."""
    cluster.weft1.drop_in("metrics", [("weft", {} if where is None else {"metrics-listen": where})])
    cluster.weft1.ctl("reload")


def refused(ns, port=9964):
    with ns.inside(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


# ---- what is told -------------------------------------------------------------------------------


def test_every_event_and_every_reason_to_drop_is_there_and_the_rest_agrees_with_the_status(cluster):
    page, status = scrape(cluster.n1), cluster.weft1.ctl_json("status")
    for event in defined("events"):
        assert page.types[f"weft_event_{event.lower()}_total"] == "counter"
    reasons = defined("drop-reasons")
    assert len(reasons) > 20
    for reason in reasons[1:]:
        assert page.get("weft_drop_reason_info", reason=reason) == 1
    assert page.get("weft_build_info", version=status["version"]) == 1
    assert page.get("weft_generation") == status["generation"]
    assert page.get("weft_services", state="ready") == len(status["services"])
    assert page.get("weft_backends") == sum(len(s["backends"]) for s in status["services"])
    assert page.get("weft_peers") == page.get("weft_endpoints", state="ready") == 1
    assert page.get("weft_flow_table_capacity", family="ipv4") >= 1024
    for module in status["modules"]:
        assert page.get("weft_module_state", module=module["name"], state=module["state"]) == 1
        assert page.get("weft_module_state", module=module["name"]) == 1


def test_traffic_is_counted_and_drops_have_their_reason(cluster):
    before = scrape(cluster.n1)
    for _ in range(5):
        tcp_who(cluster.client, IPV4.n1, IPV4.far)
    with pytest.raises(OSError):
        tcp_who(cluster.client, IPV4.n1, IPV4.none)
    page = scrape(cluster.n1)

    def more(name, **labels):
        return page.get(name, **labels) - before.get(name, **labels)

    assert more("weft_forward_packets_total") >= 20
    assert more("weft_forward_bytes_total") >= 20 * 54
    assert more("weft_port_allocation_tries_total", result="given") >= 5, "a source port for each connection"
    assert more("weft_flows_created_total") == more("weft_event_commit_total") >= 5
    assert more("weft_drop_packets_total", reason="NO_BACKEND", module="nodeport-snat") >= 1
    assert more("weft_drop_bytes_total", reason="NO_BACKEND") >= 54
    assert page.get("weft_flow_table_entries", family="ipv4") >= 10
    assert page.get("weft_flow_table_entries") == page.get("weft_flows")


def all_of(status):
    """What the status says, as the page has it: counters by family and labels, and gauges."""
    counters, gauges = {}, {}
    for kind, label in (("drop", "reason"), ("forward", "delivery")):
        for row in status[f"{kind}s"]:
            labels = {label: row["what"], "hook": row["hook"]}
            if kind == "drop":
                labels["module"] = row.get("module", "engine")
            for unit in ("packets", "bytes"):
                counters[f"weft_{kind}_{unit}_total", tuple(labels.items())] = row[unit]
    for row in status["events"]:
        counters[f"weft_event_{row['what'].lower()}_total", ()] = row["packets"]
    for result, event in (("given", "PORT_GIVEN"), ("taken-by-flow", "PORT_BUSY"), ("taken-by-socket", "PORT_SOCKET")):
        counters["weft_port_allocation_tries_total", (("result", result),)] = \
            sum(row["packets"] for row in status["events"] if row["what"] == event)
    counters["weft_port_allocation_failures_total", ()] = \
        sum(row["packets"] for row in status["drops"] if row["what"] == "PORTS_EXHAUSTED")

    def states(family, rows, among):
        for state in among:
            gauges[family, (("state", state),)] = sum(row["state"] == state for row in rows)

    states("weft_endpoints", status["endpoints"], ("ready", "pending"))
    states("weft_services", status["services"], ("ready", "pending"))
    states("weft_backends", [b for s in status["services"] for b in s["backends"]],
           ("active", "draining", "maintenance"))
    for state, count in status["flows"].items():
        gauges["weft_flows", (("state", state),)] = count
    gauges["weft_table_bytes", ()] = status["table_bytes"]
    gauges["weft_conflicts", ()] = len(status["conflicts"])
    gauges["weft_peers", ()] = len(status["peers"])
    return counters, gauges


def differences(cluster):
    """Gauges that are not the same, and counters that are not between two looks at the status."""
    looks = [cluster.weft1.ctl_json("status")]
    page = scrape(cluster.n1)
    looks.append(cluster.weft1.ctl_json("status"))
    (low, gauges), (high, _) = map(all_of, looks)
    wrong = {key: (low[key], page.get(key[0], **dict(key[1])), high[key]) for key in low
             if not low[key] <= page.get(key[0], **dict(key[1])) <= high[key]}
    wrong.update((key, (value, page.get(key[0], **dict(key[1])))) for key, value in gauges.items()
                 if value != page.get(key[0], **dict(key[1])))
    return wrong


def test_every_number_is_that_of_the_status(cluster):
    """With several things in each state, so that no two of them can be taken for one another."""
    weft, odd = cluster.weft1, ["active", *["draining"] * 3, *["maintenance"] * 5]
    weft.drop_in("odd", [("service odd", {"port": "90/tcp", "node-port": 30070, "backend": [
        f"{IPV4.p1}:{9000 + n} state={state}" for n, state in enumerate(odd)]}),
        ("endpoint later", {"netns": "/run/netns/not-there-yet", "address": "10.244.1.77"}),
        ("endpoint last", {"netns": "/run/netns/nor-this-one", "address": "10.244.1.78"}),
        ("module nodeport-snat", {"snat-ports": "61000-61003"})])
    weft.ctl("reload")
    held = [Echo(cluster.client, IPV4.n1, IPV4.far) for _ in range(4)]
    try:
        with pytest.raises(TimeoutError):
            connect(cluster.client, IPV4.n1, IPV4.far, timeout=0.3)
        syn_flood(cluster.client, mac(cluster.n1), IPV4.n1, IPV4.near, 3)
        wait_for("page and status to agree", lambda: not differences(cluster), 10, step=0.2)
    finally:
        for echo in held:
            echo.close()
        weft.drop_in("odd", None)
        weft.ctl("reload")
    page = scrape(cluster.n1)
    for fact in weft.ctl_json("probe")["facts"]:
        assert page.get("weft_kernel_fact", fact=fact["name"]) == fact["present"], fact
    wait_for("a pass of the collection", lambda: scrape(cluster.n1).get("weft_collection_passes_total") >= 1, 25)


def test_counters_go_on_over_reloads_and_refused_ones_are_counted(cluster):
    before = scrape(cluster.n1)
    cluster.weft1.ctl("reload")
    cluster.weft1.drop_in("typo", [("weft", {"mdoe": "probe"})])
    assert cluster.weft1.ctl("reload", check=False).returncode != 0
    cluster.weft1.drop_in("typo", None)
    page = scrape(cluster.n1)
    for (family, labels), value in before.samples.items():
        if before.types[family] == "counter":
            assert page.samples[(family, labels)] >= value, family
    assert page.get("weft_generation") == before.get("weft_generation") + 1
    for result in ("success", "failed"):
        assert page.get("weft_reloads_total", result=result) == before.get("weft_reloads_total", result=result) + 1


def test_weftctl_prints_the_same_families(cluster):
    said = cluster.weft1.ctl("metrics").stdout
    assert Page(said).types == scrape(cluster.n1).types
    assert Page(cluster.weft1.ctl_json("metrics")["text"]).types == Page(said).types


def test_the_dashboard_uses_only_what_there_is(cluster):
    page = scrape(cluster.n1)
    panels = json.loads((TOP / "docs/grafana.json").read_text())["panels"]
    used = {name for p in panels for t in p["targets"] for name in re.findall(r"\bweft_\w+", t["expr"])}
    assert len(panels) >= 5 and len(used) >= 10
    assert used <= page.types.keys()


# ---- how it is served ---------------------------------------------------------------------------


def test_there_is_one_page_and_it_can_only_be_read(cluster):
    assert request(cluster.n1, path="/")[0] == 404
    assert request(cluster.n1, path="/metrics/more")[0] == 404
    assert request(cluster.n1, method="POST")[0] == 405
    assert request(cluster.n1, method="DELETE")[0] == 405
    assert request(cluster.n1, method="HEAD")[2] == ""


def test_silent_clients_hold_nobody_up_and_are_let_go(cluster):
    with cluster.n1.inside():
        silent = [socket.create_connection(("127.0.0.1", 9964)) for _ in range(100)]
    silent[0].sendall(b"GET /met")
    start = time.monotonic()
    assert cluster.weft1.ctl("status").returncode == 0
    assert time.monotonic() - start < 5
    assert scrape(cluster.n1).get("weft_generation") > 0, "as soon as the first are let go"
    for s in silent:
        s.close()


@contextlib.contextmanager
def stopped(process):
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_clients_that_go_all_at_once_leave_room_for_others(cluster):
    with stopped(cluster.weft1.process), cluster.n1.inside():
        silent = [socket.create_connection(("127.0.0.1", 9964)) for _ in range(64)]
    assert cluster.weft1.ctl("status").returncode == 0, "it has taken them all by now"
    with stopped(cluster.weft1.process):
        for s in silent:
            s.close()
    assert scrape(cluster.n1).get("weft_generation") > 0


def test_another_address_counts_from_a_reload_on_and_an_empty_one_is_none(cluster):
    try:
        listen(cluster, "[::1]:9970")
        assert scrape(cluster.n1, "::1", 9970).get("weft_generation") > 0
        refused(cluster.n1)
        listen(cluster, f"{IPV4.n1}:9970")
        assert scrape(cluster.client, IPV4.n1, 9970).get("weft_generation") > 0
        assert cluster.weft1.ctl_json("status")["metrics"] == {"at": f"{IPV4.n1}:9970"}
        listen(cluster, "")
        refused(cluster.n1, 9970)
        assert cluster.weft1.ctl_json("status")["metrics"] == {}
    finally:
        listen(cluster, None)
    assert scrape(cluster.n1).get("weft_generation") > 0


def test_a_port_that_is_taken_is_reported_and_opened_later(cluster):
    with cluster.n1.inside():
        squatter = socket.create_server(("127.0.0.1", 9971))
    try:
        listen(cluster, "127.0.0.1:9971")
        told = cluster.weft1.ctl_json("status")["metrics"]
        assert "9971" in told["reason"] and told["reason"] in cluster.weft1.log()
        assert told["reason"] in cluster.weft1.ctl("status").stdout
        assert tcp_who(cluster.client, IPV4.n1, IPV4.far)[0] == "p2", "all else works"
        squatter.close()
        wait_for("the port to be opened", lambda: "reason" not in cluster.weft1.ctl_json("status")["metrics"], 25)
        assert scrape(cluster.n1, "127.0.0.1", 9971).get("weft_generation") > 0
    finally:
        squatter.close()
        listen(cluster, None)
