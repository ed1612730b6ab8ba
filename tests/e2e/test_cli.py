# SPDX-License-Identifier: LGPL-2.1-or-later
"""weftctl as an operator holds it."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
import time

import pytest

from cluster import IPV4, IPV6
from conftest import make_cluster
from lab import PATIENCE, Lab, wait_for
from traffic import Echo, Server, tcp_who, udp_who
from weft import BUILD, BUILD_SANITIZED, TOP, Weft

WEFTCTL = BUILD / "core/ctl/weftctl"


def weftctl(*argv, **keywords):
    return subprocess.run([WEFTCTL, *map(str, argv)], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, **keywords)


# ---- the configuration, without a daemon --------------------------------------------------------


class Site:
    """The files below --root, and what weftctl says of them."""

    def __init__(self, root):
        self.root = root

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def ctl(self, *argv, **keywords):
        return weftctl("--root", self.root, *argv, "--module-dir", BUILD / "modules", **keywords)

    def merged(self):
        """{section: [(key, value, place)]}; the place of a default is None."""
        reply = json.loads(self.ctl("cat-config", "--json").stdout)
        result = {}
        for section in reply["sections"]:
            name = f"{section['section']} {section['name']}".strip()
            result[name] = [(v["key"], v["value"],
                             None if v["default"] else f"{os.path.basename(v['file'])}:{v['line']}")
                            for v in section["values"]]
        return result


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


MAIN = """\
[weft]
mode = strict
[node]
name = n1
uplink = eth0, eth1
[service web]
port = 80/tcp
node-port = 30080
backend = 10.0.0.1:80 weight=2, 10.0.0.2:80
[module native-routing]
cidr = 10.244.0.0/16
[module nodeport-snat]
[module bpf-masq]
non-masquerade-cidr = 10.0.0.0/8
ipv6 = yes
"""


def test_cat_config_has_each_value_with_the_place_that_counts(site):
    site.put("etc/weft/weft.conf", MAIN)
    site.put("usr/lib/weft/conf.d/10-vendor.conf", "[node]\nuplink =\nuplink = eth2\n[weft]\nmode =\n")
    site.put("run/weft/conf.d/20-now.conf", "[service web]\nnode-port = 30081\nbackend = 10.0.0.3:80\n")
    site.put("etc/weft/conf.d/30-late.conf", "[module bpf-masq]\nnon-masquerade-cidr = rfc1918\nipv6 =\n")
    merged = site.merged()

    assert merged["weft"][0] == ("mode", "probe", "10-vendor.conf:5"), "reset to its default, there"
    assert ("xdp", "auto", None) in merged["weft"]
    assert merged["node"] == [("name", "n1", "weft.conf:4"), ("uplink", "", "10-vendor.conf:2"),
                              ("uplink", "eth2", "10-vendor.conf:3")]
    assert merged["service web"][:5] == [
        ("port", "80/tcp", "weft.conf:7"),
        ("node-port", "30081", "20-now.conf:2"),
        ("backend", "10.0.0.1:80 weight=2", "weft.conf:9"),
        ("backend", "10.0.0.2:80", "weft.conf:9"),
        ("backend", "10.0.0.3:80", "20-now.conf:3"),
    ]
    masq = merged["module bpf-masq"]
    assert [row for row in masq if row[0] == "non-masquerade-cidr"] == [
        ("non-masquerade-cidr", "10.0.0.0/8", "weft.conf:14"),
        ("non-masquerade-cidr", "rfc1918", "30-late.conf:2")]
    assert ("ipv6", "no", "30-late.conf:3") in masq
    assert ("masquerade-link-local", "no", None) in masq


def test_what_cat_config_prints_is_a_configuration_that_says_the_same(site, tmp_path):
    site.put("etc/weft/weft.conf", MAIN)
    long = site.put("etc/weft/conf.d/" + "x" * 180 + ".conf", "[node]\naddress = 192.0.2.11\n")
    text = site.ctl("cat-config").stdout
    assert "port = 80/tcp  ; " + str(site.root / "etc/weft/weft.conf:7") in text.splitlines()
    assert str(long)[:100] in text

    again = Site(tmp_path / "again")
    again.put("etc/weft/weft.conf", text)
    assert again.ctl("check").returncode == 0, again.ctl("check").stderr

    def values(merged):
        return {name: [(key, value) for key, value, _ in rows] for name, rows in merged.items()}

    assert values(again.merged()) == values(site.merged())


def test_cat_config_without_any_file_is_the_defaults(site):
    text = site.ctl("cat-config").stdout
    assert "mode = probe  ; default" in text.splitlines()
    assert "no file" in text and "weftd chooses modules by itself" in text


def test_cat_config_prints_what_is_right_beside_the_errors(site):
    site.put("etc/weft/weft.conf", "[node]\nname = n1\nadress = 192.0.2.1\n")
    result = site.ctl("cat-config")
    assert result.returncode == 1
    assert "name = n1" in result.stdout
    assert 'weft.conf:3: [node] adress = 192.0.2.1: unknown key, did you mean "address"?' in result.stderr


def test_check_tells_all_errors_of_all_files_at_once_and_needs_neither_daemon_nor_root(site):
    site.put("etc/weft/weft.conf", "[weft]\nmdoe = probe\n[module bpf-masq]\nipv6 = perhaps\n"
                                   "non-masq-cidr = 10.0.0.0/8\n[module bpf-mask]\n")
    site.put("etc/weft/conf.d/10.conf", "[service web]\nport = 80/tcp\nnode-port = 8080\n"
                                        "[module nodeport-snat]\n[module native-routing]\n")
    site.put("run/weft/conf.d/20.conf", "[sevrice web]\n")
    os.chmod(site.root, 0o755)
    for path in (site.root, *site.root.parents):
        if str(path).startswith("/tmp/"):
            os.chmod(path, 0o755)
    result = site.ctl("check", user=65534, group=65534, extra_groups=[])
    assert result.returncode == 1
    for said in ('weft.conf:2: [weft] mdoe = probe: unknown key, did you mean "mode"?',
                 "weft.conf:4: [module bpf-masq] ipv6 = perhaps: must be yes or no",
                 'weft.conf:5: [module bpf-masq] non-masq-cidr = 10.0.0.0/8: unknown key',
                 "weft.conf:6: [module bpf-mask]: there is no bpf-mask.so in",
                 "did you mean [module bpf-masq]?",
                 "10.conf:3: [service web] node-port = 8080: module nodeport-snat serves node ports "
                 "30000-32767",
                 '20.conf:1: [sevrice web]: unknown section, did you mean "service"?'):
        assert said in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 6
    reply = json.loads(site.ctl("check", "--json").stdout)
    assert [row["line"] for row in reply["diagnostics"]] == [2, 1, 6, 4, 5, 3]


def test_check_without_module_files_says_what_it_could_not_look_at(site, tmp_path):
    site.put("etc/weft/weft.conf", "[module vxlan]\nport = 8472\n")
    result = weftctl("--root", site.root, "check", "--module-dir", tmp_path / "nowhere")
    if result.returncode:
        pytest.skip("weft is installed on this machine")
    assert "are not checked" in result.stderr


# ---- with a daemon ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    with make_cluster(BUILD_SANITIZED) as made:
        yield made


@pytest.fixture(scope="module")
def kept(cluster):
    """Three kept connections: by the web service and by the one that is far, and one by IPv6."""
    made = [Echo(cluster.client, IPV4.n1, IPV4.web), Echo(cluster.client, IPV4.n1, IPV4.far),
            Echo(cluster.client, IPV6.n1, IPV6.far)]
    udp_who(cluster.client, IPV4.n1, IPV4.dns)
    tcp_who(cluster.client, IPV4.n1, IPV4.far)
    for echo in made:
        assert echo.alive()
    yield made
    for echo in made:
        echo.close()


def flows(cluster, *options):
    return json.loads(cluster.weft1.ctl("flows", "--json", *options).stdout)["flows"]


def ends(flow):
    return {flow[prefix + end] for prefix in ("", "new_") for end in ("source", "destination")}


def test_filters_let_through_what_they_name_and_must_all_hold(cluster, kept):
    web = flows(cluster, "--service", "web-ipv4", "--state", "established")
    assert web and all(f["state"] == "established" for f in web)
    assert {f["destination_port"] for f in web if not f["reply"]} == {IPV4.web}
    assert {f["new_source_port"] for f in web if f["reply"]} == {IPV4.web}, "replies, too"

    assert {f["state"] for f in flows(cluster, "--service", "far-ipv4")} == {"established", "closing"}
    assert {f["protocol"] for f in flows(cluster, "--protocol", "udp")} == {"udp"}
    assert {f["protocol"] for f in flows(cluster, "--protocol", "17")} == {"udp"}
    assert {f["protocol"] for f in flows(cluster, "--protocol", "tcp")} == {"tcp"}
    assert {f["source"] for f in flows(cluster, "--source", "2001:db8::/32", "--destination", IPV6.n1)} \
        >= {IPV6.client}
    assert all(IPV4.p2 in ends(f) for f in flows(cluster, "--address", "10.244.2.0/24"))
    assert flows(cluster, "--address", IPV4.p2)
    assert flows(cluster, "--port", 8080) and not flows(cluster, "--port", 8079)
    assert {f["module"] for f in flows(cluster, "--module", "nodeport-snat")} == {"nodeport-snat"}
    assert not flows(cluster, "--module", "vxlan")
    assert {f["side"] for f in flows(cluster, "--side", "uplink")} == {"uplink"}
    assert {f["delivery"] for f in flows(cluster, "--delivery", "wire")} == {"wire"}
    assert not flows(cluster, "--service", "web-ipv4", "--protocol", "udp")

    text = cluster.weft1.ctl("flows", "--port", 8079).stdout
    assert text == "no flows\n"


@pytest.mark.parametrize("what", ["bytes", "packets"])
def test_top_is_the_first_of_all_in_order(cluster, kept, what):
    for _ in range(20):
        kept[0].alive()
    kept_ones = "--state", "established", "--protocol", "tcp"  # others come to their end meanwhile

    def agree():  # the last answers' acknowledgements may still come between two looks
        everything = sorted((f[what] for f in flows(cluster, *kept_ones)), reverse=True)
        assert len(everything) > 3
        return all([f[what] for f in flows(cluster, *kept_ones, "--top", n, "--by", what)] == everything[:n]
                   for n in (1, 3, 10000))

    wait_for("the largest flows to come in their order", agree)


def test_a_limit_says_that_there_is_more(cluster, kept):
    reply = json.loads(cluster.weft1.ctl("flows", "--json", "--limit", 2).stdout)
    assert len(reply["flows"]) == 2 and reply["truncated"]
    assert cluster.weft1.ctl("flows", "--limit", 2).stdout.splitlines()[-1] == "… and more"


def test_follow_goes_on_with_what_appears(cluster, kept):
    process = cluster.n1.start(cluster.weft1.build / "core/ctl/weftctl", "--root", cluster.weft1.root,
                               "flows", "--follow", "--json", "--service", "near-ipv4",
                               stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1.2)  # not for a state: what comes now is to be news
        seen = []
        for _ in range(2):
            _, _, port = tcp_who(cluster.client, IPV4.n1, IPV4.near)
            while not any(f["source_port"] == port for f in seen):
                seen.append(json.loads(process.stdout.readline()))
        keys = [(f["side"], f["source"], f["source_port"], f["destination_port"]) for f in seen]
        assert len(keys) == len(set(keys)), "nothing is told twice"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("options, says", [
    (["--service", "wbe"], "weftd does not know this service"),
    (["--source", "10.0.0"], "--source 10.0.0: must be an address or a prefix"),
    (["--port", "http"], "--port http: must be a number from 1 to 65535"),
    (["--state", "establishd"], 'did you mean "established"?'),
    (["--protocol", "tpc"], "weftd does not know this protocol"),
    (["--top", "0"], "--top 0: must be a number from 1 to 10000"),
    (["--by", "bytes"], "--by is for --top"),
    (["--top", "3", "--follow"], "--top goes neither with --limit nor --follow"),
])
def test_what_cannot_be_asked_is_told(cluster, options, says):
    result = cluster.weft1.ctl("flows", *options, check=False)
    assert result.returncode in (1, 2) and says in result.stderr, result.stderr


def on_terminal(cluster, *argv, columns=80, **environment):
    """What weftctl prints on a terminal of so many columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    told = ("COLUMNS", "NO_COLOR", "PAGER", "SYSTEMD_PAGER")
    env = {k: v for k, v in os.environ.items() if k not in told} | {"TERM": "xterm"} | environment
    process = subprocess.Popen(
        cluster.n1.command(cluster.weft1.build / "core/ctl/weftctl", "--root", cluster.weft1.root, *argv),
        stdout=its, stderr=its, stdin=its, env=env)
    os.close(its)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:
        pass  # how a terminal says that nobody has it open
    os.close(ours)
    assert process.wait(20 * PATIENCE) == 0, text
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("verb", ["status", "flows", "chain", "modules"])
def test_tables_fit_a_terminal_of_80_columns_and_are_whole_in_a_pipe(cluster, kept, verb):
    text = on_terminal(cluster, verb, "--no-pager", NO_COLOR="1")
    assert max(map(len, text.splitlines())) <= 80, text
    assert "\x1b" not in text
    whole = cluster.weft1.ctl(verb).stdout
    assert "…" not in whole.replace("… and more", "")
    if verb == "flows":
        assert "DELIVERY" in whole and "DELIVERY" not in text


