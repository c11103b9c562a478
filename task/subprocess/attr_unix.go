//go:build unix && !linux

package subprocess

import "syscall"

// attributes has a worker be in a process group of its own, which keeps the terminal's Ctrl-C from it and lets all of it be killed at
// once. If this process dies the end of stdin has to do.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
