/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <linux/bpf.h>
#include <string.h>
#include <time.h>

#include "net/net.h"
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
        { "fib-lookup-src", try_fib_lookup_src },
        { "decap-protocol", try_decap_protocol },
        { "nftables", net_has_nftables },
};

static const char *const link_kinds[] = { "veth", "netkit", "vxlan", "geneve" };

static const struct {
        const char *name;
        enum nat_kind breaks; /* the rules of others that end it */
} host_facts[] = {
        { "masquerade-free", NAT_SOURCE },
        { "redirect-free", NAT_DESTINATION },
};

#define HOST_FACTS ELEMENTS(host_facts)
#define KERNEL_FACTS (ELEMENTS(helpers) + ELEMENTS(features) + ELEMENTS(link_kinds))
#define FACTS (KERNEL_FACTS + HOST_FACTS)

static const struct weft_prefix *pods;
static size_t n_pods;
static char details[HOST_FACTS][128];
static struct fact facts[FACTS];
static bool tried[FACTS];

static struct fact describe(size_t i)
{
        if (i < ELEMENTS(helpers))
                return (struct fact) { .kind = WEFT_NEED_HELPER, .name = helpers[i] };

        i -= ELEMENTS(helpers);
        if (i < ELEMENTS(features))
                return (struct fact) { .kind = WEFT_NEED_FEATURE, .name = features[i].name };

        i -= ELEMENTS(features);
        if (i < ELEMENTS(link_kinds))
                return (struct fact) { .kind = WEFT_NEED_LINK_KIND, .name = link_kinds[i] };

        i -= ELEMENTS(link_kinds);
        return (struct fact) {
                .kind = WEFT_NEED_HOST,
                .name = host_facts[i].name,
                .detail = details[i][0] ? details[i] : NULL,
        };
}

/* What cannot be told stands in nobody's way. */
static bool try_host(size_t i)
{
        details[i][0] = '\0';
        return nat_of_others(host_facts[i].breaks, pods, n_pods, details[i], sizeof(details[i])) <=
               0;
}

static bool try(size_t i)
{
        if (i < ELEMENTS(helpers))
                return try_helper((int) i);

        i -= ELEMENTS(helpers);
        if (i < ELEMENTS(features))
                return features[i].try();

        i -= ELEMENTS(features);
        if (i < ELEMENTS(link_kinds))
                return try_link_kind(link_kinds[i]);

        return try_host(i - ELEMENTS(link_kinds));
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
                bool present = try(i);

                facts[i] = describe(i);
                facts[i].present = present && !is_denied(facts[i].name);
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

void probe_host(const struct weft_prefix *prefixes, size_t n)
{
        pods = prefixes;
        n_pods = n;
        for (size_t i = KERNEL_FACTS; i < FACTS; i++) {
                tried[i] = false;
                (void) fact(i);
        }
        /* the caller's */
        pods = NULL;
        n_pods = 0;
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
