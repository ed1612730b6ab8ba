/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Nanoseconds for each packet, by BPF_PROG_TEST_RUN, beside two programs in the same loop. What is
 * printed is one table of tests/bench/RESULTS.md; `run` puts it there.
 *
 * Every program is run once in each round, in an order that turns, and differences are taken within
 * the round: net = program - (restore of the packet + the loop). So a machine that is slower for a
 * while is so for all. */

#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "generation/object.h"
#include "kinds.h"
#include "measure.h"
#include "steps.h"
#include "util.h"

#define ROUNDS 15
#define REPEAT (2 * FLOWS)
#define REPEAT_NEW 4000 /* new flows of one run: few enough that ports and table have room */

/* The programs of one kind, in groups of three for one flow and for 64 K: restore, bare, weft. */
enum series { NOTHING, LIMIT, RESTORE, BARE, WEFT, RESTORE_MANY, BARE_MANY, WEFT_MANY, SERIES };

struct run {
        struct world *world;
        const struct kind *kind;
        int family;
        struct ready ready;
        struct measured series[SERIES];
        bool use[SERIES];
        double ns[SERIES][ROUNDS];
        uint64_t slow; /* packets of measured runs that took the long path */
};

static bool is_new(const struct run *r)
{
        return r->kind->vary == VARY_NEW;
}

static bool is_xdp(const struct run *r)
{
        return r->ready.hook == WEFT_XDP_UPLINK;
}

/* ---- preparing ---------------------------------------------------------------------------- */

static int named(const struct run *r, const char *what)
{
        char name[32];

        (void) snprintf(name, sizeof(name), "%s_%s", what, is_xdp(r) ? "xdp" : "tc");
        return bare_program(name);
}

static bool plain(struct run *r, enum series s, int fd)
{
        r->series[s] = (struct measured) { .fd = fd, .xdp = is_xdp(r) };
        return r->use[s] = true;
}

static bool restored(struct run *r, enum series s, enum vary vary, int target)
{
        struct restored is = r->ready.is;

        is.vary = vary;
        return r->use[s] = measured_with_restore(&r->series[s], &is, is_xdp(r), target);
}

static bool prepare_programs(struct run *r)
{
        int weft = r->world->programs[r->ready.hook], nothing = named(r, "nothing");
        int bare = named(r, r->family == AF_INET ? "bare4" : "bare6");
        enum vary one = is_new(r) ? VARY_NEW : VARY_NONE, many = r->kind->vary;

        if (!plain(r, NOTHING, nothing) || !plain(r, LIMIT, named(r, "limit")) ||
            !restored(r, RESTORE, one, nothing) || !restored(r, WEFT, one, weft))
                return false;
        if (many == VARY_NONE || is_new(r))
                return true;

        return restored(r, BARE, VARY_NONE, bare) && restored(r, RESTORE_MANY, many, nothing) &&
               restored(r, BARE_MANY, many, bare) && restored(r, WEFT_MANY, many, weft);
}

static bool prepare(struct run *r)
{
        bool many = r->kind->vary == VARY_SRC || r->kind->vary == VARY_DST;

        forget_flows(r->world);
        if (!kind_establish(r->world, r->kind, r->family, &r->ready))
                return false;
        if (many && !kind_multiply(r->world, r->kind, r->family, &r->ready,
                                   bare_map(r->family == AF_INET ? "bare4" : "bare6")))
                return false;

        return prepare_programs(r);
}

/* ---- measuring ---------------------------------------------------------------------------- */

static uint64_t slow_packets(struct world *w)
{
        return world_event(w, WEFT_EVENT_MISS) + world_event(w, WEFT_EVENT_AGAIN);
}

static bool check_verdict(const struct run *r, enum series s, int verdict)
{
        if ((s != WEFT && s != WEFT_MANY && s != BARE && s != BARE_MANY) ||
            verdict == r->kind->verdict)
                return true;

        fprintf(stderr, "bench: %s, IPv%c, program %d: verdict %d\n", r->kind->name,
                r->family == AF_INET ? '4' : '6', s, verdict);
        return false;
}

/* A first packet that is no first packet, or is dropped, must not be measured as one. */
static bool check_commits(const struct run *r, enum series s, uint64_t commits)
{
        if (s != WEFT || !is_new(r) || commits == REPEAT_NEW)
                return true;

        fprintf(stderr, "bench: %s: %llu of %d connections stored\n", r->kind->name,
                (unsigned long long) commits, REPEAT_NEW);
        return false;
}

