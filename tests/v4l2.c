/* Lets a file stand for a virtual camera: /dev/video42 is opened as $V4L2_FILE, and takes formats as v4l2loopback does.
   What is set is written to $V4L2_FILE.format: pixel format, width, height. The moment of each frame is written to
   $V4L2_FILE.times: seconds of the monotonic clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int device = -1;

static FILE *beside(const char *suffix, const char *mode) {
    char name[4096];
    snprintf(name, sizeof name, "%s.%s", getenv("V4L2_FILE"), suffix);
    return fopen(name, mode);
}

static int opened(const char *symbol, const char *path, int flags, int mode) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, symbol);
    if (strcmp(path, "/dev/video42") != 0) return real(path, flags, mode);
    return device = real(getenv("V4L2_FILE"), O_RDWR | O_CREAT | O_TRUNC, 0600);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return opened("open64", path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (fd == device && device >= 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        FILE *file = beside("times", "a");
        fprintf(file, "%lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
        fclose(file);
    }
    return real(fd, data, size);
}

int ioctl(int fd, unsigned long request, ...) {
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd != device || device < 0) return real(fd, request, argument);
    if ((unsigned int)request == VIDIOC_S_FMT) {
        struct v4l2_format *format = argument;
        FILE *file = beside("format", "w");
        fprintf(file, "%.4s %u %u %u\n", (char *)&format->fmt.pix.pixelformat, format->fmt.pix.width,
                format->fmt.pix.height, format->type);
        fclose(file);
    }
    return 0;
}
