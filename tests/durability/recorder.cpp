// Stands between a process and the kernel (LD_PRELOAD): writes down every operation
// on the files of one folder, in order, and can make one of them fail or the last.
//
// DISK_FOLDER   absolute path; what is below it, and it itself, is watched
// DISK_TRACE    file that the operations are appended to, as recorder.py reads them
// DISK_CONTROL  file of one `Control`, which a test changes while the process runs

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <mutex>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

enum Operation : uint32_t { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, UNLINK, RENAME, MKDIR };
enum Action : int32_t { NOTHING, FAIL, KILL_BEFORE, KILL_HALFWAY, KILL_AFTER };

// Shared with recorder.py. An operation is numbered by how many of the kinds asked
// for came before it.
struct Control {
    std::atomic<int64_t> seen;
    int64_t first;  // number of the first operation that is acted on
    int64_t count;  // how many of them in a row
    int64_t period; // after how many it starts again; 0 for never
    uint32_t kinds; // bit `1 << Operation`
    int32_t action;
    int32_t error; // errno of FAIL
};

struct Record {
    uint32_t operation;
    int32_t error; // 0 or errno
    uint64_t file; // inode
    int64_t offset; // of a write, or the length of a truncation
    uint32_t path_bytes;
    uint32_t data_bytes;
};

constexpr int MAX_FD = 65536;
struct Watched {
    uint64_t file;
    std::string folder; // set for a folder
};

std::recursive_mutex mutex;
Watched *watched[MAX_FD];
Control *control;
int trace = -1;
const char *root;

template <typename F> F next(const char *name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

bool is_watched(const char *path) {
    size_t length = root ? std::strlen(root) : 0;
    return root && !std::strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

__attribute__((constructor)) void start() {
    root = std::getenv("DISK_FOLDER");
    if (!root) return;
    if (const char *name = std::getenv("DISK_TRACE"))
        trace = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (const char *name = std::getenv("DISK_CONTROL")) {
        int fd = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
        void *page = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) control = static_cast<Control *>(page);
        syscall(SYS_close, fd);
    }
}

void record(Operation operation, int error, uint64_t file, int64_t offset, const std::string &path,
            const void *data, size_t bytes) {
    if (trace < 0) return;
    Record head{operation, error, file, offset, uint32_t(path.size()), uint32_t(bytes)};
    iovec parts[3] = {{&head, sizeof head},
                      {const_cast<char *>(path.data()), path.size()},
                      {const_cast<void *>(data), bytes}};
    size_t total = sizeof head + path.size() + bytes;
    if (syscall(SYS_writev, trace, parts, 3) != ssize_t(total)) {
        std::fputs("The recorder cannot write its trace.\n", stderr);
        std::abort();
    }
}

// What to do with the next operation of a kind.
Action decide(Operation operation) {
    if (!control || !(control->kinds >> operation & 1)) return NOTHING;
    int64_t number = control->seen++;
    int64_t since = number - control->first;
    if (control->period && since >= 0) since %= control->period;
    bool hit = since >= 0 && since < control->count;
    return hit ? Action(control->action) : NOTHING;
}

void die() { kill(getpid(), SIGKILL); }

// Runs an operation that returns -1 when it fails, and writes it down.
template <typename Call>
int run(Operation operation, uint64_t file, int64_t offset, const std::string &path, Call call) {
    Action action = decide(operation);
    if (action == KILL_BEFORE || action == KILL_HALFWAY) die();
    int result = action == FAIL ? -1 : call();
    int error = action == FAIL ? control->error : result < 0 ? errno : 0;
    bool synced = operation == SYNC || operation == SYNC_FOLDER;
    if (!error || synced) record(operation, error, file, offset, path, nullptr, 0);
    if (action == KILL_AFTER) die();
    errno = error;
    return result;
}

Watched *of(int fd) { return fd >= 0 && fd < MAX_FD ? watched[fd] : nullptr; }

// Writes, as `put(data, bytes)` does at `offset`.
template <typename Put>
ssize_t put_bytes(Watched *file, const void *data, size_t bytes, int64_t offset, Put put) {
    Action action = decide(WRITE);
    if (action == KILL_BEFORE) die();
    if (action == FAIL) {
        errno = control->error;
        return -1;
    }
    ssize_t written = put(data, action == KILL_HALFWAY ? bytes / 2 : bytes);
    int error = errno;
    if (written > 0) record(WRITE, 0, file->file, offset, "", data, written);
    if (action == KILL_HALFWAY || action == KILL_AFTER) die();
    errno = error;
    return written;
}

int opened(int folder, const char *path, int flags, mode_t mode) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (!is_watched(path)) return syscall(SYS_openat, folder, path, flags, mode);
    struct stat before;
    bool existed = !stat(path, &before);
    bool creates = !existed && flags & O_CREAT;
    Action action = creates ? decide(CREATE) : NOTHING;
    if (action == KILL_BEFORE || action == KILL_HALFWAY) die();
    if (action == FAIL) {
        errno = control->error;
        return -1;
    }
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    if (fd < 0 || fd >= MAX_FD) return fd;
    struct stat after;
    fstat(fd, &after);
    delete watched[fd];
    watched[fd] = new Watched{after.st_ino, S_ISDIR(after.st_mode) ? path : ""};
    if (creates) record(CREATE, 0, after.st_ino, 0, path, nullptr, 0);
    if (existed && flags & O_TRUNC && after.st_size == 0)
        record(TRUNCATE, 0, after.st_ino, 0, "", nullptr, 0);
    if (action == KILL_AFTER) die();
    return fd;
}

