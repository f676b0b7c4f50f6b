/* The near end of every benchmark: one thread, so that it takes at most one core from the proxy.
 *
 *   load [-x PROXY] [-d] [-a] [-u USER] [-n COUNT] [-s SECONDS] BASE_PORT MODE [MILESTONE...]
 *
 *   MODE       throughput, upload, handshakes: COUNT connections for SECONDS
 *              roundtrip: COUNT exchanges of 64 bytes on one connection
 *              setup: COUNT streams one after the other, each timed from connect to its first echoed byte
 *              idle: opens and holds as many streams as each MILESTONE says; a line is printed at each,
 *              and it goes on when a line is read
 *   -x PROXY   ADDRESS:PORT or unix:PATH of a SOCKS5 server that takes user/password; without it, no proxy
 *   -u USER    the user (default "bench"); the password is always "bench"
 *   -d         a user of its own for each connection: each is its own isolation tuple
 *   -a         all connections from one address (otherwise 127.0.2.1 .. 127.0.2.240 in turn)
 *
 * A handshake is connect, greeting, user/password, CONNECT, one echoed byte, then waiting for the end of the stream,
 * each step in its own round trip, as clients do. Results are one JSON object on standard output.
 *
 * Read data is discarded in the kernel (MSG_TRUNC), so that the proxy and not this program limits throughput.
 */
#include "net.h"

#include <math.h>

static struct sockaddr_storage proxy;
static socklen_t proxy_length;
static int direct = 1, base_port, distinct, one_address;
static const char *user = "bench";
static unsigned serial;

/* A connected blocking socket to the proxy, or to the service itself. Sources are 127.0.2.1 .. 127.0.2.240. */
static int open_socket(int service, unsigned id) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int one = 1, fd, family = direct ? AF_INET : proxy.ss_family;
    fd = socket(family, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (family == AF_INET) {
        from.sin_addr.s_addr = htonl(0x7f000201u + (one_address ? 0 : id % 240));
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (void *)&from, sizeof from)) die("bind");
        nodelay(fd);
    }
    to.sin_addr.s_addr = htonl(0x7f000101u + id % TARGETS);
    to.sin_port = htons((uint16_t)(base_port + service));
    if (direct ? connect(fd, (void *)&to, sizeof to) : connect(fd, (void *)&proxy, proxy_length)) die("connect");
    return fd;
}

static size_t greeting(uint8_t *out) {
    memcpy(out, "\x05\x01\x02", 3);
    return 3;
}

static size_t credentials(uint8_t *out, unsigned id) {
    char name[64];
    int n = distinct ? snprintf(name, sizeof name, "%.40s%08x", user, id) : snprintf(name, sizeof name, "%.40s", user);
    out[0] = 1;
    out[1] = (uint8_t)n;
    memcpy(out + 2, name, (size_t)n);
    memcpy(out + 2 + n, "\x05" "bench", 6);
    return (size_t)n + 8;
}

static size_t request(uint8_t *out, int service, unsigned id) {
    uint8_t target[4] = {127, 0, 1, (uint8_t)(1 + id % TARGETS)};
    int port = base_port + service;
    memcpy(out, "\x05\x01\x00\x01", 4);
    memcpy(out + 4, target, 4);
    out[8] = (uint8_t)(port >> 8);
    out[9] = (uint8_t)port;
    return 10;
}

/* The length of a SOCKS reply: 10 for IPv4, 22 for IPv6, by its own length for a name. */
static size_t reply_length(const uint8_t *p, size_t n) {
    if (n < 5) return 10;
    return p[3] == 4 ? 22 : p[3] == 3 ? 7u + p[4] : 10;
}

static void refuse(const char *step, const uint8_t *p, ssize_t n) {
    fprintf(stderr, "%s: the proxy answered %zd bytes, %02x %02x\n", step, n, n > 0 ? p[0] : 0, n > 1 ? p[1] : 0);
    exit(1);
}

static void read_exactly(int fd, uint8_t *out, size_t n, const char *step) {
    ssize_t got = recv(fd, out, n, MSG_WAITALL);
    if (got != (ssize_t)n) refuse(step, out, got);
}

