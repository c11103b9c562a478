// Package opjson is what batches, commits, keys and values look like as JSON: in the lines that the command's write reads and tail
// prints, and in those that go between a task and a worker that is a process of its own.
//
//	{"ops":[OP,…],"token":"…","labels":{"name":"value",…}}               a batch
//	{"id":7,"time":"RFC 3339","labels":{…},"ops":[OP,…]}                 a commit
//
// where an OP is one of
//
//	{"put":{"space":SPACE,"key":KEY,"value":VALUE}}
//	{"put":{"space":SPACE,"key":KEY,"blob":BLOB}}         the value is a blob
//	{"del":{"space":SPACE,"key":KEY}}
//	{"delRange":{"space":SPACE,"low":KEY,"high":KEY}}     low and high may be left out: no bound
//
// SPACE is a string, the path with slashes, or an array of the path's parts; KEY is as [batchlog.Key.MarshalJSON] has it;
// VALUE is a string, or {"$base64":"…"} for bytes that are not UTF-8; BLOB is {"sha256":"hex","size":N}, the hash of a value that is kept outside
// of the log and its bytes, which must be stored when such an op is written.
//
// What is read is read strictly, see [Check].
package opjson

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bytespace/batchlog"
)

// ParsePath is the path that a SPACE stands for: words between slashes, / for the root, or a JSON array.
func ParsePath(text string) ([]any, error) {
	switch {
	case text == "/":
		return nil, nil
	case strings.HasPrefix(text, "["):
		path, err := batchlog.ParsePathJSON([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("space %s: %w", shortened(text), err)
		}
		return path, nil
	}
	var path []any
	for word := range strings.SplitSeq(strings.TrimPrefix(text, "/"), "/") {
		if word == "" {
			return nil, fmt.Errorf(`space %s has an empty part: write / for the root, ["a",""] for a part that is empty`, quoted(text))
		}
		if len(path) == batchlog.MaxPathDepth {
			depth := int64(1 + strings.Count(strings.TrimPrefix(text, "/"), "/"))
			return nil, &batchlog.LimitError{What: "path depth", Size: depth, Limit: batchlog.MaxPathDepth, Hint: "put more into the key"}
		}
		path = append(path, word)
	}
	return path, nil
}

// PrefixRange is the keys that begin with k: the arrays if it is an array, the strings if it is a string. Other keys are no prefix.
func PrefixRange(k batchlog.Key) (batchlog.Range, error) {
	v, err := k.Decode()
	if err != nil {
		return batchlog.Range{}, err
	}
	switch v := v.(type) {
	case string:
		return batchlog.StringPrefix(v), nil
	case []any:
		return batchlog.Prefix(v...), nil
	}
	return batchlog.Range{}, errors.New("a prefix is a string or an array")
}
