/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The control socket against a real client in the same process: the loop is turned by hand until
 * the client has what it waits for. */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "control/control.h"
#include "util.h"

enum { TURNS_MAX = 20000, REPLY_MAX = 1 << 20 };

/* ---- an interface to serve ---------------------------------------------------------------- */

static void echo(void *data, struct control_call *call, json_t *parameters)
{
        (void) data;
        control_reply(call, json_incref(parameters));
}

static void change(void *data, struct control_call *call, json_t *parameters)
{
        (void) parameters;
        ++*(int *) data;
        control_reply(call, NULL);
}

static void later(void *data, struct control_call *call, json_t *parameters)
{
        (void) data;
        control_hold(call, (uint64_t) json_integer_value(json_object_get(parameters, "number")));
        control_reply(call, json_incref(parameters));
}

static void forget(void *data, struct control_call *call, json_t *parameters)
{
        (void) data;
        (void) call;
        (void) parameters;
}

struct counter {
        int i, end;
};

static int streams_freed;

static json_t *count_next(void *data, bool *ret_last)
{
        struct counter *c = data;

        *ret_last = ++c->i == c->end;
        return json_pack("{s:i, s:s}", "i", c->i, "padding",
                         "0123456789012345678901234567890123456789");
}

static void count_free(void *data)
{
        streams_freed++;
        free(data);
}

static void count(void *data, struct control_call *call, json_t *parameters)
{
        struct counter *c = calloc(1, sizeof(*c));

        (void) data;
        c->end = (int) json_integer_value(json_object_get(parameters, "to"));
        if (!control_wants_more(call)) {
                free(c);
                control_fail(call, "org.varlink.service.ExpectedMore", NULL);
                return;
        }
        control_stream(call, &(struct control_stream) { count_next, count_free, c });
}

static const struct control_method methods[] = {
        { "Echo", CONTROL_READ, echo },     { "Change", CONTROL_CHANGE, change },
        { "Forget", CONTROL_READ, forget }, { "Later", CONTROL_READ, later },
        { "Count", CONTROL_READ, count },   { 0 },
};

/* ---- server and client -------------------------------------------------------------------- */

struct bench {
        sd_event *loop;
        struct control *control;
        struct control_interface interface;
        int changes;
        char directory[32], path[64];
        int listening; /* borrowed */
};

static void bench_init(struct bench *b)
{
        struct weft_error why = { 0 };
        int fd;

        *b = (struct bench) { .directory = "/tmp/weft-control-XXXXXX" };
        cr_assert_not_null(mkdtemp(b->directory));
        (void) snprintf(b->path, sizeof(b->path), "%s/control", b->directory);
        b->interface = (struct control_interface) {
                .name = "io.weft.Node",
                .description = control_node_description,
                .methods = methods,
                .version = "1.2.3",
                .data = &b->changes,
        };

        cr_assert_geq(sd_event_new(&b->loop), 0);
        cr_assert_eq(control_listen(b->path, &fd, &why), 0, "%s", why.text);
        b->listening = fd;
        cr_assert_eq(control_open(b->loop, fd, &b->interface, &b->control, &why), 0, "%s",
                     why.text);
}

static void bench_done(struct bench *b)
{
        b->control = control_close(b->control);
        (void) sd_event_unref(b->loop);
        (void) unlink(b->path);
        (void) rmdir(b->directory);
}

#define BENCH(b)                                                                                   \
        _cleanup_(bench_done) struct bench b;                                                      \
        bench_init(&b)

static int client(const struct bench *b)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s", b->path);
        cr_assert_eq(connect(fd, (struct sockaddr *) &address, sizeof(address)), 0, "%m");

        return fd;
}

static void turn(struct bench *b)
{
        cr_assert_geq(sd_event_run(b->loop, 0), 0);
}

