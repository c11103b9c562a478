package local

import (
	"archive/zip"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
)

// version1 is a disk with a database of before its settings had a file of their own: in /db with segments in /hot and /hotter, some of which have gone to
// /warm and /warmer, with chains, blobs and inverses, 162 commits in all. All of it is durable.
func version1(t *testing.T) *crashfs.FS {
	t.Helper()
	z, err := zip.OpenReader("testdata/version1.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	fs := crashfs.New()
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name := "/" + f.Name
		if err := disk.MakeDir(fs, filepath.Dir(name)); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.ReplaceFile(fs, name, content); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// version1Commits is how many that database has.
const version1Commits = 162

// version1Now is a time at which nothing more of it goes warm, as all of that has.
func version1Now() time.Time { return time.Date(2026, 11, 29, 17, 57, 19, 0, time.UTC) }
