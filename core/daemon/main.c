/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

static const char help[] =
        "weftd [OPTION…]\n"
        "\n"
        "Runs a node's weft datapath in the foreground, in the network namespace it is started "
        "in.\n"
        "SIGHUP reads the configuration again; SIGTERM and SIGINT end the daemon and leave the\n"
        "datapath at work (weftctl cleanup takes it away).\n"
        "\n"
        "  --root DIR        below it lie etc/weft, usr/lib/weft, run/weft and var/lib/weft\n"
        "  --bpffs DIR       where maps and links are pinned, on a bpffs (/sys/fs/bpf/weft)\n"
        "  --module-dir DIR  look for modules here before the installed ones; repeatable\n"
        "  --help            this text\n"
        "  --version         version, and that of the module ABI\n"
        "\n"
        "Exit codes: 0 stopped by a signal, 1 failed (the log says why), 2 wrong usage,\n"
        "78 the configuration has errors.\n";

struct arguments {
        const char *root, *bpffs;
        const char **module_dirs; /* ended by NULL */
        size_t n_module_dirs;
};

/* 0: go on; else exit with code *ret_code. */
static int parse_arguments(int argc, char **argv, struct arguments *a, int *ret_code)
{
        static const struct option options[] = {
                { "root", required_argument, NULL, 'r' },
                { "bpffs", required_argument, NULL, 'b' },
                { "module-dir", required_argument, NULL, 'm' },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },
                { 0 },
        };
        int c;

        *ret_code = 0;
        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case 'r':
                        a->root = optarg;
                        break;
                case 'b':
                        a->bpffs = optarg;
                        break;
                case 'm':
                        a->module_dirs[a->n_module_dirs++] = optarg;
                        break;
                case 'h':
                        (void) fputs(help, stdout);
                        return 1;
                case 'v':
                        (void) printf("weftd %s, module ABI %u.%u\n", WEFT_VERSION, WEFT_ABI_MAJOR,
                                      WEFT_ABI_MINOR);
                        return 1;
                default:
                        *ret_code = 2;
                        return 1;
                }

        if (optind == argc)
                return 0;

        (void) fprintf(stderr, "weftd: unexpected argument \"%s\", see weftd --help\n",
                       argv[optind]);
        *ret_code = 2;
        return 1;
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *data)
{
        struct diagnostics diagnostics = { 0 };
        struct weft_error why = { 0 };
        char caller[64];

        (void) source;
        (void) snprintf(caller, sizeof(caller), "SIGHUP of uid %u, pid %u", info->ssi_uid,
                        info->ssi_pid);
        (void) daemon_reload(data, caller, &diagnostics, &why); /* it says what came of it */
        diagnostics_done(&diagnostics);

        return 0;
}

/* Before anything else: the loop, and the signals it takes. */
static int open_loop(struct daemon *d)
{
        sigset_t signals;
        int r;

        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGTERM);
        (void) sigaddset(&signals, SIGINT);
        (void) sigaddset(&signals, SIGHUP);
        (void) sigprocmask(SIG_BLOCK, &signals, NULL);
        (void) signal(SIGPIPE, SIG_IGN);

        r = sd_event_new(&d->loop);
        if (r >= 0)
                r = sd_event_add_signal(d->loop, NULL, SIGTERM, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(d->loop, NULL, SIGINT, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(d->loop, NULL, SIGHUP, on_hangup, d);
        if (r >= 0)
                r = sd_event_set_watchdog(d->loop, true);
        if (r < 0)
                log_error("cannot make an event loop: %s", strerror(-r));

        return r;
}

/* Kernels before 5.11 count eBPF memory against the first. Every hook of every endpoint is an open
 * link, so the usual 1024 files are soon gone; nothing here uses select(). */
static void lift_limits(void)
{
        const struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
        struct rlimit files;

        (void) setrlimit(RLIMIT_MEMLOCK, &all);
        if (getrlimit(RLIMIT_NOFILE, &files) < 0)
                return;

        files.rlim_cur = files.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &files);
}

static int run(struct daemon *d)
{
        int r = open_loop(d);

        if (r >= 0)
                r = daemon_start(d);
        if (r < 0)
                return r;

        r = sd_event_loop(d->loop);
        (void) sd_notify(/* unset_environment= */ 0, "STOPPING=1");
        if (r < 0)
                log_error("event loop: %s", strerror(-r));
        else
                log_message(LOG_NOTICE, STOPPED, "stopped; the datapath goes on");

        return r;
}

int main(int argc, char **argv)
{
        _cleanup_free_ const char **module_dirs = calloc(argc + 2, sizeof(*module_dirs));
        struct arguments a = { .module_dirs = module_dirs };
        struct daemon d = {
                .lock = -1, .pins_lock = -1, .passed_control = -1, .dry = { .ns = -1, .home = -1 }
        };
        struct weft_error why = { 0 };
        int r, code;

        if (!module_dirs)
                return 1;
        if (parse_arguments(argc, argv, &a, &code))
                return code;

        (void) libbpf_set_print(NULL); /* what is worth saying comes back as an error */
        log_open("weftd");
        if (paths_init(&d.paths, a.root, a.bpffs, &why) < 0) {
                log_error("%s", why.text);
                return 2;
        }

        a.module_dirs[a.n_module_dirs] = WEFT_MODULE_DIR;
        d.module_dirs = a.module_dirs;
        lift_limits();
        r = run(&d);
        daemon_stop(&d);

        return r == -EBADMSG ? EX_CONFIG : r < 0 ? 1 : 0;
}
