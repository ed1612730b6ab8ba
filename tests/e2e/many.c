/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many TCP connections from one process, for the end-to-end tests.
 *
 *   many serve PORT                 echoes on every address of both families, four processes, each
 *                                   of which prints "ready"
 *   many hold ADDRESS PORT COUNT    opens COUNT connections and prints "open N failed N"; then, for
 *                                   each line on stdin, sends eight bytes of its own on every one
 * and prints "alive N dead N"; ends with stdin, resetting them all
 *
 * Exit status 1 with a message where the machine refuses what was asked. */

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT 256 /* connections that wait for an answer at one time */
#define PATIENCE 15   /* seconds without any progress after which the rest is given up */
#define BATCH 256
#define SERVERS 4

static void raise_file_limit(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                err(1, "getrlimit");
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                err(1, "setrlimit");
}

static void watch(int epoll, int op, int fd, uint32_t events, uint32_t id)
{
        struct epoll_event e = { .events = events, .data.u32 = id };

        if (epoll_ctl(epoll, op, fd, &e) < 0)
                err(1, "epoll_ctl");
}

static int epoll_make(void)
{
        int fd = epoll_create1(EPOLL_CLOEXEC);

        if (fd < 0)
                err(1, "epoll_create1");
        return fd;
}

/* ---- serve -------------------------------------------------------------------------------- */

static int listen_on(uint16_t port)
{
        struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, zero = 0;

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0 ||
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) < 0 ||
            bind(fd, (struct sockaddr *) &a, sizeof(a)) < 0 || listen(fd, 4096) < 0)
                err(1, "port %u", port);
        return fd;
}

static void accept_all(int epoll, int listener)
{
        int fd;

        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t) fd);
}

static void echo(int fd)
{
        char buffer[4096];
        ssize_t n = read(fd, buffer, sizeof(buffer));

        if (n > 0 && write(fd, buffer, (size_t) n) == n)
                return;
        if (n < 0 && errno == EAGAIN)
                return;
        close(fd);
}

static _Noreturn void serve_here(uint16_t port)
{
        struct epoll_event events[BATCH];
        int epoll = epoll_make(), listener = listen_on(port);

        watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, (uint32_t) listener);
        puts("ready");
        fflush(stdout);
        for (;;) {
                int n = epoll_wait(epoll, events, BATCH, -1);

                for (int i = 0; i < n; i++) {
                        int fd = (int) events[i].data.u32;

                        if (fd == listener)
                                accept_all(epoll, listener);
                        else
                                echo(fd);
                }
        }
}

/* Several processes, since one may be allowed fewer files than there are connections. */
static _Noreturn void serve(uint16_t port)
{
        for (int i = 1; i < SERVERS; i++) {
                pid_t pid = fork();

                if (pid < 0)
                        err(1, "fork");
                if (pid == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        serve_here(port);
                }
        }
        serve_here(port);
}

/* ---- hold --------------------------------------------------------------------------------- */

struct many {
        int epoll;
        int *fds;      /* -1: failed or dead */
        bool *waiting; /* asked for something that has not come yet */
        uint32_t count;
        struct sockaddr_storage to;
        socklen_t to_length;
};

static void give_up(struct many *m, uint32_t id)
{
        close(m->fds[id]);
        m->fds[id] = -1;
}

