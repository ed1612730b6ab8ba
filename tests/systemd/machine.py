# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine and its manager: units, their properties, the journal; and weftd.service as a node's daemon."""

import json
import shutil
import sysconfig
from pathlib import Path

from lab import run, wait_for
from weft import Weft, ini

WEFTD = "weftd.service"
UNITS = Path("/usr/local/lib/systemd/system")
CONTROL = Path("/run/weft/control")
MODULES = Path(f"/usr/local/lib/{sysconfig.get_config_var('MULTIARCH')}/weft/modules")
PINS = Path("/sys/fs/bpf/weft")


def manager_is_ours():
    """with-systemd says so to PID 1, and to nobody else's."""
    return b"container=with-systemd" in Path("/proc/1/environ").read_bytes()


def systemctl(*argv, **keywords):
    return run("systemctl", *argv, **keywords)


def show(unit, *names):
    """Properties of a unit, as they are printed; one alone, or a tuple."""
    values = tuple(systemctl("show", "-P", name, unit).stdout.strip() for name in names)
    return values[0] if len(values) == 1 else values


def is_active(unit):
    return show(unit, "ActiveState") == "active"


def drop_in(unit, sections):
    """Administrator's settings of a unit, until reset()."""
    path = Path(f"/run/systemd/system/{unit}.d/50-test.conf")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ini(sections))
    systemctl("daemon-reload")


def write_unit(name, sections):
    Path(f"/run/systemd/system/{name}").write_text(ini(sections))
    systemctl("daemon-reload")


def cursor():
    """A place in the journal: after all that is in it now."""
    run("journalctl", "--sync")
    last = run("journalctl", "-n1", "-o", "json").stdout
    return json.loads(last)["__CURSOR"]


def journal(unit, since=None, **fields):
    """Entries of a unit, each a dictionary, after a place and with these values."""
    run("journalctl", "--sync")
    after = ["--after-cursor", since] if since else []
    said = run("journalctl", "-u", unit, "-o", "json", "--no-pager", *after).stdout
    entries = [json.loads(line) for line in said.splitlines()]
    return [e for e in entries if all(e.get(name) == str(value) for name, value in fields.items())]


def messages(unit, since=None, **fields):
    return [entry["MESSAGE"] for entry in journal(unit, since, **fields) if isinstance(entry["MESSAGE"], str)]


class Service(Weft):
    """weftd.service on node n1: the files and the socket are the system's own."""

    def __init__(self, cluster):
        self.ns, self.name = cluster.n1, "n1"
        self.root, self.bpffs = Path("/"), PINS
        (self.root / "etc/weft/conf.d").mkdir(parents=True, exist_ok=True)

    def ctl(self, *argv, **keywords):
        return run("weftctl", *argv, **keywords)

    def log(self):
        return run("journalctl", "-u", WEFTD, "-u", "weftd.socket", "--no-pager", check=False).stdout

    @property
    def pid(self):
        return int(show(WEFTD, "MainPID"))

    def reload(self):
        return systemctl("reload", WEFTD)

    def wait_for_another(self, pid, timeout=20):
        """Until systemd has put another process in the place of PID, and that one runs."""
        wait_for(f"another weftd than {pid}", lambda: self.pid not in (0, pid) and is_active(WEFTD), timeout)


def reset(service):
    """Nothing of weft runs, and nothing of what tests configured is there."""
    systemctl("stop", WEFTD, "weftd.socket", "weftd-metrics.socket", check=False)
    service.ctl("cleanup")
    systemctl("reset-failed")
    for path in Path("/run/systemd/system").glob("weft*.d"):
        shutil.rmtree(path)
    for path in Path("/etc/weft/conf.d").iterdir():
        path.unlink()
    systemctl("daemon-reload")
