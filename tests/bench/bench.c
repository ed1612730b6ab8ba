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
#include "modules.h"
#include "series.h"
#include "steps.h"
#include "tunnels.h"
#include "util.h"

/* ---- telling ------------------------------------------------------------------------------ */

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

        mine = run_net(r, weft, control, &low, &high);
        printf("| **%.0f** (%.0f–%.0f) ", mine, low, high);
        if (!r->use[bare]) {
                printf("| | ");
                return;
        }

        theirs = run_net(r, bare, control, &low, &high);
        printf("| %.0f | %.2f ", theirs, mine / theirs);
}

static void print_run(const struct run *r)
{
        uint64_t expected = run_is_new(r) ? (uint64_t) ROUNDS * REPEAT_NEW : 0;
        double low, high, loop[ROUNDS];

        memcpy(loop, r->ns[NOTHING], sizeof(loop));
        printf("| %s | IPv%c ", r->kind->name, r->family == AF_INET ? '4' : '6');
        print_part(r, WEFT, BARE, RESTORE);
        print_part(r, WEFT_MANY, BARE_MANY, RESTORE_MANY);
        printf("| %.0f ", run_net(r, LIMIT, NOTHING, &low, &high));
        printf("| %.0f | %.0f |", run_net(r, RESTORE, NOTHING, &low, &high), median(loop, ROUNDS));
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
        bool good = run_prepare(&r) && run_rounds(&r);
        double low, high;

        if (good)
                print_run(&r);
        if (good && ret_ns)
                *ret_ns = run_net(&r, WEFT, RESTORE, &low, &high);
        run_done(&r);

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
                                     run_named(r, "nothing")) &&
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

static bool bench_steps(bool cast)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        const struct kind *k = kind_named("NodePort, SNAT, to the backend");
        struct run r = { .world = w, .kind = k, .family = AF_INET };
        struct steps s = {};
        bool good = run_prepare(&r) && prepare_steps(&r, &s, cast) && run_steps(&r, &s);

        if (good)
                print_steps(&s);
        steps_done(&s);
        run_done(&r);

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

static bool bench_services(bool cast)
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
        _cleanup_world_ struct world *w = world_open(FULL);
        bool good = true;
        char text[96];

        (void) cast;
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

static bool bench_kinds(bool cast)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        bool good = true;

        (void) cast;

        print_head();
        for (size_t i = 0; i < n_kinds; i++) {
                good &= run_kind(w, &kinds[i], AF_INET, &told[i][0]);
                good &= run_kind(w, &kinds[i], AF_INET6, &told[i][1]);
        }
        print_ways();

        return good;
}

/* cast: the kernel shows how it holds a packet's checksum, and programs may look. */
static const struct table {
        const char *name;
        uint32_t variants;
        bool (*print)(bool cast);
} tables[] = {
        { "kinds", 1u << FULL, bench_kinds },
        { "steps", 1u << FULL, bench_steps },
        { "services", 1u << FULL, bench_services },
        { "tunnels", 1u << FULL | 1u << VXLAN | 1u << GENEVE | 1u << VXLAN_DEVICE, bench_tunnels },
        { "modules", 1u << MODULES_2 | 1u << MODULES_4 | 1u << MODULES_8 | 1u << MODULES_16,
          bench_modules },
};

int main(int argc, char **argv)
{
        bool good, cast = !getenv("WEFT_NO_CAST");
        const struct table *t = tables;

        while (argc == 3 && t < tables + ELEMENTS(tables) && strcmp(argv[2], t->name) != 0)
                t++;
        if (argc != 3 || t == tables + ELEMENTS(tables)) {
                fprintf(stderr, "usage: bench DIRECTORY-OF-ITS-OBJECTS "
                                "kinds|steps|services|tunnels|modules\n");
                return EXIT_FAILURE;
        }
        stay_on_one_cpu();
        (void) setenv("WEFT_BENCH", "1", 1); /* nothing is loaded that only tests look at */
        good = world_prepare(t->variants) && measure_open(argv[1], !cast) && t->print(cast);
        world_finish();

        return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
