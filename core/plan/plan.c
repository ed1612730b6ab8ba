/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which modules run: choose where nothing is named; collect what is named and what that brings in,
 * needs first; switch off what lacks something until nothing changes; look for two that exclude
 * each other. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "plan/plan.h"

struct plan {
        const struct plan_input *input;
        struct plan_row *rows; /* in order of completion: needs come first */
        size_t n;
};

static const char *const kind_names[] = {
        [WEFT_NEED_MODULE] = "module",
        [WEFT_NEED_ROLE] = "a module for the role",
        [WEFT_NEED_HELPER] = "the kernel's eBPF helper",
        [WEFT_NEED_FEATURE] = "the kernel's feature",
        [WEFT_NEED_LINK_KIND] = "network devices of kind",
        [WEFT_NEED_HOST] = "the host to be",
};

#define EACH_NEED(need, m) (const struct weft_need *need = (m)->needs; need && need->kind; need++)

static bool same(const char *a, const char *b)
{
        return a && b && strcmp(a, b) == 0;
}

static bool lists(const char *const *list, const char *name)
{
        for (; list && *list; list++)
                if (same(*list, name))
                        return true;

        return false;
}

static bool fills_role(const struct weft_module *m, const char *role)
{
        return lists(m->provides, role) || same(m->exclusive, role);
}

static const struct weft_module *find_available(const struct plan_input *input, const char *name)
{
        for (size_t i = 0; i < input->n_available; i++)
                if (same(input->available[i]->name, name))
                        return input->available[i];

        return NULL;
}

static struct plan_row *find_row(const struct plan *p, const struct weft_module *m)
{
        for (size_t i = 0; i < p->n; i++)
                if (p->rows[i].module == m)
                        return &p->rows[i];

        return NULL;
}

static void __attribute__((format(printf, 2, 3)))
explain(struct plan_row *row, const char *format, ...)
{
        size_t n = strlen(row->reason);
        va_list ap;

        if (n > 0 && n < sizeof(row->reason))
                n += (size_t) snprintf(row->reason + n, sizeof(row->reason) - n, "; ");
        if (n >= sizeof(row->reason))
                return;

        va_start(ap, format);
        (void) vsnprintf(row->reason + n, sizeof(row->reason) - n, format, ap);
        va_end(ap);
}

/* ---- collecting --------------------------------------------------------------------------- */

/* A chain of modules being added, from the newest back: modules may need each other. */
struct adding {
        const struct weft_module *module;
        const struct adding *by;
};

static bool is_adding(const struct adding *a, const struct weft_module *m)
{
        for (; a; a = a->by)
                if (a->module == m)
                        return true;

        return false;
}

static bool is_named(const struct plan_input *input, const struct weft_module *m)
{
        for (size_t i = 0; i < input->n_named; i++)
                if (input->named[i] == m)
                        return true;

        return false;
}

static void add(struct plan *p, const struct weft_module *m, const struct adding *by);

/* What a need puts before the module: the module it names, or the named ones that fill its role. */
static void add_need(struct plan *p, const struct weft_need *need, const struct adding *by)
{
        const struct plan_input *in = p->input;

        for (size_t i = 0; i < in->n_available; i++) {
                const struct weft_module *m = in->available[i];
                bool wanted = is_named(in, m);

                if (need->kind == WEFT_NEED_MODULE && same(m->name, need->name) &&
                    (wanted || !need->soft))
                        add(p, m, by);
                else if (need->kind == WEFT_NEED_ROLE && fills_role(m, need->name) && wanted)
                        add(p, m, by);
        }
}

static void add(struct plan *p, const struct weft_module *m, const struct adding *by)
{
        const struct adding self = { .module = m, .by = by };
        struct plan_row *row;

        if (find_row(p, m) || is_adding(by, m))
                return;

        for
                EACH_NEED(need, m)
        add_need(p, need, &self);

        row = &p->rows[p->n++];
        *row = (struct plan_row) { .module = m, .on = true };
        if (by && !is_named(p->input, m))
                explain(row, "brought in by %s", by->module->name);
        else if (p->input->choose)
                explain(row, "chosen for %s", m->role);
}

/* ---- judging ------------------------------------------------------------------------------ */

static const struct fact *find_fact(const struct plan_input *input, const struct weft_need *need)
{
        for (size_t i = 0; i < input->n_facts; i++)
                if (input->facts[i].kind == need->kind && same(input->facts[i].name, need->name))
                        return &input->facts[i];

        return NULL;
}

static bool fact_present(const struct plan_input *input, const struct weft_need *need)
{
        const struct fact *f = find_fact(input, need);

        return f && f->present;
}

