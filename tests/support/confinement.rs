//! What an operator's surroundings may withhold from a process: descriptors, memory,
//! io_uring. Each takes hold between fork and exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Limits the open descriptors, as `ulimit -Sn` and `ulimit -Hn`.
pub fn limit_descriptors(command: &mut Command, soft: u64, hard: u64) {
    limit(command, Resource::Nofile, soft, hard);
}

/// Limits the address space, as `ulimit -v`.
pub fn limit_address_space(command: &mut Command, bytes: u64) {
    limit(command, Resource::As, bytes, bytes);
}

/// Limits locked memory, as `ulimit -l` (which takes KiB), for the superuser too.
pub fn limit_locked_memory(command: &mut Command, bytes: u64) {
    const CAP_IPC_LOCK: libc::c_ulong = 14; // linux/capability.h
    // SAFETY: the closure makes one system call and touches no lock and no heap, as must be
    // between fork and exec. Only the superuser has, and may drop, the capability.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
            Ok(())
        });
    }
    limit(command, Resource::Memlock, bytes, bytes);
}

fn limit(command: &mut Command, resource: Resource, soft: u64, hard: u64) {
    let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
    // SAFETY: the closure makes one system call and touches no lock and no heap, as must
    // be between fork and exec.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, limit)?)) };
}

/// Lets io_uring_setup(2) fail with `errno`, as the seccomp profile of a container does.
pub fn forbid_io_uring(command: &mut Command, errno: i32) {
    const NUMBER: u32 = 0; // Where `nr` lies in `struct seccomp_data` (seccomp(2)).
    let operation =
        |code: u32, operand: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: operand };
    let is_setup = libc::sock_filter {
        jf: 1,
        ..operation(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32)
    };
    let mut program = [
        operation(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER),
        is_setup,
        operation(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        operation(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: prctl(2) with integers only; without it a filter needs CAP_SYS_ADMIN.
        let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the kernel copies the program, which lives across the call.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
        };
        if unprivileged == 0 && installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and touches no lock and no heap, as must
    // be between fork and exec.
    unsafe { command.pre_exec(install) };
}
