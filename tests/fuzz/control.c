/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libFuzzer target: any bytes to the control socket, from a client that then takes what it is
 * answered or hangs up at once. Whatever they are, each answer is a JSON object, and the next
 * client is served. */

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/control.h"

enum { TURNS_MAX = 10000, PIECES = 3 };

static char directory[] = "/dev/shm/weft-fuzz-XXXXXX";
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static sd_event *loop;

static void remove_directory(void)
{
        (void) unlink(address.sun_path);
        (void) rmdir(directory);
}

/* ---- what is served ----------------------------------------------------------------------- */

static void echo(void *data, struct control_call *call, json_t *parameters)
{
        (void) data;
        control_reply(call, json_incref(parameters));
}

static json_t *count_next(void *data, bool *ret_last)
{
        int *left = data;

        *ret_last = --*left == 0;
        return json_pack("{s:i}", "left", *left);
}

static void count(void *data, struct control_call *call, json_t *parameters)
{
        int *left = malloc(sizeof(*left));

        (void) data;
        (void) parameters;
        if (!left)
                abort();
        *left = PIECES;
        if (control_wants_more(call)) {
                control_stream(call, &(struct control_stream) { count_next, free, left });
                return;
        }
        free(left);
        control_invalid(call, "more");
}

static const struct control_method methods[] = {
        { "Echo", CONTROL_READ, echo },
        { "Count", CONTROL_READ, count },
        { 0 },
};

static const struct control_interface interface = {
        .name = "io.weft.Node",
        .description = control_node_description,
        .methods = methods,
        .version = "0",
};

/* ---- a client ----------------------------------------------------------------------------- */

static int open_client(void)
{
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                abort();

        return fd;
}

static void turn(void)
{
        if (sd_event_run(loop, 0) < 0)
                abort();
}

static void check_answer(const char *text, size_t size)
{
        json_t *answer = json_loadb(text, size, 0, NULL);

        if (!json_is_object(answer) ||
            (!json_object_get(answer, "parameters") && !json_object_get(answer, "error")))
                abort();
        json_decref(answer);
}

/* Takes answers until the connection ends; how many. */
static int take_answers(int fd)
{
        static char text[1 << 20];
        size_t n = 0;
        int taken = 0;
        ssize_t k;

        for (int i = 0; i < TURNS_MAX; i++) {
                const char *end;

                turn();
                k = recv(fd, text + n, sizeof(text) - n, MSG_DONTWAIT);
                if (k == 0)
                        return taken;
                n += k > 0 ? k : 0;
                while ((end = memchr(text, '\0', n))) {
                        check_answer(text, end - text);
                        taken++;
                        n -= end + 1 - text;
                        memmove(text, end + 1, n);
                }
        }

        abort(); /* it neither answers nor ends */
}

/* ---- the target --------------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
        static struct control *control;
        int fd;

        (void) argc;
        (void) argv;
        if (!mkdtemp(directory))
                abort();
        (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", directory);
        if (sd_event_new(&loop) < 0 || control_listen(address.sun_path, &fd, NULL) < 0 ||
            control_open(loop, fd, &interface, &control, NULL) < 0)
                abort();

        return atexit(remove_directory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char last[] = "{\"method\":\"io.weft.Node.Echo\"}";
        bool hangs_up = size > 0 && data[0] & 1;
        int fd = open_client();

        if (size > 0 && send(fd, data + 1, size - 1, MSG_NOSIGNAL) != (ssize_t) size - 1)
                abort();
        if (!hangs_up) {
                (void) shutdown(fd, SHUT_WR);
                (void) take_answers(fd);
        }
        (void) close(fd);

        fd = open_client();
        if (send(fd, last, sizeof(last), MSG_NOSIGNAL) != sizeof(last))
                abort();
        (void) shutdown(fd, SHUT_WR);
        if (take_answers(fd) != 1)
                abort();
        (void) close(fd);

        return 0;
}
