//! Confinement of a server after its start: landlock for paths, seccomp for system calls.
//!
//! What a server needs once its devices exist is a socket directory, `/proc` (whether a client's
//! process is ending), memory, and the descriptors that it has. Everything else is refused with
//! `EPERM` or `EACCES`: programs, other files, networks, memory that can be executed, other
//! processes. An ordinary user can confine itself, and it can't be undone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use varia_sys::vfio::Request;

/// Paths that a confined server may use.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Directories in which sockets are made and removed.
    pub sockets: Vec<PathBuf>,
}

/// Protection by landlock, as far as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Landlock {
    /// All paths but the allowed ones are closed.
    Enforced,
    /// The kernel has no landlock, or it is switched off.
    Missing,
}

/// Error of a confinement: the server is not confined, or in part.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Landlock can't be set up.
    #[error("landlock can't be set up ({0}): start the server with --no-sandbox to go without")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter of system calls can't be made or loaded.
    #[error(
        "the filter of system calls can't be loaded ({0}): start the server with --no-sandbox to go \
         without"
    )]
    Seccomp(String),
}

/// Confines this process. Threads that exist already get the filter of system calls, and not
/// landlock: call this before there are any.
///
/// # Errors
/// If the kernel refuses the filter or the rules.
pub fn enter(paths: &Paths) -> Result<Landlock, SandboxError> {
    let program = program().map_err(|error| SandboxError::Seccomp(error.to_string()))?;
    let no_clone3 = no_clone3().map_err(|error| SandboxError::Seccomp(error.to_string()))?;
    let landlock = restrict(paths)?;
    for program in [no_clone3, program] {
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|error| SandboxError::Seccomp(error.to_string()))?;
    }
    Ok(landlock)
}

fn restrict(paths: &Paths) -> Result<Landlock, SandboxError> {
    // the newest rights that this code knows; an older kernel enforces those that it knows
    let abi = ABI::V6;
    let sockets = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(&paths.sockets, sockets))?
        .add_rules(path_beneath_rules(
            [Path::new("/proc")],
            AccessFs::from_read(abi) & !AccessFs::Execute,
        ))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Landlock::Missing,
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Landlock::Enforced,
    })
}

/// System calls that a server makes with any arguments.
const CALLS: &[i64] = &[
    // messages
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // descriptors and files
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_eventfd2,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    // threads, signals, time
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_uname,
];

/// The older forms of some of them.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[i64] = &[
    libc::SYS_access,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[i64] = &[];

/// Bits of a socket's type that are not flags (Linux `include/linux/net.h:SOCK_TYPE_MASK`).
const SOCKET_KIND: u64 = 0xf;

/// A filter that takes `clone3` away: its flags lie in memory, where no filter sees them. The C
/// library uses `clone` where `clone3` does not exist.
fn no_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    filter.try_into()
}

/// Requests of `ioctl`, whose type in `libc` differs between C libraries. Source:
/// `asm-generic/ioctls.h`.
const TCGETS: u64 = 0x5401;
const FIONBIO: u64 = 0x5421;

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let is = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let masked = |argument, mask, value| {
        let equal = SeccompCmpOp::MaskedEq(mask);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, value)
    };
    let rule = |condition: Result<SeccompCondition, _>| SeccompRule::new(vec![condition?]);
    let calls = CALLS.iter().chain(OLD_CALLS);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.map(|n| (*n, Vec::new())).collect();
    // sockets that take no address with a message, and none is connected
    let stream = || {
        let kind = masked(1, SOCKET_KIND, libc::SOCK_STREAM as u64)?;
        SeccompRule::new(vec![is(0, libc::AF_UNIX as u64)?, kind])
    };
    rules.insert(libc::SYS_socket, vec![stream()?]);
    rules.insert(libc::SYS_socketpair, vec![stream()?]);
    let no_address = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0);
    rules.insert(libc::SYS_sendto, vec![rule(no_address)?]);
    let exec = libc::PROT_EXEC as u64;
    rules.insert(libc::SYS_mmap, vec![rule(masked(2, exec, 0))?]);
    rules.insert(libc::SYS_mprotect, vec![rule(masked(2, exec, 0))?]);
    // threads of this process alone
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
    rules.insert(libc::SYS_clone, vec![rule(masked(0, thread, thread))?]);
    rules.insert(
        libc::SYS_prctl,
        vec![rule(is(0, libc::PR_SET_NAME as u64))?],
    );
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(is(0, own))?]);
    // limits are read: the third argument, the new limit, is no address
    let no_limit = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0);
    rules.insert(libc::SYS_prlimit64, vec![rule(no_limit)?]);
    // of the files of VFIO, and of sockets and standard output
    let vfio = Request::ALL.iter().map(|r| u64::from(r.number()));
    let requests = vfio.chain([FIONBIO, TCGETS]);
    let requests: Result<_, _> = requests.map(|number| rule(is(1, number))).collect();
    rules.insert(libc::SYS_ioctl, requests?);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    filter.try_into()
}
