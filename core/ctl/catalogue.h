/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdio.h>

/* The daemon's messages as a catalogue of journalctl -x (systemd's message catalog format). */
void catalogue_print(FILE *f);
