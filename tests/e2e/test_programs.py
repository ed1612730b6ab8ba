# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs as people run them, in front of services and behind them: curl, wrk and nginx, iperf3, dig and
dnsmasq over UDP and TCP, and a WebSocket that is held through every change."""

import json
import subprocess
import textwrap

import pytest

from cluster import FAMILIES, Cluster, standard_modules
from lab import PATIENCE, wait_for
from traffic import connect

WEB, IPERF, DNS, SOCKET = 8100, 5201, 5301, 8101  # ports of the services
NGINX_PORT, DNSMASQ_PORT, SOCKET_PORT = 8088, 5300, 8765  # and of the programs
CLUSTER_IP = {"ipv4": "10.96.0.20", "ipv6": "fd00:96::20"}
PYTHON = "/usr/bin/python3"  # that of the distribution, which has websockets

ECHO_SERVER = textwrap.dedent("""
    import asyncio, sys, websockets
    async def echo(socket, *_):
        async for message in socket:
            await socket.send(message)
    async def main():
        async with websockets.serve(echo, ["0.0.0.0", "::"], int(sys.argv[1])):
            await asyncio.Future()
    asyncio.run(main())
""")
# Says how many messages came back, once its input ends, or the connection by itself, and then with which code:
# 1006 where nobody said goodbye.
ECHO_CLIENT = textwrap.dedent("""
    import asyncio, sys, websockets
    async def main():
        end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        async with websockets.connect(sys.argv[1], ping_interval=None) as socket:
            print("open", flush=True)
            n = 0
            try:
                while not end.done():
                    n += 1
                    await socket.send(f"message {n}")
                    assert await asyncio.wait_for(socket.recv(), 20) == f"message {n}"
                    await asyncio.sleep(0.02)
                print(n, flush=True)
            except websockets.ConnectionClosed as e:
                print(n, e.code, flush=True)
    asyncio.run(main())
