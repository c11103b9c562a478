package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A repo is a git repository on this machine. It is read through the installed git, by commands that
// are made for programs: their output depends on no one's settings.
type repo struct {
	dir     string // its worktree, or a bare repository itself; absolute
	name    string // base name of dir
	hashLen int    // of its hashes, in hex digits: 40 for SHA-1, 64 for SHA-256
	env     []string
}

// A gitError is a call of git that did not go well.
type gitError struct {
	command string // the subcommand
	text    string // what it said
	err     error
}

func (e *gitError) Error() string {
	if e.text != "" {
		return "git " + e.command + ": " + e.text
	}
	return "git " + e.command + ": " + e.err.Error()
}

func (e *gitError) Unwrap() error { return e.err }

// openRepo finds the repository that dir is in, or is.
func openRepo(ctx context.Context, dir string) (*repo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if stat, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("git repository: %w", err)
	} else if !stat.IsDir() {
		return nil, fmt.Errorf("git repository: %s is no directory", dir)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("git is needed to read a repository: %w", err)
	}
	r := &repo{dir: dir, env: gitEnv(os.Environ())}
	text, err := r.output(ctx, "rev-parse", "--absolute-git-dir", "--show-object-format", "--is-inside-work-tree")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	facts := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(facts) < 3 {
		return nil, fmt.Errorf("git rev-parse: %q is not understood", text)
	}
	n := len(facts) - 2 // a directory's name may have line ends in it
	r.dir = strings.Join(facts[:n], "\n")
	switch facts[n] {
	case "sha1":
		r.hashLen = 2 * sha1.Size
	case "sha256":
		r.hashLen = 2 * sha256.Size
	default:
		return nil, fmt.Errorf("%s: hashes of the kind %q are not known here", dir, facts[n])
	}
	if facts[n+1] == "true" {
		r.dir = dir
		if text, err = r.output(ctx, "rev-parse", "--show-toplevel"); err != nil {
			return nil, err
		}
		r.dir = strings.TrimSuffix(text, "\n")
	} else if filepath.Base(r.dir) == ".git" {
		r.dir = filepath.Dir(r.dir)
	}
	r.name = filepath.Base(r.dir)
	return r, nil
}

// gitEnv is the environment for git: without what names another repository, as in a hook, and with messages in English.
func gitEnv(environ []string) []string {
	named := []string{
		"GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
		"GIT_NAMESPACE", "GIT_PREFIX", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS",
	}
	env := make([]string, 0, len(environ)+4)
	for _, v := range environ {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(named, name) {
			env = append(env, v)
		}
	}
	return append(env, "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_REPLACE_OBJECTS=1")
}

// command is git with these arguments, in a process group of its own: Ctrl-C is for batchlog, which
// lets what is under way come to its end.
func (r *repo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.dir
	cmd.Env = r.env
	ownGroup(cmd)
	return cmd
}

// output is what git prints.
func (r *repo) output(ctx context.Context, args ...string) (string, error) {
	cmd := r.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return "", &gitError{command: args[0], text: said(&stderr), err: err}
	}
	return string(text), nil
}

// said is the text of git's error messages on one line.
func said(stderr *bytes.Buffer) string {
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.TrimPrefix(strings.Join(lines, " "), "fatal: ")
}

// A gitStream is a running git whose output is read as it comes.
type gitStream struct {
	command string
	ctx     context.Context
	cancel  context.CancelFunc
	cmd     *exec.Cmd
	out     *bufio.Reader
	stderr  bytes.Buffer
}

// start runs git with these arguments; stdin may be nil.
func (r *repo) start(ctx context.Context, stdin io.Reader, args ...string) (*gitStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &gitStream{command: args[0], ctx: ctx, cancel: cancel, cmd: r.command(ctx, args...)}
	s.cmd.Stdin = stdin
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, &gitError{command: args[0], err: err}
	}
	s.out = bufio.NewReaderSize(out, 256<<10)
	return s, nil
}

// field reads up to the next NUL. io.EOF is the end, where git has gone well.
func (s *gitStream) field() (string, error) {
	text, err := s.out.ReadString(0)
	switch {
	case err == nil:
		return text[:len(text)-1], nil
	case errors.Is(err, io.EOF) && text == "":
		if err := s.wait(); err != nil {
			return "", err
		}
		return "", io.EOF
	}
	return "", s.broken(err)
}

// broken is the error for output that ended early or can't be read.
func (s *gitStream) broken(err error) error {
	if waitErr := s.wait(); waitErr != nil {
		return waitErr
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &gitError{command: s.command, err: err}
}

// wait waits for git to end and returns why it failed, if it did.
func (s *gitStream) wait() error {
	if err := s.cmd.Wait(); err != nil {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		return &gitError{command: s.command, text: said(&s.stderr), err: err}
	}
	return nil
}

// close ends git if it still runs.
func (s *gitStream) close() {
	s.cancel()
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Wait() // it was just killed: that is no news
	}
}

