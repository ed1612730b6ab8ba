/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "generation-fixture.h"
#include "generation/chain.h"
#include "generation/object.h"
#include "probe/probe.h"
#include "util.h"

#define FINISHED (100 + WEFT_SLOT_FINISH)

static struct tables *tables;

static void setup(void)
{
        enter_namespaces();
        tables = open_tables();
}

static void teardown(void)
{
        (void) tables_close(tables);
}

TestSuite(generation, .init = setup, .fini = teardown);

/* ---- slots: pure -------------------------------------------------------------------------- */

Test(chain, an_empty_chain_is_finished_at_once)
{
        cr_assert_eq(chain_first(NULL, 0, false), WEFT_SLOT_FINISH);
        cr_assert_eq(chain_first(NULL, 0, true), WEFT_SLOT_FINISH);
}

Test(chain, slots_skip_phases_that_are_done_and_what_known_flows_keep)
{
        static const struct stage s[] = {
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_SERVICE },
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_SERVICE },
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_ROUTE },
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_MASQUERADE },
        };
        struct chain_slots first = chain_slots(s, 4, 0), last = chain_slots(s, 4, 3);
        uint32_t base = WEFT_STAGE_SLOT(WEFT_TO_UPLINK, 0);

        cr_assert_eq(chain_first(s, 4, false), base);
        cr_assert_eq(chain_first(s, 4, true), base + 2);
        cr_assert_eq(first.own, base);
        cr_assert_eq(first.next, base + 1);
        cr_assert_eq(first.next_known, base + 2);
        cr_assert_eq(first.done, base + 2);
        cr_assert_eq(first.done_known, base + 2);
        cr_assert_eq(last.next, WEFT_SLOT_FINISH);
        cr_assert_eq(chain_slots(s, 4, 2).done, base + 3);
        cr_assert_eq(chain_slots(s, 4, 2).done_known, WEFT_SLOT_FINISH);
}

Test(chain, early_stages_lead_to_each_other_and_then_to_the_entry)
{
        static const struct stage s[] = {
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_EARLY },
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_EARLY },
                { .hook = WEFT_TO_UPLINK, .phase = WEFT_FILTER },
        };
        struct chain_slots first = chain_slots(s, 3, 0), second = chain_slots(s, 3, 1);
        uint32_t base = WEFT_STAGE_SLOT(WEFT_TO_UPLINK, 0), entry = WEFT_ENTRY_SLOT(WEFT_TO_UPLINK);

        cr_assert_eq(chain_early(s, 3), 2);
        cr_assert_eq(chain_early(s + 2, 1), 0);
        cr_assert_eq(first.own, base);
        cr_assert_eq(first.next, base + 1);
        cr_assert_eq(first.next_known, base + 1);
        cr_assert_eq(first.done, entry);
        cr_assert_eq(second.next, entry);
        cr_assert_eq(second.next_known, entry);
        cr_assert_eq(chain_first(s, 3, false), base + 2);
        cr_assert_eq(chain_first(s, 3, true), base + 2);
        cr_assert_eq(chain_first(s, 2, false), WEFT_SLOT_FINISH);
        cr_assert_lt(entry, WEFT_SLOTS);
        cr_assert_geq(entry, WEFT_STAGE_SLOT(WEFT_HOOKS, 0));
}

/* ---- running ------------------------------------------------------------------------------ */

Test(generation, without_modules_is_the_engine_alone)
{
        struct generation *g = build(tables, 1, NULL, 0);

        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, NULL), FINISHED);
        cr_assert_eq(generation_number(g), 1);
        cr_assert_geq(generation_hook_fd(g, WEFT_XDP_UPLINK), 0);
        cr_assert_eq(generation_hook_fd(g, WEFT_FROM_OVERLAY), -ENOENT);
        (void) generation_free(g);
}

Test(generation, stages_run_in_order_and_done_ends_their_phase)
{
        struct instance *const m[] = { make_instance("stages-b", 1), make_instance("stages-a", 2) };
        struct generation *g = build(tables, 1, m, 2);
        uint32_t mark;

        /* a_filter, a_service (DONE: not b_service), b_route, b_masquerade, a_deliver */
        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0x129a3, "%x", mark);

        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_TO_UPLINK), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0x1, "%x", mark);

        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_TO_ENDPOINT), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0, "%x", mark);
        (void) generation_free(g);
}

Test(generation, known_flows_run_without_service_and_masquerade)
{
        struct instance *const m[] = { make_instance("stages-b", 1), make_instance("stages-a", 2) };
        struct generation *g = build(tables, 1, m, 2);
        uint32_t mark;

        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 1, &mark), FINISHED);
        cr_assert_eq(mark, 0x193, "%x", mark);
        (void) generation_free(g);
}

