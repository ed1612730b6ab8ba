/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A shared object that is no module. */

__attribute__((visibility("default"))) const int something_else = 1;