/* One message, NUL taken off; or "" when the server ended the connection. */
static char *receive(struct bench *b, int fd)
{
        char *text = calloc(1, REPLY_MAX);
        size_t n = 0;

        for (int i = 0; i < TURNS_MAX; i++) {
                ssize_t k = recv(fd, text + n, 1, 0);

                if (k == 1 && text[n++] == '\0')
                        return text;
                if (k == 0 || (k < 0 && errno == ECONNRESET)) {
                        text[0] = '\0';
                        return text;
                }
                if (k < 0) {
                        cr_assert_eq(errno, EAGAIN, "%m");
                        turn(b);
                } else
                        i--;
        }

        cr_assert_fail("no reply");
        return text;
}

static void send_text(int fd, const char *text)
{
        cr_assert_eq(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL), (ssize_t) strlen(text) + 1);
}

static json_t *ask(struct bench *b, int fd, const char *text)
{
        _cleanup_free_ char *reply = NULL;
        json_t *j;

        send_text(fd, text);
        reply = receive(b, fd);
        j = json_loads(reply, 0, NULL);
        cr_assert_not_null(j, "\"%s\" -> \"%s\"", text, reply);

        return j;
}

static void expect_error(struct bench *b, const char *call, const char *error)
{
        _cleanup_close_ int fd = client(b);
        json_auto_t *reply = ask(b, fd, call);

        cr_expect_str_eq(json_string_value(json_object_get(reply, "error")), error, "%s", call);
}

/* ---- tests -------------------------------------------------------------------------------- */

Test(control, a_call_is_answered_with_its_parameters)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        json_auto_t *reply =
                ask(&b, fd, "{\"method\":\"io.weft.Node.Echo\",\"parameters\":{\"a\":[1,2]}}");
        json_auto_t *wanted = json_loads("{\"parameters\":{\"a\":[1,2]}}", 0, NULL);

        cr_expect(json_equal(reply, wanted));
}

Test(control, parameters_may_be_left_out_or_null)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        json_auto_t *without = ask(&b, fd, "{\"method\":\"io.weft.Node.Echo\"}");
        json_auto_t *with_null =
                ask(&b, fd, "{\"method\":\"io.weft.Node.Echo\",\"parameters\":null}");

        cr_expect(json_is_object(json_object_get(without, "parameters")));
        cr_expect(json_equal(without, with_null));
}

Test(control, the_service_tells_what_it_is)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        json_auto_t *reply = ask(&b, fd, "{\"method\":\"org.varlink.service.GetInfo\"}");
        json_t *info = json_object_get(reply, "parameters");

        cr_expect_str_eq(json_string_value(json_object_get(info, "product")), "weftd");
        cr_expect_str_eq(json_string_value(json_object_get(info, "version")), "1.2.3");
        cr_expect_eq(json_array_size(json_object_get(info, "interfaces")), 2);
}

Test(control, the_interface_file_is_given_as_it_stands)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        _cleanup_fclose_ FILE *f = fopen(INTERFACE_FILE, "r");
        json_auto_t *reply = ask(&b, fd,
                                 "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
                                 "\"parameters\":{\"interface\":\"io.weft.Node\"}}");
        _cleanup_free_ char *file = calloc(1, REPLY_MAX);

        cr_assert_not_null(f);
        cr_assert_gt(fread(file, 1, REPLY_MAX - 1, f), 100);
        cr_expect_str_eq(json_string_value(json_object_get(json_object_get(reply, "parameters"),
                                                           "description")),
                         file);
}

Test(control, what_is_not_there_is_named_in_the_error)
{
        BENCH(b);

        expect_error(&b, "{\"method\":\"io.weft.Other.Echo\"}",
                     "org.varlink.service.InterfaceNotFound");
        expect_error(&b, "{\"method\":\"Echo\"}", "org.varlink.service.InterfaceNotFound");
        expect_error(&b, "{\"method\":\"io.weft.Node.Nothing\"}",
                     "org.varlink.service.MethodNotFound");
        expect_error(&b, "{\"method\":\"org.varlink.service.Nothing\"}",
                     "org.varlink.service.MethodNotFound");
        expect_error(&b, "{\"method\":\"io.weft.Node.Forget\"}",
                     "org.varlink.service.MethodNotImplemented");
        expect_error(&b, "{\"method\":\"io.weft.Node.Count\"}", "org.varlink.service.ExpectedMore");
        expect_error(&b, "{\"method\":\"org.varlink.service.GetInterfaceDescription\"}",
                     "org.varlink.service.InvalidParameter");
        expect_error(&b,
                     "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
                     "\"parameters\":{\"interface\":\"x\"}}",
                     "org.varlink.service.InterfaceNotFound");
}

