/* The packet prober of the fault tests: numbered UDP datagrams at an even rate, and what became of each.
 *
 *   prober echo ADDRESS PORT
 *       answers every datagram in the namespace that it runs in, and writes the TTL with which it came into the answer
 *   prober send [--seconds S] [--rate HZ] --pair NAME=ADDRESS:PORT ...
 *       sends to each pair at the rate named before it (an IPv6 address in brackets); after S seconds, or a signal,
 *       waits for answers that may still come (1 s at most) and prints one JSON object
 *   prober hear [--netns PATH] ADDRESS:PORT ...
 *       answers nothing, in each network namespace what is named behind it; after a signal prints a line for each datagram of a teller: the teller's id, number, time
 *   prober tell ID [--rate HZ] --pair NAME=ADDRESS:PORT ...
 *       sends to each pair as soon as the kernel lets it, then at an even rate; nobody answers, so each datagram is the
 *       first of its flow. After a signal prints a line for each: number, pair, times before and after its sending
 *
 * All print the line `ready` once their sockets are open. Times are CLOCK_MONOTONIC; an answer's is the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x43414c50u
#define SECOND 1000000000ll
#define LATE SECOND /* and what comes later is late, not lost */
#define MOST_PAIRS 256

struct packet {
    uint32_t magic, number;
    uint8_t ttl, filler[3];
    uint32_t teller;
    uint8_t more[48];
};

struct pair {
    const char *name;
    struct sockaddr_storage address;
    socklen_t size;
    int fd, last_error, ttl_there, ttl_back;
    int64_t interval, due;
    int64_t *sent_at;  /* by number */
    uint8_t *answered; /* by number */
    uint32_t sent, room, highest, received, late, duplicates, reordered, errors, ttl_changes;
    uint8_t ttls_there[256], ttls_back[256];
    int64_t last_answer, longest_gap;
};

static struct pair pairs[MOST_PAIRS];
static int pair_count;

static void die(const char *what) { exit((perror(what), 1)); }

static _Noreturn void wrong(const char *text, const char *what) {
    fprintf(stderr, "prober: %s is not %s\n", text, what);
    exit(2);
}

static int64_t nanoseconds(struct timespec time) { return time.tv_sec * SECOND + time.tv_nsec; }

static int64_t now_of(clockid_t clock) {
    struct timespec now;
    return clock_gettime(clock, &now), nanoseconds(now);
}

/* Even where others wait: real-time priority and locked memory, where we may have them. */
static void say_ready(void) {
    struct sched_param parameter = {.sched_priority = 10};
    if (sched_setscheduler(0, SCHED_FIFO, &parameter) == 0)
        mlockall(MCL_CURRENT | MCL_FUTURE);
    puts("ready");
    fflush(stdout);
}

static socklen_t parse_address(const char *host, int port, struct sockaddr_storage *out) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &four.sin_addr) == 1)
        return memcpy(out, &four, sizeof four), sizeof four;
    if (inet_pton(AF_INET6, host, &six.sin6_addr) == 1)
        return memcpy(out, &six, sizeof six), sizeof six;
    wrong(host, "an address");
}

/* The address in `text`, an IPv6 address in brackets, with its port. */
static socklen_t parse_target(char *text, struct sockaddr_storage *out) {
    char *port = strrchr(text, ':'), *end;
    if (!port)
        wrong(text, "ADDRESS:PORT");
    *port++ = 0;
    if (*text == '[' && (end = strchr(text, ']')))
        text++, *end = 0;
    return parse_address(text, atoi(port), out);
}

static int open_socket(int family) {
    int on = 1, room = 1 << 22;
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        die("socket");
    if (family == AF_INET ? setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof on)
                          : setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on))
        die("TTL of what is received");
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    return fd;
}

/* One datagram: its size, with the TTL, the time of arrival and the sender; -1 where there is none. */
static ssize_t receive(int fd, struct packet *packet, int *ttl, int64_t *at, struct sockaddr_storage *from) {
    char control[256];
    struct iovec data = {packet, sizeof *packet};
    struct msghdr message = {from, sizeof *from, &data, 1, control, sizeof control, 0};
    ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
    int64_t offset = now_of(CLOCK_REALTIME) - now_of(CLOCK_MONOTONIC);
    *ttl = 0;
    *at = now_of(CLOCK_MONOTONIC);
    if (size < 0)
        return size;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        struct timespec stamp;
        if ((part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TTL)
            || (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_HOPLIMIT))
            memcpy(ttl, CMSG_DATA(part), sizeof *ttl);
        else if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_TIMESTAMPNS) {
            memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
            *at = nanoseconds(stamp) - offset;
        }
    }
    return size;
}

