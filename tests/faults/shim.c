/* Between a program and the C library: what it asks of files under one folder is counted, may be
 * made to fail, and may be written down.
 *
 * Loaded with LD_PRELOAD. Set from the environment when the program starts, or by faults_arm() in a
 * process that was forked from one:
 *
 *   FAULTS_ROOT   the folder; calls that concern nothing below it are left alone
 *   FAULTS_CALL   open, read, write, sync, rename, truncate, mmap, close, mkdir, unlink, lock
 *   FAULTS_KIND   an errno's number; or -1 short count, -2 SIGKILL, -3 a slow call (see USEC)
 *   FAULTS_NTH    which call of those fails, from 1; 0 none
 *   FAULTS_LAST   0: that one alone; 1: it and all after it (a disk that stays full)
 *   FAULTS_FIRED  a file that gets a line for the first call that was made to fail
 *   FAULTS_LOG    a file that gets a record of every call that changes something
 *   FAULTS_JUMP   seconds that the clock of the day is put forward or back, after FAULTS_NTH looks
 *
 * A record is a line, "op\tinode\toffset\tsize\tpath\tsecond path\n", and `size` bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SHORT = -1, KILL = -2, SLOW = -3 };

static char root[PATH_MAX], call_name[32];
static long kind, nth, last, seen, fired, jump, looks;
static int log_fd = -1, fired_fd = -1;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static int high_file(const char *path) {
    if (!path || !*path) return -1;
    int low = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (low < 0) return -1;
    int high = syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, 900); /* out of the program's way */
    syscall(SYS_close, low);
    return high;
}

void faults_arm(const char *folder, const char *call, long how, long which, long all_after,
                const char *fired_path, const char *log_path, long clock_jump) {
    snprintf(call_name, sizeof call_name, "%s", call);
    kind = how, nth = which, last = all_after, jump = clock_jump;
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
    fired_fd = high_file(fired_path), log_fd = high_file(log_path);
    snprintf(root, sizeof root, "%s", folder);
}

static const char *say(const char *name) { return getenv(name) ? getenv(name) : ""; }

__attribute__((constructor)) static void begin(void) {
    if (*say("FAULTS_ROOT"))
        faults_arm(say("FAULTS_ROOT"), say("FAULTS_CALL"), atol(say("FAULTS_KIND")),
                   atol(say("FAULTS_NTH")), atol(say("FAULTS_LAST")), say("FAULTS_FIRED"),
                   say("FAULTS_LOG"), atol(say("FAULTS_JUMP")));
}

/* Paths */

static int below(const char *path) {
    size_t n = strlen(root);
    return n && strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static void of_fd(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    out[n < 0 ? 0 : n] = 0;
}

static void of_path(int dir, const char *path, char *out) {
    if (!path) path = "";
    while (path[0] == '.' && path[1] == '/') path += 2;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    if (dir == AT_FDCWD) {
        if (syscall(SYS_getcwd, out, PATH_MAX) < 0) out[0] = 0;
    } else of_fd(dir, out);
    size_t n = strlen(out);
    if (strcmp(path, ".") != 0) snprintf(out + n, PATH_MAX - n, "/%s", path);
}

static int plain(int fd) { /* pipes and sockets are nobody's output */
    struct stat about;
    return syscall(SYS_fstat, fd, &about) == 0 && (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode));
}

/* Faults */

