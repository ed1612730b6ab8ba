/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tables of weft's own in the host's nftables. Their names begin with "weft-", and each is replaced
 * as a whole: the kernel takes the commands of one call as one transaction. */

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>
#include <string.h>

#include <netlink/msg.h>
#include <netlink/socket.h>

#include "net/hold.h"
#include "net/nft.h"

static void ctx_freep(struct nft_ctx **c)
{
        if (*c)
                nft_ctx_free(*c);
}

static void socket_freep(struct nl_sock **s)
{
        nl_socket_free(*s);
}

/* Asked before libnftables is, which ends the process where the kernel has no such socket. */
static bool is_there(void)
{
        _cleanup_(socket_freep) struct nl_sock *s = nl_socket_alloc();
        struct nfgenmsg m = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0 };

        if (!s || nl_connect(s, NETLINK_NETFILTER) < 0 ||
            nl_send_simple(s, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0, &m, sizeof(m)) < 0)
                return false;

        nl_socket_disable_seq_check(s);
        nl_socket_disable_auto_ack(s);
        return nl_recvmsgs_default(s) >= 0;
}

static int fail(struct nft_ctx *c, struct weft_error *reterr)
{
        const char *why = nft_ctx_get_error_buffer(c);

        return weft_fail(reterr, -EINVAL, "nftables: %.*s", (int) strcspn(why, "\n"), why);
}

/* dry: the kernel is asked, and changes nothing. */
static int run(const char *commands, bool dry, bool json, char **ret, struct weft_error *reterr)
{
        _cleanup_(ctx_freep) struct nft_ctx *c = NULL;

        if (!is_there())
                return weft_fail(reterr, -EOPNOTSUPP, "this kernel has no nftables");

        c = nft_ctx_new(NFT_CTX_DEFAULT);
        if (!c || nft_ctx_buffer_error(c) || nft_ctx_buffer_output(c))
                return weft_fail(reterr, -ENOMEM, "out of memory");
        nft_ctx_set_dry_run(c, dry);
        nft_ctx_output_set_flags(c, NFT_CTX_OUTPUT_STATELESS | (json ? NFT_CTX_OUTPUT_JSON : 0));

        if (nft_run_cmd_from_buffer(c, commands))
                return fail(c, reterr);
        if (!ret)
                return 0;

        *ret = strdup(nft_ctx_get_output_buffer(c));
        return *ret ? 0 : weft_fail(reterr, -ENOMEM, "out of memory");
}

int nft_run(const char *commands, bool json, char **ret, struct weft_error *reterr)
{
        return run(commands, false, json, ret, reterr);
}

bool net_has_nftables(void)
{
        static const char table[] = "table inet weft-probe { chain c { type filter hook prerouting "
                                    "priority raw; counter; }; }";

        return run(table, true, false, NULL, NULL) >= 0;
}

/* ---- tables that are held ----------------------------------------------------------------- */

struct table_hold *table_find(struct host *h, const char *name)
{
        for (size_t i = 0; i < h->n_tables; i++)
                if (strcmp(h->tables[i].name, name) == 0)
                        return &h->tables[i];

        return NULL;
}

struct table_hold *table_hold_add(struct host *h, const char *name)
{
        char *copy = strdup(name);

        if (!copy || list_grow(&h->tables, h->n_tables, sizeof(*h->tables)) < 0) {
                free(copy);
                return NULL;
        }

        h->tables[h->n_tables] = (struct table_hold) { .name = copy };
        return &h->tables[h->n_tables++];
}

void table_release(struct table_hold *t)
{
        while (t->n > 0)
                free(t->bodies[--t->n]);
}

void table_hold_done(struct table_hold *t)
{
        table_release(t);
        free(t->bodies);
        free(t->name);
}

/* The newest body that is held becomes the table's; none: the table goes. */
static int put_in_force(const struct table_hold *t, struct weft_error *reterr)
{
        _cleanup_free_ char *commands = NULL, *body = NULL;

        /* Adding it first makes deleting it right whether it was there or not. */
        if (t->n > 0 &&
            asprintf(&body, "table inet %s {\n%s\n}\n", t->name, t->bodies[t->n - 1]) < 0)
                return TAKE(body), weft_fail(reterr, -ENOMEM, "out of memory");
        if (asprintf(&commands, "add table inet %s\ndelete table inet %s\n%s", t->name, t->name,
                     body ?: "") < 0)
                return TAKE(commands), weft_fail(reterr, -ENOMEM, "out of memory");

        return nft_run(commands, false, NULL, reterr);
}

void table_undo(struct host *h, struct table_hold *t)
{
        struct weft_error why;

        if (put_in_force(t, &why) >= 0)
                (void) record_add(h, NULL, "table-undone\t%s", t->name);
        table_hold_done(t);
        *t = h->tables[--h->n_tables];
        record_trim(h);
}

static bool is_in_force(const struct table_hold *t)
{
        char command[128];

        (void) snprintf(command, sizeof(command), "list table inet %s", t->name);
        return nft_run(command, false, NULL, NULL) >= 0;
}

/* nft flush ruleset, with which firewalls begin to load their rules, takes weft's tables too. */
void tables_again(struct host *h, void (*f)(void *data, const char *what), void *data)
{
        for (size_t i = 0; i < h->n_tables; i++) {
                struct table_hold *t = &h->tables[i];
                char what[128];

                if (t->n == 0 || is_in_force(t) || put_in_force(t, NULL) < 0 || !f)
                        continue;
                (void) snprintf(what, sizeof(what), "table inet %s of nftables", t->name);
                f(data, what);
        }
}

int host_table(struct host *h, const char *name, const char *body, struct weft_error *reterr)
{
        struct table_hold *t = table_find(h, name);
        bool known = t;
        int r = 0;

        if (!t) {
                t = table_hold_add(h, name);
                r = t ? record_add(h, reterr, "table\t%s", name)
                      : weft_fail(reterr, -ENOMEM, "out of memory");
        }
        if (r < 0)
                return r;

        if (list_grow(&t->bodies, t->n, sizeof(*t->bodies)) < 0 ||
            !(t->bodies[t->n] = strdup(body)))
                return weft_fail(reterr, -ENOMEM, "out of memory");
        t->n++;

        r = put_in_force(t, reterr);
        if (r >= 0)
                return 0;

        free(t->bodies[--t->n]);
        if (!known)
                table_undo(h, t);
        return weft_fail_in(reterr, r, "table inet %s", name);
}

void host_untable(struct host *h, const char *name, const char *body)
{
        struct table_hold *t = table_find(h, name);
        size_t i = t ? t->n : 0;
        struct weft_error why;

        while (i > 0 && strcmp(t->bodies[i - 1], body) != 0)
                i--;
        if (i == 0)
                return;

        free(t->bodies[i - 1]);
        memmove(&t->bodies[i - 1], &t->bodies[i], (t->n - i) * sizeof(*t->bodies));
        t->n--;
        if (t->n == 0)
                table_undo(h, t);
        else if (i > t->n)
                (void) put_in_force(t, &why);
}
