# SPDX-License-Identifier: LGPL-2.1-or-later
"""weftd on a node of the lab: its files, its process, and what weftctl says about it."""

import json
import os
import re
import signal
from pathlib import Path

from lab import PATIENCE, end, run, wait_for

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("WEFT_BUILD", TOP / "build")).resolve()
BUILD_SANITIZED = Path(os.environ.get("WEFT_BUILD_SANITIZED", BUILD)).resolve()
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")


def ini(sections):
    """[("module nodeport-snat", {"key": value or list of values})] as text."""
    lines = []
    for header, keys in sections:
        lines.append(f"[{header}]")
        for key, value in keys.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                lines.append(f"{key} = {one}")
        lines.append("")
    return "\n".join(lines)


class Weft:
    """One node's daemon. Its root, its bpffs and its log lie in the lab's directory."""

    def __init__(self, lab, ns, name, build=BUILD, module_dir=None):
        self.ns, self.name, self.build = ns, name, Path(build)
        self.root = lab.directory / name
        self.bpffs = self.root / "bpf"
        self.module_dir = module_dir or self.build / "modules"
        self.log_path = self.root / "weftd.log"
        self.process = None
        (self.root / "etc/weft/conf.d").mkdir(parents=True)
        (self.root / "run").mkdir()
        self.bpffs.mkdir()
        run("mount", "-t", "bpf", "bpf", self.bpffs)
        lab.on_close(self.close)

    @property
    def file(self):
        return self.root / "etc/weft/weft.conf"

    @property
    def control(self):
        return self.root / "run/weft/control"

    def configure(self, sections):
        self.file.write_text(ini(sections))

    def drop_in(self, name, sections):
        """Writes conf.d/NAME.conf, or takes it away (None)."""
        path = self.root / f"etc/weft/conf.d/{name}.conf"
        if sections is None:
            path.unlink()
        else:
            path.write_text(ini(sections))

    def command(self):
        return [self.build / "core/weftd", "--root", self.root, "--bpffs", self.bpffs,
                "--module-dir", self.module_dir]

    def start(self, timeout=60):
        """Starts weftd and waits until it answers."""
        with open(self.log_path, "ab") as log:
            self.process = self.ns.start(*self.command(), stdout=log, stderr=log)
        wait_for(f"weftd on {self.name} to answer", self.answers, timeout, step=0.05)
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"weftd on {self.name} ended with {self.process.returncode}:\n{self.log()}")
        return self.ctl("status", check=False).returncode == 0

    def ctl(self, *argv, **keywords):
        return self.ns.run(self.build / "core/ctl/weftctl", "--root", self.root, "--bpffs", self.bpffs,
                           *argv, **keywords)

    def ctl_json(self, *argv):
        return json.loads(self.ctl("--json", *argv).stdout)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill(self):
        """SIGKILL: nothing is taken away, the datapath stays."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Stops the daemon as systemd would; the datapath stays. Its end and its log must be clean."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60 * PATIENCE) == 0, f"weftd on {self.name} failed at its end:\n{self.log()}"
        self.check_log()

    def check_log(self):
        assert not SANITIZER.search(self.log()), self.log()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60 * PATIENCE)
        if self.process:
            end([self.process])
            self.ctl("cleanup", check=False)

    def account(self):
        """What there is to say of this node when a test has failed."""
        said = [f"---- weftd on {self.name}", self.log()]
        for verb in ("status", "flows"):
            try:
                said.append(self.ctl(verb, check=False, timeout=10).stdout)
            except Exception as error:  # the failed test is the news, not this
                said.append(f"weftctl {verb}: {error}")
        return "\n".join(said)

    # ---- what it says ---------------------------------------------------------------------------

    def generation(self):
        return self.ctl_json("status")["generation"]

    def events(self, name):
        """How often the event NAME was counted so far."""
        return sum(row["packets"] for row in self.ctl_json("status")["events"] if row["what"] == name)

    def drops(self, reason):
        """Packets dropped so far for REASON, over all hooks and modules."""
        rows = self.ctl_json("status")["drops"]
        return sum(row["packets"] for row in rows if row["what"] == reason)
