//go:build linux

package simtest

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

var flagCuts = flag.Int("simtest.cuts", 3, "times to cut the power of a real file system that is written to")

// What was acknowledged survives a power cut of a real file system, whole; ext4 forgets what was not synced.
func TestPowerCut(t *testing.T) {
	m := newMount(t, 256<<20)
	dir := filepath.Join(m.dir, "db")
	var h ledger
	for round := range *flagCuts {
		p := startWriter(t, orders{Dir: dir, Round: round, Workers: 16, Errors: 3})
		p.awaitFirst(t)
		time.Sleep(10*time.Millisecond + rand.N(500*time.Millisecond))
		if err := m.cut(); err != nil {
			p.kill()
			t.Skipf("the file system takes no power cut: %v", err)
		}
		// The writer lives a little longer than its disk: all that it acknowledges meanwhile counts, so it must not.
		time.Sleep(rand.N(20 * time.Millisecond))
		p.kill()
		m.unmount(t)
		m.mount(t)
		h.add(t, p)
		h.check(t, dir, round == *flagCuts-1)
		if t.Failed() {
			t.Fatalf("that was round %d", round)
		}
	}
	t.Logf("%d cuts, %d commits, %d acknowledged", *flagCuts, len(h.log), len(h.acked))
}

// A mount is an ext4 file system in a file.
type mount struct {
	image, dir string
	mounted    bool
}

// newMount makes and mounts one, or skips the test where that can't be done.
func newMount(t *testing.T, size int64) *mount {
	t.Helper()
	if testing.Short() {
		t.Skip("not in short runs")
	}
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	for _, tool := range []string{"mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	base := t.TempDir()
	m := &mount{image: filepath.Join(base, "image"), dir: filepath.Join(base, "mount")}
	if err := errors.Join(os.WriteFile(m.image, nil, 0o600), os.Truncate(m.image, size), os.Mkdir(m.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", m.image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if err := m.tryMount(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { m.unmount(t) })
	return m
}

func (m *mount) tryMount() error {
	if out, err := exec.Command("mount", "-o", "loop", m.image, m.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount of a loop device: %w: %s", err, out)
	}
	m.mounted = true
	return nil
}

func (m *mount) mount(t *testing.T) {
	t.Helper()
	if err := m.tryMount(); err != nil {
		t.Fatal(err)
	}
}

// unmount unmounts it, if it is mounted. A process that was just killed may hold on to it for a moment.
func (m *mount) unmount(t *testing.T) {
	t.Helper()
	if !m.mounted {
		return
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Unmount(m.dir, 0)
		if err == nil {
			break
		}
		if time.Since(begin) > 5*time.Second {
			t.Errorf("unmount: %v", errors.Join(err, syscall.Unmount(m.dir, syscall.MNT_DETACH)))
			break
		}
	}
	m.mounted = false
}

// cut cuts the power: from now on nothing comes to the disk, the file system's journal included, and what is not there is lost.
func (m *mount) cut() error {
	const (
		shutdown   = 0x8004587D // FS_IOC_SHUTDOWN
		noLogFlush = 2
	)
	dir, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	flags := uint32(noLogFlush)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&flags)))
	runtime.KeepAlive(&flags)
	if errno != 0 {
		return fmt.Errorf("ioctl FS_IOC_SHUTDOWN: %w", errno)
	}
	return nil
}
