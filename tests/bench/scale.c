/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What services and flows cost by their number: loading, changing one, reading the files, the
 * memory of it, and a pass of collection. Prints the rows of one table of
 * tests/bench/RESULTS.md; the loads are
 * compared with a loop that makes the same changes to the same maps and knows nothing. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <bpf/bpf.h>

#include "tables/internal.h"
#include "util.h"

#define BPFFS "/sys/fs/bpf/scale"

enum {
        SERVICES = 10000,
        MAGLEV_SERVICES = 500,
        BACKENDS = 10,
        CHANGES = 1000,
        FLOWS = 1 << 20, /* entries of one family; a connection has two */
        PIECE = 4096,    /* as weftd collects */
        MAGLEV_16381 = 6,
};

static struct config_service services[SERVICES];
static struct config_backend backends[SERVICES][BACKENDS];
static struct weft_addr addresses[SERVICES];
static char names[SERVICES][16];

static struct weft_addr ip4(uint32_t a)
{
        return (struct weft_addr) { { 0, 0, htonl(0xffff), htonl(a) } };
}

static void make_services(void)
{
        for (uint32_t i = 0; i < SERVICES; i++) {
                (void) snprintf(names[i], sizeof(names[i]), "service-%u", i);
                addresses[i] = ip4(0xc6120000 + i);
                for (uint32_t k = 0; k < BACKENDS; k++)
                        backends[i][k] = (struct config_backend) {
                                .addr = ip4(0x0af40000 + i * BACKENDS + k),
                                .port = 8080,
                                .weight = 1,
                        };
                services[i] = (struct config_service) {
                        .name = names[i],
                        .port = 80,
                        .proto = IPPROTO_TCP,
                        .external_ip = { &addresses[i], 1 },
                        .backends = backends[i],
                        .n_backends = BACKENDS,
                        .maglev_size = MAGLEV_16381,
                };
        }
}

/* ---- tables ------------------------------------------------------------------------------- */

static char *engine;
static size_t engine_size;

static bool read_engine(void)
{
        const char *path = getenv("WEFT_ENGINE") ?: "engine.bpf.o";
        _cleanup_fclose_ FILE *f = fopen(path, "re");
        long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;

        if (size <= 0)
                return false;
        rewind(f);
        engine_size = size;
        engine = malloc(size);
        return engine && fread(engine, size, 1, f) == 1;
}

static struct tables *open_tables(uint64_t flows)
{
        struct tables_settings s = { .bpffs = BPFFS, .flow_table_size = flows, .hz = 250 };
        struct weft_error why = {};
        struct tables *t = NULL;

        if (tables_open(&s, engine, engine_size, &t, &why) < 0) {
                fprintf(stderr, "scale: %s\n", why.text);
                exit(1);
        }
        return t;
}

/* Tables that nothing was ever in. */
static bool fresh_bpffs(void)
{
        (void) umount("/sys/fs/bpf");
        return mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) == 0;
}

static void set(struct tables *t, uint32_t i)
{
        struct weft_error why = {};

        if (tables_set_service(t, &services[i], NULL, 0, &why) < 0) {
                fprintf(stderr, "scale: %s\n", why.text);
                exit(1);
        }
}

/* ---- rows --------------------------------------------------------------------------------- */

static double ms_since(uint64_t start)
{
        return (monotonic_now() - start) / 1000.0;
}

static double megabytes(const struct tables *t)
{
        return tables_memory(t) / 1048576.0;
}

static double load(struct tables *t, uint32_t n)
{
        uint64_t start = monotonic_now();

        for (uint32_t i = 0; i < n; i++)
                set(t, i);
        return ms_since(start);
}

/* The same elements of the same maps, by the plain system call. */
static double load_bare(struct tables *t)
{
        int entries = table_fd(t, TABLE_SERVICES), slots = table_fd(t, TABLE_SERVICE_SLOTS);
        int elements = table_fd(t, TABLE_BACKENDS);
        uint64_t start = monotonic_now();

        for (uint32_t i = 0; i < SERVICES; i++) {
                struct weft_service_key key = { .addr = addresses[i] };
                struct weft_service value = { .id = i, .slots = i * BACKENDS, .count = BACKENDS };

                for (uint32_t k = 0; k < BACKENDS; k++) {
                        uint32_t at = i * BACKENDS + k + 1;
                        struct weft_service_slot slot = { at, 1 };
                        struct weft_backend b = { .addr = backends[i][k].addr, .number = 1 };

                        (void) bpf_map_update_elem(slots, &at, &slot, BPF_ANY);
                        (void) bpf_map_update_elem(elements, &at, &b, BPF_ANY);
                }
                (void) bpf_map_update_elem(entries, &key, &value, BPF_ANY);
                key.port = htons(80);
                key.proto = IPPROTO_TCP;
                (void) bpf_map_update_elem(entries, &key, &value, BPF_ANY);
        }
        return ms_since(start);
}

static struct tables *open_fresh(uint64_t flows)
{
        if (!fresh_bpffs())
                exit(1);
        return open_tables(flows);
}

