package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A machine is where a report was made, and with which versions.
type machine struct {
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	Go         string            `json:"go"`
	Kernel     string            `json:"kernel"`
	Dir        string            `json:"dir"`
	FS         string            `json:"fs"`   // of Dir
	Load       string            `json:"load"` // of the last 1, 5 and 15 minutes when the run began
	Versions   map[string]string `json:"versions"`
}

// thisMachine reads what Linux tells in /proc; elsewhere these fields are empty.
func thisMachine(dir string) machine {
	m := machine{
		Cores: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), Go: runtime.Version(),
		Kernel: procText("/proc/sys/kernel/osrelease"), Dir: dir, FS: fileSystem(dir), Versions: versions(),
	}
	if fields := strings.Fields(procText("/proc/loadavg")); len(fields) > 3 {
		m.Load = strings.Join(fields[:3], " ")
	}
	for line := range strings.Lines(procText("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}

func (m *machine) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, GOMAXPROCS %d, %s, Linux %s, %s on %s, load %s\n", m.CPU, m.Cores, m.GOMAXPROCS, m.Go, m.Kernel, m.Dir, m.FS, m.Load)
	var all []string
	for name, version := range m.Versions {
		all = append(all, name+" "+version)
	}
	slices.Sort(all)
	fmt.Fprintln(w, strings.Join(all, ", "))
	if m.FS == "tmpfs" {
		fmt.Fprintln(w, "WARNING: this is memory, not a disk: syncs cost nothing here. Choose another -dir.")
	}
	if load, err := strconv.ParseFloat(strings.Split(m.Load, " ")[0], 64); err == nil && load > 0.5 {
		fmt.Fprintln(w, "WARNING: the machine is busy: expect noise.")
	}
}

// versions are those of the peers, as they are built in.
func versions() map[string]string {
	wanted := map[string]string{
		"github.com/cockroachdb/pebble/v2": "pebble", "github.com/dgraph-io/badger/v4": "badger",
		"go.etcd.io/bbolt": "bbolt", "github.com/nats-io/nats-server/v2": "nats-server",
	}
	found := map[string]string{}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, m := range build.Deps {
		if name := wanted[m.Path]; name != "" {
			found[name] = m.Version
		}
	}
	return found
}

// fileSystem is the type of the file system that dir is on: that of the longest mount point above it.
func fileSystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	longest, kind := -1, ""
	for line := range strings.Lines(procText("/proc/mounts")) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		point := fields[1]
		if (dir == point || strings.HasPrefix(dir, strings.TrimSuffix(point, "/")+"/")) && len(point) >= longest {
			longest, kind = len(point), fields[2]
		}
	}
	return kind
}

func procText(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// peakRSS is the most memory that this process had at once since it began, or since [resetPeakRSS], in bytes; 0 if unknown.
func peakRSS() int64 { return statusBytes("VmHWM:") }

func nowRSS() int64 { return statusBytes("VmRSS:") }

// resetPeakRSS begins anew with what the process has now.
func resetPeakRSS() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

func statusBytes(name string) int64 {
	for line := range strings.Lines(procText("/proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// cpuTime is what this process has used so far, in user and kernel mode; 0 where that is not told.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryBytes is the memory of the machine; 0 where that is not told.
func memoryBytes() int64 {
	fields := strings.Fields(procText("/proc/meminfo")) // begins with MemTotal: N kB
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