static int check_role(const struct plan *p, const struct weft_module *by, const char *role)
{
        int r = -ENOENT;

        for (size_t i = 0; i < p->n; i++) {
                const struct plan_row *row = &p->rows[i];

                if (row->module == by || !fills_role(row->module, role))
                        continue;
                if (row->on)
                        return 0;
                r = row->error;
        }

        return r;
}

/* 0: met; -ENOENT: a module or role is not there at all; -EBUSY: something of the host stands in
 * the way; -EOPNOTSUPP: the kernel lacks it, or what was there is off for such a reason. */
static int check_need(const struct plan *p, const struct weft_module *by,
                      const struct weft_need *need)
{
        const struct weft_module *m;
        const struct plan_row *row;

        switch (need->kind) {
        case WEFT_NEED_MODULE:
                m = find_available(p->input, need->name);
                row = m ? find_row(p, m) : NULL;
                return !row ? -ENOENT : row->on ? 0 : row->error;
        case WEFT_NEED_ROLE:
                return check_role(p, by, need->name);
        case WEFT_NEED_HOST:
                return fact_present(p->input, need) ? 0 : -EBUSY;
        default:
                return fact_present(p->input, need) ? 0 : -EOPNOTSUPP;
        }
}

static const char *kind_name(const struct weft_need *need)
{
        size_t n = sizeof(kind_names) / sizeof(kind_names[0]);

        return need->kind < n ? kind_names[need->kind] : "something newer than this weftd:";
}

static void explain_need(const struct plan *p, struct plan_row *row, const char *verb,
                         const struct weft_need *need)
{
        const struct fact *f = find_fact(p->input, need);

        explain(row, "%s %s %s (%s)%s%s", verb, kind_name(need), need->name,
                need->why ? need->why : "", f && f->detail ? ": " : "",
                f && f->detail ? f->detail : "");
}

static const char *why_barred(const struct plan_input *input, const struct weft_module *m)
{
        for (size_t i = 0; input->barred && i < input->n_available; i++)
                if (input->available[i] == m)
                        return input->barred[i];

        return NULL;
}

static bool judge_barred(const struct plan *p, struct plan_row *row)
{
        const char *why = why_barred(p->input, row->module);

        if (!why)
                return false;

        row->on = false;
        row->error = -ECANCELED;
        row->reason[0] = '\0';
        explain(row, "%s", why);
        return true;
}

/* True where the row changed. */
static bool judge(const struct plan *p, struct plan_row *row)
{
        if (judge_barred(p, row))
                return true;

        for
                EACH_NEED(need, row->module)
                {
                        int r = need->soft ? 0 : check_need(p, row->module, need);

                        if (r == 0)
                                continue;

                        row->on = false;
                        row->error = r;
                        row->reason[0] = '\0';
                        explain_need(p, row, "needs", need);
                        return true;
                }

        return false;
}

static void explain_wants(const struct plan *p, struct plan_row *row)
{
        for
                EACH_NEED(need, row->module)
        if (need->soft && check_need(p, row->module, need) < 0)
                explain_need(p, row, "without", need);
}

static void judge_all(const struct plan *p)
{
        for (bool changed = true; changed;) {
                changed = false;
                for (size_t i = 0; i < p->n; i++)
                        changed |= p->rows[i].on && judge(p, &p->rows[i]);
        }

        for (size_t i = 0; i < p->n; i++)
                if (p->rows[i].on)
                        explain_wants(p, &p->rows[i]);
}

/* ---- refusing ----------------------------------------------------------------------------- */

static bool needs_module(const struct weft_module *m, const char *name)
{
        for
                EACH_NEED(need, m)
        if (need->kind == WEFT_NEED_MODULE && same(need->name, name))
                return true;

        return false;
}

/* Does a module that runs divide the role between the two? */
static bool is_divided(const struct plan *p, const char *role, const struct weft_module *a,
                       const struct weft_module *b)
{
        for (size_t i = 0; i < p->n; i++) {
                const struct weft_module *m = p->rows[i].module;

                if (p->rows[i].on && same(m->divides, role) && needs_module(m, a->name) &&
                    needs_module(m, b->name))
                        return true;
        }

        return false;
}

/* Is it said peer by peer which of the two does it? */
static bool is_shared(const struct plan *p, const char *role, const struct weft_module *a,
                      const struct weft_module *b)
{
        return p->input->by_peer && same(role, "routing") &&
               fills_role(a, "tunnel") != fills_role(b, "tunnel");
}