static _Noreturn void echo(const char *host, int port) {
    struct sockaddr_storage address, from;
    socklen_t size = parse_address(host, port, &address);
    int fd = open_socket(address.ss_family), ttl;
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    struct packet packet;
    ssize_t length;
    int64_t at;
    if (bind(fd, (struct sockaddr *)&address, size))
        die("bind");
    say_ready();
    for (;;) {
        poll(&waiting, 1, -1);
        while ((length = receive(fd, &packet, &ttl, &at, &from)) >= 0)
            if (length == sizeof packet && packet.magic == htonl(MAGIC)) {
                packet.ttl = (uint8_t)ttl;
                sendto(fd, &packet, sizeof packet, 0, (struct sockaddr *)&from, size);
            }
    }
}

static void add_pair(char *text, double rate) {
    struct pair *pair = &pairs[pair_count];
    char *target = strchr(text, '=');
    if (!target || pair_count == MOST_PAIRS || rate <= 0)
        wrong(text, "NAME=ADDRESS:PORT, at a rate above 0");
    *target++ = 0;
    pair->size = parse_target(target, &pair->address);
    pair->name = text;
    pair->fd = open_socket(pair->address.ss_family);
    pair->interval = (int64_t)((double)SECOND / rate);
    pair->ttl_there = pair->ttl_back = -1;
    pair_count++;
}

static void send_one(struct pair *pair, int64_t now) {
    struct packet packet = {.magic = htonl(MAGIC), .number = htonl(pair->sent)};
    if (pair->sent == pair->room) {
        pair->room = pair->room ? pair->room * 2 : 65536;
        if (!(pair->sent_at = realloc(pair->sent_at, pair->room * sizeof *pair->sent_at))
            || !(pair->answered = realloc(pair->answered, pair->room)))
            die("realloc");
    }
    pair->answered[pair->sent] = 0;
    pair->sent_at[pair->sent++] = now;
    if (sendto(pair->fd, &packet, sizeof packet, 0, (struct sockaddr *)&pair->address, pair->size) < 0)
        pair->errors++, pair->last_error = errno;
}

static unsigned other_ttl(uint8_t *seen, int *last, int ttl) {
    unsigned changed = *last >= 0 && *last != ttl;
    seen[(*last = ttl) & 255] = 1;
    return changed;
}

static void end_gap(struct pair *pair, int64_t at) {
    if (at - pair->last_answer > pair->longest_gap)
        pair->longest_gap = at - pair->last_answer;
    pair->last_answer = at;
}

static void take_answers(struct pair *pair) {
    struct sockaddr_storage from;
    struct packet packet;
    ssize_t length;
    int64_t at;
    int ttl;
    while ((length = receive(pair->fd, &packet, &ttl, &at, &from)) >= 0 || errno != EAGAIN) {
        uint32_t number = ntohl(packet.number);
        if (length != sizeof packet || packet.magic != htonl(MAGIC) || number >= pair->sent)
            continue;
        if (pair->answered[number]) {
            pair->duplicates++;
            continue;
        }
        pair->answered[number] = 1;
        pair->received++;
        pair->late += at - pair->sent_at[number] > LATE;
        pair->reordered += pair->received > 1 && number < pair->highest;
        pair->highest = number > pair->highest ? number : pair->highest;
        pair->ttl_changes += other_ttl(pair->ttls_there, &pair->ttl_there, packet.ttl)
                             | other_ttl(pair->ttls_back, &pair->ttl_back, ttl);
        end_gap(pair, at);
    }
}

static void print_ttls(const char *name, const uint8_t *seen) {
    int shown = 0;
    printf("\"%s\":[", name);
    for (int ttl = 0; ttl < 256; ttl++)
        if (seen[ttl])
            printf("%s%d", shown++ ? "," : "", ttl);
    printf("],");
}