static bool run_one(struct run *r, enum series s, unsigned round)
{
        bool weft = s == WEFT || s == WEFT_MANY;
        uint64_t before, commits;
        int verdict;

        if (is_new(r))
                forget_flows(r->world);
        before = slow_packets(r->world);
        commits = world_event(r->world, WEFT_EVENT_COMMIT);
        r->ns[s][round] =
                measured_run(&r->series[s], r->ready.ifindex, r->ready.packet.data,
                             r->ready.packet.len, is_new(r) ? REPEAT_NEW : REPEAT, &verdict);
        if (weft)
                r->slow += slow_packets(r->world) - before;

        return check_verdict(r, s, verdict) &&
               check_commits(r, s, world_event(r->world, WEFT_EVENT_COMMIT) - commits);
}

static bool run_rounds(struct run *r)
{
        for (unsigned round = 0; round < ROUNDS; round++)
                for (unsigned i = 0; i < SERIES; i++) {
                        enum series s = (i + round) % SERIES;

                        if (r->use[s] && !run_one(r, s, round))
                                return false;
                }

        return true;
}

/* ---- telling ------------------------------------------------------------------------------ */

/* Median over the rounds of one program less another, with the quarter and three-quarter marks. */
static double net(const struct run *r, enum series s, enum series control, double *ret_low,
                  double *ret_high)
{
        double d[ROUNDS], m;

        for (unsigned i = 0; i < ROUNDS; i++)
                d[i] = r->ns[s][i] - r->ns[control][i];
        m = median(d, ROUNDS);
        *ret_low = d[ROUNDS / 4];
        *ret_high = d[ROUNDS - 1 - ROUNDS / 4];
        return m;
}