def test_colours_are_for_terminals_that_want_them(cluster):
    assert "\x1b[32mon\x1b[0m" in on_terminal(cluster, "modules", "--no-pager")
    assert "\x1b" not in on_terminal(cluster, "modules", "--no-pager", TERM="dumb")
    assert "\x1b" not in on_terminal(cluster, "modules", "--no-pager", NO_COLOR="1")
    assert "\x1b" not in cluster.weft1.ctl("modules").stdout


def test_what_may_be_long_goes_through_the_pager_and_it_can_be_left(cluster):
    assert "paged: " in on_terminal(cluster, "modules", SYSTEMD_PAGER="sed 's/^/paged: /'")
    assert "paged: " in on_terminal(cluster, "modules", PAGER="sed 's/^/paged: /'")
    assert "paged: " not in on_terminal(cluster, "modules", "--no-pager", PAGER="sed 's/^/paged: /'")
    assert "paged: " not in on_terminal(cluster, "modules", SYSTEMD_PAGER="", PAGER="sed 's/^/paged: /'")
    assert len(on_terminal(cluster, "status", PAGER="head -n 1").splitlines()) == 1


def test_status_has_the_drops_of_the_last_minute(cluster):
    def dropped():
        rows = cluster.weft1.ctl_json("status")["drops"]
        return sum(row["last_minute"] for row in rows if row["what"] == "SERVICE_UNKNOWN_PORT")

    before = dropped()
    with pytest.raises(OSError):
        tcp_who(cluster.client, IPV4.external, 81, timeout=0.5)
    assert before < dropped()
    assert "LAST MINUTE" in cluster.weft1.ctl("status").stdout