""")


def services(web=("p1", "p2"), algorithm="random"):
    result = []
    for f in FAMILIES:
        for name, port, proto, backends in (
                ("web", WEB, "tcp", [(who, NGINX_PORT) for who in web]),
                ("iperf", IPERF, "tcp", [("p2", IPERF)]), ("iperf", IPERF, "udp", [("p2", IPERF)]),
                ("dns", DNS, "tcp", [("p1", DNSMASQ_PORT), ("p2", DNSMASQ_PORT)]),
                ("dns", DNS, "udp", [("p1", DNSMASQ_PORT), ("p2", DNSMASQ_PORT)])):
            result.append((f"service program-{name}-{proto}-{f.name}", {
                "port": f"{port}/{proto}", "external-ip": f.external, "cluster-ip": CLUSTER_IP[f.name],
                "algorithm": algorithm,
                "backend": [f.with_port(getattr(f, who), number) for who, number in backends]}))
    return result


def start_programs(made):
    """In each pod, ended with the lab."""
    for name in ("p1", "p2"):
        ns, directory = made.lab[name], made.lab.directory / f"programs-{name}"
        directory.mkdir()
        nginx = directory / "nginx.conf"
        nginx.write_text(f"""
            daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log;
            events {{ worker_connections 512; }}
            http {{ access_log off; keepalive_requests 100000;
                server {{ listen {NGINX_PORT}; listen [::]:{NGINX_PORT};
                    location / {{ default_type text/plain; return 200 "{name} $remote_addr\\n"; }} }} }}
        """)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        ns.start("nginx", "-c", nginx, **quiet)
        ns.start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                 f"--port={DNSMASQ_PORT}", "--user=root", "--pid-file=", "--address=/weft.test/192.0.2.77",
                 f"--txt-record=who.weft.test,{name}", **quiet)
        ns.start("iperf3", "-s", "-p", IPERF, **quiet)
        ns.start(PYTHON, "-c", ECHO_SERVER, SOCKET_PORT, **quiet)


def is_up(ns, port):
    try:
        connect(ns, "127.0.0.1", port, timeout=1).close()
        return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    made.modules = standard_modules() | {"clusterip": {}, "hybrid": {}}
    del made.modules["nodeport-snat"]
    try:
        made.weft(made.modules, more=services())
        start_programs(made)
        for name in ("p1", "p2"):
            for port in (NGINX_PORT, DNSMASQ_PORT, IPERF, SOCKET_PORT):
                wait_for(f"a program on port {port} of {name}", lambda: is_up(made.lab[name], port), 20)
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


@pytest.fixture(params=["outside", "pod"])
def asked(request, cluster, family):
    """(namespace of the client, the service's address for it)."""
    return (cluster.client, family.external) if request.param == "outside" else \
        (cluster.p1, CLUSTER_IP[family.name])


def url(family, address, port, scheme="http"):
    return f"{scheme}://{family.with_port(address, port)}/"


def test_curl_gets_pages_from_both_pods(asked, family):
    ns, address = asked
    said = {ns.run("curl", "-sS", "-m", 10 * PATIENCE, url(family, address, WEB)).stdout for _ in range(30)}
    assert {line.split()[0] for line in said} == {"p1", "p2"}


def test_curl_from_outside_is_seen_with_its_own_address(cluster, family):
    said = {cluster.client.run("curl", "-sS", url(family, family.external, WEB)).stdout for _ in range(10)}
    assert {line.split()[1] for line in said} == {family.client}


def test_wrk_has_no_errors(asked, family):
    ns, address = asked
    said = ns.run("wrk", "-t1", "-c16", "-d1s", url(family, address, WEB), timeout=30).stdout
    assert "Socket errors" not in said and "Non-2xx" not in said, said
    assert int(said.split(" requests in ")[0].split()[-1]) > 0


def test_wrk_with_a_connection_for_each_request_has_no_errors(asked, family):
    ns, address = asked
    said = ns.run("wrk", "-t1", "-c8", "-d1s", "-H", "Connection: close", url(family, address, WEB),
                  timeout=30).stdout
    assert "Socket errors" not in said and "Non-2xx" not in said, said


@pytest.mark.parametrize("way", [["-n", "20M"], ["-n", "20M", "-R"], ["-n", "1M", "-u", "-b", "20M", "-l", "1200"]],
                         ids=["tcp", "reverse", "udp"])
def test_iperf3_runs(asked, way):
    ns, address = asked

    def once():
        said = ns.run("iperf3", "-c", address, "-p", IPERF, "-J", *way, timeout=30, check=False)
        said = json.loads(said.stdout)
        assert "busy" in said.get("error", "busy"), said["error"]  # with the test before this one
        return None if "error" in said else said["end"]

    end = wait_for("iperf3", once)
    assert end["sum_received" if "sum_received" in end else "sum"]["bytes"] > 100000


@pytest.mark.parametrize("way", ["+notcp", "+tcp"])
def test_dig_is_answered_by_both_servers(asked, way):
    ns, address = asked

    def ask(name, kind):
        return ns.run("dig", f"@{address}", "-p", DNS, "+short", "+tries=3", "+time=2", way, name,
                      kind).stdout.strip()

    assert ask("weft.test", "A") == "192.0.2.77"
    assert {ask("who.weft.test", "TXT") for _ in range(20)} == {'"p1"', '"p2"'}


class Held:
    """A WebSocket in a process of its own."""

    def __init__(self, ns, where):
        self.process = ns.start(PYTHON, "-c", ECHO_CLIENT, where, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        assert first == "open\n", first + self.process.stderr.read()

    def ends(self):
        """What it says at its end, by itself or because it is asked to."""
        said, error = self.process.communicate("", timeout=30 * PATIENCE)
        assert self.process.returncode == 0, error
        return said.split()


def set_socket_service(cluster, *changes):
    """On both nodes; `backend` is a backend's pod and options."""
    for f in FAMILIES:
        words = [f"backend={f.with_port(getattr(f, pod), SOCKET_PORT)} {options}".strip()
                 for pod, _, options in (c.removeprefix("backend=").partition(" ") for c in changes
                                         if c.startswith("backend="))]
        words += [c for c in changes if not c.startswith("backend=")]
        for weft in cluster.wefts.values():
            weft.ctl("service", "set", f"socket-{f.name}", *words)


# Of the WebSocket's own service, one after the other: none of them is a connection's business.
CHANGES = [
    ["backend=p2 state=draining"], ["backend=p2 state=maintenance"], ["backend=p2 weight=0"],
    ["backend=p2 weight=7", "backend=p1"], ["backend=p2 state=draining", "backend=p1 state=maintenance"],
    ["backend=p1", "backend=p2"],
    ["algorithm=maglev"], ["maglev-table-size=251"], ["affinity=1h"], ["algorithm=least-connections"],
    ["affinity=0"], ["external-traffic=local", "internal-traffic=local"],
    ["source-range=192.0.2.222/32, 2001:db8::222/128"], ["no-backend=drop"],
    ["forwarding=snat"], ["forwarding=dsr"], ["forwarding=auto"],
]


def hold(cluster):
    return [Held(ns, url(f, address, SOCKET, "ws")) for f in FAMILIES
            for ns, address in ((cluster.client, f.external), (cluster.p1, CLUSTER_IP[f.name]))]


def test_a_websocket_is_held_through_every_change_but_the_removal_of_its_backend(cluster):
    for f in FAMILIES:
        for weft in cluster.wefts.values():
            weft.ctl("service", "set", f"socket-{f.name}", f"port={SOCKET}/tcp", f"external-ip={f.external}",
                     f"cluster-ip={CLUSTER_IP[f.name]}")
    set_socket_service(cluster, "backend=p2")
    held = hold(cluster)

    def configured(modules=cluster.modules, **more):
        for number, weft in cluster.wefts.items():
            weft.configure(cluster.sections(number, modules, more=services(**more)))
            weft.ctl("reload")

    for change in CHANGES:
        set_socket_service(cluster, *change)
    configured()                                        # nothing is new
    configured(web=("p2",), algorithm="maglev")         # a backend goes, of another service
    configured(modules=cluster.modules | {"hybrid": {"tcp": "snat"}})
    without = {name: keys for name, keys in cluster.modules.items() if name != "host-routing"}
    configured(modules=without)                         # a module goes,
    configured()                                        # and comes back
    for weft in cluster.wefts.values():
        weft.kill()
        weft.start()
    for one in held:
        count, *reason = one.ends()
        assert int(count) > 10 and not reason

    set_socket_service(cluster, "backend=p2", "source-range=", "external-traffic=cluster",
                       "internal-traffic=cluster")
    held = hold(cluster)
    set_socket_service(cluster, "backend=p1")
    assert [one.process.stdout.readline().split()[1:] for one in held] == [["1006"]] * len(held)
    for one in held:
        one.ends()