Test(control, what_is_no_call_ends_the_connection)
{
        static const char *const rows[] = { "",
                                            "{",
                                            "[]",
                                            "7",
                                            "{\"parameters\":{}}",
                                            "{\"method\":7}",
                                            "{\"method\":\"io.weft.Node.Echo\",\"parameters\":[]}",
                                            "{\"method\":\"a\",\"method\":\"b\"}" };
        BENCH(b);

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                _cleanup_close_ int fd = client(&b);
                _cleanup_free_ char *reply = NULL;

                send_text(fd, rows[i]);
                reply = receive(&b, fd);
                cr_expect_str_empty(reply, "\"%s\"", rows[i]);
        }
}

Test(control, calls_sent_at_once_are_answered_in_their_order)
{
        static const char calls[] = "{\"method\":\"io.weft.Node.Echo\",\"parameters\":{\"n\":1}}\0"
                                    "{\"method\":\"io.weft.Node.Echo\",\"parameters\":{\"n\":2}}\0"
                                    "{\"method\":\"io.weft.Node.Echo\",\"parameters\":{\"n\":3}}";
        BENCH(b);
        _cleanup_close_ int fd = client(&b);

        cr_assert_eq(send(fd, calls, sizeof(calls), 0), (ssize_t) sizeof(calls));
        for (int i = 1; i <= 3; i++) {
                _cleanup_free_ char *text = receive(&b, fd);
                json_auto_t *reply = json_loads(text, 0, NULL);

                cr_expect_eq(json_integer_value(
                                     json_object_get(json_object_get(reply, "parameters"), "n")),
                             i);
        }
}

Test(control, a_client_that_shuts_its_side_still_gets_its_answer)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        _cleanup_free_ char *reply = NULL, *end = NULL;

        send_text(fd, "{\"method\":\"io.weft.Node.Echo\"}");
        cr_assert_eq(shutdown(fd, SHUT_WR), 0);
        reply = receive(&b, fd);
        cr_expect_str_eq(reply, "{\"parameters\":{}}");
        end = receive(&b, fd);
        cr_expect_str_empty(end);
}

Test(control, a_oneway_call_is_done_and_not_answered)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        json_auto_t *reply = NULL;

        send_text(fd, "{\"method\":\"io.weft.Node.Change\",\"oneway\":true}");
        reply = ask(&b, fd, "{\"method\":\"io.weft.Node.Echo\",\"parameters\":{\"second\":1}}");
        cr_expect_eq(b.changes, 1);
        cr_expect_not_null(json_object_get(json_object_get(reply, "parameters"), "second"));
}

Test(control, an_answer_that_is_kept_back_comes_when_it_is_released_and_not_before)
{
        static const char first[] =
                "{\"method\":\"io.weft.Node.Later\",\"parameters\":{\"number\":1}}\0"
                "{\"method\":\"io.weft.Node.Change\"}";
        BENCH(b);
        _cleanup_close_ int one = client(&b), two = client(&b), three = client(&b);
        _cleanup_free_ char *reply = NULL, *next = NULL, *second = NULL;
        char byte;

        cr_assert_eq(send(one, first, sizeof(first), 0), (ssize_t) sizeof(first));
        send_text(two, "{\"method\":\"io.weft.Node.Later\",\"parameters\":{\"number\":2}}");
        json_decref(ask(&b, three, "{\"method\":\"io.weft.Node.Echo\"}"));
        for (int i = 0; i < 100; i++)
                turn(&b);
        cr_expect_eq(recv(one, &byte, 1, 0), -1);
        cr_expect_eq(b.changes, 0); /* one call after the other */

        control_release(b.control, 1);
        reply = receive(&b, one);
        cr_expect_str_eq(reply, "{\"parameters\":{\"number\":1}}");
        next = receive(&b, one);
        cr_expect_eq(b.changes, 1);
        cr_expect_eq(recv(two, &byte, 1, 0), -1);

        control_release(b.control, 7);
        second = receive(&b, two);
        cr_expect_str_eq(second, "{\"parameters\":{\"number\":2}}");
}

