//! The list itself.

/// When a call is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// Whatever its arguments.
    Always,
    /// When this argument has none of these bits.
    WithoutFlags(u8, u64),
    /// When this argument (32 bits of it) is one of these.
    OneOf(u8, &'static [u64]),
    /// When the socket is of one of these families, and of that protocol where one is named.
    Sockets(&'static [(u64, Option<u64>)]),
}

/// One allowed call.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: i64,
    pub(super) when: When,
    /// What needs it. For readers of this file; a test sees that it is there.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people"))]
    pub(super) reason: &'static str,
}

const fn allow(number: i64, reason: &'static str) -> Entry {
    Entry { number, when: When::Always, reason }
}

const fn allow_if(number: i64, when: When, reason: &'static str) -> Entry {
    Entry { number, when, reason }
}

/// Flags of `clone` that make a namespace.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Requests about descriptors, terminals that are none (`isatty`) and network interfaces. Nothing here changes more than a flag of
/// the caller's own descriptor.
const IOCTLS: &[u64] = &[
    0x5401,      // TCGETS: isatty()
    0x802c_542a, // TCGETS2: isatty() of new C libraries
    0x540f,      // TIOCGPGRP: shells, at start
    0x5411,      // TIOCOUTQ: unsent bytes of a socket
    0x5413,      // TIOCGWINSZ: terminal width
    0x541b,      // FIONREAD: bytes to read
    0x5421,      // FIONBIO: non-blocking; libuv, Rust
    0x5450,      // FIONCLEX: keep across exec
    0x5451,      // FIOCLEX: close on exec; Rust, libuv
    0x5452,      // FIOASYNC: signal-driven descriptors
    0x8910,      // SIOCGIFNAME: if_indextoname()
    0x8912,      // SIOCGIFCONF: lists interfaces
    0x8913,      // SIOCGIFFLAGS: reads an interface
    0x8915,      // SIOCGIFADDR: reads an interface
    0x8917,      // SIOCGIFDSTADDR: reads an interface
    0x8919,      // SIOCGIFBRDADDR: reads an interface
    0x891b,      // SIOCGIFNETMASK: reads an interface
    0x8921,      // SIOCGIFMTU: reads an interface
    0x8927,      // SIOCGIFHWADDR: uuid.getnode()
    0x8933,      // SIOCGIFINDEX: if_nametoindex()
    0xc060_6610, // PAGEMAP_SCAN: which of its own pages were written; how a wasm host puts an instance's memory back
];

/// Attributes of the calling process that are its own business.
const PRCTLS: &[u64] = &[
    1,           // PR_SET_PDEATHSIG: die with the parent
    2,           // PR_GET_PDEATHSIG
    3,           // PR_GET_DUMPABLE
    4,           // PR_SET_DUMPABLE: ssh-agent and the like; the agent, before exec
    7,           // PR_GET_KEEPCAPS
    15,          // PR_SET_NAME: thread names
    16,          // PR_GET_NAME
    21,          // PR_GET_SECCOMP: asks for the filter's mode
    23,          // PR_CAPBSET_READ: asks for capabilities
    27,          // PR_GET_SECUREBITS
    29,          // PR_SET_TIMERSLACK
    30,          // PR_GET_TIMERSLACK
    36,          // PR_SET_CHILD_SUBREAPER: process managers
    37,          // PR_GET_CHILD_SUBREAPER
    38,          // PR_SET_NO_NEW_PRIVS: set already
    39,          // PR_GET_NO_NEW_PRIVS
    40,          // PR_GET_TID_ADDRESS
    41,          // PR_SET_THP_DISABLE: garbage collectors
    42,          // PR_GET_THP_DISABLE
    47,          // PR_CAP_AMBIENT: asks; to raise is locked
    50,          // PR_SVE_SET_VL, on ARM
    51,          // PR_SVE_GET_VL, on ARM
    52,          // PR_GET_SPECULATION_CTRL
    53,          // PR_SET_SPECULATION_CTRL: only ever tightens
    54,          // PR_PAC_RESET_KEYS, on ARM
    55,          // PR_SET_TAGGED_ADDR_CTRL, on ARM
    56,          // PR_GET_TAGGED_ADDR_CTRL, on ARM
    0x5356_4d41, // PR_SET_VMA: names of memory areas; new glibc, Go, jemalloc
];

