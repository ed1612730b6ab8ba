/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ctl/client.h"
#include "util.h"

#define INTERFACE "io.weft.Node."

static int connect_to(const char *path, struct weft_error *reterr)
{
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (fd < 0)
                return weft_fail(reterr, -errno, "cannot make a socket: %m");
        if (strlen(path) >= sizeof(address.sun_path))
                return weft_fail(reterr, -ENAMETOOLONG, "%s: too long for a socket's name", path);

        (void) strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        if (connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0) {
                if (errno == ENOENT || errno == ECONNREFUSED)
                        return weft_fail(reterr, -errno,
                                         "no weftd answers at %s: start it (systemctl start "
                                         "weftd), or name its --root or --socket",
                                         path);
                if (errno == EACCES)
                        return weft_fail(reterr, -errno,
                                         "%s: permission denied: ask as root or as a member "
                                         "of group weft; to look, weft-ro is enough",
                                         path);
                return weft_fail(reterr, -errno, "%s: %m", path);
        }

        return TAKE_FD(fd);
}

static int send_all(int fd, const char *text, size_t n, struct weft_error *reterr)
{
        while (n > 0) {
                ssize_t k = send(fd, text, n, MSG_NOSIGNAL);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return weft_fail(reterr, -errno, "cannot send to weftd: %m");
                text += k;
                n -= k;
        }

        return 0;
}

static int send_call(int fd, const char *method, json_t *parameters, bool more,
                     struct weft_error *reterr)
{
        json_auto_t *call = json_pack("{s:s+, s:o, s:b}", "method", INTERFACE, method, "parameters",
                                      parameters ? parameters : json_object(), "more", more);
        _cleanup_free_ char *text = call ? json_dumps(call, JSON_COMPACT) : NULL;

        if (!text)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        return send_all(fd, text, strlen(text) + 1, reterr);
}

/* stdio finds the NULs. */
static int receive(FILE *f, json_t **ret, struct weft_error *reterr)
{
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        ssize_t n = getdelim(&text, &size, '\0', f);
        json_t *reply;

        if (n <= 0 || text[n - 1] != '\0')
                return weft_fail(reterr, -EPIPE, "weftd ended the connection: see its log");

        reply = json_loads(text, 0, NULL);
        if (!reply)
                return weft_fail(reterr, -EPROTO, "weftd answered something that is not JSON");

        *ret = reply;
        return 0;
}

static bool ends_in(const char *text, const char *end)
{
        size_t n = strlen(text), k = strlen(end);

        return n >= k && strcmp(text + n - k, end) == 0;
}

/* What an error means to the person who asked. */
static int explain(const json_t *reply, struct weft_error *reterr)
{
        const char *error = json_string_value(json_object_get(reply, "error"));
        const json_t *parameters = json_object_get(reply, "parameters");
        const json_t *line, *reason = json_object_get(parameters, "reason");
        size_t i;

        if (!error)
                return 0;
        if (strcmp(error, "org.varlink.service.PermissionDenied") == 0)
                return weft_fail(reterr, -EACCES,
                                 "not allowed: reading needs group weft-ro, changing "
                                 "needs group weft or root");
        if (strcmp(error, "org.varlink.service.InvalidParameter") == 0)
                return weft_fail(reterr, -EREMOTEIO, "weftd does not know this %s",
                                 json_string_value(json_object_get(parameters, "parameter")));
        if (!reason)
                return weft_fail(reterr, -EREMOTEIO, "weftd answered %s", error);

        json_array_foreach (json_object_get(parameters, "diagnostics"), i, line)
                (void) fprintf(stderr, "%s\n", json_string_value(line));
        return weft_fail(reterr, -EREMOTEIO, "%s%s",
                         ends_in(error, "Unknown") ? "" : "refused, nothing was changed: ",
                         json_string_value(reason));
}

/* Later replies of a stream: arrays grow, other values are replaced. */
static void merge(json_t *all, json_t *parameters)
{
        const char *key;
        json_t *value;

        json_object_foreach (parameters, key, value) {
                json_t *have = json_object_get(all, key);

                if (json_is_array(have))
                        (void) json_array_extend(have, value);
                else
                        (void) json_object_set(all, key, value);
        }
}

/* Calls f for each reply until there are no more. */
static int converse(const char *socket_path, const char *method, json_t *parameters, bool more,
                    int (*f)(void *data, json_t *reply), void *data, struct weft_error *reterr)
{
        json_auto_t *wanted = parameters;
        _cleanup_close_ int fd = connect_to(socket_path, reterr);
        _cleanup_fclose_ FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
        bool continues = true;
        int r;

        if (fd < 0)
                return fd;
        if (!file)
                return weft_fail(reterr, -errno, "%m");
        (void) TAKE_FD(fd);

        r = send_call(fileno(file), method, TAKE(wanted), more, reterr);
        while (r == 0 && continues) {
                json_auto_t *reply = NULL;

                r = receive(file, &reply, reterr);
                if (r == 0)
                        r = explain(reply, reterr);
                if (r == 0)
                        r = f(data, json_object_get(reply, "parameters"));
                continues = json_is_true(json_object_get(reply, "continues"));
        }

        return r;
}

static int add_to_all(void *data, json_t *parameters)
{
        merge(data, parameters);
        return 0;
}

int client_call(const char *socket_path, const char *method, json_t *parameters, bool more,
                json_t **ret, struct weft_error *reterr)
{
        json_auto_t *all = json_object();
        int r = converse(socket_path, method, parameters, more, add_to_all, all, reterr);

        if (r == 0)
                *ret = TAKE(all);
        return r;
}

int client_stream(const char *socket_path, const char *method, json_t *parameters,
                  int (*f)(void *data, json_t *reply), void *data, struct weft_error *reterr)
{
        return converse(socket_path, method, parameters, true, f, data, reterr);
}