Test(generation, early_stages_run_before_the_entry_and_done_ends_them)
{
        struct instance *const m[] = { make_instance("stages-early", 1),
                                       make_instance("stages-a", 2) };
        struct generation *g = build(tables, 1, m, 1);
        uint32_t mark;

        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0x12000000, "%x", mark);
        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_FROM_ENDPOINT), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0x01000000, "%x", mark);
        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_TO_UPLINK), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0, "%x", mark);
        (void) generation_free(g);

        /* before other modules' stages, whose digits push theirs out */
        g = build(tables, 2, m, 2);
        cr_assert_eq(run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, &mark), FINISHED);
        cr_assert_eq(mark, 0x00000123, "%x", mark);
        (void) generation_free(g);
}

Test(generation, an_early_stage_at_an_uplink_ends_replay_in_xdp)
{
        struct instance *const m[] = { make_instance("stages-a", 1),
                                       make_instance("stages-early", 2) };
        struct generation *without = build(tables, 1, m, 1), *with = build(tables, 2, m, 2);
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof(info);

        cr_assert(generation_replays_in_xdp(without));
        cr_assert(!generation_sees_all(without, WEFT_FROM_UPLINK));
        cr_assert(!generation_replays_in_xdp(with));
        cr_assert(generation_sees_all(with, WEFT_FROM_UPLINK));
        cr_assert(!generation_sees_all(with, WEFT_TO_ENDPOINT));
        cr_assert_eq(
                bpf_obj_get_info_by_fd(generation_hook_fd(with, WEFT_XDP_UPLINK), &info, &size), 0);
        cr_assert_str_eq(info.name, "weft_xdp_pass");
        (void) generation_free(without);
        (void) generation_free(with);
}

static uint32_t read_element(int map, uint32_t index)
{
        uint32_t value;

        cr_assert_eq(bpf_map_lookup_elem(map, &index, &value), 0);
        return value;
}

static int map_of(const struct instance *i, const char *name)
{
        cr_assert(i->object);
        return bpf_object__find_map_fd_by_name(i->object, name);
}

Test(generation, a_module_s_own_maps_are_one_for_all_its_stages)
{
        struct instance *a = make_instance("stages-a", 1);
        struct generation *g = build(tables, 1, &a, 1);

        (void) run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, NULL);
        (void) run_program(generation_hook_fd(g, WEFT_TO_UPLINK), 0, NULL);
        cr_assert_eq(read_element(map_of(a, "a_runs"), 0), 4);

        (void) generation_free(g);
        cr_assert_null(a->object, "the instance still points at what is gone");
}

Test(generation, every_generation_has_maps_of_its_own)
{
        struct instance *a = make_instance("stages-a", 1), *again = make_instance("stages-a", 1);
        struct generation *g = build(tables, 1, &a, 1), *h = build(tables, 2, &again, 1);

        (void) run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, NULL);
        cr_assert_eq(read_element(map_of(a, "a_runs"), 0), 3);
        cr_assert_eq(read_element(map_of(again, "a_runs"), 0), 0);
        (void) generation_free(g);
        (void) generation_free(h);
}

Test(generation, constants_come_from_options_and_from_the_module)
{
        static uint16_t port = 4242;
        static uint32_t secret = 99;
        static struct constant constants[] = { { (char *) "secret", &secret, sizeof(secret) } };
        static const struct weft_option options[] = {
                { .key = "digit-port", .type = WEFT_TYPE_U16 },
                { .key = "of-user-space-alone", .type = WEFT_TYPE_U32 },
                {},
        };
        struct instance *a = make_instance("stages-a", 7);
        struct generation *g;

        a->module->desc.options = options;
        a->config = (uint32_t[]) { port };
        a->constants = constants;
        a->n_constants = 1;

        g = build(tables, 1, &a, 1);
        (void) run_program(generation_hook_fd(g, WEFT_TO_UPLINK), 0, NULL);
        cr_assert_eq(read_element(map_of(a, "a_told"), 0), port);
        cr_assert_eq(read_element(map_of(a, "a_told"), 1), secret);
        cr_assert_eq(read_element(map_of(a, "a_told"), 2), 7);
        cr_assert_eq(read_element(map_of(a, "a_told"), 3), WEFT_TO_UPLINK);
        (void) generation_free(g);
}

/* Layout of the fake engine's report. */
struct seen {
        uint32_t generation, hz, mark, half_open;
        uint16_t host_low, host_high;
        uint8_t can_cast, track, takes_dsr, has_stages[WEFT_HOOKS], serves[WEFT_HOOKS];
};

