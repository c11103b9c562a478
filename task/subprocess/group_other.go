//go:build !unix

package subprocess

import (
	"errors"
	"os"
	"syscall"
)

// attributes are none where processes have no groups.
func attributes() *syscall.SysProcAttr { return nil }

// killGroup kills the worker alone where processes have no groups.
func killGroup(leader *os.Process) error {
	if err := leader.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
