package seglog

import (
	"path/filepath"
	"strings"
)

// sweep removes what was never part of the log, or no longer is: prepared files, segments before the oldest, and what a move that did not come to its end
// has left in one of its two places.
func (l *Log) sweep() {
	belongs := map[string]string{}     // to the log: where each file is, by its name
	dirs := map[string]bool{"": false} // whether it is warm
	for _, s := range l.mu.segments {
		for _, file := range l.filesLocked(s) {
			belongs[filepath.Base(file)] = file
		}
		if s.warm {
			name := inversesName(s.name)
			belongs[name] = l.path(s.dir, name)
		}
		dirs[s.dir] = s.warm
	}
	for _, dir := range l.mu.settings.Dirs {
		dirs[dir] = false
	}
	for _, dir := range l.mu.settings.Warm {
		dirs[l.warmDir(dir)] = true
	}
	for dir, warm := range dirs {
		names, err := l.opts.FS.List(l.path(dir, ""))
		if err != nil {
			l.opts.Logger.Warn("directory of segments cannot be read", "dir", dir, "err", err)
			continue
		}
		for _, name := range names {
			l.sweepFile(l.path(dir, name), belongs[name], warm)
		}
	}
}

// sweepFile removes a file if it is a leftover. place is where the file of that name belongs, "" if the log has none.
func (l *Log) sweepFile(file, place string, warm bool) {
	name := filepath.Base(file)
	first, isSegment := segmentFirst(name)
	if stem, ok := strings.CutSuffix(name, inversesSuffix); ok {
		first, isSegment = segmentFirst(stem + segmentSuffix)
	}
	_, isChain := chainFile(name)
	leftover := false
	switch {
	case isPrepared(name), strings.HasSuffix(name, copySuffix):
		leftover = true
	case place == "" && isSegment:
		if leftover = first < l.mu.segments[0].first; !leftover {
			l.opts.Logger.Warn("segment that the manifest does not name is left alone", "file", file)
		}
	case place == "" && isChain:
		leftover = warm // else it may be one that is not committed: see SweepChains
	case place != "" && place != file && (isSegment || isChain):
		_, err := l.opts.FS.Stat(place) // the other one, unless that is not there: then this may be the only one
		leftover = err == nil
	}
	if !leftover {
		return
	}
	if err := l.opts.FS.Remove(file); err != nil {
		l.opts.Logger.Warn("leftover file cannot be removed", "file", file, "err", err)
	}
}
