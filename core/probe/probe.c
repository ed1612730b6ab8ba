/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <linux/bpf.h>
#include <string.h>
#include <time.h>

#include "probe/probe.h"
#include "probe/trials.h"
#include "util.h"

#define HELPER_NAME(name) #name

static const char *const helpers[] = { __BPF_FUNC_MAPPER(HELPER_NAME) };

static const struct {
        const char *name;
        bool (*try)(void);
} features[] = {
        { "tcx", try_tcx },
        { "redirect-peer", try_redirect_peer },
        { "cast-to-kern-ctx", try_cast_to_kern_ctx },
        { "link-update", try_link_update },
};

static const char *const link_kinds[] = { "veth", "netkit", "vxlan", "geneve" };

#define FACTS (ELEMENTS(helpers) + ELEMENTS(features) + ELEMENTS(link_kinds))

static struct fact facts[FACTS];
static bool tried[FACTS];

static struct fact describe(size_t i)
{
        if (i < ELEMENTS(helpers))
                return (struct fact) { .kind = WEFT_NEED_HELPER, .name = helpers[i] };

        i -= ELEMENTS(helpers);
        if (i < ELEMENTS(features))
                return (struct fact) { .kind = WEFT_NEED_FEATURE, .name = features[i].name };

        return (struct fact) { .kind = WEFT_NEED_LINK_KIND,
                               .name = link_kinds[i - ELEMENTS(features)] };
}

static bool try(size_t i)
{
        if (i < ELEMENTS(helpers))
                return try_helper((int) i);

        i -= ELEMENTS(helpers);
        if (i < ELEMENTS(features))
                return features[i].try();

        return try_link_kind(link_kinds[i - ELEMENTS(features)]);
}

/* Is "no-NAME" among the words of WEFTD_DEBUG_FACTS? */
static bool is_denied(const char *name)
{
        const char *word = getenv("WEFTD_DEBUG_FACTS");
        size_t n = strlen(name);

        while (word && *word) {
                size_t length = strcspn(word, " ");

                if (length == n + 3 && strncmp(word, "no-", 3) == 0 &&
                    strncmp(word + 3, name, n) == 0)
                        return true;
                word += length + strspn(word + length, " ");
        }

        return false;
}

static const struct fact *fact(size_t i)
{
        if (!tried[i]) {
                facts[i] = describe(i);
                facts[i].present = !is_denied(facts[i].name) && try(i);
                tried[i] = true;
        }

        return &facts[i];
}

const struct fact *probe_facts(size_t *ret_n)
{
        for (size_t i = 0; i < FACTS; i++)
                (void) fact(i);

        *ret_n = FACTS;
        return facts;
}

bool probe_has(enum weft_need_kind kind, const char *name)
{
        for (size_t i = 0; i < FACTS; i++) {
                struct fact f = describe(i);

                if (f.kind == kind && strcmp(f.name, name) == 0)
                        return fact(i)->present;
        }

        return false;
}

/* The coarse clocks move by the tick: their resolution is one jiffy (time/time.c: LOW_RES_NSEC is
 * TICK_NSEC), and the kernel says it to anybody. */
uint32_t probe_hz(void)
{
        struct timespec tick = { 0 };

        if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) < 0 || tick.tv_nsec <= 0)
                return 0;

        return (uint32_t) ((1000000000 + tick.tv_nsec / 2) / tick.tv_nsec);
}