// resolve is the hash of the commit that rev names. An empty repository, and a rev that is not there, say so.
func (r *repo) resolve(ctx context.Context, rev string) (string, error) {
	text, err := r.output(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err == nil {
		return strings.TrimSpace(text), nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err := r.hasCommits(ctx); err != nil {
		return "", err
	}
	return "", fmt.Errorf("repository %s has no commit %q", r.dir, rev)
}

func (r *repo) hasCommits(ctx context.Context) error {
	text, err := r.output(ctx, "rev-list", "-n", "1", "--all", "--")
	if err == nil && text == "" {
		err = &emptyRepoError{dir: r.dir}
	}
	return err
}

// has reports why the repository has nothing of what is to be imported.
func (r *repo) has(ctx context.Context, plan importPlan) error {
	if plan.All {
		return r.hasCommits(ctx)
	}
	_, err := r.resolve(ctx, plan.Rev)
	return err
}

// An emptyRepoError says that a repository has no commits.
type emptyRepoError struct{ dir string }

func (e *emptyRepoError) Error() string {
	return fmt.Sprintf("repository %s has no commits yet: nothing to import", e.dir)
}

// A chain is the hashes of commits in the order in which they are imported, parents before children.
type chain struct {
	size   int // of a hash, in bytes
	hashes []byte
}

func (c *chain) count() int { return len(c.hashes) / c.size }

// at is the hash of commit i, in hex.
func (c *chain) at(i int) string { return hex.EncodeToString(c.hashes[i*c.size : (i+1)*c.size]) }

// index is where hash is, or -1. It looks from the end: what was imported last is mostly there.
func (c *chain) index(hash string) int {
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != c.size {
		return -1
	}
	for i := c.count() - 1; i >= 0; i-- {
		if bytes.Equal(c.hashes[i*c.size:(i+1)*c.size], b) {
			return i
		}
	}
	return -1
}

func (c *chain) add(hash string) error {
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != c.size {
		return fmt.Errorf("git rev-list: %q is no hash", hash)
	}
	c.hashes = append(c.hashes, b...)
	return nil
}

// chain lists the first parents of the commit tip from the first one on, or with all every commit
// of the repository, parents before their children.
func (r *repo) chain(ctx context.Context, tip string, all bool) (*chain, error) {
	args := []string{"rev-list", "--reverse", "--first-parent", tip, "--"}
	if all {
		args = []string{"rev-list", "--reverse", "--topo-order", "--all", "--"}
	}
	s, err := r.start(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	defer s.close()
	c := &chain{size: r.hashLen / 2}
	for {
		text, err := s.out.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) && text == "" {
				err = s.wait()
			} else {
				err = s.broken(err)
			}
			if err == nil && c.count() == 0 {
				err = &emptyRepoError{dir: r.dir}
			}
			return c, err
		}
		if err := c.add(text[:len(text)-1]); err != nil {
			return nil, err
		}
	}
}

// A treeEntry is one path of a commit, as git ls-tree -r has it.
type treeEntry struct {
	mode, hash, path string
	size             int64 // with -l: of the blob, in bytes
}

// tree yields all paths of a commit. The flag -l makes git say how large they are.
func (r *repo) tree(ctx context.Context, commit string, flags ...string) iter.Seq2[treeEntry, error] {
	return func(yield func(treeEntry, error) bool) {
		s, err := r.start(ctx, nil, append(append([]string{"ls-tree", "-r", "-z", "--full-tree"}, flags...), commit)...)
		if err != nil {
			yield(treeEntry{}, err)
			return
		}
		defer s.close()
		for {
			text, err := s.field()
			if errors.Is(err, io.EOF) {
				return
			}
			var e treeEntry
			if err == nil {
				e, err = parseTreeEntry(text)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// parseTreeEntry reads "100644 blob HASH\tPATH", or with -l "100644 blob HASH    SIZE\tPATH", where a submodule has "-" for a size.
func parseTreeEntry(text string) (treeEntry, error) {
	facts, path, ok := strings.Cut(text, "\t")
	words := strings.Fields(facts)
	if !ok || len(words) != 3 && len(words) != 4 {
		return treeEntry{}, fmt.Errorf("git ls-tree: %q is not understood", text)
	}
	e := treeEntry{mode: words[0], hash: words[2], path: path}
	if len(words) == 4 && words[3] != "-" {
		n, err := strconv.ParseInt(words[3], 10, 64)
		if err != nil {
			return treeEntry{}, fmt.Errorf("git ls-tree: %q is not understood", text)
		}
		e.size = n
	}
	return e, nil
}

// blobHash is the hash that git gives a blob.
func (r *repo) blobHash(value []byte) string {
	var h hash.Hash
	if r.hashLen == 2*sha256.Size {
		h = sha256.New()
	} else {
		h = sha1.New()
	}
	h.Write([]byte("blob " + strconv.Itoa(len(value)) + "\x00"))
	h.Write(value)
	return hex.EncodeToString(h.Sum(nil))
}
