package checkpoint_test

import "syscall"

// skip has the kernel make no call at all in the place of the one that a thread
// is about to make.
func skip(thread int) {
	var regs syscall.PtraceRegs
	if syscall.PtraceGetRegs(thread, &regs) == nil {
		regs.Orig_rax = ^uint64(0)
		syscall.PtraceSetRegs(thread, &regs) //nolint:errcheck // then it is made
	}
}

// failed has the call that was skipped say that the medium does not work.
func failed(thread int) {
	var regs syscall.PtraceRegs
	if syscall.PtraceGetRegs(thread, &regs) == nil {
		regs.Rax = ^uint64(syscall.EIO) + 1
		syscall.PtraceSetRegs(thread, &regs) //nolint:errcheck // it says then that there is no such call
	}
}

const canFail = true
