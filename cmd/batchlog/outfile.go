package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// mayWrite reports why a file is not to be written.
func mayWrite(name string, force bool) error {
	stat, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case stat.IsDir():
		return fmt.Errorf("%s is a directory", name)
	case !stat.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file; without --out the value goes to stdout", name)
	case !force:
		return &hintedError{err: fmt.Errorf("%s is there already", name), hint: "--force overwrites it"}
	}
	return nil
}

// writeFile makes the file name of what write writes, whole or not at all: durable under another name beside it, then renamed.
func writeFile(name string, force bool, write func(f io.Writer) error) (err error) {
	part := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.%x.part", filepath.Base(name), rand.Uint64()))
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = mayWrite(name, force) // somebody may have made it meanwhile
	}
	if err != nil {
		return err
	}
	return os.Rename(part, name)
}

// A writerFunc is a writer of one function.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
