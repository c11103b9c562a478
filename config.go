package batchlog

import "time"

// DefaultLog is the name of the log that spaces belong to unless configured.
const DefaultLog = "main"

// DefaultSegmentBytes is the size of a segment unless configured.
const DefaultSegmentBytes = 64 << 20

// A LogConfig says how the commits of a set of spaces are kept. Zero fields ask for the default; to
// configure a log again sets all of its fields. In JSON, times are in nanoseconds.
type LogConfig struct {
	// Name of the log; spaces that name the same log are kept together. "" is DefaultLog.
	Name string `json:"name"`
	// HotTTL is how long sealed segments stay in the database's directory, counted from their last commit; 0: for ever.
	// Then they go to one of the Warm directories, whole, as soon as the store has durably applied them; without such directories they are removed.
	HotTTL time.Duration `json:"hotTTL,omitempty"`
	// WarmTTL is how long segments are kept when there are Warm directories that they go to, counted from their last commit as well; 0: for ever. At least
	// HotTTL.
	WarmTTL time.Duration `json:"warmTTL,omitempty"`
	// ColdTTL is for the cold tier, which there is not yet.
	ColdTTL time.Duration `json:"coldTTL,omitempty"`
	// Dirs are the directories of hot segments, which are striped over them; none: the database's own. Each has a directory of the database's own within it, by its
	// UUID. A relative one is within the directory of the log. One that leads out of that belongs to one directory of a database: see [OwnerError]. Configure makes those that it
	// did not have before, and nobody else makes any.
	Dirs []string `json:"dirs,omitempty"`
	// Warm are the directories that segments go to after HotTTL, with their chains and with what their commits have overwritten (Undo); they take
	// turns. What is said of Dirs holds for them. Whoever follows the log, or takes a commit back, does not notice where a segment is.
	Warm []string `json:"warm,omitempty"`
	// Cold is for the cold tier, which there is not yet.
	Cold string `json:"cold,omitempty"`
	// Undo keeps the inverse of every commit, what it has overwritten, for as long as the commit: package undo takes commits back with it.
	// Writers don't wait for it; it takes the place and the reading of the old values.
	Undo bool `json:"undo,omitempty"`
	// BlobBytes is the size from which on values become blobs, which bypass log and store (see Space.PutBlob), without whoever writes or reads
	// them noticing; 0: never. At least MinBlobBytes. It is about values that are written from now on.
	BlobBytes int `json:"blobBytes,omitempty"`
	// SegmentBytes is the size at which a segment is sealed and the next one begun; 0: DefaultSegmentBytes. At
	// least MinSegmentBytes. A larger commit makes a larger segment.
	SegmentBytes int64 `json:"segmentBytes,omitempty"`
}

// MinBlobBytes is the least LogConfig.BlobBytes may be, but for 0: a smaller file costs more than it saves.
const MinBlobBytes = 1 << 10

// The bounds of LogConfig.SegmentBytes.
const (
	MinSegmentBytes = 16 << 10
	MaxSegmentBytes = 1 << 30
)

// A Plan is what a change of settings does.
type Plan struct {
	Changes  []string // one sentence each; none: nothing changes
	Segments int      // sealed segments that are past their time under the new settings
	Bytes    int64    // their size
	Last     ID       // the newest commit in them
}

// Status is how a database is at one moment.
type Status struct {
	Head    ID     `json:"head"`    // newest durable commit
	Applied ID     `json:"applied"` // commit that the store has reached
	Flushed ID     `json:"flushed"` // commit that the store would have after a crash, before replay
	Oldest  ID     `json:"oldest"`  // oldest commit in the log; head+1 when it has none
	Epoch   Epoch  `json:"epoch"`
	UUID    string `json:"uuid"`    // of the database
	Session string `json:"session"` // of this opening of it, never given twice

	State  string `json:"state"`            // "open", "no space" or "read-only"
	Reason string `json:"reason,omitempty"` // why the state is not "open", or, if it is, what is tried again

	BacklogBytes int64 `json:"backlogBytes"` // ops that are durable but not applied; writers wait at BacklogLimit
	BacklogLimit int64 `json:"backlogLimit"`
	Followers    int   `json:"followers"` // readers of the log

	Clock *ClockStatus `json:"clock,omitempty"` // nil: the clock is not in doubt

	Undo  UndoStatus  `json:"undo"`
	Logs  []LogStatus `json:"logs"`
	Store StoreStatus `json:"store"`
}

// A ClockStatus says how the clock is in doubt: it jumped, or the machine was off for longer than is believed. What is kept for a time is then
// kept as if only the time had passed that is known to have. In JSON, times are in nanoseconds.
type ClockStatus struct {
	Off time.Duration `json:"off"` // how much more has passed by the clock than is known to have; negative: it went back
	For time.Duration `json:"for"` // how much time is known to have passed since
}

// A LogStatus is how one log is.
type LogStatus struct {
	Name      string    `json:"name"`
	Config    LogConfig `json:"config"`
	First     ID        `json:"first"`               // oldest commit
	Last      ID        `json:"last"`                // newest durable commit
	Segments  int       `json:"segments"`            // the active one included
	Bytes     int64     `json:"bytes"`               // commits and indexes, in bytes on disk
	Syncs     int64     `json:"syncs"`               // since it was opened: each makes a group of commits durable
	Oldest    time.Time `json:"oldest"`              // time of the oldest commit; zero without one
	Warm      int       `json:"warm,omitempty"`      // segments that are in warm directories
	WarmBytes int64     `json:"warmBytes,omitempty"` // their size, without what their commits have overwritten
	Damaged   []string  `json:"damaged,omitempty"`
	// Trouble is what the last trim could not move or drop, and why; "": it could do all. It is tried again.
	Trouble string `json:"trouble,omitempty"`

	// Dirs are the directories that its segments go to, or are in, but for the database's own.
	Dirs []DirStatus `json:"dirs,omitempty"`
}

// A DirStatus is how a directory of segments was when it was last looked at: when the database was opened, when anything was to be
// changed there, and each time the log is trimmed.
type DirStatus struct {
	Dir    string `json:"dir"`              // as configured
	Kind   string `json:"kind"`             // "hot" or "warm", as configured; "former" if it no longer is
	State  string `json:"state"`            // DirReady, or one of the others
	Reason string `json:"reason,omitempty"` // why the state is not "ready": what is there may be read, and is not changed
}

// The states of a directory of segments.
const (
	DirReady      = "ready"      // it belongs to the database
	DirMissing    = "missing"    // it is not there: as a rule its disk is not mounted
	DirUnmarked   = "unmarked"   // it is there, but nothing says that it is the database's
	DirUnreadable = "unreadable" // its disk does not say
	DirTaken      = "taken"      // it belongs to another database: one that this is a copy of, or a later state of it
	DirLeft       = "left"       // the database was told to leave it to another one
)

// StoreStatus is how the store is.
type StoreStatus struct {
	Bytes       int64   `json:"bytes"`       // on disk
	MemoryBytes int64   `json:"memoryBytes"` // in memory, not yet on disk
	CacheBytes  int64   `json:"cacheBytes"`  // block cache in use, in what memtables leave of their memory as well
	Compactions int64   `json:"compactions"` // since it was opened
	ReadAmp     int     `json:"readAmp"`     // tables that a read may have to look at
	WriteAmp    float64 `json:"writeAmp"`    // bytes written to disk for each byte applied
}
