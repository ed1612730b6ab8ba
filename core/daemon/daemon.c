/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <systemd/sd-daemon.h>

#include "config/store.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "generation/object.h"
#include "log.h"
#include "module/crashes.h"
#include "probe/probe.h"
#include "util.h"

void daemon_log_diagnostics(const struct diagnostics *diagnostics)
{
        for (size_t i = 0; i < diagnostics->n; i++) {
                const struct log_fields fields = { .message = MESSAGE_CONFIG_ERROR,
                                                   .origin = &diagnostics->items[i].origin };

                log_line(LOG_ERR, &fields, "%s", diagnostics->items[i].text);
        }
}

/* ---- places ------------------------------------------------------------------------------- */

/* weftd never mounts: in a private mount namespace (ip netns exec, a sandboxed unit) the mount and
 * every pin in it would vanish. */
static int check_bpffs(const char *path, struct weft_error *reterr)
{
        _cleanup_free_ char *at = strdup(path);
        struct statfs fs;
        char *slash;

        if (!at)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        while (statfs(at, &fs) < 0) {
                if (errno != ENOENT)
                        return weft_fail(reterr, -errno, "%s: %m", at);
                slash = strrchr(at, '/');
                slash[slash == at] = '\0';
        }
        if (fs.f_type == BPF_FS_MAGIC)
                return 0;

        if (strcmp(path, "/sys/fs/bpf/weft") == 0)
                return weft_fail(reterr, -EMEDIUMTYPE,
                                 "%s does not lie on a bpffs; mount one first: "
                                 "mount -t bpf bpf /sys/fs/bpf",
                                 path);
        return weft_fail(reterr, -EMEDIUMTYPE,
                         "--bpffs %s does not lie on a bpffs; mount one first: "
                         "mkdir -p %s && mount -t bpf bpf %s",
                         path, path, path);
}

