# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine of these tests: a clean Debian 12 under a systemd manager of its own (with-systemd --root)."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "systemd"), str(TESTS / "e2e")]