int synced(int fd, const char *name) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto real = next<int (*)(int)>(name);
    Watched *file = of(fd);
    if (!file) return real(fd);
    Operation operation = file->folder.empty() ? SYNC : SYNC_FOLDER;
    return run(operation, file->file, 0, file->folder, [&] { return real(fd); });
}

int truncated(int fd, int64_t length) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto real = next<int (*)(int, int64_t)>("ftruncate64");
    Watched *file = of(fd);
    if (!file) return real(fd, length);
    return run(TRUNCATE, file->file, length, "", [&] { return real(fd, length); });
}

ssize_t put_at(int fd, const void *data, size_t bytes, int64_t offset) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto real = next<ssize_t (*)(int, const void *, size_t, int64_t)>("pwrite64");
    Watched *file = of(fd);
    if (!file) return real(fd, data, bytes, offset);
    auto put = [&](const void *from, size_t count) { return real(fd, from, count, offset); };
    return put_bytes(file, data, bytes, offset, put);
}

mode_t mode_of(int flags, va_list arguments) {
    bool creates = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
    return creates ? va_arg(arguments, mode_t) : 0;
}

} // namespace

extern "C" {

#define OPEN(name, extra)                                                                          \
    int name(const char *path, int flags, ...) {                                                   \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode_t mode = mode_of(flags, arguments);                                                   \
        va_end(arguments);                                                                         \
        return opened(AT_FDCWD, path, flags | extra, mode);                                        \
    }
OPEN(open, 0)
OPEN(open64, O_LARGEFILE)

#define OPENAT(name)                                                                               \
    int name(int folder, const char *path, int flags, ...) {                                       \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode_t mode = mode_of(flags, arguments);                                                   \
        va_end(arguments);                                                                         \
        return opened(folder, path, flags, mode);                                                  \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (Watched *file = of(fd)) {
        delete file;
        watched[fd] = nullptr;
    }
    return syscall(SYS_close, fd);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    return put_at(fd, data, bytes, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) {
    return put_at(fd, data, bytes, offset);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    Watched *file = of(fd);
    if (!file) return syscall(SYS_write, fd, data, bytes);
    std::lock_guard<std::recursive_mutex> lock(mutex);
    int64_t offset = lseek(fd, 0, SEEK_CUR);
    auto put = [&](const void *from, size_t count) { return syscall(SYS_write, fd, from, count); };
    return put_bytes(file, data, bytes, offset, put);
}

int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncated(fd, length); }
int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

int unlink(const char *path) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto real = next<int (*)(const char *)>("unlink");
    if (!is_watched(path)) return real(path);
    return run(UNLINK, 0, 0, path, [&] { return real(path); });
}

int rename(const char *from, const char *to) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto real = next<int (*)(const char *, const char *)>("rename");
    if (!is_watched(from) && !is_watched(to)) return real(from, to);
    return run(RENAME, 0, 0, std::string(from) + '\0' + to, [&] { return real(from, to); });
}

int mkdir(const char *path, mode_t mode) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto real = next<int (*)(const char *, mode_t)>("mkdir");
    if (!is_watched(path)) return real(path, mode);
    return run(MKDIR, 0, 0, path, [&] { return real(path, mode); });
}

} // extern "C"
