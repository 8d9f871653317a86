/* blast ADDRESS PORT BATCHES [established]

   The cost of one forwarded datagram: veth carries a packet through the whole forward path within send(), so the time of
   send() is the path's. Prints nanoseconds a packet, the minimum over batches of 200 and the lower quartile. With a fourth
   argument one answer is waited for first: then the flow is established. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 200, WARM_UP = 20 };

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(int count, char **argument) {
    struct sockaddr_in6 target6 = {.sin6_family = AF_INET6};
    struct sockaddr_in target = {.sin_family = AF_INET};
    char payload[64] = {0}, answer[8];
    if (count < 4) return 1;
    int batches = atoi(argument[3]), six = inet_pton(AF_INET6, argument[1], &target6.sin6_addr) == 1;
    target.sin_port = target6.sin6_port = htons(atoi(argument[2]));
    if (!six && inet_pton(AF_INET, argument[1], &target.sin_addr) != 1) return 1;
    int s = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
    if (connect(s, six ? (void *)&target6 : (void *)&target, six ? sizeof target6 : sizeof target)) return 2;
    if (count > 4) {
        struct timeval patience = {2, 0};
        setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        send(s, payload, sizeof payload, 0);
        if (recv(s, answer, sizeof answer, 0) < 0) return 3;
    }
    double *took = malloc(batches * sizeof *took);
    for (int batch = -WARM_UP; batch < batches; batch++) {
        double began = now_ns();
        for (int packet = 0; packet < BATCH; packet++) send(s, payload, sizeof payload, 0);
        if (batch >= 0) took[batch] = (now_ns() - began) / BATCH;
    }
    qsort(took, batches, sizeof *took, ascending);
    printf("%.1f %.1f\n", took[0], took[batches / 4]);
    return 0;
}
