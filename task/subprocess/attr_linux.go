package subprocess

import "syscall"

// attributes has a worker be in a process group of its own, which keeps the terminal's Ctrl-C from it and lets all of it be killed at once,
// and die with the thread that started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
