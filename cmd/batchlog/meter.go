package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// How often a meter shows itself.
const (
	meterLive  = 100 * time.Millisecond // a terminal
	meterLines = 5 * time.Second        // anything else
)

// A meter shows how far long work is, how fast it goes and when it will be done: on a terminal as one line that
// changes, elsewhere as a line every few seconds. A nil meter shows nothing. It is not safe for concurrent use.
type meter struct {
	w     io.Writer
	live  bool // w is a terminal
	label string
	unit  string // what is counted; "B" is bytes
	total int64  // 0: unknown
	now   func() time.Time

	start, shown time.Time
	before       int64   // done when last shown
	bytesBefore  int64   // bytes when last shown
	rate         float64 // smoothed, in units per second
	byteRate     float64
	on           bool // a line stands on the terminal
}

func newMeter(w io.Writer, live bool, label, unit string, total int64) *meter {
	m := &meter{w: w, live: live, label: label, unit: unit, total: total, now: time.Now}
	m.start = m.now()
	m.shown = m.start
	return m
}

// set says that done units are behind, and bytes if they are counted beside.
func (m *meter) set(done, bytes int64) {
	if m == nil {
		return
	}
	now := m.now()
	every := meterLines
	if m.live {
		every = meterLive
	}
	past := now.Sub(m.shown)
	if past < every {
		return
	}
	smooth(&m.rate, float64(done-m.before)/past.Seconds())
	smooth(&m.byteRate, float64(bytes-m.bytesBefore)/past.Seconds())
	m.shown, m.before, m.bytesBefore = now, done, bytes
	if m.live {
		fmt.Fprintf(m.w, "\r\x1b[K%s", m.line(done))
		m.on = true
		return
	}
	fmt.Fprintln(m.w, m.line(done))
}

// smooth makes rate follow what was measured last, over some ten showings.
func smooth(rate *float64, measured float64) {
	if *rate == 0 {
		*rate = measured
		return
	}
	*rate += (measured - *rate) / 8
}

// end takes the line off the terminal.
func (m *meter) end() {
	if m != nil && m.on {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.on = false
	}
}

func (m *meter) line(done int64) string {
	var b strings.Builder
	b.WriteString(m.label)
	if m.total > 0 && m.live {
		b.WriteString("  " + bar(float64(done)/float64(m.total), 24, true))
	}
	if m.unit == "B" {
		b.WriteString("  " + bytesText(done))
		if m.total > 0 {
			b.WriteString(" of " + bytesText(m.total))
		}
	} else {
		b.WriteString("  " + countText(done))
		if m.total > 0 {
			b.WriteString(" of " + countText(m.total))
		}
		b.WriteString(" " + m.unit)
	}
	if m.total > 0 {
		fmt.Fprintf(&b, "  %d%%", min(100, 100*done/m.total))
	}
	if m.unit != "B" {
		b.WriteString("  " + rateText(m.rate) + "/s")
	}
	if m.byteRate > 0 {
		b.WriteString("  " + bytesText(int64(m.byteRate)) + "/s")
	}
	if m.total > done && m.rate > 0 {
		if left := float64(m.total-done) / m.rate; left < 1e7 {
			b.WriteString("  " + (time.Duration(left+1) * time.Second).String() + " left")
		}
	}
	return b.String()
}

// bar is part, from 0 to 1, as a bar of width characters; without Unicode it is of number signs.
func bar(part float64, width int, unicode bool) string {
	part = max(0, min(1, part))
	if !unicode {
		n := int(part*float64(width) + 0.5)
		if n == 0 && part > 0 {
			n = 1
		}
		return strings.Repeat("#", n) + strings.Repeat(" ", width-n)
	}
	eighths := int(part*float64(width)*8 + 0.5)
	if eighths == 0 && part > 0 {
		eighths = 1
	}
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune("▏▎▍▌▋▊▉")[rest-1])
		eighths += 8 - rest
	}
	return text + strings.Repeat(" ", width-eighths/8)
}