/// Families of sockets. No packets by hand, no kernel crypto, no virtual machine sockets.
const SOCKETS: &[(u64, Option<u64>)] = &[
    (libc::AF_UNIX as u64, None),
    (libc::AF_INET as u64, None),
    (libc::AF_INET6 as u64, None),
    // Reading interfaces and routes (getifaddrs); changing them needs a capability that nobody has.
    (libc::AF_NETLINK as u64, Some(libc::NETLINK_ROUTE as u64)),
];

/// Everything a function may call.
pub(super) const ALLOWED: &[Entry] = &[
    // Files and directories.
    allow(libc::SYS_read, "reads files, pipes and sockets"),
    allow(libc::SYS_write, "writes them"),
    allow(libc::SYS_readv, "reads into several buffers"),
    allow(libc::SYS_writev, "libc stdio and Node's streams write several buffers"),
    allow(libc::SYS_pread64, "reads at an offset: SQLite, the ELF loader"),
    allow(libc::SYS_pwrite64, "writes at an offset"),
    allow(libc::SYS_preadv, "the same, several buffers: libuv"),
    allow(libc::SYS_pwritev, "the same, several buffers: libuv"),
    allow(libc::SYS_preadv2, "the same with flags; glibc's preadv"),
    allow(libc::SYS_pwritev2, "the same with flags"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_open, "opens files; musl and old programs"),
    allow(libc::SYS_openat, "opens files"),
    allow(libc::SYS_openat2, "opens files below a directory: Go's os.Root"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_creat, "makes files; old programs"),
    allow(libc::SYS_close, "closes descriptors"),
    allow(libc::SYS_close_range, "closes many: CPython's subprocess, the agent"),
    allow(libc::SYS_lseek, "moves in a file"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_stat, "file information; musl and old programs"),
    allow(libc::SYS_fstat, "file information"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_lstat, "file information; musl and old programs"),
    allow(libc::SYS_newfstatat, "file information; glibc"),
    allow(libc::SYS_statx, "file information; glibc, libuv, Rust"),
    allow(libc::SYS_statfs, "free space: os.statvfs, Node's fs.statfs"),
    allow(libc::SYS_fstatfs, "free space, by descriptor"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_access, "permission checks; the ELF loader"),
    allow(libc::SYS_faccessat, "permission checks"),
    allow(libc::SYS_faccessat2, "permission checks with flags; glibc"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_readlink, "links; musl and old programs"),
    allow(libc::SYS_readlinkat, "links"),
    allow(libc::SYS_getdents64, "lists directories"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_getdents, "lists directories; old programs"),
    allow(libc::SYS_getcwd, "working directory"),
    allow(libc::SYS_chdir, "changes it"),
    allow(libc::SYS_fchdir, "changes it, by descriptor"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_mkdir, "makes directories"),
    allow(libc::SYS_mkdirat, "makes directories"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_rmdir, "removes directories"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_unlink, "removes files"),
    allow(libc::SYS_unlinkat, "removes files and directories"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_rename, "renames"),
    allow(libc::SYS_renameat, "renames"),
    allow(libc::SYS_renameat2, "renames"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_link, "hard links"),
    allow(libc::SYS_linkat, "hard links; git, package managers"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_symlink, "symbolic links"),
    allow(libc::SYS_symlinkat, "symbolic links"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_chmod, "modes of own files"),
    allow(libc::SYS_fchmod, "modes of own files"),
    allow(libc::SYS_fchmodat, "modes of own files"),
    allow(libc::SYS_fchmodat2, "modes of own files with flags; new glibc"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_chown, "unpacking archives; only to oneself, as no other id is mapped"),
    allow(libc::SYS_fchown, "unpacking archives"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_lchown, "unpacking archives"),
    allow(libc::SYS_fchownat, "unpacking archives"),
    allow(libc::SYS_truncate, "cuts files"),
    allow(libc::SYS_ftruncate, "cuts files; shared memory"),
    allow(libc::SYS_fallocate, "reserves room in /tmp"),
    allow(libc::SYS_fsync, "durable writes: SQLite"),
    allow(libc::SYS_fdatasync, "durable writes"),
    allow(libc::SYS_sync_file_range, "durable writes: databases"),
    allow(libc::SYS_umask, "mode of new files"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_utime, "times of own files"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_utimes, "times of own files"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_futimesat, "times of own files; old programs"),
    allow(libc::SYS_utimensat, "times of own files; cp, tar"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_mknod, "named pipes (devices need a capability that nobody has)"),
    allow(libc::SYS_mknodat, "named pipes"),
    allow(libc::SYS_fadvise64, "read-ahead hints: coreutils, libuv"),
    allow(libc::SYS_readahead, "read-ahead hints"),
    allow(libc::SYS_copy_file_range, "copies in the kernel: cp, Go, Node"),
    allow(libc::SYS_sendfile, "copies in the kernel: CPython's shutil and socket"),
    allow(libc::SYS_splice, "pipes without copies: Go's io.Copy"),
    allow(libc::SYS_tee, "pipes without copies"),
    allow(libc::SYS_vmsplice, "pipes without copies"),
    allow(libc::SYS_flock, "file locks"),
    allow(libc::SYS_fcntl, "descriptor flags, record locks"),
    allow(libc::SYS_getxattr, "attributes are read by cp and ls"),
    allow(libc::SYS_lgetxattr, "attributes are read by cp and ls"),
    allow(libc::SYS_fgetxattr, "attributes are read by cp and ls"),
    allow(libc::SYS_listxattr, "attributes are listed by cp, shutil.copystat"),
    allow(libc::SYS_llistxattr, "attributes are listed by cp, shutil.copystat"),
    allow(libc::SYS_flistxattr, "attributes are listed by cp, shutil.copystat"),
    allow(libc::SYS_inotify_init1, "file watchers: libuv"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_inotify_init, "file watchers; old programs"),
    allow(libc::SYS_inotify_add_watch, "file watchers"),
    allow(libc::SYS_inotify_rm_watch, "file watchers"),
    // Descriptors and waiting.
    allow(libc::SYS_dup, "copies descriptors"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_dup2, "copies descriptors: shells"),
    allow(libc::SYS_dup3, "copies descriptors: Rust, Go"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_pipe, "pipes; old programs"),
    allow(libc::SYS_pipe2, "pipes"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_eventfd, "wake-ups; old programs"),
    allow(libc::SYS_eventfd2, "wake-ups: tokio, libuv"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_signalfd, "signals as descriptors; old programs"),
    allow(libc::SYS_signalfd4, "signals as descriptors; the agent"),
    allow(libc::SYS_timerfd_create, "timers as descriptors"),
    allow(libc::SYS_timerfd_settime, "timers as descriptors"),
    allow(libc::SYS_timerfd_gettime, "timers as descriptors"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_epoll_create, "event loops; old programs"),
    allow(libc::SYS_epoll_create1, "event loops"),
    allow(libc::SYS_epoll_ctl, "event loops"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_epoll_wait, "event loops"),
    allow(libc::SYS_epoll_pwait, "event loops"),
    allow(libc::SYS_epoll_pwait2, "event loops, in nanoseconds"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_poll, "waiting; Rust's start-up, CPython"),
    allow(libc::SYS_ppoll, "waiting"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_select, "waiting; old programs"),
    allow(libc::SYS_pselect6, "waiting; shells"),
    // Memory.
    allow(libc::SYS_mmap, "memory and files in it"),
    allow(libc::SYS_munmap, "gives it back"),
    allow(libc::SYS_mremap, "grows it: realloc"),
    allow(libc::SYS_mprotect, "V8's compiler and every loader change protections"),
    allow(libc::SYS_madvise, "garbage collectors give pages back"),
    allow(libc::SYS_brk, "the heap of malloc"),
    allow(libc::SYS_msync, "writes mapped files back"),
    allow(libc::SYS_mincore, "Go's runtime asks for it at start"),
    allow(libc::SYS_mlock, "keeps keys out of swap, within the locked-memory limit"),
    allow(libc::SYS_mlock2, "the same"),
    allow(libc::SYS_munlock, "the same"),
    allow(libc::SYS_mlockall, "the same"),
    allow(libc::SYS_munlockall, "the same"),
    allow(libc::SYS_membarrier, "tokio's and the JVM's cheap fences"),
    allow(libc::SYS_pkey_alloc, "V8 guards its code pages"),
    allow(libc::SYS_pkey_free, "V8 guards its code pages"),
    allow(libc::SYS_pkey_mprotect, "V8 guards its code pages"),
    allow(libc::SYS_memfd_create, "anonymous files: shared memory of Node's and Python's libraries"),
    allow(libc::SYS_shmget, "System V shared memory, in the cell's own namespace"),
    allow(libc::SYS_shmat, "the same"),
    allow(libc::SYS_shmdt, "the same"),
    allow(libc::SYS_shmctl, "the same"),
    allow(libc::SYS_semget, "System V semaphores, in the cell's own namespace"),
    allow(libc::SYS_semop, "the same"),
    allow(libc::SYS_semctl, "the same"),
    allow(libc::SYS_semtimedop, "the same"),
    // Processes and threads.
    allow_if(libc::SYS_clone, When::WithoutFlags(0, NEW_NAMESPACES), "new threads and processes, never new namespaces"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_fork, "new processes; old programs"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_vfork, "new processes: posix_spawn, Go"),
    allow(libc::SYS_execve, "runs programs"),
    allow(libc::SYS_execveat, "runs programs by descriptor"),
    allow(libc::SYS_exit, "ends a thread"),
    allow(libc::SYS_exit_group, "ends a process"),
    allow(libc::SYS_wait4, "waits for children"),
    allow(libc::SYS_waitid, "waits for children: tokio, Go"),
    allow(libc::SYS_kill, "signals; only processes of the cell can be named"),
    allow(libc::SYS_tkill, "signals to threads; musl"),
    allow(libc::SYS_tgkill, "signals to threads: abort, Go's preemption"),
    allow(libc::SYS_pidfd_open, "children as descriptors: tokio, Go, CPython"),
    allow(libc::SYS_pidfd_send_signal, "children as descriptors"),
    allow(libc::SYS_rt_sigaction, "signal handlers"),
    allow(libc::SYS_rt_sigprocmask, "signal masks"),
    allow(libc::SYS_rt_sigreturn, "returns from handlers"),
    allow(libc::SYS_rt_sigsuspend, "waits for signals: shells"),
    allow(libc::SYS_rt_sigpending, "asks for pending signals"),
    allow(libc::SYS_rt_sigtimedwait, "waits for signals"),
    allow(libc::SYS_rt_sigqueueinfo, "signals with a value, to the cell's own"),
    allow(libc::SYS_rt_tgsigqueueinfo, "signals with a value, to its threads"),
    allow(libc::SYS_sigaltstack, "handlers on their own stack: Rust, Go, V8"),
    allow(libc::SYS_restart_syscall, "the kernel's own, after a stop"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_pause, "waits for signals"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_alarm, "timers by signal"),
    allow(libc::SYS_getitimer, "timers by signal"),
    allow(libc::SYS_setitimer, "timers by signal: CPython, Go's profiler"),
    allow(libc::SYS_timer_create, "timers by signal: Go's profiler"),
    allow(libc::SYS_timer_settime, "timers by signal"),
    allow(libc::SYS_timer_gettime, "timers by signal"),
    allow(libc::SYS_timer_getoverrun, "timers by signal"),
    allow(libc::SYS_timer_delete, "timers by signal"),
    allow(libc::SYS_nanosleep, "sleeps"),
    allow(libc::SYS_clock_nanosleep, "sleeps"),
    allow(libc::SYS_getpid, "identity"),
    allow(libc::SYS_getppid, "identity"),
    allow(libc::SYS_gettid, "identity"),
    allow(libc::SYS_getuid, "identity"),
    allow(libc::SYS_geteuid, "identity"),
    allow(libc::SYS_getgid, "identity"),
    allow(libc::SYS_getegid, "identity"),
    allow(libc::SYS_getresuid, "identity"),
    allow(libc::SYS_getresgid, "identity"),
    allow(libc::SYS_getgroups, "identity"),
    allow(libc::SYS_setuid, "only to oneself, as no other id is mapped; programs that drop privileges call it"),
    allow(libc::SYS_setgid, "only to oneself"),
    allow(libc::SYS_setreuid, "only to oneself"),
    allow(libc::SYS_setregid, "only to oneself"),
    allow(libc::SYS_setresuid, "only to oneself"),
    allow(libc::SYS_setresgid, "only to oneself"),
    allow(libc::SYS_setpgid, "job control: shells"),
    allow(libc::SYS_getpgid, "job control"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_getpgrp, "job control"),
    allow(libc::SYS_setsid, "daemons; the agent gives each program a session"),
    allow(libc::SYS_getsid, "job control"),
    allow(libc::SYS_set_tid_address, "thread libraries"),
    allow(libc::SYS_set_robust_list, "thread libraries"),
    allow(libc::SYS_get_robust_list, "thread libraries"),
    allow(libc::SYS_rseq, "glibc's per-CPU data"),
    allow(libc::SYS_futex, "locks"),
    allow(libc::SYS_futex_waitv, "locks"),
    allow(libc::SYS_sched_yield, "spinning locks"),
    allow(libc::SYS_sched_getaffinity, "counting CPUs"),
    allow(libc::SYS_sched_setaffinity, "pinning threads within the CPUs one has"),
    allow(libc::SYS_sched_getscheduler, "thread attributes"),
    allow(libc::SYS_sched_setscheduler, "thread attributes; real time needs a capability"),
    allow(libc::SYS_sched_getparam, "thread attributes"),
    allow(libc::SYS_sched_setparam, "thread attributes; real time needs a capability"),
    allow(libc::SYS_sched_getattr, "thread attributes"),
    allow(libc::SYS_sched_get_priority_max, "thread attributes"),
    allow(libc::SYS_sched_get_priority_min, "thread attributes"),
    allow(libc::SYS_sched_rr_get_interval, "thread attributes"),
    allow(libc::SYS_getpriority, "niceness"),
    allow(libc::SYS_setpriority, "niceness, upwards"),
    allow(libc::SYS_getrlimit, "limits"),
    allow(libc::SYS_setrlimit, "limits, downwards"),
    allow(libc::SYS_getrusage, "own use of resources"),
    allow(libc::SYS_getcpu, "which CPU one runs on"),
    allow(libc::SYS_capget, "libraries ask what they may do: nothing"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_arch_prctl, "the thread pointer of x86-64"),
    #[cfg(target_arch = "x86_64")]
    allow(libc::SYS_time, "clock, without the vDSO"),
    allow(libc::SYS_gettimeofday, "clock, without the vDSO"),
    allow(libc::SYS_clock_gettime, "clock, without the vDSO"),
    allow(libc::SYS_clock_getres, "clock"),
    allow(libc::SYS_times, "CPU time"),
    allow(libc::SYS_uname, "kernel version: platform detection"),
    allow(libc::SYS_sysinfo, "memory and load: os.totalmem, the shell's tools"),
    allow(libc::SYS_getrandom, "random numbers"),
    allow(libc::SYS_landlock_create_ruleset, "programs that confine themselves further"),
    allow(libc::SYS_landlock_add_rule, "programs that confine themselves further"),
    allow(libc::SYS_landlock_restrict_self, "programs that confine themselves further"),
    // Network.
    allow(libc::SYS_bind, "servers on the loopback: extensions, telemetry subscribers"),
    allow(libc::SYS_listen, "the same"),
    allow(libc::SYS_accept, "the same"),
    allow(libc::SYS_accept4, "the same"),
    allow(libc::SYS_connect, "clients"),
    allow(libc::SYS_getsockname, "addresses"),
    allow(libc::SYS_getpeername, "addresses"),
    allow(libc::SYS_sendto, "sends"),
    allow(libc::SYS_recvfrom, "receives"),
    allow(libc::SYS_sendmsg, "sends"),
    allow(libc::SYS_recvmsg, "receives"),
    allow(libc::SYS_sendmmsg, "resolvers send two queries at once"),
    allow(libc::SYS_recvmmsg, "several datagrams at once: Go, DNS libraries"),
    allow(libc::SYS_shutdown, "half closes"),
    allow(libc::SYS_setsockopt, "socket options"),
    allow(libc::SYS_getsockopt, "socket options"),
    // By argument.
    allow_if(libc::SYS_prlimit64, When::OneOf(0, &[0]), "limits of oneself, downwards; never of another process"),
    allow_if(libc::SYS_prctl, When::OneOf(0, PRCTLS), "attributes of oneself"),
    allow_if(
        libc::SYS_personality,
        When::OneOf(0, &[0, 0xffff_ffff]),
        "asking for the personality; CPython's platform, setarch-free tools",
    ),
    allow_if(libc::SYS_ioctl, When::OneOf(1, IOCTLS), "isatty, descriptor flags, reading interfaces"),
    allow_if(libc::SYS_socket, When::Sockets(SOCKETS), "TCP, UDP, local sockets, reading routes"),
    allow_if(libc::SYS_socketpair, When::OneOf(0, &[libc::AF_UNIX as u64]), "pairs of local sockets: libuv, asyncio"),
];

