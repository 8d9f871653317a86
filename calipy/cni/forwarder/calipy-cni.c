/* calipy-cni: the program that a container runtime executes. It holds no logic and no credentials.
 *
 * It sends ONE line to the agent's Unix socket, {"env":{"CNI_COMMAND":...},"stdin":"..."}, with the network namespace
 * opened at CNI_NETNS as a descriptor (SCM_RIGHTS) on the first byte, and relays the answer: a digit, the exit status,
 * then what goes to standard output, until the end.
 *
 * Alone it answers VERSION, and STATUS: ready if CLOCK_BOOTTIME is past the ready file's first number (seconds) by at
 * most its second; so a restart of the agent turns no node NotReady. With no agent, or one that dies, everything else
 * is CNI error 11, try again later.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 90

static const char *const variables[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS",
                                        "CNI_PATH", "CNI_NETNS_OVERRIDE", NULL};
static const char *const versions[] = {"0.3.1", "0.4.0", "1.0.0", "1.1.0", NULL};

struct buffer {
    char *data;
    size_t length, room;
};

static void append(struct buffer *to, const char *from, size_t length) {
    if (to->length + length + 1 > to->room) {
        to->room = (to->length + length) * 2 + 4096;
        if (!(to->data = realloc(to->data, to->room))) _exit(1);
    }
    memcpy(to->data + to->length, from, length);
    to->data[to->length += length] = 0;
}

static void append_text(struct buffer *to, const char *text) { append(to, text, strlen(text)); }

/* The inside of a JSON string. Bytes from 0x80 on pass: the agent judges the encoding. */
static void append_escaped(struct buffer *to, const char *from, size_t length) {
    char code[8];
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)from[i];
        if (byte == '"' || byte == '\\')
            append(to, (char[]){'\\', (char)byte}, 2);
        else if (byte < 0x20 || byte == 0x7f)
            append(to, code, (size_t)snprintf(code, sizeof code, "\\u%04x", byte));
        else
            append(to, from + i, 1);
    }
}

static int put(int file, const char *from, size_t length) {
    while (length) {
        ssize_t written = write(file, from, length);
        if (written < 0 && errno != EINTR) return -1;
        if (written > 0) from += written, length -= (size_t)written;
    }
    return 0;
}

static int get_all(int file, struct buffer *to) {
    char chunk[65536];
    for (;;) {
        ssize_t got = read(file, chunk, sizeof chunk);
        if (got == 0) return 0;
        if (got > 0) append(to, chunk, (size_t)got);
        else if (errno != EINTR) return -1;
    }
}

/* The value of the configuration's own "cniVersion": keys of nested objects (prevResult has one too) don't count. */
static const char *asked_version(const char *json) {
    static char found[16];
    int depth = 0;
    for (const char *at = json; *at; at++) {
        if (*at == '{' || *at == '[') depth++;
        else if (*at == '}' || *at == ']') depth--;
        else if (*at == '"') {
            const char *start = ++at;
            while (*at && *at != '"') at += *at == '\\' && at[1] ? 2 : 1;
            if (!*at) break;
            if (depth != 1 || at - start != 10 || strncmp(start, "cniVersion", 10)) continue;
            const char *value = at + 1;
            while (isspace((unsigned char)*value)) value++;
            if (*value++ != ':') continue;
            while (isspace((unsigned char)*value)) value++;
            if (sscanf(value, "\"%15[0-9.]\"", found) == 1) return found;
        }
    }
    return "0.4.0";
}

static int fail(const char *version, int code, const char *message, const char *format, ...) {
    char details[512];
    struct buffer out = {0};
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(details, sizeof details, format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof details) length = sizeof details - 1;
    char head[64];
    snprintf(head, sizeof head, "\",\"code\":%d,\"msg\":\"", code);
    append_text(&out, "{\"cniVersion\":\""), append_text(&out, version), append_text(&out, head);
    append_escaped(&out, message, strlen(message));
    append_text(&out, "\",\"details\":\""), append_escaped(&out, details, (size_t)length), append_text(&out, "\"}\n");
    put(1, out.data, out.length);
    return 1;
}

