/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is wrong with the [module …] sections, as far as that can be told without a kernel: files,
 * options, which modules do not go together, what modules say of their settings. */

#include "config/config.h"
#include "module/module.h"

/* Adds every error to diagnostics. Opens the modules' files anew and calls configure, load and
 * unload of instances of its own; nothing is attached. dirs: of module files, ended by NULL. */
void modules_check(const struct config *c, const char *const *dirs,
                   struct diagnostics *diagnostics);

/* Adds an error for each node port that lies outside the range of a module that serves them, and
 * for each way of forwarding that none of the modules knows. */
void check_services(const struct config *c, struct instance *const *instances, size_t n,
                    struct diagnostics *diagnostics);
/* The same for one service. */
void check_service(const struct config_service *s, struct instance *const *instances, size_t n,
                   struct diagnostics *diagnostics);

/* The section of that name, or NULL. */
const struct config_module *config_module_find(const struct config *c, const char *name);