static int refuse_role(const struct plan *p, const char *role, const struct weft_module *a,
                       const struct weft_module *b, struct weft_error *reterr)
{
        const char *remedy = a->remedy ?: b->remedy;

        if (!role || !fills_role(a, role) || !fills_role(b, role) || is_divided(p, role, a, b) ||
            is_shared(p, role, a, b))
                return 0;

        return weft_fail(reterr, -EEXIST, "modules %s and %s both do %s; take one away%s%s",
                         a->name, b->name, role, remedy ? ", or " : "", remedy ?: "");
}

static int refuse_pair(const struct plan *p, const struct weft_module *a,
                       const struct weft_module *b, struct weft_error *reterr)
{
        int r;

        if (lists(a->conflicts, b->name) || lists(b->conflicts, a->name))
                return weft_fail(reterr, -EEXIST,
                                 "modules %s and %s cannot run together; take one away", a->name,
                                 b->name);

        r = refuse_role(p, a->exclusive, a, b, reterr);
        return r < 0 ? r : refuse_role(p, b->exclusive, a, b, reterr);
}

static int refuse_pairs(const struct plan *p, struct weft_error *reterr)
{
        for (size_t i = 0; i < p->n; i++)
                for (size_t j = 0; j < i; j++) {
                        int r = 0;

                        if (p->rows[i].on && p->rows[j].on)
                                r = refuse_pair(p, p->rows[j].module, p->rows[i].module, reterr);
                        if (r < 0)
                                return r;
                }

        return 0;
}

static int refuse_off(const struct plan *p, struct weft_error *reterr)
{
        uint32_t mode = p->input->mode;

        for (size_t i = 0; i < p->n; i++) {
                const struct plan_row *row = &p->rows[i];

                if (row->on || row->error == -ECANCELED || p->input->survey ||
                    (mode == MODE_PROBE && row->error != -ENOENT))
                        continue;
                /* nobody asked for it: no reason to stand still */
                if (mode == MODE_PROBE && p->input->choose)
                        continue;
                return weft_fail(reterr, row->error, "module %s %s", row->module->name,
                                 row->reason);
        }

        return 0;
}

/* ---- choosing ----------------------------------------------------------------------------- */

/* Would it run, as far as the kernel and the modules that are there go? */
static bool could_run(const struct plan_input *in, const struct weft_module *m)
{
        for
                EACH_NEED(need, m)
                {
                        bool met = true;

                        if (need->kind == WEFT_NEED_MODULE)
                                met = find_available(in, need->name);
                        else if (need->kind != WEFT_NEED_ROLE)
                                met = fact_present(in, need);
                        if (!met && !need->soft)
                                return false;
                }

        return true;
}

static bool is_candidate(const struct plan_input *in, const struct weft_module *m)
{
        if (!m->role || (m->condition != WEFT_ALWAYS && !(in->conditions >> m->condition & 1)))
                return false;

        return in->mode == MODE_STRICT || could_run(in, m);
}

static bool is_better(const struct weft_module *a, const struct weft_module *b)
{
        return a->rank != b->rank ? a->rank > b->rank : strcmp(a->name, b->name) < 0;
}

static bool is_chosen(const struct plan_input *in, const struct weft_module *m)
{
        if (!is_candidate(in, m))
                return false;

        for (size_t i = 0; i < in->n_available; i++) {
                const struct weft_module *other = in->available[i];

                if (other != m && same(other->role, m->role) && is_candidate(in, other) &&
                    is_better(other, m))
                        return false;
        }

        return true;
}

static size_t choose(const struct plan_input *in, const struct weft_module **ret)
{
        size_t n = 0;

        for (size_t i = 0; in->choose && in->mode != MODE_PARTIAL && i < in->n_available; i++)
                if (is_chosen(in, in->available[i]))
                        ret[n++] = in->available[i];

        return n;
}

static int plan_named(const struct plan_input *input, struct plan_row *rows, size_t *ret_n,
                      struct weft_error *reterr)
{
        struct plan p = { .input = input, .rows = rows };
        int r;

        for (size_t i = 0; i < input->n_named; i++)
                add(&p, input->named[i], NULL);

        judge_all(&p);
        r = refuse_off(&p, reterr);
        if (r >= 0)
                r = refuse_pairs(&p, reterr);
        if (r < 0)
                return r;

        *ret_n = p.n;
        return 0;
}

int plan_modules(const struct plan_input *input, struct plan_row *rows, size_t *ret_n,
                 struct weft_error *reterr)
{
        const struct weft_module *chosen[input->n_available + 1];
        struct plan_input effective = *input;

        if (input->choose) {
                effective.named = chosen;
                effective.n_named = choose(input, chosen);
        }

        return plan_named(&effective, rows, ret_n, reterr);
}