static int answer_version(const char *version) {
    const char *answered = "1.1.0";
    for (int i = 0; versions[i]; i++)
        if (!strcmp(versions[i], version)) answered = versions[i];
    printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", answered);
    return fflush(stdout) ? 1 : 0;
}

static int answer_status(const char *version) {
    const char *path = getenv("CALIPY_READY_FILE");
    if (!path) path = "/run/calipy/ready";
    const char *message = "this node cannot attach pods";
    double since = 0, grace = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return fail(version, 50, message, "%s: %s: the CalIPy agent has not been ready since this node booted; "
                    "look at the agent's log", path, strerror(errno));
    int numbers = fscanf(file, "%lf %lf", &since, &grace);
    fclose(file);
    if (numbers != 2)
        return fail(version, 50, message, "%s does not hold two numbers; restart the CalIPy agent", path);
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    double age = (double)now.tv_sec + (double)now.tv_nsec / 1e9 - since;
    if (age > grace)
        return fail(version, 50, message, "%s is %.0f s old (limit %.0f s): the CalIPy agent is absent or can't attach "
                    "pods; look at its log", path, age, grace);
    return 0;
}

/* Sends the request with the namespace's descriptor on its first byte. */
static int send_request(int agent, const struct buffer *request) {
    const char *path = getenv("CNI_NETNS");
    int namespace = path && *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {request->data, request->length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (namespace >= 0) {
        message.msg_control = control.room, message.msg_controllen = sizeof control.room;
        control.header.cmsg_level = SOL_SOCKET, control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &namespace, sizeof(int));
    }
    ssize_t sent;
    do sent = sendmsg(agent, &message, 0);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 || put(agent, request->data + sent, request->length - (size_t)sent)) return -1;
    return shutdown(agent, SHUT_WR);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    struct buffer input = {0}, request = {0}, answer = {0};
    append(&input, "", 0);
    if (get_all(0, &input)) return fail("0.4.0", 5, "cannot read the configuration", "%s", strerror(errno));
    const char *version = asked_version(input.data), *command = getenv("CNI_COMMAND");
    if (!command || !*command)
        return fail(version, 4, "CNI_COMMAND is not set", "a container runtime sets it; this program is not for people");
    if (!strcmp(command, "VERSION")) return answer_version(version);
    if (!strcmp(command, "STATUS")) return answer_status(version);

    const char *message = "the CalIPy agent is not there; try again later";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("CALIPY_CNI_SOCKET");
    if (!path) path = "/run/calipy/cni.sock";
    if (strlen(path) >= sizeof address.sun_path) return fail(version, 11, message, "%s: path too long", path);
    strcpy(address.sun_path, path);

    append_text(&request, "{\"env\":{");
    for (int i = 0, first = 1; variables[i]; i++) {
        const char *value = getenv(variables[i]);
        if (!value) continue;
        append_text(&request, first ? "\"" : ",\""), append_text(&request, variables[i]);
        append_text(&request, "\":\""), append_escaped(&request, value, strlen(value)), append_text(&request, "\"");
        first = 0;
    }
    append_text(&request, "},\"stdin\":\""), append_escaped(&request, input.data, input.length);
    append_text(&request, "\"}\n");

    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = PATIENCE_S};
    if (agent < 0 || setsockopt(agent, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) ||
        connect(agent, (struct sockaddr *)&address, sizeof address) || send_request(agent, &request) ||
        get_all(agent, &answer))
        return fail(version, 11, errno == EAGAIN ? "the CalIPy agent does not answer; try again later" : message,
                    "%s: %s", path, errno == EAGAIN ? "no answer for too long" : strerror(errno));
    if (!answer.length) return fail(version, 11, message, "%s: the agent went away without an answer", path);
    if (put(1, answer.data + 1, answer.length - 1)) return 1;
    return answer.data[0] - '0';
}
