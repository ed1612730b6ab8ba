# SPDX-License-Identifier: LGPL-2.1-or-later
"""weftctl as an operator holds it."""

import json
import os
import subprocess

import pytest

from weft import BUILD

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
