//! A system call that another process is made to do, as a debugger does it.

/// Has a process close a descriptor. Whether that can be done here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn close(_: u32, _: i32) -> bool {
    false
}

/// Has a process close a descriptor. Whether that can be done here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn close(pid: u32, fd: i32) -> bool {
    use nix::sys::ptrace;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    // It waits in a system call most of the time; the instruction of two bytes lies behind it.
    let before = loop {
        ptrace::attach(pid).unwrap();
        waitpid(pid, None).unwrap();
        let regs = ptrace::getregs(pid).unwrap();
        let code = ptrace::read(pid, (regs.rip - 2) as ptrace::AddressType).unwrap();
        if code & 0xffff == 0x050f {
            break regs;
        }
        ptrace::detach(pid, None).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let mut regs = before;
    (regs.rip, regs.rax, regs.orig_rax) = (before.rip - 2, libc::SYS_close as u64, u64::MAX);
    regs.rdi = u64::try_from(fd).unwrap();
    ptrace::setregs(pid, regs).unwrap();
    ptrace::step(pid, None).unwrap();
    let stopped = waitpid(pid, None).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    assert_eq!(ptrace::getregs(pid).unwrap().rax, 0, "the descriptor was open");
    ptrace::setregs(pid, before).unwrap();
    ptrace::detach(pid, None).unwrap();
    true
}
