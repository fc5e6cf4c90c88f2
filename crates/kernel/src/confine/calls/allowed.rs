//! The system calls of a proxy: seen with strace(1) in every mode, and what libraries use beside them. Those of programs
//! that it runs (`iptables-restore` and its like, a shell) are a list of their own.

use libc::c_long;

use super::Check;
use crate::confine::Needs;

/// To give up more.
const CONFINEMENT: [c_long; 4] = [
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
];

/// Memory, threads, time, signals, and what is known about oneself.
const PROCESS: [c_long; 55] = [
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_kill,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_times,
    libc::SYS_umask,
    libc::SYS_uname,
];

/// Files and whatever else is behind a descriptor. Where files are written is Landlock's concern.
const FILES: [c_long; 51] = [
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_tee,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

const SOCKETS: [c_long; 18] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// To run a program and wait for it, and what such programs do beside the rest.
const PROGRAMS: [c_long; 9] = [
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fchdir,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Older forms of the same calls, which newer architectures have not.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 25] = [
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_setrlimit,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 0] = [];

/// fork(2) in its older forms.
#[cfg(target_arch = "x86_64")]
const FORKS: [c_long; 2] = [libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: [c_long; 0] = [];

/// CLONE_NEWNS, and CLONE_NEWCGROUP to CLONE_NEWNET: a new namespace.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// The kind of namespaces that can be entered.
const NETWORKS: &[u32] = &[libc::CLONE_NEWNET.cast_unsigned()];

/// Kinds of sockets, of sys/socket.h.
const FAMILIES: &[u32] = &[
    libc::AF_UNIX.cast_unsigned(),
    libc::AF_INET.cast_unsigned(),
    libc::AF_INET6.cast_unsigned(),
    libc::AF_NETLINK.cast_unsigned(),
];

/// Whoever may do this to a terminal types for others: TIOCSTI and TIOCLINUX of asm-generic/ioctls.h.
const TYPE_FOR_OTHERS: &[u32] = &[0x5412, 0x541c];

/// What these needs allow, the most frequent ones among the first.
pub(super) fn all(needs: &Needs) -> Vec<(c_long, Check)> {
    let mut calls = [&FILES[..], &SOCKETS, &PROCESS, &OLDER, &CONFINEMENT].concat();
    if needs.programs {
        calls.extend([&PROGRAMS[..], &FORKS].concat());
    }
    if needs.bpf {
        calls.push(libc::SYS_bpf);
    }
    let networks = Check::OneOf {
        argument: 1,
        values: NETWORKS,
        or_else: libc::EPERM,
    };
    let families = || Check::OneOf {
        argument: 0,
        values: FAMILIES,
        or_else: libc::EAFNOSUPPORT,
    };
    let mut all: Vec<(c_long, Check)> = calls
        .into_iter()
        .map(|call| (call, Check::Anything))
        .collect();
    if needs.namespaces {
        all.push((libc::SYS_setns, networks));
    }
    all.extend([
        (libc::SYS_socket, families()),
        (libc::SYS_socketpair, families()),
        (
            libc::SYS_ioctl,
            Check::NoneOf {
                argument: 1,
                values: TYPE_FOR_OTHERS,
            },
        ),
        (
            libc::SYS_clone,
            Check::Without {
                argument: 0,
                bits: NEW_NAMESPACES,
            },
        ),
        // Its flags stand in memory, where no filter sees them: libraries fall back to clone.
        (libc::SYS_clone3, Check::Unknown),
    ]);
    all
}