/* A blocking stream to the service, handshake done. */
static int open_stream(int service) {
    uint8_t b[300];
    unsigned id = serial++;
    int fd = open_socket(service, id);
    if (direct) return fd;
    send(fd, b, greeting(b), 0);
    read_exactly(fd, b, 2, "greeting");
    if (b[1] != 2) refuse("greeting", b, 2);
    send(fd, b, credentials(b, id), 0);
    read_exactly(fd, b, 2, "user/password");
    if (b[1]) refuse("user/password", b, 2);
    send(fd, b, request(b, service, id), 0);
    read_exactly(fd, b, 5, "request");
    if (b[1]) refuse("request", b, 5);
    read_exactly(fd, b + 5, reply_length(b, 5) - 5, "request");
    return fd;
}

static void watch(int ep, int fd, uint32_t events, uint32_t slot) {
    struct epoll_event e = {.events = events, .data.u32 = slot};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

/* ---- throughput ---- */

static void throughput(int upload, int connections, double seconds) {
    static uint8_t buffer[1 << 20];
    int fds[1024], ep = epoll_create1(0);
    double bytes = 0;
    if (connections > 1024) connections = 1024;
    for (int i = 0; i < connections; i++) {
        fds[i] = open_stream(upload ? SINK : SOURCE);
        nonblocking(fds[i]);
        watch(ep, fds[i], upload ? EPOLLOUT : EPOLLIN, (uint32_t)i);
    }
    double begin = now(), end = begin + seconds;
    while (now() < end) {
        struct epoll_event e[64];
        int n = epoll_wait(ep, e, 64, 100);
        for (int i = 0; i < n; i++) {
            int fd = fds[e[i].data.u32];
            ssize_t got = upload ? send(fd, buffer, BULK, 0) : recv(fd, buffer, sizeof buffer, MSG_TRUNC);
            if (got == 0 || (got < 0 && errno != EAGAIN)) die("the stream ended early");
            if (got > 0) bytes += (double)got;
        }
    }
    double took = now() - begin;
    printf("{\"bytes\": %.0f, \"seconds\": %.6f, \"connections\": %d}\n", bytes, took, connections);
}

/* ---- handshakes ---- */

enum step { METHOD, STATUS, REPLY, BYTE, END };

struct shake {
    int fd;
    enum step step;
    unsigned id;
    size_t got;
    uint8_t in[300];
};

static void begin_shake(struct shake *s, int ep, uint32_t slot) {
    uint8_t out[8];
    s->id = serial++;
    s->got = 0;
    s->fd = open_socket(ONCE, s->id);
    nonblocking(s->fd);
    watch(ep, s->fd, EPOLLIN, slot);
    s->step = direct ? BYTE : METHOD;
    if (direct)
        send(s->fd, "x", 1, 0);
    else
        send(s->fd, out, greeting(out), 0);
}

/* The next step after a whole message has come. */
static void advance(struct shake *s) {
    uint8_t out[300];
    if (s->step == METHOD) {
        if (s->in[1] != 2) refuse("greeting", s->in, 2);
        send(s->fd, out, credentials(out, s->id), 0);
    } else if (s->step == STATUS) {
        if (s->in[1]) refuse("user/password", s->in, 2);
        send(s->fd, out, request(out, ONCE, s->id), 0);
    } else if (s->step == REPLY) {
        if (s->in[1]) refuse("request", s->in, 10);
        send(s->fd, "x", 1, 0);
    } else if (s->in[0] != 'x') {
        refuse("echo", s->in, 1);
    }
    s->step++;
    s->got = 0;
}

/* 1 when the handshake is complete. */
static int feed(struct shake *s) {
    ssize_t n = recv(s->fd, s->in + s->got, sizeof s->in - s->got, 0);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n < 0) die("handshake");
    if (s->step == END) {
        if (n) refuse("end", s->in, n);
        return 1;
    }
    if (n == 0) refuse("closed early", s->in, 0);
    s->got += (size_t)n;
    size_t need = s->step == REPLY ? reply_length(s->in, s->got) : s->step == BYTE ? 1 : 2;
    if (s->got > need) refuse("too many bytes", s->in, (ssize_t)s->got);
    if (s->got == need) advance(s);
    return 0;
}