Test(control, who_hangs_up_before_the_answer_that_is_kept_back_is_let_go)
{
        BENCH(b);
        int gone = client(&b);

        send_text(gone, "{\"method\":\"io.weft.Node.Later\",\"parameters\":{\"number\":1}}");
        for (int i = 0; i < 100; i++)
                turn(&b);
        (void) close(gone);
        for (int i = 0; i < 100; i++)
                turn(&b);
        cr_expect_eq(sd_event_run(b.loop, 50000), 0, "something wakes the loop all the time");
        control_release(b.control, 1);
}

Test(control, a_stream_ends_with_the_reply_that_does_not_continue)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);

        streams_freed = 0;
        send_text(fd,
                  "{\"method\":\"io.weft.Node.Count\",\"parameters\":{\"to\":3},\"more\":true}");
        for (int i = 1; i <= 3; i++) {
                _cleanup_free_ char *text = receive(&b, fd);
                json_auto_t *reply = json_loads(text, 0, NULL);

                cr_expect_eq(json_integer_value(
                                     json_object_get(json_object_get(reply, "parameters"), "i")),
                             i);
                cr_expect_eq(json_is_true(json_object_get(reply, "continues")), i < 3);
        }
        cr_expect_eq(streams_freed, 1);
}

Test(control, a_client_that_takes_nothing_holds_nobody_up)
{
        BENCH(b);
        _cleanup_close_ int slow = client(&b), other = client(&b);
        json_auto_t *reply = NULL;

        streams_freed = 0;
        send_text(slow, "{\"method\":\"io.weft.Node.Count\",\"parameters\":{\"to\":1000000000},"
                        "\"more\":true}");
        for (int i = 0; i < 10000; i++)
                turn(&b);
        reply = ask(&b, other, "{\"method\":\"io.weft.Node.Echo\"}");
        cr_expect_not_null(json_object_get(reply, "parameters"));

        closep(&slow);
        slow = -1;
        for (int i = 0; i < 1000 && streams_freed == 0; i++)
                turn(&b);
        cr_expect_eq(streams_freed, 1, "the stream of a client that went is freed");
}

Test(control, a_message_over_the_limit_ends_the_connection)
{
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        _cleanup_free_ char *big = malloc(CONTROL_MESSAGE_MAX), *reply = NULL;
        size_t sent = 0;

        memset(big, ' ', CONTROL_MESSAGE_MAX);
        while (sent < CONTROL_MESSAGE_MAX) {
                ssize_t n = send(fd, big + sent, CONTROL_MESSAGE_MAX - sent, MSG_NOSIGNAL);

                if (n < 0)
                        turn(&b);
                else
                        sent += n;
        }
        reply = receive(&b, fd);
        cr_expect_str_empty(reply);
}

Test(control, the_largest_message_is_answered)
{
        static const char head[] = "{\"method\":\"io.weft.Node.Echo\"}";
        BENCH(b);
        _cleanup_close_ int fd = client(&b);
        _cleanup_free_ char *big = malloc(CONTROL_MESSAGE_MAX), *reply = NULL;
        size_t sent = 0;

        memset(big, ' ', CONTROL_MESSAGE_MAX);
        memcpy(big, head, strlen(head));
        big[CONTROL_MESSAGE_MAX - 1] = '\0';
        while (sent < CONTROL_MESSAGE_MAX) {
                ssize_t n = send(fd, big + sent, CONTROL_MESSAGE_MAX - sent, MSG_NOSIGNAL);

                if (n < 0)
                        turn(&b);
                else
                        sent += n;
        }
        reply = receive(&b, fd);
        cr_expect_str_eq(reply, "{\"parameters\":{}}");
}