static void note(const char *what, const char *path) {
    char line[PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%s %s\n", what, path);
    if (fired_fd >= 0) syscall(SYS_write, fired_fd, line, n);
}

static const char *const CALLS[] = {"open", "read", "write", "sync", "rename", "truncate", "mmap",
                                    "close", "mkdir", "unlink", "lock"};
enum { CALLS_KNOWN = sizeof CALLS / sizeof *CALLS };
static long counts[CALLS_KNOWN];

/* How many of a kind of call there were, whatever became of them. */
long faults_count(const char *call) {
    for (int i = 0; i < CALLS_KNOWN; i++)
        if (strcmp(call, CALLS[i]) == 0) return counts[i];
    return -1;
}

/* 0: let it be; SHORT: do less of it; else errno is set. */
static int hit(const char *call, const char *path) {
    if (!below(path)) return 0;
    for (int i = 0; i < CALLS_KNOWN; i++)
        if (strcmp(call, CALLS[i]) == 0) __atomic_add_fetch(&counts[i], 1, __ATOMIC_SEQ_CST);
    if (!nth || jump || strcmp(call, call_name) != 0) return 0;
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (last ? now < nth : now != nth) return 0;
    if (!__atomic_exchange_n(&fired, 1, __ATOMIC_SEQ_CST)) note(call, path);
    if (kind == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    if (kind == SLOW) {
        struct timespec wait = {0, 50 * 1000 * 1000};
        syscall(SYS_nanosleep, &wait, NULL);
        return 0;
    }
    if (kind > 0) errno = kind;
    return kind;
}

static int hit_fd(const char *call, int fd, char *path) {
    path[0] = 0;
    if (!root[0] || fd < 0) return 0;
    of_fd(fd, path);
    return below(path) && plain(fd) ? hit(call, path) : 0;
}

static int hit_path(const char *call, int dir, const char *name, char *path) {
    path[0] = 0;
    if (!root[0]) return 0;
    of_path(dir, name, path);
    return hit(call, path);
}

static size_t less(size_t count, int how) { return how == SHORT && count > 1 ? count / 2 : count; }

/* Records */

static void record(const char *op, const char *path, const char *other, long a, long b,
                   const void *data, size_t size) {
    if (log_fd < 0 || !(below(path) || (other && below(other)))) return;
    char line[2 * PATH_MAX + 128];
    int n = snprintf(line, sizeof line, "%s\t%ld\t%ld\t%zu\t%s\t%s\n", op, a, b, size, path,
                     other ? other : "");
    struct iovec parts[] = {{line, n}, {(void *)data, size}}; /* at once: others write here too */
    syscall(SYS_writev, log_fd, parts, 2);
}

static long inode(int fd) {
    struct stat about;
    return syscall(SYS_fstat, fd, &about) == 0 ? (long)about.st_ino : -1;
}

/* What is written down happens under a lock, so that records have the order of the disk. */
static void in_order(void) { if (log_fd >= 0) pthread_mutex_lock(&log_lock); }
static void done(void) {
    int kept = errno;
    if (log_fd >= 0) pthread_mutex_unlock(&log_lock);
    errno = kept;
}

/* The calls */

static int do_open(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (hit_path("open", dir, name, path) > 0) return -1;
    in_order();
    struct stat before;
    int was_there = log_fd < 0 || syscall(SYS_newfstatat, dir, name, &before, 0) == 0;
    int fd = syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= 0 && log_fd >= 0 && (flags & O_ACCMODE) != O_RDONLY) {
        if (!was_there) record("create", path, NULL, inode(fd), 0, NULL, 0);
        if (flags & O_TRUNC) record("truncate", path, NULL, inode(fd), 0, NULL, 0);
    }
    done();
    return fd;
}

#define MODE_OF(flags) ({ mode_t mode_ = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, flags); \
        mode_ = va_arg(list, mode_t); va_end(list); } mode_; })

int open(const char *name, int flags, ...) { return do_open(AT_FDCWD, name, flags, MODE_OF(flags)); }
int open64(const char *name, int flags, ...) {
    return do_open(AT_FDCWD, name, flags | O_LARGEFILE, MODE_OF(flags));
}
int openat(int dir, const char *name, int flags, ...) {
    return do_open(dir, name, flags, MODE_OF(flags));
}
int openat64(int dir, const char *name, int flags, ...) {
    return do_open(dir, name, flags | O_LARGEFILE, MODE_OF(flags));
}

static ssize_t do_write(int fd, const void *data, size_t count, off_t offset, int has_offset) {
    char path[PATH_MAX];
    int how = hit_fd("write", fd, path);
    if (how > 0) return -1;
    count = less(count, how);
    in_order();
    off_t at = offset;
    if (!has_offset && log_fd >= 0) {
        int appends = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND;
        at = syscall(SYS_lseek, fd, 0, appends ? SEEK_END : SEEK_CUR);
    }
    ssize_t wrote = has_offset ? syscall(SYS_pwrite64, fd, data, count, offset)
                               : syscall(SYS_write, fd, data, count);
    if (wrote > 0 && path[0]) record("write", path, NULL, inode(fd), at, data, wrote);
    done();
    return wrote;
}

