// History shows what tasks derive from the history of a git repository: the authors with the most commits, the largest directories, and
// where words are.
//
//	go run ./examples/history REPO [WORD…]
//
// It has `batchlog import git` load REPO into a temporary database, as one would on the command line, and runs the tasks of package history over it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		log.Fatal("usage: history REPO [WORD…]")
	}
	if err := run(ctx, os.Stdout, os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, repo string, words []string) (err error) {
	temp, err := os.MkdirTemp("", "batchlog-history-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	data := filepath.Join(temp, "data")
	load := exec.CommandContext(ctx, "go", "run", "github.com/bytespace/batchlog/cmd/batchlog", "--db", data, "import", "git", repo, "--name", "repo")
	load.Stdout, load.Stderr = out, os.Stderr
	if err := load.Run(); err != nil {
		return fmt.Errorf("import git: %w", err)
	}

	db, err := local.Open(data, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return derive(ctx, out, db.DB, db.Space("git", "repo"), words)
}

// derive runs the tasks over a repository until they have handled all of it, and shows what they have derived.
func derive(ctx context.Context, out io.Writer, db *batchlog.DB, repo *batchlog.Space, words []string) error {
	tasks := []task.Task{history.Authors(repo), history.Sizes(repo), history.Words(repo)}
	for _, k := range tasks {
		if err := task.Register(ctx, db, k); err != nil {
			return err
		}
	}
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, len(tasks))
	for _, k := range tasks {
		go func() {
			err := task.Run(working, db, k)
			stop(err)
			ended <- err
		}()
	}
	// What is read here is held until the tasks are there.
	if err := show(working, out, repo, words); err != nil {
		return err
	}
	stop(nil)
	for range tasks {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

// show prints some of what was derived.
func show(ctx context.Context, out io.Writer, repo *batchlog.Space, words []string) error {
	authors, err := history.TopAuthors(ctx, repo, 5)
	if err != nil {
		return err
	}
	for _, a := range authors {
		months, err := history.Months(ctx, repo, a.Name)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "author    %q: %d commits in %d months\n", a.Name, a.Commits, len(months))
	}
	directories, err := history.LargestDirectories(ctx, repo, 5)
	if err != nil {
		return err
	}
	for _, d := range directories {
		fmt.Fprintf(out, "directory %q: %d bytes in %d files\n", d.Path, d.Bytes, d.Files)
	}
	for _, word := range words {
		files, lines := 0, int64(0)
		for hit, err := range history.Find(ctx, repo, word) {
			if err != nil {
				return err
			}
			files, lines = files+1, lines+hit.Lines
		}
		fmt.Fprintf(out, "word      %q: %d lines in %d files\n", word, lines, files)
	}
	return nil
}
