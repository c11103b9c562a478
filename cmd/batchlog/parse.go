package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
)

// pathArg is the path that an argument stands for: a SPACE.
func pathArg(text string) ([]any, error) {
	path, err := opjson.ParsePath(text)
	if err != nil {
		return nil, &usageError{err: err}
	}
	return path, nil
}

// parseKey is the key that a KEY stands for: JSON, or a word that is not JSON as a string.
func parseKey(text string) (batchlog.Key, error) {
	if json.Valid([]byte(text)) {
		var k batchlog.Key
		if err := k.UnmarshalJSON([]byte(text)); err != nil {
			return nil, &usageError{err: err}
		}
		return k, nil
	}
	if t := strings.TrimSpace(text); t != "" && strings.ContainsRune(`"[{`, rune(t[0])) {
		return nil, usagef("key %s begins as JSON does but is none; write a string that begins so as a JSON string", text)
	}
	k, err := batchlog.KeyOf(text)
	if err != nil {
		return nil, usagef("key %q: %w", text, err)
	}
	return k, nil
}

// parsePrefix is the range that --prefix P stands for: the arrays that begin with P if it is
// an array, the strings that begin with P if it is a string.
func parsePrefix(text string) (batchlog.Range, error) {
	k, err := parseKey(text)
	if err != nil {
		return batchlog.Range{}, err
	}
	r, err := opjson.PrefixRange(k)
	if err != nil {
		return batchlog.Range{}, usagef(`--prefix %s: %w; write '"%s"' for a string`, text, err, text)
	}
	return r, nil
}

// parseID is a commit's id.
func parseID(text string) (batchlog.ID, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == math.MaxUint64 { // nothing comes after that one
		return 0, usagef("%q is no commit id", text)
	}
	return batchlog.ID(id), nil
}

// parsePosition is the place that text, given for what, means. A duration is so long ago.
func parsePosition(what, text string, now time.Time) (batchlog.Position, error) {
	switch text {
	case "first":
		return batchlog.First(), nil
	case "oldest":
		return batchlog.Oldest(), nil
	case "now":
		return batchlog.Now(), nil
	}
	if id, err := parseID(text); err == nil {
		return batchlog.At(id), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return batchlog.Since(t), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return batchlog.Since(t), nil
		}
	}
	if d, err := parseDuration(text); err == nil && d >= 0 {
		return batchlog.Since(now.Add(-d)), nil
	}
	return batchlog.Position{}, usagef("%s %q is no position: write an id, first, oldest, now, a time (2026-11-22T18:45:53Z, 2026-11-22) or how long ago (90s, 2h, 7d)", what, text)
}

// parseDuration is time.ParseDuration that knows days as well.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || math.IsNaN(n) || math.Abs(n) > 100*365 {
			return 0, fmt.Errorf("%q is no duration", text)
		}
		return time.Duration(n * float64(24*time.Hour)), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: write it as 90s, 2h or 7d", text)
	}
	return d, nil
}

// A duration is a flag that parseDuration reads.
type duration time.Duration

// Set sets d from the flag's text.
func (d *duration) Set(text string) error {
	v, err := parseDuration(text)
	if err == nil && v < 0 {
		err = fmt.Errorf("%q is negative", text)
	}
	*d = duration(v)
	return err
}

func (d *duration) String() string { return time.Duration(*d).String() }

// Type names the value in help.
func (d *duration) Type() string { return "duration" }

// parseBytes is a number of bytes: plain, or with a unit: KiB, MiB and GiB (K, M, G for short) or kB, MB and GB.
func parseBytes(text string) (int64, error) {
	digits := strings.TrimRight(text, "BKMGki")
	unit, ok := map[string]int64{
		"": 1, "B": 1, "K": 1 << 10, "KiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30,
		"kB": 1e3, "MB": 1e6, "GB": 1e9,
	}[strings.TrimSpace(text[len(digits):])]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || !ok || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is no number of bytes: write it as 1048576, 1MiB or 1MB", text)
	}
	return n * unit, nil
}

// A byteSize is a flag that parseBytes reads.
type byteSize int64

// Set sets b from the flag's text.
func (b *byteSize) Set(text string) error {
	n, err := parseBytes(text)
	*b = byteSize(n)
	return err
}

func (b *byteSize) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type names the value in help.
func (b *byteSize) Type() string { return "bytes" }

// parseLabels is the labels that --label NAME=VALUE flags make.
func parseLabels(flags []string) (map[string]string, error) {
	if len(flags) == 0 {
		return nil, nil
	}
	labels := map[string]string{}
	for _, text := range flags {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--label %q: write NAME=VALUE", text)
		}
		labels[name] = value
	}
	return labels, nil
}