Test(control, a_oneway_call_is_done_though_the_caller_hangs_up_at_once)
{
        static const char calls[] = "{\"method\":\"io.weft.Node.Change\",\"oneway\":true}\0"
                                    "{\"method\":\"io.weft.Node.Change\",\"oneway\":true}";
        BENCH(b);
        _cleanup_close_ int fd = client(&b);

        cr_assert_eq(send(fd, calls, sizeof(calls), 0), (ssize_t) sizeof(calls));
        closep(&fd);
        fd = -1;
        for (int i = 0; i < 100; i++)
                turn(&b);
        cr_expect_eq(b.changes, 2);
}

Test(control, one_client_too_many_takes_the_place_of_the_one_that_did_nothing_for_longest)
{
        int fds[CONTROL_CLIENTS_MAX];
        BENCH(b);
        json_auto_t *first = NULL, *reply = NULL;

        for (size_t i = 0; i < ELEMENTS(fds); i++) {
                fds[i] = client(&b);
                turn(&b);
        }
        first = ask(&b, fds[0], "{\"method\":\"io.weft.Node.Echo\"}");
        cr_expect_not_null(first);
        cr_assert_eq(send(fds[1], "{", 1, 0), 1, "a byte now and then keeps no place");
        turn(&b);
        {
                _cleanup_close_ int late = client(&b);
                _cleanup_free_ char *gone = receive(&b, fds[1]);

                reply = ask(&b, late, "{\"method\":\"io.weft.Node.Echo\"}");
                cr_expect_not_null(reply);
                cr_expect_str_empty(gone);
        }
        json_decref(first);
        first = ask(&b, fds[0], "{\"method\":\"io.weft.Node.Echo\"}");
        cr_expect_not_null(first, "who asked something keeps its place");
        for (size_t i = 0; i < ELEMENTS(fds); i++)
                closep(&fds[i]);
}

Test(control, a_newcomer_whose_call_came_with_it_is_answered_however_many_come)
{
        enum { MANY = CONTROL_CLIENTS_MAX / 2 };
        int fds[MANY];
        BENCH(b);

        for (int round = 0; round < 4; round++) {
                for (size_t i = 0; i < MANY; i++) {
                        fds[i] = client(&b);
                        send_text(fds[i], "{\"method\":\"io.weft.Node.Echo\"}");
                }
                for (size_t i = 0; i < MANY; i++) {
                        _cleanup_free_ char *reply = receive(&b, fds[i]);

                        cr_expect_str_eq(reply, "{\"parameters\":{}}");
                        closep(&fds[i]);
                }
        }
}

Test(control, one_user_has_only_so_many_answers_in_pieces_under_way)
{
        int fds[CONTROL_USER_STREAMS_MAX + 1];
        BENCH(b);

        streams_freed = 0;
        for (size_t i = 0; i < ELEMENTS(fds); i++) {
                fds[i] = client(&b);
                send_text(fds[i], "{\"method\":\"io.weft.Node.Count\","
                                  "\"parameters\":{\"to\":1000000000},\"more\":true}");
                for (int k = 0; k < 10000; k++)
                        turn(&b);
                cr_expect_eq(streams_freed, i == CONTROL_USER_STREAMS_MAX);
        }
        for (size_t i = 0; i < ELEMENTS(fds); i++)
                closep(&fds[i]);
}

Test(control, a_dead_predecessors_socket_is_replaced_and_a_live_ones_is_not)
{
        BENCH(b);
        struct weft_error why = { 0 };
        int fd = -1;

        cr_expect_eq(control_listen(b.path, &fd, &why), -EADDRINUSE, "%s", why.text);
        b.control = control_close(b.control);
        cr_expect_eq(control_listen(b.path, &fd, &why), 0, "%s", why.text);
        closep(&fd);
}

/* ---- who may ------------------------------------------------------------------------------ */