static struct seen run_and_read(struct generation *g)
{
        uint32_t zero = 0;
        struct seen seen;

        (void) run_program(generation_hook_fd(g, WEFT_FROM_ENDPOINT), 0, NULL);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(tables, "seen"), &zero, &seen), 0);
        return seen;
}

Test(generation, the_engine_is_told_what_it_must_know)
{
        struct instance *const m[] = { make_instance("stages-a", 1), make_instance("stages-b", 2) };
        struct generation_settings s = make_settings(17);
        struct generation *g = NULL;
        struct seen seen;

        m[1]->module->desc.tracks_replies = 1;
        m[0]->given_out = (struct weft_ports) { 60000, 65535 };
        m[1]->given_out = (struct weft_ports) { 1000, 33000 };
        s.can_cast = true;
        s.host_ports_low = 32768;
        s.host_ports_high = 60999;
        cr_assert_eq(generation_build(tables, &s, m, 2, &g, NULL), 0);

        seen = run_and_read(g);
        cr_assert_eq(seen.generation, 17);
        cr_assert_eq(seen.hz, probe_hz());
        cr_assert_eq(seen.mark, 0x100);
        cr_assert_eq(seen.half_open, 1024 / 4 / libbpf_num_possible_cpus());
        cr_assert_eq(seen.host_low, 32768);
        cr_assert_eq(seen.host_high, 60999);
        cr_assert_eq(seen.can_cast, 1);
        cr_assert_eq(seen.track, 1);
        cr_assert_eq(seen.takes_dsr, 0);
        cr_assert_eq(seen.has_stages[WEFT_FROM_UPLINK], 1);
        cr_assert_eq(seen.has_stages[WEFT_FROM_ENDPOINT], 0);
        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                cr_assert_eq(seen.serves[hook], generation_serves(g, hook), "hook %u", hook);
        (void) generation_free(g);
}

Test(generation, ports_that_do_not_meet_the_node_s_are_not_contested)
{
        struct instance *a = make_instance("stages-a", 1);
        struct generation_settings s = make_settings(1);
        struct generation *g = NULL;
        struct seen seen;

        a->given_out = (struct weft_ports) { 61000, 65535 };
        s.host_ports_low = 32768;
        s.host_ports_high = 60999;
        cr_assert_eq(generation_build(tables, &s, &a, 1, &g, NULL), 0);

        seen = run_and_read(g);
        cr_assert_eq(seen.host_low, 0);
        cr_assert_eq(seen.host_high, 0);
        cr_assert_eq(seen.track, 0);
        (void) generation_free(g);
}

/* ---- looking ------------------------------------------------------------------------------ */

Test(generation, the_chain_can_be_shown)
{
        struct instance *const m[] = { make_instance("stages-a", 1), make_instance("stages-b", 2) };
        struct generation *g = build(tables, 1, m, 2);
        struct chain_row rows[32];
        size_t n = generation_chain(g, rows, ELEMENTS(rows)), i = 0;

        /* five entries of the engine, six stages at from-uplink and one at to-uplink */
        cr_assert_eq(n, 12);
        while (i < n && rows[i].hook != WEFT_FROM_UPLINK)
                i++;

        cr_assert_str_eq(rows[i].module, "engine");
        cr_assert_str_eq(rows[i].stage, "weft_from_uplink");
        cr_assert_eq(rows[i].phase, WEFT_PHASES);
        cr_assert_str_eq(rows[i + 1].stage, "a_filter");
        cr_assert_str_eq(rows[i + 3].module, "stages-b");
        cr_assert_eq(rows[i + 3].phase, WEFT_SERVICE);
        for (i = 0; i < n; i++)
                cr_assert_gt(rows[i].prog_id, 0);

        cr_assert_eq(generation_chain(g, rows, 3), 3);
        (void) generation_free(g);
}

Test(generation, the_chain_shows_early_stages_before_the_entry)
{
        struct instance *m = make_instance("stages-early", 1);
        struct generation *g = build(tables, 1, &m, 1);
        static const char *const want[] = { "weft_early_from_uplink", "e_1", "e_2",
                                            "weft_from_uplink" };
        struct chain_row rows[32];
        size_t n = generation_chain(g, rows, ELEMENTS(rows)), i = 0;

        while (i < n && rows[i].hook != WEFT_FROM_UPLINK)
                i++;
        cr_assert_leq(i + ELEMENTS(want), n);
        for (size_t k = 0; k < ELEMENTS(want); k++) {
                cr_assert_str_eq(rows[i + k].stage, want[k]);
                cr_assert_eq(rows[i + k].phase, k < 3 ? WEFT_EARLY : WEFT_PHASES);
                cr_assert_eq(rows[i + k].engine, k == 0 || k == 3);
        }
        for (i = 0; i < n; i++)
                cr_assert_neq(rows[i].hook, WEFT_XDP_UPLINK);
        (void) generation_free(g);
}