static void print_head(void)
{
        printf("| what | family | weft, 1 flow | bare | ratio | weft, 64 K flows | bare | ratio | "
               "limit | restore "
               "| loop |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
}

static void print_part(const struct run *r, enum series weft, enum series bare, enum series control)
{
        double low, high, mine, theirs;

        if (!r->use[weft]) {
                printf(" | | | ");
                return;
        }

        mine = net(r, weft, control, &low, &high);
        printf("| **%.0f** (%.0f–%.0f) ", mine, low, high);
        if (!r->use[bare]) {
                printf("| | ");
                return;
        }

        theirs = net(r, bare, control, &low, &high);
        printf("| %.0f | %.2f ", theirs, mine / theirs);
}

static void print_run(const struct run *r)
{
        uint64_t expected = is_new(r) ? (uint64_t) ROUNDS * REPEAT_NEW : 0;
        double low, high, loop[ROUNDS];

        memcpy(loop, r->ns[NOTHING], sizeof(loop));
        printf("| %s | IPv%c ", r->kind->name, r->family == AF_INET ? '4' : '6');
        print_part(r, WEFT, BARE, RESTORE);
        print_part(r, WEFT_MANY, BARE_MANY, RESTORE_MANY);
        printf("| %.0f ", net(r, LIMIT, NOTHING, &low, &high));
        printf("| %.0f | %.0f |", net(r, RESTORE, NOTHING, &low, &high), median(loop, ROUNDS));
        if (r->slow > expected)
                printf(" <!-- %llu packets took the long path -->",
                       (unsigned long long) (r->slow - expected));
        printf("\n");
        (void) fflush(stdout);
}

static double told[64][2]; /* net ns of one flow, by kind and family; 0: not measured */

static double *told_of(const char *name, int family)
{
        const struct kind *k = kind_named(name);

        return k && k < kinds + ELEMENTS(told) ? &told[k - kinds][family == AF_INET6] : NULL;
}

/* *ret_ns (may be NULL): of one flow, net. */
static bool run_kind(struct world *w, const struct kind *k, int family, double *ret_ns)
{
        struct run r = { .world = w, .kind = k, .family = family };
        bool good = prepare(&r) && run_rounds(&r);
        double low, high;

        if (good)
                print_run(&r);
        if (good && ret_ns)
                *ret_ns = net(&r, WEFT, RESTORE, &low, &high);
        for (unsigned s = 0; s < SERIES; s++)
                measured_done(&r.series[s]);

        return good;
}

/* ---- where the time goes ------------------------------------------------------------------ */

static struct bpf_object *load_step(struct world *w, uint8_t step, bool cast)
{
        struct bpf_object *o = measure_object("steps");
        uint8_t can_cast = cast;
        uint32_t generation = FULL + 1;

        if (!o || object_constant(o, "steps", &step, 1) < 0 ||
            object_constant(o, "weft_can_cast", &can_cast, 1) < 0 ||
            object_constant(o, "weft_generation", &generation, sizeof(generation)) < 0 ||
            tables_share(w->tables, o, NULL) < 0 || bpf_object__load(o) < 0) {
                fprintf(stderr, "bench: steps.bpf.o does not load\n");
                bpf_object__close(o);
                return NULL;
        }

        return o;
}

struct steps {
        struct bpf_object *objects[STEPS];
        struct measured measured[STEPS + 2]; /* the steps, the restore alone, weft */
        double ns[STEPS + 2][ROUNDS];
};

static void steps_done(struct steps *s)
{
        for (unsigned i = 0; i < STEPS + 2; i++)
                measured_done(&s->measured[i]);
        for (unsigned i = 0; i < STEPS; i++)
                bpf_object__close(s->objects[i]);
}

static bool prepare_steps(struct run *r, struct steps *s, bool cast)
{
        int weft = r->world->programs[r->ready.hook];

        for (unsigned i = 0; i < STEPS; i++) {
                s->objects[i] = load_step(r->world, i, cast);
                if (!s->objects[i] ||
                    !measured_with_restore(&s->measured[i], &r->ready.is, false,
                                           bpf_program__fd(bpf_object__find_program_by_name(
                                                   s->objects[i], "steps_tc"))))
                        return false;
        }

        return measured_with_restore(&s->measured[STEPS], &r->ready.is, false,
                                     named(r, "nothing")) &&
               measured_with_restore(&s->measured[STEPS + 1], &r->ready.is, false, weft);
}

static bool run_steps(struct run *r, struct steps *s)
{
        int verdict, expected;

        for (unsigned round = 0; round < ROUNDS; round++)
                for (unsigned i = 0; i < STEPS + 2; i++) {
                        unsigned n = (i + round) % (STEPS + 2);

                        s->ns[n][round] = measured_run(&s->measured[n], r->ready.ifindex,
                                                       r->ready.packet.data, r->ready.packet.len,
                                                       REPEAT, &verdict);
                        expected = n == STEPS ? 0 : r->kind->verdict;
                        if (verdict != expected) {
                                fprintf(stderr, "bench: step %u: verdict %d\n", n, verdict);
                                return false;
                        }
                }

        return true;
}

static void print_steps(const struct steps *s)
{
        static const char *const texts[] = STEP_TEXTS;
        double d[ROUNDS], all, last = 0;

        printf("| NodePort, SNAT, to the backend, IPv4 | net ns | more |\n|---|---|---|\n");
        for (unsigned i = 0; i < STEPS + 2; i++) {
                if (i == STEPS)
                        continue;
                for (unsigned round = 0; round < ROUNDS; round++)
                        d[round] = s->ns[i][round] - s->ns[STEPS][round];
                all = median(d, ROUNDS);
                printf("| %s | %.0f | %+.0f |\n", i < STEPS ? texts[i] : "weft, whole", all,
                       all - last);
                last = all;
        }
}

static bool bench_steps(struct world *w, bool cast)
{
        const struct kind *k = kind_named("NodePort, SNAT, to the backend");
        struct run r = { .world = w, .kind = k, .family = AF_INET };
        struct steps s = {};
        bool good = prepare(&r) && prepare_steps(&r, &s, cast) && run_steps(&r, &s);

        if (good)
                print_steps(&s);
        steps_done(&s);
        for (unsigned i = 0; i < SERIES; i++)
                measured_done(&r.series[i]);

        return good;
}

/* ---- choosing among few and many ---------------------------------------------------------- */

enum { BACKENDS = 10, FEW = 10, MANY_SERVICES = 10000, MAGLEV_16381 = 6 };

static void set_service(struct world *w, const char *name, struct weft_addr external,
                        uint16_t node_port, uint32_t algorithm, uint64_t affinity)
{
        struct weft_addr node = at(AF_INET, NODE);
        struct config_backend backends[BACKENDS];
        struct config_service s = {
                .name = (char *) name,
                .port = SERVICE_PORT,
                .proto = IPPROTO_TCP,
                .node_port = node_port,
                .external_ip = { &external, node_port ? 0 : 1 },
                .backends = backends,
                .n_backends = BACKENDS,
                .algorithm = algorithm,
                .maglev_size = MAGLEV_16381,
                .affinity = affinity,
        };
        struct weft_error why = {};

        for (unsigned i = 0; i < BACKENDS; i++)
                backends[i] = (struct config_backend) { .addr = at(AF_INET, REMOTE_POD),
                                                        .port = BACKEND_PORT + i,
                                                        .weight = 1 };
        if (tables_set_service(w->tables, &s, &node, 1, &why) < 0)
                fprintf(stderr, "bench: %s\n", why.text);
}

static void set_others(struct world *w, unsigned n)
{
        char name[32];

        for (unsigned i = 1; i < n; i++) {
                struct weft_addr a = at(AF_INET, EXTERNAL);

                a.w[3] = htonl(0xc6120000 + i);
                (void) snprintf(name, sizeof(name), "other-%u", i);
                set_service(w, name, a, 0, WEFT_RANDOM, 0);
        }
}

static bool bench_services(struct world *w)
{
        static const struct {
                const char *name;
                uint32_t algorithm;
                uint64_t affinity; /* milliseconds */
        } rows[] = {
                { "random", WEFT_RANDOM, 0 },
                { "maglev", WEFT_MAGLEV, 0 },
                { "least connections", WEFT_LEAST_CONNECTIONS, 0 },
                { "random with affinity", WEFT_RANDOM, 3600000 },
        };
        static const unsigned numbers[] = { FEW, MANY_SERVICES };
        struct kind k = *kind_named("first packet, NodePort, SNAT");
        double ns[ELEMENTS(numbers)][ELEMENTS(rows)] = {};
        bool good = true;
        char text[96];

        k.name = text;
        print_head();
        for (size_t n = 0; n < ELEMENTS(numbers); n++) {
                set_others(w, numbers[n]);
                for (size_t i = 0; i < ELEMENTS(rows); i++) {
                        (void) snprintf(text, sizeof(text), "%u services of %u backends, %s",
                                        numbers[n], BACKENDS, rows[i].name);
                        set_service(w, "remote-tcp-4", at(AF_INET, EXTERNAL), NODE_PORT,
                                    rows[i].algorithm, rows[i].affinity);
                        good &= run_kind(w, &k, AF_INET, &ns[n][i]);
                }
        }
        printf("\n| how one is chosen | among %u / among %u | aim |\n|---|---|---|\n",
               MANY_SERVICES, FEW);
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                printf("| %s | **%.2f** | 1.10 |\n", rows[i].name, ns[1][i] / ns[0][i]);

        return good;
}

/* ---- main --------------------------------------------------------------------------------- */

static void stay_on_one_cpu(void)
{
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
        (void) sched_setaffinity(0, sizeof(set), &set);
}

/* What the programs that a node runs for one packet cost together. */
static void print_way(const struct way *way, int family)
{
        double sum = 0, *t;

        printf("| %s | IPv%c ", way->name, family == AF_INET ? '4' : '6');
        for (size_t i = 0; i < ELEMENTS(way->kinds) && way->kinds[i]; i++) {
                t = told_of(way->kinds[i], family);
                sum += t ? *t : 0;
                printf("%s %s", i > 0 ? " +" : "|", way->kinds[i]);
        }
        printf(" | **%.0f** | %u | %u |\n", sum, way->aim, way->peer);
}

static void print_ways(void)
{
        printf("\nWhat a packet costs its node, all programs that run for it together; the best of "
               "the "
               "peers is for IPv4\nand was measured on another machine.\n\n"
               "| packet | family | programs | weft | aim | best peer "
               "|\n|---|---|---|---|---|---|\n");
        for (size_t i = 0; i < n_ways; i++) {
                print_way(&ways[i], AF_INET);
                print_way(&ways[i], AF_INET6);
        }
}

static bool bench_kinds(struct world *w)
{
        bool good = true;

        print_head();
        for (size_t i = 0; i < n_kinds; i++) {
                good &= run_kind(w, &kinds[i], AF_INET, &told[i][0]);
                good &= run_kind(w, &kinds[i], AF_INET6, &told[i][1]);
        }
        print_ways();

        return good;
}

int main(int argc, char **argv)
{
        _cleanup_world_ struct world *w = NULL;
        bool cast = !getenv("WEFT_NO_CAST");

        if (argc != 3) {
                fprintf(stderr, "usage: bench DIRECTORY-OF-ITS-OBJECTS kinds|steps|services\n");
                return EXIT_FAILURE;
        }
        stay_on_one_cpu();
        (void) setenv("WEFT_BENCH", "1", 1); /* nothing is loaded that only tests look at */
        if (!world_prepare() || !measure_open(argv[1], !cast))
                return EXIT_FAILURE;

        w = world_open(FULL);
        if (strcmp(argv[2], "steps") == 0)
                return bench_steps(w, cast) ? EXIT_SUCCESS : EXIT_FAILURE;
        if (strcmp(argv[2], "services") == 0)
                return bench_services(w) ? EXIT_SUCCESS : EXIT_FAILURE;

        return bench_kinds(w) ? EXIT_SUCCESS : EXIT_FAILURE;
}
