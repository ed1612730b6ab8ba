/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* States of backends that were set at run time. They lie over what the services' sections say,
 * whoever wrote those, and are kept in STATE/backends, a line "SERVICE ADDRESS:PORT STATE" each. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

static const char *const names[] = { "active", "draining", "maintenance", NULL };

static struct state_setting *find(const struct daemon *d, const struct config_service *s,
                                  const struct config_backend *b)
{
        for (size_t i = 0; i < d->n_states; i++) {
                struct state_setting *set = &d->states[i];

                if (set->port == b->port && address_equal(&set->addr, &b->addr) &&
                    strcmp(set->service, s->name) == 0)
                        return set;
        }

        return NULL;
}

bool daemon_state_is_set(const struct daemon *d, const struct config_service *s,
                         const struct config_backend *b)
{
        return find(d, s, b);
}

static int add(struct daemon *d, const char *service, const struct weft_addr *addr, uint16_t port,
               uint32_t state)
{
        struct state_setting set = { strdup(service), *addr, port, state };

        if (!set.service || list_grow(&d->states, d->n_states, sizeof(set)) < 0) {
                free(set.service);
                return -ENOMEM;
        }

        d->states[d->n_states++] = set;
        return 0;
}

static void drop(struct daemon *d, struct state_setting *set)
{
        free(set->service);
        *set = d->states[--d->n_states];
}

void daemon_states_free(struct daemon *d)
{
        while (d->n_states > 0)
                drop(d, d->states);
        free(d->states);
        d->states = NULL;
}

/* ---- the file ----------------------------------------------------------------------------- */

static char *path_of(const struct daemon *d)
{
        char *path;

        return asprintf(&path, "%s/backends", d->paths.state) < 0 ? NULL : path;
}

static int take_line(struct daemon *d, char *line)
{
        char *place, *state, *rest = NULL, *service = strtok_r(line, " ", &rest);
        struct weft_addr addr;
        uint16_t port;
        uint32_t number;

        place = strtok_r(NULL, " ", &rest);
        state = strtok_r(NULL, " ", &rest);
        if (!state || parse_address_port(place, &addr, &port) < 0 ||
            parse_choice(state, names, &number) < 0)
                return -EINVAL;

        return add(d, service, &addr, port, number);
}

int daemon_states_load(struct daemon *d, struct weft_error *reterr)
{
        _cleanup_free_ char *path = path_of(d), *line = NULL;
        _cleanup_fclose_ FILE *f = path ? fopen(path, "re") : NULL;
        size_t room = 0;
        ssize_t n;
        int r = 0;

        if (!path)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        if (!f)
                return errno == ENOENT ? 0 : weft_fail(reterr, -errno, "cannot read %s: %m", path);

        for (int number = 1; r == 0 && (n = getline(&line, &room, f)) > 0; number++) {
                if (line[n - 1] == '\n')
                        line[n - 1] = '\0';
                r = take_line(d, line);
                if (r < 0)
                        return weft_fail(reterr, r,
                                         "%s:%d: not \"SERVICE ADDRESS:PORT STATE\": repair or "
                                         "remove the file",
                                         path, number);
        }

        return 0;
}

static void print(FILE *f, const struct state_setting *set)
{
        char addr[ADDRESS_TEXT];

        (void) fprintf(f, address_is_ipv4(&set->addr) ? "%s %s:%u %s\n" : "%s [%s]:%u %s\n",
                       set->service, address_format(&set->addr, addr, sizeof(addr)), set->port,
                       names[set->state]);
}

static int save(struct daemon *d, struct weft_error *reterr)
{
        _cleanup_free_ char *path = path_of(d), *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r;

        if (!f)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        for (size_t i = 0; i < d->n_states; i++)
                print(f, &d->states[i]);
        if (fclose(f) != 0 || !path)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = make_directories(d->paths.state, 0755, reterr);
        return r < 0 ? r : file_replace(path, text, reterr);
}

/* ---- use ---------------------------------------------------------------------------------- */

void daemon_states_apply_service(const struct daemon *d, struct config_service *s)
{
        for (size_t i = 0; d->n_states > 0 && i < s->n_backends; i++) {
                const struct state_setting *set = find(d, s, &s->backends[i]);

                s->backends[i].state = set ? set->state : s->backends[i].given;
        }
}

static struct config_backend *backend_of(const struct config *c, const struct state_setting *set)
{
        const struct config_service *s = config_service(c, set->service);

        for (size_t i = 0; s && i < s->n_backends; i++)
                if (s->backends[i].port == set->port &&
                    address_equal(&s->backends[i].addr, &set->addr))
                        return &s->backends[i];

        return NULL;
}

void daemon_states_apply(const struct daemon *d, struct config *c)
{
        for (size_t i = 0; i < d->n_states; i++) {
                struct config_backend *b = backend_of(c, &d->states[i]);

                if (b)
                        b->state = d->states[i].state;
        }
}

void daemon_states_prune(struct daemon *d)
{
        struct weft_error why = { 0 };
        size_t before = d->n_states;

        for (size_t i = d->n_states; i-- > 0;)
                if (!backend_of(d->build->config, &d->states[i])) {
                        log_info("service %s: a backend that was set %s at run time is gone",
                                 d->states[i].service, names[d->states[i].state]);
                        drop(d, &d->states[i]);
                }

        if (d->n_states < before && save(d, &why) < 0)
                log_warning("%s", why.text);
}

/* What the section says anyway needs no line. */
static int put(struct daemon *d, const struct config_service *s, const struct config_backend *b,
               uint32_t state)
{
        struct state_setting *set = find(d, s, b);

        if (set && state == b->given)
                drop(d, set);
        else if (set)
                set->state = state;
        else if (state != b->given)
                return add(d, s->name, &b->addr, b->port, state);

        return 0;
}

int daemon_state_set(struct daemon *d, struct config_service *s, struct config_backend *b,
                     uint32_t state, struct weft_error *reterr)
{
        uint32_t before = b->state;
        int r = put(d, s, b, state);

        if (r < 0)
                return weft_fail(reterr, r, "out of memory");

        r = save(d, reterr);
        if (r < 0) {
                (void) put(d, s, b, before);
                return r;
        }

        b->state = state;
        return 0;
}
