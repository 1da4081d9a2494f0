/* Lets a file stand for a camera: /dev/video42 gives the pictures of $V4L2_FILE, which are 320x240 in YUYV, again and
   again at 25 frames per second. While there is no such file, the device has been unplugged. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 320, HEIGHT = 240, SIZE = 2 * WIDTH * HEIGHT, ROOM = (SIZE + 4095) / 4096 * 4096, BUFFERS = 4 };

static int device = -1;
static unsigned next;

static int is_gone(void) { return access(getenv("V4L2_FILE"), R_OK) != 0; }

static int opened(const char *symbol, const char *path, int flags, int mode) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, symbol);
    if (strcmp(path, "/dev/video42") != 0) return real(path, flags, mode);
    int file = real(getenv("V4L2_FILE"), O_RDONLY);
    if (file < 0) return -1;
    device = memfd_create("camera", MFD_CLOEXEC);
    for (int i = 0; i < BUFFERS; i++) {
        char picture[ROOM] = {0};
        if (pread(file, picture, SIZE, (off_t)i * SIZE) != SIZE || pwrite(device, picture, ROOM, (off_t)i * ROOM) < 0) abort();
    }
    close(file);
    next = 0;
    return device;
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

static int dequeue(struct v4l2_buffer *buffer) {
    struct timespec pause = {0, 40000000}, now;
    nanosleep(&pause, NULL);
    if (is_gone()) return errno = ENODEV, -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    buffer->index = next++ % BUFFERS;
    buffer->bytesused = SIZE;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp.tv_sec = now.tv_sec;
    buffer->timestamp.tv_usec = now.tv_nsec / 1000;
    return 0;
}

static int answer(unsigned request, void *argument) {
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *can = argument;
        can->capabilities = can->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_G_INPUT: *(int *)argument = 0; return 0;
    case VIDIOC_G_FMT:
    case VIDIOC_S_FMT: {
        struct v4l2_pix_format *picture = &((struct v4l2_format *)argument)->fmt.pix;
        picture->width = WIDTH;
        picture->height = HEIGHT;
        picture->pixelformat = V4L2_PIX_FMT_YUYV;
        picture->field = V4L2_FIELD_NONE;
        picture->bytesperline = 2 * WIDTH;
        picture->sizeimage = SIZE;
        return 0;
    }
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_captureparm *pace = &((struct v4l2_streamparm *)argument)->parm.capture;
        pace->capability = V4L2_CAP_TIMEPERFRAME;
        pace->timeperframe = (struct v4l2_fract){1, 25};
        return 0;
    }
    case VIDIOC_REQBUFS: ((struct v4l2_requestbuffers *)argument)->count = BUFFERS; return 0;
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        buffer->length = ROOM;
        buffer->m.offset = buffer->index * ROOM;
        return 0;
    }
    case VIDIOC_DQBUF: return dequeue(argument);
    case VIDIOC_ENUMINPUT:
    case VIDIOC_QBUF:
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF: return 0;
    }
    errno = ENOTTY; /* whatever this camera does not have */
    return -1;
}

int ioctl(int fd, unsigned long request, ...) {
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fd != device || device < 0 ? real(fd, request, argument) : answer((unsigned)request, argument);
}
