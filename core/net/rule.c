/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <linux/fib_rules.h>
#include <string.h>

#include "net/rtnl.h"

/* "iif lo" is how a rule says that it is for what the host itself sends. */
static bool is_for_forwarded(struct nlattr **a)
{
        return !a[FRA_IIFNAME] || strcmp(nla_data(a[FRA_IIFNAME]), "lo") != 0;
}

static void on_rule(void *data, const struct nlmsghdr *h)
{
        const struct fib_rule_hdr *rule = nlmsg_data(h);
        struct nlattr *a[FRA_MAX + 1];
        unsigned *families = data;

        if (h->nlmsg_type != RTM_NEWRULE)
                return;

        rtnl_parse(h, sizeof(*rule), a, FRA_MAX);
        if (a[FRA_FWMARK] && is_for_forwarded(a))
                *families |= rule->family == AF_INET ? 1 : rule->family == AF_INET6 ? 2 : 0;
}

unsigned net_mark_rules(struct net *n)
{
        struct fib_rule_hdr head = { 0 };
        unsigned families = 0;

        (void) rtnl_ask(net_socket(n), rtnl_new(RTM_GETRULE, NLM_F_DUMP, &head, sizeof(head)),
                        on_rule, &families, NULL);

        return families;
}