/* weftctl cleanup compares the number, so as not to look for our devices in another namespace. */
static int remember_netns(struct daemon *d, struct weft_error *reterr)
{
        _cleanup_free_ char *path = NULL;
        char text[32];

        if (asprintf(&path, "%s/netns", d->paths.run) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        (void) snprintf(text, sizeof(text), "%llu\n", (unsigned long long) netns_number());
        return file_replace(path, text, reterr);
}

static int count_crash(const struct daemon *d, struct weft_error *reterr)
{
        char last[CRASH_TEXT];
        int r = crashes_open(d->paths.run, last, reterr);

        if (r == 0 && last[0])
                log_message(LOG_WARNING, MODULE_CRASHED,
                            "weftd ended in a callback of a module (its name, the file's sum, the "
                            "callback): %s; after %d times the file is left out",
                            last, CRASHES_MAX);
        return r;
}

static int take_places(struct daemon *d, struct weft_error *reterr)
{
        int r = check_bpffs(d->paths.bpffs, reterr);

        if (r == 0)
                r = make_directories(d->paths.bpffs, 0700, reterr);
        if (r == 0)
                r = make_directories(d->paths.run, 0755, reterr);
        if (r == 0)
                r = lock_take(&d->paths, &d->lock, reterr);
        if (r == 0)
                r = pins_lock_take(&d->paths, &d->pins_lock, reterr);
        if (r == 0)
                r = remember_netns(d, reterr);
        if (r == 0)
                r = count_crash(d, reterr);
        if (r == 0)
                store_tidy(d->paths.root);

        return r;
}

static int load_leases(struct daemon *d, struct weft_error *reterr)
{
        _cleanup_free_ char *path = NULL;

        if (asprintf(&path, "%s/addresses", d->paths.state) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        return leases_load(path, &d->leases, reterr);
}

/* ---- start -------------------------------------------------------------------------------- */

static int open_world(struct daemon *d, const struct config *c, struct weft_error *reterr)
{
        const char *faked = getenv("WEFTD_DEBUG_FACTS");
        int r;

        if (faked)
                log_message(LOG_WARNING, FACTS_FAKED,
                            "what this kernel can do is faked: WEFTD_DEBUG_FACTS=\"%s\"", faked);

        d->hz = probe_hz();
        d->can_cast = probe_has(WEFT_NEED_FEATURE, "cast-to-kern-ctx");
        d->can_decap = probe_has(WEFT_NEED_FEATURE, "decap-protocol");

        r = engine_tables_open(d, c, reterr);
        if (r == 0)
                r = host_open(d->net, d->paths.run, &d->host, reterr);
        if (r == 0)
                r = attach_open(d->paths.bpffs, c->attach, &d->attachments, reterr);
        if (r == 0)
                attach_tcx_order(d->attachments, c->tcx_order);

        return r;
}

/* Everything the running build's configuration says about the world outside the hooks. */
static int apply(struct daemon *d, const struct config *old, struct weft_error *reterr)
{
        int r = daemon_uplinks_refresh(d, reterr),
            k = daemon_overlay_apply(d, r < 0 ? NULL : reterr);

        r = r < 0 ? r : k;

        if (d->n_uplinks == 0)
                log_message(LOG_WARNING, NO_UPLINK,
                            "no uplink: no default route, and no uplink = in [node]");

        /* Whatever failed, nothing may go on pointing into the old configuration. */
        daemon_objects_apply(d, old);
        daemon_ports_apply(d);
        daemon_health_apply(d);
        daemon_metrics_apply(d);
        daemon_events_watch_namespaces(d);
        k = daemon_endpoints_apply(d, r < 0 ? NULL : reterr);

        return r < 0 ? r : k;
}

static int is_module_file(const struct dirent *e)
{
        const char *dot = strrchr(e->d_name, '.');

        return dot && dot != e->d_name && strcmp(dot, ".so") == 0;
}

/* "NAME, OTHER": the files of the first directory that has any. */
static void list_modules(const struct daemon *d, char *buf, size_t size)
{
        size_t at = 0;

        buf[0] = '\0';
        for (size_t i = 0; d->module_dirs[i] && at == 0; i++) {
                struct dirent **entries;
                int n = scandir(d->module_dirs[i], &entries, is_module_file, alphasort);

                for (int k = 0; k < n; k++) {
                        int length = (int) strlen(entries[k]->d_name) - 3;

                        if (at < size)
                                at += snprintf(buf + at, size - at, "%s%.*s", k > 0 ? ", " : "",
                                               length, entries[k]->d_name);
                        free(entries[k]);
                }
                if (n >= 0)
                        free(entries);
        }
}

static void log_no_module(const struct daemon *d)
{
        char modules[512];

        list_modules(d, modules, sizeof(modules));
        log_message(LOG_WARNING, NO_MODULE,
                    "no module is chosen, so traffic goes the kernel's way: add a section [module "
                    "NAME] for "
                    "each one wanted to %s/etc/weft/weft.conf or to a file in conf.d beside it, "
                    "and reload "
                    "(installed: %s)",
                    d->paths.root, modules[0] ? modules : "none");
}

static void log_plan(const struct build *b)
{
        if (b->n_rows == 0)
                log_no_module(b->daemon);

        for (size_t i = 0; i < b->n_rows; i++) {
                const struct plan_row *row = &b->rows[i];
                const struct log_fields fields = {
                        .message = row->on ? MESSAGE_MODULE_CONDITION : MESSAGE_MODULE_LEFT_OUT,
                        .module = row->module->name,
                };

                if (!row->on)
                        log_line(LOG_WARNING, &fields, "left out: %s", row->reason);
                else if (row->reason[0])
                        log_line(LOG_INFO, &fields, "%s", row->reason);
        }
}

/* What a predecessor left and this configuration does not ask for goes now, not before: until here
 * it carried the traffic. */
static void settle(struct daemon *d)
{
        grace_period();
        generation_unpin_others(d->build->generation, d->paths.bpffs);
        tables_settle(d->tables);
        daemon_endpoints_settle(d);
        attach_settle(d->attachments);
        host_settle(d->host);
}

static int start_datapath(struct daemon *d, struct weft_error *reterr)
{
        int r = build_generation(d->build, reterr);

        daemon_notify_alive();
        if (r == 0)
                r = build_prepare(d->build, reterr);
        if (r == 0)
                r = build_attach(d->build, reterr);
        if (r == 0)
                r = build_selftest(d->build, reterr);
        daemon_notify_alive();
        if (r == 0)
                r = apply(d, NULL, reterr);
        daemon_notify_alive();
        if (r == 0)
                r = generation_pin(d->build->generation, d->paths.bpffs, reterr);
        if (r == 0)
                r = daemon_hooks_switch(d, d->build, reterr);
        if (r < 0)
                return r;

        build_takeover(d->build);
        d->hooks_on = true;
        settle(d);
        daemon_events_look(d);

        return 0;
}

/* Sockets that the service manager passes in, by the names that their units give them. */
static void take_sockets(struct daemon *d)
{
        char **names = NULL;
        int n = sd_listen_fds_with_names(/* unset_environment= */ 1, &names);

        for (int i = 0; i < n; i++) {
                int fd = SD_LISTEN_FDS_START + i;

                if (strcmp(names[i], "control") == 0 && d->passed_control < 0)
                        d->passed_control = fd;
                else if (strcmp(names[i], "metrics") == 0 && !d->metrics.passed)
                        daemon_metrics_take(d, fd);
                free(names[i]);
        }
        free(names);
        d->n_passed = n;
}

/* Whoever is left waiting at a passed socket makes the service manager start the next daemon at
 * once, and the next one, until it gives up on service and socket. */
static void dismiss_waiting(const struct daemon *d)
{
        for (int i = 0; i < d->n_passed; i++) {
                struct pollfd waiting = { .fd = SD_LISTEN_FDS_START + i, .events = POLLIN };

                while (poll(&waiting, 1, /* timeout= */ 0) > 0) {
                        _cleanup_close_ int client = accept4(waiting.fd, NULL, NULL, SOCK_CLOEXEC);

                        if (client < 0)
                                break;
                }
        }
}

static int open_control(struct daemon *d, struct weft_error *reterr)
{
        static struct control_interface interface = {
                .name = "io.weft.Node",
                .description = control_node_description,
                .methods = node_methods,
                .version = WEFT_VERSION,
        };
        struct weft_error why = { 0 };
        int r, fd = TAKE_FD(d->passed_control);

        interface.data = d;
        r = fd >= 0 ? 0 : control_listen(d->paths.control, &fd, reterr);
        if (r < 0)
                return r;
        if (control_share(fd, &why) < 0)
                log_warning("control socket: %s", why.text);

        return control_open(d->loop, fd, &interface, &d->control, reterr);
}

static int start(struct daemon *d, struct diagnostics *diagnostics, struct weft_error *reterr)
{
        int r;

        take_sockets(d);
        r = daemon_states_load(d, reterr);
        if (r == 0)
                r = build_config(d, &d->build, diagnostics, reterr);
        if (r == 0)
                r = take_places(d, reterr);
        if (r == 0)
                r = net_open(d->loop, daemon_events_net, d, &d->net, reterr);
        if (r == 0)
                r = load_leases(d, reterr);
        if (r == 0)
                r = build_modules(d->build, NULL, diagnostics, reterr);
        if (r == 0)
                r = open_world(d, d->build->config, reterr);
        if (r == 0)
                r = daemon_events_start(d, reterr);
        if (r == 0)
                r = daemon_addresses_start(d, reterr);
        if (r == 0)
                r = daemon_removals_start(d, reterr);
        if (r == 0)
                r = start_datapath(d, reterr);
        if (r == 0)
                r = open_control(d, reterr);
        if (r == 0)
                r = daemon_notify_ready(d, reterr);

        return r;
}

static void log_not_started(const char *reason)
{
        _cleanup_free_ char *verifier_log = object_take_refusal();

        log_line(LOG_ERR,
                 &(const struct log_fields) { .message = MESSAGE_NOT_STARTED,
                                              .verifier_log = verifier_log },
                 "not started: %s", reason);
}

int daemon_start(struct daemon *d)
{
        struct diagnostics diagnostics = { 0 };
        struct weft_error why = { 0 };
        int r = start(d, &diagnostics, &why);

        if (r < 0 && diagnostics.n > 0)
                r = -EBADMSG;
        daemon_log_diagnostics(&diagnostics);
        diagnostics_done(&diagnostics);
        if (r < 0) {
                log_not_started(why.text);
                if (r == -EBADMSG)
                        dismiss_waiting(d);
                return r;
        }

        log_generation(generation_number(d->build->generation));
        log_plan(d->build);
        daemon_conflicts_look(d);
        log_message(LOG_NOTICE, STARTED,
                    "generation %u runs; modules: %zu, endpoints: %zu, services: %zu, peers: %zu",
                    generation_number(d->build->generation), d->build->n_instances, d->n_endpoints,
                    d->build->config->n_services, d->build->config->n_peers);
        return 0;
}

/* ---- reload ------------------------------------------------------------------------------- */

static void build_freep(struct build **b)
{
        (void) build_free(*b);
}

/* Settings that are wired into maps and links when they are made. */
static void warn_of_restart(const struct config *old, const struct config *new)
{
        if (old->flow_table_size != new->flow_table_size)
                log_notice("[weft] flow-table-size takes effect after weftctl cleanup and a start");
        if (old->tcx_order != new->tcx_order)
                log_notice(
                        "[weft] tcx-order takes effect where weft is not attached yet; elsewhere "
                        "after weftctl cleanup and a start");
        if (old->attach != new->attach)
                log_notice("[weft] debug-attach takes effect at the next start");
}

void debug_switch(const char *step)
{
        const char *wanted = getenv("WEFTD_DEBUG_SWITCH");

        if (wanted && strncmp(wanted, "kill ", 5) == 0 && strcmp(wanted + 5, step) == 0)
                (void) raise(SIGKILL);
        if (wanted && strncmp(wanted, "stop ", 5) == 0 && strcmp(wanted + 5, step) == 0)
                (void) raise(SIGSTOP);
}

static int pin(struct build *b, struct weft_error *reterr)
{
        return generation_pin(b->generation, b->daemon->paths.bpffs, reterr);
}

static int attach(struct build *b, struct weft_error *reterr)
{
        int r;

        daemon_conntrack_follow(b->daemon, b);
        r = build_attach(b, reterr);

        return r < 0 ? r : daemon_overlay_prepare(b->daemon, b, reterr);
}

/* Everything before the switch. Each is done for all modules before the next begins. */
static const struct {
        int (*f)(struct build *b, struct weft_error *reterr);
        const char *step; /* that is reached by it */
} phases[] = {
        { build_generation, "built" },
        { build_prepare, "prepared" },
        { attach, "attached" },
        { build_selftest, "tested" },
        { pin, "pinned" },
};

/* Where a reload's time goes. */
struct stopwatch {
        uint64_t start, last, loading;
        char text[256];
};

static void stopwatch_start(struct stopwatch *w)
{
        *w = (struct stopwatch) { .start = monotonic_now(), .loading = object_load_time() };
        w->last = w->start;
}

static void reached(struct stopwatch *w, const char *step)
{
        size_t n = strlen(w->text);
        uint64_t now = monotonic_now();

        (void) snprintf(w->text + n, sizeof(w->text) - n, ", %s %.1f", step,
                        (double) (now - w->last) / 1000);
        w->last = now;
        daemon_notify_alive();
        debug_switch(step);
}

static void log_times(const struct stopwatch *w, const struct build *b)
{
        const struct log_fields fields = { .generation = generation_number(b->generation) };

        log_line(LOG_INFO, &fields, "reload: %.1f ms, %.1f of them loading programs (ms until%s)",
                 (double) (w->last - w->start) / 1000,
                 (double) (object_load_time() - w->loading) / 1000, w->text + 1);
}

static int prepare(struct daemon *d, struct build **ret, struct stopwatch *watch,
                   struct diagnostics *diagnostics, struct weft_error *reterr)
{
        _cleanup_(build_freep) struct build *b = NULL;
        int r = build_config(d, &b, diagnostics, reterr);

        if (r == 0)
                r = build_modules(b, d->build, diagnostics, reterr);
        if (r == 0)
                reached(watch, "planned");
        for (size_t i = 0; r == 0 && i < ELEMENTS(phases); i++) {
                r = phases[i].f(b, reterr);
                if (r == 0)
                        reached(watch, phases[i].step);
        }
        if (r < 0)
                return r;

        *ret = TAKE(b);
        return 0;
}

static int switch_to(struct daemon *d, const struct build *b, struct weft_error *reterr)
{
        struct weft_error back = { 0 };
        int r = daemon_hooks_switch(d, b, reterr);

        if (r < 0 && daemon_hooks_undo(d, d->build, &back) < 0)
                log_message(LOG_ERR, HOOKS_MIXED,
                            "some hooks could not be put back to generation %u: %s",
                            generation_number(d->build->generation), back.text);
        return r;
}

/* Nothing of a generation that was refused stays. */
static void forget_refused(struct daemon *d)
{
        grace_period();
        generation_unpin_others(d->build->generation, d->paths.bpffs);
        daemon_overlay_settle(d);
}

static int reload(struct daemon *d, struct diagnostics *diagnostics, struct weft_error *reterr)
{
        _cleanup_(build_freep) struct build *b = NULL;
        struct weft_error why = { 0 };
        struct build *old = d->build;
        struct stopwatch watch;
        int r;

        stopwatch_start(&watch);
        r = prepare(d, &b, &watch, diagnostics, reterr);
        if (r == 0)
                r = switch_to(d, b, reterr);
        if (r < 0) {
                forget_refused(d);
                return r;
        }

        reached(&watch, "switched");
        build_takeover(b);
        reached(&watch, "taken-over");
        d->build = TAKE(b);
        log_generation(generation_number(d->build->generation));
        b = old; /* freed on return, when nothing runs it or points into it any more */
        attach_tcx_order(d->attachments, d->build->config->tcx_order);
        warn_of_restart(old->config, d->build->config);
        if (apply(d, old->config, &why) < 0)
                log_warning("%s", why.text);
        build_peer_events(d->build, old->config);
        daemon_states_prune(d);
        reached(&watch, "applied");
        grace_period();
        generation_unpin_others(d->build->generation, d->paths.bpffs);
        reached(&watch, "settled");

        log_times(&watch, d->build);
        daemon_conflicts_look(d);
        log_plan(d->build);
        return 0;
}

static void log_refused(const struct daemon *d, const char *caller, const char *reason)
{
        _cleanup_free_ char *verifier_log = object_take_refusal();

        log_line(LOG_ERR,
                 &(const struct log_fields) { .message = MESSAGE_RELOAD_REFUSED,
                                              .caller = caller,
                                              .verifier_log = verifier_log },
                 "reload (asked for by %s) refused, generation %u runs on: %s", caller,
                 generation_number(d->build->generation), reason);
}

int daemon_reload(struct daemon *d, const char *caller, struct diagnostics *diagnostics,
                  struct weft_error *reterr)
{
        struct weft_error why = { 0 };
        int r;

        free(object_take_refusal());
        r = reload(d, diagnostics, &why);
        d->reloads++;
        d->reloads_refused += r < 0;
        (void) snprintf(d->refused, sizeof(d->refused), "%.*s", (int) sizeof(d->refused) - 1,
                        r < 0 ? why.text : "");
        if (r < 0) {
                daemon_log_diagnostics(diagnostics);
                log_refused(d, caller, why.text);
                return weft_fail(reterr, r, "%s", why.text);
        }

        log_line(LOG_NOTICE,
                 &(const struct log_fields) { .message = MESSAGE_RELOADED, .caller = caller },
                 "reloaded (asked for by %s): generation %u runs", caller,
                 generation_number(d->build->generation));
        return 0;
}

static bool has_instance(const struct build *b, const char *name)
{
        for (size_t i = 0; i < b->n_instances; i++)
                if (strcmp(b->instances[i]->module->desc.name, name) == 0)
                        return true;

        return false;
}

int daemon_reload_dry(struct daemon *d,
                      void (*f)(void *data, const char *module, enum instance_change change),
                      void *data, struct diagnostics *diagnostics, struct weft_error *reterr)
{
        _cleanup_(build_freep) struct build *b = NULL;
        int r = build_config(d, &b, diagnostics, reterr);

        if (r == 0)
                r = build_modules(b, d->build, diagnostics, reterr);
        if (r < 0)
                return r;

        for (size_t i = 0; i < b->n_instances; i++)
                f(data, b->instances[i]->module->desc.name, b->changes[i]);
        for (size_t i = 0; i < d->build->n_instances; i++) {
                const char *name = d->build->instances[i]->module->desc.name;

                if (!has_instance(b, name))
                        f(data, name, INSTANCE_REMOVED);
        }

        return 0;
}

/* ---- stop --------------------------------------------------------------------------------- */

/* What instances did to the host stays in force with the rest of the datapath. */
static void leave_instances(struct build *b)
{
        for (size_t i = 0; b && i < b->n_instances; i++)
                b->instances[i]->attached = false;
}

void daemon_stop(struct daemon *d)
{
        daemon_notify_stop(d);
        daemon_removals_stop(d);
        d->control = control_close(d->control);
        daemon_events_stop(d);
        daemon_addresses_stop(d);
        leave_instances(d->build);
        daemon_endpoints_free(d);
        daemon_ports_free(d);
        daemon_overlay_free(d);
        daemon_health_free(d);
        daemon_metrics_stop(d);
        daemon_conflicts_free(d);
        daemon_pending_services_free(d);
        daemon_states_free(d);
        d->build = build_free(d->build);
        free(d->uplinks);
        leases_done(&d->leases);
        for (size_t i = 0; i < d->module_numbers.n; i++)
                free(d->module_numbers.items[i]);
        free(d->module_numbers.items);

        dry_network_close(&d->dry);
        d->attachments = attach_close(d->attachments);
        d->tables = tables_close(d->tables);
        d->host = host_close(d->host);
        d->net = net_close(d->net);
        crashes_close();
        closep(&d->pins_lock);
        closep(&d->lock);
        paths_done(&d->paths);
        d->loop = sd_event_unref(d->loop);
}
