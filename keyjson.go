package batchlog

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bytespace/batchlog/bytewise"
)

// Keys as JSON. What JSON has stands for itself; the rest are objects with one member:
//
//	{"$date":"2026-11-22T18:45:53.123Z"}   a date, RFC 3339
//	{"$bytes":"AAH+/w=="}                  bytes, base64
//	{"$undefined":true}                    undefined
//	{"$raw":"43"}                          a whole key in hex: bytes that are not bytewise, or infinities

// MarshalJSON is k in the form above. The form is read back by [Key.UnmarshalJSON] to the same bytes.
func (k Key) MarshalJSON() ([]byte, error) {
	v, err := k.Decode()
	if err == nil {
		if text, ok := appendJSON(nil, v); ok {
			return text, nil
		}
	}
	return []byte(`{"$raw":"` + hex.EncodeToString(k) + `"}`), nil
}

// UnmarshalJSON sets k to the key that text, in the form above, stands for.
func (k *Key) UnmarshalJSON(text []byte) error {
	v, raw, err := parseKeyJSON(text)
	if err != nil {
		return err
	}
	if raw != nil {
		*k = raw
		return nil
	}
	b, err := bytewise.Append(nil, v)
	if err != nil {
		return fmt.Errorf("key %s: %w", shortened(text), err)
	}
	*k = b
	return nil
}

// ParsePathJSON is the parts of a space's path from a JSON array of them.
func ParsePathJSON(text []byte) ([]any, error) {
	if len(text) > keyJSONBytes {
		return nil, &LimitError{What: "path as JSON", Size: int64(len(text)), Limit: keyJSONBytes}
	}
	v, raw, err := parseKeyJSON(text)
	if err != nil {
		return nil, err
	}
	parts, ok := v.([]any)
	if raw != nil || !ok {
		return nil, fmt.Errorf("path %s is not a JSON array", shortened(text))
	}
	return parts, nil
}

// appendJSON appends v as JSON. ok is false where v has no form of its own.
func appendJSON(dst []byte, v any) (_ []byte, ok bool) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), true
	case bool:
		return strconv.AppendBool(dst, v), true
	case float64:
		if math.IsInf(v, 0) {
			return dst, false
		}
		return appendNumber(dst, v), true
	case string:
		return appendString(dst, v), true
	case time.Time:
		if y := v.Year(); y < 0 || y > 9999 {
			return dst, false
		}
		dst = append(dst, `{"$date":"`...)
		dst = v.UTC().AppendFormat(dst, time.RFC3339Nano)
		return append(dst, `"}`...), true
	case []byte:
		dst = append(dst, `{"$bytes":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, v)
		return append(dst, `"}`...), true
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, ok = appendJSON(dst, e); !ok {
				return dst, false
			}
		}
		return append(dst, ']'), true
	default:
		if v == bytewise.Undefined {
			return append(dst, `{"$undefined":true}`...), true
		}
		return dst, false
	}
}

func appendNumber(dst []byte, f float64) []byte {
	text, err := json.Marshal(f)
	if err != nil {
		panic("batchlog: bug: " + err.Error()) // only NaN and infinities, which keys hold not or were sorted out
	}
	return append(dst, text...)
}

func appendString(dst []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("batchlog: bug: " + err.Error())
	}
	return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// parseKeyJSON is the value that text stands for, or for {"$raw":…} the bytes.
func parseKeyJSON(text []byte) (v any, raw []byte, err error) {
	if len(text) > keyJSONBytes {
		return nil, nil, &LimitError{What: "key as JSON", Size: int64(len(text)), Limit: keyJSONBytes}
	}
	if v, ok, err := parseSimple(text); ok {
		return v, nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, nil, fmt.Errorf("key %s is not JSON: %w", shortened(text), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("key %s: more than one JSON value", shortened(text))
	}
	if m, ok := v.(map[string]any); ok && len(m) == 1 && m["$raw"] != nil {
		s, ok := m["$raw"].(string)
		if !ok {
			return nil, nil, fmt.Errorf("key %s: $raw is not a string of hex digits", shortened(text))
		}
		raw, err := hex.DecodeString(s)
		if err != nil {
			return nil, nil, fmt.Errorf("key %s: $raw: %w", shortened(text), err)
		}
		return nil, raw, nil
	}
	v, err = fromJSON(v)
	if err != nil {
		return nil, nil, fmt.Errorf("key %s: %w", shortened(text), err)
	}
	return v, nil, nil
}

// keyJSONBytes bounds the text of a key: it may have some twenty bytes for one of the key, as {"$undefined":true} has. What is longer is
// no key, and would take as much memory again and again before that shows.
const keyJSONBytes = 32 * MaxKeyBytes

// parseSimple is the value of a text that is one string without escapes, or one number, as most keys are; ok says whether it is.
func parseSimple(text []byte) (v any, ok bool, err error) {
	if len(text) == 0 {
		return nil, false, nil
	}
	switch c := text[0]; {
	case c == '"' && text[len(text)-1] == '"' && bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) && json.Valid(text):
		return string(text[1 : len(text)-1]), true, nil
	case (c == '-' || '0' <= c && c <= '9') && json.Valid(text):
		if v, err = parseNumber(string(bytes.TrimRight(text, " \t\r\n"))); err != nil {
			return nil, true, fmt.Errorf("key %s: %w", shortened(text), err)
		}
		return v, true, nil
	}
	return nil, false, nil
}

// shortened is text for an error, or its beginning if it is long: enough to find it.
func shortened(text []byte) string {
	const most = 200
	if len(text) <= most {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:most]), "") + fmt.Sprintf("… (%d bytes)", len(text))
}

// fromJSON is a decoded JSON value as a value of package bytewise.
func fromJSON(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		return parseNumber(string(v))
	case []any:
		for i := range v {
			e, err := fromJSON(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = e
		}
		return v, nil
	case map[string]any:
		return fromTagged(v)
	default:
		return v, nil
	}
}

// parseNumber is text as a float64. An integer that a float64 cannot hold is refused rather than rounded, but for the form that
// [appendNumber] gives to large ones: the fewest digits that lead back to the same float64, then zeros.
func parseNumber(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("number %s: %w", shortened([]byte(text)), errors.Unwrap(err)) // which has the text in it
	}
	integer := !strings.ContainsAny(text, ".eE")
	if integer && text != strconv.FormatFloat(f, 'f', 0, 64) && text != strconv.FormatFloat(f, 'f', -1, 64) {
		return 0, fmt.Errorf("number %s is not exact as a float64", shortened([]byte(text)))
	}
	return f, nil
}

func fromTagged(m map[string]any) (any, error) {
	if len(m) == 1 {
		if s, ok := m["$date"].(string); ok {
			if len(s) > 64 {
				return nil, fmt.Errorf("$date: %s is no date", shortened([]byte(s)))
			}
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return nil, fmt.Errorf("$date: %w", err)
			}
			return t, nil
		}
		if s, ok := m["$bytes"].(string); ok {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return nil, fmt.Errorf("$bytes: %w", err)
			}
			return b, nil
		}
		if m["$undefined"] == true {
			return bytewise.Undefined, nil
		}
	}
	return nil, errors.New(`a JSON object is no key; known are {"$date":…}, {"$bytes":…}, {"$undefined":true} and, for a whole key, {"$raw":…}`)
}