static void handshakes(int connections, double seconds) {
    struct shake *slots = calloc((size_t)connections, sizeof *slots);
    int ep = epoll_create1(0), running = connections;
    long done = 0, inside = 0;
    for (int i = 0; i < connections; i++) begin_shake(&slots[i], ep, (uint32_t)i);
    double begin = now(), end = begin + seconds;
    while (running) {
        struct epoll_event e[64];
        int n = epoll_wait(ep, e, 64, 10000);
        if (n == 0) die("the proxy does not answer");
        int open = now() < end;
        for (int i = 0; i < n; i++) {
            struct shake *s = &slots[e[i].data.u32];
            if (!feed(s)) continue;
            close(s->fd);
            done++;
            inside += open;
            if (open)
                begin_shake(s, ep, e[i].data.u32);
            else
                running--;
        }
    }
    printf("{\"handshakes\": %ld, \"done\": %ld, \"seconds\": %.6f}\n", inside, done, seconds);
}

/* ---- latencies ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_latencies(double *seconds, int n) {
    qsort(seconds, (size_t)n, sizeof *seconds, ascending);
    printf("{\"count\": %d, \"p50_us\": %.2f, \"p99_us\": %.2f}\n", n, seconds[n / 2] * 1e6,
           seconds[(int)floor(n * 0.99)] * 1e6);
}

static void roundtrip(int count) {
    uint8_t message[64] = {0};
    double *took = calloc((size_t)count, sizeof *took);
    int fd = open_stream(ECHO), warm = 200;
    for (int i = -warm; i < count; i++) {
        double begin = now();
        send(fd, message, sizeof message, 0);
        read_exactly(fd, message, sizeof message, "echo");
        if (i >= 0) took[i] = now() - begin;
    }
    print_latencies(took, count);
}

/* From connect to the first echoed byte, one stream after the other. */
static void setup(int count) {
    uint8_t byte = 'x';
    double *took = calloc((size_t)count, sizeof *took);
    for (int i = 0; i < count; i++) {
        double begin = now();
        int fd = open_stream(ECHO);
        send(fd, &byte, 1, 0);
        read_exactly(fd, &byte, 1, "echo");
        took[i] = now() - begin;
        close(fd);
    }
    print_latencies(took, count);
}

static void idle(char **milestones) {
    int held = 0;
    for (; *milestones; milestones++) {
        for (int until = atoi(*milestones); held < until; held++) {
            uint8_t byte = 'x';
            int fd = open_stream(ECHO);
            send(fd, &byte, 1, 0);
            read_exactly(fd, &byte, 1, "echo");
        }
        printf("{\"held\": %d}\n", held);
        fflush(stdout);
        while (getchar() != '\n')
            if (feof(stdin)) return;
    }
}

static int usage(void) {
    fprintf(stderr, "usage: load [-x PROXY] [-d] [-a] [-u USER] [-n COUNT] [-s SECONDS] BASE_PORT MODE [MILESTONE...]\n");
    return 2;
}

int main(int argc, char **argv) {
    int option, count = 1;
    double seconds = 1;
    while ((option = getopt(argc, argv, "x:dau:n:s:")) != -1) {
        switch (option) {
        case 'x':
            direct = 0;
            proxy_length = parse_address(optarg, &proxy);
            break;
        case 'd': distinct = 1; break;
        case 'a': one_address = 1; break;
        case 'u': user = optarg; break;
        case 'n': count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        default: return usage();
        }
    }
    if (argc - optind < 2 || count < 1 || seconds <= 0) return usage();
    setup_process();
    base_port = atoi(argv[optind]);
    const char *mode = argv[optind + 1];
    if (!strcmp(mode, "throughput") || !strcmp(mode, "upload"))
        throughput(mode[0] == 'u', count, seconds);
    else if (!strcmp(mode, "handshakes"))
        handshakes(count, seconds);
    else if (!strcmp(mode, "roundtrip"))
        roundtrip(count);
    else if (!strcmp(mode, "setup"))
        setup(count);
    else if (!strcmp(mode, "idle"))
        idle(argv + optind + 2);
    else
        return usage();
    return 0;
}