# ---- a new operator -----------------------------------------------------------------------------


def test_from_an_empty_host_to_a_service_as_the_manual_says():
    """weftd(8) has the configuration and the commands; here only the namespaces have other names."""
    page = (TOP / "docs/man/weftd.8.in").read_text()
    file = page.split("# /etc/weft/weft.conf\n")[1].split(".Ed")[0]
    for command in ("weftctl check", "http.server 8080", "weftctl status"):
        assert command in page
    with Lab() as lab:
        host, client, web = (lab.namespace(name) for name in ("host", "client", "web"))
        lab.switch("switch", host, client)
        host.ip("addr add 192.0.2.11/24 dev eth0", "route add default via 192.0.2.100")
        client.ip("addr add 192.0.2.100/24 dev eth0")
        node = Weft(lab, host, "node")
        assert weftctl("--root", node.root, "status").returncode == 3

        node.file.write_text(file.replace("/run/netns/web", str(web.path)))
        result = node.ctl("check", "--module-dir", BUILD / "modules")
        assert "the configuration is valid" in result.stdout and not result.stderr
        node.start()
        server = Server(web, "web")
        lab.on_close(server.close)
        assert tcp_who(client, "192.0.2.11", 30080)[:2] == ("web", "192.0.2.100")
        assert "web   ready" in node.ctl("status").stdout
        assert "=> 192.0.2.100:" in node.ctl("flows").stdout
        node.stop()
        node.ctl("cleanup")


# ---- errors -------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_the_help(cluster, tmp_path):
    assert "3  no daemon answers" in weftctl("--help").stdout
    result = weftctl("--root", tmp_path, "status")
    assert result.returncode == 3 and "systemctl start weftd" in result.stderr
    result = weftctl("--socket", tmp_path / "none", "flows")
    assert result.returncode == 3
    assert weftctl("status", "--no-such").returncode == 2
    result = weftctl("stats")
    assert result.returncode == 2 and 'did you mean "status"?' in result.stderr
    cluster.weft1.drop_in("bad", [("wefd", {})])
    result = cluster.weft1.ctl("reload", check=False)
    cluster.weft1.drop_in("bad", None)
    assert result.returncode == 1 and 'did you mean "weft"?' in result.stderr


def test_who_may_not_is_told_who_may(cluster):
    root = cluster.weft1.root
    for path in (root, root / "run", root / "run/weft"):
        path.chmod(0o755)
    root.parent.chmod(0o755)
    result = weftctl("--root", root, "status", user=65534, group=65534, extra_groups=[])
    assert result.returncode == 4, result.stderr
    assert "group weft" in result.stderr