enum { USER = 65534, GROUP_CHANGE = 54321, GROUP_READ = 54322, GROUP_OTHER = 54323 };

/* Groups of our own for this process, one of them large: a file mounted over /etc/group where
 * nobody else sees it. */
static void make_groups(const struct bench *b)
{
        static const char text[] = "weft:x:54321:\nother:x:54323:\nweft-ro:x:54322:";
        char path[64];
        FILE *f;

        (void) snprintf(path, sizeof(path), "%s/group", b->directory);
        f = fopen(path, "w");
        cr_assert(f && fputs(text, f) >= 0);
        for (int i = 0; i < 1000; i++)
                (void) fprintf(f, "somebody%d,", i);
        cr_assert(fputs("last\n", f) >= 0 && fclose(f) == 0);
        cr_assert_eq(unshare(CLONE_NEWNS), 0, "%m");
        cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%m");
        cr_assert_eq(mount(path, "/etc/group", NULL, MS_BIND, NULL), 0, "%m");
        cr_assert_eq(unlink(path), 0);
        cr_assert_eq(chmod(b->directory, 0755), 0);
}

/* An unprivileged member of one more group; what it is answered until the connection ends goes to
 * `report`, each message on a line. */
static void ask_as(const struct bench *b, gid_t group, const char *call, int report)
{
        char byte;
        int fd;

        if (setgroups(1, &group) < 0 || setgid(USER) < 0 || setuid(USER) < 0)
                _exit(2);
        fd = client(b);
        (void) fcntl(fd, F_SETFL, 0);
        if (send(fd, call, strlen(call) + 1, 0) < 0)
                _exit(3);
        while (recv(fd, &byte, 1, 0) == 1) {
                byte = byte == '\0' ? '\n' : byte;
                if (write(report, &byte, 1) != 1)
                        _exit(4);
                if (byte == '\n' && group != GROUP_OTHER)
                        _exit(0); /* friends are kept */
        }
        _exit(0);
}

static void expect_answer(struct bench *b, gid_t group, const char *method, const char *expected)
{
        char call[64], text[4096] = "";
        int pipes[2], status;
        pid_t pid;

        (void) snprintf(call, sizeof(call), "{\"method\":\"%s\"}", method);
        cr_assert_eq(pipe(pipes), 0);
        pid = fork();
        if (pid == 0)
                ask_as(b, group, call, pipes[1]);
        while (waitpid(pid, &status, WNOHANG) == 0)
                cr_assert_geq(sd_event_run(b->loop, 10000), 0);
        cr_assert_eq(status, 0);
        cr_assert_gt(read(pipes[0], text, sizeof(text) - 1), 0);
        cr_expect_str_eq(text, expected, "group %u, %s", group, method);
        closep(&pipes[0]);
        closep(&pipes[1]);
}

static mode_t mode_of(const struct bench *b)
{
        struct stat st;

        cr_assert_eq(stat(b->path, &st), 0);
        return st.st_mode & 07777;
}

/* errno of connecting as an unprivileged member of one more group; 0: it can. */
static int connect_errno(const struct bench *b, gid_t group)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

                (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s", b->path);
                if (setgroups(1, &group) < 0 || setgid(USER) < 0 || setuid(USER) < 0)
                        _exit(255);
                _exit(connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0 ? errno : 0);
        }
        cr_assert_eq(waitpid(pid, &status, 0), pid);

        return WEXITSTATUS(status);
}

Test(control, the_socket_is_for_root_until_it_is_shared_with_both_groups)
{
        BENCH(b);
        struct weft_error why = { 0 };
        struct stat st;

        if (geteuid() != 0)
                cr_skip_test("only root can become somebody else");
        make_groups(&b);

        cr_expect_eq(mode_of(&b), 0600);
        cr_expect_eq(connect_errno(&b, GROUP_CHANGE), EACCES);
        cr_assert_eq(control_share(b.listening, &why), 0, "%s", why.text);
        cr_expect_eq(mode_of(&b), 0660);
        cr_assert_eq(stat(b.path, &st), 0);
        cr_expect_eq(st.st_uid, 0);
        cr_expect_eq(st.st_gid, GROUP_CHANGE);
        cr_expect_eq(connect_errno(&b, GROUP_CHANGE), 0);
        cr_expect_eq(connect_errno(&b, GROUP_READ), 0);
        cr_expect_eq(connect_errno(&b, GROUP_OTHER), EACCES);

        cr_expect_eq(control_share(b.listening, &why), 0, "a second time: %s", why.text);
        cr_expect_eq(connect_errno(&b, GROUP_READ), 0);
}

