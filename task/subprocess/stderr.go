package subprocess

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync"
)

// stderrLine bounds a line of stderr; a longer one is logged in parts.
const stderrLine = 8 << 10

// A tail is the last lines that a worker wrote to stderr.
type tail struct {
	mu struct {
		sync.Mutex
		text string
	}
}

// read takes in stderr until it ends, and calls logged with each line.
func (t *tail) read(r io.Reader, logged func(line string)) {
	in := bufio.NewReaderSize(r, stderrLine)
	for {
		part, err := in.ReadSlice('\n')
		if line := strings.ToValidUTF8(strings.TrimRight(string(part), "\r\n"), "\ufffd"); line != "" {
			t.add(line)
			logged(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.text != "" {
		t.mu.text += "\n"
	}
	t.mu.text += line
	if n := len(t.mu.text) - shownStderr; n > 0 {
		t.mu.text = "…" + strings.ToValidUTF8(t.mu.text[n:], "")
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.text
}