/* Begins the connection; false where even that fails. */
static bool begin(struct many *m, uint32_t id)
{
        struct linger reset = { 1, 0 };
        int fd = socket(m->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

        if (fd < 0)
                err(1, "socket");
        m->fds[id] = fd;
        if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
                err(1, "SO_LINGER");
        if (connect(fd, (struct sockaddr *) &m->to, m->to_length) < 0 && errno != EINPROGRESS) {
                give_up(m, id);
                return false;
        }
        watch(m->epoll, EPOLL_CTL_ADD, fd, EPOLLOUT, id);
        return true;
}

/* The connection has come to something. */
static bool opened(struct many *m, uint32_t id)
{
        int error = 0;
        socklen_t length = sizeof(error);

        if (getsockopt(m->fds[id], SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error) {
                give_up(m, id);
                return false;
        }
        watch(m->epoll, EPOLL_CTL_MOD, m->fds[id], 0, id);
        return true;
}

/* Asks on the connection for its own number back. */
static bool ask(struct many *m, uint32_t id)
{
        uint64_t word = id;

        if (m->fds[id] < 0)
                return false;
        if (send(m->fds[id], &word, sizeof(word), MSG_NOSIGNAL) != sizeof(word)) {
                give_up(m, id);
                return false;
        }
        watch(m->epoll, EPOLL_CTL_MOD, m->fds[id], EPOLLIN, id);
        return true;
}

static bool answered(struct many *m, uint32_t id)
{
        uint64_t word = 0;

        if (recv(m->fds[id], &word, sizeof(word), 0) != sizeof(word) || word != id) {
                give_up(m, id);
                return false;
        }
        watch(m->epoll, EPOLL_CTL_MOD, m->fds[id], 0, id);
        return true;
}

/* Runs `start` on every connection, at most IN_FLIGHT at a time, and `finish` when it has something
 * to say; the number for which both were true. */
static uint32_t each(struct many *m, bool (*start)(struct many *, uint32_t),
                     bool (*finish)(struct many *, uint32_t))
{
        struct epoll_event events[BATCH];
        uint32_t next = 0, waiting = 0, good = 0;
        int n;

        do {
                for (; next < m->count && waiting < IN_FLIGHT; next++)
                        waiting += m->waiting[next] = start(m, next);
                n = waiting ? epoll_wait(m->epoll, events, BATCH, PATIENCE * 1000) : 0;
                for (int i = 0; i < n; i++) {
                        uint32_t id = events[i].data.u32;

                        if (!m->waiting[id]) { /* reset while nobody asked */
                                give_up(m, id);
                                continue;
                        }
                        m->waiting[id] = false;
                        waiting--;
                        good += finish(m, id);
                }
        } while (n > 0 || (next < m->count && waiting < IN_FLIGHT));
        return good;
}

static void resolve(struct many *m, const char *address, const char *port)
{
        const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                        .ai_socktype = SOCK_STREAM };
        struct addrinfo *found;
        int r = getaddrinfo(address, port, &hints, &found);

        if (r != 0)
                errx(1, "%s: %s", address, gai_strerror(r));
        memcpy(&m->to, found->ai_addr, found->ai_addrlen);
        m->to_length = found->ai_addrlen;
        freeaddrinfo(found);
}

static int hold(const char *address, const char *port, uint32_t count)
{
        struct many m = { .epoll = epoll_make(), .count = count };
        char line[64];
        uint32_t good;

        m.fds = calloc(count, sizeof(*m.fds));
        m.waiting = calloc(count, sizeof(*m.waiting));
        if (!m.fds || !m.waiting)
                err(1, "calloc");
        resolve(&m, address, port);
        good = each(&m, begin, opened);
        printf("open %u failed %u\n", good, count - good);
        fflush(stdout);
        while (fgets(line, sizeof(line), stdin)) {
                good = each(&m, ask, answered);
                printf("alive %u dead %u\n", good, count - good);
                fflush(stdout);
        }
        free(m.fds);
        free(m.waiting);
        return 0;
}

int main(int argc, char **argv)
{
        raise_file_limit();
        if (argc == 3 && strcmp(argv[1], "serve") == 0)
                serve((uint16_t) atoi(argv[2]));
        if (argc == 5 && strcmp(argv[1], "hold") == 0)
                return hold(argv[2], argv[3], (uint32_t) atoi(argv[4]));
        errx(1, "usage: many serve PORT | many hold ADDRESS PORT COUNT");
}