/* An administrator may let more of them connect; what they may do does not change by that. */
static void let_anybody_connect(const struct bench *b)
{
        cr_assert_eq(chmod(b->path, 0666), 0);
}

#define DENIED "{\"error\":\"org.varlink.service.PermissionDenied\",\"parameters\":{}}\n"

Test(control, group_weft_changes_weft_ro_reads_and_strangers_are_refused_and_disconnected)
{
        static const char echo_name[] = "io.weft.Node.Echo", change_name[] = "io.weft.Node.Change";
        BENCH(b);

        if (geteuid() != 0)
                cr_skip_test("only root can become somebody else");
        make_groups(&b);
        let_anybody_connect(&b);

        expect_answer(&b, GROUP_READ, echo_name, "{\"parameters\":{}}\n");
        expect_answer(&b, GROUP_READ, change_name, DENIED);
        expect_answer(&b, GROUP_OTHER, echo_name, DENIED);
        expect_answer(&b, GROUP_OTHER, change_name, DENIED);
        expect_answer(&b, GROUP_OTHER, "org.varlink.service.GetInfo", DENIED);
        cr_expect_eq(b.changes, 0);
        expect_answer(&b, GROUP_CHANGE, change_name, "{\"parameters\":{}}\n");
        cr_expect_eq(b.changes, 1);
}

/* Connects as often as it can, waits until the server has looked at all of them, and tells how many
 * it kept. */
static void connect_as(const struct bench *b, gid_t group, int parent)
{
        int fds[CONTROL_CLIENTS_MAX];
        char kept = 0, byte = 0;

        if (setgroups(1, &group) < 0 || setgid(USER) < 0 || setuid(USER) < 0)
                _exit(2);
        for (size_t i = 0; i < ELEMENTS(fds); i++)
                fds[i] = client(b);
        if (write(parent, &byte, 1) != 1 || read(parent, &byte, 1) != 1)
                _exit(3);
        for (size_t i = 0; i < ELEMENTS(fds); i++)
                kept += recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
        if (write(parent, &kept, 1) != 1)
                _exit(3);
        (void) pause();
}

static void expect_kept(struct bench *b, gid_t group, int expected)
{
        int child[2];
        char kept = 0;
        pid_t pid;

        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, child), 0);
        pid = fork();
        if (pid == 0)
                connect_as(b, group, child[1]);
        cr_assert_eq(read(child[0], &kept, 1), 1);
        while (sd_event_run(b->loop, 0) > 0)
                ;
        cr_assert_eq(write(child[0], &kept, 1), 1);
        cr_assert_eq(read(child[0], &kept, 1), 1);
        cr_expect_eq(kept, expected, "group %u keeps %d", group, kept);
        {
                _cleanup_close_ int root = client(b);
                json_auto_t *reply = ask(b, root, "{\"method\":\"io.weft.Node.Echo\"}");

                cr_expect_not_null(json_object_get(reply, "parameters"));
        }
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
        closep(&child[0]);
        closep(&child[1]);
}

Test(control, neither_strangers_nor_one_user_can_take_the_place_of_all_others)
{
        BENCH(b);

        if (geteuid() != 0)
                cr_skip_test("only root can become somebody else");
        make_groups(&b);
        let_anybody_connect(&b);

        expect_kept(&b, GROUP_OTHER, CONTROL_STRANGERS_MAX);
        expect_kept(&b, GROUP_READ, CONTROL_USER_CLIENTS_MAX);
}