ssize_t write(int fd, const void *data, size_t count) { return do_write(fd, data, count, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    return do_write(fd, data, count, at, 1);
}
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    return do_write(fd, data, count, at, 1);
}
ssize_t writev(int fd, const struct iovec *parts, int count) { /* the first part: a short write */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return do_write(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
    return 0;
}

/* Copies inside the kernel are made by reads and writes instead, which are seen. */
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t n, unsigned flags) {
    if (!root[0]) return syscall(SYS_copy_file_range, from, at, to, there, n, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t n) {
    if (!root[0]) return syscall(SYS_sendfile, to, from, at, n);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) { return sendfile(to, from, at, n); }

ssize_t read(int fd, void *data, size_t count) {
    char path[PATH_MAX];
    int how = hit_fd("read", fd, path);
    return how > 0 ? -1 : syscall(SYS_read, fd, data, less(count, how));
}
ssize_t pread64(int fd, void *data, size_t count, off64_t at) {
    char path[PATH_MAX];
    int how = hit_fd("read", fd, path);
    return how > 0 ? -1 : syscall(SYS_pread64, fd, data, less(count, how), at);
}
ssize_t pread(int fd, void *data, size_t count, off_t at) { return pread64(fd, data, count, at); }

/* All that is in a file goes with its sync: the C library's own functions (fwrite) write unseen. */
static void record_sync(int fd, const char *path) {
    struct stat about;
    char *content = NULL;
    long size = 0;
    if (syscall(SYS_fstat, fd, &about) == 0 && S_ISREG(about.st_mode)) {
        int again = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        content = malloc(about.st_size + 1);
        while (again >= 0 && content && size < about.st_size) {
            long got = syscall(SYS_pread64, again, content + size, about.st_size - size, size);
            if (got <= 0) break;
            size += got;
        }
        if (again >= 0) syscall(SYS_close, again);
    }
    record("sync", path, NULL, inode(fd), 0, content, size);
    free(content);
}

static int do_sync(long number, int fd) {
    char path[PATH_MAX];
    if (hit_fd("sync", fd, path) > 0) return -1;
    in_order();
    int result = syscall(number, fd);
    if (result == 0 && path[0] && log_fd >= 0) record_sync(fd, path);
    done();
    return result;
}
int fsync(int fd) { return do_sync(SYS_fsync, fd); }
int fdatasync(int fd) { return do_sync(SYS_fdatasync, fd); }

static int do_rename(int dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char path[PATH_MAX], other[PATH_MAX];
    if (hit_path("rename", dir, from, path) > 0) return -1;
    if (root[0]) of_path(to_dir, to, other);
    in_order();
    int result = syscall(SYS_renameat2, dir, from, to_dir, to, flags);
    if (result == 0 && root[0]) record("rename", path, other, 0, 0, NULL, 0);
    done();
    return result;
}
int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int dir, const char *from, int to_dir, const char *to) {
    return do_rename(dir, from, to_dir, to, 0);
}
int renameat2(int dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return do_rename(dir, from, to_dir, to, flags);
}

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    if (hit_fd("truncate", fd, path) > 0) return -1;
    in_order();
    int result = syscall(SYS_ftruncate, fd, size);
    if (result == 0 && path[0]) record("truncate", path, NULL, inode(fd), size, NULL, 0);
    done();
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int truncate64(const char *name, off64_t size) {
    int fd = do_open(AT_FDCWD, name, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, size), kept = errno;
    syscall(SYS_close, fd);
    errno = kept;
    return result;
}
int truncate(const char *name, off_t size) { return truncate64(name, size); }

void *mmap64(void *at, size_t size, int use, int flags, int fd, off64_t offset) {
    char path[PATH_MAX];
    if (hit_fd("mmap", fd, path) > 0) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, size, use, flags, fd, offset);
}
void *mmap(void *at, size_t size, int use, int flags, int fd, off_t offset) {
    return mmap64(at, size, use, flags, fd, offset);
}

int close(int fd) {
    char path[PATH_MAX];
    int how = hit_fd("close", fd, path), kept = errno;
    int result = syscall(SYS_close, fd); /* it is closed, whatever is said of it */
    if (how <= 0) return result;
    errno = kept;
    return -1;
}

static int do_change(const char *call, int dir, const char *name, long number, long argument) {
    char path[PATH_MAX];
    if (hit_path(call, dir, name, path) > 0) return -1;
    in_order();
    int result = syscall(number, dir, name, argument);
    if (result == 0 && root[0]) record(call, path, NULL, 0, 0, NULL, 0);
    done();
    return result;
}
int mkdir(const char *name, mode_t mode) {
    return do_change("mkdir", AT_FDCWD, name, SYS_mkdirat, mode);
}
int mkdirat(int dir, const char *name, mode_t mode) {
    return do_change("mkdir", dir, name, SYS_mkdirat, mode);
}
int unlink(const char *name) { return do_change("unlink", AT_FDCWD, name, SYS_unlinkat, 0); }
int rmdir(const char *name) {
    return do_change("unlink", AT_FDCWD, name, SYS_unlinkat, AT_REMOVEDIR);
}
int unlinkat(int dir, const char *name, int flags) {
    return do_change("unlink", dir, name, SYS_unlinkat, flags);
}

int flock(int fd, int how) {
    char path[PATH_MAX];
    return hit_fd("lock", fd, path) > 0 ? -1 : syscall(SYS_flock, fd, how);
}

/* The clock of the day, which somebody may set; the one that only counts seconds stays. */
static void put_forward(struct timespec *now) {
    if (jump && __atomic_add_fetch(&looks, 1, __ATOMIC_SEQ_CST) > nth) now->tv_sec += jump;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) put_forward(now);
    return result;
}