static void rows_load(void)
{
        struct tables *t = open_fresh(4096);
        double bare = load_bare(t), weft;

        tables_close(t);
        t = open_fresh(4096);
        weft = load(t, SERVICES);
        printf("| load %d services of %d backends | **%.0f ms**, %.2f × bare (%.0f ms) | 3 × |\n",
               SERVICES, BACKENDS, weft, weft / bare, bare);
        printf("| all of them once more, as they are | %.0f ms | |\n", load(t, SERVICES));
        tables_close(t);

        uint64_t start = monotonic_now();
        t = open_tables(4096);
        printf("| take them over from a predecessor | %.0f ms | |\n",
               ms_since(start) + load(t, SERVICES));
        tables_close(t);
}

/* A backend goes and comes. */
static void rows_change(void)
{
        struct tables *t = open_fresh(4096);
        double sum = 0, worst = 0;

        (void) load(t, SERVICES);
        for (uint32_t n = 0; n < CHANGES; n++) {
                uint32_t i = n * 2654435761u % SERVICES;
                uint64_t start = monotonic_now();
                double ms;

                services[i].n_backends ^= BACKENDS ^ (BACKENDS - 1);
                set(t, i);
                ms = ms_since(start);
                sum += ms;
                worst = ms > worst ? ms : worst;
        }
        printf("| change one of them | **%.3f ms**, %.3f at worst of %d | 1 ms |\n", sum / CHANGES,
               worst, CHANGES);
        tables_close(t);
        for (uint32_t i = 0; i < SERVICES; i++)
                services[i].n_backends = BACKENDS;
}

static void rows_maglev(void)
{
        struct tables *t = open_fresh(4096);
        double before = megabytes(t), ms;

        for (uint32_t i = 0; i < MAGLEV_SERVICES; i++)
                services[i].algorithm = WEFT_MAGLEV;
        ms = load(t, MAGLEV_SERVICES);
        printf("| load %d services with Maglev, 16381 places each | %.0f ms, %.1f MB | |\n",
               MAGLEV_SERVICES, ms, megabytes(t) - before);
        printf("| all of them once more, as they are | %.0f ms | |\n", load(t, MAGLEV_SERVICES));
        for (uint32_t i = 0; i < MAGLEV_SERVICES; i++)
                services[i].n_backends--;
        printf("| change one of them | %.2f ms | |\n", load(t, MAGLEV_SERVICES) / MAGLEV_SERVICES);
        tables_close(t);
}

/* ---- flows -------------------------------------------------------------------------------- */

static double cpu_ms(void)
{
        struct rusage u;

        (void) getrusage(RUSAGE_SELF, &u);
        return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000.0 +
               (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000.0;
}

/* One direction of a connection with a backend; alive for seconds. */
static void put_flow(struct tables *t, uint32_t n, bool reply, int seconds)
{
        uint64_t now = tables_jiffies(t->hz);
        uint32_t client = htonl(0x0a000000 + n), service = htonl(0xc6336407);
        uint32_t backend = htonl(0x0af40000);
        struct weft_flow4 f = {
                .f = { .deadline = now + (int64_t) seconds * t->hz,
                       .created = now - 100 * t->hz,
                       .state = WEFT_ESTABLISHED,
                       .flags = reply ? WEFT_FLOW_REPLY : 0,
                       .sport = reply ? htons(80) : htons(1024),
                       .dport = reply ? htons(1024) : htons(8080) },
                .saddr = reply ? service : client,
                .daddr = reply ? client : backend,
                .key = { .saddr = reply ? backend : client,
                         .daddr = reply ? client : service,
                         .sport = reply ? htons(8080) : htons(1024),
                         .dport = reply ? htons(1024) : htons(80),
                         .proto = IPPROTO_TCP },
        };

        (void) bpf_map_update_elem(table_fd(t, TABLE_FLOWS4), &f.key, &f, BPF_ANY);
}

static void pass(struct tables *t, const char *what)
{
        double wall, cpu = cpu_ms(), worst = 0;
        uint64_t start = monotonic_now();
        size_t freed = 0;
        bool done = false;

        while (!done) {
                uint64_t piece = monotonic_now();

                freed += tables_collect(t, PIECE, &done);
                if (ms_since(piece) > worst)
                        worst = ms_since(piece);
        }
        wall = ms_since(start);
        printf("| %s | %.0f ms of CPU in pieces of %.1f ms at worst, %.0f ms with their grace "
               "periods; %zu freed | |\n",
               what, cpu_ms() - cpu, worst, wall, freed);
}

static void rows_flows(void)
{
        struct tables *t = open_fresh(FLOWS);

        for (uint32_t n = 0; n < FLOWS / 2; n++) {
                put_flow(t, n, true, 1000);
                put_flow(t, n, false, 1000);
        }
        printf("| memory of all tables, with room for %d entries in each family | %.0f MB | |\n",
               FLOWS, megabytes(t));
        pass(t, "a pass of collection over 1 M entries that live");
        for (uint32_t n = 0; n < FLOWS / 2; n += 10) {
                put_flow(t, n, true, -1000);
                put_flow(t, n, false, -1000);
        }
        pass(t, "… of which a tenth is over");
        tables_close(t);
}

int main(void)
{
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            !read_engine()) {
                perror("scale");
                return 1;
        }
        make_services();
        rows_load();
        rows_change();
        rows_maglev();
        rows_flows();
        return 0;
}
