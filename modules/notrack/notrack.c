/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Keeps pod traffic out of the host's conntrack where it still crosses the host's stack: one table
 * of nftables, before conntrack in both directions in which the host sees packets first. All of it
 * is that table; there are no stages. */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weft/module.h>

struct notrack_config {
        struct weft_prefixes cidr;
};

static const struct weft_option options[] = {
        WEFT_OPT_PREFIXES(struct notrack_config, cidr, "cidr", "",
                          "Pod addresses whose packets conntrack is not shown, coming or going; "
                          "empty: the cidr of native-routing."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(MODULE, "native-routing", "pod traffic crosses the host as it is"),
        WEFT_NEEDS(FEATURE, "nftables", "holds the rules (CONFIG_NF_TABLES_INET, CONFIG_NFT_CT)"),
        WEFT_NEEDS(HOST, "masquerade-free",
                   "masquerading of pods in netfilter needs conntrack: load bpf-masq and take that "
                   "rule away, or take [module notrack] away"),
        WEFT_NEEDS(HOST, "redirect-free",
                   "services in netfilter need conntrack: let weft serve them and take that rule "
                   "away, or take [module notrack] away"),
        {}
};

/* ---- the table ---------------------------------------------------------------------------- */

/* What tells the families apart in nft's words. */
static const struct family {
        int af;
        const char *set, *type, *header;
} families[] = {
        { AF_INET, "native4", "ipv4_addr", "ip" },
        { AF_INET6, "native6", "ipv6_addr", "ip6" },
};

#define FAMILIES (sizeof(families) / sizeof(families[0]))

/* The elements of one family's set, as nft writes them. */
struct elements {
        FILE *f;
        int af;
        size_t n;
};

static bool is_ipv4(const struct weft_prefix *p)
{
        return p->len >= 96 && p->addr.w[0] == 0 && p->addr.w[1] == 0 &&
               p->addr.w[2] == htonl(0xffff);
}

static void add_element(void *data, const struct weft_prefix *p)
{
        struct elements *e = data;
        char text[INET6_ADDRSTRLEN];
        bool ipv4 = is_ipv4(p);

        if (ipv4 != (e->af == AF_INET))
                return;

        (void) inet_ntop(e->af, ipv4 ? &p->addr.w[3] : p->addr.w, text, sizeof(text));
        (void) fprintf(e->f, "%s%s/%u", e->n++ > 0 ? ", " : " elements = { ", text,
                       p->len - (ipv4 ? 96 : 0));
}

static void each_prefix(struct weft_instance *self, const struct weft_api *api,
                        void (*f)(void *, const struct weft_prefix *), void *data)
{
        const struct notrack_config *config = api->config(self);

        for (size_t i = 0; i < config->cidr.n; i++)
                f(data, &config->cidr.items[i]);
        if (config->cidr.n == 0)
                api->native_prefixes(self, f, data);
}

/* Has it any prefix? */
static bool write_set(struct weft_instance *self, const struct weft_api *api,
                      const struct family *family, FILE *f)
{
        struct elements e = { .f = f, .af = family->af };

        (void) fprintf(f, "set %s { type %s; flags interval; auto-merge;", family->set,
                       family->type);
        each_prefix(self, api, add_element, &e);
        (void) fprintf(f, "%s }\n", e.n > 0 ? " }" : "");

        return e.n > 0;
}

static void write_chain(const char *hook, const bool has[FAMILIES], FILE *f)
{
        (void) fprintf(f, "chain %s { type filter hook %s priority raw; policy accept;\n", hook,
                       hook);
        for (size_t i = 0; i < FAMILIES; i++)
                if (has[i])
                        (void) fprintf(f,
                                       "%s saddr @%s counter notrack\n"
                                       "%s daddr @%s counter notrack\n",
                                       families[i].header, families[i].set, families[i].header,
                                       families[i].set);
        (void) fprintf(f, "}\n");
}

static void write_table(struct weft_instance *self, const struct weft_api *api, FILE *f)
{
        bool has[FAMILIES];

        for (size_t i = 0; i < FAMILIES; i++)
                has[i] = write_set(self, api, &families[i], f);
        write_chain("prerouting", has, f);
        write_chain("output", has, f);
}

static int notrack_attach(struct weft_instance *self, const struct weft_api *api,
                          struct weft_error *reterr)
{
        char *body = NULL;
        size_t size;
        FILE *f = open_memstream(&body, &size);
        int r = -ENOMEM;

        if (f) {
                write_table(self, api, f);
                r = fclose(f) == 0 ? 0 : -ENOMEM;
        }
        r = r < 0 ? api->fail(reterr, r, "out of memory") : api->nft_table(self, body, reterr);
        free(body);

        return r;
}

/* ---- what it must not begin with ---------------------------------------------------------- */

static void count_prefix(void *data, const struct weft_prefix *p)
{
        size_t *n = data;

        (void) p;
        (*n)++;
}

static int notrack_load(struct weft_instance *self, const struct weft_api *api,
                        struct weft_error *reterr)
{
        size_t n = 0;

        each_prefix(self, api, count_prefix, &n);

        return n > 0 ? 0
                     : api->fail(reterr, -EINVAL,
                                 "no prefix to keep from conntrack is given: set cidr in [module "
                                 "native-routing] or in [module notrack], or take [module notrack] "
                                 "away");
}

static void notrack_status(struct weft_instance *self, const struct weft_api *api, char *buf,
                           size_t size)
{
        size_t n = 0;

        each_prefix(self, api, count_prefix, &n);
        (void) snprintf(buf, size, "%zu prefix%s not tracked", n, n == 1 ? "" : "es");
}

WEFT_MODULE(.name = "notrack", .summary = "Keeps pod traffic out of the host's conntrack",
            .needs = needs, .options = options, .config_size = sizeof(struct notrack_config),
            .load = notrack_load, .attach = notrack_attach, .status = notrack_status, );
