// Bench measures batchlog beside its peers, all in one run on the same disk, and says whether the floors that the project sets itself hold.
//
//	go run . [write] [flags]     durable writes: batchlog, Pebble, Badger, bbolt, NATS JetStream
//	go run . MODE [flags]        one of the other modes; go run . help lists them
//	go run . all [flags]         every mode with its defaults
//
// It exits with 1 if a floor does not hold. README.md says what is measured and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// A mode is one thing to measure.
type mode struct {
	name  string
	about string
	flags func(*flag.FlagSet) runner // adds the flags of the mode
}

// A runner measures, after the flags were parsed.
type runner func(context.Context, *env) (*report, error)

func allModes() []mode {
	return []mode{
		{"write", "durable batches a second, beside all peers", writeMode},
		{"get", "Get held with nothing to wait for, beside Pebble's", getMode},
		{"ryw", "Get right after the own write", rywMode},
		{"hooks", "what pre-commit hooks cost", hooksMode},
		{"tasks", "tasks and derived spaces", tasksMode},
		{"tail", "from acknowledge to delivery at a live follower", tailMode},
		{"catchup", "commits a second of a follower that reads from files, filtered and not", catchupMode},
		{"replay", "opening after kill -9", replayMode},
		{"memory", "memory of followers and scans, by size of log and store", memoryMode},
		{"allocs", "allocations of a write", allocsMode},
		{"chain", "a chain larger than memory, beside tables that Pebble takes in; commits beside it", chainMode},
		{"copy", "copies and moves within the engine, beside the same by hand", copyMode},
		{"blob", "blobs, beside cp and cat", blobMode},
		{"undo", "what it costs to keep what commits overwrite, and going back by it", undoMode},
	}
}

// An env is what every mode is given.
type env struct {
	dir     string    // an empty directory, removed afterwards
	log     io.Writer // progress
	profile string    // files for CPU profiles begin with it; "": none
}

var errFloor = errors.New("a floor does not hold")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, in io.Reader, out, log io.Writer) error {
	name := "write"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	switch name {
	case childCommand:
		if len(args) != 1 {
			return errors.New("child: what?")
		}
		return beChild(ctx, args[0], in, out)
	case "help":
		return help(out)
	case "all":
		return runModes(ctx, allModes(), args, out, log)
	}
	for _, m := range allModes() {
		if m.name == name {
			return runModes(ctx, []mode{m}, args, out, log)
		}
	}
	return fmt.Errorf("no mode %q; help lists them", name)
}

// runModes runs modes one after the other and prints each one's report when it is there. Only a single mode takes its own flags.
func runModes(ctx context.Context, modes []mode, args []string, out, log io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(log)
	dir := fs.String("dir", ".", "directory to work in, on a real disk; what is made there is removed")
	profile := fs.String("cpuprofile", "", "write CPU profiles to files whose names begin so")
	asJSON := fs.Bool("json", false, "print one JSON object a mode")
	runners := make([]runner, len(modes))
	for i, m := range modes {
		own := fs
		if len(modes) > 1 {
			own = flag.NewFlagSet(m.name, flag.ContinueOnError) // the defaults
		}
		runners[i] = m.flags(own)
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("what is %q?", fs.Arg(0))
	}
	m := thisMachine(*dir)
	if !*asJSON {
		m.print(out)
	}
	holds := true
	for i, run := range runners {
		e := &env{log: log}
		if *profile != "" {
			e.profile = *profile + "." + modes[i].name
		}
		r, err := runMode(ctx, run, e, *dir)
		if err != nil {
			return fmt.Errorf("%s: %w", modes[i].name, err)
		}
		r.Mode, r.Machine = modes[i].name, m
		if err := r.print(out, *asJSON); err != nil {
			return err
		}
		for _, c := range r.Checks {
			holds = holds && c.Pass
		}
	}
	if !holds {
		return errFloor
	}
	return nil
}

// runMode runs one mode in a directory of its own.
func runMode(ctx context.Context, run runner, e *env, parent string) (_ *report, err error) {
	if e.dir, err = os.MkdirTemp(parent, "bench-*"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.dir)) }()
	stop, err := startProfile(e.profile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return run(ctx, e)
}

// startProfile begins a CPU profile of this process in a file, if it has a name.
func startProfile(name string) (stop func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func help(w io.Writer) error {
	fmt.Fprint(w, "go run . [MODE] [flags]; go run . MODE -h lists the flags of a mode\n\n")
	for _, m := range allModes() {
		fmt.Fprintf(w, "  %-8s  %s\n", m.name, m.about)
	}
	_, err := fmt.Fprintf(w, "  %-8s  %s\n", "all", "every mode with its defaults")
	return err
}

// steps tells progress: so many of so many.
type steps struct {
	log   io.Writer
	n, of int
	began time.Time
}

func (e *env) steps(of int) *steps { return &steps{log: e.log, of: of, began: time.Now()} }

// done tells that a step is done, what it was, and when the last one will be.
func (s *steps) done(format string, args ...any) {
	s.n++
	left := time.Duration(float64(time.Since(s.began)) / float64(s.n) * float64(s.of-s.n)).Round(time.Second)
	fmt.Fprintf(s.log, "[%d/%d, %s left] %s\n", s.n, s.of, left, fmt.Sprintf(format, args...))
}

// tell tells progress that has no number of steps.
func (e *env) tell(format string, args ...any) { fmt.Fprintf(e.log, format+"\n", args...) }