/// What is answered with `EPERM`: calls that programs know, with what letting them through would give away.
pub(super) const REFUSED: &[(i64, &str)] = &[
    // Changing what the cell sees.
    (libc::SYS_mount, "what the cell sees of files is fixed"),
    (libc::SYS_umount2, "what the cell sees of files is fixed"),
    (libc::SYS_pivot_root, "what the cell sees of files is fixed"),
    (libc::SYS_chroot, "what the cell sees of files is fixed"),
    (libc::SYS_fsopen, "what the cell sees of files is fixed"),
    (libc::SYS_fsconfig, "what the cell sees of files is fixed"),
    (libc::SYS_fsmount, "what the cell sees of files is fixed"),
    (libc::SYS_fspick, "what the cell sees of files is fixed"),
    (libc::SYS_open_tree, "what the cell sees of files is fixed"),
    (libc::SYS_move_mount, "what the cell sees of files is fixed"),
    (libc::SYS_mount_setattr, "what the cell sees of files is fixed"),
    (libc::SYS_unshare, "new namespaces open large parts of the kernel to their maker"),
    (libc::SYS_setns, "new namespaces open large parts of the kernel to their maker"),
    // Looking into or steering others.
    (libc::SYS_ptrace, "reads and changes other processes, the agent among them"),
    (libc::SYS_process_vm_readv, "reads other processes"),
    (libc::SYS_process_vm_writev, "changes other processes"),
    (libc::SYS_process_madvise, "advises on other processes' memory"),
    (libc::SYS_pidfd_getfd, "takes other processes' descriptors"),
    (libc::SYS_kcmp, "compares other processes' kernel objects: addresses leak"),
    // Kernel machinery beyond what a function needs.
    (libc::SYS_bpf, "programs in the kernel"),
    (libc::SYS_perf_event_open, "measures the whole CPU: a side channel, and often a broken one"),
    (libc::SYS_userfaultfd, "holds the kernel still in the middle of a copy: the tool of many exploits"),
    (libc::SYS_keyctl, "the kernel's keys are not divided by namespaces"),
    (libc::SYS_add_key, "the kernel's keys are not divided by namespaces"),
    (libc::SYS_request_key, "the kernel's keys are not divided by namespaces"),
    (libc::SYS_seccomp, "its notifications steer other processes"),
    (libc::SYS_quotactl, "the host's business"),
    (libc::SYS_fanotify_init, "watches whole file systems"),
    (libc::SYS_fanotify_mark, "watches whole file systems"),
    (libc::SYS_name_to_handle_at, "handles reach files outside every mount"),
    (libc::SYS_open_by_handle_at, "handles reach files outside every mount"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lookup_dcookie, "handles reach files outside every mount"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_iopl, "hardware, directly"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_ioperm, "hardware, directly"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_modify_ldt, "segments of 16-bit programs: a rich source of kernel faults"),
    // The host as a whole.
    (libc::SYS_init_module, "the host's business"),
    (libc::SYS_finit_module, "the host's business"),
    (libc::SYS_delete_module, "the host's business"),
    (libc::SYS_kexec_load, "the host's business"),
    (libc::SYS_kexec_file_load, "the host's business"),
    (libc::SYS_reboot, "the host's business"),
    (libc::SYS_swapon, "the host's business"),
    (libc::SYS_swapoff, "the host's business"),
    (libc::SYS_acct, "the host's business"),
    (libc::SYS_syslog, "the host's log"),
    (libc::SYS_vhangup, "the host's terminals"),
    (libc::SYS_settimeofday, "the host's clock"),
    (libc::SYS_clock_settime, "the host's clock"),
    (libc::SYS_clock_adjtime, "the host's clock"),
    (libc::SYS_adjtimex, "the host's clock"),
    (libc::SYS_sethostname, "fixed when the cell is made"),
    (libc::SYS_setdomainname, "fixed when the cell is made"),
    (libc::SYS_sync, "would write back all of the host's files"),
    (libc::SYS_syncfs, "would write back a host file system"),
    // Giving or taking identities.
    (libc::SYS_setgroups, "there is one group"),
    (libc::SYS_capset, "there are no capabilities to set"),
];
