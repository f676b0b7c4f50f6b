/* What server.c and load.c share: sockets on loopback, one clock, one way to give up. */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Targets are 127.0.1.1 .. 127.0.1.TARGETS, so that a proxy which dials them
 * has TARGETS times the ephemeral ports. */
#define TARGETS 64
#define BULK (256 * 1024)

/* The services, each on its own port: base + its number. */
enum service { ECHO, ONCE, SOURCE, SINK, SERVICES };

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void setup_process(void) {
    struct rlimit r;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

static inline void nodelay(int fd) {
    int one = 1; /* fails on a unix socket, where it is not needed */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline void nonblocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* "ADDRESS:PORT" or "unix:PATH" -> sockaddr; the length is returned. */
static inline socklen_t parse_address(const char *text, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (!strncmp(text, "unix:", 5)) {
        struct sockaddr_un *u = (void *)out;
        u->sun_family = AF_UNIX;
        snprintf(u->sun_path, sizeof u->sun_path, "%s", text + 5);
        return sizeof *u;
    }
    struct sockaddr_in *in = (void *)out;
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || colon - text >= (long)sizeof host) {
        fprintf(stderr, "not ADDRESS:PORT or unix:PATH: %s\n", text);
        exit(2);
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &in->sin_addr) != 1) {
        fprintf(stderr, "not an IPv4 address: %s\n", host);
        exit(2);
    }
    return sizeof *in;
}

#endif
