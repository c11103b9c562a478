//go:build !linux

package local

import "time"

// uptime is how long this process has run. What a machine sleeps may not be part of it.
func uptime() (boot string, up time.Duration) { return processName, time.Since(processStart) }

var processStart = time.Now()
