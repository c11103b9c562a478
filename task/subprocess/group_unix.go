//go:build unix

package subprocess

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// killGroup kills the process group of cmd: the worker, whatever it has started, and also what is stopped.
func killGroup(leader *os.Process) error {
	if err := syscall.Kill(-leader.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", leader.Pid, err)
	}
	return nil
}
