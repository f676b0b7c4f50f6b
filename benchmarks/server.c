/* The far end of every benchmark: services on loopback, and a SOCKS5 layer before them.
 *
 *   server BASE_PORT [SOCKS_ADDRESS...]
 *
 * On 127.0.1.1 .. 127.0.1.TARGETS it listens on BASE_PORT + n for service n:
 *   0 echo     sends back what it gets
 *   1 once     sends back the first bytes it gets, then closes
 *   2 source   sends without end
 *   3 sink     reads without end
 * On each SOCKS_ADDRESS (ADDRESS:PORT or unix:PATH) it plays the SOCKS layer of Tor's SocksPort: greeting,
 * user/password, CONNECT. It connects nowhere: the requested port names the service, which is then served on the
 * same connection. A proxy that dials through a SocksPort is thus measured with the handshake that costs it,
 * and with nothing behind it.
 *
 * One thread, level-triggered epoll. Prints "ready" when it listens; ends when its standard input ends.
 */
#include "net.h"

enum { GREETING = SERVICES, AUTH, REQUEST, LISTENER = 16 };

struct conn {
    int fd;
    int state;      /* a service, a SOCKS step, or LISTENER + the state of what it accepts */
    unsigned used;  /* bytes of a SOCKS message held so far */
    uint8_t held[520];
};

static int ep;
static int base_port;
static uint8_t bulk[BULK];

static void watch(struct conn *c, uint32_t events, int op) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(ep, op, c->fd, &e)) die("epoll_ctl");
}

static struct conn *add(int fd, int state, uint32_t events) {
    struct conn *c = malloc(sizeof *c);
    if (!c) die("malloc");
    c->fd = fd;
    c->state = state;
    c->used = 0;
    watch(c, events, EPOLL_CTL_ADD);
    return c;
}

static void drop(struct conn *c) {
    close(c->fd);
    free(c);
}

static void add_listener(const char *address, int state) {
    struct sockaddr_storage a;
    socklen_t len = parse_address(address, &a);
    int one = 1, fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a.ss_family == AF_UNIX) unlink(((struct sockaddr_un *)&a)->sun_path);
    if (bind(fd, (void *)&a, len) || listen(fd, 4096)) die(address);
    add(fd, LISTENER + state, EPOLLIN);
}

static void accept_all(struct conn *l) {
    int fd, state = l->state - LISTENER;
    while ((fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        nodelay(fd);
        add(fd, state, state == SOURCE ? EPOLLOUT : EPOLLIN);
    }
}

/* The length of the SOCKS message at the start of p, 0 while it is incomplete, -1 if it is none. */
static int message_length(int state, const uint8_t *p, unsigned n) {
    unsigned need;
    if (n < 2) return 0;
    if (state == GREETING) {
        if (p[0] != 5) return -1;
        need = 2u + p[1];
    } else if (state == AUTH) {
        if (p[0] != 1) return -1;
        need = 2u + p[1];
        if (n <= need) return 0;
        need += 1u + p[need];
    } else {
        if (n < 5) return 0;
        if (p[0] != 5 || p[1] != 1) return -1;
        need = p[3] == 1 ? 10 : p[3] == 4 ? 22 : 7u + p[4];
    }
    return n < need ? 0 : (int)need;
}

/* Answer the message; 0 when the connection is to be dropped. */
static int answer(struct conn *c, const uint8_t *p, int length) {
    static const uint8_t ok[10] = {5, 0, 0, 1};
    uint8_t method[2] = {5, 0xff}, status[2] = {1, 0};
    if (c->state == GREETING) {
        if (memchr(p + 2, 0, p[1])) method[1] = 0;
        if (memchr(p + 2, 2, p[1])) method[1] = 2;
        c->state = method[1] == 2 ? AUTH : REQUEST;
        return send(c->fd, method, 2, 0) == 2 && method[1] != 0xff;
    }
    if (c->state == AUTH) {
        c->state = REQUEST;
        return send(c->fd, status, 2, 0) == 2;
    }
    int service = (p[length - 2] << 8 | p[length - 1]) - base_port;
    if (service < 0 || service >= SERVICES || send(c->fd, ok, sizeof ok, 0) != sizeof ok) return 0;
    c->state = service;
    if (service == SOURCE) watch(c, EPOLLOUT, EPOLL_CTL_MOD);
    return 1;
}

/* 0 when the connection is to be dropped. Echoed data is small: it always fits the send buffer. */
static int serve(struct conn *c, const uint8_t *p, ssize_t n) {
    if (c->state == ECHO) return send(c->fd, p, (size_t)n, 0) == n;
    if (c->state == ONCE) {
        send(c->fd, p, (size_t)n, 0);
        return 0;
    }
    return 1;
}

static int socks(struct conn *c) {
    ssize_t n = recv(c->fd, c->held + c->used, sizeof c->held - c->used, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    c->used += (unsigned)n;
    uint8_t *p = c->held;
    while (c->state >= SERVICES) {
        int length = message_length(c->state, p, c->used);
        if (length < 0 || (length == 0 && c->used == sizeof c->held)) return 0;
        if (length == 0) {
            memmove(c->held, p, c->used);
            return 1;
        }
        if (!answer(c, p, length)) return 0;
        p += length;
        c->used -= (unsigned)length;
    }
    return c->used == 0 || serve(c, p, c->used);
}

static int pour(struct conn *c) {
    for (int i = 0; i < 8; i++) {
        ssize_t n = send(c->fd, bulk, sizeof bulk, 0);
        if (n < 0) return errno == EAGAIN;
        if ((size_t)n < sizeof bulk) return 1;
    }
    return 1;
}

static int step(struct conn *c) {
    static uint8_t in[65536];
    if (c->state >= SERVICES) return socks(c);
    if (c->state == SOURCE) return pour(c);
    ssize_t n = c->state == SINK ? recv(c->fd, bulk, sizeof bulk, MSG_TRUNC) : recv(c->fd, in, sizeof in, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    return serve(c, in, n);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: server BASE_PORT [SOCKS_ADDRESS...]\n");
        return 2;
    }
    setup_process();
    base_port = atoi(argv[1]);
    ep = epoll_create1(0);
    for (int i = 1; i <= TARGETS; i++)
        for (int s = 0; s < SERVICES; s++) {
            char address[32];
            snprintf(address, sizeof address, "127.0.1.%d:%d", i, base_port + s);
            add_listener(address, s);
        }
    for (int i = 2; i < argc; i++) add_listener(argv[i], GREETING);
    struct epoll_event stdin_event = {.events = EPOLLIN, .data.ptr = NULL};
    int watched = !epoll_ctl(ep, EPOLL_CTL_ADD, 0, &stdin_event);
    if (!watched) fprintf(stderr, "standard input cannot be watched: stop me with a signal\n");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event e[256];
        int n = epoll_wait(ep, e, 256, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = e[i].data.ptr;
            char byte;
            if (!c) {
                if (read(0, &byte, 1) <= 0) return 0;
            } else if (c->state >= LISTENER) {
                accept_all(c);
            } else if (!step(c)) {
                drop(c);
            }
        }
    }
}
