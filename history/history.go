// Package history derives spaces from the history of a git repository that `batchlog import git` has loaded: who changed it how much and
// when, how large each directory is, and which file has which word. Each is a task, made by a function; run it with [task.Run]:
//
//	repo := db.Space("git", "linux")
//	err := task.Run(ctx, db, history.Sizes(repo))
//
// What they read and what they derive lies in one space for each repository:
//
//	git/NAME/files, modes, omitted, commits   the import's
//	git/NAME/authors                          [Authors]: commits by author, and by author and month
//	git/NAME/sizes                            [Sizes]: bytes and files by directory
//	git/NAME/words                            [Words]: the lines of each word by file
//
// All of them work the same way. What a derived space adds up to is a function of the source spaces as they are, not of the commits that led
// there: a task keeps, for each key of its source, what it has derived from it, under that key. When the key changes, what was derived is taken back
// and what is to be derived now is added. So any change of the source is followed, that of an undo as well, and neither the size
// of a window nor how many are computed side by side makes a difference.
//
// A window must fit into one transaction: what it derives is at most [batchlog.MaxBatchBytes]. The tasks cut their windows so that this
// leaves ample room; a single commit that goes beyond it fails with a [batchlog.ErrTooLarge], and then the task's policy decides.
package history

import (
	"fmt"
	"unicode/utf8"

	"github.com/bytespace/batchlog"
)

// PathKey is the key of a path of the repository: a string, or bytes if it is not UTF-8.
func PathKey(path string) batchlog.Key { return batchlog.K(keyPart(path)) }

// Path is the path that [PathKey] made k of.
func Path(k batchlog.Key) (string, error) {
	v, err := k.Decode()
	if err != nil {
		return "", err
	}
	return textOf(k, v)
}

// keyPart is text as a key, or a part of one, holds it.
func keyPart(text string) any {
	if utf8.ValidString(text) {
		return text
	}
	return []byte(text)
}

// textOf is the text that keyPart made part of, which is from k.
func textOf(k batchlog.Key, part any) (string, error) {
	switch part := part.(type) {
	case string:
		return part, nil
	case []byte:
		return string(part), nil
	}
	return "", fmt.Errorf("key %s holds no text where some should be", k)
}

// secondOf is the text that is the second of the two parts of a key.
func secondOf(k batchlog.Key) (string, error) {
	v, err := k.Decode()
	if err != nil {
		return "", err
	}
	parts, ok := v.([]any)
	if !ok || len(parts) != 2 {
		return "", fmt.Errorf("key %s has not two parts", k)
	}
	return textOf(k, parts[1])
}
