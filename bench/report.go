package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is what one mode measured. Encoded as JSON it has the figures, printed the tables.
type report struct {
	Mode    string  `json:"mode"`
	Machine machine `json:"machine"`
	Results any     `json:"results"`
	Checks  []check `json:"checks"`

	tables []table
}

// A check is one floor, and what was measured against it.
type check struct {
	What   string  `json:"what"`
	Got    float64 `json:"got"`
	Bound  float64 `json:"bound"`
	AtMost bool    `json:"atMost"` // the bound is one from above
	Unit   string  `json:"unit"`
	Pass   bool    `json:"pass"`
}

func atLeast(what string, got, bound float64, unit string) check {
	return check{What: what, Got: got, Bound: bound, Unit: unit, Pass: got >= bound}
}

func atMost(what string, got, bound float64, unit string) check {
	return check{What: what, Got: got, Bound: bound, AtMost: true, Unit: unit, Pass: got <= bound}
}

// A table is printed with its columns aligned.
type table struct {
	title string
	head  []string
	rows  [][]string
	note  string // below the table
}

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	for _, t := range r.tables {
		if err := t.print(w); err != nil {
			return err
		}
	}
	if len(r.Checks) == 0 {
		return nil
	}
	floors := table{title: "Floors: " + r.Mode, head: []string{"floor", "bound", "measured", ""}}
	for _, c := range r.Checks {
		sign, verdict := "≥", "PASS"
		if c.AtMost {
			sign = "≤"
		}
		if !c.Pass {
			verdict = "FAIL"
		}
		floors.add(c.What, fmt.Sprintf("%s %s %s", sign, figure(c.Bound), c.Unit), fmt.Sprintf("%s %s", figure(c.Got), c.Unit), verdict)
	}
	return floors.print(w)
}

func (t *table) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n\n", t.title)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, strings.Join(t.head, "\t"))
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if t.note != "" {
		fmt.Fprintf(w, "\n%s\n", t.note)
	}
	return nil
}

// figure is a number with three digits or a little more: 4769, 33.8k, 115k, 1.31.
func figure(v float64) string {
	switch a := max(v, -v); {
	case a >= 10e6:
		return strconv.FormatFloat(v/1e6, 'f', 1, 64) + "M"
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + "M"
	case a >= 10e3:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + "k"
	case a >= 100 || v == float64(int(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// micros is a duration in microseconds.
func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// A spread is what several rounds measured.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	mid := s[len(s)/2]
	if len(s)%2 == 0 {
		mid = (s[len(s)/2-1] + mid) / 2
	}
	return spread{Median: mid, Min: s[0], Max: s[len(s)-1]}
}

// String is the median with the bounds behind it, if there is more than one value.
func (s spread) String() string {
	if s.Min == s.Max {
		return figure(s.Median)
	}
	return fmt.Sprintf("%s [%s-%s]", figure(s.Median), figure(s.Min), figure(s.Max))
}

// each is f of all values.
func each[T any](values []T, f func(T) float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = f(v)
	}
	return out
}
