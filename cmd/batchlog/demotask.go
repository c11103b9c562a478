package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/task"
)

// A derivedSizes is what the demo's task has made of the history: the size of each directory.
type derivedSizes struct {
	Task        string         `json:"task"`
	Directories int64          `json:"directories"`
	Root        history.Size   `json:"root"`
	Largest     []history.Size `json:"largest"`
	Waited      time.Duration  `json:"waitedNs"` // how long the read, right after the import, took until the task was there
	Wrong       []string       `json:"wrong"`    // where it is not what git says
}

// A sizesTask is a task that follows an import.
type sizesTask struct {
	db    *batchlog.DB
	repo  *batchlog.Space
	task  task.Task
	stop  context.CancelFunc
	ended chan error
}

// startSizes runs the task that keeps the sizes of directories, until end.
func startSizes(ctx context.Context, store *gitStore) (*sizesTask, error) {
	k := history.Sizes(store.space())
	if err := task.Register(ctx, store.db, k); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	s := &sizesTask{db: store.db, repo: store.space(), task: k, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- task.Run(ctx, s.db, s.task) }()
	return s, nil
}

// end ends the task and returns why it had ended before, if it had.
func (s *sizesTask) end() error {
	s.stop()
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// read reads what the task has derived. The read is held until it has handled all that was imported.
func (s *sizesTask) read(ctx context.Context) (d derivedSizes, err error) {
	d.Task = s.task.Name
	start := time.Now()
	ctx, done := s.whileRunning(ctx)
	defer done()
	if d.Root, err = history.Directory(ctx, s.repo, ""); err != nil {
		return d, err
	}
	d.Waited = time.Since(start)
	d.Largest, err = history.LargestDirectories(ctx, s.repo, -1)
	d.Directories = int64(len(d.Largest))
	return d, err
}

// whileRunning is ctx until the task ends, by itself.
func (s *sizesTask) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case err := <-s.ended:
			s.ended <- err
			cancel(fmt.Errorf("task %s has ended: %w", s.task.Name, err))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// compare finds where the sizes are not those of a commit of the repository, and keeps of the directories those that are shown.
func (d *derivedSizes) compare(ctx context.Context, r *repo, commit string) error {
	d.Wrong = []string{}
	want, err := directorySizes(ctx, r, commit)
	if err != nil {
		return err
	}
	for _, got := range append(slices.Clone(d.Largest), d.Root) {
		if w := want[got.Path]; w != got {
			d.Wrong = append(d.Wrong, fmt.Sprintf("%s: git %s, derived %s", printable(cmp.Or(got.Path, "/")), sizeText(w), sizeText(got)))
		}
		delete(want, got.Path)
	}
	for path, w := range want {
		d.Wrong = append(d.Wrong, fmt.Sprintf("%s: git %s, derived nothing", printable(cmp.Or(path, "/")), sizeText(w)))
	}
	slices.Sort(d.Wrong)
	d.Largest = slices.Clip(d.Largest[:min(len(d.Largest), busiestShown)])
	return nil
}

// directorySizes is what git ls-tree -r -l adds up to. The root is always there.
func directorySizes(ctx context.Context, r *repo, commit string) (map[string]history.Size, error) {
	sizes := map[string]history.Size{"": {}}
	for e, err := range r.tree(ctx, commit, "-l") {
		if err != nil {
			return nil, err
		}
		if e.mode == modeSubmodule {
			continue
		}
		for dir := e.path; dir != ""; {
			dir = dir[:max(0, strings.LastIndexByte(dir, '/'))]
			s := sizes[dir]
			sizes[dir] = history.Size{Path: dir, Bytes: s.Bytes + e.size, Files: s.Files + 1}
		}
	}
	return sizes, nil
}

// directoriesText is how many directories there are beside the root.
func directoriesText(n int64) string {
	if n == 1 {
		return "1 directory"
	}
	return countText(n) + " directories"
}

func sizeText(s history.Size) string {
	return fmt.Sprintf("%s in %s", bytesText(s.Bytes), counted(s.Files, "file"))
}

// bars are the largest directories as bars to draw.
func (d *derivedSizes) bars() []barRow {
	rows := make([]barRow, len(d.Largest))
	for i, s := range d.Largest {
		rows[i] = barRow{name: strings.ToValidUTF8(s.Path, "\ufffd") + "/", n: s.Bytes, text: sizeText(s)}
	}
	return rows
}