static void print_pair(const struct pair *pair) {
    int shown = 0;
    printf("{\"sent\":%u,\"received\":%u,\"lost\":%u,\"late\":%u,\"duplicates\":%u,\"reordered\":%u,", pair->sent,
           pair->received, pair->sent - pair->received, pair->late, pair->duplicates, pair->reordered);
    printf("\"ttl_changes\":%u,\"errors\":%u,\"last_error\":\"%s\",", pair->ttl_changes, pair->errors,
           pair->last_error ? strerror(pair->last_error) : "");
    print_ttls("ttls_there", pair->ttls_there);
    print_ttls("ttls_back", pair->ttls_back);
    printf("\"longest_gap_ms\":%.3f,\"first_lost\":[", (double)pair->longest_gap / 1e6);
    for (uint32_t lost = 0; lost < pair->sent && shown < 20; lost++)
        if (!pair->answered[lost])
            printf("%s{\"number\":%u,\"sent_at_s\":%.6f}", shown++ ? "," : "", lost, (double)pair->sent_at[lost] / 1e9);
    printf("]}");
}

static int send_all(double seconds) {
    struct pollfd waiting[MOST_PAIRS + 2];
    struct itimerspec ticks;
    int64_t shortest = SECOND, started, stopped = 0, until, now, last = 0, stall = 0;
    sigset_t ends;
    int ticker = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), sending = 1, missing;
    sigfillset(&ends);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    waiting[0] = (struct pollfd){.fd = ticker, .events = POLLIN};
    waiting[1] = (struct pollfd){.fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN};
    started = now_of(CLOCK_MONOTONIC);
    until = seconds > 0 ? started + (int64_t)(seconds * 1e9) : INT64_MAX;
    for (int index = 0; index < pair_count; index++) {
        waiting[index + 2] = (struct pollfd){.fd = pairs[index].fd, .events = POLLIN};
        pairs[index].due = pairs[index].last_answer = started;
        shortest = pairs[index].interval < shortest ? pairs[index].interval : shortest;
    }
    ticks = (struct itimerspec){{shortest / SECOND, shortest % SECOND}, {started / SECOND, started % SECOND}};
    timerfd_settime(ticker, TFD_TIMER_ABSTIME, &ticks, NULL);
    say_ready();
    for (;;) {
        uint64_t ignored;
        poll(waiting, (nfds_t)pair_count + 2, 100);
        now = now_of(CLOCK_MONOTONIC);
        stall = last && now - last > stall ? now - last : stall;
        last = now;
        if (read(ticker, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
            die("timer");
        if (sending && (now >= until || waiting[1].revents))
            sending = 0, stopped = now, until = now + LATE;
        for (int index = missing = 0; index < pair_count; index++) {
            for (; sending && pairs[index].due <= now; pairs[index].due += pairs[index].interval)
                send_one(&pairs[index], now);
            take_answers(&pairs[index]);
            missing += pairs[index].received < pairs[index].sent;
        }
        if (!sending && (now >= until || !missing))
            break;
    }
    printf("{\"stall_ms\":%.3f,\"pairs\":{", (double)stall / 1e6);
    for (int index = 0; index < pair_count; index++) {
        if (pairs[index].received < pairs[index].sent)
            end_gap(&pairs[index], stopped); /* what has begun and not ended counts too */
        printf("%s\"%s\":", index ? "," : "", pairs[index].name);
        print_pair(&pairs[index]);
    }
    puts("}}");
    return 0;
}

/* --- what is told and heard: each datagram by itself, for whoever knows what should have become of it --- */

struct told {
    uint32_t pair;
    int64_t before, after;
};

struct heard {
    uint32_t teller, number;
    int64_t at;
};

/* The array with room for one more. */
static void *grown(void *array, size_t count, size_t size) {
    if (count & (count - 1) || (count && count < 1024))
        return array;
    if (!(array = realloc(array, (count ? count * 2 : 1024) * size)))
        die("realloc");
    return array;
}

/* Readable once a signal asks for the end. */
static int ending(void) {
    sigset_t ends;
    sigfillset(&ends);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    return signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void enter(const char *netns) {
    int fd = open(netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET))
        die(netns);
    close(fd);
}

static int hear(int count, char **targets) {
    struct pollfd waiting[MOST_PAIRS + 1];
    struct heard *all = NULL;
    struct packet packet;
    struct sockaddr_storage address, from;
    size_t found = 0;
    ssize_t length;
    int64_t at;
    int ttl;
    for (int index = 0; index < count; index++) {
        if (!strcmp(targets[0], "--netns") && count > 2) {
            enter(targets[1]);
            targets += 2, count -= 2;
        }
        socklen_t size = parse_target(*targets++, &address);
        if (index == MOST_PAIRS)
            wrong("that", "so few that they can be heard");
        waiting[index] = (struct pollfd){.fd = open_socket(address.ss_family), .events = POLLIN};
        if (bind(waiting[index].fd, (struct sockaddr *)&address, size))
            die("bind");
    }
    waiting[count] = (struct pollfd){.fd = ending(), .events = POLLIN};
    say_ready();
    do {
        poll(waiting, (nfds_t)count + 1, -1);
        for (int index = 0; index < count; index++)
            while ((length = receive(waiting[index].fd, &packet, &ttl, &at, &from)) >= 0 || errno != EAGAIN)
                if (length == sizeof packet && packet.magic == htonl(MAGIC)) {
                    all = grown(all, found, sizeof *all);
                    all[found++] = (struct heard){ntohl(packet.teller), ntohl(packet.number), at};
                }
    } while (!waiting[count].revents);
    for (size_t index = 0; index < found; index++)
        printf("%u %u %lld\n", all[index].teller, all[index].number, (long long)all[index].at);
    return 0;
}

/* One that the kernel refuses wasn't sent: it has no line, and its pair's turn comes again at once. */
static int tell(uint32_t teller) {
    struct pollfd waiting = {.fd = ending(), .events = POLLIN};
    const struct timespec moment = {0, 50000};
    struct told *all = NULL;
    uint32_t number = 0;
    puts("ready"); /* there may be many: none may take the processor from what is tested */
    fflush(stdout);
    while (poll(&waiting, 1, 0) == 0) {
        for (int index = 0; index < pair_count; index++) {
            struct pair *pair = &pairs[index];
            struct packet packet = {.magic = htonl(MAGIC), .number = htonl(number), .teller = htonl(teller)};
            int64_t before = now_of(CLOCK_MONOTONIC);
            if (before < pair->due
                || sendto(pair->fd, &packet, sizeof packet, 0, (struct sockaddr *)&pair->address, pair->size) < 0)
                continue;
            all = grown(all, number, sizeof *all);
            all[number++] = (struct told){(uint32_t)index, before, now_of(CLOCK_MONOTONIC)};
            pair->due = (pair->due ? pair->due : before) + pair->interval;
        }
        nanosleep(&moment, NULL);
    }
    for (uint32_t index = 0; index < number; index++)
        printf("%u %s %lld %lld\n", index, pairs[all[index].pair].name, (long long)all[index].before,
               (long long)all[index].after);
    return 0;
}

int main(int count, char **arguments) {
    double seconds = 0, rate = 1000;
    int telling = count > 3 && !strcmp(arguments[1], "tell");
    if (count == 4 && !strcmp(arguments[1], "echo"))
        echo(arguments[2], atoi(arguments[3]));
    if (count > 2 && count - 2 <= 3 * MOST_PAIRS && !strcmp(arguments[1], "hear"))
        return hear(count - 2, arguments + 2);
    for (int index = 2 + telling; (telling || (count > 2 && !strcmp(arguments[1], "send"))) && index + 1 < count;
         index += 2)
        if (!strcmp(arguments[index], "--rate"))
            rate = atof(arguments[index + 1]);
        else if (!strcmp(arguments[index], "--seconds"))
            seconds = atof(arguments[index + 1]);
        else if (!strcmp(arguments[index], "--pair"))
            add_pair(arguments[index + 1], rate);
    if (pair_count)
        return telling ? tell((uint32_t)atoi(arguments[2])) : send_all(seconds);
    fputs("usage: prober echo ADDRESS PORT | send [--seconds S] [--rate HZ] --pair NAME=ADDRESS:PORT ...\n"
          "       prober hear [--netns PATH] ADDRESS:PORT ... | tell ID [--rate HZ] --pair NAME=ADDRESS:PORT ...\n", stderr);
    return 2;
}