Test(generation, module_ids_have_names)
{
        struct instance *a = make_instance("stages-a", 3);
        struct generation *g = build(tables, 1, &a, 1);

        cr_assert_str_eq(generation_module_name(g, 0), "engine");
        cr_assert_str_eq(generation_module_name(g, 3), "stages-a");
        cr_assert_null(generation_module_name(g, 1));
        (void) generation_free(g);
}

/* ---- refusals ----------------------------------------------------------------------------- */

static void expect_refusal(struct instance *const *m, size_t n, int r, const char *const *texts)
{
        struct generation_settings s = make_settings(1);
        struct generation *g = NULL;
        struct weft_error why = { 0 };

        cr_assert_eq(generation_build(tables, &s, m, n, &g, &why), r, "%s", why.text);
        cr_assert_null(g);
        for (; *texts; texts++)
                cr_assert_not_null(strstr(why.text, *texts), "%s", why.text);
}

#define TEXTS(...)                                                                                 \
        (const char *const[])                                                                      \
        {                                                                                          \
                __VA_ARGS__, NULL                                                                  \
        }

Test(generation, the_verifier_s_last_words_are_handed_on)
{
        struct instance *m = make_instance("stages-refused", 1);

        expect_refusal(&m, 1, -EACCES,
                       TEXTS("module stages-refused, stage careless at from-uplink",
                             "invalid mem access 'map_value_or_null'"));
}

Test(generation, an_early_stage_of_older_headers_is_refused)
{
        struct instance *m = make_instance("stages-early-old", 1);

        expect_refusal(&m, 1, -EPROTO,
                       TEXTS("module stages-early-old, stage too_early",
                             "an early stage needs stage ABI 1.1 and it was built for 1.0",
                             "build the module with the headers of this weft"));
}

Test(generation, more_stages_than_there_are_slots_are_refused)
{
        struct instance room[10], *m[10];

        /* three stages at from-uplink each: the tenth does not fit */
        for (uint16_t i = 0; i < ELEMENTS(m); i++) {
                room[i] = i > 0 ? room[0] : *make_instance("stages-b", 1);
                room[i].id = i + 1;
                m[i] = &room[i];
        }

        expect_refusal(m, ELEMENTS(m), -E2BIG, TEXTS("from-uplink has 28 stages already"));
}

Test(generation, a_constant_the_object_does_not_have_is_named)
{
        static uint32_t value;
        static struct constant constants[] = { { (char *) "nothing", &value, sizeof(value) } };
        struct instance *m = make_instance("stages-b", 1);

        m->constants = constants;
        m->n_constants = 1;
        expect_refusal(&m, 1, -ENOENT, TEXTS("module stages-b", "no constant nothing of 4 bytes"));
}

/* ---- pins --------------------------------------------------------------------------------- */

Test(generation, goes_on_by_its_pin_when_the_daemon_is_gone)
{
        struct instance *a = make_instance("stages-a", 1);
        struct generation *g = build(tables, 5, &a, 1);
        int entry = dup(generation_hook_fd(g, WEFT_FROM_UPLINK));
        uint32_t mark;

        cr_assert_eq(generation_last(BPFFS), 0);
        cr_assert_eq(generation_pin(g, BPFFS, NULL), 0);
        (void) generation_free(g);

        cr_assert_eq(run_program(entry, 0, &mark), FINISHED);
        cr_assert_eq(mark, 0x123, "%x", mark);
        cr_assert_eq(generation_last(BPFFS), 5);

        generation_unpin_all(BPFFS);
        cr_assert_eq(generation_last(BPFFS), 0);
        (void) close(entry);
}

Test(generation, lets_go_of_its_predecessors)
{
        struct generation *g = build(tables, 9, NULL, 0), *h = build(tables, 10, NULL, 0);

        cr_assert_eq(generation_pin(g, BPFFS, NULL), 0);
        cr_assert_eq(generation_pin(h, BPFFS, NULL), 0);
        cr_assert_eq(generation_pin(h, BPFFS, NULL), -EEXIST);
        cr_assert_eq(generation_last(BPFFS), 10);

        generation_unpin_others(h, BPFFS);
        cr_assert_eq(access(BPFFS "/chain-9", F_OK), -1);
        cr_assert_eq(access(BPFFS "/chain-10", F_OK), 0);
        (void) generation_free(g);
        (void) generation_free(h);
}

Test(generation, a_grace_period_ends)
{
        grace_period();
}
